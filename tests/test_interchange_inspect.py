"""Logs of inspect_ai, read and written, tried with inspect_ai itself."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import TEXT
from studies import N_CELLS, study_file, sums

import workbench as wb
from workbench import comparing, interchange
from workbench.errors import PromptSetError, StoreError
from workbench.interchange import inspectread
from workbench.interchange.answerfiles import KNOWN
from workbench.interchange.imported import import_answers
from workbench.prompts import PromptSet
from workbench.records import Generation
from workbench.runs import Run
from workbench.store import RunStore

INSPECT = Path(sys.executable).with_name("inspect")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of ours."""
    folder = tmp_path_factory.mktemp("run")
    return wb.run(study_file(folder), out=folder / "results", progress=False)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The same as logs."""
    return interchange.export(run, tmp_path_factory.mktemp("logs"), "inspect")


DATA = Path(__file__).parent / "data" / "interchange"
MADE = DATA / "inspect"
"""Two logs that inspect_ai made with its mock model: warm with two epochs, and cold as JSON."""


def _scores(run):
    """(label, prompt, repeat, scorer) to value."""
    labels = run.cells.set_index("cell_id")["label"]
    table = run.scores.assign(label=run.scores["cell_id"].map(labels))
    values = table.set_index(["label", "prompt_id", "repeat", "scorer"])["value"]
    return {key: None if pd.isna(value) else value for key, value in values.items()}


def test_logs_come_back_as_the_run(run, exported, tmp_path):
    """A run taken out as logs and in again has the same prompts, cells in order, answers, seeds, lengths and scores."""
    again = Run(import_answers(exported[0].parent, out=tmp_path, name="back"))
    assert again.prompts.sha256 == run.prompts.sha256
    same = ["cell_id", "label", "adapter", "temperature", "top_k", "max_tokens"]
    assert again.cells[same].equals(run.cells[same])
    assert again.manifest["baseline"] == run.manifest["baseline"]
    columns = ["cell_id", "prompt_id", "repeat", "seed", "prompt", "text", "finish_reason"]
    columns += ["n_prompt_tokens", "n_output_tokens"]
    pd.testing.assert_frame_equal(again.generations[columns], run.generations[columns])
    assert _scores(again) == _scores(run)
    assert [(s["name"], s["version"]) for s in again.manifest["scorers"]] == [
        (s["name"], s["version"]) for s in run.manifest["scorers"]
    ]
    assert again.manifest["engine"]["model"] == run.manifest["engine"]["model"]
    for cell in run.cells["cell_id"]:
        found = comparing.compare_runs(run, again, cell, cell)
        assert (found.diff, found.better, found.worse) == (0, 0, 0)
        assert found.notes == ("Shared prompts: 6 of 6 and 6.",)


def test_inspect_reads_what_we_write(run, exported):
    """inspect_ai's own reader finds the answers, epochs, settings, and means that agree with the summary."""
    from inspect_ai.log import read_eval_log

    assert len(exported) == N_CELLS
    summary = run.summary().set_index("cell_id")
    for path, cell in zip(exported, run.cells.to_dict("records"), strict=True):
        log = read_eval_log(str(path))
        assert (log.status, log.eval.task, log.eval.model) == ("success", "small", "scripted")
        assert log.eval.model_generate_config.temperature == cell["temperature"]
        own = run.generations[run.generations["cell_id"] == cell["cell_id"]]
        assert log.eval.config.epochs == own["repeat"].max() + 1
        assert {(s.id, s.epoch - 1): s.output.completion for s in log.samples} == {
            (p, k): t for p, k, t in zip(own["prompt_id"], own["repeat"], own["text"], strict=True)
        }
        (scored,) = log.results.scores
        quality = summary.loc[cell["cell_id"], "quality"]
        assert scored.metrics["mean"].value == pytest.approx(quality)


