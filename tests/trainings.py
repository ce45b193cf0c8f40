"""What the tests of training share: rows, a tiny model, and a training that kills itself.

``python trainings.py MODEL OUT N`` trains as `small` does and dies by SIGKILL while it writes its N-th checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from workbench.engines.local.engine import LocalEngine
from workbench.training import loop, train
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
    place = {"device": "auto"} if isinstance(model, LocalEngine) else {}
    options = {"say": lambda _: None, **SMALL, **place, **changes}
    return train(rows, model, out=out, **options)


def interrupted(model: Any, out: Path, step: int, **changes: Any) -> None:
    """Train until a step, and stop there as Ctrl-C does."""
    real = loop.Watch.on_step_end

    def stop(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        real(self, args, state, control)
        if state.global_step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Watch, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            small(model, out, **changes)


def sealed(out: Path) -> list[Path]:
    """Whole checkpoints of the training in a folder."""
    record = json.loads((out / "training.json").read_text(encoding="utf-8"))
    return Checkpoints(out, record["identity"]).sealed()


def spoil(checkpoint: Path, name: str = "adapter_model.safetensors") -> None:
    """Change a byte in the middle of a checkpoint's file, whose size stays."""
    data = bytearray((checkpoint / name).read_bytes())
    data[len(data) // 2] ^= 1
    (checkpoint / name).write_bytes(data)


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
