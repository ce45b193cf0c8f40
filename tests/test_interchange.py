"""Runs in other programs' forms, and prompt files as JSONL."""

from __future__ import annotations

import csv
import hashlib
import json
import os

import pandas as pd
import pytest
from hypothesis import given, settings
from strategies import rows
from studies import N_CELLS, N_PROMPTS, N_ROWS, study_file

import workbench as wb
from workbench import interchange
from workbench.errors import PromptSetError, StoreError
from workbench.interchange import rowstream
from workbench.prompts import PromptSet, load
from workbench.records import Generation, Score
from workbench.runs import Run
from workbench.store import RunStore, ScoreRow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose prompts hold what files trip over."""
    folder = tmp_path_factory.mktemp("run")
    study = wb.Study.from_yaml(study_file(folder))
    nasty = [
        {"id": "=1+1", "prompt": 'a "quote", a\nline and a | pipe', "target": ["x", 1]},
        {"id": "ü", "prompt": "Grüße <b>&amp;</b> 😀", "target": "-3", "metadata": {"k": [1]}},
        {"id": "a\rb", "prompt": "one\rtwo", "target": "\r=1"},
    ]
    prompts = PromptSet.from_records(
        [*(p.to_dict() for p in study.load_prompts()), *nasty], "sums & more"
    )
    return wb.run(study.replace(prompts=prompts), out=folder / "results", progress=False)


N_ALL = N_ROWS // N_PROMPTS * (N_PROMPTS + 3)


def _sorted(records):
    return sorted(records, key=lambda r: (r["cell_id"], r["prompt_id"], int(r["repeat"])))


def test_jsonl_holds_the_run(run, tmp_path):
    """Every answer is one line with its prompt, target, settings and scores, equal to the record."""
    (path,) = interchange.export(run, tmp_path / "x" / "out.jsonl", "jsonl")
    found = _sorted(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
    frame = run.generations.sort_values(["cell_id", "prompt_id", "repeat"])
    assert len(found) == len(frame) == N_ALL
    assert [r["text"] for r in found] == frame["text"].tolist()
    assert [r["rendered"] for r in found] == frame["prompt"].tolist()
    assert [r["settings"]["temperature"] for r in found] == frame["temperature"].tolist()
    for row in found:
        prompt = run.prompts[row["prompt_id"]]
        assert (row["messages"], row["target"]) == (list(prompt.messages), prompt.target)
        assert row.get("metadata", {}) == prompt.metadata
    values = run.scores.set_index(["cell_id", "prompt_id", "repeat"])["value"]
    for row in found:
        value = row["scores"]["numeric"]["value"]
        recorded = values[row["cell_id"], row["prompt_id"], row["repeat"]]
        assert value == recorded or (value is None and pd.isna(recorded))


def test_csv_and_parquet_hold_the_same(run, tmp_path):
    """The flat tables agree with each other and with the record, whatever the texts hold."""
    (flat,) = interchange.export(run, tmp_path / "out.csv", "csv")
    (packed,) = interchange.export(run, tmp_path / "out.parquet", "parquet")
    with flat.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    table = pd.read_parquet(packed)
    assert list(table) == list(read[0]) == interchange.columns(run)
    assert len(read) == len(table) == N_ALL
    for name in ("text", "prompt_id", "question", "target", "finish_reason"):
        assert [r[name] for r in read] == table[name].fillna("").tolist()
    assert [float(r["temperature"]) for r in read] == table["temperature"].tolist()
    assert table["score_numeric"].mean() == pytest.approx(run.scores["value"].mean())
    assert {r["target"] for r in read} >= {'["x", 1]', "-3", "1", "\r=1"}
    assert pd.read_csv(flat, dtype=str, keep_default_na=False)["prompt_id"].tolist() == [
        r["prompt_id"] for r in read
    ]


def test_spreadsheets_see_no_formulas(run, tmp_path):
    """With spreadsheet, a text that begins like a formula gets a quote before it; numbers stay."""
    plain, safe = tmp_path / "plain.csv", tmp_path / "safe.csv"
    interchange.export(run, plain, "csv")
    interchange.export(run, safe, "csv", spreadsheet=True)
    tables = []
    for path in (plain, safe):
        with path.open(encoding="utf-8", newline="") as file:
            tables.append(list(csv.reader(file)))
    changed = {
        (a, b) for x, y in zip(*tables, strict=True) for a, b in zip(x, y, strict=True) if a != b
    }
    assert {("=1+1", "'=1+1"), ("-3", "'-3"), ("\r=1", "'\r=1")} <= changed
    assert all(b == f"'{a}" and a[0] in "=+-@\t\r" for a, b in changed)
    for cell in (cell for row in tables[1] for cell in row):
        assert not cell.startswith(("=", "@", "+", "\t", "\r"))


def test_lm_eval_files(run, tmp_path):
    """Every cell is a folder with lm-eval's two files, whose numbers agree with the run's."""
    files = interchange.export(run, tmp_path / "lm", "lm-eval")
    assert len(files) == 2 * N_CELLS == len(set(files))
    summary = run.summary().set_index("cell_id")["quality"]
    for samples, results in zip(files[::2], files[1::2], strict=True):
        lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
        data = json.loads(results.read_text(encoding="utf-8"))
        (task,) = data["results"]
        assert samples.name.startswith(f"samples_{task}_20")
        assert data["n-samples"][task] == {"original": N_PROMPTS + 3, "effective": len(lines)}
        scored = [line["numeric"] for line in lines if line["metrics"]]
        entry = data["results"][task]
        assert entry["numeric,none"] == pytest.approx(sum(scored) / len(scored))
        deviation = pd.Series(scored).std() / len(scored) ** 0.5
        assert entry["numeric_stderr,none"] == pytest.approx(deviation)
        cell_id = data["configs"][task]["metadata"]["cell_id"]
        assert entry["numeric,none"] == pytest.approx(summary[cell_id])
        own = run.generations[run.generations["cell_id"] == cell_id]
        for line in lines:
            answers = own[own["prompt_id"] == line["doc"]["id"]].sort_values("repeat")["text"]
            assert line["resps"] == [answers.tolist()]
            request = line["arguments"]["gen_args_0"]
            assert request["arg_1"]["do_sample"] is (request["arg_1"]["temperature"] > 0)
            digest = hashlib.sha256(request["arg_0"].encode()).hexdigest()
            assert line["prompt_hash"] == digest
        assert [line["doc_id"] for line in lines] == list(range(N_PROMPTS + 3))


def test_markdown_and_summary(run, tmp_path):
    """The tables by cell hold every cell, and nothing in a name can break the table."""
    (path,) = interchange.export(run, tmp_path / "out.md", "markdown")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("**small**: scripted, 9 prompts (sums &amp; more), run `")
    body = [line for line in lines if line.startswith("|")]
    assert len(body) == 2 + N_CELLS
    assert {line.count("|") for line in body} == {7}
    (path,) = interchange.export(run, tmp_path / "s.csv", "summary")
    table = pd.read_csv(path).astype({"on_front": "boolean"})
    pd.testing.assert_frame_equal(table.drop(columns="label"), run.summary(), check_dtype=False)
    assert table["label"].tolist() == run.cells["label"].tolist()


def test_nothing_is_overwritten_or_left_half(run, tmp_path, monkeypatch):
    """A file that is there stays unless forced; a failed export leaves nothing, and the old file whole."""
    path = tmp_path / "out.csv"
    path.write_text("mine")
    with pytest.raises(StoreError) as caught:
        interchange.export(run, path, "csv")
    assert str(caught.value) == (
        f"{path}: there is a file already; choose another name, or force it"
    )
    assert path.read_text() == "mine"

    def broken(run, cell_id=None):
        yield from list(rowstream_rows(run, cell_id))[:3]
        raise OSError(28, "No space left on device")

    rowstream_rows = rowstream.rows
    monkeypatch.setattr(rowstream, "rows", broken)
    for format in ("csv", "jsonl", "parquet"):  # noqa: A001 - as the function calls it
        with pytest.raises(StoreError) as caught:
            interchange.export(run, path, format, force=True)
        assert str(caught.value) == f"{path}: cannot be written (No space left on device)"
    assert (path.read_text(), os.listdir(tmp_path)) == ("mine", ["out.csv"])  # noqa: PTH208
    monkeypatch.undo()
    interchange.export(run, path, "csv", force=True)
    assert path.read_text().startswith("run_id,")


def test_a_name_taken_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    """Of two that write one name at the same time the first keeps it, also where files cannot be linked."""
    path = tmp_path / "out.txt"
    for links in (True, False):
        path.unlink(missing_ok=True)
        if not links:
            monkeypatch.setattr(os, "link", _no_links)
        writing = rowstream.whole(path, force=False)
        writing.__enter__().write("second")
        path.write_text("first")
        with pytest.raises(StoreError) as caught:
            writing.__exit__(None, None, None)
        assert str(caught.value) == (
            f"{path}: there is a file already; choose another name, or force it"
        )
        assert (path.read_text(), os.listdir(tmp_path)) == ("first", ["out.txt"])  # noqa: PTH208
    path.unlink()
    with rowstream.whole(path, force=False) as file:
        file.write("alone")
    assert path.read_text() == "alone"


def _no_links(*_args, **_kw):
    raise PermissionError(1, "Operation not permitted")


def test_lm_eval_files_appear_together(run, tmp_path, monkeypatch):
    """A file in the way, or a full disk, at a later cell leaves no files of the earlier ones."""
    last = interchange.export(run, tmp_path / "good", "lm-eval")[-1].parent
    folder = tmp_path / "lm"
    folder.mkdir()
    (folder / last.name).write_text("mine")
    with pytest.raises(StoreError) as caught:
        interchange.export(run, folder, "lm-eval")
    assert str(caught.value) == (f"{folder / last.name}: is a file; lm-eval's files need a folder")
    assert [p.name for p in folder.iterdir()] == [last.name]
    (folder / last.name).unlink()
    cell = run.cells["cell_id"].tolist()[-1]
    good = rowstream.rows

    def full(run, cell_id=None):
        if cell_id == cell:
            raise OSError(28, "No space left on device")
        return good(run, cell_id)

    monkeypatch.setattr(rowstream, "rows", full)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)$"):
        interchange.export(run, folder, "lm-eval")
    assert list(folder.iterdir()) == []


def test_names_of_files(run, tmp_path):
    """In a folder the file is named after the run; a file in a folder's place is refused."""
    (path,) = interchange.export(run, tmp_path, "jsonl")
    assert path == tmp_path / f"{run.id}.jsonl"
    (path,) = interchange.export(run, tmp_path, "summary")
    assert path == tmp_path / f"{run.id}-summary.csv"
    for spec, said in [
        (
            ("x", "pdf"),
            "unknown format 'pdf'; known: csv, jsonl, parquet, lm-eval, inspect, markdown, summary",
        ),
        ((path, "lm-eval"), f"{path}: is a file; lm-eval's files need a folder"),
    ]:
        with pytest.raises(StoreError) as caught:
            interchange.export(run, *spec)
        assert str(caught.value) == said
    interchange.export(run, tmp_path / "lm", "lm-eval")
    with pytest.raises(StoreError, match="there is a file already"):
        interchange.export(run, tmp_path / "lm", "lm-eval")


