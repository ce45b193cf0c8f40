"""What ``workbench doctor`` finds."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import constants

from workbench import __version__, doctor
from workbench.engines.local import demo_model
from workbench.engines.local.loader import KERNELS
from workbench.errors import ModelNotFound

if TYPE_CHECKING:
    from pathlib import Path


def test_the_facts_are_plain_and_the_text_holds_them() -> None:
    """They go through JSON unchanged; each is in the text."""
    facts = doctor.facts()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["workbench"] == __version__
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["cache_free_bytes"] > 0
    text = doctor.text(facts)
    for part in (
        f"awq-workbench {__version__}, Python {facts['python']}",
        f"cpu: {facts['devices'][-1]['name']}",
        f"torch         {torch.__version__}",
        f"Demo model  {facts['demo_model']}",
        f"Cache       {facts['cache']} (",
        f"Model hub   {facts['hub']}",
    ):
        assert part in text


def test_the_cpu() -> None:
    """It is there, with its threads and memory, and with every kernel that can be asked for."""
    cpu = doctor._devices()[-1]
    assert cpu["device"] == "cpu"
    assert cpu["threads"] == torch.get_num_threads()
    assert 0 < cpu["free_bytes"] <= cpu["memory_bytes"]
    assert {*cpu["kernels"], "auto"} == set(KERNELS)


def test_gpus_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its kernels; the first is the default device."""
    capabilities = [(9, 0), (7, 5)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (2**30 * (i + 1), 2**33))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: capabilities[i])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")
    facts = doctor.facts()
    assert facts["default_device"] == "cuda:0"
    assert [d["device"] for d in facts["devices"]] == ["cuda:0", "cuda:1", "cpu"]
    assert [d["kernels"] for d in facts["devices"][:2]] == [["int4", "bf16", "fp32"], ["fp32"]]
    text = doctor.text(facts)
    assert "  cuda:0: GPU 0 (sm_90), 1.0 of 8.0 GiB free; kernels int4, bf16, fp32\n" in text
    assert "  cuda:1: GPU 1 (sm_75), 2.0 of 8.0 GiB free; kernels fp32\n" in text


def test_the_demo_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Built, not built yet, or impossible to build; looking builds nothing."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    facts = doctor.facts()
    assert facts["cache"] == str(tmp_path / "cache")
    assert facts["demo_model"] == "not built yet; built when first used (about a minute)"
    assert not (tmp_path / "cache").exists()

    def missing() -> Path:
        raise ModelNotFound("demo: not installed")

    monkeypatch.setattr(demo_model, "source", missing)
    assert doctor._demo_model() == "demo: not installed"
    monkeypatch.setattr(demo_model, "is_whole", lambda _: True)
    assert doctor._demo_model() == f"built, in {demo_model.folder()}"


def answering(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"http://{host}:{port}"


def test_the_model_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reachable, not reachable and why, or switched off."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert doctor._hub() == "offline by HF_HUB_OFFLINE"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(constants, "ENDPOINT", answering(listener))
        assert doctor._hub() == "reachable"
    assert doctor._hub() == "not reachable (Connection refused)"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError("timed out"), "not reachable (timed out)"),
        (
            socket.gaierror(-2, "Name or service not known"),
            "not reachable (Name or service not known)",
        ),
    ],
)
def test_no_network(monkeypatch: pytest.MonkeyPatch, error: OSError, words: str) -> None:
    """The reason is given, and asking takes no longer than its timeout."""

    def connect(address: tuple[str, int], timeout: float) -> Any:
        assert address == ("hub.invalid", 443)
        assert timeout <= 5
        raise error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(socket, "create_connection", connect)
    assert doctor._hub() == words


def test_a_trap_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With gptqmodel and no optimum, peft is broken; otherwise there is nothing to say."""
    found: dict[str, str] = {}
    monkeypatch.setattr(doctor, "_version", found.get)
    assert doctor.facts()["warnings"] == []
    found["gptqmodel"] = "7.6"
    (warning,) = doctor.facts()["warnings"]
    assert warning == (
        "gptqmodel is installed without optimum: peft then fails for every model; pip install optimum"
    )
    text = doctor.text(doctor.facts())
    assert text.endswith(f"\nWarning: {warning}")
    assert "  gptqmodel     7.6  (more CUDA kernels; not used yet)\n" in text
    assert "  optimum       not installed  (" in text
    found["optimum"] = "2.3"
    assert doctor.facts()["warnings"] == []


def test_a_package_that_is_not_there() -> None:
    """It has no version."""
    assert doctor._version("no-such-package-of-anybody") is None
    assert doctor._version("awq-workbench") == __version__
