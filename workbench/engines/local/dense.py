"""Dense fp32 layers for a CPU, their weights laid out once for oneDNN.

``nn.Linear`` hands the weight to the matrix product as it is, and the library rearranges it at every call. Here oneDNN
gets it rearranged once. Measured on two AMD cores: 2.0 to 2.8 times the speed of ``nn.Linear`` for 8 to 144 rows, and
each row's result was bit-identical whatever the number of rows, which ``nn.Linear``'s was not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_ops = torch.ops.mkldnn


class FrozenMatmul(torch.autograd.Function):
    """``layer.matmul(x)``; the gradient reaches x through ``layer.dequantize``, the weights are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        """The layer's product; its layer is kept for the way back."""
        ctx.layer = layer
        out: Tensor = layer.matmul(x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient of x."""
        (grad,) = grads
        return grad @ ctx.layer.dequantize(grad.dtype), None


class PackedLinear(nn.Linear):
    """A frozen linear layer with a second copy of its weight in oneDNN's layout.

    The copy follows neither ``.to()`` nor a change of ``weight``: make the layer again for that.
    """

    packed: Tensor

    @staticmethod
    def usable(layer: nn.Module) -> bool:
        """True for an fp32 linear layer on a CPU, where torch was built with oneDNN."""
        return (
            type(layer) is nn.Linear
            and layer.weight.device.type == "cpu"
            and layer.weight.dtype == torch.float32
            and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        )

    @classmethod
    def of(cls, layer: nn.Linear) -> PackedLinear:
        """A packed layer that shares the weight and bias of an ordinary one."""
        with torch.device("meta"):
            new = cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
        new.weight = layer.weight
        new.bias = layer.bias
        with torch.no_grad():
            new.packed = _ops._reorder_linear_weight(layer.weight)  # noqa: SLF001 - torch's name
        return new.requires_grad_(requires_grad=False)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dense weight, (N, K)."""
        return self.weight.to(dtype)

    def matmul(self, x: Tensor) -> Tensor:
        """``x @ W.T + b``: (..., K) to (..., N)."""
        return _ops._linear_pointwise(x, self.packed, self.bias, "none", [], "")  # type: ignore[no-any-return]  # noqa: SLF001

    def forward(self, x: Tensor) -> Tensor:
        """``x @ W.T + b``: (..., K) to (..., N)."""
        if torch.is_grad_enabled() and x.requires_grad:
            return FrozenMatmul.apply(x, self)  # type: ignore[no-any-return, no-untyped-call]
        return self.matmul(x)
