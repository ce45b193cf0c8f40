"""Files of a run directory: its manifest, its lock, and its database connection, with errors in one sentence."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import StoreError
from workbench.records import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DATABASE: Final = "run.sqlite"
MANIFEST: Final = "manifest.json"
LOCK: Final = "run.lock"

REPAIR: Final = "restore it from a copy, or delete the directory and run the study again"


def read_manifest(directory: Path) -> dict[str, Any]:
    """What ``manifest.json`` of a run directory holds.

    Raises:
        StoreError: It is missing or damaged.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{directory}: not a run directory (no {MANIFEST})") from None
    except OSError as error:
        raise StoreError(f"{directory}: {MANIFEST} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise StoreError(f"{directory}: {MANIFEST} is damaged (not JSON); {REPAIR}") from error
    if not isinstance(manifest, dict):
        raise StoreError(f"{directory}: {MANIFEST} is damaged (not an object); {REPAIR}")
    version = manifest.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise newer(directory, version)
    return manifest


def connect(path: Path, mode: str | None = None) -> sqlite3.Connection:
    """Open the database of a run directory.

    Args:
        path: The run directory.
        mode: "rw" or "rwc" (created if missing) to write; None to read.
    """
    uri = f"file:{_quoted(path / DATABASE)}?mode={mode or _read_mode(path)}"
    db = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        if mode is not None:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        db.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _read_mode(path: Path) -> str:
    """A WAL database in a directory that cannot be written opens only if it is declared unchanging."""
    unchanging = not os.access(path, os.W_OK) and not (path / f"{DATABASE}-wal").exists()
    return "ro&immutable=1" if unchanging else "ro"


def _quoted(path: Path) -> str:
    text = str(path.absolute())
    for character, code in (("%", "%25"), ("?", "%3f"), ("#", "%23")):
        text = text.replace(character, code)
    return text


def take_lock(path: Path) -> int:
    """Lock a run directory for this process; the lock goes when the file is closed or the process dies."""
    try:
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise cannot_write(path, LOCK, error.strerror) from error
    for wait_s in (0.02, 0.1, None):  # another process may look at the lock for a moment
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if wait_s is not None:
                time.sleep(wait_s)
    else:
        pid = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StoreError(
            f"{path}: process {pid} is writing this run; wait for it, or stop it, then try again"
        )
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def is_being_written(path: Path) -> bool:
    """Whether a process holds the lock of a run directory."""
    try:
        fd = os.open(path / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one sentence with the directory and what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise StoreError(
                f"{path}: {DATABASE} is in use by another program ({text}); close it and try again"
            ) from error
        if any(word in text for word in ("full", "I/O", "readonly", "unable to open")):
            raise cannot_write(path, DATABASE, text) from error
        raise StoreError(f"{path}: {DATABASE} cannot be used ({text}); {REPAIR}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {DATABASE} is damaged ({error}); {REPAIR}") from error


def newer(directory: Path, version: object) -> StoreError:
    """The error for a run directory from the future."""
    return StoreError(
        f"{directory}: written by a newer version (schema {version}, this one reads up to {SCHEMA_VERSION})"
    )


def cannot_write(path: Path, name: str, why: str | None) -> StoreError:
    """The error for a file of a run directory that cannot be written."""
    return StoreError(
        f"{path}: cannot write {name} ({why}); what was committed is safe: "
        "make room or allow writing, then run the same command again to continue"
    )


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Replace ``manifest.json`` of a run directory whole, so that a reader never sees half of it.

    Raises:
        StoreError: The file cannot be written.
    """
    text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str) + "\n"
    temporary = directory / f"{MANIFEST}.tmp"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / MANIFEST)
    except OSError as error:
        raise cannot_write(directory, MANIFEST, error.strerror) from error
