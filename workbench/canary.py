"""Does the engine do what the settings say? A check before a run, of every setting that the study varies.

A hosted model may ignore a setting or clamp it without a word; a table over its values then compares noise. Each setting is
tried at a strong value against a neutral one, on a few prompts of the check's own:

* temperature, top_k, top_p, min_p: first tokens of answers to the same prompts with several seeds. A strong value leaves
  hardly any choice, so it must give at most half as many different ones as temperature 2 with nothing cut off.
* penalties: a longer greedy answer must change.
* max_tokens: an answer must not be longer than it says.

This shows that a setting acts, not that it acts exactly as defined; the contract tests of an engine show that.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from workbench.engines.base import SaysEffective
from workbench.errors import SettingInert
from workbench.params import FIELDS, SamplingParams
from workbench.records import CANARY, Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from workbench.engines.base import Engine
    from workbench.plan import Cell
    from workbench.records import Generation

__all__ = ["Tried", "check", "effective", "try_settings", "varied"]

PROMPTS: Final = (
    "Write the word ha twenty times, with spaces between.",
    "Name any animal, city or colour. One word.",
    "Tell me something surprising.",
)
SEEDS: Final = 8
"""Draws for each prompt."""
LONG_TOKENS: Final = 32
"""Length of the greedy answers that a penalty must change."""
SHORT_TOKENS: Final = 2
"""What max_tokens is tried with."""
_FREE: Final = SamplingParams(max_tokens=1, temperature=2)
_GREEDY: Final = SamplingParams(max_tokens=LONG_TOKENS, temperature=0)
_NARROW: Final[dict[str, SamplingParams]] = {
    "temperature": _FREE.replace(temperature=0),
    "top_k": _FREE.replace(top_k=2),
    "top_p": _FREE.replace(top_p=0.001),
    "min_p": _FREE.replace(min_p=0.95),
}
_PENALTIES: Final[dict[str, SamplingParams]] = {
    name: _GREEDY.replace(**{name: 2.0})
    for name in ("repetition_penalty", "frequency_penalty", "presence_penalty")
}
_TRIED: Final = frozenset({*_NARROW, *_PENALTIES, "max_tokens"})


@dataclass(frozen=True, slots=True)
class Tried:
    """What trying a setting showed.

    Attributes:
        acts: None if it could not be told.
        saw: In words.
    """

    acts: bool | None
    saw: str


def varied(cells: Iterable[Cell]) -> tuple[str, ...]:
    """Settings that differ between cells and that can be tried, in the order of `SamplingParams`."""
    params = [cell.params.canonical() for cell in cells]
    return tuple(f for f in FIELDS if f in _TRIED and len({getattr(p, f) for p in params}) > 1)


def try_settings(engine: Engine, settings: Sequence[str]) -> dict[str, Tried]:
    """Try settings at strong values.

    Args:
        engine: Answers at most 78 short requests, all in one call.
        settings: Some of the names that `varied` gives.

    Raises:
        EngineError: The engine gave up.
    """
    asked = _asked(settings)
    answers: dict[str, list[Generation]] = {name: [] for name in asked}
    for answer in engine.generate(r for requests in asked.values() for r in requests):
        answers[answer.cell_id].append(answer)
    for rows in answers.values():
        rows.sort(key=lambda a: a.key)
    return {name: _judged(name, answers) for name in settings}


def check(
    engine: Engine,
    cells: Sequence[Cell],
    *,
    allow_inert: bool = False,
    search: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Try every setting that the cells vary, or a search will, and what the engine makes of their values.

    Args:
        engine: The engine.
        cells: The cells.
        allow_inert: Whether a setting may do nothing.
        search: Setting to the values that a search may try, in any form.

    Returns:
        For the manifest: setting to what was requested, what trying it showed, and, of an engine that tells, which values
        act as another one.

    Raises:
        SettingInert: A setting does nothing, and that is not allowed.
        EngineError: The engine gave up.
    """
    space = dict(search or {})
    names = tuple(f for f in FIELDS if f in {*varied(cells), *(_TRIED & space.keys())})
    found = try_settings(engine, names) if names else {}
    inert = [f"{name} ({tried.saw})" for name, tried in found.items() if tried.acts is False]
    if inert and not allow_inert:
        does = "does" if len(inert) == 1 else "do"
        raise SettingInert(
            f"the study varies what {does} nothing with this engine ({engine.info.engine}, {engine.info.model}): "
            f"{'; '.join(inert)}; take it out of the study, use another engine, or allow it with allow_inert: true"
        )
    told = effective(engine, cells)
    return {
        name: {
            "requested": space.get(name) or _values(cells, name),
            **asdict(found[name]),
            **({"effective": told[name]} if name in told else {}),
        }
        for name in names
    }


