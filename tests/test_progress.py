"""Progress outside a terminal: lines now and then, and no bar that would fill a file with carriage returns."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from workbench import progress


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is time for a line."""
    monkeypatch.setattr(progress, "TICK_S", 0.0)


@pytest.mark.usefixtures("ticking")
def test_a_file_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard error is no terminal a wanted bar becomes lines, and nothing else is written."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    told: list[str] = []
    with progress.RowBar(3, 0, shown=True, say=told.append) as bar:
        for tokens in (5, 10, 15):
            bar.step(tokens)
    assert [line.split(" rows, ")[0] for line in told] == ["1 of 3", "2 of 3"]
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_a_notebook_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standard error is no terminal either, but a kernel stands behind it."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress.room_for_bars()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert progress.room_for_bars()
    shell = SimpleNamespace()
    assert not progress.room_for_bars()


def test_a_terminal_without_columns_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar takes room; where its size cannot be asked there is taken to be some."""
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True, fileno=lambda: 2))
    for columns, drawn in ((0, False), (80, True)):
        size = SimpleNamespace(columns=columns)
        monkeypatch.setattr(progress.os, "get_terminal_size", lambda _, size=size: size)
        assert progress.room_for_bars() is drawn

    def unknown(_: int) -> None:
        raise OSError

    monkeypatch.setattr(progress.os, "get_terminal_size", unknown)
    assert progress.room_for_bars()
