/* Common to C and HIP kernels: function qualifiers, work sizes, faults.
 *
 * Headers in this folder compile as C11 and as HIP C++; their functions are formulas that run on
 * the host and on the device alike.
 */
#ifndef RWI_KERNEL_H
#define RWI_KERNEL_H

#include <ropewalk/context.h>

#include <math.h>
#include <string.h>

#ifdef __cplusplus
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>
#endif

#ifdef __cplusplus
#define RWI_INLINE __host__ __device__ static inline __attribute__((always_inline))
#else
#define RWI_INLINE static inline __attribute__((always_inline))
#endif

/* The division of an operation: independent items, 0 .. items-1, and the cost of one, from which a
 * backend decides whether several threads are worthwhile. */
typedef struct rwi_work {
    int64_t items;
    int64_t bytes_per_item;
} rwi_work;

/* A number that is out of range. */
typedef struct rwi_bad_id {
    int64_t id;
    rw_fault_kind kind;
} rwi_bad_id;

RWI_INLINE rwi_bad_id rwi_bad(rw_fault_kind kind, int64_t id) {
    rwi_bad_id bad = {id, kind};
    return bad;
}

/* Where a kernel reports it; each backend has its own record behind it. */
typedef struct rwi_fault_sink rwi_fault_sink;

#ifndef __cplusplus
/* CPU: keeps the lowest token of the first operation that faulted. Safe from any thread. */
void rwi_cpu_fault_raise(rwi_fault_sink *sink, int64_t token, rwi_bad_id bad);

/* The name of a CPU kernel in this compilation: rope -> rope_cpu_v3. */
#define RWI_CPU_KERNEL(op) RWI_CONCAT(op##_cpu_, RWI_ISA)
#define RWI_CONCAT(a, b) RWI_CONCAT_EXPANDED(a, b)
#define RWI_CONCAT_EXPANDED(a, b) a##b
#endif

/* A pointer to global memory. A GPU's compiler assumes that a pointer read from shared memory may
 * point to either, and generates slower accesses. */
RWI_INLINE void *rwi_global(const void *pointer) {
#if defined(__HIP_PLATFORM_AMD__) && defined(__HIP_DEVICE_COMPILE__) && __HIP_DEVICE_COMPILE__
    return (void *)(__attribute__((address_space(1))) void *)(uintptr_t)pointer;
#else
    return (void *)(uintptr_t)pointer;
#endif
}

RWI_INLINE int64_t rwi_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

RWI_INLINE int64_t rwi_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

RWI_INLINE int64_t rwi_ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Splits index = row * length + column. On a GPU a 64-bit division costs as much as several 32-bit
 * ones. */
RWI_INLINE void rwi_split_index(int64_t index, int64_t length, int64_t *row, int64_t *column) {
    if (((index | length) >> 32) == 0) {
        *row = (uint32_t)index / (uint32_t)length;
        *column = (uint32_t)index % (uint32_t)length;
    } else {
        *row = index / length;
        *column = index % length;
    }
}

RWI_INLINE uint32_t rwi_f32_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

RWI_INLINE float rwi_f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
