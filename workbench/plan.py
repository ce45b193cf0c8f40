"""From a study to rows: cells, seeds, splits, and the ordered requests.

Seeds and splits are hashes of names, never of positions. A prompt keeps its seeds and its side of the split when others
are added, and every cell and adapter draws with the same seeds (common random numbers), so cells are compared on the
same luck.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from workbench.params import FIELDS, SEED_MAX, SamplingParams
from workbench.records import BASE, Request
from workbench.searchspace import dimensions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from workbench.prompts import Prompt, PromptSet
    from workbench.study import Study

Split = Literal["select", "confirm"]
Key = tuple[str, str, int]
"""(cell_id, prompt_id, repeat)."""

SHORT: Final = {
    "temperature": "T",
    "top_p": "p",
    "top_k": "k",
    "min_p": "min_p",
    "repetition_penalty": "rep",
    "frequency_penalty": "freq",
    "presence_penalty": "pres",
    "max_tokens": "max",
    "stop": "stop",
    "seed": "seed",
}
"""How a label names a setting, in label order."""


def request_seed(study_seed: int, prompt_id: str, repeat: int) -> int:
    """Seed of one draw, 1..9999999999; the same in every cell and adapter.

    >>> request_seed(7, "q1", 0) == request_seed(7, "q1", 0) != request_seed(7, "q1", 1)
    True
    """
    name = json.dumps([study_seed, prompt_id, repeat]).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:16]) % SEED_MAX + 1


def split_of(prompt: Prompt, confirm: float) -> Split:
    """Which side of the split a prompt is on.

    Args:
        prompt: Only its group (or else its id) counts, so a group stays together.
        confirm: Share held out for the final answer, 0 <= confirm < 1.
    """
    digest = hashlib.sha256(b"split:" + prompt.cluster.encode()).digest()
    return "confirm" if int.from_bytes(digest[:8]) < confirm * 2**64 else "select"


@dataclass(frozen=True, slots=True)
class Cell:
    """Decoding settings and an adapter: one thing that is compared.

    Attributes:
        params: In canonical form. ``seed`` is None unless the study sets one itself.
        adapter: Adapter name, or "base".
        name: The name the study gives it, if it does.
        template: Name of the wording of its prompts; None if the study has no templates.
        label: Short name for tables and plots: only what the grid varies.
        cell_id: 10 hex digits, a hash of canonical settings, adapter name and template name.
    """

    params: SamplingParams
    adapter: str = BASE
    name: str | None = None
    template: str | None = None
    label: str = field(default="", compare=False)
    cell_id: str = field(init=False)

    def __post_init__(self) -> None:
        settings = self.params.canonical().to_dict()
        wording = [] if self.template is None else [self.template]
        content = json.dumps([settings, self.adapter, *wording], sort_keys=True).encode()
        object.__setattr__(self, "cell_id", hashlib.sha256(content).hexdigest()[:10])

    def rows(self, repeats: int) -> int:
        """Different answers this cell can give to a prompt: 1 if nothing in it varies between repeats."""
        return 1 if self.params.greedy or self.params.seed is not None else repeats


class Collapsed(NamedTuple):
    """A cell that was written but does the same as another: it is not run.

    Attributes:
        dropped: With its settings as written.
        kept: The cell that runs in its place.
    """

    dropped: Cell
    kept: Cell


def number(value: float) -> str:
    """A number as short as it can be written exactly."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def label(
    params: SamplingParams,
    varied: Iterable[str],
    adapter: str,
    name: str | None,
    template: str | None = None,
) -> str:
    """Short name of a cell.

    >>> label(SamplingParams(temperature=0.7, top_k=50), ["temperature", "top_k"], "base", None)
    'T=0.7 k=50'
    >>> label(SamplingParams(temperature=0), ["temperature"], "terse", None)
    'greedy terse'
    """
    varied = set(varied)
    parts = [name] if name else []
    for setting, short in SHORT.items():
        value = getattr(params, setting)
        if name or setting not in varied or value is None:
            continue
        if setting == "temperature" and value == 0:
            parts.append("greedy")
        elif setting == "stop":
            parts.append(f"stop={json.dumps(list(value), ensure_ascii=False)}")
        else:
            parts.append(f"{short}={number(value)}")
    if not parts:
        parts = ["greedy" if params.greedy else f"T={number(params.temperature)}"]
    extras = [template] if template else []
    return " ".join([*parts, *extras, *([adapter] if adapter != BASE else [])])


