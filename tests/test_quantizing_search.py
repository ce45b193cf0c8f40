"""The two steps of AutoAWQ's search that are replaced: saved weights stay saved, and the best bounds are found."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from workbench.quantizing.search import best_clip, saving_copies, searching

SHARES = [1 - i / 20 for i in range(10)]


def rounded(weight: Tensor) -> Tensor:
    """To sixteenths of the largest weight, the whole tensor one group."""
    step = weight.abs().max().clamp(min=1e-9) / 8
    return (weight / step).round() * step


def by_groups(weight: Tensor, group_size: int) -> Tensor:
    """Every group to sixteenths of its own largest weight."""
    groups = weight.reshape(-1, group_size)
    step = groups.abs().amax(1, keepdim=True).clamp(min=1e-9) / 8
    return ((groups / step).round() * step).reshape(weight.shape)


def reference(weight: Tensor, inputs: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Errors of every bound as written: the outputs themselves, compared; and the bounds."""
    n, k = weight.shape
    errors, bounds = [], []
    largest = weight.reshape(n, -1, group_size).abs().amax(-1, keepdim=True)
    for share in SHARES:
        bound = largest * share
        clipped = weight.reshape(n, -1, group_size).clamp(-bound, bound)
        change = by_groups(clipped.reshape(n, k), group_size) - weight
        out = (inputs[:, None] * change).reshape(len(inputs), n, -1, group_size).sum(-1)
        errors.append(out.double().pow(2).mean(0))
        bounds.append(bound[..., 0])
    return torch.stack(errors), torch.stack(bounds)


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(1, 6),
    n_groups=st.integers(1, 3),
    group_size=st.sampled_from([4, 8]),
    n_inputs=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_the_best_bound_is_the_one_whose_outputs_change_least(
    n, n_groups, group_size, n_inputs, seed
):
    """The bound chosen has the least error among all that were tried, the errors computed from the outputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n, n_groups * group_size, generator=generator) ** 3
    inputs = torch.randn(n_inputs, n_groups * group_size, generator=generator)
    found = best_clip(weight, inputs, group_size, SHARES, lambda w: by_groups(w, group_size))
    errors, bounds = reference(weight, inputs, group_size)
    assert found.shape == (n, n_groups, 1)
    chosen = (bounds - found[..., 0]).abs().argmin(0)
    error = errors.gather(0, chosen[None])[0]
    assert torch.equal(bounds.gather(0, chosen[None])[0], found[..., 0])
    least = errors.amin(0)
    assert torch.all(error <= least * (1 + 1e-4) + 1e-9)


def test_outliers_are_clipped_where_inputs_do_not_see_them():
    """A large weight on an input that is always 0 is cut to the smallest bound; on a large input it stays."""
    weight = torch.full((1, 8), 0.3)
    weight[0, 0] = 8.0
    blind = torch.ones(4, 8)
    blind[:, 0] = 0
    seen = torch.full((4, 8), 0.01)
    seen[:, 0] = 100
    cut, kept = (best_clip(weight, x, 8, SHARES, rounded).item() for x in (blind, seen))
    assert kept == 8.0
    assert cut < 8.0


class Base:
    """AutoAWQ's quantizer as far as the search goes, with its way of putting weights back."""

    group_size = 4

    def __init__(self) -> None:
        self.done: list[Any] = []

    def _compute_best_scale(
        self, x: Any, w_mean: Any, x_mean: Any, module2inspect: Any, linears: Any
    ) -> str:
        saved = {k: v.cpu() for k, v in module2inspect.state_dict().items()}
        for scale in (2.0, 3.0):
            for linear in linears:
                linear.weight.mul_(scale)
                linear.weight.data = linear.weight.data.round()
            module2inspect.load_state_dict(saved)
        return f"{x} {w_mean} {x_mean}"

    def _apply_quant(self, module: Any, named_linears: Any) -> None:
        self.done.append((module, named_linears))

    def pseudo_quantize_tensor(self, w: Tensor) -> tuple[Tensor, None, None]:
        """As in AutoAWQ, the first of three counts."""
        return by_groups(w, 4), None, None


def test_weights_are_as_before_the_search_for_scales():
    """On a CPU AutoAWQ's copies are no copies: weights end up scaled; with ours they are bit for bit what they were."""
    spoiled, kept = (nn.Linear(8, 8).requires_grad_(requires_grad=False) for _ in range(2))
    before = spoiled.weight.clone(), kept.weight.clone()
    Base()._compute_best_scale(1, 2, 3, spoiled, [spoiled])
    assert not torch.equal(spoiled.weight, before[0])  # what the replacement is for
    said = searching(Base)()._compute_best_scale(1, 2, 3, kept, [kept])
    assert torch.equal(kept.weight, before[1])
    assert said == "1 2 3"


def test_state_is_shared_again_afterwards():
    """Only while it is searched does the state hold copies."""
    layer = nn.Linear(2, 2)
    with saving_copies(layer):
        assert layer.state_dict()["weight"].data_ptr() != layer.weight.data_ptr()
    assert layer.state_dict()["weight"].data_ptr() == layer.weight.data_ptr()


def test_a_layer_is_reported_when_it_is_done():
    """Once for each layer, after AutoAWQ packed it."""
    seen: list[int] = []
    found = searching(Base, lambda: seen.append(len(made.done)))
    made = found()
    made._apply_quant("layer 0", {})
    made._apply_quant("layer 1", {})
    assert made.done == [("layer 0", {}), ("layer 1", {})]
    assert seen == [1, 2]


def test_inputs_are_thinned_as_autoawq_does():
    """Of 1,400 inputs every second one counts: AutoAWQ takes about 512."""
    generator = torch.Generator().manual_seed(0)
    weight, inputs = (
        torch.randn(4, 8, generator=generator),
        torch.randn(2, 700, 8, generator=generator),
    )
    found = searching(Base)()._compute_best_clip(weight, inputs)
    assert torch.equal(
        found, best_clip(weight, inputs.reshape(-1, 8)[::2], 4, SHARES, lambda w: by_groups(w, 4))
    )
