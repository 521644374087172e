/* Launches of kernels.
 *
 * A .hip file holds the kernels of one family, and one entry for each operation:
 *
 *   #include "gpu/dispatch.h"
 *   #include "gpu/launch.h"
 *   #include "gpu/vectors.h"
 *   #include "thing_params.h"
 *
 *   template <rw_dtype D, int VEC>
 *   static __global__ void __launch_bounds__(RWI_BLOCK)
 *   thing_kernel(rw_thing_params p, rwi_fault_sink sink) {
 *       rwi_begin_kernel();
 *       const int64_t item = rwi_item();
 *       if (item >= thing_work(&p).items)
 *           return;
 *       float x[VEC];
 *       rwi_load_vector<D>(p.in, item * VEC, x);
 *       ...
 *       rwi_store_vector<D>(p.out, item * VEC, x);
 *   }
 *
 *   extern "C" rw_status rwi_hip_thing(rwi_device *device, const rw_thing_params *p) {
 *       const rwi_launch_shape shape = rwi_launch_items(RWI_OP_thing, thing_work(p).items);
 *       return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
 *           constexpr rw_dtype D = dtype.value;
 *           return rwi_launch(device, shape, thing_kernel<D, rwi_vector_length<D>>, *p);
 *       });
 *   }
 *
 * Every kernel takes its parameters and a fault sink, by value, and calls rwi_begin_kernel() before it
 * reads or writes memory. Kernels make no assumption about
 * the wave: it is 32 or 64 lanes and does not run in lockstep.
 */
#ifndef RWI_LAUNCH_H
#define RWI_LAUNCH_H

#include "gpu/faults.h"

/* Threads of a block, where a kernel has no reason for another number. */
#define RWI_BLOCK 256

/* The dynamic shared memory of a block without an attribute: all of it on AMD, on NVIDIA 48 KiB
 * including static arrays. */
#if defined(__HIP_PLATFORM_AMD__)
#define RWI_DEFAULT_SHARED_BYTES ((size_t)64 * 1024)
#else
#define RWI_DEFAULT_SHARED_BYTES ((size_t)32 * 1024)
#endif

typedef struct rwi_launch_shape {
    rwi_op op;
    dim3 grid;
    dim3 block;
    size_t shared_bytes; /* of HIP_DYNAMIC_SHARED */
    bool again;          /* a further part of the previous launch: of the faults of both, the lowest
                            token counts */
} rwi_launch_shape;

/* One block per row (e.g. a token): kernels return where rwi_block_row() is past the last. */
static inline rwi_launch_shape rwi_launch_rows(rwi_op op, int64_t rows, dim3 block) {
    const int64_t most_blocks = 1 << 22; /* along x, so that x has fewer than 2^32 threads */
    rwi_launch_shape shape = {op, dim3(1), block, 0, false};
    shape.grid.x = (uint32_t)rwi_min(rows, most_blocks);
    shape.grid.y = (uint32_t)rwi_ceil_div(rows, most_blocks);
    return shape;
}

__device__ inline int64_t rwi_block_row() {
    return (int64_t)blockIdx.y * gridDim.x + blockIdx.x;
}

/* One line a row of blocks; its pieces are along x, so that kernels need no division. */
static inline rwi_launch_shape rwi_launch_lines(rwi_op op, int64_t lines, int64_t pieces,
                                                dim3 block) {
    const int64_t layers = rwi_ceil_div(lines, 65535);
    rwi_launch_shape shape = {op, dim3((uint32_t)pieces), block, 0, false};
    shape.grid.y = layers == 0 ? 0 : (uint32_t)rwi_ceil_div(lines, layers);
    shape.grid.z = (uint32_t)layers;
    return shape;
}

__device__ inline int64_t rwi_block_line() {
    return (int64_t)blockIdx.z * gridDim.y + blockIdx.y;
}

/* One thread per item: kernels return where rwi_item() is past the last. */
static inline rwi_launch_shape rwi_launch_items(rwi_op op, int64_t items) {
    return rwi_launch_rows(op, rwi_ceil_div(items, RWI_BLOCK), dim3(RWI_BLOCK));
}

__device__ inline int64_t rwi_item() {
    return rwi_block_row() * RWI_BLOCK + threadIdx.x;
}

/* NVIDIA GPUs from compute capability 9.0 on: a kernel may be started when all blocks of the
 * previous one run, to save the time that a start takes. This allows it for the next kernel. */
__device__ static inline void rwi_start_next_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Waits until the previous kernel has ended and what it wrote is visible. */
__device__ static inline void rwi_await_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ static inline void rwi_begin_kernel() {
    rwi_start_next_kernel();
    rwi_await_previous_kernel();
}

/* Allows a kernel much shared memory, unless that was done just before: it takes a tenth of a
 * launch. */
static inline rw_status rwi_allow_shared(rwi_hip_device *hip, const void *kernel, size_t bytes) {
    if (bytes <= RWI_DEFAULT_SHARED_BYTES ||
        (kernel == hip->large_kernel && bytes <= hip->large_bytes))
        return RW_OK;
    const rw_status status = rwi_hip_status(
        &hip->base,
        hipFuncSetAttribute(kernel, hipFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
        "hipFuncSetAttribute");
    hip->large_kernel = status == RW_OK ? kernel : nullptr;
    hip->large_bytes = bytes;
    return status;
}

/* Launches kernel(params, sink) on the device's stream. Shapes that exceed the limits of a grid
 * (2^31 - 1 blocks along x, 65535 along y and z, 2^32 threads in all) are reported by the runtime;
 * they are not clipped. */
template <typename Params>
static inline rw_status rwi_launch(rwi_device *device, const rwi_launch_shape &shape,
                                   void (*kernel)(Params, rwi_fault_sink), const Params &params) {
    rwi_hip_device *hip = (rwi_hip_device *)device;
    if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0)
        return RW_OK;
    const rwi_device_scope scope(device);
    if (scope.status != RW_OK)
        return scope.status;
    const rw_status allowed = rwi_allow_shared(hip, (const void *)kernel, shape.shared_bytes);
    if (allowed != RW_OK)
        return allowed;
    if (!shape.again)
        hip->launches++;
    const rwi_fault_sink sink = {hip->record, hip->raised_on_device, hip->launches, shape.op};
#if defined(__HIP_PLATFORM_NVIDIA__)
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = hip->starts_early;
    const cudaLaunchConfig_t config = {shape.grid,  shape.block, shape.shared_bytes,
                                       hip->stream, &early,      1};
    (void)cudaLaunchKernelEx(&config, kernel, params, sink);
#else
    hipLaunchKernelGGL(kernel, shape.grid, shape.block, shape.shared_bytes, hip->stream, params,
                       sink);
#endif
    return rwi_hip_status(device, hipGetLastError(), "a kernel launch");
}

#endif
