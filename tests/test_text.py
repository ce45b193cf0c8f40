"""Tokens to text: whole characters only, cut at stop texts, for byte-level and metaspace tokenizers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from workbench.engines.local import demo_model
from workbench.engines.local.text import StopTokens, StreamText, decode, find_stop

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.model

BROKEN = "\ufffd"


@functools.cache
def demo() -> Any:
    """The demo model's tokenizer, byte-level as Qwen's and Llama 3's."""
    return AutoTokenizer.from_pretrained(demo_model.ensure(progress=False), local_files_only=True)


@functools.cache
def metaspace() -> PreTrainedTokenizerFast:
    """A small tokenizer of the SentencePiece kind: spaces as a mark before words, bytes for the unknown."""
    words = [
        "\u2581",
        "a",
        "b",
        "c",
        ".",
        "ab",
        "bc",
        "\u2581a",
        "\u2581ab",
        "c.",
        "\u2581\u2581",
        "\u2581\u00e9",
    ]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *words]
    tokenizer = Tokenizer(
        models.BPE(
            {p: i for i, p in enumerate(pieces)},
            [("a", "b"), ("b", "c"), ("c", "."), ("\u2581", "a")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


TOKENIZERS = {"byte-level": demo, "metaspace": metaspace}
FIRST_PIECE = 259
"""Metaspace tokens from here on are no bytes."""


@functools.cache
def byte_tokens() -> list[int]:
    """Tokens of the demo tokenizer that hold part of a character."""
    return [i for i in range(len(demo())) if BROKEN in demo().decode([i])]


@functools.cache
def table(name: str) -> StopTokens:
    """The stop-token table of a tokenizer."""
    return StopTokens(TOKENIZERS[name](), len(TOKENIZERS[name]()), "cpu")


relaxed = settings(deadline=None)
"""The first example loads a tokenizer."""

# Letters of the metaspace vocabulary, accents, combining marks, CJK, emoji built of several characters.
CHARACTERS = "abc. \n\u00e9e\u0301\u4e2d\u6587\ud55c\U0001f600\U0001f469\u200d\U0001f680\U0001f1e9\U0001f1ea\u0939\u093f"
texts = st.one_of(st.text(CHARACTERS, max_size=30), st.text(max_size=30))
names = st.sampled_from(sorted(TOKENIZERS))


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A tokenizer's name and an answer: the tokens of a text, or any tokens.

    Byte-level, any tokens hold parts of characters that never become whole. Not so for metaspace: there one stray byte
    breaks the whole characters before it when they are decoded together, and a stream cannot take those back.
    """
    name = draw(names)
    tokenizer = TOKENIZERS[name]()
    if draw(st.booleans()):
        return name, tokenizer(draw(texts), add_special_tokens=False)["input_ids"]
    if name == "metaspace":
        one = st.integers(FIRST_PIECE, len(tokenizer) - 1)
    else:
        one = st.one_of(st.integers(0, len(tokenizer) - 1), st.sampled_from(byte_tokens()))
    return name, draw(st.lists(one, max_size=25))


@functools.cache
def has_tokens_for(character: str) -> bool:
    """Whether the demo tokenizer can say a character: it lacks the tokens of some bytes, and skips them."""
    return demo().decode(demo()(character, add_special_tokens=False)["input_ids"]) == character


@st.composite
def whole_texts(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A tokenizer's name and the tokens of a text that it can say."""
    name, text = draw(names), draw(texts.filter(lambda t: BROKEN not in t))
    ids = TOKENIZERS[name]()(text, add_special_tokens=False)["input_ids"]
    assume(name == "metaspace" or all(map(has_tokens_for, text)))
    return name, ids


@st.composite
def stopped_answers(draw: st.DrawFn) -> tuple[str, list[int], list[str]]:
    """An answer with stop texts, most of them pieces of it."""
    name, ids = draw(answers())
    text = decode(TOKENIZERS[name](), ids)
    stops = draw(st.lists(st.text(CHARACTERS, min_size=1, max_size=4), max_size=2))
    for _ in range(draw(st.integers(0, 2)) if text else 0):
        at = draw(st.integers(0, len(text) - 1))
        stops.append(text[at : at + draw(st.integers(1, 5))])
    return name, ids, [s for s in stops if BROKEN not in s]


def brute_force(tokenizer: Any, ids: Sequence[int], stops: Sequence[str]) -> tuple[str, int | None]:
    """The answer's text, and how many tokens it took to complete a stop text, looking after every token."""
    for n in range(1, len(ids) + 1):
        text = decode(tokenizer, ids[:n])
        at = find_stop(text, stops)
        if at is not None:
            return text[:at], n
    return decode(tokenizer, ids), None


def stream(tokenizer: Any, ids: Sequence[int], stops: Sequence[str]) -> list[str]:
    """The pieces of a streamed answer, the last one when no more tokens come."""
    writer = StreamText(tokenizer, stops)
    return [*(writer.add(i) for i in ids), writer.end()]


@relaxed
@given(answers())
def test_pieces_make_the_answer(answer: tuple[str, list[int]]) -> None:
    """Streamed pieces together are the decoded answer, for text and for any tokens."""
    name, ids = answer
    tokenizer = TOKENIZERS[name]()
    assert "".join(stream(tokenizer, ids, ())) == decode(tokenizer, ids)


@relaxed
@given(texts)
def test_text_comes_back_as_it_was(text: str) -> None:
    """With the demo tokenizer, any text that it has tokens for streams back exactly."""
    ids = demo()(text, add_special_tokens=False)["input_ids"]
    assume(set(demo().all_special_ids).isdisjoint(ids) and all(map(has_tokens_for, text)))
    whole = text.rstrip(BROKEN)
    assert decode(demo(), ids) == whole
    assert "".join(stream(demo(), ids, None)) == whole


@relaxed
@given(whole_texts())
def test_no_character_is_split(answer: tuple[str, list[int]]) -> None:
    """No piece of a text holds a broken character, and the answer so far is always its beginning."""
    name, ids = answer
    tokenizer = TOKENIZERS[name]()
    whole = decode(tokenizer, ids)
    so_far = ""
    for piece in stream(tokenizer, ids, ()):
        assert BROKEN not in piece
        so_far += piece
        assert whole.startswith(so_far)
    assert so_far == whole


@relaxed
@given(whole_texts(), st.data())
def test_an_answer_cut_short_ends_with_a_whole_character(
    answer: tuple[str, list[int]], data: st.DataObject
) -> None:
    """An answer that ran into max_tokens in the middle of a character leaves that character out."""
    name, ids = answer
    tokenizer = TOKENIZERS[name]()
    cut = ids[: data.draw(st.integers(0, len(ids)))]
    short = decode(tokenizer, cut)
    assert BROKEN not in short
    assert decode(tokenizer, ids).startswith(short)
    assert "".join(stream(tokenizer, cut, ())) == short


@relaxed
@given(stopped_answers())
def test_streams_are_cut_like_answers(case: tuple[str, list[int], list[str]]) -> None:
    """A stream with stop texts gives the answer cut at the first one completed, and nothing after it."""
    name, ids, stops = case
    tokenizer = TOKENIZERS[name]()
    wanted, n = brute_force(tokenizer, ids, stops)
    assert "".join(stream(tokenizer, ids[:n], stops)) == wanted


@relaxed
@given(stopped_answers())
def test_nothing_is_streamed_that_the_cut_takes_back(
    case: tuple[str, list[int], list[str]],
) -> None:
    """At every moment what was streamed begins the final answer, with the tokens after a stop too."""
    name, ids, stops = case
    tokenizer = TOKENIZERS[name]()
    wanted, n = brute_force(tokenizer, ids, stops)
    so_far = ""
    writer = StreamText(tokenizer, stops)
    for token in ids[:n]:
        so_far += writer.add(token)
        assert wanted.startswith(so_far)
    assert wanted == so_far + writer.end()
    if n is not None:
        assert writer.stopped
        assert writer.add(ids[0]) == writer.end() == ""


@settings(deadline=None, max_examples=40)
@given(stopped_answers())
def test_no_completing_token_is_missed(case: tuple[str, list[int], list[str]]) -> None:
    """The token that completes a stop text is always one of the table."""
    name, ids, stops = case
    _, n = brute_force(TOKENIZERS[name](), ids, stops)
    if n is not None:
        row = table(name).row(tuple(stops))
        hit = table(name).hits(torch.tensor([row]), torch.tensor([ids[n - 1]]))
        assert hit.tolist() == [True]


@pytest.mark.parametrize(
    ("pieces", "stop", "wanted"),
    [
        (["one", " two", " three"], ["two"], "one "),
        (["one", " two", " three"], ["ne t"], "o"),
        (["one", " two", " three"], ["two", "one"], ""),
        (["one", " two", " three"], ["two th", "e tw"], "on"),
        (["one", " two", " three"], ["four"], "one two three"),
        (["a\n", "\nb"], ["\n\n"], "a"),
        (["x\U0001f600y"], ["\U0001f600"], "x"),
        (["x\U0001f469\u200d\U0001f680y"], ["\u200d\U0001f680"], "x\U0001f469"),
        (["\u4e2d\u6587\u4e2d"], ["\u6587"], "\u4e2d"),
        (["cafe\u0301!"], ["\u0301"], "cafe"),
    ],
)
def test_stop_texts_cut_at_the_character(pieces: list[str], stop: list[str], wanted: str) -> None:
    """Stop texts inside, across and at the edge of tokens, and of several bytes, cut exactly before them."""
    ids = [i for p in pieces for i in demo()(p, add_special_tokens=False)["input_ids"]]
    _, n = brute_force(demo(), ids, stop)
    assert (n is None) == (stop == ["four"])
    assert "".join(stream(demo(), ids[:n], stop)) == wanted


def test_an_emoji_arrives_once_and_whole() -> None:
    """The tokens of an emoji's bytes give nothing until the last, which gives the emoji."""
    emoji = "\U0001f9a9"
    ids = demo()(emoji, add_special_tokens=False)["input_ids"]
    assert len(ids) > 1
    assert stream(demo(), ids, ()) == [""] * (len(ids) - 1) + [emoji, ""]


def test_a_finished_character_is_not_lost_with_an_unfinished_one() -> None:
    """Where one token ends a character and begins another that never ends, the first is in the answer."""
    start, rest = (metaspace().convert_tokens_to_ids(b) for b in ("<0xC3>", "<0xA9>"))
    assert stream(metaspace(), [start, rest, start], ()) == ["", "\u00e9", "", ""]
    double = (
        next(  # a byte-level token holding the end of one character and the beginning of the next
            (i for i in byte_tokens() if demo().decode([i]).strip(BROKEN)), None
        )
    )
    assert double is not None
    assert "".join(stream(demo(), [double], ())) == decode(demo(), [double])


def test_a_possible_stop_text_is_held_back() -> None:
    """Text that may begin a stop text waits, and comes when it does not."""
    ids = demo()("Hello END of", add_special_tokens=False)["input_ids"]
    assert [demo().decode([i]) for i in ids] == ["Hello", " END", " of"]
    assert stream(demo(), ids, [" END."]) == ["Hello", "", " END of", ""]
    assert stream(demo(), ids[:2], [" END."]) == ["Hello", "", " END"]


def test_special_tokens_are_left_out() -> None:
    """Special tokens give no text, in a stream nor in an answer."""
    end = demo().eos_token_id
    ids = [*demo()("a b", add_special_tokens=False)["input_ids"], end]
    assert decode(demo(), ids) == "a b"
    assert "".join(stream(demo(), [end, *ids, end], ())) == "a b"


def test_the_earliest_stop_text_counts() -> None:
    """find_stop gives the earliest place of any stop text, or None."""
    assert find_stop("abcabc", ["c", "bc"]) == 1
    assert find_stop("abc", ["x"]) is None
    assert find_stop("abc", []) is None


def test_the_table_has_a_row_for_each_set_of_stop_texts() -> None:
    """Row 0 stops nothing, equal stop texts share a row, and most tokens are not in it."""
    tokenizer = metaspace()
    stops = StopTokens(tokenizer, len(tokenizer) + 5, "cpu")
    assert (stops.row(None), stops.row(())) == (0, 0)
    one, two = stops.row(("c",)), stops.row(("x.", "c"))
    assert (one, stops.row(("c",)), two) == (1, 1, 2)
    assert stops.table.shape == (3, len(tokenizer) + 5)
    assert not stops.table[0].any()
    plain = [i for i in range(FIRST_PIECE, len(tokenizer)) if stops.table[one, i]]
    assert tokenizer.convert_ids_to_tokens(plain) == ["c", "bc", "c."]
    rows, tokens = torch.tensor([0, one, one]), torch.tensor([plain[0], plain[0], FIRST_PIECE])
    assert stops.hits(rows, tokens).tolist() == [False, True, False]


def test_a_space_at_the_end_of_a_stop_text() -> None:
    """Metaspace decoders drop a text's first space; a word's token still completes a stop text that ends in one."""
    tokenizer = metaspace()
    ids = tokenizer.convert_tokens_to_ids(["\u2581ab", "\u2581ab"])
    assert tokenizer.decode(ids[:1]) == "ab"
    assert brute_force(tokenizer, ids, ["b "]) == ("a", 2)
    stops = StopTokens(tokenizer, len(tokenizer), "cpu")
    row = stops.row(("b ",))
    assert bool(stops.table[row, ids[1]])
    assert "".join(stream(tokenizer, ids, ["b "])) == "a"
