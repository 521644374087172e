/* rw_positions_mrope: cases, buffers and the naive reference. */
#include "drivers/driver_fields.h"

/* fault: rows of the batch, from the last, whose second segment has a negative length.
 * steps: 0 absent, 1 halves and the like, 2 whole numbers. delta: 0 absent, 1 i32, 2 i64.
 * frames: how many times longer videos are than `largest`. */
#define MROPE_FIELDS(FIELD)                                                                        \
    FIELD(dtype, 1, rwt_words_id_dtype)                                                            \
    FIELD(in_dtype, 1, rwt_words_id_dtype)                                                         \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(seq, 40, NULL)                                                                           \
    FIELD(segments, 3, NULL)                                                                       \
    FIELD(largest, 5, NULL)                                                                        \
    FIELD(frames, 1, NULL)                                                                         \
    FIELD(advance, RW_MROPE_ADVANCE_GRID, words_advance)                                           \
    FIELD(steps, 0, NULL)                                                                          \
    FIELD(delta, 0, NULL)                                                                          \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(fault, 0, NULL)                                                                          \
    FIELD(seed, 0, NULL)

static const char *const words_advance[] = {"grid", "largest", NULL};

typedef struct mrope_case {
    MROPE_FIELDS(RWT_MEMBER)
} mrope_case;

static const rwt_field mrope_fields[] = {MROPE_FIELDS(RWT_FIELD)};

typedef struct mrope_plan {
    rwt_view out;
    rwt_view segments;
    rwt_view steps;
    rwt_view delta;
} mrope_plan;

static const mrope_case *mrope_case_of(const rwt_job *job) {
    return (const mrope_case *)job->c.values;
}

static const char *mrope_invalid(const rwt_case *row) {
    const mrope_case *c = (const mrope_case *)row->values;
    if (c->batch < 0 || c->seq < 0 || c->segments < 0 || c->largest < 1 || c->frames < 1)
        return "a length is negative, or largest or frames is 0";
    if (c->fault < 0 || c->fault > c->batch || (c->fault && (c->segments < 2 || c->seq < 600)))
        return "a fault needs two segments, and more tokens than the first can have (600)";
    return NULL;
}

static void set_segment(rwt_job *job, int64_t b, int64_t n, const int64_t lengths[3]) {
    const mrope_plan *plan = job->plan;
    for (int64_t i = 0; i < 3; i++)
        rwt_buffer_set_id(job, plan->segments.buffer, rwt_view_at(&plan->segments, b, n, i, 0),
                          lengths[i]);
}

/* Text and grids alternate, with some empty segments. */
static void fill_row(rwt_job *job, int64_t b) {
    const mrope_case *c = mrope_case_of(job);
    for (int64_t n = 0; n < c->segments; n++) {
        int64_t lengths[3] = {0, 0, 0};
        int64_t kind = rwt_random_below(&job->random, 5);
        for (int i = 0; i < (kind == 0 ? 0 : kind < 3 ? 1 : 3); i++)
            lengths[i] = 1 + rwt_random_below(&job->random, c->largest);
        if (kind >= 3)
            lengths[0] *= c->frames;
        if (n == 1 && b >= c->batch - c->fault)
            lengths[b % 3] = -5 - b;
        set_segment(job, b, n, lengths);
    }
}

static void mrope_fill(rwt_job *job) {
    static const float steps[] = {0.5f, 1.5f, 2.0f, 0.25f, 0.0f, 3.0f};
    const mrope_case *c = mrope_case_of(job);
    mrope_plan *plan = job->plan;
    rwt_stride_style style = (rwt_stride_style)c->stride;
    rwt_layout out = {3, {3, c->batch, c->seq}, NULL, style};
    rwt_layout segments = {3, {c->batch, c->segments, 3}, NULL, style};
    rwt_layout rows = {2, {c->batch, c->segments}, NULL, style};
    rwt_layout delta = {1, {c->batch}, NULL, style};
    plan->out = rwt_id_view_add(job, &out, "out", c->dtype);
    plan->segments = rwt_id_view_add(job, &segments, "segments", c->in_dtype);
    plan->steps = plan->delta = rwt_view_absent;
    for (int64_t b = 0; b < c->batch; b++)
        fill_row(job, b);
    if (c->steps) {
        rwt_buffer_spec spec = {.name = "steps", .dtype = RW_F32};
        plan->steps = rwt_view_add(job, &rows, spec);
        rwt_buffer *buffer = &job->buffers[plan->steps.buffer];
        for (int64_t i = 0; i < buffer->elements; i++) {
            float fraction = steps[rwt_random_below(&job->random, RWT_COUNT(steps))];
            float whole = (float)(1 + rwt_random_below(&job->random, 3));
            rwt_store(RW_F32, buffer->initial, i, c->steps == 1 ? fraction : whole);
        }
    }
    if (c->delta)
        plan->delta = rwt_id_view_add(job, &delta, "rope_delta", c->delta - 1);
}

/* ---- reference ---- */

/* The state of the ids of a row. */
typedef struct mrope_row {
    int64_t b;
    int64_t tokens;  /* so far, including those past the end of the row */
    int64_t largest; /* id so far; -1: none */
    int64_t next;    /* the next segment's first id */
} mrope_row;

static void expect_token(rwt_job *job, mrope_row *row, const int64_t ids[3]) {
    const mrope_case *c = mrope_case_of(job);
    const mrope_plan *plan = job->plan;
    for (int64_t axis = 0; axis < 3; axis++) {
        if (row->tokens < c->seq)
            rwt_expect_id(job, plan->out.buffer,
                          rwt_view_at(&plan->out, axis, row->b, row->tokens, 0), ids[axis]);
        if (ids[axis] > row->largest)
            row->largest = ids[axis];
    }
    row->tokens++;
}

