/* rw_qk_matmul and rw_weighted_matmul: cases, buffers and the naive references. */
#include "drivers/driver_fields.h"

#include <math.h>

static const char *const words_layout[] = {"bhsd", "bshd", "hbsd", "thd", NULL};

/* Packed tensors: they have no batch axis, which is a batch of 1. */
#define LAYOUT_THD 3

/* A weight of 1 with many small ones, and values of 1. */
#define SMALL_PARTS (RWT_SPECIAL + 1)

static const char *const words_values[] = {"ordinary", "special", "small_parts", NULL};

/* wide: the weights are f32 for any dtype of v. scale: in 1/64; 0: absent. */
#define MATMUL_FIELDS(FIELD)                                                                       \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(out_dtype, RW_F32, rwt_words_dtype)                                                      \
    FIELD(wide, 0, NULL)                                                                           \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(heads, 4, NULL)                                                                          \
    FIELD(group, 2, NULL)                                                                          \
    FIELD(seq_q, 5, NULL)                                                                          \
    FIELD(seq_k, 7, NULL)                                                                          \
    FIELD(head_dim, 16, NULL)                                                                      \
    FIELD(scale, 0, NULL)                                                                          \
    FIELD(layout, 0, words_layout)                                                                 \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(values, RWT_ORDINARY, words_values)                                                      \
    FIELD(seed, 0, NULL)

typedef struct matmul_case {
    MATMUL_FIELDS(RWT_MEMBER)
} matmul_case;

static const rwt_field matmul_fields[] = {MATMUL_FIELDS(RWT_FIELD)};

typedef struct matmul_plan {
    rwt_view a;
    rwt_view b;
    rwt_view out;
} matmul_plan;

static const matmul_case *matmul_case_of(const rwt_case *c) {
    return (const matmul_case *)c->values;
}

/* [batch, heads, rows, columns]. */
static rwt_view add_scores(rwt_job *job, const char *name, rw_dtype dtype, int64_t rows,
                           int64_t columns) {
    static const int orders[][RW_MAX_RANK] = {
        {0, 1, 2, 3}, {0, 2, 1, 3}, {1, 0, 2, 3}, {0, 1, 2, 3}};
    const matmul_case *c = matmul_case_of(&job->c);
    rwt_layout layout = {
        4, {c->batch, c->heads, rows, columns}, orders[c->layout], (rwt_stride_style)c->stride};
    rwt_buffer_spec spec = {.name = name, .dtype = dtype, .misalign = c->misalign};
    return rwt_view_add(job, &layout, spec);
}

/* [batch, seq, heads, head_dim]. */
static rwt_view add_tokens(rwt_job *job, const char *name, rw_dtype dtype, int64_t seq,
                           int64_t heads) {
    static const int orders[][RW_MAX_RANK] = {
        {0, 2, 1, 3}, {0, 1, 2, 3}, {2, 0, 1, 3}, {0, 1, 2, 3}};
    const matmul_case *c = matmul_case_of(&job->c);
    rwt_layout layout = {
        4, {c->batch, seq, heads, c->head_dim}, orders[c->layout], (rwt_stride_style)c->stride};
    rwt_buffer_spec spec = {.name = name, .dtype = dtype, .misalign = c->misalign};
    return rwt_view_add(job, &layout, spec);
}

static void fill_inputs(rwt_job *job) {
    const matmul_case *c = matmul_case_of(&job->c);
    const matmul_plan *plan = job->plan;
    rwt_buffer_fill(job, plan->a.buffer, (rwt_values)c->values);
    rwt_buffer_fill(job, plan->b.buffer, (rwt_values)c->values);
}

static void qk_fill(rwt_job *job) {
    const matmul_case *c = matmul_case_of(&job->c);
    matmul_plan *plan = job->plan;
    plan->a = add_tokens(job, "q", (rw_dtype)c->dtype, c->seq_q, c->heads);
    plan->b = add_tokens(job, "k", (rw_dtype)c->dtype, c->seq_k, c->heads / c->group);
    plan->out = add_scores(job, "out", (rw_dtype)c->out_dtype, c->seq_q, c->seq_k);
    fill_inputs(job);
}

static void weighted_fill(rwt_job *job) {
    const matmul_case *c = matmul_case_of(&job->c);
    matmul_plan *plan = job->plan;
    rw_dtype weights = c->wide ? RW_F32 : (rw_dtype)c->dtype;
    plan->a = add_scores(job, "weights", weights, c->seq_q, c->seq_k);
    plan->b = add_tokens(job, "v", (rw_dtype)c->dtype, c->seq_k, c->heads / c->group);
    plan->out = add_tokens(job, "out", (rw_dtype)c->out_dtype, c->seq_q, c->heads);
    if (c->values != SMALL_PARTS) {
        fill_inputs(job);
        return;
    }
    for (int64_t n = 0; n < job->buffers[plan->a.buffer].elements; n++)
        rwt_buffer_set(job, plan->a.buffer, n, n % c->seq_k == 0 ? 1.0 : exp(-16.75));
    for (int64_t n = 0; n < job->buffers[plan->b.buffer].elements; n++)
        rwt_buffer_set(job, plan->b.buffer, n, 1.0);
}

