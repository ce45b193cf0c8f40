"""Whether a run can be made again here: its kind, its weights, its adapters; told before a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from workbench import adapters as adapter_files
from workbench import api
from workbench.errors import AdapterError, StoreError, StudyError
from workbench.prompts import PromptSet
from workbench.study import Study

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engines.base import Engine
    from workbench.runs import Run


def refuse_imported(run: Run) -> None:
    """Answers made elsewhere cannot be made again here.

    Raises:
        StoreError: The run holds such answers.
    """
    engine = run.manifest["engine"]
    if engine.get("engine") == "imported":
        file = (engine.get("extra") or {}).get("file", "a file")
        raise StoreError(
            f"{run.path}: its answers were imported from {file}, so nothing here can make them again"
        )


def declared(run: Run) -> Study:
    """The study of a run with its paths as they were: from the folder of the study file.

    A study given in Python, whose prompts or scorers are known by name only, gets the run's prompts.
    """
    folder = run.manifest["study"].get("folder")
    try:
        values = yaml.safe_load(run.manifest["study"]["text"])
        return Study.from_dict(values, str(run.path), folder)
    except StudyError:
        rows = [prompt.to_dict() for prompt in run.prompts]
        prompts = PromptSet.from_records(rows, run.manifest["prompt_set"]["name"])
        return run.study.replace(prompts=prompts, base_dir=folder)


def engine_like(
    run: Run, study: Study, *, device: str | None, kernel: str | None, progress: bool
) -> Engine:
    """The run's engine, loaded again with the kernel and on the device of the run.

    Args:
        run: The run.
        study: As `declared` gives it.
        device: Another device than the run's.
        kernel: Another kernel than the run's.
        progress: Show a bar while the demo model is built.

    Raises:
        StoreError: The weights are not those of the run, or its engine was given in Python.
        AdapterError: An adapter is gone, or is not what it was.
        ModelError, EngineError: The model cannot be loaded.
    """
    made = run.manifest["engine"]
    refuse_other_kind(run, study)
    check_adapters(run, study)
    if made["engine"] == "local":
        check_weights(run, study)
        device, kernel = device or made["device"], kernel or made["kernel"]
    engine = api.engine_for(study, progress=progress, device=device, kernel=kernel)
    try:
        prepare(run, study, engine)
    except BaseException:
        engine.close()
        raise
    return engine


def refuse_other_kind(run: Run, study: Study) -> None:
    """The study must name the kind of engine that made the run; it does not where an engine was given in Python.

    Raises:
        StoreError: It names another kind.
    """
    made, kind = run.manifest["engine"]["engine"], study.engine.get("kind", "local")
    if kind != made:
        raise StoreError(
            f"{run.path}: made with a {made} engine given in Python, and the study names a {kind} one; "
            "give the engine here too"
        )


def prepare(run: Run, study: Study, engine: Engine) -> None:
    """See that an engine has the weights of a run, and load the adapters it lacks.

    Raises:
        StoreError: It has other weights.
        AdapterError: An adapter is gone, or is not what it was.
    """
    _refuse_other(run, engine.info.model, engine.info.weight_hash)
    check_adapters(run, study)
    api.load_adapters(engine, study)
    for name, digest in run.manifest["engine"]["adapters"].items():
        _refuse_other_adapter(run, name, digest, engine.info.adapters.get(name), engine.info.model)


def check_weights(run: Run, study: Study) -> None:
    """See that the checkpoint's files are those of the run, by their hash.

    Raises:
        StoreError: They are others.
        ModelError: There is no such checkpoint, or it is damaged.
    """
    from workbench.engines.local import checkpoint, demo_model  # noqa: PLC0415 - imports torch

    model = study.model_path
    folder = demo_model.ensure(progress=False) if model == "demo" else model
    files = checkpoint.open_checkpoint(folder).files
    now = checkpoint.weight_hash(files, demo_model.cache_dir() / "weight-hashes.json")
    _refuse_other(run, model, now)


def check_adapters(run: Run, study: Study) -> None:
    """See that the adapter files are those of the run, by their hash.

    Raises:
        AdapterError: One is gone, cannot be read, or is another one.
    """
    for name, digest in run.manifest["engine"]["adapters"].items():
        path = study.adapter_paths.get(name)
        if path is None or run.manifest["engine"]["engine"] != "local":
            continue
        _refuse_other_adapter(run, name, digest, adapter_files.read(path).sha256, path)


def _refuse_other(run: Run, model: str, now: str | None) -> None:
    made = run.manifest["engine"]
    if now != made["weight_hash"]:
        raise StoreError(
            f"{run.path}: made with {made['model']}, weights sha256 {short(made['weight_hash'])}; those of {model} are "
            f"{short(now)} now"
        )


def _refuse_other_adapter(
    run: Run, name: str, digest: str, now: str | None, where: str | Path
) -> None:
    if now != digest:
        raise AdapterError(
            f"{run.path}: adapter {name!r} was sha256 {short(digest)} in this run; the one of {where} is {short(now)} now"
        )


def short(digest: Any) -> str:
    """The first digits of a hash, or that there is none."""
    return "none" if digest is None else str(digest)[:12]
