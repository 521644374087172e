/* rw_alibi_slopes, rw_alibi_bias and rw_t5_bias: cases, buffers, references. */
#include <math.h>

#include "drivers/pattern_case.h"

static double no_flops(const rwt_job *job) {
    (void)job;
    return 0.0;
}

static double reference_slope(int64_t h, int64_t total) {
    double n = pow(2.0, floor(log2((double)total)));
    if ((double)h < n)
        return pow(2.0, -8.0 * (double)(h + 1) / n);
    return pow(2.0, -4.0 * (2.0 * ((double)h - n) + 1.0) / n);
}

/* ---- slopes ---- */

#define SLOPES_FIELDS(FIELD)                                                                       \
    FIELD(heads, 8, NULL)                                                                          \
    FIELD(first, 0, NULL)                                                                          \
    FIELD(total, 8, NULL)                                                                          \
    FIELD(seed, 0, NULL)

typedef struct slopes_case {
    SLOPES_FIELDS(RWT_MEMBER)
} slopes_case;

static const rwt_field slopes_fields[] = {SLOPES_FIELDS(RWT_FIELD)};

static const slopes_case *slopes_case_of(const rwt_case *c) {
    return (const slopes_case *)c->values;
}

static const char *slopes_invalid(const rwt_case *row) {
    const slopes_case *c = slopes_case_of(row);
    if (c->heads < 0 || c->first < 0 || c->total < 1 || c->first + c->heads > c->total)
        return "the heads are no range of the total";
    return NULL;
}

static void slopes_fill(rwt_job *job) {
    rwt_layout layout = {1, {slopes_case_of(&job->c)->heads}, NULL, RWT_CONTIGUOUS};
    rwt_view *out = job->plan;
    *out = rwt_view_add(job, &layout, (rwt_buffer_spec){.name = "out", .dtype = RW_F32});
}

static void slopes_reference(rwt_job *job) {
    const slopes_case *c = slopes_case_of(&job->c);
    for (int64_t h = 0; h < c->heads; h++)
        rwt_expect_near(job, 0, h, reference_slope(c->first + h, c->total), 0.0);
}

static void slopes_bind(const rwt_job *job, rwt_set *set) {
    const slopes_case *c = slopes_case_of(&job->c);
    rw_alibi_slopes_args *args = set->args;
    args->out = rwt_tensor(job, set, job->plan);
    args->first_head = c->first;
    args->total_heads = c->total;
}

static rw_status slopes_run(const rwt_binding *binding, const void *args) {
    return rw_alibi_slopes(binding->context, args);
}

static double slopes_bytes(const rwt_job *job) {
    return 4.0 * (double)slopes_case_of(&job->c)->heads;
}

static const rwt_case_row slopes_rows[] = {
    {RWT_QUICK, "heads=8,total=8|9|12|15|16|17|71|1000"},
    {RWT_QUICK, "heads=1,total=1|2|3"},
    {RWT_QUICK, "heads=12|112,total=112"},
    {RWT_QUICK, "heads=3,total=12,first=0|3|6|9"},
    {RWT_QUICK, "heads=0,total=5,first=0|5"},
    {RWT_QUICK, "heads=300,total=1048576,first=0|524200|1048276"},
    {RWT_QUICK, NULL}};

static const rwt_benchmark slopes_benchmarks[] = {
    {"64 heads", "heads=64,total=64", true, true, true}, {NULL, NULL, false, false, false}};

const rwt_driver rwt_alibi_slopes_driver = {
    .name = "alibi_slopes",
    .fields = slopes_fields,
    .num_fields = RWT_COUNT(slopes_fields),
    .rows = slopes_rows,
    .random = "heads=1..40,first=0..60,total=100..200",
    .num_random = 20,
    .benchmarks = slopes_benchmarks,
    .plan_size = sizeof(rwt_view),
    .args_size = sizeof(rw_alibi_slopes_args),
    .invalid = slopes_invalid,
    .fill = slopes_fill,
    .reference = slopes_reference,
    .bind = slopes_bind,
    .run = slopes_run,
    .bytes = slopes_bytes,
    .flops = no_flops,
};

