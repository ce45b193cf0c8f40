"""Looking at a checkpoint before it is loaded: where it is, what it holds, what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import save_file

from workbench.engines.local import checkpoint as module
from workbench.engines.local.checkpoint import file_sha256, open_checkpoint, weight_hash
from workbench.engines.local.pack import awq_config, quantize
from workbench.errors import CorruptCheckpoint, ModelError, ModelNotFound, UnsupportedQuantization

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAYER = "model.layers.0.mlp.up_proj"
ALLOWED = "allowed: AWQ GEMM with 4 bits, or a checkpoint that is not quantized"


def awq_state() -> dict[str, torch.Tensor]:
    """Tensors of a packed checkpoint: one layer of 128 inputs and 16 outputs, and an embedding."""
    parts = quantize(torch.randn(16, 128, generator=torch.Generator().manual_seed(0)), 64)
    return {f"{LAYER}.{part}": t for part, t in parts.items()} | {
        "model.embed_tokens.weight": torch.zeros(10, 128, dtype=torch.float16)
    }


def write(path: Path, state: dict[str, torch.Tensor], config: dict[str, Any] | str) -> Path:
    """Write a checkpoint of one weight file."""
    path.mkdir(exist_ok=True, parents=True)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    text = config if isinstance(config, str) else json.dumps(config)
    (path / "config.json").write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def awq(tmp_path: Path) -> Path:
    """A packed checkpoint, group size 64."""
    return write(tmp_path / "awq", awq_state(), awq_config({"model_type": "llama"}, 64))


def change(path: Path, **fields: Any) -> None:
    """Change fields of quantization_config; None takes one out."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] |= fields
    config["quantization_config"] = {
        k: v for k, v in config["quantization_config"].items() if v is not None
    }
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")


def refusal(kind: type[ModelError], model: Any) -> str:
    """The message of the one error that opening a model raises."""
    with pytest.raises(kind) as caught:
        open_checkpoint(model)
    assert type(caught.value) is kind
    return str(caught.value)


def test_a_packed_checkpoint(awq: Path) -> None:
    """A folder is opened by path or text, with its shapes, sizes and group size."""
    found = open_checkpoint(awq)
    assert (found.name, found.path, found.revision) == (str(awq), awq.resolve(), None)
    assert found.group_size == 64
    assert found.quantized_shapes == {LAYER: (128, 16)}
    assert found.n_weights == 128 * 16 + 10 * 128
    assert found.files == [awq / "model.safetensors"]
    assert found.file_bytes == (awq / "model.safetensors").stat().st_size
    assert found.tensors[f"{LAYER}.qzeros"].shape == (2, 2)
    assert found.tensors[f"{LAYER}.qzeros"].dtype == "I32"
    assert open_checkpoint(str(awq)).tensors == found.tensors


def test_a_dense_checkpoint(tmp_path: Path) -> None:
    """Without quantization_config the group size is None."""
    path = write(tmp_path / "d", {"w": torch.zeros(3, 5)}, {"model_type": "llama"})
    found = open_checkpoint(path)
    assert (found.group_size, found.n_weights, found.quantized_shapes) == (None, 15, {})


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "GEMM"},
        {"version": None},
        {"bits": None, "w_bit": 4},
        {"group_size": None, "q_group_size": 64},
        {"zero_point": None},
        {"modules_to_not_convert": ["lm_head"]},
    ],
)
def test_spellings_that_autoawq_has_used(awq: Path, fields: dict[str, Any]) -> None:
    """Older names of the same fields, and fields left to their defaults, are understood."""
    change(awq, **fields)
    assert open_checkpoint(awq).group_size == 64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quant_method": "gptq"}, f"quant_method is 'gptq'; {ALLOWED}"),
        ({"quant_method": None}, f"quant_method is 'missing'; {ALLOWED}"),
        ({"quant_method": "fp8"}, f"quant_method is 'fp8'; {ALLOWED}"),
        ({"bits": 8}, f"AWQ with 8 bits; {ALLOWED}"),
        ({"bits": None}, f"AWQ with None bits; {ALLOWED}"),
        ({"version": "gemv"}, f"AWQ version 'gemv'; {ALLOWED}"),
        ({"version": "GEMV_fast"}, f"AWQ version 'gemv_fast'; {ALLOWED}"),
        ({"zero_point": False}, f"AWQ without zero points; {ALLOWED}"),
        ({"group_size": 16}, "AWQ group size 16; allowed: 32, 64, 128, 256"),
        ({"group_size": -1}, "AWQ group size -1; allowed: 32, 64, 128, 256"),
        ({"group_size": None}, "AWQ group size None; allowed: 32, 64, 128, 256"),
    ],
)
def test_other_quantizations(awq: Path, fields: dict[str, Any], message: str) -> None:
    """What is quantized otherwise is refused with what it is and what is allowed."""
    change(awq, **fields)
    assert refusal(UnsupportedQuantization, awq) == f"{awq}: {message}"


