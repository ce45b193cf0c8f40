"""Finding a checkpoint and looking at it before anything is loaded: files, headers, quantization, hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub import constants, scan_cache_dir, snapshot_download
from huggingface_hub import errors as hub_errors
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError, safe_open

from workbench.engines.local.awq import GROUP_SIZES
from workbench.errors import CorruptCheckpoint, ModelNotFound, UnsupportedQuantization

_FILES: Final = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
_CLIENT_ERROR: Final[type[Exception]] = getattr(hub_errors, "HTTPError", OSError)
"""What the hub's client raises for a connection that breaks off."""
_AWQ_VERSIONS: Final = ("gemm",)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor of a checkpoint is."""

    shape: tuple[int, ...]
    dtype: str
    file: Path


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk, checked but not loaded.

    Attributes:
        name: As the user named it.
        path: Its folder.
        revision: Commit on its hub, if it came from there.
        config: config.json.
        tensors: Every tensor by name.
        group_size: AWQ group size; None for a dense checkpoint.
    """

    name: str
    path: Path
    revision: str | None
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    group_size: int | None

    @property
    def quantized_shapes(self) -> dict[str, tuple[int, int]]:
        """Name to (inputs, outputs) of the layers stored as AWQ words."""
        words = {n: t.shape for n, t in sorted(self.tensors.items()) if n.endswith(".qweight")}
        return {n.removesuffix(".qweight"): (k, w * 8) for n, (k, w) in words.items()}

    @property
    def files(self) -> list[Path]:
        """The weight files."""
        return sorted({t.file for t in self.tensors.values()})

    @property
    def file_bytes(self) -> int:
        """Bytes of the weight files."""
        return sum(f.stat().st_size for f in self.files)

    @property
    def n_weights(self) -> int:
        """Weights of the model once dequantized."""
        return sum(_n_weights(name, tensor) for name, tensor in self.tensors.items())


def _n_weights(name: str, tensor: Tensor) -> int:
    if name.endswith((".qzeros", ".scales")):
        return 0
    size = 1
    for n in tensor.shape:
        size *= n
    return size * 8 if name.endswith(".qweight") else size


def open_checkpoint(model: str | Path) -> Checkpoint:
    """Find a checkpoint by folder or hub id, and check it.

    Raises:
        ModelNotFound: No such folder, and not on the hub or the hub is out of reach.
        CorruptCheckpoint: A file is missing, truncated or damaged.
        UnsupportedQuantization: Quantized, but not as AWQ GEMM with 4 bits and a known group size.
    """
    path, revision = _find(str(model))
    config = _read_config(path)
    tensors = _read_headers(path)
    group_size = _awq_group_size(path, config, tensors)
    return Checkpoint(str(model), path, revision, config, tensors, group_size)


