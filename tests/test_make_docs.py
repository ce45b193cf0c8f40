"""The generated pages: up to date, complete, and every command's example is one that could be typed."""

from __future__ import annotations

import dataclasses
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer
import yaml
from docpages import ROOT
from test_scripts import script

from workbench.cli import app
from workbench.cli.base import ORDER, Exit
from workbench.scorers import FAMILIES, asserts
from workbench.scorers.checks import CHECKS
from workbench.studyfields import STUDY_FIELDS

if TYPE_CHECKING:
    from pathlib import Path

GROUP: Any = typer.main.get_command(app)


@pytest.fixture(scope="module")
def make_docs() -> Any:
    """The script."""
    return script(ROOT, "make_docs")


def page(name: str) -> str:
    """A page."""
    return (ROOT / "docs" / name).read_text("utf-8")


def parts(text: str) -> dict[str, str]:
    """The sections of a page by heading."""
    found = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_pages_are_up_to_date(make_docs: Any) -> None:
    """What is in the repository is what the script makes; if not: python scripts/make_docs.py."""
    assert make_docs.stale() == []
    assert make_docs.main(["--check"]) == 0


def test_a_stale_page_is_found_and_mended(
    make_docs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A missing page, an old one, and a table changed by hand; the words around the tables stay as they are."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "commands.md").write_text(page("commands.md"), encoding="utf-8")
    text = page("scorers.md").replace("| `tolerance` | `0.0` |", "| `tolerance` | `0.1` |")
    text = text.replace("# Scorers\n", "# My scorers\n")
    (tmp_path / "docs" / "scorers.md").write_text(text, encoding="utf-8")
    assert make_docs.stale(tmp_path) == ["docs/study-file.md", "docs/scorers.md"]
    assert (tmp_path / "docs" / "scorers.md").read_text("utf-8") == text
    monkeypatch.setattr(
        make_docs, "stale", lambda write, stale=make_docs.stale: stale(tmp_path, write=write)
    )
    assert make_docs.main(["--check"]) == 1
    assert capsys.readouterr().out == (
        "docs/study-file.md: not up to date; run python scripts/make_docs.py\n"
        "docs/scorers.md: not up to date; run python scripts/make_docs.py\n"
    )
    assert make_docs.main([]) == 0
    assert capsys.readouterr().out == "docs/study-file.md: written\ndocs/scorers.md: written\n"
    assert make_docs.main(["--check"]) == 0
    mended = (tmp_path / "docs" / "scorers.md").read_text("utf-8")
    assert mended == page("scorers.md").replace("# Scorers\n", "# My scorers\n")


def test_wrong_use(make_docs: Any, capsys: Any) -> None:
    """Anything but --check is refused."""
    assert make_docs.main(["--chek"]) == 2
    assert capsys.readouterr().err == "usage: make_docs.py [--check]\n"


def test_every_field_is_on_its_page() -> None:
    """In the table, and in a section if it has several forms or keys."""
    text = page("study-file.md")
    for record in STUDY_FIELDS:
        row, *_ = re.findall(
            rf"^\| (?:\[`{record.name}`\]\(#\w+\)|`{record.name}`) \|.*$", text, re.MULTILINE
        )
        assert record.meaning in row
        for form in record.forms:
            example = f"```yaml fragment\n{form.example}```"
            assert example in text or form.example.splitlines()[0] in row


def test_every_command_is_on_its_page() -> None:
    """In order, with each of its arguments and options, and every exit code."""
    text = page("commands.md")
    sections = parts(text)
    assert list(sections) == list(ORDER)
    assert set(ORDER) == set(GROUP.commands)
    for name, command in GROUP.commands.items():
        for parameter in command.params:
            for option in parameter.opts + parameter.secondary_opts:
                if option.startswith("-") and not parameter.hidden:
                    assert re.search(rf"`[^`]*{option}\b[^`]*`", sections[name]), (name, option)
        assert " ".join(command.help.split("\n\n")[0].split()) in sections[name]
    for code in Exit:
        assert f"| {int(code)} |" in text


@pytest.mark.parametrize("name", ORDER)
def test_every_example_could_be_typed(make_docs: Any, name: str) -> None:
    """The help ends in one example of this very command, and its arguments and options are real."""
    command = GROUP.commands[name]
    words = shlex.split(make_docs.split_help(command)[1])
    assert words[:2] == ["workbench", name]
    command.make_context(name, words[2:])
    assert f"```sh no-run\n{make_docs.split_help(command)[1]}\n```" in page("commands.md")


def test_the_check_of_examples_can_fail() -> None:
    """An option that is gone, and an argument that is missing, are refused."""
    for words in (["latest", "--roundz", "8"], []):
        with pytest.raises(Exception, match=r"No such option|Missing"):
            GROUP.commands["latency"].make_context("latency", list(words))


def test_every_scorer_is_on_its_page() -> None:
    """With all its options, and cases that show a right, and a wrong or halfway right answer."""
    text = page("scorers.md")
    sections = parts(text)
    assert set(FAMILIES) <= set(sections)
    cases = yaml.safe_load((ROOT / "docs" / "examples" / "scorers.yaml").read_text("utf-8"))
    # What a model says of an answer is shown by no table.
    alone = {name for name, cls in FAMILIES.items() if not getattr(cls, "needs_engine", False)}
    assert set(cases) == alone
    for name, cls in FAMILIES.items():
        assert f"[`{name}`](#{name})" in text
        for option in dataclasses.fields(cls):
            assert f"| `{option.name}` |" in sections[name], (name, option.name)
        if name not in alone:
            continue
        judged = sections[name].partition(" | because |")[2]
        values = re.findall(r"\| (none|[01](?:\.\d+)?) \| [^|]+ \|$", judged, re.MULTILINE)
        scores = {float(v) for v in values if v != "none"}
        assert len(values) == len(cases[name])
        assert len(scores) > 1, name


def test_every_check_and_assertion_is_on_the_page() -> None:
    """Those of the instruction scorer and those that come from promptfoo."""
    sections = parts(page("scorers.md"))
    for name in CHECKS:
        limit, _, kind = name.partition("_")
        shown = [name] if limit not in ("min", "max", "exact") else [f"{limit}_", kind]
        assert all(f"`{part}`" in sections["instruction"] for part in shown), name
    for name in asserts.TYPES:
        assert f"`{name.removeprefix('i') if 'contains' in name else name}`" in sections["asserts"]
