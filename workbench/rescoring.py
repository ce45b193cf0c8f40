"""Scoring the answers of a run again, without the model.

Scores are kept by scorer and version, so old ones stay beside new ones; where a scorer judged twice, the later judgement
counts. Options that are not the defaults are part of the version: the same scorer with other options is another judge.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from workbench.provenance import now_utc, packages, scorer_entry
from workbench.records import Generation
from workbench.scorers import score_generation
from workbench.store import RunStore, ScoreRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from workbench.prompts import Prompt
    from workbench.scorers import Scorer

_COLUMNS: Final = (
    "cell_id",
    "prompt_id",
    "repeat",
    "text",
    "token_ids",
    "n_prompt_tokens",
    "finish_reason",
    "seed",
    "error",
)


@dataclass(frozen=True, slots=True)
class Rescored:
    """What one call of ``rescore`` did.

    Attributes:
        n_rows: Answers judged.
        unscored: Scorer name to the number of answers without a score.
        reasons: Scorer name to its most frequent reason for giving none.
    """

    n_rows: int
    unscored: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def rescore(
    directory: Path,
    prompt_of: Callable[[str, str], Prompt],
    scorers: Sequence[Scorer],
    *,
    primary: str | None = None,
    on_rows: Callable[[int], object] | None = None,
) -> Rescored:
    """Judge every answer of a run and record the scores.

    Args:
        directory: The run directory.
        prompt_of: The prompt of a cell id and prompt id, as the cell words it.
        scorers: The judges.
        primary: Scorer that is the primary metric from now on; by default it stays as it is, or is the first judge of
            a run that had none.
        on_rows: Told how many rows were judged, now and then.

    Raises:
        StoreError: The record cannot be written, or another process is writing it.
    """
    tally = _Tally(scorers, prompt_of, on_rows)
    with RunStore.open(directory, write=True) as store:
        # One transaction: a call that is cut short leaves the old scores, never a mixture of two judges.
        store.add_scores(tally.scored(_answers(store)))
        store.update_manifest(**_noted(store.manifest, tally.entries, primary))
    return tally.result()


class _Tally:
    """Judges answers and counts what has no score."""

    def __init__(
        self,
        scorers: Sequence[Scorer],
        prompt_of: Callable[[str, str], Prompt],
        on_rows: Callable[[int], object] | None,
    ) -> None:
        self.scorers = scorers
        self.entries = [scorer_entry(s) for s in scorers]
        self._prompt_of = prompt_of
        self._on_rows = on_rows
        self._n_rows = 0
        self._reasons: dict[str, Counter[str]] = {s.name: Counter() for s in scorers}

    def scored(self, answers: Iterable[Generation]) -> Iterator[ScoreRow]:
        """The scores of all answers, made one by one."""
        for answer in answers:
            prompt = self._prompt_of(answer.cell_id, answer.prompt_id)
            for judge, entry in zip(self.scorers, self.entries, strict=True):
                score = score_generation(judge, answer, prompt)
                if score.value is None:
                    self._reasons[judge.name][score.reason or ""] += 1
                yield ScoreRow(answer.key, judge.name, entry["version"], score)
            self._n_rows += 1
            if self._on_rows is not None:
                self._on_rows(1)

    def result(self) -> Rescored:
        """What was done."""
        found = {name: reasons for name, reasons in self._reasons.items() if reasons}
        return Rescored(
            self._n_rows,
            {name: reasons.total() for name, reasons in found.items()},
            {name: reasons.most_common(1)[0][0] for name, reasons in found.items()},
        )


def _answers(store: RunStore) -> Iterator[Generation]:
    table = store.generations(list(_COLUMNS))
    columns = [table[name].tolist() for name in _COLUMNS]
    for cell, prompt, repeat, text, ids, n_prompt, reason, seed, error in zip(
        *columns, strict=True
    ):
        yield Generation(
            cell,
            prompt,
            repeat,
            text,
            tuple(ids),
            n_prompt,
            reason,
            seed=seed if isinstance(seed, int) else None,
            error=error if isinstance(error, str) else None,
        )


def _noted(
    manifest: dict[str, Any], entries: Sequence[dict[str, Any]], primary: str | None
) -> dict[str, Any]:
    """The manifest's entries after these scorers judged: the primary one first."""
    by_name = {entry["name"]: entry for entry in manifest["scorers"]}
    by_name |= {entry["name"]: entry for entry in entries}
    order = list(by_name)
    if primary is not None:
        order.remove(primary)
        order.insert(0, primary)
    event = {"scored_utc": now_utc(), "scorers": list(entries), "packages": packages()}
    return {
        "scorers": [by_name[name] for name in order],
        "rescored": [*manifest.get("rescored", []), event],
    }
