/* Merging attention over two sets of keys: the entry point. */
#include <ropewalk/attention.h>

#include "tensor.h"

typedef struct part_view {
    rwi_argument out;
    rwi_argument lse;
} part_view;

/* A part of the shape of `like`. */
static rw_status check_part(const rwi_call *call, const part_view *part, const part_view *like) {
    rw_status status = rwi_check_tensor(call, part->out, (rwi_tensor_rule){4, 4, RWI_FLOATS});
    if (status == RW_OK)
        status = rwi_check_tensor(call, part->lse, (rwi_tensor_rule){3, 3, RWI_DTYPE_BIT(RW_F32)});
    if (status == RW_OK)
        status = rwi_check_same_shape(call, part->out, like->out);
    for (int axis = 0; axis < 3 && status == RW_OK; axis++)
        status = rwi_check_length(call, part->lse, axis, part->out.tensor->shape[axis]);
    return status;
}

/* Writing the merged part is in place or apart from what is read. */
static rw_status check_merged(const rwi_call *call, const part_view *merged,
                              const part_view *part) {
    rw_status status = rwi_check_apart(call, merged->out, part->out, true);
    if (status == RW_OK)
        status = rwi_check_apart(call, merged->lse, part->lse, true);
    if (status == RW_OK)
        status = rwi_check_apart(call, merged->out, part->lse, false);
    if (status == RW_OK)
        status = rwi_check_apart(call, merged->lse, part->out, false);
    return status;
}

static rwi_attention_part kernel_part(const part_view *view) {
    const rw_tensor out = rwi_steppable(view->out.tensor); /* of width 0 there is the LSE alone */
    rwi_attention_part part = {.out = out.data, .lse = view->lse.tensor->data};
    for (int axis = 0; axis < 3; axis++) {
        part.out_stride[axis] = out.stride[axis];
        part.lse_stride[axis] = view->lse.tensor->stride[axis];
    }
    return part;
}

rw_status rw_attention_merge(rw_context *context, const rw_attention_merge_args *args) {
    rwi_call call = {context, "rw_attention_merge"};
    rw_status status = rwi_check_context(&call);
    if (status != RW_OK)
        return status;
    if (!args)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "args is NULL");
    const part_view a = {{"a.out", &args->a.out}, {"a.lse", &args->a.lse}};
    const part_view b = {{"b.out", &args->b.out}, {"b.lse", &args->b.lse}};
    const part_view merged = {{"merged.out", &args->merged.out}, {"merged.lse", &args->merged.lse}};
    const part_view *parts[] = {&a, &b, &merged};
    for (int i = 0; i < 3 && status == RW_OK; i++)
        status = check_part(&call, parts[i], &a);
    if (status == RW_OK)
        status = rwi_check_same_dtype(&call, b.out, a.out);
    if (status == RW_OK)
        status = rwi_check_output(&call, merged.out);
    if (status == RW_OK)
        status = rwi_check_output(&call, merged.lse);
    if (status == RW_OK)
        status = rwi_check_apart(&call, merged.out, merged.lse, false);
    if (status == RW_OK)
        status = check_merged(&call, &merged, &a);
    if (status == RW_OK)
        status = check_merged(&call, &merged, &b);
    if (status != RW_OK || rwi_empty(&args->a.lse))
        return status;
    rw_attention_merge_params params = {.a = kernel_part(&a),
                                        .b = kernel_part(&b),
                                        .merged = kernel_part(&merged),
                                        .in_dtype = args->a.out.dtype,
                                        .out_dtype = args->merged.out.dtype,
                                        .batch = args->a.out.shape[0],
                                        .heads = args->a.out.shape[1],
                                        .seq = args->a.out.shape[2],
                                        .width = args->a.out.shape[3]};
    return rwi_finish(&call, context->backend->attention_merge(context->device, &params));
}
