"""What the commands print: tables that fit, text as it is."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from studies import SMALL, sums

from workbench import api, terminal
from workbench.study import Study

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: dict[str, list[Any]] = {
    "temperature": [0.15, 0.35, 0.75],
    "top_k": [11, 49],
    "top_p": [0.915, 0.985],
    "min_p": [0.015, 0.025, 0.035],
    "repetition_penalty": [1.125],
    "frequency_penalty": [0.125],
}
"""36 cells with long labels."""


def run(out: Path, **changes: Any) -> api.Run:
    """A small run."""
    study = Study(**(SMALL | {"prompts": sums(2), "repeats": 1, "name": "table"} | changes))
    return api.run(study, out=out, progress=False, say=lambda _: None)


def printed(capsys: pytest.CaptureFixture[str], done: api.Run, summary: Any = None) -> list[str]:
    """The lines that a run prints."""
    capsys.readouterr()
    terminal.print_run(done, done.summary() if summary is None else summary)
    return capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    """A run of 36 cells with long labels."""
    names = {
        f"a rather long name for setting number {n}": {"temperature": n / 9} for n in range(1, 37)
    }
    latency = {"prompts": 1, "warmup": 0, "rounds": 1}
    return run(tmp_path_factory.mktemp("wide"), grid=names, latency=latency)


def test_36_long_cells_fit_80_columns(wide: api.Run, capsys: pytest.CaptureFixture[str]) -> None:
    """No line of table or words is wider than 80, every cell is named whole, and no number is cut."""
    summary = wide.summary()
    summary.loc[3, ["n_failed", "e2el_ms_p50", "n_output_tokens_mean"]] = [12_345, 123_456.0, 987.6]
    summary.loc[4, ["diff_vs_baseline", "diff_lo", "diff_hi"]] = [-0.53, -1.0, -0.17]
    lines = printed(capsys, wide, summary)
    text = [line for line in lines if str(wide.path) not in line]
    assert max(map(len, text)) <= 80
    flat = "".join("".join(line[2:21].split()) for line in text)
    for n in (1, 18, 36):
        assert f"settingnumber{n}" in flat.replace("\n", "")
    assert "…" not in "".join(lines)
    whole = "\n".join(lines)
    for number in ("12,345", "123,456", "987.6", "-53 [-100, -17]"):
        assert number in whole
    assert "more cells" not in whole


def test_the_numbers_of_36_settings_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels made of four settings are folded, not cut."""
    done = run(tmp_path, grid=SETTINGS, fixed={"max_tokens": 2}, latency=False)
    assert len(done.cells) == 36
    lines = [line for line in printed(capsys, done) if str(done.path) not in line]
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    for label in done.cells["label"]:
        assert set(label.split()) <= set(words)


