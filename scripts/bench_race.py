"""How racing does on planted problems: rows saved, quality of the pick, and how often it drops what it should keep.

One study: cells whose true means spread normally, prompts whose difficulty is Beta(0.6, 0.6). The chance of a right
answer is ``expit(logit(difficulty) + shift)``, with the cell's shift such that its mean over the prompts is the planted
one. Three kinds of draws: ``coupled``, one uniform number per prompt and repeat for all cells, as the scripted engine and
common random numbers do; ``crossed``, coupled, with a normal shift of sd 0.5 for every cell and prompt besides (no cell is
better everywhere); ``independent``, each cell its own numbers.

A study goes to the rule that the workbench uses, and for comparison to two others (``--rules``): pairwise tests of the same
kind, averaged over opponents; and a bound from the normal curve (Robbins' mixture with estimated variance, Waudby-Smith et
al. 2021), Bonferroni over opponents. The full grid runs on the same draws.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from scipy.special import expit, logit

import workbench as wb
from workbench.engines.scripted import PlantedQuality, ScriptedEngine
from workbench.sequential import PairedTest
from workbench.study import Study
from workbench.tuning import tune
from workbench.tuning.race import Race, block_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from workbench.records import Request

    Floats = NDArray[np.float64]

DRAWS: Final = ("coupled", "crossed", "independent")
MARGIN: Final = 0.06
"""How much better than the baseline a cell is that must not be lost."""


class Problem(NamedTuple):
    """One planted study; the baseline is cell 0.

    Attributes:
        truth: Shape (cells,), true quality.
        scores: Shape (cells, prompts), mean over repeats.
    """

    truth: Floats
    scores: Floats


class Outcome(NamedTuple):
    """What a rule did: share of the full grid's rows, its pick, and who was dropped for whom."""

    rows: float
    pick: int
    dropped: dict[int, int]


def planted(
    seed: list[int],
    draws: str = "coupled",
    *,
    n_cells: int = 48,
    n_prompts: int = 400,
    repeats: int = 2,
    sd: float = 0.04,
) -> Problem:
    """One study, from its seed."""
    rng = np.random.default_rng(seed)
    chance = logit(rng.beta(0.6, 0.6, n_prompts).clip(1e-9, 1 - 1e-9))
    truth = (0.5 + sd * rng.standard_normal(n_cells)).clip(0.02, 0.98)
    own = rng.standard_normal((n_cells, n_prompts)) * 0.5 if draws == "crossed" else 0.0
    odds = np.broadcast_to(chance + own, (n_cells, n_prompts))
    low, high = np.full(n_cells, -40.0), np.full(n_cells, 40.0)
    for _ in range(60):  # bisection for the shift
        middle = (low + high) / 2
        small = expit(odds + middle[:, None]).mean(1) < truth
        low, high = np.where(small, middle, low), np.where(small, high, middle)
    right = expit(odds + high[:, None])
    shape = (repeats, n_cells if draws == "independent" else 1, n_prompts)
    return Problem(truth, (rng.random(shape) < right).mean(0))


def race(scores: Floats, alpha: float = 0.05) -> Outcome:
    """The rule of the workbench: `Race` over `block_sizes`, until it is decided or the prompts are used up."""
    cells = [str(i) for i in range(len(scores))]
    runner = Race(cells, cells[0], alpha=alpha)
    rows = 0
    for block in _blocks(scores):
        names = [str(p) for p in range(block.start, block.stop)]
        alive = [int(cell) for cell in runner.alive]
        runner.update(names, names, scores[alive, block])
        rows += len(alive) * len(names)
        if runner.decided:
            break
    drops = {int(drop.cell): int(drop.leader) for drop in runner.dropped.values()}
    return Outcome(rows / scores.size, int(runner.leader()), drops)


def pairwise(scores: Floats, alpha: float = 0.05) -> Outcome:
    """Every cell against every other by the same bets; a cell's evidence is the average over its opponents."""
    n = len(scores)
    test = PairedTest((n, n))

    def lost(alive: NDArray[np.intp], block: slice) -> NDArray[np.bool_]:
        gone = np.setdiff1d(np.arange(n), alive)
        d = scores[:, None, block] - scores[None, :, block]
        d[gone], d[:, gone] = 0.0, 0.0
        test.update(np.moveaxis(d, -1, 0))
        return np.asarray((np.exp(test.log).sum(0)[alive] - 1) / (n - 1) >= 1 / alpha)

    return _run(scores, lost)


def normal(scores: Floats, alpha: float = 0.05) -> Outcome:
    """Against the leader, by a normal-mixture bound tightest at 100 prompts, alpha / (cells - 1) each, from 20 prompts."""
    level = alpha / (len(scores) - 1)
    rho = (-2 * np.log(2 * level) + np.log(1 - 2 * np.log(2 * level))) / 100

    def lost(alive: NDArray[np.intp], block: slice) -> NDArray[np.bool_]:
        x = scores[alive, : block.stop]
        t = x.shape[1]
        d = x[np.argmax(x.mean(1))] - x
        log = np.log(1 + np.sqrt(t * rho + 1) / (2 * level))
        half = d.std(1) * np.sqrt(2 * (t * rho + 1) / (t**2 * rho) * log)
        return np.asarray((t >= 20) & (d.mean(1) > half))

    return _run(scores, lost)


