/* 1 / rms of a row, for RMSNorm and the norms of heads. */
#ifndef RWI_RMS_H
#define RWI_RMS_H

#include "shared/kernel.h"

/* 1 / rms as first * second: neither overflows or underflows unless 1 / rms does in f32. */
typedef struct rwi_rms_factor {
    float first; /* a power of two */
    float second;
} rwi_rms_factor;

/* 1 / sqrt(mean), mean > 0: the mean of squares plus eps. */
RWI_INLINE rwi_rms_factor rwi_rms_factor_of(double mean) {
    rwi_rms_factor factor = {1.0f, 0.0f};
    if (mean > 0x1p100) {
        factor.first = 0x1p-64f;
        mean *= 0x1p-128;
    } else if (mean < 0x1p-100) {
        factor.first = 0x1p96f;
        mean *= 0x1p192;
    }
    factor.second = 1.0f / sqrtf((float)mean);
    return factor;
}

RWI_INLINE float rwi_rms_scale(float value, rwi_rms_factor factor) {
    return (value * factor.first) * factor.second;
}

#endif
