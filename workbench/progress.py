"""How far a run is: a bar for terminals and notebooks, or a line now and then."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[[str], None]

TICK_S: Final = 30.0
"""Without a bar a line comes so often, seconds."""


def room_for_bars() -> bool:
    """Whether a bar can be drawn: in a notebook, or on a terminal that has columns; in a file it would be noise."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        return True
    if not sys.stderr.isatty():
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return True


class RowBar:
    """A progress bar for terminals and notebooks: rows done, tokens per second, time left; else a line now and then."""

    def __init__(self, n_rows: int, n_done: int, *, shown: bool, say: Say | None = None) -> None:
        self._bar: Any = None
        shown = shown and room_for_bars()
        if shown:
            # tqdm.auto picks the notebook bar where there is a notebook with ipywidgets.
            from tqdm.auto import tqdm  # noqa: PLC0415 - not needed without a bar

            self._bar = tqdm(total=n_rows, initial=n_done, unit="row", dynamic_ncols=True)
        self._started = self._told = time.monotonic()
        self._n, self._n_rows = n_done, n_rows
        self._say = None if shown else say

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, tokens: int) -> None:
        """One more row; ``tokens`` is the total of this call."""
        self._n += 1
        now = time.monotonic()
        if self._say is not None and now - self._told >= TICK_S and self._n < self._n_rows:
            rate = tokens / (now - self._started)
            self._say(f"{self._n:,} of {self._n_rows:,} rows, {rate:,.0f} tokens/s")
            self._told = now
        if self._bar is not None:
            rate = tokens / max(time.monotonic() - self._started, 1e-9)
            self._bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
            self._bar.update()
