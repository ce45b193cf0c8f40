"""A package ``awq`` that rounds to nearest: the same classes and calls as AutoAWQ 0.2.9, without its search.

For what goes on around AutoAWQ where it is not installed. ``write(folder)`` makes the package; with the folder on the path,
the process that quantizes imports it in AutoAWQ's place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

QUANTIZER = """
import torch
from workbench.engines.local.pack import quantize


class Packed(torch.nn.Module):
    def __init__(self, linear, group_size):
        super().__init__()
        for name, tensor in quantize(linear.weight.data, group_size).items():
            self.register_buffer(name, tensor)
        if linear.bias is not None:
            self.register_buffer("bias", linear.bias.data.half())


class AwqQuantizer:
    def __init__(self, awq_model, model, tokenizer, w_bit, group_size, zero_point, version, calib_data, split,
                 text_column, duo_scaling, **options):
        assert (w_bit, zero_point, version) == (4, True, "gemm")
        assert len({len(block) for block in calib_data}) == 1
        assert len(calib_data[0]) == options["max_calib_seq_len"]
        assert len(calib_data) == options["max_calib_samples"]
        self.model, self.layers, self.group_size = model, awq_model.get_model_layers(model), group_size

    def quantize(self):
        for layer in self.layers:
            found = [(n, m) for n, m in layer.named_modules() if isinstance(m, torch.nn.Linear)]
            self._apply_quant(layer, dict(found))

    def _apply_quant(self, module, named_linears):
        for name, linear in named_linears.items():
            module.set_submodule(name, Packed(linear, self.group_size))
"""
AUTO = """
print("this library prints on standard output")


class Family:
    def __init__(self, model, model_type, is_quantized, config, quant_config, processor):
        self.model = model

    @staticmethod
    def get_model_layers(model):
        return model.model.layers

    def quantize(self, tokenizer, quant_config, calib_data, quantizer_cls, **options):
        quantizer_cls(
            self, self.model, tokenizer, quant_config["w_bit"], quant_config["q_group_size"],
            quant_config["zero_point"], quant_config["version"], calib_data, "train", "text", True, **options
        ).quantize()


AWQ_CAUSAL_LM_MODEL_MAP = {"llama": Family, "qwen2": Family}
"""


def write(folder: Path) -> Path:
    """Write the package; returns the folder to put on the path."""
    for name, text in (("quantize/quantizer.py", QUANTIZER), ("models/auto.py", AUTO)):
        file = folder / "awq" / name
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
        (file.parent / "__init__.py").write_text("", encoding="utf-8")
    (folder / "awq" / "__init__.py").write_text("", encoding="utf-8")
    return folder
