/* Attention on the CPU: from scores to weights. */
#ifndef RWI_ATTENTION_SOFTMAX_CPU_H
#define RWI_ATTENTION_SOFTMAX_CPU_H

#include "attention/attention_rules_cpu.h"
#include "cpu/weights_cpu.h"

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

/* Adds weights to the sum of row `r`, which is `kept` times what it was. */
RWI_INLINE void join_sum(state *t, int32_t r, float kept, float weights) {
    float sum = t->sum[r] * kept, part = t->sum_rest[r] * kept + weights;
    rwi_sum_join(&sum, &part);
    t->sum[r] = sum;
    t->sum_rest[r] = part;
}

/* Scores to weights; sums so far are to be rescaled to the new largest score. */
static void weigh_panel(state *t, int32_t panel, rwi_span keys) {
    float *scores = scores_of_panel(t, panel), base[PANEL];
    float *largest = t->largest + panel * PANEL, *kept = t->kept + panel * PANEL;
    memcpy(kept, largest, sizeof base);
    find_largest(scores, keys, largest);
#pragma omp simd
    for (int32_t r = 0; r < PANEL; r++) {
        base[r] = rwi_softmax_base(largest[r]);
        kept[r] = rwi_exp(kept[r] - base[r]);
    }
    for (int32_t begin = keys.begin; begin < keys.end; begin += WORD_KEYS) {
        float sums[PANEL] = {0}; /* of few weights: one of 1 leaves room for others */
        for (int32_t n = begin; n < rwi_min(begin + WORD_KEYS, keys.end); n++)
            rwi_weigh_columns(scores + n * PANEL, base, sums, PANEL);
#pragma omp simd
        for (int32_t r = 0; r < PANEL; r++)
            join_sum(t, panel * PANEL + r, begin == keys.begin ? kept[r] : 1.0f, sums[r]);
    }
}

/* The same for one of few rows. */
static void weigh_row(const rw_attention_params *p, state *t, int32_t r) {
    float *scores = scores_of(t, r), largest = t->largest[r], sum = 0.0f;
    score_row(p, t, r);
#pragma omp simd reduction(max : largest)
    for (int32_t n = 0; n < FEW_KEYS; n++)
        largest = scores[n] > largest ? scores[n] : largest;
    float base = rwi_softmax_base(largest);
    for (int32_t first = 0; first < FEW_KEYS; first += WORD_KEYS)
        sum += rwi_weigh_line(scores + first, base, WORD_KEYS);
    t->kept[r] = rwi_exp(t->largest[r] - base);
    t->largest[r] = largest;
    join_sum(t, r, t->kept[r], sum);
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
