"""`explore` as people use it: choosing, clicking, searching, paging."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING

import nbformat
import pytest
from bigruns import big_run
from browser import chromium, errors, jupyter, screenshot, wait_for
from pairedruns import paired_run
from studies import study_file

from workbench import api
from workbench.errors import StoreError
from workbench.exploring import explore, read
from workbench.exploring.browse import PAGE, Browser
from workbench.exploring.clickable import picture
from workbench.exploring.view import View

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import ipywidgets as w
    import pandas as pd

    from workbench.comparing.pairs import RunTables

N_CELLS, N_PROMPTS = 6, 60
DRAWN: dict = {}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    """A run of six cells, some of the prompts held out."""
    folder = tmp_path_factory.mktemp("explored") / "run"
    return api.Run(big_run(folder, N_CELLS, N_PROMPTS, confirm=0.3))


@pytest.fixture
def view(run: api.Run, monkeypatch: pytest.MonkeyPatch) -> View:
    """What a notebook shows of it; equal pictures are drawn once for all tests."""

    def once(table: pd.DataFrame, tables: RunTables, baseline: str) -> tuple[str, dict]:
        key = baseline, int(table["n_prompts"].sum())
        if key not in DRAWN:
            DRAWN[key] = picture(table, tables, baseline)
        return DRAWN[key]

    monkeypatch.setattr("workbench.exploring.view.picture", once)
    return View(Browser(read(run)), run.cell_id())


def prompts(view: View) -> list[str]:
    """Ids of the prompts on the page."""
    return re.findall(r'class="wb-id">(.*?)<', view.answers.value)


def says(view: View) -> str:
    """The comparison in words, as text."""
    return re.sub("<[^>]*>", " ", view.says.value).strip()


def listed(view: View) -> list[str]:
    """Ids of the cells in the list."""
    return [i for _, i in view.cells.options]


def tree(widget: w.Widget) -> Iterator[w.Widget]:
    """A widget and all inside it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from tree(child)


# At first


def test_it_opens_with_the_best_cell_beside_the_baseline(run, view):
    """The list is sorted by quality, the best other cell is chosen and compared, and its first page is there."""
    summary = run.summary().sort_values("quality", ascending=False)
    best = next(i for i in summary["cell_id"] if i != run.cell_id())
    assert view.cells.value == view.query.cell == best
    assert listed(view) == summary["cell_id"].tolist()
    labels = run.cells.set_index("cell_id")["label"]
    assert says(view).startswith(f"{labels[best]} against {labels[run.cell_id()]}, on the ")
    assert len(prompts(view)) == PAGE
    assert view.back.disabled
    assert not view.forth.disabled


@pytest.mark.parametrize("how", ["run", "path", "text", "tables"])
def test_a_run_may_be_given_in_many_ways(run, how):
    """A run, its directory, or its tables; with another baseline if one is named."""
    given = {"run": run, "path": run.path, "text": str(run.path), "tables": read(run)}[how]
    name = run.cells.cell_id[2] if how == "tables" else run.cells.label[2]
    widget = explore(given, name)
    shown = [x.value for x in tree(widget) if type(x).__name__ == "HTML"]
    assert any(f"against {run.cells.label[2]}, on the " in text for text in shown)


