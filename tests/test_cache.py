"""Key-value memory and the attention that reads it, against plain attention and a model without a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

from workbench.engines.local.cache import (
    ATTENTION,
    KVPool,
    grouped_attention,
    kv_bytes_per_token,
    round_up,
)

CONFIG = LlamaConfig(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=50,
    max_position_embeddings=512,
)
PROMPTS = ([1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [11])
ANSWERS = ([12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23])


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny random model with the attention under test."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG, attn_implementation=ATTENTION).eval()


def whole(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits after each token, (n, V), computed at once and without a cache."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def read_prompt(model: Any, ids: list[int]) -> DynamicCache:
    """The keys and values of a prompt."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
    return cache


def step(model: Any, pool: KVPool, tokens: list[int], position: list[int]) -> torch.Tensor:
    """Logits of one decode step, (B, V)."""
    at = torch.tensor(position)
    mask = pool.begin_step(at, max(position) + 1)
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(tokens)[:, None],
            position_ids=at[:, None],
            attention_mask=mask,
            past_key_values=pool,
            use_cache=True,
        )
    return out.logits[:, -1]


def filled(model: Any, rows: int = 3, length: int = 16) -> KVPool:
    """A pool with the three prompts in its first rows."""
    pool = KVPool(CONFIG.num_hidden_layers, rows, length)
    for i, prompt in enumerate(PROMPTS):
        pool.write_prompt([i], read_prompt(model, prompt))
    return pool


def check_step(model: Any, pool: KVPool, n: int, rows: tuple[int, ...] = (0, 1, 2)) -> None:
    """Decode the n-th answer token of the rows, and compare with the model without a cache."""
    got = step(model, pool, [ANSWERS[r][n] for r in rows], [len(PROMPTS[r]) + n for r in rows])
    for i, r in enumerate(rows):
        wanted = whole(model, [*PROMPTS[r], *ANSWERS[r][: n + 1]])[-1]
        torch.testing.assert_close(got[i], wanted, rtol=1e-4, atol=1e-5)


def test_rows_of_different_length_decode_together(model: Any) -> None:
    """Each row of a batch gives the logits of its own text alone."""
    pool = filled(model)
    for n in range(4):
        check_step(model, pool, n)


def test_a_prompt_is_shared_by_many_rows(model: Any) -> None:
    """One prompt written to several rows serves them all, and they go on separately."""
    pool = KVPool(CONFIG.num_hidden_layers, 4, 16)
    prompt = PROMPTS[1]
    pool.write_prompt([0, 2, 3], read_prompt(model, prompt))
    got = step(model, pool, [20, 21, 22, 23], [len(prompt)] * 4)
    for row, token in ((0, 20), (2, 22), (3, 23)):
        wanted = whole(model, [*prompt, token])[-1]
        torch.testing.assert_close(got[row], wanted, rtol=1e-4, atol=1e-5)


def test_moved_rows_go_on(model: Any) -> None:
    """A row moved into a finished row's place continues as if nothing happened."""
    pool = filled(model)
    check_step(model, pool, 0)
    pool.move([2], [0])
    check_step(model, pool, 1, rows=(2, 1))


def test_a_pool_grows_with_its_content(model: Any) -> None:
    """Resizing keeps what is there, also past the old length."""
    pool = filled(model, rows=3, length=16)
    check_step(model, pool, 0)
    grown = pool.resized(5, 200)
    assert (grown.rows, grown.length) == (5, 256)
    assert grown.layers[0].keys.shape[:3] == (5, 2, 256)
    for n in (1, 2):
        check_step(model, grown, n)


def test_a_pool_shrinks_to_what_fits(model: Any) -> None:
    """Fewer rows and a shorter length keep the beginning."""
    small = filled(model, rows=8, length=200).resized(3, 64)
    assert small.layers[0].keys.shape[:3] == (3, 2, 64)
    check_step(model, small, 0)


def test_an_empty_pool_can_be_resized() -> None:
    """A pool that holds nothing yet allocates nothing when it grows."""
    grown = KVPool(2, 0, 0).resized(4, 10)
    assert (grown.rows, grown.length) == (4, 64)
    assert not any(layer.is_initialized for layer in grown.layers)


def test_a_used_row_is_reused(model: Any) -> None:
    """What a finished answer left in a row is never looked at by the next."""
    pool = filled(model)
    for n in range(4):
        check_step(model, pool, n)
    pool.write_prompt([1], read_prompt(model, PROMPTS[2]))
    got = step(model, pool, [12, 30], [len(PROMPTS[0]), len(PROMPTS[2])])
    wanted = whole(model, [*PROMPTS[2], 30])[-1]
    torch.testing.assert_close(got[1], wanted, rtol=1e-4, atol=1e-5)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_the_mask_shows_each_row_its_own_past(position: list[int]) -> None:
    """A row sees the positions up to the one it writes, and no others."""
    pool = KVPool(1, len(position), 32)
    mask = pool.begin_step(torch.tensor(position), max(position) + 1)
    assert mask.shape == (len(position), 1, 1, max(position) + 1)
    for row, at in enumerate(position):
        assert mask[row, 0, 0].tolist() == [p <= at for p in range(max(position) + 1)]
    assert pool.get_seq_length() == max(position) + 1


@given(
    batch=st.integers(1, 4),
    kv_heads=st.sampled_from([1, 2, 3]),
    groups=st.sampled_from([1, 2, 3]),
    length=st.integers(1, 20),
    seed=st.integers(0, 2**31),
)
def test_grouped_attention_is_attention(
    batch: int, kv_heads: int, groups: int, length: int, seed: int
) -> None:
    """Folding query heads into query positions gives softmax(q k / scale) v with repeated heads."""
    torch.manual_seed(seed)
    width = 8
    query = torch.randn(batch, kv_heads * groups, 1, width)
    key, value = torch.randn(2, batch, kv_heads, length, width)
    mask = torch.rand(batch, 1, 1, length) < 0.7
    mask[..., 0] = True
    out, weights = grouped_attention(None, query, key, value, mask, scaling=0.3)
    assert weights is None
    k, v = (t.repeat_interleave(groups, 1) for t in (key, value))
    scores = (query @ k.transpose(2, 3) * 0.3).masked_fill(~mask, -torch.inf)
    wanted = (scores.softmax(-1) @ v).transpose(1, 2)
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 10_000))
def test_lengths_are_rounded_up(length: int) -> None:
    """Memory is taken in steps of 64 tokens."""
    rounded = round_up(length)
    assert rounded % 64 == 0
    assert length <= rounded < length + 64


def test_bytes_of_a_token(model: Any) -> None:
    """The bytes a token is said to take are those it takes."""
    cache = read_prompt(model, [1, 2, 3, 4, 5])
    taken = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    assert kv_bytes_per_token(CONFIG, 4) * 5 == taken
    assert kv_bytes_per_token(CONFIG, 2) * 10 == taken
