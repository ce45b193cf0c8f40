"""What the documentation says can be done can be done: every code block runs, commands and links exist.

What a page may contain, and how it is run, is told in ``docpages.py``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import typer
from docpages import ROOT, TARGETS, PageError, Reader, blocks, call, commands, missing

from workbench import __all__ as public_names
from workbench import api
from workbench.cli import app
from workbench.errors import WorkbenchError
from workbench.params import FIELDS, SamplingParams
from workbench.scorers import base as scorers_base

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "datasets").glob("*.md")]
)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
WITH_MODEL = ("README.md", "docs/adapters.md", "docs/getting-started.md")
"""Pages whose blocks run the demo model; on any other page that is an error."""
FREE = ("CHANGELOG.md", "docs/decisions/")
"""Pages about the past or the future, whose blocks need not run."""
COMMAND: Any = typer.main.get_command(app)


def text_of(name: str) -> str:
    """A page."""
    return (ROOT / name).read_text("utf-8")


def code(markdown: str) -> list[str]:
    """Lines of shell blocks without comments, and inline code."""
    lines = [" ".join(c) for b in blocks(markdown) if b.language == "sh" for c in commands(b)]
    prose = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return lines + re.findall(r"`([^`\n]+)`", prose)


def calls(markdown: str, program: str) -> list[list[str]]:
    """The arguments of each call of a program in the code of a text."""
    found = []
    for line in code(markdown):
        for part in re.split(r"&&|\|\||[;|]", line):
            words = part.split()
            if words and words[0].rpartition("/")[2] == program and len(words) > 1:
                found.append(words[1:])
    return found


def wrong_calls(markdown: str) -> list[str]:
    """Calls of ``workbench`` with a command or an option that does not exist."""
    wrong = []
    for words in calls(markdown, "workbench"):
        command = COMMAND.commands.get(words[0])
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
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Somebody who does what a page says, in a folder like a clone; what the page registers is forgotten."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(scorers_base, "_OWN", {})
    made = Reader(tmp_path / "clone")
    made.prepare()
    yield made
    if "plt" in made.names or "wb" in made.names:
        from matplotlib import pyplot as plt

        plt.close("all")


def no_model(*_: object, **__: object) -> None:
    """Stands for loading a model where that is not wanted."""
    raise WorkbenchError("this page loads a model; name it in WITH_MODEL or use engine: scripted")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.model if name in WITH_MODEL else ())
        for name in NAMES
        if not name.startswith(FREE)
    ],
)
def test_every_block_of_a_page_runs(
    reader: Reader, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, in one folder, as it stands."""
    if name not in WITH_MODEL:
        monkeypatch.setattr(api, "load_engine", no_model)
    reader.read(name, text_of(name))
    for block in blocks(text_of(name), name):
        for picture in re.findall(r"savefig\(\"(.+?)\"\)", block.text):
            assert (reader.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_pages_with_the_model_exist() -> None:
    """The list of pages that need the model is of pages."""
    assert set(WITH_MODEL) <= set(NAMES)


def test_the_readme_has_an_example_of_20_lines() -> None:
    """One Python block, short enough to read, that uses public names only."""
    (block,) = [b.text for b in blocks(text_of("README.md")) if b.language == "python"]
    assert 10 <= len([line for line in block.splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("name", NAMES)
def test_only_public_names_are_shown(name: str) -> None:
    """Whatever a page calls ``wb.`` something is exported, and nothing else of the package is imported."""
    text = text_of(name)
    assert set(re.findall(r"\bwb\.([A-Za-z]\w*)", text)) <= set(public_names)
    for block in blocks(text) if not name.startswith(FREE) else ():
        if block.language == "python":
            assert not re.search(r"from workbench\b|import workbench\.", block.text)


@pytest.mark.parametrize("name", NAMES)
def test_commands_in_the_docs_exist(name: str) -> None:
    """Every ``workbench X`` with its options, and every ``make X``, in the text too."""
    assert wrong_calls(text_of(name)) == []
    assert wrong_targets(text_of(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_links_in_the_docs_lead_somewhere(name: str) -> None:
    """Every relative link and picture is a file of the project."""
    assert dead_links(ROOT / name) == []


def test_the_readme_names_every_command_and_page() -> None:
    """Its calls cover all commands, but ``demo``, which it shows as ``make demo``; its links all pages of ``docs``."""
    text = text_of("README.md")
    shown = {words[0] for words in calls(text, "workbench")}
    assert shown | {"demo"} == set(COMMAND.commands)
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", text))
    assert linked == {name for name in NAMES if re.fullmatch(r"docs/[\w-]+\.md", name)}


def test_every_setting_is_explained_with_its_range() -> None:
    """The table of the decoding settings names all of them, with the ends of their ranges."""
    table = re.findall(r"^\| (`.+?) \| (.+?) \|", text_of("docs/decoding.md"), re.MULTILINE)
    ranges = {name: words for names, words in table for name in re.findall(r"`(\w+)`", names)}
    assert set(ranges) == set(FIELDS)
    for name, words in ranges.items():
        if name == "stop":
            continue
        with pytest.raises(WorkbenchError) as refused:
            SamplingParams(**{name: -1e9})
        for number in re.findall(r"-?\d[\d.]*", str(refused.value).partition(", got")[0]):
            assert number in re.findall(r"-?\d[\d.]*", words), (name, words)


def test_what_the_checks_would_miss(tmp_path: Path) -> None:
    """Commands, options, targets and links that do not exist are found; those that do are not."""
    text = (
        "Run `workbench sumary latest` and `workbench run x --nope`, `make nothing`.\n"
        "```sh\nworkbench run x.yaml --limit 3 # and --this\nmake nil ARGS='-x'\n"
        ".venv/bin/workbench fly\n```\n"
        "[a](here.md), ![b](there.png) [c](here.md#one-two) [d](here.md#three) [e](https://x.y/z)\n"
    )
    assert wrong_calls(text) == ["fly", "sumary latest", "run: --nope"]
    assert wrong_targets(text) == ["nil", "nothing"]
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    (tmp_path / "here.md").write_text("# One `two`\n", encoding="utf-8")
    assert dead_links(page) == ["there.png", "here.md#three"]


STUDY = """prompts: [Say hello., Say no.]
grid: {temperature: [0, 0.7]}
fixed: {max_tokens: 4}
latency: {prompts: 1, warmup: 0, rounds: 1}
engine: scripted
"""
GOOD = f"""Save as `s.yaml`:

```yaml file=s.yaml
{STUDY}```

```sh
workbench validate s.yaml  # a comment
workbench run \\
  s.yaml --quiet
make demo
cp s.yaml copy.yaml
```

```text output
cell ... e2el ms
No answer was scored.
```

```python
import workbench as wb
run = wb.open_run("latest")
print(len(run.generations), "answers")
```

```text output
4 answers
```

```python
assert len(run.cells) == 2
```

```yaml fragment
repeats: 2
```
"""


def test_a_good_page_runs(reader: Reader) -> None:
    """Blocks are run in order with one memory, files are there for later blocks, output is compared."""
    reader.read("page", GOOD)
    assert (reader.folder / "copy.yaml").read_text("utf-8") == STUDY
    assert len(list((reader.folder / "results" / "s").iterdir())) == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("assert len(run.cells) == 2", "assert run.cell_count", "page:35: AttributeError: "),
        ("validate s.yaml", "validate t.yaml", "page:12: workbench validate t.yaml: returned 1"),
        ("make demo", "make demon", "page:12: make has no target demon"),
        ("cp s.yaml", "rm s.yaml", "page:12: rm is not run here; mark the block no-run"),
        ("--quiet", "--quiet > log", "page:12: a page's commands are simple; got >"),
        ("cell ... e2el ms", "cell ... e2el s", "page:20: not printed:\ncell ... e2el s\nprinted"),
        ("4 answers", "4 questions", "page:31: not printed:\n4 questions\nprinted:\n4 answers"),
        ("repeats: 2", "repeat: 2", "page:39: fragment: unknown field 'repeat', did you mean 're"),
        ("temperature:", "temprature:", "page:4: s.yaml: line 2: grid: unknown setting 'tempra"),
        ("Save as `s.yaml`", "Save it", "page:4: the text above does not name the file s.yaml"),
        ("```yaml fragment", "```console", "page:39: language must be one of sh, python, yaml"),
        ("```yaml fragment", "```yaml study", "page:39: yaml has no mark study"),
        ("repeats: 2\n```", "repeats: 2", "page:38: a block without end"),
        ("```sh\n", "  ```sh\n", "page:11: an indented block is not checked"),
    ],
)
def test_a_stale_page_is_found(reader: Reader, old: str, new: str, said: str) -> None:
    """A block that no longer works fails, and the error says where."""
    assert old in GOOD
    with pytest.raises(PageError) as refused:
        reader.read("page", GOOD.replace(old, new))
    assert str(refused.value).startswith(said)


def test_the_exit_code_is_compared(reader: Reader) -> None:
    """A command that is shown to fail must fail as shown."""
    reader.read("page", "```sh exit=1\nworkbench summary latest\n```\n")
    with pytest.raises(PageError, match="returned 2, not 1"):
        reader.read("page", "```sh exit=1\nworkbench summary\n```\n")


def test_output_is_compared_without_what_changes() -> None:
    """Numbers, run ids and spaces may differ; words may not."""
    printed = "results/a/20261123T142713Z-e715b2: 12 rows\n  at  1.5 ms, [2, 3]\n"
    assert missing("results/a/20251010T000000Z-ffffff: 1,000 rows at", printed) == []
    assert missing("at 22 ms, [4, 5]\n... rows ... ms", printed) == []
    assert missing("at 22 s\nrows ... nothing", printed) == ["at 22 s", "rows ... nothing"]
    assert call(["--nope"])[0] == 2