def test_latest(tmp_path, monkeypatch):
    """The newest run is looked for under results/; where there is none, that is the error."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError) as caught:
        explore("latest")
    assert str(caught.value) == "no run 'latest': there are no runs under results"
    api.run(study_file(tmp_path, latency=None), progress=False, say=lambda _: None)
    names = [type(x).__name__ for x in tree(explore("latest"))]
    assert "Select" in names


# Cells


def test_a_point_and_a_line_of_the_list_do_the_same(view):
    """Clicking a point chooses its line; choosing a line rings its point; the answers follow."""
    for cell, spot in view.spots.items():
        spot.click()
        assert view.cells.value == view.query.cell == cell
        assert [i for i, s in view.spots.items() if "wb-on" in s._dom_classes] == [cell]
        assert view.browser.labels[cell] in says(view)
    view.cells.value = listed(view)[0]
    assert view.query.cell == listed(view)[0]
    assert "wb-on" in view.spots[listed(view)[0]]._dom_classes


def test_buttons_step_through_the_list(view):
    """Up and down go to the neighbours and stop at the ends."""
    order = listed(view)
    view.cells.value = order[0]
    for expected in [*order[1:], order[-1]]:
        view.down.click()
        assert view.query.cell == expected
    view.up.click()
    assert view.query.cell == order[-2]


def test_settings_narrow_list_and_picture(view):
    """Cells that do not match leave the list and fade in the picture; what is read stays."""
    before = view.query
    name, choice = next(iter(view.where.items()))
    cells = view.browser.run.cells
    choice.value = choice.choices[1]
    match = cells.loc[cells[name].eq(choice.choices[1]), "cell_id"]
    assert sorted(listed(view)) == sorted(match)
    faded = {i for i, s in view.spots.items() if "wb-off" in s._dom_classes}
    assert faded == set(cells["cell_id"]) - set(match)
    assert view.query == before
    view.down.click()
    assert view.query.cell in listed(view)
    choice.value = choice.choices[0]
    assert len(listed(view)) == N_CELLS
    assert not any("wb-off" in s._dom_classes for s in view.spots.values())


def test_the_list_is_sorted_as_asked(run, view):
    """By latency the fastest comes first; by study order it is the study's."""
    view.sort.value = "latency"
    assert listed(view)[0] == run.summary().sort_values("e2el_ms_p50")["cell_id"].iloc[0]
    view.sort.value = "study order"
    assert listed(view) == run.cells["cell_id"].tolist()


def test_the_lines_of_the_list(run, view):
    """Name, quality, difference and latency; the baseline and the front are marked."""
    summary = run.summary().set_index("cell_id")
    for text, cell in view.cells.options:
        row, own = summary.loc[cell], cell == run.cell_id()
        assert text[0] == ("b" if own else "*" if row["on_front"] else "\u00a0")
        words = text[1:].split()
        assert f"{100 * row['quality']:.1f}" in words
        assert f"{row['e2el_ms_p50']:,.0f}" == words[-1]
        assert (f"{100 * row['diff_vs_baseline']:+.1f}" in words) != own


def test_another_baseline(run, view):
    """Everything is compared with the cell chosen; chosen itself, a cell is shown alone."""
    other = run.cells.cell_id[3]
    view.baseline.value = other
    view.cells.value = run.cells.cell_id[1]
    assert f"against {run.cells.label[3]}, on the " in says(view)
    view.cells.value = other
    assert says(view) == f"{run.cells.label[3]}: the answers of this cell alone."
    assert view.answers.value.count('<th scope="col">') == 2


def test_the_held_out_prompts(run, view):
    """The prompts to select are shown first; the others when asked for."""
    splits = run.generations.drop_duplicates("prompt_id").set_index("prompt_id")["split"]
    assert {splits[p] for p in prompts(view)} == {"select"}
    view.split.value = "confirm"
    assert {splits[p] for p in prompts(view)} == {"confirm"}
    assert "held-out prompts scored in both" in says(view)
    view.split.value = None
    assert view.change.options[0][0] == f"all {N_PROMPTS}"


# Prompts


def test_prompts_that_changed(view):
    """The buttons carry the counts and show those prompts; another cell keeps the choice."""
    counts = {value: int(name.split()[-1]) for name, value in view.change.options}
    assert counts["all"] == counts["better"] + counts["worse"] + counts["same"]
    view.change.value = "better"
    assert len(prompts(view)) == min(PAGE, counts["better"])
    assert view.answers.value.count("▲ better") == len(prompts(view))
    view.down.click()
    assert view.change.value == view.query.change == "better"
    assert "▼ worse" not in view.answers.value


def test_search_group_repeat_and_order(view):
    """Each narrows or reorders the prompts and goes back to the first page."""
    view.forth.click()
    view.search.value = "sum-001"
    assert view.page.value == 1
    assert prompts(view)
    assert all(p.startswith("sum-001") for p in prompts(view))
    view.search.value = "nowhere to be found"
    assert "No prompts to show." in view.answers.value
    view.search.value = ""
    group = view.group.choices[1]
    view.group.value = group
    shown = view.browser.rows(view.query)
    assert set(shown["group"]) == {group}
    view.group.value = None
    view.repeat.value = 1
    assert set(view.browser.rows(view.query)["repeat"]) == {1}
    view.order.value = "longest answer"
    assert prompts(view) == view.browser.rows(view.query)["prompt_id"].head(PAGE).tolist()


