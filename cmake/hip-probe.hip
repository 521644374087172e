/* An architecture is built only if the toolchain compiles this for it: a kernel with a shuffle, a
 * half and a math function, which requires the device libraries. */
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>

static __global__ void probe_kernel(float *x) {
    float value = __shfl_xor(x[threadIdx.x], 1);
    x[threadIdx.x] = cosf(value) + __half2float(__float2half_rn(value));
}

void probe(float *x) {
    hipLaunchKernelGGL(probe_kernel, dim3(1), dim3(64), 0, 0, x);
}
