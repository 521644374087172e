/* The KV cache: the entry points. */
#include <ropewalk/kv.h>

#include "kv_cache.h"
#include "numbers.h"
#include "rope_call.h"

/* Turns and weights of a token stay in a GPU's shared memory. */
#define MAX_HEAD_DIM 4096

#define MIN_PAGE_SIZE 16

rw_status rwi_check_block_table(const rwi_call *call, rwi_argument table, rwi_argument k,
                                int64_t batch, rwi_kv_pages *pages) {
    rw_status status = rwi_check_tensor(call, table, (rwi_tensor_rule){2, 2, RWI_IDS});
    if (status == RW_OK)
        status = rwi_check_length(call, table, 0, batch);
    if (status != RW_OK)
        return status;
    int64_t size = k.tensor->shape[2];
    if (size < MIN_PAGE_SIZE || (size & (size - 1)) != 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "%s has pages of %lld positions, expected a power of two from %d on",
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
    rwi_argument k = {"cache.k", &cache->k}, v = {"cache.v", &cache->v};
    rwi_tensor_rule rule = {4, 4, RWI_FLOATS};
    rw_status status = rwi_check_tensor(call, k, rule);
    if (status == RW_OK)
        status = rwi_check_tensor(call, v, rule);
    if (status == RW_OK)
        status = rwi_check_same_dtype(call, v, k);
    for (int axis = 0; axis < 3 && status == RW_OK; axis++)
        status = rwi_check_length(call, v, axis, cache->k.shape[axis]);
    if (status != RW_OK)
        return status;
    rwi_argument table = {"cache.block_table", &cache->block_table};
    if (!rwi_absent(table.tensor))
        return rwi_check_block_table(call, table, k, batch, pages);
    *pages =
        (rwi_kv_pages){.num_pages = cache->k.shape[0], .length = cache->k.shape[2], .shift = 62};
    return rwi_check_length(call, k, 0, batch);
}

static rw_tensor with_rank_4(const rw_tensor *tensor) {
    return tensor->rank == 3 ? rwi_with_leading_axis(*tensor) : *tensor;
}

/* Writing the cache touches nothing else. */
static rw_status check_cache_apart(const rwi_call *call, const rw_kv_append_args *args,
                                   rwi_argument cache) {
    const rwi_argument others[] = {{"append.k", &args->k},
                                   {"append.v", &args->v},
                                   {"cache.block_table", &args->cache.block_table},
                                   {"append.offsets", &args->offsets}};
    rw_status status = rwi_check_output(call, cache);
    for (size_t i = 0; i < sizeof others / sizeof *others && status == RW_OK; i++)
        status = rwi_check_apart(call, cache, others[i], false);
    return status;
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

/* k or v and its side of the cache agree. */
static rw_status check_side(const rwi_call *call, rwi_argument in, rwi_argument cache) {
    rw_status status = rwi_check_tensor(call, in, (rwi_tensor_rule){3, 4, RWI_FLOATS});
    if (status == RW_OK)
        status = rwi_check_same_dtype(call, in, cache);
    if (status == RW_OK)
        status = rwi_check_length(call, in, in.tensor->rank - 2, cache.tensor->shape[1]);
    if (status == RW_OK)
        status = rwi_check_length(call, in, in.tensor->rank - 1, cache.tensor->shape[3]);
    return status;
}

static rw_status describe(const rwi_call *call, const rw_kv_append_args *args,
                          rw_kv_append_params *params) {
    rwi_argument k = {"append.k", &args->k}, v = {"append.v", &args->v};
    rwi_argument cache_k = {"cache.k", &args->cache.k}, cache_v = {"cache.v", &args->cache.v};
    int64_t batch = args->k.rank == 4 ? args->k.shape[0] : 1;
    rw_status status = rwi_check_tensor(call, k, (rwi_tensor_rule){3, 4, RWI_FLOATS});
    if (status == RW_OK)
        status = rwi_check_kv_cache(call, &args->cache, batch, &params->pages);
    if (status == RW_OK)
        status = check_side(call, k, cache_k);
    if (status == RW_OK)
        status = check_side(call, v, cache_v);
    if (status == RW_OK && args->v.rank != args->k.rank)
        status = rwi_fail(call, RW_INVALID_ARGUMENT, "append.v has rank %d, expected that of k, %d",
                          args->v.rank, args->k.rank);
    for (int axis = 0; status == RW_OK && axis < args->k.rank - 2; axis++)
        status = rwi_check_length(call, v, axis, args->k.shape[axis]);
    if (status == RW_OK)
        status = check_cache_apart(call, args, cache_k);
    if (status == RW_OK)
        status = check_cache_apart(call, args, cache_v);
    if (status == RW_OK)
        status = rwi_check_apart(call, cache_v, cache_k, false);
    if (status != RW_OK)
        return status;
    rw_tensor k4 = with_rank_4(&args->k), v4 = with_rank_4(&args->v);
    params->sides[0] = kernel_side(&k4, &args->cache.k);
    params->sides[1] = kernel_side(&v4, &args->cache.v);
    params->dtype = k4.dtype;
    params->batch = k4.shape[0];
    params->seq = k4.shape[1];
    params->heads = k4.shape[2];
    static const rw_tensor absent;
    rwi_id_arguments ids = {.positions = &absent,
                            .offsets = &args->offsets,
                            .offset = args->offset,
                            .batch = params->batch,
                            .seq = params->seq,
                            .num_axes = 1};
    return rwi_check_token_ids(call, &ids, &params->positions);
}

rw_status rw_kv_append(rw_context *context, const rw_kv_append_args *args) {
    rwi_call call = {context, "rw_kv_append"};
    rw_kv_append_params params = {0};
    rw_status status = rwi_check_context(&call);
    if (status != RW_OK)
        return status;
    if (!args)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "args is NULL");
    status = describe(&call, args, &params);
    rwi_work work = kv_append_work(&params);
    if (status != RW_OK || work.items == 0 || work.bytes_per_item == 0)
        return status;
    return rwi_finish(&call, context->backend->kv_append(context->device, &params));
}

/* ---- with the rotation ---- */

static rw_status check_norm(const rwi_call *call, const rw_head_norm *norm,
                            rw_rope_append_params *params) {
    const rwi_argument weights[] = {{"norm.q_weight", &norm->q_weight},
                                    {"norm.k_weight", &norm->k_weight}};
    rw_status status = rwi_check_number(call, "norm.eps", norm->eps, 0.0);
    if (status == RW_OK)
        status = rwi_check_number(call, "norm.weight_offset", norm->weight_offset, -INFINITY);
    if (status == RW_OK && norm->eps > 1.0f)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "norm.eps is %g, expected 0 to 1",
                        (double)norm->eps);
    if ((unsigned)norm->cast > RW_NORM_CAST_AFTER_WEIGHT)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "norm.cast is %d, expected one of rw_norm_cast",
                        (int)norm->cast);
    params->norm_eps = norm->eps;
    params->norm_offset = norm->weight_offset;
    params->norm_cast_before_weight = norm->cast == RW_NORM_CAST_BEFORE_WEIGHT;
    for (int i = 0; i < 2 && status == RW_OK; i++) {
        if (rwi_absent(weights[i].tensor))
            continue;
        status = rwi_check_tensor(call, weights[i], (rwi_tensor_rule){1, 1, RWI_FLOATS});
        if (status == RW_OK)
            status = rwi_check_length(call, weights[i], 0, params->rope.head_dim);
        params->norm_weight[i] = weights[i].tensor->data;
        params->norm_dtype[i] = weights[i].tensor->dtype;
    }
    return status;
}

