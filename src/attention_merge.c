/* Merging attention over two sets of keys: the entry point. */
#include <ropewalk/attention.h>

#include "tensor.h"

typedef struct part_view {
    rwi_argument out;
    rwi_argument lse;
} part_view;

/* A part has the shape of `like`. */
static rw_status check_part(const rwi_call *call, const part_view *part, const part_view *like) {
    RWI_TRY(rwi_check_tensor(call, part->out, (rwi_tensor_rule){3, 4, RWI_FLOATS}));
    const int rank = part->out.tensor->rank - 1;
    RWI_TRY(rwi_check_strided(call, part->lse, (rwi_tensor_rule){rank, rank, RWI_F32}));
    RWI_TRY(rwi_check_same_shape(call, part->out, like->out));
    return rwi_check_lse_shape(call, part->lse, part->out);
}

/* The merged part is an input in place, or overlaps none. */
static rw_status check_merged(const rwi_call *call, const part_view *merged,
                              const part_view *part) {
    RWI_TRY(rwi_check_apart(call, merged->out, part->out, true));
    RWI_TRY(rwi_check_apart(call, merged->lse, part->lse, true));
    RWI_TRY(rwi_check_apart(call, merged->out, part->lse, false));
    return rwi_check_apart(call, merged->lse, part->out, false);
}

static rwi_attention_part kernel_part(const part_view *view) {
    /* with a head_dim of 0, only the LSE is merged */
    const rw_tensor out = rwi_with_rank(rwi_steppable(view->out.tensor), 4);
    const rw_tensor lse = rwi_with_rank(*view->lse.tensor, 3);
    rwi_attention_part part = {.out = out.data, .lse = lse.data};
    for (int axis = 0; axis < 3; axis++) {
        part.out_stride[axis] = out.stride[axis];
        part.lse_stride[axis] = lse.stride[axis];
    }
    return part;
}

rw_status rw_attention_merge(rw_context *context, const rw_attention_merge_args *args) {
    const rwi_call call = {context, "rw_attention_merge"};
    RWI_TRY(rwi_begin(&call, args));
    const part_view a = {{"a.out", &args->a.out}, {"a.lse", &args->a.lse}};
    const part_view b = {{"b.out", &args->b.out}, {"b.lse", &args->b.lse}};
    const part_view merged = {{"merged.out", &args->merged.out}, {"merged.lse", &args->merged.lse}};
    RWI_TRY(check_part(&call, &a, &a));
    RWI_TRY(check_part(&call, &b, &a));
    RWI_TRY(check_part(&call, &merged, &a));
    RWI_TRY(rwi_check_same_dtype(&call, b.out, a.out));
    RWI_TRY(rwi_check_output(&call, merged.out));
    RWI_TRY(rwi_check_output(&call, merged.lse));
    RWI_TRY(rwi_check_apart(&call, merged.out, merged.lse, false));
    RWI_TRY(check_merged(&call, &merged, &a));
    RWI_TRY(check_merged(&call, &merged, &b));
    if (rwi_empty(&args->a.lse))
        return RW_OK;
    const rw_tensor out = rwi_with_rank(args->a.out, 4);
    const rw_attention_merge_params params = {.a = kernel_part(&a),
                                              .b = kernel_part(&b),
                                              .merged = kernel_part(&merged),
                                              .in_dtype = out.dtype,
                                              .out_dtype = args->merged.out.dtype,
                                              .batch = out.shape[0],
                                              .seq = out.shape[1],
                                              .heads = out.shape[2],
                                              .width = out.shape[3]};
    return rwi_finish(&call, context->backend->attention_merge(context->device, &params));
}
