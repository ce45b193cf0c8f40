"""A headless Chromium for the tests that look at pages as people see them.

``chromium()`` gives a selenium driver that reaches nothing outside this machine, or skips the test where no Chromium with
its driver is installed. ``jupyter()`` serves a folder in JupyterLab.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
)


@contextlib.contextmanager
def chromium(width: int = 1200, height: int = 1400, *flags: str) -> Iterator[Chrome]:
    """A browser with an empty profile; skips the test where there is none.

    Args:
        width: Of the window, pixels.
        height: Of the window, pixels.
        flags: Further flags of Chromium.
    """
    binary = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver_path = shutil.which("chromedriver")
    if binary is None or driver_path is None:
        pytest.skip("no Chromium with chromedriver is installed")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = binary
        for flag in (
            *FLAGS,
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            *flags,
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = Chrome(options=options, service=ChromeService(driver_path))
        try:
            driver.set_page_load_timeout(60)
            yield driver
        finally:
            driver.quit()


def wait_for(what: Any, timeout_s: float = 60, every_s: float = 0.1) -> Any:
    """Call a function until it gives something true, and give that.

    Raises:
        AssertionError: It did not within the time.
    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(every_s)
    raise AssertionError(f"waited {timeout_s:g} s for {getattr(what, '__name__', what)}")


def show(driver: Chrome, page: str | Path) -> None:
    """Open a file, or a page given as text."""
    if isinstance(page, Path):
        driver.get(page.absolute().as_uri())
        return
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
        file.write(page)
        file.flush()
        driver.get(Path(file.name).as_uri())


def screenshot(driver: Chrome, path: str | Path, *, whole: bool = False) -> Path:
    """Write what is shown to a PNG file; ``whole`` takes all of the page, not only the window."""
    out = Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not whole:
        driver.save_screenshot(str(out))
        return out
    import base64

    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    out.write_bytes(base64.b64decode(shot["data"]))
    return out


def errors(driver: Chrome) -> list[str]:
    """What the page complained about on its console so far."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


@contextlib.contextmanager
def jupyter(folder: Path, timeout_s: float = 60) -> Iterator[str]:
    """JupyterLab on a folder; gives its address, without a slash at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=",
        "--ServerApp.disable_check_xsrf=True",
        "--LabApp.news_url=",
    ]
    home = folder / ".jupyter"
    places = {"JUPYTER_CONFIG_DIR": home / "config", "JUPYTER_RUNTIME_DIR": home / "runtime"}
    environment = os.environ | {name: str(path) for name, path in places.items()}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(home), "JUPYTERLAB_WORKSPACES_DIR": str(home)}
    news = home / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True, exist_ok=True)
    news.write_text('{"fetchNews": "false"}')
    log = folder / "jupyter.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(lambda: _answers(f"{address}/api"), timeout_s, 0.3)
            yield address
        finally:
            server.terminate()
            server.wait(20)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False
