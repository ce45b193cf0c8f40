"""The Python face of the workbench: load an engine, run a study, read a run.

The commands do what these functions do; a notebook and a terminal give the same results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench import latency as latency_pass
from workbench import runner
from workbench.errors import AdapterError, ScorerError, StoreError
from workbench.prompts import load as load_prompts
from workbench.provenance import scorer_entry
from workbench.records import BASE
from workbench.rescoring import rescore
from workbench.runs import PLOT, SUMMARY, Run, all_runs, open_run
from workbench.scorers import score_generation
from workbench.scorers.several import get_scorers
from workbench.store import RunStore
from workbench.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from workbench.engines.base import Engine
    from workbench.plan import Plan

__all__ = [
    "PLOT",
    "SUMMARY",
    "Run",
    "all_runs",
    "engine_for",
    "engine_of",
    "load_engine",
    "open_run",
    "run",
    "score",
    "time_requests",
]


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
    scorers = get_scorers(study.scorers, study.base_dir)
    prompts = load_prompts(study.prompts, study.base_dir)
    if limit is not None:
        prompts = prompts.subset(limit, study.seed)
    tell = say or runner.to_stderr
    own = engine is None
    engine = engine or engine_for(study, progress=progress)
    try:
        plan = study.plan(prompts, engine.info.checkpoint_defaults)
        if study.split.get("confirm") and len(set(plan.splits.values())) < 2:
            tell(f"split: all {len(prompts)} prompts fall on one side; nothing is held out")
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
        _judge_alike(Run(result.dir), study, scorers, new_rows=result.n_run > 0, say=tell)
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


def _judge_alike(
    run: Run, study: Study, scorers: Sequence[Any], *, new_rows: bool, say: Callable[[str], None]
) -> None:
    """See to it that one version of a scorer judged all rows of a run that was continued with another one."""
    made = {entry["name"]: entry["version"] for entry in run.manifest["scorers"]}
    for entry in map(scorer_entry, scorers):
        was = made.get(entry["name"])
        if was == entry["version"]:
            continue
        changed = (
            f"{run.path}: scorer {entry['name']} was version {was} and is {entry['version']} now; "
        )
        if new_rows:
            say(f"{changed}all answers are judged again")
            score(run, study.scorers, progress=False, say=say)
            return
        say(f"{changed}`workbench score` judges the answers again")


def score(
    run: Run,
    scorers: Sequence[Any],
    *,
    primary: str | None = None,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Judge the answers of a run again, without the model; earlier scores stay in the record.

    Args:
        run: A run.
        scorers: Names, ``FILE.py:FUNCTION``, ``{name: options}``, or scorers.
        primary: The scorer that is the primary metric from now on; by default it stays as it is.
        progress: Show a progress bar.
        say: Told in one line per scorer what it could not score, if given.

    Returns:
        The run with the new scores, its table and picture written anew.

    Raises:
        ScorerError: No such scorer or option.
        StoreError: The record cannot be written.
    """
    from tqdm.auto import tqdm  # noqa: PLC0415 - not needed to import the workbench

    judges = get_scorers(scorers, run.manifest["study"].get("folder"))
    names = [s["name"] for s in run.manifest["scorers"]] + [j.name for j in judges]
    if not judges:
        raise ScorerError("name at least one scorer")
    if primary is not None and primary not in names:
        raise ScorerError(
            f"primary must be one of {', '.join(dict.fromkeys(names))}, got {primary!r}"
        )
    with tqdm(total=len(run.generations), unit="row", disable=not progress) as bar:
        done = rescore(run.path, run.prompt, judges, primary=primary, on_rows=bar.update)
    for name, n in done.unscored.items() if say is not None else ():
        assert say is not None
        say(f"{name}: {n:,} of {done.n_rows:,} answers have no score ({done.reasons[name]})")
    scored = Run(run.path)
    scored.write()
    return scored


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
