"""Write the generated pages of ``docs/``: the study file, the commands, and the option tables of the scorers.

* ``docs/study-file.md`` from the records in ``workbench/studyfields.py``.
* ``docs/commands.md`` from what every command says of itself with ``--help``.
* ``docs/scorers.md`` and ``docs/prompt-sets.md`` are written by hand but for what stands between ``<!-- made: ... -->`` and
  ``<!-- end -->``: descriptions and options from the scorers' classes, the cases of ``docs/examples/scorers.yaml``, judged,
  and the sets of ``datasets/registry.json``.

Usage: ``python scripts/make_docs.py`` writes them; ``--check`` writes nothing and returns 1 if a page is not up to date.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
import yaml

from workbench import registry
from workbench.cli import app
from workbench.cli.base import ORDER, Exit
from workbench.params import SamplingParams
from workbench.plan import Cell
from workbench.prompts import PromptSet
from workbench.records import Generation
from workbench.scorers import FAMILIES, get_scorer, score_generation
from workbench.scorers.base import TogetherScorer, score_together
from workbench.scorers.checks import CHECKS, COUNTED
from workbench.scorers.together import Asked, Means
from workbench.studyfields import NEEDED, STUDY_FIELDS, Form, StudyField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
NOTE: Final = "<!-- Made by scripts/make_docs.py from {}; change that, not this page. -->"
CASES: Final = ROOT / "docs" / "examples" / "scorers.yaml"
SECTION: Final = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
STUDY_HEAD: Final = """\
# The study file

{note}

A study is a YAML file of these fields. All problems of a file are listed at once, with their lines; `workbench validate STUDY`
does only that. Relative paths are looked up beside the file first, then in the current folder. The shortest study that says
something:

```yaml
prompts: datasets/capitals.jsonl
grid: {{temperature: [0, 0.7], top_k: [10, 50]}}
scorers: [contains]
```
"""
COMMANDS_HEAD: Final = """\
# Commands

{note}

`RUN` is a run directory, a run id, or `latest`; `STUDY` is a [study file](study-file.md). Every command has `--help`. With
`--json`, standard output holds one JSON value and nothing else; notes and progress go to standard error. Completion of
commands, options and run ids in your shell: `workbench --install-completion`.
"""
CODES: Final = {
    Exit.DONE: "done",
    Exit.ERROR: "an error: one line on standard error; `--debug` shows where it came from",
    Exit.USAGE: "wrong usage: no such command, option or value",
    Exit.FAILED_ROWS: "done, but some rows failed or could not be scored",
    Exit.THRESHOLD: "no cell is known to meet the limits (`decide`, `tune`)",
    Exit.INTERRUPTED: "interrupted; the same command again goes on",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


# The study file


def study_page(_: str) -> str:
    """The page of the study file."""
    rows = [
        (linked(f), f.takes, default(f.default, f.shown), f.meaning + example_of(f))
        for f in STUDY_FIELDS
    ]
    detailed = [section(f) for f in STUDY_FIELDS if has_section(f)]
    head = STUDY_HEAD.format(note=NOTE.format("workbench/studyfields.py"))
    return "\n".join([head, table(("field", "takes", "default", "meaning"), rows), *detailed])


def has_section(field: StudyField) -> bool:
    """Whether a field needs more room than its row."""
    return len(field.forms) > 1 or any(form.keys for form in field.forms)


def linked(field: StudyField) -> str:
    """A field's name, as a link to its section if it has one."""
    return f"[`{field.name}`](#{field.name})" if has_section(field) else f"`{field.name}`"


def example_of(field: StudyField) -> str:
    """The example of a field that has no section."""
    if has_section(field):
        return ""
    line = next(x for x in field.forms[0].example.splitlines() if x.startswith(f"{field.name}:"))
    return f" Example: `{line}`"


def section(field: StudyField) -> str:
    """The forms of a field."""
    return f"## {field.name}\n\n" + "\n".join(form_text(form) for form in field.forms)


