"""Round-to-nearest packing of a dense checkpoint into the AWQ GEMM format.

Not activation-aware: it makes the embedded demo model and test checkpoints. To quantize a model of your own, use
AutoAWQ (the ``autoawq`` extra), which writes the same format.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from workbench.engines.local.awq import GROUP_SIZES, pack_codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor


def quantize(weight: Tensor, group_size: int) -> dict[str, Tensor]:
    """Quantize one weight, (N, K), to 4 bits with a scale and a zero point per group of inputs.

    Returns:
        ``qweight``, ``qzeros``, ``scales`` as in :mod:`workbench.engines.local.awq`.

    Raises:
        ValueError: N is not a multiple of 8, K not of the group size, or the group size is not supported.
    """
    n, k = weight.shape
    if group_size not in GROUP_SIZES or n % 8 or k % group_size:
        raise ValueError(f"cannot pack a {n} x {k} weight in groups of {group_size}")
    groups = weight.float().reshape(n, k // group_size, group_size)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scale = ((high - low) / 15).clamp(min=1e-5).half().float()
    zero = (-low / scale).round().clamp(0, 15)
    codes = (groups / scale[..., None] + zero[..., None]).round().clamp(0, 15)
    return {
        "qweight": pack_codes(codes.reshape(n, k).t().contiguous().to(torch.int32)),
        "qzeros": pack_codes(zero.t().contiguous().to(torch.int32)),
        "scales": scale.t().contiguous().half(),
    }


def pack_state(
    state: Mapping[str, Tensor], group_size: int, progress: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Pack every attention and MLP projection of a Llama- or Qwen2-shaped state dict; the rest becomes fp16.

    Args:
        state: Tensor name to tensor.
        group_size: 32, 64, 128 or 256.
        progress: Iterated over instead of the names, for example a progress bar around them.
    """
    packed: dict[str, Tensor] = {}
    for name in progress if progress is not None else state:
        tensor = state[name]
        if name.endswith("_proj.weight"):
            base = name.removesuffix("weight")
            packed |= {base + part: t for part, t in quantize(tensor, group_size).items()}
        else:
            packed[name] = tensor.to(torch.float16).contiguous()
    return packed


def awq_config(config: dict[str, Any], group_size: int) -> dict[str, Any]:
    """The checkpoint's config.json with the fields AutoAWQ writes."""
    config = {k: v for k, v in config.items() if k not in ("torch_dtype", "quantization_config")}
    config["dtype"] = "float16"
    config["quantization_config"] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": None,
    }
    return config


def write_config(path: Path, config: dict[str, Any], group_size: int) -> None:
    """Write config.json for a packed checkpoint."""
    path.write_text(json.dumps(awq_config(config, group_size), indent=1) + "\n", encoding="utf-8")
