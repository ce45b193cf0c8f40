"""Adapters that PEFT itself saved: what is read from the files agrees with PEFT's own layers, or is refused by name."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from loras import write_tiny
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from workbench.adapters import AdapterFile, export, hosted_limits, peft_fields, peft_key, read
from workbench.errors import AdapterError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "tie_word_embeddings": False,
}
IDS = torch.arange(12).reshape(2, 6)
KINDS = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
}


def base(kind: str = "llama") -> PreTrainedModel:
    """A tiny random decoder, always the same."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(KINDS[kind](**TINY, dtype="float32")).eval()


def trained(kind: str = "llama", seed: int = 1, **options: Any) -> PeftModel:
    """A model with an adapter whose every number is random, as after training."""
    model = get_peft_model(base(kind), LoraConfig(task_type="CAUSAL_LM", **options))
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def saved(model: PeftModel, folder: Path, **options: Any) -> Path:
    """Save as PEFT does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about embeddings saved along, wanted here
        model.save_pretrained(folder, **options)
    return folder


def layers_of(model: PeftModel) -> dict[str, LoraLayer]:
    """PEFT's own layers by the name of the module in the base."""
    named = model.base_model.model.named_modules()
    return {name: layer for name, layer in named if isinstance(layer, LoraLayer)}


def logits(model: torch.nn.Module) -> torch.Tensor:
    """What a model answers."""
    with torch.no_grad():
        return model(input_ids=IDS).logits


