/* The pattern of a driver's case: its fields, its tensors, and the predicate as defined in SPEC. */
#ifndef RWT_PATTERN_CASE_H
#define RWT_PATTERN_CASE_H

#include "drivers/driver_fields.h"

/* Fields:
 *
 * align        key_end: requires a padding on the right, which defines it
 * left, right  -1: unbounded
 * prefix       -1: none; else the same for every sequence
 * prefixes     a tensor of lengths, from 0 to past the end
 * globals      the number of globals, some of them equal
 * documents    the number of documents, some of them empty; `own`: each sequence has its own
 * pattern_at_fault  the last sequence has an invalid value
 */
#define RWT_PATTERN_FIELDS(FIELD)                                                                  \
    FIELD(causal, 0, NULL)                                                                         \
    FIELD(align, RW_ALIGN_BOTTOM_RIGHT, rwt_words_align)                                           \
    FIELD(left, -1, NULL)                                                                          \
    FIELD(right, -1, NULL)                                                                         \
    FIELD(prefix, -1, NULL)                                                                        \
    FIELD(prefixes, 0, rwt_words_offsets)                                                          \
    FIELD(globals, 0, NULL)                                                                        \
    FIELD(documents, 0, NULL)                                                                      \
    FIELD(own, 0, NULL)                                                                            \
    FIELD(padding, 0, rwt_words_padding)                                                           \
    FIELD(bits, 0, rwt_words_cells)                                                                \
    FIELD(hide, 0, rwt_words_cells)                                                                \
    FIELD(hide_dtype, RW_F32, rwt_words_mask_dtype)                                                \
    FIELD(part_dtype, 1, rwt_words_id_dtype)                                                       \
    FIELD(pattern_at_fault, 0, rwt_words_pattern_fault)

typedef struct rwt_pattern_fields {
    RWT_PATTERN_FIELDS(RWT_MEMBER)
} rwt_pattern_fields;

extern const char *const rwt_words_align[];         /* bottom top key_end, as rw_alignment */
extern const char *const rwt_words_padding[];       /* as rwt_padding */
extern const char *const rwt_words_cells[];         /* as rwt_cells */
extern const char *const rwt_words_pattern_fault[]; /* as rwt_pattern_fault */

typedef enum rwt_padding {
    RWT_PADDING_NONE = 0,
    RWT_PADDING_LEFT,
    RWT_PADDING_RIGHT,
    RWT_PADDING_BOTH
} rwt_padding;

/* The axes of a bitmask or a dense mask: [seq_q, .], [batch, seq_q, .] or [batch, 1, .]. */
typedef enum rwt_cells {
    RWT_CELLS_NONE = 0,
    RWT_CELLS_QUERIES,
    RWT_CELLS_BATCH,
    RWT_CELLS_KEYS
} rwt_cells;

typedef enum rwt_pattern_fault {
    RWT_PATTERN_FAULT_NONE = 0,
    RWT_PATTERN_FAULT_PREFIX,
    RWT_PATTERN_FAULT_PADDING,
    RWT_PATTERN_FAULT_DOCUMENTS
} rwt_pattern_fault;

#define RWT_MAX_GLOBALS 64
#define RWT_MAX_SEQUENCES 40

/* A ragged batch: the bounds of the sequences, in the tokens of q and (packed k) of k. The shape's
 * seq_q is then the number of tokens. */
typedef struct rwt_sequences {
    bool ragged;
    bool packed_k;
    int64_t q[RWT_MAX_SEQUENCES + 1];
    int64_t k[RWT_MAX_SEQUENCES + 1];
} rwt_sequences;

typedef struct rwt_pattern_plan {
    rw_pattern_shape shape;
    rwt_sequences sequences; /* set before rwt_pattern_add(), unless the batch is not ragged */
    rwt_view prefix;
    rwt_view globals;
    rwt_view cu_seqlens;
    rwt_view key_begin;
    rwt_view key_end;
    rwt_view bits;
    rwt_view mask;
    int64_t positions[RWT_MAX_GLOBALS]; /* the positions that are set in `globals` */
} rwt_pattern_plan;

/* The queries and keys of sequence b, and, of a ragged batch, the token of its first query. */
int64_t rwt_pattern_seq_q(const rwt_pattern_plan *plan, int64_t b);
int64_t rwt_pattern_seq_k(const rwt_pattern_plan *plan, int64_t b);
int64_t rwt_pattern_first(const rwt_pattern_plan *plan, int64_t b);

const char *rwt_pattern_invalid(const rwt_pattern_fields *fields, const rw_pattern_shape *shape);

/* Adds the pattern's tensors. */
void rwt_pattern_add(rwt_job *job, const rwt_pattern_fields *fields, const rw_pattern_shape *shape,
                     rwt_pattern_plan *plan);

/* The pattern over the tensors of a set (NULL: over the job's own host memory). */
rw_pattern rwt_pattern_bind(const rwt_job *job, const rwt_set *set,
                            const rwt_pattern_fields *fields, const rwt_pattern_plan *plan);

/* False where a value of query i is invalid; *bad receives it. */
bool rwt_pattern_is_valid(const rwt_job *job, const rwt_pattern_fields *fields,
                          const rwt_pattern_plan *plan, int64_t b, int64_t i, int64_t *bad);

/* The offset from query i of sequence b to its position, for the alignment of a pattern or of
 * ALiBi. */
int64_t rwt_pattern_shift(const rwt_job *job, int64_t align, const rwt_pattern_plan *plan,
                          int64_t b);

bool rwt_pattern_sees(const rwt_job *job, const rwt_pattern_fields *fields,
                      const rwt_pattern_plan *plan, const rw_pattern_pair *pair);

/* The number of visible pairs, for counting bytes. */
double rwt_pattern_count(const rwt_job *job, const rwt_pattern_fields *fields,
                         const rwt_pattern_plan *plan);

#endif
