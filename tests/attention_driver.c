/* rw_attention: cases, buffers and the naive reference. */
#include <math.h>
#include <stdlib.h>

#include "pattern_case.h"

static const char *const words_layout[] = {"bhsd", "bshd", "hbsd", NULL};
static const char *const words_mask[] = {"none", "full", "keys", NULL};
static const char *const words_alibi[] = {"none", "absolute", "signed", NULL};
static const char *const words_sick[] = {"none", "v", "k", "q", NULL};
static const char *const words_paged[] = {"none", "i32", "i64", NULL};
static const char *const words_page_fault[] = {"none", "low", "high", NULL};

/* scale   in 1/64; 0: none given
 * mask    [batch, heads, seq_q, seq_k] or [batch, 1, 1, seq_k]
 * poison  k and v are NaN where no query sees the key
 * sick    NaN in column 0 of v or k, at the last key that the first query sees; or of the first
 * query
 * paged       k and v in pages, in no order, and pages that no one reads between them
 * page_fault  the last sequence's page of the last key that its last query sees is -1, or past the
 *             last
 * split       there is a workspace
 */
#define ATTENTION_FIELDS(FIELD, SPLIT)                                                             \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(out_dtype, RW_F32, rwt_words_dtype)                                                      \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(heads, 4, NULL)                                                                          \
    FIELD(group, 2, NULL)                                                                          \
    FIELD(seq_q, 9, NULL)                                                                          \
    FIELD(seq_k, 9, NULL)                                                                          \
    FIELD(head_dim, 32, NULL)                                                                      \
    FIELD(v_dim, 32, NULL)                                                                         \
    FIELD(layout, 0, words_layout)                                                                 \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(lse, 1, NULL)                                                                            \
    FIELD(scale, 0, NULL)                                                                          \
    FIELD(softcap, 0, NULL)                                                                        \
    FIELD(mask, 0, words_mask)                                                                     \
    FIELD(alibi, 0, words_alibi)                                                                   \
    FIELD(sinks, 0, NULL)                                                                          \
    FIELD(poison, 0, NULL)                                                                         \
    FIELD(sick, 0, words_sick)                                                                     \
    FIELD(paged, 0, words_paged)                                                                   \
    FIELD(page_size, 16, NULL)                                                                     \
    FIELD(page_fault, 0, words_page_fault)                                                         \
    FIELD(split, SPLIT, NULL)                                                                      \
    RWT_PATTERN_FIELDS(FIELD)                                                                      \
    FIELD(seed, 0, NULL)

enum {
    SICK_V = 1,
    SICK_K,
    SICK_Q
};

typedef struct attention_case {
    ATTENTION_FIELDS(RWT_MEMBER, 0)
} attention_case;

static const rwt_field attention_fields[] = {ATTENTION_FIELDS(RWT_FIELD, 0)};
static const rwt_field combine_fields[] = {ATTENTION_FIELDS(RWT_FIELD, 1)};

typedef struct attention_plan {
    rwt_view q;
    rwt_view k;
    rwt_view v;
    rwt_view table;
    rwt_view out;
    rwt_view lse;
    rwt_view workspace;
    rwt_view mask;
    rwt_view slopes;
    rwt_view sinks;
    rwt_pattern_plan pattern;
} attention_plan;

typedef struct attention_call {
    rw_attention_args args;
    rw_pattern pattern;
    rw_alibi alibi;
} attention_call;

static const attention_case *case_of(const rwt_case *c) {
    return (const attention_case *)c->values;
}

static const rwt_pattern_fields *pattern_of(const attention_case *c) {
    return (const rwt_pattern_fields *)&c->causal;
}

/* ---- buffers ----------------------------------------------------------------------------------
 */

/* [outer, heads, seq, width]: outer is the batch, or pages. */
static rwt_view add_outer(rwt_job *job, const char *name, int64_t outer, int64_t heads, int64_t seq,
                          int64_t width) {
    static const int orders[][RW_MAX_RANK] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {1, 0, 2, 3}};
    const attention_case *c = case_of(&job->c);
    rwt_layout layout = {
        4, {outer, heads, seq, width}, orders[c->layout], (rwt_stride_style)c->stride};
    rwt_buffer_spec spec = {.name = name, .dtype = (rw_dtype)c->dtype, .misalign = c->misalign};
    return rwt_view_add(job, &layout, spec);
}

static rwt_view add(rwt_job *job, const char *name, int64_t heads, int64_t seq, int64_t width) {
    return add_outer(job, name, case_of(&job->c)->batch, heads, seq, width);
}

/* Pages of a sequence, and of the cache. */
static int64_t pages_each(const attention_case *c) {
    return c->seq_k / c->page_size;
}

static int64_t num_pages(const attention_case *c) {
    return c->batch * pages_each(c) + 3;
}

