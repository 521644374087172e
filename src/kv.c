/* The KV cache: the entry points. */
#include <ropewalk/kv.h>

#include "kv_cache.h"
#include "numbers.h"
#include "rope_call.h"

/* A token's rotations and norm weights are kept in a GPU's shared memory. */
#define MAX_HEAD_DIM 4096

#define MIN_PAGE_SIZE 16

/* Checks a block table and describes the pages; `shift` is not set. */
static rw_status check_table(const rwi_call *call, rwi_argument table, rwi_argument k,
                             int64_t batch, rwi_kv_pages *pages) {
    const int64_t size = k.tensor->shape[1];
    RWI_TRY(rwi_check_tensor(call, table, (rwi_tensor_rule){2, 2, RWI_IDS}));
    RWI_TRY(rwi_check_length(call, table, 0, batch));
    *pages = (rwi_kv_pages){.num_pages = k.tensor->shape[0]};
    if (__builtin_mul_overflow(table.tensor->shape[1], size, &pages->length))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s has %lld pages a sequence, expected fewer",
                        table.name, (long long)table.tensor->shape[1]);
    pages->table = rwi_ids_view(table.tensor);
    return RW_OK;
}

rw_status rwi_check_block_table(const rwi_call *call, rwi_argument table, rwi_argument k,
                                int64_t batch, rwi_kv_pages *pages) {
    const int64_t size = k.tensor->shape[1];
    RWI_TRY(check_table(call, table, k, batch, pages));
    if (size < MIN_PAGE_SIZE || (size & (size - 1)) != 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "%s has pages of %lld positions along axis 1, expected a power of two from "
                        "%d on",
                        k.name, (long long)size, MIN_PAGE_SIZE);
    pages->shift = __builtin_ctzll((unsigned long long)size);
    return RW_OK;
}

/* v may be absent. */
static rw_status check_cache(const rwi_call *call, const rw_kv_cache *cache) {
    const rwi_argument k = {"cache.k", &cache->k}, v = {"cache.v", &cache->v};
    const rwi_tensor_rule rule = {4, 4, RWI_CACHES};
    RWI_TRY(rwi_check_tensor(call, k, rule));
    if (rwi_absent(v.tensor))
        return RW_OK;
    RWI_TRY(rwi_check_tensor(call, v, rule));
    RWI_TRY(rwi_check_same_dtype(call, v, k));
    for (int axis = 0; axis < 3; axis++)
        RWI_TRY(rwi_check_length(call, v, axis, cache->k.shape[axis]));
    return RW_OK;
}

/* ---- the places of tokens ---- */

static rw_status check_slots(const rwi_call *call, const rw_kv_append_args *args,
                             rwi_kv_targets *targets) {
    const rwi_argument slots = {"slots", &args->slots}, k = {"append.k", &args->k};
    const rw_kv_cache *cache = &args->cache;
    const int outer = args->k.rank - 2;
    const char *other = !rwi_absent(&args->offsets)        ? "offsets"
                        : args->offset != 0                ? "offset"
                        : !rwi_absent(&args->cu_seqlens)   ? "cu_seqlens"
                        : !rwi_absent(&cache->block_table) ? "cache.block_table"
                        : cache->ring != 0                 ? "cache.ring"
                                                           : NULL;
    if (other)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s is given together with slots, expected one",
                        other);
    RWI_TRY(rwi_check_tensor(call, slots, (rwi_tensor_rule){outer, outer, RWI_IDS}));
    for (int axis = 0; axis < outer; axis++)
        RWI_TRY(rwi_check_length(call, slots, axis, k.tensor->shape[axis]));
    targets->slots = rwi_ids_view(&args->slots);
    targets->pages.num_pages = cache->k.shape[0];
    if (__builtin_mul_overflow(cache->k.shape[0], cache->k.shape[1], &targets->pages.length))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "cache.k has %lld pages, expected fewer",
                        (long long)cache->k.shape[0]);
    return RW_OK;
}

