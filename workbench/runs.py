"""Reading run directories."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench import runner, wording
from workbench.errors import StoreError, StudyError
from workbench.params import FIELDS, SamplingParams
from workbench.plan import Cell
from workbench.rundir import MANIFEST, is_being_written, read_manifest
from workbench.store import RunStore
from workbench.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from workbench.plan import Plan
    from workbench.prompts import Prompt, PromptSet

PLOT: Final = "plots/quality_latency.png"
SUMMARY: Final = "summary.csv"


class Run:
    """A run directory, read.

    Attributes:
        path: The directory.
        manifest: Where its numbers come from.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest: dict[str, Any] = read_manifest(self.path)

    def __repr__(self) -> str:
        state = f"{self.manifest['n_cells']} cells, {self.manifest['n_rows']:,} rows, {self.manifest['status']}"
        return f"Run({str(self.path)!r}: {state})"

    def _read(self, what: Callable[[RunStore], Any]) -> Any:
        with RunStore.open(self.path) as store:
            return what(store)

    @property
    def id(self) -> str:
        """The run id."""
        return str(self.manifest["run_id"])

    @property
    def status(self) -> str:
        """The manifest's "finished", "failed rows", "interrupted" or "running"; "stopped" if it died while running."""
        return status(self.path, self.manifest)

    @property
    def n_missing(self) -> int:
        """Rows of the plan that were never run."""
        return max(0, int(self.manifest["n_rows"]) - len(self.generations))

    @property
    def unfinished(self) -> str | None:
        """What is missing of the run, in words; None if every row was run."""
        if not self.n_missing:
            return None
        return (
            f"This run is not complete: {self.n_missing:,} of {int(self.manifest['n_rows']):,} rows were not run. "
            "Run the same command again to continue it."
        )

    @cached_property
    def study(self) -> Study:
        """The study as it was declared; prompts that cannot be named here any more are those of the run."""
        import yaml  # noqa: PLC0415 - not needed to read the tables

        values = yaml.safe_load(self.manifest["study"]["text"])
        try:
            return Study.from_dict(values, str(self.path))
        except StudyError:  # given in Python, or a data set that is not here
            recorded = {"prompts": self.prompts, "system": None}  # it is in them
            return Study.from_dict(values | recorded, str(self.path))

    @cached_property
    def prompts(self) -> PromptSet:
        """The prompts, kept in the run."""
        found: PromptSet = self._read(lambda store: store.prompt_set())
        return found

    @cached_property
    def _wordings(self) -> dict[str | None, PromptSet]:
        return wording.word(self.prompts, self.study.templates)

    def prompt(self, cell_id: str, prompt_id: str) -> Prompt:
        """A prompt as a cell worded it.

        Raises:
            KeyError: There is no such cell or prompt.
        """
        template = self._templates[cell_id]
        return (self.prompts if template is None else self._wordings[template])[prompt_id]

    @cached_property
    def _templates(self) -> dict[str, str | None]:
        names = self.cells["template"].astype(object)
        return dict(zip(self.cells["cell_id"], names.where(names.notna(), None), strict=True))

    @property
    def plan(self) -> Plan:
        """The rows of the run."""
        defaults = self.manifest["engine"].get("checkpoint_defaults")
        plan = self.study.replace(system=None).plan(self.prompts, defaults)
        return replace(plan, cells=self.recorded_cells) if self.study.search else plan

    @property
    def recorded_cells(self) -> tuple[Cell, ...]:
        """The cells of the record; of a search the study does not name them."""
        return tuple(_cell(row) for row in self.cells.to_dict("records"))

    @cached_property
    def generations(self) -> pd.DataFrame:
        """One row per answer, failed ones included."""
        table: pd.DataFrame = self._read(lambda store: store.generations())
        return table

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per answer and scorer, by the versions of the scorers that count now."""
        table: pd.DataFrame = self._read(lambda store: store.scores())
        return table

    @cached_property
    def all_scores(self) -> pd.DataFrame:
        """The same with the scores of earlier versions and options."""
        table: pd.DataFrame = self._read(lambda store: store.scores(every_version=True))
        return table

    @cached_property
    def latency(self) -> pd.DataFrame:
        """One row per timed request."""
        table: pd.DataFrame = self._read(lambda store: store.latency())
        return table

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per cell."""
        table: pd.DataFrame = self._read(lambda store: store.cells())
        return table

    @property
    def primary(self) -> str | None:
        """Name of the primary scorer."""
        scorers = self.manifest["scorers"]
        return str(scorers[0]["name"]) if scorers else None

    def summary(self, baseline: str | None = None, *, seed: int = 0) -> pd.DataFrame:
        """One row per cell: quality with its interval, difference from the baseline, latency, what went wrong.

        Args:
            baseline: Cell id or label to compare with; by default the study's.
            seed: Of the bootstrap.

        Where the study holds prompts out (``split``), quality is that of the other prompts; see :meth:`confirmation`.

        Raises:
            StoreError: There is no such cell.
        """
        return self._summary(baseline, seed, "select" if self.holds_out else None)

    def confirmation(self, baseline: str | None = None, *, seed: int = 0) -> pd.DataFrame | None:
        """The summary over the prompts held out; None if the study holds none out."""
        return self._summary(baseline, seed, "confirm") if self.holds_out else None

    @property
    def holds_out(self) -> bool:
        """True if some prompts, and not all, are kept from the choice to confirm it."""
        return self.generations["split"].nunique() == 2

    def _summary(self, baseline: str | None, seed: int, split: str | None) -> pd.DataFrame:
        from workbench import adapternotes, analysis, judges, words  # noqa: PLC0415 - imports pandas

        table = analysis.summary(
            self.generations,
            self.scores,
            self.latency,
            self.cells,
            primary=self.primary,
            baseline=self.cell_id(baseline),
            rng=seed,
            split=split,
            left=words.left_race(self.manifest),
        )
        table.attrs["judge"] = judges.in_words(self.scores, self.manifest)
        table.attrs["adapters"] = adapternotes.notes(self.manifest, self.cells["adapter"])
        return table

    def cell_id(self, name: str | None = None) -> str:
        """The id of a cell, given as an id or a label; of the baseline by default.

        Raises:
            StoreError: There is no such cell.
        """
        if name is None:
            return str(self.manifest["baseline"])
        found = self.cells[(self.cells.cell_id == name) | (self.cells.label == name)]
        if found.empty:
            raise StoreError(f"{self.path}: no cell {name!r}; cells: {', '.join(self.cells.label)}")
        return str(found.cell_id.iloc[0])

    def answer(self, summary: pd.DataFrame | None = None, *, width: int | None = 100) -> str:
        """What the run found, in words; of an unfinished run first that it is one.

        Args:
            summary: The run's summary, if there is one already.
            width: Characters of a line at most (a notebook breaks longer ones within words); None: a line a paragraph.
        """
        from workbench import analysis, settling  # noqa: PLC0415 - imports pandas

        table = self.summary() if summary is None else summary
        confirm = self.confirmation(analysis.baseline_of(table))
        needed = settling.of_summary(self, table, confirm)
        said = analysis.answer_in_words(table, self.cells, confirm=confirm, needed=needed)
        if self.unfinished:
            said = f"{self.unfinished}\n{said}"
        return said if width is None else analysis.broken(said, width)

    def write(self) -> list[Path]:
        """Write the exports: Parquet files, ``summary.csv`` and, once there are latencies, the picture.

        Returns:
            The files written.
        """
        with RunStore.open(self.path) as store:
            files = store.export()
        summary = self.summary()
        summary.to_csv(self.path / SUMMARY, index=False)
        files.append(self.path / SUMMARY)
        if summary["e2el_ms_p50"].notna().any() and summary["quality"].notna().any():
            files.append(self._picture(summary))
        return files

    def _picture(self, summary: pd.DataFrame) -> Path:
        from matplotlib.figure import Figure  # noqa: PLC0415 - heavy

        from workbench import plots  # noqa: PLC0415 - imports matplotlib

        figure = Figure(figsize=(7.5, 5), layout="constrained")
        plots.quality_latency(self, summary=summary, ax=figure.subplots())
        path = self.path / PLOT
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=150)
        return path


