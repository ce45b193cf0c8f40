"""Templates: what they see, what they make, and what they cannot do."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TEXT

from workbench.errors import PromptSetError
from workbench.prompts import Prompt, PromptSet, templates

PROMPT = PromptSet.from_records(
    [
        {
            "id": "q1",
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "ok"},
                {"role": "user", "content": "2+2?"},
            ],
            "target": "4",
            "vars": {"x": 3, "words": ["a", "b"], "big": "y" * 900_000},
            "metadata": {"topic": "T"},
        }
    ]
)["q1"]
KNOWN = "known: big, input, metadata, system, words, x"


def _text(template, prompt=PROMPT):
    return templates.render(template, prompt, name="w").messages[-1]["content"]


def _refused(template, prompt=PROMPT):
    with pytest.raises(PromptSetError) as caught:
        templates.render(template, prompt, name="w")
    return str(caught.value)


def test_a_text_becomes_the_last_user_message():
    """Everything but the last user message stays as it was."""
    made = templates.render("{{ system }}: {{ input }} ({{ metadata.topic }}, {{ x }})", PROMPT)
    assert made.messages[:-1] == PROMPT.messages[:-1]
    assert made.messages[-1] == {"role": "user", "content": "S: 2+2? (T, 3)"}
    assert dataclasses.replace(made, messages=PROMPT.messages) == PROMPT


def test_a_prompt_of_variables_alone_is_asked_by_the_template():
    """Without a user message the template's text is added, after a system message if there is one."""
    made = PromptSet.from_records([{"id": "a", "vars": {"city": "Oslo"}}])
    assert made.unasked == ("a",)
    asked = templates.render("Where is {{ city }}?", made["a"])
    assert asked.messages == ({"role": "user", "content": "Where is Oslo?"},)
    with_system = made.with_system("Be brief.")
    assert with_system.unasked == ("a",)
    assert [m["role"] for m in templates.render("{{ city }}", with_system["a"]).messages] == [
        "system",
        "user",
    ]
    again = PromptSet.from_records([p.to_dict() for p in with_system])
    assert again.sha256 == with_system.sha256
    assert PromptSet("asked", (asked,)).unasked == ()


def test_a_list_replaces_all_messages():
    """A list of messages is a whole conversation; the prompt's system message stays if it has none."""
    chat = [
        {"role": "user", "content": "An example?"},
        {"role": "assistant", "content": "{{ words | join(', ') }}"},
        {"role": "user", "content": "{{ input }}"},
    ]
    made = templates.render(chat, PROMPT)
    assert [m["content"] for m in made.messages] == ["S", "An example?", "a, b", "2+2?"]
    own = [{"role": "system", "content": "{{ system }}!"}, *chat[2:]]
    assert [m["content"] for m in templates.render(own, PROMPT).messages] == ["S!", "2+2?"]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% for w in words %}{{ loop.index }}.{{ w | upper }} {% endfor %}", "1.A 2.B "),
        ("{{ nope | default('d') }}{% if nope is defined %}!{% endif %}", "d"),
        ("{{ metadata | tojson }} {{ 'a<b & \"c\"' | tojson }}", '{"topic": "T"} "a<b & \\"c\\""'),
        ("{{ words[0] ~ x }} {{ x * 2 + 1 }} {{ '-' * 3 }}", "a3 7 ---"),
        ("{{ words | map('upper') | join('+') }} {{ range(3) | list }}", "A+B [0, 1, 2]"),
        ("{% for k, v in metadata.items() %}{{ k }}={{ v.lower() }}{% endfor %}", "topic=t"),
        ("{% macro b(t) %}<{{ t }}>{% endmacro %}{{ b(x) }}{{ b('y') }}", "<3><y>"),
        ("{% set t = words | length %}{{ 'two' if t == 2 else 'many' }}", "two"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{{ 'aXbX'.replace('X', '-') if false else 'aXbX' | replace('X', '-') }}", "a-b-"),
        ("one\n", "one"),
    ],
)
def test_what_people_write_works(template, text):
    """Loops, conditions, defaults, joins, macros and JSON do what Jinja's documentation says."""
    assert _text(template) == text


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ nope }}", f"'nope' is undefined; {KNOWN}"),
        ("{{ nope() }}", f"'nope' is undefined; {KNOWN}"),
        ("{{ target }}", f"'target' is undefined; {KNOWN}; a template never sees the target"),
        ("one\n{{ nope.a }}", f"line 2: 'nope' is undefined; {KNOWN}"),
        ("{{ metadata.topik }}", f"'dict object' has no attribute 'topik'; {KNOWN}"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ '' }} ", "the message is empty"),
        ("{{ x() }}", "int cannot be called in a template"),
    ],
)
def test_failures_name_template_and_prompt(template, problem):
    """A template that does not fit a prompt says which, where, and what there is."""
    assert _refused(template) == f"template 'w': prompt 'q1': {problem}"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ (words | first).__init__ }}",
        "{{ x.real.__class__ }}",
        "{{ words | map(attribute='__class__') | join }}",
        "{{ words | join(',', attribute='__class__') }}",
        "{{ range.__globals__ }}",
        "{{ words.append(1) }}",
        "{{ metadata.update({'a': 1}) }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ self.__init__ }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ words | map('pprint') | join }}",
        "{% macro m() %}{% endmacro %}{{ m.__call__.__func__ }}",
    ],
)
def test_no_way_out_of_the_sandbox(template):
    """Attributes that lead to Python's inside, changes of the data and unlisted filters are refused."""
    before = json.dumps(PROMPT.to_dict())
    assert _refused(template).startswith("template 'w': prompt 'q1': ")
    assert json.dumps(PROMPT.to_dict()) == before


