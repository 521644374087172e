/* Checks on tensors, shared by every entry point. */
#include "tensor.h"

#include <stdio.h>

#include "shared/dtype.h"

/* "[2, 17, 8, 64]" */
typedef struct shape_text {
    char text[112];
} shape_text;

static shape_text format_shape(const rw_tensor *tensor) {
    shape_text out = {"["};
    size_t used = 1;
    for (int axis = 0; axis < tensor->rank && axis < RW_MAX_RANK; axis++)
        used += (size_t)snprintf(out.text + used, sizeof out.text - used, "%s%lld",
                                 axis ? ", " : "", (long long)tensor->shape[axis]);
    snprintf(out.text + used, sizeof out.text - used, "]");
    return out;
}

const char *rwi_dtypes_text(unsigned dtypes) {
    return dtypes == RWI_IDS      ? "i32 or i64"
           : dtypes == RWI_FLOATS ? "f32, f16 or bf16"
           : dtypes == RWI_BYTES  ? "u8"
           : dtypes == RWI_CACHES ? "f32, f16, bf16, f8_e4m3 or f8_e5m2"
           : dtypes == RWI_MASKS  ? "f32, f16, bf16 or u8"
                                  : "f32";
}

bool rwi_empty(const rw_tensor *tensor) {
    for (int axis = 0; axis < tensor->rank; axis++)
        if (tensor->shape[axis] == 0)
            return true;
    return false;
}

/* The lowest and highest byte offset from `data` that the view reaches, the end exclusive; false
 * if they overflow. */
static bool byte_range(const rw_tensor *tensor, int64_t *low, int64_t *high) {
    int64_t first = 0, last = 0;
    for (int axis = 0; axis < tensor->rank; axis++) {
        int64_t reach;
        if (__builtin_mul_overflow(tensor->shape[axis] - 1, tensor->stride[axis], &reach))
            return false;
        if (__builtin_add_overflow(reach < 0 ? first : last, reach, reach < 0 ? &first : &last))
            return false;
    }
    int64_t size = (int64_t)rwi_dtype_size(tensor->dtype);
    return !__builtin_add_overflow(last, 1, &last) && !__builtin_mul_overflow(first, size, low) &&
           !__builtin_mul_overflow(last, size, high);
}

rw_status rwi_check_strided(const rwi_call *call, rwi_argument argument, rwi_tensor_rule rule) {
    const rw_tensor *tensor = argument.tensor;
    const char *name = argument.name;
    if (tensor->rank < rule.min_rank || tensor->rank > rule.max_rank) {
        if (rule.min_rank == rule.max_rank)
            return rwi_fail(call, RW_INVALID_ARGUMENT, "%s has rank %d, expected %d", name,
                            tensor->rank, rule.min_rank);
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s has rank %d, expected %d to %d", name,
                        tensor->rank, rule.min_rank, rule.max_rank);
    }
    if (rw_dtype_size(tensor->dtype) == 0 || !(rule.dtypes & RWI_DTYPE_BIT(tensor->dtype)))
        return rwi_fail(call, RW_UNSUPPORTED, "%s has dtype %s (%d), expected %s", name,
                        rw_dtype_name(tensor->dtype), (int)tensor->dtype,
                        rwi_dtypes_text(rule.dtypes));
    for (int axis = 0; axis < tensor->rank; axis++)
        if (tensor->shape[axis] < 0)
            return rwi_fail(call, RW_INVALID_ARGUMENT, "%s has shape %s, a length is negative",
                            name, format_shape(tensor).text);
    if (rwi_empty(tensor))
        return RW_OK;
    int64_t low, high;
    if (!byte_range(tensor, &low, &high))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s with shape %s reaches beyond 2^63 bytes",
                        name, format_shape(tensor).text);
    if (!tensor->data)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s.data is NULL, expected %s elements", name,
                        format_shape(tensor).text);
    if ((uintptr_t)tensor->data % rwi_dtype_size(tensor->dtype) != 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s.data is %p, expected alignment to %s", name,
                        tensor->data, rw_dtype_name(tensor->dtype));
    return RW_OK;
}

