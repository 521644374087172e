/* The KV cache: parameters and formulas, for kv_cpu.c and kv.hip. */
#ifndef RWI_KV_PARAMS_H
#define RWI_KV_PARAMS_H

#include "shared/kv_pages.h"
#include "shared/rms.h"
#include "rope_params.h"

/* k or v: the new tokens [batch, seq, heads, width] and the cache [pages, rows, heads, width]. */
typedef struct rwi_kv_side {
    const void *in;
    void *cache;
    int64_t width;
    int64_t in_stride[3];
    int64_t cache_stride[3];
} rwi_kv_side;

typedef struct rw_kv_append_params {
    rwi_kv_side sides[2]; /* k, v */
    rw_dtype dtype;
    int64_t batch;
    int64_t seq;
    int64_t heads;
    rwi_kv_pages pages;
    rwi_token_ids positions;
} rw_kv_append_params;

/* An item is a token. */
RWI_INLINE rwi_work kv_append_work(const rw_kv_append_params *p) {
    int64_t columns = p->heads * (p->sides[0].width + p->sides[1].width);
    rwi_work work = {p->batch * p->seq, 2 * columns * (int64_t)rwi_dtype_size(p->dtype)};
    return work;
}

/* Head 0 of a token of k or v, and its place in the cache. */
RWI_INLINE const void *rwi_kv_source(const rw_kv_append_params *p, int side, int64_t b, int64_t s) {
    const rwi_kv_side *kv = &p->sides[side];
    return rwi_element(p->dtype, kv->in, b * kv->in_stride[0] + s * kv->in_stride[1]);
}

RWI_INLINE void *rwi_kv_target(const rw_kv_append_params *p, int side, rwi_kv_place place) {
    const rwi_kv_side *kv = &p->sides[side];
    return rwi_element(p->dtype, kv->cache,
                       place.page * kv->cache_stride[0] + place.row * kv->cache_stride[1]);
}

/* The place of token (b, s) in the cache; false as above. */
RWI_INLINE bool kv_append_find(const rw_kv_append_params *p, int64_t b, int64_t s,
                               rwi_kv_place *place, rwi_bad_id *bad) {
    return rwi_kv_find(&p->pages, b, rwi_token_id(&p->positions, 0, b, s), place, bad);
}

typedef struct rw_rope_append_params {
    rw_rope_params rope; /* heads[0]: q; heads[1] is absent */
    rw_kv_append_params kv;
    const void *norm_weight[2]; /* q, k: [head_dim]; NULL: no norm */
    rw_dtype norm_dtype[2];
    double norm_per_column; /* 1 / head_dim */
    float norm_eps;
    float norm_offset;
    bool norm_cast_before_weight;
} rw_rope_append_params;

RWI_INLINE rwi_work rope_append_work(const rw_rope_append_params *p) {
    rwi_work rope = rope_work(&p->rope), kv = kv_append_work(&p->kv);
    rwi_work work = {rope.items, rope.bytes_per_item + kv.bytes_per_item};
    return work;
}

/* Checks all ids of a token and finds its place in the cache. */
RWI_INLINE bool rope_append_find(const rw_rope_append_params *p, int64_t b, int64_t s,
                                 const int64_t *ids, rwi_kv_place *place, rwi_bad_id *bad) {
    return rope_ids_valid(&p->rope, ids, bad) && kv_append_find(&p->kv, b, s, place, bad);
}

/* The norm factor of every column of a head, without its weight. */
RWI_INLINE rwi_rms_factor rope_append_factor(const rw_rope_append_params *p,
                                             double sum_of_squares) {
    return rwi_rms_factor_of(sum_of_squares * p->norm_per_column + (double)p->norm_eps);
}

RWI_INLINE float rope_append_norm(const rw_rope_append_params *p, rw_dtype dtype, float x,
                                  rwi_rms_factor factor, float weight) {
    float normalised = rwi_rms_scale(x, factor);
    if (p->norm_cast_before_weight)
        normalised = rwi_round_to(dtype, normalised);
    return normalised * (weight + p->norm_offset);
}

#endif
