/* rw_attention: buffers and calls. */
#include <math.h>
#include <stdlib.h>

#include "drivers/attention_case.h"

const char *const rwt_attention_words_layout[] = {"bhsd", "bshd", "hbsd", "thd", NULL};
const char *const rwt_attention_words_mask[] = {"none", "full", "keys", NULL};
const char *const rwt_attention_words_alibi[] = {"none", "absolute", "signed", NULL};
const char *const rwt_attention_words_one_nan[] = {"none", "v", "k", "q", NULL};
const char *const rwt_attention_words_paged[] = {"none", "i32", "i64", NULL};
const char *const rwt_attention_words_page_fault[] = {"none", "low", "high", NULL};

const char *const rwt_attention_words_bounds_fault[] = {"none", "down", "past", "first",
                                                        "long", "keys", NULL};

const char *const rwt_attention_words_kv_dtype[] = {"same", "f8_e4m3", "f8_e5m2", NULL};
const char *const rwt_attention_words_kv_scale[] = {"none", "one", "heads", NULL};

const char *const rwt_attention_words_extreme[] = {"none",  "mask_1e9", "mask_1e10", "mask_lowest",
                                                   "scale", "products", "large",     "small",
                                                   "sink",  NULL};

const char *const rwt_attention_words_products[] = {"exact", "split", NULL};

static const rwt_field attention_fields[] = {ATTENTION_FIELDS(RWT_FIELD, 0)};
static const rwt_field combine_fields[] = {ATTENTION_FIELDS(RWT_FIELD, 1)};

typedef struct attention_call {
    rw_attention_args args;
    rw_pattern pattern;
    rw_alibi alibi;
} attention_call;

/* ---- buffers ---- */

/* [outer, seq, heads, width]: outer is the batch, or pages. */
static rwt_view add_outer(rwt_job *job, const char *name, rw_dtype dtype, int64_t outer,
                          int64_t seq, int64_t heads, int64_t width) {
    static const int orders[][RW_MAX_RANK] = {
        {0, 2, 1, 3}, {0, 1, 2, 3}, {2, 0, 1, 3}, {0, 1, 2, 3}};
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    rwt_layout layout = {
        4, {outer, seq, heads, width}, orders[c->layout], (rwt_stride_style)c->stride};
    rwt_buffer_spec spec = {.name = name, .dtype = dtype, .misalign = c->misalign};
    return rwt_view_add(job, &layout, spec);
}

static rwt_view add(rwt_job *job, const char *name, int64_t seq, int64_t heads, int64_t width) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    return add_outer(job, name, (rw_dtype)c->dtype, c->ragged ? 1 : c->batch, seq, heads, width);
}

static rw_dtype kv_dtype_of(const rwt_attention_case *c) {
    return c->kv_dtype == 0 ? (rw_dtype)c->dtype : c->kv_dtype == 1 ? RW_F8_E4M3 : RW_F8_E5M2;
}

/* From 1/4 to 2, and not powers of two; some are negative. */
static rwt_view add_scale(rwt_job *job, const rwt_attention_case *c, const char *name) {
    rwt_layout layout = {1, {c->kv_scale == 1 ? 1 : c->heads / c->group}, NULL, RWT_CONTIGUOUS};
    rwt_buffer_spec spec = {.name = name, .dtype = RW_F32};
    if (!c->kv_scale)
        return rwt_view_absent;
    rwt_view view = rwt_view_add(job, &layout, spec);
    for (int64_t n = 0; n < layout.shape[0]; n++) {
        const double sign = rwt_random_below(&job->random, 4) == 0 ? -1.0 : 1.0;
        rwt_buffer_set(job, view.buffer, n, sign * rwt_random_uniform(&job->random, 0.25, 2.0));
    }
    return view;
}

/* The first columns of k. */
static rwt_view view_of(rwt_view k, int64_t columns) {
    k.shape[3] = columns;
    return k;
}

