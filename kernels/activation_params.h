/* SwiGLU: parameters and formulas, for activation_cpu.c and activation.hip. */
#ifndef RWI_ACTIVATION_PARAMS_H
#define RWI_ACTIVATION_PARAMS_H

#include "shared/exponential.h"
#include "shared/rows.h"

typedef struct rw_swiglu_params {
    const void *gate; /* interleaved: pairs of gate and up */
    const void *up;   /* interleaved: unused */
    void *out;
    rw_dtype dtype;
    bool interleaved;
    bool up_first; /* interleaved: up is the first of each pair */
    rwi_row_axes rows;
    int64_t hidden;
    int64_t gate_stride[3];
    int64_t up_stride[3];
    int64_t out_stride[3];
    float limit; /* Inf: no limit */
    float alpha;
    float up_offset;
} rw_swiglu_params;

/* An item is a piece of a row, so that threads can share one long row. */
#define RWI_SWIGLU_PIECE 512

RWI_INLINE int64_t swiglu_pieces(const rw_swiglu_params *p) {
    return rwi_ceil_div(p->hidden, RWI_SWIGLU_PIECE);
}

RWI_INLINE rwi_work swiglu_work(const rw_swiglu_params *p) {
    rwi_work work = {rwi_row_count(&p->rows) * swiglu_pieces(p),
                     3 * rwi_min(p->hidden, RWI_SWIGLU_PIECE) * (int64_t)rwi_dtype_size(p->dtype)};
    return work;
}

/* The rounding error of a product: a * b - product. */
RWI_INLINE float rwi_product_rest(float a, float b, float product) {
#if defined(__cplusplus) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return fmaf(a, b, -product);
#else
    return (float)((double)a * (double)b - (double)product);
#endif
}

/* No clamp, alpha or offset. */
RWI_INLINE bool swiglu_is_plain(const rw_swiglu_params *p) {
    return isinf(p->limit) && p->alpha == 1.0f && p->up_offset == 0.0f;
}

/* exp(-|alpha * gate| / 2); `z` is the rounded product alpha * gate. */
RWI_INLINE float swiglu_exp(const rw_swiglu_params *p, bool plain, float gate, float z) {
    float size = fabsf(z) * 0.5f;
    float e = rwi_exp(-size);
    if (!plain) { /* the rounding error of z alone would add |z| ulp to the result */
        float rest = rwi_product_rest(p->alpha, gate, z) * 0.5f;
        rest = z < 0.0f ? -rest : rest;
        e -= size < 200.0f ? e * rest : 0.0f;
    }
    return e;
}

/* Clamps and shifts gate and up. NaN is kept. */
RWI_INLINE void swiglu_clamp(const rw_swiglu_params *p, float *gate, float *up) {
    *gate = *gate > p->limit ? p->limit : *gate;
    *up = *up > p->limit ? p->limit : *up < -p->limit ? -p->limit : *up;
    *up += p->up_offset;
}

/* gate / (1 + exp(-alpha * gate)) * (up + up_offset); plain: swiglu_is_plain().
 *
 * With z = alpha * gate and e = exp(-|z| / 2) the sigmoid is 1 / (1 + e^2), times e^2 for z < 0.
 * One factor e multiplies gate and the other multiplies up, so that neither product underflows
 * before the result does.
 */
RWI_INLINE float swiglu_value(const rw_swiglu_params *p, bool plain, float gate, float up) {
    if (!plain)
        swiglu_clamp(p, &gate, &up);
    float z = plain ? gate : p->alpha * gate;
    float e = swiglu_exp(p, plain, gate, z);
    float factor = z < 0.0f ? e : 1.0f;
    return gate * factor / (1.0f + e * e) * (up * factor);
}

#endif
