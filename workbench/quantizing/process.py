"""Starting the process that quantizes, listening to it, and saying what happened if it ends early."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import EngineUnavailable, OutOfMemory, WorkbenchError
from workbench.quantizing.checks import INSTALL

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND: Final = (sys.executable, "-P", "-m", "workbench.quantizing.worker")
_MEMORY: Final = ("MemoryError", "OutOfMemoryError")
_SHOWN: Final = 500
"""Characters of what a process said last."""


def run(
    job: dict[str, Any],
    log: Path,
    on_message: Callable[[dict[str, Any]], None],
    *,
    device: str = "auto",
    command: tuple[str, ...] = COMMAND,
) -> dict[str, Any]:
    """Quantize in a process of its own, which is gone when this returns or raises.

    Args:
        job: See `workbench.quantizing.worker`.
        log: File for what the libraries print.
        on_message: Told how far it is.
        device: "cpu" hides all GPUs from it.
        command: That is started.

    Returns:
        What it says at its end.

    Raises:
        EngineUnavailable: A package is missing.
        OutOfMemory: Memory ran out, or the system killed it.
        WorkbenchError: It failed in another way.
    """
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - a command of our own
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(device),
            start_new_session=True,  # Ctrl-C reaches this process, which ends that one
        )
        try:
            done = _listen(process, job, on_message)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                _close(pipe)
    if done is None:
        raise _early(code, log)
    return done


def _environment(device: str) -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return {**os.environ, "PYTHONPATH": path, **hidden}


def _listen(
    process: subprocess.Popen[bytes],
    job: dict[str, Any],
    on_message: Callable[[dict[str, Any]], None],
) -> dict[str, Any] | None:
    """Hand over the job and pass on messages until the last; None if there was no last one."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:  # it is gone already: its exit code says more
        return None
    for line in process.stdout:
        try:
            message = json.loads(line)
        except ValueError:
            continue  # a line cut short by its end
        if "error" in message:
            raise _failed(message)
        if "done" in message:
            return dict(message["done"])
        on_message(message)
    return None


def _close(pipe: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # what it did not read any more
        pipe.close()


def _failed(message: dict[str, Any]) -> WorkbenchError:
    kind, text = message["kind"], message["error"]
    if kind in ("ImportError", "ModuleNotFoundError"):
        return EngineUnavailable(
            f"quantizing needs a package that cannot be imported here ({text}); run: {INSTALL}"
        )
    if kind in _MEMORY or "can't allocate memory" in text:
        return OutOfMemory(
            f"memory ran out while quantizing ({text}); calibrate with fewer prompts"
        )
    return WorkbenchError(f"AutoAWQ could not quantize this model ({kind}: {text})")


def _early(code: int, log: Path) -> WorkbenchError:
    """What to say of a process that ended without a last message."""
    if code < 0:
        known = {int(s): s.name for s in signal.Signals}
        name = known.get(-code, f"signal {-code}")
        text = f"the process that quantizes was killed by {name}"
        if name == "SIGKILL":
            return OutOfMemory(
                f"{text}, which the system does when memory runs out; calibrate with fewer prompts, or use a machine "
                "with more memory"
            )
        return WorkbenchError(f"{text}; nothing was written")
    said = " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-_SHOWN:]
    last = f"; it said last: {said}" if said else ""
    return WorkbenchError(
        f"the process that quantizes ended early with exit code {code}; nothing was written{last}"
    )
