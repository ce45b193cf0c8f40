"""Loading whole checkpoints: the numbers they give, and everything that is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from checkpoints import TOKENIZER_FILES, make_dense, pack
from safetensors.torch import load_file, save_file
from test_awq import read_weight
from transformers import AutoModelForCausalLM

from workbench.engines.local import demo_model, loader
from workbench.engines.local.awq import AwqLinear
from workbench.engines.local.dense import PackedLinear
from workbench.engines.local.loader import choose_device, choose_kernel, load, needed_bytes
from workbench.errors import (
    CorruptCheckpoint,
    EngineUnavailable,
    ModelError,
    ModelNotFound,
    OutOfMemory,
    WorkbenchError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from workbench.engines.local.loader import LoadedModel

pytestmark = pytest.mark.model

CPU = torch.device("cpu")
TOKENS = torch.randint(3, 49000, (2, 17), generator=torch.Generator().manual_seed(3))


class Pair(NamedTuple):
    """A dense checkpoint and the same weights packed."""

    dense: Path
    packed: Path
    group_size: int


SHAPES = [
    pytest.param(("llama", True, 64), id="llama-tied"),
    pytest.param(("llama", False, 32), id="llama-untied"),
    pytest.param(("qwen2", True, 128), id="qwen2-tied"),
    pytest.param(("qwen2", False, 256), id="qwen2-untied"),
]


@pytest.fixture(scope="module")
def tokenizer_from() -> Path:
    """Where the tests' tokenizer comes from."""
    return demo_model.ensure(progress=False)


@pytest.fixture(scope="module", params=SHAPES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer_from: Path
) -> Pair:
    """Llama and Qwen2 shapes, tied and untied, each with another group size."""
    kind, tied, group_size = request.param
    folder = tmp_path_factory.mktemp("pair")
    dense = make_dense(folder / "dense", tokenizer_from, kind, tied=tied)
    return Pair(dense, pack(dense, folder / "packed", group_size), group_size)


@pytest.fixture(scope="module")
def loaded(pair: Pair) -> dict[str, LoadedModel]:
    """The packed checkpoint of the pair with every kernel."""
    return {k: load(pair.packed, device="cpu", kernel=k) for k in ("fp32", "int4", "bf16")}


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory, tokenizer_from: Path) -> Pair:
    """A Qwen2-shaped pair for the refusals."""
    folder = tmp_path_factory.mktemp("qwen2")
    dense = make_dense(folder / "dense", tokenizer_from, "qwen2")
    return Pair(dense, pack(dense, folder / "packed", 64), 64)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, tokenizer_from: Path) -> Path:
    """A dense Llama-shaped checkpoint, whose config.json may name any number of layers."""
    return make_dense(tmp_path_factory.mktemp("llama") / "dense", tokenizer_from)


def logits(model: Any, tokens: Tensor = TOKENS) -> Tensor:
    """fp32 logits of every position."""
    with torch.no_grad():
        return model(input_ids=tokens).logits.float()


