"""promptfoo files: the part of them that is prompts, variables and checks.

Read: ``prompts`` (texts with ``{{variables}}``, chats as JSON text, ``{raw, label}``), ``defaultTest`` and ``tests`` with
``vars`` (a list makes one prompt per value, several lists their product), ``assert``, ``description``, ``metadata`` and
``threshold``. ``providers``, ``description``, ``outputPath`` and ``sharing`` are left out: a study says what runs. Whatever
else a file asks for is refused, so nothing is silently lost; other files (``file://``) and JavaScript are never read or run.

The prompts become templates. What a test asserts becomes the target of its prompts, ``{"assert": [...]}``, which the scorer
``asserts`` judges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench import yamlmarks
from workbench.errors import PromptSetError, unknown
from workbench.prompts import checkrows, templates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.prompts import Prompt, PromptSet
    from workbench.prompts.fileforms import Read

TYPES: Final = (
    *("equals", "contains", "icontains", "contains-any", "contains-all", "icontains-any"),
    *("icontains-all", "starts-with", "regex", "is-json", "contains-json", "python"),
)
"""Assertions that are read; each but ``python`` also with ``not-`` before it."""
_LISTS: Final = ("contains-any", "contains-all", "icontains-any", "icontains-all")
_TOP: Final = ("prompts", "tests", "defaultTest")
_IGNORED: Final = (
    "description",
    "providers",
    "targets",
    "outputPath",
    "sharing",
    "evaluateOptions",
    "tags",
)
_TEST: Final = ("vars", "assert", "description", "metadata", "threshold")
_ASSERT: Final = ("type", "value", "weight", "metric")
_ONLY: Final = "; this reads prompts, tests, vars and assert"
_OTHER_FILE: Final = re.compile(
    r"(file:|exec:|package:|https?://)\S*\Z"
    r"|\S+\.(txt|jsonl?|[cm]?[jt]s|py|sh|rb|go|exe|ya?ml|md|csv|tsv|xlsx?|j2)(:\S*)?\Z"
    r"|\S*/\S*\*\S*\Z",
    re.IGNORECASE,
)
"""What promptfoo takes for the name of a file or of a program, and not for a prompt."""
_INSIDE: Final = re.compile(r"\{\{|\{%|\{#")
MAX_PROMPTS: Final = 100_000

Where = tuple[str | int, ...]


class _File:
    """A file being read: its marks, and what is wrong."""

    def __init__(self, path: Path, allow_python: bool) -> None:
        self.path, self.allow_python = path, allow_python
        self.problems: list[str] = []
        self.marks = yamlmarks.Marked(None)

    def add(self, where: Where, problem: str) -> None:
        self.problems.append(f"{self.path}:{self.marks.line(where)}: {problem}")


def read(
    path: str | Path, *, allow_python: bool = False
) -> tuple[PromptSet, dict[str, str | list[Any]]]:
    """The prompts of a promptfoo file, and its wordings.

    Args:
        path: The file.
        allow_python: Take ``python`` assertions. They stay texts here; the scorer ``asserts`` runs them, with its option
            ``allow_python``.

    Returns:
        The set, its prompts with ``vars`` and no messages, and template by name.

    Raises:
        PromptSetError: Lists every problem with file and line.
    """
    from workbench.prompts import PromptSet  # noqa: PLC0415 - it imports this module in turn

    source = Path(path)
    raw, wordings, problems = _parsed(source, allow_python)
    found, wrong = checkrows.check_rows(raw)
    problems += [f"{place}: {problem}" for place, problem in wrong]
    if problems:
        raise PromptSetError("prompts", problems)
    made = PromptSet.from_records([_as_row(row) for _, row in found], source.stem)
    return made, wordings


def rows(path: Path) -> Read:
    """The file's prompts for a study: in its wording if it has one, else of variables alone, for a study's templates."""
    from workbench.prompts import Prompt  # noqa: PLC0415 - as above

    raw, wordings, problems = _parsed(path, allow_python=False)
    found, wrong = checkrows.check_rows(raw)
    problems += [f"{place}: {problem}" for place, problem in wrong]
    if problems or len(wordings) != 1:
        return found, problems
    worded: list[tuple[str, checkrows.Row]] = []
    for place, row in found:
        try:
            prompt = _worded(Prompt(*row), wordings)
        except PromptSetError as error:
            problems.append(f"{place}: {error.problems[0]}")
        else:
            worded.append((place, row._replace(messages=prompt.messages)))
    return worded, problems


def _worded(prompt: Prompt, wordings: Mapping[str, Any]) -> Prompt:
    ((name, template),) = wordings.items()
    return templates.render(template, prompt, name=name)


def _as_row(row: checkrows.Row) -> dict[str, Any]:
    values = row._asdict()
    if not row.messages:
        del values["messages"]
    return values


def _parsed(
    path: Path, allow_python: bool
) -> tuple[list[tuple[str, Any]], dict[str, str | list[Any]], list[str]]:
    file = _File(path, allow_python)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        return [], {}, [f"{path}: cannot be read ({why})"]
    file.marks = yamlmarks.read(text)
    data = file.marks.data
    if file.marks.problems:
        return [], {}, [f"{path}: {problem}" for problem in file.marks.problems]
    if not isinstance(data, Mapping):
        return [], {}, [f"{path}: must hold prompts and tests, got {checkrows.kind(data)}"]
    for key in data:
        if key not in _TOP + _IGNORED and key != "$schema":
            file.add((str(key),), unknown("key", key, _TOP) + _ONLY)
    wordings = _wordings(data.get("prompts"), file)
    default = data.get("defaultTest") or {}
    _check_test(default, ("defaultTest",), file)
    made = _tests(data.get("tests"), default if isinstance(default, Mapping) else {}, file)
    return made, wordings, file.problems


def _wordings(value: Any, file: _File) -> dict[str, str | list[Any]]:
    items = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(items, list) or not items:
        file.add(("prompts",), "prompts must be a text or a list of texts")
        return {}
    out: dict[str, str | list[Any]] = {}
    for n, item in enumerate(items):
        where: Where = ("prompts", n)
        label = None
        if isinstance(item, Mapping):
            for key in item:
                if key not in ("raw", "label", "id"):
                    file.add(where, unknown("key", key, ("raw", "label", "id")))
            label, item = item.get("label", item.get("id")), item.get("raw", item.get("id"))  # noqa: PLW2901
        template = _template(item, where, file)
        if template is None:
            continue
        name = _name(str(label)) if label else f"p{n + 1}"
        if name in out:
            file.add(where, f"label {name!r} occurs twice")
        out[name] = template
    return out


def _name(label: str) -> str:
    """A label as a study's template may be called."""
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in label)
    return kept.strip("-")[:40] or "p"


