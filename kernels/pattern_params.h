/* Attention patterns: the only definition of the visibility predicate, for pattern_cpu.c,
 * pattern.hip and the operations that fuse it.
 *
 *   visible(i, j) = padding(j) AND document(p, j) AND bit(i, j)
 *                   AND ( j < prefix OR ( causal(p, j) AND ( window(p, j) OR global(p, j) ) ) )
 *
 * with p = i + shift, or i + key_end + shift. For one query everything except the bits and the
 * globals is an interval of keys. The formula therefore has two halves: rwi_pattern_row_at()
 * computes the intervals of a query once, and rwi_pattern_visible() tests a key. rwi_pattern_tile()
 * tests the intervals of the first and the last query of a rectangle: no bound of an interval
 * decreases from one query to the next.
 */
#ifndef RWI_PATTERN_PARAMS_H
#define RWI_PATTERN_PARAMS_H

#include <ropewalk/pattern.h>

#include "shared/document.h"
#include "shared/dtype.h"

/* Passed to kernels by value. */
typedef struct rwi_pattern {
    int32_t seq_k;
    int32_t shift;           /* from a query's index to its position */
    bool shift_from_key_end; /* key_end of the sequence is to be added */
    bool causal;
    bool is_band;       /* all intervals follow from causal and the window: query i sees keys */
    int32_t band_begin; /* [i + band_begin, i + band_end) */
    int32_t band_end;
    int64_t left; /* window; RWI_OPEN: unbounded */
    int64_t right;
    int64_t prefix_length;
    rwi_ids prefix; /* [batch]; absent: prefix_length */
    rwi_ids key_begin;
    rwi_ids key_end;
    rwi_documents documents; /* its ids may be absent */
    const uint8_t *globals;  /* NULL: none, or no window that they would extend */
    const uint8_t *bits;     /* [batch, seq_q, ceil(seq_k / 8)]; NULL: all set */
    int64_t bits_stride[2];
    const void *mask; /* [batch, seq_q, seq_k]: rwi_load_mask(); NULL: none */
    int64_t mask_stride[2];
    rw_dtype mask_dtype;
    bool (*function)(void *user, const rw_pattern_pair *pair); /* CPU only; NULL: true */
    void *function_user;
    int64_t function_b; /* the sequence that the function is asked about is so many later */
} rwi_pattern;

#define RWI_OPEN ((int64_t)1 << 40)

/* Keys [begin, end) of [0, seq_k]. */
typedef struct rwi_span {
    int32_t begin;
    int32_t end;
} rwi_span;

RWI_INLINE rwi_span rwi_span_meet(rwi_span a, int64_t begin, int64_t end) {
    int64_t first = rwi_max(a.begin, rwi_min(begin, a.end));
    int64_t last = rwi_min(a.end, end);
    rwi_span both = {(int32_t)first, (int32_t)rwi_max(first, last)};
    return both;
}

RWI_INLINE bool rwi_span_empty(rwi_span span) {
    return span.end <= span.begin;
}

RWI_INLINE bool rwi_span_has(rwi_span span, int32_t j) {
    return j >= span.begin && j < span.end;
}

/* Bit `at`, lowest first. */
RWI_INLINE bool rwi_bit(const uint8_t *bits, int64_t at) {
    const uint8_t *bytes = (const uint8_t *)rwi_global(bits);
    return (bytes[at >> 3] >> (at & 7)) & 1;
}

/* Whether any bit of [begin, end) is set. */
RWI_INLINE bool rwi_any_bit(const uint8_t *bits, int64_t begin, int64_t end) {
    const uint8_t *bytes = (const uint8_t *)rwi_global(bits);
    for (int64_t at = begin; at < end;) {
        if ((at & 7) == 0 && end - at >= 8) {
            if (bytes[at >> 3])
                return true;
            at += 8;
        } else if (rwi_bit(bits, at++)) {
            return true;
        }
    }
    return false;
}

/* Whether visibility of keys depends on more than the intervals of their query. */
RWI_INLINE bool rwi_pattern_has_cells(const rwi_pattern *p) {
    return p->globals || p->bits || p->mask || p->function;
}

