"""The KV cache: appending new tokens, with rotation and norm of heads."""

from __future__ import annotations

from typing import NamedTuple

from ._context import Context, begin, first
from ._library import DIRECTION, NORM_CAST, ffi
from ._rope import Rope
from ._tensors import Tensor


class KVCache(NamedTuple):
    """The cache of one layer.

    k            f32, f16, bf16, f8_e4m3 or f8_e5m2 [batch, max_seq, kv_heads, head_dim], or paged
                 [pages, page_size, kv_heads, head_dim]; attention needs a page_size that is a power
                 of two from 16
    v            as k; its head_dim may differ. None: a cache of k alone (MLA)
    block_table  paged: i32 or i64 [batch, max_pages]
    ring         not 0: position p is stored as p % ring, for windows of at most so many keys
    k_scale,     caches of 8 bits, whose numbers are code * scale: f32 [1] or [kv_heads], positive;
    v_scale      None: 1
    """

    k: Tensor
    v: Tensor | None
    block_table: Tensor | None = None
    ring: int = 0
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None


class HeadNorm(NamedTuple):
    """x * (weight + weight_offset) / sqrt(mean(x^2) + eps) over every head of q and k, before the
    rotation (Qwen3, Gemma 3), and of v (Gemma 4).

    q_weight, k_weight  f32, f16 or bf16 [head_dim]; None: q or k, respectively, is not normalised
    cast                "before_weight" or "after_weight", as in rms_norm()
    v_weight            as these, [head_dim of v]
    normalize_v         v is normalised although v_weight is None
    """

    q_weight: Tensor | None
    k_weight: Tensor | None
    eps: float
    weight_offset: float = 0.0
    cast: str = "before_weight"
    v_weight: Tensor | None = None
    normalize_v: bool = False


def _put_append(call, prefix, k, v, cache, offsets, offset, cu_seqlens, slots):
    args = call.args.append if prefix else call.args
    call.put(prefix + "k", k)
    call.put(prefix + "v", v)
    call.put(prefix + "cache.k", cache.k, True)
    call.put(prefix + "cache.v", cache.v, True)
    call.put(prefix + "cache.block_table", cache.block_table)
    call.put(prefix + "cache.k_scale", cache.k_scale)
    call.put(prefix + "cache.v_scale", cache.v_scale)
    call.put(prefix + "offsets", offsets)
    call.put(prefix + "cu_seqlens", cu_seqlens)
    call.put(prefix + "slots", slots)
    args.offset = offset
    args.cache.ring = cache.ring


def kv_append(
    k: Tensor,
    v: Tensor | None,
    cache: KVCache,
    *,
    offsets: Tensor | None = None,
    offset: int = 0,
    cu_seqlens: Tensor | None = None,
    slots: Tensor | None = None,
    context: Context | None = None,
) -> None:
    """Copies k and v of new tokens into the cache, at the positions offset + offsets[b] + s; into
    one of 8 bits k / k_scale and v / v_scale, rounded to nearest and saturated.

    k, v        [batch, seq, kv_heads, head_dim] or packed [tokens, kv_heads, head_dim], a batch of
                1 or as cu_seqlens says; the dtype of the cache or, if that has 8 bits, f32, f16 or
                bf16. v is None if cache.v is
    offsets     i32 or i64 [batch]: number of tokens already in the cache; None: 0
    cu_seqlens  i32 or i64 [batch + 1]: the first token of each sequence of packed k, and the end;
                tokens behind are padding
    slots       i32 or i64 [batch, seq], packed [tokens], in place of positions: page * page_size +
                place; -1: the token is not written
    """
    with begin("kv_append", k, context) as call:
        _put_append(call, "", k, v, cache, offsets, offset, cu_seqlens, slots)
        call.run()


def rope_append(
    rope: Rope | None,
    q: Tensor,
    k: Tensor,
    v: Tensor | None,
    cache: KVCache,
    *,
    positions: Tensor | None = None,
    offsets: Tensor | None = None,
    offset: int = 0,
    cache_offsets: Tensor | None = None,
    cache_offset: int = 0,
    cu_seqlens: Tensor | None = None,
    slots: Tensor | None = None,
    norm: HeadNorm | None = None,
    direction: str = "forward",
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """Rotates q, writes rotated k to the cache and copies v to it; with a norm, heads of q and k
    are normalised first.

    rope                                      None: heads are normalised, not rotated
    q, positions, offsets, offset, direction  as in rope_apply()
    k, v, cache, cache_offsets, cache_offset  as in kv_append(), with its offsets and offset
    cu_seqlens, slots                         as in kv_append(); cu_seqlens needs positions
    out                                       shape and dtype of q, may be q; q of a token whose
                                              slot is -1 is not written

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
        _put_append(call, "append.", k, v, cache, cache_offsets, cache_offset, cu_seqlens, slots)
        if norm is not None:
            call.put("norm.q_weight", norm.q_weight)
            call.put("norm.k_weight", norm.k_weight)
            call.put("norm.v_weight", norm.v_weight)
            args.norm.normalize_v = norm.normalize_v
            args.norm.eps = norm.eps
            args.norm.weight_offset = norm.weight_offset
            args.norm.cast = NORM_CAST[norm.cast]
        call.run(ffi.NULL if rope is None else rope.handle)
        return out
