"""Adapter files: a PEFT LoRA folder read, checked to the last number, and identified by content, before any model is.

What is read: ``adapter_config.json`` and ``adapter_model.safetensors`` of a plain LoRA on linear layers, B·A·x·scale with
scale alpha/r (Hu et al. 2021) or alpha/sqrt(r) (rsLoRA, Kalajdzievski 2023). All else is refused by name. Nothing here
needs torch.
"""

from workbench.adapters.bases import base_matches, mismatch
from workbench.adapters.configs import matching
from workbench.adapters.elsewhere import export, hosted_limits
from workbench.adapters.files import (
    AdapterFile,
    Numbers,
    contents,
    describe,
    peft_fields,
    peft_key,
    read,
    same,
)
from workbench.adapters.places import CONFIG, WEIGHTS, checked_name, fetch, find

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "AdapterFile",
    "Numbers",
    "base_matches",
    "checked_name",
    "contents",
    "describe",
    "export",
    "fetch",
    "find",
    "hosted_limits",
    "matching",
    "mismatch",
    "peft_fields",
    "peft_key",
    "read",
    "same",
]
