"""Answers made elsewhere become runs like any other."""

from __future__ import annotations

import hashlib
import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TEXT
from studies import study_file, sums

import workbench as wb
from workbench import api, breakdown, comparing, interchange
from workbench.errors import PromptSetError, StoreError, StudyError
from workbench.interchange.answerfiles import KNOWN
from workbench.interchange.imported import import_answers
from workbench.prompts import PromptSet
from workbench.runs import Run
from workbench.scorers.toolcalls import parse_calls
from workbench.store import RunStore

PROMPTS = PromptSet.from_records(sums(3), "sums")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of ours, to be taken out and in again."""
    folder = tmp_path_factory.mktemp("run")
    return wb.run(study_file(folder), out=folder / "results", progress=False)


def _file(tmp_path, *lines):
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def _problems(path, *args, **kw):
    with pytest.raises(PromptSetError) as caught:
        import_answers(path, *args, **kw)
    return [
        problem.removeprefix(f"{path}:").replace(f"{path}:", "line ")
        for problem in caught.value.problems
    ]


def _answers(run):
    frame = run.generations
    return {
        (p, label, k): text
        for p, label, k, text in zip(
            frame["prompt_id"],
            frame["cell_id"].map(run.cells.set_index("cell_id")["label"]),
            frame["repeat"],
            frame["text"],
            strict=True,
        )
    }


def test_answers_without_tokens_have_no_length(tmp_path):
    """Plain rows say nothing of tokens: lengths are unknown, not 0, in the summary and in the picture."""
    path = _file(tmp_path, *({"id": f"p{i}", "text": str(i)} for i in range(3)))
    run = api.score(Run(import_answers(path, PROMPTS, tmp_path)), ["numeric"], progress=False)
    assert run.summary()["n_output_tokens_mean"].isna().all()
    lengths = breakdown.lengths(run)
    assert lengths["n"].tolist() == [3]
    assert lengths["mean"].isna().all()


def test_our_export_comes_back(run, tmp_path):
    """A run taken out as JSONL and in again has the same cells, prompts and answers, and scores the same."""
    (path,) = interchange.export(run, tmp_path / "out.jsonl", "jsonl")
    again = Run(import_answers(path, out=tmp_path, name="back", model="m"))
    assert (again.status, again.manifest["engine"]["engine"]) == ("finished", "imported")
    assert again.manifest["engine"]["extra"] == {
        "file": "out.jsonl",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "format": "our export",
    }
    assert again.prompts.sha256 == run.prompts.sha256
    assert _answers(again) == _answers(run)
    same = ["cell_id", "prompt_id", "repeat", "scorer", "scorer_version", "value", "reason"]
    pd.testing.assert_frame_equal(again.scores[same], run.scores[same])
    assert again.generations["n_output_tokens"].equals(run.generations["n_output_tokens"])
    assert comparing.compare_runs(run, again).diff == 0
    scored = api.score(again, ["numeric"], progress=False)
    for column in ("quality", "n_scored", "temperature", "top_k"):
        assert scored.summary()[column].tolist() == pytest.approx(
            run.summary()[column].tolist(), nan_ok=True
        )
    assert len(again.plan.cells) == len(run.cells)


def test_lm_eval_samples(run, tmp_path):
    """Samples carry their prompts, their settings and all draws."""
    files = interchange.export(run, tmp_path / "lm", "lm-eval")
    samples = next(f for f in files if "T=0.7_k=10" in str(f) and f.name.startswith("samples"))
    again = Run(import_answers(samples, out=tmp_path, name="lm"))
    (cell,) = again.cells.to_dict("records")
    assert (cell["label"], cell["temperature"], cell["top_k"]) == ("lm", 0.7, 10)
    assert again.prompts.sha256 == run.prompts.sha256
    ours = {(p, k): t for (p, label, k), t in _answers(run).items() if label == "T=0.7 k=10"}
    assert {(p, k): t for (p, _, k), t in _answers(again).items()} == ours
    assert set(again.generations["prompt"]) == set(run.generations["prompt"])


def test_lm_eval_samples_of_other_tasks(tmp_path):
    """A task's own documents are no rows of ours: the prompt is what the model was asked, the id the document's number."""
    row = {
        "doc_id": 7,
        "doc": {"question": "2+2?"},
        "target": "4",
        "arguments": {
            "gen_args_0": {
                "arg_0": "Q: 2+2?\nA:",
                "arg_1": {"until": ["\n"], "max_gen_toks": 9, "do_sample": False, "top_k": 0},
            }
        },
        "resps": [["4"]],
        "filtered_resps": ["4"],
    }
    run = Run(import_answers(_file(tmp_path, row), out=tmp_path))
    prompt = run.prompts["7"]
    assert (prompt.messages[0]["content"], prompt.target) == ("Q: 2+2?\nA:", "4")
    (cell,) = run.cells.to_dict("records")
    assert (cell["max_tokens"], cell["temperature"], list(cell["stop"])) == (9, 0, ["\n"])


def test_openai_batch_output(tmp_path):
    """Choices are draws, refusals and failures are failed rows."""

    def row(custom_id, status=200, **body):
        return {
            "custom_id": custom_id,
            "response": {"status_code": status, "body": body},
            "error": None,
        }

    message = {"role": "assistant", "content": "1"}
    path = _file(
        tmp_path,
        row("p0", choices=[{"message": message, "finish_reason": "stop"}, {"message": message}]),
        row("p1", choices=[{"message": {"content": None}, "finish_reason": "length"}]),
        row("p1", choices=[{"message": {"content": "x"}, "finish_reason": "content_filter"}]),
        row("p2", status=429, error={"message": "slow down"}),
        {"custom_id": "p2", "response": None, "error": {"code": "expired", "message": "too late"}},
    )
    run = Run(import_answers(path, PROMPTS, tmp_path, settings={"temperature": 0.5}))
    assert run.manifest["status"] == "failed rows"
    table = run.generations[["prompt_id", "repeat", "text", "finish_reason", "error"]]
    found = [tuple(None if v != v else v for v in row) for row in table.itertuples(index=False)]  # noqa: PLR0124 - NaN
    assert found == [
        ("p0", 0, "1", "stop", None),
        ("p0", 1, "1", "stop", None),
        ("p1", 0, "", "length", None),
        ("p1", 1, "", "error", "withheld by a content filter"),
        ("p2", 0, "", "error", "slow down"),
        ("p2", 1, "", "error", "too late"),
    ]
    assert run.cells["temperature"].tolist() == [0.5]


def test_tool_calls_and_refusals_are_answers(tmp_path):
    """A batch's tool calls arrive in a form that the tool_call scorer reads, and a refusal as its words."""

    def call(name, arguments):
        return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}

    said = [
        {"content": None, "tool_calls": [call("add", '{"a": 1}')]},
        {"content": "Both:", "tool_calls": [call("add", "{}"), call("sub", '{"b": 2}')]},
        {"content": None, "tool_calls": [call("add", "{oops")]},
        {"content": None, "refusal": "I will not."},
    ]
    choices = [{"message": m, "finish_reason": "tool_calls"} for m in said]
    path = _file(
        tmp_path,
        {"custom_id": "p0", "response": {"status_code": 200, "body": {"choices": choices}}},
    )
    texts = Run(import_answers(path, PROMPTS, tmp_path)).generations["text"].tolist()
    assert texts[0] == '{"name": "add", "arguments": {"a": 1}}'
    assert [[(c.name, c.arguments) for c in parse_calls(text).calls] for text in texts] == [
        [("add", {"a": 1})],
        [("add", {}), ("sub", {"b": 2})],
        [],
        [],
    ]
    assert "{oops" in texts[2]
    assert texts[3] == "I will not."


