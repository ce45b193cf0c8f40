"""Rows of prompts: what a row must hold, whatever file it comes from.

Everything here returns what it found together with what was wrong, so that a caller can list all problems of all files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from workbench.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workbench.records import Message

TEXT_KEYS: Final = ("messages", "prompt", "input")
ROW_KEYS: Final = ("id", *TEXT_KEYS, "target", "metadata", "group", "tools", "vars")
BATCH_KEYS: Final = ("custom_id", "method", "url", "body", "target", "metadata", "group")
ROLES: Final = ("system", "user", "assistant", "tool")
MESSAGE_KEYS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")
_BATCH_URLS: Final = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


P = TypeVar("P")


class Row(NamedTuple):
    """The checked fields of one prompt, in the order ``Prompt`` takes them."""

    id: str
    messages: tuple[Message, ...]
    target: Any
    metadata: dict[str, Any]
    group: str | None
    tools: tuple[dict[str, Any], ...] | None
    vars: dict[str, Any]


class Unreadable(NamedTuple):
    """Stands where a row could not even be decoded."""

    problem: str


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: keys sorted, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def check_rows(rows: Iterable[tuple[P, Any]]) -> tuple[list[tuple[P, Row]], list[tuple[P, str]]]:
    """Check rows that come with their places.

    Args:
        rows: (place, row); a row is an object, a text (a prompt of its own) or ``Unreadable``.

    Returns:
        (place, row) of the good ones and (place, problem) of the others, a row with several problems several times.
    """
    found: list[tuple[P, Row]] = []
    problems: list[tuple[P, str]] = []
    for place, row in rows:
        bad: list[str] = []
        if isinstance(row, Unreadable):
            bad.append(row.problem)
            made = None
        elif isinstance(row, str):
            made = _prompt({"prompt": row}, bad)
        elif not isinstance(row, Mapping):
            made = None
            bad.append(f"a row must be an object, got {kind(row)}")
        elif "custom_id" in row or "body" in row:
            made = _batch_prompt(row, bad)
        else:
            made = _prompt(row, bad)
        problems += [(place, problem) for problem in bad]
        if made is not None and not bad:
            found.append((place, made))
    return found, problems


def strict_json(text: str) -> Any:
    """Decode JSON, refusing NaN, Infinity and repeated keys.

    Raises:
        ValueError: With a short message.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len(out) < len(items):
            names = [key for key, _ in items]
            raise ValueError(f"key {next(k for k in names if names.count(k) > 1)!r} occurs twice")
        return out

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        said = error.msg.removesuffix(" at")
        raise ValueError(f"not JSON: {said} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("not JSON: nested too deeply") from error


def _batch_prompt(row: Mapping[str, Any], bad: list[str]) -> Row | None:
    bad += [unknown("key", key, BATCH_KEYS) for key in row if key not in BATCH_KEYS]
    body, url = row.get("body"), row.get("url", _BATCH_URLS[0])
    if row.get("method", "POST") != "POST":
        bad.append(f"method must be POST, got {row['method']!r}")
    if url not in _BATCH_URLS:
        bad.append(f"url must be one of {', '.join(_BATCH_URLS)}, got {url!r}")
    if "custom_id" not in row:
        bad.append("custom_id is missing")
    if not isinstance(body, Mapping):
        bad.append("body is missing" if body is None else f"body must be an object, got {body!r}")
        return None
    plain = {key: body[key] for key in (*TEXT_KEYS, "tools") if body.get(key) is not None}
    settings = {k: v for k, v in body.items() if k not in (*TEXT_KEYS, "tools", "metadata")}
    own = row.get("metadata", body.get("metadata")) or {}
    if not isinstance(own, Mapping):
        bad.append(f"metadata must be an object, got {own!r}")
        return None
    plain |= {key: row[key] for key in ("target", "group") if key in row}
    plain |= {"id": row.get("custom_id"), "metadata": {**own, "batch": {"url": url, **settings}}}
    return _prompt(plain, bad)


def _prompt(row: Mapping[str, Any], bad: list[str]) -> Row | None:
    bad += [unknown("key", key, ROW_KEYS) for key in row if key not in ROW_KEYS]
    given = [key for key in TEXT_KEYS if row.get(key) is not None]
    if len(given) > 1 or (not given and not row.get("vars")):
        got = "none of them" if not given else " and ".join(given)
        bad.append(f"needs exactly one of messages, prompt, input; has {got}")
        return None
    # A row of vars alone gets its messages from a template.
    messages = _messages(given[0], row[given[0]], bad, bool(row.get("vars"))) if given else []
    objects = {key: {} if row.get(key) is None else row[key] for key in ("metadata", "vars")}
    for key, value in objects.items():
        if not isinstance(value, Mapping):
            bad.append(f"{key} must be an object, got {value!r}")
    if isinstance(objects["vars"], Mapping):
        bad += [
            f"vars: {key!r} cannot be a variable's name (letters, digits and _)"
            for key in objects["vars"]
            if not (isinstance(key, str) and key.isidentifier())
        ]
    tools = row.get("tools") or None
    if tools is not None and (
        not isinstance(tools, Sequence) or not all(isinstance(t, Mapping) for t in tools)
    ):
        bad.append(f"tools must be a list of objects, got {tools!r}")
    prompt_id, group = _name("id", row.get("id"), bad), _name("group", row.get("group"), bad)
    if bad:
        return None
    tools = [dict(t) for t in tools] if tools else None
    try:
        made = json.dumps(
            [messages, tools, row.get("target"), *objects.values()],
            ensure_ascii=False,
            allow_nan=False,
        )
        made.encode()
    except (TypeError, ValueError, RecursionError):
        bad.append("holds a value that JSON cannot")
        return None
    # A copy through JSON: later changes by the caller do not reach it, and keys keep their order, which a
    # chat template that prints tools shows to the model.
    texts, own_tools, target, metadata, variables = json.loads(made)
    if prompt_id is None:
        prompt_id = made_id(texts, own_tools, variables)
    return Row(
        prompt_id,
        tuple(texts),
        target,
        metadata,
        group,
        tuple(own_tools) if own_tools else None,
        variables,
    )


def made_id(messages: Any, tools: Any, variables: Any) -> str:
    """The id of a row that has none: a hash of what the model is asked."""
    content = [messages, tools, *([variables] if variables else [])]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:10]


