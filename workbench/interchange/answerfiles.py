"""Files of answers: lm-eval's samples, the output of an OpenAI batch, our own JSONL export, and plain rows.

Which of these a file is, its first row tells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from workbench.errors import ParamError, PromptSetError
from workbench.params import FIELDS, SamplingParams
from workbench.prompts.checkrows import kind, strict_json
from workbench.prompts.fileforms import said_by
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from workbench.records import FinishReason

_LM_EVAL: Final = {"max_gen_toks": "max_tokens", "until": "stop"}
_FINISH: Final[dict[Any, FinishReason]] = {"length": "length", "tool_calls": "tool_calls"}
_PROMPT_KEYS: Final = ("target", "metadata", "group", "tools", "vars")
_MOST_PROBLEMS: Final = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as a file has it.

    Attributes:
        line: Where it stands, from 1.
        prompt_id: Which prompt it answers.
        repeat: Which draw it is, or None: the next one.
        text: The answer.
        finish: Why it ended.
        error: Why there is none.
        cell: What tells its cell from others in the file; None if all are of one.
        name: What that cell is called, or None.
        adapter: The cell's adapter.
        template: The cell's template, or None.
        split: The prompt's side of the split, or None.
        filter: For lm-eval, the filter whose result its row holds.
        settings: Decoding settings, as far as the file says.
        rendered: The prompt as the model saw it, if the file says.
        row: The prompt as a row, if the file has it.
    """

    line: int
    prompt_id: str
    text: str = ""
    repeat: int | None = None
    finish: FinishReason = "stop"
    error: str | None = None
    cell: str | None = None
    name: str | None = None
    adapter: str = BASE
    template: str | None = None
    split: str | None = None
    filter: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    rendered: str = ""
    row: Mapping[str, Any] | None = None


def read(path: Path) -> tuple[bytes, list[Answer], str]:
    """The file's bytes, its answers, and what form they are in.

    Raises:
        PromptSetError: It cannot be read; lists the problems with their lines.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptSetError("answers", f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise PromptSetError("answers", f"{path}: cannot be read ({error.strerror})") from error
    answers: list[Answer] = []
    problems: list[str] = []
    form = ""
    for n, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = strict_json(line)
            form = form or _form(row)
            answers += _READERS[form](n, row)
        except ValueError as error:
            problems.append(f"{path}:{n}: {error}")
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            problems.append(f"{path}:{n}: not a row of {form} ({type(error).__name__}: {error})")
        if len(problems) == _MOST_PROBLEMS:
            problems.append("...")
            break
    if not problems and not answers:
        problems = [f"{path}: no answers"]
    if problems:
        raise PromptSetError("answers", problems)
    return data, answers, form


def _form(
    row: Any,
) -> Literal["lm-eval samples", "an OpenAI batch output", "our export", "plain answers"]:
    if not isinstance(row, Mapping):
        raise ValueError(f"a row must be an object, got {kind(row)}")  # noqa: TRY004 - one kind of error for a line
    if "resps" in row and "doc_id" in row:
        return "lm-eval samples"
    if "custom_id" in row and ("response" in row or "error" in row):
        return "an OpenAI batch output"
    if "prompt_id" in row and "cell_id" in row and "text" in row:
        return "our export"
    if "id" in row and "text" in row:
        return "plain answers"
    raise ValueError(
        "not answers that can be read: lm-eval samples (doc_id, resps), OpenAI batch output (custom_id, response), "
        "our JSONL export, or rows with id and text"
    )


def _lm_eval(line: int, row: Mapping[str, Any]) -> Iterator[Answer]:
    doc = row["doc"] if isinstance(row["doc"], Mapping) else {}
    prompt_id = str(doc.get("id", row["doc_id"]))
    rendered, asked = _request(row)
    settings = _valid({_LM_EVAL.get(name, name): value for name, value in asked.items()})
    if asked.get("do_sample") is False:
        settings["temperature"] = 0.0
    own = {"id": prompt_id, "messages": doc["messages"]} if "messages" in doc else None
    own = own or {"id": prompt_id, "prompt": rendered}
    target = doc["target"] if "messages" in doc and "target" in doc else row.get("target")
    own |= {} if target in (None, "") else {"target": target}
    own |= {key: doc[key] for key in ("metadata", "group") if "messages" in doc and key in doc}
    for repeat, text in enumerate(row["resps"][0]):
        yield Answer(
            line,
            prompt_id,
            text,
            repeat,
            filter=row.get("filter"),
            settings=settings,
            rendered=rendered,
            row=own,
        )


def _request(row: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """What a sample's model was asked, and with which settings."""
    requests = row["arguments"]
    requests = list(requests.values() if isinstance(requests, Mapping) else requests)
    first = requests[0]
    asked, settings = (
        (first["arg_0"], first.get("arg_1")) if isinstance(first, Mapping) else (*first, None)[:2]
    )
    texts = all(isinstance(text, str) for text in row["resps"][0])
    if len(requests) > 1 or not texts or not isinstance(settings, Mapping | None):
        raise ValueError(
            "likelihoods, not answers (multiple_choice or loglikelihood); only samples of output_type "
            "generate_until can be imported"
        )
    return str(asked), settings or {}


