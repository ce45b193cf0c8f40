"""The local engine: an AWQ or dense model in this process, decoding many requests as one batch."""

from __future__ import annotations

import gc
import json
import time
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import torch
from jinja2 import TemplateError

from workbench import adapters as adapter_files
from workbench.engines.base import Logprobs
from workbench.engines.local import reading
from workbench.engines.local.cache import kv_bytes_per_token, round_up
from workbench.engines.local.decode import Batch, Memory, Prefill, prefill
from workbench.engines.local.memory import free_bytes, is_out_of_memory
from workbench.engines.local.probe import PROBES
from workbench.engines.local.probe import load as load_probed
from workbench.engines.local.text import StopTokens, StreamText
from workbench.engines.local.waiting import Waiting, seeded
from workbench.errors import (
    AdapterError,
    ContextOverflow,
    EngineError,
    EngineUnavailable,
    OutOfMemory,
)
from workbench.params import SamplingParams
from workbench.records import BASE, Generation, Request, TokenEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from workbench.engines.base import EngineInfo, Given
    from workbench.engines.local.loader import LoadedModel
    from workbench.engines.local.lora import Adapters, LoadedAdapter
    from workbench.records import Message

MAX_ROWS: Final = {"cpu": 72, "cuda": 512}
"""Most rows decoded together: beyond it a step takes longer in proportion, and nothing is gained."""
_PREFILLS_KEPT: Final = 4
_MEMORY_SHARE: Final = 0.5
"""Share of the free memory, after loading, that keys and values may take."""