def _find(model: str) -> tuple[Path, str | None]:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve(), None
    if folder.is_absolute() or model.startswith((".", "~")) or folder.exists():
        raise ModelNotFound(f"{model}: no such folder")
    try:
        found = Path(snapshot_download(model, allow_patterns=_FILES))
    except (_CLIENT_ERROR, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelNotFound(
            f"{model}: not a folder here, and not to be had from the model hub "
            f"({_hub_reason(error)}); cached models: {_cached()}"
        ) from error
    return found, found.name


def _hub_reason(error: Exception) -> str:
    if isinstance(error, LocalEntryNotFoundError):
        return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "it cannot be reached"
    if isinstance(error, GatedRepoError):
        return "its owner gives access on request: ask on its page, then log in"
    if isinstance(error, RepositoryNotFoundError):
        return "no such model there, or it is private"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _cached() -> str:
    try:
        repos = sorted(
            r.repo_id
            for r in scan_cache_dir(constants.HF_HUB_CACHE).repos
            if r.repo_type == "model"
        )
    except CacheNotFound:
        repos = []
    return ", ".join(repos) if repos else f"none in {constants.HF_HUB_CACHE}"


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise ModelNotFound(f"{path}: no config.json, so this is not a model checkpoint")
    config = _read_json(file)
    if "model_type" not in config:
        raise CorruptCheckpoint(f"{file}: has no model_type")
    # Transformers goes on without an unreadable generation_config.json, and so without its end tokens.
    for other in (path / "generation_config.json", path / "tokenizer_config.json"):
        if other.is_file():
            _read_json(other)
    return config


def _read_json(file: Path) -> dict[str, Any]:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptCheckpoint(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(fields, dict):
        raise CorruptCheckpoint(f"{file}: not a set of fields")
    return fields


def _weight_files(path: Path) -> list[Path]:
    """The weight files that transformers would read, in its order of preference."""
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise ModelNotFound(
            f"{path}: no model.safetensors and no {index.name}; other kinds of weight file are not loaded"
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [path / name for name in names]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CorruptCheckpoint(f"{index}: not a readable weight index ({error})") from error
    missing = [f.name for f in files if not f.is_file()]
    if missing:
        raise CorruptCheckpoint(
            f"{path}: {index.name} names files that are not there: {', '.join(missing)}"
        )
    return files


def _read_headers(path: Path) -> dict[str, Tensor]:
    """Names, shapes and places of all tensors; safetensors checks that each file is whole."""
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(path):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    part = opened.get_slice(name)
                    tensors[name] = Tensor(tuple(part.get_shape()), part.get_dtype(), file)
        except (SafetensorError, OSError) as error:
            raise CorruptCheckpoint(
                f"{file}: truncated or damaged ({error}); download it again"
            ) from error
    return tensors


def _awq_group_size(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> int | None:
    quantization = config.get("quantization_config")
    packed = any(name.endswith(".qweight") for name in tensors)
    if quantization is None:
        if packed:
            raise CorruptCheckpoint(
                f"{path}: has packed weights, but config.json has no quantization_config"
            )
        return None
    if not isinstance(quantization, dict):
        raise CorruptCheckpoint(
            f"{path}: quantization_config in config.json is not a set of fields"
        )
    method = str(quantization.get("quant_method", "missing"))
    allowed = "allowed: AWQ GEMM with 4 bits, or a checkpoint that is not quantized"
    if method != "awq":
        raise UnsupportedQuantization(f"{path}: quant_method is {method!r}; {allowed}")
    bits = quantization.get("bits", quantization.get("w_bit"))
    if bits != 4:
        raise UnsupportedQuantization(f"{path}: AWQ with {bits} bits; {allowed}")
    version = str(quantization.get("version", quantization.get("format", "gemm"))).lower()
    if version not in _AWQ_VERSIONS:
        raise UnsupportedQuantization(f"{path}: AWQ version {version!r}; {allowed}")
    if quantization.get("zero_point", True) is not True:
        raise UnsupportedQuantization(f"{path}: AWQ without zero points; {allowed}")
    group_size = quantization.get("group_size", quantization.get("q_group_size"))
    if group_size not in GROUP_SIZES:
        sizes = ", ".join(map(str, GROUP_SIZES))
        raise UnsupportedQuantization(f"{path}: AWQ group size {group_size}; allowed: {sizes}")
    if not packed:
        raise CorruptCheckpoint(f"{path}: config.json says AWQ, but no tensor is packed")
    _check_shapes(path, tensors, group_size)
    return int(group_size)


def _check_shapes(path: Path, tensors: dict[str, Tensor], group_size: int) -> None:
    for name in [n.removesuffix(".qweight") for n in tensors if n.endswith(".qweight")]:
        packed = tensors[f"{name}.qweight"]
        if packed.dtype != "I32" or len(packed.shape) != 2:
            raise CorruptCheckpoint(
                f"{path}: {name}.qweight is {packed.dtype} {packed.shape}, not a table of int32 words"
            )
        k, words = packed.shape
        if k % group_size:
            raise CorruptCheckpoint(
                f"{path}: {name} has {k} inputs, which group size {group_size} does not divide"
            )
        wanted = {"qzeros": (k // group_size, words), "scales": (k // group_size, words * 8)}
        for part, shape in wanted.items():
            got = tensors.get(f"{name}.{part}")
            if got is None:
                raise CorruptCheckpoint(f"{path}: {name}.{part} is missing")
            if got.shape != shape:
                raise CorruptCheckpoint(
                    f"{path}: {name}.{part} has shape {got.shape}, but group size {group_size} needs {shape}"
                )


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_memo(memo: Path) -> dict[str, str]:
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def weight_hash(files: list[Path], memo: Path) -> str:
    """sha256 over the sha256 of every weight file, remembered in ``memo`` by name, size and time of change."""
    known = _read_memo(memo)
    keys = {f: f"{f.resolve()}|{f.stat().st_size}|{f.stat().st_mtime_ns}" for f in files}
    if not all(key in known for key in keys.values()):
        known |= {key: file_sha256(f) for f, key in keys.items() if key not in known}
        with contextlib.suppress(OSError):  # it only saves time
            memo.parent.mkdir(parents=True, exist_ok=True)
            temporary = memo.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
            temporary.replace(memo)
    lines = "".join(f"{f.name} {known[key]}\n" for f, key in sorted(keys.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
