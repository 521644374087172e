/* 16 bytes from global to shared memory, for .hip files: past the registers and in the background
 * where the hardware can, else at once. */
#ifndef RWI_ASYNC_COPY_H
#define RWI_ASYNC_COPY_H

#include "launch.h"

/* Zeros where `inside` is false, and `from` is not read then. Both lie on 16 bytes. */
__device__ static inline void rwi_async_copy_16(void *to, const void *from, bool inside) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const uint32_t shared = (uint32_t)__cvta_generic_to_shared(to);
    const int bytes = inside ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from),
                 "r"(bytes)
                 : "memory");
#else
    *(uint4 *)to = inside ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
#endif
}

/* Waits for this thread's copies; a barrier makes them visible to others. */
__device__ static inline void rwi_async_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

#endif
