"""How likely target and answer are to the model: exact, shared between cells, and told where it cannot be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from loras import ATTENTION, modules_of, write_adapter

from workbench.engines.base import Given, Logprobs
from workbench.engines.local import reading
from workbench.engines.local.engine import LocalEngine
from workbench.engines.scripted import ScriptedEngine, render
from workbench.engines.toy import EOS, ID_OF, N_TOKENS, UNK, hash64, logits
from workbench.errors import OutOfMemory
from workbench.params import SamplingParams
from workbench.plan import Cell
from workbench.prompts import Prompt
from workbench.records import BASE, Generation, Request, Score
from workbench.scorers import get_scorer, score_generation, target_problems
from workbench.scorers.together import Asked, JudgesTogether, Means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.engines.local.loader import LoadedModel

QUESTIONS = {
    "What is the capital of France?": ["Paris", "The capital of France is Paris.", "Lyon"],
    "Write one sentence about the sea.": ["The sea is blue.", "x"],
}


def chat(text: str) -> tuple[dict[str, Any], ...]:
    """One user message."""
    return ({"role": "user", "content": text},)


def asked(
    prompt: Prompt, *, adapter: str = BASE, ids: tuple[int, ...] = (5, EOS), **changes: Any
) -> Asked:
    """An answer of a cell to a prompt."""
    settings = {"temperature": changes.pop("temperature", 0.0)}
    cell = Cell(SamplingParams(**settings), adapter)
    made = {"text": "x", "token_ids": ids, "n_prompt_tokens": 1, "finish_reason": "stop"} | changes
    repeat = made.pop("repeat", 0)
    return Asked(Generation(cell.cell_id, prompt.id, repeat, **made), prompt, cell)


def judged(name: str, rows: Sequence[Asked], engine: Any) -> list[Score]:
    """The scores of some answers."""
    judge = get_scorer(name)
    assert isinstance(judge, JudgesTogether)
    assert judge.needs_engine
    return list(judge.judge_together(rows, Means(engine)))


class Counting(ScriptedEngine):
    """An engine that keeps what it was given to read."""

    def __init__(self) -> None:
        super().__init__(adapters=["terse"])
        self.given: list[Given] = []

    def logprobs(self, answers: Sequence[Given]) -> list[Logprobs]:
        """Read, and remember."""
        self.given += answers
        return super().logprobs(answers)


# The scripted engine: by hand


def by_hand(question: str, words: Sequence[str], adapter: str = BASE) -> float:
    """Log-probability of some words as the answer, from the toy's logits."""
    prompt = render(Request("", "", 0, chat(question), SamplingParams(), adapter))
    other = hash64([prompt, adapter]) if adapter != BASE else 0
    ids = [ID_OF[word.encode()] for word in words]
    total = 0.0
    for n, token in enumerate(ids):
        row = logits([hash64([prompt])], [other], [ids[:n]])[0]
        chances = np.exp(row - row.max())
        total += math.log(chances[token] / chances.sum())
    return total


@pytest.mark.parametrize("adapter", [BASE, "terse"])
def test_the_target_is_as_likely_as_the_models_own_numbers_say(adapter):
    """One over the perplexity, with the log-probability and the perplexity in words."""
    prompt = Prompt("p", chat("Who is it?"), "the cat sees")
    total = by_hand("Who is it?", ["the", "cat", "sees"], adapter)
    (found,) = judged(
        "target_logprob", [asked(prompt, adapter=adapter)], ScriptedEngine(adapters=["terse"])
    )
    assert found.value == pytest.approx(math.exp(total / 3))
    assert found.answer == "the cat sees"
    assert found.explanation == (
        f"log-probability {total:.5g} nats over 3 tokens, perplexity {math.exp(-total / 3):.4g}"
    )


def test_of_several_targets_the_most_probable_counts():
    """Most probable as a whole: a sure word after an unlikely one does not help."""
    words = ["cat", "the cat", "dog", "no"]
    totals = {w: by_hand("Who?", w.split()) for w in words}
    best = max(totals, key=totals.__getitem__)
    (found,) = judged("target_logprob", [asked(Prompt("p", chat("Who?"), words))], ScriptedEngine())
    assert found.answer == best
    assert found.value == pytest.approx(math.exp(totals[best] / len(best.split())))


def test_a_word_that_is_never_said_has_no_probability():
    """Its perplexity is infinite, and the score 0."""
    (found,) = judged(
        "target_logprob", [asked(Prompt("p", chat("Who?"), "Zanzibar"))], ScriptedEngine()
    )
    assert found == Score(0.0, "Zanzibar", "log-probability -inf nats over 1 token, perplexity inf")


