"""Taking runs out: tables, JSON lines, lm-eval's files, inspect_ai's logs, a table for a pull request; and any prompt file as JSONL.

Rows are streamed from the run record, so a run of any size needs little memory. A file appears whole or not at all, and one
that is there already is replaced only with ``force``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from workbench import prompts as prompt_sets
from workbench import tables
from workbench.errors import PromptSetError, StoreError, unknown
from workbench.interchange import inspectlog, lmeval, rowstream
from workbench.interchange.rowstream import last_user, plain, whole
from workbench.prompts import promptfoo
from workbench.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

    from workbench.interchange.rowstream import ReadRun
    from workbench.prompts import PromptSet

FORMATS: Final = {
    "csv": ".csv",
    "jsonl": ".jsonl",
    "parquet": ".parquet",
    "lm-eval": "",
    "inspect": "",
    "markdown": ".md",
    "summary": ".csv",
}
"""Format to the suffix of its file; none for a folder of files."""
_FOLDERS: Final[dict[str, Callable[..., list[Path]]]] = {
    "lm-eval": lmeval.write,
    "inspect": inspectlog.write,
}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_WHOLE: Final = ("top_k", "max_tokens", "repeat", "seed", "n_prompt_tokens", "n_output_tokens")
_NUMBERS: Final = tuple(name for name in tables.SETTINGS if name not in _WHOLE)


def export(
    run: ReadRun,
    path: str | Path,
    format: str,  # noqa: A002 - what users call it
    *,
    force: bool = False,
    spreadsheet: bool = False,
) -> list[Path]:
    """Write a run in a form that other programs read.

    Args:
        run: A run.
        path: The file to write; in a folder that is there, ``<run id>.<suffix>``. For lm-eval and inspect the folder itself.
        format: "csv" or "parquet": one row per answer, all columns flat. "jsonl": the same with messages, target and scores
            as they are. "lm-eval": see ``workbench.interchange.lmeval``. "inspect": logs of inspect_ai, see
            ``workbench.interchange.inspectlog``. "markdown" and "summary" (CSV): one row per cell.
        force: Replace files that are there.
        spreadsheet: In CSV files, put ' before a text that a spreadsheet would take for a formula (one that begins with
            = + - @, a tab or a carriage return). Without it, open such a file as text: answers are a model's, not yours.

    Returns:
        The files written.

    Raises:
        StoreError: No such format, a file is there already or cannot be written, or the run cannot be read.
    """
    if format not in FORMATS:
        raise StoreError(unknown("format", format, FORMATS))
    target = Path(path)
    if format in _FOLDERS:
        if target.is_file():
            raise StoreError(f"{target}: is a file; {format}'s files need a folder")
        return _FOLDERS[format](run, target, force=force)
    if target.is_dir():
        name = f"{run.manifest['run_id']}{'-summary' if format == 'summary' else ''}"
        target /= name + FORMATS[format]
    rowstream.refuse(target, force=force)
    if format == "parquet":
        with whole(target, force=force, mode="wb") as file:
            _parquet(run, file)
        return [target]
    writers: dict[str, Callable[[ReadRun, IO[str]], None]] = {
        "csv": lambda run, file: _csv(run, file, spreadsheet),
        "jsonl": _jsonl,
        "markdown": _markdown,
        "summary": lambda run, file: _summary_csv(run, file, spreadsheet),
    }
    with whole(target, force=force) as file:
        writers[format](run, file)
    return [target]


def format_of(path: str | Path) -> str | None:
    """The format that a file's ending stands for; csv for a folder or no ending, None for an unknown one.

    >>> format_of("rows.jsonl"), format_of("rows"), format_of("rows.xlsx")
    ('jsonl', 'csv', None)
    """
    ending = Path(path).suffix.lower()
    if Path(path).is_dir() or not ending:
        return "csv"
    return next((name for name, suffix in FORMATS.items() if suffix == ending), None)


def columns(run: ReadRun) -> list[str]:
    """Columns of the flat tables, in order."""
    judged = [
        f"{part}_{name}"
        for name in rowstream.scorers(run)
        for part in ("score", "answer", "reason")
    ]
    return [
        *("run_id", "cell_id", "label", "name", "adapter", "template", *tables.SETTINGS, "stop"),
        *("prompt_id", "group", "split", "repeat", "seed", "messages", "question", "target"),
        *("text", "finish_reason", "error", "n_prompt_tokens", "n_output_tokens", *judged),
    ]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    prompt = row["prompt"]
    flat = {key: value for key, value in row.items() if key not in ("settings", "prompt", "scores")}
    flat |= row["settings"]
    flat["stop"] = plain(row["settings"].get("stop"))
    flat["messages"] = json.dumps(prompt.messages, ensure_ascii=False)
    flat["question"] = last_user(prompt.messages)
    flat["target"] = plain(prompt.target)
    for name, score in row["scores"].items():
        flat |= {f"score_{name}": score["value"], f"answer_{name}": score["answer"]}
        flat[f"reason_{name}"] = score["reason"]
    return flat


class _Lines:
    """Lines of CSV that end in a bare line feed.

    What ends a line is what ``csv`` quotes; told of both characters, it leaves no carriage return of an answer bare.
    """

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, line: str) -> int:
        return self.file.write(line.removesuffix("\r\n") + "\n")


def _csv(run: ReadRun, file: IO[str], spreadsheet: bool) -> None:
    names = columns(run)
    writer = csv.writer(_Lines(file), lineterminator="\r\n")
    writer.writerow(names)
    for row in rowstream.rows(run):
        flat = _flat(row)
        writer.writerow([_cell(flat.get(name), spreadsheet) for name in names])


def _cell(value: Any, spreadsheet: bool) -> Any:
    if spreadsheet and isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _jsonl(run: ReadRun, file: IO[str]) -> None:
    for row in rowstream.rows(run):
        prompt = row.pop("prompt")
        about = {"messages": list(prompt.messages), "target": prompt.target}
        optional = {"metadata": prompt.metadata, "tools": prompt.tools, "vars": prompt.vars}
        about |= {key: value for key, value in optional.items() if value}
        ordered = {
            key: row.pop(key)
            for key in ("run_id", "cell_id", "label", "name", "adapter", "template")
        }
        ordered |= {
            key: row.pop(key) for key in ("settings", "prompt_id", "group", "split", "repeat")
        }
        file.write(json.dumps(ordered | about | row, ensure_ascii=False) + "\n")


def _parquet(run: ReadRun, file: IO[bytes]) -> None:
    import pyarrow as pa  # noqa: PLC0415 - slow to import
    from pyarrow import parquet  # noqa: PLC0415

    def kind(name: str) -> Any:
        if name in _NUMBERS or name.startswith("score_"):
            return pa.float64()
        return pa.int64() if name in _WHOLE else pa.string()

    names = columns(run)
    schema = pa.schema([(name, kind(name)) for name in names])
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        flattened = map(_flat, rowstream.rows(run))
        while flat := list(islice(flattened, rowstream.CHUNK_ROWS)):
            arrays = [pa.array([row.get(f.name) for row in flat], f.type) for f in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _summary(run: ReadRun) -> pd.DataFrame:
    table = run.summary()
    labels = run.cells.set_index("cell_id")["label"]
    table.insert(1, "label", table["cell_id"].map(labels))
    return table


def _summary_csv(run: ReadRun, file: IO[str], spreadsheet: bool) -> None:
    table = _summary(run)
    writer = csv.writer(_Lines(file), lineterminator="\r\n")
    writer.writerow(table.columns)
    for row in table.astype(object).where(table.notna(), None).itertuples(index=False):
        writer.writerow([_cell(value, spreadsheet) for value in row])


def _markdown(run: ReadRun, file: IO[str]) -> None:
    table = _summary(run)
    primary = next(iter(rowstream.scorers(run)), "quality")
    study, engine = run.manifest["study"]["name"], run.manifest["engine"]
    prompts, planned = run.manifest["prompt_set"], int(run.manifest["n_rows"])
    with RunStore.open(run.path) as store:
        n_rows = store.counts().n_rows
    missing = f"; not complete: {n_rows:,} of {planned:,} rows were run" * (n_rows < planned)
    file.write(
        f"**{_escaped(study)}**: {_escaped(engine['model'])}, {prompts['n_prompts']} prompts "
        f"({_escaped(prompts['name'])}), run `{run.manifest['run_id']}`{missing}\n\n"
    )
    heads = [
        "cell",
        f"{primary} [95 %]",
        "against the baseline",
        "answer, tokens",
        "cut off",
        "latency p50, ms",
    ]
    file.write(f"| {' | '.join(_escaped(h) for h in heads)} |\n|---|---:|---:|---:|---:|---:|\n")
    for row in table.to_dict("records"):
        cells = [
            _escaped(row["label"]),
            _interval(row["quality"], row["quality_lo"], row["quality_hi"], "{:.1%}"),
            _interval(row["diff_vs_baseline"], row["diff_lo"], row["diff_hi"], "{:+.1%}"),
            _number(row["n_output_tokens_mean"], "{:.1f}"),
            _number(row["truncated_rate"], "{:.0%}"),
            _number(row["e2el_ms_p50"], "{:.0f}"),
        ]
        file.write(f"| {' | '.join(cells)} |\n")


def _number(value: Any, form: str) -> str:
    return "" if value is None or value != value else form.format(value)  # noqa: PLR0124 - NaN


def _interval(value: Any, low: Any, high: Any, form: str) -> str:
    middle, ends = _number(value, form), [_number(end, form) for end in (low, high)]
    return f"{middle} [{', '.join(ends)}]" if middle and all(ends) else middle


def _escaped(text: str) -> str:
    """Text as Markdown shows it, in one line of a table."""
    text = " ".join(str(text).split())
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text.replace("&", "&amp;")


def convert(
    spec: str | Path | Mapping[str, Any],
    to: str | Path,
    field_map: Mapping[str, Any] | None = None,
    *,
    force: bool = False,
    allow_python: bool = False,
) -> PromptSet:
    """Read prompts from any source and write them as JSONL.

    The wordings of a promptfoo file go beside it, as ``<name>.templates.yaml``, to be pasted into a study.

    Args:
        spec: As ``workbench.prompts.load`` takes it.
        to: A ``.jsonl`` file.
        field_map: Our field to column, for a file with columns of its own.
        force: Replace files that are there.
        allow_python: Keep ``python`` assertions of a promptfoo file.

    Returns:
        The prompts as written.

    Raises:
        PromptSetError: They cannot be read; lists every problem.
        StoreError: The file cannot be written.
    """
    target = Path(to)
    if target.suffix.lower() not in (".jsonl", ".ndjson"):
        raise StoreError(f"{target}: prompts are written as .jsonl")
    wordings: dict[str, Any] = {}
    foo = isinstance(spec, str | Path) and Path(spec).suffix.lower() in (".yaml", ".yml")
    if foo and not field_map:
        made, wordings = promptfoo.read(str(spec), allow_python=allow_python)
    elif field_map:
        made = prompt_sets.load(_with_fields(spec, field_map))
    else:
        made = prompt_sets.load(spec)
    beside = target.with_suffix(".templates.yaml")
    rowstream.refuse(target, force=force)
    with rowstream.together(force=force) as waiting:
        if wordings:
            with whole(beside, force=force, waiting=waiting) as file:
                file.write(promptfoo.templates_yaml(wordings))
        with whole(target, force=force, waiting=waiting) as file:
            for prompt in made:
                file.write(json.dumps(prompt.to_dict(), ensure_ascii=False) + "\n")
    return made


def _with_fields(spec: str | Path | Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(spec, Mapping):
        if "fields" in spec:
            raise PromptSetError("prompts", "fields are given twice")
        return {**spec, "fields": fields}
    return {"file": str(spec), "fields": fields}
