"""The run record: what is committed stays, once; and what cannot be read is said in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Length, make_plan

from workbench import runner
from workbench.engines.scripted import ScriptedEngine
from workbench.errors import StoreError
from workbench.records import Generation, Score
from workbench.store import Counts, RunStore, ScoreRow

if TYPE_CHECKING:
    from collections.abc import Iterator

REPAIR = "restore it from a copy, or delete the directory and run the study again"
PLAN = make_plan()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore.create(tmp_path / "run", {"run_id": "r1", "status": "running"}) as made:
        made.add_plan(PLAN)
        yield made


def generation(**changes: Any) -> Generation:
    row = Generation(
        PLAN.cells[1].cell_id,
        "p0",
        0,
        text="a cat \N{GRINNING FACE}\n",
        token_ids=(5, 0),
        n_prompt_tokens=9,
        finish_reason="stop",
        seed=9_999_999_999,
        prompt="<|user|> What is 0 + 1?",
        batch_rows=3,
        min_margin=0.25,
    )
    return replace(row, **changes)


def score(row: Generation, value: float | None = 1.0, version: str = "1") -> ScoreRow:
    return ScoreRow(row.key, "exact", version, Score(value, "1", "as asked", None))


def test_a_generation_reads_back(store: RunStore) -> None:
    """Every field of an answer comes back, with its cell's settings and its prompt's group and split."""
    store.add_generations([generation()])
    frame = store.generations()
    assert list(frame.columns) == [
        "run_id",
        "cell_id",
        "adapter",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "max_tokens",
        "prompt_id",
        "group",
        "repeat",
        "split",
        "seed",
        "prompt",
        "text",
        "token_ids",
        "n_prompt_tokens",
        "n_output_tokens",
        "finish_reason",
        "error",
        "batch_rows",
        "stop",
        "min_margin",
        "template",
    ]
    row = frame.iloc[0]
    want = generation()
    assert row["token_ids"].tolist() == list(want.token_ids)
    assert row["stop"].tolist() == ["never"]
    for field in (
        "cell_id",
        "prompt_id",
        "repeat",
        "text",
        "prompt",
        "seed",
        "batch_rows",
        "min_margin",
    ):
        assert row[field] == getattr(want, field), field
    assert (row["run_id"], row["adapter"], row["temperature"]) == ("r1", "base", 0.7)
    assert (row["group"], row["split"]) == ("g0", PLAN.splits["p0"])
    assert pd.isna(row["top_k"])
    assert pd.isna(row["error"])


@given(
    text=st.text(),
    prompt=st.text(),
    token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple),
    seed=st.none() | st.integers(1, 9_999_999_999),
    margin=st.none() | st.floats(0, 1e9),
)
@settings(max_examples=30, deadline=None)
def test_any_text_reads_back(tmp_path_factory: pytest.TempPathFactory, **fields: Any) -> None:
    """Any answer survives the record and its export, whatever characters it holds."""
    margin = fields.pop("margin")
    row = generation(min_margin=margin, **fields)
    with RunStore.create(tmp_path_factory.mktemp("any") / "run", {"run_id": "r"}) as store:
        store.add_plan(PLAN)
        store.add_generations([row])
        store.export()
        for frame in (store.generations(), pd.read_parquet(store.dir / "generations.parquet")):
            got = frame.iloc[0]
            assert (got["text"], got["prompt"]) == (row.text, row.prompt)
            assert tuple(got["token_ids"].tolist()) == row.token_ids
            assert (None if pd.isna(got["seed"]) else int(got["seed"])) == row.seed
            assert (None if pd.isna(got["min_margin"]) else got["min_margin"]) == margin
        assert store.token_ids(row.key) == row.token_ids


def test_half_a_character_is_replaced(store: RunStore) -> None:
    """Text that is no Unicode (half of a surrogate pair, as some servers send) is stored with a question mark."""
    store.add_generations([generation(text="a\ud83d", prompt="b\udc00")], [])
    assert store.generations(["text", "prompt"]).iloc[0].tolist() == ["a?", "b?"]


def test_a_row_is_written_once(store: RunStore) -> None:
    """A second answer to the same request changes nothing, unless the first failed."""
    first, second = generation(text="first"), generation(text="second")
    assert store.add_generations([first]) == 1
    assert store.add_generations([second, replace(second, text="third")]) == 0
    assert store.generations()["text"].tolist() == ["first"]
    failed = generation(repeat=1, text="", token_ids=(), finish_reason="error", error="planted")
    store.add_generations([failed])
    assert store.counts() == Counts(2, 1, 2)
    assert (store.done_keys(), store.failed_keys()) == ({first.key}, {failed.key})
    store.add_generations([replace(failed, error="again")])
    assert store.add_generations([generation(repeat=1, text="better")], [score(failed)]) == 1
    assert store.counts() == Counts(2, 0, 4)
    (failure,) = store.failures().to_dict("records")
    assert (failure["repeat"], failure["attempts"], failure["error"]) == (1, 2, "again")


def test_scores_replace_their_own_kind(store: RunStore) -> None:
    """Scoring again replaces; a new version of the scorer adds; an unscored row has no value and is not 0."""
    row = generation()
    store.add_generations([row], [score(row, 0.0)])
    store.add_scores([score(row, 0.5), score(row, None, version="2")])
    frame = store.scores()
    assert list(frame.columns) == [
        "run_id",
        "cell_id",
        "adapter",
        "prompt_id",
        "group",
        "split",
        "repeat",
        "scorer",
        "scorer_version",
        "value",
        "answer",
        "explanation",
        "reason",
    ]
    assert frame["scorer_version"].tolist() == ["1", "2"]
    assert frame["value"].iloc[0] == 0.5
    assert pd.isna(frame["value"].iloc[1])


def test_a_failed_batch_leaves_nothing(store: RunStore) -> None:
    """If one row of a batch cannot be written, none is, and the record stays usable."""
    good, bad = generation(), generation(repeat=1, n_prompt_tokens=None)
    with pytest.raises(StoreError):
        store.add_generations([good, bad])
    assert store.counts() == Counts(0, 0, 0)
    assert store.add_generations([good]) == 1


def test_latency_reads_back(store: RunStore) -> None:
    """A timed request comes back by the column names of the contract."""
    row: dict[str, Any] = {
        "cell_id": PLAN.cells[0].cell_id, "prompt_id": "p0", "repeat": 0, "round": 0, "block": 0, "order": 4,
        "warm": 1, "ttft_ms": 5.0, "tpot_ms": None, "e2el_ms": 5.0, "itl_ms": [1.5, 2.5], "n_prompt_tokens": 3,
        "n_output_tokens": 1, "tokens_match": True, "cpu_pressure": None, "load1": 0.1, "clock_mhz": None,
        "noisy": None, "t_start_utc": "2026-11-23T11:00:00.000Z", "stalled_share": None, "others_share": 0.01,
    }  # fmt: skip
    store.add_latency([row, row | {"e2el_ms": 6.0}])
    frame = store.latency()
    assert list(frame.columns)[:20] == [
        "run_id",
        "cell_id",
        "prompt_id",
        "repeat",
        "round",
        "block",
        "order",
        "warm",
        "ttft_ms",
        "tpot_ms",
        "e2el_ms",
        "itl_ms",
        "n_prompt_tokens",
        "n_output_tokens",
        "tokens_match",
        "cpu_pressure",
        "load1",
        "clock_mhz",
        "noisy",
        "t_start_utc",
    ]
    got = frame.iloc[0]
    assert (len(frame), got["e2el_ms"], got["itl_ms"].tolist()) == (1, 6.0, [1.5, 2.5])
    assert got["tokens_match"] == 1
    assert pd.isna(got["tpot_ms"])
    assert pd.isna(got["noisy"])
    assert store.latency_keys() == {(row["cell_id"], "p0", 0, 0)}


def test_empty_tables_have_their_columns(store: RunStore) -> None:
    """A record without rows gives empty frames with columns, and exports."""
    for frame in (store.generations(), store.scores(), store.latency(), store.failures()):
        assert frame.empty
        assert "cell_id" in frame.columns
    assert [p.name for p in store.export()] == [
        "generations.parquet",
        "scores.parquet",
        "latency.parquet",
    ]
    assert pd.read_parquet(store.dir / "scores.parquet").empty


def test_cells_and_prompts_read_back(store: RunStore) -> None:
    """Cells in the order of the study with the baseline marked, and the prompts themselves."""
    cells = store.cells()
    assert cells["cell_id"].tolist() == [c.cell_id for c in PLAN.cells]
    assert cells["label"].tolist() == ["greedy", "T=0.7", "T=1.3"]
    assert cells["is_baseline"].tolist() == [True, False, False]
    assert store.prompt_set().sha256 == PLAN.prompt_set.sha256
    store.add_plan(PLAN)
    assert len(store.cells()) == 3


def test_columns_can_be_chosen(store: RunStore) -> None:
    """Only what is asked for is read, in that order; a wrong name is refused with the right ones."""
    store.add_generations([generation()])
    assert store.generations(["repeat", "cell_id"]).columns.tolist() == ["repeat", "cell_id"]
    assert store.generations(["run_id"])["run_id"].tolist() == ["r1"]
    with pytest.raises(StoreError, match=r"^scores has no column 'valu'; it has run_id, cell_id, "):
        store.scores(["valu"])


# Readers and writers


def test_one_writer(store: RunStore) -> None:
    """A second writer is refused with the first one's process id; readers are not."""
    message = f"{store.dir}: process {os.getpid()} is writing this run; wait for it, or stop it, then try again"
    with pytest.raises(StoreError) as caught:
        RunStore.open(store.dir, write=True)
    assert str(caught.value) == message
    store.add_generations([generation()])
    with RunStore.open(store.dir) as reader:
        assert reader.counts().n_rows == 1
        with pytest.raises(StoreError) as caught:
            reader.add_generations([generation(repeat=1)])
        assert str(caught.value) == f"{store.dir}: opened for reading only; open it with write=True"
        with pytest.raises(StoreError, match="is writing this run"):
            reader.lock()
        store.close()
        store.close()
        reader.lock()
        assert reader.add_generations([generation(repeat=1)]) == 1


