/* Root-mean-square norm: Zhang and Sennrich, arXiv:1910.07467. Layer norm: Ba, Kiros and Hinton,
 * arXiv:1607.06450. */
#ifndef ROPEWALK_NORM_H
#define ROPEWALK_NORM_H

#include <ropewalk/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the normalized row is rounded to its dtype before it is multiplied by the weight. Models
 * differ; for f32 both are the same:
 *   RW_NORM_CAST_BEFORE_WEIGHT  transformers:src/transformers/models/llama/modeling_llama.py
 *   RW_NORM_CAST_AFTER_WEIGHT   transformers:src/transformers/models/gemma/modeling_gemma.py
 */
typedef enum rw_norm_cast {
    RW_NORM_CAST_BEFORE_WEIGHT = 0, /* Llama, Mistral, Qwen */
    RW_NORM_CAST_AFTER_WEIGHT       /* Gemma: f32 until the store */
} rw_norm_cast;

/* Arguments:
 *
 * x              [..., hidden], rank 1 to 4, f32, f16 or bf16, any strides except that of the last
 *                axis, which must be 1; for example [tokens, hidden], or the heads of q [batch,
 *                seq, heads, head_dim]
 * weight         [hidden], f32, f16 or bf16, independent of the dtype of x; absent: 1
 * weight_offset  added to the weight, e.g. Gemma's 1; requires a weight
 * residual       shape and dtype of x: added to x before the norm; may be absent
 * residual_out   output, shape and dtype of x: x + residual; absent: in place in residual
 * out            output, shape and dtype of x; absent: in place in x
 * eps            added to the mean of squares, not negative
 *
 * `residual_out` and `out` may each be x or residual itself, but must not overlap each other.
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
 *   s = x + residual                            rounded to the dtype, as it is written
 *   n = s / sqrt(mean(s^2) + eps)               over the last axis
 *   out = round(n) * (weight + weight_offset)   RW_NORM_CAST_BEFORE_WEIGHT
 *   out = n * (weight + weight_offset)          RW_NORM_CAST_AFTER_WEIGHT
 *
 * Squares neither overflow nor underflow: rows of 1e30, of 1e-30 and of both are normalized
 * correctly. The error is at most 4 eps of f32, plus roundings to the dtype. A row of zeros with
 * eps 0 is 0/0, NaN.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_rms_norm(rw_context *context, const rw_rms_norm_args *args);

/* As rw_rms_norm_args, with
 *
 * weight, bias   [hidden], each f32, f16 or bf16, independent of each other and of the dtype of x;
 *                absent: 1 and 0
 * weight_offset  added to the weight, e.g. Nemotron's 1; requires a weight
 * eps            added to the variance, not negative
 */
typedef struct rw_layer_norm_args {
    rw_tensor x;
    rw_tensor weight;
    rw_tensor bias;
    rw_tensor residual;
    rw_tensor residual_out;
    rw_tensor out;
    float eps;
    float weight_offset;
} rw_layer_norm_args;

/* Normalizes every row:
 *
 *   s = x + residual                                    rounded to the dtype, as it is written
 *   n = (s - mean(s)) / sqrt(mean((s - mean(s))^2) + eps)    over the last axis
 *   out = n * (weight + weight_offset) + bias           rounded once
 *
 * in two passes, the mean exact beyond f32: the error is at most 8 eps of f32 of |n * weight| +
 * |bias|, plus 1e-10 |mean / deviation * weight|, plus the rounding to the dtype, also of rows that
 * lie far from 0 and close together (1e8 + noise), of 1e30 and of 1e-30. A row of equal numbers is bias; with eps 0 it is 0/0, NaN.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR. Source:
 * pytorch:aten/src/ATen/native/cpu/layer_norm_kernel.cpp.
 */
RW_API rw_status rw_layer_norm(rw_context *context, const rw_layer_norm_args *args);

#ifdef __cplusplus
}
#endif
#endif