/* q and its ids go with k, and no output with an input of the other half. */
static rw_status check_together(const rwi_call *call, const rw_rope_append_args *args) {
    const rw_rope_args *rope = &args->rope;
    const rw_kv_append_args *append = &args->append;
    rwi_argument q = {"rope.q", &rope->q}, k = {"append.k", &append->k};
    rwi_argument q_out = {rwi_absent(&rope->q_out) ? "rope.q" : "rope.q_out",
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
    rw_status status = rwi_check_same_dtype(call, k, q);
    if (status == RW_OK && rope->q.rank != append->k.rank)
        status = rwi_fail(call, RW_INVALID_ARGUMENT, "append.k has rank %d, expected that of q, %d",
                          append->k.rank, rope->q.rank);
    for (int axis = 0; status == RW_OK && axis < rope->q.rank - 2; axis++)
        status = rwi_check_length(call, k, axis, rope->q.shape[axis]);
    if (status == RW_OK)
        status = rwi_check_length(call, k, rope->q.rank - 1, rope->q.shape[rope->q.rank - 1]);
    for (size_t i = 0; i < sizeof rope_inputs / sizeof *rope_inputs; i++)
        for (int out = 0; out < 2 && status == RW_OK; out++)
            status = rwi_check_apart(call, outputs[out], rope_inputs[i], false);
    for (size_t i = 0; i < sizeof others / sizeof *others && status == RW_OK; i++)
        status = rwi_check_apart(call, q_out, others[i], false);
    return status;
}

rw_status rw_rope_append(rw_context *context, const rw_rope *rope,
                         const rw_rope_append_args *args) {
    rwi_call call = {context, "rw_rope_append"};
    rw_rope_append_params params = {0};
    rw_status status = rwi_check_context(&call);
    if (status != RW_OK)
        return status;
    if (!args)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "args is NULL");
    if (!rwi_absent(&args->rope.k) || !rwi_absent(&args->rope.k_out))
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "rope.%s is given, expected append.k alone",
                        rwi_absent(&args->rope.k) ? "k_out" : "k");
    status = rwi_rope_describe(&call, rope, &args->rope, &params.rope);
    if (status == RW_OK)
        status = describe(&call, &args->append, &params.kv);
    if (status == RW_OK)
        status = check_together(&call, args);
    if (status == RW_OK)
        status = check_norm(&call, &args->norm, &params);
    if (status == RW_OK && params.rope.head_dim > MAX_HEAD_DIM)
        status = rwi_fail(&call, RW_UNSUPPORTED, "head_dim is %lld, expected at most %d",
                          (long long)params.rope.head_dim, MAX_HEAD_DIM);
    rwi_work work = rope_append_work(&params);
    if (status != RW_OK || work.items == 0 || work.bytes_per_item == 0)
        return status;
    return rwi_finish(&call, context->backend->rope_append(context->device, &params));
}
