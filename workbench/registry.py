"""The prompt sets that ship, by name: what each shows, and how it is meant to be run.

``datasets/registry.json`` lists them; ``scripts/make_datasets.py`` writes it. In a study, ``prompts: builtin:arithmetic``
takes a set by name.

>>> names()[:3]
('arithmetic', 'capitals', 'sentiment')
>>> entry("arithmetic").scorers
('numeric',)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench import prompts
from workbench.errors import PromptSetError
from workbench.prompts.sources import builtin, registered, registry_file

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.prompts import PromptSet


@dataclass(frozen=True, slots=True)
class Entry:
    """One prompt set that ships.

    Attributes:
        name: As in ``builtin:<name>``.
        file: Name of its file, beside the registry.
        sha256: Hash of its content, as ``PromptSet.sha256``.
        n: Number of prompts.
        scorers: Scorers that fit it, in the form a study takes them; the first is the primary one.
        max_tokens: Long enough for a good answer to any of its prompts.
        shows: What it is good for, in one line.
    """

    name: str
    file: str
    sha256: str
    n: int
    scorers: tuple[str | dict[str, Any], ...]
    max_tokens: int
    shows: str

    def study(self) -> dict[str, Any]:
        """The entries of a study that go with this set: prompts, scorers and ``fixed`` with max_tokens.

        >>> entry("capitals").study()
        {'prompts': 'builtin:capitals', 'scorers': ['contains'], 'fixed': {'max_tokens': 24}}
        """
        return {
            "prompts": f"builtin:{self.name}",
            "scorers": list(self.scorers),
            "fixed": {"max_tokens": self.max_tokens},
        }


def names() -> tuple[str, ...]:
    """Names of the sets that ship, in the order of the registry.

    Raises:
        PromptSetError: The registry is missing or damaged.
    """
    return tuple(registered())


def path(name: str) -> Path:
    """The file of a set.

    Raises:
        PromptSetError: There is none of that name; lists the names.
    """
    return builtin(name)


def entry(name: str) -> Entry:
    """What the registry says of a set.

    Raises:
        PromptSetError: There is none of that name, or its entry is damaged.
    """
    builtin(name)  # says which names there are
    values = registered()[name]
    try:
        return Entry(name=name, **(values | {"scorers": tuple(values["scorers"])}))
    except (TypeError, KeyError) as error:
        problem = f"{registry_file()}: the entry {name!r} is damaged ({error}); install it again"
        raise PromptSetError("builtin", problem) from error


def entries() -> tuple[Entry, ...]:
    """All sets that ship, in the order of the registry.

    Raises:
        PromptSetError: The registry is missing or damaged.
    """
    return tuple(entry(name) for name in names())


def load(name: str) -> PromptSet:
    """Read a set and check it against its hash.

    Raises:
        PromptSetError: There is none of that name, or its file is not as it was shipped.
    """
    return prompts.load(f"builtin:{name}")
