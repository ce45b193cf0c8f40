"""What is looked at before anything is quantized: the package, the checkpoint, the layers, the folder, disk and memory."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from workbench.errors import (
    EngineUnavailable,
    ModelError,
    OutOfMemory,
    ParamError,
    UnsupportedQuantization,
    WorkbenchError,
)

if TYPE_CHECKING:
    from workbench.engines.local.checkpoint import Checkpoint

GROUP_SIZES: Final = (32, 64, 128)
ARCHITECTURES: Final = (
    "cohere",
    "gemma",
    "llama",
    "mistral",
    "phi3",
    "qwen2",
    "qwen3",
    "stablelm",
)
"""Model types that AutoAWQ 0.2.9 quantizes with today's transformers and that our loader reads; each was tried."""
INSTALL: Final = "pip install 'awq-workbench[autoawq]'"
_PACKAGE: Final = "awq"
_LAYER: Final = re.compile(r"model\.layers\.(\d+)\.(.+)\.weight")
_OUTPUTS: Final = 8
"""Codes in a word of 32 bits."""
_BASE_BYTES: Final = 2**30
"""What the libraries take."""
_WORK: Final = "quantizing"


def extra() -> None:
    """Refuse to go on without AutoAWQ; it is not imported.

    Raises:
        EngineUnavailable: It is not installed.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise EngineUnavailable(
            f"quantizing needs the package autoawq, which is not installed; run: {INSTALL}"
        )


def quantized_already(name: str, group_size: int) -> UnsupportedQuantization:
    """The error for an AWQ checkpoint."""
    return UnsupportedQuantization(
        f"{name}: is quantized already (AWQ, groups of {group_size}); give the dense checkpoint"
    )


def linear_layers(checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    """Name to (outputs, inputs) of what gets quantized: every linear layer of the model's layers."""
    found = {}
    for name, tensor in checkpoint.tensors.items():
        if _LAYER.fullmatch(name) and len(tensor.shape) == 2:
            found[name.removesuffix(".weight")] = (tensor.shape[0], tensor.shape[1])
    return found


def n_layers(checkpoint: Checkpoint) -> int:
    """Layers of the model."""
    numbers = [int(m[1]) for name in checkpoint.tensors if (m := _LAYER.fullmatch(name))]
    return max(numbers, default=-1) + 1


def source(checkpoint: Checkpoint, group_size: int) -> None:
    """Refuse what cannot be quantized.

    Raises:
        ParamError: No such group size.
        UnsupportedQuantization: The checkpoint is quantized already.
        ModelError: Its architecture is not supported, or its layers do not divide into groups.
    """
    if group_size not in GROUP_SIZES:
        raise ParamError("group_size", "32, 64 or 128", group_size)
    if checkpoint.group_size is not None:
        raise quantized_already(checkpoint.name, checkpoint.group_size)
    kind = checkpoint.config["model_type"]
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{checkpoint.name}: model_type {kind!r} cannot be quantized; can be: {', '.join(ARCHITECTURES)}"
        )
    layers = linear_layers(checkpoint)
    if not layers:
        raise ModelError(f"{checkpoint.name}: has no linear layers under model.layers")
    _divides(checkpoint.name, layers, group_size)


def _divides(name: str, layers: dict[str, tuple[int, int]], group_size: int) -> None:
    odd = {layer.rsplit(".", 1)[-1]: k for layer, (_, k) in layers.items() if k % group_size}
    if odd:
        fits = [g for g in GROUP_SIZES if not any(k % g for _, k in layers.values())]
        allowed = f"that do: {', '.join(map(str, fits))}" if fits else "none of 32, 64, 128 does"
        listed = ", ".join(f"{last} ({k})" for last, k in sorted(odd.items()))
        raise ModelError(
            f"{name}: groups of {group_size} do not divide the inputs of {listed}; {allowed}"
        )
    uneven = sorted(
        {f"{x.rsplit('.', 1)[-1]} ({n})" for x, (n, _) in layers.items() if n % _OUTPUTS}
    )
    if uneven:
        raise ModelError(
            f"{name}: the number of outputs must divide by {_OUTPUTS}, which it does not in {', '.join(uneven)}"
        )


def target(out: str | Path, source_folder: Path) -> Path:
    """The folder to write, checked; what an earlier call that was killed left beside it is removed.

    Raises:
        WorkbenchError: It is a file, holds something, or is the source.
    """
    folder = Path(out).expanduser()
    if folder.resolve() == source_folder.resolve():
        raise WorkbenchError(f"{folder}: is the model's own folder; give a new one")
    if folder.exists() and not folder.is_dir():
        raise WorkbenchError(f"{folder}: is a file; give a new folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise WorkbenchError(f"{folder}: is not empty; give a new folder, or remove it first")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbenchError(f"{folder}: cannot be made ({error.strerror})") from error
    if not os.access(folder.parent, os.W_OK):
        raise WorkbenchError(f"{folder.parent}: cannot be written to")
    for left in folder.parent.glob(f"{work_prefix(folder, '*')}*"):
        pid = left.name.rsplit("-", 2)[-2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return folder


def work_prefix(folder: Path, pid: object = None) -> str:
    """How the names of temporary folders for this one begin; the process that made it is part of the name."""
    return f".{folder.name}.{_WORK}-{os.getpid() if pid is None else pid}-"


def packed_bytes(checkpoint: Checkpoint, group_size: int) -> int:
    """Size of the quantized weights: 4 bits each, a scale (2 bytes) and a zero point (4 bits) a group; the rest fp16."""
    weights = sum(n * k for n, k in linear_layers(checkpoint).values())
    rest = checkpoint.n_weights - weights
    return weights // 2 + int(weights / group_size * 2.5) + 2 * rest


def memory_bytes(checkpoint: Checkpoint, n_tokens: int) -> int:
    """Memory that the search takes at most, on a CPU: fp32 weights, one layer's inputs, and copies of its largest weight."""
    layers = linear_layers(checkpoint).values()
    width, widest = min(k for _, k in layers), max(k for _, k in layers)
    inputs = n_tokens * (10 * width + 3 * widest) * 4
    copies = 8 * 4 * max(n * k for n, k in layers)
    return _BASE_BYTES + 4 * checkpoint.n_weights + inputs + copies


def room(
    folder: Path, checkpoint: Checkpoint, group_size: int, n_tokens: int, extra_bytes: int = 0
) -> None:
    """Refuse to begin what could not end.

    Args:
        folder: That will be written.
        checkpoint: The source.
        group_size: Of the result.
        n_tokens: That calibrate.
        extra_bytes: Temporary files besides.

    Raises:
        WorkbenchError: Too little disk.
        OutOfMemory: Too little memory.
    """
    need, free = int(packed_bytes(checkpoint, group_size) * 1.05) + extra_bytes, 0
    with suppress(OSError):
        free = shutil.disk_usage(folder.parent).free
    if need > free:
        raise WorkbenchError(
            f"{folder.parent}: {need / 2**30:.1f} GiB of disk are needed, {free / 2**30:.1f} GiB are free"
        )
    need, free = memory_bytes(checkpoint, n_tokens), psutil.virtual_memory().available
    if need > free:
        raise OutOfMemory(
            f"{checkpoint.name}: quantizing needs about {need / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are "
            "free; calibrate with fewer prompts, or use a machine with more"
        )
