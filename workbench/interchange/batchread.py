"""The output of an OpenAI batch: one line per request, joined to the requests by ``custom_id``.

Answers of ``/v1/chat/completions`` and ``/v1/completions`` are read. An output says nothing of decoding settings; the input
file has them, and keeps them as ``metadata["batch"]`` of its prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from workbench.interchange.answer import Answer, valid
from workbench.prompts.fileforms import said_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.prompts import PromptSet
    from workbench.records import FinishReason

FORM: Final = "an OpenAI batch output"
WITHHELD: Final = "withheld by a content filter"
_OK: Final = 200
_FINISH: Final[dict[Any, FinishReason]] = {"length": "length", "tool_calls": "tool_calls"}
_NAMES: Final = {"max_completion_tokens": "max_tokens"}


def read(where: str, row: Mapping[str, Any]) -> Iterator[Answer]:
    """The answers of one line: one per choice, or one failure.

    Raises:
        ValueError: It is an answer of another endpoint.
    """
    prompt_id, response = str(row["custom_id"]), row.get("response") or {}
    body = response.get("body") or {}
    if row.get("error") or response.get("status_code", _OK) != _OK or not body:
        error = row.get("error") or body.get("error") or {"message": "no answer in this row"}
        said = error.get("message", error) if isinstance(error, Mapping) else error
        yield Answer(where, prompt_id, error=str(said))
        return
    if "choices" not in body:
        raise ValueError("no choices: only answers of chat completions and completions are read")
    usage = body.get("usage") or {}
    alone = len(body["choices"]) == 1  # the count is of all choices together
    for choice in body["choices"]:
        made = Answer(
            where,
            prompt_id,
            model=body.get("model"),
            n_prompt_tokens=usage.get("prompt_tokens") or 0,
            n_output_tokens=(usage.get("completion_tokens") or 0) if alone else 0,
        )
        text = message_text(choice["message"]) if "message" in choice else choice["text"]
        finish = choice.get("finish_reason") or "stop"
        if finish == "content_filter":
            yield replace(made, error=WITHHELD)
        else:
            yield replace(made, text=text or "", finish=_FINISH.get(finish, "stop"))


def message_text(message: Mapping[str, Any]) -> str:
    """What a message says: its text, its refusal, and the tools it calls as JSON."""
    texts = [message.get("content"), message.get("refusal")]
    if message.get("tool_calls"):
        texts.append(json.dumps(said_by(message), ensure_ascii=False))
    return "\n".join(text for text in texts if text)


def with_settings(answers: list[Answer], prompts: PromptSet) -> list[Answer]:
    """The answers with the settings and the model that the batch's input asked for; others as they are."""
    asked = {prompt.id: prompt.metadata.get("batch") for prompt in prompts}
    out = []
    for answer in answers:
        body = asked.get(answer.prompt_id)
        if not isinstance(body, Mapping) or answer.settings:
            out.append(answer)
            continue
        settings = valid({_NAMES.get(str(name), str(name)): value for name, value in body.items()})
        # An output names the model's exact version, a failed line none: the input's name is the same in all.
        out.append(replace(answer, settings=settings, model=body.get("model") or answer.model))
    return out
