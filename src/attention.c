/* Attention: the entry point. */
#include <ropewalk/attention.h>

#include "kv_cache.h"
#include "pattern_describe.h"
#include "softmax_describe.h"

/* A call: the named arguments and the params of kernels. If q is packed, out, lse and (unless
 * paged) k and v are packed too. */
typedef struct attention {
    rwi_call call;
    const rw_attention_args *args;
    rwi_argument q, k, v, table, cu_q, cu_k, k_scale, v_scale;
    rwi_argument out, lse, workspace;
    int rank; /* of q */
    rw_attention_params params;
} attention;

static attention name_arguments(const rwi_call *call, const rw_attention_args *args) {
    return (attention){.call = *call,
                       .args = args,
                       .q = {"q", &args->q},
                       .k = {"k", &args->k},
                       .v = {"v", &args->v},
                       .table = {"block_table", &args->block_table},
                       .cu_q = {"cu_seqlens_q", &args->cu_seqlens_q},
                       .cu_k = {"cu_seqlens_k", &args->cu_seqlens_k},
                       .k_scale = {"k_scale", &args->k_scale},
                       .v_scale = {"v_scale", &args->v_scale},
                       .out = {"out", &args->out},
                       .lse = {"lse", &args->lse},
                       .workspace = {"workspace", &args->workspace},
                       .rank = args->q.rank};
}

/* ---- inputs ---- */

/* A head_dim that kernels support or, if `may_be_empty`, 0: v may have it only if `out` has. */
static rw_status check_width(const rwi_call *call, rwi_argument argument, bool may_be_empty) {
    const int64_t width = rwi_length(argument.tensor, RWI_WIDTH);
    if ((width == 0 && may_be_empty) || (width >= 1 && width <= RWI_ATTENTION_MAX_DIM))
        return RW_OK;
    return rwi_fail(call, RW_UNSUPPORTED, "%s has a head_dim of %lld, expected 1 to %d",
                    argument.name, (long long)width, RWI_ATTENTION_MAX_DIM);
}

/* Whether k and v have 8 bits. */
static bool has_codes(const attention *a) {
    return (RWI_DTYPE_BIT(a->k.tensor->dtype) & RWI_F8) != 0;
}

static rw_status check_products(const attention *a) {
    const rw_f32_products products = a->args->f32_products;
    if (products == RW_F32_EXACT || products == RW_F32_SPLIT)
        return RW_OK;
    return rwi_fail(&a->call, RW_INVALID_ARGUMENT,
                    "f32_products is %d, expected RW_F32_EXACT or RW_F32_SPLIT", (int)products);
}

/* The bounds of sequences: [batch + 1], of packed tensors alone. */
static rw_status check_bounds(const attention *a) {
    const rwi_call *call = &a->call;
    const bool has_q = !rwi_absent(a->cu_q.tensor), has_k = !rwi_absent(a->cu_k.tensor);
    const int64_t max_seq_q = a->args->max_seq_q;
    if (!has_q && (has_k || max_seq_q != 0))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s is given, but cu_seqlens_q is absent",
                        has_k ? "cu_seqlens_k" : "max_seq_q");
    if (!has_q)
        return RW_OK;
    if (a->rank != 3)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "cu_seqlens_q is given, but q has rank %d, expected 3: packed tokens",
                        a->rank);
    if (max_seq_q < 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "max_seq_q is %lld, expected 0 or more",
                        (long long)max_seq_q);
    RWI_TRY(rwi_check_tensor(call, a->cu_q, (rwi_tensor_rule){1, 1, RWI_IDS}));
    if (a->cu_q.tensor->shape[0] < 1)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "cu_seqlens_q is empty, expected batch + 1 values");
    if (!has_k)
        return RW_OK;
    if (!rwi_absent(a->table.tensor))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "cu_seqlens_k and block_table are given, expected one of them");
    RWI_TRY(rwi_check_tensor(call, a->cu_k, (rwi_tensor_rule){1, 1, RWI_IDS}));
    return rwi_check_length(call, a->cu_k, 0, a->cu_q.tensor->shape[0]);
}

/* The scale of k or v, which have 8 bits: one, or one for each head. */
static rw_status describe_scale(const attention *a, rwi_argument scale,
                                rwi_kv_scale_of *described) {
    const rwi_call *call = &a->call;
    if (rwi_absent(scale.tensor))
        return RW_OK;
    if (!has_codes(a))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "%s is given, but k has dtype %s, expected f8_e4m3 or f8_e5m2", scale.name,
                        rw_dtype_name(a->k.tensor->dtype));
    RWI_TRY(rwi_check_tensor(call, scale, (rwi_tensor_rule){1, 1, RWI_F32}));
    const int64_t length = scale.tensor->shape[0];
    if (length != 1)
        RWI_TRY(rwi_check_length(call, scale, 0, rwi_length(a->k.tensor, RWI_HEADS)));
    described->data = scale.tensor->data;
    described->stride = length == 1 ? 0 : scale.tensor->stride[0];
    return RW_OK;
}

