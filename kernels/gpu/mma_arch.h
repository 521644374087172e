/* The matrix unit of each architecture, for mma.h and the units; only this file names
 * architectures. An architecture that is not listed here is a compile error, so that it is not
 * built without its matrix unit by mistake. */
#ifndef RWI_MMA_ARCH_H
#define RWI_MMA_ARCH_H

/* NATIVE: the instructions of the architecture that a kernel is compiled for. The emulator supports
 * all units. */
enum rwi_mma_unit {
    RWI_MMA_NATIVE,
    RWI_MMA_FMA_32, /* no matrix unit: multiply and add, in waves of 32 or 64 */
    RWI_MMA_FMA_64,
    RWI_MMA_MFMA,
    RWI_MMA_WMMA,
    RWI_MMA_WMMA12,
    RWI_MMA_SYNC,
    RWI_MMA_TF32, /* f32 as three products of halves: only on request */
    RWI_MMA_WGMMA
};

/* RWI_HAS_...: available instructions (RWI_HAS_WGMMA on NVIDIA: the module holds code of sm_90a,
 * which has them, beside code of others; the build defines it). RWI_MMA_NATIVE_HALF: the unit for
 * f16 and bf16. */
#if defined(__HIP_PLATFORM_EMULATED__)
#define RWI_HAS_MFMA
#define RWI_HAS_WMMA
#define RWI_HAS_WMMA12
#define RWI_HAS_MMA_SYNC
#define RWI_HAS_WGMMA
#define RWI_MMA_NATIVE_HALF RWI_MMA_FMA_32
#elif defined(__HIP_PLATFORM_NVIDIA__)
#define RWI_MMA_NATIVE_HALF RWI_MMA_SYNC
#if defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ < 800
#error "mma.sync for f16 and bf16 needs sm_80 or later"
#endif
#define RWI_HAS_MMA_SYNC
#endif
#elif defined(__gfx90a__) || defined(__gfx940__) || defined(__gfx941__) || defined(__gfx942__) ||  \
    defined(__gfx950__)
#define RWI_HAS_MFMA
#define RWI_MMA_NATIVE_HALF RWI_MMA_MFMA
#elif defined(__gfx1100__) || defined(__gfx1101__) || defined(__gfx1102__) ||                      \
    defined(__gfx1103__) || defined(__gfx1150__) || defined(__gfx1151__) ||                        \
    defined(__gfx1152__) || defined(__gfx1153__)
#define RWI_HAS_WMMA
#define RWI_MMA_NATIVE_HALF RWI_MMA_WMMA
#elif defined(__gfx1200__) || defined(__gfx1201__)
#define RWI_HAS_WMMA12
#define RWI_MMA_NATIVE_HALF RWI_MMA_WMMA12
#elif defined(__gfx1030__) || defined(__gfx1031__) || defined(__gfx1032__) ||                      \
    defined(__gfx1034__) || defined(__gfx1035__) || defined(__gfx1036__)
#define RWI_MMA_NATIVE_HALF RWI_MMA_FMA_32 /* RDNA 2 has no matrix unit */
#elif defined(__HIP_DEVICE_COMPILE__) && __HIP_DEVICE_COMPILE__
#error "which matrix unit this architecture has is not known: name it in kernels/gpu/mma_arch.h"
#else
#define RWI_MMA_NATIVE_HALF RWI_MMA_FMA_32 /* the host pass of a compilation */
#endif

/* f32. */
#if defined(__GFX9__)
#define RWI_MMA_NATIVE_FMA RWI_MMA_FMA_64
#else
#define RWI_MMA_NATIVE_FMA RWI_MMA_FMA_32
#endif

#endif
