"""The study of a run, run again as it was: same prompts, same adapters, same weights, or a word about what is not."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from workbench import adapters as adapter_files
from workbench import api, runner
from workbench.errors import AdapterError, PromptSetError, StoreError
from workbench.prompts import PromptSet
from workbench.prompts import load as load_prompts
from workbench.records import BASE
from workbench.reproducing import sameness
from workbench.runs import Run, open_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from workbench.engines.base import Engine
    from workbench.study import Study


def rerun(
    run: Run | str | Path,
    engine: Engine | None = None,
    out: str | Path = "results",
    *,
    allow_changed: bool = False,
    latency: bool = True,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Run a run's study again, as another run; its manifest names the first one (``rerun_of``).

    Prompt files and adapters are looked up from the folder of the study file, and must be what they were. Prompts of a study
    given in Python are those kept in the run.

    Args:
        run: A run, or what `workbench.open_run` takes.
        engine: Engine to use; it stays open. By default the one the study declares.
        out: Where run directories live.
        allow_changed: Run with other prompts or adapters all the same; the manifest says what changed (``rerun_changed``).
        latency: Time requests if the study says so.
        progress: Show progress bars.
        say: Told in one line what is going on; to standard error by default.

    Returns:
        The new run.

    Raises:
        StoreError: There is no such run, it was tuned or imported, its prompts or weights are not what they were.
        AdapterError: An adapter is gone, or is not what it was.
        StudyError, PromptSetError, ModelError, EngineError, ScorerError: As for `workbench.run`.
    """
    first = run if isinstance(run, Run) else open_run(run)
    _refuse_tuned(first)
    sameness.refuse_imported(first)
    tell = say or runner.to_stderr
    study = sameness.declared(first)
    study, limit, changed = _checked(first, study, allow_changed=allow_changed)
    for line in changed:
        tell(f"note: {line}")
    notes: dict[str, Any] = {"rerun_of": first.id}
    notes |= {"rerun_changed": changed} if changed else {}
    with (
        _engine(first, study, engine, allow_changed=allow_changed, progress=progress) as used,
        api.prepared(study, used, limit=limit, progress=progress, say=tell) as ready,
    ):
        result = ready.run(out, new=True, notes=notes, progress=progress, say=say)
        settings = study.latency
        if latency and settings and result.status != "interrupted":
            api.time_run(result.dir, ready, progress=progress, say=say, **settings)
    done = Run(result.dir)
    done.write()
    return done


@contextmanager
def _engine(
    run: Run, study: Study, engine: Engine | None, *, allow_changed: bool, progress: bool
) -> Iterator[Engine]:
    """The engine to use; one that was loaded for this is closed in the end."""
    if engine is not None:
        if not allow_changed:
            sameness.prepare(run, study, engine)
        yield engine
        return
    sameness.refuse_other_kind(run, study)
    if run.manifest["engine"]["engine"] == "local" and not allow_changed:
        sameness.check_weights(run, study)
    loaded = api.engine_for(study, progress=progress)
    try:
        yield loaded
    finally:
        loaded.close()


def _refuse_tuned(run: Run) -> None:
    if run.manifest.get("tuning"):
        raise StoreError(
            f"{run.path}: made by tuning, which decides on the way which rows to ask for; run `workbench tune` on its "
            "study again, then `workbench diff` on the two runs"
        )


def _checked(run: Run, study: Study, *, allow_changed: bool) -> tuple[Study, int | None, list[str]]:
    """The study with prompts that can be run, how many of them, and what is not as it was.

    Raises:
        StoreError: The prompts are not what they were.
        AdapterError: An adapter is not what it was.
    """
    changed = []
    problem, study, limit = _prompts(run, study)
    if problem is not None:
        changed.append(problem)
        if not allow_changed:
            raise StoreError(f"{run.path}: {problem}; allow it with --allow-changed")
    for name, path in study.adapter_paths.items():
        was = run.manifest["engine"]["adapters"].get(name)
        if path is None or name == BASE or run.manifest["engine"]["engine"] != "local":
            continue
        now = adapter_files.read(path).sha256
        if now != was:
            line = f"adapter {name!r} was sha256 {sameness.short(was)}, {path} is {sameness.short(now)} now"
            changed.append(line)
            if not allow_changed:
                raise AdapterError(f"{run.path}: {line}; allow it with --allow-changed")
    return study, limit, changed


def _prompts(run: Run, study: Study) -> tuple[str | None, Study, int | None]:
    """What is wrong with the prompts now, the study with prompts that are there, and their number if it is limited."""
    was = run.manifest["prompt_set"]
    if isinstance(study.prompts, PromptSet):
        return None, study, None
    try:
        loaded = load_prompts(study.prompts, study.base_dir)
    except PromptSetError as error:
        problem = f"the prompts {was['source']} cannot be read any more ({error})"
        return problem, study.replace(prompts=run.prompts, system=None), None
    limit = was["n_prompts"] if was["n_prompts"] < len(loaded) else None
    used = loaded if limit is None else loaded.subset(limit, study.seed)
    now = used.with_system(study.system).sha256
    if now == was["sha256"]:
        return None, study, limit
    return (
        f"the prompts {was['source']} were sha256 {sameness.short(was['sha256'])} and are {sameness.short(now)} now",
        study,
        limit,
    )
