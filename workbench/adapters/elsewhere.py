"""An adapter for use elsewhere: a folder as PEFT and vLLM read it, and the limits it would meet there."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any, Final

from workbench.adapters import weights
from workbench.adapters.bases import QUANTIZED, is_local
from workbench.adapters.configs import Scaling
from workbench.adapters.files import contents, peft_key, read, same
from workbench.adapters.places import CARD, CONFIG, RECORD, WEIGHTS
from workbench.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workbench.adapters.files import AdapterFile

HOSTED_RANK: Final = 8
HOSTED_RANK_MOST: Final = 32
HOSTED_BYTES: Final = 300_000_000
HOSTED_TYPES: Final = ("mistral", "gemma", "llama")
HOSTED_OWN_NAMES: Final = "cf-public-"
VLLM_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
VLLM_RANK: Final = 16
VLLM_MODULES: Final = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"),
    *("gate_proj", "up_proj", "down_proj", "gate_up_proj", "lm_head"),
)
"""Linear layers of Llama- and Qwen2-like models by the names that vLLM knows."""


def export(
    file: AdapterFile, out: Path, *, model_type: str | None = None, base: str | None = None
) -> Path:
    """Write an adapter's two files, named as PEFT, vLLM and the hosted service want them.

    The weights are copied byte by byte; only keys that PEFT would write otherwise are renamed. The record and the card of
    its training go along: without the record nobody can tell what it was trained on.

    Args:
        file: The adapter.
        out: The folder to write, made if needed. A file that is there already must be the same.
        model_type: Added to adapter_config.json, for the hosted service (see `hosted_limits`).
        base: Takes the place of the base that adapter_config.json names (base_model_name_or_path).

    Returns:
        The folder.

    Raises:
        AdapterError: The adapter has changed since it was read, or other files are in the way.
    """
    if not same(read(file.path), file):
        raise AdapterError(f"{file.path}: has changed since it was read; read it again")
    config = file.config | ({"model_type": model_type} if model_type else {})
    config |= {"base_model_name_or_path": base} if base else {}
    text = json.dumps(config, indent=2) + "\n"  # in its order, which of patterns counts
    files = {CONFIG: text.encode(), WEIGHTS: _with_peft_keys(contents(file)[0])}
    try:
        along = [file.path / name for name in (RECORD, CARD)]
        files |= {found.name: found.read_bytes() for found in along if found.is_file()}
        for name, content in files.items():
            if (out / name).exists() and (out / name).read_bytes() != content:
                raise AdapterError(f"{out / name}: there already, and not the same; not written")
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write(out / name, content)
    except OSError as error:
        raise AdapterError(f"{out}: cannot be written ({error})") from error
    return out


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    half = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        half.write_bytes(content)
        half.replace(file)
    finally:
        half.unlink(missing_ok=True)


def _with_peft_keys(content: bytes) -> bytes:
    """A weight file with every key as PEFT writes it; the same bytes if they are so already."""
    header, start = weights.read_header(io.BytesIO(content))
    renamed = {key if key == "__metadata__" else peft_key(key): v for key, v in header.items()}
    if renamed == header:
        return content
    text = json.dumps(renamed, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[start:]


def hosted_limits(file: AdapterFile, *, name: str | None = None) -> tuple[str, ...]:
    """What would be refused or go wrong elsewhere, a sentence each; nothing is enforced here.

    Args:
        file: The adapter.
        name: The name it would have on the hosted service, if that is to be checked too.

    Returns:
        Sentences that begin with "Workers AI", "vLLM" or "PEFT"; none if all is well. The limits are those published in
        2026.
    """
    return (*_hosted(file, name), *_vllm(file), *_peft(file))


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _hosted(file: AdapterFile, name: str | None) -> list[str]:
    said = []
    if file.rank > HOSTED_RANK_MOST:
        said.append(f"takes ranks to {HOSTED_RANK_MOST}, and this is {file.rank}")
    elif file.rank > HOSTED_RANK:
        said.append(
            f"takes rank {file.rank} for some models only; to {HOSTED_RANK} for every model with LoRA"
        )
    if file.n_bytes >= HOSTED_BYTES:
        said.append(f"takes files below 300 MB, and {WEIGHTS} has {file.n_bytes / 1e6:.0f} MB")
    kind: Any = file.config.get("model_type")
    if kind not in HOSTED_TYPES:
        got = "has none" if kind is None else f"says {kind!r}"
        said.append(f"wants model_type {_or(HOSTED_TYPES)} in {CONFIG}, which {got}")
    if file.base and QUANTIZED.search(file.base):
        said.append(f"takes adapters of bases that are not quantized, and this records {file.base}")
    if name is not None and name.startswith(HOSTED_OWN_NAMES):
        said.append(
            f"keeps names that begin with {HOSTED_OWN_NAMES} for itself, and this is {name}"
        )
    return [f"Workers AI {text}." for text in said]


def _vllm(file: AdapterFile) -> list[str]:
    said = []
    if file.rank > VLLM_RANKS[-1]:
        said.append(f"takes ranks to {VLLM_RANKS[-1]}, and this is {file.rank}")
    elif file.rank > VLLM_RANK:
        fits = next(rank for rank in VLLM_RANKS if rank >= file.rank)
        said.append(
            f"takes ranks to {VLLM_RANK} unless started with --max-lora-rank {fits}; this is {file.rank}"
        )
    scaling = Scaling.of(file.config, file.path / CONFIG)
    plain = scaling.scale(scaling.alpha, scaling.r)
    wrong = sum(scale != plain for scale in file.scales.values())
    if wrong:
        said.append(
            "scales every module by lora_alpha and r alone, not by rank_pattern and alpha_pattern: "
            f"{wrong} of {len(file.shapes)} modules would have the wrong scale"
        )
    strange = [target for target in file.targets if target not in VLLM_MODULES]
    if strange:
        said.append(f"may not know the modules {', '.join(strange)}: it depends on the model")
    return [f"vLLM {text}." for text in said]


def _peft(file: AdapterFile) -> list[str]:
    if file.base is None or not is_local(file.base):
        return []
    said = (
        f"PEFT loads the base that {CONFIG} names, and {file.base} is known on this machine only; "
        "write the base's id on the hub with --base."
    )
    return [said]
