/* Attention: parameters and formulas, for attention_cpu.c and attention.hip.
 *
 * Heads that share k and v are computed together: a row is one query of one head, and the rows of a
 * group of heads are numbered query * group + head within the group. Few rows against many keys are
 * split over the keys: attention computes a partial result for each part, attention_combine
 * combines them.
 *
 * Sequences of different lengths (ragged batches) are described by parameters for all of them, from
 * which attention_ragged.h makes those of one sequence: a batch of 1, whose tensors begin at the
 * sequence. Everything else sees only these.
 */
#ifndef RWI_ATTENTION_PARAMS_H
#define RWI_ATTENTION_PARAMS_H

#include <ropewalk/attention.h>

#include "shared/kv_pages.h"
#include "softmax_params.h"

#define RWI_ATTENTION_MAX_DIM 576

#define RWI_LOG2_E 1.44269504f

/* Rows of a tile (FEW_ROWS where there are few rows), and keys of a tile. */
#define RWI_ATTENTION_ROWS 64
#define RWI_ATTENTION_TALL_ROWS 128 /* of Hopper's kernel whose waves have roles */
#define RWI_ATTENTION_FEW_ROWS 16
#define RWI_ATTENTION_KEYS 64

/* The minimum number of keys of a part. */
#define RWI_ATTENTION_PART_KEYS 256

/* [batch, seq, heads, width], the last axis of stride 1; k and v in pages: [pages, page_size,
 * heads, width]. */
typedef struct rwi_attention_tensor {
    void *data;
    int64_t stride[3];
} rwi_attention_tensor;

/* Partial results, without the sinks: out [count, rows of all groups, rwi_attention_part_width()]
 * holds sums of weighted values, largest and sum [count, rows] the largest score and the sum of weights relative to it.
 * The two are separate: in one LSE the sum would be lost where the score is large (1e7). */
typedef struct rwi_attention_parts {
    int64_t count; /* 1: the keys are not split, and the rest is unused */
    int64_t keys;  /* keys of a part (the last may have fewer), a multiple of RWI_ATTENTION_KEYS */
    float *out;
    float *largest; /* unspecified where the sum is 0 */
    float *sum;
} rwi_attention_parts;

/* What the numbers of k or v are multiplied by, if these are codes. */
typedef struct rwi_kv_scale_of {
    const float *data; /* NULL: 1 */
    int64_t stride;    /* from one head of k and v to the next */
} rwi_kv_scale_of;

/* Sequences of different lengths. */
typedef struct rwi_attention_ragged {
    rwi_ids queries; /* cu_seqlens_q [1, 1, batch + 1] of the tokens of q; absent: not ragged */
    rwi_ids keys;    /* the same of k and v; absent: these have a batch axis, or pages */
    int64_t batch;
    int64_t tokens; /* of q; those behind the last sequence are padding */
    int64_t key_tokens;
    int64_t max_seq_q; /* no sequence has more queries */
    rw_alignment alignment;
    rw_alignment alibi_alignment;
} rwi_attention_ragged;

typedef struct rw_attention_params {
    rw_softmax_params rules; /* of the scores, only the lengths are used */
    rwi_attention_tensor q;
    rwi_attention_tensor k;
    rwi_attention_tensor v;
    rwi_attention_tensor out;
    rwi_attention_tensor lse; /* f32 [batch, heads, seq]; data NULL: not wanted */
    rwi_kv_pages pages;       /* of k and v */
    rwi_attention_parts parts;
    rw_dtype dtype;    /* of q, k and v */
    rw_dtype kv_dtype; /* the same, or of 8-bit codes, which are converted */
    rwi_kv_scale_of k_scale;
    rwi_kv_scale_of v_scale;
    rw_dtype out_dtype;
    rw_f32_products f32_products;
    int32_t kv_heads;
    int32_t group; /* heads that share one head of k and v */
    int32_t head_dim;
    int32_t v_dim;
    int64_t num_rows;    /* of all groups of all sequences */
    int64_t first_token; /* of the first sequence, in reports of faults */
    rwi_attention_ragged ragged;
} rw_attention_params;

typedef rw_attention_params rw_attention_combine_params;

RWI_INLINE float rwi_attention_scale_at(const rwi_kv_scale_of *scale, int64_t kv_head) {
    return scale->data ? ((const float *)rwi_global(scale->data))[kv_head * scale->stride] : 1.0f;
}