/* k and v are packed if q is, except in pages or, in a ragged batch, by sequence. */
static int kv_rank_of(const attention *a) {
    const bool by_sequence = !rwi_absent(a->cu_q.tensor) && rwi_absent(a->cu_k.tensor);
    return rwi_absent(a->table.tensor) && !by_sequence ? a->rank : 4;
}

static rw_status check_inputs(const attention *a) {
    const rwi_call *call = &a->call;
    RWI_TRY(rwi_check_tensor(call, a->q, (rwi_tensor_rule){3, 4, RWI_FLOATS}));
    RWI_TRY(check_bounds(a));
    const rw_tensor *out = a->out.tensor;
    const bool has_columns = out->rank == a->rank && rwi_length(out, RWI_WIDTH) != 0;
    const int kv_rank = kv_rank_of(a);
    RWI_TRY(rwi_check_tensor(call, a->k, (rwi_tensor_rule){kv_rank, kv_rank, RWI_CACHES}));
    RWI_TRY(rwi_check_tensor(call, a->v, (rwi_tensor_rule){kv_rank, kv_rank, RWI_CACHES}));
    if (!has_codes(a))
        RWI_TRY(rwi_check_same_dtype(call, a->k, a->q));
    RWI_TRY(rwi_check_same_dtype(call, a->v, has_codes(a) ? a->k : a->q));
    RWI_TRY(check_width(call, a->q, true));
    RWI_TRY(check_width(call, a->k, true));
    RWI_TRY(check_width(call, a->v, !has_columns));
    RWI_TRY(rwi_check_length(call, a->k, RWI_WIDTH, rwi_length(a->q.tensor, RWI_WIDTH)));
    for (int axis = 0; axis < kv_rank - 1; axis++)
        RWI_TRY(rwi_check_length(call, a->v, axis, a->k.tensor->shape[axis]));
    return rwi_check_heads(call, a->q, a->rank + RWI_HEADS, a->k);
}

static rwi_attention_tensor kernel_tensor(const rw_tensor *tensor, int rank) {
    rwi_attention_tensor described = {0};
    if (rwi_absent(tensor))
        return described;
    const rw_tensor at = rwi_with_rank(rwi_steppable(tensor), rank);
    described.data = at.data;
    for (int axis = 0; axis < 3; axis++)
        described.stride[axis] = at.stride[axis];
    return described;
}

/* The lengths of a ragged batch. */
static rwi_attention_ragged describe_ragged(const attention *a) {
    const rw_attention_args *args = a->args;
    const int64_t tokens = args->q.shape[0];
    if (rwi_absent(a->cu_q.tensor))
        return (rwi_attention_ragged){0};
    rwi_attention_ragged ragged = {
        .queries = rwi_ids_view(a->cu_q.tensor),
        .batch = args->cu_seqlens_q.shape[0] - 1,
        .tokens = tokens,
        .max_seq_q = args->max_seq_q > 0 ? rwi_min(args->max_seq_q, tokens) : tokens,
        .alignment = args->pattern ? args->pattern->alignment : RW_ALIGN_BOTTOM_RIGHT,
        .alibi_alignment = args->alibi ? args->alibi->alignment : RW_ALIGN_BOTTOM_RIGHT,
    };
    if (rwi_absent(a->cu_k.tensor))
        return ragged;
    ragged.keys = rwi_ids_view(a->cu_k.tensor);
    ragged.key_tokens = args->k.shape[0];
    return ragged;
}

/* q, k, v and the block table. */
static rw_status describe_inputs(attention *a) {
    RWI_TRY(check_inputs(a));
    RWI_TRY(check_products(a));
    const rw_tensor q = rwi_with_rank(*a->q.tensor, 4), k = rwi_with_rank(*a->k.tensor, 4);
    rw_attention_params *params = &a->params;
    params->ragged = describe_ragged(a);
    const bool ragged = params->ragged.queries.data;
    const int64_t batch = ragged ? params->ragged.batch : q.shape[0];
    const int64_t seq_q = q.shape[1], heads = q.shape[2];
    params->pages = (rwi_kv_pages){.num_pages = batch, .length = k.shape[1], .shift = 62};
    if (!rwi_absent(a->table.tensor))
        RWI_TRY(rwi_check_block_table(&a->call, a->table, a->k, batch, &params->pages));
    else if (kv_rank_of(a) == 4)
        RWI_TRY(rwi_check_length(&a->call, a->k, 0, batch));
    const int64_t seq_k = params->pages.length;
    const rw_pattern_shape shape = {batch, seq_q, seq_k};
    RWI_TRY(rwi_check_pattern_shape(&a->call, &shape));
    params->rules.scores =
        (rwi_scores){.batch = batch, .heads = heads, .seq_q = seq_q, .seq_k = seq_k};
    params->q = kernel_tensor(a->q.tensor, 4);
    params->k = kernel_tensor(a->k.tensor, 4);
    params->v = kernel_tensor(a->v.tensor, 4);
    params->dtype = q.dtype;
    params->kv_dtype = k.dtype;
    RWI_TRY(describe_scale(a, a->k_scale, &params->k_scale));
    RWI_TRY(describe_scale(a, a->v_scale, &params->v_scale));
    params->kv_heads = (int32_t)k.shape[2];
    params->group = (int32_t)rwi_group(heads, k.shape[2]);
    params->head_dim = (int32_t)q.shape[3];
    params->v_dim = (int32_t)rwi_length(a->v.tensor, RWI_WIDTH);
    params->num_rows = q.shape[0] * seq_q * heads;
    return RW_OK;
}

