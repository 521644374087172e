/* The KV cache: parameters and formulas, for kv_cpu.c and kv.hip. */
#ifndef RWI_KV_PARAMS_H
#define RWI_KV_PARAMS_H

#include "shared/document.h"
#include "shared/kv_pages.h"
#include "shared/rms.h"
#include "rope_params.h"

/* k or v: the new tokens [batch, seq, heads, width] and the cache [pages, rows, heads, width]. */
typedef struct rwi_kv_side {
    const void *in;
    void *cache;
    int64_t heads; /* 0: absent */
    int64_t width;
    int64_t in_stride[3];
    int64_t cache_stride[3];
    const float *scale;   /* of 8-bit caches; NULL: 1 */
    int64_t scale_stride; /* from head to head */
} rwi_kv_side;

/* Where tokens are written: by their slots if these are given, else by their positions. */
typedef struct rwi_kv_targets {
    rwi_ids slots;           /* [1, batch, seq] */
    rwi_documents sequences; /* of packed tokens; cu_seqlens absent: one for each row of tokens */
    rwi_token_ids positions; /* their offsets */
    rwi_kv_pages pages;      /* `shift` is unused: pages have any size */
    int64_t page_size;
    int64_t ring; /* 0: none */
} rwi_kv_targets;

typedef struct rw_kv_append_params {
    rwi_kv_side sides[2]; /* k, v */
    rw_dtype dtype;
    rw_dtype cache_dtype; /* another one: of 8 bits */
    int64_t batch;
    int64_t seq;
    rwi_kv_targets targets;
} rw_kv_append_params;

/* An item is a token. */
RWI_INLINE rwi_work kv_append_work(const rw_kv_append_params *p) {
    int64_t columns = p->sides[0].heads * p->sides[0].width + p->sides[1].heads * p->sides[1].width;
    int64_t bytes = (int64_t)rwi_dtype_size(p->dtype) + (int64_t)rwi_dtype_size(p->cache_dtype);
    rwi_work work = {p->batch * p->seq, columns * bytes};
    return work;
}

/* Head 0 of a token of k or v, and its place in the cache. */
RWI_INLINE const void *rwi_kv_source(const rw_kv_append_params *p, int side, int64_t b, int64_t s) {
    const rwi_kv_side *kv = &p->sides[side];
    return rwi_element(p->dtype, kv->in, b * kv->in_stride[0] + s * kv->in_stride[1]);
}

RWI_INLINE void *rwi_kv_target(const rw_kv_append_params *p, int side, rwi_kv_place place) {
    const rwi_kv_side *kv = &p->sides[side];
    return rwi_element(p->cache_dtype, kv->cache,
                       place.page * kv->cache_stride[0] + place.row * kv->cache_stride[1]);
}

/* What the numbers of a head are divided by. */
RWI_INLINE float rwi_kv_scale(const rwi_kv_side *kv, int64_t head) {
    return kv->scale ? ((const float *)rwi_global(kv->scale))[head * kv->scale_stride] : 1.0f;
}

/* ---- the place of a token ---- */

typedef enum rwi_kv_token {
    RWI_KV_INVALID = 0, /* a number is out of range */
    RWI_KV_PADDING,     /* not a token: nothing is computed */
    RWI_KV_REPLACED,    /* a later token of the call takes its place in the ring: not written */
    RWI_KV_WRITTEN
} rwi_kv_token;

RWI_INLINE rwi_kv_token rwi_kv_find_slot(const rwi_kv_targets *to, int64_t slot,
                                         rwi_kv_place *place, rwi_bad_id *bad) {
    if (slot == -1)
        return RWI_KV_PADDING;
    *bad = rwi_bad(RW_FAULT_SLOT, slot);
    if (slot < 0 || slot >= to->pages.length)
        return RWI_KV_INVALID;
    rwi_split_index(slot, to->page_size, &place->page, &place->row);
    return RWI_KV_WRITTEN;
}

