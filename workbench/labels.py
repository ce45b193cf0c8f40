"""Placing names next to points so that none hides another, a marker, or a line.

All geometry is in pixels. Each name tries the spots around its point first, then a lattice over the whole axes, and takes
the cheapest: near its point, off the markers and lines. Two names never overlap: one that finds no room is left out, and
where there are many, so is one that would stand far from its point.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.patheffects import withStroke

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_PAD: Final = 2.0
"""Least gap between names, pixels at 100 dpi."""
_MARKER: Final = 60.0
"""Cost of covering a marker, in pixels of distance."""
_LINE: Final = 12.0
"""Cost of covering a bit of a line."""
_HARD: Final = 1e6
"""Cost of what must not be: a name over another, or outside."""
_FAR: Final = 80.0
"""Most that the spot of a name may cost when there are many."""
_MANY: Final = 40
"""Names that may stand anywhere; those after them only where it is not far."""


@dataclass(frozen=True, slots=True)
class Label:
    """A name for a point.

    Attributes:
        x: Of the point, data coordinates.
        y: Of the point, data coordinates.
        text: The name.
        color: Of the name.
        gap: Radius of the point's marker and a little more, pixels at 100 dpi.
    """

    x: float
    y: float
    text: str
    color: str
    gap: float = 7.0


@dataclass(slots=True)
class _Scene:
    """What is in the axes, in pixels.

    Attributes:
        inside: x0, y0, x1, y1 of the axes.
        points: Shape (n, 2), markers.
        strokes: Shape (m, 2), points along lines, leaders included.
        scale: Pixels of the figure per pixel at 100 dpi.
        taken: Boxes of the names placed so far.
    """

    inside: Floats
    points: Floats
    strokes: Floats
    scale: float
    taken: list[Floats] = field(default_factory=list)


def place(ax: Axes, labels: Sequence[Label], markers: Floats, lines: Floats) -> list[Annotation]:
    """Write names into an axes.

    Args:
        ax: Axes whose limits and layout are final.
        labels: The names, most important first.
        markers: Shape (n, 2), data coordinates not to be covered.
        lines: Shape (m, 2), data coordinates better not covered.

    Returns:
        The annotations, in the order of ``labels``; those for which there is no room are left out.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # settles the layout, so that pixels mean something
    frame = ax.get_window_extent()
    scene = _Scene(
        inside=np.array([frame.x0, frame.y0, frame.x1, frame.y1]),
        points=np.asarray(ax.transData.transform(markers)) if len(markers) else np.empty((0, 2)),
        strokes=np.asarray(ax.transData.transform(lines)) if len(lines) else np.empty((0, 2)),
        scale=figure.dpi / 100,
    )
    notes: list[Annotation] = []
    for label in labels:
        note = ax.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            color=label.color,
            zorder=6,
            ha="left",
            va="bottom",
            path_effects=[withStroke(linewidth=2.4, foreground="white", alpha=0.85)],
            gid="name",
        )
        note.set_in_layout(False)
        extent = note.get_window_extent()
        size = np.array([extent.width, extent.height])
        anchor = ax.transData.transform((label.x, label.y))
        boxes = _spots(anchor, size, scene, label.gap * scene.scale)
        most = _HARD if len(notes) < _MANY else _FAR
        boxes = boxes[_away(boxes, anchor, scene) < most]
        cost = _cost(boxes, anchor, scene)
        if cost.min(initial=_HARD) >= most:
            note.remove()
            continue
        box = boxes[int(cost.argmin())]
        note.set_position(tuple((box[:2] - anchor) * 72 / figure.dpi))
        scene.taken.append(box)
        _leader(ax, label, box, anchor)
        scene.strokes = np.vstack([scene.strokes, _between(anchor, box)])
        notes.append(note)
    return notes


def _spots(anchor: Floats, size: Floats, scene: _Scene, gap: float) -> Floats:
    """Candidate boxes (x0, y0, x1, y1), nearest first: around the point, then all over the axes."""
    (w, h), inside, scale = size, scene.inside, scene.scale
    near = [
        (gap, -h / 2),
        (gap * 0.7, gap * 0.7),
        (-w - gap * 0.7, gap * 0.7),
        (-w / 2, gap),
        (gap * 0.7, -h - gap * 0.7),
        (-w / 2, -h - gap),
        (-w - gap, -h / 2),
        (-w - gap * 0.7, -h - gap * 0.7),
    ]
    corners = anchor + np.array(near)
    xs = np.arange(inside[0] + 4 * scale, max(inside[2] - w, inside[0] + 5 * scale), 12 * scale)
    ys = np.arange(inside[1] + 4 * scale, max(inside[3] - h, inside[1] + 5 * scale), 6 * scale)
    lattice = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
    corners = np.vstack([corners, lattice])
    return np.hstack([corners, corners + size])


