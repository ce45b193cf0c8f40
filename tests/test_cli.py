"""The commands: what they print where, and what they return."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from commands import Command, Done, workbench
from studies import N_CELLS, N_PROMPTS, N_ROWS, N_TIMED, Stopping, study_file

from workbench import api, cli, demo
from workbench.cli.base import ORDER
from workbench.engines.scripted import ScriptedEngine
from workbench.errors import EngineError
from workbench.study import Study

if TYPE_CHECKING:
    Tokens = dict[tuple[Any, ...], tuple[int, ...]]

__all__ = ["workbench"]

WORKBENCH = str(Path(sys.executable).with_name("workbench"))
COMMANDS = (
    "demo",
    "run",
    "validate",
    "summary",
    "compare",
    "report",
    "latency",
    "score",
    "export",
    "import",
    "ls",
    "doctor",
)
WAY_ON = "run the same command again to continue"
LONG: dict[str, Any] = {"n_prompts": 400, "fixed": {"max_tokens": 24}, "latency": False}
"""3,600 rows: a second or more of work, several commits."""


def process(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """Start the installed command."""
    return subprocess.Popen(
        [WORKBENCH, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def one_line(done: Done) -> str:
    """The one line of an error, which came without output or traceback."""
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("workbench: ")
    assert done.err.count("\n") == 1
    return done.err.removeprefix("workbench: ").rstrip("\n")


# run


def test_run_prints_table_answer_and_files(workbench: Command, tmp_path: Path) -> None:
    """A finished run returns 0: the result on standard output, notes and bars on standard error."""
    done = workbench("run", study_file(tmp_path))
    assert done.code == 0
    run = api.open_run("latest")
    assert "5 cells" in repr(run)
    for label in run.cells["label"]:
        assert f" {label} " in done.out
    assert "".join(run.answer().split()) in "".join(done.out.split())
    assert done.out.splitlines()[-3:] == [
        f"table:   {run.path}/summary.csv",
        f"picture: {run.path}/plots/quality_latency.png",
        f"record:  {run.path}/manifest.json",
    ]
    assert f"{run.path}: 54 rows to run\n" in done.err
    assert "54/54" not in done.err  # no bars where they would fill a log
    again = workbench("run", "small.yaml")
    assert again.code == 0
    assert again.out == done.out
    assert again.err == (
        f"{run.path}: finished before (54 rows); nothing to run\n"
        f"{run.path}: 10 requests timed before; nothing to time\n"
    )
    assert len(api.all_runs()) == 1
    assert workbench("run", "small.yaml", "--new").code == 0
    assert len(api.all_runs()) == 2


def test_json_is_all_there_is(workbench: Command, tmp_path: Path) -> None:
    """``--json`` prints one JSON value on standard output; run, summary and latency print the same."""
    done = workbench("run", study_file(tmp_path), "--json")
    assert done.code == 0
    run = api.open_run("latest")
    value = done.json
    assert value["run_id"] == run.id
    assert value["status"] == "finished"
    assert value["answer"] == run.answer(width=None).splitlines()
    assert value["files"].keys() == {"table", "picture", "record"}
    assert [cell["label"] for cell in value["cells"]] == run.cells["label"].tolist()
    assert value["baseline"] == run.manifest["baseline"]
    for cell, row in zip(value["cells"], run.summary().to_dict("records"), strict=True):
        assert cell["quality"] == row["quality"]
        assert cell["e2el_ms_p90"] is None
        assert cell["top_p"] is None
    assert workbench("summary", "latest", "--json").json == value
    arguments = ("latency", "latest", "--prompts", 2, "--warmup", 1, "--rounds", 1, "--json")
    assert workbench(*arguments).json == value


def test_quiet_is_silent(workbench: Command, tmp_path: Path) -> None:
    """``--quiet`` leaves standard error empty, of a run and of more timings."""
    path = study_file(tmp_path)
    first = workbench("run", path, "--quiet")
    assert (first.code, first.err) == (0, "")
    assert first.out
    more = workbench("latency", "latest", "--quiet", "--rounds", 2)
    assert (more.code, more.err) == (0, "")
    assert (api.open_run("latest").latency["warm"] == 1).sum() > N_TIMED


def test_limit_and_no_latency(workbench: Command, tmp_path: Path) -> None:
    """They reach the run."""
    done = workbench("run", study_file(tmp_path), "--limit", 2, "--no-latency", "--json", "-q")
    assert done.json["cells"][0]["n_prompts"] == 2
    assert done.json["cells"][0]["e2el_ms_p50"] is None
    assert "picture" not in done.json["files"]


def test_failed_rows_return_3(workbench: Command, tmp_path: Path) -> None:
    """Done, but rows failed: the table has a column for them, and another call tries them again."""
    path = study_file(tmp_path, grid={"fine": {"temperature": 0}, "endless": {"max_tokens": 5000}})
    done = workbench("run", path)
    assert done.code == 3
    assert re.search(r"^ +cell .* failed$", done.out, re.MULTILINE)
    assert re.search(r"^ +endless .* -  +- .* 12$", done.out, re.MULTILINE)
    run = api.open_run("latest")
    assert f"{run.path}: done, but 12 of 18 rows failed; run the same command again" in done.err
    assert workbench("run", path, "--json", "--quiet").code == 3
    assert len(api.all_runs()) == 1


def test_dry_run_writes_nothing(workbench: Command, tmp_path: Path) -> None:
    """``--dry-run`` says cells, rows and merged cells, in words and as JSON, and leaves no file."""
    path = study_file(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = workbench("run", path, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert done.out == Study.from_yaml(path).plan().describe() + "\n"
    assert "5 cells, 2 repeats: 54 rows, 18 saved" in done.out
    assert "greedy k=50  ->  greedy" in done.out
    value = workbench("run", path, "--dry-run", "--json").json
    assert (value["study"], value["n_rows"], value["saved_rows"]) == ("small", N_ROWS, 18)
    assert [c["label"] for c in value["cells"]] == [c.label for c in Study.from_yaml(path).cells()]
    assert value["collapsed"] == [{"dropped": "greedy k=50", "kept": "greedy"}]
    assert workbench("run", path, "--dry-run", "--json", "--limit", 1).json["n_rows"] == N_ROWS / 6
    assert sorted(tmp_path.rglob("*")) == before


def test_settings_of_the_engine_are_replaced(workbench: Command, tmp_path: Path) -> None:
    """``--engine`` takes the place of the study's; a wrong one is wrong usage."""
    path = study_file(tmp_path, engine={"kind": "local"}, model="no/such-model")
    done = workbench("run", path, "--engine", "scripted", "--device", "cpu", "--json", "-q")
    assert done.code == 0
    assert api.open_run("latest").manifest["engine"]["engine"] == "scripted"
    for option, value, problem in (
        ("--engine", "x", "engine.kind: must be one of local, scripted, got 'x'"),
        ("--device", "tpu", "engine.device: must be auto, cpu, cuda or cuda:N, got 'tpu'"),
    ):
        done = workbench("run", path, option, value)
        assert (done.code, done.out) == (2, "")
        assert f"Invalid value: {problem}" in done.err


