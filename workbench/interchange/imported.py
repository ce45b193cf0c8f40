"""Answers made elsewhere as a run, to be compared, scored again and reported on like any other.

Read: inspect_ai's logs, lm-eval's samples, evalscope's reviews, the output of an OpenAI batch, our own JSONL export, and plain
rows ``{"id", "text"}``. The scores that such files hold come along, as scorers of the same names, whose version says who
judged; one that is no number from 0 to 1 is no score, and says why. What a file does not say stays unknown: timing, token ids,
lengths in tokens (0 in the rows, which counts as not known), and settings, where it is silent and none are given. Of our own
exports cells, adapters, templates and the split come back; the wording of a template does not, only the prompts as it worded
them.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench import provenance
from workbench.engines.base import EngineInfo
from workbench.errors import PromptSetError
from workbench.interchange import answerfiles, batchread, placing
from workbench.prompts import PromptSet
from workbench.prompts import load as load_prompts
from workbench.prompts.checkrows import canonical_json
from workbench.records import Generation, Score
from workbench.store import RunStore, ScoreRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from workbench.interchange.answer import Answer, Source
    from workbench.interchange.placing import Keyed
    from workbench.plan import Plan

_CHUNK: Final = 1_000
UNKNOWN: Final = "unknown"
"""The model, where neither the caller nor the files name one."""


def import_answers(
    path: str | Path | Sequence[str | Path],
    prompts: Any = None,
    out: str | Path = "results",
    name: str = "imported",
    *,
    model: str = UNKNOWN,
    settings: Mapping[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Make a run directory of answers that another program made.

    Args:
        path: A file or folder, or several. Answers with the same settings, of the same model, are one cell; where there
            are several models, each stands as an adapter.
        prompts: The prompts they answer, as ``workbench.prompts.load`` takes them, joined by id; for an OpenAI batch its
            input file, which has the settings too. None: as the files have them (batch outputs and plain rows have them not).
        out: Where run directories live.
        name: Name of the study; also of the cell, where there is one and the file names none.
        model: What made the answers, for people; by default what the files say.
        settings: Decoding settings, where the files have none. Without them a cell counts as greedy, or as temperature 1
            where a prompt has several answers.
        say: Told, in one sentence each, what the run lacks or leaves out, such as prompts without an answer.

    Returns:
        The run directory, with the scores that the files hold. If it cannot be made whole, there is none.

    Raises:
        PromptSetError: A file or the prompts cannot be used; lists every problem.
        StudyError: The name or the settings cannot be used.
        StoreError: The run cannot be written.
    """
    told = say or (lambda _: None)
    sources = answerfiles.read_all(path)
    for note in (note for source in sources for note in source.notes):
        told(note)
    answers = [answer for source in sources for answer in source.answers]
    if prompts is None:
        answers = _apart(answers)
        made = _own_prompts(sources, answers)
    else:
        made = load_prompts(prompts)
        answers = batchread.with_settings(answers, made)
    problems = [
        f"{a.where}: no prompt {a.prompt_id!r} in {made.name}"
        for a in answers
        if a.prompt_id not in made
    ]
    if problems:
        raise PromptSetError("answers", problems)
    answers, called = placing.by_model(answers, None if model == UNKNOWN else model, told)
    keyed = _numbered(answers)
    where = sources[0].path if len(sources) == 1 else f"{len(sources)} files"
    study, cells = placing.study(
        where, keyed, made, name=name, model=called or UNKNOWN, given=settings or {}, say=told
    )
    plan = study.plan(made)
    ids = placing.cell_ids(where, plan, cells)
    placing.say_what_lacks(answers, made, plan, ids, told)
    manifest = provenance.manifest(
        study, plan, EngineInfo("imported", study.model, extra=_about(sources))
    )
    manifest["scorers"] = _scorers(sources, answers)
    return _write(Path(out) / study.name / manifest["run_id"], manifest, plan, ids, keyed)


def _about(sources: list[Source]) -> dict[str, Any]:
    """Where the answers come from."""
    files = [
        {"file": s.path.name, "sha256": s.sha256, "format": s.form, **s.about} for s in sources
    ]
    return files[0] if len(files) == 1 else {"files": files}


