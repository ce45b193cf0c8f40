"""Answers made elsewhere as a run, to be scored, compared and reported on like any other.

Read, told apart by what their rows hold: lm-eval's samples, the output of an OpenAI batch, our own JSONL export, and plain
rows ``{"id", "text"}``. What such a file does not say stays unknown: timing, token ids (so lengths in tokens are 0 in the
rows, which counts as not known), and settings, where it is silent and none are given. Of our own export, cells, adapters, templates and the split come back;
the wording of a template does not, only the prompts as it worded them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench import provenance
from workbench.engines.base import EngineInfo
from workbench.errors import PromptSetError
from workbench.interchange import answerfiles
from workbench.plan import split_of
from workbench.prompts import PromptSet
from workbench.prompts import load as load_prompts
from workbench.prompts.checkrows import canonical_json
from workbench.records import BASE, Generation
from workbench.store import RunStore
from workbench.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workbench.interchange.answerfiles import Answer
    from workbench.plan import Plan

_CHUNK: Final = 1_000


def import_answers(
    path: str | Path,
    prompts: Any = None,
    out: str | Path = "results",
    name: str = "imported",
    *,
    model: str = "unknown",
    settings: Mapping[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Make a run directory of answers that another program made.

    Args:
        path: A JSONL file.
        prompts: The prompts they answer, as ``workbench.prompts.load`` takes them, joined by id. None: as the file has them
            (lm-eval's samples and our own export have them, the others have not).
        out: Where run directories live.
        name: Name of the study; also of the cell, where the file names none.
        model: What made the answers, for people.
        settings: Decoding settings, where the file has none. Without them a cell counts as greedy, or as temperature 1
            where a prompt has several answers.
        say: Told, in one sentence each, what the run lacks or leaves out, such as prompts without an answer.

    Returns:
        The run directory; nothing in it is scored yet. If it cannot be made whole, there is none.

    Raises:
        PromptSetError: The file or the prompts cannot be used; lists every problem.
        StudyError: The name or the settings cannot be used.
        StoreError: The run cannot be written.
    """
    source = Path(path)
    data, answers, form = answerfiles.read(source)
    made = _own_prompts(source, answers) if prompts is None else load_prompts(prompts)
    problems = [
        f"{source}:{a.line}: no prompt {a.prompt_id!r} in {made.name}"
        for a in answers
        if a.prompt_id not in made
    ]
    if problems:
        raise PromptSetError("answers", problems)
    told = say or (lambda _: None)
    answers = _one_filter(answers, told)
    keyed = _numbered(source, answers, name)
    study, cells = _study(source, keyed, made, name=name, model=model, given=settings or {})
    plan = study.plan(made)
    ids = _cell_ids(source, plan, cells)
    _say_what_lacks(answers, made, plan, ids, told)
    about = {"file": source.name, "sha256": hashlib.sha256(data).hexdigest(), "format": form}
    manifest = provenance.manifest(study, plan, EngineInfo("imported", model, extra=about))
    return _write(Path(out) / study.name / manifest["run_id"], manifest, plan, ids, keyed)


