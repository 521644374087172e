/* Attention scores: scale, mask, softmax.
 *
 * Arithmetic is f32, rounded once: a scale or a softcap that f32 does not hold as exactly as
 * others, that becomes Inf or 0 or loses digits (1e39, 1e-46, 1e-40), is refused. Stream-ordered:
 * allocate nothing, move nothing between host and device. Return RW_OK, RW_INVALID_ARGUMENT,
 * RW_UNSUPPORTED or RW_DEVICE_ERROR; for what a pattern's own tensors hold see rw_pattern.
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
 * scale  any number that f32 holds
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
 * mask     f32, f16 or bf16; the trailing axes of x, or 1 along any but the last of them, which
 *          then serves all. What stands in it is added, -inf and -1e4 alike
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
 *   out_j = exp(s_j - m) / (sum of exp(s_k - m) + exp(sink - m))       over the keys k that are
 * seen
 *
 * with m the largest of s and the sink. Keys that the pattern hides are not read and get 0,
 * whatever stands there. A row without a visible key, or with s = -inf everywhere, is 0. A NaN
 * among what is seen makes the row's visible keys NaN, and those of no other row.
 *
 * x        [seq_k], [seq_q, seq_k], [heads, seq_q, seq_k] or [batch, heads, seq_q, seq_k];
 *          f32, f16 or bf16; seq_q and seq_k below 2^31
 * out      shape and dtype of x; absent: in place
 * scale    0: 1
 * softcap  above 0; 0: none
 * mask     as in rw_mask_apply()
 * pattern  NULL: every key is seen
 * alibi    NULL: none; its alignment is that of the pattern, if any
 * sinks    f32, f16 or bf16 [heads]: a logit of each head that takes its share and gives none
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
