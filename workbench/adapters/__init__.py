"""Adapter files: a PEFT LoRA folder read, checked to the last number, and identified by content, before any model is.

What is read: ``adapter_config.json`` and ``adapter_model.safetensors`` of a plain LoRA on linear layers, B·A·x·scale with
scale alpha/r (Hu et al. 2021) or alpha/sqrt(r) (rsLoRA, Kalajdzievski 2023). All else is refused by name. Nothing here
needs torch.
"""

from workbench.adapters.elsewhere import export, hosted_limits
from workbench.adapters.files import (
    AdapterFile,
    describe,
    peft_fields,
    peft_key,
    read,
    same,
)
from workbench.adapters.places import CONFIG, WEIGHTS, fetch

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "AdapterFile",
    "describe",
    "export",
    "fetch",
    "hosted_limits",
    "peft_fields",
    "peft_key",
    "read",
    "same",
]
