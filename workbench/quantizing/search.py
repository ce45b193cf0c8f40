"""AutoAWQ's search for scales and clipping, so that it is right and quick on a CPU as well.

AutoAWQ 0.2.9 was written for GPUs. Two steps of its search are replaced, by inheriting from its quantizer:

* **Scales.** While it tries 20 scales for a group of layers, it puts the weights back after each from a copy it made with
  ``.cpu()``. For weights that are on the CPU already this is no copy, so each trial spoils the weights for the next, and the
  last one stays in the model: a SmolLM2-135M quantized so on a CPU had a perplexity of 734,000 instead of 24 (dense: 22).
  Here the copy is one.
* **Clipping.** For every group of weights it tries 10 bounds and takes the one that changes the layer's outputs least. It
  computes the outputs weight by weight. The same sum of squares is ``d^T G d`` with the group's change of weights ``d`` and
  ``G = X^T X / n`` of its inputs; this takes the same bounds (``tests/test_quantizing_real.py``) in about a hundredth of the time.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn


def searching(base: Any, on_layer: Callable[[], None] = lambda: None) -> Any:
    """AutoAWQ's quantizer with the two steps replaced.

    Args:
        base: ``awq.quantize.quantizer.AwqQuantizer``.
        on_layer: Called whenever a layer of the model is done.
    """

    class Search(base):  # type: ignore[misc]  # only known when it runs: the package is optional
        def _compute_best_scale(
            self, x: Any, w_mean: Any, x_mean: Any, module2inspect: Any, *rest: Any, **named: Any
        ) -> Any:
            with saving_copies(module2inspect):
                return super()._compute_best_scale(
                    x, w_mean, x_mean, module2inspect, *rest, **named
                )

        def _compute_best_clip(
            self,
            w: Tensor,
            input_feat: Tensor,
            n_grid: int = 20,
            max_shrink: float = 0.5,
            n_sample_token: int = 512,
        ) -> Tensor:
            shares = [1 - i / n_grid for i in range(int(max_shrink * n_grid))]
            inputs = input_feat.reshape(-1, input_feat.shape[-1])
            inputs = inputs[:: max(1, len(inputs) // n_sample_token)].to(w.device)
            return best_clip(
                w, inputs, self.group_size, shares, lambda t: self.pseudo_quantize_tensor(t)[0]
            )

        def _apply_quant(self, module: Any, named_linears: Any) -> None:
            super()._apply_quant(module, named_linears)
            on_layer()

    return Search


@contextlib.contextmanager
def saving_copies(module: nn.Module) -> Iterator[None]:
    """Inside, ``module.state_dict()`` holds copies, whatever happens to the module's weights in place."""

    def copied(_module: Any, state: Any, _prefix: Any, _metadata: Any) -> None:
        state.update({name: tensor.clone() for name, tensor in state.items()})

    handle = module.register_state_dict_post_hook(copied)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        handle.remove()


def best_clip(
    weight: Tensor,
    inputs: Tensor,
    group_size: int,
    shares: list[float],
    quantized: Callable[[Tensor], Tensor],
) -> Tensor:
    """For every group of weights the bound that changes its part of the outputs least, once quantized.

    Args:
        weight: Of a linear layer, (N, K).
        inputs: What the layer is given, (n, K).
        group_size: Divides K.
        shares: Bounds to try, as shares of a group's largest weight; of equal ones the first wins.
        quantized: (N, K) to the same after quantizing and dequantizing.

    Returns:
        Bounds (N, K / group_size, 1), in the weights' type.
    """
    n, k = weight.shape
    groups = weight.reshape(n, k // group_size, group_size)
    x = inputs.reshape(len(inputs), k // group_size, group_size).float()
    gram = torch.einsum("tgi,tgj->gij", x, x) / len(x)
    largest = groups.abs().amax(-1, keepdim=True)
    best, least = largest.clone(), torch.full_like(largest, torch.inf, dtype=torch.float32)
    for share in shares:
        bound = largest * share
        clipped = groups.clamp(-bound, bound).reshape(n, k)
        change = (quantized(clipped).reshape(groups.shape) - groups).float().transpose(0, 1)
        error = ((change @ gram) * change).sum(-1).t().unsqueeze(-1)
        better = error < least
        least, best = torch.where(better, error, least), torch.where(better, bound, best)
    return best
