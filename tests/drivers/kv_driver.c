/* rw_kv_append and rw_rope_append: buffers and bindings. */
#include "drivers/kv_case.h"
#include "drivers/rope_reference.h"

#include <math.h>
#include <stdlib.h>

static const char *const words_layout[] = {"bshd", "bhsd", "sbhd", "thd", NULL};
static const char *const words_cache_layout[] = {"bhsd", "bshd", "hbsd", NULL};
static const char *const words_paged[] = {"none", "i32", "i64", NULL};
static const char *const words_cache_fault[] = {
    "none", "before", "past_end", "page_low", "page_high", "slot_low", "slot_high", "bound", NULL};
static const char *const words_cache_dtype[] = {"same", "f8_e4m3", "f8_e5m2", NULL};
static const char *const words_scales[] = {"none", "one", "heads", NULL};
static const char *const words_pairing[] = {"half", "interleaved", NULL};
static const char *const words_axes[] = {"one", "mrope", NULL};
static const char *const words_cast[] = {"before", "after", NULL};
static const char *const words_norm[] = {"none", "q", "k", "both", NULL};
static const char *const words_v_norm[] = {"none", "weight", "plain", NULL};
static const char *const words_direction[] = {"forward", "inverse", "backward", NULL};

static const rwt_field kv_fields[] = {KV_FIELDS(RWT_FIELD)};
static const rwt_field rope_append_fields[] = {ROPE_APPEND_FIELDS(RWT_FIELD)};

/* ---- buffers ---- */

static rwt_layout token_layout(const kv_case *c, int64_t heads, int64_t width) {
    static const int orders[][RW_MAX_RANK] = {
        {0, 1, 2, 3}, {0, 2, 1, 3}, {1, 0, 2, 3}, {0, 1, 2, 0}};
    rwt_stride_style style = (rwt_stride_style)c->stride;
    if (c->layout == KV_LAYOUT_THD)
        return (rwt_layout){3, {c->seq, heads, width}, orders[c->layout], style};
    return (rwt_layout){4, {c->batch, c->seq, heads, width}, orders[c->layout], style};
}

static rwt_view add_tokens(rwt_job *job, const char *name, int64_t heads, int64_t width) {
    const kv_case *c = kv_case_of(&job->c);
    rwt_layout layout = token_layout(c, heads, width);
    rwt_buffer_spec spec = {.name = name, .dtype = (rw_dtype)c->dtype, .misalign = c->misalign};
    return rwt_view_add(job, &layout, spec);
}

static void add_inputs(rwt_job *job, const kv_case *c, kv_plan *plan) {
    plan->in[1] = rwt_view_absent;
    if (!c->fused) {
        plan->in[0] = add_tokens(job, "k", c->heads, c->head_dim);
        if (!c->no_v)
            plan->in[1] = add_tokens(job, "v", c->heads, c->v_dim);
        if (!c->no_v)
            rwt_buffer_fill(job, plan->in[1].buffer, (rwt_values)c->values);
    } else {
        plan->in[0] = add_tokens(job, "kv", 2 * c->heads, c->head_dim);
        plan->in[1] = plan->in[0];
        int axis = plan->in[0].rank - 2;
        plan->in[0].shape[axis] = plan->in[1].shape[axis] = c->heads;
        plan->in[1].offset += c->heads * plan->in[1].stride[axis];
    }
    rwt_buffer_fill(job, plan->in[0].buffer, (rwt_values)c->values);
}

