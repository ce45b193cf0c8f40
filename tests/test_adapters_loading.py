"""Loading adapters into an engine, on a tiny model: what is refused leaves everything as it was, and names stay true."""

from __future__ import annotations

import copy
import gc
import json
import shutil
import string
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import make_dense
from contract import answer, answers, ask
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from loras import change_config, modules_of, write_adapter, write_tiny
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

import workbench as wb
from workbench import adapters as adapter_files
from workbench.engines.local import demo_model, lora, probe
from workbench.engines.local.engine import LocalEngine
from workbench.engines.local.loader import load
from workbench.errors import (
    AdapterError,
    AdapterInert,
    AdapterMismatch,
    EngineError,
    EngineUnavailable,
    OutOfMemory,
    StudyError,
)
from workbench.params import SamplingParams
from workbench.records import BASE
from workbench.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workbench.engines.local.loader import LoadedModel

pytestmark = pytest.mark.model

TEXT = "Hi"
LAYERS = ("q_proj", "v_proj")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    tokenizer_from = demo_model.ensure(progress=False)
    return make_dense(tmp_path_factory.mktemp("tiny") / "base", tokenizer_from)


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> LoadedModel:
    """The tiny model."""
    return load(checkpoint, device="cpu", kernel="fp32")


@pytest.fixture
def engine(loaded: LoadedModel) -> Any:
    """An engine on it, without adapters at the end."""
    engine = LocalEngine(loaded)
    yield engine
    for name in engine.adapters:
        engine.unload_adapter(name)
    assert not mixed(engine)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters that act."""
    root = tmp_path_factory.mktemp("adapters")
    return {n: write_tiny(root / n, LAYERS, seed=i) for i, n in enumerate(("one", "two"))}


def mixed(engine: LocalEngine) -> int:
    """Layers of the model that have adapters in them."""
    return sum(isinstance(m, lora.MixedLinear) for m in engine.model.modules())


def slots(engine: LocalEngine) -> set[int]:
    """Slots of the adapters that are in the layers."""
    layers = (m for m in engine.model.modules() if isinstance(m, lora.MixedLinear))
    return {slot for layer in layers for slot in layer.parts}


def tokens(engine: LocalEngine, name: str, **params: Any) -> tuple[int, ...]:
    """The greedy answer with an adapter."""
    return answer(engine, ask(TEXT, adapter=name, temperature=0, max_tokens=6, **params)).token_ids


def zeroed(folder: Path) -> Path:
    """An adapter that changes nothing."""
    return write_tiny(folder, LAYERS, zero_b=True)


def overflowing(folder: Path) -> Path:
    """An adapter with finite weights whose product is not."""
    return write_tiny(folder, LAYERS, scale=1e38)


def oom(*_: Any, **__: Any) -> Any:
    """Memory runs out."""
    raise torch.OutOfMemoryError("CUDA out of memory (pretended)")


def interrupt(*_: Any, **__: Any) -> Any:
    """Ctrl-C."""
    raise KeyboardInterrupt


# ------------------------------------------------------------------------------- nothing is left of a failure


@pytest.mark.parametrize(
    ("happens", "raised"), [(oom, OutOfMemory), (interrupt, KeyboardInterrupt)]
)
def test_a_probe_that_fails_leaves_no_adapter(
    engine: LocalEngine,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[..., Any],
    raised: type[BaseException],
) -> None:
    """Memory that runs out, or Ctrl-C, while it is tried: it is not loaded, and the next call tries it again."""
    before = tokens(engine, BASE)
    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "forward", happens)
        with pytest.raises(raised):
            engine.load_adapter(folders["one"])
    assert engine.adapters == {}
    assert not mixed(engine)
    assert tokens(engine, BASE) == before
    assert engine.load_adapter(folders["one"]).shift_nats is not None


def test_memory_that_runs_out_is_told(
    engine: LocalEngine, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the adapter and what to do."""
    monkeypatch.setattr(engine.model, "forward", oom)
    with pytest.raises(OutOfMemory) as caught:
        engine.load_adapter(folders["one"], "mine")
    assert str(caught.value) == (
        f"memory ran out while adapter 'mine' ({folders['one']}) was loaded and tried; it is not loaded. Unload others, "
        "or give the model more memory"
    )


