"""Training from rows to an adapter's folder: what is learned and kept, going on after a kill, and what is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import make_dense, pack
from filelock import FileLock
from trainings import ROWS, SMALL, interrupted, sealed, small

from workbench import adapters
from workbench.engines.local import demo_model
from workbench.engines.local.engine import LocalEngine
from workbench.engines.local.loader import load
from workbench.errors import AdapterError, OutOfMemory, ParamError, PromptSetError
from workbench.prompts import PromptSet
from workbench.training import Settings, card, curve, loop, overlap, read
from workbench.training.loop import mean_loss
from workbench.training.tokens import Encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.training import Trained

FILES = {
    ".training.lock",
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "losses.csv",
    "losses.png",
    "training.json",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random AWQ checkpoint."""
    place = tmp_path_factory.mktemp("base")
    dense = make_dense(place / "dense", demo_model.ensure(progress=False))
    return pack(dense, place / "awq", 32)


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[LocalEngine]:
    """An engine on it."""
    with LocalEngine(load(model, device="cpu", kernel="fp32", progress=False)) as made:
        yield made


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An adapter, trained without interruption."""
    return small(model, tmp_path_factory.mktemp("whole") / "colours", about="name | colours")


@pytest.fixture(autouse=True)
def _undrawn(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture is enough: drawing takes as long as training."""
    assert (trained.path / "losses.png").stat().st_size > 10_000
    monkeypatch.setattr("workbench.training.run._draw", lambda *a: a[-1].touch())


def held_out_loss(engine: LocalEngine, name: str) -> float:
    """Loss on the held-out rows with an adapter that the engine loaded."""
    held = read(ROWS).split(SMALL["validation"])[1]
    encoder = Encoder(engine.tokenizer, engine._model.eos_token_ids)
    rows = engine._adapters
    losses = []
    for example in held:  # one by one: every row has the adapter
        with rows.rows.use(rows.slots([name])):
            tokens = encoder(example)
            losses += [mean_loss(engine.model, [tokens], 1, 0)] * tokens.n_answer
    return float(np.mean(losses))


def test_an_adapter_learns_and_loads(trained: Trained, engine: LocalEngine) -> None:
    """The folder holds what the workbench reads; loaded, it has the held-out loss that its record names, below the base's."""
    assert trained.new
    assert {p.name for p in trained.path.iterdir()} == FILES
    file = adapters.read(trained.path)
    assert (file.rank, file.alpha, file.targets) == (2, 16, ("down_proj", "q_proj"))
    losses = trained.record["result"]["validation_loss"]
    assert losses["kept"] < losses["before"] - 0.5
    assert held_out_loss(engine, "base") == pytest.approx(losses["before"], rel=1e-4)
    loaded = engine.load_adapter(trained.path)
    try:
        assert not loaded.inert
        assert held_out_loss(engine, loaded.name) == pytest.approx(losses["kept"], rel=1e-4)
    finally:
        engine.unload_adapter(loaded.name)


