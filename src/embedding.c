/* Position embeddings that are added to the hidden states: the entry points. */
#include <ropewalk/embedding.h>

#include <math.h>
#include <stdlib.h>

#include "angle_table.h"
#include "tensor.h"

struct rw_sinusoid {
    int64_t hidden;
    rw_sinusoid_layout layout;
    rwi_angle_table table;
};

/* What is written: out, or x in place. */
static rwi_argument output(const rw_embed_args *args) {
    rwi_argument x = {"x", &args->x}, out = {"out", &args->out};
    return rwi_absent(&args->out) ? x : out;
}

/* Checks x, out and the ids against `hidden` columns and describes them to the kernel. */
static rw_status describe_rows(const rwi_call *call, const rw_embed_args *args, int64_t hidden,
                               rwi_embed_rows *rows) {
    RWI_TRY(rwi_check_pointer(call, "args", args));
    rwi_argument x = {"x", &args->x};
    rwi_argument out = output(args);
    rwi_tensor_rule rule = {2, 3, RWI_FLOATS};
    RWI_TRY(rwi_check_tensor(call, x, rule));
    RWI_TRY(rwi_check_length(call, x, args->x.rank - 1, hidden));
    RWI_TRY(rwi_check_tensor(call, out, rule));
    RWI_TRY(rwi_check_same_shape(call, out, x));
    RWI_TRY(rwi_check_same_dtype(call, out, x));
    RWI_TRY(rwi_check_output(call, out));
    RWI_TRY(rwi_check_apart(call, out, x, true));
    RWI_TRY(rwi_check_apart(call, out, (rwi_argument){"positions", &args->positions}, false));
    RWI_TRY(rwi_check_apart(call, out, (rwi_argument){"offsets", &args->offsets}, false));
    bool packed = args->x.rank == 2;
    rw_tensor x3 = rwi_with_rank(*x.tensor, 3);
    rw_tensor out3 = rwi_with_rank(*out.tensor, 3);
    *rows = (rwi_embed_rows){
        .in = x3.data,
        .out = out3.data,
        .dtype = x3.dtype,
        .batch = x3.shape[0],
        .seq = x3.shape[1],
        .hidden = hidden,
        .in_stride = {x3.stride[0], x3.stride[1]},
        .out_stride = {out3.stride[0], out3.stride[1]},
    };
    rwi_id_arguments ids = {
        .positions = &args->positions,
        .offsets = &args->offsets,
        .offset = args->offset,
        .batch = rows->batch,
        .seq = rows->seq,
        .num_axes = 1,
        .packed = packed,
    };
    return rwi_check_token_ids(call, &ids, &rows->ids);
}

static bool nothing_to_do(const rwi_embed_rows *rows) {
    return rows->batch == 0 || rows->seq == 0 || rows->hidden == 0;
}

rw_status rw_embed_learned(rw_context *context, const rw_tensor *table, const rw_embed_args *args) {
    rwi_call call = {context, "rw_embed_learned"};
    rw_embed_learned_params params;
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(rwi_check_pointer(&call, "table", table));
    rwi_argument table_argument = {"table", table};
    RWI_TRY(rwi_check_tensor(&call, table_argument, (rwi_tensor_rule){2, 2, RWI_FLOATS}));
    RWI_TRY(describe_rows(&call, args, table->shape[1], &params.rows));
    RWI_TRY(rwi_check_apart(&call, output(args), table_argument, false));
    if (nothing_to_do(&params.rows))
        return RW_OK;
    params.table = table->data;
    params.table_dtype = table->dtype;
    params.table_stride = table->stride[0];
    params.max_positions = table->shape[0];
    return rwi_finish(&call, context->backend->embed_learned(context->device, &params));
}

static rw_status check_sinusoid_options(const rwi_call *call, const rw_sinusoid_options *options) {
    if (options->hidden < 2 || options->hidden % 2 != 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "hidden is %lld, expected an even number from 2",
                        (long long)options->hidden);
    if (!(options->theta >= 0) || !isfinite(options->theta))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "theta is %g, expected a positive number",
                        options->theta);
    if ((unsigned)options->layout > RW_SINUSOID_CONCATENATED)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "layout is %d, expected one of rw_sinusoid_layout", (int)options->layout);
    return RW_OK;
}

rw_status rw_sinusoid_create(rw_context *context, const rw_sinusoid_options *options,
                             rw_sinusoid **sinusoid) {
    rwi_call call = {context, "rw_sinusoid_create"};
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(rwi_check_pointer(&call, "options", options));
    RWI_TRY(rwi_check_pointer(&call, "sinusoid", sinusoid));
    *sinusoid = NULL;
    RWI_TRY(check_sinusoid_options(&call, options));
    int64_t n = options->hidden / 2;
    double theta = options->theta != 0 ? options->theta : 10000;
    rw_sinusoid *created = calloc(1, sizeof *created);
    double *inv_freq = calloc((size_t)n, sizeof *inv_freq);
    rw_status status = RW_OK;
    if (!created || !inv_freq) {
        status = rwi_fail(&call, RW_OUT_OF_MEMORY, "no memory for %lld frequencies", (long long)n);
    } else {
        for (int64_t k = 0; k < n; k++)
            inv_freq[k] = pow(theta, -2.0 * (double)k / (double)options->hidden);
        rwi_angle_table_options table = {
            .inv_freq = inv_freq, .num_frequencies = n, .max_positions = options->max_positions};
        status = rwi_angle_table_create(&call, &table, &created->table);
    }
    free(inv_freq);
    if (status != RW_OK) {
        free(created);
        return status;
    }
    created->hidden = options->hidden;
    created->layout = options->layout;
    *sinusoid = created;
    return RW_OK;
}

void rw_sinusoid_destroy(rw_sinusoid *sinusoid) {
    if (!sinusoid)
        return;
    rwi_angle_table_free(&sinusoid->table);
    free(sinusoid);
}

rw_status rw_embed_sinusoidal(rw_context *context, const rw_sinusoid *sinusoid,
                              const rw_embed_args *args) {
    rwi_call call = {context, "rw_embed_sinusoidal"};
    rw_embed_sinusoidal_params params;
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(rwi_check_pointer(&call, "sinusoid", sinusoid));
    RWI_TRY(rwi_angle_table_check(&call, "sinusoid", &sinusoid->table));
    RWI_TRY(describe_rows(&call, args, sinusoid->hidden, &params.rows));
    if (nothing_to_do(&params.rows))
        return RW_OK;
    params.angles = sinusoid->table.angles;
    params.max_positions = sinusoid->table.max_positions;
    params.concatenated = sinusoid->layout == RW_SINUSOID_CONCATENATED;
    return rwi_finish(&call, context->backend->embed_sinusoidal(context->device, &params));
}