def test_paging(view):
    """Next, previous and a page number lead to the same pages; the ends are ends."""
    view.split.value = None
    everything = view.browser.rows(view.query)["prompt_id"].tolist()
    seen = prompts(view)
    while not view.forth.disabled:
        view.forth.click()
        seen += prompts(view)
    assert seen == everything
    assert view.page.value == view.page.max == 3
    view.page.value = 2
    assert prompts(view) == everything[PAGE : 2 * PAGE]
    view.back.click()
    assert view.back.disabled
    assert view.pages.value == "of 3"


def test_only_a_page_is_turned_into_html(view):
    """However many prompts there are, the widgets hold twenty."""
    held = sum(len(x.value) for x in tree(view.root) if type(x).__name__ == "HTML")
    assert len(prompts(view)) == PAGE
    assert held < 400_000


# Odd runs


def test_names_are_shown_not_run():
    """Cells, prompts and answers with markup stay text everywhere."""
    evil = "<img src=x onerror=alert(1)>"
    run = paired_run({"a": {evil: [0]}, evil: {evil: [1]}}, groups={evil: evil})
    view = View(Browser(run), "a")
    for widget in tree(view.root):
        if type(widget).__name__ == "HTML":
            assert evil not in widget.value
    assert "&lt;img" in view.answers.value


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"a": {"p0": [1]}}, "a: the answers of this cell alone."),
        ({"a": {"p0": [None]}, "b": {"p0": [None]}}, "b against a: no prompt was scored in both."),
        ({"a": {"p0": ["error"]}, "b": {"p0": [1]}}, "no prompt was answered by both a and b"),
        (
            {"a": {"p0": ["error"]}, "b": {"p0": ["error"]}},
            "no prompt was answered by both a and b",
        ),
    ],
    ids=["one cell", "no scores", "a cell that broke", "all broke"],
)
def test_runs_with_little_in_them(scores, words):
    """They open all the same and say what is missing."""
    assert says(View(Browser(paired_run(scores)), "a")).startswith(words)


def test_beside_a_baseline_that_broke_a_cell_is_shown_alone():
    """Answers are not hidden because the baseline has none: they are shown without it, and that is said."""
    view = View(Browser(paired_run({"a": {"p0": ["error"]}, "b": {"p0": [1]}})), "a")
    assert prompts(view) == ["p0"]
    assert view.answers.value.count('<th scope="col">') == 2
    assert view.change.options[0][0] == "all 1"
    assert says(view) == ("no prompt was answered by both a and b; below: the answers of b alone")


def test_the_question_is_worded_as_the_cell_was_asked(tmp_path):
    """With templates each cell's own wording stands beside its answers."""
    study = study_file(
        tmp_path,
        templates={"plain": "{{ input }}", "polite": "Please tell me: {{ input }}"},
        latency=None,
    )
    done = api.run(study, out=tmp_path, progress=False, say=lambda _: None)
    view = View(Browser(read(done)), done.cell_id())
    polite = done.cells.loc[done.cells["template"].eq("polite"), "cell_id"].iloc[0]
    view.pick(polite)
    assert "Please tell me: " in view.answers.value
    view.search.value = "please TELL"
    assert prompts(view)


def test_a_study_without_scorers_or_latency(tmp_path):
    """The answers can be read all the same."""
    study = study_file(tmp_path, scorers=None, latency=None)
    done = api.run(study, out=tmp_path, progress=False, say=lambda _: None)
    view = View(Browser(read(done)), done.cell_id())
    assert len(prompts(view)) == 6
    assert "nothing to draw" in view.picture.value


# In a notebook


def notebook(path: Path, run: api.Run) -> None:
    """A notebook that explores a run."""
    cells = ["from workbench.exploring import explore", f"explore({str(run.path)!r})"]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(nb, path)


