/* Attention: parameters and formulas, for attention_cpu.c and attention.hip.
 *
 * Heads that share k and v are computed together: a row is a query of one head, and the rows of a
 * group of heads are numbered query * group + head of the group.
 */
#ifndef RWI_ATTENTION_KERNEL_H
#define RWI_ATTENTION_KERNEL_H

#include "softmax_kernel.h"

#define RWI_ATTENTION_MAX_DIM 256

/* Rows and keys of a tile. */
#define RWI_ATTENTION_ROWS 64
#define RWI_ATTENTION_KEYS 64

/* [batch, heads, seq, width], the last axis of stride 1. */
typedef struct rwi_attention_tensor {
    void *data;
    int64_t stride[3];
} rwi_attention_tensor;

typedef struct rw_attention_params {
    rw_softmax_params rules; /* scores: the lengths alone */
    rwi_attention_tensor q;
    rwi_attention_tensor k;
    rwi_attention_tensor v;
    rwi_attention_tensor out;
    rwi_attention_tensor lse; /* f32 without the last axis; data NULL: not wanted */
    rw_dtype dtype;           /* of q, k and v */
    rw_dtype out_dtype;
    int32_t group; /* heads that share one of k and v */
    int32_t head_dim;
    int32_t v_dim;
} rw_attention_params;

/* Tiles of rows of one group. */
RWI_INLINE int64_t rwi_attention_row_tiles(const rw_attention_params *p) {
    return rwi_ceil_div(p->rules.scores.seq_q * p->group, RWI_ATTENTION_ROWS);
}

/* An item is a tile of rows. */
RWI_INLINE rwi_work attention_work(const rw_attention_params *p) {
    const rwi_scores *scores = &p->rules.scores;
    int64_t rows = rwi_min(scores->seq_q * p->group, RWI_ATTENTION_ROWS);
    rwi_work work = {scores->batch * (scores->heads / p->group) * rwi_attention_row_tiles(p),
                     (rows + scores->seq_k * (1 + rows / 8)) * (p->head_dim + p->v_dim)};
    return work;
}

/* A tile of rows. */
typedef struct rwi_attention_item {
    int64_t b;
    int64_t kv_head;
    int64_t first; /* row */
    int32_t rows;
} rwi_attention_item;

RWI_INLINE rwi_attention_item rwi_attention_find(const rw_attention_params *p, int64_t item) {
    const rwi_scores *scores = &p->rules.scores;
    rwi_attention_item found;
    int64_t rest, tile;
    rwi_split_index(item, rwi_attention_row_tiles(p), &rest, &tile);
    rwi_split_index(rest, scores->heads / p->group, &found.b, &found.kv_head);
    found.first = tile * RWI_ATTENTION_ROWS;
    found.rows = (int32_t)rwi_min(RWI_ATTENTION_ROWS, scores->seq_q * p->group - found.first);
    return found;
}

/* A row: its query and head, what it sees and what is added to its scores. */
typedef struct rwi_attention_row {
    rwi_pattern_row pattern;
    int64_t h;
    int64_t mask; /* offset */
    float slope;
    bool sane; /* what the pattern's tensors hold makes sense for it */
} rwi_attention_row;

RWI_INLINE void rwi_attention_find_row(const rw_attention_params *p, const rwi_attention_item *item,
                                       int32_t r, rwi_attention_row *row, int64_t *bad) {
    int64_t i, head;
    rwi_split_index(item->first + r, p->group, &i, &head);
    row->h = item->kv_head * p->group + head;
    row->sane = rwi_pattern_row_at(&p->rules.pattern, item->b, i, &row->pattern, bad);
    row->slope = p->rules.alibi.slopes ? p->rules.alibi.slopes[row->h] : 0.0f;
    row->mask = item->b * p->rules.mask.stride[0] + row->h * p->rules.mask.stride[1] +
                i * p->rules.mask.stride[2];
}

/* Where a row lies in a tensor with the heads of q. */
RWI_INLINE int64_t rwi_attention_at(const rwi_attention_tensor *tensor, int64_t b,
                                    const rwi_attention_row *row) {
    return b * tensor->stride[0] + row->h * tensor->stride[1] + row->pattern.i * tensor->stride[2];
}

/* Whether scores are more than products times the scale. */
RWI_INLINE bool rwi_attention_is_plain(const rw_attention_params *p) {
    return p->rules.softcap == 0.0f && !p->rules.alibi.slopes && !p->rules.mask.data;
}

/* The score of key j from its product. */
RWI_INLINE float rwi_attention_score(const rw_attention_params *p, const rwi_attention_row *row,
                                     float product, int64_t j) {
    const rw_softmax_params *rules = &p->rules;
    float s = rwi_softmax_score(rules, product);
    if (rules->alibi.slopes)
        s += rwi_alibi_at(rules->alibi.is_signed, row->slope,
                          j - rwi_alibi_position(&rules->alibi, &row->pattern));
    if (rules->mask.data)
        s += rwi_load(rules->mask.dtype, rules->mask.data, row->mask + j);
    return s;
}

/* The keys [j, j + keys) that the queries of rows [0, item->rows) see. */
RWI_INLINE rw_tile rwi_attention_ask_tile(const rw_attention_params *p,
                                          const rwi_attention_item *item, int64_t j, int64_t keys) {
    rwi_rectangle tile = {item->b,
                          {(int32_t)(item->first / p->group),
                           (int32_t)((item->first + item->rows - 1) / p->group + 1)},
                          {(int32_t)j, (int32_t)(j + keys)}};
    return rwi_pattern_tile(&p->rules.pattern, &tile);
}

/* How a row ends: what its sum of weighted values is multiplied by, and its LSE. */
typedef struct rwi_attention_end {
    float share;
    float lse;
} rwi_attention_end;

/* `largest` is the row's largest score, `sum` that of exp(score - base of largest). */
RWI_INLINE rwi_attention_end rwi_attention_finish(const rw_attention_params *p, int64_t h,
                                                  float largest, float sum) {
    rwi_attention_end end;
    float base = rwi_softmax_base(largest), kept = 1.0f;
    if (p->rules.sinks) {
        float sink = rwi_load(p->rules.sinks_dtype, p->rules.sinks, h);
        float most = sink > largest ? sink : largest;
        float new_base = rwi_softmax_base(most);
        kept = largest == -INFINITY && sum == 0.0f ? 0.0f : expf(base - new_base);
        sum = sum * kept + expf(sink - new_base);
        base = new_base;
    }
    end.share = kept * rwi_softmax_share(sum);
    end.lse = sum == 0.0f ? -INFINITY : base + logf(sum);
    return end;
}

#endif
