"""Examples as tokens: the prompt as the engine renders it, then the answer with the template's end of turn.

Prompt and answer are turned into tokens apart, as in generating: there the prompt's tokens are given, and the answer is
drawn after them. Only the answer's tokens count in the loss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from jinja2 import TemplateError

from workbench.errors import ModelError, PromptSetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from workbench.training.rows import Example

_POOL: Final = 8
"""Batches whose rows are sorted by length together: little padding, and still another order in every epoch."""
IGNORED: Final = -100
"""Label of a place that does not count in the loss."""


class Tokens(NamedTuple):
    """A row: token ids, the last ``n_answer`` of which are the answer."""

    ids: tuple[int, ...]
    n_answer: int


class Encoder:
    """Turns rows into tokens for one tokenizer.

    Raises:
        ModelError: The model has no chat template, or names no end token.
    """

    def __init__(self, tokenizer: Any, eos_token_ids: Sequence[int]) -> None:
        if not tokenizer.chat_template:
            raise ModelError("the model has no chat template, so it cannot be trained on chats")
        if not eos_token_ids:
            raise ModelError("the model names no end token, so its answers would have no end")
        self._tokenizer = tokenizer
        self._eos = frozenset(eos_token_ids)

    def __call__(self, example: Example) -> Tokens:
        """The tokens of a row.

        Raises:
            PromptSetError: The model's chat template refuses it or leaves the answer out, or the answer would be cut.
        """
        messages = [dict(m) for m in example.messages]
        tools = [dict(t) for t in example.tools] if example.tools else None
        said = [*messages, {"role": "assistant", "content": example.answer}]
        try:
            prompt = self._render(messages, tools, add_generation_prompt=True)
            whole = self._render(said, tools, add_generation_prompt=False)
        except (TemplateError, TypeError, ValueError) as error:
            raise PromptSetError(
                example.place, f"the model's chat template refuses it: {error}"
            ) from error
        # A template may write an answer that is over otherwise than one that is asked for; what is said is the same.
        rest = whole.removeprefix(prompt) if whole.startswith(prompt) else example.answer
        if "".join(example.answer.split()) not in "".join(rest.split()):
            raise PromptSetError(
                example.place,
                "the model's chat template leaves the answer out, or part of it, so it cannot be trained on",
            )
        ends = [i for i in self._ids(example.answer) if i in self._eos]
        if ends:
            raise PromptSetError(
                example.place,
                f"the answer holds {self._tokenizer.decode(ends[:1])!r}, which ends an answer; take it out",
            )
        asked, answer = self._ids(prompt), self._ended(self._ids(rest))
        return Tokens((*asked, *answer), len(answer))

    def _render(self, messages: Any, tools: Any, *, add_generation_prompt: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=False
        )
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _ended(self, answer: list[int]) -> list[int]:
        """The answer up to its first end token: what a template writes after it is never generated."""
        places = [i for i, token in enumerate(answer) if token in self._eos]
        if places:
            return answer[: places[0] + 1]
        end = self._tokenizer.eos_token_id
        return [*answer, min(self._eos) if end is None else end]


def encode(
    examples: Sequence[Example], encoder: Callable[[Example], Tokens], max_length: int
) -> tuple[list[tuple[Example, Tokens]], list[str]]:
    """Rows as tokens, and the rows that are too long, in words.

    Args:
        examples: Rows.
        encoder: See `Encoder`.
        max_length: Most tokens of prompt and answer.

    Returns:
        The rows that fit with their tokens, in order; "place: n tokens" of the others.
    """
    made = [(example, encoder(example)) for example in examples]
    long = [f"{e.place}: {len(t.ids)} tokens" for e, t in made if len(t.ids) > max_length]
    return [(e, t) for e, t in made if len(t.ids) <= max_length], long


def collate(rows: Sequence[Tokens], pad: int, device: Any = None) -> dict[str, Tensor]:
    """A batch, padded on the left so that all answers end together.

    Returns:
        ``input_ids``, ``attention_mask`` and ``position_ids``, int64 (B, T), and ``labels``, int64 (B, A): the tokens of the
        answers, ``IGNORED`` before the shorter ones.
    """
    width, answer = max(len(r.ids) for r in rows), max(r.n_answer for r in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    labels = torch.full((len(rows), answer), IGNORED, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, width - len(row.ids) :] = torch.tensor(row.ids)
        mask[i, width - len(row.ids) :] = 1
        labels[i, answer - row.n_answer :] = torch.tensor(row.ids[-row.n_answer :])
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        "labels": labels,
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


class Batches:
    """Batches of rows of similar length, in an order that depends on the seed and the epoch alone.

    Rows are shuffled, sorted by length within pools of some steps' rows, and the steps are shuffled; the short one, if the
    number of rows does not divide, comes last. The rows of a step are given in one batch or several.

    Args:
        lengths: Tokens of every row.
        batch_size: Most rows of a batch.
        seed: Of the order.
        epoch: Tells which epoch it is.
        parts: Batches of a step.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        epoch: Callable[[], int],
        parts: int = 1,
    ) -> None:
        self._lengths = np.asarray(lengths)
        self._part = batch_size
        self._size = batch_size * parts
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._part)

    def __iter__(self) -> Iterator[list[int]]:
        """Row numbers of each batch of the epoch that it is now."""
        rng = np.random.default_rng([self._seed, self._epoch()])
        order = rng.permutation(len(self._lengths))
        pool = self._size * _POOL
        batches: list[list[int]] = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.argsort(self._lengths[part], kind="stable")]
            batches += [
                [int(i) for i in part[k : k + self._size]] for k in range(0, len(part), self._size)
            ]
        whole = [b for b in batches if len(b) == self._size]
        short = [b for b in batches if len(b) < self._size]
        for step in [whole[i] for i in rng.permutation(len(whole))] + short:
            yield from (step[k : k + self._part] for k in range(0, len(step), self._part))
