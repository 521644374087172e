/* Rotations of the pairs of one head, on the CPU; shared by rope_cpu.c and rope_append_cpu.c. */
#ifndef RWI_ROPE_PAIRS_CPU_H
#define RWI_ROPE_PAIRS_CPU_H

#include "cpu/convert_cpu.h"
#include "rope_params.h"

/* Frequencies of a chunk: its rotations stay in the first-level cache while all heads use them. */
#define RWI_ROPE_CHUNK 128

typedef struct rwi_rope_turns {
    float cos[RWI_ROPE_CHUNK];
    float sin[RWI_ROPE_CHUNK];
} rwi_rope_turns;

/* The rotations (cos, sin) of a token for frequencies [first, first + count). */
RWI_INLINE void rwi_rope_compute_turns(const rw_rope_params *p, const int64_t *ids, int64_t first,
                                       int64_t count, rwi_rope_turns *t) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        rwi_cos_sin turn = rope_turn(p, rope_position(p, ids, first + i), first + i);
        t->cos[i] = turn.cos;
        t->sin[i] = turn.sin;
    }
}

/* The first column of the chunk that starts at frequency `first`. */
RWI_INLINE int64_t rwi_rope_first_column(const rw_rope_params *p, bool interleaved, int64_t first) {
    return p->start + (interleaved ? 2 * first : first);
}

/* Pair i is (x[i * step], x[i * step + apart]). */
RWI_INLINE void rwi_rope_rotate_floats(const float *x, float *y, const rwi_rope_turns *t,
                                       int64_t count, int64_t step, int64_t apart) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        rwi_cos_sin turn = {t->cos[i], t->sin[i]};
        float x1 = x[i * step];
        float x2 = x[i * step + apart];
        rope_rotate(&x1, &x2, turn);
        y[i * step] = x1;
        y[i * step + apart] = x2;
    }
}

/* A chunk of one head as f32: half-split in two runs of columns, at 0 and RWI_ROPE_CHUNK;
 * interleaved in one run of twice the length. */
typedef struct rwi_rope_pairs {
    float x[2 * RWI_ROPE_CHUNK];
} rwi_rope_pairs;

/* `in` is the first column of the chunk; the second run is `apart` columns further. */
RWI_INLINE void rwi_rope_load_pairs(rw_dtype dtype, bool interleaved, const void *in, int64_t count,
                                    int64_t apart, rwi_rope_pairs *pairs) {
    if (interleaved) {
        rwi_load_many(dtype, in, 2 * count, pairs->x);
    } else {
        rwi_load_many(dtype, in, count, pairs->x);
        rwi_load_many(dtype, rwi_element(dtype, in, apart), count, pairs->x + RWI_ROPE_CHUNK);
    }
}

RWI_INLINE void rwi_rope_rotate_pairs(bool interleaved, const rwi_rope_turns *t, int64_t count,
                                      rwi_rope_pairs *pairs) {
    if (interleaved)
        rwi_rope_rotate_floats(pairs->x, pairs->x, t, count, 2, 1);
    else
        rwi_rope_rotate_floats(pairs->x, pairs->x, t, count, 1, RWI_ROPE_CHUNK);
}

RWI_INLINE void rwi_rope_store_pairs(rw_dtype dtype, bool interleaved, void *out, int64_t count,
                                     int64_t apart, const rwi_rope_pairs *pairs) {
    if (interleaved) {
        rwi_store_many(dtype, out, 2 * count, pairs->x);
    } else {
        rwi_store_many(dtype, out, count, pairs->x);
        rwi_store_many(dtype, rwi_element(dtype, out, apart), count, pairs->x + RWI_ROPE_CHUNK);
    }
}

#endif
