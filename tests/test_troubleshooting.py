"""The messages that the page on trouble quotes are the ones the workbench says."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import pytest
from docpages import ROOT, blocks, call, missing
from studies import study_file

from workbench import Study, runner
from workbench.engines.scripted import ScriptedEngine
from workbench.errors import WorkbenchError
from workbench.latency import _same_place
from workbench.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
MESSAGES = [line for b in blocks(PAGE) if b.language == "text" for line in b.text.splitlines()]
LEAST_SHARE = 0.55
"""Least share of a message, quoted names and paths left out, that texts of the source must make up."""


def texts(source: str) -> Iterator[list[str]]:
    """The fixed parts of every text in a source that has more than a few letters; no docstrings."""
    tree = ast.parse(source)
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        parts: list[Any] = []
        if isinstance(node, ast.JoinedStr):
            parts = node.values
        elif isinstance(node, ast.Constant) and id(node) not in docs:
            parts = [node]
        fixed = [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]
        if sum(map(len, fixed)) >= 12:
            yield fixed


TEXTS = [
    found
    for path in sorted((ROOT / "workbench").rglob("*.py"))
    for found in texts(path.read_text("utf-8"))
]


def share_in_source(message: str) -> float:
    """The share of a message's characters that are fixed parts of texts which occur in it, all in order."""
    message = f" {message}"
    names = [
        range(*m.span())
        for m in re.finditer(r" workbench: |\S+\.yaml: line \d+: \w+:|'[^']*'|\S*/\S*", message)
    ]
    counted = set(range(len(message))).difference(*names)
    covered: set[int] = set()
    for fixed in TEXTS:
        spans, at = [], 0
        for part in fixed:
            start = message.find(part, at)
            if start < 0:
                break
            at = start + len(part)
            spans.append(range(start, at))
        else:
            covered.update(*spans)
    return len(covered & counted) / len(counted)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_quoted_message_is_in_the_source(message: str) -> None:
    """As a text with its names and numbers filled in."""
    assert share_in_source(message) >= LEAST_SHARE


@pytest.mark.parametrize(
    "message",
    [
        "workbench: adapters cannot be used yet (terse); run the base model alone",
        "workbench: no run 'latest': there is no run under results",
        "workbench: something else altogether went wrong, and nobody knows why",
        "process 4321 is writing",
    ],
)
def test_the_check_can_fail(message: str) -> None:
    """A message in other words, or a piece of one, is not found."""
    assert share_in_source(message) < LEAST_SHARE


def produced(text: str) -> str:
    """The one message on the page that begins so, or holds it."""
    (found,) = [message for message in MESSAGES if text in message]
    return found


def assert_same(text: str, printed: str) -> None:
    """What was printed has the message of the page, numbers aside."""
    assert missing(produced(text), printed) == []


def test_mistakes_in_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown setting, no target, a data set without a commit, no such device, no such model."""
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, name="my-study", grid={"temprature": [0]})
    printed = call(["validate", "my-study.yaml"])[1]
    assert_same("temprature", printed.replace("line 3", f"line {printed.split('line ')[1][0]}"))
    (tmp_path / "bare.jsonl").write_text(
        "".join(f'{{"id": "{name}", "prompt": "Hi {name}"}}\n' for name in "abcd"), encoding="utf-8"
    )
    study_file(tmp_path, name="my-study", prompts="bare.jsonl")
    assert_same("have no target", call(["validate", "my-study.yaml"])[1])
    study_file(tmp_path, name="my-study", prompts="hf:openai/gsm8k/test")
    assert_same("revision is missing", call(["validate", "my-study.yaml"])[1])
    local = {"kind": "local"}
    study_file(tmp_path, name="my-study", engine=local, model="Qwen/Qwen1.5-7B-Chat-AWQ")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    printed = call(["run", str(study)])[1].replace("HF_HUB_OFFLINE is set", "it cannot be reached")
    assert_same("model hub", re.sub(r"(cached models: ).*", r"\1none", printed))


def test_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that asks for a GPU where there is none."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("says what happens without a GPU")
    monkeypatch.chdir(tmp_path)
    study = study_file(tmp_path, engine={"kind": "local", "device": "cuda"})
    assert_same("CUDA device", call(["run", str(study)])[1])


def test_runs_in_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that failed, a run being written, no run at all, a file in the way, a timing elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert_same("there are no runs", call(["summary", "latest"])[1])
    cells = {"fine": {"temperature": 0}, "endless": {"max_tokens": 5000}}
    study = study_file(tmp_path, grid=cells, latency=False, name="my-study")
    printed = call(["run", str(study)])[1]
    assert_same("rows failed", printed)
    assert_same("Latency was not measured", " ".join(printed.split()))
    (run,) = (tmp_path / "results" / "my-study").iterdir()
    with RunStore.open(run, write=True) as store:
        assert_same("is writing this run", call(["run", str(study)])[1])
        store.update_manifest(latency=[{"device": "cpu", "kernel": "fp32"}])
        with pytest.raises(WorkbenchError) as refused:
            _same_place(store, {"device": "cuda:0", "kernel": "int4"})
        assert_same(
            "timed on cpu", "workbench: results" + str(refused.value).partition("results")[2]
        )
    assert call(["export", "latest", "--to", "rows.csv"])[0] == 0
    assert_same("file already", call(["export", "latest", "--to", "rows.csv"])[1])


def test_a_changed_study_begins_another_run(tmp_path: Path) -> None:
    """As the page says; the same study continues its run."""
    engine = ScriptedEngine()
    study = Study(prompts=["Hi"], fixed={"max_tokens": 2}, latency=False)
    first = runner.run(study.plan(), engine, tmp_path, progress=False)
    assert runner.run(study.plan(), engine, tmp_path, progress=False).dir == first.dir
    changed = study.replace(seed=5)
    assert runner.run(changed.plan(), engine, tmp_path, progress=False).dir != first.dir
