"""Samples of lm-eval, read and written, tried with lm-eval itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from studies import study_file

import workbench as wb
from workbench import interchange
from workbench.interchange.imported import import_answers
from workbench.interchange.lmevalread import LATER
from workbench.runs import Run

DATA = Path(__file__).parent / "data" / "interchange"
MADE = DATA / "lm_eval"
"""Results and samples that lm-eval wrote of its dummy model, which says "lol": three questions, two answers, two filters."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of ours."""
    folder = tmp_path_factory.mktemp("run")
    return wb.run(study_file(folder), out=folder / "results", progress=False)


def _scores(run):
    """(prompt, repeat, scorer) to value and reason."""
    values = run.scores[["value", "reason"]].astype(object)
    values = values.where(values.notna(), None)
    keys = run.scores[["prompt_id", "repeat", "scorer"]].itertuples(index=False, name=None)
    return dict(zip(keys, values.itertuples(index=False, name=None), strict=True))


def test_files_of_lm_eval_become_a_run(tmp_path):
    """A folder of lm-eval's is read with its metrics, a scorer for each filter, settings, model and version."""
    told: list[str] = []
    run = Run(import_answers(MADE, out=tmp_path, say=told.append))
    assert told == [
        "the file has every answer under several filters (first, number); each is taken once",
        f"{LATER} answer",
    ]
    (cell,) = run.cells.to_dict("records")
    assert (cell["temperature"], cell["max_tokens"], list(cell["stop"])) == (0.7, 8, ["\n"])
    laughs = {"0": 0.0, "1": 1.0, "2": 0.0}
    expected = {(p, 0, "exact_match,first"): (good, None) for p, good in laughs.items()}
    expected |= {(p, 0, "exact_match,number"): (0.0, None) for p in laughs}
    later = {(p, 1, scorer): (None, LATER) for p, _, scorer in expected}
    assert _scores(run) == expected | later
    assert {s["version"] for s in run.manifest["scorers"]} == {"lm_eval 0.4.13"}
    assert set(run.generations["text"]) == {"lol"}
    assert run.manifest["engine"]["model"] == "dummy"
    assert run.summary()["quality"].tolist() == pytest.approx([1 / 3])
    assert run.prompts["1"].target == "lol"


@pytest.mark.long
def test_what_lm_eval_writes_today_reads_the_same(tmp_path):
    """Files made now by the installed lm-eval hold the same prompts, answers and scores as the ones kept here."""
    subprocess.run([sys.executable, DATA / "make_lm_eval.py", tmp_path / "made"], check=True)
    kept, made = (Run(import_answers(d, out=tmp_path)) for d in (MADE, tmp_path / "made"))
    assert _scores(kept) == _scores(made)
    assert kept.prompts.sha256 == made.prompts.sha256
    columns = ["cell_id", "prompt_id", "repeat", "text", "prompt"]
    pd.testing.assert_frame_equal(kept.generations[columns], made.generations[columns])


def test_lm_eval_takes_our_files_for_its_own(run, tmp_path):
    """lm-eval's helpers find the files, their task and time, its table prints our results, its metrics give the same."""
    from lm_eval import utils
    from lm_eval.api import metrics

    files = [str(path) for path in interchange.export(run, tmp_path, "lm-eval")]
    samples, results = utils.get_sample_results_filenames(files), utils.get_results_filenames(files)
    assert (samples, results) == (files[::2], files[1::2])
    for sample, result in zip(samples, results, strict=True):
        data = json.loads(Path(result).read_text(encoding="utf-8"))
        (task,) = data["results"]
        assert utils.get_file_task_name(Path(sample).name) == task
        stamp = utils.get_file_datetime(Path(sample).name)
        assert utils.get_file_datetime(Path(result).name) == f"{stamp}.json"
        rows = [json.loads(line) for line in Path(sample).read_text(encoding="utf-8").splitlines()]
        values = [row["numeric"] for row in rows]
        entry = data["results"][task]
        assert entry["numeric,none"] == pytest.approx(metrics.mean(values))
        assert entry["numeric_stderr,none"] == pytest.approx(metrics.mean_stderr(values))
        shown = [part.strip() for part in utils.make_table(data).splitlines()[2].split("|")]
        assert (shown[1], shown[5]) == (task, "numeric")
        numbers = [float(shown[7]), float(shown[9])]
        wanted = [entry["numeric,none"], entry["numeric_stderr,none"]]
        assert numbers == pytest.approx(wanted, abs=1e-4)
        assert all(row["doc_hash"] for row in rows)
        asked = rows[0]["arguments"]["gen_args_0"]["arg_0"]
        assert rows[0]["prompt_hash"] == utils.hash_string(asked)


def test_our_samples_come_back_with_their_scores(run, tmp_path):
    """A cell taken out and in again has the mean score of every prompt, and so the same quality."""
    files = interchange.export(run, tmp_path / "lm", "lm-eval")
    for folder, cell in zip(files[::2], run.cells["cell_id"], strict=True):
        again = Run(import_answers(folder.parent, out=tmp_path))
        own = run.summary().set_index("cell_id").loc[cell]
        assert again.summary()["quality"].tolist() == pytest.approx([own["quality"]])
        assert again.prompts.sha256 == run.prompts.sha256


def test_metrics_that_are_no_scores(tmp_path):
    """A metric that is not a number from 0 to 1 is kept as a scorer without a value, and says why."""
    row = {
        "doc_id": 0,
        "doc": {},
        "target": "4",
        "arguments": [["Q", {"do_sample": False}]],
        "resps": [["4"]],
        "filtered_resps": ["4"],
        "filter": "none",
        "metrics": ["bleu", "chars", "exact_match"],
        "bleu": [["4"], ["4"]],
        "chars": 12,
        "exact_match": 1.0,
    }
    path = tmp_path / "samples_x.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    run = Run(import_answers(path, out=tmp_path))
    assert _scores(run) == {
        ("0", 0, "exact_match"): (1.0, None),
        ("0", 0, "bleu"): (None, "the file says a list; a score is a number"),
        ("0", 0, "chars"): (None, "the file says 12; a score is between 0 and 1"),
    }
    assert run.primary == "exact_match"
