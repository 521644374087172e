/* Position embeddings that are added to the hidden states: parameters and formulas, for embed_cpu.c
 * and embed.hip. */
#ifndef RWI_EMBED_PARAMS_H
#define RWI_EMBED_PARAMS_H

#include "shared/angle.h"
#include "shared/dtype.h"
#include "shared/ids.h"

/* x and out: [batch, seq, hidden], the last axis of stride 1. */
typedef struct rwi_embed_rows {
    const void *in;
    void *out;
    rw_dtype dtype;
    int64_t batch;
    int64_t seq;
    int64_t hidden;
    int64_t in_stride[2];
    int64_t out_stride[2];
    rwi_token_ids ids;
} rwi_embed_rows;

typedef struct rw_embed_learned_params {
    rwi_embed_rows rows;
    const void *table; /* [max_positions, hidden], the last axis of stride 1 */
    rw_dtype table_dtype;
    int64_t table_stride;
    int64_t max_positions;
} rw_embed_learned_params;

typedef struct rw_embed_sinusoidal_params {
    rwi_embed_rows rows;
    rwi_angles angles; /* of hidden/2 frequencies */
    int64_t max_positions;
    bool concatenated; /* [sin | cos]; else sin, cos, sin, cos, ... */
} rw_embed_sinusoidal_params;

/* An item is a token: item = s * batch + b, so that a row of the table is still cached when the
 * other sequences of the batch use it. */
RWI_INLINE rwi_work rwi_embed_work(const rwi_embed_rows *rows) {
    rwi_work work = {rows->batch * rows->seq,
                     3 * rows->hidden * (int64_t)rwi_dtype_size(rows->dtype)};
    return work;
}

RWI_INLINE rwi_work embed_learned_work(const rw_embed_learned_params *p) {
    return rwi_embed_work(&p->rows);
}

RWI_INLINE rwi_work embed_sinusoidal_work(const rw_embed_sinusoidal_params *p) {
    return rwi_embed_work(&p->rows);
}

#endif
