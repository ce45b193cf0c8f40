"""Templates: the wording of a prompt, with places for what changes from prompt to prompt.

A template is a Jinja2 text, which becomes the prompt's last user message, or a list of messages whose contents are such
texts. It sees the prompt's ``vars``, and ``input`` (the text of the last user message, if there is one), ``system`` (the text
of the system message, or "") and ``metadata``; a variable of the prompt's own goes before these three. The target is out of
its reach. An undefined name is an error.

Templates may come from somebody else, so they run in Jinja's sandbox, narrowed further: no other template is loaded, only
the filters in ``FILTERS`` and the methods in ``METHODS`` are there, and every loop, call and text is charged to a budget,
so that a template ends within seconds and makes at most ``MAX_CHARS`` characters.

>>> from workbench.prompts import PromptSet
>>> prompt = PromptSet.from_records([{"id": "a", "vars": {"x": 3}}])["a"]
>>> render("What is {{ x }} + 1?", prompt).messages
({'role': 'user', 'content': 'What is 3 + 1?'},)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Sized
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache, lru_cache, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from workbench.errors import PromptSetError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.prompts import Prompt
    from workbench.records import Message

MAX_CHARS: Final = 1_000_000
"""Most characters a template may make of one prompt, and most that one text inside it may hold."""
MAX_WORK: Final = 20_000_000
"""Most characters and list items one rendering may touch, a loop counted as its template's length per round."""
ROLES: Final = ("system", "user", "assistant")
FILTERS: Final = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items"),
    *("join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr"),
    *("replace", "reverse", "round", "select", "selectattr", "sort", "string", "title", "tojson"),
    *("trim", "unique", "upper", "wordcount"),
)
METHODS: Final = {
    str: frozenset(
        (
            *("capitalize", "count", "endswith", "find", "isdigit", "lower", "lstrip"),
            *("removeprefix", "removesuffix", "rstrip", "split", "splitlines", "startswith"),
            *("strip", "title", "upper"),
        )
    ),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    LoopContext: frozenset(("changed", "cycle")),
}
_LOADING: Final = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_EXPRESSION_ERRORS: Final = (
    *(jinja2.TemplateError, ArithmeticError, AttributeError, LookupError),
    *(RecursionError, TypeError, ValueError),
)


class _TooMuchError(jinja2.TemplateRuntimeError):
    """The template passed one of its limits."""


