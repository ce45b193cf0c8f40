"""The Python face of the workbench: load an engine, run a study, read a run.

The commands do what these functions do; a notebook and a terminal give the same results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench import adapters as adapter_files
from workbench import canary, runner
from workbench import latency as latency_pass
from workbench.engines.base import LoadsAdapters
from workbench.errors import AdapterError, ScorerError, StoreError, StudyError
from workbench.judging import Judging, Worded
from workbench.progress import room_for_bars
from workbench.prompts import load as load_prompts
from workbench.provenance import scorer_entry
from workbench.records import BASE
from workbench.rescoring import rescore
from workbench.runs import PLOT, SUMMARY, Run, all_runs, open_run
from workbench.scorers import score_generation
from workbench.scorers.several import get_scorers
from workbench.scorers.together import JudgesTogether, Means
from workbench.store import RunStore
from workbench.study import Study
from workbench.training.overlap import trained_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from workbench.engines.base import Engine
    from workbench.engines.local.engine import LocalEngine
    from workbench.plan import Plan
    from workbench.prompts import Prompt, PromptSet
    from workbench.runner import RunResult

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
    allow_inert: bool = False,
    progress: bool = True,
) -> LocalEngine:
    """Load a model into this process.

    Args:
        model: "demo", a folder with a checkpoint, or a Hugging Face id.
        adapters: LoRA adapters: folders or Hugging Face ids, or name to these; more can be loaded later, see
            ``load_adapter`` of the engine.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        kernel: "auto", "int4", "fp32" or "bf16"; the engine's ``info.kernel_reason`` says what was chosen and why.
        max_rows: Most rows decoded together; by default what pays on the device.
        memory_gib: Memory for keys and values; by default half of what is free after loading.
        allow_inert: Also load adapters that change nothing.
        progress: Show a bar while the demo model is built.

    Raises:
        ModelError: The model cannot be loaded.
        AdapterError: An adapter cannot be used, does not fit the model, or changes nothing.
        EngineError: No such device or kernel, or too little memory.
    """
    from workbench.engines.local.engine import LocalEngine  # noqa: PLC0415 - imports torch
    from workbench.engines.local.loader import load  # noqa: PLC0415 - imports torch

    named = adapters.items() if isinstance(adapters, Mapping) else [(None, a) for a in adapters]
    wanted = [(n, path) for n, path in named if path is not None and str(path) != BASE]
    for _, path in wanted:
        adapter_files.read(path)  # a damaged file is told before a model is loaded
    bars = progress and room_for_bars()
    loaded = load(model, device=device, kernel=kernel, progress=bars)
    engine = LocalEngine(loaded, max_rows=max_rows, memory_gib=memory_gib)
    for name, path in wanted:
        engine.load_adapter(path, name, allow_inert=allow_inert)
    return engine


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
    for path in study.adapter_paths.values():
        if path is not None:
            adapter_files.read(path)  # as above
    return load_engine(study.model_path, progress=progress, **settings)


def engine_of(run: Run, *, progress: bool = True, **changes: Any) -> Engine:
    """The engine that a run used, loaded again with its adapters; see :func:`engine_for`.

    Raises:
        AdapterError: An adapter is gone, or is not what it was.
    """
    # As the run found it: a relative path is one from the study file's folder.
    made = run.manifest["engine"]
    study = run.study.replace(model=made["model"])
    engine = engine_for(study, progress=progress, **changes)
    load_adapters(engine, study)
    now = engine.info.adapters
    for name, digest in made["adapters"].items():
        if now.get(name) != digest:
            engine.close()
            raise AdapterError(
                f"{run.path}: adapter {name!r} was {digest[:12]} in this run, and {study.adapter_paths[name]} is "
                f"{str(now.get(name))[:12]} now"
            )
    return engine


def load_adapters(engine: Engine, study: Study, probe: Sequence[Any] = ()) -> None:
    """See to it that an engine has a study's adapters: load those that are missing.

    Args:
        engine: Keeps what it has.
        study: Its ``adapters`` and ``allow_inert`` count.
        probe: Chats that a new adapter is tried on; by default some of the engine's own.

    Raises:
        AdapterError: One cannot be used, does not fit, changes nothing, or the engine has another one of its name.
    """
    for name, path in study.adapter_paths.items():
        if path is None:
            continue
        if isinstance(engine, LoadsAdapters):
            engine.load_adapter(path, name, allow_inert=study.allow_inert, probe=probe)
        elif name not in engine.info.adapters:
            known = ", ".join([BASE, *engine.info.adapters])
            raise AdapterError(
                f"adapter {name!r} is not loaded, and a {engine.info.engine} engine loads none; it has: {known}"
            )


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
    tell = say or runner.to_stderr
    study = study if isinstance(study, Study) else Study.from_yaml(study)
    if study.search:
        raise StudyError(study.name, "has ranges to search, not cells to run: workbench tune STUDY")
    with prepared(study, engine, limit=limit, progress=progress, say=tell) as ready:
        result = ready.run(out, progress=progress, new=new, say=say)
        judge_alike(Run(result.dir), ready, new_rows=result.n_run > 0, say=tell)
        settings = ready.study.latency
        if latency and settings and result.status != "interrupted":
            time_run(result.dir, ready, progress=progress, say=say, **settings)
    done = Run(result.dir)
    done.write()
    return done


@dataclass(frozen=True, slots=True)
class Ready:
    """A study with all that it needs to run.

    Attributes:
        study: The study.
        plan: Its rows.
        engine: With its adapters loaded and tried.
        scorers: Primary first.
        notes: For the manifest: what adapters were trained on.
    """

    study: Study
    plan: Plan
    engine: Engine
    scorers: list[Any]
    notes: dict[str, Any]

    def run(
        self, out: str | Path, *, notes: Mapping[str, Any] | None = None, **options: Any
    ) -> RunResult:
        """Answer and score the rows; ``notes`` come to those of the manifest, the options are `workbench.runner.run`'s.

        Raises:
            SettingInert: A new run would vary a setting that does nothing.
        """
        entries = {**self.notes, **(notes or {})}
        info = self.engine.info.only({cell.adapter for cell in self.plan.cells})
        there = runner.find_run(self.plan, out, info, entries.get("tuning"))
        if there is None or options.get("new"):
            allowed = self.study.allow_inert
            entries["settings"] = canary.check(
                self.engine, self.plan.cells, allow_inert=allowed, search=self.study.search
            )
        return runner.run(
            self.plan,
            self.engine,
            out,
            scorers=self.scorers,
            score=score_generation,
            later=Judging(self.plan, self.engine, self.scorers, **options),
            notes=entries,
            **options,
        )


@contextlib.contextmanager
def prepared(
    study: Study | str | Path,
    engine: Engine | None,
    *,
    limit: int | None,
    progress: bool,
    say: Callable[[str], None],
) -> Iterator[Ready]:
    """Load all that a study needs; an engine that was loaded for it is closed in the end. As for :func:`run`."""
    study = study if isinstance(study, Study) else Study.from_yaml(study)
    scorers = get_scorers(study.scorers, study.base_dir, study.repeats)
    prompts = load_prompts(study.prompts, study.base_dir)
    if limit is not None:
        prompts = prompts.subset(limit, study.seed)
    own = engine is None
    engine = engine or engine_for(study, progress=progress)
    try:
        plan = study.plan(prompts, engine.info.checkpoint_defaults)
        load_adapters(
            engine, study, [prompt.messages for prompt in _some(prompts) if prompt.messages]
        )
        info = engine.info.only(study.adapters)
        for name, about in info.extra.get("adapters", {}).items():
            if note := adapter_files.mismatch(name, about, info.model, info.weight_hash):
                say(note)
        trained = _trained_on(engine, study, plan)
        if study.split.get("confirm") and len(set(plan.splits.values())) < 2:
            say(f"split: all {len(prompts)} prompts fall on one side; nothing is held out")
        yield Ready(study, plan, engine, list(scorers), {"trained_on": trained})
    finally:
        if own:
            engine.close()


def time_run(
    path: Path,
    ready: Ready,
    *,
    progress: bool,
    say: Callable[[str], None] | None,
    **settings: Any,
) -> None:
    """The latency pass of a run just made; its manifest says so if it is interrupted."""
    timed = time_requests(
        Run(path), ready.engine, plan=ready.plan, progress=progress, say=say, **settings
    )
    if timed.status == "interrupted":
        with RunStore.open(path, write=True) as store:
            store.update_manifest(status=timed.status)


def _some(prompts: PromptSet, n: int = 8) -> list[Prompt]:
    """Some prompts from all over a set."""
    return list(prompts)[:: max(1, len(prompts) // n)][:n]


def _trained_on(engine: Engine, study: Study, plan: Plan) -> dict[str, list[str] | None]:
    """Adapter to the prompts of a plan that it was trained on; None if nothing is known of its training.

    Raises:
        AdapterError: There are some, and the study does not allow it.
    """
    facts = engine.info.extra.get("adapters", {})
    asked = [plan.prompt_set, *plan.wordings.values()]
    found = {
        name: trained_on(facts[name]["path"], facts[name]["sha256"], asked)
        for name in study.adapter_paths
        if name in facts
    }
    for name, ids in found.items():
        if ids and not study.allow_overlap:
            shown = ", ".join(ids[:3]) + (", ..." if ids[3:] else "")
            raise AdapterError(
                f"adapter {name!r} ({facts[name]['path']}) was trained on {len(ids)} of the {len(plan.prompt_set)} "
                f"prompts of this study ({shown}), so its answers to them prove nothing; leave them out, train it "
                "without them, or allow it with allow_overlap: true"
            )
    return found


def judge_alike(run: Run, ready: Ready, *, new_rows: bool, say: Callable[[str], None]) -> None:
    """See to it that one version of a scorer judged all rows of a run that was continued with another one."""
    made = {entry["name"]: entry["version"] for entry in run.manifest["scorers"]}
    for entry in map(scorer_entry, ready.scorers):
        was = made.get(entry["name"])
        if was == entry["version"]:
            continue
        changed = (
            f"{run.path}: scorer {entry['name']} was version {was} and is {entry['version']} now; "
        )
        if new_rows:
            say(f"{changed}all answers are judged again")
            score(run, ready.study.scorers, engine=ready.engine, progress=False, say=say)
            return
        say(f"{changed}`workbench score` judges the answers again")


def score(
    run: Run,
    scorers: Sequence[Any],
    *,
    primary: str | None = None,
    engine: Engine | None = None,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Judge the answers of a run again, without the model; earlier scores stay in the record.

    Args:
        run: A run.
        scorers: Names, ``FILE.py:FUNCTION``, ``{name: options}``, or scorers.
        primary: The scorer that is the primary metric from now on; by default it stays as it is.
        engine: For scorers that need the model, as :func:`engine_of` loads it; it stays open. It must have the weights of
            the run's engine, if these are known.
        progress: Show a progress bar.
        say: Told in one line per scorer what it could not score, if given.

    Returns:
        The run with the new scores, its table and picture written anew.

    Raises:
        ScorerError: No such scorer or option, or one needs the model, or more repeats than the run has.
        StoreError: The engine has other weights, or the record cannot be written.
    """
    from tqdm.auto import tqdm  # noqa: PLC0415 - not needed to import the workbench

    judges = get_scorers(scorers, run.manifest["study"].get("folder"), run.study.repeats)
    names = [s["name"] for s in run.manifest["scorers"]] + [j.name for j in judges]
    if not judges:
        raise ScorerError("name at least one scorer")
    if primary is not None and primary not in names:
        raise ScorerError(
            f"primary must be one of {', '.join(dict.fromkeys(names))}, got {primary!r}"
        )
    means = Means(engine, run.manifest["baseline"])
    together = any(isinstance(judge, JudgesTogether) for judge in judges)
    worded = Worded(run.plan.cells if together else (), run.prompt)
    if engine is not None:
        _same_weights(run, engine)
    total = len(run.generations) * len(judges)
    with tqdm(total=total, unit="row", disable=not (progress and room_for_bars())) as bar:
        done = rescore(run.path, worded, judges, means, primary=primary, on_rows=bar.update)
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
    _same_weights(run, engine)
    cells = settings.pop("cells", None)
    settings["cells"] = [run.cell_id(cell) for cell in cells] if cells else None
    with RunStore.open(run.path, write=True) as store:
        return latency_pass.run(
            plan or run.plan, engine, store, progress=progress, say=say, **settings
        )


def _same_weights(run: Run, engine: Engine) -> None:
    """Refuse an engine that has not the weights a run was made with, unless nobody knows these.

    Raises:
        StoreError: It has others.
    """
    made = run.manifest["engine"]
    if made["engine"] != "imported" and engine.info.weight_hash != made["weight_hash"]:
        raise StoreError(
            f"{run.path}: made with {made['model']}, and the weights of {engine.info.model} are not the same"
        )