/* Makes the scale of scores of codes that of a head of k. */
RWI_INLINE void rwi_attention_scale_keys(rw_attention_params *p, int64_t kv_head) {
    p->rules.scale *= rwi_attention_scale_at(&p->k_scale, kv_head);
}

/* Whether the rows and the keys that they see follow from the parameters alone, without memory that
 * an earlier operation may write. */
RWI_INLINE bool rwi_attention_rows_are_known(const rw_attention_params *p) {
    return p->rules.pattern.is_band && !p->rules.alibi.slopes && !p->pages.table.data &&
           !p->ragged.queries.data && !p->k_scale.data;
}

/* Floats from one row of partial results to the next: rows start on multiples of 16 bytes. */
RWI_INLINE int64_t rwi_attention_part_width(const rw_attention_params *p) {
    return ((int64_t)p->v_dim + 3) / 4 * 4;
}

/* GPU: whether the kernels of attention_gpu.h lack a width: more than 256, or no multiple of 8. */
RWI_INLINE bool rwi_attention_is_wide(const rw_attention_params *p) {
    return p->head_dim > 256 || p->v_dim > 256 || p->head_dim % 8 != 0 || p->v_dim % 8 != 0;
}

/* Whether v is the first columns of k, in the same memory. */
RWI_INLINE bool rwi_attention_v_is_k(const rw_attention_params *p) {
    bool same = p->v.data == p->k.data && p->v_dim <= p->head_dim;
    for (int axis = 0; axis < 3; axis++)
        same = same && p->v.stride[axis] == p->k.stride[axis];
    return same;
}

/* GPU: whether k and v are a latent cache (DeepSeek's MLA) of 16 bits, for which Hopper has a kernel. */
RWI_INLINE bool rwi_attention_is_latent(const rw_attention_params *p) {
    return rwi_attention_v_is_k(p) && p->head_dim > 256 && p->v_dim <= 512 &&
           p->head_dim % 8 == 0 && p->v_dim % 8 == 0 && p->dtype != RW_F32 &&
           p->kv_dtype == p->dtype;
}

/* Rows of one group. */
RWI_INLINE int64_t rwi_attention_group_rows(const rw_attention_params *p) {
    return p->rules.scores.seq_q * p->group;
}

/* Groups of all sequences. */
RWI_INLINE int64_t rwi_attention_groups(const rw_attention_params *p) {
    return p->rules.scores.batch * p->kv_heads;
}

/* Rows of a tile: RWI_ATTENTION_FEW_ROWS or `most`. Two tiles of few rows read the keys twice, but
 * have fewer unused rows. */
RWI_INLINE int32_t rwi_attention_tile_rows(const rw_attention_params *p, int32_t most) {
    return rwi_attention_group_rows(p) <= 2 * RWI_ATTENTION_FEW_ROWS ? RWI_ATTENTION_FEW_ROWS
                                                                     : most;
}

RWI_INLINE int64_t rwi_attention_row_tiles(const rw_attention_params *p, int32_t tile_rows) {
    return rwi_ceil_div(rwi_attention_group_rows(p), tile_rows);
}

/* A tile of rows and one part of the keys. */
typedef struct rwi_attention_item {
    int64_t b;
    int64_t kv_head;
    int64_t first; /* first row */
    int32_t rows;
    int64_t part;
    rwi_span keys;
} rwi_attention_item;

/* The items of a group: each of its tiles of rows, times the parts of the keys. */
RWI_INLINE int64_t rwi_attention_items(const rw_attention_params *p, int32_t tile_rows) {
    return rwi_attention_groups(p) * rwi_attention_row_tiles(p, tile_rows) * p->parts.count;
}

/* Part `part` of tile `tile` of group `group`. */
RWI_INLINE rwi_attention_item rwi_attention_item_at(const rw_attention_params *p, int64_t group,
                                                    int64_t tile, int64_t part, int32_t tile_rows) {
    const rwi_scores *scores = &p->rules.scores;
    rwi_attention_item found;
    rwi_split_index(group, p->kv_heads, &found.b, &found.kv_head);
    found.first = tile * tile_rows;
    found.rows = (int32_t)rwi_min(tile_rows, rwi_attention_group_rows(p) - found.first);
    found.part = part;
    found.keys.begin = (int32_t)rwi_min(scores->seq_k, part * p->parts.keys);
    found.keys.end = (int32_t)rwi_min(scores->seq_k, found.keys.begin + p->parts.keys);
    return found;
}

