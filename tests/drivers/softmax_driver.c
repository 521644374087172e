/* rw_scale, rw_mask_apply and rw_softmax: buffers and the naive references. */
#include <math.h>
#include <stdlib.h>

#include "drivers/softmax_case.h"

static const char *const words_mask[] = {"none", "full", "queries", "keys", "vector", NULL};
static const char *const words_alibi[] = {"none", "absolute", "signed", NULL};
static const char *const words_scores[] = {"ordinary", "special", "large", "lowest", NULL};

static const rwt_field scores_fields[] = {SCORES_FIELDS(RWT_FIELD)};

typedef struct scores_plan {
    rwt_view x; /* rank 4 */
    rwt_view out;
    rwt_view mask; /* rank 4, stride 0 along missing axes */
    rwt_view slopes;
    rwt_view sinks;
    rwt_pattern_plan pattern;
} scores_plan;

typedef struct scores_call {
    rw_scale_args scale;
    rw_mask_apply_args mask;
    rw_softmax_args softmax;
    rw_pattern pattern;
    rw_alibi alibi;
} scores_call;

/* ---- buffers ---- */

static void fill_scores(rwt_job *job, int buffer, int64_t kind) {
    rwt_buffer *x = &job->buffers[buffer];
    rwt_buffer_fill(job, buffer, kind == RWT_SPECIAL ? RWT_SPECIAL : RWT_ORDINARY);
    for (int64_t n = 0; kind >= SCORES_LARGE && n < x->elements; n++)
        rwt_store(x->dtype, x->initial, n,
                  kind == SCORES_LOWEST ? -INFINITY : 30.0 * rwt_load(x->dtype, x->initial, n));
}

/* The mask with its axes, and a view of rank 4 over it; filled with typical values. */
static void add_mask(rwt_job *job) {
    static const double values[] = {0.0, -INFINITY, -1e4, -65504.0, -3.25, 1.5};
    const scores_case *c = scores_case_of(&job->c);
    scores_plan *plan = job->plan;
    bool rows = c->mask == MASK_FULL || c->mask == MASK_QUERIES;
    int64_t batch = c->mask == MASK_FULL || c->mask == MASK_KEYS ? c->batch : 1;
    rwt_layout layout = {
        4,
        {batch, c->mask == MASK_FULL ? c->heads : 1, rows ? c->seq_q : 1, c->seq_k},
        NULL,
        RWT_GAPS};
    plan->mask = rwt_mask_view_add(job, &layout, "mask", c->mask_dtype);
    rwt_mask_fill(job, &plan->mask, values, RWT_COUNT(values));
}

/* The element of x of a pair. */
static int64_t x_at(const scores_plan *plan, int64_t h, const rw_pattern_pair *pair) {
    return rwt_view_at(&plan->x, pair->b, h, pair->i, pair->j);
}

/* NaN at hidden keys; or one NaN at a visible key. */
static void set_nans(rwt_job *job) {
    const scores_case *c = scores_case_of(&job->c);
    scores_plan *plan = job->plan;
    rwt_buffer *x = &job->buffers[plan->x.buffer];
    bool one_nan = c->one_nan != 0;
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t i = 0; i < c->seq_q; i++)
                for (int64_t j = c->seq_k - 1; j >= 0; j--) {
                    rw_pattern_pair pair = {b, i, j};
                    bool sees = rwt_pattern_sees(job, scores_pattern_of(c), &plan->pattern, &pair);
                    if ((c->poison && !sees) || (one_nan && sees)) {
                        rwt_store(x->dtype, x->initial, x_at(plan, h, &pair), NAN);
                        one_nan = one_nan && !sees;
                    }
                }
}

static void add_scores(rwt_job *job) {
    const scores_case *c = scores_case_of(&job->c);
    scores_plan *plan = job->plan;
    rwt_layout layout = {
        4, {c->batch, c->heads, c->seq_q, c->seq_k}, NULL, (rwt_stride_style)c->stride};
    rwt_buffer_spec spec = {.name = "x", .dtype = (rw_dtype)c->dtype, .misalign = c->misalign};
    plan->x = rwt_view_add(job, &layout, spec);
    fill_scores(job, plan->x.buffer, c->scores);
    plan->out = plan->x;
    spec.name = "out";
    if (c->placement == RWT_OUT_OF_PLACE)
        plan->out = rwt_view_add(job, &layout, spec);
    plan->mask = rwt_view_absent;
    plan->slopes = rwt_view_absent;
    plan->sinks = rwt_view_absent;
}

