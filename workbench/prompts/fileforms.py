"""Rows out of prompt files: JSONL and CSV, with a map for columns of other names.

Everything here returns what it found together with what was wrong, so that a caller can list all problems of all files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import unknown
from workbench.prompts.checkrows import (
    ROW_KEYS,
    TEXT_KEYS,
    Row,
    Unreadable,
    check_rows,
    strict_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

Fields = Mapping[str, Any]
"""Our field to a column's name; for ``vars`` and ``metadata`` also a list of columns, or new name to column."""
Read = tuple[list[tuple[str, Row]], list[str]]
"""Rows with their ``file:line``, and the problems, each with its own."""

_JSON_FIELDS: Final = ("messages", "metadata", "tools", "vars")
_TUNING_KEYS: Final = frozenset(("messages", "tools", "parallel_tool_calls"))
_ABSENT: Final = object()


def read(path: Path, fields: Fields | None = None) -> Read:
    """Rows of a JSONL, CSV or TSV file.

    Args:
        path: What it holds is told by its suffix.
        fields: Columns by other names; columns not named are then left out.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [], [f"{path}:{_not_utf8(error)}"]
    except OSError as error:
        return [], [f"{path}: cannot be read ({error.strerror})"]
    if path.suffix.lower() in (".csv", ".tsv"):
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        rows = list(_csv_rows(text, fields, delimiter))
    else:
        rows = list(_jsonl_rows(text))
        if fields:
            seen = [row for _, row in rows if isinstance(row, Mapping)]
            problems = missing(fields, seen)
            if seen and problems:
                return [], [f"{path}: {problem}" for problem in problems]
            rows = [(n, renamed(r, fields) if isinstance(r, Mapping) else r) for n, r in rows]
        if rows and all(_is_tuning(row) for _, row in rows):
            rows = [(n, from_tuning(row)) for n, row in rows]
    found, wrong = check_rows((f"{path}:{n}", row) for n, row in rows)
    if not found and not wrong:
        return [], [f"{path}: no prompts"]
    return found, [f"{place}: {problem}" for place, problem in wrong]


def _not_utf8(error: UnicodeDecodeError) -> str:
    """Where a file stops being UTF-8, and what to do about it."""
    data = error.object
    line = data[: error.start].count(b"\n") + 1
    guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "Windows-1252 or Latin-1"
    return (
        f"{line}: not UTF-8 text (byte {data[error.start]:#04x}), perhaps {guess}; save it as UTF-8 "
        '(in a spreadsheet: "CSV UTF-8")'
    )


def columns(fields: Fields) -> list[str]:
    """The columns a field map asks for."""
    asked: list[str] = []
    for theirs in fields.values():
        if isinstance(theirs, Mapping):
            asked += theirs.values()
        else:
            asked += [theirs] if isinstance(theirs, str) else theirs
    return list(dict.fromkeys(asked))


def missing(fields: Fields, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong with a field map for these rows: columns that no row has."""
    rows = list(rows)
    names = list(dict.fromkeys(str(key) for row in rows for key in row))
    lost = [c for c in columns(fields) if all(_pick(row, c) is _ABSENT for row in rows)]
    return [f"no column {column!r}; there are: {', '.join(names)}" for column in lost]


def renamed(
    row: Mapping[str, Any], fields: Fields, decode: Callable[[str, Any], Any] | None = None
) -> dict[str, Any]:
    """A row with our names; what is absent or null is left out.

    Args:
        row: As it was read. A column ``a.b`` is ``b`` inside the object ``a``, unless there is a column of that name.
        fields: The map.
        decode: Told our name and a value, gives the value as it should be.
    """
    out: dict[str, Any] = {}
    for ours, theirs in fields.items():
        if isinstance(theirs, str):
            value = _pick(row, theirs)
            if value is not _ABSENT and value is not None:
                out[ours] = decode(ours, value) if decode is not None else value
            continue
        pairs = theirs if isinstance(theirs, Mapping) else {column: column for column in theirs}
        values = {name: _pick(row, column) for name, column in pairs.items()}
        out[ours] = {k: v for k, v in values.items() if v is not _ABSENT and v is not None}
    return out


