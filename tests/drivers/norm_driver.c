/* rw_rms_norm and rw_layer_norm: cases, buffers and the naive references. */
#include "drivers/driver_fields.h"

#include <math.h>
#include <stdlib.h>

static const char *const words_weight[] = {"none", "f32", "f16", "bf16", NULL};
static const char *const words_residual[] = {"none", "out", "in", "to_x", "swap", NULL};
static const char *const words_cast[] = {"before", "after", NULL};

typedef enum residual_kind {
    RESIDUAL_NONE = 0,
    RESIDUAL_OUT,  /* the sum is written to separate memory */
    RESIDUAL_IN,   /* to the residual */
    RESIDUAL_TO_X, /* to x */
    RESIDUAL_SWAP  /* to x, and the result to the residual */
} residual_kind;

/* rank: axes of x, the last of batch, seq, heads, hidden. heads_first: in memory heads are outside
 * seq. power: x and the residual are multiplied by 10^power, with `mixed` every second 512 elements
 * of their storage. eps: 10^-eps, 0 for none. */
#define NORM_FIELDS(FIELD)                                                                         \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(rank, 2, NULL)                                                                           \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(seq, 1, NULL)                                                                            \
    FIELD(heads, 3, NULL)                                                                          \
    FIELD(hidden, 64, NULL)                                                                        \
    FIELD(heads_first, 0, NULL)                                                                    \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(placement, RWT_OUT_OF_PLACE, rwt_words_placement)                                        \
    FIELD(residual, RESIDUAL_NONE, words_residual)                                                 \
    FIELD(weight, 1, words_weight)                                                                 \
    FIELD(weight_offset, 0, NULL)                                                                  \
    FIELD(cast, RW_NORM_CAST_BEFORE_WEIGHT, words_cast)                                            \
    FIELD(eps, 6, NULL)                                                                            \
    FIELD(power, 0, NULL)                                                                          \
    FIELD(mixed, 0, NULL)                                                                          \
    FIELD(broadcast, 0, NULL)                                                                      \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(weight_misalign, 0, NULL)                                                                \
    FIELD(values, RWT_ORDINARY, rwt_words_values)                                                  \
    FIELD(seed, 0, NULL)

/* mean: added to x. */
#define LAYER_FIELDS(FIELD)                                                                        \
    NORM_FIELDS(FIELD)                                                                             \
    FIELD(bias, 0, words_weight)                                                                   \
    FIELD(bias_misalign, 0, NULL)                                                                  \
    FIELD(mean, 0, NULL)

/* The fields after those of rms_norm are 0 there. */
typedef struct norm_case {
    LAYER_FIELDS(RWT_MEMBER)
} norm_case;

static const rwt_field norm_fields[] = {NORM_FIELDS(RWT_FIELD)};
static const rwt_field layer_fields[] = {LAYER_FIELDS(RWT_FIELD)};

typedef struct norm_plan {
    rwt_view x;
    rwt_view weight;
    rwt_view bias;
    rwt_view residual;
    rwt_view sum;
    rwt_view out;
} norm_plan;

static const norm_case *norm_case_of(const rwt_case *c) {
    return (const norm_case *)c->values;
}

static const char *norm_invalid(const rwt_case *row) {
    const norm_case *c = norm_case_of(row);
    if (c->batch < 0 || c->seq < 0 || c->heads < 0 || c->hidden < 0 || c->misalign < 0)
        return "a length is negative";
    if (c->rank < 1 || c->rank > 4)
        return "rank is 1 to 4";
    if ((c->rank < 4 && c->batch != 1) || (c->rank < 3 && c->seq != 1) ||
        (c->rank < 2 && c->heads != 1))
        return "axes that rank leaves out are 1 long";
    if (c->heads_first && c->rank < 3)
        return "heads_first needs an axis before heads";
    if (c->weight_offset && !c->weight)
        return "weight_offset needs a weight";
    bool to_x = c->residual == RESIDUAL_TO_X || c->residual == RESIDUAL_SWAP;
    if (to_x && c->placement != RWT_OUT_OF_PLACE)
        return "where the sum goes to x, out is not x";
    if (c->broadcast && (to_x || c->placement != RWT_OUT_OF_PLACE || c->rank < 2))
        return "a broadcast x is not written";
    if (c->eps < 0 || llabs(c->power) > 30)
        return "eps is 10^-eps, power within 30";
    return NULL;
}