static void masked_fill(rwt_job *job) {
    const scores_case *c = scores_case_of(&job->c);
    scores_plan *plan = job->plan;
    rw_pattern_shape shape = {c->batch, c->seq_q, c->seq_k};
    add_scores(job);
    if (c->mask)
        add_mask(job);
    rwt_pattern_add(job, scores_pattern_of(c), &shape, &plan->pattern);
    if (c->poison || c->one_nan)
        set_nans(job);
}

static void softmax_fill(rwt_job *job) {
    const scores_case *c = scores_case_of(&job->c);
    scores_plan *plan = job->plan;
    masked_fill(job);
    rwt_layout heads = {1, {c->heads}, NULL, RWT_CONTIGUOUS};
    rwt_buffer_spec slopes = {.name = "slopes", .dtype = RW_F32};
    rwt_buffer_spec sinks = {.name = "sinks", .dtype = (rw_dtype)c->dtype};
    if (c->alibi) {
        plan->slopes = rwt_view_add(job, &heads, slopes);
        rwt_buffer_fill(job, plan->slopes.buffer, RWT_ORDINARY);
    }
    if (c->sinks) {
        plan->sinks = rwt_view_add(job, &heads, sinks);
        rwt_buffer_fill(job, plan->sinks.buffer, RWT_ORDINARY);
    }
}

/* ---- references ---- */

static double factor(const scores_case *c) {
    return (double)(float)((double)c->percent / 100.0);
}

static void scale_reference(rwt_job *job) {
    const scores_case *c = scores_case_of(&job->c);
    const scores_plan *plan = job->plan;
    for (int64_t n = 0; n < c->batch * c->heads * c->seq_q * c->seq_k; n++) {
        rw_pattern_pair pair = {n / c->seq_k / c->seq_q / c->heads, n / c->seq_k % c->seq_q,
                                n % c->seq_k};
        int64_t h = n / c->seq_k / c->seq_q % c->heads;
        double x = rwt_buffer_get(job, plan->x.buffer, x_at(plan, h, &pair));
        rwt_expect_near(job, plan->out.buffer, rwt_view_at(&plan->out, pair.b, h, pair.i, pair.j),
                        x * factor(c), 0.0);
    }
}

static double mask_value(const rwt_job *job, int64_t h, const rw_pattern_pair *pair) {
    const scores_plan *plan = job->plan;
    const int64_t at[] = {pair->b, h, pair->i, pair->j};
    int64_t index[4];
    if (plan->mask.buffer < 0)
        return 0.0;
    for (int axis = 0; axis < 4; axis++)
        index[axis] = plan->mask.shape[axis] == 1 ? 0 : at[axis];
    return rwt_mask_get(job, &plan->mask,
                        rwt_view_at(&plan->mask, index[0], index[1], index[2], index[3]));
}

/* Calls expect_row for the rows whose pattern is valid. */
static void for_each_row(rwt_job *job,
                         void (*expect_row)(rwt_job *job, int64_t b, int64_t h, int64_t i)) {
    const scores_case *c = scores_case_of(&job->c);
    const scores_plan *plan = job->plan;
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t i = 0; i < c->seq_q; i++) {
                int64_t bad;
                if (c->seq_k == 0)
                    continue;
                if (rwt_pattern_is_valid(job, scores_pattern_of(c), &plan->pattern, b, i, &bad))
                    expect_row(job, b, h, i);
                else
                    rwt_expect_fault(job, b * c->seq_q + i, RW_FAULT_LENGTH, bad);
            }
}

static void expect_masked_row(rwt_job *job, int64_t b, int64_t h, int64_t i) {
    const scores_case *c = scores_case_of(&job->c);
    const scores_plan *plan = job->plan;
    for (int64_t j = 0; j < c->seq_k; j++) {
        rw_pattern_pair pair = {b, i, j};
        bool sees = rwt_pattern_sees(job, scores_pattern_of(c), &plan->pattern, &pair);
        double x = rwt_buffer_get(job, plan->x.buffer, x_at(plan, h, &pair));
        rwt_expect_near(job, plan->out.buffer, rwt_view_at(&plan->out, b, h, i, j),
                        sees ? x + mask_value(job, h, &pair) : -INFINITY, 0.0);
    }
}

static void mask_reference(rwt_job *job) {
    for_each_row(job, expect_masked_row);
}

/* A score, and the magnitudes that f32 rounds while computing it. */
typedef struct score {
    bool sees;
    double s;
    double carried;
} score;

