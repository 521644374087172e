/* rw_score_statistics: cases, buffers and the naive reference. */
#include "drivers/driver_fields.h"

#include <math.h>

#define STATISTICS_FIELDS(FIELD)                                                                   \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(id_dtype, 1, rwt_words_id_dtype)                                                         \
    FIELD(batch, 2, NULL)                                                                          \
    FIELD(heads, 3, NULL)                                                                          \
    FIELD(seq_q, 5, NULL)                                                                          \
    FIELD(seq_k, 7, NULL)                                                                          \
    FIELD(wanted, 31, NULL)                                                                        \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(values, RWT_SPECIAL, rwt_words_values)                                                   \
    FIELD(seed, 0, NULL)

typedef struct statistics_case {
    STATISTICS_FIELDS(RWT_MEMBER)
} statistics_case;

static const rwt_field statistics_fields[] = {STATISTICS_FIELDS(RWT_FIELD)};

enum {
    NUM_OUTPUTS = 5
};

typedef struct statistics_plan {
    rwt_view scores;
    rwt_view outputs[NUM_OUTPUTS]; /* min, max, mean, num_nan, num_inf */
} statistics_plan;

static const statistics_case *statistics_case_of(const rwt_case *c) {
    return (const statistics_case *)c->values;
}

static void statistics_fill(rwt_job *job) {
    static const char *const names[NUM_OUTPUTS] = {"min", "max", "mean", "num_nan", "num_inf"};
    const statistics_case *c = statistics_case_of(&job->c);
    statistics_plan *plan = job->plan;
    rwt_stride_style style = (rwt_stride_style)c->stride;
    rwt_layout layout = {4, {c->batch, c->heads, c->seq_q, c->seq_k}, NULL, style};
    rwt_buffer_spec spec = {.name = "scores", .dtype = (rw_dtype)c->dtype, .misalign = c->misalign};
    plan->scores = rwt_view_add(job, &layout, spec);
    rwt_buffer_fill(job, plan->scores.buffer, (rwt_values)c->values);
    for (int i = 0; i < NUM_OUTPUTS; i++) {
        rwt_layout heads = {2, {c->batch, c->heads}, NULL, style};
        rwt_buffer_spec output = {.name = names[i],
                                  .dtype = i < 3         ? RW_F32
                                           : c->id_dtype ? RW_I64
                                                         : RW_I32};
        plan->outputs[i] = rwt_view_absent;
        if (c->wanted >> i & 1)
            plan->outputs[i] = rwt_view_add(job, &heads, output);
    }
}

static void expect_head(rwt_job *job, int64_t b, int64_t h) {
    const statistics_case *c = statistics_case_of(&job->c);
    const statistics_plan *plan = job->plan;
    double least = NAN, most = NAN, sum = 0.0, magnitude = 0.0;
    int64_t finite = 0, counts[2] = {0, 0};
    for (int64_t i = 0; i < c->seq_q; i++) {
        for (int64_t j = 0; j < c->seq_k; j++) {
            double x =
                rwt_buffer_get(job, plan->scores.buffer, rwt_view_at(&plan->scores, b, h, i, j));
            counts[0] += isnan(x) != 0;
            counts[1] += isinf(x) != 0;
            if (!isfinite(x))
                continue;
            finite++;
            least = fmin(least, x);
            most = fmax(most, x);
            sum += x;
            magnitude += fabs(x);
        }
    }
    double n = (double)finite;
    const double values[3] = {least, most, sum / n};
    const double scales[3] = {0.0, 0.0, 1e-6 * magnitude / n};
    for (int i = 0; i < NUM_OUTPUTS; i++) {
        const rwt_view *output = &plan->outputs[i];
        if (output->buffer < 0)
            continue;
        int64_t element = rwt_view_at(output, b, h, 0, 0);
        if (i < 3)
            rwt_expect_near(job, output->buffer, element, finite ? values[i] : NAN, scales[i]);
        else
            rwt_expect_id(job, output->buffer, element, counts[i - 3]);
    }
}

static void statistics_reference(rwt_job *job) {
    const statistics_case *c = statistics_case_of(&job->c);
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t h = 0; h < c->heads; h++)
            expect_head(job, b, h);
}

static void statistics_bind(const rwt_job *job, rwt_set *set) {
    const statistics_plan *plan = job->plan;
    rw_score_statistics_args *args = set->args;
    args->scores = rwt_tensor(job, set, &plan->scores);
    args->min = rwt_tensor(job, set, &plan->outputs[0]);
    args->max = rwt_tensor(job, set, &plan->outputs[1]);
    args->mean = rwt_tensor(job, set, &plan->outputs[2]);
    args->num_nan = rwt_tensor(job, set, &plan->outputs[3]);
    args->num_inf = rwt_tensor(job, set, &plan->outputs[4]);
}

static rw_status statistics_run(const rwt_binding *binding, const void *args) {
    return rw_score_statistics(binding->context, args);
}

static double statistics_bytes(const rwt_job *job) {
    const rwt_buffer *scores = &job->buffers[0];
    return (double)scores->elements * (double)rw_dtype_size(scores->dtype);
}

static double statistics_flops(const rwt_job *job) {
    return (double)job->buffers[0].elements;
}

static const char *statistics_invalid(const rwt_case *row) {
    const statistics_case *c = statistics_case_of(row);
    if (c->batch < 0 || c->heads < 0 || c->seq_q < 0 || c->seq_k < 0 || c->misalign < 0)
        return "a length is negative";
    return c->wanted < 0 || c->wanted > 31 ? "wanted is a set of five" : NULL;
}

static const rwt_case_row statistics_rows[] = {
    {RWT_QUICK, "dtype=f32|f16|bf16,stride=contiguous|gaps|negative,values=ordinary|special,"
                "id_dtype=i32|i64"},
    {RWT_QUICK, "wanted=0|1|2|4|8|16|27"},
    {RWT_QUICK, "seq_q=0|1|64,seq_k=0|1|300,dtype=f32|bf16"},
    {RWT_QUICK, "batch=0|1,heads=0|1"},
    {RWT_FULL, "seq_q=100,seq_k=1001,misalign=1,dtype=f32|f16|bf16,values=ordinary|special"},
    {RWT_QUICK, NULL}};

static const char statistics_random[] =
    "dtype=f32|f16|bf16,batch=0..3,heads=0..5,seq_q=0..40,seq_k=0..300,wanted=0..31,"
    "stride=contiguous|gaps|negative,misalign=0|1..8,id_dtype=i32|i64,values=ordinary|special";

static const rwt_benchmark statistics_benchmarks[] = {
    {"f32 32x1024x1024", "batch=1,heads=32,seq_q=1024,seq_k=1024,values=ordinary", true, true,
     false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_score_statistics_driver = {
    .name = "score_statistics",
    .fields = statistics_fields,
    .num_fields = RWT_COUNT(statistics_fields),
    .rows = statistics_rows,
    .random = statistics_random,
    .num_random = 60,
    .benchmarks = statistics_benchmarks,
    .plan_size = sizeof(statistics_plan),
    .args_size = sizeof(rw_score_statistics_args),
    .invalid = statistics_invalid,
    .fill = statistics_fill,
    .reference = statistics_reference,
    .bind = statistics_bind,
    .run = statistics_run,
    .bytes = statistics_bytes,
    .flops = statistics_flops,
};
