"""Fixtures shared by the whole suite: one demo model, one engine, tiny checkpoints."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as workbench.engines.local does, before torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from workbench.engines.local.engine import LocalEngine
    from workbench.engines.local.loader import LoadedModel


@pytest.fixture(scope="session")
def demo_loaded() -> LoadedModel:
    """The demo model, exact fp32, loaded once for the whole session."""
    from workbench.engines.local.loader import load

    return load("demo", device="cpu", kernel="fp32", progress=False)


@pytest.fixture(scope="session")
def demo_engine(demo_loaded: LoadedModel) -> LocalEngine:
    """An engine on the demo model; tests leave its settings as they found them."""
    from workbench.engines.local.engine import LocalEngine

    return LocalEngine(demo_loaded)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parent.parent
