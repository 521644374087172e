/* Attention scores step by step: the matrix products before and after the softmax, and statistics
 * of scores. For pipelines that need the scores; rw_attention() never stores them.
 *
 * q, k, v and the output have the logical axes [batch, seq, heads, head_dim]; scores and weights
 * [batch, heads, seq_q, seq_k]. All tensors of a product may omit the batch axis, for a batch of 1:
 * packed [tokens, heads, head_dim], and scores [heads, seq_q, seq_k].
 *
 * All are stream-ordered: they allocate nothing, move nothing between host and device, and return
 * RW_OK, RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
#ifndef ROPEWALK_SCORES_H
#define ROPEWALK_SCORES_H

#include <ropewalk/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out[b, h, i, j] = scale * sum over c of q[b, i, h, c] * k[b, j, h / (heads / kv_heads), c]
 *
 * q      f32, f16 or bf16 [batch, seq_q, heads, head_dim]
 * k      q's dtype [batch, seq_k, kv_heads, head_dim]; kv_heads divides heads
 * out    f32, f16 or bf16 [batch, heads, seq_q, seq_k]; must not overlap q or k
 * scale  0 means 1; must be representable in f32, as in softmax.h
 *
 * Any strides (rw_tensor_transpose() gives this view of BHSD storage of q and k), any lengths.
 * Accumulation is f32.
 */
typedef struct rw_qk_matmul_args {
    rw_tensor q;
    rw_tensor k;
    rw_tensor out;
    double scale;
} rw_qk_matmul_args;

RW_API rw_status rw_qk_matmul(rw_context *context, const rw_qk_matmul_args *args);

/* out[b, i, h, c] = sum over j of weights[b, h, i, j] * v[b, j, h / (heads / kv_heads), c]
 *
 * weights  f32, or v's dtype [batch, heads, seq_q, seq_k]
 * v        f32, f16 or bf16 [batch, seq_k, kv_heads, head_dim]; kv_heads divides heads
 * out      f32, f16 or bf16 [batch, seq_q, heads, head_dim]; must not overlap weights or v
 *
 * Any strides, any lengths. Accumulation is f32.
 */
typedef struct rw_weighted_matmul_args {
    rw_tensor weights;
    rw_tensor v;
    rw_tensor out;
} rw_weighted_matmul_args;

RW_API rw_status rw_weighted_matmul(rw_context *context, const rw_weighted_matmul_args *args);

/* Statistics of the scores of every head, to find faulty heads.
 *
 * scores            f32, f16 or bf16 [batch, heads, seq_q, seq_k], any strides
 * min, max, mean    f32 [batch, heads], of the finite scores; NaN if there are none
 * num_nan, num_inf  i32 or i64 [batch, heads]; a count that the dtype cannot represent is not
 *                   written; the next rw_synchronize() reports the token b * heads + h with the
 *                   count
 *
 * Each of the five outputs may be absent. Deterministic.
 */
typedef struct rw_score_statistics_args {
    rw_tensor scores;
    rw_tensor min;
    rw_tensor max;
    rw_tensor mean;
    rw_tensor num_nan;
    rw_tensor num_inf;
} rw_score_statistics_args;

RW_API rw_status rw_score_statistics(rw_context *context, const rw_score_statistics_args *args);

#ifdef __cplusplus
}
#endif
#endif
