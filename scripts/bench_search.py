"""How a search of ranges does on planted problems: how far its pick is from the best there is, for the same rows.

A study has 140 prompts to choose with. What a setting is worth is a hill over temperature 0..1.5 and top_p 0.3..1: 35 % far
from it, 60 % on its top, whose place is drawn from inside the ranges. A prompt's difficulty is Beta(0.6, 0.6); the chance of a right answer is
``expit(logit(difficulty) + shift)``, with the setting's shift such that its mean over all prompts is what it is worth.
Draws are ``coupled`` (one uniform number per prompt for all settings, as the scripted engine does) or ``mixed`` (that number
with probability a half, else one of the setting's own).

``tpe`` is the search as the workbench runs it; ``sobol`` and ``random`` are the same search with proposals that learn nothing.
``random whole`` asks random settings all prompts, ``grid whole`` those of an even grid, as many as the rows pay for, and
``grid race`` races an even 7 x 7 grid within the rows. Each picks what it finds best.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from workbench.api import Ready
from workbench.deciding.objective import Objective
from workbench.study import Study
from workbench.tuning import proposing, searching
from workbench.tuning.budget import Budget
from workbench.tuning.race import Race, block_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

N_PROMPTS: Final = 140
_RNG: Final = np.random.default_rng(0)
_POPULATION: Final = logit(_RNG.beta(0.6, 0.6, 4000).clip(1e-9, 1 - 1e-9))
_SHIFTS: Final = np.linspace(-12, 12, 400)
_WORTH: Final = np.array([expit(_POPULATION + shift).mean() for shift in _SHIFTS])
SPACE: Final = {"temperature": [0, 1.5], "top_p": [0.3, 1]}


class Problem:
    """One planted study, from its seed."""

    def __init__(self, seed: int, draws: str, height: float = 0.25) -> None:
        rng = np.random.default_rng([7, seed])
        self.top = rng.uniform(0.15, 1.3), rng.uniform(0.4, 0.95)
        self.odds = logit(rng.beta(0.6, 0.6, N_PROMPTS).clip(1e-9, 1 - 1e-9))
        self.shared = rng.random(N_PROMPTS)
        self.seed, self.draws, self.height = seed, draws, height

    def truth(self, temperature: float, top_p: float) -> float:
        """What a setting is worth, 0..1."""
        away = ((temperature - self.top[0]) / 0.35) ** 2 + ((top_p - self.top[1]) / 0.25) ** 2
        return float(0.35 + self.height * np.exp(-away / 2))

    def scores(self, temperature: float, top_p: float) -> Floats:
        """Its scores, 0 or 1, by prompt."""
        u = self.shared
        if self.draws == "mixed":
            own = [11, self.seed, round(temperature * 1000), round(top_p * 1000)]
            rng = np.random.default_rng(own)
            u = np.where(rng.random(N_PROMPTS) < 0.5, u, rng.random(N_PROMPTS))
        shift = np.interp(self.truth(temperature, top_p), _WORTH, _SHIFTS)
        return np.asarray(u < expit(self.odds + shift), float)

    def behind(self, temperature: float, top_p: float) -> float:
        """Points by which a setting is behind the best there is."""
        return 100 * (self.truth(*self.top) - self.truth(temperature, top_p))


class _Trials:
    """Stands in for the file of the trials."""

    def __init__(self, *_: Any) -> None:
        self.trials: list[Any] = []

    def add(self, trials: Sequence[Any], _: Any) -> None:
        self.trials += trials

    def close(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""

    report = end = abandon = close


class _Store:
    """Stands in for a run's record."""

    def __init__(self, folder: str) -> None:
        self.dir, self.manifest = Path(folder), {"calls": []}
        self.rows: list[tuple[str, str, str, float]] = []

    def scores(self, names: Sequence[str]) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=["cell_id", "prompt_id", "scorer", "value"])[names]

    def counts(self) -> Any:
        return SimpleNamespace(n_rows=len(self.rows), n_output_tokens=len(self.rows))

    def add_plan(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""

    update_manifest = add_plan


def searched(problem: Problem, rows: int, kind: str = "tpe") -> tuple[float, float, int]:
    """The search of the workbench: points behind the best there is, whether the best trial was dropped, rows."""
    search, n_rows = ran(problem, rows, kind)
    worth = search.pool.worth()
    pick = max(search.finalists(), key=lambda cell: worth[cell])
    params = {c.cell_id: c.params for c in search.plan.cells}
    behind = {cell: problem.behind(*_place(p)) for cell, p in params.items()}
    best = min(behind, key=lambda cell: behind[cell])
    return behind[pick], float(best in search.pool.dropped), n_rows


def equal_settings(draws: str, rows: int, studies: int, seed: int) -> float:
    """Share of settings dropped where all are worth the same, so that each is the best one."""
    found = [ran(Problem(seed + i, draws, 0.0), rows)[0].pool for i in range(studies)]
    return float(np.mean([len(pool.dropped) / (len(pool.cells) - 1) for pool in found]))


def ran(problem: Problem, rows: int, kind: str = "tpe") -> tuple[searching.Searching, int]:
    """A search at its end, and the rows it took."""
    study = Study(
        prompts=[{"id": f"p{i}", "prompt": "?"} for i in range(N_PROMPTS)],
        search=SPACE,
        scorers=["exact"],
        latency=None,
        seed=problem.seed,
    )
    engine = SimpleNamespace(info=SimpleNamespace(checkpoint_defaults=None))
    ready = Ready(study, study.plan(), engine, [], {})  # type: ignore[arg-type] # enough of one
    search = searching.Searching(
        ready,
        [Objective("exact")],
        [],
        budget=Budget(rows=rows),
        trials=None,
        alpha=0.05,
        say=lambda _: None,
    )
    answers: dict[str, Floats] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(searching, "Trials", _Trials),
        mock.patch.object(searching, "propose", PROPOSALS[kind]),
    ):
        store = _Store(folder)
        for block in search(store, set()):  # type: ignore[arg-type] # as above
            for request in block:
                if request.cell_id not in answers:
                    answers[request.cell_id] = problem.scores(*_place(request.params))
                value = answers[request.cell_id][int(request.prompt_id[1:])]
                store.rows.append((request.cell_id, request.prompt_id, "exact", value))
    return search, len(store.rows)


