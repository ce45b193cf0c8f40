"""Adapters saved as pickles: honest ones converted bit for bit, others refused without being run."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from loras import ab, change_config, write_adapter
from safetensors.torch import load_file

from workbench import adapters
from workbench.engines.local.pickles import convert_pickle
from workbench.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
MODULES = {Q: (6, 8), V: (6, 4)}


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A and B of two modules, rank 2."""
    return {key: torch.from_numpy(values).to(dtype) for key, values in ab(MODULES, 2).items()}


def pickled(folder: Path, content: Any = None, name: str = "adapter_model.bin") -> Path:
    """An adapter folder whose weights are a pickle of ``content``."""
    write_adapter(folder, modules=MODULES, r=2)
    (folder / "adapter_model.safetensors").unlink()
    torch.save(tensors() if content is None else content, folder / name)
    return folder


def refusal(folder: Path, out: Path) -> str:
    """The message of the error that converting raises; nothing is left of the attempt."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(AdapterError) as caught:
        convert_pickle(folder, out)
    assert sorted(out.parent.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_honest_pickle(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    """Every number is bit for bit the same, the configuration byte for byte, and the result is an adapter."""
    folder = pickled(tmp_path / "old", tensors(dtype), name)
    file = convert_pickle(folder, tmp_path / "deep" / "new")
    assert file.path == (tmp_path / "deep" / "new").resolve()
    assert sorted(f.name for f in file.path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    made = load_file(file.path / "adapter_model.safetensors")
    assert made.keys() == tensors().keys()
    for key, tensor in tensors(dtype).items():
        assert made[key].dtype == dtype
        assert torch.equal(made[key], tensor)
    config = "adapter_config.json"
    assert (file.path / config).read_bytes() == (folder / config).read_bytes()
    assert sorted(f.name for f in (tmp_path / "deep").iterdir()) == ["new"]


def test_the_same_adapter_as_if_saved_so(tmp_path: Path) -> None:
    """The converted adapter has the identity of one written as safetensors from the start."""
    direct = adapters.read(write_adapter(tmp_path / "direct", modules=MODULES, r=2))
    assert convert_pickle(pickled(tmp_path / "old"), str(tmp_path / "new")).sha256 == direct.sha256


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    """Views, transposes and tensors saved twice, as training leaves them, become tensors of their own."""
    whole = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    content = {
        f"base_model.model.{Q}.lora_A.weight": whole[:2],
        f"base_model.model.{V}.lora_A.weight": whole[:2],
        f"base_model.model.{Q}.lora_B.weight": torch.nn.Parameter(whole[:2].T[:6]),
        f"base_model.model.{V}.lora_B.weight": whole[2:6, ::3],
    }
    file = convert_pickle(pickled(tmp_path / "old", content), tmp_path / "new")
    made = load_file(file.path / "adapter_model.safetensors")
    assert all(torch.equal(made[key], tensor.detach()) for key, tensor in content.items())


class Program:
    """What a pickle may be: a call of any function, made when it is opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["archive", "old archive", "bare pickle", "among tensors"])
def test_a_program_is_not_run(tmp_path: Path, form: str) -> None:
    """A pickle that would make a folder when it is opened is refused, in every form, and makes none."""
    trace = tmp_path / "trace"
    folder = pickled(tmp_path / "old")
    file = folder / "adapter_model.bin"
    if form == "bare pickle":
        file.write_bytes(pickle.dumps(Program(trace)))
    elif form == "among tensors":
        torch.save(tensors() | {"x": Program(trace)}, file)
    else:
        torch.save(Program(trace), file, _use_new_zipfile_serialization=form == "archive")
    assert refusal(folder, tmp_path / "new") == (
        f"{file}: damaged, or it holds more than tensors and would run a program of its own; not opened"
    )
    assert not trace.exists()
    with pytest.raises(AdapterError, match="is a pickle, which can run any program"):
        adapters.read(folder)
    assert not trace.exists()
    if form != "bare pickle":  # the trap is real: opened without care, it makes the folder
        torch.load(file, weights_only=False)
        assert trace.exists()
    else:
        pickle.loads(file.read_bytes())
        assert trace.exists()


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x04", b"PK\x03\x04" + b"\0" * 50])
def test_what_is_no_pickle(tmp_path: Path, content: bytes) -> None:
    """Bytes that are no pickle at all are one clear error."""
    folder = pickled(tmp_path / "old")
    file = folder / "adapter_model.bin"
    file.write_bytes(content)
    assert refusal(folder, tmp_path / "new").startswith(f"{file}: damaged")


