"""Reports: what they say of every kind of run, the same each time, and nothing half-written."""

from __future__ import annotations

import json
import re
import types
from typing import TYPE_CHECKING

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

import workbench
from tests import bigruns, fakeruns, reports, studies
from tests.test_reporting_safety import Reader
from workbench import reporting as show
from workbench import stats
from workbench.engines.scripted import ScriptedEngine
from workbench.errors import StoreError, WorkbenchError
from workbench.reporting import amounts, limitations, make, page

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.runs import Run

MADE = re.compile(r"Made on [^<]*")


def text_of(html: str) -> str:
    """What a reader sees, on one line."""
    return " ".join(Reader(html).text.split())


def rows_of(html: str) -> list[list[str]]:
    """The cells of every table row of a piece of a page."""
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    return [
        [text_of(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in found
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small finished run with scores and latencies."""
    return reports.make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def made(run: Run) -> tuple[str, str]:
    """Its page and Markdown."""
    return reports.rendered(run)


# ------------------------------------------------------------------------------------------ the whole way


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A report made with a kernel, in the run's own folder."""
    run = reports.make_run(tmp_path_factory.mktemp("written"), n_prompts=6)
    return run, workbench.report(run)


def test_a_report_is_four_files_of_the_run_directory(written):
    """Page, executed notebook, Markdown and its picture appear; nothing else is left, and the run moves as a whole."""
    run, path = written
    assert path == run.path / "report.html"
    left = sorted(p.name for p in run.path.iterdir() if "report" in p.name)
    assert left == ["report.html", "report.ipynb", "report.md", "report.png"]
    book = nbformat.read(run.path / "report.ipynb", as_version=4)
    injected = next(c for c in book.cells if "injected-parameters" in c.metadata.get("tags", []))
    assert injected.source == '# Parameters\nRUN = "."\nBASELINE = None\nSEED = 0\n'
    assert all(c.execution_count for c in book.cells if c.cell_type == "code")
    assert str(run.path) not in json.dumps(book)
    assert imread(run.path / "report.png").std() > 0.05
    assert "![Quality against latency](report.png)" in (run.path / "report.md").read_text()


def test_the_page_holds_everything_and_says_it_is_safe(written):
    """One file: every picture inside, code folded away at the end, headings in order, nothing that acts."""
    _, path = written
    html = path.read_text(encoding="utf-8")
    assert page.problems(html) == []
    read = Reader(html)
    tags = [tag for tag, _ in read.tags]
    assert tags.count("h1") == 1
    assert [tag for tag in tags if tag in ("h1", "h2", "h3")][:2] == ["h1", "h2"]
    images = [attrs for tag, attrs in read.tags if tag == "img"]
    assert len(images) >= 6
    assert all(len(attrs["alt"] or "") > 20 for attrs in images)
    assert "show.answer(facts)" in read.text.split("Code of this report")[1]
    assert "show.answer(facts)" not in read.text.split("Code of this report")[0]
    headings = re.findall(r'<h2 id="([^"]*)"', html)
    assert headings == [attrs["href"][1:] for tag, attrs in read.tags if tag == "a"]


def test_a_kernel_and_this_process_say_the_same(written):
    """The same run gives the same page, but for the line with the time it was made."""
    run, path = written
    book = nbformat.read(run.path / "report.ipynb", as_version=4)
    again = reports.executed(run)
    mine = [c.outputs[0].data for c in again.cells if c.get("outputs")]
    theirs = [c.outputs[0].data for c in book.cells if c.get("outputs")]
    for a, b in zip(mine, theirs, strict=True):
        assert MADE.sub("", a.get("text/html", "")) == MADE.sub("", b.get("text/html", ""))
        assert a.get("text/markdown") == b.get("text/markdown")
    assert MADE.search(path.read_text(encoding="utf-8"))


def test_elsewhere_under_another_name_against_another_baseline(tmp_path, monkeypatch):
    """A report can go into any folder under any name; the notebook finds the run from there."""
    run = reports.make_run(tmp_path / "runs", n_prompts=4, latency=False)
    seen = {}

    def execute(_source, _output, parameters, cwd, **_settings):
        seen.update(parameters)
        return reports.executed((cwd / parameters["RUN"]).resolve(), parameters["BASELINE"])

    monkeypatch.setattr(make, "_execute", execute)
    path = show.report(str(run.path), tmp_path / "to" / "x.html", baseline="greedy", seed=3)
    assert sorted(p.name for p in path.parent.iterdir()) == ["x.html", "x.ipynb", "x.md", "x.png"]
    assert "](x.png)" in (path.parent / "x.md").read_text(encoding="utf-8")
    assert seen["RUN"] == f"../runs/small/{run.id}"
    assert (seen["BASELINE"], seen["SEED"]) == (run.cell_id("greedy"), 3)
    page_text = path.read_text(encoding="utf-8")
    based = [r[0] for r in rows_of(page_text) if r and r[0].endswith("baseline")]
    assert any(name.startswith("greedy") for name in based), based


# ------------------------------------------------------------------------------------------------ failures


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The report's notebook with a cell that fails."""
    book = nbformat.read(make.notebook(), as_version=4)
    cell = next(c for c in book.cells if c.source == "show.limits(facts)")
    cell.source = "\nshow.limits(nothing)"
    path = tmp_path / "broken.ipynb"
    nbformat.write(book, path)
    monkeypatch.setattr(make, "notebook", lambda: path)
    return path


@pytest.mark.usefixtures("broken")
def test_a_failing_cell_is_named_and_nothing_is_touched(tmp_path):
    """The error says which cell failed and why; the report that was there before stays as it was."""
    run = reports.make_run(tmp_path, n_prompts=3, latency=False)
    old = run.path / "report.html"
    old.write_text("old", encoding="utf-8")
    before = sorted(p.name for p in run.path.iterdir())
    with pytest.raises(WorkbenchError) as caught:
        show.report(run)
    said = "the report failed in cell 24 (show.limits(nothing)): NameError: name 'nothing' is not defined"
    assert str(caught.value) == said
    assert old.read_text(encoding="utf-8") == "old"
    assert sorted(p.name for p in run.path.iterdir()) == before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "NoSuchKernel",
            (
                "the report needs a Jupyter kernel, and ipykernel is not installed in this environment; "
                "install it with `pip install ipykernel`"
            ),
        ),
        (
            "DeadKernelError",
            "the kernel died while the report was made (why); is there enough memory?",
        ),
        ("RuntimeError", "the Jupyter kernel did not start: why"),
    ],
)
def test_no_kernel(tmp_path, monkeypatch, error, said):
    """Without a kernel, or when it dies, there is one sentence and no file."""
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError

    kinds = {"NoSuchKernel": NoSuchKernel, "DeadKernelError": DeadKernelError}

    def execute(*_args, **_settings):
        raise kinds.get(error, RuntimeError)("why")

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    run = reports.make_run(tmp_path, n_prompts=2, latency=False)
    with pytest.raises(WorkbenchError) as caught:
        show.report(run)
    assert str(caught.value) == said
    assert not list(run.path.glob("*report*"))


