/* Scale, mask and softmax of attention scores: parameters and formulas, for softmax_cpu.c and
 * softmax.hip. */
#ifndef RWI_SOFTMAX_PARAMS_H
#define RWI_SOFTMAX_PARAMS_H

#include "bias_params.h"
#include "shared/exponential.h"
#include "pattern_params.h"

/* [batch, heads, seq_q, seq_k], the last axis of stride 1. A row is one query of one head. */
typedef struct rwi_scores {
    const void *in;
    void *out;
    rw_dtype dtype;
    int64_t batch;
    int64_t heads;
    int64_t seq_q;
    int64_t seq_k;
    int64_t in_stride[3];
    int64_t out_stride[3];
} rwi_scores;

typedef struct rwi_scores_row {
    int64_t b;
    int64_t h;
    int64_t i;
} rwi_scores_row;

RWI_INLINE int64_t rwi_scores_rows(const rwi_scores *scores) {
    return scores->batch * scores->heads * scores->seq_q;
}

RWI_INLINE rwi_scores_row rwi_scores_find(const rwi_scores *scores, int64_t row) {
    rwi_scores_row at;
    int64_t head;
    rwi_split_index(row, scores->seq_q, &head, &at.i);
    rwi_split_index(head, scores->heads, &at.b, &at.h);
    return at;
}

RWI_INLINE int64_t rwi_scores_offset(const rwi_scores_row *at, const int64_t *stride) {
    return at->b * stride[0] + at->h * stride[1] + at->i * stride[2];
}

/* The token index of a row, for fault reports. */
RWI_INLINE int64_t rwi_scores_token(const rwi_scores *scores, const rwi_scores_row *at) {
    return at->b * scores->seq_q + at->i;
}

/* Added to scores; stride 0 along an axis that is broadcast. */
typedef struct rwi_score_mask {
    const void *data; /* NULL: none */
    rw_dtype dtype;
    int64_t stride[3];
} rwi_score_mask;

typedef struct rw_scale_params {
    rwi_scores scores;
    float scale;
} rw_scale_params;

typedef struct rw_mask_apply_params {
    rwi_scores scores;
    rwi_score_mask mask;
    rwi_pattern pattern; /* without parts: hides nothing */
} rw_mask_apply_params;

typedef struct rw_softmax_params {
    rwi_scores scores;
    float scale;
    float softcap; /* 0: none */
    rwi_score_mask mask;
    rwi_alibi alibi;
    const void *sinks; /* [heads]; NULL: none */
    rw_dtype sinks_dtype;
    rwi_pattern pattern;
} rw_softmax_params;

/* The position that ALiBi counts from. */
RWI_INLINE int32_t rwi_alibi_position(const rwi_alibi *alibi, const rwi_pattern_row *row) {
    return (int32_t)(row->i + alibi->shift) + (alibi->shift_from_key_end ? row->key_end : 0);
}

RWI_INLINE rwi_work scale_work(const rw_scale_params *p) {
    rwi_work work = {rwi_scores_rows(&p->scores),
                     2 * p->scores.seq_k * (int64_t)rwi_dtype_size(p->scores.dtype)};
    return work;
}

RWI_INLINE rwi_work mask_apply_work(const rw_mask_apply_params *p) {
    rwi_work work = {rwi_scores_rows(&p->scores),
                     3 * p->scores.seq_k * (int64_t)rwi_dtype_size(p->scores.dtype)};
    return work;
}

RWI_INLINE rwi_work softmax_work(const rw_softmax_params *p) {
    rwi_work work = {rwi_scores_rows(&p->scores), 4 * p->scores.seq_k * (int64_t)sizeof(float)};
    return work;
}

#define RWI_TANH_SMALL 0.625f