/* ---- one query ---- */

/* The common case: no padding, documents, prefix or global keys. */
RWI_INLINE void rwi_pattern_find_band(rwi_pattern *p) {
    p->is_band = !p->shift_from_key_end && p->prefix_length == 0 && !p->prefix.data &&
                 !p->key_begin.data && !p->key_end.data && !p->documents.cu_seqlens.data &&
                 !p->globals;
    p->band_begin = (int32_t)rwi_max(INT32_MIN, p->shift - p->left);
    p->band_end = (int32_t)rwi_min(INT32_MAX, p->shift + (p->causal ? 1 : p->right + 1));
}

/* The keys that query i of a band sees. */
RWI_INLINE rwi_span rwi_pattern_band(const rwi_pattern *p, int64_t i) {
    int64_t begin = rwi_max(0, rwi_min(i + p->band_begin, p->seq_k));
    int64_t end = rwi_min(i + p->band_end, p->seq_k);
    rwi_span keys = {(int32_t)begin, (int32_t)rwi_max(begin, end)};
    return keys;
}

/* The separate bounds of a query's keys. */
typedef struct rwi_pattern_limits {
    int64_t position;
    int64_t key_end;
    rwi_span keys;      /* padding and document */
    int64_t prefix_end; /* j < prefix */
    int64_t causal_end; /* causal: j < causal_end */
    int64_t window_begin;
    int64_t window_end;
} rwi_pattern_limits;

/* Position, padding and document of a query. False where a value on the device is invalid: *bad
 * receives it. */
RWI_INLINE bool rwi_pattern_keys_at(const rwi_pattern *p, int64_t b, int64_t i,
                                    rwi_pattern_limits *limits, rwi_bad_id *bad) {
    rwi_span all = {0, p->seq_k};
    int64_t begin = p->key_begin.data ? rwi_ids_load(&p->key_begin, b, 0, 0) : 0;
    int64_t end = p->key_end.data ? rwi_ids_load(&p->key_end, b, 0, 0) : p->seq_k;
    *bad = rwi_bad(RW_FAULT_LENGTH, begin);
    if (begin < 0 || begin > p->seq_k)
        return false;
    *bad = rwi_bad(RW_FAULT_LENGTH, end);
    if (end < begin || end > p->seq_k)
        return false;
    int64_t position = i + p->shift + (p->shift_from_key_end ? end : 0);
    if (p->documents.cu_seqlens.data) {
        rwi_document document = {rwi_max(0, rwi_min(position, p->seq_k)), 0, 0};
        document.end = document.begin; /* outside all documents */
        if (position >= 0 && position < p->seq_k) {
            if (!rwi_document_find(&p->documents, b, position, &document, bad))
                return false;
            *bad = rwi_bad(RW_FAULT_LENGTH, document.end);
            if (document.end > p->seq_k)
                return false;
        }
        all = rwi_span_meet(all, document.begin, document.end);
    }
    limits->position = position;
    limits->key_end = end;
    limits->keys = rwi_span_meet(all, begin, end);
    return true;
}

RWI_INLINE bool rwi_pattern_limits_at(const rwi_pattern *p, int64_t b, int64_t i,
                                      rwi_pattern_limits *limits, rwi_bad_id *bad) {
    if (!rwi_pattern_keys_at(p, b, i, limits, bad))
        return false;
    int64_t position = limits->position;
    limits->prefix_end = p->prefix.data ? rwi_ids_load(&p->prefix, b, 0, 0) : p->prefix_length;
    limits->causal_end = p->causal ? position + 1 : p->seq_k;
    limits->window_begin = position - p->left;
    limits->window_end = position + p->right + 1;
    *bad = rwi_bad(RW_FAULT_LENGTH, limits->prefix_end);
    return limits->prefix_end >= 0;
}

RWI_INLINE bool rwi_pattern_is_global(const rwi_pattern *p, int64_t position) {
    return p->globals && position >= 0 && position < p->seq_k && rwi_bit(p->globals, position);
}

/* The keys that query i of sequence b sees: those of prefix and window, and the global ones of
 * `global`, where their bit is set. */
