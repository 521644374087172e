/* rw_positions_*: cases, buffers and the naive references. */
#include "drivers/driver_fields.h"

#include <math.h>

#define OUT_FIELDS(FIELD)                                                                          \
    FIELD(dtype, 1, rwt_words_id_dtype)                                                            \
    FIELD(in_dtype, 1, rwt_words_id_dtype)                                                         \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(seq, 5, NULL)                                                                            \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(fault, 0, NULL)                                                                          \
    FIELD(seed, 0, NULL)

typedef struct out_case {
    OUT_FIELDS(RWT_MEMBER)
} out_case;

#define MAX_INPUTS 3

typedef struct positions_plan {
    rwt_view out;
    rwt_view inputs[MAX_INPUTS];
} positions_plan;

static const out_case *out_case_of(const rwt_case *c) {
    return (const out_case *)c->values;
}

/* fault: the number of rows of the batch, from the last, that hold an invalid input. */
static const char *positions_invalid(const rwt_case *row) {
    const out_case *c = out_case_of(row);
    if (c->batch < 0 || c->seq < 0 || c->fault < 0 || c->fault > c->batch)
        return "a length is negative, or more rows are at fault than there are";
    return NULL;
}

/* out: [axes, batch, seq], [batch, seq] (axes 0) or [tokens] (axes -1). */
static void add_out(rwt_job *job, int axes) {
    const out_case *c = out_case_of(&job->c);
    positions_plan *plan = job->plan;
    rwt_stride_style style = (rwt_stride_style)c->stride;
    rwt_layout layout = {3, {axes, c->batch, c->seq}, NULL, style};
    if (axes == 0)
        layout = (rwt_layout){2, {c->batch, c->seq}, NULL, style};
    if (axes < 0)
        layout = (rwt_layout){1, {c->seq}, NULL, style};
    plan->out = rwt_id_view_add(job, &layout, "out", c->dtype);
    for (int i = 0; i < MAX_INPUTS; i++)
        plan->inputs[i] = rwt_view_absent;
}

/* An input with one id for each row. */
static void add_input(rwt_job *job, int number, const char *name, int64_t length) {
    rwt_stride_style style = (rwt_stride_style)out_case_of(&job->c)->stride;
    rwt_layout layout = {1, {length}, NULL, style};
    positions_plan *plan = job->plan;
    plan->inputs[number] = rwt_id_view_add(job, &layout, name, out_case_of(&job->c)->in_dtype);
}

static void set_input(rwt_job *job, int number, int64_t i, int64_t id) {
    const positions_plan *plan = job->plan;
    const rwt_view *input = &plan->inputs[number];
    rwt_buffer_set_id(job, input->buffer, rwt_view_at(input, i, 0, 0, 0), id);
}

static int64_t get_input(const rwt_job *job, int number, int64_t i) {
    const positions_plan *plan = job->plan;
    const rwt_view *input = &plan->inputs[number];
    return rwt_buffer_get_id(job, input->buffer, rwt_view_at(input, i, 0, 0, 0));
}

static bool at_fault(const rwt_job *job, int64_t b) {
    const out_case *c = out_case_of(&job->c);
    return b >= c->batch - c->fault;
}

static bool fits(const rwt_job *job, int64_t id) {
    return out_case_of(&job->c)->dtype || (id >= INT32_MIN && id <= INT32_MAX);
}

/* Expects an id at out[axis, b, s], or [b, s]; or a fault where the id does not fit. */
static void expect(rwt_job *job, int64_t axis, int64_t b, int64_t s, int64_t id) {
    const positions_plan *plan = job->plan;
    const out_case *c = out_case_of(&job->c);
    int64_t element = plan->out.rank == 3   ? rwt_view_at(&plan->out, axis, b, s, 0)
                      : plan->out.rank == 2 ? rwt_view_at(&plan->out, b, s, 0, 0)
                                            : rwt_view_at(&plan->out, s, 0, 0, 0);
    if (fits(job, id))
        rwt_expect_id(job, plan->out.buffer, element, id);
    else
        rwt_expect_fault(job, b * c->seq + s, RW_FAULT_OVERFLOW, id);
}

