"""Training LoRA adapters: rows in, an adapter's folder out, with the proof of what it was trained on beside it.

>>> from workbench.training import Settings
>>> Settings().rank
8
"""

from __future__ import annotations

from workbench.training.overlap import fingerprint, overlap
from workbench.training.rows import Example, read
from workbench.training.run import Trained, train
from workbench.training.settings import Settings

__all__ = ["Example", "Settings", "Trained", "fingerprint", "overlap", "read", "train"]
