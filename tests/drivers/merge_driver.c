/* rw_attention_merge: cases, buffers and the naive reference. */
#include "drivers/driver_fields.h"

#include <math.h>

static const char *const words_layout[] = {"bhsd", "bshd", "thd", NULL};
static const char *const words_target[] = {"separate", "a", "b", NULL};
static const char *const words_empty[] = {"none", "some", "all", NULL};

/* spread: LSEs are in [-spread, spread]. empty: queries whose parts have no keys; their out is
 * poisoned and must not affect the result. nan: one part has a NaN. heads_last: LSEs are in memory
 * [batch, seq, heads]. */
#define MERGE_FIELDS(FIELD)                                                                        \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(out_dtype, RW_F32, rwt_words_dtype)                                                      \
    FIELD(batch, 2, NULL)                                                                          \
    FIELD(heads, 3, NULL)                                                                          \
    FIELD(seq, 5, NULL)                                                                            \
    FIELD(head_dim, 16, NULL)                                                                      \
    FIELD(layout, 0, words_layout)                                                                 \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(target, 0, words_target)                                                                 \
    FIELD(spread, 4, NULL)                                                                         \
    FIELD(empty, 1, words_empty)                                                                   \
    FIELD(nan, 0, NULL)                                                                            \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(heads_last, 0, NULL)                                                                     \
    FIELD(seed, 0, NULL)

typedef struct merge_case {
    MERGE_FIELDS(RWT_MEMBER)
} merge_case;

static const rwt_field merge_fields[] = {MERGE_FIELDS(RWT_FIELD)};

typedef struct merge_plan {
    rwt_view out[3]; /* a, b, merged */
    rwt_view lse[3];
} merge_plan;

/* Packed tensors: they have no batch axis, which is a batch of 1. */
#define LAYOUT_THD 2

static const merge_case *merge_case_of(const rwt_case *c) {
    return (const merge_case *)c->values;
}

static void add_part(rwt_job *job, int part) {
    static const char *const out_names[] = {"a.out", "b.out", "merged.out"};
    static const char *const lse_names[] = {"a.lse", "b.lse", "merged.lse"};
    static const int orders[][RW_MAX_RANK] = {{0, 2, 1, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}};
    const merge_case *c = merge_case_of(&job->c);
    merge_plan *plan = job->plan;
    rwt_stride_style style = (rwt_stride_style)c->stride;
    rwt_layout out = {4, {c->batch, c->seq, c->heads, c->head_dim}, orders[c->layout], style};
    static const int heads_last[RW_MAX_RANK] = {0, 2, 1};
    rwt_layout lse = {3, {c->batch, c->heads, c->seq}, c->heads_last ? heads_last : NULL, style};
    rwt_buffer_spec out_spec = {.name = out_names[part],
                                .dtype = (rw_dtype)(part == 2 ? c->out_dtype : c->dtype),
                                .misalign = c->misalign};
    rwt_buffer_spec lse_spec = {.name = lse_names[part], .dtype = RW_F32};
    plan->out[part] = rwt_view_add(job, &out, out_spec);
    plan->lse[part] = rwt_view_add(job, &lse, lse_spec);
}

static void set(rwt_job *job, const rwt_view *view, int64_t element, double value) {
    rwt_buffer *buffer = &job->buffers[view->buffer];
    rwt_store(buffer->dtype, buffer->initial, element, value);
}

/* One query of one part. */
static void fill_query(rwt_job *job, int part, int64_t b, int64_t h, int64_t i) {
    const merge_case *c = merge_case_of(&job->c);
    const merge_plan *plan = job->plan;
    double spread = (double)c->spread;
    bool empty = c->empty == 2 || (c->empty == 1 && rwt_random_below(&job->random, 3) == 0);
    double lse = empty ? -INFINITY : rwt_random_uniform(&job->random, -spread, spread);
    set(job, &plan->lse[part], rwt_view_at(&plan->lse[part], b, h, i, 0), lse);
    for (int64_t column = 0; column < c->head_dim; column++) {
        double x = rwt_random_uniform(&job->random, -2.0, 2.0);
        set(job, &plan->out[part], rwt_view_at(&plan->out[part], b, i, h, column), empty ? NAN : x);
    }
    if (c->nan && part == 0 && !empty && i == 0 && c->head_dim > 0)
        set(job, &plan->out[part], rwt_view_at(&plan->out[part], b, i, h, 0), NAN);
}

