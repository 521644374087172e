/* Elements of every dtype as doubles and bits, and random numbers. The conversions are the
 * harness's own and use arithmetic on doubles, not operations on the bits of both formats. */
#include "harness/harness.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t rwt_random_next(rwt_random *random) {
    /* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014 */
    uint64_t z = random->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

int64_t rwt_random_below(rwt_random *random, int64_t end) {
    return end > 0 ? (int64_t)(rwt_random_next(random) % (uint64_t)end) : 0;
}

double rwt_random_uniform(rwt_random *random, double low, double high) {
    double unit = (double)(rwt_random_next(random) >> 11) * 0x1p-53;
    return low + (high - low) * unit;
}

void *rwt_allocate(size_t bytes) {
    void *memory = calloc(1, bytes > 0 ? bytes : 1);
    if (!memory) {
        fprintf(stderr, "out of host memory: %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

/* The smallest normal number, the largest number, and the distance from 1 to the next number. */
typedef struct format {
    double min_normal;
    double max;
    double epsilon;
} format;

static format format_of(rw_dtype dtype) {
    switch (dtype) {
    case RW_F16:
        return (format){0x1p-14, 65504.0, 0x1p-10};
    case RW_BF16:
        return (format){0x1p-126, 0x1.FEp127, 0x1p-7};
    case RW_F8_E4M3:
        return (format){0x1p-6, 448.0, 0x1p-3};
    case RW_F8_E5M2:
        return (format){0x1p-14, 57344.0, 0x1p-2};
    case RW_F32:
    case RW_I32:
    case RW_I64:
    case RW_U8:
        break;
    }
    return (format){0x1p-126, FLT_MAX, 0x1p-23};
}

bool rwt_dtype_is_f8(rw_dtype dtype) {
    return dtype == RW_F8_E4M3 || dtype == RW_F8_E5M2;
}

bool rwt_dtype_is_float(rw_dtype dtype) {
    return dtype == RW_F32 || dtype == RW_F16 || dtype == RW_BF16 || rwt_dtype_is_f8(dtype);
}

double rwt_dtype_epsilon(rw_dtype dtype) {
    return format_of(dtype).epsilon;
}

double rwt_dtype_max(rw_dtype dtype) {
    return format_of(dtype).max;
}

double rwt_dtype_min_normal(rw_dtype dtype) {
    return format_of(dtype).min_normal;
}

static double decode_f16(uint16_t bits) {
    double sign = bits & 0x8000u ? -1.0 : 1.0;
    int exponent = (bits >> 10) & 31;
    int fraction = bits & 1023;
    if (exponent == 31)
        return fraction ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * (double)fraction * 0x1p-24;
    return sign * (double)((int64_t)(1024 + fraction) << exponent) * 0x1p-25;
}

static uint16_t encode_f16(double value) {
    uint16_t sign = signbit(value) ? 0x8000u : 0;
    double magnitude = fabs(value);
    if (isnan(value))
        return (uint16_t)(sign | 0x7E00u);
    if (isinf(value))
        return (uint16_t)(sign | 0x7C00u);
    if (magnitude < 0x1p-14)
        return (uint16_t)(sign | (uint16_t)(magnitude * 0x1p24));
    int exponent;
    double fraction = frexp(magnitude, &exponent); /* in [0.5, 1) */
    return (uint16_t)(sign | ((exponent + 14) << 10) | ((int)(fraction * 2048.0) - 1024));
}

/* Mantissa bits and exponent bias of an 8-bit float. */
static int mantissa_of(rw_dtype dtype) {
    return dtype == RW_F8_E4M3 ? 3 : 2;
}

static int bias_of(rw_dtype dtype) {
    return dtype == RW_F8_E4M3 ? 7 : 15;
}

static double decode_f8(rw_dtype dtype, uint8_t code) {
    const int mantissa = mantissa_of(dtype), one = 1 << mantissa;
    const double unit = rwt_dtype_min_normal(dtype) * rwt_dtype_epsilon(dtype);
    double sign = code & 0x80u ? -1.0 : 1.0;
    int exponent = (code & 0x7F) >> mantissa, fraction = code & (one - 1);
    if ((code & 0x7F) == 0x7F || (dtype == RW_F8_E5M2 && (code & 0x7F) > 0x7C))
        return NAN;
    if (dtype == RW_F8_E5M2 && (code & 0x7F) == 0x7C)
        return sign * INFINITY;
    if (exponent == 0)
        return sign * (double)fraction * unit;
    return sign * (double)((int64_t)(one + fraction) << (exponent - 1)) * unit;
}

/* The value is one of the dtype's finite ones, or NaN. */
static uint8_t encode_f8(rw_dtype dtype, double value) {
    const int one = 1 << mantissa_of(dtype);
    uint8_t sign = signbit(value) ? 0x80u : 0;
    double magnitude = fabs(value), min = rwt_dtype_min_normal(dtype);
    if (isnan(value))
        return (uint8_t)(sign | 0x7Fu);
    if (magnitude < min)
        return (uint8_t)(sign | (int)(magnitude / (min * rwt_dtype_epsilon(dtype))));
    int exponent;
    double fraction = frexp(magnitude, &exponent); /* in [0.5, 1) */
    exponent += bias_of(dtype) - 1;
    return (uint8_t)(sign | (exponent * one + (int)(fraction * 2 * one) - one));
}

/* The largest power of two that is at most |value|; 0 for subnormal numbers. */
static double power_of_two_below(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits &= 0x7FF0000000000000u; /* the exponent */
    memcpy(&value, &bits, sizeof bits);
    return value;
}

double rwt_dtype_spacing(rw_dtype dtype, double value) {
    return fmax(power_of_two_below(value), rwt_dtype_min_normal(dtype)) * rwt_dtype_epsilon(dtype);
}

static double round_to(double value, rw_dtype dtype) {
    if (isinf(value) && rwt_dtype_is_f8(dtype))
        return copysign(rwt_dtype_max(dtype), value);
    if (value == 0.0 || isnan(value) || isinf(value))
        return value;
    double unit = rwt_dtype_spacing(dtype, value);
    double rounded = nearbyint(value / unit) * unit, max = rwt_dtype_max(dtype);
    if (fabs(rounded) <= max)
        return rounded;
    return copysign(rwt_dtype_is_f8(dtype) ? max : INFINITY, value);
}

/* Bytes; lengths that the compiler knows make copies of a few bytes fast. */
static size_t size_of(rw_dtype dtype) {
    switch (dtype) {
    case RW_F16:
    case RW_BF16:
        return 2;
    case RW_F32:
    case RW_I32:
        return 4;
    case RW_I64:
        return 8;
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        break;
    }
    return 1;
}

uint64_t rwt_load_bits(rw_dtype dtype, const void *data, int64_t i) {
    uint64_t bits = 0; /* little endian */
    switch (size_of(dtype)) {
    case 2:
        memcpy(&bits, (const uint16_t *)data + i, 2);
        break;
    case 4:
        memcpy(&bits, (const uint32_t *)data + i, 4);
        break;
    case 8:
        memcpy(&bits, (const uint64_t *)data + i, 8);
        break;
    default:
        memcpy(&bits, (const uint8_t *)data + i, 1);
    }
    return bits;
}

static void store_bits(rw_dtype dtype, void *data, int64_t i, uint64_t bits) {
    size_t size = size_of(dtype);
    memcpy((char *)data + i * (int64_t)size, &bits, size);
}

double rwt_load(rw_dtype dtype, const void *data, int64_t i) {
    uint16_t half;
    uint32_t wide;
    float single;
    switch (dtype) {
    case RW_F32:
        memcpy(&single, (const float *)data + i, sizeof single);
        return single;
    case RW_F16:
        memcpy(&half, (const uint16_t *)data + i, sizeof half);
        return decode_f16(half);
    case RW_BF16:
        memcpy(&half, (const uint16_t *)data + i, sizeof half);
        wide = (uint32_t)half << 16;
        memcpy(&single, &wide, sizeof single);
        return single;
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return decode_f8(dtype, ((const uint8_t *)data)[i]);
    case RW_I32:
    case RW_I64:
    case RW_U8:
        break;
    }
    return (double)rwt_load_id(dtype, data, i);
}

void rwt_store(rw_dtype dtype, void *data, int64_t i, double value) {
    float single = (float)value;
    uint32_t wide;
    switch (dtype) {
    case RW_F32:
        memcpy((float *)data + i, &single, sizeof single);
        return;
    case RW_F16:
        store_bits(dtype, data, i, encode_f16(round_to(value, dtype)));
        return;
    case RW_BF16:
        single = (float)round_to(value, dtype);
        memcpy(&wide, &single, sizeof wide);
        store_bits(dtype, data, i, wide >> 16);
        return;
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        store_bits(dtype, data, i, encode_f8(dtype, round_to(value, dtype)));
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
        break;
    }
    rwt_store_id(dtype, data, i, (int64_t)value);
}

double rwt_round(rw_dtype dtype, double value) {
    char element[8];
    rwt_store(dtype, element, 0, value);
    return rwt_load(dtype, element, 0);
}

rwt_rounded rwt_round_near(rw_dtype dtype, double value) {
    double off = 4.0 * rwt_dtype_epsilon(RW_F32);
    double low = rwt_round(dtype, value * (1.0 - off)),
           high = rwt_round(dtype, value * (1.0 + off));
    if (!isfinite(low) || !isfinite(high) || dtype == RW_F32)
        return (rwt_rounded){value, 0.0};
    return (rwt_rounded){(low + high) / 2.0, fabs(high - low) / 2.0};
}

int64_t rwt_load_id(rw_dtype dtype, const void *data, int64_t i) {
    uint64_t bits = rwt_load_bits(dtype, data, i);
    return dtype == RW_I32 ? (int64_t)(int32_t)(uint32_t)bits : (int64_t)bits;
}

void rwt_store_id(rw_dtype dtype, void *data, int64_t i, int64_t value) {
    store_bits(dtype, data, i, (uint64_t)value);
}
