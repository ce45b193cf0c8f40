"""LoRA adapters in a loaded model: any number of them, and every row of a batch with its own or none.

PEFT says which layers an adapter changes and how strongly: it reads the configuration against a skeleton of the model that
has no weights. Decoding then needs, in each such layer and for all rows at once,

    y = W x + B (s * (A x))

with the A of the adapters that rows of the batch have stacked, (R, K), their B side by side, (N, R), and s the scale of the
row's own adapter in its columns and 0 in all others (Hu et al. 2021, equation 3). That is two small products however many
adapters and rows there are, where PEFT's own ``adapter_names`` takes two for every adapter and hooks every layer anew at
each step. Adapters that are loaded and not in the batch cost nothing. A row without adapter gets exactly + 0, and what
overflows in one row's adapter stays in that row.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from workbench.adapters import CONFIG, contents, describe, matching, peft_fields
from workbench.engines.local.dense import PackedLinear
from workbench.errors import AdapterError, AdapterMismatch
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from workbench.adapters import AdapterFile, Numbers

_DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_READ_BY_PEFT: Final = (
    *("r", "lora_alpha", "use_rslora", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern"),
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
        base_matches: Whether it was trained on this model; None if that cannot be told.
    """

    name: str
    file: AdapterFile
    slot: int
    modules: tuple[str, ...]
    shift_nats: float | None = None
    inert: bool = False
    base_matches: bool | None = None

    @property
    def kinds(self) -> dict[str, int]:
        """How many layers of each kind it changes, by the last part of their names."""
        return dict(sorted(Counter(map(_kind, self.modules)).items()))

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: plain values."""
        return describe(self.file) | {
            "n_matched": len(self.modules),
            "matched": self.kinds,
            "shift_nats": self.shift_nats,
            "inert": self.inert,
            "base_matches": self.base_matches,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """One adapter in one layer, or several side by side.

    Attributes:
        down: All A, (R, K).
        up: All B, (N, R).
        scales: What each column's product is multiplied by, (R,).
        owners: Slot of the adapter that each column is of, int64 (R,).
        columns: The same, as (slot, rank) of one adapter after the other.
    """

    down: nn.Linear
    up: nn.Linear
    scales: Tensor
    owners: Tensor
    columns: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, slot: int, a: Tensor, b: Tensor, scale: float) -> Part:
        """An adapter's part: A (r, K), B (N, r), and the scale of their product."""
        rank = a.shape[0]
        owners = torch.full((rank,), slot, device=a.device)
        return cls(_linear(a), _linear(b), a.new_full((rank,), scale), owners, ((slot, rank),))

    @classmethod
    def joined(cls, parts: Sequence[Part]) -> Part:
        """Several parts of a layer as one."""
        return cls(
            _linear(torch.cat([part.down.weight for part in parts])),
            _linear(torch.cat([part.up.weight for part in parts], 1)),
            torch.cat([part.scales for part in parts]),
            torch.cat([part.owners for part in parts]),
            tuple(column for part in parts for column in part.columns),
        )


class RowAdapters:
    """Which adapter each row of a forward pass has; shared by all layers of a model.

    Attributes:
        present: Slots of the adapters that rows have, in order; empty where all is the base model.
    """

    def __init__(self) -> None:
        self.present: tuple[int, ...] = ()
        self._slots: Tensor | None = None
        self._found: tuple[int, ...] = ()
        self._own: dict[tuple[tuple[int, int], ...], Tensor] = {}

    @contextlib.contextmanager
    def use(self, slots: Tensor | None) -> Iterator[None]:
        """Inside, rows have these slots, int64 (rows,), 0 = none; without them, and outside, it is the base model."""
        if slots is not self._slots:
            self._slots, self._own = slots, {}
            self._found = () if slots is None else tuple(sorted(set(slots.tolist()) - {0}))
        self.present = self._found
        try:
            yield
        finally:
            self.present = ()

    def own(self, part: Part, inner: Tensor) -> Tensor:
        """Columns of each row's own adapter, all others 0, whatever was in them; (rows, n, R).

        Which they are is found once for the same rows, since most layers have the same columns and most steps their rows.
        """
        own = self._own.get(part.columns)
        if own is None:
            assert self._slots is not None
            own = (self._slots[:, None] == part.owners)[:, None]
            self._own[part.columns] = own
        return torch.where(own, inner, 0.0)


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
        self._joined: tuple[tuple[int, ...], Part | None] = ((), None)

    @property
    def weight(self) -> Tensor:
        """The base layer's."""
        weight: Tensor = self.base.weight
        return weight

    def only(self, slots: Collection[int]) -> None:
        """Keep the parts of these adapters, and drop the others."""
        self.parts = {slot: part for slot, part in self.parts.items() if slot in slots}
        if not set(self._joined[0]) <= set(slots):
            self._joined = ((), None)

    def part(self, present: Sequence[int]) -> Part | None:
        """The parts of these adapters as one; None if none of them changes this layer."""
        mine = tuple(slot for slot in present if slot in self.parts)
        if len(mine) < 2:
            return self.parts[mine[0]] if mine else None
        if self._joined[0] != mine:
            self._joined = (mine, Part.joined([self.parts[slot] for slot in mine]))
        return self._joined[1]

    def forward(self, x: Tensor) -> Tensor:
        """(rows, n, K) to (rows, n, N)."""
        out: Tensor = self.base(x)
        part = self.part(self._rows.present)
        if part is None:
            return out
        inner = part.down(x.to(part.scales.dtype)) * part.scales
        added: Tensor = part.up(self._rows.own(part, inner))
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

    @contextlib.contextmanager
    def trying(self, name: str, file: AdapterFile) -> Iterator[LoadedAdapter]:
        """Inside, an adapter is in the model's layers under a slot that no request knows; at the end it is gone unless kept.

        Raises:
            AdapterMismatch: It does not fit the model.
            AdapterError: Its weights cannot be read.
        """
        self._slots += 1
        try:
            parts = parts_of(self.model, file, self._slots, self._device, self._dtype)
            for module, part in parts.items():
                layer = self.model.get_submodule(module)
                if not isinstance(layer, MixedLinear):
                    assert isinstance(layer, nn.Linear)
                    layer = MixedLinear(layer, self.rows)
                    self.model.set_submodule(module, layer)
                layer.parts[self._slots] = part
            yield LoadedAdapter(name, file, self._slots, tuple(parts))
        finally:
            self._tidy()

    def keep(self, adapter: LoadedAdapter) -> None:
        """Let requests have an adapter that is being tried; the one that had its name goes."""
        others = {name: other for name, other in self._loaded.items() if name != adapter.name}
        self._loaded = others | {adapter.name: adapter}

    def unload(self, name: str) -> None:
        """Take an adapter out; layers that no adapter changes any more are the base's own again.

        Raises:
            AdapterError: It is not loaded.
        """
        self.get(name)
        del self._loaded[name]
        self._tidy()

    def _tidy(self) -> None:
        """Take out of the layers what is not loaded."""
        slots = {adapter.slot for adapter in self._loaded.values()}
        for name, layer in list(self.model.named_modules()):
            if isinstance(layer, MixedLinear):
                layer.only(slots)
                if not layer.parts:
                    self.model.set_submodule(name, layer.base)


