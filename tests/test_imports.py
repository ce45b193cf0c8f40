"""Importing is cheap: the heavy libraries load when they are needed, not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import workbench

HEAVY = {"torch", "transformers", "peft", "pandas", "matplotlib", "scipy", "pyarrow"}


def heavy_after(code: str) -> set[str]:
    """The heavy libraries that a fresh Python has loaded after running some code."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return HEAVY & set(run.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import workbench",
        "import workbench; dir(workbench)",
        "import workbench; workbench.SamplingParams(temperature=0.5)",
        "import workbench; workbench.Study, workbench.PromptSet",
        "import workbench; workbench.scorer",
        "import workbench.cli",
    ],
)
def test_light_imports(code):
    """The package, its pure names and the command line's module load none of the heavy libraries."""
    assert heavy_after(code) == set()


def test_the_check_can_fail():
    """A heavy library that is loaded is seen, also when only a part of it is imported."""
    assert "scipy" in heavy_after("import workbench\nimport scipy.special")


def test_public_names_exist():
    """Every public name can be had and is listed by dir()."""
    for name in workbench.__all__:
        assert getattr(workbench, name) is not None
    assert set(workbench.__all__) <= set(dir(workbench))


def test_unknown_name():
    """A name that is not there is refused as Python does it."""
    with pytest.raises(AttributeError, match=r"^module 'workbench' has no attribute 'Stduy'$"):
        _ = workbench.Stduy
