"""Tiny random checkpoints, dense and packed, with a real tokenizer: for what the demo model cannot show."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from workbench.engines.local.pack import pack_state, write_config

if TYPE_CHECKING:
    from pathlib import Path

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
)
SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 49152,
    "max_position_embeddings": 256,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 2,
}


def make_dense(
    path: Path, tokenizer_from: Path, kind: str = "llama", *, tied: bool = True, seed: int = 0
) -> Path:
    """Write a random dense checkpoint; "llama" without and "qwen2" with biases on q, k, v."""
    torch.manual_seed(seed)
    config_class = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind]
    config = config_class(**SHAPE, tie_word_embeddings=tied, dtype="float32")
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(path)
    copy_tokenizer(tokenizer_from, path)
    return path


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, target / name)


def pack(dense: Path, path: Path, group_size: int) -> Path:
    """Pack a dense checkpoint to AWQ."""
    path.mkdir()
    state = pack_state(load_file(dense / "model.safetensors"), group_size)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    write_config(path / "config.json", json.loads((dense / "config.json").read_text()), group_size)
    copy_tokenizer(dense, path)
    return path
