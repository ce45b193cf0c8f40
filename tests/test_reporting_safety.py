"""A report is safe to open: nothing a model, a prompt file or a label says can run, load or pretend."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import mistune
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import browser, reports
from workbench.answers import visible
from workbench.errors import WorkbenchError
from workbench.reporting import make, page
from workbench.reporting.short import plain, prose

if TYPE_CHECKING:
    from pathlib import Path

    from selenium.webdriver import Chrome

POLICY = re.compile(r"<meta http-equiv=.Content-Security-Policy.[^>]*>")


class Reader(HTMLParser):
    """The elements of a page, its text, and its text outside of code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = self.outside = ""
        self._code = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note an element."""
        self.tags.append((tag, dict(attrs)))
        self._code += tag in ("code", "pre")

    def handle_endtag(self, tag):
        """Leave code."""
        self._code -= tag in ("code", "pre")

    def handle_data(self, data):
        """Note text."""
        self.text += data
        self.outside += "" if self._code else data


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Page and Markdown of a run full of planted markup."""
    return reports.rendered(reports.nasty_run(tmp_path_factory.mktemp("nasty")))


def test_nothing_in_the_page_can_act(nasty):
    """The page holds no script, no event handler, no frame, no link out and no outside image."""
    html, _ = nasty
    read = Reader(html)
    names = {tag for tag, _ in read.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form", "input"}
    assert not [a for _, attrs in read.tags for a in attrs if a.startswith("on")]
    assert {attrs["src"][:22] for t, attrs in read.tags if t == "img"} == {"data:image/png;base64,"}
    assert {attrs["href"][0] for t, attrs in read.tags if t == "a"} == {"#"}
    assert page.problems(html) == []


def test_planted_text_is_there_to_be_read(nasty):
    """The markup was shown as text, not dropped: otherwise the other tests would prove nothing."""
    text = Reader(nasty[0]).text
    for planted in (reports.CODE, reports.HANDLER, "javascript:window.owned=1", "{{ 7 * 191 }}"):
        assert planted in text
    assert "1337" not in text.replace(" ", "")
    assert "\u202e" not in nasty[0]
    assert "\x1b" not in nasty[0]


def test_the_policy_forbids_everything_but_own_styles_and_pictures(nasty):
    """Should anything slip through, the browser is told to run and load nothing."""
    (policy,) = POLICY.findall(nasty[0])
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policy
    assert nasty[0].index(policy) < nasty[0].index("<style")


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("<script>x</script>", "<script> element"),
        ("<b onclick='x'>", "event handler onclick='x' in <b>"),
        ("<IMG SRC=x oNeRRor=y>", "event handler onerror='y' in <img>"),
        ("<a href='JaVa\tscript:x'>", "link out of the page: href='JaVa\\tscript:x' in <a>"),
        ("<a href=https://x.example>", "link out of the page: href='https://x.example' in <a>"),
        ("<img src='//x.example/x.png'>", "link out of the page: src='//x.example/x.png' in <img>"),
        (
            "<img src='data:image/svg+xml;base64,xx'>",
            "link out of the page: src='data:image/svg+xml;base64,xx' in <img>",
        ),
        ("<iframe srcdoc=x>", "<iframe> element"),
        ("<link rel=stylesheet href=x>", "<link> element"),
        ("<base href=x>", "<base> element"),
        ("<object data=x>", "<object> element"),
        ("<svg><use xlink:href=x>", "<use> element"),
        ("<style>@import 'x'</style>", "style sheet that loads something"),
        (
            "<b style='background: url(x)'>",
            "style that loads something: style='background: url(x)' in <b>",
        ),
        ("<meta http-equiv=refresh content=0>", "<meta http-equiv> other than the policy"),
        ("<?php x ?>", "processing instruction <?php x ?>"),
        ("<form action=x>", "<form> element"),
    ],
)
def test_the_check_can_fail(nasty, planted, said):
    """Each kind of thing that acts, planted in a good page, is found and named."""
    assert said in page.problems(nasty[0].replace("</main>", f"{planted}</main>"))


def test_an_unsafe_page_is_never_written(tmp_path):
    """A cell whose output would act stops the report, whoever wrote the cell."""
    book = reports.executed(reports.make_run(tmp_path, n_prompts=3))
    code = next(c for c in book.cells if c.cell_type == "code" and c.outputs)
    code.outputs[0].data["text/html"] = reports.CODE
    with pytest.raises(WorkbenchError) as caught:
        make.render(book)
    assert str(caught.value) == "the page would not be safe to open: <script> element"