static rwt_layout norm_layout(const norm_case *c) {
    static const int heads_first_3[RW_MAX_RANK] = {1, 0, 2};
    static const int heads_first_4[RW_MAX_RANK] = {0, 2, 1, 3};
    const int64_t shape[RW_MAX_RANK] = {c->batch, c->seq, c->heads, c->hidden};
    rwt_layout layout = {.rank = (int)c->rank, .style = (rwt_stride_style)c->stride};
    for (int axis = 0; axis < layout.rank; axis++)
        layout.shape[axis] = shape[RW_MAX_RANK - layout.rank + axis];
    if (c->heads_first)
        layout.order = c->rank == 3 ? heads_first_3 : heads_first_4;
    return layout;
}

/* A tensor of x's shape, filled. */
static rwt_view add_filled(rwt_job *job, const char *name, int64_t misalign) {
    const norm_case *c = norm_case_of(&job->c);
    rwt_layout layout = norm_layout(c);
    rwt_buffer_spec spec = {.name = name, .dtype = (rw_dtype)c->dtype, .misalign = misalign};
    rwt_view view = rwt_view_add(job, &layout, spec);
    rwt_buffer_fill(job, view.buffer, (rwt_values)c->values);
    for (int64_t i = 0; (c->power || c->mean) && i < job->buffers[view.buffer].elements; i++) {
        bool multiplied = !c->mixed || i / 512 % 2 != 0;
        double factor = multiplied ? pow(10.0, (double)c->power) : 1.0;
        rwt_buffer_set(job, view.buffer, i,
                       rwt_buffer_get(job, view.buffer, i) * factor + (double)c->mean);
    }
    return view;
}

/* The weight or the bias, of dtype `kind` - 1; 0: absent. */
static rwt_view add_columns(rwt_job *job, const char *name, int64_t kind, int64_t misalign) {
    if (!kind)
        return rwt_view_absent;
    rwt_layout layout = {1, {norm_case_of(&job->c)->hidden}, NULL, RWT_CONTIGUOUS};
    rwt_buffer_spec spec = {.name = name, .dtype = (rw_dtype)(kind - 1), .misalign = misalign};
    rwt_view view = rwt_view_add(job, &layout, spec);
    rwt_buffer_fill(job, view.buffer, RWT_ORDINARY);
    return view;
}

static rwt_view add_empty(rwt_job *job, const char *name) {
    const norm_case *c = norm_case_of(&job->c);
    rwt_layout layout = norm_layout(c);
    rwt_buffer_spec spec = {.name = name, .dtype = (rw_dtype)c->dtype, .misalign = c->misalign};
    return rwt_view_add(job, &layout, spec);
}

static void norm_fill(rwt_job *job) {
    const norm_case *c = norm_case_of(&job->c);
    norm_plan *plan = job->plan;
    plan->x = add_filled(job, "x", c->misalign);
    plan->residual = plan->sum = rwt_view_absent;
    plan->out = plan->x;
    if (c->residual)
        plan->residual = add_filled(job, "residual", c->misalign);
    if (c->residual == RESIDUAL_OUT)
        plan->sum = add_empty(job, "residual_out");
    else if (c->residual)
        plan->sum = c->residual == RESIDUAL_IN ? plan->residual : plan->x;
    if (c->residual == RESIDUAL_SWAP)
        plan->out = plan->residual;
    else if (c->placement == RWT_OUT_OF_PLACE)
        plan->out = add_empty(job, "out");
    if (c->broadcast && c->heads > 0) {
        plan->x.offset += (c->heads / 2) * plan->x.stride[c->rank - 2];
        plan->x.stride[c->rank - 2] = 0;
    }
    plan->weight = add_columns(job, "weight", c->weight, c->weight_misalign);
    plan->bias = add_columns(job, "bias", c->bias, c->bias_misalign);
}

