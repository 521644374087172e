/* The KV cache: the entry points. */
#include <ropewalk/kv.h>

#include "kv_cache.h"
#include "numbers.h"
#include "rope_call.h"

/* A token's rotations and norm weights are kept in a GPU's shared memory. */
#define MAX_HEAD_DIM 4096

#define MIN_PAGE_SIZE 16

rw_status rwi_check_block_table(const rwi_call *call, rwi_argument table, rwi_argument k,
                                int64_t batch, rwi_kv_pages *pages) {
    RWI_TRY(rwi_check_tensor(call, table, (rwi_tensor_rule){2, 2, RWI_IDS}));
    RWI_TRY(rwi_check_length(call, table, 0, batch));
    const int64_t size = k.tensor->shape[1];
    if (size < MIN_PAGE_SIZE || (size & (size - 1)) != 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "%s has pages of %lld positions along axis 1, expected a power of two from "
                        "%d on",
                        k.name, (long long)size, MIN_PAGE_SIZE);
    *pages = (rwi_kv_pages){.num_pages = k.tensor->shape[0],
                            .shift = __builtin_ctzll((unsigned long long)size)};
    if (__builtin_mul_overflow(table.tensor->shape[1], size, &pages->length))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s has %lld pages a sequence, expected fewer",
                        table.name, (long long)table.tensor->shape[1]);
    pages->table = rwi_ids_view(table.tensor);
    return RW_OK;
}

rw_status rwi_check_kv_cache(const rwi_call *call, const rw_kv_cache *cache, int64_t batch,
                             rwi_kv_pages *pages) {
    const rwi_argument k = {"cache.k", &cache->k}, v = {"cache.v", &cache->v};
    const rwi_argument table = {"cache.block_table", &cache->block_table};
    const rwi_tensor_rule rule = {4, 4, RWI_FLOATS};
    RWI_TRY(rwi_check_tensor(call, k, rule));
    RWI_TRY(rwi_check_tensor(call, v, rule));
    RWI_TRY(rwi_check_same_dtype(call, v, k));
    for (int axis = 0; axis < 3; axis++)
        RWI_TRY(rwi_check_length(call, v, axis, cache->k.shape[axis]));
    if (!rwi_absent(table.tensor))
        return rwi_check_block_table(call, table, k, batch, pages);
    *pages =
        (rwi_kv_pages){.num_pages = cache->k.shape[0], .length = cache->k.shape[1], .shift = 62};
    return rwi_check_length(call, k, 0, batch);
}

/* A cache tensor overlaps none of the inputs. */
static rw_status check_cache_apart(const rwi_call *call, const rw_kv_append_args *args,
                                   rwi_argument cache) {
    const rwi_argument others[] = {{"append.k", &args->k},
                                   {"append.v", &args->v},
                                   {"cache.block_table", &args->cache.block_table},
                                   {"append.offsets", &args->offsets}};
    RWI_TRY(rwi_check_output(call, cache));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        RWI_TRY(rwi_check_apart(call, cache, others[i], false));
    return RW_OK;
}

static rwi_kv_side kernel_side(const rw_tensor *in, const rw_tensor *cache) {
    const rw_tensor from = rwi_steppable(in), to = rwi_steppable(cache);
    rwi_kv_side side = {.in = from.data, .cache = to.data, .width = in->shape[3]};
    for (int axis = 0; axis < 3; axis++) {
        side.in_stride[axis] = from.stride[axis];
        side.cache_stride[axis] = to.stride[axis];
    }
    return side;
}

/* k or v has the dtype, heads and head_dim of its cache tensor. */
static rw_status check_side(const rwi_call *call, rwi_argument in, rwi_argument cache) {
    RWI_TRY(rwi_check_tensor(call, in, (rwi_tensor_rule){3, 4, RWI_FLOATS}));
    RWI_TRY(rwi_check_same_dtype(call, in, cache));
    RWI_TRY(rwi_check_length(call, in, RWI_HEADS, rwi_length(cache.tensor, RWI_HEADS)));
    return rwi_check_length(call, in, RWI_WIDTH, rwi_length(cache.tensor, RWI_WIDTH));
}