def _away(boxes: Floats, anchor: Floats, scene: _Scene) -> Floats:
    """What the distance of each box from its point costs."""
    nearest = np.clip(anchor, boxes[:, :2], boxes[:, 2:])
    away: Floats = np.hypot(*(nearest - anchor).T) / scene.scale
    return away + 1.5 * np.maximum(away - 14, 0)  # in place reads better than with a leader


def _cost(boxes: Floats, anchor: Floats, scene: _Scene) -> Floats:
    """How bad each box is, in pixels of distance at 100 dpi."""
    scale = scene.scale
    nearest = np.clip(anchor, boxes[:, :2], boxes[:, 2:])
    cost = _away(boxes, anchor, scene)
    cost += _MARKER * _covered(boxes, scene.points, 4 * scale).sum(1)
    cost += _LINE * np.minimum(_crossings(boxes, scene), 8)
    low, high = scene.inside[:2], scene.inside[2:]
    cost += _HARD * ((boxes[:, :2] < low).any(1) | (boxes[:, 2:] > high).any(1))
    pad = _PAD * scale
    path = anchor + np.linspace(0, 1, 12)[:, None, None] * (nearest - anchor)
    for box in scene.taken:
        apart = (boxes[:, 2:] + pad < box[:2]).any(1) | (boxes[:, :2] - pad > box[2:]).any(1)
        cost += _HARD * ~apart
        cost += 100 * ((path > box[:2]) & (path < box[2:])).all(2).any(0)
    return cost


def _covered(boxes: Floats, points: Floats, pad: float) -> NDArray[np.bool_]:
    """Which points each box covers, shape (boxes, points)."""
    low, high = boxes[:, None, :2] - pad, boxes[:, None, 2:] + pad
    return np.asarray(((points > low) & (points < high)).all(2))


def _crossings(boxes: Floats, scene: _Scene) -> Floats:
    """About how many points of lines each box covers: a summed-area table over tiles of 2 pixels at 100 dpi."""
    low, tile = scene.inside[:2], 2 * scene.scale
    shape = np.maximum(np.ceil((scene.inside[2:] - low) / tile).astype(int), 1)
    at = np.floor((scene.strokes - low) / tile).astype(int)
    at = at[((at >= 0) & (at < shape)).all(1)]
    table = np.zeros(shape + 1)
    np.add.at(table, (at[:, 0] + 1, at[:, 1] + 1), 1)
    table = table.cumsum(0).cumsum(1)
    x0, y0 = np.clip(np.floor((boxes[:, :2] - low) / tile).astype(int), 0, shape).T
    x1, y1 = np.clip(np.ceil((boxes[:, 2:] - low) / tile).astype(int), 0, shape).T
    return np.asarray(table[x1, y1] - table[x0, y1] - table[x1, y0] + table[x0, y0])


def _between(anchor: Floats, box: Floats) -> Floats:
    """Points along the leader of a name, its ends left out."""
    nearest = np.clip(anchor, box[:2], box[2:])
    return anchor + np.linspace(0.15, 0.85, 8)[:, None] * (nearest - anchor)


def _leader(ax: Axes, label: Label, box: Floats, anchor: Floats) -> None:
    """A hairline from a name to its point, if they are apart."""
    nearest = np.clip(anchor, box[:2], box[2:])
    figure = ax.get_figure(root=True)
    assert figure is not None
    if np.hypot(*(nearest - anchor)) <= 0.12 * figure.dpi:
        return
    line = ax.annotate(
        "",
        (label.x, label.y),
        xytext=tuple((nearest - anchor) * 72 / figure.dpi),
        textcoords="offset points",
        zorder=2.5,
        gid="name",
        arrowprops={
            "arrowstyle": "-",
            "color": "0.45",
            "linewidth": 0.6,
            "shrinkA": 0,
            "shrinkB": 3,
        },
    )
    line.set_in_layout(False)