static void expect_text(rwt_job *job, mrope_row *row, int64_t count) {
    for (int64_t n = 0; n < count; n++) {
        int64_t id = row->next++;
        expect_token(job, row, (const int64_t[3]){id, id, id});
    }
}

static void expect_grid(rwt_job *job, mrope_row *row, const int64_t lengths[3], double step) {
    int64_t start = row->next;
    for (int64_t t = 0; t < lengths[0]; t++) {
        for (int64_t h = 0; h < lengths[1]; h++) {
            for (int64_t w = 0; w < lengths[2]; w++) {
                int64_t frame = (int64_t)((double)t * step);
                expect_token(job, row, (const int64_t[3]){start + frame, start + h, start + w});
            }
        }
    }
    if (mrope_case_of(job)->advance == RW_MROPE_ADVANCE_LARGEST)
        row->next = row->largest + 1;
    else
        row->next = start + (lengths[1] > lengths[2] ? lengths[1] : lengths[2]);
}

/* False where segment n is invalid: all tokens from there on are faults. */
static bool expect_segment(rwt_job *job, mrope_row *row, int64_t n) {
    const mrope_case *c = mrope_case_of(job);
    const mrope_plan *plan = job->plan;
    int64_t lengths[3];
    for (int64_t i = 0; i < 3; i++) {
        lengths[i] = rwt_buffer_get_id(job, plan->segments.buffer,
                                       rwt_view_at(&plan->segments, row->b, n, i, 0));
        if (lengths[i] < 0) {
            rwt_expect_fault(job, row->b * c->seq + row->tokens, RW_FAULT_LENGTH, lengths[i]);
            return false;
        }
    }
    double step = 1.0;
    if (c->steps)
        step = rwt_buffer_get(job, plan->steps.buffer, rwt_view_at(&plan->steps, row->b, n, 0, 0));
    if (lengths[1] == 0 && lengths[2] == 0)
        expect_text(job, row, lengths[0]);
    else
        expect_grid(job, row, lengths, step);
    return true;
}

static void mrope_reference(rwt_job *job) {
    const mrope_case *c = mrope_case_of(job);
    const mrope_plan *plan = job->plan;
    for (int64_t b = 0; b < c->batch; b++) {
        mrope_row row = {b, 0, -1, 0};
        bool good = true;
        for (int64_t n = 0; n < c->segments && good; n++)
            good = expect_segment(job, &row, n);
        if (!good)
            continue;
        if (c->delta)
            rwt_expect_id(job, plan->delta.buffer, rwt_view_at(&plan->delta, b, 0, 0, 0),
                          row.largest + 1 - row.tokens);
        if (row.tokens < c->seq)
            expect_text(job, &row, c->seq - row.tokens);
    }
}

static void mrope_bind(const rwt_job *job, rwt_set *set) {
    const mrope_plan *plan = job->plan;
    rw_positions_mrope_args *args = set->args;
    args->out = rwt_tensor(job, set, &plan->out);
    args->segments = rwt_tensor(job, set, &plan->segments);
    args->steps = rwt_tensor(job, set, &plan->steps);
    args->advance = (rw_mrope_advance)mrope_case_of(job)->advance;
    args->rope_delta = rwt_tensor(job, set, &plan->delta);
}

static rw_status mrope_run(const rwt_binding *binding, const void *args) {
    return rw_positions_mrope(binding->context, args);
}

static double mrope_bytes(const rwt_job *job) {
    const mrope_case *c = mrope_case_of(job);
    return 3.0 * (double)(c->batch * c->seq) * (c->dtype ? 8.0 : 4.0);
}

static const rwt_case_row mrope_rows[] = {
    {RWT_QUICK, "dtype=i32|i64,in_dtype=i32|i64,steps=0|1|2,delta=0|1|2,batch=3,"
                "stride=contiguous|gaps|negative"},
    {RWT_QUICK, "advance=grid|largest,frames=1|3,steps=0|1|2,delta=0|2,batch=3,seq=257,segments=6"},
    {RWT_QUICK, "batch=0|1|2,seq=0|1|63|64|65|257,segments=0|1|6,delta=0|2"},
    {RWT_QUICK, "fault=1|2,batch=3,seq=700,delta=0|2,dtype=i32|i64,in_dtype=i32|i64"},
    {RWT_FULL, "batch=4,seq=3001,segments=40,largest=9,frames=1|5,"
               "advance=grid|largest,steps=1,delta=2"},
    {RWT_QUICK, NULL}};

static const rwt_benchmark mrope_benchmarks[] = {
    {"i64 16x8192 in 8", "batch=16,seq=8192,segments=8,largest=16", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_positions_mrope_driver = {
    .name = "positions_mrope",
    .fields = mrope_fields,
    .num_fields = RWT_COUNT(mrope_fields),
    .rows = mrope_rows,
    .random =
        "dtype=i32|i64,in_dtype=i32|i64,batch=1..3,seq=0..300,segments=0..9,largest=1..9,"
        "frames=1..4,advance=grid|largest,steps=0..2,delta=0..2,stride=contiguous|gaps|negative",
    .num_random = 60,
    .benchmarks = mrope_benchmarks,
    .plan_size = sizeof(mrope_plan),
    .args_size = sizeof(rw_positions_mrope_args),
    .invalid = mrope_invalid,
    .fill = mrope_fill,
    .reference = mrope_reference,
    .bind = mrope_bind,
    .run = mrope_run,
    .bytes = mrope_bytes,
};
