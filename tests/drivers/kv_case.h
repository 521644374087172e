/* Cases of rw_kv_append and rw_rope_append, for kv_driver.c and kv_cases.c. */
#ifndef RWT_KV_CASE_H
#define RWT_KV_CASE_H

#include "drivers/driver_fields.h"

enum {
    KV_LAYOUT_THD = 3, /* packed: no batch axis */
    KV_MAX_FREQUENCIES = 512
};

typedef enum kv_fault {
    KV_FAULT_NONE = 0,
    KV_FAULT_BEFORE,   /* the last sequence starts at -1 */
    KV_FAULT_PAST_END, /* its last token is one past the end */
    KV_FAULT_PAGE_LOW,
    KV_FAULT_PAGE_HIGH
} kv_fault;

/* max_seq: positions of a sequence; if paged, in whole pages. fused: k and v are slices of one
 * tensor. */
#define KV_FIELDS(FIELD)                                                                           \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(seq, 5, NULL)                                                                            \
    FIELD(heads, 2, NULL)                                                                          \
    FIELD(head_dim, 64, NULL)                                                                      \
    FIELD(v_dim, 64, NULL)                                                                         \
    FIELD(layout, 0, words_layout)                                                                 \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(fused, 0, NULL)                                                                          \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(cache_layout, 0, words_cache_layout)                                                     \
    FIELD(cache_stride, RWT_CONTIGUOUS, rwt_words_stride)                                          \
    FIELD(cache_misalign, 0, NULL)                                                                 \
    FIELD(paged, 0, words_paged)                                                                   \
    FIELD(page_size, 16, NULL)                                                                     \
    FIELD(max_seq, 48, NULL)                                                                       \
    FIELD(cache_offsets, 1, rwt_words_offsets)                                                     \
    FIELD(cache_offset, 0, NULL)                                                                   \
    FIELD(cache_fault, KV_FAULT_NONE, words_cache_fault)                                           \
    FIELD(values, RWT_ORDINARY, rwt_words_values)                                                  \
    FIELD(seed, 0, NULL)

/* Additional fields of an operation with rotation. */
#define ROPE_APPEND_FIELDS(FIELD)                                                                  \
    KV_FIELDS(FIELD)                                                                               \
    FIELD(q_heads, 4, NULL)                                                                        \
    FIELD(placement, RWT_OUT_OF_PLACE, rwt_words_placement)                                        \
    FIELD(pairing, RW_ROPE_HALF, words_pairing)                                                    \
    FIELD(yarn, 0, NULL)                                                                           \
    FIELD(axes, 0, words_axes)                                                                     \
    FIELD(start, 0, NULL)                                                                          \
    FIELD(rotary_dim, 0, NULL)                                                                     \
    FIELD(direction, RW_ROPE_FORWARD, words_direction)                                             \
    FIELD(norm, 0, words_norm)                                                                     \
    FIELD(norm_dtype, RW_F32, rwt_words_dtype)                                                     \
    FIELD(norm_offset, 0, NULL)                                                                    \
    FIELD(norm_cast, RW_NORM_CAST_BEFORE_WEIGHT, words_cast)                                       \
    FIELD(max_positions, 4096, NULL)                                                               \
    RWT_ID_FIELDS(FIELD)

typedef struct kv_case {
    KV_FIELDS(RWT_MEMBER)
} kv_case;

/* The first member is a kv_case. */
typedef struct rope_append_case {
    ROPE_APPEND_FIELDS(RWT_MEMBER)
} rope_append_case;

static inline const kv_case *kv_case_of(const rwt_case *c) {
    return (const kv_case *)c->values;
}

static inline const rope_append_case *rope_append_case_of(const rwt_case *c) {
    return (const rope_append_case *)c->values;
}

static inline const rwt_id_fields *rope_append_id_fields(const rope_append_case *c) {
    return (const rwt_id_fields *)&c->positions;
}

static inline int64_t rope_append_rotary_width(const rope_append_case *c) {
    return c->rotary_dim ? c->rotary_dim : c->head_dim;
}

/* Why a case is invalid, or NULL. */
const char *kv_invalid(const rwt_case *row);
const char *rope_append_invalid(const rwt_case *row);

extern const rwt_case_row kv_rows[];
extern const rwt_case_row rope_append_rows[];
extern const char kv_random[];
extern const char rope_append_random[];
extern const rwt_benchmark kv_benchmarks[];
extern const rwt_benchmark rope_append_benchmarks[];

#endif
