"""One adapter as it lies on disk: read, checked, identified and described."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from safetensors import SafetensorError, deserialize

from workbench.adapters import weights
from workbench.adapters.configs import ALLOWED, Scaling, read_config
from workbench.adapters.places import CONFIG, RECORD, WEIGHTS, config_file, find, weight_file
from workbench.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from workbench.adapters.weights import Tensor

PREFIX: Final = "base_model.model."
"""What PEFT puts before a module's name in its files."""

_PART: Final = re.compile(r"(?P<module>.+)\.lora_(?P<part>[AB])(?:\.(?P<name>[^.]+))?\.weight")
_OTHER: Final = (
    (r"\.lora_embedding_[AB]\b", "LoRA on embeddings"),
    (r"\.lora_magnitude_vector\b", "DoRA's magnitudes"),
    (r"\.lora_[AB](\.[^.]+)?\.bias$", "biases of A or B"),
    (r"\.trainable_tokens_", "trained token embeddings"),
    (r"\.lora_", "parts of another kind of LoRA"),
    (r"\.bias$", "biases of the base"),
    (r"\.weight$", "whole weights of the base"),
    ("", "unknown tensors"),
)
"""What a tensor that is neither A nor B is, by the first expression found in its name."""

_WHOLE: Final = "whole weights of the base"
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Numbers:
    """A tensor's content.

    Attributes:
        dtype: As safetensors names it, such as "BF16".
        shape: Its lengths.
        data: Its bytes.
    """

    dtype: str
    shape: Sequence[int]
    data: bytearray


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A LoRA adapter on disk, every byte of it checked; nothing of it is kept in memory but this.

    Attributes:
        path: Its folder.
        sha256: Identity of what it computes: hash of every module's A and B (names, dtypes, shapes, bytes), alpha, and
            rsLoRA or not. Folder, file layout, base_model_name_or_path and other free text are not in it.
        config: adapter_config.json as it is.
        shapes: Module name in the base, such as "model.layers.0.self_attn.q_proj", to the shapes of A (rank, inputs) and
            of B (outputs, rank); sorted by name.
        n_parameters: Numbers in all A and B.
        n_bytes: Bytes of adapter_model.safetensors.
        dtype: "F32", "F16" or "BF16"; joined by "+" if the file mixes them.
        base: The base it records (base_model_name_or_path), if any.
        base_hash: sha256 over the weight files of the base it was trained on, if the workbench trained it.
        name: What it is called if nobody says otherwise: its folder's name, or that of its repository.
        origin: ``owner/name@commit``, and ``:folder`` if it lies in one; None if it is not from the hub.
    """

    path: Path
    sha256: str
    config: dict[str, Any]
    shapes: dict[str, tuple[tuple[int, int], tuple[int, int]]]
    n_parameters: int
    n_bytes: int
    dtype: str
    base: str | None
    base_hash: str | None
    name: str
    origin: str | None

    @property
    def _scaling(self) -> Scaling:
        return Scaling.of(self.config, self.path / CONFIG)

    @property
    def ranks(self) -> dict[str, int]:
        """Module name to rank, 1 or more."""
        return {module: a[0] for module, (a, _) in self.shapes.items()}

    @property
    def rank(self) -> int:
        """The largest rank of a module."""
        return max(self.ranks.values())

    @property
    def alpha(self) -> float:
        """lora_alpha: alpha of the modules that alpha_pattern does not name."""
        return self._scaling.alpha

    @property
    def alphas(self) -> dict[str, float]:
        """Module name to alpha."""
        scaling = self._scaling
        return {module: scaling.alpha_of(module) for module in self.shapes}

    @property
    def rslora(self) -> bool:
        """Whether the scale is alpha/sqrt(rank) rather than alpha/rank."""
        return self._scaling.rslora

    @property
    def scales(self) -> dict[str, float]:
        """Module name to what B·A·x is multiplied by."""
        scaling, ranks = self._scaling, self.ranks
        return {
            module: scaling.scale(alpha, ranks[module]) for module, alpha in self.alphas.items()
        }

    @property
    def targets(self) -> tuple[str, ...]:
        """The last parts of the modules' names, sorted, such as ("q_proj", "v_proj")."""
        return tuple(sorted({module.rsplit(".", 1)[-1] for module in self.shapes}))


