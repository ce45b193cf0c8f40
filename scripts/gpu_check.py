"""CUDA against the CPU reference, on the demo model: one line per part, pass or fail.

Exit code 0: every part passed. 1: a part failed, or there is no GPU and nothing was checked.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from workbench.adapters import CONFIG, WEIGHTS
from workbench.engines.local.awq import AwqLinear
from workbench.engines.local.engine import LocalEngine
from workbench.engines.local.loader import load
from workbench.engines.local.pack import quantize
from workbench.engines.local.sampling import RowSettings, draw, gumbel, noise_keys
from workbench.params import SamplingParams
from workbench.records import BASE, Request, timing
from workbench.training import train

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = ("What is the capital of France?", "Count from one to ten in words.", "Name three colours.")
SETTINGS: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 0.7, "top_k": 20},
    {"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.15},
    {"temperature": 1.3, "min_p": 0.05, "frequency_penalty": 0.4, "presence_penalty": 0.2},
)


ROWS = tuple({"prompt": f"What comes after {i}?", "target": str(i + 1)} for i in range(10, 34))
"""What the training is tried on."""


def requests(n_tokens: int, adapters: tuple[str, ...] = (BASE,)) -> list[Request]:
    """Every text with every setting and adapter."""
    return [
        Request(
            f"{c} {adapter}",
            text,
            0,
            ({"role": "user", "content": text},),
            SamplingParams(**s, max_tokens=n_tokens, seed=1 + c),
            adapter,
        )
        for text in TEXTS
        for c, s in enumerate(SETTINGS)
        for adapter in adapters
    ]


def write_adapter(folder: Path, model: nn.Module, names: list[str], rank: int) -> Path:
    """A LoRA adapter of random weights, strong enough to change answers, on layers with these last parts of names."""
    torch.manual_seed(rank)
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.rsplit(".", 1)[-1] in names:
            key = f"base_model.model.{name}.lora_"
            a = torch.randn(rank, layer.in_features) / layer.in_features**0.5
            tensors |= {f"{key}A.weight": a}
            tensors |= {f"{key}B.weight": 0.05 * torch.randn(layer.out_features, rank)}
    folder.mkdir()
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": names}
    (folder / CONFIG).write_text(json.dumps(config | {"task_type": "CAUSAL_LM"}), encoding="utf-8")
    save_file(tensors, folder / WEIGHTS)
    return folder


class Checks:
    """The parts; models are loaded once."""

    def __init__(self, device: str = "cuda") -> None:
        self.device = device
        self.cpu = LocalEngine(load("demo", device="cpu", kernel="fp32", progress=False))
        self.gpu = LocalEngine(load("demo", device=device, kernel="fp32", progress=False))

    def kernel(self) -> str:
        """The int4 kernel against the exact weights, for every group size."""
        worst = 0.0
        for group in (32, 64, 128, 256):
            torch.manual_seed(group)
            weight = torch.randn(512, 1024)
            layer = AwqLinear(1024, 512, group, bias=False)
            for name, value in quantize(weight, group).items():
                setattr(layer, name, value)
            exact = layer.dequantize()
            x = torch.randn(300, 1024)
            layer.to("cuda")
            require(layer.pack(), f"group {group}: the kernel refused the shape")
            for rows in (1, 7, 64, 300):
                got = layer(x[:rows].to("cuda", torch.bfloat16)).float().cpu()
                wanted = x[:rows] @ exact.t()
                worst = max(worst, float((got - wanted).norm() / wanted.norm()))
        require(worst < 0.01, f"relative error {worst:.4f}, allowed 0.01")
        return f"largest relative error {worst:.4f}"

    def loading(self) -> str:
        """Logits of the AWQ model: fp32 close to the CPU's, int4 close to fp32."""
        ids = torch.tensor([self.cpu._render(({"role": "user", "content": TEXTS[0]},), None)[0]])  # noqa: SLF001
        with torch.no_grad():
            wanted = self.cpu.model(ids).logits
            exact = self.gpu.model(ids.cuda()).logits.cpu()
            int4 = load("demo", device="cuda", kernel="int4").model(ids.cuda()).logits.float().cpu()
        scale = float(wanted.std())
        error, error4 = float((exact - wanted).abs().max()), float((int4 - wanted).abs().max())
        require(error < 1e-3 * scale, f"fp32 logits differ by {error:.5f} (spread {scale:.2f})")
        require(error4 < 0.3 * scale, f"int4 logits differ by {error4:.3f} (spread {scale:.2f})")
        return (
            f"largest difference fp32 {error:.5f}, int4 {error4:.3f}, spread of logits {scale:.2f}"
        )

    def sampling(self) -> str:
        """The same noise and the same draws on both devices."""
        torch.manual_seed(0)
        rows = [SamplingParams(**SETTINGS[i % 4], seed=i + 1) for i in range(256)]
        logits, position = torch.randn(256, 50_000) * 3, torch.arange(256)
        keys = noise_keys(torch.arange(1, 257), position)
        ids = torch.arange(1000)[None]
        here = gumbel((keys[0][:, None], keys[1][:, None]), ids)
        there = gumbel((keys[0][:, None].cuda(), keys[1][:, None].cuda()), ids.cuda()).cpu()
        require(torch.allclose(here, there, atol=1e-5), "the noise differs")
        cpu, _ = draw(logits.clone(), RowSettings.of(rows, "cpu"), position)
        gpu, _ = draw(logits.cuda(), RowSettings.of(rows, "cuda"), position.cuda())
        same = int((cpu == gpu.cpu()).sum())
        require(same >= 255, f"{same} of 256 draws equal")
        return f"{same} of 256 draws equal"

    def sweep(self) -> str:
        """A batch of unlike rows: fp32 on the GPU gives the CPU's tokens."""
        wanted = {g.key: g.token_ids for g in self.cpu.generate(requests(32))}
        found = {g.key: g.token_ids for g in self.gpu.generate(requests(32))}
        require(set(found) == set(wanted), "rows are missing")
        same = sum(found[k] == wanted[k] for k in wanted)
        require(same >= len(wanted) - 1, f"{same} of {len(wanted)} rows token-identical")
        return f"{same} of {len(wanted)} rows token-identical"

    def latency(self) -> str:
        """A stream gives the batch's tokens, at times that make sense."""
        import time  # noqa: PLC0415 - next to its use

        wanted = {g.key: g.token_ids for g in self.gpu.generate(requests(32))}
        tpots = []
        for request in requests(32):
            sent = time.perf_counter_ns()
            events = list(self.gpu.stream(request))
            require(
                tuple(e.token_id for e in events) == wanted[request.key],
                "a stream differs from its batch",
            )
            t = timing(sent, [e.t_ns for e in events])
            tpots += [t.tpot_ms] if t.tpot_ms is not None else []
        return f"median tpot {sorted(tpots)[len(tpots) // 2]:.2f} ms"

    def adapters(self) -> str:
        """Base and two adapters in one batch: the tokens of the CPU, and those of each alone."""
        names = ("small", "large")
        with tempfile.TemporaryDirectory() as place:
            write_adapter(Path(place) / "small", self.cpu.model, ["q_proj", "v_proj"], 4)
            write_adapter(Path(place) / "large", self.cpu.model, ["o_proj", "down_proj"], 16)
            for engine in (self.cpu, self.gpu):
                for name in names:
                    engine.load_adapter(Path(place) / name)
        try:
            return self._mixed((BASE, *names))
        finally:
            for engine in (self.cpu, self.gpu):
                for name in names:
                    engine.unload_adapter(name)

    def _mixed(self, names: tuple[str, ...]) -> str:
        wanted = {g.key: g.token_ids for g in self.cpu.generate(requests(24, names))}
        found = {g.key: g.token_ids for g in self.gpu.generate(requests(24, names))}
        alone = {g.key: g.token_ids for n in names for g in self.gpu.generate(requests(24, (n,)))}
        same = sum(found[k] == wanted[k] for k in wanted)
        require(same >= len(wanted) - 2, f"{same} of {len(wanted)} rows as on the CPU")
        apart = sum(found[k] == alone[k] for k in alone)
        require(apart >= len(alone) - 2, f"{apart} of {len(alone)} rows as alone")
        first = {k: v for k, v in wanted.items() if k[0].endswith(BASE)}
        moved = sum(
            wanted[k[0].replace(BASE, n), *k[1:]] != v for k, v in first.items() for n in names[1:]
        )
        require(moved >= len(first), f"the adapters changed only {moved} of {2 * len(first)} rows")
        return f"{same} of {len(wanted)} rows as on the CPU, {apart} as alone, {moved} of {2 * len(first)} changed"

    def training(self) -> str:
        """A short training: exact, with the CPU's losses; int4, with about its loss before, and much less after."""
        settings: dict[str, Any] = {"rank": 4, "epochs": 1, "batch_size": 4, "validation": 0.25}
        made = []
        with tempfile.TemporaryDirectory() as place:
            for i, (device, kernel) in enumerate(
                (("cpu", "fp32"), (self.device, "fp32"), (self.device, "int4"))
            ):
                done = train(
                    list(ROWS),
                    "demo",
                    out=Path(place) / str(i),
                    device=device,
                    kernel=kernel,
                    progress=False,
                    say=lambda _: None,
                    **settings,
                )
                losses = done.record["result"]["validation_loss"]
                made.append((losses["before"], losses["last"]))
        (before, after), exact, int4 = made
        said = f"held-out loss on the CPU {before:.4f} to {after:.4f}, fp32 {exact[0]:.4f} to {exact[1]:.4f}, "
        said += f"int4 {int4[0]:.4f} to {int4[1]:.4f}"
        require(abs(exact[0] - before) < 0.001 * before, f"fp32 begins elsewhere: {said}")
        require(abs(exact[1] - after) < 0.1 * after, f"fp32 ends elsewhere: {said}")
        require(abs(int4[0] - before) < 0.1 * before, f"int4 begins elsewhere: {said}")
        require(int4[1] < 0.5 * int4[0], f"int4 does not learn: {said}")
        return said


class PartFailed(Exception):  # noqa: N818 - reads as a sentence
    """A part did not hold."""


def require(holds: object, why: str) -> None:
    """Fail the part unless ``holds``."""
    if not holds:
        raise PartFailed(why)


def report(name: str, part: Callable[[], str]) -> bool:
    """Run one part and print its line."""
    try:
        print(f"pass  {name}: {part()}")
    except PartFailed as failure:
        print(f"FAIL  {name}: {failure}")
    except Exception as error:  # noqa: BLE001 - any error is a failed part; the others still run
        traceback.print_exc()
        print(f"FAIL  {name}: {type(error).__name__}: {error}")
    else:
        return True
    return False


def main() -> int:
    """Run every part."""
    if not torch.cuda.is_available():
        print("gpu-check: torch finds no CUDA device here; nothing was checked")
        return 1
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    checks = Checks()
    parts = [
        ("AWQ kernel", checks.kernel),
        ("AWQ loading", checks.loading),
        ("sampling", checks.sampling),
    ]
    parts += [("sweep", checks.sweep), ("latency", checks.latency)]
    parts += [("adapters", checks.adapters), ("training", checks.training)]
    results = [report(name, part) for name, part in parts]
    print(f"{sum(results)} of {len(results)} parts passed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