def test_checkpoint_defaults(workbench: Command, tmp_path: Path) -> None:
    """A study with the checkpoint's own settings can be checked and run: the model is asked for them."""
    path = study_file(tmp_path, defaults="checkpoint")
    assert workbench("validate", path).code == 0
    assert workbench("run", path, "--dry-run", "--json").json["n_rows"] == N_ROWS
    assert workbench("run", path, "--quiet").code == 0


# Errors


def test_files_that_are_no_studies(workbench: Command, tmp_path: Path) -> None:
    """A missing file, a directory and a binary file each get one line; run and validate agree."""
    (tmp_path / "binary").write_bytes(b"\x7fELF\x02\x01\xff\xfe\x00")
    (tmp_path / "list.yaml").write_text("- a\n", encoding="utf-8")
    (tmp_path / "empty.yaml").write_text("", encoding="utf-8")
    for name, problem in {
        "missing.yaml": "cannot be read (No such file or directory)",
        ".": "cannot be read (Is a directory)",
        "binary": "not UTF-8 text (byte 6)",
        "list.yaml": "line 1: a study is a mapping of fields, got ['a']",
        "empty.yaml": "the file is empty",
    }.items():
        assert one_line(workbench("run", name)).startswith(f"{name}: {problem}")
        assert one_line(workbench("validate", name)) == one_line(workbench("run", name))