static void add_table(rwt_job *job, const rwt_attention_case *c, rwt_attention_plan *plan) {
    rwt_layout layout = {
        2, {c->batch, rwt_attention_pages_each(c)}, NULL, (rwt_stride_style)c->stride};
    plan->table = rwt_view_absent;
    if (!c->paged)
        return;
    plan->table = rwt_id_view_add(job, &layout, "block_table", c->paged - 1);
    int64_t *pages = rwt_allocate((size_t)rwt_attention_num_pages(c) * sizeof *pages), used = 0;
    for (int64_t i = 0; i < rwt_attention_num_pages(c); i++) {
        int64_t other = rwt_random_below(&job->random, i + 1);
        pages[i] = pages[other];
        pages[other] = i;
    }
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t n = 0; n < rwt_attention_pages_each(c); n++)
            rwt_buffer_set_id(job, plan->table.buffer, rwt_view_at(&plan->table, b, n, 0, 0),
                              pages[used++]);
    free(pages);
}

static void add_outputs(rwt_job *job, const rwt_attention_case *c, rwt_attention_plan *plan) {
    static const int heads_last[RW_MAX_RANK] = {0, 2, 1};
    rwt_layout lse = {3,
                      {c->ragged ? 1 : c->batch, c->heads, plan->tokens},
                      c->lse == LSE_HEADS_LAST ? heads_last : NULL,
                      (rwt_stride_style)c->stride};
    rwt_buffer_spec spec = {.name = "lse", .dtype = RW_F32};
    plan->out = add(job, "out", plan->tokens, c->heads, c->v_dim);
    rwt_buffer *out = &job->buffers[plan->out.buffer];
    if (c->out_dtype != c->dtype) { /* poison again, in its own dtype */
        free(out->initial);
        job->num_buffers--;
        rwt_buffer_spec again = {.name = "out",
                                 .dtype = (rw_dtype)c->out_dtype,
                                 .elements = out->elements,
                                 .misalign = c->misalign};
        plan->out.buffer = rwt_buffer_add(job, &again);
    }
    plan->lse = c->lse ? rwt_view_add(job, &lse, spec) : rwt_view_absent;
}

static double extreme_mask(const rwt_attention_case *c) {
    static const double lowest[] = {
        [RW_F32] = -0x1.fffffep127, [RW_F16] = -65504.0, [RW_BF16] = -0x1.fep127};
    if (c->extreme == EXTREME_MASK_LOWEST)
        return lowest[c->dtype];
    return c->extreme == EXTREME_MASK_1E9 ? -1e9 : -1e10;
}

/* Fills a mask with typical values. */
static void add_mask(rwt_job *job, const rwt_attention_case *c, rwt_attention_plan *plan) {
    static const double values[] = {0.0, 0.0, -INFINITY, -1e4, -3.25, 1.5};
    bool full = c->mask == 1;
    /* Contiguous rows of 16-bit elements can be read two elements at a time. */
    bool contiguous = c->mask_dtype != RW_F32 && c->stride == RWT_CONTIGUOUS;
    rwt_layout layout = {4,
                         {c->batch, full ? c->heads : 1, full ? plan->tokens : 1, plan->keys},
                         NULL,
                         contiguous ? RWT_CONTIGUOUS : RWT_GAPS};
    bool lowest = c->extreme == EXTREME_MASK_LOWEST;
    plan->mask = rwt_view_absent;
    if (!c->mask)
        return;
    plan->mask = rwt_mask_view_add(job, &layout, "mask", lowest ? c->dtype : c->mask_dtype);
    const double extreme[] = {extreme_mask(c)};
    if (c->extreme)
        rwt_mask_fill(job, &plan->mask, extreme, 1);
    else
        rwt_mask_fill(job, &plan->mask, values, RWT_COUNT(values));
}

