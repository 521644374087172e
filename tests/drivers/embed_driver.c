/* rw_embed_learned and rw_embed_sinusoidal: cases, buffers and the naive references. */
#include "drivers/driver_fields.h"

#include <math.h>

static const char *const words_layout[] = {"bsh", "sbh", "th", NULL};
static const char *const words_pe[] = {"interleaved", "concatenated", NULL};

enum {
    LAYOUT_TH = 2
};

/* broadcast: every row of the batch reads the same x. */
#define EMBED_FIELDS(FIELD)                                                                        \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(seq, 5, NULL)                                                                            \
    FIELD(hidden, 64, NULL)                                                                        \
    FIELD(layout, 0, words_layout)                                                                 \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(placement, RWT_OUT_OF_PLACE, rwt_words_placement)                                        \
    FIELD(broadcast, 0, NULL)                                                                      \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(max_positions, 64, NULL)                                                                 \
    RWT_ID_FIELDS(FIELD)                                                                           \
    FIELD(values, RWT_ORDINARY, rwt_words_values)                                                  \
    FIELD(seed, 0, NULL)

/* table_stride: contiguous, gaps or negative. */
#define LEARNED_FIELDS(FIELD)                                                                      \
    EMBED_FIELDS(FIELD)                                                                            \
    FIELD(table_dtype, RW_F32, rwt_words_dtype)                                                    \
    FIELD(table_stride, RWT_CONTIGUOUS, rwt_words_stride)                                          \
    FIELD(table_misalign, 0, NULL)

#define SINUSOIDAL_FIELDS(FIELD)                                                                   \
    EMBED_FIELDS(FIELD)                                                                            \
    FIELD(pe, RW_SINUSOID_INTERLEAVED, words_pe)                                                   \
    FIELD(theta, 0, NULL)

typedef struct embed_case {
    EMBED_FIELDS(RWT_MEMBER)
} embed_case;

/* The additional fields of each operation's case, after those of embed_case. */
typedef struct learned_case {
    LEARNED_FIELDS(RWT_MEMBER)
} learned_case;

typedef struct sinusoidal_case {
    SINUSOIDAL_FIELDS(RWT_MEMBER)
} sinusoidal_case;

static const rwt_field learned_fields[] = {LEARNED_FIELDS(RWT_FIELD)};
static const rwt_field sinusoidal_fields[] = {SINUSOIDAL_FIELDS(RWT_FIELD)};

typedef struct embed_plan {
    rwt_view x;
    rwt_view out;
    rwt_view table; /* learned */
    rwt_ids ids;
} embed_plan;

/* The arguments, and the table of the learned kind. */
typedef struct embed_call {
    rw_tensor table;
    rw_embed_args args;
} embed_call;

static const embed_case *embed_case_of(const rwt_case *c) {
    return (const embed_case *)c->values;
}

static const learned_case *learned_case_of(const rwt_case *c) {
    return (const learned_case *)c->values;
}

static const sinusoidal_case *sinusoidal_case_of(const rwt_case *c) {
    return (const sinusoidal_case *)c->values;
}

static const rwt_id_fields *id_fields(const embed_case *c) {
    return (const rwt_id_fields *)&c->positions;
}

static rwt_id_shape id_shape(const embed_case *c) {
    return (rwt_id_shape){c->batch, c->seq, 1, c->layout == LAYOUT_TH, c->max_positions};
}

static const char *embed_invalid(const rwt_case *row) {
    const embed_case *c = embed_case_of(row);
    if (c->batch < 0 || c->seq < 0 || c->hidden < 0 || c->misalign < 0 || c->max_positions < 1)
        return "a length is negative, or max_positions is 0";
    if (c->layout == LAYOUT_TH && c->batch != 1)
        return "layout=th has no batch";
    if (c->broadcast && (c->placement != RWT_OUT_OF_PLACE || c->layout == LAYOUT_TH))
        return "broadcast goes with a batch, out of place";
    if (c->positions == RWT_POSITIONS_AXES)
        return "a token has one id";
    rwt_id_shape shape = id_shape(c);
    return rwt_ids_invalid(id_fields(c), &shape);
}

