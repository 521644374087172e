/* Microscaling formats: parameters and formulas, for mx_cpu.c and mx.hip.
 *
 * Codes are moved in groups of eight, which fill whole bytes in every format (4, 6 or 8 bytes).
 */
#ifndef RWI_MX_PARAMS_H
#define RWI_MX_PARAMS_H

#include <ropewalk/mx.h>

#include "shared/dtype.h"
#include "shared/rows.h"

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

RWI_INLINE rwi_small_float rwi_mx_element_of(rw_mx_format format) {
    rwi_small_float e2m1 = {4, 1, 1, 2, 0x7};
    rwi_small_float e2m3 = {6, 3, 1, 2, 0x1F};
    rwi_small_float e3m2 = {6, 2, 3, 4, 0x1F};
    switch (format) {
    case RW_MXFP4_E2M1:
        break;
    case RW_MXFP6_E2M3:
        return e2m3;
    case RW_MXFP6_E3M2:
        return e3m2;
    case RW_MXFP8_E4M3:
        return rwi_small_float_e4m3();
    case RW_MXFP8_E5M2:
        return rwi_small_float_e5m2();
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

/* The scale X, exact: 2^-127 is subnormal. */
RWI_INLINE float rwi_mx_scale(uint8_t e) {
    uint32_t bits = (uint32_t)e << 23;
    bits = e == 0 ? 0x00400000u : bits;
    bits = e == 255 ? 0x7FC00000u : bits;
    return rwi_f32_from_bits(bits);
}

/* The scale of a block, from its largest value without sign, as bits. */
RWI_INLINE uint8_t rwi_mx_scale_for(rw_mx_format format, uint32_t max_bits) {
    int exponent =
        (int)(max_bits >> 23); /* 0 for subnormals too, for which the scale is the smallest */
    int e = exponent - rwi_mx_element_of(format).largest;
    e = e < 0 ? 0 : e;
    return (uint8_t)(exponent == 255 ? 255 : e);
}

/* 1 / X, for scales returned by rwi_mx_scale_for(). */
RWI_INLINE float rwi_mx_inverse_scale(uint8_t e) {
    return rwi_f32_from_bits((254u - e) << 23);
}

/* ---- elements ---- */

/* Rounds to nearest even, saturating; the value must be finite. */
RWI_INLINE uint32_t rwi_mx_encode(rw_mx_format format, float value) {
    return rwi_small_float_encode(rwi_mx_element_of(format), value);
}

/* ---- packing ---- */

/* Packs eight codes, one per byte, from the lowest bit on. */
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

/* The eight elements whose codes fill the bytes that the writer of group `group` writes: elements
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

/* Packs a group's codes, given one per byte in the order of rwi_mx_quads, as stored in memory. */
RWI_INLINE uint64_t rwi_mx_pack_group(rw_mx_format format, rw_mx_nibbles nibbles, uint64_t word) {
    if (format == RW_MXFP4_E2M1 && nibbles == RW_MX_SPLIT)
        word |= word >> 28; /* the second four next to the first */
    else
        word = rwi_mx_pack(format, word);
    if (format == RW_MXFP4_E2M1 && nibbles == RW_MX_HIGH_FIRST)
        word = rwi_mx_swap_nibbles(word);
    return word;
}

#endif
