/* Attention on the CPU; the twin of attention.hip. An item is a tile of rows: queries of the heads
 * that share k and v.
 *
 * k and v are read where they lie, as far as they hold words that can be multiplied: f32, and pairs
 * of bf16 where the processor has an instruction for them. So q takes the place that k^T usually
 * has: many rows lie side by side, and with them their scores, [key][row]; of few rows, each for
 * itself, the scores are [row][key].
 */
#include "attention_kernel.h"
#include "convert_cpu.h"
#include "dot_cpu.h"

#define ROWS RWI_ATTENTION_ROWS
#define KEYS RWI_ATTENTION_KEYS
#define MAX_DIM RWI_ATTENTION_MAX_DIM

/* Rows that lie side by side. */
#define PANEL (RWI_TILE_VECTORS * RWI_LANES)
#define PANELS (ROWS / PANEL)

/* Keys are padded to whole blocks of these. */
#define KEY_BLOCK RWI_DOT_KEYS

/* A tile of rows under way. */
typedef struct state {
    rwi_attention_item item;
    bool few;
    bool pairs;    /* words are pairs of bf16, else f32 */
    int64_t words; /* of a row of q and k */
    int64_t width; /* of a row of v and out, padded */
    rwi_attention_row rows[ROWS];
    rwi_span hulls[PANELS]; /* what the rows of a panel may see */
    int64_t first;          /* key of the tile under way, and how many it has */
    int64_t keys;
    rw_tile sees;
    const void *k_rows[KEYS]; /* in the caller's tensors, or nothing */
    const void *v_rows[KEYS];
    const float *v_words[KEYS]; /* as they are multiplied */
    int32_t prefix[2][ROWS];    /* begin and end of what each row sees */
    int32_t window[2][ROWS];
    _Alignas(64) float largest[ROWS];
    float sum[ROWS];
    float kept[ROWS]; /* what is left of a row's sums once its largest score has grown */
    float q[ROWS * MAX_DIM];
    float keys_words[KEYS *
                     MAX_DIM]; /* of k, later of v, unless they are multiplied where they lie */
    float scores[ROWS * KEYS];
    uint32_t weight_pairs[PANEL * KEYS]; /* of a panel, or all few rows */
    float out[ROWS * MAX_DIM];
} state;

static const float nothing[MAX_DIM] = {0}; /* a key that has no page */

/* A row with all that it needs. */
static void find_row(const rw_attention_params *p, int64_t b, int64_t kv_head, int64_t r,
                     rwi_attention_row *row, int64_t *bad) {
    rwi_attention_find_row(p, b, kv_head, r, row, bad);
    row->sane = row->sane && rwi_attention_pages_exist(p, b, rwi_pattern_hull(&row->pattern), bad);
}

static void load_row(rw_dtype dtype, const void *data, int64_t count, float *x) {
    switch (dtype) {
    case RW_F32:
        rwi_load_many(RW_F32, data, count, x);
        return;
    case RW_F16:
        rwi_load_many(RW_F16, data, count, x);
        return;
    case RW_BF16:
        rwi_load_many(RW_BF16, data, count, x);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
        return;
    }
}

/* Whether rows of q, k and v hold words as they are multiplied. */
static bool are_words(const rw_attention_params *p, const state *t) {
    return p->dtype == RW_F32 || t->pairs;
}

/* ---- rows -------------------------------------------------------------------------------- */

/* Row `r` of q to where its words are multiplied. */
static void pack_row(const rw_attention_params *p, state *t, int32_t r) {
    float line[MAX_DIM];
    const void *q =
        rwi_element(p->dtype, p->q.data, rwi_attention_at(&p->q, t->item.b, &t->rows[r]));
    if (are_words(p, t))
        memcpy(line, q, (size_t)t->words * sizeof *line);
    else
        load_row(p->dtype, q, p->head_dim, line);
    if (t->few) {
        float *to = t->q + rwi_dot_place(r, t->words);
        for (int64_t w = 0; w < t->words; w += 4)
            memcpy(to + w * RWI_DOT_ROWS, line + w, 4 * sizeof *line);
        return;
    }
    float *to = t->q + r / PANEL * PANEL * t->words + r % PANEL;
    for (int64_t w = 0; w < t->words; w++)
        memcpy(to + w * PANEL, line + w, sizeof *line);
}

