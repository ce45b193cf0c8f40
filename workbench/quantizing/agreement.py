"""What quantizing changed: a dense model and its quantized form, read the same texts and asked the same questions.

* **Texts**: each prompt with its answer (its target, where there is one), in the model's chat template, teacher-forced. What all
  texts begin with (a default system message) is read but not counted. The same tokens count for both models.
* **Perplexity**: ``exp`` of the mean negative log-probability of a counted token.
* **KL divergence**: ``sum_v p(v) (log p(v) - log q(v))`` over the vocabulary, p dense and q quantized, mean over the counted
  tokens, nats. 0 = the same distribution.
* **Greedy answers**: the same if all tokens are.

Both models compute in the same numeric type, so that only the weights differ. Intervals (95 %) are clustered by prompt.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from tqdm.auto import tqdm

from workbench import stats
from workbench.engines.local.engine import LocalEngine
from workbench.params import SamplingParams
from workbench.records import Request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from workbench.engines.base import EngineInfo
    from workbench.engines.local.loader import LoadedModel
    from workbench.prompts import PromptSet

    Floats = NDArray[np.float64]

MOST_TOKENS: Final = 1_024
"""Tokens of a text that are read."""
_MANY: Final = 3
"""From here on a change is said as so many times, not in per cent."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a quantized model agrees with the dense one.

    Attributes:
        n_prompts: Prompts whose texts were read.
        n_tokens: Tokens that count.
        perplexity_dense: Of the dense model.
        perplexity: Of the quantized one.
        ratio_lo: Lower bound of ``perplexity / perplexity_dense``; NaN where there is too little to tell.
        ratio_hi: Upper bound.
        kl_nats: Mean KL divergence of a token's distribution from the dense one, nats.
        kl_lo: Its lower bound.
        kl_hi: Its upper bound.
        same_top: Share of the tokens at which both models find the same token most likely, 0..1.
        n_answers: Prompts that both answered.
        n_same: Of these, with the same greedy answer, token by token.
        same_lo: Lower bound of their share, 0..1 (Wilson).
        same_hi: Upper bound.
        parted_after: Median number of equal tokens before the others part; NaN if none do.
        max_tokens: Most tokens of an answer.
        kernel: What both computed with.
        device: Where.
    """

    n_prompts: int
    n_tokens: int
    perplexity_dense: float
    perplexity: float
    ratio_lo: float
    ratio_hi: float
    kl_nats: float
    kl_lo: float
    kl_hi: float
    same_top: float
    n_answers: int
    n_same: int
    same_lo: float
    same_hi: float
    parted_after: float
    max_tokens: int
    kernel: str
    device: str

    @property
    def ratio(self) -> float:
        """``perplexity / perplexity_dense``."""
        return self.perplexity / self.perplexity_dense

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what is unknown is None."""
        fields = asdict(self) | {"ratio": self.ratio}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in fields.items()}

    @property
    def text(self) -> str:
        """A table and the rest in words."""
        rows = [
            ("", "dense", "4 bits", "difference"),
            (
                "perplexity",
                *(f"{p:,.2f}" for p in (self.perplexity_dense, self.perplexity)),
                self._change(),
            ),
            (
                "KL divergence, nats a token",
                "",
                f"{self.kl_nats:.4f}",
                _bounds(self.kl_lo, self.kl_hi, "{:.4f}"),
            ),
            ("same token most likely", "", f"{100 * self.same_top:.1f} %", ""),
        ]
        if self.n_answers:
            share = f"{100 * self.n_same / self.n_answers:.0f} %"
            bounds = _bounds(100 * self.same_lo, 100 * self.same_hi, "{:.0f}")
            rows.append(("same greedy answer", "", share, f"{bounds} of {self.n_answers}"))
        lines = [f"  {a:<27}  {b:>9}  {c:>9}  {d}".rstrip() for a, b, c, d in rows]
        head = (
            f"Compared on {self.n_prompts:,} prompts that did not calibrate ({self.n_tokens:,} tokens, both with kernel "
            f"{self.kernel}):"
        )
        tail = []
        if self.n_same < self.n_answers:
            unit = "token" if self.parted_after == 1 else "tokens"
            tail = [
                f"The answers that differ (up to {self.max_tokens} tokens) part after {self.parted_after:g} {unit} (median)."
            ]
        return "\n".join([head, "", *lines, *([""] if tail else []), *tail])

    def _change(self) -> str:
        if self.ratio >= _MANY:
            return f"{self.ratio:,.0f} times {_bounds(self.ratio_lo, self.ratio_hi, '{:,.0f}')}".rstrip()
        low, high = (100 * (bound - 1) for bound in (self.ratio_lo, self.ratio_hi))
        return f"{100 * (self.ratio - 1):+.1f} % {_bounds(low, high, '{:+.1f}')}".rstrip()


def _bounds(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) else f"[{form.format(low)}, {form.format(high)}]"


@dataclass(frozen=True, slots=True)
class Read:
    """What one model made of the texts and questions.

    Attributes:
        info: The model.
        logprobs: Of the counted tokens, one array a text, nats.
        kl: KL divergence from the other model at each counted token, and whether both find the same token most likely;
            empty for the first model.
        same_top: See above.
        answers: Prompt id to the tokens of its greedy answer; failed ones are missing.
    """

    info: EngineInfo
    logprobs: list[Floats]
    kl: list[Floats]
    same_top: list[Floats]
    answers: dict[str, tuple[int, ...]]


