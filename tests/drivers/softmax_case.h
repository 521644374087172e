/* A case of rw_scale, rw_mask_apply or rw_softmax, for softmax_driver.c and softmax_cases.c. */
#ifndef RWT_SOFTMAX_CASE_H
#define RWT_SOFTMAX_CASE_H

#include "drivers/pattern_case.h"

/* The axes of a mask: all axes of x, [seq_q, seq_k], [batch, 1, 1, seq_k] or [seq_k]. */
enum {
    MASK_NONE = 0,
    MASK_FULL,
    MASK_QUERIES,
    MASK_KEYS,
    MASK_VECTOR
};

/* Scores: as rwt_values; or up to 60, so that most probabilities of a row are tiny; or all -inf. */
enum {
    SCORES_LARGE = 2,
    SCORES_LOWEST
};

/* Fields:
 *
 * rank     of x: 4 [batch, heads, seq_q, seq_k] or less
 * percent  of the scale
 * poison   NaN where the pattern hides
 * one_nan  NaN in the first row that sees a key, at a key that it sees
 */
#define SCORES_FIELDS(FIELD)                                                                       \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(heads, 2, NULL)                                                                          \
    FIELD(seq_q, 9, NULL)                                                                          \
    FIELD(seq_k, 9, NULL)                                                                          \
    FIELD(rank, 4, NULL)                                                                           \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(placement, RWT_OUT_OF_PLACE, rwt_words_placement)                                        \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(scores, RWT_ORDINARY, words_scores)                                                      \
    FIELD(percent, 100, NULL)                                                                      \
    FIELD(mask, MASK_NONE, words_mask)                                                             \
    FIELD(mask_dtype, RW_F32, rwt_words_mask_dtype)                                                \
    FIELD(poison, 0, NULL)                                                                         \
    FIELD(one_nan, 0, NULL)                                                                        \
    FIELD(alibi, 0, words_alibi)                                                                   \
    FIELD(sinks, 0, NULL)                                                                          \
    FIELD(softcap, 0, NULL)                                                                        \
    RWT_PATTERN_FIELDS(FIELD)                                                                      \
    FIELD(seed, 0, NULL)

typedef struct scores_case {
    SCORES_FIELDS(RWT_MEMBER)
} scores_case;

static inline const scores_case *scores_case_of(const rwt_case *c) {
    return (const scores_case *)c->values;
}

static inline const rwt_pattern_fields *scores_pattern_of(const scores_case *c) {
    return (const rwt_pattern_fields *)&c->causal;
}

/* Why a case is invalid, or NULL. */
const char *scores_invalid(const rwt_case *row);
const char *softmax_invalid(const rwt_case *row);

extern const rwt_case_row scale_rows[];
extern const rwt_case_row mask_rows[];
extern const rwt_case_row softmax_rows[];
extern const char masked_random[];
extern const rwt_benchmark scale_benchmarks[];
extern const rwt_benchmark mask_benchmarks[];
extern const rwt_benchmark softmax_benchmarks[];

#endif
