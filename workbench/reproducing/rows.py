"""Some rows of a run made again: alone, among their neighbours of the plan, and in a shuffled batch.

A row's tokens must not depend on the batch it is decoded in. They still can where two candidates score so nearly the same
that rounding decides; how close they were is measured at every place where an answer went another way.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench import provenance
from workbench.errors import StoreError
from workbench.latency import Reproducibility, reproducibility
from workbench.reproducing import margins, sameness
from workbench.runs import Run, open_run
from workbench.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from workbench.engines.base import Engine
    from workbench.plan import Key
    from workbench.records import Generation, Request

MODES: Final = {
    "alone": "one at a time",
    "batch": "among its neighbours of the plan",
    "shuffled": "all of them in one batch, in random order",
}
"""How rows are made again."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """A row that came out otherwise.

    Attributes:
        mode: One of `MODES`.
        cell_id: As in the record.
        prompt_id: As in the record.
        repeat: As in the record.
        position: First output token that is another one, from 0.
        recorded: That token in the record; None if the answer had ended there.
        now: That token now; None if the answer had ended there.
        margin: Difference of the two tokens' scores, >= 0; infinite if a filter keeps only one; None if it cannot be told.
        tie: The two were within the rounding error of fp32; None if that cannot be told.
        error: Why there is no answer now, if there is none.
    """

    mode: str
    cell_id: str
    prompt_id: str
    repeat: int
    position: int
    recorded: int | None
    now: int | None
    margin: float | None = None
    tie: bool | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What making rows again found.

    Attributes:
        run: The run directory.
        n_rows: Rows made again.
        seed: Which rows they were.
        n_requests: Answers generated for it, neighbours included.
        device: Where.
        kernel: With which kernel.
        grades: Mode to the share of token-identical rows.
        divergences: Every row and mode with other tokens.
        texts_changed: Keys of rows whose tokens are the same and whose recorded text is not that of the tokens.
        scores_known: Whether the engine gives scores, and so margins.
        notes: What else to know, one sentence each.
    """

    run: Path
    n_rows: int
    seed: int
    n_requests: int
    device: str
    kernel: str
    grades: dict[str, Reproducibility]
    divergences: tuple[Divergence, ...]
    texts_changed: tuple[Key, ...]
    scores_known: bool
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if every row is the same, or went another way only where two candidates tied."""
        return not self.texts_changed and all(d.tie for d in self.divergences)

    @property
    def text(self) -> str:
        """The grade, a line a mode, and what differs."""
        n = self.n_rows
        lines = [
            f"{self.run}: {n:,} row{'s' * (n != 1)} made again on {self.device}, kernel {self.kernel}"
        ]
        for mode, grade in self.grades.items():
            lines.append(f"  {mode} ({MODES[mode]}): {grade}{self._where(mode)}")
        for cell, prompt, repeat in self.texts_changed:
            lines.append(
                f"  cell {cell}, prompt {prompt!r}, repeat {repeat}: the recorded text is not that of its tokens"
            )
        if self.divergences and not self.scores_known:
            lines.append(
                "  This engine gives no scores, so it is not known how close the candidates were."
            )
        return "\n".join([*lines, *self.notes])

    def _where(self, mode: str) -> str:
        """Where rows went another way in a mode, and how close it was."""
        mine = [d for d in self.divergences if d.mode == mode]
        if not mine:
            return ""
        text = f"; first at token {min(d.position for d in mine) + 1}"
        failed = sum(d.error is not None for d in mine)
        text += f", {failed:,} failed" if failed else ""
        known = [d for d in mine if d.margin is not None]
        if known:
            ties = sum(bool(d.tie) for d in known)
            worst = max(d.margin for d in known if d.margin is not None)
            text += (
                f", largest margin {worst:.2g}, {ties:,} of {len(known):,} a tie in floating point"
            )
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite margin is the text "inf"."""
        return {
            "run": str(self.run),
            "reproduced": self.ok,
            **self.entry(),
            "divergences": [_json(asdict(d)) for d in self.divergences],
            "texts_changed": [list(key) for key in self.texts_changed],
            "notes": list(self.notes),
        }

    def entry(self) -> dict[str, Any]:
        """What the manifest keeps of it."""
        return {
            "n_rows": self.n_rows,
            "seed": self.seed,
            "n_requests": self.n_requests,
            "device": self.device,
            "kernel": self.kernel,
            "n_texts_changed": len(self.texts_changed),
            "scores_known": self.scores_known,
            "modes": {mode: self._mode(mode) for mode in self.grades},
        }

    def _mode(self, mode: str) -> dict[str, Any]:
        mine = [d for d in self.divergences if d.mode == mode]
        margins_ = [d.margin for d in mine if d.margin is not None]
        return _json(
            {
                **self.grades[mode]._asdict(),
                "first_divergence": min((d.position for d in mine), default=None),
                "largest_margin": max(margins_, default=None),
                "n_ties": sum(bool(d.tie) for d in mine),
            }
        )


