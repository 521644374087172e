/* Checks on tensors, shared by every entry point. */
#ifndef RWI_TENSOR_H
#define RWI_TENSOR_H

#include "call.h"

/* Sets of dtypes, as bits 1 << dtype. */
#define RWI_DTYPE_BIT(dtype) (1u << (dtype))
#define RWI_F32 RWI_DTYPE_BIT(RW_F32)
#define RWI_FLOATS (RWI_DTYPE_BIT(RW_F32) | RWI_DTYPE_BIT(RW_F16) | RWI_DTYPE_BIT(RW_BF16))
#define RWI_IDS (RWI_DTYPE_BIT(RW_I32) | RWI_DTYPE_BIT(RW_I64))
#define RWI_BYTES RWI_DTYPE_BIT(RW_U8)
#define RWI_F8 (RWI_DTYPE_BIT(RW_F8_E4M3) | RWI_DTYPE_BIT(RW_F8_E5M2))
#define RWI_CACHES (RWI_FLOATS | RWI_F8)
#define RWI_MASKS (RWI_FLOATS | RWI_BYTES)

/* "f32, f16 or bf16": the text of one of these sets in a message. */
const char *rwi_dtypes_text(unsigned dtypes);

/* A tensor of a call and its name in messages. */
typedef struct rwi_argument {
    const char *name;
    const rw_tensor *tensor;
} rwi_argument;

static inline bool rwi_absent(const rw_tensor *tensor) {
    return tensor->rank == 0;
}

bool rwi_empty(const rw_tensor *tensor);

/* Rank in [min_rank, max_rank], a dtype of the set, no negative length, no overflow, an aligned
 * pointer that is NULL only without elements, and, unless it holds ids, unit stride along the last
 * axis. */
typedef struct rwi_tensor_rule {
    int min_rank;
    int max_rank;
    unsigned dtypes;
} rwi_tensor_rule;

rw_status rwi_check_tensor(const rwi_call *call, rwi_argument argument, rwi_tensor_rule rule);

/* The same with any strides. */
rw_status rwi_check_strided(const rwi_call *call, rwi_argument argument, rwi_tensor_rule rule);

/* `argument` has the rank and lengths of `like`. */
rw_status rwi_check_same_shape(const rwi_call *call, rwi_argument argument, rwi_argument like);

rw_status rwi_check_same_dtype(const rwi_call *call, rwi_argument argument, rwi_argument like);

/* Axes of [batch, seq, heads, head_dim] and of packed [tokens, heads, head_dim], from the end. */
enum {
    RWI_SEQ = -3,
    RWI_HEADS = -2,
    RWI_WIDTH = -1
};

/* The length of an axis; one below 0 counts from the end. */
static inline int64_t rwi_length(const rw_tensor *tensor, int axis) {
    return tensor->shape[axis < 0 ? axis + tensor->rank : axis];
}

/* One axis, from the end if below 0, has a given length. */
rw_status rwi_check_length(const rwi_call *call, rwi_argument argument, int axis, int64_t length);

/* No two elements of an output share memory. */
rw_status rwi_check_output(const rwi_call *call, rwi_argument output);

/* `output` and `other` share no element or, if `in_place` is true, are the same view. */
rw_status rwi_check_apart(const rwi_call *call, rwi_argument output, rwi_argument other,
                          bool in_place);

/* GQA: the heads of q, axis `axis`, are a multiple of those of k, its last axis but one, or 0. */
rw_status rwi_check_heads(const rwi_call *call, rwi_argument q, int axis, rwi_argument k);

/* The lengths of an LSE, [batch, heads, seq], of attention whose q or out is `like`, [batch, seq,
 * heads, head_dim]; both have a batch axis or neither. */
rw_status rwi_check_lse_shape(const rwi_call *call, rwi_argument lse, rwi_argument like);

/* The number of query heads for each kv head; 1 without heads. */
int64_t rwi_group(int64_t heads, int64_t kv_heads);

/* The tensor with valid address arithmetic: one without elements, whose data may be NULL, gets a
 * non-NULL address and strides of 0. */
rw_tensor rwi_steppable(const rw_tensor *tensor);

/* Inserts an axis of length 1 at the front. */
rw_tensor rwi_with_leading_axis(rw_tensor tensor);

/* Inserts axes of length 1 at the front, up to a rank. */
rw_tensor rwi_with_rank(rw_tensor tensor, int rank);

/* A kernel's view of ids with axes [i, j, k]: the last axes of `tensor`, right-aligned, with stride
 * 0 along axes that it lacks or that are 1 long. */
rwi_ids rwi_ids_view(const rw_tensor *tensor);

/* The same for a tensor with one axis, as axis i. */
rwi_ids rwi_ids_vector_view(const rw_tensor *tensor);

/* The ids of tokens, checked: `positions` [seq], [batch, seq] or [num_axes, batch, seq] (with
 * `packed`: [num_axes, seq] too), `offsets` [batch]; each may be absent. A batch axis of 1 is
 * broadcast. */
typedef struct rwi_id_arguments {
    const rw_tensor *positions;
    const rw_tensor *offsets;
    int64_t offset;
    int64_t batch;
    int64_t seq;
    int num_axes;
    bool packed;
} rwi_id_arguments;

rw_status rwi_check_token_ids(const rwi_call *call, const rwi_id_arguments *arguments,
                              rwi_token_ids *ids);

#endif
