/* Floats of at most 8 bits: the elements of microscaling formats, and of 8-bit KV caches. */
#ifndef RWI_SMALL_FLOAT_H
#define RWI_SMALL_FLOAT_H

#include "shared/kernel.h"

typedef struct rwi_small_float {
    int bits;
    int mantissa;      /* mantissa bits */
    int bias;          /* exponent bias */
    int largest;       /* exponent of the largest value */
    uint32_t max_code; /* code of the largest value */
} rwi_small_float;

RWI_INLINE rwi_small_float rwi_small_float_e4m3(void) {
    rwi_small_float format = {8, 3, 7, 8, 0x7E};
    return format;
}

RWI_INLINE rwi_small_float rwi_small_float_e5m2(void) {
    rwi_small_float format = {8, 2, 15, 15, 0x7B};
    return format;
}

/* Rounds to nearest even, saturating; the value must be below 2^100. Subnormal values are spaced as
 * the smallest normal ones. `step` is chosen, from the power of two of the value (at least the
 * smallest), so that its ulp equals the spacing of the format's values there: the sum with it is
 * rounded to that spacing, and its low bits count the spacings. */
RWI_INLINE uint32_t rwi_small_float_encode(rwi_small_float format, float value) {
    const int shift = 23 - format.mantissa;
    const uint32_t least = (uint32_t)(128 - format.bias) << 23;
    uint32_t bits = rwi_f32_bits(value), rest = bits & 0x7FFFFFFFu;
    uint32_t exponent = bits & 0x7F800000u;
    exponent = exponent > least ? exponent : least;
    uint32_t step = exponent + ((uint32_t)shift << 23);
    uint32_t count = rwi_f32_bits(rwi_f32_from_bits(rest) + rwi_f32_from_bits(step)) - step;
    uint32_t code = count + ((exponent - least) >> shift);
    code = code < format.max_code ? code : format.max_code;
    return code | (bits >> (32 - format.bits) & 1u << (format.bits - 1));
}

/* The nearest f8_e4m3 or f8_e5m2, saturating: infinities and numbers beyond the largest value become
 * it. NaN stays NaN. */
RWI_INLINE uint8_t rwi_f32_to_f8(rw_dtype dtype, float value) {
    const bool e4m3 = dtype == RW_F8_E4M3;
    const rwi_small_float format = e4m3 ? rwi_small_float_e4m3() : rwi_small_float_e5m2();
    const uint32_t most = rwi_f32_bits(e4m3 ? 448.0f : 57344.0f);
    uint32_t bits = rwi_f32_bits(value), rest = bits & 0x7FFFFFFFu;
    uint32_t code = rwi_small_float_encode(format, rwi_f32_from_bits(rest < most ? rest : most));
    code = rest > 0x7F800000u ? 0x7Fu : code;
    return (uint8_t)(code | (bits >> 24 & 0x80u));
}

#endif
