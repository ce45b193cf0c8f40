"""Linear layers laid out for oneDNN, against ``nn.Linear``."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from workbench.engines.local.dense import PackedLinear

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def make(k: int, n: int, *, bias: bool, seed: int = 0) -> tuple[nn.Linear, PackedLinear]:
    """An ordinary layer and its packed twin."""
    torch.manual_seed(seed)
    dense = nn.Linear(k, n, bias=bias).requires_grad_(requires_grad=False)
    return dense, PackedLinear.of(dense)


@given(
    k=st.integers(1, 80),
    n=st.integers(1, 80),
    rows=st.integers(1, 40),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equal_to_linear(k: int, n: int, rows: int, bias: bool, seed: int) -> None:
    """Any shape, with and without bias, equals nn.Linear to fp32 rounding."""
    dense, packed = make(k, n, bias=bias, seed=seed)
    x = torch.randn(rows, k)
    torch.testing.assert_close(packed(x), dense(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_a_row_does_not_depend_on_how_many_there_are(bias: bool) -> None:
    """A row alone, in a few and in many rows gives the same numbers to fp32 rounding.

    Bit for bit was seen on two AMD cores; other processors may round differently, so it is not asked for here.
    """
    _, packed = make(576, 192, bias=bias)
    x = torch.randn(144, 576)
    whole = packed(x)
    for rows in (1, 2, 7, 16, 72):
        torch.testing.assert_close(packed(x[:rows]), whole[:rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_gradient(bias: bool) -> None:
    """The gradient to x is nn.Linear's, before and after a forward without gradients; weights get none."""
    dense, packed = make(64, 48, bias=bias)
    x = torch.randn(2, 3, 64)

    def gradient(layer: nn.Module) -> torch.Tensor:
        mine = x.clone().requires_grad_()
        layer(mine).square().sum().backward()
        assert mine.grad is not None
        return mine.grad

    wanted = gradient(dense)
    torch.testing.assert_close(gradient(packed), wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        packed(x)
    torch.testing.assert_close(gradient(packed), wanted, rtol=1e-4, atol=1e-5)
    assert packed.weight.grad is None
    assert not any(p.requires_grad for p in packed.parameters())


def test_leading_dimensions_are_kept() -> None:
    """(B, T, K) gives (B, T, N)."""
    dense, packed = make(32, 16, bias=True)
    x = torch.randn(2, 5, 32)
    assert packed(x).shape == (2, 5, 16)
    torch.testing.assert_close(packed(x), dense(x), rtol=1e-5, atol=1e-5)


def test_it_shares_the_weight() -> None:
    """The packed layer keeps the ordinary weight, as PEFT and tied embeddings want it, and is a Linear."""
    dense, packed = make(32, 16, bias=True)
    assert isinstance(packed, nn.Linear)
    assert packed.weight is dense.weight
    assert packed.bias is dense.bias
    assert (packed.in_features, packed.out_features) == (32, 16)


def test_what_is_usable() -> None:
    """Only plain fp32 linear layers on a CPU are taken; packing twice is not."""
    dense, packed = make(32, 16, bias=True)
    assert PackedLinear.usable(dense)
    assert not PackedLinear.usable(packed)
    assert not PackedLinear.usable(nn.Linear(4, 4).bfloat16())
    assert not PackedLinear.usable(nn.Linear(4, 4, device="meta"))
    assert not PackedLinear.usable(nn.Embedding(4, 4))
