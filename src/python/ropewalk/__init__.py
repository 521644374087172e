"""Position embeddings, masks and attention for transformer inference, on CPUs and GPUs.

One function for each operation of the C library ropewalk, with the same names and axes:

    q, k, v, attention output       [batch, seq, heads, head_dim]; packed [tokens, heads, head_dim]
    KV cache                        [batch, max_seq, kv_heads, head_dim]
    paged KV cache                  [pages, page_size, kv_heads, head_dim]
    scores, masks, weights, biases  [batch, heads, seq_q, seq_k]
    LSE                             [batch, heads, seq_q]

Tensors are torch tensors, numpy arrays or objects with __dlpack__, with any strides; they are never
copied. Outputs are made like the inputs unless out= gives them; out= may be an input, for operation
in place. On a GPU operations run on torch's current stream. Errors are exceptions, subclasses of
ropewalk.Error.
"""

from ._attention import attention, attention_merge, attention_workspace
from ._bias import T5, Alibi, alibi_bias, alibi_slopes, t5_bias
from ._context import BackendProbe, Context, Transfers, backend_probe, default_context, operations
from ._embedding import Sinusoid, embed_learned, embed_sinusoidal
from ._errors import (
    BackendUnavailable,
    DeviceError,
    Error,
    Fault,
    InvalidArgument,
    OutOfMemory,
    OutOfRange,
    Unsupported,
)
from ._kv import HeadNorm, KVCache, kv_append, rope_append
from ._library import lib as _lib
from ._library import text as _text
from ._mx import mx_block_bytes, mx_dequantize, mx_quantize
from ._norm import glu, layer_norm, rms_norm
from ._pattern import (
    Pattern,
    pattern_ask_tile,
    pattern_bake,
    pattern_fill,
    pattern_fill_bits,
    pattern_globals,
    pattern_positions,
    pattern_visible,
)
from ._positions import (
    positions_glm,
    positions_left_padded,
    positions_mrope,
    positions_packed,
    positions_sequential,
)
from ._rope import (
    Rope,
    RopeFrequencies,
    RopeSpec,
    rope_apply,
    rope_frequencies,
    rope_regime,
    rope_rerotate,
)
from ._scores import (
    ScoreStatistics,
    mask_apply,
    qk_matmul,
    scale,
    score_statistics,
    softmax,
    weighted_matmul,
)

__version__ = _text(_lib.rw_version())
__all__ = [
    "T5",
    "Alibi",
    "BackendProbe",
    "BackendUnavailable",
    "Context",
    "DeviceError",
    "Error",
    "Fault",
    "HeadNorm",
    "InvalidArgument",
    "KVCache",
    "OutOfMemory",
    "OutOfRange",
    "Pattern",
    "Rope",
    "RopeFrequencies",
    "RopeSpec",
    "ScoreStatistics",
    "Sinusoid",
    "Transfers",
    "Unsupported",
    "alibi_bias",
    "alibi_slopes",
    "attention",
    "attention_merge",
    "attention_workspace",
    "backend_probe",
    "default_context",
    "embed_learned",
    "embed_sinusoidal",
    "glu",
    "kv_append",
    "layer_norm",
    "mask_apply",
    "mx_block_bytes",
    "mx_dequantize",
    "mx_quantize",
    "operations",
    "pattern_ask_tile",
    "pattern_bake",
    "pattern_fill",
    "pattern_fill_bits",
    "pattern_globals",
    "pattern_positions",
    "pattern_visible",
    "positions_glm",
    "positions_left_padded",
    "positions_mrope",
    "positions_packed",
    "positions_sequential",
    "qk_matmul",
    "rms_norm",
    "rope_append",
    "rope_apply",
    "rope_frequencies",
    "rope_regime",
    "rope_rerotate",
    "scale",
    "score_statistics",
    "softmax",
    "t5_bias",
    "weighted_matmul",
]
