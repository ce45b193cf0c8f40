"""From a run to its files: the notebook is executed, rendered, checked, and only then put in place."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import StoreError, WorkbenchError
from workbench.reporting import page, paper
from workbench.reporting.facts import Facts, read
from workbench.runs import Run  # noqa: TC001 - the signature is read at run time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nbformat import NotebookNode

NOTEBOOK: Final = "report.ipynb"
TEMPLATE: Final = "page.html.j2"
START_S: Final = 120
"""Longest wait for the kernel, seconds."""
FOR_MARKDOWN: Final = "report-md"
"""Tag of the cell whose output becomes the Markdown file."""
FOR_PICTURE: Final = "report-picture"
"""Tag of the cell whose picture goes beside it."""
_IMAGE: Final = re.compile(r'src="data:image/png;base64,([^"]+)"')


def notebook() -> Path:
    """The notebook behind every report: in the package, or in the clone around it.

    Raises:
        WorkbenchError: It is in neither place.
    """
    package = Path(__file__).resolve().parent.parent
    places = [folder / "notebooks" / NOTEBOOK for folder in (package, package.parent)]
    for place in places:
        if place.is_file():
            return place
    raise WorkbenchError(
        f"no {NOTEBOOK} in {' or '.join(str(p.parent) for p in places)}; install the workbench again"
    )


def report(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    baseline: str | None = None,
    seed: int = 0,
    pdf: bool = False,
    progress: bool = False,
) -> Path:
    """Write the report of a run.

    Next to the page come the notebook it was made from, executed (``.ipynb``), a short text for a pull request (``.md``) and
    its picture (``.png``), all with the page's name; on demand also a PDF. Files of that name are replaced; if anything fails none is touched.

    Args:
        run: A run, or what `workbench.open_run` takes.
        out: A folder, or a file name that ends in ``.html``; by default ``report.html`` in the run directory.
        baseline: Cell id or label all are compared with; by default the study's.
        seed: Of resampling; the same seed gives the same numbers.
        pdf: Also write the page as a PDF, ``report.pdf``; needs the extra ``pdf``.
        progress: Show a bar while the notebook runs.

    Returns:
        The path of the page.

    Raises:
        StoreError: There is no such run or cell, or the files cannot be written.
        WorkbenchError: The notebook failed (says in which cell), no kernel could be started, or a PDF cannot be made here.
    """
    if pdf:
        paper.check()
    facts = read(run, baseline, seed)
    target = target_of(facts.run, out)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.stem}-", dir=target.parent))
    except OSError as error:
        raise StoreError(f"{target.parent}: cannot be written ({error.strerror})") from error
    try:
        files = made(facts, target, work, given=baseline is not None, progress=progress)
        if pdf:
            files[f"{target.stem}.pdf"] = paper.pdf(files[target.name].decode())
        for name, data in files.items():
            (work / name).write_bytes(data)
        for name in files:
            (work / name).replace(target.parent / name)
    except OSError as error:
        raise StoreError(f"{target.parent}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def made(
    facts: Facts, target: Path, work: Path, *, given: bool = False, progress: bool = False
) -> dict[str, bytes]:
    """The files of a report, by name, made and not put anywhere.

    The same run on the same versions (see `workbench.reporting.page.made_with`) gives the same bytes, whenever and wherever.

    Args:
        facts: The run, its baseline and seed.
        target: Where the page will be; its folder must exist.
        work: A folder for the executed notebook.
        given: The baseline is not the study's own choice.
        progress: Show a bar while the notebook runs.

    Raises:
        WorkbenchError: As for :func:`report`.
    """
    parameters = {
        "RUN": os.path.relpath(facts.run.path, target.parent),
        "BASELINE": facts.baseline if given else None,
        "SEED": facts.seed,
    }
    done = _execute(notebook(), work / NOTEBOOK, parameters, target.parent, progress=progress)
    about = {"baseline": parameters["BASELINE"], "seed": facts.seed, "with": page.made_with()}
    return _files(done, target, f"{facts.manifest['study']['name']}: report", about)


def target_of(run: Run, out: str | Path | None) -> Path:
    """Where the page goes."""
    path = run.path if out is None else Path(out)
    return path if path.suffix.lower() == ".html" and not path.is_dir() else path / "report.html"


# ---------------------------------------------------------------------------------------------- executing


def _execute(
    source: Path, output: Path, parameters: dict[str, Any], cwd: Path, *, progress: bool
) -> NotebookNode:
    """Run the notebook in a kernel of this very Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # papermill's and its libraries' own, not ours
        import papermill  # noqa: PLC0415 - slow to import
        from jupyter_client.kernelspec import NoSuchKernel  # noqa: PLC0415
        from nbclient.exceptions import CellTimeoutError, DeadKernelError  # noqa: PLC0415

        from workbench.reporting.kernel import ThisPython  # noqa: PLC0415 - imports jupyter

        try:
            done: NotebookNode = papermill.execute_notebook(
                source,
                output,
                parameters,
                cwd=cwd,
                progress_bar=progress,
                start_timeout=START_S,
                kernel_manager_class=ThisPython,
                extra_arguments=["--log-level=CRITICAL"],  # its notes to itself
                request_save_on_cell_execute=False,
            )
        except papermill.PapermillExecutionError as error:
            raise WorkbenchError(_failure(error)) from error
        except NoSuchKernel as error:
            raise WorkbenchError(
                "the report needs a Jupyter kernel, and ipykernel is not installed in this environment; "
                "install it with `pip install ipykernel`"
            ) from error
        except (DeadKernelError, CellTimeoutError) as error:
            raise WorkbenchError(
                f"the kernel died while the report was made ({error}); is there enough memory?"
            ) from error
        except RuntimeError as error:
            raise WorkbenchError(f"the Jupyter kernel did not start: {error}") from error
    return done