def _sample(doc_id, filter_name, text="4"):
    request = {"arg_0": f"Q{doc_id}", "arg_1": {"until": ["x"], "do_sample": False}}
    row = {"doc_id": doc_id, "doc": {"q": "?"}, "target": "4", "filter": filter_name}
    return row | {"arguments": {"gen_args_0": request}, "resps": [[text]]}


def test_lm_eval_samples_under_several_filters(tmp_path):
    """Each answer is taken once, and that is said; rows that differ are still refused."""
    lines = [_sample(n, f) for n in range(3) for f in ("strict-match", "flexible-extract")]
    told = []
    run = Run(import_answers(_file(tmp_path, *lines), out=tmp_path, say=told.append))
    assert run.generations["prompt_id"].tolist() == ["0", "1", "2"]
    assert told == [
        "the file has every answer under several filters (strict-match, flexible-extract); each is taken once"
    ]
    lines[1]["resps"] = [["5"]]
    assert _problems(_file(tmp_path, *lines), out=tmp_path) == [
        "2: repeat 0 of prompt '0' is already at line 1"
    ]


def test_lm_eval_samples_that_are_no_answers(tmp_path):
    """Likelihoods are refused by name, and a long file is not refused line by line to its end."""
    said = (
        "likelihoods, not answers (multiple_choice or loglikelihood); only samples of output_type "
        "generate_until can be imported"
    )
    choice = _sample(0, "none")
    choice["arguments"] = {f"gen_args_{n}": {"arg_0": "Q", "arg_1": f" {n}"} for n in range(4)}
    choice["resps"] = [[[-1.0, False]]] * 4
    one = _sample(0, "none") | {"arguments": [["Q", " yes"]], "resps": [[[-1.0, True]]]}
    for row in (choice, one):
        assert _problems(_file(tmp_path, row)) == [f"1: {said}"]
    found = _problems(_file(tmp_path, *[choice] * 30))
    assert (len(found), found[-1]) == (21, "...")
    old = _sample(0, "none") | {"arguments": [["Q", {"until": ["x"], "do_sample": False}]]}
    assert len(Run(import_answers(_file(tmp_path, old), out=tmp_path)).generations) == 1


