/* NVIDIA's matrix instruction mma.sync, for Ampere and later: a unit of mma.h.
 *
 * Of a product of 16 x 16, lane l holds rows l / 4 and l / 4 + 8, and of each the columns 2 * (l %
 * 4) + {0, 1} and those + 8. The first operand of the next product has the same layout, so that
 * weights need not move.
 */
#ifndef RWI_MMA_NVIDIA_H
#define RWI_MMA_NVIDIA_H

#include "gpu/mma_arch.h"
#include "gpu/vectors.h"

/* Loads four matrices of 8 x 8; lane l provides the address of row l % 8 of matrix l / 8. */
__device__ static inline void rwi_ldmatrix(uint32_t (&r)[4], const uint16_t *row) {
#if defined(__CUDA_ARCH__) && defined(RWI_HAS_MMA_SYNC)
    const uint32_t shared = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
#elif defined(RWI_HAS_MMA_SYNC)
    hip_emulator_ldmatrix_x4(r, row);
#else
    (void)r, (void)row;
#endif
}

/* The same, with each matrix transposed. */
__device__ static inline void rwi_ldmatrix_transposed(uint32_t (&r)[4], const uint16_t *row) {
#if defined(__CUDA_ARCH__) && defined(RWI_HAS_MMA_SYNC)
    const uint32_t shared = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
#elif defined(RWI_HAS_MMA_SYNC)
    hip_emulator_ldmatrix_x4_trans(r, row);
#else
    (void)r, (void)row;
#endif
}

/* Where an element of a tile lies. Rows that start on multiples of 32 bytes are copied from the
 * second-level cache in whole parts of it; the loads above need 16 bytes of eight rows in different
 * banks, so that the last four of every eight rows have the two vectors of each part swapped. */
__device__ static constexpr int rwi_sync_place(int row, int column, int pitch) {
    return row * pitch + (pitch % 16 == 0 ? column ^ row / 4 % 2 * 8 : column);
}

/* d += a b, 16 x 8 += 16 x 16 * 16 x 8. */
template <rw_dtype D>
__device__ static inline void rwi_mma_16_8_16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                              uint32_t b1) {
#if defined(__CUDA_ARCH__) && defined(RWI_HAS_MMA_SYNC)
    if constexpr (D == RW_F16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif defined(RWI_HAS_MMA_SYNC)
    if constexpr (D == RW_F16)
        hip_emulator_mma_m16n8k16_f16(d, a, b0, b1);
    else
        hip_emulator_mma_m16n8k16_bf16(d, a, b0, b1);
#else
    (void)d, (void)a, (void)b0, (void)b1;
#endif
}

/* The rows and columns that the lanes hold of a product, for M * 16 queries. */
template <int M> struct rwi_mma_sync_lanes {
    static constexpr int LANES = 32;
    static constexpr int QUERIES = 2 * M;
    static constexpr int KEYS = 4;
    static constexpr int SCRATCH = 0;

    struct product {
        float x[QUERIES][KEYS];
    };

    __device__ static inline int query(int lane, int q) {
        return q / 2 * 16 + lane / 4 + q % 2 * 8;
    }

    __device__ static constexpr int key(int lane, int e) {
        return e / 2 * 8 + lane % 4 * 2 + e % 2;
    }

    __device__ static inline float reduce_max(float x) {
#pragma unroll
        for (int distance = 1; distance < 4; distance *= 2)
            x = fmaxf(x, __shfl_xor(x, distance));
        return x;
    }

    __device__ static inline float reduce_sum(float x) {
#pragma unroll
        for (int distance = 1; distance < 4; distance *= 2)
            x += __shfl_xor(x, distance);
        return x;
    }
};

template <rw_dtype D, int M> struct rwi_mma_sync : rwi_mma_sync_lanes<M> {
    typedef uint16_t element;
    typedef rwi_mma_sync_lanes<M> lanes;
    typedef typename lanes::product product;
    using lanes::key;
    using lanes::KEYS;
    using lanes::QUERIES;
    using lanes::query;

    template <int N> __device__ static inline int column(int lane, int n, int e) {
        return n * 16 + key(lane, e);
    }

    /* sum[m] += a[m] b: b has the 8 + 8 columns of a product. */
    __device__ static inline void multiply(product &sum, const uint32_t (&a)[M][4],
                                           const uint32_t (&b)[4]) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float(&top)[KEYS] = sum.x[2 * m], (&bottom)[KEYS] = sum.x[2 * m + 1];
                float d[4] = {top[2 * half], top[2 * half + 1], bottom[2 * half],
                              bottom[2 * half + 1]};
                rwi_mma_16_8_16<D>(d, a[m], b[2 * half], b[2 * half + 1]);
                top[2 * half] = d[0];
                top[2 * half + 1] = d[1];
                bottom[2 * half] = d[2];
                bottom[2 * half + 1] = d[3];
            }
    }

    template <int WIDTH, int N>
    __device__ static inline void scores(product (&s)[N], const element *q, const element *k,
                                         int pitch) {
        const int lane = (int)__lane_id(), row = lane % 8, matrix = lane / 8;
        const element *from_q = q + rwi_sync_place(matrix % 2 * 8 + row, matrix / 2 * 8, pitch);
        const element *from_k = k + rwi_sync_place(matrix / 2 * 8 + row, matrix % 2 * 8, pitch);
#pragma unroll
        for (int d = 0; d < WIDTH; d += 16) {
            uint32_t a[M][4];
#pragma unroll
            for (int m = 0; m < M; m++)
                rwi_ldmatrix(a[m], from_q + m * 16 * pitch + d);
#pragma unroll
            for (int n = 0; n < N; n++) {
                uint32_t b[4];
                rwi_ldmatrix(b, from_k + n * 16 * pitch + d);
                multiply(s[n], a, b);
            }
        }
    }

    /* Weights of 16 keys as a first operand. */
    __device__ static inline void pack_weights(const product &w, uint32_t (&a)[M][4]) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&x)[KEYS] = w.x[2 * m + i % 2];
                a[m][i] = rwi_pack_halves<D>(x[i / 2 * 2], x[i / 2 * 2 + 1]);
            }
    }

    /* Sums a tile separately, then adds it to the output. */
    template <int NK, int N>
    __device__ static inline void values(product (&out)[N], const product (&w)[NK],
                                         const element *v, int pitch, float *) {
        const int lane = (int)__lane_id(), row = lane % 8, matrix = lane / 8;
        const element *from = v + rwi_sync_place(matrix % 2 * 8 + row, matrix / 2 * 8, pitch);
        uint32_t a[NK][M][4];
#pragma unroll
        for (int k = 0; k < NK; k++)
            pack_weights(w[k], a[k]);
#pragma unroll
        for (int n = 0; n < N; n++) {
            product tile = {};
#pragma unroll
            for (int k = 0; k < NK; k++) {
                uint32_t b[4];
                rwi_ldmatrix_transposed(b, from + k * 16 * pitch + n * 16);
                multiply(tile, a[k], b);
            }
#pragma unroll
            for (int q = 0; q < QUERIES; q++)
#pragma unroll
                for (int e = 0; e < KEYS; e++)
                    out[n].x[q][e] += tile.x[q][e];
        }
    }
};

#endif
