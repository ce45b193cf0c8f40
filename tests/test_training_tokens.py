"""Rows as tokens, batches, and the loss on them, against a plain computation written here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import make_dense
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers import AutoTokenizer

from workbench.engines.local import demo_model
from workbench.engines.local.loader import load
from workbench.errors import ModelError, PromptSetError
from workbench.training.loop import answer_losses, mean_loss
from workbench.training.rows import read
from workbench.training.tokens import IGNORED, Batches, Encoder, Tokens, collate, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.engines.local.loader import LoadedModel

END = 2
"""<|im_end|> of the demo model's tokenizer."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The demo model's."""
    return AutoTokenizer.from_pretrained(demo_model.ensure(progress=False), local_files_only=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny random model."""
    folder = tmp_path_factory.mktemp("tokens") / "dense"
    make_dense(folder, demo_model.ensure(progress=False))
    return load(folder, device="cpu", progress=False)


def example(row: dict[str, Any]) -> Any:
    """One row, read."""
    return read([row]).examples[0]


def test_a_row_is_the_engines_prompt_and_the_answer(tokenizer: Any) -> None:
    """The prompt's tokens are those the engine would generate from; the answer ends with the end of turn and nothing else."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 3 + 4?"},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": "And 12 + 34?"},
    ]
    row = Encoder(tokenizer, [END])(example({"messages": messages, "target": "46, of course"}))
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    asked = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert list(row.ids[: -row.n_answer]) == asked
    assert row.ids[-1] == END
    assert tokenizer.decode(row.ids[-row.n_answer :]) == "46, of course<|im_end|>"


class Odd:
    """A tokenizer whose template does as it is told; a token for each character, and one for the end."""

    eos_token_id = None
    chat_template = "as told"

    def __init__(self, template: Callable[[list[Any], bool], str]) -> None:
        self._template = template

    def apply_chat_template(
        self, messages: list[Any], *, tools: Any, add_generation_prompt: bool, tokenize: bool
    ) -> str:
        """The template's text."""
        assert not tokenize
        assert tools is None
        return self._template(messages, add_generation_prompt)

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        """Characters, "$" as the end token."""
        assert not add_special_tokens
        return {"input_ids": [END if c == "$" else ord(c) for c in text]}

    def decode(self, ids: list[int]) -> str:
        """The other way round."""
        return "".join("$" if i == END else chr(i) for i in ids)


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (
            lambda ms, ask: f"{ms[0]['content']}>" + ("" if ask else f"{ms[-1]['content']}$\n"),
            "yes$",
        ),
        (
            lambda ms, ask: f"{ms[0]['content']}>" + ("" if ask else f"{ms[-1]['content']}$$"),
            "yes$",
        ),
        (
            lambda ms, ask: f"{ms[0]['content']}>" + ("" if ask else f"{ms[-1]['content']}\n"),
            "yes\n$",
        ),
        (lambda ms, ask: "".join(m["content"] for m in ms) + (">" if ask else "$"), "yes$"),
        (
            lambda ms, ask: (
                f"{ms[0]['content']}>" + ("" if ask else f"<think></think>{ms[-1]['content']}$")
            ),
            "<think></think>yes$",
        ),
    ],
    ids=["newline after", "two ends", "no end", "another form", "words before"],
)
def test_templates(template: Callable[[list[Any], bool], str], answer: str) -> None:
    """What a template writes after the end of turn is not trained on; one that writes no end gets one."""
    row = Encoder(Odd(template), [END])(example({"prompt": "ok", "target": "yes"}))
    said = "".join("$" if i == END else chr(i) for i in row.ids[-row.n_answer :])
    assert said == answer
    assert "".join(map(chr, row.ids[: -row.n_answer])) == "ok>"


def test_a_template_that_refuses_a_row() -> None:
    """The row is named."""

    def refuse(_: list[Any], __: bool) -> str:
        raise TemplateError("only one system message")

    with pytest.raises(PromptSetError) as caught:
        Encoder(Odd(refuse), [END])(example({"prompt": "ok", "target": "yes"}))
    assert (
        str(caught.value) == "row 1: the model's chat template refuses it: only one system message"
    )


def last(ms: list[Any], ask: bool) -> str:
    """A plain template: what was asked, what was answered."""
    return f"{ms[0]['content']}>" + ("" if ask else f"{ms[-1]['content']}$\n")


@pytest.mark.parametrize(
    ("template", "answer", "problem"),
    [
        (last, "costs 5$ or more", "the answer holds '$', which ends an answer; take it out"),
        (last, "yes$", "the answer holds '$', which ends an answer; take it out"),
        (
            lambda ms, _: f"{ms[0]['content']}>",
            "yes",
            "the model's chat template leaves the answer out, or part of it, so it cannot be trained on",
        ),
        (
            lambda ms, ask: last([*ms[:-1], {"content": ms[-1]["content"].split("/")[-1]}], ask),
            "first/second",
            "the model's chat template leaves the answer out, or part of it, so it cannot be trained on",
        ),
    ],
    ids=["end token within", "end token last", "answer dropped", "part dropped"],
)
def test_an_answer_is_never_cut(template: Any, answer: str, problem: str) -> None:
    """An answer that would be trained on only in part, or not at all, is refused with its place."""
    with pytest.raises(PromptSetError) as caught:
        Encoder(Odd(template), [END])(example({"prompt": "ok", "target": answer}))
    assert str(caught.value) == f"row 1: {problem}"


