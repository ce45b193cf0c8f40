"""The base model that an adapter was trained on, beside the one it is loaded into."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from workbench.adapters.places import HUB_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.adapters.files import AdapterFile

QUANTIZED: Final = re.compile(r"(?i)(?<![a-z])(awq|gptq|bnb|[a-z]*4bit|int4|gguf)(?![a-z])")
"""In the name of a model: it is quantized."""
_LOCAL: Final = re.compile(r"[.~/].*|[A-Za-z]:.*|.*\\.*|[^@].*/.*/.*|demo", re.DOTALL)


def is_local(base: str) -> bool:
    """Whether a base's name is a path, or the demo model, and so known on one machine only.

    >>> is_local("/models/qwen"), is_local("demo"), is_local("Qwen/Qwen1.5-7B-Chat"), is_local("gpt2")
    (True, True, False, False)
    """
    return _LOCAL.fullmatch(base) is not None


def base_matches(file: AdapterFile, model: str, weight_hash: str | None) -> bool | None:
    """Whether an adapter was trained on the model that is loaded, as far as its files tell.

    The hash of the weights decides, where the record of the training has it. Otherwise the recorded name does: it is the
    model's, or both are names of the hub; who uploaded a model, and words such as AWQ, make no other name.

    Args:
        file: The adapter.
        model: The loaded model, as the user named it.
        weight_hash: sha256 over its weight files, if known.

    Returns:
        None if that cannot be told.
    """
    if file.base_hash is not None and weight_hash is not None:
        return file.base_hash == weight_hash
    if file.base is None:
        return None
    if file.base == model:
        return True
    names = [_plain(HUB_ID.fullmatch(name)) for name in (file.base, model)]
    return names[0] == names[1] if all(names) else None


def _plain(hub_id: re.Match[str] | None) -> str:
    """A model's name without what says how it is quantized; empty if it has no id on the hub."""
    words = re.split(r"[-_]", hub_id["name"].lower()) if hub_id else []
    return "-".join(word for word in words if not QUANTIZED.fullmatch(word))


def mismatch(
    name: str, about: Mapping[str, Any], model: str, weight_hash: str | None
) -> str | None:
    """A sentence on an adapter whose base is not the one it is loaded into; None where that is not so, or not known.

    Args:
        name: The adapter's.
        about: What the engine says of it, with ``base_matches``.
        model: The loaded model.
        weight_hash: sha256 over its weight files, if known.
    """
    if about.get("base_matches") is not False:
        return None
    hashes = about.get("base_hash"), weight_hash
    made, here = (f" (weights {h[:8]})" if all(hashes) and h else "" for h in hashes)
    return (
        f"adapter {name!r} was trained on {about.get('base') or 'another model'}{made}, and is used with {model}{here}: "
        "what it learned there may not hold here"
    )