static const char *sinusoidal_invalid(const rwt_case *row) {
    if (embed_case_of(row)->hidden < 2 || embed_case_of(row)->hidden % 2)
        return "hidden must be even, from 2";
    return embed_invalid(row);
}

static rwt_layout hidden_layout(const embed_case *c) {
    static const int seq_first[RW_MAX_RANK] = {1, 0, 2};
    rwt_stride_style style = (rwt_stride_style)c->stride;
    if (c->layout == LAYOUT_TH)
        return (rwt_layout){2, {c->seq, c->hidden}, NULL, style};
    return (rwt_layout){3, {c->batch, c->seq, c->hidden}, c->layout ? seq_first : NULL, style};
}

static void embed_fill(rwt_job *job) {
    const embed_case *c = embed_case_of(&job->c);
    embed_plan *plan = job->plan;
    rwt_layout layout = hidden_layout(c);
    rwt_buffer_spec spec = {.name = "x", .dtype = (rw_dtype)c->dtype, .misalign = c->misalign};
    plan->x = rwt_view_add(job, &layout, spec);
    rwt_buffer_fill(job, plan->x.buffer, (rwt_values)c->values);
    plan->out = plan->x;
    spec.name = "out";
    if (c->placement == RWT_OUT_OF_PLACE)
        plan->out = rwt_view_add(job, &layout, spec);
    if (c->broadcast) {
        plan->x.offset = rwt_view_at(&plan->x, c->batch / 2, 0, 0, 0);
        plan->x.stride[0] = 0;
    }
    plan->table = rwt_view_absent;
    rwt_id_shape shape = id_shape(c);
    plan->ids = rwt_ids_add(job, id_fields(c), &shape);
}

static void learned_fill(rwt_job *job) {
    embed_fill(job);
    const learned_case *c = learned_case_of(&job->c);
    embed_plan *plan = job->plan;
    rwt_layout layout = {2, {c->max_positions, c->hidden}, NULL, (rwt_stride_style)c->table_stride};
    rwt_buffer_spec spec = {
        .name = "table", .dtype = (rw_dtype)c->table_dtype, .misalign = c->table_misalign};
    plan->table = rwt_view_add(job, &layout, spec);
    rwt_buffer_fill(job, plan->table.buffer, (rwt_values)c->values);
}

/* ---- references ---- */

static double learned_value(const rwt_job *job, int64_t id, int64_t column) {
    const embed_plan *plan = job->plan;
    return rwt_buffer_get(job, plan->table.buffer, rwt_view_at(&plan->table, id, column, 0, 0));
}

static double sinusoidal_value(const rwt_job *job, int64_t id, int64_t column) {
    const sinusoidal_case *c = sinusoidal_case_of(&job->c);
    int64_t half = c->hidden / 2;
    bool concatenated = c->pe == RW_SINUSOID_CONCATENATED;
    int64_t k = concatenated ? column % half : column / 2;
    bool is_cos = concatenated ? column >= half : column % 2 == 1;
    double theta = c->theta ? (double)c->theta : 10000.0;
    double angle = (double)id / pow(theta, 2.0 * (double)k / (double)c->hidden);
    return is_cos ? cos(angle) : sin(angle);
}

/* out = x + value(id, column), which `expect` compares. */
typedef struct addition {
    double (*value)(const rwt_job *job, int64_t id, int64_t column);
    void (*expect)(rwt_job *job, int64_t element, double x, double added);
} addition;

