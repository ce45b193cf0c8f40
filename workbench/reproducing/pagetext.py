"""The text of a report taken apart into pieces with their places, and two such texts compared number by number."""

from __future__ import annotations

import csv
import io
import re
from difflib import SequenceMatcher
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NUMBER: Final = re.compile(r"(?<![\w.])[-+\u2212]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")
"""A number as a report prints it; digits inside a word (a hash, a run id) are none."""
RELATIVE: Final = 1e-9
"""How far two values of a table in full precision may be apart on other versions."""
_WIDTH: Final = 60
_BREAKS: Final = frozenset(
    "body caption dd div dl dt figcaption figure h1 h2 h3 h4 li main ol p pre section summary table tbody td text th thead title "  # noqa: SIM905 - one text reads better
    "tr ul".split()
)


class Piece(NamedTuple):
    """A piece of a report: a paragraph, a cell of a table, a line.

    Attributes:
        place: Where it stands, in words.
        text: What it says.
    """

    place: str
    text: str


class Difference(NamedTuple):
    """Something that a report says and the record does not, or the other way round.

    Attributes:
        file: "report.html", "report.md", "summary.csv", ...
        place: Where in it.
        reported: What stands there; None if nothing does.
        recorded: What the record gives; None if nothing.
    """

    file: str
    place: str
    reported: str | None
    recorded: str | None

    def __str__(self) -> str:
        reported, recorded = ("nothing" if v is None else v for v in (self.reported, self.recorded))
        return f"{self.file}, {self.place}: {reported}; the record gives {recorded}"


class _Reader(HTMLParser):
    """Reads the pieces of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[Piece] = []
        self.about = ""
        self._text: list[str] = []
        self._heading, self._caption, self._row = "top", "", ""
        self._titles: list[str] = []
        self._column = 0
        self._kind = ""
        self._silent = self._in_head = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a piece, or note a picture's description."""
        given = dict(attrs)
        if tag in _BREAKS:
            self._flush()
            self._kind = tag
        if tag == "style":
            self._silent = True
        elif tag == "meta" and given.get("name") == "made-by":
            self.about = given.get("content") or ""
        elif tag == "table":
            self._caption, self._titles = "", []
        elif tag == "thead":
            self._in_head = True
        elif tag == "tr":
            self._column, self._row = 0, ""
        elif tag == "img":
            self._add("picture", given.get("alt") or "")

    def handle_endtag(self, tag: str) -> None:
        """End a piece."""
        if tag in _BREAKS:
            self._flush()
        if tag == "style":
            self._silent = False
        elif tag == "thead":
            self._in_head = False
        elif tag == "table":
            self._caption = self._row = ""

    def handle_data(self, data: str) -> None:
        """Collect text."""
        if not self._silent:
            self._text.append(data)

    def close(self) -> None:
        """End the last piece."""
        super().close()
        self._flush()

    def _flush(self) -> None:
        text, self._text = " ".join("".join(self._text).split()), []
        kind, self._kind = self._kind, ""
        if kind in ("td", "th") and self._in_head:
            self._titles.append(text)
        if not text:
            self._column += kind == "td"
            return
        if kind in ("h1", "h2", "h3"):
            self._heading = text
        elif kind == "caption":
            self._caption = text
        elif kind == "th" and not self._in_head:
            self._row, self._column = text, 1
        where = self._heading
        if self._caption and kind in ("td", "th"):
            where = f"{where}, {self._caption[:_WIDTH]}"
        if self._row and kind == "td":
            where = f"{where}, {self._row[:_WIDTH]}"
            if self._column < len(self._titles):
                where = f"{where}, {self._titles[self._column]}"
        self._column += kind == "td"
        self._add(where, text)

    def _add(self, where: str, text: str) -> None:
        place = f"{self._heading}, {where}" if where == "picture" else where
        self.pieces.append(Piece(place, text))


def page_pieces(html: str) -> list[Piece]:
    """The text of a page, piece by piece, pictures by their descriptions."""
    return _read(html).pieces


def made_by(html: str) -> str:
    """What a page says it was made with; empty if it does not say."""
    return _read(html).about


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


