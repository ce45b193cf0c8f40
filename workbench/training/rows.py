"""Training data: rows with a prompt and its answer, read, checked, and told apart into those trained on and those held out.

A row of a JSONL file (or of a list) is one of

* ``{"messages": [...]}``, the last message the assistant's: the answer. Earlier answers in it are context, not trained on;
* ``{"prompt" or "input" or "messages": ..., "target": ...}``: the target, a text or a number, is the answer;

and may have ``id``, ``group``, ``tools``, ``metadata``, and ``system`` (a system message put first). CSV files, ``hf:`` data
sets and prompt sets are read as `workbench.prompts` reads them, and their prompts by the same rules. Every problem is listed,
with file and line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench import prompts as prompt_sets
from workbench.errors import PromptSetError
from workbench.prompts import PromptSet, checkrows, fileforms, sources
from workbench.prompts.checkrows import Unreadable, canonical_json, strict_json
from workbench.training.questions import Turn, fingerprint, open_questions, turns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from workbench.records import Message

_LINES: Final = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn.

    Attributes:
        place: ``file:line``, ``row n`` or an id.
        messages: What is asked, without the answer.
        answer: What to say.
        tools: Handed to the chat template.
        fingerprint: Of what is asked last, see `workbench.training.questions`; of an open question with all that is before it.
        asks: The same of every user message of the row.
        group: Rows of one group are trained on or held out together, as are rows that ask the same.
    """

    place: str
    messages: tuple[Message, ...]
    answer: str
    tools: tuple[dict[str, Any], ...] | None
    fingerprint: str
    asks: tuple[str, ...]
    group: str | None = None

    def content(self) -> str:
        """The row as text, for hashing and comparing."""
        return canonical_json([self.messages, self.answer, self.tools, self.group])


@dataclass(frozen=True, slots=True)
class Data:
    """Training rows.

    Attributes:
        source: File name, or what else named them.
        examples: At least one, none twice.
        sha256: Hash of the rows, in their order.
        file_sha256: Hash of the file, if it is one.
    """

    source: str
    examples: tuple[Example, ...]
    sha256: str
    file_sha256: str | None

    def split(self, validation: float) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """Rows to train on, and rows held out, see `split`."""
        return split(self.examples, validation)


def split(
    examples: Sequence[Example], validation: float
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Rows to train on, and rows held out, both in their order.

    Rows of one group and rows that ask the same belong together, and so do rows linked by other rows. An open question (see
    `workbench.training.questions.open_questions`) is the same only after the same context. What belongs together is on one side. Which is held out is told by a hash of what is asked, and by nothing else: the lowest ones, until the share is
    reached. Of rows so many that with them more than twice the share were held out, none is; but where a share is asked for,
    something is held out, and something is left to train on, if there are two sets of rows that do not belong together.

    Args:
        examples: Rows.
        validation: Share held out, 0 up to but not including 1.
    """
    linked = sorted(_linked(examples), key=lambda rows: _rank(examples, rows))
    held: list[int] = []
    if validation and len(linked) > 1:
        wanted = max(1, round(validation * len(examples)))
        for rows in linked:
            n = len(held) + len(rows)
            if len(held) < wanted and n <= 2 * wanted and n < len(examples):
                held += rows
        held = held or min(linked, key=len)
    out = frozenset(held)
    return (
        tuple(e for i, e in enumerate(examples) if i not in out),
        tuple(e for i, e in enumerate(examples) if i in out),
    )


def _linked(examples: Sequence[Example]) -> list[list[int]]:
    """Numbers of the rows that belong together."""
    above: dict[tuple[str, str], tuple[str, str]] = {}

    def top(name: tuple[str, str]) -> tuple[str, str]:
        while (up := above.setdefault(name, name)) != name:
            above[name] = above[up]  # half the way next time
            name = up
        return name

    for e in examples:
        if e.group is not None:
            above[top(("asks", e.fingerprint))] = top(("group", e.group))
    found: dict[tuple[str, str], list[int]] = {}
    for i, e in enumerate(examples):
        found.setdefault(top(("asks", e.fingerprint)), []).append(i)
    return list(found.values())


def _rank(examples: Sequence[Example], rows: Sequence[int]) -> bytes:
    """A hash of what rows ask, to sort by: the same in every file and order."""
    return hashlib.sha256(min(examples[i].fingerprint for i in rows).encode()).digest()


def read(data: str | Path | PromptSet | Iterable[Any] | Data) -> Data:
    """Read training rows from a file, a list of row objects, or whatever names a prompt set.

    Raises:
        PromptSetError: Lists every problem: rows without an answer, rows twice, unreadable lines, no rows.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, PromptSet):
        return _made(data.source, _of_set(data), None)
    if isinstance(data, str | Path):
        if str(data).lower().endswith(_LINES) and not str(data).startswith(("hf:", "builtin:")):
            return _file(data)
        return _made(str(data), _of_set(prompt_sets.load(data)), None)
    rows = [(f"row {n}", row) for n, row in enumerate(data, 1)]
    return _made("rows", _checked(rows), None)


def _file(name: str | Path) -> Data:
    path, problem = sources.find_file(name, None)
    if path is None:
        raise PromptSetError("training data", problem)
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise PromptSetError(f"{path}:{line}", "not UTF-8 text; save it as UTF-8") from error
    return _made(str(name), _checked(_lines(path, text)), hashlib.sha256(raw).hexdigest())


