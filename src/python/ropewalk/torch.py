"""Operations as torch.library custom operators, for torch.compile and torch.export.

torch.ops.ropewalk has rms_norm, rms_norm_residual, layer_norm, layer_norm_residual, glu,
rope_apply, kv_append, rope_append, attention and attention_merge, which have fake implementations
(shapes without data) and take only what a graph can hold. The functions of this module call them
with the arguments of the package's functions of the same name; they make their outputs and record
no gradients. Create Rope, Pattern and Alibi outside of a compiled function. A graph holds what they
are made of, not the objects: one that is saved computes the same in another process.
"""

from __future__ import annotations

import functools
import json

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _attention, _kv, _norm, _rope
from ._bias import Alibi
from ._context import default_context
from ._errors import InvalidArgument, Unsupported
from ._kv import HeadNorm, KVCache
from ._pattern import Pattern
from ._rope import Rope
from ._tensors import adapter, inside

__all__ = [
    "attention",
    "attention_merge",
    "kv_append",
    "layer_norm",
    "rms_norm",
    "rope_append",
    "rope_apply",
    "glu",
]


def _operator(name: str, function, mutates=()):
    """Registers an operator. It records no gradient: torch refuses to propagate one through it, but
    would drop the tangents of forward-mode differentiation."""

    @functools.wraps(function)
    def without_gradients(*arguments):
        if forward_ad._current_level >= 0:
            raise InvalidArgument(f"{name} propagates no tangents: call it outside of dual_level()")
        inside.operator = True
        try:
            with torch.no_grad():
                return function(*arguments)
        finally:
            inside.operator = False

    return torch.library.custom_op(f"ropewalk::{name}", without_gradients, mutates_args=mutates)


def _like(x: Tensor) -> Tensor:
    return adapter(x).empty(x, None, None)


def _rms_norm_operator(
    x: Tensor, weight: Tensor | None, eps: float, weight_offset: float, cast: str
) -> Tensor:
    return _norm.rms_norm(x, weight, eps=eps, weight_offset=weight_offset, cast=cast)


@_operator("rms_norm", _rms_norm_operator).register_fake
def _(x, weight, eps, weight_offset, cast):
    return _like(x)


def _rms_norm_residual_operator(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    eps: float,
    weight_offset: float,
    cast: str,
) -> tuple[Tensor, Tensor]:
    return _norm.rms_norm(
        x, weight, eps=eps, weight_offset=weight_offset, residual=residual, cast=cast
    )


@_operator("rms_norm_residual", _rms_norm_residual_operator).register_fake
def _(x, residual, weight, eps, weight_offset, cast):
    return _like(x), _like(x)


def rms_norm(
    x: Tensor,
    weight: Tensor | None = None,
    *,
    eps: float,
    weight_offset: float = 0.0,
    residual: Tensor | None = None,
    cast: str = "before_weight",
) -> Tensor | tuple[Tensor, Tensor]:
    """ropewalk.rms_norm() as an operator."""
    if residual is None:
        return torch.ops.ropewalk.rms_norm(x, weight, eps, weight_offset, cast)
    return torch.ops.ropewalk.rms_norm_residual(x, residual, weight, eps, weight_offset, cast)


def _layer_norm_operator(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, weight_offset: float
) -> Tensor:
    return _norm.layer_norm(x, weight, bias, eps=eps, weight_offset=weight_offset)


@_operator("layer_norm", _layer_norm_operator).register_fake
def _(x, weight, bias, eps, weight_offset):
    return _like(x)


def _layer_norm_residual_operator(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    weight_offset: float,
) -> tuple[Tensor, Tensor]:
    return _norm.layer_norm(
        x, weight, bias, eps=eps, weight_offset=weight_offset, residual=residual
    )


@_operator("layer_norm_residual", _layer_norm_residual_operator).register_fake
def _(x, residual, weight, bias, eps, weight_offset):
    return _like(x), _like(x)


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float,
    weight_offset: float = 0.0,
    residual: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """ropewalk.layer_norm() as an operator."""
    columns = weight, bias, eps, weight_offset
    if residual is None:
        return torch.ops.ropewalk.layer_norm(x, *columns)
    return torch.ops.ropewalk.layer_norm_residual(x, residual, *columns)