def _name(key: str, value: object, bad: list[str]) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        bad.append(f"{key} must be a non-empty text, got {value!r}")
        return None
    return str(value)


def _messages(key: str, value: object, bad: list[str], has_vars: bool) -> list[Message]:
    if isinstance(value, str) and key != "messages":
        value = [{"role": "user", "content": value}]
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        allowed = "a list of messages" if key == "messages" else "a text or a list of messages"
        bad.append(f"{key} must be {allowed}, got {value!r}")
        return []
    before = len(bad)
    messages = [_message(f"{key}[{i}]", message, bad) for i, message in enumerate(value)]
    asked = [
        m for m in messages if m.get("role") != "system" and str(m.get("content") or "").strip()
    ]
    if (
        len(bad) == before
        and not asked
        and not (has_vars and messages and all(m.get("role") == "system" for m in messages))
    ):
        bad.append("the prompt is empty")
    return messages


def _message(where: str, message: object, bad: list[str]) -> Message:
    if not isinstance(message, Mapping):
        bad.append(f"{where} must be an object with role and content, got {message!r}")
        return {}
    bad += [f"{where}: {unknown('key', k, MESSAGE_KEYS)}" for k in message if k not in MESSAGE_KEYS]
    if message.get("role") not in ROLES:
        bad.append(f"{where}: role must be one of {', '.join(ROLES)}, got {message.get('role')!r}")
    content = message.get("content")
    if isinstance(content, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
    ):
        content = "".join(part["text"] for part in content)
    elif not isinstance(content, str) and not (content is None and message.get("tool_calls")):
        bad.append(f"{where}: content must be text, got {content!r}")
    return {**message, "content": content}


def kind(value: object) -> str:
    """What a decoded value is, in words."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), f"{value!r}")
