"""The latency pass: the same requests as the quality run, one at a time.

The quality run decodes many rows together, so its per-row times mean nothing. Here some of its requests are replayed
alone, with the same seeds and with no part of the prompt computed before, and timed by the definitions in
``workbench.records``. One caller waits for each answer before asking the next: a closed loop, not a serving load.

* Some warm-up requests come first; they are recorded with ``warm`` 0.
* A block is one prompt in one round: every cell once, in random order. Drift of the machine falls on all cells alike.
* Garbage collection is off while a request runs.
* Each replay's tokens are compared with those of the quality run (``tokens_match``).

**Noisy requests.** A request is flagged when others used the machine under it: some task waited for a CPU during at least
10 % of the request (``stalled_share``, from /proc/pressure/cpu) *and* other processes used at least 5 % of all CPU time
(``others_share``, from /proc/stat, at least 0.03 s of it). Own threads that outnumber the cores stall each other too; that is
part of the latency and no noise. Without pressure information the second condition alone must reach 25 %. Where neither
is known, ``noisy`` is null.
"""

from __future__ import annotations

import contextlib
import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from workbench import machine, provenance
from workbench.errors import AdapterError, EngineError, EngineUnavailable, OutOfMemory, StoreError
from workbench.progress import room_for_bars
from workbench.records import timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from workbench.engines.base import Engine
    from workbench.plan import Plan
    from workbench.records import Request, TokenEvent
    from workbench.store import RunStore

    Say = Callable[[str], None]

STALLED_SHARE: Final = 0.10
OTHERS_SHARE: Final = 0.05
OTHERS_ALONE_SHARE: Final = 0.25
OTHERS_SECONDS: Final = 0.03
TICK_S: Final = 30.0
"""Where there is no progress bar, a line says so often how far it is, seconds."""

MIN_N: Final = ((50.0, 1), (90.0, 64), (95.0, 130), (99.0, 662))
"""Percentile and the least number of values from which it is printed; between two, the higher one's number counts."""


def percentile(values: Iterable[float | None], q: float) -> float | None:
    """A percentile, or None if there are too few values to support it.

    The least numbers for p90, p95 and p99 are those at which MLPerf's early-stopping estimate exists with one request
    over it, at 99 % confidence; percentiles below 50 count as their mirror image. Linear interpolation.

    Args:
        values: None is skipped.
        q: 0 < q < 100.

    Raises:
        ValueError: ``q`` is outside its range.

    >>> percentile([1.0, 2.0, 4.0], 50)
    2.0
    >>> percentile([1.0] * 63, 90) is None
    True
    """
    if not 0 < q < 100:
        raise ValueError(f"q must be between 0 and 100, got {q}")
    present = np.array([v for v in values if v is not None and not np.isnan(v)], dtype=np.float64)
    least = next((n for limit, n in MIN_N if max(q, 100 - q) <= limit), None)
    if least is None or len(present) < least:
        return None
    return float(np.percentile(present, q))


class Reproducibility(NamedTuple):
    """How many replayed rows gave the same tokens.

    Attributes:
        n_compared: Rows with something to compare with.
        n_same: Rows with identical tokens.
        share: ``n_same / n_compared``; None if nothing was compared.
    """

    n_compared: int
    n_same: int
    share: float | None

    def __str__(self) -> str:
        if self.share is None:
            return "not compared"
        return f"{self.n_same:,} of {self.n_compared:,} rows token-identical ({self.share:.1%})"


def reproducibility(matches: Iterable[bool | float | None]) -> Reproducibility:
    """The reproducibility grade: share of rows whose tokens came out identical.

    Args:
        matches: 1 or True for the same tokens, 0 or False for others, None or NaN for nothing to compare with.

    >>> str(reproducibility([1, 1, 0, None]))
    '2 of 3 rows token-identical (66.7%)'
    """
    known = [bool(m) for m in matches if m is not None and not np.isnan(m)]
    return Reproducibility(len(known), sum(known), sum(known) / len(known) if known else None)


@dataclass(frozen=True, slots=True)
class LatencyResult:
    """What one call of ``run`` did.

    Attributes:
        dir: The run directory.
        status: "finished" or "interrupted".
        n_rows: Requests the pass consists of, warm-up aside.
        n_done_before: Requests timed before this call.
        n_run: Requests timed by this call.
        n_noisy: Requests of this call flagged as noisy.
        n_failed: Requests of this call that failed; they are tried again by the next.
        reproducibility: Over the requests of this call.
        wall_s: Duration of this call, seconds.
    """

    dir: Path
    status: str
    n_rows: int
    n_done_before: int
    n_run: int
    n_noisy: int
    n_failed: int
    reproducibility: Reproducibility
    wall_s: float


