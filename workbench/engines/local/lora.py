"""LoRA adapters in a loaded model: any number of them, and every row of a batch with its own or none.

PEFT says which layers an adapter changes and how strongly: it reads the configuration against a skeleton of the model that
has no weights. Decoding then needs, in each such layer and for all rows at once,

    y = W x + B (s * (A x))

with the A of all adapters stacked, (R, K), their B side by side, (N, R), and s the scale of the row's own adapter in its
columns and 0 in all others (Hu et al. 2021, equation 3). That is two small products however many adapters and rows there
are, where PEFT's own ``adapter_names`` takes two for every adapter and hooks every layer anew at each step. A row without
adapter gets exactly + 0.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from workbench.adapters import WEIGHTS, describe, peft_key
from workbench.engines.local.dense import PackedLinear
from workbench.errors import AdapterError, AdapterMismatch
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workbench.adapters import AdapterFile

_PREFIX: Final = "base_model.model."
_READ_BY_PEFT: Final = (
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
)
"""Fields of adapter_config.json that say which layers change, and how strongly; the others are only about training."""


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter in the memory of an engine.

    Attributes:
        name: As requests name it.
        file: What was read.
        slot: Its number in this engine, from 1; never given to another adapter.
        modules: Layers of the model that it changes.
        shift_nats: Mean change of the log-probability of a token against the base model, absolute, nats; None before the
            probe.
        inert: The shift is too small to matter.
    """

    name: str
    file: AdapterFile
    slot: int
    modules: tuple[str, ...]
    shift_nats: float | None = None
    inert: bool = False

    def probed(self, shift_nats: float, *, inert: bool) -> LoadedAdapter:
        """The same with what the probe found."""
        return replace(self, shift_nats=shift_nats, inert=inert)

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: plain values."""
        found = {"n_matched": len(self.modules), "shift_nats": self.shift_nats, "inert": self.inert}
        return describe(self.file) | found


@dataclass(frozen=True, slots=True)
class Part:
    """An adapter in one layer: A (r, K), B (N, r), and the scale of their product."""

    a: Tensor
    b: Tensor
    scale: float


class RowAdapters:
    """Which adapter each row of a forward pass has; shared by all layers of a model."""

    def __init__(self) -> None:
        self._slots: Tensor | None = None
        self._scales: dict[int, Tensor] = {}
        self._on = False

    @contextlib.contextmanager
    def use(self, slots: Tensor | None) -> Iterator[None]:
        """Inside, rows have these slots, int64 (rows,), 0 = none; without them, and outside, it is the base model."""
        if slots is not self._slots:
            self._slots, self._scales = slots, {}
        self._on = slots is not None
        try:
            yield
        finally:
            self._on = False

    def scales(self, table: Tensor) -> Tensor | None:
        """Scale of every column for every row, (rows, 1, R), from a table (slots, R); None without adapters.

        Found once for the same rows and table, since most layers share a table and most steps their rows.
        """
        if not self._on:
            return None
        found = self._scales.get(id(table))
        if found is None:
            found = self._scales[id(table)] = table[self._slots].unsqueeze(1)
        return found

    def forget(self) -> None:
        """Tables have changed."""
        self._slots, self._scales = None, {}


class MixedLinear(nn.Module):
    """A linear layer of the base model with the adapters that change it.

    Attributes:
        base: The layer as it was.
        parts: Slot to the adapter's part in this layer.
    """

    def __init__(self, base: nn.Linear, rows: RowAdapters) -> None:
        super().__init__()
        self.base = base
        self.parts: dict[int, Part] = {}
        self._rows = rows
        self._down: nn.Module | None = None
        self._up: nn.Module | None = None
        self._table: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The base layer's."""
        weight: Tensor = self.base.weight
        return weight

    def stack(self, table: Tensor) -> None:
        """Lay the parts side by side; the columns of ``table`` are in the order of ``parts``."""
        a, b = zip(*((part.a, part.b) for part in self.parts.values()), strict=True)
        self._down, self._up = _linear(torch.cat(a)), _linear(torch.cat(b, 1))
        self._table = table

    def forward(self, x: Tensor) -> Tensor:
        """(rows, n, K) to (rows, n, N)."""
        out: Tensor = self.base(x)
        scales = None if self._table is None else self._rows.scales(self._table)
        if scales is None:
            return out
        assert self._down is not None
        assert self._up is not None
        inner = self._down(x.to(scales.dtype)) * scales
        added: Tensor = self._up(inner)
        return out + added.to(out.dtype)