def test_every_problem_of_a_study_is_listed(workbench: Command, tmp_path: Path) -> None:
    """With its line, whether it is in the study, in a scorer or in a prompt."""
    (tmp_path / "bad.yaml").write_text(
        "name: a b\nprompts: nope.jsonl\ngrid:\n  temprature: [0]\n  top_k: 3\n", encoding="utf-8"
    )
    done = workbench("validate", "bad.yaml")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "workbench: bad.yaml: 4 problems\n"
        "  - line 1: name: must be letters, digits, '.', '_' and '-', starting with a letter or digit, got 'a b'\n"
        f"  - line 2: prompts: nope.jsonl: no such file (looked in {tmp_path})\n"
        "  - line 4: grid: unknown setting 'temprature', did you mean 'temperature'?\n"
        "  - line 5: grid.top_k: must be a list of values, got 3\n"
    )
    study_file(
        tmp_path, name="bad", prompts="bad.jsonl", scorers=["numerc", {"contains": {"x": 1}}]
    )
    (tmp_path / "bad.jsonl").write_text('{"id": "a"}\n{"id": "b", "prompt": ""}\n', "utf-8")
    done = workbench("validate", "bad.yaml")
    line = 1 + (tmp_path / "bad.yaml").read_text(encoding="utf-8").splitlines().index("- numerc")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "workbench: bad.yaml: 4 problems\n"
        f"  - line {line}: scorers[0]: unknown scorer 'numerc', did you mean 'numeric'?\n"
        f"  - line {line + 1}: scorers[1]: scorer contains: unknown option 'x'; known: mode, forbid, ignore_case, words, compounds, settled, echo\n"
        "  - bad.jsonl:1: needs exactly one of messages, prompt, input; has none of them\n"
        "  - bad.jsonl:2: the prompt is empty\n"
    )
    for arguments in (["run", "bad.yaml"], ["run", "bad.yaml", "--dry-run"]):
        assert workbench(*arguments).err == done.err


def test_a_good_study_is_described(workbench: Command, tmp_path: Path) -> None:
    """Validate returns 0 and says what would run; as JSON too."""
    path = study_file(tmp_path)
    done = workbench("validate", path)
    assert (done.code, done.out) == (0, Study.from_yaml(path).plan().describe() + "\n")
    assert workbench("validate", path, "--json").json["n_rows"] == N_ROWS


def test_unknown_runs_and_cells(workbench: Command, tmp_path: Path) -> None:
    """One line that says what there is."""
    assert one_line(workbench("summary", "latest")) == (
        "no run 'latest': there are no runs under results"
    )
    workbench("run", study_file(tmp_path), "--no-latency")
    run = api.open_run("latest")
    cells = "greedy, T=0.7 k=10, T=0.7 k=50, T=1.3 k=10, T=1.3 k=50"
    assert one_line(workbench("latency", "x")) == (
        "no run 'x'; give a run directory or id, or 'latest' for the newest of 1 under results"
    )
    for arguments in (("summary", run.id, "--baseline", "x"), ("latency", run.path, "--cell", "x")):
        assert one_line(workbench(*arguments)) == f"{run.path}: no cell 'x'; cells: {cells}"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (EngineError("the machine sleeps"), "the machine sleeps"),
        (ZeroDivisionError("oh"), "ZeroDivisionError: oh (--debug shows where)"),
        (PermissionError(13, "Permission denied"), "PermissionError: [Errno 13] Permission denied"),
    ],
)
def test_errors_are_one_line(
    workbench: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    line: str,
) -> None:
    """Errors made on purpose and bugs alike; ``--debug`` before or after the command shows the traceback."""
    monkeypatch.setattr(api, "engine_for", lambda *_, **__: Stopping(ScriptedEngine(), error, 5))
    path = study_file(tmp_path)
    assert one_line(workbench("run", path, "--quiet")).startswith(line)
    for arguments in (("--debug", "run", path), ("run", path, "--debug")):
        monkeypatch.setattr(sys, "argv", ["workbench", *map(str, arguments)])
        with pytest.raises(type(error)):
            cli.main()
    monkeypatch.setattr(sys, "argv", ["workbench", "run", str(path)])
    monkeypatch.setenv("WORKBENCH_DEBUG", "1")
    with pytest.raises(type(error)):
        cli.main()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["run"],
        ["run", "a.yaml", "--nope"],
        ["run", "a.yaml", "--limit", "0"],
        ["run", "a.yaml", "--limit", "many"],
        ["latency", "latest", "--rounds", "0"],
        ["summary", "a", "b"],
        [],
    ],
)
def test_wrong_usage_returns_2(workbench: Command, arguments: list[str]) -> None:
    """Unknown commands and options, missing and impossible values; the usage is shown."""
    done = workbench(*arguments)
    assert done.code == 2
    assert "Usage: workbench " in done.out + done.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(workbench: Command, command: str) -> None:
    """``--help`` has an example and ``--json``, within 80 columns; the overview names the command in one sentence."""
    done = workbench(command, "--help")
    assert done.code == 0
    assert f"Example: workbench {command}" in done.out
    assert "--json" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    overview = workbench("--help").out
    assert re.search(rf"^  {command} +[A-Z][^.]+\.$", overview, re.MULTILINE)
    named = re.findall(r"^  (\w+) {2,}[A-Z]", overview, re.MULTILINE)
    assert set(COMMANDS) <= set(named)
    assert named == sorted(named, key=ORDER.index)


