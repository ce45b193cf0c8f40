"""How near the answer is to reference texts in meaning, by a small embedding model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from workbench.errors import ScorerError
from workbench.records import Score
from workbench.scorers.base import Family, family, is_number, unscored
from workbench.scorers.texts import text_targets

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_MOST: Final = 20_000


@lru_cache(maxsize=1)
def _model() -> Any:
    """The embedding model, from the files in its package.

    Raises:
        ScorerError: The package is not installed.
    """
    try:
        import wordllama  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ScorerError(
            "scorer similarity: needs the package wordllama; pip install 'awq-workbench[similarity]', "
            "in a clone pip install -e '.[similarity]'"
        ) from error
    # It looks for its tokenizer in a folder that its package spells otherwise, unless told that the package is the cache.
    package = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=package, disable_download=True)


def _cosine(a: Any, b: Any) -> float:
    """Cosine of two vectors, cut to 0..1; 0 for a text without a known word."""
    length = float(a @ a) * float(b @ b)
    return min(1.0, max(0.0, float(a @ b) / math.sqrt(length))) if length else 0.0


@family
@dataclass(frozen=True)
class Similarity(Family):
    """Cosine similarity of sentence embeddings (WordLlama, 256 numbers, English), 0 where negative; the best reference counts.

    The model averages word vectors: it knows synonyms, but hardly word order or negation ("is safe" and "is not safe" are
    near each other). It ships with its package (extra ``similarity``); nothing is downloaded. Only the first 20,000
    characters of an answer are read.

    Attributes:
        at_least: 1 from this similarity on and 0 below, instead of the similarity itself, 0..1.
    """

    name: ClassVar[str] = "similarity"

    at_least: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        least = self.at_least
        ok = least is None or (is_number(least) and 0 <= least <= 1)
        self.require("at_least", ok, "a number from 0 to 1")
        _model()  # told before a run rather than in every row of it

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        return text_targets(prompt)[1]

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        wanted, problem = text_targets(prompt)
        if problem:
            return unscored(problem)
        answer, *vectors = _model().embed([text[:_MOST], *wanted])
        near = [_cosine(answer, vector) for vector in vectors]
        best = max(near)
        target = wanted[near.index(best)]
        value = best if self.at_least is None else float(best >= self.at_least)
        shown = target if len(target) <= 60 else target[:57] + "..."
        return Score(value, None, f"similarity {best:.2f} to {shown!r}")