typedef struct rwi_pattern_row {
    rwi_span prefix;
    rwi_span window;
    rwi_span global;
    const uint8_t *bits; /* the query's row of each; NULL if the pattern has none */
    const void *mask;
#ifndef __cplusplus
    int64_t b; /* for the caller's function; a GPU's shared memory has no room for more */
#endif
    int32_t i;
    int32_t key_end; /* the end of the keys of the sequence; ALiBi may count from it */
} rwi_pattern_row;

/* The first half of the predicate; false as above, and then no key is visible. */
RWI_INLINE bool rwi_pattern_row_at(const rwi_pattern *p, int64_t b, int64_t i, rwi_pattern_row *row,
                                   rwi_bad_id *bad) {
    rwi_pattern_limits at;
    rwi_span none = {0, 0};
    row->prefix = none;
    row->window = none;
    row->global = none;
#ifndef __cplusplus
    row->b = b;
#endif
    row->i = (int32_t)i;
    row->key_end = 0;
    row->bits = p->bits ? p->bits + b * p->bits_stride[0] + i * p->bits_stride[1] : NULL;
    row->mask =
        p->mask ? rwi_element(p->mask_dtype, p->mask, b * p->mask_stride[0] + i * p->mask_stride[1])
                : NULL;
    if (p->is_band) {
        *bad = rwi_bad(RW_FAULT_NONE, 0);
        row->window = rwi_pattern_band(p, i);
        row->key_end = p->seq_k;
        return true;
    }
    if (!rwi_pattern_limits_at(p, b, i, &at, bad))
        return false;
    row->key_end = (int32_t)at.key_end;
    row->prefix = rwi_span_meet(at.keys, 0, at.prefix_end);
    row->window = rwi_span_meet(at.keys, 0, at.causal_end);
    if (rwi_pattern_is_global(p, at.position))
        return true;
    if (p->globals)
        row->global = row->window;
    row->window = rwi_span_meet(row->window, at.window_begin, at.window_end);
    return true;
}

/* bit(i, j) */
RWI_INLINE bool rwi_pattern_bit(const rwi_pattern *p, const rwi_pattern_row *row, int32_t j) {
    if (row->bits && !rwi_bit(row->bits, j))
        return false;
    if (row->mask && rwi_load_mask(p->mask_dtype, row->mask, j) == -INFINITY)
        return false;
#ifndef __cplusplus
    rw_pattern_pair pair = {p->function_b + row->b, row->i, j};
    if (p->function && !p->function(p->function_user, &pair))
        return false;
#endif
    return true;
}

/* The second half. `cells` is rwi_pattern_has_cells(p), a constant where that is faster. */
RWI_INLINE bool rwi_pattern_visible(const rwi_pattern *p, const rwi_pattern_row *row, bool cells,
                                    int32_t j) {
    /* Both spans are tested: a branch costs more. */
    bool seen = (int)rwi_span_has(row->prefix, j) | (int)rwi_span_has(row->window, j);
    if (!cells)
        return seen;
    if (!seen && rwi_span_has(row->global, j))
        seen = rwi_bit(p->globals, j);
    return seen && rwi_pattern_bit(p, row, j);
}

/* From the first key that may be visible to the last. */
RWI_INLINE rwi_span rwi_pattern_hull(const rwi_pattern_row *row) {
    rwi_span spans[3] = {row->prefix, row->window, row->global};
    rwi_span hull = {0, 0};
    for (int n = 0; n < 3; n++) {
        if (rwi_span_empty(spans[n]))
            continue;
        bool first = rwi_span_empty(hull);
        hull.begin = first || spans[n].begin < hull.begin ? spans[n].begin : hull.begin;
        hull.end = first || spans[n].end > hull.end ? spans[n].end : hull.end;
    }
    return hull;
}

/* ---- a rectangle ---- */

/* Queries [i.begin, i.end) and keys [j.begin, j.end), within the lengths. */
typedef struct rwi_rectangle {
    int64_t b;
    rwi_span i;
    rwi_span j;
} rwi_rectangle;

