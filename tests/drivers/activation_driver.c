/* rw_glu: cases, buffers and the naive reference. */
#include "drivers/driver_fields.h"

#include <math.h>

static const char *const words_form[] = {"separate",    "gate_first",           "up_first",
                                         "interleaved", "interleaved_up_first", NULL};
static const char *const words_activation[] = {"silu", "gelu", "gelu_tanh", "relu", "relu2", NULL};
static const char *const words_target[] = {"out", "in", "gate", "up", NULL};

typedef enum form {
    FORM_SEPARATE = 0, /* else 1 + rw_glu_packing */
    FORM_GATE_FIRST,
    FORM_UP_FIRST,
    FORM_INTERLEAVED,
    FORM_INTERLEAVED_UP_FIRST
} form;

typedef enum target {
    TARGET_OUT = 0,
    TARGET_IN,   /* no out: in place in gate */
    TARGET_GATE, /* out is the view of gate */
    TARGET_UP
} target;

/* rank: axes, the last of batch, seq, rows, hidden. rows_first: in memory rows are outside seq.
 * spread: gates are within 2 * spread. alpha: in thousandths. zero: at a gate of
 * -Inf. */
#define GLU_FIELDS(FIELD)                                                                          \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(form, FORM_SEPARATE, words_form)                                                         \
    FIELD(rank, 2, NULL)                                                                           \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(seq, 1, NULL)                                                                            \
    FIELD(rows, 3, NULL)                                                                           \
    FIELD(hidden, 64, NULL)                                                                        \
    FIELD(rows_first, 0, NULL)                                                                     \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(target, TARGET_OUT, words_target)                                                        \
    FIELD(activation, RW_GLU_SILU, words_activation)                                               \
    FIELD(zero, 0, NULL)                                                                           \
    FIELD(limit, 0, NULL)                                                                          \
    FIELD(alpha, 0, NULL)                                                                          \
    FIELD(up_offset, 0, NULL)                                                                      \
    FIELD(spread, 1, NULL)                                                                         \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(up_misalign, 0, NULL)                                                                    \
    FIELD(values, RWT_ORDINARY, rwt_words_values)                                                  \
    FIELD(seed, 0, NULL)

typedef struct glu_case {
    GLU_FIELDS(RWT_MEMBER)
} glu_case;

static const rwt_field glu_fields[] = {GLU_FIELDS(RWT_FIELD)};

/* A packed tensor is also described by views gate and up, whose columns may be `step` apart. */
typedef struct glu_plan {
    rwt_view packed;
    rwt_view gate;
    rwt_view up;
    rwt_view out;
    int64_t step;
} glu_plan;

static const glu_case *glu_case_of(const rwt_case *c) {
    return (const glu_case *)c->values;
}

static const char *glu_invalid(const rwt_case *row) {
    const glu_case *c = glu_case_of(row);
    if (c->batch < 0 || c->seq < 0 || c->rows < 0 || c->hidden < 0 || c->misalign < 0)
        return "a length is negative";
    if (c->rank < 1 || c->rank > 4)
        return "rank is 1 to 4";
    if ((c->rank < 4 && c->batch != 1) || (c->rank < 3 && c->seq != 1) ||
        (c->rank < 2 && c->rows != 1))
        return "axes that rank leaves out are 1 long";
    if (c->rows_first && c->rank < 3)
        return "rows_first needs an axis before rows";
    if (c->form != FORM_SEPARATE && c->target == TARGET_IN)
        return "a packed tensor needs out";
    if (c->form >= FORM_INTERLEAVED && c->target != TARGET_OUT)
        return "interleaved columns are not written";
    if (c->limit < 0 || c->alpha < 0)
        return "limit and alpha are positive, or 0";
    if (c->alpha && c->activation != RW_GLU_SILU)
        return "alpha is silu's";
    return NULL;
}

static rwt_layout glu_layout(const glu_case *c, int64_t hidden) {
    static const int rows_first_3[RW_MAX_RANK] = {1, 0, 2};
    static const int rows_first_4[RW_MAX_RANK] = {0, 2, 1, 3};
    const int64_t shape[RW_MAX_RANK] = {c->batch, c->seq, c->rows, hidden};
    rwt_layout layout = {.rank = (int)c->rank, .style = (rwt_stride_style)c->stride};
    for (int axis = 0; axis < layout.rank; axis++)
        layout.shape[axis] = shape[RW_MAX_RANK - layout.rank + axis];
    if (c->rows_first)
        layout.order = c->rank == 3 ? rows_first_3 : rows_first_4;
    return layout;
}

