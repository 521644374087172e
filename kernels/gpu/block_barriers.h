/* Barriers between groups of a block's threads, for kernels whose waves have different roles:
 * NVIDIA's, from Hopper on, and the emulator's. On AMD such kernels are compiled for no device. */
#ifndef RWI_BLOCK_BARRIERS_H
#define RWI_BLOCK_BARRIERS_H

#include "shared/kernel.h"

/* Barrier `id`, 1 to 15, of `threads` threads in all, a multiple of the wave. `arrive` does not
 * wait. */
__device__ static __forceinline__ void rwi_barrier_sync(int id, int threads) {
#if defined(__CUDA_ARCH__)
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_bar_sync(id, threads);
#else
    (void)id, (void)threads;
#endif
}

__device__ static __forceinline__ void rwi_barrier_arrive(int id, int threads) {
#if defined(__CUDA_ARCH__)
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_bar_arrive(id, threads);
#else
    (void)id, (void)threads;
#endif
}

/* A barrier of the lanes of a wave. */
__device__ static __forceinline__ void rwi_wave_sync() {
#if defined(__CUDA_ARCH__)
    asm volatile("bar.warp.sync 0xffffffff;" ::: "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    (void)__all(1);
#endif
}

/* A barrier in shared memory, whose phases 0, 1, 2, ... each end when `count` threads have arrived.
 */
__device__ static __forceinline__ void rwi_phase_init(uint64_t *barrier, int count) {
#if defined(__CUDA_ARCH__)
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(barrier);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_mbarrier_init(barrier, count);
#else
    (void)barrier, (void)count;
#endif
}

__device__ static __forceinline__ void rwi_phase_arrive(uint64_t *barrier) {
#if defined(__CUDA_ARCH__)
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(barrier);
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_mbarrier_arrive(barrier);
#else
    (void)barrier;
#endif
}

/* Waits until phase `phase` has ended; the phase after it has not. */
__device__ static __forceinline__ void rwi_phase_wait(uint64_t *barrier, int phase) {
#if defined(__CUDA_ARCH__)
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(barrier);
    asm volatile("{ .reg .pred p;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra done;\n"
                 "bra again;\n"
                 "done:\n}" ::"r"(at),
                 "r"(phase & 1)
                 : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
    hip_emulator_mbarrier_wait(barrier, phase & 1);
#else
    (void)barrier, (void)phase;
#endif
}

/* Changes the registers of each thread of a warpgroup to COUNT, fewer (TAKE: more) than it was
 * launched with. Every thread of the warpgroup must call it. */
template <int COUNT, bool TAKE> __device__ static __forceinline__ void rwi_set_registers() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if constexpr (TAKE)
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
    else
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
#endif
}

#endif