def test_failed_and_unscored_answers(tmp_path):
    """A failed answer is exported with its error and no score; lm-eval's means leave it out."""
    study = wb.Study(
        prompts=PromptSet.from_records(
            [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}], "s"
        ),
        fixed={"temperature": 0, "max_tokens": 3, "stop": ["."]},
        engine={"kind": "scripted"},
        scorers=["exact"],
        latency=None,
    )
    done = wb.run(study, out=tmp_path, progress=False)
    (cell,) = done.cells["cell_id"]
    with RunStore.open(done.path, write=True) as store:
        store._db.execute("DELETE FROM generations")
        store._db.execute("DELETE FROM scores")
        good = Generation(cell, "a", 0, "x", (1,), 1, "stop")
        bad = Generation(cell, "b", 0, "", (), 1, "error", error="too long")
        (version,) = rowstream.scorers(done).values()
        score = ScoreRow(good.key, "exact", version, Score(1.0))
        old = ScoreRow(good.key, "exact", "0", Score(0.0))
        store.add_generations([good, bad], [score, old])
    again = Run(done.path)
    (path,) = interchange.export(again, tmp_path / "o.jsonl", "jsonl")
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["scores"] == {
        "exact": {
            "value": 1.0,
            "answer": None,
            "explanation": "",
            "reason": None,
            "version": version,
        }
    }
    assert (second["error"], second["scores"], second["settings"]["stop"]) == (
        "too long",
        {},
        ["."],
    )
    samples, results = interchange.export(again, tmp_path / "lm", "lm-eval")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [(line["resps"], line["metrics"]) for line in lines] == [
        ([["x"]], ["exact"]),
        ([[]], []),
    ]
    assert lines[0]["arguments"]["gen_args_0"]["arg_1"]["until"] == ["."]
    entry = json.loads(results.read_text())["results"]["s"]
    assert (entry["exact,none"], entry["exact_stderr,none"]) == (1.0, "N/A")