/* Whether a query of positions [first, last] or a key of the rectangle is global. */
RWI_INLINE bool rwi_pattern_any_global(const rwi_pattern *p, const rwi_rectangle *tile,
                                       int64_t first, int64_t last) {
    if (!p->globals)
        return false;
    return rwi_any_bit(p->globals, rwi_max(0, first), rwi_min(p->seq_k, last + 1)) ||
           rwi_any_bit(p->globals, tile->j.begin, tile->j.end);
}

/* rwi_pattern_tile() of a band. */
RWI_INLINE rw_tile rwi_pattern_band_tile(const rwi_pattern *p, const rwi_rectangle *tile) {
    rwi_span first = rwi_pattern_band(p, tile->i.begin),
             last = rwi_pattern_band(p, tile->i.end - 1);
    if (tile->j.end <= first.begin || tile->j.begin >= last.end)
        return RW_TILE_NONE;
    bool bits = p->bits || p->mask || p->function;
    return last.begin <= tile->j.begin && tile->j.end <= first.end && !bits ? RW_TILE_ALL
                                                                            : RW_TILE_SOME;
}

/* ALL and NONE are exact provided that cu_seqlens does not decrease. Queries whose values on the
 * device are invalid see nothing; where the first or the last query is one, the result is SOME. */
RWI_INLINE rw_tile rwi_pattern_tile(const rwi_pattern *p, const rwi_rectangle *tile) {
    rwi_pattern_limits first, last;
    rwi_bad_id bad;
    if (rwi_span_empty(tile->i) || rwi_span_empty(tile->j))
        return RW_TILE_NONE;
    if (p->is_band)
        return rwi_pattern_band_tile(p, tile);
    if (!rwi_pattern_limits_at(p, tile->b, tile->i.begin, &first, &bad) ||
        !rwi_pattern_limits_at(p, tile->b, tile->i.end - 1, &last, &bad))
        return RW_TILE_SOME;
    /* Keys that any query may see, and keys that every query sees. */
    rwi_span any = rwi_span_meet(tile->j, first.keys.begin, last.keys.end);
    rwi_span any_causal = rwi_span_meet(any, 0, last.causal_end);
    rwi_span any_window = rwi_span_meet(any_causal, first.window_begin, last.window_end);
    bool global = rwi_pattern_any_global(p, tile, first.position, last.position);
    if (rwi_span_empty(rwi_span_meet(any, 0, first.prefix_end)) &&
        rwi_span_empty(global ? any_causal : any_window))
        return RW_TILE_NONE;
    bool in_keys = last.keys.begin <= tile->j.begin && tile->j.end <= first.keys.end;
    int64_t end = rwi_min(first.causal_end, first.window_end);
    bool in_prefix = tile->j.end <= first.prefix_end;
    bool in_window =
        last.window_begin <= rwi_max(tile->j.begin, first.prefix_end) && tile->j.end <= end;
    bool bits = p->bits || p->mask || p->function;
    return in_keys && !bits && (in_prefix || in_window) ? RW_TILE_ALL : RW_TILE_SOME;
}

/* ---- operations ---- */

typedef struct rw_pattern_fill_params {
    rwi_pattern pattern;
    void *out; /* [batch, seq_q, seq_k], the last axis of stride 1 */
    rw_dtype dtype;
    int64_t batch;
    int64_t seq_q;
    int64_t out_stride[2];
} rw_pattern_fill_params;

typedef struct rw_pattern_fill_bits_params {
    rwi_pattern pattern;
    uint8_t *out; /* [batch, seq_q, ceil(seq_k / 8)], the last axis of stride 1 */
    int64_t batch;
    int64_t seq_q;
    int64_t out_stride[2];
} rw_pattern_fill_bits_params;

/* The value of a dense mask where a key is hidden: -inf. Where it is visible: 0. */
RWI_INLINE uint32_t rwi_hidden_bits(rw_dtype dtype) {
    switch (dtype) {
    case RW_F32:
        return 0xFF800000u;
    case RW_F16:
        return 0xFC00u;
    case RW_BF16:
        return 0xFF80u;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        break;
    }
    return 0;
}

