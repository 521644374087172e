/* Attention on the CPU: the rules, from products to scores, and which keys a row sees. Many rows
 * are scored panel by panel, few rows one after another; both in vectors. */
#ifndef RWI_ATTENTION_RULES_CPU_H
#define RWI_ATTENTION_RULES_CPU_H

#include "attention/attention_tile_cpu.h"
#include "cpu/bits_cpu.h"

/* The first score of row `r`, and the distance between its scores. */
static float *scores_of(state *t, int32_t r) {
    return t->few ? t->scores + r * FEW_KEYS : scores_of_panel(t, r / PANEL) + r % PANEL;
}

static int64_t score_stride(const state *t) {
    return t->few ? 1 : PANEL;
}

/* Padding keys of a tile, up to a whole block, which no row sees. */
static rwi_span missing(const state *t, rwi_span keys) {
    rwi_span none = {(int32_t)rwi_max(keys.begin, rwi_min(keys.end, t->keys)), keys.end};
    return none;
}

/* ---- scale, soft cap, ALiBi, mask --------------------------------------------------------- */

static void score_products(const rw_attention_params *p, int64_t count, float *scores) {
    const rw_softmax_params rules = {.scale = p->rules.scale, .softcap = p->rules.softcap};
    if (rules.softcap == 0.0f) {
#pragma omp simd
        for (int64_t n = 0; n < count; n++)
            scores[n] *= rules.scale;
        return;
    }
#pragma omp simd
    for (int64_t n = 0; n < count; n++)
        scores[n] = rwi_softmax_score(&rules, scores[n]);
}

/* The bias of key j. A difference of positions that int32 cannot hold is of a hidden key. */
RWI_INLINE float alibi_bias(bool is_signed, float slope, uint32_t position, uint32_t j) {
    return rwi_alibi_of(is_signed, slope, (float)(int32_t)(j - position));
}

static void add_alibi_to_panel(const rw_attention_params *p, state *t, int32_t panel,
                               rwi_span keys) {
    float *scores = scores_of_panel(t, panel);
    const float *slopes = t->slopes + panel * PANEL;
    const uint32_t *positions = t->positions + panel * PANEL;
    const bool is_signed = p->rules.alibi.is_signed;
    for (int32_t n = keys.begin; n < keys.end; n++) {
        const uint32_t j = (uint32_t)t->first + (uint32_t)n;
#pragma omp simd
        for (int32_t r = 0; r < PANEL; r++)
            scores[n * PANEL + r] += alibi_bias(is_signed, slopes[r], positions[r], j);
    }
}

static void add_alibi_to_row(const rw_attention_params *p, state *t, int32_t r) {
    float *scores = scores_of(t, r);
    const float slope = t->slopes[r];
    const uint32_t start = (uint32_t)t->first, position = t->positions[r];
    const bool is_signed = p->rules.alibi.is_signed;
#pragma omp simd
    for (int32_t n = 0; n < FEW_KEYS; n++)
        scores[n] += alibi_bias(is_signed, slope, position, start + (uint32_t)n);
}

/* The tile's part of row `r` of the mask, as f32. */
static const float *read_mask(const rw_attention_params *p, const state *t, int32_t r,
                              float *line) {
    const rwi_score_mask *mask = &p->rules.mask;
    rwi_cpu_load_mask(mask->dtype, rwi_element(mask->dtype, mask->data, t->rows[r].mask + t->first),
                      t->keys, line);
    return line;
}

static void add_mask_to_panel(const rw_attention_params *p, state *t, int32_t panel,
                              rwi_span keys) {
    const int32_t begin = panel * PANEL;
    const int32_t count = (int32_t)rwi_min(PANEL, t->item.rows - begin);
    const float *lines[PANEL] = {t->key_words}; /* the first row's, also of rows of padding */
    for (int32_t r = 0; r < PANEL; r++) {
        if (r >= count)
            lines[r] = lines[0];
        else if (r > 0 && t->rows[begin + r].mask == t->rows[begin + r - 1].mask)
            lines[r] = lines[r - 1];
        else
            lines[r] = read_mask(p, t, begin + r, t->key_words + r * KEYS);
    }
    float *scores = scores_of_panel(t, panel);
    for (int32_t n = keys.begin; n < keys.end; n += KEY_BLOCK)
        for (int32_t r = 0; r < PANEL; r += RWI_LANES)
            rwi_add_transposed(lines + r, n, scores + n * PANEL + r, PANEL);
}

static void add_mask_to_row(const rw_attention_params *p, state *t, int32_t r) {
    float *scores = scores_of(t, r);
    const float *line = read_mask(p, t, r, t->key_words);
#pragma omp simd
    for (int64_t n = 0; n < t->keys; n++)
        scores[n] += line[n];
}

/* ---- visible keys ------------------------------------------------------------------------- */

/* Bit n of the result: whether row `r` sees key j + n, for a pattern with cells. */
static uint32_t seen_word(const rw_attention_params *p, const state *t, int32_t r, int32_t j) {
    const rwi_pattern *pattern = &p->rules.pattern;
    const rwi_pattern_row *row = &t->rows[r].pattern;
    const int64_t seq_k = pattern->seq_k;
    uint32_t seen = rwi_range_bits(row->prefix.begin - (int64_t)j, row->prefix.end - (int64_t)j) |
                    rwi_range_bits(row->window.begin - (int64_t)j, row->window.end - (int64_t)j);
    if (pattern->globals)
        seen |= rwi_range_bits(row->global.begin - (int64_t)j, row->global.end - (int64_t)j) &
                rwi_load_bits(pattern->globals, j, seq_k);
    if (row->bits)
        seen &= rwi_load_bits(row->bits, j, seq_k);
    if (row->mask)
        seen &= rwi_not_low_bits(pattern->mask_dtype, row->mask, j, seq_k);
    for (uint32_t left = pattern->function ? seen : 0; left != 0; left &= left - 1) {
        const int32_t n = __builtin_ctz(left);
        const rw_pattern_pair pair = {pattern->function_b + row->b, row->i, j + n};
        if (!pattern->function(pattern->function_user, &pair))
            seen &= ~((uint32_t)1 << n);
    }
    return seen;
}