def form_text(form: Form) -> str:
    """One form with its example and keys."""
    title = form.what[0].upper() + form.what[1:]
    text = f"{title}:\n\n```yaml fragment\n{form.example}```\n"
    if form.keys:
        rows = [(f"`{k.name}`", k.takes, default(k.default), k.meaning) for k in form.keys]
        text += "\n" + table(("key", "takes", "default", "meaning"), rows)
    return text + (f"\n{form.meaning}\n" if form.meaning else "")


def default(value: Any, shown: str = "") -> str:
    """A default in words."""
    if shown:
        return shown
    if value is NEEDED:
        return "must be given"
    if value is None or value in ((), {}, []):
        return "none"
    if isinstance(value, str):
        return f"`{value}`" if " " not in value else value
    return f"`{flow(value)}`"


# The commands


def commands_page(_: str) -> str:
    """The page of the commands."""
    group: Any = typer.main.get_command(app)
    head = COMMANDS_HEAD.format(note=NOTE.format("the commands' own help"))
    codes = table(
        ("exit code", "means"), [(str(int(code)), words) for code, words in CODES.items()]
    )
    return "\n".join([head, codes, *(command_text(name, group.commands[name]) for name in ORDER)])


def command_text(name: str, command: Any) -> str:
    """One command: what it does, its example, arguments and options."""
    words, example = split_help(command)
    context = command.make_context(name, [], resilient_parsing=True)
    records = [p.get_help_record(context) for p in command.params]
    rows = [(f"`{left}`", right.replace("  [", " [")) for left, right in records if left]
    body = f"## {name}\n\n{words}\n\n```sh no-run\n{example}\n```\n"
    return body + "\n" + table(("takes", "meaning"), rows)


def split_help(command: Any) -> tuple[str, str]:
    """The help text of a command, and the example in it."""
    text, _, example = inspect.cleandoc(command.help).partition("Example: ")
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs), example.strip()


# The scorers


