"""Comparing a quantized model with the dense one: every number by hand, and nothing where nothing changed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.engines.base import EngineInfo
from workbench.prompts import PromptSet
from workbench.quantizing import agreement
from workbench.quantizing.agreement import Read, compare, counted_from, distributions, divergence

INFO = EngineInfo("local", "tiny", kernel="fp32", device="cpu")
TEXTS = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=8), min_size=1, max_size=5)


def reading(
    logprobs: list[list[float]],
    answers: dict[str, tuple[int, ...]] | None = None,
    kl: list[list[float]] | None = None,
    same_top: list[list[float]] | None = None,
) -> Read:
    """A reading with these numbers."""
    lists = (logprobs, kl or [], same_top or [])
    arrays = [[np.array(values, float) for values in found] for found in lists]
    return Read(INFO, *arrays, answers or {})


@given(TEXTS)
def test_every_text_counts_at_least_its_last_token(texts):
    """Counting starts behind the first token, never behind a text's end, and only where all texts agree until there."""
    start = counted_from(texts)
    assert 1 <= start < min(map(len, texts))
    if start > 1:
        assert len({tuple(text[:start]) for text in texts}) == 1


def test_what_all_texts_begin_with_does_not_count():
    """The system message that a template puts first is the same in all texts."""
    assert counted_from([[1, 5, 5, 7, 8], [1, 5, 5, 6, 9, 9]]) == 3
    assert counted_from([[1, 5, 5, 7, 8]]) == 4
    assert counted_from([[1, 2], [3, 4]]) == 1


class Model:
    """A model of four tokens whose logits are what the last token says."""

    table = torch.tensor([[0.0, 1, 2, 3], [5, 0, 0, 0], [1, 1, 1, 1], [0, 0, 9, 0]])

    def __call__(self, input_ids: Any, use_cache: bool) -> Any:
        """Logits of every position."""
        assert not use_cache
        return type("Out", (), {"logits": self.table[input_ids[0]][None]})


def test_distributions_are_of_the_next_token():
    """Row i is what the model says of token start + i after those before it."""
    found = distributions(Model(), [0, 1, 2, 3], 2, torch.device("cpu"))
    assert found.shape == (2, 4)
    by_hand = [
        [math.log(math.exp(x) / sum(map(math.exp, row))) for x in row]
        for row in ([5, 0, 0, 0], [1, 1, 1, 1])
    ]
    torch.testing.assert_close(found, torch.tensor(by_hand))


def test_divergence_by_hand():
    """A half and a half against a quarter and three quarters."""
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(p, q).item() == pytest.approx(by_hand, rel=1e-6)


@given(st.integers(0, 10_000), st.integers(2, 30))
def test_divergence_is_never_negative_and_zero_only_for_the_same(seed, n):
    """Gibbs' inequality."""
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, 1, n, generator=generator).log_softmax(-1)
    assert divergence(p, q).item() > -1e-6
    assert divergence(p, p).item() == 0


def test_perplexity_by_hand():
    """Four tokens of probability 1/2, then a half, a quarter, an eighth and a half: 2 against 2 to the 7/4."""
    half, quarter, eighth = (math.log(x) for x in (0.5, 0.25, 0.125))
    dense = reading([[half, half], [half, half]])
    packed = reading(
        [[half, quarter], [eighth, half]], kl=[[0.1, 0.3], [0.0, 0.2]], same_top=[[1, 0], [1, 1]]
    )
    found = compare(dense, packed, ["a", "b"], 8)
    assert found.perplexity_dense == pytest.approx(2)
    assert found.perplexity == pytest.approx(2 ** (7 / 4))
    assert found.ratio == pytest.approx(2 ** (3 / 4))
    assert found.ratio_lo < found.ratio < found.ratio_hi
    assert found.kl_nats == pytest.approx(0.15)
    assert 0 <= found.kl_lo < found.kl_nats < found.kl_hi
    assert found.same_top == 0.75
    assert (found.n_prompts, found.n_tokens) == (2, 4)


def test_tokens_of_one_prompt_are_one_observation():
    """The same tokens in more prompts are more evidence: the interval of many prompts is narrower than that of two."""
    rng = np.random.default_rng(0)
    after = rng.normal(-1, 0.3, 40)
    many = compare(
        reading([[-1.0]] * 40),
        reading([[x] for x in after], kl=[[0.1]] * 40, same_top=[[1]] * 40),
        [str(i) for i in range(40)],
        8,
    )
    wide = [0.2] * 20 + [-0.1] * 20
    few = compare(
        reading([[-1.0] * 20] * 2),
        reading(
            [[-1 + x for x in wide[:20]], [-1 + x for x in wide[20:]]],
            kl=[[0.1] * 20] * 2,
            same_top=[[1] * 20] * 2,
        ),
        ["a", "b"],
        8,
    )
    assert many.n_tokens == few.n_tokens == 40
    assert many.ratio_hi / many.ratio_lo < few.ratio_hi / few.ratio_lo


def test_texts_of_one_group_are_one_observation():
    """Prompts of one group count as one: with a single group there is no interval."""
    dense = reading([[-1.0], [-2.0]])
    packed = reading([[-1.5], [-2.1]], kl=[[0.1], [0.2]], same_top=[[1], [1]])
    assert math.isnan(compare(dense, packed, ["g", "g"], 8).ratio_lo)
    assert not math.isnan(compare(dense, packed, ["g", "h"], 8).ratio_lo)


