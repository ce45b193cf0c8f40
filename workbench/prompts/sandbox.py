"""The sandbox that templates run in: Jinja's own, narrowed further.

No other template is loaded; only the filters in ``FILTERS``, the tests of Jinja, and the methods in ``METHODS`` are there.
Every loop, call, comparison and text is charged to a budget, so that a template ends within seconds and makes at most
``MAX_CHARS`` characters. Only texts, numbers, truth values, null, lists and objects can be written out: anything else would
show Python's inside, and an address that differs from run to run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MappingView, Sized
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from workbench.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CHARS: Final = 1_000_000
"""Most characters a template may make of one prompt, and most that one text inside it may hold."""
MAX_WORK: Final = 20_000_000
"""Most characters and list items one rendering may touch, a loop counted as its template's length per round."""
FILENAME: Final = "<template>"
"""What tracebacks call a template."""
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
_MAX_BITS: Final = 4_096
_MAX_PLACES: Final = 30
_MAX_NUMBER: Final = 100
_MAX_STRIPPED: Final = 100
_BY_ATTRIBUTE: Final = ("map", "max", "min", "rejectattr", "selectattr", "sort", "unique")
_SORTING: Final = {"sort": 16, "dictsort": 16}
SELF: Final = "var_self__"
"""What a variable named ``self`` is called inside, since Jinja has one of its own."""


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


def filled(source: str, values: Mapping[str, Any]) -> str:
    """A template's text with these variables.

    Raises:
        jinja2.TemplateError: It does something that it may not; so do the errors of its expressions (division by zero).
    """
    template = compiled(source)
    values = {SELF if name == "self" else name: value for name, value in values.items()}
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
def compiled(source: str) -> jinja2.Template:
    """A template, checked.

    Raises:
        jinja2.TemplateError: It cannot be used.
    """
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
        code = environment.compile(_Charged().visit(tree), filename=FILENAME)
    finally:
        _BUDGET.reset(token)
    return jinja2.Template.from_code(environment, code, environment.make_globals(None))


class _Charged(NodeTransformer):
    """Puts the budget's checks around loops, assignments, comparisons, slices and joined texts."""

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

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802 - as above
        self.generic_visit(node)
        node.expr = self._through("keep in size", node.expr)
        for operand in node.ops:
            operand.expr = self._through("keep in size", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - as above
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = self._through("keep in size", node.node)
        elif not isinstance(node.arg, nodes.Const):
            node.arg = self._through("keep in size", node.arg)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802 - as above
        self.generic_visit(node)
        for pair in node.items:
            pair.key = self._through("keep in size", pair.key)
        return node

    def visit_Name(self, node: nodes.Name) -> nodes.Node:  # noqa: N802 - as above
        """Jinja has a ``self`` of its own, which would hide a variable of that name."""
        if node.name == "self" and node.ctx == "load":
            node.name = SELF
        return node

    @staticmethod
    def _through(name: str, value: Any) -> nodes.Filter:
        # The names hold spaces, so no template can write them.
        return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with allow-lists and a budget."""

    intercepted_binops = frozenset(("*", "**", "+", "-", "/", "//", "%"))

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
        if getattr(obj, "__name__", "").endswith("strip") and args:
            _strippable(args[0])
        budget = _budget()
        budget.charge(budget.step)
        for value in (getattr(obj, "__self__", None), *args, *kwargs.values()):
            _in_size(value)
        return context.call(obj, *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What an object holds under a name goes before what Python gives it."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator whose result may be much larger than its operands."""
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% on a text is not available; join texts with ~")
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if any(isinstance(v, int) and v.bit_length() > _MAX_BITS for v in (left, right)):
            raise _TooMuchError(f"{operator} on numbers this large is not available")
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
        undefined=jinja2.StrictUndefined, autoescape=False, finalize=_writable, optimized=False
    )
    own: dict[str, Callable[..., Any]] = {"join": _join, "replace": _replace}
    own |= {"string": _string, "tojson": _json, "trim": _trim}
    own |= {"int": _bounded_int(environment.filters["int"])}
    own |= {"round": _bounded_round(environment.filters["round"])}
    environment.filters = {
        **{name: _priced(own.get(name, environment.filters[name]), name) for name in FILTERS},
        "loop over": _loop_over,
        "keep in size": _in_size_value,
        "join texts": lambda values: _join(values, ""),
    }
    # Jinja's own three would format a text with %.
    numeric: dict[str, Callable[..., Any]] = {
        "odd": lambda value: _whole(value) % 2 == 1,
        "even": lambda value: _whole(value) % 2 == 0,
        "divisibleby": lambda value, by: _whole(value) % _whole(by) == 0,
    }
    tests: dict[str, Any] = dict(environment.tests)
    tests |= numeric
    environment.tests = {name: _priced(test, name) for name, test in tests.items()}
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
        elif isinstance(item, range):
            size += len(item)
        elif isinstance(item, MappingView):
            size += len(item)
            todo += item  # type: ignore[arg-type]
        else:
            size += 1 + (item.bit_length() // 8 if isinstance(item, int) else 0)
        if size > MAX_CHARS:
            raise _TooMuchError(f"makes more than {MAX_CHARS:,} characters")
    _budget().charge(size)
    return size


def _in_size_value(value: Any) -> Any:
    _in_size(value)
    return value


def _writable(value: Any) -> Any:
    """The value, if its text is the same in every run."""
    _in_size(value)
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, Mapping):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            todo += item
        elif not isinstance(item, str | int | float | jinja2.Undefined | None):
            raise SecurityError(_unwritable(item))
    return value