def filled(text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """A page with its made parts made anew."""
    return SECTION.sub(lambda found: f"{found[1]}\n{parts[found[2]]()}\n{found[3]}", text)


def scorers_page(text: str) -> str:
    """The page of the scorers."""
    order = [name for _, name, _ in SECTION.findall(text) if name in FAMILIES]
    parts: dict[str, Callable[[], str]] = {name: partial(about, name) for name in FAMILIES}
    return filled(text, parts | {"overview": partial(overview, order), "checks": checks_table})


def overview(order: Iterable[str]) -> str:
    """Scorers with their first sentences, in the order of the page."""
    rows = [(f"[`{name}`](#{name})", first_words(name)) for name in order]
    return table(("scorer", "score"), rows)


def first_words(name: str) -> str:
    """What a scorer does, in the first paragraph of its class."""
    first = (inspect.getdoc(FAMILIES[name]) or "").partition("\n\n")[0]
    return " ".join(first.split()).replace("``", "`")


def about(name: str) -> str:
    """A scorer: what it does, its options, and how it judges its cases."""
    doc = inspect.getdoc(FAMILIES[name]) or ""
    paragraphs = doc.partition("Attributes:")[0].strip().replace("``", "`")
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8")).get(name)
    judged = f"\nSome answers, judged:\n\n{cases_table(name, cases)}" if cases else ""
    return f"{paragraphs}\n\n{options_table(name)}{judged}"


def cases_table(name: str, cases: Sequence[dict[str, Any]]) -> str:
    """Answers and what the scorer says of them."""
    head = ("options", "target", "answer", "score", "because")
    rows = [
        (
            *map(shown, (c.get("options"), c.get("target"), c.get("answer", c.get("answers")))),
            *verdict(name, c),
        )
        for c in cases
    ]
    used = [n for n in range(len(head)) if any(row[n] for row in rows)]
    return table([head[n] for n in used], [[row[n] for n in used] for row in rows])


def verdict(name: str, case: dict[str, Any]) -> tuple[str, str]:
    """The score of a case, and why; several answers are the repeats of a prompt."""
    row = {"id": "case", "prompt": "?", "target": case.get("target")}
    prompt = PromptSet.from_records([row])["case"]
    cell = Cell(SamplingParams())
    made = [
        Generation(cell.cell_id, "case", repeat, answer, (), 1, case.get("finish", "stop"))
        for repeat, answer in enumerate(case.get("answers") or [case["answer"]])
    ]
    scorer = get_scorer({name: case.get("options")})
    if isinstance(scorer, TogetherScorer):
        score = score_together(scorer, [Asked(one, prompt, cell) for one in made], Means())[0]
    else:
        score = score_generation(scorer, made[0], prompt)
    if score.value is None:
        return "none", f"{score.reason}"
    return f"{score.value:.2f}".rstrip("0").rstrip("."), score.explanation


def shown(value: Any) -> str:
    """A value as code; nothing for nothing."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else flow(value)
    return "`" + text.strip(" ").replace("\n", " \u23ce ").strip() + "`"


def flow(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False
    )
    return text.strip().removesuffix("...").strip()


def checks_table() -> str:
    """The checks of the instruction scorer with their arguments."""
    counted = ", ".join(f"`{kind}`" for kind in COUNTED)
    rows = [(f"`min_`, `max_`, `exact_` before {counted}", "`n`", "")]
    for name, check in CHECKS.items():
        if name.partition("_")[2] in COUNTED and name.partition("_")[0] in ("min", "max", "exact"):
            continue
        rows.append(
            (
                f"`{name}`",
                *(", ".join(f"`{a}`" for a in part) for part in (check.needs, check.takes)),
            )
        )
    return table(("check", "needs", "takes"), rows)


def options_table(name: str) -> str:
    """The options of a scorer: the fields of its class, with their descriptions."""
    cls: Any = FAMILIES[name]
    described = attributes(inspect.getdoc(cls) or "")
    fields = [f for f in dataclasses.fields(cls) if f.init]
    if not fields:
        return "No options.\n"
    rows = [(f"`{f.name}`", default(field_default(f)), described[f.name]) for f in fields]
    return table(("option", "default", "meaning"), rows)


def field_default(field: dataclasses.Field[Any]) -> Any:
    """What an option is if it is not given."""
    if field.default is not dataclasses.MISSING:
        value = field.default
        return list(value) if isinstance(value, tuple) else value
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return NEEDED


def attributes(doc: str) -> dict[str, str]:
    """The descriptions under ``Attributes:`` in a docstring, as Markdown."""
    _, _, listed = doc.partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in listed.splitlines():
        if not line.startswith("    "):
            break
        if match := re.match(r"    (\w+): (.*)", line):
            name, text = match[1], match[2]
            found[name] = text
        else:
            found[name] += " " + line.strip()
    return {name: text.replace("``", "`") for name, text in found.items()}


# The prompt sets


def prompt_sets_page(text: str) -> str:
    """The page of the prompt sets."""
    return filled(text, {"sets": sets_table})


def sets_table() -> str:
    """The sets that ship."""
    rows = [
        (f"`builtin:{e.name}`", str(e.n), f"`{flow(list(e.scorers))}`", str(e.max_tokens), e.shows)
        for e in registry.entries()
    ]
    return table(("set", "prompts", "scorers", "max_tokens", "shows"), rows)


PAGES: Final[dict[str, Callable[[str], str]]] = {
    "docs/study-file.md": study_page,
    "docs/commands.md": commands_page,
    "docs/scorers.md": scorers_page,
    "docs/prompt-sets.md": prompt_sets_page,
}


def stale(root: Path = ROOT, *, write: bool = False) -> list[str]:
    """Names of the pages that are not as they would be made; with ``write`` they are made."""
    found = []
    for name, make in PAGES.items():
        path = root / name
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        new = make(old)
        if new != old:
            found.append(name)
            if write:
                path.write_text(new, encoding="utf-8")
    return found


def main(arguments: Sequence[str]) -> int:
    """Write or check the pages."""
    if list(arguments) not in ([], ["--check"]):
        print("usage: make_docs.py [--check]", file=sys.stderr)
        return 2
    check = bool(arguments)
    found = stale(write=not check)
    for name in found:
        print(
            f"{name}: {'not up to date; run python scripts/make_docs.py' if check else 'written'}"
        )
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
