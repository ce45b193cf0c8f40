"""The one seam: what the rest of the workbench knows of a model.

An engine takes requests, each with its own settings, seed and adapter, and gives answers back in any order. The draw of
a token is a pure function of (request seed, output position, token id), so an answer does not depend on which other
requests it ran with. ``tests/contract.py`` holds the tests that every engine passes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from workbench.params import SamplingParams
    from workbench.records import Generation, Message, Request, TokenEvent


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

    def only(self, adapters: Collection[str]) -> EngineInfo:
        """The same without the adapters that are not named: what a run that uses these has to do with."""
        about = self.extra.get("adapters", {})
        kept = {n: about[n] for n in about if n in adapters}
        extra = {k: v for k, v in self.extra.items() if k != "adapters"}
        return replace(
            self,
            adapters={n: digest for n, digest in self.adapters.items() if n in adapters},
            extra=extra | ({"adapters": kept} if kept else {}),
        )


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


@runtime_checkable
class LoadsAdapters(Protocol):
    """An engine that takes LoRA adapters while it runs."""

    def load_adapter(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        replace: bool = False,
        allow_inert: bool = False,
        probe: Sequence[str | Sequence[Message]] = (),
    ) -> Any:
        """Load an adapter beside those there are, if it fits and acts.

        Args:
            path: A folder, or an id on a hub.
            name: As requests name it; by default the folder's name.
            replace: Take the place of another adapter of this name.
            allow_inert: Also load an adapter that changes nothing.
            probe: Prompts it is tried on; some of the engine's own where there are none.

        Raises:
            AdapterError: It cannot be used, does not fit, changes nothing, or another one has the name.
        """
        ...

    def unload_adapter(self, name: str) -> None:
        """Take an adapter out.

        Raises:
            AdapterError: It is not loaded, or in use.
        """
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """An answer that is not drawn but given, to be read after its prompt.

    Attributes:
        messages: The chat it answers.
        answer: Its text, or its tokens as this engine drew them; an end token at its end is not read.
        adapter: Adapter name, or "base".
        tools: Tool definitions handed to the chat template, if any.
    """

    messages: tuple[Message, ...]
    answer: str | tuple[int, ...]
    adapter: str = BASE
    tools: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True)
class Logprobs:
    """How likely an answer is to a model.

    Attributes:
        nats: Log-probability of each token given the prompt and the tokens before it, nats; at temperature 1, with no
            penalty and nothing cut off.
        error: Why it could not be read; ``nats`` is empty then.
    """

    nats: tuple[float, ...] = ()
    error: str | None = None


@runtime_checkable
class GivesLogprobs(Protocol):
    """An engine that says how likely given answers are to its model."""

    def logprobs(self, answers: Sequence[Given]) -> list[Logprobs]:
        """Read answers after their prompts, the model's chat template applied. Those to one prompt share its reading.

        Args:
            answers: Best with those to the same prompt and adapter side by side.

        Returns:
            One for each, in order. One that cannot be read (too long, unknown adapter) has an ``error``.

        Raises:
            OutOfMemory: Not even one answer fits.
            EngineUnavailable: The engine is closed.
        """
        ...


@runtime_checkable
class SaysEffective(Protocol):
    """An engine that knows where it does otherwise than asked."""

    def effective(self, params: SamplingParams) -> SamplingParams:
        """The settings that act when these are asked for: clamped, or off, where the engine does that."""
        ...
