/* Hopper's matrix instruction wgmma: a unit for kernels whose waves have roles. Four waves, a
 * warpgroup, multiply together, reading tiles in shared memory, while they go on with other work.
 *
 * Instead of mma.h's scores() and values() it has
 *
 *   place<W, ROWS>(row, column)  where an element of a tile of ROWS rows of W columns lies. Tiles
 *                                start on multiples of 1024 bytes
 *   publish()                    makes this thread's stores to tiles visible to the instruction
 *   address(tile)                names a tile in begin_scores() and begin_values()
 *   begin_scores<W, ROWS>(s, q, row, k)
 *                                s = q k^T; q has ROWS rows, of which the wave computes 16 from
 *                                `row` on; k has 16 rows per product
 *   weights, to_weights(w, s)    the weights s as the first operand of begin_values()
 *   begin_values<KEYS>(out, w, v)  out += w v; v has KEYS rows
 *   wait<LEFT>(x)                ends what was begun for x, where LEFT later products may go on.
 *                                Until then x must not be used, nor the tiles be overwritten
 *
 * Of a product of 16 x 16 a lane holds what it holds with mma.sync. Tiles lie in panels of 64
 * columns: rows of 128 bytes, whose 16-byte pieces are swapped by the row's number (the 128-byte
 * swizzle of NVIDIA's PTX ISA, "Matrix descriptors").
 */
#ifndef RWI_MMA_HOPPER_H
#define RWI_MMA_HOPPER_H

#include "gpu/mma_nvidia.h"

/* The first operands of an instruction, as many as the name says. */
#define RWI_WGMMA_32                                                                               \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define RWI_WGMMA_40                                                                               \
    RWI_WGMMA_32                                                                                   \
    ", %32, %33, %34, %35, %36, %37, %38, %39"
#define RWI_WGMMA_48                                                                               \
    RWI_WGMMA_40                                                                                   \
    ", %40, %41, %42, %43, %44, %45, %46, %47"
#define RWI_WGMMA_64                                                                               \
    RWI_WGMMA_48                                                                                   \
    ", "                                                                                           \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define RWI_WGMMA_128                                                                              \
    RWI_WGMMA_64                                                                                   \
    ", "                                                                                           \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "       \
    "%111, "                                                                                       \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "         \
    "%126, %127"

/* The registers of adjacent products, in the order of the instruction. */
#define RWI_WGMMA_OF_1(d)                                                                          \
    "+f"(d.x[0][0]), "+f"(d.x[0][1]), "+f"(d.x[1][0]), "+f"(d.x[1][1]), "+f"(d.x[0][2]),           \
        "+f"(d.x[0][3]), "+f"(d.x[1][2]), "+f"(d.x[1][3])
#define RWI_WGMMA_OF_4(d, n)                                                                       \
    RWI_WGMMA_OF_1(d[n]), RWI_WGMMA_OF_1(d[n + 1]), RWI_WGMMA_OF_1(d[n + 2]),                      \
        RWI_WGMMA_OF_1(d[n + 3])
#define RWI_WGMMA_OF_5(d, n) RWI_WGMMA_OF_4(d, n), RWI_WGMMA_OF_1(d[n + 4])
#define RWI_WGMMA_OF_6(d, n) RWI_WGMMA_OF_5(d, n), RWI_WGMMA_OF_1(d[n + 5])
#define RWI_WGMMA_OF_8(d, n) RWI_WGMMA_OF_4(d, n), RWI_WGMMA_OF_4(d, n + 4)
#define RWI_WGMMA_OF_16(d, n) RWI_WGMMA_OF_8(d, n), RWI_WGMMA_OF_8(d, n + 8)

/* 64 x N += 64 x 16 * 16 x N, both operands in shared memory; `add` 0: the sum starts at 0. P, A,
 * B and ADD are the numbers of the operands after the registers. */