static void begin_row(const rw_attention_params *p, state *t, int32_t r, rwi_fault_sink *sink) {
    int64_t bad;
    rwi_attention_row *row = &t->rows[r];
    find_row(p, t->item.b, t->item.kv_head, t->item.first + r, row, &bad);
    if (!row->sane)
        rwi_cpu_fault_raise(sink, t->item.b * p->rules.scores.seq_q + row->pattern.i, bad);
    rwi_span seen = rwi_pattern_hull(&row->pattern), *hull = &t->hulls[r / PANEL];
    if (!rwi_span_empty(seen)) {
        bool first = rwi_span_empty(*hull);
        hull->begin = first || seen.begin < hull->begin ? seen.begin : hull->begin;
        hull->end = first || seen.end > hull->end ? seen.end : hull->end;
    }
    t->prefix[0][r] = row->pattern.prefix.begin;
    t->prefix[1][r] = row->pattern.prefix.end;
    t->window[0][r] = row->pattern.window.begin;
    t->window[1][r] = row->pattern.window.end;
    pack_row(p, t, r);
}

static void begin_rows(const rw_attention_params *p, state *t, rwi_fault_sink *sink) {
    int32_t unit = t->few ? RWI_DOT_ROWS : PANEL;
    int64_t padded = rwi_ceil_div(t->item.rows, unit) * unit;
    if (padded != t->item.rows)
        memset(t->q, 0, (size_t)(padded * t->words) * sizeof *t->q);
    memset(t->hulls, 0, sizeof t->hulls);
    memset(t->prefix, 0, sizeof t->prefix); /* rows that there are not see nothing */
    memset(t->window, 0, sizeof t->window);
    for (int32_t r = 0; r < t->item.rows; r++)
        begin_row(p, t, r, sink);
    for (int32_t r = 0; r < ROWS; r++) {
        t->largest[r] = -INFINITY;
        t->sum[r] = 0.0f;
    }
    memset(t->out, 0, (size_t)(t->item.rows * t->width) * sizeof *t->out);
}

/* ---- keys -------------------------------------------------------------------------------- */

static int64_t padded_keys(const state *t) {
    return rwi_ceil_div(t->keys, KEY_BLOCK) * KEY_BLOCK;
}

/* Where the keys of the tile lie. */
static void find_keys(const rw_attention_params *p, state *t) {
    for (int64_t n = 0; n < padded_keys(t); n++) {
        rwi_kv_place place;
        t->k_rows[n] = nothing;
        t->v_rows[n] = nothing;
        if (n >= t->keys || !rwi_attention_find_key(p, t->item.b, t->first + n, &place))
            continue;
        int64_t k = rwi_attention_key_at(&p->k, t->item.kv_head, &place);
        int64_t v = rwi_attention_key_at(&p->v, t->item.kv_head, &place);
        t->k_rows[n] = rwi_element(p->dtype, p->k.data, k);
        t->v_rows[n] = rwi_element(p->dtype, p->v.data, v);
    }
}

/* Keys of the tile that rows of a panel may see, in whole blocks. */
static rwi_span keys_of_panel(const state *t, int32_t panel) {
    rwi_span all = {(int32_t)t->first, (int32_t)(t->first + t->keys)};
    rwi_span seen = rwi_span_meet(all, t->hulls[panel].begin, t->hulls[panel].end);
    rwi_span keys = {(seen.begin - all.begin) / KEY_BLOCK * KEY_BLOCK,
                     (int32_t)rwi_ceil_div(seen.end - all.begin, KEY_BLOCK) * KEY_BLOCK};
    if (rwi_span_empty(seen))
        keys.end = keys.begin;
    return keys;
}

static int32_t panels(const state *t) {
    return (int32_t)rwi_ceil_div(t->item.rows, PANEL);
}

