"""Adapters of the model hub: the cache, every way the hub says no, and a hub of our own in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx
import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from loras import ab, write_adapter

from workbench.adapters import describe, fetch, read
from workbench.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESPONSE = httpx.Response(403, request=httpx.Request("GET", "http://localhost"))
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound adapter."""
    return write_adapter(tmp_path / "adapter", modules={Q: (6, 8)}, r=2)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub that is switched off."""
    path = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return path


def put_in_cache(hub: Path, name: str, source: Path) -> Path:
    """Lay an adapter into a hub cache, as a download would; its folder there."""
    repo = hub / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    return shutil.copytree(source, repo / "snapshots" / COMMIT)


def refusal(spec: str) -> str:
    """The message of the error that reading raises."""
    with pytest.raises(AdapterError) as caught:
        read(spec)
    return str(caught.value)


def test_a_cached_adapter_is_read_offline(folder: Path, hub: Path) -> None:
    """A hub id that was downloaded before is read without the hub, and is the same adapter as its folder."""
    snapshot = put_in_cache(hub, "org/terse-lora", folder)
    found = read("org/terse-lora")
    assert (found.path, found.sha256) == (snapshot.resolve(), read(folder).sha256)
    assert fetch("org/terse-lora") == snapshot


def test_a_name_and_where_it_is_from(folder: Path, hub: Path) -> None:
    """An adapter of the hub is called by its repository, not by its commit, and says from which commit it is."""
    put_in_cache(hub, "org/terse-lora", folder)
    file = read("org/terse-lora")
    assert (file.name, file.origin) == ("terse-lora", f"org/terse-lora@{COMMIT}")
    assert describe(file)["origin"] == f"org/terse-lora@{COMMIT}"
    again = read(str(file.origin))
    assert (again.sha256, again.origin) == (file.sha256, file.origin)


def test_revisions_and_folders(folder: Path, hub: Path, tmp_path: Path) -> None:
    """A revision and a folder of a repository are found, and the commit that a branch stood for is told."""
    source = tmp_path / "repo"
    shutil.copytree(folder, source / "deep" / "terse")
    put_in_cache(hub, "org/many", source)
    file = read("org/many@main:deep/terse")
    assert (file.name, file.sha256) == ("terse", read(folder).sha256)
    assert file.origin == f"org/many@{COMMIT}:deep/terse"
    assert read(str(file.origin)).path == file.path
    assert refusal("org/many@other:deep/terse") == (
        "org/many@other:deep/terse: not a folder here, and not to be had from the model hub (HF_HUB_OFFLINE is set)"
    )


def test_a_spec_that_is_none() -> None:
    """What has not the form is refused with the form."""
    with pytest.raises(AdapterError) as caught:
        fetch("a/b/c")
    assert str(caught.value) == (
        "a/b/c: not of the form owner/name, owner/name@revision or either:folder"
    )


def test_a_folder_comes_before_the_hub(
    folder: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is a folder here is never asked of the hub."""
    put_in_cache(
        hub,
        f"{folder.parent.name}/adapter",
        write_adapter(folder.parent / "x", modules={Q: (6, 8)}),
    )
    monkeypatch.chdir(folder.parent.parent)
    assert read(f"{folder.parent.name}/adapter").path == folder.resolve()


def test_offline(hub: Path) -> None:
    """Without the hub, an adapter that is not in the cache says so."""
    assert not hub.exists()
    assert refusal("org/other") == (
        "org/other: not a folder here, and not to be had from the model hub (HF_HUB_OFFLINE is set)"
    )