def test_a_template_may_set_an_answer_out_otherwise() -> None:
    """Other spaces and line breaks are no part left out."""

    def airy(ms: list[Any], ask: bool) -> str:
        return last([*ms[:-1], {"content": ms[-1]["content"].replace("|", "|\n\n").strip()}], ask)

    row = Encoder(Odd(airy), [END])(example({"prompt": "ok", "target": " a|b "}))
    assert "".join(map(chr, row.ids[-row.n_answer : -1])) == "a|\n\nb"


def test_models_that_cannot_chat() -> None:
    """Without a chat template, or without a token that ends an answer, there is nothing to train on."""
    silent = Odd(last)
    silent.chat_template = ""
    with pytest.raises(ModelError) as caught:
        Encoder(silent, [END])
    assert str(caught.value) == "the model has no chat template, so it cannot be trained on chats"
    with pytest.raises(ModelError) as caught:
        Encoder(Odd(last), [])
    assert str(caught.value) == "the model names no end token, so its answers would have no end"


def test_rows_too_long_are_told_apart() -> None:
    """A row of exactly the limit fits; longer ones come back in words."""
    examples = read([{"prompt": "a" * n, "target": "x"} for n in (3, 4, 5)]).examples

    def encoder(example: Any) -> Tokens:
        return Tokens(tuple(map(ord, example.messages[0]["content"])), 1)

    rows, long = encode(examples, encoder, 4)
    assert [(e.place, len(t.ids)) for e, t in rows] == [("row 1", 3), ("row 2", 4)]
    assert long == ["row 3: 5 tokens"]


# ---------------------------------------------------------------------------------------------------- batches

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=200)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 99), st.integers(0, 5))
def test_an_epoch_has_every_row_once(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    """Batches are full but the last, hold every row once, and are the same for the same seed and epoch."""
    batches = list(Batches(lengths, size, seed, lambda: epoch))
    assert len(batches) == len(Batches(lengths, size, seed, lambda: epoch))
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    assert all(len(b) == size for b in batches[:-1])
    assert batches == list(Batches(lengths, size, seed, lambda: epoch))


def test_order_depends_on_seed_and_epoch() -> None:
    """Another seed, and another epoch, is another order."""
    lengths = [i % 7 for i in range(64)]
    orders = {str(list(Batches(lengths, 4, s, lambda e=e: e))) for s in range(3) for e in range(3)}
    assert len(orders) == 9


def test_rows_of_a_batch_are_of_similar_length() -> None:
    """Padding is a small part of what it is without grouping."""
    lengths = [(37 * i) % 101 for i in range(400)]

    def padding(batches: list[list[int]]) -> int:
        return sum(max(lengths[i] for i in b) - lengths[j] for b in batches for j in b)

    plain = [list(range(i, i + 8)) for i in range(0, 400, 8)]
    assert padding(list(Batches(lengths, 8, 0, lambda: 0))) < 0.25 * padding(plain)


@given(
    st.lists(
        st.integers(1, 12).flatmap(
            lambda n: st.tuples(
                st.lists(st.integers(3, 99), min_size=n + 1, max_size=n + 9), st.just(n)
            )
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_batch_holds_its_rows(pairs: list[tuple[list[int], int]]) -> None:
    """Behind the padding each row stands whole; labels are its answer's tokens and nothing else."""
    rows = [Tokens(tuple(ids), n) for ids, n in pairs]
    batch = collate(rows, 0)
    for i, row in enumerate(rows):
        n = len(row.ids)
        mask = batch["attention_mask"][i]
        assert mask.tolist() == [0] * (len(mask) - n) + [1] * n
        assert batch["input_ids"][i, len(mask) - n :].tolist() == list(row.ids)
        assert batch["position_ids"][i, len(mask) - n :].tolist() == list(range(n))
        labels = batch["labels"][i].tolist()
        assert [x for x in labels if x != IGNORED] == list(row.ids[-row.n_answer :])
        assert labels[: len(labels) - row.n_answer] == [IGNORED] * (len(labels) - row.n_answer)


# ------------------------------------------------------------------------------------------------------- loss


def plain_losses(model: Any, row: Tokens) -> torch.Tensor:
    """Negative log-likelihood of each answer token of one row, from all logits of the row alone."""
    ids = torch.tensor([row.ids])
    logits = model(input_ids=ids).logits[0].double()
    chances = torch.log_softmax(logits[:-1], -1)
    return -chances.gather(1, ids[0, 1:, None])[-row.n_answer :, 0]


def some_rows() -> list[Tokens]:
    """Rows of several lengths."""
    rng = torch.Generator().manual_seed(0)
    return [
        Tokens(tuple(torch.randint(3, 49152, (n,), generator=rng).tolist()), answer)
        for n, answer in ((4, 1), (20, 7), (11, 10), (33, 2))
    ]


def test_losses_are_those_of_each_row_alone(tiny: LoadedModel) -> None:
    """Padding, neighbours and computing fewer logits change nothing; padding adds nothing."""
    rows = some_rows()
    losses = answer_losses(tiny.model, collate(rows, 0))
    for row, got in zip(rows, losses, strict=True):
        torch.testing.assert_close(
            got[-row.n_answer :].double(), plain_losses(tiny.model, row), rtol=1e-5, atol=1e-5
        )
        assert (got[: -row.n_answer] == 0).all()
    other = collate(rows, 777)
    torch.testing.assert_close(answer_losses(tiny.model, other), losses, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_held_out_loss_is_a_mean_over_tokens(tiny: LoadedModel, size: int) -> None:
    """Every answer token counts the same, however the rows fall into batches."""
    rows = some_rows()
    wanted = torch.cat([plain_losses(tiny.model, row) for row in rows]).mean()
    assert mean_loss(tiny.model, rows, size, 0) == pytest.approx(float(wanted), rel=1e-5)