rw_status rwi_check_tensor(const rwi_call *call, rwi_argument argument, rwi_tensor_rule rule) {
    const rw_tensor *tensor = argument.tensor;
    RWI_TRY(rwi_check_strided(call, argument, rule));
    int last = tensor->rank - 1;
    if (!rwi_empty(tensor) && !(RWI_IDS & RWI_DTYPE_BIT(tensor->dtype)) &&
        tensor->shape[last] > 1 && tensor->stride[last] != 1)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "%s has stride %lld along its last axis, expected 1", argument.name,
                        (long long)tensor->stride[last]);
    return RW_OK;
}

rw_status rwi_check_same_shape(const rwi_call *call, rwi_argument argument, rwi_argument like) {
    bool same = argument.tensor->rank == like.tensor->rank;
    for (int axis = 0; same && axis < like.tensor->rank; axis++)
        same = argument.tensor->shape[axis] == like.tensor->shape[axis];
    if (same)
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT, "%s has shape %s, expected that of %s, %s",
                    argument.name, format_shape(argument.tensor).text, like.name,
                    format_shape(like.tensor).text);
}

rw_status rwi_check_same_dtype(const rwi_call *call, rwi_argument argument, rwi_argument like) {
    if (argument.tensor->dtype == like.tensor->dtype)
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT, "%s has dtype %s, expected that of %s, %s",
                    argument.name, rw_dtype_name(argument.tensor->dtype), like.name,
                    rw_dtype_name(like.tensor->dtype));
}

rw_status rwi_check_length(const rwi_call *call, rwi_argument argument, int axis, int64_t length) {
    if (rwi_length(argument.tensor, axis) == length)
        return RW_OK;
    if (axis < 0)
        axis += argument.tensor->rank;
    return rwi_fail(call, RW_INVALID_ARGUMENT, "%s has shape %s, expected %lld along axis %d",
                    argument.name, format_shape(argument.tensor).text, (long long)length, axis);
}

/* One axis of two views of the same memory, which may be one view given twice. */
typedef struct step {
    int64_t count_a;
    int64_t count_b;
    int64_t stride; /* absolute value */
} step;

/* The axes along which either view is longer than 1, by descending stride, in `steps`. Returns
 * their number, or -1 if the ranks or strides of the views differ. */
static int sorted_steps(const rw_tensor *a, const rw_tensor *b, step *steps) {
    int count = 0;
    if (a->rank != b->rank)
        return -1;
    for (int axis = 0; axis < a->rank; axis++) {
        if (a->shape[axis] <= 1 && b->shape[axis] <= 1)
            continue;
        if (a->shape[axis] > 1 && b->shape[axis] > 1 && a->stride[axis] != b->stride[axis])
            return -1;
        int64_t stride = a->shape[axis] > 1 ? a->stride[axis] : b->stride[axis];
        step next = {a->shape[axis], b->shape[axis], stride < 0 ? -stride : stride};
        int at = count++;
        for (; at > 0 && steps[at - 1].stride < next.stride; at--)
            steps[at] = steps[at - 1];
        steps[at] = next;
    }
    return count;
}

/* True if every stride exceeds the extent of all smaller steps: then no two elements coincide. */
static bool nested(const step *steps, int count) {
    int64_t within = 0;
    for (int i = count - 1; i >= 0; i--) {
        if (steps[i].stride <= within)
            return false;
        within += (rwi_max(steps[i].count_a, steps[i].count_b) - 1) * steps[i].stride;
    }
    return count >= 0;
}

rw_status rwi_check_output(const rwi_call *call, rwi_argument output) {
    step steps[RW_MAX_RANK];
    if (rwi_empty(output.tensor) ||
        nested(steps, sorted_steps(output.tensor, output.tensor, steps)))
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT,
                    "%s has strides with which elements share memory, expected separate elements",
                    output.name);
}

