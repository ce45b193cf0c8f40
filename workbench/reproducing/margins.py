"""How close two candidates were where an answer went another way: the common part is read again, and both are scored.

The score of a token is what the draw compares: ``logit / temperature + noise`` after the penalties (at temperature 0 the
logit), or minus infinity if top_k, top_p or min_p leave it out; `workbench.engines.local.sampling` decodes by the same rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from workbench.engines.base import Engine
    from workbench.params import SamplingParams
    from workbench.records import Request

RESOLUTION: Final = 1e-6
"""Two logits closer than this share of their size (at least 1) are a tie in fp32: its rounding error is about as large."""


class Margin(NamedTuple):
    """The decision between two tokens.

    Attributes:
        score: Difference of their scores, >= 0; infinite if top_k, top_p or min_p keep only one of them.
        tie: The difference is within the rounding error of fp32.
    """

    score: float
    tie: bool


def gives_scores(engine: Engine) -> bool:
    """Whether the engine's scores can be looked at: those of a model in this process can."""
    return engine.info.engine == "local"


def between(
    engine: Any, request: Request, answer: Sequence[int], tokens: tuple[int, int]
) -> Margin:
    """How close two tokens were as the next one of an answer.

    Args:
        engine: A local engine with the request's adapter.
        request: Whose answer it is.
        answer: Tokens of the answer so far.
        tokens: The two candidates.
    """
    import torch  # noqa: PLC0415 - heavy

    from workbench.engines.local.decode import prefill  # noqa: PLC0415 - imports torch
    from workbench.engines.local.sampling import RowSettings, penalize  # noqa: PLC0415

    text = engine.render(request.messages, request.tools)
    prompt = engine.tokenizer(text, add_special_tokens=False)["input_ids"]
    seen = [*prompt, *answer]
    device = torch.device(engine.info.device)
    read = prefill(engine._adapters, request.adapter, seen, text, device)  # noqa: SLF001 - it has no other face for this
    settings = RowSettings.of([request.params], device)
    counts = (torch.tensor([n], device=device) for n in (len(prompt), len(seen)))
    penalize(read.logits, settings, torch.tensor([seen], device=device), *counts)
    both = read.logits[0, list(tokens)]
    found = scores(read.logits[0], request.params, len(answer))[list(tokens)]
    size = max(1.0, float(both.abs().max()))
    gap = float((found[0] - found[1]).abs())
    temperature = 1.0 if request.params.greedy else request.params.temperature
    return Margin(gap, gap * temperature <= RESOLUTION * size)


def scores(logits: Tensor, params: SamplingParams, position: int) -> Tensor:
    """What the draw compares, for every token of the vocabulary.

    Args:
        logits: fp32 (V,), penalties applied.
        params: With the request's seed.
        position: Of the token to draw, from 0.

    Returns:
        fp32 (V,); -inf for tokens that are left out.
    """
    import torch  # noqa: PLC0415 - heavy

    from workbench.engines.local.sampling import gumbel, noise_keys  # noqa: PLC0415 - imports torch

    if params.greedy:
        return logits
    scaled = (logits - logits.amax()) / params.temperature
    one = torch.ones(1, dtype=torch.int64, device=logits.device)
    first, second = noise_keys((params.seed or 0) * one, position * one)
    ids = torch.arange(len(logits), device=logits.device)[None]
    noisy = scaled + gumbel((first[:, None], second[:, None]), ids)[0]
    return noisy.masked_fill(scaled < _lowest_kept(scaled, params), -torch.inf)


def _lowest_kept(scaled: Tensor, params: SamplingParams) -> Tensor:
    """The lowest of ``logits / temperature`` that top_k, then top_p, then min_p keep."""
    import torch  # noqa: PLC0415 - heavy

    ordered = scaled.sort(descending=True).values
    low = torch.full_like(ordered[0], -torch.inf)
    if params.top_k is not None:
        low = ordered[min(params.top_k, len(ordered)) - 1]
    if params.top_p is not None and params.top_p < 1:
        shares = ordered.masked_fill(ordered < low, -torch.inf).softmax(0)
        needed = (shares.cumsum(0) - shares < params.top_p) & (ordered >= low)
        low = ordered[max(1, int(needed.sum())) - 1]
    if params.min_p:
        low = torch.maximum(low, ordered[0] + torch.tensor(params.min_p).log())
    return low
