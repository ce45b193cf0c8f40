"""Proofs that take minutes: `make check-long`."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from test_sampling import exact

import workbench as wb
from workbench.engines.local.sampling import RowSettings, draw
from workbench.params import SamplingParams

pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(1800)]

N_DRAWS = 200_000
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0.7},
    {"temperature": 1.5},
    {"temperature": 1.0, "top_k": 50},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.5, "top_p": 0.99},
    {"temperature": 1.0, "min_p": 0.02},
    {"temperature": 1.2, "top_k": 40, "top_p": 0.95, "min_p": 0.01},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_real_logits_are_drawn_from_exactly(demo_engine: Any, setting: dict[str, Any]) -> None:
    """200,000 draws from the model's own 49,152 logits: the 30 most likely tokens come as often as they should.

    Each count is binomial; the bound is 5.5 standard deviations, exceeded by chance once in 100,000 runs of this file.
    """
    prompt = demo_engine.render(({"role": "user", "content": "Name an animal."},))
    ids = demo_engine.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = demo_engine.model(ids).logits[0, -1].float()
    params = SamplingParams(**setting)
    wanted = exact(logits.numpy(), params)
    counts = np.zeros(len(wanted))
    for start in range(0, N_DRAWS, 100):
        rows = [params.replace(seed=1 + start + i) for i in range(100)]
        position = torch.full((100,), start % 7)
        tokens, _ = draw(logits.repeat(100, 1), RowSettings.of(rows, "cpu"), position)
        np.add.at(counts, tokens.numpy(), 1)
    top = np.argsort(-wanted)[:30]
    spread = np.sqrt(N_DRAWS * wanted[top] * (1 - wanted[top])) + 1e-9
    off = np.abs(counts[top] - N_DRAWS * wanted[top]) / spread
    assert counts[wanted == 0].sum() == 0
    assert off.max() < 5.5


def test_killed_again_and_again(tmp_path: Path, root: Path) -> None:
    """A run of the demo model killed with SIGKILL at eight random moments ends with every row once, tokens as undisturbed."""
    study = {
        "name": "killed",
        "model": "demo",
        "prompts": str(root / "datasets" / "capitals.jsonl"),
        "grid": {"temperature": [0, 1.0], "top_k": [5, 50]},
        "fixed": {"max_tokens": 16},
        "scorers": ["contains"],
        "latency": False,
    }
    path = tmp_path / "killed.yaml"
    path.write_text(yaml.safe_dump(study))
    command = [str(Path(sys.executable).parent / "workbench"), "run", str(path), "--quiet", "--out"]
    rng, kills = random.Random(5), 0
    while kills < 8:
        process = subprocess.Popen([*command, str(tmp_path / "a")], stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(6, 14))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    subprocess.run([*command, str(tmp_path / "a")], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, str(tmp_path / "b")], check=True, stdout=subprocess.DEVNULL)
    key = ["cell_id", "prompt_id", "repeat"]
    a, b = (
        wb.open_run("latest", tmp_path / name).generations.set_index(key).sort_index()
        for name in "ab"
    )
    assert kills >= 1
    assert a.index.is_unique
    assert list(a.index) == list(b.index)
    assert [list(t) for t in a["token_ids"]] == [list(t) for t in b["token_ids"]]