def _failure(error: Any) -> str:
    """Which cell failed, and why, in one line."""
    first = next((line for line in error.source.splitlines() if line.strip()), "")
    reason = " ".join(str(error.evalue).split())
    return (
        f"the report failed in cell {error.cell_index} ({first.strip()}): {error.ename}: {reason}"
    )


# ---------------------------------------------------------------------------------------------- rendering


def render(
    done: NotebookNode, title: str = "Report", about: Mapping[str, Any] | None = None
) -> str:
    """An executed notebook as a page that runs and fetches nothing.

    Args:
        done: The notebook.
        title: Of the browser's window.
        about: What it was made with, for who verifies it; plain values.

    Raises:
        WorkbenchError: The page would; that is a mistake in the workbench or in a changed notebook.
    """
    import mistune  # noqa: PLC0415 - comes with nbconvert
    from nbconvert.exporters.templateexporter import TemplateExporter  # noqa: PLC0415 - slow

    markdown = mistune.create_markdown(escape=True)
    template = (Path(__file__).parent / TEMPLATE).read_text(encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # traitlets' and jinja's own
        exporter = TemplateExporter(raw_template=template)
        exporter.register_filter("anchor", anchor)
        exporter.register_filter("plain", page.attribute)
        exporter.register_filter("md", lambda text: str(markdown(text)))
        known = {"title": title, "made_by": json.dumps(about or {})}
        html, _ = exporter.from_notebook_node(done, {"markdown_tag": FOR_MARKDOWN, **known})
    found = page.problems(html)
    if found:
        raise WorkbenchError(f"the page would not be safe to open: {'; '.join(found[:5])}")
    return str(html)


def anchor(heading: str) -> str:
    """The name of a section inside the page.

    >>> anchor("## What changed, where")
    'what-changed-where'
    """
    return "-".join(re.findall(r"[a-z0-9]+", heading.lower())) or "section"


def _files(
    done: NotebookNode, target: Path, title: str, about: Mapping[str, Any]
) -> dict[str, bytes]:
    """Page, notebook, picture and Markdown text of an executed notebook."""
    import nbformat  # noqa: PLC0415 - slow to import

    _forget(done)
    files = {target.name: render(done, title, about).encode()}
    files[f"{target.stem}.ipynb"] = str(nbformat.writes(done)).encode()  # type: ignore[no-untyped-call]
    image = _IMAGE.search(_output(done, FOR_PICTURE, "text/html"))
    text = _output(done, FOR_MARKDOWN, "text/markdown")
    if image:
        files[f"{target.stem}.png"] = base64.b64decode(image[1])
    files[f"{target.stem}.md"] = text.replace("](report.png)", f"]({target.stem}.png)").encode()
    return files


def _forget(done: NotebookNode) -> None:
    """Leave out what papermill noted of times and places, which differ each time, and the random name of its cell."""
    done.metadata.pop("papermill", None)
    for cell in done.cells:
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell["id"] = "given"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)


def _output(done: NotebookNode, tag: str, kind: str) -> str:
    """What the cell with a tag showed; empty if it showed nothing of the kind."""
    for cell in done.cells:
        if tag in cell.metadata.get("tags", ()):
            for output in cell.get("outputs", ()):
                if kind in output.get("data", {}):
                    return str(output.data[kind])
    return ""