def read(path: str | Path) -> AdapterFile:
    """Read and check an adapter.

    Args:
        path: Its folder, or, as text, a repository of the model hub: ``owner/name``, if need be with ``@revision``, and
            ``:folder`` for a folder in it.

    Raises:
        AdapterError: No adapter is there; a file is missing, damaged or a pickle; a number is inf or nan; A, B and the
            configuration disagree; or it is of a kind that does not run here.
    """
    place = find(path)
    folder = place.folder
    where = config_file(folder)
    config = read_config(where)
    file = weight_file(folder)
    found = weights.tensors(file)
    pairs = _pairs(file, found)
    shapes = {module: _shapes(file, module, *pairs[module]) for module in sorted(pairs)}
    scaling = Scaling.of(config, where)
    _check_ranks(file, shapes, scaling)
    alphas = {module: float(scaling.alpha_of(module)) for module in shapes}
    base = config.get("base_model_name_or_path")
    sha256 = _content_hash(file, {m: pairs[m] for m in shapes}, alphas, rslora=scaling.rslora)
    return AdapterFile(
        path=folder,
        sha256=sha256,
        config=config,
        shapes=shapes,
        n_parameters=sum(a[0] * a[1] + b[0] * b[1] for a, b in shapes.values()),
        n_bytes=max(tensor.end for tensor in found),
        dtype="+".join(sorted({tensor.dtype for tensor in found})),
        base=base if isinstance(base, str) and base else None,
        base_hash=_base_hash(folder, sha256),
        name=place.name,
        origin=place.origin,
    )


def _base_hash(folder: Path, sha256: str) -> str | None:
    """The base's weight hash in the record of this very adapter's training; None where there is no such record."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = record["base"]["weight_hash"] if record["adapter"]["sha256"] == sha256 else None
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) and found else None


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _split(key: str) -> re.Match[str] | None:
    return _PART.fullmatch(key.removeprefix(PREFIX))


def peft_key(key: str) -> str:
    """A key of the weight file as PEFT writes it today: prefix, module, part, without an adapter's name.

    >>> peft_key("model.layers.0.self_attn.q_proj.lora_A.default.weight")
    'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'
    """
    part = _split(key)
    return f"{PREFIX}{part['module']}.lora_{part['part']}.weight" if part else key


def _pairs(file: Path, found: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each module."""
    parts: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    names, others = set(), []
    for tensor in found:
        part = _split(tensor.key)
        if part is None:
            others.append(tensor.key)
            continue
        names.add(part["name"])
        parts[part["part"]][part["module"]] = tensor
    if others:
        raise AdapterError(f"{file}: {_other_tensors(others)}")
    if not names:
        raise AdapterError(f"{file}: holds no tensors")
    keys = {peft_key(tensor.key) for tensor in found}
    if len(names) > 1 or len(keys) < len(found):
        shown = sorted(name or "one without a name" for name in names)
        raise AdapterError(f"{file}: holds several adapters ({', '.join(shown)}); allowed: one")
    for half, other in (("A", "B"), ("B", "A")):
        alone = sorted(parts[half].keys() - parts[other].keys())
        if alone:
            raise AdapterError(f"{file}: lora_{half} without lora_{other}: {_some(alone)}")
    return {module: (parts["A"][module], parts["B"][module]) for module in parts["A"]}


def _other_tensors(keys: Sequence[str]) -> str:
    """What the tensors are that are neither A nor B, by kind."""
    kinds: dict[str, list[str]] = {}
    for key in keys:
        kind = next(text for pattern, text in _OTHER if re.search(pattern, f".{key}"))
        kinds.setdefault(kind, []).append(key.removeprefix(PREFIX))
    listed = "; ".join(f"{kind} ({_some(names)})" for kind, names in kinds.items())
    advice = ""
    if _WHOLE in kinds:
        advice = (
            ". PEFT adds embeddings when lm_head is a target or the vocabulary has grown; "
            "save_pretrained(save_embedding_layers=False) leaves them out"
        )
    return f"holds more than A and B: {listed}; {ALLOWED}{advice}"


