"""The folder of an adapter while it is being made: its record, its lock, and checkpoints that a kill cannot spoil.

    out/training.json        what is being trained, and with what; "status" is "running", at the end "finished"
    out/checkpoints/         the newest checkpoint and the best; gone at the end
    out/adapter_*            the adapter, at the end

A checkpoint counts once it is sealed: a file in it lists all others with their sizes, and says which training it is of. The
folder of the checkpoints is marked as made here; one that is not is never written to or deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from workbench.errors import AdapterError
from workbench.prompts.checkrows import canonical_json
from workbench.training.curve import best_step
from workbench.training.overlap import RECORD, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CHECKPOINTS: Final = "checkpoints"
STATE: Final = "trainer_state.json"
_LOCK: Final = ".training.lock"
_SEAL: Final = "sealed.json"
_PREFIX: Final = "checkpoint-"
_TORCH_FILES: Final = ("PytorchStream", "file write failed", "unexpected pos")
"""Words of torch where a file cannot be written or read to its end."""
_MARK: Final = ".workbench"
_NAMED: Final = {
    "base": "the base model is",
    "tokenizer": "the base model's tokenizer is",
    "chat_template": "the base model's chat template is",
    "data": "the training data are",
}


def steps_of(path: Path) -> int:
    """Steps taken when a checkpoint was written."""
    return int(path.name.removeprefix(_PREFIX))


class Checkpoints:
    """The checkpoints of a training.

    Args:
        out: The adapter's folder.
        identity: What tells the training from others; checkpoints of others do not count.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.path = out / CHECKPOINTS
        self._training = hashlib.sha256(canonical_json(identity).encode()).hexdigest()

    def at(self, step: int) -> Path:
        """Where the checkpoint after so many steps is."""
        return self.path / f"{_PREFIX}{step}"

    def claim(self) -> None:
        """Make their folder, marked as ours."""
        self.path.mkdir(exist_ok=True)
        (self.path / _MARK).touch()

    def seal(self, step: int) -> None:
        """Say that a checkpoint is whole."""
        folder = self.at(step)
        sizes = {f.name: f.stat().st_size for f in folder.iterdir() if f.is_file()}
        write_whole(folder / _SEAL, json.dumps({"training": self._training, "sizes": sizes}))

    def sealed(self) -> list[Path]:
        """Whole checkpoints of this training, oldest first."""
        found = [p for p in self.path.glob(f"{_PREFIX}*") if self._is_whole(p)]
        return sorted(found, key=steps_of)

    def _is_whole(self, path: Path) -> bool:
        try:
            seal = json.loads((path / _SEAL).read_text(encoding="utf-8"))
            sizes = seal["sizes"].items()
            return seal["training"] == self._training and all(
                (path / name).stat().st_size == size for name, size in sizes
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False

    def newest(self) -> Path | None:
        """The checkpoint to go on from: the last one whose best so far, which may be kept in the end, is there too."""
        whole = self.sealed()
        usable = [p for p in whole if self.at(best_step(_history(p))) in whole]
        return usable[-1] if usable else None

    def history(self) -> list[dict[str, Any]]:
        """What was logged until the newest checkpoint."""
        newest = self.newest()
        return [] if newest is None else _history(newest)

    def keep(self, steps: set[int]) -> None:
        """Delete all checkpoints but these."""
        whole = self.sealed()
        for path in self.path.glob(f"{_PREFIX}*"):
            if path not in whole or steps_of(path) not in steps:
                shutil.rmtree(path, ignore_errors=True)

    def clean(self) -> None:
        """Delete all that training does not go on from."""
        newest = self.newest()
        self.keep(set() if newest is None else {steps_of(newest), best_step(_history(newest))})

    def remove(self) -> None:
        """Delete them all, and their folder if nothing else is in it."""
        self.keep(set())
        (self.path / _MARK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # missing, or somebody put something in
            self.path.rmdir()


def _history(checkpoint: Path) -> list[dict[str, Any]]:
    text = (checkpoint / STATE).read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = json.loads(text)["log_history"]
    return entries


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


@contextlib.contextmanager
def on_disk(out: Path) -> Iterator[None]:
    """Inside, files of the folder are written and read.

    Raises:
        AdapterError: One cannot be, for example because the disk is full.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason: Any = getattr(error, "strerror", None) or error
        if isinstance(error, RuntimeError):
            if not any(word in str(error) for word in _TORCH_FILES):
                raise
            reason = "torch met the end of a file too early"
        raise AdapterError(
            f"{out}: its files cannot be written or read ({reason}); "
            f"make room or mend it and call again, or delete {out / CHECKPOINTS} to begin anew"
        ) from error


def look(out: Path) -> dict[str, Any] | None:
    """The record of a training in a folder, or None if nothing is there.

    Raises:
        AdapterError: Something else is there.
    """
    if out.exists() and not out.is_dir():
        raise AdapterError(f"{out}: a file; give a folder that is new or empty")
    theirs = out / CHECKPOINTS
    empty = theirs.is_dir() and not any(theirs.iterdir())
    if theirs.exists() and not empty and not (theirs / _MARK).is_file():
        raise AdapterError(
            f"{theirs}: was not made by the workbench, which would write its own there; give another folder"
        )
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
        wanted: That of the training asked for; a device or kernel "auto" is whichever it was.

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
    changes += [
        f"{name} was {found.get(name)!r} and is {wanted[name]!r}"
        for name in ("device", "kernel")
        if wanted[name] not in ("auto", found.get(name), str(found.get(name)).partition(":")[0])
    ]
    if changes:
        raise AdapterError(
            f"{out}: another training is there: {'; '.join(changes)}; give another folder, or delete this one"
        )