def test_a_terminal_as_wide_as_it_says(
    wide: api.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """COLUMNS is respected, nonsense in it is not."""
    monkeypatch.setenv("COLUMNS", "200")
    one_line = "a rather long name for setting number 7 "
    assert any(one_line in line for line in printed(capsys, wide))
    monkeypatch.setenv("COLUMNS", "wide")
    assert not any(one_line in line for line in printed(capsys, wide))


def test_text_is_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets, colons and quotes in names are no markup and no pictures."""
    names = {"[bold]x": {"temperature": 0}, "[/]": {"temperature": 1}, ":smile: 'y'": {"top_k": 5}}
    done = run(tmp_path / "[red]", grid=names, latency=False)
    lines = printed(capsys, done)
    for name in names:
        assert any(name in line for line in lines[2:5])
    assert lines[-1] == f"record:  {tmp_path}/[red]/table/{done.id}/manifest.json"


def test_best_first_with_baseline_and_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are sorted by quality, unscored ones last; the baseline has no difference; stars mark the front."""
    done = run(tmp_path, latency=False)
    summary = done.summary()
    summary["quality"] = [0.5, 0.25, float("nan"), 0.75, 0.6]
    summary["on_front"] = pd.array([False, False, None, True, False], dtype="boolean")
    lines = printed(capsys, done, summary)
    rows = lines[2:7]
    labels = ["T=1.3 k=10", "T=1.3 k=50", "greedy", "T=0.7 k=10", "T=0.7 k=50"]
    assert [row[3:].split("  ")[0] for row in rows] == labels
    assert [row[0] for row in rows] == ["*", " ", " ", " ", " "]
    assert "baseline" in rows[2]
    assert "* on the front: no other cell is as good and as fast, and better in one" in lines
    summary["on_front"] = pd.array([pd.NA] * 5, dtype="boolean")
    assert not any("front" in line for line in printed(capsys, done, summary))


def test_more_cells_than_fit_are_counted(
    wide: api.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best are shown, and where the others are."""
    monkeypatch.setattr(terminal, "_SHOWN", 30)
    assert f"  and 6 more cells, in {wide.path}/summary.csv".split() in [
        line.split() for line in joined(printed(capsys, wide))
    ]


def joined(lines: list[str]) -> list[str]:
    """Lines, and each with the next ones that it may have been wrapped into."""
    return lines + [" ".join(lines[i : i + k]) for k in (2, 3) for i in range(len(lines))]


def test_json_has_null_for_what_is_unknown(wide: api.Run) -> None:
    """No NaN, no numpy: strict JSON, with the table's numbers."""
    summary = wide.summary()
    value = terminal.as_json(wide, summary)
    read = json.loads(json.dumps(value, allow_nan=False))
    assert read == value
    assert len(value["cells"]) == 36
    first = value["cells"][0]
    assert first["label"] == wide.cells["label"][0]
    assert first["e2el_ms_p90"] is None
    assert first["n_prompts"] == 2
    assert type(first["n_prompts"]) is int
    assert first["on_front"] is None  # one request a cell tells nothing
    assert list(first)[1:] == [*summary.columns, "n_prompts_scored"]
    assert first["n_prompts_scored"] == 2


def test_settings_that_are_whole_numbers_stay_so_in_json(tmp_path: Path) -> None:
    """top_k is 5, not 5.0, and null where it is not set."""
    done = run(tmp_path, grid={"top_k": [None, 5]}, latency=False)
    values = [cell["top_k"] for cell in terminal.as_json(done, done.summary())["cells"]]
    assert [type(v) for v in values] == [type(None), int]


def test_narrow_terminals_cut_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the table does not fit, its lines are longer than the terminal, and every number is whole."""
    monkeypatch.setenv("COLUMNS", "40")
    done = run(tmp_path, latency=False)
    summary = done.summary()
    summary["e2el_ms_p50"] = 123_456.0
    summary[["diff_vs_baseline", "diff_lo", "diff_hi"]] = [-0.001, -0.14, 0.001]
    lines = printed(capsys, done, summary)
    assert sum("123,456 " in line for line in lines if "ms" not in line) == len(summary)
    assert lines[1].split()[-2:] == ["ms", "tokens"]
    assert sum(" 0 [-14, 0] " in line for line in lines[:20]) == len(summary) - 1


def test_an_unfinished_run_says_so_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing of a run stands before its answer, for people and in JSON."""
    done = run(tmp_path, latency=False)
    done.manifest["n_rows"] += 7
    missing = f"This run is not complete: 7 of {done.manifest['n_rows']} rows were not run."
    assert done.answer().startswith(missing)
    assert terminal.as_json(done, done.summary())["answer"][0].startswith(missing)
    assert any(line.startswith(missing) for line in printed(capsys, done))


def test_the_table_names_its_scorer_and_why_there_is_no_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose scores the table shows, and that few timings make no front."""
    lines = printed(capsys, run(tmp_path))
    assert lines[0].rstrip().endswith("; quality by numeric")
    assert "no front: some cell has only 2 timed requests" in " ".join(lines)
    assert not any(line.startswith("*") for line in lines)


def test_equal_cells_stand_in_the_order_of_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of equal quality the baseline comes first, then the faster one, as in the report."""
    done = run(tmp_path, latency=False)
    summary = done.summary()
    summary["quality"] = 0.5
    summary["e2el_ms_p50"] = [5.0, 4.0, 3.0, 2.0, 1.0]
    rows = printed(capsys, done, summary)[2:7]
    labels = list(done.cells["label"])
    assert [row[2:14].strip() for row in rows] == [labels[0], *labels[:0:-1]]


def test_runs_fit_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list of runs folds long names, and says when there is none."""
    manifest = {
        "study": {"name": "a-study-with-quite-a-long-name-" + "x" * 60},
        "status": "failed rows",
        "n_cells": 36,
        "n_rows": 1_234_567,
        "engine": {"model": "/a/model/in/a/folder/" + "deep/" * 12},
    }
    path: Any = SimpleNamespace(name="20260101T000000Z-abcdef")
    terminal.print_runs([(path, manifest)], tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "1,234,567" in "".join(lines)
    letters = "".join("".join(lines).split())
    assert letters.count("x") == 60
    terminal.print_runs([], tmp_path / "[x]")
    assert capsys.readouterr().out.replace("\n", "") == f"no runs under {tmp_path}/[x]"