# ------------------------------------------------------------------------------------- in a real browser


def opened(driver: Chrome, html: str, folder: Path) -> dict[str, object]:
    """What a browser makes of a page: its title, the planted mark, and what it tried to load."""
    file = folder / "page.html"
    file.write_text(html, encoding="utf-8")
    browser.show(driver, file)
    driver.execute_async_script("setTimeout(arguments[0], 300)")
    return driver.execute_script(
        "return {title: document.title, owned: window.owned || 0, loaded: performance.getEntriesByType('resource')"
        ".map(e => e.name).filter(n => !n.startsWith('data:')), wide: document.documentElement.scrollWidth}"
    )


def test_in_a_browser_nothing_fires(nasty, tmp_path):
    """Chromium shows the page without running or loading anything; unescaped, the same payloads do fire."""
    html, _ = nasty
    bare = POLICY.sub("", html)
    with browser.chromium() as driver:
        seen = opened(driver, html, tmp_path)
        assert (seen["owned"], seen["loaded"]) == (0, [])
        assert seen["title"].startswith("nasty ")
        assert browser.errors(driver) == []
        assert opened(driver, bare, tmp_path)["owned"] == 0  # escaping alone is enough
        planted = f"{reports.CODE}{reports.HANDLER}</main>"
        live = opened(driver, bare.replace("</main>", planted), tmp_path)
        assert (live["owned"], live["title"]) == (1, "owned")
        assert (
            opened(driver, html.replace("</main>", planted), tmp_path)["owned"] == 0
        )  # so is the policy


def test_readable_on_a_narrow_screen(nasty, tmp_path):
    """On a telephone nothing sticks out of the page: wide tables scroll by themselves."""
    with browser.chromium(500, 900) as driver:
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
        )
        assert opened(driver, nasty[0], tmp_path)["wide"] <= 390


# ------------------------------------------------------------------------------------------------ Markdown


def test_markdown_of_the_pull_request_does_nothing(nasty):
    """Rendered, the Markdown has one picture beside it, no link, no markup but its own, and mentions nobody."""
    render = mistune.create_markdown(escape=False, plugins=["table", "url", "strikethrough"])
    read = Reader(str(render(nasty[1])))
    names = {tag for tag, _ in read.tags}
    assert not names & {"script", "iframe", "a", "svg", "style", "meta", "base", "del", "em"}
    assert [attrs for tag, attrs in read.tags if tag == "img"] == [
        {"src": "report.png", "alt": "Quality against latency"}
    ]
    assert "@everyone" not in read.outside
    assert "@\u2060everyone" in read.outside
    assert [line for line in nasty[1].splitlines() if line.startswith("# ")] == [
        nasty[1].splitlines()[0]
    ]


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from("\\`*_[]<>|~$&#+-=:.)( a1@/\n"), max_size=25).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_plain_markdown_is_only_text(text):
    """Whatever a text holds, it renders as one paragraph of that text."""
    html = str(mistune.create_markdown(escape=False, plugins=["table", "url"])(plain(text)))
    read = Reader(html)
    assert {tag for tag, _ in read.tags} <= {"p"}
    assert read.text.replace("\u2060", "").split() == visible(text).split()


@given(st.lists(st.sampled_from(["`", "``", "<b>", "*x*", " ", "a", "[x](y)"]), max_size=9))
@settings(max_examples=300, deadline=None)
def test_backticks_open_no_hole_in_markdown(pieces):
    """Odd backticks in a text never let anything beside them act."""
    html = str(mistune.create_markdown(escape=False)(prose("".join(pieces))))
    assert {tag for tag, _ in Reader(html).tags} <= {"p", "code"}


@given(st.text())
@settings(deadline=None)
def test_prose_and_attributes_are_only_text(text):
    """Text in the page and in attributes adds no element but code and the signs of hidden characters."""
    read = Reader(f'<i title="{page.attribute(text)}">{page.prose(text)}</i>')
    assert {tag for tag, _ in read.tags} <= {"i", "code", "span"}
    assert set(read.tags[0][1]) == {"title"}
