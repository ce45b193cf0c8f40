"""Runs as logs of inspect_ai, for its viewer and its data frames; needs inspect_ai.

Every cell becomes a log of its own, as if it were an evaluation: prompts are samples, repeats epochs, scorers scorers. What
inspect_ai has no place for (a target that is not text, the side of the split, seeds, the rendered prompt) is kept under
``awq_workbench`` in the metadata, so that ``workbench import`` gets the same run back.

inspect_ai's writer takes time with the square of the samples: 3,000 in a log took it 17 s, on two busy cores.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import StoreError
from workbench.interchange import rowstream
from workbench.interchange.inspectread import INSTALL, OURS, library
from workbench.interchange.lmeval import file_name
from workbench.prompts.fileforms import said_by
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.interchange.rowstream import ReadRun

_CONFIG: Final = (
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
    "seed",
)
_ELSEWHERE: Final = ("min_p", "repetition_penalty")
"""Settings that inspect_ai sends to a server as ``extra_body``."""
_STOP: Final[dict[str, Any]] = {"stop": "stop", "length": "max_tokens", "tool_calls": "tool_calls"}


def write(run: ReadRun, folder: Path, *, force: bool) -> list[Path]:
    """Write a run as logs.

    Args:
        run: A run.
        folder: Gets one ``.eval`` file per cell.
        force: Replace files that are there.

    Returns:
        The files written.

    Raises:
        StoreError: inspect_ai is not installed, a file is there already or cannot be written; then none is.
    """
    try:
        inspect_ai = library()
    except ImportError as error:
        raise StoreError(f"the format inspect needs inspect_ai; {INSTALL}") from error
    stamp = _time(run.manifest["started_utc"]).strftime("%Y-%m-%dT%H-%M-%S-00-00")
    task = file_name(str(run.manifest["study"]["name"])) or "study"
    cells = [{str(k): v for k, v in c.items()} for c in run.cells.to_dict("records")]
    seeds = {cell.cell_id: cell.params.seed for cell in run.plan.cells}
    digits = len(str(len(cells)))  # by name, the files are in the order of the study
    for n, cell in enumerate(cells, 1):
        cell["seed"] = seeds.get(cell["cell_id"])
        cell["task_id"] = f"{n:0{digits}}{cell['cell_id']}"
    files = [folder / f"{stamp}_{task}_{cell['task_id']}.eval" for cell in cells]
    for file in files:
        rowstream.refuse(file, force=force)
    with (
        tempfile.TemporaryDirectory() as scratch,
        rowstream.together(force=force) as waiting,
    ):
        for cell, file in zip(cells, files, strict=True):
            made = Path(scratch) / file.name
            inspect_ai.write_eval_log(_log(run, cell), str(made))
            with (
                made.open("rb") as source,
                rowstream.whole(file, force=force, mode="wb", waiting=waiting) as target,
            ):
                shutil.copyfileobj(source, target)
            made.unlink()
    return files


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _id(*parts: object) -> str:
    """An id that is the same whenever the same thing is written."""
    return uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, parts))).hex


def _log(run: ReadRun, cell: Mapping[str, Any]) -> Any:
    """A cell as a log."""
    from inspect_ai import log as logs  # noqa: PLC0415 - takes seconds
    from inspect_ai import model as models  # noqa: PLC0415

    rows = list(rowstream.rows(run, str(cell["cell_id"])))
    manifest, judges = run.manifest, rowstream.scorers(run)
    seed = {} if cell["seed"] is None else {"seed": cell["seed"]}
    settings = (rows[0]["settings"] if rows else {}) | seed
    model = _model(run, cell)
    started, ended = manifest["started_utc"], manifest["ended_utc"] or manifest["started_utc"]
    config = {name: settings[name] for name in _CONFIG if name in settings}
    extra = {name: settings[name] for name in _ELSEWHERE if name in settings}
    generate = models.GenerateConfig(
        **config, stop_seqs=settings.get("stop"), extra_body=extra or None
    )
    samples = [_sample(row, model, generate, manifest) for row in rows]
    ids = list(dict.fromkeys(sample.id for sample in samples))
    prompts, commit = manifest["prompt_set"], (manifest.get("git") or {}).get("commit")
    log = logs.EvalLog(
        status="success",
        eval=logs.EvalSpec(
            eval_id=_id(manifest["run_id"], cell["cell_id"]),
            run_id=manifest["run_id"],
            created=started,
            task=manifest["study"]["name"],
            task_id=cell["task_id"],
            task_args={"cell": cell["label"]},
            dataset=logs.EvalDataset(
                name=prompts["name"], location=prompts["source"], samples=len(ids), sample_ids=ids
            ),
            model=model,
            model_generate_config=generate,
            config=logs.EvalConfig(epochs=max((row["repeat"] for row in rows), default=0) + 1),
            revision=commit
            and logs.EvalRevision(
                type="git", origin="", commit=commit, dirty=manifest["git"]["dirty"]
            ),
            packages={k: v for k, v in manifest["packages"].items() if v is not None},
            metadata={OURS: _about(run, cell, settings)},
            scorers=[_scorer(entry) for entry in manifest["scorers"]],
        ),
        plan=logs.EvalPlan(config=generate),
        stats=logs.EvalStats(
            started_at=started, completed_at=ended, model_usage=_usage(samples, model)
        ),
        samples=samples,
    )
    if judges:
        logs.recompute_metrics(log)
    return log


def _model(run: ReadRun, cell: Mapping[str, Any]) -> str:
    """The model's name, with the adapter's: to inspect_ai these are two models."""
    name = str(run.manifest["engine"]["model"])
    return name if cell["adapter"] == BASE else f"{name}+{cell['adapter']}"


def _about(run: ReadRun, cell: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the cell what it is, for reading it back."""
    texts = {name: cell[name] for name in ("cell_id", "label", "name", "adapter", "template")}
    return {
        "run_id": run.manifest["run_id"],
        **{name: value if isinstance(value, str) else None for name, value in texts.items()},
        "model": run.manifest["engine"]["model"],
        "settings": dict(settings),
        "prompt_set_sha256": run.manifest["prompt_set"]["sha256"],
    }