static rwt_view add_view(rwt_job *job, const char *name, int64_t hidden, int64_t misalign) {
    const glu_case *c = glu_case_of(&job->c);
    rwt_layout layout = glu_layout(c, hidden);
    rwt_buffer_spec spec = {.name = name, .dtype = (rw_dtype)c->dtype, .misalign = misalign};
    return rwt_view_add(job, &layout, spec);
}

/* Fills a buffer; values may be as large as gates. */
static void fill(rwt_job *job, int buffer) {
    const glu_case *c = glu_case_of(&job->c);
    rwt_buffer_fill(job, buffer, (rwt_values)c->values);
    for (int64_t i = 0; c->spread != 1 && i < job->buffers[buffer].elements; i++)
        rwt_buffer_set(job, buffer, i, rwt_buffer_get(job, buffer, i) * (double)c->spread);
}

static void plan_packed(rwt_job *job) {
    const glu_case *c = glu_case_of(&job->c);
    glu_plan *plan = job->plan;
    plan->packed = add_view(job, "packed", 2 * c->hidden, c->misalign);
    fill(job, plan->packed.buffer);
    plan->gate = plan->packed;
    plan->gate.shape[c->rank - 1] = c->hidden;
    plan->up = plan->gate;
    plan->step = c->form >= FORM_INTERLEAVED ? 2 : 1;
    bool up_first = c->form == FORM_UP_FIRST || c->form == FORM_INTERLEAVED_UP_FIRST;
    rwt_view *second = up_first ? &plan->gate : &plan->up;
    second->offset += plan->step == 2 ? 1 : c->hidden;
}

static void glu_fill(rwt_job *job) {
    const glu_case *c = glu_case_of(&job->c);
    glu_plan *plan = job->plan;
    plan->step = 1;
    plan->packed = rwt_view_absent;
    if (c->form == FORM_SEPARATE) {
        plan->gate = add_view(job, "gate", c->hidden, c->misalign);
        plan->up = add_view(job, "up", c->hidden, c->up_misalign);
        fill(job, plan->gate.buffer);
        rwt_buffer_fill(job, plan->up.buffer, (rwt_values)c->values);
    } else {
        plan_packed(job);
    }
    plan->out = c->target == TARGET_UP ? plan->up : plan->gate;
    if (c->target == TARGET_OUT)
        plan->out = add_view(job, "out", c->hidden, c->misalign);
}

/* NaN is kept. */
static double clamp(double value, double low, double high) {
    return value < low ? low : value > high ? high : value;
}

static double activation(const glu_case *c, double gate, double alpha) {
    double relu = gate < 0.0 ? 0.0 : gate;
    switch ((rw_glu_activation)c->activation) {
    case RW_GLU_SILU:
        return gate / (1.0 + exp(-alpha * gate));
    case RW_GLU_GELU:
        return gate * 0.5 * erfc(-gate * sqrt(0.5));
    case RW_GLU_GELU_TANH: /* 1 + tanh(z) = 2 / (1 + exp(-2 z)) */
        return gate /
               (1.0 + exp(-2.0 * sqrt(2.0 / acos(-1.0)) * gate * (1.0 + 0.044715 * gate * gate)));
    case RW_GLU_RELU:
        return relu;
    case RW_GLU_RELU2:
        return relu * relu;
    }
    return NAN;
}

static void reference_element(rwt_job *job, int64_t row, int64_t column) {
    const glu_case *c = glu_case_of(&job->c);
    const glu_plan *plan = job->plan;
    int64_t in = column * plan->step, out = plan->out.offset + column;
    const int64_t index[3] = {row / (c->seq * c->rows), row / c->rows % c->seq, row % c->rows};
    for (int axis = 0; axis < c->rank - 1; axis++) {
        int64_t i = index[3 - (c->rank - 1) + axis];
        in += i * plan->gate.stride[axis]; /* up has the same strides */
        out += i * plan->out.stride[axis];
    }
    double gate = rwt_buffer_get(job, plan->gate.buffer, plan->gate.offset + in);
    double up = rwt_buffer_get(job, plan->up.buffer, plan->up.offset + in);
    double limit = c->limit ? (double)c->limit : INFINITY;
    double alpha = c->alpha ? (double)((float)c->alpha / 1000.0f) : 1.0;
    double offset = (double)c->up_offset;
    gate = clamp(gate, -INFINITY, limit);
    up = clamp(up, -limit, limit);
    if (c->zero && gate == -INFINITY)
        gate = 0.0;
    double active = activation(c, gate, alpha);
    double size = fabs(active) * (c->activation == RW_GLU_GELU ? 2.0 : 1.0);
    if (isinf(up) && fabs(active) < 0x1p-149) /* in f32 the result is 0 * Inf or Inf */
        rwt_expect_not_finite(job, plan->out.buffer, out);
    else
        rwt_expect_near(job, plan->out.buffer, out, active * (up + offset),
                        size * (fabs(up) + fabs(offset)));
}