def _template(item: Any, where: Where, file: _File) -> str | list[Any] | None:
    if not isinstance(item, str):
        file.add(where, f"a prompt must be text, got {checkrows.kind(item)}")
        return None
    if _OTHER_FILE.match(item):
        file.add(where, f"other files are not read ({item}); write the prompt here")
        return None
    template: str | list[Any] = item
    if item.lstrip().startswith("["):
        try:
            template = checkrows.strict_json(item)
        except ValueError:
            template = item  # a text that begins with a bracket
    problem = templates.check(template)
    if problem is not None:
        file.add(where, problem if problem.startswith("message") else f"the prompt: {problem}")
        return None
    return template


def _check_test(test: Any, where: Where, file: _File) -> None:
    if not isinstance(test, Mapping):
        file.add(where, f"a test must be an object, got {test!r}")
        return
    for key in test:
        if key not in _TEST:
            file.add((*where, str(key)), unknown("key", key, _TEST) + _ONLY)
    if not isinstance(test.get("vars") or {}, Mapping):
        other = "; other files are not read" if isinstance(test["vars"], str) else ""
        file.add((*where, "vars"), f"vars must be an object, got {test['vars']!r}{other}")
    _check_values(test.get("vars") or {}, where, file)
    threshold = test.get("threshold")
    if threshold is not None and (
        isinstance(threshold, bool)
        or not isinstance(threshold, int | float)
        or not 0 <= threshold <= 1
    ):
        file.add((*where, "threshold"), f"threshold must be from 0 to 1, got {threshold!r}")
    asserts = test.get("assert") or []
    if not isinstance(asserts, list):
        file.add((*where, "assert"), f"assert must be a list, got {asserts!r}")
        return
    for n, item in enumerate(asserts):
        problem = _assert_problem(item, file.allow_python)
        if problem is not None:
            file.add((*where, "assert", n), problem)


def _check_values(variables: Any, where: Where, file: _File) -> None:
    """Refuse values that promptfoo would read or fill in, and that this would ask as they stand."""
    found = variables.items() if isinstance(variables, Mapping) else ()
    for name, value in found:
        place = (*where, "vars", str(name))
        texts = list(_texts(value))
        other = next((text for text in texts if _is_file(text)), None)
        if other is not None:
            file.add(
                place, f"vars: {name}: other files are not read ({other}); write the text here"
            )
        elif any(_INSIDE.search(text) for text in texts):
            file.add(
                place,
                f"vars: {name}: variables inside variables are not filled in; write the text out",
            )


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _is_file(text: str) -> bool:
    return text.lstrip().lower().startswith("file://")


