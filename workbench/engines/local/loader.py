"""Loading a checkpoint: which kernel, does it fit, is everything there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psutil
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from workbench.engines.base import EngineInfo
from workbench.engines.local import demo_model
from workbench.engines.local.awq import METHOD, AwqLinear
from workbench.engines.local.cache import ATTENTION
from workbench.engines.local.checkpoint import Checkpoint, file_sha256, open_checkpoint, weight_hash
from workbench.engines.local.dense import PackedLinear
from workbench.engines.local.lora import Adapters
from workbench.engines.local.quiet import quiet
from workbench.errors import (
    CorruptCheckpoint,
    EngineUnavailable,
    ModelError,
    ModelNotFound,
    OutOfMemory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

KERNELS: Final = ("auto", "int4", "fp32", "bf16")
DEVICES: Final = ("auto", "cpu", "cuda")
_ELEMENT_BYTES: Final = {"fp32": 4, "bf16": 2}
_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "int4": torch.bfloat16}
_DENSE_SHARE: Final = 0.4
"""Dequantizing on a CPU is chosen while the dense weights take at most this share of the free memory."""
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to generate.

    Attributes:
        model: The transformers model, in eval mode, weights frozen.
        tokenizer: Its tokenizer.
        info: What was loaded and how.
        eos_token_ids: Tokens that end an answer.
        adapters: The LoRA adapters in the model, none at first.
    """

    model: Any
    tokenizer: Any
    info: EngineInfo
    eos_token_ids: tuple[int, ...]
    adapters: Adapters


@dataclass(frozen=True, slots=True)
class Kernel:
    """How the matrix products are computed, and why so."""

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """Activation type."""
        return _DTYPES[self.name]


