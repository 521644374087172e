/* A case of rw_rope_apply or rw_rope_rerotate, for rope_driver.c and rope_cases.c. */
#ifndef RWT_ROPE_CASE_H
#define RWT_ROPE_CASE_H

#include "drivers/driver_fields.h"

#define ROPE_MAX_FREQUENCIES 512

enum {
    ROPE_LAYOUT_THD = 3
};

/* variant: the second, third, ... set of parameters of each type. partial: percentage of head_dim
 * that is rotated. fused: q and k are slices of one tensor that also holds v. from_max:
 * max_positions of `from`; 0: the same. */
#define ROPE_FIELDS(FIELD)                                                                         \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(type, RW_ROPE_DEFAULT, words_type)                                                       \
    FIELD(variant, 0, NULL)                                                                        \
    FIELD(factors, 0, NULL)                                                                        \
    FIELD(pairing, RW_ROPE_HALF, words_pairing)                                                    \
    FIELD(axes, RW_ROPE_AXES_ONE, words_axes)                                                      \
    FIELD(sections, 0, words_sections)                                                             \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(seq, 5, NULL)                                                                            \
    FIELD(q_heads, 2, NULL)                                                                        \
    FIELD(k_heads, 1, NULL)                                                                        \
    FIELD(head_dim, 64, NULL)                                                                      \
    FIELD(start, 0, NULL)                                                                          \
    FIELD(rotary_dim, 0, NULL)                                                                     \
    FIELD(partial, 0, NULL)                                                                        \
    FIELD(layout, 0, words_layout)                                                                 \
    FIELD(out_layout, 0, words_layout)                                                             \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(placement, RWT_OUT_OF_PLACE, rwt_words_placement)                                        \
    FIELD(fused, 0, NULL)                                                                          \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(direction, RW_ROPE_FORWARD, words_direction)                                             \
    FIELD(from, 0, words_from)                                                                     \
    FIELD(max_positions, 4096, NULL)                                                               \
    FIELD(from_max, 0, NULL)                                                                       \
    RWT_ID_FIELDS(FIELD)                                                                           \
    FIELD(values, RWT_ORDINARY, rwt_words_values)                                                  \
    FIELD(seed, 0, NULL)

typedef struct rope_case {
    ROPE_FIELDS(RWT_MEMBER)
} rope_case;

static inline const rope_case *rope_case_of(const rwt_case *c) {
    return (const rope_case *)c->values;
}

static inline const rwt_id_fields *rope_id_fields(const rope_case *c) {
    return (const rwt_id_fields *)&c->positions;
}

/* The number of rotated columns of a head. */
static inline int64_t rope_rotary_width(const rope_case *c) {
    if (c->type == RW_ROPE_PROPORTIONAL)
        return c->head_dim;
    if (c->rotary_dim)
        return c->rotary_dim;
    double factor = c->partial ? (double)c->partial / 100.0 : 1.0;
    return (int64_t)((double)c->head_dim * factor);
}

/* Why a case is invalid, or NULL. */
const char *rope_invalid(const rwt_case *row);

extern const rwt_case_row rope_rows[];
extern const char rope_random[];
extern const rwt_benchmark rope_benchmarks[];

#endif