static rwt_view add_head_values(rwt_job *job, const char *name, bool given) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    rwt_layout layout = {1, {c->heads}, NULL, RWT_CONTIGUOUS};
    rwt_buffer_spec spec = {.name = name, .dtype = RW_F32};
    if (!given)
        return rwt_view_absent;
    rwt_view view = rwt_view_add(job, &layout, spec);
    rwt_buffer_fill(job, view.buffer, RWT_ORDINARY);
    return view;
}

/* Columns 0 and 1 of a query where scores are extreme; the others are 0. */
static void extreme_query(const rwt_attention_case *c, double q[2]) {
    q[0] = c->extreme == EXTREME_PRODUCTS ? 0x1p15
           : c->extreme == EXTREME_LARGE  ? 0x1p12
           : c->extreme == EXTREME_SMALL  ? 16.75
                                          : 0.0;
    q[1] = 1.0;
}

/* The same for key j. */
static void extreme_key(const rwt_attention_case *c, int64_t j, double k[2]) {
    k[0] = c->extreme == EXTREME_PRODUCTS ? 0x1p15
           : c->extreme == EXTREME_LARGE  ? 0x1p12
           : c->extreme == EXTREME_SMALL  ? (j == 0 ? 0.0 : -1.0)
                                          : 1.0;
    k[1] = c->extreme == EXTREME_LARGE && j % 7 == 3 ? 2.0 : 0.0;
}

/* Value `d` of key j where all weights except that of key 0 are small: their terms are added to 0,
 * to a sum of about 1 or less, and to 1 or more, where each term is less than 1 ulp. */
static double small_value(int64_t j, int64_t d) {
    static const double first[] = {0.0, 1.0, 1.0, 1.75}, others[] = {1.0, -1.0, 1.0, 2.0};
    return j == 0 ? first[d % 4] : others[d % 4];
}

/* The sinks, and the factor of v: results are normal, weights times 1 are subnormal or 0 in f32. */
static double extreme_sink(const rwt_attention_case *c) {
    return c->dtype == RW_F16 ? 100.0 : 150.0;
}

static double large_value(const rwt_attention_case *c) {
    return c->dtype == RW_F16 ? 0x1p14 : 0x1p100;
}

static void multiply(rwt_job *job, int buffer, double factor) {
    for (int64_t n = 0; n < job->buffers[buffer].elements; n++)
        rwt_buffer_set(job, buffer, n, rwt_buffer_get(job, buffer, n) * factor);
}

static void set_all(rwt_job *job, int buffer, double value) {
    for (int64_t n = 0; n < job->buffers[buffer].elements; n++)
        rwt_buffer_set(job, buffer, n, value);
}

static void make_extreme(rwt_job *job, const rwt_attention_case *c,
                         const rwt_attention_plan *plan) {
    double q[2], k[2];
    extreme_query(c, q);
    for (int64_t b = 0; b < c->batch; b++) {
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t i = 0; i < c->seq_q; i++)
                for (int64_t d = 0; d < c->head_dim; d++)
                    rwt_buffer_set(job, plan->q.buffer, rwt_view_at(&plan->q, b, i, h, d),
                                   d < 2 ? q[d] : 0.0);
        for (int64_t h = 0; h < c->heads / c->group; h++)
            for (int64_t j = 0; j < c->seq_k; j++) {
                extreme_key(c, j, k);
                for (int64_t d = 0; d < c->head_dim; d++)
                    rwt_buffer_set(job, plan->k.buffer,
                                   rwt_attention_key_at(job, &plan->k, b, h, j, d),
                                   d < 2 ? k[d] : 0.0);
                for (int64_t d = 0; c->extreme == EXTREME_SMALL && d < c->v_dim; d++)
                    rwt_buffer_set(job, plan->v.buffer,
                                   rwt_attention_key_at(job, &plan->v, b, h, j, d),
                                   small_value(j, d));
            }
    }
}