def _scorer(entry: Mapping[str, Any]) -> Any:
    metrics = [{"name": "inspect_ai/mean"}, {"name": "inspect_ai/stderr"}]
    about = {"version": entry["version"]}
    options = dict(entry["options"])
    return {"name": entry["name"], "options": options, "metrics": metrics, "metadata": about}


def _sample(row: Mapping[str, Any], model: str, config: Any, manifest: Mapping[str, Any]) -> Any:
    """An answer as a sample; its one event is what inspect_ai makes a table of messages from."""
    from inspect_ai import event as events  # noqa: PLC0415 - as above
    from inspect_ai import log as logs  # noqa: PLC0415 - as above
    from inspect_ai import model as models  # noqa: PLC0415

    prompt, failed = row["prompt"], row["finish_reason"] == "error"
    place = (manifest["run_id"], row["cell_id"], row["prompt_id"], row["repeat"])
    asked = [_message(models, m, _id(*place, n)) for n, m in enumerate(prompt.messages)]
    said = models.ChatMessageAssistant(
        id=_id(*place, "answer"), content=row["text"], source="generate", model=model
    )
    usage = None
    if row["n_output_tokens"]:
        counts = row["n_prompt_tokens"], row["n_output_tokens"]
        usage = models.ModelUsage(
            input_tokens=counts[0], output_tokens=counts[1], total_tokens=sum(counts)
        )
    choice = models.ChatCompletionChoice(
        message=said, stop_reason=_STOP.get(row["finish_reason"], "unknown")
    )
    output = models.ModelOutput(model=model, choices=[] if failed else [choice], usage=usage)
    own = {
        "prompt": prompt.to_dict(),
        "split": row["split"],
        "seed": row["seed"],
        "rendered": row["rendered"],
    }
    call = events.ModelEvent(
        uuid=_id(*place, "call"),
        timestamp=_time(manifest["started_utc"]),  # of the run: answers are not timed one by one
        working_start=0,
        model=model,
        input=asked,
        tools=[],
        tool_choice="auto",
        config=config,
        output=output,
    )
    error = None
    if failed:
        error = logs.EvalError(message=row["error"] or "", traceback="", traceback_ansi="")
    return logs.EvalSample(
        id=row["prompt_id"],
        epoch=row["repeat"] + 1,
        input=asked,
        target=_target(prompt.target),
        messages=asked if failed else [*asked, said],
        output=output,
        scores=None if failed else {n: _score(s) for n, s in row["scores"].items()},
        metadata={**prompt.metadata, OURS: own},
        model_usage={} if usage is None else {model: usage},
        events=[] if failed else [call],
        uuid=_id(*place),
        error=error,
    )


def _target(target: Any) -> str | list[str]:
    """A target as inspect_ai has them: texts."""
    if isinstance(target, list) and target:
        return [rowstream.plain(item) or "" for item in target]
    return rowstream.plain(target) or ""


def _message(models: Any, message: Mapping[str, Any], name: str) -> Any:
    role, content = message["role"], message.get("content") or ""
    if role == "system":
        return models.ChatMessageSystem(id=name, content=content)
    if role == "user":
        return models.ChatMessageUser(id=name, content=content, source="input")
    if role == "tool":
        return models.ChatMessageTool(
            id=name, content=content, tool_call_id=message.get("tool_call_id")
        )
    calls = message.get("tool_calls")
    if calls:  # shown as what they are; the exact message is in the prompt kept beside it
        content = f"{content}\n{rowstream.plain(said_by(message))}".strip()
    return models.ChatMessageAssistant(id=name, content=content, source="input")


def _score(score: Mapping[str, Any]) -> Any:
    from inspect_ai.scorer import Score  # noqa: PLC0415 - as above

    about = {"answer": score["answer"], "explanation": score["explanation"] or None}
    if score["value"] is None:
        return Score.unscored(reason=score["reason"], **about)
    return Score(value=score["value"], **about)


def _usage(samples: list[Any], model: str) -> dict[str, Any]:
    """Tokens of all samples together."""
    from inspect_ai.model import ModelUsage  # noqa: PLC0415 - as above

    used = [s.output.usage for s in samples if s.output.usage is not None]
    if not used:
        return {}
    return {
        model: ModelUsage(
            input_tokens=sum(u.input_tokens for u in used),
            output_tokens=sum(u.output_tokens for u in used),
            total_tokens=sum(u.total_tokens for u in used),
        )
    }
