"""Where an adapter is: a folder on this machine, or a repository of the model hub, brought here first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from workbench.errors import AdapterError
from workbench.records import BASE

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
PICKLES: Final = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
"""The same weights as a pickle, which can run any program when it is opened."""

RECORD: Final = "training.json"
"""What the workbench keeps of a training; without it nobody can tell what the adapter was trained on."""
CARD: Final = "README.md"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names that an adapter may have, as in a study."""

HUB_ID: Final = re.compile(
    r"(?P<repo>[A-Za-z0-9_][\w.-]*/(?P<name>[A-Za-z0-9_][\w.-]*))"
    r"(?:@(?P<revision>\w[\w./-]*))?"
    r"(?::(?P<subfolder>\w[\w.-]*(?:/\w[\w.-]*)*))?",
    re.ASCII,
)
"""``owner/name``, and after it a revision and a folder of the repository, if they are wanted."""
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with an adapter.

    Attributes:
        folder: Where it is on this machine.
        name: What the adapter is called if nobody says otherwise.
        origin: Where it is from, if from the hub: ``owner/name@commit``, with ``:folder`` if it lies in one.
    """

    folder: Path
    name: str
    origin: str | None = None


def find(path: str | Path, *, pickles: bool = False) -> Place:
    """The folder of an adapter: a folder here, or, for text like ``owner/name``, one of the hub.

    Args:
        path: As for `workbench.adapters.read`.
        pickles: Bring weights from the hub that are a pickle, too.

    Raises:
        AdapterError: There is no such folder, and no such repository or no way to it.
    """
    try:
        folder = Path(path).expanduser()
        if folder.is_dir():
            return Place(folder.resolve(), folder.resolve().name)
        is_file = folder.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise AdapterError(f"{path}: no such folder ({error})") from error
    if is_file:
        raise AdapterError(f"{path}: a file; give the folder that holds {CONFIG} and {WEIGHTS}")
    spec = HUB_ID.fullmatch(path) if isinstance(path, str) else None
    if spec is None:
        raise AdapterError(f"{path}: no such folder")
    folder = fetch(str(path), pickles=pickles)
    inside = spec["subfolder"]
    commit = folder.parents[inside.count("/")].name if inside else folder.name
    name = inside.rsplit("/", 1)[-1] if inside else spec["name"]
    return Place(folder, name, f"{spec['repo']}@{commit}" + (f":{inside}" if inside else ""))


def fetch(spec: str, *, pickles: bool = False) -> Path:
    """Bring an adapter's files here from the model hub, or find them in its cache.

    Its configuration and weights are brought, and the record and card of its training; nothing else is downloaded.

    Args:
        spec: ``owner/name``, ``owner/name@revision`` (a branch, a tag or a commit), and after either ``:folder``.
        pickles: Bring weights that are a pickle, too.

    Returns:
        The folder, in a folder named by its commit.

    Raises:
        AdapterError: Not there, not to be had without its owner's leave, only as a pickle, or the hub is out of reach.
    """
    hub: Any = import_module("huggingface_hub")  # slow to import, seldom needed
    errors: Any = import_module("huggingface_hub.errors")
    # Its own errors are OSErrors; HTTPError is that of its client, for a connection that breaks off.
    failures = (OSError, errors.HTTPError, errors.HFValidationError)
    parts = HUB_ID.fullmatch(spec)
    if parts is None:
        raise AdapterError(
            f"{spec}: not of the form owner/name, owner/name@revision or either:folder"
        )
    repo, inside = parts["repo"], f"{parts['subfolder']}/" if parts["subfolder"] else ""
    wanted = [CONFIG, WEIGHTS, RECORD, CARD, *(PICKLES if pickles else ())]
    try:
        snapshot = hub.snapshot_download(
            repo, revision=parts["revision"], allow_patterns=[inside + name for name in wanted]
        )
    except failures as error:
        raise AdapterError(
            f"{spec}: not a folder here, and not to be had from the model hub ({_reason(error, hub)})"
        ) from error
    folder = Path(snapshot) / inside
    if pickles or not (folder / CONFIG).is_file() or (folder / WEIGHTS).is_file():
        return folder
    try:
        listed = hub.list_repo_files(repo, revision=Path(snapshot).name)
    except failures:
        return (
            folder  # out of reach: that there are no weights is told without knowing what there is
        )
    found = [name for name in PICKLES if inside + name in listed]
    if found:
        raise a_pickle(spec, found[0])
    return folder


def _reason(error: Exception, hub: Any) -> str:
    if isinstance(error, hub.errors.LocalEntryNotFoundError):
        return "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else "it cannot be reached"
    if isinstance(error, hub.errors.GatedRepoError):
        return "its owner gives access on request: ask on its page, then log in"
    if isinstance(error, hub.errors.RepositoryNotFoundError):
        return "no such adapter there, or it is private"
    if isinstance(error, hub.errors.RevisionNotFoundError):
        return "it has no such revision"
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
    raise a_pickle(folder, pickles[0])


def a_pickle(where: str | Path, name: str) -> AdapterError:
    """The error for weights that are a pickle."""
    return AdapterError(
        f"{where}: {name} is a pickle, which can run any program when it is opened, and is not loaded; "
        f"write it as {WEIGHTS}: workbench adapter {where} --convert DIR"
    )


def checked_name(name: str, what: object) -> str:
    """A name for an adapter, if it may be one.

    Args:
        name: The name.
        what: The adapter, for the message.

    Raises:
        AdapterError: A study would refuse it.
    """
    if name == BASE:
        raise AdapterError(f"{what}: the name 'base' means no adapter; give another name")
    if not NAME.fullmatch(name):
        raise AdapterError(
            f"{what}: cannot be called {name!r}; allowed: 1 to 100 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return name
