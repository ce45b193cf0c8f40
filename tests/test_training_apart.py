"""What a training takes from its surroundings, and what it says of itself: environment, layers, card."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from checkpoints import copy_tokenizer, make_dense
from trainings import small
from transformers import AutoModelForCausalLM, GPT2Config

from workbench.engines.local import demo_model
from workbench.engines.local.engine import LocalEngine
from workbench.engines.local.loader import load
from workbench.errors import EngineUnavailable, ModelError, ParamError
from workbench.training import Settings, card, loop, read
from workbench.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    """An engine on a tiny random model."""
    folder = tmp_path_factory.mktemp("base") / "dense"
    make_dense(folder, demo_model.ensure(progress=False))
    with LocalEngine(load(folder, device="cpu", progress=False)) as made:
        yield made


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures: drawing takes as long as training."""
    monkeypatch.setattr("workbench.training.run._draw", lambda *a: a[-1].touch())


def test_the_environment_does_not_train(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that tell accelerate how to train change no adapter, and are as before afterwards."""
    plain = small(engine, tmp_path / "plain", epochs=1)
    for name, value in {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "RANK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    made = small(engine, tmp_path / "a", epochs=1)
    assert made.record["adapter"] == plain.record["adapter"]
    assert dict(os.environ) == before


def test_a_model_elsewhere(tmp_path: Path) -> None:
    """Where the library would train on another device than the model's, that is said."""
    work = loop.Work([], [], Settings(), 0)
    with pytest.raises(EngineUnavailable) as caught:
        loop.arguments(work, Checkpoints(tmp_path, {}), torch.device("meta"))
    here = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert str(caught.value) == (
        f"the model is on meta, and accelerate was set up for {here} earlier in this process; train in a new process"
    )


@pytest.mark.parametrize("targets", ["all", ["c_attn"]])
def test_a_model_without_linear_layers(tmp_path: Path, targets: Any) -> None:
    """GPT-2 has layers of its own kind: nothing that an adapter could be trained on."""
    sizes = {"n_embd": 64, "n_layer": 1, "n_head": 2, "vocab_size": 49152, "n_positions": 128}
    network = AutoModelForCausalLM.from_config(GPT2Config(**sizes, eos_token_id=2, bos_token_id=1))
    network.save_pretrained(tmp_path / "gpt2")
    copy_tokenizer(demo_model.ensure(progress=False), tmp_path / "gpt2")
    with pytest.raises(ModelError) as caught:
        small(tmp_path / "gpt2", tmp_path / "a", targets=targets)
    assert str(caught.value) == (
        "GPT2LMHeadModel has no plain linear layers, and adapters are trained on those alone"
    )
    assert not (tmp_path / "a" / "training.json").exists()


def test_a_model_that_keeps_its_activations(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a model's code cannot compute activations again, asking for it is refused."""
    monkeypatch.setattr(type(engine.model), "supports_gradient_checkpointing", False)
    with pytest.raises(ParamError) as caught:
        small(engine, tmp_path / "a", gradient_checkpointing=True)
    assert str(caught.value) == (
        "gradient_checkpointing must be false for this kind of model, got True"
    )


def test_rows_too_long_are_left_out_before_any_is_held_out(
    engine: LocalEngine, tmp_path: Path
) -> None:
    """The row that would be held out is too long: another one is, and the adapter is still measured."""
    long = "word " * 60
    for salt in range(200):
        rows = [{"prompt": f"{long * (not i)}Say {i} {salt}", "target": "x"} for i in range(10)]
        if read(rows).split(0.1)[1][0].place == "row 1":
            break
    made = small(
        engine, tmp_path / "a", rows, validation=0.1, max_length=64, skip_long=True, epochs=1
    )
    data = made.record["data"]
    assert (data["n_train"], data["n_validation"], data["n_left_out"]) == (8, 1, 1)
    assert made.record["result"]["validation_loss"]["kept"] is not None


def test_the_card_survives_any_name(engine: LocalEngine, tmp_path: Path) -> None:
    """The fields at its top are YAML whatever the model is called; versions that changed between calls are all named."""
    record = small(engine, tmp_path / "a", epochs=1).record
    record["base"]["model"] = 'C: a "model" #1'
    (call,) = record["calls"]
    packages = call["environment"]["packages"]
    record["calls"] = [{"environment": {"packages": packages | {"peft": "0.0.1"}}}, call]
    text = card.readme("a", record)
    assert yaml.safe_load(text.split("---")[1]) == {
        "base_model": 'C: a "model" #1',
        "library_name": "peft",
        "tags": ["lora"],
    }
    assert f"peft 0.0.1 then {packages['peft']}, " in text
    assert f"torch {packages['torch']}, " in text