/* Sets columns of key j to NaN. */
static void set_nan(rwt_job *job, const rwt_view *view, int64_t b, int64_t h, int64_t j,
                    int64_t columns) {
    for (int64_t column = 0; column < columns; column++)
        rwt_buffer_set(job, view->buffer, rwt_attention_key_at(job, view, b, h, j, column), NAN);
}

static bool seen_by_any(const rwt_job *job, int64_t b, int64_t j) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    const rwt_attention_plan *plan = job->plan;
    for (int64_t i = 0; i < rwt_pattern_seq_q(&plan->pattern, b); i++) {
        rw_pattern_pair pair = {b, i, j};
        if (rwt_pattern_sees(job, rwt_attention_pattern_of(c), &plan->pattern, &pair))
            return true;
    }
    return false;
}

static void set_nans(rwt_job *job, const rwt_attention_case *c, const rwt_attention_plan *plan) {
    for (int64_t b = 0; c->poison && b < c->batch; b++)
        for (int64_t j = 0; j < rwt_pattern_seq_k(&plan->pattern, b); j++)
            for (int64_t h = 0; h < c->heads / c->group && !seen_by_any(job, b, j); h++) {
                set_nan(job, &plan->k, b, h, j, c->head_dim);
                set_nan(job, &plan->v, b, h, j, c->v_dim);
            }
    if (!c->one_nan || c->batch == 0 || c->heads == 0 || c->seq_q == 0)
        return;
    if (c->one_nan == NAN_IN_Q) {
        rwt_buffer_set(job, plan->q.buffer, rwt_view_at(&plan->q, 0, 0, 0, 0), NAN);
        return;
    }
    for (int64_t j = rwt_pattern_seq_k(&plan->pattern, 0) - 1; j >= 0; j--) {
        rw_pattern_pair pair = {0, 0, j};
        if (!rwt_pattern_sees(job, rwt_attention_pattern_of(c), &plan->pattern, &pair))
            continue;
        set_nan(job, c->one_nan == NAN_IN_V ? &plan->v : &plan->k, 0, 0, j, 1);
        return;
    }
}

/* Sets page numbers that no query needs to invalid values, and one that is needed if the case
 * requests a fault. */
static void invalidate_pages(rwt_job *job, const rwt_attention_case *c,
                             const rwt_attention_plan *plan) {
    if (!c->paged || rwt_attention_has_cells(c) || c->pattern_at_fault)
        return;
    for (int64_t b = 0; b < c->batch; b++) {
        rwt_attention_hull all = {c->seq_k, 0};
        for (int64_t i = 0; i < rwt_pattern_seq_q(&plan->pattern, b); i++) {
            rwt_attention_hull seen = rwt_attention_hull_of(job, b, i);
            if (seen.end == 0)
                continue;
            all.begin = seen.begin < all.begin ? seen.begin : all.begin;
            all.end = seen.end > all.end ? seen.end : all.end;
        }
        for (int64_t n = 0; n < rwt_attention_pages_each(c); n++) {
            bool needed = n * c->page_size < all.end && (n + 1) * c->page_size > all.begin;
            bool last = b == c->batch - 1 && n == (all.end - 1) / c->page_size;
            int64_t page = c->page_fault == 1 || !needed ? -1 : rwt_attention_num_pages(c);
            if (!needed || (last && c->page_fault))
                rwt_buffer_set_id(job, plan->table.buffer, rwt_view_at(&plan->table, b, n, 0, 0),
                                  page);
        }
    }
}

/* A part has at least 256 keys. */
static void add_workspace(rwt_job *job, const rwt_attention_case *c, rwt_attention_plan *plan) {
    int64_t parts = plan->keys / 256 + 1;
    int64_t rows = (c->ragged ? 1 : c->batch) * c->heads * plan->tokens;
    int64_t v_dim = (c->v_dim + 3) / 4 * 4;
    rwt_layout layout = {1, {4 * parts * rows * (v_dim + 2)}, NULL, RWT_CONTIGUOUS};
    rwt_buffer_spec spec = {.name = "workspace", .dtype = RW_U8, .scratch = true};
    plan->workspace = c->split ? rwt_view_add(job, &layout, spec) : rwt_view_absent;
}