/* ---- outputs ---- */

static rw_status check_out(const attention *a) {
    RWI_TRY(rwi_check_tensor(&a->call, a->out, (rwi_tensor_rule){a->rank, a->rank, RWI_FLOATS}));
    for (int axis = 0; axis < a->rank - 1; axis++)
        RWI_TRY(rwi_check_length(&a->call, a->out, axis, a->q.tensor->shape[axis]));
    RWI_TRY(rwi_check_length(&a->call, a->out, RWI_WIDTH, rwi_length(a->v.tensor, RWI_WIDTH)));
    return rwi_check_output(&a->call, a->out);
}

static rw_status check_lse(const attention *a) {
    const int rank = a->rank - 1;
    if (rwi_absent(a->lse.tensor))
        return RW_OK;
    RWI_TRY(rwi_check_strided(&a->call, a->lse, (rwi_tensor_rule){rank, rank, RWI_F32}));
    RWI_TRY(rwi_check_lse_shape(&a->call, a->lse, a->q));
    return rwi_check_output(&a->call, a->lse);
}

static rw_status check_outputs(const attention *a) {
    const rwi_call *call = &a->call;
    const rwi_argument inputs[] = {a->q,    a->k,    a->v,       a->table,
                                   a->cu_q, a->cu_k, a->k_scale, a->v_scale};
    const rwi_argument outputs[] = {a->out, a->lse, a->workspace};
    RWI_TRY(check_out(a));
    RWI_TRY(check_lse(a));
    if (!rwi_absent(a->workspace.tensor))
        RWI_TRY(rwi_check_tensor(call, a->workspace, (rwi_tensor_rule){1, 1, RWI_BYTES}));
    RWI_TRY(rwi_check_apart(call, a->out, a->lse, false));
    RWI_TRY(rwi_check_apart(call, a->workspace, a->out, false));
    RWI_TRY(rwi_check_apart(call, a->workspace, a->lse, false));
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        for (size_t n = 0; n < sizeof outputs / sizeof *outputs; n++)
            RWI_TRY(rwi_check_apart(call, outputs[n], inputs[i], false));
    return RW_OK;
}

static rw_status describe_outputs(attention *a) {
    RWI_TRY(check_outputs(a));
    a->params.out = kernel_tensor(a->out.tensor, 4);
    a->params.lse = kernel_tensor(a->lse.tensor, 3);
    a->params.out_dtype = a->out.tensor->dtype;
    a->params.f32_products = a->args->f32_products;
    return RW_OK;
}

/* ---- the split of the keys ---- */

/* The tiles of rows, of a ragged batch at most. */
static int64_t tiles_of(const rw_attention_params *params, int32_t rows) {
    if (params->ragged.queries.data)
        return params->kv_heads * rwi_attention_find_slots(params, rows, false).count;
    return rwi_attention_groups(params) * rwi_attention_row_tiles(params, rows);
}

/* Splits the keys if the tiles of rows alone are too few for the device. */
static rwi_attention_parts split_keys(const attention *a) {
    const rw_attention_params *params = &a->params;
    const rwi_device *device = a->call.context->device;
    const int64_t seq_k = params->rules.scores.seq_k;
    const bool latent = device->tall_rows > 0 && rwi_attention_is_latent(params);
    const bool tall = device->tall_rows > 0 && params->dtype != RW_F32 &&
                      !params->ragged.queries.data && params->kv_dtype == params->dtype &&
                      !rwi_attention_is_wide(params) &&
                      rwi_attention_group_rows(params) > RWI_ATTENTION_FEW_ROWS;
    const int32_t rows = latent ? RWI_ATTENTION_ROWS
                         : tall ? device->tall_rows
                                : rwi_attention_tile_rows(params, RWI_ATTENTION_ROWS);
    const int64_t tiles = tiles_of(params, rows);
    const int64_t wanted =
        rwi_max(1, (tall || latent ? device->tall_parts : device->parts) / rwi_max(1, tiles));
    const int64_t keys = rwi_ceil_div(rwi_max(1, rwi_ceil_div(seq_k, wanted)), RWI_ATTENTION_KEYS) *
                         RWI_ATTENTION_KEYS;
    rwi_attention_parts parts = {.keys = rwi_max(keys, RWI_ATTENTION_PART_KEYS)};
    parts.count = rwi_max(1, rwi_ceil_div(seq_k, parts.keys));
    if (a->args->batch_invariant)
        parts.count = 1;
    return parts;
}