RWI_INLINE rwi_kv_token rwi_kv_find_position(const rwi_kv_targets *to, int64_t b, int64_t position,
                                             rwi_kv_place *place, rwi_bad_id *bad) {
    int64_t page;
    *bad = rwi_bad(RW_FAULT_CACHE_POSITION, position);
    if (position < 0 || position >= to->pages.length)
        return RWI_KV_INVALID;
    place->page = b;
    place->row = position;
    if (!to->pages.table.data)
        return RWI_KV_WRITTEN;
    rwi_split_index(position, to->page_size, &page, &place->row);
    place->page = rwi_ids_load(&to->pages.table, 0, b, page);
    *bad = rwi_bad(RW_FAULT_PAGE, place->page);
    return place->page >= 0 && place->page < to->pages.num_pages ? RWI_KV_WRITTEN : RWI_KV_INVALID;
}

/* The place of token (b, s) in the cache, if it is written; *bad receives the number that is out of
 * range. */
RWI_INLINE rwi_kv_token kv_append_find(const rw_kv_append_params *p, int64_t b, int64_t s,
                                       rwi_kv_place *place, rwi_bad_id *bad) {
    const rwi_kv_targets *to = &p->targets;
    const rwi_ids *cu_seqlens = &to->sequences.cu_seqlens;
    int64_t later = p->seq - 1 - s, turns; /* tokens of the sequence after this one */
    if (to->slots.data)
        return rwi_kv_find_slot(to, rwi_ids_load(&to->slots, 0, b, s), place, bad);
    if (cu_seqlens->data) {
        rwi_document sequence;
        if (s >= rwi_ids_load(cu_seqlens, 0, 0, to->sequences.count))
            return RWI_KV_PADDING;
        if (!rwi_document_find(&to->sequences, 0, s, &sequence, bad))
            return RWI_KV_INVALID;
        b = sequence.index;
        later = sequence.end - 1 - s;
        s -= sequence.begin;
    }
    int64_t position = rwi_token_id(&to->positions, 0, b, s);
    if (to->ring > 0 && position >= 0) {
        if (later >= to->ring)
            return RWI_KV_REPLACED;
        rwi_split_index(position, to->ring, &turns, &position);
    }
    return rwi_kv_find_position(to, b, position, place, bad);
}

/* ---- with the rotation ---- */

/* The norm of the heads of q, k or v. */
typedef struct rwi_head_norm {
    bool present;
    rw_dtype dtype;
    const void *weight; /* [width]; NULL: 1, without the offset */
    double per_column;  /* 1 / width */
} rwi_head_norm;

typedef struct rw_rope_append_params {
    rw_rope_params rope; /* heads[0]: q; heads[1] is absent. Without rotation: no frequencies */
    rw_kv_append_params kv;
    rwi_head_norm norms[3]; /* of q, k and v */
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
RWI_INLINE rwi_kv_token rope_append_find(const rw_rope_append_params *p, int64_t b, int64_t s,
                                         const int64_t *ids, rwi_kv_place *place, rwi_bad_id *bad) {
    rwi_bad_id id;
    const rwi_kv_token token = kv_append_find(&p->kv, b, s, place, bad);
    if (token == RWI_KV_PADDING || rope_ids_valid(&p->rope, ids, &id))
        return token;
    *bad = id;
    return RWI_KV_INVALID;
}

/* The norm factor of every column of a head, without its weight. */
RWI_INLINE rwi_rms_factor rope_append_factor(const rw_rope_append_params *p, double per_column,
                                             double sum_of_squares) {
    return rwi_rms_factor_of(sum_of_squares * per_column + (double)p->norm_eps);
}

/* The weight of a column, with its offset. */
RWI_INLINE float rope_append_weight(const rw_rope_append_params *p, const rwi_head_norm *norm,
                                    int64_t column) {
    if (!norm->weight)
        return 1.0f;
    return rwi_load(norm->dtype, rwi_global(norm->weight), column) + p->norm_offset;
}

/* `weight` contains the offset. */
RWI_INLINE float rope_append_norm(const rw_rope_append_params *p, rw_dtype dtype, float x,
                                  rwi_rms_factor factor, float weight) {
    float normalised = rwi_rms_scale(x, factor);
    if (p->norm_cast_before_weight)
        normalised = rwi_round_to(dtype, normalised);
    return normalised * weight;
}

#endif
