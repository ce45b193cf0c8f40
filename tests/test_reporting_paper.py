"""The report on paper: a PDF with the same bytes each time, and one clear sentence where none can be made."""

from __future__ import annotations

import base64
import builtins
import contextlib
import re
import sys
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from tests import reports
from workbench.errors import WorkbenchError
from workbench.reporting import make, paper

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (
    f"<!DOCTYPE html><html><head><title>t</title>{'<style>@page { size: A4 }</style>'}</head><body>"
)


def plain(pdf: bytes) -> bytes:
    """A PDF with what is compressed in it laid open."""
    streams = re.findall(rb"stream\n(.*?)\nendstream", pdf, re.DOTALL)
    opened = []
    for stream in streams:
        with contextlib.suppress(zlib.error):  # some are not compressed
            opened.append(zlib.decompress(stream))
    return pdf + b"\n".join(opened)


def test_the_same_page_gives_the_same_bytes() -> None:
    """No date and no random id; the page is A4."""
    pytest.importorskip("weasyprint")
    page = f"{PAGE}<h1>One</h1></body></html>"
    first = paper.pdf(page)
    assert first.startswith(b"%PDF-")
    inside = plain(first)
    box = re.search(rb"/MediaBox ?\[([^]]*)\]", inside)
    assert box is not None
    assert [round(float(x)) for x in box[1].split()] == [0, 0, 595, 842]
    assert b"/Title" in inside
    assert b"CreationDate" not in inside
    assert paper.pdf(page) == first


def test_nothing_is_fetched(tmp_path: Path) -> None:
    """A picture that is not in the page is left out, be it on this very machine."""
    pytest.importorskip("weasyprint")
    from PIL import Image

    Image.new("RGB", (40, 40), "red").save(tmp_path / "x.png")
    data = base64.b64encode((tmp_path / "x.png").read_bytes()).decode()
    for source, there in (
        (f"data:image/png;base64,{data}", True),
        ((tmp_path / "x.png").as_uri(), False),
    ):
        made = plain(paper.pdf(f'{PAGE}<img src="{source}" alt=""></body></html>'))
        assert bool(re.search(rb"/Subtype ?/Image", made)) is there


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And nothing is written, nor is the notebook run before that is known."""
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    monkeypatch.setattr(make, "made", None)
    run = reports.make_run(tmp_path, n_prompts=2, latency=False)
    before = {p.name for p in run.path.iterdir()}
    with pytest.raises(WorkbenchError) as caught:
        make.report(run, pdf=True)
    assert (
        str(caught.value) == "a PDF needs the package weasyprint: pip install 'awq-workbench[pdf]'"
    )
    assert {p.name for p in run.path.iterdir()} == before


def test_without_pango_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package loads the system's library when it is imported."""
    plain = builtins.__import__

    def broken(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "weasyprint":
            raise OSError("cannot load library 'libpango-1.0-0'")
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(WorkbenchError) as caught:
        paper.check()
    assert str(caught.value) == (
        "a PDF needs the system's library Pango, which weasyprint could not load; install it "
        "(Debian, Ubuntu: apt install libpango-1.0-0 libpangoft2-1.0-0; macOS: brew install pango)"
    )


def test_the_pdf_lies_beside_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is made from the page that is written, and has its name."""
    run = reports.make_run(tmp_path, n_prompts=2, latency=False)
    page = {"other.html": b"<p>page</p>", "other.md": b"text"}
    monkeypatch.setattr(make, "made", lambda *_, **__: page.copy())
    monkeypatch.setattr(paper, "check", lambda: None)
    monkeypatch.setattr(paper, "pdf", lambda html: f"PDF of {html}".encode())
    target = make.report(run, tmp_path / "out" / "other.html", pdf=True)
    assert target.with_suffix(".pdf").read_bytes() == b"PDF of <p>page</p>"
    make.report(run, tmp_path / "two" / "other.html")
    assert not (tmp_path / "two" / "other.pdf").exists()
