/* A naive reference of rw_attention. */
#include <math.h>
#include <stdlib.h>

#include "drivers/attention_case.h"

const rwt_attention_case *rwt_attention_case_of(const rwt_case *c) {
    return (const rwt_attention_case *)c->values;
}

double rwt_attention_scale(const rwt_attention_case *c) {
    switch (c->extreme) {
    case EXTREME_SCALE:
        return 3e38;
    case EXTREME_PRODUCTS:
        return 32.0;
    case EXTREME_LARGE:
    case EXTREME_SMALL:
        return 1.0;
    default:
        return (double)c->scale / 64.0;
    }
}

const rwt_pattern_fields *rwt_attention_pattern_of(const rwt_attention_case *c) {
    return (const rwt_pattern_fields *)&c->causal;
}

static const rwt_pattern_plan *pattern_of(const rwt_job *job) {
    return &((const rwt_attention_plan *)job->plan)->pattern;
}

int64_t rwt_attention_query_at(const rwt_job *job, const rwt_view *view, int64_t b, int64_t i,
                               int64_t h, int64_t d) {
    const bool ragged = rwt_attention_case_of(&job->c)->ragged != 0;
    return rwt_view_at(view, ragged ? 0 : b, rwt_pattern_first(pattern_of(job), b) + i, h, d);
}

int64_t rwt_attention_lse_at(const rwt_job *job, int64_t b, int64_t i, int64_t h) {
    const rwt_attention_plan *plan = job->plan;
    const bool ragged = rwt_attention_case_of(&job->c)->ragged != 0;
    return rwt_view_at(&plan->lse, ragged ? 0 : b, h, rwt_pattern_first(&plan->pattern, b) + i, 0);
}

int64_t rwt_attention_token(const rwt_job *job, int64_t b, int64_t i) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    return (c->ragged ? rwt_pattern_first(pattern_of(job), b) : b * c->seq_q) + i;
}

int64_t rwt_attention_max_seq_q(const rwt_attention_case *c) {
    return c->bounds_at_fault == BOUNDS_LONG ? c->seq_q - 1 : c->hint ? c->seq_q : 0;
}

int64_t rwt_attention_pages_each(const rwt_attention_case *c) {
    return c->seq_k / c->page_size;
}

int64_t rwt_attention_num_pages(const rwt_attention_case *c) {
    return c->batch * rwt_attention_pages_each(c) + 3;
}

int64_t rwt_attention_page_of(const rwt_job *job, int64_t b, int64_t j) {
    const rwt_attention_plan *plan = job->plan;
    int64_t n = j / rwt_attention_case_of(&job->c)->page_size;
    return rwt_buffer_get_id(job, plan->table.buffer, rwt_view_at(&plan->table, b, n, 0, 0));
}

int64_t rwt_attention_key_at(const rwt_job *job, const rwt_view *view, int64_t b, int64_t h,
                             int64_t j, int64_t d) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    const rwt_sequences *sequences = &pattern_of(job)->sequences;
    if (sequences->packed_k)
        return rwt_view_at(view, 0, sequences->k[b] + j, h, d);
    if (!c->paged)
        return rwt_view_at(view, b, j, h, d);
    return rwt_view_at(view, rwt_attention_page_of(job, b, j), j % c->page_size, h, d);
}

rwt_attention_hull rwt_attention_hull_of(const rwt_job *job, int64_t b, int64_t i) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    const rwt_attention_plan *plan = job->plan;
    rwt_attention_hull seen = {0, 0};
    for (int64_t j = 0; j < rwt_pattern_seq_k(&plan->pattern, b); j++) {
        rw_pattern_pair pair = {b, i, j};
        if (!rwt_pattern_sees(job, rwt_attention_pattern_of(c), &plan->pattern, &pair))
            continue;
        if (seen.end == 0)
            seen.begin = j;
        seen.end = j + 1;
    }
    return seen;
}

bool rwt_attention_has_cells(const rwt_attention_case *c) {
    return c->bits || c->hide || c->globals;
}

/* A score, and the magnitudes that f32 rounds while computing it. */
typedef struct score {
    bool sees;
    double s;
    double carried;
} score;

