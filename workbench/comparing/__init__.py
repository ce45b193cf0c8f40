"""Two cells side by side: what changed, for which prompts, and whether it is more than chance.

The two cells may be of one run (`compare`) or of two (`compare_runs`: another model, another day). Every estimate is over
the prompts that both answered, paired, so that an easy prompt is easy for both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, overload

import numpy as np
import pandas as pd

from workbench import adapternotes, analysis, settling, stats
from workbench.comparing import words
from workbench.comparing.adapters import AdapterComparison, by_adapter
from workbench.comparing.pairs import CHANGES, RunTables, answers_of, changes, table_of, wording
from workbench.errors import WorkbenchError
from workbench.records import BASE
from workbench.scorers.degeneration import has_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from workbench.prompts import Prompt, PromptSet

__all__ = [
    "CHANGES",
    "AdapterComparison",
    "Comparison",
    "Paired",
    "RunTables",
    "by_adapter",
    "changes",
    "compare",
    "compare_runs",
]

TIMES: Final = ("e2el_ms", "ttft_ms", "tpot_ms")
_BASE, _CELL = "baseline", "cell"


@dataclass(frozen=True, slots=True)
class Paired:
    """One quantity in both cells and its difference, cell minus baseline, over what both have.

    Attributes:
        baseline: Its value in the baseline; NaN if unknown, as all the others.
        cell: Its value in the cell.
        diff: The paired difference; for times the median of the differences, else the mean.
        lo: Lower bound of the 95 % interval of ``diff``; NaN where there is too little to tell.
        hi: Upper bound.
        n: Pairs: prompts, or for times requests.
        n_prompts: Prompts they are of.
    """

    baseline: float
    cell: float
    diff: float
    lo: float
    hi: float
    n: int
    n_prompts: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cell against another.

    Attributes:
        cell: Id of the cell.
        baseline: Id of the one it is compared with.
        labels: Names for people, (baseline, cell).
        quality: Primary score, 0..1, over the prompts scored in both; the interval is clustered by group.
        p: p-value of "no difference in quality", of this comparison alone; NaN if it cannot be told.
        n_prompts: Prompts that both answered, scored or not.
        better: Prompts with a higher score (mean over repeats) in the cell.
        worse: With a lower one.
        same: With the same.
        unscored: Without a score in one of them.
        n_cells: Cells the run has to choose from; 2 for two runs.
        tokens: Output tokens an answer, over the prompts that both answered.
        truncated: Share of answers cut off at ``max_tokens``, (baseline, cell), 0..1.
        loops: Share of answers that end in a loop, (baseline, cell), 0..1.
        latency: "e2el_ms", "ttft_ms" and "tpot_ms", milliseconds: medians over the requests timed in both, and the median
            difference over requests of the same prompt and round (interval: bootstrap over prompts). Empty if not timed.
        notes: What else a reader must know, one sentence each.
        changes: See `changes`.
        split: "select" or "confirm" if only those prompts count; None for all.
        n_held_out: Of ``n_prompts``, those held out from the choice of a cell (split "confirm").
        needed: How many more prompts would settle it, a sentence; None if it is settled or not scored.
    """

    cell: str
    baseline: str
    labels: tuple[str, str]
    quality: Paired
    p: float
    n_prompts: int
    better: int
    worse: int
    same: int
    unscored: int
    n_cells: int
    tokens: Paired
    truncated: tuple[float, float]
    loops: tuple[float, float]
    latency: dict[str, Paired]
    notes: tuple[str, ...]
    changes: pd.DataFrame = field(repr=False, compare=False)
    split: str | None = None
    n_held_out: int = 0
    needed: str | None = None

    @property
    def diff(self) -> float:
        """Difference in quality, -1..1."""
        return self.quality.diff

    @property
    def lo(self) -> float:
        """Lower bound of the 95 % interval of `diff`."""
        return self.quality.lo

    @property
    def hi(self) -> float:
        """Upper bound of the 95 % interval of `diff`."""
        return self.quality.hi

    @property
    def text(self) -> str:
        """What was found, in plain sentences; one line for each subject."""
        return "\n".join(words.lines(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without ``changes``; what is unknown is None."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "changes"}
        return {**analysis.plain(values), "text": self.text}


# ------------------------------------------------------------------------------------- two cells of a run


class _Pair(NamedTuple):
    """What two cells have, before anything is estimated."""

    before: pd.DataFrame
    after: pd.DataFrame
    times: tuple[pd.DataFrame, pd.DataFrame]
    ids: tuple[str, str]
    labels: tuple[str, str]
    n_cells: int
    asked: tuple[Callable[[str], Prompt], Callable[[str], Prompt]]


@overload
def compare(
    run: RunTables,
    cell: None = None,
    baseline: str | None = None,
    *,
    split: str | None = None,
    rng: np.random.Generator | int = 0,
) -> AdapterComparison: ...


@overload
def compare(
    run: RunTables,
    cell: str,
    baseline: str | None = None,
    *,
    split: str | None = None,
    rng: np.random.Generator | int = 0,
) -> Comparison: ...


def compare(
    run: RunTables,
    cell: str | None = None,
    baseline: str | None = None,
    *,
    split: str | None = None,
    rng: np.random.Generator | int = 0,
) -> Comparison | AdapterComparison:
    """Compare a cell with another of the same run; or, without a cell, every adapter of the run with one of them.

    Args:
        run: A run.
        cell: Id or label.
        baseline: Id or label; by default the run's baseline. Without a cell the name of an adapter, by default "base".
        split: "select" or "confirm" takes only those prompts for everything but latency; "confirm" is right for a cell
            that was picked for its score. None takes all; for adapters see `by_adapter`.
        rng: Generator or seed of the sign flips and the bootstrap.

    Raises:
        StoreError: There is no such cell.
        WorkbenchError: Both are the same cell, or there is no prompt that both answered; for adapters see `by_adapter`.
    """
    if cell is None:
        return by_adapter(run, baseline or BASE, split=split, rng=rng)
    ids = run.cell_id(baseline), run.cell_id(cell)
    names = run.cells.set_index("cell_id")["label"]
    if ids[0] == ids[1]:
        raise WorkbenchError(_itself(str(names[ids[0]]), len(names)))
    timed = analysis.measured(run.latency) if len(run.latency) else run.latency
    pair = _Pair(
        answers_of(run, ids[0], split),
        answers_of(run, ids[1], split),
        (timed[timed["cell_id"].eq(ids[0])], timed[timed["cell_id"].eq(ids[1])]),
        ids,
        (str(names[ids[0]]), str(names[ids[1]])),
        len(run.cells),
        (wording(run, ids[0]), wording(run, ids[1])),
    )
    notes = ["Latency is of all timed requests."] if split is not None and len(timed) else []
    notes += _adapters(run, ids, answers_of(run, ids[1], split)["prompt_id"])
    return _comparison(pair, run.prompts, notes, rng, split)


def _adapters(run: RunTables, ids: Sequence[str], prompts: Iterable[str]) -> list[str]:
    """What to know of the adapters of some cells, on the prompts compared."""
    adapters = run.cells.set_index("cell_id")["adapter"]
    return adapternotes.notes(run.manifest, [str(adapters[c]) for c in ids], set(prompts))


def _itself(name: str, n_cells: int) -> str:
    """Why a cell is not compared with itself."""
    if n_cells == 1:
        return f"{name!r} is the only cell of this run: there is nothing to compare it with"
    return f"{name!r} cannot be compared with itself; name another cell"


def compare_runs(
    run_a: RunTables,
    run_b: RunTables,
    cell_a: str | None = None,
    cell_b: str | None = None,
    rng: np.random.Generator | int = 0,
) -> Comparison:
    """Compare a cell of run B with one of run A: another model, another day.

    Prompts count as the same if their ids, messages, tools and targets are.

    Args:
        run_a: The run compared with.
        run_b: The run that is compared.
        cell_a: Id or label; by default the run's baseline.
        cell_b: Id or label; by default the run's baseline.
        rng: Generator or seed of the sign flips and the bootstrap.

    Raises:
        StoreError: There is no such cell.
        WorkbenchError: The runs share no prompt, or were scored by different scorers.
    """
    runs, ids = (run_a, run_b), (run_a.cell_id(cell_a), run_b.cell_id(cell_b))
    if run_a.primary != run_b.primary:
        raise WorkbenchError(
            f"scores of {run_a.primary} and of {run_b.primary} cannot be compared; "
            "score both runs with the same scorer first"
        )
    shared, notes = _shared(run_a, run_b)
    sides, times, labels = [], [], []
    for run, cell in zip(runs, ids, strict=True):
        side = answers_of(run, cell, None)
        sides.append(side[side["prompt_id"].isin(shared)])
        timed = analysis.measured(run.latency) if len(run.latency) else run.latency
        times.append(timed[timed["cell_id"].eq(cell) & timed["prompt_id"].isin(shared)])
        label = run.cells.set_index("cell_id")["label"][cell]
        labels.append(f"{label} ({run.manifest['engine']['model']}, {run.manifest['run_id']})")
    notes += _other_conditions(run_a, run_b, timed=all(len(t) for t in times))
    for run, cell in zip(runs, ids, strict=True):
        notes += [n for n in _adapters(run, [cell], shared) if n not in notes]
    asked = wording(run_a, ids[0]), wording(run_b, ids[1])
    pair = _Pair(sides[0], sides[1], (times[0], times[1]), ids, (labels[0], labels[1]), 2, asked)
    return _comparison(pair, run_b.prompts, notes, rng, None)


def _shared(run_a: RunTables, run_b: RunTables) -> tuple[list[str], list[str]]:
    """Ids of the prompts that are the same in two runs, and what to say about the others."""
    old = {p.id: _asked(p) for p in run_a.prompts}
    both = [p for p in run_b.prompts if p.id in old]
    shared = [p.id for p in both if _asked(p) == old[p.id]]
    n = len(both), len(run_a.prompts), len(run_b.prompts)
    if not shared:
        raise WorkbenchError(
            f"the runs share no prompt: of {n[1]} and {n[2]}, {n[0]} have an id in common, "
            "and none of those has the same messages and target"
        )
    text = f"Shared prompts: {len(shared):,} of {n[1]:,} and {n[2]:,}."
    if len(both) > len(shared):
        text += f" Left out, the id being the same but not messages or target: {len(both) - len(shared):,}."
    return shared, [text]


def _asked(prompt: Prompt) -> dict[str, Any]:
    """What makes a prompt the same task."""
    return {k: v for k, v in prompt.to_dict().items() if k not in ("id", "metadata", "group")}


def _other_conditions(run_a: RunTables, run_b: RunTables, *, timed: bool) -> list[str]:
    """What else differs between two runs than the cell."""
    notes = []
    versions = [
        next((s.get("version") for s in r.manifest.get("scorers", [])), None)
        for r in (run_a, run_b)
    ]
    if versions[0] != versions[1]:
        notes.append(
            f"The scorer's version differs ({versions[0]}, {versions[1]}): score both runs again before trusting this."
        )
    key = ["prompt_id", "repeat"]
    seeds = [r.generations[[*key, "seed"]].dropna().drop_duplicates() for r in (run_a, run_b)]
    both = seeds[0].merge(seeds[1], on=key)
    if both["seed_x"].ne(both["seed_y"]).any():
        notes.append("The runs drew with different seeds.")
    if timed:
        notes.append(
            "The runs were timed apart: a difference of the machine or of its load counts as theirs."
        )
    return notes


# ---------------------------------------------------------------------------------------------- estimates


def _comparison(
    pair: _Pair,
    prompts: PromptSet,
    notes: list[str],
    rng: np.random.Generator | int,
    split: str | None,
) -> Comparison:
    generator = np.random.default_rng(rng)
    table = table_of(pair.before, pair.after, prompts, pair.asked)
    if table.empty:
        raise WorkbenchError(f"no prompt was answered by both {' and '.join(pair.labels)}")
    before, after = (
        side[side["prompt_id"].isin(table["prompt_id"])] for side in (pair.before, pair.after)
    )
    quality, p = _quality(before, after, generator)
    counts = table["change"].value_counts()
    lost = max(side["prompt_id"].nunique() for side in (pair.before, pair.after)) - len(table)
    if lost:
        notes = [*notes, f"Prompts without an answer in one of the two, left out: {lost:,}."]
    return Comparison(
        cell=pair.ids[1],
        baseline=pair.ids[0],
        labels=pair.labels,
        quality=quality,
        p=p,
        n_prompts=len(table),
        n_cells=pair.n_cells,
        **{kind: int(counts.get(kind, 0)) for kind in CHANGES},
        tokens=_tokens(table),
        truncated=_rates(before, after, lambda s: s["finish_reason"].eq("length")),
        loops=_rates(before, after, lambda s: s["text"].map(has_loop)),
        latency=_latency(*pair.times, generator),
        notes=tuple(notes),
        changes=table,
        split=split,
        n_held_out=int(table["split"].eq("confirm").sum()),
        needed=None
        if words.settled(quality, p)
        else settling.settling(_both(before, after), _CELL, _BASE),
    )


def _both(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The answers of both sides, named by side: the cells of two runs may have the same id."""
    return pd.concat([before.assign(cell_id=_BASE), after.assign(cell_id=_CELL)])


def _quality(
    before: pd.DataFrame, after: pd.DataFrame, rng: np.random.Generator
) -> tuple[Paired, float]:
    """The difference in score and its p-value."""
    both = _both(before, after)
    rows = stats.paired_difference(both, _BASE, rng).to_dict("records")
    found = next(row for row in rows if row["cell_id"] == _CELL)
    means = stats.prompt_means(both).means
    scored = ~np.isnan(means).any(0)
    if not scored.any():
        return Paired(np.nan, np.nan, np.nan, np.nan, np.nan, 0, 0), float("nan")
    old, new = means[:, scored].mean(1)
    estimates = float(old), float(new), found["diff"], found["diff_lo"], found["diff_hi"]
    return Paired(*estimates, found["n_pairs"], found["n_pairs"]), found["p_value"]


def _tokens(table: pd.DataFrame) -> Paired:
    """The difference in output tokens an answer, clustered by group."""
    old, new = (table[c].to_numpy(float) for c in ("baseline_tokens", "tokens"))
    cluster = None
    if table["group"].notna().any():
        cluster = ("g:" + table["group"]).fillna("p:" + table["prompt_id"]).to_numpy(object)
    lo, hi = stats.mean_interval(new - old, cluster)
    means = float(old.mean()), float(new.mean()), float((new - old).mean())
    return Paired(*means, float(lo), float(hi), len(table), len(table))


def _rates(
    before: pd.DataFrame, after: pd.DataFrame, sign: Callable[[pd.DataFrame], pd.Series]
) -> tuple[float, float]:
    """Share of the answers that show a sign, in both cells."""
    return float(sign(before).mean()), float(sign(after).mean())


def _latency(
    before: pd.DataFrame, after: pd.DataFrame, rng: np.random.Generator
) -> dict[str, Paired]:
    """The differences in time over requests of the same prompt and round."""
    both = before.merge(after, on=["prompt_id", "repeat", "round"], suffixes=("_0", "_1"))
    out = {}
    for name in TIMES if len(both) else ():
        old, new = both[f"{name}_0"].to_numpy(float), both[f"{name}_1"].to_numpy(float)
        pairs = both[["prompt_id", "repeat", "round"]].assign(cell_id=_CELL, ms=new - old)
        pairs = pairs[pairs["ms"].notna()]
        if len(pairs):
            kept = pairs.index
            found = stats.median_interval(pairs, "ms", rng=rng).iloc[0]
            medians = float(np.median(old[kept])), float(np.median(new[kept]))
            bounds = float(found["lo"]), float(found["hi"])
            n = len(pairs), pairs["prompt_id"].nunique()
            out[name] = Paired(*medians, float(found["p50"]), *bounds, *n)
    return out
