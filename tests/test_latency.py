"""The latency pass: exact times on a scripted clock, balanced order, honest flags."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import make_plan

from workbench import latency, machine, runner
from workbench.engines.scripted import ScriptedClock, ScriptedEngine
from workbench.errors import StoreError
from workbench.latency import Reproducibility, percentile, reproducibility, schedule
from workbench.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.records import Request, TokenEvent

PLAN = make_plan(6)


def slow_when_hot(request: Request) -> float:
    return 20 + 10 * request.params.temperature


def clocked(**options: Any) -> ScriptedEngine:
    return ScriptedEngine(clock=ScriptedClock(prefill_ms=50, token_ms=slow_when_hot), **options)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    """The record of a finished quality run."""
    with RunStore.create(tmp_path / "run", {"run_id": "r"}) as made:
        runner.run(PLAN, ScriptedEngine(), store=made, progress=False, say=lambda _: None)
        yield made


def test_times_are_exact(store: RunStore) -> None:
    """On a scripted clock every latency is the planted one, and every replay has the quality run's tokens."""
    result = latency.run(PLAN, clocked(), store, prompts=4, warmup=2, rounds=3, progress=False)
    assert (result.status, result.n_rows, result.n_run, result.n_done_before) == (
        "finished",
        36,
        36,
        0,
    )
    assert result.reproducibility == Reproducibility(36, 36, 1.0)
    frame = store.latency()
    assert Counter(frame["warm"]) == {1: 36, 0: 2}
    timed = frame[frame["warm"] == 1]
    assert set(timed["ttft_ms"]) == {50}
    temperature = dict(zip(store.cells()["cell_id"], store.cells()["temperature"], strict=True))
    long = timed[timed["n_output_tokens"] > 1]
    assert len(long) > 10
    for _, row in long.iterrows():
        token_ms = 20 + 10 * temperature[row["cell_id"]]
        assert row["tpot_ms"] == pytest.approx(token_ms)
        assert row["itl_ms"] == pytest.approx([token_ms] * (row["n_output_tokens"] - 1))
        assert row["e2el_ms"] == pytest.approx(50 + token_ms * (row["n_output_tokens"] - 1))
    assert timed[timed["n_output_tokens"] == 1]["tpot_ms"].isna().all()


