"""An engine by the name of its model, for a part of the workbench that needs one beside that of a run.

The one place where a name becomes an engine here: engines of other kinds join by their own form of name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.engines.base import Engine


def open_engine(model: str) -> Engine:
    """Load a model, on a GPU if there is one, or a stand-in for one.

    Args:
        model: "demo", a folder with a checkpoint, a Hugging Face id, or "scripted" for the engine that needs no weights.

    Raises:
        ModelError: The model cannot be loaded.
        EngineError: Too little memory.
    """
    if model == "scripted":
        from workbench.engines.scripted import ScriptedEngine  # noqa: PLC0415 - not needed otherwise

        return ScriptedEngine()
    from workbench.engines.local.engine import LocalEngine  # noqa: PLC0415 - imports torch
    from workbench.engines.local.loader import load  # noqa: PLC0415 - imports torch

    return LocalEngine(load(model, progress=False))