def test_data_frames_of_inspect_are_right(run, exported):
    """``evals_df``, ``samples_df`` and ``messages_df`` of inspect_ai hold the run's numbers."""
    from inspect_ai.analysis import evals_df, messages_df, samples_df

    folder = str(exported[0].parent)
    with warnings.catch_warnings():
        # inspect_ai calls pandas 3.1 in a way that goes away with pandas 4
        warnings.filterwarnings("ignore", "The inplace keyword", category=DeprecationWarning)
        evals, samples = (f(folder, quiet=True) for f in (evals_df, samples_df))
        messages = messages_df(folder, quiet=True)
    means = dict(
        zip(evals["task_arg_cell"], evals["score_numeric_mean"].astype(float), strict=True)
    )
    labels = run.cells.set_index("cell_id")["label"]
    summary = run.summary()
    assert means == pytest.approx(
        dict(zip(summary["cell_id"].map(labels), summary["quality"], strict=True))
    )
    assert len(samples) == len(run.generations)
    assert samples["score_numeric"].astype(float).sum() == run.scores["value"].sum()
    tokens = run.generations[["n_prompt_tokens", "n_output_tokens"]].to_numpy().sum()
    assert samples["total_tokens"].sum() == tokens
    assert sorted(messages["content"][messages["role"] == "assistant"]) == sorted(
        run.generations["text"]
    )


@pytest.mark.long
def test_the_inspect_command_opens_them(exported, tmp_path):
    """``inspect log list``, ``log dump`` and ``view bundle`` take the files."""

    def inspect(*arguments):
        call = [str(INSPECT), *map(str, arguments)]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout

    folder = exported[0].parent
    listed = json.loads(inspect("log", "list", "--json", "--log-dir", folder))
    assert sorted(Path(entry["name"]).name for entry in listed) == [p.name for p in exported]
    assert {entry["task"] for entry in listed} == {"small"}
    dumped = json.loads(inspect("log", "dump", exported[0]))
    assert dumped["samples"][0]["messages"][-1]["role"] == "assistant"
    inspect("view", "bundle", "--log-dir", folder, "--output-dir", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "index.html").is_file()
    assert len(list((tmp_path / "bundle" / "logs").glob("*.eval"))) == N_CELLS


def test_logs_of_inspect_become_a_run(tmp_path):
    """Epochs are repeats, settings cells, its scores scorers; targets, token counts and the system message come along."""
    told: list[str] = []
    run = Run(
        import_answers([MADE / "warm.eval", MADE / "cold.json"], out=tmp_path, say=told.append)
    )
    assert told == []
    cells = run.cells[["label", "temperature", "top_p", "max_tokens"]].to_numpy().tolist()
    assert cells[0] == ["T=0.7", 0.7, 0.9, 8]
    assert cells[1][:2] == ["greedy", 0]
    assert list(run.cells["stop"][0]) == ["END"]
    system = {"role": "system", "content": "Be brief."}
    assert [p.to_dict() for p in run.prompts] == [
        {"id": "a", "messages": [system, {"role": "user", "content": "2+2?"}], "target": "4"},
        {
            "id": "b",
            "messages": [system, {"role": "user", "content": "3+4?"}],
            "target": ["7", "seven"],
            "metadata": {"k": 1},
        },
    ]
    warm = {("a", 0): 1.0, ("a", 1): 0.0, ("b", 0): 0.0, ("b", 1): 1.0}
    cold = {("a", 0): 1.0, ("b", 0): 0.0}
    assert _scores(run) == {
        (label, prompt, repeat, scorer): value
        for label, values in (("T=0.7", warm), ("greedy", cold))
        for (prompt, repeat), value in values.items()
        for scorer in ("match", "includes")
    }
    rows = run.generations
    assert (set(rows["seed"]), set(rows["n_output_tokens"])) == ({5}, {3})
    assert sorted(rows["finish_reason"]) == ["length", *["stop"] * 5]
    assert run.manifest["scorers"] == [
        {"name": name, "version": "inspect_ai 0.3.285", "options": {}}
        for name in ("match", "includes")
    ]
    assert run.manifest["engine"]["model"] == "mockllm/model"
    files = run.manifest["engine"]["extra"]["files"]
    assert [(f["file"], f["format"], f["task"], f["status"]) for f in files] == [
        (name, "an inspect_ai log", "sums", "success") for name in ("warm.eval", "cold.json")
    ]
    assert files[0]["working_time_s"] > 0
    assert run.latency.empty
    interchange.export(run, tmp_path / "again", "inspect")
    again = Run(import_answers(tmp_path / "again", out=tmp_path))
    assert again.cells["cell_id"].tolist() == run.cells["cell_id"].tolist()
    assert _scores(again) == _scores(run)
    assert again.prompts.sha256 == run.prompts.sha256


