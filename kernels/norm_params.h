/* RMSNorm: parameters and formulas, for norm_cpu.c and norm.hip. */
#ifndef RWI_NORM_PARAMS_H
#define RWI_NORM_PARAMS_H

#include "shared/dtype.h"
#include "shared/rms.h"
#include "shared/rows.h"

typedef struct rw_rms_norm_params {
    const void *x;
    const void *weight;   /* [hidden]; NULL: 1 */
    const void *residual; /* NULL: none */
    void *sum;            /* x + residual; NULL where there is none */
    void *out;
    rw_dtype dtype; /* of all but the weight */
    rw_dtype weight_dtype;
    rwi_row_axes rows;
    int64_t hidden;
    double per_column; /* 1 / hidden */
    int64_t x_stride[3];
    int64_t residual_stride[3];
    int64_t sum_stride[3];
    int64_t out_stride[3];
    float eps;
    float weight_offset;
    bool cast_before_weight;
} rw_rms_norm_params;

/* An item is a row. */
RWI_INLINE rwi_work rms_norm_work(const rw_rms_norm_params *p) {
    int64_t tensors = p->residual ? 4 : 2;
    rwi_work work = {rwi_row_count(&p->rows),
                     tensors * p->hidden * (int64_t)rwi_dtype_size(p->dtype)};
    return work;
}

RWI_INLINE rwi_rms_factor rms_norm_factor(const rw_rms_norm_params *p, double sum_of_squares) {
    return rwi_rms_factor_of(sum_of_squares * p->per_column + (double)p->eps);
}

#endif
