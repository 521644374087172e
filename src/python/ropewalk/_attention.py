"""Fused attention, and the merge of partial results."""

from __future__ import annotations

from typing import Any

from ._bias import Alibi
from ._context import Call, Context, begin, make, pair
from ._library import F32_PRODUCTS, lib
from ._pattern import Pattern
from ._scores import checked_shape, put_score_terms
from ._tensors import Tensor


def _describe(call: Call, q, k, v, block_table, scales, scale, out, lse):
    """Everything but the workspace; returns out and lse."""
    args = call.args
    call.put("q", q)
    call.put("k", k)
    call.put("v", v)
    call.put("block_table", block_table)
    call.put("k_scale", scales[0])
    call.put("v_scale", scales[1])
    if scale:
        args.scale = scale
    if out is None or lse is True:
        *batch, seq_q, heads, _ = checked_shape(q, "q")
        if out is None:
            out = make(call.context, q, (*batch, seq_q, heads, checked_shape(v, "v")[-1]), None)
        if lse is True:
            lse = make(call.context, q, (*batch, heads, seq_q), "f32")
    call.put("out", out, True)
    if lse is not False:
        call.put("lse", lse, True)
    return out, lse


def _put_ragged(call: Call, cu_seqlens_q, cu_seqlens_k, max_seq_q, batch_invariant) -> None:
    call.put("cu_seqlens_q", cu_seqlens_q)
    call.put("cu_seqlens_k", cu_seqlens_k)
    if max_seq_q:
        call.args.max_seq_q = max_seq_q
    if batch_invariant:
        call.args.batch_invariant = True


_SIZE = object()
"""The workspace of a call that only returns the size of one."""


def _workspace_bytes(call: Call) -> int:
    size = call.extra("int64_t").args
    call.context.check(lib.rw_attention_workspace(call.context.handle, call.args, size))
    return size[0]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    pattern: Pattern | None = None,
    block_table: Tensor | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    scale: float = 0.0,
    softcap: float = 0.0,
    mask: Tensor | None = None,
    alibi: Alibi | None = None,
    sinks: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    max_seq_q: int = 0,
    batch_invariant: bool = False,
    f32_products: str = "exact",
    out: Tensor | None = None,
    lse: Tensor | bool | None = None,
    workspace: Tensor | bool | None = True,
    context: Context | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """out[b, i, h, :] = sum over j of softmax(q k^T * scale, ...)[b, h, i, j] * v[b, j, h', :]

    q            [batch, seq_q, heads, head_dim] or packed [seq_q, heads, head_dim]; f32, f16, bf16
    k            [batch, seq_k, kv_heads, head_dim], of q's rank, and its dtype or f8_e4m3 or f8_e5m2;
                 kv_heads divides heads
    v            [batch, seq_k, kv_heads, v_dim], of k's dtype; it may be the first columns of k, in
                 the same memory. head_dim and v_dim are from 1 to 576
    pattern      which keys a query sees; None: all
    block_table  i32 or i64 [batch, max_pages]: k and v are the pages of a cache,
                 [pages, page_size, kv_heads, width]; the pattern's key_end is the length
    k_scale, v_scale  of k and v of 8 bits, whose numbers are code * scale: f32 [1] or [kv_heads]
    scale        0: 1 / sqrt(head_dim)
    softcap, mask, alibi, sinks  as in softmax(), for scores [batch, heads, seq_q, seq_k]
    cu_seqlens_q  i32 or i64 [batch + 1]: q is packed, [tokens, heads, head_dim], and tokens
                 cu_seqlens_q[b] to cu_seqlens_q[b + 1] are the queries of sequence b; those behind
                 the last bound are padding and stay as they are. k and v have a batch axis, or
                 pages, or are packed with cu_seqlens_k. Every sequence is computed as if alone
    max_seq_q    the most queries of a sequence, if known: less work is launched
    batch_invariant  the bits of a sequence's result do not depend on the rest of the batch
    f32_products
      "exact"    f32 is multiplied as it is
      "split"    by matrix units, where a GPU has those that serve: as the sum of three products of
                 shorter numbers, within the same 2e-5
    out          f32, f16 or bf16 [batch, seq_q, heads, v_dim]; a new one has the dtype of q
    lse          True or an f32 [batch, heads, seq_q] (packed [heads, seq_q]): also writes the
                 log-sum-exp of the scores
    workspace    u8 [bytes] of attention_workspace(), with which few queries are split over many
                 keys; True: one is made where it helps; False or None: none

    Returns out, or the pair (out, lse).
    """
    with begin("attention", q, context) as call:
        scales = k_scale, v_scale
        out, sums = _describe(call, q, k, v, block_table, scales, scale, out, lse)
        put_score_terms(call, softcap, mask, pattern, alibi, sinks)
        _put_ragged(call, cu_seqlens_q, cu_seqlens_k, max_seq_q, batch_invariant)
        call.args.f32_products = F32_PRODUCTS[f32_products]
        if workspace is _SIZE:
            return _workspace_bytes(call)
        if workspace is True:
            size = _workspace_bytes(call)
            workspace = make(call.context, q, (size,), "u8") if size else False
        if workspace is not False:
            call.put("workspace", workspace, True)
        call.run()
        return out if lse is None or lse is False else (out, sums)


def attention_workspace(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> int:
    """The size in bytes of the workspace of attention() with these arguments, which are all of its
    except workspace; 0: not useful."""
    return attention(q, k, v, workspace=_SIZE, **arguments)


def attention_merge(
    a: tuple[Tensor, Tensor],
    b: tuple[Tensor, Tensor],
    *,
    out: tuple[Tensor, Tensor] | None = None,
    context: Context | None = None,
) -> tuple[Tensor, Tensor]:
    """Merges the results of attention over two disjoint sets of keys.

    a, b  pairs (out, lse): [batch, seq_q, heads, head_dim], f32, f16 or bf16, the same for both,
          and f32 [batch, heads, seq_q]; or packed
    out   the merged pair; may be a or b

    Returns out.
    """
    with begin("attention_merge", a[0], context) as call:
        merged, lse = pair(out, "out, lse")
        for name, part in (("a", a), ("b", b)):
            call.put(name + ".out", part[0])
            call.put(name + ".lse", part[1])
        merged = call.output("merged.out", merged, a[0])
        lse = call.output("merged.lse", lse, a[1])
        call.run()
        return merged, lse
