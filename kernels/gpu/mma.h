/* Matrix multiplication units, for .hip files: one wave multiplies tiles in shared memory.
 *
 * A unit is a struct with these members, for a dtype D and M * 16 queries:
 *
 *   element                 storage type of q, k and v in shared memory
 *   LANES                   lanes of a wave
 *   QUERIES, KEYS           each lane holds QUERIES queries and, for each of them, KEYS keys of a
 *                           product of M * 16 queries by 16 keys (or 16 columns of v)
 *   product                 float x[QUERIES][KEYS]
 *   query(lane, q)          the query of x[q][.], in [0, 16 M)
 *   key(lane, e)            the key of x[.][e], in [0, 16); key(lane, 0) + key(0, e)
 *   column<N>(lane, n, e)   the column of v of out[n].x[.][e], for N products; four of them are 64
 *                           adjacent columns
 *   scores<WIDTH>(s, q, k, pitch)
 *                           s[n] += q k^T, for keys 16 n to 16 n + 15. Rows of q and k have WIDTH
 *                           elements and start `pitch` elements apart, on multiples of 16 bytes
 *   SCRATCH                 floats of shared memory per key and wave that values() needs
 *   values(out, w, v, pitch, scratch)
 *                           out[n] += w v, for columns 16 n to 16 n + 15. w, rounded to D, has 16
 *                           keys per product; v has one row per key. `scratch` is for this wave
 *                           alone. Every thread of the block must call it
 *   reduce_max(x), reduce_sum(x)
 *                           over the lanes that hold the same queries; all get the same bits. The
 *                           maximum ignores NaN
 *
 * Sums are f32.
 */
#ifndef RWI_MMA_H
#define RWI_MMA_H

#include "gpu/mma_amd.h"
#include "gpu/mma_arch.h"
#include "gpu/mma_fma.h"
#include "gpu/mma_hopper.h"
#include "gpu/mma_nvidia.h"
#include "gpu/mma_tf32.h"

RWI_ASSERT_16_BIT_FLOATS;

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
template <rw_dtype D, int M> struct rwi_mma_of<D, M, RWI_MMA_TF32> {
    typedef rwi_mma_tf32<M> type;
};
template <rw_dtype D, int M> struct rwi_mma_of<D, M, RWI_MMA_WGMMA> {
    typedef rwi_mma_wgmma<D> type;
};
template <rw_dtype D, int M> struct rwi_mma_of<D, M, RWI_MMA_NATIVE> {
    static constexpr int UNIT = D == RW_F32 ? RWI_MMA_NATIVE_FMA : RWI_MMA_NATIVE_HALF;
    typedef typename rwi_mma_of<D, M, UNIT>::type type;
};

template <int UNIT> struct rwi_mma_constant { static constexpr int value = UNIT; };

/* Returns body(rwi_mma_constant<unit>()) for the unit of a device and dtype. */
template <rw_dtype D, typename Body>
static inline rw_status rwi_dispatch_mma(rwi_device *device, Body body) {
#if defined(__HIP_PLATFORM_EMULATED__)
    const rwi_hip_device *hip = (const rwi_hip_device *)device;
    if constexpr (D == RW_F32) {
        if (hip->wave == 64)
            return body(rwi_mma_constant<RWI_MMA_FMA_64>());
    } else {
        if (strncmp(hip->architecture, "sm_90", 5) == 0)
            return body(rwi_mma_constant<RWI_MMA_SYNC>());
        if (strcmp(hip->architecture, "gfx1100") == 0)
            return body(rwi_mma_constant<RWI_MMA_WMMA>());
        if (strcmp(hip->architecture, "gfx1201") == 0)
            return body(rwi_mma_constant<RWI_MMA_WMMA12>());
        if (hip->wave == 64)
            return body(rwi_mma_constant<RWI_MMA_MFMA>());
    }
    return body(rwi_mma_constant<RWI_MMA_FMA_32>());
#else
    (void)device;
    return body(rwi_mma_constant<RWI_MMA_NATIVE>());
#endif
}

/* Whether a device has RWI_MMA_TF32. */
static inline bool rwi_has_tf32(const rwi_device *device) {
#if defined(__HIP_PLATFORM_EMULATED__)
    return strncmp(((const rwi_hip_device *)device)->architecture, "sm_", 3) == 0;
#elif defined(__HIP_PLATFORM_NVIDIA__)
    (void)device;
    return true; /* sm_80 and later */
#else
    (void)device;
    return false;
#endif
}

#endif