CHARS = "makes more than 1,000,000 characters"
WORK = "does too much work (too many or too long loops and texts)"
LOOP = (
    "{{% set l = range(100000) | list %}}{{% set m = range(100000) | list %}}"
    "{{% for i in range(99999) %}}{{% if {} %}}{{% endif %}}{{% endfor %}}"
)
DEEP = "calls itself too deeply"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ 'x' * 10 ** 9 }}", CHARS),
        ("{{ [words] * 10 ** 7 }}", CHARS),
        ("{{ 2 ** 99999999 }}", "** on numbers this large is not available"),
        ("{{ '%9999999d' % 1 }}", "% on a text is not available; join texts with ~"),
        ("{{ 'a'.ljust(9999999) }}", "ljust cannot be called in a template"),
        ("{{ '{:>9999999}'.format(1) }}", "format cannot be called in a template"),
        ("{% for i in range(9000) %}{{ big }}{% endfor %}", CHARS),
        ("{{ big | replace('', big) }}", CHARS),
        ("{{ range(99999) | join(big) }}", CHARS),
        ("{% set a = 'x' * 999 %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}", CHARS),
        ("{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}", CHARS),
        ("{% for i in range(1000000) %}{% endfor %}", "range is limited to 100,000 numbers"),
        ("{% for i in range(99999) %}" * 2 + "{% endfor %}" * 2, WORK),
        ("{% set v %}{% for i in range(99999) %}" + "A" * 9999 + "{% endfor %}{% endset %}.", WORK),
        ("{% for i in range(99999) %}{% set z = big ~ 'a' %}{% endfor %}", WORK),
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
            WORK,
        ),
        ("{{ 1.5 | round(100000000, 'ceil') }}", "round takes at most 30 places"),
        ("{{ 1 | round(-5000000) }}", "round takes at most 30 places"),
        ("{{ [1] | map('round', -5000000) | list }}", "round takes at most 30 places"),
        (LOOP.format("l | select('in', l) | list"), WORK),
        (LOOP.format("-1 in l"), WORK),
        (LOOP.format("l == m"), WORK),
        (LOOP.format("'a' in range(100000)"), WORK),
        (LOOP.format("'aab' in 'a' * 900000"), WORK),
        (LOOP.format("l[1:] and 1"), WORK),
        (LOOP.format("l is eq m"), WORK),
        (LOOP.format("l | sort and 1"), WORK),
        ("{% set l = range(100000) | list %}{{ l | map(attribute='real.' * 900) | list }}", WORK),
        ("{{ ('f' * 990000) | int(0, 16) }}", "int reads at most 100 characters"),
        ("{{ '%999999999d' is odd }}", "'%999999999d' is not a whole number"),
        ("{{ '%999999999d' is divisibleby(3) }}", "'%999999999d' is not a whole number"),
        (
            "{{ ('a' * 500000) | trim('b' * 400000 ~ 'a') }}",
            "strips at most 100 different characters",
        ),
        (
            "{{ ('a' * 500000).strip('b' * 400000 ~ 'a') }}",
            "strips at most 100 different characters",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", DEEP),
        ("{% for w in words recursive %}{{ loop(words) }}{% endfor %}", DEEP),
    ],
)
def test_blow_ups_end(template, problem):
    """A template that would not end, or would fill the memory, is stopped by its budget."""
    assert _refused(template) == f"template 'w': prompt 'q1': {problem}"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ x }}", None),
        ([{"role": "user", "content": "{{ x }}"}], None),
        ("  ", "is empty"),
        (3, "must be a text or a list of messages, got 3"),
        ([], "must be a text or a list of messages, got []"),
        ("{{ x", "unexpected end of template, expected 'end of print statement'"),
        ("a\n{% if %}", "line 2: Expected an expression, got 'end of statement block'"),
        ("{% include 'x' %}", "other templates cannot be loaded"),
        ("{% extends 'x' %}", "other templates cannot be loaded"),
        ("{{ x | uper }}", "unknown filter 'uper', did you mean 'upper'?"),
        ("(" * 9 + "{{" + "(" * 9999 + "1", "is nested too deeply"),
        ("{{ 0x" + "f" * 90_000 + " // 3 }}", "holds a number that is too long"),
        ("{{ " + "9" * 5_000 + " }}", "holds a number that is too long"),
        (["hi"], "message 1 must have role and content and nothing else, got 'hi'"),
        (
            [{"role": "tool", "content": "x"}],
            "message 1: role must be one of system, user, assistant, got 'tool'",
        ),
        ([{"role": "user", "content": 1}], "message 1: content must be text, got 1"),
        ([{"role": "user", "content": "{{"}], "message 1: unexpected 'end of template'"),
        ([{"role": "system", "content": "x"}], "needs a message that is not a system message"),
    ],
)
def test_check(template, problem):
    """A template is checked without a prompt, and render refuses what check refuses."""
    assert templates.check(template) == problem
    if problem is not None:
        assert _refused(template) == f"template 'w': {problem}"