#define RWI_WGMMA_SHARED(TYPE, N, REGISTERS, A, B, ADD, PRODUCTS)                                  \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %" ADD ", 0; "                                    \
                 "wgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPE "." TYPE " {" REGISTERS     \
                 "}, %" A ", %" B ", p, 1, 1, 0, 0; }"                                             \
                 : PRODUCTS                                                                        \
                 : "l"(a), "l"(b), "r"(add))

/* The same with the first operand in registers and the second one transposed. */
#define RWI_WGMMA_REGISTERS(TYPE, N, REGISTERS, A0, A1, A2, A3, B, PRODUCTS)                       \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" N "k16.f32." TYPE "." TYPE " {" REGISTERS     \
                 "}, {%" A0 ", %" A1 ", %" A2 ", %" A3 "}, %" B ", 1, 1, 1, 1;"                    \
                 : PRODUCTS                                                                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

/* The instructions for N products. */
#define RWI_WGMMA_SCORES(TYPE)                                                                     \
    do {                                                                                           \
        if constexpr (N == 4)                                                                      \
            RWI_WGMMA_SHARED(TYPE, "64", RWI_WGMMA_32, "32", "33", "34", RWI_WGMMA_OF_4(d, 0));    \
        else                                                                                       \
            RWI_WGMMA_SHARED(TYPE, "128", RWI_WGMMA_64, "64", "65", "66", RWI_WGMMA_OF_8(d, 0));   \
    } while (0)
#define RWI_WGMMA_VALUES(TYPE)                                                                     \
    do {                                                                                           \
        if constexpr (N == 4)                                                                      \
            RWI_WGMMA_REGISTERS(TYPE, "64", RWI_WGMMA_32, "32", "33", "34", "35", "36",            \
                                RWI_WGMMA_OF_4(d, 0));                                             \
        else if constexpr (N == 5)                                                                 \
            RWI_WGMMA_REGISTERS(TYPE, "80", RWI_WGMMA_40, "40", "41", "42", "43", "44",            \
                                RWI_WGMMA_OF_5(d, 0));                                             \
        else if constexpr (N == 6)                                                                 \
            RWI_WGMMA_REGISTERS(TYPE, "96", RWI_WGMMA_48, "48", "49", "50", "51", "52",            \
                                RWI_WGMMA_OF_6(d, 0));                                             \
        else if constexpr (N == 8)                                                                 \
            RWI_WGMMA_REGISTERS(TYPE, "128", RWI_WGMMA_64, "64", "65", "66", "67", "68",           \
                                RWI_WGMMA_OF_8(d, 0));                                             \
        else                                                                                       \
            RWI_WGMMA_REGISTERS(TYPE, "256", RWI_WGMMA_128, "128", "129", "130", "131", "132",     \
                                RWI_WGMMA_OF_16(d, 0));                                            \
    } while (0)

template <rw_dtype D> struct rwi_mma_wgmma : rwi_mma_sync<D, 1> {
    typedef typename rwi_mma_sync<D, 1>::product product;
    struct weights {
        uint32_t x[4];
    };

    template <int W, int ROWS> __device__ static constexpr int place(int row, int column) {
        return column / 64 * ROWS * 64 + row * 64 + ((column / 8 % 8) ^ (row % 8)) * 8 + column % 8;
    }

    __device__ static __forceinline__ void publish() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
    }

    template <int NK>
    __device__ static __forceinline__ void to_weights(weights (&w)[NK], const product (&s)[NK]) {
#pragma unroll
        for (int k = 0; k < NK; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&x)[4] = s[k].x[i % 2];
                w[k].x[i] = rwi_pack_halves<D>(x[i / 2 * 2], x[i / 2 * 2 + 1]);
            }
    }

    /* x is computed at this point: neither its computation nor its uses are moved across it. */
    template <int N> __device__ static __forceinline__ void hold(product (&x)[N]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 8; i++)
                asm volatile("" : "+f"(x[n].x[i / 4][i % 4])::"memory");
#else
        (void)x;
