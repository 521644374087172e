/* Microscaling (MX) formats: OCP Microscaling Formats (MX) Specification 1.0.
 *
 * 32 consecutive elements share one scale, a byte E in E8M0 format: X = 2^(E - 127), and NaN for E
 * = 255.
 */
#ifndef ROPEWALK_MX_H
#define ROPEWALK_MX_H

#include <ropewalk/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Elements of a block. */
#define RW_MX_BLOCK 32

/* The format of elements, and the size of a block's codes. */
typedef enum rw_mx_format {
    RW_MXFP4_E2M1 = 0, /* 16 bytes: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives */
    RW_MXFP6_E2M3,     /* 24 bytes: up to 7.5 */
    RW_MXFP6_E3M2,     /* 24 bytes: up to 28 */
    RW_MXFP8_E4M3,     /* 32 bytes: up to 448; S.1111.111 is NaN, no infinity */
    RW_MXFP8_E5M2      /* 32 bytes: up to 57344; infinity and NaN as in IEEE 754 */
} rw_mx_format;

/* The elements in the two halves of a byte of MXFP4; byte i holds
 *   RW_MX_LOW_FIRST   elements 2i (low nibble) and 2i + 1   gpt-oss
 *   RW_MX_HIGH_FIRST  elements 2i (high nibble) and 2i + 1
 *   RW_MX_SPLIT       elements i (low nibble) and i + 16    ggml's block_mxfp4
 * 6-bit codes are packed without gaps, the first one in the lowest bits of the first byte.
 */
typedef enum rw_mx_nibbles {
    RW_MX_LOW_FIRST = 0,
    RW_MX_HIGH_FIRST,
    RW_MX_SPLIT
} rw_mx_nibbles;

/* The memory layout of blocks. */
typedef struct rw_mx_layout {
    rw_mx_format format;
    rw_mx_nibbles nibbles; /* RW_MXFP4_E2M1 only */
    bool scale_in_front;   /* a block starts with its scale (ggml); else scales are a separate
                            * tensor */
} rw_mx_layout;

/* The size of a block in bytes: its codes and, if it is in front, its scale. 0 for an invalid
 * layout. */
RW_API int64_t rw_mx_block_bytes(const rw_mx_layout *layout);

/* Arguments:
 *
 * blocks  u8 [..., blocks, bytes], rank 2 to 4, with bytes = rw_mx_block_bytes(); any address and
 *         any strides except that of the last axis, which must be 1
 * scales  u8 [..., blocks], if they are separate; else absent
 * values  [..., blocks, 32], f32, f16 or bf16; must not overlap blocks or scales
 *
 * The leading axes must agree. A matrix of rows * columns is [rows, columns / 32, 32].
 */
typedef struct rw_mx_args {
    rw_mx_layout layout;
    rw_tensor blocks;
    rw_tensor scales;
    rw_tensor values;
} rw_mx_args;

/* values = element * X, exact in f32 if it is less than 2^128, else Inf; rounded once to f16 and
 * bf16. Values are not clamped; subnormals and -0 are kept, and E = 255 makes the whole block NaN.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_mx_dequantize(rw_context *context, const rw_mx_args *args);

/* Quantizes as in the specification's section 6.3: E - 127 = floor(log2(max |value|)) - emax, at
 * least -127, with emax the exponent of the format's largest number; elements are value / X,
 * rounded to nearest even, saturating at the largest number.
 *
 * A block of zeros has E = 0. A block that contains Inf or NaN has E = 255 and codes of 0: the
 * whole block is NaN, since it has no scale. Writes blocks and scales. Otherwise as
 * rw_mx_dequantize().
 */
RW_API rw_status rw_mx_quantize(rw_context *context, const rw_mx_args *args);

#ifdef __cplusplus
}
#endif
#endif