/* Whether views a and b, whose first elements are `distance` elements apart, share an element: the
 * distance is then the sum over the axes of (i_a - i_b) * stride for some indices. */
static bool meet(const step *steps, int count, int64_t distance) {
    if (count == 0)
        return distance == 0;
    int64_t quotient = distance / steps[0].stride;
    for (int64_t q = quotient - 1; q <= quotient + 1; q++)
        if (q > -steps[0].count_b && q < steps[0].count_a &&
            meet(steps + 1, count - 1, distance - q * steps[0].stride))
            return true;
    return false;
}

static bool same_view(const rw_tensor *a, const rw_tensor *b) {
    bool same = a->data == b->data && a->dtype == b->dtype && a->rank == b->rank;
    for (int axis = 0; same && axis < a->rank; axis++)
        same = a->shape[axis] == b->shape[axis] &&
               (a->shape[axis] <= 1 || a->stride[axis] == b->stride[axis]);
    return same;
}

/* Exact for views with the same strides, such as slices of one buffer (q, k and v of a packed
 * projection); for others true if their ranges of bytes overlap. */
static bool overlap(const rw_tensor *a, const rw_tensor *b) {
    int64_t a_low, a_high, b_low, b_high;
    if (!byte_range(a, &a_low, &a_high) || !byte_range(b, &b_low, &b_high))
        return false;
    uintptr_t a_data = (uintptr_t)a->data, b_data = (uintptr_t)b->data;
    if (a_data + (uintptr_t)a_high <= b_data + (uintptr_t)b_low ||
        b_data + (uintptr_t)b_high <= a_data + (uintptr_t)a_low)
        return false;
    int64_t size = (int64_t)rwi_dtype_size(a->dtype);
    step steps[RW_MAX_RANK];
    int count = sorted_steps(a, b, steps);
    int64_t distance = (int64_t)(b_data + (uintptr_t)b_low) - (int64_t)(a_data + (uintptr_t)a_low);
    if (size != (int64_t)rwi_dtype_size(b->dtype) || !nested(steps, count) || distance % size != 0)
        return true;
    return meet(steps, count, distance / size);
}

/* False if it is absent or empty, or if rwi_check_tensor() has yet to reject it. */
static bool has_elements(const rw_tensor *tensor) {
    bool has = tensor->rank > 0 && tensor->rank <= RW_MAX_RANK && tensor->data;
    for (int axis = 0; has && axis < tensor->rank; axis++)
        has = tensor->shape[axis] > 0;
    return has;
}

rw_status rwi_check_apart(const rwi_call *call, rwi_argument output, rwi_argument other,
                          bool in_place) {
    if (!has_elements(output.tensor) || !has_elements(other.tensor) ||
        (in_place && same_view(output.tensor, other.tensor)) ||
        !overlap(output.tensor, other.tensor))
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT, "%s overlaps %s, expected %s", output.name,
                    other.name, in_place ? "the same view or separate memory" : "separate memory");
}

rw_status rwi_check_heads(const rwi_call *call, rwi_argument q, int axis, rwi_argument k) {
    int64_t heads = q.tensor->shape[axis], kv_heads = rwi_length(k.tensor, RWI_HEADS);
    if (heads == 0 || (kv_heads != 0 && heads % kv_heads == 0))
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT,
                    "%s has %lld heads along axis %d, expected a divisor of the %lld along axis %d "
                    "of %s",
                    k.name, (long long)kv_heads, k.tensor->rank + RWI_HEADS, (long long)heads, axis,
                    q.name);
}

rw_status rwi_check_lse_shape(const rwi_call *call, rwi_argument lse, rwi_argument like) {
    if (lse.tensor->rank == 3)
        RWI_TRY(rwi_check_length(call, lse, 0, like.tensor->shape[0]));
    RWI_TRY(rwi_check_length(call, lse, -2, rwi_length(like.tensor, RWI_HEADS)));
    return rwi_check_length(call, lse, -1, rwi_length(like.tensor, RWI_SEQ));
}

int64_t rwi_group(int64_t heads, int64_t kv_heads) {
    return heads > 0 ? heads / kv_heads : 1;
}