def test_a_notebook_without_a_browser(tmp_path, run):
    """Run by nbclient, the cell ends in a widget whose state is kept, answers included."""
    from nbclient import NotebookClient

    notebook(tmp_path / "x.ipynb", run)
    nb = nbformat.read(tmp_path / "x.ipynb", as_version=4)
    NotebookClient(nb, timeout=120).execute()
    (output,) = nb.cells[-1].outputs
    assert "application/vnd.jupyter.widget-view+json" in output["data"]
    state = nb.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    shown = [m["state"].get("value") for m in state.values() if m["model_name"] == "HTMLModel"]
    assert any('class="wb-id"' in text for text in shown)


@pytest.mark.long
def test_in_jupyterlab(tmp_path, run):
    """In JupyterLab, with mouse and keyboard: points, list, filters and search change what is shown."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    notebook(tmp_path / "x.ipynb", run)
    with jupyter(tmp_path) as address, chromium(1500, 1500) as driver:

        def all_of(css: str) -> list:
            return driver.find_elements(By.CSS_SELECTOR, f".wb-explore {css}")

        def change(what: object) -> str:
            before = driver.find_element(By.CSS_SELECTOR, ".wb-explore").text
            what()
            wait_for(lambda: driver.find_element(By.CSS_SELECTOR, ".wb-explore").text != before)
            return all_of(".wb-says")[0].text

        driver.get(f"{address}/lab/tree/x.ipynb?reset")
        wait_for(lambda: driver.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-Cell"))
        time.sleep(3)  # until the kernel is there
        for name in ("Run", "Run All Cells"):
            path = f"//div[contains(@class, '-itemLabel') and text()='{name}']"
            wait_for(lambda path=path: driver.find_elements(By.XPATH, path))
            driver.find_element(By.XPATH, path).click()
        wait_for(lambda: all_of(".wb-answers"), 90)
        spots = all_of(".wb-spot")
        assert len(spots) == N_CELLS
        image = all_of(".wb-picture img")[0].rect
        for spot in spots:
            rect = spot.rect
            assert image["x"] < rect["x"] < image["x"] + image["width"]
            assert image["y"] < rect["y"] < image["y"] + image["height"]
        other = next(s for s in spots if "wb-on" not in s.get_attribute("class"))
        driver.execute_script("arguments[0].focus()", other)
        assert other.get_attribute("title") in change(lambda: other.send_keys(Keys.SPACE))
        down = next(b for b in all_of("button") if "below" in b.text)
        change(lambda: down.send_keys(Keys.ENTER))
        better = next(b for b in all_of(".widget-toggle-button") if b.text.startswith("better"))
        change(better.click)
        search = all_of("input[type=text]")[0]
        change(lambda: search.send_keys("nowhere", Keys.ENTER))
        assert "No prompts to show." in all_of(".wb-answers")[0].text
        screenshot(driver, tmp_path / "explore.png")
        assert errors(driver) == []


@pytest.mark.long
def test_a_hundred_thousand_rows(tmp_path, capsys):
    """A run of 100,000 rows opens, and every click shows a page; how long it takes is printed."""
    big = api.Run(big_run(tmp_path / "big"))
    times: dict[str, list[float]] = {}

    def took(name: str, what: object) -> object:
        start = time.perf_counter()
        result = what()
        times.setdefault(name, []).append(time.perf_counter() - start)
        return result

    view = took("open", lambda: View(Browser(read(big)), big.cell_id()))
    assert len(view.spots) == 50
    for spot in list(view.spots.values())[:20]:
        took("click", spot.click)
        assert len(prompts(view)) == PAGE
    for value in ("better", "worse", "all"):
        took("filter", lambda value=value: setattr(view.change, "value", value))
    took("search", lambda: setattr(view.search, "value", "hope"))
    took("page", view.forth.click)
    took("repeat", lambda: setattr(view.repeat, "value", 1))
    took("baseline", lambda: setattr(view.baseline, "value", view.browser.run.cells.cell_id[7]))
    lines = [
        f"{name:<9} median {sorted(taken)[len(taken) // 2]:.3f} s, most {max(taken):.3f} s\n"
        for name, taken in times.items()
    ]
    with capsys.disabled():
        sys.stdout.write("\n" + "".join(lines))
    assert big.generations.shape[0] == 100_000
