"""The loss while an adapter is trained: what was logged, as a table, and which step is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

COLUMNS: Final = (
    "step",
    "epoch",
    "examples",
    "train_loss",
    "validation_loss",
    "learning_rate",
    "elapsed_s",
)
Entry = dict[str, Any]
"""Of transformers' log: "step", "epoch", and "loss" or "eval_loss"."""


def held_out(history: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Step to held-out loss, the one before training at step 0."""
    return {int(e["step"]): float(e["eval_loss"]) for e in history if "eval_loss" in e}


def best_step(history: Sequence[Mapping[str, Any]]) -> int:
    """The step with the lowest held-out loss, the first of equal ones; the last step where none was held out."""
    losses = {step: loss for step, loss in held_out(history).items() if step > 0}
    if losses:
        return min(losses, key=lambda step: (losses[step], step))
    return max((int(e["step"]) for e in history), default=0)


def is_over(history: Sequence[Mapping[str, Any]], n_steps: int, patience: int) -> bool:
    """Whether a training is done: all steps taken, or so many checks without a lower loss (0: never for that reason)."""
    last = max((int(e["step"]) for e in history), default=0)
    if last >= n_steps:
        return True
    best = best_step(history)
    since = sum(step > best for step in held_out(history))
    return bool(patience) and since >= patience


def table(history: Sequence[Mapping[str, Any]], n_rows: int, batch_size: int) -> pd.DataFrame:
    """One row per logged step, columns ``COLUMNS``.

    ``train_loss`` is the mean over the steps since the row before, ``examples`` counts rows seen, ``elapsed_s`` the seconds of
    training. Losses are nats per answer token; missing ones are NaN.
    """
    import pandas as pd  # noqa: PLC0415 - heavy

    n_batches = -(-n_rows // batch_size)
    rows: dict[int, Entry] = {}
    for entry in history:
        if "loss" not in entry and "eval_loss" not in entry:
            continue
        step = int(entry["step"])
        epochs, batches = divmod(step, n_batches)
        row = rows.setdefault(step, {"step": step, "epoch": round(step / n_batches, 4)})
        row["examples"] = epochs * n_rows + min(batches * batch_size, n_rows)
        row["elapsed_s"] = entry.get("elapsed_s")
        for theirs, ours in (
            ("loss", "train_loss"),
            ("eval_loss", "validation_loss"),
            ("learning_rate", "learning_rate"),
        ):
            if theirs in entry:
                row[ours] = entry[theirs]
    return pd.DataFrame([rows[step] for step in sorted(rows)], columns=list(COLUMNS))
