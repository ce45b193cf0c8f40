"""What to know of an adapter before its scores are believed: what it was trained on, and whether it acts at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


def notes(
    facts: Mapping[str, Any], adapters: Iterable[str], prompts: Collection[str] | None = None
) -> list[str]:
    """What a run recorded of adapters, a sentence each; nothing of the base model.

    Args:
        facts: The manifest.
        adapters: Names; one named twice counts once.
        prompts: Ids of the prompts that are judged; by default all of the run.
    """
    seen = facts.get("trained_on") or {}
    about = facts.get("engine", {}).get("extra", {}).get("adapters") or {}
    said = []
    for name in dict.fromkeys(adapters):
        if name == BASE:
            continue
        if name in seen and seen[name] is None:
            said.append(no_record(name))
        ids = seen.get(name) or ()
        n = len(ids) if prompts is None else len(set(ids) & set(prompts))
        if n:
            said.append(trained(name, n, compared=prompts is not None))
        if about.get(name, {}).get("inert"):
            said.append(f"{name} changes nothing: it is as good as no adapter.")
    return said


def trained(name: str, n: int, *, compared: bool = False) -> str:
    """That an adapter was trained on prompts that judge it: of the run, or of those compared."""
    of = "these prompts" if compared else f"prompt{'' if n == 1 else 's'} of this run"
    said = f"{n:,} of {of}" if compared else f"{n:,} {of}"
    return f"{name} was trained on {said}: how it answers them says nothing of others."


def no_record(name: str) -> str:
    """That nobody knows what an adapter was trained on."""
    return f"{name} has no record of its training: these prompts may have been part of it."
