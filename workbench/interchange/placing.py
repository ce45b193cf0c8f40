"""Where answers made elsewhere stand in a study: which cells there are, their settings, adapters and templates."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workbench.errors import PromptSetError
from workbench.params import SamplingParams
from workbench.plan import label, split_of
from workbench.prompts.checkrows import canonical_json
from workbench.records import BASE
from workbench.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from workbench.interchange.answer import Answer
    from workbench.plan import Plan
    from workbench.prompts import PromptSet

Keyed = dict[tuple[str, str, int], "Answer"]
"""Answers by cell (see ``cell_of``), prompt id and repeat."""


def cell_of(answer: Answer) -> str:
    """What tells an answer's cell from others."""
    own = answer.cell or dict(answer.settings)
    return canonical_json([own, answer.model, answer.adapter, answer.template])


def by_model(
    answers: list[Answer], given: str | None, say: Callable[[str], None]
) -> tuple[list[Answer], str | None]:
    """The answers of several models as those of one with several adapters, which is how a run tells them apart.

    Args:
        answers: The answers.
        given: Name of the model, if the caller has one.
        say: Told if there are several.

    Returns:
        The answers, and the model's name; None if nobody says it.
    """
    models = list(dict.fromkeys(a.model for a in answers if a.model is not None))
    if len(models) < 2:
        return answers, given or (models[0] if models else None)
    say(f"the answers are of {len(models)} models ({', '.join(models)}); each stands as an adapter")
    names: dict[tuple[str | None, str], str] = {}
    for answer in answers:
        parts = [answer.model or "other", *([] if answer.adapter == BASE else [answer.adapter])]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts)).strip("-._")[:90] or "model"
        taken = [n for key, n in names.items() if key != (answer.model, answer.adapter)]
        names.setdefault((answer.model, answer.adapter), _free(name, taken, "-"))
    placed = [replace(a, adapter=names[a.model, a.adapter]) for a in answers]
    return placed, given or " and ".join(models)


