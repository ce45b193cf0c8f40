"""The scorers of a study, together."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from workbench.errors import ScorerError
from workbench.scorers.base import get_scorer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from workbench.scorers.base import Scorer


def get_scorers(specs: Iterable[Any], base_dir: str | Path | None = None) -> list[Scorer]:
    """Make the scorers that a study names, primary first.

    Args:
        specs: Each as for `get_scorer`.
        base_dir: As for `get_scorer`.

    Raises:
        ScorerError: As `get_scorer`, or two of them have one name: the record could not tell their scores apart.
    """
    made = [get_scorer(spec, base_dir) for spec in specs]
    twice = [name for name, n in Counter(s.name for s in made).items() if n > 1]
    if twice:
        raise ScorerError(f"two scorers are called {twice[0]!r}; give one of them another name")
    return made