def test_our_export_of_templates_adapters_and_names(tmp_path):
    """Cells keep name, adapter and template, and prompts their side of the split."""
    templates = {"plain": None, "brief": "{{ input }} Briefly."}
    study = wb.Study(
        prompts=PromptSet.from_records(sums(20), "sums"),
        grid={"cold": {"temperature": 0}, "warm": {"temperature": 0.7}},
        templates=templates,
        split={"confirm": 0.35},
        repeats=2,
        engine={"kind": "scripted"},
        latency=None,
    )
    done = wb.run(study, out=tmp_path, progress=False)
    (path,) = interchange.export(done, tmp_path / "o.jsonl", "jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    other = [
        line
        | {"cell_id": f"x{line['cell_id']}", "adapter": "terse", "label": f"{line['label']} terse"}
        for line in lines
    ]
    told = []
    again = Run(import_answers(_file(tmp_path, *lines, *other), out=tmp_path, say=told.append))
    cells = [tuple(cell) for cell in again.cells[["label", "adapter", "template"]].to_numpy()]
    assert cells == [
        (f"{name} {template}" + (" terse" if adapter == "terse" else ""), adapter, template)
        for adapter in ("base", "terse")
        for template in templates
        for name in ("cold", "warm")
    ]
    base = done.cells["cell_id"].tolist()
    assert again.cells["cell_id"].tolist()[:4] == base
    ours, theirs = _answers(done), _answers(again)
    assert {key: theirs[key] for key in ours} == ours
    assert len(theirs) == 2 * len(ours)
    sides = done.generations.set_index("prompt_id")["split"].to_dict()
    assert "confirm" in sides.values()
    assert again.generations.set_index("prompt_id")["split"].to_dict() == sides
    assert set(again.generations["prompt"]) == set(done.generations["prompt"])
    assert told == [
        "the wordings of the templates are not in the file; prompts are shown as the first one words them"
    ]
    for line in lines[:10]:
        line["split"] = "select" if line["split"] == "confirm" else "confirm"
    import_answers(_file(tmp_path, *lines), out=tmp_path, say=told.append)
    assert told[-1] == "the split in the file is none that a study can have; no prompt is held out"


def test_tools_and_vars_come_back(tmp_path):
    """What a prompt holds besides its messages is in our export, and read from it."""
    tool = {"type": "function", "function": {"name": "add"}}
    rows = [{"id": "a", "prompt": "x", "tools": [tool], "vars": {"n": 1}, "metadata": {"k": 2}}]
    study = wb.Study(
        prompts=PromptSet.from_records(rows), engine={"kind": "scripted"}, latency=None
    )
    done = wb.run(study, out=tmp_path, progress=False)
    (path,) = interchange.export(done, tmp_path / "o.jsonl", "jsonl")
    assert Run(import_answers(path, out=tmp_path)).prompts.sha256 == done.prompts.sha256


def test_an_import_that_is_cut_short_leaves_nothing(tmp_path, monkeypatch):
    """A failure, or an interrupt, leaves no half run."""
    path = _file(tmp_path, {"id": "p0", "text": "1"})
    for error in (KeyboardInterrupt, StoreError("disk full")):

        def broken(*_, error=error):
            raise error

        monkeypatch.setattr(RunStore, "add_generations", broken)
        with pytest.raises((KeyboardInterrupt, StoreError)):
            import_answers(path, PROMPTS, tmp_path / "results")
        assert list((tmp_path / "results" / "imported").iterdir()) == []


