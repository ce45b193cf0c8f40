"""Which prompts calibrate: never those that are compared on, and as the model reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import PromptSetError
from workbench.prompts import PromptSet
from workbench.quantizing import calibration
from workbench.quantizing.calibration import divide


def inline(n: int, n_groups: int = 0) -> PromptSet:
    """Prompts that ask different things, some in groups of two."""
    rows = [
        {"id": f"p{i}", "prompt": f"Say {i}."}
        | ({"group": f"g{i // 2}"} if i < 2 * n_groups else {})
        for i in range(n)
    ]
    return PromptSet.from_records(rows)


@given(
    n=st.integers(2, 60),
    n_groups=st.integers(0, 20),
    n_prompts=st.integers(1, 70),
    n_check=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_what_calibrates_is_never_compared_on(n, n_groups, n_prompts, n_check, seed):
    """No prompt and no group is on both sides, numbers are kept to, and the same seed draws the same."""
    prompts = inline(n, min(n_groups, n // 2))
    try:
        found = divide(prompts, n_prompts, seed, n_check=n_check)
    except PromptSetError:
        assert n_groups > 0  # one group may be all there is
        return
    assert found.check is not None
    sides = [{p.cluster for p in side} for side in (found.calibrate, found.check)]
    assert sides[0].isdisjoint(sides[1])
    assert 1 <= len(found.calibrate) <= n_prompts
    assert 1 <= len(found.check) <= n_check
    again = divide(prompts, n_prompts, seed, n_check=n_check)
    assert [p.id for p in again.calibrate] == [p.id for p in found.calibrate]
    if not n_groups:
        assert len(found.calibrate) == min(n_prompts, max(1, n - min(n_check, max(1, n // 4))))


def test_another_set_to_compare_on_loses_what_calibrates():
    """Prompts of the other set that ask what a calibrating one asks are left out, whatever their id and case."""
    other = PromptSet.from_records(
        [
            {"id": "x", "prompt": "say 3"},
            {"id": "y", "prompt": "Sing."},
            {"id": "p3", "prompt": "Dance."},
        ]
    )
    found = divide(inline(10), 10, 0, check=other)
    assert found.check is not None
    assert [p.id for p in found.check] == ["y", "p3"]
    assert (len(found.calibrate), found.n_left_out) == (10, 1)


def test_nothing_left_to_compare_on_is_refused():
    """One prompt cannot do both; without a comparison it may calibrate."""
    with pytest.raises(PromptSetError) as caught:
        divide(inline(1), 5, 0)
    assert str(caught.value) == (
        "inline: no prompt is left to compare on: of 1, all calibrate or ask the same as one that does; give more, or "
        "others to compare on (check_prompts, --check-prompts), or do not compare (check=False, --no-check)"
    )
    alone = divide(inline(1), 5, 0, n_check=None)
    assert (len(alone.calibrate), alone.check) == (1, None)


def test_prompts_that_are_only_variables_are_refused():
    """There is nothing to read in them."""
    prompts = PromptSet.from_records([{"id": "a", "vars": {"x": 1}}, {"id": "b", "prompt": "Hi"}])
    with pytest.raises(PromptSetError) as caught:
        divide(prompts, 5, 0)
    assert str(caught.value) == (
        "inline: 1 of 2 prompts are only variables (first: 'a'); give prompts that say something"
    )


def test_by_default_all_sets_that_ship_calibrate():
    """All of them are drawn from, and prompts of each kind remain."""
    found = divide(None, 128, 0)
    assert found.check is not None
    assert (len(found.calibrate), len(found.check)) == (128, 64)
    assert len({p.id.split("-")[0] for p in found.calibrate}) == 12


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("seven", "seven"),
        (7, "7"),
        (["Brussels", "Bruxelles"], "Brussels"),
        ({"min": 3}, None),
        (None, None),
        ([], None),
    ],
)
def test_the_target_is_the_answer_where_it_is_one(target, said):
    """Text and numbers are, of several the first; an object is not."""
    row = {"id": "a", "prompt": "x"} | ({} if target is None else {"target": target})
    assert calibration.answer(PromptSet.from_records([row])["a"]) == said


@pytest.mark.model
def test_prompts_are_read_as_the_engine_renders_them(demo_engine):
    """Without an answer exactly the engine's prompt; with one the same, then the answer and the template's end of turn."""
    prompts = PromptSet.from_records(
        [{"id": "a", "prompt": "Hi"}, {"id": "b", "prompt": "Hi", "target": "Ho"}]
    )
    asked, answered = (calibration.encode(p, demo_engine.tokenizer) for p in prompts)
    shown = demo_engine.render(prompts["a"].messages)
    assert demo_engine.tokenizer.decode(asked) == shown
    assert demo_engine.tokenizer.decode(answered) == f"{shown}Ho<|im_end|>\n"


def test_a_prompt_that_the_template_refuses_is_named():
    """With its id and what the template said."""

    class Refusing:
        def apply_chat_template(self, *_: Any, **__: Any) -> str:
            """Refuse."""
            raise ValueError("no system message, please")

    with pytest.raises(PromptSetError) as caught:
        calibration.encode(inline(1)["p0"], Refusing())
    assert (
        str(caught.value) == "p0: the model's chat template refuses it: no system message, please"
    )


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1), st.integers(1, 12)
)
def test_blocks_are_the_texts_in_a_row(texts, length):
    """Blocks have one length, at most the one asked for, follow each other without a gap, and lose few tokens."""
    found = calibration.blocks(texts, length)
    tokens = [token for text in texts for token in text]
    joined = [token for block in found for token in block]
    assert len({len(block) for block in found}) == 1
    assert 1 <= len(found[0]) <= length
    assert joined == tokens[: len(joined)]
    assert len(tokens) - len(joined) < len(found)
