"""LoRA adapters in the local engine: PEFT as the oracle, rows mixed in a batch, loading and unloading, liveness."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from contract import answers, ask
from peft import LoraConfig, PeftModel, get_peft_model

from workbench.engines.local.engine import LocalEngine
from workbench.engines.local.loader import load
from workbench.engines.local.lora import MixedLinear
from workbench.errors import AdapterError, AdapterInert, AdapterMismatch
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from workbench.engines.local.loader import LoadedModel
    from workbench.records import Request

pytestmark = pytest.mark.model

TEXTS = ("What is the capital of France?", "Write one sentence about the sea.", "What is 3 + 4?")
KINDS: dict[str, dict[str, Any]] = {
    "narrow": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "wide": {"r": 16, "lora_alpha": 8, "target_modules": "all-linear", "use_rslora": True},
    "uneven": {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": r".*\.(o_proj|down_proj)",
        "rank_pattern": {"down_proj": 2},
        "alpha_pattern": {r"model\.layers\.0\..*o_proj": 32},
        "layers_to_transform": None,
    },
}
"""Adapters that differ in rank, scale and layers."""


def made(model: Any, folder: Path, seed: int = 0, *, std: float = 0.02, **config: Any) -> Path:
    """An adapter with random weights, written by PEFT for a model of this shape."""
    torch.manual_seed(seed)
    empty = type(model)(copy.deepcopy(model.config))
    wrapped = get_peft_model(empty, LoraConfig(task_type="CAUSAL_LM", **config))
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std)
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(demo_loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of each kind."""
    root = tmp_path_factory.mktemp("adapters")
    return {
        name: made(demo_loaded.model, root / name, seed, **config)
        for seed, (name, config) in enumerate(KINDS.items())
    }


@pytest.fixture
def engine(demo_loaded: LoadedModel) -> Iterator[LocalEngine]:
    """An engine whose adapters are taken out again."""
    engine = LocalEngine(demo_loaded)
    yield engine
    for name in engine.adapters:
        engine.unload_adapter(name)
    assert not any(isinstance(m, MixedLinear) for m in demo_loaded.model.modules())


def rows(*adapters: str, texts: tuple[str, ...] = TEXTS) -> list[Request]:
    """Greedy and sampled rows with each adapter, those of one prompt side by side."""
    return [
        ask(text, cell=f"{name} {t}", repeat=k, adapter=name, temperature=t, seed=7, max_tokens=16)
        for text in texts
        for name in adapters
        for k, t in enumerate((0, 1.0))
    ]


def tokens(engine: LocalEngine, requests: list[Request]) -> dict[Any, tuple[int, ...]]:
    """The tokens of every answer."""
    return {key: found.token_ids for key, found in answers(engine, requests).items()}


def logits(model: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """The model's logits at every token of a text."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_computes_what_peft_computes(
    engine: LocalEngine, demo_loaded: LoadedModel, folders: dict[str, Path], kind: str
) -> None:
    """The logits with one adapter among three are those of PEFT's own layers with it alone."""
    for path in folders.values():
        engine.load_adapter(path)
    adapters = demo_loaded.adapters
    with adapters.rows.use(adapters.slots([kind])):
        mine = logits(demo_loaded.model, engine.tokenizer, TEXTS[0])
    for name in list(folders):
        engine.unload_adapter(name)
    plain = logits(demo_loaded.model, engine.tokenizer, TEXTS[0])
    oracle = PeftModel.from_pretrained(demo_loaded.model, folders[kind])
    try:
        theirs = logits(oracle.eval(), engine.tokenizer, TEXTS[0])
    finally:
        oracle.unload()
    assert (plain - theirs).abs().max() > 0.1
    torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-4)


def test_a_mixed_batch_is_its_rows_alone(engine: LocalEngine, folders: dict[str, Path]) -> None:
    """Base and three adapters in one batch give the tokens they give in batches of their own."""
    before = tokens(engine, rows(BASE))
    for path in folders.values():
        engine.load_adapter(path)
    mixed = tokens(engine, rows(BASE, *folders))
    alone: dict[Any, tuple[int, ...]] = {}
    for name in (BASE, *folders):
        alone |= tokens(engine, rows(name))
    assert mixed == alone
    assert {key: mixed[key] for key in before} == before
    greedy = {
        name: [v for k, v in mixed.items() if k[0] == f"{name} 0"] for name in (BASE, *folders)
    }
    assert len({tuple(found) for found in greedy.values()}) == 4


