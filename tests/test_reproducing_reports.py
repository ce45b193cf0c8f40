"""Verifying a report: what is so passes, and any number that is not is named with its place."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import reports

import workbench as wb
from workbench.errors import StoreError
from workbench.reporting import make, page
from workbench.reproducing import ReportCheck, verify_report
from workbench.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = ("report.html", "report.md", "report.png", "summary.csv")


@pytest.fixture(scope="module", autouse=True)
def _in_this_process() -> Iterator[None]:
    """The notebook without the seconds a kernel takes, and once for each state of a record."""
    known: dict[str, Any] = {}

    def execute(
        _source: Path, _output: Path, parameters: dict[str, Any], cwd: Path, **_settings: Any
    ) -> Any:
        run = (cwd / parameters["RUN"]).resolve()
        state = b"".join((run / name).read_bytes() for name in ("run.sqlite", "manifest.json"))
        key = f"{sha256(state).hexdigest()} {parameters['BASELINE']} {parameters['SEED']}"
        if key not in known:
            book = reports.executed(run, parameters["BASELINE"], parameters["SEED"])
            known[key] = json.dumps(book)
        return make_book(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "_execute", execute)
        patch.setattr(page, "DPI", 30)
        yield


def make_book(text: str) -> Any:
    """A fresh copy of a notebook."""
    import nbformat

    return nbformat.from_dict(json.loads(text))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two cells with its report."""
    run = reports.make_run(
        tmp_path_factory.mktemp("made"), n_prompts=6, grid={"temperature": [0, 0.7]}, baseline=None
    )
    wb.report(run)
    return run.path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "results" / "small" / made.name))


def change(run: Path, statement: str, *values: Any) -> None:
    """Change exactly one row of a record."""
    with sqlite3.connect(run / "run.sqlite") as db:
        assert db.execute(statement, values).rowcount == 1
    db.close()


def edited(path: Path, old: str, new: str) -> None:
    """Edit a file by hand, in one place."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def places(found: ReportCheck, file: str) -> dict[str, tuple[str | None, str | None]]:
    """Place in a file to what is reported and what is recorded."""
    return {d.place: (d.reported, d.recorded) for d in found.differences if d.file == file}


def test_a_report_of_its_record_is_verified(run: Path) -> None:
    """Nothing differs in a run copied elsewhere, every file is named, and nothing is written."""
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    found = verify_report(run)
    assert found.ok
    assert found.differences == ()
    assert (found.files, found.missing, found.other_versions) == (FILES, (), {})
    assert found.n_numbers > 200
    assert found.text == (
        f"{run}/report.html: verified; {found.n_numbers:,} numbers in report.html, report.md, report.png, summary.csv "
        "made again from the record and compared byte by byte"
    )
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.name in before} == before
    assert found.to_dict()["verified"] is True


def test_a_flipped_score_is_found(run: Path) -> None:
    """One score turned around in the record: the quality in page and summary differ, and the row is named."""
    with sqlite3.connect(run / "run.sqlite") as db:
        (cell, prompt) = db.execute("SELECT cell_id, prompt_id FROM scores LIMIT 1").fetchone()
    db.close()
    change(
        run,
        "UPDATE scores SET value = 1 - value WHERE cell_id = ? AND prompt_id = ? AND repeat = 0",
        cell,
        prompt,
    )
    found = verify_report(run)
    assert not found.ok
    assert f"{cell}, quality" in places(found, "summary.csv")
    rows = places(found, "scores.parquet")
    (place,) = rows
    assert place == f"cell_id {cell}, prompt_id {prompt}, repeat 0, scorer numeric, value"
    assert set(rows[place]) == {"0.0", "1.0"}
    assert any("quality %" in place for place in places(found, "report.html"))


def test_a_changed_latency_and_a_changed_text_are_found(run: Path) -> None:
    """One time 1 ms longer, and a text that no number depends on: the page's hashes differ, and both rows are named."""
    change(
        run,
        "UPDATE latency SET e2el_ms = e2el_ms + 1 WHERE rowid = (SELECT max(rowid) FROM latency WHERE warm = 1)",
    )
    change(
        run,
        "UPDATE generations SET text = text || ' ' WHERE rowid = (SELECT max(rowid) FROM generations)",
    )
    found = verify_report(run)
    ((place, (reported, recorded)),) = places(found, "latency.parquet").items()
    assert place.endswith(", e2el_ms")
    assert float(str(recorded)) == pytest.approx(float(str(reported)) + 1)
    (place,) = places(found, "generations.parquet")
    assert place.endswith(", text")
    page_places = places(found, "report.html")
    assert "Record, Rows of the record, latency" in page_places
    reported, recorded = page_places["Record, Rows of the record, generations"]
    assert str(reported).startswith("18 rows, sha256 ")
    assert reported != recorded


