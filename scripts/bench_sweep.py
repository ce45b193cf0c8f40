"""The same sweep done three ways, side by side in one run.

(a) a plain loop of ``model.generate``, one request at a time; (b) one batched ``generate`` per cell; (c) this project's
engine, the whole grid at once (on a CPU up to 72 rows decode together). Same weights (on a CPU dequantized to fp32, as a plain transformers model for a and
b), prompts, settings and token counts (end tokens ignored). (a) and (b) are too slow to run whole, so they run on cells and
prompts drawn anew each round; the figure compared is output tokens per second. Each round runs all three, so that other
load on the machine touches all three alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import random
import statistics
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.engines.local.engine import LocalEngine
from workbench.engines.local.loader import LoadedModel, load
from workbench.params import SamplingParams
from workbench.prompts import load as load_prompts
from workbench.records import Request

GRID = {
    "temperature": [0.3, 0.7, 1.0],
    "top_k": [10, 50, None],
    "top_p": [0.9, None],
    "repetition_penalty": [1.0, 1.15],
}


def cells(tokens: int) -> list[SamplingParams]:
    """36 cells, no two of them equivalent."""
    names = list(GRID)
    return [
        SamplingParams(**dict(zip(names, v, strict=True)), max_tokens=tokens)
        for v in product(*GRID.values())
    ]


def hf_settings(params: SamplingParams, eos: int) -> dict[str, Any]:
    """The same settings for ``model.generate``; its defaults are all overruled."""
    greedy = params.greedy
    return {
        "do_sample": not greedy,
        "temperature": None if greedy else params.temperature,
        "top_k": None if greedy else (params.top_k or 0),
        "top_p": None if greedy else (params.top_p or 1.0),
        "repetition_penalty": params.repetition_penalty or 1.0,
        "max_new_tokens": params.max_tokens,
        "min_new_tokens": params.max_tokens,
        "pad_token_id": eos,
    }


def plain_model(loaded: LoadedModel) -> Any:
    """The same weights in the model transformers would make, without this project's attention.

    Where the weights are dense, also without its linear layers; for int4 weights a second copy is loaded, which keeps them.
    """
    path = loaded.info.extra["path"]
    if loaded.info.kernel == "int4":
        network = load(path, device=loaded.info.device, kernel="int4").model
        network.set_attn_implementation("sdpa")
        return network
    network = loaded.model
    config = AutoConfig.from_pretrained(path)
    vars(config).pop("quantization_config", None)
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", dtype=network.dtype
        )
    plain.load_state_dict(network.state_dict(), assign=True)
    plain.model.rotary_emb = type(plain.model.rotary_emb)(config)
    return plain.to(network.device).eval()


class Contest:
    """The three ways, on one model."""

    def __init__(
        self, loaded: LoadedModel, prompts: list[list[dict[str, str]]], tokens: int
    ) -> None:
        self.loaded, self.prompts, self.cells = loaded, prompts, cells(tokens)
        self.tokens = tokens
        self.plain = plain_model(loaded)
        self.engine = LocalEngine(dataclasses.replace(loaded, eos_token_ids=()), max_rows=None)
        self.device = loaded.info.device

    def _inputs(self, prompts: list[list[dict[str, str]]]) -> dict[str, torch.Tensor]:
        tokenizer = self.loaded.tokenizer
        texts = [
            tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False)
            for p in prompts
        ]
        inputs = tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        return {k: v.to(self.device) for k, v in inputs.items()}

    def loop(self, rng: random.Random, n: int) -> float:
        """(a): n requests, one at a time; tokens per second."""
        chosen = [(rng.choice(self.cells), rng.choice(self.prompts)) for _ in range(n)]
        return self._generate([(cell, [prompt]) for cell, prompt in chosen])

    def per_cell(self, rng: random.Random, n: int) -> float:
        """(b): n cells, all prompts as one batch each; tokens per second."""
        return self._generate([(cell, self.prompts) for cell in rng.sample(self.cells, n)])

    def _generate(self, jobs: list[tuple[SamplingParams, list[list[dict[str, str]]]]]) -> float:
        start, made = time.perf_counter(), 0
        for cell, prompts in jobs:
            inputs = self._inputs(prompts)
            with torch.no_grad():
                out = self.plain.generate(
                    **inputs, **hf_settings(cell, self.loaded.eos_token_ids[0])
                )
            made += (out.shape[1] - inputs["input_ids"].shape[1]) * len(prompts)
        return made / (time.perf_counter() - start)

    def sweep(self, seed: int) -> float:
        """(c): the whole grid; tokens per second."""
        requests = [
            Request(str(c), str(p), 0, tuple(prompt), cell.replace(seed=seed + p))
            for p, prompt in enumerate(self.prompts)
            for c, cell in enumerate(self.cells)
        ]
        start = time.perf_counter()
        done = list(self.engine.generate(requests))
        wall_s = time.perf_counter() - start
        made = sum(g.n_output_tokens for g in done)
        if made != len(requests) * self.tokens:
            raise SystemExit(f"expected {len(requests) * self.tokens} tokens, got {made}")
        return made / wall_s


def main() -> None:
    """Run the contest and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--prompts", default="datasets/arithmetic.jsonl")
    parser.add_argument("--n-prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    loaded = load(args.model, device=args.device)
    prompts = [list(p.messages) for p in load_prompts(args.prompts).prompts[: args.n_prompts]]
    contest = Contest(loaded, prompts, args.tokens)
    contest.loop(random.Random(0), 1)  # noqa: S311 - warm-up; not a secret
    rounds: dict[str, list[float]] = {"loop": [], "per_cell": [], "sweep": []}
    for r in range(args.rounds):
        rng = random.Random(r)  # noqa: S311 - not a secret
        rounds["loop"].append(contest.loop(rng, 6))
        rounds["per_cell"].append(contest.per_cell(rng, 4))
        rounds["sweep"].append(contest.sweep(1 + r))
    report(args, loaded, rounds)


def report(args: argparse.Namespace, loaded: LoadedModel, rounds: dict[str, list[float]]) -> None:
    """Print the figures, and write them if asked to."""
    names = {
        "loop": "(a) loop of model.generate",
        "per_cell": "(b) one batched generate per cell",
        "sweep": "(c) awq-workbench, whole grid at once",
    }
    print(
        f"36 cells x {args.n_prompts} prompts x {args.tokens} tokens, {loaded.info.model}, kernel {loaded.info.kernel}, {loaded.info.device}"
    )
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; {args.rounds} rounds"
    )
    for key, name in names.items():
        v = rounds[key]
        ratio = statistics.median(s / x for s, x in zip(rounds["sweep"], v, strict=True))
        print(
            f"{name:<44} {statistics.median(v):9.1f} tokens/s  ({min(v):.1f} to {max(v):.1f})   sweep is {ratio:5.1f} x"
        )
    if args.json:
        args.json.write_text(
            json.dumps({"tokens_per_s": rounds, "info": loaded.info.to_dict()}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
