"""The AWQ format and layer, against a reading of the format written here from its description."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from workbench.engines.local.awq import GROUP_SIZES, AwqLinear, pack_codes, unpack_codes
from workbench.engines.local.pack import awq_config, pack_state, quantize

# The order AutoAWQ publishes: nibble i of a word, from the low end, holds column ORDER[i] of its eight.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
BF16_STEP = 2.0**-8
"""Relative distance of two neighbouring bf16 numbers: rounding is wrong by at most half of it."""


def read_words(words: Tensor) -> np.ndarray:
    """Codes of packed words, one nibble at a time."""
    rows = []
    for row in words.tolist():
        codes = [0] * (8 * len(row))
        for at, word in enumerate(row):
            for nibble, column in enumerate(ORDER):
                codes[8 * at + column] = (word % 2**32) // 16**nibble % 16
        rows.append(codes)
    return np.array(rows)


def read_weight(parts: dict[str, Tensor], group_size: int, *, like_kernel: bool = False) -> Any:
    """The dense weight, (N, K) float64; ``like_kernel`` with scales and offsets rounded to bf16."""
    q, z = read_words(parts["qweight"]), read_words(parts["qzeros"])
    scales = parts["scales"].double().numpy()
    offsets = (8 - z) * scales
    if like_kernel:
        scales, offsets = (
            torch.tensor(a, dtype=torch.float32).bfloat16().double().numpy()
            for a in (scales, offsets)
        )
    weight = np.empty(q.shape)
    for k in range(q.shape[0]):
        g = k // group_size
        weight[k] = (q[k] - 8) * scales[g] + offsets[g]
    return weight.T


def make_layer(
    group_size: int, *, bias: bool, k: int = 512, n: int = 48, seed: int = 0
) -> tuple[AwqLinear, dict[str, Tensor]]:
    """A layer with random words, zeros and scales (not made by our packer), and its parts."""
    rng = torch.Generator().manual_seed(seed)
    low, high = -(2**31), 2**31
    parts = {
        "qweight": torch.randint(low, high, (k, n // 8), generator=rng).int(),
        "qzeros": torch.randint(low, high, (k // group_size, n // 8), generator=rng).int(),
        "scales": (torch.rand(k // group_size, n, generator=rng) * 0.02 + 1e-3).half(),
    }
    layer = AwqLinear(k, n, group_size, bias=bias)
    layer.load_state_dict(
        parts | ({"bias": torch.randn(n, generator=rng).half()} if bias else {}), strict=True
    )
    return layer, parts


def rows_of(layer: AwqLinear, n: int = 5, seed: int = 1) -> Tensor:
    """Random inputs of a layer, (n, K)."""
    return torch.randn(n, layer.in_features, generator=torch.Generator().manual_seed(seed))


def expected(layer: AwqLinear, weight: Any, x: Tensor) -> Any:
    """The layer's output in float64 for a dense weight."""
    out = x.double().numpy() @ weight.T
    return out if layer.bias is None else out + layer.bias.double().numpy()


LAYERS = pytest.mark.parametrize(
    ("group_size", "bias"), list(itertools.product(GROUP_SIZES, (False, True)))
)


@given(
    st.integers(1, 4).flatmap(
        lambda words: st.lists(
            st.lists(st.integers(0, 15), min_size=8 * words, max_size=8 * words),
            min_size=1,
            max_size=4,
        )
    )
)
def test_codes_survive_packing(codes: list[list[int]]) -> None:
    """Packed codes come back as they were, and nibble by nibble in the published order."""
    packed = pack_codes(torch.tensor(codes))
    assert packed.dtype == torch.int32
    assert unpack_codes(packed).tolist() == codes
    assert read_words(packed).tolist() == codes


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=8))
def test_words_survive_unpacking(words: list[int]) -> None:
    """Every 32-bit word, negative ones too, is read nibble by nibble and packed to itself."""
    tensor = torch.tensor([words], dtype=torch.int32)
    assert unpack_codes(tensor).tolist() == read_words(tensor).tolist()
    assert pack_codes(unpack_codes(tensor)).tolist() == [words]


