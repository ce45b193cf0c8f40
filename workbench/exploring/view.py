"""The widgets of `workbench.exploring`: cells to choose from, a comparison in words, and pages of answers.

Every value a user can change is the ``value`` of a widget, and everything can be done with the keyboard. The picture is
drawn once; over each point lies a button, so it can be clicked wherever ipywidgets work.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w
import pandas as pd

from workbench.answers import escape, visible
from workbench.comparing.pairs import CHANGES
from workbench.errors import WorkbenchError
from workbench.exploring.browse import ALL, ORDERS, SORTS, Browser, Query
from workbench.exploring.clickable import NAME, picture
from workbench.plan import SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator

_ANY: Final = "any"
_GROUPS: Final = 300
"""More groups than this are found by searching, not in a list."""
_BLANK: Final = "\u00a0"

STYLE: Final = """<style>
.wb-explore { max-width: 1400px; }
.wb-explore .widget-html, .wb-explore .widget-html-content { line-height: 1.45; margin-top: 0; margin-bottom: 0; height: auto; }
.wb-explore .wb-picture { position: relative; background: #fff; overflow: hidden; align-self: flex-start; }
.wb-explore .wb-picture .widget-html { margin: 0; width: 100%; }
.wb-explore .wb-picture img { width: 100%; display: block; }
.wb-explore .wb-picture .jupyter-button.wb-spot { position: absolute; width: 20px; height: 20px; min-width: 0; margin: -10px 0 0 -10px;
  padding: 0; border: 0; border-radius: 50%; background: transparent; box-shadow: none; cursor: pointer; }
.wb-explore .wb-picture .jupyter-button.wb-spot:hover { border: 2px solid #222; }
.wb-explore .wb-picture .jupyter-button.wb-off { background: rgba(255,255,255,.8); pointer-events: none; }
.wb-explore .wb-picture .jupyter-button.wb-on { width: 26px; height: 26px; margin: -13px 0 0 -13px; border: 3px solid #CC79A7; }
.wb-explore .wb-picture .jupyter-button.wb-spot:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
.wb-explore .wb-cells select, .wb-explore .wb-head { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 12px; }
.wb-explore .wb-head { white-space: pre; padding-left: 5px; opacity: .8; }
.wb-explore .wb-says { padding: 8px 12px; margin: 6px 0; border-left: 4px solid rgba(128,128,128,.5); }
.wb-explore .wb-says p { margin: 0 0 4px 0; }
.wb-explore .widget-toggle-buttons .widget-toggle-button { width: auto; }
</style>"""


class View:
    """The widgets of one run. Every value a user can change is a widget's ``value``.

    Args:
        browser: The run.
        baseline: Id of the cell to compare with first.

    Attributes:
        root: What is displayed.
        query: What is shown now.
    """

    def __init__(self, browser: Browser, baseline: str) -> None:
        self.browser = browser
        split = browser.splits[0] if browser.splits else None
        self.query = Query(browser.first(baseline), baseline, split)
        self._quiet = False
        self.spots: dict[str, w.Button] = {}
        self._cell_widgets()
        self._prompt_widgets()
        self._draw()
        self.root = self._arranged()
        self._show_cells()
        self._show_prompts()

    # Widgets

    def _cell_widgets(self) -> None:
        """What chooses cells."""
        browser, query = self.browser, self.query
        self.where = {
            name: Choice(
                SHORT.get(name, name),
                [("any", _ANY), *((_setting(v), v) for v in values)],
                _ANY,
                "150px",
            )
            for name, values in browser.varied().items()
        }
        named = [(visible(name), i) for i, name in browser.labels.items()]
        self.baseline = Choice("compare with", named, query.baseline, "98%")
        sides = [("to select", "select"), ("held out", "confirm"), ("all", None)]
        self.split = Choice(
            "prompts", sides if browser.splits else [("all", None)], query.split, "200px"
        )
        self.sort = Choice("sort by", [(name, name) for name in SORTS], "quality", "200px")
        self.cells = w.Select(rows=14, layout=w.Layout(width="98%"))
        self.cells.add_class("wb-cells")
        self.up, self.down = (
            w.Button(description="▲ cell above"),
            w.Button(description="▼ cell below"),
        )
        self.up.on_click(lambda _: self._step(-1))
        self.down.on_click(lambda _: self._step(1))
        self.head = w.HTML()
        self.picture = w.HTML()
        self.stage = w.Box([self.picture], layout=w.Layout(flex="1 1 520px", min_width="320px"))
        self.stage.add_class("wb-picture")
        for choice in (*self.where.values(), self.sort):
            choice.widget.observe(self._on_cells, "value")
        for choice in (self.baseline, self.split):
            choice.widget.observe(self._on_baseline, "value")
        self.cells.observe(self._on_cell, "value")

    def _prompt_widgets(self) -> None:
        """What chooses prompts."""
        browser = self.browser
        self.says, self.answers = w.HTML(), w.HTML()
        self.change = w.ToggleButtons(options=[(ALL, ALL)], value=ALL)
        self.search = w.Text(
            placeholder="question, answer, target, id; Enter to search",
            description="search",
            continuous_update=False,
            layout=w.Layout(width="360px"),
            style={"description_width": "60px"},
        )
        groups = browser.groups if len(browser.groups) <= _GROUPS else []
        self.group = Choice(
            "group", [("any", None), *((visible(g), g) for g in groups)], None, "220px"
        )
        draws = [(f"repeat {k}", k) for k in range(browser.repeats)]
        self.repeat = Choice("answers", [("nearest the mean", None), *draws], None, "230px")
        self.order = Choice("sort by", [(name, name) for name in ORDERS], ORDERS[0], "220px")
        self.back, self.forth = w.Button(description="◀ previous"), w.Button(description="next ▶")
        for button in (self.back, self.forth):
            button.layout.width = "110px"
        self.page = w.BoundedIntText(
            value=1,
            min=1,
            max=1,
            description="page",
            layout=w.Layout(width="130px"),
            style={"description_width": "40px"},
        )
        self.pages = w.HTML()
        chosen = (c.widget for c in (self.group, self.repeat, self.order))
        for widget in (self.change, self.search, *chosen):
            widget.observe(self._on_prompts, "value")
        self.page.observe(self._on_page, "value")
        self.back.on_click(lambda _: self._turn(-1))
        self.forth.on_click(lambda _: self._turn(1))

    def _arranged(self) -> w.Widget:
        manifest = self.browser.run.manifest
        n = len(self.browser.run.generations)
        about = f"{manifest['study']['name']}: {len(self.browser.labels)} cells, {len(self.browser.run.prompts):,} prompts, {n:,} answers"
        title = w.HTML(
            f"{STYLE}<b>{escape(about)}</b> · click a point or a line of the list to read its answers"
        )
        where = w.HBox(
            [c.widget for c in self.where.values()], layout=w.Layout(flex_flow="row wrap")
        )
        sorting = [self.sort.widget, *([self.split.widget] if self.browser.splits else [])]
        right = w.VBox(
            [
                where,
                w.HBox(sorting, layout=w.Layout(flex_flow="row wrap")),
                self.head,
                self.cells,
                w.HBox([self.up, self.down]),
                self.baseline.widget,
            ],
            layout=w.Layout(flex="1 1 420px", min_width="320px"),
        )
        chosen = [self.search, self.order.widget]
        chosen += [self.group.widget] if len(self.group.choices) > 1 else []
        chosen += [self.repeat.widget] if self.browser.repeats > 1 else []
        row = w.Layout(flex_flow="row wrap", align_items="center")
        root = w.VBox(
            [
                title,
                w.HBox([self.stage, right], layout=w.Layout(flex_flow="row wrap")),
                self.says,
                self.change,
                w.HBox(chosen, layout=row),
                w.HBox([self.back, self.page, self.pages, self.forth], layout=row),
                self.answers,
            ]
        )
        root.add_class("wb-explore")
        return root

    # What is shown

    def _draw(self) -> None:
        """The picture and its buttons."""
        query = self.query
        table = self.browser.overview(query.baseline, query.split)
        self.picture.value, places = picture(table, self.browser.run, query.baseline)
        style = w.ButtonStyle()
        front = set(table.loc[table["on_front"].eq(True).fillna(False), "cell_id"])
        self.spots = {}
        for i in sorted(
            places, key=lambda i: (i in front, i == query.baseline)
        ):  # the last is on top
            left, top = places[i]
            spot = w.Button(
                tooltip=visible(self.browser.labels[i]),
                layout=w.Layout(left=f"{left:.2f}%", top=f"{top:.2f}%"),
                style=style,
            )
            spot.add_class("wb-spot")
            spot.on_click(lambda _, i=i: self.pick(i))
            self.spots[i] = spot
        old = self.stage.children[1:]
        self.stage.children = (self.picture, *self.spots.values())
        for spot in old:
            spot.layout.close()
            spot.close()

    def _show_cells(self) -> None:
        """The list, and which points stand out."""
        query = self.query
        where = {name: d.value for name, d in self.where.items() if d.value != _ANY}
        table = self.browser.overview(query.baseline, query.split)
        rows = self.browser.listed(table, where, self.sort.value)
        with self._quietly():
            self.head.value = f'<div class="wb-head">{_line("  cell (b baseline, * front)", "quality", "diff", "ms")}</div>'
            self.cells.options = [
                (_entry(r, query.baseline), r["cell_id"]) for r in rows.to_dict("records")
            ]
            listed = set(rows["cell_id"])
            self.cells.value = query.cell if query.cell in listed else None
        for i, spot in self.spots.items():
            _mark(spot, "wb-off", on=i not in listed)
            _mark(spot, "wb-on", on=i == query.cell)

    def _show_prompts(self) -> None:
        """The comparison in words and a page of answers."""
        browser = self.browser
        self.says.value = f'<div class="wb-says">{self._words()}</div>'
        counts = browser.counts(self.query)
        kinds = [k for k in CHANGES if k != "unscored" or counts[k] or k == self.query.change]
        with self._quietly():
            self.change.options = [(f"{k} {counts[k]:,}", k) for k in (ALL, *kinds)]
            self.change.value = self.query.change
        self._show_page()

    def _show_page(self) -> None:
        shown, self.query, n_pages = self.browser.page(self.query)
        with self._quietly():
            self.page.max = n_pages
            self.page.value = self.query.page + 1
        self.pages.value = f"of {n_pages:,}"
        self.back.disabled = self.query.page == 0
        self.forth.disabled = self.query.page == n_pages - 1
        self.answers.value = shown

    def _words(self) -> str:
        try:
            found = self.browser.comparison(self.query)
        except WorkbenchError as error:
            cell = escape(self.browser.labels[self.query.cell])
            return f"<p>{escape(str(error))}; below: the answers of {cell} alone</p>"
        if found is None:
            return f"<p>{escape(self.browser.labels[self.query.cell])}: the answers of this cell alone.</p>"
        return "".join(f"<p>{escape(line)}</p>" for line in found.text.splitlines())

    # What users do

    def pick(self, cell: str) -> None:
        """Read the answers of a cell."""
        before, self.query = self.query.cell, replace(self.query, cell=cell, page=0)
        for i in (before, cell):
            if i in self.spots:
                _mark(self.spots[i], "wb-on", on=i == cell)
        with self._quietly():
            self.cells.value = cell if any(cell == i for _, i in self.cells.options) else None
        self._show_prompts()

    def _on_cell(self, change: dict[str, Any]) -> None:
        if not self._quiet and change["new"] is not None:
            self.pick(change["new"])

    def _on_cells(self, _: object) -> None:
        if not self._quiet:
            self._show_cells()

    def _on_baseline(self, _: object) -> None:
        if self._quiet:
            return
        self.query = replace(
            self.query, baseline=self.baseline.value, split=self.split.value, page=0
        )
        self._show_prompts()  # first, since drawing takes longest
        self._draw()
        self._show_cells()

    def _on_prompts(self, _: object) -> None:
        if self._quiet:
            return
        self.query = replace(
            self.query,
            change=self.change.value,
            search=self.search.value,
            group=self.group.value,
            repeat=self.repeat.value,
            order=self.order.value,
            page=0,
        )
        self._show_prompts()

    def _on_page(self, change: dict[str, Any]) -> None:
        if not self._quiet:
            self.query = replace(self.query, page=change["new"] - 1)
            self._show_page()

    def _step(self, by: int) -> None:
        """To the next cell of the list: arrow keys in a list belong to the notebook, in JupyterLab."""
        listed = [i for _, i in self.cells.options]
        if listed:
            at = listed.index(self.query.cell) + by if self.query.cell in listed else 0
            self.pick(listed[min(max(at, 0), len(listed) - 1)])

    def _turn(self, by: int) -> None:
        self.query = replace(self.query, page=self.query.page + by)
        self._show_page()

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """Change widgets without that counting as the user's doing."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


# ------------------------------------------------------------------------------------------- small pieces


class Choice:
    """A dropdown of any values; ipywidgets take None for "nothing chosen".

    Args:
        name: In front of it.
        options: (text, value).
        value: The one chosen first.
        width: Of the widget, CSS.
    """

    def __init__(self, name: str, options: list[tuple[str, Any]], value: Any, width: str) -> None:
        self.choices = [v for _, v in options]
        self.widget = w.Dropdown(
            options=[(text, i) for i, (text, _) in enumerate(options)],
            value=self.choices.index(value),
            description=name,
            layout=w.Layout(width=width),
            style={"description_width": f"{8 * len(name) + 8}px"},
        )

    @property
    def value(self) -> Any:
        """The value chosen; setting it is the same as choosing it."""
        return self.choices[self.widget.value]

    @value.setter
    def value(self, value: Any) -> None:
        self.widget.value = self.choices.index(value)


def _setting(value: Any) -> str:
    if value is None:
        return "off"
    return f"{value:g}" if isinstance(value, int | float) else visible(str(value))


def _line(name: str, quality: str, diff: str, ms: str) -> str:
    """One line of the list; blanks that a browser keeps."""
    text = f"{name:<{NAME + 2}}{quality:>8}{diff:>8}{ms:>9}"
    return text.replace(" ", _BLANK)


def _entry(row: dict[Any, Any], baseline: str) -> str:
    name = visible(row["label"])
    name = name if len(name) <= NAME else name[: NAME - 1] + "…"
    front = not pd.isna(row["on_front"]) and bool(row["on_front"])
    own = row["cell_id"] == baseline
    quality, diff, ms = (row[c] for c in ("quality", "diff_vs_baseline", "e2el_ms_p50"))
    return _line(
        f"{'b' if own else '*' if front else ' '} {name}",
        "-" if pd.isna(quality) else f"{100 * quality:.1f} %",
        "" if own else "-" if pd.isna(diff) else f"{100 * diff:+.1f}",
        "-" if pd.isna(ms) else f"{ms:,.0f}",
    )


def _mark(widget: w.DOMWidget, name: str, *, on: bool) -> None:
    """Give a widget a CSS class, or take it away; nothing is sent if nothing changes."""
    has = name in widget._dom_classes  # noqa: SLF001 - the only place where ipywidgets keeps them
    if on and not has:
        widget.add_class(name)
    elif has and not on:
        widget.remove_class(name)