static void embed_reference(rwt_job *job, const addition *a) {
    const embed_case *c = embed_case_of(&job->c);
    const embed_plan *plan = job->plan;
    bool packed = c->layout == LAYOUT_TH;
    /* With empty tensors the operation does nothing, and does not check ids. */
    for (int64_t token = 0; c->hidden > 0 && token < c->batch * c->seq; token++) {
        int64_t b = token / c->seq, s = token % c->seq;
        int64_t id = rwt_ids_at(job, &plan->ids, 0, b, s);
        if (id < 0 || id >= c->max_positions) {
            rwt_expect_fault(job, token, RW_FAULT_POSITION, id);
            continue;
        }
        for (int64_t column = 0; column < c->hidden; column++) {
            int64_t in = packed ? rwt_view_at(&plan->x, s, column, 0, 0)
                                : rwt_view_at(&plan->x, b, s, column, 0);
            int64_t out = packed ? rwt_view_at(&plan->out, s, column, 0, 0)
                                 : rwt_view_at(&plan->out, b, s, column, 0);
            double x = rwt_buffer_get(job, plan->x.buffer, in);
            a->expect(job, out, x, a->value(job, id, column));
        }
    }
}

/* A sum in f32 is the rounded sum in double: the result is exact. */
static void expect_sum(rwt_job *job, int64_t element, double x, double added) {
    const embed_plan *plan = job->plan;
    rwt_expect_exact(job, plan->out.buffer, element, (float)(x + added));
}

/* Table entries have the absolute accuracy of a cosine near 1, however small they are. */
static void expect_near(rwt_job *job, int64_t element, double x, double added) {
    const embed_plan *plan = job->plan;
    rwt_expect_near(job, plan->out.buffer, element, x + added, fabs(x) + 1.0);
}

static void learned_reference(rwt_job *job) {
    const addition learned = {learned_value, expect_sum};
    embed_reference(job, &learned);
}

static void sinusoidal_reference(rwt_job *job) {
    const addition sinusoidal = {sinusoidal_value, expect_near};
    embed_reference(job, &sinusoidal);
}

/* ---- the operations ---- */

static void embed_bind(const rwt_job *job, rwt_set *set) {
    const embed_case *c = embed_case_of(&job->c);
    const embed_plan *plan = job->plan;
    embed_call *call = set->args;
    call->table = rwt_tensor(job, set, &plan->table);
    call->args.x = rwt_tensor(job, set, &plan->x);
    if (c->placement != RWT_IN_PLACE)
        call->args.out = rwt_tensor(job, set, &plan->out);
    call->args.positions = rwt_tensor(job, set, &plan->ids.positions);
    call->args.offsets = rwt_tensor(job, set, &plan->ids.offsets);
    call->args.offset = plan->ids.offset;
}

static rw_status learned_run(const rwt_binding *binding, const void *args) {
    const embed_call *call = args;
    return rw_embed_learned(binding->context, &call->table, &call->args);
}

static rw_status sinusoidal_open(rwt_binding *binding) {
    const sinusoidal_case *c = sinusoidal_case_of(&binding->job->c);
    rw_sinusoid_options options = {.hidden = c->hidden,
                                   .max_positions = c->max_positions,
                                   .theta = (double)c->theta,
                                   .layout = (rw_sinusoid_layout)c->pe};
    rw_sinusoid *sinusoid;
    rw_status status = rw_sinusoid_create(binding->context, &options, &sinusoid);
    binding->objects[0] = status == RW_OK ? sinusoid : NULL;
    return status;
}

static void sinusoidal_close(rwt_binding *binding) {
    rw_sinusoid_destroy(binding->objects[0]);
}

static rw_status sinusoidal_run(const rwt_binding *binding, const void *args) {
    const embed_call *call = args;
    return rw_embed_sinusoidal(binding->context, binding->objects[0], &call->args);
}

static double embed_elements(const rwt_job *job) {
    const embed_case *c = embed_case_of(&job->c);
    return (double)(c->batch * c->seq * c->hidden);
}

static double sinusoidal_bytes(const rwt_job *job) {
    rw_dtype dtype = (rw_dtype)embed_case_of(&job->c)->dtype;
    return 2.0 * embed_elements(job) * (double)rw_dtype_size(dtype);
}

