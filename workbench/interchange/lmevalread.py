"""The samples of lm-eval (EleutherAI's evaluation harness), as it writes them with ``--log_samples``.

A row is a document with all its answers. It is written again for every filter of the task: each answer is taken once, and
the metrics of a filter become scores of their own, ``<metric>,<filter>``. lm-eval judges the answers to a document
together: where there are several, the one score stands at the first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from workbench.interchange.answer import Answer, judged, valid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FORM: Final = "lm-eval samples"
LATER: Final = "lm-eval judges the answers to a prompt together; its score stands at the first"
_NAMES: Final = {"max_gen_toks": "max_tokens", "until": "stop"}
_FILE: Final = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT.+)\.jsonl")


def read(where: str, row: Mapping[str, Any]) -> Iterator[Answer]:
    """The answers of one sample.

    Raises:
        ValueError: It holds likelihoods.
    """
    doc = row["doc"] if isinstance(row["doc"], Mapping) else {}
    prompt_id = str(doc.get("id", row["doc_id"]))
    rendered, asked = _request(row)
    settings = valid({_NAMES.get(name, name): value for name, value in asked.items()})
    if asked.get("do_sample") is False:
        settings["temperature"] = 0.0
    own = {"id": prompt_id, "messages": doc["messages"]} if "messages" in doc else None
    own = own or {"id": prompt_id, "prompt": rendered}
    target = doc["target"] if "messages" in doc and "target" in doc else row.get("target")
    own |= {} if target in (None, "") else {"target": target}
    own |= {key: doc[key] for key in ("metadata", "group") if "messages" in doc and key in doc}
    filtered = row.get("filtered_resps") or [None]
    said = filtered[0] if isinstance(filtered[0], str) else None
    metrics = {name: judged(row.get(name), said) for name in row.get("metrics") or ()}
    for repeat, text in enumerate(row["resps"][0]):
        yield Answer(
            where,
            prompt_id,
            text,
            repeat,
            settings=settings,
            seed=settings.get("seed"),
            scores=metrics if repeat == 0 else {m: judged(None, reason=LATER) for m in metrics},
            rendered=rendered,
            row=own,
        )


def _request(row: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """What a sample's model was asked, and with which settings."""
    requests = row["arguments"]
    requests = list(requests.values() if isinstance(requests, Mapping) else requests)
    first = requests[0]
    asked, settings = (
        (first["arg_0"], first.get("arg_1")) if isinstance(first, Mapping) else (*first, None)[:2]
    )
    texts = all(isinstance(text, str) for text in row["resps"][0])
    if len(requests) > 1 or not texts or not isinstance(settings, Mapping | None):
        raise ValueError(
            "likelihoods, not answers (multiple_choice or loglikelihood); only samples of output_type "
            "generate_until can be imported"
        )
    return str(asked), settings or {}


def completed(
    path: Path, found: Sequence[tuple[Mapping[str, Any], Answer]]
) -> tuple[list[Answer], dict[str, Any], list[str]]:
    """The answers of a file, each once with the scores of all filters, and what the results beside it say of the run.

    Args:
        path: The file of samples.
        found: Its rows with their answers.
    """
    named = _FILE.fullmatch(path.name)
    results = _results(path, named["date"]) if named else {}
    about = {"lm_eval": results.get("lm_eval_version"), "task": named["task"] if named else None}
    filters = list(dict.fromkeys(str(row.get("filter") or "none") for row, _ in found))
    merged: dict[tuple[str, int | None, str], Answer] = {}
    plain: list[Answer] = []
    seen: dict[tuple[str, int | None, str], str] = {}
    for row, answer in found:
        key, own = (answer.prompt_id, answer.repeat, answer.text), str(row.get("filter") or "none")
        made = replace(answer, task=about["task"], model=_model(results))
        if len(filters) > 1:
            made = replace(made, scores={f"{m},{own}": s for m, s in answer.scores.items()})
        if key in merged and seen[key] != own:
            kept = merged[key]
            merged[key] = replace(kept, scores={**kept.scores, **made.scores})
        elif key in merged:
            plain.append(made)  # the same twice, which is told where answers are numbered
        else:
            merged[key], seen[key] = made, own
    notes = []
    if len(merged) + len(plain) < len(found):
        names = ", ".join(filters)
        notes.append(
            f"the file has every answer under several filters ({names}); each is taken once"
        )
    if any(answer.repeat and answer.scores for answer in merged.values()):
        notes.append(f"{LATER} answer")
    return [*merged.values(), *plain], {k: v for k, v in about.items() if v is not None}, notes


def _results(path: Path, date: str) -> Mapping[str, Any]:
    """The results that lm-eval wrote with a file of samples; nothing if they are not there."""
    beside = path.with_name(f"results_{date}.json")
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _model(results: Mapping[str, Any]) -> str | None:
    """The model's name; that of the kind of model where there is no other."""
    said = results.get("model_name") or (results.get("config") or {}).get("model")
    return None if said is None else str(said)
