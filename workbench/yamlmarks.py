"""YAML that remembers its lines.

``yaml.safe_load`` forgets where a value stood and silently keeps the last of two equal keys. Here a document comes with
the line of every value, so that a problem found later can be reported where it was written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import yaml

MAX_REPEATED: Final = 100_000
"""Most values that aliases may stand for, 100 characters of a text counted as one."""

Path = tuple[str | int, ...]
"""Keys and list positions from the root, for example ``("grid", "temperature", 2)``."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A decoded document.

    Attributes:
        data: The plain value.
        lines: Path to line, from 1.
        problems: What is wrong with the document itself, each starting with its line.
    """

    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def line(self, path: Path) -> int:
        """Line of a value, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(text: str) -> Marked:
    """Decode one YAML document (safe tags only); never raises, see ``Marked.problems``."""
    lines: dict[Path, int] = {}
    problems: list[str] = []
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Marked(None, problems=("the file is empty",))
            walk = _Walk(lines, problems)
            walk.visit(node, (), ())
            return Marked(loader.construct_document(node), lines, tuple(problems))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "line 1"
        return Marked(None, problems=(f"{where}: not YAML: {error.problem or error.context}",))
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        return Marked(None, problems=(f"line {line}: not YAML: {error.reason}",))
    except ValueError as error:  # a date or number that looks right and is not, such as 2024-13-01
        return Marked(None, problems=(f"line 1: not YAML: {error}",))
    except RecursionError:
        return Marked(None, problems=("line 1: not YAML: nested too deeply",))


class _Walk:
    """A walk through a document that notes lines and repeated keys."""

    def __init__(self, lines: dict[Path, int], problems: list[str]) -> None:
        self.lines, self.problems = lines, problems
        self.seen: set[int] = set()
        self.repeated = 0

    def visit(self, node: yaml.Node, path: Path, above: tuple[int, ...]) -> None:
        if id(node) in above:  # an alias to what it stands in
            raise yaml.constructor.ConstructorError(None, None, "refers to itself", node.start_mark)
        above = (*above, id(node))
        self._count(node)
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            for n, item in enumerate(node.value):
                self.visit(item, (*path, n), above)
        elif isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in seen and key.tag != "tag:yaml.org,2002:merge":
                    self.problems.append(
                        f"line {line}: {name!r} is already given at line {seen[name]}"
                    )
                seen.setdefault(name, line)
                self.lines[(*path, name)] = line
                self.visit(value, (*path, name), above)

    def _count(self, node: yaml.Node) -> None:
        """What aliases repeat; a few lines of them can stand for more than fits into memory."""
        if id(node) in self.seen:
            text = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
            self.repeated += 1 + text // 100
        self.seen.add(id(node))
        if self.repeated > MAX_REPEATED:
            problem = f"aliases stand for more than {MAX_REPEATED:,} values"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