@pytest.mark.long
def test_what_inspect_writes_today_reads_the_same(tmp_path):
    """Logs made now by the installed inspect_ai hold the same prompts, answers and scores as the ones kept here."""
    subprocess.run([sys.executable, DATA / "make_inspect.py", tmp_path / "made"], check=True)
    runs = [
        Run(import_answers([d / "warm.eval", d / "cold.json"], out=tmp_path))
        for d in (MADE, tmp_path / "made")
    ]
    assert _scores(runs[0]) == _scores(runs[1])
    assert runs[0].prompts.sha256 == runs[1].prompts.sha256
    columns = ["cell_id", "prompt_id", "repeat", "text", "seed", "n_output_tokens"]
    pd.testing.assert_frame_equal(*(run.generations[columns] for run in runs))


def test_json_logs_need_no_inspect(tmp_path, monkeypatch):
    """Without inspect_ai a JSON log is read to the same run, and an .eval file says what to install."""
    with_it = Run(import_answers(MADE / "cold.json", out=tmp_path))

    def missing():
        raise ImportError("No module named 'inspect_ai'")

    monkeypatch.setattr(inspectread, "library", missing)
    without = Run(import_answers(MADE / "cold.json", out=tmp_path))
    assert _scores(without) == _scores(with_it)
    assert without.prompts.sha256 == with_it.prompts.sha256
    pd.testing.assert_frame_equal(
        without.generations.drop(columns="run_id"), with_it.generations.drop(columns="run_id")
    )
    with pytest.raises(PromptSetError) as caught:
        import_answers(MADE / "warm.eval", out=tmp_path)
    assert str(caught.value) == (
        f"answers: {MADE / 'warm.eval'}: needs inspect_ai to be read; pip install 'awq-workbench[interchange]'"
    )


def test_export_without_inspect(run, tmp_path, monkeypatch):
    """Without inspect_ai the export says what to install, and writes nothing."""
    from workbench.interchange import inspectlog

    def missing():
        raise ImportError("No module named 'inspect_ai'")

    monkeypatch.setattr(inspectlog, "library", missing)
    with pytest.raises(StoreError) as caught:
        interchange.export(run, tmp_path / "logs", "inspect")
    assert str(caught.value) == (
        "the format inspect needs inspect_ai; pip install 'awq-workbench[interchange]'"
    )
    assert not (tmp_path / "logs").exists()


def _log(tmp_path, samples, name="log.json", **changes: Any):
    """A log as JSON, with the fields that count."""
    about = {"task": "t", "model": "m", "packages": {"inspect_ai": "0.3.9"}} | changes
    path = tmp_path / name
    path.write_text(
        json.dumps({"version": 2, "status": "success", "eval": about, "samples": samples}),
        encoding="utf-8",
    )
    return path


def _sample(text="4", scores=None, **changes: Any):
    said = {"role": "assistant", "content": text, "source": "generate"}
    return {
        "id": 1,
        "epoch": 1,
        "input": "2+2?",
        "target": "4",
        "messages": [{"role": "user", "content": "2+2?"}, said],
        "output": {"choices": [{"message": said, "stop_reason": "stop"}]},
        "scores": {name: {"value": value} for name, value in (scores or {}).items()},
    } | changes


