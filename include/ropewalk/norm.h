/* Root-mean-square norm: Zhang and Sennrich, arXiv:1910.07467. */
#ifndef ROPEWALK_NORM_H
#define ROPEWALK_NORM_H

#include <ropewalk/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the normalized row is rounded to its dtype before the weight multiplies it. Models
 * differ: RW_NORM_CAST_BEFORE_WEIGHT  transformers:src/transformers/models/llama/modeling_llama.py
 *   RW_NORM_CAST_AFTER_WEIGHT   transformers:src/transformers/models/gemma/modeling_gemma.py
 * For f32 both are the same. */
typedef enum rw_norm_cast {
    RW_NORM_CAST_BEFORE_WEIGHT = 0, /* Llama, Mistral, Qwen */
    RW_NORM_CAST_AFTER_WEIGHT       /* Gemma: f32 until the store */
} rw_norm_cast;

/* x              [..., hidden], rank 1 to 4, f32, f16 or bf16, any strides but 1 on the last axis:
 *                [tokens, hidden] as well as the heads of q, [batch, seq, heads, head_dim]
 * weight         [hidden], f32, f16 or bf16, its own dtype; absent: 1
 * weight_offset  added to the weight, e.g. Gemma's 1; needs a weight
 * residual       shape and dtype of x: added to x before the norm; may be absent
 * residual_out   shape and dtype of x: receives x + residual; absent: residual in place
 * out            shape and dtype of x; absent: x in place
 * eps            added to the mean of squares, not negative
 *
 * `residual_out` may be x or residual itself, and so may `out`, but not the memory of the other.
 */
typedef struct rw_rms_norm_args {
    rw_tensor x;
    rw_tensor weight;
    rw_tensor residual;
    rw_tensor residual_out;
    rw_tensor out;
    float eps;
    float weight_offset;
    rw_norm_cast cast;
} rw_rms_norm_args;

/* Normalizes every row:
 *
 *   s = x + residual                          rounded to the dtype, as the sum is written
 *   n = s / sqrt(mean(s^2) + eps)             over the last axis
 *   out = round(n) * (weight + weight_offset)   RW_NORM_CAST_BEFORE_WEIGHT
 *   out = n * (weight + weight_offset)          RW_NORM_CAST_AFTER_WEIGHT
 *
 * Squares neither overflow nor vanish: rows of 1e30 and of 1e-30 have the norm that they should, and
 * rows of both. Results are within 4 eps of f32, but for roundings to the dtype. A row of zeros under
 * eps 0 is 0/0, NaN.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_rms_norm(rw_context *context, const rw_rms_norm_args *args);

#ifdef __cplusplus
}
#endif
#endif
