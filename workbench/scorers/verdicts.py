"""A judge's verdicts as the record keeps them, and what they say of the judge itself.

The record of a judged answer is a text with one word for each time it was judged: ``4`` (a grade), ``A/B`` (two answers
compared in both orders: first shown with the judged answer as A, then with the baseline's as A), ``?`` where no verdict could
be read. So all figures here can be told from a run's scores, without the judge.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNREAD: Final = "?"
TIE: Final = "tie"
_WORTH: Final = {"A": 1.0, TIE: 0.5, "B": 0.0}
"""What a verdict is worth to the answer shown first."""


def record(judgements: Iterable[Sequence[str | None]]) -> str:
    """Judgements as the record keeps them.

    >>> record([("4",), (None,)]), record([("A", "B"), ("tie", None)])
    ('4 ?', 'A/B tie/?')
    """
    return " ".join("/".join(verdict or UNREAD for verdict in one) for one in judgements)


def read(recorded: str) -> list[tuple[str | None, ...]]:
    """The judgements of a record, see `record`."""
    words = [word.split("/") for word in recorded.split()]
    return [tuple(None if v == UNREAD else v for v in word) for word in words]


def preference(orders: Sequence[str | None]) -> float | None:
    """What two verdicts on the same answers in both orders come to.

    Args:
        orders: The verdict with the judged answer shown first, and with it shown second.

    Returns:
        1 if both prefer the judged answer, 0 if both prefer the other, 0.5 for ties and where they disagree; None if one could
        not be read.
    """
    first, second = orders
    if first is None or second is None:
        return None
    one, other = _WORTH[first], 1 - _WORTH[second]
    return one if one == other else 0.5


@dataclass(frozen=True, slots=True)
class Figures:
    """How a judge judged.

    Attributes:
        n_answers: Answers that it was asked about.
        n_verdicts: Verdicts that it was asked for.
        n_read: Of these, those that could be read.
        n_repeated: Answers with two or more judgements that could be read.
        n_same: Of these, those whose judgements are all the same.
        n_swapped: Pairs with a verdict in both orders.
        n_agree: Of these, those that prefer the same answer, or none, in both.
        n_preferred: Verdicts of these pairs that prefer one of the answers.
        n_first: Of these, those that prefer the one shown first.
    """

    n_answers: int = 0
    n_verdicts: int = 0
    n_read: int = 0
    n_repeated: int = 0
    n_same: int = 0
    n_swapped: int = 0
    n_agree: int = 0
    n_preferred: int = 0
    n_first: int = 0

    def __add__(self, other: Figures) -> Figures:
        mine, theirs = asdict(self), asdict(other)
        return Figures(**{name: mine[name] + theirs[name] for name in mine})

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the shares that follow from them; None where there is nothing to divide by."""
        shares = {
            "read": _share(self.n_read, self.n_verdicts),
            "repeats_agree": _share(self.n_same, self.n_repeated),
            "orders_agree": _share(self.n_agree, self.n_swapped),
            "prefers_first": _share(self.n_first, self.n_preferred),
        }
        return asdict(self) | shares

    @property
    def text(self) -> str:
        """One line.

        >>> figures(["A/B A/A", "?/B B/A"]).text
        '88 % of 8 verdicts could be read; order swapped: 67 % of 3 agree, first place favoured in 67 % of 6; repeats: 0 of 1 agree'
        """
        if not self.n_answers:
            return "nothing was judged"
        parts = [f"{_part(self.n_read, self.n_verdicts)} verdicts could be read"]
        if self.n_swapped:
            swapped = f"order swapped: {_part(self.n_agree, self.n_swapped)} agree"
            if self.n_preferred:
                swapped += f", first place favoured in {_part(self.n_first, self.n_preferred)}"
            parts.append(swapped)
        if self.n_repeated:
            parts.append(f"repeats: {_part(self.n_same, self.n_repeated)} agree")
        return "; ".join(parts)


def figures(recorded: Iterable[str | None]) -> Figures:
    """The figures of a judge from its records; an answer without one was not put to it."""
    return sum((_of(text) for text in recorded if text), Figures())


def _of(recorded: str) -> Figures:
    judgements = read(recorded)
    verdicts = [verdict for one in judgements for verdict in one]
    known = [one for one in judgements if None not in one]
    pairs = [one for one in known if len(one) > 1]
    outcomes = [preference(one) if len(one) > 1 else one[0] for one in known]
    preferred = [verdict for pair in pairs for verdict in pair if verdict != TIE]
    return Figures(
        n_answers=1,
        n_verdicts=len(verdicts),
        n_read=sum(verdict is not None for verdict in verdicts),
        n_repeated=int(len(known) > 1),
        n_same=int(len(known) > 1 and len(set(outcomes)) == 1),
        n_swapped=len(pairs),
        n_agree=sum(_agree(pair) for pair in pairs),
        n_preferred=len(preferred),
        n_first=sum(verdict == "A" for verdict in preferred),
    )


def _agree(pair: Sequence[str | None]) -> bool:
    return tuple(pair) in {("A", "B"), ("B", "A"), (TIE, TIE)}


def _share(n: int, of: int) -> float | None:
    return n / of if of else None


def _part(n: int, of: int) -> str:
    return f"{n} of {of}" if of < 3 else f"{100 * n / of:.0f} % of {of:,}"
