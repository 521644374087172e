/* Version, status, dtype and tensor: the types that every other header uses. */
#ifndef ROPEWALK_BASE_H
#define ROPEWALK_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RW_API __attribute__((visibility("default")))
#else
#define RW_API
#endif

/* The version of these headers, by semantic versioning. The build reads it from here. */
#define RW_VERSION_MAJOR 0
#define RW_VERSION_MINOR 1
#define RW_VERSION_PATCH 0
#define RW_VERSION_NUMBER (RW_VERSION_MAJOR * 10000 + RW_VERSION_MINOR * 100 + RW_VERSION_PATCH)

/* The version of the library that is running, e.g. "0.1.0". */
RW_API const char *rw_version(void);

/* The same as a number, major * 10000 + minor * 100 + patch, e.g. 100 for 0.1.0. */
RW_API int32_t rw_version_number(void);

/* The version of the binary interface of these headers. It is incremented when a struct, an
 * enumeration or a function changes incompatibly, so that programs must be rebuilt. */
#define RW_ABI_VERSION 1

/* RW_ABI_VERSION of the library that is running. A binding must compare it with the version that it
 * was written for before it calls any other function. */
RW_API int32_t rw_abi_version(void);

/* The result of every function that can fail. RW_OK is 0; every other status comes with an error
 * message. */
typedef enum rw_status {
    RW_OK = 0,
    RW_INVALID_ARGUMENT,    /* an argument is invalid; nothing was written */
    RW_OUT_OF_RANGE,        /* a position id is outside the table; its token was not written */
    RW_UNSUPPORTED,         /* the backend does not support this operation or this dtype */
    RW_OUT_OF_MEMORY,       /* host or device memory is exhausted */
    RW_BACKEND_UNAVAILABLE, /* the requested backend is not usable on this host */
    RW_DEVICE_ERROR         /* the device's runtime reported an error */
} rw_status;

/* The name of a status, e.g. "RW_OUT_OF_RANGE"; "unknown status" for an invalid value. */
RW_API const char *rw_status_name(rw_status status);

/* An error message of one sentence: the operation, the argument, its value and the valid values. */
typedef struct rw_message {
    char text[256];
} rw_message;

/* Element types. Data: f32, f16, bf16. Ids and offsets: i32, i64. Packed formats and masks: u8. KV
 * caches also: the 8-bit floats of OCP's OFP8. */
typedef enum rw_dtype {
    RW_F32 = 0, /* IEEE 754 binary32 */
    RW_F16,     /* IEEE 754 binary16 */
    RW_BF16,    /* the upper 16 bits of binary32 */
    RW_I32,
    RW_I64,
    RW_U8,
    RW_F8_E4M3, /* "fn": no infinity, NaN S.1111.111, at most 448 */
    RW_F8_E5M2  /* infinity S.11111.00, at most 57344 */
} rw_dtype;

/* Bindings pass every enumeration as 32 bits: do not compile with -fshort-enums, which may make
 * enumerations narrower. */
#ifdef __cplusplus
static_assert(sizeof(rw_dtype) == 4, "enumerations are 32 bits wide, without -fshort-enums");
#else
_Static_assert(sizeof(rw_dtype) == 4, "enumerations are 32 bits wide, without -fshort-enums");
#endif

/* "f32", "f16", ...; "unknown dtype" for an invalid value. */
RW_API const char *rw_dtype_name(rw_dtype dtype);

/* Bytes per element; 0 for an unknown dtype. */
RW_API size_t rw_dtype_size(rw_dtype dtype);

#define RW_MAX_RANK 4

/* A view of memory that the caller owns.
 *
 * data    the first element, aligned to its dtype, in memory of the context's device; may be NULL
 *         if an axis has length 0
 * rank    number of axes; 0 means "no tensor": a zeroed struct is an absent argument
 * shape   elements along each axis, in the logical order that the operation defines
 * stride  elements (not bytes) between neighbours along each axis; may be negative. The last axis
 *         of tensors of floats and of u8, except of an LSE, must have stride 1 if it is longer
 *         than 1
 *
 * All operations use the same logical order of axes:
 *
 *   q, k, v and attention output    [batch, seq, heads, head_dim]
 *   the same, packed                [tokens, heads, head_dim], a batch of 1
 *   KV cache                        [batch, max_seq, kv_heads, head_dim]
 *   paged KV cache                  [pages, page_size, kv_heads, head_dim]
 *   scores, masks, weights, biases  [batch, heads, seq_q, seq_k]
 *   LSE                             [batch, heads, seq_q]
 *
 * The memory layouts BSHD, BHSD, SBHD and packed THD differ only in strides: create a view in
 * memory order with rw_tensor_contiguous(), then permute its axes to the logical order with
 * rw_tensor_transpose().
 */
typedef struct rw_tensor {
    void *data;
    rw_dtype dtype;
    int32_t rank;
    int64_t shape[RW_MAX_RANK];
    int64_t stride[RW_MAX_RANK];
} rw_tensor;

/* A row-major view over `data`; `shape` has `rank` entries, at most RW_MAX_RANK. */
RW_API rw_tensor rw_tensor_contiguous(void *data, rw_dtype dtype, int32_t rank,
                                      const int64_t *shape);

/* The same memory with two axes exchanged, e.g. (1, 2) gives a BSHD view of BHSD storage. */
RW_API rw_tensor rw_tensor_transpose(rw_tensor tensor, int32_t axis_a, int32_t axis_b);

#ifdef __cplusplus
}
#endif
#endif
