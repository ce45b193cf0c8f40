"""adapter_config.json: which kinds of adapter run here, and rank and alpha of each module.

The fields are those of ``peft.LoraConfig`` 0.21. A field that makes an adapter compute anything but B·A·x·scale is refused
by name, and so is a field that is not known here: it may change what the adapter computes.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

ALLOWED: Final = (
    "allowed: LoRA with A and B on linear layers (rsLoRA, rank_pattern and alpha_pattern too)"
)

KINDS: Final = {
    "use_dora": "DoRA",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
    "layer_replication": "replicated layers",
    "target_parameters": "LoRA on bare parameters",
    "trainable_token_indices": "trained token embeddings",
    "modules_to_save": "whole modules trained along",
    "lora_bias": "a bias on B",
    "megatron_config": "Megatron's layers",
    "fan_in_fan_out": "transposed weights",
}
"""Fields that name another kind of adapter when they are set."""

NESTED: Final = frozenset(
    {"use_bdlora", "arrow_config", "kasa_config", "monteclora_config", "velora_config"}
)
"""Of these, the ones whose value is a set of fields: an empty set turns the kind on, with its defaults."""

PLAIN: Final = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "corda_config",  # what the start was made with; the start itself is init_lora_weights
        "ensure_weight_tying",  # of embeddings, whose tensors are refused
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "model_type",  # the hosted service wanted it
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
"""Fields that may have any value, or are looked at one by one."""

STARTS: Final = ("gaussian", "eva", "orthogonal", "mica")
"""How A and B may have started, beside true and false: the base stays as it is."""

ALTERED: Final = {
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "corda": "CorDA",
    "lora_ga": "LoRA-GA",
    "loftq": "LoftQ",
}
"""Starts that take something out of the base's weights; PEFT adds to the name, as in "pissa_niter_16"."""

_PATTERN_SECONDS: Final = 1.0
_PLAIN_NAME: Final = re.compile(r"[\w.]+", re.ASCII)
"""Layers go by such names; PEFT would take an expression."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the configuration says of rank and scale.

    Attributes:
        r: Rank where rank_pattern names none, 1 or more.
        alpha: lora_alpha where alpha_pattern names none.
        rslora: Whether the scale is alpha/sqrt(rank) rather than alpha/rank.
        rank_pattern: Module name, its end, or an expression for it, to rank; the first that matches counts.
        alpha_pattern: The same for alpha.
        where: The file it is from, for messages.
    """

    r: int
    alpha: float
    rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    where: Path

    @classmethod
    def of(cls, config: Mapping[str, Any], where: Path) -> Scaling:
        """Rank and scale of a configuration that `read_config` has checked; missing patterns are empty."""
        return cls(
            config["r"],
            config["lora_alpha"],
            bool(config.get("use_rslora")),
            config.get("rank_pattern") or {},
            config.get("alpha_pattern") or {},
            where,
        )

    def rank_of(self, module: str) -> int:
        """Rank that a module should have.

        Raises:
            AdapterError: A pattern is no regular expression, or one that does not come to an end.
        """
        return int(self._matching(self.rank_pattern, module, self.r))

    def alpha_of(self, module: str) -> float:
        """Alpha of a module; raises as rank_of."""
        return self._matching(self.alpha_pattern, module, self.alpha)

    def scale(self, alpha: float, rank: int) -> float:
        """What B·A·x is multiplied by: alpha/rank, or alpha/sqrt(rank) with rsLoRA."""
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    def _matching(self, pattern: Mapping[str, float], module: str, otherwise: float) -> float:
        """The value of the first expression that matches a module's name or its end, as PEFT looks it up."""
        for key, value in pattern.items():
            if _search("match", rf"(.*\.)?({key})$", module, key, self.where):
                return value
        return pattern.get(module, otherwise)


def matching(pattern: str, names: Iterable[str], where: Path) -> list[str]:
    """Those names that an expression matches from end to end, as target_modules and exclude_modules do.

    Raises:
        AdapterError: The expression does not come to an end; ``where`` is named.
    """
    return [name for name in names if _search("fullmatch", pattern, name, pattern, where)]


def _search(how: str, expression: str, name: str, said: str, where: Path) -> bool:
    """Whether an expression is found in a name; with a limit of time, which the standard library has not."""
    import regex  # noqa: PLC0415 - only expressions need it

    try:
        return getattr(regex, how)(expression, name, timeout=_PATTERN_SECONDS) is not None
    except (regex.error, TimeoutError) as error:
        raise AdapterError(f"{where}: the pattern {said!r} cannot be used ({error})") from error


