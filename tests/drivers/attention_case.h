/* The cases of rw_attention: their fields and tensors, for its drivers and its reference. */
#ifndef RWT_ATTENTION_CASE_H
#define RWT_ATTENTION_CASE_H

#include "drivers/pattern_case.h"

/* Fields:
 *
 * kv_dtype    same: dtype
 * kv_scale    k_scale and v_scale: absent, one each, or one for each head
 * view        v is the first v_dim columns of k
 * lse         0: absent; 2: in memory [batch, seq_q, heads]
 * scale       in 1/64; 0: absent
 * mask        [batch, heads, seq_q, seq_k] or [batch, 1, 1, seq_k], of mask_dtype
 * poison      k and v are NaN where no query sees the key
 * one_nan     NaN in column 0 of v or k, at the last key that the first query sees; or in
 *             column 0 of the first query
 * paged       k and v in pages, in random order, with unused pages between them
 * page_fault  the last sequence's page of the last key that its last query sees is -1, or past the
 *             last
 * split       there is a workspace
 * ragged      q is packed; seq_q and (packed_k) seq_k are those of the first sequence, the others are
 *             shorter, or have one query (decodes); the dtype is that of the bounds
 * packed_k    k and v are packed too
 * hint        max_seq_q is given
 * bounds_at_fault  the last bound of q is below the one before it, or past the tokens; the first one
 *             is not 0; a sequence is longer than max_seq_q; the last bound of k is past the tokens
 * invariant   batch_invariant
 * extreme     scores that are exact in f32, and equal within a row: 0 with a mask of -1e9, of -1e10
 *             or of the dtype's lowest number, 0 with a scale of 3e38, 2^35 (products); or 2^24 and
 *             2^24 + 2 (large); or 0 for key 0 and -16.75 for all others (small), which contribute
 *             little; or 0, far below the sinks, with large values (sink): weights are less than
 *             f32's normal numbers, results are not
 * products    of f32; the bounds are the same
 */
#define ATTENTION_FIELDS(FIELD, SPLIT)                                                             \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(out_dtype, RW_F32, rwt_words_dtype)                                                      \
    FIELD(kv_dtype, 0, rwt_attention_words_kv_dtype)                                               \
    FIELD(kv_scale, 0, rwt_attention_words_kv_scale)                                               \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(heads, 4, NULL)                                                                          \
    FIELD(group, 2, NULL)                                                                          \
    FIELD(seq_q, 9, NULL)                                                                          \
    FIELD(seq_k, 9, NULL)                                                                          \
    FIELD(head_dim, 32, NULL)                                                                      \
    FIELD(v_dim, 32, NULL)                                                                         \
    FIELD(view, 0, NULL)                                                                           \
    FIELD(layout, 0, rwt_attention_words_layout)                                                   \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(lse, 1, NULL)                                                                            \
    FIELD(scale, 0, NULL)                                                                          \
    FIELD(softcap, 0, NULL)                                                                        \
    FIELD(mask, 0, rwt_attention_words_mask)                                                       \
    FIELD(mask_dtype, RW_F32, rwt_words_mask_dtype)                                                \
    FIELD(alibi, 0, rwt_attention_words_alibi)                                                     \
    FIELD(sinks, 0, NULL)                                                                          \
    FIELD(poison, 0, NULL)                                                                         \
    FIELD(one_nan, 0, rwt_attention_words_one_nan)                                                 \
    FIELD(paged, 0, rwt_attention_words_paged)                                                     \
    FIELD(page_size, 16, NULL)                                                                     \
    FIELD(page_fault, 0, rwt_attention_words_page_fault)                                           \
    FIELD(split, SPLIT, NULL)                                                                      \
    FIELD(ragged, 0, rwt_words_offsets)                                                            \
    FIELD(packed_k, 0, NULL)                                                                       \
    FIELD(decodes, 0, NULL)                                                                        \
    FIELD(hint, 0, NULL)                                                                           \
    FIELD(bounds_at_fault, 0, rwt_attention_words_bounds_fault)                                    \
    FIELD(invariant, 0, NULL)                                                                      \
    FIELD(extreme, 0, rwt_attention_words_extreme)                                                 \
    FIELD(products, RW_F32_EXACT, rwt_attention_words_products)                                    \
    RWT_PATTERN_FIELDS(FIELD)                                                                      \
    FIELD(seed, 0, NULL)

