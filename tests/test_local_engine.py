"""The local engine on the demo model: the contract, transformers as oracle, batches, memory."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from contract import EngineContract, answer, answers, ask
from loras import ATTENTION, MLP, modules_of, write_adapter

from workbench.engines.local.engine import LocalEngine
from workbench.errors import EngineError, OutOfMemory, ParamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workbench.engines.local.loader import LoadedModel
    from workbench.records import Request

pytestmark = pytest.mark.model

TEXTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Is 'I love this' positive or negative? Answer with one word.",
    "Count from one to ten in words.",
)


@pytest.fixture(scope="module")
def adapted_engine(
    demo_engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalEngine]:
    """The shared engine with an adapter, which the requests of the other tests do not name."""
    modules = modules_of(demo_engine.model.config.to_dict(), ATTENTION + MLP)
    folder = tmp_path_factory.mktemp("adapters") / "some"
    demo_engine.load_adapter(write_adapter(folder, modules=modules, scale=0.05))
    yield demo_engine
    demo_engine.unload_adapter("some")


class TestContract(EngineContract):
    """What every engine does."""

    prompts = (
        "Count from one to ten in words, separated by commas.",
        "What is 3 + 4?",
        "Write one sentence about the sea.",
    )
    max_tokens = 32

    @pytest.fixture
    def engine(self, adapted_engine: LocalEngine) -> LocalEngine:
        """The shared engine, with an adapter."""
        return adapted_engine

    @pytest.fixture
    def make_engine(self, demo_loaded: LoadedModel) -> Callable[[], LocalEngine]:
        """Another engine on the same model."""
        return lambda: LocalEngine(demo_loaded)


def reference(loaded: LoadedModel, text: str, max_tokens: int, **settings: Any) -> list[int]:
    """The greedy answer of transformers, one prompt at a time."""
    messages = [{"role": "user", "content": text}]
    inputs = loaded.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = loaded.model.generate(
        **inputs, do_sample=False, max_new_tokens=max_tokens, pad_token_id=2, **settings
    )
    return out[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("penalty", [None, 1.2, 0.8])
def test_greedy_equals_transformers(
    demo_loaded: LoadedModel, demo_engine: LocalEngine, penalty: float | None
) -> None:
    """A whole batch of greedy rows gives the tokens of ``model.generate``, repetition penalty included."""
    rows = [ask(t, temperature=0, max_tokens=40, repetition_penalty=penalty) for t in TEXTS]
    found = answers(demo_engine, rows)
    for row, text in zip(rows, TEXTS, strict=True):
        assert list(found[row.key].token_ids) == reference(
            demo_loaded, text, 40, repetition_penalty=penalty or 1.0
        )


def mixed_rows(n: int, seed: int) -> list[Request]:
    """Rows whose settings have nothing in common."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        settings: dict[str, Any] = {
            "temperature": rng.choice([0, 0.3, 0.8, 1.2]),
            "top_k": rng.choice([None, 1, 5, 50]),
            "top_p": rng.choice([None, 0.5, 0.95]),
            "min_p": rng.choice([None, 0.1]),
            "repetition_penalty": rng.choice([None, 1.15]),
            "frequency_penalty": rng.choice([None, 0.4]),
            "presence_penalty": rng.choice([None, -0.3]),
            "max_tokens": rng.randint(1, 24),
            "seed": rng.randint(1, 9_999_999_999),
        }
        rows.append(ask(rng.choice(TEXTS), cell=f"c{i}", **settings))
    return rows


def test_rows_enter_and_leave(demo_loaded: LoadedModel) -> None:
    """Rows of different length through a batch that holds 5: each the same as alone, and never more than 5 at once."""
    rows = mixed_rows(24, seed=1)
    small = LocalEngine(demo_loaded, max_rows=5)
    found = answers(small, rows)
    wide = answers(LocalEngine(demo_loaded, max_rows=64), random.Random(2).sample(rows, len(rows)))
    assert max(g.batch_rows for g in found.values()) == 5
    assert max(g.batch_rows for g in wide.values()) > 5
    for row in rows:
        assert found[row.key].token_ids == wide[row.key].token_ids
    for row in rows[::4]:
        assert answer(small, row).token_ids == found[row.key].token_ids


