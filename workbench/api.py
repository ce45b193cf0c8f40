"""The Python face of the workbench: load an engine, run a study, read a run.

The commands do what these functions do; a notebook and a terminal give the same results.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench import latency as latency_pass
from workbench import runner
from workbench.errors import AdapterError, StoreError
from workbench.prompts import load as load_prompts
from workbench.records import BASE
from workbench.rundir import MANIFEST, read_manifest
from workbench.scorers import get_scorer, score_generation
from workbench.store import RunStore
from workbench.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from workbench.engines.base import Engine
    from workbench.plan import Plan
    from workbench.prompts import PromptSet

PLOT: Final = "plots/quality_latency.png"
SUMMARY: Final = "summary.csv"


def load_engine(
    model: str | Path = "demo",
    adapters: Sequence[str | Path] | Mapping[str, str | Path | None] = (),
    device: str = "auto",
    kernel: str = "auto",
    *,
    max_rows: int | None = None,
    memory_gib: float | None = None,
    progress: bool = True,
) -> Engine:
    """Load a model into this process.

    Args:
        model: "demo", a folder with a checkpoint, or a Hugging Face id.
        adapters: LoRA adapters; none can be loaded yet.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        kernel: "auto", "int4", "fp32" or "bf16"; the engine's ``info.kernel_reason`` says what was chosen and why.
        max_rows: Most rows decoded together; by default what pays on the device.
        memory_gib: Memory for keys and values; by default half of what is free after loading.
        progress: Show a bar while the demo model is built.

    Raises:
        ModelError: The model cannot be loaded.
        AdapterError: An adapter was named.
        EngineError: No such device or kernel, or too little memory.
    """
    named = [str(a) for a in adapters if str(a) != BASE]
    if named:
        raise AdapterError(
            f"adapters cannot be loaded yet ({', '.join(named)}); run the base model alone"
        )
    from workbench.engines.local.engine import LocalEngine  # noqa: PLC0415 - imports torch
    from workbench.engines.local.loader import load  # noqa: PLC0415 - imports torch

    loaded = load(model, device=device, kernel=kernel, progress=progress)
    return LocalEngine(loaded, max_rows=max_rows, memory_gib=memory_gib)


def engine_for(study: Study, *, progress: bool = True, **changes: Any) -> Engine:
    """The engine a study declares.

    Args:
        study: Its model, adapters and ``engine`` block count.
        progress: As in :func:`load_engine`.
        changes: Take the place of entries of the ``engine`` block (kind, device, kernel, ...) unless None.
    """
    settings = dict(study.engine) | {k: v for k, v in changes.items() if v is not None}
    if settings.pop("kind", "local") == "scripted":
        from workbench.engines.scripted import ScriptedEngine  # noqa: PLC0415 - not needed otherwise

        return ScriptedEngine(adapters=tuple(a for a in study.adapters if a != BASE))
    return load_engine(study.model_path, study.adapter_paths, progress=progress, **settings)


def engine_of(run: Run, *, progress: bool = True, **changes: Any) -> Engine:
    """The engine that a run used, loaded again; see :func:`engine_for`."""
    # As the run found it: a relative path is one from the study file's folder.
    model = run.manifest["engine"]["model"]
    return engine_for(run.study.replace(model=model), progress=progress, **changes)


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

    @cached_property
    def study(self) -> Study:
        """The study as it was declared; prompts that were given in Python are those of the run."""
        import yaml  # noqa: PLC0415 - not needed to read the tables

        values = yaml.safe_load(self.manifest["study"]["text"])
        if isinstance(values["prompts"], dict):
            values |= {"prompts": self.prompts, "system": None}  # it is in them
        return Study.from_dict(values, str(self.path))

    @cached_property
    def prompts(self) -> PromptSet:
        """The prompts, kept in the run."""
        found: PromptSet = self._read(lambda store: store.prompt_set())
        return found

    @property
    def plan(self) -> Plan:
        """The rows of the run."""
        defaults = self.manifest["engine"].get("checkpoint_defaults")
        return self.study.replace(system=None).plan(self.prompts, defaults)

    @cached_property
    def generations(self) -> pd.DataFrame:
        """One row per answer, failed ones included."""
        table: pd.DataFrame = self._read(lambda store: store.generations())
        return table

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per answer and scorer."""
        table: pd.DataFrame = self._read(lambda store: store.scores())
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
        from workbench import analysis  # noqa: PLC0415 - imports pandas

        return analysis.summary(
            self.generations,
            self.scores,
            self.latency,
            self.cells,
            primary=self.primary,
            baseline=self.cell_id(baseline),
            rng=seed,
            split=split,
        )

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

    def answer(self, summary: pd.DataFrame | None = None) -> str:
        """What the run found, in words."""
        from workbench import analysis  # noqa: PLC0415 - imports pandas

        table = self.summary() if summary is None else summary
        return analysis.answer_in_words(table, self.cells, confirm=self.confirmation())

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
        path: A run directory, a study's directory (its newest run), a run id, or "latest".
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
    found = [(m.get("started_utc", ""), d) for d, m in all_runs(out)]
    if str(path) == "latest" and found:
        return Run(max(found)[1])
    for _, directory in found:
        if directory.name == str(path):
            return Run(directory)
    if not found:
        raise StoreError(f"no run {str(path)!r}: there are no runs under {out}")
    raise StoreError(
        f"no run {str(path)!r}; give a run directory or id, or 'latest' for the newest of {len(found)} under {out}"
    )


