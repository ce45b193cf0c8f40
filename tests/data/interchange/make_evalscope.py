"""Makes the files in ``evalscope`` with evalscope itself (1.14.1) and its mock model: three sums, asked warm and cold.

It needs an environment of its own, since evalscope pins other versions than the workbench. Run it in this folder; what the
tests do not read (reports, logs) is removed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from evalscope import TaskConfig, run_task
from evalscope.api.model import ModelOutput, ModelUsage

ROWS = """id,question,A,B,C,D,answer
1,What is 2 + 2?,3,4,5,6,B
2,What is 3 + 4?,7,8,9,10,A
3,What is 1 + 5?,4,5,6,7,C
"""
WARM = ("ANSWER: B", "ANSWER: A", "ANSWER: A", "ANSWER: C", "ANSWER: C", "ANSWER: D")
COLD = WARM[::2]
ASK = "{question}\n{choices}\nEnd with ANSWER: and a letter of {letters}."


def answered(texts: tuple[str, ...]) -> list[ModelOutput]:
    """What the mock model will say, with token counts."""
    outputs = [ModelOutput.from_content(model="mock-sums", content=text) for text in texts]
    for output in outputs:
        output.usage = ModelUsage(input_tokens=40, output_tokens=4, total_tokens=44)
    return outputs


def main() -> None:
    """Evaluate twice."""
    data = Path("sums")
    data.mkdir()
    (data / "sums_val.csv").write_text(ROWS, encoding="utf-8")
    for name, temperature, texts in (("cold", 0.0, COLD), ("warm", 0.7, WARM)):
        task = {"local_path": "sums", "subset_list": ["sums"], "prompt_template": ASK}
        run_task(
            TaskConfig(
                model="mock-sums",
                eval_type="mock_llm",
                model_args={"custom_outputs": answered(texts)},
                datasets=["general_mcq"],
                dataset_args={"general_mcq": task},
                generation_config={"temperature": temperature, "max_tokens": 16, "top_k": 5},
                repeats=len(texts) // 3,
                eval_batch_size=1,
                work_dir=f"evalscope/{name}",
                no_timestamp=True,
                analysis_report=False,
            )
        )
        for unread in ("reports", "logs"):
            shutil.rmtree(f"evalscope/{name}/{unread}")
    shutil.rmtree(data)


if __name__ == "__main__":
    main()
