"""The promises of `workbench.stats`, simulated: short runs of ``scripts/bench_stats.py``, which has the long ones.

A share counted in n studies may lie outside its bounds by three standard errors, as `Figure.holds` says, and no more.
"""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SIZES = {
    "wilson": 0,
    "clustered": 1_000,
    "paired": 1_000,
    "alarms": 200,
    "best": 60,
    "fronts": 60,
    "planned": 150,
    "equivalence": 300,
}
"""Studies per setting of the short runs. The comparison with the bootstrap has no bounds and is left to the script."""


@pytest.fixture(scope="module")
def bench():
    """The script's names."""
    return runpy.run_path(str(ROOT / "scripts/bench_stats.py"))


@pytest.fixture(scope="module")
def figures(bench):
    """The figures of a part, simulated once."""

    @cache
    def simulated(part):
        return list(bench["PARTS"][part][0](SIZES[part], np.random.default_rng(7)))

    return simulated


@pytest.mark.parametrize("part", SIZES)
def test_the_promises_hold(figures, part):
    """Every bounded figure of the part holds, and the part has some."""
    found = figures(part)
    bounded = [f for f in found if f.low is not None or f.high is not None]
    assert len(bounded) >= 2
    assert [f for f in bounded if not f.holds] == []


def test_without_correction_the_promise_breaks(figures):
    """The simulation can tell: without Holm, some cell of 48 equal ones is called different far too often."""
    found = figures("alarms")
    naive = [f for f in found if f.promise == "... without Holm" and "100 prompts" in f.setting]
    assert len(naive) == 2
    assert all(not f._replace(high=0.055).holds for f in naive)


def test_a_figure_fails_three_standard_errors_outside(bench):
    """The slack follows from the number of studies and nothing else; exact figures have none."""
    figure = bench["Figure"]
    assert figure("x", "", 0.9, 0.93, 0.97, 0).slack == 0
    assert not figure("x", "", 0.929, 0.93, 0.97, 0).holds
    slack = 3 * np.sqrt(0.93 * 0.07 / 400)
    assert figure("x", "", 0.9, 0.93, 0.97, 400).slack == pytest.approx(slack)
    assert figure("x", "", 0.93 - 0.99 * slack, 0.93, 0.97, 400).holds
    assert not figure("x", "", 0.93 - 1.01 * slack, 0.93, 0.97, 400).holds
    assert not figure("x", "", 0.97 + 1.01 * slack, 0.93, 0.97, 400).holds
    assert figure("x", "", 0.5, None, None, 10).holds


def test_the_script_prints_a_table_and_writes_it(bench, tmp_path, capsys):
    """A run of two parts: a line per figure, the same figures as JSON, 0 when all hold."""
    out = tmp_path / "stats.json"
    assert bench["main"](["--studies", "20", "--only", "wilson", "paired", "--out", str(out)]) == 0
    rows = json.loads(out.read_text("utf-8"))
    printed = capsys.readouterr().out
    assert [r["promise"] for r in rows[:2]] == [
        "Wilson interval covers, mean",
        "Wilson interval covers, lowest",
    ]
    assert rows[0]["found"] == pytest.approx(0.952, abs=0.0005)
    assert rows[1]["found"] == pytest.approx(0.930, abs=0.0005)
    assert all(f"{row['found']:.3f}" in printed for row in rows)
    assert len(rows) == 7
