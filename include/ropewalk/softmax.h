/* Attention scores: scale, mask, softmax.
 *
 * Arithmetic is f32, with one rounding at the end. A scale or softcap that f32 cannot represent to
 * full precision, because it becomes Inf, 0 or subnormal (1e39, 1e-46, 1e-40), is refused.
 * Stream-ordered: allocate nothing, move nothing between host and device. Return RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR; for invalid values in a pattern's tensors
 * see rw_pattern.
 */
#ifndef ROPEWALK_SOFTMAX_H
#define ROPEWALK_SOFTMAX_H

#include <ropewalk/bias.h>
#include <ropewalk/pattern.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out = x * scale
 *
 * x      rank 1 to 4; f32, f16 or bf16
 * out    shape and dtype of x; absent: in place
 * scale  any number that f32 can represent
 */
typedef struct rw_scale_args {
    rw_tensor x;
    rw_tensor out;
    double scale;
} rw_scale_args;

RW_API rw_status rw_scale(rw_context *context, const rw_scale_args *args);

/* out[b, h, i, j] = x[b, h, i, j] + mask[b, h, i, j], and -inf where the pattern hides
 *
 * x        [seq_q, seq_k], [heads, seq_q, seq_k] or [batch, heads, seq_q, seq_k]; f32, f16 or bf16
 * out      shape and dtype of x; absent: in place
 * mask     f32, f16, bf16 or u8; the trailing axes of x; an axis of 1, except the last, is
 *          broadcast. Its values are added, -inf like any other; of u8 (bool), -inf where it is 0,
 *          and 0 elsewhere
 * pattern  NULL: none. Either mask or pattern may be absent, not both
 */
typedef struct rw_mask_apply_args {
    rw_tensor x;
    rw_tensor out;
    rw_tensor mask;
    const rw_pattern *pattern;
} rw_mask_apply_args;

RW_API rw_status rw_mask_apply(rw_context *context, const rw_mask_apply_args *args);

/* Softmax over the last axis:
 *
 *   s_j = softcap * tanh(x_j * scale / softcap) + alibi_j + mask_j     (no softcap: x_j * scale)
 *   out_j = exp(s_j - m) / (sum over visible k of exp(s_k - m) + exp(sink - m))
 *
 * with m the largest of s and the sink. Keys that the pattern hides are not read, and their output
 * is 0. A row without a visible key, or with s = -inf everywhere, is 0. A NaN in a visible key
 * makes all visible keys of its row NaN, and does not affect other rows.
 *
 * x        [seq_k], [seq_q, seq_k], [heads, seq_q, seq_k] or [batch, heads, seq_q, seq_k];
 *          f32, f16 or bf16; seq_q and seq_k below 2^31
 * out      shape and dtype of x; absent: in place
 * scale    0: 1
 * softcap  positive; 0: none
 * mask     as in rw_mask_apply()
 * pattern  NULL: every key is visible
 * alibi    NULL: none; its alignment must be that of the pattern, if any
 * sinks    f32, f16 or bf16 [heads]: a logit of each head that enters the sum but has no output
 *          (gpt-oss: transformers:src/transformers/models/gpt_oss/modeling_gpt_oss.py,
 *          eager_attention_forward); neither scaled nor capped. May be absent
 */
typedef struct rw_softmax_args {
    rw_tensor x;
    rw_tensor out;
    double scale;
    double softcap;
    rw_tensor mask;
    const rw_pattern *pattern;
    const rw_alibi *alibi;
    rw_tensor sinks;
} rw_softmax_args;

RW_API rw_status rw_softmax(rw_context *context, const rw_softmax_args *args);

#ifdef __cplusplus
}
#endif
#endif