def reference(pair: Pair) -> Any:
    """The dense model with independently dequantized weights, as transformers runs it."""
    model = AutoModelForCausalLM.from_pretrained(
        pair.dense, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    stored = load_file(pair.packed / "model.safetensors")
    state = {}
    for name, tensor in stored.items():
        layer, _, part = name.rpartition(".")
        if part == "qweight":
            parts = {p: stored[f"{layer}.{p}"] for p in ("qweight", "qzeros", "scales")}
            state[f"{layer}.weight"] = torch.tensor(read_weight(parts, pair.group_size)).float()
        elif part not in ("qzeros", "scales"):
            state[name] = tensor.float()
    report = model.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert set(report.missing_keys) <= {"lm_head.weight"}
    return model.eval()


def test_packed_weights_give_the_logits_of_the_dequantized_model(
    pair: Pair, loaded: dict[str, LoadedModel]
) -> None:
    """Kernel fp32 agrees with transformers on the dequantized weights; int4 and bf16 come close."""
    wanted = logits(reference(pair))
    size = float(wanted.abs().max())
    assert float((logits(loaded["fp32"].model) - wanted).abs().max()) < 1e-5 * size
    for kernel in ("int4", "bf16"):
        close = logits(loaded[kernel].model)
        assert float((close - wanted).abs().max()) < 0.05 * size
        assert float(torch.cosine_similarity(close, wanted, dim=-1).min()) > 0.998


def test_kernels_use_their_layers(loaded: dict[str, LoadedModel]) -> None:
    """fp32 has oneDNN layers everywhere, int4 keeps the words packed, bf16 has plain layers; all frozen."""
    kinds = {}
    for kernel, one in loaded.items():
        model = one.model
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
        kinds[kernel] = type(model.model.layers[0].mlp.up_proj)
        if kernel == "int4":
            assert model.model.layers[0].mlp.up_proj.packed is not None
        biased = model.model.layers[1].self_attn.q_proj.bias is not None
        assert biased == (model.config.model_type == "qwen2")
    assert kinds == {"fp32": PackedLinear, "int4": AwqLinear, "bf16": torch.nn.Linear}


def test_tied_heads_stay_tied(loaded: dict[str, LoadedModel]) -> None:
    """A tied head shares the embedding's memory with every kernel; an untied one has its own weights."""
    for one in loaded.values():
        model = one.model
        shared = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
        assert shared == model.config.tie_word_embeddings


def test_dense_checkpoints_load(pair: Pair) -> None:
    """The dense baseline gives transformers' own logits in fp32, and comes close in bf16."""
    plain = AutoModelForCausalLM.from_pretrained(
        pair.dense, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    wanted = logits(plain.eval())
    size = float(wanted.abs().max())
    exact = load(pair.dense, device="cpu")
    assert (exact.info.quantization, exact.info.kernel) == ("none", "fp32")
    assert float((logits(exact.model) - wanted).abs().max()) < 1e-5 * size
    close = logits(load(pair.dense, device="cpu", kernel="bf16").model)
    assert float((close - wanted).abs().max()) < 0.05 * size


def test_the_checkpoint_is_described(pair: Pair, loaded: dict[str, LoadedModel]) -> None:
    """The info names weights, tokenizer, template, kernel and context of what was loaded."""
    info = loaded["int4"].info
    packed = pair.packed
    template = (packed / "chat_template.jinja").read_text(encoding="utf-8")
    digest = hashlib.sha256((packed / "model.safetensors").read_bytes()).hexdigest()
    assert info.engine == "local"
    assert info.model == str(packed)
    assert info.revision is None
    assert info.weight_hash == hashlib.sha256(f"model.safetensors {digest}\n".encode()).hexdigest()
    assert info.quantization == f"awq-4bit-g{pair.group_size}"
    assert (info.kernel, info.kernel_reason) == ("int4", "asked for")
    assert (info.dtype, info.device, info.context_length) == ("bfloat16", "cpu", 256)
    tokenizer = (packed / "tokenizer.json").read_bytes()
    assert info.tokenizer_hash == hashlib.sha256(tokenizer).hexdigest()
    assert info.chat_template_hash == hashlib.sha256(template.encode()).hexdigest()
    n_weights = sum(t.numel() for t in load_file(pair.dense / "model.safetensors").values())
    assert info.extra["n_weights"] == n_weights


def test_shards_give_the_same_model(qwen2: Pair, tmp_path: Path) -> None:
    """A checkpoint in several files with an index gives the same logits as in one."""
    path = shutil.copytree(qwen2.packed, tmp_path / "sharded")
    state = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {name: files[i % 2] for i, name in enumerate(state)}
    for file in files:
        save_file(
            {n: t for n, t in state.items() if weight_map[n] == file},
            path / file,
            metadata={"format": "pt"},
        )
    (path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8"
    )
    one, many = (load(p, device="cpu", kernel="fp32") for p in (qwen2.packed, path))
    assert torch.equal(logits(one.model), logits(many.model))


def test_layers_left_dense_stay_dense(qwen2: Pair, tmp_path: Path) -> None:
    """A layer that AutoAWQ was told not to convert is read as the dense weight it is."""
    name = "model.layers.0.mlp.up_proj"
    path = shutil.copytree(qwen2.packed, tmp_path / "mixed")
    state = load_file(path / "model.safetensors")
    for part in ("qweight", "qzeros", "scales"):
        del state[f"{name}.{part}"]
    weight = load_file(qwen2.dense / "model.safetensors")[f"{name}.weight"]
    save_file(
        state | {f"{name}.weight": weight.half()},
        path / "model.safetensors",
        metadata={"format": "pt"},
    )
    model = load(path, device="cpu", kernel="int4").model
    assert isinstance(model.model.layers[0].mlp.gate_proj, AwqLinear)
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, weight.half().bfloat16())


@pytest.mark.parametrize("kernel", ["fp32", "int4"])
def test_adapters_wrap_the_layers(qwen2: Pair, kernel: str) -> None:
    """PEFT takes the layers for linear ones: a fresh adapter changes nothing, and its weights get gradients."""
    from peft import LoraConfig, get_peft_model

    model = load(qwen2.packed, device="cpu", kernel=kernel).model
    before = logits(model)
    config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    wrapped = get_peft_model(model, config)
    assert torch.equal(logits(wrapped), before)
    wrapped(input_ids=TOKENS, labels=TOKENS).loss.backward()
    grads = {n: p.grad for n, p in wrapped.named_parameters() if p.requires_grad}
    assert len(grads) == 8
    assert all(g is not None for g in grads.values())
    first = [g for n, g in grads.items() if "layers.0.self_attn.q_proj.lora_B" in n]
    assert float(first[0].abs().max()) > 0


# Refusals: one error each, of the right kind, with the whole message.


def copy_of(source: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint to damage."""
    return shutil.copytree(source, tmp_path / "copy")


def configure(path: Path, **fields: Any) -> None:
    """Change fields of config.json."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")


def edit_weights(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a checkpoint."""
    state = load_file(path / "model.safetensors")
    edit(state)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})


def refusal(kind: type[WorkbenchError], model: Any, **options: Any) -> str:
    """The message of the one error that loading raises."""
    with pytest.raises(kind) as caught:
        load(model, **({"device": "cpu", "kernel": "fp32"} | options))
    assert type(caught.value) is kind
    return str(caught.value)


def test_a_missing_tensor(qwen2: Pair, tmp_path: Path) -> None:
    """A weight that is not in the file is never filled with random numbers."""
    path = copy_of(qwen2.packed, tmp_path)
    edit_weights(path, lambda state: state.pop("model.norm.weight"))
    assert refusal(CorruptCheckpoint, path) == f"{path}: weights are missing: model.norm.weight"


def test_many_missing_tensors(qwen2: Pair, tmp_path: Path) -> None:
    """Of many missing weights the first three are named, and the others counted."""
    path = copy_of(qwen2.dense, tmp_path)
    edit_weights(path, lambda state: [state.pop(n) for n in list(state) if "layers.0.mlp" in n])
    edit_weights(path, lambda state: [state.pop(n) for n in list(state) if "layers.1.mlp" in n])
    assert refusal(CorruptCheckpoint, path) == (
        f"{path}: weights are missing: model.layers.0.mlp.down_proj.weight, "
        "model.layers.0.mlp.gate_proj.weight, model.layers.0.mlp.up_proj.weight and 3 more"
    )


def test_a_missing_packed_layer(qwen2: Pair, tmp_path: Path) -> None:
    """A layer with neither words nor a dense weight is missing."""
    path = copy_of(qwen2.packed, tmp_path)
    name = "model.layers.1.mlp.up_proj"
    edit_weights(path, lambda s: [s.pop(f"{name}.{p}") for p in ("qweight", "qzeros", "scales")])
    message = f"{path}: weights are missing: {name}.weight"
    for kernel in ("fp32", "int4"):
        assert refusal(CorruptCheckpoint, path, kernel=kernel) == message


def test_weights_left_over(llama: Path, tmp_path: Path) -> None:
    """Layers or biases in the file that config.json has no place for are refused, not left out."""
    path = copy_of(llama, tmp_path)
    bias = "model.layers.0.self_attn.q_proj.bias"
    edit_weights(path, lambda state: state.update({bias: torch.zeros(256)}))
    head = f"{path}: weights that the model of config.json has no place for: "
    assert refusal(CorruptCheckpoint, path) == head + bias
    configure(path, num_hidden_layers=1)
    first = f"{bias}, model.layers.1.input_layernorm.weight, model.layers.1.mlp.down_proj.weight"
    assert refusal(CorruptCheckpoint, path) == f"{head}{first} and 7 more"


def test_buffers_that_old_checkpoints_carry_are_fine(llama: Path, tmp_path: Path) -> None:
    """Rotary frequencies and a copy of a tied head, as older files have them, do no harm."""
    path = copy_of(llama, tmp_path)
    wanted = logits(load(path, device="cpu").model)
    edit_weights(
        path,
        lambda s: s.update(
            {
                "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(32),
                "lm_head.weight": s["model.embed_tokens.weight"].clone(),
            }
        ),
    )
    assert torch.equal(logits(load(path, device="cpu").model), wanted)


def test_dense_shapes_that_do_not_fit(llama: Path, tmp_path: Path) -> None:
    """A shape other than config.json's is refused with both."""
    path = copy_of(llama, tmp_path)
    configure(path, vocab_size=1000)
    assert refusal(CorruptCheckpoint, path) == (
        f"{path}: shapes do not fit: model.embed_tokens.weight is (49152, 256) in the file, "
        "(1000, 256) by config.json"
    )


def test_packed_shapes_that_do_not_fit(qwen2: Pair, tmp_path: Path) -> None:
    """A packed layer of another shape than config.json's is refused with both."""
    path = copy_of(qwen2.packed, tmp_path)
    configure(path, intermediate_size=256)
    assert refusal(CorruptCheckpoint, path) == (
        f"{path}: model.layers.0.mlp.down_proj has packed weights of 512 inputs and 256 outputs, "
        "but config.json needs 256 and 256"
    )


def test_packed_weights_where_no_linear_layer_is(qwen2: Pair, tmp_path: Path) -> None:
    """Packed words for something that is not a linear layer are refused."""
    path = copy_of(qwen2.packed, tmp_path)
    parts = {
        "qweight": torch.zeros(64, 4).int(),
        "qzeros": torch.zeros(1, 4).int(),
        "scales": torch.zeros(1, 32).half(),
    }
    name = "model.layers.0.mlp.router"
    edit_weights(path, lambda state: state.update({f"{name}.{p}": t for p, t in parts.items()}))
    assert refusal(CorruptCheckpoint, path) == (
        f"{path}: {name} has packed weights, but the model has no linear layer there"
    )


def test_damaged_files_are_refused_by_load_too(qwen2: Pair, tmp_path: Path) -> None:
    """What open_checkpoint refuses reaches the caller of load unchanged."""
    path = copy_of(qwen2.packed, tmp_path)
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert refusal(CorruptCheckpoint, path) == (
        f"{file}: truncated or damaged (Error while deserializing header: incomplete metadata, "
        "file not fully covered); download it again"
    )
    missing = tmp_path / "missing"
    assert refusal(ModelNotFound, missing) == f"{missing}: no such folder"


def test_no_tokenizer(qwen2: Pair, tmp_path: Path) -> None:
    """A checkpoint without tokenizer files names the files that would do."""
    path = copy_of(qwen2.packed, tmp_path)
    for name in TOKENIZER_FILES:
        (path / name).unlink(missing_ok=True)
    assert refusal(ModelNotFound, path) == (
        f"{path}: no tokenizer files (tokenizer.json, tokenizer.model, vocab.json, vocab.txt)"
    )


def test_a_damaged_tokenizer(qwen2: Pair, tmp_path: Path) -> None:
    """A truncated tokenizer file is one clear error."""
    path = copy_of(qwen2.packed, tmp_path)
    file = path / "tokenizer.json"
    file.write_text('{"version": "1.0"', encoding="utf-8")
    assert refusal(CorruptCheckpoint, path) == (
        f"{path}: the tokenizer cannot be read (Expecting ',' delimiter: line 1 column 18 (char 17))"
    )


def test_no_chat_template(qwen2: Pair, tmp_path: Path) -> None:
    """A model without a chat template is refused; none is made up."""
    path = copy_of(qwen2.packed, tmp_path)
    (path / "chat_template.jinja").unlink()
    assert refusal(ModelNotFound, path) == (
        f"{path}: the tokenizer has no chat template; only chat models can be used"
    )


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        (
            {"model_type": "nothing"},
            ModelError,
            ": model_type 'nothing' is not known to transformers",
        ),
        ({"model_type": "vit"}, ModelError, ": vit is not a model that generates text"),
        (
            {"hidden_size": "wide"},
            CorruptCheckpoint,
            (
                "/config.json: Validation error for field 'hidden_size': TypeError: "
                "Field 'hidden_size' expected int, got str (value: 'wide')"
            ),
        ),
        (
            {
                "use_sliding_window": True,
                "sliding_window": 32,
                "max_window_layers": 1,
                "layer_types": ["full_attention", "sliding_attention"],
            },
            ModelError,
            (
                ": qwen2 has sliding-window or linear attention layers; "
                "only models with full attention in every layer can be used"
            ),
        ),
    ],
    ids=["unknown", "not-text", "invalid", "sliding"],
)
def test_architectures_that_cannot_be_used(
    qwen2: Pair, tmp_path: Path, fields: dict[str, Any], kind: type[ModelError], message: str
) -> None:
    """Unknown, unfit and sliding-window architectures are refused before any weight is read."""
    path = copy_of(qwen2.packed, tmp_path)
    configure(path, **fields)
    assert refusal(kind, path) == f"{path}{message}"