/* A row of the table is read once for the whole batch if all rows have the same ids. */
static double learned_bytes(const rwt_job *job) {
    const learned_case *c = learned_case_of(&job->c);
    bool per_row = c->offsets || c->positions == RWT_POSITIONS_BATCH_SEQ;
    double rows = (double)(per_row ? c->batch * c->seq : c->seq);
    double table = rows * (double)c->hidden * (double)rw_dtype_size((rw_dtype)c->table_dtype);
    return sinusoidal_bytes(job) + table;
}

/* ---- cases ---- */

/* Cases of both operations. */
#define SHARED_ROWS                                                                                \
    {RWT_QUICK, "dtype=f32|f16|bf16,placement=out|in|same,stride=contiguous|gaps|negative,"        \
                "batch=2,seq=3,hidden=32"},                                                        \
        {RWT_FULL, "dtype=f32|f16|bf16,placement=out|in,stride=contiguous|gaps,batch=3,"           \
                   "seq=17,hidden=256,positions=none|batch_seq"},                                  \
        {RWT_QUICK, "layout=bsh|sbh,batch=3,stride=contiguous|gaps|negative,placement=out|in"},    \
        {RWT_QUICK, "layout=th,positions=none|seq,placement=out|in,seq=11"},                       \
        {RWT_QUICK, "broadcast=1,batch=3,layout=bsh|sbh,dtype=f32|bf16"},                          \
        {RWT_QUICK, "hidden=2|4|6|8|10|14|16|18|30|34|62|66|126,dtype=f32|f16|bf16"},              \
        {RWT_FULL, "hidden=254|256|258|510|1022|1024|1026|2050,dtype=f32|f16|bf16,"                \
                   "placement=out|in"},                                                            \
        {RWT_QUICK, "misalign=1|2|3|7,dtype=f32|f16|bf16,placement=out|in"},                       \
        {RWT_QUICK, "batch=0|1|3|5,seq=0|1|2|7|33,hidden=16"},                                     \
        {RWT_QUICK, "positions=none|seq|batch_seq,id_dtype=i32|i64,offsets=none|i32|i64,"          \
                    "offset=0|2,batch=3"},                                                         \
        {RWT_QUICK, "positions=batch_seq,id_stride=gaps|negative,batch=3,offset=-7|7"},            \
        {RWT_QUICK, "max_positions=1|2|3,seq=1,positions=seq"},                                    \
        {RWT_QUICK, "positions=seq|batch_seq,fault=negative|max|lowest|highest,"                   \
                    "id_dtype=i32|i64,batch=3,placement=out|in"},                                  \
        {RWT_QUICK, "positions=batch_seq,fault=lowest|highest,offset=-1|1"},                       \
        {RWT_QUICK, "max_positions=8,seq=12,offset=0|-2,offsets=none|i64,batch=2"},                \
        {RWT_FULL, "positions=batch_seq,fault=max,batch=4,seq=333,hidden=64"}, {                   \
        RWT_QUICK, "values=special,dtype=f32|f16|bf16,placement=out|in,seq=9"                      \
    }

static const rwt_case_row learned_rows[] = {
    SHARED_ROWS,
    {RWT_QUICK, "dtype=f32|f16|bf16,table_dtype=f32|f16|bf16,table_stride=contiguous|gaps|negative,"
                "batch=2,hidden=40"},
    {RWT_QUICK, "table_misalign=1|2|3,misalign=0|1,dtype=f32|bf16,table_dtype=f32|f16|bf16"},
    {RWT_QUICK, "hidden=0|1|3|5|7|9|15|17|31|33|63|65|127,dtype=f32|f16|bf16,batch=2"},
    {RWT_QUICK, "hidden=0,positions=seq,fault=none|max,placement=out|in"},
    {RWT_LARGE, "batch=2,seq=2048,hidden=4096,max_positions=2048"},
    {RWT_LARGE, "batch=3,seq=1001,hidden=2048,dtype=bf16,table_dtype=bf16,max_positions=1024,"
                "placement=in"},
    {RWT_QUICK, NULL}};