def open_run(path: str | Path, out: str | Path = "results") -> Run:
    """Open a run.

    Args:
        path: A run directory, a run id, a study's directory or name (its newest run), or "latest".
        out: Where run ids and "latest" are looked up.

    Raises:
        StoreError: There is no such run.
    """
    place = Path(path)
    if (place / MANIFEST).is_file():
        return Run(place)
    newest = next(runner.runs(place), None) if place.is_dir() else None
    if newest:
        return Run(newest[0])
    listed = all_runs(out)  # by study, newest first
    found = [(m.get("started_utc", ""), d) for d, m in listed]
    if str(path) == "latest" and found:
        return Run(max(found)[1])
    for _, directory in found:
        if directory.name == str(path):
            return Run(directory)
    own = next((d for d, m in listed if m["study"]["name"] == str(path)), None)
    if own is not None:
        return Run(own)
    if place.is_dir():
        raise StoreError(f"{path}: no run in this folder (no {MANIFEST}, and none in its folders)")
    if not found:
        raise StoreError(f"no run {str(path)!r}: there are no runs under {out}")
    raise StoreError(
        f"no run {str(path)!r}; give a run directory or id, or 'latest' for the newest of {len(found)} under {out}"
    )


def all_runs(out: str | Path = "results") -> list[tuple[Path, dict[str, Any]]]:
    """Every run under a directory with its manifest, by study, newest first."""
    studies = sorted(p for p in Path(out).glob("*") if p.is_dir()) if Path(out).is_dir() else []
    return [entry for study in studies for entry in runner.runs(study)]


def status(path: Path, manifest: dict[str, Any]) -> str:
    """What a run is doing: as its manifest says, but "stopped" if it says "running" and no process writes it."""
    said = str(manifest.get("status"))
    return "stopped" if said == "running" and not is_being_written(path) else said


def _cell(row: dict[Any, Any]) -> Cell:
    """A cell from its row of the record, where what is not set is NaN or None."""
    given = {k: v for k, v in row.items() if not (v is None or (isinstance(v, float) and v != v))}  # noqa: PLR0124 - only NaN differs from itself
    whole = {k: int(given[k]) for k in ("top_k", "max_tokens") if k in given}
    params = SamplingParams.from_dict({k: given[k] for k in FIELDS if k in given} | whole)
    return Cell(params, given["adapter"], given.get("name"), given.get("template"), given["label"])
