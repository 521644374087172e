/* ALiBi and T5: the entry points. */
#include <ropewalk/bias.h>

#include <stdlib.h>

#include "bias_describe.h"
#include "pattern_describe.h"
#include "t5_buckets.h"

/* ---- ALiBi ---- */

rw_status rw_alibi_slopes(rw_context *context, const rw_alibi_slopes_args *args) {
    rwi_call call = {context, "rw_alibi_slopes"};
    const int64_t most_heads = (int64_t)1 << 20;
    RWI_TRY(rwi_begin(&call, args));
    rwi_argument out = {"out", &args->out};
    RWI_TRY(rwi_check_tensor(&call, out, (rwi_tensor_rule){1, 1, RWI_F32}));
    int64_t heads = args->out.shape[0];
    if (args->total_heads < 1 || args->total_heads > most_heads)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "total_heads is %lld, expected 1 to %lld",
                        (long long)args->total_heads, (long long)most_heads);
    if (args->first_head < 0 || heads > args->total_heads ||
        args->first_head > args->total_heads - heads)
        return rwi_fail(&call, RW_INVALID_ARGUMENT,
                        "first_head is %lld for %lld heads, expected a range of the %lld in all",
                        (long long)args->first_head, (long long)heads,
                        (long long)args->total_heads);
    if (heads == 0)
        return RW_OK;
    rw_alibi_slopes_params params = {
        .out = args->out.data,
        .heads = heads,
        .first_head = args->first_head,
        .total_heads = args->total_heads,
    };
    return rwi_finish(&call, context->backend->alibi_slopes(context->device, &params));
}

rw_status rwi_describe_alibi(const rwi_call *call, const rw_alibi *alibi, int64_t heads,
                             const rw_pattern_shape *shape, rwi_alibi *described) {
    rwi_argument slopes = {"alibi.slopes", &alibi->slopes};
    RWI_TRY(rwi_check_tensor(call, slopes, (rwi_tensor_rule){1, 1, RWI_F32}));
    RWI_TRY(rwi_check_length(call, slopes, 0, heads));
    RWI_TRY(rwi_check_alignment(call, alibi->alignment, shape, &described->shift));
    described->slopes = alibi->slopes.data;
    described->is_signed = alibi->is_signed;
    described->shift_from_key_end = alibi->alignment == RW_ALIGN_KEY_END;
    return RW_OK;
}

/* A dense bias has no pattern, so no key_end. */
static rw_status refuse_key_end(const rwi_call *call, rw_alignment alignment) {
    if (alignment != RW_ALIGN_KEY_END)
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT,
                    "alignment is RW_ALIGN_KEY_END, expected another without a pattern");
}

/* Checks an output [heads, seq_q, seq_k]. */
static rw_status describe_rows(const rwi_call *call, const rw_tensor *out, rw_pattern_shape *shape,
                               rwi_bias_rows *rows) {
    RWI_TRY(rwi_check_pointer(call, "out", out));
    rwi_argument argument = {"out", out};
    RWI_TRY(rwi_check_tensor(call, argument, (rwi_tensor_rule){3, 3, RWI_FLOATS}));
    RWI_TRY(rwi_check_output(call, argument));
    *shape = (rw_pattern_shape){1, out->shape[1], out->shape[2]};
    *rows = (rwi_bias_rows){
        .out = out->data,
        .dtype = out->dtype,
        .heads = out->shape[0],
        .seq_q = out->shape[1],
        .seq_k = out->shape[2],
        .out_stride = {out->stride[0], out->stride[1]},
    };
    return rwi_check_pattern_shape(call, shape);
}

rw_status rw_alibi_bias(rw_context *context, const rw_alibi *alibi, const rw_tensor *out) {
    rwi_call call = {context, "rw_alibi_bias"};
    rw_alibi_bias_params params = {0};
    rw_pattern_shape shape;
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(rwi_check_pointer(&call, "alibi", alibi));
    RWI_TRY(describe_rows(&call, out, &shape, &params.rows));
    RWI_TRY(rwi_describe_alibi(&call, alibi, params.rows.heads, &shape, &params.alibi));
    RWI_TRY(refuse_key_end(&call, alibi->alignment));
    RWI_TRY(rwi_check_apart(&call, (rwi_argument){"out", out},
                            (rwi_argument){"alibi.slopes", &alibi->slopes}, false));
    if (rwi_empty(out))
        return RW_OK;
    params.rows.shift = params.alibi.shift;
    return rwi_finish(&call, context->backend->alibi_bias(context->device, &params));
}

/* ---- T5 ---- */

struct rw_t5 {
    rw_context *context; /* owns the device's memory */
    const rwi_backend *backend;
    int device_index;
    int64_t num_buckets;
    rwi_t5_buckets host;
    rwi_t5_buckets device;
};

