"""Pages of documentation as programs: their code blocks, and running them in order as a reader would.

The word after the opening fence is the language, what follows are marks (a web page shows neither):

* ``sh``: every ``workbench`` command is run in the page's folder and must return 0, or what ``exit=N`` says. ``cp``,
  ``mkdir``, ``cat`` and ``head`` are run too, of ``make`` only the target is looked up. ``no-run`` is for what changes the
  reader's machine.
* ``python``: run in order, all blocks of a page with the same names. ``notebook``: run in the folder ``notebooks``.
* ``yaml``: a study, checked whole. ``fragment``: some of a study's fields. ``prompts``: a prompt file.
* ``csv``, ``jsonl``, ``json``, ``toml``: data.
* ``text``: what one sees. ``output``: every line must be in what the block before printed; numbers, run ids and white space
  may differ, and ``...`` stands for anything.

``file=NAME`` on any of them (but ``sh`` and ``text``) writes the block to that file; Python is then not run.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from workbench import cli
from workbench.prompts import PromptSet
from workbench.scorers import get_scorer
from workbench.study import Study

ROOT = Path(__file__).resolve().parent.parent
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
RUN_AS_THEY_ARE = ("cp", "mkdir", "cat", "head")
MARKS = {
    "sh": ("no-run", "exit"),
    "python": ("file", "notebook"),
    "yaml": ("file", "fragment", "prompts"),
    "csv": ("file",),
    "jsonl": ("file",),
    "json": ("file",),
    "toml": ("file",),
    "text": ("output",),
}
"""Languages of blocks, and the marks each may have."""


class PageError(AssertionError):
    """A page says something that is not so; says where."""


@dataclass(frozen=True)
class Block:
    """One code block of a page.

    Attributes:
        where: Page and line of its first line.
        language: The word after the fence.
        marks: What follows it; a mark without a value is "".
        text: What is in it.
        before: The text above it, up to the block before.
    """

    where: str
    language: str
    marks: dict[str, str]
    text: str
    before: str


def blocks(markdown: str, page: str = "page") -> list[Block]:
    """The code blocks of a page.

    Raises:
        PageError: A block without end, or with a language or mark that is not known.
    """
    found, prose, inside = [], "", None
    for number, line in enumerate(markdown.splitlines(keepends=True), 1):
        if inside is None and (opened := re.fullmatch(r" *```(.*)\n?", line)):
            if line.startswith(" "):
                raise PageError(f"{page}:{number}: an indented block is not checked")
            inside = (number + 1, opened[1].split(), prose, [])
        elif inside is not None and line.rstrip() == "```":
            found.append(_block(page, *inside))
            inside, prose = None, ""
        elif inside is not None:
            inside[3].append(line)
        else:
            prose += line
    if inside is not None:
        raise PageError(f"{page}:{inside[0] - 1}: a block without end")
    return found


def _block(page: str, line: int, words: list[str], before: str, lines: list[str]) -> Block:
    where = f"{page}:{line}"
    language = words[0] if words else ""
    marks = {name: value for name, _, value in (word.partition("=") for word in words[1:])}
    if language not in MARKS:
        raise PageError(f"{where}: language must be one of {', '.join(MARKS)}, got {language!r}")
    unknown = [mark for mark in marks if mark not in MARKS[language]]
    if unknown:
        raise PageError(f"{where}: {language} has no mark {', '.join(unknown)}")
    if "file" in marks and f"`{marks['file']}`" not in before:
        raise PageError(f"{where}: the text above does not name the file {marks['file']}")
    return Block(where, language, marks, "".join(lines), before)


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def call(arguments: list[str]) -> tuple[int, str]:
    """Run a ``workbench`` command in this process: what it returned, and all it printed."""
    printed, code = io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["workbench", *arguments]),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, printed.getvalue()


def shape(text: str) -> str:
    """A text without what changes from run to run: numbers, run ids, widths of columns."""
    text = re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{6}(-\d+)?", "RUN", text)
    text = re.sub(r"\b[0-9a-f]{10}\b", "ID", text)
    text = re.sub(r"[-+]?\d+(?:[.,]\d+)*", "0", text)
    return " ".join(text.split())


def missing(shown: str, printed: str) -> list[str]:
    """Lines of a ``text output`` block that were not printed."""
    whole = shape(printed)
    out = []
    for line in shown.splitlines():
        parts = line.removeprefix("*  ").split("...")  # whether a cell is on the front changes too
        pattern = ".*?".join(re.escape(shape(part)) for part in parts)
        if not re.search(pattern, whole):
            out.append(line)
    return out


@dataclass
class Reader:
    """Does what a page says, in a folder like a fresh clone.

    Attributes:
        folder: An empty folder; see ``prepare``.
        names: What the page's Python has defined so far.
        printed: What the last block that ran printed.
    """

    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    printed: str = ""

    def prepare(self) -> None:
        """Make the folder look like a clone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("datasets", "docs", "scripts"):
            (self.folder / name).symlink_to(ROOT / name)
        (self.folder / "notebooks").mkdir()
        own_files(self.folder)

    def read(self, page: str, markdown: str) -> None:
        """Do all of a page.

        Raises:
            PageError: Something does not work as the page says.
        """
        for block in blocks(markdown, page):
            with contextlib.chdir(self.folder):
                getattr(self, f"do_{block.language}", self.do_data)(block)

    def do_sh(self, block: Block) -> None:
        """Run the commands."""
        printed = ""
        for words in commands(block):
            program, arguments = words[0].rpartition("/")[2], words[1:]
            wrong = [w for w in arguments if w in ("|", ">", "&&", ";", "<")]
            if program == "make":
                absent = [a for a in arguments if "=" not in a and a not in TARGETS]
                if absent:
                    raise PageError(f"{block.where}: make has no target {', '.join(absent)}")
            elif "no-run" in block.marks:
                continue
            elif wrong:
                raise PageError(f"{block.where}: a page's commands are simple; got {wrong[0]}")
            elif program == "workbench":
                printed += self.command(block, arguments)
            elif program in RUN_AS_THEY_ARE:
                done = subprocess.run(words, check=False, capture_output=True, text=True)
                if done.returncode:
                    raise PageError(f"{block.where}: {' '.join(words)}: {done.stderr}")
                printed += done.stdout
            else:
                raise PageError(f"{block.where}: {program} is not run here; mark the block no-run")
        self.printed = printed

    @staticmethod
    def command(block: Block, arguments: list[str]) -> str:
        """Run a ``workbench`` command and return what it printed."""
        code, printed = call(arguments)
        wanted = int(block.marks.get("exit", 0))
        if code != wanted:
            said = f"returned {code}, not {wanted}"
            raise PageError(f"{block.where}: workbench {' '.join(arguments)}: {said}\n{printed}")
        return printed

    def do_python(self, block: Block) -> None:
        """Run it, or write it to its file."""
        if "file" in block.marks:
            compile(block.text, block.where, "exec")
            self.do_data(block)
            return
        printed = io.StringIO()
        place = "notebooks" if "notebook" in block.marks else "."
        with (
            contextlib.redirect_stdout(printed),
            contextlib.chdir(place),
            mock.patch.object(sys, "path", [str(Path.cwd()), *sys.path]),  # as in a notebook
        ):
            try:
                exec(compile(block.text, block.where, "exec"), self.names)
            except Exception as error:
                raise PageError(f"{block.where}: {type(error).__name__}: {error}") from error
        self.printed = printed.getvalue()

    def do_yaml(self, block: Block) -> None:
        """Check a study, or prompts."""
        self.do_data(block)
        if "prompts" in block.marks:
            PromptSet.from_file(block.marks["file"])
            return
        try:
            if "fragment" in block.marks:
                study = fragment(block.text, self.folder)
            else:
                path = Path(block.marks.get("file", "checked-study.yaml"))
                path.write_text(block.text, encoding="utf-8")
                study = Study.from_yaml(path)
                study.load_prompts()
            for scorer in study.scorers:
                get_scorer(scorer)
        except Exception as error:
            raise PageError(f"{block.where}: {error}") from error

    def do_text(self, block: Block) -> None:
        """Compare with what was printed."""
        if "output" in block.marks and (absent := missing(block.text, self.printed)):
            lines = "\n".join(absent)
            raise PageError(f"{block.where}: not printed:\n{lines}\nprinted:\n{self.printed}")

    def do_data(self, block: Block) -> None:
        """Write it to its file."""
        if "file" in block.marks:
            path = Path(block.marks["file"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


def own_files(folder: Path) -> None:
    """What the examples of the study file take to be there."""
    for name in ("adapters/terse", "adapters/formal-v3"):
        (folder / name).mkdir(parents=True)
    own = "def polite(text, prompt):\n    return 'please' in text.lower()\n"
    (folder / "my_scorers.py").write_text(own, encoding="utf-8")
    (folder / "questions.csv").write_text("Question,Answer\nWhat is 2 + 2?,4\n", encoding="utf-8")


def fragment(text: str, folder: Path) -> Study:
    """A study with these fields, and a prompt if they have none.

    Raises:
        StudyError: Lists every problem.
    """
    values = {"prompts": ["Hi"], **yaml.safe_load(text)}
    return Study.from_dict(values, "fragment", folder, check_files=True)
