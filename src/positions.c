/* Position ids: the entry points. */
#include <ropewalk/positions.h>

#include "tensor.h"

/* An output of ids: its rank and dtype, and no two elements share memory. */
static rw_status check_out(const rwi_call *call, const rw_tensor *out, int rank) {
    rwi_argument argument = {"out", out};
    RWI_TRY(rwi_check_tensor(call, argument, (rwi_tensor_rule){rank, rank, RWI_IDS}));
    return rwi_check_output(call, argument);
}

/* An input of ids that `out` must not overlap. */
static rw_status check_input(const rwi_call *call, rwi_argument input, int rank,
                             const rw_tensor *out) {
    RWI_TRY(rwi_check_tensor(call, input, (rwi_tensor_rule){rank, rank, RWI_IDS}));
    return rwi_check_apart(call, (rwi_argument){"out", out}, input, false);
}

/* [batch] ids, one for each row of out. */
static rw_status check_batch_input(const rwi_call *call, rwi_argument input, const rw_tensor *out,
                                   int64_t batch) {
    RWI_TRY(check_input(call, input, 1, out));
    return rwi_check_length(call, input, 0, batch);
}

rw_status rw_positions_sequential(rw_context *context, const rw_positions_sequential_args *args) {
    rwi_call call = {context, "rw_positions_sequential"};
    RWI_TRY(rwi_begin(&call, args));
    RWI_TRY(check_out(&call, &args->out, 2));
    if (!rwi_absent(&args->offsets))
        RWI_TRY(check_batch_input(&call, (rwi_argument){"offsets", &args->offsets}, &args->out,
                                  args->out.shape[0]));
    if (rwi_empty(&args->out))
        return RW_OK;
    rw_positions_sequential_params params = {
        .out = rwi_ids_view(&args->out),
        .batch = args->out.shape[0],
        .seq = args->out.shape[1],
        .ids = {.offset = args->offset},
    };
    if (!rwi_absent(&args->offsets))
        params.ids.offsets = rwi_ids_vector_view(&args->offsets);
    return rwi_finish(&call, context->backend->positions_sequential(context->device, &params));
}

rw_status rw_positions_left_padded(rw_context *context, const rw_positions_left_padded_args *args) {
    rwi_call call = {context, "rw_positions_left_padded"};
    RWI_TRY(rwi_begin(&call, args));
    RWI_TRY(check_out(&call, &args->out, 2));
    RWI_TRY(check_batch_input(&call, (rwi_argument){"padding", &args->padding}, &args->out,
                              args->out.shape[0]));
    if (rwi_empty(&args->out))
        return RW_OK;
    rw_positions_left_padded_params params = {
        .out = rwi_ids_view(&args->out),
        .batch = args->out.shape[0],
        .seq = args->out.shape[1],
        .padding = rwi_ids_vector_view(&args->padding),
        .padding_id = args->padding_id,
    };
    return rwi_finish(&call, context->backend->positions_left_padded(context->device, &params));
}

rw_status rw_positions_packed(rw_context *context, const rw_positions_packed_args *args) {
    rwi_call call = {context, "rw_positions_packed"};
    RWI_TRY(rwi_begin(&call, args));
    RWI_TRY(check_out(&call, &args->out, 1));
    RWI_TRY(check_input(&call, (rwi_argument){"cu_seqlens", &args->cu_seqlens}, 1, &args->out));
    if (args->cu_seqlens.shape[0] < 1)
        return rwi_fail(&call, RW_INVALID_ARGUMENT,
                        "cu_seqlens is empty, expected documents + 1 values");
    if (rwi_empty(&args->out))
        return RW_OK;
    rw_positions_packed_params params = {
        .out = rwi_ids_vector_view(&args->out),
        .tokens = args->out.shape[0],
        .documents = {rwi_ids_view(&args->cu_seqlens), args->cu_seqlens.shape[0] - 1},
    };
    return rwi_finish(&call, context->backend->positions_packed(context->device, &params));
}