/* The words of row `r` for keys [begin, end) of the tile; those of the same query are equal. */
static void find_seen(const rw_attention_params *p, state *t, int32_t r, rwi_span keys) {
    const int32_t step = t->few ? 1 : ROWS;
    uint32_t *words = t->seen + (t->few ? r * (FEW_KEYS / WORD_BITS) : r);
    const uint32_t *last = words - (t->few ? FEW_KEYS / WORD_BITS : 1);
    const bool same = r % PANEL > 0 && t->rows[r].pattern.i == t->rows[r - 1].pattern.i;
    for (int32_t w = keys.begin / WORD_BITS; w * WORD_BITS < keys.end; w++)
        words[w * step] =
            same ? last[w * step] : seen_word(p, t, r, (int32_t)t->first + w * WORD_BITS);
}

static void hide_cells_of_panel(const rw_attention_params *p, state *t, int32_t panel,
                                rwi_span keys) {
    float *scores = scores_of_panel(t, panel);
    const int32_t begin = panel * PANEL, end = (int32_t)rwi_min(begin + PANEL, t->item.rows);
    const rwi_span valid = rwi_span_meet(keys, 0, t->keys);
    for (int32_t r = begin; r < end; r++)
        find_seen(p, t, r, valid);
    for (int32_t n = valid.begin; n < valid.end; n++) {
        const uint32_t *words = t->seen + n / WORD_BITS * ROWS + begin;
        const uint32_t bit = (uint32_t)1 << n % WORD_BITS;
#pragma omp simd
        for (int32_t r = 0; r < PANEL; r++) {
            const float score = scores[n * PANEL + r]; /* a condition on the load costs more */
            scores[n * PANEL + r] = (words[r] & bit) != 0 ? score : -INFINITY;
        }
    }
}

static void hide_cells_of_row(const rw_attention_params *p, state *t, int32_t r) {
    float *scores = scores_of(t, r);
    const rwi_span valid = {0, (int32_t)t->keys};
    find_seen(p, t, r, valid);
    for (int32_t n = 0; n < valid.end; n += WORD_BITS) {
        const uint32_t word = t->seen[r * (FEW_KEYS / WORD_BITS) + n / WORD_BITS];
#pragma omp simd
        for (int32_t bit = 0; bit < WORD_BITS; bit++) {
            const float score = scores[n + bit];
            scores[n + bit] = (word >> bit & 1) != 0 ? score : -INFINITY;
        }
    }
}

RWI_INLINE float hide(const state *t, int32_t r, int32_t j, float score) {
    rwi_span prefix = {t->prefix[0][r], t->prefix[1][r]};
    rwi_span window = {t->window[0][r], t->window[1][r]};
    bool seen = (int)rwi_span_has(prefix, j) | (int)rwi_span_has(window, j);
    return seen ? score : -INFINITY;
}

/* ---- products to scores -------------------------------------------------------------------- */

static void score_panel(const rw_attention_params *p, state *t, int32_t panel, rwi_span keys) {
    float *scores = scores_of_panel(t, panel);
    bool cells = rwi_pattern_has_cells(&p->rules.pattern), some = t->sees != RW_TILE_ALL;
    if (!t->products)
        score_products(p, (int64_t)(keys.end - keys.begin) * PANEL, scores + keys.begin * PANEL);
    if (p->rules.alibi.slopes)
        add_alibi_to_panel(p, t, panel, keys);
    if (p->rules.mask.data)
        add_mask_to_panel(p, t, panel, keys);
    if (some && cells)
        hide_cells_of_panel(p, t, panel, keys);
    for (int32_t n = keys.begin; some && !cells && n < keys.end; n++) {
        if (rwi_span_has(t->windows[panel], (int32_t)t->first + n))
            continue;
#pragma omp simd
        for (int32_t r = 0; r < PANEL; r++)
            scores[n * PANEL + r] =
                hide(t, panel * PANEL + r, (int32_t)t->first + n, scores[n * PANEL + r]);
    }
    for (int32_t n = missing(t, keys).begin * PANEL; n < missing(t, keys).end * PANEL; n++)
        scores[n] = -INFINITY;
}

/* The same for one of few rows, and all keys that a tile may have. */
static void score_row(const rw_attention_params *p, state *t, int32_t r) {
    float *scores = scores_of(t, r);
    const rwi_span keys = {0, FEW_KEYS};
    bool cells = rwi_pattern_has_cells(&p->rules.pattern), some = t->sees != RW_TILE_ALL;
    score_products(p, keys.end, scores);
    if (p->rules.alibi.slopes)
        add_alibi_to_row(p, t, r);
    if (p->rules.mask.data)
        add_mask_to_row(p, t, r);
    if (some && cells)
        hide_cells_of_row(p, t, r);
#pragma omp simd
    for (int32_t n = 0; n < (some && !cells ? keys.end : 0); n++)
        scores[n] = hide(t, r, (int32_t)t->first + n, scores[n]);
    for (int32_t n = missing(t, keys).begin; n < keys.end; n++)
        scores[n] = -INFINITY;
}

#endif