def test_what_a_run_lacks_is_said(tmp_path):
    """Prompts without an answer are counted, and a temperature that nobody names is said."""
    told = []
    import_answers(_file(tmp_path, {"id": "p1", "text": "1"}), PROMPTS, tmp_path, say=told.append)
    assert told == [
        "no temperature is given for the answers; it counts as 0",
        "2 of 3 prompts have no answer (first: 'p0')",
    ]


def test_unknown_settings(tmp_path):
    """Without settings, one answer per prompt counts as greedy and several as drawn."""
    one = _file(tmp_path, {"id": "p0", "text": "1"}, {"id": "p1", "text": "2"})
    assert Run(import_answers(one, PROMPTS, tmp_path)).cells["temperature"].tolist() == [0]
    two = _file(tmp_path, {"id": "p0", "text": "1"}, {"id": "p0", "text": "2"})
    run = Run(import_answers(two, PROMPTS, tmp_path))
    assert run.cells["temperature"].tolist() == [1]
    assert run.generations["repeat"].tolist() == [0, 1]


@settings(max_examples=5, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=3))
def test_texts_come_in_as_they_are(tmp_path_factory, texts):
    """An answer is recorded character for character."""
    folder = tmp_path_factory.mktemp("texts")
    path = _file(folder, *({"id": "p0", "text": text} for text in texts))
    assert Run(import_answers(path, PROMPTS, folder)).generations["text"].tolist() == texts


@pytest.mark.parametrize(
    ("lines", "problems"),
    [
        ([], [" no answers"]),
        ([3], [f"1: a row must be an object, got 3; what can be read: {KNOWN}"]),
        (
            [{"id": "p0", "answer": "x"}],
            [
                (
                    "1: not answers; what can be read: inspect_ai logs (.eval, .json), "
                    "lm-eval samples (doc_id, resps), evalscope reviews (index, sample_score), "
                    "OpenAI batch output (custom_id, response), our JSONL export, or rows with id and text"
                )
            ],
        ),
        (
            [{"id": "p0", "text": "x"}, {"id": "p0"}, {"id": "p0", "text": 3}],
            [
                "2: not a row of plain answers (KeyError: 'text')",
                "3: text must be text, got 3",
            ],
        ),
        (
            [{"id": "p0", "text": "x", "repeat": -1}, {"id": "p0", "text": "x", "repeat": "one"}],
            [
                "1: repeat must be a whole number at least 0, got -1",
                "2: repeat must be a whole number at least 0, got 'one'",
            ],
        ),
        (
            [{"id": "p0", "text": "x"}, {"id": "zz", "text": "x"}, {"id": "yy", "text": "x"}],
            ["2: no prompt 'zz' in sums", "3: no prompt 'yy' in sums"],
        ),
        (
            [{"id": "p0", "text": "x", "repeat": 0}, {"id": "p0", "text": "y", "repeat": 0}],
            ["2: repeat 0 of prompt 'p0' is already at line 1"],
        ),
    ],
)
def test_problems_are_listed_with_lines(tmp_path, lines, problems):
    """What cannot be joined or read is said line by line, and no run is made."""
    path = _file(tmp_path, *lines)
    assert _problems(path, PROMPTS, tmp_path / "results") == problems
    assert not (tmp_path / "results").exists()


def test_prompts_must_come_from_somewhere(tmp_path, run):
    """A file without prompts needs them named; one that words a prompt in two ways too."""
    path = _file(tmp_path, {"id": "p0", "text": "x"})
    assert _problems(path) == [" holds no prompts; name the prompts it answers"]
    (exported,) = interchange.export(run, tmp_path / "o.jsonl", "jsonl")
    lines = [json.loads(line) for line in exported.read_text().splitlines()][:2]
    lines[1]["messages"][0]["content"] = "Another wording"
    assert _problems(_file(tmp_path, *lines)) == [
        "2: prompt 'p0' is worded in two ways; name the prompts it answers"
    ]
    lines[1] = lines[0] | {"label": "other", "cell_id": "other"}
    assert _problems(_file(tmp_path, *lines)) == [
        " several cells have equal settings; import them one by one"
    ]
    plain = _file(tmp_path, {"id": "p0", "text": "x"})
    with pytest.raises(
        StudyError, match=r"temperature: must be a number at least 0 and at most 5, got 9$"
    ):
        import_answers(plain, PROMPTS, tmp_path, settings={"temperature": 9})