def _pick(row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def _is_tuning(row: Any) -> bool:
    """True for a row as a fine-tuning file has them: ``messages`` and at most ``tools``, the last said by the assistant."""
    return isinstance(row, Mapping) and row.keys() <= _TUNING_KEYS and _last_said(row) is not None


def _last_said(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The assistant's message at the end of a row's messages."""
    messages = row.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return last if isinstance(last, Mapping) and last.get("role") == "assistant" else None


def from_tuning(row: Any) -> Any:
    """A conversation as a prompt: its last message, if the assistant's, becomes the target, unless the row has one.

    One of weight 0 is no target: it stays, and the row's metadata say ``answer_weight: 0``.
    """
    if not isinstance(row, Mapping) or row.get("target", _ABSENT) is not _ABSENT:
        return row
    last = _last_said(row)
    if last is None:
        return row
    messages = row["messages"]
    plain = {key: value for key, value in row.items() if key != "parallel_tool_calls"}
    kept = [
        {k: v for k, v in m.items() if k != "weight"} if isinstance(m, Mapping) else m
        for m in messages
    ]
    if last.get("weight", 1) == 0:
        metadata = row.get("metadata") or {}
        if isinstance(metadata, Mapping):  # it is checked later
            metadata = {**metadata, "answer_weight": 0}
        return plain | {"messages": kept, "metadata": metadata}
    return plain | {"messages": kept[:-1], "target": said_by(last)}


def said_by(message: Mapping[str, Any]) -> Any:
    """What an assistant's message says, or the tools it calls: ``{name, arguments}``, or a list of these."""
    calls = message.get("tool_calls")
    if not calls or not isinstance(calls, list):
        return message.get("content")
    made = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, Mapping) else call
        if not isinstance(function, Mapping):
            return calls
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = strict_json(arguments)
            except ValueError:
                return calls
        made.append({"name": function.get("name"), "arguments": arguments})
    return made[0] if len(made) == 1 else made


def _jsonl_rows(text: str) -> Iterator[tuple[int, Any]]:
    for n, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = strict_json(line)
            except ValueError as error:
                row = Unreadable(str(error))
            # A line that is only a text is no row; in a list made in Python it would be a prompt.
            yield (
                n,
                Unreadable("a row must be an object, got a text") if isinstance(row, str) else row,
            )


def _csv_rows(text: str, fields: Fields | None, delimiter: str) -> Iterator[tuple[int, Any]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    header: list[str] | None = None
    start = 1
    try:
        for values in reader:
            n, start = start, reader.line_num + 1
            if not any(value.strip() for value in values):
                continue
            if header is None:
                header = [value.strip() for value in values]
                wrong = _header_problems(header, fields)
                yield from ((n, Unreadable(problem)) for problem in wrong)
                if wrong:
                    return
            elif len(values) != len(header):
                yield n, Unreadable(f"{len(values)} values for {len(header)} columns")
            else:
                yield n, _csv_row(dict(zip(header, values, strict=True)), fields)
    except csv.Error as error:
        yield max(start, reader.line_num), Unreadable(f"not CSV: {error}")


def _header_problems(header: list[str], fields: Fields | None) -> list[str]:
    if fields:
        asked = columns(fields)
        wrong = missing(fields, [dict.fromkeys(header, "")])
        twice = [c for c in dict.fromkeys(header) if header.count(c) > 1 and c in asked]
    else:
        separator = next((c for c in ";\t|," if len(header) == 1 and c in header[0]), None)
        if separator is not None:
            named = "a tab" if separator == "\t" else repr(separator)
            right = "commas (.csv) or tabs (.tsv)"
            return [f"columns are separated by {named}; separate them by {right}"]
        wrong = [unknown("column", c, ROW_KEYS) for c in header if c not in ROW_KEYS]
        if any("did you mean" not in problem for problem in wrong):
            own = next((c for c in (*TEXT_KEYS, *header) if c in header and c != "id"), header[0])
            wrong[-1] += (
                f"; columns of other names need a map, and those not in it are left out: fields: {{prompt: {own}, ...}} "
                f"in a study, --field prompt={own} ... in workbench import"
            )
        twice = [c for c in dict.fromkeys(header) if header.count(c) > 1]
    return wrong + [f"column {c!r} occurs twice" for c in twice]


def _csv_row(values: dict[str, str], fields: Fields | None) -> dict[str, Any] | Unreadable:
    row = {key: value for key, value in values.items() if value != ""}
    same = {key: key for key in row if key in ROW_KEYS}
    try:
        return renamed(row, fields or same, _decoded)
    except ValueError as error:
        return Unreadable(str(error))


def _decoded(field: str, value: str) -> Any:
    if field not in _JSON_FIELDS:
        return value
    try:
        return strict_json(value)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