@settings(max_examples=25)
@given(rows())
def test_converted_prompts_read_back_the_same(tmp_path_factory, records):
    """JSONL written from any set has the set's hash and order."""
    folder = tmp_path_factory.mktemp("convert")
    path = folder / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    made = interchange.convert(path, folder / "out.jsonl")
    again = load(folder / "out.jsonl")
    assert again.sha256 == made.sha256 == PromptSet.from_records(records).sha256
    assert [p.id for p in again] == [p.id for p in made]


def test_conversions(tmp_path):
    """CSV with a map, batch files and promptfoo files become JSONL; wordings go beside it."""
    table = tmp_path / "q.csv"
    table.write_text("Q,A\n=2+2?,4\n")
    made = interchange.convert(table, tmp_path / "q.jsonl", {"prompt": "Q", "target": "A"})
    assert load(tmp_path / "q.jsonl").sha256 == made.sha256
    assert made.prompts[0].target == "4"
    foo = tmp_path / "foo.yaml"
    foo.write_text("prompts: ['Say {{w}}', '{{w}}!']\ntests:\n  - vars: {w: [a, b]}\n")
    made = interchange.convert(str(foo), tmp_path / "foo.jsonl")
    assert load(tmp_path / "foo.jsonl").sha256 == made.sha256
    text = (tmp_path / "foo.templates.yaml").read_text()
    assert text == 'templates:\n  "p1": "Say {{w}}"\n  "p2": "{{w}}!"\n'
    for call, error, said in [
        ((table, tmp_path / "q.csv"), StoreError, f"{table}: prompts are written as .jsonl"),
        (
            (foo, tmp_path / "q.jsonl"),
            StoreError,
            f"{tmp_path}/q.jsonl: there is a file already; choose another name, or force it",
        ),
        (
            (
                {"file": str(table), "fields": {"prompt": "Q"}},
                tmp_path / "n.jsonl",
                {"prompt": "Q"},
            ),
            PromptSetError,
            "prompts: fields are given twice",
        ),
    ]:
        with pytest.raises(error) as caught:
            interchange.convert(*call)
        assert str(caught.value) == said
    assert interchange.convert(foo, tmp_path / "q.jsonl", force=True).name == "foo"
