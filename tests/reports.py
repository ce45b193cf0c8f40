"""Runs to report on, and the report's notebook executed in this process, without the seconds a kernel takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import nbformat
from nbformat.v4 import new_output

from workbench import api
from workbench.engines.scripted import PlantedQuality, ScriptedClock, ScriptedEngine
from workbench.prompts import PromptSet
from workbench.reporting import make
from workbench.runs import Run
from workbench.study import Study

if TYPE_CHECKING:
    from pathlib import Path

    from nbformat import NotebookNode

    from workbench.records import Request

GRID: dict[str, list[Any]] = {"temperature": [0, 0.7, 1.3], "top_k": [10, 50]}
CODE = """<script>window.owned = 1; document.title = "owned"</script>"""
HANDLER = """<img src=x onerror='window.owned = 1; document.title = "owned"'>"""
CLOSING = f"</pre></code></td></tr></table></details></style></title></textarea>-->]]>{CODE}"
TEXTS = (
    f"Sum: 1 {CODE}",
    f"\"> {HANDLER} ' onfocus=x autofocus",
    f"{CLOSING}\n{HANDLER}",
    '<a href="javascript:window.owned=1">click</a> <iframe srcdoc="<script>parent.owned=1</script>">',
    "<svg onload=window.owned=1><style>@import 'http://evil.example/x.css'</style></svg>",
    '<meta http-equiv="refresh" content="0;url=http://evil.example/"><base href="http://evil.example/">',
    "{{ 7 * 191 }}{% raw %} ${7*191} <%= 7*191 %> \x1b[31mred \u202egnirts \x00 \u200bhidden",
    "\n# heading\n```\n| a | b |\n[x](javascript:alert(1)) ![x](http://evil.example/x.png) @everyone #1 www.evil.example",
    "]( javascript:1) <http://evil.example> *b* _i_ ~~s~~ `c` &lt;b&gt; \\<b\\> $\\frac{$ :tada:",
)
"""What a model, a prompt file or a label may hold; none of it may ever act."""


def right(request: Request) -> float:
    """Chance of a right answer: greedy and narrow is better."""
    return 0.85 - 0.3 * request.params.temperature - 0.1 * ((request.params.top_k or 0) > 20)


def make_run(folder: Path, *, n_prompts: int = 24, engine: Any = None, **changes: Any) -> Run:
    """A small run of sums with exact latencies; a change to None leaves the field out, ``latency=False`` times nothing."""
    rows = [
        {"id": f"p{i}", "prompt": f"What is {i} + 1?", "target": str(i + 1)}
        for i in range(n_prompts)
    ]
    declared = {
        "name": "small",
        "model": "scripted",
        "prompts": PromptSet.from_records(rows, "sums"),
        "grid": GRID,
        "fixed": {"max_tokens": 12},
        "repeats": 2,
        "seed": 7,
        "scorers": ["numeric"],
        "latency": {"prompts": 3, "warmup": 1, "rounds": 2},
        "engine": {"kind": "scripted"},
        "baseline": {"temperature": 0.7, "top_k": 50},
    } | changes
    study = Study(**{key: value for key, value in declared.items() if value is not None})
    answers = {row["id"]: f"The sum is {row['target']}." for row in rows}
    engine = engine or ScriptedEngine(
        quality=PlantedQuality(right, answers), clock=ScriptedClock(40.0, 20.0)
    )
    return api.run(study, engine, out=folder, progress=False)


def nasty_run(folder: Path) -> Run:
    """A run in which every text from outside tries to get out: answers, prompts, ids, targets, labels, errors, names."""
    rows = [
        {"id": f"{i} {text}", "prompt": f"Say {text}", "target": text if i % 2 else "1"}
        for i, text in enumerate(TEXTS)
    ]
    fails = {rows[0]["id"]: f"broken {CLOSING}"}

    def answer(request: Request) -> str:
        n = int(request.prompt_id.split()[0])
        greedy = request.params.temperature == 0
        return f"1 {TEXTS[n]}" if greedy else f"{TEXTS[(n + 1) % len(TEXTS)]} 2"

    run = make_run(
        folder,
        engine=ScriptedEngine(
            responses=answer,
            clock=ScriptedClock(40.0, 20.0),
            fail=lambda r: fails.get(r.prompt_id) if r.params.temperature else None,
        ),
        prompts=PromptSet.from_records(rows, CODE),
        grid=[
            {"temperature": 0, "stop": [CLOSING]},
            {"temperature": 0.7, "stop": [HANDLER]},
            {"temperature": 1.3, "stop": ["\u202e`|$[x](javascript:1)\\frac{$"]},
        ],
        baseline=None,
        fixed={"max_tokens": 60},
        scorers=["contains", "numeric"],
    )
    path = run.path / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["study"]["name"] = f"nasty {CLOSING} @everyone"
    manifest["engine"] |= {"model": HANDLER, "kernel_reason": CODE}
    manifest["command_line"] = ["workbench", "run", CLOSING]
    manifest["study"]["text"] += f"# {CLOSING}\n"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return Run(run.path)


def executed(run: Run | Path, baseline: str | None = None, seed: int = 0) -> NotebookNode:
    """The report's notebook with the outputs its cells have for a run."""
    book = nbformat.read(make.notebook(), as_version=4)
    names: dict[str, Any] = {}
    for cell in book.cells:
        if cell.cell_type != "code":
            continue
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"RUN": run, "BASELINE": baseline, "SEED": seed}
            continue
        *lines, last = cell.source.rstrip().splitlines()
        exec("\n".join(lines), names)
        value = eval(last, names)
        data = {"text/plain": repr(value)}
        for kind, method in (("text/html", "_repr_html_"), ("text/markdown", "_repr_markdown_")):
            if hasattr(value, method):
                data[kind] = getattr(value, method)()
        cell.outputs = [new_output("execute_result", data=data, execution_count=1)]
    return book


def _title(run: Run | Path) -> str:
    return f"{(run if isinstance(run, Run) else Run(run)).manifest['study']['name']}: report"


def rendered(run: Run | Path, **settings: Any) -> tuple[str, str]:
    """The page and the Markdown text of a run."""
    book = executed(run, **settings)
    return make.render(book, _title(run)), make._output(book, make.FOR_MARKDOWN, "text/markdown")