/* Lengths of sequences: the first has the most. Some are 0; the last one has queries. */
static int64_t draw_length(rwt_job *job, int64_t b, int64_t most, bool least) {
    return b == 0 ? most : rwt_random_below(&job->random, most + 1 - least) + least;
}

static rwt_view add_bounds(rwt_job *job, const rwt_attention_case *c, const char *name,
                           const int64_t *bounds) {
    rwt_layout layout = {1, {c->batch + 1}, NULL, (rwt_stride_style)c->stride};
    rwt_view view = rwt_id_view_add(job, &layout, name, c->ragged - 1);
    for (int64_t b = 0; b <= c->batch; b++)
        rwt_buffer_set_id(job, view.buffer, rwt_view_at(&view, b, 0, 0, 0), bounds[b]);
    return view;
}

static void set_bound(rwt_job *job, const rwt_view *view, int64_t n, int64_t bound) {
    rwt_buffer_set_id(job, view->buffer, rwt_view_at(view, n, 0, 0, 0), bound);
}

static void invalidate_bounds(rwt_job *job, const rwt_attention_case *c,
                              const rwt_attention_plan *plan) {
    const int64_t last = c->batch;
    if (c->bounds_at_fault == BOUNDS_DOWN)
        set_bound(job, &plan->cu_q, last, plan->pattern.sequences.q[last - 1] - 1);
    if (c->bounds_at_fault == BOUNDS_PAST)
        set_bound(job, &plan->cu_q, last, plan->tokens + 1);
    if (c->bounds_at_fault == BOUNDS_FIRST)
        set_bound(job, &plan->cu_q, 0, 1);
    if (c->bounds_at_fault == BOUNDS_KEYS)
        set_bound(job, &plan->cu_k, last, plan->keys + 1);
}

/* The lengths of the sequences; behind them, some tokens of padding. */
static void add_sequences(rwt_job *job, const rwt_attention_case *c, rwt_attention_plan *plan) {
    rwt_sequences *own = &plan->pattern.sequences;
    plan->cu_q = plan->cu_k = rwt_view_absent;
    plan->tokens = c->seq_q;
    plan->keys = c->seq_k;
    if (!c->ragged)
        return;
    own->ragged = true;
    own->packed_k = c->packed_k != 0;
    own->k[0] = rwt_random_below(&job->random, 3);
    for (int64_t b = 0; b < c->batch; b++) {
        const bool least = b == c->batch - 1 && c->seq_q > 0;
        own->q[b + 1] = own->q[b];
        own->q[b + 1] += b > 0 && c->decodes ? c->seq_q > 0 : draw_length(job, b, c->seq_q, least);
        own->k[b + 1] = own->k[b] + draw_length(job, b, c->seq_k, c->seq_k > 1);
    }
    plan->tokens = own->q[c->batch] + rwt_random_below(&job->random, 4);
    if (c->packed_k)
        plan->keys = own->k[c->batch] + rwt_random_below(&job->random, 3);
    plan->cu_q = add_bounds(job, c, "cu_seqlens_q", own->q);
    if (c->packed_k)
        plan->cu_k = add_bounds(job, c, "cu_seqlens_k", own->k);
    invalidate_bounds(job, c, plan);
}

