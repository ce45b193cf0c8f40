"""The folder of an adapter while it is being made: its record, its lock, and checkpoints that a kill cannot spoil.

    out/training.json        what is being trained, and with what; "status" is "running", at the end "finished"
    out/checkpoints/         the newest checkpoint and the best; gone at the end
    out/adapter_*            the adapter, at the end

A checkpoint counts once it is sealed: a file in it lists all others with their sizes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock, Timeout

from workbench.errors import AdapterError
from workbench.training.overlap import RECORD, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CHECKPOINTS: Final = "checkpoints"
STATE: Final = "trainer_state.json"
_LOCK: Final = ".training.lock"
_SEAL: Final = "sealed.json"
_PREFIX: Final = "checkpoint-"
_NAMED: Final = {"base": "the base model is", "data": "the training data are"}


def steps_of(path: Path) -> int:
    """Steps taken when a checkpoint was written."""
    return int(path.name.removeprefix(_PREFIX))


class Checkpoints:
    """The checkpoints of a training."""

    def __init__(self, out: Path) -> None:
        self.path = out / CHECKPOINTS

    def at(self, step: int) -> Path:
        """Where the checkpoint after so many steps is."""
        return self.path / f"{_PREFIX}{step}"

    def seal(self, step: int) -> None:
        """Say that a checkpoint is whole."""
        folder = self.at(step)
        sizes = {f.name: f.stat().st_size for f in folder.iterdir() if f.is_file()}
        write_whole(folder / _SEAL, json.dumps(sizes))

    def sealed(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        found = [p for p in self.path.glob(f"{_PREFIX}*") if _is_whole(p)]
        return sorted(found, key=steps_of)

    def keep(self, steps: set[int]) -> None:
        """Delete all checkpoints but these."""
        whole = self.sealed()
        for path in self.path.glob(f"{_PREFIX}*"):
            if path not in whole or steps_of(path) not in steps:
                shutil.rmtree(path, ignore_errors=True)

    def clean(self) -> None:
        """Delete what a kill left unfinished."""
        self.keep({steps_of(path) for path in self.sealed()})

    def history(self) -> list[dict[str, Any]]:
        """What was logged until the newest checkpoint."""
        last = self.sealed()[-1:]
        if not last:
            return []
        text = (last[0] / STATE).read_text(encoding="utf-8")
        entries: list[dict[str, Any]] = json.loads(text)["log_history"]
        return entries

    def remove(self) -> None:
        """Delete them all."""
        shutil.rmtree(self.path, ignore_errors=True)


def _is_whole(path: Path) -> bool:
    try:
        sizes = json.loads((path / _SEAL).read_text(encoding="utf-8"))
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def write_whole(file: Path, text: str) -> None:
    """Write a file so that a reader never sees half of it."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the folder for this process.

    Raises:
        AdapterError: Another process trains there, or it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / _LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise AdapterError(f"{out}: another process is training there; wait for it") from None
    except OSError as error:
        raise AdapterError(f"{out}: cannot be written ({error.strerror})") from error
    try:
        yield
    finally:
        (out / _LOCK).unlink(missing_ok=True)
        lock.release()


def look(out: Path) -> dict[str, Any] | None:
    """The record of a training in a folder, or None if nothing is there.

    Raises:
        AdapterError: Something else is there.
    """
    if out.exists() and not out.is_dir():
        raise AdapterError(f"{out}: a file; give a folder that is new or empty")
    if (out / RECORD).exists():
        return read_record(out)
    if out.is_dir() and any(
        p.name != CHECKPOINTS and not p.name.startswith(".") for p in out.iterdir()
    ):
        raise AdapterError(
            f"{out}: holds other files and no training; give a folder that is new or empty"
        )
    return None


def check_same(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with a training of something else.

    Args:
        out: The folder, for the message.
        found: ``identity`` of the record there.
        wanted: That of the training asked for.

    Raises:
        AdapterError: They differ; says in what.
    """
    changes = [
        f"{told} not the same" for key, told in _NAMED.items() if found.get(key) != wanted[key]
    ]
    before, now = found.get("settings", {}), wanted["settings"]
    changes += [
        f"{name} was {before.get(name)!r} and is {now[name]!r}"
        for name in now
        if before.get(name) != now[name]
    ]
    if changes:
        raise AdapterError(
            f"{out}: another training is there: {'; '.join(changes)}; give another folder, or delete this one"
        )