def test_a_window_that_is_switched_off_is_fine(qwen2: Pair, tmp_path: Path) -> None:
    """Qwen1.5 checkpoints name a window and switch it off: they load."""
    path = copy_of(qwen2.packed, tmp_path)
    configure(path, use_sliding_window=False, sliding_window=32768, max_window_layers=1)
    assert load(path, device="cpu", kernel="fp32").info.context_length == 256


def test_code_that_comes_with_a_checkpoint_is_not_run(qwen2: Pair, tmp_path: Path) -> None:
    """A checkpoint that brings its own Python is not asked about; its code stays where it is."""
    path = copy_of(qwen2.packed, tmp_path)
    marker = tmp_path / "ran"
    (path / "modeling.py").write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    configure(
        path,
        model_type="own",
        auto_map={"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"},
    )
    message = f"{path}: model_type 'own' is not known to transformers"
    assert refusal(ModelError, path) == message
    configure(path, model_type="qwen2")
    load(path, device="cpu", kernel="fp32")
    assert not marker.exists()


def test_too_little_memory(qwen2: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that do not fit are refused before they are read, with how much they need."""
    monkeypatch.setattr(loader, "free_bytes", lambda _: 10 * 2**20)
    weights = 49152 * 256 + 2 * (3 * 256 * 512 + 2 * 256 * 256 + 2 * 256 * 128 + 512 + 512) + 256
    need = weights * 4 * 2 * 1.1 / 2**30
    assert refusal(OutOfMemory, qwen2.dense) == (
        f"{qwen2.dense}: the weights need {need:.1f} GiB with kernel fp32, 0.0 GiB are free on cpu"
    )
    assert need > 0.1
    assert "with kernel int4" in refusal(OutOfMemory, qwen2.packed, kernel="auto")


def test_memory_running_out_while_loading(qwen2: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that runs out after all is out of memory, not a corrupt checkpoint."""

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    assert refusal(OutOfMemory, qwen2.packed) == (
        f"{qwen2.packed}: memory ran out on cpu while loading the weights"
    )


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:-1", "auto:0", "cpu:0", ""])
def test_unknown_devices(device: str) -> None:
    """A device that does not exist names the ones that may."""
    with pytest.raises(EngineUnavailable) as caught:
        choose_device(device)
    assert str(caught.value) == (f"device must be one of auto, cpu, cuda or cuda:N, got {device!r}")


def test_cuda_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for a GPU where there is none says so; auto takes the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        with pytest.raises(EngineUnavailable) as caught:
            choose_device(device)
        assert str(caught.value) == (
            f"device {device!r}: torch finds no CUDA device here; use cpu or auto"
        )
    assert choose_device("auto") == CPU


def test_gpus_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With GPUs, auto takes the first, a number picks one, and a number too high says the last."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(choose_device(d)) for d in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:0",
        "cuda:0",
        "cuda:1",
        "cpu",
    ]
    with pytest.raises(EngineUnavailable) as caught:
        choose_device("cuda:2")
    assert str(caught.value) == "device 'cuda:2': the last CUDA device here is cuda:1"


