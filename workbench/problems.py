"""Gathering the problems of a document, each with the place where it was written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.errors import unknown

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.yamlmarks import Marked
    from workbench.yamlmarks import Path as Where


@dataclass
class Check:
    """Gathers problems.

    Attributes:
        marked: The YAML document, for lines; None for a study made in Python.
        base_dir: Where relative paths are looked up first.
        check_files: Whether files that are not there are problems.
        problems: (line, text), in the order found.
    """

    marked: Marked | None = None
    base_dir: Path | None = None
    check_files: bool = True
    problems: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for problem in self.marked.problems if self.marked else ():
            found = re.match(r"line (\d+)", problem)
            self.problems.append((int(found[1]) if found else 1, problem))

    def unknown(self, path: Where, kind: str, known: Iterable[str]) -> None:
        """Note a key that does not exist; it is the last part of ``path``."""
        self.add(path, unknown(kind, path[-1], known), path[:-1])

    def add(self, path: Where, text: str, shown_path: Where | None = None) -> None:
        """Note a problem at a place; ``path`` is () for the study as a whole."""
        parts = path if shown_path is None else shown_path
        name = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")
        shown = f"{name}: {text}" if name else text
        line = self.marked.line(path) if self.marked else 0
        self.problems.append((line, f"line {line}: {shown}" if self.marked else shown))

    def listed(self) -> list[str]:
        """The problems as texts, by line."""
        return [text for _, text in sorted(self.problems, key=lambda p: p[0])]


def short(value: object) -> str:
    """A value for a message, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def plain(value: Any) -> Any:
    """A copy in plain Python values: numpy numbers and arrays, ranges and tuples as numbers and lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(item) for item in value]
    return value
