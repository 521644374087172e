"""Attention over several devices, on torch.distributed: gloo on CPUs, NCCL and RCCL on GPUs.

    ranks = Ranks()                            # the default process group
    keys = Layout.balanced(seq, ranks.size)    # the tokens that each rank has
    q, k, v = (keys.take(x, ranks.rank) for x in (q, k, v))
    out = attention(ranks, q, k, v, keys=keys, queries=keys, causal=True)

Sequences are sharded by a Layout (context parallelism), heads by a Heads; the two can be combined,
with a process group for each. All ranks of a group make the same calls in the same order. Tensors
are torch tensors of the device that the group's backend serves; sums and partial results are f32.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import torch
from torch import Tensor

from ._attention import attention as _attention
from ._attention import attention_merge
from ._bias import Alibi
from ._errors import InvalidArgument
from ._pattern import Pattern
from ._shards import Heads, Layout, Ranks, pieces, split

__all__ = ["Heads", "Layout", "Ranks", "attention", "merge"]

METHODS = ("all_gather", "ring")


# ---- attention over one pair of runs ---------------------------------------------------------


class _Terms(NamedTuple):
    """The arguments of attention that do not depend on the shards. The window is that of Pattern;
    causal is right = 0."""

    left: int | None
    right: int | None
    scale: float
    softcap: float
    slopes: Tensor | None

    def of(self, tile: _Tile) -> dict:
        """The arguments for a tile, in which all positions are `shift` smaller."""
        alibi = None if self.slopes is None else Alibi(self.slopes, signed=True)
        pattern = Pattern(left=tile.left, right=tile.right)
        return {"pattern": pattern, "alibi": alibi, "scale": self.scale, "softcap": self.softcap}


class _Tile(NamedTuple):
    """The queries of a run that see keys of another run, those keys, and the window between them
    when the last query is aligned with the last key."""

    queries: slice
    keys: slice
    left: int | None
    right: int | None
    shift: int


def _tile(queries: tuple[int, int], keys: tuple[int, int], terms: _Terms) -> _Tile | None:
    """None if no query sees a key. Query p sees the keys p - left <= j <= p + right."""
    (q0, q1), (k0, k1) = queries, keys
    left, right = terms.left, terms.right
    if right is not None:
        q0 = max(q0, k0 - right)
    if left is not None:
        q1 = min(q1, k1 + left)
    if q0 >= q1 or k0 >= k1:
        return None
    if left is not None:
        k0 = max(k0, q0 - left)
    if right is not None:
        k1 = min(k1, q1 + right)
    # The last query is at q1 - 1, and is now taken to be at k1 - 1. A side of the window that hides
    # nothing is dropped.
    shift = q1 - k1
    left = None if left is None or left - shift >= k1 - k0 - 1 else left - shift
    right = None if right is None or right + shift >= q1 - q0 - 1 else right + shift
    begin, first = queries[0], keys[0]
    return _Tile(slice(q0 - begin, q1 - begin), slice(k0 - first, k1 - first), left, right, shift)


def _run_tile(q, k, v, tile: _Tile, terms: _Terms, out: Tensor, lse: Tensor) -> None:
    """Attention of the tile's queries over its keys; q, k and v are of whole runs."""
    q, k, v = q[:, tile.queries], k[:, tile.keys], v[:, tile.keys]
    _attention(q, k, v, out=out, lse=lse, **terms.of(tile))
    if terms.slopes is not None and tile.shift:
        # Scores are slope * shift larger than those of the true positions.
        lse -= (terms.slopes * tile.shift)[:, None]


class _Sum:
    """The merged results of some queries: out f32 [batch, seq, heads, width], lse f32
    [batch, heads, seq], in a buffer that holds both in the order of lse's axes."""

    def __init__(self, q: Tensor, width: int):
        batch, seq, heads, _ = q.shape
        self.rows, self.width = batch * heads * seq, width
        self.buffer = q.new_empty(self.rows * (width + 1), dtype=torch.float32)
        out, lse = _row_views(self.buffer, self.rows, width)
        self.out = out.view(batch, heads, seq, width).transpose(1, 2)
        self.lse = lse.view(batch, heads, seq)
        self.empty = True

    def add(self, q, k, v, queries, keys, terms: _Terms) -> None:
        """Attention of a run of queries over a run of keys."""
        tile = _tile(queries, keys, terms)
        if tile is None:
            return
        seen = tile.queries
        out, lse = self.out[:, seen], self.lse[:, :, seen]
        if self.empty and out.shape == self.out.shape:
            _run_tile(q, k, v, tile, terms, out, lse)
            self.empty = False
            return
        self.clear()
        part = _Sum(q[:, seen], self.width)
        _run_tile(q, k, v, tile, terms, part.out, part.lse)
        attention_merge((out, lse), (part.out, part.lse), out=(out, lse))

    def clear(self) -> None:
        """Makes the result of no keys, if there is no result yet."""
        if self.empty:
            self.out.zero_()
            self.lse.fill_(-torch.inf)
            self.empty = False


