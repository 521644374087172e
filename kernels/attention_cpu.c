/* Attention on the CPU; the twin of attention.hip. An item is a tile of rows: queries of the heads
 * that share k and v. */
#include "attention_kernel.h"
#include "convert_cpu.h"
#include "tile_cpu.h"

#define ROWS RWI_ATTENTION_ROWS
#define KEYS RWI_ATTENTION_KEYS
#define MAX_DIM RWI_ATTENTION_MAX_DIM

/* A tile of rows under way, in f32. */
typedef struct state {
    rwi_attention_item item;
    rwi_attention_row rows[ROWS];
    float largest[ROWS];
    float sum[ROWS];
    float q[ROWS * MAX_DIM];
    float k[MAX_DIM * KEYS]; /* [head_dim][KEYS] */
    float v[KEYS * MAX_DIM];
    float scores[ROWS * KEYS];
    float out[ROWS * MAX_DIM];
    float line[MAX_DIM];
    bool finite; /* all of v */
} state;

static int64_t padded(int64_t width) {
    return rwi_ceil_div(width, RWI_TILE_PAD) * RWI_TILE_PAD;
}

/* A row with all that it needs. */
static void find_row(const rw_attention_params *p, int64_t b, int64_t kv_head, int64_t r,
                     rwi_attention_row *row, int64_t *bad) {
    rwi_attention_find_row(p, b, kv_head, r, row, bad);
    row->sane = row->sane && rwi_attention_pages_exist(p, b, rwi_pattern_hull(&row->pattern), bad);
}

RWI_INLINE void begin_rows(const rw_attention_params *p, rw_dtype dtype, state *t,
                           rwi_fault_sink *sink) {
    for (int32_t r = 0; r < t->item.rows; r++) {
        int64_t bad;
        rwi_attention_row *row = &t->rows[r];
        find_row(p, t->item.b, t->item.kv_head, t->item.first + r, row, &bad);
        if (!row->sane)
            rwi_cpu_fault_raise(sink, t->item.b * p->rules.scores.seq_q + row->pattern.i, bad);
        const void *q = rwi_element(dtype, p->q.data, rwi_attention_at(&p->q, t->item.b, row));
        rwi_load_many(dtype, q, p->head_dim, t->q + r * MAX_DIM);
        t->largest[r] = -INFINITY;
        t->sum[r] = 0.0f;
    }
    memset(t->out, 0, sizeof(float) * ROWS * MAX_DIM);
}

/* Keys [j, j + keys) of k, as columns, and of v; 0 where their page is none, which no row sees. */
RWI_INLINE void load_keys(const rw_attention_params *p, rw_dtype dtype, state *t, int64_t j,
                          int64_t keys) {
    int64_t width = padded(p->v_dim);
    float nothing = 0.0f;
    for (int64_t n = 0; n < keys; n++) {
        rwi_kv_place place;
        float *line = t->v + n * MAX_DIM;
        memset(t->line, 0, sizeof t->line);
        memset(line, 0, (size_t)width * sizeof *line);
        if (rwi_attention_find_key(p, t->item.b, j + n, &place)) {
            int64_t k = rwi_attention_key_at(&p->k, t->item.kv_head, &place);
            int64_t v = rwi_attention_key_at(&p->v, t->item.kv_head, &place);
            rwi_load_many(dtype, rwi_element(dtype, p->k.data, k), p->head_dim, t->line);
            rwi_load_many(dtype, rwi_element(dtype, p->v.data, v), p->v_dim, line);
        }
        for (int64_t d = 0; d < p->head_dim; d++)
            t->k[d * KEYS + n] = t->line[d];
#pragma omp simd reduction(+ : nothing)
        for (int64_t d = 0; d < p->v_dim; d++)
            nothing += line[d] * 0.0f; /* NaN where one is not finite */
    }
    for (int64_t d = 0; keys < KEYS && d < p->head_dim; d++)
        for (int64_t n = keys; n < KEYS; n++)
            t->k[d * KEYS + n] = 0.0f;
    t->finite = nothing == 0.0f;
}

static void multiply_q_k(const rw_attention_params *p, state *t) {
    memset(t->scores, 0, sizeof t->scores);
    rwi_tile_product product = {t->q, t->k,         t->scores, MAX_DIM,    KEYS,
                                KEYS, t->item.rows, KEYS,      p->head_dim};
    rwi_tile_multiply(&product);
}

