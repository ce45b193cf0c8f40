"""Adapters compared: what each changes, cell by cell with the same settings, on every prompt set and on all prompts together.

A cell of an adapter is paired with the cell of the baseline adapter that has the same settings and template; both answered
the same prompts with the same seeds. The headline of an adapter is the average over all settings both ran, because no
setting has to be picked for it. Where a study holds prompts out, cells are compared and picked on the others, and headline and
best cell are measured on those held out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from workbench.analysis import plain
from workbench.comparing import adaptertables as tables
from workbench.comparing import adaptertimes, adapterwords
from workbench.comparing.adaptertables import ALL
from workbench.comparing.gains import Answers, Pair, answers_in
from workbench.comparing.matching import lost, matched
from workbench.comparing.pairs import CHANGES, changes
from workbench.errors import WorkbenchError, unknown
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from workbench.comparing.pairs import RunTables

    Mask = NDArray[np.bool_]

SPLITS: Final = ("select", "confirm", ALL)


@dataclass(frozen=True, slots=True, eq=False)
class AdapterComparison:
    """The adapters of a run against one of them.

    All scores and differences are fractions (0..1, -1..1), all times milliseconds; what is unknown is NaN. Intervals are of
    one comparison taken alone, at `level`; every ``p_adjusted`` is Holm's over its own table.

    Attributes:
        baseline: Name of the adapter the others are compared with; "base" is none.
        adapters: Names of those compared with it, in the run's order.
        sets: Names of the prompt sets, where the prompts are of several.
        level: Confidence level of the intervals.
        chosen_on: Split whose prompts `table`, `interaction` and the choice of the best cells are of; None for all.
        measured_on: Split whose prompts the headline and the quality of the best cells are of; None for all.
        table: One row per adapter, cell and set ("all" first): ``adapter``, ``set``, ``cell_id``, ``baseline_id``, ``settings``,
            the columns of `workbench.comparing.gains.compared`, ``p_adjusted`` and ``verdict`` ("better", "worse", "edge", "cannot
            tell", "identical", "too few" or "not scored"); on the rows of all prompts also those of ``latency``, since timed requests
            belong to no set.
        averages: One row per split used (``split``), adapter and set: the average over all settings both ran, see
            `workbench.comparing.gains.averaged`; the headline's rows are `headline`.
        best: One row per adapter, the baseline's first: its best cell as picked on ``chosen_on`` (``chosen_quality``; of equal ones
            the baseline's best settings, then the faster) and as measured on ``measured_on`` (``quality`` with ``quality_lo`` and
            ``quality_hi``, ``n_prompts``); ``same_settings`` (as the baseline's best cell); its difference from the baseline's best
            cell (``diff``, ...); and ``own_diff``, ...: what its own best settings bring it over the baseline's best settings.
        interaction: One row per adapter, setting that varies, and level: ``gain`` with ``gain_lo`` and ``gain_hi``, ``n_cells``.
        contrasts: One row per adapter and setting: ``highest`` and ``lowest`` (levels), ``contrast`` (of their gains) with
            ``contrast_lo`` and ``contrast_hi`` (for the widest difference of any two levels), ``p_value``, ``p_adjusted``,
            ``n_prompts``, ``testable`` and ``why_not``.
        latency: One row per adapter and cell, and one with ``cell_id`` None over all cells: of ttft, tpot and e2el the medians of
            both, and the median difference and ratio over requests of the same prompt and round, with interval; ``n_timed``.
        missing: Cells without a counterpart: ``adapter``, ``cell_id``, ``settings``, ``why``.
        inert: Adapters that change nothing, and their mean shift of log-probability in nats (None if not recorded).
        same: Adapter to another, named before it or the baseline, that is the same by content.
        trained_on: Adapter to the run's prompts that it was trained on, where it was; their rows count like all others.
        no_record: Adapters of which it is not known what they were trained on.
        n_prompts: Prompts with rows of ``chosen_on`` and of ``measured_on``.
    """

    baseline: str
    adapters: tuple[str, ...]
    sets: tuple[str, ...]
    level: float
    chosen_on: str | None
    measured_on: str | None
    table: pd.DataFrame = field(repr=False)
    averages: pd.DataFrame = field(repr=False)
    best: pd.DataFrame = field(repr=False)
    interaction: pd.DataFrame = field(repr=False)
    contrasts: pd.DataFrame = field(repr=False)
    latency: pd.DataFrame = field(repr=False)
    missing: pd.DataFrame = field(repr=False)
    inert: dict[str, float | None]
    same: dict[str, str]
    trained_on: dict[str, tuple[str, ...]]
    no_record: tuple[str, ...]
    n_prompts: tuple[int, int]
    _run: RunTables = field(repr=False)

    @property
    def headline(self) -> pd.DataFrame:
        """The rows of `averages` that count: those of ``measured_on``."""
        rows = self.averages
        kept = rows[rows["split"].isin([self.measured_on or ALL])]
        return kept.reset_index(drop=True)

    def answers(
        self,
        adapter: str,
        cell: str | None = None,
        *,
        change: str | Sequence[str] | None = None,
        split: str | None = None,
    ) -> pd.DataFrame:
        """Answers side by side, prompt by prompt.

        Args:
            adapter: One of those compared.
            cell: Id or label of its cell or of the baseline's with the same settings; default: its best cell.
            change: Keep only these of better, worse, same and unscored; None keeps all.
            split: "select" or "confirm" takes only those prompts.

        Returns:
            The table of `workbench.comparing.changes`.

        Raises:
            WorkbenchError: No such adapter, cell or change.
        """
        wanted = [change] if isinstance(change, str) else list(change or ())
        for kind in wanted:
            if kind not in CHANGES:
                raise WorkbenchError(unknown("change", kind, CHANGES))
        pair = self._pair(adapter, cell)
        found = changes(self._run, pair["cell_id"], pair["baseline_id"], split=split)
        if change is not None:
            found = found[found["change"].isin(wanted)].reset_index(drop=True)
        return found

    def _pair(self, adapter: str, cell: str | None) -> dict[str, Any]:
        """The row of the table that a cell's name means."""
        if adapter not in self.adapters:
            raise WorkbenchError(unknown("adapter", adapter, self.adapters))
        rows = self.table[self.table["adapter"].eq(adapter) & self.table["set"].eq(ALL)]
        if cell is None:
            cell = self.best.set_index("adapter")["cell_id"].get(adapter)
        labels = dict(zip(self._run.cells["cell_id"], self._run.cells["label"], strict=True))
        for row in rows.to_dict("records"):
            ids = row["cell_id"], row["baseline_id"]
            if cell in (*ids, *(labels[i] for i in ids), row["settings"]):
                return {str(key): value for key, value in row.items()}
        raise WorkbenchError(unknown(f"cell of {adapter}", str(cell), list(rows["settings"])))

    @property
    def text(self) -> str:
        """What was found, in plain sentences, a paragraph for each adapter."""
        return "\n\n".join("\n".join(lines) for lines in adapterwords.paragraphs(self))

    def markdown(self) -> str:
        """The headline as a table, and the text."""
        return f"{adapterwords.table(self)}\n\n{self.text}\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is unknown is None."""
        frames = ("table", "averages", "best", "interaction", "contrasts", "latency", "missing")
        names = (
            "baseline",
            "adapters",
            "sets",
            "level",
            "chosen_on",
            "measured_on",
            "inert",
            "same",
            "trained_on",
            "no_record",
        )
        values = {name: getattr(self, name) for name in (*names, "n_prompts", *frames)}
        return {**{name: plain(value) for name, value in values.items()}, "text": self.text}


# ------------------------------------------------------------------------------------------------ comparing


def by_adapter(
    run: RunTables,
    baseline: str = BASE,
    *,
    sets: Mapping[str, Sequence[str]] | None = None,
    split: str | None = None,
    level: float = 0.95,
    rng: np.random.Generator | int = 0,
) -> AdapterComparison:
    """Compare every adapter of a run with one of them, setting by setting.

    Args:
        run: A run.
        baseline: Name of an adapter; "base" is the model without one.
        sets: Name to ids of the prompts, of each prompt set; default: as the run's prompt set tells it
            (its ``sets``, or those of the manifest's ``prompt_set``), if it does. All prompts together are compared in any case, as the set "all".
        split: "select" or "confirm" takes only those prompts for everything but latency, "all" takes all. None: where the study
            holds prompts out, cells are compared and picked on the others, and headline and best cells measured on those held
            out; else all.
        level: Confidence level of the intervals, strictly between 0 and 1.
        rng: Generator or seed of sign flips and bootstrap.

    Raises:
        WorkbenchError: No such adapter, no other one, an unknown prompt in a set, or no cell of an adapter shares its
            settings with one of the baseline.
    """
    if split not in (None, *SPLITS):
        raise WorkbenchError(unknown("split", str(split), SPLITS))
    names = list(dict.fromkeys(run.cells["adapter"]))
    inert, same = _known_of(run, names, baseline)
    others = _others(names, baseline, inert)
    pairs, missing = matched(run.cells, baseline, others)
    if others and not pairs:
        raise WorkbenchError(
            f"no cell of {', '.join(others)} has the settings of a cell of {baseline}: nothing can be paired"
        )
    answers = answers_in(run)
    itself = frozenset(name for name, other in same.items() if other == baseline)
    kept = _answered(answers, pairs, missing)
    setup = tables.Setup(answers, kept, itself, np.random.default_rng(rng), level)
    chosen_on, measured_on = _splits(answers, split)
    masks = {s: _mask(answers, s) for s in dict.fromkeys((chosen_on, measured_on))}
    named = _sets(run, answers, sets)
    latency = adaptertimes.latency(run, setup.pairs, setup.rng, level)
    table = tables.cells_table(setup, masks[chosen_on], named, latency)
    contrasts, interaction = tables.interaction(run, setup, masks[chosen_on], others)
    trained_on = run.manifest.get("trained_on", {})
    return AdapterComparison(
        baseline=baseline,
        adapters=tuple(others),
        sets=tuple(name for name in named if name != ALL),
        level=level,
        chosen_on=chosen_on,
        measured_on=measured_on,
        table=table,
        averages=tables.averages(setup, masks, named),
        best=tables.best_cells(
            run, setup, (masks[chosen_on], masks[measured_on]), [baseline, *others]
        ),
        interaction=interaction,
        contrasts=contrasts,
        latency=latency,
        missing=pd.DataFrame(missing, columns=["adapter", "cell_id", "settings", "why"]),
        inert=inert,
        same=same,
        trained_on={n: tuple(ids) for n, ids in trained_on.items() if ids},
        no_record=tuple(n for n, ids in trained_on.items() if ids is None),
        n_prompts=(int(masks[chosen_on].sum()), int(masks[measured_on].sum())),
        _run=run,
    )


def _known_of(
    run: RunTables, names: Sequence[str], baseline: str
) -> tuple[dict[str, float | None], dict[str, str]]:
    """What the manifest says of adapters: those that do nothing, and those that are the same by content."""
    engine = run.manifest.get("engine", {})
    facts = engine.get("extra", {}).get("adapters", {})
    inert = {n: facts[n].get("shift_nats") for n in names if facts.get(n, {}).get("inert")}
    hashes = {n: engine.get("adapters", {}).get(n) or facts.get(n, {}).get("sha256") for n in names}
    first: dict[str, str] = {}
    same = {}
    for name in sorted(names, key=lambda n: n != baseline):
        digest = hashes[name]
        if digest in first:
            same[name] = first[digest]
        elif digest:
            first[digest] = name
    return inert, same


def _others(names: Sequence[str], baseline: str, inert: Mapping[str, Any]) -> list[str]:
    """The adapters that are compared with the baseline."""
    if baseline not in names:
        raise WorkbenchError(f"no adapter {baseline!r} in this run; it has {', '.join(names)}")
    others = [n for n in names if n != baseline]
    if not others:
        raise WorkbenchError(
            f"{baseline!r} is the only adapter of this run: there is nothing to compare"
        )
    return [n for n in others if n not in inert]


def _answered(answers: Answers, pairs: list[Pair], missing: list[dict[str, Any]]) -> list[Pair]:
    """The pairs that share an answered prompt; the others are added to what is missing."""
    there = set(answers.scores.cells)
    kept = []
    for pair in pairs:
        if {pair.cell, pair.baseline} <= there:
            cell, base = answers.rows([pair])
            if ((answers.counts[cell] > 0) & (answers.counts[base] > 0)).any():
                kept.append(pair)
                continue
        why = "no prompt was answered by it and by its counterpart"
        missing.append(lost(pair.adapter, pair.cell, {pair.cell: pair.settings}, why))
    return kept


def _splits(answers: Answers, split: str | None) -> tuple[str | None, str | None]:
    """The splits to choose and to measure on."""
    if split is not None:
        one = None if split == ALL else split
        return one, one
    held_out = {"select", "confirm"} <= set(answers.splits)
    return ("select", "confirm") if held_out else (None, None)


def _mask(answers: Answers, split: str | None) -> Mask:
    everything = np.ones(len(answers.splits), bool)
    return everything if split is None else np.asarray(answers.splits == split)


def _sets(
    run: RunTables, answers: Answers, sets: Mapping[str, Sequence[str]] | None
) -> dict[str, Mask]:
    """All prompts, and each set if there are several."""
    recorded = run.manifest.get("prompt_set", {}).get("sets")
    given = (getattr(run.prompts, "sets", None) or recorded) if sets is None else sets
    masks = {ALL: np.ones(len(answers.scores.prompts), bool)}
    for name, ids in (given or {}).items():
        if name == ALL:
            raise WorkbenchError("no prompt set may be named 'all': that is all of them together")
        lost = [i for i in ids if i not in run.prompts]
        if lost:
            raise WorkbenchError(f"set {name!r}: no prompt {lost[0]!r} in this run")
        masks[name] = np.isin(answers.scores.prompts.astype(str), list(ids))
    alone = len(masks) == 2 and all(mask.all() for mask in masks.values())
    return {ALL: masks[ALL]} if alone else masks
