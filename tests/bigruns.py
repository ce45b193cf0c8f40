"""Run directories as large as people make them, without a model.

Sums are answered in words, rightly with a chance that depends on the prompt and on the cell; the same luck holds for a
prompt and repeat in every cell, nearly. Answers are scored by the real scorer and recorded through `RunStore`.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench import provenance
from workbench.engines.scripted import ScriptedEngine
from workbench.prompts import PromptSet
from workbench.records import Generation
from workbench.scorers import get_scorer, score_generation
from workbench.store import RunStore, ScoreRow
from workbench.study import Study

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.plan import Cell, Plan

OPENINGS = (
    "Let us see.",
    "That is a simple sum.",
    "To add the two numbers, we count on from the first one.",
    "First we add the tens, then the ones, and then we put both together.",
    "Sure!",
    "I think this can be done in the head.",
)
CLOSINGS = ("", " I hope this helps!", " So that is the answer.", " Is there anything else?")
_BATCH = 5_000


def big_run(
    directory: Path,
    n_cells: int = 50,
    n_prompts: int = 1000,
    repeats: int = 2,
    seed: int = 0,
    *,
    confirm: float = 0.0,
    timed: bool = True,
) -> Path:
    """Make a finished run of ``n_cells * n_prompts * repeats`` rows.

    Args:
        directory: Becomes the run directory; must not hold a run yet.
        n_cells: 1..200.
        n_prompts: At least 1; every tenth belongs with the next one in a group.
        repeats: At least 1.
        seed: Decides the answers.
        confirm: Share of the prompts held out.
        timed: Record latencies too: 8 prompts, 3 rounds.
    """
    plan = _plan(n_cells, n_prompts, repeats, seed, confirm)
    scorer = get_scorer("numeric")
    manifest = provenance.manifest(plan.study, plan, ScriptedEngine().info, [scorer])
    rng = np.random.default_rng(seed)
    with RunStore.create(directory, manifest) as store:
        store.add_plan(plan)
        batch: list[Generation] = []
        for generation in _answers(plan, rng):
            batch.append(generation)
            if len(batch) == _BATCH:
                _commit(store, plan, scorer, batch)
                batch = []
        _commit(store, plan, scorer, batch)
        if timed:
            store.add_latency(_times(plan, rng))
        store.update_manifest(status="finished", ended_utc=provenance.now_utc())
    return directory


def _plan(n_cells: int, n_prompts: int, repeats: int, seed: int, confirm: float) -> Plan:
    """Sums of numbers of up to four digits; a grid without greedy cells."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(2, 10 ** rng.integers(1, 5, (n_prompts, 1)), (n_prompts, 2)) + 1
    rows = [
        {
            "id": f"sum-{i:04d}",
            "prompt": f"What is {a} + {b}? Explain, then give the sum.",
            "target": int(a + b),
        }
        | ({"group": f"pair-{i // 10}"} if i % 10 < 2 else {})
        for i, (a, b) in enumerate(numbers.tolist())
    ]
    values = product(
        (0.6, 0.3, 0.9, 1.2, 1.5), (50, 10), (1.0, 1.05, 1.1, 1.15, 1.2), (1.0, 0.9), (64, 32)
    )
    grid = [
        {"temperature": t, "top_k": k, "repetition_penalty": r, "top_p": p, "max_tokens": m}
        for t, k, r, p, m in sorted(values, key=lambda v: (v[4], v[3]), reverse=True)
    ]
    study = Study(
        name="big",
        model="scripted",
        prompts=PromptSet.from_records(rows, "sums"),
        grid=grid[:n_cells],
        repeats=repeats,
        seed=seed,
        scorers=["numeric"],
        split={"confirm": confirm},
        engine={"kind": "scripted"},
        baseline=grid[0],
    )
    return study.plan()


def _answers(plan: Plan, rng: np.random.Generator) -> Iterator[Generation]:
    """One answer for every row, in the order of the plan."""
    repeats = plan.study.repeats
    for prompt in plan.prompt_set:
        hard = len(str(prompt.target)) + rng.normal(0, 0.7)
        luck = rng.random(repeats)
        for cell in plan.cells:
            chance = 1 / (1 + np.exp(hard - _skill(cell)))
            for k in range(repeats):
                style = rng.integers(0, 10**6, 3).tolist()
                right = (luck[k] + 0.2 * rng.random()) % 1 < chance
                text = _text(cell, str(prompt.target), bool(right), style)
                yield _generation(plan, cell, prompt.id, k, text)


def _skill(cell: Cell) -> float:
    p = cell.params
    return 3.2 - 0.8 * (p.temperature or 0) - 4 * abs((p.repetition_penalty or 1) - 1.05)


def _text(cell: Cell, target: str, right: bool, style: list[int]) -> str:
    """An answer in words; hot cells ramble now and then, and some of those loop."""
    opening, closing = OPENINGS[style[0] % len(OPENINGS)], CLOSINGS[style[1] % len(CLOSINGS)]
    value = target if right else str(int(target) + 1 + style[2] % 9)
    if (cell.params.temperature or 0) > 1 and style[2] % 12 == 0:
        return f"{opening} " + "and then we add " * 14
    return f"{opening} The sum is {value}.{closing}"


def _generation(plan: Plan, cell: Cell, prompt_id: str, repeat: int, text: str) -> Generation:
    words = text.split()
    limit = cell.params.max_tokens
    return Generation(
        cell.cell_id,
        prompt_id,
        repeat,
        text=text if len(words) < limit else " ".join(words[:limit]),
        token_ids=tuple(range(5, 5 + min(len(words) + 1, limit))),
        n_prompt_tokens=12,
        finish_reason="stop" if len(words) < limit else "length",
        seed=1 + repeat,
        prompt=f"<|user|> {plan.prompt_set[prompt_id].messages[-1]['content']}\n<|assistant|>",
        batch_rows=256,
    )


def _commit(store: RunStore, plan: Plan, scorer: Any, batch: list[Generation]) -> None:
    scores = (
        ScoreRow(
            g.key,
            scorer.name,
            scorer.version,
            score_generation(scorer, g, plan.prompt_set[g.prompt_id]),
        )
        for g in batch
    )
    store.add_generations(batch, scores)


def _times(plan: Plan, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Timed requests: longer answers and penalties take longer."""
    prompts = plan.prompt_set.subset(8, plan.study.seed)
    order = 0
    for round_ in range(3):
        for place, prompt in enumerate(prompts):
            for cell in plan.cells:
                n = int(rng.integers(10, 30))
                tpot = 12 + 20 * ((cell.params.repetition_penalty or 1) - 1) + rng.normal(0, 0.2)
                ttft = 40 + rng.normal(0, 1)
                yield {
                    "cell_id": cell.cell_id,
                    "prompt_id": prompt.id,
                    "repeat": 0,
                    "round": round_,
                    "block": round_ * len(prompts) + place,
                    "order": order,
                    "warm": 1,
                    "ttft_ms": ttft,
                    "tpot_ms": tpot,
                    "e2el_ms": ttft + (n - 1) * tpot,
                    "itl_ms": [round(tpot, 3)] * (n - 1),
                    "n_prompt_tokens": 12,
                    "n_output_tokens": n,
                    "tokens_match": 1,
                    "cpu_pressure": 0.0,
                    "load1": 0.1,
                    "clock_mhz": None,
                    "noisy": 0,
                    "t_start_utc": "2026-01-01T00:00:00.000Z",
                    "stalled_share": 0.0,
                    "others_share": 0.0,
                }
                order += 1
