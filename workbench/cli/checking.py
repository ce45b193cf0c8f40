"""Looking at a study file before it runs: the study, its scorers, its prompts, and whether they fit."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from workbench.errors import PromptSetError, ScorerError, StudyError

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.problems import Check
    from workbench.prompts import PromptSet
    from workbench.scorers import Scorer
    from workbench.study import Study


class Checked(NamedTuple):
    """What ``validate`` looks at: a study, its prompts, and what to know before running it."""

    study: Study
    prompts: PromptSet
    notes: list[str]


def checked(path: Path) -> Checked:
    """A study file with its prompts, after a look at everything in it.

    Raises:
        StudyError: Lists every problem of the study, its scorers and its prompts.
    """
    from workbench import yamlmarks
    from workbench.problems import Check
    from workbench.prompts import load
    from workbench.study import Study

    problems: list[str] = []
    study = None
    try:
        study = Study.from_yaml(path)
    except StudyError as error:
        problems += error.problems
    marked = yamlmarks.read(_text(path))
    values = marked.data if isinstance(marked.data, dict) else {}
    check = Check(marked)
    check.problems.clear()  # those of the YAML itself are told above
    repeats = None if study is None else study.repeats
    scorers = _check_scorers(values.get("scorers"), path.parent, check, repeats)
    if study is not None and study.engine.get("kind") != "scripted":
        _check_adapters(study, check)
    problems = sorted([*problems, *check.listed()], key=_line)
    prompts, told = None, any(re.match(r"line \d+: prompts", problem) for problem in problems)
    if values.get("prompts") and not told:
        try:
            prompts = load(values["prompts"], path.parent)
        except PromptSetError as error:
            problems += error.problems
    if problems or study is None or prompts is None:
        raise StudyError(str(path), problems)
    return Checked(study, prompts, _notes(scorers, prompts))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""


def _line(problem: str) -> int:
    found = re.match(r"line (\d+)", problem)
    return int(found[1]) if found else 0


def _check_adapters(study: Study, check: Check) -> None:
    """The files of adapters that are here; whether they fit the model is seen when that is loaded."""
    from pathlib import Path

    from workbench import adapters
    from workbench.errors import AdapterError

    for n, (name, path) in enumerate(study.adapter_paths.items()):
        if path is not None and Path(path).exists():
            try:
                adapters.read(path)
            except AdapterError as error:
                check.add(("adapters", n), f"{name}: {error}")


def _check_scorers(named: Any, base_dir: Path, check: Check, repeats: int | None) -> list[Scorer]:
    from workbench.scorers import get_scorer
    from workbench.scorers.several import repeats_problem

    found = []
    for n, scorer in enumerate(named if isinstance(named, list) else [named] if named else []):
        where = ("scorers", n) if isinstance(named, list) else ("scorers",)
        try:
            found.append(get_scorer(scorer, base_dir))
        except ScorerError as error:
            check.add(where, str(error))
            continue
        if problem := _signature(found[-1]):
            check.add(where, problem)
        if repeats is not None and (problem := repeats_problem(found[-1], repeats)):
            check.add(where, problem)
        if found[-1].name in [scorer.name for scorer in found[:-1]]:
            check.add(
                where, f"two scorers are called {found[-1].name!r}; give one of them another name"
            )
    return found


def _signature(scorer: Scorer) -> str | None:
    """Why a function cannot be called as a scorer, if it cannot."""
    judge = getattr(scorer, "judge", None)  # of a function
    if judge is None:
        return None
    try:
        takes = inspect.signature(judge)
    except ValueError:  # some built-in functions have none
        return None
    try:
        takes.bind("text", "prompt")
    except TypeError:
        return f"scorer {scorer.name}: it is called with (text, prompt), and takes {takes}"
    return None


def _notes(scorers: list[Scorer], prompts: PromptSet) -> list[str]:
    """What the scorers cannot judge.

    Raises:
        StudyError: No prompt at all has a target that the primary scorer can use.
    """
    from workbench.scorers.base import ChecksTargets, target_problems

    first = scorers[0] if scorers else None
    if isinstance(first, ChecksTargets) and all(map(first.target_problem, prompts)):
        raise StudyError("scorers", target_problems(scorers[0], prompts))
    return [note for scorer in scorers for note in target_problems(scorer, prompts)]


def on_engine(study: Study, **settings: str | None) -> Study:
    """The study with the engine settings of the command line that were given: kind, device, kernel.

    Raises:
        BadParameter: One is not allowed.
    """
    changes = {name: value for name, value in settings.items() if value}
    if not changes:
        return study
    try:
        return study.replace(engine=dict(study.engine) | changes)
    except StudyError as error:
        raise typer.BadParameter("; ".join(error.problems)) from error
