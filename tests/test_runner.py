"""The loop: everything is answered once, whatever gets in the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small import Broken, Length, make_plan

from workbench import committer, progress, runner
from workbench.engines.scripted import ScriptedEngine
from workbench.errors import EngineError, EngineUnavailable, OutOfMemory, StoreError
from workbench.records import Score
from workbench.runner import find_run, judge, runs
from workbench.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from workbench.plan import Key, Plan
    from workbench.prompts import Prompt
    from workbench.records import Generation, Request


def run(out: Path, plan: Any = None, engine: Any = None, **options: Any) -> tuple[Any, list[str]]:
    """Run without a bar; the result and what was said."""
    said: list[str] = []
    options = {"progress": False, "scorers": [Length()], "say": said.append, **options}
    return runner.run(plan or make_plan(), engine or ScriptedEngine(), out, **options), said


def texts(directory: Path) -> dict[tuple[Any, ...], str]:
    """Answers by key."""
    with RunStore.open(directory) as store:
        frame = store.generations(["cell_id", "prompt_id", "repeat", "text"])
    return {tuple(row[:3]): row[3] for row in frame.itertuples(index=False)}


class Counting(ScriptedEngine):
    """Counts what it is asked, and can be told to end early."""

    def __init__(self, stop_after: int | None = None, error: BaseException | None = None) -> None:
        super().__init__(max_rows=4)
        self.asked: list[tuple[str, str, int]] = []
        self.stop_after = stop_after
        self.error = error
        self.closed_early = False

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer, then stop or raise."""
        n = 0
        try:
            for generation in super().generate(self.note(requests)):
                if n == self.stop_after:
                    if self.error is not None:
                        raise self.error
                    return
                n += 1
                yield generation
        except GeneratorExit:
            self.closed_early = True
            raise

    def note(self, requests: Iterable[Request]) -> Iterator[Request]:
        """Remember each request."""
        for request in requests:
            self.asked.append(request.key)
            yield request


def test_a_run_answers_and_scores_everything(tmp_path: Path) -> None:
    """One call gives every row of the plan, its score, a finished manifest, and counts that add up."""
    plan = make_plan()
    result, said = run(tmp_path, plan)
    assert (result.status, result.resumed) == ("finished", False)
    assert (result.n_rows, result.n_done_before, result.n_run, result.n_failed) == (42, 0, 42, 0)
    assert result.dir == tmp_path / "small" / result.run_id
    assert said == [f"{result.dir}: 42 rows to run", f"{result.dir}: done, 42 rows"]
    assert texts(result.dir).keys() == set(plan.keys())
    with RunStore.open(result.dir) as store:
        assert len(store.scores()) == 42
        assert store.counts().n_output_tokens == result.tokens
        assert store.manifest["status"] == "finished"
        assert store.manifest["content_hash"] == plan.content_hash
        assert store.manifest["ended_utc"] >= store.manifest["started_utc"]
        assert store.manifest["scorers"] == [{"name": "length", "version": "1", "options": {}}]
    assert result.tokens_per_s > 0


def test_a_finished_run_runs_nothing(tmp_path: Path) -> None:
    """The second call finds the first one's run and asks the engine nothing; ``new`` starts another."""
    first, _ = run(tmp_path)
    engine = Counting()
    second, said = run(tmp_path, engine=engine)
    assert engine.asked == []
    assert (second.dir, second.status, second.n_run, second.n_done_before) == (
        first.dir,
        "finished",
        0,
        42,
    )
    assert said == [f"{first.dir}: finished before (42 rows); nothing to run"]
    third, _ = run(tmp_path, new=True)
    assert third.dir != first.dir
    assert texts(third.dir) == texts(first.dir)


