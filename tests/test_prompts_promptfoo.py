"""promptfoo files: what is read, what is refused, and that the checks arrive at the scorer."""

from __future__ import annotations

import pytest
import yaml

from workbench.errors import PromptSetError
from workbench.prompts import PromptSet, load, promptfoo, templates
from workbench.scorers import asserts
from workbench.scorers.base import get_scorer

FILE = """\
description: try
providers: [some:model]
prompts:
  - "Translate to {{lang}}: {{text}}"
  - raw: '[{"role": "system", "content": "Be brief"}, {"role": "user", "content": "{{text}}?"}]'
    label: chat one
defaultTest:
  vars: {lang: Latin}
  assert:
    - {type: not-contains, value: sorry}
tests:
  - vars: {lang: [German, French], text: [one, two], want: x}
    assert:
      - {type: icontains, value: "{{want}}-{{lang}}", weight: 2}
  - description: second
    vars: {text: hi}
    metadata: {topic: t}
    threshold: 0.5
    assert:
      - {type: is-json, value: {type: object}}
"""


def _file(tmp_path, text, name="foo.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def _problems(path, **kw):
    with pytest.raises(PromptSetError) as caught:
        promptfoo.read(path, **kw)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def test_tests_become_prompts_and_prompts_templates(tmp_path):
    """Lists of values are multiplied out, defaults added, and assertions become targets."""
    made, wordings = promptfoo.read(_file(tmp_path, FILE))
    assert [p.id for p in made] == ["t1-1", "t1-2", "t1-3", "t1-4", "t2"]
    assert [p.vars["lang"] for p in made] == ["German", "German", "French", "French", "Latin"]
    assert [p.group for p in made] == ["t1"] * 4 + [None]
    assert made["t1-3"].target == {
        "assert": [
            {"type": "not-contains", "value": "sorry"},
            {"type": "icontains", "value": "x-French", "weight": 2},
        ]
    }
    assert made["t2"].target["threshold"] == 0.5
    assert made["t2"].metadata == {"topic": "t", "description": "second"}
    assert list(wordings) == ["p1", "chat-one"]
    asked = [templates.render(t, made["t1-1"]).messages for t in wordings.values()]
    assert asked == [
        ({"role": "user", "content": "Translate to German: one"},),
        ({"role": "system", "content": "Be brief"}, {"role": "user", "content": "one?"}),
    ]
    assert yaml.safe_load(promptfoo.templates_yaml(wordings)) == {"templates": wordings}


def test_loaded_as_a_prompt_set(tmp_path):
    """With one prompt the set is ready to run; with several, a study's templates must ask."""
    assert load(_file(tmp_path, FILE)).unasked == ("t1-1", "t1-2", "t1-3", "t1-4", "t2")
    one = "prompts: 'Say {{w}}'\ntests:\n  - vars: {w: [a, b]}\n"
    made = load(_file(tmp_path, one))
    assert [p.messages[0]["content"] for p in made] == ["Say a", "Say b"]
    again = PromptSet.from_records([p.to_dict() for p in made])
    assert again.sha256 == made.sha256
    path = _file(tmp_path, "prompts: 'Say {{x}}'\ntests:\n  - vars: {w: a}\n  - vars: {x: b}\n")
    with pytest.raises(PromptSetError) as caught:
        load(path)
    assert caught.value.problems == (
        f"{path}:3: prompt 't1': 'x' is undefined; known: metadata, system, w",
    )


def test_assertions_are_judged(tmp_path):
    """What a test asserts is what the scorer judges."""
    made, _ = promptfoo.read(_file(tmp_path, FILE))
    scorer = get_scorer("asserts")
    assert [scorer.score(t, made["t1-1"]).value for t in ("X-GERMAN", "sorry", "ok")] == [
        1,
        0,
        pytest.approx(1 / 3),
    ]
    assert set(promptfoo.TYPES) == set(asserts.TYPES)


TYPES = ", ".join(promptfoo.TYPES)
ONLY = "this reads prompts, tests, vars and assert"


def test_everything_else_is_refused_at_its_line(tmp_path):
    """All that the file asks for and this does not do is listed at once."""
    text = """\
prompts:
  - file://x.txt
  - "{{ x"
  - 3
  - prompts.json
scenarios: []
tests:
  - vars: {a: 1}
    options: {}
    assert:
      - {type: javascript, value: "1"}
      - {type: python, value: "True"}
      - {type: llm-rubric, value: nice}
      - {type: contains-any, value: a}
      - {type: equals}
      - {type: contains, value: x, weight: -1}
      - {type: regex, value: "file://x"}
      - {type: is-json, value: x}
      - {type: contains, values: x}
      - nope
  - assert: 3
  - 5
  - {}
  - vars: file://a.yaml
  - vars: {a: b}
    threshold: 2
  - vars: {a: b}
    assert: [{type: contains, value: "{{nope}}"}]
"""
    assert _problems(_file(tmp_path, text)) == [
        f"6: unknown key 'scenarios'; known: prompts, tests, defaultTest; {ONLY}",
        "2: other files are not read (file://x.txt); write the prompt here",
        "3: the prompt: unexpected end of template, expected 'end of print statement'",
        "4: a prompt must be text, got 3",
        "5: other files are not read (prompts.json); write the prompt here",
        f"9: unknown key 'options'; known: vars, assert, description, metadata, threshold; {ONLY}",
        f"11: assert javascript: JavaScript is never run; supported: {TYPES}, and not-...",
        (
            "12: assert python: Python from a file is taken only where you allow it: "
            "workbench import FILE --allow-python --to FILE.jsonl"
        ),
        f"13: assert llm-rubric: this type is not supported; supported: {TYPES}, and not-...",
        "14: assert contains-any: value must be a list, got 'a'",
        "15: assert equals: value must be given, got None",
        "16: assert contains: weight must be a number at least 0, got -1",
        "17: assert regex: other files are not read (file://x)",
        "18: assert is-json: value must be a JSON schema, or absent, got 'x'",
        "19: unknown key 'values', did you mean 'value'?",
        "20: an assertion must be an object with type and value, got 'nope'",
        "21: assert must be a list, got 3",
        "22: a test must be an object, got 5",
        "23: a test needs vars",
        "24: vars must be an object, got 'file://a.yaml'; other files are not read",
        "26: threshold must be from 0 to 1, got 2",
        "28: 'nope' is undefined; known: a",
    ]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "file://x",
            "prompts/a.txt:x",
            "exec:./x.sh",
            "x.mjs",
            "x.PY:main",
            "prompts/*",
            "a.jsonl",
        ),
        *("package:@a/b:c", "https://a.example/x"),
    ],
)
def test_names_of_files_are_no_prompts(tmp_path, name):
    """What would be read or run as a file is not asked as a text."""
    path = _file(
        tmp_path,
        f"prompts: ['{name}', 'Is {{{{a}}}} in x.txt?', 'a.txt or b']\ntests: [{{vars: {{a: b}}}}]\n",
    )
    assert _problems(path) == [f"1: other files are not read ({name}); write the prompt here"]