def test_not_a_checkpoint(tmp_path: Path) -> None:
    """A folder without config.json is not a checkpoint."""
    message = f"{tmp_path}: no config.json, so this is not a model checkpoint"
    assert refusal(ModelNotFound, tmp_path) == message


@pytest.mark.parametrize("name", ["./missing", "/missing/model", "~/missing/model"])
def test_a_path_that_is_not_there(name: str) -> None:
    """What looks like a path is never asked of the hub."""
    assert refusal(ModelNotFound, name) == f"{name}: no such folder"


def test_a_file_is_not_a_folder(awq: Path) -> None:
    """The weight file itself is not taken for a model."""
    file = awq / "model.safetensors"
    assert refusal(ModelNotFound, file) == f"{file}: no such folder"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type":', "not readable as JSON (Expecting value: line 1 column 15 (char 14))"),
        ("[]", "not a set of fields"),
        ("{}", "has no model_type"),
    ],
)
def test_a_damaged_config(awq: Path, text: str, message: str) -> None:
    """A config.json that cannot be read is named, with the place."""
    (awq / "config.json").write_text(text, encoding="utf-8")
    assert refusal(CorruptCheckpoint, awq) == f"{awq / 'config.json'}: {message}"


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
def test_damaged_side_files(awq: Path, name: str) -> None:
    """Files that transformers would pass over in silence when damaged are refused."""
    (awq / name).write_text("{", encoding="utf-8")
    assert refusal(CorruptCheckpoint, awq) == (
        f"{awq / name}: not readable as JSON "
        "(Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"
    )