def counted_from(texts: Sequence[Sequence[int]]) -> int:
    """The first place that counts: behind the first token and what all texts begin with, before the shortest one's last."""
    columns = zip(*texts, strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    return max(1, min(shared, min(map(len, texts)) - 1))


def read(
    loaded: LoadedModel,
    prompts: PromptSet,
    texts: Sequence[Sequence[int]],
    max_tokens: int,
    folder: Path,
    *,
    progress: bool = True,
    name: str = "model",
) -> Read:
    """Let a model read texts and answer questions.

    Args:
        loaded: The model; closed afterwards.
        prompts: To be answered.
        texts: Their tokens, see `workbench.quantizing.calibration.encode`; cut at `MOST_TOKENS`.
        max_tokens: Of an answer.
        folder: Holds the distributions that the first model found; the second one is compared with them.
        progress: Show a bar.
        name: Of the model, for the bar.

    Raises:
        OutOfMemory: Not even one answer fits.
    """
    start = counted_from(texts)
    shown = [list(ids)[: max(MOST_TOKENS, start + 1)] for ids in texts]
    read_ = Read(loaded.info, [], [], [], {})
    engine = LocalEngine(loaded)
    device = torch.device(loaded.info.device)
    requests = [
        Request(
            "check",
            p.id,
            0,
            p.messages,
            SamplingParams(temperature=0, max_tokens=max_tokens),
            tools=p.tools,
        )
        for p in prompts
    ]
    with tqdm(
        total=len(shown) + len(requests),
        desc=f"Comparing: {name}",
        unit="text",
        disable=not progress,
    ) as bar:
        for i, ids in enumerate(shown):
            found = distributions(loaded.model, ids, start, device)
            tokens = torch.tensor(ids[start:])
            read_.logprobs.append(_floats(found.gather(1, tokens[:, None])[:, 0]))
            file = folder / f"{i}.npy"
            if file.exists():
                old = torch.from_numpy(np.load(file))
                read_.kl.append(_floats(divergence(old, found)))
                read_.same_top.append(_floats(old.argmax(-1) == found.argmax(-1)))
            else:
                np.save(file, found.numpy())
            bar.update()
        for done in engine.generate(requests):
            if done.finish_reason != "error":
                read_.answers[done.prompt_id] = done.token_ids
            bar.update()
    engine.close()
    return read_


def distributions(model: Any, ids: Sequence[int], start: int, device: torch.device) -> Tensor:
    """Log-probability of every token at the places from ``start`` on, given the tokens before: fp32 (n - start, V)."""
    tokens = torch.tensor([list(ids)], device=device)
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits[0, start - 1 : -1]
    return torch.log_softmax(logits.float(), -1).cpu()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL divergence of q from p, both log-probabilities (n, V): nats (n,)."""
    return (p.exp() * (p - q)).sum(-1)


def _floats(values: Tensor) -> Floats:
    return values.double().numpy()


def bytes_of(texts: Sequence[Sequence[int]], vocabulary: int) -> int:
    """Size of the distributions that the first model leaves."""
    start = counted_from(texts)
    return 4 * vocabulary * sum(min(len(ids), MOST_TOKENS) - start for ids in texts)


def compare(dense: Read, quantized: Read, clusters: Sequence[str], max_tokens: int) -> Agreement:
    """Put two readings side by side.

    Args:
        dense: The first.
        quantized: The second, read against the first.
        clusters: Which texts belong together.
        max_tokens: That the answers had.
    """
    labels = np.repeat(np.asarray(clusters, dtype=object), [len(x) for x in dense.logprobs])
    before, after = (np.concatenate(r.logprobs) for r in (dense, quantized))
    kl = np.concatenate(quantized.kl)
    ratio, kl_bounds = stats.mean_interval(before - after, labels), stats.mean_interval(kl, labels)
    both = [
        (old, quantized.answers[i]) for i, old in dense.answers.items() if i in quantized.answers
    ]
    parted = [_equal(old, new) for old, new in both if old != new]
    n_same = len(both) - len(parted)
    same = stats.proportion_interval(n_same, len(both))
    return Agreement(
        n_prompts=len(dense.logprobs),
        n_tokens=len(before),
        perplexity_dense=math.exp(-before.mean()),
        perplexity=math.exp(-after.mean()),
        ratio_lo=math.exp(ratio.lo),
        ratio_hi=math.exp(ratio.hi),
        kl_nats=float(kl.mean()),
        kl_lo=max(0.0, float(kl_bounds.lo)) if kl_bounds.lo == kl_bounds.lo else math.nan,
        kl_hi=float(kl_bounds.hi),
        same_top=float(np.concatenate(quantized.same_top).mean()),
        n_answers=len(both),
        n_same=n_same,
        same_lo=float(same.lo),
        same_hi=float(same.hi),
        parted_after=float(np.median(parted)) if parted else math.nan,
        max_tokens=max_tokens,
        kernel=quantized.info.kernel,
        device=quantized.info.device,
    )


def _equal(old: Sequence[int], new: Sequence[int]) -> int:
    """Tokens before two answers part."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
