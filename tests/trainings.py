"""What the tests of training share: rows, a tiny model, and a training that kills itself.

``python trainings.py MODEL OUT N`` trains as `small` does and dies by SIGKILL while it writes its N-th checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from workbench.training import train
from workbench.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.training import Trained

COLOURS = ("red", "blue", "green")
ROWS = [
    {"prompt": f"Name the colour of box {i}{' in the hall' * (i % 3)}.", "target": COLOURS[i % 3]}
    for i in range(24)
]
SMALL: dict[str, Any] = {
    "rank": 2,
    "targets": ["q_proj", "down_proj"],
    "epochs": 3,
    "batch_size": 4,
    "checks": 2,
    "dropout": 0.1,
    "learning_rate": 3e-3,
    "validation": 0.2,
    "patience": 0,
    "device": "cpu",
    "progress": False,
}


def small(model: Any, out: str | Path, rows: Any = ROWS, **changes: Any) -> Trained:
    """A training of about 15 steps that says nothing."""
    options = {"say": lambda _: None, **SMALL, **changes}
    return train(rows, model, out=out, **options)


def main() -> None:
    """Train, and die in the middle of it."""
    model, out, fatal = sys.argv[1], sys.argv[2], int(sys.argv[3])
    seal = Checkpoints.seal
    written: list[int] = []

    def dying(self: Checkpoints, step: int) -> None:
        written.append(step)
        if len(written) == fatal:  # the files are there, the seal is not
            os.kill(os.getpid(), signal.SIGKILL)
        seal(self, step)

    Checkpoints.seal = dying  # type: ignore[method-assign]
    small(model, out)


if __name__ == "__main__":
    main()
