"""The commands that read and rework what is there: score, compare, report, export, import, ls."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from commands import Command, workbench
from studies import N_CELLS, N_ROWS, study_file, sums

from workbench import api

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["workbench"]

PROGRAM = str(Path(sys.executable).with_name("workbench"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one run of the small study, timed."""
    folder = tmp_path_factory.mktemp("made")
    api.run(study_file(folder), out=folder / "results", progress=False, say=lambda _: None)
    return folder / "results"


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy of it where the commands look."""
    return Path(shutil.copytree(made, tmp_path / "results"))


def run_in(results: Path) -> api.Run:
    """The run of a results folder."""
    return api.open_run("latest", results)


def test_score_adds_scores(workbench: Command, results: Path) -> None:
    """Names with commas, options as YAML; the table follows the new primary."""
    done = workbench("score", "latest", "--scorers", "exact, {contains: {mode: all}}", "--json")
    assert done.code == 0
    assert set(run_in(results).scores["scorer"]) == {"numeric", "exact", "contains"}
    primary = workbench("score", "latest", "--scorers", "exact", "--primary", "exact", "--json")
    by_cell = {row["cell_id"]: row["quality"] for row in primary.json["cells"]}
    exact = run_in(results).scores.query("scorer == 'exact'")
    means = exact.groupby(["cell_id", "prompt_id"])["value"].mean().groupby("cell_id").mean()
    assert by_cell == pytest.approx(means.to_dict())


def test_score_says_what_another_scorer_found(workbench: Command, results: Path) -> None:
    """Without --primary the table stays, and the new scorer's mean and the way to its table are told."""
    done = workbench("score", "latest", "--scorers", "exact")
    exact = run_in(results).scores.query("scorer == 'exact'")["value"]
    assert done.err == (
        f"exact: {100 * exact.mean():.1f} % on average, {N_ROWS} answers; the table is by numeric, see --primary exact\n"
    )
    assert "; quality by numeric" in done.out
    assert " scored by numeric, " in done.out
    assert done.code == 0
    other = workbench("score", "latest", "--scorers", "exact", "--primary", "exact")
    assert (other.code, other.err) == (0, "")
    assert "; quality by exact" in other.out


@pytest.mark.usefixtures("results")
def test_score_returns_3_where_something_has_no_score(workbench: Command) -> None:
    """As run does: a scorer that breaks on every answer, primary or not."""
    Path("own.py").write_text("def broken(text, prompt):\n    return text.nope\n", "utf-8")
    done = workbench("score", "latest", "--scorers", "own.py:broken")
    assert done.code == 3
    assert "broken: no answer scored; the table is by numeric, see --primary broken\n" in done.err
    assert (
        workbench("score", "latest", "--scorers", "own.py:broken", "--primary", "broken").code == 3
    )
    assert workbench("score", "latest", "--scorers", "exact", "--primary", "exact", "-q").code == 0


def test_score_without_names_uses_the_studys(workbench: Command, results: Path) -> None:
    """The run's own scorers judge again; nothing else changes."""
    before = run_in(results).scores
    assert workbench("score", "latest").code == 0
    after = run_in(results)
    pd.testing.assert_frame_equal(after.scores, before)
    assert len(after.manifest["rescored"]) == 1


@pytest.mark.parametrize(
    ("scorers", "said"),
    [
        ("nope", "unknown scorer 'nope'"),
        ("{a: b", "--scorers must be names or YAML, got '{a: b'"),
        ("{contains: {x: 1}}", "scorer contains: unknown option 'x'"),
    ],
)
def test_score_refuses(workbench: Command, results: Path, scorers: str, said: str) -> None:
    """What cannot judge is named in one line."""
    done = workbench("score", "latest", "--scorers", scorers)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"workbench: {said}")
    assert "rescored" not in run_in(results).manifest