@pytest.fixture
def plain(monkeypatch):
    """Reads JSON logs as they are."""

    def missing():
        raise ImportError

    monkeypatch.setattr(inspectread, "library", missing)


@pytest.mark.parametrize(
    ("value", "score", "reason"),
    [
        ("C", 1, None),
        ("I", 0, None),
        ("P", 0.5, None),
        ("N", None, "graded N: no answer"),
        (True, 1, None),
        (0.25, 0.25, None),
        (3, None, "the file says 3; a score is between 0 and 1"),
        ("good", None, "the file says 'good'; a score is a number"),
        ([1, 0], None, "the file says a list; a score is a number"),
        (float("nan"), None, "not scored"),
    ],
)
@pytest.mark.usefixtures("plain")
def test_values_of_scores(tmp_path, value, score, reason):
    """Grades and numbers from 0 to 1 are scores; anything else has no value and says why."""
    run = Run(import_answers(_log(tmp_path, [_sample(scores={"s": value})]), out=tmp_path))
    (row,) = run.scores.to_dict("records")
    found = tuple(None if pd.isna(row[name]) else row[name] for name in ("value", "reason"))
    assert found == (score, reason)
    assert row["scorer_version"] == "inspect_ai 0.3.9"


@pytest.mark.usefixtures("plain")
def test_a_score_of_several_values_is_several(tmp_path):
    """A scorer with a value per aspect becomes a scorer per aspect; one without any number is not the primary."""
    scores = {"words": "many", "judge": {"tone": 0.5, "facts": "C"}}
    run = Run(import_answers(_log(tmp_path, [_sample(scores=scores)]), out=tmp_path))
    assert _scores(run) == {
        ("imported", "1", 0, "words"): None,
        ("imported", "1", 0, "judge.tone"): 0.5,
        ("imported", "1", 0, "judge.facts"): 1.0,
    }
    assert run.primary == "judge.tone"


@pytest.mark.usefixtures("plain")
def test_failed_samples_are_failed_rows(tmp_path):
    """A sample with an error, withheld, or without output is a failed row without a score; the rest is there."""
    withheld = {"choices": [{"message": {"role": "assistant", "content": ""}}]}
    withheld["choices"][0]["stop_reason"] = "content_filter"
    samples = [
        _sample(scores={"s": 1}),
        _sample(id=2, error={"message": "too long"}, scores={"s": 0}),
        _sample(id=3, output=withheld),
        _sample(id=4, output={"choices": []}),
    ]
    told: list[str] = []
    path = _log(tmp_path, samples)
    run = Run(import_answers(path, out=tmp_path, say=told.append))
    assert run.status == "failed rows"
    errors = run.generations.set_index("prompt_id")["error"]
    assert errors.tolist()[1:] == [
        "too long",
        "withheld by a content filter",
        "no output in the log",
    ]
    assert _scores(run) == {
        ("imported", str(n), 0, "s"): 1 if n == 1 else None for n in (1, 2, 3, 4)
    }
    assert run.scores["reason"].tolist()[1] == "not generated: too long"
    assert told == ["no temperature is given for the answers; it counts as 0"]


@pytest.mark.usefixtures("plain")
def test_several_models_are_told_apart(tmp_path):
    """Logs of two models with equal settings are two cells, each model standing as an adapter."""
    first = _log(tmp_path, [_sample(scores={"s": 1})], "a.json", model="openai/small")
    second = _log(tmp_path, [_sample("5", scores={"s": 0})], "b.json", model="openai/large")
    told: list[str] = []
    run = Run(import_answers([first, second], out=tmp_path, say=told.append))
    assert run.cells["adapter"].tolist() == ["openai-small", "openai-large"]
    assert run.summary()["quality"].tolist() == [1, 0]
    assert told[0] == (
        "the answers are of 2 models (openai/small, openai/large); each stands as an adapter"
    )
    found = comparing.compare(run, "imported openai-large")
    assert (found.diff, found.worse) == (-1, 1)


