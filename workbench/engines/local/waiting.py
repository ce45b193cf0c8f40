"""Requests that wait to enter a batch."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.params import SEED_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from workbench.records import Request


def seeded(request: Request) -> Request:
    """The request with a seed: a fresh one if it samples and has none."""
    if request.params.greedy or request.params.seed is not None:
        return request
    return replace(request, params=request.params.replace(seed=1 + secrets.randbelow(SEED_MAX)))


class Waiting:
    """Requests not yet begun, read from an iterable as they are needed."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._rest = iter(requests)
        self._ahead: list[Request] = []

    def __bool__(self) -> bool:
        return self._fill(1) > 0

    @property
    def head(self) -> Request:
        """The next request; there must be one."""
        self._fill(1)
        return self._ahead[0]

    def _fill(self, n: int) -> int:
        wanted = max(0, n - len(self._ahead))
        self._ahead.extend(seeded(request) for request in itertools.islice(self._rest, wanted))
        return len(self._ahead)

    def take(self, n: int) -> list[Request]:
        """The next ``n`` requests, fewer at the end."""
        self._fill(n)
        taken, self._ahead = self._ahead[:n], self._ahead[n:]
        return taken

    def put_back(self, requests: Sequence[Request]) -> None:
        """Requests that come first again."""
        self._ahead = [*requests, *self._ahead]

    def same_prompt(self, most: int) -> list[Request]:
        """Take the next requests that share the head's prompt and adapter and ask for no more tokens than it."""
        self._fill(most)
        head = self.head
        n = 0
        for request in self._ahead[:most]:
            same = request.messages == head.messages and request.tools == head.tools
            shorter = request.params.max_tokens <= head.params.max_tokens
            if not (same and shorter and request.adapter == head.adapter):
                break
            n += 1
        return self.take(n)
