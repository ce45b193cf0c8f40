"""The demo study."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from workbench import demo
from workbench.errors import StudyError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_demo_study(root: Path) -> None:
    """14 cells of the demo model on the sums, timed, with a baseline in the grid."""
    study = demo.study()
    plan = study.plan()
    assert study.model == "demo"
    assert study.engine["kind"] == "local"
    assert study.load_prompts().sha256 == plan.prompt_set.sha256
    assert (len(plan.cells), len(plan.prompt_set)) == (14, 79)
    assert plan.baseline.label == "T=0.6 k=50"
    assert study.scorers == ({"numeric": {"pick": "equation"}},)
    assert study.latency is not None
    assert demo.datasets() == root / "datasets"


def test_datasets_inside_the_package_come_first(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an installed package they are in the package; in a clone beside it; else the way out is told."""
    package = tmp_path / "workbench"
    package.mkdir()
    monkeypatch.setattr(demo, "__file__", str(package / "demo.py"))
    with pytest.raises(StudyError) as caught:
        demo.study()
    assert str(caught.value) == (
        f"demo: no quickstart.yaml in {package}/datasets or {tmp_path}/datasets; install the workbench again"
    )
    shutil.copytree(root / "datasets", tmp_path / "datasets")
    assert demo.datasets() == tmp_path / "datasets"
    shutil.copytree(root / "datasets", package / "datasets")
    assert demo.datasets() == package / "datasets"
    assert demo.study().plan().n_rows == 79 * (2 + 12 * 2)