@pytest.mark.usefixtures("plain")
def test_several_tasks_keep_their_prompts_apart(tmp_path):
    """Samples of two tasks that have the same ids are prompts of their own."""
    files = [_log(tmp_path, [_sample()], f"{task}.json", task=task) for task in ("x", "y")]
    run = Run(import_answers(files, out=tmp_path))
    assert [p.id for p in run.prompts] == ["x/1", "y/1"]
    assert len(run.cells) == 1


@pytest.mark.usefixtures("plain")
def test_tools_and_thinking(tmp_path):
    """Calls of tools are part of the answer in a form that scorers read; the model's thinking is not."""
    call = {"id": "c", "function": "add", "arguments": {"a": 1}, "type": "function"}
    parts = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "So:"}]
    said = {"role": "assistant", "content": parts, "tool_calls": [call]}
    output = {"choices": [{"message": said, "stop_reason": "tool_calls"}]}
    run = Run(import_answers(_log(tmp_path, [_sample(output=output)]), out=tmp_path))
    (row,) = run.generations.to_dict("records")
    assert row["text"] == 'So:\n{"name": "add", "arguments": {"a": 1}}'
    assert row["finish_reason"] == "tool_calls"


def _problem(path, tmp_path):
    with pytest.raises(PromptSetError) as caught:
        import_answers(path, out=tmp_path / "results")
    assert not (tmp_path / "results").exists()
    return str(caught.value).replace(str(path), "FILE").removeprefix("answers: ")


@pytest.mark.usefixtures("plain")
def test_logs_that_cannot_be_read(tmp_path):
    """What is wrong with a log is said in one line each."""
    path = tmp_path / "x.json"
    path.write_text("{}", encoding="utf-8")
    assert _problem(path, tmp_path) == f"FILE:1: not answers; what can be read: {KNOWN}"
    path.write_text("{", encoding="utf-8")
    assert _problem(path, tmp_path).startswith("FILE:1: not JSON: Expecting property name")
    assert _problem(_log(tmp_path, []), tmp_path) == (
        "FILE: no samples; was the evaluation logged without them?"
    )
    picture = [{"role": "user", "content": [{"type": "image", "image": "x"}]}]
    spoken = [*picture, {"role": "assistant", "content": "4", "source": "generate"}]
    assert _problem(_log(tmp_path, [_sample(messages=spoken)]), tmp_path) == (
        "FILE: sample 1 epoch 1: a message holds more than text (image)"
    )
    assert _problem(_log(tmp_path, [_sample(), _sample()]), tmp_path) == (
        "FILE: sample 1 epoch 1: repeat 0 of prompt '1' is already at FILE: sample 1 epoch 1"
    )
    assert _problem(tmp_path / "gone.json", tmp_path) == (
        "FILE: cannot be read (No such file or directory)"
    )


def test_a_damaged_log(tmp_path):
    """A log that inspect_ai itself cannot read is one error with what it says."""
    path = tmp_path / "x.eval"
    path.write_bytes(b"PK nothing")
    found = _problem(path, tmp_path)
    assert found.startswith("FILE: inspect_ai cannot read it (")
    assert "\n" not in found


@pytest.mark.usefixtures("plain")
def test_an_evaluation_that_did_not_succeed(tmp_path):
    """What there is of it is read, and its state is said."""
    path = _log(tmp_path, [_sample()])
    log = json.loads(path.read_text()) | {"status": "cancelled"}
    path.write_text(json.dumps(log), encoding="utf-8")
    told: list[str] = []
    import_answers(path, out=tmp_path, settings={"temperature": 0}, say=told.append)
    assert told == [f"{path}: the evaluation did not succeed (status 'cancelled')"]


def test_a_folder_without_answers(tmp_path):
    """A folder with nothing to read says what can be read; results and reports of JSON are not taken for logs."""
    (tmp_path / "results_2026.json").write_text("{}", encoding="utf-8")
    assert _problem(tmp_path, tmp_path) == (
        f"FILE: no answers in this folder; what can be read: {KNOWN}"
    )