def test_compare_says_and_shows(workbench: Command, results: Path) -> None:
    """The paragraph of the library, then the changed prompts with both answers."""
    from workbench.comparing import compare

    run = run_in(results)
    expected = compare(run, "T=1.3 k=50", "greedy")
    done = workbench("compare", "latest", "--cell", "T=1.3 k=50", "--baseline", "greedy")
    assert done.code == 0
    assert done.out.startswith(expected.text)
    changed = expected.changes[expected.changes["change"].isin(["better", "worse"])]
    assert len(changed) > 0
    for prompt_id in changed["prompt_id"]:
        assert prompt_id in done.out[len(expected.text) :]
    same = expected.changes[expected.changes["change"] == "same"]["prompt_id"]
    assert not any(f"**{prompt_id}**" in done.out for prompt_id in same)


@pytest.mark.usefixtures("results")
def test_compare_as_json(workbench: Command) -> None:
    """Numbers, and the prompts asked for."""
    call = ["compare", "latest", "--cell", "T=1.3 k=50", "--baseline", "greedy", "--json"]
    found = workbench(*call, "--only", "all", "--limit", "3").json
    assert [row["prompt_id"] for row in found["shown"]] == ["p0", "p1", "p2"]
    total = sum(found[name] for name in ("better", "worse", "same", "unscored"))
    assert total == found["n_prompts"] == 6
    assert all(
        row["change"] == "worse" for row in workbench(*call, "--only", "worse").json["shown"]
    )


def test_compare_takes_the_best_cell(workbench: Command, results: Path) -> None:
    """Without a cell, the one with the highest quality that is not the baseline."""
    table = run_in(results).summary()
    base = run_in(results).cell_id()
    others = table[table["cell_id"] != base]
    found = workbench("compare", "latest", "--json").json
    best = others.set_index("cell_id")["quality"]
    assert found["baseline"] == base
    assert best[found["cell"]] == best.max()


def test_compare_on_held_out_prompts(workbench: Command, tmp_path: Path) -> None:
    """A cell that was picked is compared on prompts that did not pick it; a named one on all, unless told."""
    path = study_file(tmp_path, n_prompts=30, split={"confirm": 0.4}, latency=False)
    assert workbench("run", path, "--quiet").code == 0
    sides = run_in(tmp_path / "results").generations.groupby("split")["prompt_id"].nunique()
    call = ["compare", "latest", "--json"]
    assert workbench(*call).json["n_prompts"] == sides["confirm"]
    assert workbench(*call, "--split", "select").json["n_prompts"] == sides["select"]
    assert workbench(*call, "--cell", "T=0.7 k=10").json["n_prompts"] == 30
    assert workbench(*call, "--split", "all").json["n_prompts"] == 30


def test_compare_two_runs(workbench: Command, results: Path) -> None:
    """Prompt by prompt, RUN being the baseline."""
    study = study_file(results.parent, name="other", seed=8)
    assert workbench("run", study, "--quiet", "--no-latency").code == 0
    first = next(results.glob("small/*"))
    second = next(results.glob("other/*"))
    cells = ["--baseline", "greedy", "--cell", "T=1.3 k=50"]
    done = workbench("compare", first, second, *cells, "--json")
    assert (done.code, done.json["n_prompts"]) == (0, 6)
    assert "T=1.3 k=50" in done.json["labels"][1]


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("option", [("--only", "worse"), ("--limit", 3)])
def test_compare_adapters_shows_no_prompts(workbench: Command, option: tuple[str, object]) -> None:
    """An option that would do nothing is refused."""
    done = workbench("compare", "latest", "--baseline", "base", *option)
    assert done.code == 2
    assert "--only and --limit are for two cells: name one with --cell" in " ".join(
        done.err.replace("│", " ").split()
    )


