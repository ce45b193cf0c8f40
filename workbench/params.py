"""Decoding settings: names, ranges, canonical form.

Order in which they act, on fp32 logits: repetition penalty, frequency and presence penalty, temperature,
top_k, top_p, min_p, draw. See ``docs/decoding.md``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from workbench.errors import ParamError

Profile = Literal["workbench", "card"]

SEED_MAX: Final = 9_999_999_999
CARD_DEFAULTS: Final[dict[str, Any]] = {"max_tokens": 256, "temperature": 0.6}


@dataclass(frozen=True, slots=True)
class _Range:
    """An allowed interval; ``low_open`` excludes the lower end."""

    low: float
    high: float | None
    integer: bool = False
    low_open: bool = False
    optional: bool = True

    def words(self) -> str:
        kind = "an integer" if self.integer else "a number"
        low = f"greater than {self.low:g}" if self.low_open else f"at least {self.low:g}"
        high = "" if self.high is None else f" and at most {self.high:.10g}"
        none = ", or none" if self.optional else ""
        return f"{kind} {low}{high}{none}"

    def admits(self, value: object) -> bool:
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.integer and not isinstance(value, int):
            return False
        if not math.isfinite(value):
            return False
        above = value > self.low if self.low_open else value >= self.low
        return above and (self.high is None or value <= self.high)


_RANGES: Final[dict[str, _Range]] = {
    "max_tokens": _Range(1, None, integer=True, optional=False),
    "temperature": _Range(0, 5, optional=False),
    "top_p": _Range(0, 2),
    "top_k": _Range(1, None, integer=True),
    "min_p": _Range(0, 1),
    "seed": _Range(1, SEED_MAX, integer=True),
    "repetition_penalty": _Range(0, 2, low_open=True),
    "frequency_penalty": _Range(-2, 2),
    "presence_penalty": _Range(-2, 2),
}
_CARD_RANGES: Final[dict[str, _Range]] = _RANGES | {
    "top_k": _Range(1, 50, integer=True),
    "frequency_penalty": _Range(0, 2),
    "presence_penalty": _Range(0, 2),
}
_NOT_IN_CARD: Final = ("min_p", "stop")


def _check(field: str, value: object, ranges: Mapping[str, _Range]) -> None:
    allowed = ranges[field]
    if not allowed.admits(value):
        raise ParamError(field, allowed.words(), value)


def _stop(value: object) -> tuple[str, ...] | None:
    allowed = "a non-empty text, or a list of them, or none"
    if value is None:
        return None
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(s, str) and s for s in items):
        raise ParamError("stop", allowed, value)
    return tuple(items) or None


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """One combination of decoding settings, validated when made.

    Attributes:
        max_tokens: Most tokens to generate, >= 1.
        temperature: 0..5; 0 takes the most likely token (greedy).
        top_p: 0..2, or None. Smallest set of tokens whose probability reaches it; >= 1 is off.
        top_k: >= 1, or None (off). The hosted model allowed 1..50.
        min_p: 0..1, or None. Tokens less likely than min_p times the most likely one are dropped.
        seed: 1..9999999999, or None. The draw is a pure function of it.
        repetition_penalty: above 0 and at most 2, or None. Divides positive and multiplies negative logits
            of tokens seen in prompt or output.
        frequency_penalty: -2..2, or None. Subtracted once per earlier occurrence in the output.
        presence_penalty: -2..2, or None. Subtracted once if the token is in the output.
        stop: Texts that end the answer (not part of it), or None.

    Raises:
        ParamError: A value is outside its range.

    >>> SamplingParams(temperature=0, top_p=0.9).canonical()
    SamplingParams(max_tokens=256, temperature=0.0)
    """

    max_tokens: int = 256
    temperature: float = 0.6
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for field, allowed in _RANGES.items():
            value = getattr(self, field)
            _check(field, value, _RANGES)
            if value is not None and not allowed.integer:
                object.__setattr__(self, field, float(value))
        object.__setattr__(self, "stop", _stop(self.stop))

    def __repr__(self) -> str:
        shown = [f"{k}={v!r}" for k, v in self.to_dict().items() if v is not None]
        return f"SamplingParams({', '.join(shown)})"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], profile: Profile = "workbench") -> SamplingParams:
        """Make settings from a mapping.

        Args:
            values: Setting name to value; absent settings take their default.
            profile: "card" accepts only the hosted model's settings and ranges.

        Raises:
            ParamError: An unknown name, or a value outside its range.
        """
        for name, value in values.items():
            if name not in FIELDS or (profile == "card" and name in _NOT_IN_CARD):
                known = [f for f in FIELDS if profile != "card" or f not in _NOT_IN_CARD]
                raise ParamError("setting", f"one of {', '.join(known)}", name)
            if profile == "card" and name in _CARD_RANGES:
                _check(name, value, _CARD_RANGES)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields, in order; ``stop`` as a list."""
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        out["stop"] = list(self.stop) if self.stop else None
        return out

    def replace(self, **changes: Any) -> SamplingParams:
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    @property
    def greedy(self) -> bool:
        """True if the settings always pick the most likely token."""
        return self.temperature == 0 or self.top_k == 1 or self.top_p == 0 or self.min_p == 1

    def canonical(self) -> SamplingParams:
        """The same behaviour written one way: inert settings become absent.

        Greedy settings lose top_p, top_k, min_p and seed; top_p >= 1, min_p 0 and neutral penalties are dropped.
        """
        changes: dict[str, Any] = {}
        if self.greedy:
            changes = {
                "temperature": 0.0,
                "top_p": None,
                "top_k": None,
                "min_p": None,
                "seed": None,
            }
        elif self.top_p is not None and self.top_p >= 1:
            changes["top_p"] = None
        if self.min_p == 0:
            changes["min_p"] = None
        if self.repetition_penalty == 1:
            changes["repetition_penalty"] = None
        if self.frequency_penalty == 0:
            changes["frequency_penalty"] = None
        if self.presence_penalty == 0:
            changes["presence_penalty"] = None
        return self.replace(**changes)


FIELDS: Final[tuple[str, ...]] = tuple(f.name for f in dataclasses.fields(SamplingParams))
