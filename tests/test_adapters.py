"""Reading an adapter: what it holds, what identifies it, and where it may be."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from loras import (
    ab,
    change_config,
    write_adapter,
    write_config,
    write_raw,
    write_tensors,
)

from workbench.adapters import AdapterFile, describe, peft_fields, read, same
from workbench.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
MODULES = {V: (6, 4), Q: (6, 8)}
SMALL = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def make(folder: Path, **options: Any) -> Path:
    """An adapter of two modules, rank 2, alpha 16."""
    return write_adapter(folder, **({"modules": MODULES, "r": 2} | options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound adapter."""
    return make(tmp_path / "sound")


def weights_of(folder: Path) -> Path:
    """Its weight file."""
    return folder / "adapter_model.safetensors"


def refusal(path: str | Path) -> str:
    """The message of the error that reading raises."""
    with pytest.raises(AdapterError) as caught:
        read(path)
    assert type(caught.value) is AdapterError
    return str(caught.value)


# ------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(("dtype", "width"), [("F32", 4), ("F16", 2), ("BF16", 2)])
def test_what_an_adapter_holds(tmp_path: Path, dtype: str, width: int) -> None:
    """Shapes, counts, rank, alpha, targets, type and base are those written, in every type of number."""
    file = read(make(tmp_path / "a", dtype=dtype))
    assert file.path == (tmp_path / "a").resolve()
    assert file.shapes == {Q: ((2, 6), (8, 2)), V: ((2, 6), (4, 2))}
    assert list(file.shapes) == [Q, V]
    assert file.n_parameters == 2 * (6 + 8) + 2 * (6 + 4)
    size = weights_of(tmp_path / "a").stat().st_size
    assert (file.n_bytes, file.dtype, file.base) == (size, dtype, "some/base")
    assert (file.name, file.origin, file.base_hash) == ("a", None, None)
    assert size > file.n_parameters * width
    assert (file.rank, file.alpha, file.rslora) == (2, 16, False)
    assert file.targets == ("q_proj", "v_proj")
    assert file.scales == {Q: 8.0, V: 8.0}
    assert file.config == json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert len(bytes.fromhex(file.sha256)) == 32


def test_rank_stabilized_scale(tmp_path: Path) -> None:
    """With use_rslora the scale is alpha over the root of the rank."""
    file = read(make(tmp_path / "a", r=4, alpha=6, config={"use_rslora": True}))
    assert file.rslora
    assert file.scales == {Q: 3.0, V: 3.0}


def test_patterns(tmp_path: Path) -> None:
    """rank_pattern and alpha_pattern give single modules their own rank and alpha."""
    patterns = {"alpha_pattern": {r".*\.v_proj": 5}}
    file = read(make(tmp_path / "a", ranks={V: 4}, config=patterns))
    assert (file.rank, file.ranks, file.alphas) == (4, {Q: 2, V: 4}, {Q: 16, V: 5})
    assert file.scales == {Q: 8.0, V: 1.25}
    assert peft_fields(file) == {
        "r": 2,
        "lora_alpha": 16,
        "use_rslora": False,
        "target_modules": [Q, V],
        "rank_pattern": {r"^model\.layers\.0\.self_attn\.v_proj": 4},
        "alpha_pattern": {r"^model\.layers\.0\.self_attn\.v_proj": 5},
    }


def test_a_module_s_name_as_a_pattern(tmp_path: Path) -> None:
    """A module whose name is no expression for itself is found by the name, as PEFT does."""
    odd = "model.layers.0.a+b"
    file = read(
        write_adapter(tmp_path, modules={odd: (4, 4)}, r=3, config={"alpha_pattern": {odd: 5}})
    )
    assert file.alphas == {odd: 5}
    assert peft_fields(file)["alpha_pattern"] == {r"^model\.layers\.0\.a\+b": 5}


def test_a_description(folder: Path) -> None:
    """The description is plain values: one number where modules agree, the range where they do not."""
    file = read(folder)
    plain = {
        "path": str(folder.resolve()),
        "sha256": file.sha256,
        "rank": 2,
        "alpha": 16,
        "scale": 8.0,
        "rslora": False,
        "targets": ["q_proj", "v_proj"],
        "n_modules": 2,
        "n_parameters": 48,
        "n_bytes": file.n_bytes,
        "dtype": "F32",
        "base": "some/base",
        "base_hash": None,
        "origin": None,
    }
    assert describe(file) == plain
    assert json.loads(json.dumps(describe(file))) == plain
    mixed = describe(
        read(
            make(
                folder,
                ranks={V: 4},
                config={"alpha_pattern": {"v_proj": 5}, "base_model_name_or_path": None},
            )
        )
    )
    assert (mixed["rank"], mixed["ranks"]) == (4, [2, 4])
    assert (mixed["alpha"], mixed["scale"], mixed["base"]) == ([5, 16], [1.25, 8.0], None)


def test_mixed_types_of_numbers(tmp_path: Path) -> None:
    """A file that mixes types is read, and says which."""
    tensors = ab(MODULES, 2)
    make(tmp_path)
    write_tensors(weights_of(tmp_path), tensors, dict.fromkeys(list(tensors)[:2], "BF16"))
    assert read(tmp_path).dtype == "BF16+F32"


