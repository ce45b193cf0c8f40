"""The output folder of an evalscope evaluation: its reviews, with predictions and settings where they are.

Evalscope writes ``reviews/<model>/<benchmark>_<subset>.jsonl`` (prompt, answer and scores), ``predictions`` of the same
name (token counts, why an answer ended) and ``configs/task_config.yaml`` (decoding settings). A ``group_id`` is a prompt, a
``generation_index`` a repeat of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from workbench.interchange.answer import Answer, judged, valid
from workbench.interchange.batchread import WITHHELD, message_text
from workbench.prompts.checkrows import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from workbench.records import FinishReason

FORM: Final = "evalscope reviews"
CUT: Final = ("max_tokens", "model_length")
"""Why an answer ended, in the words of inspect_ai and evalscope, if it was cut off."""
_NAMES: Final = {"stop_seqs": "stop"}


class Read(NamedTuple):
    """What a file and those beside it hold: answers, what they say of the run, and what a reader must know."""

    answers: list[Answer]
    about: dict[str, Any]
    notes: list[str]


def read(where: str, row: Mapping[str, Any]) -> Iterator[Answer]:
    """The answer of one review."""
    judgement = row["sample_score"]
    score, messages = judgement["score"], row["messages"]
    said = messages[-1] if messages and messages[-1].get("role") == "assistant" else {}
    asked = [_plain(m) for m in messages[: len(messages) - bool(said)]]
    prompt_id = str(row["index"] if judgement.get("group_id") is None else judgement["group_id"])
    metadata = judgement.get("sample_metadata") or {}
    own: dict[str, Any] = {"id": prompt_id, "messages": asked, "metadata": metadata}
    targets = row.get("target") or []
    if targets:
        own["target"] = targets[0] if isinstance(targets, list) and len(targets) == 1 else targets
    text = score.get("prediction")
    yield Answer(
        where,
        prompt_id,
        message_text(_plain(said)) if text is None else text,
        judgement.get("generation_index"),
        model=said.get("model"),
        scores={
            name: judged(value, score.get("extracted_prediction"), score.get("explanation") or "")
            for name, value in (score.get("value") or {}).items()
        },
        row=own,
    )


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as ours are: role and text, with the calls of tools."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if part.get("type") != "reasoning"]
        if not all(isinstance(part.get("text"), str) for part in parts):
            raise ValueError("a message holds more than text (an image or sound)")
        content = "".join(part["text"] for part in parts)
    kept = {key: message[key] for key in ("tool_calls", "tool_call_id") if message.get(key)}
    return {"role": message.get("role"), "content": content or "", **kept}


def completed(path: Path, found: Sequence[tuple[Mapping[str, Any], Answer]]) -> Read:
    """The answers of a file of reviews with what stands in the files beside it.

    Args:
        path: The file of reviews.
        found: Its rows with their answers.

    Raises:
        ValueError: A file beside it cannot be read.
    """
    root = path.parent.parent.parent
    config = _config(root / "configs" / "task_config.yaml")
    outputs = _outputs(root / "predictions" / path.parent.name / path.name)
    asked = config.get("generation_config") or {}
    settings = valid({_NAMES.get(name, name): value for name, value in asked.items()})
    model = config.get("model_id") or config.get("model")
    answers = [
        replace(
            _counted(answer, outputs.get(row["index"]) or {}),
            task=path.stem,
            model=str(model or answer.model or path.parent.name),
            settings=settings,
            seed=settings.get("seed"),
        )
        for row, answer in found
    ]
    lost = len(outputs.keys() - {row["index"] for row, _ in found})
    told = f"{path}: {lost} of {len(outputs)} predictions have no review; left out"
    version = config.get("evalscope_version")
    return Read(answers, {"evalscope": version} if version else {}, [told] if lost else [])


def _config(path: Path) -> Mapping[str, Any]:
    """The settings of an evaluation; nothing if the file is not there."""
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__})") from error
    return found if isinstance(found, Mapping) else {}


def _outputs(path: Path) -> dict[Any, Mapping[str, Any]]:
    """Index to what the model gave, of a file of predictions; nothing if the file is not there."""
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__})") from error
    rows = [strict_json(line) for line in lines if line.strip()]
    return {row["index"]: row.get("model_output") or {} for row in rows}


def _counted(answer: Answer, output: Mapping[str, Any]) -> Answer:
    """An answer with its token counts, and why it ended."""
    usage, choices = output.get("usage") or {}, output.get("choices") or []
    stop = choices[0].get("stop_reason") if choices else None
    finish: FinishReason = "length" if stop in CUT else "stop"
    return replace(
        answer,
        finish=finish,
        error=output.get("error") or (WITHHELD if stop == "content_filter" else None),
        n_prompt_tokens=usage.get("input_tokens") or 0,
        n_output_tokens=usage.get("output_tokens") or 0,
    )
