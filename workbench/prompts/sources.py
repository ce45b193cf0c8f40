"""What names a set of prompts: a file, a data set of the hub, one that ships; told apart and checked without reading it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from workbench.errors import PromptSetError, unknown
from workbench.prompts.checkrows import ROW_KEYS, TEXT_KEYS, kind

SUFFIXES: Final = (".jsonl", ".ndjson", ".csv", ".tsv", ".yaml", ".yml")
FILE_KEYS: Final = ("file", "fields")
HUB_KEYS: Final = ("hf", "config", "split", "revision", "fields", "limit")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_LISTS: Final = ("metadata", "vars")


@dataclass(frozen=True, slots=True)
class Source:
    """Where prompts are read from.

    Attributes:
        kind: "file", "hf" (a data set read with the ``datasets`` package) or "builtin" (ships with the workbench).
        name: File name, data set name or local path, or name of the shipped set.
        fields: Our field to column; empty: the columns have our names.
        config: Which configuration of a data set.
        split: Which split of a data set; None if it has only one.
        revision: Commit of a data set of the hub.
        limit: Only so many of a data set's first rows.
    """

    kind: str
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    limit: int | None = None

    @property
    def label(self) -> str:
        """What messages call it."""
        if self.kind != "hf":
            return self.name if self.kind == "file" else f"builtin:{self.name}"
        return f"hf:{self.name}" + (f"/{self.split}" if self.split else "")


def is_file_name(item: object) -> bool:
    """True for what names a source: a path, one word with a suffix, ``hf:``, ``builtin:``, or ``{file:}`` / ``{hf:}``."""
    if isinstance(item, Path):
        return True
    if isinstance(item, Mapping):
        return "file" in item or "hf" in item
    if not isinstance(item, str):
        return False
    if item.lower().endswith(SUFFIXES) and "\n" not in item:
        return True
    return bool(re.fullmatch(r"(hf|builtin):\S+|\S*[^\s.]\.[A-Za-z][A-Za-z0-9]{1,6}", item))


def spec_problems(
    spec: object, base_dir: str | Path | None = None, *, check_files: bool = False
) -> list[str]:
    """What is wrong with one source as a study names it; nothing is read.

    Args:
        spec: A file name, ``hf:...``, ``builtin:...``, ``{file, fields}`` (``FILE_KEYS``) or
            ``{hf, config, split, revision, fields, limit}`` (``HUB_KEYS``).
        base_dir: Relative names are looked up here first, then in the current directory.
        check_files: Also say which files are not there.
    """
    source, problems = parse(spec, base_dir)
    if source is None or not check_files or source.kind == "hf":
        return problems
    return [problem] if (problem := _locate(source, base_dir)[1]) else []


def find_file(name: object, base_dir: str | Path | None) -> tuple[Path | None, str]:
    """Where a prompt file, or a set that ships, is: (path, "") or (None, what is wrong)."""
    source, problems = parse(name, base_dir)
    if source is None:
        return None, "; ".join(problems)
    return _locate(source, base_dir)


def _locate(source: Source, base_dir: str | Path | None) -> tuple[Path | None, str]:
    if source.kind == "builtin":
        try:
            return builtin(source.name), ""
        except PromptSetError as error:
            return None, str(error)
    tried = places(source.name, base_dir)
    found = next((place for place in tried if place.is_file()), None)
    return (found, "") if found else (None, f"{source.name}: no such file ({looked_in(tried)})")


def places(name: str | Path, base_dir: str | Path | None) -> list[Path]:
    """Where a relative name may be: beside the study file first, then in the current directory."""
    path = Path(name).expanduser()
    if base_dir is None or path.is_absolute():
        return [path]
    return [Path(base_dir) / path, path]


def looked_in(tried: list[Path]) -> str:
    """Where was looked, for a message."""
    return "looked in " + " and ".join(dict.fromkeys(str(p.parent.resolve()) for p in tried))


def local_path(name: str, base_dir: str | Path | None) -> Path | None:
    """The local file or folder a data set's name means, or None if it is a name of the hub."""
    path, tried = Path(name), places(name, base_dir)
    found = next((place for place in tried if place.exists()), None)
    meant = name.startswith((".", "/", "~")) or bool(path.suffix and name.count("/") != 1)
    return found or (tried[0] if meant else None)


def parse(spec: object, base_dir: str | Path | None = None) -> tuple[Source | None, list[str]]:
    """The source that a spec names, or None and what is wrong with it."""
    if isinstance(spec, Mapping):
        return _from_mapping(spec, base_dir)
    name = str(spec)
    if name.startswith("builtin:"):
        return Source("builtin", name.removeprefix("builtin:")), []
    if name.startswith("hf:"):
        return _checked_hub(_hub_text(name.removeprefix("hf:"), base_dir), base_dir)
    return _checked_file(Source("file", name))


def _hub_text(text: str, base_dir: str | Path | None) -> Source:
    text, _, revision = text.partition("@")
    if local_path(text, base_dir) is not None and Path(text).suffix:
        return Source("hf", text, revision=revision or None)
    name, slash, split = text.rpartition("/")
    path = local_path(text, base_dir)
    if not slash or name in ("", ".", "..", "~") or (path is not None and path.exists()):
        return Source("hf", text, revision=revision or None)
    return Source("hf", name, split=split or None, revision=revision or None)