def test_only_the_same_run_is_continued(tmp_path: Path) -> None:
    """Another study, model or adapter is another run."""
    plan = make_plan()
    done, _ = run(tmp_path, plan)
    info = ScriptedEngine().info
    assert find_run(plan, tmp_path, info) == find_run(plan, tmp_path) == done.dir
    assert find_run(plan, tmp_path, ScriptedEngine("other").info) is None
    assert find_run(plan, tmp_path, ScriptedEngine(adapters=["terse"]).info) is None
    assert find_run(make_plan(seed=8), tmp_path, info) is None
    assert find_run(plan, tmp_path / "elsewhere") is None
    (tmp_path / "small" / "zzz").mkdir()
    (tmp_path / "small" / "zzz" / "manifest.json").write_text("{")
    assert [path for path, _ in runs(tmp_path / "small")] == [done.dir]


def test_an_engine_that_gives_up_loses_nothing(tmp_path: Path) -> None:
    """What was answered before the engine failed is committed; the next call asks only for the rest."""
    with pytest.raises(OutOfMemory, match="not one row fits"):
        run(tmp_path, engine=Counting(10, OutOfMemory("not one row fits")))
    (path,) = (tmp_path / "small").iterdir()
    with RunStore.open(path) as store:
        assert (store.counts().n_rows, store.manifest["status"]) == (10, "stopped")
        before = store.done_keys()
    engine = Counting()
    result, said = run(tmp_path, engine=engine)
    assert said[0] == f"{path}: continuing, 10 of 42 rows done"
    assert (result.dir, result.resumed, result.n_done_before, result.n_run) == (path, True, 10, 32)
    assert not before & set(engine.asked)
    whole, _ = run(tmp_path / "whole")
    assert texts(path) == texts(whole.dir)


def test_a_missing_answer_is_an_error(tmp_path: Path) -> None:
    """An engine that leaves requests unanswered is not taken for finished."""
    with pytest.raises(EngineError) as caught:
        run(tmp_path, engine=Counting(5))
    (path,) = (tmp_path / "small").iterdir()
    assert str(caught.value) == (
        f"{path}: the engine answered 5 of 42 rows; run the same command again for the others"
    )


def test_a_closed_engine_is_refused(tmp_path: Path) -> None:
    """The engine's own error comes through."""
    engine = ScriptedEngine()
    engine.close()
    with pytest.raises(EngineUnavailable):
        run(tmp_path, engine=engine)


def test_failed_rows_are_tried_once_more(tmp_path: Path) -> None:
    """A failed row is recorded and counted, not scored 0, and tried again by the next call, once."""
    bad = ScriptedEngine(fail={"p1": "planted"})
    first, said = run(tmp_path, engine=bad)
    assert (first.status, first.n_failed, first.n_run) == ("failed rows", 7, 42)
    assert said[-1] == (
        f"{first.dir}: done, but 7 of 42 rows failed; run the same command again to try them once more"
    )
    with RunStore.open(first.dir) as store:
        scores = store.scores().set_index("prompt_id").loc["p1"]
        assert scores["value"].isna().all()
        assert set(scores["reason"]) == {"the answer failed"}
    again, said = run(tmp_path, engine=bad)
    assert said[0] == f"{first.dir}: continuing, 35 of 42 rows done, 7 failed ones tried again"
    assert (again.n_run, again.n_failed) == (7, 7)
    with RunStore.open(first.dir) as store:
        assert store.failures()["attempts"].tolist() == [2] * 7
    good, _ = run(tmp_path)
    assert (good.status, good.n_run, good.n_failed) == ("finished", 7, 0)
    with RunStore.open(first.dir) as store:
        assert store.scores()["value"].notna().all()


def test_a_scorer_that_raises_costs_its_own_score(tmp_path: Path) -> None:
    """The other scorers and the run go on; the reason is kept."""
    result, _ = run(tmp_path, scorers=[Broken(), Length()])
    assert result.status == "finished"
    with RunStore.open(result.dir) as store:
        scores = store.scores()
    broken = scores[scores["scorer"] == "broken"]
    assert broken["value"].isna().all()
    assert broken["reason"].str.startswith("ZeroDivisionError: no score for p").all()
    assert scores[scores["scorer"] == "length"]["value"].notna().all()


