"""What the machine is doing: CPU pressure, CPU time of others, load and clock. All from Linux's /proc, None elsewhere."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_BUSY: Final = (0, 1, 2, 5, 6, 7)
"""Fields of the "cpu" line of /proc/stat that are work: user, nice, system, irq, softirq, steal."""


class Usage(NamedTuple):
    """Counters at one moment.

    Attributes:
        wall_s: Time, seconds.
        own_s: CPU time of this process, all threads, seconds.
        busy_s: CPU time of everyone on all CPUs, stolen time included, seconds; None if unknown.
        stalled_s: Time in which some task waited for a CPU, seconds; None if unknown.
        pressure_avg10: Per cent of the last ten seconds in which some task waited for a CPU; None if unknown.
    """

    wall_s: float
    own_s: float
    busy_s: float | None
    stalled_s: float | None
    pressure_avg10: float | None


def usage() -> Usage:
    """The counters now."""
    pressure = _read("pressure/cpu")
    some = re.match(r"some avg10=([\d.]+).*?total=(\d+)", pressure or "")
    return Usage(
        wall_s=time.perf_counter(),
        own_s=time.process_time(),
        busy_s=_busy_s(),
        stalled_s=int(some[2]) / 1e6 if some else None,
        pressure_avg10=float(some[1]) if some else None,
    )


def shares(before: Usage, after: Usage) -> tuple[float | None, float | None]:
    """What happened between two moments.

    Returns:
        Share of the time in which some task waited for a CPU, and share of all CPU time that other processes used; each
        0..1, or None if unknown.
    """
    wall_s = max(after.wall_s - before.wall_s, 1e-9)
    stalled = others = None
    if before.stalled_s is not None and after.stalled_s is not None:
        stalled = min(max((after.stalled_s - before.stalled_s) / wall_s, 0.0), 1.0)
    if before.busy_s is not None and after.busy_s is not None:
        # busy_s counts in ticks of 10 ms, so over short times the difference can come out negative.
        not_ours = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
        others = min(max(not_ours / (wall_s * n_cpus()), 0.0), 1.0)
    return stalled, others


def n_cpus() -> int:
    """CPUs of the machine."""
    return os.cpu_count() or 1


def load1() -> float | None:
    """Load average of the last minute."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def clock_mhz(device: str) -> float | None:
    """Present clock of the device that computes: the GPU's, or the mean of the CPUs'."""
    if device.startswith("cuda"):
        return _gpu_clock_mhz(device)
    clocks = re.findall(r"^cpu MHz\s*: ([\d.]+)", _read("cpuinfo") or "", re.MULTILINE)
    return sum(map(float, clocks)) / len(clocks) if clocks else None


def _gpu_clock_mhz(device: str) -> float | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    try:
        return float(torch.cuda.clock_rate(device))
    except (ImportError, RuntimeError, AttributeError):  # needs the driver's management library
        return None


def _busy_s() -> float | None:
    line = (_read("stat") or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None
    return sum(int(line[1 + i]) for i in _BUSY) / os.sysconf("SC_CLK_TCK")


def _read(name: str) -> str | None:
    try:
        return (_PROC / name).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
