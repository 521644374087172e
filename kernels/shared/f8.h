/* The numbers of 8-bit floats. */
#ifndef RWI_F8_H
#define RWI_F8_H

#include "shared/dtype.h"

/* How codes become numbers: sign, exponent and mantissa move to their places in an f32, where the
 * exponent has another bias. */
typedef struct rwi_f8_format {
    uint32_t kept;    /* sign, exponent and mantissa, after the shift */
    uint32_t special; /* in each byte: what carries Inf and NaN, without their sign, into bit 7 */
    float factor;     /* for the bias */
    int shift;        /* of a code in the upper byte */
} rwi_f8_format;

/* f8_e4m3 or f8_e5m2. */
RWI_INLINE rwi_f8_format rwi_f8_format_of(rw_dtype dtype) {
    if (dtype == RW_F8_E5M2) {
        const rwi_f8_format e5m2 = {0x8FE00000u, 0x04040404u, 0x1p112f, 3};
        return e5m2;
    }
    const rwi_f8_format e4m3 = {0x87F00000u, 0x01010101u, 0x1p120f, 4};
    return e4m3;
}

/* Bit 7 of each of four codes that is Inf or NaN. */
RWI_INLINE uint32_t rwi_f8_special_bits(rwi_f8_format format, uint32_t codes) {
    return ((codes & 0x7F7F7F7Fu) + format.special) & 0x80808080u;
}

/* Whether any of four codes is Inf or NaN. */
RWI_INLINE bool rwi_f8_any_special(rwi_f8_format format, uint32_t codes) {
    return rwi_f8_special_bits(format, codes) != 0;
}

/* The number of code n of four, unless it is Inf or NaN; exact, also of subnormal numbers. */
RWI_INLINE float rwi_f8_number(rwi_f8_format format, uint32_t codes, int n) {
    const int32_t moved = (int32_t)(codes << (24 - 8 * n)) >> format.shift; /* keeps the sign */
    return rwi_f32_from_bits((uint32_t)moved & format.kept) * format.factor;
}

/* The number of any code. */
RWI_INLINE float rwi_f8_to_f32(rw_dtype dtype, uint8_t code) {
    const rwi_f8_format format = rwi_f8_format_of(dtype);
    const float x = rwi_f8_number(format, code, 0);
    if (!rwi_f8_any_special(format, code))
        return x;
    const bool infinite = dtype == RW_F8_E5M2 && (code & 0x7Fu) == 0x7Cu;
    return infinite ? x * INFINITY : NAN;
}

#endif