def test_a_digit_edited_by_hand_is_found(run: Path) -> None:
    """One digit of the page changed: the place, the number there and the number of the record are told."""
    text = (run / "report.html").read_text("utf-8")
    shown = re.search(r'<td class="n">(\d\d\.\d)</td>', text)
    assert shown is not None
    wrong = f"{shown[1][:-1]}{(int(shown[1][-1]) + 1) % 10}"
    edited(run / "report.html", shown[0], shown[0].replace(shown[1], wrong))
    found = verify_report(run)
    (only,) = found.differences
    assert (only.file, only.reported, only.recorded) == ("report.html", wrong, shown[1])
    assert only.place.startswith("All cells, Best first")
    assert only.place.endswith(", quality %")
    done = f"{found.n_numbers:,} numbers in {', '.join(FILES)} made again from the record and compared byte by byte"
    assert found.text.splitlines() == [
        f"{run}/report.html: not what the record gives: 1 difference; {done}",
        f"  report.html, {only.place}: {wrong}; the record gives {shown[1]}",
    ]


@pytest.mark.parametrize(
    ("name", "place"),
    [("report.md", "line 1"), ("summary.csv", "header"), ("report.png", "the picture")],
)
def test_the_other_files_are_looked_at_too(run: Path, name: str, place: str) -> None:
    """A change of the Markdown text, the summary or the picture is found in that file."""
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[:-1] if name == "report.png" else b"x" + data)
    assert [(d.file, d.place) for d in verify_report(run).differences] == [(name, place)]


def test_what_is_not_text_is_compared_too(run: Path) -> None:
    """A style that hides a line changes no text, and is found."""
    edited(run / "report.html", "<style>", "<style>.alarm { display: none; } ")
    (only,) = verify_report(run).differences
    assert (only.file, only.place) == ("report.html", "pictures, styles or markup")


def test_a_missing_file_is_named(run: Path) -> None:
    """Files that are gone are told apart from files that differ."""
    (run / "report.md").unlink()
    (run / "summary.csv").unlink()
    found = verify_report(run)
    assert found.ok
    assert found.missing == ("report.md", "summary.csv")
    assert found.files == ("report.html", "report.png")


