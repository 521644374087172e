/* The kernels of isa_self_test.hip. */
#ifndef ISA_SELF_TEST_KERNELS_H
#define ISA_SELF_TEST_KERNELS_H

#include <hip/hip_runtime.h>

#include <stdint.h>

#define THREADS 256

/* Hides a value from the compiler. */
template <typename T> __device__ static void hide(T &value) {
#if defined(__HIP_DEVICE_COMPILE__)
    asm volatile("" : "+v"(value));
#else
    (void)value;
#endif
}

/* ---- correct kernels ---- */

/* Sums by lanes, by LDS and by atomics; every block adds to one word. */
__global__ void sum_kernel(const int *in, int *out, int count) {
    __shared__ int parts[THREADS];
    int mine = 0;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS)
        mine += in[i];
    mine += __shfl_xor(mine, 1); /* twice the sum of a pair, of which the last step takes half */
    parts[threadIdx.x] = mine;
    __syncthreads();
    for (int half = THREADS / 2; half > 1; half /= 2) {
        if ((int)threadIdx.x < half)
            parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        atomicAdd(out, parts[0]);
}

struct __attribute__((packed)) unaligned16 {
    uint16_t value;
};
struct __attribute__((packed)) unaligned32 {
    uint32_t value;
};
struct __attribute__((packed)) unaligned64 {
    uint64_t value;
};

/* Copies of 16, 32 and 64 bits at any alignment, by half of the lanes: the masked-off lanes have
 * unallocated addresses. */
template <typename T> __global__ void unaligned_kernel(const uint8_t *in, uint8_t *out, int shift) {
    const int64_t nobody = (int64_t)1 << 40;
    int64_t at = threadIdx.x % 2 ? nobody : (int64_t)threadIdx.x * 8 + shift;
    hide(at);
    if (threadIdx.x % 2 == 0)
        ((T *)(out + at))->value = ((const T *)(in + at))->value;
}

/* The same through LDS. */
template <typename T>
__global__ void unaligned_shared_kernel(const uint8_t *in, uint8_t *out, int shift) {
    __shared__ uint8_t local[THREADS * 8 + 8];
    int at = threadIdx.x % 2 ? 1 << 28 : (int)threadIdx.x * 8 + shift;
    hide(at);
    if (threadIdx.x % 2 == 0)
        ((T *)(local + at))->value = ((const T *)(in + at))->value;
    __syncthreads();
    if (threadIdx.x % 2 == 0)
        ((T *)(out + at))->value = ((const T *)(local + at))->value;
}

/* The values that atomics of memory and of LDS return, in half of the lanes: each ticket once. */
__global__ void tickets_kernel(unsigned *counter, unsigned *out) {
    __shared__ unsigned local;
    if (threadIdx.x == 0)
        local = 0;
    __syncthreads();
    int64_t wild = threadIdx.x % 2 ? (int64_t)1 << 40 : 0, wild_local = wild;
    hide(wild);
    hide(wild_local);
    if (threadIdx.x % 2 == 0) {
        out[threadIdx.x / 2] = atomicAdd(counter + wild, 1u);
        out[THREADS / 2 + threadIdx.x / 2] = atomicAdd(&local + wild_local, 1u);
    }
}

/* 64-bit words: the first thread to claim one is kept, as is the lowest bid. */
__global__ void wide_atomics_kernel(unsigned long long *words, unsigned long long *found) {
    const unsigned long long mine = (unsigned long long)(THREADS - threadIdx.x) << 33 | threadIdx.x;
    if (threadIdx.x % 2 == 0) {
        found[threadIdx.x] = atomicCAS(&words[0], ~0ull, mine);
        found[threadIdx.x + 1] = atomicMin(&words[1], mine);
    }
}

/* Accesses of LDS, and of neighbours, by half of the lanes; the other lanes have invalid addresses.
 */
__global__ void masked_kernel(int *out, int wild) {
    __shared__ int values[THREADS];
    const int lane = (int)threadIdx.x;
    int at = lane % 2 ? wild : lane;
    hide(at);
    values[lane] = lane;
    __syncthreads();
    int sum = 0;
    if (lane % 2 == 0) {
        values[at] += 1000;
        sum = __shfl(values[at], at + 2) + values[at];
    }
    out[lane] = sum;
}

/* The product of a matrix of ones with itself, plus 0, which is an inline constant. */
__global__ void wmma_kernel(float *out) {
    typedef float float8_ __attribute__((ext_vector_type(8)));
    float8_ c = {0, 0, 0, 0, 0, 0, 0, 0};
#if defined(__gfx1100__)
    typedef _Float16 half16 __attribute__((ext_vector_type(16)));
    half16 a;
    for (int i = 0; i < 16; i++)
        a[i] = 1;
    c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, a, c);
#elif defined(__gfx1201__)
    typedef _Float16 half8 __attribute__((ext_vector_type(8)));
    half8 a;
    for (int i = 0; i < 8; i++)
        a[i] = 1;
    c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, a, c);
#endif
    for (int i = 0; i < 8; i++)
        out[threadIdx.x * 8 + i] = c[i];
}

/* LDS through pointers whose address space the compiler does not know. */
__global__ void flat_kernel(int *out, int which) {
    __shared__ int local[THREADS];
    local[threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    int *place = which ? local : out;
    hide(place);
    out[threadIdx.x] = place[THREADS - 1 - threadIdx.x];
}

__global__ void divide_kernel(const float *a, const float *b, float *out, int count) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        out[i] = a[i] / b[i];
}

