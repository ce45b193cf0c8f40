"""Prompt sets: reading them, checking them, hashing them.

Sources, told apart by name and content:

* ``.jsonl``: one object per line with ``id``, one of ``messages`` / ``prompt`` / ``input``, and optionally ``target``,
  ``metadata``, ``group``, ``tools``, ``vars`` (variables for templates; with them the text may be missing).
* ``.csv`` and ``.tsv``: columns of the same names; ``messages``, ``metadata``, ``tools`` and ``vars`` as JSON text,
  ``target`` always as text. ``{file, fields}`` names other columns.
* OpenAI batch files (``.jsonl`` with ``custom_id`` and ``body``). The body's decoding settings do not act: a study sets
  them. They are kept in ``metadata["batch"]``.
* OpenAI fine-tuning files (``.jsonl``, every row with nothing but ``messages`` and ``tools``, the last message the
  assistant's): that message becomes the target.
* ``.yaml``: a promptfoo file, see ``workbench.prompts.promptfoo``.
* ``hf:<data set>/<split>``, see ``workbench.prompts.hub``; ``builtin:<name>``, a set that ships.

A row without an id gets one made from its messages, so it keeps its seeds and its split when rows are added around it.
Every problem of every file is listed at once, each with file and line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import PromptSetError
from workbench.prompts import checkrows, fileforms, sources
from workbench.prompts.checkrows import canonical_json
from workbench.prompts.sources import builtin, find_file, is_file_name, spec_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from workbench.prompts.sources import Source
    from workbench.records import Message

__all__ = ["Prompt", "PromptSet", "builtin", "find_file", "is_file_name", "load", "spec_problems"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One item to be answered.

    Attributes:
        id: Unique in its set.
        messages: Chat messages with text for the model to answer; empty if only a template can ask it.
        target: What a scorer compares with: text, number, list, object, or None.
        metadata: Anything else worth keeping; no scorer or engine reads it unless told to.
        group: Prompts that belong together (variants of one question); they stay in one split and count as one cluster.
        tools: Tool definitions handed to the chat template.
        vars: Variables for templates.
    """

    id: str
    messages: tuple[Message, ...]
    target: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    vars: dict[str, Any] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """What counts as one independent observation: the group, or the prompt itself."""
        return self.id if self.group is None else self.group

    def to_dict(self) -> dict[str, Any]:
        """A row that reads back as this prompt; absent fields left out."""
        row: dict[str, Any] = {"id": self.id}
        optional = {
            "messages": [dict(m) for m in self.messages] or None,
            "target": self.target,
            "metadata": self.metadata or None,
            "group": self.group,
            "tools": list(self.tools) if self.tools else None,
            "vars": self.vars or None,
        }
        return row | {key: value for key, value in optional.items() if value is not None}


