/* Common to the drivers: words of fields, and the ids of tokens. */
#ifndef RWT_DRIVER_FIELDS_H
#define RWT_DRIVER_FIELDS_H

#include "harness/harness.h"

/* FIELD(name, fallback, words) defines a member of a driver's case and a row of its field table. */
#define RWT_MEMBER(name, fallback, words) int64_t name;
#define RWT_FIELD(name, fallback, words) {#name, fallback, words},
#define RWT_COUNT(array) (sizeof(array) / sizeof *(array))

extern const char *const rwt_words_dtype[];      /* f32 f16 bf16, as rw_dtype */
extern const char *const rwt_words_mask_dtype[]; /* f32 f16 bf16 u8 */
extern const char *const rwt_words_id_dtype[];   /* i32 i64 */
extern const char *const rwt_words_stride[];     /* as rwt_stride_style */
extern const char *const rwt_words_placement[];  /* as rwt_placement */
extern const char *const rwt_words_values[];     /* as rwt_values */
extern const char *const rwt_words_positions[];  /* as rwt_positions_kind */
extern const char *const rwt_words_offsets[];    /* none i32 i64 */
extern const char *const rwt_words_fault[];      /* as rwt_fault_kind */

typedef enum rwt_placement {
    RWT_OUT_OF_PLACE = 0,
    RWT_IN_PLACE,     /* no output tensor */
    RWT_IN_PLACE_SAME /* the output tensor is the input tensor */
} rwt_placement;

typedef enum rwt_positions_kind {
    RWT_POSITIONS_NONE = 0,  /* 0, 1, 2, ... */
    RWT_POSITIONS_SEQ,       /* [seq] */
    RWT_POSITIONS_BATCH_SEQ, /* [batch, seq] */
    RWT_POSITIONS_AXES       /* [axes, batch, seq], packed [axes, tokens] */
} rwt_positions_kind;

typedef enum rwt_fault_kind {
    RWT_FAULT_NONE = 0,
    RWT_FAULT_NEGATIVE, /* -1 */
    RWT_FAULT_MAX,      /* the first id past the table */
    RWT_FAULT_LOWEST,   /* the smallest number of the id dtype */
    RWT_FAULT_HIGHEST
} rwt_fault_kind;

/* The fields of a case that determine the ids of tokens. */
#define RWT_ID_FIELDS(FIELD)                                                                       \
    FIELD(positions, RWT_POSITIONS_NONE, rwt_words_positions)                                      \
    FIELD(id_dtype, 1, rwt_words_id_dtype)                                                         \
    FIELD(id_stride, RWT_CONTIGUOUS, rwt_words_stride)                                             \
    FIELD(offsets, 0, rwt_words_offsets)                                                           \
    FIELD(offset, 0, NULL)                                                                         \
    FIELD(fault, RWT_FAULT_NONE, rwt_words_fault)

typedef struct rwt_id_fields {
    RWT_ID_FIELDS(RWT_MEMBER)
} rwt_id_fields;

/* The tensors of ids of a job. */
typedef struct rwt_ids {
    rwt_view positions;
    rwt_view offsets;
    int64_t offset;
    bool packed;
} rwt_ids;

typedef struct rwt_id_shape {
    int64_t batch;
    int64_t seq;
    int64_t axes;
    bool packed; /* no batch axis */
    int64_t max_positions;
} rwt_id_shape;

const char *rwt_ids_invalid(const rwt_id_fields *fields, const rwt_id_shape *shape);

/* Adds the tensors of ids and fills them so that every id is inside the table and the first and the
 * last id occur, except for the faults that the fields request. */
rwt_ids rwt_ids_add(rwt_job *job, const rwt_id_fields *fields, const rwt_id_shape *shape);

/* The id of a token along an axis; sums wrap. */
int64_t rwt_ids_at(const rwt_job *job, const rwt_ids *ids, int64_t axis, int64_t b, int64_t s);

/* A tensor of ids, of any rank, filled by the caller. */
rwt_view rwt_id_view_add(rwt_job *job, const rwt_layout *layout, const char *name,
                         int64_t id_dtype);

/* A mask of a dtype of rwt_words_mask_dtype. */
rwt_view rwt_mask_view_add(rwt_job *job, const rwt_layout *layout, const char *name,
                           int64_t mask_dtype);

/* Fills a mask with values of a list; u8: 0 in place of -inf, else any other byte. */
void rwt_mask_fill(rwt_job *job, const rwt_view *mask, const double *values, int64_t count);

/* What an element of a mask adds. */
double rwt_mask_get(const rwt_job *job, const rwt_view *mask, int64_t element);

#endif