#endif
    }

    template <int LEFT, int N> __device__ static __forceinline__ void wait(product (&x)[N]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
        hip_emulator_wgmma_wait(LEFT);
#endif
        hold(x);
    }

    /* In shared memory. */
    __device__ static __forceinline__ uint32_t address(const uint16_t *tile) {
#if defined(__CUDA_ARCH__)
        return (uint32_t)__cvta_generic_to_shared(tile);
#elif defined(__HIP_PLATFORM_EMULATED__)
        return hip_emulator_shared_address(tile);
#else
        return (uint32_t)(uintptr_t)tile;
#endif
    }

    template <int W, int ROWS, int N>
    __device__ static __forceinline__ void begin_scores(product (&s)[N], uint32_t q, int row,
                                                        uint32_t k) {
        const uint32_t a = descriptor(q + row / 64 * 64 * 128, 16), b = descriptor(k, 16);
        begin(s);
#pragma unroll
        for (int d = 0; d < W / 16; d++)
            multiply_shared(s, whole(a + d / 4 * (ROWS * 128 >> 4) + d % 4 * 2),
                            whole(b + d / 4 * (16 * N * 128 >> 4) + d % 4 * 2), d > 0);
        commit();
    }

    template <int KEYS, int NK, int N>
    __device__ static __forceinline__ void begin_values(product (&out)[N], const weights (&w)[NK],
                                                        uint32_t v) {
        const uint32_t b = descriptor(v, KEYS * 128);
        begin(out);
#pragma unroll
        for (int k = 0; k < NK; k++)
            multiply_registers(out, w[k].x, whole(b + k * (2048 >> 4)));
        commit();
    }

  private:
    /* Describes a tile to the instruction: the lower half; `next`: bytes to the next panel. */
    __device__ static __forceinline__ uint32_t descriptor(uint32_t tile, int next) {
        return tile >> 4 | (uint32_t)(next >> 4) << 16;
    }

    /* The whole descriptor. */
    __device__ static __forceinline__ uint64_t whole(uint32_t descriptor) {
        const uint64_t rows_of_8 = 1024, swizzle = 1;
        return (rows_of_8 >> 4) << 32 | swizzle << 62 | descriptor;
    }

    template <int N> __device__ static __forceinline__ void begin(product (&x)[N]) {
        hold(x);
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
        hip_emulator_wgmma_fence();
#endif
    }

    __device__ static __forceinline__ void commit() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#elif defined(__HIP_PLATFORM_EMULATED__)
        hip_emulator_wgmma_commit();
#endif
    }

    template <int N>
    __device__ static __forceinline__ void multiply_shared(product (&d)[N], uint64_t a, uint64_t b,
                                                           int add) {
        static_assert(N == 4 || N == 8, "tiles of k have 64 or 128 rows");
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        if constexpr (D == RW_F16)
            RWI_WGMMA_SCORES("f16");
        else
            RWI_WGMMA_SCORES("bf16");
#elif defined(__HIP_PLATFORM_EMULATED__)
        hip_emulator_wgmma_shared(D == RW_F16 ? hip_emulator_wgmma_f16 : hip_emulator_wgmma_bf16,
                                  &d[0].x[0][0], 16 * N, a, b, false, add != 0);
#else
        (void)d, (void)a, (void)b, (void)add;
#endif
    }

    template <int N>
    __device__ static __forceinline__ void multiply_registers(product (&d)[N],
                                                              const uint32_t (&a)[4], uint64_t b) {
        static_assert(N == 4 || N == 5 || N == 6 || N == 8 || N == 16, "the columns of v");
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
        if constexpr (D == RW_F16)
            RWI_WGMMA_VALUES("f16");
        else
            RWI_WGMMA_VALUES("bf16");
#elif defined(__HIP_PLATFORM_EMULATED__)
        hip_emulator_wgmma_registers(D == RW_F16 ? hip_emulator_wgmma_f16 : hip_emulator_wgmma_bf16,
                                     &d[0].x[0][0], 16 * N, a, b, true);
#else
        (void)d, (void)a, (void)b;
#endif
    }
};

#endif