static void merge_fill(rwt_job *job) {
    const merge_case *c = merge_case_of(&job->c);
    merge_plan *plan = job->plan;
    add_part(job, 0);
    add_part(job, 1);
    if (c->target) {
        plan->out[2] = plan->out[c->target - 1];
        plan->lse[2] = plan->lse[c->target - 1];
    } else {
        add_part(job, 2);
    }
    for (int part = 0; part < 2; part++)
        for (int64_t b = 0; b < c->batch; b++)
            for (int64_t h = 0; h < c->heads; h++)
                for (int64_t i = 0; i < c->seq; i++)
                    fill_query(job, part, b, h, i);
}

static void expect_query(rwt_job *job, int64_t b, int64_t h, int64_t i) {
    const merge_case *c = merge_case_of(&job->c);
    const merge_plan *plan = job->plan;
    double lse[2], weight[2];
    for (int part = 0; part < 2; part++) {
        lse[part] =
            rwt_buffer_get(job, plan->lse[part].buffer, rwt_view_at(&plan->lse[part], b, h, i, 0));
        weight[part] = exp(lse[part]);
    }
    double total = weight[0] + weight[1];
    rwt_expect_near(job, plan->lse[2].buffer, rwt_view_at(&plan->lse[2], b, h, i, 0),
                    total > 0.0 ? log(total) : -INFINITY,
                    fmax(isinf(lse[0]) ? 0.0 : fabs(lse[0]), isinf(lse[1]) ? 0.0 : fabs(lse[1])));
    for (int64_t column = 0; column < c->head_dim; column++) {
        double sum = 0.0, magnitude = 0.0;
        for (int part = 0; part < 2; part++) {
            double x = rwt_buffer_get(job, plan->out[part].buffer,
                                      rwt_view_at(&plan->out[part], b, i, h, column));
            if (weight[part] == 0.0)
                continue;
            sum += weight[part] / total * x;
            magnitude = fmax(magnitude, fabs(x));
        }
        /* exp() of a difference of LSEs has an error proportional to their size. */
        double spread = fmax(1.0, (double)c->spread / 8.0);
        rwt_expect_near(job, plan->out[2].buffer, rwt_view_at(&plan->out[2], b, i, h, column), sum,
                        magnitude * spread);
    }
}

static void merge_reference(rwt_job *job) {
    const merge_case *c = merge_case_of(&job->c);
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t i = 0; i < c->seq; i++)
                expect_query(job, b, h, i);
}

static void merge_bind(const rwt_job *job, rwt_set *set_of_buffers) {
    const merge_plan *plan = job->plan;
    rw_attention_merge_args *args = set_of_buffers->args;
    rw_attention_part *parts[] = {&args->a, &args->b, &args->merged};
    for (int part = 0; part < 3; part++) {
        parts[part]->out = rwt_tensor(job, set_of_buffers, &plan->out[part]);
        parts[part]->lse = rwt_tensor(job, set_of_buffers, &plan->lse[part]);
        if (merge_case_of(&job->c)->layout == LAYOUT_THD) {
            parts[part]->out = rwt_without_batch(parts[part]->out);
            parts[part]->lse = rwt_without_batch(parts[part]->lse);
        }
    }
}

static rw_status merge_run(const rwt_binding *binding, const void *args) {
    return rw_attention_merge(binding->context, args);
}

