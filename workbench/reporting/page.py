"""Pieces of a report's page: escaped text, tables, figures; and the check that nothing in the page runs or fetches."""

from __future__ import annotations

import base64
import html as markup
import io
import platform
import re
import warnings
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from workbench.answers import escape, visible
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matplotlib.figure import Figure

DPI: Final = 144
"""Of the pictures: sharp on a dense screen and in print, at about 60 KB each."""
_BROAD: Final = 11
"""Columns above which a table is set smaller on paper."""
MAKERS: Final = (
    "awq-workbench",
    "numpy",
    "scipy",
    "pandas",
    "matplotlib",
    "pillow",
    "mistune",
    "nbconvert",
)
"""Packages that decide the bytes of a page."""


def made_with() -> dict[str, str]:
    """What a page made now is made with: with the same, the same run gives the same bytes."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return {"system": system, **{name: metadata.version(name) for name in MAKERS}}


@dataclass(frozen=True, slots=True)
class Html:
    """A piece of HTML that a notebook shows as it is.

    Attributes:
        text: The HTML; every text from outside in it is escaped.
    """

    text: str

    def __repr__(self) -> str:
        return f"<HTML, {len(self.text):,} characters>"

    def _repr_html_(self) -> str:
        return self.text


def join(*parts: Html | str | None) -> Html:
    """Pieces one after another; None is left out."""
    return Html("\n".join(p.text if isinstance(p, Html) else p for p in parts if p is not None))


def attribute(text: str) -> str:
    """A text inside an attribute or a title, where no element can stand."""
    return markup.escape(visible(text).replace("\n", " "))


def prose(text: str) -> str:
    """Escaped text; what stands between backticks becomes code.

    >>> prose("run `workbench ls`, 1 < 2")
    'run <code>workbench ls</code>, 1 &lt; 2'
    """
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # a backtick that is not one of a pair is only a character
        return escape(text)
    return "".join(
        f"<code>{escape(p)}</code>" if i % 2 else escape(p) for i, p in enumerate(pieces)
    )


def paragraphs(lines: Iterable[str]) -> Html:
    """One paragraph a line."""
    return Html("\n".join(f"<p>{prose(line)}</p>" for line in lines))


def bullets(items: Iterable[tuple[str, str]]) -> Html:
    """A list; each item opens with a few words in bold."""
    rows = (f"<li><strong>{prose(head)}</strong> {prose(text)}</li>" for head, text in items)
    return Html("<ul>\n" + "\n".join(rows) + "\n</ul>")


def pairs(rows: Mapping[str, Any], caption: str) -> Html:
    """A table of names and values; a value that is unknown (None or empty) is left out."""
    body = [
        f'<tr><th scope="row">{prose(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in rows.items()
        if value not in (None, "", {}, [])
    ]
    return Html(
        f'<table class="pairs"><caption>{prose(caption)}</caption><tbody>{"".join(body)}</tbody></table>'
    )


def table(
    head: Sequence[tuple[str, str]],
    rows: Iterable[tuple[str, Sequence[str]]],
    caption: str,
) -> Html:
    """A table whose first column names the row.

    Args:
        head: Title and class of each column; the class "n" sets numbers right-aligned.
        rows: Class of the row, and its cells as HTML (escaped by the caller).
        caption: Read out by screen readers, and shown above.
    """
    style = "data broad" if len(head) > _BROAD else "data"
    titles = "".join(f'<th scope="col" class="{kind}">{escape(text)}</th>' for text, kind in head)
    body = []
    for kind, values in rows:
        first, *rest = values
        cells = "".join(
            f'<td class="{c}">{value}</td>'
            for value, (_, c) in zip(rest, list(head)[1:], strict=True)
        )
        body.append(
            f'<tr class="{kind}"><th scope="row" class="{head[0][1]}">{first}</th>{cells}</tr>'
        )
    return Html(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{attribute(caption)}"><table class="{style}">'
        f"<caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead>\n"
        f"<tbody>{chr(10).join(body)}</tbody></table></div>"
    )


def figure(drawn: Figure, alt: str, caption: str | None = None) -> Html:
    """A picture inside the page.

    Args:
        drawn: What to show.
        alt: What there is to see, for who cannot see it.
        caption: Shown under it.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        drawn.savefig(buffer, dpi=DPI, format="png", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    width = round(drawn.get_figwidth() * 96)
    under = f"<figcaption>{prose(caption)}</figcaption>" if caption else ""
    return Html(
        f'<figure><img src="data:image/png;base64,{data}" alt="{attribute(alt)}" width="{width}">{under}</figure>'
    )


def drawn(draw: Callable[[], Figure], alt: str, caption: str | None = None) -> Html:
    """A picture, or the sentence that says why there is none."""
    try:
        return figure(draw(), alt, caption)
    except WorkbenchError as error:
        return paragraphs([f"{str(error)[:1].upper()}{str(error)[1:]}."])


def fold(title: str, body: Html, *, printed: bool = True) -> Html:
    """Something opened by a click; on paper it is open, unless ``printed`` is False."""
    kind = "fold" if printed else "fold noprint"
    return Html(
        f'<details class="{kind}"><summary>{prose(title)}</summary>\n{body.text}\n</details>'
    )


def pre(text: str) -> Html:
    """Text with its line breaks."""
    return Html(f"<pre>{escape(text)}</pre>")


# ------------------------------------------------------------------------------ nothing runs, nothing is fetched

_TAGS: Final = frozenset(
    "a b body br caption circle code col colgroup dd del details div dl dt em figcaption figure footer g h1 h2 h3 h4 head header hr "  # noqa: SIM905 - one text reads better
    "html i img ins li line main mark meta nav ol p path polyline pre rect s section small span strong style sub summary sup "
    "svg table tbody td text tfoot th thead title tr u ul".split()
)
"""The elements a page may have: none of them runs or loads anything by itself."""
_LINKS: Final = frozenset(
    "action background cite classid codebase data formaction href icon longdesc manifest ping poster profile src srcdoc "  # noqa: SIM905 - as above
    "srcset usemap xlink:href".split()
)
_HIDDEN: Final = re.compile(r"[\x00-\x20]+")
_FETCH: Final = re.compile(
    r"@import|url\s*\(|expression\s*\(|-moz-binding|javascript:", re.IGNORECASE
)


def problems(html: str) -> list[str]:
    """Whatever in a page could run code or fetch something, each said once.

    Only a fixed list of elements passes; no attribute may be an event handler; a link must lead into the page itself and an
    image must be in it; styles must not load anything.
    """
    check = _Check()
    check.feed(html)
    check.close()
    return list(dict.fromkeys(check.found))


class _Check(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at an element and its attributes."""
        self._in_style = tag == "style"
        if tag not in _TAGS:
            self.found.append(f"<{tag}> element")
        for name, value in attrs:
            self._attribute(tag, name.lower(), value or "")
        if tag == "meta" and (dict(attrs).get("http-equiv") or "").lower() not in (
            "",
            "content-security-policy",
        ):
            self.found.append("<meta http-equiv> other than the policy")

    def _attribute(self, tag: str, name: str, value: str) -> None:
        shown = f"{name}={value[:60]!r} in <{tag}>"
        if name.startswith("on"):
            self.found.append(f"event handler {shown}")
        if name in _LINKS:
            target = _HIDDEN.sub("", value).lower()
            inside = target.startswith("#") or (
                tag == "img" and name == "src" and target.startswith("data:image/png;base64,")
            )
            if not inside:
                self.found.append(f"link out of the page: {shown}")
        if name == "style" and _FETCH.search(value):
            self.found.append(f"style that loads something: {shown}")

    def handle_endtag(self, tag: str) -> None:
        """Leave a style element."""
        if tag == "style":
            self._in_style = False

    def handle_data(self, data: str) -> None:
        """Look at style sheets."""
        if self._in_style and _FETCH.search(data):
            self.found.append("style sheet that loads something")

    def handle_pi(self, data: str) -> None:
        """Refuse processing instructions."""
        self.found.append(f"processing instruction <?{data[:40]}>")
