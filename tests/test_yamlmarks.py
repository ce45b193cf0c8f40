"""YAML with line numbers."""

from __future__ import annotations

import pytest

from workbench import yamlmarks


def test_lines_of_values():
    """Every value has its line; an unknown path has that of the nearest thing around it."""
    marked = yamlmarks.read("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n")
    assert marked.data == {"a": 1, "b": ["x", {"c": 2, "d": 3}]}
    paths = [("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "d"), ("b", 1, "zz"), ("zz",), ()]
    assert [marked.line(p) for p in paths] == [1, 2, 3, 4, 5, 4, 1, 1]


BOMB = "a0: &a0 {k: v}\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        ("# only this\n", "the file is empty"),
        ("a: 1\na: 2\n", "line 2: 'a' is already given at line 1"),
        ("a: {b: 1,\n b: 2}\n", "line 2: 'b' is already given at line 1"),
        ("a: [1\nb: 2\n", "line 2, column 2: not YAML: expected ',' or ']', but got ':'"),
        (
            "a: 1\n\tb: 2\n",
            "line 2, column 1: not YAML: found character '\\t' that cannot start any token",
        ),
        ("a: &x [*x]\n", "line 1, column 4: not YAML: refers to itself"),
        (BOMB, "line 1, column 13: not YAML: aliases stand for more than 100,000 values"),
        (
            f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 101)}]\n",
            "line 1, column 4: not YAML: aliases stand for more than 100,000 values",
        ),
        ("a: *nobody\n", "line 1, column 4: not YAML: found undefined alias 'nobody'"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: not YAML: but found another document"),
        (
            "a: !!python/object:os.system x\n",
            "line 1, column 4: not YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'",
        ),
        ("a: 1\nb: \x00\n", "line 2: not YAML: special characters are not allowed"),
        ("a: 2024-13-01\n", "line 1: not YAML: month must be in 1..12"),
        ("[" * 5000, "line 1: not YAML: nested too deeply"),
    ],
)
def test_problems(text, problem):
    """What is wrong with a document is said with its line, and nothing is raised."""
    assert list(yamlmarks.read(text).problems) == [problem]


def test_merge_keys_work():
    """Anchors and merge keys are YAML, and no repeated keys."""
    marked = yamlmarks.read("a: &x {k: 1}\nb:\n  <<: *x\n  l: 2\n")
    assert (marked.data["b"], marked.problems) == ({"k": 1, "l": 2}, ())