/* tanh within about 2 ulp, for |x| < RWI_TANH_SMALL: an odd polynomial. */
RWI_INLINE float rwi_tanh_small(float x) {
    float z = x * x;
    float p = -0x1.75d1d6p-8f;
    p = p * z + 0x1.52217p-6f;
    p = p * z - 0x1.b83b2cp-5f;
    p = p * z + 0x1.110718p-3f;
    p = p * z - 0x1.555532p-2f;
    return x + x * z * p;
}

#define RWI_TANH_TINY 0x1.555554p-2f /* 1/3 */

/* Terms of tanh(inner * x) / inner = x + x^3 * (third + x^2 * (fifth + x^2 * seventh)). */
typedef struct rwi_tanh_terms {
    float third;
    float fifth;
    float seventh;
} rwi_tanh_terms;

RWI_INLINE rwi_tanh_terms rwi_tanh_tiny_terms(float inner) {
    float z = inner * inner;
    rwi_tanh_terms terms = {-0x1.555406p-2f * z, 0x1.10801ep-3f * z * z,
                            -0x1.9627b4p-5f * z * z * z};
    return terms;
}

/* tanh(inner * x) / inner within about 2 ulp, for |inner * x| < RWI_TANH_TINY. */
RWI_INLINE float rwi_tanh_tiny(float x, rwi_tanh_terms terms) {
    float z = x * x;
    float p = terms.seventh;
    p = p * z + terms.fifth;
    p = p * z + terms.third;
    p = p * z + 1.0f;
    return x * p;
}

#define RWI_TANH_LEAST 0x1.555554p-3f /* 1/6 */

RWI_INLINE rwi_tanh_terms rwi_tanh_least_terms(float inner) {
    float z = inner * inner;
    rwi_tanh_terms terms = {-0x1.5550b6p-2f * z, 0x1.0cd8dep-3f * z * z, 0.0f};
    return terms;
}

/* tanh(inner * x) / inner within about 2 ulp, for |inner * x| < RWI_TANH_LEAST: a term less. */
RWI_INLINE float rwi_tanh_least(float x, rwi_tanh_terms terms) {
    float z = x * x;
    float p = terms.fifth * z + terms.third;
    p = p * z + 1.0f;
    return x * p;
}

#define RWI_TANH_ONE 9.02f /* from here on, tanh rounds to 1 */

/* tanh within 3 ulp. On the CPU: x * p(x^2) / q(x^2), which compilers vectorize. NaN is kept. */
RWI_INLINE float rwi_tanh(float x) {
#ifdef __cplusplus
    return tanhf(x);
#else
    x = x < -RWI_TANH_ONE ? -RWI_TANH_ONE : x > RWI_TANH_ONE ? RWI_TANH_ONE : x;
    float z = x * x;
    float p = 0x1.c9a25ap-27f;
    p = p * z + 0x1.5954dap-16f;
    p = p * z + 0x1.c9f818p-9f;
    p = p * z + 0x1.12043ap-3f;
    p = p * z + 1.0f;
    float q = 0x1.a0b77p-21f;
    q = q * z + 0x1.584184p-12f;
    q = q * z + 0x1.a7df06p-6f;
    q = q * z + 0x1.de5766p-2f;
    q = q * z + 1.0f;
    return x * p / q;
#endif
}

/* A score before biases and masks are added. */
RWI_INLINE float rwi_softmax_score(const rw_softmax_params *p, float x) {
    float s = x * p->scale;
    return p->softcap > 0.0f ? rwi_tanh(s / p->softcap) * p->softcap : s;
}

/* The base of the exponents: the largest score, or 0 where that is -inf, so that a row without keys
 * sums to 0 instead of NaN. */
RWI_INLINE float rwi_softmax_base(float largest) {
    return largest == -INFINITY ? 0.0f : largest;
}

/* The factor of each exponential; 0 for a row without keys. NaN is kept. */
RWI_INLINE float rwi_softmax_share(float sum) {
    return sum == 0.0f ? 0.0f : 1.0f / sum;
}

#endif