def _free(name: str, taken: Any, joint: str = " ") -> str:
    """A name that is not taken: with a number if need be."""
    if name not in taken:
        return name
    return next(new for n in range(2, 10**6) if (new := f"{name}{joint}{n}") not in taken)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cell of the answers stands in the study: in its grid, with an adapter and a template."""

    name: str
    adapter: str
    template: str | None


def study(
    where: Path | str,
    keyed: Keyed,
    made: PromptSet,
    *,
    name: str,
    model: str,
    given: Mapping[str, Any],
    say: Callable[[str], None],
) -> tuple[Study, dict[str, Place]]:
    """A study with the cells of some answers, and where each of them stands in it.

    Args:
        where: What error messages call the answers.
        keyed: The answers.
        made: Their prompts.
        name: Of the study, and of its cell where there is one without a name.
        model: Its model.
        given: Settings that count where the answers have none.
        say: Told where no temperature is known.

    Raises:
        PromptSetError: Cells cannot be told apart.
        StudyError: The name or a setting cannot be used.
    """
    several = {cell for cell, _, repeat in keyed if repeat > 0}
    firsts: dict[str, Answer] = {}
    for (cell, _, _), answer in keyed.items():
        firsts.setdefault(cell, answer)
    settings = {cell: dict(given) | dict(answer.settings) for cell, answer in firsts.items()}
    unknown = [cell for cell, known in settings.items() if "temperature" not in known]
    for cell in unknown:
        settings[cell] = {"temperature": 1.0 if cell in several else 0.0, **settings[cell]}
    if unknown:
        counts = {settings[cell]["temperature"] for cell in unknown}
        shown = " or ".join(f"{value:g}" for value in sorted(counts))
        say(f"no temperature is given for the answers; it counts as {shown}")
    grid: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for cell, called in _names(firsts, settings, name).items():
        content = canonical_json(settings[cell])
        if content not in names:
            names[content] = _free(called, grid)
            grid[names[content]] = settings[cell]
    cells = {
        cell: Place(names[canonical_json(settings[cell])], answer.adapter, answer.template)
        for cell, answer in firsts.items()
    }
    if len(set(cells.values())) < len(cells):
        raise PromptSetError(
            "answers", f"{where}: several cells have equal settings; import them one by one"
        )
    templates = dict.fromkeys(place.template for place in cells.values())
    share = _share(made, {a.prompt_id: a.split for a in keyed.values() if a.split is not None})
    declared = Study(
        name=name,
        model=model,
        prompts=made,
        adapters=[
            BASE if adapter == BASE else {adapter: adapter}
            for adapter in dict.fromkeys(place.adapter for place in cells.values())
        ],
        templates={t: None for t in templates if t is not None} or None,
        grid=grid,
        repeats=max(repeat for _, _, repeat in keyed) + 1,
        split={"confirm": share} if share else None,
        latency=None,
    )
    return declared, cells


def _names(
    firsts: Mapping[str, Answer], settings: Mapping[str, Mapping[str, Any]], name: str
) -> dict[str, str]:
    """What cells are called: as the files say, else by the settings that differ, else ``name``."""
    values: dict[str, set[str]] = {}
    for known in settings.values():
        for setting in {key for each in settings.values() for key in each}:
            values.setdefault(setting, set()).add(repr(known.get(setting)))
    varied = [setting for setting, found in values.items() if len(found) > 1]
    return {
        cell: answer.name
        or (label(SamplingParams(**settings[cell]), varied, BASE, None) if varied else name)
        for cell, answer in firsts.items()
    }


def cell_ids(where: Path | str, plan: Plan, cells: Mapping[str, Place]) -> dict[str, str]:
    """The cells of some answers to those of the study.

    Raises:
        PromptSetError: Two of them are one there.
    """
    ids = {Place(str(c.name), c.adapter, c.template): c.cell_id for c in plan.cells}
    for merged in plan.collapsed:
        gone = merged.dropped
        ids[Place(str(gone.name), gone.adapter, gone.template)] = merged.kept.cell_id
    found = {cell: ids[place] for cell, place in cells.items() if place in ids}
    if len(set(found.values())) < len(cells):
        same = "several cells have equal settings"
        mixed = "some cells have a template and others none"
        why = same if len(found) == len(cells) else mixed
        raise PromptSetError("answers", f"{where}: {why}; import them one by one")
    return found


def _share(prompts: PromptSet, splits: Mapping[str, str]) -> float:
    """The share held out for confirmation that splits the prompts as the file does; 0 if none does."""
    sides = [(prompt, splits[prompt.id]) for prompt in prompts if prompt.id in splits]
    if not any(side == "confirm" for _, side in sides):
        return 0.0

    def wrong(share: float) -> int:
        """Above 0 if the share is too small, below 0 if it is too large."""
        made = [(split_of(prompt, share), side) for prompt, side in sides]
        return 1 if ("select", "confirm") in made else -1 if ("confirm", "select") in made else 0

    low, high, share = 0.0, 1.0, 0.5
    for _ in range(60):
        off = wrong(share)
        if not off:
            break
        low, high = (share, high) if off > 0 else (low, share)
        share = (low + high) / 2
    else:
        return 0.0
    rounded = (round(share, digits) for digits in range(1, 17))
    return next((r for r in rounded if 0 < r < 1 and not wrong(r)), share)


def say_what_lacks(
    answers: list[Answer],
    made: PromptSet,
    plan: Plan,
    ids: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Tell what a run of these answers lacks, one sentence each."""
    answered = {answer.prompt_id for answer in answers}
    lost = [prompt.id for prompt in made if prompt.id not in answered]
    if lost:
        say(f"{len(lost)} of {len(made)} prompts have no answer (first: {lost[0]!r})")
    empty = [cell.label for cell in plan.cells if cell.cell_id not in ids.values()]
    if empty:
        say(f"{len(empty)} of {len(plan.cells)} cells have no answers (first: {empty[0]})")
    if len({answer.template for answer in answers}) > 1:
        say(
            "the wordings of the templates are not in the file; prompts are shown as the first one words them"
        )
    confirm = sum(split_of(p, plan.study.split.get("confirm", 0.0)) == "confirm" for p in made)
    given = {answer.prompt_id for answer in answers if answer.split == "confirm"}
    if confirm == 0 and given:
        say("the split in the file is none that a study can have; no prompt is held out")
