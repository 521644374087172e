/* Attention on the CPU: from scores to weights. */
#ifndef RWI_ATTENTION_SOFTMAX_CPU_H
#define RWI_ATTENTION_SOFTMAX_CPU_H

#include "attention/attention_rules_cpu.h"

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
    score_row(p, t, r);
#pragma omp simd reduction(max : largest)
    for (int32_t n = 0; n < FEW_KEYS; n++)
        largest = scores[n] > largest ? scores[n] : largest;
    float base = rwi_softmax_base(largest);
    for (int32_t first = 0; first < FEW_KEYS; first += KEYS) {
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
