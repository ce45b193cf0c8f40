"""Which prompts calibrate, which are kept out of it, and the tokens they make."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from jinja2 import TemplateError

from workbench import prompts as prompt_sets
from workbench.errors import ParamError, PromptSetError
from workbench.prompts.checkrows import canonical_json
from workbench.prompts.sources import registered
from workbench.scorers.texts import target_text
from workbench.training.overlap import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.prompts import Prompt, PromptSet

BLOCK: Final = 512
"""Most tokens of a block; more than this in one context teaches little and costs much."""
_SHARE: Final = 4
"""Of the prompts, one in so many is kept out at most."""


@dataclass(frozen=True, slots=True)
class Divided:
    """Two sets of prompts that have no question in common.

    Attributes:
        calibrate: Prompts that calibrate.
        check: Prompts that the result is compared on; None if it is not.
        n_left_out: Prompts that would have been compared on, but ask what a calibrating one asks.
    """

    calibrate: PromptSet
    check: PromptSet | None
    n_left_out: int = 0


def divide(
    prompts: Any, n_prompts: int, seed: int, *, check: Any = None, n_check: int | None = 64
) -> Divided:
    """Draw the prompts that calibrate, and others to compare on.

    Prompts of one group, and prompts that ask the same, stay together.

    Args:
        prompts: What names a prompt set; None for all sets that ship.
        n_prompts: Most prompts that calibrate.
        seed: Decides which.
        check: Another prompt set to compare on; by default what is left of the first, and at least some are left.
        n_check: Most prompts to compare on; None if nothing is compared.

    Raises:
        ParamError: A number is below 1, or the seed below 0.
        PromptSetError: The prompts cannot be read, or none are left to compare on.
    """
    for name, n, least in (("n_prompts", n_prompts, 1), ("n_check", n_check, 1), ("seed", seed, 0)):
        if n is not None and n < least:
            raise ParamError(name, f"at least {least}", n)
    found = _load(prompts)
    drawn = list(_drawn(found, seed))
    if n_check is None:
        return Divided(_subset(found, _fill(drawn, n_prompts)), None)
    kept = 0 if check is not None else min(n_check, max(1, len(found) // _SHARE))
    first = _fill(drawn, min(n_prompts, max(1, len(found) - kept)))
    calibrate = _subset(found, first)
    asked = {_asked(prompt) for prompt in calibrate}
    other = found if check is None else _load(check)
    rest = drawn[len(first) :] if check is None else list(_drawn(other, seed))
    unseen = [cluster for cluster in rest if asked.isdisjoint(map(_asked, cluster))]
    if not unseen:
        raise PromptSetError(
            other.source,
            f"no prompt is left to compare on: of {len(other)}, all calibrate or ask the same as one that does; give more, "
            "or others to compare on (check_prompts, --check-prompts), or do not compare (check=False, --no-check)",
        )
    left_out = sum(map(len, rest)) - sum(map(len, unseen))
    return Divided(calibrate, _subset(other, _fill(unseen, n_check)), left_out)


def _load(prompts: Any) -> PromptSet:
    everything = [f"builtin:{name}" for name in registered()]
    found = prompt_sets.load(everything if prompts is None else prompts)
    if found.unasked:
        raise PromptSetError(
            found.source,
            f"{len(found.unasked)} of {len(found)} prompts are only variables (first: {found.unasked[0]!r}); "
            "give prompts that say something",
        )
    return found


def _asked(prompt: Prompt) -> str:
    """What tells whether two prompts ask the same."""
    return fingerprint(prompt.messages) or canonical_json(prompt.to_dict()["messages"])


def _drawn(prompts: PromptSet, seed: int) -> Iterator[list[Prompt]]:
    """The clusters of a set in the order of a hash of seed and name: one set's order depends on nothing else."""
    clusters: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        clusters.setdefault(prompt.cluster, []).append(prompt)
    for name in sorted(clusters, key=lambda c: hashlib.sha256(f"{seed}:{c}".encode()).digest()):
        yield clusters[name]


def _fill(clusters: Sequence[list[Prompt]], n: int) -> list[list[Prompt]]:
    """The first clusters that have ``n`` prompts together; the last one may be cut."""
    taken: list[list[Prompt]] = []
    for cluster in clusters:
        if n <= 0:
            break
        taken.append(cluster[:n])
        n -= len(cluster)
    return taken


def _subset(prompts: PromptSet, clusters: Sequence[list[Prompt]]) -> PromptSet:
    ids = {prompt.id for cluster in clusters for prompt in cluster}
    return replace(prompts, prompts=tuple(p for p in prompts if p.id in ids))


def answer(prompt: Prompt) -> str | None:
    """The answer to put after a prompt: its target, the first of several, or None.

    An object is no answer: it is what an answer is judged by.
    """
    target = prompt.target
    if isinstance(target, list | tuple):
        target = next(iter(target), None)
    return target_text(target)


def encode(prompt: Prompt, tokenizer: Any) -> list[int]:
    """A prompt as the model sees it, with its answer where there is one.

    Raises:
        PromptSetError: The model's chat template refuses it.
    """
    said = answer(prompt)
    messages = [dict(m) for m in prompt.messages]
    if said is not None:
        messages.append({"role": "assistant", "content": said})
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tools=list(prompt.tools) if prompt.tools else None,
            add_generation_prompt=said is None,
            tokenize=False,
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise PromptSetError(prompt.id, f"the model's chat template refuses it: {error}") from error
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def blocks(texts: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """Texts one after the other, cut into blocks of one length, at most ``length``.

    At the end, fewer tokens are lost than there are blocks.

    >>> blocks([[1, 2, 3], [4, 5, 6, 7]], 4)
    [[1, 2, 3], [4, 5, 6]]
    """
    tokens = [token for text in texts for token in text]
    n = -(-len(tokens) // length)
    size = len(tokens) // n
    return [tokens[i * size : (i + 1) * size] for i in range(n)]
