"""Reading tool calls out of an answer, in the forms that chat models write them.

Read, in this order, the first form that occurs:

* ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, the end tag may be missing (Qwen2, Hermes)
* ``<function=name>{...}</function>`` (Llama 3.1)
* ``Action: name`` and ``Action Input: {...}`` lines (ReAct, as Qwen1.5 writes them), and the same with qwen-agent's marks
* JSON, alone, fenced, behind a mark such as ``[TOOL_CALLS]``, or in prose: an object with ``name`` and ``arguments`` or
  ``parameters``, one wrapped in ``function``, ``tool_calls``, or a list of these; arguments may be JSON in a text (OpenAI)
* Python: ``f(a=1)`` or ``[f(a=1), g(b="x")]``, alone, fenced, on a line of its own, or behind ``<|python_tag|>`` (Llama 3),
  where ``f.call(a=1)`` is a call of ``f``

A call may lack its arguments, or have null for them, where it cannot be anything else: in a tag or wrapper, or where its name
is a tool's. An empty list of ``tool_calls`` is no call.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from workbench.prompts.checkrows import strict_json
from workbench.scorers.jsonscore import candidates

_MOST: Final = 50_000
_TAGGED: Final = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_FUNCTION: Final = re.compile(
    r"<function=([\w.\-]+)>(.*?)(?:</function>|(?=<function=)|\Z)", re.DOTALL
)
_REACT: Final = re.compile(
    r"^[ \t*]*Action:[ \t*]*([\w.\-]+)[ \t*`]*\n+[ \t*]*Action[ _]Input:[ \t*]*(.*?)"
    r"(?=^[ \t*]*(?:Observation|Thought|Action|Final Answer):|\Z)"
    r"|^\u273fFUNCTION\u273f:[ \t]*([\w.\-]+)[ \t]*\n\u273fARGS\u273f:(.*?)(?=^\u273f|\Z)",
    re.DOTALL | re.MULTILINE,
)
_FENCE: Final = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_PYTHON: Final = re.compile(r"\[?\s*[A-Za-z_][\w.]*\(.*\)\s*\]?", re.DOTALL)
_TAG: Final = re.compile(
    r"<\|python_tag\|>(.*?)(?:<\|(?:eom_id|eot_id|end_of_text)\|>|\Z)", re.DOTALL
)
_NO_CALL: Final = frozenset(("none", "no_tool", "no tool"))
_ATTEMPT: Final = re.compile(
    r"\{\s*\"(?:function|tool_calls)\"\s*:|\{\s*\"name\"\s*:.{0,200}?\"(?:arguments|parameters)\"",
    re.DOTALL,
)
_MOST_ATTEMPTS: Final = 50
_ARGUMENTS: Final = ("arguments", "parameters", "args")


@dataclass(frozen=True, slots=True)
class Call:
    """One call: a tool's name and its arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of an answer.

    Attributes:
        calls: In order.
        problems: What was wrong with attempts that are no calls.
    """

    calls: list[Call] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def parse_calls(
    text: str, tools: Sequence[Mapping[str, Any]] | None = None, names: Iterable[str] | None = None
) -> Calls:
    """All tool calls of an answer; only its first 50,000 characters are read.

    Args:
        text: The answer.
        tools: The prompt's tool definitions. They name the positional arguments of calls in Python form, and with them
            only these tools are calls in that form: anything else is code.
        names: Tools that are known without definitions; none at all means that Python, but behind its mark, is code.
            By default any name may be one.

    >>> parse_calls('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>').calls
    [Call(name='add', arguments={'a': 1})]
    """
    text = text[:_MOST]
    for read in (_tagged, _function, _react):
        found = read(text)
        if found.calls or found.problems:
            return found
    parameters = _parameters(tools)
    known = frozenset(parameters).union(names or ())
    marked = _TAG.search(text)
    text = marked[1].strip() if marked else text
    found = _json(text, known)
    if found.calls or (names is not None and not known and not marked):
        return found
    return _python(text, parameters, marked=marked is not None) or found


def _tagged(text: str) -> Calls:
    found = Calls()
    for match in list(_TAGGED.finditer(text))[:_MOST_ATTEMPTS]:
        body = match[1].strip()
        try:
            value = strict_json(_unfenced(body))
        except ValueError as error:
            called = _python(body, {})
            if called is None:
                found.problems.append(f"a <tool_call> is {error}")
            else:
                found.calls.extend(called.calls)
            continue
        calls = as_calls(value, None)
        if calls:
            found.calls.extend(calls)
        else:
            found.problems.append("a <tool_call> has no name with arguments")
    return found


def _function(text: str) -> Calls:
    return _named((m[1], m[2]) for m in _FUNCTION.finditer(text))


def _react(text: str) -> Calls:
    pairs = ((m[1] or m[3], m[2] if m[1] else m[4]) for m in _REACT.finditer(text))
    return _named(pair for pair in pairs if pair[0].lower() not in _NO_CALL)


def _named(pairs: Iterator[tuple[str, str]]) -> Calls:
    found = Calls()
    for name, body in pairs:
        body = _unfenced(body.strip())  # noqa: PLW2901 - the same text without its fence
        try:
            value = strict_json(body) if body else {}
        except ValueError as error:
            first = body.split("\n\n")[0].strip()
            value = _first_object(first)
            if value is None:
                found.problems.append(f"the arguments of {name} are {error}")
                continue
        if isinstance(value, dict):
            found.calls.append(Call(name, value))
        else:
            found.problems.append(f"the arguments of {name} are no object")
        if len(found.calls) + len(found.problems) >= _MOST_ATTEMPTS:
            break
    return found


def _first_object(text: str) -> Any:
    value = next(candidates(text), (None,))[0]
    return value if isinstance(value, dict) else None


def _json(text: str, known: Container[str]) -> Calls:
    """Calls in JSON; if there is none, what is wrong with text that looks as if it should be one."""
    calls: list[Call] = []
    for (value,) in candidates(text):
        calls = as_calls(value, known)
        if calls:
            break
        if (
            isinstance(value, dict)
            and value.get("tool_calls") in ([], None)
            and "tool_calls" in value
        ):
            return Calls()
    if len(calls) == 1 and not _whole_json(text):
        calls = _every_object(text, known) or calls
    if calls:
        return Calls(calls)
    if not _ATTEMPT.search(text):
        return Calls()
    body = text[text.index("{") :].strip().removesuffix("```").strip()
    try:
        strict_json(body)
    except ValueError as error:
        return Calls([], [f"a call in JSON is {error}"])
    return Calls([], ["a call in JSON has no name with arguments"])


def _whole_json(text: str) -> bool:
    try:
        strict_json(text)
    except ValueError:
        return False
    return True


def _every_object(text: str, known: Container[str]) -> list[Call]:
    """Calls written one after the other, each an object of its own, in the order of the text."""
    found: dict[int, Call] = {}
    for (value,) in candidates(text):
        for call in as_calls(value, known):
            at = text.find(f'"{call.name}"')
            while at in found:
                at = text.find(f'"{call.name}"', at + 1)
            if at >= 0:
                found[at] = call
    return [found[at] for at in sorted(found)]


def as_calls(value: Any, known: Container[str] | None = ()) -> list[Call]:
    """The calls that a decoded JSON value stands for; none if it is anything else.

    Args:
        value: Decoded JSON.
        known: Names that are calls without arguments too, where nothing else is said; None: any name.
    """
    if isinstance(value, list):
        each = [as_calls(item, known) for item in value]
        return [call for calls in each for call in calls] if all(each) else []
    if not isinstance(value, dict):
        return []
    for wrapper in ("tool_calls", "function", "function_call"):
        if isinstance(value.get(wrapper), dict | list):
            return as_calls(value[wrapper], None)
    name = value.get("name", value.get("function"))
    if not isinstance(name, str) or not name:
        return []
    given = [value[k] for k in _ARGUMENTS if k in value]
    arguments = given[0] if given else None
    if arguments is None and (given or known is None or name in known):
        plain = set(value) <= {"name", "function", "type", "id", *_ARGUMENTS}
        arguments = {} if plain else None
    if isinstance(arguments, str):
        try:
            arguments = strict_json(arguments or "{}")
        except ValueError:
            return []
    return [Call(name, arguments)] if isinstance(arguments, dict) else []


def _python(
    text: str, parameters: Mapping[str, Sequence[str]], *, marked: bool = False
) -> Calls | None:
    pieces = [text, *(m[1] for m in _FENCE.finditer(text)), *text.splitlines()]
    for piece in pieces[:_MOST_ATTEMPTS]:
        body = piece.strip().strip("`").strip()
        if not _PYTHON.fullmatch(body):
            continue
        try:
            tree = ast.parse(body, mode="eval").body
            items = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
            calls = [_called(item, parameters, marked=marked) for item in items]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if calls and (not parameters or all(call.name in parameters for call in calls)):
            return Calls(calls)
    return None


def _called(
    node: ast.expr, parameters: Mapping[str, Sequence[str]], *, marked: bool = False
) -> Call:
    if not isinstance(node, ast.Call):
        raise ValueError("not a call")  # noqa: TRY004 - one kind of error for the caller
    name = ast.unparse(node.func)
    if marked:
        name = name.removesuffix(".call")
    known = parameters.get(name, ())
    names = [known[n] if n < len(known) else str(n) for n in range(len(node.args))]
    arguments = {key: ast.literal_eval(arg) for key, arg in zip(names, node.args, strict=True)}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("not a plain argument")
        arguments[keyword.arg] = ast.literal_eval(keyword.value)
    return Call(name, arguments)


def _parameters(tools: Sequence[Mapping[str, Any]] | None) -> dict[str, list[str]]:
    """Parameter names of each tool, in order."""
    found = {}
    for tool in tools or ():
        function = tool.get("function", tool)
        schema = function.get("parameters") if isinstance(function, Mapping) else None
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        if isinstance(function, Mapping):
            names = properties if isinstance(properties, Mapping) else ()
            found[str(function.get("name"))] = [str(key) for key in names]
    return found


def _unfenced(text: str) -> str:
    match = _FENCE.fullmatch(text)
    return match[1].strip() if match else text