static void add_table(rwt_job *job, const attention_case *c, attention_plan *plan) {
    rwt_layout layout = {2, {c->batch, pages_each(c)}, NULL, (rwt_stride_style)c->stride};
    plan->table = rwt_view_absent;
    if (!c->paged)
        return;
    plan->table = rwt_id_view_add(job, &layout, "block_table", c->paged - 1);
    int64_t *pages = rwt_allocate((size_t)num_pages(c) * sizeof *pages), used = 0;
    for (int64_t i = 0; i < num_pages(c); i++) {
        int64_t other = rwt_random_below(&job->random, i + 1);
        pages[i] = pages[other];
        pages[other] = i;
    }
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t n = 0; n < pages_each(c); n++)
            rwt_buffer_set_id(job, plan->table.buffer, rwt_view_at(&plan->table, b, n, 0, 0),
                              pages[used++]);
    free(pages);
}

static int64_t page_of(const rwt_job *job, int64_t b, int64_t j) {
    const attention_plan *plan = job->plan;
    int64_t n = j / case_of(&job->c)->page_size;
    return rwt_buffer_get_id(job, plan->table.buffer, rwt_view_at(&plan->table, b, n, 0, 0));
}

/* The element of k or v: key j of sequence b. */
static int64_t key_at(const rwt_job *job, const rwt_view *view, int64_t b, int64_t h, int64_t j,
                      int64_t d) {
    const attention_case *c = case_of(&job->c);
    if (!c->paged)
        return rwt_view_at(view, b, h, j, d);
    return rwt_view_at(view, page_of(job, b, j), h, j % c->page_size, d);
}