/* `in` has the batch and seq of `like`, or its tokens if packed. */
static rw_status check_same_tokens(const rwi_call *call, rwi_argument in, rwi_argument like) {
    const rw_tensor *tensor = like.tensor;
    if (in.tensor->rank != tensor->rank)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s has rank %d, expected that of %s, %d",
                        in.name, in.tensor->rank, like.name, tensor->rank);
    for (int axis = 0; axis < tensor->rank - 2; axis++)
        RWI_TRY(rwi_check_length(call, in, axis, tensor->shape[axis]));
    return RW_OK;
}

static rw_status check_append(const rwi_call *call, const rw_kv_append_args *args,
                              rwi_kv_pages *pages) {
    const rwi_argument k = {"append.k", &args->k}, v = {"append.v", &args->v};
    const rwi_argument cache_k = {"cache.k", &args->cache.k}, cache_v = {"cache.v", &args->cache.v};
    RWI_TRY(rwi_check_tensor(call, k, (rwi_tensor_rule){3, 4, RWI_FLOATS}));
    const int64_t batch = args->k.rank == 4 ? args->k.shape[0] : 1;
    RWI_TRY(rwi_check_kv_cache(call, &args->cache, batch, pages));
    RWI_TRY(check_side(call, k, cache_k));
    RWI_TRY(check_side(call, v, cache_v));
    RWI_TRY(check_same_tokens(call, v, k));
    RWI_TRY(check_cache_apart(call, args, cache_k));
    RWI_TRY(check_cache_apart(call, args, cache_v));
    return rwi_check_apart(call, cache_v, cache_k, false);
}

static rw_status describe(const rwi_call *call, const rw_kv_append_args *args,
                          rw_kv_append_params *params) {
    RWI_TRY(check_append(call, args, &params->pages));
    const rw_tensor k = rwi_with_rank(args->k, 4), v = rwi_with_rank(args->v, 4);
    params->sides[0] = kernel_side(&k, &args->cache.k);
    params->sides[1] = kernel_side(&v, &args->cache.v);
    params->dtype = k.dtype;
    params->batch = k.shape[0];
    params->seq = k.shape[1];
    params->heads = k.shape[2];
    static const rw_tensor absent;
    const rwi_id_arguments ids = {.positions = &absent,
                                  .offsets = &args->offsets,
                                  .offset = args->offset,
                                  .batch = params->batch,
                                  .seq = params->seq,
                                  .num_axes = 1};
    return rwi_check_token_ids(call, &ids, &params->positions);
}

rw_status rw_kv_append(rw_context *context, const rw_kv_append_args *args) {
    const rwi_call call = {context, "rw_kv_append"};
    rw_kv_append_params params = {0};
    RWI_TRY(rwi_begin(&call, args));
    RWI_TRY(describe(&call, args, &params));
    const rwi_work work = kv_append_work(&params);
    if (work.items == 0 || work.bytes_per_item == 0)
        return RW_OK;
    return rwi_finish(&call, context->backend->kv_append(context->device, &params));
}

/* ---- with the rotation ---- */

