/* Rotary position embedding: parameters and formulas, for rope_cpu.c and rope.hip. */
#ifndef RWI_ROPE_PARAMS_H
#define RWI_ROPE_PARAMS_H

#include "shared/angle.h"
#include "shared/dtype.h"
#include "shared/ids.h"

/* q or k: [batch, seq, heads, head_dim], the last axis of stride 1. */
typedef struct rwi_rope_heads {
    const void *in;
    void *out;
    int32_t heads; /* 0: absent */
    int64_t in_stride[3];
    int64_t out_stride[3];
} rwi_rope_heads;

typedef struct rw_rope_params {
    rwi_rope_heads heads[2]; /* q, k */
    rw_dtype dtype;
    int64_t batch;
    int64_t seq;
    int32_t head_dim;
    int32_t start; /* rotary window [start, start + 2 * num_frequencies) */
    int32_t num_frequencies;
    bool interleaved; /* pairs (2i, 2i+1); else (i, i + num_frequencies) */
    rwi_token_ids ids;
    const uint8_t *axis; /* [num_frequencies]: the id that each frequency uses; NULL: id 0 */
    int32_t num_axes;
    int32_t max_positions; /* ids must be below this */
    rwi_angles to;         /* the angles of the result's rotation */
    rwi_angles from;       /* re-rotation: angles to remove first; rows NULL: none */
    float cos_scale;       /* attention factor */
    float sin_scale;       /* attention factor, negative for the inverse and the gradient */
} rw_rope_params;

RWI_INLINE int64_t rope_num_heads(const rw_rope_params *p) {
    return (int64_t)p->heads[0].heads + p->heads[1].heads;
}

/* A work item is a token. */
RWI_INLINE rwi_work rope_work(const rw_rope_params *p) {
    int64_t columns = rope_num_heads(p) * p->head_dim;
    rwi_work work = {p->batch * p->seq, 2 * columns * (int64_t)rwi_dtype_size(p->dtype)};
    return work;
}

/* The maximum number of ids of a token. */
#define RWI_ROPE_MAX_AXES 3

/* The ids of token (b, s), one for each axis. */
RWI_INLINE void rope_find_ids(const rw_rope_params *p, int64_t b, int64_t s, int64_t *ids) {
    for (int32_t axis = 0; axis < RWI_ROPE_MAX_AXES; axis++)
        ids[axis] = axis < p->num_axes ? rwi_token_id(&p->ids, axis, b, s) : 0;
}

/* Whether all ids of a token, ids[axis], are inside the tables; *bad receives the first that is
 * not. */
RWI_INLINE bool rope_ids_valid(const rw_rope_params *p, const int64_t *ids, rwi_bad_id *bad) {
    for (int32_t axis = 0; axis < RWI_ROPE_MAX_AXES; axis++) {
        *bad = rwi_bad(RW_FAULT_POSITION, ids[axis]);
        if (ids[axis] < 0 || ids[axis] >= p->max_positions)
            return false;
    }
    return true;
}

/* The id that a frequency uses. */
RWI_INLINE int64_t rope_position(const rw_rope_params *p, const int64_t *ids, int64_t frequency) {
    int axis = p->axis ? p->axis[frequency] : 0;
    return axis == 0 ? ids[0] : axis == 1 ? ids[1] : ids[2]; /* GPUs cannot index registers */
}

/* The cos and sin of an angle, multiplied by the scales, which contain the sign. */
RWI_INLINE rwi_cos_sin rope_scaled(const rw_rope_params *p, rwi_cos_sin angle) {
    rwi_cos_sin turn = {angle.cos * p->cos_scale, angle.sin * p->sin_scale};
    return turn;
}

/* The rotation of one frequency at one position. */
RWI_INLINE rwi_cos_sin rope_turn(const rw_rope_params *p, int64_t position, int64_t frequency) {
    rwi_cos_sin angle = rwi_angle_at(&p->to, position, frequency, p->num_frequencies);
    if (p->from.rows) {
        rwi_cos_sin back = rwi_angle_at(&p->from, position, frequency, p->num_frequencies);
        back.sin = -back.sin;
        angle = rwi_angle_add(angle, back);
    }
    return rope_scaled(p, angle);
}

/* Rotates the pair (*x1, *x2). */
RWI_INLINE void rope_rotate(float *x1, float *x2, rwi_cos_sin turn) {
    float y1 = *x1 * turn.cos - *x2 * turn.sin;
    float y2 = *x2 * turn.cos + *x1 * turn.sin;
    *x1 = y1;
    *x2 = y2;
}

#endif
