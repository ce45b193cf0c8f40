"""Commits rows to the run record from a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Self

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.records import Generation
    from workbench.store import RunStore, ScoreRow

    OnRow = Callable[[Generation, tuple[ScoreRow, ...]], None]

COMMIT_SECONDS: Final = 0.5
"""Longest time an answer waits for its commit."""
COMMIT_ROWS: Final = 512
"""Rows that are committed without waiting any longer."""


class Committer:
    """Commits rows in batches, from a thread of its own, so that no row waits while the engine is busy.

    A context manager: leaving it commits what is left.
    """

    def __init__(self, store: RunStore, on_row: OnRow | None = None) -> None:
        self.n_committed = 0
        self._store = store
        self._on_row = on_row
        self._waiting: list[tuple[Generation, tuple[ScoreRow, ...]]] = []
        self._committed: deque[tuple[Generation, tuple[ScoreRow, ...]]] = deque()
        self._mutex = threading.RLock()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._error: WorkbenchError | None = None
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._wake.set()
        self._thread.join()
        self._report()
        self.flush()

    def add(self, generation: Generation, scores: tuple[ScoreRow, ...]) -> None:
        """Hand over one row.

        Raises:
            StoreError: Rows handed over before could not be committed.
        """
        with self._mutex:
            self._waiting.append((generation, scores))
            full = len(self._waiting) >= COMMIT_ROWS
        if full:
            self.flush()
        self._wake.set()
        self._report()

    def flush(self) -> None:
        """Commit what is waiting, then report every committed row to ``on_row``."""
        self._commit()
        self._report()

    def _commit(self) -> None:
        with self._mutex:
            batch = list(self._waiting)
            if not batch:
                return
            self._store.add_generations((g for g, _ in batch), (s for _, ss in batch for s in ss))
            # Only now: a batch that an interrupt kept from its commit is still waiting.
            del self._waiting[: len(batch)]
            self.n_committed += len(batch)
            if self._on_row is not None:
                self._committed.extend(batch)

    def _report(self) -> None:
        """Call ``on_row`` from the caller's own thread; raise what the thread ran into."""
        while self._committed:
            generation, scores = self._committed.popleft()
            assert self._on_row is not None
            self._on_row(generation, scores)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while not self._ended.is_set():
            self._wake.wait()
            self._wake.clear()
            # The first row after a pause waits this long, for those that come right after it.
            self._ended.wait(0.8 * COMMIT_SECONDS)
            try:
                self._commit()
            except WorkbenchError as error:
                self._error = error
                return