/* The element of a view of any rank at row (b, s, h) and a column. */
static int64_t element_of(const rwt_view *view, int64_t b, int64_t s, int64_t h, int64_t column) {
    const int64_t index[RW_MAX_RANK] = {b, s, h, column};
    int64_t element = view->offset;
    for (int axis = 0; axis < view->rank; axis++)
        element += index[RW_MAX_RANK - view->rank + axis] * view->stride[axis];
    return element;
}

static float norm_eps(const norm_case *c) {
    return c->eps ? (float)pow(10.0, -(double)c->eps) : 0.0f;
}

/* Computes the row that is normalized: x, or the sum as written, which is also expected. */
static void reference_sum(rwt_job *job, int64_t b, int64_t s, int64_t h, double *row) {
    const norm_case *c = norm_case_of(&job->c);
    const norm_plan *plan = job->plan;
    for (int64_t i = 0; i < c->hidden; i++) {
        row[i] = rwt_buffer_get(job, plan->x.buffer, element_of(&plan->x, b, s, h, i));
        if (!c->residual)
            continue;
        double residual =
            rwt_buffer_get(job, plan->residual.buffer, element_of(&plan->residual, b, s, h, i));
        double scale = fabs(row[i]) + fabs(residual);
        rwt_expect_near(job, plan->sum.buffer, element_of(&plan->sum, b, s, h, i),
                        row[i] + residual, scale);
        row[i] = rwt_round((rw_dtype)c->dtype, row[i] + residual);
    }
}

static void reference_row(rwt_job *job, int64_t b, int64_t s, int64_t h, const double *row) {
    const norm_case *c = norm_case_of(&job->c);
    const norm_plan *plan = job->plan;
    double sum = 0.0;
    for (int64_t i = 0; i < c->hidden; i++)
        sum += row[i] * row[i];
    double rms = sqrt(sum / (double)c->hidden + (double)norm_eps(c));
    for (int64_t i = 0; i < c->hidden; i++) {
        rwt_rounded value = {row[i] * (1.0 / rms), 0.0};
        double factor = 1.0, size = 1.0;
        if (c->weight) {
            factor =
                rwt_buffer_get(job, plan->weight.buffer, rwt_view_at(&plan->weight, i, 0, 0, 0));
            size = fabs(factor) + fabs((double)c->weight_offset);
            factor += (double)c->weight_offset;
            if (c->cast == RW_NORM_CAST_BEFORE_WEIGHT)
                value = rwt_round_near((rw_dtype)c->dtype, value.middle);
        }
        double scale = fabs(value.middle) * size +
                       value.reach * fabs(factor) / (4.0 * rwt_dtype_epsilon(RW_F32));
        rwt_expect_near(job, plan->out.buffer, element_of(&plan->out, b, s, h, i),
                        value.middle * factor, scale);
    }
}