# The others


def test_summary_against_another_baseline(workbench: Command, tmp_path: Path) -> None:
    """The named cell becomes the baseline."""
    workbench("run", study_file(tmp_path), "--no-latency")
    done = workbench("summary", "latest", "--baseline", "T=1.3 k=50")
    assert done.code == 0
    (line,) = [text for text in done.out.splitlines() if "] " in text and " baseline " in text]
    assert line.split()[:2] == ["T=1.3", "k=50"]


def test_ls(workbench: Command, tmp_path: Path) -> None:
    """All runs, in a table and as JSON; other folders are left out; no runs is no error."""
    assert workbench("ls").out == "no runs under results\n"
    assert workbench("ls", "--json").json == []
    for name in ("one", "two"):
        workbench("run", study_file(tmp_path, name=name), "--no-latency")
    (tmp_path / "results" / "other").mkdir()
    done = workbench("ls")
    runs = [path.name for path, _ in api.all_runs()]
    assert [line.split()[1] for line in done.out.splitlines()[1:]] == runs
    value = workbench("ls", "--json").json
    assert [entry["run_id"] for entry in value] == runs
    assert [entry["status"] for entry in value] == ["finished", "finished"]
    assert workbench("ls", "--out", tmp_path / "none").out == f"no runs under {tmp_path}/none\n"


def test_latency_of_one_cell(workbench: Command, tmp_path: Path) -> None:
    """More timings of one cell are added, and table and picture written anew."""
    workbench("run", study_file(tmp_path), "--no-latency")
    run = api.open_run("latest")
    done = workbench("latency", "latest", "--cell", "greedy", "--rounds", 2, "--prompts", 3)
    assert done.code == 0
    assert f"{run.path}: 6 requests timed; " in done.err
    assert "6 of 6 rows token-identical (100.0%)" in done.err
    assert set(api.Run(run.path).latency["cell_id"]) == {run.cell_id("greedy")}
    assert (run.path / api.PLOT).is_file()


def test_doctor(workbench: Command) -> None:
    """What it finds, as text and as JSON."""
    value = workbench("doctor", "--json").json
    assert value["devices"]
    done = workbench("doctor")
    assert done.code == 0
    assert value["python"] in done.out


