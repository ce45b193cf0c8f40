"""What the documentation says can be done can be done: code runs, studies are valid, commands and links exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from workbench import __all__ as public_names
from workbench.cli import app
from workbench.scorers import get_scorer
from workbench.study import Study

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "datasets").glob("*.md")]
)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
COMMAND = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def blocks(markdown: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)


def code(markdown: str) -> list[str]:
    """Lines of shell blocks without comments, and inline code."""
    lines = [
        line for block in blocks(markdown, "(?:sh|bash|console)") for line in block.splitlines()
    ]
    prose = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"(^|\s)#.*", "", line) for line in lines] + re.findall(r"`([^`\n]+)`", prose)


def calls(markdown: str, program: str) -> list[list[str]]:
    """The arguments of each call of a program in the code of a text."""
    found = []
    for line in code(markdown):
        for part in re.split(r"&&|\|\||[;|]", line):
            words = part.split()
            words = words[1:] if words[:1] == ["$"] else words
            if words and words[0].rpartition("/")[2] == program and len(words) > 1:
                found.append(words[1:])
    return found


def wrong_calls(markdown: str) -> list[str]:
    """Calls of ``workbench`` with a command or an option that does not exist."""
    wrong = []
    for words in calls(markdown, "workbench"):
        command = COMMAND.commands.get(words[0])  # type: ignore[attr-defined]
        options = COMMAND.params if command is None else command.params
        known = {"--help", "-h", "--debug"} | {
            name for p in options for name in p.opts + p.secondary_opts
        }
        if command is None and not words[0].startswith("-"):
            wrong.append(" ".join(words))
        elif unknown := [w for w in words if w.startswith("-") and w.split("=")[0] not in known]:
            wrong.append(f"{words[0]}: {' '.join(unknown)}")
    return wrong


def wrong_targets(markdown: str) -> list[str]:
    """Calls of ``make`` with a target that does not exist."""
    words = [word for call in calls(markdown, "make") for word in call]
    return [w for w in words if re.fullmatch(r"[a-z][\w-]*", w) and w not in TARGETS]


def dead_links(page: Path) -> list[str]:
    """Relative links and pictures of a page that lead nowhere."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(\s*<?([^)>\s]+)", text) + re.findall(
        r"\b(?:src|href)=\"([^\"]+)\"", text
    )
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    return [link for link in local if not target_exists(page, link)]


def target_exists(page: Path, link: str) -> bool:
    """Whether a relative link leads to a file, and to a heading if it names one."""
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target)


def anchors(page: Path) -> set[str]:
    """The names under which the headings of a page can be linked."""
    titles = re.findall(r"^#+ +(.+?) *$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with the data sets, as in a clone."""
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    return tmp_path


@pytest.mark.model
@pytest.mark.parametrize("n", range(len(blocks((ROOT / "README.md").read_text("utf-8"), "python"))))
def test_python_of_the_readme_runs(folder: Path, n: int) -> None:
    """Each block runs as it is written, in a process of its own."""
    block = blocks((ROOT / "README.md").read_text("utf-8"), "python")[n]
    (folder / "example.py").write_text(block, encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip()
    for name in re.findall(r"savefig\(\"(.+?)\"\)", block):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    if 'out="results"' in block:
        (run,) = (folder / "results").glob("*/*/summary.csv")
        assert run.stat().st_size > 0


def test_the_readme_has_an_example_of_20_lines() -> None:
    """One Python block, short enough to read, that uses public names only."""
    (block,) = blocks((ROOT / "README.md").read_text("utf-8"), "python")
    assert 10 <= len([line for line in block.splitlines() if line.strip()]) <= 20
    assert set(re.findall(r"\bwb\.(\w+)", block)) <= set(public_names)


@pytest.mark.parametrize("name", NAMES)
def test_studies_in_the_docs_are_valid(folder: Path, name: str) -> None:
    """Every YAML block is a study that can be run from the repository."""
    for n, block in enumerate(blocks((ROOT / name).read_text("utf-8"), "ya?ml")):
        path = folder / f"study-{n}.yaml"
        path.write_text(block, encoding="utf-8")
        study = Study.from_yaml(path)
        assert study.plan().n_rows > 0
        assert [get_scorer(scorer).name for scorer in study.scorers]


@pytest.mark.parametrize("name", NAMES)
def test_commands_in_the_docs_exist(name: str) -> None:
    """Every ``workbench X`` with its options, and every ``make X``."""
    text = (ROOT / name).read_text("utf-8")
    assert wrong_calls(text) == []
    assert wrong_targets(text) == []


@pytest.mark.parametrize("name", NAMES)
def test_links_in_the_docs_lead_somewhere(name: str) -> None:
    """Every relative link and picture is a file of the project."""
    assert dead_links(ROOT / name) == []


def test_the_readme_names_every_command() -> None:
    """The README's calls cover all commands, but ``demo``, which it shows as ``make demo``."""
    text = (ROOT / "README.md").read_text("utf-8")
    shown = {words[0] for words in calls(text, "workbench")}
    assert shown | {"demo"} == set(COMMAND.commands)  # type: ignore[attr-defined]


def test_what_the_checks_would_miss(tmp_path: Path) -> None:
    """Commands, options, targets and links that do not exist are found; those that do are not."""
    text = (
        "Run `workbench sumary latest` and `workbench run x --nope`, `make nothing`.\n"
        "```sh\nworkbench run x.yaml --limit 3 # and --this\nmake demo && make nil ARGS='-x'\n"
        "$ .venv/bin/workbench fly\n```\n"
        "[a](here.md), ![b](there.png) [c](here.md#one-two) [d](here.md#three) [e](https://x.y/z)\n"
    )
    assert wrong_calls(text) == ["fly", "sumary latest", "run: --nope"]
    assert wrong_targets(text) == ["nil", "nothing"]
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    (tmp_path / "here.md").write_text("# One `two`\n", encoding="utf-8")
    assert dead_links(page) == ["there.png", "here.md#three"]
    assert blocks("```yaml\na: 1\n```\n```yml\nb\n```\n", "ya?ml") == ["a: 1\n", "b\n"]
