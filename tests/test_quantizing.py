"""Making AWQ checkpoints: what is refused before it begins, how the process that quantizes is watched, what is written.

AutoAWQ itself is tried in ``test_quantizing_real.py``, where it is installed; here a small package takes its place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import stubawq
from checkpoints import make_dense, pack
from commands import Command, workbench
from safetensors.torch import load_file, save_file

from workbench.engines.local import demo_model
from workbench.engines.local.checkpoint import Checkpoint, Tensor, open_checkpoint
from workbench.engines.local.loader import load
from workbench.engines.local.pack import pack_state
from workbench.errors import (
    EngineUnavailable,
    ModelError,
    OutOfMemory,
    ParamError,
    UnsupportedQuantization,
    WorkbenchError,
)
from workbench.prompts import PromptSet
from workbench.quantizing import Quantized, checks, make, process, quantize

__all__ = ["workbench"]

ROWS = [{"id": f"p{i}", "prompt": f"What is {i} + {i}?", "target": 2 * i} for i in range(40)]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a real tokenizer."""
    return make_dense(tmp_path_factory.mktemp("dense") / "tiny", demo_model.ensure(progress=False))


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in AutoAWQ's place, here and in processes started from here."""
    folder = stubawq.write(tmp_path / "packages")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def leftovers(folder: Path) -> list[str]:
    """Everything in a folder that is hidden."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


# ------------------------------------------------------------------------------ refused before it begins


def test_without_autoawq_it_says_how_to_install_it(tmp_path, monkeypatch):
    """The extra is named before the model is looked for."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EngineUnavailable) as caught:
        quantize("no-such-model", tmp_path / "out")
    assert str(caught.value) == (
        "quantizing needs the package autoawq, which is not installed; run: pip install 'awq-workbench[autoawq]'"
    )


def refused(error: type[Exception], *arguments: Any, **options: Any) -> str:
    """What a call is refused with; nothing is written."""
    folder = Path(arguments[1]).parent
    before = sorted(folder.rglob("*"))
    with pytest.raises(error) as caught:
        quantize(
            *arguments,
            **{"prompts": PromptSet.from_records(ROWS), "group_size": 64, "progress": False}
            | options,
        )
    assert sorted(folder.rglob("*")) == before
    return str(caught.value)


@pytest.mark.usefixtures("stub")
def test_settings_out_of_range_are_refused(dense, tmp_path):
    """Each with its name and what is allowed."""
    out = tmp_path / "out"
    assert (
        refused(ParamError, dense, out, group_size=48) == "group_size must be 32, 64 or 128, got 48"
    )
    assert refused(ParamError, dense, out, n_prompts=0) == "n_prompts must be at least 1, got 0"
    assert refused(ParamError, dense, out, n_check=0) == "n_check must be at least 1, got 0"
    assert refused(ParamError, dense, out, max_tokens=0) == "max_tokens must be at least 1, got 0"
    assert refused(ParamError, dense, out, seed=-1) == "seed must be at least 0, got -1"
    assert refused(EngineUnavailable, dense, out, device="gpu").startswith(
        "device must be one of auto, cpu"
    )


@pytest.mark.usefixtures("stub")
def test_a_quantized_model_is_refused(dense, tmp_path):
    """Four bits of four bits make no sense."""
    assert refused(UnsupportedQuantization, "demo", tmp_path / "out") == (
        "demo: is quantized already (AWQ, groups of 32); give the dense checkpoint"
    )
    packed = pack(dense, tmp_path / "packed", 32)
    assert refused(UnsupportedQuantization, packed, tmp_path / "out") == (
        f"{packed}: is quantized already (AWQ, groups of 32); give the dense checkpoint"
    )


@pytest.mark.usefixtures("stub")
def test_an_architecture_that_cannot_be_quantized_is_refused(tmp_path):
    """Its name, and those that can."""
    other = make_dense(tmp_path / "other", demo_model.ensure(progress=False))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "gpt_neox"}))
    assert refused(ModelError, other, tmp_path / "out") == (
        f"{other}: model_type 'gpt_neox' cannot be quantized; can be: cohere, gemma, llama, mistral, phi3, qwen2, qwen3, "
        "stablelm"
    )


