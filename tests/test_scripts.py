"""The scripts that measure and check, run small."""

from __future__ import annotations

import importlib.util
import random
from typing import TYPE_CHECKING, Any

import pytest
import torch

from workbench.engines.local.engine import LocalEngine
from workbench.engines.local.loader import load

if TYPE_CHECKING:
    from pathlib import Path

TINY = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TINY |= {"num_key_value_heads": 2, "vocab_size": 49152, "max_position_embeddings": 512}
MESSAGES = ({"role": "user", "content": "Hi"},)


def script(root: Path, name: str) -> Any:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, root / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_gpu_check_without_a_gpu(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing checked is not a pass."""
    assert script(root, "gpu_check").main() == 1
    assert (
        capsys.readouterr().out
        == "gpu-check: torch finds no CUDA device here; nothing was checked\n"
    )


@pytest.mark.model
@pytest.mark.parametrize("kernel", ["int4", "fp32"])
def test_the_contest_on_a_random_model(root: Path, tmp_path: Path, kernel: str) -> None:
    """The random checkpoint loads and runs all three ways; the plain model is another object than the engine's."""
    path = script(root, "random_awq").write(tmp_path / "random", **TINY)
    loaded = load(path, device="cpu", kernel=kernel)
    contest = script(root, "bench_sweep").Contest(loaded, [list(MESSAGES)] * 2, 3)
    rng = random.Random(0)
    assert min(contest.loop(rng, 2), contest.per_cell(rng, 2), contest.sweep(1)) > 0
    assert contest.plain is not loaded.model
    assert contest.plain.config._attn_implementation == "sdpa"
    ids = torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        ours, plain = loaded.model(ids).logits.float(), contest.plain(ids).logits.float()
    assert torch.allclose(ours, plain, atol=0.05 * float(ours.std()))


@pytest.mark.model
def test_int4_generates(root: Path, tmp_path: Path) -> None:
    """An engine on the int4 kernel gives whole answers that its seed repeats."""
    path = script(root, "random_awq").write(tmp_path / "random", **TINY)
    engine = LocalEngine(load(path, device="cpu", kernel="int4"))
    first = engine.chat("Hi", max_tokens=12, temperature=1.0, top_k=20)
    again = engine.chat("Hi", max_tokens=12, temperature=1.0, top_k=20, seed=first.seed)
    assert first.token_ids == again.token_ids
