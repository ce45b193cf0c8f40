"""Does an adapter act at all? The probe that every adapter must pass before it answers anything.

A few prompts are read with and without the adapter, and the log-probabilities of their own tokens compared (teacher forcing:
no answer is drawn, so nothing is left to chance). An adapter that was never trained, was zeroed, or was trained for layers
that do not act, shifts nothing; comparing it with the base model would report "no difference" of something that did nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.engines.local.lora import Adapters

INERT_NATS: Final = 1e-4
"""An adapter whose mean shift is smaller has no effect: one token in ten thousand becomes a factor e likelier or less so."""
PROBES: Final = (
    "What is 7 + 5?",
    "Name the capital of France.",
    'Is this review positive or negative? "The soup was cold and the waiter rude."',
    "Write one sentence about the sea.",
)
"""What is read where nothing else is given."""


def token_logprobs(model: Any, ids: Sequence[int], device: torch.device) -> torch.Tensor:
    """Log-probability of every token but the first given those before it, nats, fp32 (n - 1,)."""
    tokens = torch.tensor([list(ids)], device=device)
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
    return torch.log_softmax(logits, -1).gather(1, tokens[0, 1:, None])[:, 0]


def shift_nats(
    adapters: Adapters, name: str, texts: Sequence[Sequence[int]], device: torch.device
) -> float:
    """Mean absolute change of a token's log-probability, adapter against base, over all tokens of all texts, nats.

    Args:
        adapters: A model's adapters.
        name: The adapter.
        texts: Token ids, each at least 2.
        device: The model's.
    """
    changes = []
    for ids in texts:
        with adapters.rows.use(adapters.slots([BASE])):
            before = token_logprobs(adapters.model, ids, device)
        with adapters.rows.use(adapters.slots([name])):
            after = token_logprobs(adapters.model, ids, device)
        changes.append((after - before).abs())
    return float(torch.cat(changes).mean())
