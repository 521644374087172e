/* Copies of 16 bytes from global to shared memory, for .hip files: asynchronous and without
 * registers where the hardware supports it, else synchronous. */
#ifndef RWI_ASYNC_COPY_H
#define RWI_ASYNC_COPY_H

#include "shared/kernel.h"

/* Both addresses are multiples of 16 bytes. */
__device__ static inline void rwi_async_copy_16(void *to, const void *from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const uint32_t shared = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
#elif defined(__HIP_PLATFORM_AMD__) && defined(__HIP_DEVICE_COMPILE__)
    /* The pointer may come from shared memory; then the compiler does not know it to be global. */
    typedef uint32_t words __attribute__((ext_vector_type(4)));
    typedef const __attribute__((address_space(1))) words *global_words;
    *(words *)to = *(global_words)(uintptr_t)from;
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_cp_async_16(to, from, true);
#else
    *(uint4 *)to = *(const uint4 *)from;
#endif
}

/* Zeros where `inside` is false; `from` is not read then. */
__device__ static inline void rwi_async_copy_16(void *to, const void *from, bool inside) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const uint32_t shared = (uint32_t)__cvta_generic_to_shared(to);
    const int bytes = inside ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from),
                 "r"(bytes)
                 : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_cp_async_16(to, from, inside);
#else
    if (inside)
        rwi_async_copy_16(to, from);
    else
        *(uint4 *)to = make_uint4(0, 0, 0, 0);
#endif
}

/* Ends a group of this thread's copies. */
__device__ static inline void rwi_async_commit() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_cp_async_commit();
#endif
}

/* Waits for all of this thread's groups but the last LEFT. */
template <int LEFT> __device__ static inline void rwi_async_wait_groups() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_cp_async_wait(LEFT);
#endif
}

/* Waits for this thread's copies; a barrier makes them visible to other threads. */
__device__ static inline void rwi_async_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_cp_async_wait_all();
#endif
}

#endif
