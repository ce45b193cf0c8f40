"""The scripted engine: the engine contract, exact distributions, and what can be planted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from contract import EngineContract, answer, answers, ask
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.engines.scripted import PlantedQuality, ScriptedClock, ScriptedEngine
from workbench.engines.toy import N_TOKENS, TOKENS, gumbel, processed
from workbench.params import SamplingParams
from workbench.records import timing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from workbench.records import Generation, Request


class TestContract(EngineContract):
    """The scripted engine keeps the engine contract."""

    @pytest.fixture
    def engine(self) -> ScriptedEngine:
        """An engine with one adapter."""
        return ScriptedEngine(adapters=["terse"])

    @pytest.fixture
    def make_engine(self) -> type[ScriptedEngine]:
        """The way to make another."""
        return ScriptedEngine


class Deaf(ScriptedEngine):
    """An engine that does not hear some of what it is asked."""

    def __init__(self, **instead: object) -> None:
        super().__init__(adapters=["terse"])
        self.instead = instead

    def heard(self, row: Request) -> Request:
        """The request with its settings replaced."""
        settings = {k: v for k, v in self.instead.items() if k != "adapter"}
        adapter = str(self.instead.get("adapter", row.adapter))
        return replace(row, params=row.params.replace(**settings), adapter=adapter)

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer the wrong question."""
        return super().generate(self.heard(row) for row in requests)


@pytest.mark.parametrize(
    ("instead", "test", "arguments"),
    [
        ({"temperature": 1.0}, "test_greedy_ignores_the_seed", ()),
        ({"temperature": 1.0}, "test_temperature_spreads", ()),
        ({"seed": 1}, "test_other_seed_other_answer", ()),
        ({"top_k": None}, "test_top_k_keeps_k_tokens", ()),
        ({"top_p": None}, "test_truncation_narrows", ()),
        ({"min_p": None}, "test_truncation_narrows", ()),
        ({"min_p": None}, "test_narrowest_setting_is_greedy", ({"min_p": 1.0},)),
        ({"repetition_penalty": None}, "test_penalties_act", ({"repetition_penalty": 2.0},)),
        ({"frequency_penalty": None}, "test_penalties_act", ({"frequency_penalty": 2.0},)),
        ({"presence_penalty": None}, "test_penalties_act", ({"presence_penalty": 2.0},)),
        ({"max_tokens": 9}, "test_max_tokens_is_respected", ()),
        ({"stop": None}, "test_stop_text_ends_the_answer", ()),
        ({"adapter": "base"}, "test_an_adapter_acts", ()),
        ({"adapter": "base"}, "test_an_unknown_adapter_is_a_failed_row", ()),
    ],
)
def test_the_contract_notices(
    instead: dict[str, object], test: str, arguments: tuple[object, ...]
) -> None:
    """An engine that ignores a setting, or the adapter, breaks the contract."""
    suite = TestContract()
    getattr(suite, test)(ScriptedEngine(adapters=["terse"]), *arguments)
    with pytest.raises(AssertionError):
        getattr(suite, test)(Deaf(**instead), *arguments)


def reference(
    logits: list[float], p: SamplingParams, counts: list[int], in_prompt: list[bool]
) -> list[float]:
    """Probabilities by the definitions, one row, plain Python."""
    z = []
    for logit, n, seen in zip(logits, counts, in_prompt, strict=True):
        factor = (p.repetition_penalty or 1) if seen or n else 1
        x = logit / factor if logit > 0 else logit * factor
        z.append(x - (p.frequency_penalty or 0) * n - (p.presence_penalty or 0) * (n > 0))
    order = sorted(range(len(z)), key=lambda i: (-z[i], i))
    if p.temperature == 0:
        order = order[:1]
    else:
        z = [x / p.temperature for x in z]
    order = order[: p.top_k or len(order)]
    weight = {i: float(np.exp(z[i] - z[order[0]])) for i in order}
    if p.top_p is not None and p.top_p < 1:
        total, reached, kept = sum(weight.values()), 0.0, []
        for i in order:
            if kept and reached >= p.top_p * total:
                break
            kept.append(i)
            reached += weight[i]
        order = kept
    order = [i for i in order if weight[i] >= (p.min_p or 0) * weight[order[0]]]
    total = sum(weight[i] for i in order)
    return [weight[i] / total if i in order else 0.0 for i in range(len(z))]


