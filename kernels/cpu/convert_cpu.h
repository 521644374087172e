/* Conversion of arrays to f32 and back, on the CPU.
 *
 * Compilers vectorize the loops over f32 and bf16, but convert f16 one element at a time: the
 * intrinsics (with bit arithmetic as the portable version) make rope over f16 ten times as fast.
 */
#ifndef RWI_CONVERT_CPU_H
#define RWI_CONVERT_CPU_H

#include "shared/dtype.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* Converts whole vectors of f16; returns the number of elements converted. */
RWI_INLINE int64_t rwi_load_f16_vectors(const uint16_t *data, int64_t count, float *x) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps(x + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(data + i))));
#elif defined(__AVX2__) && defined(__F16C__)
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(data + i))));
#elif defined(__aarch64__)
    for (; i + 4 <= count; i += 4)
        vst1q_f32(x + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(data + i))));
#else
    (void)data, (void)count, (void)x;
#endif
    return i;
}

RWI_INLINE int64_t rwi_store_f16_vectors(uint16_t *data, int64_t count, const float *x) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= count; i += 16)
        _mm256_storeu_si256(
            (void *)(data + i),
            _mm512_cvtps_ph(_mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__) && defined(__F16C__)
    for (; i + 8 <= count; i += 8)
        _mm_storeu_si128((void *)(data + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
    for (; i + 4 <= count; i += 4)
        vst1_u16(data + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
#else
    (void)data, (void)count, (void)x;
#endif
    return i;
}

/* The bits of an f16 shifted to the place of f32's are the same number times 2^-112. */
RWI_INLINE float rwi_f16_bits_to_f32(uint16_t half) {
    uint32_t rest = half & 0x7FFFu;
    uint32_t bits = rwi_f32_bits(rwi_f32_from_bits(rest << 13) * 0x1p112f);
    bits |= rest >= 0x7C00u ? 0x7F800000u : 0u;
    return rwi_f32_from_bits(bits | (uint32_t)(half & 0x8000u) << 16);
}

RWI_INLINE uint16_t rwi_f32_to_f16_bits(float value) {
    uint32_t bits = rwi_f32_bits(value);
    uint32_t rest = bits & 0x7FFFFFFFu;
    uint32_t half = (rest + 0xFFFu + ((rest >> 13) & 1u) - 0x38000000u) >> 13;
    /* One ulp of 0.5f equals the spacing of f16's subnormals: the sum rounds to them. */
    uint32_t subnormal = rwi_f32_bits(rwi_f32_from_bits(rest) + 0.5f) - 0x3F000000u;
    half = rest < 0x38800000u ? subnormal : half;
    half = rest >= 0x477FF000u ? 0x7C00u : half; /* 65520 and more round to infinity */
    half = rest > 0x7F800000u ? 0x7E00u | ((rest >> 13) & 0x3FFu) : half;
    return (uint16_t)(half | ((bits >> 16) & 0x8000u));
}

/* Rounds whole vectors of f32 to f16 values; returns the number of elements rounded. */
RWI_INLINE int64_t rwi_round_f16_vectors(int64_t count, float *x) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps(
            x + i, _mm512_cvtph_ps(_mm512_cvtps_ph(_mm512_loadu_ps(x + i),
                                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)));
#elif defined(__AVX2__) && defined(__F16C__)
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm256_cvtps_ph(_mm256_loadu_ps(x + i),
                                                                _MM_FROUND_TO_NEAREST_INT)));
#elif defined(__aarch64__)
    for (; i + 4 <= count; i += 4)
        vst1q_f32(x + i, vcvt_f32_f16(vcvt_f16_f32(vld1q_f32(x + i))));
#else
    (void)count, (void)x;
#endif
    return i;
}

/* x[0 .. count-1] = data[0 .. count-1] */
RWI_INLINE void rwi_load_many(rw_dtype dtype, const void *data, int64_t count, float *x) {
    if (dtype == RW_F16) {
        int64_t done = rwi_load_f16_vectors(data, count, x);
#pragma omp simd
        for (int64_t i = done; i < count; i++)
            x[i] = rwi_f16_bits_to_f32(((const uint16_t *)data)[i]);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        x[i] = rwi_load(dtype, data, i);
}

/* The same of a mask: rwi_load_mask(). */
RWI_INLINE void rwi_load_mask_many(rw_dtype dtype, const void *data, int64_t count, float *x) {
    if (dtype != RW_U8) {
        rwi_load_many(dtype, data, count, x);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        x[i] = rwi_load_mask(RW_U8, data, i);
}

/* data[0 .. count-1] = x[0 .. count-1] */
RWI_INLINE void rwi_store_many(rw_dtype dtype, void *data, int64_t count, const float *x) {
    if (dtype == RW_F16) {
        int64_t done = rwi_store_f16_vectors(data, count, x);
#pragma omp simd
        for (int64_t i = done; i < count; i++)
            ((uint16_t *)data)[i] = rwi_f32_to_f16_bits(x[i]);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        rwi_store(dtype, data, i, x[i]);
}

/* Rounds x[0 .. count-1] to the nearest values of the dtype. */
RWI_INLINE void rwi_round_many(rw_dtype dtype, int64_t count, float *x) {
    if (dtype == RW_F16) {
        int64_t done = rwi_round_f16_vectors(count, x);
#pragma omp simd
        for (int64_t i = done; i < count; i++)
            x[i] = rwi_f16_bits_to_f32(rwi_f32_to_f16_bits(x[i]));
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        x[i] = rwi_round_to(dtype, x[i]);
}

#endif
