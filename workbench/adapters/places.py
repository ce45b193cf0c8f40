"""Where an adapter is: a folder on this machine, or a repository of the model hub, brought here first."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from workbench.errors import AdapterError

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
PICKLES: Final = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
"""The same weights as a pickle, which can run any program when it is opened."""

_HUB_ID: Final = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_SHOWN: Final = 3


def find(path: str | Path) -> Path:
    """The folder of an adapter: a folder here, or, for text like ``owner/name``, one of the hub.

    Raises:
        AdapterError: There is no such folder, and no such repository or no way to it.
    """
    try:
        folder = Path(path).expanduser()
        if folder.is_dir():
            return folder.resolve()
        is_file = folder.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise AdapterError(f"{path}: no such folder ({error})") from error
    if is_file:
        raise AdapterError(f"{path}: a file; give the folder that holds {CONFIG} and {WEIGHTS}")
    if isinstance(path, str) and _HUB_ID.fullmatch(path):
        return fetch(path)
    raise AdapterError(f"{path}: no such folder")


def fetch(spec: str) -> Path:
    """Bring an adapter's two files here from the model hub, or find them in its cache; nothing else is downloaded.

    Args:
        spec: ``owner/name``.

    Raises:
        AdapterError: Not there, not to be had without its owner's leave, or the hub is out of reach.
    """
    hub: Any = import_module("huggingface_hub")  # slow to import, seldom needed
    errors: Any = import_module("huggingface_hub.errors")
    try:
        return Path(hub.snapshot_download(spec, allow_patterns=[CONFIG, WEIGHTS]))
    # Its own errors are OSErrors; HTTPError is that of its client, for a connection that breaks off.
    except (OSError, errors.HTTPError, errors.HFValidationError) as error:
        raise AdapterError(
            f"{spec}: not a folder here, and not to be had from the model hub ({_reason(error, hub)})"
        ) from error


def _reason(error: Exception, hub: Any) -> str:
    if isinstance(error, hub.errors.LocalEntryNotFoundError):
        return "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else "it cannot be reached"
    if isinstance(error, hub.errors.GatedRepoError):
        return "its owner gives access on request: ask on its page, then log in"
    if isinstance(error, hub.errors.RepositoryNotFoundError):
        return "no such adapter there, or it is private"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def config_file(folder: Path) -> Path:
    """adapter_config.json of a folder.

    Raises:
        AdapterError: There is none.
    """
    file = folder / CONFIG
    if file.is_file():
        return file
    inside = sorted(f"{f.parent.name}/" for f in folder.glob(f"*/{CONFIG}"))
    if not inside:
        raise AdapterError(f"{folder}: no {CONFIG}, so this is not a LoRA adapter")
    names = ", ".join(inside[:_SHOWN]) + (", ..." if len(inside) > _SHOWN else "")
    raise AdapterError(f"{folder}: no {CONFIG} here, but in {names}: give that folder")


def weight_file(folder: Path) -> Path:
    """adapter_model.safetensors of a folder.

    Raises:
        AdapterError: There is none, or only a pickle.
    """
    file = folder / WEIGHTS
    if file.is_file():
        return file
    pickles = [name for name in PICKLES if (folder / name).is_file()]
    if not pickles:
        raise AdapterError(f"{folder}: no {WEIGHTS}; other kinds of weight file are not loaded")
    raise AdapterError(
        f"{folder}: {pickles[0]} is a pickle, which can run any program when it is opened, and is not loaded; "
        f"write it as {WEIGHTS}: workbench adapter {folder} --convert DIR"
    )
