"""The scorers of a study, together."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from workbench.errors import ScorerError
from workbench.scorers.base import get_scorer
from workbench.scorers.together import ChecksRepeats

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from workbench.scorers.base import Scorer


def get_scorers(
    specs: Iterable[Any], base_dir: str | Path | None = None, repeats: int | None = None
) -> list[Scorer]:
    """Make the scorers that a study names, primary first.

    Args:
        specs: Each as for `get_scorer`.
        base_dir: As for `get_scorer`.
        repeats: How often the study asks each prompt, if that is known.

    Raises:
        ScorerError: As `get_scorer`; or two of them have one name: the record could not tell their scores apart; or one
            needs more repeats.
    """
    made = [get_scorer(spec, base_dir) for spec in specs]
    twice = [name for name, n in Counter(s.name for s in made).items() if n > 1]
    if twice:
        raise ScorerError(f"two scorers are called {twice[0]!r}; give one of them another name")
    problems = [] if repeats is None else [repeats_problem(s, repeats) for s in made]
    if any(problems):
        raise ScorerError(next(problem for problem in problems if problem))
    return made


def repeats_problem(scorer: Scorer, repeats: int) -> str | None:
    """Why a scorer cannot judge a study that asks each prompt ``repeats`` times, or None if it can."""
    problem = scorer.repeats_problem(repeats) if isinstance(scorer, ChecksRepeats) else None
    return problem and f"scorer {scorer.name}: {problem}"
