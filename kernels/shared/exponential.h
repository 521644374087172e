/* exp and fast divisions for kernels: the GPU's own on a GPU, one that compilers vectorize on the
 * CPU. */
#ifndef RWI_EXPONENTIAL_H
#define RWI_EXPONENTIAL_H

#include "shared/dtype.h"

#ifdef __cplusplus

RWI_INLINE float rwi_exp(float x) {
    return expf(x);
}

/* 2^x within 2 ulp; results below 2^-126 may be 0. */
RWI_INLINE float rwi_exp2_fast(float x) {
#if defined(__CUDA_ARCH__)
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
#else
    return exp2f(x);
#endif
}

/* Within 2 ulp, for b from 2^-126 to 2^126. */
RWI_INLINE float rwi_divide_fast(float a, float b) {
#if defined(__CUDA_ARCH__)
    float reciprocal;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(b));
    return a * reciprocal;
#elif defined(__HIP_DEVICE_COMPILE__)
    return __fdividef(a, b);
#else
    return a / b;
#endif
}

#else

/* 2^k for k in [-126, 127]. */
RWI_INLINE float rwi_power_of_two(int32_t k) {
    return rwi_f32_from_bits(((uint32_t)k + 127u) << 23);
}

/* exp(x) = 2^k * exp(r) with k = round(x / ln 2), a small r and a polynomial for exp(r). */
typedef struct rwi_exp_parts {
    float fraction; /* exp(r) */
    int32_t whole;  /* k */
} rwi_exp_parts;

RWI_INLINE rwi_exp_parts rwi_exp_split(float x) {
    const float round = 0x1.8p23f; /* adding it rounds to an integer in the lowest bits */
    float shifted = x * 0x1.715476p+0f + round;
    float k = shifted - round;
    float r = x - k * 0x1.62e4p-1f; /* exact: the constant has few bits */
    r -= k * 0x1.7f7d1cp-20f;
    float p = 0x1.6d110ap-10f;
    p = p * r + 0x1.120b6ep-7f;
    p = p * r + 0x1.55551ap-5f;
    p = p * r + 0x1.5554dcp-3f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    rwi_exp_parts parts = {p, (int32_t)(rwi_f32_bits(shifted) - rwi_f32_bits(round))};
    return parts;
}

/* Within 1.3 ulp. 2^k is applied as two factors, so that results become subnormal, 0 and Inf
 * correctly. */
RWI_INLINE float rwi_exp(float x) {
    float clamped = x < -170.0f ? -170.0f : x > 170.0f ? 170.0f : x; /* NaN is kept */
    rwi_exp_parts parts = rwi_exp_split(clamped);
    int32_t half = parts.whole >> 1;
    return parts.fraction * rwi_power_of_two(half) * rwi_power_of_two(parts.whole - half);
}

/* For x up to 88, with the same accuracy and slightly faster: results below 2^-125 become about
 * 2^-125. */
RWI_INLINE float rwi_exp_small(float x) {
    rwi_exp_parts parts = rwi_exp_split(x < -87.0f ? -87.0f : x); /* NaN is kept */
    return parts.fraction * rwi_power_of_two(parts.whole);
}

#endif

#endif
