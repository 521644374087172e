"""A paged KV cache for models of transformers."""

from __future__ import annotations

import torch
import transformers
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from .._errors import Unsupported
from .._kv import KVCache, kv_append
from .lazy import Lazy, plain, stands_for
from .rotation import Turned

_ATTENTION = (DynamicLayer, DynamicSlidingWindowLayer)


class Cached(Lazy):
    """Keys (index 0) or values (1) of a layer's cache, [batch, kv_heads, keys, width]: those before
    `end`. attend() reads their pages; other code gets a copy."""

    def __init__(self, shape, dtype, device, layer, index):
        super().__init__()
        self.layer = layer
        self.index = index
        self.end = layer.length

    def compute(self):
        storage = self.layer.storage
        pages = storage[self.index][storage.block_table]  # [batch, pages, page_size, heads, width]
        return pages.flatten(1, 2)[:, self.end - self.shape[2] : self.end].transpose(1, 2)


class PagedLayer(CacheLayerMixin):
    """The cache of one layer: pages [pages, page_size, kv_heads, head_dim], of which sequence b of
    a batch has those with the numbers n * batch + b. Every token is kept; with a window, only those
    are read that transformers' cache would have kept."""

    is_croppable = True
    is_compileable = False

    def __init__(self, page_size: int, sliding_window: int | None = None):
        super().__init__()
        self.page_size = page_size
        self.sliding_window = sliding_window
        self.is_sliding = sliding_window is not None
        self.length = 0
        self.storage: KVCache | None = None

    def lazy_initialization(self, key_states, value_states) -> None:
        self.batch_size = key_states.shape[0]
        self.device = key_states.device
        pages = [self._pages(x, 0) for x in (key_states, value_states)]
        table = torch.empty((self.batch_size, 0), dtype=torch.int64, device=self.device)
        self.storage = KVCache(*pages, table)
        self.length = 0
        self.is_initialized = True

    def _pages(self, like, count: int) -> torch.Tensor:
        *_, heads, _, width = like.shape
        shape = count * self.batch_size, self.page_size, heads, width
        return torch.empty(shape, dtype=like.dtype, device=like.device)

    def _reserve(self, key_states, value_states, length: int) -> None:
        """Room for `length` tokens: at least half as many pages again as there are."""
        have = self.storage.block_table.shape[1]
        need = -(-length // self.page_size)
        if need <= have:
            return
        count = max(need, have + have // 2)
        grown = [
            torch.cat([old, self._pages(like, count - have)])
            for old, like in zip(self.storage, (key_states, value_states))
        ]
        numbers = torch.arange(count * self.batch_size, device=self.device)
        self.storage = KVCache(*grown, numbers.view(count, self.batch_size).T.contiguous())

    def update(self, key_states, value_states, *_, **__):
        """Appends keys and values [batch, kv_heads, seq, width]; returns all of them. Keys whose
        rotation is pending are rotated into the cache, with their queries."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys_read, _ = self.get_mask_sizes(key_states.shape[2])
        length = self.length + key_states.shape[2]
        value_states = plain(value_states).to(key_states.dtype)  # torch.autocast() may differ
        self._reserve(key_states, value_states, length)
        values = value_states.transpose(1, 2)
        if not (stands_for(key_states, Turned) and key_states.append(values, self)):
            keys = plain(key_states).transpose(1, 2)
            kv_append(keys, values, self.storage, offset=self.length)
        self.length = length
        return self._cached(0, keys_read), self._cached(1, keys_read)

    def _cached(self, index: int, keys: int) -> Cached:
        pages = self.storage[index]
        shape = self.batch_size, pages.shape[2], keys, pages.shape[3]
        return Cached(shape, pages.dtype, pages.device, self, index)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys that the next `query_length` queries read, and of those before them."""
        window = self.sliding_window
        skipped = 0 if window is None else max(self.length - window + 1, 0)
        return self.length - skipped + query_length, skipped

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.length = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets the last tokens, given as a negative number."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop of {tokens_to_remove} tokens, expected a negative number")
        self.length = max(self.length + tokens_to_remove, 0)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the sequences with these indices, in this order; copies their pages."""
        if not self.is_initialized:
            return
        count = self.storage.block_table.shape[1]
        pages = [
            x.unflatten(0, (count, self.batch_size))[:, indices.to(self.device)].flatten(0, 1)
            for x in self.storage[:2]
        ]
        self.batch_size = len(indices)
        numbers = torch.arange(count * self.batch_size, device=self.device)
        self.storage = KVCache(*pages, numbers.view(count, self.batch_size).T.contiguous())

    reorder_cache = batch_select_indices

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            sequences = torch.arange(self.batch_size, device=self.device)
            self.batch_select_indices(sequences.repeat_interleave(repeats))

    def offload(self) -> None:
        raise Unsupported("a paged cache cannot be offloaded")


class Cache(transformers.Cache):
    """A paged KV cache: model.generate(..., past_key_values=Cache(model.config)), or cache= in any
    call of the model. It grows with the sequence; batches and beams are supported.

    config     of the model or its text model; layers that are not attention are refused
    page_size  tokens of a page: a power of two, at least 16
    """

    def __init__(self, config, page_size: int = 64):
        if config.is_encoder_decoder:
            raise Unsupported("a paged cache holds no encoder's keys")
        layers = transformers.DynamicCache(config=config).layers
        others = {type(layer).__name__ for layer in layers if type(layer) not in _ATTENTION}
        if others or not layers:
            kinds = ", ".join(sorted(others)) or "unknown"
            raise Unsupported(f"the model has cache layers of kind {kinds}")
        windows = [getattr(layer, "sliding_window", None) for layer in layers]
        super().__init__(layers=[PagedLayer(page_size, window) for window in windows])