def _place(params: Any) -> tuple[float, float]:
    return params.temperature, 1.0 if params.top_p is None else params.top_p


def _sobol(space: Any, known: Any, n: int, **options: Any) -> Any:
    with mock.patch.object(proposing, "startup", return_value=256):
        return proposing.propose(space, known, n, seed=options["seed"])


def _random(space: Any, known: Any, n: int, **options: Any) -> Any:
    rng = np.random.default_rng([options["seed"], len(known)])
    drawn = [{d.name: proposing._at(d, rng.random()) for d in space} for _ in range(n)]  # noqa: SLF001 - the same values
    return [proposing._trial(space, len(known) + i, raw) for i, raw in enumerate(drawn)]  # noqa: SLF001 - as above


PROPOSALS: Final[dict[str, Any]] = {"tpe": proposing.propose, "sobol": _sobol, "random": _random}


def whole(problem: Problem, places: Sequence[tuple[float, float]]) -> tuple[float, float, int]:
    """All prompts to some settings."""
    means = [problem.scores(*place).mean() for place in places]
    return problem.behind(*places[int(np.argmax(means))]), 0.0, len(places) * N_PROMPTS


def even(n: int) -> list[tuple[float, float]]:
    """A grid of n x n inside the ranges."""
    inside = (np.arange(n) + 0.5) / n
    return [(1.5 * a, 0.3 + 0.7 * b) for a in inside for b in inside]


def grid_whole(problem: Problem, rows: int) -> tuple[float, float, int]:
    """As fine as the rows pay for."""
    return whole(problem, even(int(np.sqrt(rows / N_PROMPTS))))


def random_whole(problem: Problem, rows: int) -> tuple[float, float, int]:
    """As many as the rows pay for."""
    rng = np.random.default_rng([3, problem.seed])
    n = rows // N_PROMPTS
    return whole(problem, list(zip(1.5 * rng.random(n), 0.3 + 0.7 * rng.random(n), strict=True)))


def grid_race(problem: Problem, rows: int) -> tuple[float, float, int]:
    """A race of 49 settings; it ends where the next block is more than is left."""
    places = even(7)
    race = Race([str(i) for i in range(49)], "0")
    x = np.array([problem.scores(*place) for place in places])
    used = start = 0
    for size in block_sizes(N_PROMPTS):
        alive = [int(c) for c in race.alive]
        if race.decided or used + len(alive) * size > rows:
            break
        names = [str(p) for p in range(start, start + size)]
        race.update(names, names, x[alive, start : start + size])
        used, start = used + len(alive) * size, start + size
    return problem.behind(*places[int(race.leader())]), 0.0, used


METHODS: Final[dict[str, Callable[[Problem, int], tuple[float, float, int]]]] = {
    **{kind: lambda p, rows, kind=kind: searched(p, rows, kind) for kind in PROPOSALS},  # type: ignore[misc] # bound by name
    "random whole": random_whole,
    "grid whole": grid_whole,
    "grid race": grid_race,
}


def measure(method: str, draws: str, rows: int, studies: int, seed: int) -> dict[str, float]:
    """Points behind the best there is over studies: mean, its standard error, median; how often the best trial was dropped."""
    found = np.array(
        [METHODS[method](Problem(seed + i, draws), rows) for i in range(studies)], float
    )
    behind = found[:, 0]
    return {
        "behind": float(behind.mean()),
        "behind_se": float(behind.std(ddof=1) / np.sqrt(studies)) if studies > 1 else 0.0,
        "behind_median": float(np.median(behind)),
        "best_dropped": float(found[:, 1].mean()),
        "rows": float(found[:, 2].mean()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--seed", type=int, default=30_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[1500, 4000])
    parser.add_argument(
        "--draws", nargs="+", choices=("coupled", "mixed"), default=["coupled", "mixed"]
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = []
    for draws in args.draws:
        for rows in args.rows:
            print(f"{draws}, {rows} rows, {args.studies} studies: points behind the best")
            for method in args.methods:
                started = time.monotonic()
                found = measure(method, draws, rows, args.studies, args.seed)
                results.append({"draws": draws, "budget": rows, "method": method, **found})
                print(
                    f"  {method:<14} mean {found['behind']:5.2f} ({found['behind_se']:.2f})  median "
                    f"{found['behind_median']:5.2f}  best dropped {found['best_dropped']:.3f}  rows {found['rows']:6.0f}  "
                    f"{time.monotonic() - started:5.0f} s",
                    flush=True,
                )
            if "tpe" in args.methods:
                share = equal_settings(draws, rows, args.studies, args.seed)
                results.append({"draws": draws, "budget": rows, "equal_dropped": share})
                print(f"  all settings equal: {100 * share:.2f} % dropped", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
