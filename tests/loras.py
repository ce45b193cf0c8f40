"""LoRA adapters written without torch: folders as PEFT saves them, sound or damaged on purpose."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PREFIX = "base_model.model."
CONFIG: dict[str, Any] = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "some/base",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_dropout": 0.0,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "rank_pattern": {},
    "revision": None,
    "task_type": "CAUSAL_LM",
    "use_dora": False,
    "use_rslora": False,
}
"""What PEFT writes beside r, lora_alpha and target_modules."""

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


def modules_of(
    shape: Mapping[str, Any],
    targets: Sequence[str] = ("q_proj", "v_proj"),
    layers: Sequence[int] | None = None,
) -> dict[str, tuple[int, int]]:
    """Modules of a Llama- or Qwen2-like decoder, name to (inputs, outputs).

    Args:
        shape: Fields of its config.json, or ``checkpoints.SHAPE`` for the tiny test checkpoints.
        targets: Which ones, of ATTENTION and MLP.
        layers: Of which layers; all by default.
    """
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    heads = shape["num_attention_heads"]
    head = shape.get("head_dim") or hidden // heads
    narrow = head * shape.get("num_key_value_heads", heads)
    sizes = {
        "q_proj": (hidden, head * heads),
        "k_proj": (hidden, narrow),
        "v_proj": (hidden, narrow),
        "o_proj": (head * heads, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }
    return {
        f"model.layers.{i}.{'self_attn' if name in ATTENTION else 'mlp'}.{name}": sizes[name]
        for i in (range(shape["num_hidden_layers"]) if layers is None else layers)
        for name in targets
    }


def encode(values: np.ndarray, dtype: str) -> bytes:
    """Numbers as a safetensors dtype; BF16 rounded to nearest even, nan and inf kept."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, "<f4").view("<u4")
        finite = np.isfinite(values)
        rounded = bits + ((bits >> 16) & 1) + np.uint32(0x7FFF)
        return (np.where(finite, rounded, bits) >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).tobytes()


def write_tensors(
    file: Path, tensors: Mapping[str, np.ndarray], dtype: str | Mapping[str, str] = "F32"
) -> Path:
    """Write a safetensors file; ``dtype`` for all tensors, or by name."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, values in tensors.items():
        kind = dtype if isinstance(dtype, str) else dtype.get(name, "F32")
        piece = encode(values, kind)
        places = [len(data), len(data) + len(piece)]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": places}
        data += piece
    return write_raw(file, header, bytes(data))


def write_raw(file: Path, header: Mapping[str, Any], data: bytes) -> Path:
    """Write a safetensors file with this header, true or not."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


def ab(
    modules: Mapping[str, tuple[int, int]],
    r: int = 8,
    *,
    seed: int = 0,
    scale: float = 1.0,
    zero_b: bool = False,
    ranks: Mapping[str, int] | None = None,
    key: str = PREFIX + "{module}.lora_{part}.weight",
) -> dict[str, np.ndarray]:
    """A (rank, inputs) and B (outputs, rank) of every module, by key, float32.

    A has variance 1/inputs and B variance scale²/rank, so that B·A·x is about ``scale`` times as large as x.
    """
    rng = np.random.default_rng(seed)
    tensors = {}
    for module, (k, n) in modules.items():
        rank = (ranks or {}).get(module, r)
        a = rng.standard_normal((rank, k)) / math.sqrt(k)
        b = rng.standard_normal((n, rank)) * (0.0 if zero_b else scale / math.sqrt(rank))
        for part, values in (("A", a), ("B", b)):
            tensors[key.format(module=module, part=part)] = values.astype(np.float32)
    return tensors


def write_config(folder: Path, fields: Mapping[str, Any]) -> Path:
    """Write adapter_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(fields, indent=2), encoding="utf-8")
    return file


def change_config(folder: Path, **fields: Any) -> Path:
    """Change fields of adapter_config.json; the folder."""
    file = folder / "adapter_config.json"
    write_config(folder, json.loads(file.read_text(encoding="utf-8")) | fields)
    return folder


def write_adapter(
    folder: Path,
    *,
    modules: Mapping[str, tuple[int, int]],
    r: int = 8,
    alpha: float = 16,
    seed: int = 0,
    scale: float = 1.0,
    dtype: str = "F32",
    config: Mapping[str, Any] | None = None,
    zero_b: bool = False,
    ranks: Mapping[str, int] | None = None,
    key: str = PREFIX + "{module}.lora_{part}.weight",
) -> Path:
    """Write a LoRA adapter folder as PEFT does, without torch.

    Args:
        folder: Made if needed.
        modules: Name in the base to (inputs, outputs); see `modules_of`.
        r: Rank.
        alpha: lora_alpha; the scale of B·A·x is alpha/r.
        seed: Of the random A and B.
        scale: How large B·A·x is beside x, before alpha/r.
        dtype: "F32", "F16" or "BF16".
        config: Fields of adapter_config.json to add or change.
        zero_b: B of zeros: an adapter that changes nothing.
        ranks: Module to rank where it is not ``r``; put into rank_pattern.
        key: How a tensor's name is made from ``{module}`` and ``{part}``.

    Returns:
        The folder.
    """
    fields = CONFIG | {
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": dict(ranks or {}),
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in modules}),
    }
    write_config(folder, fields | dict(config or {}))
    tensors = ab(modules, r, seed=seed, scale=scale, zero_b=zero_b, ranks=ranks, key=key)
    write_tensors(folder / "adapter_model.safetensors", tensors, dtype)
    return folder


def write_tiny(folder: Path, targets: Sequence[str] = ("q_proj", "v_proj"), **options: Any) -> Path:
    """An adapter of the tiny test checkpoints (``checkpoints.make_dense``); options as `write_adapter`."""
    from checkpoints import SHAPE

    return write_adapter(folder, modules=modules_of(SHAPE, targets), **options)
