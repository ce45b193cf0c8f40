"""A report on paper: the page as a PDF, by WeasyPrint, laid out by the page's own styles for print."""

from __future__ import annotations

from typing import Final

from workbench.errors import WorkbenchError

INSTALL: Final = "pip install 'awq-workbench[pdf]'"


def check() -> None:
    """Make sure that a PDF can be made.

    Raises:
        WorkbenchError: WeasyPrint is not installed, or the system's Pango is not.
    """
    try:
        import weasyprint  # noqa: F401, PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise WorkbenchError(f"a PDF needs the package weasyprint: {INSTALL}") from error
    except OSError as error:  # it loads them when it is imported
        raise WorkbenchError(
            "a PDF needs the system's library Pango, which weasyprint could not load; install it "
            "(Debian, Ubuntu: apt install libpango-1.0-0 libpangoft2-1.0-0; macOS: brew install pango)"
        ) from error


def pdf(html: str) -> bytes:
    """A report's page as a PDF; the same page on the same versions and fonts gives the same bytes.

    Args:
        html: The page; what is not in it is not fetched.

    Raises:
        WorkbenchError: As for :func:`check`.
    """
    check()
    from weasyprint import HTML  # noqa: PLC0415 - as above
    from weasyprint.urls import URLFetcher  # noqa: PLC0415 - as above

    inside = URLFetcher(allowed_protocols=["data"])
    return bytes(HTML(string=html, url_fetcher=inside).write_pdf())