static rw_status describe_norm(const rwi_call *call, const rw_head_norm *norm,
                               rw_rope_append_params *params) {
    const rwi_argument weights[] = {{"norm.q_weight", &norm->q_weight},
                                    {"norm.k_weight", &norm->k_weight}};
    RWI_TRY(rwi_check_number(call, "norm.eps", norm->eps, 0.0));
    RWI_TRY(rwi_check_number(call, "norm.weight_offset", norm->weight_offset, -INFINITY));
    if (norm->eps > 1.0f)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "norm.eps is %g, expected 0 to 1",
                        (double)norm->eps);
    if ((unsigned)norm->cast > RW_NORM_CAST_AFTER_WEIGHT)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "norm.cast is %d, expected one of rw_norm_cast",
                        (int)norm->cast);
    params->norm_eps = norm->eps;
    params->norm_per_column = 1.0 / (double)params->rope.head_dim;
    params->norm_offset = norm->weight_offset;
    params->norm_cast_before_weight = norm->cast == RW_NORM_CAST_BEFORE_WEIGHT;
    for (int i = 0; i < 2; i++) {
        if (rwi_absent(weights[i].tensor))
            continue;
        RWI_TRY(rwi_check_tensor(call, weights[i], (rwi_tensor_rule){1, 1, RWI_FLOATS}));
        RWI_TRY(rwi_check_length(call, weights[i], 0, params->rope.head_dim));
        params->norm_weight[i] = weights[i].tensor->data;
        params->norm_dtype[i] = weights[i].tensor->dtype;
    }
    return RW_OK;
}

/* q fits k, and no output of one half overlaps an input of the other. */
static rw_status check_together(const rwi_call *call, const rw_rope_append_args *args) {
    const rw_rope_args *rope = &args->rope;
    const rw_kv_append_args *append = &args->append;
    const rwi_argument q = {"rope.q", &rope->q}, k = {"append.k", &append->k};
    const rwi_argument q_out = {rwi_absent(&rope->q_out) ? "rope.q" : "rope.q_out",
                                rwi_absent(&rope->q_out) ? &rope->q : &rope->q_out};
    const rwi_argument outputs[] = {{"cache.k", &append->cache.k}, {"cache.v", &append->cache.v}};
    const rwi_argument rope_inputs[] = {q,
                                        q_out,
                                        {"rope.positions", &rope->positions},
                                        {"rope.offsets", &rope->offsets},
                                        {"norm.q_weight", &args->norm.q_weight},
                                        {"norm.k_weight", &args->norm.k_weight}};
    const rwi_argument others[] = {k,
                                   {"append.v", &append->v},
                                   {"append.offsets", &append->offsets},
                                   {"cache.block_table", &append->cache.block_table},
                                   {"norm.q_weight", &args->norm.q_weight},
                                   {"norm.k_weight", &args->norm.k_weight}};
    RWI_TRY(rwi_check_same_dtype(call, k, q));
    RWI_TRY(check_same_tokens(call, k, q));
    RWI_TRY(rwi_check_length(call, k, RWI_WIDTH, rwi_length(q.tensor, RWI_WIDTH)));
    for (size_t i = 0; i < sizeof rope_inputs / sizeof *rope_inputs; i++)
        for (int out = 0; out < 2; out++)
            RWI_TRY(rwi_check_apart(call, outputs[out], rope_inputs[i], false));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        RWI_TRY(rwi_check_apart(call, q_out, others[i], false));
    return RW_OK;
}

rw_status rw_rope_append(rw_context *context, const rw_rope *rope,
                         const rw_rope_append_args *args) {
    const rwi_call call = {context, "rw_rope_append"};
    rw_rope_append_params params = {0};
    RWI_TRY(rwi_begin(&call, args));
    if (!rwi_absent(&args->rope.k) || !rwi_absent(&args->rope.k_out))
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "rope.%s is given, expected append.k alone",
                        rwi_absent(&args->rope.k) ? "k_out" : "k");
    RWI_TRY(rwi_rope_describe(&call, rope, &args->rope, &params.rope));
    RWI_TRY(describe(&call, &args->append, &params.kv));
    RWI_TRY(check_together(&call, args));
    RWI_TRY(describe_norm(&call, &args->norm, &params));
    if (params.rope.head_dim > MAX_HEAD_DIM)
        return rwi_fail(&call, RW_UNSUPPORTED, "head_dim is %lld, expected at most %d",
                        (long long)params.rope.head_dim, MAX_HEAD_DIM);
    const rwi_work work = rope_append_work(&params);
    if (work.items == 0 || work.bytes_per_item == 0)
        return RW_OK;
    return rwi_finish(&call, context->backend->rope_append(context->device, &params));
}