@pytest.mark.parametrize("name", ["a/b/c", "org/na me", "-a/b", "a", "org/", "/org/name"])
def test_what_can_be_no_hub_id(hub: Path, name: str) -> None:
    """Text that has not the form of an id is a path."""
    assert not hub.exists()
    assert refusal(name) == f"{name}: no such folder"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LocalEntryNotFoundError("long text"), "it cannot be reached"),
        (
            GatedRepoError("403", response=RESPONSE),
            "its owner gives access on request: ask on its page, then log in",
        ),
        (
            RepositoryNotFoundError("404", response=RESPONSE),
            "no such adapter there, or it is private",
        ),
        (HfHubHTTPError("500 Server Error\nmore", response=RESPONSE), "500 Server Error"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (OSError(), "OSError"),
    ],
)
def test_the_hub_says_no(
    hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    """Every way the hub fails is one line with the reason."""

    def fail(*_: object, **__: object) -> str:
        raise error

    assert not hub.exists()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    assert refusal("org/other") == (
        f"org/other: not a folder here, and not to be had from the model hub ({reason})"
    )


def test_an_id_that_the_hub_does_not_allow(hub: Path) -> None:
    """An id of the right form that the hub's own rules refuse is one line too."""
    assert not hub.exists()
    assert refusal("org/a..b").startswith(
        "org/a..b: not a folder here, and not to be had from the model hub (Cannot have -- or .. in repo_id"
    )


FILES = (
    *("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"),
    *("README.md", "training.json", "losses.csv"),
)


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a download asks for: org/good, org/pickle; org/gated and all else refused."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        """What a file is."""
        self.answer(body=False)

    def do_GET(self) -> None:
        """A repository's files, or a file."""
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        """Send a repository's list of files, a file or an error."""
        path = self.path.split("?")[0]
        self.asked.append(path)
        name = "/".join([p for p in path.split("/") if p not in ("", "api", "models")][:2])
        if name == "org/broken":
            self.close_connection = True  # without a word
        elif name == "org/gated":
            self.send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif name not in ("org/good", "org/pickle"):
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/models/"):
            hidden = "adapter_model.safetensors" if name == "org/pickle" else None
            listed = [f for f in FILES if f != hidden]
            siblings = [{"rfilename": f} for f in listed]
            tree = [{"type": "file", "path": f, "size": self.size(f), "oid": "1"} for f in listed]
            info = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False}
            found = json.dumps(tree if "/tree/" in path else info).encode()
            self.send(200, found, {"Content-Type": "application/json"})
        else:
            file = path.rsplit("/", 1)[1]
            content = (self.folder / file).read_bytes()
            kind = {"X-Repo-Commit": COMMIT, "ETag": f'"{file}-1"'}
            self.send(200, content, kind, body=body)

    def size(self, file: str) -> int:
        """Bytes of a file."""
        return (self.folder / file).stat().st_size

    def send(
        self, status: int, content: bytes, headers: dict[str, str], *, body: bool = True
    ) -> None:
        """One answer."""
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub on this machine: its address, and the paths it was asked for."""
    (folder / "README.md").write_text("words")
    (folder / "training.json").write_text("{}")
    (folder / "losses.csv").write_text("not to be downloaded")
    (folder / "adapter_model.bin").write_bytes(b"not to be downloaded")
    asked: list[str] = []
    handler = type("Handler", (Hub,), {"folder": folder, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as opened:
        thread = threading.Thread(target=opened.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{opened.server_port}", asked
        opened.shutdown()
        thread.join()


READ = """
import sys
from workbench.adapters import read
from workbench.errors import AdapterError
for spec in sys.argv[1:]:
    try:
        print(read(spec).sha256)
    except AdapterError as error:
        print(error)
"""


def read_elsewhere(endpoint: str, cache: Path, *specs: str) -> list[str]:
    """Read adapters in a process whose hub is ``endpoint``: their hashes, or the errors."""
    done = run_elsewhere(endpoint, cache, "-c", READ, *specs)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def run_elsewhere(endpoint: str, cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process whose hub is ``endpoint``."""
    env = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "PATH": ""}
    env |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=env
    )


def test_a_hub_for_real(folder: Path, server: tuple[str, list[str]], tmp_path: Path) -> None:
    """From a real server: what makes an adapter and tells of its training is fetched and nothing else; every refusal is told apart."""
    endpoint, asked = server
    cache = tmp_path / "home"
    specs = ("org/good", "org/gated", "org/nowhere", "org/broken", "org/pickle")
    good, gated, nowhere, broken, pickled = read_elsewhere(endpoint, cache, *specs)
    assert good == read(folder).sha256
    head = "not a folder here, and not to be had from the model hub"
    assert gated == (
        f"org/gated: {head} (its owner gives access on request: ask on its page, then log in)"
    )
    assert nowhere == f"org/nowhere: {head} (no such adapter there, or it is private)"
    assert broken == f"org/broken: {head} (Server disconnected without sending a response.)"
    assert pickled == (
        "org/pickle: adapter_model.bin is a pickle, which can run any program when it is opened, and is not loaded; write it "
        "as adapter_model.safetensors: workbench adapter org/pickle --convert DIR"
    )
    wanted = {path.rsplit("/", 1)[1] for path in asked if "/resolve/" in path}
    assert wanted == {
        *("adapter_config.json", "adapter_model.safetensors", "README.md", "training.json"),
    }


def test_a_pickle_of_the_hub_is_converted(
    folder: Path, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    """The advice for a pickle of the hub works as it is given."""
    content = {key: torch.from_numpy(values) for key, values in ab({Q: (6, 8)}, 2).items()}
    torch.save(content, folder / "adapter_model.bin")
    command = ("-m", "workbench.cli", "adapter", "org/pickle", "--convert", str(tmp_path / "out"))
    done = run_elsewhere(server[0], tmp_path / "home", *command)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "out").sha256 == read(folder).sha256


def test_no_hub_for_real(server: tuple[str, list[str]], folder: Path, tmp_path: Path) -> None:
    """A hub that went away is out of reach; what was fetched before is still read."""
    endpoint, _ = server
    cache = tmp_path / "home"
    assert read_elsewhere(endpoint, cache, "org/good") == [read(folder).sha256]
    closed = "http://127.0.0.1:9"  # the discard port, where nothing listens
    found, lost = read_elsewhere(closed, cache, "org/good", "org/other")
    assert found == read(folder).sha256
    assert lost == (
        "org/other: not a folder here, and not to be had from the model hub (it cannot be reached)"
    )
