"""Answers made elsewhere as a run, to be scored, compared and reported on like any other.

Read, told apart by what their rows hold: lm-eval's samples, the output of an OpenAI batch, our own JSONL export, and plain
rows ``{"id", "text"}``. What such a file does not say stays unknown: timing, token ids (so answer lengths in tokens are 0),
and settings, where it is silent and none are given.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from workbench import provenance
from workbench.engines.base import EngineInfo
from workbench.errors import ParamError, PromptSetError
from workbench.params import FIELDS, SamplingParams
from workbench.promptrows import canonical_json, kind, strict_json
from workbench.prompts import PromptSet
from workbench.prompts import load as load_prompts
from workbench.records import Generation
from workbench.store import RunStore
from workbench.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workbench.records import FinishReason

_LM_EVAL: Final = {"max_gen_toks": "max_tokens", "until": "stop"}
_FINISH: Final[dict[Any, FinishReason]] = {"length": "length", "tool_calls": "tool_calls"}
_CHUNK: Final = 1_000


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as a file has it.

    Attributes:
        line: Where it stands, from 1.
        prompt_id: Which prompt it answers.
        repeat: Which draw it is, or None: the next one.
        text: The answer.
        finish: Why it ended.
        error: Why there is none.
        cell: Name of the cell it belongs to, or None.
        settings: Decoding settings, as far as the file says.
        rendered: The prompt as the model saw it, if the file says.
        row: The prompt as a row, if the file has it.
    """

    line: int
    prompt_id: str
    text: str = ""
    repeat: int | None = None
    finish: FinishReason = "stop"
    error: str | None = None
    cell: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    rendered: str = ""
    row: Mapping[str, Any] | None = None