RWI_INLINE void multiply_panels(state *t, const rwi_word *const *k, bool pairs) {
    for (int32_t panel = 0; panel < panels(t); panel++) {
        rwi_span keys = keys_of_panel(t, panel);
        rwi_tile_product product = {.a_rows = k + keys.begin,
                                    .a_depth = 1,
                                    .b = t->q + panel * PANEL * t->words,
                                    .b_row = PANEL,
                                    .c = t->scores + (panel * KEYS + keys.begin) * PANEL,
                                    .c_row = PANEL,
                                    .rows = keys.end - keys.begin,
                                    .columns = PANEL,
                                    .depth = t->words,
                                    .pairs = pairs};
        rwi_tile_multiply(&product);
    }
}

/* Scores but for what the rules make of them. */
static void multiply_q_k(const rw_attention_params *p, state *t) {
    const rwi_word *k[KEYS];
    bool words = are_words(p, t);
    for (int64_t n = 0; n < padded_keys(t); n++) {
        k[n] = words ? (const rwi_word *)t->k_rows[n] : t->keys_words + n * MAX_DIM;
        if (!words)
            load_row(p->dtype, t->k_rows[n], p->head_dim, t->keys_words + n * MAX_DIM);
    }
    if (t->few) {
        rwi_dot_product product = {
            t->q,           k,       t->scores, KEYS, rwi_ceil_div(t->item.rows, RWI_DOT_ROWS),
            padded_keys(t), t->words};
        if (t->pairs)
            rwi_dot_multiply(&product, true);
        else
            rwi_dot_multiply(&product, false);
    } else if (t->pairs) {
        multiply_panels(t, k, true);
    } else {
        multiply_panels(t, k, false);
    }
}

/* ---- weights ----------------------------------------------------------------------------- */

/* Where the scores of row `r` begin, and how far they lie apart. */
static float *scores_of(state *t, int32_t r) {
    return t->few ? t->scores + r * KEYS : t->scores + r / PANEL * PANEL * KEYS + r % PANEL;
}

static int64_t score_stride(const state *t) {
    return t->few ? 1 : PANEL;
}

/* Whether the rules are the same for all rows and keys. */
static bool are_uniform(const rw_attention_params *p) {
    return !p->rules.alibi.slopes && !p->rules.mask.data;
}

static void score_many(const rw_attention_params *p, int64_t count, float *scores) {
    if (rwi_attention_is_plain(p)) {
#pragma omp simd
        for (int64_t n = 0; n < count; n++)
            scores[n] *= p->rules.scale;
        return;
    }
#pragma omp simd
    for (int64_t n = 0; n < count; n++)
        scores[n] = rwi_softmax_score(&p->rules, scores[n]);
}

/* Products of row `r` to scores where the rules differ from key to key. */
static void score_row(const rw_attention_params *p, state *t, int32_t r, rwi_span keys) {
    const rwi_attention_row *row = &t->rows[r];
    float *scores = scores_of(t, r);
    int64_t stride = score_stride(t);
    for (int64_t n = keys.begin; n < rwi_min(keys.end, t->keys); n++)
        scores[n * stride] = rwi_attention_score(p, row, scores[n * stride], t->first + n);
}

/* -inf where row `r` does not see the key, where more than spans decide. */
static void hide_cells(const rw_attention_params *p, state *t, int32_t r, rwi_span keys) {
    float *scores = scores_of(t, r);
    int64_t stride = score_stride(t);
    for (int64_t n = keys.begin; n < rwi_min(keys.end, t->keys); n++)
        if (!rwi_pattern_visible(&p->rules.pattern, &t->rows[r].pattern, true,
                                 (int32_t)(t->first + n)))
            scores[n * stride] = -INFINITY;
}

RWI_INLINE float hide(const state *t, int32_t r, int32_t j, float score) {
    rwi_span prefix = {t->prefix[0][r], t->prefix[1][r]};
    rwi_span window = {t->window[0][r], t->window[1][r]};
    bool seen = (int)rwi_span_has(prefix, j) | (int)rwi_span_has(window, j);
    return seen ? score : -INFINITY;
}

/* The keys of a tile that there are not, in whole blocks, are seen by none. */
static rwi_span missing(const state *t, rwi_span keys) {
    rwi_span none = {(int32_t)rwi_max(keys.begin, rwi_min(keys.end, t->keys)), keys.end};
    return none;
}

