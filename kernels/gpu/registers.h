/* Where compilers compute a value. */
#ifndef RWI_REGISTERS_H
#define RWI_REGISTERS_H

#include "shared/kernel.h"

/* x, computed where this stands: compilers neither put it off, nor compute what follows from it ahead
 * of a loop around it, in registers that are needed meanwhile. */
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

#endif