def _glu_operator(
    gate: Tensor | None,
    up: Tensor | None,
    packed: Tensor | None,
    packing: str,
    activation: str,
    limit: float,
    alpha: float,
    up_offset: float,
    zero_at_minus_infinity: bool,
) -> Tensor:
    return _norm.glu(
        gate,
        up,
        packed=packed,
        packing=packing,
        activation=activation,
        limit=limit,
        alpha=alpha,
        up_offset=up_offset,
        zero_at_minus_infinity=zero_at_minus_infinity,
    )


@_operator("glu", _glu_operator).register_fake
def _(gate, up, packed, *_):
    if gate is not None:
        return _like(gate)
    return packed.new_empty((*packed.shape[:-1], packed.shape[-1] // 2))


def glu(
    gate: Tensor | None = None,
    up: Tensor | None = None,
    *,
    packed: Tensor | None = None,
    packing: str = "gate_first",
    activation: str = "silu",
    limit: float = 0.0,
    alpha: float = 0.0,
    up_offset: float = 0.0,
    zero_at_minus_infinity: bool = False,
) -> Tensor:
    """ropewalk.glu() as an operator."""
    options = activation, limit, alpha, up_offset, zero_at_minus_infinity
    return torch.ops.ropewalk.glu(gate, up, packed, packing, *options)


def _tables(settings: str, x: Tensor) -> Rope:
    return _rope.rope_of_graph(settings, default_context(adapter(x).device(x)))


def _rope_apply_operator(
    rope: str,
    tensors: list[Tensor],
    positions: Tensor | None,
    offsets: Tensor | None,
    offset: int,
    direction: str,
) -> list[Tensor]:
    q, k = (*tensors, None)[:2]
    tables = _tables(rope, q)
    options = {"offsets": offsets, "offset": offset, "direction": direction}
    out = _rope.rope_apply(tables, q, k, positions=positions, **options)
    return [out] if k is None else list(out)


@_operator("rope_apply", _rope_apply_operator).register_fake
def _(rope, tensors, positions, offsets, offset, direction):
    return [_like(x) for x in tensors]


def rope_apply(
    rope: Rope,
    q: Tensor | None,
    k: Tensor | None = None,
    *,
    positions: Tensor | None = None,
    offsets: Tensor | None = None,
    offset: int = 0,
    direction: str = "forward",
) -> Tensor | tuple[Tensor, Tensor]:
    """ropewalk.rope_apply() as an operator."""
    given = [x for x in (q, k) if x is not None]
    if not given:
        raise InvalidArgument("q and k are absent")
    out = torch.ops.ropewalk.rope_apply(rope.settings, given, positions, offsets, offset, direction)
    return out[0] if len(given) == 1 else (out[0], out[1])


def _kv_append_operator(
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor | None,
    offsets: Tensor | None,
    offset: int,
) -> None:
    _kv.kv_append(k, v, KVCache(k_cache, v_cache, block_table), offsets=offsets, offset=offset)


@_operator("kv_append", _kv_append_operator, ("k_cache", "v_cache")).register_fake
def _(k, v, k_cache, v_cache, block_table, offsets, offset):
    return None


def kv_append(
    k: Tensor, v: Tensor, cache: KVCache, *, offsets: Tensor | None = None, offset: int = 0
) -> None:
    """ropewalk.kv_append() as an operator."""
    torch.ops.ropewalk.kv_append(k, v, *_parts(cache), offsets, offset)


def _parts(cache: KVCache) -> tuple[Tensor, Tensor, Tensor | None]:
    if cache.v is None or cache.ring:
        raise Unsupported("operators take no cache without v and no ring")
    if cache.k_scale is not None or cache.v_scale is not None:
        raise Unsupported("operators take no scales")
    return cache[:3]


def _rope_append_operator(
    rope: str | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor | None,
    positions: Tensor | None,
    offsets: Tensor | None,
    offset: int,
    cache_offsets: Tensor | None,
    cache_offset: int,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    eps: float,
    weight_offset: float,
    cast: str,
) -> Tensor:
    return _kv.rope_append(
        None if rope is None else _tables(rope, q),
        q,
        k,
        v,
        KVCache(k_cache, v_cache, block_table),
        positions=positions,
        offsets=offsets,
        offset=offset,
        cache_offsets=cache_offsets,
        cache_offset=cache_offset,
        norm=HeadNorm(q_weight, k_weight, eps, weight_offset, cast),
    )


@_operator("rope_append", _rope_append_operator, ("k_cache", "v_cache")).register_fake
def _(rope, q, *_):
    return _like(q)


def rope_append(
    rope: Rope | None,
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
) -> Tensor:
    """ropewalk.rope_append() as an operator."""
    ids = positions, offsets, offset, cache_offsets, cache_offset
    norm = norm or HeadNorm(None, None, 0.0)
    if norm.v_weight is not None or norm.normalize_v:
        raise Unsupported("operators do not normalise v")
    settings = None if rope is None else rope.settings
    return torch.ops.ropewalk.rope_append(settings, q, k, v, *_parts(cache), *ids, *norm[:5])


_TERMS = ("block_table", "k_scale", "v_scale", "mask", "sinks", "cu_seqlens_q", "cu_seqlens_k")


@functools.lru_cache(maxsize=256)
def _settings(text: str) -> dict:
    return json.loads(text)


def _attention_operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tensors: list[Tensor],
    names: str,
    pattern: str | None,
    alibi: str | None,
    scale: float,
    softcap: float,
    max_seq_q: int,
    batch_invariant: bool,
    f32_products: str,
    lse: bool,
) -> list[Tensor]:
    """`tensors` are those of `names`, separated by commas: terms, "slopes", "pattern.NAME"."""
    given = dict(zip(names.split(","), tensors))
    of_pattern = {name[8:]: x for name, x in given.items() if name.startswith("pattern.")}
    out = _attention.attention(
        q,
        k,
        v,
        pattern=None if pattern is None else Pattern(**_settings(pattern), **of_pattern),
        alibi=None if alibi is None else Alibi(given["slopes"], **_settings(alibi)),
        scale=scale,
        softcap=softcap,
        max_seq_q=max_seq_q,
        batch_invariant=batch_invariant,
        f32_products=f32_products,
        lse=lse,
        **{name: given[name] for name in _TERMS if name in given},
    )
    return list(out) if lse else [out]


@_operator("attention", _attention_operator).register_fake
def _(q, k, v, tensors, names, pattern, alibi, scale, softcap, max_seq_q, invariant, products, lse):
    *batch, seq_q, heads, _ = q.shape
    out = q.new_empty((*batch, seq_q, heads, v.shape[-1]))
    return [out, q.new_empty((*batch, heads, seq_q), dtype=torch.float32)] if lse else [out]


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
    lse: bool | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """ropewalk.attention() as an operator, with a workspace where it helps; the pattern has no
    function."""
    terms = (block_table, k_scale, v_scale, mask, sinks, cu_seqlens_q, cu_seqlens_k)
    given = dict(zip(_TERMS, terms))
    if pattern is not None:
        if pattern.function is not None:
            raise InvalidArgument("the pattern has a function, which a graph cannot hold")
        for name, x in pattern.tensors.items():
            given["pattern." + name] = x
    if alibi is not None:
        given["slopes"] = alibi.slopes
    given = {name: x for name, x in given.items() if x is not None}
    out = torch.ops.ropewalk.attention(
        q,
        k,
        v,
        list(given.values()),
        ",".join(given),
        None if pattern is None else pattern.settings,
        None if alibi is None else alibi.settings,
        scale,
        softcap,
        max_seq_q,
        batch_invariant,
        f32_products,
        bool(lse),
    )
    return (out[0], out[1]) if lse else out[0]


def _attention_merge_operator(
    a: Tensor, a_lse: Tensor, b: Tensor, b_lse: Tensor
) -> tuple[Tensor, Tensor]:
    return _attention.attention_merge((a, a_lse), (b, b_lse))


@_operator("attention_merge", _attention_merge_operator).register_fake
def _(a, a_lse, b, b_lse):
    return _like(a), _like(a_lse)


def attention_merge(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """ropewalk.attention_merge() as an operator."""
    return torch.ops.ropewalk.attention_merge(*a, *b)
