"""Reviews of evalscope become runs; the files are ones that evalscope itself wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from workbench import comparing
from workbench.errors import PromptSetError
from workbench.interchange.imported import import_answers
from workbench.runs import Run

MADE = Path(__file__).parent / "data" / "interchange" / "evalscope"
"""Three sums, asked cold once and warm twice of a mock model."""
REVIEWS = "reviews/mock-sums/general_mcq_sums.jsonl"
PREDICTIONS = "predictions/mock-sums/general_mcq_sums.jsonl"


def _scores(run):
    """(label, prompt, repeat) to value."""
    labels = run.cells.set_index("cell_id")["label"]
    keys = zip(
        run.scores["cell_id"].map(labels),
        run.scores["prompt_id"],
        run.scores["repeat"],
        strict=True,
    )
    return dict(zip(keys, run.scores["value"], strict=True))


def test_two_evaluations_become_two_cells(tmp_path):
    """Groups are prompts, generations repeats, scores scorers; settings, model and token counts are read beside them."""
    told: list[str] = []
    run = Run(import_answers(MADE, out=tmp_path, say=told.append))
    assert told == []
    assert run.cells["label"].tolist() == ["greedy", "T=0.7"]
    assert run.cells["max_tokens"].tolist() == [16, 16]
    cold = {("greedy", str(n), 0): 1.0 for n in range(3)}
    warm = {("T=0.7", str(n), k): 1.0 - k for n in range(3) for k in range(2)}
    assert _scores(run) == cold | warm
    assert run.manifest["scorers"] == [
        {"name": "accuracy", "version": "evalscope 1.14.1", "options": {}}
    ]
    assert run.manifest["engine"]["model"] == "mock-sums"
    rows = run.generations
    assert (set(rows["n_output_tokens"]), set(rows["n_prompt_tokens"])) == ({4}, {40})
    assert rows["text"][0] == "ANSWER: B"
    assert run.prompts["0"].to_dict() == {
        "id": "0",
        "messages": [
            {
                "role": "user",
                "content": "What is 2 + 2?\nA) 3\nB) 4\nC) 5\nD) 6\nEnd with ANSWER: and a letter of A,B,C,D.",
            }
        ],
        "target": "B",
        "metadata": {"id": "1"},
    }
    assert comparing.compare(run, "T=0.7", "greedy").diff == -0.5


def test_reviews_alone_are_enough(tmp_path):
    """Without the files beside it a file of reviews is read; settings and token counts are then not known."""
    alone = tmp_path / "r.jsonl"
    shutil.copy(MADE / "warm" / REVIEWS, alone)
    told: list[str] = []
    run = Run(import_answers(alone, out=tmp_path, say=told.append))
    assert told == ["no temperature is given for the answers; it counts as 1"]
    assert len(run.generations) == 6
    assert set(run.generations["n_output_tokens"]) == {0}
    assert run.summary()["quality"].tolist() == [0.5]


def _copy(tmp_path):
    """A copy of the cold evaluation, and a function that changes a file of it."""
    folder = tmp_path / "cold"
    shutil.copytree(MADE / "cold", folder)

    def change(name, edit):
        lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        text = "\n".join(map(json.dumps, edit(lines)))
        (folder / name).write_text(text, encoding="utf-8")

    return folder, change


def test_failed_and_lost_predictions(tmp_path):
    """A failed prediction is a failed row, one cut off says so, and one without a review is counted."""
    folder, change = _copy(tmp_path)

    def spoil(rows):
        rows[0]["model_output"]["error"] = "timed out"
        rows[1]["model_output"]["choices"][0]["stop_reason"] = "max_tokens"
        return rows

    change(PREDICTIONS, spoil)
    change(REVIEWS, lambda rows: rows[:2])
    told: list[str] = []
    run = Run(import_answers(folder, out=tmp_path, say=told.append))
    assert told == [f"{folder / REVIEWS}: 1 of 3 predictions have no review; left out"]
    assert run.generations["error"].tolist()[0] == "timed out"
    assert run.generations["finish_reason"].tolist() == ["error", "length"]
    assert pd.isna(run.scores["value"][0])
    assert run.scores["reason"][0] == "not generated: timed out"


def test_several_targets_and_parts_of_messages(tmp_path):
    """Several targets stay several; text in parts is joined, and a picture is refused with its line."""
    folder, change = _copy(tmp_path)

    def edit(rows):
        rows[0]["target"] = ["B", "4"]
        rows[0]["messages"][0]["content"] = [
            {"type": "text", "text": "2+2"},
            {"type": "text", "text": "?"},
        ]
        return rows[:1]

    change(REVIEWS, edit)
    (prompt,) = Run(import_answers(folder / REVIEWS, out=tmp_path)).prompts
    assert (prompt.target, prompt.messages[0]["content"]) == (["B", "4"], "2+2?")

    def spoil(rows):
        rows[0]["messages"][0]["content"] = [{"type": "image", "image": "x"}]
        return rows

    change(REVIEWS, spoil)
    with pytest.raises(PromptSetError) as caught:
        import_answers(folder / REVIEWS, out=tmp_path)
    assert str(caught.value) == (
        f"answers: {folder / REVIEWS}:1: a message holds more than text (an image or sound)"
    )


def test_a_damaged_file_beside_the_reviews(tmp_path):
    """A settings or predictions file that cannot be read is named."""
    folder, _ = _copy(tmp_path)
    config = folder / "configs" / "task_config.yaml"
    config.write_text("a: [", encoding="utf-8")
    with pytest.raises(PromptSetError) as caught:
        import_answers(folder, out=tmp_path)
    assert str(caught.value) == (
        f"answers: {folder / REVIEWS}: with the files beside it: {config} cannot be read (ParserError)"
    )
    config.unlink()
    (folder / PREDICTIONS).write_text("{", encoding="utf-8")
    with pytest.raises(PromptSetError) as caught:
        import_answers(folder, out=tmp_path)
    assert "with the files beside it: not JSON" in str(caught.value)