def test_unknown_kernels(qwen2: Pair) -> None:
    """A kernel that does not exist, or not for this checkpoint, names the ones that do."""
    assert refusal(EngineUnavailable, qwen2.packed, kernel="int8") == (
        "kernel must be one of auto, int4, fp32, bf16 for an AWQ checkpoint, got 'int8'"
    )
    assert refusal(EngineUnavailable, qwen2.dense, kernel="int4") == (
        "kernel must be one of auto, fp32, bf16 for a dense checkpoint, got 'int4'"
    )


def fake(group_size: int | None, n_weights: int = 10**9, file_bytes: int = 6 * 10**8) -> Any:
    """A checkpoint of a size, for choosing."""
    return SimpleNamespace(group_size=group_size, n_weights=n_weights, file_bytes=file_bytes)


def test_the_kernel_is_chosen_by_memory_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Auto dequantizes on a CPU while that leaves room, keeps 4 bits otherwise and on a GPU, and says why."""
    cuda = torch.device("cuda:0")
    monkeypatch.setattr(loader, "free_bytes", lambda _: 32 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert choose_kernel(fake(64), cuda, "auto").name == "fp32"
    with pytest.raises(EngineUnavailable) as caught:
        choose_kernel(fake(64), cuda, "int4")
    assert str(caught.value) == (
        "kernel 'int4' needs a GPU of compute capability 8.0 or later; use fp32"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    choice = choose_kernel(fake(64), CPU, "auto")
    assert (choice.name, choice.dtype) == ("fp32", torch.float32)
    assert choice.reason == (
        "weights dequantized once: fastest for a batch on a CPU, and they fit "
        "(8.2 GiB dequantized, 32.0 GiB free)"
    )
    assert choose_kernel(fake(64), cuda, "auto").name == "int4"
    assert choose_kernel(fake(None), CPU, "auto").name == "fp32"
    assert choose_kernel(fake(None), cuda, "auto").name == "bf16"
    monkeypatch.setattr(loader, "free_bytes", lambda _: 16 * 2**30)
    choice = choose_kernel(fake(64), CPU, "auto")
    assert (choice.name, choice.dtype) == ("int4", torch.bfloat16)
    assert choice.reason == (
        "dequantized weights would not leave room (8.2 GiB dequantized, 16.0 GiB free)"
    )


def test_needed_memory() -> None:
    """fp32 on a CPU counts two layouts, int4 the file, each with a margin."""
    assert needed_bytes(fake(64), "fp32", CPU) == int(10**9 * 4 * 2 * 1.1)
    assert needed_bytes(fake(64), "fp32", torch.device("cuda:0")) == int(10**9 * 4 * 1.1)
    assert needed_bytes(fake(64), "bf16", CPU) == int(10**9 * 2 * 1.1)
    assert needed_bytes(fake(64), "int4", CPU) == int(6 * 10**8 * 1.15)


def test_end_tokens_of_every_file(qwen2: Pair, tmp_path: Path) -> None:
    """Tokens that end an answer: those of config.json, generation_config.json and the tokenizer together."""
    path = copy_of(qwen2.packed, tmp_path)
    assert load(path, device="cpu", kernel="fp32").eos_token_ids == (2,)
    configure(path, eos_token_id=7)
    (path / "generation_config.json").write_text('{"eos_token_id": [9, 8]}', encoding="utf-8")
    assert load(path, device="cpu", kernel="fp32").eos_token_ids == (2, 7, 8, 9)
    configure(path, eos_token_id=None)
    (path / "generation_config.json").write_text('{"eos_token_id": 11}', encoding="utf-8")
    assert load(path, device="cpu", kernel="fp32").eos_token_ids == (2, 11)


def test_checkpoint_defaults_are_shown(qwen2: Pair, tmp_path: Path) -> None:
    """Decoding settings in generation_config.json are kept to be shown."""
    path = copy_of(qwen2.packed, tmp_path)
    settings = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.05}
    (path / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert load(path, device="cpu", kernel="fp32").info.checkpoint_defaults == settings


def test_loading_is_silent(qwen2: Pair, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither loading nor a refusal prints anything of transformers."""
    load(qwen2.packed, device="cpu", kernel="fp32")
    path = copy_of(qwen2.packed, tmp_path)
    edit_weights(path, lambda state: state.pop("model.norm.weight"))
    refusal(CorruptCheckpoint, path)
    assert capfd.readouterr() == ("", "")


def test_the_cache_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """WORKBENCH_CACHE moves the cache; without it, or empty, it is in the home folder."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert loader.demo_model.cache_dir() == tmp_path
    assert demo_model.folder().parent == tmp_path
    monkeypatch.setenv("WORKBENCH_CACHE", "")
    assert loader.demo_model.cache_dir() == Path.home() / ".cache" / "awq-workbench"