def test_every_truncation(tmp_path: Path) -> None:
    """A pickle cut off anywhere is refused, and nothing is written."""
    folder = pickled(tmp_path / "old", {"a": torch.zeros(1)})
    file = folder / "adapter_model.bin"
    content = file.read_bytes()
    for end in range(0, len(content), 7):
        file.write_bytes(content[:end])
        assert refusal(folder, tmp_path / "new").startswith(f"{file}: damaged")


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        torch.zeros(2),
        {"a": 3},
        {3: torch.zeros(1)},
        {"state_dict": {"a": torch.zeros(1)}},
        {"a": torch.eye(2).to_sparse()},
        {"a": torch.empty(2, device="meta")},
    ],
)
def test_pickles_of_something_else(tmp_path: Path, content: Any) -> None:
    """Honest pickles that are no set of named tensors are refused."""
    folder = pickled(tmp_path / "old", content)
    assert refusal(folder, tmp_path / "new") == (
        f"{folder / 'adapter_model.bin'}: not a set of named tensors, as PEFT saves them"
    )


def test_an_adapter_that_does_not_run(tmp_path: Path) -> None:
    """A pickle of tensors that are no adapter is converted for nothing; the reason names the old folder."""
    content = tensors()
    content[f"base_model.model.{Q}.lora_A.weight"][0, 0] = torch.nan
    folder = pickled(tmp_path / "old", content)
    assert refusal(folder, tmp_path / "new") == (
        f"{folder / 'adapter_model.bin'}: converted, but not usable: {folder / 'adapter_model.safetensors'}: "
        f"numbers that are inf or nan: 1 in lora_A of {Q}"
    )
    change_config(folder, use_dora=True)
    assert "DoRA (use_dora)" in refusal(folder, tmp_path / "new")


def test_nothing_to_convert(tmp_path: Path) -> None:
    """Without a pickle, without a configuration, or with safetensors already there, the message says so."""
    sound = write_adapter(tmp_path / "sound", modules=MODULES, r=2)
    out = tmp_path / "new"
    assert refusal(sound, out) == (
        f"{sound}: has adapter_model.safetensors already; nothing to convert"
    )
    assert refusal(tmp_path, out) == (
        f"{tmp_path}: no adapter_model.bin or adapter_model.pt or adapter_model.pth to convert"
    )
    folder = pickled(tmp_path / "old")
    (folder / "adapter_config.json").unlink()
    assert refusal(folder, out) == (
        f"{folder}: no adapter_config.json, so this is not a LoRA adapter"
    )


def test_where_it_goes(tmp_path: Path) -> None:
    """An empty folder is filled; one in use, or a file, is refused and left alone."""
    folder = pickled(tmp_path / "old")
    out = tmp_path / "new"
    out.mkdir()
    (out / "mine").write_text("mine")
    assert refusal(folder, out) == f"{out}: there already; allowed: a new or an empty folder"
    file = out / "mine"
    assert refusal(folder, file) == f"{file}: there already; allowed: a new or an empty folder"
    assert refusal(folder, folder) == (
        f"{folder}: there already; allowed: a new or an empty folder"
    )
    file.unlink()
    assert convert_pickle(folder, out).path == out.resolve()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder below a file cannot be made; one clear error."""
    folder = pickled(tmp_path / "old")
    (tmp_path / "file").write_text("a file")
    with pytest.raises(AdapterError) as caught:
        convert_pickle(folder, tmp_path / "file" / "deeper" / "new")
    target = tmp_path / "file" / "deeper" / "new"
    assert str(caught.value).startswith(f"{target}: cannot be written (")
