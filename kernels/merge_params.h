/* Merging attention over two sets of keys: parameters and formulas, for merge_cpu.c and merge.hip.
 */
#ifndef RWI_MERGE_PARAMS_H
#define RWI_MERGE_PARAMS_H

#include "shared/dtype.h"

typedef struct rwi_attention_part {
    void *out;  /* [batch, seq, heads, width], the last axis of stride 1 */
    float *lse; /* [batch, heads, seq] */
    int64_t out_stride[3];
    int64_t lse_stride[3];
} rwi_attention_part;

typedef struct rw_attention_merge_params {
    rwi_attention_part a;
    rwi_attention_part b;
    rwi_attention_part merged;
    rw_dtype in_dtype;
    rw_dtype out_dtype;
    int64_t batch;
    int64_t heads;
    int64_t seq;
    int64_t width;
} rw_attention_merge_params;

/* An item is a query of one head. */
RWI_INLINE rwi_work attention_merge_work(const rw_attention_merge_params *p) {
    int64_t bytes = p->width * (2 * (int64_t)rwi_dtype_size(p->in_dtype) +
                                (int64_t)rwi_dtype_size(p->out_dtype));
    rwi_work work = {p->batch * p->heads * p->seq, bytes + 12};
    return work;
}

/* A query of one head. */
typedef struct rwi_query {
    int64_t b;
    int64_t h;
    int64_t i;
} rwi_query;

RWI_INLINE rwi_query rwi_query_find(int64_t item, int64_t heads, int64_t seq) {
    rwi_query query;
    int64_t row;
    rwi_split_index(item, seq, &row, &query.i);
    rwi_split_index(row, heads, &query.b, &query.h);
    return query;
}

RWI_INLINE int64_t rwi_query_out_at(const rwi_attention_part *part, rwi_query query) {
    const int64_t *stride = part->out_stride;
    return query.b * stride[0] + query.i * stride[1] + query.h * stride[2];
}

RWI_INLINE int64_t rwi_query_lse_at(const rwi_attention_part *part, rwi_query query) {
    const int64_t *stride = part->lse_stride;
    return query.b * stride[0] + query.h * stride[1] + query.i * stride[2];
}

/* The factor of each part; a part of weight 0 must not be read. */
typedef struct rwi_merge_weights {
    float a;
    float b;
    float lse;
} rwi_merge_weights;

RWI_INLINE rwi_merge_weights rwi_merge_weigh(float lse_a, float lse_b) {
    rwi_merge_weights weights = {1.0f, 0.0f, lse_a};
    if (lse_b == -INFINITY) {
        if (lse_a == -INFINITY)
            weights.a = 0.0f;
        return weights;
    }
    if (lse_a == -INFINITY) {
        rwi_merge_weights other = {0.0f, 1.0f, lse_b};
        return other;
    }
    float most = lse_a > lse_b ? lse_a : lse_b;
    float a = expf(lse_a - most), b = expf(lse_b - most);
    weights.a = a / (a + b);
    weights.b = b / (a + b);
    weights.lse = most + logf(a + b);
    return weights;
}

/* A part whose weight underflows in f32 still counts: only an LSE of -inf means no keys, and NaN or
 * Inf of a part that has keys propagates. */
RWI_INLINE float rwi_merge_values(rwi_merge_weights weights, bool has_a, bool has_b, float a,
                                  float b) {
    if (has_a && has_b)
        return weights.a * a + weights.b * b;
    return has_a ? a : has_b ? b : 0.0f;
}

#endif
