/* rw_pattern_fill, rw_pattern_fill_bits and rw_pattern_positions: cases, buffers, references. */
#include <math.h>

#include "drivers/pattern_case.h"

static double no_flops(const rwt_job *job) {
    (void)job;
    return 0.0;
}

/* ---- fill and fill_bits ---- */

/* rank: of the output, 2 or 3. */
#define FILL_FIELDS(FIELD)                                                                         \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(seq_q, 13, NULL)                                                                         \
    FIELD(seq_k, 13, NULL)                                                                         \
    FIELD(rank, 3, NULL)                                                                           \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(misalign, 0, NULL)                                                                       \
    RWT_PATTERN_FIELDS(FIELD)                                                                      \
    FIELD(seed, 0, NULL)

typedef struct fill_case {
    FILL_FIELDS(RWT_MEMBER)
} fill_case;

static const rwt_field fill_fields[] = {FILL_FIELDS(RWT_FIELD)};

typedef struct fill_plan {
    rwt_view out;
    rwt_pattern_plan pattern;
} fill_plan;

typedef struct fill_call {
    rw_pattern pattern;
    rw_tensor out;
    int64_t seq_k;
} fill_call;

static const fill_case *fill_case_of(const rwt_case *c) {
    return (const fill_case *)c->values;
}

static const rwt_pattern_fields *pattern_of(const fill_case *c) {
    return (const rwt_pattern_fields *)&c->causal;
}

static rw_pattern_shape shape_of(const fill_case *c) {
    return (rw_pattern_shape){c->batch, c->seq_q, c->seq_k};
}

static const char *fill_invalid(const rwt_case *row) {
    const fill_case *c = fill_case_of(row);
    rw_pattern_shape shape = shape_of(c);
    if (c->rank < 2 || c->rank > 3 || (c->rank == 2 && c->batch != 1) || c->misalign < 0)
        return "rank is 2, without a batch, or 3";
    return rwt_pattern_invalid(pattern_of(c), &shape);
}

static void add_out(rwt_job *job, rw_dtype dtype, int64_t columns) {
    const fill_case *c = fill_case_of(&job->c);
    fill_plan *plan = job->plan;
    rwt_layout layout = {3, {c->batch, c->seq_q, columns}, NULL, (rwt_stride_style)c->stride};
    if (c->rank == 2)
        layout = (rwt_layout){2, {c->seq_q, columns}, NULL, (rwt_stride_style)c->stride};
    rwt_buffer_spec spec = {.name = "out", .dtype = dtype, .misalign = c->misalign};
    plan->out = rwt_view_add(job, &layout, spec);
    rw_pattern_shape shape = shape_of(c);
    rwt_pattern_add(job, pattern_of(c), &shape, &plan->pattern);
}

static void fill_fill(rwt_job *job) {
    const fill_case *c = fill_case_of(&job->c);
    add_out(job, (rw_dtype)c->dtype, c->seq_k);
}

static void bits_fill(rwt_job *job) {
    add_out(job, RW_U8, (fill_case_of(&job->c)->seq_k + 7) / 8);
}

static int64_t out_at(const fill_plan *plan, int64_t b, int64_t i, int64_t column) {
    return plan->out.rank == 2 ? rwt_view_at(&plan->out, i, column, 0, 0)
                               : rwt_view_at(&plan->out, b, i, column, 0);
}

/* Calls expect_row for the queries whose pattern is valid. */
static void for_each_query(rwt_job *job, void (*expect_row)(rwt_job *job, int64_t b, int64_t i)) {
    const fill_case *c = fill_case_of(&job->c);
    const fill_plan *plan = job->plan;
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t i = 0; i < c->seq_q; i++) {
            int64_t bad;
            if (c->seq_k == 0)
                continue;
            if (rwt_pattern_is_valid(job, pattern_of(c), &plan->pattern, b, i, &bad))
                expect_row(job, b, i);
            else
                rwt_expect_fault(job, b * c->seq_q + i, RW_FAULT_LENGTH, bad);
        }
}

static bool sees(const rwt_job *job, int64_t b, int64_t i, int64_t j) {
    const fill_plan *plan = job->plan;
    rw_pattern_pair pair = {b, i, j};
    return rwt_pattern_sees(job, pattern_of(fill_case_of(&job->c)), &plan->pattern, &pair);
}

static void expect_mask_row(rwt_job *job, int64_t b, int64_t i) {
    const fill_plan *plan = job->plan;
    for (int64_t j = 0; j < fill_case_of(&job->c)->seq_k; j++)
        rwt_expect_exact(job, plan->out.buffer, out_at(plan, b, i, j),
                         sees(job, b, i, j) ? 0.0 : -INFINITY);
}

