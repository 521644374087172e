"""The KV cache: appending new tokens, with rotation and norm of heads."""

from __future__ import annotations

from typing import NamedTuple

from ._context import Context, begin, first
from ._library import DIRECTION, NORM_CAST
from ._rope import Rope
from ._tensors import Tensor


class KVCache(NamedTuple):
    """The cache of one layer.

    k            f32, f16 or bf16 [batch, max_seq, kv_heads, head_dim], or paged
                 [pages, page_size, kv_heads, head_dim], with page_size a power of two from 16
    v            as k; its head_dim may differ
    block_table  paged: i32 or i64 [batch, max_pages]
    """

    k: Tensor
    v: Tensor
    block_table: Tensor | None = None


class HeadNorm(NamedTuple):
    """QK norm: x * (weight + weight_offset) / sqrt(mean(x^2) + eps) over every head, before the
    rotation (Qwen3, Gemma 3).

    q_weight, k_weight  f32, f16 or bf16 [head_dim]; None: q or k, respectively, is not normalised
    cast                "before_weight" or "after_weight", as in rms_norm()
    """

    q_weight: Tensor | None
    k_weight: Tensor | None
    eps: float
    weight_offset: float = 0.0
    cast: str = "before_weight"


def _put_append(call, prefix, k, v, cache, offsets, offset):
    args = call.args.append if prefix else call.args
    call.put(prefix + "k", k)
    call.put(prefix + "v", v)
    call.put(prefix + "cache.k", cache.k, True)
    call.put(prefix + "cache.v", cache.v, True)
    call.put(prefix + "cache.block_table", cache.block_table)
    call.put(prefix + "offsets", offsets)
    args.offset = offset


def kv_append(
    k: Tensor,
    v: Tensor,
    cache: KVCache,
    *,
    offsets: Tensor | None = None,
    offset: int = 0,
    context: Context | None = None,
) -> None:
    """Copies k and v of new tokens into the cache, at the positions offset + offsets[b] + s.

    k, v     [batch, seq, kv_heads, head_dim] or packed [seq, kv_heads, head_dim] for a batch of 1;
             the dtype of the cache
    offsets  i32 or i64 [batch]: number of tokens already in the cache; None: 0
    """
    with begin("kv_append", k, context) as call:
        _put_append(call, "", k, v, cache, offsets, offset)
        call.run()


def rope_append(
    rope: Rope,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: KVCache,
    *,
    positions: Tensor | None = None,
    offsets: Tensor | None = None,
    offset: int = 0,
    cache_offsets: Tensor | None = None,
    cache_offset: int = 0,
    norm: HeadNorm | None = None,
    direction: str = "forward",
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """Rotates q, writes rotated k to the cache and copies v to it; with a norm, heads of q and k
    are normalised first.

    q, positions, offsets, offset, direction  as in rope_apply()
    k, v, cache, cache_offsets, cache_offset  as in kv_append(), with its offsets and offset
    out                                       shape and dtype of q, may be q

    Returns out, the rotated q.
    """
    with begin("rope_append", first(q, k), context) as call:
        call.put("rope.q", q)
        out = call.output("rope.q_out", out, q)
        call.put("rope.positions", positions)
        call.put("rope.offsets", offsets)
        args = call.args
        args.rope.offset = offset
        args.rope.direction = DIRECTION[direction]
        _put_append(call, "append.", k, v, cache, cache_offsets, cache_offset)
        if norm is not None:
            call.put("norm.q_weight", norm.q_weight)
            call.put("norm.k_weight", norm.k_weight)
            args.norm.eps = norm.eps
            args.norm.weight_offset = norm.weight_offset
            args.norm.cast = NORM_CAST[norm.cast]
        call.run(rope.handle)
        return out
