"""Makes the files in ``lm_eval`` with lm-eval itself (0.4.13) and its dummy model, which always says "lol".

Usage: python make_lm_eval.py FOLDER. A task of three questions, one of which is to be answered "lol", two answers each, under
two filters.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

ROWS = [("What is 2 + 2?", "4"), ("Which word is a laugh?", "lol"), ("What is 1 + 5?", "6")]
TASK = {
    "task": "tiny_sums",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "Q: {{q}}\nA:",
    "doc_to_target": "{{a}}",
    "generation_kwargs": {
        "until": ["\n"],
        "do_sample": True,
        "temperature": 0.7,
        "max_gen_toks": 8,
    },
    "repeats": 2,
    "filter_list": [
        {"name": "first", "filter": [{"function": "take_first"}]},
        {
            "name": "number",
            "filter": [
                {"function": "regex", "regex_pattern": r"(\d+)"},
                {"function": "take_first"},
            ],
        },
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def main(folder: Path) -> None:
    """Evaluate and write results and samples."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"q": q, "a": a}) + "\n" for q, a in ROWS), encoding="utf-8")
    task = TASK | {"dataset_kwargs": {"data_files": {"test": str(rows)}}}
    found = simple_evaluate(
        model="dummy",
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = found.pop("samples")
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.save_results_aggregated(results=found, samples=samples)
    for name in found["configs"]:
        tracker.save_results_samples(task_name=name, samples=samples[name])
    rows.unlink()
    for path in folder.rglob("results_*.json"):
        results = json.loads(path.read_text(encoding="utf-8"))
        del results["pretty_env_info"]  # of the machine
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
