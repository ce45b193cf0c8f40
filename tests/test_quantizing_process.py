"""The process that quantizes: its messages, its end in every way, and that it never outlives its parent."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from workbench.errors import EngineUnavailable, OutOfMemory, WorkbenchError
from workbench.quantizing import process, worker

if TYPE_CHECKING:
    from pathlib import Path


def script(text: str) -> tuple[str, ...]:
    """A process in the place of the one that quantizes."""
    return (
        sys.executable,
        "-c",
        f"import json, os, signal, sys, time\njob = json.loads(sys.stdin.readline())\n{text}",
    )


def watched(text: str, tmp_path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """What a process says at its end, or the error, and its messages before."""
    seen: list[dict[str, Any]] = []
    try:
        end: Any = process.run({"model": "x"}, tmp_path / "log", seen.append, command=script(text))
    except WorkbenchError as error:
        end = error
    return end, seen


def test_messages_arrive_in_order_and_the_last_is_returned(tmp_path):
    """Lines that are no messages are passed over, and what goes to standard error goes to the log."""
    end, seen = watched(
        "print(json.dumps({'layer': 1, 'of': 2}))\nprint('{cut')\nprint(json.dumps({'layer': 2, 'of': 2}))\n"
        "print('noise', file=sys.stderr)\nprint(json.dumps({'done': {'got': job['model']}}))",
        tmp_path,
    )
    assert end == {"got": "x"}
    assert seen == [{"layer": 1, "of": 2}, {"layer": 2, "of": 2}]
    assert (tmp_path / "log").read_text() == "noise\n"


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            OutOfMemory,
            (
                "the process that quantizes was killed by SIGKILL, which the system does when memory runs out; calibrate with "
                "fewer prompts, or use a machine with more memory"
            ),
        ),
        (
            "os.kill(os.getpid(), signal.SIGTERM)",
            WorkbenchError,
            "the process that quantizes was killed by SIGTERM; nothing was written",
        ),
        (
            "print('Segmentation\\n  nonsense', file=sys.stderr)\nsys.exit(3)",
            WorkbenchError,
            (
                "the process that quantizes ended early with exit code 3; nothing was written; it said last: Segmentation "
                "nonsense"
            ),
        ),
        (
            "pass",
            WorkbenchError,
            "the process that quantizes ended early with exit code 0; nothing was written",
        ),
        (
            "print(json.dumps({'error': 'weird', 'kind': 'RuntimeError'}))",
            WorkbenchError,
            "AutoAWQ could not quantize this model (RuntimeError: weird)",
        ),
        (
            "print(json.dumps({'error': 'too big', 'kind': 'OutOfMemoryError'}))",
            OutOfMemory,
            "memory ran out while quantizing (too big); calibrate with fewer prompts",
        ),
        (
            "print(json.dumps({'error': 'No module named zstandard', 'kind': 'ModuleNotFoundError'}))",
            EngineUnavailable,
            (
                "quantizing needs a package that cannot be imported here (No module named zstandard); run: pip install "
                "'awq-workbench[autoawq]'"
            ),
        ),
    ],
    ids=["SIGKILL", "SIGTERM", "exit 3", "exit 0", "error", "memory", "import"],
)
def test_a_process_that_ends_early_is_explained(tmp_path, text, kind, said):
    """Each way to end has its message."""
    end, _ = watched(text, tmp_path)
    assert type(end) is kind
    assert str(end) == said


def test_a_process_that_takes_no_job_is_explained(tmp_path):
    """It may be gone before the job is handed over."""
    with pytest.raises(WorkbenchError) as caught:
        process.run(
            {"blocks": [0] * 10**6},
            tmp_path / "log",
            print,
            command=(sys.executable, "-c", "raise SystemExit(5)"),
        )
    assert str(caught.value) == (
        "the process that quantizes ended early with exit code 5; nothing was written"
    )


def test_an_interrupted_call_ends_the_process(tmp_path):
    """Ctrl-C while it works: the process is gone when the call returns."""
    pids: list[int] = []

    def interrupt(message: dict[str, Any]) -> None:
        pids.append(message["pid"])
        raise KeyboardInterrupt

    text = "print(json.dumps({'pid': os.getpid()}), flush=True)\ntime.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        process.run({}, tmp_path / "log", interrupt, command=script(text))
    assert len(pids) == 1
    assert not psutil.pid_exists(pids[0])


def test_it_ends_when_its_parent_is_gone():
    """Its standard input closes then."""
    text = (
        "import threading, time\nfrom workbench.quantizing import worker\n"
        "threading.Thread(target=worker._end_with_parent, daemon=True).start()\nprint('ready', flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
        assert started.poll() is None
        started.stdin.close()
        assert started.wait(60) == 1


def test_a_gpu_is_hidden_where_the_cpu_is_asked_for(monkeypatch):
    """AutoAWQ takes a GPU wherever it sees one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert process._environment("cpu")["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in process._environment("auto")


def test_weights_that_fp16_cannot_hold_are_refused(tmp_path):
    """Infinity is not written."""
    import torch

    model = torch.nn.Linear(2, 2)
    model.weight.data[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"^weights that fp16 cannot hold, or not finite: weight$"):
        worker._save(model.half(), tmp_path)
    assert list(tmp_path.iterdir()) == []