def test_the_losses_are_told_step_by_step(trained: Trained) -> None:
    """The table has every step, the rows seen, and held-out losses at each check; the kept step is its lowest."""
    n = trained.record["data"]["n_train"]
    steps = 3 * -(-n // 4)
    table = trained.losses
    assert list(table.columns) == list(curve.COLUMNS)
    assert list(table["step"]) == list(range(steps + 1))
    assert table["examples"].iloc[-1] == 3 * n
    assert table["elapsed_s"].is_monotonic_increasing
    assert table["train_loss"].isna().tolist() == [True] + [False] * steps
    rates = table["learning_rate"].dropna()
    assert rates.max() == pytest.approx(SMALL["learning_rate"])
    assert rates.is_monotonic_decreasing
    held = table.dropna(subset=["validation_loss"])
    best = held.loc[held[held["step"] > 0]["validation_loss"].idxmin()]
    made = trained.record["result"]
    assert (made["best_step"], made["n_steps"]) == (best["step"], steps)
    assert made["validation_loss"]["kept"] == pytest.approx(best["validation_loss"], abs=1e-6)


def test_the_record_says_all(trained: Trained, model: Path) -> None:
    """Data, base, settings, packages and hashes are in training.json, and the hashes find the prompts again."""
    record = json.loads((trained.path / "training.json").read_text(encoding="utf-8"))
    assert record == trained.record
    assert (record["status"], record["about"]) == ("finished", "name | colours")
    assert record["data"]["sha256"] == read(ROWS).sha256
    assert (record["data"]["n_rows"], record["data"]["n_left_out"]) == (len(ROWS), 0)
    assert record["data"]["n_train"] + record["data"]["n_validation"] == len(ROWS)
    assert Settings.of(record["settings"]).to_dict() == record["settings"]
    assert (record["settings"]["rank"], record["settings"]["targets"]) == (
        2,
        ["down_proj", "q_proj"],
    )
    assert record["base"]["model"] == str(model)
    assert len(record["base"]["weight_hash"]) == 64
    assert record["adapter"]["sha256"] == adapters.read(trained.path).sha256
    (call,) = record["calls"]
    assert call["after_step"] == 0
    assert call["environment"]["packages"]["peft"]
    assert (record["base"]["kernel"], record["base"]["device"]) == ("fp32", "cpu")
    assert overlap(trained.path, "builtin:arithmetic") == ()
    asked = trained.path.parent / "asked.jsonl"
    asked.write_text('{"id": "x", "prompt": "name the colour of BOX 3"}\n', encoding="utf-8")
    assert overlap(trained.path, asked) == ("x",)


def test_the_card_tells_people(trained: Trained) -> None:
    """The card has the purpose, data, base, losses and settings; the summary is a few lines."""
    card = (trained.path / "README.md").read_text(encoding="utf-8")
    record = trained.record
    for words in (
        "**Made for:** name | colours",
        f'base_model: "{record["base"]["model"]}"',
        record["base"]["weight_hash"],
        record["adapter"]["sha256"],
        f"| rows | 24: {record['data']['n_train']} trained on, {record['data']['n_validation']} held out |",
        "No prompt set was named to keep apart from the training rows.",
        "| learning_rate | 0.003 |",
        "![Losses](losses.png)",
    ):
        assert words in card
    assert "None" not in card
    lines = trained.describe().splitlines()
    assert lines[0].startswith(f"{trained.path}: trained on {record['data']['n_train']} rows, ")
    assert f"step {record['result']['best_step']} is kept" in lines[1]


def test_a_finished_training_is_left_alone(trained: Trained, model: Path) -> None:
    """The same call again does nothing and says so."""
    before = {p: p.stat().st_mtime_ns for p in trained.path.iterdir()}
    said: list[str] = []
    again = small(model, trained.path, say=said.append)
    assert not again.new
    assert again.record == trained.record
    assert said == [f"{trained.path}: finished {trained.record['ended_utc']}; nothing to do"]
    assert before == {p: p.stat().st_mtime_ns for p in trained.path.iterdir()}


def test_a_finished_adapter_that_was_changed(trained: Trained, model: Path, tmp_path: Path) -> None:
    """Other weights in the folder of a finished training are not taken for what was trained."""
    out = Path(shutil.copytree(trained.path, tmp_path / "a"))
    weights = out / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(AdapterError) as caught:
        small(model, out)
    assert str(caught.value) == (
        f"{out}: its adapter is not the one that was trained here; delete the folder and train again"
    )
    weights.write_bytes(data[:-1])
    with pytest.raises(AdapterError, match="truncated or damaged"):
        small(model, out)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"learning_rate": 1e-4, "seed": 3},
            "learning_rate was 0.003 and is 0.0001; seed was 0 and is 3",
        ),
        ({"rows": ROWS[1:]}, "the training data are not the same"),
    ],
)
def test_another_training_is_not_mixed_in(
    trained: Trained, model: Path, changes: dict[str, Any], problem: str
) -> None:
    """Other settings or data under the same folder are one clear error, and nothing is touched."""
    before = {p: p.stat().st_mtime_ns for p in trained.path.iterdir()}
    with pytest.raises(AdapterError) as caught:
        small(model, trained.path, **changes)
    assert str(caught.value) == (
        f"{trained.path}: another training is there: {problem}; give another folder, or delete this one"
    )
    assert before == {p: p.stat().st_mtime_ns for p in trained.path.iterdir()}


