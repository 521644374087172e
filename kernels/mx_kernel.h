/* Microscaling formats: parameters and formulas, for mx_cpu.c and mx.hip.
 *
 * Codes move in groups of eight, which fill whole bytes in every format: 4, 6 or 8 of them.
 */
#ifndef RWI_MX_KERNEL_H
#define RWI_MX_KERNEL_H

#include <ropewalk/mx.h>

#include "dtype.h"
#include "rows.h"

typedef struct rwi_mx_params {
    uint8_t *codes;  /* of the first block */
    uint8_t *scales; /* of the first block */
    void *values;
    rw_dtype dtype; /* of the values */
    rw_mx_format format;
    rw_mx_nibbles nibbles;
    rwi_row_axes blocks;
    int64_t code_stride[3];
    int64_t scale_stride[3];
    int64_t value_stride[3];
} rwi_mx_params;

typedef rwi_mx_params rw_mx_dequantize_params;
typedef rwi_mx_params rw_mx_quantize_params;

/* What distinguishes the elements' formats. */
typedef struct rwi_mx_element {
    int bits;
    int mantissa;      /* bits of it */
    int bias;          /* of the exponent */
    int largest;       /* exponent of the largest number */
    uint32_t max_code; /* the largest number's code */
} rwi_mx_element;

RWI_INLINE rwi_mx_element rwi_mx_element_of(rw_mx_format format) {
    rwi_mx_element e2m1 = {4, 1, 1, 2, 0x7};
    rwi_mx_element e2m3 = {6, 3, 1, 2, 0x1F};
    rwi_mx_element e3m2 = {6, 2, 3, 4, 0x1F};
    rwi_mx_element e4m3 = {8, 3, 7, 8, 0x7E};
    rwi_mx_element e5m2 = {8, 2, 15, 15, 0x7B};
    switch (format) {
    case RW_MXFP4_E2M1:
        break;
    case RW_MXFP6_E2M3:
        return e2m3;
    case RW_MXFP6_E3M2:
        return e3m2;
    case RW_MXFP8_E4M3:
        return e4m3;
    case RW_MXFP8_E5M2:
        return e5m2;
    }
    return e2m1;
}

#define RWI_MX_GROUP 8
#define RWI_MX_GROUPS (RW_MX_BLOCK / RWI_MX_GROUP)

/* An item is a block. */
RWI_INLINE rwi_work rwi_mx_work(const rwi_mx_params *p) {
    rwi_work work = {rwi_row_count(&p->blocks),
                     1 + RW_MX_BLOCK * rwi_mx_element_of(p->format).bits / 8 +
                         RW_MX_BLOCK * (int64_t)rwi_dtype_size(p->dtype)};
    return work;
}

RWI_INLINE rwi_work mx_dequantize_work(const rw_mx_dequantize_params *p) {
    return rwi_mx_work(p);
}

RWI_INLINE rwi_work mx_quantize_work(const rw_mx_quantize_params *p) {
    return rwi_mx_work(p);
}

/* ---- scales ---- */

/* X, exactly: 2^-127 is subnormal. */
RWI_INLINE float rwi_mx_scale(uint8_t e) {
    uint32_t bits = (uint32_t)e << 23;
    bits = e == 0 ? 0x00400000u : bits;
    bits = e == 255 ? 0x7FC00000u : bits;
    return rwi_f32_from_bits(bits);
}

/* The scale of a block, from the largest of its values' bits without their signs. */
RWI_INLINE uint8_t rwi_mx_scale_for(rw_mx_format format, uint32_t max_bits) {
    int exponent =
        (int)(max_bits >> 23); /* 0 for subnormals too, whose scale is the least anyway */
    int e = exponent - rwi_mx_element_of(format).largest;
    e = e < 0 ? 0 : e;
    return (uint8_t)(exponent == 255 ? 255 : e);
}

/* 1 / X, for scales that rwi_mx_scale_for() gives. */
RWI_INLINE float rwi_mx_inverse_scale(uint8_t e) {
    return rwi_f32_from_bits((254u - e) << 23);
}

/* ---- elements ---- */

/* The bits of exponent and mantissa are put where a float has them. A subnormal gets the exponent
 * of the least normal number, whose 1 is then taken away: subnormal floats, which some CPUs are
 * slow with, do not occur. */
RWI_INLINE float rwi_mx_decode(rw_mx_format format, uint32_t code) {
    rwi_mx_element element = rwi_mx_element_of(format);
    uint32_t sign = 1u << (element.bits - 1);
    uint32_t rest = code & (sign - 1);
    uint32_t normal = (rest << (23 - element.mantissa)) + ((uint32_t)(127 - element.bias) << 23);
    uint32_t least = (uint32_t)(128 - element.bias) << 23;
    uint32_t subnormal =
        rwi_f32_bits(rwi_f32_from_bits(normal + (1u << 23)) - rwi_f32_from_bits(least));
    uint32_t bits = rest >> element.mantissa == 0 ? subnormal : normal;
    if (format == RW_MXFP8_E4M3)
        bits = rest == 0x7Fu ? 0x7FC00000u : bits;
    if (format == RW_MXFP8_E5M2)
        bits = rest >= 0x7Cu ? 0x7F800000u | rest << 21 : bits;
    return rwi_f32_from_bits(bits | (code & sign) << (32 - element.bits));
}

/* Rounds to nearest even, saturating; the value is finite. The last place of `step` is the distance
 * of the format's numbers around the value: the sum rounds as they do, and ends in how many such
 * distances the value is. */