static void score_panel(const rw_attention_params *p, state *t, int32_t panel, rwi_span keys) {
    float *scores = t->scores + panel * PANEL * KEYS;
    int32_t begin = panel * PANEL, end = (int32_t)rwi_min(begin + PANEL, t->item.rows);
    bool cells = rwi_pattern_has_cells(&p->rules.pattern), some = t->sees != RW_TILE_ALL;
    if (are_uniform(p))
        score_many(p, (int64_t)(keys.end - keys.begin) * PANEL, scores + keys.begin * PANEL);
    for (int32_t r = begin; !are_uniform(p) && r < end; r++)
        score_row(p, t, r, keys);
    for (int32_t r = begin; some && cells && r < end; r++)
        hide_cells(p, t, r, keys);
    for (int32_t n = keys.begin; some && !cells && n < keys.end; n++) {
#pragma omp simd
        for (int32_t r = 0; r < PANEL; r++)
            scores[n * PANEL + r] =
                hide(t, begin + r, (int32_t)t->first + n, scores[n * PANEL + r]);
    }
    for (int32_t n = missing(t, keys).begin * PANEL; n < missing(t, keys).end * PANEL; n++)
        scores[n] = -INFINITY;
}

/* The largest of each row so far. */
static void find_largest(const float *scores, rwi_span keys, float *largest) {
    for (int32_t n = keys.begin; n < keys.end; n += KEY_BLOCK) {
        const float *block = scores + n * PANEL;
#pragma omp simd
        for (int32_t r = 0; r < PANEL; r++) {
            float most = largest[r];
#pragma GCC unroll 8
            for (int32_t k = 0; k < KEY_BLOCK; k++)
                most = block[k * PANEL + r] > most ? block[k * PANEL + r] : most;
            largest[r] = most;
        }
    }
}

/* Scores to weights; what was summed up before is to be brought to the new largest score. */
static void weigh_panel(state *t, int32_t panel, rwi_span keys) {
    float *scores = t->scores + panel * PANEL * KEYS, base[PANEL], sums[PANEL] = {0};
    float *largest = t->largest + panel * PANEL, *kept = t->kept + panel * PANEL;
    memcpy(kept, largest, sizeof base);
    find_largest(scores, keys, largest);
#pragma omp simd
    for (int32_t r = 0; r < PANEL; r++) {
        base[r] = rwi_softmax_base(largest[r]);
        kept[r] = rwi_exp(kept[r] - base[r]);
    }
    for (int32_t n = keys.begin; n < keys.end; n++) {
        float *line = scores + n * PANEL;
#pragma omp simd
        for (int32_t r = 0; r < PANEL; r++) {
            line[r] = rwi_exp(line[r] - base[r]);
            sums[r] += line[r];
        }
    }
#pragma omp simd
    for (int32_t r = 0; r < PANEL; r++)
        t->sum[panel * PANEL + r] = t->sum[panel * PANEL + r] * kept[r] + sums[r];
}

/* The same for a row of few. */
static void weigh_row(const rw_attention_params *p, state *t, int32_t r) {
    float *scores = scores_of(t, r), largest = t->largest[r], sum = 0.0f;
    rwi_span keys = {0, (int32_t)padded_keys(t)};
    bool cells = rwi_pattern_has_cells(&p->rules.pattern), some = t->sees != RW_TILE_ALL;
    if (are_uniform(p))
        score_many(p, keys.end, scores);
    else
        score_row(p, t, r, keys);
    if (some && cells)
        hide_cells(p, t, r, keys);
#pragma omp simd
    for (int32_t n = 0; n < (some && !cells ? keys.end : 0); n++)
        scores[n] = hide(t, r, (int32_t)t->first + n, scores[n]);
    for (int32_t n = missing(t, keys).begin; n < keys.end; n++)
        scores[n] = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int32_t n = 0; n < keys.end; n++)
        largest = scores[n] > largest ? scores[n] : largest;
    float base = rwi_softmax_base(largest);
#pragma omp simd reduction(+ : sum)
    for (int32_t n = 0; n < keys.end; n++) {
        scores[n] = rwi_exp(scores[n] - base);
        sum += scores[n];
    }
    t->kept[r] = rwi_exp(t->largest[r] - base);
    t->largest[r] = largest;
    t->sum[r] = t->sum[r] * t->kept[r] + sum;
}

