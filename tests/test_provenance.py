"""The manifest: what it holds, and what it must not hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small import Length, make_plan

from workbench import provenance
from workbench.engines.scripted import ScriptedEngine


def test_manifest_says_where_numbers_come_from() -> None:
    """Study, prompts, engine, software and machine are in it, as JSON."""
    plan = make_plan()
    info = ScriptedEngine(adapters=["terse"]).info
    got = json.loads(json.dumps(provenance.manifest(plan.study, plan, info, [Length()])))
    assert got["schema_version"] == 2
    assert got["study"] == {
        "name": "small",
        "text": plan.study.text,
        "sha256": plan.study.sha256,
        "folder": None,
    }
    assert got["content_hash"] == plan.content_hash
    assert got["prompt_set"] == {
        "name": "sums", "source": "inline", "sha256": plan.prompt_set.sha256, "n_prompts": 6,
    }  # fmt: skip
    assert got["engine"] == info.to_dict()
    assert (got["n_cells"], got["n_rows"], got["baseline"]) == (3, 42, plan.cells[0].cell_id)
    assert (got["status"], got["ended_utc"]) == ("running", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", got["started_utc"])
    assert got["packages"]["numpy"]
    assert got["cpu"]["logical_cores"] >= got["cpu"]["usable_cores"] >= 1
    assert got["memory_bytes"] > 2**20
    assert got["command_line"]


def test_run_ids_are_times_and_differ() -> None:
    """A run id sorts by time, and two of the same second differ."""
    first, second = provenance.run_id(), provenance.run_id()
    assert first != second
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", i) for i in (first, second))


def git(directory: Path, *arguments: str) -> None:
    names = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(
        ["git", "-C", str(directory), *names, *arguments], check=True, capture_output=True
    )


def test_git_commit_and_dirt(tmp_path: Path) -> None:
    """A checkout gives its commit and whether tracked files changed; outside of one there is nothing."""
    assert provenance.git(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert provenance.git(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "one")
    clean = provenance.git(tmp_path)
    assert clean is not None
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    (tmp_path / "untracked").write_text("")
    assert provenance.git(tmp_path) == clean
    (tmp_path / "a").write_text("2")
    assert provenance.git(tmp_path) == {"commit": clean["commit"], "dirty": True}


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git is no problem."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git(Path.cwd()) is None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["run", "s.yaml", "--out", "x"], ["run", "s.yaml", "--out", "x"]),
        (["serve", "--token", "abc"], ["serve", "--token", "(hidden)"]),
        (["serve", "--api-key=abc", "x"], ["serve", "--api-key=(hidden)", "x"]),
        (["run", "--token", "--limit", "3"], ["run", "--token", "--limit", "3"]),
        (["run", "--set", "a=b"], ["run", "--set", "a=b"]),
    ],
)
def test_secrets_stay_out(given: list[str], kept: list[str]) -> None:
    """Tokens and keys on the command line are not recorded."""
    assert provenance.command_line(given) == kept


def test_gpus_are_described_without_loading_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch in the process there is no GPU; with one its name, memory and capability are kept."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert provenance.gpus() is None
    device = SimpleNamespace(name="H200", total_memory=150_000_000_000, major=9, minor=0)
    cuda: Any = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda _: device
    )
    torch = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="13.0"))
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    (got,) = provenance.gpus() or []
    assert (got["name"], got["memory_bytes"], got["capability"], got["cuda"]) == (
        "H200", 150_000_000_000, "9.0", "13.0",
    )  # fmt: skip
    cuda.is_available = lambda: False
    assert provenance.gpus() is None


def test_the_record_imports_no_torch() -> None:
    """Running, recording and timing load neither torch nor pandas."""
    code = (
        "import sys, workbench.runner, workbench.latency, workbench.engines.scripted; "
        "print([m for m in ('torch', 'transformers', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
