"""What a search may cost: wall time, generated tokens, or rows, one of them or several."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from workbench.errors import ParamError
from workbench.plan import duration

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Budget", "Cost"]

_NUMBER: Final = r"(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)"
_TIME: Final = re.compile(r"(?:(\d+(?:\.\d+)?)\s*(h|min|m|s)\s*)+", re.IGNORECASE)
_PIECE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)", re.IGNORECASE)
_COUNT: Final = re.compile(rf"{_NUMBER}\s*([km]?)\s*(tokens?|rows?)", re.IGNORECASE)
_BETWEEN: Final = re.compile(r"\s*(?:,(?!\d{3})|;|\+|\band\b)\s*")
_SECONDS: Final = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}
_FACTOR: Final = {"": 1, "k": 1_000, "m": 1_000_000}
_ALLOWED: Final = (
    "times (20m, 90s, 1h30m), tokens (200k tokens) or rows (5000 rows), "
    "each more than 0 and of each kind one"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took or will take.

    Attributes:
        wall_s: Wall time, seconds.
        tokens: Generated tokens.
        rows: Answers.
    """

    wall_s: float = 0.0
    tokens: int = 0
    rows: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall_s + other.wall_s, self.tokens + other.tokens, self.rows + other.rows)


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on cost, and what of it is used up.

    A block starts only if something of every limit is left and what it is expected to cost still fits; it then runs to its
    end. So a budget is exceeded by no more than that block's error of estimation.

    Attributes:
        wall_s: Seconds, > 0; None = no limit.
        tokens: Generated tokens, > 0; None = no limit.
        rows: Answers, > 0; None = no limit.
        used: What is used up.
    """

    wall_s: float | None = None
    tokens: int | None = None
    rows: int | None = None
    used: Cost = field(default_factory=Cost)

    @classmethod
    def parse(cls, text: str | Iterable[str]) -> Budget:
        """Read what ``--budget`` was given: one or several of a time, tokens and rows.

        Args:
            text: As typed, several with commas or "and" between them; or several such texts.

        Raises:
            ParamError: It cannot be read, or a kind is there twice.

        >>> str(Budget.parse("1h30m and 200k tokens"))
        '1.5 h, 200,000 tokens'
        """
        texts = [text] if isinstance(text, str) else list(text)
        got = text if isinstance(text, str) else ", ".join(texts)
        limits: dict[str, float] = {}
        for part in (part for text in texts for part in _BETWEEN.split(text.strip())):
            read = _limit(part)
            if read is None or read[1] <= 0 or read[0] in limits:
                raise ParamError("--budget", _ALLOWED, got)
            limits[read[0]] = read[1]
        if not limits:
            raise ParamError("--budget", _ALLOWED, got)
        whole = {k: int(limits[k]) if k in limits else None for k in ("tokens", "rows")}
        return cls(limits.get("wall_s"), whole["tokens"], whole["rows"])

    def spent(self, wall_s: float = 0.0, tokens: int = 0, rows: int = 0) -> Budget:
        """The budget after this much more was used."""
        return replace(self, used=self.used + Cost(wall_s, tokens, rows))

    def share(self, part: float) -> Budget:
        """A budget of a share of the limits, 0..1, with as much used; whole tokens and rows."""
        tokens, rows = (None if x is None else int(x * part) for x in (self.tokens, self.rows))
        return Budget(None if self.wall_s is None else self.wall_s * part, tokens, rows, self.used)

    @property
    def exhausted(self) -> bool:
        """True if nothing is left of one of the limits."""
        return any(used >= limit for used, limit in self._limits(self.used))

    def fits(self, cost: Cost | None = None) -> bool:
        """Whether the next block may start.

        Args:
            cost: What it is expected to take; None = nobody knows, as for the first block.
        """
        after = self.used + (cost or Cost())
        return not self.exhausted and all(used <= limit for used, limit in self._limits(after))

    def __str__(self) -> str:
        return ", ".join(self._words(None)) or "no limit"

    def describe(self) -> str:
        """What is used of what there is, in words.

        >>> Budget.parse("20m, 5000 rows").spent(wall_s=480, rows=960).describe()
        '8.0 min of 20.0 min, 960 of 5,000 rows'
        """
        return ", ".join(self._words(self.used)) or "no limit"

    def _limits(self, used: Cost) -> list[tuple[float, float]]:
        pairs = [(used.wall_s, self.wall_s), (used.tokens, self.tokens), (used.rows, self.rows)]
        return [(u, limit) for u, limit in pairs if limit is not None]

    def _words(self, used: Cost | None) -> list[str]:
        words = []
        if self.wall_s is not None:
            part = "" if used is None else f"{duration(used.wall_s)} of "
            words.append(part + duration(self.wall_s))
        for name, limit in (("tokens", self.tokens), ("rows", self.rows)):
            if limit is not None:
                part = "" if used is None else f"{getattr(used, name):,} of "
                words.append(f"{part}{limit:,} {name}")
        return words


def _limit(text: str) -> tuple[str, float] | None:
    """Which limit a text sets, and to what."""
    if _TIME.fullmatch(text):
        units = [unit.lower() for _, unit in _PIECE.findall(text)]
        once = len({_SECONDS[unit] for unit in units}) == len(units)
        total = sum(float(n) * _SECONDS[unit.lower()] for n, unit in _PIECE.findall(text))
        return ("wall_s", total) if once else None
    if found := _COUNT.fullmatch(text):
        number, factor, kind = found.groups()
        count = float(number.replace(",", "")) * _FACTOR[factor.lower()]
        return f"{kind.lower().removesuffix('s')}s", int(count)
    return None
