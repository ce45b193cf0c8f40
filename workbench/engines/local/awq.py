"""AWQ GEMM weights in plain torch: the format, the linear layer, and the hook that puts it into transformers.

Format, as AutoAWQ writes it: for a layer of K inputs and N outputs in groups of g inputs,

* ``qweight`` int32 (K, N/8) and ``qzeros`` int32 (K/g, N/8): eight 4-bit codes a word, nibble i holding column ORDER[i];
* ``scales`` fp16 (K/g, N).

The weight is ``W[n, k] = (q[k, n] - z[k // g, n]) * s[k // g, n]``.

The layer is an ``nn.Linear`` to everything around it, so PEFT wraps it like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from workbench.engines.local.dense import FrozenMatmul

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)
_INVERSE: Final = tuple(ORDER.index(i) for i in range(8))
GROUP_SIZES: Final = (32, 64, 128, 256)
METHOD: Final = "awq_workbench"
_CUDA_TILES: Final = (8, 4, 2)
"""Inner tile counts of the CUDA kernel, best first; 16 times the count must divide K."""
_UNIT_ROWS: Final = 1024
_aten = torch.ops.aten


def pack_codes(codes: Tensor) -> Tensor:
    """Pack 4-bit codes, (R, C) of 0..15, into int32 words, (R, C/8)."""
    lanes = codes.reshape(*codes.shape[:-1], -1, 8).to(torch.int64)[..., list(ORDER)]
    shifts = torch.arange(0, 32, 4, dtype=torch.int64, device=codes.device)
    words = (lanes << shifts).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def unpack_codes(words: Tensor) -> Tensor:
    """Unpack int32 words, (R, C/8), into 4-bit codes, int32 (R, C)."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=words.device)
    lanes = (words.unsqueeze(-1) >> shifts) & 15
    return lanes[..., list(_INVERSE)].reshape(words.shape[0], -1)