def _assert_problem(item: Any, allow_python: bool) -> str | None:
    if not isinstance(item, Mapping):
        return f"an assertion must be an object with type and value, got {item!r}"
    for key in item:
        if key not in _ASSERT:
            return unknown("key", key, _ASSERT)
    kind, weight = str(item.get("type")), item.get("weight", 1)
    plain = kind.removeprefix("not-")
    if plain not in TYPES or kind == "not-python":
        what = "JavaScript is never run" if plain == "javascript" else "this type is not supported"
        return f"assert {kind}: {what}; supported: {', '.join(TYPES)}, and not-..."
    if plain == "python" and not allow_python:
        return (
            "assert python: Python from a file is taken only where you allow it: "
            "workbench import FILE --allow-python --to FILE.jsonl"
        )
    if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
        return f"assert {kind}: weight must be a number at least 0, got {weight!r}"
    problem = _value_problem(plain, item.get("value"))
    return None if problem is None else f"assert {kind}: {problem}"


def _value_problem(kind: str, value: Any) -> str | None:
    other = next((text for text in _texts(value) if _is_file(text)), None)
    if other is not None:
        return f"other files are not read ({other})"
    if kind in _LISTS:
        ok, allowed = isinstance(value, list) and bool(value), "a list"
    elif kind.endswith("json"):
        ok, allowed = value is None or isinstance(value, Mapping), "a JSON schema, or absent"
    elif kind == "equals":
        ok, allowed = value is not None, "given"
    else:
        ok, allowed = isinstance(value, str | int | float) and value != "", "a text"
    return None if ok else f"value must be {allowed}, got {value!r}"


def _tests(value: Any, default: Mapping[str, Any], file: _File) -> list[tuple[str, Any]]:
    if isinstance(value, str):
        file.add(("tests",), f"other files are not read ({value}); load it as a CSV instead")
        return []
    tests = [{}] if value is None and default.get("vars") else value
    if not isinstance(tests, list) or not tests:
        file.add(("tests",), "tests must be a list of tests")
        return []
    made: list[tuple[str, Any]] = []
    for n, test in enumerate(tests):
        before = len(file.problems)
        where: Where = ("tests", n)
        _check_test(test, where, file)
        if len(file.problems) > before:
            continue
        variables = {**(default.get("vars") or {}), **(test.get("vars") or {})}
        if not variables:
            file.add(where, "a test needs vars")
            continue
        place = f"{file.path}:{file.marks.line(where)}"
        combinations = list(_combinations(variables, MAX_PROMPTS - len(made) + 1))
        if len(made) + len(combinations) > MAX_PROMPTS:
            file.add(where, f"makes more than {MAX_PROMPTS:,} prompts")
            return made
        for k, values in enumerate(combinations, 1):
            name = {"id": f"t{n + 1}"}
            if len(combinations) > 1:
                name = {"id": f"t{n + 1}-{k}", "group": f"t{n + 1}"}
            try:
                row = name | _row(test, default, values)
            except PromptSetError as error:
                file.add((*where, "assert"), error.problems[0])
                break
            made.append((place, row))
    return made


def _combinations(variables: Mapping[str, Any], most: int) -> Iterator[dict[str, Any]]:
    """Every choice of one value from each list."""
    choices = [value if isinstance(value, list) else [value] for value in variables.values()]
    for n, values in enumerate(product(*choices)):
        if n == most:
            return
        yield dict(zip(variables, values, strict=True))


def _row(
    test: Mapping[str, Any], default: Mapping[str, Any], values: dict[str, Any]
) -> dict[str, Any]:
    asserts = [
        {
            "type": item["type"],
            **({"value": _filled(item["value"], values)} if item.get("value") is not None else {}),
            **({"weight": item["weight"]} if "weight" in item else {}),
        }
        for item in [*(default.get("assert") or []), *(test.get("assert") or [])]
    ]
    target: dict[str, Any] = {"assert": asserts}
    threshold = test.get("threshold", default.get("threshold"))
    if threshold is not None:
        target["threshold"] = threshold
    metadata = {**(default.get("metadata") or {}), **(test.get("metadata") or {})}
    if test.get("description"):
        metadata["description"] = test["description"]
    row: dict[str, Any] = {"vars": values}
    if asserts:
        row["target"] = target
    if metadata:
        row["metadata"] = metadata
    return row


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """An assertion's value with the test's variables put in."""
    if isinstance(value, str) and ("{{" in value or "{%" in value):
        return templates.fill(value, values, "assert")
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    return value


def templates_yaml(wordings: Mapping[str, Any]) -> str:
    """The wordings as a study's ``templates:`` block; JSON strings are YAML too."""
    lines = [
        f"  {json.dumps(name)}: {json.dumps(text, ensure_ascii=False)}"
        for name, text in wordings.items()
    ]
    return "\n".join(["templates:", *lines, ""])
