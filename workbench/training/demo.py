"""The two demo adapters: one that helps on sums, one that costs more than it gives.

* ``terse-sums`` answers a sum with the number alone.
* ``polite`` puts every answer between courteous sentences: what a shop may want, and more tokens than most settings allow.

No prompt of any set that ships is trained on.

They are trained once on ``datasets/training/*.jsonl``, a few minutes on two cores, and kept in the cache beside the demo model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from workbench import registry
from workbench.demo import datasets
from workbench.errors import AdapterError
from workbench.training.overlap import RECORD
from workbench.training.rows import read
from workbench.training.run import train
from workbench.training.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT: Final = 1
"""Raised whenever training changes, so that older copies are not used."""
_HASHES: Final = "hashes.json"
_BUILDING: Final = "building"

ABOUT: Final = {
    "terse-sums": "answer a sum with the number alone",
    "polite": "answer everyday questions courteously, with a greeting before and an offer after the answer",
}
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "terse-sums": {"epochs": 2},
    "polite": {"epochs": 2, "batch_size": 4},
}


def demo_adapters(
    cache: str | Path | None = None,
    *,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> dict[str, Path]:
    """The demo adapters' folders by name, trained if they are missing or damaged.

    Several processes may call this at once: one trains, the others wait. A training that was killed goes on.

    Args:
        cache: Where they are kept; by default the user's cache directory, or WORKBENCH_CACHE.
        progress: Show progress bars.
        say: Told in one line what is going on; nothing by default.

    Raises:
        ModelNotFound: The demo model is not installed.
        AdapterError: An adapter cannot be written.
    """
    from workbench.engines.local import demo_model  # noqa: PLC0415 - imports torch

    place = demo_model.cache_dir() if cache is None else Path(cache).expanduser()
    tell = say or (lambda _: None)
    return {name: _ensure(place, name, progress=progress, say=tell) for name in SETTINGS}


def _ensure(cache: Path, name: str, *, progress: bool, say: Callable[[str], None]) -> Path:
    home = cache / f"demo-adapters-{_version(name)}"
    home.mkdir(parents=True, exist_ok=True)
    target = home / name
    with FileLock(home / f"{name}.lock"):
        if not is_whole(target):
            _build(home, target, progress=progress, say=say)
    return target


def _version(name: str) -> str:
    """Short hash of what an adapter is made from: its rows, its settings, the demo model."""
    from workbench.engines.local import demo_model  # noqa: PLC0415 - imports torch

    made_from = [
        FORMAT,
        read(_file(name)).sha256,
        Settings.of(SETTINGS[name]).to_dict(),
        demo_model.folder().name,
    ]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:10]


def _file(name: str) -> Path:
    return datasets() / "training" / f"{name}.jsonl"


def is_whole(folder: Path) -> bool:
    """True if every file of a trained adapter is there with the content it was written with."""
    try:
        hashes = json.loads((folder / _HASHES).read_text(encoding="utf-8"))
        return bool(hashes) and all(_sha256(folder / n) == h for n, h in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(home: Path, target: Path, *, progress: bool, say: Callable[[str], None]) -> None:
    """Train beside the target, going on where a killed build stopped, then move it there in one step."""
    work = home / _BUILDING / target.name
    options: dict[str, Any] = {
        "out": work,
        "about": ABOUT[target.name],
        "evaluated": [f"builtin:{name}" for name in registry.names()],
        "device": "cpu",  # the same adapter on every machine, as far as its arithmetic goes
        "progress": progress,
        "say": say,
        **SETTINGS[target.name],
    }
    try:
        train(_file(target.name), **options)
    except AdapterError:
        if not (work / RECORD).exists():
            raise
        shutil.rmtree(work)  # what a killed build left does not fit; nothing in it is worth keeping
        train(_file(target.name), **options)
    hashes = {
        f.name: _sha256(f) for f in sorted(work.iterdir()) if f.is_file() and f.name != _HASHES
    }
    (work / _HASHES).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    work.rename(target)