def test_interrupt_inside_a_scorer_is_not_a_score() -> None:
    """Ctrl-C is no reason for a missing score."""

    class Interrupted(Length):
        def score(self, text: str, prompt: Prompt) -> Score:
            del text, prompt
            raise KeyboardInterrupt

    plan = make_plan(1)
    (generation, *_) = ScriptedEngine().generate(plan.requests())
    with pytest.raises(KeyboardInterrupt):
        judge(Interrupted(), generation, plan.prompt_set["p0"])


def test_another_way_to_score(tmp_path: Path) -> None:
    """Scorers can be applied by a function of the caller's."""
    result, _ = run(
        tmp_path,
        score=lambda scorer, g, prompt: Score(0.25, f"{scorer.name} {prompt.id} {g.repeat}"),
    )
    with RunStore.open(result.dir) as store:
        scores = store.scores()
    assert set(scores["value"]) == {0.25}
    assert "length p0 2" in set(scores["answer"])


def test_interrupt_commits_and_says_how_to_go_on(tmp_path: Path) -> None:
    """Ctrl-C ends with everything answered committed, the engine told to stop, and the way to continue."""
    engine = Counting(10, KeyboardInterrupt())
    result, said = run(tmp_path, engine=engine)
    assert (result.status, result.n_run) == ("interrupted", 10)
    assert said[-1] == (
        f"{result.dir}: interrupted with 10 of 42 rows done; run the same command again to continue"
    )
    with RunStore.open(result.dir, write=True) as store:
        assert (store.counts().n_rows, store.manifest["status"]) == (10, "interrupted")
    assert run(tmp_path)[0].n_run == 32


def test_a_real_ctrl_c(tmp_path: Path) -> None:
    """SIGINT to a running process leaves a clean record with every acknowledged row."""
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("killable.py")), str(tmp_path), "40", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate()
    assert "run the same command again to continue" in errors
    assert "Traceback" not in errors
    acknowledged = {
        tuple(json.loads(line)[:3]) for line in [first, *output.splitlines()] if line != "end"
    }
    (path,) = (tmp_path / "small").iterdir()
    with RunStore.open(path) as store:
        assert acknowledged <= store.done_keys()
        assert 0 < len(store.done_keys()) < 280
        assert store.manifest["status"] == "interrupted"


def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    """The run ends with the reason and the way on; the engine is told to stop."""
    with RunStore.create(tmp_path / "run", {"run_id": "r"}) as store:
        store.add_plan(make_plan())
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        engine = ScriptedEngine(responses=lambda _: "long " * 3000)
        plan = make_plan(max_tokens=3001)
        with pytest.raises(StoreError, match="database or disk is full"):
            run(tmp_path, plan, engine, store=store)
        store._db.execute("PRAGMA max_page_count = 1000000")
        assert run(tmp_path, plan, engine, store=store)[0].status == "finished"
        assert store.counts().n_rows == 42


def test_rows_do_not_wait_for_a_busy_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is committed soon after it came, while the engine is still at the next one."""
    monkeypatch.setattr(committer, "COMMIT_SECONDS", 0.05)
    release = threading.Event()
    seen: list[int] = []

    class Slow(ScriptedEngine):
        def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
            for n, generation in enumerate(super().generate(requests)):
                if n == 1:
                    assert release.wait(20), "nobody saw the first row"
                yield generation

    def watch() -> None:
        while not release.is_set():
            for path, _ in runs(tmp_path / "small"):
                with RunStore.open(path) as reader:
                    if reader.counts().n_rows == 1:
                        seen.append(1)
                        release.set()
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result, _ = run(tmp_path, engine=Slow())
    release.set()
    watcher.join()
    assert seen == [1]
    assert result.n_run == 42


def test_on_row_sees_committed_rows_in_order(tmp_path: Path) -> None:
    """Each row is reported once, with its scores, from the caller's thread, and only when it is on the disk."""
    plan = make_plan()
    reported: list[tuple[str, str, int]] = []
    with RunStore.create(tmp_path / "run", {"run_id": "r"}) as store:

        def on_row(generation: Generation, scores: tuple[Any, ...]) -> None:
            assert threading.current_thread() is threading.main_thread()
            with RunStore.open(store.dir) as reader:
                assert generation.key in reader.done_keys()
            assert [score.scorer for score in scores] == ["length"]
            reported.append(generation.key)

        engine = Counting()
        run(tmp_path, plan, engine, store=store, on_row=on_row)
    assert sorted(reported) == sorted(plan.keys())