static void add_outputs(rwt_job *job, const attention_case *c, attention_plan *plan) {
    rwt_layout lse = {3, {c->batch, c->heads, c->seq_q}, NULL, (rwt_stride_style)c->stride};
    rwt_buffer_spec spec = {.name = "lse", .dtype = RW_F32};
    plan->out = add(job, "out", c->heads, c->seq_q, c->v_dim);
    rwt_buffer *out = &job->buffers[plan->out.buffer];
    if (c->out_dtype != c->dtype) { /* poisoned anew, in its own dtype */
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

/* What masks hold. */
static void add_mask(rwt_job *job, const attention_case *c, attention_plan *plan) {
    static const double values[] = {0.0, 0.0, -INFINITY, -1e4, -3.25, 1.5};
    bool full = c->mask == 1;
    rwt_layout layout = {
        4, {c->batch, full ? c->heads : 1, full ? c->seq_q : 1, c->seq_k}, NULL, RWT_GAPS};
    rwt_buffer_spec spec = {.name = "mask", .dtype = RW_F32};
    plan->mask = rwt_view_absent;
    if (!c->mask)
        return;
    plan->mask = rwt_view_add(job, &layout, spec);
    rwt_buffer *mask = &job->buffers[plan->mask.buffer];
    for (int64_t n = 0; n < mask->elements; n++)
        rwt_store(mask->dtype, mask->initial, n,
                  values[rwt_random_below(&job->random, RWT_COUNT(values))]);
}

static rwt_view add_head_values(rwt_job *job, const char *name, bool given) {
    const attention_case *c = case_of(&job->c);
    rwt_layout layout = {1, {c->heads}, NULL, RWT_CONTIGUOUS};
    rwt_buffer_spec spec = {.name = name, .dtype = RW_F32};
    if (!given)
        return rwt_view_absent;
    rwt_view view = rwt_view_add(job, &layout, spec);
    rwt_buffer_fill(job, view.buffer, RWT_ORDINARY);
    return view;
}

/* Columns of key j. */
static void set_nan(rwt_job *job, const rwt_view *view, int64_t b, int64_t h, int64_t j,
                    int64_t columns) {
    for (int64_t column = 0; column < columns; column++)
        rwt_buffer_set(job, view->buffer, key_at(job, view, b, h, j, column), NAN);
}

static bool seen_by_any(const rwt_job *job, int64_t b, int64_t j) {
    const attention_case *c = case_of(&job->c);
    const attention_plan *plan = job->plan;
    for (int64_t i = 0; i < c->seq_q; i++) {
        rw_pattern_pair pair = {b, i, j};
        if (rwt_pattern_sees(job, pattern_of(c), &plan->pattern, &pair))
            return true;
    }
    return false;
}

static void spoil(rwt_job *job, const attention_case *c, const attention_plan *plan) {
    for (int64_t b = 0; c->poison && b < c->batch; b++)
        for (int64_t j = 0; j < c->seq_k; j++)
            for (int64_t h = 0; h < c->heads / c->group && !seen_by_any(job, b, j); h++) {
                set_nan(job, &plan->k, b, h, j, c->head_dim);
                set_nan(job, &plan->v, b, h, j, c->v_dim);
            }
    if (!c->sick || c->batch == 0 || c->heads == 0 || c->seq_q == 0)
        return;
    if (c->sick == SICK_Q) {
        rwt_buffer_set(job, plan->q.buffer, rwt_view_at(&plan->q, 0, 0, 0, 0), NAN);
        return;
    }
    for (int64_t j = c->seq_k - 1; j >= 0; j--) {
        rw_pattern_pair pair = {0, 0, j};
        if (!rwt_pattern_sees(job, pattern_of(c), &plan->pattern, &pair))
            continue;
        set_nan(job, c->sick == SICK_V ? &plan->v : &plan->k, 0, 0, j, 1);
        return;
    }
}

/* Keys [begin, end) of query i: from the first that it sees to the last. */
typedef struct hull {
    int64_t begin;
    int64_t end;
} hull;

static hull hull_of(const rwt_job *job, int64_t b, int64_t i) {
    const attention_case *c = case_of(&job->c);
    const attention_plan *plan = job->plan;
    hull seen = {0, 0};
    for (int64_t j = 0; j < c->seq_k; j++) {
        rw_pattern_pair pair = {b, i, j};
        if (!rwt_pattern_sees(job, pattern_of(c), &plan->pattern, &pair))
            continue;
        if (seen.end == 0)
            seen.begin = j;
        seen.end = j + 1;
    }
    return seen;
}

/* Whether what is seen differs by more than intervals: whoever asks for the pages of a query does
 * not look at every key. */
static bool has_cells(const attention_case *c) {
    return c->bits || c->hide || c->globals;
}

/* Page numbers that no query needs are none, and one that is needed, if the case says so. */
static void spoil_pages(rwt_job *job, const attention_case *c, const attention_plan *plan) {
    if (!c->paged || has_cells(c) || c->pattern_at_fault)
        return;
    for (int64_t b = 0; b < c->batch; b++) {
        hull all = {c->seq_k, 0};
        for (int64_t i = 0; i < c->seq_q; i++) {
            hull seen = hull_of(job, b, i);
            if (seen.end == 0)
                continue;
            all.begin = seen.begin < all.begin ? seen.begin : all.begin;
            all.end = seen.end > all.end ? seen.end : all.end;
        }
        for (int64_t n = 0; n < pages_each(c); n++) {
            bool needed = n * c->page_size < all.end && (n + 1) * c->page_size > all.begin;
            bool last = b == c->batch - 1 && n == (all.end - 1) / c->page_size;
            int64_t page = c->page_fault == 1 || !needed ? -1 : num_pages(c);
            if (!needed || (last && c->page_fault))
                rwt_buffer_set_id(job, plan->table.buffer, rwt_view_at(&plan->table, b, n, 0, 0),
                                  page);
        }
    }
}

/* A part has 256 keys at least. */
static void add_workspace(rwt_job *job, const attention_case *c, attention_plan *plan) {
    int64_t parts = c->seq_k / 256 + 1, rows = c->batch * c->heads * c->seq_q;
    rwt_layout layout = {1, {4 * parts * rows * (c->v_dim + 1)}, NULL, RWT_CONTIGUOUS};
    rwt_buffer_spec spec = {.name = "workspace", .dtype = RW_U8, .scratch = true};
    plan->workspace = c->split ? rwt_view_add(job, &layout, spec) : rwt_view_absent;
}

static void attention_fill(rwt_job *job) {
    const attention_case *c = case_of(&job->c);
    attention_plan *plan = job->plan;
    rw_pattern_shape shape = {c->batch, c->seq_q, c->seq_k};
    int64_t outer = c->paged ? num_pages(c) : c->batch;
    int64_t rows = c->paged ? c->page_size : c->seq_k;
    add_outputs(job, c, plan);
    add_workspace(job, c, plan);
    plan->q = add(job, "q", c->heads, c->seq_q, c->head_dim);
    plan->k = add_outer(job, "k", outer, c->heads / c->group, rows, c->head_dim);
    plan->v = add_outer(job, "v", outer, c->heads / c->group, rows, c->v_dim);
    add_table(job, c, plan);
    rwt_buffer_fill(job, plan->q.buffer, RWT_ORDINARY);
    rwt_buffer_fill(job, plan->k.buffer, RWT_ORDINARY);
    rwt_buffer_fill(job, plan->v.buffer, RWT_ORDINARY);
    add_mask(job, c, plan);
    plan->slopes = add_head_values(job, "slopes", c->alibi != 0);
    plan->sinks = add_head_values(job, "sinks", c->sinks != 0);
    rwt_pattern_add(job, pattern_of(c), &shape, &plan->pattern);
    spoil(job, c, plan);
    spoil_pages(job, c, plan);
}

/* ---- reference --------------------------------------------------------------------------------
 */

/* A score, and the sizes that f32 rounds on the way to it. */
typedef struct score {
    bool sees;
    double s;
    double carried;
} score;

static double scale_of(const attention_case *c) {
    return c->scale ? (double)c->scale / 64.0 : 1.0 / sqrt((double)c->head_dim);
}

static double mask_at(const rwt_job *job, int64_t h, const rw_pattern_pair *pair) {
    const attention_plan *plan = job->plan;
    bool full = case_of(&job->c)->mask == 1;
    if (plan->mask.buffer < 0)
        return 0.0;
    return rwt_buffer_get(
        job, plan->mask.buffer,
        rwt_view_at(&plan->mask, pair->b, full ? h : 0, full ? pair->i : 0, pair->j));
}

static score score_of(const rwt_job *job, int64_t h, const rw_pattern_pair *pair) {
    const attention_case *c = case_of(&job->c);
    const attention_plan *plan = job->plan;
    score result = {.sees = rwt_pattern_sees(job, pattern_of(c), &plan->pattern, pair)};
    if (!result.sees)
        return result;
    for (int64_t d = 0; d < c->head_dim; d++) {
        double x =
            rwt_buffer_get(job, plan->q.buffer, rwt_view_at(&plan->q, pair->b, h, pair->i, d));
        double y = rwt_buffer_get(job, plan->k.buffer,
                                  key_at(job, &plan->k, pair->b, h / c->group, pair->j, d));
        result.s += x * y * scale_of(c);
        result.carried += fabs(x * y * scale_of(c));
    }
    if (c->softcap > 0) {
        result.s = (double)c->softcap * tanh(result.s / (double)c->softcap);
        result.carried += 4.0 * fabs(result.s);
    }
    if (c->alibi) {
        int64_t shift = rwt_pattern_shift(job, c->align, &plan->pattern, pair->b);
        double distance = (double)(pair->j - pair->i - shift);
        double slope = rwt_buffer_get(job, plan->slopes.buffer, h);
        double bias = slope * (c->alibi == 2 ? distance : -fabs(distance));
        result.s += bias;
        result.carried += 2.0 * fabs(bias);
    }
    double mask = mask_at(job, h, pair);
    result.s += mask;
    result.carried += fabs(result.s) + fabs(mask);
    return result;
}

/* The row's sums over the keys that it sees. */
typedef struct row_sums {
    double base;
    double sum;
    double carried; /* the most of a key that counts */
} row_sums;

static row_sums sum_row(const rwt_job *job, int64_t h, const score *row) {
    const attention_case *c = case_of(&job->c);
    const attention_plan *plan = job->plan;
    double sink = c->sinks ? rwt_buffer_get(job, plan->sinks.buffer, h) : -INFINITY;
    double of_keys = -INFINITY; /* the largest score; a sink may be far above */
    for (int64_t j = 0; j < c->seq_k; j++)
        if (row[j].sees)
            of_keys = fmax(of_keys, row[j].s);
    double largest = fmax(sink, of_keys);
    row_sums sums = {.base = largest == -INFINITY ? 0.0 : largest};
    sums.sum = exp(sink - sums.base);
    for (int64_t j = 0; j < c->seq_k; j++) {
        double e = row[j].sees ? exp(row[j].s - sums.base) : 0.0;
        sums.sum += e;
        if (row[j].sees && row[j].s > of_keys - 21.0)
            sums.carried = fmax(sums.carried, row[j].carried + fabs(row[j].s - sums.base));
    }
    return sums;
}

/* Weights are rounded to the dtype of the inputs, by half of its epsilon: as steps of 4 epsilons of
 * f32, which rwt_expect_near() allows. */
static double weight_steps(const attention_case *c) {
    if (c->dtype == RW_F32)
        return 0.0;
    return rwt_dtype_epsilon((rw_dtype)c->dtype) / 2.0 / (4.0 * rwt_dtype_epsilon(RW_F32));
}

static void expect_row(rwt_job *job, int64_t b, int64_t h, int64_t i) {
    const attention_case *c = case_of(&job->c);
    const attention_plan *plan = job->plan;
    score *row = rwt_allocate((size_t)c->seq_k * sizeof *row);
    for (int64_t j = 0; j < c->seq_k; j++) {
        rw_pattern_pair pair = {b, i, j};
        row[j] = score_of(job, h, &pair);
    }
    row_sums sums = sum_row(job, h, row);
    for (int64_t d = 0; d < c->v_dim; d++) {
        double out = 0.0, size = 0.0;
        for (int64_t j = 0; j < c->seq_k; j++) {
            double share =
                row[j].sees && sums.sum != 0.0 ? exp(row[j].s - sums.base) / sums.sum : 0.0;
            if (share == 0.0)
                continue;
            double x =
                rwt_buffer_get(job, plan->v.buffer, key_at(job, &plan->v, b, h / c->group, j, d));
            out += share * x;
            double exponent = row[j].carried + fabs(row[j].s - sums.base);
            size += share * fabs(x) * (3.0 + sums.carried + exponent + weight_steps(c));
        }
        rwt_expect_near(job, plan->out.buffer, rwt_view_at(&plan->out, b, h, i, d), out, size);
    }
    if (plan->lse.buffer >= 0)
        rwt_expect_near(job, plan->lse.buffer, rwt_view_at(&plan->lse, b, h, i, 0),
                        sums.sum == 0.0 ? -INFINITY : sums.base + log(sums.sum),
                        fabs(sums.base) + 1.0 + sums.carried);
    free(row);
}

/* False where a page that query i needs is none: *bad is the first such number. */
static bool pages_make_sense(const rwt_job *job, int64_t b, int64_t i, int64_t *bad) {
    const attention_case *c = case_of(&job->c);
    if (!c->paged || has_cells(c))
        return true;
    hull seen = hull_of(job, b, i);
    for (int64_t j = seen.begin; j < seen.end; j++) {
        *bad = page_of(job, b, j);
        if (*bad < 0 || *bad >= num_pages(c))
            return false;
    }
    return true;
}

static void attention_reference(rwt_job *job) {
    const attention_case *c = case_of(&job->c);
    const attention_plan *plan = job->plan;
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t i = 0; i < c->seq_q; i++) {
                int64_t bad;
                if (rwt_pattern_makes_sense(job, pattern_of(c), &plan->pattern, b, i, &bad) &&
                    pages_make_sense(job, b, i, &bad))
                    expect_row(job, b, h, i);
                else
                    rwt_expect_fault(job, b * c->seq_q + i, bad);
            }
}

/* ---- the operation ----------------------------------------------------------------------------
 */

static void attention_bind(const rwt_job *job, rwt_set *set) {
    const attention_case *c = case_of(&job->c);
    const attention_plan *plan = job->plan;
    attention_call *call = set->args;
    call->pattern = rwt_pattern_bind(job, set, pattern_of(c), &plan->pattern);
    call->args = (rw_attention_args){
        .q = rwt_tensor(job, set, &plan->q),
        .k = rwt_tensor(job, set, &plan->k),
        .v = rwt_tensor(job, set, &plan->v),
        .block_table = rwt_tensor(job, set, &plan->table),
        .workspace = rwt_tensor(job, set, &plan->workspace),
        .out = rwt_tensor(job, set, &plan->out),
        .lse = rwt_tensor(job, set, &plan->lse),
        .scale = (double)c->scale / 64.0,
        .softcap = (double)c->softcap,
        .mask = rwt_tensor(job, set, &plan->mask),
        .pattern = &call->pattern,
        .sinks = rwt_tensor(job, set, &plan->sinks),
    };
    if (plan->slopes.buffer >= 0) {
        call->alibi =
            (rw_alibi){rwt_tensor(job, set, &plan->slopes), c->alibi == 2, (rw_alignment)c->align};
        call->args.alibi = &call->alibi;
    }
}

static rw_status attention_run(const rwt_binding *binding, const void *args) {
    const attention_call *call = args;
    rw_attention_args exact = call->args; /* not a byte more than it asks for */
    rw_status status = RW_OK;
    if (exact.workspace.rank > 0)
        status = rw_attention_workspace(binding->context, &exact, &exact.workspace.shape[0]);
    return status == RW_OK ? rw_attention(binding->context, &exact) : status;
}

static double attention_bytes(const rwt_job *job) {
    const attention_case *c = case_of(&job->c);
    double size = (double)rw_dtype_size((rw_dtype)c->dtype);
    double q = (double)(c->batch * c->heads * c->seq_q * (c->head_dim + c->v_dim));
    double kv = (double)(c->batch * c->heads / c->group * c->seq_k * (c->head_dim + c->v_dim));
    return size * (q + kv);
}

/* Keys that query i sees, where prefix, causality and window alone say so. */
static double keys_of(const attention_case *c, int64_t i) {
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
    const attention_case *c = case_of(&job->c);
    const attention_plan *plan = job->plan;
    if (c->padding || c->documents || c->prefixes || has_cells(c))
        return rwt_pattern_count(job, pattern_of(c), &plan->pattern);
    double pairs = 0.0;
    for (int64_t i = 0; i < c->seq_q; i++)
        pairs += keys_of(c, i);
    return pairs * (double)c->batch;
}

/* Those of the pairs that see each other. */
static double attention_flops(const rwt_job *job) {
    const attention_case *c = case_of(&job->c);
    return 2.0 * pairs_of(job) * (double)(c->heads * (c->head_dim + c->v_dim));
}

/* ---- cases ------------------------------------------------------------------------------------
 */

static bool width_fits(int64_t width) {
    return width >= 8 && width <= 256 && width % 8 == 0;
}

static const char *attention_invalid(const rwt_case *row) {
    const attention_case *c = case_of(row);
    rw_pattern_shape shape = {c->batch, c->seq_q, c->seq_k};
    if (c->heads < 0 || c->misalign < 0 || c->softcap < 0 || c->scale < 0)
        return "a length is negative";
    if (c->group < 1 || c->heads % c->group != 0)
        return "group must divide heads";
    if (!width_fits(c->head_dim) || !width_fits(c->v_dim))
        return "head_dim and v_dim are multiples of 8 from 8 to 256";
    if (c->page_size < 16 || (c->page_size & (c->page_size - 1)) != 0)
        return "page_size is a power of two from 16 on";
    if (c->paged && c->seq_k % c->page_size != 0)
        return "pages are whole";
    if (c->page_fault && (!c->paged || has_cells(c) || c->pattern_at_fault || c->seq_q == 0 ||
                          c->seq_k == 0 || c->batch == 0 || c->heads == 0))
        return "a page at fault needs pages and a query that reads them";
    if (c->sick && (c->mask || c->alibi))
        return "a NaN whose key has a weight of 0 may show or not";
    return rwt_pattern_invalid(pattern_of(c), &shape);
}

static const rwt_case_row attention_rows[] = {
    {RWT_QUICK, "dtype=f32|f16|bf16,stride=contiguous|gaps|negative,causal=0|1,batch=2"},
    {RWT_QUICK, "dtype=f32|f16|bf16,out_dtype=f32|f16|bf16,seq_k=70,causal=1"},
    {RWT_QUICK, "layout=bhsd|bshd|hbsd,group=1|2|4,batch=2,seq_k=13"},
    {RWT_QUICK, "heads=6|12,group=3|6,seq_q=1|5|40,seq_k=66,causal=1"},
    {RWT_QUICK, "heads=71,group=71,seq_q=3,seq_k=5,head_dim=8,v_dim=8"},
    {RWT_QUICK, "head_dim=8|40|64|128,v_dim=8|64|72|136,seq_k=20,dtype=f32|bf16"},
    {RWT_FULL, "head_dim=96|192|256,v_dim=128|200|256,seq_k=130,seq_q=70,heads=2,"
               "dtype=f32|f16|bf16"},
    {RWT_QUICK, "seq_q=0|1|3,seq_k=0|1|4,batch=0|1|2,causal=0|1"},
    {RWT_QUICK, "heads=0,group=1"},
    {RWT_QUICK, "seq_q=63|64|65|130,seq_k=64|65|129,heads=1,group=1,causal=0|1,head_dim=16,"
                "v_dim=16"},
    {RWT_QUICK, "seq_q=5,seq_k=9,causal=1,align=bottom|top"},
    {RWT_QUICK, "seq_q=9,seq_k=5,causal=1,align=bottom|top,poison=0|1"},
    {RWT_QUICK, "causal=1,left=0|3|40,seq_q=100,seq_k=150,heads=2,head_dim=16,v_dim=16"},
    {RWT_QUICK, "left=2,right=1|30,seq_q=40,seq_k=130,heads=2,poison=0|1"},
    {RWT_QUICK, "causal=1,prefix=0|4|200,seq_q=70,seq_k=70,heads=2"},
    {RWT_QUICK, "causal=1,left=3,globals=3,seq_q=20,seq_k=140,heads=2"},
    {RWT_QUICK, "documents=1|4,causal=0|1,seq_q=70,seq_k=70,heads=2,part_dtype=i32|i64"},
    {RWT_QUICK, "padding=left|right|both,batch=3,causal=0|1,poison=1,seq_k=70"},
    {RWT_QUICK, "bits=queries|batch|keys,batch=2,poison=1,causal=0|1"},
    {RWT_QUICK, "hide=queries|batch|keys,batch=2,poison=1"},
    {RWT_QUICK, "pattern_at_fault=prefix,prefixes=i32,causal=1,batch=3,lse=0|1"},
    {RWT_QUICK, "pattern_at_fault=padding,padding=both,batch=3,seq_k=70"},
    {RWT_QUICK, "pattern_at_fault=documents,documents=3,own=1,batch=3,seq_q=5|13,causal=0|1"},
    {RWT_QUICK, "scale=1|64,softcap=0|2|30,dtype=f32|bf16"},
    {RWT_QUICK, "mask=full|keys,batch=2,causal=0|1,seq_k=70"},
    {RWT_QUICK, "alibi=absolute|signed,align=bottom|top,seq_k=70,causal=0|1,seq_q=9|70"},
    {RWT_QUICK, "align=key_end,padding=right|both,batch=3,causal=0|1,seq_q=1|3|9,seq_k=70,"
                "alibi=none|absolute|signed,poison=0|1"},
    {RWT_QUICK, "align=key_end,padding=right,batch=3,causal=1,left=-1|5,seq_q=70,seq_k=150,heads=2,"
                "globals=0|2,pattern_at_fault=none|padding,alibi=none|absolute"},
    {RWT_QUICK, "sinks=1,causal=0|1,seq_q=9|12,seq_k=9,softcap=0|5,alibi=none|absolute"},
    {RWT_QUICK, "sinks=1,seq_k=0"},
    {RWT_QUICK, "sick=v|k|q,causal=0|1,seq_q=20,seq_k=90,poison=0|1,dtype=f32|bf16"},
    {RWT_QUICK, "misalign=1|3,dtype=f32|f16|bf16,lse=0"},
    {RWT_QUICK, "paged=i32|i64,seq_k=48,layout=bhsd|bshd|hbsd,stride=contiguous|gaps|negative,"
                "batch=2,causal=0|1"},
    {RWT_QUICK, "paged=i32,page_size=16|32|64|128,seq_k=128,dtype=f32|bf16,causal=1,seq_q=1|70,"
                "padding=none|right|both,batch=3,poison=1"},
    {RWT_QUICK, "paged=i64,page_fault=low|high,seq_k=96,batch=3,causal=0|1,padding=none|right,"
                "left=-1|20"},
    {RWT_FULL, "seq_q=200,seq_k=515,heads=4,group=2,head_dim=128,v_dim=128,causal=1,"
               "dtype=f32|f16|bf16,out_dtype=f32|bf16"},
    {RWT_FULL, "seq_q=1,seq_k=2049,heads=8,group=4,head_dim=64,v_dim=64,batch=2,padding=right,"
               "dtype=f32|bf16"},
    {RWT_QUICK, NULL}};

static const char attention_random[] =
    "dtype=f32|f16|bf16,out_dtype=f32|f16|bf16,batch=1|2|3,heads=1..8,group=1|1|2|3|4,"
    "seq_q=0..20|0..90,seq_k=0..20|0..150,head_dim=8|16|24|40|64|80|128,v_dim=8|16|32|64|72|128,"
    "layout=bhsd|bshd|hbsd,stride=contiguous|gaps|negative,misalign=0|0|1..8,lse=0|1,"
    "scale=0|0|1..40,softcap=0|0|1..30,mask=none|none|full|keys,alibi=none|none|absolute|signed,"
    "sinks=0|0|1,poison=0|1,sick=none|none|none|v|k|q,causal=0|1,"
    "align=bottom|top|key_end,left=-1|-1|0..40,right=-1|-1|0..40,prefix=-1|-1|0..60,"
    "globals=0|0|1..5,documents=0|0|1..5,own=0|1,"
    "padding=none|none|left|right|both,bits=none|none|none|queries|batch|keys,"
    "hide=none|none|none|queries|batch|keys,part_dtype=i32|i64,paged=none|none|i32|i64,"
    "page_size=16|32|64,page_fault=none|none|low|high,split=0|0|1";

/* Few queries against many keys: the keys are split. */
static const rwt_case_row combine_rows[] = {
    {RWT_QUICK, "dtype=f32|f16|bf16,out_dtype=f32|bf16,seq_q=1|3,seq_k=520,head_dim=64,v_dim=40"},
    {RWT_QUICK, "seq_q=1,seq_k=255|256|257|513,heads=8,group=8|1,lse=0|1"},
    {RWT_QUICK, "seq_q=5,seq_k=600,causal=1,left=-1|300,batch=2,stride=gaps"},
    {RWT_QUICK, "seq_q=2,seq_k=600,padding=right|both,batch=3,poison=1,causal=0|1"},
    {RWT_QUICK, "seq_q=1,seq_k=600,sinks=1,alibi=none|absolute,softcap=0|5"},
    {RWT_QUICK, "seq_q=2,seq_k=640,paged=i32|i64,page_size=16|128,batch=2,padding=none|right"},
    {RWT_QUICK, "seq_q=3,seq_k=640,paged=i32,page_fault=low|high,batch=2,causal=0|1,left=-1|40"},
    {RWT_QUICK, "seq_q=3,seq_k=600,batch=2,pattern_at_fault=padding,padding=both"},
    {RWT_QUICK, "seq_q=3,seq_k=600,sick=v|k|q,poison=1,causal=1"},
    {RWT_QUICK, "seq_q=9,seq_k=3,causal=1,align=top"},
    {RWT_FULL, "seq_q=1,seq_k=4100,heads=8,group=4,head_dim=128,v_dim=128,dtype=f32|bf16,"
               "batch=1|3"},
    {RWT_QUICK, NULL}};

static const char combine_random[] =
    "dtype=f32|f16|bf16,out_dtype=f32|f16|bf16,batch=1|2|3,heads=1..8,group=1|1|2|3|4,"
    "seq_q=1|1|2..6,seq_k=200..1400,head_dim=8|16|64|80,v_dim=8|32|64|72,layout=bhsd|bshd|hbsd,"
    "stride=contiguous|gaps|negative,misalign=0|0|1..8,lse=0|1,softcap=0|0|1..30,"
    "mask=none|none|full|keys,alibi=none|none|absolute|signed,sinks=0|0|1,poison=0|1,causal=0|1,"
    "left=-1|-1|0..400,prefix=-1|-1|0..60,documents=0|0|1..5,padding=none|none|left|right|both,"
    "paged=none|i32|i64,page_size=16|32|64,page_fault=none|none|low|high";

static const rwt_benchmark attention_benchmarks[] = {
    {"f32 512x512 8/2x128 causal",
     "heads=8,group=4,seq_q=512,seq_k=512,head_dim=128,v_dim=128,causal=1,lse=0", true, true,
     false},
    {"f32 1x32x2048x128 causal",
     "heads=32,group=1,seq_q=2048,seq_k=2048,head_dim=128,v_dim=128,causal=1,lse=0", false, true,
     false},
    {"bf16 4x32x4096x128 causal",
     "dtype=bf16,out_dtype=bf16,batch=4,heads=32,group=1,seq_q=4096,seq_k=4096,head_dim=128,"
     "v_dim=128,causal=1,lse=0",
     false, true, false},
    {"bf16 4x32x4096x128 full",
     "dtype=bf16,out_dtype=bf16,batch=4,heads=32,group=1,seq_q=4096,seq_k=4096,head_dim=128,"
     "v_dim=128,lse=0",
     false, true, false},
    {"bf16 4x32x4096x128 window 1024",
     "dtype=bf16,out_dtype=bf16,batch=4,heads=32,group=1,seq_q=4096,seq_k=4096,head_dim=128,"
     "v_dim=128,causal=1,left=1023,lse=0",
     false, true, false},
    {"bf16 1x32x16384x128 causal",
     "dtype=bf16,out_dtype=bf16,heads=32,group=1,seq_q=16384,seq_k=16384,head_dim=128,v_dim=128,"
     "causal=1,lse=0",
     false, true, false},
    {"bf16 1x32x16384x128 window 1024",
     "dtype=bf16,out_dtype=bf16,heads=32,group=1,seq_q=16384,seq_k=16384,head_dim=128,v_dim=128,"
     "causal=1,left=1023,lse=0",
     false, true, false},
    {"bf16 1x8x65536x128 causal",
     "dtype=bf16,out_dtype=bf16,heads=8,group=1,seq_q=65536,seq_k=65536,head_dim=128,v_dim=128,"
     "causal=1",
     false, true, false},
    {"bf16 4x32x4096x128 prefix 1024",
     "dtype=bf16,out_dtype=bf16,batch=4,heads=32,group=1,seq_q=4096,seq_k=4096,head_dim=128,"
     "v_dim=128,causal=1,prefix=1024,lse=0",
     false, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_attention_driver = {
    .name = "attention",
    .fields = attention_fields,
    .num_fields = RWT_COUNT(attention_fields),
    .rows = attention_rows,
    .random = attention_random,
    .num_random = 700,
    .benchmarks = attention_benchmarks,
    .plan_size = sizeof(attention_plan),
    .args_size = sizeof(attention_call),
    .invalid = attention_invalid,
    .fill = attention_fill,
    .reference = attention_reference,
    .bind = attention_bind,
    .run = attention_run,
    .bytes = attention_bytes,
    .flops = attention_flops,
};

static const rwt_benchmark combine_benchmarks[] = {
    {"bf16 1x8192 8/2x128 decode",
     "dtype=bf16,out_dtype=bf16,heads=8,group=4,seq_q=1,seq_k=8192,head_dim=128,v_dim=128,"
     "lse=0",
     true, true, false},
    {"bf16 64x8192 32/8x128 decode",
     "dtype=bf16,out_dtype=bf16,batch=64,heads=32,group=4,seq_q=1,seq_k=8192,head_dim=128,"
     "v_dim=128,lse=0",
     false, true, false},
    {"bf16 1x32768 32/8x128 decode",
     "dtype=bf16,out_dtype=bf16,batch=1,heads=32,group=4,seq_q=1,seq_k=32768,head_dim=128,"
     "v_dim=128,lse=0",
     false, true, false},
    {"bf16 64x8192 32/8x128 decode, pages of 16",
     "dtype=bf16,out_dtype=bf16,batch=64,heads=32,group=4,seq_q=1,seq_k=8192,head_dim=128,"
     "v_dim=128,lse=0,paged=i32",
     false, true, false},
    {NULL, NULL, false, false, false}};

/* rw_attention with a workspace: attention of parts of the keys, then what makes one of them. */
const rwt_driver rwt_attention_combine_driver = {
    .name = "attention_combine",
    .fields = combine_fields,
    .num_fields = RWT_COUNT(combine_fields),
    .rows = combine_rows,
    .random = combine_random,
    .num_random = 300,
    .benchmarks = combine_benchmarks,
    .plan_size = sizeof(attention_plan),
    .args_size = sizeof(attention_call),
    .invalid = attention_invalid,
    .fill = attention_fill,
    .reference = attention_reference,
    .bind = attention_bind,
    .run = attention_run,
    .bytes = attention_bytes,
    .flops = attention_flops,
};
