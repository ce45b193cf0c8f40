"""The fields of a study file as records: what each takes, its default, what it means, an example.

``docs/study-file.md`` is made from them, and tests hold them against what `studycheck` accepts and what a ``Study`` has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from workbench.params import SEED_MAX
from workbench.studycheck import ENGINE, ENGINES, KERNELS, LATENCY

NEEDED: Final = object()
"""Default of what must be given."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key inside a field.

    Attributes:
        name: As it is written.
        takes: Form and allowed values.
        default: What holds without it; ``NEEDED`` if there is none; None if nothing.
        meaning: One sentence.
    """

    name: str
    takes: str
    default: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a field.

    Attributes:
        what: The form in words.
        example: YAML that holds the field so written, and what else the example needs.
        keys: The keys of the mapping that the form is.
        meaning: More about it, or "".
    """

    what: str
    example: str
    keys: tuple[Key, ...] = ()
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class StudyField:
    """A field of a study.

    Attributes:
        name: As it is written.
        takes: Form and allowed values, short.
        default: As a ``Study`` has it when the file does not give it; ``NEEDED`` if it must be given.
        meaning: One or two sentences.
        forms: The ways to write it, at least one.
        shown: The default in words, where its value says little.
    """

    name: str
    takes: str
    default: Any
    meaning: str
    forms: tuple[Form, ...]
    shown: str = ""


_ROW_KEYS: Final = (
    Key("id", "text or number, unique", None, "Without it, one is made from the content."),
    Key("prompt", "text", None, "The user's message; or `input`, or `messages`."),
    Key("input", "text or messages", None, "The same as `prompt` or `messages`."),
    Key("messages", "list of {role, content}", None, "A whole chat, for the model to answer."),
    Key("target", "any JSON value", None, "What the scorers compare with; a list: any of them."),
    Key(
        "group",
        "text or number",
        None,
        "Variants of one question; they count as one, and are split as one.",
    ),
    Key("metadata", "mapping", None, "Kept with the prompt; templates see it."),
    Key("tools", "list of tool definitions", None, "Handed to the model's chat template."),
    Key("vars", "mapping", None, "Variables for templates; with them a prompt may have no text."),
)
_FILE_KEYS: Final = (
    Key("file", "file name", NEEDED, "As above."),
    Key(
        "fields",
        "our name: column",
        "the columns have our names",
        "Which column is what; the other columns are left out.",
    ),
)
_HUB_KEYS: Final = (
    Key("hf", "owner/name, or a local folder or file", NEEDED, "The data set."),
    Key("config", "text", None, "Which configuration of it."),
    Key("split", "text", None, "Which split; needed for a data set of the hub."),
    Key("revision", "commit, 40 hex digits", None, "Needed for a data set of the hub, so that the prompts stay the same."),
    Key("fields", "our name: column", "the columns have our names", "Which column is what."),
    Key("limit", "whole number, at least 1", None, "Only so many of its first rows."),
)  # fmt: skip
_LATENCY_KEYS: Final = (
    Key("prompts", "whole number, at least 1", LATENCY["prompts"], "Prompts timed in every cell."),
    Key("warmup", "whole number, at least 0", LATENCY["warmup"], "Requests before the first timed one."),
    Key("rounds", "whole number, at least 1", LATENCY["rounds"], "Times every prompt is timed."),
)  # fmt: skip
_ENGINE_KEYS: Final = (
    Key("kind", " or ".join(ENGINES), ENGINE["kind"], "`scripted` needs no model: it answers nonsense, for trying things out."),
    Key("device", "auto, cpu, cuda or cuda:N", ENGINE["device"], "`auto` takes a GPU if there is one."),
    Key("kernel", ", ".join(KERNELS), ENGINE["kernel"], "How packed weights are multiplied; `auto` chooses, and the record says why."),
    Key("max_rows", "whole number, at least 1", None, "Most answers decoded together; without it, what pays on the device."),
    Key("memory_gib", "number above 0, GiB", None, "Memory for keys and values; without it, half of what is free."),
)  # fmt: skip

