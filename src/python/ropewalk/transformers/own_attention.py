"""Attention modules that do not use transformers' AttentionInterface: those of Bloom and MPT, with
ALiBi.

Each entry has the forward of a class on attend(), and arguments for a comparison with the original.
"""

from __future__ import annotations

import functools

import torch
from transformers import masking_utils
from transformers.models.bloom.modeling_bloom import BloomAttention, build_alibi_tensor
from transformers.models.mpt.modeling_mpt import MptAttention, build_mpt_alibi_tensor

from .._bias import alibi_slopes
from .attend import attend
from .masks import mask


@functools.lru_cache(maxsize=64)
def _slopes(heads: int, device: torch.device) -> torch.Tensor:
    return alibi_slopes(heads, like=torch.empty(0, device=device))


def _bloom(
    self,
    hidden_states,
    residual,
    alibi,
    attention_mask,
    layer_past=None,
    use_cache=False,
    output_attentions=False,
    **_,
):
    query, key, value = self._reshape(self.query_key_value(hidden_states))
    if layer_past is not None:
        key, value = layer_past.update(key, value, self.layer_idx)
    options = {"scaling": self.inv_norm_factor, "alibi": _slopes(self.num_heads, query.device)}
    out, _ = attend(self, query, key, value, attention_mask, **options)
    return self.dense(out.flatten(2)) + residual, None


def _mpt(self, hidden_states, position_bias, cache=None, attention_mask=None, **_):
    qkv = self.Wqkv(hidden_states)
    if self.clip_qkv:
        qkv = qkv.clamp(-self.clip_qkv, self.clip_qkv)
    heads = [x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for x in qkv.chunk(3, -1)]
    query, key, value = heads
    if cache is not None:
        key, value = cache.update(key, value, self.layer_idx)
    options = {"scaling": self.softmax_scale, "alibi": _slopes(self.n_heads, query.device)}
    out, _ = attend(self, query, key, value, ~attention_mask, **options)
    return self.out_proj(out.flatten(2)), None


def causal_mask(x: torch.Tensor, keys: int) -> torch.Tensor:
    """For the last of `keys` tokens, x [batch, seq, width]."""
    batch, seq, _ = x.shape
    function = masking_utils.causal_mask_function
    options = {"q_offset": keys - seq, "mask_function": function}
    return mask(batch, seq, keys, dtype=x.dtype, device=x.device, **options)


def _bloom_arguments(module, x: torch.Tensor) -> dict:
    ones = torch.ones(x.shape[:2], device=x.device)
    alibi = build_alibi_tensor(ones, module.num_heads, x.dtype)
    return {"residual": x, "alibi": alibi, "attention_mask": causal_mask(x, x.shape[1])}


def _mpt_arguments(module, x: torch.Tensor) -> dict:
    bias = build_mpt_alibi_tensor(module.n_heads, module.max_seq_length, device=x.device)
    return {"position_bias": bias, "attention_mask": causal_mask(x, x.shape[1]).to(torch.bool)}


FORWARDS = {BloomAttention: (_bloom, _bloom_arguments), MptAttention: (_mpt, _mpt_arguments)}