def test_answers_by_hand():
    """Of four answers one is missing in one model, one is the same, one parts after two tokens, one is cut short."""
    dense = reading([[-1.0]], {"a": (1, 2, 3), "b": (1, 2, 3), "c": (4, 5), "d": (1,)})
    packed = reading(
        [[-1.0]], {"a": (1, 2, 3), "b": (1, 2, 9), "c": (4, 5, 6, 7)}, kl=[[0.0]], same_top=[[1]]
    )
    found = compare(dense, packed, ["a"], 8)
    assert (found.n_answers, found.n_same, found.parted_after) == (3, 1, 2)
    assert found.same_lo < 1 / 3 < found.same_hi


def test_text_of_a_comparison():
    """The table holds every number with its interval, and the rest is said in words."""
    found = agreement.Agreement(
        n_prompts=64, n_tokens=5123, perplexity_dense=12.306, perplexity=12.976, ratio_lo=1.048, ratio_hi=1.061,
        kl_nats=0.02134, kl_lo=0.019, kl_hi=0.0236, same_top=0.9412, n_answers=60, n_same=35, same_lo=0.457,
        same_hi=0.699, parted_after=7.0, max_tokens=32, kernel="fp32", device="cpu",
    )  # fmt: skip
    assert found.text.splitlines() == [
        "Compared on 64 prompts that did not calibrate (5,123 tokens, both with kernel fp32):",
        "",
        "                                   dense     4 bits  difference",
        "  perplexity                       12.31      12.98  +5.4 % [+4.8, +6.1]",
        "  KL divergence, nats a token                0.0213  [0.0190, 0.0236]",
        "  same token most likely                     94.1 %",
        "  same greedy answer                           58 %  [46, 70] of 60",
        "",
        "The answers that differ (up to 32 tokens) part after 7 tokens (median).",
    ]


def test_text_without_answers_or_intervals():
    """Nothing is printed of what is not known, and JSON holds null for it."""
    dense, packed = (
        reading([[-1.0, -1.0]]),
        reading([[-1.0, -1.0]], kl=[[0.0, 0.0]], same_top=[[1, 1]]),
    )
    found = compare(dense, packed, ["a"], 8)
    assert found.text.splitlines()[2:] == [
        "                                   dense     4 bits  difference",
        "  perplexity                        2.72       2.72  +0.0 %",
        "  KL divergence, nats a token                0.0000",
        "  same token most likely                    100.0 %",
    ]
    assert found.to_dict()["ratio_lo"] is None
    assert found.to_dict()["parted_after"] is None
    assert found.to_dict()["ratio"] == 1


@pytest.mark.model
def test_a_model_agrees_with_itself_exactly(demo_loaded, tmp_path):
    """The demo model read against itself: perplexity the same to the bit, divergence 0, every answer the same."""
    from workbench.quantizing.calibration import encode

    prompts = PromptSet.from_records(
        [{"id": f"p{i}", "prompt": f"What is {i} + 2?", "target": str(i + 2)} for i in range(3)]
    )
    texts = [encode(p, demo_loaded.tokenizer) for p in prompts]
    runs = [
        agreement.read(demo_loaded, prompts, texts, 4, tmp_path, progress=False) for _ in range(2)
    ]
    found = compare(*runs, [p.id for p in prompts], 4)
    assert found.perplexity == found.perplexity_dense
    assert found.kl_nats == 0
    assert (found.n_answers, found.n_same, found.same_top) == (3, 3, 1)
    assert found.n_tokens == sum(map(len, texts)) - 3 * counted_from(texts)
    assert runs[0].kl == []


@pytest.mark.model
def test_perplexity_is_that_of_transformers(demo_loaded, tmp_path):
    """The mean loss that transformers computes of one text, where all tokens but the first count."""
    prompts = PromptSet.from_records([{"id": "a", "prompt": "Hello!", "target": "Hi."}])
    ids = demo_loaded.tokenizer("The capital of France is Paris.")["input_ids"]
    other = demo_loaded.tokenizer("One two three four.")["input_ids"]
    assert ids[0] != other[0]
    found = agreement.read(demo_loaded, prompts, [ids, other], 1, tmp_path, progress=False)
    batch = torch.tensor([ids])
    with torch.no_grad():
        loss = demo_loaded.model(input_ids=batch, labels=batch).loss.item()
    assert -found.logprobs[0].mean() == pytest.approx(loss, rel=1e-5)


def test_a_ruined_model_is_said_in_times():
    """Where perplexity is many times the dense one's, per cent would be unreadable."""
    dense, packed = (
        reading([[-1.0]] * 2, {"a": (1, 2)}),
        reading([[-9.0], [-9.5]], {"a": (1, 3)}, kl=[[7.0], [8.0]], same_top=[[0], [0]]),
    )
    lines = compare(dense, packed, ["a", "b"], 8).text.splitlines()
    assert (
        lines[3] == "  perplexity                        2.72  10,404.57  3,828 times [160, 91,725]"
    )
    assert lines[-1] == "The answers that differ (up to 8 tokens) part after 1 token (median)."
