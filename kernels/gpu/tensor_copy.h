/* Copies of boxes of a tensor from global to shared memory by a unit of its own (NVIDIA's TMA, from
 * Hopper on): one thread begins a copy, which ends a phase of a barrier. Source: NVIDIA's PTX ISA,
 * cp.async.bulk.tensor, and the CUDA driver API, cuTensorMapEncodeTiled. */
#ifndef RWI_TENSOR_COPY_H
#define RWI_TENSOR_COPY_H

#include "hip/hip_device.h"

#include "gpu/block_barriers.h"

#if defined(__HIP_PLATFORM_NVIDIA__)
#include <cuda.h>
#endif

/* A kernel parameter that is read where it lies. */
#if defined(__CUDACC__)
#define RWI_GRID_CONSTANT __grid_constant__
#else
#define RWI_GRID_CONSTANT
#endif

/* A tensor of 16-bit elements and the box of it that a copy transfers: 64 columns of `rows` rows of
 * a matrix. Axes are, from the last one on: columns, rows, heads, batch. */
#if defined(__HIP_PLATFORM_NVIDIA__)
typedef CUtensorMap rwi_tensor_map;
#elif defined(__HIP_PLATFORM_EMULATED__)
typedef hip_emulator_tensor_map rwi_tensor_map;
#else
struct rwi_tensor_map {
    int unused;
};
#endif

#define RWI_BOX_COLUMNS 64
#define RWI_BOX_MAX_ROWS 256

/* What a map describes. `data` and the strides, in elements, are multiples of 16 bytes; sizes are at
 * most INT32_MAX. */
struct rwi_tensor_axes {
    rw_dtype dtype; /* RW_F16 or RW_BF16 */
    const void *data;
    int64_t columns;
    int64_t size[3];   /* batch, rows, heads */
    int64_t stride[3]; /* of the same */
};

/* Whether a map of it can be made. */
static inline bool rwi_tensor_has_map(const rwi_tensor_axes &axes) {
    for (int i = 0; i < 3; i++) {
        if (axes.size[i] < 1 || axes.size[i] > INT32_MAX)
            return false;
        const int64_t stride = axes.stride[i];
        if (axes.size[i] > 1 && (stride < 8 || stride % 8 != 0 || stride >= (int64_t)1 << 38))
            return false;
    }
    return (uintptr_t)axes.data % 16 == 0;
}

#if defined(__HIP_PLATFORM_NVIDIA__)
typedef CUresult (*rwi_encode_tensor)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                      const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                      const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                      CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The driver's function, found through the runtime: the module is not linked to the driver. */
static inline rw_status rwi_find_encode_tensor(rwi_device *device, rwi_encode_tensor *encode) {
    void *found = NULL;
    cudaDriverEntryPointQueryResult result;
    const rw_status status =
        rwi_hip_status(device,
                       cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                        cudaEnableDefault, &result),
                       "cudaGetDriverEntryPointByVersion of cuTensorMapEncodeTiled");
    *encode = (rwi_encode_tensor)found;
    return status;
}
#endif

static inline rw_status rwi_tensor_map_make(rwi_device *device, rwi_tensor_map *map,
                                            const rwi_tensor_axes &axes, int rows) {
#if defined(__HIP_PLATFORM_NVIDIA__)
    static rwi_encode_tensor encode; /* the same for every device */
    if (!encode) {
        const rw_status status = rwi_find_encode_tensor(device, &encode);
        if (status != RW_OK)
            return status;
    }
    const cuuint64_t sizes[4] = {(cuuint64_t)axes.columns, (cuuint64_t)axes.size[1],
                                 (cuuint64_t)axes.size[2], (cuuint64_t)axes.size[0]};
    cuuint64_t bytes[3];
    for (int i = 0; i < 3; i++) {
        const int axis = (i + 1) % 3; /* rows, heads, batch */
        bytes[i] = axes.size[axis] > 1 ? 2 * (cuuint64_t)axes.stride[axis] : 16;
    }
    const cuuint32_t box[4] = {RWI_BOX_COLUMNS, (cuuint32_t)rows, 1, 1}, steps[4] = {1, 1, 1, 1};
    const CUresult result = encode(
        map,
        axes.dtype == RW_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        4, (void *)axes.data, sizes, bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return rwi_hip_status(device, result == CUDA_SUCCESS ? hipSuccess : hipErrorInvalidValue,
                          "cuTensorMapEncodeTiled");
#elif defined(__HIP_PLATFORM_EMULATED__)
    (void)device;
    *map = {axes.data,
            {axes.columns, axes.size[1], axes.size[2], axes.size[0]},
            {axes.stride[1], axes.stride[2], axes.stride[0]},
            rows};
    return RW_OK;
#else
    (void)device, (void)map, (void)axes, (void)rows;
    return RW_UNSUPPORTED;
#endif
}

/* Arrives at a barrier, whose phase then also waits for copies of `bytes` bytes. */
__device__ static __forceinline__ void rwi_phase_expect(uint64_t *barrier, int bytes) {
#if defined(__CUDA_ARCH__)
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(barrier);
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes)
                 : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_mbarrier_expect(barrier, bytes);
#else
    (void)barrier, (void)bytes;
#endif
}

/* Begins the copy of a box to `to`, a multiple of 1024 bytes: its rows of 128 bytes, whose 16-byte
 * pieces are swapped by the row's number. What is outside of the tensor is 0. */
__device__ static __forceinline__ void rwi_tensor_copy(void *to, const rwi_tensor_map &map,
                                                       int column, int row, int head, int b,
                                                       uint64_t *barrier) {
#if defined(__CUDA_ARCH__)
    const uint32_t shared = (uint32_t)__cvta_generic_to_shared(to);
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(barrier);
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared),
                 "l"(&map), "r"(column), "r"(row), "r"(head), "r"(b), "r"(at)
                 : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_tensor_copy(to, map, column, row, head, b, barrier);
#else
    (void)to, (void)map, (void)column, (void)row, (void)head, (void)b, (void)barrier;
#endif
}

/* After the barriers were initialized: makes them known to the unit that copies. */
__device__ static __forceinline__ void rwi_phases_begin() {
#if defined(__CUDA_ARCH__)
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

#endif
