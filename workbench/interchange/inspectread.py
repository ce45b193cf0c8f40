"""The logs of inspect_ai, ``.eval`` and ``.json``: samples as prompts, epochs as repeats, scores as scores.

A ``.eval`` file is read with inspect_ai itself, and so is a ``.json`` file where inspect_ai is installed, so that logs of
older versions are brought up to date. A prompt is what stood in the conversation before the model spoke first.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import PromptSetError
from workbench.interchange.answer import Answer, Source, bare, judged, valid
from workbench.interchange.batchread import WITHHELD, message_text
from workbench.interchange.evalscoperead import CUT
from workbench.records import BASE, Score

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.records import FinishReason

FORM: Final = "an inspect_ai log"
OURS: Final = "awq_workbench"
"""Where in the metadata of a log and of its samples an export of ours keeps what inspect_ai has no place for."""
INSTALL: Final = "pip install 'awq-workbench[interchange]'"
_GRADES: Final = {"C": 1.0, "I": 0.0, "P": 0.5}
_NAMES: Final = {"stop_seqs": "stop"}


def library() -> Any:
    """The module ``inspect_ai.log``.

    Raises:
        ImportError: It is not installed.
    """
    return importlib.import_module("inspect_ai.log")  # takes seconds


def is_log(value: Any) -> bool:
    """Whether a decoded JSON file is a log."""
    return isinstance(value, Mapping) and {"version", "status", "eval"} <= value.keys()


def read(path: Path) -> Source:
    """Read a log.

    Args:
        path: A ``.eval`` file, or a JSON file that is a log.

    Raises:
        PromptSetError: It cannot be read, or holds no samples; lists every problem.
    """
    data, log = _load(path)
    about, plan, notes = log["eval"], log.get("plan") or {}, []
    if log["status"] != "success":
        notes.append(f"{path}: the evaluation did not succeed (status {log['status']!r})")
    ours = (about.get("metadata") or {}).get(OURS) or {}
    # What stands in the plan (the task's and the call's) goes before the model's own.
    asked = [c or {} for c in (about.get("model_generate_config"), plan.get("config"))]
    settings = valid(ours.get("settings") or {}) or _settings(asked[0]) | _settings(asked[1])
    versions = _versions(about)
    answers, problems = [], []
    for sample in log.get("samples") or ():
        where = f"{path}: sample {sample['id']!r} epoch {sample['epoch']}"
        try:
            answers.append(_answer(where, sample, about, ours, settings))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            told = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            problems.append(f"{where}: {told}")
    if not answers and not problems:
        problems = [f"{path}: no samples; was the evaluation logged without them?"]
    if problems:
        raise PromptSetError("answers", problems[:20])
    scorers = {
        name: _version(name, versions, about) for answer in answers for name in answer.scores
    }
    return Source(
        path,
        FORM,
        hashlib.sha256(data).hexdigest(),
        answers,
        scorers,
        _about(log),
        tuple(notes),
    )


def _load(path: Path) -> tuple[bytes, Mapping[str, Any]]:
    """A log's bytes and its fields, as JSON has them."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PromptSetError("answers", f"{path}: cannot be read ({error.strerror})") from error
    try:
        inspect_ai = library()
    except ImportError as error:
        if path.suffix == ".eval":
            needed = f"{path}: needs inspect_ai to be read; {INSTALL}"
            raise PromptSetError("answers", needed) from error
        return data, json.loads(data)
    try:
        log = inspect_ai.read_eval_log(str(path), resolve_attachments="core")
    except Exception as error:  # a damaged log fails in many ways (zip, JSON, pydantic)
        said = str(error).strip().split("\n")[0]
        raise PromptSetError(
            "answers", f"{path}: inspect_ai cannot read it ({type(error).__name__}: {said})"
        ) from error
    return data, log.model_dump(mode="python")


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Decoding settings of a generation config; some go to servers as ``extra_body``."""
    every = {
        **(config.get("extra_body") or {}),
        **{k: v for k, v in config.items() if v is not None},
    }
    return valid({_NAMES.get(name, name): value for name, value in every.items()})


def _versions(about: Mapping[str, Any]) -> dict[str, str]:
    """Scorer to version, where the log says; ours do."""
    listed = about.get("scorers") or ()
    found = {s["name"]: (s.get("metadata") or {}).get("version") for s in listed}
    return {name: str(version) for name, version in found.items() if version is not None}


def _version(name: str, versions: Mapping[str, str], about: Mapping[str, Any]) -> str:
    made = (about.get("packages") or {}).get("inspect_ai", "unknown")
    return versions.get(name, f"inspect_ai {made}")


def _about(log: Mapping[str, Any]) -> dict[str, Any]:
    """Where a log's answers come from; its times are of the evaluation, not of requests."""
    about, stats = log["eval"], log.get("stats") or {}
    facts: dict[str, Any] = {
        "task": about.get("task"),
        "model": about.get("model"),
        "status": log["status"],
        "inspect_ai": (about.get("packages") or {}).get("inspect_ai"),
        "started_at": stats.get("started_at"),
        "completed_at": stats.get("completed_at"),
    }
    for name in ("total_time", "working_time"):
        times = [s[name] for s in log.get("samples") or () if s.get(name) is not None]
        facts[f"{name}_s"] = round(sum(times), 3) if times else None
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _answer(
    where: str,
    sample: Mapping[str, Any],
    about: Mapping[str, Any],
    ours: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Answer:
    output, metadata = sample.get("output") or {}, dict(sample.get("metadata") or {})
    own = metadata.pop(OURS, {})
    text, finish, error = _said(sample, output)
    usage = output.get("usage") or {}
    adapter, template = ours.get("adapter") or BASE, ours.get("template")
    named = bare(ours["label"], template, adapter) if ours.get("label") else None
    return Answer(
        where,
        str(sample["id"]),
        text,
        int(sample["epoch"]) - 1,
        finish,
        error,
        task=str(about["task"]),
        model=str(ours.get("model") or about["model"]),
        cell=ours.get("cell_id"),
        name=ours.get("name") or named,
        adapter=adapter,
        template=template,
        split=own.get("split"),
        settings=settings,
        seed=own["seed"] if own else settings.get("seed"),
        n_prompt_tokens=usage.get("input_tokens") or 0,
        n_output_tokens=usage.get("output_tokens") or 0,
        scores=_scores(sample.get("scores") or {}),
        rendered=own.get("rendered") or "",
        row=own.get("prompt") or _row(sample, metadata),
    )


def _said(
    sample: Mapping[str, Any], output: Mapping[str, Any]
) -> tuple[str, FinishReason, str | None]:
    """The answer, why it ended, and why there is none."""
    failed = sample.get("error") or {}
    error = failed.get("message") or output.get("error")
    if error:
        return "", "stop", str(error)
    choices = output.get("choices") or []
    if not choices:
        return "", "stop", "no output in the log"
    stop = choices[0].get("stop_reason")
    text = message_text(_message(choices[0]["message"]))
    if stop == "content_filter" and not text:
        return "", "stop", WITHHELD
    finish: FinishReason = "length" if stop in CUT else "stop"
    return text, "tool_calls" if stop == "tool_calls" else finish, None


def _row(sample: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The prompt of a sample of somebody else's."""
    given = sample["input"]
    asked = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    spoken = list(sample.get("messages") or ())
    first = next(
        (
            n
            for n, m in enumerate(spoken)
            if m["role"] == "assistant" and m.get("source") == "generate"
        ),
        None,
    )
    row: dict[str, Any] = {
        "id": str(sample["id"]),
        "messages": [_message(m) for m in (spoken[:first] if first else asked)],
    }
    if sample.get("choices"):
        metadata = {**metadata, "choices": list(sample["choices"])}
    if metadata:
        row["metadata"] = json.loads(json.dumps(metadata, default=str))
    target = sample.get("target")
    if isinstance(target, list) and len(target) == 1:
        target = target[0]
    return row | ({} if target in (None, "", []) else {"target": target})


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as ours are; the model's own thinking is left out."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [p for p in content if p.get("type") != "reasoning"]
        other = [str(p.get("type")) for p in parts if p.get("type") != "text"]
        if other:
            raise ValueError(f"a message holds more than text ({', '.join(other)})")
        content = "".join(part["text"] for part in parts)
    made: dict[str, Any] = {"role": message["role"], "content": content or ""}
    if message.get("tool_calls"):
        made["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {
                    "name": call["function"],
                    "arguments": json.dumps(call["arguments"], ensure_ascii=False),
                },
            }
            for call in message["tool_calls"]
        ]
    if message["role"] == "tool" and message.get("tool_call_id"):
        made["tool_call_id"] = message["tool_call_id"]
    return made


def _scores(scores: Mapping[str, Any]) -> dict[str, Score]:
    """Scores by scorer; one with several values becomes several, ``<scorer>.<value>``."""
    out = {}
    for name, score in scores.items():
        value, texts = score["value"], (score.get("answer"), score.get("explanation") or "")
        several = value if isinstance(value, Mapping) else {None: value}
        for part, each in several.items():
            called = name if part is None else f"{name}.{part}"
            out[called] = _score(each, *texts, score.get("reason"))
    return out


def _score(value: Any, answer: str | None, explanation: str, reason: str | None) -> Score:
    if isinstance(value, str) and value in _GRADES:
        return judged(_GRADES[value], answer, explanation)
    if value == "N":
        return Score(None, answer, explanation, reason or "graded N: no answer")
    return judged(value, answer, explanation, reason)
