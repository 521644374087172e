/* bf16 two at a time, on the CPU: a word holds two that follow each other, and either half of it is
 * an f32 but for the bits below. Words need no shuffles between lanes of 16 and of 32 bits, which
 * cost more than most arithmetic on them.
 *
 * In memory as f32, `count` elements are split: the first of every pair, then the second, then the
 * one that is left over.
 */
#ifndef RWI_PAIRS_CPU_H
#define RWI_PAIRS_CPU_H

#include "shared/dtype.h"

/* A pair, wherever it lies. */
typedef uint32_t rwi_pair __attribute__((aligned(2), may_alias));

RWI_INLINE float rwi_pair_first(uint32_t pair) {
    return rwi_f32_from_bits(pair << 16);
}

RWI_INLINE float rwi_pair_second(uint32_t pair) {
    return rwi_f32_from_bits(pair & 0xFFFF0000u);
}

/* To the nearest bf16, in the upper half of the bits; those below are rubbish. A NaN must have
 * nothing there, or rounding might carry it away: those have not that are widened bf16, and those
 * that arithmetic makes of them and of other numbers. rwi_pair_operand() is for the others. */
RWI_INLINE uint32_t rwi_pair_round(float value) {
    uint32_t bits = rwi_f32_bits(value);
    return bits + 0x7FFFu + ((bits >> 16) & 1u);
}

/* What results in a NaN that may be rounded, if the value is one. */
RWI_INLINE float rwi_pair_operand(float value) {
    return value != value ? rwi_f32_from_bits(0x7FC00000u) : value;
}

/* The value, as the nearest bf16 has it. */
RWI_INLINE float rwi_pair_rounded(float value) {
    return rwi_f32_from_bits(rwi_pair_round(value) & 0xFFFF0000u);
}

RWI_INLINE uint32_t rwi_pair_join(float first, float second) {
    return rwi_pair_round(first) >> 16 | (rwi_pair_round(second) & 0xFFFF0000u);
}

/* x[0 .. count-1], split. */
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
