"""How far a run's judges can be trusted, from what the run recorded of their verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from workbench.scorers.verdicts import Figures, figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

JUDGE: Final = "judge"
"""The scorer whose recorded answers are verdicts."""


def judged(scores: pd.DataFrame, manifest: Mapping[str, Any]) -> Figures | None:
    """The figures of a run's judge; None if it had none.

    Args:
        scores: The scores table, with ``scorer`` and ``answer``.
        manifest: Names the scorers that count.
    """
    if _entry(manifest) is None:
        return None
    recorded = scores.loc[scores["scorer"].eq(JUDGE), "answer"]
    return figures(recorded.dropna().astype(str))


def judges_itself(manifest: Mapping[str, Any]) -> bool:
    """Whether the judge of a run is the model that answered."""
    entry = _entry(manifest)
    if entry is None:
        return False
    return entry.get("options", {}).get("model") in (None, manifest["engine"]["model"])


def in_words(scores: pd.DataFrame, manifest: Mapping[str, Any]) -> str | None:
    """One line on a run's judge; None if it had none."""
    found = judged(scores, manifest)
    if found is None:
        return None
    own = "; it is the model that answered, and models favour themselves"
    return f"Judge: {found.text}{own if judges_itself(manifest) else ''}."


def _entry(manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((s for s in manifest.get("scorers") or () if s["name"] == JUDGE), None)
