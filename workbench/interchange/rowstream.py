"""The rows of a run one by one, each with its cell, its prompt and its scores, however many there are.

Files made from them appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from workbench import tables
from workbench.errors import StoreError
from workbench.rundir import explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from workbench.plan import Plan
    from workbench.prompts import Prompt

Waiting = tuple["Path", "Path"]
"""A complete file under its temporary name, and the name it gets."""
CHUNK_ROWS: Final = 2_000
"""Rows held in memory at a time."""
SCORE_COLUMNS: Final = ("value", "answer", "explanation", "reason")
_CELL: Final = ("cell_id", "label", "name", "adapter", "template")
_OWN: Final = ("seed", "text", "n_prompt_tokens", "n_output_tokens", "finish_reason", "error")


class ReadRun(Protocol):
    """What an export needs of a run."""

    path: Path
    manifest: dict[str, Any]

    @property
    def cells(self) -> pd.DataFrame:
        """One row per cell."""
        ...

    @property
    def plan(self) -> Plan:
        """Its rows as they were planned."""
        ...

    def prompt(self, cell_id: str, prompt_id: str) -> Prompt:
        """A prompt as a cell worded it."""
        ...

    def summary(self, baseline: str | None = None, *, seed: int = 0) -> pd.DataFrame:
        """One row per cell."""
        ...


def scorers(run: ReadRun) -> dict[str, str]:
    """Name to version of the scorers whose judgement counts, primary first."""
    return {entry["name"]: entry["version"] for entry in run.manifest["scorers"]}


def rows(run: ReadRun, cell_id: str | None = None) -> Iterator[dict[str, Any]]:
    """Every answer of a run, ordered by prompt, cell and repeat.

    Args:
        run: A run.
        cell_id: Only the answers of this cell.

    Yields:
        ``run_id``, the cell (cell_id, label, name, adapter, template), ``settings`` (those that are set), the place
        (prompt_id, group, split, repeat), the ``Prompt`` as the cell worded it, ``rendered`` (what the model saw),
        seed, text, n_prompt_tokens, n_output_tokens, finish_reason, error, and ``scores``: scorer to value, answer,
        explanation, reason and version, for the scorers that judged it.

    Raises:
        StoreError: The record cannot be read.
    """
    judges = scorers(run)
    settings = (*tables.SETTINGS, "stop")
    query = _query(settings, len(judges), cell_id is not None)
    values = [v for pair in judges.items() for v in pair] + ([] if cell_id is None else [cell_id])
    worded: dict[tuple[str | None, str], Prompt] = {}
    with explained(run.path), contextlib.closing(tables.open_database(run.path, write=False)) as db:
        cursor = db.execute(query, values)
        while chunk := cursor.fetchmany(CHUNK_ROWS):
            worded.clear()
            for found in chunk:
                row = _row(run.manifest["run_id"], settings, list(judges.items()), found)
                key = (row["template"], row["prompt_id"])
                if key not in worded:
                    worded[key] = run.prompt(row["cell_id"], row["prompt_id"])
                yield row | {"prompt": worded[key]}


def _query(settings: Sequence[str], n_judges: int, one_cell: bool) -> str:
    columns = [
        *(f'c."{name}"' for name in (*_CELL, *settings)),
        *("t.prompt_id", 'p."group"', "p.split", "t.repeat", "r.prompt"),
        *(f"t.{name}" for name in _OWN),
    ]
    joins = []
    for n in range(n_judges):
        columns += [f"s{n}.{name}" for name in (*SCORE_COLUMNS, "scorer")]
        joins.append(
            f"LEFT JOIN scores AS s{n} ON s{n}.cell_id = t.cell_id AND s{n}.prompt_id = t.prompt_id "
            f"AND s{n}.repeat = t.repeat AND s{n}.scorer = ? AND s{n}.scorer_version = ?"
        )
    return (
        f"SELECT {', '.join(columns)} FROM generations AS t "  # noqa: S608 - fixed names only
        "JOIN cells AS c ON c.cell_id = t.cell_id JOIN prompts AS p ON p.prompt_id = t.prompt_id "
        f"JOIN renderings AS r ON r.digest = t.rendering {' '.join(joins)} "
        + ("WHERE t.cell_id = ? " if one_cell else "")
        + 'ORDER BY p."order", c."order", t.repeat'
    )


def _row(
    run_id: str, settings: Sequence[str], judges: list[tuple[str, str]], found: Sequence[Any]
) -> dict[str, Any]:
    values = iter(found)
    row: dict[str, Any] = {"run_id": run_id, **{name: next(values) for name in _CELL}}
    chosen = {name: next(values) for name in settings}
    if chosen["stop"] is not None:
        chosen["stop"] = json.loads(chosen["stop"])
    row["settings"] = {name: value for name, value in chosen.items() if value is not None}
    row |= {name: next(values) for name in ("prompt_id", "group", "split", "repeat", "rendered")}
    row |= {name: next(values) for name in _OWN}
    row["scores"] = {}
    for name, version in judges:
        score = {column: next(values) for column in SCORE_COLUMNS}
        if next(values) is not None:
            row["scores"][name] = score | {"version": version}
    return row


@contextlib.contextmanager
def whole(
    path: Path, *, force: bool, mode: str = "w", waiting: list[Waiting] | None = None
) -> Iterator[IO[Any]]:
    """A file that appears under its name once it is complete.

    Args:
        path: Its name; missing folders are made.
        force: Replace a file that is there.
        mode: "w" for text in UTF-8 with bare line feeds, "wb" for bytes.
        waiting: From ``together``: it appears once all files are complete.

    Raises:
        StoreError: There is one already, or it cannot be written.
    """
    refuse(path, force=force)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    if waiting is not None:
        waiting.append((temporary, path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        with temporary.open(mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        if waiting is None:
            _place(temporary, path, force=force)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        if waiting is None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def together(*, force: bool) -> Iterator[list[Waiting]]:
    """Files that appear together, once all are complete; give what this yields to ``whole``.

    Args:
        force: Replace files that are there.

    Raises:
        StoreError: One is there already, or cannot be put in its place.
    """
    waiting: list[Waiting] = []
    try:
        yield waiting
        for temporary, path in waiting:
            try:
                _place(temporary, path, force=force)
            except OSError as error:
                raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        for temporary, path in waiting:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
                path.parent.rmdir()  # only if nothing is in it


def _place(temporary: Path, path: Path, *, force: bool) -> None:
    """Give a complete file its name; without force never one that somebody else took meanwhile."""
    if not force:
        try:
            if _linked(temporary, path):
                return
            path.open("xb").close()
        except FileExistsError:
            refuse(path, force=False)
            raise
    temporary.replace(path)


def _linked(temporary: Path, path: Path) -> bool:
    """Give a file a second name that is free; False where the file system has no links."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def refuse(path: Path, *, force: bool) -> None:
    """Refuse a name that is taken.

    Raises:
        StoreError: There is a file or folder.
    """
    if path.is_dir():
        raise StoreError(f"{path}: is a folder; name a file")
    if path.exists() and not force:
        raise StoreError(f"{path}: there is a file already; choose another name, or force it")


def plain(value: Any) -> str | None:
    """A target or list as one text: texts as they are, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def last_user(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last user message, or of the last message if no user spoke."""
    asked = [m for m in messages if m.get("role") == "user"] or list(messages)
    return str(asked[-1].get("content") or "") if asked else ""
