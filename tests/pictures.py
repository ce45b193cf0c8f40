"""What can be wrong with a picture, found from what was drawn: the pixels, and the texts as the renderer got them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

SMALLEST_PT = 6.5
TOUCH_PX = 0.75
"""Boxes may share this much: they hold more than the ink of a text."""


@dataclass
class Drawn:
    """A text that was drawn, and where."""

    text: str
    size_pt: float
    box: Bbox


def figure_of(axes: Any) -> Figure:
    """The figure of axes, or of an array of them."""
    first = axes.flat[0] if isinstance(axes, np.ndarray) else axes
    return first.get_figure(root=True)


def render(axes: Any) -> tuple[np.ndarray, list[Drawn]]:
    """The pixels (height, width, 3) of the figure that axes are in, and its texts."""
    figure = figure_of(axes)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # settles the layout
    drawn: list[Drawn] = []
    with _recording(drawn):
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int), drawn


class _recording:  # noqa: N801 - reads as a verb
    """While it lasts, every text that reaches the renderer is noted."""

    def __init__(self, into: list[Drawn]) -> None:
        self.into, self.plain = into, Text.draw

    def __enter__(self) -> None:
        plain, into = self.plain, self.into

        def draw(self: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
            if self.get_visible() and self.get_text().strip():
                box = self.get_window_extent(renderer)
                if isinstance(box.width, float) and box.width > 0:
                    into.append(
                        Drawn(
                            self.get_text(),
                            self.get_fontsize(),
                            Text.get_window_extent(self, renderer),
                        )
                    )
            plain(self, renderer, *args, **kwargs)

        Text.draw = draw  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        Text.draw = self.plain  # type: ignore[method-assign]


def faults(axes: Any, *, ink: tuple[float, float] = (0.004, 0.75), grey: bool = True) -> list[str]:
    """Everything that is wrong with a picture; empty if it can be shown.

    Args:
        axes: Axes, or an array of them: each must have ink inside.
        ink: Least and largest share of pixels inside each axes that are not white.
        grey: The picture must have dark parts (below 45 % grey), so that it prints.
    """
    pixels, texts = render(axes)
    found = [*_texts(texts, figure_of(axes))]
    several = axes.flat if isinstance(axes, np.ndarray) else [axes]
    for i, ax in enumerate(several):
        found += _inside(pixels, ax, i, ink)
    if grey and (pixels.mean(-1) < 115).mean() < 0.002:
        found.append("nothing dark: it would not print")
    return found


def _inside(pixels: np.ndarray, ax: Any, i: int, ink: tuple[float, float]) -> Iterator[str]:
    """Whether axes are blank, solid, or of one colour and its shades of grey grid."""
    box = ax.get_window_extent()
    height = pixels.shape[0]
    part = pixels[
        int(height - box.y1) + 3 : int(height - box.y0) - 3, int(box.x0) + 3 : int(box.x1) - 3
    ]
    if not part.size:
        yield f"axes {i}: no room"
        return
    share = float((part < 215).any(-1).mean())
    if not ink[0] <= share <= ink[1]:
        yield f"axes {i}: ink on {share:.1%} of the pixels, expected {ink[0]:.1%} to {ink[1]:.0%}"
    if len(np.unique(part.reshape(-1, 3) // 32, axis=0)) < 3:
        yield f"axes {i}: fewer than three colours"


def _texts(texts: list[Drawn], figure: Figure) -> Iterator[str]:
    whole = figure.bbox
    for t in texts:
        if t.size_pt < SMALLEST_PT - 1e-6:
            yield f"small text ({t.size_pt:.1f} pt): {t.text!r}"
        b = t.box
        if b.x0 < whole.x0 - 1 or b.y0 < whole.y0 - 1 or b.x1 > whole.x1 + 1 or b.y1 > whole.y1 + 1:
            yield f"text outside the figure: {t.text!r}"
    for one, two in combinations(texts, 2):
        a, b = one.box, two.box
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        if wide > TOUCH_PX and high > TOUCH_PX:
            yield f"texts overlap: {one.text!r} and {two.text!r}"
