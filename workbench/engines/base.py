"""The one seam: what the rest of the workbench knows of a model.

An engine takes requests, each with its own settings, seed and adapter, and gives answers back in any order. The draw of
a token is a pure function of (request seed, output position, token id), so an answer does not depend on which other
requests it ran with. ``tests/contract.py`` holds the tests that every engine passes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from workbench.records import Generation, Request, TokenEvent


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What generated the answers; goes into the manifest as it is.

    Attributes:
        engine: "local", "scripted", ...
        model: Model id as the user named it.
        revision: Commit of the checkpoint on its hub, if known.
        weight_hash: sha256 over the weight files.
        quantization: For example "awq-4bit-g64", or "none".
        kernel: "int4", "fp32", "bf16", ...
        kernel_reason: Why this kernel, in one sentence.
        dtype: Activation type.
        device: "cpu", "cuda:0", ...
        tokenizer_hash: sha256 of the tokenizer file.
        chat_template_hash: sha256 of the chat template text.
        context_length: Most tokens of prompt and answer together.
        adapters: Adapter name to content hash.
        checkpoint_defaults: Decoding settings found in the checkpoint; shown, never applied silently.
        extra: Anything else worth keeping.
    """

    engine: str
    model: str
    revision: str | None = None
    weight_hash: str | None = None
    quantization: str = "none"
    kernel: str = "none"
    kernel_reason: str = ""
    dtype: str = "none"
    device: str = "cpu"
    tokenizer_hash: str | None = None
    chat_template_hash: str | None = None
    context_length: int = 0
    adapters: dict[str, str] = field(default_factory=dict)
    checkpoint_defaults: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)


@runtime_checkable
class Engine(Protocol):
    """Generates answers. Closing twice is fine; using a closed engine raises EngineUnavailable."""

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer every request, yielding each answer as it finishes, in any order.

        A request that cannot be answered (too long for the context, unknown adapter) yields a Generation with
        finish_reason "error"; the others go on. Stopping the iteration early frees what was running.

        Raises:
            OutOfMemory: Not even one row fits.
            EngineUnavailable: The engine is closed or unreachable.
        """
        ...

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Answer one request token by token, computing its whole prompt anew.

        Raises:
            ContextOverflow: Prompt and max_tokens exceed the context length.
            AdapterError: The adapter is not loaded.
            EngineUnavailable: The engine is closed or unreachable.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...