static void add_cache(rwt_job *job, const kv_case *c, kv_plan *plan) {
    static const int orders[][RW_MAX_RANK] = {{0, 2, 1, 3}, {0, 1, 2, 3}, {2, 0, 1, 3}};
    bool pages = c->paged || c->slots;
    int64_t pages_each = pages ? (c->max_seq + c->page_size - 1) / c->page_size : 1;
    int64_t rows = pages ? c->page_size : c->max_seq;
    plan->num_pages = pages ? kv_sequences(c) * pages_each + 3 : kv_sequences(c);
    plan->length = pages ? pages_each * c->page_size : c->max_seq;
    if (c->slots)
        plan->length = plan->num_pages * c->page_size;
    plan->cache[1] = rwt_view_absent;
    for (int side = 0; side < (c->no_v ? 1 : 2); side++) {
        rwt_layout layout = {4,
                             {plan->num_pages, rows, c->heads, side ? c->v_dim : c->head_dim},
                             orders[c->cache_layout],
                             (rwt_stride_style)c->cache_stride};
        rwt_buffer_spec spec = {.name = side ? "cache_v" : "cache_k",
                                .dtype = kv_cache_dtype(c),
                                .misalign = c->cache_misalign};
        plan->cache[side] = rwt_view_add(job, &layout, spec);
    }
    plan->table = rwt_view_absent;
    if (c->paged) {
        rwt_layout layout = {
            2, {kv_sequences(c), pages_each}, NULL, (rwt_stride_style)c->cache_stride};
        plan->table = rwt_id_view_add(job, &layout, "block_table", c->paged - 1);
    }
}

/* Small enough that some numbers saturate. */
static void add_scales(rwt_job *job, const kv_case *c, kv_plan *plan) {
    for (int side = 0; side < 2; side++) {
        rwt_layout layout = {
            1, {c->scales == KV_SCALES_HEADS ? c->heads : 1}, NULL, RWT_CONTIGUOUS};
        rwt_buffer_spec spec = {.name = side ? "v_scale" : "k_scale", .dtype = RW_F32};
        plan->scale[side] = rwt_view_absent;
        if (!c->scales || (side == 1 && c->no_v))
            continue;
        plan->scale[side] = rwt_view_add(job, &layout, spec);
        for (int64_t head = 0; head < layout.shape[0]; head++)
            rwt_buffer_set(job, plan->scale[side].buffer, head,
                           exp2(rwt_random_uniform(&job->random, -9.0, 3.0)));
    }
}