/* Packed tensors: they have no batch axis, which is a batch of 1. */
enum {
    LAYOUT_THD = 3
};

enum {
    LSE_HEADS_LAST = 2
};

enum {
    BOUNDS_DOWN = 1,
    BOUNDS_PAST,
    BOUNDS_FIRST,
    BOUNDS_LONG,
    BOUNDS_KEYS
};

enum {
    NAN_IN_V = 1,
    NAN_IN_K,
    NAN_IN_Q
};

enum {
    EXTREME_MASK_1E9 = 1,
    EXTREME_MASK_1E10,
    EXTREME_MASK_LOWEST,
    EXTREME_SCALE,
    EXTREME_PRODUCTS,
    EXTREME_LARGE,
    EXTREME_SMALL,
    EXTREME_SINK
};

typedef struct rwt_attention_case {
    ATTENTION_FIELDS(RWT_MEMBER, 0)
} rwt_attention_case;

extern const char *const rwt_attention_words_layout[];
extern const char *const rwt_attention_words_mask[];
extern const char *const rwt_attention_words_alibi[];
extern const char *const rwt_attention_words_one_nan[];
extern const char *const rwt_attention_words_paged[];
extern const char *const rwt_attention_words_page_fault[];
extern const char *const rwt_attention_words_bounds_fault[];
extern const char *const rwt_attention_words_extreme[];
extern const char *const rwt_attention_words_products[];
extern const char *const rwt_attention_words_kv_dtype[];
extern const char *const rwt_attention_words_kv_scale[];

typedef struct rwt_attention_plan {
    rwt_view q;
    rwt_view k;
    rwt_view v;
    rwt_view table;
    rwt_view out;
    rwt_view lse;
    rwt_view workspace;
    rwt_view mask;
    rwt_view slopes;
    rwt_view sinks;
    rwt_view k_scale;
    rwt_view v_scale;
    rwt_view cu_q;
    rwt_view cu_k;
    int64_t tokens; /* of q, or seq_q */
    int64_t keys;   /* of packed k, or seq_k */
    rwt_pattern_plan pattern;
} rwt_attention_plan;

const rwt_attention_case *rwt_attention_case_of(const rwt_case *c);

/* The scale that rw_attention receives; 0: none. */
double rwt_attention_scale(const rwt_attention_case *c);
const rwt_pattern_fields *rwt_attention_pattern_of(const rwt_attention_case *c);

/* The element of q, out or (d = 0, after h) LSE of query i of sequence b. */
int64_t rwt_attention_query_at(const rwt_job *job, const rwt_view *view, int64_t b, int64_t i,
                               int64_t h, int64_t d);
int64_t rwt_attention_lse_at(const rwt_job *job, int64_t b, int64_t i, int64_t h);

/* The token of query i of sequence b, in reports of faults. */
int64_t rwt_attention_token(const rwt_job *job, int64_t b, int64_t i);

/* The largest number of queries that the operation is told. */
int64_t rwt_attention_max_seq_q(const rwt_attention_case *c);

/* Pages of a sequence, and of the cache. */
int64_t rwt_attention_pages_each(const rwt_attention_case *c);
int64_t rwt_attention_num_pages(const rwt_attention_case *c);

/* The page that holds key j of sequence b according to the table. */
int64_t rwt_attention_page_of(const rwt_job *job, int64_t b, int64_t j);

/* The element of k or v: key j of sequence b. */
int64_t rwt_attention_key_at(const rwt_job *job, const rwt_view *view, int64_t b, int64_t h,
                             int64_t j, int64_t d);

/* Keys [begin, end) of query i: from the first that it sees to the last. */
typedef struct rwt_attention_hull {
    int64_t begin;
    int64_t end;
} rwt_attention_hull;

rwt_attention_hull rwt_attention_hull_of(const rwt_job *job, int64_t b, int64_t i);

/* Whether visibility depends on more than intervals. The page check of a query uses intervals only.
 */
bool rwt_attention_has_cells(const rwt_attention_case *c);

void rwt_attention_reference(rwt_job *job);

/* The cases of rw_attention without a workspace and with one. */
const char *rwt_attention_invalid(const rwt_case *row);
extern const rwt_case_row rwt_attention_rows[];
extern const rwt_case_row rwt_combine_rows[];
extern const char rwt_attention_random[];
extern const char rwt_combine_random[];
extern const rwt_benchmark rwt_attention_benchmarks[];
extern const rwt_benchmark rwt_combine_benchmarks[];

#endif