static double merge_elements(const rwt_job *job) {
    const merge_case *c = merge_case_of(&job->c);
    return (double)(c->batch * c->heads * c->seq * c->head_dim);
}

static double merge_bytes(const rwt_job *job) {
    const merge_case *c = merge_case_of(&job->c);
    return merge_elements(job) * (double)(2 * rw_dtype_size((rw_dtype)c->dtype) +
                                          rw_dtype_size((rw_dtype)c->out_dtype)) +
           12.0 * (double)(c->batch * c->heads * c->seq);
}

static double merge_flops(const rwt_job *job) {
    return 3.0 * merge_elements(job);
}

static const char *merge_invalid(const rwt_case *row) {
    const merge_case *c = merge_case_of(row);
    if (c->batch < 0 || c->heads < 0 || c->seq < 0 || c->head_dim < 0 || c->misalign < 0 ||
        c->spread < 1 || c->spread > 500)
        return "a length is negative, or spread is not 1 to 500";
    if (c->layout == LAYOUT_THD && c->batch != 1)
        return "layout=thd has no batch";
    if (c->target && c->dtype != c->out_dtype)
        return "in place, the dtypes are one";
    return NULL;
}

static const rwt_case_row merge_rows[] = {
    {RWT_QUICK, "dtype=f32|f16|bf16,out_dtype=f32|f16|bf16,stride=contiguous|gaps|negative,"
                "layout=bhsd|bshd"},
    {RWT_QUICK, "layout=thd,batch=1,dtype=f32|bf16,stride=contiguous|gaps|negative"},
    {RWT_QUICK, "target=a|b,stride=contiguous|gaps|negative,empty=none|some|all"},
    {RWT_QUICK, "target=a|b,dtype=bf16,out_dtype=bf16,head_dim=128"},
    {RWT_QUICK, "head_dim=0|1|3|8|100|128|129|300|512|575,dtype=f32|bf16,out_dtype=bf16"},
    {RWT_QUICK, "spread=1|30|80|300,empty=none|some"},
    {RWT_QUICK, "nan=1,dtype=f32|f16"},
    {RWT_QUICK, "heads_last=1,layout=bshd,stride=contiguous|gaps|negative,target=separate|a|b"},
    {RWT_QUICK, "heads_last=1,layout=thd,batch=1,empty=some"},
    {RWT_QUICK, "batch=0|1,heads=0|1,seq=0|1|300"},
    {RWT_QUICK, "misalign=1|2,dtype=f32|f16"},
    {RWT_FULL, "batch=3,heads=8,seq=257,head_dim=128,dtype=f32|bf16,out_dtype=f32|bf16"},
    {RWT_QUICK, NULL}};

static const char merge_random[] =
    "dtype=f32|f16|bf16,out_dtype=f32|f16|bf16,batch=0..3,heads=0..5,seq=0..40,head_dim=0..150,"
    "layout=bhsd|bshd|thd,stride=contiguous|gaps|negative,target=separate|a|b,spread=1..80,"
    "empty=none|some|all,nan=0|0|1,misalign=0|0|1..8,heads_last=0|1";

static const rwt_benchmark merge_benchmarks[] = {
    {"bf16 8x32x1024x128",
     "dtype=bf16,out_dtype=bf16,batch=8,heads=32,seq=1024,head_dim=128,empty=none", true, true,
     false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_attention_merge_driver = {
    .name = "attention_merge",
    .fields = merge_fields,
    .num_fields = RWT_COUNT(merge_fields),
    .rows = merge_rows,
    .random = merge_random,
    .num_random = 100,
    .benchmarks = merge_benchmarks,
    .plan_size = sizeof(merge_plan),
    .args_size = sizeof(rw_attention_merge_args),
    .invalid = merge_invalid,
    .fill = merge_fill,
    .reference = merge_reference,
    .bind = merge_bind,
    .run = merge_run,
    .bytes = merge_bytes,
    .flops = merge_flops,
};