/* An item is a query. */
RWI_INLINE rwi_work pattern_fill_work(const rw_pattern_fill_params *p) {
    rwi_work work = {p->batch * p->seq_q, p->pattern.seq_k * (int64_t)rwi_dtype_size(p->dtype)};
    return work;
}

RWI_INLINE rwi_work pattern_fill_bits_work(const rw_pattern_fill_bits_params *p) {
    rwi_work work = {p->batch * p->seq_q, p->pattern.seq_k};
    return work;
}

/* The byte that holds the bits of keys 8 * n to 8 * n + 7. */
RWI_INLINE uint8_t rwi_pattern_byte(const rwi_pattern *p, const rwi_pattern_row *row, bool cells,
                                    int64_t n) {
    unsigned byte = 0;
    int32_t count = (int32_t)rwi_min(8, p->seq_k - 8 * n);
    for (int32_t k = 0; k < count; k++)
        byte |= (unsigned)rwi_pattern_visible(p, row, cells, (int32_t)(8 * n) + k) << k;
    return (uint8_t)byte;
}

typedef struct rw_pattern_positions_params {
    rwi_ids out; /* [1, batch, seq] */
    int64_t batch;
    int64_t seq;
    rw_pattern_ids ids;
    int64_t window;
    int64_t offset;
    const uint8_t *globals;
    int64_t num_globals;     /* bits in it */
    rwi_documents documents; /* its ids may be absent */
    rwi_ids table;           /* [1, batch, table_length] */
    int64_t table_length;
    int64_t (*function)(void *user, int64_t b, int64_t pos); /* CPU only */
    void *function_user;
} rw_pattern_positions_params;

/* Memory traffic of a token's id, including the lookups that lead to it. */
#define RWI_BYTES_PER_PATTERN_ID 64

/* An item is a token. */
RWI_INLINE rwi_work pattern_positions_work(const rw_pattern_positions_params *p) {
    rwi_work work = {p->batch * p->seq, RWI_BYTES_PER_PATTERN_ID};
    return work;
}

/* The caller's id of a position; false where there is none. */
RWI_INLINE bool rwi_pattern_custom_id(const rw_pattern_positions_params *p, int64_t b,
                                      int64_t place, int64_t *id) {
#ifndef __cplusplus
    if (p->function) {
        *id = p->function(p->function_user, b, place);
        return true;
    }
#endif
    *id = place;
    if (place < 0 || place >= p->table_length)
        return false;
    *id = rwi_ids_load(&p->table, 0, b, place);
    return true;
}

RWI_INLINE bool rwi_pattern_id(const rw_pattern_positions_params *p, int64_t b, int64_t pos,
                               int64_t place, int64_t *id) {
    *id = place;
    switch (p->ids) {
    case RW_PATTERN_IDS_SEQUENTIAL:
        return true;
    case RW_PATTERN_IDS_LOCAL:
        *id = place >= p->window ? place - p->window : 0;
        return true;
    case RW_PATTERN_IDS_GLOBAL_LOCAL: {
        bool global = pos >= 0 && pos < p->num_globals && rwi_bit(p->globals, pos);
        *id = global ? place : place % p->window;
        return true;
    }
    case RW_PATTERN_IDS_CUSTOM:
        return rwi_pattern_custom_id(p, b, place, id);
    }
    return false;
}

RWI_INLINE bool pattern_positions_token(const rw_pattern_positions_params *p, int64_t token,
                                        rwi_bad_id *bad) {
    int64_t b, s;
    rwi_split_index(token, p->seq, &b, &s);
    int64_t pos = s + p->offset;
    int64_t place = pos;
    if (p->documents.cu_seqlens.data) {
        rwi_document document;
        if (!rwi_document_find(&p->documents, b, pos, &document, bad))
            return false;
        place = pos - document.begin;
    }
    int64_t id;
    bool found = rwi_pattern_id(p, b, pos, place, &id);
    *bad = rwi_bad(found ? RW_FAULT_OVERFLOW : RW_FAULT_POSITION, id);
    return found && rwi_ids_store(&p->out, 0, b, s, id);
}

#endif