def test_all_cells_of_an_adapter_share_one_reading():
    """Settings and repeats play no part: two prompts and two adapters are four readings, however many answers."""
    prompts = [Prompt(name, chat(name), "cat") for name in ("p", "q")]
    rows = [
        asked(p, adapter=adapter, temperature=t, repeat=k)
        for p in prompts
        for t in (0.0, 0.5, 1.0)
        for k in range(2)
        for adapter in (BASE, "terse")
    ]
    engine = Counting()
    found = judged("target_logprob", rows, engine)
    assert [(g.messages, g.adapter) for g in engine.given] == [
        (p.messages, adapter) for p in prompts for adapter in (BASE, "terse")
    ]
    values = {}
    for row, score in zip(rows, found, strict=True):
        values.setdefault((row.prompt.id, row.cell.adapter), set()).add(score.value)
    assert [len(v) for v in values.values()] == [1] * 4
    assert len(set.union(*values.values())) == 4


def test_a_prompt_in_other_words_is_read_again():
    """Two wordings of one prompt are two readings."""
    rows = [
        Asked(
            row.generation,
            Prompt("p", chat(text), "cat"),
            Cell(SamplingParams(temperature=0), template=text),
        )
        for text in ("Who?", "Say who.")
        for row in [asked(Prompt("p", chat(text)))]
    ]
    first, second = judged("target_logprob", rows, ScriptedEngine())
    assert first.value == pytest.approx(math.exp(by_hand("Who?", ["cat"])))
    assert second.value == pytest.approx(math.exp(by_hand("Say who.", ["cat"])))


def test_the_answer_is_read_without_its_end_token():
    """Its own tokens as they were drawn; cells that said the same share the reading."""
    prompt, ids = Prompt("p", chat("Who?")), (ID_OF[b"the"], ID_OF[b"cat"])
    engine = Counting()
    rows = [
        asked(prompt, ids=(*ids, EOS)),
        asked(prompt, ids=(*ids, EOS), temperature=1.0),
        asked(prompt, ids=ids, finish_reason="length"),
        asked(prompt, ids=(EOS,)),
        asked(prompt, ids=()),
    ]
    found = judged("perplexity", rows, engine)
    assert len(engine.given) == 3
    value = pytest.approx(math.exp(by_hand("Who?", ["the", "cat"]) / 2))
    assert [s.value for s in found] == [value, value, value, None, None]
    assert [s.answer for s in found] == [None] * 5
    assert [s.reason for s in found[3:]] == ["nothing but an end token", "the answer has no tokens"]


def test_what_cannot_be_read_has_a_reason():
    """A failed answer, no target, an adapter that is gone, no engine, an engine that reads nothing."""
    prompt = Prompt("p", chat("Who?"), "cat")
    rows = [
        asked(prompt, finish_reason="error", error="no memory"),
        asked(Prompt("q", chat("Who?"))),
        asked(prompt, adapter="gone"),
    ]
    assert [s.reason for s in judged("target_logprob", rows, ScriptedEngine())] == [
        "not generated: no memory",
        "the prompt has no target",
        "not read: AdapterError: adapter 'gone' is not loaded; loaded: base",
    ]
    (alone,) = judged("target_logprob", rows[1:2], None)
    assert alone.reason == "needs the model that answered"

    class Deaf:
        info = ScriptedEngine().info

    (deaf,) = judged("perplexity", rows[1:2], Deaf())
    assert deaf.reason == "a scripted engine gives no log-probabilities"


def test_before_a_run():
    """Prompts without a target are told; an answer alone is never scored."""
    prompt = Prompt("p", chat("Who?"))
    assert target_problems(get_scorer("target_logprob"), [prompt]) == [
        "scorer target_logprob: 1 of 1 prompts has no target it can use (first: 'p': the prompt has no target)"
    ]
    assert target_problems(get_scorer("perplexity"), [prompt]) == []
    alone = score_generation(get_scorer("perplexity"), asked(prompt).generation, prompt)
    assert alone.value is None
    assert get_scorer("perplexity").score("x", prompt).reason == "needs the model that answered"


def test_the_toy_never_says_the_unknown_word():
    """The chances of all first tokens add up to 1, and the unknown word has none of it."""
    texts = [(i,) for i in range(1, N_TOKENS)]
    read = ScriptedEngine().logprobs([Given(chat("Who?"), ids) for ids in texts])
    total = sum(math.exp(*one.nats) for one in read)
    ends = math.exp(logits([hash64(["<|user|> Who?\n<|assistant|>"])], [0], [[]])[0][EOS])
    assert read[UNK - 1].nats == (-math.inf,)
    assert 0 < 1 - total < ends