static void fill_reference(rwt_job *job) {
    for_each_query(job, expect_mask_row);
}

static void expect_bits_row(rwt_job *job, int64_t b, int64_t i) {
    const fill_plan *plan = job->plan;
    int64_t seq_k = fill_case_of(&job->c)->seq_k;
    for (int64_t n = 0; n < (seq_k + 7) / 8; n++) {
        int64_t byte = 0;
        for (int64_t j = 8 * n; j < 8 * n + 8 && j < seq_k; j++)
            byte |= (int64_t)sees(job, b, i, j) << (j - 8 * n);
        rwt_expect_id(job, plan->out.buffer, out_at(plan, b, i, n), byte);
    }
}

static void bits_reference(rwt_job *job) {
    for_each_query(job, expect_bits_row);
}

static void fill_bind(const rwt_job *job, rwt_set *set) {
    const fill_plan *plan = job->plan;
    fill_call *call = set->args;
    call->pattern = rwt_pattern_bind(job, set, pattern_of(fill_case_of(&job->c)), &plan->pattern);
    call->out = rwt_tensor(job, set, &plan->out);
    call->seq_k = fill_case_of(&job->c)->seq_k;
}

static rw_status fill_run(const rwt_binding *binding, const void *args) {
    const fill_call *call = args;
    return rw_pattern_fill(binding->context, &call->pattern, &call->out);
}

static rw_status bits_run(const rwt_binding *binding, const void *args) {
    const fill_call *call = args;
    return rw_pattern_fill_bits(binding->context, &call->pattern, call->seq_k, &call->out);
}

static double fill_bytes(const rwt_job *job) {
    const fill_case *c = fill_case_of(&job->c);
    return (double)(c->batch * c->seq_q * c->seq_k) * (double)rw_dtype_size((rw_dtype)c->dtype);
}

static double bits_bytes(const rwt_job *job) {
    const fill_case *c = fill_case_of(&job->c);
    return (double)(c->batch * c->seq_q * ((c->seq_k + 7) / 8));
}

static const rwt_case_row fill_rows[] = {
    {RWT_QUICK, "causal=0|1,align=bottom|top,left=-1|0|3|99,right=-1|0|2|99,seq_q=7|13"},
    {RWT_QUICK, "causal=1,seq_q=0|1|5|8|9|17,seq_k=0|1|5|8|9|17,align=bottom|top"},
    {RWT_QUICK, "causal=1,prefix=0|1|5|13|400,seq_q=6|13|15"},
    {RWT_QUICK, "batch=3,prefixes=i32|i64,causal=1,left=-1|2,part_dtype=i32|i64"},
    {RWT_QUICK,
     "batch=2,left=1|3,right=1|3,globals=1|3|9,causal=0|1,seq_q=9|13|15,align=bottom|top"},
    {RWT_QUICK, "batch=2,documents=1|3|13|30,own=0|1,causal=0|1,seq_q=9|13|15,align=bottom|top"},
    {RWT_QUICK, "batch=4,padding=left|right|both,causal=0|1,part_dtype=i32|i64"},
    {RWT_QUICK, "batch=4,align=key_end,padding=right|both,causal=0|1,left=-1|0|4,right=-1|2,"
                "seq_q=1|3|9|15,seq_k=13|40"},
    {RWT_QUICK, "batch=3,align=key_end,padding=right|both,causal=1,globals=3,left=2,documents=0|4,"
                "own=0|1,prefixes=none|i32,seq_q=1|3|15,part_dtype=i32|i64"},
    {RWT_QUICK, "batch=2,bits=none|queries|batch|keys,hide=none|queries|batch|keys,causal=0|1,"
                "hide_dtype=f32|f16|bf16"},
    {RWT_QUICK,
     "batch=3,prefixes=i64,padding=both,documents=4,own=1,globals=3,left=2,right=1,"
     "bits=batch,hide=keys,hide_dtype=bf16|u8,causal=0|1,dtype=f32|f16|bf16,stride=gaps|negative"},
    {RWT_QUICK, "dtype=f32|f16|bf16,seq_q=3,seq_k=1|7|8|9|31|32|33|64|1027,causal=1,"
                "stride=contiguous|gaps|negative,misalign=0|1"},
    {RWT_QUICK, "batch=3,pattern_at_fault=prefix,prefixes=i32,causal=1"},
    {RWT_QUICK, "batch=3,pattern_at_fault=padding,padding=left|right|both,causal=1"},
    {RWT_QUICK, "batch=3,pattern_at_fault=padding,align=key_end,padding=right|both,causal=1,left=2,"
                "globals=1"},
    {RWT_QUICK, "batch=3,pattern_at_fault=documents,documents=4,own=1,seq_q=5|13|15,align=key_end,"
                "padding=right|both"},
    {RWT_QUICK,
     "batch=3,pattern_at_fault=documents,documents=1|4,own=1,seq_q=5|13|15,align=bottom|top"},
    {RWT_QUICK, "rank=2,causal=1,stride=contiguous|negative"},
    {RWT_FULL, "batch=2,seq_q=130,seq_k=4100,dtype=f32|f16|bf16,causal=1,left=700"},
    {RWT_FULL, "seq_q=512,seq_k=4100,dtype=bf16,misalign=1,causal=1,left=900"},
    {RWT_QUICK, NULL}};

