"""Files of answers made elsewhere: which there are, and what form each is in.

A log of inspect_ai is told by its suffix; in what form a ``.jsonl`` file is, its first row tells: lm-eval's samples, evalscope's
reviews, the output of an OpenAI batch, our own export, or plain rows ``{"id", "text"}``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import PromptSetError
from workbench.interchange import batchread, evalscoperead, inspectread, lmevalread
from workbench.interchange.answer import Answer, Source, bare, judged, valid
from workbench.prompts.checkrows import kind, strict_json
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Found = list[tuple[Mapping[str, Any], Answer]]
"""Rows of a file with their answers."""
EXPORT: Final = "our export"
PLAIN: Final = "plain answers"
KNOWN: Final = (
    "inspect_ai logs (.eval, .json), lm-eval samples (doc_id, resps), evalscope reviews (index, sample_score), "
    "OpenAI batch output (custom_id, response), our JSONL export, or rows with id and text"
)
_PROMPT_KEYS: Final = ("target", "metadata", "group", "tools", "vars")
_MOST_PROBLEMS: Final = 20
_HERE: Final = "*.eval", "*.json", "samples_*.jsonl", "reviews/**/*.jsonl"


def read_all(paths: str | Path | Sequence[str | Path]) -> list[Source]:
    """Read files of answers.

    Args:
        paths: A file or folder, or several; of a folder, the logs, samples and reviews somewhere in it.

    Raises:
        PromptSetError: One cannot be read; lists the problems with their lines.
    """
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    return [_read(file) for path in several for file in _files(Path(path))]


def _files(path: Path) -> list[Path]:
    """The files of answers that a path stands for."""
    if not path.is_dir():
        return [path]
    found = dict.fromkeys(file for pattern in _HERE for file in sorted(path.rglob(pattern)))
    if path.name == "reviews" or path.parent.name == "reviews":
        found |= dict.fromkeys(sorted(path.rglob("*.jsonl")))
    files = [file for file in found if file.suffix != ".json" or _is_log(file)]
    if not files:
        raise PromptSetError(
            "answers", f"{path}: no answers in this folder; what can be read: {KNOWN}"
        )
    return files


def _is_log(path: Path) -> bool:
    try:
        return inspectread.is_log(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return False


def _read(path: Path) -> Source:
    if path.suffix == ".eval" or (path.suffix == ".json" and _is_log(path)):
        return inspectread.read(path)
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        told = f"{path}: not UTF-8 text; what can be read: {KNOWN}"
        raise PromptSetError("answers", told) from error
    except OSError as error:
        raise PromptSetError("answers", f"{path}: cannot be read ({error.strerror})") from error
    form, found, problems = _rows(path, text)
    if not problems and not found:
        problems = [f"{path}: no answers"]
    if problems:
        raise PromptSetError("answers", problems)
    return _source(path, form, hashlib.sha256(data).hexdigest(), found)


def _rows(path: Path, text: str) -> tuple[str, Found, list[str]]:
    """The form of a JSONL file, its rows with their answers, and the problems with their lines."""
    found: Found = []
    problems: list[str] = []
    form = ""
    for n, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = strict_json(line)
            form = form or _form(row)
            found += [(row, answer) for answer in _READERS[form](f"{path}:{n}", row)]
        except ValueError as error:
            told = "" if form or KNOWN in str(error) else f"; what can be read: {KNOWN}"
            problems.append(f"{path}:{n}: {error}{told}")
            if not form:
                break
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            problems.append(f"{path}:{n}: not a row of {form} ({type(error).__name__}: {error})")
        if len(problems) == _MOST_PROBLEMS:
            problems.append("...")
            break
    return form, found, problems


def _source(path: Path, form: str, sha256: str, found: Found) -> Source:
    """A file's answers with what its form keeps beside it."""
    answers: list[Answer] = [answer for _, answer in found]
    about: dict[str, Any] = {}
    notes: list[str] = []
    models = {answer.model for answer in answers} - {None}
    if len(models) == 1:  # a failed line does not name it
        answers = [replace(answer, model=next(iter(models))) for answer in answers]
    if form == lmevalread.FORM:
        answers, about, notes = lmevalread.completed(path, found)
    elif form == evalscoperead.FORM:
        try:
            answers, about, notes = evalscoperead.completed(path, found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PromptSetError("answers", f"{path}: with the files beside it: {error}") from error
    judge = "lm_eval" if form == lmevalread.FORM else "evalscope"
    version = f"{judge} {about.get(judge, 'unknown')}"
    versions = dict.fromkeys((name for answer in answers for name in answer.scores), version)
    if form == EXPORT:
        rows = (row for row, _ in found)
        versions = {
            name: str(score.get("version") or "unknown")
            for row in rows
            for name, score in (row.get("scores") or {}).items()
        }
    return Source(path, form, sha256, answers, versions, about, tuple(notes))


def _form(row: Any) -> str:
    if not isinstance(row, Mapping):
        raise ValueError(f"a row must be an object, got {kind(row)}")  # noqa: TRY004 - one kind of error for a line
    if "resps" in row and "doc_id" in row:
        return lmevalread.FORM
    if "index" in row and "sample_score" in row:
        return evalscoperead.FORM
    if "custom_id" in row and ("response" in row or "error" in row):
        return batchread.FORM
    if "prompt_id" in row and "cell_id" in row and "text" in row:
        return EXPORT
    if "id" in row and "text" in row:
        return PLAIN
    raise ValueError(f"not answers; what can be read: {KNOWN}")


def _export(where: str, row: Mapping[str, Any]) -> Iterator[Answer]:
    own = {"id": row["prompt_id"], "messages": row["messages"]}
    own |= {key: row[key] for key in _PROMPT_KEYS if row.get(key) is not None}
    template, adapter = row.get("template"), row.get("adapter") or BASE
    yield Answer(
        where,
        str(row["prompt_id"]),
        row["text"],
        _repeat(row["repeat"]),
        finish=row.get("finish_reason") or "stop",
        error=row.get("error"),
        cell=str(row["cell_id"]),
        name=str(row.get("name") or bare(row["label"], template, adapter)),
        adapter=adapter,
        template=template,
        split=row.get("split"),
        settings=valid(row["settings"]),
        seed=row.get("seed"),
        n_prompt_tokens=row.get("n_prompt_tokens") or 0,
        n_output_tokens=row.get("n_output_tokens") or 0,
        scores={
            name: judged(
                score["value"], score["answer"], score.get("explanation") or "", score.get("reason")
            )
            for name, score in (row.get("scores") or {}).items()
        },
        rendered=row.get("rendered") or "",
        row=own,
    )


def _plain(where: str, row: Mapping[str, Any]) -> Iterator[Answer]:
    if not isinstance(row["text"], str):
        raise ValueError(f"text must be text, got {kind(row['text'])}")  # noqa: TRY004 - as above
    yield Answer(where, str(row["id"]), row["text"], _repeat(row.get("repeat")))


def _repeat(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"repeat must be a whole number at least 0, got {value!r}")
    return value


_READERS: Final[dict[str, Callable[[str, Any], Iterator[Answer]]]] = {
    lmevalread.FORM: lmevalread.read,
    evalscoperead.FORM: evalscoperead.read,
    batchread.FORM: batchread.read,
    EXPORT: _export,
    PLAIN: _plain,
}
