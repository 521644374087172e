/* Reductions over the threads of a row, for .hip files.
 *
 * A row has blockDim.x threads, a power of 2; a block has blockDim.y rows. Waves have 32 or 64
 * lanes and need not run in lockstep: lanes of a wave exchange values by shuffles, waves of a row
 * through shared memory. Every thread of the block must call; all threads of a row get the same
 * bits.
 */
#ifndef RWI_REDUCE_H
#define RWI_REDUCE_H

#include "shared/kernel.h"

/* Waves in the largest block. */
#define RWI_MAX_WAVES 32

struct rwi_reduce_max {
    __device__ float operator()(float a, float b) const {
        return a > b ? a : b;
    }
};

struct rwi_reduce_sum {
    __device__ float operator()(float a, float b) const {
        return a + b;
    }
};

/* `waves`: shared memory for this reduction only. */
template <typename Reduce>
__device__ static inline float rwi_reduce_row(float value, float (&waves)[RWI_MAX_WAVES],
                                              Reduce reduce) {
    const int width = (int)blockDim.x < warpSize ? (int)blockDim.x : warpSize;
    for (int distance = width / 2; distance > 0; distance /= 2)
        value = reduce(value, __shfl_xor(value, distance, width));
    if ((int)blockDim.x <= warpSize)
        return value;
    const int waves_a_row = (int)blockDim.x / warpSize;
    float *row = waves + threadIdx.y * waves_a_row;
    if (threadIdx.x % warpSize == 0)
        row[threadIdx.x / warpSize] = value;
    __syncthreads();
    value = row[0];
    for (int n = 1; n < waves_a_row; n++)
        value = reduce(value, row[n]);
    return value;
}

#endif