static double positions_bytes(const rwt_job *job) {
    const positions_plan *plan = job->plan;
    double elements = 1.0;
    for (int axis = 0; axis < plan->out.rank; axis++)
        elements *= (double)plan->out.shape[axis];
    return elements * (out_case_of(&job->c)->dtype ? 8.0 : 4.0);
}

/* ---- sequential ---- */

#define SEQUENTIAL_FIELDS(FIELD)                                                                   \
    OUT_FIELDS(FIELD)                                                                              \
    FIELD(offsets, 0, NULL)                                                                        \
    FIELD(offset, 0, NULL)

typedef struct sequential_case {
    SEQUENTIAL_FIELDS(RWT_MEMBER)
} sequential_case;

static const rwt_field sequential_fields[] = {SEQUENTIAL_FIELDS(RWT_FIELD)};

static const sequential_case *sequential_case_of(const rwt_job *job) {
    return (const sequential_case *)job->c.values;
}

static const char *sequential_invalid(const rwt_case *row) {
    const sequential_case *c = (const sequential_case *)row->values;
    if (c->fault && (c->dtype || !c->offsets))
        return "a fault is an offset too large for dtype=i32";
    return positions_invalid(row);
}

static void sequential_fill(rwt_job *job) {
    const sequential_case *c = sequential_case_of(job);
    add_out(job, 0);
    if (!c->offsets)
        return;
    add_input(job, 0, "offsets", c->batch);
    for (int64_t b = 0; b < c->batch; b++) {
        int64_t offset = rwt_random_below(&job->random, 2000) - 500;
        set_input(job, 0, b, at_fault(job, b) ? INT32_MAX - c->offset - c->seq / 2 : offset);
    }
}

static void sequential_reference(rwt_job *job) {
    const sequential_case *c = sequential_case_of(job);
    for (int64_t b = 0; b < c->batch; b++) {
        for (int64_t s = 0; s < c->seq; s++)
            expect(job, 0, b, s, s + c->offset + (c->offsets ? get_input(job, 0, b) : 0));
    }
}

static void sequential_bind(const rwt_job *job, rwt_set *set) {
    const positions_plan *plan = job->plan;
    rw_positions_sequential_args *args = set->args;
    args->out = rwt_tensor(job, set, &plan->out);
    args->offsets = rwt_tensor(job, set, &plan->inputs[0]);
    args->offset = sequential_case_of(job)->offset;
}

static rw_status sequential_run(const rwt_binding *binding, const void *args) {
    return rw_positions_sequential(binding->context, args);
}

static const rwt_case_row sequential_rows[] = {
    {RWT_QUICK, "dtype=i32|i64,in_dtype=i32|i64,offsets=0|1,offset=0|-3|7,batch=3,"
                "stride=contiguous|gaps|negative"},
    {RWT_QUICK, "batch=0|1|3,seq=0|1|2|63|64|65|257,dtype=i32|i64"},
    {RWT_QUICK, "dtype=i32,offsets=1,fault=1|2,batch=3,in_dtype=i32|i64"},
    {RWT_QUICK, "dtype=i64,offset=5000000000,offsets=0|1"},
    {RWT_QUICK, "dtype=i32,offset=2147483645"},
    {RWT_FULL, "batch=7,seq=4099,dtype=i32|i64,offsets=1"},
    {RWT_QUICK, NULL}};