def import_answers(
    path: str | Path,
    prompts: Any = None,
    out: str | Path = "results",
    name: str = "imported",
    *,
    model: str = "unknown",
    settings: Mapping[str, Any] | None = None,
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

    Returns:
        The run directory; nothing in it is scored yet.

    Raises:
        PromptSetError: The file or the prompts cannot be used; lists every problem.
        StudyError: The name or the settings cannot be used.
        StoreError: The run cannot be written.
    """
    source = Path(path)
    data, answers, form = _answers(source)
    made = _own_prompts(source, answers) if prompts is None else load_prompts(prompts)
    problems = [
        f"{source}:{a.line}: no prompt {a.prompt_id!r} in {made.name}"
        for a in answers
        if a.prompt_id not in made
    ]
    if problems:
        raise PromptSetError("answers", problems)
    keyed = _numbered(source, answers, name)
    grid = _grid(keyed, settings or {})
    repeats = max(repeat for _, _, repeat in keyed) + 1
    study = Study(name=name, model=model, prompts=made, grid=grid, repeats=repeats, latency=None)
    plan = study.plan(made)
    ids = {cell.name: cell.cell_id for cell in plan.cells}
    ids |= {merged.dropped.name: merged.kept.cell_id for merged in plan.collapsed}
    if len(set(ids.values())) < len(grid):
        raise PromptSetError(
            "answers", f"{source}: several cells have equal settings; import them one by one"
        )
    about = {"file": source.name, "sha256": hashlib.sha256(data).hexdigest(), "format": form}
    manifest = provenance.manifest(study, plan, EngineInfo("imported", model, extra=about))
    failed = sum(a.error is not None for a in answers)
    with RunStore.create(Path(out) / study.name / manifest["run_id"], manifest) as store:
        store.add_plan(plan)
        rows = [_generation(key, ids, answer) for key, answer in keyed.items()]
        for start in range(0, len(rows), _CHUNK):
            store.add_generations(rows[start : start + _CHUNK])
        store.update_manifest(
            status="failed rows" if failed else "finished",
            ended_utc=provenance.now_utc(),
            n_rows=len(rows),
        )
        return store.dir


def _generation(
    key: tuple[str, str, int], ids: Mapping[str | None, str], answer: Answer
) -> Generation:
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


def _grid(keyed: Mapping[tuple[str, str, int], Answer], given: Mapping[str, Any]) -> dict[str, Any]:
    """Cell name to settings."""
    grid: dict[str, dict[str, Any]] = {}
    several = {cell for cell, _, repeat in keyed if repeat > 0}
    for (cell, _, _), answer in keyed.items():
        if cell not in grid:
            known = dict(answer.settings) or dict(given)
            grid[cell] = {"temperature": 1.0 if cell in several else 0.0} | known
    return grid


def _own_prompts(path: Path, answers: list[Answer]) -> PromptSet:
    rows: dict[str, Mapping[str, Any]] = {}
    for answer in answers:
        if answer.row is None:
            raise PromptSetError(
                "answers", f"{path}: holds no prompts; name the prompts it answers"
            )
        rows.setdefault(answer.prompt_id, answer.row)
        if canonical_json(rows[answer.prompt_id]) != canonical_json(answer.row):
            raise PromptSetError(
                "answers",
                f"{path}:{answer.line}: prompt {answer.prompt_id!r} is worded in two ways; name the prompts it answers",
            )
    return PromptSet.from_records(rows.values(), path.stem)


def _answers(path: Path) -> tuple[bytes, list[Answer], str]:
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptSetError("answers", f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise PromptSetError("answers", f"{path}: cannot be read ({error.strerror})") from error
    answers: list[Answer] = []
    problems: list[str] = []
    form = ""
    for n, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = strict_json(line)
            form = form or _form(row)
            answers += _READERS[form](n, row)
        except ValueError as error:
            problems.append(f"{path}:{n}: {error}")
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            problems.append(f"{path}:{n}: not a row of {form} ({type(error).__name__}: {error})")
    if not problems and not answers:
        problems = [f"{path}: no answers"]
    if problems:
        raise PromptSetError("answers", problems)
    return data, answers, form


def _form(
    row: Any,
) -> Literal["lm-eval samples", "an OpenAI batch output", "our export", "plain answers"]:
    if not isinstance(row, Mapping):
        raise ValueError(f"a row must be an object, got {kind(row)}")  # noqa: TRY004 - one kind of error for a line
    if "resps" in row and "doc_id" in row:
        return "lm-eval samples"
    if "custom_id" in row and ("response" in row or "error" in row):
        return "an OpenAI batch output"
    if "prompt_id" in row and "cell_id" in row and "text" in row:
        return "our export"
    if "id" in row and "text" in row:
        return "plain answers"
    raise ValueError(
        "not answers that can be read: lm-eval samples (doc_id, resps), OpenAI batch output (custom_id, response), "
        "our JSONL export, or rows with id and text"
    )


def _lm_eval(line: int, row: Mapping[str, Any]) -> Iterator[Answer]:
    doc = row["doc"] if isinstance(row["doc"], Mapping) else {}
    prompt_id = str(doc.get("id", row["doc_id"]))
    (request,) = row["arguments"].values()
    rendered, asked = str(request["arg_0"]), request.get("arg_1") or {}
    settings = _valid({_LM_EVAL.get(name, name): value for name, value in asked.items()})
    if asked.get("do_sample") is False:
        settings["temperature"] = 0.0
    own = {"id": prompt_id, "messages": doc["messages"]} if "messages" in doc else None
    own = own or {"id": prompt_id, "prompt": rendered}
    target = doc["target"] if "messages" in doc and "target" in doc else row.get("target")
    own |= {} if target in (None, "") else {"target": target}
    own |= {key: doc[key] for key in ("metadata", "group") if "messages" in doc and key in doc}
    for repeat, text in enumerate(row["resps"][0]):
        yield Answer(
            line, prompt_id, str(text), repeat, settings=settings, rendered=rendered, row=own
        )


def _batch(line: int, row: Mapping[str, Any]) -> Iterator[Answer]:
    prompt_id, response = str(row["custom_id"]), row.get("response") or {}
    body = response.get("body") or {}
    if row.get("error") or response.get("status_code", 200) != 200 or "choices" not in body:
        error = row.get("error") or body.get("error") or {"message": "no answer in this row"}
        said = error.get("message", error) if isinstance(error, Mapping) else error
        yield Answer(line, prompt_id, error=str(said))
        return
    for choice in body["choices"]:
        text = choice["message"].get("content") if "message" in choice else choice["text"]
        finish = choice.get("finish_reason") or "stop"
        if finish == "content_filter":
            yield Answer(line, prompt_id, error="withheld by a content filter")
        else:
            yield Answer(line, prompt_id, text or "", finish=_FINISH.get(finish, "stop"))


def _export(line: int, row: Mapping[str, Any]) -> Iterator[Answer]:
    error = row.get("error")
    own = {"id": row["prompt_id"], "messages": row["messages"]}
    own |= {key: row[key] for key in ("target", "metadata", "group") if row.get(key) is not None}
    yield Answer(
        line,
        str(row["prompt_id"]),
        row["text"],
        _repeat(row["repeat"]),
        finish=row.get("finish_reason") or "stop",
        error=error,
        cell=str(row.get("name") or row["label"]),
        settings=_valid(row["settings"]),
        rendered=row.get("rendered") or "",
        row=own,
    )


def _plain(line: int, row: Mapping[str, Any]) -> Iterator[Answer]:
    if not isinstance(row["text"], str):
        raise ValueError(f"text must be text, got {kind(row['text'])}")  # noqa: TRY004 - as above
    yield Answer(line, str(row["id"]), row["text"], _repeat(row.get("repeat")))


def _repeat(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"repeat must be a whole number at least 0, got {value!r}")
    return value


_READERS: Final[dict[str, Callable[[int, Any], Iterator[Answer]]]] = {
    "lm-eval samples": _lm_eval,
    "an OpenAI batch output": _batch,
    "our export": _export,
    "plain answers": _plain,
}


def _valid(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings we have too; one that we do not allow is left out."""
    out = {}
    for name, value in settings.items():
        if name in FIELDS and value is not None and name != "seed":
            try:
                SamplingParams(**{name: value})
            except ParamError:
                continue
            out[name] = value
    return out
