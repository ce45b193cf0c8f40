"""Was a prompt trained on? Told by what is asked, not by how it is written.

A prompt asks what its last user message asks (`workbench.training.questions` says what counts as the same): a system message or
a worked example put before a question makes no new question. It was trained on if any user message of a training row asks the
same, also one early in a conversation. Only of open questions such as "Summarize the document.", which the training rows answer
otherwise after other contexts, what stands before them must be the same, too. A training keeps a hash of each question of its
rows in ``training.json``, never the questions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench import prompts as prompt_sets
from workbench.errors import AdapterError, PromptSetError
from workbench.training.questions import asked_in, fingerprint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from workbench.prompts import Prompt, PromptSet

__all__ = ["FORMAT", "RECORD", "check_none", "fingerprint", "overlap", "read_record", "trained_on"]
RECORD: Final = "training.json"
FORMAT: Final = 3
"""Of ``training.json``; raised whenever hashes of an older one no longer mean the same."""
_SHOWN: Final = 5
"""Most rows that a refusal lists."""


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
    return tuple(p.id for p in asked if not trained.isdisjoint(asked_in(p.messages)))


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

    Raises:
        AdapterError: There is a record, but it is damaged.
    """
    if not (Path(adapter) / RECORD).exists():
        return None
    record = read_record(Path(adapter))
    if (record.get("adapter") or {}).get("sha256") != sha256:
        return None
    trained = set(record["prompt_hashes"])
    asked = (prompt for prompts in wordings for prompt in prompts)
    found = [p.id for p in asked if not trained.isdisjoint(asked_in(p.messages))]
    return list(dict.fromkeys(found))


def read_record(folder: Path) -> dict[str, Any]:
    """What ``training.json`` of a folder holds.

    Raises:
        AdapterError: It is missing, damaged, or of another version.
    """
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{folder}: no {RECORD}, so not trained with the workbench") from None
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{file}: cannot be read ({error})") from error
    if not isinstance(record, dict) or "format" not in record:
        raise damaged(folder)
    if record["format"] != FORMAT:
        raise AdapterError(
            f"{file}: has format {record['format']!r}, this version of the workbench reads {FORMAT}; train again into another folder"
        )
    hashes, adapter = record.get("prompt_hashes"), record.get("adapter")
    if (
        not isinstance(hashes, list)
        or not all(isinstance(h, str) for h in hashes)
        or not (adapter is None or (isinstance(adapter, dict) and "sha256" in adapter))
    ):
        raise damaged(folder)
    return record


def damaged(folder: Path) -> AdapterError:
    """The error of a record that does not hold what a training writes."""
    return AdapterError(f"{folder / RECORD}: damaged; copy it again, or train again")


def check_none(
    trained: Mapping[str, Collection[str]], evaluated: Sequence[PromptSet], source: str
) -> list[dict[str, Any]]:
    """Refuse training on what will be evaluated.

    Args:
        trained: Place of a training row to the hashes of what it asks.
        evaluated: Prompt sets that must stay unseen.
        source: Where the rows are from, for the message.

    Returns:
        What was checked: name, hash and size of each set.

    Raises:
        PromptSetError: Some rows ask what a set asks; says how many and shows the first, with the ids of both; its
            ``problems`` are all of them. Or a set has prompts that only a template asks, which cannot be checked.
    """
    found: dict[str, str] = {}
    for asked in evaluated:
        if asked.unasked:
            raise PromptSetError(
                asked.name,
                f"{len(asked.unasked)} of {len(asked)} prompts have only variables, so what they ask cannot be compared "
                "with the training data; give a file in which they are asked",
            )
        ids = {print_: prompt.id for prompt in asked for print_ in asked_in(prompt.messages)}
        for place, prints in trained.items():
            met = next((ids[print_] for print_ in prints if print_ in ids), None)
            if met is not None:
                found.setdefault(place, f"{place}: asks what {met!r} of {asked.name} asks")
    if found:
        raise _refusal(source, list(found.values()), len(trained))
    return [{"name": s.name, "sha256": s.sha256, "n": len(s)} for s in evaluated]


def _refusal(source: str, found: list[str], n_rows: int) -> PromptSetError:
    shown = "".join(f"\n  - {line}" for line in found[:_SHOWN])
    more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    error = PromptSetError(
        source,
        f"{len(found)} of {n_rows} rows ask what evaluated prompts ask; take them out of one or the other:{shown}{more}",
    )
    error.problems = tuple(found)
    return error
