/* Attention: the entry point. */
#include <ropewalk/attention.h>

#include "kv_cache.h"
#include "pattern_describe.h"
#include "softmax_describe.h"

static const rwi_tensor_rule rank_4_floats = {4, 4, RWI_FLOATS};

/* A width that kernels have. Without columns there is nothing to do; but v must have some where
 * `out` has. */
static rw_status check_width(const rwi_call *call, rwi_argument argument, bool may_be_empty) {
    int64_t width = argument.tensor->shape[3];
    if ((width == 0 && may_be_empty) ||
        (width >= 8 && width <= RWI_ATTENTION_MAX_DIM && width % 8 == 0))
        return RW_OK;
    return rwi_fail(call, RW_UNSUPPORTED,
                    "%s has a head_dim of %lld, expected a multiple of 8 from 8 to %d",
                    argument.name, (long long)width, RWI_ATTENTION_MAX_DIM);
}

/* The block table, or none; `seq_k` receives the keys of a sequence. */
static rw_status check_pages(const rwi_call *call, const rw_attention_args *args,
                             rwi_kv_pages *pages, int64_t *seq_k) {
    const rwi_argument k = {"k", &args->k}, table = {"block_table", &args->block_table};
    const int64_t batch = args->q.shape[0];
    *pages = (rwi_kv_pages){.num_pages = batch, .length = args->k.shape[2], .shift = 62};
    rw_status status = rwi_absent(table.tensor)
                           ? rwi_check_length(call, k, 0, batch)
                           : rwi_check_block_table(call, table, k, batch, pages);
    *seq_k = pages->length;
    return status;
}

static rw_status check_inputs(const rwi_call *call, const rw_attention_args *args) {
    const rwi_argument q = {"q", &args->q}, k = {"k", &args->k}, v = {"v", &args->v};
    const rwi_argument inputs[] = {q, k, v};
    rw_status status = RW_OK;
    for (int i = 0; i < 3 && status == RW_OK; i++)
        status = rwi_check_tensor(call, inputs[i], rank_4_floats);
    for (int i = 1; i < 3 && status == RW_OK; i++)
        status = rwi_check_same_dtype(call, inputs[i], q);
    for (int i = 0; i < 3 && status == RW_OK; i++)
        status =
            check_width(call, inputs[i], i < 2 || args->out.rank != 4 || args->out.shape[3] == 0);
    if (status == RW_OK)
        status = rwi_check_length(call, k, 3, args->q.shape[3]);
    for (int axis = 0; axis < 3 && status == RW_OK; axis++)
        status = rwi_check_length(call, v, axis, args->k.shape[axis]);
    if (status != RW_OK)
        return status;
    return rwi_check_heads(call, q, k);
}

static rw_status check_outputs(const rwi_call *call, const rw_attention_args *args) {
    const rwi_argument out = {"out", &args->out}, lse = {"lse", &args->lse},
                       workspace = {"workspace", &args->workspace};
    const rwi_argument inputs[] = {
        {"q", &args->q}, {"k", &args->k}, {"v", &args->v}, {"block_table", &args->block_table}};
    const bool wanted = !rwi_absent(&args->lse);
    rw_status status = rwi_check_tensor(call, out, rank_4_floats);
    for (int axis = 0; axis < 4 && status == RW_OK; axis++)
        status =
            rwi_check_length(call, out, axis, axis < 3 ? args->q.shape[axis] : args->v.shape[3]);
    if (status == RW_OK)
        status = rwi_check_output(call, out);
    if (status == RW_OK && wanted)
        status = rwi_check_tensor(call, lse, (rwi_tensor_rule){3, 3, RWI_DTYPE_BIT(RW_F32)});
    for (int axis = 0; axis < 3 && status == RW_OK && wanted; axis++)
        status = rwi_check_length(call, lse, axis, args->q.shape[axis]);
    if (status == RW_OK && wanted)
        status = rwi_check_output(call, lse);
    if (status == RW_OK && !rwi_absent(&args->workspace))
        status = rwi_check_tensor(call, workspace, (rwi_tensor_rule){1, 1, RWI_BYTES});
    if (status == RW_OK)
        status = rwi_check_apart(call, out, lse, false);
    if (status == RW_OK)
        status = rwi_check_apart(call, workspace, out, false);
    if (status == RW_OK)
        status = rwi_check_apart(call, workspace, lse, false);
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs && status == RW_OK; i++) {
        status = rwi_check_apart(call, out, inputs[i], false);
        if (status == RW_OK)
            status = rwi_check_apart(call, lse, inputs[i], false);
        if (status == RW_OK)
            status = rwi_check_apart(call, workspace, inputs[i], false);
    }
    return status;
}

static rwi_attention_tensor kernel_tensor(const rw_tensor *tensor) {
    rwi_attention_tensor described = {0};
    if (rwi_absent(tensor))
        return described;
    const rw_tensor at = rwi_steppable(tensor);
    described.data = at.data;
    for (int axis = 0; axis < 3; axis++)
        described.stride[axis] = at.stride[axis];
    return described;
}

/* Scale, mask, pattern and the like, checked against what is written. */
static rw_status describe_rules(const rwi_call *call, const rw_attention_args *args,
                                rw_attention_params *params) {
    rw_softmax_args rules = {.scale = args->scale,
                             .softcap = args->softcap,
                             .mask = args->mask,
                             .pattern = args->pattern,
                             .alibi = args->alibi,
                             .sinks = args->sinks};
    if (args->scale == 0.0 && args->q.shape[3] > 0)
        rules.scale = 1.0 / sqrt((double)args->q.shape[3]);
    const rwi_scores *lengths = &params->rules.scores;
    rw_tensor scores = args->q; /* for its lengths */
    scores.shape[3] = lengths->seq_k;
    const rwi_argument x = {"scores", &scores};
    const rwi_argument outputs[] = {
        {"lse", &args->lse}, {"workspace", &args->workspace}, {"out", &args->out}};
    rw_status status = RW_OK;
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs && status == RW_OK; i++)
        if (!rwi_absent(outputs[i].tensor))
            status = rwi_describe_softmax(call, &rules, x, outputs[i], &params->rules);
    return status;
}