def read_config(file: Path) -> dict[str, Any]:
    """adapter_config.json, its kind and numbers checked.

    Raises:
        AdapterError: Not readable, of a kind that does not run here, or with fields that are no rank or alpha.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{file}: not a set of fields")
    kinds, advice = _other_kinds(config)
    if kinds:
        raise AdapterError(f"{file}: does not run here: {', '.join(kinds)}; {ALLOWED}{advice}")
    wrong = _wrong_numbers(config) + _wrong_targets(config)
    if wrong:
        raise AdapterError(f"{file}: {'; '.join(wrong)}")
    for field in ("target_modules", "exclude_modules"):
        if isinstance(config.get(field), str):
            matching(config[field], [""], file)
    return config


def _other_kinds(config: dict[str, Any]) -> tuple[list[str], str]:
    """What the configuration asks for that is not plain LoRA, and what to do about it."""
    kind = config.get("peft_type")
    if kind != "LORA":
        return ["peft_type is missing" if kind is None else f"peft_type {kind!r}"], ""
    found = [
        f"{name} ({_shown(field, config[field])})"
        for field, name in KINDS.items()
        if config.get(field) or (field in NESTED and config.get(field) == {})
    ]
    if config.get("bias") not in (None, "none"):
        found.append(f"biases trained along (bias is {config['bias']!r})")
    start = config.get("init_lora_weights")
    advice = ""
    if isinstance(start, str) and start not in STARTS:
        name = next((n for k, n in ALTERED.items() if start.lower().startswith(k)), None)
        found.append(f"{name or 'an unknown start'} (init_lora_weights is {start!r})")
        advice = _advice(name)
    elif start is not None and not isinstance(start, bool | str):
        found.append(f"an unknown start (init_lora_weights is {start!r})")
    known = PLAIN | KINDS.keys()
    strange = sorted(field for field, value in config.items() if value and field not in known)
    found += [f"the unknown field {field!r} (made by a newer PEFT?)" for field in strange]
    return found, advice


def _shown(field: str, value: object) -> str:
    """A field, with its value where that is a list of names."""
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return f"{field}: {', '.join(value)}"
    return field


def _advice(name: str | None) -> str:
    """How an adapter that started from altered weights must be saved to fit the base as it is."""
    if name is None:
        return ""
    altered = f". {name} alters the base, and this file fits only the altered base"
    if name == "LoftQ":
        return f"{altered}; train with init_lora_weights=True on the base you will run"
    return (
        f"{altered}; save it with save_pretrained(path_initial_model_for_weight_conversion=the adapter before training), "
        "which writes a plain LoRA of twice the rank"
    )


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_alpha(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _wrong_numbers(config: dict[str, Any]) -> list[str]:
    """What is wrong with the fields that Scaling takes."""
    rules = (
        ("r", "rank_pattern", _is_rank, "a whole number, 1 or more"),
        ("lora_alpha", "alpha_pattern", _is_alpha, "a number"),
    )
    wrong = []
    for field, pattern, right, allowed in rules:
        if field not in config:
            wrong.append(f"has no {field}")
        elif not right(config[field]):
            wrong.append(f"{field} must be {allowed}, got {config[field]!r}")
        by_module = config.get(pattern) or {}
        if not isinstance(by_module, dict):
            wrong.append(f"{pattern} must be a set of fields, got {by_module!r}")
            continue
        wrong += [
            f"{pattern} of {name!r} must be {allowed}, got {value!r}"
            for name, value in by_module.items()
            if not right(value)
        ]
    if not isinstance(config.get("use_rslora"), bool | None):
        wrong.append(f"use_rslora must be true or false, got {config['use_rslora']!r}")
    return wrong


def _is_layer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_plain_name(value: object) -> bool:
    return isinstance(value, str) and _PLAIN_NAME.fullmatch(value) is not None


def _wrong_targets(config: dict[str, Any]) -> list[str]:
    """What is wrong with the fields that say which layers change: PEFT takes them as they come."""
    rules: tuple[tuple[str, Callable[[object], bool], str], ...] = (
        ("target_modules", lambda v: isinstance(v, str), "a text or a list of texts"),
        ("exclude_modules", lambda v: isinstance(v, str), "a text or a list of texts"),
        ("layers_to_transform", _is_layer, "a whole number, 0 or more, or a list of these"),
        ("layers_pattern", _is_plain_name, "a name such as 'layers', or a list of these"),
    )
    wrong = []
    for field, right, allowed in rules:
        value = config.get(field)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(map(right, values)):
            wrong.append(f"{field} must be {allowed}, got {value!r}")
    if (
        isinstance(config.get("target_modules"), str)
        and config.get("layers_to_transform") is not None
    ):
        wrong.append(
            "layers_to_transform goes with a list of target_modules, not with an expression"
        )
    return wrong
