/* Attention patterns on the device: the entry points. */
#include <ropewalk/pattern.h>

#include "pattern_describe.h"

/* Checks an output [rows, columns] or [batch, rows, columns]; `out3` is its view with rank 3. */
static rw_status check_out(const rwi_call *call, const rw_tensor *out, unsigned dtypes,
                           rw_tensor *out3) {
    rwi_argument argument = {"out", out};
    RWI_TRY(rwi_check_pointer(call, "out", out));
    RWI_TRY(rwi_check_tensor(call, argument, (rwi_tensor_rule){2, 3, dtypes}));
    RWI_TRY(rwi_check_output(call, argument));
    *out3 = rwi_with_rank(*out, 3);
    return RW_OK;
}

/* Describes the pattern of an output of checked shape. */
static rw_status describe(const rwi_call *call, const rw_pattern *pattern, const rw_tensor *out,
                          const rw_pattern_shape *shape, rwi_pattern *described) {
    RWI_TRY(rwi_check_pointer(call, "pattern", pattern));
    RWI_TRY(rwi_check_pattern_shape(call, shape));
    RWI_TRY(rwi_describe_pattern(call, pattern, shape, described));
    return rwi_check_apart_from_pattern(call, (rwi_argument){"out", out}, pattern);
}

rw_status rw_pattern_fill(rw_context *context, const rw_pattern *pattern, const rw_tensor *out) {
    rwi_call call = {context, "rw_pattern_fill"};
    rw_pattern_fill_params params = {0};
    rw_tensor out3 = {0};
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(check_out(&call, out, RWI_FLOATS, &out3));
    rw_pattern_shape shape = {out3.shape[0], out3.shape[1], out3.shape[2]};
    RWI_TRY(describe(&call, pattern, out, &shape, &params.pattern));
    if (rwi_empty(out))
        return RW_OK;
    params.out = out3.data;
    params.dtype = out3.dtype;
    params.batch = shape.batch;
    params.seq_q = shape.seq_q;
    params.out_stride[0] = out3.stride[0];
    params.out_stride[1] = out3.stride[1];
    return rwi_finish(&call, context->backend->pattern_fill(context->device, &params));
}

rw_status rw_pattern_fill_bits(rw_context *context, const rw_pattern *pattern, int64_t seq_k,
                               const rw_tensor *out) {
    rwi_call call = {context, "rw_pattern_fill_bits"};
    rw_pattern_fill_bits_params params = {0};
    rw_tensor out3 = {0};
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(check_out(&call, out, RWI_BYTES, &out3));
    rw_pattern_shape shape = {out3.shape[0], out3.shape[1], seq_k};
    RWI_TRY(describe(&call, pattern, out, &shape, &params.pattern));
    RWI_TRY(
        rwi_check_length(&call, (rwi_argument){"out", out}, out->rank - 1, rwi_ceil_div(seq_k, 8)));
    if (rwi_empty(out))
        return RW_OK;
    params.out = out3.data;
    params.batch = shape.batch;
    params.seq_q = shape.seq_q;
    params.out_stride[0] = out3.stride[0];
    params.out_stride[1] = out3.stride[1];
    return rwi_finish(&call, context->backend->pattern_fill_bits(context->device, &params));
}

/* ---- position ids ---- */

static rw_status check_table(const rwi_call *call, const rw_pattern_positions_args *args,
                             int64_t batch, rw_pattern_positions_params *params) {
    rwi_argument table = {"table", &args->table};
    if (args->function && !rwi_absent(table.tensor))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "table and function are both given, expected one of them");
    if (args->function)
        return rwi_check_function(call, true, "pass a table of its ids");
    if (rwi_absent(table.tensor))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "table and function are absent, expected one of them for custom ids");
    RWI_TRY(rwi_check_tensor(call, table, (rwi_tensor_rule){1, 2, RWI_IDS}));
    if (args->table.rank == 2)
        RWI_TRY(rwi_check_length(call, table, 0, batch));
    params->table = rwi_ids_view(&args->table);
    params->table_length = args->table.shape[args->table.rank == 2];
    return RW_OK;
}

/* What each kind of ids needs. */
static rw_status check_kind(const rwi_call *call, const rw_pattern_positions_args *args,
                            int64_t batch, rw_pattern_positions_params *params) {
    rwi_argument globals = {"globals", &args->globals};
    int64_t least = args->ids == RW_PATTERN_IDS_GLOBAL_LOCAL ? 1 : 0;
    switch (args->ids) {
    case RW_PATTERN_IDS_SEQUENTIAL:
        return RW_OK;
    case RW_PATTERN_IDS_LOCAL:
    case RW_PATTERN_IDS_GLOBAL_LOCAL:
        if (args->window < least)
            return rwi_fail(call, RW_INVALID_ARGUMENT, "window is %lld, expected %lld or more",
                            (long long)args->window, (long long)least);
        if (least == 0 || rwi_absent(globals.tensor))
            return RW_OK;
        RWI_TRY(rwi_check_tensor(call, globals, (rwi_tensor_rule){1, 1, RWI_BYTES}));
        params->globals = args->globals.data;
        params->num_globals = 8 * args->globals.shape[0];
        return RW_OK;
    case RW_PATTERN_IDS_CUSTOM:
        return check_table(call, args, batch, params);
    }
    return rwi_fail(call, RW_INVALID_ARGUMENT, "ids is %d, expected one of rw_pattern_ids",
                    (int)args->ids);
}

static rw_status describe_positions(const rwi_call *call, const rw_pattern_positions_args *args,
                                    rw_pattern_positions_params *params) {
    rwi_argument out = {"out", &args->out};
    RWI_TRY(rwi_check_tensor(call, out, (rwi_tensor_rule){1, 2, RWI_IDS}));
    RWI_TRY(rwi_check_output(call, out));
    *params = (rw_pattern_positions_params){
        .out = rwi_ids_view(&args->out),
        .batch = args->out.rank == 2 ? args->out.shape[0] : 1,
        .seq = args->out.shape[args->out.rank - 1],
        .ids = args->ids,
        .window = args->window,
        .offset = args->offset,
        .function = args->function,
        .function_user = args->function_user,
    };
    const int64_t most = INT64_MAX / 2;
    if (args->offset < 0 || args->offset > most)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "offset is %lld, expected 0 or more",
                        (long long)args->offset);
    RWI_TRY(check_kind(call, args, params->batch, params));
    RWI_TRY(rwi_describe_documents(call, &args->cu_seqlens, params->batch, &params->documents));
    const rwi_argument inputs[] = {
        {"globals", &args->globals}, {"cu_seqlens", &args->cu_seqlens}, {"table", &args->table}};
    for (int n = 0; n < 3; n++)
        RWI_TRY(rwi_check_apart(call, out, inputs[n], false));
    return RW_OK;
}

rw_status rw_pattern_positions(rw_context *context, const rw_pattern_positions_args *args) {
    rwi_call call = {context, "rw_pattern_positions"};
    rw_pattern_positions_params params;
    RWI_TRY(rwi_begin(&call, args));
    RWI_TRY(describe_positions(&call, args, &params));
    if (rwi_empty(&args->out))
        return RW_OK;
    return rwi_finish(&call, context->backend->pattern_positions(context->device, &params));
}
