"""Studies: what to run, declared in a YAML file or in Python, checked whole.

A study that exists is valid: every problem is found when it is made and all are listed at once, for a file with their
lines. ``Study.plan`` turns it into rows.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from workbench import problems, studycheck, wording, yamlmarks
from workbench import prompts as prompt_sets
from workbench.errors import ParamError, StudyError
from workbench.params import FIELDS, SamplingParams
from workbench.plan import Cell, Collapsed, Plan, collapse, request_seed, split_of
from workbench.prompts import PromptSet
from workbench.prompts.checkrows import canonical_json
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Cell", "Collapsed", "Plan", "Study", "request_seed", "split_of"]

_NOT_CONTENT: Final = ("base_dir",)


@dataclass(frozen=True, init=False)
class Study:
    """A declared experiment.

    Attributes:
        name: Also the name of its results directory.
        model: "demo", a path, or a Hugging Face id, as written; see ``model_path``.
        adapters: Adapter name to path as written; None for "base". See ``adapter_paths``.
        prompts: As written: file name(s), rows, texts, or a PromptSet.
        system: System message put before every prompt, or None.
        templates: Template name to wording: a Jinja2 text or a list of messages, see `workbench.prompts.templates`; null is the
            prompt as it is. Every setting and adapter runs with every template.
        grid: Setting to list of values (their product), a list of settings, or name to settings.
        search: Setting to range or choices, for ``workbench tune``; see `workbench.searchspace`. Not beside a grid.
        fixed: Settings of every cell; an entry of a list or a named grid overrides them.
        repeats: Draws per prompt and cell, >= 1. A cell that cannot vary runs once.
        seed: 0..9999999999; every request's seed is derived from it.
        scorers: Names, ``{name: options}``, or scorer objects; the first is the primary metric.
        split: ``{"confirm": share}``, 0 <= share < 1; prompts held out for the final answer.
        latency: ``{"prompts", "warmup", "rounds"}``, or None for no latency pass.
        engine: ``{"kind", "device", "kernel", "max_rows", "memory_gib"}``.
        baseline: Cell to compare with: name, label, cell id, or settings. None: the card's defaults if the study has
            that cell, else the first cell. With a search it is settings, and the one cell that is known beforehand.
        defaults: "card" or "checkpoint": where settings come from that neither grid nor fixed give.
        allow_inert: Run an adapter even if it changes nothing.
        allow_overlap: Run an adapter even if it was trained on some of the prompts.
        base_dir: Relative paths are looked up here first, then in the current directory. Not part of the content.

    Raises:
        StudyError: Lists every problem.

    >>> study = Study(prompts=["Hi"], grid={"temperature": [0, 0.7], "top_k": [10, 50]})
    >>> [cell.label for cell in study.cells()]
    ['greedy', 'T=0.7 k=10', 'T=0.7 k=50']
    """

    name: str
    model: str
    adapters: dict[str, str | None]
    prompts: Any
    system: str | None
    templates: dict[str, Any]
    grid: dict[str, Any] | list[dict[str, Any]]
    search: dict[str, dict[str, Any]]
    fixed: dict[str, Any]
    repeats: int
    seed: int
    scorers: tuple[Any, ...]
    split: dict[str, float]
    latency: dict[str, int] | None
    engine: dict[str, Any]
    baseline: str | dict[str, Any] | None
    defaults: str
    allow_inert: bool
    allow_overlap: bool
    base_dir: Path | None = field(compare=False)

    def __init__(
        self,
        *,
        prompts: str | Path | Sequence[Any] | PromptSet | None = None,
        name: str = "study",
        model: str | Path = "demo",
        adapters: str | Path | Sequence[Any] | Mapping[str, Any] = (BASE,),
        system: str | None = None,
        templates: Mapping[str, Any] | None = None,
        grid: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        search: Mapping[str, Any] | None = None,
        fixed: Mapping[str, Any] | None = None,
        repeats: int = 1,
        seed: int = 0,
        scorers: Any = (),
        split: Mapping[str, float] | None = None,
        latency: Mapping[str, int] | bool | None = True,
        engine: Mapping[str, Any] | None = None,
        baseline: str | Mapping[str, Any] | None = None,
        defaults: str = "card",
        allow_inert: bool = False,
        allow_overlap: bool = False,
        base_dir: str | Path | None = None,
        **unknown: Any,
    ) -> None:
        given = {key: value for key, value in locals().items() if key not in ("self", "unknown")}
        given.pop("base_dir")
        self._fill(given | unknown, "study", base_dir, None, check_files=True)

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        where: str = "study",
        base_dir: str | Path | None = None,
        *,
        check_files: bool = False,
    ) -> Study:
        """Make a study from decoded YAML, as a run directory keeps it.

        Args:
            values: The study's fields; absent ones take their default.
            where: What error messages call it.
            base_dir: As in ``Study``.
            check_files: Also refuse prompt files and adapters that are not there.

        Raises:
            StudyError: Lists every problem.
        """
        study = object.__new__(cls)
        study._fill(values, where, base_dir, None, check_files=check_files)
        return study

    @classmethod
    def from_yaml(cls, path: str | Path) -> Study:
        """Read a study file; relative paths in it are looked up beside it first.

        Raises:
            StudyError: Lists every problem with its line.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise StudyError(str(path), f"cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise StudyError(str(path), f"not UTF-8 text (byte {error.start})") from error
        marked = yamlmarks.read(text)
        if marked.data is None:
            raise StudyError(str(path), marked.problems or "the file is empty")
        study = object.__new__(cls)
        values = marked.data
        if isinstance(values, dict) and "name" not in values:
            values = {"name": _name_of(path), **values}
        study._fill(values, str(path), path.parent, marked, check_files=True)
        return study

    def _fill(
        self,
        values: Any,
        where: str,
        base_dir: str | Path | None,
        marked: yamlmarks.Marked | None,
        *,
        check_files: bool,
    ) -> None:
        base = None if base_dir is None else Path(base_dir)
        check = problems.Check(marked, base, check_files=check_files)
        clean = studycheck.study(values, check)
        for f in fields(self):
            if f.name not in _NOT_CONTENT:
                object.__setattr__(self, f.name, clean.get(f.name))
        object.__setattr__(self, "base_dir", base)
        if not check.problems and self.defaults == "card":
            self._check_cells(check)
        if check.problems:
            raise StudyError(where, check.listed())

    def _check_cells(self, check: problems.Check) -> None:
        cells, dropped = self._collapsed(None)
        if isinstance(self.baseline, str) and self._named(self.baseline, cells, dropped) is None:
            shown = ", ".join(repr(c.label) for c in cells[:8]) + (", ..." if cells[8:] else "")
            check.add(("baseline",), f"no cell {self.baseline!r}; cells: {shown}")
        elif isinstance(self.baseline, dict) and self._described(cells, None) is None:
            check.add(("baseline",), f"no cell has {self.baseline!r}")

    def validate(self) -> None:
        """Check again, files included: they may have gone since the study was made.

        Raises:
            StudyError: Lists every problem.
            PromptSetError: Lists every problem of the prompt files.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        base_dir = values.pop("base_dir")
        self.from_dict(values, f"study {self.name}", base_dir, check_files=True)
        self.load_prompts()

    def replace(self, **changes: Any) -> Study:
        """A copy with some fields changed, checked again.

        Raises:
            StudyError: Lists every problem.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)} | changes
        base_dir = values.pop("base_dir")
        return self.from_dict(values, f"study {self.name}", base_dir)

    @property
    def model_path(self) -> str:
        """The model where it is: the path if there is one, else the id as written."""
        return studycheck.resolve(self.model, self.base_dir) if self.model != "demo" else "demo"

    @property
    def adapter_paths(self) -> dict[str, str | None]:
        """Adapter name to the path where it is; None for "base"."""
        found = self.adapters.items()
        return {n: None if p is None else studycheck.resolve(p, self.base_dir) for n, p in found}

    def to_dict(self) -> dict[str, Any]:
        """The content as plain values, in the order of a study file.

        Prompts given as a PromptSet, and scorers given as objects, appear by name; such a study does not read back.
        """
        out = {f.name: problems.plain(getattr(self, f.name)) for f in fields(self)}
        del out["base_dir"]
        for name in ("templates", "search"):
            if not out[name]:  # studies from before there were such keep their hash
                del out[name]
        out["adapters"] = [
            name if path is None else path if name == Path(path).name else {name: path}
            for name, path in self.adapters.items()
        ]
        out["prompts"] = _plain_prompts(self.prompts)
        out["scorers"] = [s if isinstance(s, str | dict) else _scorer_name(s) for s in self.scorers]
        out["latency"] = self.latency or False
        return out

    @property
    def text(self) -> str:
        """The study as YAML, the same for equal studies."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)

    @property
    def sha256(self) -> str:
        """Hash of the content; what the prompt files hold is not in it, see ``Plan.content_hash``."""
        return hashlib.sha256(canonical_json(self.to_dict()).encode()).hexdigest()

    def load_prompts(self) -> PromptSet:
        """The prompts with the study's system message.

        Raises:
            PromptSetError: Lists every problem of every file.
        """
        return prompt_sets.load(self.prompts, self.base_dir).with_system(self.system)

    def cells(self, checkpoint_defaults: Mapping[str, Any] | None = None) -> tuple[Cell, ...]:
        """The cells to run, equal ones merged: all settings of the first adapter and template, then the next.

        Args:
            checkpoint_defaults: The checkpoint's own settings, needed if ``defaults`` is "checkpoint".

        Raises:
            StudyError: They are needed and not given, or out of range.
        """
        return self._collapsed(checkpoint_defaults)[0]

    def plan(
        self,
        prompt_set: PromptSet | None = None,
        checkpoint_defaults: Mapping[str, Any] | None = None,
    ) -> Plan:
        """What this study will run.

        Args:
            prompt_set: Takes the place of the study's prompts (a subset, say); the system message is added to it.
            checkpoint_defaults: As in ``cells``.

        Raises:
            PromptSetError: The prompts cannot be used, or a template cannot be filled in.
            StudyError: As in ``cells``.
        """
        given = self.load_prompts() if prompt_set is None else prompt_set.with_system(self.system)
        cells, dropped = self._collapsed(checkpoint_defaults)
        baseline = self._baseline(cells, dropped, checkpoint_defaults)
        wordings = wording.word(given, self.templates)
        return Plan(self, given, cells, dropped, baseline, wordings)

    def start(self, checkpoint_defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Settings of every cell before those of its own, as in ``cells``."""
        if self.defaults == "card":
            return dict(self.fixed)
        if checkpoint_defaults is None:
            message = "defaults: checkpoint needs the checkpoint's settings; load the model first"
            raise StudyError(f"study {self.name}", message)
        known = {k: v for k, v in checkpoint_defaults.items() if k in FIELDS and v is not None}
        # As transformers reads them: greedy unless do_sample, temperature 1 unless given, top_k 0 is off.
        sampled = bool(checkpoint_defaults.get("do_sample"))
        known["temperature"] = known.get("temperature", 1.0) if sampled else 0.0
        if known.get("top_k") == 0:
            del known["top_k"]
        return known | self.fixed

    def _collapsed(
        self, checkpoint_defaults: Mapping[str, Any] | None
    ) -> tuple[tuple[Cell, ...], tuple[Collapsed, ...]]:
        start, written = self.start(checkpoint_defaults), entries(self.grid)
        adapters = list(self.adapters)
        wordings: list[str | None] = list(self.templates) or [None]
        if self.search:  # the other cells come as it goes on
            alone = dict(self.baseline) if isinstance(self.baseline, dict) else {}
            first = BASE if BASE in adapters else adapters[0]
            adapters = [a for a in adapters if a == alone.get("adapter", first)]
            wordings = [t for t in wordings if t == alone.get("template", wordings[0])]
            written = [(None, {k: v for k, v in alone.items() if k in FIELDS})]
        try:
            settings = [(name, SamplingParams.from_dict(start | entry)) for name, entry in written]
        except ParamError as error:  # only the checkpoint's own settings are unchecked so far
            message = f"defaults: the checkpoint's settings: {error}"
            raise StudyError(f"study {self.name}", message) from error
        return collapse(
            Cell(params, adapter, name, template)
            for adapter in adapters
            for template in wordings
            for name, params in settings
        )

    @staticmethod
    def _named(name: str, cells: tuple[Cell, ...], dropped: tuple[Collapsed, ...]) -> Cell | None:
        for cell in cells:
            if name in (cell.label, cell.name, cell.cell_id):
                return cell
        return next((c.kept for c in dropped if name in (c.dropped.label, c.dropped.name)), None)

    def _described(
        self, cells: tuple[Cell, ...], checkpoint_defaults: Mapping[str, Any] | None
    ) -> Cell | None:
        wanted = dict(self.baseline) if isinstance(self.baseline, dict) else {}
        adapter = wanted.pop(
            "adapter", BASE if BASE in self.adapters else next(iter(self.adapters))
        )
        wanted_template = wanted.pop("template", None)
        params = SamplingParams.from_dict(self.start(checkpoint_defaults) | wanted)
        template = wanted_template or next(iter(self.templates), None)
        cell_id = Cell(params.canonical(), adapter, None, template).cell_id
        return next((cell for cell in cells if cell.cell_id == cell_id), None)

    def _baseline(
        self,
        cells: tuple[Cell, ...],
        dropped: tuple[Collapsed, ...],
        checkpoint_defaults: Mapping[str, Any] | None,
    ) -> Cell:
        if isinstance(self.baseline, str):
            found = self._named(self.baseline, cells, dropped)
        else:
            found = self._described(cells, checkpoint_defaults)
        if found is None and self.baseline is not None:
            raise StudyError(f"study {self.name}", f"baseline: no cell {self.baseline!r}")
        return found or cells[0]


