"""Write ``results/reference/<study>/``: what the workbench shows of its own studies, to look at before installing it.

Runs the studies with the demo model (or takes their finished runs from ``--runs``) and keeps the summary, the manifest
without names of this machine's folders, the pictures, and the report as Markdown. About a quarter of an hour on two cores.

Usage: ``python scripts/make_reference.py [--runs DIR] [STUDY.yaml ...]``
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

import workbench as wb
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.runs import Run

ROOT: Final = Path(__file__).resolve().parent.parent
OUT: Final = ROOT / "results" / "reference" / "cpu"
STUDIES: Final = ("datasets/quickstart.yaml", "datasets/sampling_grid.yaml")
DPI: Final = 110


def pictures(run: Run) -> dict[str, Callable[[], Any]]:
    """File name to what draws it; heat maps and interactions of the first two settings that vary."""
    grid = [name for name, values in run.study.grid.items() if len(values) > 1]
    made: dict[str, Callable[[], Any]] = {
        "quality_latency": lambda: wb.plots.quality_latency(run),
        "main_effects": lambda: wb.plots.main_effects(run),
        "lengths": lambda: wb.plots.lengths(run),
        "health": lambda: wb.plots.health(run),
        "latency_parts": lambda: wb.plots.latency_parts(run),
    }
    for other in grid[1:]:
        made[f"heatmap_{grid[0]}_{other}"] = lambda other=other: wb.plots.heatmap(
            run, grid[0], other
        )
    made["interaction"] = lambda: wb.plots.interaction(run, grid[0], grid[-1])
    return made


def draw(run: Run, folder: Path) -> list[str]:
    """Draw every picture; returns those that have nothing to show."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    skipped = []
    for name, picture in pictures(run).items():
        try:
            picture()
            plt.gcf().savefig(folder / f"{name}.png", dpi=DPI)
        except WorkbenchError as error:
            skipped.append(f"{name}: {error}")
        plt.close("all")
    return skipped


def anonymous(value: Any, root: str) -> Any:
    """A manifest without this machine's folders."""
    if isinstance(value, dict):
        return {key: anonymous(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [anonymous(item, root) for item in value]
    if isinstance(value, str):
        return value.replace(root, ".").replace(str(Path.home()), "~")
    return value


def keep(run: Run, folder: Path) -> None:
    """Write the files of one study."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(run.path / "summary.csv", folder)
    manifest = anonymous(run.manifest, str(ROOT))
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for problem in draw(run, folder):
        print(f"{folder.name}: no {problem}")
    page = wb.report(run, folder / "report")
    text = page.with_suffix(".md").read_text(encoding="utf-8")
    (folder / "report.md").write_text(
        text.replace("](report.png)", "](quality_latency.png)"), encoding="utf-8"
    )
    shutil.copy(page, folder / "report.html")
    shutil.rmtree(folder / "report")
    print(
        f"{folder}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.1f} MB"
    )


def main() -> None:
    """Run the studies and keep what they show."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("studies", nargs="*", default=[str(ROOT / s) for s in STUDIES])
    parser.add_argument("--runs", default=str(ROOT / "results"), help="where run directories live")
    arguments = parser.parse_args()
    mpl.use("agg")
    for study in arguments.studies:
        run = wb.run(study, out=arguments.runs, progress=sys.stderr.isatty())
        keep(run, OUT / run.study.name)


if __name__ == "__main__":
    main()
