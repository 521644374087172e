"""Multi-head latent attention (DeepSeek V3) on its latent cache.

Of each token the cache holds one row: the latent that keys and values of all heads are projected
from, then the rotated columns that all keys share. Where tokens were cached before, nothing is
projected from them: the projection of keys is applied to queries, that of values to the output. All
heads then read the same rows, whose first columns are the values as well.
"""

from __future__ import annotations

import inspect

import torch
from transformers import DynamicCache
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention

from .._errors import Error
from .attend import MAX_WIDTH, attend
from .lazy import plain
from .modules import agree, is_hooked, name_of, random_numbers, set_forward, with_random_projections
from .own_attention import causal_mask


def patch_latent_attention(model, report) -> None:
    """After the rotation in the modules was replaced, whose functions are used."""
    for module in model.modules():
        if type(module) is not DeepseekV3Attention or is_hooked(module):
            continue
        what = f"latent cache of {name_of(module)}"
        width = module.kv_lora_rank + module.qk_rope_head_dim
        if width > MAX_WIDTH:
            why = f"its rows have {width} columns, and attention on ropewalk at most {MAX_WIDTH}"
            report.left[what, why] += 1
        elif not hasattr(module.kv_b_proj, "weight") or not _agrees(module):
            report.left[what, "it is not the attention of DeepSeek V3"] += 1
        else:
            set_forward(module, _forward(module))
            report.replaced[what] += 1


def _forward(module):
    """The forward of a module, with the rotating functions of the one that it has now."""
    functions = inspect.unwrap(module.forward.__func__).__globals__
    end = "_interleave" if module.config.rope_interleave else ""
    rotate = functions[f"apply_rotary_pos_emb{end}"]

    def forward(self, hidden_states, position_embeddings, attention_mask, cache=None, **_):
        batch, seq = hidden_states.shape[:-1]
        q_pass, q_rot = _queries(self, hidden_states).split(
            [self.qk_nope_head_dim, self.qk_rope_head_dim], -1
        )
        latent, k_rot = self.kv_a_proj_with_mqa(hidden_states)[:, None].split(
            [self.kv_lora_rank, self.qk_rope_head_dim], -1
        )
        latent = plain(self.kv_a_layernorm(latent))
        q_rot, k_rot = (plain(x) for x in rotate(q_rot, k_rot, *position_embeddings))
        rows = torch.cat((latent, k_rot), -1)
        nothing = rows[..., :0]
        if cache is not None:
            rows, nothing = cache.update(rows, nothing, self.layer_idx)
        if rows.shape[2] == seq:  # of these tokens alone
            query = torch.cat((q_pass, q_rot), -1)
            key, value = self.expand_kv(latent, k_rot)
            out, _ = attend(self, query, key, value, attention_mask, scaling=self.scaling)
        else:
            keys, values = self.kv_b_proj.weight.view(self.num_heads, -1, self.kv_lora_rank).split(
                [self.qk_nope_head_dim, self.v_head_dim], 1
            )
            query = torch.cat((q_pass @ keys, q_rot), -1)
            options = {"scaling": self.scaling, "latent": self.kv_lora_rank}
            out, _ = attend(self, query, rows, nothing, attention_mask, **options)
            out = (out.transpose(1, 2) @ values.mT).transpose(1, 2)
        return self.o_proj(out.reshape(batch, seq, -1)), None

    return forward


def _queries(module, x: torch.Tensor) -> torch.Tensor:
    """[batch, heads, seq, qk_head_dim]."""
    if module.q_lora_rank is None:
        x = module.q_proj(x)
    else:
        x = module.q_b_proj(plain(module.q_a_layernorm(module.q_a_proj(x))))
    return x.unflatten(-1, (-1, module.qk_head_dim)).transpose(1, 2)


def _agrees(module) -> bool:
    """Whether the last of some tokens, after a cache of the others, are what the module gives."""
    parameter = next(module.parameters())
    x = random_numbers(2, 6, module.hidden_size, like=parameter)
    angles = random_numbers(2, 6, module.qk_rope_head_dim // 2, like=parameter).repeat(1, 1, 2)
    try:
        module = with_random_projections(module, x.dtype, x.device)
        forward, cache = _forward(module), DynamicCache()
        expected = module(x, (angles.cos(), angles.sin()), causal_mask(x, 6))[0]
        parts = []
        for rows in (slice(0, 4), slice(4, 6)):
            given = angles[:, rows].cos(), angles[:, rows].sin()
            mask = causal_mask(x[:, rows], rows.stop)
            parts.append(forward(module, x[:, rows], given, mask, cache)[0])
        return agree(torch.cat(parts, 1), expected)
    except (RuntimeError, TypeError, KeyError, Error):
        return False
