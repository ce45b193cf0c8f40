"""How an adapter is trained: every number that changes it, checked at birth."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from workbench.errors import ParamError, unknown

ALL: Final = "all"
_WHOLE: Final = {
    "rank": (1, 1024),
    "batch_size": (1, 4096),
    "gradient_accumulation": (1, 4096),
    "epochs": (1, 1000),
    "max_length": (8, 1_000_000),
    "checks": (1, 1000),
    "patience": (0, 1000),
    "seed": (0, 2**32 - 1),
}
_ABOVE_ZERO: Final = {"alpha": 10_000.0, "learning_rate": 1.0}
_SHARES: Final = {"dropout": 0.9, "validation": 0.9}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a training.

    The defaults suit the demo model and some hundred short rows. For a model of 7 billion weights a ``learning_rate`` of 1e-4 to
    2e-4 is usual, and the default is too high.

    Attributes:
        rank: Width of the two matrices of a layer, r; 1 to 1024.
        alpha: Their product is multiplied by alpha / rank; up to 10,000.
        rslora: By alpha / sqrt(rank) instead.
        dropout: Share of a layer's inputs that the adapter does not see in a step, 0 to 0.9.
        targets: Layers that get an adapter: "all" linear ones but the output layer, or last parts of their names
            ("q_proj", "v_proj").
        learning_rate: Of AdamW, up to 1; rises over the first 5 % of the steps, then falls to 0 in a straight line.
        batch_size: Rows computed together, 1 to 4096.
        gradient_accumulation: Such batches in a step, 1 to 4096: a step is taken on batch_size * gradient_accumulation rows, and
            needs the memory of batch_size rows.
        gradient_checkpointing: Compute each layer's activations again on the way back instead of keeping them: the same
            adapter with less memory, and more time.
        epochs: Times every row is seen, at most; 1 to 1000.
        max_length: Most tokens of prompt and answer together, from 8; never more than the model's context.
        skip_long: Leave longer rows out instead of refusing them. No row is ever cut.
        validation: Share of the rows held out to measure on, 0 to 0.9. Which rows they are is told by a hash of what they ask,
            so it does not depend on the seed or on the order; rows that ask the same, or of one group, stay together.
        checks: About how many times an epoch the held-out rows are measured and a checkpoint is written, 1 to 1000: every
            round(steps of an epoch / checks) steps, but at most once a step, and after the very last one.
        patience: Training ends after so many checks without a lower loss; 0 for never.
        seed: Of first values, order of the rows, and dropout.

    Raises:
        ParamError: A setting is out of range.
    """

    rank: int = 8
    alpha: float = 16.0
    rslora: bool = False
    dropout: float = 0.0
    targets: str | tuple[str, ...] = ALL
    learning_rate: float = 1e-3
    batch_size: int = 8
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    epochs: int = 3
    max_length: int = 512
    skip_long: bool = False
    validation: float = 0.1
    checks: int = 4
    patience: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _WHOLE.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ParamError(name, f"a whole number from {least} to {most}", value)
        for name, limit in (_ABOVE_ZERO | _SHARES).items():
            value = getattr(self, name)
            lowest = 0.0 if name in _SHARES else 1e-12
            right = isinstance(value, int | float) and not isinstance(value, bool)
            if not right or not lowest <= value <= limit:
                allowed = f"a number {'above 0, up' if lowest else 'from 0'} to {limit:g}"
                raise ParamError(name, allowed, value)
            object.__setattr__(self, name, float(value))
        for name in ("rslora", "gradient_checkpointing", "skip_long"):
            if not isinstance(getattr(self, name), bool):
                raise ParamError(name, "true or false", getattr(self, name))
        object.__setattr__(self, "targets", _targets(self.targets))

    @property
    def step_rows(self) -> int:
        """Rows in a step."""
        return self.batch_size * self.gradient_accumulation

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Settings:
        """Settings by name.

        Raises:
            ParamError: One is unknown or out of range.
        """
        known = [f.name for f in fields(cls)]
        for name, value in settings.items():
            if name not in known:
                raise ParamError(
                    name, f"a setting of the training: {unknown('setting', name, known)}", value
                )
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        values = asdict(self)
        return values | {"targets": ALL if self.targets == ALL else list(self.targets)}


def _targets(value: object) -> str | tuple[str, ...]:
    """The word "all", or names, sorted."""
    names = [value] if isinstance(value, str) else value
    if (
        not isinstance(names, list | tuple)
        or not names
        or not all(isinstance(name, str) and name.strip() for name in names)
    ):
        raise ParamError("targets", "'all', or names of layers", value)
    if list(names) == [ALL]:
        return ALL
    return tuple(sorted({name.strip() for name in names}))