static double scale_of(const rwt_attention_case *c) {
    double scale = rwt_attention_scale(c);
    return scale != 0.0 ? scale : 1.0 / sqrt((double)c->head_dim);
}

static double mask_at(const rwt_job *job, int64_t h, const rw_pattern_pair *pair) {
    const rwt_attention_plan *plan = job->plan;
    bool full = rwt_attention_case_of(&job->c)->mask == 1;
    if (plan->mask.buffer < 0)
        return 0.0;
    return rwt_mask_get(job, &plan->mask,
                        rwt_view_at(&plan->mask, pair->b, full ? h : 0,
                                    full ? rwt_pattern_first(&plan->pattern, pair->b) + pair->i : 0,
                                    pair->j));
}

/* The scale of a cache for query head h. */
static double cache_scale(const rwt_job *job, const rwt_view *scale, int64_t h) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    if (scale->buffer < 0)
        return 1.0;
    return rwt_buffer_get(job, scale->buffer, c->kv_scale == 1 ? 0 : h / c->group);
}

static score score_of(const rwt_job *job, int64_t h, const rw_pattern_pair *pair) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    const rwt_attention_plan *plan = job->plan;
    score result = {.sees =
                        rwt_pattern_sees(job, rwt_attention_pattern_of(c), &plan->pattern, pair)};
    if (!result.sees)
        return result;
    const double scale = scale_of(c);
    const double k_scale = cache_scale(job, &plan->k_scale, h);
    const int64_t q = rwt_attention_query_at(job, &plan->q, pair->b, pair->i, h, 0);
    const int64_t k = rwt_attention_key_at(job, &plan->k, pair->b, h / c->group, pair->j, 0);
    for (int64_t d = 0; d < c->head_dim; d++) {
        double x = rwt_buffer_get(job, plan->q.buffer, q + d * plan->q.stride[3]);
        double y = k_scale * rwt_buffer_get(job, plan->k.buffer, k + d * plan->k.stride[3]);
        result.s += x * y * scale;
        result.carried += fabs(x * y * scale);
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
    if (c->extreme)
        result.carried = 0.0;
    return result;
}

/* The row's sums over the keys that it sees. */
typedef struct row_sums {
    double base;
    double sum;
    double carried; /* the largest of a key with nonzero weight */
} row_sums;

static row_sums sum_row(const rwt_job *job, int64_t h, int64_t seq_k, const score *row) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    const rwt_attention_plan *plan = job->plan;
    double sink = c->sinks ? rwt_buffer_get(job, plan->sinks.buffer, h) : -INFINITY;
    double of_keys = -INFINITY; /* the largest score of the keys; a sink may be much larger */
    for (int64_t j = 0; j < seq_k; j++)
        if (row[j].sees)
            of_keys = fmax(of_keys, row[j].s);
    double largest = fmax(sink, of_keys);
    row_sums sums = {.base = largest == -INFINITY ? 0.0 : largest};
    sums.sum = exp(sink - sums.base);
    for (int64_t j = 0; j < seq_k; j++) {
        double e = row[j].sees ? exp(row[j].s - sums.base) : 0.0;
        sums.sum += e;
        if (row[j].sees && row[j].s > of_keys - 21.0)
            sums.carried = fmax(sums.carried, row[j].carried + fabs(row[j].s - sums.base));
    }
    return sums;
}

/* Weights are rounded to the dtype of the inputs, an error of half its epsilon. Returns it in steps
 * of 4 epsilons of f32, the unit of rwt_expect_near(). */
static double weight_steps(const rwt_attention_case *c) {
    if (c->dtype == RW_F32)
        return 0.0;
    return rwt_dtype_epsilon((rw_dtype)c->dtype) / 2.0 / (4.0 * rwt_dtype_epsilon(RW_F32));
}