/* Products to scores, -inf where the row does not see the key. */
RWI_INLINE void score_row(const rw_attention_params *p, const rwi_attention_row *row, bool all,
                          int64_t j, int64_t keys, float *scores) {
    if (rwi_attention_is_plain(p)) {
#pragma omp simd
        for (int64_t n = 0; n < keys; n++)
            scores[n] *= p->rules.scale;
    } else {
        for (int64_t n = 0; n < keys; n++)
            scores[n] = rwi_attention_score(p, row, scores[n], j + n);
    }
    bool cells = rwi_pattern_has_cells(&p->rules.pattern);
    for (int64_t n = 0; !all && n < keys; n++)
        if (!rwi_pattern_visible(&p->rules.pattern, &row->pattern, cells, (int32_t)(j + n)))
            scores[n] = -INFINITY;
    for (int64_t n = keys; n < KEYS; n++)
        scores[n] = -INFINITY;
}

/* Scores to weights; what was summed up before is brought to the new largest score. */
RWI_INLINE void weigh_row(state *t, int32_t r, int64_t width) {
    float *scores = t->scores + r * KEYS, *out = t->out + r * MAX_DIM;
    float largest = t->largest[r], sum = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t n = 0; n < KEYS; n++)
        largest = scores[n] > largest ? scores[n] : largest;
    float base = rwi_softmax_base(largest);
#pragma omp simd reduction(+ : sum)
    for (int64_t n = 0; n < KEYS; n++) {
        scores[n] = rwi_exp(scores[n] - base);
        sum += scores[n];
    }
    float kept = rwi_exp(t->largest[r] - base);
    t->largest[r] = largest;
    t->sum[r] = t->sum[r] * kept + sum;
    if (kept == 1.0f)
        return;
#pragma omp simd
    for (int64_t d = 0; d < width; d++)
        out[d] *= kept;
}

/* Weights times v where v has NaN or Inf: a weight of 0 takes nothing of it. */
static void multiply_with_care(const rw_attention_params *p, state *t, int64_t keys) {
    for (int32_t r = 0; r < t->item.rows; r++)
        for (int64_t n = 0; n < keys; n++) {
            float weight = t->scores[r * KEYS + n];
            for (int64_t d = 0; weight != 0.0f && d < p->v_dim; d++)
                t->out[r * MAX_DIM + d] += weight * t->v[n * MAX_DIM + d];
        }
}

RWI_INLINE void attend_keys(const rw_attention_params *p, rw_dtype dtype, state *t, int64_t j,
                            bool all) {
    int64_t keys = rwi_min(KEYS, t->item.keys.end - j);
    load_keys(p, dtype, t, j, keys);
    multiply_q_k(p, t);
    for (int32_t r = 0; r < t->item.rows; r++) {
        score_row(p, &t->rows[r], all, j, keys, t->scores + r * KEYS);
        weigh_row(t, r, padded(p->v_dim));
    }
    if (!t->finite) {
        multiply_with_care(p, t, keys);
        return;
    }
    rwi_tile_product product = {t->scores, t->v,         t->out,           KEYS, MAX_DIM,
                                MAX_DIM,   t->item.rows, padded(p->v_dim), keys};
    rwi_tile_multiply(&product);
}

/* What a row gives, in the caller's tensors. */
RWI_INLINE void store_row(const rw_attention_params *p, rw_dtype dtype, int64_t b,
                          const rwi_attention_row *row, float *out, rwi_attention_end end) {
#pragma omp simd
    for (int64_t d = 0; d < p->v_dim; d++)
        out[d] *= end.share;
    rwi_store_many(dtype, rwi_element(dtype, p->out.data, rwi_attention_at(&p->out, b, row)),
                   p->v_dim, out);
    if (p->lse.data)
        ((float *)p->lse.data)[rwi_attention_at(&p->lse, b, row)] = end.lse;
}

static void store_any_row(const rw_attention_params *p, int64_t b, const rwi_attention_row *row,
                          float *out, rwi_attention_end end) {
    switch (p->out_dtype) {
    case RW_F32:
        store_row(p, RW_F32, b, row, out, end);
        return;
    case RW_F16:
        store_row(p, RW_F16, b, row, out, end);
        return;
    case RW_BF16:
        store_row(p, RW_BF16, b, row, out, end);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
        return;
    }
}