def _name_of(path: Path) -> str:
    """A study's name made of its file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:100] or "study"


def entries(grid: Any) -> list[tuple[str | None, dict[str, Any]]]:
    """The settings a grid spells out, in order, with their names if they have any.

    >>> entries({"top_k": [1, 2]})
    [(None, {'top_k': 1}), (None, {'top_k': 2})]
    >>> entries({"cold": {"temperature": 0}})
    [('cold', {'temperature': 0})]
    """
    if isinstance(grid, list | tuple):
        return [(None, dict(entry)) for entry in grid]
    if grid and all(isinstance(value, dict) for value in grid.values()):
        return [(name, dict(entry)) for name, entry in grid.items()]
    return [(None, dict(zip(grid, values, strict=True))) for values in product(*grid.values())]


def _plain_prompts(prompts: Any) -> Any:
    if isinstance(prompts, dict):
        return {key: str(v) if isinstance(v, Path) else v for key, v in prompts.items()}
    if isinstance(prompts, PromptSet):
        return {"name": prompts.name, "n": len(prompts), "sha256": prompts.sha256}
    if isinstance(prompts, list):
        return [str(p) if isinstance(p, Path) else p for p in problems.plain(prompts)]
    return prompts


def _scorer_name(scorer: Any) -> Any:
    options = getattr(scorer, "options", None)
    return {scorer.name: dict(options)} if options else str(scorer.name)