def choose_device(device: str) -> torch.device:
    """The device to run on.

    Raises:
        EngineUnavailable: There is no such device here.
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if device not in DEVICES and not (kind == "cuda" and number.isdecimal()):
        raise EngineUnavailable(f"device must be one of auto, cpu, cuda or cuda:N, got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise EngineUnavailable(
            f"device {device!r}: torch finds no CUDA device here; use cpu or auto"
        )
    if number and int(number) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise EngineUnavailable(f"device {device!r}: the last CUDA device here is cuda:{last}")
    return torch.device("cuda:0" if device == "cuda" else device)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def needed_bytes(checkpoint: Checkpoint, kernel: str, device: torch.device) -> int:
    """Memory the weights take while loading; fp32 on a CPU holds them in two layouts."""
    if kernel == "int4":
        return int(checkpoint.file_bytes * 1.15)
    copies = 2 if kernel == "fp32" and device.type == "cpu" else 1
    return int(checkpoint.n_weights * _ELEMENT_BYTES[kernel] * copies * 1.1)


def choose_kernel(checkpoint: Checkpoint, device: torch.device, kernel: str) -> Kernel:
    """The kernel to use, with the reason.

    Raises:
        EngineUnavailable: Unknown, or it does not fit the checkpoint.
    """
    dense = checkpoint.group_size is None
    allowed = [k for k in KERNELS if not (dense and k == "int4")]
    if kernel not in allowed:
        kind = "a dense checkpoint" if dense else "an AWQ checkpoint"
        raise EngineUnavailable(
            f"kernel must be one of {', '.join(allowed)} for {kind}, got {kernel!r}"
        )
    old_gpu = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    if old_gpu and kernel in ("int4", "bf16"):
        raise EngineUnavailable(
            f"kernel {kernel!r} needs a GPU of compute capability 8.0 or later; use fp32"
        )
    if kernel != "auto":
        return Kernel(kernel, "asked for")
    if device.type == "cuda":
        return _kernel_on_gpu(dense=dense, old=old_gpu)
    if dense:
        return Kernel("fp32", "dense weights; bf16 matrix products are slow on this CPU")
    need, free = needed_bytes(checkpoint, "fp32", device), free_bytes(device)
    sizes = f"{need / 2**30:.1f} GiB dequantized, {free / 2**30:.1f} GiB free"
    if need <= _DENSE_SHARE * free:
        return Kernel(
            "fp32",
            f"weights dequantized once: fastest for a batch on a CPU, and they fit ({sizes})",
        )
    return Kernel("int4", f"dequantized weights would not leave room ({sizes})")


def _kernel_on_gpu(*, dense: bool, old: bool) -> Kernel:
    if old:
        why = "the int4 and bf16 kernels need a GPU of compute capability 8.0 or later"
        return Kernel("fp32", why)
    if dense:
        return Kernel("bf16", "dense weights on a GPU")
    return Kernel("int4", "4-bit weights are read once a step, which bounds decoding on a GPU")


def load(
    model: str | Path, device: str = "auto", kernel: str = "auto", *, progress: bool = True
) -> LoadedModel:
    """Load a model for generating.

    Args:
        model: "demo", a folder, or a hub id.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        kernel: "auto", "int4", "fp32" or "bf16" (the last two dequantize once).
        progress: Show a bar while the demo model is built.

    Raises:
        ModelNotFound: No such model here, and it cannot be fetched.
        UnsupportedQuantization: Quantized in a way that is not read.
        CorruptCheckpoint: A file is missing, damaged or does not fit.
        ModelError: An architecture that cannot be used.
        OutOfMemory: The weights do not fit; the message says how much they need.
        EngineUnavailable: No such device or kernel.
    """
    target = choose_device(device)
    folder = demo_model.ensure(progress=progress) if str(model) == "demo" else model
    checkpoint = open_checkpoint(folder)
    choice = choose_kernel(checkpoint, target, kernel)
    need, free = needed_bytes(checkpoint, choice.name, target), free_bytes(target)
    if need > free:
        raise OutOfMemory(
            f"{model}: the weights need {need / 2**30:.1f} GiB with kernel {choice.name}, "
            f"{free / 2**30:.1f} GiB are free on {target}"
        )
    config = load_config(checkpoint)
    tokenizer = load_tokenizer(checkpoint)
    network = _load_network(checkpoint, config, target, choice)
    info = _info(str(model), checkpoint, (network, tokenizer), choice, target)
    return LoadedModel(
        network, tokenizer, info, _eos_ids(network, tokenizer), Adapters(network, target)
    )


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        ModelNotFound: It has none, or one without a chat template.
        CorruptCheckpoint: It cannot be read.
    """
    path = checkpoint.path
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelNotFound(f"{path}: no tokenizer files ({', '.join(_TOKENIZER_FILES)})")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
        raise CorruptCheckpoint(
            f"{path}: the tokenizer cannot be read ({_one_line(error)})"
        ) from error
    if not tokenizer.chat_template:
        raise ModelNotFound(
            f"{path}: the tokenizer has no chat template; only chat models can be used"
        )
    return tokenizer


def text_hashes(checkpoint: Checkpoint, tokenizer: Any) -> tuple[str, str]:
    """sha256 of a checkpoint's tokenizer file and of its chat template."""
    places = [checkpoint.path / name for name in _TOKENIZER_FILES]
    template = tokenizer.chat_template
    text = template if isinstance(template, str) else str(sorted(template.items()))
    file = next(place for place in places if place.is_file())
    return file_sha256(file), hashlib.sha256(text.encode()).hexdigest()


def load_config(checkpoint: Checkpoint) -> Any:
    """The transformers configuration of a checkpoint.

    Raises:
        ModelError: Not a model that generates text, or one with other than full attention.
        CorruptCheckpoint: It cannot be read.
    """
    path = checkpoint.path
    kind = checkpoint.config["model_type"]
    if kind not in CONFIG_MAPPING:
        raise ModelError(f"{path}: model_type {kind!r} is not known to transformers")
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, OSError, StrictDataclassError) as error:
        raise CorruptCheckpoint(f"{path / 'config.json'}: {_one_line(error)}") from error
    if type(config) not in AutoModelForCausalLM._model_mapping:  # noqa: SLF001 - no public name
        raise ModelError(f"{path}: {config.model_type} is not a model that generates text")
    layers = DynamicCache(config=config).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        raise ModelError(
            f"{path}: {config.model_type} has sliding-window or linear attention layers; "
            "only models with full attention in every layer can be used"
        )
    return config


