"""How likely an answer is to the model itself: the prompt's target, or the answer that it gave.

Both read the answer after its prompt, chat template applied, with the cell's adapter and nothing else of the cell: at
temperature 1, with no penalty and nothing cut off. An end token is not counted. They say what the model believes, not what
is right: a model can be sure of what is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.engines.base import Given, GivesLogprobs
from workbench.records import Score
from workbench.scorers.base import Family, family, unscored
from workbench.scorers.texts import text_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.engines.base import Logprobs
    from workbench.prompts import Prompt
    from workbench.scorers.together import Asked, Means

    Key = tuple[str, str | None, str, str | tuple[int, ...]]


@dataclass(frozen=True)
class Likelihood(Family):
    """Base of the scorers that ask a model how likely texts are.

    Attributes:
        needs_engine: See `workbench.scorers.together.JudgesTogether`.
    """

    needs_engine: ClassVar[bool] = True

    def score(self, text: str, prompt: Prompt) -> Score:  # noqa: ARG002 - as for any scorer
        """An answer by itself has no score: the model is needed."""
        return unscored("needs the model that answered")

    def texts(self, asked: Asked) -> tuple[Sequence[str | tuple[int, ...]], str | None]:
        """What is read for an answer, alternatives that is, or why nothing can be."""
        raise NotImplementedError

    def judge_together(self, asked: Sequence[Asked], means: Means) -> list[Score]:
        """Judge answers; what several of them ask of the model is read once."""
        engine = means.engine
        if engine is None:
            return [unscored("needs the model that answered")] * len(asked)
        if not isinstance(engine, GivesLogprobs):
            kind = engine.info.engine
            return [unscored(f"a {kind} engine gives no log-probabilities")] * len(asked)
        wanted = [self._wanted(one) for one in asked]
        # By prompt and adapter, so that the engine reads each prompt once.
        givens: dict[Key, Given] = {}
        for one, (texts, _) in zip(asked, wanted, strict=True):
            for text in texts:
                given = Given(one.prompt.messages, text, one.cell.adapter, one.prompt.tools)
                givens[_key(one, text)] = given
        order = sorted(givens, key=lambda key: (key[0], key[1] or "", key[2]))
        read = dict(zip(order, engine.logprobs([givens[key] for key in order]), strict=True))
        return [
            unscored(problem)
            if problem
            else _score([(text, read[_key(one, text)]) for text in texts])
            for one, (texts, problem) in zip(asked, wanted, strict=True)
        ]

    def _wanted(self, one: Asked) -> tuple[Sequence[str | tuple[int, ...]], str | None]:
        if one.generation.finish_reason == "error":
            return (), f"not generated: {one.generation.error}"
        return self.texts(one)


@family
@dataclass(frozen=True)
class TargetLogprob(Likelihood):
    """How likely the target is as the answer: the geometric mean of its tokens' probabilities, 1 over its perplexity.

    It is the same in all cells that differ only in decoding settings, as these play no part: it compares adapters, templates
    and prompts. Of several targets the most probable counts.
    """

    name: ClassVar[str] = "target_logprob"

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        return text_targets(prompt)[1]

    def texts(self, asked: Asked) -> tuple[Sequence[str], str | None]:
        """The targets."""
        return text_targets(asked.prompt)


@family
@dataclass(frozen=True)
class Perplexity(Likelihood):
    """How sure the model was of its own answer: the geometric mean of its tokens' probabilities, 1 over its perplexity.

    It is read at temperature 1 whatever the cell's settings, so a hotter cell scores lower. Loops are very likely to a
    model that is in one, so a high score is no sign of quality.
    """

    name: ClassVar[str] = "perplexity"
    needs_target: ClassVar[bool] = False

    def texts(self, asked: Asked) -> tuple[Sequence[tuple[int, ...]], str | None]:
        """The answer's own tokens."""
        ids = asked.generation.token_ids
        return ((ids,), None) if ids else ((), "the answer has no tokens")


def _key(one: Asked, text: str | tuple[int, ...]) -> Key:
    return one.prompt.id, one.cell.template, one.cell.adapter, text


def _score(read: Sequence[tuple[str | tuple[int, ...], Logprobs]]) -> Score:
    """The score of the most probable of some alternatives."""
    text, best = max(read, key=lambda pair: (bool(pair[1].nats), math.fsum(pair[1].nats)))
    if best.error is not None:
        return unscored(f"not read: {best.error}")
    if not best.nats:
        return unscored("nothing but an end token")
    total, n = math.fsum(best.nats), len(best.nats)
    value = min(1.0, math.exp(total / n))
    perplexity = 1 / value if value else math.inf
    tokens = "1 token" if n == 1 else f"{n} tokens"
    said = f"log-probability {total:.5g} nats over {tokens}, perplexity {perplexity:.4g}"
    return Score(value, text if isinstance(text, str) else None, said)