/* Sums in long double: those of doubles are not more exact than the operation's. */
static void reference_layer_row(rwt_job *job, int64_t b, int64_t s, int64_t h, const double *row) {
    const norm_case *c = norm_case_of(&job->c);
    const norm_plan *plan = job->plan;
    long double sum = 0.0L, squares = 0.0L;
    for (int64_t i = 0; i < c->hidden; i++)
        sum += row[i];
    double mean = (double)(sum / (long double)c->hidden);
    long double middle = sum / (long double)c->hidden;
    for (int64_t i = 0; i < c->hidden; i++)
        squares += ((long double)row[i] - middle) * ((long double)row[i] - middle);
    double deviation = sqrt((double)(squares / (long double)c->hidden) + (double)norm_eps(c));
    for (int64_t i = 0; i < c->hidden; i++) {
        double value = (double)((long double)row[i] - middle) * (1.0 / deviation);
        double factor = 1.0, size = 1.0, bias = 0.0;
        if (c->weight) {
            factor =
                rwt_buffer_get(job, plan->weight.buffer, rwt_view_at(&plan->weight, i, 0, 0, 0));
            size = fabs(factor) + fabs((double)c->weight_offset);
            factor += (double)c->weight_offset;
        }
        if (c->bias)
            bias = rwt_buffer_get(job, plan->bias.buffer, rwt_view_at(&plan->bias, i, 0, 0, 0));
        double of_mean = 1e-10 * fabs(mean) / deviation / (4.0 * rwt_dtype_epsilon(RW_F32));
        double scale = (2.0 * fabs(value) + of_mean) * size + fabs(bias);
        rwt_expect_near(job, plan->out.buffer, element_of(&plan->out, b, s, h, i),
                        value * factor + bias, scale);
    }
}

typedef void reference_function(rwt_job *job, int64_t b, int64_t s, int64_t h, const double *row);

static void reference_rows(rwt_job *job, reference_function *reference) {
    const norm_case *c = norm_case_of(&job->c);
    double *row = rwt_allocate((size_t)c->hidden * sizeof *row);
    for (int64_t b = 0; b < c->batch; b++) {
        for (int64_t s = 0; s < c->seq; s++) {
            for (int64_t h = 0; h < c->heads; h++) {
                reference_sum(job, b, s, h, row);
                reference(job, b, s, h, row);
            }
        }
    }
    free(row);
}

static void norm_reference(rwt_job *job) {
    reference_rows(job, reference_row);
}

static void layer_reference(rwt_job *job) {
    reference_rows(job, reference_layer_row);
}

static void norm_bind(const rwt_job *job, rwt_set *set) {
    const norm_case *c = norm_case_of(&job->c);
    const norm_plan *plan = job->plan;
    rw_rms_norm_args *args = set->args;
    args->x = rwt_tensor(job, set, &plan->x);
    args->weight = rwt_tensor(job, set, &plan->weight);
    args->residual = rwt_tensor(job, set, &plan->residual);
    if (c->residual != RESIDUAL_IN)
        args->residual_out = rwt_tensor(job, set, &plan->sum);
    if (c->placement != RWT_IN_PLACE)
        args->out = rwt_tensor(job, set, &plan->out);
    args->eps = norm_eps(c);
    args->weight_offset = (float)c->weight_offset;
    args->cast = (rw_norm_cast)c->cast;
}

static rw_status norm_run(const rwt_binding *binding, const void *args) {
    return rw_rms_norm(binding->context, args);
}

static void layer_bind(const rwt_job *job, rwt_set *set) {
    const norm_case *c = norm_case_of(&job->c);
    const norm_plan *plan = job->plan;
    rw_layer_norm_args *args = set->args;
    args->x = rwt_tensor(job, set, &plan->x);
    args->weight = rwt_tensor(job, set, &plan->weight);
    args->bias = rwt_tensor(job, set, &plan->bias);
    args->residual = rwt_tensor(job, set, &plan->residual);
    if (c->residual != RESIDUAL_IN)
        args->residual_out = rwt_tensor(job, set, &plan->sum);
    if (c->placement != RWT_IN_PLACE)
        args->out = rwt_tensor(job, set, &plan->out);
    args->eps = norm_eps(c);
    args->weight_offset = (float)c->weight_offset;
}

static rw_status layer_run(const rwt_binding *binding, const void *args) {
    return rw_layer_norm(binding->context, args);
}

static double columns_bytes(const norm_case *c, int64_t kind) {
    return kind ? (double)c->hidden * (double)rw_dtype_size((rw_dtype)(kind - 1)) : 0.0;
}

static double norm_bytes(const rwt_job *job) {
    const norm_case *c = norm_case_of(&job->c);
    double elements = (double)(c->batch * c->seq * c->heads * c->hidden);
    return elements * (c->residual ? 4.0 : 2.0) * (double)rw_dtype_size((rw_dtype)c->dtype) +
           columns_bytes(c, c->weight) + columns_bytes(c, c->bias);
}

