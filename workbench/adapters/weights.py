"""The weight file of an adapter: safetensors read without torch, every byte looked at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
from safetensors import SafetensorError, safe_open

from workbench.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DTYPES: Final = {
    "F32": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
"""A number's bytes as an unsigned integer, and its exponent bits: a number is inf or nan when all of them are set."""

_CHUNK_BYTES: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor is.

    Attributes:
        key: Its name in the file.
        dtype: As safetensors names it, such as "BF16".
        shape: Its lengths.
        begin: Its first byte in the file.
        end: The byte after its last.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def tensors(file: Path) -> list[Tensor]:
    """All tensors of a safetensors file, checked by the safetensors package against the file's length, by key.

    Raises:
        AdapterError: The file is truncated or damaged, or cannot be read.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            keys = sorted(opened.keys())
            parts = {key: opened.get_slice(key) for key in keys}
            kinds = {k: (str(p.get_dtype()), tuple(p.get_shape())) for k, p in parts.items()}
        with file.open("rb") as opened:
            header, start = read_header(opened)
        places = {key: header[key]["data_offsets"] for key in keys}
    # The file may change between the two readings.
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise damaged(file, error) from error
    return [Tensor(k, *kinds[k], start + places[k][0], start + places[k][1]) for k in keys]


def damaged(file: Path, why: object) -> AdapterError:
    """The error for a weight file that is not whole."""
    return AdapterError(f"{file}: truncated or damaged ({why}); copy or download it again")


def read_header(opened: BinaryIO) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and the byte where its data begin (8 bytes of length, the header, the data)."""
    length = int.from_bytes(opened.read(8), "little")
    return json.loads(opened.read(length), object_pairs_hook=_once), 8 + length


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, no name twice: of two tensors with one name, readers would choose differently."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError(f"a name twice among {', '.join(fields)}")
    return fields


def chunks(file: Path, found: Sequence[Tensor]) -> Iterator[tuple[Tensor, bytes]]:
    """The bytes of tensors, in the order given, in pieces of at most 4 MiB.

    Raises:
        AdapterError: The file cannot be read, or is shorter than it was.
    """
    try:
        with file.open("rb") as opened:
            for tensor in found:
                opened.seek(tensor.begin)
                left = tensor.end - tensor.begin
                while left:
                    wanted = min(left, _CHUNK_BYTES)
                    piece = opened.read(wanted)
                    if len(piece) < wanted:
                        raise damaged(file, f"{tensor.key} ends early")
                    left -= wanted
                    yield tensor, piece
    except OSError as error:
        raise damaged(file, error) from error


def n_not_finite(piece: bytes, dtype: str) -> int:
    """How many numbers of a piece are inf or nan.

    >>> n_not_finite(np.array([1.0, np.nan, np.inf], "<f4").tobytes(), "F32")
    2
    """
    kind, exponent = DTYPES[dtype]
    return int(np.count_nonzero((np.frombuffer(piece, kind) & exponent) == exponent))
