"""The base that an adapter was trained on: compared by hash or name, and said where it is another one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from loras import write_adapter

import workbench as wb
from workbench import api
from workbench.adapters import base_matches, mismatch, read
from workbench.engines.scripted import ScriptedEngine
from workbench.reporting.facts import read as facts_of
from workbench.reporting.limitations import listing

if TYPE_CHECKING:
    from pathlib import Path

Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("base", "model", "matches"),
    [
        ("demo", "demo", True),
        ("Qwen/Qwen1.5-7B-Chat", "Qwen/Qwen1.5-7B-Chat", True),
        ("Qwen/Qwen1.5-7B-Chat", "Qwen/Qwen1.5-7B-Chat-AWQ", True),
        ("mistralai/Mistral-7B-v0.2", "someone/Mistral-7B-v0.2-GPTQ-Int4", True),
        ("Qwen/Qwen1.5-7B", "Qwen/Qwen1.5-7B-Chat-AWQ", False),
        ("mistralai/Mistral-7B-v0.2", "Qwen/Qwen1.5-7B-Chat", False),
        ("Qwen/Qwen1.5-7B-Chat", "demo", None),
        ("/models/qwen", "Qwen/Qwen1.5-7B-Chat", None),
        (None, "Qwen/Qwen1.5-7B-Chat", None),
    ],
)
def test_names_are_compared(
    tmp_path: Path, base: str | None, model: str, *, matches: bool | None
) -> None:
    """Names of the hub that differ in more than owner and quantization are different bases; a path tells nothing."""
    fields = {"base_model_name_or_path": base}
    file = read(write_adapter(tmp_path, modules={Q: (6, 8)}, config=fields))
    assert base_matches(file, model, "a" * 64) is matches


def test_a_hash_counts_more_than_a_name(tmp_path: Path) -> None:
    """Where the hash of the weights is known on both sides, names do not matter."""
    file = replace(read(write_adapter(tmp_path, modules={Q: (6, 8)})), base_hash="a" * 64)
    assert base_matches(file, "other/name", "a" * 64) is True
    assert base_matches(file, "some/base", "b" * 64) is False
    assert base_matches(file, "some/base", None) is True


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"adapter": {"sha256": None}, "base": {"weight_hash": "a" * 64}}, "a" * 64),
        ({"adapter": {"sha256": "another"}, "base": {"weight_hash": "a" * 64}}, None),
        ({"adapter": {"sha256": None}, "base": {"weight_hash": None}}, None),
        ({"adapter": {"sha256": None}}, None),
        ({"base": 3}, None),
        ([], None),
    ],
)
def test_the_record_of_the_training(tmp_path: Path, record: object, found: str | None) -> None:
    """The hash is read from the record of this very adapter's training, and from no other."""
    sha256 = read(write_adapter(tmp_path, modules={Q: (6, 8)})).sha256
    text = json.dumps(record).replace('"sha256": null', f'"sha256": "{sha256}"')
    (tmp_path / "training.json").write_text(text)
    assert read(tmp_path).base_hash == found


def test_a_damaged_record_tells_nothing(tmp_path: Path) -> None:
    """A record that cannot be read is no reason to refuse the adapter here."""
    folder = write_adapter(tmp_path, modules={Q: (6, 8)})
    (folder / "training.json").write_bytes(b"\xff{")
    assert read(folder).base_hash is None


def test_what_is_said() -> None:
    """Only a base that is known to be another one is said; hashes are named where both are known."""
    about = {"base": "some/base", "base_hash": None, "base_matches": False}
    end = "what it learned there may not hold here"
    assert mismatch("x", about, "demo", "b" * 64) == (
        f"adapter 'x' was trained on some/base, and is used with demo: {end}"
    )
    assert mismatch("x", about | {"base_hash": "a" * 64, "base": None}, "demo", "b" * 64) == (
        f"adapter 'x' was trained on another model (weights aaaaaaaa), and is used with demo (weights bbbbbbbb): {end}"
    )
    assert mismatch("x", about | {"base_matches": True}, "demo", None) is None
    assert mismatch("x", about | {"base_matches": None}, "demo", None) is None
    assert mismatch("x", {}, "demo", None) is None


@pytest.mark.parametrize("matches", [True, False, None])
def test_a_run_says_it(tmp_path: Path, *, matches: bool | None) -> None:
    """A known mismatch is said when the run begins, and among the limits of its report; nothing else is."""
    engine = ScriptedEngine(adapters=("formal", "other"))
    about = {"path": str(tmp_path), "sha256": "a" * 64, "rank": 8, "n_modules": 3, "base": "x/y"}
    facts = {name: about | {"base_matches": matches} for name in ("formal", "other")}
    engine._info = replace(engine.info, extra={"adapters": facts})
    prompts = [{"id": f"p{i}", "prompt": f"{i}?", "target": "1"} for i in range(4)]
    adapters = ["base", {"formal": "formal"}]
    study = wb.Study(
        name="s", prompts=prompts, adapters=adapters, scorers=["contains"], latency=None
    )
    said: list[str] = []
    run = api.run(study, engine, tmp_path / "out", progress=False, say=said.append)
    sentence = f"adapter 'formal' was trained on x/y, and is used with {engine.info.model}: what it learned there may not hold here"
    assert (sentence in said) is (matches is False)
    limits = dict(listing(facts_of(run, None, 0)))
    expected = f"A{sentence[1:]}." if matches is False else None
    assert limits.get("An adapter's base.") == expected
    assert not any("'other'" in text for text in said)
