/* The numbers of 8-bit floats. */
#ifndef RWI_F8_H
#define RWI_F8_H

#include "shared/dtype.h"

/* The number of a code of f8_e4m3 or f8_e5m2, exact. The latter is the upper half of an f16. */
RWI_INLINE float rwi_f8_to_f32(rw_dtype dtype, uint8_t code) {
    if (dtype == RW_F8_E5M2)
        return rwi_f16_to_f32((uint16_t)(code << 8));
    uint32_t rest = code & 0x7Fu, sign = (uint32_t)(code & 0x80u) << 24;
    float size = rwi_f32_from_bits(rest << 20) * 0x1p120f; /* also of subnormal numbers */
    return rwi_f32_from_bits((rest == 0x7Fu ? 0x7FC00000u : rwi_f32_bits(size)) | sign);
}

#endif
