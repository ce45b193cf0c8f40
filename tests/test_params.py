"""Decoding settings: ranges, unknown names, canonical form."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from strategies import params

from workbench.errors import ParamError
from workbench.params import FIELDS, SEED_MAX, SamplingParams


def test_defaults_are_the_cards():
    """Without settings, the model card's defaults hold and everything else is off."""
    assert SamplingParams().to_dict() == dict.fromkeys(FIELDS) | {
        "max_tokens": 256,
        "temperature": 0.6,
    }


@pytest.mark.parametrize(
    ("field", "low", "high", "below", "above"),
    [
        ("max_tokens", 1, 10**6, 0, None),
        ("temperature", 0, 5, -0.01, 5.01),
        ("top_p", 0, 2, -0.01, 2.01),
        ("top_k", 1, 10**6, 0, None),
        ("min_p", 0, 1, -0.01, 1.01),
        ("seed", 1, SEED_MAX, 0, SEED_MAX + 1),
        ("repetition_penalty", 1e-9, 2, 0, 2.01),
        ("frequency_penalty", -2, 2, -2.01, 2.01),
        ("presence_penalty", -2, 2, -2.01, 2.01),
    ],
)
def test_ranges(field, low, high, below, above):
    """The ends of every range are in, and what is beyond them is not."""
    for value in (low, high):
        assert getattr(SamplingParams(**{field: value}), field) == value
    for value in (below, above, "1", True, math.nan, math.inf):
        if value is not None:
            with pytest.raises(ParamError) as caught:
                SamplingParams(**{field: value})
            assert caught.value.field == field
            assert caught.value.got is value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 9}, "temperature must be a number at least 0 and at most 5, got 9"),
        ({"temperature": None}, "temperature must be a number at least 0 and at most 5, got None"),
        ({"top_k": 0}, "top_k must be an integer at least 1, or none, got 0"),
        ({"top_k": 1.5}, "top_k must be an integer at least 1, or none, got 1.5"),
        (
            {"repetition_penalty": 0},
            "repetition_penalty must be a number greater than 0 and at most 2, or none, got 0",
        ),
        ({"seed": 0}, "seed must be an integer at least 1 and at most 9999999999, or none, got 0"),
        ({"stop": [""]}, "stop must be a non-empty text, or a list of them, or none, got ['']"),
        ({"stop": 3}, "stop must be a non-empty text, or a list of them, or none, got 3"),
        (
            {"topp": 1},
            (
                "setting must be one of max_tokens, temperature, top_p, top_k, min_p, seed, repetition_penalty, "
                "frequency_penalty, presence_penalty, stop, got 'topp'"
            ),
        ),
    ],
)
def test_messages(values, message):
    """A refusal names the field, what is allowed and what came."""
    with pytest.raises(ParamError) as caught:
        SamplingParams.from_dict(values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "values",
    [
        {"top_k": 51},
        {"frequency_penalty": -1},
        {"presence_penalty": -1},
        {"min_p": 0.1},
        {"stop": "x"},
    ],
)
def test_card_profile_is_stricter(values):
    """What only the workbench accepts is refused under the card's profile."""
    assert SamplingParams.from_dict(values)
    with pytest.raises(ParamError):
        SamplingParams.from_dict(values, profile="card")


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ({"temperature": 0, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "seed": 3}, {"temperature": 0}),
        ({"temperature": 0.7, "top_k": 1}, {"temperature": 0}),
        ({"top_p": 0}, {"temperature": 0}),
        ({"top_p": 1}, {}),
        ({"top_p": 1.7}, {}),
        ({"min_p": 0}, {}),
        ({"repetition_penalty": 1, "frequency_penalty": 0, "presence_penalty": 0}, {}),
        (
            {"temperature": 0, "repetition_penalty": 1.1},
            {"temperature": 0, "repetition_penalty": 1.1},
        ),
        ({"top_p": 0.99}, {"top_p": 0.99}),
        ({"stop": "x"}, {"stop": ["x"]}),
    ],
)
def test_canonical_drops_what_is_inert(written, canonical):
    """Settings without effect go, those with effect stay."""
    assert SamplingParams(**written).canonical() == SamplingParams(**canonical)


@settings(max_examples=100)
@given(params())
def test_canonical_is_stable_and_keeps_greed(written):
    """Canonical form is reached in one step and is greedy if and only if the settings are."""
    canonical = written.canonical()
    assert canonical.canonical() == canonical
    assert canonical.greedy == written.greedy == (canonical.temperature == 0)
    assert canonical.max_tokens == written.max_tokens
    assert canonical.stop == written.stop


@settings(max_examples=100)
@given(params())
def test_dict_round_trip(written):
    """Settings survive being written as a mapping."""
    assert SamplingParams.from_dict(written.to_dict()) == written


def test_settings_cannot_be_changed():
    """Settings are values: changing one makes another, and checks it."""
    made = SamplingParams(temperature=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.temperature = 2
    assert made.replace(temperature=2).temperature == 2
    with pytest.raises(ParamError):
        made.replace(temperature=9)


def test_repr_shows_only_what_is_set():
    """The repr is short enough for an error message."""
    made = SamplingParams(top_k=5, stop="x")
    assert repr(made) == "SamplingParams(max_tokens=256, temperature=0.6, top_k=5, stop=['x'])"