/* Expects one element of the product: the sum over k of q[row, k] * k[column, k], or of
 * weights[row, k] * v[k, column]. With Inf or NaN among the terms, the order of the additions
 * decides between Inf and NaN: the result must only not be finite. The cases have no finite terms
 * whose partial sums exceed the range of f32. */
static void expect_dot_product(rwt_job *job, bool transposed, int64_t b, int64_t h, int64_t row,
                               int64_t column) {
    const matmul_case *c = matmul_case_of(&job->c);
    const matmul_plan *plan = job->plan;
    double scale = transposed && c->scale ? (double)(float)((double)c->scale / 64.0) : 1.0;
    double sum = 0.0, magnitude = 0.0;
    int64_t depth = plan->a.shape[3];
    for (int64_t k = 0; k < depth; k++) {
        int64_t at_a =
            transposed ? rwt_view_at(&plan->a, b, row, h, k) : rwt_view_at(&plan->a, b, h, row, k);
        int64_t at_b = transposed ? rwt_view_at(&plan->b, b, column, h / c->group, k)
                                  : rwt_view_at(&plan->b, b, k, h / c->group, column);
        double x = rwt_buffer_get(job, plan->a.buffer, at_a);
        double y = rwt_buffer_get(job, plan->b.buffer, at_b);
        sum += x * y;
        magnitude += fabs(x * y);
    }
    int64_t element = transposed ? rwt_view_at(&plan->out, b, h, row, column)
                                 : rwt_view_at(&plan->out, b, row, h, column);
    if (isinf(magnitude) || isnan(magnitude) || magnitude * fabs(scale) > 3e38)
        rwt_expect_not_finite(job, plan->out.buffer, element);
    else
        rwt_expect_near(job, plan->out.buffer, element, sum * scale,
                        magnitude * fabs(scale) * (c->values == SMALL_PARTS ? 16.0 : 1.0));
}

static void reference(rwt_job *job, bool transposed) {
    const matmul_case *c = matmul_case_of(&job->c);
    const matmul_plan *plan = job->plan;
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t row = 0; row < c->seq_q; row++)
                for (int64_t column = 0; column < plan->out.shape[3]; column++)
                    expect_dot_product(job, transposed, b, h, row, column);
}

static void qk_reference(rwt_job *job) {
    reference(job, true);
}

static void weighted_reference(rwt_job *job) {
    reference(job, false);
}

static rw_tensor bind(const rwt_job *job, rwt_set *set, const rwt_view *view) {
    rw_tensor tensor = rwt_tensor(job, set, view);
    return matmul_case_of(&job->c)->layout == LAYOUT_THD ? rwt_without_batch(tensor) : tensor;
}

static void qk_bind(const rwt_job *job, rwt_set *set) {
    const matmul_plan *plan = job->plan;
    rw_qk_matmul_args *args = set->args;
    args->q = bind(job, set, &plan->a);
    args->k = bind(job, set, &plan->b);
    args->out = bind(job, set, &plan->out);
    args->scale = (double)matmul_case_of(&job->c)->scale / 64.0;
}

static void weighted_bind(const rwt_job *job, rwt_set *set) {
    const matmul_plan *plan = job->plan;
    rw_weighted_matmul_args *args = set->args;
    args->weights = bind(job, set, &plan->a);
    args->v = bind(job, set, &plan->b);
    args->out = bind(job, set, &plan->out);
}

static rw_status qk_run(const rwt_binding *binding, const void *args) {
    return rw_qk_matmul(binding->context, args);
}

static rw_status weighted_run(const rwt_binding *binding, const void *args) {
    return rw_weighted_matmul(binding->context, args);
}

static double bytes(const rwt_job *job) {
    double sum = 0.0;
    for (int b = 0; b < job->num_buffers; b++)
        sum += (double)job->buffers[b].elements * (double)rw_dtype_size(job->buffers[b].dtype);
    return sum;
}

static double flops(const rwt_job *job) {
    const matmul_case *c = matmul_case_of(&job->c);
    return 2.0 * (double)(c->batch * c->heads * c->seq_q * c->seq_k * c->head_dim);
}

static const char *invalid(const rwt_case *row) {
    const matmul_case *c = matmul_case_of(row);
    if (c->batch < 0 || c->heads < 0 || c->seq_q < 0 || c->seq_k < 0 || c->head_dim < 0 ||
        c->misalign < 0)
        return "a length is negative";
    if (c->layout == LAYOUT_THD && c->batch != 1)
        return "layout=thd has no batch";
    if (c->group < 1 || c->heads % c->group != 0)
        return "group must divide heads";
    if (c->values == RWT_SPECIAL && (c->dtype != RW_F16 || c->out_dtype != RW_F32))
        return "special values require f16: products of others overflow f32";
    if (c->values == SMALL_PARTS && (c->layout || c->stride || c->out_dtype != RW_F32))
        return "small parts must be contiguous, and in f32";
    return NULL;
}

