/* HIP's NVIDIA platform, limited to the functions that this project uses, as names for the CUDA
 * runtime's functions. HIP's own headers for it do not compile against CUDA 13. */
#ifndef RWI_NVIDIA_HIP_RUNTIME_H
#define RWI_NVIDIA_HIP_RUNTIME_H

#include <cuda_runtime.h>

#define __HIP_PLATFORM_NVIDIA__ 1

/* ---- launches and shared memory ---- */

#define hipLaunchKernelGGL(kernel, grid, block, shared_bytes, stream, ...)                         \
    (kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

#define HIP_DYNAMIC_SHARED(type, name) extern __shared__ type name[];

/* ---- waves: HIP's functions have no mask, every lane that has not exited takes part ---- */

#define RWI_EVERY_LANE 0xFFFFFFFFu

template <typename T> __device__ inline T __shfl(T value, int lane, int width = warpSize) {
    return __shfl_sync(RWI_EVERY_LANE, value, lane, width);
}

template <typename T>
__device__ inline T __shfl_up(T value, unsigned distance, int width = warpSize) {
    return __shfl_up_sync(RWI_EVERY_LANE, value, distance, width);
}

template <typename T>
__device__ inline T __shfl_down(T value, unsigned distance, int width = warpSize) {
    return __shfl_down_sync(RWI_EVERY_LANE, value, distance, width);
}

template <typename T> __device__ inline T __shfl_xor(T value, int mask, int width = warpSize) {
    return __shfl_xor_sync(RWI_EVERY_LANE, value, mask, width);
}

/* Macros, since CUDA still declares functions with these names. */
#define __ballot(predicate) ((unsigned long long)__ballot_sync(RWI_EVERY_LANE, predicate))
#define __any(predicate) __any_sync(RWI_EVERY_LANE, predicate)
#define __all(predicate) __all_sync(RWI_EVERY_LANE, predicate)

__device__ inline unsigned __lane_id(void) {
    unsigned lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

/* ---- the runtime ---- */

#define hipError_t cudaError_t
#define hipSuccess cudaSuccess
#define hipErrorOutOfMemory cudaErrorMemoryAllocation
#define hipErrorInvalidValue cudaErrorInvalidValue
#define hipGetLastError cudaGetLastError
#define hipGetErrorString cudaGetErrorString

#define hipDeviceProp_t cudaDeviceProp
#define hipGetDeviceCount cudaGetDeviceCount
#define hipGetDeviceProperties cudaGetDeviceProperties
#define hipGetDevice cudaGetDevice
#define hipSetDevice cudaSetDevice

#define hipFuncSetAttribute cudaFuncSetAttribute
#define hipFuncAttributeMaxDynamicSharedMemorySize cudaFuncAttributeMaxDynamicSharedMemorySize

#define hipMalloc cudaMalloc
#define hipFree cudaFree
#define hipHostMalloc cudaHostAlloc
#define hipHostMallocMapped cudaHostAllocMapped
#define hipHostGetDevicePointer cudaHostGetDevicePointer
#define hipHostFree cudaFreeHost
#define hipMemset cudaMemset
#define hipMemsetAsync cudaMemsetAsync
#define hipMemcpyAsync cudaMemcpyAsync
#define hipMemcpyKind cudaMemcpyKind
#define hipMemcpyHostToDevice cudaMemcpyHostToDevice
#define hipMemcpyDeviceToHost cudaMemcpyDeviceToHost
#define hipMemcpyDeviceToDevice cudaMemcpyDeviceToDevice

#define hipStream_t cudaStream_t
#define hipStreamSynchronize cudaStreamSynchronize

#endif
