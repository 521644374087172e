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

/* A tensor of 16-bit elements, and the box of it that a copy transfers. */
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

/* What a map describes: a tensor of four axes, the last one, columns, of stride 1, and the box of
 * RWI_BOX_COLUMNS columns and box[] of the other axes, at most 256 of each. `data` and the strides,
 * in elements, are multiples of 16 bytes. */
struct rwi_tensor_axes {
    rw_dtype dtype; /* RW_F16 or RW_BF16 */
    const void *data;
    int64_t columns;
    int64_t size[3]; /* of the other axes, the last one first */
    int64_t stride[3];
    int box[3];
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
                                            const rwi_tensor_axes &axes) {
#if defined(__HIP_PLATFORM_NVIDIA__)
    static rwi_encode_tensor encode; /* the same for every device */
    if (!encode) {
        const rw_status status = rwi_find_encode_tensor(device, &encode);
        if (status != RW_OK)
            return status;
    }
    cuuint64_t sizes[4] = {(cuuint64_t)axes.columns}, bytes[3];
    cuuint32_t box[4] = {RWI_BOX_COLUMNS};
    const cuuint32_t steps[4] = {1, 1, 1, 1};
    for (int i = 0; i < 3; i++) {
        sizes[1 + i] = (cuuint64_t)axes.size[i];
        bytes[i] = axes.size[i] > 1 ? 2 * (cuuint64_t)axes.stride[i] : 16;
        box[1 + i] = (cuuint32_t)axes.box[i];
    }
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
    *map = {axes.data, {axes.columns}, {}, {}};
    for (int i = 0; i < 3; i++) {
        map->size[1 + i] = axes.size[i];
        map->stride[i] = axes.stride[i];
        map->box[i] = axes.box[i];
    }
    return RW_OK;
#else
    (void)device, (void)map, (void)axes;
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

/* Begins the copy of the box at `column` and `at` to `to`, a multiple of 1024 bytes. Its rows of 128
 * bytes are consecutive, those of the last axis first; their 16-byte pieces are swapped by the row's
 * number. What is outside of the tensor is 0. */
__device__ static __forceinline__ void rwi_tensor_copy(void *to, const rwi_tensor_map &map,
                                                       int column, int at0, int at1, int at2,
                                                       uint64_t *barrier) {
#if defined(__CUDA_ARCH__)
    const uint32_t shared = (uint32_t)__cvta_generic_to_shared(to);
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(barrier);
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared),
                 "l"(&map), "r"(column), "r"(at0), "r"(at1), "r"(at2), "r"(at)
                 : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_tensor_copy(to, map, {column, at0, at1, at2}, barrier);
#else
    (void)to, (void)map, (void)column, (void)at0, (void)at1, (void)at2, (void)barrier;
#endif
}

/* After the barriers were initialized: makes them known to the unit that copies. */
__device__ static __forceinline__ void rwi_phases_begin() {
#if defined(__CUDA_ARCH__)
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

#endif
