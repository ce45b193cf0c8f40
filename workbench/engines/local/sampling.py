"""Drawing one token for every row of a batch, each row with its own settings.

A draw is ``argmax(logits / T + g)`` over the tokens that top_k, top_p and min_p keep, with Gumbel noise ``g`` that is a
pure function of (request seed, output position, token id). This is an exact sample of the truncated softmax (the
Gumbel-max identity), needs no generator state, and is the same whatever else is in the batch.

Ties are kept: top_k keeps every token whose logit equals the k-th largest, top_p every token as likely as the last one it
needs. So the kept set does not depend on the order in which a sort leaves equal values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.params import SamplingParams

_MASK32: Final = 0xFFFFFFFF
_PREFILTER: Final = (64, 1024)
"""Candidates tried, in turn, before a full sort of the vocabulary."""
_CHUNK: Final = 8192
"""Tokens given noise at a time: the numbers in between then stay in the processor's cache."""
_NEG_INF: Final = float("-inf")


def _mix32(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers (held in int64) that flips every output bit with probability near one half.

    The finalizer of MurmurHash3 (A. Appleby, public domain). Works in place: x is overwritten.
    """
    x.bitwise_xor_(x >> 16).mul_(0x85EBCA6B).bitwise_and_(_MASK32)
    x.bitwise_xor_(x >> 13).mul_(0xC2B2AE35).bitwise_and_(_MASK32)
    return x.bitwise_xor_(x >> 16)


def noise_keys(seeds: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Two 32-bit keys for each row, from its seed and the output position of the token to draw.

    Args:
        seeds: int64 (B,), 1..9999999999.
        positions: int64 (B,), 0 for the first output token.
    """
    low, high = seeds & _MASK32, seeds >> 32
    mixed = _mix32(low ^ _mix32((high + 0x9E3779B9) & _MASK32))
    key = _mix32(mixed ^ _mix32((positions * 0x9E3779B1 + 0x7F4A7C15) & _MASK32))
    return key, _mix32(key ^ mixed ^ 0x94D049BB) | 1


def gumbel(keys: tuple[Tensor, Tensor], token_ids: Tensor) -> Tensor:
    """Standard Gumbel noise, fp32, for (row key, token id).

    Args:
        keys: From :func:`noise_keys`, each (B, 1).
        token_ids: int64, (B, C) or (1, V).

    Returns:
        (B, C) or (B, V). The 32-bit integers behind it are the same on every device.
    """
    first, second = keys
    x = (_mix32((token_ids * 0x9E3779B1) & _MASK32) ^ first).mul_(second).bitwise_and_(_MASK32)
    uniform = _mix32(x).to(torch.float32).add_(0.5).mul_(2.0**-32)
    exponential = uniform.clamp_(max=1 - 2.0**-24).neg_().log1p_().neg_()
    return exponential.log_().neg_()


@dataclass(slots=True)
class RowSettings:
    """The settings of a batch of rows as tensors, one entry a row; absent settings hold their neutral value.

    ``greedy``, ``truncated`` (top_k or top_p on), ``plain`` (neither) and ``penalized`` are the row numbers that need that
    treatment; ``counted`` says whether any row has a frequency or presence penalty.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    repetition: Tensor
    frequency: Tensor
    presence: Tensor
    seed: Tensor
    greedy: Tensor
    truncated: Tensor
    plain: Tensor
    penalized: Tensor
    counted: bool

    @classmethod
    def of(cls, rows: Sequence[SamplingParams], device: torch.device | str) -> RowSettings:
        """Collect the settings of the rows."""

        def floats(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        def ints(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        truncates = [p.top_k is not None or (p.top_p is not None and p.top_p < 1) for p in rows]
        kinds = [
            "greedy" if p.greedy else "truncated" if t else "plain"
            for p, t in zip(rows, truncates, strict=True)
        ]
        counted = [bool(p.frequency_penalty or p.presence_penalty) for p in rows]
        repeated = [p.repetition_penalty not in (None, 1.0) for p in rows]
        return cls(
            temperature=floats([1.0 if p.greedy else max(p.temperature, 1e-30) for p in rows]),
            top_k=ints([p.top_k or 0 for p in rows]),
            top_p=floats([1.0 if p.top_p is None else min(p.top_p, 1.0) for p in rows]),
            min_p=floats([p.min_p or 0.0 for p in rows]),
            repetition=floats([p.repetition_penalty or 1.0 for p in rows]),
            frequency=floats([p.frequency_penalty or 0.0 for p in rows]),
            presence=floats([p.presence_penalty or 0.0 for p in rows]),
            seed=ints([p.seed or 0 for p in rows]),
            greedy=ints([i for i, kind in enumerate(kinds) if kind == "greedy"]),
            truncated=ints([i for i, kind in enumerate(kinds) if kind == "truncated"]),
            plain=ints([i for i, kind in enumerate(kinds) if kind == "plain"]),
            penalized=ints([i for i in range(len(rows)) if counted[i] or repeated[i]]),
            counted=any(counted),
        )


def penalize(
    logits: Tensor, settings: RowSettings, seen: Tensor, n_prompt: Tensor, n_seen: Tensor
) -> None:
    """Apply the penalties in place, touching only the tokens each row has seen.

    Repetition penalty r: logits of tokens in prompt or output are divided by r if positive and multiplied by r if
    negative. Then frequency: minus ``f`` times the number of occurrences in the output; presence: minus ``p`` if the
    token is in the output.

    Args:
        logits: fp32 (B, V), changed in place.
        settings: Of the B rows.
        seen: int64 (B, L): each row's prompt, then output, then anything.
        n_prompt: int64 (B,), prompt tokens of each row.
        n_seen: int64 (B,), prompt and output tokens of each row.
    """
    rows = settings.penalized
    if not rows.numel():
        return
    first, last = n_prompt[rows, None], n_seen[rows, None]
    length = int(last.max())
    place = torch.arange(length, device=seen.device)
    # A place after the end repeats the row's first token: writing the same value twice changes nothing.
    ids = torch.where(place < last, seen[rows, :length], seen[rows, :1])
    chosen = logits[rows]
    value = chosen.gather(1, ids)
    repetition = settings.repetition[rows, None]
    value = torch.where(value > 0, value / repetition, value * repetition)
    if settings.counted:
        in_output = ((place >= first) & (place < last)).to(torch.float32)
        count = torch.zeros_like(chosen).scatter_add_(1, ids, in_output).gather(1, ids)
        value -= settings.frequency[rows, None] * count + settings.presence[rows, None] * (
            count > 0
        )
    logits[rows] = chosen.scatter_(1, ids, value)


def _best(scores: Tensor, token_ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """The winning token of each row and its lead over the runner-up (inf if it is alone)."""
    winner = scores.argmax(1)  # of equal scores the first, which topk does not promise
    top = scores.topk(min(2, scores.shape[1]), dim=1).values
    lead = top[:, 0] - top[:, 1] if top.shape[1] > 1 else torch.full_like(top[:, 0], torch.inf)
    return (winner if token_ids is None else token_ids.gather(1, winner[:, None])[:, 0]), lead


def _scores(logits: Tensor, settings: RowSettings, rows: Tensor) -> Tensor:
    """Logits / T, shifted so that the largest is 0: however small T is, nothing overflows."""
    return (logits - logits.amax(1, keepdim=True)) / settings.temperature[rows, None]


def _draw_greedy(
    logits: Tensor, _settings: RowSettings, _rows: Tensor, _position: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows at temperature 0: the most likely token."""
    return _best(logits, None)


def _draw_plain(
    logits: Tensor, settings: RowSettings, rows: Tensor, position: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows without top_k and top_p: noise on the whole vocabulary."""
    scores = _scores(logits, settings, rows)
    min_p = settings.min_p[rows, None]
    dropped = scores < scores.amax(1, keepdim=True) + min_p.log()  # log(0) = -inf keeps everything
    keys = noise_keys(settings.seed[rows], position[rows])
    columns = (keys[0][:, None], keys[1][:, None])
    for start in range(0, scores.shape[1], _CHUNK):
        part = scores[:, start : start + _CHUNK]
        part += gumbel(
            columns, torch.arange(start, start + part.shape[1], device=part.device)[None]
        )
    return _best(scores.masked_fill_(dropped, _NEG_INF), None)


def _threshold(
    values: Tensor, settings: RowSettings, rows: Tensor, log_total: Tensor
) -> tuple[Tensor, Tensor]:
    """The lowest kept score of each row, and whether the candidates suffice to know it.

    Args:
        values: fp32 (R, C), the C largest scores (logits / T), descending.
        settings: Of the batch.
        rows: int64 (R,).
        log_total: fp32 (R,), log of the sum of exp(score) over the whole vocabulary.

    Returns:
        fp32 (R, 1) and bool (R,).
    """
    width = values.shape[1]
    k = settings.top_k[rows, None]
    limited = k > 0
    kth = values.gather(1, (k - 1).clamp(0, width - 1))
    low = torch.where(limited, kth, torch.full_like(kth, _NEG_INF))
    sure = ~limited | (values[:, -1:] < kth)
    kept = values.masked_fill(values < low, _NEG_INF)
    log_mass = torch.where(limited, kept.logsumexp(1, keepdim=True), log_total[:, None])
    share = (kept - log_mass).exp()
    before = share.cumsum(1) - share
    p = settings.top_p[rows, None]
    needed = (before < p) & (kept > _NEG_INF)
    last = (needed.sum(1, keepdim=True) - 1).clamp(min=0)
    nucleus = p < 1
    low = torch.where(nucleus, values.gather(1, last), low)
    complete = (
        sure
        & (~nucleus | limited | (before[:, -1:] + share[:, -1:] >= p))
        & (~nucleus | (values[:, -1:] < low))
    )
    floor = values[:, :1] + settings.min_p[rows, None].log()
    return torch.maximum(low, floor), complete[:, 0]


def _draw_truncated(
    logits: Tensor, settings: RowSettings, rows: Tensor, position: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows with top_k or top_p: the largest candidates first, a full sort only where they do not suffice."""
    scores = _scores(logits, settings, rows)
    log_total = scores.logsumexp(1)
    keys = noise_keys(settings.seed[rows], position[rows])
    tokens = torch.empty_like(rows)
    lead = torch.empty(len(rows), device=logits.device)
    vocabulary = logits.shape[1]
    open_rows = torch.arange(len(rows), device=logits.device)
    for width in (*(w for w in _PREFILTER if w < vocabulary), vocabulary):
        values, ids = scores[open_rows].topk(width, dim=1)
        low, complete = _threshold(values, settings, rows[open_rows], log_total[open_rows])
        if width == vocabulary:
            complete = torch.ones_like(complete)
        done = open_rows[complete]
        if done.numel():
            kept, kept_ids = values[complete], ids[complete]
            noisy = kept + gumbel((keys[0][done, None], keys[1][done, None]), kept_ids)
            tokens[done], lead[done] = _best(
                noisy.masked_fill(kept < low[complete], _NEG_INF), kept_ids
            )
        open_rows = open_rows[~complete]
        if not open_rows.numel():
            break
    return tokens, lead


def draw(logits: Tensor, settings: RowSettings, position: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the next token of every row from its (penalized) logits.

    Args:
        logits: fp32 (B, V).
        settings: Of the B rows.
        position: int64 (B,), output position of the token to draw, from 0.

    Returns:
        Token ids, int64 (B,), and the lead of each over the runner-up in score, fp32 (B,).
    """
    tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    lead = torch.empty(len(logits), device=logits.device)
    for rows, kind in (
        (settings.greedy, _draw_greedy),
        (settings.plain, _draw_plain),
        (settings.truncated, _draw_truncated),
    ):
        if rows.numel():
            part = logits if rows.numel() == len(logits) else logits[rows]
            tokens[rows], lead[rows] = kind(part, settings, rows, position)
    return tokens, lead