/* What a part of the keys gives for row `number` of all. */
static void store_part(const rw_attention_params *p, int64_t part, int64_t number, float *out,
                       rwi_attention_end end) {
    int64_t at = part * attention_combine_work(p).items + number;
    float *to = p->parts.out + at * p->v_dim;
#pragma omp simd
    for (int64_t d = 0; d < p->v_dim; d++)
        to[d] = out[d] * end.share;
    p->parts.lse[at] = end.lse;
}

static void end_rows(const rw_attention_params *p, state *t) {
    for (int32_t r = 0; r < t->item.rows; r++) {
        const rwi_attention_row *row = &t->rows[r];
        float *out = t->out + r * MAX_DIM, base = rwi_softmax_base(t->largest[r]);
        if (!row->sane)
            continue;
        if (p->parts.count == 1)
            store_any_row(p, t->item.b, row, out, rwi_attention_finish(p, row->h, base, t->sum[r]));
        else
            store_part(p, t->item.part,
                       rwi_attention_row_number(p, t->item.b, t->item.kv_head, t->item.first + r),
                       out, rwi_attention_end_at(base, t->sum[r]));
    }
}

/* An item's parts follow each other, its tiles of rows, its group. */
static rwi_attention_item find_item(const rw_attention_params *p, int64_t item) {
    int32_t tile_rows = rwi_attention_tile_rows(p, ROWS);
    int64_t part, tile;
    rwi_split_index(item, p->parts.count, &item, &part);
    rwi_split_index(item, rwi_attention_row_tiles(p, tile_rows), &item, &tile);
    return rwi_attention_item_at(p, item, tile, part, tile_rows);
}

RWI_INLINE void attend(const rw_attention_params *p, rw_dtype dtype, int64_t begin, int64_t end,
                       rwi_fault_sink *sink) {
    state t;
    for (int64_t item = begin; item < end; item++) {
        t.item = find_item(p, item);
        begin_rows(p, dtype, &t, sink);
        for (int64_t j = t.item.keys.begin; j < t.item.keys.end; j += KEYS) {
            int64_t keys = rwi_min(KEYS, t.item.keys.end - j);
            rw_tile tile = rwi_attention_ask_tile(p, &t.item, j, keys);
            if (tile != RW_TILE_NONE)
                attend_keys(p, dtype, &t, j, tile == RW_TILE_ALL);
        }
        end_rows(p, &t);
    }
}

void RWI_CPU_KERNEL(attention)(const rw_attention_params *p, int64_t begin, int64_t end,
                               rwi_fault_sink *sink) {
    switch (p->dtype) {
    case RW_F32:
        attend(p, RW_F32, begin, end, sink);
        return;
    case RW_F16:
        attend(p, RW_F16, begin, end, sink);
        return;
    case RW_BF16:
        attend(p, RW_BF16, begin, end, sink);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
        return;
    }
}

/* Row `number` of all, of its parts. */
static void combine_row(const rw_attention_params *p, int64_t number) {
    float out[MAX_DIM] = {0}, largest = -INFINITY, sum = 0.0f;
    int64_t rows = attention_combine_work(p).items, group, r, b, kv_head, bad;
    rwi_attention_row row;
    rwi_split_index(number, rwi_attention_group_rows(p), &group, &r);
    rwi_split_index(group, p->rules.scores.heads / p->group, &b, &kv_head);
    find_row(p, b, kv_head, r, &row, &bad);
    if (!row.sane)
        return;
    for (int64_t part = 0; part < p->parts.count; part++) {
        float lse = p->parts.lse[part * rows + number];
        largest = lse > largest ? lse : largest;
    }
    float base = rwi_softmax_base(largest);
    for (int64_t part = 0; part < p->parts.count; part++) {
        float weight = rwi_exp(p->parts.lse[part * rows + number] - base);
        const float *from = p->parts.out + (part * rows + number) * p->v_dim;
        sum += weight;
#pragma omp simd
        for (int64_t d = 0; d < p->v_dim; d++)
            out[d] += weight * from[d];
    }
    store_any_row(p, b, &row, out, rwi_attention_finish(p, row.h, base, sum));
}

void RWI_CPU_KERNEL(attention_combine)(const rw_attention_combine_params *p, int64_t begin,
                                       int64_t end, rwi_fault_sink *sink) {
    (void)sink; /* attention reported what makes no sense */
    for (int64_t number = begin; number < end; number++)
        combine_row(p, number);
}
