/* Sums of squares on a GPU, for norms of rows and of heads. */
#ifndef RWI_SQUARES_H
#define RWI_SQUARES_H

#include "gpu/vectors.h"

/* The sum of squares of map(x) over the first `count` of COUNT vectors. COUNT and VEC are powers of
 * two. Additions are pairwise: with the products, the shuffles of a wave and four vectors of eight
 * numbers, each number is rounded at most eleven times, which contributes 2.75 of the 4 eps that SPEC
 * allows. */
template <rw_dtype D, int VEC, int COUNT, typename Map>
__device__ static inline float rwi_mapped_squares(const rwi_packed<D, VEC> (&packed)[COUNT],
                                                  int count, const Map &map) {
    float sums[COUNT];
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        float x[VEC];
        rwi_unpack(packed[k], x);
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = map(x[n]) * map(x[n]);
#pragma unroll
        for (int distance = VEC / 2; distance > 0; distance /= 2)
#pragma unroll
            for (int n = 0; n < distance; n++)
                x[n] += x[n + distance];
        sums[k] = k < count ? x[0] : 0.0f;
    }
#pragma unroll
    for (int distance = COUNT / 2; distance > 0; distance /= 2)
#pragma unroll
        for (int k = 0; k < distance; k++)
            sums[k] += sums[k + distance];
    return sums[0];
}

/* The sum of squares times factor^2. */
template <rw_dtype D, int VEC, int COUNT>
__device__ static inline float rwi_scaled_squares(const rwi_packed<D, VEC> (&packed)[COUNT],
                                                  int count, float factor) {
    return rwi_mapped_squares(packed, count, [factor](float x) { return x * factor; });
}

/* Whether a sum of squares neither overflowed nor lost small numbers. */
__device__ static __forceinline__ bool rwi_squares_fit(float sum) {
    return sum > 0x1p-80f && sum < 0x1p100f;
}

/* The sum of squares of any f32, also where the squares overflow or underflow in f32. */
template <rw_dtype D, int VEC, int COUNT>
__device__ static inline double rwi_squares(const rwi_packed<D, VEC> (&x)[COUNT], int count) {
    const float sum = rwi_scaled_squares(x, count, 1.0f);
    if (rwi_squares_fit(sum))
        return (double)sum;
    return sum < 1.0f ? (double)rwi_scaled_squares(x, count, 0x1p100f) * 0x1p-200
                      : (double)rwi_scaled_squares(x, count, 0x1p-80f) * 0x1p160;
}

#endif