/* The options with their defaults, checked; `side` receives the buckets of one side. */
static rw_status resolve(const rwi_call *call, rw_t5_options *options, int64_t *side) {
    if (options->num_buckets == 0)
        options->num_buckets = 32;
    if (options->max_distance == 0)
        options->max_distance = 128;
    const int64_t sides = options->causal ? 1 : 2;
    const int64_t most = sides * RWI_T5_MAX_BUCKETS;
    if (options->num_buckets < 2 * sides || options->num_buckets > most ||
        options->num_buckets % sides != 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "num_buckets is %lld, expected %s%lld to %lld",
                        (long long)options->num_buckets, sides == 2 ? "an even number, " : "",
                        (long long)(2 * sides), (long long)most);
    *side = options->num_buckets / sides;
    if (options->max_distance <= *side / 2 || options->max_distance > RWI_T5_MAX_DISTANCE)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "max_distance is %lld, expected %lld to %lld for %lld buckets",
                        (long long)options->max_distance, (long long)(*side / 2 + 1),
                        (long long)RWI_T5_MAX_DISTANCE, (long long)options->num_buckets);
    return RW_OK;
}

static rw_status create_buckets(const rwi_call *call, const rw_t5_options *options, int64_t side,
                                rw_t5 *t5) {
    rw_context *context = call->context;
    size_t bytes = (size_t)(options->max_distance + 1) * sizeof(int32_t);
    int32_t *of_distance = malloc(bytes);
    void *memory = NULL;
    if (!of_distance)
        return rwi_fail(call, RW_OUT_OF_MEMORY, "no memory for %lld distances",
                        (long long)options->max_distance);
    rwi_t5_fill_buckets(side, options->max_distance, of_distance);
    rw_status status = rwi_finish(call, context->backend->alloc(context->device, bytes, &memory));
    if (status == RW_OK)
        status = rwi_upload(call, memory, of_distance, bytes);
    t5->host = (rwi_t5_buckets){
        .of_distance = of_distance,
        .max_distance = options->max_distance,
        .later = options->causal ? 0 : side,
        .causal = options->causal,
    };
    t5->device = t5->host;
    t5->device.of_distance = memory;
    if (status == RW_OK)
        return RW_OK;
    free(of_distance);
    if (memory)
        context->backend->free(context->device, memory);
    return status;
}

rw_status rw_t5_create(rw_context *context, const rw_t5_options *options, rw_t5 **t5) {
    rwi_call call = {context, "rw_t5_create"};
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(rwi_check_pointer(&call, "options", options));
    RWI_TRY(rwi_check_pointer(&call, "t5", t5));
    *t5 = NULL;
    rw_t5_options resolved = *options;
    int64_t side = 0;
    RWI_TRY(resolve(&call, &resolved, &side));
    rw_t5 *created = calloc(1, sizeof *created);
    if (!created)
        return rwi_fail(&call, RW_OUT_OF_MEMORY, "no memory for the object");
    rw_status status = create_buckets(&call, &resolved, side, created);
    if (status != RW_OK) {
        free(created);
        return status;
    }
    created->context = context;
    created->backend = context->backend;
    created->device_index = context->device->index;
    created->num_buckets = resolved.num_buckets;
    *t5 = created;
    return RW_OK;
}

void rw_t5_destroy(rw_t5 *t5) {
    if (!t5)
        return;
    t5->backend->free(t5->context->device, (void *)t5->device.of_distance);
    free((void *)t5->host.of_distance);
    free(t5);
}

int64_t rw_t5_bucket(const rw_t5 *t5, int64_t relative_position) {
    /* -INT64_MIN would overflow */
    return t5 ? rwi_t5_bucket_of(&t5->host, rwi_max(relative_position, -INT64_MAX)) : -1;
}

rw_status rw_t5_bias(rw_context *context, const rw_t5 *t5, const rw_t5_bias_args *args) {
    rwi_call call = {context, "rw_t5_bias"};
    rw_t5_bias_params params = {0};
    rw_pattern_shape shape;
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(rwi_check_pointer(&call, "t5", t5));
    RWI_TRY(rwi_check_pointer(&call, "args", args));
    rwi_argument out = {"out", &args->out}, table = {"table", &args->table};
    RWI_TRY(rwi_check_owner(&call, "t5", t5->backend, t5->device_index));
    RWI_TRY(describe_rows(&call, &args->out, &shape, &params.rows));
    RWI_TRY(rwi_check_tensor(&call, table, (rwi_tensor_rule){2, 2, RWI_FLOATS}));
    RWI_TRY(rwi_check_length(&call, table, 0, t5->num_buckets));
    RWI_TRY(rwi_check_length(&call, table, 1, params.rows.heads));
    RWI_TRY(rwi_check_alignment(&call, args->alignment, &shape, &params.rows.shift));
    RWI_TRY(refuse_key_end(&call, args->alignment));
    RWI_TRY(rwi_check_apart(&call, out, table, false));
    if (rwi_empty(&args->out))
        return RW_OK;
    params.buckets = t5->device;
    params.table = args->table.data;
    params.table_dtype = args->table.dtype;
    params.table_stride = args->table.stride[0];
    return rwi_finish(&call, context->backend->t5_bias(context->device, &params));
}
