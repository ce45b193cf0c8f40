"""The sampler against an exact reference, and its noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from workbench.engines.local import sampling
from workbench.engines.local.sampling import RowSettings, draw, gumbel, noise_keys, penalize
from workbench.params import SamplingParams

VOCABULARY = 300
N_DRAWS = 20_000


def logits_like_a_model(seed: int, n: int = VOCABULARY, scale: float = 3.0) -> np.ndarray:
    """A few likely tokens and a long tail."""
    return np.random.default_rng(seed).normal(0, scale, n).astype(np.float32)


def exact(logits: np.ndarray, p: SamplingParams) -> np.ndarray:
    """The distribution the settings define, token by token in float64: slow and plain."""
    z = logits.astype(np.float64)
    if p.temperature == 0:
        return (np.arange(len(z)) == z.argmax()).astype(float)
    z = z / p.temperature
    keep = np.ones(len(z), bool)
    if p.top_k is not None:
        keep &= z >= np.sort(z)[::-1][min(p.top_k, len(z)) - 1]
    if p.top_p is not None and p.top_p < 1:
        q = np.where(keep, np.exp(z - z.max()), 0)
        q /= q.sum()
        order = np.argsort(-q, kind="stable")
        total, last = 0.0, order[0]
        for token in order:
            if total >= p.top_p or q[token] == 0:
                break
            total, last = total + q[token], token
        keep &= q >= q[last]
    if p.min_p:
        keep &= np.exp(z - z.max()) >= p.min_p
    q = np.where(keep, np.exp(z - z.max()), 0)
    return q / q.sum()


def many_draws(logits: np.ndarray, p: SamplingParams, n: int = N_DRAWS) -> np.ndarray:
    """How often each token is drawn over n seeds."""
    counts = np.zeros(len(logits))
    for start in range(0, n, 2000):
        rows = [p.replace(seed=1 + start + i) for i in range(min(2000, n - start))]
        tokens, _ = draw(
            torch.tensor(logits).repeat(len(rows), 1),
            RowSettings.of(rows, "cpu"),
            torch.zeros(len(rows), dtype=torch.int64),
        )
        counts += np.bincount(tokens.numpy(), minlength=len(logits))
    return counts


SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 2.5},
    {"temperature": 1.0, "top_k": 7},
    {"temperature": 1.0, "top_k": 100},
    {"temperature": 1.0, "top_p": 0.6},
    {"temperature": 2.0, "top_p": 0.97},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 1.3, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.03},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_distribution_is_exact(setting: dict[str, Any]) -> None:
    """Over 20,000 seeds the draws differ from the exact distribution by no more than chance allows.

    Total variation of n draws over m tokens has mean at most sqrt(m / (2 pi n)) and moves by at most 1/n a draw, so it
    exceeds the mean by sqrt(ln(1e9) / (2 n)) with probability below 1e-9 (McDiarmid); no token outside the support appears.
    """
    p = SamplingParams(**setting)
    logits = logits_like_a_model(1)
    wanted, counts = exact(logits, p), many_draws(logits, p)
    support = int((wanted > 0).sum())
    assert counts[wanted == 0].sum() == 0
    distance = 0.5 * np.abs(counts / counts.sum() - wanted).sum()
    bound = math.sqrt(support / (2 * math.pi * N_DRAWS)) + math.sqrt(math.log(1e9) / (2 * N_DRAWS))
    assert distance < bound
    chi2 = ((counts - N_DRAWS * wanted)[wanted > 0] ** 2 / (N_DRAWS * wanted[wanted > 0])).sum()
    assert chi2 < support + 7 * math.sqrt(2 * support) + 40


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-40, 40), min_size=2, max_size=60),
    st.sampled_from([0.25, 1.0, 4.0]),
    st.sampled_from([None, 1, 2, 5, 1000]),
    st.sampled_from([None, 0.1, 0.5, 0.9, 1.5]),
    st.sampled_from([None, 0.01, 0.3]),
)
def test_the_kept_set_is_exact(
    values: list[int], temperature: float, k: int | None, p: float | None, min_p: float | None
) -> None:
    """Whatever the prefilter does, exactly the tokens of the definition can be drawn, ties included."""
    logits = np.array(values, np.float32) / 8
    params = SamplingParams(temperature=temperature, top_k=k, top_p=p, min_p=min_p).canonical()
    p = params.top_p
    wanted = exact(logits, params)
    assume(
        wanted[wanted > 0].min() > 0.03
    )  # rarer tokens might be missed by 800 draws (else below 1e-10 each)
    if p is not None:  # where a sum of probabilities equals top_p, rounding decides
        near = [exact(logits, params.replace(top_p=p + e)) > 0 for e in (-1e-5, 1e-5)]
        assume((near[0] == near[1]).all())
    counts = many_draws(logits, params, 800)
    assert set(np.flatnonzero(counts)) == set(np.flatnonzero(wanted))


@pytest.mark.parametrize("widths", [(2,), (4, 16), (1000,)])
def test_the_prefilter_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, widths: tuple[int, ...]
) -> None:
    """A tiny prefilter that nearly always falls back, and none at all, draw the same tokens as the usual one."""
    logits = torch.tensor(np.stack([logits_like_a_model(i) for i in range(64)]))
    logits[::3] = (logits[::3] * 2).round() / 2  # many ties
    rows = [SamplingParams(**SETTINGS[i % len(SETTINGS)], seed=i + 1) for i in range(64)]
    position = torch.arange(64)
    usual, _ = draw(logits.clone(), RowSettings.of(rows, "cpu"), position)
    monkeypatch.setattr(sampling, "_PREFILTER", widths)
    other, _ = draw(logits.clone(), RowSettings.of(rows, "cpu"), position)
    assert torch.equal(usual, other)


def test_a_row_does_not_see_the_others() -> None:
    """Each row alone draws what it draws in the batch, in any order."""
    logits = torch.tensor(np.stack([logits_like_a_model(i) for i in range(40)]))
    rows = [SamplingParams(**SETTINGS[i % len(SETTINGS)], seed=i + 1) for i in range(40)]
    rows[::7] = [SamplingParams(temperature=0)] * len(rows[::7])
    position = torch.arange(40) % 5
    together, lead = draw(logits.clone(), RowSettings.of(rows, "cpu"), position)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled, _ = draw(
        logits[order], RowSettings.of([rows[i] for i in order], "cpu"), position[order]
    )
    assert torch.equal(shuffled, together[order])
    for i in range(40):
        alone, lead_alone = draw(
            logits[i : i + 1].clone(), RowSettings.of([rows[i]], "cpu"), position[i : i + 1]
        )
        assert int(alone) == int(together[i])
        assert float(lead_alone) == pytest.approx(float(lead[i]), abs=1e-4)


def test_the_noise_is_gumbel() -> None:
    """A million values have the mean, variance and upper tail of a standard Gumbel, and are all different keys' own."""
    keys = noise_keys(torch.arange(1, 21), torch.zeros(20, dtype=torch.int64))
    g = gumbel((keys[0][:, None], keys[1][:, None]), torch.arange(50_000)[None]).double()
    n = g.numel()
    assert torch.isfinite(g).all()
    assert float(g.mean()) == pytest.approx(0.5772, abs=6 * 1.2825 / math.sqrt(n))
    assert float(g.var()) == pytest.approx(math.pi**2 / 6, abs=0.02)
    u = torch.exp(-torch.exp(-g)).flatten()
    counts = torch.histc(u, bins=100, min=0, max=1)
    assert float(((counts - n / 100) ** 2 / (n / 100)).sum()) < 99 + 7 * math.sqrt(2 * 99)