@pytest.mark.usefixtures("results")
def test_compare_refuses_unknown_cells(workbench: Command) -> None:
    """The cells there are are listed."""
    done = workbench("compare", "latest", "--cell", "hot")
    assert done.code == 1
    assert "no cell 'hot'; cells: greedy, " in done.err


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "summary", "markdown", "lm-eval"])
def test_export_writes_every_form(workbench: Command, form: str) -> None:
    """The files named on standard output are there; a second time they are not replaced, unless told to."""
    call = [
        "export",
        "latest",
        "--format",
        form,
        "--to",
        "out/rows" if form == "lm-eval" else "rows.x",
    ]
    done = workbench(*call)
    assert done.code == 0
    files = [Path(line) for line in done.out.splitlines()]
    assert files
    assert all(path.stat().st_size > 0 for path in files)
    again = workbench(*call)
    assert again.code == 1
    assert workbench(*call, "--force", "--json").json["files"] == [str(f) for f in files]


@pytest.mark.usefixtures("results")
def test_export_takes_the_format_from_the_ending(workbench: Command) -> None:
    """By its ending a file is JSON lines, parquet Parquet, no ending CSV; an unknown one is refused; --format is stronger."""
    for name, head in (
        ("a.jsonl", b"{"),
        ("a.parquet", b"PAR1"),
        ("a.md", b"**small**"),
        ("a", b"run_id,"),
    ):
        assert workbench("export", "latest", "--to", name).code == 0
        assert Path(name).read_bytes().startswith(head)
    assert workbench("export", "latest", "--to", "b.txt", "--format", "jsonl").code == 0
    done = workbench("export", "latest", "--to", "rows.xlsx")
    assert done.code == 2
    assert "no format is known by the ending of rows.xlsx; say --format, one of csv, " in done.err
    assert not Path("rows.xlsx").exists()


def test_export_of_an_unfinished_run_says_so(workbench: Command, results: Path) -> None:
    """The head of the Markdown table tells how many rows were run."""
    path = run_in(results).path / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["n_rows"] = 60
    path.write_text(json.dumps(manifest), "utf-8")
    assert workbench("export", "latest", "--to", "a.md").code == 0
    first = Path("a.md").read_text("utf-8").splitlines()[0]
    assert first.endswith(f"; not complete: {N_ROWS} of 60 rows were run")
    done = workbench("summary", "latest")
    assert "This run is not complete: 6 of 60 rows were not run." in " ".join(done.out.split())


@pytest.mark.usefixtures("results")
def test_export_rows_read_back(workbench: Command) -> None:
    """A CSV has a row per answer, with its score."""
    workbench("export", "latest", "--to", "rows.csv")
    rows = pd.read_csv("rows.csv")
    assert len(rows) == N_ROWS
    assert {"prompt_id", "text", "temperature"} <= set(rows.columns)


