/* Exponentials of scores, on the CPU. With AVX-512, in half the instructions of rwi_exp(), which
 * has neither its rounding nor its scaling by powers of 2. */
#ifndef RWI_WEIGHTS_CPU_H
#define RWI_WEIGHTS_CPU_H

#include "shared/exponential.h"

#if defined(__AVX512F__)
#include <immintrin.h>

/* The instruction that scales by a power of two takes 80 ns where a result is below 2^-126, as those
 * of hidden keys are: it is told to leave out what is 0 anyway. */

/* exp(x) within 1.3 ulp, for x up to 88 and NaN: the polynomial of rwi_exp(). Results below 3e-38
 * are 0. */
RWI_INLINE __m512 rwi_exp_16(__m512 x) {
    const __mmask16 fits = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-86.5f), _CMP_NLT_UQ);
    const __m512 k = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0x1.62e4p-1f), x);
    r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    __m512 p = _mm512_set1_ps(0x1.6d110ap-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.120b6ep-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.55551ap-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5554dcp-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(fits, p, k);
}

/* From where on rwi_exp2_16() computes powers: all that are not 0, or those of normal numbers. */
#define RWI_EXP2_ALL (-150.0f)
#define RWI_EXP2_NORMAL (-126.0f)

/* 2^x within 1e-7 of the result, for any x: of those below `least` 0, of NaN NaN. */
RWI_INLINE __m512 rwi_exp2_16(__m512 x, float least) {
    const __mmask16 fits = _mm512_cmp_ps_mask(x, _mm512_set1_ps(least), _CMP_NLT_UQ);
    const __m512 f =
        _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); /* x - floor(x) */
    __m512 p = _mm512_set1_ps(0x1.e974fap-10f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.277856p-7f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.c91ce6p-5f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ebdb56p-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62e4bap-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(fits, p, x);
}

/* 32 bf16, rounded to nearest even; requires rwi_tile_has_pairs(). */
RWI_INLINE __m512i rwi_bf16_line(__m512 first, __m512 second) {
    __m512i halves; /* an intrinsic would require a compiler flag for the instruction */
    __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(halves) : "v"(second), "v"(first));
    return halves;
}

/* The same as words of one of the first and one of the second. */
RWI_INLINE __m512i rwi_bf16_pairs(__m512 low, __m512 high) {
    const __m512i interleaved =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(interleaved, rwi_bf16_line(low, high));
}
#endif

/* x[i] = exp(x[i] - base[i]), and is added to sums[i]. No x is above its base; with AVX-512,
 * `count` is a multiple of 16. */
RWI_INLINE void rwi_weigh_columns(float *x, const float *base, float *sums, int32_t count) {
#if defined(__AVX512F__)
    for (int32_t i = 0; i < count; i += 16) {
        const __m512 e =
            rwi_exp_16(_mm512_sub_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(base + i)));
        _mm512_storeu_ps(x + i, e);
        _mm512_storeu_ps(sums + i, _mm512_add_ps(_mm512_loadu_ps(sums + i), e));
    }
#else
#pragma omp simd
    for (int32_t i = 0; i < count; i++) {
        x[i] = rwi_exp(x[i] - base[i]);
        sums[i] += x[i];
    }
#endif
}

/* x[i] = exp(x[i] - base); the result is their sum. As above. */
RWI_INLINE float rwi_weigh_line(float *x, float base, int32_t count) {
#if defined(__AVX512F__)
    __m512 sum = _mm512_setzero_ps();
    for (int32_t i = 0; i < count; i += 16) {
        const __m512 e = rwi_exp_16(_mm512_sub_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(base)));
        _mm512_storeu_ps(x + i, e);
        sum = _mm512_add_ps(sum, e);
    }
    return _mm512_reduce_add_ps(sum);
#else
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int32_t i = 0; i < count; i++) {
        x[i] = rwi_exp(x[i] - base);
        sum += x[i];
    }
    return sum;
#endif
}

#endif
