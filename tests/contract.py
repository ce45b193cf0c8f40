"""The engine contract: what every engine does, whatever runs behind it.

A test module for an engine subclasses ``EngineContract`` and defines two fixtures:

* ``engine``: a ready engine, shared by the tests (any scope),
* ``make_engine``: a callable that makes a fresh engine of the same kind.

Class attributes adapt the suite: ``prompts`` (texts the engine is asked), ``max_tokens`` (length of the answers),
``coupled`` (False if the noise is not ours, as behind an HTTP server). Tests of adapters are skipped when the engine
reports none, so give it one; those of log-probabilities when it is no ``GivesLogprobs``.

Tests that could fail by chance on a correct engine say how likely that is; with fixed seeds and a deterministic engine
they either always pass or always fail.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from workbench.engines.base import Engine, EngineInfo, Given, GivesLogprobs
from workbench.errors import AdapterError, ContextOverflow, EngineUnavailable
from workbench.params import SamplingParams
from workbench.records import BASE, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from workbench.records import Generation

HOT = 1.5
"""A temperature at which answers to different seeds differ."""


def ask(
    text: str, *, cell: str = "cell", repeat: int = 0, adapter: str = BASE, **params: Any
) -> Request:
    """A request for one user message; the prompt id is the text."""
    messages = ({"role": "user", "content": text},)
    return Request(cell, text, repeat, messages, SamplingParams(**params), adapter)


def answers(engine: Engine, requests: Iterable[Request]) -> dict[tuple[str, str, int], Generation]:
    """All answers by key; fails on an answer that came twice."""
    found: dict[tuple[str, str, int], Generation] = {}
    for generation in engine.generate(requests):
        assert generation.key not in found, f"{generation.key} was answered twice"
        found[generation.key] = generation
    return found


def answer(engine: Engine, request: Request) -> Generation:
    """The answer to one request."""
    return answers(engine, [request])[request.key]


class EngineContract:
    """Behaviour that studies rely on."""

    prompts: ClassVar[tuple[str, ...]] = (
        "Tell me about the cat.",
        "What is 3 + 4?",
        "Name a red bird.",
    )
    max_tokens: ClassVar[int] = 24
    coupled: ClassVar[bool] = True

    def draws(self, engine: Engine, text: str, n: int, **params: Any) -> list[int]:
        """First tokens of ``n`` seeds, in the order of the seeds."""
        settings = {"temperature": 1.0, **params, "max_tokens": 1}
        rows = [ask(text, repeat=k, seed=k + 1, **settings) for k in range(n)]
        found = answers(engine, rows)
        return [found[row.key].token_ids[0] for row in rows]

    def greedy(self, engine: Engine, text: str, **params: Any) -> Generation:
        """The greedy answer to a prompt."""
        return answer(
            engine, ask(text, **{"max_tokens": self.max_tokens, "temperature": 0, **params})
        )

    def adapter(self, engine: Engine) -> str:
        """The name of a loaded adapter."""
        if not engine.info.adapters:
            pytest.skip("this engine has no adapter loaded")
        return next(iter(engine.info.adapters))

    # What comes back

    def test_is_an_engine(self, engine: Engine) -> None:
        """It has the parts of the protocol, and its description can be written to a manifest."""
        assert isinstance(engine, Engine)
        info = engine.info
        assert isinstance(info, EngineInfo)
        assert info.context_length > 0
        assert BASE not in info.adapters
        assert json.loads(json.dumps(info.to_dict()))["model"] == info.model

    def test_every_request_is_answered_once(self, engine: Engine) -> None:
        """Each row comes back exactly once, whatever the order."""
        rows = [
            ask(text, cell=f"T={t}", repeat=k, temperature=t, seed=k + 1, max_tokens=4)
            for text in self.prompts
            for t in (0.5, 1.0)
            for k in range(3)
        ]
        assert set(answers(engine, rows)) == {row.key for row in rows}

    def test_no_requests_no_answers(self, engine: Engine) -> None:
        """Nothing asked, nothing answered."""
        assert list(engine.generate([])) == []

    def test_requests_may_be_a_generator(self, engine: Engine) -> None:
        """A plan hands its requests over lazily."""
        rows = [ask(text, temperature=0, max_tokens=3) for text in self.prompts]
        assert answers(engine, iter(rows)) == answers(engine, rows)

    def test_a_generation_is_complete(self, engine: Engine) -> None:
        """Prompt, counts, seed and finish reason are filled in."""
        sampled = answer(engine, ask(self.prompts[0], seed=5, max_tokens=self.max_tokens))
        assert self.prompts[0] in sampled.prompt
        assert sampled.n_prompt_tokens > 0
        assert 1 <= sampled.n_output_tokens <= self.max_tokens
        assert sampled.finish_reason in {"stop", "length"}
        assert sampled.error is None
        assert sampled.seed == 5
        assert sampled.batch_rows >= 1
        assert self.greedy(engine, self.prompts[0]).seed is None

    # Seeds

    def test_same_seed_same_answer(self, engine: Engine) -> None:
        """A draw is a pure function of its seed."""
        row = ask(self.prompts[0], temperature=HOT, seed=11, max_tokens=self.max_tokens)
        first, second = answer(engine, row), answer(engine, row)
        assert (first.text, first.token_ids) == (second.text, second.token_ids)

    def test_other_seed_other_answer(self, engine: Engine) -> None:
        """Eight seeds give at least two answers (all equal: less than 1 in a million if the seed acts)."""
        rows = [
            ask(self.prompts[0], repeat=k, temperature=HOT, seed=k + 1, max_tokens=self.max_tokens)
            for k in range(8)
        ]
        assert len({a.token_ids for a in answers(engine, rows).values()}) > 1

    def test_a_seed_has_ten_digits(self, engine: Engine) -> None:
        """Seeds that differ only above 32 bits draw differently, so none of the seed is thrown away."""
        low = 7
        rows = [
            ask(self.prompts[0], repeat=k, temperature=HOT, seed=seed, max_tokens=self.max_tokens)
            for k, seed in enumerate((low, low + 2**32, low + 2**33))
        ]
        assert len({a.token_ids for a in answers(engine, rows).values()}) > 1

    def test_no_seed_is_given_one(self, engine: Engine) -> None:
        """Sampling without a seed reports the seed it used, and that seed repeats the answer."""
        row = ask(self.prompts[1], temperature=HOT, max_tokens=self.max_tokens)
        first = answer(engine, row)
        assert first.seed is not None
        again = ask(self.prompts[1], temperature=HOT, seed=first.seed, max_tokens=self.max_tokens)
        assert answer(engine, again).token_ids == first.token_ids

    def test_greedy_ignores_the_seed(self, engine: Engine) -> None:
        """At temperature 0 there is nothing to draw."""
        texts = {
            self.greedy(engine, self.prompts[0], seed=seed).token_ids for seed in (None, 1, 99)
        }
        assert len(texts) == 1

    # Length and stop texts

    def test_max_tokens_is_respected(self, engine: Engine) -> None:
        """A shorter limit gives the beginning of the longer answer, and says it was cut."""
        long = self.greedy(engine, self.prompts[0])
        for limit in (1, 2, 5):
            short = self.greedy(engine, self.prompts[0], max_tokens=limit)
            assert short.token_ids == long.token_ids[:limit]
            cut = short.n_output_tokens < long.n_output_tokens
            assert short.finish_reason == ("length" if cut else long.finish_reason)

    def test_stop_text_ends_the_answer(self, engine: Engine) -> None:
        """The answer ends before the stop text, at the character, wherever the tokens begin and end."""
        full = self.greedy(engine, self.prompts[0])
        assert len(full.text) > 6, "the test needs a prompt with a longer answer"
        middle = len(full.text) // 2
        for stop in (full.text[middle], full.text[middle - 1 : middle + 2], full.text[:3]):
            cut = self.greedy(engine, self.prompts[0], stop=stop)
            assert cut.text == full.text.split(stop)[0]
            assert cut.finish_reason == "stop"
            assert cut.token_ids == full.token_ids[: cut.n_output_tokens]

    def test_first_stop_text_wins(self, engine: Engine) -> None:
        """With several stop texts the earliest in the answer ends it; one that never comes does nothing."""
        full = self.greedy(engine, self.prompts[0])
        late, early = full.text[-3:], full.text[2:4]
        cut = self.greedy(engine, self.prompts[0], stop=[late, "\x00never\x00", early])
        assert cut.text == min((full.text.split(s)[0] for s in (late, early)), key=len)
        assert self.greedy(engine, self.prompts[0], stop="\x00never\x00").text == full.text

    # Settings

    @pytest.mark.parametrize(
        "setting", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4}]
    )
    def test_narrowest_setting_is_greedy(self, engine: Engine, setting: dict[str, float]) -> None:
        """Each truncation, turned to its narrowest, leaves only the most likely token."""
        narrow = {"temperature": HOT, "seed": 3, **setting}
        for text in self.prompts:
            assert (
                self.greedy(engine, text, **narrow).token_ids == self.greedy(engine, text).token_ids
            )

    @pytest.mark.parametrize(
        "off", [{"top_p": 1.0}, {"top_p": 2.0}, {"min_p": 0.0}, {"top_k": 10**6}]
    )
    def test_widest_setting_is_off(self, engine: Engine, off: dict[str, float]) -> None:
        """Each truncation, turned to its widest, changes no draw."""
        assert self.draws(engine, self.prompts[0], 16, **off) == self.draws(
            engine, self.prompts[0], 16
        )

    @pytest.mark.parametrize("off", ["repetition_penalty", "frequency_penalty", "presence_penalty"])
    def test_neutral_penalty_is_off(self, engine: Engine, off: str) -> None:
        """A neutral penalty changes nothing."""
        neutral = {off: 1.0 if off == "repetition_penalty" else 0.0}
        plain = self.greedy(engine, self.prompts[0])
        assert self.greedy(engine, self.prompts[0], **neutral).token_ids == plain.token_ids

    def test_top_k_keeps_k_tokens(self, engine: Engine) -> None:
        """Hot draws from the k best tokens show at most k tokens, and more than one (all equal: 2^-63)."""
        for k in (2, 5):
            seen = set(self.draws(engine, self.prompts[0], 64, temperature=5.0, top_k=k))
            assert 1 < len(seen) <= k

    def test_truncation_narrows(self, engine: Engine) -> None:
        """A narrower top_k, top_p or min_p shows no more different tokens than a wider one."""
        for field, narrow, wide in (("top_k", 3, 30), ("top_p", 0.2, 0.95), ("min_p", 0.6, 0.02)):
            few, many = (
                len(set(self.draws(engine, self.prompts[0], 64, temperature=2.0, **{field: value})))
                for value in (narrow, wide)
            )
            assert few < many, field

    def test_temperature_spreads(self, engine: Engine) -> None:
        """A hotter draw shows more different tokens."""
        cold, hot = (
            set(self.draws(engine, self.prompts[0], 64, temperature=t)) for t in (0.1, 4.0)
        )
        assert len(cold) < len(hot)

    def test_same_noise_in_every_cell(self, engine: Engine) -> None:
        """Common random numbers: a draw that a truncation would keep is the same draw with the truncation on."""
        if not self.coupled:
            pytest.skip("this engine's noise is not ours")
        wide = self.draws(engine, self.prompts[0], 64)
        for setting in ({"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.3}):
            narrow = self.draws(engine, self.prompts[0], 64, **setting)
            kept = set(narrow)
            assert all(n == w for n, w in zip(narrow, wide, strict=True) if w in kept)

    @pytest.mark.parametrize(
        "strong",
        [{"repetition_penalty": 2.0}, {"frequency_penalty": 2.0}, {"presence_penalty": 2.0}],
    )
    def test_penalties_act(self, engine: Engine, strong: dict[str, float]) -> None:
        """Each penalty changes some greedy answer, and over all prompts repeats no more tokens than without it."""
        pairs = [(self.greedy(engine, t), self.greedy(engine, t, **strong)) for t in self.prompts]
        assert any(plain.token_ids != other.token_ids for plain, other in pairs)
        plain_share, other_share = (
            sum(len(set(pair[i].token_ids)) for pair in pairs)
            / sum(pair[i].n_output_tokens for pair in pairs)
            for i in (0, 1)
        )
        assert other_share >= plain_share

    def test_output_penalties_spare_the_first_token(self, engine: Engine) -> None:
        """Frequency and presence penalties count the answer only, so they cannot touch its first token."""
        first = self.greedy(engine, self.prompts[0]).token_ids[0]
        for field in ("frequency_penalty", "presence_penalty"):
            for value in (-2.0, 2.0):
                changed = self.greedy(engine, self.prompts[0], **{field: value})
                assert changed.token_ids[0] == first

    # Batches

    def test_an_answer_does_not_depend_on_its_batch(self, engine: Engine) -> None:
        """A row alone, in a batch of other settings, and in a permuted batch gives the same tokens."""
        settings: list[dict[str, Any]] = [
            {"temperature": 0},
            {"temperature": 0.8, "top_k": 5, "seed": 1},
            {"temperature": HOT, "top_p": 0.8, "seed": 2, "frequency_penalty": 0.5},
            {"temperature": 1.0, "min_p": 0.1, "seed": 3, "repetition_penalty": 1.3},
            {"temperature": 1.0, "seed": 4, "max_tokens": 3},
        ]
        rows = [
            ask(text, cell=f"c{i}", **{"max_tokens": self.max_tokens, **s})
            for i, s in enumerate(settings)
            for text in self.prompts
        ]
        together = answers(engine, rows)
        backwards = answers(engine, rows[::-1])
        for row in rows:
            alone = answer(engine, row)
            assert alone.token_ids == together[row.key].token_ids == backwards[row.key].token_ids
            assert alone.text == together[row.key].text

    def test_stopping_early_leaves_the_engine_usable(self, engine: Engine) -> None:
        """A caller that walks away from a batch can ask again."""
        rows = [
            ask(text, repeat=k, seed=k + 1, max_tokens=4) for text in self.prompts for k in range(3)
        ]
        running = engine.generate(iter(rows))
        first = next(running)
        running.close()  # type: ignore[attr-defined]
        assert answers(engine, rows)[first.key].token_ids == first.token_ids

    # Streams

    @pytest.mark.parametrize("params", [{"temperature": 0}, {"temperature": HOT, "seed": 9}])
    def test_a_stream_is_the_same_answer(self, engine: Engine, params: dict[str, Any]) -> None:
        """Token by token gives the tokens, text and finish reason of ``generate``, at ascending times."""
        for text in self.prompts:
            row = ask(text, max_tokens=self.max_tokens, **params)
            whole, events = answer(engine, row), list(engine.stream(row))
            assert tuple(e.token_id for e in events) == whole.token_ids
            assert "".join(e.text for e in events) == whole.text
            assert events[-1].finish_reason == whole.finish_reason
            assert {e.finish_reason for e in events[:-1]} <= {None}
            assert [e.t_ns for e in events] == sorted(e.t_ns for e in events)
            assert {e.n_prompt_tokens for e in events} == {whole.n_prompt_tokens}

    def test_a_stream_never_shows_the_stop_text(self, engine: Engine) -> None:
        """Text that might become a stop text is held back."""
        full = self.greedy(engine, self.prompts[0])
        middle = len(full.text) // 2
        stop = full.text[middle : middle + 4]
        row = ask(self.prompts[0], temperature=0, max_tokens=self.max_tokens, stop=stop)
        assert "".join(e.text for e in engine.stream(row)) == full.text.split(stop)[0]

    # Adapters

    def test_an_adapter_acts(self, engine: Engine) -> None:
        """With the adapter some answer is different, and rows with and without it share a batch unharmed."""
        name = self.adapter(engine)
        rows = [
            ask(text, cell=who, adapter=who, temperature=0, max_tokens=self.max_tokens)
            for text in self.prompts
            for who in (BASE, name)
        ]
        found = answers(engine, rows)
        assert any(
            found[BASE, text, 0].token_ids != found[name, text, 0].token_ids
            for text in self.prompts
        )
        for row in rows:
            assert answer(engine, row).token_ids == found[row.key].token_ids

    # Errors

    def test_an_unknown_adapter_is_a_failed_row(self, engine: Engine) -> None:
        """The row says why, the others go on; a stream raises."""
        bad = ask(self.prompts[0], cell="bad", adapter="no-such-adapter", max_tokens=2)
        good = ask(self.prompts[0], cell="good", temperature=0, max_tokens=2)
        found = answers(engine, [bad, good])
        failed = found[bad.key]
        assert (failed.finish_reason, failed.text, failed.token_ids) == ("error", "", ())
        assert failed.error is not None
        assert "no-such-adapter" in failed.error
        assert found[good.key].error is None
        with pytest.raises(AdapterError, match="no-such-adapter"):
            list(engine.stream(bad))

    def test_too_long_is_a_failed_row(self, engine: Engine) -> None:
        """A request beyond the context is refused before any work, naming the limit."""
        limit = engine.info.context_length
        long = ask(self.prompts[0], cell="long", max_tokens=limit)
        good = ask(self.prompts[0], cell="good", temperature=0, max_tokens=2)
        found = answers(engine, [long, good])
        assert found[long.key].finish_reason == "error"
        assert str(limit) in str(found[long.key].error).replace(",", "")
        assert found[good.key].error is None
        with pytest.raises(ContextOverflow, match=str(limit)):
            list(engine.stream(long))

    def test_a_closed_engine_refuses(self, make_engine: Callable[[], Engine]) -> None:
        """Closing twice is fine; asking afterwards is not."""
        engine = make_engine()
        engine.close()
        engine.close()
        row = ask(self.prompts[0], temperature=0, max_tokens=2)
        with pytest.raises(EngineUnavailable):
            list(engine.generate([row]))
        with pytest.raises(EngineUnavailable):
            list(engine.stream(row))
        if isinstance(engine, GivesLogprobs):
            with pytest.raises(EngineUnavailable):
                engine.logprobs([self.given(self.prompts[0], (2,))])

    def test_margins_are_positive(self, engine: Engine) -> None:
        """The gap between best and second best, where it is reported, is a finite number >= 0."""
        rows = [
            ask(text, seed=1, temperature=HOT, max_tokens=self.max_tokens) for text in self.prompts
        ]
        for generation in answers(engine, rows).values():
            margin = generation.min_margin
            assert margin is None or (math.isfinite(margin) and margin >= 0)

    # Log-probabilities

    def reader(self, engine: Engine) -> GivesLogprobs:
        """The engine as one that reads given answers."""
        if not isinstance(engine, GivesLogprobs):
            pytest.skip("this engine gives no log-probabilities")
        return engine

    def given(self, text: str, answer: str | tuple[int, ...], adapter: str = BASE) -> Given:
        """An answer to one user message."""
        return Given(({"role": "user", "content": text},), answer, adapter)

    def test_log_probabilities_are_those_of_the_draw(self, engine: Engine) -> None:
        """The most frequent first token of 400 draws at temperature 1 is as probable as it is frequent.

        Off by five standard errors and one draw: less than 1 in a million if the two agree.
        """
        reader, n = self.reader(engine), 400
        drawn = self.draws(engine, self.prompts[0], n)
        token = max(set(drawn), key=drawn.count)
        (read,) = reader.logprobs([self.given(self.prompts[0], (token,))])
        p = math.exp(*read.nats)
        assert abs(drawn.count(token) / n - p) <= 5 * math.sqrt(p * (1 - p) / n) + 1 / n

    def test_answers_are_read_alone_as_together(self, engine: Engine) -> None:
        """Every token of an answer but the end token is read, and the other answers of the call make no difference."""
        reader = self.reader(engine)
        own = [self.greedy(engine, text) for text in self.prompts]
        asked = [self.given(g.prompt_id, g.token_ids[:n]) for g in own for n in (1, 3, None)]
        together = reader.logprobs(asked)
        for one, read in zip(asked, together, strict=True):
            (alone,) = reader.logprobs([one])
            assert read.error is None
            assert read.nats == pytest.approx(alone.nats, abs=1e-4)
            assert max(read.nats) <= 0
        ended = [g.finish_reason == "stop" for g in own]
        assert [len(r.nats) for r in together[2::3]] == [
            len(g.token_ids) - end for g, end in zip(own, ended, strict=True)
        ]

    def test_an_adapter_reads_otherwise(self, engine: Engine) -> None:
        """With the adapter the same answer has another probability, also beside rows without it."""
        reader, name = self.reader(engine), self.adapter(engine)
        ids = self.greedy(engine, self.prompts[0]).token_ids
        base, other = reader.logprobs(
            [self.given(self.prompts[0], ids), self.given(self.prompts[0], ids, name)]
        )
        assert max(abs(a - b) for a, b in zip(base.nats, other.nats, strict=True)) > 1e-3

    def test_what_cannot_be_read_has_an_error(self, engine: Engine) -> None:
        """An unknown adapter and an answer beyond the context are told, the others are read; an empty answer has no tokens."""
        reader, text = self.reader(engine), self.prompts[0]
        ids = self.greedy(engine, text).token_ids[:2]
        long = ids[:1] * engine.info.context_length
        lost, much, none, good = reader.logprobs(
            [
                self.given(text, ids, "no-such-adapter"),
                self.given(text, long),
                self.given(text, ()),
                self.given(text, ids),
            ]
        )
        assert "no-such-adapter" in str(lost.error)
        assert "ContextOverflow" in str(much.error)
        assert (lost.nats, much.nats) == ((), ())
        assert (none.nats, none.error) == ((), None)
        assert (len(good.nats), good.error) == (2, None)