rw_tensor rwi_steppable(const rw_tensor *tensor) {
    static _Alignas(16) char nowhere[16];
    rw_tensor steppable = *tensor;
    if (!rwi_empty(tensor))
        return steppable;
    steppable.data = nowhere;
    for (int axis = 0; axis < RW_MAX_RANK; axis++)
        steppable.stride[axis] = 0;
    return steppable;
}

rw_tensor rwi_with_leading_axis(rw_tensor tensor) {
    for (int axis = tensor.rank; axis > 0; axis--) {
        tensor.shape[axis] = tensor.shape[axis - 1];
        tensor.stride[axis] = tensor.stride[axis - 1];
    }
    tensor.shape[0] = 1;
    tensor.stride[0] = 0;
    tensor.rank++;
    return tensor;
}

rw_tensor rwi_with_rank(rw_tensor tensor, int rank) {
    while (tensor.rank < rank)
        tensor = rwi_with_leading_axis(tensor);
    return tensor;
}

rwi_ids rwi_ids_view(const rw_tensor *tensor) {
    rwi_ids ids = {.data = tensor->data, .is_i64 = tensor->dtype == RW_I64};
    for (int axis = 0; axis < tensor->rank; axis++)
        ids.stride[3 - tensor->rank + axis] = tensor->shape[axis] > 1 ? tensor->stride[axis] : 0;
    return ids;
}

rwi_ids rwi_ids_vector_view(const rw_tensor *tensor) {
    rwi_ids ids = rwi_ids_view(tensor);
    ids.stride[0] = ids.stride[2];
    ids.stride[2] = 0;
    return ids;
}

static rw_status check_positions(const rwi_call *call, const rwi_id_arguments *arguments,
                                 rwi_token_ids *ids) {
    rwi_argument positions = {"positions", arguments->positions};
    rw_tensor tensor = *arguments->positions;
    int max_rank = arguments->num_axes > 1 ? 3 : 2;
    RWI_TRY(rwi_check_tensor(call, positions, (rwi_tensor_rule){1, max_rank, RWI_IDS}));
    bool packed_axes = arguments->packed && tensor.rank == 2 && arguments->num_axes > 1 &&
                       tensor.shape[0] == arguments->num_axes;
    if (packed_axes) { /* [axes, tokens] -> [axes, 1, tokens] */
        tensor = rwi_with_leading_axis(tensor);
        tensor = rw_tensor_transpose(tensor, 0, 1);
    }
    int64_t expected[3] = {arguments->num_axes, arguments->batch, arguments->seq};
    for (int axis = 0; axis < tensor.rank; axis++) {
        int64_t length = tensor.shape[axis];
        int64_t wanted = expected[3 - tensor.rank + axis];
        bool broadcast = length == 1 && axis < tensor.rank - 1;
        if (length != wanted && !broadcast)
            return rwi_fail(
                call, RW_INVALID_ARGUMENT,
                "positions has shape %s, expected the trailing axes of [%d, %lld, %lld]",
                format_shape(arguments->positions).text, arguments->num_axes,
                (long long)arguments->batch, (long long)arguments->seq);
    }
    ids->positions = rwi_ids_view(&tensor);
    return RW_OK;
}

rw_status rwi_check_token_ids(const rwi_call *call, const rwi_id_arguments *arguments,
                              rwi_token_ids *ids) {
    *ids = (rwi_token_ids){.offset = arguments->offset};
    if (!rwi_absent(arguments->positions))
        RWI_TRY(check_positions(call, arguments, ids));
    if (rwi_absent(arguments->offsets))
        return RW_OK;
    rwi_argument offsets = {"offsets", arguments->offsets};
    RWI_TRY(rwi_check_tensor(call, offsets, (rwi_tensor_rule){1, 1, RWI_IDS}));
    RWI_TRY(rwi_check_length(call, offsets, 0, arguments->batch));
    ids->offsets = rwi_ids_vector_view(arguments->offsets);
    return RW_OK;
}