/* The number of sequences of packed tokens. */
static rw_status check_cu_seqlens(const rwi_call *call, const rw_kv_append_args *args,
                                  rwi_documents *sequences) {
    const rwi_argument cu_seqlens = {"cu_seqlens", &args->cu_seqlens};
    RWI_TRY(rwi_check_tensor(call, cu_seqlens, (rwi_tensor_rule){1, 1, RWI_IDS}));
    if (args->k.rank != 3)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "cu_seqlens is given, but append.k has rank %d, expected 3: packed tokens",
                        args->k.rank);
    if (args->cu_seqlens.shape[0] < 1)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "cu_seqlens is empty, expected batch + 1 values");
    *sequences = (rwi_documents){rwi_ids_view(&args->cu_seqlens), args->cu_seqlens.shape[0] - 1};
    return RW_OK;
}

static rw_status check_positions(const rwi_call *call, const rw_kv_append_args *args, int64_t batch,
                                 rwi_kv_targets *targets) {
    static const rw_tensor absent;
    const rw_kv_cache *cache = &args->cache;
    const rwi_argument k = {"cache.k", &cache->k},
                       table = {"cache.block_table", &cache->block_table};
    const rwi_id_arguments ids = {.positions = &absent,
                                  .offsets = &args->offsets,
                                  .offset = args->offset,
                                  .batch = batch,
                                  .num_axes = 1};
    targets->pages = (rwi_kv_pages){.num_pages = cache->k.shape[0], .length = cache->k.shape[1]};
    if (!rwi_absent(table.tensor))
        RWI_TRY(check_table(call, table, k, batch, &targets->pages));
    else
        RWI_TRY(rwi_check_length(call, k, 0, batch));
    targets->ring = cache->ring;
    if (cache->ring < 0 || cache->ring > targets->pages.length)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "cache.ring is %lld, expected 0 to the %lld positions of a sequence",
                        (long long)cache->ring, (long long)targets->pages.length);
    return rwi_check_token_ids(call, &ids, &targets->positions);
}

static rw_status check_targets(const rwi_call *call, const rw_kv_append_args *args,
                               rwi_kv_targets *targets) {
    int64_t batch = args->k.rank == 4 ? args->k.shape[0] : 1;
    targets->page_size = rwi_max(1, args->cache.k.shape[1]);
    if (!rwi_absent(&args->slots))
        return check_slots(call, args, targets);
    if (!rwi_absent(&args->cu_seqlens)) {
        RWI_TRY(check_cu_seqlens(call, args, &targets->sequences));
        batch = targets->sequences.count;
    }
    return check_positions(call, args, batch, targets);
}

/* A cache tensor overlaps none of the inputs. */
static rw_status check_cache_apart(const rwi_call *call, const rw_kv_append_args *args,
                                   rwi_argument cache) {
    const rwi_argument others[] = {{"append.k", &args->k},
                                   {"append.v", &args->v},
                                   {"cache.block_table", &args->cache.block_table},
                                   {"append.offsets", &args->offsets},
                                   {"append.cu_seqlens", &args->cu_seqlens},
                                   {"append.slots", &args->slots},
                                   {"cache.k_scale", &args->cache.k_scale},
                                   {"cache.v_scale", &args->cache.v_scale}};
    RWI_TRY(rwi_check_output(call, cache));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        RWI_TRY(rwi_check_apart(call, cache, others[i], false));
    return RW_OK;
}

static rwi_kv_side kernel_side(const rw_tensor *in, const rw_tensor *cache) {
    const rw_tensor from = rwi_steppable(in), to = rwi_steppable(cache);
    rwi_kv_side side = {
        .in = from.data, .cache = to.data, .heads = in->shape[2], .width = in->shape[3]};
    for (int axis = 0; axis < 3; axis++) {
        side.in_stride[axis] = from.stride[axis];
        side.cache_stride[axis] = to.stride[axis];
    }
    return side;
}

static bool is_f8(const rw_tensor *tensor) {
    return (RWI_DTYPE_BIT(tensor->dtype) & RWI_F8) != 0;
}

