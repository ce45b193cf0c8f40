"""Does an adapter act at all? The probe that every adapter must pass before it answers anything.

A few prompts are read with and without the adapter, and the log-probabilities of their own tokens compared (teacher forcing:
no answer is drawn, so nothing is left to chance). An adapter that was never trained, was zeroed, or was trained for layers
that do not act, shifts nothing; comparing it with the base model would report "no difference" of something that did nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch

from workbench.engines.local.memory import is_out_of_memory
from workbench.engines.local.reading import chosen
from workbench.errors import AdapterError, AdapterInert, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.adapters import AdapterFile
    from workbench.engines.local.lora import Adapters, LoadedAdapter

INERT_NATS: Final = 1e-4
"""An adapter whose mean shift is smaller has no effect: one token in ten thousand becomes a factor e likelier or less so."""
MOST_TOKENS: Final = 256
"""Tokens read of each prompt: enough to see an effect, and its cost grows with the square of the length."""
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
    return chosen(logits, tokens[0, 1:])


def shift_nats(
    adapters: Adapters, slot: int, texts: Sequence[Sequence[int]], device: torch.device
) -> float:
    """Mean absolute change of a token's log-probability, adapter against base, over all tokens of all texts, nats.

    Args:
        adapters: A model's adapters.
        slot: The adapter's.
        texts: Token ids, each at least 2.
        device: The model's.
    """
    changes = []
    rows = torch.tensor([slot], device=device)
    for ids in texts:
        with adapters.rows.use(None):
            before = token_logprobs(adapters.model, ids, device)
        with adapters.rows.use(rows):
            after = token_logprobs(adapters.model, ids, device)
        changes.append((after - before).abs())
    return float(torch.cat(changes).mean())


def load(
    adapters: Adapters,
    adapter: tuple[str, AdapterFile],
    texts: Sequence[Sequence[int]],
    device: torch.device,
    *,
    allow_inert: bool,
    base_matches: bool | None,
) -> LoadedAdapter:
    """Load an adapter if it acts; until that is known, and if not, nothing else has changed.

    Args:
        adapters: A model's adapters.
        adapter: Its name, whose bearer it replaces, and what was read.
        texts: Token ids of prompts it is tried on, each at least 2; the first 256 of each count.
        device: The model's.
        allow_inert: Also load it if it changes nothing.
        base_matches: To be noted with it.

    Raises:
        AdapterMismatch: It does not fit the model.
        AdapterInert: It changes nothing.
        AdapterError: Its weights cannot be read, or its numbers overflow.
        OutOfMemory: It does not fit into memory, or trying it does not.
    """
    name, file = adapter
    texts = [ids[:MOST_TOKENS] for ids in texts]
    try:
        with adapters.trying(name, file) as new:
            shift = shift_nats(adapters, new.slot, texts, device)
            inert = _judged(new, shift, len(texts), allow_inert=allow_inert)
            loaded = replace(new, shift_nats=shift, inert=inert, base_matches=base_matches)
            adapters.keep(loaded)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"memory ran out while adapter {name!r} ({file.path}) was loaded and tried; it is not loaded. Unload others, or "
            "give the model more memory"
        ) from error
    return loaded


def _judged(adapter: LoadedAdapter, shift: float, n: int, *, allow_inert: bool) -> bool:
    """Whether an adapter is inert, which must be allowed then."""
    what = f"adapter {adapter.name!r} ({adapter.file.path})"
    if not math.isfinite(shift):
        raise AdapterError(
            f"{what} overflows: with it, the model gives numbers that are inf or nan on {n} prompts; its weights or its scale "
            "are too large"
        )
    if shift >= INERT_NATS:
        return False
    if not allow_inert:
        raise AdapterInert(
            f"{what} changes nothing: over {n} prompts the log-probability of a token moves by {shift:.1g} nats on average, "
            f"and less than {INERT_NATS:g} is no effect; train it, or allow it with allow_inert: true"
        )
    return True