def _write(
    folder: Path,
    manifest: Mapping[str, Any],
    plan: Plan,
    ids: Mapping[str, str],
    keyed: Mapping[tuple[str, str, int], Answer],
) -> Path:
    """The run record, whole or not at all."""
    failed = sum(answer.error is not None for answer in keyed.values())
    new = not folder.exists()
    try:
        with RunStore.create(folder, manifest) as store:
            store.add_plan(plan)
            rows = [_generation(key, ids, answer) for key, answer in keyed.items()]
            for start in range(0, len(rows), _CHUNK):
                store.add_generations(rows[start : start + _CHUNK])
            store.update_manifest(
                status="failed rows" if failed else "finished",
                ended_utc=provenance.now_utc(),
                n_rows=len(rows),
            )
    except BaseException:  # also when interrupted: half an import looks like a run
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a cell of the file stands in the study: in its grid, with an adapter and a template."""

    name: str
    adapter: str
    template: str | None


def _study(
    path: Path,
    keyed: Mapping[tuple[str, str, int], Answer],
    made: PromptSet,
    *,
    name: str,
    model: str,
    given: Mapping[str, Any],
) -> tuple[Study, dict[str, _Place]]:
    """A study with the cells of the file, and where each of them stands in it."""
    several = {cell for cell, _, repeat in keyed if repeat > 0}
    firsts: dict[str, Answer] = {}
    for (cell, _, _), answer in keyed.items():
        firsts.setdefault(cell, answer)
    names: dict[str, str] = {}
    grid: dict[str, dict[str, Any]] = {}
    cells: dict[str, _Place] = {}
    for cell, answer in firsts.items():
        known = dict(answer.settings) or dict(given)
        settings = {"temperature": 1.0 if cell in several else 0.0} | known
        content = canonical_json(settings)
        if content not in names:
            called = answer.name or name
            names[content] = cell if called in grid else called
            grid[names[content]] = settings
        cells[cell] = _Place(names[content], answer.adapter, answer.template)
    if len(set(cells.values())) < len(cells):
        raise PromptSetError(
            "answers", f"{path}: several cells have equal settings; import them one by one"
        )
    templates = dict.fromkeys(place.template for place in cells.values())
    share = _share(made, {a.prompt_id: a.split for a in keyed.values() if a.split is not None})
    study = Study(
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
    return study, cells


def _cell_ids(path: Path, plan: Plan, cells: Mapping[str, _Place]) -> dict[str, str]:
    """The file's cells to the study's."""
    ids = {_Place(str(c.name), c.adapter, c.template): c.cell_id for c in plan.cells}
    for merged in plan.collapsed:
        gone = merged.dropped
        ids[_Place(str(gone.name), gone.adapter, gone.template)] = merged.kept.cell_id
    found = {cell: ids[place] for cell, place in cells.items() if place in ids}
    if len(set(found.values())) < len(cells):
        same = "several cells have equal settings"
        mixed = "some cells have a template and others none"
        why = same if len(found) == len(cells) else mixed
        raise PromptSetError("answers", f"{path}: {why}; import them one by one")
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


def _say_what_lacks(
    answers: list[Answer],
    made: PromptSet,
    plan: Plan,
    ids: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
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


def _generation(key: tuple[str, str, int], ids: Mapping[str, str], answer: Answer) -> Generation:
    cell, prompt_id, repeat = key
    return Generation(
        ids[cell],
        prompt_id,
        repeat,
        text=answer.text,
        token_ids=(),
        n_prompt_tokens=0,
        finish_reason="error" if answer.error is not None else answer.finish,
        prompt=answer.rendered,
        error=answer.error,
    )


def _numbered(path: Path, answers: list[Answer], name: str) -> dict[tuple[str, str, int], Answer]:
    """The answers by cell, prompt and repeat; draws without a number are counted up."""
    seen: Counter[tuple[str, str]] = Counter()
    keyed: dict[tuple[str, str, int], Answer] = {}
    problems = []
    for answer in answers:
        place = (answer.cell or name, answer.prompt_id)
        repeat = seen[place] if answer.repeat is None else answer.repeat
        seen[place] += 1
        key = (*place, repeat)
        if key in keyed:
            problems.append(
                f"{path}:{answer.line}: repeat {repeat} of prompt {answer.prompt_id!r} is already at line {keyed[key].line}"
            )
        keyed.setdefault(key, answer)
    if problems:
        raise PromptSetError("answers", problems)
    return keyed


def _one_filter(answers: list[Answer], say: Callable[[str], None]) -> list[Answer]:
    """The answers without those that lm-eval wrote again for another filter."""
    first: dict[tuple[str, int | None, str], str | None] = {}
    for answer in answers:
        first.setdefault((answer.prompt_id, answer.repeat, answer.text), answer.filter)
    kept = [a for a in answers if first[a.prompt_id, a.repeat, a.text] == a.filter]
    if len(kept) < len(answers):
        names = ", ".join(dict.fromkeys(a.filter or "none" for a in answers))
        say(f"the file has every answer under several filters ({names}); each is taken once")
    return kept


def _own_prompts(path: Path, answers: list[Answer]) -> PromptSet:
    rows: dict[str, Mapping[str, Any]] = {}
    worded: dict[tuple[str, str | None], str] = {}
    for answer in answers:
        if answer.row is None:
            raise PromptSetError(
                "answers", f"{path}: holds no prompts; name the prompts it answers"
            )
        rows.setdefault(answer.prompt_id, answer.row)
        text = canonical_json(answer.row)
        if worded.setdefault((answer.prompt_id, answer.template), text) != text:
            raise PromptSetError(
                "answers",
                f"{path}:{answer.line}: prompt {answer.prompt_id!r} is worded in two ways; name the prompts it answers",
            )
    return PromptSet.from_records(rows.values(), path.stem)
