"""What a scorer is, and how one is found by name.

A scorer looks at one answer and its prompt and says how good it is, 0 to 1. A wrong or missing answer is 0; an answer
that could not be judged (no target, a failed row, a scorer that broke) has no value and a reason, never 0.

Two seams beyond ``score(text, prompt)``, both optional for a scorer: ``judge_generation(generation, prompt)`` is called
instead where more than the text counts (the finish reason, the number of tokens); ``target_problem(prompt)`` says, before a
run, why a prompt's target is of no use to it. A scorer that judges several answers together, or needs a model, is a
`workbench.scorers.together.JudgesTogether`: ``score_together`` applies it, and its ``score`` is never called.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, runtime_checkable

from workbench.errors import ScorerError, unknown
from workbench.records import Score
from workbench.scorers.together import JudgesTogether

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from workbench.prompts import Prompt
    from workbench.records import Generation
    from workbench.scorers.together import Asked, Means

ENTRY_POINTS: Final = "workbench.scorers"
Judge = Callable[[str, "Prompt"], "float | bool | Score"]


class Judges(Protocol):
    """What scoring one answer needs of a scorer."""

    @property
    def name(self) -> str:
        """What a study calls it."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the same answer could get another score."""
        ...

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        ...


@runtime_checkable
class JudgesGenerations(Protocol):
    """A scorer that looks at more than the text."""

    def judge_generation(self, generation: Generation, prompt: Prompt) -> Score:
        """Judge a generation that did not fail."""
        ...


@runtime_checkable
class ChecksTargets(Protocol):
    """A scorer that knows which targets it can use."""

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why it cannot use the prompt's target, or None if it can."""
        ...


@runtime_checkable
class Scorer(Judges, Protocol):
    """Judges one answer, and knows how it was set up."""

    @property
    def options(self) -> dict[str, Any]:
        """Its settings, as a study gives them."""
        ...


@runtime_checkable
class TogetherScorer(Scorer, JudgesTogether, Protocol):
    """Judges several answers together, and knows how it was set up."""