def test_the_kernel_is_this_python(tmp_path, monkeypatch):
    """A kernel named python3 that belongs to another Python is not taken."""
    import sys

    from workbench.reporting.kernel import ThisPython

    other = tmp_path / "kernels" / "python3"
    other.mkdir(parents=True)
    spec = {"argv": ["/other/python", "{connection_file}"], "display_name": "x", "language": "x"}
    (other / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert ThisPython(kernel_name="python3").kernel_spec.argv[0] == sys.executable


def test_a_folder_that_cannot_be_written(tmp_path, run):
    """A file where the folder should be is one sentence, not a traceback."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError) as caught:
        show.report(run, tmp_path / "file" / "report.html")
    assert str(caught.value) == f"{tmp_path / 'file'}: cannot be written (File exists)"


def test_no_such_run_or_cell(tmp_path, run):
    """What does not exist is refused before a kernel is started."""
    with pytest.raises(StoreError, match=r"no run 'nowhere'"):
        show.report("nowhere")
    with pytest.raises(StoreError, match=r"no cell 'T=9'"):
        show.report(run, tmp_path, baseline="T=9")
    assert not list(tmp_path.iterdir())


def test_the_notebook_is_found_in_a_clone_and_in_a_package(tmp_path, monkeypatch):
    """It lies beside the package in a clone, inside it when installed; if it is lost, the message says where it was sought."""
    assert make.notebook().name == "report.ipynb"
    module = tmp_path / "workbench" / "report" / "make.py"
    monkeypatch.setattr(make, "__file__", str(module))
    with pytest.raises(WorkbenchError) as caught:
        make.notebook()
    inside, beside = tmp_path / "workbench" / "notebooks", tmp_path / "notebooks"
    said = f"no report.ipynb in {inside} or {beside}; install the workbench again"
    assert str(caught.value) == said
    for folder in (beside, inside):
        folder.mkdir(parents=True)
        (folder / "report.ipynb").write_text("{}", encoding="utf-8")
        assert make.notebook() == folder / "report.ipynb"


# --------------------------------------------------------------------------------------------- what it says


def test_answer_first(made, run):
    """The page and the Markdown open with the sentence that the command line prints."""
    html, text = made
    first = amounts.signs(run.answer(width=None).splitlines()[0])
    assert text_of(re.search(r'<p class="lead">(.*?)</p>', html, re.DOTALL)[1]) == first
    assert f"**{first}**" in text.replace("\\", "")
    order = [
        "answer",
        "the-picture",
        "all-cells",
        "what-changed-where",
        "examples",
        "method",
        "limits",
        "record",
    ]
    places = [html.index(f'id="{name}"') for name in order]
    assert places == sorted(places)


def test_the_table_is_the_summary(made, run):
    """Every cell, best first, with the numbers of the summary, the baseline marked, numbers in right-aligned columns."""
    table = re.search(r"<table class=\"data\"><caption>Best first.*?</table>", made[0], re.DOTALL)[
        0
    ]
    head, *rows = rows_of(table)
    summary = run.summary().sort_values("quality", ascending=False, kind="stable")
    labels = run.cells.set_index("cell_id")["label"]
    assert len(rows) == len(summary)
    assert [float(r[1]) for r in rows] == sorted((float(r[1]) for r in rows), reverse=True)
    by_name = {re.sub(r" (front|baseline|better|worse)\b", "", r[0]): r for r in rows}
    for row in summary.to_dict("records"):
        shown = dict(zip(head, by_name[labels[row["cell_id"]]], strict=True))
        assert float(shown["quality %"]) == pytest.approx(100 * row["quality"], abs=0.051)
        assert shown["95 % interval"] == amounts.bounds(row["quality_lo"], row["quality_hi"])
        assert shown["median ms"] == amounts.ms(row["e2el_ms_p50"])
        if row["cell_id"] == run.cell_id():
            assert shown["against baseline"] == "baseline"
            assert "baseline" in by_name[labels[row["cell_id"]]][0]
        else:
            assert shown["against baseline"] == amounts.points(row["diff_vs_baseline"])
            assert shown["p"] == amounts.p_value(row["p_adjusted"])
    assert 'class="n">p</th>' in table


def test_sections_are_there(made):
    """Settings, flipped prompts, signs of trouble, latency, examples of both kinds, method with definitions, the record."""
    seen = text_of(made[0])
    for said in (
        "The score changed for",
        "Better than the baseline (",
        "Right in both (",
        "every cell and adapter draws with the same random numbers",
        "Time per output token after the first: (e2el_ms - ttft_ms) / (n - 1)",
        "raised by Holm's rule for having asked 4 questions",
        "30 of 30 rows token-identical",
        "The same in every cell, so nothing is known about them: top_p (off)",
        "no adapter",
        "name: small model: scripted",
        "workbench run small.yaml --new",
    ):
        assert said in seen, said


def test_one_cell(tmp_path):
    """With a single cell there is nothing to compare, and the page says so instead of failing."""
    html, text = reports.rendered(
        reports.make_run(tmp_path, n_prompts=4, grid={"temperature": [0.7]}, baseline=None)
    )
    seen = text_of(html)
    assert "One cell was scored: T=0.7" in seen
    assert "There is one cell, and nothing to compare it with." in seen
    assert "All cells have the same settings: there is no effect to show." in seen
    assert "Highest score (" in seen
    assert "Picking the best" not in seen
    assert "against baseline" not in seen
    assert "One cell was scored: T=0.7" in text


def test_without_latency(tmp_path):
    """Nothing is timed: quality alone is drawn, and the limits say that cost is unknown."""
    html, text = reports.rendered(reports.make_run(tmp_path, n_prompts=4, latency=False))
    seen = text_of(html)
    assert "Best first, with 95 % intervals. Latency was not measured." in seen
    assert "nothing is known about cost. workbench latency RUN measures it." in seen
    assert "median ms" not in seen
    assert "ttft_ms" not in seen
    assert "![Quality](report.png)" in text


def test_without_a_scorer(tmp_path):
    """Nothing is scored: answers are shown side by side, and no quality is claimed."""
    html, text = reports.rendered(reports.make_run(tmp_path, n_prompts=4, scorers=None))
    seen = text_of(html)
    assert "No answer was scored." in seen
    assert "There is no picture: no answer was scored." in seen
    assert "The study names no scorer" in seen
    assert "Answers, in the order of the prompts (4)" in seen
    assert "report.png" not in text


def test_all_rows_failed(tmp_path):
    """Every row failed: the page is made, and says why they did."""
    engine = ScriptedEngine(fail=lambda r: f"out of order: {r.prompt_id}")
    run = reports.make_run(tmp_path, n_prompts=2, engine=engine, latency=False)
    html, text = reports.rendered(run)
    seen = text_of(html)
    assert "18 rows of 18 failed; they are left out, not counted as wrong." in seen
    assert "18 rows of 18 in 5 cells: “out of order: p0” (9) and “out of order: p1” (9)." in seen
    assert "No answer was generated." in seen
    assert "> 18 rows of 18 failed" in text


def test_some_rows_failed(tmp_path):
    """A few failed rows are counted in the table and explained in the limits."""
    engine = ScriptedEngine(
        responses=lambda _request: "4", fail=lambda r: "no luck" if r.prompt_id == "p1" else None
    )
    seen = text_of(
        reports.rendered(reports.make_run(tmp_path, n_prompts=4, engine=engine, latency=False))[0]
    )
    assert "9 rows of 36 in 5 cells: “no luck” (9)." in seen


def test_interrupted(tmp_path):
    """A run that was stopped says how much is missing, on top."""
    engine = studies.Stopping(ScriptedEngine(), KeyboardInterrupt(), answers=20)
    html, text = reports.rendered(reports.make_run(tmp_path, n_prompts=8, engine=engine))
    seen = text_of(html)
    said = "This run is not complete: 52 of 72 rows were not run."
    assert said in seen
    assert "52 of 72 rows (72 %) were not run; cells may have answered different prompts" in seen
    assert f"> {said}" in text


def test_nothing_was_run(tmp_path):
    """A run stopped before its first answer still has a page."""
    engine = studies.Stopping(ScriptedEngine(), KeyboardInterrupt(), answers=0)
    seen = text_of(reports.rendered(reports.make_run(tmp_path, n_prompts=3, engine=engine))[0])
    assert "27 of 27 rows were not run" in seen
    assert "No answer was generated." in seen


def test_held_out_prompts(tmp_path):
    """With a split the table shows both scores, and the limits say which of the two to quote."""
    run = reports.make_run(tmp_path, n_prompts=30, split={"confirm": 0.4})
    html, _ = reports.rendered(run)
    seen = text_of(html)
    facts = show.read(run)
    again = facts.quality_of(facts.best, held_out=True)
    assert f"on the held-out ones it scores {100 * again:.1f} %" in seen
    assert "held out %" in seen
    n = len(run.generations.loc[run.generations["split"].eq("confirm"), "prompt_id"].unique())
    assert f"; {n} were held out by a hash of their name" in seen


def test_wordings_and_adapters(tmp_path):
    """Templates and adapters are settings like the others."""
    run = reports.make_run(
        tmp_path,
        n_prompts=4,
        grid={"temperature": [0, 0.7]},
        baseline=None,
        adapters=["base", {"terse": str(tmp_path)}],
        templates={"plain": "{{ input }}", "polite": "Please: {{ input }}"},
        engine=ScriptedEngine(adapters=["terse"]),
        scorers=["numeric", {"contains": {}}],
    )
    seen = text_of(reports.rendered(run)[0])
    assert "Heat map" not in seen  # only in the text for those who cannot see it
    assert "no adapter" not in seen.split("Decision")[0]  # which spells settings out
    assert "also recorded: contains" in seen
    assert "polite" in seen


def test_unscored_answers_have_their_reasons(tmp_path):
    """Answers that could not be judged are counted with the reason."""
    from workbench.prompts import PromptSet

    rows = [{"id": f"p{i}", "prompt": "?", **({"target": "1"} if i else {})} for i in range(4)]
    run = reports.make_run(tmp_path, prompts=PromptSet.from_records(rows, "some"))
    seen = text_of(reports.rendered(run)[0])
    assert re.search(r"Not scored\. 9 answers of 36: “[^”]*target[^”]*” \(9\)\.", seen)


def test_noisy_machine(tmp_path):
    """The share of disturbed requests is told, and what was done about it."""
    facts = show.read(reports.make_run(tmp_path, n_prompts=6))
    timed = facts.run.latency
    first = timed[timed["warm"].eq(1)].index[0]
    facts.run.latency.loc[first, "noisy"] = 1
    for column in ("noisy",):
        facts.run.latency[column] = facts.run.latency[column].fillna(0)
    said = dict(limitations.listing(facts))["Latency."]
    n = len(timed[timed["warm"].eq(1)])
    assert (
        f"Other programs disturbed 3 % of the {n} requests; they and the same requests of the other cells are left out"
        in said
    )


# ----------------------------------------------------------------------------------------------- estimates


class _Facts(types.SimpleNamespace):
    """Only what an estimate needs."""


def test_smallest_difference_is_the_textbook_one():
    """For paired differences of known spread it is (z + z) * sd / sqrt(n), to the few per cent the pseudo-prompts add."""
    rng = np.random.default_rng(3)
    n = 400
    d = rng.normal(0, 0.3, n)
    frame = pd.DataFrame(
        {
            "cell_id": ["a"] * n + ["b"] * n,
            "prompt_id": [*range(n)] * 2,
            "score": np.clip([*np.full(n, 0.5), *(0.5 + d)], 0, 1),
        }
    )
    found = (
        stats.paired_difference(frame, "a")
        .set_index("cell_id")
        .rename(columns={"diff": "diff_vs_baseline"})
    )
    one, all_ = limitations.smallest_difference(_Facts(summary=found.reset_index()))
    sd = np.std(np.clip(0.5 + d, 0, 1) - 0.5)
    assert one == pytest.approx((1.960 + 0.8416) * sd / np.sqrt(n), rel=0.05)
    assert all_ == one


def test_smallest_difference_is_found_four_times_in_five():
    """Simulated: a true difference of that size comes out significant in about 80 % of studies of that size."""
    rng = np.random.default_rng(0)
    n, hits, sizes = 120, 0, []
    for k in range(60):
        hard = rng.normal(0, 0.15, n)
        base = np.clip(0.5 + hard + rng.normal(0, 0.2, n), 0, 1)
        noise = rng.normal(0, 0.2, n)
        frames = [
            pd.DataFrame({"cell_id": c, "prompt_id": range(n), "score": s})
            for c, s in (("a", base), ("b", np.clip(0.5 + hard + noise + 0.072, 0, 1)))
        ]
        found = stats.paired_difference(pd.concat(frames), "a", rng=k).set_index("cell_id")
        hits += found.loc["b", "p_value"] < 0.05
        sizes.append(limitations.smallest_difference(_Facts(summary=found.reset_index()))[0])
    assert np.mean(sizes) == pytest.approx(0.072, abs=0.006)
    assert 0.65 <= hits / 60 <= 0.93


def test_optimism_is_what_picking_adds():
    """Cells that are equally good in truth: the estimate is near the mean of (best score - truth); one cell: none."""
    truth, found = [], []
    for seed in range(12):
        run = fakeruns.make_run(
            [{"temperature": t} for t in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)],
            n_prompts=60,
            repeats=1,
            right=lambda _cell: 0.5,
            timed=False,
            seed=seed,
        )
        scores = run.scores
        rng = np.random.default_rng(seed)
        scores["value"] = (rng.random(len(scores)) < 0.5).astype(float)
        tidy = run.generations.merge(scores, on=["cell_id", "prompt_id", "repeat"])
        tidy = tidy.rename(columns={"value": "score"})
        facts = _Facts(tidy=tidy, split=None, seed=0)
        found.append(limitations.optimism(facts))
        truth.append(tidy.groupby("cell_id")["score"].mean().max() - 0.5)
    assert np.mean(found) == pytest.approx(np.mean(truth), rel=0.5)
    alone = tidy[tidy["cell_id"].eq(tidy["cell_id"].iloc[0])]
    assert limitations.optimism(_Facts(tidy=alone, split=None, seed=0)) < 0.01


@given(st.floats(0, 1), st.floats(0, 1))
def test_bounds_never_carry_a_signed_zero(low, high):
    """Intervals are written with real minus signs and without "-0.0"."""
    text = amounts.bounds(low - 0.5, high - 0.5, signed=True)
    assert "-" not in text
    assert not re.search(r"[+\u2212]0\.0\b", text)


# ---------------------------------------------------------------------------------------------------- size


def test_ten_thousand_rows_stay_small(tmp_path):
    """A run of 10,000 rows makes a page far below 5 MB, with its examples cut to a few."""
    directory = bigruns.big_run(tmp_path / "big", n_cells=10, n_prompts=500, repeats=2)
    html, text = reports.rendered(directory)
    assert len(html.encode()) < 2_000_000
    assert len(text) < 20_000
    assert "lists all." in html
    assert text_of(html).count("▲ better") <= 5
