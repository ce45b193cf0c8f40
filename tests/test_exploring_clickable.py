"""The picture under the buttons: what is drawn, and where its points are."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import chromium, show
from pairedruns import paired_run, timed

from workbench.exploring.browse import Browser
from workbench.exploring.clickable import picture

if TYPE_CHECKING:
    from workbench.exploring.browse import Tables

SCORES = {
    name: {f"p{i}": [int(i < right)] for i in range(20)}
    for name, right in {"a": 6, "b": 12, "c": 18}.items()
}
TIMES = {
    name: {(f"p{p}", r): ms + p for p in range(8) for r in range(3)}
    for name, ms in {"a": 100, "b": 300, "c": 500}.items()
}


def places(run: Tables) -> tuple[str, dict[str, tuple[float, float]]]:
    """The picture and its points."""
    return picture(Browser(run).overview("a"), run, "a")


def test_points_are_where_the_cells_are():
    """Further right is slower and further up is better, in proportion; all inside the picture."""
    _, at = places(paired_run(SCORES, latency=timed(TIMES)))
    x, y = np.array([at[c] for c in "abc"]).T
    assert (np.diff(x) > 0).all()
    assert np.diff(x)[0] == pytest.approx(np.diff(x)[1])
    assert (np.diff(y) < 0).all()
    assert np.diff(y)[0] == pytest.approx(np.diff(y)[1])
    assert ((np.array([x, y]) > 0) & (np.array([x, y]) < 100)).all()


def test_cells_that_cannot_be_drawn_have_no_point():
    """Without a latency or a score a cell is not in the picture."""
    scores = SCORES | {"d": {"p0": [None]}}
    run = paired_run(scores, latency=timed({c: TIMES[c] for c in "ab"}))
    assert set(places(run)[1]) == {"a", "b"}


def test_without_latency_quality_is_drawn():
    """Cells stand one below the other, the further right the better, at most forty."""
    page, at = places(paired_run(SCORES))
    x, y = np.array([at[c] for c in "abc"]).T
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    assert 'alt="Quality by cell' in page
    many = {f"c{i}": {"p0": [1]} for i in range(50)}
    assert len(picture(Browser(paired_run(many)).overview("c0"), paired_run(many), "c0")[1]) == 40


def test_nothing_scored():
    """Then a sentence stands in for the picture."""
    page, at = places(paired_run({"a": {"p0": [None]}}))
    assert page == "<p>No answer of this run was scored: there is nothing to draw.</p>"
    assert at == {}


@pytest.mark.parametrize(
    ("latency", "odd"),
    [(timed(TIMES), "$ & \\"), (None, "$\\frac{$")],
    ids=["timed", "untimed"],
)
def test_the_picture_is_one_harmless_image(latency, odd):
    """The page holds an SVG image as data, with nothing to run in it, whatever the cells are called."""
    run = paired_run(SCORES, latency=latency)
    run.cells["label"] = ["<script>alert(1)</script>", odd, "\u202eb"]
    page, _ = places(run)
    data = re.fullmatch(r'<img alt="[\w ,]+" src="data:image/svg\+xml;base64,([\w+/=]+)">', page)
    assert data is not None
    svg = base64.b64decode(data[1]).decode()
    assert "<svg" in svg
    assert "<script" not in svg


def test_points_lie_on_their_markers_in_a_browser():
    """In a real page, a spot at a place covers a pixel of the marker there: its colour, not white."""
    page, at = places(paired_run(SCORES, latency=timed(TIMES)))
    with chromium(900, 800) as driver:
        show(driver, f"<!doctype html><body style='margin:0;width:800px'>{page}")
        colors = driver.execute_async_script(
            """const [at, done] = arguments, img = document.images[0];
            img.style.width = "800px";
            img.decode().then(() => {
              const c = document.createElement("canvas"); c.width = 800; c.height = img.height;
              const d = c.getContext("2d"); d.drawImage(img, 0, 0, 800, img.height);
              done(at.map(([x, y]) => [...d.getImageData(8 * x, y / 100 * img.height, 1, 1).data]));
            });""",
            [list(at[c]) for c in "abc"],
        )
    assert all(min(rgb[:3]) < 200 for rgb in colors), colors
