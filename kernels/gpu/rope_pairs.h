/* Pairs of one head, on a GPU; shared by rope.hip and rope_append.hip. */
#ifndef RWI_ROPE_PAIRS_H
#define RWI_ROPE_PAIRS_H

#include "gpu/vectors.h"
#include "rope_params.h"

/* PAIRS pairs of one head as stored in memory: half-split two vectors, interleaved one. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED> struct rwi_rope_packed {
    static constexpr int VEC = INTERLEAVED ? 2 * PAIRS : PAIRS;
    rwi_packed<D, VEC> vectors[INTERLEAVED ? 1 : 2];

    /* From pair i on; the halves start `apart` elements apart. */
    __device__ __forceinline__ void load(const void *in, int64_t i, int64_t apart) {
        rwi_load_packed(in, INTERLEAVED ? 2 * i : i, vectors[0]);
        if constexpr (!INTERLEAVED)
            rwi_load_packed(in, i + apart, vectors[1]);
    }
    __device__ __forceinline__ void store(void *out, int64_t i, int64_t apart) const {
        rwi_store_packed(out, INTERLEAVED ? 2 * i : i, vectors[0]);
        if constexpr (!INTERLEAVED)
            rwi_store_packed(out, i + apart, vectors[1]);
    }
    __device__ __forceinline__ void unpack(float (&x1)[PAIRS], float (&x2)[PAIRS]) const {
        if constexpr (INTERLEAVED) {
            float x[2 * PAIRS];
            rwi_unpack(vectors[0], x);
#pragma unroll
            for (int n = 0; n < PAIRS; n++) {
                x1[n] = x[2 * n];
                x2[n] = x[2 * n + 1];
            }
        } else {
            rwi_unpack(vectors[0], x1);
            rwi_unpack(vectors[1], x2);
        }
    }
    __device__ __forceinline__ void pack(const float (&x1)[PAIRS], const float (&x2)[PAIRS]) {
        if constexpr (INTERLEAVED) {
            float x[2 * PAIRS];
#pragma unroll
            for (int n = 0; n < PAIRS; n++) {
                x[2 * n] = x1[n];
                x[2 * n + 1] = x2[n];
            }
            rwi_pack(x, vectors[0]);
        } else {
            rwi_pack(x1, vectors[0]);
            rwi_pack(x2, vectors[1]);
        }
    }
};

/* The same as f32. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static inline void rwi_rope_load_pairs(const void *in, int64_t i, int64_t apart,
                                                  float (&x1)[PAIRS], float (&x2)[PAIRS]) {
    rwi_rope_packed<D, PAIRS, INTERLEAVED> packed;
    packed.load(in, i, apart);
    packed.unpack(x1, x2);
}

template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static inline void rwi_rope_store_pairs(void *out, int64_t i, int64_t apart,
                                                   const float (&x1)[PAIRS],
                                                   const float (&x2)[PAIRS]) {
    rwi_rope_packed<D, PAIRS, INTERLEAVED> packed;
    packed.pack(x1, x2);
    packed.store(out, i, apart);
}

template <int PAIRS>
__device__ static inline void rwi_rope_rotate_pairs(float (&x1)[PAIRS], float (&x2)[PAIRS],
                                                    const rwi_cos_sin (&turns)[PAIRS]) {
#pragma unroll
    for (int n = 0; n < PAIRS; n++)
        rope_rotate(&x1[n], &x2[n], turns[n]);
}

/* Whether the rotary windows of all heads can be read in vectors. */
static inline bool rwi_rope_window_has_vectors(const rw_rope_params &p, rwi_rows rows) {
    /* Vector lengths are powers of two: both values are multiples if their bitwise OR is. */
    rows.columns = p.start | (p.interleaved ? 2 * p.num_frequencies : p.num_frequencies);
    return rwi_rows_are_vectors(p.dtype, rows);
}

#endif