def test_demo(workbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs the demo study like any other."""
    study = Study.from_yaml(study_file(tmp_path))
    monkeypatch.setattr(demo, "study", lambda: study)
    done = workbench("demo", "--json", "--quiet", "--out", "here")
    assert (done.code, done.err) == (0, "")
    assert len(done.json["cells"]) == N_CELLS
    assert workbench("demo", "--json", "--quiet", "--out", "here").json == done.json
    assert Path(done.json["run"]).parent == Path("here/small")


# Interrupts


@pytest.mark.parametrize("where", ["answers", "streams"])
def test_ctrl_c_returns_130(
    workbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """While answering or timing: it says how to go on, and prints no result."""
    engine = Stopping(ScriptedEngine(), KeyboardInterrupt(), **{where: 5})
    monkeypatch.setattr(api, "engine_for", lambda *_, **__: engine)
    done = workbench("run", study_file(tmp_path))
    assert (done.code, done.out) == (130, "")
    assert done.err.count(WAY_ON) == 1
    assert "Traceback" not in done.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    again = workbench("run", "small.yaml")
    assert again.code == 0
    run = api.open_run("latest")
    assert (run.manifest["status"], len(api.all_runs())) == ("finished", 1)
    assert (len(run.generations), (run.latency["warm"] == 1).sum()) == (N_ROWS, N_TIMED)


def test_ctrl_c_elsewhere_returns_130(
    workbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the model is loading, say: one line, no traceback."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "engine_for", interrupt)
    done = workbench("run", study_file(tmp_path))
    assert (done.code, done.out) == (130, "")
    assert done.err == f"workbench: interrupted; {WAY_ON}\n"


def test_ctrl_c_in_a_latency_pass_returns_130(
    workbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More timings can be broken off; the run stays finished."""
    workbench("run", study_file(tmp_path), "--no-latency")
    engine = Stopping(ScriptedEngine(), KeyboardInterrupt(), streams=5)
    monkeypatch.setattr(api, "engine_for", lambda *_, **__: engine)
    done = workbench("latency", "latest")
    assert (done.code, done.out, engine.closed) == (130, "", 1)
    assert done.err.count(WAY_ON) == 1
    run = api.open_run("latest")
    assert (run.manifest["status"], (run.latency["warm"] == 1).sum()) == ("finished", 3)


def committed(results: Path) -> int:
    """Rows committed so far in the one run under a directory."""
    for database in results.glob("*/*/run.sqlite"):
        with (
            contextlib.suppress(sqlite3.OperationalError),  # it is being made
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db,
        ):
            return int(db.execute("SELECT count(*) FROM generations").fetchone()[0])
    return 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """Tokens by key of the long study, run without a break."""
    folder = tmp_path_factory.mktemp("whole")
    run = api.run(study_file(folder, **LONG), out=folder, progress=False, say=lambda _: None)
    return tokens(run)


def tokens(run: api.Run) -> Tokens:
    """Tokens by key; every row occurs once."""
    frame = run.generations[["cell_id", "prompt_id", "repeat", "token_ids"]]
    found = {tuple(row[:3]): tuple(row[3]) for row in frame.itertuples(index=False)}
    assert len(found) == len(frame)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_broken_off_process_goes_on(
    tmp_path: Path, whole: Tokens, number: signal.Signals
) -> None:
    """A real run is interrupted or killed midway; the same command finishes it with every row once and the same tokens."""
    path = study_file(tmp_path, **LONG)
    child = process("run", path, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while committed(tmp_path / "results") == 0 and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert out == ""
    assert "Traceback" not in err
    run = api.open_run("latest", tmp_path / "results")
    n_before = len(tokens(run))
    assert 0 < n_before < len(whole)
    where = run.path.relative_to(tmp_path)
    if number == signal.SIGINT:
        assert child.returncode == 130
        assert err.endswith(
            f"{where}: interrupted with {n_before:,} of {len(whole):,} rows done; {WAY_ON}\n"
        )
    else:
        assert child.returncode == -9
        assert run.manifest["status"] == "running"
    again = process("run", path, "--json", cwd=tmp_path)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0
    assert json.loads(out)["status"] == "finished"
    assert f"{where}: continuing, {n_before:,} of {len(whole):,} rows done\n" in err
    assert tokens(api.Run(run.path)) == whole
    assert len(api.all_runs(tmp_path / "results")) == 1


# The installed command


def test_help_is_light() -> None:
    """``workbench --help`` loads none of the heavy libraries."""
    code = (
        "import sys\n"
        "from workbench.cli import main\n"
        "sys.argv = ['workbench', '--help']\n"
        "try:\n    main()\n"
        "finally:\n    print(*sorted(m for m in sys.modules if '.' not in m), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    modules = set(done.stderr.split())
    assert "typer" in modules
    heavy = {"torch", "transformers", "pandas", "numpy", "matplotlib", "pyarrow", "scipy", "yaml"}
    assert not heavy & modules


def test_the_installed_command(tmp_path: Path) -> None:
    """It runs, keeps standard output for the result, and does without a terminal; errors set the exit code."""
    child = process("run", study_file(tmp_path), "--json", "--limit", 1, cwd=tmp_path)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert json.loads(out)["cells"][0]["n_prompts"] == 1
    child = process("validate", "nope.yaml", cwd=tmp_path)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (1, "")
    assert err == "workbench: nope.yaml: cannot be read (No such file or directory)\n"


def test_the_number_of_prompts_is_what_the_tests_say(tmp_path: Path) -> None:
    """The small study is as large as its constants claim."""
    plan = Study.from_yaml(study_file(tmp_path)).plan()
    assert (len(plan.prompt_set), len(plan.cells), plan.n_rows) == (N_PROMPTS, N_CELLS, N_ROWS)
