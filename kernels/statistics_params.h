/* Statistics of scores: parameters and formulas, for statistics_cpu.c and statistics.hip. */
#ifndef RWI_STATISTICS_PARAMS_H
#define RWI_STATISTICS_PARAMS_H

#include "shared/dtype.h"
#include "shared/ids.h"

/* One value per head; data NULL: not requested. */
typedef struct rwi_head_values {
    float *data; /* [batch, heads] */
    int64_t stride[2];
} rwi_head_values;

typedef struct rw_score_statistics_params {
    const void *scores; /* [batch, heads, rows, columns], the last axis of stride 1 */
    rw_dtype dtype;
    int64_t batch;
    int64_t heads;
    int64_t rows;
    int64_t columns;
    int64_t stride[3];
    rwi_head_values min;
    rwi_head_values max;
    rwi_head_values mean;
    rwi_ids num_nan; /* [1, batch, heads] */
    rwi_ids num_inf;
} rw_score_statistics_params;

/* An item is a head. */
RWI_INLINE rwi_work score_statistics_work(const rw_score_statistics_params *p) {
    int64_t size = (int64_t)rwi_dtype_size(p->dtype);
    rwi_work work = {p->batch * p->heads, p->rows * p->columns * size + 1};
    return work;
}

typedef struct rwi_statistics {
    float min;
    float max;
    double sum;
    int64_t num_finite;
    int64_t num_nan;
    int64_t num_inf;
} rwi_statistics;

RWI_INLINE rwi_statistics rwi_statistics_none(void) {
    rwi_statistics none = {INFINITY, -INFINITY, 0.0, 0, 0, 0};
    return none;
}

RWI_INLINE void rwi_statistics_add(rwi_statistics *s, float x) {
    bool is_nan = x != x;
    bool is_inf = x == INFINITY || x == -INFINITY;
    bool finite = !is_nan && !is_inf;
    s->num_nan += is_nan;
    s->num_inf += is_inf;
    s->num_finite += finite;
    s->min = finite && x < s->min ? x : s->min;
    s->max = finite && x > s->max ? x : s->max;
    s->sum += finite ? (double)x : 0.0;
}

RWI_INLINE rwi_statistics rwi_statistics_join(rwi_statistics a, rwi_statistics b) {
    a.min = b.min < a.min ? b.min : a.min;
    a.max = b.max > a.max ? b.max : a.max;
    a.sum += b.sum;
    a.num_finite += b.num_finite;
    a.num_nan += b.num_nan;
    a.num_inf += b.num_inf;
    return a;
}

RWI_INLINE void rwi_head_values_store(const rwi_head_values *values, int64_t b, int64_t h,
                                      float value) {
    if (values->data)
        values->data[b * values->stride[0] + h * values->stride[1]] = value;
}

/* False where a count does not fit; *bad receives it. */
RWI_INLINE bool score_statistics_store(const rw_score_statistics_params *p, int64_t head,
                                       const rwi_statistics *s, rwi_bad_id *bad) {
    int64_t b = head / p->heads, h = head % p->heads;
    bool any = s->num_finite > 0;
    rwi_head_values_store(&p->min, b, h, any ? s->min : NAN);
    rwi_head_values_store(&p->max, b, h, any ? s->max : NAN);
    rwi_head_values_store(&p->mean, b, h, any ? (float)(s->sum / (double)s->num_finite) : NAN);
    *bad = rwi_bad(RW_FAULT_OVERFLOW, s->num_nan);
    if (p->num_nan.data && !rwi_ids_store(&p->num_nan, 0, b, h, s->num_nan))
        return false;
    *bad = rwi_bad(RW_FAULT_OVERFLOW, s->num_inf);
    return !p->num_inf.data || rwi_ids_store(&p->num_inf, 0, b, h, s->num_inf);
}

#endif
