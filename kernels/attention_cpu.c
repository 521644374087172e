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

RWI_INLINE void begin_rows(const rw_attention_params *p, rw_dtype dtype, state *t,
                           rwi_fault_sink *sink) {
    for (int32_t r = 0; r < t->item.rows; r++) {
        int64_t bad;
        rwi_attention_row *row = &t->rows[r];
        rwi_attention_find_row(p, &t->item, r, row, &bad);
        if (!row->sane)
            rwi_cpu_fault_raise(sink, t->item.b * p->rules.scores.seq_q + row->pattern.i, bad);
        const void *q = rwi_element(dtype, p->q.data, rwi_attention_at(&p->q, t->item.b, row));
        rwi_load_many(dtype, q, p->head_dim, t->q + r * MAX_DIM);
        t->largest[r] = -INFINITY;
        t->sum[r] = 0.0f;
    }
    memset(t->out, 0, sizeof(float) * ROWS * MAX_DIM);
}

/* Keys [j, j + keys) of k, as columns, and of v. */
RWI_INLINE void load_keys(const rw_attention_params *p, rw_dtype dtype, state *t, int64_t j,
                          int64_t keys) {
    int64_t k = t->item.b * p->k.stride[0] + t->item.kv_head * p->k.stride[1];
    int64_t v = t->item.b * p->v.stride[0] + t->item.kv_head * p->v.stride[1];
    int64_t width = padded(p->v_dim);
    float nothing = 0.0f;
    for (int64_t n = 0; n < keys; n++) {
        rwi_load_many(dtype, rwi_element(dtype, p->k.data, k + (j + n) * p->k.stride[2]),
                      p->head_dim, t->line);
        for (int64_t d = 0; d < p->head_dim; d++)
            t->k[d * KEYS + n] = t->line[d];
        float *line = t->v + n * MAX_DIM;
        rwi_load_many(dtype, rwi_element(dtype, p->v.data, v + (j + n) * p->v.stride[2]), p->v_dim,
                      line);
        for (int64_t d = p->v_dim; d < width; d++)
            line[d] = 0.0f;
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
    int64_t keys = rwi_min(KEYS, p->rules.scores.seq_k - j);
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

RWI_INLINE void end_rows(const rw_attention_params *p, rw_dtype dtype, state *t) {
    for (int32_t r = 0; r < t->item.rows; r++) {
        const rwi_attention_row *row = &t->rows[r];
        rwi_attention_end end = rwi_attention_finish(p, row->h, t->largest[r], t->sum[r]);
        float *out = t->out + r * MAX_DIM;
        if (!row->sane)
            continue;
#pragma omp simd
        for (int64_t d = 0; d < p->v_dim; d++)
            out[d] *= end.share;
        rwi_store_many(dtype,
                       rwi_element(dtype, p->out.data, rwi_attention_at(&p->out, t->item.b, row)),
                       p->v_dim, out);
        if (p->lse.data)
            ((float *)p->lse.data)[rwi_attention_at(&p->lse, t->item.b, row)] = end.lse;
    }
}

static void store_rows(const rw_attention_params *p, state *t) {
    switch (p->out_dtype) {
    case RW_F32:
        end_rows(p, RW_F32, t);
        return;
    case RW_F16:
        end_rows(p, RW_F16, t);
        return;
    case RW_BF16:
        end_rows(p, RW_BF16, t);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
        return;
    }
}

RWI_INLINE void attend(const rw_attention_params *p, rw_dtype dtype, int64_t begin, int64_t end,
                       rwi_fault_sink *sink) {
    state t;
    for (int64_t item = begin; item < end; item++) {
        t.item = rwi_attention_find(p, item);
        begin_rows(p, dtype, &t, sink);
        for (int64_t j = 0; j < p->rules.scores.seq_k; j += KEYS) {
            int64_t keys = rwi_min(KEYS, p->rules.scores.seq_k - j);
            rw_tile tile = rwi_attention_ask_tile(p, &t.item, j, keys);
            if (tile != RW_TILE_NONE)
                attend_keys(p, dtype, &t, j, tile == RW_TILE_ALL);
        }
        store_rows(p, &t);
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