static void weigh(const rw_attention_params *p, state *t) {
    for (int32_t r = 0; t->few && r < t->item.rows; r++)
        weigh_row(p, t, r);
    for (int32_t panel = 0; !t->few && panel < panels(t); panel++) {
        rwi_span keys = keys_of_panel(t, panel);
        score_panel(p, t, panel, keys);
        weigh_panel(t, panel, keys);
    }
}

/* ---- weighted values --------------------------------------------------------------------- */

/* Whether v holds neither NaN nor Inf. */
static bool are_finite(const rw_attention_params *p, const state *t) {
    uint32_t most = 0;
    for (int64_t n = 0; n < t->keys; n++) {
        const uint32_t *wide = t->v_rows[n];
        const uint16_t *narrow = t->v_rows[n];
        if (p->dtype == RW_F32) {
#pragma omp simd reduction(max : most)
            for (int64_t d = 0; d < p->v_dim; d++)
                most = (wide[d] & 0x7FFFFFFFu) > most ? wide[d] & 0x7FFFFFFFu : most;
        } else {
            uint16_t top = 0;
#pragma omp simd reduction(max : top)
            for (int64_t d = 0; d < p->v_dim; d++)
                top = (narrow[d] & 0x7FFFu) > top ? narrow[d] & 0x7FFFu : top;
            most = top > most ? top : most;
        }
    }
    return most < (p->dtype == RW_F32 ? 0x7F800000u : p->dtype == RW_BF16 ? 0x7F80u : 0x7C00u);
}

/* Weights times v where v has NaN or Inf: a weight of 0 takes nothing of it. */
static void multiply_with_care(const rw_attention_params *p, state *t) {
    float line[MAX_DIM];
    for (int32_t r = 0; r < t->item.rows; r++) {
        const float *weights = scores_of(t, r);
        float *out = t->out + r * t->width;
        rwi_span keys = {0, (int32_t)t->keys};
        if (!t->few)
            keys = rwi_span_meet(keys_of_panel(t, r / PANEL), 0, t->keys);
        for (int64_t d = 0; !rwi_span_empty(keys) && d < p->v_dim; d++)
            out[d] *= t->kept[r];
        for (int64_t n = keys.begin; n < keys.end; n++) {
            float weight = weights[n * score_stride(t)];
            if (weight == 0.0f)
                continue;
            load_row(p->dtype, t->v_rows[n], p->v_dim, line);
            for (int64_t d = 0; d < p->v_dim; d++)
                out[d] += weight * line[d];
        }
    }
}

/* Values as they are multiplied: in their place, as f32, or key 2 * n beside key 2 * n + 1. */
static void prepare_v(const rw_attention_params *p, state *t) {
    bool here = p->dtype == RW_F32 && p->v_dim == t->width;
    for (int64_t n = 0; !t->pairs && n < padded_keys(t); n++) {
        float *line = t->keys_words + n * MAX_DIM;
        t->v_words[n] = here ? t->v_rows[n] : line;
        if (here)
            continue;
        load_row(p->dtype, t->v_rows[n], p->v_dim, line);
        memset(line + p->v_dim, 0, (size_t)(t->width - p->v_dim) * sizeof *line);
    }
    for (int64_t n = 0; t->pairs && n < padded_keys(t) / 2; n++) {
        const uint16_t *even = t->v_rows[2 * n], *odd = t->v_rows[2 * n + 1];
        uint32_t *line = (uint32_t *)(t->keys_words + n * MAX_DIM);
        t->v_words[n] = (const float *)line;
        memset(line + p->v_dim, 0, (size_t)(t->width - p->v_dim) * sizeof *line);
#pragma omp simd
        for (int64_t d = 0; d < p->v_dim; d++)
            line[d] = (uint32_t)odd[d] << 16 | even[d];
    }
}

/* Weights of two keys to a word; `step` lies between them, and `count` such words side by side. */
RWI_INLINE void pair_weights(const float *weights, int64_t step, int64_t count, uint32_t *words) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        const float *even = weights + (step == 1 ? 2 * i : i);
        words[i] = (uint32_t)rwi_f32_to_bf16(even[step]) << 16 | rwi_f32_to_bf16(even[0]);
    }
}