def lines(text: str) -> list[Piece]:
    """The lines of a text that are not empty."""
    found = enumerate(text.split("\n"), start=1)
    return [Piece(f"line {n}", line.strip()) for n, line in found if line.strip()]


def table(text: str) -> list[Piece]:
    """The values of a CSV file with a header, each with the first value of its row and its column."""
    head, *rows = list(csv.reader(io.StringIO(text))) or [[]]
    pieces = [Piece("header", ", ".join(head))]
    for row in rows:
        names = [*head, *(f"column {i + 1}" for i in range(len(head), len(row)))]
        pieces += [
            Piece(f"{row[0]}, {name}", value) for name, value in zip(names, row, strict=False)
        ]
    return pieces


def count(pieces: Sequence[Piece]) -> int:
    """How many numbers the pieces hold."""
    return sum(len(NUMBER.findall(piece.text)) for piece in pieces)


def differences(
    file: str, reported: Sequence[Piece], recorded: Sequence[Piece], *, exact: bool, full: bool
) -> list[Difference]:
    """What two readings of a file differ in.

    Args:
        file: Its name.
        reported: As it lies there.
        recorded: As the record gives it.
        exact: Every number must be the same; otherwise the last printed digit may be off by one.
        full: The numbers are in full precision; then it is a relative difference of `RELATIVE` that may be.
    """
    a, b = [p.text for p in reported], [p.text for p in recorded]
    pairs: Iterable[tuple[Piece | None, Piece | None]]
    if len(a) == len(b) and [p.place for p in reported] == [p.place for p in recorded]:
        pairs = [(x, y) for x, y in zip(reported, recorded, strict=True) if x.text != y.text]
    else:
        pairs = _aligned(reported, recorded)
    found = []
    for old, new in pairs:
        place = (old or new or Piece("", "")).place
        if old is None or new is None:
            found.append(Difference(file, place, *(p and _short(p.text) for p in (old, new))))
        else:
            found += _apart(Difference(file, place, old.text, new.text), exact=exact, full=full)
    return found


def _aligned(
    old: Sequence[Piece], new: Sequence[Piece]
) -> Iterator[tuple[Piece | None, Piece | None]]:
    """Pieces that belong together and differ, and those that only one side has."""
    matcher = SequenceMatcher(None, [p.text for p in old], [p.text for p in new], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            continue
        if b - a == d - c:
            yield from zip(old[a:b], new[c:d], strict=True)
        else:
            yield from ((piece, None) for piece in old[a:b])
            yield from ((None, piece) for piece in new[c:d])


def _apart(found: Difference, *, exact: bool, full: bool) -> list[Difference]:
    """The numbers that differ in a piece, or what differs of its words."""
    old, new = found.reported or "", found.recorded or ""
    if NUMBER.sub("#", old) != NUMBER.sub("#", new):
        return [found._replace(reported=_around(old, new), recorded=_around(new, old))]
    numbers = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    return [
        found._replace(reported=a, recorded=b)
        for a, b in numbers
        if a != b and (exact or not near(a, b, full=full))
    ]


def near(a: str, b: str, *, full: bool = False) -> bool:
    """Whether two printed numbers may be the same one, computed on other versions.

    >>> near("12.3", "12.4"), near("12.3", "12.5"), near("1,204", "1,205"), near("3", "3.0")
    (True, False, True, True)
    """
    x, y = (float(text.replace(",", "").replace("\u2212", "-")) for text in (a, b))
    if full:
        return abs(x - y) <= RELATIVE * max(abs(x), abs(y))
    unit = max(_last_digit(a), _last_digit(b))
    return abs(x - y) <= unit * 1.000001


def _last_digit(number: str) -> float:
    """What one in the last digit of a printed number is worth."""
    mantissa, _, exponent = number.partition("e")
    _, _, digits = mantissa.partition(".")
    return float(10.0 ** (int(exponent or 0) - len(digits)))


def _around(text: str, other: str) -> str:
    """The text near the first character in which it differs."""
    first = next((i for i, (x, y) in enumerate(zip(text, other, strict=False)) if x != y), 0)
    start = max(0, first - 20)
    return ("…" if start else "") + _short(text[start:])


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
