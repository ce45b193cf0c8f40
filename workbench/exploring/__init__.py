"""`explore`: a run in a notebook, to look at and to read, without a model.

The picture and the list show the cells; a click on either (or Tab and Enter) shows the cell's answers beside the
baseline's, one page at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.api import Run, open_run
from workbench.exploring.browse import Browser, Tables
from workbench.exploring.view import View
from workbench.store import RunStore

if TYPE_CHECKING:
    from workbench.comparing.pairs import RunTables

_COLUMNS: Final = (
    "cell_id",
    "prompt_id",
    "group",
    "repeat",
    "split",
    "text",
    "n_output_tokens",
    "finish_reason",
)


def explore(run: Run | RunTables | str | Path, baseline: str | None = None) -> Any:
    """Look through a run in a notebook.

    Args:
        run: A run, its directory, its id, or "latest".
        baseline: Id or label of the cell to compare with first; by default the study's.

    Returns:
        A widget; the last line of a notebook cell shows it.

    Raises:
        StoreError: There is no such run or cell.
    """
    opened = open_run(run) if isinstance(run, str | Path) else run
    first = opened.cell_id(baseline)
    tables = read(opened) if isinstance(opened, Run) else opened
    return View(Browser(tables), first).root


def read(run: Run) -> Tables:
    """The tables of a run without what need not be shown."""
    with RunStore.open(run.path) as store:
        return Tables(
            manifest=run.manifest,
            generations=store.generations(_COLUMNS),
            scores=store.scores(["cell_id", "prompt_id", "repeat", "scorer", "value", "reason"]),
            latency=store.latency(),
            cells=store.cells(),
            prompts=store.prompt_set(),
            primary=run.primary,
            worded=run.prompt,
        )
