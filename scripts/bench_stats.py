"""Do the promises of `workbench.stats` hold? Studies with a known truth, simulated and judged.

Prompts differ in difficulty (Beta(0.6, 0.6)), cells share seeds, and cells with similar settings agree more with each other
than with the rest: six blocks of eight. Each line of the table is one promise in one setting: the figure found, the bounds
promised, and how many studies it comes from. A figure fails when it is further outside its bounds than three standard errors
of a share counted in that many studies. Lines without bounds are there for comparison. The tests run the same functions
with fewer studies (`tests/test_stats_calibration.py`).
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.special
import scipy.stats

from workbench import stats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BLOCKS = np.repeat(np.arange(6), 8)
"""48 cells in six blocks of similar settings."""
APART = np.arange(48)
"""48 cells, each as unlike every other."""
BINS = (0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)


class Figure(NamedTuple):
    """One line of the table: what was found against what is promised."""

    promise: str
    setting: str
    found: float
    low: float | None
    high: float | None
    studies: int
    """Independent studies (or judged cells) the share was counted in; 0 = computed exactly."""

    @property
    def slack(self) -> float:
        """Three standard errors of a share at the nearer bound; 0 for exact figures."""
        if not self.studies:
            return 0.0
        bounds = [b for b in (self.low, self.high) if b is not None]
        near = min(bounds, key=lambda b: abs(b - self.found), default=self.found)
        return float(3 * np.sqrt(max(near * (1 - near), 1 / self.studies) / self.studies))

    @property
    def holds(self) -> bool:
        """Within the bounds, up to chance."""
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        return bool(low - self.slack <= self.found <= high + self.slack)


# ------------------------------------------------------------------------------------ simulated runs


def answers(
    rng: np.random.Generator,
    effects: Sequence[float] | np.ndarray,
    n: int,
    repeats: int = 1,
    blocks: np.ndarray | None = None,
) -> np.ndarray:
    """Right or wrong, (cells, n, repeats): cell j is right in 0.5 + effects[j] of all answers.

    An effect moves prompts of middling difficulty most. Cells of one prompt and repeat share 30 % of their luck, those of
    one block 80 %.
    """
    effects = np.asarray(effects, float)
    blocks = np.zeros(len(effects), int) if blocks is None else blocks
    ease = rng.beta(0.6, 0.6, n)
    gain = ease * (1 - ease) / (0.6 / 1.2 * 0.6 / 2.2)  # mean 1
    right = np.clip(ease + gain * effects[:, None], 0, 1)
    luck = np.sqrt(0.3) * rng.standard_normal((1, n, repeats))
    shared = rng.standard_normal((blocks.max() + 1, n, repeats))
    luck = luck + np.sqrt(0.5) * shared[blocks]
    luck = luck + np.sqrt(0.2) * rng.standard_normal((len(effects), n, repeats))
    return (luck < scipy.special.ndtri(right)[..., None]).astype(float)


def table(x: np.ndarray, codes: np.ndarray | None = None) -> stats.PromptMeans:
    """Scores (cells, prompts, repeats) as a table."""
    k, n, repeats = x.shape
    binary = ((x == 0) | (x == 1)).all((1, 2))
    return stats.PromptMeans(
        np.array([f"c{i}" for i in range(k)]),
        np.arange(n),
        codes,
        x.mean(2),
        np.full((k, n), repeats),
        binary,
    )


def tidy(x: np.ndarray) -> pd.DataFrame:
    """The same as a tidy frame."""
    cell, prompt, turn = (a.ravel() for a in np.indices(x.shape))
    names = np.array([f"c{i}" for i in range(len(x))])
    return pd.DataFrame(
        {"cell_id": names[cell], "prompt_id": prompt, "repeat": turn, "score": x.ravel()}
    )


# --------------------------------------------------------------------------------------- the promises


def wilson(_studies: int = 0, _rng: np.random.Generator | None = None) -> Iterator[Figure]:
    """Coverage of the interval of one rate, summed over all outcomes."""
    coverage = []
    for n in (10, 30, 100, 300):
        k = np.arange(n + 1)
        lo, hi = stats.proportion_interval(k, n)
        for p in (0.03, 0.1, 0.5, 0.9, 0.97):
            held = (lo <= p) & (p <= hi)
            coverage.append(scipy.stats.binom.pmf(k[held], n, p).sum())
    where = "n 10 to 300, p .03 to .97"
    yield Figure("Wilson interval covers, mean", where, float(np.mean(coverage)), 0.94, 0.965, 0)
    yield Figure("Wilson interval covers, lowest", where, min(coverage), 0.92, None, 0)


def clustered_intervals(studies: int, rng: np.random.Generator) -> Iterator[Figure]:
    """Coverage of `mean_interval` over groups of like prompts."""
    for clusters in (30, 60, 120):
        for name, sizes in (
            ("4 prompts each", np.full(clusters, 4)),
            ("1 to 8 prompts each", np.arange(clusters) % 8 + 1),
        ):
            label = np.repeat(np.arange(clusters), sizes)
            ease = rng.beta(1, 1, (studies, clusters))[:, label]
            lo, hi = stats.mean_interval((rng.random(ease.shape) < ease).astype(float), label)
            held = float(np.mean((lo <= 0.5) & (hi >= 0.5)))
            where = f"{clusters} groups, {name}"
            yield Figure("clustered interval covers", where, held, 0.93, 0.97, studies)
    for n, repeats in ((30, 1), (30, 3), (100, 3)):
        ease = rng.beta(0.6, 0.6, (studies, n, 1))
        one = table((rng.random((studies, n, repeats)) < ease).astype(float))
        lo, hi = one.interval()
        held = float(np.mean((lo <= 0.5) & (hi >= 0.5)))
        yield Figure(
            "quality interval covers", f"{n} prompts, repeats {repeats}", held, 0.93, 0.97, studies
        )


def paired_intervals(studies: int, rng: np.random.Generator) -> Iterator[Figure]:
    """Coverage of `paired_difference`, also for prompts in groups and for graded scores."""
    for n, repeats, group in ((30, 1, 1), (30, 3, 1), (100, 1, 1), (100, 3, 1), (90, 1, 3)):
        codes = np.arange(n) // group
        effect = np.repeat(rng.normal(0, 0.1, (studies, n // group)), group, axis=1) + 0.05
        ease = np.repeat(rng.beta(2, 2, (studies, n // group)), group, axis=1)
        luck = rng.random((repeats, studies, n))
        other = np.where(rng.random(luck.shape) < 0.5, luck, rng.random(luck.shape))
        ease = np.clip(ease, 0.2, 0.8)
        right, wrong = other < ease + np.clip(effect, -0.15, 0.2), luck < ease
        d = (right * 1.0 - wrong).mean(0)
        truth = scipy.stats.norm(0.05, 0.1)
        mean = truth.expect(lambda e: np.clip(e, -0.15, 0.2))
        # One table for all studies: a "cell" is a study's differences to a baseline that is always wrong.
        held = _held(np.vstack([np.zeros(n), d]), repeats, codes if group > 1 else None, mean)
        where = f"{n // group} clusters, {group} prompts each, repeats {repeats}"
        yield Figure("paired interval covers", where, held, 0.93, 0.97, studies)


def _held(d: np.ndarray, repeats: int, codes: np.ndarray | None, truth: float) -> float:
    """Share of the rows of differences whose interval holds the truth."""
    k, n = d.shape
    one = stats.PromptMeans(
        np.arange(k), np.arange(n), codes, d, np.full((k, n), repeats), np.ones(k, bool)
    )
    out = stats.paired_difference(one, 0, n_flips=1).iloc[1:]  # type: ignore[arg-type]
    return float(np.mean((out["diff_lo"] <= truth) & (truth <= out["diff_hi"])))


def false_alarms(studies: int, rng: np.random.Generator) -> Iterator[Figure]:
    """48 cells that are all equal: how often something is claimed of any."""
    for n, repeats, blocks in ((20, 1, APART), (30, 1, BLOCKS), (100, 1, BLOCKS), (100, 2, BLOCKS)):
        holm = plain = omnibus = book = dropped = 0
        for _ in range(studies):
            one = table(answers(rng, np.zeros(48), n, repeats, blocks))
            versus = stats.paired_difference(one, "c0", rng, n_flips=4_999)
            holm += (versus["p_adjusted"] <= 0.05).any()
            plain += (versus["p_value"] <= 0.05).any()
            q = stats.cochran_q(one, rng, n_flips=999)
            omnibus += q.p_value <= 0.05
            book += scipy.stats.chi2.sf(q.statistic, q.df) <= 0.05
            dropped += not stats.confidence_set(one, rng=rng, n_boot=999)["in_set"].all()
        kind = "apart" if blocks is APART else "in blocks"
        where = f"48 equal cells {kind}, {n} prompts, repeats {repeats}"
        for name, count, high in (
            ("any cell called different (Holm)", holm, 0.055),
            ("... without Holm", plain, None),
            ("Cochran's Q finds a difference", omnibus, 0.055),
            ("... by its chi-square curve", book, None),
            ("confidence set drops a best cell", dropped, 0.055),
        ):
            yield Figure(name, where, count / studies, None, high, studies)


def best_kept(studies: int, rng: np.random.Generator) -> Iterator[Figure]:
    """How often the true best is in the confidence set, and how large the set is."""
    for n, repeats, kind in (
        (20, 1, "48 cells, sd 4 points"),
        (50, 1, "48 cells, sd 4 points"),
        (100, 2, "48 cells, sd 4 points"),
        (400, 2, "48 cells, sd 4 points"),
        (50, 1, "8 tied for best of 48, others 10 points less"),
        (100, 2, "8 tied for best of 48, others 10 points less"),
        (100, 2, "graded, 48 cells, sd 4 points"),
    ):
        kept, size = 0, 0
        for _ in range(studies):
            effects = rng.normal(0, 0.04, 48)
            if "tied" in kind:
                effects = np.where(rng.permutation(48) < 8, 0.05, -0.05)
            x = answers(rng, effects, n, repeats, BLOCKS)
            if "graded" in kind:
                x = 0.5 * x + 0.5 * rng.beta(2, 2, x.shape)
            inside = stats.confidence_set(table(x), rng=rng, n_boot=999)["in_set"].to_numpy(bool)
            kept += inside[effects == effects.max()].all()
            size += inside.sum()
        where = f"{kind}, {n} prompts, repeats {repeats}"
        yield Figure("confidence set keeps the best", where, kept / studies, 0.95, None, studies)
        yield Figure("... cells in the set, mean", where, size / studies, None, None, studies)


def bootstrap_sets(studies: int, rng: np.random.Generator) -> Iterator[Figure]:
    """What the published bootstrap (arch's MCS) does with the same data, for comparison."""
    from arch.bootstrap import MCS  # noqa: PLC0415 - for this alone

    for n, blocks in ((20, BLOCKS), (20, APART), (100, BLOCKS), (100, APART)):
        flips = ties = 0
        dropped = {"max": 0, "R": 0}
        for _ in range(studies):
            x = answers(rng, np.zeros(48), n, 1, blocks)
            flips += not stats.confidence_set(table(x), rng=rng, n_boot=999)["in_set"].all()
            unique = np.unique(x[..., 0], axis=0)
            for method in dropped:
                mcs = MCS(-unique.T, size=0.05, reps=500, block_size=1, method=method, seed=rng)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    mcs.compute()
                dropped[method] += (mcs.pvalues["Pvalue"] <= 0.05).any()
            ties += any(np.ndim(cell) for cell in mcs.pvalues.index)
        where = f"48 equal cells {'apart' if blocks is APART else 'in blocks'}, {n} prompts"
        for text, count in (
            ("a best cell dropped: sign flips", flips),
            ("... arch MCS 'max'", dropped["max"]),
            ("... arch MCS 'R'", dropped["R"]),
            ("... 'R' drops a pair on a tie", ties),
        ):
            yield Figure(text, where, count / studies, None, None, studies)


def fronts(studies: int, rng: np.random.Generator) -> Iterator[Figure]:
    """Of cells said to be on the front with chance q, does a share q belong there? And is the area held?"""
    for k, n, sd in (
        (48, 100, 0.04),
        (48, 100, 0.01),
        (12, 60, 0.04),
        (12, 100, 0.1),
        (4, 60, 0.05),
    ):
        said, true, held, above = [], [], 0, 0
        for _ in range(studies):
            effects, ms = rng.normal(0, sd, k), 300 * np.exp(rng.normal(0, 0.15, k))
            one, times = table(answers(rng, effects, n, 2, BLOCKS[:: 48 // k])), timings(rng, ms)
            said.append(stats.pareto(one, 300, rng, latency=times)["p_on_front"].to_numpy())
            true.append(stats.on_front(effects, ms))
            if studies >= 100:
                area = stats.hypervolume(np.stack([0.5 + effects, ms], axis=-1), (0, 500))
                volume = stats.front_hypervolume(one, 300, rng, latency=times, ref_ms=500)
                held += volume.lo <= area <= volume.hi
                above += volume.measured > area
        where = f"{k} cells, sd {100 * sd:.0f} points, {n} prompts"
        yield from _calibrated(np.concatenate(said), np.concatenate(true), where)
        if studies >= 100:
            yield Figure("hypervolume interval holds", where, held / studies, 0.9, None, studies)
            yield Figure(
                "... measured is above the true", where, above / studies, None, None, studies
            )


def _calibrated(q: np.ndarray, y: np.ndarray, where: str) -> Iterator[Figure]:
    """One figure for each bin of at least 30 cells: the share truly on the front, against what was said."""
    at = np.clip(np.digitize(q, BINS) - 1, 0, len(BINS) - 2)
    for i in range(len(BINS) - 1):
        if (m := int((at == i).sum())) >= 30:
            said = float(q[at == i].mean())
            yield Figure(f"on the front, said {said:.3f}", where, y[at == i].mean(), said, said, m)


def timings(rng: np.random.Generator, ms: np.ndarray) -> pd.DataFrame:
    """Eight prompts in three rounds for each cell, 3 % noise."""
    k = len(ms)
    cell, prompt, turn = (a.ravel() for a in np.indices((k, 8, 3)))
    length = np.exp(rng.normal(0, 0.3, 8))
    took = ms[cell] * length[prompt] * np.exp(rng.normal(0, 0.03, cell.size))
    names = np.array([f"c{i}" for i in range(k)])
    return pd.DataFrame(
        {"cell_id": names[cell], "prompt_id": prompt, "round": turn, "e2el_ms": took}
    )


def planned(studies: int, rng: np.random.Generator) -> Iterator[Figure]:
    """`needed` says n from a pilot; a new study of that size finds the difference in so many cases."""
    for n, repeats, gap in (
        (100, 1, 0.05),
        (100, 2, 0.05),
        (60, 2, 0.08),
        (60, 4, 0.05),
        (200, 1, 0.03),
    ):
        found = 0
        for _ in range(studies):
            pilot = tidy(answers(rng, (0, gap), n, repeats))
            way = stats.needed(pilot, "c1", "c0", worth=gap).least
            assert way is not None
            later = table(answers(rng, (0, gap), n + way.prompts_more, repeats))
            p = stats.paired_difference(later, "c0", rng, n_flips=999)["p_value"].iloc[1]
            found += p <= 0.05
        where = f"pilot {n} prompts, repeats {repeats}, {100 * gap:.0f} points"
        yield Figure(
            "power with the prompts asked for", where, found / studies, 0.75, 0.85, studies
        )


def equivalence(studies: int, rng: np.random.Generator) -> Iterator[Figure]:
    """A cell exactly the margin worse must not be called equivalent; one that is equal should."""
    for n, repeats in ((60, 1), (200, 2)):
        wrong = right = 0
        for _ in range(studies):
            far = table(answers(rng, (0, -0.1), n, repeats))
            near = table(answers(rng, (0, 0), n, repeats))
            wrong += bool(stats.equivalent(far, "c0", 0.1)["equivalent"].iloc[1])
            right += bool(stats.equivalent(near, "c0", 0.1)["equivalent"].iloc[1])
        where = f"margin 10 points, {n} prompts, repeats {repeats}"
        yield Figure("called equivalent, though not", where, wrong / studies, None, 0.055, studies)
        yield Figure("... though indeed", where, right / studies, None, None, studies)


PARTS = {
    "wilson": (wilson, 0.0),
    "clustered": (clustered_intervals, 4.0),
    "paired": (paired_intervals, 4.0),
    "alarms": (false_alarms, 2.0),
    "best": (best_kept, 0.5),
    "bootstrap": (bootstrap_sets, 0.1),
    "fronts": (fronts, 0.5),
    "planned": (planned, 1.0),
    "equivalence": (equivalence, 1.0),
}
"""Each part with the share of ``--studies`` it gets: more where a study is cheap."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, write it as JSON; 1 if a promise fails."""
    parser = argparse.ArgumentParser(description="Do the promises of workbench.stats hold?")
    parser.add_argument("--studies", type=int, default=400, help="simulated studies per setting")
    parser.add_argument("--seed", type=int, default=1, help="of the simulations")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), help="some parts only")
    parser.add_argument("--out", type=Path, help="write the table there as JSON")
    given = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    print(f"{'promise':36} {'setting':64} {'found':>7} {'promised':>13} {'studies':>7}")
    for name, (part, share) in PARTS.items():
        if given.only and name not in given.only:
            continue
        start = time.perf_counter()
        size = max(round(share * given.studies), 10)
        for f in part(size, np.random.default_rng([given.seed, len(rows)])):
            bounds = " to ".join("" if b is None else f"{b:.3g}" for b in (f.low, f.high))
            bounds = "" if f.low is f.high is None else bounds
            mark = "" if f.holds else "  FAILS"
            print(
                f"{f.promise:36} {f.setting:64} {f.found:7.3f} {bounds:>13} {f.studies:7}{mark}",
                flush=True,
            )
            rows.append({**f._asdict(), "holds": f.holds})
        print(f"  ({name}: {time.perf_counter() - start:.1f} s)")
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(not all(row["holds"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
