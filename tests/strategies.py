"""Hypothesis strategies that several test files share."""

from __future__ import annotations

from hypothesis import strategies as st

from workbench.params import SEED_MAX, SamplingParams

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20
).filter(str.strip)
"""Text with something to see in it."""

_SETTINGS = {
    "max_tokens": st.integers(1, 512),
    "temperature": st.one_of(st.just(0), st.floats(0, 5)),
    "top_p": st.none() | st.floats(0, 2),
    "top_k": st.none() | st.integers(1, 200),
    "min_p": st.none() | st.floats(0, 1),
    "seed": st.none() | st.integers(1, SEED_MAX),
    "repetition_penalty": st.none() | st.floats(0, 2, exclude_min=True),
    "frequency_penalty": st.none() | st.floats(-2, 2),
    "presence_penalty": st.none() | st.floats(-2, 2),
    "stop": st.none() | st.lists(TEXT, min_size=1, max_size=2),
}


def params() -> st.SearchStrategy[SamplingParams]:
    """Any valid settings."""
    return st.builds(SamplingParams, **_SETTINGS)


def grids() -> st.SearchStrategy[dict[str, list[object]]]:
    """A product of a few settings with a few values each, repeated ones and inert ones included."""
    choices = {
        "temperature": [0, 0.3, 1.0],
        "top_k": [None, 1, 10],
        "top_p": [None, 0.9, 1.0, 2],
        "repetition_penalty": [None, 1.0, 1.15],
    }
    values = {
        name: st.lists(st.sampled_from(v), min_size=1, max_size=3) for name, v in choices.items()
    }
    return st.fixed_dictionaries({}, optional=values)


def rows() -> st.SearchStrategy[list[dict[str, object]]]:
    """Valid prompt rows with unique ids."""
    json_values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | TEXT,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
        max_leaves=4,
    )
    message = st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"]), "content": TEXT}
    )
    row = st.fixed_dictionaries(
        {"id": TEXT, "messages": st.lists(message, min_size=1, max_size=3)},
        optional={
            "target": json_values,
            "metadata": st.dictionaries(TEXT, json_values, max_size=2),
            "group": TEXT,
            "tools": st.lists(st.dictionaries(TEXT, json_values, max_size=2), max_size=2),
        },
    )
    return st.lists(row, min_size=1, max_size=5, unique_by=lambda r: r["id"])