RWI_INLINE void multiply_few(state *t, bool pairs) {
    int64_t keys = padded_keys(t);
    for (int32_t r = 0; pairs && r < t->item.rows; r++)
        pair_weights(t->scores + r * KEYS, 1, keys / 2, t->weight_pairs + r * KEYS);
    rwi_tile_product product = {.a = pairs ? (const rwi_word *)t->weight_pairs : t->scores,
                                .a_row = KEYS,
                                .a_depth = 1,
                                .b_rows = t->v_words,
                                .c = t->out,
                                .c_row = t->width,
                                .add = true,
                                .kept = t->kept,
                                .rows = t->item.rows,
                                .columns = t->width,
                                .depth = pairs ? keys / 2 : keys,
                                .pairs = pairs};
    rwi_tile_multiply(&product);
}

RWI_INLINE void multiply_panel(state *t, int32_t panel, bool pairs) {
    rwi_span keys = keys_of_panel(t, panel);
    const float *weights = t->scores + panel * PANEL * KEYS;
    if (rwi_span_empty(keys))
        return;
    for (int32_t n = keys.begin; pairs && n < keys.end; n += 2)
        pair_weights(weights + n * PANEL, PANEL, PANEL, t->weight_pairs + n / 2 * PANEL);
    int32_t depth_begin = pairs ? keys.begin / 2 : keys.begin;
    rwi_tile_product product = {
        .a = (pairs ? (const rwi_word *)t->weight_pairs : weights) + depth_begin * PANEL,
        .a_row = 1,
        .a_depth = PANEL,
        .b_rows = t->v_words + depth_begin,
        .c = t->out + panel * PANEL * t->width,
        .c_row = t->width,
        .add = true,
        .kept = t->kept + panel * PANEL,
        .rows = rwi_min(PANEL, t->item.rows - panel * PANEL),
        .columns = t->width,
        .depth = pairs ? (keys.end - keys.begin) / 2 : keys.end - keys.begin,
        .pairs = pairs};
    rwi_tile_multiply(&product);
}

static void multiply_weights_v(const rw_attention_params *p, state *t) {
    bool certain = t->sees == RW_TILE_ALL && rwi_attention_is_plain(p);
    if (!certain && !are_finite(p, t)) {
        multiply_with_care(p, t);
        return;
    }
    prepare_v(p, t);
    if (t->few && t->pairs)
        multiply_few(t, true);
    else if (t->few)
        multiply_few(t, false);
    for (int32_t panel = 0; !t->few && panel < panels(t); panel++) {
        if (t->pairs)
            multiply_panel(t, panel, true);
        else
            multiply_panel(t, panel, false);
    }
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
        float *out = t->out + r * t->width, base = rwi_softmax_base(t->largest[r]);
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

static void attend_keys(const rw_attention_params *p, state *t) {
    find_keys(p, t);
    multiply_q_k(p, t);
    weigh(p, t);
    multiply_weights_v(p, t);
}

void RWI_CPU_KERNEL(attention)(const rw_attention_params *p, int64_t begin, int64_t end,
                               rwi_fault_sink *sink) {
    state t;
    t.few = rwi_attention_tile_rows(p, ROWS) < ROWS;
    t.pairs = p->dtype == RW_BF16 && rwi_tile_has_pairs();
    t.words = t.pairs ? p->head_dim / 2 : p->head_dim;
    t.width = rwi_ceil_div(p->v_dim, RWI_LANES) * RWI_LANES;
    for (int64_t item = begin; item < end; item++) {
        t.item = find_item(p, item);
        begin_rows(p, &t, sink);
        for (int64_t j = t.item.keys.begin; j < t.item.keys.end; j += KEYS) {
            t.first = j;
            t.keys = rwi_min(KEYS, t.item.keys.end - j);
            t.sees = rwi_attention_ask_tile(p, &t.item, j, t.keys);
            if (t.sees != RW_TILE_NONE)
                attend_keys(p, &t);
        }
        end_rows(p, &t);
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
