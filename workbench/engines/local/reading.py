"""Answers read instead of drawn: the log-probability of each of their tokens (teacher forcing).

The prompt is read once and its keys and values are copied to every row, as for drawing; then all tokens of the answers are
read in one pass. Answers are padded at their end, where no token of theirs looks, so a row's numbers do not depend on the
others but for the rounding of larger products.
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any, Final

import torch

from workbench.engines.base import Logprobs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from torch import Tensor

    from workbench.engines.base import Given
    from workbench.engines.local.decode import Prefill
    from workbench.engines.local.lora import Adapters

_COPIES: Final = 3
"""fp32 copies of the logits that there are at the peak: the model's own, those in fp32, and what the sum needs."""


def chosen(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each place's token, nats, (..., n), from logits fp32 (..., n, V) and tokens (..., n)."""
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def by_prompt(answers: Sequence[Given]) -> Iterator[list[Given]]:
    """Neighbours that answer the same prompt with the same adapter."""
    for _, group in itertools.groupby(answers, lambda g: (g.adapter, g.messages, g.tools)):
        yield list(group)


def tokens_of(tokenizer: Any, answer: str | tuple[int, ...], ends: Collection[int]) -> list[int]:
    """The tokens of an answer, apart from its prompt's as in generating, without an end token at its end."""
    if isinstance(answer, str):
        ids: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
        return ids
    return list(answer[:-1] if answer and answer[-1] in ends else answer)


def fitting(
    answers: Sequence[list[int]],
    room: int,
    read: Callable[[list[list[int]]], Iterable[Sequence[float]]],
) -> list[Logprobs]:
    """Read those answers that can be read.

    Args:
        answers: Their tokens; one without any has no log-probabilities.
        room: Most tokens that the model takes after the prompt.
        read: Reads answers of 1 to ``room`` tokens.
    """
    fits = [0 < len(answer) <= room for answer in answers]
    nats = iter(read(list(itertools.compress(answers, fits))))
    found = []
    for answer, fit in zip(answers, fits, strict=True):
        long = f"ContextOverflow: the answer has {len(answer)} tokens, after its prompt the model takes {room}"
        found.append(
            Logprobs(tuple(next(nats))) if fit else Logprobs(error=long if answer else None)
        )
    return found


def row_bytes(length: int, n_answer: int, vocabulary: int, kv_bytes: int) -> int:
    """Memory that reading one answer takes.

    Args:
        length: Tokens of prompt and answer.
        n_answer: Tokens of the answer.
        vocabulary: Logits a token.
        kv_bytes: Keys and values of one token.
    """
    # Keys and values twice: a layer's are copied when the answer's are put behind them.
    return 2 * length * kv_bytes + _COPIES * 4 * n_answer * vocabulary


def read(
    adapters: Adapters, adapter: str, prompt: Prefill, answers: Sequence[Sequence[int]]
) -> list[tuple[float, ...]]:
    """Read answers to one prompt together.

    Args:
        adapters: A model's adapters.
        adapter: With which it reads; the prompt was read with the same.
        prompt: What they answer.
        answers: Their tokens; none may be empty.

    Returns:
        The log-probability of each token, nats.
    """
    device, n = prompt.logits.device, max(map(len, answers))
    tokens = torch.zeros(len(answers), n, dtype=torch.int64, device=device)
    for i, ids in enumerate(answers):
        tokens[i, : len(ids)] = torch.tensor(list(ids), device=device)
    nats = chosen(prompt.logits.expand(len(answers), -1)[:, None], tokens[:, :1])
    if n > 1:
        cache = copy.deepcopy(prompt.cache)
        cache.batch_repeat_interleave(len(answers))
        slots = adapters.slots([adapter] * len(answers))
        with torch.no_grad(), adapters.rows.use(slots):
            out = adapters.model(input_ids=tokens[:, :-1], past_key_values=cache, use_cache=True)
        nats = torch.cat([nats, chosen(out.logits.float(), tokens[:, 1:])], 1)
    rows = nats.tolist()
    return [tuple(row[: len(ids)]) for row, ids in zip(rows, answers, strict=True)]
