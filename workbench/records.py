"""The records that travel between the parts, and the latency definitions.

Latency terms (formulas as in vLLM's ``bench serve``), all on the host clock:

* ``ttft_ms``: request sent until the first token id reached the host, sampling included.
* ``e2el_ms``: request sent until the last token id reached the host.
* ``itl_ms``: every gap between consecutive tokens, ``n - 1`` values.
* ``tpot_ms``: ``(e2el_ms - ttft_ms) / (n - 1)``; None when ``n < 2``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.params import SamplingParams

SCHEMA_VERSION: Final = 2
BASE: Final = "base"
"""The adapter name that means: no adapter."""
CANARY: Final = "canary-"
"""Begins the prompt ids of the requests that check an engine before a run; they belong to no study."""

FinishReason = Literal["stop", "length", "tool_calls", "error"]
Message = dict[str, Any]
"""A chat message: ``{"role": ..., "content": ...}``."""


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to be generated.

    Attributes:
        cell_id: The cell it belongs to; with prompt_id and repeat the key of the row.
        prompt_id: Id of the prompt in its prompt set.
        repeat: k-th draw of this prompt in this cell, from 0.
        messages: Chat messages, system message included.
        params: Decoding settings; ``params.seed`` is the request's own seed.
        adapter: Adapter name, or "base".
        tools: Tool definitions handed to the chat template, if any.
    """

    cell_id: str
    prompt_id: str
    repeat: int
    messages: tuple[Message, ...]
    params: SamplingParams
    adapter: str = BASE
    tools: tuple[dict[str, Any], ...] | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """(cell_id, prompt_id, repeat)."""
        return self.cell_id, self.prompt_id, self.repeat


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated answer, or one failure.

    Attributes:
        cell_id: As in the request.
        prompt_id: As in the request.
        repeat: As in the request.
        text: The answer, cut before a stop text, without special tokens.
        token_ids: Ids as drawn, the end token included if it was drawn.
        n_prompt_tokens: Tokens of the rendered prompt; 0 if it was never rendered.
        finish_reason: "stop" (end token or stop text), "length", "tool_calls" or "error".
        seed: The seed the draw used, None when greedy.
        prompt: The prompt as the model saw it (chat template applied).
        error: The error message if finish_reason is "error".
        batch_rows: Most rows decoded together with this one, itself included.
        min_margin: Smallest gap, over the answer, between the best and second best score (logits plus noise) the draw
            chose from; None if unknown. A gap below the numeric noise of the machine is a token at risk.
    """

    cell_id: str
    prompt_id: str
    repeat: int
    text: str
    token_ids: tuple[int, ...]
    n_prompt_tokens: int
    finish_reason: FinishReason
    seed: int | None = None
    prompt: str = ""
    error: str | None = None
    batch_rows: int = 1
    min_margin: float | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """(cell_id, prompt_id, repeat)."""
        return self.cell_id, self.prompt_id, self.repeat

    @property
    def n_output_tokens(self) -> int:
        """Number of generated tokens, the end token included."""
        return len(self.token_ids)

    @classmethod
    def failed(cls, request: Request, error: str, n_prompt_tokens: int = 0) -> Generation:
        """The row of a request that could not be answered."""
        return cls(
            *request.key,
            text="",
            token_ids=(),
            n_prompt_tokens=n_prompt_tokens,
            finish_reason="error",
            seed=request.params.seed,
            error=error,
        )


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One token of a streamed answer.

    Attributes:
        token_id: The id drawn.
        text: Text that became certain with this token; may be empty (an unfinished character or stop text).
        t_ns: ``time.perf_counter_ns()`` when the id had reached the host.
        finish_reason: Set on the last event only.
        n_prompt_tokens: Tokens of the rendered prompt.
    """

    token_id: int
    text: str
    t_ns: int
    finish_reason: FinishReason | None = None
    n_prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """One scorer's judgement of one generation.

    Attributes:
        value: 0..1, or None when not scored (then ``reason`` says why). Never 0 for a failed row.
        answer: What the scorer took as the answer, if it extracts one.
        explanation: One sentence for a reader.
        reason: Why ``value`` is None.
    """

    value: float | None
    answer: str | None = None
    explanation: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Latency of one request, see the module docstring for the formulas."""

    ttft_ms: float
    tpot_ms: float | None
    e2el_ms: float
    itl_ms: tuple[float, ...] = field(default=(), repr=False)
    n_output_tokens: int = 0


def timing(sent_ns: int, token_ns: Sequence[int]) -> Timing:
    """Latency from the time a request was sent and the times its tokens arrived.

    Args:
        sent_ns: Time the request was sent, nanoseconds.
        token_ns: Time each token reached the host, nanoseconds, ascending; at least one.

    Raises:
        ValueError: No token times, or a time before the one it follows.

    >>> timing(0, [50_000_000, 70_000_000, 90_000_000])
    Timing(ttft_ms=50.0, tpot_ms=20.0, e2el_ms=90.0, n_output_tokens=3)
    """
    times = [sent_ns, *token_ns]
    gaps_ms = [(b - a) / 1e6 for a, b in pairwise(times)]
    if not gaps_ms or min(gaps_ms) < 0:
        raise ValueError("token_ns must hold at least one time, ascending from sent_ns")
    n = len(token_ns)
    ttft_ms, e2el_ms = gaps_ms[0], (times[-1] - sent_ns) / 1e6
    tpot_ms = (e2el_ms - ttft_ms) / (n - 1) if n > 1 else None
    return Timing(ttft_ms, tpot_ms, e2el_ms, tuple(gaps_ms[1:]), n)
