"""Scorers in a Python file, named in a study."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from studies import study_file

from workbench import api
from workbench.errors import ScorerError
from workbench.prompts import Prompt
from workbench.scorers import get_scorer

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = "def long(text, prompt):\n    return len(text) > 3\n"
DECORATED = "import workbench as wb\n\n@wb.scorer(version='3')\ndef long(text, prompt):\n    return len(text) > 3\n"
PROMPT = Prompt("a", ({"role": "user", "content": "Hi"},))


def scored(folder: Path, code: str) -> tuple[str, str, float | None]:
    """Name, version and the score of "hello"."""
    (folder / "mine.py").write_text(code, encoding="utf-8")
    made = get_scorer("mine.py:long", folder)
    return made.name, made.version, made.score("hello", PROMPT).value


def test_a_plain_function_and_a_decorated_one(tmp_path: Path) -> None:
    """Both judge; the version starts with the declared one and ends with the file's hash."""
    name, version, value = scored(tmp_path, PLAIN)
    assert (name, version[:2], value) == ("long", "1.", 1.0)
    name, other, value = scored(tmp_path, DECORATED)
    assert (name, other[:2], value) == ("long", "3.", 1.0)
    assert version[2:] != other[2:]


def test_an_edit_is_another_version(tmp_path: Path) -> None:
    """The same file gives the same version, an edited one another."""
    first = scored(tmp_path, PLAIN)
    assert scored(tmp_path, PLAIN) == first
    assert scored(tmp_path, PLAIN.replace("3", "9"))[1:] != first[1:]


def test_a_study_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found beside the study file, whatever the current directory, and judges the run."""
    (tmp_path / "mine.py").write_text(PLAIN, encoding="utf-8")
    path = study_file(tmp_path, scorers=["mine.py:long", "numeric"], latency=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = api.run(path, out=tmp_path / "results", progress=False, say=lambda _: None)
    assert run.primary == "long"
    assert set(run.scores["scorer"]) == {"long", "numeric"}
    assert run.summary()["quality"].notna().all()


def test_ordinary_files_work(tmp_path: Path) -> None:
    """Dataclasses, postponed annotations and modules from the same folder are fine; the path is left as it was."""
    (tmp_path / "helping.py").write_text("LEAST = 3\n", encoding="utf-8")
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom helping import LEAST\n\n"
        "@dataclass\nclass Rule:\n    least: int = LEAST\n\n"
        "def long(text, prompt):\n    return len(text) > Rule().least\n"
    )
    before = list(sys.path)
    assert scored(tmp_path, code)[2] == 1.0
    assert sys.path == before


def test_a_file_that_exits_is_an_error(tmp_path: Path) -> None:
    """A script that ends the process does not end the run without a word."""
    with pytest.raises(ScorerError, match=r"mine\.py cannot be run: SystemExit: 0"):
        scored(tmp_path, "import sys\nsys.exit(0)\n")


def test_scoring_finds_the_file_beside_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study's folder is in the record, so its scorers judge again from any place."""
    (tmp_path / "mine.py").write_text(PLAIN, encoding="utf-8")
    path = study_file(tmp_path, scorers=["mine.py:long"], latency=False)
    run = api.run(path, out=tmp_path / "results", progress=False, say=lambda _: None)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(api.score(run, run.study.scorers, progress=False).scores) == len(run.scores)


def test_a_changed_function_is_said(tmp_path: Path) -> None:
    """A finished run is not judged again by itself; a note says that its scorer has changed."""
    told: list[str] = []
    for code in (PLAIN, PLAIN.replace("3", "9")):
        (tmp_path / "mine.py").write_text(code, encoding="utf-8")
        path = study_file(tmp_path, scorers=["mine.py:long"], latency=False)
        run = api.run(path, out=tmp_path / "results", progress=False, say=told.append)
    assert len(api.all_runs(tmp_path / "results")) == 1
    assert told[-1].startswith(f"{run.path}: scorer long was version 1.")
    assert told[-1].endswith("now; `workbench score` judges the answers again")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nope.py:long", "scorer nope.py: no such file (looked in {folder} and {cwd})"),
        ("mine.py:short", "scorer mine.py:short: no function 'short' in {folder}/mine.py"),
        ("mine.py", "a scorer in a file is FILE.py:FUNCTION, got 'mine.py'"),
        ("mine.py:", "a scorer in a file is FILE.py:FUNCTION, got 'mine.py:'"),
        (
            "broken.py:long",
            "scorer file {folder}/broken.py cannot be run: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, spec: str, said: str) -> None:
    """One sentence says what is missing and where it was looked for."""
    from pathlib import Path as Here

    (tmp_path / "mine.py").write_text(PLAIN, encoding="utf-8")
    (tmp_path / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(ScorerError) as caught:
        get_scorer(spec, tmp_path)
    assert str(caught.value) == said.format(folder=tmp_path.resolve(), cwd=Here.cwd())


def test_options_are_refused(tmp_path: Path) -> None:
    """A function takes no options."""
    (tmp_path / "mine.py").write_text(PLAIN, encoding="utf-8")
    with pytest.raises(ScorerError, match="it takes no options"):
        get_scorer({"mine.py:long": {"x": 1}}, tmp_path)
