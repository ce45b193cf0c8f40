"""Making AWQ checkpoints: a dense model in, four bits a weight out, with what that cost beside it.

AutoAWQ (the ``autoawq`` extra) searches the scales and writes the weights, in a process of its own; the workbench chooses the
calibration prompts, checks, and compares the result with the dense model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from workbench.quantizing.agreement import Agreement
    from workbench.quantizing.make import Quantized, quantize

_HOMES: Final = {"Agreement": "agreement", "Quantized": "make", "quantize": "make"}

__all__ = ["Agreement", "Quantized", "quantize"]


def __getattr__(name: str) -> Any:
    """Load a name when it is first used: the process that quantizes needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