static void glu_reference(rwt_job *job) {
    const glu_case *c = glu_case_of(&job->c);
    for (int64_t row = 0; row < c->batch * c->seq * c->rows; row++) {
        for (int64_t column = 0; column < c->hidden; column++)
            reference_element(job, row, column);
    }
}

static void glu_bind(const rwt_job *job, rwt_set *set) {
    const glu_case *c = glu_case_of(&job->c);
    const glu_plan *plan = job->plan;
    rw_glu_args *args = set->args;
    if (c->form == FORM_SEPARATE) {
        args->gate = rwt_tensor(job, set, &plan->gate);
        args->up = rwt_tensor(job, set, &plan->up);
    } else {
        args->packed = rwt_tensor(job, set, &plan->packed);
        args->packing = (rw_glu_packing)(c->form - FORM_GATE_FIRST);
    }
    if (c->target != TARGET_IN)
        args->out = rwt_tensor(job, set, &plan->out);
    args->activation = (rw_glu_activation)c->activation;
    args->zero_at_minus_infinity = c->zero;
    args->limit = (float)c->limit;
    args->alpha = (float)c->alpha / 1000.0f;
    args->up_offset = (float)c->up_offset;
}

static rw_status glu_run(const rwt_binding *binding, const void *args) {
    return rw_glu(binding->context, args);
}

static double glu_elements(const rwt_job *job) {
    const glu_case *c = glu_case_of(&job->c);
    return (double)(c->batch * c->seq * c->rows * c->hidden);
}

static double glu_bytes(const rwt_job *job) {
    rw_dtype dtype = (rw_dtype)glu_case_of(&job->c)->dtype;
    return 3.0 * glu_elements(job) * (double)rw_dtype_size(dtype);
}

static double glu_flops(const rwt_job *job) {
    return 5.0 * glu_elements(job);
}

#define ACTIVATIONS "activation=gelu|gelu_tanh|relu|relu2"
#define FORMS "form=separate|gate_first|up_first|interleaved|interleaved_up_first"