class AwqLinear(nn.Linear):
    """A linear layer on AWQ weights.

    After loading, ``pack()`` turns the checkpoint's tensors into the layout of the device's int4 kernel, and frees
    them. Before that, and where the kernel does not take the layer's shape, each call dequantizes.

    Attributes:
        in_features: K.
        out_features: N.
        group_size: Inputs that share a scale, one of 32, 64, 128, 256.
    """

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    packed: Tensor | None
    scales_and_zeros: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        group_size: int,
        *,
        bias: bool,
        device: Any = None,
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        self.group_size = group_size
        groups, words = in_features // group_size, out_features // 8
        int32 = {"dtype": torch.int32, "device": device}
        self.register_buffer("qweight", torch.zeros(in_features, words, **int32))
        self.register_buffer("qzeros", torch.zeros(groups, words, **int32))
        fp16 = {"dtype": torch.float16, "device": device}
        self.register_buffer("scales", torch.zeros(groups, out_features, **fp16))
        self.register_buffer("bias", torch.zeros(out_features, **fp16) if bias else None)
        self.register_buffer("packed", None, persistent=False)
        self.register_buffer("scales_and_zeros", None, persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The stored words: PEFT reads device and dtype here. Never a dense weight."""
        return self.qweight if self.packed is None else self.packed

    def extra_repr(self) -> str:
        """Shape and group size."""
        shape = f"{self.in_features}, {self.out_features}, group_size={self.group_size}"
        return f"{shape}, packed={self.packed is not None}"

    def pack(self) -> bool:
        """Switch to the int4 kernel of the device (bf16); False if its shape rules out the kernel."""
        tiles = next((t for t in _CUDA_TILES if self.in_features % (16 * t) == 0), None)
        if self.out_features % 16 or (self.qweight.is_cuda and tiles is None):
            return False
        codes = unpack_codes(self.qweight).t().contiguous()
        scales = self.scales.float()
        offsets = (8 - unpack_codes(self.qzeros)).float() * scales
        pairs = torch.stack([scales, offsets], -1).to(torch.bfloat16).contiguous()
        if self.qweight.is_cuda:
            halves = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8)
            packed = _aten._convert_weight_to_int4pack(halves, tiles)  # noqa: SLF001 - torch's name
        else:
            packed = _aten._convert_weight_to_int4pack_for_cpu(codes, 1)  # noqa: SLF001 - torch's name
        self.packed, self.scales_and_zeros = packed, pairs
        for name in ("qweight", "qzeros", "scales"):
            delattr(self, name)  # PEFT asks whether they are there
        return True

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dense weight, (N, K): exact in fp32 before packing, with bf16-rounded scales after."""
        if self.packed is None:
            steps = unpack_codes(self.qweight) - unpack_codes(self.qzeros).repeat_interleave(
                self.group_size, 0
            )
            scales = self.scales.float().repeat_interleave(self.group_size, 0)
            dense: Tensor = (steps * scales).t().to(dtype)
            return dense
        return torch.cat([self._int4(rows) for rows in self._unit_rows()]).t().to(dtype)

    def _unit_rows(self) -> Iterator[Tensor]:
        """The unit matrix (K, K) in bf16, some rows at a time: the kernel's answer to it is the weight itself."""
        device = self.weight.device
        for start in range(0, self.in_features, _UNIT_ROWS):
            place = torch.arange(start, min(start + _UNIT_ROWS, self.in_features), device=device)
            rows = torch.zeros(len(place), self.in_features, dtype=torch.bfloat16, device=device)
            rows[place - start, place] = 1
            yield rows

    def _int4(self, rows: Tensor) -> Tensor:
        op = _aten._weight_int4pack_mm if rows.is_cuda else _aten._weight_int4pack_mm_for_cpu  # noqa: SLF001
        out: Tensor = op(rows, self.packed, self.group_size, self.scales_and_zeros)
        return out

    def matmul(self, x: Tensor) -> Tensor:
        """``x @ W.T`` without bias: (..., K) to (..., N)."""
        rows = x.reshape(-1, self.in_features)
        if self.packed is None:
            out = rows @ self.dequantize(rows.dtype).t()
        else:
            out = self._int4(rows.to(torch.bfloat16).contiguous()).to(rows.dtype)
        return out.reshape(*x.shape[:-1], self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        """``x @ W.T + b``: (..., K) to (..., N)."""
        tracked = torch.is_grad_enabled() and x.requires_grad
        out: Tensor = FrozenMatmul.apply(x, self) if tracked else self.matmul(x)  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias.to(out.dtype)

    def to_dense(self, dtype: torch.dtype) -> nn.Linear:
        """An ordinary linear layer with the same weights, dequantized once."""
        device = self.weight.device
        with torch.device("meta"):
            dense = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        dense.weight = nn.Parameter(self.dequantize(dtype).contiguous(), requires_grad=False)
        if self.bias is not None:
            dense.bias = nn.Parameter(self.bias.to(device, dtype), requires_grad=False)
        return dense


@register_quantization_config(METHOD)
class AwqWorkbenchConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What the loader tells transformers about an AWQ checkpoint.

    Attributes:
        group_size: Inputs that share a scale.
        modules: Name to (inputs, outputs) of the quantized linear layers, read from the checkpoint.
    """

    def __init__(self, group_size: int, modules: dict[str, tuple[int, int]], **_: Any) -> None:
        self.quant_method = METHOD
        self.bits = 4
        self.group_size = group_size
        self.modules = modules


@register_quantizer(METHOD)
class AwqWorkbenchQuantizer(HfQuantizer):  # type: ignore[misc]
    """Swaps the quantized layers in before transformers reads the weights."""

    requires_calibration = True

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> None:
        config = self.quantization_config
        linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        for name, (k, n) in config.modules.items():
            if name not in linear:
                raise ValueError(
                    f"{name} has packed weights, but the model has no linear layer there"
                )
            old = linear[name]
            if (old.in_features, old.out_features) != (k, n):
                raise ValueError(
                    f"{name} has packed weights of {k} inputs and {n} outputs, "
                    f"but config.json needs {old.in_features} and {old.out_features}"
                )
            with torch.device("meta"):
                new = AwqLinear(
                    old.in_features, old.out_features, config.group_size, bias=old.bias is not None
                )
            model.set_submodule(name, new.requires_grad_(requires_grad=False))

    def _process_model_after_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        return model

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        """Saving goes through the packer, never through save_pretrained."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Adapters on top can be trained; the base is frozen."""
        return True