def test_a_record_on_a_read_only_disk_opens(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run can be read where nothing can be written."""
    store.add_generations([generation()])
    store.close()
    (store.dir / "run.sqlite-shm").unlink(missing_ok=True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with RunStore.open(store.dir) as reader:
        assert reader.counts().n_rows == 1
    assert not (store.dir / "run.sqlite-shm").exists()


def test_odd_directory_names(tmp_path: Path) -> None:
    """Question marks, hashes, per cents and spaces in a path are part of the path."""
    with RunStore.create(tmp_path / "a ?b#c%20d" / "run", {"run_id": "r"}) as store:
        store.add_generations([generation()])
    with RunStore.open(tmp_path / "a ?b#c%20d" / "run") as store:
        assert store.counts().n_rows == 1


# What cannot be read or written


def test_a_run_is_not_overwritten(store: RunStore) -> None:
    """Creating a run where there is one is refused."""
    with pytest.raises(StoreError) as caught:
        RunStore.create(store.dir, {})
    assert str(caught.value) == (
        f"{store.dir}: there is a run here already; open it, or choose another directory"
    )


def test_a_crash_while_creating_is_no_run(tmp_path: Path) -> None:
    """A directory without a manifest is not a run, and can become one."""
    (tmp_path / "run.sqlite").write_bytes(b"half")
    (tmp_path / "run.sqlite-wal").write_bytes(b"half")
    with pytest.raises(StoreError) as caught:
        RunStore.open(tmp_path)
    assert str(caught.value) == f"{tmp_path}: not a run directory (no manifest.json)"
    with RunStore.create(tmp_path, {"run_id": "r"}) as store:
        assert store.counts().n_rows == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", f"manifest.json is damaged (not JSON); {REPAIR}"),
        ("[]", f"manifest.json is damaged (not an object); {REPAIR}"),
        (
            '{"schema_version": 99}',
            "written by a newer version (schema 99, this one reads up to 2)",
        ),
    ],
)
def test_damaged_manifest(store: RunStore, text: str, message: str) -> None:
    """A manifest that cannot be understood is named, with what to do."""
    (store.dir / "manifest.json").write_text(text)
    with pytest.raises(StoreError) as caught:
        RunStore.open(store.dir)
    assert str(caught.value) == f"{store.dir}: {message}"


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("damage", ["text", "truncated", "empty", "newer", "missing"])
def test_damaged_database(store: RunStore, damage: str, write: bool) -> None:
    """A database that is not one, cut short, empty, of the future or gone is one clear error."""
    path = store.dir / "run.sqlite"
    store.add_generations(generation(repeat=k, text="x" * 900) for k in range(200))
    store.close()
    if damage == "text":
        path.write_text("this is no database" * 500)
        message = f"run.sqlite is damaged (file is not a database); {REPAIR}"
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:8192])
        message = f"run.sqlite is damaged (database disk image is malformed); {REPAIR}"
    elif damage == "empty":
        path.write_bytes(b"")
        message = f"run.sqlite is damaged (no table cells); {REPAIR}"
    elif damage == "newer":
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        message = "written by a newer version (schema 99, this one reads up to 2)"
    else:
        path.unlink()
        message = "run.sqlite is missing, so this is not a complete run"
    with pytest.raises(StoreError) as caught, RunStore.open(store.dir, write=write) as opened:
        opened.done_keys()
    assert str(caught.value) == f"{store.dir}: {message}"


def test_a_record_of_the_first_version_is_brought_up_to_date(store: RunStore) -> None:
    """A record from before there were templates opens, keeps its rows, and can be written again."""
    store.add_plan(make_plan(n_prompts=2))
    store.add_generations([generation()])
    before = store.cells().drop(columns="template")
    store.close()
    with contextlib.closing(sqlite3.connect(store.dir / "run.sqlite")) as db:
        db.executescript("ALTER TABLE cells DROP COLUMN template; PRAGMA user_version = 1;")
    with RunStore.open(store.dir) as opened:
        assert opened.cells()["template"].isna().all()
        assert opened.generations()["template"].isna().all()
        pd.testing.assert_frame_equal(opened.cells().drop(columns="template"), before)
        assert len(opened.done_keys()) == 1
    with contextlib.closing(sqlite3.connect(store.dir / "run.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)  # reading changes nothing
    with RunStore.open(store.dir, write=True) as opened:
        assert opened.add_generations([generation(repeat=9)]) == 1
        assert opened.cells()["template"].isna().all()


def test_verify_finds_damage_inside(store: RunStore) -> None:
    """Damage in the middle of the file is found by reading all of it."""
    store.add_generations(generation(repeat=k, text="x" * 900) for k in range(200))
    store.verify()
    store.close()
    path = store.dir / "run.sqlite"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    with (
        RunStore.open(store.dir) as opened,
        pytest.raises(StoreError, match=r"run\.sqlite is damaged"),
    ):
        opened.verify()


def test_full_disk(store: RunStore) -> None:
    """A disk that fills up loses nothing that was committed, and the message says how to go on."""
    store.add_generations([generation()])
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError) as caught:
        store.add_generations(generation(repeat=k, text="x" * 9000) for k in range(1, 50))
    assert str(caught.value) == (
        f"{store.dir}: cannot write run.sqlite (database or disk is full); what was committed is safe: "
        "make room or allow writing, then run the same command again to continue"
    )
    assert store.counts().n_rows == 1
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert store.add_generations([generation(repeat=1)]) == 1


def test_unwritable_place(tmp_path: Path) -> None:
    """A run cannot start under a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        RunStore.create(tmp_path / "file" / "run", {})
    assert str(caught.value) == (
        f"{tmp_path / 'file' / 'run'}: cannot start a run here (Not a directory)"
    )


def test_manifest_is_replaced_whole(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that cannot be written leaves the old one, in the file and in memory."""
    before = (store.dir / "manifest.json").read_text()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=r"cannot write manifest.json \(No space left on device\)"):
        store.update_manifest(status="finished")
    assert (store.dir / "manifest.json").read_text() == before
    assert store.manifest["status"] == "running"


# Killed at any moment


def table(directory: Path) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Answers and scores of a run by key."""
    with RunStore.open(directory) as store:
        store.verify()
        generations = store.generations()
        scores = store.scores()
    key = ["cell_id", "prompt_id", "repeat"]
    assert not generations.duplicated(key).any()
    assert not scores.duplicated(key).any()
    rows = {
        tuple(r[k] for k in key): (
            tuple(r["token_ids"].tolist()),
            r["text"],
            r["prompt"],
            r["n_prompt_tokens"],
        )
        for _, r in generations.iterrows()
    }
    values = {tuple(r[k] for k in key): r["value"] for _, r in scores.iterrows()}
    return rows, values


def test_kill_9_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Killed at random moments and resumed, a run ends with the rows of one that was never killed.

    Every row the child acknowledged is there after each kill, and no row ever runs twice after it was acknowledged.
    """
    n_prompts, delay_ms = 40, 2.0
    whole = runner.run(
        make_plan(n_prompts), ScriptedEngine(), tmp_path / "whole", scorers=[Length()], progress=False,
        say=lambda _: None,
    )  # fmt: skip
    out, rng = tmp_path / "killed", random.Random(20)
    acknowledged: dict[tuple[str, str, int], list[int]] = {}
    command = [
        sys.executable,
        str(Path(__file__).with_name("killable.py")),
        str(out),
        str(n_prompts),
        str(delay_ms),
    ]
    kills, ended = 0, False
    for attempt in range(40):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None
        first = child.stdout.readline()
        if attempt < 8:
            time.sleep(rng.uniform(0, 0.12))
            child.send_signal(signal.SIGKILL)
        output, errors = child.communicate()
        lines = [line for line in (first + output).splitlines(keepends=True) if line.endswith("\n")]
        for line in lines:
            if line == "end\n":
                ended = True
                continue
            *key, tokens = json.loads(line)
            assert tuple(key) not in acknowledged, "an acknowledged row ran again"
            acknowledged[tuple(key)] = tokens
        kills += child.returncode == -signal.SIGKILL
        assert child.returncode in {0, -signal.SIGKILL}, errors
        (run_dir,) = (out / "small").iterdir()
        rows, values = table(run_dir)
        assert rows.keys() >= acknowledged.keys()
        assert rows.keys() == values.keys(), "a row without its score"
        assert all(list(rows[key][0]) == tokens for key, tokens in acknowledged.items())
        if ended:
            break
    assert kills >= 4
    assert ended
    assert (rows, values) == table(whole.dir)
