/* Version, status, dtype and tensor: the words that every other header uses. */
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

/* The binary interface of these headers: raised when a struct, an enumeration or a function changes
 * so that a program built before no longer fits. */
#define RW_ABI_VERSION 1

/* RW_ABI_VERSION of the library that is running: a binding compares it with the one that it was
 * written for before it calls anything else. */
RW_API int32_t rw_abi_version(void);

/* What every fallible function returns. RW_OK is 0; anything else comes with a sentence. */
typedef enum rw_status {
    RW_OK = 0,
    RW_INVALID_ARGUMENT,    /* an argument breaks the contract; nothing was written */
    RW_OUT_OF_RANGE,        /* a position id lies outside the table; its token was left untouched */
    RW_UNSUPPORTED,         /* the backend lacks this operation or this dtype */
    RW_OUT_OF_MEMORY,       /* host or device memory ran out */
    RW_BACKEND_UNAVAILABLE, /* the backend that was asked for cannot be had on this host */
    RW_DEVICE_ERROR         /* the device's runtime reported an error */
} rw_status;

/* The status's name, e.g. "RW_OUT_OF_RANGE"; "unknown status" for any other number. */
RW_API const char *rw_status_name(rw_status status);

/* One sentence for a person: which operation, which argument, its value, what was expected. */
typedef struct rw_message {
    char text[256];
} rw_message;

/* Element types. Data: f32, f16, bf16. Ids and offsets: i32, i64. Packed formats: u8. */
typedef enum rw_dtype {
    RW_F32 = 0, /* IEEE 754 binary32 */
    RW_F16,     /* IEEE 754 binary16 */
    RW_BF16,    /* the upper 16 bits of binary32 */
    RW_I32,
    RW_I64,
    RW_U8
} rw_dtype;

/* Bindings pass every enumeration as 32 bits: compile without -fshort-enums, which would make them
 * as short as their values. */
#ifdef __cplusplus
static_assert(sizeof(rw_dtype) == 4, "enumerations are 32 bits wide, without -fshort-enums");
#else
_Static_assert(sizeof(rw_dtype) == 4, "enumerations are 32 bits wide, without -fshort-enums");
#endif

/* "f32", "f16", ...; "unknown dtype" for any other number. */
RW_API const char *rw_dtype_name(rw_dtype dtype);

/* Bytes an element; 0 for an unknown dtype. */
RW_API size_t rw_dtype_size(rw_dtype dtype);

#define RW_MAX_RANK 4

/* A view of memory that the caller owns.
 *
 * data    the first element, aligned to its dtype, in memory of the context's device; may be NULL
 *         where an axis is 0 long
 * rank    number of axes; 0 means "no tensor": a zeroed struct is an absent argument
 * shape   elements along each axis, in the logical order that the operation fixes
 * stride  elements (not bytes) between neighbours along each axis: any, also negative, but the last
 *         axis of f32, f16, bf16 and u8 tensors has stride 1 where it is longer than 1
 *
 * One logical order serves every operation:
 *
 *   q, k, v and attention's output  [batch, seq, heads, head_dim]
 *   the same, packed                [tokens, heads, head_dim], a batch of 1
 *   KV cache                        [batch, max_seq, kv_heads, head_dim]
 *   paged KV cache                  [pages, page_size, kv_heads, head_dim]
 *   scores, masks, weights, biases  [batch, heads, seq_q, seq_k]
 *   LSE                             [batch, heads, seq_q]
 *
 * BSHD, BHSD, SBHD and packed THD in memory are strides of it: lay out with rw_tensor_contiguous()
 * in memory order, then rw_tensor_transpose() to logical order.
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

/* The same memory with two axes exchanged, e.g. (1, 2) turns BHSD storage into a BSHD view. */
RW_API rw_tensor rw_tensor_transpose(rw_tensor tensor, int32_t axis_a, int32_t axis_b);

#ifdef __cplusplus
}
#endif
#endif