@settings(max_examples=50)
@given(TEXT, st.dictionaries(st.from_regex(r"v_[a-z]{1,5}", fullmatch=True), TEXT))
def test_values_are_never_read_as_templates(text, values):
    """What stands in a prompt goes through a template unchanged, braces and all."""
    hostile = "{{ ''.__class__ }}{% for %}" + text
    prompt = Prompt("p", ({"role": "user", "content": hostile},), vars=values)
    assert _text("{{ input }}", prompt) == hostile
    for name, value in values.items():
        assert _text("{{ " + name + " }}", prompt) == value


def test_a_variable_of_the_prompt_goes_before_the_built_in_ones():
    """A data set may have a column called input."""
    prompt = Prompt("p", ({"role": "user", "content": "message"},), vars={"input": "column"})
    assert _text("{{ input }}", prompt) == "column"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ d.keys }}", "keys is a function, which cannot be written out; call it: keys()"),
        ("{{ [d.keys] }}", "keys is a function, which cannot be written out; call it: keys()"),
        ("{{ d.keys ~ '' }}", "keys is a function, which cannot be written out; call it: keys()"),
        (
            "{{ [range] | join }}",
            "_range is a function, which cannot be written out; call it: _range()",
        ),
        (
            "{{ 'ab' | map('upper') }}",
            "a generator cannot be written out; make it a list (| list) or a text (| join)",
        ),
        (
            "{{ d.values() | string }}",
            "a dict_values cannot be written out; make it a list (| list) or a text (| join)",
        ),
        (
            "{{ range(3) }}",
            "a range cannot be written out; make it a list (| list) or a text (| join)",
        ),
        ("{{ self }}", "'self' is undefined; known: d, input, metadata, system"),
    ],
)
def test_only_values_are_written_out(template, problem):
    """What has no text of its own, the same in every run, is refused."""
    prompt = dataclasses.replace(PROMPT, vars={"d": {"items": [1], "a": None}})
    assert _refused(template, prompt) == f"template 'w': prompt 'q1': {problem}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ d.items }} {{ d['items'] }}", "[1, 2.5] [1, 2.5]"),
        ("{{ d | items | list }}", "[('items', [1, 2.5]), ('a', None), ('ok', True)]"),
        ("{{ self }} {{ self ~ '!' }}", "me me!"),
        ("{{ d }}", "{'items': [1, 2.5], 'a': None, 'ok': True}"),
        ("{{ 2.567 | round(2) }} {{ 2.1 | round(0, 'ceil') | int }} {{ '12' | int }}", "2.57 3 12"),
        (
            "{{ 3 is odd }} {{ 4 is divisibleby(2) }} {{ 3 in [3] }} {{ 7 // 2 - 1 }}",
            "True True True 2",
        ),
        ("{{ ' a ' | trim }} {{ 'xax'.strip('x') }} {{ 'abc'[1:] }}", "a a bc"),
    ],
)
def test_keys_go_before_methods(template, text):
    """A variable's own key is what its name means, and a variable may be called self."""
    values = {"d": {"items": [1, 2.5], "a": None, "ok": True}, "self": "me"}
    assert _text(template, dataclasses.replace(PROMPT, vars=values)) == text


def test_long_numbers_are_not_reckoned_with():
    """A number of thousands of digits may come in a prompt, but arithmetic on it ends."""
    prompt = dataclasses.replace(PROMPT, vars={"n": 10**4000})
    for operator in ("//", "+", "-", "%"):
        assert _refused(f"{{{{ n {operator} 3 }}}}", prompt) == (
            f"template 'w': prompt 'q1': {operator} on numbers this large is not available"
        )