/* An item is a row of any group. */
RWI_INLINE rwi_work attention_combine_work(const rw_attention_params *p) {
    rwi_work work = {p->num_rows, p->parts.count * (p->v_dim + 2) * (int64_t)sizeof(float)};
    return work;
}

/* A row: its query and head, its visible keys, and what is added to its scores. */
typedef struct rwi_attention_row {
    rwi_pattern_row pattern;
    int64_t mask; /* offset */
    int32_t h;
    float slope;
    bool valid; /* its values of the pattern's tensors are valid */
} rwi_attention_row;

/* Whether all keys of a span are in existing pages; else *bad receives the first invalid page
 * number. */
RWI_INLINE bool rwi_attention_pages_exist(const rw_attention_params *p, int64_t b, rwi_span keys,
                                          rwi_bad_id *bad) {
    const rwi_kv_pages *pages = &p->pages;
    if (!pages->table.data || rwi_span_empty(keys))
        return true;
    for (int64_t n = keys.begin >> pages->shift; n <= (keys.end - 1) >> pages->shift; n++) {
        *bad = rwi_bad(RW_FAULT_PAGE, rwi_ids_load(&pages->table, 0, b, n));
        if (bad->id < 0 || bad->id >= pages->num_pages)
            return false;
    }
    return true;
}

/* Finds row `r` of a group, without checking its pages. */
RWI_INLINE void rwi_attention_find_row(const rw_attention_params *p, int64_t b, int64_t kv_head,
                                       int64_t r, rwi_attention_row *row, rwi_bad_id *bad) {
    int64_t i, head;
    rwi_split_index(r, p->group, &i, &head);
    row->h = (int32_t)(kv_head * p->group + head);
    row->valid = rwi_pattern_row_at(&p->rules.pattern, b, i, &row->pattern, bad);
    row->slope =
        p->rules.alibi.slopes ? ((const float *)rwi_global(p->rules.alibi.slopes))[row->h] : 0.0f;
    row->mask = p->rules.mask.data
                    ? b * p->rules.mask.stride[0] + row->h * p->rules.mask.stride[1] +
                          i * p->rules.mask.stride[2]
                    : 0;
}

/* Restricts the keys of a row to those of its part. */
RWI_INLINE void rwi_attention_meet_keys(const rw_attention_params *p, rwi_attention_row *row,
                                        rwi_span keys) {
    if (p->parts.count == 1)
        return;
    row->pattern.prefix = rwi_span_meet(row->pattern.prefix, keys.begin, keys.end);
    row->pattern.window = rwi_span_meet(row->pattern.window, keys.begin, keys.end);
    row->pattern.global = rwi_span_meet(row->pattern.global, keys.begin, keys.end);
}

/* Finds the page and row of key j; false where its page is invalid. */
RWI_INLINE bool rwi_attention_find_key(const rw_attention_params *p, int64_t b, int64_t j,
                                       rwi_kv_place *place) {
    rwi_bad_id bad;
    return rwi_kv_find(&p->pages, b, j, place, &bad);
}

/* Offset of a found key in k or v. */
RWI_INLINE int64_t rwi_attention_key_at(const rwi_attention_tensor *tensor, int64_t kv_head,
                                        const rwi_kv_place *place) {
    return place->page * tensor->stride[0] + place->row * tensor->stride[1] +
           kv_head * tensor->stride[2];
}

/* Offset of a row in q or out. */
RWI_INLINE int64_t rwi_attention_at(const rwi_attention_tensor *tensor, int64_t b,
                                    const rwi_attention_row *row) {
    return b * tensor->stride[0] + row->pattern.i * tensor->stride[1] + row->h * tensor->stride[2];
}

/* Offset of its LSE. */
RWI_INLINE int64_t rwi_attention_lse_at(const rw_attention_params *p, int64_t b,
                                        const rwi_attention_row *row) {
    const int64_t *stride = p->lse.stride;
    return b * stride[0] + row->h * stride[1] + row->pattern.i * stride[2];
}

/* Whether scores are the products times the scale, without further rules. */
RWI_INLINE bool rwi_attention_is_plain(const rw_attention_params *p) {
    return p->rules.softcap == 0.0f && !p->rules.alibi.slopes && !p->rules.mask.data;
}

/* GPU: whether scores are kept in the unit of products, without their scale; their differences times
 * `factor` are then exponents of 2. A soft cap's polynomial must neither overflow nor underflow in
 * this unit. */