# ------------------------------------------------------------------------------------------------- reading


def parts_of(
    model: Any, file: AdapterFile, slot: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Part]:
    """An adapter's parts by layer, checked against the model.

    Raises:
        AdapterMismatch: A layer is missing, or has other sizes.
        AdapterError: The weights cannot be read, or are not those that were identified.
    """
    layers = fit(model, file)
    _, halves = contents(file)
    parts = {}
    for name, scale in layers.items():
        a, b = (_tensor(numbers).to(device, dtype) for numbers in halves[name])
        parts[name] = Part.of(slot, a, b, scale)
    return parts


def _tensor(numbers: Numbers) -> Tensor:
    return torch.frombuffer(numbers.data, dtype=_DTYPES[numbers.dtype]).reshape(*numbers.shape)


def fit(model: nn.Module, file: AdapterFile) -> dict[str, float]:
    """The layers of a model that an adapter changes, with the scale of its product there, as PEFT reads it.

    Raises:
        AdapterMismatch: PEFT finds no such layers, the file has weights for others, or the shapes differ.
        AdapterError: An expression in adapter_config.json does not come to an end.
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
    misfits: dict[tuple[str, str], list[str]] = {}
    for name, layer in found.items():
        base = layer.get_base_layer()
        if not isinstance(base, nn.Linear):
            raise AdapterMismatch(
                f"{_told(file)}: {name} is a {type(base).__name__} layer; only adapters of linear layers can be used"
            )
        (rank, k), (n, _) = file.shapes[name]
        if (k, n) != (base.in_features, base.out_features):
            said = (
                f"{k} inputs to {n} outputs, in the model {base.in_features} to {base.out_features}"
            )
        elif rank != layer.r["default"]:
            said = f"rank {rank}, by adapter_config.json {layer.r['default']}"
        else:
            continue
        misfits.setdefault((_kind(name), said), []).append(name)
    if misfits:
        raise AdapterMismatch(
            f"{_told(file)}: the shapes do not fit: {'; '.join(map(_misfit, misfits, misfits.values()))}"
        )
    return {name: float(layer.scaling["default"]) for name, layer in found.items()}


def _kind(module: str) -> str:
    return module.rsplit(".", 1)[-1]


def _misfit(kind: tuple[str, str], names: Sequence[str]) -> str:
    """Layers of one kind that differ in the same way."""
    more = f", and so do {len(names) - 1} more {kind[0]}" if len(names) > 1 else ""
    return f"{names[0]} has {kind[1]}{more}"


def _injected(model: Any, file: AdapterFile) -> dict[str, Any]:
    """PEFT's layers for this adapter, made in a copy of the model that has no weights."""
    with torch.device("meta"):
        skeleton = type(model)(copy.deepcopy(model.config))
    said = {name: file.config[name] for name in _READ_BY_PEFT if name in file.config}
    # PEFT looks expressions up without a limit of time, so it gets the names that they match.
    names = [name for name, _ in skeleton.named_modules() if name]
    for field in ("target_modules", "exclude_modules"):
        expression = said.get(field)
        if isinstance(expression, str) and expression.lower() != "all-linear":
            said[field] = matching(expression, names, file.path / CONFIG)
    if said.get("target_modules") == []:
        raise AdapterMismatch(
            f"{_told(file)}: target_modules {file.config['target_modules']!r} of adapter_config.json names no layer of the "
            "loaded model"
        )
    patterns = {name: value for name, value in peft_fields(file).items() if "pattern" in name}
    try:
        inject_adapter_in_model(LoraConfig(**said | patterns), skeleton, low_cpu_mem_usage=True)
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
