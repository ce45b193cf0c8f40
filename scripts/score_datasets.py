"""Score the demo model on every prompt set that ships, under the settings of the table in ``datasets/README.md``.

Writes ``datasets/demo_scores.json``: for each set and each setting the mean score of its primary scorer with a 95 %
interval (clustered by group), the number of prompts, and the mean answer length in tokens (the end token counted). One draw
per prompt; greedy settings repeat exactly, the others with the study's seed. About half an hour on two cores.

The runs stay in ``results/prompt_sets/``: an interrupted call goes on there, and answers already given are only scored
again, so that a change of a scorer takes seconds.

The tables between the marks of ``datasets/README.md`` are written from that file.

Usage: ``python scripts/score_datasets.py [SET ...]`` (default: all sets; the others in the file stay as they are), or
``python scripts/score_datasets.py --tables`` to write the tables without running anything.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import workbench as wb
from workbench import registry

if TYPE_CHECKING:
    from workbench.engines.base import Engine

ROOT: Final = Path(__file__).resolve().parent.parent
SCORES: Final = ROOT / "datasets" / "demo_scores.json"
README: Final = ROOT / "datasets" / "README.md"
RUNS: Final = ROOT / "results" / "prompt_sets"
SEED: Final = 1
COLUMNS: Final = 8
"""Columns of the page's table of all sets."""
SETTINGS: Final = {
    "temperature 0": {"temperature": 0},
    "temperature 0.6": {"temperature": 0.6},
    "temperature 1": {"temperature": 1.0},
    "temperature 1, top_k 10": {"temperature": 1.0, "top_k": 10},
    "temperature 0, repetition_penalty 1.1": {"temperature": 0, "repetition_penalty": 1.1},
    "temperature 0, repetition_penalty 1.3": {"temperature": 0, "repetition_penalty": 1.3},
    "temperature 1, repetition_penalty 1.1": {"temperature": 1.0, "repetition_penalty": 1.1},
    "temperature 1, repetition_penalty 1.3": {"temperature": 1.0, "repetition_penalty": 1.3},
}
WORDINGS: Final = {
    "as-it-is": None,
    "finish": 'Finish the sentence with the past tense of "{{ verb }}": Yesterday I',
    "tell": "Tell me what I did yesterday if I do the same every day: I {{ verb }} {{ rest }}.",
    "past": "Put into the past: I {{ verb }} {{ rest }}.",
    "past-after-an-example": [
        {"role": "user", "content": "Put into the past: I rest in a chair."},
        {"role": "assistant", "content": "I rested in a chair."},
        {"role": "user", "content": "Put into the past: I {{ verb }} {{ rest }}."},
    ],
}
"""Templates for the set made for them, each run greedy and at temperature 1."""


def measured(run: wb.Run, by: str) -> dict[str, dict[str, float | int]]:
    """Score, interval, size and length of each cell."""
    rows = run.summary(seed=SEED).drop(columns=[by], errors="ignore")
    rows = rows.merge(run.cells[["cell_id", by]], on="cell_id").to_dict("records")
    return {
        str(row[by]): {
            "score": round(row["quality"], 4),
            "lo": round(row["quality_lo"], 4),
            "hi": round(row["quality_hi"], 4),
            "n": int(row["n_scored"]),
            "tokens": round(row["n_output_tokens_mean"], 1),
            "loops": round(row["loop_rate"], 4),
        }
        for row in rows
    }


def answered(study: wb.Study, engine: Engine) -> wb.Run:
    """The run of a study, judged by today's scorers."""
    return wb.score(wb.run(study, engine=engine, out=RUNS), study.scorers)


def score(name: str, engine: Engine) -> dict[str, Any]:
    """All settings on one set, and all wordings where the set is made for them."""
    values = registry.entry(name).study() | {"name": name, "model": "demo", "seed": SEED}
    values |= {"repeats": 1, "latency": None}
    found: dict[str, Any] = measured(answered(wb.Study(grid=SETTINGS, **values), engine), "name")
    if name == "templated":
        for label in ("temperature 0", "temperature 1"):
            study = wb.Study(grid={label: SETTINGS[label]}, templates=WORDINGS, **values)
            worded = measured(answered(study, engine), "template")
            found |= {f"{wording}: {label}": row for wording, row in worded.items()}
    return found


def percent(row: dict[str, float], *, interval: bool = False) -> str:
    """A score in percent, with its interval if wanted."""
    text = f"{100 * row['score']:.0f} %"
    return f"{text} [{100 * row['lo']:.0f}, {100 * row['hi']:.0f}]" if interval else text


def settings_table(scores: dict[str, Any]) -> str:
    """A row a set, a column a setting."""
    short = {"temperature": "T", "repetition_penalty": "rp", "top_k": "k"}
    heads = [
        " ".join(short.get(w, w) for w in label.replace(",", "").split()) for label in SETTINGS
    ]
    lines = ["set", *heads, "tokens, T 0 / T 1"]
    rows = [" | ".join(lines), " | ".join(["---"] * len(lines))]
    for name, found in scores.items():
        lengths = " / ".join(f"{found[f'temperature {t}']['tokens']:.0f}" for t in (0, 1))
        cells = [percent(found[label], interval=label == "temperature 0") for label in SETTINGS]
        rows.append(" | ".join([f"`{name}`", *cells, lengths]))
    return "\n".join(f"| {row} |" for row in rows)


def wordings_table(scores: dict[str, Any]) -> str:
    """A row a wording of the set made for templates."""
    rows = ["wording | T 0 | T 1", "--- | --- | ---"]
    for label, template in WORDINGS.items():
        last = (
            template if isinstance(template, str) or template is None else template[-1]["content"]
        )
        told = "the prompt as it is" if last is None else f"`{last}`"
        if not isinstance(template, str | None):
            told += ", after one worked example"
        cells = [percent(scores["templated"][f"{label}: temperature {t}"]) for t in (0, 1)]
        rows.append(" | ".join([told, *cells]))
    return "\n".join(f"| {row} |" for row in rows)


def with_scores(line: str, scores: dict[str, Any]) -> str:
    """A row of the table of all sets with its two scores written anew; any other line as it is."""
    cells = line.split(" | ")
    name = cells[0].removeprefix("| ").strip("`")
    if name not in scores or len(cells) != COLUMNS:
        return line
    cells[5] = percent(scores[name]["temperature 0"], interval=True)
    cells[6] = percent(scores[name]["temperature 1"])
    return " | ".join(cells)


def with_tables(text: str, scores: dict[str, Any]) -> str:
    """The page with its scores written anew."""
    text = "\n".join(with_scores(line, scores) for line in text.split("\n"))
    for mark, table in (("settings", settings_table), ("wordings", wordings_table)):
        begin, end = f"<!-- scores: {mark} -->", "<!-- end -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{table(scores)}\n\n{end}{rest.partition(end)[2]}"
    return text


def main(arguments: list[str]) -> None:
    """Score the sets named on the command line, and write the tables."""
    scores = json.loads(SCORES.read_text(encoding="utf-8")) if SCORES.exists() else {}
    if arguments != ["--tables"]:
        engine = wb.load_engine("demo", kernel="fp32")
        for name in arguments or registry.names():
            scores[name] = score(name, engine)
            scores = {n: scores[n] for n in registry.names() if n in scores}
            SCORES.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
            print(name, {k: v["score"] for k, v in scores[name].items()}, flush=True)
    text = README.read_text(encoding="utf-8")
    README.write_text(with_tables(text, scores), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