def test_a_prompt_is_read_once(demo_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows of a prompt share one prefill, even when they do not fit in one batch."""
    engine = LocalEngine(demo_loaded, max_rows=4)
    forward, widths = demo_loaded.model.forward, []

    def spy(*args: Any, **kwargs: Any) -> Any:
        widths.append(kwargs["input_ids"].shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(demo_loaded.model, "forward", spy)
    rows = [ask(t, cell=f"c{i}", seed=i + 1, max_tokens=4) for t in TEXTS[:2] for i in range(10)]
    answers(engine, rows)
    assert sum(width > 1 for width in widths) == 2


def test_memory_runs_out(demo_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch too large for memory is halved until it fits; no row is lost, none differs."""
    rows = mixed_rows(16, seed=3)
    expected = answers(LocalEngine(demo_loaded), rows)
    engine = LocalEngine(demo_loaded, max_rows=16)
    forward, failures = demo_loaded.model.forward, []

    def tight(*args: Any, **kwargs: Any) -> Any:
        if len(kwargs["input_ids"]) > 5:
            failures.append(len(kwargs["input_ids"]))
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return forward(*args, **kwargs)

    monkeypatch.setattr(demo_loaded.model, "forward", tight)
    found = answers(engine, rows)
    assert failures
    assert engine.max_rows <= 5
    assert {k: g.token_ids for k, g in found.items()} == {
        k: g.token_ids for k, g in expected.items()
    }


def test_not_even_one_row_fits(demo_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of memory with a single row is an error that says what is needed."""
    engine = LocalEngine(demo_loaded, max_rows=4)

    def full(*_: Any, **__: Any) -> Any:
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        )

    monkeypatch.setattr(demo_loaded.model, "forward", full)
    with pytest.raises(OutOfMemory, match="not even one answer of"):
        list(engine.generate([ask(TEXTS[0], cell=f"c{i}", max_tokens=4, seed=1) for i in range(4)]))
    with pytest.raises(OutOfMemory, match="not even one answer of"):
        list(engine.stream(ask(TEXTS[0], max_tokens=4, seed=1)))


def test_the_memory_budget_bounds_the_batch(demo_loaded: LoadedModel) -> None:
    """The batch holds as many rows as the budget pays for, and a budget below one row is refused with the numbers."""
    per_row = (
        2 * 30 * 3 * 64 * 4 * 64
    )  # keys and values x layers x heads x width x bytes x 64 tokens
    engine = LocalEngine(demo_loaded, memory_gib=3.5 * per_row / 2**30)
    rows = [ask(TEXTS[0], cell=f"c{i}", seed=i + 1, max_tokens=8) for i in range(8)]
    assert max(g.batch_rows for g in answers(engine, rows).values()) == 3
    poor = LocalEngine(demo_loaded, memory_gib=0.5 * per_row / 2**30)
    with pytest.raises(OutOfMemory, match=r"need 3 MiB, the budget is 1 MiB; lower max_tokens"):
        answers(poor, rows)


def test_a_prefill_that_runs_out_once(
    demo_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out while nothing is being decoded frees what can be freed and tries again; no row is lost."""
    forward, calls = demo_loaded.model.forward, []

    def tight(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) <= 2:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return forward(*args, **kwargs)

    monkeypatch.setattr(demo_loaded.model, "forward", tight)
    rows = [ask(t, max_tokens=3, seed=1) for t in TEXTS]
    engine = LocalEngine(demo_loaded, max_rows=16)
    assert all(g.error is None for g in answers(engine, rows).values())
    assert engine.max_rows == 4


def test_one_row_too_long_for_the_budget(demo_loaded: LoadedModel) -> None:
    """A row that can never fit fails and says what it needs; the rows around it are answered."""
    engine = LocalEngine(demo_loaded, memory_gib=0.01)
    rows = [ask(TEXTS[0], cell=f"c{i}", max_tokens=n, seed=1) for i, n in enumerate((8, 4000, 8))]
    found = answers(engine, rows)
    assert [found[r.key].finish_reason == "error" for r in rows] == [False, True, False]
    assert "not even one answer of 40" in str(found[rows[1].key].error)


def test_other_errors_are_not_taken_for_memory(
    demo_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only running out of memory leads to a smaller batch; a bug surfaces."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shape mismatch")

    engine = LocalEngine(demo_loaded)
    monkeypatch.setattr(demo_loaded.model, "forward", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        answers(engine, [ask(TEXTS[0], max_tokens=2)])


def test_penalties_count_the_right_tokens(
    demo_loaded: LoadedModel, demo_engine: LocalEngine
) -> None:
    """Every token of a penalized greedy answer is the argmax of transformers' logits, penalized by hand."""
    rep, freq, pres, n = 1.3, 0.7, 0.4, 20
    settings = {"repetition_penalty": rep, "frequency_penalty": freq, "presence_penalty": pres}
    # A longer prompt in the same batch: the short row's unused places must not count.
    padded = ask("Repeat: " + "the cat sat on the mat. " * 6, temperature=0, max_tokens=n)
    row = ask(TEXTS[1], temperature=0, max_tokens=n, **settings)
    found = answers(demo_engine, [padded, row])[row.key]
    prompt = demo_loaded.tokenizer(found.prompt, add_special_tokens=False)["input_ids"]
    for i, token in enumerate(found.token_ids):
        output = list(found.token_ids[:i])
        with torch.no_grad():
            logits = demo_loaded.model(torch.tensor([prompt + output])).logits[0, -1].double()
        for seen in set(prompt + output):
            logits[seen] = logits[seen] / rep if logits[seen] > 0 else logits[seen] * rep
        for seen in set(output):
            logits[seen] -= freq * output.count(seen) + pres
        assert int(logits.argmax()) == token


def test_characters_are_never_split(demo_engine: LocalEngine) -> None:
    """Answers cut anywhere inside emoji and Chinese text hold whole characters only, streamed or not."""
    row = {"temperature": 1.5, "seed": 3}
    text = "Repeat this exactly: 😀🎉日本語 ñandú 🧑‍🚀"
    for limit in range(1, 24):
        request = ask(text, max_tokens=limit, **row)
        whole = answer(demo_engine, request)
        assert "\ufffd" not in whole.text
        pieces = [e.text for e in demo_engine.stream(request)]
        assert "".join(pieces) == whole.text


def test_chat_is_for_trying_things(demo_engine: LocalEngine) -> None:
    """One call, one answer, with the card's defaults, a system message if wanted, and a seed that repeats it."""
    first = demo_engine.chat("Name a colour.", max_tokens=8)
    again = demo_engine.chat("Name a colour.", max_tokens=8, seed=first.seed)
    assert first.seed is not None
    assert again.token_ids == first.token_ids
    assert (
        "Speak like a pirate."
        in demo_engine.chat("Hi", system="Speak like a pirate.", max_tokens=1).prompt
    )
    with pytest.raises(
        ParamError, match="temperature must be a number at least 0 and at most 5, got 9"
    ):
        demo_engine.chat("Hi", temperature=9)


def test_a_template_that_refuses(demo_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages the chat template refuses give a failed row with the template's words."""
    engine = LocalEngine(demo_loaded)
    template = "{{ raise_exception('roles must alternate') }}"
    monkeypatch.setattr(demo_loaded.tokenizer, "chat_template", template)
    found = answer(engine, ask("Hi", max_tokens=2))
    assert (
        found.error
        == "EngineError: the model's chat template refuses these messages: roles must alternate"
    )
    with pytest.raises(EngineError, match="roles must alternate"):
        engine.chat("Hi")