/* k or v has the heads and head_dim of its cache tensor, and its dtype unless that has 8 bits. */
static rw_status check_side(const rwi_call *call, rwi_argument in, rwi_argument cache) {
    RWI_TRY(rwi_check_tensor(call, in, (rwi_tensor_rule){3, 4, RWI_FLOATS}));
    if (!is_f8(cache.tensor))
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

static rw_status check_v(const rwi_call *call, const rw_kv_append_args *args) {
    const rwi_argument k = {"append.k", &args->k}, v = {"append.v", &args->v};
    const rwi_argument cache_k = {"cache.k", &args->cache.k}, cache_v = {"cache.v", &args->cache.v};
    if (rwi_absent(v.tensor) != rwi_absent(cache_v.tensor))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s is absent, but %s is given",
                        rwi_absent(v.tensor) ? v.name : cache_v.name,
                        rwi_absent(v.tensor) ? cache_v.name : v.name);
    if (rwi_absent(v.tensor))
        return RW_OK;
    RWI_TRY(check_side(call, v, cache_v));
    RWI_TRY(check_same_tokens(call, v, k));
    RWI_TRY(check_cache_apart(call, args, cache_v));
    return rwi_check_apart(call, cache_v, cache_k, false);
}

/* The scales of a cache of 8 bits: one, or one for each head. */
static rw_status describe_scale(const rwi_call *call, rwi_argument scale, rwi_argument cache,
                                rwi_kv_side *side) {
    if (rwi_absent(scale.tensor))
        return RW_OK;
    if (rwi_absent(cache.tensor) || !is_f8(cache.tensor))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "%s is given, but %s %s, expected dtype f8_e4m3 or f8_e5m2", scale.name,
                        cache.name, rwi_absent(cache.tensor) ? "is absent" : "has another dtype");
    RWI_TRY(rwi_check_tensor(call, scale, (rwi_tensor_rule){1, 1, RWI_F32}));
    if (scale.tensor->shape[0] != 1)
        RWI_TRY(rwi_check_length(call, scale, 0, rwi_length(cache.tensor, RWI_HEADS)));
    side->scale = scale.tensor->data;
    side->scale_stride = scale.tensor->shape[0] == 1 ? 0 : scale.tensor->stride[0];
    return RW_OK;
}

static rw_status describe(const rwi_call *call, const rw_kv_append_args *args,
                          rw_kv_append_params *params) {
    const rwi_argument k = {"append.k", &args->k}, cache_k = {"cache.k", &args->cache.k};
    RWI_TRY(rwi_check_tensor(call, k, (rwi_tensor_rule){3, 4, RWI_FLOATS}));
    RWI_TRY(check_cache(call, &args->cache));
    RWI_TRY(check_targets(call, args, &params->targets));
    RWI_TRY(check_side(call, k, cache_k));
    RWI_TRY(check_cache_apart(call, args, cache_k));
    RWI_TRY(check_v(call, args));
    const rw_tensor k4 = rwi_with_rank(args->k, 4);
    params->sides[0] = kernel_side(&k4, &args->cache.k);
    if (!rwi_absent(&args->v)) {
        const rw_tensor v4 = rwi_with_rank(args->v, 4);
        params->sides[1] = kernel_side(&v4, &args->cache.v);
    }
    RWI_TRY(describe_scale(call, (rwi_argument){"cache.k_scale", &args->cache.k_scale}, cache_k,
                           &params->sides[0]));
    RWI_TRY(describe_scale(call, (rwi_argument){"cache.v_scale", &args->cache.v_scale},
                           (rwi_argument){"cache.v", &args->cache.v}, &params->sides[1]));
    params->dtype = k4.dtype;
    params->cache_dtype = args->cache.k.dtype;
    params->batch = k4.shape[0];
    params->seq = k4.shape[1];
    return RW_OK;
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

/* The norm of the heads of q (i = 0), k or v, of a width. */
static rw_status describe_head_norm(const rwi_call *call, const rw_head_norm *norm, int i,
                                    rw_rope_append_params *params) {
    const rwi_argument weights[] = {{"norm.q_weight", &norm->q_weight},
                                    {"norm.k_weight", &norm->k_weight},
                                    {"norm.v_weight", &norm->v_weight}};
    const rwi_argument weight = weights[i];
    const int64_t width = i == 2 ? params->kv.sides[1].width : params->rope.head_dim;
    rwi_head_norm *head = &params->norms[i];
    head->present = !rwi_absent(weight.tensor) || (i == 2 && norm->normalize_v);
    head->per_column = 1.0 / (double)rwi_max(1, width);
    if (i == 2 && head->present && !params->kv.sides[1].cache)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "%s is given, but append.v is absent",
                        rwi_absent(weight.tensor) ? "norm.normalize_v" : weight.name);
    if (rwi_absent(weight.tensor))
        return RW_OK;
    RWI_TRY(rwi_check_tensor(call, weight, (rwi_tensor_rule){1, 1, RWI_FLOATS}));
    RWI_TRY(rwi_check_length(call, weight, 0, width));
    head->weight = weight.tensor->data;
    head->dtype = weight.tensor->dtype;
    return RW_OK;
}

