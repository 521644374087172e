/* NVIDIA's matrix instruction mma.sync for f32, as three products of halves (3xTF32), for Ampere and
 * later: a unit of mma.h.
 *
 * The matrix unit reads the upper 19 bits of its factors. A value is the sum of those and of the
 * rest, of which it reads 11 significant bits: a product lacks less than 2^-19 of itself. A product
 * of values that are not finite may be NaN instead of infinite: scores() computes it again without
 * the unit, values() must not be given such values of v.
 *
 * Lanes hold the rows and columns of a product as in mma_nvidia.h. Columns of q and k are summed in
 * the order in which a lane reads them; columns of v are those that a lane reads together.
 */
#ifndef RWI_MMA_TF32_H
#define RWI_MMA_TF32_H

#include "gpu/mma_nvidia.h"

/* d += a b, 16 x 8 += 16 x 8 * 8 x 8, of the upper 19 bits of a and b. */
__device__ static inline void rwi_mma_16_8_8(float (&d)[4], const float (&a)[4],
                                             const float (&b)[2]) {
#if defined(__CUDA_ARCH__) && defined(RWI_HAS_MMA_SYNC)
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])),
                   "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
                   "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#elif defined(RWI_HAS_MMA_SYNC)
    hip_emulator_mma_m16n8k8_tf32(d, a, b);
#else
    (void)d, (void)a, (void)b;
#endif
}

template <int M> struct rwi_mma_tf32 : rwi_mma_sync_lanes<M> {
    typedef float element;
    typedef rwi_mma_sync_lanes<M> lanes;
    typedef typename lanes::product product;
    using lanes::key;
    using lanes::KEYS;
    using lanes::QUERIES;
    using lanes::query;
    static constexpr int STEP = 4; /* columns that a lane reads together */

    /* A factor's upper bits and the rest. */
    template <int N> struct halves {
        float upper[N], rest[N];

        __device__ inline void set(int i, float x) {
            upper[i] = __uint_as_float((__float_as_uint(x) + 0x1000u) & 0xffffe000u);
            rest[i] = x - upper[i];
        }
    };

    /* Eight lanes hold the columns of a product of 16 x 8; four such products are 32 columns, of
     * which those lanes read STEP each. */
    template <int N> __device__ static inline int column(int lane, int n, int e) {
        const int product = n % 2 * 2 + e / 2;
        return n / 2 * 32 + (lane % 4 * 2 + e % 2) * STEP + product;
    }

    /* sums[n / 2] += a b[n]: product n is half n % 2 of the columns of sums[n / 2]. Products of
     * different sums come first: each must wait for the previous one of its own sum. */
    template <int N>
    __device__ static inline void multiply(product (&sums)[N], const halves<4> (&a)[M],
                                           const halves<2> (&b)[2 * N]) {
#pragma unroll
        for (int part = 0; part < 3; part++)
#pragma unroll
            for (int n = 0; n < 2 * N; n++)
#pragma unroll
                for (int m = 0; m < M; m++) {
                    float(&top)[KEYS] = sums[n / 2].x[2 * m];
                    float(&bottom)[KEYS] = sums[n / 2].x[2 * m + 1];
                    const int at = n % 2 * 2;
                    float d[4] = {top[at], top[at + 1], bottom[at], bottom[at + 1]};
                    rwi_mma_16_8_8(d, part == 0 ? a[m].rest : a[m].upper,
                                   part == 1 ? b[n].rest : b[n].upper);
                    top[at] = d[0];
                    top[at + 1] = d[1];
                    bottom[at] = d[2];
                    bottom[at + 1] = d[3];
                }
    }

    template <int WIDTH, int N>
    __device__ static inline void scores(product (&s)[N], const element *q, const element *k,
                                         int pitch) {
        static_assert(WIDTH % 32 == 0, "a lane reads 8 of 32 columns");
        const int lane = (int)__lane_id();
        const element *from_q = q + lane / 4 * pitch + lane % 4 * 8;
        const element *from_k = k + lane / 4 * pitch + lane % 4 * 8;
#pragma unroll 1
        for (int d = 0; d < WIDTH; d += 32)
#pragma unroll
            for (int c = 0; c < 8; c += STEP)
                multiply_columns(s, from_q + d + c, from_k + d + c, pitch);
        bool undefined = false;
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < QUERIES; i++)
#pragma unroll
                for (int e = 0; e < KEYS; e++)
                    undefined = undefined || isnan(s[n].x[i][e]);
        if (undefined)
            sum_columns<WIDTH>(s, q, k, pitch);
    }

    template <int NK, int N>
    __device__ static inline void values(product (&out)[N], const product (&w)[NK],
                                         const element *v, int pitch, float *) {
        const int lane = (int)__lane_id();
        const element *from = v + lane % 4 * 2 * pitch + lane / 4 * STEP;
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            product tile[2] = {};
#pragma unroll
            for (int k = 0; k < 2 * NK; k++) {
                const element *row = from + k * 8 * pitch + n * 16;
                const float4 first = *(const float4 *)row, second = *(const float4 *)(row + pitch);
                halves<4> a[M];
                halves<2> b[STEP];
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        a[m].set(i, w[k / 2].x[2 * m + i % 2][k % 2 * 2 + i / 2]);
                b[0].set(0, first.x), b[0].set(1, second.x);
                b[1].set(0, first.y), b[1].set(1, second.y);
                b[2].set(0, first.z), b[2].set(1, second.z);
                b[3].set(0, first.w), b[3].set(1, second.w);
                multiply(tile, a, b);
            }
#pragma unroll
            for (int q = 0; q < QUERIES; q++)
#pragma unroll
                for (int e = 0; e < KEYS; e++) {
                    out[n].x[q][e] += tile[0].x[q][e];
                    out[n + 1].x[q][e] += tile[1].x[q][e];
                }
        }
    }

  private:
    /* STEP columns of each lane: two steps of the matrix unit. */
    template <int N>
    __device__ static inline void multiply_columns(product (&s)[N], const element *from_q,
                                                   const element *from_k, int pitch) {
        float4 q[M][2], k[2 * N];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int row = 0; row < 2; row++)
                q[m][row] = *(const float4 *)(from_q + (m * 16 + row * 8) * pitch);
