"""A language model as the judge of answers: grading each by itself, or against the baseline's.

The judge is asked through the same seam as everything else that generates, all questions of a call at once. Answers with the
same words to the same prompt are put to it once. What it says of itself (verdicts that cannot be read, orders and repeats that
disagree) is in `workbench.scorers.verdicts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from workbench.engines.opening import open_engine
from workbench.errors import ParamError, PromptSetError
from workbench.params import SamplingParams
from workbench.plan import request_seed
from workbench.prompts import templates
from workbench.records import Request, Score
from workbench.scorers import judgetext, verdicts
from workbench.scorers.base import Family, family, is_whole, unscored

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from workbench.engines.base import Engine, EngineInfo
    from workbench.prompts import Prompt
    from workbench.records import Generation
    from workbench.scorers.together import Asked, Means


class Question(NamedTuple):
    """What the judge is asked: a prompt's id, and the text that holds the answer or the two answers."""

    prompt_id: str
    text: str


class Case(NamedTuple):
    """An answer before the judge.

    Attributes:
        questions: One, or two with the answers in both orders; none where the judge need not be asked.
        score: The score of an answer that the judge is not asked about.
    """

    questions: tuple[Question, ...] = ()
    score: Score | None = None


@family
@dataclass(frozen=True)
class LlmJudge(Family):
    """What a language model thinks of the answer: a grade, or whether it is better than the baseline's answer.

    ``rubric`` grades each answer by itself. ``pairwise`` shows it beside the baseline cell's answer to the same prompt and
    repeat, in both orders: 1 if it wins both, 0 if it loses both, 0.5 for a tie and where the orders disagree; the baseline
    itself, and an answer in its very words, have 0.5 without being asked about. A target, if the prompt has one, is shown as
    the reference. An answer without a verdict that can be read has no score.

    Attributes:
        mode: "rubric" or "pairwise".
        rubric: What makes an answer good; by default that it is correct, complete and to the point.
        scale: Worst and best grade of mode rubric, whole numbers; the worst is a score of 0, the best 1.
        model: What judges: "demo", a folder (from where the program is run), a Hugging Face id, or "scripted". It is loaded
            beside the run's own model. By default the run's own model without adapter, which tends to favour itself.
        repeats: Judgements an answer, each with its own seed; their mean is the score. More than 1 needs a temperature.
        seed: Of the judge's draws, 0 or more; each prompt and repeat has its own seed that follows from it.
        temperature: Of the judge, 0..5.
        max_tokens: Most tokens of what the judge says.
        template: What the judge is told, as a Jinja2 text with ``question``, ``reference`` (empty if there is none) and
            ``rubric``, then ``answer``, ``low`` and ``high`` or, in mode pairwise, ``first`` and ``second``. It must ask for a
            line ``Score: N``, or ``Verdict: A``, ``B`` or ``tie``. By default one of its own, shown below.
    """

    name: ClassVar[str] = "judge"
    needs_target: ClassVar[bool] = False

    mode: str = "rubric"
    rubric: str | None = None
    scale: tuple[int, ...] = (1, 5)
    model: str | None = None
    repeats: int = 1
    seed: int = 0
    temperature: float = 0.0
    max_tokens: int = 256
    template: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("mode", self.mode in ("rubric", "pairwise"), "rubric or pairwise")
        for option in ("rubric", "model", "template"):
            value = getattr(self, option)
            ok = value is None or (isinstance(value, str) and bool(value.strip()))
            self.require(option, ok, "a text")
        ends = self.scale
        ok = isinstance(ends, list | tuple) and len(ends) == 2 and all(map(is_whole, ends))
        ok = ok and ends[0] < ends[1]
        self.require("scale", ok, "two whole numbers, the worst first")
        object.__setattr__(self, "scale", tuple(ends))
        self.require("repeats", is_whole(self.repeats) and self.repeats >= 1, "at least 1")
        self.require("seed", is_whole(self.seed) and self.seed >= 0, "a whole number at least 0")
        for option in ("temperature", "max_tokens"):
            try:
                SamplingParams(**{option: getattr(self, option)})
            except ParamError as error:
                self.require(option, False, error.allowed)
        warm = self.repeats == 1 or self.temperature > 0
        self.require("repeats", warm, "1 at temperature 0, where all judgements are the same")
        self._try_template()

    def _try_template(self) -> None:
        """See that the template can be filled, and shows what is judged.

        Raises:
            ScorerError: It cannot, or does not.
        """
        judged = ("answer",) if self.mode == "rubric" else ("first", "second")
        marks = {name: f"the {name} of the judged" for name in judged}
        try:
            text = self._filled({"question": "?", "reference": "?"} | marks)
        except PromptSetError as error:
            self.require("template", False, f"a template that can be filled ({error.problems[0]})")
        shows = all(mark in text for mark in marks.values())
        self.require("template", shows, f"a template that shows {' and '.join(judged)}")

    @property
    def needs_engine(self) -> bool:
        """It judges with the run's own model."""
        return self.model is None

    def score(self, text: str, prompt: Prompt) -> Score:  # noqa: ARG002 - as for any scorer
        """An answer by itself has no score: it is judged together with others."""
        return unscored("judged together with the run's other answers")

    def judge_together(self, asked: Sequence[Asked], means: Means) -> list[Score]:
        """Judge answers, all questions about them in one call of the judge.

        Raises:
            ModelError, EngineError: The judge cannot be loaded, or cannot answer.
        """
        engine = self._engine(means)
        if engine is None:
            return [unscored("needs the model that answered, or the option model")] * len(asked)
        if self.mode == "pairwise":
            cases = self._compared(asked, means.baseline)
        else:
            cases = [self._graded(one) for one in asked]
        said = self._answers(engine, (q for case in cases for q in case.questions))
        scores = [self._scored(case, said) for case in cases]
        self._seen["records"] += [
            s.answer for s, c in zip(scores, cases, strict=True) if c.questions
        ]
        if means.engine is not None:
            self._seen["itself"] = _same(engine.info, means.engine.info)
        return scores

    def report(self) -> dict[str, Any]:
        """How it judged so far: counts and shares, see `workbench.scorers.verdicts.Figures`, and whether it judged itself.

        ``itself`` is None where it is not known which model answered.
        """
        found = verdicts.figures(self._seen["records"])
        return found.to_dict() | {"itself": self._seen["itself"], "text": found.text}

    @cached_property
    def _seen(self) -> dict[str, Any]:
        return {"records": [], "itself": None}

    @cached_property
    def _own(self) -> Engine:
        assert self.model is not None
        return open_engine(self.model)

    def _engine(self, means: Means) -> Engine | None:
        run = means.engine
        if self.model is None or (run is not None and run.info.model == self.model):
            return run  # not loaded a second time
        return self._own

    # What is asked

    @property
    def _template(self) -> str:
        default = judgetext.GRADE if self.mode == "rubric" else judgetext.COMPARE
        return default if self.template is None else self.template

    def _filled(self, values: dict[str, str]) -> str:
        low, high = self.scale
        more = {"rubric": self.rubric or judgetext.RUBRIC, "low": low, "high": high}
        return templates.fill(self._template, values | more)

    def _question(self, prompt: Prompt, **answers: str) -> Question:
        return Question(
            prompt.id, self._filled(judgetext.values(prompt, self._template, **answers))
        )

    def _graded(self, one: Asked) -> Case:
        if one.generation.finish_reason == "error":
            return Case(score=unscored(f"not generated: {one.generation.error}"))
        return Case((self._question(one.prompt, answer=one.generation.text),))

    def _compared(self, asked: Sequence[Asked], baseline: str | None) -> list[Case]:
        """Every answer beside the baseline's to the same prompt and repeat."""
        if baseline is None:
            return [Case(score=unscored("there is no baseline to compare with"))] * len(asked)
        theirs: dict[str, dict[int, Generation]] = {}
        for one in asked:
            if one.cell.cell_id == baseline:
                theirs.setdefault(one.prompt.id, {})[one.generation.repeat] = one.generation
        return [self._beside(one, theirs.get(one.prompt.id, {}), baseline) for one in asked]

    def _beside(self, one: Asked, theirs: dict[int, Generation], baseline: str) -> Case:
        if one.generation.finish_reason == "error":
            return Case(score=unscored(f"not generated: {one.generation.error}"))
        if one.cell.cell_id == baseline:
            return Case(score=Score(0.5, None, "the baseline"))
        # A greedy baseline answers once for all repeats.
        other = theirs.get(one.generation.repeat, theirs.get(0) if len(theirs) == 1 else None)
        if other is None or other.finish_reason == "error":
            return Case(score=unscored("the baseline has no answer to compare with"))
        mine, its = one.generation.text, other.text
        if mine == its:
            return Case(score=Score(0.5, None, "the same words as the baseline's"))
        return Case(
            (
                self._question(one.prompt, first=mine, second=its),
                self._question(one.prompt, first=its, second=mine),
            )
        )

    def _answers(
        self, engine: Engine, questions: Iterable[Question]
    ) -> dict[tuple[Question, int], Generation]:
        """What the judge says to each question and repeat; the repeats of one side by side, so that it is read once."""
        keys = {
            (f"judge {i}", k): (question, k)
            for i, question in enumerate(dict.fromkeys(questions))
            for k in range(self.repeats)
        }
        params = SamplingParams(temperature=self.temperature, max_tokens=self.max_tokens)
        requests = []
        for (name, k), (question, _) in keys.items():
            own = params
            if not params.greedy:
                own = params.replace(seed=request_seed(self.seed, question.prompt_id, k))
            message = {"role": "user", "content": question.text}
            requests.append(Request("judge", name, k, (message,), own))
        return {keys[a.prompt_id, a.repeat]: a for a in engine.generate(requests)} if keys else {}

    # What it says

    def _scored(self, case: Case, said: dict[tuple[Question, int], Generation]) -> Score:
        if case.score is not None:
            return case.score
        judgements = [tuple(said[q, k] for q in case.questions) for k in range(self.repeats)]
        read = [tuple(self._read(answer) for answer in one) for one in judgements]
        worth = [self._worth(one) for one in read]
        known = [value for value in worth if value is not None]
        recorded = verdicts.record(read)
        if not known:
            answers = zip(judgements[0], read[0], strict=True)
            unread = next(answer for answer, verdict in answers if verdict is None)
            return Score(None, recorded, reason=_unread(unread))
        first = judgements[next(i for i, value in enumerate(worth) if value is not None)][0]
        told = f"{recorded}; the judge: {judgetext.excerpt(first.text)}"
        return Score(sum(known) / len(known), recorded, told)

    def _read(self, answer: Generation) -> str | None:
        """The verdict in what the judge said, as the record keeps it."""
        if self.mode == "pairwise":
            return judgetext.verdict(answer.text)
        found = judgetext.grade(answer.text, *self.scale)
        return None if found is None else f"{found:g}"

    def _worth(self, read: tuple[str | None, ...]) -> float | None:
        if self.mode == "pairwise":
            return verdicts.preference(read)
        low, high = self.scale
        return None if read[0] is None else (float(read[0]) - low) / (high - low)


def _same(judge: EngineInfo, judged: EngineInfo) -> bool:
    """Whether two engines have the same model."""
    if judge.weight_hash is not None and judged.weight_hash is not None:
        return judge.weight_hash == judged.weight_hash
    return judge.model == judged.model


def _unread(answer: Generation) -> str:
    """Why there is no verdict."""
    if answer.finish_reason == "error":
        return f"the judge failed: {answer.error}"
    cut = ", cut at max_tokens" if answer.finish_reason == "length" else ""
    return f"no verdict that can be read{cut}: {judgetext.excerpt(answer.text)!r}"