def test_on_other_versions_a_last_digit_may_differ(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another numpy pictures are left aside and a number may be off by one in its last digit, not by more."""
    now = page.made_with()
    monkeypatch.setattr(page, "made_with", lambda: now | {"numpy": "9.9"})
    (run / "report.png").unlink()
    text = (run / "report.html").read_text("utf-8")
    found = verify_report(run)
    assert found.ok
    assert found.other_versions == {"numpy": (now["numpy"], "9.9")}
    assert found.notes == (
        f"Made on other versions (numpy {now['numpy']}, now 9.9): pictures were not compared.",
    )
    assert found.files == ("report.html", "report.md", "summary.csv")
    shown = re.search(r'<td class="n">(\d\d\.[1-7])</td>', text)
    assert shown is not None
    for by, ok in ((1, True), (2, False)):
        wrong = f"{shown[1][:-1]}{int(shown[1][-1]) + by}"
        (run / "report.html").write_text(text.replace(shown[1], wrong, 1), "utf-8")
        assert verify_report(run).ok is ok


def test_baseline_and_seed_are_those_of_the_report(run: Path, tmp_path: Path) -> None:
    """A report elsewhere, with a baseline and a seed of its own, is made again with both."""
    base = wb.open_run(run).cell_id("T=0.7")
    wb.report(run, tmp_path / "to" / "x.html", baseline="T=0.7", seed=5)
    found = verify_report(run, tmp_path / "to" / "x.html")
    assert found.ok
    assert found.files == ("x.html", "x.md", "x.png", "summary.csv")
    assert (
        f"&quot;baseline&quot;: &quot;{base}&quot;, &quot;seed&quot;: 5" in found.path.read_text()
    )


def test_a_later_verification_of_rows_is_no_difference(run: Path) -> None:
    """The line about rows made again may be missing or old in a report, and may not be invented."""
    entry = {
        "ended_utc": "2026-01-02T03:04:05.000Z",
        "modes": {"alone": {"n_same": 7, "n_compared": 8}},
    }
    with RunStore.open(run, write=True) as store:
        store.update_manifest(verified=[entry])
    assert verify_report(run).ok
    wb.report(run)
    line = "token-identical when made again on 2026-01-02: 7 of 8 alone"
    assert line in (run / "report.html").read_text("utf-8")
    assert verify_report(run).ok
    edited(run / "report.html", "7 of 8 alone", "8 of 8 alone")
    (only,) = verify_report(run).differences
    assert only.place == "Record, Study, reproduced"
    assert only.reported == line.replace("7 of", "8 of")


def test_a_page_that_does_not_say_how_it_was_made(run: Path) -> None:
    """An older page is taken for one of the study's baseline and seed 0, on unknown versions."""
    text = (run / "report.html").read_text("utf-8")
    (run / "report.html").write_text(re.sub(r'<meta name="made-by"[^>]*>\n', "", text), "utf-8")
    found = verify_report(run)
    assert found.ok
    assert found.notes[0] == (
        "The page does not say what it was made with; the study's baseline and seed 0 are taken."
    )
    assert found.other_versions["numpy"][0] == "?"


def test_what_cannot_be_verified_is_said(run: Path) -> None:
    """Without a report, or with a damaged note in it, there is one sentence."""
    edited(run / "report.html", "&quot;seed&quot;: 0", "&quot;seed&quot;: null")
    with pytest.raises(StoreError) as caught:
        verify_report(run)
    assert str(caught.value) == (
        f"{run}/report.html: its note of how it was made is damaged; make the report anew"
    )
    (run / "report.html").unlink()
    with pytest.raises(StoreError) as caught:
        verify_report(run)
    assert str(caught.value) == f"no report {run}/report.html; make one with `workbench report`"


@pytest.mark.long
def test_two_processes_write_the_same_bytes(
    made: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, hash seed, time zone, locale and folder give the same page, text, picture and notebook."""
    monkeypatch.chdir(tmp_path)
    copies = []
    for n, (zone, locale) in enumerate((("UTC", "C.UTF-8"), ("Asia/Tokyo", "POSIX"))):
        copy = Path(shutil.copytree(made, tmp_path / f"place {n}" / made.name))
        for name in ("html", "md", "png", "ipynb"):
            (copy / f"report.{name}").unlink()
        own = {"PYTHONHASHSEED": str(n + 1), "TZ": zone, "LC_ALL": locale}
        command = [sys.executable, "-m", "workbench.cli", "report", str(copy), "--quiet"]
        subprocess.run(command, check=True, env={**os.environ, **own, "PYTHONPATH": str(root)})
        copies.append(copy)
    for name in ("report.html", "report.md", "report.png", "report.ipynb"):
        assert (copies[0] / name).read_bytes() == (copies[1] / name).read_bytes()
