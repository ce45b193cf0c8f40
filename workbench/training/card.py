"""What an adapter's folder says of itself: the numbers of its record, and its card."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from workbench.engines.base import EngineInfo

_PACKAGES: Final = ("awq-workbench", "torch", "transformers", "peft", "accelerate")
_FEW: Final = 20
"""With fewer rows held out, the standard error of their mean loss is above a fifth of the spread among rows."""


def base(info: EngineInfo) -> dict[str, Any]:
    """The base model as the record has it."""
    return {
        "model": info.model,
        "revision": info.revision,
        "weight_hash": info.weight_hash,
        "quantization": info.quantization,
        "kernel": info.kernel,
        "dtype": info.dtype,
        "device": info.device,
        "threads": info.extra.get("threads"),
        "tokenizer_hash": info.tokenizer_hash,
        "chat_template_hash": info.chat_template_hash,
    }


def warnings(n_held_out: int, validation: float) -> list[str]:
    """What to know of a training's held-out loss.

    Args:
        n_held_out: Rows held out.
        validation: The share asked for.
    """
    if not validation or n_held_out >= _FEW:
        return []
    if not n_held_out:
        said = (
            f"nothing is held out, though validation is {validation:g}: all rows ask the same or belong together, so the last "
            "step is kept and training never stops early"
        )
    else:
        rows = "row is" if n_held_out == 1 else "rows are"
        said = (
            f"only {n_held_out} {rows} held out (fewer than {_FEW}), so the held-out loss, and which step is kept for it, are "
            "mostly luck; give more rows, or a larger validation"
        )
    return [said]


def result(losses: pd.DataFrame, step: int, n_steps: int) -> dict[str, Any]:
    """How a training went.

    Args:
        losses: As `workbench.training.curve.table` gives them.
        step: The one that is kept.
        n_steps: Steps there would be without an early stop.
    """
    last = losses.iloc[-1]
    kept = losses[losses["step"] == step].iloc[0]
    measured = losses["validation_loss"].dropna()
    taken = int(last["step"])
    early = taken < n_steps
    return {
        "n_steps": taken,
        "n_steps_planned": n_steps,
        "stopped": "no lower held-out loss" if early else "all epochs",
        "best_step": step,
        "best_epoch": float(kept["epoch"]),
        "validation_loss": {
            "before": _number(measured.iloc[0]) if len(measured) else None,
            "kept": _number(kept["validation_loss"]),
            "last": _number(measured.iloc[-1]) if len(measured) else None,
        },
        "train_loss": {
            "first": _number(losses["train_loss"].dropna().iloc[0]),
            "last": _number(losses["train_loss"].dropna().iloc[-1]),
        },
        "elapsed_s": float(last["elapsed_s"]),
    }


def _number(value: Any) -> float | None:
    """A float, None for NaN."""
    number = float(value)
    return None if number != number else round(number, 6)  # noqa: PLR0124 - NaN is not itself


def describe(path: Path, record: Mapping[str, Any]) -> str:
    """A finished training in a few lines."""
    data, made = record["data"], record["result"]
    steps = f"{made['n_steps']} steps in {duration(made['elapsed_s'])}"
    if made["n_steps"] < made["n_steps_planned"]:
        steps += f" (of {made['n_steps_planned']}: {made['stopped']})"
    lines = [
        f"{path}: trained on {data['n_train']} rows, {steps}",
        f"  {loss_line(record)}",
        *(f"  warning: {warning}" for warning in record["warnings"]),
        f"  adapter {record['adapter']['sha256'][:12]}, {record['adapter']['n_parameters']:,} parameters",
    ]
    return "\n".join(lines)


def loss_line(record: Mapping[str, Any]) -> str:
    """The losses in a sentence, with a warning where training did not help."""
    made = record["result"]
    held, trained = made["validation_loss"], made["train_loss"]
    if held["kept"] is None:
        return (
            f"training loss {trained['first']:.3f} to {trained['last']:.3f} nats a token; nothing held out, "
            f"so step {made['best_step']}, the last, is kept"
        )
    said = f"held-out loss {held['before']:.3f} to {held['kept']:.3f} nats a token; step {made['best_step']} is kept"
    if held["kept"] >= held["before"]:
        said += "; it did not fall, so this adapter answers no better than the base: check the data, or lower learning_rate"
    return said


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(4.2), duration(135), duration(7260)
    ('4 s', '2 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def readme(name: str, record: Mapping[str, Any]) -> str:
    """The adapter's card, Markdown with the fields at the top that model hubs read."""
    data, of, made, how = record["data"], record["base"], record["result"], record["settings"]
    about = record["about"].strip() or "(not said; `about` of the training)"
    held = made["validation_loss"]
    targets = ", ".join(record["adapter"]["targets"])
    settings = "\n".join(f"| {key} | {_cell(value)} |" for key, value in how.items())
    unseen = [
        f"- {s['name']} ({s['n']} prompts, sha256 `{s['sha256'][:16]}`)"
        for s in record["evaluated"]
    ]
    checked = (
        "None of the training rows asks what these prompt sets ask:\n\n" + "\n".join(unseen)
        if unseen
        else "No prompt set was named to keep apart from the training rows."
    )
    file = f", sha256 `{data['file_sha256']}`" if data["file_sha256"] else ""
    sizes = f"{data['n_train']} trained on, {data['n_validation']} held out"
    if data["n_left_out"]:
        sizes += f", {data['n_left_out']} left out as too long"
    warnings = "".join(f"\n**Note:** {warning}.\n" for warning in record["warnings"])
    before, kept = (_loss(held[key]) for key in ("before", "kept"))
    stopped = "" if made["stopped"] == "all epochs" else f", stopped early ({made['stopped']})"
    return f"""---
base_model: {json.dumps(of["model"], ensure_ascii=False)}
library_name: peft
tags: [lora]
---

# {name}

**Made for:** {about}

A LoRA adapter of rank {how["rank"]} on {targets}: {record["adapter"]["n_parameters"]:,} parameters,
sha256 `{record["adapter"]["sha256"]}`.

| | |
|---|---|
| base model | {of["model"]}, {of["quantization"]}, weights sha256 `{of["weight_hash"]}` |
| data | {_cell(data["source"])}{file} |
| rows | {data["n_rows"]}: {sizes} |
| held-out loss | {before} before, {kept} kept (step {made["best_step"]}), nats per answer token |
| training loss | {_loss(made["train_loss"]["first"])} at first, {_loss(made["train_loss"]["last"])} at last |
| training | {made["n_steps"]} steps{stopped}, {duration(made["elapsed_s"])}, seed {how["seed"]}, {of["kernel"]} on {of["device"]} |
| finished | {record["ended_utc"]} |

{warnings}
![Losses](losses.png)

## Kept apart

{checked}

Hashes of what the training rows ask are in `training.json`; a comparison checks them against the prompts it uses.

## Settings

| setting | value |
|---|---|
{settings}

Made with {_versions(record["calls"])}. Everything above, and the machine, is in `training.json`; the losses of every logged step are in
`losses.csv`.
"""


def _versions(calls: Sequence[Mapping[str, Any]]) -> str:
    """The packages; where they changed between the calls, in the order of the calls."""
    used = [call["environment"]["packages"] for call in calls]
    said = []
    for name in _PACKAGES:
        versions = dict.fromkeys(packages[name] for packages in used if packages.get(name))
        if versions:
            said.append(f"{name} {' then '.join(versions)}")
    return ", ".join(said)


def _loss(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