class Slot(NamedTuple):
    """One place in the schedule."""

    round: int
    block: int
    order: int
    request: Request


def schedule(
    plan: Plan, prompts: int, rounds: int, cells: Sequence[str] | None, seed: int
) -> list[Slot]:
    """Which request is timed when.

    Args:
        plan: The plan of the quality run.
        prompts: How many prompts, >= 1; the same ones for every cell.
        rounds: How often each (cell, prompt) is timed, >= 1.
        cells: Ids of the cells to time; all by default.
        seed: Decides prompts and order.

    Returns:
        Blocks one after another; each holds every cell once, for one prompt.

    Raises:
        ValueError: A number below 1, or a cell that the plan does not have.
    """
    if prompts < 1 or rounds < 1:
        raise ValueError(f"prompts and rounds must be at least 1, got {prompts} and {rounds}")
    known = [cell.cell_id for cell in plan.cells]
    chosen = known if cells is None else list(dict.fromkeys(cells))
    for cell_id in chosen:
        if cell_id not in known:
            raise ValueError(f"no cell {cell_id!r} in this plan; it has {', '.join(known)}")
    rng = np.random.default_rng(seed)
    ids = [p.id for p in plan.prompt_set.subset(prompts, seed)]
    slots: list[Slot] = []
    for round_ in range(rounds):
        for place, p in enumerate(rng.permutation(len(ids))):
            block = round_ * len(ids) + place
            for c in rng.permutation(len(chosen)):
                request = plan.request(chosen[c], ids[p], 0)
                slots.append(Slot(round_, block, len(slots), request))
    return slots


def run(
    plan: Plan,
    engine: Engine,
    store: RunStore,
    prompts: int = 8,
    *,
    warmup: int = 2,
    rounds: int = 3,
    cells: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    say: Say | None = None,
    enough: Callable[[], bool] | None = None,
) -> LatencyResult:
    """Time some requests of a plan one at a time and record them; what is recorded already is not timed again.

    Args:
        plan: The plan of the quality run.
        engine: Must be otherwise idle.
        store: The record of the quality run, open for writing.
        prompts: How many prompts, >= 1.
        warmup: Requests before the first timed one of this call, >= 0.
        rounds: How often each (cell, prompt) is timed, >= 1.
        cells: Ids of the cells to time; all by default.
        seed: Decides prompts and order.
        progress: Show a progress bar.
        say: Told in one line how it ended, if given.
        enough: Asked before each request; the pass ends when it says True.

    Raises:
        StoreError: The record cannot be written.
        EngineError: The engine gave up; what was timed is recorded.
    """
    started = time.monotonic()
    slots = schedule(plan, prompts, rounds, cells, seed)
    done = store.latency_keys()
    settings = {"prompts": prompts, "warmup": warmup, "rounds": rounds, "seed": seed}
    where = {"device": engine.info.device, "kernel": engine.info.kernel}
    todo = [s for s in slots if (*s.request.key, s.round) not in done]
    if todo:
        _same_place(store, where)
    store.add_plan(plan)
    timed: list[dict[str, Any]] = []
    n_failed, status = 0, "finished"
    if todo and say is not None:
        say(f"{store.dir}: {len(todo):,} requests to time, one at a time")
    try:
        with (
            _bar(
                len(slots), len(slots) - len(todo), shown=progress and bool(todo), say=say
            ) as step,
            _quiet(),
        ):
            for i in range(warmup if todo else 0):
                slot = todo[i % len(todo)]._replace(round=-1 - i, block=-1, order=i)
                _time(slot, engine, store, warm=0)
            for slot in todo:
                if enough is not None and enough():
                    break
                row = _time(slot, engine, store, warm=1)
                n_failed += row is None
                timed += [] if row is None else [row]
                step()
    except KeyboardInterrupt:
        status = "interrupted"
    result = LatencyResult(
        dir=store.dir,
        status=status,
        n_rows=len(slots),
        n_done_before=len(slots) - len(todo),
        n_run=len(timed),
        n_noisy=sum(bool(row["noisy"]) for row in timed),
        n_failed=n_failed,
        reproducibility=reproducibility(row["tokens_match"] for row in timed),
        wall_s=time.monotonic() - started,
    )
    _note(result, store, settings | where, say)
    return result


def _same_place(store: RunStore, where: dict[str, str]) -> None:
    """Times of two devices or kernels must not end up in one table."""
    for call in store.manifest.get("latency", []):
        before = {name: call.get(name, where[name]) for name in where}
        if before != where:
            raise StoreError(
                f"{store.dir}: timed on {before['device']} with kernel {before['kernel']}, now {where['device']} with "
                f"{where['kernel']}; the two cannot be compared in one run: use the same, or start another run"
            )


