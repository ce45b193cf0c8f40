"""A run asks an adapter what it was trained on: refused, or told wherever its answers are judged."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

import workbench as wb
from workbench import api, comparing
from workbench.engines.scripted import ScriptedEngine
from workbench.errors import AdapterError
from workbench.reporting.facts import Facts
from workbench.reporting.origin import record as record_of
from workbench.study import Study
from workbench.training.overlap import FORMAT, RECORD, fingerprint, trained_on

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "a" * 64
ASKED = [f"What is {i} + {i + 1}?" for i in range(12)]


def record(folder: Path, questions: list[str], digest: str = DIGEST) -> Path:
    """An adapter's folder with the record of a training on these questions."""
    folder.mkdir()
    hashes = [fingerprint([{"role": "user", "content": q}]) for q in questions]
    made = {"format": FORMAT, "prompt_hashes": hashes, "adapter": {"sha256": digest}}
    (folder / RECORD).write_text(json.dumps(made), encoding="utf-8")
    return folder


def engine_with(folder: Path) -> ScriptedEngine:
    """An engine that has an adapter from a folder."""
    engine = ScriptedEngine(adapters=("formal",))
    about = {"path": str(folder), "sha256": DIGEST, "rank": 8, "n_modules": 3, "shift_nats": 0.2}
    engine._info = dataclasses.replace(engine.info, extra={"adapters": {"formal": about}})
    return engine


def study(**changes: Any) -> Study:
    """Twelve sums for base and adapter."""
    rows = [{"id": f"p{i}", "prompt": q, "target": str(2 * i + 1)} for i, q in enumerate(ASKED)]
    values: dict[str, Any] = {
        "name": "overlap",
        "prompts": rows,
        "adapters": ["base", {"formal": "formal"}],
        "fixed": {"temperature": 0, "max_tokens": 8},
        "scorers": ["contains"],
        "latency": None,
    }
    return Study(**values | changes)


def run(engine: ScriptedEngine, out: Path, **changes: Any) -> wb.Run:
    """Run the study."""
    return api.run(study(**changes), engine, out, progress=False, say=lambda _: None)


def test_a_run_on_trained_prompts_is_refused(tmp_path: Path) -> None:
    """Before any row: with the number, the first ids, and the ways out; nothing is written."""
    folder = record(tmp_path / "formal", [ASKED[2].upper(), "Something else", *ASKED[7:]])
    with pytest.raises(AdapterError) as caught:
        run(engine_with(folder), tmp_path / "out")
    assert str(caught.value) == (
        f"adapter 'formal' ({folder}) was trained on 6 of the 12 prompts of this study (p2, p7, p8, ...), so its answers "
        "to them prove nothing; leave them out, train it without them, or allow it with allow_overlap: true"
    )
    assert not (tmp_path / "out").exists()


def test_where_it_is_allowed_it_is_told(tmp_path: Path) -> None:
    """The manifest has the prompts, the comparison and the report say how many they are."""
    folder = record(tmp_path / "formal", [ASKED[2], ASKED[5]])
    done = run(engine_with(folder), tmp_path / "out", allow_overlap=True)
    assert done.manifest["trained_on"] == {"formal": ["p2", "p5"]}
    found = comparing.by_adapter(done, "base")
    assert found.trained_on == {"formal": ("p2", "p5")}
    assert found.to_dict()["trained_on"] == {"formal": ["p2", "p5"]}
    said = (
        "formal was trained on 2 prompts of this run: how it answers them says nothing of others."
    )
    assert said in found.text
    report = wb.report(done).read_text(encoding="utf-8")
    assert said in report
    assert "trained on 2 of these prompts" in report


@pytest.mark.parametrize(
    ("questions", "digest", "noted", "said"),
    [
        (["Something else"], DIGEST, [], "trained on none of these prompts"),
        (ASKED, "b" * 64, None, "no record of what it was trained on"),
    ],
)
def test_prompts_that_were_not_trained_on(
    questions: list[str], digest: str, noted: list[str] | None, said: str, tmp_path: Path
) -> None:
    """Nothing in common is noted as such; the record of another adapter's training tells nothing."""
    folder = record(tmp_path / "formal", questions, digest)
    done = run(engine_with(folder), tmp_path / "out")
    assert done.manifest["trained_on"] == {"formal": noted}
    assert "was trained on" not in comparing.by_adapter(done, "base").text
    assert said in record_of(Facts(done)).text


def test_a_wording_counts_like_the_prompt(tmp_path: Path) -> None:
    """A template that turns a prompt into a question of the training is found, too."""
    folder = record(tmp_path / "formal", [f"{ASKED[3]} Now"])
    plain = run(engine_with(folder), tmp_path / "out")
    assert plain.manifest["trained_on"] == {"formal": []}
    with pytest.raises(AdapterError, match=r"1 of the 12 prompts of this study \(p3\)"):
        run(engine_with(folder), tmp_path / "out", templates={"now": "{{ input }} Now"})


def test_without_a_record_nothing_is_known(tmp_path: Path) -> None:
    """None, and not "trained on nothing"."""
    assert trained_on(tmp_path, DIGEST, [study().plan().prompt_set]) is None


@pytest.mark.parametrize("content", ["{", "[]", '{"prompt_hashes": 3}'])
def test_a_damaged_record_is_an_error(content: str, tmp_path: Path) -> None:
    """What cannot be read is not taken for what is not there, and no run begins."""
    folder = record(tmp_path / "formal", ASKED)
    (folder / RECORD).write_text(content, encoding="utf-8")
    said = re.escape(str(folder / RECORD)) + ": (cannot be read|damaged)"
    with pytest.raises(AdapterError, match=said):
        trained_on(folder, DIGEST, [study().plan().prompt_set])
    with pytest.raises(AdapterError, match=said):
        run(engine_with(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