STUDY_FIELDS: Final = (
    StudyField(
        "name",
        "letters, digits, `.`, `_`, `-`; at most 100",
        "study",
        "Also the name of the folder its runs go to.",
        (Form("a text", "name: capitals-v2\n"),),
        "the file's name; in Python `study`",
    ),
    StudyField(
        "model",
        "`demo`, a folder, or a Hugging Face id",
        "demo",
        "The base model. A text that begins with `.`, `/` or `~` is a folder.",
        (
            Form("the demo model", "model: demo\n"),
            Form("a Hugging Face id", "model: Qwen/Qwen1.5-7B-Chat-AWQ\n"),
        ),
    ),
    StudyField(
        "adapters",
        "`base`, a path, `{name: path}`, or a list of these",
        {"base": None},
        "[LoRA adapters](adapters.md): folders that PEFT wrote, or Hugging Face ids; `base` is none. Every setting runs with "
        "each, in the same batch.",
        (
            Form("no adapter", "adapters: [base]\n"),
            Form(
                "by the folder's name, or by a name of its own",
                "adapters: [base, ./adapters/terse, {formal: ./adapters/formal-v3}]\n",
            ),
        ),
        "`base`",
    ),
    StudyField(
        "prompts",
        "a file, a list of files, rows or texts, a data set",
        NEEDED,
        "What is asked. File formats: [prompt sets](prompt-sets.md).",
        (
            Form(
                "a file (`.jsonl`, `.csv`, `.tsv`, or promptfoo's `.yaml`)",
                "prompts: datasets/sentiment.jsonl\n",
            ),
            Form(
                "several files, joined",
                "prompts: [datasets/arithmetic.jsonl, datasets/capitals.jsonl]\n",
            ),
            Form(
                "a set that ships, see [datasets](../datasets/README.md)",
                "prompts: builtin:arithmetic\n",
            ),
            Form(
                "a file whose columns have other names",
                "prompts: {file: questions.csv, fields: {prompt: Question, target: Answer}}\n",
                _FILE_KEYS,
            ),
            Form(
                "a data set of the Hugging Face hub",
                "prompts:\n"
                "  hf: openai/gsm8k\n"
                "  config: main\n"
                "  split: test\n"
                "  revision: e53f048856ff4f594e959d75785d2c2d37b678ee\n"
                "  fields: {prompt: question, target: answer}\n"
                "  limit: 100\n",
                _HUB_KEYS,
            ),
            Form(
                "a data set whose columns have our names, in one text (`hf:owner/name/split@commit`, or `hf:` and a local one)",
                "prompts: hf:./questions.parquet\n",
            ),
            Form("texts", "prompts: [Say hello., Name a colour.]\n"),
            Form(
                "rows",
                "prompts:\n"
                '  - {id: sum, prompt: "2 + 2 = ?", target: 4}\n'
                "  - {messages: [{role: user, content: Name a colour.}], target: [red, blue]}\n",
                _ROW_KEYS,
            ),
        ),
    ),
    StudyField(
        "system",
        "a text",
        None,
        "System message put before every prompt; refused if a prompt has one of its own.",
        (Form("a text", "system: Answer with one word.\n"),),
        "none",
    ),
    StudyField(
        "templates",
        "name: wording",
        {},
        "Wordings of the prompts, so that wording is compared like any setting: every cell runs with each. "
        "See [prompt sets](prompt-sets.md#templates).",
        (
            Form(
                "Jinja2 texts; null is the prompt as it is",
                "prompts: datasets/capitals.jsonl\n"
                "templates:\n"
                "  plain: null\n"
                '  brief: "{{ input }} Answer with one word."\n',
            ),
            Form(
                "messages whose contents are such texts",
                "prompts: datasets/capitals.jsonl\n"
                "templates:\n"
                "  teacher:\n"
                "    - {role: system, content: You teach geography.}\n"
                '    - {role: user, content: "{{ input }}"}\n',
            ),
        ),
        "none",
    ),
    StudyField(
        "grid",
        "setting: [values], a list of settings, or name: settings",
        {},
        "The cells: combinations of [decoding settings](decoding.md). Cells that cannot differ are merged.",
        (
            Form("all combinations", "grid: {temperature: [0, 0.7], top_k: [10, 50]}\n"),
            Form(
                "the listed ones",
                "grid:\n  - {temperature: 0}\n  - {temperature: 0.7, top_p: 0.9}\n",
            ),
            Form(
                "the listed ones, with names",
                "grid:\n  exact: {temperature: 0}\n  loose: {temperature: 1.0, min_p: 0.05}\n",
            ),
        ),
        "one cell, of `fixed`",
    ),
    StudyField(
        "search",
        "setting: [low, high] or choices",
        {},
        "Ranges for `workbench tune`, in place of a grid: see [tuning](tuning.md#searching-ranges). Beside the settings it takes "
        "`adapter` and `template`.",
        (
            Form("ranges", "search: {temperature: [0, 1.5], top_p: [0.3, 1.0]}\n"),
            Form(
                "with a step, on a logarithmic scale, or choices",
                "search:\n"
                "  temperature: {low: 0, high: 1.5, step: 0.05}\n"
                "  top_k: {low: 1, high: 200, log: true}\n"
                "  repetition_penalty: {choices: [1.0, 1.1]}\n",
                meaning="Without a step values have two or three digits. Several adapters or templates of a study are searched "
                "too; `adapter: [base, terse]` takes some of them. The baseline is then settings.",
            ),
        ),
        "none",
    ),
    StudyField(
        "fixed",
        "setting: value",
        {},
        "Settings of every cell. An entry of a list or of a named grid goes before them.",
        (
            Form(
                "settings",
                'fixed: {max_tokens: 48, stop: ["\\n"]}\ngrid: {temperature: [0, 0.7]}\n',
            ),
        ),
        "none",
    ),
    StudyField(
        "repeats",
        "whole number, at least 1",
        1,
        "Draws per prompt and cell. A cell that cannot vary (temperature 0) runs once.",
        (Form("a number", "repeats: 3\n"),),
    ),
    StudyField(
        "seed",
        f"whole number, 0 to {SEED_MAX}",
        0,
        "The seed of every request is made from it, the prompt and the repeat; it is the same in all cells.",
        (Form("a number", "seed: 7\n"),),
    ),
    StudyField(
        "scorers",
        "a name, `{name: {options}}`, `FILE.py:FUNCTION`, or a list of these",
        (),
        "Who judges; the first is the primary metric. See [scorers](scorers.md).",
        (
            Form("by name", "scorers: [numeric]\n"),
            Form(
                "with options",
                "scorers: [{choice: {labels: [positive, negative]}}, exact]\n",
            ),
            Form("a function in a file of yours", "scorers: [my_scorers.py:polite]\n"),
        ),
        "none",
    ),
    StudyField(
        "split",
        "{confirm: share}, or false",
        {"confirm": 0.0},
        "Prompts held out: the best cell is chosen on the others and looked at again on these.",
        (
            Form(
                "a share",
                "split: {confirm: 0.3}\n",
                (Key("confirm", "number, 0 or more and below 1", 0.0, "Share of the prompts."),),
            ),
        ),
        "nothing held out",
    ),
    StudyField(
        "latency",
        "{prompts, warmup, rounds}, true or false",
        LATENCY,
        "The timing of single requests, see [latency](latency.md).",
        (
            Form("numbers", "latency: {prompts: 10, warmup: 2, rounds: 2}\n", _LATENCY_KEYS),
            Form("none", "latency: false\n"),
        ),
        "true: " + ", ".join(f"{name} {value}" for name, value in LATENCY.items()),
    ),
    StudyField(
        "engine",
        "{kind, device, kernel, max_rows, memory_gib}, or the kind",
        ENGINE,
        "What runs the model. `--engine`, `--device` and `--kernel` of `workbench run` go before it.",
        (
            Form(
                "keys",
                "engine: {kind: local, device: cuda, kernel: int4, memory_gib: 8}\n",
                _ENGINE_KEYS,
            ),
            Form("the kind alone", "engine: scripted\n"),
        ),
        "the local engine, all auto",
    ),
    StudyField(
        "baseline",
        "a cell's name, label or id, or its settings",
        None,
        "The cell that the others are compared with.",
        (
            Form(
                "a label as `workbench validate` prints it, or a name of the grid",
                "grid: {temperature: [0, 0.7]}\nbaseline: greedy\n",
            ),
            Form(
                "settings; what is left out is as in `fixed`, or default",
                "grid: {temperature: [0, 0.7], top_k: [10, 50]}\n"
                "baseline: {temperature: 0.7, top_k: 50}\n",
                (
                    Key("adapter", "an adapter's name", "base", "Beside settings."),
                    Key("template", "a template's name", "the first", "Beside settings."),
                ),
            ),
        ),
        "temperature 0.6 and nothing else if there is that cell, else the first",
    ),
    StudyField(
        "defaults",
        "card or checkpoint",
        "card",
        "Settings that neither grid nor fixed give: the workbench's own (`card`: temperature 0.6, max_tokens 256), "
        "or those of the checkpoint's `generation_config.json`.",
        (Form("a word", "defaults: checkpoint\n"),),
    ),
    StudyField(
        "allow_inert",
        "true or false",
        False,
        "Run an adapter even if it [changes nothing](adapters.md#does-it-act), and vary a setting even if it "
        "[does nothing](decoding.md#checked-before-a-run).",
        (Form("a truth value", "allow_inert: true\n"),),
    ),
    StudyField(
        "allow_overlap",
        "true or false",
        False,
        "Run an adapter even if it was [trained on some of the prompts](adapters.md#trained-on-what-is-asked).",
        (Form("a truth value", "allow_overlap: true\n"),),
    ),
)
"""Every field, in the order of a study file."""
