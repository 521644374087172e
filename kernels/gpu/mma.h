/* Matrix hardware, for .hip files: one wave multiplies tiles that lie in shared memory.
 *
 * A unit is a struct like this, for a dtype D and M * 16 queries:
 *
 *   element                 how q, k and v lie in shared memory
 *   LANES                   of a wave
 *   QUERIES, KEYS           of a product of M * 16 queries x 16 keys (or 16 columns of v) a lane
 *                           holds so many queries and, of each, so many keys
 *   product                 float x[QUERIES][KEYS]
 *   query(lane, q)          which query x[q][.] is, in [0, 16 M)
 *   key(lane, e)            which key x[.][e] is, in [0, 16)
 *   column<N>(lane, n, e)   which column of v out[n].x[.][e] is, of N products; four of them are 64
 *                           columns side by side
 *   scores<WIDTH>(s, q, k, pitch)       s[n] += q k^T, for the keys 16 n to 16 n + 15; rows of q
 * and k have WIDTH elements, start `pitch` elements apart, and on 16 bytes values(out, w, v, pitch,
 * scratch)   out[n] += w v, for the columns 16 n to 16 n + 15; w, rounded to D, has 16 keys a
 * product, v a row a key. `scratch` is the wave's own rwi_mma_scratch() floats of shared memory.
 * Every thread of the block calls reduce_max(x), reduce_sum(x)        over the lanes that hold the
 * same queries; they all get the same bits, and a maximum is that of the numbers, whatever NaN
 * there is
 *
 * Sums are f32.
 */
#ifndef RWI_MMA_H
#define RWI_MMA_H

#include "gpu/mma_amd.h"
#include "gpu/mma_arch.h"
#include "gpu/mma_fma.h"
#include "gpu/mma_nvidia.h"

template <rw_dtype D, int M, int UNIT> struct rwi_mma_of;

template <rw_dtype D, int M> struct rwi_mma_of<D, M, RWI_MMA_FMA_32> {
    typedef rwi_mma_fma<D, M, 32> type;
};
template <rw_dtype D, int M> struct rwi_mma_of<D, M, RWI_MMA_FMA_64> {
    typedef rwi_mma_fma<D, M, 64> type;
};
template <rw_dtype D, int M> struct rwi_mma_of<D, M, RWI_MMA_MFMA> {
    typedef rwi_mma_mfma<D, M> type;
};
template <rw_dtype D, int M> struct rwi_mma_of<D, M, RWI_MMA_WMMA> {
    typedef rwi_mma_wmma<D, M> type;
};
template <rw_dtype D, int M> struct rwi_mma_of<D, M, RWI_MMA_WMMA12> {
    typedef rwi_mma_wmma12<D, M> type;
};
template <rw_dtype D, int M> struct rwi_mma_of<D, M, RWI_MMA_SYNC> {
    typedef rwi_mma_sync<D, M> type;
};
template <rw_dtype D, int M> struct rwi_mma_of<D, M, RWI_MMA_NATIVE> {
    static constexpr int UNIT = D == RW_F32 ? RWI_MMA_NATIVE_FMA : RWI_MMA_NATIVE_HALF;
    typedef typename rwi_mma_of<D, M, UNIT>::type type;
};

/* Floats that a wave needs to pass the weights of `keys` keys, or scores, between its lanes. */
constexpr int rwi_mma_scratch(int m, int keys) {
    return keys * (16 * m + 4);
}

template <int UNIT> struct rwi_mma_constant { static constexpr int value = UNIT; };

/* Returns body(rwi_mma_constant<unit>()) for the unit of a device and dtype. */
template <rw_dtype D, typename Body>
static inline rw_status rwi_dispatch_mma(rwi_device *device, Body body) {
#if defined(__HIP_PLATFORM_EMULATED__)
    const rwi_hip_device *hip = (const rwi_hip_device *)device;
    if constexpr (D != RW_F32) {
        if (strcmp(hip->architecture, "sm_90") == 0)
            return body(rwi_mma_constant<RWI_MMA_SYNC>());
        if (strcmp(hip->architecture, "gfx1100") == 0)
            return body(rwi_mma_constant<RWI_MMA_WMMA>());
        if (strcmp(hip->architecture, "gfx1201") == 0)
            return body(rwi_mma_constant<RWI_MMA_WMMA12>());
        if (hip->wave == 64)
            return body(rwi_mma_constant<RWI_MMA_MFMA>());
    }
    return hip->wave == 64 ? body(rwi_mma_constant<RWI_MMA_FMA_64>())
                           : body(rwi_mma_constant<RWI_MMA_FMA_32>());
#else
    (void)device;
    return body(rwi_mma_constant<RWI_MMA_NATIVE>());
#endif
}

#endif