RWI_INLINE uint32_t rwi_mx_encode(rw_mx_format format, float value) {
    rwi_mx_element element = rwi_mx_element_of(format);
    uint32_t bits = rwi_f32_bits(value);
    uint32_t rest = bits & 0x7FFFFFFFu;
    uint32_t least = (uint32_t)(128 - element.bias); /* exponent, of normal numbers */
    uint32_t exponent = rest >> 23;
    exponent = exponent < least ? least : exponent;
    uint32_t step = (exponent + 23u - (uint32_t)element.mantissa) << 23;
    uint32_t count = rwi_f32_bits(rwi_f32_from_bits(rest) + rwi_f32_from_bits(step)) - step;
    uint32_t code = count + ((exponent - least) << element.mantissa);
    code = code > element.max_code ? element.max_code : code;
    return code | (bits >> 31) << (element.bits - 1);
}

/* ---- packing ---- */

/* Eight codes, packed from the lowest bit on, to one a byte. */
RWI_INLINE uint64_t rwi_mx_spread(rw_mx_format format, uint64_t packed) {
    int bits = rwi_mx_element_of(format).bits;
    if (bits == 4) {
        packed = (packed | packed << 16) & 0x0000FFFF0000FFFFu;
        packed = (packed | packed << 8) & 0x00FF00FF00FF00FFu;
        packed = (packed | packed << 4) & 0x0F0F0F0F0F0F0F0Fu;
    } else if (bits == 6) {
        packed = (packed & 0xFFFFFFu) | (packed & 0xFFFFFF000000u) << 8;
        packed = (packed & 0x00000FFF00000FFFu) | (packed & 0x00FFF00000FFF000u) << 4;
        packed = (packed & 0x003F003F003F003Fu) | (packed & 0x0FC00FC00FC00FC0u) << 2;
    }
    return packed;
}

/* The reverse. */
RWI_INLINE uint64_t rwi_mx_pack(rw_mx_format format, uint64_t codes) {
    int bits = rwi_mx_element_of(format).bits;
    if (bits == 4) {
        codes = (codes | codes >> 4) & 0x00FF00FF00FF00FFu;
        codes = (codes | codes >> 8) & 0x0000FFFF0000FFFFu;
        codes = codes | codes >> 16;
    } else if (bits == 6) {
        codes = (codes & 0x003F003F003F003Fu) | (codes & 0x3F003F003F003F00u) >> 2;
        codes = (codes & 0x00000FFF00000FFFu) | (codes & 0x0FFF00000FFF0000u) >> 4;
        codes = (codes & 0xFFFFFFu) | (codes & 0x00FFFFFF00000000u) >> 8;
    }
    return codes;
}

RWI_INLINE uint64_t rwi_mx_swap_nibbles(uint64_t bytes) {
    return (bytes & 0x0F0F0F0Fu) << 4 | (bytes >> 4 & 0x0F0F0F0Fu);
}

/* Four, six or eight bytes, little-endian, from any address. */
RWI_INLINE uint64_t rwi_mx_load_word(const uint8_t *bytes, int count) {
    uint64_t word = 0;
    uint32_t low;
    uint16_t high;
    if (count == 8) {
        memcpy(&word, bytes, sizeof word);
        return word;
    }
    memcpy(&low, bytes, sizeof low);
    if (count == 4)
        return low;
    memcpy(&high, bytes + 4, sizeof high);
    return low | (uint64_t)high << 32;
}

/* The codes of elements 8 * group to 8 * group + 7 of a block, one a byte. */
RWI_INLINE uint64_t rwi_mx_load_group(rw_mx_format format, rw_mx_nibbles nibbles,
                                      const uint8_t *codes, int group) {
    int bytes = rwi_mx_element_of(format).bits;
    if (format == RW_MXFP4_E2M1 && nibbles == RW_MX_SPLIT) {
        uint64_t pairs = rwi_mx_load_word(codes + group % 2 * 8, 8);
        return (group < 2 ? pairs : pairs >> 4) & 0x0F0F0F0F0F0F0F0Fu;
    }
    uint64_t word = rwi_mx_load_word(codes + group * bytes, bytes);
    if (format == RW_MXFP4_E2M1 && nibbles == RW_MX_HIGH_FIRST)
        word = rwi_mx_swap_nibbles(word);
    return rwi_mx_spread(format, word);
}

/* The eight elements whose codes fill the bytes that a writer of group `group` owns: the elements
 * first .. first + 3 and second .. second + 3. */
typedef struct rwi_mx_quads {
    int first;
    int second;
} rwi_mx_quads;

RWI_INLINE rwi_mx_quads rwi_mx_quads_of(rw_mx_format format, rw_mx_nibbles nibbles, int group) {
    bool split = format == RW_MXFP4_E2M1 && nibbles == RW_MX_SPLIT;
    rwi_mx_quads quads = {split ? 4 * group : 8 * group, split ? 4 * group + 16 : 8 * group + 4};
    return quads;
}

/* A group's codes, one a byte in the order of rwi_mx_quads, as they lie in memory. */
RWI_INLINE uint64_t rwi_mx_pack_group(rw_mx_format format, rw_mx_nibbles nibbles, uint64_t word) {
    if (format == RW_MXFP4_E2M1 && nibbles == RW_MX_SPLIT)
        word |= word >> 28; /* the second four beside the first */
    else
        word = rwi_mx_pack(format, word);
    if (format == RW_MXFP4_E2M1 && nibbles == RW_MX_HIGH_FIRST)
        word = rwi_mx_swap_nibbles(word);
    return word;
}

/* Writes a group's codes. */
RWI_INLINE void rwi_mx_store_group(rw_mx_format format, rw_mx_nibbles nibbles, uint64_t word,
                                   uint8_t *codes, int group) {
    int bytes = rwi_mx_element_of(format).bits;
    word = rwi_mx_pack_group(format, nibbles, word);
    memcpy(codes + group * bytes, &word, (size_t)bytes);
}

#endif