def test_no_torch_is_needed(folder: Path) -> None:
    """An adapter is read, described and judged in a process that cannot import torch, transformers or PEFT."""
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "from workbench import adapters\n"
        "file = adapters.read(sys.argv[1])\n"
        "print(file.sha256, adapters.describe(file)['rank'], len(adapters.hosted_limits(file)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [read(folder).sha256, "2", "1"]


# ------------------------------------------------------------------------------------------- identity


def reorder(folder: Path) -> None:
    """The same file with its tensors in another order, and other metadata."""
    tensors = dict(reversed(ab(MODULES, 2).items()))
    write_tensors(weights_of(folder), tensors)
    assert list(json.loads(weights_of(folder).read_bytes()[8:].split(b"}}")[0] + b"}}"))[1] != next(
        iter(ab(MODULES, 2))
    )


def respell(folder: Path) -> None:
    """The same file with an adapter's name in its keys, and no prefix."""
    write_tensors(weights_of(folder), ab(MODULES, 2, key="{module}.lora_{part}.default.weight"))


def rewrite(folder: Path) -> None:
    """The same configuration in another order, without white space."""
    file = folder / "adapter_config.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(fields.items())), separators=(",", ":")))


STAYS: dict[str, Callable[[Path], object]] = {
    "base": lambda f: change_config(f, base_model_name_or_path="another/base"),
    "model_type": lambda f: change_config(f, model_type="llama"),
    "version": lambda f: change_config(f, peft_version="9.9", revision="main"),
    "dropout": lambda f: change_config(f, lora_dropout=0.5, inference_mode=False),
    "targets": lambda f: change_config(f, target_modules=[Q, V]),
    "alpha as 16.0": lambda f: change_config(f, lora_alpha=16.0),
    "empty patterns": lambda f: change_config(f, rank_pattern=None, alpha_pattern=None),
    "a pattern for no module": lambda f: change_config(f, alpha_pattern={"up_proj": 3}),
    "a pattern that says the same": lambda f: change_config(f, alpha_pattern={"q_proj": 16}),
    "json": rewrite,
    "order of tensors": reorder,
    "spelling of keys": respell,
}


@pytest.mark.parametrize("change", STAYS)
def test_identity_stays(folder: Path, change: str) -> None:
    """What does not change what an adapter computes does not change its identity."""
    before = read(folder)
    content = {f.name: f.read_bytes() for f in folder.iterdir()}
    STAYS[change](folder)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} != content
    after = read(folder)
    assert after.sha256 == before.sha256
    assert same(before, after)


def test_identity_has_no_name(folder: Path, tmp_path: Path) -> None:
    """A copy under another name in another folder is the same adapter."""
    before = read(folder)
    copy = shutil.copytree(folder, tmp_path / "x" / "other name")
    assert same(read(copy), before)
    moved = folder.rename(tmp_path / "moved")
    assert same(read(moved), before)
    assert read(moved).path != before.path


def relabel(folder: Path) -> None:
    """The same bytes, said to be another type of the same width."""
    content = weights_of(make(folder, modules=MODULES, dtype="F16", zero_b=True)).read_bytes()
    assert content.count(b'"F16"') == 4
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start].replace(b'"F16"', b'"BF16"'))
    write_raw(weights_of(folder), header, content[start:])


