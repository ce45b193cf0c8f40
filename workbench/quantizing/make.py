"""From a dense checkpoint to an AWQ one, compared with where it came from."""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tqdm.auto import tqdm

from workbench import provenance
from workbench.engines.local import demo_model, loader
from workbench.engines.local.checkpoint import Checkpoint, open_checkpoint, weight_hash
from workbench.engines.local.pack import write_config
from workbench.errors import ParamError, WorkbenchError
from workbench.quantizing import agreement, calibration, checks, process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.quantizing.agreement import Agreement, Read
    from workbench.quantizing.calibration import Divided

CARD: Final = "quantize.json"
FORMAT: Final = 1
_COPIED: Final = ("*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*")
_OWN: Final = ("config.json", "model.safetensors.index.json", CARD)
_FEW_TOKENS: Final = 2_048


@dataclass(frozen=True, slots=True)
class Quantized:
    """An AWQ checkpoint that was made.

    Attributes:
        path: Its folder, which ``load_engine`` and a study's ``model`` take.
        card: ``quantize.json``: source, calibration, settings, comparison, packages, time.
        check: The comparison with the dense model; None if there was none.
    """

    path: Path
    card: dict[str, Any]
    check: Agreement | None = None

    @property
    def text(self) -> str:
        """What was made, and what it cost."""
        old, new = self.card["source"]["file_bytes"], self.card["result"]["file_bytes"]
        used, settings = self.card["calibration"], self.card["settings"]
        said = (
            f"{self.path}: {self.card['source']['model']} in 4 bits, groups of {settings['group_size']}; "
            f"{new / 2**20:,.0f} MiB, {old / new:.1f} times smaller; calibrated on {used['n_prompts']:,} prompts "
            f"({used['n_tokens']:,} tokens) in {self.card['seconds']:,.0f} s"
        )
        return said if self.check is None else f"{said}\n\n{self.check.text}"


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be done, all of it checked."""

    checkpoint: Checkpoint
    folder: Path
    divided: Divided
    blocks: list[list[int]]
    texts: list[list[int]]
    group_size: int
    seed: int
    max_tokens: int
    device: str
    progress: bool
    say: Callable[[str], None]


def quantize(
    model: str | Path,
    out: str | Path,
    prompts: Any = None,
    *,
    group_size: int = 128,
    n_prompts: int = 128,
    seed: int = 0,
    check: bool = True,
    check_prompts: Any = None,
    n_check: int = 64,
    max_tokens: int = 32,
    device: str = "auto",
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Quantized:
    """Make an AWQ checkpoint of a dense model with AutoAWQ, and compare it with the dense one.

    The folder appears when the weights are whole; a call that is interrupted before leaves nothing.

    Args:
        model: A folder with a dense checkpoint, or a Hugging Face id.
        out: The folder to write, new or empty.
        prompts: What names a prompt set (see `workbench.prompts.load`): its prompts, with their answers where they have any,
            calibrate. Give texts like those the model is for, and not those it will be judged on; by default it is all
            the sets that ship.
        group_size: Weights that share a scale: 32, 64 or 128. Fewer are closer to the dense model and take more memory.
        n_prompts: Most prompts that calibrate, at least 1.
        seed: Decides which.
        check: Compare with the dense model afterwards.
        check_prompts: Another prompt set to compare on; by default prompts of ``prompts`` that did not calibrate.
        n_check: Most prompts to compare on, at least 1.
        max_tokens: Of a greedy answer in the comparison, at least 1.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        progress: Show progress bars.
        say: Told in one line what a reader should know; nobody by default.

    Raises:
        EngineUnavailable: AutoAWQ is not installed, or there is no such device.
        ModelError: The model cannot be read, is quantized already, or cannot be quantized.
        ParamError, PromptSetError: A setting or the prompts cannot be used.
        OutOfMemory: Memory does not suffice, or did not.
        WorkbenchError: The folder cannot be written, or AutoAWQ failed.
    """
    if max_tokens < 1:
        raise ParamError("max_tokens", "at least 1", max_tokens)
    checks.extra()
    loader.choose_device(device)
    if model == "demo":
        raise checks.quantized_already("demo", demo_model.GROUP_SIZE)
    checkpoint = open_checkpoint(model)
    checks.source(checkpoint, group_size)
    folder = checks.target(out, checkpoint.path)
    divided = calibration.divide(
        prompts, n_prompts, seed, check=check_prompts, n_check=n_check if check else None
    )
    config, tokenizer = loader.load_config(checkpoint), loader.load_tokenizer(checkpoint)
    length = min(calibration.BLOCK, int(config.max_position_embeddings))
    tokens = [calibration.encode(p, tokenizer) for p in divided.calibrate]
    job = _Job(
        checkpoint=checkpoint,
        folder=folder,
        divided=divided,
        blocks=calibration.blocks(tokens, length),
        texts=[calibration.encode(p, tokenizer)[:length] for p in divided.check or ()],
        group_size=group_size,
        seed=seed,
        max_tokens=max_tokens,
        device=device,
        progress=progress,
        say=say or (lambda _: None),
    )
    extra_bytes = agreement.bytes_of(job.texts, config.vocab_size) if job.texts else 0
    n_tokens = sum(map(len, job.blocks))
    checks.room(folder, checkpoint, group_size, n_tokens, extra_bytes)
    if n_tokens < _FEW_TOKENS:
        job.say(
            f"only {n_tokens:,} tokens calibrate; with {_FEW_TOKENS:,} or more the result is better"
        )
    if divided.n_left_out:
        job.say(f"{divided.n_left_out:,} prompts are not compared on: they ask what calibrates")
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=checks.work_prefix(folder), ignore_cleanup_errors=True
    ) as work:
        return _make(job, Path(work))


def _make(job: _Job, work: Path) -> Quantized:
    """Read with the dense model, quantize, put the folder in its place, compare."""
    dense = _read(job, job.checkpoint.path, "auto", work, "dense") if job.texts else None
    began, made = time.monotonic(), work / "checkpoint"
    made.mkdir()
    found = _quantize(job, made, work)
    card = _card(job, made, found, time.monotonic() - began)
    _write(made / CARD, card)
    try:
        made.rename(job.folder)
    except OSError as error:
        raise WorkbenchError(
            f"{job.folder}: cannot be put there ({error.strerror}); it was free when this began"
        ) from error
    if dense is None:
        return Quantized(job.folder, card)
    quantized = _read(job, job.folder, dense.info.kernel, work, "4 bits")
    assert job.divided.check is not None
    result = agreement.compare(
        dense, quantized, [p.cluster for p in job.divided.check], job.max_tokens
    )
    card["check"] = _prompts(job.divided.check) | result.to_dict()
    _write(job.folder / CARD, card)
    return Quantized(job.folder, card, result)


def _read(job: _Job, model: Path, kernel: str, folder: Path, name: str) -> Read:
    assert job.divided.check is not None
    gc.collect()  # before another model comes
    return agreement.read(
        loader.load(model, device=job.device, kernel=kernel, progress=job.progress),
        job.divided.check,
        job.texts,
        job.max_tokens,
        folder,
        progress=job.progress,
        name=name,
    )


def _quantize(job: _Job, made: Path, work: Path) -> dict[str, Any]:
    """Write all files of the new checkpoint but its card."""
    order = {
        "model": str(job.checkpoint.path),
        "out": str(made),
        "group_size": job.group_size,
        "blocks": job.blocks,
    }
    with tqdm(
        total=checks.n_layers(job.checkpoint),
        desc="Quantizing",
        unit="layer",
        disable=not job.progress,
    ) as bar:

        def on_message(message: dict[str, Any]) -> None:
            bar.update(message.get("layer", bar.n) - bar.n)
            bar.set_postfix_str(message.get("stage", ""))

        found = process.run(order, work / "log", on_message, device=job.device)
    write_config(made / "config.json", job.checkpoint.config, job.group_size)
    for file in _files(job.checkpoint.path):
        shutil.copyfile(file, made / file.name)
    _check(job, made)
    return found


def _files(folder: Path) -> list[Path]:
    """What goes with the weights: tokenizer, chat template, generation settings, licence."""
    found = {file for pattern in _COPIED for file in folder.glob(pattern) if file.is_file()}
    return sorted(file for file in found if file.name not in _OWN)


def _check(job: _Job, made: Path) -> None:
    """See to it that the new checkpoint is one that our loader reads, with every layer packed."""
    packed = open_checkpoint(made)
    wanted = {name: (k, n) for name, (n, k) in checks.linear_layers(job.checkpoint).items()}
    if packed.quantized_shapes != wanted:
        odd = sorted(set(wanted.items()) ^ set(packed.quantized_shapes.items()))
        raise WorkbenchError(f"AutoAWQ left layers as they were, or changed them: {odd[0][0]}")


def _card(job: _Job, made: Path, found: dict[str, Any], seconds: float) -> dict[str, Any]:
    source, packed = job.checkpoint, open_checkpoint(made)
    environment = provenance.environment()
    kept = ("python", "packages", "platform", "cpu", "gpu", "memory_bytes", "threads")
    return {
        "format": FORMAT,
        "made_utc": provenance.now_utc(),
        "seconds": round(seconds, 1),
        "source": {
            "model": source.name,
            "revision": source.revision,
            "model_type": source.config["model_type"],
            "n_weights": source.n_weights,
            "file_bytes": source.file_bytes,
            "weight_hash": _hash(source.files),
        },
        "result": {"file_bytes": packed.file_bytes, "weight_hash": _hash(packed.files)},
        "settings": {
            "bits": 4,
            "group_size": job.group_size,
            "zero_point": True,
            "version": "gemm",
        },
        "calibration": _prompts(job.divided.calibrate)
        | {
            "seed": job.seed,
            "n_tokens": sum(map(len, job.blocks)),
            "n_blocks": len(job.blocks),
            "block_tokens": len(job.blocks[0]),
        },
        "check": None,
        "worker": found,
        **{name: environment[name] for name in kept},
    }


def _hash(files: Sequence[Path]) -> str:
    return weight_hash(list(files), demo_model.cache_dir() / "weight-hashes.json")


def _prompts(prompts: Any) -> dict[str, Any]:
    return {
        "source": prompts.source,
        "sha256": prompts.sha256,
        "n_prompts": len(prompts),
        "ids": [p.id for p in prompts],
    }


def _write(path: Path, card: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
