"""Training an adapter, from rows to a folder: one call, which goes on where it was killed."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench import adapters
from workbench import prompts as prompt_sets
from workbench.errors import AdapterError, OutOfMemory, PromptSetError
from workbench.prompts import PromptSet
from workbench.provenance import environment, now_utc
from workbench.training import base, card, curve
from workbench.training.checkpoints import (
    CHECKPOINTS,
    Checkpoints,
    check_same,
    locked,
    look,
    on_disk,
    stored,
    write_whole,
)
from workbench.training.overlap import FORMAT, RECORD, check_none
from workbench.training.rows import Data, read, split
from workbench.training.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from workbench.training.loop import Work

LOSSES: Final = "losses.csv"
PICTURE: Final = "losses.png"
README: Final = "README.md"


@dataclass(frozen=True, slots=True)
class Trained:
    """An adapter that was trained.

    Attributes:
        path: Its folder, which PEFT, ``engine.load_adapter`` and a study's ``adapters`` take.
        record: ``training.json``: data, settings, base, losses, environment.
        new: False if it was finished before, so that nothing was done.
    """

    path: Path
    record: dict[str, Any]
    new: bool = True

    @property
    def losses(self) -> pd.DataFrame:
        """``losses.csv``: one row per logged step, see `workbench.training.curve.table`."""
        import pandas as pd  # noqa: PLC0415 - heavy

        return pd.read_csv(self.path / LOSSES)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The losses as a picture, see `workbench.plots.losses`."""
        from workbench.plots.losses import losses  # noqa: PLC0415 - heavy

        return losses(self.losses, ax, kept=self.record["result"]["best_step"])

    def describe(self) -> str:
        """What was trained on what, and how it went, in a few lines."""
        return card.describe(self.path, self.record)