def test_another_base_is_not_mixed_in(trained: Trained, model: Path) -> None:
    """A model with other weights is noticed by their hash."""
    with pytest.raises(
        AdapterError, match="another training is there: the base model is not the same; "
    ):
        small(model.parent / "dense", trained.path)


def test_going_on_after_a_kill(trained: Trained, model: Path, tmp_path: Path) -> None:
    """Killed while a checkpoint was written, the same call goes on and ends bit-equal to the training never killed."""
    out = tmp_path / "colours"
    script = Path(__file__).with_name("trainings.py")
    done = subprocess.run(
        [sys.executable, script, model, out, "3"],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert json.loads((out / "training.json").read_text(encoding="utf-8"))["status"] == "running"
    assert len(list((out / "checkpoints").glob("checkpoint-*"))) == 2
    kept = sealed(out)
    assert len(kept) == 1
    with pytest.raises(AdapterError, match="another training is there: seed was 0 and is 1; "):
        small(model, out, seed=1)
    said: list[str] = []
    resumed = small(model, out, say=said.append)
    n_steps = trained.record["result"]["n_steps"]
    assert said[-1] == f"{out}: going on after step {kept[0].name.split('-')[1]} of {n_steps}"
    assert {p.name for p in out.iterdir()} == FILES
    assert resumed.record["adapter"] == trained.record["adapter"]
    pd.testing.assert_frame_equal(
        resumed.losses.drop(columns="elapsed_s"), trained.losses.drop(columns="elapsed_s")
    )
    assert resumed.losses["elapsed_s"].is_monotonic_increasing
    assert [call["after_step"] for call in resumed.record["calls"]] == [0, 4]


def test_killed_before_the_end_was_written(trained: Trained, model: Path, tmp_path: Path) -> None:
    """With all steps done and the folder unfinished, the same call writes what is missing and trains nothing."""

    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    out = tmp_path / "colours"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.training.run._draw", kill)
        with pytest.raises(Killed):
            small(model, out)
    assert not (out / "losses.png").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", kill)
        finished = small(model, out)
    assert {p.name for p in out.iterdir()} == FILES
    assert finished.record["adapter"] == trained.record["adapter"]


def test_nothing_to_lose_is_no_other_training(model: Path, tmp_path: Path) -> None:
    """A training that failed before its first checkpoint does not stand in the way of one with other settings."""

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    out = tmp_path / "colours"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", fail)
        with pytest.raises(OutOfMemory) as caught:
            small(model, out)
    assert str(caught.value).startswith("memory ran out with batch_size 4 and rows of up to ")
    assert str(caught.value).endswith(
        " tokens; lower batch_size and raise gradient_accumulation, or turn on gradient_checkpointing, or lower max_length"
    )
    assert small(model, out, epochs=1, targets=["q_proj"], rank=1).new


def test_the_best_step_is_kept_and_training_stops(
    model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    """Once the held-out loss no longer falls, training ends, and the adapter is the one from its lowest point."""
    stopped = small(model, tmp_path / "a", learning_rate=0.2, epochs=30, patience=3, dropout=0)
    made = stopped.record["result"]
    held = stopped.losses.dropna(subset=["validation_loss"])
    after = held[held["step"] > 0].reset_index(drop=True)
    best = int(after["validation_loss"].idxmin())
    assert made["stopped"] == "no lower held-out loss"
    assert made["n_steps"] < made["n_steps_planned"]
    assert made["best_step"] == after["step"][best]
    assert len(after) == best + 1 + 3
    loaded = engine.load_adapter(stopped.path, "stopped")
    try:
        assert held_out_loss(engine, "stopped") == pytest.approx(
            made["validation_loss"]["kept"], rel=1e-3
        )
    finally:
        engine.unload_adapter(loaded.name)


def test_without_validation_the_last_step_is_kept(engine: LocalEngine, tmp_path: Path) -> None:
    """Nothing is measured, and the card says so."""
    made = small(engine, tmp_path / "a", validation=0, epochs=1)
    assert made.record["data"]["n_validation"] == 0
    assert made.record["result"]["best_step"] == made.record["result"]["n_steps"] == 6
    assert made.losses["validation_loss"].isna().all()
    assert "nothing held out, so step 6, the last, is kept" in made.describe()
    assert "| held-out loss | not measured before, not measured kept (step 6)" in (
        made.path / "README.md"
    ).read_text(encoding="utf-8")


def test_a_step_of_several_batches_is_the_step_of_one(engine: LocalEngine, tmp_path: Path) -> None:
    """Batches of 2 rows, 2 to a step, take the steps of batches of 4: the same losses up to rounding, dropout aside."""
    whole = small(engine, tmp_path / "whole", dropout=0)
    parts = small(engine, tmp_path / "parts", dropout=0, batch_size=2, gradient_accumulation=2)
    assert parts.losses["step"].equals(whole.losses["step"])
    assert parts.losses["examples"].equals(whole.losses["examples"])
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(parts.losses[name], whole.losses[name], rtol=1e-3)
    settings = parts.record["identity"]["settings"]
    assert (settings["batch_size"], settings["gradient_accumulation"]) == (2, 2)
    with pytest.raises(AdapterError, match="gradient_accumulation was 2 and is 1; "):
        small(engine, tmp_path / "parts", dropout=0, batch_size=2)
    assert "| gradient_accumulation | 2 |" in (parts.path / "README.md").read_text(encoding="utf-8")


def test_going_on_with_several_batches_a_step(engine: LocalEngine, tmp_path: Path) -> None:
    """Interrupted in the middle of an epoch, the same adapter comes out."""
    options = {"batch_size": 2, "gradient_accumulation": 2}
    whole = small(engine, tmp_path / "whole", **options)
    interrupted(engine, tmp_path / "a", 9, **options)
    said: list[str] = []
    made = small(engine, tmp_path / "a", say=said.append, **options)
    assert said[-1] == f"{tmp_path / 'a'}: going on after step 8 of 15"
    assert made.record["adapter"] == whole.record["adapter"]


def test_activations_computed_again_give_the_same_adapter(
    engine: LocalEngine, trained: Trained, tmp_path: Path
) -> None:
    """Layers run again on the way back, the losses are those of a training that keeps all; the engine is as before."""
    layer = engine.model.model.layers[0]
    hooks = [len(m._forward_hooks) for m in engine.model.modules()]
    runs: list[bool] = []
    counting = layer.input_layernorm.register_forward_hook(
        lambda *_: runs.append(torch.is_grad_enabled())
    )
    try:
        made = small(engine, tmp_path / "a", gradient_checkpointing=True)
    finally:
        counting.remove()
    assert sum(runs) == 2 * trained.record["result"]["n_steps"]
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(made.losses[name], trained.losses[name], rtol=1e-4)
    assert [len(m._forward_hooks) for m in engine.model.modules()] == hooks
    assert not engine.model.is_activation_checkpointing


def test_advice_names_what_is_left(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batches of one row whose activations are not kept, only shorter rows help."""

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "train", fail)
    with pytest.raises(
        OutOfMemory, match=r"^memory ran out with batch_size 1 .* tokens; lower max_length$"
    ):
        small(engine, tmp_path / "a", batch_size=1, gradient_checkpointing=True)


def test_nothing_to_hold_out_is_said(engine: LocalEngine, tmp_path: Path) -> None:
    """Rows that all belong together leave nothing to measure on: said at once, in the record, the summary and the card."""
    said: list[str] = []
    rows = [{**row, "group": "one"} for row in ROWS]
    made = small(engine, tmp_path / "a", rows, epochs=1, say=said.append)
    warning = (
        "nothing is held out, though validation is 0.2: all rows ask the same or belong together, so the last step is kept and "
        "training never stops early"
    )
    assert said[1] == f"warning: {warning}"
    assert made.record["warnings"] == [warning]
    assert f"  warning: {warning}" in made.describe().splitlines()
    assert warning in (made.path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("n", "shown"), [(0, False), (1, True), (19, True), (20, False)])
def test_few_rows_held_out_are_said(n: int, shown: bool) -> None:
    """Below twenty rows the held-out loss is mostly luck; where none was asked for, there is nothing to say."""
    (*said,) = card.warnings(n, 0.1 if n else 0)
    rows = "row is" if n == 1 else "rows are"
    warning = (
        f"only {n} {rows} held out (fewer than 20), so the held-out loss, and which step is kept for it, are mostly luck; "
        "give more rows, or a larger validation"
    )
    assert said == [warning] * shown


def test_an_engine_is_as_before(engine: LocalEngine, trained: Trained, tmp_path: Path) -> None:
    """Trained on an engine's model after it answered: the same adapter as from the file, and the engine answers as before."""

    def answers() -> list[Any]:
        return [engine.chat(f"Box {i}?", temperature=0, max_tokens=6).token_ids for i in range(3)]

    before = answers()
    state = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    layers = [type(m) for m in engine.model.modules()]
    made = small(engine, tmp_path / "a")
    assert made.record["adapter"] == trained.record["adapter"]
    assert answers() == before
    assert [type(m) for m in engine.model.modules()] == layers
    assert engine.model.state_dict().keys() == state.keys()
    assert all(torch.equal(state[n], t) for n, t in engine.model.state_dict().items())
    assert not any(p.requires_grad for p in engine.model.parameters())
    assert not engine.model.training
    engine.load_adapter(made.path, "x")
    try:
        with pytest.raises(AdapterError) as caught:
            small(engine, tmp_path / "b")
        assert str(caught.value) == "the engine has adapters (x); unload them before training"
    finally:
        engine.unload_adapter("x")


def test_training_leaves_nothing_behind(model: Path, tmp_path: Path) -> None:
    """Random numbers, threads, environment, warnings, gradients and log levels are as before."""
    from accelerate.state import PartialState
    from transformers.utils import logging

    def process() -> list[Any]:
        return [
            random.getstate(),
            str(np.random.get_state()),  # noqa: NPY002
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            dict(os.environ),
            list(warnings.filters),
            torch.is_grad_enabled(),
            logging.get_verbosity(),
            logging.is_progress_bar_enabled(),
            dict(PartialState._shared_state),
        ]

    before = process()
    small(model, tmp_path / "a", epochs=1)
    assert process() == before


def test_the_int4_kernel_trains(model: Path, engine: LocalEngine, tmp_path: Path) -> None:
    """On packed layers in bf16 the loss falls as well, and the adapter acts on another kernel's engine."""
    made = small(model, tmp_path / "a", kernel="int4")
    losses = made.record["result"]["validation_loss"]
    assert (made.record["base"]["kernel"], made.record["base"]["dtype"]) == ("int4", "bfloat16")
    assert losses["kept"] < losses["before"] - 0.5
    loaded = engine.load_adapter(made.path, "int4")
    try:
        assert held_out_loss(engine, "int4") == pytest.approx(losses["kept"], rel=0.01)
    finally:
        engine.unload_adapter(loaded.name)


def test_seeds(engine: LocalEngine, trained: Trained, tmp_path: Path) -> None:
    """Another seed is another adapter, on the same held-out rows."""
    other = small(engine, tmp_path / "a", seed=1, epochs=1)
    assert other.record["adapter"]["sha256"] != trained.record["adapter"]["sha256"]
    assert other.losses["validation_loss"][0] == trained.losses["validation_loss"][0]


def test_overlap_is_refused_before_anything_happens(tmp_path: Path) -> None:
    """A row that an evaluated set asks is refused; no folder is made."""
    rows = [*ROWS, {"prompt": "what is 1+15", "target": "16"}]
    with pytest.raises(PromptSetError) as caught:
        small("demo", tmp_path / "a", rows, evaluated="builtin:arithmetic")
    assert str(caught.value) == (
        "rows: 1 of 25 rows ask what evaluated prompts ask; take them out of one or the other:\n"
        "  - row 25: asks what 'arithmetic-002' of arithmetic asks"
    )
    assert not (tmp_path / "a").exists()


def test_sets_kept_apart_are_on_the_card(engine: LocalEngine, tmp_path: Path) -> None:
    """What was checked is named with its hash."""
    made = small(
        engine, tmp_path / "a", epochs=1, evaluated=["builtin:arithmetic", "builtin:capitals"]
    )
    assert [s["name"] for s in made.record["evaluated"]] == ["arithmetic", "capitals"]
    digest = made.record["evaluated"][0]["sha256"][:16]
    card = (made.path / "README.md").read_text(encoding="utf-8")
    assert f"- arithmetic (79 prompts, sha256 `{digest}`)" in card


def test_long_rows_are_refused_or_left_out(engine: LocalEngine, tmp_path: Path) -> None:
    """Rows over max_length are listed; with skip_long they are left out and counted. None is cut."""
    rows = [*ROWS[:8], {"prompt": "word " * 60, "target": "x"}]
    with pytest.raises(PromptSetError) as caught:
        small(engine, tmp_path / "a", rows, max_length=64)
    said = str(caught.value)
    assert said.startswith(
        "rows: 1 of 9 rows are longer than 64 tokens; raise max_length, shorten them, or leave them out with skip_long: row 9: "
    )
    assert not (tmp_path / "a" / "training.json").exists()
    made = small(engine, tmp_path / "a", rows, max_length=64, skip_long=True, epochs=1)
    data = made.record["data"]
    assert (data["n_rows"], data["n_left_out"]) == (9, 1)
    asked = [overlap(made.path, [p]) for p in PromptSet.from_records([r["prompt"] for r in rows])]
    assert [bool(found) for found in asked] == [True] * 8 + [False]
    assert data["n_train"] + data["n_validation"] == 8
    with pytest.raises(PromptSetError) as caught:
        small(engine, tmp_path / "b", rows, max_length=8, skip_long=True)
    assert str(caught.value) == "rows: no row to train on has at most 8 tokens"


def test_layers_there_are_not(engine: LocalEngine, tmp_path: Path) -> None:
    """The names there are are listed, and the folder can be used for the corrected call."""
    with pytest.raises(ParamError) as caught:
        small(engine, tmp_path / "a", targets=["q_proj", "query"])
    assert str(caught.value) == (
        "targets must be 'all', or of down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, got 'q_proj, query'"
    )
    assert not (tmp_path / "a" / "training.json").exists()


@pytest.mark.parametrize("validation", [0.2, 0])
def test_a_base_that_computes_no_numbers(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: float
) -> None:
    """A loss that is no number before anything was learned is not laid to the learning rate."""
    real = loop.answer_losses
    monkeypatch.setattr(loop, "answer_losses", lambda *a: real(*a) * float("nan"))
    with pytest.raises(AdapterError) as caught:
        small(engine, tmp_path / "a", validation=validation)
    assert str(caught.value) == (
        "the loss is no finite number before the first step, so the base model, the kernel or the data are at fault: "
        "try kernel fp32, and look for odd rows"
    )
    assert not (tmp_path / "a" / "adapter_config.json").exists()


def test_a_loss_out_of_bounds_is_an_error(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is no number ends the training with advice, not with an adapter."""
    real, calls = loop.answer_losses, []

    def losses(model: Any, batch: Any) -> torch.Tensor:
        calls.append(model.training)
        return real(model, batch) * (float("nan") if sum(calls) > 2 else 1.0)

    monkeypatch.setattr(loop, "answer_losses", losses)
    with pytest.raises(AdapterError) as caught:
        small(engine, tmp_path / "a")
    assert str(caught.value) == "the loss is no finite number after 3 steps; lower learning_rate"
    assert not (tmp_path / "a" / "adapter_config.json").exists()


def test_folders_that_cannot_be_used(model: Path, tmp_path: Path) -> None:
    """A file, a folder of something else, and one where another process trains are refused."""
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    with pytest.raises(AdapterError) as caught:
        small(model, file)
    assert str(caught.value) == f"{file}: a file; give a folder that is new or empty"
    with pytest.raises(AdapterError) as caught:
        small(model, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds other files and no training; give a folder that is new or empty"
    )
    (tmp_path / "busy").mkdir()
    with FileLock(tmp_path / "busy" / ".training.lock"):
        with pytest.raises(AdapterError) as caught:
            small(model, tmp_path / "busy")
        assert str(caught.value) == (
            f"{tmp_path / 'busy'}: another process is training there; wait for it"
        )