def _row_views(buffer: Tensor, rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Packed results with one head: [rows, 1, width] and [1, rows]."""
    return buffer[: rows * width].view(rows, 1, width), buffer[rows * width :].view(1, rows)


# ---- merging ---------------------------------------------------------------------------------


def merge(
    ranks: Ranks,
    out: Tensor,
    lse: Tensor,
    *,
    method: str = "all_gather",
    sinks: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Merges attention over each rank's own keys into attention over all keys, on every rank, the
    same bit for bit on all of them.

    out     [batch, seq_q, heads, v_dim] or packed [seq_q, heads, v_dim]: the results of
            ropewalk.attention() with lse=True, over any keys, in a paged cache, too; a rank without
            keys passes an lse of -inf
    lse     f32 [batch, heads, seq_q] or [heads, seq_q]
    method  "all_gather": every rank gets all partial results and merges them. One exchange, in
            which a rank sends (ranks - 1) * size bytes: for few queries
            "ring": each rank merges a share of the rows, which it gets from the previous rank in
            ranks - 1 exchanges; as many distribute the merged ones. 2 * (ranks - 1) / ranks * size
            bytes
    sinks   f32, f16 or bf16 [heads], as in attention(), whose ranks must not have used them
    dtype   of the result; None: that of out

    Returns out and lse, of the same shapes.
    """
    _check_method(method)
    packed = out.dim() == 3
    if packed:
        out, lse = out[None], lse[None]
    sums = _Sum(out, out.shape[-1])
    sums.out.copy_(out)
    sums.lse.copy_(lse)
    sums.empty = False
    _merge(ranks, sums, method)
    merged = _finish(sums, sinks, dtype or out.dtype)
    return (merged[0][0], merged[1][0]) if packed else merged


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise InvalidArgument(f"method is {method!r}, expected one of {', '.join(METHODS)}")


def _merge(ranks: Ranks, sums: _Sum, method: str) -> None:
    if ranks.size > 1:
        (_merge_gathered if method == "all_gather" else _merge_in_ring)(ranks, sums)


def _merge_gathered(ranks: Ranks, sums: _Sum) -> None:
    parts = [_row_views(x, sums.rows, sums.width) for x in ranks.all_gather(sums.buffer)]
    target = _row_views(sums.buffer, sums.rows, sums.width)
    attention_merge(parts[0], parts[1], out=target)
    for part in parts[2:]:
        attention_merge(target, part, out=target)


def _merge_in_ring(ranks: Ranks, sums: _Sum) -> None:
    """Share n of the rows is complete after it has passed all ranks but one, at rank n - 1."""
    out, lse = _row_views(sums.buffer, sums.rows, sums.width)
    shares = [(out[a:b], lse[:, a:b]) for a, b in split(sums.rows, ranks.size)]

    def exchange(sent: int, received: int) -> list[Tensor]:
        shapes = [x.shape for x in shares[received % ranks.size]]
        return ranks.pass_on(shares[sent % ranks.size], shapes).wait()

    for step in range(ranks.size - 1):
        index = (ranks.rank - step - 1) % ranks.size
        part = exchange(index + 1, index)
        if part[1].numel():
            attention_merge(part, shares[index], out=shares[index])
    for step in range(ranks.size - 1):
        index = (ranks.rank - step) % ranks.size
        for x, y in zip(shares[index], exchange(index + 1, index)):
            x.copy_(y)


def _finish(sums: _Sum, sinks: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The result in its dtype, with the sinks: keys whose values are 0."""
    sums.clear()
    if sinks is None:
        return sums.out.to(dtype).contiguous(), sums.lse
    zeros = sums.out.new_zeros(sums.width).expand(sums.out.shape)
    logits = sinks.to(torch.float32)[:, None].expand(sums.lse.shape)
    out = torch.empty(sums.out.shape, dtype=dtype, device=sums.out.device)
    return attention_merge((sums.out, sums.lse), (zeros, logits.contiguous()), out=(out, sums.lse))


# ---- attention over shards -------------------------------------------------------------------


def attention(
    ranks: Ranks,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    keys: Layout,
    queries: Layout | None = None,
    method: str = "all_gather",
    causal: bool = False,
    left: int | None = None,
    right: int | None = None,
    scale: float = 0.0,
    softcap: float = 0.0,
    alibi: Alibi | None = None,
    sinks: Tensor | None = None,
    lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention over a sequence whose keys are sharded (context parallelism); equal to that of one
    device within rounding.

    q        [batch, seq_q, heads, head_dim] or packed [seq_q, heads, head_dim]; f32, f16 or bf16
    k, v     [batch, seq_k, kv_heads, head_dim] and [batch, seq_k, kv_heads, v_dim], or packed:
             this rank's keys, in the order of the layout; seq_k may be 0
    keys     the layout of the keys
    queries  None: every rank has all queries, which are the last ones of the sequence, as in
             decode, and gets the whole result. A layout: every rank has its own queries, and gets
             their results, as in prefill; a suffix of the sequence is a layout, too
    method   queries None: as in merge(). With a layout:
             "all_gather": every rank gets all keys and values. One exchange; memory for all keys
             "ring": keys and values pass from rank to rank while attention runs over those that
             came before (Liu et al., arXiv:2310.01889); memory for two shards. In both cases a rank
             sends about (ranks - 1) * size of its k and v
    causal, left, right  as in Pattern, for positions in the sequence
    scale, softcap, alibi, sinks  as in ropewalk.attention(). The alibi is signed, or the pattern
             causal, where both are the same

    Returns out, of q's dtype, or the pair of out and lse, f32 [batch, heads, seq_q].
    """
    _check_method(method)
    terms = _terms(causal, left, right, scale, softcap, alibi)
    for name, x, layout in (("q", q, queries), ("k", k, keys), ("v", v, keys)):
        _check_layout(ranks, name, x, layout)
    packed = q.dim() == 3
    if packed:
        q, k, v = q[None], k[None], v[None]
    if queries is None:
        result = _whole_queries(ranks, q, k, v, keys, method, terms, sinks)
    else:
        runs = queries.runs[ranks.rank]
        run = _gathered_keys if method == "all_gather" else _passed_keys
        sums = run(ranks, pieces(q, runs), k, v, keys, runs, terms)
        results = [_finish(part, sinks, q.dtype) for part in sums]
        result = tuple(torch.cat(parts, dim) for dim, parts in zip((1, 2), zip(*results)))
    if packed:
        result = result[0][0], result[1][0]
    return result if lse else result[0]


def _terms(causal, left, right, scale, softcap, alibi: Alibi | None) -> _Terms:
    for name, keys in (("left", left), ("right", right)):
        if keys is not None and keys < 0:
            raise InvalidArgument(f"{name} is {keys}, expected it not to be negative")
    if causal:
        right = 0
    slopes = None
    if alibi is not None:
        settings = json.loads(alibi.settings)
        if settings["alignment"] != "bottom_right":
            raise InvalidArgument(
                f"alibi has the alignment {settings['alignment']}, expected bottom_right"
            )
        if not settings["signed"] and right != 0:
            raise InvalidArgument("alibi is absolute, expected a signed one or a causal pattern")
        slopes = alibi.slopes
    return _Terms(left, right, scale, softcap, slopes)


def _check_layout(ranks: Ranks, name: str, x: Tensor, layout: Layout | None) -> None:
    if x.dim() not in (3, 4):
        raise InvalidArgument(f"{name} has rank {x.dim()}, expected 3 or 4")
    if layout is None:
        return
    if len(layout.runs) != ranks.size:
        raise InvalidArgument(
            f"the layout of {name} is for {len(layout.runs)} ranks, expected {ranks.size}"
        )
    count = layout.count(ranks.rank)
    if x.shape[-3] != count:
        raise InvalidArgument(
            f"{name} has {x.shape[-3]} tokens, expected the {count} of rank {ranks.rank}"
        )


def _whole_queries(ranks: Ranks, q, k, v, keys: Layout, method, terms: _Terms, sinks):
    sums = _Sum(q, v.shape[-1])
    run = (keys.end - q.shape[1], keys.end)
    runs = keys.runs[ranks.rank]
    for own, x, y in zip(runs, pieces(k, runs), pieces(v, runs)):
        sums.add(q, x, y, run, own, terms)
    sums.clear()
    _merge(ranks, sums, method)
    return _finish(sums, sinks, q.dtype)


def _gathered_keys(ranks: Ranks, q, k, v, keys: Layout, runs, terms: _Terms) -> list[_Sum]:
    k, v = keys.gather(ranks, k), keys.gather(ranks, v)
    begin = keys.end - k.shape[1]
    sums = []
    for x, run in zip(q, runs):
        sums.append(_Sum(x, v.shape[-1]))
        sums[-1].add(x, k, v, run, (begin, keys.end), terms)
    return sums


def _passed_keys(ranks: Ranks, q, k, v, keys: Layout, runs, terms: _Terms) -> list[_Sum]:
    sums = [_Sum(x, v.shape[-1]) for x in q]
    block = [k.contiguous(), v.contiguous()]
    for step in range(ranks.size):
        source = (ranks.rank - step) % ranks.size
        passing = None
        if step + 1 < ranks.size:
            count = keys.count((source - 1) % ranks.size)
            shapes = [(x.shape[0], count, *x.shape[2:]) for x in block]
            passing = ranks.pass_on(block, shapes)
        theirs = keys.runs[source]
        for own, x, y in zip(theirs, *(pieces(part, theirs) for part in block)):
            for part, queries, run in zip(sums, q, runs):
                part.add(queries, x, y, run, own, terms)
        if passing is not None:
            block = passing.wait()
    return sums