def _scorers(sources: list[Source], answers: list[Answer]) -> list[dict[str, Any]]:
    """The manifest's entries of the scorers whose judgement the files hold; those that gave some value first."""
    versions: dict[str, dict[str, None]] = {}
    for source in sources:
        for scorer, version in source.scorers.items():
            versions.setdefault(scorer, {})[version] = None
    useful = {n for answer in answers for n, s in answer.scores.items() if s.value is not None}
    ordered = sorted(versions, key=lambda scorer: scorer not in useful)
    return [{"name": n, "version": ", ".join(versions[n]), "options": {}} for n in ordered]


def _write(
    folder: Path,
    manifest: Mapping[str, Any],
    plan: Plan,
    ids: Mapping[str, str],
    keyed: Keyed,
) -> Path:
    """The run record, whole or not at all."""
    failed = sum(answer.error is not None for answer in keyed.values())
    new = not folder.exists()
    try:
        with RunStore.create(folder, manifest) as store:
            store.add_plan(plan)
            rows = [_generation(key, ids, answer) for key, answer in keyed.items()]
            scores = [
                list(_scores(row, a, manifest)) for row, a in zip(rows, keyed.values(), strict=True)
            ]
            for n in range(0, len(rows), _CHUNK):
                judged = [score for of_row in scores[n : n + _CHUNK] for score in of_row]
                store.add_generations(rows[n : n + _CHUNK], judged)
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
class _Imported(Generation):
    """An answer whose tokens were counted elsewhere; their ids are not known."""

    n_tokens: int = 0

    @property
    def n_output_tokens(self) -> int:
        """Number of generated tokens; 0 if not known."""
        return self.n_tokens


def _generation(key: tuple[str, str, int], ids: Mapping[str, str], answer: Answer) -> Generation:
    cell, prompt_id, repeat = key
    return _Imported(
        ids[cell],
        prompt_id,
        repeat,
        text=answer.text,
        token_ids=(),
        n_prompt_tokens=answer.n_prompt_tokens,
        finish_reason="error" if answer.error is not None else answer.finish,
        seed=answer.seed,
        prompt=answer.rendered,
        error=answer.error,
        n_tokens=answer.n_output_tokens,
    )


def _scores(row: Generation, answer: Answer, manifest: Mapping[str, Any]) -> Iterator[ScoreRow]:
    """A score of every scorer for every answer; one without a value says why, and a failed answer has none."""
    for entry in manifest["scorers"]:
        score = answer.scores.get(entry["name"], Score(None, reason="not scored where it was made"))
        if answer.error is not None:
            score = Score(None, reason=f"not generated: {answer.error}")
        yield ScoreRow(row.key, entry["name"], entry["version"], score)


def _apart(answers: list[Answer]) -> list[Answer]:
    """The answers with ids that are unique, where they belong to several sets of prompts."""
    if len({answer.task for answer in answers}) < 2:
        return answers
    out = []
    for answer in answers:
        prompt_id = f"{answer.task or 'other'}/{answer.prompt_id}"
        row = None if answer.row is None else {**answer.row, "id": prompt_id}
        out.append(replace(answer, prompt_id=prompt_id, row=row))
    return out


def _numbered(answers: list[Answer]) -> Keyed:
    """The answers by cell, prompt and repeat; draws without a number are counted up."""
    seen: Counter[tuple[str, str]] = Counter()
    keyed: Keyed = {}
    problems = []
    for answer in answers:
        place = (placing.cell_of(answer), answer.prompt_id)
        repeat = seen[place] if answer.repeat is None else answer.repeat
        seen[place] += 1
        key = (*place, repeat)
        if key in keyed:
            problems.append(
                f"{answer.where}: repeat {repeat} of prompt {answer.prompt_id!r} is already at {keyed[key].where}"
            )
        keyed.setdefault(key, answer)
    if problems:
        raise PromptSetError("answers", problems[:20])
    return keyed


def _own_prompts(sources: list[Source], answers: list[Answer]) -> PromptSet:
    rows: dict[str, Mapping[str, Any]] = {}
    worded: dict[tuple[str, str | None], str] = {}
    for answer in answers:
        if answer.row is None:
            raise PromptSetError(
                "answers", f"{sources[0].path}: holds no prompts; name the prompts it answers"
            )
        rows.setdefault(answer.prompt_id, answer.row)
        text = canonical_json({k: v for k, v in answer.row.items() if k != "metadata"})
        if worded.setdefault((answer.prompt_id, answer.template), text) != text:
            raise PromptSetError(
                "answers",
                f"{answer.where}: prompt {answer.prompt_id!r} is worded in two ways; name the prompts it answers",
            )
    task = answers[0].task if len(sources) > 1 else None
    return PromptSet.from_records(rows.values(), task or sources[0].path.stem)