/* segments, steps and rope_delta. */
static rw_status check_mrope_inputs(const rwi_call *call, const rw_positions_mrope_args *args) {
    const rw_tensor *out = &args->out;
    rwi_argument segments = {"segments", &args->segments};
    rwi_argument steps = {"steps", &args->steps};
    rwi_argument delta = {"rope_delta", &args->rope_delta};
    if ((unsigned)args->advance > RW_MROPE_ADVANCE_LARGEST)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "advance is %d, expected one of rw_mrope_advance", (int)args->advance);
    RWI_TRY(check_input(call, segments, 3, out));
    RWI_TRY(rwi_check_length(call, segments, 0, out->shape[1]));
    RWI_TRY(rwi_check_length(call, segments, 2, 3));
    if (!rwi_absent(&args->steps)) {
        RWI_TRY(rwi_check_tensor(call, steps, (rwi_tensor_rule){2, 2, RWI_F32}));
        for (int axis = 0; axis < 2; axis++)
            RWI_TRY(rwi_check_length(call, steps, axis, args->segments.shape[axis]));
        RWI_TRY(rwi_check_apart(call, (rwi_argument){"out", out}, steps, false));
    }
    if (rwi_absent(&args->rope_delta))
        return RW_OK;
    RWI_TRY(check_batch_input(call, delta, out, out->shape[1]));
    RWI_TRY(rwi_check_output(call, delta));
    RWI_TRY(rwi_check_apart(call, delta, segments, false));
    return rwi_check_apart(call, delta, steps, false);
}

rw_status rw_positions_mrope(rw_context *context, const rw_positions_mrope_args *args) {
    rwi_call call = {context, "rw_positions_mrope"};
    RWI_TRY(rwi_begin(&call, args));
    RWI_TRY(check_out(&call, &args->out, 3));
    RWI_TRY(rwi_check_length(&call, (rwi_argument){"out", &args->out}, 0, 3));
    RWI_TRY(check_mrope_inputs(&call, args));
    if (args->out.shape[1] == 0)
        return RW_OK;
    rw_positions_mrope_params params = {
        .out = rwi_ids_view(&args->out),
        .batch = args->out.shape[1],
        .seq = args->out.shape[2],
        .segments = rwi_ids_view(&args->segments),
        .num_segments = args->segments.shape[1],
        .past_largest = args->advance == RW_MROPE_ADVANCE_LARGEST,
        .steps = rwi_absent(&args->steps) ? NULL : args->steps.data,
        .steps_stride = {args->steps.stride[0], args->steps.stride[1]},
    };
    if (!rwi_absent(&args->rope_delta))
        params.rope_delta = rwi_ids_vector_view(&args->rope_delta);
    return rwi_finish(&call, context->backend->positions_mrope(context->device, &params));
}

rw_status rw_positions_glm(rw_context *context, const rw_positions_glm_args *args) {
    rwi_call call = {context, "rw_positions_glm"};
    RWI_TRY(rwi_begin(&call, args));
    RWI_TRY(check_out(&call, &args->out, 3));
    RWI_TRY(rwi_check_length(&call, (rwi_argument){"out", &args->out}, 0, 2));
    RWI_TRY(check_batch_input(&call, (rwi_argument){"context_length", &args->context_length},
                              &args->out, args->out.shape[1]));
    RWI_TRY(check_batch_input(&call, (rwi_argument){"mask_position", &args->mask_position},
                              &args->out, args->out.shape[1]));
    if (rwi_empty(&args->out))
        return RW_OK;
    rw_positions_glm_params params = {
        .out = rwi_ids_view(&args->out),
        .batch = args->out.shape[1],
        .seq = args->out.shape[2],
        .context_length = rwi_ids_vector_view(&args->context_length),
        .mask_position = rwi_ids_vector_view(&args->mask_position),
    };
    return rwi_finish(&call, context->backend->positions_glm(context->device, &params));
}
