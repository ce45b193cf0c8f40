"""A batch of answers being decoded, each row with its own settings; rows enter and leave while the rest go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from workbench.engines.local.cache import KVPool, round_up
from workbench.engines.local.sampling import RowSettings, draw, penalize
from workbench.engines.local.text import decode, find_stop
from workbench.records import Generation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.engines.local.lora import Adapters
    from workbench.engines.local.text import StopTokens
    from workbench.records import FinishReason, Request


@dataclass(frozen=True, slots=True)
class Prefill:
    """A prompt the model has read.

    Attributes:
        ids: Prompt tokens.
        text: The prompt as the model saw it.
        cache: Keys and values, (1, H_kv, n, D) a layer.
        logits: fp32 (1, V), for the first output token.
    """

    ids: tuple[int, ...]
    text: str
    cache: DynamicCache
    logits: Tensor


def prefill(
    adapters: Adapters, adapter: str, ids: Sequence[int], text: str, device: Any
) -> Prefill:
    """Read a prompt with an adapter, alone and unpadded: its numbers depend on nothing else."""
    model = adapters.model
    cache = DynamicCache(config=model.config)
    tokens = torch.tensor([list(ids)], device=device)
    with torch.no_grad(), adapters.rows.use(adapters.slots([adapter])):
        out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Prefill(tuple(ids), text, cache, out.logits[:, -1].float())


@dataclass(slots=True)
class _Row:
    request: Request
    n_prompt: int
    prompt: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What a batch leaves for the next: fresh memory is slow to touch for the first time."""

    pool: KVPool
    state: _State


