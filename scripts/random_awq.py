"""Write an AWQ checkpoint of random weights in the shape of Qwen1.5-7B-Chat-AWQ, to measure speed and memory with.

It answers in gibberish; the tokenizer is the demo model's. About 5.6 GB for the full shape.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from workbench.engines.local import demo_model
from workbench.engines.local.pack import awq_config

SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rope_theta": 1e6,
}


def write(path: Path, group_size: int = 128, seed: int = 0, **changes: int) -> Path:
    """Write the checkpoint.

    Args:
        path: A folder to make.
        group_size: AWQ group size.
        seed: Of the weights.
        changes: Take the place of entries of SHAPE, for a smaller one.
    """
    path.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    config = Qwen2Config(
        **(SHAPE | changes), tie_word_embeddings=False, architectures=["Qwen2ForCausalLM"]
    )
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in skeleton.state_dict().items():
        if name.endswith("_proj.weight"):
            n, k = weight.shape
            base = name.removesuffix("weight")
            words = {"generator": generator, "dtype": torch.int32}
            tensors[f"{base}qweight"] = torch.randint(-(2**31), 2**31 - 1, (k, n // 8), **words)
            tensors[f"{base}qzeros"] = torch.full(
                (k // group_size, n // 8), 0x77777777, dtype=torch.int32
            )
            tensors[f"{base}scales"] = torch.full((k // group_size, n), 0.2 / k**0.5).half()
        elif "norm" in name:
            tensors[name] = torch.ones(weight.shape, dtype=torch.float16)
        else:
            tensors[name] = (torch.randn(weight.shape, generator=generator) * 0.02).half()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    plain = json.loads(config.to_json_string(use_diff=False))
    (path / "config.json").write_text(json.dumps(awq_config(plain, group_size), indent=1))
    AutoTokenizer.from_pretrained(demo_model.ensure()).save_pretrained(path)
    return path


def main() -> None:
    """Write it where the caller says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    args = parser.parse_args()
    if not args.path.exists():
        write(args.path)
    print(args.path)


if __name__ == "__main__":
    main()
