"""Scoring the answers of a run again, without the model but for scorers that need it.

Scores are kept by scorer and version, so old ones stay beside new ones; where a scorer judged twice, the later judgement
counts. Options that are not the defaults are part of the version: the same scorer with other options is another judge.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.errors import ScorerError
from workbench.judging import answers, judged, recorded, unjudged
from workbench.provenance import now_utc, packages, scorer_entry
from workbench.scorers import score_generation
from workbench.scorers.base import TogetherScorer
from workbench.store import RunStore, ScoreRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from workbench.judging import Worded
    from workbench.records import Score
    from workbench.scorers import Scorer
    from workbench.scorers.together import Means


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
    worded: Worded,
    scorers: Sequence[Scorer],
    means: Means,
    *,
    primary: str | None = None,
    on_rows: Callable[[int], object] | None = None,
) -> Rescored:
    """Judge every answer of a run and record the scores.

    What a scorer has judged with the model before it was cut short, while its version did not count yet, is kept.

    Args:
        directory: The run directory.
        worded: Cells and prompts of the run.
        scorers: The judges.
        means: What those that judge several answers together may use.
        primary: Scorer that is the primary metric from now on; by default it stays as it is, or is the first judge of
            a run that had none.
        on_rows: Told how many answers a scorer was done with, now and then.

    Raises:
        ScorerError: A scorer needs the model, and there is none.
        StoreError: The record cannot be written, or another process is writing it.
    """
    tally = _Tally(scorers, worded, on_rows)
    if means.engine is None and (needy := [s.name for s in tally.together if s.needs_engine]):
        raise ScorerError(
            f"scorer {needy[0]} needs the model; load it with `workbench score RUN --with-model`, or give one: "
            "wb.score(run, [...], engine=engine)"
        )
    with RunStore.open(directory, write=True) as store:
        # One transaction: a call that is cut short leaves the old scores, never a mixture of two judges.
        store.add_scores(tally.scored(directory))
        for scorer in tally.together:
            for rows in tally.judged(store, scorer, means):
                store.add_scores(rows)
        store.update_manifest(**_noted(store.manifest, tally.entries, primary, means))
        n_rows = store.counts().n_rows
    return tally.result(n_rows)


class _Tally:
    """Judges answers and counts what has no score."""

    def __init__(
        self,
        scorers: Sequence[Scorer],
        worded: Worded,
        on_rows: Callable[[int], object] | None,
    ) -> None:
        self.entries = [scorer_entry(s) for s in scorers]
        self.together = [s for s in scorers if isinstance(s, TogetherScorer)]
        self._alone = [s for s in scorers if not isinstance(s, TogetherScorer)]
        self._versions = {entry["name"]: entry["version"] for entry in self.entries}
        self._worded = worded
        self._on_rows = on_rows or (lambda _: None)
        self._reasons: dict[str, Counter[str]] = {s.name: Counter() for s in scorers}

    def scored(self, directory: Path) -> Iterator[ScoreRow]:
        """The scores that answers get one by one."""
        for answer in itertools.chain.from_iterable(answers(directory) if self._alone else ()):
            prompt = self._worded.prompt(answer.cell_id, answer.prompt_id)
            for judge in self._alone:
                score = score_generation(judge, answer, prompt)
                self._count(judge.name, score)
                yield ScoreRow(answer.key, judge.name, self._versions[judge.name], score)
                self._on_rows(1)

    def judged(
        self, store: RunStore, scorer: TogetherScorer, means: Means
    ) -> Iterator[list[ScoreRow]]:
        """The scores that a scorer gives to answers together, chunk by chunk."""
        name, version = scorer.name, self._versions[scorer.name]
        current = {(entry["name"], entry["version"]) for entry in store.manifest["scorers"]}
        goes_on = scorer.needs_engine and (name, version) not in current
        left = unjudged(store.dir, name, version) if goes_on else None
        for chunk in judged(store.dir, scorer, means, self._worded, left):
            for _, score in chunk:
                self._count(name, score)
            yield recorded(name, version, chunk)
            self._on_rows(len(chunk))

    def _count(self, name: str, score: Score) -> None:
        if score.value is None:
            self._reasons[name][score.reason or ""] += 1

    def result(self, n_rows: int) -> Rescored:
        """What was done."""
        found = {name: reasons for name, reasons in self._reasons.items() if reasons}
        return Rescored(
            n_rows,
            {name: reasons.total() for name, reasons in found.items()},
            {name: reasons.most_common(1)[0][0] for name, reasons in found.items()},
        )


def _noted(
    manifest: dict[str, Any],
    entries: Sequence[dict[str, Any]],
    primary: str | None,
    means: Means,
) -> dict[str, Any]:
    """The manifest's entries after these scorers judged: the primary one first."""
    by_name = {entry["name"]: entry for entry in manifest["scorers"]}
    by_name |= {entry["name"]: entry for entry in entries}
    order = list(by_name)
    if primary is not None:
        order.remove(primary)
        order.insert(0, primary)
    event = {"scored_utc": now_utc(), "scorers": list(entries), "packages": packages()}
    if means.engine is not None:
        event["engine"] = means.engine.info.to_dict()
    return {
        "scorers": [by_name[name] for name in order],
        "rescored": [*manifest.get("rescored", []), event],
    }