__global__ void divide64_kernel(const double *a, const double *b, double *out, int count) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        out[i] = a[i] / b[i];
}

/* ---- broken kernels ---- */

/* The thread `distance` further, if there is one. */
__host__ __device__ static int neighbour(int thread, int distance) {
    const int other = thread + distance;
    return other >= 0 && other < THREADS ? other : thread;
}

/* Reads what a neighbour has written, without a barrier between the two. */
__global__ void lost_barrier_kernel(int *out, int distance) {
    __shared__ int values[THREADS];
    values[threadIdx.x] = (int)threadIdx.x;
    out[threadIdx.x] = values[neighbour((int)threadIdx.x, distance)];
}

/* As above; here the second round overwrites what a slower wave has not yet read in the first. */
__global__ void lost_second_barrier_kernel(int *out, int distance) {
    __shared__ int values[THREADS];
    int total = 0;
    for (int round = 0; round < 2; round++) {
        values[threadIdx.x] = (int)threadIdx.x + round * THREADS;
        __syncthreads();
        total += values[neighbour((int)threadIdx.x, distance)];
    }
    out[threadIdx.x] = total;
}

/* A lock that lanes of one wave contend for: the lane that holds it waits for the spinning lanes.
 */
__global__ void spin_kernel(unsigned *lock, int *out) {
    while (atomicCAS(lock, 0u, 1u) != 0u) {
    }
    out[0]++;
    atomicExch(lock, 0u);
}

__global__ void store_kernel(int *out, int64_t at) {
    out[at + threadIdx.x] = 1;
}

__global__ void load_kernel(const int *in, int *out, int64_t at) {
    out[threadIdx.x] = in[at + threadIdx.x];
}

__global__ void shared_overrun_kernel(int *out, int past) {
    extern __shared__ int dynamic[];
    dynamic[threadIdx.x + past] = 1;
    __syncthreads();
    out[threadIdx.x] = dynamic[threadIdx.x];
}

__global__ void unwritten_kernel(float *out, int sometimes) {
    __shared__ float values[THREADS];
    if (sometimes)
        values[threadIdx.x] = 0;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

/* ---- not modelled ---- */

/* A load that is used without waiting for it: a device may read the register too early. */
__global__ void missing_wait_kernel(const int *in, int *out) {
    int value = in[threadIdx.x];
#if defined(__gfx942__) || defined(__gfx90a__)
    asm volatile("global_load_dword %0, %1, off\n\tv_add_u32 %0, %0, 1"
                 : "=&v"(value)
                 : "v"(in + threadIdx.x));
#elif defined(__HIP_DEVICE_COMPILE__)
    asm volatile("global_load_b32 %0, %1, off\n\tv_add_nc_u32 %0, %0, 1"
                 : "=&v"(value)
                 : "v"(in + threadIdx.x));
#endif
    out[threadIdx.x] = value;
}

/* The last wave waits for a flag of the first, then reads what that wave wrote, without a fence: a
 * device may see the flag first. */
__global__ void missing_fence_kernel(volatile int *data, volatile int *flag, int *out) {
    if (threadIdx.x == 0) {
        *data = 7;
        *flag = 1;
    }
    if (threadIdx.x == THREADS - 1) {
        while (*flag == 0) {
        }
        *out = *data;
    }
}

/* A sum rounded toward zero by MODE: rounded to nearest, 1 + 2^-24 + 2^-30 is above 1. */
__global__ void mode_kernel(float *out, float one, float little) {
    float sum = one + little;
#if defined(__gfx942__) || defined(__gfx90a__)
    asm volatile("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 15\n\t"
                 "v_add_f32 %0, %1, %2"
                 : "=v"(sum)
                 : "v"(one), "v"(little));
#elif defined(__HIP_DEVICE_COMPILE__)
    asm volatile("s_round_mode 15\n\tv_add_f32 %0, %1, %2" : "=v"(sum) : "v"(one), "v"(little));
#endif
    out[threadIdx.x] = sum;
}

/* The value as f16, to and from a register that gfx11 would take for an upper half. */
__global__ void upper_register_kernel(float *out, float value) {
#if defined(__GFX9__)
    uint32_t half, moved;
    asm volatile("v_cvt_f16_f32 v134, %1\n\tv_mov_b32 %0, v134" : "=v"(half) : "v"(value) : "v134");
    asm volatile("v_mov_b32 v134, %1\n\tv_cvt_f32_f16 %0, v134" : "=v"(moved) : "v"(half) : "v134");
    if (threadIdx.x == 0)
        out[0] = __uint_as_float(moved);
#else
    (void)out, (void)value;
#endif
}

/* A * B of MFMA, 16 by 16: a column of `value` by a row of 2^10. */
__global__ void mfma_kernel(float *out, float value) {
#if defined(__gfx942__)
    typedef _Float16 half4 __attribute__((ext_vector_type(4)));
    typedef float float4_ __attribute__((ext_vector_type(4)));
    const bool first = threadIdx.x < 16;
    const half4 a = {first ? (_Float16)value : (_Float16)0, 0, 0, 0};
    const half4 b = {first ? (_Float16)0x1p10f : (_Float16)0, 0, 0, 0};
    const float4_ c = __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, (float4_){0, 0, 0, 0}, 0, 0, 0);
    if (threadIdx.x == 0)
        out[0] = c[0];
#else
    (void)out, (void)value;
#endif
}

#endif