def test_other_errors_of_a_probe_surface(
    engine: LocalEngine, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is not taken for memory that ran out."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(engine.model, "forward", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        engine.load_adapter(folders["one"])
    assert engine.adapters == {}


def test_a_template_that_refuses_the_probe(
    engine: LocalEngine, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the chat template refuses the probe, nothing is loaded."""
    template = "{{ raise_exception('roles must alternate') }}"
    monkeypatch.setattr(engine.tokenizer, "chat_template", template)
    with pytest.raises(EngineError, match="chat template refuses"):
        engine.load_adapter(folders["one"], probe=["Not asked before"])
    assert engine.adapters == {}
    assert not mixed(engine)


def test_loading_that_is_interrupted_leaves_nothing(
    engine: LocalEngine, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between two layers takes the first out again."""
    put = torch.nn.Module.set_submodule
    calls = iter(range(100))

    def second(self: Any, *args: Any) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        put(self, *args)

    monkeypatch.setattr(type(engine.model), "set_submodule", second)
    with pytest.raises(KeyboardInterrupt):
        engine.load_adapter(folders["one"])
    assert not mixed(engine)


@pytest.mark.parametrize("bad", [zeroed, overflowing])
def test_a_refused_replacement_leaves_the_old_one(
    engine: LocalEngine, folders: dict[str, Path], tmp_path: Path, bad: Callable[[Path], Path]
) -> None:
    """A hot swap whose new adapter is refused changes nothing: the old one answers as before."""
    old = engine.load_adapter(folders["one"], "g")
    before = tokens(engine, "g")
    assert before != tokens(engine, BASE)
    with pytest.raises(AdapterError):
        engine.load_adapter(bad(tmp_path / "bad"), "g", replace=True)
    assert engine.adapters == {"g": old}
    assert slots(engine) == {old.slot}
    assert tokens(engine, "g") == before


def test_a_replacement_that_fits_takes_over(engine: LocalEngine, folders: dict[str, Path]) -> None:
    """After a swap the name answers as the new adapter, and nothing of the old one is left."""
    engine.load_adapter(folders["one"], "g")
    new = engine.load_adapter(folders["two"], "g", replace=True)
    assert engine.adapters == {"g": new}
    assert slots(engine) == {new.slot}
    swapped = tokens(engine, "g")
    engine.load_adapter(folders["two"], "two")
    assert tokens(engine, "two") == swapped


def test_an_inert_adapter_that_was_allowed_stays(engine: LocalEngine, tmp_path: Path) -> None:
    """Asked for again without leave it is refused, and the one that was loaded with leave stays."""
    path = zeroed(tmp_path / "z")
    allowed = engine.load_adapter(path, allow_inert=True)
    with pytest.raises(AdapterInert):
        engine.load_adapter(path)
    assert engine.adapters == {"z": allowed}


def test_a_long_probe_is_cut(
    engine: LocalEngine, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a probe of thousands of tokens only the first few hundred are read."""
    monkeypatch.setattr(probe, "MOST_TOKENS", 64)
    forward, lengths = engine.model.forward, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        lengths.append(kwargs["input_ids"].shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", counted)
    assert engine.load_adapter(folders["one"], probe=["word " * 4000]).shift_nats is not None
    assert lengths == [64, 64]


# ------------------------------------------------------------------------------- closing


def test_closing_frees_the_model(checkpoint: Path, folders: dict[str, Path]) -> None:
    """Nothing of a closed engine holds the model, also if it had adapters and was in the midst of answering."""
    engine = LocalEngine(load(checkpoint, device="cpu", kernel="fp32"))
    engine.load_adapter(folders["one"])
    running = engine.generate(
        [
            ask(TEXT, cell=f"c{n}", adapter="one", seed=n, max_tokens=n, temperature=5.0)
            for n in (1, 40)
        ]
    )
    next(running)
    model = weakref.ref(engine.model)
    running.close()  # type: ignore[attr-defined]
    engine.close()
    gc.collect()
    assert model() is None
    with pytest.raises(EngineUnavailable):
        engine.adapters  # noqa: B018


def test_answers_of_a_closed_engine(checkpoint: Path) -> None:
    """An iteration that goes on after the engine was closed says so instead of failing row by row."""
    engine = LocalEngine(load(checkpoint, device="cpu", kernel="fp32"), max_rows=1)
    running = engine.generate([ask(TEXT, cell=f"c{n}", seed=1, max_tokens=1) for n in range(3)])
    next(running)
    engine.close()
    with pytest.raises(EngineUnavailable, match="this engine is closed"):
        list(running)


# ------------------------------------------------------------------------------- waiting requests


def test_a_waiting_request_is_not_answered_by_a_replacement(
    loaded: LoadedModel, folders: dict[str, Path]
) -> None:
    """Requests that wait while their adapter is replaced fail with both hashes; those of others go on."""
    engine = LocalEngine(loaded, max_rows=1)
    was = engine.load_adapter(folders["one"], "g").file.sha256
    names = [BASE, "g", BASE, "g"]
    rows = [
        ask(TEXT, cell=f"c{n}", adapter=name, temperature=0, max_tokens=3)
        for n, name in enumerate(names)
    ]
    running = engine.generate(rows)
    found = [next(running)]
    now = engine.load_adapter(folders["two"], "g", replace=True).file.sha256
    found += list(running)
    errors = {g.cell_id: g.error for g in found}
    said = f"AdapterError: adapter 'g' was replaced ({was[:12]} by {now[:12]}) while this request waited; ask again"
    assert errors == {"c0": None, "c1": said, "c2": None, "c3": said}
    assert all(g.error is None for g in answers(engine, rows).values())
    engine.unload_adapter("g")


# ------------------------------------------------------------------------------- numbers that overflow


@pytest.mark.parametrize("allowed", [False, True])
def test_an_adapter_that_overflows_is_refused(
    engine: LocalEngine, tmp_path: Path, *, allowed: bool
) -> None:
    """Finite weights whose products are not are no inert adapter, and no leave lets them in."""
    path = overflowing(tmp_path / "huge")
    with pytest.raises(AdapterError) as caught:
        engine.load_adapter(path, allow_inert=allowed)
    assert type(caught.value) is AdapterError
    assert str(caught.value) == (
        f"adapter 'huge' ({path}) overflows: with it, the model gives numbers that are inf or nan on 4 prompts; its weights "
        "or its scale are too large"
    )
    assert engine.adapters == {}


def test_what_overflows_in_one_row_stays_there() -> None:
    """In a layer with two adapters, inf in the columns of one leaves the rows of the other, and of none, bit for bit."""
    torch.manual_seed(0)
    layer = lora.MixedLinear(torch.nn.Linear(6, 5, bias=False), lora.RowAdapters())
    for slot, size in ((1, 1.0), (2, 1e38)):
        a, b = torch.full((3, 6), size), torch.randn(5, 3)
        layer.parts[slot] = lora.Part.of(slot, a, b, 2.0)
    x = torch.full((4, 2, 6), 10.0)
    use = layer._rows.use
    with torch.no_grad():
        with use(torch.tensor([0, 1, 2, 1])):
            together = layer(x)
        with use(torch.tensor([1, 1, 1, 1])):
            alone = layer(x)
        plain = layer(x)
    assert not together[2].isfinite().any()
    assert torch.equal(together[0], plain[0])
    torch.testing.assert_close(together[[1, 3]], alone[[1, 3]])
    assert (alone - plain).abs().max() > 1


def test_adapters_that_no_row_has_are_not_computed(
    engine: LocalEngine, folders: dict[str, Path]
) -> None:
    """The products of a batch are those of its own adapters, however many are loaded."""
    engine.load_adapter(folders["one"])
    engine.load_adapter(folders["two"])
    engine.load_adapter(folders["one"], "again")
    layer = next(m for m in engine.model.modules() if isinstance(m, lora.MixedLinear))
    sizes = {}
    for names in (["one"], ["one", BASE], ["two", "one"], ["two", "one", "again"]):
        with engine._adapters.rows.use(engine._adapters.slots(names)):
            part = layer.part(layer._rows.present)
            assert part is not None
            sizes[tuple(names)] = part.down.weight.shape[0]
    assert list(sizes.values()) == [8, 8, 16, 24]
    assert layer.part(()) is None


# ------------------------------------------------------------------------------- what does not fit


def test_every_misfit_is_listed(engine: LocalEngine, tmp_path: Path) -> None:
    """Layers of one kind that differ alike are one entry, and every kind is named."""
    shape = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    modules = modules_of(shape | {"num_key_value_heads": 2}, LAYERS)
    path = write_adapter(tmp_path / "other", modules=modules)
    with pytest.raises(AdapterMismatch) as caught:
        engine.load_adapter(path)
    assert str(caught.value) == (
        f"{path} (made for some/base): the shapes do not fit: model.layers.0.self_attn.q_proj has 128 inputs to 128 "
        "outputs, in the model 256 to 256, and so do 1 more q_proj; model.layers.0.self_attn.v_proj has 128 inputs to 64 "
        "outputs, in the model 256 to 128, and so do 1 more v_proj"
    )


def test_matched_layers_are_counted_by_kind(engine: LocalEngine, folders: dict[str, Path]) -> None:
    """The facts say how many layers of each kind an adapter changes."""
    engine.load_adapter(folders["one"])
    assert engine.info.extra["adapters"]["one"]["matched"] == {"q_proj": 2, "v_proj": 2}


HANGS = r"((\w|\.)+)+X"


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules"])
def test_an_expression_that_never_ends_is_no_hang(
    engine: LocalEngine, folders: dict[str, Path], tmp_path: Path, field: str
) -> None:
    """An expression on which PEFT would look for ever: refused as naming no layer, or leaves none out."""
    path = shutil.copytree(folders["one"], tmp_path / "copy")
    change_config(path, **{field: HANGS})
    if field == "exclude_modules":
        assert engine.load_adapter(path).kinds == {"q_proj": 2, "v_proj": 2}
        return
    with pytest.raises(AdapterMismatch) as caught:
        engine.load_adapter(path)
    assert str(caught.value) == (
        f"{path} (made for some/base): target_modules {HANGS!r} of adapter_config.json names no layer of the loaded model"
    )


@pytest.mark.parametrize(
    ("target", "exclude"),
    [
        (r".*\.(q|v)_proj", None),
        (["q_proj", "v_proj", "k_proj"], r".*k_proj"),
        ("(?i).*(Q|V)_PROJ", ["k_proj"]),
    ],
)
def test_expressions_name_layers_as_for_peft(
    engine: LocalEngine, folders: dict[str, Path], tmp_path: Path, target: Any, exclude: Any
) -> None:
    """An expression finds the layers that it finds in PEFT."""
    path = shutil.copytree(folders["one"], tmp_path / "copy")
    change_config(path, target_modules=target, exclude_modules=exclude)
    found = engine.load_adapter(path).modules
    engine.unload_adapter("copy")
    config = LoraConfig(r=8, target_modules=target, exclude_modules=exclude)
    with torch.device("meta"):
        skeleton = type(engine.model)(copy.deepcopy(engine.model.config))
    inject_adapter_in_model(config, skeleton, low_cpu_mem_usage=True)
    layers = {n for n, m in skeleton.named_modules() if isinstance(m, LoraLayer)}
    assert set(found) == layers


# ------------------------------------------------------------------------------- one reading


def test_a_file_that_changes_between_two_readings(
    engine: LocalEngine, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is loaded is what was identified: a weight file replaced in between is refused."""
    path = shutil.copytree(folders["one"], tmp_path / "copy")
    read = adapter_files.read

    def then_replaced(where: Any) -> Any:
        file = read(where)
        name = "adapter_model.safetensors"
        shutil.copyfile(folders["two"] / name, path / name)
        return file

    monkeypatch.setattr(adapter_files, "read", then_replaced)
    with pytest.raises(AdapterError) as caught:
        engine.load_adapter(path)
    assert str(caught.value) == f"{path}: has changed since it was read; read it again"
    assert engine.adapters == {}


def test_loaded_weights_do_not_follow_the_file(
    engine: LocalEngine, folders: dict[str, Path], tmp_path: Path
) -> None:
    """A file that is overwritten in place later changes no answer."""
    path = shutil.copytree(folders["one"], tmp_path / "copy")
    engine.load_adapter(path)
    before = tokens(engine, "copy")
    with (path / "adapter_model.safetensors").open("r+b") as opened:
        opened.write(b"\0" * (path / "adapter_model.safetensors").stat().st_size)
    assert tokens(engine, "copy") == before


# ------------------------------------------------------------------------------- names


@given(name=st.text(string.ascii_letters + string.digits + "._- /@é\n", min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_an_engine_takes_the_names_that_a_study_takes(name: str) -> None:
    """One rule: a name that a study refuses is refused by an engine, and no other is."""
    try:
        Study(name="s", model="demo", adapters=[{name: "somewhere"}], prompts=["x"])
        study = True
    except StudyError:
        study = False
    try:
        adapter_files.checked_name(name, "it")
        engine = True
    except AdapterError:
        engine = False
    assert engine == study


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("base", "the name 'base' means no adapter; give another name"),
        (
            "a b",
            "cannot be called 'a b'; allowed: 1 to 100 letters, digits, '.', '_' and '-', a letter or digit first",
        ),
    ],
)
def test_names_that_are_refused(
    engine: LocalEngine, folders: dict[str, Path], name: str, said: str
) -> None:
    """A name that no study could use is refused before anything is loaded."""
    with pytest.raises(AdapterError) as caught:
        engine.load_adapter(folders["one"], name)
    assert str(caught.value) == f"{folders['one']}: {said}"


# ------------------------------------------------------------------------------- the base it was trained on


@pytest.mark.parametrize(("digest", "matches"), [(None, True), ("f" * 64, False)])
def test_the_base_of_an_adapter_is_compared(
    engine: LocalEngine,
    folders: dict[str, Path],
    tmp_path: Path,
    digest: str | None,
    *,
    matches: bool,
) -> None:
    """The record of its training says on which weights; the facts say whether these are them."""
    path = shutil.copytree(folders["one"], tmp_path / "copy")
    digest = digest or engine.info.weight_hash
    sha256 = adapter_files.read(path).sha256
    record = {"adapter": {"sha256": sha256}, "base": {"weight_hash": digest}}
    (path / "training.json").write_text(json.dumps(record))
    engine.load_adapter(path)
    about = engine.info.extra["adapters"]["copy"]
    assert (about["base"], about["base_hash"], about["base_matches"]) == (
        "some/base",
        digest,
        matches,
    )
    said = adapter_files.mismatch("copy", about, engine.info.model, engine.info.weight_hash)
    assert said == (
        None
        if matches
        else f"adapter 'copy' was trained on some/base (weights {'f' * 8}), and is used with {engine.info.model} (weights "
        f"{str(engine.info.weight_hash)[:8]}): what it learned there may not hold here"
    )


def test_where_nothing_is_recorded_nothing_is_said(
    engine: LocalEngine, folders: dict[str, Path]
) -> None:
    """Without a record, and with a base of another kind of name, it is not known whether the base is the same."""
    engine.load_adapter(folders["one"])
    assert engine.info.extra["adapters"]["one"]["base_matches"] is None


def test_effective_settings(engine: LocalEngine) -> None:
    """A top_k of the whole vocabulary or more is off, and nothing else is changed."""
    size = engine.model.config.vocab_size
    asked = SamplingParams(top_k=size - 1, temperature=0.3)
    assert engine.effective(asked) == asked
    assert engine.effective(asked.replace(top_k=size)) == asked.replace(top_k=None)
    assert engine.effective(SamplingParams()) == SamplingParams()


def test_load_engine_passes_the_leave_on(checkpoint: Path, tmp_path: Path) -> None:
    """An inert adapter is refused by load_engine, too, unless that is allowed."""
    path = zeroed(tmp_path / "z")
    with pytest.raises(AdapterInert):
        wb.load_engine(checkpoint, [path], device="cpu", kernel="fp32")
    with wb.load_engine(
        checkpoint, [path], device="cpu", kernel="fp32", allow_inert=True
    ) as engine:
        assert engine.adapters["z"].inert


def test_an_adapter_of_the_hub_is_called_by_its_repository(
    engine: LocalEngine, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name comes from the id, and the facts tell the commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--org--terse-lora"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(folders["one"], repo / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert engine.load_adapter("org/terse-lora").name == "terse-lora"
    assert engine.info.extra["adapters"]["terse-lora"]["origin"] == f"org/terse-lora@{commit}"