static const rwt_case_row glu_rows[] = {
    {RWT_QUICK, "dtype=f32|f16|bf16," FORMS ",stride=contiguous|gaps|negative,hidden=40"},
    {RWT_QUICK, "dtype=f32|f16|bf16,target=out|in|gate|up,hidden=32|33"},
    {RWT_QUICK, "dtype=f32|bf16,form=gate_first|up_first,target=gate|up,hidden=32|7"},
    {RWT_QUICK, "rank=1,rows=1,dtype=f32|f16," FORMS ",hidden=24"},
    {RWT_QUICK, "rank=3,seq=3,rows=4,rows_first=0|1," FORMS ",hidden=16,stride=contiguous|gaps"},
    {RWT_QUICK, "rank=4,batch=2,seq=3,rows=2,rows_first=0|1,form=separate|gate_first|interleaved,"
                "hidden=24,dtype=f32|bf16,stride=contiguous|gaps"},
    {RWT_QUICK, "hidden=1|2|3|4|5|7|8|9|15|16|17|31|33|63|65|127|255|257|511|512|513|1025,"
                "dtype=f32|f16|bf16,form=separate|interleaved"},
    {RWT_QUICK, "limit=0|1|7,alpha=0|1702,up_offset=0|1|-1,dtype=f32|f16|bf16,spread=1|10,"
                "form=separate|interleaved"},
    {RWT_QUICK, "spread=40|50|100|1000|30000,dtype=f32|f16|bf16,alpha=0|1702|3000,hidden=333"},
    {RWT_QUICK, "spread=1000000000|1000000000000000000,dtype=f32|bf16,hidden=64,limit=0|7"},
    {RWT_QUICK, "misalign=1|2|3|7,up_misalign=0|1,dtype=f32|f16|bf16,hidden=64"},
    {RWT_QUICK, "misalign=1|2,dtype=f32|bf16," FORMS ",hidden=64"},
    {RWT_QUICK, "rank=4,batch=0|2,seq=0|2,rows=0|2,hidden=0|8," FORMS},
    {RWT_QUICK, "values=special,dtype=f32|f16|bf16," FORMS ",limit=0|7,alpha=0|1702,rows=9"},
    {RWT_QUICK, ACTIVATIONS ",dtype=f32|f16|bf16,spread=1|3|8|50,hidden=300," FORMS},
    {RWT_QUICK, ACTIVATIONS ",limit=0|7,up_offset=0|1,dtype=f32|bf16,spread=10,hidden=33"},
    {RWT_QUICK, ACTIVATIONS ",spread=1000|1000000000|1000000000000000000,dtype=f32|bf16"},
    {RWT_QUICK, ACTIVATIONS ",values=special,zero=0|1,dtype=f32|f16|bf16,rows=30,limit=0|7,"
                            "form=separate|interleaved"},
    {RWT_QUICK, ACTIVATIONS ",hidden=1|7|8|511|513,target=gate|up,misalign=0|1,dtype=f32|bf16"},
    {RWT_QUICK, "values=special,zero=1,dtype=f32|f16|bf16,rows=30,alpha=0|1702"},
    {RWT_FULL, ACTIVATIONS ",rows=200,hidden=1000,spread=7,dtype=f32|f16|bf16"},
    {RWT_FULL, "rows=500,hidden=129|512,dtype=f32|f16|bf16,form=separate|gate_first|interleaved"},
    {RWT_FULL, "rows=2,hidden=100003,dtype=f32|bf16,form=separate|interleaved"},
    {RWT_FULL, "rows=65541,hidden=129,dtype=bf16"}, /* more than 2^16 lines of blocks on a GPU */
    {RWT_LARGE, "rows=512,hidden=11008,dtype=f32|f16|bf16,form=separate|up_first|interleaved"},
    {RWT_QUICK, NULL}};

static const char glu_random[] =
    "dtype=f32|f16|bf16," FORMS ",rank=2..4,batch=1|1|2,seq=1|1|3,rows=0..9,hidden=0..600,"
    "rows_first=0|1,stride=contiguous|gaps|negative,target=out|out|in|gate|up,limit=0|0|1|7,"
    "alpha=0|0|1702|500,activation=silu|silu|gelu|gelu_tanh|relu|relu2,zero=0|0|1,up_offset=0|0|1,"
    "spread=1|1|20|200,misalign=0|0|1..8,"
    "up_misalign=0|0|1..8,values=ordinary|ordinary|special";

static const rwt_benchmark glu_benchmarks[] = {
    {"f32 512x11008", "rows=512,hidden=11008", true, false, false},
    {"f16 512x11008", "dtype=f16,rows=512,hidden=11008", true, false, false},
    {"bf16 512x11008", "dtype=bf16,rows=512,hidden=11008", true, false, false},
    {"bf16 8192x14336", "dtype=bf16,rows=8192,hidden=14336", false, true, false},
    {"bf16 8192x14336 gelu_tanh", "dtype=bf16,rows=8192,hidden=14336,activation=gelu_tanh", false,
     true, false},
    {"f32 512x11008 gelu", "rows=512,hidden=11008,activation=gelu", true, false, false},
    {"bf16 8192x14336 packed", "dtype=bf16,rows=8192,hidden=14336,form=gate_first", false, true,
     false},
    {"bf16 8192x2880 interleaved, clamped",
     "dtype=bf16,rows=8192,hidden=2880,form=interleaved,limit=7,alpha=1702,up_offset=1", false,
     true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_glu_driver = {
    .name = "glu",
    .fields = glu_fields,
    .num_fields = RWT_COUNT(glu_fields),
    .rows = glu_rows,
    .random = glu_random,
    .num_random = 200,
    .benchmarks = glu_benchmarks,
    .plan_size = sizeof(glu_plan),
    .args_size = sizeof(rw_glu_args),
    .invalid = glu_invalid,
    .fill = glu_fill,
    .reference = glu_reference,
    .bind = glu_bind,
    .run = glu_run,
    .bytes = glu_bytes,
    .flops = glu_flops,
};
