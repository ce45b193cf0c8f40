"""Outputs of OpenAI batches, joined to the requests they answer."""

from __future__ import annotations

import json

import pytest
from studies import sums

from workbench.errors import PromptSetError
from workbench.interchange.imported import import_answers
from workbench.prompts import PromptSet
from workbench.runs import Run

PROMPTS = PromptSet.from_records(sums(3), "sums")


def _file(tmp_path, name, lines):
    path = tmp_path / name
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def _request(n, url="/v1/chat/completions", **body):
    asked = {"messages": [{"role": "user", "content": f"What is {n} + 1?"}]}
    if url == "/v1/completions":
        asked = {"prompt": f"{n} + 1 ="}
    body = {"model": "gpt-4o-mini", **asked, **body}
    return {"custom_id": f"p{n}", "method": "POST", "url": url, "body": body, "target": n + 1}


def _answer(n, **choice):
    """A line as the service writes it."""
    return {
        "id": f"batch_req_{n}",
        "custom_id": f"p{n}",
        "response": {
            "status_code": 200,
            "request_id": f"req_{n}",
            "body": {
                "id": f"chatcmpl-{n}",
                "object": "chat.completion",
                "created": 1700000000,
                "model": "gpt-4o-mini-2024-07-18",
                "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, **choice}],
                "usage": {"prompt_tokens": 14, "completion_tokens": 2, "total_tokens": 16},
                "system_fingerprint": "fp_1",
            },
        },
        "error": None,
    }


def _said(text):
    return {"role": "assistant", "content": text, "refusal": None, "annotations": []}


def test_joined_to_the_requests(tmp_path):
    """Prompts, targets, settings and the model come from the batch's input; errors are failed rows of the same cell."""
    settings = {"temperature": 0.3, "top_p": 0.9, "max_completion_tokens": 32, "logprobs": True}
    asked = _file(tmp_path, "in.jsonl", [_request(n, seed=7, **settings) for n in range(4)])
    logprobs = {"content": [{"token": "1", "logprob": -0.1, "bytes": [49], "top_logprobs": []}]}
    late = {
        "id": "batch_req_2",
        "custom_id": "p2",
        "response": None,
        "error": {
            "code": "batch_expired",
            "message": "This request could not be executed in time.",
        },
    }
    bad = {
        "id": "batch_req_3",
        "custom_id": "p3",
        "response": {
            "status_code": 400,
            "request_id": "r",
            "body": {"error": {"message": "Bad request.", "type": "invalid", "code": None}},
        },
        "error": None,
    }
    lines = [
        bad,
        _answer(0, message=_said("1"), logprobs=logprobs),
        late,
        _answer(1, message=_said("2 and"), finish_reason="length"),
    ]
    told: list[str] = []
    path = _file(tmp_path, "out.jsonl", lines)
    run = Run(import_answers(path, asked, tmp_path, say=told.append))
    assert told == []
    (cell,) = run.cells.to_dict("records")
    found = (cell["temperature"], cell["top_p"], cell["max_tokens"])
    assert found == (0.3, 0.9, 32)
    table = run.generations[["prompt_id", "text", "finish_reason", "n_output_tokens"]]
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        ("p0", "1", "stop", 2),
        ("p1", "2 and", "length", 2),
        ("p2", "", "error", 0),
        ("p3", "", "error", 0),
    ]
    assert run.generations["error"].tolist()[2:] == [
        "This request could not be executed in time.",
        "Bad request.",
    ]
    assert run.manifest["engine"]["model"] == "gpt-4o-mini"
    assert run.prompts["p1"].target == 2


def test_completions(tmp_path):
    """``/v1/completions`` is read too, its prompt as a user's message."""
    asked = _file(tmp_path, "in.jsonl", [_request(n, "/v1/completions") for n in range(2)])
    path = _file(tmp_path, "out.jsonl", [_answer(n, text=f" {n + 1}") for n in range(2)])
    run = Run(import_answers(path, asked, tmp_path))
    assert run.generations["text"].tolist() == [" 1", " 2"]
    assert run.prompts["p0"].messages[0]["content"] == "0 + 1 ="


def test_requests_with_different_settings_are_cells(tmp_path):
    """Every combination of settings, and every model, that the input asks for is a cell."""
    body = [{"temperature": 0}, {"temperature": 0.7}, {"temperature": 0.7, "model": "gpt-4o"}]
    asked = _file(tmp_path, "in.jsonl", [_request(n, **b) for n, b in enumerate(body)])
    path = _file(tmp_path, "out.jsonl", [_answer(n, message=_said("1")) for n in range(3)])
    told: list[str] = []
    run = Run(import_answers(path, asked, tmp_path, say=told.append))
    answered = run.generations.set_index("prompt_id")["cell_id"]
    labels = answered.map(run.cells.set_index("cell_id")["label"])
    assert labels.tolist() == ["greedy gpt-4o-mini", "T=0.7 gpt-4o-mini", "T=0.7 gpt-4o"]
    assert told[0].startswith("the answers are of 2 models (gpt-4o-mini, gpt-4o)")


def test_without_the_requests(tmp_path):
    """Joined to other prompts by id, a failed line is of the same cell as the rest, and the model is the service's."""
    lines = [
        {"custom_id": "p2", "response": None, "error": {"message": "late"}},
        *(_answer(n, message=_said("1")) for n in range(2)),
    ]
    path = _file(tmp_path, "out.jsonl", lines)
    run = Run(import_answers(path, PROMPTS, tmp_path, settings={"temperature": 0.5}))
    assert run.cells["temperature"].tolist() == [0.5]
    assert run.manifest["engine"]["model"] == "gpt-4o-mini-2024-07-18"
    assert run.generations["error"].tolist()[2] == "late"


def test_several_choices_have_no_length(tmp_path):
    """The service counts the tokens of all choices together, so the length of one is not known."""
    line = _answer(0, message=_said("1"))
    line["response"]["body"]["choices"] *= 2
    run = Run(import_answers(_file(tmp_path, "out.jsonl", [line]), PROMPTS, tmp_path))
    assert run.generations["n_output_tokens"].tolist() == [0, 0]
    assert run.generations["n_prompt_tokens"].tolist() == [14, 14]


def test_other_endpoints(tmp_path):
    """An answer of another endpoint is refused with its line."""
    line = _answer(0)
    line["response"]["body"] = {"object": "list", "data": [{"embedding": [0.1]}]}
    path = _file(tmp_path, "out.jsonl", [line])
    with pytest.raises(PromptSetError) as caught:
        import_answers(path, PROMPTS, tmp_path)
    assert str(caught.value) == (
        f"answers: {path}:1: no choices: only answers of chat completions and completions are read"
    )
