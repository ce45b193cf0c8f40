"""Tokens to text: whole characters only, cut at stop texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_BROKEN: Final = "\ufffd"
_CHARACTER_BYTES: Final = 4
_METASPACE: Final = "\u2581"


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of an answer, without special tokens and without a character cut short at its end."""
    text = _raw(tokenizer, token_ids)
    if not text.endswith(_BROKEN):
        return text
    whole = text.rstrip(_BROKEN)
    # Decoders of the byte-fallback kind break the characters before an unfinished one too: look without its tokens.
    for n in range(1, min(len(token_ids), _CHARACTER_BYTES)):
        shorter = _raw(tokenizer, token_ids[:-n])
        if not shorter.endswith(_BROKEN):
            return max(whole, shorter, key=len)
    return whole


def _raw(tokenizer: Any, token_ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the earliest stop text begins, or None."""
    places = [at for at in (text.find(s) for s in stop) if at >= 0]
    return min(places, default=None)


class StopTokens:
    """Which tokens can complete a stop text: those whose text holds its last character, or part of one.

    Only answers whose newest token is one of these need their text looked at.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, device: Any) -> None:
        self._tokenizer = tokenizer
        self._size = vocabulary
        self._device = device
        self._texts: list[str] | None = None
        self._rows: dict[tuple[str, ...], int] = {(): 0}
        self.table = torch.zeros(1, vocabulary, dtype=torch.bool, device=device)

    def row(self, stop: tuple[str, ...] | None) -> int:
        """Row of ``table`` (bool, (n, V)) that belongs to these stop texts; row 0 is all False."""
        key = stop or ()
        if key not in self._rows:
            if self._texts is None:
                self._texts = self._token_texts()
            ends = {s[-1] for s in key}
            hits = [_BROKEN in t or not ends.isdisjoint(t) for t in self._texts]
            row = torch.zeros(1, self._size, dtype=torch.bool)
            row[0, : len(hits)] = torch.tensor(hits)
            self._rows[key] = len(self._rows)
            self.table = torch.cat([self.table, row.to(self._device)])
        return self._rows[key]

    def _token_texts(self) -> list[str]:
        known = range(min(self._size, len(self._tokenizer)))
        texts = self._tokenizer.batch_decode(
            [[i] for i in known], clean_up_tokenization_spaces=False
        )
        # Metaspace decoders drop the space that begins a text; inside an answer the token has it.
        names = self._tokenizer.convert_ids_to_tokens(list(known))
        return [
            f" {t}" if n.startswith(_METASPACE) else t for t, n in zip(texts, names, strict=True)
        ]

    def hits(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Whether each row's token can complete its stop text: bool (B,)."""
        return self.table[rows, tokens]


class StreamText:
    """Text of an answer as its tokens arrive, holding back what may still turn into something else.

    Held back: bytes of an unfinished character, and an ending that may begin a stop text.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] | None) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop or ())
        self._ids: list[int] = []
        self._known = 0
        self._known_text = ""
        self._held = ""
        self.stopped = False

    def add(self, token_id: int) -> str:
        """The text that became certain with this token; sets ``stopped`` once a stop text is complete."""
        if self.stopped:
            return ""
        self._ids.append(token_id)
        self._held += self._new_text()
        at = find_stop(self._held, self._stop)
        if at is not None:
            self.stopped = True
            return self._release(at)
        return self._release(len(self._held) - self._possible_stop())

    def end(self) -> str:
        """What was held back, when no more tokens come."""
        if self.stopped:
            return ""
        self._held += decode(self._tokenizer, self._ids)[len(self._known_text) :]
        at = find_stop(self._held, self._stop)
        self.stopped = at is not None
        return self._release(len(self._held) if at is None else at)

    def _new_text(self) -> str:
        """Text of the tokens since the last whole character; empty while the newest one is unfinished.

        Decoded together with the tokens of the piece before, because some decoders drop a space that begins a text.
        """
        text = _raw(self._tokenizer, self._ids)
        if text.endswith(_BROKEN) or len(text) <= len(self._known_text):
            return ""
        new = text[len(self._known_text) :]
        self._ids = self._ids[self._known :]
        self._known = len(self._ids)
        self._known_text = _raw(self._tokenizer, self._ids)
        return new

    def _release(self, n: int) -> str:
        text, self._held = self._held[:n], self._held[n:]
        return text

    def _possible_stop(self) -> int:
        """Length of the longest ending that begins a stop text."""
        longest = max((len(s) for s in self._stop), default=1) - 1
        for n in range(min(longest, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-n:]) for s in self._stop):
                return n
        return 0