def _unwritable(value: Any) -> str:
    if callable(value):
        name = getattr(value, "__name__", None) or getattr(value, "name", type(value).__name__)
        return f"{name} is a function, which cannot be written out; call it: {name}()"
    kind = type(value).__name__
    if hasattr(value, "__iter__"):
        return f"a {kind} cannot be written out; make it a list (| list) or a text (| join)"
    return f"a {kind} cannot be written out"


def _priced(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The filter or test, charged for what it is applied to."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0
    factor = _SORTING.get(name, 1)

    @wraps(function)
    def priced(*args: Any, **kwargs: Any) -> Any:
        sizes = [_in_size(value) for value in (*args[first:], *kwargs.values())]
        if (
            name in _BY_ATTRIBUTE or factor > 1
        ):  # an attribute may be a long path, followed in every item
            budget, items = _budget(), sizes[0] if sizes else 0
            budget.charge(items * (factor - 1 + sum(sizes[1:]) // 16))
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
    texts = [str(_writable(value)) for value in values]
    if len(separator) * len(texts) > MAX_CHARS:
        raise _TooMuchError(f"makes more than {MAX_CHARS:,} characters")
    return separator.join(texts)


def _replace(text: str, old: str, new: str) -> str:
    if text.count(old) * len(new) > MAX_CHARS:
        raise _TooMuchError(f"makes more than {MAX_CHARS:,} characters")
    return text.replace(old, new)


def _string(value: Any) -> str:
    return str(_writable(value))


def _strippable(chars: Any) -> None:
    if isinstance(chars, str) and len(chars) > _MAX_STRIPPED:
        raise _TooMuchError(f"strips at most {_MAX_STRIPPED} different characters")


def _trim(value: Any, chars: str | None = None) -> str:
    _strippable(chars)
    return str(_writable(value)).strip(chars)


def _bounded_int(convert: Callable[..., int]) -> Callable[..., int]:
    def bounded(value: Any, default: int = 0, base: int = 10) -> int:
        if isinstance(value, str) and len(value) > _MAX_NUMBER:
            raise _TooMuchError(f"int reads at most {_MAX_NUMBER} characters")
        return convert(value, default, base)

    return bounded


def _bounded_round(convert: Callable[..., float]) -> Callable[..., float]:
    def bounded(value: Any, precision: int = 0, method: str = "common") -> float:
        if not isinstance(precision, int) or abs(precision) > _MAX_PLACES:
            raise _TooMuchError(f"round takes at most {_MAX_PLACES} places")
        return convert(value, precision, method)

    return bounded


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r:.40} is not a whole number")
    return value


def _json(value: Any) -> str:
    """JSON as people write it in a prompt; Jinja's own is for HTML and escapes ``<`` and ``&``."""
    return json.dumps(value, ensure_ascii=False)