def _batch(line: int, row: Mapping[str, Any]) -> Iterator[Answer]:
    prompt_id, response = str(row["custom_id"]), row.get("response") or {}
    body = response.get("body") or {}
    if row.get("error") or response.get("status_code", 200) != 200 or "choices" not in body:
        error = row.get("error") or body.get("error") or {"message": "no answer in this row"}
        said = error.get("message", error) if isinstance(error, Mapping) else error
        yield Answer(line, prompt_id, error=str(said))
        return
    for choice in body["choices"]:
        text = _message_text(choice["message"]) if "message" in choice else choice["text"]
        finish = choice.get("finish_reason") or "stop"
        if finish == "content_filter":
            yield Answer(line, prompt_id, error="withheld by a content filter")
        else:
            yield Answer(line, prompt_id, text or "", finish=_FINISH.get(finish, "stop"))


def _message_text(message: Mapping[str, Any]) -> str:
    """What a message says: its text, its refusal, and the tools it calls as JSON."""
    texts = [message.get("content"), message.get("refusal")]
    if message.get("tool_calls"):
        texts.append(json.dumps(said_by(message), ensure_ascii=False))
    return "\n".join(text for text in texts if text)


def _export(line: int, row: Mapping[str, Any]) -> Iterator[Answer]:
    error = row.get("error")
    own = {"id": row["prompt_id"], "messages": row["messages"]}
    own |= {key: row[key] for key in _PROMPT_KEYS if row.get(key) is not None}
    template, adapter = row.get("template"), row.get("adapter") or BASE
    yield Answer(
        line,
        str(row["prompt_id"]),
        row["text"],
        _repeat(row["repeat"]),
        finish=row.get("finish_reason") or "stop",
        error=error,
        cell=str(row["cell_id"]),
        name=str(row.get("name") or _bare(row["label"], template, adapter)),
        adapter=adapter,
        template=template,
        split=row.get("split"),
        settings=_valid(row["settings"]),
        rendered=row.get("rendered") or "",
        row=own,
    )


def _bare(label: str, template: str | None, adapter: str) -> str:
    """A label without the template and adapter at its end."""
    for extra in ("" if adapter == BASE else adapter, template or ""):
        label = label.removesuffix(f" {extra}") if extra else label
    return label


def _plain(line: int, row: Mapping[str, Any]) -> Iterator[Answer]:
    if not isinstance(row["text"], str):
        raise ValueError(f"text must be text, got {kind(row['text'])}")  # noqa: TRY004 - as above
    yield Answer(line, str(row["id"]), row["text"], _repeat(row.get("repeat")))


def _repeat(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"repeat must be a whole number at least 0, got {value!r}")
    return value


_READERS: Final[dict[str, Callable[[int, Any], Iterator[Answer]]]] = {
    "lm-eval samples": _lm_eval,
    "an OpenAI batch output": _batch,
    "our export": _export,
    "plain answers": _plain,
}


def _valid(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings we have too; one that we do not allow is left out."""
    out = {}
    for name, value in settings.items():
        if name in FIELDS and value is not None and name != "seed":
            try:
                SamplingParams(**{name: value})
            except ParamError:
                continue
            out[name] = value
    return out
