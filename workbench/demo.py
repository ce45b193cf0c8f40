"""The demo: a real study of the embedded model, from nothing to a picture."""

from __future__ import annotations

from pathlib import Path

from workbench.errors import StudyError
from workbench.study import Study


def datasets() -> Path:
    """The folder with the prompt sets and the quickstart study: in the package, or in the clone around it.

    Raises:
        StudyError: It is in neither place.
    """
    package = Path(__file__).resolve().parent
    places = [package / "datasets", package.parent / "datasets"]
    for place in places:
        if (place / "quickstart.yaml").is_file():
            return place
    raise StudyError(
        "demo",
        f"no quickstart.yaml in {' or '.join(map(str, places))}; install the workbench again",
    )


def study() -> Study:
    """The quickstart study: temperature, top_k and repetition_penalty on short sums, with the demo model."""
    return Study.from_yaml(datasets() / "quickstart.yaml")