@dataclass(frozen=True, slots=True)
class PromptSet:
    """An ordered collection of prompts with unique ids.

    Attributes:
        name: For people; not part of the hash.
        prompts: At least one.
        source: Where they came from: file names, or "inline".
        sets: If they came from several sources: name of each to the ids of its prompts; not part of the hash.
        sha256: Hash of the content, whatever the file format or the order of the rows.

    Raises:
        PromptSetError: No prompts, or an id that occurs twice.

    >>> PromptSet.from_records([{"id": "a", "prompt": "Hi"}], "greetings")["a"].messages
    ({'role': 'user', 'content': 'Hi'},)
    """

    name: str
    prompts: tuple[Prompt, ...]
    source: str = "inline"
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    sha256: str = field(init=False)
    _index: dict[str, Prompt] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {prompt.id: prompt for prompt in self.prompts}
        if not self.prompts:
            raise PromptSetError("prompts", f"{self.source}: no prompts")
        if len(index) < len(self.prompts):
            places = [(f"row {n}", p) for n, p in enumerate(self.prompts, 1)]
            raise PromptSetError("prompts", _duplicates(places))
        digest = hashlib.sha256()
        for prompt_id in sorted(index):
            digest.update(canonical_json(index[prompt_id].to_dict()).encode() + b"\n")
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "sha256", digest.hexdigest())

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self._index

    def __getitem__(self, prompt_id: str) -> Prompt:
        return self._index[prompt_id]

    @property
    def unasked(self) -> tuple[str, ...]:
        """Ids of the prompts that have only variables, so that a template must ask them."""
        return tuple(p.id for p in self.prompts if all(m["role"] == "system" for m in p.messages))

    def subset(self, n: int, seed: int) -> PromptSet:
        """``n`` prompts drawn by seed, in the set's order; all of them if there are fewer.

        A smaller subset of the same seed is contained in a larger one.

        Raises:
            ValueError: ``n`` is below 1.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if n >= len(self):
            return self
        drawn = sorted(self._index, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
        keep = set(drawn[:n])
        sets = {name: tuple(i for i in ids if i in keep) for name, ids in self.sets.items()}
        prompts = tuple(p for p in self.prompts if p.id in keep)
        return replace(self, prompts=prompts, sets={n: ids for n, ids in sets.items() if ids})

    def with_system(self, text: str | None) -> PromptSet:
        """The same prompts, each with this system message first; None changes nothing.

        Raises:
            PromptSetError: Some prompt has a system message of its own.
        """
        if text is None:
            return self
        own = [p.id for p in self.prompts if any(m["role"] == "system" for m in p.messages)]
        if own:
            shown = ", ".join(repr(i) for i in own[:3]) + (", ..." if len(own) > 3 else "")
            raise PromptSetError(
                self.source,
                f"{len(own)} of {len(self)} prompts have a system message of their own ({shown}); "
                "remove it, or leave the study's system empty",
            )
        first = {"role": "system", "content": text}
        prompts = tuple(replace(p, messages=(first, *p.messages)) for p in self.prompts)
        return replace(self, prompts=prompts)

    @classmethod
    def from_file(cls, path: str | Path | Mapping[str, Any]) -> PromptSet:
        """Read one file.

        Args:
            path: The file, or ``{"file": ..., "fields": {our field: column}}`` where its columns have other names.

        Raises:
            PromptSetError: Lists every problem with file and line.
        """
        return load(path if isinstance(path, Mapping) else Path(path))

    @classmethod
    def from_records(cls, records: Iterable[Any], name: str = "inline") -> PromptSet:
        """Make a set from row objects or plain texts.

        Raises:
            PromptSetError: Lists every problem with its row number, from 1.
        """
        rows = [(f"row {n}", record) for n, record in enumerate(records, 1)]
        found, bad = checkrows.check_rows(rows)
        problems = [f"{place}: {problem}" for place, problem in bad]
        return _assemble(name, "inline", found, problems)


def load(
    spec: str | Path | Mapping[str, Any] | Sequence[Any] | PromptSet,
    base_dir: str | Path | None = None,
) -> PromptSet:
    """Read a prompt set from whatever names one.

    Args:
        spec: A source: a file name, ``hf:<data set>/<split>[@commit]``, ``builtin:<name>``, or an object, see
            ``spec_problems``; a list of sources (joined); a list of row objects or plain texts; or a set as it is.
        base_dir: Relative file names are looked up here first, then in the current directory.

    Raises:
        PromptSetError: Lists every problem of every source.
    """
    if isinstance(spec, PromptSet):
        return spec
    single = isinstance(spec, str | Path | Mapping)
    items: list[Any] = [spec] if isinstance(spec, str | Path | Mapping) else list(spec)
    if not single and not any(is_file_name(item) for item in items):
        return PromptSet.from_records(items)
    found: list[tuple[str, checkrows.Row]] = []
    problems: list[str] = []
    names: list[str] = []
    labels: list[str] = []
    sets: dict[str, tuple[str, ...]] = {}
    for item in items:
        if not (single or isinstance(item, str | Path) or is_file_name(item)):
            problems.append(f"a list of files cannot also hold {checkrows.kind(item)}")
            continue
        source, bad = sources.parse(item, base_dir)
        if source is not None:
            good, bad = _rows(source, base_dir)
            found += good
            names.append(Path(source.name).stem if source.kind == "file" else source.name)
            labels.append(source.label + (f"@{source.revision}" if source.revision else ""))
            own = labels[-1] if names[-1] in sets else names[-1]  # two files of one name
            sets[own] = (*sets.get(own, ()), *(row.id for _, row in good))
        problems += bad
    joined = _assemble("+".join(names), ", ".join(labels), found, problems)
    return replace(joined, sets=sets) if len(sets) > 1 else joined


def _rows(source: Source, base_dir: str | Path | None) -> fileforms.Read:
    if source.kind == "hf":
        from workbench.prompts import hub  # noqa: PLC0415 - only where it is asked for

        return hub.read(source, base_dir)
    path, problem = sources.find_file(source.label, base_dir)
    if path is None:
        return [], [problem]
    if path.suffix.lower() in (".yaml", ".yml"):
        from workbench.prompts import promptfoo  # noqa: PLC0415 - as above

        return promptfoo.rows(path)
    found, problems = fileforms.read(path, source.fields)
    if source.kind == "builtin" and not problems:
        entry = sources.registered()[source.name]
        if _assemble(source.name, str(path), found, []).sha256 != entry["sha256"]:
            problems = [f"{source.label}: {path} is not as it was shipped; install it again"]
    return found, problems


def _assemble(
    name: str, source: str, found: list[tuple[str, checkrows.Row]], problems: list[str]
) -> PromptSet:
    problems = problems + _duplicates(found)
    if not found and not problems:
        problems = [f"{source}: no prompts"]
    if problems:
        raise PromptSetError("prompts", problems)
    return PromptSet(name, tuple(Prompt(*row) for _, row in found), source)


def _duplicates(found: Iterable[tuple[str, Prompt | checkrows.Row]]) -> list[str]:
    first: dict[str, tuple[str, Any]] = {}
    problems = []
    for place, prompt in found:
        before, other = first.setdefault(prompt.id, (place, prompt))
        if before == place:
            continue
        problem = f"id {prompt.id!r} is already used at {before}"
        if prompt.id == checkrows.made_id(prompt.messages, prompt.tools, prompt.vars):
            problem = f"the same prompt as {before}"
            if canonical_json(prompt.target) != canonical_json(other.target):
                problem += ", with another target"
            problem += "; leave one out, or give them ids"
        problems.append(f"{place}: {problem}")
    return problems
