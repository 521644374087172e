/* rw_kv_append and rw_rope_append: buffers and the naive references. */
#include "drivers/kv_case.h"
#include "drivers/rope_reference.h"

#include <math.h>
#include <stdlib.h>

static const char *const words_layout[] = {"bshd", "bhsd", "sbhd", "thd", NULL};
static const char *const words_cache_layout[] = {"bhsd", "bshd", "hbsd", NULL};
static const char *const words_paged[] = {"none", "i32", "i64", NULL};
static const char *const words_cache_fault[] = {"none",     "before",    "past_end",
                                                "page_low", "page_high", NULL};
static const char *const words_pairing[] = {"half", "interleaved", NULL};
static const char *const words_axes[] = {"one", "mrope", NULL};
static const char *const words_cast[] = {"before", "after", NULL};
static const char *const words_norm[] = {"none", "q", "k", "both", NULL};
static const char *const words_direction[] = {"forward", "inverse", "backward", NULL};

static const rwt_field kv_fields[] = {KV_FIELDS(RWT_FIELD)};
static const rwt_field rope_append_fields[] = {ROPE_APPEND_FIELDS(RWT_FIELD)};

typedef struct kv_plan {
    rwt_view in[2]; /* k, v */
    rwt_view cache[2];
    rwt_view table;
    rwt_view offsets;
    int64_t num_pages;
    int64_t length; /* positions of a sequence */
} kv_plan;

/* The first member is a kv_plan. */
typedef struct rope_append_plan {
    kv_plan kv;
    rwt_view q;
    rwt_view q_out;
    rwt_view weight[2]; /* of q and k */
    rwt_ids ids;
    rw_rope_spec spec;
    double inv_freq[KV_MAX_FREQUENCIES];
    double attention_factor;
} rope_append_plan;

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
    if (!c->fused) {
        plan->in[0] = add_tokens(job, "k", c->heads, c->head_dim);
        plan->in[1] = add_tokens(job, "v", c->heads, c->v_dim);
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
    int64_t pages_each = c->paged ? (c->max_seq + c->page_size - 1) / c->page_size : 1;
    int64_t rows = c->paged ? c->page_size : c->max_seq;
    plan->num_pages = c->paged ? c->batch * pages_each + 3 : c->batch;
    plan->length = c->paged ? pages_each * c->page_size : c->max_seq;
    for (int side = 0; side < 2; side++) {
        rwt_layout layout = {4,
                             {plan->num_pages, rows, c->heads, side ? c->v_dim : c->head_dim},
                             orders[c->cache_layout],
                             (rwt_stride_style)c->cache_stride};
        rwt_buffer_spec spec = {.name = side ? "cache_v" : "cache_k",
                                .dtype = (rw_dtype)c->dtype,
                                .misalign = c->cache_misalign};
        plan->cache[side] = rwt_view_add(job, &layout, spec);
    }
    plan->table = rwt_view_absent;
    if (c->paged) {
        rwt_layout layout = {2, {c->batch, pages_each}, NULL, (rwt_stride_style)c->cache_stride};
        plan->table = rwt_id_view_add(job, &layout, "block_table", c->paged - 1);
    }
}

/* The first position of sequence b. */
static int64_t first_position(const rwt_job *job, const kv_case *c, const kv_plan *plan,
                              int64_t b) {
    int64_t first = c->cache_offset;
    if (plan->offsets.buffer >= 0)
        first +=
            rwt_buffer_get_id(job, plan->offsets.buffer, rwt_view_at(&plan->offsets, b, 0, 0, 0));
    return first;
}

