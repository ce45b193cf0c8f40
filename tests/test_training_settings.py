"""Settings of a training are checked at birth and survive JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ParamError
from workbench.training import Settings

GOOD = st.fixed_dictionaries(
    {},
    optional={
        "rank": st.integers(1, 1024),
        "alpha": st.floats(0.01, 10_000),
        "rslora": st.booleans(),
        "dropout": st.floats(0, 0.9),
        "targets": st.one_of(st.just("all"), st.lists(st.sampled_from("abc"), min_size=1)),
        "learning_rate": st.floats(1e-6, 1),
        "batch_size": st.integers(1, 4096),
        "gradient_accumulation": st.integers(1, 4096),
        "gradient_checkpointing": st.booleans(),
        "epochs": st.integers(1, 1000),
        "max_length": st.integers(8, 10_000),
        "skip_long": st.booleans(),
        "validation": st.floats(0, 0.9),
        "checks": st.integers(1, 1000),
        "patience": st.integers(0, 1000),
        "seed": st.integers(0, 2**32 - 1),
    },
)


@given(GOOD)
def test_settings_survive_json(given_: dict[str, Any]) -> None:
    """What a record holds gives the same settings again."""
    settings = Settings.of(given_)
    assert Settings.of(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("rank", 0, "a whole number from 1 to 1024"),
        ("rank", 8.0, "a whole number from 1 to 1024"),
        ("epochs", True, "a whole number from 1 to 1000"),
        ("seed", -1, "a whole number from 0 to 4294967295"),
        ("max_length", 7, "a whole number from 8 to 1000000"),
        ("learning_rate", 0, "a number above 0, up to 1"),
        ("learning_rate", float("nan"), "a number above 0, up to 1"),
        ("alpha", "16", "a number above 0, up to 10000"),
        ("dropout", 0.95, "a number from 0 to 0.9"),
        ("validation", -0.1, "a number from 0 to 0.9"),
        ("validation", float("inf"), "a number from 0 to 0.9"),
        ("rslora", 1, "true or false"),
        ("gradient_accumulation", 0, "a whole number from 1 to 4096"),
        ("gradient_checkpointing", "yes", "true or false"),
        ("targets", [], "'all', or names of layers"),
        ("targets", ["q_proj", ""], "'all', or names of layers"),
        ("targets", 3, "'all', or names of layers"),
        ("lr", 1e-3, "a setting of the training: unknown setting 'lr'; known: {known}"),
        ("epoch", 2, "a setting of the training: unknown setting 'epoch', did you mean 'epochs'?"),
    ],
)
def test_bad_settings_are_named(name: str, value: Any, allowed: str) -> None:
    """The message has the name, what is allowed, and what was given."""
    known = ", ".join(Settings().to_dict())
    with pytest.raises(ParamError) as caught:
        Settings.of({name: value})
    assert str(caught.value) == f"{name} must be {allowed.format(known=known)}, got {value!r}"


def test_names_of_layers_are_in_one_order() -> None:
    """The same layers are the same settings, however they are written."""
    assert Settings(targets=["v_proj", "q_proj", "v_proj"]) == Settings(
        targets=("q_proj", " v_proj")
    )  # type: ignore[arg-type]
    assert Settings(targets=["all"]) == Settings() == Settings(targets="all")  # type: ignore[arg-type]
    assert Settings(targets="q_proj").targets == ("q_proj",)