/* Splits the keys where the tiles of rows alone would leave the device idle. */
static rwi_attention_parts split_keys(const rwi_call *call, const rw_attention_params *params) {
    const int64_t seq_k = params->rules.scores.seq_k;
    const int64_t tiles =
        rwi_attention_groups(params) *
        rwi_attention_row_tiles(params, rwi_attention_tile_rows(params, RWI_ATTENTION_ROWS));
    const int64_t wanted = rwi_max(1, call->context->device->parts / rwi_max(1, tiles));
    const int64_t keys = rwi_ceil_div(rwi_max(1, rwi_ceil_div(seq_k, wanted)), RWI_ATTENTION_KEYS) *
                         RWI_ATTENTION_KEYS;
    rwi_attention_parts parts = {.keys = rwi_max(keys, RWI_ATTENTION_PART_KEYS)};
    parts.count = rwi_max(1, rwi_ceil_div(seq_k, parts.keys));
    return parts;
}

static int64_t bytes_of_parts(const rw_attention_params *params, int64_t count) {
    if (count == 1)
        return 0;
    return count * attention_combine_work(params).items * (params->v_dim + 2) *
           (int64_t)sizeof(float);
}

/* The split of the keys, as far as there is a workspace for it. */
static rw_status describe_parts(const rwi_call *call, const rw_attention_args *args,
                                rw_attention_params *params) {
    params->parts = split_keys(call, params);
    const int64_t bytes = bytes_of_parts(params, params->parts.count);
    if (rwi_absent(&args->workspace)) {
        params->parts = (rwi_attention_parts){.count = 1, .keys = INT32_MAX};
        return RW_OK;
    }
    if (args->workspace.shape[0] < bytes)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "workspace has %lld bytes, expected %lld",
                        (long long)args->workspace.shape[0], (long long)bytes);
    if (bytes > 0 && (uintptr_t)args->workspace.data % RW_WORKSPACE_ALIGNMENT != 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "workspace.data is %p, expected %d-byte alignment", args->workspace.data,
                        RW_WORKSPACE_ALIGNMENT);
    if (bytes == 0) /* none may be there, and no kernel looks for it */
        return RW_OK;
    const int64_t rows = params->parts.count * attention_combine_work(params).items;
    params->parts.out = args->workspace.data;
    params->parts.largest = params->parts.out + rows * params->v_dim;
    params->parts.sum = params->parts.largest + rows;
    return RW_OK;
}

/* All but what is written. */
static rw_status describe_inputs(const rwi_call *call, const rw_attention_args *args,
                                 rw_attention_params *params) {
    int64_t seq_k = 0;
    rw_status status = check_inputs(call, args);
    if (status == RW_OK)
        status = check_pages(call, args, &params->pages, &seq_k);
    if (status != RW_OK)
        return status;
    params->rules.scores = (rwi_scores){.batch = args->q.shape[0],
                                        .heads = args->q.shape[1],
                                        .seq_q = args->q.shape[2],
                                        .seq_k = seq_k};
    const rw_pattern_shape shape = {args->q.shape[0], args->q.shape[2], seq_k};
    status = rwi_check_pattern_shape(call, &shape);
    if (status != RW_OK)
        return status;
    params->q = kernel_tensor(&args->q);
    params->k = kernel_tensor(&args->k);
    params->v = kernel_tensor(&args->v);
    params->dtype = args->q.dtype;
    params->group = (int32_t)rwi_group(args->q.shape[1], args->k.shape[1]);
    params->head_dim = (int32_t)args->q.shape[3];
    params->v_dim = (int32_t)args->v.shape[3];
    return RW_OK;
}

static rw_status begin(const rwi_call *call, const rw_attention_args *args) {
    rw_status status = rwi_check_context(call);
    if (status == RW_OK && !args)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "args is NULL");
    return status;
}

rw_status rw_attention_workspace(rw_context *context, const rw_attention_args *args,
                                 int64_t *bytes) {
    rwi_call call = {context, "rw_attention_workspace"};
    rw_attention_params params = {0};
    rw_status status = begin(&call, args);
    if (status == RW_OK && !bytes)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "bytes is NULL");
    if (status == RW_OK)
        status = describe_inputs(&call, args, &params);
    if (status == RW_OK)
        *bytes = bytes_of_parts(&params, split_keys(&call, &params).count);
    return status;
}

rw_status rw_attention(rw_context *context, const rw_attention_args *args) {
    rwi_call call = {context, "rw_attention"};
    rw_attention_params params = {0};
    rw_status status = begin(&call, args);
    if (status == RW_OK)
        status = describe_inputs(&call, args, &params);
    if (status == RW_OK)
        status = check_outputs(&call, args);
    if (status == RW_OK)
        status = describe_parts(&call, args, &params);
    if (status == RW_OK)
        status = describe_rules(&call, args, &params);
    if (status != RW_OK || rwi_empty(&args->out) || args->q.shape[3] == 0)
        return status;
    params.out = kernel_tensor(&args->out);
    params.lse = kernel_tensor(&args->lse);
    params.out_dtype = args->out.dtype;
    status = context->backend->attention(context->device, &params);
    if (status == RW_OK && params.parts.count > 1)
        status = context->backend->attention_combine(context->device, &params);
    return rwi_finish(&call, status);
}
