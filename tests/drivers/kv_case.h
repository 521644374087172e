/* Cases of rw_kv_append and rw_rope_append, for kv_driver.c, kv_cases.c and kv_reference.c. */
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
    KV_FAULT_PAGE_HIGH,
    KV_FAULT_SLOT_LOW, /* the last token's slot is -2 */
    KV_FAULT_SLOT_HIGH,
    KV_FAULT_BOUND /* cu_seqlens starts at 1 */
} kv_fault;

typedef enum kv_scales {
    KV_SCALES_NONE = 0,
    KV_SCALES_ONE,
    KV_SCALES_HEADS
} kv_scales;

typedef enum kv_v_norm {
    KV_V_NORM_NONE = 0,
    KV_V_NORM_WEIGHT,
    KV_V_NORM_PLAIN /* no weight */
} kv_v_norm;

/* max_seq: positions of a sequence; if paged, in whole pages. fused: k and v are slices of one
 * tensor. sequences: of packed tokens, 0 for no cu_seqlens; the last `padding` tokens belong to none.
 * slots: the cache has pages, without a table. cache_dtype: that of k, or one of 8 bits. */
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
    FIELD(no_v, 0, NULL)                                                                           \
    FIELD(ring, 0, NULL)                                                                           \
    FIELD(sequences, 0, NULL)                                                                      \
    FIELD(padding, 0, NULL)                                                                        \
    FIELD(cu_dtype, 0, rwt_words_id_dtype)                                                         \
    FIELD(slots, 0, rwt_words_offsets)                                                             \
    FIELD(cache_dtype, 0, words_cache_dtype)                                                       \
    FIELD(scales, 0, words_scales)                                                                 \
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
    FIELD(rotate, 1, NULL)                                                                         \
    FIELD(norm, 0, words_norm)                                                                     \
    FIELD(v_norm, 0, words_v_norm)                                                                 \
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

static inline rw_dtype kv_cache_dtype(const kv_case *c) {
    return c->cache_dtype == 0 ? (rw_dtype)c->dtype : c->cache_dtype == 1 ? RW_F8_E4M3 : RW_F8_E5M2;
}

/* The number of sequences in the cache. */
static inline int64_t kv_sequences(const kv_case *c) {
    return c->sequences ? c->sequences : c->batch;
}

static inline int64_t rope_append_rotary_width(const rope_append_case *c) {
    if (!c->rotate)
        return 0;
    return c->rotary_dim ? c->rotary_dim : c->head_dim;
}

typedef struct kv_plan {
    rwt_view in[2]; /* k, v */
    rwt_view cache[2];
    rwt_view table;
    rwt_view offsets;
    rwt_view cu_seqlens;
    rwt_view slots;
    rwt_view scale[2]; /* of the cache's k and v */
    int64_t num_pages;
    int64_t length; /* positions of a sequence; with slots: of all pages */
} kv_plan;

/* The first member is a kv_plan. */
typedef struct rope_append_plan {
    kv_plan kv;
    rwt_view q;
    rwt_view q_out;
    rwt_view weight[3]; /* of q, k and v */
    rwt_ids ids;
    rw_rope_spec spec;
    double inv_freq[KV_MAX_FREQUENCIES];
    double attention_factor;
} rope_append_plan;

/* Why a case is invalid, or NULL. */
const char *kv_invalid(const rwt_case *row);
const char *rope_append_invalid(const rwt_case *row);

/* The first position of sequence b, its number of tokens, and bound b of cu_seqlens. */
int64_t kv_first_position(const rwt_job *job, int64_t b);
int64_t kv_count_tokens(const rwt_job *job, int64_t b);
int64_t kv_bound(const rwt_job *job, int64_t b);
int64_t kv_slot_element(const kv_plan *plan, int64_t b, int64_t s);

void kv_reference(rwt_job *job);
void rope_append_reference(rwt_job *job);

extern const rwt_case_row kv_rows[];
extern const rwt_case_row rope_append_rows[];
extern const char kv_random[];
extern const char rope_append_random[];
extern const rwt_benchmark kv_benchmarks[];
extern const rwt_benchmark rope_append_benchmarks[];

#endif