def test_the_order_is_autoawqs() -> None:
    """Codes 0 to 7 make the word whose hex digits, read from the low end, are the published order."""
    assert pack_codes(torch.tensor([list(range(8))])).tolist() == [[0x75316420]]
    assert pack_codes(torch.tensor([list(range(8, 16))])).tolist() == [[0xFDB9ECA8 - 2**32]]


@LAYERS
def test_fp32_is_exact(group_size: int, bias: bool) -> None:
    """Dequantized weights equal the independent reading, and outputs agree to fp32 rounding."""
    layer, parts = make_layer(group_size, bias=bias)
    weight = read_weight(parts, group_size)
    assert np.abs(layer.dequantize().numpy() - weight).max() <= 1e-6 * np.abs(weight).max()
    x = rows_of(layer)
    wanted = expected(layer, weight, x)
    for out in (layer(x), layer.to_dense(torch.float32)(x)):
        assert np.abs(out.numpy() - wanted).max() < 1e-5 * np.abs(wanted).max()


@LAYERS
def test_the_int4_kernel_rounds_as_stated(group_size: int, bias: bool) -> None:
    """The kernel's output is that of bf16 scales and offsets, up to bf16 rounding of weight and result."""
    layer, parts = make_layer(group_size, bias=bias)
    x = rows_of(layer).bfloat16()
    assert layer.pack()
    weight = read_weight(parts, group_size, like_kernel=True)
    wanted = expected(layer, weight, x.float())
    out = layer(x)
    assert out.dtype == torch.bfloat16
    slack = np.abs(x.double().numpy()) @ np.abs(weight).T * BF16_STEP / 2
    assert (np.abs(out.double().numpy() - wanted) <= slack + BF16_STEP * np.abs(wanted)).all()


@LAYERS
def test_packed_dequantize_is_what_the_kernel_multiplies_by(group_size: int, bias: bool) -> None:
    """After packing, dequantize gives the bf16 weights that explain the kernel's outputs."""
    layer, parts = make_layer(group_size, bias=bias)
    layer.pack()
    dense = layer.dequantize().double().numpy()
    model = read_weight(parts, group_size, like_kernel=True)
    assert (np.abs(dense - model) <= BF16_STEP * np.abs(model) + 1e-9).all()
    x = rows_of(layer).bfloat16()
    wanted = expected(layer, dense, x.float())
    slack = np.abs(x.double().numpy()) @ np.abs(dense).T * BF16_STEP / 2
    out = layer(x).double().numpy()
    assert (np.abs(out - wanted) <= slack + BF16_STEP * np.abs(wanted)).all()


@pytest.mark.parametrize("n", [8, 24, 40])
def test_shapes_the_kernel_refuses_fall_back(n: int) -> None:
    """Where the int4 kernel does not take the layer, pack says so and the layer stays exact."""
    layer, parts = make_layer(64, bias=True, k=128, n=n)
    assert not layer.pack()
    assert layer.packed is None
    x = rows_of(layer)
    wanted = expected(layer, read_weight(parts, 64), x)
    assert np.abs(layer(x).numpy() - wanted).max() < 1e-5 * np.abs(wanted).max()


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two tensors taken as vectors."""
    return float(torch.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


@pytest.mark.parametrize("packed", [False, True])
@LAYERS
def test_gradients_before_and_after_a_no_grad_forward(
    group_size: int, bias: bool, packed: bool
) -> None:
    """The gradient to x is that of the dense weight, also once something ran without gradients."""
    layer, parts = make_layer(group_size, bias=bias)
    weight = torch.tensor(read_weight(parts, group_size))
    if packed:
        layer.pack()
    dtype = torch.bfloat16 if packed else torch.float32
    seed = torch.randn(5, layer.out_features, generator=torch.Generator().manual_seed(2))
    wanted = seed.double() @ weight

    def gradient() -> Tensor:
        x = rows_of(layer).to(dtype).requires_grad_()
        layer(x).backward(seed.to(dtype))
        assert x.grad is not None
        return x.grad

    before = gradient()
    with torch.no_grad():
        layer(rows_of(layer).to(dtype))
    after = gradient()
    assert cosine(before, wanted) > 0.999
    assert cosine(after, wanted) > 0.999
    assert torch.equal(before, after)


def test_gradient_is_exact_in_fp32() -> None:
    """Unpacked, the gradient equals autograd's through a dense layer to fp32 rounding."""
    layer, _ = make_layer(32, bias=True)
    dense = layer.to_dense(torch.float32)
    mine, theirs = rows_of(layer).requires_grad_(), rows_of(layer).requires_grad_()
    layer(mine).square().sum().backward()
    dense(theirs).square().sum().backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_packing_frees_the_words_and_keeps_a_linear_layer() -> None:
    """A packed layer holds only the kernel's tensors, and is still an nn.Linear with a weight to ask about."""
    layer, _ = make_layer(64, bias=False)
    assert isinstance(layer, nn.Linear)
    assert layer.weight is layer.qweight
    layer.pack()
    assert not any(hasattr(layer, part) for part in ("qweight", "qzeros", "scales"))
    assert layer.weight is layer.packed
    assert repr(layer) == "AwqLinear(512, 48, group_size=64, packed=True)"
    assert not list(layer.parameters())