sampled = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_p=st.none() | st.sampled_from([0.0, 0.31, 0.77, 1.0, 2.0]),
    top_k=st.none() | st.integers(1, 80),
    min_p=st.none() | st.sampled_from([0.0, 0.07, 0.5, 1.0]),
    repetition_penalty=st.none() | st.sampled_from([0.5, 1.0, 1.7]),
    frequency_penalty=st.none() | st.sampled_from([-1.5, 0.0, 0.8]),
    presence_penalty=st.none() | st.sampled_from([-1.5, 0.0, 0.8]),
)


@given(st.lists(st.tuples(sampled, st.integers(0, 2**31)), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_every_setting_acts_as_defined(rows: list[tuple[SamplingParams, int]]) -> None:
    """The vectorised settings agree with a plain reading of the definitions, row by row."""
    rngs = [np.random.default_rng(seed) for _, seed in rows]
    logits = np.stack([rng.normal(0, 2, N_TOKENS) for rng in rngs])
    counts = np.stack([rng.integers(0, 3, N_TOKENS) * (rng.random(N_TOKENS) < 0.3) for rng in rngs])
    in_prompt = np.stack([rng.random(N_TOKENS) < 0.3 for rng in rngs])
    got = np.exp(processed(logits, [p for p, _ in rows], counts.astype(float), in_prompt))
    got /= got.sum(axis=1, keepdims=True)
    for i, (params, _) in enumerate(rows):
        want = reference(logits[i].tolist(), params, counts[i].tolist(), in_prompt[i].tolist())
        np.testing.assert_allclose(got[i], want, atol=1e-9)


def test_draws_follow_the_distribution() -> None:
    """Over 40,000 seeds the drawn tokens are within 0.02 total variation of softmax (expected about 0.012)."""
    n = 40_000
    z = np.random.default_rng(0).normal(0, 1.5, N_TOKENS)
    drawn = (z + gumbel(range(1, n + 1), [7] * n)).argmax(axis=1)
    share = np.bincount(drawn, minlength=N_TOKENS) / n
    probability = np.exp(z) / np.exp(z).sum()
    assert 0.5 * np.abs(share - probability).sum() < 0.02


def test_noise_is_independent_across_positions() -> None:
    """The noise of one position says nothing about the next (|correlation| < 0.02 over 32,000 pairs)."""
    seeds = list(range(1, 601))
    here, there = gumbel(seeds, [3] * 600).ravel(), gumbel(seeds, [4] * 600).ravel()
    assert abs(np.corrcoef(here, there)[0, 1]) < 0.02
    assert abs(here.mean() - np.euler_gamma) < 0.03


def test_a_character_is_never_split() -> None:
    """Streamed pieces never hold half a character, though some tokens do."""
    engine = ScriptedEngine()
    emoji = 0
    for seed in range(1, 200):
        row = ask("dog", temperature=1.5, seed=seed, max_tokens=12)
        pieces = [event.text for event in engine.stream(row)]
        emoji += "".join(pieces).count("\N{GRINNING FACE}")
        assert all("\ufffd" not in piece for piece in pieces[:-1])
    assert emoji > 0
    assert any(b"\xf0\x9f" in token for token in TOKENS)


def test_answers_are_the_same_on_every_machine() -> None:
    """Tokens are pinned: no hash randomisation, no platform, no version of numpy moves them."""
    got = answer(ScriptedEngine(), ask("What is 3 + 4?", temperature=1.0, seed=42, max_tokens=8))
    assert got.text == "small 4 then blue 3 10 6 3"


def test_responses_by_prompt_predicate_and_function() -> None:
    """Planted texts replace the model and are still cut by max_tokens and stop."""
    by_name = ScriptedEngine(responses={"a": "seven cats", lambda r: r.repeat == 1: "again"})
    assert answer(by_name, ask("a")).text == "seven cats"
    assert answer(by_name, ask("b", repeat=1)).text == "again"
    assert answer(by_name, ask("b")).text not in {"seven cats", "again"}
    by_function = ScriptedEngine(responses=lambda r: f"<{r.prompt_id}> is it")
    cut = answer(by_function, ask("x", max_tokens=2))
    assert (cut.text, cut.finish_reason, cut.n_output_tokens) == ("<x> is", "length", 2)
    stopped = answer(by_function, ask("x", stop="s i"))
    assert (stopped.text, stopped.finish_reason) == ("<x> i", "stop")
    assert "".join(e.text for e in by_function.stream(ask("x"))) == "<x> is it"


def test_planted_failures() -> None:
    """A planted text fails one row by key or prompt; a planted exception leaves generate."""
    engine = ScriptedEngine(fail={("cell", "a", 1): "planted", "b": "all of b"})
    rows = [ask("a"), ask("a", repeat=1), ask("b"), ask("b", repeat=1)]
    found = answers(engine, rows)
    assert [found[row.key].error for row in rows] == [None, "planted", "all of b", "all of b"]
    crash = ScriptedEngine(fail=lambda r: MemoryError("boom") if r.prompt_id == "b" else None)
    with pytest.raises(MemoryError, match="boom"):
        answers(crash, rows)


def test_planted_quality() -> None:
    """The share of right answers is the planted one, and cells share their luck if coupled."""
    ids = [f"p{i}" for i in range(200)]
    texts = dict.fromkeys(ids, "right")

    def ask_all(quality: PlantedQuality, temperature: float) -> list[bool]:
        rows = [
            ask(i, cell=str(temperature), repeat=k, temperature=temperature, seed=k + 1)
            for i in ids
            for k in range(5)
        ]
        found = answers(ScriptedEngine(quality=quality), rows)
        return [found[row.key].text == "right" for row in rows]

    better = PlantedQuality(lambda r: 0.8 if r.params.temperature < 0.5 else 0.5, texts)
    cold, hot = ask_all(better, 0.3), ask_all(better, 1.0)
    assert abs(np.mean(cold) - 0.8) < 0.05
    assert abs(np.mean(hot) - 0.5) < 0.06
    assert all(c >= h for c, h in zip(cold, hot, strict=True))
    apart = PlantedQuality(lambda _: 0.5, texts, coupled=False)
    assert abs(np.corrcoef(ask_all(apart, 0.3), ask_all(apart, 1.0))[0, 1]) < 0.12
    assert answer(ScriptedEngine(quality=better), ask("elsewhere")).text not in {
        "right",
        better.wrong,
    }


def test_scripted_clock_is_exact() -> None:
    """Latencies are exactly the planted ones, constant or by request."""
    clock = ScriptedClock(prefill_ms=50, token_ms=lambda r: 20 if r.adapter == "base" else 30)
    engine = ScriptedEngine(adapters=["slow"], clock=clock)
    for adapter, token_ms in (("base", 20), ("slow", 30)):
        sent_ns = engine.clock_ns()
        events = list(engine.stream(ask("a", adapter=adapter, temperature=0, max_tokens=6)))
        got = timing(sent_ns, [e.t_ns for e in events])
        assert (got.ttft_ms, got.tpot_ms) == (50, token_ms)


def test_delay_is_real_time() -> None:
    """A delayed row takes at least its delay."""
    engine = ScriptedEngine(delay_ms=lambda r: 30 * r.repeat)
    before = engine.clock_ns()
    answers(engine, [ask("a", max_tokens=1), ask("a", repeat=1, max_tokens=1)])
    assert (engine.clock_ns() - before) / 1e6 >= 30