static const rwt_case_row sinusoidal_rows[] = {
    SHARED_ROWS,
    {RWT_QUICK, "pe=interleaved|concatenated,dtype=f32|f16|bf16,theta=0|500000,hidden=16|50|96,"
                "batch=2,placement=out|in"},
    {RWT_FULL, "pe=interleaved|concatenated,max_positions=1048576,positions=batch_seq,batch=2,"
               "seq=40,hidden=128"},
    {RWT_QUICK, "max_positions=1048576,offset=1048571,seq=5,hidden=16"},
    {RWT_LARGE, "batch=2,seq=1024,hidden=4096,max_positions=1024,pe=concatenated"},
    {RWT_QUICK, NULL}};

#define SHARED_RANDOM                                                                              \
    "dtype=f32|f16|bf16,batch=1|2|3,seq=0..40,layout=bsh|sbh|th,"                                  \
    "stride=contiguous|gaps|negative,placement=out|in|same,broadcast=0|0|1,misalign=0|0|1..8,"     \
    "max_positions=41..300,positions=none|seq|batch_seq,id_dtype=i32|i64,"                         \
    "id_stride=contiguous|gaps|negative,offsets=none|i32|i64,offset=0|0|-9..30,"                   \
    "fault=none|none|none|negative|max|lowest|highest,values=ordinary|ordinary|special,"

static const char learned_random[] =
    SHARED_RANDOM "hidden=0..200,table_dtype=f32|f16|bf16,table_stride=contiguous|gaps|negative,"
                  "table_misalign=0|0|1..4";

static const char sinusoidal_random[] =
    SHARED_RANDOM "hidden=2..200,pe=interleaved|concatenated,theta=0|0|100|500000";

static const rwt_benchmark learned_benchmarks[] = {
    {"f32 4x2048x4096 out", "batch=4,seq=2048,hidden=4096,max_positions=2048", true, true, false},
    {"f32 4x2048x4096 in place", "batch=4,seq=2048,hidden=4096,max_positions=2048,placement=in",
     true, true, false},
    {"f32 2048x4096 out", "seq=2048,hidden=4096,max_positions=2048", true, true, false},
    {"bf16 4x2048x4096 out",
     "dtype=bf16,table_dtype=bf16,batch=4,seq=2048,hidden=4096,max_positions=2048", true, true,
     false},
    {NULL, NULL, false, false, false}};

static const rwt_benchmark sinusoidal_benchmarks[] = {
    {"f32 4x2048x4096 out", "batch=4,seq=2048,hidden=4096,max_positions=2048", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_embed_learned_driver = {
    .name = "embed_learned",
    .fields = learned_fields,
    .num_fields = RWT_COUNT(learned_fields),
    .rows = learned_rows,
    .random = learned_random,
    .num_random = 100,
    .benchmarks = learned_benchmarks,
    .plan_size = sizeof(embed_plan),
    .args_size = sizeof(embed_call),
    .invalid = embed_invalid,
    .fill = learned_fill,
    .reference = learned_reference,
    .bind = embed_bind,
    .run = learned_run,
    .bytes = learned_bytes,
    .flops = embed_elements,
};

const rwt_driver rwt_embed_sinusoidal_driver = {
    .name = "embed_sinusoidal",
    .fields = sinusoidal_fields,
    .num_fields = RWT_COUNT(sinusoidal_fields),
    .rows = sinusoidal_rows,
    .random = sinusoidal_random,
    .num_random = 100,
    .benchmarks = sinusoidal_benchmarks,
    .plan_size = sizeof(embed_plan),
    .args_size = sizeof(embed_call),
    .invalid = sinusoidal_invalid,
    .fill = embed_fill,
    .reference = sinusoidal_reference,
    .open = sinusoidal_open,
    .close = sinusoidal_close,
    .bind = embed_bind,
    .run = sinusoidal_run,
    .bytes = sinusoidal_bytes,
    .flops = embed_elements,
};