static void add_offsets(rwt_job *job, const kv_case *c, kv_plan *plan) {
    rwt_layout layout = {1, {c->batch}, NULL, (rwt_stride_style)c->cache_stride};
    plan->offsets = rwt_view_absent;
    if (!c->cache_offsets)
        return;
    plan->offsets = rwt_id_view_add(job, &layout, "cache_offsets", c->cache_offsets - 1);
    int64_t most = plan->length - c->seq - c->cache_offset;
    for (int64_t b = 0; b < c->batch; b++) {
        int64_t offset = b == 0 ? most : rwt_random_below(&job->random, most + 1);
        if (b == c->batch - 1 && c->cache_fault == KV_FAULT_BEFORE)
            offset = -1 - c->cache_offset;
        if (b == c->batch - 1 && c->cache_fault == KV_FAULT_PAST_END)
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
    for (int64_t b = 0; b < c->batch; b++) {
        int64_t begin = first_position(job, c, plan, b);
        for (int64_t n = 0; n < plan->length / c->page_size; n++) {
            int64_t from = n * c->page_size;
            if (from + c->page_size <= begin || from >= begin + c->seq)
                continue;
            int64_t page = pages[used++];
            bool last = b == c->batch - 1 && from + c->page_size >= begin + c->seq;
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
    add_offsets(job, c, plan);
    if (c->paged)
        fill_table(job, c, plan);
}

static void add_weights(rwt_job *job, const rope_append_case *c, rope_append_plan *plan) {
    for (int i = 0; i < 2; i++) {
        plan->weight[i] = rwt_view_absent;
        if (!(c->norm & (1 + i)))
            continue;
        rwt_layout layout = {1, {c->head_dim}, NULL, RWT_CONTIGUOUS};
        rwt_buffer_spec spec = {.name = i ? "k_weight" : "q_weight",
                                .dtype = (rw_dtype)c->norm_dtype};
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

/* ---- references ---- */

static int64_t token_element(const rwt_view *view, int64_t b, int64_t s, int64_t head,
                             int64_t column) {
    if (view->rank == 3)
        return rwt_view_at(view, s, head, column, 0);
    return rwt_view_at(view, b, s, head, column);
}

/* Finds the place of a token; false where the token has a fault, with the invalid number. */
static bool find_place(const rwt_job *job, const kv_case *c, const kv_plan *plan, int64_t b,
                       int64_t s, int64_t *page, int64_t *row, rw_fault *bad) {
    int64_t position = first_position(job, c, plan, b) + s;
    *bad = (rw_fault){.kind = RW_FAULT_CACHE_POSITION, .id = position};
    *page = b;
    *row = position;
    if (position < 0 || position >= plan->length)
        return false;
    if (!c->paged)
        return true;
    *page = rwt_buffer_get_id(job, plan->table.buffer,
                              rwt_view_at(&plan->table, b, position / c->page_size, 0, 0));
    *row = position % c->page_size;
    *bad = (rw_fault){.kind = RW_FAULT_PAGE, .id = *page};
    return *page >= 0 && *page < plan->num_pages;
}

static void expect_copies(rwt_job *job, const kv_case *c, const kv_plan *plan, int side, int64_t b,
                          int64_t s, int64_t page, int64_t row) {
    const rwt_view *in = &plan->in[side], *cache = &plan->cache[side];
    for (int64_t head = 0; head < c->heads; head++)
        for (int64_t column = 0; column < (side ? c->v_dim : c->head_dim); column++)
            rwt_expect_copy(job, cache->buffer, rwt_view_at(cache, page, row, head, column),
                            in->buffer, token_element(in, b, s, head, column));
}

static void kv_reference(rwt_job *job) {
    const kv_case *c = kv_case_of(&job->c);
    const kv_plan *plan = job->plan;
    bool nothing = c->heads * (c->head_dim + c->v_dim) == 0;
    for (int64_t token = 0; !nothing && token < c->batch * c->seq; token++) {
        int64_t b = token / c->seq, s = token % c->seq, page, row;
        rw_fault bad;
        if (!find_place(job, c, plan, b, s, &page, &row, &bad)) {
            rwt_expect_fault(job, token, bad.kind, bad.id);
            continue;
        }
        expect_copies(job, c, plan, 0, b, s, page, row);
        expect_copies(job, c, plan, 1, b, s, page, row);
    }
}

/* A head of q or k: the source and destination of each column. */
typedef struct head_path {
    int in;
    int out;
    int64_t in_element; /* of column 0 */
    int64_t out_element;
    const rwt_view *weight;
} head_path;

static rwt_rounded normalised(const rwt_job *job, const rope_append_case *c, const head_path *path,
                              double factor, int64_t column) {
    rwt_rounded x = {rwt_buffer_get(job, path->in, path->in_element + column), 0.0};
    if (path->weight->buffer < 0)
        return x;
    double weight = rwt_buffer_get(job, path->weight->buffer, column) + (double)c->norm_offset;
    x.middle *= factor;
    if (c->norm_cast == RW_NORM_CAST_BEFORE_WEIGHT)
        x = rwt_round_near((rw_dtype)c->dtype, x.middle);
    return (rwt_rounded){x.middle * weight, x.reach * fabs(weight)};
}

/* The scale of a result that may be off by `reach` besides its own rounding. */
static double scale_with(double scale, double reach) {
    return scale + reach / (4.0 * rwt_dtype_epsilon(RW_F32));
}

static double head_factor(const rwt_job *job, const rope_append_case *c, const head_path *path) {
    double sum = 0.0;
    for (int64_t column = 0; column < c->head_dim; column++) {
        double x = rwt_buffer_get(job, path->in, path->in_element + column);
        sum += x * x;
    }
    return 1.0 / sqrt(sum / (double)c->head_dim + (double)1e-6f);
}

static void expect_rest(rwt_job *job, const rope_append_case *c, const head_path *path,
                        double factor) {
    for (int64_t column = 0; column < c->head_dim; column++) {
        if (column >= c->start && column < c->start + rope_append_rotary_width(c))
            continue;
        rwt_rounded x = normalised(job, c, path, factor, column);
        if (path->weight->buffer >= 0)
            rwt_expect_near(job, path->out, path->out_element + column, x.middle,
                            scale_with(fabs(x.middle), x.reach));
        else if (path->in != path->out)
            rwt_expect_copy(job, path->out, path->out_element + column, path->in,
                            path->in_element + column);
    }
}

static void expect_head(rwt_job *job, int64_t b, int64_t s, const head_path *path) {
    const rope_append_case *c = rope_append_case_of(&job->c);
    const rope_append_plan *plan = job->plan;
    double factor = head_factor(job, c, path);
    double af = plan->attention_factor;
    int64_t n = rope_append_rotary_width(c) / 2;
    double magnitude = c->direction == RW_ROPE_INVERSE ? 1.0 / af : af;
    double sign = c->direction == RW_ROPE_FORWARD ? 1.0 : -1.0;
    expect_rest(job, c, path, factor);
    for (int64_t i = 0; i < n; i++) {
        bool shared = c->positions != RWT_POSITIONS_AXES;
        int64_t axis = shared ? 0 : rwt_rope_axis(&plan->spec, i, n);
        double angle = (double)rwt_ids_at(job, &plan->ids, axis, b, s) * plan->inv_freq[i];
        double turn_cos = magnitude * cos(angle), turn_sin = sign * magnitude * sin(angle);
        bool interleaved = c->pairing == RW_ROPE_INTERLEAVED;
        int64_t column1 = c->start + (interleaved ? 2 * i : i);
        int64_t column2 = c->start + (interleaved ? 2 * i + 1 : i + n);
        rwt_rounded x1 = normalised(job, c, path, factor, column1);
        rwt_rounded x2 = normalised(job, c, path, factor, column2);
        double scale = scale_with((fabs(x1.middle) + fabs(x2.middle)) * magnitude,
                                  (x1.reach + x2.reach) * magnitude);
        rwt_expect_near(job, path->out, path->out_element + column1,
                        x1.middle * turn_cos - x2.middle * turn_sin, scale);
        rwt_expect_near(job, path->out, path->out_element + column2,
                        x2.middle * turn_cos + x1.middle * turn_sin, scale);
    }
}

/* The first rotation id of a token that is outside the table. */
static bool ids_fault(const rwt_job *job, const rope_append_case *c, int64_t b, int64_t s,
                      rw_fault *bad) {
    const rope_append_plan *plan = job->plan;
    for (int64_t axis = 0; axis < (c->axes ? 3 : 1); axis++) {
        bool shared = c->positions != RWT_POSITIONS_AXES;
        bad->kind = RW_FAULT_POSITION;
        bad->id = rwt_ids_at(job, &plan->ids, shared ? 0 : axis, b, s);
        if (bad->id < 0 || bad->id >= c->max_positions)
            return true;
    }
    return false;
}

static void rope_append_reference(rwt_job *job) {
    const rope_append_case *c = rope_append_case_of(&job->c);
    const kv_case *kv = kv_case_of(&job->c);
    const rope_append_plan *plan = job->plan;
    bool nothing = c->q_heads + c->heads == 0;
    for (int64_t token = 0; !nothing && token < c->batch * c->seq; token++) {
        int64_t b = token / c->seq, s = token % c->seq, page, row;
        rw_fault bad;
        if (ids_fault(job, c, b, s, &bad) ||
            !find_place(job, kv, &plan->kv, b, s, &page, &row, &bad)) {
            rwt_expect_fault(job, token, bad.kind, bad.id);
            continue;
        }
        for (int64_t head = 0; head < c->q_heads; head++) {
            head_path path = {plan->q.buffer, plan->q_out.buffer,
                              token_element(&plan->q, b, s, head, 0),
                              token_element(&plan->q_out, b, s, head, 0), &plan->weight[0]};
            expect_head(job, b, s, &path);
        }
        for (int64_t head = 0; head < c->heads; head++) {
            const rwt_view *k = &plan->kv.in[0], *cache = &plan->kv.cache[0];
            head_path path = {k->buffer, cache->buffer, token_element(k, b, s, head, 0),
                              rwt_view_at(cache, page, row, head, 0), &plan->weight[1]};
            expect_head(job, b, s, &path);
        }
        expect_copies(job, kv, &plan->kv, 1, b, s, page, row);
    }
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
    args->norm.eps = 1e-6f;
    args->norm.weight_offset = (float)c->norm_offset;
    args->norm.cast = (rw_norm_cast)c->norm_cast;
}

static rw_status rope_append_run(const rwt_binding *binding, const void *args) {
    return rw_rope_append(binding->context, binding->objects[0], args);
}

static double kv_elements(const rwt_job *job) {
    const kv_case *c = kv_case_of(&job->c);
    return (double)(c->batch * c->seq * c->heads * (c->head_dim + c->v_dim));
}

static double kv_bytes(const rwt_job *job) {
    return 2.0 * kv_elements(job) * (double)rw_dtype_size((rw_dtype)kv_case_of(&job->c)->dtype);
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