@dataclass(frozen=True)
class Family:
    """Base of the scorers that ship: a frozen dataclass whose fields are the options.

    Attributes:
        needs_target: Without a target it gives no score, whatever the options.
    """

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    needs_target: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if isinstance(f.default, bool):
                value = getattr(self, f.name)
                self.require(f.name, isinstance(value, bool), "true or false")

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from their default."""
        values = {f.name: (getattr(self, f.name), f) for f in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, (value, f) in values.items()
            if value != f.default
        }

    def require(self, option: str, ok: bool, allowed: str) -> None:
        """Refuse an option.

        Raises:
            ScorerError: ``ok`` is false.
        """
        if not ok:
            got = getattr(self, option)
            raise ScorerError(f"scorer {self.name}: {option} must be {allowed}, got {got!r}")

    def require_count(self, option: str, least: int = 0) -> None:
        """Refuse an option that is neither None nor a whole number of at least ``least``.

        Raises:
            ScorerError: It is something else.
        """
        value = getattr(self, option)
        ok = value is None or (is_whole(value) and value >= least)
        self.require(option, ok, f"a whole number at least {least}")

    def require_texts(self, option: str, least: int = 0) -> None:
        """Refuse an option that is not a list of at least ``least`` texts; keep it as a tuple.

        Raises:
            ScorerError: It is something else.
        """
        value = getattr(self, option)
        ok = isinstance(value, list | tuple) and len(value) >= least
        ok = ok and all(isinstance(item, str) and item.strip() for item in value)
        self.require(option, ok, "a list of texts")
        object.__setattr__(self, option, tuple(value))

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        if self.needs_target and prompt.target is None:
            return "the prompt has no target"
        return None

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        raise NotImplementedError


@dataclass(frozen=True)
class FunctionScorer:
    """A plain function as a scorer, see ``scorer``."""

    name: str
    judge: Judge
    version: str = "1"
    options: dict[str, Any] = field(default_factory=dict)

    def score(self, text: str, prompt: Prompt) -> Score:
        """Call the function; a number or a truth value becomes a Score."""
        result = self.judge(text, prompt)
        return result if isinstance(result, Score) else Score(float(result))

    def __call__(self, text: str, prompt: Prompt) -> float | bool | Score:
        """The function as it was."""
        return self.judge(text, prompt)


FAMILIES: Final[dict[str, type[Family]]] = {}
_OWN: Final[dict[str, FunctionScorer]] = {}


def family(cls: type[Family]) -> type[Family]:
    """Register a scorer that ships."""
    FAMILIES[cls.name] = cls
    return cls


def scorer(name: str | Judge | None = None, version: str = "1") -> Any:
    """Make a scorer of a function ``(text, prompt) -> float | bool | Score`` and register its name.

    Args:
        name: What studies call it; the function's name by default. Bare ``@scorer`` works too.
        version: Change it whenever the same answer could get another score.

    Raises:
        ScorerError: The name is that of a scorer that ships.

    >>> @scorer
    ... def polite(text, prompt):
    ...     return "please" in text.lower()
    >>> get_scorer("polite").score("Please wait.", None).value
    1.0
    """
    if callable(name):
        return _register(name, name.__name__, version)
    return lambda judge: _register(judge, name or judge.__name__, version)


def _register(judge: Judge, name: str, version: str) -> FunctionScorer:
    if name in FAMILIES:
        raise ScorerError(f"scorer {name!r} ships with the workbench; choose another name")
    _OWN[name] = FunctionScorer(name, judge, version)
    return _OWN[name]


def _plugins() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def known_scorers() -> tuple[str, ...]:
    """Names that ``get_scorer`` takes: shipped, registered, and from installed packages."""
    return tuple(dict.fromkeys([*FAMILIES, *_OWN, *_plugins()]))


def get_scorer(
    spec: str | Mapping[str, Any] | Scorer, base_dir: str | Path | None = None
) -> Scorer:
    """Make the scorer that a study names.

    Args:
        spec: A name, ``FILE.py:FUNCTION``, ``{name: {option: value}}``, or a scorer.
        base_dir: A relative file is looked up here first, then in the current directory.

    Raises:
        ScorerError: Unknown name or option (says which exist), or an option out of range.
    """
    options: Any = {}
    if isinstance(spec, str):
        name = spec
    elif isinstance(spec, Mapping):
        if len(spec) != 1:
            raise ScorerError(f"a scorer is a name or {{name: {{options}}}}, got {dict(spec)!r}")
        ((name, options),) = spec.items()
        options = {} if options is None else options
        if not isinstance(options, Mapping):
            raise ScorerError(f"scorer {name}: options must be a mapping, got {options!r}")
    elif isinstance(spec, Scorer) and not isinstance(spec, type):
        return spec
    else:
        raise ScorerError(f"a scorer is a name or {{name: {{options}}}}, got {spec!r}")
    if name in FAMILIES:
        return _make(FAMILIES[name], name, _with_scorer(FAMILIES[name], options, base_dir))
    if name in _OWN:
        return _make(_OWN[name], name, options)
    if name.partition(":")[0].endswith(".py"):
        from workbench.scorers.files import file_scorer  # noqa: PLC0415 - it imports this module

        return _make(file_scorer(name, base_dir), name, options)
    plugins = _plugins()
    if name in plugins:
        return _make(plugins[name].load(), name, options)
    raise ScorerError(unknown("scorer", name, known_scorers()))


def _with_scorer(
    cls: type[Family], options: Mapping[str, Any], base_dir: str | Path | None
) -> Mapping[str, Any]:
    """The options of a family; the scorer that one of them names is made, its file looked up like any."""
    if "scorer" not in options or all(f.name != "scorer" for f in dataclasses.fields(cls)):
        return options
    return {**options, "scorer": get_scorer(options["scorer"], base_dir)}


def _make(made: Any, name: str, options: Mapping[str, Any]) -> Scorer:
    if isinstance(made, type) and dataclasses.is_dataclass(made):
        fields = {f.name: f for f in dataclasses.fields(made) if f.init}
        for option in options:
            if option not in fields:
                known = f"{unknown('option', option, fields)}" if fields else "it takes no options"
                raise ScorerError(f"scorer {name}: {known}")
        missing = [n for n, f in fields.items() if _required(f) and n not in options]
        if missing:
            raise ScorerError(f"scorer {name}: needs the option {', '.join(missing)}")
        made = made(**options)
    elif isinstance(made, type):
        made = made(**options)
    elif options:
        raise ScorerError(f"scorer {name}: it takes no options")
    if isinstance(made, Scorer):
        return made
    if callable(made):
        return FunctionScorer(name, made)
    raise ScorerError(f"scorer {name}: not a scorer, got {made!r}")


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def score_generation(scorer: Judges, generation: Generation, prompt: Prompt) -> Score:
    """Score one generation; never raises for what the answer or the scorer does.

    Returns:
        A score whose value is None, with the reason, for a failed generation, a scorer that breaks, or a value that
        is not in 0..1.
    """
    if isinstance(scorer, JudgesTogether):
        return Score(None, reason=f"scorer {scorer.name} judges several answers together")
    if generation.finish_reason == "error":
        return _not_generated(generation)
    try:
        if isinstance(scorer, JudgesGenerations):
            score = scorer.judge_generation(generation, prompt)
        else:
            score = scorer.score(generation.text, prompt)
    except Exception as error:  # noqa: BLE001 - a scorer is anybody's code; its failure is a row without a score
        return _failed(scorer, error)
    return _checked(scorer, score)


def score_together(scorer: TogetherScorer, asked: Sequence[Asked], means: Means) -> list[Score]:
    """Score all answers to some prompts; never raises for what the answers or the scorer do.

    Returns:
        A score for each of ``asked``. Its value is None, with the reason, as in ``score_generation``; that of all of them
        where the scorer breaks, or gives more or fewer scores than there are answers.
    """
    try:
        scores = list(scorer.judge_together(asked, means))
    except Exception as error:  # noqa: BLE001 - as above
        return [_failed(scorer, error)] * len(asked)
    if len(scores) != len(asked):
        text = f"scorer {scorer.name} gave {len(scores):,} scores for {len(asked):,} answers"
        return [Score(None, reason=text)] * len(asked)
    return [
        _not_generated(a.generation)
        if a.generation.finish_reason == "error"
        else _checked(scorer, score)
        for a, score in zip(asked, scores, strict=True)
    ]


def _not_generated(generation: Generation) -> Score:
    return Score(None, reason=f"not generated: {generation.error}")


def _failed(scorer: Judges, error: Exception) -> Score:
    return Score(None, reason=f"scorer {scorer.name} failed: {type(error).__name__}: {error}")


def _checked(scorer: Judges, score: Score) -> Score:
    """A score as it may be recorded."""
    if not isinstance(score, Score):
        return Score(None, reason=f"scorer {scorer.name} gave {score!r}, which is no Score")
    if score.value is None:
        return score if score.reason else dataclasses.replace(score, reason="not scored")
    if not math.isfinite(score.value) or not 0 <= score.value <= 1:
        text = f"scorer {scorer.name} gave {score.value!r}; a score is between 0 and 1"
        return dataclasses.replace(score, value=None, reason=text)
    return score


def target_problems(scorer: Judges, prompts: Iterable[Prompt]) -> list[str]:
    """What ``scorer`` cannot judge among ``prompts``, one line for the whole set; empty if it can judge all.

    >>> from workbench.prompts import PromptSet
    >>> rows = [{"id": "a", "prompt": "2+2?", "target": 4}, {"id": "b", "prompt": "Why?"}]
    >>> target_problems(get_scorer("numeric"), PromptSet.from_records(rows))
    ["scorer numeric: 1 of 2 prompts has no target it can use (first: 'b': the prompt has no target)"]
    """
    if not isinstance(scorer, ChecksTargets):
        return []
    prompts = list(prompts)
    found = [(p.id, problem) for p in prompts if (problem := scorer.target_problem(p))]
    if not found:
        return []
    have = "has" if len(found) == 1 else "have"
    prompt_id, problem = found[0]
    first = f"(first: {prompt_id!r}: {problem})"
    said = f"{len(found)} of {len(prompts)} prompts {have} no target it can use"
    return [f"scorer {scorer.name}: {said} {first}"]


def targets(prompt: Prompt) -> list[Any]:
    """The targets of a prompt: a list holds alternatives."""
    if prompt.target is None:
        return []
    return list(prompt.target) if isinstance(prompt.target, list | tuple) else [prompt.target]


def kind(value: Any) -> str:
    """What a target is, for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {dict: "an object", list: "a list", tuple: "a list", str: "a text"}
    if isinstance(value, list | tuple) and value:
        inner = {kind(v).removeprefix("a ").removeprefix("an ") for v in value}
        return f"a list of {inner.pop()}s" if len(inner) == 1 else "a mixed list"
    name = names.get(type(value))
    return "a number" if name is None else name


def is_whole(value: object) -> bool:
    """A whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """A number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def unscored(reason: str) -> Score:
    """A score without a value."""
    return Score(None, reason=reason)


def listed(values: Iterable[Any], limit: int = 5) -> str:
    """Some values for a message."""
    items = [repr(value) for value in values]
    return ", ".join(items[:limit]) + (", ..." if len(items) > limit else "")


def shares(done: int, total: int) -> float:
    """``done`` of ``total``; 1 of nothing."""
    return done / total if total else 1.0
