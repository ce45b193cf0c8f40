"""A hash of what a run record holds, table by table, so that a change of any row can be noticed later."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from workbench.rundir import explained
from workbench.tables import open_database

if TYPE_CHECKING:
    from pathlib import Path

ROWS: Final = {
    "cells": 'SELECT * FROM cells ORDER BY "order"',
    "prompts": 'SELECT * FROM prompts ORDER BY "order"',
    "generations": "SELECT r.prompt, g.cell_id, g.prompt_id, g.repeat, g.seed, g.text, g.token_ids, g.n_prompt_tokens, "
    "g.n_output_tokens, g.finish_reason, g.error, g.batch_rows, g.min_margin FROM generations AS g "
    "LEFT JOIN renderings AS r ON r.digest = g.rendering ORDER BY g.cell_id, g.prompt_id, g.repeat",
    "scores": "SELECT * FROM scores ORDER BY cell_id, prompt_id, repeat, scorer, scorer_version",
    "latency": "SELECT * FROM latency ORDER BY cell_id, prompt_id, repeat, round, warm",
}
"""Table to the query of everything in it, in an order that does not depend on when a row was written."""


class Fingerprint(NamedTuple):
    """Of one table.

    Attributes:
        n_rows: Rows in it.
        sha256: Over every value of every row.
    """

    n_rows: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.n_rows:,} rows, sha256 {self.sha256}"


def of(path: Path) -> dict[str, Fingerprint]:
    """The fingerprint of each table of a run record.

    Args:
        path: A run directory.

    Raises:
        StoreError: The record cannot be read.
    """
    found = {}
    db = open_database(path, write=False)
    try:
        with explained(path):
            for name, query in ROWS.items():
                digest, n = sha256(), 0
                for row in db.execute(query):
                    digest.update(json.dumps(row).encode())
                    digest.update(b"\n")
                    n += 1
                found[name] = Fingerprint(n, digest.hexdigest())
    finally:
        db.close()
    return found
