"""Transformers without its own bars and warnings, for the time that the workbench talks instead."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from transformers import modeling_gguf_pytorch_utils as gguf_utils
from transformers.utils import logging

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars and only errors from transformers inside; as before afterwards."""
    bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


@contextlib.contextmanager
def gguf_progress(bar: Any) -> Iterator[None]:
    """Let the loop over a GGUF file's tensors move ``bar``, a tqdm bar, instead of drawing one of its own.

    Transformers has no switch for that bar: it calls tqdm by its name in the module.
    """

    def ticking(tensors: Any, **_: Any) -> Iterator[Any]:
        for tensor in tensors:
            yield tensor
            bar.update()

    original = gguf_utils.tqdm
    gguf_utils.tqdm = ticking
    try:
        yield
    finally:
        gguf_utils.tqdm = original