/* ---- dense biases ---- */

static const char *const words_kind[] = {"absolute", "signed", NULL};

#define BIAS_FIELDS(FIELD)                                                                         \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(heads, 3, NULL)                                                                          \
    FIELD(seq_q, 11, NULL)                                                                         \
    FIELD(seq_k, 11, NULL)                                                                         \
    FIELD(align, RW_ALIGN_BOTTOM_RIGHT, rwt_words_align)                                           \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(seed, 0, NULL)

#define ALIBI_FIELDS(FIELD)                                                                        \
    BIAS_FIELDS(FIELD)                                                                             \
    FIELD(kind, 0, words_kind)

/* spare: heads of the table that belong to another shard. */
#define T5_FIELDS(FIELD)                                                                           \
    BIAS_FIELDS(FIELD)                                                                             \
    FIELD(table_dtype, RW_F32, rwt_words_dtype)                                                    \
    FIELD(buckets, 32, NULL)                                                                       \
    FIELD(max_distance, 128, NULL)                                                                 \
    FIELD(causal, 0, NULL)                                                                         \
    FIELD(spare, 0, NULL)

typedef struct bias_case {
    BIAS_FIELDS(RWT_MEMBER)
} bias_case;

typedef struct alibi_case {
    ALIBI_FIELDS(RWT_MEMBER)
} alibi_case;

typedef struct t5_case {
    T5_FIELDS(RWT_MEMBER)
} t5_case;

static const rwt_field alibi_fields[] = {ALIBI_FIELDS(RWT_FIELD)};
static const rwt_field t5_fields[] = {T5_FIELDS(RWT_FIELD)};

typedef struct bias_plan {
    rwt_view out;
    rwt_view in; /* slopes or table */
} bias_plan;

typedef struct bias_call {
    rw_alibi alibi;
    rw_tensor out;
    rw_t5_bias_args t5;
} bias_call;

static const bias_case *bias_case_of(const rwt_case *c) {
    return (const bias_case *)c->values;
}

static const t5_case *t5_case_of(const rwt_case *c) {
    return (const t5_case *)c->values;
}

static const char *bias_invalid(const rwt_case *row) {
    const bias_case *c = bias_case_of(row);
    if (c->heads < 0 || c->seq_q < 0 || c->seq_k < 0 || c->misalign < 0)
        return "a length is negative";
    if (c->align == RW_ALIGN_KEY_END)
        return "there is no key_end";
    return NULL;
}

static const char *t5_invalid(const rwt_case *row) {
    const t5_case *c = t5_case_of(row);
    int64_t side = c->causal ? c->buckets : c->buckets / 2;
    if (side < 2 || c->max_distance <= side / 2 || (!c->causal && c->buckets % 2))
        return "too few buckets, or too short a distance";
    return bias_invalid(row);
}

static void add_out(rwt_job *job) {
    const bias_case *c = bias_case_of(&job->c);
    bias_plan *plan = job->plan;
    rwt_layout layout = {3, {c->heads, c->seq_q, c->seq_k}, NULL, (rwt_stride_style)c->stride};
    rwt_buffer_spec spec = {.name = "out", .dtype = (rw_dtype)c->dtype, .misalign = c->misalign};
    plan->out = rwt_view_add(job, &layout, spec);
}

static void alibi_fill(rwt_job *job) {
    const bias_case *c = bias_case_of(&job->c);
    bias_plan *plan = job->plan;
    add_out(job);
    rwt_layout layout = {1, {c->heads}, NULL, RWT_CONTIGUOUS};
    plan->in = rwt_view_add(job, &layout, (rwt_buffer_spec){.name = "slopes", .dtype = RW_F32});
    rwt_buffer_fill(job, plan->in.buffer, RWT_ORDINARY);
}