static const char *qk_invalid(const rwt_case *row) {
    if (matmul_case_of(row)->wide || matmul_case_of(row)->values == SMALL_PARTS)
        return "q and k have one dtype, and few columns";
    return invalid(row);
}

#define SHARED_ROWS                                                                                \
    {RWT_QUICK, "dtype=f32|f16|bf16,out_dtype=f32|f16|bf16,stride=contiguous|gaps|negative,"       \
                "batch=2"},                                                                        \
        {RWT_QUICK, "layout=bhsd|bshd|hbsd,batch=2,group=1|2|4,dtype=f32|bf16"},                   \
        {RWT_QUICK, "layout=thd,stride=contiguous|gaps|negative,group=1|2,dtype=f32|bf16"},        \
        {RWT_QUICK, "seq_q=0|1|3|17,seq_k=0|1|5|33,head_dim=0|1|7|24,dtype=f32|f16"},              \
        {RWT_QUICK, "batch=0|1,heads=0|2,group=1"},                                                \
        {RWT_QUICK, "seq_q=63|64|65|130,seq_k=64|67,head_dim=64|72,heads=2,dtype=f32|bf16"},       \
        {RWT_QUICK, "misalign=1|3,dtype=f32|f16,head_dim=40"},                                     \
        {RWT_QUICK, "head_dim=257|512|576,seq_q=3|17,seq_k=33,heads=2,dtype=f32|f16|bf16"},        \
        {RWT_QUICK, "values=special,dtype=f16,seq_q=9,seq_k=11"},                                  \
        {RWT_FULL, "seq_q=100,seq_k=515,head_dim=128|257,heads=6,group=3,dtype=f32|f16|bf16"}, {   \
        RWT_LARGE, "seq_q=2,seq_k=4099,head_dim=515,heads=2,dtype=bf16"                            \
    }

static const rwt_case_row qk_rows[] = {
    SHARED_ROWS, {RWT_QUICK, "scale=1|8|-64,dtype=f32|bf16,out_dtype=f32|bf16"}, {RWT_QUICK, NULL}};

static const rwt_case_row weighted_rows[] = {
    SHARED_ROWS,
    {RWT_QUICK, "values=small_parts,wide=0|1,dtype=f32|bf16,seq_k=8200|65536,seq_q=1,heads=1,"
                "group=1,head_dim=3,out_dtype=f32"},
    {RWT_QUICK, "wide=1,dtype=f16|bf16,out_dtype=f32|bf16,stride=contiguous|gaps,seq_k=70"},
    {RWT_QUICK, NULL}};

#define SHARED_RANDOM                                                                              \
    "dtype=f32|f16|bf16,out_dtype=f32|f16|bf16,batch=1|2,heads=0..8,group=1|2|3|4,seq_q=0..80,"    \
    "seq_k=0..80,head_dim=0..140,layout=bhsd|bshd|hbsd|thd,stride=contiguous|gaps|negative,"       \
    "misalign=0|0|1..8,"

static const char qk_random[] = SHARED_RANDOM "scale=0|0|1..100";
static const char weighted_random[] = SHARED_RANDOM "wide=0|1";

static const rwt_benchmark benchmarks[] = {
    {"f32 8/2x512x512x128", "heads=8,group=4,seq_q=512,seq_k=512,head_dim=128", true, true, false},
    {"bf16 32x2048x2048x128",
     "dtype=bf16,heads=32,group=1,seq_q=2048,seq_k=2048,head_dim=128,out_dtype=bf16", false, true,
     false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_qk_matmul_driver = {
    .name = "qk_matmul",
    .fields = matmul_fields,
    .num_fields = RWT_COUNT(matmul_fields),
    .rows = qk_rows,
    .random = qk_random,
    .num_random = 100,
    .benchmarks = benchmarks,
    .plan_size = sizeof(matmul_plan),
    .args_size = sizeof(rw_qk_matmul_args),
    .invalid = qk_invalid,
    .fill = qk_fill,
    .reference = qk_reference,
    .bind = qk_bind,
    .run = qk_run,
    .bytes = bytes,
    .flops = flops,
};

const rwt_driver rwt_weighted_matmul_driver = {
    .name = "weighted_matmul",
    .fields = matmul_fields,
    .num_fields = RWT_COUNT(matmul_fields),
    .rows = weighted_rows,
    .random = weighted_random,
    .num_random = 100,
    .benchmarks = benchmarks,
    .plan_size = sizeof(matmul_plan),
    .args_size = sizeof(rw_weighted_matmul_args),
    .invalid = invalid,
    .fill = weighted_fill,
    .reference = weighted_reference,
    .bind = weighted_bind,
    .run = weighted_run,
    .bytes = bytes,
    .flops = flops,
};
