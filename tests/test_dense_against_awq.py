"""What did 4 bits cost me? Two runs of one study, the dense model's and its AWQ form's, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_dense, pack
from commands import Command, workbench
from studies import sums

from workbench import api
from workbench.comparing import Comparison, compare_runs
from workbench.engines.local import demo_model
from workbench.engines.scripted import PlantedQuality, ScriptedEngine
from workbench.study import Study

__all__ = ["workbench"]
STUDY: dict[str, Any] = {
    "name": "cost",
    "prompts": sums(12),
    "grid": {"temperature": [0, 1.2]},
    "fixed": {"max_tokens": 8},
    "repeats": 2,
    "seed": 7,
    "scorers": [{"length": {"unit": "characters", "min": 25, "max": 35, "slack": 1}}],
    "baseline": {"temperature": 0},
}


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The runs of a study with a tiny dense model, and with the same model packed."""
    folder = tmp_path_factory.mktemp("two")
    dense = make_dense(folder / "dense", demo_model.ensure(progress=False))
    pack(dense, folder / "awq", 64)
    runs = []
    for name in ("dense", "awq"):
        study = {**STUDY, "model": f"./{name}", "engine": {"device": "cpu", "kernel": "fp32"}}
        file = folder / f"{name}.yaml"
        file.write_text(json.dumps(study))  # JSON is YAML
        out = folder / f"runs-{name}"
        runs.append(api.run(file, out=out, latency=False, progress=False, say=lambda _: None).path)
    return runs[0], runs[1]


def test_the_command_compares_the_same_settings_of_both_models(workbench: Command, two_runs):
    """The difference is the mean of the prompts' differences, with an interval around it, and both models are named."""
    dense, awq = two_runs
    cell = api.open_run(dense).cells["cell_id"][1]
    done = workbench("compare", dense, awq, "--baseline", cell, "--cell", cell, "--json")
    assert done.code == 0, done.err
    found = done.json
    means = [
        run.scores[run.scores["cell_id"].eq(cell)].groupby("prompt_id")["value"].mean()
        for run in map(api.open_run, (dense, awq))
    ]
    diff = means[1] - means[0]
    quality = found["quality"]
    assert quality["n"] == 12
    assert quality["baseline"] == pytest.approx(means[0].mean())
    assert quality["diff"] == pytest.approx(diff.mean())
    assert diff.abs().sum() > 0  # four bits change some answers of a random model
    assert quality["lo"] < quality["diff"] < quality["hi"]
    assert found["better"] + found["worse"] == (diff != 0).sum()
    ids = [path.name for path in (dense, awq)]
    label = api.open_run(dense).cells["label"][1]
    models = [api.open_run(path).manifest["engine"]["model"] for path in (dense, awq)]
    assert [Path(model).name for model in models] == ["dense", "awq"]
    assert found["labels"] == [f"{label} ({m}, {i})" for m, i in zip(models, ids, strict=True)]
    assert found["notes"][0] == "Shared prompts: 12 of 12 and 12."
    assert "The runs drew with different seeds." not in found["notes"]
    said = workbench("compare", dense, awq, "--baseline", cell, "--cell", cell, "--limit", 0)
    assert said.out == found["text"] + "\n"


def test_what_was_quantized_is_in_the_records(two_runs):
    """Each run says which weights it used and how they are stored."""
    dense, awq = two_runs
    engines = [api.open_run(path).manifest["engine"] for path in (dense, awq)]
    assert [e["quantization"] for e in engines] == ["none", "awq-4bit-g64"]
    assert engines[0]["weight_hash"] != engines[1]["weight_hash"]
    assert engines[0]["tokenizer_hash"] == engines[1]["tokenizer_hash"]


def planted(folder: Path, dense: float, awq: float, n: int = 150) -> Comparison:
    """Two runs whose answers are right with these chances, compared."""
    rows = sums(n)
    study = Study(
        **{
            **STUDY,
            "model": "x",
            "prompts": rows,
            "grid": {"temperature": [0.7]},
            "baseline": {"temperature": 0.7},
            "scorers": ["numeric"],
        }
    )
    runs = []
    for model, right in (("dense", dense), ("awq", awq)):
        quality = PlantedQuality(lambda _, p=right: p, {r["id"]: str(r["target"]) for r in rows})
        engine = ScriptedEngine(model, quality=quality)
        runs.append(api.run(study, engine, folder / model, progress=False, say=lambda _: None))
    return compare_runs(*runs)


def test_a_cost_that_is_there_is_found(tmp_path):
    """From 80 % right to 65 %: worse beyond chance, and the interval holds the truth."""
    found = planted(tmp_path, 0.8, 0.65)
    assert found.lo < -0.15 < found.hi < 0
    assert found.p < 0.001
    assert found.better == 0
    assert found.text.splitlines()[0].endswith("Worse beyond chance (p < 0.001).")


def test_no_cost_is_none(tmp_path):
    """The same answers: the difference is 0, and no prompt changed."""
    found = planted(tmp_path, 0.8, 0.8)
    assert (found.diff, found.better, found.worse, found.same) == (0, 0, 0, 150)
    assert "The score changed for no prompt; 150 the same." in found.text
