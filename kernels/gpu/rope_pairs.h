/* Pairs of one head, on a GPU; shared by rope.hip and kv.hip. */
#ifndef RWI_ROPE_PAIRS_H
#define RWI_ROPE_PAIRS_H

#include "gpu/vectors.h"
#include "rope_params.h"

/* PAIRS pairs of one head from pair i on: half-split from two vectors, interleaved from one. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static inline void rwi_rope_load_pairs(const void *in, int64_t i, int64_t apart,
                                                  float (&x1)[PAIRS], float (&x2)[PAIRS]) {
    if constexpr (INTERLEAVED) {
        float x[2 * PAIRS];
        rwi_load_vector<D>(in, 2 * i, x);
#pragma unroll
        for (int n = 0; n < PAIRS; n++) {
            x1[n] = x[2 * n];
            x2[n] = x[2 * n + 1];
        }
    } else {
        rwi_load_vector<D>(in, i, x1);
        rwi_load_vector<D>(in, i + apart, x2);
    }
}

template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static inline void rwi_rope_store_pairs(void *out, int64_t i, int64_t apart,
                                                   const float (&x1)[PAIRS],
                                                   const float (&x2)[PAIRS]) {
    if constexpr (INTERLEAVED) {
        float x[2 * PAIRS];
#pragma unroll
        for (int n = 0; n < PAIRS; n++) {
            x[2 * n] = x1[n];
            x[2 * n + 1] = x2[n];
        }
        rwi_store_vector<D>(out, 2 * i, x);
    } else {
        rwi_store_vector<D>(out, i, x1);
        rwi_store_vector<D>(out, i + apart, x2);
    }
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