def _json(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {k: "inf" if v == float("inf") else v for k, v in values.items()}


def verify(
    run: Run | str | Path,
    engine: Engine | None = None,
    rows: int = 20,
    *,
    seed: int = 0,
    device: str | None = None,
    kernel: str | None = None,
    progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> Verification:
    """Make random rows of a run again and compare their tokens with the record; the manifest keeps what was found.

    Args:
        run: A run, or what `workbench.open_run` takes.
        engine: Engine to use; it stays open. By default the run's, loaded again with the run's kernel and device.
        rows: How many, >= 1; all that were answered if there are fewer.
        seed: Decides which.
        device: Without an engine: another device than the run's.
        kernel: Without an engine: another kernel than the run's.
        progress: Show a bar while the demo model is built.
        say: Told in one line what is going on, if given.

    Raises:
        StoreError: There is no such run, its answers were imported, it has none, or the weights are not those of the run.
        AdapterError: An adapter is gone, or is not what it was.
        ModelError, EngineError: The model cannot be loaded, or the engine gave up.
        ValueError: ``rows`` is below 1.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    opened = run if isinstance(run, Run) else open_run(run)
    sameness.refuse_imported(opened)
    tell = say or (lambda _: None)
    own = engine is None
    study = sameness.declared(opened)
    with RunStore.open(opened.path, write=True) as store:
        again = _Again(opened, store, rows, seed)
        engine = engine or sameness.engine_like(
            opened, study, device=device, kernel=kernel, progress=progress
        )
        try:
            if not own:
                sameness.prepare(opened, study, engine)
            found = again.run(engine, tell)
        finally:
            if own:
                engine.close()
        entry = {"ended_utc": provenance.now_utc(), **found.entry()}
        store.update_manifest(verified=[*store.manifest.get("verified", []), entry])
    return found


class _Again:
    """The rows to make again, and what came of it."""

    def __init__(self, run: Run, store: RunStore, rows: int, seed: int) -> None:
        self.plan = run.plan
        self.store = store
        self.seed = seed
        self.run_path = run.path
        self.made = run.manifest["engine"]
        done = store.done_keys()
        planned = self.plan.keys()
        self.order = [key for key in planned if key in done]
        if not self.order:
            raise StoreError(f"{run.path}: has no answers to make again")
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(self.order), size=min(rows, len(self.order)), replace=False)
        self.places = sorted(int(i) for i in chosen)
        self.shuffled = [self.order[i] for i in rng.permutation(chosen)]
        table = store.generations(["cell_id", "prompt_id", "repeat", "text", "batch_rows"])
        self.batch_rows = max(1, int(table["batch_rows"].max()))
        wanted = {self.order[i] for i in self.places}
        self.texts = {
            (c, p, r): text
            for c, p, r, text, _ in table.itertuples(index=False)
            if (c, p, r) in wanted
        }
        self.n_requests = 0
        self.changed: dict[Key, None] = {}

    def run(self, engine: Engine, say: Callable[[str], None]) -> Verification:
        """Make the rows again in every mode."""
        keys = [self.order[i] for i in self.places]
        blocks = list(dict.fromkeys(i // self.batch_rows for i in self.places))
        size = self.batch_rows
        batches: dict[str, list[Sequence[Key]]] = {
            "alone": [[key] for key in keys],
            "batch": [self.order[b * size : (b + 1) * size] for b in blocks],
            "shuffled": [self.shuffled],
        }
        n = {mode: sum(map(len, lists)) for mode, lists in batches.items()}
        say(
            f"{self.run_path}: {len(keys):,} rows to make again: alone, with {n['batch'] - len(keys):,} neighbours, shuffled"
        )
        grades, divergences = {}, []
        for mode, lists in batches.items():
            found = self._mode(mode, lists, engine)
            grades[mode] = reproducibility(d is None for d in found)
            divergences += [d for d in found if d is not None]
        return Verification(
            run=self.run_path,
            n_rows=len(keys),
            seed=self.seed,
            n_requests=self.n_requests,
            device=engine.info.device,
            kernel=engine.info.kernel,
            grades=grades,
            divergences=tuple(divergences),
            texts_changed=tuple(self.changed),
            scores_known=margins.gives_scores(engine),
            notes=tuple(_other_place(self.made, engine)),
        )

    def _mode(
        self, mode: str, batches: Iterable[Sequence[Key]], engine: Engine
    ) -> list[Divergence | None]:
        """What became of each row; None if it is the same."""
        found: list[Divergence | None] = []
        for keys in batches:
            requests = {key: self.plan.request(*key) for key in keys}
            wanted = {key for key in keys if key in self.texts}
            answers = self._answers(requests, wanted, engine)
            found += [self._compare(mode, requests[a.key], a, engine) for a in answers]
        return found

    def _answers(
        self, requests: Mapping[Key, Request], wanted: set[Key], engine: Engine
    ) -> list[Generation]:
        """The wanted answers of a batch; once they are there the others need not be finished."""
        missing, answers = set(wanted), []
        self.n_requests += len(requests)
        stream = engine.generate(requests.values())
        try:
            for answer in stream:
                if answer.key in missing:
                    answers.append(answer)
                    missing.discard(answer.key)
                if not missing:
                    break
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()
        if missing:
            raise StoreError(f"{self.run_path}: the engine did not answer {min(missing)}")
        return answers

    def _compare(
        self, mode: str, request: Request, now: Generation, engine: Engine
    ) -> Divergence | None:
        before = self.store.token_ids(request.key) or ()
        if now.finish_reason != "error" and before == now.token_ids:
            if now.text != self.texts[request.key]:
                self.changed[request.key] = None
            return None
        place = first_difference(before, now.token_ids)
        tokens = [ids[place] if place < len(ids) else None for ids in (before, now.token_ids)]
        margin = None
        if margins.gives_scores(engine) and None not in tokens and now.error is None:
            pair = (int(tokens[0] or 0), int(tokens[1] or 0))
            margin = margins.between(engine, request, before[:place], pair)
        return Divergence(
            mode,
            *request.key,
            position=place,
            recorded=tokens[0],
            now=tokens[1],
            margin=None if margin is None else margin.score,
            tie=None if margin is None else margin.tie,
            error=now.error,
        )


def first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    """The first place where two answers are not the same; where the shorter ends if one is the beginning of the other.

    >>> first_difference([5, 6, 7], [5, 9]), first_difference([5], [5, 6])
    (1, 1)
    """
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _other_place(made: Mapping[str, Any], engine: Engine) -> list[str]:
    """A sentence if kernel or device are not the run's."""
    info = engine.info.to_dict()
    moved = [
        f"{name} {made[name]} then, {info[name]} now"
        for name in ("kernel", "dtype", "device")
        if made.get(name) != info[name]
    ]
    return [f"Not the run's own setup: {', '.join(moved)}."] if moved else []