static score score_of(const rwt_job *job, int64_t h, const rw_pattern_pair *pair) {
    const scores_case *c = scores_case_of(&job->c);
    const scores_plan *plan = job->plan;
    score result = {.sees = rwt_pattern_sees(job, scores_pattern_of(c), &plan->pattern, pair)};
    if (!result.sees)
        return result;
    double s = rwt_buffer_get(job, plan->x.buffer, x_at(plan, h, pair)) * factor(c);
    if (c->softcap > 0)
        s = (double)c->softcap * tanh(s / (double)c->softcap);
    result.carried = fabs(s) * (c->softcap > 0 ? 4.0 : 1.0);
    if (c->alibi) {
        int64_t shift =
            rwt_pattern_shift(job, scores_pattern_of(c)->align, &plan->pattern, pair->b);
        double distance = (double)(pair->j - pair->i - shift);
        double slope = rwt_buffer_get(job, plan->slopes.buffer, h);
        double bias = slope * (c->alibi == 2 ? distance : -fabs(distance));
        s += bias;
        result.carried += 2.0 * fabs(bias) + fabs(s);
    }
    double mask = mask_value(job, h, pair);
    result.s = s + mask;
    result.carried += fabs(result.s) + fabs(mask);
    return result;
}

/* An error of a score is a relative error of its exponential; the relative error of the sum is
 * their weighted mean. */
static void expect_softmax_row(rwt_job *job, int64_t b, int64_t h, int64_t i) {
    const scores_case *c = scores_case_of(&job->c);
    const scores_plan *plan = job->plan;
    score *row = rwt_allocate((size_t)c->seq_k * sizeof *row);
    double sink = c->sinks ? rwt_buffer_get(job, plan->sinks.buffer, h) : -INFINITY;
    double largest = sink, sum = 0.0, carried = 0.0;
    for (int64_t j = 0; j < c->seq_k; j++) {
        rw_pattern_pair pair = {b, i, j};
        row[j] = score_of(job, h, &pair);
        if (row[j].sees)
            largest = fmax(largest, row[j].s);
    }
    double base = largest == -INFINITY ? 0.0 : largest;
    sum = exp(sink - base);
    for (int64_t j = 0; j < c->seq_k; j++) {
        if (!row[j].sees)
            continue;
        double e = exp(row[j].s - base);
        row[j].carried += fabs(row[j].s - base) + fabs(base);
        carried += e > 0.0 ? e * row[j].carried : 0.0;
        sum += e;
    }
    for (int64_t j = 0; j < c->seq_k; j++) {
        double share = row[j].sees ? exp(row[j].s - base) / sum : 0.0;
        if (row[j].sees && sum == 0.0)
            share = 0.0;
        double scale = share > 0.0 ? share * (1.0 + (row[j].carried + carried / sum) / 8.0) : 0.0;
        rwt_expect_near(job, plan->out.buffer, rwt_view_at(&plan->out, b, h, i, j), share, scale);
    }
    free(row);
}

static void softmax_reference(rwt_job *job) {
    for_each_row(job, expect_softmax_row);
}

/* ---- calls ---- */

/* The tensor of a view of rank 4 with its last `rank` axes. */
static rw_tensor trailing(const rwt_job *job, const rwt_set *set, const rwt_view *view, int rank) {
    rw_tensor tensor = rwt_tensor(job, set, view);
    for (; tensor.rank > rank; tensor.rank--)
        for (int axis = 0; axis + 1 < tensor.rank; axis++) {
            tensor.shape[axis] = tensor.shape[axis + 1];
            tensor.stride[axis] = tensor.stride[axis + 1];
        }
    return tensor;
}

static void scores_bind(const rwt_job *job, rwt_set *set) {
    const scores_case *c = scores_case_of(&job->c);
    const scores_plan *plan = job->plan;
    scores_call *call = set->args;
    int rank = (int)c->rank;
    int mask_rank = c->mask == MASK_QUERIES ? 2 : c->mask == MASK_VECTOR ? 1 : rank;
    rw_tensor x = trailing(job, set, &plan->x, rank), out = {0};
    if (c->placement != RWT_IN_PLACE)
        out = trailing(job, set, &plan->out, rank);
    call->scale = (rw_scale_args){.x = x, .out = out, .scale = factor(c)};
    call->pattern = rwt_pattern_bind(job, set, scores_pattern_of(c), &plan->pattern);
    call->mask = (rw_mask_apply_args){.x = x, .out = out, .pattern = &call->pattern};
    if (plan->mask.buffer >= 0)
        call->mask.mask = trailing(job, set, &plan->mask, mask_rank);
    call->softmax = (rw_softmax_args){
        .x = x,
        .out = out,
        .scale = c->percent == 100 ? 0.0 : factor(c),
        .softcap = (double)c->softcap,
        .mask = call->mask.mask,
        .pattern = &call->pattern,
    };
    if (plan->slopes.buffer >= 0) {
        call->alibi =
            (rw_alibi){rwt_tensor(job, set, &plan->slopes), c->alibi == 2, call->pattern.alignment};
        call->softmax.alibi = &call->alibi;
    }
    if (plan->sinks.buffer >= 0)
        call->softmax.sinks = rwt_tensor(job, set, &plan->sinks);
}

