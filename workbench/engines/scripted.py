"""A scripted engine: a tiny deterministic language model that needs no weights and no torch.

It ships so that tests, examples and documentation run anywhere. It is honest about decoding: the next-token
distribution is a pure function of (prompt, answer so far, adapter), and every field of ``SamplingParams`` acts on it in
the documented order with noise that is a pure function of (seed, position, token id). What it says means nothing.

On top of that a test can plant what it needs: fixed answers, a probability of being right, failures, delays, and a
clock that makes every latency exact.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from workbench.engines.base import EngineInfo, Logprobs
from workbench.engines.toy import (
    EOS,
    ID_OF,
    N_TOKENS,
    TOKENS,
    UNK,
    gumbel,
    hash64,
    logits,
    processed,
)
from workbench.errors import AdapterError, ContextOverflow, EngineUnavailable, WorkbenchError
from workbench.params import SEED_MAX, SamplingParams
from workbench.records import BASE, CANARY, Generation, Request, TokenEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from workbench.engines.base import Given
    from workbench.records import FinishReason

    PerRequest = float | Callable[[Request], float]
    Responses = Mapping[str | Callable[[Request], bool], str] | Callable[[Request], str | None]
    Failures = (
        Mapping[str | tuple[str, str, int], str | Exception]
        | Callable[[Request], str | Exception | None]
    )

_EXTRA_ID: Final = 1_000
"""Words of planted answers that are not in the vocabulary get ids from here on."""


class ScriptedClock:
    """A clock that moves only when the engine says so, which makes latencies exact.

    Args:
        prefill_ms: Time from sending a request to its first token, or a function of the request.
        token_ms: Time between two tokens, or a function of the request.
    """

    def __init__(self, prefill_ms: PerRequest = 0.0, token_ms: PerRequest = 0.0) -> None:
        self.prefill_ms = prefill_ms
        self.token_ms = token_ms
        self._now_ns = 0

    def __call__(self) -> int:
        """The time now, nanoseconds."""
        return self._now_ns

    def tick(self, request: Request, position: int) -> int:
        """Let the time of one token pass and return the new time, nanoseconds."""
        step = self.token_ms if position else self.prefill_ms
        self._now_ns += round(_number(step, request) * 1e6)
        return self._now_ns


@dataclass(frozen=True, slots=True)
class PlantedQuality:
    """Answers that are right with a known probability.

    Attributes:
        probability: Chance of a right answer, 0..1, given the request (settings, adapter, prompt).
        answers: Prompt id to the right answer; other prompts are answered by the language model.
        wrong: The answer given otherwise.
        coupled: True draws the same chance for a prompt and repeat in every cell, as common random numbers do;
            False makes cells independent.
    """

    probability: Callable[[Request], float]
    answers: Mapping[str, str]
    wrong: str = "I do not know."
    coupled: bool = True

    def answer(self, request: Request) -> str | None:
        """The planted answer to a request, or None if there is none for its prompt."""
        if request.prompt_id not in self.answers:
            return None
        where = [request.params.seed, request.prompt_id, request.repeat]
        if not self.coupled:
            where += [request.cell_id, request.adapter]
        right = hash64(where) / 2**64 < self.probability(request)
        return self.answers[request.prompt_id] if right else self.wrong


class ScriptedEngine:
    """A deterministic engine for tests, examples and documentation.

    Args:
        model: The model id it reports.
        adapters: Names of the adapters that count as loaded.
        context_length: Most tokens of prompt and answer together.
        max_rows: Most rows decoded together.
        responses: Fixed answers: a mapping from prompt id, or from a test on the request, to text; or a function
            from the request to text or None. They are still cut by ``max_tokens`` and ``stop``.
        quality: Answers right with a known probability.
        fail: Planted failures by prompt id, by (cell_id, prompt_id, repeat), or by function. A text becomes a failed
            row; an exception is raised out of ``generate``.
        delay_ms: Real time spent before each row, or a function of the request.
        clock: Gives streamed tokens exact times; None uses the real clock.
    """

    def __init__(
        self,
        model: str = "scripted",
        *,
        adapters: Sequence[str] = (),
        context_length: int = 4096,
        max_rows: int = 256,
        responses: Responses | None = None,
        quality: PlantedQuality | None = None,
        fail: Failures | None = None,
        delay_ms: PerRequest = 0.0,
        clock: ScriptedClock | None = None,
    ) -> None:
        self._responses = responses
        self._quality = quality
        self._fail = fail
        self._delay_ms = delay_ms
        self._max_rows = max_rows
        self._clock = clock
        self._closed = False
        self.clock_ns: Callable[[], int] = clock or time.perf_counter_ns
        """The clock of the times in ``TokenEvent``; the latency pass times the sending with it."""
        names = [name for name in adapters if name != BASE]
        self._info = EngineInfo(
            engine="scripted",
            model=model,
            weight_hash=_sha256("scripted language model 1"),
            kernel="numpy",
            kernel_reason="the scripted engine has no weights",
            dtype="float64",
            tokenizer_hash=_sha256(repr(TOKENS)),
            chat_template_hash=_sha256("<|role|>content"),
            context_length=context_length,
            adapters={name: _sha256(name) for name in names},
        )

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        return self._info

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer every request; see ``Engine.generate``."""
        waiting = iter(requests)
        while True:
            self._check_open()
            batch = list(islice(waiting, self._max_rows))
            if not batch:
                return
            for row in self._wave(batch):
                self._check_open()
                yield row.generation()

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Answer one request token by token; see ``Engine.stream``."""
        self._check_open()
        row = self._row(request)
        if row.problem is not None:
            raise row.problem
        n_sent = 0
        while row.finish_reason is None:
            self._check_open()
            if row.planted is None:
                _step([row])
            else:
                row.take_planted()
            position = len(row.token_ids) - 1
            t_ns = self._clock.tick(request, position) if self._clock else time.perf_counter_ns()
            text, n_sent = row.text[n_sent : row.n_certain], row.n_certain
            yield TokenEvent(row.token_ids[-1], text, t_ns, row.finish_reason, row.n_prompt_tokens)

    def logprobs(self, answers: Sequence[Given]) -> list[Logprobs]:
        """How likely the language model, which knows nothing of planted answers, makes given ones.

        Words that are not in its vocabulary it never says: their log-probability is -inf.
        """
        self._check_open()
        return [self._logprobs(given) for given in answers]

    def close(self) -> None:
        """Nothing to free; the engine refuses work from now on."""
        self._closed = True

    def _logprobs(self, given: Given) -> Logprobs:
        said = given.answer
        ids = [t for t, _ in _tokenise(said)] if isinstance(said, str) else list(said)
        ids = ids[:-1] if ids and ids[-1] == EOS else ids
        params = SamplingParams(max_tokens=max(1, len(ids)))
        request = Request("", "", 0, given.messages, params, given.adapter, given.tools)
        row = self._row(request)
        if row.problem is not None:
            return Logprobs(error=f"{type(row.problem).__name__}: {row.problem}")
        before = [ids[:n] for n in range(len(ids))]
        scores = logits([row.context] * len(ids), [row.adapter] * len(ids), before)
        whole = np.log(np.exp(scores).sum(axis=1))
        return Logprobs(
            tuple(
                float(row_[i] - all_) if i < N_TOKENS else -np.inf
                for row_, all_, i in zip(scores, whole, ids, strict=True)
            )
        )

    def _check_open(self) -> None:
        if self._closed:
            raise EngineUnavailable("the scripted engine is closed; make a new one")

    def _wave(self, requests: Sequence[Request]) -> Iterator[_Row]:
        """Decode some requests together, yielding each row as it finishes."""
        rows = [self._row(request) for request in requests]
        for row in rows:
            row.batch_rows = len(rows)
            while row.planted is not None and row.finish_reason is None:
                row.take_planted()
        active = rows
        while active:
            for row in active:
                if row.finish_reason is not None:
                    delay_ms = _number(self._delay_ms, row.request)
                    if delay_ms:
                        time.sleep(delay_ms / 1e3)
                    yield row
            active = [row for row in active if row.finish_reason is None]
            if active:
                _step(active)

    def _row(self, request: Request) -> _Row:
        """Start a row: render the prompt, check that it can be answered, plant what is planted."""
        row = _Row(request)
        own = request.prompt_id.startswith(CANARY)  # of no study: nothing is planted there
        planted = None if own else self._planted_failure(request)
        if isinstance(planted, WorkbenchError | None):
            row.problem = planted
        if planted is None:
            total = row.n_prompt_tokens + request.params.max_tokens
            if request.adapter not in (BASE, *self._info.adapters):
                loaded = ", ".join([BASE, *self._info.adapters])
                row.problem = AdapterError(
                    f"adapter {request.adapter!r} is not loaded; loaded: {loaded}"
                )
            elif total > self._info.context_length:
                row.problem = ContextOverflow(
                    f"prompt of {row.n_prompt_tokens} tokens and max_tokens {request.params.max_tokens} exceed the "
                    f"context of {self._info.context_length} tokens; shorten the prompt or lower max_tokens"
                )
        if row.problem is not None:
            row.finish_reason = "error"
        elif not own and (text := self._planted_text(request)) is not None:
            row.planted = [*_tokenise(text), (EOS, b"")]
        return row

    def _planted_failure(self, request: Request) -> WorkbenchError | None:
        """The failure planted for a request; raises it if it was planted as an exception."""
        if callable(self._fail):
            planted = self._fail(request)
        else:
            table = self._fail or {}
            planted = table.get(request.key, table.get(request.prompt_id))
        if isinstance(planted, Exception):
            raise planted
        return None if planted is None else WorkbenchError(planted)

    def _planted_text(self, request: Request) -> str | None:
        if callable(self._responses):
            text = self._responses(request)
        else:
            text = next(
                (
                    text
                    for who, text in (self._responses or {}).items()
                    if (who(request) if callable(who) else who == request.prompt_id)
                ),
                None,
            )
        if text is None and self._quality is not None:
            text = self._quality.answer(request)
        return text


class _Row:
    """One answer being written."""

    def __init__(self, request: Request) -> None:
        params = request.params
        self.request = request
        self.prompt = render(request)
        prompt_ids = [ID_OF.get(word.encode(), UNK) for word in self.prompt.split()]
        self.n_prompt_tokens = len(prompt_ids)
        self.seed = None
        if not params.greedy:
            self.seed = params.seed or 1 + hash64(["seed", *request.key]) % SEED_MAX
        self.in_prompt = np.zeros(N_TOKENS, dtype=bool)
        self.in_prompt[prompt_ids] = True
        self.counts = np.zeros(N_TOKENS)
        adapter = None if request.adapter == BASE else request.adapter
        self.context = hash64([self.prompt])
        self.adapter = hash64([self.prompt, adapter]) if adapter else 0
        self.token_ids: list[int] = []
        self.planted: list[tuple[int, bytes]] | None = None
        self.problem: WorkbenchError | None = None
        self.text = ""
        self.n_certain = 0
        """Characters of ``text`` that can no longer turn out to be part of a stop text."""
        self.finish_reason: FinishReason | None = None
        self.margin: float | None = None
        self.batch_rows = 1
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def take_planted(self) -> None:
        """Take the next token of a planted answer."""
        assert self.planted is not None
        token_id, token = self.planted[len(self.token_ids)]
        self.take(token_id, token)

    def take(self, token_id: int, token: bytes) -> None:
        """Append one token and see whether the answer ends with it."""
        self.token_ids.append(token_id)
        ended = token_id == EOS
        full = ended or len(self.token_ids) == self.request.params.max_tokens
        piece = token[1:] if len(self.token_ids) == 1 and token.startswith(b" ") else token
        self.text += self._decoder.decode(piece, final=full)
        stops = self.request.params.stop or ()
        cuts = [at for stop in stops if (at := self.text.find(stop)) >= 0]
        if cuts:
            self.text = self.text[: min(cuts)]
        if cuts or ended:
            self.finish_reason = "stop"
        elif full:
            self.finish_reason = "length"
        self.n_certain = len(self.text)
        if self.finish_reason is None:
            self.n_certain -= max((_overlap(self.text, stop) for stop in stops), default=0)

    def generation(self) -> Generation:
        """The finished answer."""
        if self.problem is not None:
            return Generation.failed(self.request, str(self.problem), self.n_prompt_tokens)
        assert self.finish_reason is not None
        return Generation(
            *self.request.key,
            text=self.text,
            token_ids=tuple(self.token_ids),
            n_prompt_tokens=self.n_prompt_tokens,
            finish_reason=self.finish_reason,
            seed=self.seed,
            prompt=self.prompt,
            batch_rows=self.batch_rows,
            min_margin=self.margin,
        )


def render(request: Request) -> str:
    """The prompt as the scripted model sees it."""
    turns = [f"<|{m.get('role')}|> {_content(m.get('content'))}" for m in request.messages]
    if request.tools:
        turns.insert(0, f"<|tools|> {json.dumps(request.tools, sort_keys=True)}")
    return "\n".join([*turns, "<|assistant|>"])


def _step(rows: Sequence[_Row]) -> None:
    """Draw one token for every row."""
    scores = logits(
        [r.context for r in rows], [r.adapter for r in rows], [r.token_ids for r in rows]
    )
    scores = processed(
        scores,
        [r.request.params for r in rows],
        np.stack([r.counts for r in rows]),
        np.stack([r.in_prompt for r in rows]),
    )
    noise = gumbel([r.seed or 0 for r in rows], [len(r.token_ids) for r in rows])
    drawn = np.array([r.seed is not None for r in rows])[:, None]
    scores = scores + np.where(drawn, noise, 0.0)
    best = scores.argmax(axis=1)
    top = np.sort(scores, axis=1)[:, -2:]
    for row, token_id, (second, first) in zip(rows, best.tolist(), top.tolist(), strict=True):
        if np.isfinite(second):
            row.margin = min(first - second, row.margin if row.margin is not None else np.inf)
        row.counts[token_id] += 1
        row.take(token_id, TOKENS[token_id])


def _tokenise(text: str) -> list[tuple[int, bytes]]:
    """Split a planted text into tokens of one word with the space before it."""
    pieces = [f" {word}".encode() for word in text.split(" ")]
    ids = {token: i for i, token in enumerate(TOKENS) if i > UNK}
    return [(ids.get(p, _EXTRA_ID + hash64([p.decode()]) % 1_000_000), p) for p in pieces]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that a stop text could begin with."""
    return next(
        (n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0
    )


def _content(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, sort_keys=True)


def _number(value: PerRequest, request: Request) -> float:
    return value(request) if callable(value) else value


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
