"""Was a prompt trained on? Told by what is asked, not by how it is written.

Two prompts ask the same when their last user messages have the same words, numbers and signs of arithmetic in the same
order. Case, spaces, marks of layout such as ``**``, characters that are not seen and all other punctuation do not count;
dashes, signs of multiplication and division, and thousands with or without separators count alike. Messages before the last
one do not count either: a worked example put before a question makes no new question. A training keeps a hash of each of its
prompts in ``training.json``, never the prompts.

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
FORMAT: Final = 2
"""Of ``training.json``; raised whenever hashes of an older one no longer mean the same."""
_OPERATORS: Final = frozenset("-*/%")
"""Punctuation that changes what a sum asks, if it stands between numbers or variables."""
_MINUS: Final = "\u2212"
"""Stands for the sign of a negative number."""
_ALIKE: Final = str.maketrans(
    dict.fromkeys("\u00d7\u2217\u22c5\u00b7\u2219\u2715\u2716", "*")
    | dict.fromkeys("\u00f7\u2044\u2215\u2797", "/")
    | {_MINUS: "-", "`": " ", "_": " "}
)
_NARROW: Final = str.maketrans(dict.fromkeys("\u2009\u202f", ","))
"""Narrow spaces, which set thousands apart in some languages."""
_THOUSANDS: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:[,'\u2019]\d{3})+(?!\d)")
_TIMES: Final = re.compile(r"(?<=\d)(\s*)x(?=\s*\d)")
_NEGATIVE: Final = re.compile(r"(?<!\w)-(?=\d)")


def normalized(text: str) -> str:
    """The words, numbers and operators of a text, in lower case, a space between them.

    The signs ``- * / %`` are operators between numbers or variables of one letter, and a minus also right before a number;
    anywhere else they are punctuation.

    >>> normalized("  What is 12+3.5 -4, please?")
    'what is 12 + 3 5 - 4 please'
    >>> normalized("- **What** is 1,000 \u00f7 \u20134?"), normalized("A well-known city")
    ('what is 1000 / - 4', 'a well known city')
    """
    kept: list[str] = []
    waiting: list[str] = []  # operators, until it is known what they stand before
    for part in re.findall(r"\w+|[^\w\s]", _plain(text)):
        if part in _OPERATORS:
            waiting.append(part)
        elif not unicodedata.category(part[0]).startswith("P"):
            if kept and _is_term(kept[-1]) and _is_term(part):
                kept += waiting
            kept.append(part)
            waiting = []
    return " ".join(kept).replace(_MINUS, "-") or text.strip()


def _plain(text: str) -> str:
    """The text in one case, each sign in one form, without what is not seen."""
    plain = unicodedata.normalize("NFKC", text.translate(_NARROW)).casefold().translate(_ALIKE)
    kinds = [(c, unicodedata.category(c)) for c in plain]
    plain = "".join("-" if kind == "Pd" else c for c, kind in kinds if kind != "Cf")
    plain = _THOUSANDS.sub(lambda number: re.sub(r"\D", "", number[0]), plain)
    return _NEGATIVE.sub(_MINUS, _TIMES.sub(r"\1*", plain))


def _is_term(part: str) -> bool:
    """A number, a negative number's sign, or a variable of one letter."""
    return part[0].isdigit() or part == _MINUS or (len(part) == 1 and part.isalpha())


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

    Raises:
        AdapterError: There is a record, but it is damaged.
    """
    if not (Path(adapter) / RECORD).exists():
        return None
    record = read_record(Path(adapter))
    if (record.get("adapter") or {}).get("sha256") != sha256:
        return None
    trained = set(record["prompt_hashes"])
    found = [p.id for prompts in wordings for p in prompts if fingerprint(p.messages) in trained]
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
    if not isinstance(record, dict) or not isinstance(record.get("prompt_hashes"), list):
        raise AdapterError(f"{file}: damaged; copy it again, or train again")
    if record.get("format") != FORMAT:
        raise AdapterError(
            f"{file}: has format {record.get('format')!r}, this version of the workbench reads {FORMAT}; train again into another folder"
        )
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