static rw_status describe_norm(const rwi_call *call, const rw_head_norm *norm,
                               rw_rope_append_params *params) {
    RWI_TRY(rwi_check_number(call, "norm.eps", norm->eps, 0.0));
    RWI_TRY(rwi_check_number(call, "norm.weight_offset", norm->weight_offset, -INFINITY));
    if (norm->eps > 1.0f)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "norm.eps is %g, expected 0 to 1",
                        (double)norm->eps);
    if ((unsigned)norm->cast > RW_NORM_CAST_AFTER_WEIGHT)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "norm.cast is %d, expected one of rw_norm_cast",
                        (int)norm->cast);
    params->norm_eps = norm->eps;
    params->norm_offset = norm->weight_offset;
    params->norm_cast_before_weight = norm->cast == RW_NORM_CAST_BEFORE_WEIGHT;
    for (int i = 0; i < 3; i++)
        RWI_TRY(describe_head_norm(call, norm, i, params));
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
                                        {"norm.k_weight", &args->norm.k_weight},
                                        {"norm.v_weight", &args->norm.v_weight}};
    const rwi_argument others[] = {k,
                                   {"append.v", &append->v},
                                   {"append.offsets", &append->offsets},
                                   {"append.cu_seqlens", &append->cu_seqlens},
                                   {"append.slots", &append->slots},
                                   {"cache.block_table", &append->cache.block_table},
                                   {"cache.k_scale", &append->cache.k_scale},
                                   {"cache.v_scale", &append->cache.v_scale},
                                   {"norm.q_weight", &args->norm.q_weight},
                                   {"norm.k_weight", &args->norm.k_weight},
                                   {"norm.v_weight", &args->norm.v_weight}};
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

/* The rotation, or none. */
static rw_status describe_rotation(const rwi_call *call, const rw_rope *rope,
                                   const rw_rope_append_args *args, rw_rope_params *params) {
    const rw_head_norm *norm = &args->norm;
    if (!rwi_absent(&args->rope.k) || !rwi_absent(&args->rope.k_out))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "rope.%s is given, expected append.k alone",
                        rwi_absent(&args->rope.k) ? "k_out" : "k");
    if (!rwi_absent(&args->append.cu_seqlens) && rope && rwi_absent(&args->rope.positions))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "append.cu_seqlens is given, but rope.positions is absent, expected both");
    if (rope)
        return rwi_rope_describe(call, rope, &args->rope, params);
    if (rwi_absent(&norm->q_weight) && rwi_absent(&norm->k_weight) && rwi_absent(&norm->v_weight) &&
        !norm->normalize_v)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "rope is NULL and norm is zero, expected one of them");
    return rwi_rope_describe_unrotated(call, &args->rope, params);
}

rw_status rw_rope_append(rw_context *context, const rw_rope *rope,
                         const rw_rope_append_args *args) {
    const rwi_call call = {context, "rw_rope_append"};
    rw_rope_append_params params = {0};
    RWI_TRY(rwi_begin(&call, args));
    RWI_TRY(describe_rotation(&call, rope, args, &params.rope));
    RWI_TRY(describe(&call, &args->append, &params.kv));
    RWI_TRY(check_together(&call, args));
    RWI_TRY(describe_norm(&call, &args->norm, &params));
    const int64_t width =
        rwi_max(params.rope.head_dim, params.norms[2].present ? params.kv.sides[1].width : 0);
    if (width > MAX_HEAD_DIM)
        return rwi_fail(&call, RW_UNSUPPORTED, "head_dim is %lld, expected at most %d",
                        (long long)width, MAX_HEAD_DIM);
    const rwi_work work = rope_append_work(&params);
    if (work.items == 0 || work.bytes_per_item == 0)
        return RW_OK;
    return rwi_finish(&call, context->backend->rope_append(context->device, &params));
}