def test_reloading_and_swapping_are_exact(engine: LocalEngine, folders: dict[str, Path]) -> None:
    """An adapter that was taken out and put back, or swapped for another and back, answers as before."""
    engine.load_adapter(folders["narrow"])
    first = tokens(engine, rows(BASE, "narrow"))
    engine.unload_adapter("narrow")
    engine.load_adapter(folders["wide"])
    engine.load_adapter(folders["narrow"])
    assert tokens(engine, rows(BASE, "narrow")) == first
    engine.load_adapter(folders["wide"], "narrow", replace=True)
    swapped = tokens(engine, rows("narrow"))
    assert list(swapped.values()) == list(tokens(engine, rows("wide")).values())
    engine.load_adapter(folders["narrow"], replace=True)
    assert tokens(engine, rows(BASE, "narrow")) == first


def test_one_name_is_one_content(
    engine: LocalEngine, folders: dict[str, Path], tmp_path: Path
) -> None:
    """The same file under the same name is loaded once; another file under it is refused, and the first stays."""
    loaded = engine.load_adapter(folders["narrow"], "mine")
    copied = shutil.copytree(folders["narrow"], tmp_path / "copy")
    assert engine.load_adapter(copied, "mine") is loaded
    with pytest.raises(AdapterError) as caught:
        engine.load_adapter(folders["wide"], "mine")
    assert str(caught.value) == (
        f"adapter 'mine' is loaded from {folders['narrow']} ({loaded.file.sha256[:12]}), and {folders['wide']} is another "
        f"one ({engine.load_adapter(folders['wide']).file.sha256[:12]}); give it another name, or unload the first"
    )
    assert engine.adapters["mine"] is loaded
    assert engine.info.adapters["mine"] == loaded.file.sha256
    assert engine.info.extra["adapters"]["mine"]["rank"] == 4


def test_an_adapter_in_use_stays(engine: LocalEngine, folders: dict[str, Path]) -> None:
    """While an answer with it is decoded an adapter can be neither unloaded nor replaced; another one can be loaded."""
    engine.load_adapter(folders["narrow"])
    long = ask(TEXTS[1], cell="long", adapter="narrow", temperature=0, max_tokens=20)
    short = ask(TEXTS[1], cell="short", adapter="narrow", temperature=0, max_tokens=2)
    expected = tokens(engine, [long])
    running = engine.generate([long, short])
    assert next(running).cell_id == "short"
    for act in (
        lambda: engine.unload_adapter("narrow"),
        lambda: engine.load_adapter(folders["wide"], "narrow", replace=True),
    ):
        with pytest.raises(AdapterError, match="adapter 'narrow' is in use by 1 answers"):
            act()
    engine.load_adapter(folders["wide"])
    assert {g.key: g.token_ids for g in running} == expected
    engine.unload_adapter("narrow")
    with pytest.raises(AdapterError, match="adapter 'narrow' is not loaded; loaded: base, wide"):
        engine.unload_adapter("narrow")


@pytest.mark.parametrize("std", [0.0, 1e-9])
def test_an_adapter_that_does_nothing_is_refused(
    engine: LocalEngine, demo_loaded: LoadedModel, tmp_path: Path, std: float
) -> None:
    """Zeroed or vanishing weights raise before anything is generated, unless that is allowed; then the shift is noted."""
    path = made(demo_loaded.model, tmp_path / "nothing", std=std, **KINDS["narrow"])
    with pytest.raises(AdapterInert, match="changes nothing: over 4 prompts"):
        engine.load_adapter(path)
    assert engine.adapters == {}
    loaded = engine.load_adapter(path, allow_inert=True)
    assert loaded.inert
    assert loaded.shift_nats is not None
    assert loaded.shift_nats < 1e-4
    assert engine.info.extra["adapters"]["nothing"]["inert"] is True
    with pytest.raises(AdapterInert):
        engine.load_adapter(path)


