"""The base model of a training: what tells it from others, and how it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import AdapterError, EngineUnavailable, ModelError, ParamError

if TYPE_CHECKING:
    from workbench.engines.base import EngineInfo
    from workbench.engines.local.checkpoint import Checkpoint

AUTO: Final = "auto"
_ROOM: Final = 0.7
"""Dense weights may take this share of the free memory of a CPU; the rest is for training."""


def check_model(model: Any, device: str, kernel: str) -> None:
    """Refuse what cannot be trained on.

    Raises:
        ModelError: Neither a name, a folder nor a local engine.
        ParamError: An engine, whose device and kernel are settled, with another one asked for.
    """
    from workbench.engines.local.engine import LocalEngine  # noqa: PLC0415 - heavy

    if isinstance(model, str | Path):
        return
    if not isinstance(model, LocalEngine):
        raise ModelError(f"model must be a name, a folder, or a local engine, got {model!r}")
    for name, value in (("device", device), ("kernel", kernel)):
        if value != AUTO:
            raise ParamError(name, "'auto' where an engine is given, which has its own", value)


def identity(model: Any, *, progress: bool) -> dict[str, str | None]:
    """Hashes of all of the base model that a training depends on, told without loading its weights.

    Args:
        model: A name, a folder, or a local engine.
        progress: Show a bar while the demo model is built.

    Raises:
        ModelError: There is no such model, or it cannot be read.
    """
    if not isinstance(model, str | Path):
        info: EngineInfo = model.info
        found = (info.weight_hash, info.tokenizer_hash, info.chat_template_hash)
    else:
        from workbench.engines.local import demo_model, loader  # noqa: PLC0415 - heavy
        from workbench.engines.local.checkpoint import weight_hash  # noqa: PLC0415

        checkpoint = _checkpoint(model, progress=progress)
        memo = demo_model.cache_dir() / "weight-hashes.json"
        texts = loader.text_hashes(checkpoint, loader.load_tokenizer(checkpoint))
        found = (weight_hash(checkpoint.files, memo), *texts)
    return dict(zip(("base", "tokenizer", "chat_template"), found, strict=True))


def _checkpoint(model: str | Path, *, progress: bool) -> Checkpoint:
    from workbench.engines.local import demo_model  # noqa: PLC0415 - heavy
    from workbench.engines.local.checkpoint import open_checkpoint  # noqa: PLC0415

    return open_checkpoint(demo_model.ensure(progress=progress) if str(model) == "demo" else model)


def opened(model: Any, device: str, kernel: str, *, progress: bool) -> tuple[Any, str]:
    """The model to train on, and why with this kernel, if there is something to say.

    On a CPU "auto" is fp32 where the memory allows, also where an engine that only generates would take int4: in training
    every step back through a layer dequantizes its weights anew.

    Args:
        model: A name, a folder, or a local engine.
        device: "auto", "cpu" or "cuda".
        kernel: "auto", "int4", "fp32" or "bf16".
        progress: Show a bar while the demo model is built.

    Returns:
        An object with ``model``, ``tokenizer``, ``info`` and ``eos_token_ids``; a reason, or "".

    Raises:
        ModelError, EngineError: It cannot be loaded.
        EngineUnavailable: The model is on a GPU other than the first.
        AdapterError: The engine has adapters.
    """
    from workbench.engines.local.loader import choose_device, free_bytes, load, needed_bytes  # noqa: PLC0415 - heavy

    reason = ""
    if isinstance(model, str | Path):
        target = choose_device(device)
        if kernel == AUTO and target.type == "cpu":
            checkpoint = _checkpoint(model, progress=progress)
            if needed_bytes(checkpoint, "fp32", target) <= _ROOM * free_bytes(target):
                kernel = "fp32"
                if checkpoint.group_size is not None:
                    reason = "on a CPU it trains several times faster than int4"
        loaded = load(model, device=device, kernel=kernel, progress=progress)
    else:
        if model.adapters:
            names = ", ".join(model.adapters)
            raise AdapterError(f"the engine has adapters ({names}); unload them before training")
        loaded = model._model  # noqa: SLF001 - an engine has no public name for it
    place = loaded.info.device
    if place.startswith("cuda") and place not in ("cuda", "cuda:0"):
        raise EngineUnavailable(
            f"training runs on the first GPU it sees, not on {place}: set CUDA_VISIBLE_DEVICES to choose one"
        )
    return loaded, reason


def as_begun(out: Path, begun: dict[str, Any]) -> tuple[str, str]:
    """Device and kernel to go on with.

    Args:
        out: The adapter's folder, for the message.
        begun: ``identity`` of its record.

    Raises:
        EngineUnavailable: The device is not here.
    """
    from workbench.engines.local.loader import choose_device  # noqa: PLC0415 - heavy

    device, kernel = begun["device"], begun["kernel"]
    try:
        choose_device(device)
    except EngineUnavailable as error:
        raise EngineUnavailable(
            f"{out}: training began on {device}, which is not here; go on where it is, or give another folder"
        ) from error
    return device, kernel
