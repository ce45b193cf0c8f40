"""Was a prompt trained on? Told by what is asked, not by how it is written.

Two prompts ask the same when their last user messages have the same words, numbers and signs of arithmetic in the same
order; case, spaces and all other punctuation do not count. Messages before the last one do not count either: a worked
example put before a question makes no new question. A training keeps a hash of each of its prompts in ``training.json``,
never the prompts.

>>> fingerprint([{"role": "user", "content": "What is 3 + 4?"}]) == fingerprint(
...     [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what is  3+4"}]
... )
True
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench import prompts as prompt_sets
from workbench.errors import AdapterError, PromptSetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from workbench.prompts import Prompt, PromptSet
    from workbench.records import Message

RECORD: Final = "training.json"
_OPERATORS: Final = frozenset("-*/%")
"""Punctuation that changes what a sum asks."""


def normalized(text: str) -> str:
    """The words, numbers and operators of a text, in lower case, a space between them.

    >>> normalized("  What is 12+3.5 -4, please?")
    'what is 12 + 3 5 - 4 please'
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
    parts = re.findall(r"\w+|[^\w\s]", folded)
    kept = [p for p in parts if p in _OPERATORS or not unicodedata.category(p[0]).startswith("P")]
    return " ".join(kept) or text.strip()


def fingerprint(messages: Sequence[Message]) -> str | None:
    """Hash of what a chat's last user message asks, 32 hex digits; None if no user says anything in it."""
    said = [m.get("content") for m in messages if m.get("role") == "user"]
    if not said or not isinstance(said[-1], str) or not said[-1].strip():
        return None
    return hashlib.sha256(normalized(said[-1]).encode()).hexdigest()[:32]


def overlap(
    adapter: str | Path, prompts: PromptSet | Iterable[Prompt] | str | Path
) -> tuple[str, ...]:
    """Ids of the prompts that an adapter was trained or validated on.

    Args:
        adapter: Its folder, as ``workbench train`` wrote it.
        prompts: A prompt set, or what names one; prompts that only have variables must be asked in a template first.

    Raises:
        AdapterError: The folder has no record of a training, so nothing can be said.
        PromptSetError: The prompts cannot be read.
    """
    trained = set(read_record(Path(adapter))["prompt_hashes"])
    asked = prompt_sets.load(prompts) if isinstance(prompts, str | Path) else prompts
    return tuple(p.id for p in asked if fingerprint(p.messages) in trained)


def trained_on(
    adapter: str | Path, sha256: str, wordings: Iterable[Iterable[Prompt]]
) -> list[str] | None:
    """Ids of a run's prompts that an adapter was trained or validated on.

    Args:
        adapter: Its folder.
        sha256: Content hash of the adapter that lies there, see `workbench.adapters.AdapterFile`.
        wordings: The prompts, once for every way in which they are asked.

    Returns:
        The ids in order; None if the folder has no record of the training of this very adapter.
    """
    try:
        record = read_record(Path(adapter))
    except AdapterError:
        return None
    if (record.get("adapter") or {}).get("sha256") != sha256:
        return None
    trained = set(record["prompt_hashes"])
    found = [p.id for prompts in wordings for p in prompts if fingerprint(p.messages) in trained]
    return list(dict.fromkeys(found))


def read_record(folder: Path) -> dict[str, Any]:
    """What ``training.json`` of a folder holds.

    Raises:
        AdapterError: It is missing or damaged.
    """
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{folder}: no {RECORD}, so not trained with the workbench") from None
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{file}: cannot be read ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("prompt_hashes"), list):
        raise AdapterError(f"{file}: damaged; copy it again, or train again")
    return record


def check_none(
    trained: Mapping[str, str], evaluated: Sequence[PromptSet], source: str
) -> list[dict[str, Any]]:
    """Refuse training on what will be evaluated.

    Args:
        trained: Place of a training row to its fingerprint.
        evaluated: Prompt sets that must stay unseen.
        source: Where the rows are from, for the message.

    Returns:
        What was checked: name, hash and size of each set.

    Raises:
        PromptSetError: Some rows ask what a set asks; lists them with the ids of both. Or a set has prompts that only a
            template asks, which cannot be checked.
    """
    found: list[str] = []
    for asked in evaluated:
        if asked.unasked:
            raise PromptSetError(
                asked.name,
                f"{len(asked.unasked)} of {len(asked)} prompts have only variables, so what they ask cannot be compared "
                "with the training data; give a file in which they are asked",
            )
        ids = {fingerprint(prompt.messages): prompt.id for prompt in asked}
        found += [
            f"{place}: asks what {ids[print_]!r} of {asked.name} asks"
            for place, print_ in trained.items()
            if print_ in ids
        ]
    if found:
        raise PromptSetError(
            f"{source}: rows ask what evaluated prompts ask; take them out of one or the other",
            found,
        )
    return [{"name": s.name, "sha256": s.sha256, "n": len(s)} for s in evaluated]