def collapse(written: Iterable[Cell]) -> tuple[tuple[Cell, ...], tuple[Collapsed, ...]]:
    """Merge cells that behave the same; the first one written stays and is labelled.

    Returns:
        The cells to run, in order, and what was merged into them.
    """
    written = list(written)
    varied: dict[str, set[Any]] = {f: set() for f in FIELDS}
    for cell in written:
        params = cell.params.canonical()
        for setting in FIELDS:
            varied[setting].add(getattr(params, setting))
    names = [setting for setting, values in varied.items() if len(values) > 1]
    kept: dict[str, Cell] = {}
    merged: list[tuple[Cell, str]] = []
    for cell in written:
        params = cell.params.canonical()
        text = label(params, names, cell.adapter, cell.name, cell.template)
        if cell.cell_id in kept:
            written_names = [*names, *_set_in(cell.params)]
            shown = label(cell.params, written_names, cell.adapter, cell.name, cell.template)
            merged.append((replace(cell, label=shown), cell.cell_id))
        else:
            kept[cell.cell_id] = replace(cell, params=params, label=text)
    return tuple(kept.values()), tuple(Collapsed(cell, kept[i]) for cell, i in merged)


def _set_in(params: SamplingParams) -> list[str]:
    return [s for s in FIELDS if s != "max_tokens" and getattr(params, s) is not None]