@dataclass(slots=True)
class _Budget:
    """What a rendering may still do."""

    step: int
    left: int = MAX_WORK

    def charge(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise _TooMuchError("does too much work (too many or too long loops and texts)")


_BUDGET: ContextVar[_Budget | None] = ContextVar("_BUDGET", default=None)


def check(template: object) -> str | None:
    """What is wrong with a template, in one sentence, or None.

    Undefined names are found when it is rendered, since they depend on the prompt.
    """
    if isinstance(template, str):
        return _source_problem(template)
    if not isinstance(template, Sequence) or isinstance(template, bytes) or not template:
        return f"must be a text or a list of messages, got {template!r}"
    for i, message in enumerate(template, 1):
        problem = _message_problem(message)
        if problem is not None:
            return f"message {i}{problem}"
    if all(message["role"] == "system" for message in template):
        return "needs a message that is not a system message"
    return None


def render(
    template: str | Sequence[Mapping[str, str]], prompt: Prompt, *, name: str | None = None
) -> Prompt:
    """The prompt in a template's words.

    A text replaces the last user message, or is added after the messages if there is none. A list replaces all messages;
    the prompt's system message stays first if the list has none.

    Args:
        template: As ``check`` accepts it.
        prompt: Gives the variables; its id, target and everything else stay.
        name: What messages call the template.

    Raises:
        PromptSetError: The template cannot be used, or not with this prompt; names both.
    """
    called = "template" if name is None else f"template {name!r}"
    problem = check(template)
    if problem is not None:
        raise PromptSetError(called, problem)
    values = _values(prompt)

    def filled(source: str) -> str:
        text = fill(source, values, called, f"prompt {prompt.id!r}: ")
        if not text.strip():
            raise PromptSetError(called, f"prompt {prompt.id!r}: the message is empty")
        return text

    if not isinstance(template, str):
        made: list[Message] = [
            {"role": message["role"], "content": filled(message["content"])} for message in template
        ]
        if not any(message["role"] == "system" for message in made):
            made = [m for m in prompt.messages if m.get("role") == "system"] + made
        return replace(prompt, messages=tuple(made))
    messages = list(prompt.messages)
    last = _last(messages, "user")
    new = {"role": "user", "content": filled(template)}
    if last is None:
        messages.append(new)
    else:
        messages[last] = {**messages[last], **new}
    return replace(prompt, messages=tuple(messages))


def fill(source: str, values: Mapping[str, Any], called: str = "template", about: str = "") -> str:
    """A template's text with these variables.

    Args:
        source: A Jinja2 text.
        values: The variables.
        called: What messages call the template.
        about: What messages say before the problem.

    Raises:
        PromptSetError: It cannot be used, or not with these variables.
    """
    problem = _source_problem(source)
    if problem is not None:
        raise PromptSetError(called, about + problem)
    try:
        return _fill(source, values)
    except _EXPRESSION_ERRORS as error:
        raise PromptSetError(called, about + _said(error, source, values)) from error


def _values(prompt: Prompt) -> dict[str, Any]:
    messages = prompt.messages
    user, system = _last(messages, "user"), _last(messages, "system")
    values: dict[str, Any] = {"metadata": prompt.metadata}
    values["system"] = "" if system is None else messages[system]["content"]
    if user is not None:
        values["input"] = messages[user]["content"]
    return values | prompt.vars


def _last(messages: Sequence[Message], role: str) -> int | None:
    return next(
        (i for i in reversed(range(len(messages))) if messages[i].get("role") == role), None
    )


def _said(error: BaseException, source: str, values: Mapping[str, Any]) -> str:
    """A template's failure in words, with its line if it has several."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f"line {line}: " if line is not None and "\n" in source.strip() else ""
    if isinstance(error, jinja2.UndefinedError):
        also = "; a template never sees the target" if "'target' is undefined" in str(error) else ""
        return f"{where}{error}; known: {', '.join(sorted(values))}{also}"
    if isinstance(error, RecursionError):
        return f"{where}calls itself too deeply"
    message = error.message if isinstance(error, jinja2.TemplateError) else str(error)
    return f"{where}{message}".rstrip(".")


def _message_problem(message: object) -> str | None:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        return f" must have role and content and nothing else, got {message!r}"
    if message["role"] not in ROLES:
        return f": role must be one of {', '.join(ROLES)}, got {message['role']!r}"
    if not isinstance(message["content"], str):
        return f": content must be text, got {message['content']!r}"
    problem = _source_problem(message["content"])
    return None if problem is None else f": {problem}"


def _source_problem(source: str) -> str | None:
    if not source.strip():
        return "is empty"
    if len(source) > MAX_CHARS:
        return f"is longer than {MAX_CHARS:,} characters"
    try:
        _compiled(source)
    except jinja2.TemplateError as error:
        return _said(error, source, {})
    except (RecursionError, SyntaxError, MemoryError):
        return "is nested too deeply"
    return None


def _fill(source: str, values: Mapping[str, Any]) -> str:
    template = _compiled(source)
    token = _BUDGET.set(_Budget(step=len(source)))
    parts: list[str] = []
    length = 0
    try:
        for part in template.generate(values):
            length += len(part)
            if length > MAX_CHARS:
                raise _TooMuchError(f"makes more than {MAX_CHARS:,} characters")
            parts.append(part)
    finally:
        _BUDGET.reset(token)
    return "".join(parts)


@lru_cache(maxsize=256)
def _compiled(source: str) -> jinja2.Template:
    environment = _environment()
    tree = environment.parse(source)
    for node in tree.find_all(_LOADING):
        raise jinja2.TemplateSyntaxError("other templates cannot be loaded", node.lineno)
    for used in tree.find_all(nodes.Filter):
        if used.name not in FILTERS:
            problem = unknown("filter", used.name, FILTERS)
            raise jinja2.TemplateSyntaxError(problem, used.lineno)
    token = _BUDGET.set(_Budget(step=len(source)))
    try:
        code = environment.compile(_Charged().visit(tree), filename="<template>")
    finally:
        _BUDGET.reset(token)
    return jinja2.Template.from_code(environment, code, environment.make_globals(None))


class _Charged(NodeTransformer):
    """Puts the budget's checks around loops, assignments and joined texts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - a name the visitor looks up
        self.generic_visit(node)
        node.iter = self._through("loop over", node.iter)
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:  # noqa: N802 - as above
        self.generic_visit(node)
        node.node = self._through("keep in size", node.node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - as above
        self.generic_visit(node)
        return self._through("join texts", nodes.List(node.nodes, lineno=node.lineno))

    @staticmethod
    def _through(name: str, value: Any) -> nodes.Filter:
        # The names hold spaces, so no template can write them.
        return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with allow-lists and a budget."""

    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def is_safe_callable(self, obj: Any) -> bool:
        """True for macros, ``range`` and the methods in ``METHODS``."""
        if isinstance(obj, Macro | LoopContext) or obj is _range:
            return True
        allowed = METHODS.get(type(getattr(obj, "__self__", None)), frozenset())
        return getattr(obj, "__name__", "") in allowed

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what is safe to call, at the price of its arguments."""
        if isinstance(obj, jinja2.Undefined):
            return obj()  # raises, and names what is undefined
        if not self.is_safe_callable(obj):
            name = getattr(obj, "__name__", type(obj).__name__)
            raise SecurityError(f"{name} cannot be called in a template")
        budget = _budget()
        budget.charge(budget.step)
        for value in (getattr(obj, "__self__", None), *args, *kwargs.values()):
            _in_size(value)
        return context.call(obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator whose result may be much larger than its operands."""
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% on a text is not available; join texts with ~")
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" or (operator == "*" and numbers):
            if not numbers or abs(left) > 1e18 or abs(right) > (64 if operator == "**" else 1e18):
                raise _TooMuchError(f"{operator} on numbers this large is not available")
        elif operator == "*":
            times = next((v for v in (left, right) if isinstance(v, int)), 0)
            sized = next((v for v in (left, right) if isinstance(v, Sized)), ())
            if times * max(_in_size(sized), 1) > MAX_CHARS:
                raise _TooMuchError(f"makes more than {MAX_CHARS:,} characters")
        return _in_size_value(super().call_binop(context, operator, left, right))


@cache
def _environment() -> _Environment:
    environment = _Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, finalize=_in_size_value, optimized=False
    )
    own: dict[str, Callable[..., Any]] = {"join": _join, "replace": _replace}
    own |= {"string": _string, "tojson": _json}
    environment.filters = {
        **{name: _priced(own.get(name, environment.filters[name])) for name in FILTERS},
        "loop over": _loop_over,
        "keep in size": _in_size_value,
        "join texts": lambda values: _join(values, ""),
    }
    environment.globals = {"range": _range}
    return environment


def _budget() -> _Budget:
    return _BUDGET.get() or _Budget(step=1)


def _in_size(value: Any) -> int:
    """Characters and items a value holds when written out; charged, and refused above ``MAX_CHARS``."""
    size, todo = 0, [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, Mapping):
            size += len(item)
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            size += len(item)
            todo += item
        else:
            size += 1
        if size > MAX_CHARS:
            raise _TooMuchError(f"makes more than {MAX_CHARS:,} characters")
    _budget().charge(size)
    return size


def _in_size_value(value: Any) -> Any:
    _in_size(value)
    return value


def _priced(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, charged for what it is applied to."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def priced(*args: Any, **kwargs: Any) -> Any:
        for value in (*args[first:], *kwargs.values()):
            _in_size(value)
        return _in_size_value(function(*args, **kwargs))

    return priced


def _loop_over(values: Any) -> Any:
    budget = _budget()
    if not isinstance(values, Sized):
        values = list(islice(values, budget.left // max(budget.step, 1) + 1))
    budget.charge(len(values) * budget.step)
    return values


def _range(*limits: int) -> range:
    made = range(*limits)
    if len(made) > 100_000:
        raise _TooMuchError("range is limited to 100,000 numbers")
    return made


def _join(values: Any, separator: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        values = [_environment().getitem(value, attribute) for value in values]
    texts = [str(_in_size_value(value)) for value in values]
    if len(separator) * len(texts) > MAX_CHARS:
        raise _TooMuchError(f"makes more than {MAX_CHARS:,} characters")
    return separator.join(texts)


def _replace(text: str, old: str, new: str) -> str:
    if text.count(old) * len(new) > MAX_CHARS:
        raise _TooMuchError(f"makes more than {MAX_CHARS:,} characters")
    return text.replace(old, new)


def _string(value: Any) -> str:
    return str(value)


def _json(value: Any) -> str:
    """JSON as people write it in a prompt; Jinja's own is for HTML and escapes ``<`` and ``&``."""
    return json.dumps(value, ensure_ascii=False)