def shaped(shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
    """A checkpoint that is only names and shapes."""
    tensors = {name: Tensor(shape, "F32", Path("x")) for name, shape in shapes.items()}
    return Checkpoint("tiny", Path("/x"), None, {"model_type": "llama"}, tensors, None)


def test_layers_that_do_not_divide_into_groups_are_refused():
    """Which layers, how many inputs, and the group sizes that would do."""
    layers = {
        "model.layers.0.self_attn.q_proj.weight": (576, 576),
        "model.layers.0.mlp.down_proj.weight": (576, 1536),
        "model.layers.0.input_layernorm.weight": (576,),
        "model.embed_tokens.weight": (100, 7),
    }
    checks.source(shaped(layers), 64)
    with pytest.raises(ModelError) as caught:
        checks.source(shaped(layers), 128)
    assert str(caught.value) == (
        "tiny: groups of 128 do not divide the inputs of q_proj (576); that do: 32, 64"
    )
    with pytest.raises(ModelError) as caught:
        checks.source(shaped({"model.layers.0.mlp.up_proj.weight": (64, 40)}), 64)
    assert str(caught.value) == (
        "tiny: groups of 64 do not divide the inputs of up_proj (40); none of 32, 64, 128 does"
    )
    with pytest.raises(ModelError) as caught:
        checks.source(shaped({"model.layers.0.mlp.up_proj.weight": (36, 64)}), 64)
    assert str(caught.value) == (
        "tiny: the number of outputs must divide by 8, which it does not in up_proj (36)"
    )
    with pytest.raises(ModelError, match=r"^tiny: has no linear layers under model\.layers$"):
        checks.source(shaped({"lm_head.weight": (64, 64)}), 64)


@pytest.mark.usefixtures("stub")
def test_a_folder_that_is_in_use_is_refused(dense, tmp_path):
    """A file, a folder that holds something, and the model's own; an empty folder is fine."""
    (tmp_path / "file").write_text("x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("x")
    assert (
        refused(WorkbenchError, dense, tmp_path / "file")
        == f"{tmp_path}/file: is a file; give a new folder"
    )
    assert (
        refused(WorkbenchError, dense, full)
        == f"{full}: is not empty; give a new folder, or remove it first"
    )
    assert (
        refused(WorkbenchError, dense, dense)
        == f"{dense}: is the model's own folder; give a new one"
    )
    (tmp_path / "empty").mkdir()
    assert checks.target(tmp_path / "empty", dense) == tmp_path / "empty"
    assert refused(WorkbenchError, dense, tmp_path / "file" / "out") == (
        f"{tmp_path}/file/out: cannot be made (File exists)"
    )


def test_what_a_killed_call_left_is_removed(dense, tmp_path):
    """Temporary folders of processes that are gone go; those of living ones stay, and those of other targets."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    names = [
        f".out.quantizing-{gone.pid}-abc",
        f".out.quantizing-{os.getpid()}-abc",
        f".other.quantizing-{gone.pid}-abc",
    ]
    for name in names:
        (tmp_path / name / "checkpoint").mkdir(parents=True)
    checks.target(tmp_path / "out", dense)
    assert sorted(leftovers(tmp_path)) == sorted(names[1:])


@pytest.mark.usefixtures("stub")
def test_too_little_room_is_refused(dense, tmp_path, monkeypatch):
    """Disk and memory, each with what is needed and what there is."""
    memory = psutil.virtual_memory()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Disk", (), {"free": 2**20})())
        said = refused(WorkbenchError, dense, tmp_path / "out")
    assert said == f"{tmp_path}: 0.1 GiB of disk are needed, 0.0 GiB are free"
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=2**30))
    said = refused(OutOfMemory, dense, tmp_path / "out", check=False)
    assert said == (
        f"{dense}: quantizing needs about 1.1 GiB of memory, 1.0 GiB are free; calibrate with fewer prompts, or use a "
        "machine with more"
    )


def test_the_size_is_known_beforehand(dense, tmp_path):
    """The weights of a packed checkpoint take what was said, to within the file's header."""
    for group_size in checks.GROUP_SIZES:
        packed = open_checkpoint(pack(dense, tmp_path / f"g{group_size}", group_size))
        said = checks.packed_bytes(open_checkpoint(dense), group_size)
        assert said < packed.file_bytes < said + 20_000


# ------------------------------------------------------------------------------------------ the whole


@pytest.fixture(scope="module")
def made(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Quantized, list[str]]:
    """A checkpoint made with the package in AutoAWQ's place, and what was said."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        packages = stubawq.write(folder / "packages")
        patch.syspath_prepend(packages)
        patch.setenv("PYTHONPATH", str(packages))
        said: list[str] = []
        done = quantize(
            dense, folder / "out", PromptSet.from_records(ROWS), group_size=64, n_prompts=16, n_check=6, max_tokens=5,
            seed=3, progress=False, say=said.append,
        )  # fmt: skip
    return done, said


def test_what_is_written_is_a_checkpoint_that_loads(made, dense):
    """Packed in groups of 64, with the dense model's tokenizer, template and generation settings, byte for byte."""
    path = made[0].path
    found = open_checkpoint(path)
    assert found.group_size == 64
    assert len(found.quantized_shapes) == 14
    assert sorted(p.name for p in path.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "quantize.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer.json"):
        assert (path / name).read_bytes() == (dense / name).read_bytes()
    assert (
        load(path, device="cpu", kernel="fp32", progress=False).info.quantization == "awq-4bit-g64"
    )
    assert leftovers(path.parent) == []


def test_the_card_says_where_it_comes_from(made, dense):
    """Source and result with their hashes, the prompts by id, settings, packages and time."""
    done, said = made
    card = json.loads((done.path / "quantize.json").read_text(encoding="utf-8"))
    assert card == done.card
    assert card["format"] == 1
    assert card["source"]["model"] == str(dense)
    assert (
        card["source"]["weight_hash"] == load(dense, device="cpu", progress=False).info.weight_hash
    )
    assert (
        card["result"]["weight_hash"]
        == load(done.path, device="cpu", progress=False).info.weight_hash
    )
    assert card["settings"] == {"bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}
    used, compared = card["calibration"], card["check"]
    assert (used["n_prompts"], used["seed"], compared["n_prompts"]) == (16, 3, 6)
    assert used["n_tokens"] == used["n_blocks"] * used["block_tokens"]
    assert set(used["ids"]).isdisjoint(compared["ids"])
    prompts = PromptSet.from_records([row for row in ROWS if row["id"] in used["ids"]])
    assert used["sha256"] == prompts.sha256
    assert card["worker"]["device"] == "cpu"
    assert card["worker"]["peak_bytes"] > 2**26
    assert card["packages"]["torch"]
    assert card["seconds"] > 0
    assert said == [
        f"only {used['n_tokens']:,} tokens calibrate; with 2,048 or more the result is better"
    ]


def test_the_comparison_is_in_card_and_text(made):
    """The same numbers in the card, the object and the table."""
    done, _ = made
    assert done.check is not None
    assert {k: done.card["check"][k] for k in done.check.to_dict()} == done.check.to_dict()
    assert done.check.n_answers == 6
    assert 0 < done.check.kl_nats < 0.1
    assert done.check.kernel == "fp32"
    first, _, rest = done.text.partition("\n\n")
    assert rest == done.check.text
    used = done.card["calibration"]
    sizes = (done.card[side]["file_bytes"] for side in ("source", "result"))
    old, new = sizes
    assert first == (
        f"{done.path}: {done.card['source']['model']} in 4 bits, groups of 64; {new / 2**20:,.0f} MiB, {old / new:.1f} "
        f"times smaller; calibrated on 16 prompts ({used['n_tokens']:,} tokens) in {done.card['seconds']:,.0f} s"
    )


@pytest.fixture
def rounding(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process: weights rounded to nearest, written here."""

    def run(job: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        state = pack_state(load_file(Path(job["model"]) / "model.safetensors"), job["group_size"])
        save_file(state, Path(job["out"]) / "model.safetensors", metadata={"format": "pt"})
        return {"device": "cpu", "dtype": "float32", "peak_bytes": 1}

    assert stub
    monkeypatch.setattr(process, "run", run)


def making(model: Path, out: Path, **options: Any) -> Quantized:
    """Quantize with few prompts and no comparison."""
    prompts = PromptSet.from_records(ROWS)
    few: dict[str, Any] = {"group_size": 64, "n_prompts": 4, "check": False, "progress": False}
    return quantize(model, out, prompts, **few | options)


@pytest.mark.usefixtures("stub")
def test_an_interrupted_call_leaves_nothing(dense, tmp_path, monkeypatch):
    """Ctrl-C while the layers are searched: no folder, no temporary one."""
    where = tmp_path / "work"

    def interrupted(*_: Any, **__: Any) -> Any:
        assert len(leftovers(where)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        making(dense, where / "out")
    assert list(where.iterdir()) == []


@pytest.mark.usefixtures("rounding")
def test_an_interrupted_comparison_leaves_the_checkpoint(dense, tmp_path, monkeypatch):
    """The weights took hours and are whole: they stay, their card without a comparison."""
    read = make._read

    def interrupted(job: Any, model: Any, *rest: Any) -> Any:
        if model == job.folder:
            raise KeyboardInterrupt
        return read(job, model, *rest)

    monkeypatch.setattr(make, "_read", interrupted)
    where = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        making(dense, where / "out", check=True, n_check=1, max_tokens=1)
    assert [p.name for p in where.iterdir()] == ["out"]
    assert json.loads((where / "out" / "quantize.json").read_text())["check"] is None
    assert open_checkpoint(where / "out").group_size == 64


@pytest.mark.usefixtures("rounding")
def test_a_folder_filled_meanwhile_is_left_alone(dense, tmp_path, monkeypatch):
    """Somebody else's file stays, and the call says that the place is taken."""
    where, run = tmp_path / "work", process.run

    def filling(*arguments: Any, **options: Any) -> Any:
        (where / "out").mkdir()
        (where / "out" / "notes.txt").write_text("mine")
        return run(*arguments, **options)

    monkeypatch.setattr(process, "run", filling)
    with pytest.raises(WorkbenchError) as caught:
        making(dense, where / "out")
    assert str(caught.value) == (
        f"{where}/out: cannot be put there (Directory not empty); it was free when this began"
    )
    assert [p.name for p in (where / "out").iterdir()] == ["notes.txt"]
    assert leftovers(where) == []


@pytest.mark.usefixtures("rounding")
def test_an_empty_folder_is_filled(dense, tmp_path):
    """The folder may be there already."""
    (tmp_path / "out").mkdir()
    assert making(dense, tmp_path / "out").path == tmp_path / "out"
    assert open_checkpoint(tmp_path / "out").group_size == 64


@pytest.mark.usefixtures("rounding")
def test_layers_that_stay_dense_are_noticed(dense, tmp_path, monkeypatch):
    """Weights without one of the layers packed make no checkpoint."""
    run = process.run

    def leaving_one_out(job: dict[str, Any], *rest: Any, **options: Any) -> Any:
        found = run(job, *rest, **options)
        file, name = Path(job["out"]) / "model.safetensors", "model.layers.0.self_attn.q_proj"
        state = {k: v for k, v in load_file(file).items() if not k.startswith(name)}
        save_file(state, file, metadata={"format": "pt"})
        return found

    monkeypatch.setattr(process, "run", leaving_one_out)
    with pytest.raises(WorkbenchError) as caught:
        making(dense, tmp_path / "out")
    assert str(caught.value) == (
        "AutoAWQ left layers as they were, or changed them: model.layers.0.self_attn.q_proj"
    )
    assert not (tmp_path / "out").exists()


def test_another_package_named_awq_is_noticed(dense, tmp_path, monkeypatch):
    """Its import error is passed on with what to install."""
    (tmp_path / "packages" / "awq").mkdir(parents=True)
    (tmp_path / "packages" / "awq" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    with pytest.raises(EngineUnavailable) as caught:
        making(dense, tmp_path / "out")
    assert str(caught.value) == (
        "quantizing needs a package that cannot be imported here (No module named 'awq.models'); run: pip install "
        "'awq-workbench[autoawq]'"
    )


def test_this_process_is_left_as_it_was(made):
    """AutoAWQ is imported in the other process only."""
    assert not [name for name in sys.modules if name == "awq" or name.startswith("awq.")]
    assert made


# ---------------------------------------------------------------------------------------- the command


@pytest.mark.usefixtures("rounding")
def test_the_command_makes_a_checkpoint(workbench: Command, dense, tmp_path):
    """It prints what `Quantized.text` says, or with --json the card."""
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    options = ("--prompts", "mine.jsonl", "--group-size", 64, "--n-prompts", 4)
    few = ("--n-check", 2, "--max-tokens", 2, "--quiet")
    done = workbench("quantize", dense, "--out", "first", *options, *few)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"first: {dense} in 4 bits, groups of 64; ")
    assert "\n  perplexity " in done.out
    again = workbench("quantize", dense, "--out", "second", *options, "--no-check", "--json")
    assert again.code == 0
    assert again.json["path"] == "second"
    assert again.json["check"] is None
    assert again.json["calibration"]["n_prompts"] == 4
    assert again.err.endswith("tokens calibrate; with 2,048 or more the result is better\n")


@pytest.mark.usefixtures("stub")
def test_the_command_fails_in_one_line(workbench: Command, dense, tmp_path):
    """Exit code 1 and the message; names of prompt files are not taken for prompts."""
    done = workbench("quantize", dense, "--out", "out", "--prompts", "mine", "--prompts", "yours")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("workbench: prompts: 2 problems\n  - mine: ")
    assert not (tmp_path / "out").exists()