static int compare_ids(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Random bounds; sequences may be empty. */
static void add_cu_seqlens(rwt_job *job, const kv_case *c, kv_plan *plan) {
    rwt_layout layout = {1, {c->sequences + 1}, NULL, (rwt_stride_style)c->stride};
    plan->cu_seqlens = rwt_view_absent;
    if (!c->sequences)
        return;
    int64_t *bounds = rwt_allocate((size_t)(c->sequences + 1) * sizeof *bounds);
    int64_t first = c->cache_fault == KV_FAULT_BOUND, end = c->seq - c->padding;
    for (int64_t b = 0; b < c->sequences; b++)
        bounds[b] = first + rwt_random_below(&job->random, end - first + 1);
    bounds[0] = first;
    bounds[c->sequences] = end;
    qsort(bounds, (size_t)c->sequences, sizeof *bounds, compare_ids);
    plan->cu_seqlens = rwt_id_view_add(job, &layout, "cu_seqlens", c->cu_dtype);
    for (int64_t b = 0; b <= c->sequences; b++)
        rwt_buffer_set_id(job, plan->cu_seqlens.buffer, rwt_view_at(&plan->cu_seqlens, b, 0, 0, 0),
                          bounds[b]);
    free(bounds);
}

/* Different slots in random order, about every fourth -1. */
static void add_slots(rwt_job *job, const kv_case *c, kv_plan *plan) {
    rwt_layout layout = {2, {c->batch, c->seq}, NULL, (rwt_stride_style)c->stride};
    plan->slots = rwt_view_absent;
    if (!c->slots)
        return;
    if (c->layout == KV_LAYOUT_THD)
        layout = (rwt_layout){1, {c->seq}, NULL, layout.style};
    plan->slots = rwt_id_view_add(job, &layout, "slots", c->slots - 1);
    int64_t *slots = rwt_allocate((size_t)plan->length * sizeof *slots);
    for (int64_t i = 0; i < plan->length; i++) {
        int64_t other = rwt_random_below(&job->random, i + 1);
        slots[i] = slots[other];
        slots[other] = i;
    }
    for (int64_t token = 0; token < c->batch * c->seq; token++) {
        int64_t slot = rwt_random_below(&job->random, 4) ? slots[token] : -1;
        bool last = token == c->batch * c->seq - 1;
        if (last && c->cache_fault == KV_FAULT_SLOT_LOW)
            slot = -2;
        if (last && c->cache_fault == KV_FAULT_SLOT_HIGH)
            slot = plan->length;
        rwt_buffer_set_id(job, plan->slots.buffer,
                          kv_slot_element(plan, token / c->seq, token % c->seq), slot);
    }
    free(slots);
}

static void add_offsets(rwt_job *job, const kv_case *c, kv_plan *plan) {
    const int64_t batch = kv_sequences(c);
    rwt_layout layout = {1, {batch}, NULL, (rwt_stride_style)c->cache_stride};
    plan->offsets = rwt_view_absent;
    if (!c->cache_offsets)
        return;
    plan->offsets = rwt_id_view_add(job, &layout, "cache_offsets", c->cache_offsets - 1);
    int64_t most = c->ring ? 1000000 : plan->length - c->seq - c->cache_offset;
    for (int64_t b = 0; b < batch; b++) {
        int64_t offset = b == 0 ? most : rwt_random_below(&job->random, most + 1);
        if (b == batch - 1 && c->cache_fault == KV_FAULT_BEFORE)
            offset = -1 - c->cache_offset;
        if (b == batch - 1 && c->cache_fault == KV_FAULT_PAST_END)
            offset = most + 1;
        rwt_buffer_set_id(job, plan->offsets.buffer, rwt_view_at(&plan->offsets, b, 0, 0, 0),
                          offset);
    }
}

/* Pages in random order; entries that no token needs stay poisoned. */
static void fill_table(rwt_job *job, const kv_case *c, const kv_plan *plan) {
    int64_t *pages = rwt_allocate((size_t)plan->num_pages * sizeof *pages);
    for (int64_t i = 0; i < plan->num_pages; i++) {
        int64_t other = rwt_random_below(&job->random, i + 1);
        pages[i] = pages[other];
        pages[other] = i;
    }
    int64_t used = 0;
    for (int64_t b = 0; b < kv_sequences(c); b++) {
        int64_t begin = kv_first_position(job, b);
        int64_t end = begin + kv_count_tokens(job, b);
        for (int64_t n = 0; n < plan->length / c->page_size; n++) {
            int64_t from = n * c->page_size;
            if (!c->ring && (from + c->page_size <= begin || from >= end))
                continue;
            int64_t page = pages[used++];
            bool last = b == c->batch - 1 && from + c->page_size >= end;
            if (last && c->cache_fault == KV_FAULT_PAGE_LOW)
                page = -1;
            if (last && c->cache_fault == KV_FAULT_PAGE_HIGH)
                page = plan->num_pages;
            rwt_buffer_set_id(job, plan->table.buffer, rwt_view_at(&plan->table, b, n, 0, 0), page);
        }
    }
    free(pages);
}

static void kv_fill(rwt_job *job) {
    const kv_case *c = kv_case_of(&job->c);
    kv_plan *plan = job->plan;
    add_inputs(job, c, plan);
    add_cache(job, c, plan);
    add_scales(job, c, plan);
    add_cu_seqlens(job, c, plan);
    add_slots(job, c, plan);
    add_offsets(job, c, plan);
    if (c->paged)
        fill_table(job, c, plan);
}

static void add_weights(rwt_job *job, const rope_append_case *c, rope_append_plan *plan) {
    static const char *const names[] = {"q_weight", "k_weight", "v_weight"};
    for (int i = 0; i < 3; i++) {
        plan->weight[i] = rwt_view_absent;
        if (i == 2 ? c->v_norm != KV_V_NORM_WEIGHT : !(c->norm & (1 + i)))
            continue;
        rwt_layout layout = {1, {i == 2 ? c->v_dim : c->head_dim}, NULL, RWT_CONTIGUOUS};
        rwt_buffer_spec spec = {.name = names[i], .dtype = (rw_dtype)c->norm_dtype};
        plan->weight[i] = rwt_view_add(job, &layout, spec);
        rwt_buffer_fill(job, plan->weight[i].buffer, RWT_ORDINARY);
    }
}

static void rope_append_fill(rwt_job *job) {
    const rope_append_case *c = rope_append_case_of(&job->c);
    rope_append_plan *plan = job->plan;
    int64_t n = rope_append_rotary_width(c) / 2;
    kv_fill(job);
    plan->q = add_tokens(job, "q", c->q_heads, c->head_dim);
    rwt_buffer_fill(job, plan->q.buffer, (rwt_values)c->values);
    plan->q_out = plan->q;
    if (c->placement == RWT_OUT_OF_PLACE)
        plan->q_out = add_tokens(job, "q_out", c->q_heads, c->head_dim);
    add_weights(job, c, plan);
    plan->ids = (rwt_ids){rwt_view_absent, rwt_view_absent, 0, false};
    if (!c->rotate)
        return;
    plan->spec = (rw_rope_spec){
        .type = c->yarn ? RW_ROPE_YARN : RW_ROPE_DEFAULT,
        .pairing = (rw_rope_pairing)c->pairing,
        .head_dim = c->head_dim,
        .rotary_start = c->start,
        .rotary_dim = c->rotary_dim,
        .max_position_embeddings = 4096,
        .original_max_position_embeddings = 1024,
        .factor = c->yarn ? 4.0 : 0.0,
        .axes = c->axes ? RW_ROPE_AXES_MROPE_CHUNKED : RW_ROPE_AXES_ONE,
    };
    if (c->axes) {
        plan->spec.sections[1] = plan->spec.sections[2] = n / 3;
        plan->spec.sections[0] = n - 2 * (n / 3);
    }
    rwt_rope_frequencies(&plan->spec, 0, plan->inv_freq, &plan->attention_factor);
    rwt_id_shape shape = {c->batch, c->seq, c->axes ? 3 : 1, c->layout == KV_LAYOUT_THD,
                          c->max_positions};
    plan->ids = rwt_ids_add(job, rope_append_id_fields(c), &shape);
}

/* ---- the operations ---- */

static void bind_append(const rwt_job *job, rwt_set *set, rw_kv_append_args *args) {
    const kv_plan *plan = job->plan;
    args->k = rwt_tensor(job, set, &plan->in[0]);
    args->v = rwt_tensor(job, set, &plan->in[1]);
    args->cache.k = rwt_tensor(job, set, &plan->cache[0]);
    args->cache.v = rwt_tensor(job, set, &plan->cache[1]);
    args->cache.block_table = rwt_tensor(job, set, &plan->table);
    args->offsets = rwt_tensor(job, set, &plan->offsets);
    args->offset = kv_case_of(&job->c)->cache_offset;
    args->cache.ring = kv_case_of(&job->c)->ring;
    args->cu_seqlens = rwt_tensor(job, set, &plan->cu_seqlens);
    args->slots = rwt_tensor(job, set, &plan->slots);
    args->cache.k_scale = rwt_tensor(job, set, &plan->scale[0]);
    args->cache.v_scale = rwt_tensor(job, set, &plan->scale[1]);
}

static void kv_bind(const rwt_job *job, rwt_set *set) {
    bind_append(job, set, set->args);
}

static rw_status kv_run(const rwt_binding *binding, const void *args) {
    return rw_kv_append(binding->context, args);
}

static rw_status rope_append_open(rwt_binding *binding) {
    const rope_append_plan *plan = binding->job->plan;
    rw_rope_options options = {
        .spec = plan->spec, .max_positions = rope_append_case_of(&binding->job->c)->max_positions};
    rw_rope *rope = NULL;
    if (!rope_append_case_of(&binding->job->c)->rotate)
        return RW_OK;
    rw_status status = rw_rope_create(binding->context, &options, &rope);
    binding->objects[0] = rope;
    return status;
}

static void rope_append_close(rwt_binding *binding) {
    rw_rope_destroy(binding->objects[0]);
}

static void rope_append_bind(const rwt_job *job, rwt_set *set) {
    const rope_append_case *c = rope_append_case_of(&job->c);
    const rope_append_plan *plan = job->plan;
    rw_rope_append_args *args = set->args;
    bind_append(job, set, &args->append);
    args->rope.q = rwt_tensor(job, set, &plan->q);
    if (c->placement != RWT_IN_PLACE)
        args->rope.q_out = rwt_tensor(job, set, &plan->q_out);
    args->rope.positions = rwt_tensor(job, set, &plan->ids.positions);
    args->rope.offsets = rwt_tensor(job, set, &plan->ids.offsets);
    args->rope.offset = plan->ids.offset;
    args->rope.direction = (rw_rope_direction)c->direction;
    args->norm.q_weight = rwt_tensor(job, set, &plan->weight[0]);
    args->norm.k_weight = rwt_tensor(job, set, &plan->weight[1]);
    args->norm.v_weight = rwt_tensor(job, set, &plan->weight[2]);
    args->norm.normalize_v = c->v_norm == KV_V_NORM_PLAIN;
    args->norm.eps = 1e-6f;
    args->norm.weight_offset = (float)c->norm_offset;
    args->norm.cast = (rw_norm_cast)c->norm_cast;
}

static rw_status rope_append_run(const rwt_binding *binding, const void *args) {
    return rw_rope_append(binding->context, binding->objects[0], args);
}

static double kv_elements(const rwt_job *job) {
    const kv_case *c = kv_case_of(&job->c);
    return (double)(c->batch * c->seq * c->heads * (c->head_dim + (c->no_v ? 0 : c->v_dim)));
}

static double kv_bytes(const rwt_job *job) {
    const kv_case *c = kv_case_of(&job->c);
    return kv_elements(job) *
           (double)(rw_dtype_size((rw_dtype)c->dtype) + rw_dtype_size(kv_cache_dtype(c)));
}

static double no_flops(const rwt_job *job) {
    (void)job;
    return 0.0;
}

static double q_elements(const rwt_job *job) {
    const rope_append_case *c = rope_append_case_of(&job->c);
    return (double)(c->batch * c->seq * c->q_heads * c->head_dim);
}

static double rope_append_bytes(const rwt_job *job) {
    rw_dtype dtype = (rw_dtype)kv_case_of(&job->c)->dtype;
    return kv_bytes(job) + 2.0 * q_elements(job) * (double)rw_dtype_size(dtype);
}

static double rope_append_flops(const rwt_job *job) {
    return 3.0 * (q_elements(job) + kv_elements(job) / 2.0);
}

const rwt_driver rwt_kv_append_driver = {
    .name = "kv_append",
    .fields = kv_fields,
    .num_fields = RWT_COUNT(kv_fields),
    .rows = kv_rows,
    .random = kv_random,
    .num_random = 200,
    .benchmarks = kv_benchmarks,
    .plan_size = sizeof(kv_plan),
    .args_size = sizeof(rw_kv_append_args),
    .invalid = kv_invalid,
    .fill = kv_fill,
    .reference = kv_reference,
    .bind = kv_bind,
    .run = kv_run,
    .bytes = kv_bytes,
    .flops = no_flops,
};

const rwt_driver rwt_rope_append_driver = {
    .name = "rope_append",
    .fields = rope_append_fields,
    .num_fields = RWT_COUNT(rope_append_fields),
    .rows = rope_append_rows,
    .random = rope_append_random,
    .num_random = 300,
    .benchmarks = rope_append_benchmarks,
    .plan_size = sizeof(rope_append_plan),
    .args_size = sizeof(rw_rope_append_args),
    .invalid = rope_append_invalid,
    .fill = rope_append_fill,
    .reference = rope_append_reference,
    .open = rope_append_open,
    .close = rope_append_close,
    .bind = rope_append_bind,
    .run = rope_append_run,
    .bytes = rope_append_bytes,
    .flops = rope_append_flops,
};
