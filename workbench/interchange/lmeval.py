"""Runs in the files of lm-eval (EleutherAI's evaluation harness), for the viewers and scripts that read them.

Every cell becomes a folder, as if it were a model of its own: ``results_<time>.json`` and ``samples_<task>_<time>.jsonl``. The
prompt set is the task, a scorer a metric. What has no place there (timing, token ids, more than one draw's score) is left out.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import StoreError
from workbench.interchange import rowstream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from workbench.interchange.rowstream import ReadRun

FILTER: Final = "none"
_NAMES: Final = {"max_tokens": "max_gen_toks", "stop": "until"}


def write(run: ReadRun, folder: Path, *, force: bool) -> list[Path]:
    """Write a run as lm-eval would have.

    Args:
        run: A run.
        folder: Gets one folder per cell.
        force: Replace files that are there.

    Returns:
        The files written, two per cell.

    Raises:
        StoreError: A file is there already, or cannot be written; then none is.
    """
    task = file_name(str(run.manifest["prompt_set"]["name"])) or "prompts"
    started = datetime.fromisoformat(run.manifest["started_utc"])
    stamp = started.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    cells = [{str(k): v for k, v in c.items()} for c in run.cells.to_dict("records")]
    names = [file_name(str(cell["label"])) for cell in cells]
    places: list[tuple[dict[str, Any], Path, Path]] = []
    for cell, name in zip(cells, names, strict=True):
        # Labels may differ only in characters that are not fit for a folder.
        place = folder / (name if name and names.count(name) == 1 else f"{name}-{cell['cell_id']}")
        samples = place / f"samples_{task}_{stamp}.jsonl"
        results = place / f"results_{stamp}.json"
        if place.exists() and not place.is_dir():
            raise StoreError(f"{place}: is a file; lm-eval's files need a folder")
        rowstream.refuse(samples, force=force)
        rowstream.refuse(results, force=force)
        places.append((cell, samples, results))
    with rowstream.together(force=force) as waiting:
        for cell, samples, results in places:
            means = _Means(list(rowstream.scorers(run)))
            n = 0
            with rowstream.whole(samples, force=force, waiting=waiting) as file:
                for sample in _samples(run, str(cell["cell_id"])):
                    n += 1
                    means.add(sample)
                    file.write(json.dumps(sample, ensure_ascii=False) + "\n")
            with rowstream.whole(results, force=force, waiting=waiting) as file:
                json.dump(_results(run, cell, task, means, n), file, indent=2, ensure_ascii=False)
                file.write("\n")
    return [file for _, *pair in places for file in pair]


class _Means:
    """Mean and standard error of each metric, over the samples that have it."""

    def __init__(self, metrics: list[str]) -> None:
        self.sums = dict.fromkeys(metrics, (0, 0.0, 0.0))

    def add(self, sample: Mapping[str, Any]) -> None:
        for metric in sample["metrics"]:
            n, total, squares = self.sums[metric]
            value = float(sample[metric])
            self.sums[metric] = (n + 1, total + value, squares + value * value)

    def entries(self) -> dict[str, Any]:
        """``metric,filter`` to mean and standard error (sample deviation over the root of n); "N/A" if unknown."""
        out: dict[str, Any] = {}
        for metric, (n, total, squares) in self.sums.items():
            if not n:
                continue
            mean = total / n
            variance = max(0.0, (squares - n * mean * mean) / (n - 1)) if n > 1 else None
            error = "N/A" if variance is None else math.sqrt(variance / n)
            out |= {f"{metric},{FILTER}": mean, f"{metric}_stderr,{FILTER}": error}
        return out


def _samples(run: ReadRun, cell_id: str) -> Iterator[dict[str, Any]]:
    """One sample per prompt, its repeats together."""
    every = rowstream.rows(run, cell_id)
    for doc_id, (_, group) in enumerate(groupby(every, key=lambda row: row["prompt_id"])):
        yield _sample(doc_id, list(group))


def _sample(doc_id: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    first = rows[0]
    doc = first["prompt"].to_dict()
    target = rowstream.plain(first["prompt"].target) or ""
    answers = [row["text"] for row in rows if row["finish_reason"] != "error"]
    scores: dict[str, list[float]] = {}
    for row in rows:
        for name, score in row["scores"].items():
            if score["value"] is not None:
                scores.setdefault(name, []).append(score["value"])
    means = {name: sum(values) / len(values) for name, values in scores.items()}
    return {
        "doc_id": doc_id,
        "doc": doc,
        "target": target,
        "arguments": {
            "gen_args_0": {"arg_0": first["rendered"], "arg_1": _settings(first["settings"])}
        },
        "resps": [answers],
        "filtered_resps": answers,
        "filter": FILTER,
        "metrics": list(means),
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(first["rendered"]),
        "target_hash": _hash(target),
        **means,
    }


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {_NAMES.get(name, name): value for name, value in settings.items()}
    return {"do_sample": settings["temperature"] > 0, **renamed}


def _results(
    run: ReadRun, cell: Mapping[str, Any], task: str, means: _Means, n: int
) -> dict[str, Any]:
    manifest = run.manifest
    first = next(rowstream.rows(run, str(cell["cell_id"])), None)
    settings = _settings(first["settings"]) if first is not None else {}
    engine = manifest["engine"]
    started = datetime.fromisoformat(manifest["started_utc"]).timestamp()
    ended = manifest["ended_utc"]
    ended = started if ended is None else datetime.fromisoformat(ended).timestamp()
    about = {
        "workbench_run": manifest["run_id"],
        "cell": cell["label"],
        "cell_id": cell["cell_id"],
        "prompt_set_sha256": manifest["prompt_set"]["sha256"],
    }
    return {
        "results": {task: {"alias": task, **means.entries()}},
        "group_subtasks": {task: []},
        "configs": {
            task: {
                "task": task,
                "output_type": "generate_until",
                "generation_kwargs": settings,
                "metric_list": [{"metric": m, "higher_is_better": True} for m in means.sums],
                "metadata": about,
            }
        },
        "versions": {task: 1},
        "n-shot": {task: 0},
        "higher_is_better": {task: dict.fromkeys(means.sums, True)},
        "n-samples": {task: {"original": manifest["prompt_set"]["n_prompts"], "effective": n}},
        "config": {
            "model": f"awq-workbench {engine['engine']}",
            "model_args": f"pretrained={engine['model']},adapter={cell['adapter']}",
            "gen_kwargs": settings,
        },
        "git_hash": (manifest.get("git") or {}).get("commit"),
        "date": started,
        "model_source": engine["engine"],
        "model_name": engine["model"],
        "start_time": started,
        "end_time": ended,
        "total_evaluation_time_seconds": str(ended - started),
    }


def file_name(text: str) -> str:
    """A name fit for a file."""
    return re.sub(r"[^\w.+=-]+", "_", text).strip("_.")[:80]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
