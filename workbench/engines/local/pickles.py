"""Adapters saved as pickles: written anew as safetensors, once, without running what is in them.

A pickle can run any program when it is opened. ``torch.load(weights_only=True)`` runs none: it knows tensors and plain
containers, and stops at everything else.
"""

from __future__ import annotations

import pickle
import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import save_file

from workbench import adapters
from workbench.adapters.places import PICKLES
from workbench.errors import AdapterError

if TYPE_CHECKING:
    from workbench.adapters import AdapterFile

# What torch raises for files that are damaged, beside UnpicklingError: its readers of archives and records differ.
_DAMAGE: Final = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError),
    *(TypeError, AttributeError, AssertionError),
)


def convert_pickle(folder: str | Path, out: str | Path) -> AdapterFile:
    """Write an adapter whose weights are a pickle as one with safetensors, every number bit for bit the same.

    Args:
        folder: Holds adapter_config.json and adapter_model.bin (or .pt, .pth).
        out: The folder to write; it must not exist, or be empty.

    Returns:
        The new adapter, read and checked.

    Raises:
        AdapterError: There is no such pickle; it holds more than tensors, or is damaged; the adapter is of a kind that
            does not run here; or the folder to write is in use. Nothing is left behind then.
    """
    source, target = Path(folder).expanduser(), Path(out).expanduser()
    file = _pickle_in(source)
    config = source / adapters.CONFIG
    if not config.is_file():
        raise AdapterError(f"{source}: no {adapters.CONFIG}, so this is not a LoRA adapter")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AdapterError(f"{target}: there already; allowed: a new or an empty folder")
    tensors = _load(file)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
            made = Path(temporary) / target.name
            made.mkdir()
            shutil.copyfile(config, made / adapters.CONFIG)
            save_file(tensors, made / adapters.WEIGHTS, metadata={"format": "pt"})
            try:
                adapters.read(made)
            except AdapterError as error:
                said = str(error).replace(str(made.resolve()), str(source))
                raise AdapterError(f"{file}: converted, but not usable: {said}") from error
            made.replace(target)
    except OSError as error:
        raise AdapterError(f"{target}: cannot be written ({error})") from error
    return adapters.read(target)


def _pickle_in(folder: Path) -> Path:
    if (folder / adapters.WEIGHTS).is_file():
        raise AdapterError(f"{folder}: has {adapters.WEIGHTS} already; nothing to convert")
    for name in PICKLES:
        if (folder / name).is_file():
            return folder / name
    raise AdapterError(f"{folder}: no {' or '.join(PICKLES)} to convert")


def _load(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickle, on the CPU, none sharing memory with another."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about protocols; what counts is the end
            found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AdapterError(
            f"{file}: damaged, or it holds more than tensors and would run a program of its own; not opened"
        ) from error
    except _DAMAGE as error:
        why = " ".join(str(error).split())[:200]
        raise AdapterError(f"{file}: damaged ({why})") from error
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and _is_plain(value) for key, value in found.items()
    ):
        raise AdapterError(f"{file}: not a set of named tensors, as PEFT saves them")
    return {key: value.detach().contiguous().clone() for key, value in found.items()}


def _is_plain(value: object) -> bool:
    """Whether a value is a tensor with its numbers in memory, one by one."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
    )
