"""A tiny deterministic language model over some sixty words, in numpy: the scripted engine's stand-in for weights.

Logits are a pure function of (prompt, adapter, answer so far); noise is a pure function of (seed, position, token id).
Greedy answers tend to loop and end of themselves after some thirty tokens, as those of small models do.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.params import SamplingParams

    Floats = NDArray[np.float64]

EOS: Final = 0
UNK: Final = 1
# One text, because sixty quoted words are hard to read.
_WORDS: Final = (  # noqa: SIM905
    "the a one cat dog bird sees likes finds small red old house tree river and then because it is "
    "not yes no answer number word day night sun moon rain 0 1 2 3 4 5 6 7 8 9 10 12 blue green true "
    "false run sleep sing very quiet loud"
).split()
# The two halves of one four-byte character are separate tokens, as in byte-level vocabularies.
_HALF_CHARACTER: Final = (b" \xf0\x9f", b"\x98\x80")
TOKENS: Final[tuple[bytes, ...]] = (
    b"",
    b"<unk>",
    *(f" {word}".encode() for word in _WORDS),
    b".",
    b",",
    b"?",
    *_HALF_CHARACTER,
)
"""The vocabulary: token id to bytes. Id 0 ends the answer, id 1 is never drawn."""
ID_OF: Final = {token.strip(): i for i, token in enumerate(TOKENS) if i > UNK}
N_TOKENS: Final = len(TOKENS)
FIRST_HALF: Final = N_TOKENS - 2
SECOND_HALF: Final = N_TOKENS - 1


def logits(
    context: Sequence[int], adapter: Sequence[int], outputs: Sequence[Sequence[int]]
) -> Floats:
    """Next-token logits of the scripted model, shape (rows, vocabulary), float64.

    Args:
        context: One 64-bit key per row, from its prompt.
        adapter: One 64-bit key per row, 0 without an adapter.
        outputs: Token ids drawn so far, per row.
    """
    last = np.array([ids[-1] if ids else UNK for ids in outputs], dtype=np.uint64)
    length = np.array([len(ids) for ids in outputs])
    tokens = np.arange(N_TOKENS, dtype=np.uint64)[None, :]
    out = 1.2 * _logistic(np.array(context, dtype=np.uint64)[:, None], last[:, None], tokens)
    keys = np.array(adapter, dtype=np.uint64)[:, None]
    out += np.where(keys > 0, 1.5 * _logistic(keys, last[:, None], tokens), 0.0)
    out[:, EOS] = -4.0 + 0.12 * length
    out[:, UNK] = -np.inf
    half = last == FIRST_HALF
    out[:, SECOND_HALF] = np.where(half, 40.0, -40.0)
    return out


def processed(
    scores: Floats, params: Sequence[SamplingParams], counts: Floats, in_prompt: NDArray[np.bool_]
) -> Floats:
    """Apply penalties, temperature and truncation, each row with its own settings.

    Args:
        scores: Logits, shape (rows, vocabulary).
        params: Settings, one per row.
        counts: How often each token is in the answer so far, same shape as ``scores``.
        in_prompt: Whether each token is in the prompt, same shape.

    Returns:
        Logits divided by the temperature, -inf where a token is dropped; greedy rows keep only their best token.
    """

    def column(field: str, off: float) -> Floats:
        values = [getattr(p, field) for p in params]
        return np.array([off if v is None else v for v in values], dtype=np.float64)[:, None]

    penalty = column("repetition_penalty", 1.0)
    seen = in_prompt | (counts > 0)
    scores = np.where(seen, np.where(scores > 0, scores / penalty, scores * penalty), scores)
    scores = scores - column("frequency_penalty", 0.0) * counts
    scores = scores - column("presence_penalty", 0.0) * (counts > 0)
    greedy = np.array([p.temperature == 0 for p in params])[:, None]
    scores = scores / np.where(greedy, 1.0, column("temperature", 1.0))
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    keep = np.arange(N_TOKENS)[None, :] < np.where(greedy, 1, column("top_k", N_TOKENS))
    weights = np.where(keep, np.exp(ranked - ranked[:, :1]), 0.0)
    before = np.cumsum(weights, axis=1) - weights
    top_p = column("top_p", 1.0)
    keep &= (top_p >= 1) | (before < top_p * weights.sum(axis=1, keepdims=True))
    keep &= weights >= column("min_p", 0.0)
    keep[:, 0] = True
    out = np.empty_like(scores)
    np.put_along_axis(out, order, np.where(keep, ranked, -np.inf), axis=1)
    return out


def gumbel(seeds: Sequence[int], positions: Sequence[int]) -> Floats:
    """Standard Gumbel noise, shape (rows, vocabulary): a pure function of (seed, position, token id)."""
    key = _mix(np.array(seeds, dtype=np.uint64)) ^ np.array(positions, dtype=np.uint64)
    uniform = _uniform(_mix(key)[:, None], np.arange(N_TOKENS, dtype=np.uint64)[None, :])
    noise: Floats = -np.log(-np.log(uniform))
    return noise


def hash64(parts: Sequence[Any]) -> int:
    """A 64-bit number from plain values, the same on every machine."""
    return int.from_bytes(hashlib.sha256(json.dumps(list(parts)).encode()).digest()[:8])


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _uniform(*parts: NDArray[np.uint64]) -> Floats:
    """Uniform numbers strictly between 0 and 1 from broadcastable integer parts."""
    key = np.zeros((1, 1), dtype=np.uint64)
    for part in parts:
        key = _mix(key ^ part)
    return ((key >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53


def _logistic(*parts: NDArray[np.uint64]) -> Floats:
    uniform = _uniform(*parts)
    out: Floats = np.log(uniform / (1 - uniform))
    return out