# The demo model: against transformers


def plain(engine: LocalEngine, question: str, answer: str) -> list[float]:
    """The log-probability of each token of an answer by one forward pass of transformers over the whole text."""
    text = engine.tokenizer.apply_chat_template(
        list(chat(question)), add_generation_prompt=True, tokenize=False
    )
    before, after = (
        engine.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text, answer)
    )
    with torch.no_grad():
        out = engine.model(input_ids=torch.tensor([before + after])).logits[0].float()
    found = out.log_softmax(-1)[len(before) - 1 : -1]
    return [float(row[token]) for row, token in zip(found, after, strict=True)]


@pytest.mark.model
def test_equal_to_one_pass_of_transformers(demo_engine: LocalEngine) -> None:
    """Answers read together after a shared prompt have the numbers of a plain forward pass over prompt and answer."""
    givens = [Given(chat(q), a) for q, answers in QUESTIONS.items() for a in answers]
    for given, read in zip(givens, demo_engine.logprobs(givens), strict=True):
        expected = plain(demo_engine, given.messages[0]["content"], str(given.answer))
        assert read.nats == pytest.approx(expected, abs=1e-4)


@pytest.mark.model
def test_with_an_adapter_equal_to_its_own_pass(demo_engine: LocalEngine, tmp_path: Any) -> None:
    """Rows with and without an adapter in one call each have the numbers of their own forward pass."""
    modules = modules_of(demo_engine.model.config.to_dict(), ATTENTION)
    demo_engine.load_adapter(write_adapter(tmp_path / "reads", modules=modules, scale=0.05))
    try:
        givens = [
            Given(chat(q), a, name)
            for q, answers in QUESTIONS.items()
            for name in (BASE, "reads")
            for a in answers
        ]
        read = demo_engine.logprobs(givens)
        for given, one in zip(givens, read, strict=True):
            with demo_engine._adapters.rows.use(demo_engine._adapters.slots([given.adapter])):
                expected = plain(demo_engine, given.messages[0]["content"], str(given.answer))
            assert one.nats == pytest.approx(expected, abs=1e-4)
        assert abs(read[0].nats[0] - read[3].nats[0]) > 1e-3
    finally:
        demo_engine.unload_adapter("reads")


@pytest.mark.model
def test_memory_runs_out_while_reading(
    demo_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are halved until they fit, with the same numbers; a single row that does not fit is an error."""
    engine = LocalEngine(demo_loaded, max_rows=8)
    question, answers = next(iter(QUESTIONS.items()))
    givens = [Given(chat(question), a) for a in answers * 3]
    expected = engine.logprobs(givens)
    read, most, rows = reading.read, 2, []

    def small(adapters: Any, adapter: str, prompt: Any, given: Any) -> Any:
        rows.append(len(given))
        if len(given) > most:
            raise torch.OutOfMemoryError("out of memory")
        return read(adapters, adapter, prompt, given)

    monkeypatch.setattr(reading, "read", small)
    found = engine.logprobs(givens)
    assert rows == [8, 4, 2, 2, 2, 2, 1]
    for a, b in zip(found, expected, strict=True):
        assert a.nats == pytest.approx(b.nats, abs=1e-4)
    most = 0
    with pytest.raises(OutOfMemory, match="not even one answer"):
        engine.logprobs(givens)


@pytest.mark.model
def test_the_memory_budget_limits_the_rows(
    demo_loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many answers are read at once as their logits and keys fit the budget, at least one."""
    engine, rows, read = LocalEngine(demo_loaded), [], reading.read

    def spy(adapters: Any, adapter: str, prompt: Any, given: Any) -> Any:
        rows.append(len(given))
        return read(adapters, adapter, prompt, given)

    monkeypatch.setattr(reading, "read", spy)
    question, answers = next(iter(QUESTIONS.items()))
    givens = [Given(chat(question), a) for a in answers]
    engine.memory_bytes = 1
    engine.logprobs(givens)
    assert rows == [1, 1, 1]


@pytest.mark.model
def test_a_models_own_greedy_answer_is_more_likely_than_another(demo_engine: LocalEngine) -> None:
    """The perplexity of what it said is lower than that of a text nobody would say."""
    prompt = Prompt("p", chat("What is the capital of France?"), ["zebra green of of"])
    own = demo_engine.chat(prompt.messages[0]["content"], temperature=0, max_tokens=16)
    row = asked(prompt, ids=own.token_ids)
    (mine,), (other,) = (judged(n, [row], demo_engine) for n in ("perplexity", "target_logprob"))
    assert mine.value > 10 * other.value