class LocalEngine:
    """Generates with a model in this process. Not safe to use from several threads at once.

    Attributes:
        max_rows: Most rows decoded together; halved when memory runs out.
        memory_bytes: Memory that keys and values may take.
    """

    def __init__(
        self, loaded: LoadedModel, max_rows: int | None = None, memory_gib: float | None = None
    ) -> None:
        self._loaded: LoadedModel | None = loaded
        device = torch.device(loaded.info.device)
        self.max_rows = max_rows or MAX_ROWS.get(device.type, 72)
        given = memory_gib * 2**30 if memory_gib else free_bytes(device) * _MEMORY_SHARE
        self.memory_bytes = int(given)
        self._eos = torch.tensor(loaded.eos_token_ids, dtype=torch.int64, device=device)
        self._stops = StopTokens(loaded.tokenizer, loaded.model.config.vocab_size, device)
        self._kv_bytes = kv_bytes_per_token(loaded.model.config, loaded.model.dtype.itemsize)
        self._running: list[Batch] = []
        self._memory: Memory | None = None
        self._prefills: OrderedDict[tuple[int, tuple[int, ...]], Prefill] = OrderedDict()
        self._rendered: OrderedDict[str, tuple[tuple[int, ...], str]] = OrderedDict()

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        loaded = self.adapters
        if not loaded:
            return self._model.info
        about = {name: adapter.to_dict() for name, adapter in loaded.items()}
        info = self._model.info
        return replace(
            info,
            adapters={name: adapter.file.sha256 for name, adapter in loaded.items()},
            extra={**info.extra, "adapters": about},
        )

    @property
    def _model(self) -> LoadedModel:
        if self._loaded is None:
            raise EngineUnavailable("this engine is closed; load it again with load_engine")
        return self._loaded

    @property
    def _adapters(self) -> Adapters:
        return self._model.adapters

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self._model.model

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self._model.tokenizer

    @property
    def adapters(self) -> dict[str, LoadedAdapter]:
        """The adapters that are loaded, by name."""
        return dict(self._adapters.loaded)

    def load_adapter(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        replace: bool = False,
        allow_inert: bool = False,
        probe: Sequence[str | Sequence[Message]] = (),
    ) -> LoadedAdapter:
        """Load a LoRA adapter beside those there are; the model stays, and answers being decoded go on.

        Args:
            path: A folder that PEFT wrote, or a Hugging Face id (``owner/name``, ``owner/name@revision``).
            name: As requests name it; by default that of the folder or of the repository.
            replace: Take the place of a loaded adapter of this name, if that is another one. That one stays if the new
                one is refused; requests that were waiting for it fail.
            allow_inert: Also load an adapter that changes nothing.
            probe: What it is tried on, see ``workbench.engines.local.probe``: user's words, or chats; by default some of its own.

        Returns:
            What was loaded, with the shift that the probe found. The same file under the same name is loaded once.

        Raises:
            AdapterError: The file cannot be used, or another adapter has the name.
            AdapterMismatch: It does not fit the model.
            AdapterInert: It changes nothing.
            EngineError: The chat template refuses a probe, or memory runs out.
        """
        info = self._model.info
        file = adapter_files.read(path)
        name = adapter_files.checked_name(name or file.name, file.path)
        old = self._adapters.loaded.get(name)
        if old is not None and old.file.sha256 == file.sha256:
            if not (old.inert and not allow_inert):
                return old
        elif old is not None and not replace:
            raise AdapterError(
                f"adapter {name!r} is loaded from {old.file.path} ({old.file.sha256[:12]}), and {file.path} is another "
                f"one ({file.sha256[:12]}); give it another name, or unload the first"
            )
        if old is not None:
            self._refuse_in_use(name)
        return load_probed(
            self._adapters,
            (name, file),
            [self._render(chat(words), None)[0] for words in probe or PROBES],
            self._eos.device,
            allow_inert=allow_inert,
            base_matches=adapter_files.base_matches(file, info.model, info.weight_hash),
        )

    def unload_adapter(self, name: str) -> None:
        """Take an adapter out; the model is then as if it had never been there.

        Raises:
            AdapterError: It is not loaded, or answers with it are being decoded.
        """
        self._adapters.get(name)
        self._refuse_in_use(name)
        self._adapters.unload(name)

    def _refuse_in_use(self, name: str) -> None:
        n = sum(request.adapter == name for batch in self._running for request in batch.requests)
        if n:
            raise AdapterError(f"adapter {name!r} is in use by {n} answers; let them finish first")

    def close(self) -> None:
        """Free the model."""
        self._loaded = self._memory = None
        self._running, self._prefills = [], OrderedDict()
        self._rendered.clear()
        gc.collect()  # parts of a model refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chat(
        self,
        messages: str | Sequence[Message],
        system: str | None = None,
        adapter: str = BASE,
        **settings: Any,
    ) -> Generation:
        """Answer one message, for trying things. Without a seed a fresh one is drawn; the answer says which.

        Args:
            messages: The user's words, or a list of chat messages.
            system: System message put first.
            adapter: Adapter name, or "base".
            settings: Fields of SamplingParams; by default those of the model card.

        Raises:
            ParamError: A setting is unknown or out of range.
            EngineError: The request cannot be answered.
        """
        head = [{"role": "system", "content": system}] if system is not None else []
        params = SamplingParams.from_dict(settings)
        request = Request("chat", "chat", 0, (*head, *chat(messages)), params, adapter)
        self._checked(request)
        generation = next(self.generate([request]))
        if generation.error is not None:
            raise EngineError(generation.error)
        return generation

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer every request; see :class:`workbench.engines.base.Engine`."""
        waiting = Waiting(requests)
        begun = {name: adapter.file.sha256 for name, adapter in self.adapters.items()}
        batch = self._new_batch()
        try:
            while True:
                try:
                    yield from self._admit(batch, waiting, begun)
                    if not batch.active:
                        return
                    yield from batch.step()
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    waiting.put_back(batch.requests)
                    n_active, length = batch.active, batch.shape[1]
                    self._running = [other for other in self._running if other is not batch]
                    batch = self._new_batch()
                    self._halve(n_active, length, error)
        finally:
            self._keep_memory(batch)

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Answer one request token by token, its prompt computed anew."""
        request = seeded(request)
        ids, text = self._checked(request)
        batch = self._new_batch()
        writer = StreamText(self.tokenizer, request.params.stop)
        try:
            read = prefill(self._adapters, request.adapter, ids, text, self._eos.device)
            done = batch.admit([request], read)
            while True:
                token = done[0].token_ids[-1] if done else batch.last_token()
                now_ns = time.perf_counter_ns()
                piece = "" if token in self._model.eos_token_ids else writer.add(token)
                if done:
                    last = piece + writer.end()
                    yield TokenEvent(token, last, now_ns, done[0].finish_reason, len(ids))
                    return
                yield TokenEvent(token, piece, now_ns, None, len(ids))
                done = batch.step()
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                length = len(ids) + request.params.max_tokens
                raise OutOfMemory(self._too_small(length)) from error
            raise
        finally:
            self._keep_memory(batch)

    def logprobs(self, answers: Sequence[Given]) -> list[Logprobs]:
        """How likely given answers are; see :class:`workbench.engines.base.GivesLogprobs`."""
        found: list[Logprobs] = []
        limit, ends = self.info.context_length, self._model.eos_token_ids
        for group in reading.by_prompt(answers):
            first = group[0]
            try:
                self._adapters.slots([first.adapter])
                ids, text = self._render(first.messages, first.tools)
            except (EngineError, AdapterError) as error:
                found += [Logprobs(error=f"{type(error).__name__}: {error}")] * len(group)
                continue
            ends = self._model.eos_token_ids
            tokens = [reading.tokens_of(self.tokenizer, given.answer, ends) for given in group]
            read = partial(self._read, first.adapter, ids, text)
            found += reading.fitting(tokens, limit - len(ids), read)
        return found

    def _read(
        self, adapter: str, ids: tuple[int, ...], text: str, answers: list[list[int]]
    ) -> Iterator[tuple[float, ...]]:
        """Read answers to one prompt, as many at once as memory holds."""
        while answers:
            n = max(map(len, answers))
            vocabulary = self.model.config.get_text_config().vocab_size
            need = reading.row_bytes(len(ids) + n, n, vocabulary, self._kv_bytes)
            rows = max(1, min(self.max_rows, self.memory_bytes // need))
            try:
                prompt = self._prefill(adapter, ids, text)
                read = reading.read(self._adapters, adapter, prompt, answers[:rows])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(rows, len(ids) + n, error)
                continue
            answers = answers[rows:]
            yield from read

    def effective(self, params: SamplingParams) -> SamplingParams:
        """The settings that act: a top_k of the whole vocabulary or more is off."""
        vocabulary = self.model.config.get_text_config().vocab_size
        return params if (params.top_k or 0) < vocabulary else params.replace(top_k=None)

    def render(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None = None
    ) -> str:
        """The prompt as the model sees it: the checkpoint's own chat template applied.

        Raises:
            EngineError: The template refuses the messages.
        """
        return self._render(tuple(messages), tuple(tools) if tools else None)[1]

    def _new_batch(self) -> Batch:
        """A batch in the memory the last one left, unless that is in use."""
        memory, self._memory = self._memory, None
        batch = Batch(self._adapters, self.tokenizer, self._eos, self._stops, memory)
        self._running.append(batch)
        return batch

    def _keep_memory(self, batch: Batch) -> None:
        """Keep a finished batch's memory for the next, unless its rows are so long that fewer would fit."""
        self._running = [other for other in self._running if other is not batch]
        length = batch.memory.pool.length
        if self._loaded is not None and length and self._capacity(length) >= self.max_rows:
            self._memory = batch.memory

    def _render(
        self, messages: tuple[Message, ...], tools: tuple[dict[str, Any], ...] | None
    ) -> tuple[tuple[int, ...], str]:
        key = json.dumps([messages, tools], sort_keys=True, default=str)
        if key not in self._rendered:
            try:
                text = self.tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) if tools else None,
                    add_generation_prompt=True,
                    tokenize=False,
                )
            except (TemplateError, TypeError, ValueError) as error:
                raise EngineError(
                    f"the model's chat template refuses these messages: {error}"
                ) from error
            ids = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            self._rendered[key] = (ids, text)
            if len(self._rendered) > 64:
                self._rendered.popitem(last=False)
        return self._rendered[key]

    def _checked(
        self, request: Request, begun: dict[str, str] | None = None
    ) -> tuple[tuple[int, ...], str]:
        """The rendered prompt of a request that can be answered, by the adapter that had its name when all began."""
        if request.adapter != BASE:
            now = self._adapters.get(request.adapter).file.sha256
            was = now if begun is None else begun.setdefault(request.adapter, now)
            if now != was:
                raise AdapterError(
                    f"adapter {request.adapter!r} was replaced ({was[:12]} by {now[:12]}) while this request waited; ask again"
                )
        ids, text = self._render(request.messages, request.tools)
        limit = self.info.context_length
        if len(ids) + request.params.max_tokens > limit:
            raise ContextOverflow(
                f"prompt {request.prompt_id!r} has {len(ids)} tokens and max_tokens is {request.params.max_tokens}: "
                f"together more than the model's {limit}; shorten the prompt or lower max_tokens"
            )
        return ids, text

    def _capacity(self, length: int) -> int:
        """Rows of a length that the memory budget holds, at most max_rows."""
        return min(self.max_rows, self.memory_bytes // (self._kv_bytes * round_up(length)))

    def _admit(self, batch: Batch, waiting: Waiting, begun: dict[str, str]) -> Iterator[Generation]:
        """Fill the batch up from the waiting requests, a prompt at a time."""
        while waiting:
            self._model  # noqa: B018 - refuses a closed engine
            request = waiting.head
            try:
                ids, text = self._checked(request, begun)
            except (EngineError, AdapterError) as error:
                waiting.take(1)
                yield Generation.failed(request, f"{type(error).__name__}: {error}")
                continue
            needed = max(batch.shape[1], len(ids) + request.params.max_tokens)
            free = self._capacity(needed) - batch.active
            if free <= 0:
                if batch.active:
                    return
                if self._capacity(1) == 0:
                    raise OutOfMemory(self._too_small(1))
                waiting.take(1)
                yield Generation.failed(request, f"OutOfMemory: {self._too_small(needed)}")
                continue
            group = waiting.same_prompt(free)
            try:
                read = self._prefill(request.adapter, ids, text)
                done = batch.admit(group, read, self._capacity(needed))
            except (RuntimeError, MemoryError):
                admitted = {r.key for r in batch.requests}
                waiting.put_back([r for r in group if r.key not in admitted])
                raise
            yield from done

    def _prefill(self, adapter: str, ids: tuple[int, ...], text: str) -> Prefill:
        # By slot: an adapter that took the place of another of its name never meets the other's prompts.
        key = (0 if adapter == BASE else self._adapters.get(adapter).slot, ids)
        if key not in self._prefills:
            while len(self._prefills) >= _PREFILLS_KEPT:
                self._prefills.popitem(last=False)
            self._prefills[key] = prefill(self._adapters, adapter, ids, text, self._eos.device)
        self._prefills.move_to_end(key)
        return self._prefills[key]

    def _halve(self, n_active: int, length: int, error: BaseException) -> None:
        """Make room after memory ran out with so many rows; the old batch is gone by now."""
        self._prefills.clear()
        if self.max_rows == 1:
            raise OutOfMemory(self._too_small(length)) from error
        self.max_rows = max(1, min(self.max_rows, n_active or self.max_rows) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _too_small(self, length: int) -> str:
        need = self._kv_bytes * round_up(length) / 2**20
        return (
            f"not even one answer of {length} tokens fits: its keys and values need {need:.0f} MiB, the budget is "
            f"{self.memory_bytes / 2**20:.0f} MiB; lower max_tokens, or give the engine more with memory_gib"
        )


def chat(messages: str | Sequence[Message]) -> tuple[Message, ...]:
    """A chat of one message, given as the user's words, or the chat given."""
    if isinstance(messages, str):
        return ({"role": "user", "content": messages},)
    return tuple(messages)