CHANGES: dict[str, Callable[[Path], object]] = {
    "alpha": lambda f: change_config(f, lora_alpha=17),
    "use_rslora": lambda f: change_config(f, use_rslora=True),
    "alpha of one module": lambda f: change_config(f, alpha_pattern={"v_proj": 3}),
    "r": lambda f: make(f, r=3),
    "rank of one module": lambda f: make(f, ranks={V: 3}),
    "weights": lambda f: make(f, seed=1),
    "type of numbers": lambda f: make(f, dtype="BF16"),
    "meaning of bytes": relabel,
    "sizes": lambda f: make(f, modules={V: (4, 6), Q: (6, 8)}),
    "names": lambda f: make(f, modules={V.replace("v_", "k_"): (6, 4), Q: (6, 8)}),
    "fewer": lambda f: make(f, modules={Q: (6, 8)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_identity_changes(folder: Path, change: str) -> None:
    """What changes what an adapter computes changes its identity."""
    before = read(
        make(folder, dtype="F16", zero_b=True) if change == "meaning of bytes" else folder
    )
    CHANGES[change](folder)
    after = read(folder)
    assert after.sha256 != before.sha256
    assert not same(before, after)


def test_the_order_of_patterns_matters_where_they_overlap(folder: Path) -> None:
    """Of two patterns for a module the first counts, so their order is part of the identity just there."""
    both = {"q_proj": 3, r".*attn\.q_proj": 4}
    first = read(change_config(folder, alpha_pattern=both))
    second = read(change_config(folder, alpha_pattern=dict(reversed(both.items()))))
    assert (first.alphas[Q], second.alphas[Q]) == (3, 4)
    assert not same(first, second)
    apart = {"q_proj": 3, "v_proj": 4}
    first = read(change_config(folder, alpha_pattern=apart))
    second = read(change_config(folder, alpha_pattern=dict(reversed(apart.items()))))
    assert same(first, second)


def test_which_module_has_which_weights_is_identity(folder: Path) -> None:
    """The same tensors under each other's names are another adapter."""
    modules = {Q: (6, 8), V: (6, 8)}
    first = read(make(folder, modules=modules))
    tensors = ab(modules, 2)
    swapped = {
        key.replace("q_p", "X").replace("v_p", "q_p").replace("X", "v_p"): t
        for key, t in tensors.items()
    }
    write_tensors(weights_of(folder), swapped)
    assert read(folder).sha256 != first.sha256


@given(data=st.data())
@SMALL
def test_one_bit(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any single bit of any weight changes the identity, or makes a number that is inf or nan, which is refused."""
    folder = tmp_path_factory.getbasetemp() / "one-bit"
    before = read(make(folder, dtype=data.draw(st.sampled_from(["F32", "F16", "BF16"]))))
    file = weights_of(folder)
    content = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    place = data.draw(st.integers(start * 8, len(content) * 8 - 1))
    content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)
    try:
        after = read(folder)
    except AdapterError as error:
        assert "numbers that are inf or nan: 1 in lora_" in str(error)  # noqa: PT017
    else:
        assert after.sha256 != before.sha256
        assert (after.shapes, after.config) == (before.shapes, before.config)


# ------------------------------------------------------------------------------------------- no adapter there


@pytest.mark.parametrize("name", ["./missing", "/missing/adapter", "~/missing/adapter", "missing"])
def test_no_folder(name: str) -> None:
    """What looks like a path, or is one word, is never asked of the hub."""
    assert refusal(name) == f"{name}: no such folder"


def test_a_path_is_never_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Path object is a path, whatever it looks like."""
    monkeypatch.chdir(tmp_path)
    from pathlib import Path as PathType

    assert refusal(PathType("user/name")) == "user/name: no such folder"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 5000, f"[Errno {errno.ENAMETOOLONG}] {os.strerror(errno.ENAMETOOLONG)}: "),
        ("~nobody-of-this-name/x", "Could not determine home directory."),
    ],
)
def test_no_possible_folder(name: str, reason: str) -> None:
    """Text that can be no path says why."""
    assert refusal(name).startswith(f"{name}: no such folder ({reason}")


def test_a_null_byte() -> None:
    """A name no file can have is no folder."""
    assert refusal("a\0b") == "a\0b: no such folder"


def test_a_file_for_a_folder(folder: Path) -> None:
    """The weight file itself is not the adapter."""
    file = weights_of(folder)
    assert refusal(file) == (
        f"{file}: a file; give the folder that holds adapter_config.json and adapter_model.safetensors"
    )


def test_no_config(folder: Path) -> None:
    """A folder without adapter_config.json is no adapter."""
    (folder / "adapter_config.json").unlink()
    message = f"{folder}: no adapter_config.json, so this is not a LoRA adapter"
    assert refusal(folder) == message


def test_adapters_inside(tmp_path: Path) -> None:
    """Where the adapters are one folder deeper, as training leaves them, they are named."""
    for name in ("checkpoint-3", "checkpoint-1", "checkpoint-2", "checkpoint-4"):
        make(tmp_path / name)
    assert refusal(tmp_path) == (
        f"{tmp_path}: no adapter_config.json here, but in checkpoint-1/, checkpoint-2/, checkpoint-3/, ...: "
        "give that folder"
    )


def test_no_weights(folder: Path) -> None:
    """Weights under another name are not taken."""
    weights_of(folder).rename(folder / "model.safetensors")
    message = f"{folder}: no adapter_model.safetensors; other kinds of weight file are not loaded"
    assert refusal(folder) == message


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth"])
def test_a_pickle(folder: Path, name: str) -> None:
    """A pickle is not opened; the message says what to do. Beside safetensors it does not matter."""
    (folder / name).write_bytes(b"\x80\x04.")
    assert isinstance(read(folder), AdapterFile)
    weights_of(folder).unlink()
    assert refusal(folder) == (
        f"{folder}: {name} is a pickle, which can run any program when it is opened, and is not loaded; write it as "
        f"adapter_model.safetensors: workbench adapter {folder} --convert DIR"
    )


@given(text=st.text(max_size=40))
@SMALL
def test_any_name(text: str) -> None:
    """Whatever text is given for a path: an error that begins with it, no other; the hub is off in the tests."""
    assume(text.strip("./~") and not text.startswith("/"))
    assert refusal(text).startswith(f"{text}: ")


def test_a_missing_config_file_is_no_crash(tmp_path: Path) -> None:
    """A folder named adapter_config.json is no configuration."""
    (tmp_path / "adapter_config.json").mkdir()
    message = f"{tmp_path}: no adapter_config.json, so this is not a LoRA adapter"
    assert refusal(tmp_path) == message
    write_config(tmp_path / "deeper", {})
    assert refusal(tmp_path) == (
        f"{tmp_path}: no adapter_config.json here, but in deeper/: give that folder"
    )
