/* The dtypes: to add one, add it to RWI_FLOAT_DTYPES if it is a float, and a case to each switch
 * here. There is no default:, so that the compiler lists the switches that lack one.
 *
 * The dtype is a constant where these are called (a template argument in HIP, a literal in C), so
 * every switch is resolved at compile time.
 */
#ifndef RWI_DTYPE_H
#define RWI_DTYPE_H

#include <assert.h>

#include "shared/small_float.h"

/* The float dtypes and their sizes in bytes. */
#define RWI_FLOAT_DTYPES(DTYPE) DTYPE(RW_F32, 4) DTYPE(RW_F16, 2) DTYPE(RW_BF16, 2)

/* Fails to compile unless every float dtype except f32 has 16 bits; for code that assumes it. */
#define RWI_ASSERT_16_BIT_FLOATS                                                                   \
    static_assert(1 RWI_FLOAT_DTYPES(RWI_AND_F32_OR_16_BITS),                                      \
                  "this code assumes that every float dtype except f32 has 16 bits")
#define RWI_AND_F32_OR_16_BITS(dtype, bytes) &&((dtype) == RW_F32 || (bytes) == 2)

RWI_INLINE float rwi_bf16_to_f32(uint16_t bits) {
    return rwi_f32_from_bits((uint32_t)bits << 16);
}

/* Round to nearest even; a NaN stays a (quiet) NaN. */
RWI_INLINE uint16_t rwi_f32_to_bf16(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800 /* one instruction instead of six */
    uint16_t narrow;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrow) : "f"(value));
    return narrow;
#else
    uint32_t bits = rwi_f32_bits(value);
    uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    uint32_t quiet = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
#endif
}

/* The nearest bf16, as f32. */
RWI_INLINE float rwi_round_to_bf16(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800 /* rounding pairs is eight times as fast */
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(value), "f"(0.0f));
    return rwi_f32_from_bits(pair);
#else
    return rwi_bf16_to_f32(rwi_f32_to_bf16(value));
#endif
}

/* C and HIP's own compiler (__HIP__) have an f16 type; other compilers use HIP's functions. */
#if defined(__cplusplus) && !defined(__HIP__)
RWI_INLINE float rwi_f16_to_f32(uint16_t bits) {
    return __half2float(__ushort_as_half(bits));
}

RWI_INLINE uint16_t rwi_f32_to_f16(float value) {
    return __half_as_ushort(__float2half_rn(value));
}
#else
RWI_INLINE float rwi_f16_to_f32(uint16_t bits) {
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return (float)half;
}

RWI_INLINE uint16_t rwi_f32_to_f16(float value) {
#if defined(__HIP_DEVICE_COMPILE__) && __HIP_DEVICE_COMPILE__
    /* Up to version 22 clang compiles a product that is rounded to f16 to v_fma_mixlo_f16(a, b,
     * +0), which changes -0 to +0. The asm hides from it that `value` is a product. */
    __asm__("" : "+v"(value));
#endif
    _Float16 half = (_Float16)value;
    uint16_t bits;
    memcpy(&bits, &half, sizeof bits);
    return bits;
}
#endif

RWI_INLINE size_t rwi_dtype_size(rw_dtype dtype) {
    switch (dtype) {
#define RWI_CASE(dtype, bytes)                                                                     \
    case dtype:                                                                                    \
        return bytes;
        RWI_FLOAT_DTYPES(RWI_CASE)
#undef RWI_CASE
    case RW_I32:
        return 4;
    case RW_I64:
        return 8;
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return 1;
    }
    return 0;
}

RWI_INLINE bool rwi_dtype_is_float(rw_dtype dtype) {
    switch (dtype) {
#define RWI_CASE(dtype, bytes)                                                                     \
    case dtype:                                                                                    \
        return true;
        RWI_FLOAT_DTYPES(RWI_CASE)
#undef RWI_CASE
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return false;
    }
    return false;
}

/* Element `i` of an array of floats. */
RWI_INLINE float rwi_load(rw_dtype dtype, const void *data, int64_t i) {
    switch (dtype) {
    case RW_F32:
        return ((const float *)data)[i];
    case RW_F16:
        return rwi_f16_to_f32(((const uint16_t *)data)[i]);
    case RW_BF16:
        return rwi_bf16_to_f32(((const uint16_t *)data)[i]);
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        break;
    }
    return 0.0f;
}

/* Element `i` of a mask that is added: of floats, or of u8, which hide where they are 0. */
RWI_INLINE float rwi_load_mask(rw_dtype dtype, const void *data, int64_t i) {
    if (dtype == RW_U8)
        return ((const uint8_t *)data)[i] != 0 ? 0.0f : -INFINITY;
    return rwi_load(dtype, data, i);
}

/* Rounds to nearest; the 8-bit floats saturate. */
RWI_INLINE void rwi_store(rw_dtype dtype, void *data, int64_t i, float value) {
    switch (dtype) {
    case RW_F32:
        ((float *)data)[i] = value;
        return;
    case RW_F16:
        ((uint16_t *)data)[i] = rwi_f32_to_f16(value);
        return;
    case RW_BF16:
        ((uint16_t *)data)[i] = rwi_f32_to_bf16(value);
        return;
    case RW_F8_E4M3:
        ((uint8_t *)data)[i] = rwi_f32_to_f8(RW_F8_E4M3, value);
        return;
    case RW_F8_E5M2:
        ((uint8_t *)data)[i] = rwi_f32_to_f8(RW_F8_E5M2, value);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
        return;
    }
}

/* The value of the dtype nearest to `value`. */
RWI_INLINE float rwi_round_to(rw_dtype dtype, float value) {
    switch (dtype) {
    case RW_F16:
        return rwi_f16_to_f32(rwi_f32_to_f16(value));
    case RW_BF16:
        return rwi_round_to_bf16(value);
    case RW_F32:
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        break;
    }
    return value;
}

/* The address of element `i`; the dtype need not be constant. */
RWI_INLINE void *rwi_element(rw_dtype dtype, const void *data, int64_t i) {
    return (char *)data + i * (int64_t)rwi_dtype_size(dtype);
}

#endif