def _linear(weight: Tensor) -> nn.Linear:
    """A frozen layer with this weight, (out, in)."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    return PackedLinear.of(layer) if PackedLinear.usable(layer) else layer


class Adapters:
    """The adapters of one model. Loading and unloading changes its layers in place; the weights of the base stay."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model
        self._device = device
        # In fp32 on a CPU, whatever the base computes in; elsewhere in the base's type, as servers of adapters do.
        self._dtype = torch.float32 if device.type == "cpu" else model.dtype
        self._loaded: dict[str, LoadedAdapter] = {}
        self._slots = 0
        self.rows = RowAdapters()

    @property
    def loaded(self) -> Mapping[str, LoadedAdapter]:
        """Name to adapter, in the order of loading."""
        return self._loaded

    def slots(self, names: Sequence[str]) -> Tensor | None:
        """The slot of each row's adapter, int64 (rows,); None if all have the base.

        Raises:
            AdapterError: One is not loaded.
        """
        if all(name == BASE for name in names):
            return None
        numbers = [0 if name == BASE else self.get(name).slot for name in names]
        return torch.tensor(numbers, device=self._device)

    def get(self, name: str) -> LoadedAdapter:
        """A loaded adapter.

        Raises:
            AdapterError: There is none of this name.
        """
        if name not in self._loaded:
            known = ", ".join([BASE, *self._loaded])
            raise AdapterError(f"adapter {name!r} is not loaded; loaded: {known}")
        return self._loaded[name]

    def load(self, name: str, file: AdapterFile) -> LoadedAdapter:
        """Put an adapter into the model's layers; one of this name is replaced.

        Raises:
            AdapterMismatch: It does not fit the model.
            AdapterError: Its weights cannot be read.
        """
        parts = parts_of(self.model, file, self._device, self._dtype)
        if name in self._loaded:
            self._take_out(self._loaded.pop(name).slot)
        self._slots += 1
        for module, part in parts.items():
            layer = self.model.get_submodule(module)
            if not isinstance(layer, MixedLinear):
                assert isinstance(layer, nn.Linear)
                layer = MixedLinear(layer, self.rows)
                self.model.set_submodule(module, layer)
            layer.parts[self._slots] = part
        self._loaded[name] = LoadedAdapter(name, file, self._slots, tuple(parts))
        self._restack()
        return self._loaded[name]

    def note(self, adapter: LoadedAdapter) -> None:
        """Keep what the probe found."""
        self._loaded[adapter.name] = adapter

    def unload(self, name: str) -> None:
        """Take an adapter out; layers that no adapter changes any more are the base's own again.

        Raises:
            AdapterError: It is not loaded.
        """
        self._take_out(self.get(name).slot)
        del self._loaded[name]
        self._restack()

    def _take_out(self, slot: int) -> None:
        for module, layer in list(self._mixed()):
            layer.parts.pop(slot, None)
            if not layer.parts:
                self.model.set_submodule(module, layer.base)

    def _mixed(self) -> Iterator[tuple[str, MixedLinear]]:
        yield from [(n, m) for n, m in self.model.named_modules() if isinstance(m, MixedLinear)]

    def _restack(self) -> None:
        tables: dict[tuple[Any, ...], Tensor] = {}
        for _, layer in self._mixed():
            layout = tuple((slot, p.a.shape[0], p.scale) for slot, p in layer.parts.items())
            if layout not in tables:
                tables[layout] = self._table(layout)
            layer.stack(tables[layout])
        self.rows.forget()

    def _table(self, layout: Sequence[tuple[int, int, float]]) -> Tensor:
        """Scale by slot and column, (slots + 1, R)."""
        table = torch.zeros(self._slots + 1, sum(r for _, r, _ in layout), dtype=self._dtype)
        start = 0
        for slot, rank, scale in layout:
            table[slot, start : start + rank] = scale
            start += rank
        return table.to(self._device)


