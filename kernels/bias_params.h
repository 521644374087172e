/* ALiBi and T5: parameters and formulas, for bias_cpu.c, bias.hip and softmax_params.h. */
#ifndef RWI_BIAS_PARAMS_H
#define RWI_BIAS_PARAMS_H

#include "shared/dtype.h"

/* ---- ALiBi ---- */

typedef struct rw_alibi_slopes_params {
    float *out;
    int64_t heads;
    int64_t first_head;
    int64_t total_heads;
} rw_alibi_slopes_params;

/* An item is a head. */
RWI_INLINE rwi_work alibi_slopes_work(const rw_alibi_slopes_params *p) {
    rwi_work work = {p->heads, (int64_t)sizeof(float)};
    return work;
}

RWI_INLINE float rwi_alibi_slope(int64_t head, int64_t total_heads) {
    int64_t n = 1; /* the largest power of 2 up to total_heads */
    while (2 * n <= total_heads)
        n *= 2;
    int64_t eighths = head < n ? 2 * (head + 1) : 2 * (head - n) + 1;
    return (float)exp2(-4.0 * (double)eighths / (double)n);
}

typedef struct rwi_alibi {
    const float *slopes;     /* [heads]; NULL: none */
    int64_t shift;           /* from a query's index to its position */
    bool shift_from_key_end; /* add key_end of the pattern */
    bool is_signed;
} rwi_alibi;

/* `distance` is key - position. */
RWI_INLINE float rwi_alibi_of(bool is_signed, float slope, float distance) {
    return slope * (is_signed ? distance : -fabsf(distance));
}

RWI_INLINE float rwi_alibi_at(bool is_signed, float slope, int64_t distance) {
    return rwi_alibi_of(is_signed, slope, (float)distance);
}

/* ---- a dense bias: [heads, seq_q, seq_k], the last axis of stride 1 ---- */

typedef struct rwi_bias_rows {
    void *out;
    rw_dtype dtype;
    int64_t heads;
    int64_t seq_q;
    int64_t seq_k;
    int64_t out_stride[2];
    int64_t shift;
} rwi_bias_rows;

/* An item is a row. */
RWI_INLINE rwi_work rwi_bias_work(const rwi_bias_rows *rows) {
    rwi_work work = {rows->heads * rows->seq_q, rows->seq_k * (int64_t)rwi_dtype_size(rows->dtype)};
    return work;
}

RWI_INLINE void *rwi_bias_row(const rwi_bias_rows *rows, int64_t h, int64_t i) {
    return rwi_element(rows->dtype, rows->out, h * rows->out_stride[0] + i * rows->out_stride[1]);
}

typedef struct rw_alibi_bias_params {
    rwi_bias_rows rows;
    rwi_alibi alibi;
} rw_alibi_bias_params;

RWI_INLINE rwi_work alibi_bias_work(const rw_alibi_bias_params *p) {
    return rwi_bias_work(&p->rows);
}

/* ---- T5 ---- */

typedef struct rwi_t5_buckets {
    const int32_t *of_distance; /* [max_distance + 1]: the bucket, without b */
    int64_t max_distance;
    int64_t later; /* b, added where the key comes after the query */
    bool causal;
} rwi_t5_buckets;

/* `relative` is key - position. */
RWI_INLINE int64_t rwi_t5_bucket_of(const rwi_t5_buckets *buckets, int64_t relative) {
    bool after = relative > 0;
    int64_t distance = after ? (buckets->causal ? 0 : relative) : -relative;
    return (after ? buckets->later : 0) +
           buckets->of_distance[rwi_min(distance, buckets->max_distance)];
}

typedef struct rw_t5_bias_params {
    rwi_bias_rows rows;
    rwi_t5_buckets buckets;
    const void *table; /* [num_buckets, heads] */
    rw_dtype table_dtype;
    int64_t table_stride;
} rw_t5_bias_params;

RWI_INLINE rwi_work t5_bias_work(const rw_t5_bias_params *p) {
    return rwi_bias_work(&p->rows);
}

RWI_INLINE float rwi_t5_bias_at(const rw_t5_bias_params *p, int64_t h, int64_t relative) {
    int64_t bucket = rwi_t5_bucket_of(&p->buckets, relative);
    return rwi_load(p->table_dtype, p->table, bucket * p->table_stride + h);
}

#endif
