"""The error tree and its messages."""

from __future__ import annotations

import inspect

import pytest

from workbench import errors


def test_tree_is_as_drawn():
    """The tree in the module docstring is the tree of the classes."""
    tree = {
        "ParamError": "WorkbenchError",
        "PromptSetError": "WorkbenchError",
        "StudyError": "WorkbenchError",
        "ModelError": "WorkbenchError",
        "ModelNotFound": "ModelError",
        "UnsupportedQuantization": "ModelError",
        "CorruptCheckpoint": "ModelError",
        "AdapterError": "WorkbenchError",
        "AdapterMismatch": "AdapterError",
        "AdapterInert": "AdapterError",
        "EngineError": "WorkbenchError",
        "OutOfMemory": "EngineError",
        "ContextOverflow": "EngineError",
        "SettingInert": "EngineError",
        "EngineUnavailable": "EngineError",
        "StoreError": "WorkbenchError",
        "ScorerError": "WorkbenchError",
    }
    found = {
        name: next(base.__name__ for base in cls.__mro__[1:] if not base.__name__.startswith("_"))
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, Exception) and name != "WorkbenchError" and not name.startswith("_")
    }
    assert found == tree
    assert all(name in (errors.__doc__ or "") for name in tree)


def test_param_error_says_field_range_and_value():
    """A ParamError carries its parts and says them."""
    error = errors.ParamError("top_p", "a number", "x")
    assert str(error) == "top_p must be a number, got 'x'"
    assert (error.field, error.allowed, error.got) == ("top_p", "a number", "x")


def test_one_problem_is_one_line():
    """A single problem stands on the line of its file."""
    assert str(errors.StudyError("s.yaml", "line 1: no")) == "s.yaml: line 1: no"


def test_several_problems_are_listed():
    """Several problems are counted and listed, and kept one by one."""
    error = errors.PromptSetError("prompts", ["a", "b"])
    assert str(error) == "prompts: 2 problems\n  - a\n  - b"
    assert error.problems == ("a", "b")


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ("temprature", "unknown setting 'temprature', did you mean 'temperature'?"),
        ("Top-P", "unknown setting 'Top-P', did you mean 'top_p'?"),
        ("zzz", "unknown setting 'zzz'; known: temperature, top_p"),
        (3, "unknown setting 3; known: temperature, top_p"),
    ],
)
def test_unknown_names_suggest_the_nearest(got, message):
    """An unknown name gets the nearest known one, or all of them."""
    assert errors.unknown("setting", got, ["temperature", "top_p"]) == message