@pytest.mark.parametrize("text", ["[1]", '"awq"'])
def test_a_quantization_config_that_is_none(awq: Path, text: str) -> None:
    """A quantization_config that is not an object is refused."""
    config = json.loads((awq / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = json.loads(text)
    (awq / "config.json").write_text(json.dumps(config), encoding="utf-8")
    message = f"{awq}: quantization_config in config.json is not a set of fields"
    assert refusal(CorruptCheckpoint, awq) == message


def test_config_and_weights_disagree(awq: Path, tmp_path: Path) -> None:
    """Packed weights without a quantization_config, and one without packed weights, are refused."""
    (awq / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    assert refusal(CorruptCheckpoint, awq) == (
        f"{awq}: has packed weights, but config.json has no quantization_config"
    )
    dense = write(tmp_path / "d", {"w": torch.zeros(2)}, awq_config({"model_type": "llama"}, 64))
    assert refusal(CorruptCheckpoint, dense) == (
        f"{dense}: config.json says AWQ, but no tensor is packed"
    )


def shorten(data: bytes) -> bytes:
    """The first half of a file."""
    return data[: len(data) // 2]


def scramble(data: bytes) -> bytes:
    """A file whose header is not text any more."""
    return data[:12] + b"\xff" * 8 + data[20:]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shorten, "incomplete metadata, file not fully covered"),
        (scramble, "invalid UTF-8 in header: invalid utf-8 sequence of 1 bytes from index 4"),
        (lambda data: data[:5], "header too small"),
        (lambda _: b"", "header too small"),
        (lambda data: data + b"x", "incomplete metadata, file not fully covered"),
    ],
)
def test_damaged_weights(awq: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    """Truncated, scrambled, empty or overlong weight files are refused before anything is loaded."""
    file = awq / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    assert refusal(CorruptCheckpoint, awq) == (
        f"{file}: truncated or damaged (Error while deserializing header: {reason}); download it again"
    )


def test_no_weights(awq: Path) -> None:
    """Weights in another format, or under another name, are not taken."""
    (awq / "model.safetensors").rename(awq / "adapter_model.safetensors")
    (awq / "pytorch_model.bin").write_bytes(b"x")
    assert refusal(ModelNotFound, awq) == (
        f"{awq}: no model.safetensors and no model.safetensors.index.json; "
        "other kinds of weight file are not loaded"
    )


def shard(path: Path) -> None:
    """Split a checkpoint's weight file in two, with an index."""
    state = awq_state()
    (path / "model.safetensors").unlink()
    parts = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for i, (name, tensor) in enumerate(state.items()):
        parts[sorted(parts)[i % 2]][name] = tensor
    for file, tensors in parts.items():
        save_file(tensors, path / file, metadata={"format": "pt"})
    weight_map = {name: file for file, tensors in parts.items() for name in tensors}
    (path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8"
    )


def test_shards(awq: Path) -> None:
    """An indexed checkpoint has the tensors of all its files, and only of those."""
    whole = {n: t.shape for n, t in open_checkpoint(awq).tensors.items()}
    shard(awq)
    save_file({"other": torch.zeros(1)}, awq / "consolidated.safetensors")
    found = open_checkpoint(awq)
    assert {n: t.shape for n, t in found.tensors.items()} == whole
    assert [f.name for f in found.files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_missing_shard(awq: Path) -> None:
    """A shard that the index names and that is not there is named."""
    shard(awq)
    (awq / "model-00002-of-00002.safetensors").unlink()
    assert refusal(CorruptCheckpoint, awq) == (
        f"{awq}: model.safetensors.index.json names files that are not there: "
        "model-00002-of-00002.safetensors"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("{}", "'weight_map'"),
        ("[]", "list indices must be integers or slices, not str"),
        ('{"weight_map": 3}', "'int' object has no attribute 'values'"),
    ],
)
def test_a_damaged_index(awq: Path, text: str, reason: str) -> None:
    """A weight index that cannot be read is one clear error."""
    shard(awq)
    index = awq / "model.safetensors.index.json"
    index.write_text(text, encoding="utf-8")
    message = f"{index}: not a readable weight index ({reason})"
    assert refusal(CorruptCheckpoint, awq) == message


@pytest.mark.parametrize(
    ("part", "tensor", "message"),
    [
        ("qzeros", None, f"{LAYER}.qzeros is missing"),
        ("scales", None, f"{LAYER}.scales is missing"),
        (
            "scales",
            torch.zeros(4, 16).half(),
            f"{LAYER}.scales has shape (4, 16), but group size 64 needs (2, 16)",
        ),
        (
            "qzeros",
            torch.zeros(2, 3).int(),
            f"{LAYER}.qzeros has shape (2, 3), but group size 64 needs (2, 2)",
        ),
        (
            "qweight",
            torch.zeros(128, 2),
            f"{LAYER}.qweight is F32 (128, 2), not a table of int32 words",
        ),
        (
            "qweight",
            torch.zeros(256).int(),
            f"{LAYER}.qweight is I32 (256,), not a table of int32 words",
        ),
        (
            "qweight",
            torch.zeros(100, 2).int(),
            f"{LAYER} has 100 inputs, which group size 64 does not divide",
        ),
    ],
)
def test_packed_tensors_that_do_not_fit_together(
    tmp_path: Path, part: str, tensor: torch.Tensor | None, message: str
) -> None:
    """Words, zeros and scales of a layer must be there, of the right kind, and fit the group size."""
    state = awq_state() | ({f"{LAYER}.{part}": tensor} if tensor is not None else {})
    if tensor is None:
        del state[f"{LAYER}.{part}"]
    path = write(tmp_path / "c", state, awq_config({"model_type": "llama"}, 64))
    assert refusal(CorruptCheckpoint, path) == f"{path}: {message}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub that is switched off."""
    path = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return path


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put_in_cache(hub: Path, name: str, source: Path) -> None:
    """Lay a checkpoint into a hub cache, as a download would."""
    repo = hub / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    shutil.copytree(source, repo / "snapshots" / COMMIT)


def test_a_cached_hub_model_opens_offline(awq: Path, hub: Path) -> None:
    """A hub id that was downloaded before is opened without the hub, with its commit."""
    put_in_cache(hub, "org/tiny-awq", awq)
    found = open_checkpoint("org/tiny-awq")
    assert (found.name, found.revision, found.group_size) == ("org/tiny-awq", COMMIT, 64)


def test_offline_lists_what_is_cached(awq: Path, hub: Path) -> None:
    """A hub id that is not here names the reason and the models that are."""
    head = "org/other: not a folder here, and not to be had from the model hub (HF_HUB_OFFLINE is set); cached models: "
    assert refusal(ModelNotFound, "org/other") == f"{head}none in {hub}"
    put_in_cache(hub, "org/tiny-awq", awq)
    put_in_cache(hub, "a/first", awq)
    assert refusal(ModelNotFound, "org/other") == f"{head}a/first, org/tiny-awq"


def test_not_a_hub_id(hub: Path) -> None:
    """Text that is neither a folder nor a possible hub id says what an id looks like."""
    assert refusal(ModelNotFound, "a/b/c") == (
        "a/b/c: not a folder here, and not to be had from the model hub (Repo id must be in the form "
        "'repo_name' or 'namespace/repo_name': 'a/b/c'. Use `repo_type` argument if needed.); "
        f"cached models: none in {hub}"
    )


RESPONSE = httpx.Response(403, request=httpx.Request("GET", "http://localhost"))


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
            "no such model there, or it is private",
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

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(module, "snapshot_download", fail)
    assert refusal(ModelNotFound, "org/other") == (
        f"org/other: not a folder here, and not to be had from the model hub ({reason}); "
        f"cached models: none in {hub}"
    )


def test_weight_hash_is_over_every_file(tmp_path: Path) -> None:
    """The hash depends on names and content of all files, not on their order or folder."""
    one, two, memo = tmp_path / "a", tmp_path / "b", tmp_path / "cache" / "memo.json"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    lines = "".join(f"{n} {hashlib.sha256(c).hexdigest()}\n" for n, c in (("a", b"1"), ("b", b"2")))
    wanted = hashlib.sha256(lines.encode()).hexdigest()
    assert weight_hash([one, two], memo) == wanted
    assert weight_hash([two, one], memo) == wanted
    assert weight_hash([one], memo) != wanted
    assert file_sha256(one) == hashlib.sha256(b"1").hexdigest()


def test_weight_hash_reads_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged file is not read again; a changed one is."""
    file, memo = tmp_path / "a", tmp_path / "memo.json"
    file.write_bytes(b"1")
    before = weight_hash([file], memo)
    monkeypatch.setattr(module, "file_sha256", lambda _: pytest.fail("read again"))
    assert weight_hash([file], memo) == before
    monkeypatch.undo()
    file.write_bytes(b"22")
    assert weight_hash([file], memo) != before


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_memo_is_written_anew(tmp_path: Path, text: str) -> None:
    """What remembers the hashes may be damaged: they are computed again."""
    file, memo = tmp_path / "a", tmp_path / "memo.json"
    file.write_bytes(b"1")
    wanted = weight_hash([file], tmp_path / "other.json")
    memo.write_text(text, encoding="utf-8")
    assert weight_hash([file], memo) == wanted
    assert len(json.loads(memo.read_text(encoding="utf-8"))) == 1


def test_a_memo_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    """Where the cache cannot be written, hashes still come out."""
    file = tmp_path / "a"
    file.write_bytes(b"1")
    wanted = weight_hash([file], tmp_path / "memo.json")
    assert weight_hash([file], file / "under-a-file" / "memo.json") == wanted