static void t5_fill(rwt_job *job) {
    const t5_case *c = t5_case_of(&job->c);
    bias_plan *plan = job->plan;
    add_out(job);
    rwt_layout layout = {2, {c->buckets, c->heads + c->spare}, NULL, RWT_CONTIGUOUS};
    plan->in = rwt_view_add(job, &layout,
                            (rwt_buffer_spec){.name = "table", .dtype = (rw_dtype)c->table_dtype});
    rwt_buffer_fill(job, plan->in.buffer, RWT_ORDINARY);
    plan->in.shape[1] = c->heads;
    plan->in.offset = c->spare;
}

/* Expects value(job, h, key - position) everywhere. */
static void bias_reference(rwt_job *job,
                           double (*value)(const rwt_job *job, int64_t h, int64_t relative)) {
    const bias_case *c = bias_case_of(&job->c);
    const bias_plan *plan = job->plan;
    int64_t shift = c->align == RW_ALIGN_TOP_LEFT ? 0 : c->seq_k - c->seq_q;
    for (int64_t h = 0; h < c->heads; h++)
        for (int64_t i = 0; i < c->seq_q; i++)
            for (int64_t j = 0; j < c->seq_k; j++)
                rwt_expect_near(job, plan->out.buffer, rwt_view_at(&plan->out, h, i, j, 0),
                                value(job, h, j - i - shift), 0.0);
}

static double alibi_value(const rwt_job *job, int64_t h, int64_t relative) {
    const bias_plan *plan = job->plan;
    bool is_signed = ((const alibi_case *)job->c.values)->kind != 0;
    double slope = rwt_buffer_get(job, plan->in.buffer, h);
    return slope * (is_signed ? (double)relative : -fabs((double)relative));
}

static void alibi_reference(rwt_job *job) {
    bias_reference(job, alibi_value);
}

/* As in the paper's code, with logarithms in long double and a small tolerance where they are whole
 * numbers. */
static int64_t reference_bucket(const t5_case *c, int64_t relative) {
    int64_t buckets = c->buckets, base = 0, n = relative < 0 ? -relative : 0;
    if (!c->causal) {
        buckets /= 2;
        base = relative > 0 ? buckets : 0;
        n = relative < 0 ? -relative : relative;
    }
    int64_t exact = buckets / 2;
    if (n < exact)
        return base + n;
    long double share = logl((long double)n / (long double)exact) /
                        logl((long double)c->max_distance / (long double)exact);
    int64_t large = exact + (int64_t)(share * (long double)(buckets - exact) + 1e-12L);
    return base + (large < buckets - 1 ? large : buckets - 1);
}

static double t5_value(const rwt_job *job, int64_t h, int64_t relative) {
    const bias_plan *plan = job->plan;
    int64_t bucket = reference_bucket(t5_case_of(&job->c), relative);
    return rwt_buffer_get(job, plan->in.buffer, rwt_view_at(&plan->in, bucket, h, 0, 0));
}

static void t5_reference(rwt_job *job) {
    bias_reference(job, t5_value);
}

static void alibi_bind(const rwt_job *job, rwt_set *set) {
    const bias_plan *plan = job->plan;
    bias_call *call = set->args;
    call->out = rwt_tensor(job, set, &plan->out);
    call->alibi = (rw_alibi){
        .slopes = rwt_tensor(job, set, &plan->in),
        .is_signed = ((const alibi_case *)job->c.values)->kind != 0,
        .alignment = (rw_alignment)bias_case_of(&job->c)->align,
    };
}

static rw_status alibi_run(const rwt_binding *binding, const void *args) {
    const bias_call *call = args;
    return rw_alibi_bias(binding->context, &call->alibi, &call->out);
}

static rw_status t5_open(rwt_binding *binding) {
    const t5_case *c = t5_case_of(&binding->job->c);
    rw_t5_options options = {c->buckets, c->max_distance, c->causal != 0};
    return rw_t5_create(binding->context, &options, (rw_t5 **)&binding->objects[0]);
}

static void t5_close(rwt_binding *binding) {
    rw_t5_destroy(binding->objects[0]);
}