def test_a_changed_kernel_is_told(tmp_path: Path) -> None:
    """Going on with another kernel or device is allowed, said and recorded."""
    run(tmp_path, engine=Counting(10, KeyboardInterrupt()))

    class Moved(ScriptedEngine):
        def __init__(self) -> None:
            super().__init__()
            object.__setattr__(self._info, "device", "cuda:0")

    result, said = run(tmp_path, engine=Moved())
    assert (
        said[1]
        == f"{result.dir}: note: device cpu then, cuda:0 now; answers may differ in rare tokens"
    )
    with RunStore.open(result.dir) as store:
        (event,) = store.manifest["resumed"]
    assert (event["engine"]["device"], event["n_done_before"]) == ("cuda:0", 10)


def test_a_run_in_use_is_refused(tmp_path: Path) -> None:
    """Two processes cannot run the same study at once."""
    result, _ = run(tmp_path, engine=Counting(10, KeyboardInterrupt()))
    with (
        RunStore.open(result.dir, write=True),
        pytest.raises(StoreError, match=f"process {os.getpid()} is writing this run"),
    ):
        run(tmp_path)


def test_the_bar_shows_rows_and_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a terminal the bar counts rows, gives tokens per second, and starts where the run continues."""
    monkeypatch.setattr(progress, "room_for_bars", lambda: True)
    run(tmp_path, engine=Counting(10, KeyboardInterrupt()))
    run(tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert " 24%" in shown
    assert "42/42" in shown
    assert "tokens/s" in shown


def test_messages_go_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output stays free for results."""
    runner.run(make_plan(), ScriptedEngine(), tmp_path, progress=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("done, 42 rows\n")


def test_lines_where_there_is_no_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a bar it says now and then how far it is; with one, or untold where to, it does not."""
    monkeypatch.setattr(progress, "TICK_S", 0.0)
    _, said = run(tmp_path / "a", make_plan(n_prompts=2, temperatures=(0.0,)))
    n = len(said) - 2
    assert n == 1
    assert re.fullmatch(r"1 of 2 rows, [\d,]+ tokens/s", said[1])
    monkeypatch.setattr(progress, "room_for_bars", lambda: True)
    _, said = run(tmp_path / "b", progress=True)
    assert len(said) == 2


def test_a_finished_run_that_is_being_timed(tmp_path: Path) -> None:
    """A second call does not say that there is nothing to do while another process has the run."""
    plan = make_plan(n_prompts=2)
    first, _ = run(tmp_path, plan)
    with RunStore.open(first.dir, write=True):
        _, said = run(tmp_path, plan)
    assert said == [
        f"{first.dir}: finished before ({plan.n_rows} rows); another process is at work on it"
    ]
    _, said = run(tmp_path, plan)
    assert said == [f"{first.dir}: finished before ({plan.n_rows} rows); nothing to run"]


# Blocks


class Blocks:
    """Every cell on the first prompt, then only the first cell on the others; ends on demand."""

    def __init__(self, plan: Plan, *, stop: bool = False) -> None:
        self.plan = plan
        self.stop = stop
        self.seen: list[int] = []

    def __call__(self, store: RunStore, done: Collection[Key]) -> Iterator[list[Request]]:
        """The missing requests."""
        missing = [r for r in self.plan if r.key not in done]
        first, kept = next(iter(self.plan.prompt_set)).id, self.plan.cells[0].cell_id
        yield [r for r in missing if r.prompt_id == first]
        self.seen.append(store.counts().n_rows)  # all of the block is committed
        if self.stop:
            raise KeyboardInterrupt
        yield [r for r in missing if r.prompt_id != first and r.cell_id == kept]
        self.seen.append(store.counts().n_rows)


def test_blocks_decide_what_is_run(tmp_path: Path) -> None:
    """The next block is asked for when the last one is committed; a run with the rows it has is finished."""
    plan = make_plan()
    notes = {"tuning": {"method": "test"}}
    blocks = Blocks(plan, stop=True)
    first, _ = run(tmp_path, plan, blocks=blocks, notes=notes)
    assert first.status == "interrupted"
    assert blocks.seen == [7]
    blocks = Blocks(plan)
    second, said = run(tmp_path, plan, blocks=blocks, notes=notes)
    assert (second.dir, second.status, second.resumed) == (first.dir, "finished", True)
    assert blocks.seen == [7, 12]
    with RunStore.open(second.dir) as store:
        assert store.manifest["n_rows"] == 12
        assert store.manifest["tuning"] == {"method": "test"}
    again, said = run(tmp_path, plan, blocks=Blocks(plan), notes=notes)
    assert said == [f"{first.dir}: finished before (12 rows); nothing to run"]
    assert again.n_run == 0


def test_another_tuning_is_another_run(tmp_path: Path) -> None:
    """A plain run does not continue a tuned one, nor one that was tuned otherwise."""
    plan = make_plan()
    tuned, _ = run(tmp_path, plan, blocks=Blocks(plan), notes={"tuning": {"alpha": 0.05}})
    other, _ = run(tmp_path, plan, blocks=Blocks(plan), notes={"tuning": {"alpha": 0.01}})
    plain, _ = run(tmp_path, plan)
    assert len({tuned.dir, other.dir, plain.dir}) == 3
    assert plain.n_run == plan.n_rows


class Later:
    """Notes when it is called, and what was committed by then."""

    def __init__(self, *names: str, left: bool = False) -> None:
        self.names = names
        self.left = left
        self.rows: list[int] = []

    def missing(self, store: RunStore) -> bool:
        """As told."""
        assert store.manifest["status"] == "finished"
        return self.left

    def __call__(self, store: RunStore) -> None:
        """Note the rows."""
        self.rows.append(store.counts().n_rows)
        self.left = False


def test_what_judges_later_is_called_after_each_block(tmp_path: Path) -> None:
    """With the rows of the block committed, before the next is asked for; by its scorers no row is judged."""
    plan, later, asked = make_plan(), Later("broken"), list[int]()

    def blocks(_: RunStore, done: Collection[Key]) -> Iterator[Iterable[Request]]:
        requests = list(plan.requests(done))
        for start in (0, 10, 30):
            asked.append(len(later.rows))
            yield requests[start : start + 20 if start else 10]

    result, _ = run(tmp_path, plan, blocks=blocks, later=later, scorers=[Broken(), Length()])
    assert later.rows == [10, 30, 42]
    assert asked == [0, 1, 2]
    with RunStore.open(result.dir) as store:
        assert set(store.scores()["scorer"]) == {"length"}
        assert [s["name"] for s in store.manifest["scorers"]] == ["broken", "length"]


def test_a_finished_run_is_opened_for_what_judges_later(tmp_path: Path) -> None:
    """If it says that a score is missing, it is called and no row is asked; if not, the run is left alone."""
    first, _ = run(tmp_path)
    for left, calls in ((False, []), (True, [42])):
        later, engine = Later("length", left=left), Counting()
        result, _ = run(tmp_path, engine=engine, later=later)
        assert (result.dir, result.status, engine.asked) == (first.dir, "finished", [])
        assert later.rows == calls