static void attention_fill(rwt_job *job) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    rwt_attention_plan *plan = job->plan;
    add_sequences(job, c, plan);
    rw_pattern_shape shape = {c->batch, plan->tokens, plan->keys};
    int64_t outer = c->paged ? rwt_attention_num_pages(c) : c->packed_k ? 1 : c->batch;
    int64_t rows = c->paged ? c->page_size : plan->keys;
    add_outputs(job, c, plan);
    add_workspace(job, c, plan);
    plan->q = add(job, "q", plan->tokens, c->heads, c->head_dim);
    plan->k = add_outer(job, "k", kv_dtype_of(c), outer, rows, c->heads / c->group, c->head_dim);
    plan->v = c->view
                  ? view_of(plan->k, c->v_dim)
                  : add_outer(job, "v", kv_dtype_of(c), outer, rows, c->heads / c->group, c->v_dim);
    add_table(job, c, plan);
    plan->k_scale = add_scale(job, c, "k_scale");
    plan->v_scale = add_scale(job, c, "v_scale");
    rwt_buffer_fill(job, plan->q.buffer, RWT_ORDINARY);
    rwt_buffer_fill(job, plan->k.buffer, RWT_ORDINARY);
    if (!c->view)
        rwt_buffer_fill(job, plan->v.buffer, RWT_ORDINARY);
    if (c->extreme)
        make_extreme(job, c, plan);
    if (c->extreme == EXTREME_SINK)
        multiply(job, plan->v.buffer, large_value(c));
    add_mask(job, c, plan);
    plan->slopes = add_head_values(job, "slopes", c->alibi != 0);
    plan->sinks = add_head_values(job, "sinks", c->sinks != 0);
    if (c->extreme == EXTREME_SINK)
        set_all(job, plan->sinks.buffer, extreme_sink(c));
    rwt_pattern_add(job, rwt_attention_pattern_of(c), &shape, &plan->pattern);
    set_nans(job, c, plan);
    invalidate_pages(job, c, plan);
}

/* ---- the operation ---- */

/* The same without the batch, which is 1; pages have none, nor have keys by sequence. */
static void pack(const rwt_attention_case *c, rw_attention_args *args) {
    rw_tensor *tensors[] = {&args->q, &args->out, &args->lse, &args->k, &args->v};
    for (int n = 0; n < (c->paged || (c->ragged && !c->packed_k) ? 3 : 5); n++)
        *tensors[n] = rwt_without_batch(*tensors[n]);
}

static void attention_bind(const rwt_job *job, rwt_set *set) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    const rwt_attention_plan *plan = job->plan;
    attention_call *call = set->args;
    call->pattern = rwt_pattern_bind(job, set, rwt_attention_pattern_of(c), &plan->pattern);
    call->args = (rw_attention_args){
        .q = rwt_tensor(job, set, &plan->q),
        .k = rwt_tensor(job, set, &plan->k),
        .v = rwt_tensor(job, set, &plan->v),
        .block_table = rwt_tensor(job, set, &plan->table),
        .workspace = rwt_tensor(job, set, &plan->workspace),
        .out = rwt_tensor(job, set, &plan->out),
        .lse = rwt_tensor(job, set, &plan->lse),
        .scale = rwt_attention_scale(c),
        .softcap = (double)c->softcap,
        .mask = rwt_tensor(job, set, &plan->mask),
        .pattern = &call->pattern,
        .sinks = rwt_tensor(job, set, &plan->sinks),
        .f32_products = (rw_f32_products)c->products,
        .cu_seqlens_q = rwt_tensor(job, set, &plan->cu_q),
        .cu_seqlens_k = rwt_tensor(job, set, &plan->cu_k),
        .max_seq_q = rwt_attention_max_seq_q(c),
        .batch_invariant = c->invariant != 0,
        .k_scale = rwt_tensor(job, set, &plan->k_scale),
        .v_scale = rwt_tensor(job, set, &plan->v_scale),
    };
    if (c->layout == LAYOUT_THD || c->ragged)
        pack(c, &call->args);
    if (plan->slopes.buffer >= 0) {
        call->alibi =
            (rw_alibi){rwt_tensor(job, set, &plan->slopes), c->alibi == 2, (rw_alignment)c->align};
        call->args.alibi = &call->alibi;
    }
}

