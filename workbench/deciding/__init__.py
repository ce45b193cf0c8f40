"""From a run to a decision: which cell to use, what is known of it, and files to deploy it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import pandas as pd

from workbench import __version__
from workbench.adapters import hosted_limits, read
from workbench.analysis import plain
from workbench.comparing.pairs import RunTables
from workbench.deciding import limits as limiting
from workbench.deciding import table as tables
from workbench.deciding import words
from workbench.deciding.bag import N_BOOT
from workbench.deciding.choose import Choice, choose
from workbench.deciding.deploy import VLLM, WORKERS_AI, Artefact, Target, artefacts
from workbench.deciding.naming import Named
from workbench.errors import AdapterError, StoreError
from workbench.params import SamplingParams
from workbench.records import BASE
from workbench.reporting.amounts import signs
from workbench.runs import Run, open_run
from workbench.studycheck import resolve
from workbench.tables import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.adapters import AdapterFile
    from workbench.deciding.limits import Limit
    from workbench.study import Study

__all__ = ["Choice", "Decision", "Section", "choose", "decide", "section"]

FOLDER: Final = "decision"
"""Where in a run directory the files go."""
MARKDOWN: Final = "decision.md"
JSON: Final = "decision.json"


class Source(RunTables, Protocol):
    """What a decision needs of a run."""

    @property
    def study(self) -> Study:
        """The study, for model, adapters and wording as it names them."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """Which cell of a run to use.

    Attributes:
        pick: Its cell id; None if no cell is known to meet the limits.
        ties: Cell ids that cannot be told from the best, best first, without pick and baseline.
        text: What to use and why, in plain sentences, a line a subject.
        table: The numbers, see `workbench.deciding.table.table`.
        artefacts: File name to content: ``decision.md``, ``decision.json``, and those that put the pick to use.
        choice: All that is known.
    """

    pick: str | None
    ties: tuple[str, ...]
    text: str
    table: pd.DataFrame = field(repr=False)
    artefacts: dict[str, str] = field(repr=False)
    choice: Choice = field(repr=False)
    _page: str = field(repr=False)
    _values: dict[str, Any] = field(repr=False)
    _place: Path | None = field(repr=False)

    def markdown(self) -> str:
        """Text, table, and what to know of the files."""
        return self._page

    def _repr_markdown_(self) -> str:
        return self._page

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with what they were made from; what is unknown is None."""
        return self._values

    def write(self, out: str | Path | None = None) -> list[Path]:
        """Write the artefacts; files of those names are replaced, others left as they are.

        Args:
            out: A folder, made if needed; by default ``decision`` in the run directory.

        Returns:
            The files.

        Raises:
            StoreError: They cannot be written.
        """
        folder = self._place if out is None else Path(out)
        if folder is None:
            raise StoreError("the run has no directory: say where to write the decision")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in self.artefacts.items():
                (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written ({error.strerror})") from error
        return [folder / name for name in self.artefacts]


class Section(NamedTuple):
    """A decision for a report, as plain texts.

    Attributes:
        title: What to use, in a few words.
        sentences: What to use and why, a line a subject.
        columns: Headings of the table.
        rows: Its rows, a text for each column: pick, baseline and what ties, at most `workbench.deciding.table.MOST`.
    """

    title: str
    sentences: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def section(run: Run | Source, *, baseline: str | None = None, rng: int = 0) -> Section | None:
    """The decision as a section of a report: what `decide` says, without files.

    A tuned run is decided by what it was tuned for.

    Args:
        run: A run, finished or not.
        baseline: Cell id or label to compare with; by default the study's.
        rng: Seed of sign flips and bootstrap.

    Returns:
        None where there is nothing to decide: fewer than two cells, or no scores.

    Raises:
        StoreError: There is no such cell.
    """
    name = _objective(run)
    if len(run.cells) < 2 or name is None:
        return None
    if not (run.scores["scorer"].eq(name) & run.scores["value"].notna()).any():
        return None
    limits = limiting.read(_tuning(run).get("subject_to", ()))
    choice = choose(run, limits, objective=name, baseline=baseline, rng=rng)
    title = "Keep the baseline"
    if choice.pick != choice.baseline:
        named = Named(choice, run.cells)
        title = "Nothing to recommend" if choice.pick is None else f"Use {named.cell(choice.pick)}"
    shown = tables.texts(tables.table(choice, run.cells), choice)
    rows = tuple(zip(*shown.values(), strict=True))
    return Section(title, tuple(_lines(run, choice)), tuple(shown), rows)


def _tuning(run: Run | Source) -> Mapping[str, Any]:
    """What a tuner was asked for; empty if none was."""
    asked: Mapping[str, Any] = run.manifest.get("tuning") or {}
    return asked


def _objective(run: Run | Source) -> str | None:
    """The scorer that counts by default: what the run was tuned for, else its primary one."""
    named = str(_tuning(run).get("objective", "")).split(",")[0]
    return named or run.primary


def _lines(run: Run | Source, choice: Choice) -> list[str]:
    """A choice in words."""
    tested = words.not_tested(run.cells, run.manifest, timed=bool(len(run.latency)))
    return words.lines(choice, run.cells, tested)


def decide(
    run: Run | Source | str | Path,
    *,
    subject_to: str | Sequence[str | Limit] = (),
    objective: str | None = None,
    baseline: str | None = None,
    n_boot: int = N_BOOT,
    rng: int = 0,
) -> Decision:
    """Say which cell of a run to use.

    Args:
        run: A run, finished or not, or what `workbench.open_run` takes.
        subject_to: Limits that the cell must keep to, as "e2el_ms_p90<=900"; see `workbench.deciding.objective`.
        objective: Name of the scorer that counts; "quality" is the run's primary one. By default what the run was tuned for,
            else the primary one.
        baseline: Cell id or label to compare with; by default the study's.
        n_boot: Resamples, where no prompts are held out.
        rng: Seed of sign flips and bootstrap; the same seed gives the same decision.

    Raises:
        StoreError: There is no such run or cell.
        StudyError: A limit that cannot be read.
        WorkbenchError: No such scorer, or nothing is scored.
    """
    opened = open_run(run) if isinstance(run, str | Path) else run
    choice = choose(
        opened,
        limiting.read(subject_to),
        objective=_objective(opened) if objective is None else objective,
        baseline=baseline,
        n_boot=n_boot,
        rng=rng,
    )
    cells = opened.cells
    lines = _lines(opened, choice)
    found = tables.table(choice, cells)
    files: dict[str, Artefact] = {}
    if choice.pick is not None:
        target = _target(opened, choice.pick)
        file = _file_of(opened, target.adapter)
        target = target if file is None else replace(target, rank=file.rank)
        files = _with_limits(artefacts(target, lines[0]), file, target.adapter)
    made_from = _made_from(opened.manifest, n_boot, rng)
    values = _values(choice, lines, found, files, made_from)
    page = _page(lines, found, choice, files, made_from)
    texts = {MARKDOWN: page, JSON: json.dumps(values, indent=1, ensure_ascii=False) + "\n"}
    return Decision(
        pick=choice.pick,
        ties=choice.ties,
        text="\n".join(lines),
        table=found,
        artefacts=texts | {name: file.text for name, file in files.items()},
        choice=choice,
        _page=page,
        _values=values,
        _place=opened.path / FOLDER if isinstance(opened, Run) else None,
    )


# ------------------------------------------------------------------------------------------------ what is deployed


def _target(run: Source, cell: str) -> Target:
    """A cell as something to deploy."""
    row = run.cells.set_index("cell_id").loc[cell].to_dict()
    integers = ("top_k", "max_tokens")
    given = {s: int(row[s]) if s in integers else row[s] for s in SETTINGS if pd.notna(row[s])}
    stop = row.get("stop")
    params = SamplingParams(
        **given, stop=None if stop is None or isinstance(stop, float) else tuple(stop)
    )
    engine, study = run.manifest["engine"], run.study
    name = None if row["adapter"] == BASE else str(row["adapter"])
    template = row.get("template")
    wording = study.templates.get(template) if isinstance(template, str) else None
    facts = engine.get("extra", {}).get("adapters", {}).get(name, {})
    return Target(
        params=params,
        model=str(engine["model"]),
        revision=engine.get("revision"),
        awq=str(engine.get("quantization", "")).startswith("awq"),
        adapter=name,
        path=study.adapters.get(name) if name else None,
        rank=facts.get("rank"),
        system=study.system,
        template=wording
        if wording is None or isinstance(wording, str)
        else json.dumps(wording, ensure_ascii=False),
    )


def _file_of(run: Source, name: str | None) -> AdapterFile | None:
    """The adapter's file, if it can be read here."""
    path = run.study.adapters.get(name) if name else None
    folder = run.manifest.get("study", {}).get("folder")
    place = None if path is None else Path(resolve(path, None if folder is None else Path(folder)))
    if place is None or not place.is_dir():
        return None
    try:
        return read(place)
    except AdapterError:  # it has changed since; the run knows what it was
        return None


def _with_limits(
    files: dict[str, Artefact], file: AdapterFile | None, name: str | None
) -> dict[str, Artefact]:
    """The files with what Workers AI and vLLM would say of the adapter; what ``vllm.sh`` sees to is not said again."""
    said = () if file is None else hosted_limits(file, name=name)
    about = {
        WORKERS_AI: tuple(s for s in said if s.startswith("Workers AI ")),
        VLLM: tuple(s for s in said if s.startswith("vLLM ") and "--max-lora-rank" not in s),
    }
    return {n: replace(f, notes=(*f.notes, *about.get(n, ()))) for n, f in files.items()}


# ------------------------------------------------------------------------------------------------------ as files


def _made_from(manifest: Mapping[str, Any], n_boot: int, seed: int) -> dict[str, Any]:
    """Where the numbers come from: ids, hashes, versions; no paths."""
    study, prompts = manifest.get("study", {}), manifest.get("prompt_set", {})
    engine, git = manifest.get("engine", {}), manifest.get("git") or {}
    kept = ("model", "revision", "weight_hash", "quantization", "kernel", "dtype", "device")
    hashes = ("tokenizer_hash", "chat_template_hash", "adapters")
    return {
        "workbench": __version__,
        "run_id": manifest.get("run_id"),
        "status": manifest.get("status"),
        "study": {k: study.get(k) for k in ("name", "sha256")},
        "content_hash": manifest.get("content_hash"),
        "prompt_set": {k: prompts.get(k) for k in ("name", "sha256", "n_prompts")},
        "scorers": manifest.get("scorers"),
        "engine": {k: engine.get(k) for k in (*kept, *hashes)},
        "git": {k: git.get(k) for k in ("commit", "dirty")},
        "n_boot": n_boot,
        "seed": seed,
    }


def _values(
    choice: Choice,
    lines: Sequence[str],
    found: pd.DataFrame,
    files: Mapping[str, Artefact],
    made_from: dict[str, Any],
) -> dict[str, Any]:
    names = (
        "verdict",
        "pick",
        "baseline",
        "top",
        "ties",
        "objective",
        "held_out",
        "why_not",
        "n_prompts",
    )
    out = {name: getattr(choice, name) for name in names}
    for name in ("chosen", "confirmed", "picked", "bag"):
        value = getattr(choice, name)
        out[name] = None if value is None else asdict(value)
    out["bag"] = None if choice.bag is None else out["bag"] | {"optimism": choice.bag.optimism}
    both = choice.picked or choice.chosen, choice.confirmed
    out["optimism"] = None if None in both else both[0].diff - both[1].diff  # type: ignore[union-attr]
    out["limits"] = [asdict(limited) for limited in choice.limits]
    out["latency_vs_baseline"] = choice.times
    rest = ("raced", "n_dropped", "unscored", "refused", "n_left_out", "n_unscored", "n_trained")
    out |= {name: getattr(choice, name) for name in (*rest, "needed")}
    out |= {"candidates": sorted(choice.candidates), "about_adapters": choice.notes}
    out["text"] = "\n".join(lines)
    out["table"] = found.to_dict("records")
    out["notes"] = {name: file.notes for name, file in files.items()}
    values: dict[str, Any] = plain({**out, "made_from": made_from})
    return values


def _page(
    lines: Sequence[str],
    found: pd.DataFrame,
    choice: Choice,
    files: Mapping[str, Artefact],
    made_from: Mapping[str, Any],
) -> str:
    """The decision as Markdown."""
    first, *rest = map(signs, lines)
    parts = [f"# Decision: {made_from['study']['name']}", f"**{first}**", " ".join(rest)]
    parts.append(tables.markdown(found, choice))
    under = f"Quality is the mean score of `{choice.objective}` in percent, with 95 % intervals; differences in points, on the same prompts"
    if choice.held_out:
        under += f". {choice.n_prompts[0]:,} prompts chose, {choice.n_prompts[1]:,} were held out"
    parts.append(f"{under}.")
    if files:
        parts.append("## To use it")
        parts.append("\n".join(_listed(name, file) for name, file in files.items()))
    git = made_from["git"]
    commit = (
        f", commit {git['commit'][:10]}{' (changed)' if git['dirty'] else ''}"
        if git["commit"]
        else ""
    )
    parts.append(
        f"Run {made_from['run_id']}, workbench {made_from['workbench']}{commit}; all numbers are in `{JSON}`."
    )
    return "\n\n".join(parts) + "\n"


def _listed(name: str, file: Artefact) -> str:
    notes = "".join(f"\n  {note}" for note in file.notes)
    return f"- `{name}`: {file.about}.{notes}"