static void t5_bind(const rwt_job *job, rwt_set *set) {
    const bias_plan *plan = job->plan;
    bias_call *call = set->args;
    call->t5 = (rw_t5_bias_args){
        .table = rwt_tensor(job, set, &plan->in),
        .out = rwt_tensor(job, set, &plan->out),
        .alignment = (rw_alignment)bias_case_of(&job->c)->align,
    };
}

static rw_status t5_run(const rwt_binding *binding, const void *args) {
    const bias_call *call = args;
    return rw_t5_bias(binding->context, binding->objects[0], &call->t5);
}

static double bias_bytes(const rwt_job *job) {
    const bias_case *c = bias_case_of(&job->c);
    return (double)(c->heads * c->seq_q * c->seq_k) * (double)rw_dtype_size((rw_dtype)c->dtype);
}

static const rwt_case_row alibi_rows[] = {
    {RWT_QUICK, "kind=absolute|signed,align=bottom|top,seq_q=1|7|11|14,dtype=f32|f16|bf16"},
    {RWT_QUICK, "seq_q=0|1|3,seq_k=0|1|7|8|64|1027,heads=0|1|5,stride=contiguous|gaps|negative"},
    {RWT_QUICK, "seq_k=1024,dtype=f32|f16|bf16,misalign=0|1"},
    {RWT_FULL, "heads=1,seq_q=512,seq_k=4100,dtype=bf16,misalign=1"},
    {RWT_QUICK, NULL}};

static const rwt_benchmark bias_benchmarks[] = {
    {"f32 32x1024x1024", "heads=32,seq_q=1024,seq_k=1024", true, true, false},
    {"bf16 32x2048x2048", "heads=32,seq_q=2048,seq_k=2048,dtype=bf16", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_alibi_bias_driver = {
    .name = "alibi_bias",
    .fields = alibi_fields,
    .num_fields = RWT_COUNT(alibi_fields),
    .rows = alibi_rows,
    .random = "kind=absolute|signed,align=bottom|top,heads=1..5,seq_q=1..40,seq_k=1..99,dtype=f32|"
              "f16|bf16",
    .num_random = 30,
    .benchmarks = bias_benchmarks,
    .plan_size = sizeof(bias_plan),
    .args_size = sizeof(bias_call),
    .invalid = bias_invalid,
    .fill = alibi_fill,
    .reference = alibi_reference,
    .bind = alibi_bind,
    .run = alibi_run,
    .bytes = bias_bytes,
    .flops = no_flops,
};

static const rwt_case_row t5_rows[] = {
    {RWT_QUICK, "causal=0|1,align=bottom|top,seq_q=1|7|11|14,dtype=f32|f16|bf16,"
                "table_dtype=f32|f16|bf16"},
    {RWT_QUICK, "seq_q=0|1|33|70,seq_k=0|1|7|8|64|515,heads=0|1|2,stride=contiguous|gaps|negative"},
    {RWT_QUICK,
     "causal=0|1,buckets=4|6|10|32|64,max_distance=40|128|1000,seq_q=300,seq_k=300,heads=1"},
    {RWT_QUICK, "causal=1,buckets=2|3|5|31,max_distance=20|128,seq_q=200,seq_k=200,heads=1"},
    {RWT_QUICK, "spare=3,seq_q=9,dtype=f32|f16,misalign=0|1"},
    {RWT_QUICK, NULL}};

const rwt_driver rwt_t5_bias_driver = {
    .name = "t5_bias",
    .fields = t5_fields,
    .num_fields = RWT_COUNT(t5_fields),
    .rows = t5_rows,
    .random = "causal=0|1,align=bottom|top,heads=1..5,seq_q=1..40,seq_k=1..300,"
              "dtype=f32|f16|bf16,buckets=8|16|32|64,max_distance=50..500",
    .num_random = 30,
    .benchmarks = bias_benchmarks,
    .plan_size = sizeof(bias_plan),
    .args_size = sizeof(bias_call),
    .invalid = t5_invalid,
    .fill = t5_fill,
    .reference = t5_reference,
    .open = t5_open,
    .close = t5_close,
    .bind = t5_bind,
    .run = t5_run,
    .bytes = bias_bytes,
    .flops = no_flops,
};