@settings(max_examples=8, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=2), TEXT.filter(str.strip))
@example(["data:image/png;base64,iVBORw0KGgo=", "attachment://x"], "data:text/plain;base64,eA==")
def test_texts_come_through_logs_as_they_are(tmp_path_factory, texts, asked):
    """Questions and answers are the same, character for character, after they went through a log."""
    folder = tmp_path_factory.mktemp("texts")
    path = folder / "a.jsonl"
    path.write_text("\n".join(json.dumps({"id": "p", "text": t}) for t in texts), encoding="utf-8")
    prompts = PromptSet.from_records([{"id": "p", "prompt": asked, "target": asked}])
    first = Run(import_answers(path, prompts, folder, model="m"))
    interchange.export(first, folder / "logs", "inspect")
    again = Run(import_answers(folder / "logs", out=folder))
    assert again.generations["text"].tolist() == texts
    assert again.prompts.sha256 == prompts.sha256


def test_adapters_templates_failures_and_odd_targets_come_back(tmp_path):
    """What inspect_ai has no place for is kept: adapters, templates, sides of the split, targets that are not text."""
    rows = [
        {"id": "n", "prompt": "x", "target": 3, "group": "g", "metadata": {"k": [1]}},
        {"id": "l", "prompt": "y", "target": ["a", 2]},
        {"id": "o", "prompt": "z", "target": {"k": 1}},
        *sums(8),
    ]
    study = wb.Study(
        prompts=PromptSet.from_records(rows, "odd"),
        grid={"cold": {"temperature": 0}, "warm": {"temperature": 0.7, "repetition_penalty": 1.2}},
        adapters=["base", {"terse": "terse"}],
        templates={"plain": None, "brief": "{{ input }} Briefly."},
        split={"confirm": 0.4},
        scorers=["exact"],
        engine={"kind": "scripted"},
        latency=None,
    )
    done = wb.run(study, out=tmp_path, progress=False)
    first = done.generations.iloc[0]
    key = (first["cell_id"], first["prompt_id"], int(first["repeat"]))
    with RunStore.open(done.path, write=True) as store:
        for table in ("generations", "scores"):
            store._db.execute(
                f"DELETE FROM {table} WHERE cell_id = ? AND prompt_id = ? AND repeat = ?",
                key,
            )
        store.add_generations([Generation(*key, "", (), 0, "error", error="too long")])
    done = Run(done.path)
    files = interchange.export(done, tmp_path / "logs", "inspect")
    assert len(files) == 8
    again = Run(import_answers(tmp_path / "logs", out=tmp_path, name="back"))
    same = ["cell_id", "label", "adapter", "template", "temperature", "repetition_penalty"]
    pd.testing.assert_frame_equal(
        again.cells[same].sort_values("cell_id", ignore_index=True),
        done.cells[same].sort_values("cell_id", ignore_index=True),
    )
    columns = ["cell_id", "prompt_id", "repeat", "text", "error", "split", "group", "prompt"]
    order = ["cell_id", "prompt_id", "repeat"]
    frames = [r.generations[columns].sort_values(order, ignore_index=True) for r in (again, done)]
    pd.testing.assert_frame_equal(*frames)
    assert {p.id: p.target for p in again.prompts} == {p.id: p.target for p in done.prompts}
    ours = _scores(done)
    assert {k: v for k, v in _scores(again).items() if v is not None} == {
        k: v for k, v in ours.items() if v is not None
    }
    interchange.export(done, tmp_path / "logs", "inspect", force=True)
    with pytest.raises(StoreError, match="there is a file already"):
        interchange.export(done, tmp_path / "logs", "inspect")
    with pytest.raises(StoreError) as caught:
        interchange.export(done, files[0], "inspect")
    assert str(caught.value) == f"{files[0]}: is a file; inspect's files need a folder"