class Batch:
    """Rows being decoded together.

    Use: :meth:`admit` rows, call :meth:`step` until :attr:`active` is 0; both return the answers that finished.

    Per-row state lives in tensors; Python touches a row only when it enters, leaves, or may have met a stop text.
    """

    def __init__(
        self,
        adapters: Adapters,
        tokenizer: Any,
        eos: Tensor,
        stops: StopTokens,
        memory: Memory | None = None,
    ) -> None:
        self._model = model = adapters.model
        self._adapters = adapters
        self._tokenizer = tokenizer
        self._eos = eos
        self._eos_set = frozenset(eos.tolist())
        self._stops = stops
        self._device = eos.device
        self._rows: list[_Row | None] = []
        fresh = memory or Memory(
            KVPool(model.config.num_hidden_layers, 0, 0), _State.empty(self._device)
        )
        self._pool, self._state = fresh.pool, fresh.state
        self._settings: RowSettings | None = None
        self._slots: Tensor | None = None
        self._longest = 0

    @property
    def active(self) -> int:
        """Rows being decoded."""
        return sum(row is not None for row in self._rows)

    @property
    def requests(self) -> list[Request]:
        """The requests being decoded."""
        return [row.request for row in self._rows if row is not None]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens a row that memory is allocated for."""
        return self._pool.rows, self._pool.length

    @property
    def memory(self) -> Memory:
        """The memory of this batch; only for another batch once this one is not used any more."""
        return Memory(self._pool, self._state)

    def admit(
        self, requests: Sequence[Request], prompt: Prefill, most: int = 1
    ) -> list[Generation]:
        """Take in rows that share a prompt, and draw their first token.

        Args:
            requests: At least one.
            prompt: Their prompt.
            most: Rows that memory may be reserved for in advance.

        Returns:
            Answers that are already finished.
        """
        holes = [i for i, row in enumerate(self._rows) if row is None]
        total = len(self._rows) + max(0, len(requests) - len(holes))
        length = len(prompt.ids) + max(r.params.max_tokens for r in requests)
        self._reserve(total, length, most)
        at = (holes + list(range(len(self._rows), total)))[: len(requests)]
        self._rows.extend([None] * (total - len(self._rows)))
        for i, request in zip(at, requests, strict=True):
            self._rows[i] = _Row(request, len(prompt.ids), prompt.text)
        self._pool.write_prompt(at, prompt.cache)
        self._state.enter(
            at, prompt.ids, requests, [self._stops.row(r.params.stop) for r in requests]
        )
        self._settings = None
        settings = RowSettings.of([r.params for r in requests], self._device)
        rows = torch.tensor(at, device=self._device)
        return self._draw(prompt.logits.repeat(len(at), 1), settings, rows)

    def step(self) -> list[Generation]:
        """Draw one more token for every row.

        Returns:
            Answers that finished with it, in row order.
        """
        self._close_gaps()
        n = len(self._rows)
        if self._settings is None:
            requests = self.requests
            self._settings = RowSettings.of([r.params for r in requests], self._device)
            self._slots = self._adapters.slots([r.adapter for r in requests])
            self._longest = int(self._state.length[:n].max())
        position = self._state.length[:n] - 1
        mask = self._pool.begin_step(position, self._longest)
        with torch.no_grad(), self._adapters.rows.use(self._slots):
            out = self._model(
                input_ids=self._state.last[:n, None],
                position_ids=position[:, None],
                attention_mask=mask,
                past_key_values=self._pool,
                use_cache=True,
            )
        self._longest += 1
        self._state.peak[:n].clamp_(min=n)
        return self._draw(out.logits[:, -1].float(), self._settings, slice(0, n))

    def _draw(
        self, logits: Tensor, settings: RowSettings, rows: Tensor | slice
    ) -> list[Generation]:
        """Draw a token for some rows from their logits, and take out the rows that finished."""
        state = self._state
        n_prompt, length = state.n_prompt[rows], state.length[rows]
        penalize(logits, settings, state.seen[rows], n_prompt, length)
        n_output = length - n_prompt
        tokens, lead = draw(logits, settings, n_output)
        state.append(rows, tokens, lead)
        ended = torch.isin(tokens, self._eos)
        full = n_output + 1 >= state.max_tokens[rows]
        maybe = self._stops.hits(state.stop_row[rows], tokens)
        flags = ended.to(torch.int8) | (full.to(torch.int8) << 1) | (maybe.to(torch.int8) << 2)
        which = flags.nonzero()[:, 0].tolist()
        if not which:
            return []
        numbers = list(range(len(self._rows)))[rows] if isinstance(rows, slice) else rows.tolist()
        found = [self._finish(numbers[i], int(flags[i])) for i in which]
        return [generation for generation in found if generation is not None]

    def _finish(self, i: int, flag: int) -> Generation | None:
        """The answer of row i if it is finished, which frees the row; None if a stop text was not there after all."""
        row = self._rows[i]
        assert row is not None
        state, request = self._state, row.request
        token_ids = state.seen[i, row.n_prompt : int(state.length[i])].tolist()
        text = decode(
            self._tokenizer, token_ids[:-1] if token_ids[-1] in self._eos_set else token_ids
        )
        stop_at = find_stop(text, request.params.stop or ())
        reason: FinishReason = "stop" if flag & 1 or stop_at is not None else "length"
        if not flag & 3 and stop_at is None:
            return None
        self._rows[i] = None
        return Generation(
            *request.key,
            text=text if stop_at is None else text[:stop_at],
            token_ids=tuple(token_ids),
            n_prompt_tokens=row.n_prompt,
            finish_reason=reason,
            seed=None if request.params.greedy else request.params.seed,
            prompt=row.prompt,
            batch_rows=int(state.peak[i]),
            min_margin=float(state.margin[i]),
        )

    def last_token(self) -> int:
        """The newest token of row 0."""
        return int(self._state.last[0])

    def _reserve(self, rows: int, length: int, most: int) -> None:
        """Make room for rows of a length. Growing copies what is there, so it grows by doubling."""
        have_rows, have_length = self._pool.rows, self._pool.length
        if rows <= have_rows and length <= have_length:
            return
        grown = have_rows if rows <= have_rows else max(rows, min(4 * have_rows, most))
        rows, length = grown, max(have_length, round_up(length))
        self._pool = self._pool.resized(rows, length)
        self._state = self._state.resized(rows, length)

    def _close_gaps(self) -> None:
        """Move the last rows into the places of finished ones, so that the active rows are the first n."""
        gone = [i for i, row in enumerate(self._rows) if row is None]
        if not gone:
            return
        n = len(self._rows) - len(gone)
        target = [i for i in gone if i < n]
        source = [i for i in range(n, len(self._rows)) if self._rows[i] is not None]
        if target:
            self._pool.move(source, target)
            self._state.move(source, target)
            for s, t in zip(source, target, strict=True):
                self._rows[t] = self._rows[s]
        del self._rows[n:]
        self._settings = None


@dataclass(slots=True)
class _State:
    """Per-row state, one entry a row.

    Attributes:
        seen: int64 (rows, length + 1), prompt then output tokens.
        length: Tokens in ``seen``.
        n_prompt: Prompt tokens.
        max_tokens: Most output tokens.
        last: Newest token.
        stop_row: Row of the stop-token table.
        peak: Most rows decoded together with this one.
        margin: Smallest lead of a drawn token over the runner-up.
    """

    seen: Tensor
    length: Tensor
    n_prompt: Tensor
    max_tokens: Tensor
    last: Tensor
    stop_row: Tensor
    peak: Tensor
    margin: Tensor

    @classmethod
    def empty(cls, device: Any, rows: int = 0, length: int = 0) -> _State:
        def ints(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        return cls(
            seen=ints(rows, length + 1),
            length=ints(rows),
            n_prompt=ints(rows),
            max_tokens=ints(rows),
            last=ints(rows),
            stop_row=ints(rows),
            peak=ints(rows),
            margin=torch.zeros(rows, device=device),
        )

    def _fields(self) -> list[Tensor]:
        return [getattr(self, name) for name in self.__slots__]

    def resized(self, rows: int, length: int) -> _State:
        other = _State.empty(self.seen.device, rows, length)
        kept, span = min(rows, len(self.seen)), min(length + 1, self.seen.shape[1])
        for mine, theirs in zip(self._fields(), other._fields(), strict=True):
            if mine.dim() > 1:
                theirs[:kept, :span] = mine[:kept, :span]
            else:
                theirs[:kept] = mine[:kept]
        return other

    def move(self, source: list[int], target: list[int]) -> None:
        for field in self._fields():
            field[target] = field[source]

    def enter(
        self, at: list[int], ids: tuple[int, ...], requests: Sequence[Request], stops: list[int]
    ) -> None:
        device = self.seen.device
        self.seen[at, : len(ids)] = torch.tensor(ids, device=device)
        self.length[at] = len(ids)
        self.n_prompt[at] = len(ids)
        self.max_tokens[at] = torch.tensor([r.params.max_tokens for r in requests], device=device)
        self.stop_row[at] = torch.tensor(stops, device=device)
        self.peak[at] = 1
        self.margin[at] = torch.inf

    def append(self, rows: Tensor | slice, tokens: Tensor, lead: Tensor) -> None:
        length = self.length[rows]
        where = (
            torch.arange(rows.start, rows.stop, device=length.device)
            if isinstance(rows, slice)
            else rows
        )
        self.seen[where, length] = tokens
        self.length[rows] = length + 1
        self.last[rows] = tokens
        self.margin[rows] = torch.minimum(self.margin[rows], lead)