RWI_INLINE bool rwi_attention_keeps_unit(const rw_attention_params *p) {
    const rw_softmax_params *rules = &p->rules;
    if (rules->alibi.slopes || rules->mask.data || !(rules->scale > 0.0f) ||
        !(rules->scale * RWI_LOG2_E < INFINITY))
        return false;
    float inner = rules->softcap == 0.0f ? 1.0f : rules->scale / rules->softcap;
    return inner > 0x1p-20f && inner < 0x1p20f;
}

/* GPU: whether scores are kept as the products themselves. */
RWI_INLINE bool rwi_attention_keeps_products(const rw_attention_params *p) {
    return rwi_attention_is_plain(p) && rwi_attention_keeps_unit(p);
}

/* The factor from a kept score to the score. */
RWI_INLINE float rwi_attention_kept_scale(const rw_attention_params *p) {
    return rwi_attention_keeps_unit(p) ? p->rules.scale : 1.0f;
}

/* Which of the keys [j, j + keys) the rows of an item see: all, some or none. */
RWI_INLINE rw_tile rwi_attention_ask_tile(const rw_attention_params *p,
                                          const rwi_attention_item *item, int64_t j, int64_t keys) {
    rwi_rectangle tile = {item->b,
                          {(int32_t)(item->first / p->group),
                           (int32_t)((item->first + item->rows - 1) / p->group + 1)},
                          {(int32_t)j, (int32_t)(j + keys)}};
    return rwi_pattern_tile(&p->rules.pattern, &tile);
}

/* The token of a query, for reports of faults. */
RWI_INLINE int64_t rwi_attention_token(const rw_attention_params *p, int64_t b,
                                       const rwi_attention_row *row) {
    return p->first_token + b * p->rules.scores.seq_q + row->pattern.i;
}

/* The number of row `r` of a group, counted over all groups. */
RWI_INLINE int64_t rwi_attention_row_number(const rw_attention_params *p, int64_t b,
                                            int64_t kv_head, int64_t r) {
    int64_t group = b * p->kv_heads + kv_head;
    return group * rwi_attention_group_rows(p) + r;
}

/* share * root^2. Where a sink is far above all scores, the product may be subnormal or 0 in f32
 * although its product with a large value is not: it is never computed alone. */
typedef struct rwi_attention_factor {
    float share;
    float root;
} rwi_attention_factor;

RWI_INLINE float rwi_attention_multiply(rwi_attention_factor by, float x) {
    return x * by.share * by.root * by.root;
}

/* The final values of a row: the factor of its sum of weighted values, and its LSE. */
typedef struct rwi_attention_end {
    rwi_attention_factor factor;
    float lse;
} rwi_attention_end;

/* The exponents in `sum` are relative to `base`. */
RWI_INLINE rwi_attention_end rwi_attention_end_at(float base, float sum) {
    rwi_attention_end end = {{rwi_softmax_share(sum), 1.0f},
                             sum == 0.0f ? -INFINITY : base + logf(sum)};
    return end;
}

/* Exponents from which on exp() alone is the factor: far from subnormal, also times 1 / sum and the
 * factors that kernels join to it. */
#define RWI_ATTENTION_LEAST_EXPONENT (-50.0f)

/* The same, including the sink of head h if there are sinks. */
RWI_INLINE rwi_attention_end rwi_attention_finish_codes(const rw_attention_params *p, int64_t h,
                                                        float base, float sum) {
    if (!p->rules.sinks)
        return rwi_attention_end_at(base, sum);
    float sink = rwi_load(p->rules.sinks_dtype, rwi_global(p->rules.sinks), h);
    float most = sum == 0.0f || sink > base ? sink : base;
    float new_base = rwi_softmax_base(most);
    float exponent = base - new_base, kept = sum == 0.0f ? 0.0f : expf(exponent);
    rwi_attention_end end = rwi_attention_end_at(new_base, sum * kept + expf(sink - new_base));
    if (sum != 0.0f && exponent < RWI_ATTENTION_LEAST_EXPONENT)
        end.factor.root = expf(0.5f * exponent);
    else
        end.factor.share *= kept;
    return end;
}

/* The same, including the scale of v. */
RWI_INLINE rwi_attention_end rwi_attention_finish(const rw_attention_params *p, int64_t h,
                                                  float base, float sum) {
    rwi_attention_end end = rwi_attention_finish_codes(p, h, base, sum);
    if (p->v_scale.data)
        end.factor.share *= rwi_attention_scale_at(&p->v_scale, h / p->group);
    return end;
}

#endif