def _run(scores: Floats, lost: Callable[..., NDArray[np.bool_]]) -> Outcome:
    """The loop that the rules for comparison share."""
    alive, rows = np.arange(len(scores)), 0
    drops: dict[int, int] = {}
    for block in _blocks(scores):
        rows += len(alive) * (block.stop - block.start)
        loses = lost(alive, block)
        leader = int(alive[np.argmax(scores[alive, : block.stop].mean(1))])
        losers = [int(i) for i in alive[loses] if i not in (0, leader)]
        drops |= dict.fromkeys(losers, leader)
        alive = np.setdiff1d(alive, losers)
        if len(alive) == 1 or (len(alive) == 2 and loses[0] and leader != 0):
            break
    return Outcome(rows / scores.size, leader, drops)


def _blocks(scores: Floats) -> Iterator[slice]:
    ends = np.cumsum(block_sizes(scores.shape[1])).tolist()
    yield from (slice(start, end) for start, end in zip([0, *ends], ends, strict=False))


RULES: Final[dict[str, Callable[..., Outcome]]] = {
    "race": race,
    "pairwise": pairwise,
    "normal": normal,
}


def judge(problem: Problem, found: Outcome) -> dict[str, float]:
    """One study's figures; qualities in points, events as 0 or 1."""
    truth = problem.truth
    full = truth[np.argmax(problem.scores.mean(1))]
    good = {int(i) for i in np.flatnonzero(truth >= truth[0] + MARGIN)}
    gone = good & set(found.dropped)
    return {
        "rows": found.rows,
        "behind_full": 100 * (full - truth[found.pick]),
        "behind_best": 100 * (truth.max() - truth[found.pick]),
        "full_behind_best": 100 * (truth.max() - full),
        "has_good": bool(good),
        "best_dropped": int(truth.argmax()) in found.dropped,
        "good_dropped_for_no_better": any(truth[i] >= truth[found.dropped[i]] for i in gone),
        "good_dropped_for_worse_pick": any(truth[i] >= truth[found.pick] for i in gone),
        "good_dropped_at_all": bool(gone),
    }


def measure(
    rule: str, draws: str, studies: int, seed: int, alpha: float = 0.05
) -> dict[str, float]:
    """Means over studies, and the standard errors of the rows and of the distance to the full grid's pick."""
    problems = (planted([seed, i], draws) for i in range(studies))
    lines = [judge(problem, RULES[rule](problem.scores, alpha)) for problem in problems]
    values = {name: np.array([line[name] for line in lines], float) for name in lines[0]}
    out = {name: float(v.mean()) for name, v in values.items()}
    for name in ("rows", "behind_full"):
        out[f"{name}_se"] = float(values[name].std(ddof=1) / np.sqrt(studies))
    return out


def equal_cells(studies: int, seed: int, alpha: float = 0.05) -> dict[str, float]:
    """All cells equal, independent draws: the share of cells ever dropped, and the rows used."""
    found = [race(planted([seed, i], "independent", sd=0.0).scores, alpha) for i in range(studies)]
    dropped = [len(outcome.dropped) / 47 for outcome in found]
    return {
        "dropped": float(np.mean(dropped)),
        "rows": float(np.mean([outcome.rows for outcome in found])),
    }


def tuned(studies: int, seed: int, sd: float = 0.04) -> dict[str, float]:
    """Whole studies through ``tune`` and, on the same draws, through a full run and its decision.

    24 cells, 200 prompts of which 30 % are held out, 2 repeats, answers of the scripted engine (coupled draws); the baseline is
    the first cell. ``rows`` are all that were asked, those held out included, as a share of the full run's; ``behind`` is by how
    many points the true quality of the decision's pick is behind the best cell's; ``kept`` is how often it kept the baseline;
    ``covers`` how often the interval of its gain holds the true gain, where a gain is claimed.
    """
    lines = [
        {
            f"{name}_{what}": value
            for name, one in _whole(seed, i, sd).items()
            for what, value in one.items()
        }
        for i in range(studies)
    ]
    values = {name: np.array([line[name] for line in lines]) for name in lines[0]}
    out = {name: float(np.nanmean(v)) for name, v in values.items()}
    if studies > 1:
        for name in ("tuned_rows", "tuned_behind", "full_behind"):
            out[f"{name}_se"] = float(values[name].std(ddof=1) / np.sqrt(studies))
    return out