static rw_status attention_run(const rwt_binding *binding, const void *args) {
    const attention_call *call = args;
    rw_attention_args exact = call->args; /* exactly the requested size */
    rw_status status = RW_OK;
    if (exact.workspace.rank > 0)
        status = rw_attention_workspace(binding->context, &exact, &exact.workspace.shape[0]);
    return status == RW_OK ? rw_attention(binding->context, &exact) : status;
}

static double attention_bytes(const rwt_job *job) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    double size = (double)rw_dtype_size((rw_dtype)c->dtype);
    const rwt_attention_plan *plan = job->plan;
    int64_t queries = (c->ragged ? 1 : c->batch) * plan->tokens;
    int64_t keys = (c->packed_k ? 1 : c->batch) * plan->keys;
    double q = (double)(queries * c->heads * (c->head_dim + c->v_dim));
    double kv = (double)(keys * c->heads / c->group * (c->head_dim + c->v_dim));
    return size * q + (double)rw_dtype_size(kv_dtype_of(c)) * kv;
}

/* The number of keys that query i sees, from prefix, causality and window alone. */
static double keys_of(const rwt_attention_case *c, int64_t i) {
    int64_t p = c->align == RW_ALIGN_TOP_LEFT ? i : i + c->seq_k - c->seq_q;
    int64_t begin = c->left < 0 || p < c->left ? 0 : p - c->left;
    int64_t end = c->right < 0 ? c->seq_k : p + c->right + 1;
    int64_t prefix = c->prefix < 0 ? 0 : c->prefix < c->seq_k ? c->prefix : c->seq_k;
    if (c->causal && end > p + 1)
        end = p + 1;
    if (end > c->seq_k)
        end = c->seq_k;
    if (begin < prefix)
        begin = prefix;
    return (double)prefix + (end > begin ? (double)(end - begin) : 0.0);
}

static double pairs_of(const rwt_job *job) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    const rwt_attention_plan *plan = job->plan;
    if (c->ragged || c->padding || c->documents || c->prefixes || rwt_attention_has_cells(c))
        return rwt_pattern_count(job, rwt_attention_pattern_of(c), &plan->pattern);
    double pairs = 0.0;
    for (int64_t i = 0; i < c->seq_q; i++)
        pairs += keys_of(c, i);
    return pairs * (double)c->batch;
}

/* FLOPs of the visible pairs. */
static double attention_flops(const rwt_job *job) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    return 2.0 * pairs_of(job) * (double)(c->heads * (c->head_dim + c->v_dim));
}

const rwt_driver rwt_attention_driver = {
    .name = "attention",
    .fields = attention_fields,
    .num_fields = RWT_COUNT(attention_fields),
    .rows = rwt_attention_rows,
    .random = rwt_attention_random,
    .num_random = 700,
    .benchmarks = rwt_attention_benchmarks,
    .plan_size = sizeof(rwt_attention_plan),
    .args_size = sizeof(attention_call),
    .invalid = rwt_attention_invalid,
    .fill = attention_fill,
    .reference = rwt_attention_reference,
    .bind = attention_bind,
    .run = attention_run,
    .bytes = attention_bytes,
    .flops = attention_flops,
};

/* rw_attention with a workspace: attention over parts of the keys, then the combination of the
 * parts. */
const rwt_driver rwt_attention_combine_driver = {
    .name = "attention_combine",
    .fields = combine_fields,
    .num_fields = RWT_COUNT(combine_fields),
    .rows = rwt_combine_rows,
    .random = rwt_combine_random,
    .num_random = 300,
    .benchmarks = rwt_combine_benchmarks,
    .plan_size = sizeof(rwt_attention_plan),
    .args_size = sizeof(attention_call),
    .invalid = rwt_attention_invalid,
    .fill = attention_fill,
    .reference = rwt_attention_reference,
    .bind = attention_bind,
    .run = attention_run,
    .bytes = attention_bytes,
    .flops = attention_flops,
};