static double norm_flops(const rwt_job *job) {
    const norm_case *c = norm_case_of(&job->c);
    return 4.0 * (double)(c->batch * c->seq * c->heads * c->hidden);
}

static double layer_flops(const rwt_job *job) {
    const norm_case *c = norm_case_of(&job->c);
    return 7.0 * (double)(c->batch * c->seq * c->heads * c->hidden);
}

static const rwt_case_row norm_rows[] = {
    {RWT_QUICK, "dtype=f32|f16|bf16,weight=none|f32|f16|bf16,cast=before|after,hidden=40"},
    {RWT_QUICK, "dtype=f32|f16|bf16,weight=f32|bf16,weight_offset=1,cast=before|after,hidden=33"},
    {RWT_QUICK, "dtype=f32|f16|bf16,residual=none|out|in,placement=out|in|same,hidden=72"},
    {RWT_QUICK, "dtype=f32|f16|bf16,residual=to_x|swap,hidden=24,stride=contiguous|gaps"},
    {RWT_QUICK, "rank=1,heads=1,dtype=f32|bf16,hidden=17|64,residual=none|in"},
    {RWT_QUICK, "rank=3|4,seq=3,heads=5,hidden=64,heads_first=0|1,placement=out|in,"
                "stride=contiguous|gaps|negative,dtype=f32|f16|bf16"},
    {RWT_QUICK, "rank=4,batch=2,seq=3,heads=4,hidden=128,heads_first=0|1,residual=none|out|in,"
                "dtype=f32|bf16,stride=contiguous|gaps"},
    {RWT_QUICK, "broadcast=1,rank=2|3,residual=none|out,dtype=f32|f16"},
    {RWT_QUICK, "hidden=1|2|3|4|5|7|8|9|15|16|31|32|63|65|127|129,dtype=f32|f16|bf16,"
                "placement=out|in"},
    {RWT_QUICK, "hidden=255|256|257|511|513|1023|1024|1025,dtype=f32|f16|bf16"},
    {RWT_FULL, "hidden=2047|2048|2049|2560|4096|5120|8191|8192|8193,dtype=f32|f16|bf16,"
               "residual=none|in"},
    {RWT_QUICK, "heads=1|2,hidden=16384|16385|32776,dtype=f32|bf16"},
    {RWT_QUICK, "misalign=1|2|3|7,dtype=f32|f16|bf16,placement=out|in,hidden=64|65"},
    {RWT_QUICK, "weight_misalign=1|2|3,weight=f32|bf16,dtype=f32|bf16,hidden=96"},
    {RWT_QUICK, "heads=0|1|2|7|31|33|129,hidden=8|40,dtype=f32|bf16"},
    {RWT_QUICK, "rank=4,batch=0|2,seq=0|3,heads=0|2,hidden=0|8"},
    {RWT_QUICK, "power=-18|18|-30|30,eps=0|6,dtype=f32|bf16,hidden=64|333|4104,residual=none|out"},
    {RWT_QUICK, "mixed=1,power=-18|18|-30|25,eps=0,dtype=f32|bf16,hidden=1024|1100|5000,"
                "residual=none|out"},
    {RWT_QUICK, "power=-6|4,eps=0,dtype=f16,hidden=100"},
    {RWT_QUICK, "power=-30,eps=30,hidden=64"},
    {RWT_QUICK, "values=special,dtype=f32|f16|bf16,residual=none|in,heads=40,hidden=6|48,"
                "placement=out|in"},
    {RWT_FULL, "heads=700,hidden=128,dtype=f32|f16|bf16,cast=before|after,residual=none|out"},
    {RWT_FULL, "hidden=1000003,heads=2,dtype=f32|bf16,residual=none|in"},
    {RWT_LARGE, "heads=4096,hidden=2048,dtype=f32|bf16,residual=none|in"},
    {RWT_QUICK, NULL}};