def test_import_a_csv_with_other_columns(workbench: Command, tmp_path: Path) -> None:
    """The prompts are checked and written as JSONL that a study takes."""
    (tmp_path / "q.csv").write_text("Question,Answer\n1 + 1?,2\n2 + 2?,4\n", encoding="utf-8")
    fields = ["--field", "prompt=Question", "--field", "target=Answer"]
    done = workbench("import", "q.csv", *fields, "--to", "q.jsonl")
    assert (done.code, done.out) == (0, "q.jsonl: 2 prompts\n")
    rows = [json.loads(line) for line in Path("q.jsonl").read_text("utf-8").splitlines()]
    assert [row["target"] for row in rows] == ["2", "4"]
    assert workbench("import", "q.csv", *fields, "--to", "q.jsonl").code == 1
    again = workbench("import", "q.csv", *fields, "--to", "q.jsonl", "--force", "--json")
    assert again.json["n_prompts"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["q.csv", "--to", "q.jsonl", "--name", "x"], 2, "--name: only with --answers"),
        (["q.csv", "--answers", "--to", "q.jsonl"], 2, "--to and --field: not with --answers"),
        (["q.csv"], 2, "say where to write the prompts: --to FILE.jsonl"),
        (["q.csv", "r.csv", "--to", "q.jsonl"], 2, "several files: only with --answers"),
        (["q.csv", "--to", "q.jsonl", "--field", "prompt"], 2, "must be name=column, got 'prompt'"),
        (["nope.csv", "--to", "q.jsonl"], 1, "nope.csv: no such file"),
        (["q.csv", "--to", "q.jsonl"], 1, "q.csv:1"),
    ],
)
def test_import_refuses(
    workbench: Command, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    """Usage mistakes return 2, bad files 1; nothing is written."""
    (tmp_path / "q.csv").write_text("Question,Answer\n1 + 1?,2\n", encoding="utf-8")
    done = workbench("import", *arguments)
    assert done.code == code
    assert said in " ".join(done.err.split())
    assert not Path("q.jsonl").exists()


def test_import_answers_makes_a_run(workbench: Command, tmp_path: Path) -> None:
    """Answers from elsewhere are scored and compared as ours are."""
    prompts = "".join(json.dumps(row) + "\n" for row in sums(4))
    (tmp_path / "p.jsonl").write_text(prompts, encoding="utf-8")
    answers = "".join(
        json.dumps({"id": f"p{i}", "text": f"It is {i + 1}."}) + "\n" for i in range(4)
    )
    (tmp_path / "a.jsonl").write_text(answers, encoding="utf-8")
    call = ["import", "a.jsonl", "--answers", "--prompts", "p.jsonl", "--name", "theirs"]
    run = workbench(*call, "--json").json["run"]
    scored = workbench("score", run, "--scorers", "numeric", "--json")
    assert scored.code == 0
    assert [row["quality"] for row in scored.json["cells"]] == [1.0]


@pytest.mark.usefixtures("results")
def test_logs_go_out_and_come_back(workbench: Command) -> None:
    """A run taken out for inspect_ai and in again differs from it in nothing."""
    done = workbench("export", "latest", "--to", "logs", "--format", "inspect", "--json")
    assert len(done.json["files"]) == N_CELLS
    back = workbench("import", *done.json["files"], "--answers", "--name", "back", "--json")
    assert (back.code, back.err) == (0, "")
    found = workbench("compare", "small", "back", "--json").json
    assert (found["quality"]["diff"], found["better"], found["worse"]) == (0, 0, 0)
    assert found["notes"] == ["Shared prompts: 6 of 6 and 6."]


@pytest.mark.usefixtures("results")
def test_report_writes_its_files(workbench: Command) -> None:
    """The page's path is printed; the files are where they were asked for."""
    done = workbench("report", "latest", "--to", "out", "--json")
    assert done.code == 0
    page, text = Path(done.json["report"]), Path(done.json["markdown"])
    assert (page.parent, text.parent) == (Path("out"), Path("out"))
    assert "<h1>small</h1>" in page.read_text("utf-8")
    assert text.read_text("utf-8").strip()


def test_a_run_that_died_is_stopped(workbench: Command, tmp_path: Path) -> None:
    """``ls`` says "running" while a process writes the run and "stopped" once it was killed."""
    path = study_file(tmp_path, n_prompts=3000, fixed={"max_tokens": 48}, latency=False)
    process = subprocess.Popen(
        [PROGRAM, "run", str(path), "--quiet"], cwd=tmp_path, start_new_session=True
    )
    try:
        for said in wait_for_status(workbench):
            if said == "running":
                break
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert workbench("ls", "--json").json[0]["status"] == "stopped"
    assert re.search(r"\bstopped\b", workbench("ls").out)


def wait_for_status(workbench: Command) -> Iterator[str]:
    """The status of the first run, again and again for a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = workbench("ls", "--json").json
        yield found[0]["status"] if found else ""
        time.sleep(0.05)
    pytest.fail("no run appeared in 60 s")


def test_errors_are_json_where_json_is_asked_for(workbench: Command, tmp_path: Path) -> None:
    """Standard output holds the error and its problems; standard error the line for people."""
    (tmp_path / "bad.yaml").write_text("name: a b\ngrid: {top_k: 3}\n", encoding="utf-8")
    done = workbench("validate", "bad.yaml", "--json")
    assert (done.code, done.json["kind"]) == (1, "StudyError")
    assert len(done.json["problems"]) == 3
    assert done.err.startswith("workbench: bad.yaml: 3 problems")
    missing = workbench("summary", "latest", "--json")
    assert missing.json["error"] == "no run 'latest': there are no runs under results"


def test_wrong_usage_is_json_too(workbench: Command) -> None:
    """A missing argument, an unknown option, a wrong value: exit 2, and the message as JSON."""
    for arguments, said in (
        (("summary", "--json"), "Missing argument 'RUN'"),
        (("summary", "latest", "--nope", "--json"), "--nope"),
        (("report", "latest", "--seed", "-1", "--json"), "--seed"),
        (("import", "x.csv", "--json"), "say where to write the prompts: --to FILE.jsonl"),
        (("nope", "--json"), "nope"),
    ):
        done = workbench(*arguments)
        assert (done.code, done.json["kind"]) == (2, "UsageError")
        assert said in done.json["error"]
    assert workbench("summary").out == ""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_stops_is_no_error(results: Path, options: list[str]) -> None:
    """``workbench summary R | head -1`` returns 0 and says nothing on standard error."""
    process = subprocess.Popen(
        [PROGRAM, "summary", "latest", *options],
        cwd=results.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_a_folder_that_is_no_run_and_the_name_of_a_study(workbench: Command, results: Path) -> None:
    """A folder without a run is called that; a study's name opens its newest run."""
    Path("norun").mkdir()
    done = workbench("summary", "norun")
    assert done.code == 1
    assert done.err == (
        "workbench: norun: no run in this folder (no manifest.json, and none in its folders)\n"
    )
    assert workbench("summary", "small", "--json").json["run_id"] == run_in(results).id


def test_a_scorer_that_cannot_be_called_is_no_good_study(
    workbench: Command, tmp_path: Path
) -> None:
    """A function with other parameters is found before anything runs."""
    Path("own.py").write_text("def short(answer):\n    return 1\n", "utf-8")
    done = workbench("validate", study_file(tmp_path, scorers=["own.py:short"]))
    assert done.code == 1
    assert "scorer short: it is called with (text, prompt), and takes (answer)" in done.err


def test_ls_leaves_out_what_is_no_run(workbench: Command, results: Path) -> None:
    """A damaged manifest does not keep the others from being listed."""
    broken = results / "small" / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("{}", encoding="utf-8")
    done = workbench("ls")
    assert done.code == 0
    assert run_in(results).id in done.out
    assert "broken" not in done.out


def test_a_file_name_makes_a_study_name(workbench: Command, tmp_path: Path) -> None:
    """Spaces in the file's name do not have to be mended by hand."""
    study_file(tmp_path).rename(tmp_path / "my study.yaml")
    text = (tmp_path / "my study.yaml").read_text("utf-8").replace("name: small\n", "")
    (tmp_path / "my study.yaml").write_text(text, encoding="utf-8")
    assert workbench("validate", "my study.yaml", "--json").json["study"] == "my-study"


def test_validate_looks_at_targets(workbench: Command, tmp_path: Path) -> None:
    """Some targets of no use are a note, none of use is an error."""
    path = study_file(tmp_path)
    rows = [*sums(5), {"id": "open", "prompt": "Why?"}]
    write = (tmp_path / "sums.jsonl").write_text
    write("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = workbench("validate", path)
    assert done.code == 0
    assert done.err == (
        "note: scorer numeric: 1 of 6 prompts has no target it can use "
        "(first: 'open': the prompt has no target)\n"
    )
    assert len(workbench("validate", path, "--json").json["notes"]) == 1
    write(json.dumps(rows[-1]) + "\n", encoding="utf-8")
    for command in (["validate", path], ["run", path, "--dry-run"]):
        assert "scorer numeric: 1 of 1 prompts has no target it can use" in workbench(*command).err
    assert workbench("validate", path).code == 1


def test_the_shell_completes_runs(results: Path) -> None:
    """Commands and run names are offered to bash."""
    name = next(results.glob("small/*")).name
    for words, expected in (("workbench rep", "report"), (f"workbench summary {name[:9]}", name)):
        environment = {
            **os.environ,
            "_WORKBENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = subprocess.run(
            [PROGRAM],
            cwd=results.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert expected in done.stdout.split(), done.stderr