static const rwt_benchmark sequential_benchmarks[] = {
    {"i64 64x8192", "batch=64,seq=8192,offsets=1", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_positions_sequential_driver = {
    .name = "positions_sequential",
    .fields = sequential_fields,
    .num_fields = RWT_COUNT(sequential_fields),
    .rows = sequential_rows,
    .random = "dtype=i32|i64,in_dtype=i32|i64,batch=1..4,seq=0..300,offsets=0|1,offset=-99..99,"
              "stride=contiguous|gaps|negative",
    .num_random = 30,
    .benchmarks = sequential_benchmarks,
    .plan_size = sizeof(positions_plan),
    .args_size = sizeof(rw_positions_sequential_args),
    .invalid = sequential_invalid,
    .fill = sequential_fill,
    .reference = sequential_reference,
    .bind = sequential_bind,
    .run = sequential_run,
    .bytes = positions_bytes,
};

/* ---- left-padded ---- */

#define LEFT_PADDED_FIELDS(FIELD)                                                                  \
    OUT_FIELDS(FIELD)                                                                              \
    FIELD(padding_id, 1, NULL)

typedef struct left_padded_case {
    LEFT_PADDED_FIELDS(RWT_MEMBER)
} left_padded_case;

static const rwt_field left_padded_fields[] = {LEFT_PADDED_FIELDS(RWT_FIELD)};

static const left_padded_case *left_padded_case_of(const rwt_job *job) {
    return (const left_padded_case *)job->c.values;
}

static void left_padded_fill(rwt_job *job) {
    const left_padded_case *c = left_padded_case_of(job);
    add_out(job, 0);
    add_input(job, 0, "padding", c->batch);
    for (int64_t b = 0; b < c->batch; b++) {
        int64_t padding = rwt_random_below(&job->random, c->seq + 3); /* or more than the row */
        set_input(job, 0, b, at_fault(job, b) ? -1 - b : padding);
    }
}

static void left_padded_reference(rwt_job *job) {
    const left_padded_case *c = left_padded_case_of(job);
    for (int64_t b = 0; b < c->batch; b++) {
        int64_t padding = get_input(job, 0, b);
        for (int64_t s = 0; s < c->seq; s++) {
            if (padding < 0)
                rwt_expect_fault(job, b * c->seq + s, RW_FAULT_LENGTH, padding);
            else
                expect(job, 0, b, s, s < padding ? c->padding_id : s - padding);
        }
    }
}

static void left_padded_bind(const rwt_job *job, rwt_set *set) {
    const positions_plan *plan = job->plan;
    rw_positions_left_padded_args *args = set->args;
    args->out = rwt_tensor(job, set, &plan->out);
    args->padding = rwt_tensor(job, set, &plan->inputs[0]);
    args->padding_id = left_padded_case_of(job)->padding_id;
}

static rw_status left_padded_run(const rwt_binding *binding, const void *args) {
    return rw_positions_left_padded(binding->context, args);
}

static const rwt_case_row left_padded_rows[] = {
    {RWT_QUICK, "dtype=i32|i64,in_dtype=i32|i64,padding_id=0|1|-1,batch=4,"
                "stride=contiguous|gaps|negative"},
    {RWT_QUICK, "batch=0|1|3,seq=0|1|2|63|64|65|257"},
    {RWT_QUICK, "fault=1|2,batch=3,dtype=i32|i64,in_dtype=i32|i64"},
    {RWT_QUICK, "dtype=i32|i64,padding_id=3000000000,batch=6"},
    {RWT_FULL, "batch=7,seq=4099"},
    {RWT_QUICK, NULL}};

static const rwt_benchmark left_padded_benchmarks[] = {
    {"i64 64x8192", "batch=64,seq=8192", true, true, false}, {NULL, NULL, false, false, false}};

const rwt_driver rwt_positions_left_padded_driver = {
    .name = "positions_left_padded",
    .fields = left_padded_fields,
    .num_fields = RWT_COUNT(left_padded_fields),
    .rows = left_padded_rows,
    .random = "dtype=i32|i64,in_dtype=i32|i64,batch=1..4,seq=0..300,padding_id=0|1|-1|7,"
              "stride=contiguous|gaps|negative",
    .num_random = 30,
    .benchmarks = left_padded_benchmarks,
    .plan_size = sizeof(positions_plan),
    .args_size = sizeof(rw_positions_left_padded_args),
    .invalid = positions_invalid,
    .fill = left_padded_fill,
    .reference = left_padded_reference,
    .bind = left_padded_bind,
    .run = left_padded_run,
    .bytes = positions_bytes,
};

/* ---- packed ---- */

/* fault=1: the last documents end before the tokens; gap: the first starts after token 0. */
#define PACKED_FIELDS(FIELD)                                                                       \
    OUT_FIELDS(FIELD)                                                                              \
    FIELD(documents, 3, NULL)                                                                      \
    FIELD(gap, 0, NULL)

typedef struct packed_case {
    PACKED_FIELDS(RWT_MEMBER)
} packed_case;

static const rwt_field packed_fields[] = {PACKED_FIELDS(RWT_FIELD)};

static const packed_case *packed_case_of(const rwt_job *job) {
    return (const packed_case *)job->c.values;
}

static const char *packed_invalid(const rwt_case *row) {
    const packed_case *c = (const packed_case *)row->values;
    if (c->documents < 1 || c->batch != 1 || c->gap < 0 || c->gap + c->fault > c->seq)
        return "packed tokens need a document or more and have no batch";
    return positions_invalid(row);
}

/* Boundaries at random places, so that some documents are empty. */
static void packed_fill(rwt_job *job) {
    const packed_case *c = packed_case_of(job);
    add_out(job, -1);
    add_input(job, 0, "cu_seqlens", c->documents + 1);
    int64_t end = c->seq - c->fault;
    int64_t at = c->gap;
    for (int64_t n = 0; n <= c->documents; n++) {
        set_input(job, 0, n, n == c->documents ? end : at);
        int64_t share = 2 * (end - at) / (c->documents - n + 1);
        at += rwt_random_below(&job->random, share + 1);
        if (at > end)
            at = end;
    }
}

static void packed_reference(rwt_job *job) {
    const packed_case *c = packed_case_of(job);
    for (int64_t t = 0; t < c->seq; t++) {
        bool found = false;
        for (int64_t n = 0; n < c->documents && !found; n++) {
            int64_t begin = get_input(job, 0, n);
            found = begin <= t && t < get_input(job, 0, n + 1);
            if (found)
                expect(job, 0, 0, t, t - begin);
        }
        /* the boundary that the token is outside of */
        if (!found)
            rwt_expect_fault(job, t, RW_FAULT_LENGTH,
                             get_input(job, 0, t < get_input(job, 0, 0) ? 0 : c->documents));
    }
}

static void packed_bind(const rwt_job *job, rwt_set *set) {
    const positions_plan *plan = job->plan;
    rw_positions_packed_args *args = set->args;
    args->out = rwt_tensor(job, set, &plan->out);
    args->cu_seqlens = rwt_tensor(job, set, &plan->inputs[0]);
}

static rw_status packed_run(const rwt_binding *binding, const void *args) {
    return rw_positions_packed(binding->context, args);
}

static const rwt_case_row packed_rows[] = {
    {RWT_QUICK, "dtype=i32|i64,in_dtype=i32|i64,documents=1|2|3|7|31,seq=23,"
                "stride=contiguous|gaps|negative"},
    {RWT_QUICK, "seq=0|1|2|63|64|65|257,documents=1|5"},
    {RWT_QUICK, "fault=0|1,gap=0|2,seq=9,documents=1|4,in_dtype=i32|i64"},
    {RWT_FULL, "seq=20011,documents=1|300|20011,dtype=i32|i64"},
    {RWT_QUICK, NULL}};

static const rwt_benchmark packed_benchmarks[] = {
    {"i64 524288 in 256", "seq=524288,documents=256", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_positions_packed_driver = {
    .name = "positions_packed",
    .fields = packed_fields,
    .num_fields = RWT_COUNT(packed_fields),
    .rows = packed_rows,
    .random = "dtype=i32|i64,in_dtype=i32|i64,seq=0..300,documents=1..40,"
              "stride=contiguous|gaps|negative",
    .num_random = 30,
    .benchmarks = packed_benchmarks,
    .plan_size = sizeof(positions_plan),
    .args_size = sizeof(rw_positions_packed_args),
    .invalid = packed_invalid,
    .fill = packed_fill,
    .reference = packed_reference,
    .bind = packed_bind,
    .run = packed_run,
    .bytes = positions_bytes,
};

/* ---- GLM ---- */

static const rwt_field glm_fields[] = {OUT_FIELDS(RWT_FIELD)};

static void glm_fill(rwt_job *job) {
    const out_case *c = out_case_of(&job->c);
    add_out(job, 2);
    add_input(job, 0, "context_length", c->batch);
    add_input(job, 1, "mask_position", c->batch);
    for (int64_t b = 0; b < c->batch; b++) {
        bool wrong_context = at_fault(job, b) && b % 2 == 0;
        bool wrong_mask = at_fault(job, b) && b % 2 == 1;
        int64_t context = rwt_random_below(&job->random, c->seq + 3);
        int64_t mask = rwt_random_below(&job->random, c->seq + 1);
        set_input(job, 0, b, wrong_context ? -2 - b : context);
        set_input(job, 1, b, wrong_mask ? -2 - b : mask);
    }
}

static void glm_reference(rwt_job *job) {
    const out_case *c = out_case_of(&job->c);
    for (int64_t b = 0; b < c->batch; b++) {
        int64_t context = get_input(job, 0, b), mask = get_input(job, 1, b);
        for (int64_t s = 0; s < c->seq; s++) {
            if (context < 0 || mask < 0) {
                rwt_expect_fault(job, b * c->seq + s,
                                 context < 0 ? RW_FAULT_LENGTH : RW_FAULT_POSITION,
                                 context < 0 ? context : mask);
                continue;
            }
            expect(job, 0, b, s, s < context ? s : mask);
            expect(job, 1, b, s, s < context ? 0 : s - context + 1);
        }
    }
}

static void glm_bind(const rwt_job *job, rwt_set *set) {
    const positions_plan *plan = job->plan;
    rw_positions_glm_args *args = set->args;
    args->out = rwt_tensor(job, set, &plan->out);
    args->context_length = rwt_tensor(job, set, &plan->inputs[0]);
    args->mask_position = rwt_tensor(job, set, &plan->inputs[1]);
}

static rw_status glm_run(const rwt_binding *binding, const void *args) {
    return rw_positions_glm(binding->context, args);
}

static const rwt_case_row glm_rows[] = {
    {RWT_QUICK, "dtype=i32|i64,in_dtype=i32|i64,batch=4,seq=9,stride=contiguous|gaps|negative"},
    {RWT_QUICK, "batch=0|1|3,seq=0|1|2|63|64|65|257"},
    {RWT_QUICK, "fault=1|2|3,batch=3|4,dtype=i32|i64,in_dtype=i32|i64"},
    {RWT_FULL, "batch=7,seq=4099"},
    {RWT_QUICK, NULL}};

static const rwt_benchmark glm_benchmarks[] = {
    {"i64 64x8192", "batch=64,seq=8192", true, true, false}, {NULL, NULL, false, false, false}};

const rwt_driver rwt_positions_glm_driver = {
    .name = "positions_glm",
    .fields = glm_fields,
    .num_fields = RWT_COUNT(glm_fields),
    .rows = glm_rows,
    .random = "dtype=i32|i64,in_dtype=i32|i64,batch=1..4,seq=0..300,"
              "stride=contiguous|gaps|negative",
    .num_random = 30,
    .benchmarks = glm_benchmarks,
    .plan_size = sizeof(positions_plan),
    .args_size = sizeof(rw_positions_glm_args),
    .invalid = positions_invalid,
    .fill = glm_fill,
    .reference = glm_reference,
    .bind = glm_bind,
    .run = glm_run,
    .bytes = positions_bytes,
};
