/* Biases of attention scores that depend on the distance between query and key: ALiBi and T5.
 *
 * Stream-ordered: allocate nothing (except rw_t5_create), move nothing between host and device.
 * Return RW_OK, RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
#ifndef ROPEWALK_BIAS_H
#define ROPEWALK_BIAS_H

#include <ropewalk/pattern.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ALiBi's slopes: Press et al., arXiv:2108.12409; for numbers of heads that are not powers of 2, as
 * in the authors' attention_with_linear_biases:fairseq/models/transformer.py, get_slopes. With H
 * heads in total and n = 2^floor(log2 H):
 *
 *   slope(h) = 2^(-8 (h + 1) / n)              for h < n
 *              2^(-4 (2 (h - n) + 1) / n)      else
 *   out[k] = slope(first_head + k)
 *
 * out          f32 [heads]: the heads of a shard
 * total_heads  H, 1 to 2^20, of the whole model; first_head + heads <= H
 */
typedef struct rw_alibi_slopes_args {
    rw_tensor out;
    int64_t first_head;
    int64_t total_heads;
} rw_alibi_slopes_args;

RW_API rw_status rw_alibi_slopes(rw_context *context, const rw_alibi_slopes_args *args);

/* ALiBi's bias for query i and key j in head h, where p is the position of i as in rw_pattern:
 *
 *   absolute  -slopes[h] * |p - j|
 *   signed     slopes[h] * (j - p)      (BLOOM's, up to a constant in each row)
 *
 * slopes     f32 [heads]; from rw_alibi_slopes() or the caller's own
 * alignment  must equal the pattern's alignment where there is a pattern, in rw_softmax() and
 *            rw_attention(), since a query has one position. RW_ALIGN_KEY_END uses the pattern's
 *            key_end
 */
typedef struct rw_alibi {
    rw_tensor slopes;
    bool is_signed;
    rw_alignment alignment;
} rw_alibi;

/* out[h, i, j] = the bias above. RW_ALIGN_KEY_END is refused, since there is no pattern.
 *
 * out  f32, f16 or bf16 [heads, seq_q, seq_k], any strides; seq_q and seq_k below 2^31
 */
RW_API rw_status rw_alibi_bias(rw_context *context, const rw_alibi *alibi, const rw_tensor *out);

/* T5's relative position buckets: Raffel et al., arXiv:1910.10683;
 * transformers:src/transformers/models/t5/modeling_t5.py, _relative_position_bucket.
 *
 * r = j - p; bidirectional: n = |r|, m = num_buckets / 2, b = m if r > 0 else 0;
 *            causal:        n = max(-r, 0), m = num_buckets, b = 0. With e = m / 2 rounded down
 *
 *   bucket = b + n                                                     for n < e
 *            b + min(e + trunc(ln(n/e) / ln(max_distance/e) * (m - e)), m - 1)   else
 *
 * computed in integers, so that it is exact where the logarithm is a whole number.
 */
typedef struct rw_t5_options {
    int64_t num_buckets;  /* 2 to 512; bidirectional: even, 4 to 1024 [32] */
    int64_t max_distance; /* above e, at most 2^24 [128] */
    bool causal;          /* a decoder's; else bidirectional (an encoder's) */
} rw_t5_options;

/* The buckets of every distance, on the host and on a context's device. */
typedef struct rw_t5 rw_t5;

/* Allocates 4 * (max_distance + 1) bytes on the device and copies from host to device. Returns
 * RW_OK, RW_INVALID_ARGUMENT, RW_OUT_OF_MEMORY or RW_DEVICE_ERROR; on failure *t5 is NULL. */
RW_API rw_status rw_t5_create(rw_context *context, const rw_t5_options *options, rw_t5 **t5);

/* Frees the buckets; operations that read them must be complete. NULL is ignored. */
RW_API void rw_t5_destroy(rw_t5 *t5);

/* The bucket of r = key - query; -1 if t5 is NULL. */
RW_API int64_t rw_t5_bucket(const rw_t5 *t5, int64_t relative_position);

/* out[h, i, j] = table[bucket(j - p), h]
 *
 * table      f32, f16 or bf16 [num_buckets, heads]; for a shard, a slice of the whole table
 * out        f32, f16 or bf16 [heads, seq_q, seq_k], any strides; seq_q and seq_k below 2^31
 * alignment  p is i + seq_k - seq_q, or i; RW_ALIGN_KEY_END is refused, as above
 */
typedef struct rw_t5_bias_args {
    rw_tensor table;
    rw_tensor out;
    rw_alignment alignment;
} rw_t5_bias_args;

RW_API rw_status rw_t5_bias(rw_context *context, const rw_t5 *t5, const rw_t5_bias_args *args);

#ifdef __cplusplus
}
#endif
#endif
