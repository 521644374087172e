/* Control of the place where a compiler computes a value. */
#ifndef RWI_REGISTERS_H
#define RWI_REGISTERS_H

#include "shared/kernel.h"

/* Whether kernel parameters are operands of instructions. On AMD they need scalar registers: kernels
 * with many parameters read them from a copy in shared memory. */
#if defined(__HIP_PLATFORM_NVIDIA__)
#define RWI_PARAMETERS_NEAR true
#else
#define RWI_PARAMETERS_NEAR false
#endif

/* Copies a struct by `count` threads, `thread` of them: loaded by one thread, all of it would be in
 * scalar registers at once. */
template <typename Params>
__device__ static __forceinline__ void rwi_copy_words(Params &to, const Params &from, int thread,
                                                      int count) {
    static_assert(sizeof(Params) % sizeof(uint32_t) == 0, "copied by words");
    for (int n = thread; n < (int)(sizeof(Params) / sizeof(uint32_t)); n += count)
        ((uint32_t *)&to)[n] = ((const uint32_t *)&from)[n];
}

/* That copy of parameters, by all threads of a block of one dimension. */
template <typename Params>
__device__ static __forceinline__ void rwi_copy_parameters(Params &to, const Params &from) {
    rwi_copy_words(to, from, (int)threadIdx.x, (int)blockDim.x);
    __syncthreads();
}

/* Returns x, computed at this point: the compiler neither delays the computation nor moves
 * dependent ones ahead of a surrounding loop, where they would occupy registers. */
__device__ inline float rwi_computed_here(float x) {
#if defined(__HIP_DEVICE_COMPILE__) && __HIP_DEVICE_COMPILE__
    asm volatile("" : "+v"(x));
#elif defined(__CUDA_ARCH__)
    asm volatile("" : "+f"(x));
#endif
    return x;
}

__device__ inline int rwi_computed_here(int x) {
#if defined(__HIP_DEVICE_COMPILE__) && __HIP_DEVICE_COMPILE__
    asm volatile("" : "+v"(x));
#elif defined(__CUDA_ARCH__)
    asm volatile("" : "+r"(x));
#endif
    return x;
}

template <typename T> __device__ inline T *rwi_computed_here(T *x) {
#if defined(__HIP_DEVICE_COMPILE__) && __HIP_DEVICE_COMPILE__
    asm volatile("" : "+v"(x));
#elif defined(__CUDA_ARCH__)
    asm volatile("" : "+l"(x));
#endif
    return x;
}

/* A value that all lanes of a wave share; the compiler may then keep it once for the wave. */
__device__ inline int rwi_uniform(int x) {
#if defined(__CUDA_ARCH__)
    return __shfl_sync(0xffffffffu, x, 0);
#else
    return x;
#endif
}

#endif
