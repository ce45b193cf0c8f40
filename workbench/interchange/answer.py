"""One answer made elsewhere, and the file it came from, whatever form that file has."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.errors import ParamError
from workbench.params import FIELDS, SamplingParams
from workbench.prompts.checkrows import kind
from workbench.records import BASE, Score

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from workbench.records import FinishReason


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as a file has it.

    Attributes:
        where: Where it stands, for messages: the file with the line or the sample.
        prompt_id: Which prompt it answers.
        text: The answer.
        repeat: Which draw it is, or None: the next one.
        finish: Why it ended.
        error: Why there is none.
        task: The set of prompts it belongs to, or None; ids are unique only within one.
        model: What made it, or None.
        cell: What tells its cell from others; None: its model and settings do.
        name: What that cell is called, or None.
        adapter: The cell's adapter.
        template: The cell's template, or None.
        split: The prompt's side of the split, or None.
        settings: Decoding settings, as far as the file says.
        seed: The seed it was drawn with, or None.
        n_prompt_tokens: Tokens of the prompt; 0 if the file does not say.
        n_output_tokens: Tokens of the answer; 0 if the file does not say.
        scores: Scorer to the judgement that the file holds.
        rendered: The prompt as the model saw it, if the file says.
        row: The prompt as a row, if the file has it.
    """

    where: str
    prompt_id: str
    text: str = ""
    repeat: int | None = None
    finish: FinishReason = "stop"
    error: str | None = None
    task: str | None = None
    model: str | None = None
    cell: str | None = None
    name: str | None = None
    adapter: str = BASE
    template: str | None = None
    split: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    n_prompt_tokens: int = 0
    n_output_tokens: int = 0
    scores: Mapping[str, Score] = field(default_factory=dict)
    rendered: str = ""
    row: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file of answers.

    Attributes:
        path: The file.
        form: What form it is in, in words.
        sha256: Of its bytes.
        answers: At least one.
        scorers: Scorer to its version, as far as the file says.
        about: What else it says of where its answers come from, as plain values.
        notes: What a reader must know, one sentence each.
    """

    path: Path
    form: str
    sha256: str
    answers: list[Answer]
    scorers: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def valid(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the workbench has too; one that it does not allow, or that is not set, is left out.

    >>> valid({"temperature": 0.5, "top_k": -1, "best_of": 3, "seed": None})
    {'temperature': 0.5}
    """
    out = {}
    for name, value in settings.items():
        if name in FIELDS and value is not None:
            try:
                SamplingParams(**{name: value})
            except ParamError:
                continue
            out[name] = value
    return out


def bare(label: str, template: str | None, adapter: str) -> str:
    """A label without the template and adapter at its end.

    >>> bare("T=0.7 brief terse", "brief", "terse")
    'T=0.7'
    """
    for extra in ("" if adapter == BASE else adapter, template or ""):
        label = label.removesuffix(f" {extra}") if extra else label
    return label


def judged(
    value: Any, answer: str | None = None, explanation: str = "", reason: str | None = None
) -> Score:
    """A judgement from elsewhere as a score: a truth value or a number from 0 to 1; anything else has no value.

    Args:
        value: As the file has it.
        answer: What was judged.
        explanation: Why, in words.
        reason: Why there is no value, if the file says.

    >>> judged(True).value, judged(12.5).reason, judged(None).reason
    (1.0, 'the file says 12.5; a score is between 0 and 1', 'not scored')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Score(None, answer, explanation, reason or "not scored")
    if not isinstance(value, bool | int | float):
        said = repr(value) if isinstance(value, str) else kind(value)
        return Score(None, answer, explanation, f"the file says {said}; a score is a number")
    if not 0 <= value <= 1:
        said = f"the file says {value!r}; a score is between 0 and 1"
        return Score(None, answer, explanation, said)
    return Score(float(value), answer, explanation)