@pytest.mark.parametrize("what", ["seed", "position", "token"])
def test_neighbouring_noise_is_unrelated(what: str) -> None:
    """Noise of neighbouring seeds, positions and tokens is uncorrelated, at any lag up to 8."""
    n = 200_000
    zero, one = torch.zeros(n + 8, dtype=torch.int64), torch.ones(n + 8, dtype=torch.int64)
    count = torch.arange(1, n + 9)
    seeds, positions, tokens = (
        count if what == name else zero + one for name in ("seed", "position", "token")
    )
    keys = noise_keys(seeds, positions)
    g = gumbel((keys[0][:, None], keys[1][:, None]), tokens[:, None])[:, 0].double()
    g = torch.exp(-torch.exp(-g)) - 0.5
    for lag in range(1, 9):
        r = float((g[:n] * g[lag : n + lag]).mean() * 12)
        assert abs(r) < 6 / math.sqrt(n)


KEYS = [[4280702226, 3805648318, 4163402741], [3950151323, 3411639599, 2889971563]]
NOISE = [
    [-0.129545, 1.715658, -0.64839],
    [0.803456, 1.072094, 0.36234],
    [-0.438657, -0.714132, -1.252141],
]


def test_the_noise_never_changes() -> None:
    """The integers behind the noise are part of the contract: a recorded seed must repeat its answer for ever."""
    seeds = torch.tensor([1, 2, 9_999_999_999])
    keys = noise_keys(seeds, torch.tensor([0, 1, 4095]))
    assert [k.tolist() for k in keys] == KEYS
    g = gumbel((keys[0][:, None], keys[1][:, None]), torch.tensor([[0, 1, 151_935]]))
    assert g.tolist() == [pytest.approx(row, abs=1e-6) for row in NOISE]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_penalties_equal_the_slow_way(data: st.DataObject) -> None:
    """Scatter on seen tokens gives what a loop over tokens gives; places after the end never count."""
    v = 20
    rows = data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    params = [
        SamplingParams(
            repetition_penalty=data.draw(st.sampled_from([None, 1.0, 0.7, 1.4])),
            frequency_penalty=data.draw(st.sampled_from([None, 0.0, 0.5, -0.5])),
            presence_penalty=data.draw(st.sampled_from([None, 0.3])),
        )
        for _ in range(rows)
    ]
    n_prompt = rng.integers(1, 6, rows)
    n_seen = n_prompt + rng.integers(0, 6, rows)
    seen = rng.integers(0, v, (rows, 14))
    logits = rng.normal(0, 2, (rows, v)).astype(np.float32)
    wanted = logits.astype(np.float64).copy()
    for i, p in enumerate(params):
        prompt, output = seen[i, : n_prompt[i]], seen[i, n_prompt[i] : n_seen[i]].tolist()
        r = p.repetition_penalty or 1.0
        for token in {*prompt.tolist(), *output}:
            wanted[i, token] = (
                wanted[i, token] / r if wanted[i, token] > 0 else wanted[i, token] * r
            )
        for token in set(output):
            wanted[i, token] -= (p.frequency_penalty or 0) * output.count(token) + (
                p.presence_penalty or 0
            )
    got = torch.tensor(logits)
    penalize(
        got,
        RowSettings.of(params, "cpu"),
        torch.tensor(seen),
        torch.tensor(n_prompt),
        torch.tensor(n_seen),
    )
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)
