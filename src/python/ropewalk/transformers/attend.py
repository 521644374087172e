"""Attention of transformers: its AttentionInterface calls attend()."""

from __future__ import annotations

import functools

import torch

from .. import torch as operators
from .._attention import attention
from .._bias import Alibi
from .._errors import InvalidArgument, Unsupported
from .._kv import KVCache
from .._pattern import Pattern
from .cache import Cached
from .lazy import plain, stands_for
from .masks import Mask, pack_bits, say_once

# Arguments of models with sparse attention or sinks of their own.
UNSUPPORTED = ("indices", "block_indices", "sinks")

MAX_WIDTH = 576
"""Of heads in rw_attention()."""


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    is_causal: bool | None = None,
    alibi: torch.Tensor | None = None,
    latent: int = 0,
    **others,
) -> tuple[torch.Tensor, None]:
    """Attention of query [batch, heads, seq_q, head_dim] to key and value [batch, kv_heads, seq_k,
    width]: [batch, seq_q, heads, width]. Weights are not returned. alibi: slopes, f32 [heads].
    latent: value is the first `latent` columns of key, and not read."""
    for name in UNSUPPORTED:
        if others.get(name) is not None:
            raise Unsupported(f"ropewalk attention has no {name}, which {_name(module)} passes")
    if dropout:
        raise Unsupported(f"{_name(module)} has a dropout of {dropout}: call model.eval()")
    if others.get("output_attentions"):
        say_once("attention weights are not computed: output_attentions needs eager attention")
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", False)
    terms = {"scale": scaling or 0.0, "softcap": softcap or 0.0, "sinks": s_aux}
    query = plain(query).transpose(1, 2)
    is_pattern = stands_for(attention_mask, Mask) or _is_bits(attention_mask)
    storage = _pages(key, value) if is_pattern and position_bias is None else None
    skipped = 0
    if storage is not None:
        skipped = key.end - key.shape[2]
        key, value, terms["block_table"] = storage[:3]
        seq_k = terms["block_table"].shape[1] * key.shape[1]
    else:
        key, value = plain(key).transpose(1, 2), plain(value).transpose(1, 2)
        seq_k = key.shape[1]
    if latent:
        query, key = _alike(query, key)
        value = key[..., :latent]
    else:
        query, key, value = _alike(query, key, value)
    causal = causal and query.shape[1] > 1
    terms["pattern"], mask = _pattern_and_mask(attention_mask, seq_k, skipped, causal)
    if position_bias is not None:
        mask = position_bias if mask is None else position_bias + mask
    if mask is not None and mask.stride(-1) != 1:
        mask = mask.contiguous()
    if alibi is not None:  # signed: a shift of the position of a query changes nothing
        alignment = "bottom_right" if terms["pattern"] is None else terms["pattern"].alignment
        terms["alibi"] = Alibi(alibi, signed=True, alignment=alignment)
    function = operators.attention if torch.compiler.is_compiling() else attention
    return function(query, key, value, mask=mask, **terms), None


def _alike(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Of one dtype, which they may not be under torch.autocast(), and with contiguous rows."""
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in tensors))
    tensors = [x.to(dtype) for x in tensors]
    return [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]


def _name(module) -> str:
    return type(module).__name__


def _is_bits(mask) -> bool:
    """Whether a mask of the caller is bool and the same for all heads."""
    return mask is not None and mask.dtype is torch.bool and mask.shape[1] == 1


def _pages(key, value) -> KVCache | None:
    """The cache of a layer, if key and value are what it has now."""
    if not (stands_for(key, Cached) and stands_for(value, Cached)):
        return None
    same = key.layer is value.layer and (key.index, value.index) == (0, 1)
    now = key.end == value.end == key.layer.length
    return key.layer.storage if same and now else None


def _pattern_and_mask(mask, seq_k: int, skipped: int, causal: bool):
    """The pattern, and what is added to the scores."""
    if mask is None:
        # As in transformers' sdpa_attention_forward(): the first query sees the first key.
        return Pattern(causal=True, alignment="top_left") if causal else None, None
    if stands_for(mask, Mask):
        return mask.pattern(seq_k, skipped), None
    mask = plain(mask)
    if mask.dim() != 4:
        raise InvalidArgument(f"attention_mask has rank {mask.dim()}, expected 4")
    if _is_bits(mask) and not torch.compiler.is_compiling():  # a graph makes no patterns
        return Pattern(bits=pack_bits(mask[:, 0], seq_k, skipped)), None
    say_once("a mask that is no pattern, but a number for each pair, is added to the scores")
    if mask.dtype is torch.bool:
        mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -torch.inf)
    return None, mask
