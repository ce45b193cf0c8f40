"""The process that quantizes: ``python -m workbench.quantizing.worker``.

AutoAWQ changes what it finds (filters of warnings, modules of transformers, attributes of the model's configuration), and a
large model may take more memory than there is. So it runs in a process of its own. That process reads one job, a line of JSON, from
standard input, and writes one message a line, JSON too, to standard output:

* ``{"stage": "loading" | "saving"}``
* ``{"layer": 3, "of": 30}``: so many layers are done
* ``{"done": {...}}``: the weights are written
* ``{"error": "what was wrong", "kind": "RuntimeError"}``: they are not

Whatever libraries print goes to standard error. It ends at once when its standard input closes, which is when the process that
started it is gone.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS: Final = {"zero_point": True, "w_bit": 4, "version": "gemm"}
"""What every checkpoint of ours is quantized with, in AutoAWQ's words."""
_AT_ONCE: Final = 8_192
"""Calibration tokens that go through a layer together."""


def quantize(job: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Quantize a dense checkpoint and write its weights.

    Args:
        job: ``model`` (folder), ``out`` (folder that exists), ``group_size``, ``blocks`` (token ids, lists of one length).
        tell: Takes messages, see the module.

    Returns:
        ``device``, ``dtype``, ``peak_bytes`` (most memory the process ever held, None if unknown).

    Raises:
        ImportError: AutoAWQ or something it needs is not there.
        ValueError: The quantized model has weights that are not finite.
    """
    tell({"stage": "loading"})
    families = importlib.import_module("awq.models.auto").AWQ_CAUSAL_LM_MODEL_MAP
    base = importlib.import_module("awq.quantize.quantizer").AwqQuantizer
    import torch  # noqa: PLC0415 - after the message: this takes seconds
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - as above

    from workbench.quantizing.search import searching  # noqa: PLC0415 - as above

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32  # fp16 is slow on a CPU
    model = AutoModelForCausalLM.from_pretrained(
        job["model"],
        dtype=dtype,
        attn_implementation="sdpa",
        local_files_only=True,
        trust_remote_code=False,
    ).eval()
    model.config.use_cache = False
    blocks, kind = job["blocks"], model.config.model_type
    n_layers, done = len(families[kind].get_model_layers(model)), 0
    tell({"layer": done, "of": n_layers})

    def on_layer() -> None:
        nonlocal done
        done += 1
        tell({"layer": done, "of": n_layers})

    wrapped = families[kind](model, kind, False, model.config, None, None)
    wrapped.quantize(
        None,
        {**SETTINGS, "q_group_size": job["group_size"]},
        calib_data=blocks,
        max_calib_samples=len(blocks),
        max_calib_seq_len=len(blocks[0]),
        n_parallel_calib_samples=max(1, _AT_ONCE // len(blocks[0])),
        quantizer_cls=searching(base, on_layer),
    )
    tell({"stage": "saving"})
    _save(model.half(), Path(job["out"]))
    return {"device": device, "dtype": str(dtype).removeprefix("torch."), "peak_bytes": _peak()}


def _save(model: Any, folder: Path) -> None:
    from huggingface_hub import save_torch_state_dict  # noqa: PLC0415 - as above

    state = model.state_dict()
    broken = sorted(n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all())
    if broken:
        raise ValueError(f"weights that fp16 cannot hold, or not finite: {', '.join(broken[:3])}")
    tied = list(model._tied_weights_keys or ())  # noqa: SLF001 - no public name
    save_torch_state_dict(state, folder, shared_tensors_to_discard=tied)


def _peak() -> int | None:
    """Most memory this process ever held, bytes; None where the system does not say.

    Not ``getrusage``: on Linux that counts what the process that started this one held at that moment.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _end_with_parent() -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock would be held when the process wants to end
        pass
    os._exit(1)


def main() -> int:
    """Read a job, do it, say how it went."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        tell({"done": quantize(job, tell)})
    except Exception as error:  # noqa: BLE001 - whatever broke in there: the parent puts it into words
        traceback.print_exc()
        text = " ".join(str(error).split()) or "no message"
        tell({"error": text[:500], "kind": type(error).__name__})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