static int64_t bytes_of_parts(const rw_attention_params *params, int64_t count) {
    if (count == 1)
        return 0;
    return count * params->num_rows * (rwi_attention_part_width(params) + 2) *
           (int64_t)sizeof(float);
}

/* The split of the keys; one part if there is no workspace. */
static rw_status describe_parts(attention *a) {
    const rw_tensor *workspace = a->workspace.tensor;
    rw_attention_params *params = &a->params;
    params->parts = split_keys(a);
    const int64_t bytes = bytes_of_parts(params, params->parts.count);
    if (rwi_absent(workspace) || a->args->batch_invariant)
        params->parts = (rwi_attention_parts){.count = 1, .keys = INT32_MAX};
    if (rwi_absent(workspace))
        return RW_OK;
    if (workspace->shape[0] < bytes)
        return rwi_fail(&a->call, RW_INVALID_ARGUMENT, "workspace has %lld bytes, expected %lld",
                        (long long)workspace->shape[0], (long long)bytes);
    if (bytes > 0 && (uintptr_t)workspace->data % RW_WORKSPACE_ALIGNMENT != 0)
        return rwi_fail(&a->call, RW_INVALID_ARGUMENT,
                        "workspace.data is %p, expected %d-byte alignment", workspace->data,
                        RW_WORKSPACE_ALIGNMENT);
    if (bytes == 0) /* the workspace may be empty; no kernel uses it */
        return RW_OK;
    const int64_t rows = params->parts.count * params->num_rows;
    params->parts.out = workspace->data;
    params->parts.largest = params->parts.out + rows * rwi_attention_part_width(params);
    params->parts.sum = params->parts.largest + rows;
    return RW_OK;
}

/* ---- the rules ---- */

/* Scale, mask, pattern and the like, checked for overlap with the outputs. */
static rw_status describe_rules(attention *a) {
    const rw_attention_args *args = a->args;
    const rwi_scores *lengths = &a->params.rules.scores;
    rw_softmax_args rules = {.scale = args->scale,
                             .softcap = args->softcap,
                             .mask = args->mask,
                             .pattern = args->pattern,
                             .alibi = args->alibi,
                             .sinks = args->sinks};
    if (args->scale == 0.0 && a->params.head_dim > 0)
        rules.scale = 1.0 / sqrt((double)a->params.head_dim);
    const rw_tensor scores = {
        .rank = 4, .shape = {lengths->batch, lengths->heads, lengths->seq_q, lengths->seq_k}};
    const rwi_argument outputs[] = {a->lse, a->workspace, a->out};
    const rwi_softmax_tensors tensors = {.x = {"scores", &scores},
                                         .outputs = outputs,
                                         .num_outputs = sizeof outputs / sizeof *outputs};
    return rwi_describe_softmax(&a->call, &rules, &tensors, &a->params.rules);
}

/* ---- entry points ---- */

rw_status rw_attention_workspace(rw_context *context, const rw_attention_args *args,
                                 int64_t *bytes) {
    const rwi_call call = {context, "rw_attention_workspace"};
    RWI_TRY(rwi_begin(&call, args));
    RWI_TRY(rwi_check_pointer(&call, "bytes", bytes));
    attention a = name_arguments(&call, args);
    RWI_TRY(describe_inputs(&a));
    *bytes = bytes_of_parts(&a.params, split_keys(&a).count);
    return RW_OK;
}

rw_status rw_attention(rw_context *context, const rw_attention_args *args) {
    const rwi_call call = {context, "rw_attention"};
    RWI_TRY(rwi_begin(&call, args));
    attention a = name_arguments(&call, args);
    RWI_TRY(describe_inputs(&a));
    RWI_TRY(describe_outputs(&a));
    RWI_TRY(describe_parts(&a));
    RWI_TRY(describe_rules(&a));
    const bool no_sequence = a.params.ragged.queries.data && a.params.ragged.batch == 0;
    if (rwi_empty(&args->out) || a.params.head_dim == 0 || no_sequence)
        return RW_OK;
    rw_status status = context->backend->attention(context->device, &a.params);
    if (status == RW_OK && a.params.parts.count > 1)
        status = context->backend->attention_combine(context->device, &a.params);
    return rwi_finish(&call, status);
}
