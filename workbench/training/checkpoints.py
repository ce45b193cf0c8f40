"""The folder of an adapter while it is being made: its record, its lock, and checkpoints that a kill cannot spoil.

    out/training.json        what is being trained, and with what; "status" is "running", at the end "finished"
    out/checkpoints/         the newest checkpoint and the best; gone at the end
    out/adapter_*            the adapter, at the end

A checkpoint counts once it is sealed: a file in it lists all others with their hashes, and says which training it is of. It is
written when they are on the disk. The folder of the checkpoints is marked as made here; one that is not is never written to or
deleted. The lock file stays: deleting it could take it from under a process that waits for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from workbench.errors import AdapterError
from workbench.prompts.checkrows import canonical_json
from workbench.training.curve import best_step
from workbench.training.overlap import RECORD, damaged, read_record

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
    """The checkpoints of a training; each is read and looked at once.

    Args:
        out: The adapter's folder.
        identity: What tells the training from others; checkpoints of others do not count.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.path = out / CHECKPOINTS
        self._training = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
        self._states: dict[Path, bool | None] = {}

    def at(self, step: int) -> Path:
        """Where the checkpoint after so many steps is."""
        return self.path / f"{_PREFIX}{step}"

    def claim(self) -> None:
        """Make their folder, marked as ours."""
        self.path.mkdir(exist_ok=True)
        (self.path / _MARK).touch()

    def seal(self, step: int) -> None:
        """Say that a checkpoint is whole, once it is on the disk."""
        folder = self.at(step)
        hashes = {f.name: stored(f) for f in sorted(folder.iterdir()) if f.is_file()}
        hashes.pop(_SEAL, None)
        write_whole(folder / _SEAL, json.dumps({"training": self._training, "sha256": hashes}))
        _store_names(self.path)
        self._states[folder] = True

    def sealed(self) -> list[Path]:
        """Whole checkpoints of this training, oldest first."""
        return self._those(whole=True)

    def damaged(self) -> list[Path]:
        """Checkpoints of this training that were whole once, oldest first."""
        return self._those(whole=False)

    def reject(self, name: str) -> None:
        """Count a checkpoint that cannot be loaded as damaged."""
        self._states[self.path / name] = False

    def _those(self, *, whole: bool) -> list[Path]:
        found = [p for p in self.path.glob(f"{_PREFIX}*") if p.name[len(_PREFIX) :].isdecimal()]
        for path in found:
            if path not in self._states:
                self._states[path] = self._state(path)
        return sorted((p for p in found if self._states[p] is whole), key=steps_of)

    def _state(self, path: Path) -> bool | None:
        """Whether a checkpoint is as it was sealed; None if it never was, or is of another training."""
        try:
            seal = json.loads((path / _SEAL).read_text(encoding="utf-8"))
            if seal["training"] != self._training:
                return None
            same = all(_sha256(path / name) == was for name, was in seal["sha256"].items())
            return same and best_step(_history(path)) >= 0
        except FileNotFoundError:
            return False if (path / _SEAL).exists() else None
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
        wanted = {self.at(step) for step in steps}
        for path in self.path.glob(f"{_PREFIX}*"):
            if path not in wanted:
                shutil.rmtree(path, ignore_errors=True)
                self._states.pop(path, None)

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


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def stored(file: Path) -> str:
    """The hash of a file, which is on the disk afterwards."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
    return _sha256(file)


def _store_names(folder: Path) -> None:
    """See to it that the disk has the names of a folder's files; not every system can be told to."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_whole(file: Path, text: str) -> None:
    """Write a file so that a reader never sees half of it, also after the power failed."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    stored(temporary)
    temporary.replace(file)
    _store_names(file.parent)


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
        record = read_record(out)
        if not _is_record(record):
            raise damaged(out)
        return record
    if out.is_dir() and any(
        p.name != CHECKPOINTS and not p.name.startswith(".") for p in out.iterdir()
    ):
        raise AdapterError(
            f"{out}: holds other files and no training; give a folder that is new or empty"
        )
    return None


_FIELDS: Final = {
    "status": str,
    "about": str,
    "evaluated": list,
    "calls": list,
    "started_utc": str,
    "data": dict,
    "base": dict,
    "settings": dict,
    "identity": dict,
    "identity.settings": dict,
    "identity.device": str,
    "identity.kernel": str,
}
_AT_THE_END: Final = {
    "ended_utc": str,
    "warnings": list,
    "data.n_train": int,
    "adapter": dict,
    "adapter.sha256": str,
    "adapter.n_parameters": int,
    "adapter.targets": list,
    "result": dict,
    "result.best_step": int,
    "result.n_steps": int,
    "result.n_steps_planned": int,
    "result.stopped": str,
    "result.elapsed_s": float,
    "result.train_loss": dict,
    "result.validation_loss": dict,
}
"""Fields of a record and what they are: of every one, and of one that is finished."""


def _is_record(record: dict[str, Any]) -> bool:
    """Whether a record holds what is read of it here."""
    fields = _FIELDS | (_AT_THE_END if record.get("status") == "finished" else {})
    for name, kind in fields.items():
        value: Any = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            return False
    calls_ok = all(isinstance(c, dict) and "started_utc" in c for c in record["calls"])
    sets_ok = all(
        isinstance(s, dict) and {"name", "sha256", "n"} <= s.keys() for s in record["evaluated"]
    )
    return calls_ok and sets_ok and record["status"] in ("running", "finished")


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
