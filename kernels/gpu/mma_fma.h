/* Multiply and add without a matrix unit, for f32 everywhere and for every dtype where there is no
 * matrix unit: a unit of mma.h.
 *
 * The lanes of a wave form a grid of 4 x LANES / 4: lane l holds the queries 4 * q + l / (LANES /
 * 4) and the keys e * LANES / 4 + l % (LANES / 4), so that adjacent lanes read adjacent rows, which
 * are in different banks; of v it holds STEP adjacent columns at a time.
 */
#ifndef RWI_MMA_FMA_H
#define RWI_MMA_FMA_H

#include "gpu/registers.h"

/* Storage type of a dtype in shared memory. */
template <rw_dtype D> struct rwi_fma_element { typedef uint16_t type; };
template <> struct rwi_fma_element<RW_F32> { typedef float type; };

template <rw_dtype D, int M, int WAVE> struct rwi_mma_fma {
    typedef typename rwi_fma_element<D>::type element;
    static constexpr int LANES = WAVE;
    static constexpr int ACROSS = LANES / 4; /* adjacent lanes along keys */
    static constexpr int QUERIES = 4 * M;
    static constexpr int KEYS = 16 / ACROSS;
    static constexpr int STEP = 4; /* columns at a time */
#if defined(__HIP_PLATFORM_NVIDIA__)
    static constexpr int UNROLL = 4; /* steps whose loads may overlap */
#else
    static constexpr int UNROLL = 1;
#endif
    static constexpr int PITCH = 16 * M + 4;
    static constexpr int SCRATCH = PITCH;

    struct product {
        float x[QUERIES][KEYS];
    };

    __device__ static inline int query(int lane, int q) {
        return 4 * q + lane / ACROSS;
    }

    __device__ static constexpr int key(int lane, int e) {
        return e * ACROSS + lane % ACROSS;
    }

    template <int N> __device__ static inline int column(int lane, int n, int e) {
        const int own = n % 4 * KEYS + e; /* among the lane's columns of four products */
        return n / 4 * 64 + own / STEP * ACROSS * STEP + lane % ACROSS * STEP + own % STEP;
    }

    __device__ static inline void load_four(const float *from, float *x) {
        const float4 four = *(const float4 *)from;
        x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
    }

    __device__ static inline void load_step(const element *from, float (&x)[STEP]) {
        if constexpr (D == RW_F32) {
            load_four(from, x);
        } else {
            const uint2 two = *(const uint2 *)from;
            x[0] = rwi_load(D, &two, 0), x[1] = rwi_load(D, &two, 1);
            x[2] = rwi_load(D, &two, 2), x[3] = rwi_load(D, &two, 3);
        }
    }

    template <int WIDTH, int N>
    __device__ static inline void scores(product (&s)[N], const element *q, const element *k,
                                         int pitch) {
        const int lane = (int)__lane_id();
        const element *from_q = q + query(lane, 0) * pitch, *from_k = k + key(lane, 0) * pitch;
#pragma unroll UNROLL
        for (int d = 0; d < WIDTH; d += STEP) {
            float a[QUERIES][STEP];
#pragma unroll
            for (int i = 0; i < QUERIES; i++)
                load_step(from_q + 4 * i * pitch + d, a[i]);
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int e = 0; e < KEYS; e++) {
                    float b[STEP];
                    load_step(from_k + (n * 16 + e * ACROSS) * pitch + d, b);
#pragma unroll
                    for (int i = 0; i < QUERIES; i++)
#pragma unroll
                        for (int c = 0; c < STEP; c++)
                            s[n].x[i][e] += a[i][c] * b[c];
                }
        }
    }

    /* Exchanges weights through shared memory; those of a lane's queries are adjacent. */
    template <int NK> __device__ static inline void share(const product (&w)[NK], float *scratch) {
        const int lane = (int)__lane_id(), at = lane / ACROSS * QUERIES;
        __syncthreads(); /* the previous scores were read */
#pragma unroll
        for (int n = 0; n < NK; n++)
#pragma unroll
            for (int e = 0; e < KEYS; e++)
#pragma unroll
                for (int i = 0; i < QUERIES; i++)
                    scratch[(n * 16 + key(lane, e)) * PITCH + at + i] = weight(w[n].x[i][e]);
        __syncthreads();
    }

    __device__ static inline float weight(float x) {
        return D == RW_F32 ? x : rwi_round_to(D, x);
    }

    /* Sums a tile separately, some columns at a time, then adds it to the output. */
    template <int NK, int N>
    __device__ static inline void values(product (&out)[N], const product (&w)[NK],
                                         const element *v, int pitch, float *scratch) {
        constexpr int TOGETHER = 4;
        const int lane = (int)__lane_id();
        share(w, scratch);
        const float *weights = scratch + lane / ACROSS * QUERIES;
        const element *from = v + lane % ACROSS * STEP;
#pragma unroll
        for (int first = 0; first < N; first += TOGETHER) {
            float tile[TOGETHER * KEYS][QUERIES] = {};
#pragma unroll UNROLL
            for (int k = 0; k < NK * 16; k++) {
                float a[QUERIES];
#pragma unroll
                for (int i = 0; i < QUERIES; i += 4)
                    load_four(weights + k * PITCH + i, a + i);
#pragma unroll
                for (int own = 0; own < TOGETHER * KEYS; own += STEP) {
                    float b[STEP];
                    load_step(from + k * pitch + first * 16 + own * ACROSS, b);
#pragma unroll
                    for (int c = 0; c < STEP; c++)
#pragma unroll
                        for (int i = 0; i < QUERIES; i++)
                            tile[own + c][i] += a[i] * b[c];
                }
            }
#pragma unroll
            for (int n = 0; n < TOGETHER; n++)
#pragma unroll
                for (int i = 0; i < QUERIES; i++)
#pragma unroll
                    for (int e = 0; e < KEYS; e++)
                        out[first + n].x[i][e] =
                            rwi_computed_here(out[first + n].x[i][e] + tile[n * KEYS + e][i]);
        }
    }

    __device__ static inline float reduce_max(float x) {
#pragma unroll
        for (int distance = 1; distance < ACROSS; distance *= 2)
            x = fmaxf(x, __shfl_xor(x, distance));
        return x;
    }

    __device__ static inline float reduce_sum(float x) {
#pragma unroll
        for (int distance = 1; distance < ACROSS; distance *= 2)
            x += __shfl_xor(x, distance);
        return x;
    }
};

#endif
