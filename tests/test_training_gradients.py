"""Gradients of an adapter on 4-bit layers are those on a dense model with the same weights, also after generating."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import make_dense, pack
from torch import nn

from workbench.engines.local import demo_model
from workbench.engines.local.awq import AwqLinear
from workbench.engines.local.dense import PackedLinear
from workbench.engines.local.engine import LocalEngine
from workbench.engines.local.loader import load
from workbench.training.apart import apart, with_lora
from workbench.training.loop import answer_losses
from workbench.training.settings import Settings
from workbench.training.tokens import Tokens, collate

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engines.local.loader import LoadedModel

Gradients = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random AWQ checkpoint with biases, so that no gradient is right by having nothing to get wrong."""
    place = tmp_path_factory.mktemp("gradients")
    dense = make_dense(place / "dense", demo_model.ensure(progress=False), "qwen2")
    return pack(dense, place / "awq", 32)


def gradients(model: Any) -> Gradients:
    """Gradient of every LoRA parameter for one batch of rows of different lengths, A and B both random."""
    rng = torch.Generator().manual_seed(5)
    lengths = ((12, 3), (9, 1), (15, 6))
    rows = [
        Tokens(tuple(torch.randint(3, 49152, (n,), generator=rng).tolist()), answer)
        for n, answer in lengths
    ]
    with apart(0), with_lora(model, Settings(), "tiny") as adapted:
        found = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for name, parameter in found.items():  # B starts at 0, and then A has no gradient
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.02)
        adapted.train()
        answer_losses(adapted, collate(rows, 0)).sum().backward()
        assert found
        return {name: parameter.grad.double().clone() for name, parameter in found.items()}


def dense_copy(loaded: LoadedModel) -> Any:
    """The same model in plain fp32 ``nn.Linear`` layers, weights as the kernel multiplies by them."""
    model = type(loaded.model)(loaded.model.config).float().eval().requires_grad_(False)
    model.load_state_dict(
        {n: t.float() for n, t in loaded.model.state_dict().items()}, strict=False
    )
    for name, layer in loaded.model.named_modules():
        if isinstance(layer, AwqLinear | PackedLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            plain.weight.data = layer.dequantize(torch.float32).clone()
            if layer.bias is not None:
                plain.bias.data = layer.bias.float().clone()
            model.set_submodule(name, plain.requires_grad_(False))
    return model


def unpacked(loaded: LoadedModel, folder: Path) -> Any:
    """The model with AWQ layers as the checkpoint has them, which dequantize at each call, in fp32."""
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    for name in [n.removesuffix(".qweight") for n in state if n.endswith(".qweight")]:
        old = loaded.model.get_submodule(name)
        layer = AwqLinear(old.in_features, old.out_features, 32, bias=old.bias is not None)
        parts = {k: state[f"{name}.{k}"] for k in ("qweight", "qzeros", "scales")}
        if old.bias is not None:
            parts["bias"] = state[f"{name}.bias"]
        layer.load_state_dict(parts, strict=True)
        loaded.model.set_submodule(name, layer)
    return loaded.model


def cosines(mine: Gradients, theirs: Gradients) -> list[float]:
    """Cosine of each pair of gradients."""
    assert mine.keys() == theirs.keys()
    return [
        float(torch.cosine_similarity(mine[n].flatten(), theirs[n].flatten(), dim=0)) for n in mine
    ]


def lengths(mine: Gradients, theirs: Gradients) -> list[float]:
    """By what share the length of each gradient is off."""
    return [abs(float(mine[n].norm() / theirs[n].norm()) - 1) for n in theirs]


def generate(loaded: LoadedModel) -> None:
    """Some answers from the model: caches are filled, layers have run without gradients."""
    LocalEngine(loaded).chat("What is 1 + 1?", max_tokens=4, temperature=0)


@pytest.mark.parametrize("kind", ["dequantized once", "awq layers", "dense file"])
def test_gradients_in_fp32_are_those_of_a_dense_model(folder: Path, kind: str) -> None:
    """Every LoRA parameter's gradient is that of plain dense layers, before and after generating, to the bit the same."""
    place = folder.parent / "dense" if kind == "dense file" else folder
    loaded = load(place, device="cpu", kernel="fp32", progress=False)
    reference = gradients(dense_copy(loaded))
    if kind == "awq layers":
        unpacked(loaded, folder)
    kinds = {type(m) for m in loaded.model.modules()}
    assert (AwqLinear in kinds) == (kind == "awq layers")
    before = gradients(loaded.model)
    generate(loaded)
    after = gradients(loaded.model)
    assert min(cosines(before, reference)) > 0.99999
    for name, gradient in reference.items():
        error = float((before[name] - gradient).norm() / gradient.norm())
        assert error < 1e-4, name
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_gradients_through_the_int4_kernel(folder: Path) -> None:
    """In fp32 they agree to a cosine above 0.999 and 1 % in length; in bf16, as it runs, no worse than a dense model in bf16."""
    loaded = load(folder, device="cpu", kernel="int4", progress=False)
    assert any(m.packed is not None for m in loaded.model.modules() if isinstance(m, AwqLinear))
    dense = dense_copy(loaded)
    reference = gradients(dense)
    in_bf16 = gradients(loaded.model)
    generate(loaded)
    again = gradients(loaded.model)
    assert all(torch.equal(in_bf16[name], again[name]) for name in in_bf16)
    rounded = gradients(dense.bfloat16())
    rounding = [1 - c for c in cosines(rounded, reference)]
    assert max(1 - c for c in cosines(in_bf16, reference)) < max(rounding)
    assert max(lengths(in_bf16, reference)) < max(lengths(rounded, reference))
    for module in loaded.model.modules():
        if not isinstance(module, AwqLinear):
            for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                if tensor.dtype == torch.bfloat16:
                    tensor.data = tensor.data.float()
    in_fp32 = gradients(loaded.model)
    assert min(cosines(in_fp32, reference)) > 0.999
    assert max(lengths(in_fp32, reference)) < 0.01
