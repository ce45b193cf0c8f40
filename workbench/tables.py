"""The tables of the run record: their SQL, and their columns as readers see them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import StoreError
from workbench.records import SCHEMA_VERSION
from workbench.rundir import DATABASE, REPAIR, connect, explained, newer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

SETTINGS: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
)
"""Decoding settings that are columns, in order."""

NAMES: Final = (
    "meta",
    "cells",
    "prompts",
    "renderings",
    "generations",
    "scores",
    "latency",
    "failures",
)

SCHEMA: Final = f"""
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO meta VALUES ('schema_version', '{SCHEMA_VERSION}');
CREATE TABLE cells (
    "order" INTEGER NOT NULL, cell_id TEXT PRIMARY KEY, label TEXT NOT NULL, name TEXT, adapter TEXT NOT NULL,
    temperature REAL NOT NULL, top_p REAL, top_k INTEGER, min_p REAL, repetition_penalty REAL,
    frequency_penalty REAL, presence_penalty REAL, max_tokens INTEGER NOT NULL, stop TEXT, is_baseline INTEGER NOT NULL, template TEXT);
CREATE TABLE prompts (
    "order" INTEGER NOT NULL, prompt_id TEXT PRIMARY KEY, "group" TEXT, split TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE renderings (digest BLOB PRIMARY KEY, prompt TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE generations (
    cell_id TEXT NOT NULL, prompt_id TEXT NOT NULL, repeat INTEGER NOT NULL, seed INTEGER, rendering BLOB NOT NULL,
    text TEXT NOT NULL, token_ids TEXT NOT NULL, n_prompt_tokens INTEGER NOT NULL, n_output_tokens INTEGER NOT NULL,
    finish_reason TEXT NOT NULL, error TEXT, batch_rows INTEGER NOT NULL, min_margin REAL,
    PRIMARY KEY (cell_id, prompt_id, repeat));
CREATE TABLE scores (
    cell_id TEXT NOT NULL, prompt_id TEXT NOT NULL, repeat INTEGER NOT NULL,
    scorer TEXT NOT NULL, scorer_version TEXT NOT NULL,
    value REAL, answer TEXT, explanation TEXT NOT NULL, reason TEXT,
    PRIMARY KEY (cell_id, prompt_id, repeat, scorer, scorer_version));
CREATE TABLE latency (
    cell_id TEXT NOT NULL, prompt_id TEXT NOT NULL, repeat INTEGER NOT NULL,
    round INTEGER NOT NULL, block INTEGER NOT NULL, "order" INTEGER NOT NULL, warm INTEGER NOT NULL,
    ttft_ms REAL NOT NULL, tpot_ms REAL, e2el_ms REAL NOT NULL, itl_ms TEXT NOT NULL,
    n_prompt_tokens INTEGER NOT NULL, n_output_tokens INTEGER NOT NULL, tokens_match INTEGER,
    cpu_pressure REAL, load1 REAL, clock_mhz REAL, noisy INTEGER, t_start_utc TEXT NOT NULL,
    stalled_share REAL, others_share REAL,
    PRIMARY KEY (cell_id, prompt_id, repeat, round, warm));
CREATE TABLE failures (
    cell_id TEXT NOT NULL, prompt_id TEXT NOT NULL, repeat INTEGER NOT NULL,
    attempts INTEGER NOT NULL, error TEXT NOT NULL, last_utc TEXT NOT NULL,
    PRIMARY KEY (cell_id, prompt_id, repeat));
"""  # noqa: S608 - a number of ours

_AS_NOW: Final = """
CREATE TEMP VIEW cells AS SELECT *, NULL AS template FROM main.cells;
"""
"""Makes a record of version 1, which had no templates, read like one of today, without changing it."""
_CHUNK_ROWS: Final = 50_000
_JSON_TYPES: Final = ("list<int32>", "list<double>", "list<string>")


@dataclass(frozen=True)
class Table:
    """A table as readers see it.

    Attributes:
        name: Name of its export.
        source: The FROM and ORDER BY part of its query.
        columns: Column name to (SQL expression, Arrow type); the expression is empty for run_id.
    """

    name: str
    source: str
    columns: Mapping[str, tuple[str, str]]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(self.columns)


_RUN: Final = {"run_id": ("", "string")}
_KEY: Final = {"prompt_id": ("t.prompt_id", "string"), "repeat": ("t.repeat", "int64")}
_PLACE: Final = {"group": ('p."group"', "string"), "split": ("p.split", "string")}
_INTEGERS: Final = ("top_k", "max_tokens")
_CELL: Final = {
    "cell_id": ("t.cell_id", "string"),
    "adapter": ("c.adapter", "string"),
} | {name: (f"c.{name}", "int64" if name in _INTEGERS else "double") for name in SETTINGS}
_JOIN: Final = "AS t LEFT JOIN cells AS c USING (cell_id) LEFT JOIN prompts AS p USING (prompt_id)"
_ORDER: Final = 'ORDER BY p."order", c."order", t.repeat'


def _own(**types: str) -> dict[str, tuple[str, str]]:
    return {name: (f't."{name}"', kind) for name, kind in types.items()}


GENERATIONS: Final = Table(
    "generations",
    f"generations {_JOIN} LEFT JOIN renderings AS r ON r.digest = t.rendering {_ORDER}",
    _RUN
    | _CELL
    | {"prompt_id": _KEY["prompt_id"], "group": _PLACE["group"], "repeat": _KEY["repeat"]}
    | {"split": _PLACE["split"]}
    | _own(seed="int64")
    | {"prompt": ("r.prompt", "string")}
    | _own(
        text="string",
        token_ids="list<int32>",  # noqa: S106 - not that kind of token
        n_prompt_tokens="int64",
        n_output_tokens="int64",
        finish_reason="string",
        error="string",
        batch_rows="int64",
    )
    | {"stop": ("c.stop", "list<string>")}
    | _own(min_margin="double")
    | {"template": ("c.template", "string")},
)
SCORES: Final = Table(
    "scores",
    f"scores {_JOIN} {_ORDER}, t.rowid",
    _RUN
    | {"cell_id": _CELL["cell_id"], "adapter": _CELL["adapter"], "prompt_id": _KEY["prompt_id"]}
    | _PLACE
    | {"repeat": _KEY["repeat"]}
    | _own(
        scorer="string",
        scorer_version="string",
        value="double",
        answer="string",
        explanation="string",
        reason="string",
    ),
)
LATENCY: Final = Table(
    "latency",
    'latency AS t ORDER BY t.warm, t."order"',
    _RUN
    | {"cell_id": _CELL["cell_id"]}
    | _KEY
    | _own(
        round="int64",
        block="int64",
        order="int64",
        warm="int64",
        ttft_ms="double",
        tpot_ms="double",
        e2el_ms="double",
        itl_ms="list<double>",
        n_prompt_tokens="int64",
        n_output_tokens="int64",
        tokens_match="int64",
        cpu_pressure="double",
        load1="double",
        clock_mhz="double",
        noisy="int64",
        t_start_utc="string",
        stalled_share="double",
        others_share="double",
    ),
)
CELLS: Final = Table(
    "cells",
    'cells AS t ORDER BY t."order"',
    _own(cell_id="string", label="string", name="string", adapter="string", template="string")
    | {name: (f"t.{name}", kind) for name, (_, kind) in _CELL.items() if name in SETTINGS}
    | _own(stop="list<string>", is_baseline="bool"),
)
FAILURES: Final = Table(
    "failures",
    f"failures {_JOIN} {_ORDER}",
    _RUN
    | {"cell_id": _CELL["cell_id"], "adapter": _CELL["adapter"]}
    | _KEY
    | _own(attempts="int64", error="string", last_utc="string"),
)


def settings(params: Mapping[str, Any]) -> list[Any]:
    """Values of the settings columns of ``cells``, stop texts as JSON last."""
    stop = params["stop"]
    return [*(params[name] for name in SETTINGS), None if stop is None else json.dumps(stop)]


def insert(table: str, n_columns: int, otherwise: str) -> str:
    """The SQL that adds a row to a table, values in the order of its columns.

    Args:
        table: Its name.
        n_columns: Number of its columns.
        otherwise: What to do if the row is there: "IGNORE" or "REPLACE".
    """
    marks = ", ".join("?" * n_columns)
    return f"INSERT OR {otherwise} INTO {table} VALUES ({marks})"  # noqa: S608 - names of ours


def open_database(path: Path, *, write: bool) -> sqlite3.Connection:
    """Connect to the database of a run, bring it up to date, and see that it is a run record.

    Raises:
        StoreError: It is not, or cannot be read or brought up to date.
    """
    with explained(path):
        db = connect(path, "rw" if write else None)
        try:
            if _version(db) < SCHEMA_VERSION:
                if write:
                    _upgrade(db)
                else:
                    db.executescript(_AS_NOW)
            check(db, path)
        except BaseException:
            db.close()
            raise
    return db


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def _upgrade(db: sqlite3.Connection) -> None:
    """What was recorded stays; what an older version did not know is missing.

    Version 1 had no templates.
    """
    db.execute("BEGIN IMMEDIATE")
    if _version(db) == 1:
        db.execute("ALTER TABLE cells ADD COLUMN template TEXT")
        db.execute(f"UPDATE meta SET value = '{SCHEMA_VERSION}' WHERE key = 'schema_version'")  # noqa: S608 - a number of ours
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def check(db: sqlite3.Connection, directory: Path) -> None:
    """See that a database is a run record that this version reads.

    Raises:
        StoreError: It is of a newer version, or a table is missing.
    """
    version = _version(db)
    if version > SCHEMA_VERSION:
        raise newer(directory, version)
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    missing = sorted(set(NAMES) - names)
    if missing:
        raise StoreError(f"{directory}: {DATABASE} is damaged (no table {missing[0]}); {REPAIR}")


def frame(
    db: sqlite3.Connection, table: Table, run_id: str, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a table.

    Args:
        db: The database.
        table: What to read.
        run_id: Value of the run_id column.
        columns: Which columns, in this order; all by default.

    Raises:
        StoreError: There is no such column.
    """
    import pandas as pd  # noqa: PLC0415 - slow to import
    import pyarrow as pa  # noqa: PLC0415

    names = list(table.names) if columns is None else list(columns)
    for name in names:
        if name not in table.columns:
            known = ", ".join(table.names)
            raise StoreError(f"{table.name} has no column {name!r}; it has {known}")
    schema = _schema(table, names)
    out = pa.Table.from_batches(_batches(db, table, run_id, names), schema)
    data: pd.DataFrame = out.to_pandas()
    if "seed" in names:
        data["seed"] = pd.array(out["seed"].to_pylist(), dtype="Int64")
    return data


def write_parquet(db: sqlite3.Connection, table: Table, run_id: str, path: Path) -> None:
    """Write a table to a Parquet file, some rows at a time, replacing the file whole."""
    from pyarrow import parquet  # noqa: PLC0415 - slow to import

    names = list(table.names)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with parquet.ParquetWriter(temporary, _schema(table, names), compression="zstd") as writer:
        for batch in _batches(db, table, run_id, names):
            writer.write_batch(batch)
    temporary.replace(path)


def _schema(table: Table, names: Sequence[str]) -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415

    types = {
        "list<int32>": pa.list_(pa.int32()),
        "list<double>": pa.list_(pa.float64()),
        "list<string>": pa.list_(pa.string()),
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
    }
    return pa.schema([(name, types[table.columns[name][1]]) for name in names])


def _batches(
    db: sqlite3.Connection, table: Table, run_id: str, names: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """The rows of a table as Arrow batches."""
    import pyarrow as pa  # noqa: PLC0415

    schema = _schema(table, names)
    read = [name for name in names if name != "run_id"]
    expressions = ", ".join(table.columns[name][0] for name in read) or "1"
    cursor = db.execute(f"SELECT {expressions} FROM {table.source}")  # noqa: S608 - fixed names only
    while rows := cursor.fetchmany(_CHUNK_ROWS):
        values = dict(zip(read, zip(*rows, strict=True), strict=False))
        arrays = []
        for name in names:
            kind = table.columns[name][1]
            column: Sequence[Any] = [run_id] * len(rows) if name == "run_id" else values[name]
            if kind in _JSON_TYPES:
                column = [None if text is None else json.loads(text) for text in column]
            elif kind == "bool":
                column = [bool(value) for value in column]
            arrays.append(pa.array(column, schema.field(name).type))
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
