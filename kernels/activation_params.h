/* Gated activations: parameters and formulas, for activation_cpu.c and activation.hip. */
#ifndef RWI_ACTIVATION_PARAMS_H
#define RWI_ACTIVATION_PARAMS_H

#include <ropewalk/activation.h>

#include "shared/exponential.h"
#include "shared/rows.h"

typedef struct rw_glu_params {
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
    rw_glu_activation activation;
    float limit;  /* Inf: no limit */
    float lowest; /* gates below this are 0 */
    float alpha;
    float up_offset;
} rw_glu_params;

/* An item is a piece of a row, so that threads can share one long row. */
#define RWI_GLU_PIECE 512

RWI_INLINE int64_t glu_pieces(const rw_glu_params *p) {
    return rwi_ceil_div(p->hidden, RWI_GLU_PIECE);
}

RWI_INLINE rwi_work glu_work(const rw_glu_params *p) {
    rwi_work work = {rwi_row_count(&p->rows) * glu_pieces(p),
                     3 * rwi_min(p->hidden, RWI_GLU_PIECE) * (int64_t)rwi_dtype_size(p->dtype)};
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

/* silu without clamp, alpha, offset and zero. */
RWI_INLINE bool glu_is_plain(const rw_glu_params *p) {
    return p->activation == RW_GLU_SILU && isinf(p->limit) && isinf(p->lowest) &&
           p->alpha == 1.0f && p->up_offset == 0.0f;
}

/* exp(-|x| / 2) for x = z + rest. */
RWI_INLINE float glu_exp(float z, float rest) {
    float size = fabsf(z) * 0.5f;
    float e = rwi_exp(-size);
    rest = (z < 0.0f ? -rest : rest) * 0.5f;
    return e - (size < 200.0f ? e * rest : 0.0f);
}

/* Clamps and shifts gate and up. NaN is kept. */
RWI_INLINE void glu_clamp(const rw_glu_params *p, float *gate, float *up) {
    *gate = *gate > p->limit ? p->limit : *gate < p->lowest ? 0.0f : *gate;
    *up = *up > p->limit ? p->limit : *up < -p->limit ? -p->limit : *up;
    *up += p->up_offset;
}

/* gate / (1 + exp(-x)) * up for x = z + rest, of the sign of gate.
 *
 * With e = exp(-|x| / 2) the sigmoid is 1 / (1 + e^2), times e^2 for x < 0. One factor e multiplies
 * gate and the other multiplies up, so that neither product underflows before the result does.
 */
RWI_INLINE float glu_sigmoid(float gate, float up, float z, float rest) {
    float e = glu_exp(z, rest);
    float factor = z < 0.0f ? e : 1.0f;
    return gate * factor / (1.0f + e * e) * (up * factor);
}

/* The rounding error of z = alpha * gate alone would add |z| ulp to the result. */
RWI_INLINE float glu_silu(const rw_glu_params *p, float gate, float up) {
    float z = p->alpha * gate;
    return glu_sigmoid(gate, up, z, rwi_product_rest(p->alpha, gate, z));
}

/* (1 + tanh(x / 2)) / 2 is the sigmoid of x = 2 * sqrt(2 / pi) * gate * (1 + 0.044715 * gate^2). Its
 * factors and products are pairs: a rounded number and its error. */
RWI_INLINE float glu_gelu_tanh(float gate, float up) {
    const float k = 0x1.6e4e26p-5f, k_rest = 0x1.a9003ep-30f;  /* 0.044715 */
    const float c = 0x1.988454p+0f, c_rest = -0x1.857936p-25f; /* 2 * sqrt(2 / pi) */
    float square = gate * gate;
    float sum = 1.0f + k * square; /* rounded once or twice: compilers may use fma */
    float product = sum - 1.0f;
    float sum_rest = rwi_product_rest(k, square, product) + (1.0f - (sum - product)) +
                     k * rwi_product_rest(gate, gate, square) + k_rest * square;
    float scaled = c * gate;
    float scaled_rest = rwi_product_rest(c, gate, scaled) + c_rest * gate;
    float z = scaled * sum;
    float rest = rwi_product_rest(scaled, sum, z) + scaled * sum_rest + scaled_rest * sum;
    return glu_sigmoid(gate, up, z, rest);
}

/* With a = |gate| and e = exp(-a^2 / 4) the normal distribution at -a is e^2 * g, where g = exp(a^2 /
 * 2) * erfc(a / sqrt(2)) / 2 is a polynomial in t = 1 / (1 + 0.35 * a), within 2^-24. */
RWI_INLINE float glu_gelu(float gate, float up) {
    float square = gate * gate * 0.5f;
    float e = glu_exp(square, rwi_product_rest(gate * 0.5f, gate, square));
    float t = 1.0f / (1.0f + 0.35f * fabsf(gate));
    float g = -0x1.ddcdaep-6f;
    g = g * t + 0x1.2706c4p-3f;
    g = g * t - 0x1.0608bcp-2f;
    g = g * t + 0x1.466aep-3f;
    g = g * t - 0x1.7d0f7p-6f;
    g = g * t + 0x1.b06ceep-4f;
    g = g * t + 0x1.eac42ap-4f;
    g = g * t + 0x1.1e712ap-3f;
    g = g * t + 0x1.1df1cp-3f;
    g *= t;
    return gate < 0.0f ? gate * e * g * (up * e) : gate * (1.0f - e * e * g) * up;
}

/* activation(gate) * (up + up_offset); the activation is a constant where this is called. */
RWI_INLINE float glu_value(const rw_glu_params *p, rw_glu_activation activation, float gate,
                           float up) {
    glu_clamp(p, &gate, &up);
    const float relu = gate < 0.0f ? 0.0f : gate; /* NaN is kept */
    switch (activation) {
    case RW_GLU_SILU:
        return glu_silu(p, gate, up);
    case RW_GLU_GELU:
        return glu_gelu(gate, up);
    case RW_GLU_GELU_TANH:
        return glu_gelu_tanh(gate, up);
    case RW_GLU_RELU:
        return relu * up;
    case RW_GLU_RELU2:
        return relu * up * relu;
    }
    return 0.0f;
}

#endif
