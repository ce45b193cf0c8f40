"""Proposals: inside the space, the same for the same knowledge, better than chance; and the file that a dashboard reads."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.searchspace import Dimension
from workbench.tuning.proposing import FILE, Trial, Trials, propose, startup

if TYPE_CHECKING:
    from pathlib import Path

optuna = pytest.importorskip("optuna")

SPACE = (
    Dimension("temperature", low=0.0, high=1.5, step=0.01),
    Dimension("top_k", low=1, high=200, log=True),
    Dimension("adapter", ("base", "terse")),
)


def worth(trial: Trial) -> float:
    """Best at temperature 0.8 with the second adapter."""
    away = abs(trial.settings["temperature"] - 0.8)
    return -away - 0.5 * (trial.settings["adapter"] == "base")


def known(n: int, seed: int) -> list[tuple[Trial, list[float]]]:
    """So many trials, eight at a time, each with what it is worth."""
    out: list[tuple[Trial, list[float]]] = []
    while len(out) < n:
        out += [(t, [worth(t)]) for t in propose(SPACE, out, 8, seed=seed)]
    return out


def test_proposals_are_inside_and_repeat() -> None:
    """Whole numbers where they must be, two digits where a step says so; the same twice, others with another seed."""
    first, again, other = known(40, 1), known(40, 1), known(40, 2)
    assert first == again != other
    for trial, _ in first:
        assert 0 <= trial.settings["temperature"] <= 1.5
        assert round(trial.settings["temperature"], 2) == trial.settings["temperature"]
        assert isinstance(trial.settings["top_k"], int)
        assert 1 <= trial.settings["top_k"] <= 200
    assert [t.number for t, _ in first] == list(range(40))


def test_later_proposals_are_better() -> None:
    """After the start they come from where it is good."""
    found = [value for _, (value,) in known(64, 3)]
    start = startup(SPACE)
    assert sum(found[start:]) / len(found[start:]) > sum(found[:start]) / start + 0.15


def test_several_objectives() -> None:
    """Directions are TPE's own; proposals are on the way between the best of each."""
    out: list[tuple[Trial, list[float]]] = []
    for _ in range(6):
        made = propose(SPACE, out, 8, seed=0, directions=["maximize", "minimize"])
        out += [(t, [t.settings["temperature"], t.settings["top_k"]]) for t in made]
    late = [t.settings["top_k"] for t, _ in out[24:]]
    assert sorted(late)[len(late) // 2] < 14  # the middle of the logarithmic scale


@given(st.sampled_from(["temperature", "top_k"]), st.integers(0, 5))
@settings(max_examples=10, deadline=None)
def test_one_dimension(name: str, seed: int) -> None:
    """Is searched as well, choices alone too."""
    spaces = (
        (Dimension(name, low=1, high=4, step=1),),
        (Dimension(name, (1, 2, None)),),
    )
    for space in spaces:
        out: list[tuple[Trial, list[float]]] = []
        for _ in range(3):
            out += [(t, [0.0]) for t in propose(space, out, 8, seed=seed)]
        assert {t.settings[name] for t, _ in out} == set(space[0].choices or (1, 2, 3, 4))


def opened(folder: Path) -> Any:
    """The trials of a folder."""
    return contextlib.closing(Trials(folder, "s", SPACE, ["maximize"], ["numeric"]))


def test_the_file_holds_the_trials(tmp_path: Path) -> None:
    """Opened again it has them, with what was reported once; ends are noted once, and what was not made has failed."""
    made = propose(SPACE, [], 4, seed=0)
    with opened(tmp_path) as trials:
        trials.add(made[:3], ["a", "b", "c"])
        trials.report(made[0], 0.1, 20)
    with opened(tmp_path) as trials:
        assert trials.trials == made[:3]
        trials.report(made[0], 0.9, 20)
        trials.report(made[0], 0.2, 40)
        trials.end(made[0], [0.2])
        trials.end(made[0], [0.7], pruned=True)
        trials.end(made[1], [-0.1], pruned=True)
        trials.abandon(2)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / FILE}")
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert study.trials[0].intermediate_values == {20: 0.1, 40: 0.2}
    assert study.best_trial.user_attrs["cell"] == "a"
    assert study.best_trial.user_attrs["settings"] == made[0].settings


def test_optuna_dashboard_opens_it(tmp_path: Path) -> None:
    """Its server lists the study and its trials."""
    pytest.importorskip("optuna_dashboard")
    made = propose(SPACE, [], 2, seed=0)
    with opened(tmp_path) as trials:
        trials.add(made, ["a", "b"])
        trials.end(made[0], [0.25])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from optuna_dashboard._cli import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", program, f"sqlite:///{tmp_path / FILE}", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        listed = fetched(port, "studies")["study_summaries"]
        assert [s["study_name"] for s in listed] == ["s"]
        shown = fetched(port, f"studies/{listed[0]['study_id']}")["trials"]
        assert [(t["state"], t.get("values")) for t in shown] == [
            ("Complete", [0.25]),
            ("Running", None),
        ]
        assert {p["name"] for p in shown[0]["params"]} == {d.name for d in SPACE}
    finally:
        server.terminate()
        server.wait(timeout=10)


def fetched(port: int, what: str) -> Any:
    """What the dashboard's server answers, once it is up."""
    for _ in range(300):
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/{what}", timeout=5) as answer:
                return json.load(answer)
        except URLError:
            time.sleep(0.1)
    raise AssertionError("the dashboard does not answer")


def test_without_optuna(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence says what to install, before anything runs."""
    from workbench.study import Study
    from workbench.tuning import tune

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(WorkbenchError) as caught:
        tune(Study(prompts=["Hi"], search={"top_p": [0.5, 1]}, scorers=["exact"]), out=tmp_path)
    assert str(caught.value) == (
        "a search needs the package optuna: pip install 'awq-workbench[tune]'"
    )
    assert not list(tmp_path.iterdir())
