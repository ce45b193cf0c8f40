"""Prompts out of data sets, through the ``datasets`` package: of the hub, or saved on this machine.

A data set of the hub is read at one commit and kept in the package's cache; nothing in it is executed. A local one is a
folder made by ``save_to_disk``, a folder of data files, or one Parquet, Arrow, CSV or JSON file.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from itertools import islice
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from workbench.prompts import fileforms
from workbench.prompts.checkrows import ROW_KEYS, TEXT_KEYS, check_rows
from workbench.prompts.sources import local_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.prompts.sources import Source

_BUILDERS: Final = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
}
_TABLES: Final = ("parquet", "arrow")
_SAVED: Final = ("dataset_dict.json", "dataset_info.json")


class _ProblemError(Exception):
    """What is wrong, in one sentence."""


def read(source: Source, base_dir: str | Path | None = None) -> fileforms.Read:
    """Rows of a data set with their places, and the problems."""
    try:
        rows = _rows(_opened(source, base_dir), source)
    except _ProblemError as problem:
        return [], [f"{source.label}: {problem}"]
    found, wrong = check_rows((f"{source.label} row {n}", row) for n, row in enumerate(rows, 1))
    if not found and not wrong:
        return [], [f"{source.label}: no prompts"]
    return found, [f"{place}: {problem}" for place, problem in wrong]


def _opened(source: Source, base_dir: str | Path | None) -> Any:
    """The data set, one split of it."""
    try:
        datasets: Any = import_module("datasets")  # slow to import, and seldom needed
    except ImportError as error:
        raise _ProblemError(f"needs the package datasets ({error})") from error
    not_found = datasets.exceptions.DatasetNotFoundError
    own_error = datasets.exceptions.DatasetsError
    path = local_path(source.name, base_dir)
    if path is not None and not path.exists():
        raise _ProblemError(f"no such file or folder: {path}")
    try:
        if path is not None:
            return _split(_local(datasets, path, source), source)
        rows = "" if source.limit is None else f"[:{source.limit}]"
        return datasets.load_dataset(
            source.name, source.config, split=f"{source.split}{rows}", revision=source.revision
        )
    except not_found as error:
        if path is None:
            text = "there is no such data set or commit on the hub, or it needs a login"
            raise _ProblemError(f"{text} ({_first_line(error)})") from error
        raise _ProblemError(_first_line(error)) from error
    except ConnectionError as error:
        text = "the hub cannot be reached, and the data set is not in the cache; save it where there is a network"
        raise _ProblemError(
            f"{text} (save_to_disk) and give hf: its folder ({_first_line(error)})"
        ) from error
    except (OSError, ValueError, RuntimeError, own_error) as error:
        raise _ProblemError(_first_line(error)) from error


def _local(datasets: Any, path: Path, source: Source) -> Any:
    """Every split of what is on this machine, nothing of it put in the package's cache."""
    if path.is_file():
        builder = _BUILDERS.get(path.suffix.lower())
        if builder is None:
            raise _ProblemError(f"a data file ends in {', '.join(_BUILDERS)}")
        call: tuple[Any, ...] = (builder,)
        files: dict[str, Any] = {"data_files": str(path)}
        tables = builder in _TABLES
    elif any((path / name).is_file() for name in _SAVED):
        return datasets.load_from_disk(str(path))
    else:
        call, files = (str(path), source.config), {}
        tables = all(f.suffix.lower() in (".parquet", ".arrow", ".md") for f in path.rglob("*.*"))
    if tables:
        return datasets.load_dataset(*call, **files, streaming=True)
    # A stream of CSV or JSON does not know its columns before it is read; these are small enough to be read whole.
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with TemporaryDirectory() as cache:
            return datasets.load_dataset(*call, **files, cache_dir=cache, keep_in_memory=True)
    finally:
        if shown:
            datasets.enable_progress_bars()


def _split(data: Any, source: Source) -> Any:
    """One split of what may be several."""
    if not isinstance(data, Mapping):
        own = None if data.split is None else str(data.split)
        if source.split not in (None, own):
            raise _ProblemError(
                f"no split {source.split!r}; it is {own or 'one table'}; leave split out"
            )
        return data
    splits = ", ".join(map(str, data))
    if source.split is None and len(data) > 1:
        raise _ProblemError(f"split is missing; there are: {splits}")
    name = next(iter(data)) if source.split is None else source.split
    if name not in data:
        raise _ProblemError(f"no split {name!r}; there are: {splits}")
    return data[name]


def _rows(data: Any, source: Source) -> Iterator[Any]:
    """Rows with our names, only the columns needed read."""
    names = [str(name) for name in data.column_names or ()]
    if source.fields:
        tops = {c if c in names else c.split(".")[0] for c in fileforms.columns(source.fields)}
        lost = sorted(tops - set(names))
        if lost:
            raise _ProblemError(f"no column {lost[0]!r}; there are: {', '.join(names)}")
        wanted = [name for name in names if name in tops]
    else:
        wanted = [name for name in names if name in ROW_KEYS]
        if not {*TEXT_KEYS, "vars"} & set(wanted):
            raise _ProblemError(
                f"no column prompt, input, messages or vars; there are: {', '.join(names)}; say which is which, for "
                "example fields: {prompt: question, target: answer}"
            )
    return _renamed(data.select_columns(wanted), source, wanted)


def _renamed(data: Any, source: Source, wanted: list[str]) -> Iterator[Any]:
    labels = {
        name: feature.names
        for name, feature in (data.features or {}).items()
        if type(feature).__name__ == "ClassLabel" and feature.names
    }
    fields = source.fields or {name: name for name in wanted}
    for raw in islice(data, source.limit):
        row = {k: _named(labels[k], v) if k in labels else v for k, v in raw.items()}
        row = fileforms.renamed(row, fields)
        if isinstance(row.get("messages"), list):  # a table gives every message every key
            row["messages"] = [
                {k: v for k, v in m.items() if v is not None or k == "content"}
                if isinstance(m, Mapping)
                else m
                for m in row["messages"]
            ]
        yield fileforms.from_tuning(row)


def _named(names: list[str], value: Any) -> Any:
    """A class by its name instead of its number; -1 stands for unknown."""
    return (names[value] if 0 <= value < len(names) else None) if isinstance(value, int) else value


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
