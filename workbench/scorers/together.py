"""The seam of scorers that need more than one answer, or a model.

Most scorers look at one answer at a time while a run goes on. Some cannot: pass@k and a majority vote need all repeats of
a prompt, a pairwise judge needs the baseline's answer beside the cell's, a judge and a log-probability need a model. Such
a scorer gets all answers to some prompts at once, after they were generated, and gives every answer its score. A value
that belongs to several answers together (pass@k) is the score of each of them, so means and intervals stay what they are.

``isinstance(scorer, JudgesTogether)`` tells such a scorer from the others. `workbench.scorers.base.score_together` applies
it, `workbench.judging` asks it whenever rows of a run were committed and when a run is scored again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.engines.base import Engine
    from workbench.plan import Cell
    from workbench.prompts import Prompt
    from workbench.records import Generation, Score

__all__ = ["Asked", "ChecksRepeats", "JudgesTogether", "Means"]


class Asked(NamedTuple):
    """One answer and what it answers.

    Attributes:
        generation: The answer; its finish_reason may be "error".
        prompt: The prompt as the cell worded it.
        cell: Settings and adapter it was made with.
    """

    generation: Generation
    prompt: Prompt
    cell: Cell


@dataclass(frozen=True, slots=True)
class Means:
    """What a scorer may use.

    Attributes:
        engine: The engine that answered; None if there is none, as when a run is scored again without the model.
        baseline: Id of the baseline cell, or None.
    """

    engine: Engine | None = None
    baseline: str | None = None


@runtime_checkable
class JudgesTogether(Protocol):
    """A scorer that judges all answers to some prompts at once.

    It has name, version, options and ``score`` too, like every scorer; ``score`` is not called.
    """

    @property
    def needs_engine(self) -> bool:
        """Whether it cannot judge without ``Means.engine``."""
        ...

    def judge_together(self, asked: Sequence[Asked], means: Means) -> Sequence[Score]:
        """Judge answers.

        Args:
            asked: All answers that a run has to some prompts, of all cells and repeats, in the order of the record: by
                prompt, cell and repeat. Failed ones are among them; whatever score they get is not recorded.
            means: What may be used.

        Returns:
            One score for each of ``asked``, in the same order; value None with a reason where there is none.
        """
        ...


@runtime_checkable
class ChecksRepeats(Protocol):
    """A scorer that needs a number of repeats."""

    def repeats_problem(self, repeats: int) -> str | None:
        """Why it cannot judge a study that asks each prompt ``repeats`` times, or None if it can."""
        ...
