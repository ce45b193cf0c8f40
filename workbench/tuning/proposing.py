"""Which settings to try next: Optuna's TPE on what is known, and the trials where optuna-dashboard finds them.

A proposal is a function of the study's seed, the number of trials before it and what is known of those; nothing is kept
in the sampler. So a search that was killed goes on as it would have. What is known of a trial grows as it answers more
prompts; Optuna takes a value once. Therefore the sampler reads a study in memory, made anew with the values of now, and the
file (`FILE`) holds the trials as they went: intermediate values, PRUNED, COMPLETE.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import StoreError, WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from workbench.searchspace import Dimension

__all__ = ["FILE", "Trial", "Trials", "optuna", "propose"]

FILE: Final = "optuna.sqlite3"
"""In the run directory: the trials, as Optuna keeps them."""
STARTUP: Final = 16
"""Trials spread evenly before the sampler takes over; more with more dimensions, see `startup`."""


EVEN: Final = 4
"""Every so many trials after those one goes on with the Sobol sequence: a sampler may settle on the wrong hill."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One proposal.

    Attributes:
        number: 0, 1, 2, ...
        raw: Dimension to value as Optuna has it.
        settings: Dimension to value as it is used.
    """

    number: int
    raw: Mapping[str, Any]
    settings: Mapping[str, Any]


def optuna() -> Any:
    """The optuna package, silent.

    Raises:
        WorkbenchError: It is not installed.
    """
    try:
        import optuna as package  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise WorkbenchError(
            "a search needs the package optuna: pip install 'awq-workbench[tune]'"
        ) from error
    return package


@contextlib.contextmanager
def _quiet(package: Any) -> Iterator[None]:
    """Optuna's own log lines would come between ours, and it calls some of what it is known for experimental."""
    before = package.logging.get_verbosity()
    package.logging.set_verbosity(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", package.exceptions.ExperimentalWarning)
            yield
    finally:
        package.logging.set_verbosity(before)


def startup(space: Sequence[Dimension]) -> int:
    """Trials spread evenly over a space before the sampler takes over."""
    return max(STARTUP, 8 * len(space))


def propose(
    space: Sequence[Dimension],
    known: Sequence[tuple[Trial, Sequence[float]]],
    n: int,
    *,
    seed: int,
    directions: Sequence[str] = ("maximize",),
) -> list[Trial]:
    """The next trials, to be tried together.

    The first `startup` are points of a Sobol sequence, and later every fourth; the others are TPE's, each told that those beside it
    are under way.

    Args:
        space: What is searched.
        known: All trials so far, in order, each with what it is known to be worth, one value for each direction.
        n: How many, at least 1.
        seed: Of the study.
        directions: "maximize" or "minimize", one or several.
    """
    first, spread = len(known), _spread(space, seed, len(known) + n)
    if first + n <= startup(space):
        return [_trial(space, first + i, spread[first + i]) for i in range(n)]
    package = optuna()
    distributions = {d.name: _distribution(package, d) for d in space}
    with _quiet(package):
        model = package.create_study(directions=list(directions))
        for trial, values in known:
            made = package.trial.create_trial(
                params=dict(trial.raw), distributions=distributions, values=list(values)
            )
            model.add_trial(made)
        out = []
        for i in range(n):
            if (place := _place(first + i, startup(space))) is not None:
                out.append(_trial(space, first + i, spread[place]))
                continue
            drawn = hashlib.sha256(json.dumps([seed, "propose", first + i]).encode()).digest()
            model.sampler = package.samplers.TPESampler(
                multivariate=len(space) > 1,
                constant_liar=True,
                seed=int.from_bytes(drawn[:4]),
                n_startup_trials=0,
            )
            out.append(_trial(space, first + i, model.ask(distributions).params))
    return out


def _place(number: int, first: int) -> int | None:
    """Which point of the Sobol sequence a trial is; None if it is the sampler's."""
    if number < first:
        return number
    place, rest = divmod(number - first, EVEN)
    return None if rest else first + place


def _spread(space: Sequence[Dimension], seed: int, n: int) -> list[dict[str, Any]]:
    """Points of a scrambled Sobol sequence as values of the space, at least ``n``."""
    from scipy.stats import qmc  # noqa: PLC0415 - heavy

    sobol = qmc.Sobol(len(space), rng=seed)
    points = sobol.random_base2(math.ceil(math.log2(max(n, startup(space)))))
    return [{d.name: _at(d, u) for d, u in zip(space, p, strict=True)} for p in points.tolist()]


def _at(d: Dimension, u: float) -> Any:
    """The value of a dimension at a place from 0 to 1, below 1."""
    if d.choices:
        return d.choices[int(u * len(d.choices))]
    if d.log:
        value = d.low * (d.high / d.low) ** u
        return min(round(value), int(d.high)) if d.integer else value
    assert d.step is not None
    places = round((d.high - d.low) / d.step) + 1
    value = d.low + int(u * places) * d.step
    return int(value) if d.integer else min(value, d.high)


def _distribution(package: Any, d: Dimension) -> Any:
    """A dimension as Optuna takes it."""
    kinds = package.distributions
    if d.choices:
        return kinds.CategoricalDistribution(d.choices)
    if d.integer:
        return kinds.IntDistribution(int(d.low), int(d.high), log=d.log, step=int(d.step or 1))
    return kinds.FloatDistribution(d.low, d.high, log=d.log, step=d.step)


def _trial(space: Sequence[Dimension], number: int, raw: Mapping[str, Any]) -> Trial:
    settings = {d.name: d.value(raw[d.name]) for d in space}
    return Trial(number, dict(raw), settings)


class Trials:
    """The trials of a search in a file of its run directory; a context manager.

    Attributes:
        trials: Those there are, in order.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        space: Sequence[Dimension],
        directions: Sequence[str],
        metrics: Sequence[str],
    ) -> None:
        self._optuna, self._space = optuna(), tuple(space)
        self._path = directory / FILE
        url = f"sqlite:///{self._path.absolute()}"
        with _quiet(self._optuna), self._told():
            self._storage = self._optuna.storages.RDBStorage(url)
            self._study = self._optuna.create_study(
                storage=self._storage,
                study_name=name,
                directions=list(directions),
                load_if_exists=True,
            )
            self._study.set_metric_names(list(metrics))
            frozen = self._study.get_trials(deepcopy=False)
        self._distributions = {d.name: _distribution(self._optuna, d) for d in space}
        self._several = len(directions) > 1
        self._reported = {t.number: set(t.intermediate_values) for t in frozen}
        self._ended = {t.number for t in frozen if t.state.is_finished()}
        self._ids = {t.number: t._trial_id for t in frozen}  # noqa: SLF001 - Optuna's storage is told by it
        self.trials = [_trial(space, t.number, t.params) for t in frozen]

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def add(self, trials: Sequence[Trial], cells: Sequence[str]) -> None:
        """Note new trials, and the labels of their cells."""
        with _quiet(self._optuna), self._told():
            for trial, cell in zip(trials, cells, strict=True):
                made = self._optuna.trial.create_trial(
                    state=self._optuna.trial.TrialState.RUNNING,
                    params=dict(trial.raw),
                    distributions=self._distributions,
                    user_attrs={"cell": cell, "settings": dict(trial.settings)},
                )
                self._study.add_trial(made)
            for t in self._study.get_trials(deepcopy=False)[len(self.trials) :]:
                self._ids[t.number] = t._trial_id  # noqa: SLF001 - as above
        self.trials += trials

    def report(self, trial: Trial, value: float, n_prompts: int) -> None:
        """Note what a trial is worth after some prompts; once for each number of prompts."""
        seen = self._reported.setdefault(trial.number, set())
        if self._several or n_prompts in seen or trial.number in self._ended:
            return
        with self._told():
            self._storage.set_trial_intermediate_value(self._ids[trial.number], n_prompts, value)
        seen.add(n_prompts)

    def end(self, trial: Trial, values: Sequence[float], *, pruned: bool = False) -> None:
        """Note how a trial ended; once."""
        if trial.number in self._ended:
            return
        states = self._optuna.trial.TrialState
        with self._told():
            self._storage.set_trial_state_values(
                self._ids[trial.number], states.PRUNED if pruned else states.COMPLETE, list(values)
            )
        self._ended.add(trial.number)

    def abandon(self, first: int) -> None:
        """Note that the trials from a number on were not made after all, as where time ran out after a kill."""
        failed = self._optuna.trial.TrialState.FAIL
        with self._told():
            for trial in self.trials[first:]:
                if trial.number not in self._ended:
                    self._storage.set_trial_state_values(self._ids[trial.number], failed)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the file in one sentence."""
        try:
            yield
        except (self._optuna.exceptions.StorageInternalError, OSError) as error:
            raise StoreError(f"{self._path}: cannot be used ({error})") from error
