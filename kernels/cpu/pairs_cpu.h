/* bf16 in pairs, on the CPU: a word holds two consecutive elements, and each half is the upper half
 * of an f32. Words need no shuffles between 16-bit and 32-bit lanes, which cost more than most
 * arithmetic on them.
 *
 * As f32 in memory, `count` elements are split: the first of every pair, then the second, then the
 * last one if the count is odd.
 */
#ifndef RWI_PAIRS_CPU_H
#define RWI_PAIRS_CPU_H

#include "shared/dtype.h"

/* A pair, at any address. */
typedef uint32_t rwi_pair __attribute__((aligned(2), may_alias));

RWI_INLINE float rwi_pair_first(uint32_t pair) {
    return rwi_f32_from_bits(pair << 16);
}

RWI_INLINE float rwi_pair_second(uint32_t pair) {
    return rwi_f32_from_bits(pair & 0xFFFF0000u);
}

/* The nearest bf16, in the upper 16 bits; the lower 16 bits are unspecified. The low bits of a NaN
 * must be 0, or rounding could make it Inf: this holds for widened bf16 and for NaN that arithmetic
 * computes from them and from other numbers. rwi_pair_operand() prepares other values. */
RWI_INLINE uint32_t rwi_pair_round(float value) {
    uint32_t bits = rwi_f32_bits(value);
    return bits + 0x7FFFu + ((bits >> 16) & 1u);
}

/* The value; a NaN becomes one that rwi_pair_round() keeps. */
RWI_INLINE float rwi_pair_operand(float value) {
    return value != value ? rwi_f32_from_bits(0x7FC00000u) : value;
}

/* The nearest bf16, as f32. */
RWI_INLINE float rwi_pair_rounded(float value) {
    return rwi_f32_from_bits(rwi_pair_round(value) & 0xFFFF0000u);
}

RWI_INLINE uint32_t rwi_pair_join(float first, float second) {
    return rwi_pair_round(first) >> 16 | (rwi_pair_round(second) & 0xFFFF0000u);
}

/* Splits x[0 .. count-1]. */
RWI_INLINE void rwi_pair_split(int64_t count, const float *x, float *split) {
    int64_t half = count / 2;
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        split[i] = x[2 * i];
        split[half + i] = x[2 * i + 1];
    }
    if (count % 2)
        split[count - 1] = x[count - 1];
}

#endif