def test_an_adapter_that_acts_has_its_shift_told(
    engine: LocalEngine, folders: dict[str, Path]
) -> None:
    """The shift is the mean change of a token's log-probability over the prompts it was tried on."""
    loaded = engine.load_adapter(folders["narrow"], probe=[TEXTS[0]])
    ids = engine.tokenizer(engine.render([{"role": "user", "content": TEXTS[0]}]))["input_ids"]
    where = torch.arange(len(ids) - 1), torch.tensor(ids[1:])
    found = []
    adapters = engine._adapters
    for name in (BASE, "narrow"):
        with adapters.rows.use(adapters.slots([name])), torch.no_grad():
            out = engine.model(input_ids=torch.tensor([ids])).logits[0]
        found.append(out.log_softmax(-1)[where])
    assert loaded.shift_nats == pytest.approx((found[1] - found[0]).abs().mean().item(), rel=1e-4)
    assert not loaded.inert


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 128}, "the shapes do not fit: model.layers.0.self_attn.q_proj has 128"),
        ({"num_hidden_layers": 31}, "weights for model.layers.30.self_attn.q_proj"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    engine: LocalEngine, demo_loaded: LoadedModel, tmp_path: Path, change: dict[str, int], said: str
) -> None:
    """Other sizes, or layers the model does not have, are told with the layer and both sizes; nothing is changed."""
    other = copy.deepcopy(demo_loaded.model.config)
    for name, value in change.items():
        setattr(other, name, value)
    other.layer_types = None
    path = made(type(demo_loaded.model)(other), tmp_path / "other", **KINDS["narrow"])
    before = tokens(engine, rows(BASE))
    with pytest.raises(AdapterMismatch) as caught:
        engine.load_adapter(path)
    assert said in str(caught.value)
    assert engine.adapters == {}
    assert tokens(engine, rows(BASE)) == before


def test_prompts_are_read_once_for_each_adapter(
    engine: LocalEngine, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one prompt and adapter share its keys and values; rows of two adapters never do."""
    from workbench.engines.local import engine as module

    engine.load_adapter(folders["narrow"])
    read: list[tuple[str, str]] = []
    original = module.prefill

    def counted(adapters: Any, adapter: str, ids: Any, text: str, device: Any) -> Any:
        read.append((adapter, text))
        return original(adapters, adapter, ids, text, device)

    monkeypatch.setattr(module, "prefill", counted)
    tokens(engine, rows(BASE, "narrow", texts=TEXTS[:2]))
    assert sorted(name for name, _ in read) == [BASE, BASE, "narrow", "narrow"]
    assert len(set(read)) == 4


@pytest.mark.parametrize("kernel", ["int4", "bf16"])
def test_adapters_work_on_packed_weights(
    folders: dict[str, Path], kernel: str, demo_loaded: LoadedModel
) -> None:
    """On the int4 kernel, and in bf16, the adapter shifts the same tokens by about as much as in fp32."""
    with LocalEngine(demo_loaded) as exact:
        expected = exact.load_adapter(folders["wide"]).shift_nats
        exact.unload_adapter("wide")
    with LocalEngine(load("demo", device="cpu", kernel=kernel, progress=False)) as engine:
        assert engine.load_adapter(folders["wide"]).shift_nats == pytest.approx(expected, rel=0.15)
        found = tokens(engine, rows(BASE, "wide", texts=TEXTS[1:2]))
        assert len(set(found.values())) == 4


def test_streams_answer_with_the_adapter(engine: LocalEngine, folders: dict[str, Path]) -> None:
    """A streamed answer is the batched one, token by token."""
    engine.load_adapter(folders["wide"])
    (row,) = (r for r in rows("wide", texts=TEXTS[1:2]) if r.params.greedy)
    assert tuple(e.token_id for e in engine.stream(row)) == tokens(engine, [row])[row.key]


def test_memory_that_runs_out_keeps_rows_and_adapters(
    engine: LocalEngine, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of several adapters that is halved loses no row and changes none."""
    from workbench.engines.local.decode import Batch

    for path in folders.values():
        engine.load_adapter(path)
    expected = tokens(engine, rows(BASE, *folders))
    step: Callable[[Batch], Any] = Batch.step
    calls = iter(range(1000))

    def failing(self: Batch) -> Any:
        if next(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self)

    monkeypatch.setattr(Batch, "step", failing)
    assert tokens(engine, rows(BASE, *folders)) == expected
