"""What tuning has used up, block by block.

What may still be asked depends on what was spent. So the numbers at the end of every block are kept in the manifest, and
a run that is continued goes by those until it is where it was: it decides as if it had never stopped.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workbench.tuning.budget import Budget, Cost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.latency import LatencyResult
    from workbench.store import RunStore

__all__ = ["Ledger", "Used"]


@dataclass(frozen=True, slots=True)
class Used:
    """What is used up at the end of a block.

    Attributes:
        wall_s: Wall time of all, seconds.
        tokens: Generated tokens, of answers and of timed requests.
        rows: Answers.
        timed: Timed requests, warm-up aside.
        request_s: What one of these takes, seconds; 0 if none was timed.
    """

    wall_s: float = 0.0
    tokens: int = 0
    rows: int = 0
    timed: int = 0
    request_s: float = 0.0


class Ledger:
    """The budget of a run, and what it used up.

    Args:
        budget: What may be spent. Time counts from here on, and what earlier calls took.

    Attributes:
        now: What was used up to the end of the last block.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget, self.now = budget, Used()
        self._blocks: list[Used] = []
        self._n = 0
        self._before_s = 0.0
        self._started_s = time.monotonic()
        self._requests = (0.0, 0)

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Read what earlier calls left. What the last one did after its last block is lost if it was killed."""
        race = manifest.get("race") or {}
        self._blocks = [Used(**block) for block in race.get("blocks", ())]
        last = self._blocks[-1] if self._blocks else Used()
        calls = sum(call["wall_s"] for call in manifest.get("calls", ()))
        self._before_s = max(last.wall_s, calls)
        self._requests = (last.request_s * last.timed, last.timed)

    def resume_at_end(self) -> None:
        """Go on after all blocks that there are."""
        self._n = len(self._blocks)
        self.now = self._blocks[-1] if self._blocks else Used()

    @property
    def ahead(self) -> Used | None:
        """What an earlier call noted for the end of the block under way; None if it did not get there."""
        return self._blocks[self._n] if self._n < len(self._blocks) else None

    def close(self, store: RunStore, *, timing: bool) -> None:
        """Note the end of a block.

        Args:
            store: The record, with all answers of the block.
            timing: Whether requests may have been timed.
        """
        if self.ahead is None:
            counts, n, tokens = store.counts(), 0, 0
            if timing:
                table = store.latency(["warm", "n_output_tokens"])
                table = table[table["warm"].eq(1)]
                n, tokens = len(table), int(table["n_output_tokens"].sum())
            spent = (self.elapsed_s, counts.n_output_tokens + tokens, counts.n_rows, n)
            self._blocks.append(Used(*spent, self.request_s))
        self.now = self._blocks[self._n]
        self._n += 1

    @property
    def elapsed_s(self) -> float:
        """Wall time of this and earlier calls until now, seconds."""
        return self._before_s + time.monotonic() - self._started_s

    @property
    def request_s(self) -> float:
        """What a timed request takes, seconds; 0 if none was timed."""
        total, n = self._requests
        return total / n if n else 0.0

    def saw(self, result: LatencyResult, warmup: int) -> None:
        """Learn from a latency pass what a request takes."""
        if result.n_run:
            total, n = self._requests
            self._requests = (total + result.wall_s, n + result.n_run + warmup)

    @property
    def spent(self) -> Budget:
        """The budget with what was used up to the end of the last block."""
        now = self.now
        return self.budget.spent(now.wall_s, now.tokens, now.rows + now.timed)

    def cost(self, rows: int, timed: int = 0) -> Cost:
        """What so many answers and timed requests will take, going by those so far."""
        now = self.now
        answers_s = max(now.wall_s - now.timed * now.request_s, 0.0) / max(now.rows, 1)
        tokens = now.tokens / max(now.rows + now.timed, 1)
        wall_s = answers_s * rows + now.request_s * timed
        return Cost(wall_s, round(tokens * (rows + timed)), rows + timed)

    def fits(self, rows: int, timed: int = 0) -> bool:
        """Whether so many answers and timed requests are expected to fit."""
        return self.spent.fits(self.cost(rows, timed))

    def to_list(self) -> list[dict[str, Any]]:
        """All blocks, for the manifest."""
        return [asdict(block) for block in self._blocks]
