/* Attention on the CPU: from scores to weights. */
#ifndef RWI_ATTENTION_SOFTMAX_CPU_H
#define RWI_ATTENTION_SOFTMAX_CPU_H

#include "attention/attention_tile_cpu.h"

/* The first score of row `r`, and the distance between its scores. */
static float *scores_of(state *t, int32_t r) {
    float *many = t->scores + r / PANEL * PANEL * KEYS + r % PANEL;
    return t->few ? t->scores + r * FEW_KEYS : many;
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

/* Products of row `r` to scores, where the rules differ between keys. */
static void score_row(const rw_attention_params *p, state *t, int32_t r, rwi_span keys) {
    const rwi_attention_row *row = &t->rows[r];
    float *scores = scores_of(t, r);
    int64_t stride = score_stride(t);
    for (int64_t n = keys.begin; n < rwi_min(keys.end, t->keys); n++)
        scores[n * stride] = rwi_attention_score(p, row, scores[n * stride], t->first + n);
}

/* Sets scores of row `r` to -inf where the key is not visible, if intervals alone do not decide it.
 */
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

/* Padding keys of a tile, up to a whole block, which no row sees. */
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

/* The largest score of each row so far. */
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

/* Adds the weights of a tile to the sum of row `r`, rescaled to the new largest score. */
RWI_INLINE void join_sum(state *t, int32_t r, float weights) {
    float sum = t->sum[r] * t->kept[r], part = t->sum_rest[r] * t->kept[r] + weights;
    rwi_sum_join(&sum, &part);
    t->sum[r] = sum;
    t->sum_rest[r] = part;
}

/* Scores to weights; sums so far are to be rescaled to the new largest score. */
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
        join_sum(t, panel * PANEL + r, sums[r]);
}

/* The same for one of few rows. */
static void weigh_row(const rw_attention_params *p, state *t, int32_t r) {
    float *scores = scores_of(t, r), largest = t->largest[r], sum = 0.0f;
    rwi_span keys = {0, FEW_KEYS};
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
    for (int32_t first = 0; first < keys.end; first += KEYS) {
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (int32_t n = first; n < first + KEYS; n++) {
            scores[n] = rwi_exp(scores[n] - base);
            part += scores[n];
        }
        sum += part;
    }
    t->kept[r] = rwi_exp(t->largest[r] - base);
    t->largest[r] = largest;
    join_sum(t, r, sum);
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

#endif