static const char fill_random[] =
    "dtype=f32|f16|bf16,batch=1..3,seq_q=0..40,seq_k=1..80,stride=contiguous|gaps|negative,"
    "causal=0|1,align=bottom|top|key_end,left=-1..50,right=-1..50,prefixes=none|i32|i64,"
    "globals=0..5,documents=0..6,own=0|1,padding=none|left|right|both,bits=none|none|queries|batch|"
    "keys,"
    "hide=none|none|queries|batch|keys,hide_dtype=f32|f16|bf16|u8,part_dtype=i32|i64";

static const rwt_benchmark fill_benchmarks[] = {
    {"causal f32 4096x4096", "seq_q=4096,seq_k=4096,causal=1", true, true, false},
    {"causal bf16 4096x4096", "seq_q=4096,seq_k=4096,causal=1,dtype=bf16", true, true, false},
    {"window 512 f32 4096x4096", "seq_q=4096,seq_k=4096,causal=1,left=512", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_pattern_fill_driver = {
    .name = "pattern_fill",
    .fields = fill_fields,
    .num_fields = RWT_COUNT(fill_fields),
    .rows = fill_rows,
    .random = fill_random,
    .num_random = 100,
    .benchmarks = fill_benchmarks,
    .plan_size = sizeof(fill_plan),
    .args_size = sizeof(fill_call),
    .invalid = fill_invalid,
    .fill = fill_fill,
    .reference = fill_reference,
    .bind = fill_bind,
    .run = fill_run,
    .bytes = fill_bytes,
    .flops = no_flops,
};

static const rwt_benchmark bits_benchmarks[] = {
    {"causal 8192x8192", "seq_q=8192,seq_k=8192,causal=1", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_pattern_fill_bits_driver = {
    .name = "pattern_fill_bits",
    .fields = fill_fields,
    .num_fields = RWT_COUNT(fill_fields),
    .rows = fill_rows,
    .random = fill_random,
    .num_random = 100,
    .benchmarks = bits_benchmarks,
    .plan_size = sizeof(fill_plan),
    .args_size = sizeof(fill_call),
    .invalid = fill_invalid,
    .fill = bits_fill,
    .reference = bits_reference,
    .bind = fill_bind,
    .run = bits_run,
    .bytes = bits_bytes,
    .flops = no_flops,
};

/* ---- position ids ---- */

static const char *const words_ids[] = {"sequential", "local", "global_local", "custom", NULL};

/* table: the number of ids missing at its end; fault: documents end before the tokens. */
#define POSITIONS_FIELDS(FIELD)                                                                    \
    FIELD(dtype, 1, rwt_words_id_dtype)                                                            \
    FIELD(in_dtype, 1, rwt_words_id_dtype)                                                         \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(seq, 11, NULL)                                                                           \
    FIELD(rank, 2, NULL)                                                                           \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(ids, RW_PATTERN_IDS_SEQUENTIAL, words_ids)                                               \
    FIELD(window, 3, NULL)                                                                         \
    FIELD(offset, 0, NULL)                                                                         \
    FIELD(globals, 2, NULL)                                                                        \
    FIELD(documents, 0, NULL)                                                                      \
    FIELD(own, 0, NULL)                                                                            \
    FIELD(lacks, 0, NULL)                                                                          \
    FIELD(fault, 0, NULL)                                                                          \
    FIELD(seed, 0, NULL)

typedef struct positions_case {
    POSITIONS_FIELDS(RWT_MEMBER)
} positions_case;

static const rwt_field positions_fields[] = {POSITIONS_FIELDS(RWT_FIELD)};

typedef struct positions_plan {
    rwt_view out;
    rwt_view globals;
    rwt_view cu_seqlens;
    rwt_view table;
} positions_plan;

static const positions_case *positions_case_of(const rwt_case *c) {
    return (const positions_case *)c->values;
}

static const char *positions_invalid(const rwt_case *row) {
    const positions_case *c = positions_case_of(row);
    if (c->batch < 0 || c->seq < 0 || c->window < 0 || c->offset < 0 || c->globals < 0)
        return "a length is negative";
    if ((c->ids == RW_PATTERN_IDS_GLOBAL_LOCAL && c->window < 1) || (c->rank == 1 && c->batch != 1))
        return "global_local needs a window from 1, and a batch needs rank=2";
    if (c->rank < 1 || c->rank > 2 || c->fault < 0 || c->fault > c->seq || c->lacks < 0)
        return "rank is 1 or 2, and no more tokens are at fault than there are";
    return NULL;
}

static void positions_add_documents(rwt_job *job) {
    const positions_case *c = positions_case_of(&job->c);
    positions_plan *plan = job->plan;
    int64_t rows = c->own ? c->batch : 1;
    rwt_layout layout = {
        c->own ? 2 : 1, {c->own ? rows : c->documents + 1, c->documents + 1}, NULL, RWT_CONTIGUOUS};
    plan->cu_seqlens = rwt_id_view_add(job, &layout, "cu_seqlens", c->in_dtype);
    for (int64_t b = 0; b < rows; b++) {
        int64_t end = c->seq + c->offset - c->fault, at = 0;
        for (int64_t n = 0; n <= c->documents; n++) {
            rwt_buffer_set_id(job, plan->cu_seqlens.buffer, b * (c->documents + 1) + n,
                              n == c->documents ? end : at);
            at += rwt_random_below(&job->random, end - at + 1) / 2;
        }
    }
}

static void positions_fill(rwt_job *job) {
    const positions_case *c = positions_case_of(&job->c);
    positions_plan *plan = job->plan;
    rwt_layout layout = {2, {c->batch, c->seq}, NULL, (rwt_stride_style)c->stride};
    if (c->rank == 1)
        layout = (rwt_layout){1, {c->seq}, NULL, (rwt_stride_style)c->stride};
    plan->out = rwt_id_view_add(job, &layout, "out", c->dtype);
    plan->globals = rwt_view_absent;
    plan->cu_seqlens = rwt_view_absent;
    plan->table = rwt_view_absent;
    if (c->documents)
        positions_add_documents(job);
    if (c->ids == RW_PATTERN_IDS_GLOBAL_LOCAL) { /* some tokens are past the last bit */
        rwt_layout bits = {1, {(c->seq + 15) / 16}, NULL, RWT_CONTIGUOUS};
        plan->globals = rwt_view_add(job, &bits, (rwt_buffer_spec){.name = "g", .dtype = RW_U8});
        for (int64_t n = 0; n < bits.shape[0]; n++)
            rwt_buffer_set_id(job, plan->globals.buffer, n, rwt_random_below(&job->random, 256));
    }
    if (c->ids == RW_PATTERN_IDS_CUSTOM) {
        int64_t length = c->seq + c->offset - c->lacks;
        rwt_layout table = {
            c->own ? 2 : 1, {c->own ? c->batch : length, length}, NULL, RWT_CONTIGUOUS};
        plan->table = rwt_id_view_add(job, &table, "table", c->in_dtype);
        for (int64_t n = 0; n < job->buffers[plan->table.buffer].elements; n++)
            rwt_buffer_set_id(job, plan->table.buffer, n,
                              rwt_random_below(&job->random, 99999) - 5000);
    }
}

/* The id of a token, or false with what is wrong. */
static bool positions_expected(const rwt_job *job, int64_t b, int64_t s, int64_t *id,
                               rw_fault_kind *kind) {
    const positions_case *c = positions_case_of(&job->c);
    const positions_plan *plan = job->plan;
    int64_t pos = s + c->offset, place = pos;
    if (c->documents) {
        int64_t row = c->own ? b * (c->documents + 1) : 0, begin = -1;
        for (int64_t n = 0; n < c->documents; n++) {
            int64_t from = rwt_buffer_get_id(job, plan->cu_seqlens.buffer, row + n);
            *id = rwt_buffer_get_id(job, plan->cu_seqlens.buffer, row + n + 1);
            if (from <= pos && pos < *id)
                begin = from;
        }
        *kind = RW_FAULT_LENGTH;
        if (begin < 0)
            return false;
        place = pos - begin;
    }
    *id = place;
    if (c->ids == RW_PATTERN_IDS_LOCAL)
        *id = place >= c->window ? place - c->window : 0;
    if (c->ids == RW_PATTERN_IDS_GLOBAL_LOCAL) {
        bool global = pos < 8 * plan->globals.shape[0] &&
                      (rwt_buffer_get_id(job, plan->globals.buffer, pos / 8) >> pos % 8 & 1);
        *id = global ? place : place % c->window;
    }
    if (c->ids == RW_PATTERN_IDS_CUSTOM) {
        int64_t length = plan->table.shape[c->own ? 1 : 0];
        *kind = RW_FAULT_POSITION;
        if (place >= length)
            return false;
        *id = rwt_buffer_get_id(job, plan->table.buffer, (c->own ? b * length : 0) + place);
    }
    *kind = RW_FAULT_OVERFLOW;
    return c->dtype || (*id >= INT32_MIN && *id <= INT32_MAX);
}

static void positions_reference(rwt_job *job) {
    const positions_case *c = positions_case_of(&job->c);
    const positions_plan *plan = job->plan;
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t s = 0; s < c->seq; s++) {
            int64_t id = 0;
            rw_fault_kind kind = RW_FAULT_NONE;
            int64_t element = c->rank == 1 ? rwt_view_at(&plan->out, s, 0, 0, 0)
                                           : rwt_view_at(&plan->out, b, s, 0, 0);
            if (positions_expected(job, b, s, &id, &kind))
                rwt_expect_id(job, plan->out.buffer, element, id);
            else
                rwt_expect_fault(job, b * c->seq + s, kind, id);
        }
}

static void positions_bind(const rwt_job *job, rwt_set *set) {
    const positions_case *c = positions_case_of(&job->c);
    const positions_plan *plan = job->plan;
    rw_pattern_positions_args *args = set->args;
    *args = (rw_pattern_positions_args){
        .out = rwt_tensor(job, set, &plan->out),
        .ids = (rw_pattern_ids)c->ids,
        .window = c->window,
        .offset = c->offset,
        .globals = rwt_tensor(job, set, &plan->globals),
        .cu_seqlens = rwt_tensor(job, set, &plan->cu_seqlens),
        .table = rwt_tensor(job, set, &plan->table),
    };
}

static rw_status positions_run(const rwt_binding *binding, const void *args) {
    return rw_pattern_positions(binding->context, args);
}

static double positions_bytes(const rwt_job *job) {
    const positions_case *c = positions_case_of(&job->c);
    return (double)(c->batch * c->seq) * (c->dtype ? 8.0 : 4.0);
}

static const rwt_case_row positions_rows[] = {
    {RWT_QUICK, "ids=sequential|local|global_local|custom,dtype=i32|i64,in_dtype=i32|i64,"
                "batch=1|3,offset=0|5,stride=contiguous|gaps|negative"},
    {RWT_QUICK, "ids=local,window=0|1|2|10|11|12|500"},
    {RWT_QUICK, "ids=global_local,window=1|2|10|11|12|500,seq=40"},
    {RWT_QUICK, "ids=sequential|local|global_local|custom,documents=1|3|11|20,own=0|1,batch=2,"
                "in_dtype=i32|i64"},
    {RWT_QUICK, "ids=sequential|local|global_local|custom,rank=1,seq=0|1|2|63|64|65|257"},
    {RWT_QUICK, "ids=sequential|local,documents=3,fault=1|4,batch=2,own=0|1"},
    {RWT_QUICK, "ids=custom,lacks=1|5,own=0|1,batch=2,offset=0|7"},
    {RWT_QUICK, "ids=sequential,dtype=i32|i64,offset=2147483640"},
    {RWT_QUICK, NULL}};

static const rwt_benchmark positions_benchmarks[] = {
    {"local i64 64x8192", "ids=local,batch=64,seq=8192,window=512", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_pattern_positions_driver = {
    .name = "pattern_positions",
    .fields = positions_fields,
    .num_fields = RWT_COUNT(positions_fields),
    .rows = positions_rows,
    .random = "ids=sequential|local|global_local|custom,dtype=i32|i64,in_dtype=i32|i64,"
              "batch=1..4,seq=1..300,window=1..99,offset=0..9,documents=0..9,own=0|1,"
              "stride=contiguous|gaps|negative",
    .num_random = 60,
    .benchmarks = positions_benchmarks,
    .plan_size = sizeof(positions_plan),
    .args_size = sizeof(rw_pattern_positions_args),
    .invalid = positions_invalid,
    .fill = positions_fill,
    .reference = positions_reference,
    .bind = positions_bind,
    .run = positions_run,
    .bytes = positions_bytes,
    .flops = no_flops,
};
