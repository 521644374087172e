/* HIP's half conversions, in software: round to nearest even, subnormals kept, NaN stays NaN. */
#ifndef HIP_EMULATOR_FP16_H
#define HIP_EMULATOR_FP16_H

#include "hip_runtime.h"

struct __half {
    uint16_t bits;
};

__host__ __device__ inline __half __ushort_as_half(unsigned short bits) {
    return {bits};
}

__host__ __device__ inline unsigned short __half_as_ushort(__half half) {
    return half.bits;
}

__host__ __device__ inline float __half2float(__half half) {
    const uint32_t sign = (uint32_t)(half.bits & 0x8000u) << 16;
    const uint32_t rest = half.bits & 0x7FFFu;
    if (rest < 0x0400u) {
        const float magnitude = (float)rest * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    const uint32_t rebias = rest < 0x7C00u ? 0x38000000u : 0x70000000u;
    return __uint_as_float(sign | ((rest << 13) + rebias));
}

__host__ __device__ inline __half __float2half_rn(float value) {
    const uint32_t bits = __float_as_uint(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t rest = bits & 0x7FFFFFFFu;
    uint32_t half;
    if (rest > 0x7F800000u) {
        half = 0x7E00u | ((rest >> 13) & 0x3FFu);
    } else if (rest >= 0x477FF000u) { /* 65520 and more round to infinity */
        half = 0x7C00u;
    } else if (rest < 0x38800000u) {
        /* One ulp of 0.5 equals the spacing of f16's subnormals: the sum rounds to them. */
        half = __float_as_uint(__uint_as_float(rest) + 0.5f) - 0x3F000000u;
    } else {
        half = (rest + 0xFFFu + ((rest >> 13) & 1u) - 0x38000000u) >> 13;
    }
    return {(uint16_t)(sign | half)};
}

__host__ __device__ inline __half __float2half(float value) {
    return __float2half_rn(value);
}

#endif