@given(
    prompts=st.integers(1, 9),
    rounds=st.integers(1, 4),
    seed=st.integers(0, 99),
    n=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_the_schedule_is_balanced(prompts: int, rounds: int, seed: int, n: int) -> None:
    """Each block is one prompt with every cell once; each round times every (cell, prompt) once."""
    cells = [c.cell_id for c in PLAN.cells][:n]
    slots = schedule(PLAN, prompts, rounds, cells, seed)
    assert [s.order for s in slots] == list(range(len(slots)))
    assert [s.block for s in slots] == sorted(s.block for s in slots)
    for block in {s.block for s in slots}:
        members = [s for s in slots if s.block == block]
        assert sorted(s.request.cell_id for s in members) == sorted(cells)
        assert len({(s.request.prompt_id, s.round) for s in members}) == 1
    per_key = Counter((*s.request.key, s.round) for s in slots)
    assert set(per_key.values()) == {1}
    assert len(slots) == n * rounds * min(prompts, 6)
    assert slots == schedule(PLAN, prompts, rounds, cells, seed)


def test_the_order_is_random() -> None:
    """Cells come first about equally often: over 400 blocks of 3, each between 90 and 180 times."""
    slots = schedule(PLAN, 4, 100, None, 1)
    first = Counter(s.request.cell_id for s in slots[::3])
    assert len(first) == 3
    assert all(90 < n < 180 for n in first.values())


def test_wrong_arguments_are_refused() -> None:
    """Numbers below 1 and unknown cells are named."""
    with pytest.raises(ValueError, match=r"^prompts and rounds must be at least 1, got 0 and 3$"):
        schedule(PLAN, 0, 3, None, 0)
    with pytest.raises(ValueError, match=r"^no cell 'x' in this plan; it has \w+, \w+, \w+$"):
        schedule(PLAN, 1, 1, ["x"], 0)


def test_requests_and_seeds_are_those_of_the_quality_run() -> None:
    """A slot holds the plan's own request, of repeat 0."""
    for slot in schedule(PLAN, 2, 1, None, 0):
        assert slot.request == PLAN.request(*slot.request.key)
        assert slot.request.repeat == 0


class Stopping(ScriptedEngine):
    """Stops after some streams."""

    def __init__(self, after: int, error: BaseException) -> None:
        super().__init__(clock=ScriptedClock(5, 1))
        self.left, self.error = after, error
        self.collecting: list[bool] = []

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Answer until told to stop."""
        self.collecting.append(gc.isenabled())
        if self.left == 0:
            raise self.error
        self.left -= 1
        return super().stream(request)


def test_an_interrupted_pass_continues(store: RunStore) -> None:
    """What was timed stays; the next call times only the rest, after warming up again."""
    said: list[str] = []
    first = latency.run(
        PLAN, Stopping(7, KeyboardInterrupt()), store, 4, rounds=1, progress=False, say=said.append
    )
    assert (first.status, first.n_run) == ("interrupted", 5)
    way_on = "interrupted, run the same command again to continue"
    same = "5 of 5 rows token-identical (100.0%)"
    assert said[1:] == [f"{store.dir}: 5 requests timed; {way_on}; {same}"]
    engine = Stopping(99, KeyboardInterrupt())
    second = latency.run(PLAN, engine, store, 4, rounds=1, progress=False)
    assert (second.n_done_before, second.n_run) == (5, 7)
    assert len(engine.collecting) == 2 + 7
    third = latency.run(PLAN, Stopping(0, ZeroDivisionError()), store, 4, rounds=1, progress=False)
    assert (third.n_done_before, third.n_run) == (12, 0)
    assert len(store.manifest["latency"]) == 2


def test_no_garbage_collection_while_timing(store: RunStore) -> None:
    """Collection is off during requests and back on afterwards, even after an error."""
    engine = Stopping(3, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        latency.run(PLAN, engine, store, progress=False)
    assert engine.collecting == [False] * 4
    assert gc.isenabled()


def test_different_tokens_are_noticed(store: RunStore) -> None:
    """A replay that answers otherwise is no match, and a row without a quality answer is not compared."""
    odd = clocked(responses={"p1": "something else"})
    result = latency.run(PLAN, odd, store, 6, rounds=1, progress=False)
    assert result.reproducibility == Reproducibility(18, 15, 15 / 18)
    frame = store.latency()
    timed = frame[frame["warm"] == 1]
    assert set(timed[timed["prompt_id"] == "p1"]["tokens_match"]) == {0}
    assert set(timed[timed["prompt_id"] != "p1"]["tokens_match"]) == {1}


def test_without_a_quality_run(tmp_path: Path) -> None:
    """Timing first works; there is nothing to compare with."""
    with RunStore.create(tmp_path / "run", {"run_id": "r"}) as store:
        result = latency.run(PLAN, clocked(), store, 1, rounds=1, progress=False)
        assert str(result.reproducibility) == "not compared"
        assert store.latency()["tokens_match"].isna().all()
        assert len(store.cells()) == 3


def test_requests_that_cannot_be_answered(store: RunStore) -> None:
    """They are counted and leave no time behind."""
    result = latency.run(PLAN, clocked(context_length=9), store, 2, rounds=1, progress=False)
    assert (result.n_failed, result.n_run) == (6, 0)
    assert store.latency().empty


def test_the_bar(
    store: RunStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar counts requests."""
    monkeypatch.setattr(latency, "room_for_bars", lambda: True)
    latency.run(PLAN, clocked(), store, 1, rounds=2)
    assert "6/6" in capsys.readouterr().err


def test_lines_where_there_is_no_bar(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a bar it says that it begins, and now and then how far it is; with a bar only the beginning and the end."""
    monkeypatch.setattr(latency, "TICK_S", 0.0)
    said: list[str] = []
    latency.run(PLAN, clocked(), store, 1, rounds=2, progress=False, say=said.append)
    assert said[0] == f"{store.dir}: 6 requests to time, one at a time"
    assert said[1:-1] == [f"{n} of 6 requests timed" for n in range(1, 6)]
    assert said[-1].startswith(f"{store.dir}: 6 requests timed; ")
    said.clear()
    monkeypatch.setattr(latency, "room_for_bars", lambda: True)
    latency.run(PLAN, clocked(), store, 1, rounds=3, progress=True, say=said.append)
    assert len(said) == 2
    assert said[-1].startswith(f"{store.dir}: 3 requests timed (6 before); ")


# Percentiles and grades


@pytest.mark.parametrize(
    ("q", "least"),
    [(50, 1), (25, 64), (90, 64), (10, 64), (95, 130), (5, 130), (99, 662), (97, 662)],
)
def test_percentiles_need_their_number(q: float, least: int) -> None:
    """One value fewer than the rule asks for gives nothing."""
    values = list(np.random.default_rng(0).normal(size=least))
    assert percentile(values, q) == pytest.approx(np.percentile(values, q))
    assert percentile([*values, None, float("nan")], q) == percentile(values, q)
    assert percentile(values[:-1], q) is None


def test_percentile_limits() -> None:
    """Beyond p99 nothing is supported; 0 and 100 are no percentiles."""
    assert percentile([1.0] * 100_000, 99.9) is None
    for q in (0, 100):
        with pytest.raises(ValueError, match=rf"^q must be between 0 and 100, got {q}$"):
            percentile([1.0], q)


def test_grade_counts_what_was_compared() -> None:
    """Rows without a comparison count neither way."""
    assert reproducibility([True, 0.0, None, float("nan"), 1]) == Reproducibility(3, 2, 2 / 3)
    assert reproducibility([None]) == Reproducibility(0, 0, None)


# The machine


def test_the_rule_for_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stalled and used by others together; one without the other is not noise."""
    monkeypatch.setattr(machine, "n_cpus", lambda: 2)
    assert latency.noisy(0.5, 0.3, 1.0) is True
    assert latency.noisy(0.10, 0.05, 1.0) is True
    assert latency.noisy(0.9, 0.04, 1.0) is False
    assert latency.noisy(0.09, 0.9, 1.0) is False
    assert latency.noisy(0.9, 0.9, 0.01) is False
    assert latency.noisy(None, 0.3, 1.0) is True
    assert latency.noisy(None, 0.2, 1.0) is False
    assert latency.noisy(0.9, None, 1.0) is None


def test_shares_of_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' share is everyone's CPU time less our own, over all CPUs."""
    monkeypatch.setattr(machine, "n_cpus", lambda: 2)
    before = machine.Usage(10.0, 5.0, 100.0, 7.0, 1.0)
    after = machine.Usage(12.0, 6.0, 103.0, 7.5, 2.0)
    assert machine.shares(before, after) == (0.25, 0.5)
    assert machine.shares(before, after._replace(busy_s=None, stalled_s=None)) == (None, None)
    assert machine.shares(before, after._replace(busy_s=100.5)) == (0.25, 0.0)


def test_machine_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pressure, CPU time and clock are read from their files, and are None where there are none."""
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    nothing = machine.usage()
    assert (nothing.busy_s, nothing.stalled_s, nothing.pressure_avg10) == (None, None, None)
    assert machine.clock_mhz("cpu") is None
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "cpu").write_text(
        "some avg10=1.50 avg60=0.37 avg300=0.11 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
    )
    monkeypatch.setattr(machine.os, "sysconf", lambda _: 100)
    (tmp_path / "stat").write_text("cpu  100 20 30 999 55 6 7 8 0 0\ncpu0 1 2 3\n")
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 2000.0\nmodel\t: x\ncpu MHz\t\t: 3000.0\n")
    got = machine.usage()
    assert (got.busy_s, got.stalled_s, got.pressure_avg10) == (1.71, 2.5, 1.5)
    assert machine.clock_mhz("cpu") == 2500


def test_times_of_two_places_are_not_mixed(store: RunStore) -> None:
    """A second pass with another kernel or device is refused; the same one continues."""
    latency.run(PLAN, clocked(), store, 1, rounds=1, progress=False)
    other = clocked()
    other._info = replace(other.info, device="cuda:0")
    with pytest.raises(StoreError, match="timed on cpu with kernel numpy, now cuda:0 with numpy"):
        latency.run(PLAN, other, store, 2, rounds=1, progress=False)
    assert latency.run(PLAN, clocked(), store, 2, rounds=1, progress=False).n_run == 3