VARIANTS: dict[str, dict[str, Any]] = {
    "attention": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {
        "r": 4,
        "lora_alpha": 6,
        "use_rslora": True,
        "target_modules": ["k_proj", "o_proj"],
    },
    "rank pattern": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "down_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, r".*\.down_proj": 6},
        "alpha_pattern": {"q_proj": 3, r"^model\.layers\.0\.mlp\.down_proj": 12},
    },
    "both patterns and rslora": {
        "r": 2,
        "lora_alpha": 2,
        "use_rslora": True,
        "target_modules": ["q_proj", "k_proj", "v_proj"],
        "rank_pattern": {"q_proj|k_proj": 5, r"^model\.layers\.0\.self_attn\.v_proj": 7},
        "alpha_pattern": {r"layers\.\d+\.self_attn\.[kv]_proj": 9},
    },
    "expression": {
        "r": 3,
        "lora_alpha": 5,
        "target_modules": r".*\.mlp\.(up|gate)_proj",
    },
    "all linear layers": {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"},
    "one layer": {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj", "up_proj"],
        "layers_to_transform": [1],
        "layers_pattern": "layers",
    },
    "without some": {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": "all-linear",
        "exclude_modules": ["down_proj"],
        "lora_dropout": 0.3,
    },
    "gaussian": {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
    "orthogonal": {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": "orthogonal"},
    "mica": {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": "mica"},
    "random": {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_ranks_and_scales_are_those_of_peft(tmp_path: Path, kind: str, variant: str) -> None:
    """Modules, shapes, counts, ranks, alphas and scales of a saved file are what PEFT's layers have."""
    model = trained(kind, **VARIANTS[variant])
    file = read(saved(model, tmp_path))
    layers = layers_of(model)
    assert file.shapes == {
        name: (
            tuple(layer.lora_A["default"].weight.shape),
            tuple(layer.lora_B["default"].weight.shape),
        )
        for name, layer in sorted(layers.items())
    }
    assert file.ranks == {name: layer.r["default"] for name, layer in layers.items()}
    assert file.alphas == {name: layer.lora_alpha["default"] for name, layer in layers.items()}
    assert file.scales == {name: layer.scaling["default"] for name, layer in layers.items()}
    adapter = [p for name, p in model.named_parameters() if ".lora_" in name]
    assert file.n_parameters == sum(p.numel() for p in adapter)
    assert file.n_bytes == (tmp_path / "adapter_model.safetensors").stat().st_size
    assert file.dtype == "F32"


@pytest.mark.parametrize("variant", VARIANTS)
def test_fields_for_peft_rebuild_the_adapter(tmp_path: Path, variant: str) -> None:
    """A model with just the modules, ranks and scales that were read answers bit for bit as the saved one."""
    model = trained(**VARIANTS[variant])
    file = read(saved(model, tmp_path))
    again = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", **peft_fields(file)))
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "adapter_model.safetensors")
    result = peft.set_peft_model_state_dict(again, {peft_key(k): v for k, v in tensors.items()})
    assert not result.unexpected_keys
    assert torch.equal(logits(again.eval()), logits(model))
    assert not torch.equal(logits(again), logits(base()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    """An adapter saved in 16 bits is read as that, with half the bytes."""
    model = trained(**VARIANTS["attention"])
    full = read(saved(model, tmp_path / "32"))
    half = read(saved(model.to(dtype), tmp_path / "16"))
    assert half.dtype == {torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    assert half.shapes == full.shapes
    assert full.n_bytes - half.n_bytes == pytest.approx(full.n_parameters * 2, abs=64)
    assert half.sha256 != full.sha256


def test_saving_again_is_the_same_adapter(tmp_path: Path) -> None:
    """PEFT's load and save of an adapter keeps its identity, whatever name it had in between."""
    first = read(saved(trained(**VARIANTS["rank pattern"]), tmp_path / "a"))
    again = PeftModel.from_pretrained(base(), tmp_path / "a", adapter_name="other")
    saved(again, tmp_path / "b")
    assert read(tmp_path / "b" / "other").sha256 == first.sha256
    with pytest.raises(AdapterError) as caught:
        read(tmp_path / "b")
    assert str(caught.value) == (
        f"{tmp_path / 'b'}: no adapter_config.json here, but in other/: give that folder"
    )


def test_an_export_is_read_by_peft(tmp_path: Path) -> None:
    """PEFT takes an exported folder, hosted service's field included, and answers the same."""
    model = trained(**VARIANTS["rslora"])
    file = read(saved(model, tmp_path / "a"))
    assert "Workers AI wants model_type" in hosted_limits(file)[0]
    out = export(file, tmp_path / "out", model_type="llama")
    assert hosted_limits(read(out)) == ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT says that it passes over model_type
        again = PeftModel.from_pretrained(base(), out)
    assert torch.equal(logits(again.eval()), logits(model))


def test_the_full_spelling_of_keys_becomes_peft_s(tmp_path: Path) -> None:
    """Keys with the adapter's name in them, or without prefix, are the same adapter and are exported as PEFT reads them."""
    from safetensors.torch import load_file, save_file

    model = trained(**VARIANTS["attention"])
    plain = read(saved(model, tmp_path / "plain"))
    tensors = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    for n, (old, new) in enumerate(((".weight", ".default.weight"), ("base_model.model.", ""))):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / "adapter_config.json").write_bytes(
            (plain.path / "adapter_config.json").read_bytes()
        )
        renamed = {key.replace(old, new, 1): tensor for key, tensor in tensors.items()}
        assert not renamed.keys() & tensors.keys()
        save_file(renamed, folder / "adapter_model.safetensors")
        file = read(folder)
        assert (file.sha256, file.shapes) == (plain.sha256, plain.shapes)
        out = export(file, tmp_path / f"out{n}")
        assert read(out).sha256 == plain.sha256
        again = PeftModel.from_pretrained(base(), out)
        assert torch.equal(logits(again.eval()), logits(model))


def refusal(folder: Path) -> str:
    """The message of the error that reading raises, the folder left out."""
    with pytest.raises(AdapterError) as caught:
        read(folder)
    return str(caught.value).replace(f"{folder}/", "")


ALLOWED = "allowed: LoRA with A and B on linear layers (rsLoRA, rank_pattern and alpha_pattern too)"
QV = ["q_proj", "v_proj"]
CONVERT = (
    " alters the base, and this file fits only the altered base; save it with "
    "save_pretrained(path_initial_model_for_weight_conversion=the adapter before training), "
    "which writes a plain LoRA of twice the rank"
)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"target_modules": QV, "use_dora": True}, "DoRA (use_dora)"),
    "lora_bias": (
        {"target_modules": ["q_proj"], "lora_bias": True},
        "a bias on B (lora_bias)",
    ),
    "bias": ({"target_modules": QV, "bias": "all"}, "biases trained along (bias is 'all')"),
    "modules_to_save": (
        {"target_modules": QV, "modules_to_save": ["lm_head"]},
        "whole modules trained along (modules_to_save: lm_head)",
    ),
    "tokens": (
        {"target_modules": QV, "trainable_token_indices": [1, 2]},
        "trained token embeddings (trainable_token_indices)",
    ),
    "alora": (
        {"target_modules": QV, "alora_invocation_tokens": [1, 2]},
        "activated LoRA (alora_invocation_tokens)",
    ),
    "replication": (
        {"target_modules": QV, "layer_replication": [[0, 2], [1, 2]]},
        "replicated layers (layer_replication)",
    ),
    "kasa": ({"target_modules": QV, "kasa_config": peft.KasaConfig()}, "KaSA (kasa_config)"),
    "pissa": (
        {"target_modules": QV, "init_lora_weights": "pissa_niter_2"},
        "PiSSA (init_lora_weights is 'pissa_niter_2')",
    ),
    "olora": (
        {"target_modules": QV, "init_lora_weights": "olora"},
        "OLoRA (init_lora_weights is 'olora')",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_other_kinds_that_peft_saves_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    """What PEFT saves of every other kind is refused with its name and what is allowed."""
    options, said = REFUSED[kind]
    model = "qwen2" if kind == "lora_bias" else "llama"
    saved(trained(model, r=2, **options), tmp_path)
    advice = ". PiSSA" + CONVERT if kind == "pissa" else ". OLoRA" + CONVERT
    advice = advice if kind in ("pissa", "olora") else ""
    message = f"adapter_config.json: does not run here: {said}; {ALLOWED}{advice}"
    assert refusal(tmp_path) == message


def test_another_tuner(tmp_path: Path) -> None:
    """An adapter that is no LoRA is refused by its type."""
    config = peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[]
    )
    get_peft_model(base(), config).save_pretrained(tmp_path)
    message = f"adapter_config.json: does not run here: peft_type 'IA3'; {ALLOWED}"
    assert refusal(tmp_path) == message


def test_embeddings(tmp_path: Path) -> None:
    """LoRA on the embedding is no linear layer; the tensors say so, the configuration cannot."""
    saved(trained(r=2, target_modules=["embed_tokens"]), tmp_path, save_embedding_layers=False)
    assert refusal(tmp_path) == (
        "adapter_model.safetensors: holds more than A and B: LoRA on embeddings "
        f"(model.embed_tokens.lora_embedding_A, model.embed_tokens.lora_embedding_B); {ALLOWED}"
    )


def test_embeddings_saved_along(tmp_path: Path) -> None:
    """LoRA on lm_head is refused while PEFT's copy of the embeddings is with it, and runs without."""
    model = trained(r=2, target_modules=["lm_head"])
    saved(model, tmp_path / "with")
    assert refusal(tmp_path / "with") == (
        "adapter_model.safetensors: holds more than A and B: whole weights of the base "
        f"(lm_head.base_layer.weight); {ALLOWED}. PEFT adds embeddings when lm_head is a target or the vocabulary has "
        "grown; save_pretrained(save_embedding_layers=False) leaves them out"
    )
    saved(model, tmp_path / "without", save_embedding_layers=False)
    assert read(tmp_path / "without").shapes == {"lm_head": ((2, 32), (64, 2))}


def test_a_converted_pissa_adapter_is_plain(tmp_path: Path) -> None:
    """The advice for PiSSA works: saved that way, the adapter is read, and does to the base what the altered model does."""
    model = get_peft_model(
        base(), LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights="pissa", target_modules=QV)
    )
    model.peft_config["default"].init_lora_weights = True
    saved(model, tmp_path / "before")
    model.peft_config["default"].init_lora_weights = "pissa"
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    answer = logits(model.eval())
    saved(
        model,
        tmp_path / "after",
        path_initial_model_for_weight_conversion=str(tmp_path / "before"),
    )
    file = read(tmp_path / "after")
    assert file.rank == 4
    again = PeftModel.from_pretrained(base(), tmp_path / "after").eval()
    assert torch.allclose(logits(again), answer, atol=1e-5)
    assert not torch.allclose(logits(again), logits(base()), atol=1e-3)


def test_overlapping_ranks_are_lost_when_peft_saves(tmp_path: Path) -> None:
    """PEFT sorts patterns when it saves; where that makes another rank count, PEFT cannot load it, and the reason is said."""
    patterns = {"q_proj": 5, "layers.0.self_attn.q_proj": 7}
    saved(trained(r=2, target_modules=QV, rank_pattern=patterns), tmp_path)
    assert refusal(tmp_path) == (
        "adapter_model.safetensors: ranks that r and rank_pattern of adapter_config.json do not say: "
        "model.layers.0.self_attn.q_proj has rank 5, not 7; of patterns that overlap the first counts, and PEFT sorts "
        "them when it saves"
    )
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(base(), tmp_path)


def test_overlapping_alphas_are_read_as_peft_reads_them(tmp_path: Path) -> None:
    """Of alphas whose patterns overlap, the one counts that counts when PEFT loads the file."""
    patterns = {"q_proj": 5, "layers.0.self_attn.q_proj": 7}
    saved(trained(r=2, target_modules=QV, alpha_pattern=patterns), tmp_path)
    layers = layers_of(PeftModel.from_pretrained(base(), tmp_path))
    assert read(tmp_path).scales == {n: layer.scaling["default"] for n, layer in layers.items()}
    assert read(tmp_path).alphas["model.layers.0.self_attn.q_proj"] == 7


def test_an_untrained_adapter_is_an_adapter(tmp_path: Path) -> None:
    """B of zeros, as before training, is read: whether it does anything is for the engine to find."""
    model = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=QV))
    assert isinstance(read(saved(model, tmp_path)), AdapterFile)


def test_a_tiny_checkpoint_s_adapter(tmp_path: Path) -> None:
    """The helper for the tiny test checkpoints names their modules."""
    file = read(write_tiny(tmp_path, targets=("k_proj", "down_proj")))
    assert file.shapes["model.layers.1.self_attn.k_proj"] == ((8, 256), (128, 8))
    assert file.shapes["model.layers.0.mlp.down_proj"] == ((8, 512), (256, 8))
    assert len(file.shapes) == 4


def test_every_field_of_peft_is_known() -> None:
    """No field of the installed PEFT's LoraConfig is unheard of; a new one must be looked at before it is let through."""
    from workbench.adapters.configs import KINDS as OTHER
    from workbench.adapters.configs import NESTED, PLAIN

    fields = set(json.loads(json.dumps(list(LoraConfig.__dataclass_fields__))))
    assert fields - PLAIN - OTHER.keys() == set()
    assert (PLAIN | OTHER.keys()) - fields == {"model_type"}
    assert not PLAIN & OTHER.keys()
    variants = {
        n for n, f in LoraConfig.__dataclass_fields__.items() if "is_lora_variant" in f.metadata
    }
    assert variants - OTHER.keys() == set()
    assert not NESTED - OTHER.keys()