def effective(engine: Engine, cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    """Setting to the values that act as another one, requested (as text) to effective; of an engine that tells."""
    changed: dict[str, dict[str, Any]] = {}
    if not isinstance(engine, SaysEffective):
        return changed
    for cell in cells:
        acts = engine.effective(cell.params).to_dict()
        for name, value in cell.params.to_dict().items():
            if acts[name] != value:
                changed.setdefault(name, {})[json.dumps(value)] = acts[name]
    return changed


def _values(cells: Iterable[Cell], name: str) -> list[Any]:
    """Different values of a setting, in the order of the cells."""
    return list(dict.fromkeys(getattr(cell.params, name) for cell in cells))


def _asked(settings: Sequence[str]) -> dict[str, list[Request]]:
    """What is asked to try these settings: name of a try to its requests."""
    tries: dict[str, SamplingParams] = {}
    if any(name in _NARROW for name in settings):
        tries["free"] = _FREE
    if any(name in _PENALTIES for name in settings):
        tries |= {"greedy": _GREEDY, "greedy again": _GREEDY}
    both = _NARROW | _PENALTIES | {"max_tokens": _GREEDY.replace(max_tokens=SHORT_TOKENS)}
    tries |= {name: both[name] for name in settings}
    return {name: _requests(name, params) for name, params in tries.items()}


def _requests(name: str, params: SamplingParams) -> list[Request]:
    seeds = range(1, SEEDS + 1) if params.max_tokens == _FREE.max_tokens else (1,)
    return [
        Request(
            name,
            f"{CANARY}{i}",
            seed,
            ({"role": "user", "content": text},),
            params.replace(seed=seed),
        )
        for i, text in enumerate(PROMPTS)
        for seed in seeds
    ]


def _judged(name: str, answers: Mapping[str, list[Generation]]) -> Tried:
    """What the answers say of a setting."""
    against = {**dict.fromkeys(_NARROW, ("free",)), "max_tokens": ()}
    used = (name, *against.get(name, ("greedy", "greedy again")))
    failed = next((a for n in used for a in answers[n] if a.finish_reason == "error"), None)
    if failed is not None:
        return Tried(None, f"could not be tried: {failed.error}")
    if name in _NARROW:
        few, many = _different(answers[name]), _different(answers["free"])
        n = len(answers[name])
        saw = f"{few} different first tokens in {n} answers at a strong value, {many} without it"
        if 2 * few <= many:
            return Tried(True, saw)
        # With little choice to begin with, only temperature itself can be to blame.
        return Tried(False if name == "temperature" or 2 * many >= n else None, saw)
    if name == "max_tokens":
        longest = max(a.n_output_tokens for a in answers[name])
        return Tried(
            longest <= SHORT_TOKENS, f"{longest} tokens where at most {SHORT_TOKENS} were asked for"
        )
    plain, again, strong = (_texts(answers[n]) for n in ("greedy", "greedy again", name))
    if plain != again:
        return Tried(None, "cannot be told: greedy answers of this engine differ by themselves")
    changed = sum(a != b for a, b in zip(plain, strong, strict=True))
    return Tried(changed > 0, f"{changed} of {len(plain)} greedy answers change at a strong value")


def _texts(rows: Iterable[Generation]) -> list[str]:
    return [row.text for row in rows]


def _different(rows: Sequence[Generation]) -> int:
    """Different first tokens, or first words of an engine that tells no tokens, of each prompt, all together."""
    first: list[Any] = [row.token_ids[:1] or row.text.split()[:1] for row in rows]
    return len({(row.prompt_id, *token) for row, token in zip(rows, first, strict=True)})
