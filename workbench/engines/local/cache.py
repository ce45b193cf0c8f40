"""Key-value memory for a batch whose rows come and go, and the attention that reads it.

Every row of the pool holds one answer's keys and values, prompt first. A decode step writes one position of every active
row in place and attends over the rows' common length, masked to each row's own; nothing grows and nothing is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ATTENTION: Final = "workbench_decode"
_ROUND: Final = 64


def grouped_attention(  # noqa: PLR0917 - transformers' signature
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention that reads shared key heads once for all the query heads that use them.

    For one query token, the query heads of a group take the place of query positions, so keys and values (B, H_kv, L, D)
    are never repeated. Prefill goes to transformers' own SDPA.

    Returns:
        (B, 1, H, D), and no weights.
    """
    groups = query.shape[1] // key.shape[1]
    if query.shape[2] != 1 or attention_mask is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    batch, heads, _, width = query.shape
    folded = query.reshape(batch, key.shape[1], groups, width)
    out = torch.nn.functional.scaled_dot_product_attention(
        folded, key, value, attn_mask=attention_mask, scale=scaling
    )
    return out.reshape(batch, 1, heads, width), None


AttentionInterface.register(ATTENTION, grouped_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class _PoolLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's view of the pool during a decode step."""

    is_sliding = False

    def __init__(self, pool: KVPool) -> None:
        super().__init__()
        self.pool = pool

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the layer's keys and values, (rows, H_kv, length, D)."""
        shape = (self.pool.rows, key_states.shape[1], self.pool.length, key_states.shape[3])
        self.keys = torch.zeros(shape, dtype=key_states.dtype, device=key_states.device)
        self.values = torch.zeros(shape, dtype=value_states.dtype, device=value_states.device)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write this step's position of every active row; return all positions in use."""
        active, position, used = self.pool.step
        self.keys[active, :, position] = key_states[:, :, 0]
        self.values[active, :, position] = value_states[:, :, 0]
        n = len(active)
        return self.keys[:n, :, :used], self.values[:n, :, :used]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys: the mask is made by the pool, so only the length matters."""
        return self.pool.step[2], 0 * query_length

    def get_seq_length(self) -> int:
        """Positions in use."""
        return self.pool.step[2]

    def get_max_length(self) -> int:
        """Positions there are."""
        return self.pool.length


class KVPool(Cache):  # type: ignore[misc]
    """Preallocated keys and values for up to ``rows`` answers of up to ``length`` tokens each."""

    def __init__(self, n_layers: int, rows: int, length: int) -> None:
        self.rows = rows
        self.length = round_up(length)
        empty = torch.empty(0, dtype=torch.int64)
        self.step: tuple[Tensor, Tensor, int] = (empty, empty, 0)
        super().__init__(layers=[_PoolLayer(self) for _ in range(n_layers)])

    def begin_step(self, position: Tensor, used: int) -> Tensor:
        """Say where this step writes, and get its attention mask.

        Args:
            position: int64 (n,), the position each of the first n rows writes.
            used: One more than the largest position, known to the host so that no device has to be waited for.

        Returns:
            bool (n, 1, 1, used): True where a row may look.
        """
        self.step = (torch.arange(len(position), device=position.device), position, used)
        place = torch.arange(used, device=position.device)
        return (place <= position[:, None])[:, None, None]

    def write_prompt(self, rows: list[int], prompt: Cache) -> None:
        """Copy a prompt's keys and values, (1, H_kv, n, D) a layer, into rows of the pool."""
        for mine, theirs in zip(self.layers, prompt.layers, strict=True):
            if not mine.is_initialized:
                mine.lazy_initialization(theirs.keys, theirs.values)
            n = theirs.keys.shape[2]
            mine.keys[rows, :, :n] = theirs.keys
            mine.values[rows, :, :n] = theirs.values

    def move(self, source: list[int], target: list[int]) -> None:
        """Copy whole rows, to close gaps left by finished answers."""
        for layer in self.layers:
            layer.keys[target] = layer.keys[source]
            layer.values[target] = layer.values[source]

    def resized(self, rows: int, length: int) -> KVPool:
        """A pool of another size with the same content, as far as it fits."""
        other = KVPool(len(self.layers), rows, length)
        kept, span = min(rows, self.rows), min(other.length, self.length)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            if mine.is_initialized:
                theirs.lazy_initialization(mine.keys[:1, :, :1], mine.values[:1, :, :1])
                theirs.keys[:kept, :, :span] = mine.keys[:kept, :, :span]
                theirs.values[:kept, :, :span] = mine.values[:kept, :, :span]
        return other


def round_up(length: int) -> int:
    """The next multiple of the allocation step (64 tokens)."""
    return -(-length // _ROUND) * _ROUND


def kv_bytes_per_token(config: PreTrainedConfig, element_size: int) -> int:
    """Bytes of keys and values one token takes: 2 x layers x key heads x head width x element size."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * width * element_size)