@pytest.mark.parametrize("packed", [False, True])
def test_leading_dimensions_are_kept(packed: bool) -> None:
    """(B, T, K) gives (B, T, N), row by row the same as (B*T, K), in the type of x."""
    layer, _ = make_layer(64, bias=True)
    if packed:
        layer.pack()
    x = rows_of(layer, 6)
    out = layer(x.view(2, 3, -1))
    assert out.shape == (2, 3, layer.out_features)
    assert out.dtype == torch.float32
    assert torch.equal(out.view(6, -1), layer(x))


@given(
    group_size=st.sampled_from(GROUP_SIZES),
    scale=st.sampled_from([1e-3, 0.1, 10.0]),
    shift=st.sampled_from([-1.0, 0.0, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_quantizing_is_wrong_by_at_most_a_step(
    group_size: int, scale: float, shift: float, seed: int
) -> None:
    """Round to nearest keeps every weight within one step of its group, ranges without zero included."""
    weight = torch.randn(16, 512, generator=torch.Generator().manual_seed(seed)) * scale
    weight += shift * scale
    parts = quantize(weight, group_size)
    error = np.abs(read_weight(parts, group_size) - weight.double().numpy())
    steps = parts["scales"].double().numpy().T.repeat(group_size, axis=1)
    assert (error <= 1.01 * steps).all()
    assert np.median(error / steps) < 0.3


@pytest.mark.parametrize(
    ("n", "k", "group_size"), [(12, 64, 64), (16, 96, 64), (16, 64, 16), (16, 64, 48)]
)
def test_what_cannot_be_packed_is_refused(n: int, k: int, group_size: int) -> None:
    """Shapes and group sizes that the format does not hold are refused by name."""
    with pytest.raises(ValueError, match="cannot pack") as caught:
        quantize(torch.zeros(n, k), group_size)
    assert str(caught.value) == f"cannot pack a {n} x {k} weight in groups of {group_size}"


def test_only_projections_are_packed() -> None:
    """Attention and MLP projections are packed; biases, norms, embedding and head stay, as fp16."""
    state = {
        "model.embed_tokens.weight": torch.randn(8, 64),
        "model.layers.0.self_attn.q_proj.weight": torch.randn(16, 64),
        "model.layers.0.self_attn.q_proj.bias": torch.randn(16),
        "model.norm.weight": torch.randn(64),
        "lm_head.weight": torch.randn(8, 64),
    }
    packed = pack_state(state, 32)
    projection = "model.layers.0.self_attn.q_proj."
    assert sorted(packed) == sorted(
        [
            *(projection + part for part in ("qweight", "qzeros", "scales", "bias")),
            "model.embed_tokens.weight",
            "model.norm.weight",
            "lm_head.weight",
        ]
    )
    assert {str(t.dtype) for n, t in packed.items() if n.endswith(("weight", "bias"))} == {
        "torch.float16",
        "torch.int32",
    }
    assert packed[projection + "qweight"].shape == (64, 2)


def test_the_config_says_what_autoawq_says() -> None:
    """The packed checkpoint's config.json has AutoAWQ's fields and loses the dense type."""
    made = awq_config({"model_type": "llama", "torch_dtype": "float32"}, 128)
    assert made == {
        "model_type": "llama",
        "dtype": "float16",
        "quantization_config": {
            "quant_method": "awq",
            "bits": 4,
            "group_size": 128,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": None,
        },
    }