def _from_mapping(
    spec: Mapping[Any, Any], base_dir: str | Path | None
) -> tuple[Source | None, list[str]]:
    known = HUB_KEYS if "hf" in spec else FILE_KEYS
    what = "hf" if "hf" in spec else "file"
    label = f"{what}: {spec.get(what)}"
    problems = [f"{label}: {unknown('key', key, known)}" for key in spec if key not in known]
    texts = ("hf", "file", "config", "split", "revision")
    problems += [
        f"{label}: {key} must be a non-empty text, got {spec[key]!r}"
        for key in texts
        if key in known
        and (key == what or spec.get(key) is not None)
        and not (isinstance(spec.get(key), str | Path if key == "file" else str) and str(spec[key]))
    ]
    limit = spec.get("limit")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        problems.append(f"{label}: limit must be a whole number of at least 1, got {limit!r}")
    fields = spec.get("fields") or {}
    problems += [f"{label}: fields: {problem}" for problem in _field_problems(fields)]
    if problems:
        return None, problems
    if what == "file":
        name = str(spec["file"])
        if name.startswith(("hf:", "builtin:")):
            return None, [f"{label}: file names a file; write prompts: {name}, or hf: without file"]
        return _checked_file(Source("file", name, fields))
    source = Source(
        "hf",
        str(spec["hf"]).removeprefix("hf:"),
        fields,
        *(spec.get(key) for key in ("config", "split", "revision", "limit")),
    )
    return _checked_hub(source, base_dir)


def _field_problems(fields: object) -> list[str]:
    if not isinstance(fields, Mapping):
        return [f"must be field: column, got {fields!r}"]
    problems = []
    for ours, theirs in fields.items():
        lists = isinstance(theirs, list | tuple | Mapping) and ours in _LISTS
        names = (
            list(theirs.values() if isinstance(theirs, Mapping) else theirs) if lists else [theirs]
        )
        if ours not in ROW_KEYS:
            problems.append(unknown("field", ours, ROW_KEYS))
        elif not names or not all(isinstance(name, str) and name for name in names):
            allowed = "a column's name" + (
                ", a list of them, or name: column" if ours in _LISTS else ""
            )
            problems.append(f"{ours} must be {allowed}, got {theirs!r}")
        elif ours == "vars" and not isinstance(theirs, str):
            problems += [
                f"vars: {name!r} cannot be a variable's name; give it one (name: column)"
                for name in theirs
                if not (isinstance(name, str) and name.isidentifier())
            ]
    given = [key for key in TEXT_KEYS if key in fields]
    if fields and (len(given) > 1 or (not given and "vars" not in fields)):
        got = " and ".join(given) if given else "none of them"
        problems.append(f"needs exactly one of {', '.join(TEXT_KEYS)}, or vars; has {got}")
    return problems


def _checked_file(source: Source) -> tuple[Source | None, list[str]]:
    suffix = Path(source.name).suffix.lower()
    if suffix not in SUFFIXES:
        return None, [f"{source.name}: a prompt file ends in {', '.join(SUFFIXES)}"]
    if source.fields and suffix in (".yaml", ".yml"):
        return None, [f"{source.name}: fields are for tables; a promptfoo file has its own names"]
    return source, []


def _checked_hub(source: Source, base_dir: str | Path | None) -> tuple[Source | None, list[str]]:
    if local_path(source.name, base_dir) is not None:
        if source.revision is not None:
            return None, [f"{source.label}: revision is for the hub; this is a local path"]
        return source, []
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source.name):
        return None, [f"{source.label}: {source.name!r} is neither a local path nor owner/name"]
    if source.revision is None or not _COMMIT.fullmatch(source.revision):
        got = "is missing" if source.revision is None else f"{source.revision!r} can move"
        command = f"import huggingface_hub as h; print(h.HfApi().dataset_info('{source.name}').sha)"
        rule = "it must be a commit (40 hex digits), so that the prompts stay the same"
        where = f'the data set\'s history shows it, and so does: python -c "{command}"'
        return None, [f"{source.label}: revision {got}; {rule}; {where}"]
    if source.split is None:
        return None, [f"{source.label}: split is missing, for example test"]
    return source, []


def registry_file() -> Path:
    """``registry.json`` of the prompt sets that ship: in the package, or in the clone around it.

    Raises:
        PromptSetError: It is in neither place.
    """
    package = Path(__file__).resolve().parent.parent
    places = [package / "datasets", package.parent / "datasets"]
    for place in places:
        if (place / "registry.json").is_file():
            return place / "registry.json"
    where = " or ".join(map(str, places))
    raise PromptSetError("builtin", f"no registry.json in {where}; install the workbench again")


def registered() -> dict[str, dict[str, Any]]:
    """Name to entry (``file``, ``sha256``, ...) of the prompt sets that ship.

    Raises:
        PromptSetError: The registry is missing or damaged.
    """
    path = registry_file()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PromptSetError("builtin", f"{path}: cannot be read ({error})") from error
    if not isinstance(entries, dict):
        raise PromptSetError("builtin", f"{path}: must hold an object, got {kind(entries)}")
    return entries


def builtin(name: str) -> Path:
    """The file of a prompt set that ships.

    Raises:
        PromptSetError: There is none of that name; lists the names.
    """
    entries = registered()
    if name not in entries:
        raise PromptSetError(f"builtin:{name}", unknown("prompt set", name, entries))
    return registry_file().parent / str(entries[name]["file"])