def all_runs(out: str | Path = "results") -> list[tuple[Path, dict[str, Any]]]:
    """Every run under a directory with its manifest, by study, newest first."""
    studies = sorted(p for p in Path(out).glob("*") if p.is_dir()) if Path(out).is_dir() else []
    return [entry for study in studies for entry in runner.runs(study)]


def run(
    study: Study | str | Path,
    engine: Engine | None = None,
    out: str | Path = "results",
    *,
    new: bool = False,
    limit: int | None = None,
    latency: bool = True,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Run a study: answer, score, time, and write the exports. Continues an unfinished run, repeats no finished one.

    Args:
        study: A study, or the path of a study file.
        engine: Engine to use; it stays open. By default the one the study declares.
        out: Where run directories live.
        new: Start another run even if there is one of this study.
        limit: Only so many of the prompts, drawn by the study's seed.
        latency: Time requests if the study says so.
        progress: Show progress bars.
        say: Told in one line what is going on; to standard error by default.

    Returns:
        The run; ``manifest["status"]`` is "finished", "failed rows" or "interrupted".

    Raises:
        StudyError, PromptSetError, ModelError, EngineError, StoreError, ScorerError: With what to do about it.
    """
    study = study if isinstance(study, Study) else Study.from_yaml(study)
    scorers = [get_scorer(s) for s in study.scorers]
    prompts = load_prompts(study.prompts, study.base_dir)
    if limit is not None:
        prompts = prompts.subset(limit, study.seed)
    own = engine is None
    engine = engine or engine_for(study, progress=progress)
    try:
        plan = study.plan(prompts, engine.info.checkpoint_defaults)
        if study.split.get("confirm") and len(set(plan.splits.values())) < 2 and say is not None:
            say(f"split: all {len(prompts)} prompts fall on one side; nothing is held out")
        result = runner.run(
            plan,
            engine,
            out,
            scorers=scorers,
            score=score_generation,
            progress=progress,
            new=new,
            say=say,
        )
        if latency and study.latency and result.status != "interrupted":
            timed = time_requests(
                Run(result.dir), engine, plan=plan, progress=progress, say=say, **study.latency
            )
            if timed.status == "interrupted":
                with RunStore.open(result.dir, write=True) as store:
                    store.update_manifest(status=timed.status)
    finally:
        if own:
            engine.close()
    done = Run(result.dir)
    done.write()
    return done


def time_requests(
    run: Run,
    engine: Engine,
    *,
    plan: Plan | None = None,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> latency_pass.LatencyResult:
    """Time some of a run's requests one at a time.

    Args:
        run: A run.
        engine: Must have the weights of the run's engine.
        plan: Of the run, if it is at hand.
        progress: Show a progress bar.
        say: Told in one line how it ended, if given.
        settings: As in :func:`workbench.latency.run`; ``cells`` may be labels too.

    Raises:
        StoreError: The engine has other weights, there is no such cell, or the record cannot be written.
    """
    made = run.manifest["engine"]
    if engine.info.weight_hash != made["weight_hash"]:
        raise StoreError(
            f"{run.path}: made with {made['model']}, and the weights of {engine.info.model} are not the same"
        )
    cells = settings.pop("cells", None)
    settings["cells"] = [run.cell_id(cell) for cell in cells] if cells else None
    with RunStore.open(run.path, write=True) as store:
        return latency_pass.run(
            plan or run.plan, engine, store, progress=progress, say=say, **settings
        )
