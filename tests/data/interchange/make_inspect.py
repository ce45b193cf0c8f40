"""Makes the files in ``inspect`` with inspect_ai itself (0.3.285) and its mock model: two sums, asked warm and cold.

Usage: python make_inspect.py FOLDER. The warm log is ``.eval`` with two epochs, the cold one ``.json``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes, match
from inspect_ai.solver import generate, system_message

SAMPLES = [
    Sample(id="a", input="2+2?", target="4"),
    Sample(id="b", input="3+4?", target=["7", "seven"], metadata={"k": 1}),
]
RUNS = [
    ("warm", "eval", 0.7, [("4", "stop"), ("5", "stop"), ("7", "stop"), ("seven", "stop")]),
    ("cold", "json", 0.0, [("4", "stop"), ("8", "max_tokens")]),
]


def main(folder: Path) -> None:
    """Evaluate twice."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, form, temperature, said in RUNS:
        outputs = [ModelOutput.from_content("mockllm/model", t, stop_reason=s) for t, s in said]
        for output in outputs:
            output.usage = ModelUsage(input_tokens=5, output_tokens=3, total_tokens=8)
        config = GenerateConfig(
            temperature=temperature, top_p=0.9, seed=5, stop_seqs=["END"], max_tokens=8
        )
        (log,) = evaluate(
            Task(
                dataset=MemoryDataset(SAMPLES, name="sums"),
                solver=[system_message("Be brief."), generate()],
                scorer=[match(), includes()],
                config=config,
                name="sums",
            ),
            model=get_model("mockllm/model", custom_outputs=outputs),
            epochs=len(outputs) // 2,
            log_dir=str(folder),
            log_format=form,
            display="none",
            max_samples=1,
        )
        Path(log.location).rename(folder / f"{name}.{form}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