def test_values_that_would_be_filled_in_are_refused(tmp_path):
    """A value that names a file, or holds a variable, is not asked as it stands, however deep it is."""
    text = """\
prompts: "{{doc}}"
defaultTest:
  vars: {who: "Dear {{name}}"}
tests:
  - vars:
      doc: file://secret.txt
      name: Ann
  - vars: {doc: [a, {b: "File://x"}]}
  - vars: {doc: "{% if a %}"}
  - vars: {doc: "a file:// b { { } }"}
    assert: [{type: contains-any, value: ["a", "file://x"]}]
"""
    inside = "variables inside variables are not filled in; write the text out"
    assert _problems(_file(tmp_path, text)) == [
        f"3: vars: who: {inside}",
        "6: vars: doc: other files are not read (file://secret.txt); write the text here",
        "8: vars: doc: other files are not read (File://x); write the text here",
        f"9: vars: doc: {inside}",
        "11: assert contains-any: other files are not read (file://x)",
    ]


def test_python_is_kept_only_where_it_is_allowed(tmp_path):
    """An allowed expression stays a text; only the scorer runs it, and only with its own option."""
    text = "prompts: '{{a}}'\ntests:\n  - vars: {a: b}\n    assert: [{type: python, value: len(output) == 1}]\n"
    path = _file(tmp_path, text)
    assert len(_problems(path)) == 1
    made, _ = promptfoo.read(path, allow_python=True)
    (prompt,) = made
    assert get_scorer("asserts").score("x", prompt).value is None
    assert get_scorer({"asserts": {"allow_python": True}}).score("x", prompt).value == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", " the file is empty"),
        ("- a\n", " must hold prompts and tests, got a list"),
        ("tests: [{vars: {a: b}}]\n", "1: prompts must be a text or a list of texts"),
        ("prompts: x\n", "1: tests must be a list of tests"),
        (
            "prompts: x\ntests: file://t.csv\n",
            "2: other files are not read (file://t.csv); load it as a CSV instead",
        ),
        ("prompts: x\nprompts: y\n", " line 2: 'prompts' is already given at line 1"),
        (
            "prompts: [\n",
            " line 2, column 1: not YAML: expected the node content, but found '<stream end>'",
        ),
        (
            "prompts: x\ntests:\n  - vars: {"
            + ", ".join(f"v{i}: [{', '.join('abcdefgh')}]" for i in range(9))
            + "}\n",
            "3: makes more than 100,000 prompts",
        ),
        (
            "prompts: [{raw: a, label: x}, {raw: b, label: x}]\ntests: [{vars: {a: b}}]\n",
            "1: label 'x' occurs twice",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, problem):
    """A file that is not one of these is refused with its line."""
    assert _problems(_file(tmp_path, text))[0] == problem


def test_files_that_cannot_be_opened(tmp_path):
    """A missing file is one sentence."""
    path = tmp_path / "none.yaml"
    assert _problems(path) == [" cannot be read (No such file or directory)"]
