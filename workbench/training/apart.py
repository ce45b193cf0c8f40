"""Training leaves no trace: whatever the libraries set in this process is as it was before."""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from workbench.engines.local.quiet import quiet
from workbench.errors import ModelError, ParamError
from workbench.training.settings import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.training.settings import Settings

_SPREAD: Final = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK")
"""Variables by which a process is told that it is one of several that train together."""


@contextlib.contextmanager
def apart(seed: int) -> Iterator[None]:
    """Inside, all random numbers come from a seed, and libraries are quiet; afterwards the process is as before.

    Nor do variables of the environment act that tell accelerate how to train (mixed precision, steps to add up, several
    processes): all that changes an adapter is in its record.

    As before are the generators of Python, NumPy and torch, environment variables, the number of threads, filters of warnings,
    the verbosity of transformers, and the state that accelerate shares among all its users.
    """
    environment, threads = dict(os.environ), torch.get_num_threads()
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - the libraries use it
    fresh = not PartialState._shared_state  # noqa: SLF001 - no public name
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = range(torch.cuda.device_count()) if begun else ()
    try:
        with torch.random.fork_rng(gpus), warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            for name in list(os.environ):
                if name.startswith("ACCELERATE_") or name in _SPREAD:
                    del os.environ[name]
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002 - as above
        torch.set_num_threads(threads)
        _restore(environment)
        if fresh:
            AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - as above
            GradientState._reset_state()  # noqa: SLF001 - as above


def _restore(environment: dict[str, str]) -> None:
    for name in [n for n in os.environ if n not in environment]:
        del os.environ[name]
    os.environ.update(environment)


@contextlib.contextmanager
def with_lora(model: Any, settings: Settings, base: str) -> Iterator[Any]:
    """The model with fresh LoRA layers as a PEFT model; afterwards it is the plain model again.

    Args:
        model: A transformers model, all frozen.
        settings: Rank, alpha, targets, dropout.
        base: What the adapter's files name as their base.

    Raises:
        ParamError: There are no layers of these names, or the model cannot compute activations again.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=_plain(settings.alpha),
        use_rslora=settings.rslora,
        lora_dropout=settings.dropout,
        target_modules=target_names(model, settings),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
    if settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise ParamError("gradient_checkpointing", "false for this kind of model", True)
    use_cache, training = model.config.use_cache, model.training
    try:
        adapted = get_peft_model(model, config)
        adapted.peft_config["default"].base_model_name_or_path = base
        yield adapted
    finally:
        for name, module in list(model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                model.set_submodule(name, module.get_base_layer())
        if hasattr(model, "peft_config"):
            del model.peft_config
        if model.is_activation_checkpointing:
            model.activation_checkpointing_disable()
            model.disable_input_require_grads()
        model.config.use_cache = use_cache
        model.train(training)


def _plain(number: float) -> float:
    """A whole number without its point, as files elsewhere have it."""
    return int(number) if number == int(number) else number


def target_names(model: Any, settings: Settings) -> list[str]:
    """Last parts of the names of the layers that get an adapter.

    Raises:
        ParamError: There are no layers of these names.
        ModelError: There are no linear layers at all.
    """
    output = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    }
    if not names:
        raise ModelError(
            f"{type(model).__name__} has no plain linear layers, and adapters are trained on those alone"
        )
    if settings.targets == ALL:
        return sorted(names)
    lost = sorted(set(settings.targets) - names)
    if lost:
        raise ParamError(
            "targets", f"'all', or of {', '.join(sorted(names))}", ", ".join(settings.targets)
        )
    return sorted(settings.targets)