def _whole(seed: int, number: int, sd: float) -> dict[str, dict[str, float]]:
    """One study: tuned, and in full."""
    n_cells, n_prompts = 24, 200
    rng = np.random.default_rng([seed, number, 5])
    chance = logit(rng.beta(0.6, 0.6, n_prompts).clip(1e-9, 1 - 1e-9))
    truth = (0.5 + sd * rng.standard_normal(n_cells)).clip(0.02, 0.98)
    shifts = np.linspace(-12, 12, 2000)
    worth = expit(chance[None, :] + shifts[:, None]).mean(1)
    right = expit(chance[None, :] + np.interp(truth, worth, shifts)[:, None])
    heat = [round(0.05 * (i + 1), 2) for i in range(n_cells)]

    def quality(request: Request) -> float:
        place = heat.index(round(request.params.temperature or 0, 2))
        return float(right[place, int(request.prompt_id[1:])])

    rows = [
        {"id": f"p{i}", "prompt": f"What is {i} + 1?", "target": str(i + 1)}
        for i in range(n_prompts)
    ]
    study = Study(
        name="planted",
        model="scripted",
        prompts=rows,
        grid={"temperature": heat},
        fixed={"max_tokens": 8},
        repeats=2,
        split={"confirm": 0.3},
        scorers=["contains"],
        latency=None,
        baseline={"temperature": heat[0]},
        seed=number,
        allow_inert=True,
    )
    engine = ScriptedEngine(quality=PlantedQuality(quality, {r["id"]: r["target"] for r in rows}))
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        quiet: Any = {"progress": False, "say": lambda _: None}
        found = tune(study, engine, f"{folder}/tuned", **quiet)
        run = wb.run(study, engine, f"{folder}/full", **quiet)
        for name, made, decision in (
            ("tuned", found.run, found.decision),
            ("full", run, wb.decide(run)),
        ):
            choice = decision.choice
            place = heat.index(
                float(made.cells.set_index("cell_id")["temperature"][str(choice.pick)])
            )
            gain, won = truth[place] - truth[0], choice.confirmed
            claimed = place > 0 and won is not None
            out[name] = {
                "rows": len(made.generations) / study.plan().n_rows,
                "behind": 100 * float(truth.max() - truth[place]),
                "kept": float(place == 0),
                "covers": float(won.lo <= gain <= won.hi) if claimed and won else np.nan,
            }
    return out


def validity(
    runs: int, seed: int, alpha: float = 0.05, n: int = 400
) -> dict[str, dict[str, float]]:
    """How often a true hypothesis, mean difference 0, is rejected at any look: by this test, and by a normal-mixture bound."""
    rng = np.random.default_rng(seed)
    shape = (n, runs)
    rare = rng.random(shape)
    kinds = {
        "coin": rng.choice([-1.0, 1.0], shape),
        "1 in 50 differs": np.where(rare < 0.02, rng.choice([-1.0, 1.0], shape), 0.0),
        "many small wins, rare loss": np.where(rare < 0.02, -0.98, 0.02),
        "many small losses, rare win": np.where(rare < 0.02, 0.98, -0.02),
        "graded": rng.beta(0.6, 0.6, shape) - rng.beta(0.6, 0.6, shape),
    }
    rho = (-2 * np.log(2 * alpha) + np.log(1 - 2 * np.log(2 * alpha))) / 100
    t = np.arange(1, n + 1)[:, None]
    log = np.log(1 + np.sqrt(t * rho + 1) / (2 * alpha))
    out = {}
    for kind, x in kinds.items():
        test = PairedTest(runs)
        test.update(x)
        mean = x.cumsum(0) / t
        sd = np.sqrt(np.maximum((x**2).cumsum(0) / t - mean**2, 0))
        over = mean > sd * np.sqrt(2 * (t * rho + 1) / (t**2 * rho) * log)
        out[kind] = {
            "race": float(test.rejects(alpha).mean()),
            "normal": float((over & (sd > 0))[1:].any(0).mean()),
        }
    return out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=20_000)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--draws", nargs="+", choices=DRAWS, default=DRAWS)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=["race"])
    parser.add_argument(
        "--runs", type=int, default=20_000, help="for the false alarms; 0 = not measured"
    )
    parser.add_argument(
        "--tuned", type=int, default=0, help="studies through tune itself, some 5 s each"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result: dict[str, Any] = {k: getattr(args, k) for k in ("studies", "seed", "alpha", "runs")}
    result["races"] = []
    for draws in args.draws:
        for rule in args.rules:
            found = measure(rule, draws, args.studies, args.seed, args.alpha)
            result["races"].append({"draws": draws, "rule": rule, **found})
            print(f"{draws}, {rule}: {args.studies} studies, alpha {args.alpha}")
            for name, value in found.items():
                print(f"  {name:<28} {value:8.3f}")
    result["equal_cells"] = equal_cells(args.studies, args.seed, args.alpha)
    print("all cells equal, independent draws")
    for name, value in result["equal_cells"].items():
        print(f"  {name:<28} {value:8.3f}")
    if args.tuned:
        result["tuned"] = tuned(args.tuned, args.seed)
        print(f"through tune, {args.tuned} studies")
        for name, value in result["tuned"].items():
            print(f"  {name:<28} {value:8.3f}")
    if args.runs:
        result["false_alarms"] = validity(args.runs, args.seed, args.alpha)
        print(f"rejected though true, {args.runs} runs of 400, alpha {args.alpha}")
        for kind, line in result["false_alarms"].items():
            print(f"  {kind:<28} race {line['race']:.4f}   normal {line['normal']:.4f}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