static void expect_row(rwt_job *job, int64_t b, int64_t h, int64_t i) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    const rwt_attention_plan *plan = job->plan;
    const int64_t seq_k = rwt_pattern_seq_k(&plan->pattern, b);
    score *row = rwt_allocate((size_t)seq_k * sizeof *row);
    for (int64_t j = 0; j < seq_k; j++) {
        rw_pattern_pair pair = {b, i, j};
        row[j] = score_of(job, h, &pair);
    }
    row_sums sums = sum_row(job, h, seq_k, row);
    const double v_scale = cache_scale(job, &plan->v_scale, h);
    double *out = rwt_allocate((size_t)c->v_dim * sizeof *out);
    double *size = rwt_allocate((size_t)c->v_dim * sizeof *size);
    for (int64_t j = 0; j < seq_k; j++) {
        double share = row[j].sees && sums.sum != 0.0 ? exp(row[j].s - sums.base) / sums.sum : 0.0;
        if (share == 0.0)
            continue;
        double exponent = row[j].carried + fabs(row[j].s - sums.base);
        double steps = 3.0 + sums.carried + exponent + weight_steps(c);
        int64_t v = rwt_attention_key_at(job, &plan->v, b, h / c->group, j, 0);
        for (int64_t d = 0; d < c->v_dim; d++) {
            double x = v_scale * rwt_buffer_get(job, plan->v.buffer, v + d * plan->v.stride[3]);
            out[d] += share * x;
            size[d] += share * fabs(x) * steps;
        }
    }
    for (int64_t d = 0; d < c->v_dim; d++)
        rwt_expect_near(job, plan->out.buffer, rwt_attention_query_at(job, &plan->out, b, i, h, d),
                        out[d], size[d]);
    free(out);
    free(size);
    if (plan->lse.buffer >= 0)
        rwt_expect_near(job, plan->lse.buffer, rwt_attention_lse_at(job, b, i, h),
                        sums.sum == 0.0 ? -INFINITY : sums.base + log(sums.sum),
                        fabs(sums.base) + 1.0 + sums.carried);
    free(row);
}

/* False where a page that query i needs is invalid; *bad receives the first such number. */
static bool pages_are_valid(const rwt_job *job, int64_t b, int64_t i, int64_t *bad) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    if (!c->paged || rwt_attention_has_cells(c))
        return true;
    rwt_attention_hull seen = rwt_attention_hull_of(job, b, i);
    for (int64_t j = seen.begin; j < seen.end; j++) {
        *bad = rwt_attention_page_of(job, b, j);
        if (*bad < 0 || *bad >= rwt_attention_num_pages(c))
            return false;
    }
    return true;
}

/* Nothing is written. */
static void expect_bounds_fault(rwt_job *job) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    const rwt_attention_plan *plan = job->plan;
    const bool first = c->bounds_at_fault == BOUNDS_FIRST || c->bounds_at_fault == BOUNDS_LONG;
    const bool keys = c->bounds_at_fault == BOUNDS_KEYS;
    const rwt_view *bounds = keys ? &plan->cu_k : &plan->cu_q;
    const int64_t b = first ? 0 : c->batch - 1, at = c->bounds_at_fault == BOUNDS_FIRST ? 0 : b + 1;
    const int64_t bad = rwt_buffer_get_id(job, bounds->buffer, rwt_view_at(bounds, at, 0, 0, 0));
    const int64_t begin =
        rwt_buffer_get_id(job, plan->cu_q.buffer, rwt_view_at(&plan->cu_q, b, 0, 0, 0));
    rwt_expect_fault(job, begin < plan->tokens ? begin : plan->tokens - 1, RW_FAULT_LENGTH, bad);
}

void rwt_attention_reference(rwt_job *job) {
    const rwt_attention_case *c = rwt_attention_case_of(&job->c);
    const rwt_attention_plan *plan = job->plan;
    if (c->bounds_at_fault)
        expect_bounds_fault(job);
    for (int64_t b = 0; b < c->batch && !c->bounds_at_fault; b++)
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t i = 0; i < rwt_pattern_seq_q(&plan->pattern, b); i++) {
                int64_t bad;
                if (!rwt_pattern_is_valid(job, rwt_attention_pattern_of(c), &plan->pattern, b, i,
                                          &bad))
                    rwt_expect_fault(job, rwt_attention_token(job, b, i), RW_FAULT_LENGTH, bad);
                else if (!pages_are_valid(job, b, i, &bad))
                    rwt_expect_fault(job, rwt_attention_token(job, b, i), RW_FAULT_PAGE, bad);
                else
                    expect_row(job, b, h, i);
            }
    /* attention_combine's driver calls rw_attention(), and its first launch reports. */
    job->fault.operation = "attention";
}