#pragma unroll
        for (int n = 0; n < 2 * N; n++)
            k[n] = *(const float4 *)(from_k + n * 8 * pitch);
#pragma unroll
        for (int step = 0; step < 2; step++) {
            halves<4> a[M];
            halves<2> b[2 * N];
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int row = 0; row < 2; row++) {
                    a[m].set(row, step == 0 ? q[m][row].x : q[m][row].z);
                    a[m].set(row + 2, step == 0 ? q[m][row].y : q[m][row].w);
                }
#pragma unroll
            for (int n = 0; n < 2 * N; n++) {
                b[n].set(0, step == 0 ? k[n].x : k[n].z);
                b[n].set(1, step == 0 ? k[n].y : k[n].w);
            }
            multiply(s, a, b);
        }
    }

    /* A lane's scores without the matrix unit. */
    template <int WIDTH, int N>
    __device__ static inline void sum_columns(product (&s)[N], const element *q, const element *k,
                                              int pitch) {
        const int lane = (int)__lane_id();
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < QUERIES; i++)
#pragma unroll
                for (int e = 0; e < KEYS; e++) {
                    const element *row = q + query(lane, i) * pitch;
                    const element *column = k + (n * 16 + key(lane, e)) * pitch;
                    float sum = 0.0f;
#pragma unroll 1
                    for (int d = 0; d < WIDTH; d++)
                        sum += row[d] * column[d];
                    s[n].x[i][e] = sum;
                }
    }
};

#endif