def _shapes(
    file: Path, module: str, a: Tensor, b: Tensor
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of a module's A and B, which must be tables of numbers with one rank."""
    for tensor, part, axes in ((a, "A", "(rank, inputs)"), (b, "B", "(outputs, rank)")):
        what = f"{file}: lora_{part} of {module}"
        if tensor.dtype not in weights.DTYPES:
            allowed = ", ".join(weights.DTYPES)
            raise AdapterError(f"{what} has numbers of type {tensor.dtype}; allowed: {allowed}")
        if len(tensor.shape) != 2 or min(tensor.shape) < 1:
            raise AdapterError(f"{what} has shape {tensor.shape}; allowed: {axes}, 1 or more each")
    if a.shape[0] != b.shape[1]:
        raise AdapterError(
            f"{file}: {module}: lora_A has rank {a.shape[0]} (shape {a.shape}), "
            f"lora_B rank {b.shape[1]} (shape {b.shape})"
        )
    return (a.shape[0], a.shape[1]), (b.shape[0], b.shape[1])


def _check_ranks(
    file: Path,
    shapes: Mapping[str, tuple[tuple[int, int], tuple[int, int]]],
    scaling: Scaling,
) -> None:
    """Refuse ranks that are not the configuration's: its alpha would be divided by the wrong one."""
    said = {module: scaling.rank_of(module) for module in shapes}
    wrong = [
        f"{module} has rank {a[0]}, not {said[module]}"
        for module, (a, _) in shapes.items()
        if a[0] != said[module]
    ]
    if wrong:
        advice = "; of patterns that overlap the first counts, and PEFT sorts them when it saves"
        raise AdapterError(
            f"{file}: ranks that r and rank_pattern of {CONFIG} do not say: {_some(wrong)}"
            f"{advice if len(scaling.rank_pattern) > 1 else ''}"
        )


def _content_hash(
    file: Path,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    alphas: Mapping[str, float],
    *,
    rslora: bool,
) -> str:
    """sha256 of what the adapter computes, hex; one pass over the file, which also refuses inf and nan."""
    digest = _digest(alphas, rslora=rslora)
    named = {
        tensor.key: (module, part)
        for module, pair in pairs.items()
        for part, tensor in zip("AB", pair, strict=True)
    }
    ordered = [tensor for pair in pairs.values() for tensor in pair]
    bad: Counter[str] = Counter()
    last = None
    for tensor, piece in weights.chunks(file, ordered):
        if tensor is not last:
            last = tensor
            digest.update(_line(*named[tensor.key], tensor.dtype, tensor.shape))
        digest.update(piece)
        bad["lora_{1} of {0}".format(*named[tensor.key])] += weights.n_not_finite(
            piece, tensor.dtype
        )
    wrong = [f"{n} in {name}" for name, n in bad.items() if n]
    if wrong:
        raise AdapterError(f"{file}: numbers that are inf or nan: {_some(wrong)}")
    return digest.hexdigest()


def _digest(alphas: Mapping[str, float], *, rslora: bool) -> hashlib._Hash:
    return hashlib.sha256(json.dumps({"alphas": alphas, "rslora": rslora}).encode())


def _line(module: str, part: str, dtype: str, shape: Sequence[int]) -> bytes:
    return f"\n{json.dumps([module, part, dtype, shape])}\n".encode()


def contents(file: AdapterFile) -> tuple[bytes, dict[str, tuple[Numbers, Numbers]]]:
    """The weights, read in one go, and only if they are those that were identified.

    Returns:
        The bytes of the weight file; A and B of each module.

    Raises:
        AdapterError: They have changed since the adapter was read, or cannot be read.
    """
    where = file.path / WEIGHTS
    try:
        content = where.read_bytes()
        found = {peft_key(key): Numbers(**part) for key, part in deserialize(content)}  # type: ignore[no-untyped-call]
    except (OSError, SafetensorError) as error:
        raise weights.damaged(where, error) from error
    digest = _digest({m: float(alpha) for m, alpha in file.alphas.items()}, rslora=file.rslora)
    halves: dict[str, tuple[Numbers, Numbers]] = {}
    for module in file.shapes:
        pair = [found.get(f"{PREFIX}{module}.lora_{part}.weight") for part in "AB"]
        for part, numbers in zip("AB", pair, strict=True):
            if numbers is not None:
                digest.update(_line(module, part, numbers.dtype, numbers.shape))
                digest.update(numbers.data)
        if pair[0] is not None and pair[1] is not None:
            halves[module] = (pair[0], pair[1])
    if digest.hexdigest() != file.sha256:
        raise AdapterError(f"{file.path}: has changed since it was read; read it again")
    return content, halves


def same(a: AdapterFile, b: AdapterFile) -> bool:
    """Whether two adapters compute the same, whatever they are called and wherever they lie."""
    return a.sha256 == b.sha256


def describe(file: AdapterFile) -> dict[str, Any]:
    """An adapter in plain values, for reports and records.

    Returns:
        path, sha256, rank (the largest), ranks (those that occur, if they differ), alpha and scale (one number, or the
        least and the greatest), rslora, targets, n_modules, n_parameters, n_bytes, dtype, base, base_hash, origin.
    """
    ranks = sorted(set(file.ranks.values()))
    return {
        "path": str(file.path),
        "sha256": file.sha256,
        "rank": file.rank,
        **({"ranks": ranks} if len(ranks) > 1 else {}),
        "alpha": _range(file.alphas.values()),
        "scale": _range(file.scales.values()),
        "rslora": file.rslora,
        "targets": list(file.targets),
        "n_modules": len(file.shapes),
        "n_parameters": file.n_parameters,
        "n_bytes": file.n_bytes,
        "dtype": file.dtype,
        "base": file.base,
        "base_hash": file.base_hash,
        "origin": file.origin,
    }


def _range(values: Iterable[float]) -> float | list[float]:
    found = sorted(set(values))
    return found[0] if len(found) == 1 else [found[0], found[-1]]


def peft_fields(file: AdapterFile) -> dict[str, Any]:
    """Arguments of ``peft.LoraConfig`` that put exactly this adapter's modules, ranks and scales on a base.

    Modules stand by their full names, so nothing depends on patterns that other versions may read otherwise.
    """
    scaling = Scaling.of(file.config, file.path / CONFIG)
    return {
        "r": scaling.r,
        "lora_alpha": scaling.alpha,
        "use_rslora": scaling.rslora,
        "target_modules": list(file.shapes),
        "rank_pattern": {
            f"^{re.escape(m)}": rank for m, rank in file.ranks.items() if rank != scaling.r
        },
        "alpha_pattern": {
            f"^{re.escape(m)}": alpha for m, alpha in file.alphas.items() if alpha != scaling.alpha
        },
    }