# ------------------------------------------------------------------------------------------------- reading


def parts_of(
    model: Any, file: AdapterFile, device: torch.device, dtype: torch.dtype
) -> dict[str, Part]:
    """An adapter's parts by layer, checked against the model.

    Raises:
        AdapterMismatch: A layer is missing, or has other sizes.
        AdapterError: The weights cannot be read.
    """
    layers = fit(model, file)
    try:
        tensors = load_file(file.path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{file.path}: the weights cannot be read ({error})") from error
    halves = {peft_key(key).removeprefix(_PREFIX): tensor for key, tensor in tensors.items()}
    return {
        name: Part(
            halves[f"{name}.lora_A.weight"].to(device, dtype),
            halves[f"{name}.lora_B.weight"].to(device, dtype),
            scale,
        )
        for name, scale in layers.items()
    }


def fit(model: nn.Module, file: AdapterFile) -> dict[str, float]:
    """The layers of a model that an adapter changes, with the scale of its product there, as PEFT reads it.

    Raises:
        AdapterMismatch: PEFT finds no such layers, the file has weights for others, or the shapes differ.
    """
    found = _injected(model, file)
    unmatched = sorted(set(file.shapes) - set(found))
    if unmatched:
        raise AdapterMismatch(
            f"{_told(file)}: weights for {_some(unmatched)}, which the loaded model does not have, or which "
            f"target_modules of adapter_config.json leaves out"
        )
    empty = sorted(set(found) - set(file.shapes))
    if empty:
        raise AdapterMismatch(
            f"{_told(file)}: adapter_config.json names {_some(empty)}, for which the file has no weights"
        )
    misfits = []
    for name, layer in found.items():
        if not isinstance(layer.get_base_layer(), nn.Linear):
            kind = type(layer.get_base_layer()).__name__
            raise AdapterMismatch(
                f"{_told(file)}: {name} is a {kind} layer; only adapters of linear layers can be used"
            )
        (rank, k), (n, _) = file.shapes[name]
        base = layer.get_base_layer()
        if (k, n) != (base.in_features, base.out_features):
            misfits.append(
                f"{name} takes {k} inputs to {n} outputs, in the model {base.in_features} to {base.out_features}"
            )
        elif rank != layer.r["default"]:
            misfits.append(f"{name} has rank {rank}, by adapter_config.json {layer.r['default']}")
    if misfits:
        more = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
        raise AdapterMismatch(f"{_told(file)}: the shapes do not fit: {misfits[0]}{more}")
    return {name: float(layer.scaling["default"]) for name, layer in found.items()}


def _injected(model: Any, file: AdapterFile) -> dict[str, Any]:
    """PEFT's layers for this adapter, made in a copy of the model that has no weights."""
    said = {name: file.config[name] for name in _READ_BY_PEFT if name in file.config}
    with torch.device("meta"):
        skeleton = type(model)(copy.deepcopy(model.config))
    try:
        inject_adapter_in_model(LoraConfig(**said), skeleton, low_cpu_mem_usage=True)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise AdapterMismatch(f"{_told(file)}: {' '.join(str(error).split())}") from error
    return {
        n: m for n, m in skeleton.named_modules() if isinstance(m, LoraLayer) and "default" in m.r
    }


def _told(file: AdapterFile) -> str:
    """The adapter, and the model it says it was made for."""
    return f"{file.path}" + (f" (made for {file.base})" if file.base else "")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