@dataclass(frozen=True)
class Plan:
    """What a study will run, in order, without holding it in memory.

    Rows are ordered by prompt, then cell, then repeat, so that an engine reads each prompt once for all cells.

    Attributes:
        study: The study.
        prompt_set: Its prompts, system message included.
        cells: The cells to run, in the study's order.
        collapsed: Cells that were written but run as another one.
        baseline: The cell that the others are compared with.
        wordings: Template name to the prompts as that template words them; None is the prompts as they are.
    """

    study: Study
    prompt_set: PromptSet
    cells: tuple[Cell, ...]
    collapsed: tuple[Collapsed, ...]
    baseline: Cell
    wordings: Mapping[str | None, PromptSet] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.n_rows

    def __iter__(self) -> Iterator[Request]:
        return self.requests()

    @property
    def n_rows(self) -> int:
        """Number of rows, prompts x cells x repeats after merging."""
        return len(self.prompt_set) * sum(c.rows(self.study.repeats) for c in self.cells)

    @property
    def saved_rows(self) -> int:
        """Rows that need not run: merged cells, and repeats that would be identical."""
        written = len(self.cells) + len(self.collapsed)
        return len(self.prompt_set) * written * self.study.repeats - self.n_rows

    @cached_property
    def splits(self) -> dict[str, Split]:
        """Prompt id to "select" or "confirm"."""
        confirm = self.study.split["confirm"]
        return {prompt.id: split_of(prompt, confirm) for prompt in self.prompt_set}

    @cached_property
    def content_hash(self) -> str:
        """sha256 over study, prompts and cells: equal hashes mean the same rows."""
        parts = [self.study.sha256, self.prompt_set.sha256, [c.cell_id for c in self.cells]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @cached_property
    def _cells(self) -> dict[str, Cell]:
        return {cell.cell_id: cell for cell in self.cells}

    def keys(self) -> Iterator[Key]:
        """The key of every row, in order."""
        repeats = [(cell.cell_id, range(cell.rows(self.study.repeats))) for cell in self.cells]
        for prompt in self.prompt_set:
            for cell_id, ks in repeats:
                for k in ks:
                    yield cell_id, prompt.id, k

    def requests(self, skip: Collection[Key] = ()) -> Iterator[Request]:
        """The requests in order, made one by one.

        Args:
            skip: Keys of rows that are done; pass a set.
        """
        done = skip if isinstance(skip, set | frozenset | dict) else set(skip)
        seeds: dict[int, int] = {}
        current = ""
        for key in self.keys():
            if key in done:
                continue
            cell_id, prompt_id, k = key
            if prompt_id != current:
                current, seeds = prompt_id, {}
            if k not in seeds:
                seeds[k] = request_seed(self.study.seed, prompt_id, k)
            yield self._request(self._cells[cell_id], prompt_id, k, seeds[k])

    def request(self, cell_id: str, prompt_id: str, repeat: int) -> Request:
        """One request by its key.

        Raises:
            KeyError: The plan has no such row.
        """
        cell = self._cells.get(cell_id)
        known = cell is not None and prompt_id in self.prompt_set
        if cell is None or not known or not 0 <= repeat < cell.rows(self.study.repeats):
            raise KeyError(f"no row (cell {cell_id}, prompt {prompt_id!r}, repeat {repeat})")
        seed = request_seed(self.study.seed, prompt_id, repeat)
        return self._request(cell, prompt_id, repeat, seed)

    def prompt(self, cell_id: str, prompt_id: str) -> Prompt:
        """A prompt as a cell words it.

        Raises:
            KeyError: There is no such cell or prompt.
        """
        return self._worded(self._cells[cell_id])[prompt_id]

    def _worded(self, cell: Cell) -> PromptSet:
        return self.prompt_set if cell.template is None else self.wordings[cell.template]

    def _request(self, cell: Cell, prompt_id: str, repeat: int, seed: int) -> Request:
        params, prompt = cell.params, self._worded(cell)[prompt_id]
        if not params.greedy and params.seed is None:
            params = params.replace(seed=seed)
        return Request(
            cell.cell_id, prompt.id, repeat, prompt.messages, params, cell.adapter, prompt.tools
        )

    @property
    def max_output_tokens(self) -> int:
        """Most tokens the whole plan can generate: every answer as long as allowed."""
        per_prompt = sum(c.rows(self.study.repeats) * c.params.max_tokens for c in self.cells)
        return len(self.prompt_set) * per_prompt

    def estimate(self, tokens_per_s: float | None = None) -> str:
        """What running all of it costs at most, in words.

        Args:
            tokens_per_s: Generated tokens per second over all rows together, > 0, if known.
        """
        text = f"at most {self.max_output_tokens:,} tokens to generate"
        if tokens_per_s is None:
            return text
        return f"{text}: {duration(self.max_output_tokens / tokens_per_s)} at {tokens_per_s:,.0f} tokens/s"

    def describe(self, tokens_per_s: float | None = None) -> str:
        """The text of a dry run: cells, rows, what was merged into what, and the cost."""
        study, n = self.study, len(self.prompt_set)
        sides = Counter(self.splits.values())
        split = f" ({sides['select']:,} to select, {sides['confirm']:,} to confirm)"
        rows = _count(self.n_rows, "row")
        if self.saved_rows:
            rows += f", {self.saved_rows:,} saved (same answer as another row)"
        lines = [
            f"study {study.name}: model {study.model}, adapters {', '.join(study.adapters)}",
            f"{_count(n, 'prompt')} from {self.prompt_set.source}{split}",
            f"{_count(len(self.cells), 'cell')}, {_count(study.repeats, 'repeat')}: {rows}",
            *(self._cell_line(cell) for cell in self.cells),
        ]
        if study.search:
            space = dimensions(study.search, list(study.adapters), list(study.templates))
            lines[2] = f"search of {', '.join(map(str, space))}; {_count(study.repeats, 'repeat')}"
            return "\n".join([*lines, "workbench tune proposes the settings to compare with it"])
        if self.collapsed:
            lines.append(f"{_count(len(self.collapsed), 'cell')} merged into an equal one:")
            lines += [f"  {c.dropped.label}  ->  {c.kept.label}" for c in self.collapsed]
        return "\n".join([*lines, self.estimate(tokens_per_s)])

    def _cell_line(self, cell: Cell) -> str:
        repeats = cell.rows(self.study.repeats)
        once = " (once: every repeat is the same)" if repeats < self.study.repeats else ""
        mark = " [baseline]" if cell == self.baseline else ""
        return f"  {cell.cell_id}  {cell.label}{mark}{once}"


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def duration(seconds: float) -> str:
    """A length of time in words, for people.

    >>> [duration(s) for s in (8, 90, 7800, 200_000)]
    ['8 s', '1.5 min', '2.2 h', '2.3 days']
    """
    for unit, length, limit in (("s", 1, 60), ("min", 60, 5400), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / length:.0f} s" if unit == "s" else f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86_400:.1f} days"