def _load_network(checkpoint: Checkpoint, config: Any, device: torch.device, kernel: Kernel) -> Any:
    path = checkpoint.path
    if checkpoint.group_size is not None:
        config.quantization_config = {
            "quant_method": METHOD,
            "group_size": checkpoint.group_size,
            "modules": checkpoint.quantized_shapes,
        }
    try:
        with quiet():
            network, report = AutoModelForCausalLM.from_pretrained(
                path,
                config=config,
                dtype=kernel.dtype,
                device_map={"": device} if device.type == "cuda" else None,
                attn_implementation=ATTENTION,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are in the report, and refused below
                output_loading_info=True,
            )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(
            f"{checkpoint.name}: memory ran out on {device} while loading the weights"
        ) from error
    except (RuntimeError, ValueError, KeyError, AttributeError, SafetensorError, OSError) as error:
        raise CorruptCheckpoint(f"{path}: {_one_line(error)}") from error
    _check_complete(path, report)
    network.eval().requires_grad_(requires_grad=False)
    _apply_kernel(network, kernel)
    return network


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _check_complete(path: Path, report: dict[str, Any]) -> None:
    """Refuse what transformers would fill with random numbers, or leave out."""
    missing, unused = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    misfits = [
        f"{name} is {tuple(got)} in the file, {tuple(wanted)} by config.json"
        for name, got, wanted in sorted(report["mismatched_keys"])
    ]
    problems = {
        "weights are missing": missing,
        "shapes do not fit": misfits,
        "weights that the model of config.json has no place for": unused,
    }
    for words, items in problems.items():
        if items:
            more = f" and {len(items) - 3} more" if len(items) > 3 else ""
            raise CorruptCheckpoint(f"{path}: {words}: {', '.join(items[:3])}{more}")


def _apply_kernel(network: nn.Module, kernel: Kernel) -> None:
    for name, layer in _awq_layers(network):
        if kernel.name == "int4":
            layer.pack()
        else:
            network.set_submodule(name, layer.to_dense(kernel.dtype))
    for name, module in list(network.named_modules()):
        if PackedLinear.usable(module):
            network.set_submodule(name, PackedLinear.of(module))


def _awq_layers(network: nn.Module) -> Iterator[tuple[str, AwqLinear]]:
    yield from [(n, m) for n, m in network.named_modules() if isinstance(m, AwqLinear)]


def _eos_ids(network: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every end token that the checkpoint names, in any of its files."""
    found: set[int] = set()
    for value in (
        network.generation_config.eos_token_id,
        network.config.eos_token_id,
        tokenizer.eos_token_id,
    ):
        if value is not None:
            found.update([value] if isinstance(value, int) else value)
    return tuple(sorted(found))


def _info(
    name: str, checkpoint: Checkpoint, loaded: tuple[Any, Any], kernel: Kernel, device: torch.device
) -> EngineInfo:
    network, tokenizer = loaded
    text = network.config.get_text_config(decoder=True)
    settings = network.generation_config.to_diff_dict()
    shown = ("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    tokenizer_hash, template_hash = text_hashes(checkpoint, tokenizer)
    group = checkpoint.group_size
    return EngineInfo(
        engine="local",
        model=name,
        revision=checkpoint.revision,
        weight_hash=weight_hash(checkpoint.files, demo_model.cache_dir() / "weight-hashes.json"),
        quantization="none" if group is None else f"awq-4bit-g{group}",
        kernel=kernel.name,
        kernel_reason=kernel.reason,
        dtype=str(kernel.dtype).removeprefix("torch."),
        device=str(device),
        tokenizer_hash=tokenizer_hash,
        chat_template_hash=template_hash,
        context_length=int(text.max_position_embeddings),
        checkpoint_defaults={k: settings[k] for k in shown if k in settings},
        extra={
            "architecture": (network.config.architectures or [type(network).__name__])[0],
            "n_weights": checkpoint.n_weights,
            "threads": torch.get_num_threads(),
            "path": str(checkpoint.path),
        },
    )