static rw_status scale_run(const rwt_binding *binding, const void *args) {
    const scores_call *call = args;
    return rw_scale(binding->context, &call->scale);
}

static rw_status mask_run(const rwt_binding *binding, const void *args) {
    const scores_call *call = args;
    return rw_mask_apply(binding->context, &call->mask);
}

static rw_status softmax_run(const rwt_binding *binding, const void *args) {
    const scores_call *call = args;
    return rw_softmax(binding->context, &call->softmax);
}

static double elements(const rwt_job *job) {
    const scores_case *c = scores_case_of(&job->c);
    return (double)(c->batch * c->heads * c->seq_q * c->seq_k);
}

static double mask_bytes(const rwt_job *job) {
    const scores_plan *plan = job->plan;
    double bytes = 0.0;
    if (plan->mask.buffer >= 0)
        bytes = (double)job->buffers[plan->mask.buffer].elements *
                (double)rw_dtype_size(job->buffers[plan->mask.buffer].dtype);
    return bytes;
}

static double scale_bytes(const rwt_job *job) {
    return 2.0 * elements(job) * (double)rw_dtype_size((rw_dtype)scores_case_of(&job->c)->dtype);
}

static double apply_bytes(const rwt_job *job) {
    return scale_bytes(job) + mask_bytes(job);
}

/* Hidden keys are not read. */
static double softmax_bytes(const rwt_job *job) {
    const scores_case *c = scores_case_of(&job->c);
    const scores_plan *plan = job->plan;
    double seen = rwt_pattern_count(job, scores_pattern_of(c), &plan->pattern) * (double)c->heads;
    return (elements(job) + seen) * (double)rw_dtype_size((rw_dtype)c->dtype) + mask_bytes(job);
}

static double no_flops(const rwt_job *job) {
    (void)job;
    return 0.0;
}

const rwt_driver rwt_scale_driver = {
    .name = "scale",
    .fields = scores_fields,
    .num_fields = RWT_COUNT(scores_fields),
    .rows = scale_rows,
    .random = "dtype=f32|f16|bf16,batch=1..3,heads=1..4,seq_q=1..9,seq_k=1..200,percent=1..400,"
              "placement=out|in|same,stride=contiguous|gaps|negative",
    .num_random = 30,
    .benchmarks = scale_benchmarks,
    .plan_size = sizeof(scores_plan),
    .args_size = sizeof(scores_call),
    .invalid = scores_invalid,
    .fill = masked_fill,
    .reference = scale_reference,
    .bind = scores_bind,
    .run = scale_run,
    .bytes = scale_bytes,
    .flops = no_flops,
};

const rwt_driver rwt_mask_apply_driver = {
    .name = "mask_apply",
    .fields = scores_fields,
    .num_fields = RWT_COUNT(scores_fields),
    .rows = mask_rows,
    .random = masked_random,
    .num_random = 80,
    .benchmarks = mask_benchmarks,
    .plan_size = sizeof(scores_plan),
    .args_size = sizeof(scores_call),
    .invalid = scores_invalid,
    .fill = masked_fill,
    .reference = mask_reference,
    .bind = scores_bind,
    .run = mask_run,
    .bytes = apply_bytes,
    .flops = no_flops,
};

const rwt_driver rwt_softmax_driver = {
    .name = "softmax",
    .fields = scores_fields,
    .num_fields = RWT_COUNT(scores_fields),
    .rows = softmax_rows,
    .random = masked_random,
    .num_random = 150,
    .benchmarks = softmax_benchmarks,
    .plan_size = sizeof(scores_plan),
    .args_size = sizeof(scores_call),
    .invalid = softmax_invalid,
    .fill = softmax_fill,
    .reference = softmax_reference,
    .bind = scores_bind,
    .run = softmax_run,
    .bytes = softmax_bytes,
    .flops = no_flops,
};
