/* RMSNorm and LayerNorm: parameters and formulas, for norm_cpu.c and norm.hip. */
#ifndef RWI_NORM_PARAMS_H
#define RWI_NORM_PARAMS_H

#include "shared/dtype.h"
#include "shared/rms.h"
#include "shared/rows.h"

typedef struct rwi_norm_params {
    const void *x;
    const void *weight;   /* [hidden]; NULL: 1 */
    const void *bias;     /* [hidden], of layer_norm; NULL: none */
    const void *residual; /* NULL: none */
    void *sum;            /* x + residual; NULL where there is none */
    void *out;
    rw_dtype dtype; /* of all but the weight and the bias */
    rw_dtype weight_dtype;
    rw_dtype bias_dtype;
    rwi_row_axes rows;
    int64_t hidden;
    double per_column; /* 1 / hidden */
    int64_t x_stride[3];
    int64_t residual_stride[3];
    int64_t sum_stride[3];
    int64_t out_stride[3];
    float eps;
    float weight_offset;
    bool cast_before_weight; /* of rms_norm */
} rwi_norm_params;

typedef rwi_norm_params rw_rms_norm_params;
typedef rwi_norm_params rw_layer_norm_params;

/* An item is a row. */
RWI_INLINE rwi_work rms_norm_work(const rwi_norm_params *p) {
    int64_t tensors = p->residual ? 4 : 2;
    rwi_work work = {rwi_row_count(&p->rows),
                     tensors * p->hidden * (int64_t)rwi_dtype_size(p->dtype)};
    return work;
}

RWI_INLINE rwi_work layer_norm_work(const rwi_norm_params *p) {
    return rms_norm_work(p);
}

RWI_INLINE rwi_rms_factor rms_norm_factor(const rwi_norm_params *p, double sum_of_squares) {
    return rwi_rms_factor_of(sum_of_squares * p->per_column + (double)p->eps);
}

/* What a row of layer_norm is normalized by. The mean is the sum of two f32, since a row may lie so
 * close to its mean that the nearest f32 to it is as far away. */
typedef struct rwi_norm_center {
    float before; /* a power of two that x is multiplied by first */
    float high, low;
    rwi_rms_factor factor;
} rwi_norm_center;

/* Differences that exceed f32, and whose squares do: their sum is above RWI_LARGE_SQUARES or NaN. */
#define RWI_LARGE_SQUARES 0x1p100
#define RWI_BEFORE_LARGE 0x1p-80f

/* The mean, by a division: where all elements are equal, it is exactly that element, and no
 * difference is left. The factor follows. */
RWI_INLINE rwi_norm_center layer_norm_center(const rwi_norm_params *p, double sum, float before) {
    double mean = sum / (double)p->hidden * (double)before;
    rwi_norm_center center = {before, (float)mean, 0.0f, {1.0f, 0.0f}};
    center.low = (float)(mean - (double)center.high);
    return center;
}

RWI_INLINE float layer_norm_difference(float x, const rwi_norm_center *center) {
    return (x * center->before - center->high) - center->low;
}

/* `squares`: the sum of squares of the differences. */
RWI_INLINE rwi_rms_factor layer_norm_factor(const rwi_norm_params *p, float before,
                                            double squares) {
    double eps = (double)p->eps * (double)before * (double)before;
    return rwi_rms_factor_of(squares * p->per_column + eps);
}

#endif