def train(
    data: str | Path | PromptSet | Iterable[Any],
    model: Any = "demo",
    *,
    out: str | Path,
    about: str = "",
    evaluated: Sequence[str | Path | PromptSet] | str | Path | PromptSet = (),
    device: str = "auto",
    kernel: str = "auto",
    progress: bool = True,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> Trained:
    """Train a LoRA adapter: the base model stays as it is, and the loss counts the answers' tokens alone.

    The same call goes on from the last checkpoint if it was interrupted, and trains nothing if the adapter is finished; what
    ``about`` and ``evaluated`` then say is added to its card.

    Args:
        data: Rows with a prompt and its answer: a JSONL file, a list of row objects, or what names a prompt set with
            targets, see `workbench.training.rows`. In a conversation the last answer is trained on.
        model: "demo", a folder with a checkpoint, a Hugging Face id, or a local engine, whose model is then used and
            afterwards as it was.
        out: Folder of the adapter, new or empty.
        about: What it is trained to do, in your words; for its card.
        evaluated: Prompt sets that it will be judged on; a training row that asks what one of them asks is refused.
        device: "auto", "cpu" or "cuda"; "auto" if the model is an engine.
        kernel: "auto", "int4", "fp32" or "bf16"; "auto" if the model is an engine. Going on, "auto" is what it was at first;
            else on a CPU it is fp32 where the memory allows, and as `workbench.load_engine` chooses otherwise.
        progress: Show a progress bar.
        say: Told in one line what is going on; to standard error by default.
        settings: See `workbench.training.Settings`: rank, alpha, learning_rate, epochs, ...

    Raises:
        ParamError: A setting is out of range.
        PromptSetError: The data cannot be used, or overlap with an evaluated set.
        AdapterError: The folder holds something else, or the loss went out of bounds.
        ModelError, EngineError: The model cannot be loaded, or memory does not suffice.
    """
    tell = say or _to_stderr
    wanted = Settings.of(settings)
    rows = read(data)
    unseen = check_none({e.place: e.asks for e in rows.examples}, _sets(evaluated), rows.source)
    folder = Path(out).expanduser()
    look(folder)
    base.check_model(model, device, kernel)
    identity: dict[str, Any] = {
        **base.identity(model, progress=progress),
        "data": rows.sha256,
        "settings": wanted.to_dict(),
        "device": device,
        "kernel": kernel,
    }
    record = _left(folder, identity)
    if record is not None and _is_settled(folder, record, _said(record, about, unseen)):
        return _again(folder, record, {}, tell)  # also where nothing can be written
    with locked(folder):
        record = _left(folder, identity)
        said = _said(record, about, unseen)
        if record is not None and record["status"] == "finished":
            return _again(folder, record, said, tell)
        if record is not None and isinstance(model, str | Path):
            device, kernel = base.as_begun(folder, record["identity"])
        loaded, reason = base.opened(model, device, kernel, progress=progress)
        identity |= {"device": loaded.info.device, "kernel": loaded.info.kernel}
        if record is not None:
            check_same(folder, record["identity"], identity)
        task = _Task(folder, rows, wanted, loaded, {**said, "identity": identity}, tell, reason)
        return Trained(folder, task.run(record, progress=progress))


def _left(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The record of this training in its folder, if there is anything to go on from.

    Raises:
        AdapterError: It is that of another training, or its adapter was changed.
    """
    record = look(folder)
    if record is None:
        return None
    finished = record["status"] == "finished"
    checkpoints = Checkpoints(folder, record["identity"])
    if not finished and not (checkpoints.sealed() or checkpoints.damaged()):
        return None  # begun, and nothing to lose
    check_same(folder, record["identity"], identity)
    if finished and adapters.read(folder).sha256 != record["adapter"]["sha256"]:
        raise AdapterError(
            f"{folder}: its adapter is not the one that was trained here; delete the folder and train again"
        )
    return record


def _said(
    record: dict[str, Any] | None, about: str, unseen: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the record says of purpose and evaluated sets, after this call."""
    if record is None:
        return {"about": about, "evaluated": unseen}
    known = {(s["name"], s["sha256"]) for s in record["evaluated"]}
    new = [s for s in unseen if (s["name"], s["sha256"]) not in known]
    return {"about": about or record["about"], "evaluated": [*record["evaluated"], *new]}


def _is_settled(folder: Path, record: dict[str, Any], said: dict[str, Any]) -> bool:
    """Whether a training is finished and nothing about it is left to write or to delete."""
    news = any(record[key] != value for key, value in said.items())
    return record["status"] == "finished" and not news and not (folder / CHECKPOINTS).exists()


def _again(
    folder: Path, record: dict[str, Any], said: dict[str, Any], tell: Callable[[str], None]
) -> Trained:
    """A finished training asked for again: only what is newly said of it is written."""
    news = any(record[key] != value for key, value in said.items())
    record |= said
    with on_disk(folder):
        if news:  # the record last: without it the call is made again
            write_whole(folder / README, card.readme(folder.name, record))
            _write(folder, record)
        if (folder / CHECKPOINTS).exists():
            Checkpoints(folder, record["identity"]).remove()
    done = "its card was brought up to date" if news else "nothing to do"
    tell(f"{folder}: finished {record['ended_utc']}; {done}")
    return Trained(folder, record, new=False)


def _write(folder: Path, record: dict[str, Any]) -> None:
    write_whole(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _sets(evaluated: Any) -> list[PromptSet]:
    single = isinstance(evaluated, str | Path | PromptSet)
    return [prompt_sets.load(named) for named in ([evaluated] if single else evaluated)]


@dataclass(frozen=True, slots=True)
class _Task:
    """One training: what, where, with which model."""

    folder: Path
    data: Data
    settings: Settings
    loaded: Any
    start: dict[str, Any]
    tell: Callable[[str], None]
    reason: str

    def run(self, record: dict[str, Any] | None, *, progress: bool) -> dict[str, Any]:
        """Train, or go on, and write the adapter's folder; returns its record."""
        from workbench.training import loop  # noqa: PLC0415 - heavy
        from workbench.training.apart import target_names  # noqa: PLC0415

        target_names(self.loaded.model, self.settings)
        work, about = self._work()
        checkpoints = Checkpoints(self.folder, self.start["identity"])
        with on_disk(self.folder):
            record = self._begin(record, about)
            while True:
                history = checkpoints.history()
                self._note(record, checkpoints, history)
                if curve.is_over(history, work.n_steps, self.settings.patience):
                    break
                if history:
                    done = record["calls"][-1]["after_step"]
                    self.tell(f"{self.folder}: going on after step {done} of {work.n_steps}")
                try:
                    history = self._train(work, checkpoints, progress=progress)
                except loop.UnreadableState as unreadable:
                    checkpoints.reject(str(unreadable))
                else:
                    break
            return self._finish(record, work, checkpoints, history)

    def _note(
        self, record: dict[str, Any], checkpoints: Checkpoints, history: list[dict[str, Any]]
    ) -> None:
        """Put into the record what this call goes on from, and say which checkpoints it cannot go on from."""
        call = record["calls"][-1]
        names = [path.name for path in checkpoints.damaged()]
        new = [name for name in names if name not in call["damaged"]]
        call["damaged"] += new
        call["after_step"] = max((int(entry["step"]) for entry in history), default=0)
        _write(self.folder, record)
        if new:
            anew = "" if history else "; training begins anew"
            verb = "is" if len(new) == 1 else "are"
            self.tell(f"{self.folder}: {', '.join(new)} {verb} damaged{anew}")

    def _work(self) -> tuple[Work, dict[str, Any]]:
        """The rows as tokens, told apart; and what the record says of them."""
        from workbench.training.loop import Work  # noqa: PLC0415 - heavy
        from workbench.training.tokens import Encoder, encode  # noqa: PLC0415

        loaded, settings = self.loaded, self.settings
        encoder = Encoder(loaded.tokenizer, loaded.eos_token_ids)
        limit = min(settings.max_length, loaded.info.context_length)
        fitting, long = encode(self.data.examples, encoder, limit)
        if long and not settings.skip_long:
            raise PromptSetError(
                f"{self.data.source}: {len(long)} of {len(self.data.examples)} rows are longer than {limit} tokens; "
                "raise max_length, shorten them, or leave them out with skip_long",
                long,
            )
        if not fitting:
            raise PromptSetError(self.data.source, f"no row to train on has at most {limit} tokens")
        tokens = {e.place: t for e, t in fitting}
        rows, held_out = split([e for e, _ in fitting], settings.validation)
        made, measured = ([tokens[e.place] for e in part] for part in (rows, held_out))
        data = {
            "source": self.data.source,
            "file_sha256": self.data.file_sha256,
            "sha256": self.data.sha256,
            "n_rows": len(self.data.examples),
            "n_train": len(made),
            "n_validation": len(measured),
            "n_left_out": len(long),
            "n_answer_tokens": sum(row.n_answer for row in made),
            "n_tokens": sum(len(row.ids) for row in made),
        }
        about = {
            "data": data,
            "warnings": card.warnings(len(measured), settings.validation),
            "prompt_hashes": sorted({asked for e, _ in fitting for asked in e.asks}),
        }
        pad = loaded.tokenizer.pad_token_id
        pad = loaded.eos_token_ids[0] if pad is None else pad
        return Work(made, measured, settings, pad), about

    def _begin(self, record: dict[str, Any] | None, about: dict[str, Any]) -> dict[str, Any]:
        """The record of a training under way; says what is trained on."""
        info, data = self.loaded.info, about["data"]
        call = {
            "started_utc": now_utc(),
            "after_step": 0,
            "damaged": [],
            "environment": environment(),
        }
        calls = [*(record["calls"] if record else []), call]
        left = f", {data['n_left_out']} too long" if data["n_left_out"] else ""
        kernel = f"{info.kernel} on {info.device}" + (f": {self.reason}" if self.reason else "")
        self.tell(
            f"{data['source']}: {data['n_train']} rows to train on, {data['n_validation']} held out{left}; "
            f"base {info.model} ({kernel})"
        )
        for warning in about["warnings"]:
            self.tell(f"warning: {warning}")
        return {
            "format": FORMAT,
            "status": "running",
            **self.start,
            "started_utc": calls[0]["started_utc"],
            "ended_utc": None,
            "settings": self.settings.to_dict(),
            "base": card.base(info),
            **about,
            "calls": calls,
        }

    def _train(
        self, work: Work, checkpoints: Checkpoints, *, progress: bool
    ) -> list[dict[str, Any]]:
        from tqdm.auto import tqdm  # noqa: PLC0415 - as below

        from workbench.engines.local.memory import is_out_of_memory  # noqa: PLC0415 - heavy
        from workbench.training import loop  # noqa: PLC0415
        from workbench.training.apart import apart, with_lora  # noqa: PLC0415

        bar = tqdm(total=work.n_steps, desc="Training", unit="step", disable=not progress)
        checkpoints.claim()
        checkpoints.clean()
        try:
            with (
                bar,
                apart(self.settings.seed),
                with_lora(self.loaded.model, self.settings, self.loaded.info.model) as model,
            ):
                return loop.train(model, work, checkpoints, bar)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            longest = max(len(row.ids) for row in work.rows)
            other = ", and train into another --out" if checkpoints.sealed() else ""
            how = self.settings
            fewer = (
                [] if how.batch_size == 1 else ["lower batch_size and raise gradient_accumulation"]
            )
            again = [] if how.gradient_checkpointing else ["turn on gradient_checkpointing"]
            advice = ", or ".join([*fewer, *again, "lower max_length"])
            raise OutOfMemory(
                f"memory ran out with batch_size {how.batch_size} and rows of up to {longest} tokens; {advice}{other}"
            ) from error

    def _finish(
        self,
        record: dict[str, Any],
        work: Work,
        checkpoints: Checkpoints,
        history: list[dict[str, Any]],
    ) -> dict[str, Any]:
        """Write adapter, losses, picture, card and record; the record says that all are there, so it comes last."""
        step = curve.best_step(history)
        _copy_adapter(checkpoints.at(step), self.folder)
        losses = curve.table(history, len(work.rows), self.settings.step_rows)
        write_whole(self.folder / LOSSES, losses.to_csv(index=False))
        _draw(losses, step, self.folder / PICTURE)
        file = adapters.read(self.folder)
        record |= {
            "status": "finished",
            "ended_utc": now_utc(),
            "result": card.result(losses, step, work.n_steps),
            "adapter": {
                "sha256": file.sha256,
                "n_parameters": file.n_parameters,
                "n_bytes": file.n_bytes,
                "targets": list(file.targets),
            },
        }
        write_whole(self.folder / README, card.readme(self.folder.name, record))
        _write(self.folder, record)
        checkpoints.remove()
        return record


def _copy_adapter(checkpoint: Path, folder: Path) -> None:
    """PEFT's two files out of a checkpoint, the lists of the configuration in one order."""
    config = json.loads((checkpoint / adapters.CONFIG).read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    write_whole(folder / adapters.CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    temporary = folder / f".{adapters.WEIGHTS}.tmp"
    shutil.copyfile(checkpoint / adapters.WEIGHTS, temporary)
    stored(temporary)
    temporary.replace(folder / adapters.WEIGHTS)


def _draw(losses: pd.DataFrame, step: int, path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - heavy

    from workbench.plots.losses import losses as draw  # noqa: PLC0415 - imports matplotlib

    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    draw(losses, figure.subplots(), kept=step)
    figure.savefig(path, dpi=150)