def _note(
    result: LatencyResult, store: RunStore, settings: dict[str, Any], say: Say | None
) -> None:
    """Note the pass in the manifest and say how it ended."""
    if result.n_run or result.n_failed:
        call = settings | {
            "ended_utc": provenance.now_utc(),
            "n_run": result.n_run,
            "n_noisy": result.n_noisy,
            "n_failed": result.n_failed,
            "wall_s": round(result.wall_s, 3),
        }
        store.update_manifest(latency=[*store.manifest.get("latency", []), call])
    if say is None:
        return
    if result.n_done_before == result.n_rows:
        say(f"{result.dir}: {result.n_rows:,} requests timed before; nothing to time")
        return
    text = f"{result.dir}: {result.n_run:,} request{'s' * (result.n_run != 1)} timed"
    text += f" ({result.n_done_before:,} before)" if result.n_done_before else ""
    text += f", {result.n_noisy:,} of them noisy" if result.n_noisy else ""
    text += f", {result.n_failed:,} failed" if result.n_failed else ""
    if result.status == "interrupted":
        text += "; interrupted, run the same command again to continue"
    say(f"{text}; {result.reproducibility}")


def _time(slot: Slot, engine: Engine, store: RunStore, *, warm: int) -> dict[str, Any] | None:
    """Time one request and record it; None if it cannot be answered."""
    request = slot.request
    # An engine with a clock of its own (the scripted one) is timed by it.
    clock: Callable[[], int] = getattr(engine, "clock_ns", time.perf_counter_ns)
    gc.collect()
    start_utc, before = provenance.now_utc(), machine.usage()
    try:
        sent_ns = clock()
        events: list[TokenEvent] = list(engine.stream(request))
    except (EngineUnavailable, OutOfMemory):
        raise
    except (AdapterError, EngineError):
        return None  # this request cannot be answered; the others still can
    after = machine.usage()
    if not events:
        return None
    got = timing(sent_ns, [event.t_ns for event in events])
    expected = store.token_ids(request.key)
    same = None if expected is None else expected == tuple(e.token_id for e in events)
    stalled, others = machine.shares(before, after)
    row = {
        "cell_id": request.cell_id,
        "prompt_id": request.prompt_id,
        "repeat": request.repeat,
        "round": slot.round,
        "block": slot.block,
        "order": slot.order,
        "warm": warm,
        "ttft_ms": got.ttft_ms,
        "tpot_ms": got.tpot_ms,
        "e2el_ms": got.e2el_ms,
        "itl_ms": [round(gap, 6) for gap in got.itl_ms],
        "n_prompt_tokens": events[-1].n_prompt_tokens,
        "n_output_tokens": got.n_output_tokens,
        "tokens_match": same,
        "cpu_pressure": after.pressure_avg10,
        "load1": machine.load1(),
        "clock_mhz": machine.clock_mhz(engine.info.device),
        "noisy": noisy(stalled, others, after.wall_s - before.wall_s),
        "t_start_utc": start_utc,
        "stalled_share": stalled,
        "others_share": others,
    }
    store.add_latency([row])
    return row


def noisy(stalled: float | None, others: float | None, wall_s: float) -> bool | None:
    """Whether a request was disturbed by others; the rule is in the module's docstring.

    Args:
        stalled: Share of the time in which some task waited for a CPU, 0..1, or None if unknown.
        others: Share of all CPU time used by other processes, 0..1, or None if unknown.
        wall_s: Duration of the request, seconds.
    """
    if others is None:
        return None
    enough = others * wall_s * machine.n_cpus() >= OTHERS_SECONDS
    if stalled is None:
        return enough and others >= OTHERS_ALONE_SHARE
    return enough and stalled >= STALLED_SHARE and others >= OTHERS_SHARE


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection, and what is alive now exempt from the collections between requests."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


class _Ticks:
    """Says every `TICK_S` seconds how many requests are timed."""

    def __init__(self, total: int, done: int, say: Say | None) -> None:
        self._total, self._done, self._say = total, done, say
        self._told = time.monotonic()

    def __call__(self) -> None:
        """One more request."""
        self._done += 1
        now = time.monotonic()
        if self._say is not None and now - self._told >= TICK_S and self._done < self._total:
            self._say(f"{self._done:,} of {self._total:,} requests timed")
            self._told = now


@contextlib.contextmanager
def _bar(
    total: int, done: int, *, shown: bool, say: Say | None = None
) -> Iterator[Callable[[], object]]:
    """A step for each request: of a bar, or of lines now and then where there is none."""
    if not (shown and room_for_bars()):
        yield _Ticks(total, done, say)
        return
    from tqdm.auto import tqdm  # noqa: PLC0415 - not needed without a bar

    with tqdm(total=total, initial=done, unit="request", desc="latency", dynamic_ncols=True) as bar:
        yield bar.update