static const char norm_random[] =
    "dtype=f32|f16|bf16,rank=2..4,batch=1|1|2,seq=1|1|3,heads=0..20,hidden=0..300,"
    "heads_first=0|1,stride=contiguous|gaps|negative,placement=out|in|same,"
    "residual=none|out|in|to_x|swap,weight=none|f32|f16|bf16,weight_offset=0|0|1,"
    "cast=before|after,eps=0|5|6,power=0|0|0|1|-3,broadcast=0|0|0|1,misalign=0|0|1..8,"
    "weight_misalign=0|0|1..4,values=ordinary|ordinary|special";

static const rwt_benchmark norm_benchmarks[] = {
    {"f32 4096x2048 in place", "heads=4096,hidden=2048,placement=in", true, false, false},
    {"f32 4096x2048 out", "heads=4096,hidden=2048", true, false, false},
    {"bf16 4096x2048 in place", "dtype=bf16,weight=bf16,heads=4096,hidden=2048,placement=in", true,
     false, false},
    {"bf16 8192x4096", "dtype=bf16,weight=bf16,heads=8192,hidden=4096", false, true, false},
    {"bf16 8192x4096 with residual", "dtype=bf16,weight=bf16,heads=8192,hidden=4096,residual=in",
     false, true, false},
    {"bf16 2048 tokens, 32 heads of 128",
     "rank=3,dtype=bf16,weight=bf16,seq=2048,heads=32,hidden=128,placement=in", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_rms_norm_driver = {
    .name = "rms_norm",
    .fields = norm_fields,
    .num_fields = RWT_COUNT(norm_fields),
    .rows = norm_rows,
    .random = norm_random,
    .num_random = 200,
    .benchmarks = norm_benchmarks,
    .plan_size = sizeof(norm_plan),
    .args_size = sizeof(rw_rms_norm_args),
    .invalid = norm_invalid,
    .fill = norm_fill,
    .reference = norm_reference,
    .bind = norm_bind,
    .run = norm_run,
    .bytes = norm_bytes,
    .flops = norm_flops,
};

static const rwt_case_row layer_rows[] = {
    {RWT_QUICK, "dtype=f32|f16|bf16,weight=none|f32|f16|bf16,bias=none|f32|f16|bf16,hidden=40"},
    {RWT_QUICK, "dtype=f32|bf16,weight=f32|bf16,weight_offset=1,bias=none|f16,hidden=33"},
    {RWT_QUICK, "dtype=f32|f16|bf16,residual=none|out|in,placement=out|in|same,bias=f32,hidden=72"},
    {RWT_QUICK, "dtype=f32|f16|bf16,residual=to_x|swap,hidden=24,stride=contiguous|gaps"},
    {RWT_QUICK, "rank=1,heads=1,dtype=f32|bf16,hidden=17|64,residual=none|in"},
    {RWT_QUICK, "rank=3|4,seq=3,heads=5,hidden=64,heads_first=0|1,placement=out|in,"
                "stride=contiguous|gaps|negative,dtype=f32|f16|bf16,bias=bf16"},
    {RWT_QUICK, "broadcast=1,rank=2|3,residual=none|out,dtype=f32|f16"},
    {RWT_QUICK, "hidden=1|2|3|4|5|7|8|9|15|16|31|32|63|65|127|129,dtype=f32|f16|bf16,"
                "placement=out|in,bias=f32"},
    {RWT_QUICK, "hidden=255|256|257|511|513|1023|1024|1025,dtype=f32|f16|bf16"},
    {RWT_FULL, "hidden=2047|2048|2049|4095|4096|4097|8191|8192|8193,dtype=f32|f16|bf16,"
               "residual=none|in,bias=bf16"},
    {RWT_QUICK, "heads=1|2,hidden=16384|16385|32776,dtype=f32|bf16,bias=f32"},
    {RWT_QUICK, "misalign=1|2|3|7,dtype=f32|f16|bf16,placement=out|in,hidden=64|65"},
    {RWT_QUICK, "bias=f32|bf16,bias_misalign=1|2|3,weight_misalign=0|1,dtype=f32|bf16,hidden=96"},
    {RWT_QUICK, "heads=0|1|2|7|31|33|129,hidden=8|40,dtype=f32|bf16,bias=f32"},
    {RWT_QUICK, "rank=4,batch=0|2,seq=0|3,heads=0|2,hidden=0|8"},
    {RWT_QUICK, "mean=10|-1000|1000000,eps=0|5,dtype=f32,hidden=7|64|1000|17000,bias=none|f32,"
                "residual=none|out"},
    {RWT_QUICK, "mean=16,eps=0|5,dtype=f16|bf16,hidden=64|1000|17000,residual=none|in"},
    {RWT_QUICK, "mean=-20|3,power=-3,eps=0,dtype=f16|bf16,hidden=58|49|105|246|12345"},
    {RWT_QUICK, "power=-18|18|-30|30,eps=0|6,dtype=f32|bf16,hidden=64|333|4104|16500,"
                "residual=none|out"},
    {RWT_QUICK, "mixed=1,power=-18|18|-30|25,eps=0,dtype=f32|bf16,hidden=1024|1100|5000,"
                "residual=none|out"},
    {RWT_QUICK, "power=-6|4,eps=0,dtype=f16,hidden=100"},
    {RWT_QUICK, "power=-30,eps=30,hidden=64"},
    {RWT_QUICK, "values=special,dtype=f32|f16|bf16,residual=none|in,heads=40,hidden=6|48,"
                "placement=out|in"},
    {RWT_FULL, "heads=700,hidden=128,dtype=f32|f16|bf16,bias=f32,residual=none|out"},
    {RWT_FULL, "hidden=1000003,heads=2,dtype=f32|bf16,residual=none|in"},
    {RWT_LARGE, "heads=4096,hidden=2048,dtype=f32|bf16,residual=none|in,bias=bf16"},
    {RWT_QUICK, NULL}};

static const char layer_random[] =
    "dtype=f32|f16|bf16,rank=2..4,batch=1|1|2,seq=1|1|3,heads=0..20,hidden=0..300,"
    "heads_first=0|1,stride=contiguous|gaps|negative,placement=out|in|same,"
    "residual=none|out|in|to_x|swap,weight=none|f32|f16|bf16,weight_offset=0|0|1,"
    "bias=none|f32|f16|bf16,mean=0|0|3|-20,eps=0|5|6,power=0|0|0|1|-3,broadcast=0|0|0|1,"
    "misalign=0|0|1..8,weight_misalign=0|0|1..4,bias_misalign=0|0|1..4,"
    "values=ordinary|ordinary|special";

static const rwt_benchmark layer_benchmarks[] = {
    {"f32 4096x2048 out", "bias=f32,heads=4096,hidden=2048", true, false, false},
    {"bf16 4096x2048 in place",
     "dtype=bf16,weight=bf16,bias=bf16,heads=4096,hidden=2048,placement=in", true, false, false},
    {"bf16 8192x4096", "dtype=bf16,weight=bf16,bias=bf16,heads=8192,hidden=4096", false, true,
     false},
    {"bf16 8192x4096 with residual",
     "dtype=bf16,weight=bf16,bias=bf16,heads=8192,hidden=4096,residual=in", false, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_layer_norm_driver = {
    .name = "layer_norm",
    .fields = layer_fields,
    .num_fields = RWT_COUNT(layer_fields),
    .rows = layer_rows,
    .random = layer_random,
    .num_random = 300,
    .benchmarks = layer_benchmarks,
    .plan_size = sizeof(norm_plan),
    .args_size = sizeof(rw_layer_norm_args),
    .invalid = norm_invalid,
    .fill = norm_fill,
    .reference = layer_reference,
    .bind = layer_bind,
    .run = layer_run,
    .bytes = norm_bytes,
    .flops = layer_flops,
};