def _lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    for n, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{path}:{n}", strict_json(line)
            except ValueError as error:
                yield f"{path}:{n}", Unreadable(str(error))


Problem = tuple[str, str]
"""A place, and what is wrong there."""
Found = tuple[list[Example], list[Problem]]
"""Rows, and what is wrong with others."""


def _checked(rows: Iterable[tuple[str, Any]]) -> Found:
    plain: list[tuple[str, Any]] = []
    for place, row in rows:
        text = isinstance(row, str)
        made = Unreadable("a row must be an object, got a text") if text else _plain(row)
        plain.append((place, made))
    found, problems = checkrows.check_rows(plain)
    ids: dict[str, str] = {}
    named = {place for place, row in plain if isinstance(row, Mapping) and row.get("id")}
    examples = []
    for place, row in found:
        if place in named and row.id in ids:
            problems.append((place, f"id {row.id!r} is already used at {ids[row.id]}"))
        ids.setdefault(row.id, place)
        examples += _example(place, row, problems)
    problems += _twice(examples)
    order = {place: n for n, (place, _) in enumerate(plain)}
    return examples, sorted(problems, key=lambda problem: order[problem[0]])


def _plain(row: Any) -> Any:
    """A row in the fields of a prompt: its ``system`` as the first message, its last answer as the target."""
    if not isinstance(row, Mapping):
        return row
    if _ends_with_answer(row.get("messages")):
        if row.get("target") is not None:
            said = (
                "has a target, and its last message is the assistant's too; leave one of them out"
            )
            return Unreadable(said)
        last = row["messages"][-1]
        if last.get("tool_calls"):
            said = "the answer is a tool call; write the call as the text that the model should say"
            return Unreadable(said)
        metadata = row.get("metadata")
        known = metadata.get("answer_weight", 1) if isinstance(metadata, Mapping) else 1
        weight = last.get("weight", known)
        if weight != 1:
            said = f"the answer has weight {weight!r}, and only weight 1 is trained on; leave the row out"
            return Unreadable(said)
        row = {key: value for key, value in row.items() if key != "target"}
    plain = dict(fileforms.from_tuning(row))
    system = plain.pop("system", None)
    return plain if system is None else _with_system(plain, system)


def _with_system(row: dict[str, Any], system: Any) -> dict[str, Any] | Unreadable:
    """The row with a system message put first."""
    asked = next((row[k] for k in checkrows.TEXT_KEYS if row.get(k) is not None), None)
    if isinstance(asked, str):
        asked = [{"role": "user", "content": asked}]
    if not isinstance(system, str) or not isinstance(asked, list):
        return Unreadable(f"system must be a text before a prompt, got {system!r}")
    if any(isinstance(m, Mapping) and m.get("role") == "system" for m in asked):
        return Unreadable("has a system field and a system message; leave one of them out")
    rest = {k: v for k, v in row.items() if k not in checkrows.TEXT_KEYS}
    return rest | {"messages": [{"role": "system", "content": system}, *asked]}


def _ends_with_answer(messages: Any) -> bool:
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, Mapping) and last.get("role") == "assistant"


def _of_set(prompts: PromptSet) -> Found:
    return _checked([(repr(p.id), p.to_dict()) for p in prompts])


def _example(place: str, row: checkrows.Row, problems: list[Problem]) -> list[Example]:
    """The row as an example, or none and what is wrong with it."""
    asked = fingerprint(row.messages)
    answer = row.target
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if answer is None:
        problem = "no answer: give a target, or end messages with the assistant's"
    elif not isinstance(answer, str):
        problem = (
            f"the answer must be a text or a number, got {checkrows.kind(answer)}; write it as text"
        )
    elif not answer.strip():
        problem = "the answer is empty"
    elif asked is None:
        problem = "no user asks anything in it"
    else:
        return [Example(place, row.messages, answer, row.tools, asked, (asked,), row.group)]
    problems.append((place, problem))
    return []


def _made(source: str, found: Found, file_sha256: str | None) -> Data:
    examples, bad = found
    problems = [f"{place}: {problem}" for place, problem in bad]
    if not examples and not problems:
        problems = [f"{source}: no rows"]
    if problems:
        raise PromptSetError("training data", problems)
    text = "".join(f"{example.content()}\n" for example in examples)
    told = tuple(_told(examples))
    return Data(source, told, hashlib.sha256(text.encode()).hexdigest(), file_sha256)


def _told(examples: Sequence[Example]) -> Iterator[Example]:
    """The rows with what they ask, which all of them together tell."""
    found: list[list[Turn]] = [turns(e.messages, e.answer) for e in examples]
    open_ = open_questions(turn for asked in found for turn in asked)
    for example, asked in zip(examples, found, strict=True):
        asks = tuple(turn.asks(open_) for turn in asked)
        yield replace(example, fingerprint=asks[-1], asks=asks)


def _twice(examples: Sequence[Example]) -> list[Problem]:
    """Rows that say the same as an earlier one; the same prompt with another answer is no such row."""
    first: dict[str, str] = {}
    problems = []
    for example in examples:
        content = example.content()
        if content in first:
            problems.append((example.place, f"the same row as {first[content]}"))
        first.setdefault(content, example.place)
    return problems
