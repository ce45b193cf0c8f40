"""The commands that check whether a run can be had again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import workbench

from workbench import reproducing
from workbench.cli import Exit
from workbench.reproducing import Difference, ReportCheck
from workbench.rundir import read_manifest

if TYPE_CHECKING:
    from commands import Command

__all__ = ["workbench"]

STUDY = """
name: filed
model: scripted
prompts:
  - {id: a, prompt: "What is 3 + 1?", target: "4"}
  - {id: b, prompt: "What is 5 + 1?", target: "6"}
grid: {temperature: [0, 0.7]}
fixed: {max_tokens: 8}
scorers: [numeric]
latency: false
engine: {kind: scripted}
"""


@pytest.fixture
def run(workbench: Command) -> Path:
    """A finished run of two prompts and two cells."""
    Path("s.yaml").write_text(STUDY, "utf-8")
    assert workbench("run", "s.yaml", "--quiet").code == Exit.DONE
    (made,) = Path("results/filed").iterdir()
    return made


def test_verify_grades_and_notes(workbench: Command, run: Path) -> None:
    """A grade a mode, as text and as JSON; the manifest has both calls."""
    done = workbench("verify", "latest", "--rows", "3", "--seed", "4")
    assert done.code == Exit.DONE
    assert done.out.splitlines()[:2] == [
        f"{run}: 3 rows made again on cpu, kernel numpy",
        "  alone (one at a time): 3 of 3 rows token-identical (100.0%)",
    ]
    assert "3 rows to make again" in done.err
    done = workbench("verify", run, "--json", "--quiet")
    assert (done.code, done.err) == (Exit.DONE, "")
    assert done.json["modes"]["shuffled"]["share"] == 1.0
    assert done.json["n_rows"] == 4
    assert [v["seed"] for v in read_manifest(run)["verified"]] == [4, 0]


def test_verify_returns_1_if_a_row_differs(workbench: Command, run: Path) -> None:
    """A run whose study has another seed now makes other rows; an imported one is told in one line."""
    path = run / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["study"]["text"] = manifest["study"]["text"].replace("seed: 0", "seed: 1")
    path.write_text(json.dumps(manifest), "utf-8")
    done = workbench("verify", run)
    assert done.code == Exit.ERROR
    assert "2 of 4 rows token-identical (50.0%); first at token" in done.out
    manifest["engine"] |= {"engine": "imported", "extra": {"file": "x.jsonl"}}
    path.write_text(json.dumps(manifest), "utf-8")
    done = workbench("verify", run)
    assert (done.code, done.out) == (Exit.ERROR, "")
    assert done.err == (
        f"workbench: {run}: its answers were imported from x.jsonl, so nothing here can make them again\n"
    )


def test_rerun_makes_another_run_and_says_what_differs(workbench: Command, run: Path) -> None:
    """The new run stands beside the first; text ends with the diff, and JSON holds it."""
    done = workbench("rerun", "latest", "--quiet")
    assert done.code == Exit.DONE
    assert done.out.splitlines()[2] == (
        "Identical: the same inputs, 4 rows with the same tokens, texts and scores."
    )
    done = workbench("rerun", run, "--out", "elsewhere", "--json", "--quiet")
    assert done.json["diff"]["identical"] is True
    assert read_manifest(Path(done.json["run"]))["rerun_of"] == run.name
    assert len(list(Path("results/filed").iterdir())) == 2
    assert len(list(Path("elsewhere/filed").iterdir())) == 1


def test_rerun_returns_3_where_rows_have_no_score(workbench: Command) -> None:
    """As `run` does."""
    Path("own.py").write_text("def broken(text, prompt):\n    return text.nope\n", "utf-8")
    study = STUDY.replace("[numeric]", "[own.py:broken]").replace("filed", "broken")
    Path("b.yaml").write_text(study, "utf-8")
    assert workbench("run", "b.yaml", "--quiet").code == Exit.FAILED_ROWS
    done = workbench("rerun", "broken", "--quiet")
    assert done.code == Exit.FAILED_ROWS


def test_diff_of_two_runs(workbench: Command, run: Path) -> None:
    """Text and JSON name what differs; differing runs are no error."""
    Path("t.yaml").write_text(STUDY.replace("0.7", "1.3"), "utf-8")
    assert workbench("run", "t.yaml", "--quiet").code == Exit.DONE
    done = workbench("diff", run, "latest")
    assert done.code == Exit.DONE
    assert done.out.splitlines()[2] == (
        "Not identical; what differs: 1 input, which rows there are."
    )
    done = workbench("diff", run, "latest", "--json")
    assert [c["name"] for c in done.json["inputs"]] == ["study: grid"]
    assert done.json["rows"]["cells"] == [1, 1, 1]


@pytest.mark.usefixtures("run")
def test_report_verify_returns_1_on_any_difference(
    workbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compared is printed; each difference with its place and both numbers; --baseline makes no sense with it."""
    wrong = Difference("report.html", "All cells, greedy, quality %", "87.6", "87.5")
    found: tuple[Difference, ...] = ()

    def check(run: object, out: object, *, progress: bool) -> ReportCheck:
        assert (repr(run)[:4], out, progress) == ("Run(", None, False)
        return ReportCheck(Path("report.html"), ("report.html",), (), 12, {}, found)

    monkeypatch.setattr(reproducing, "verify_report", check)
    done = workbench("report", "latest", "--verify")
    assert (done.code, done.out) == (
        Exit.DONE,
        "report.html: verified; 12 numbers in report.html made again from the record and compared byte by byte\n",
    )
    found = (wrong,)
    done = workbench("report", "latest", "--verify")
    assert done.code == Exit.ERROR
    assert done.out.splitlines()[1] == (
        "  report.html, All cells, greedy, quality %: 87.6; the record gives 87.5"
    )
    done = workbench("report", "latest", "--verify", "--json")
    assert done.code == Exit.ERROR
    assert done.json["differences"] == [wrong._asdict()]
    done = workbench("report", "latest", "--verify", "--seed", "3")
    assert done.code == Exit.USAGE
    assert "--baseline and --seed are those of the report with --verify" in done.err


def test_report_verify_without_a_report(workbench: Command, run: Path) -> None:
    """One line says that there is none."""
    done = workbench("report", run, "--verify")
    assert (done.code, done.err) == (
        Exit.ERROR,
        f"workbench: no report {run}/report.html; make one with `workbench report`\n",
    )
