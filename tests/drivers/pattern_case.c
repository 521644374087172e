#include "drivers/pattern_case.h"

#include <math.h>
#include <string.h>

const char *const rwt_words_align[] = {"bottom", "top", "key_end", NULL};
const char *const rwt_words_padding[] = {"none", "left", "right", "both", NULL};
const char *const rwt_words_cells[] = {"none", "queries", "batch", "keys", NULL};
const char *const rwt_words_pattern_fault[] = {"none", "prefix", "padding", "documents", NULL};

/* Whether there is a key_end, so that `align` may be key_end. */
static bool has_key_end(const rwt_pattern_fields *fields) {
    return fields->padding == RWT_PADDING_RIGHT || fields->padding == RWT_PADDING_BOTH;
}

const char *rwt_pattern_invalid(const rwt_pattern_fields *fields, const rw_pattern_shape *shape) {
    if (shape->batch < 0 || shape->seq_q < 0 || shape->seq_k < 0)
        return "a length is negative";
    if (fields->left < -1 || fields->right < -1 || fields->prefix < -1 || fields->globals < 0 ||
        fields->globals > RWT_MAX_GLOBALS || fields->documents < 0)
        return "a part of the pattern is negative, or there are too many globals";
    if (fields->prefix >= 0 && fields->prefixes)
        return "prefix and prefixes exclude each other";
    if (fields->globals && shape->seq_k == 0)
        return "globals need keys";
    if (fields->align == RW_ALIGN_KEY_END && !has_key_end(fields))
        return "align=key_end needs padding=right or both";
    rwt_pattern_fault fault = (rwt_pattern_fault)fields->pattern_at_fault;
    if (fault && (shape->batch == 0 || shape->seq_k < 2))
        return "a fault needs a sequence of two keys";
    if ((fault == RWT_PATTERN_FAULT_PREFIX && !fields->prefixes) ||
        (fault == RWT_PATTERN_FAULT_PADDING && !fields->padding) ||
        (fault == RWT_PATTERN_FAULT_DOCUMENTS && !(fields->documents && fields->own)))
        return "a fault needs the part that holds it";
    return NULL;
}

int64_t rwt_pattern_seq_q(const rwt_pattern_plan *plan, int64_t b) {
    const rwt_sequences *own = &plan->sequences;
    return own->ragged ? own->q[b + 1] - own->q[b] : plan->shape.seq_q;
}

int64_t rwt_pattern_seq_k(const rwt_pattern_plan *plan, int64_t b) {
    const rwt_sequences *own = &plan->sequences;
    return own->packed_k ? own->k[b + 1] - own->k[b] : plan->shape.seq_k;
}

int64_t rwt_pattern_first(const rwt_pattern_plan *plan, int64_t b) {
    return plan->sequences.ragged ? plan->sequences.q[b] : 0;
}

static rwt_view add_ids(rwt_job *job, const rwt_pattern_fields *fields, const char *name,
                        int64_t length) {
    rwt_layout layout = {1, {length}, NULL, RWT_CONTIGUOUS};
    return rwt_id_view_add(job, &layout, name, fields->part_dtype);
}

static int64_t get(const rwt_job *job, const rwt_view *view, int64_t i, int64_t j) {
    return rwt_buffer_get_id(job, view->buffer, rwt_view_at(view, i, j, 0, 0));
}

static void set(rwt_job *job, const rwt_view *view, int64_t i, int64_t j, int64_t value) {
    rwt_buffer_set_id(job, view->buffer, rwt_view_at(view, i, j, 0, 0), value);
}

static bool at_fault(const rwt_pattern_fields *fields, const rw_pattern_shape *shape, int64_t b,
                     rwt_pattern_fault fault) {
    return fields->pattern_at_fault == (int64_t)fault && b == shape->batch - 1;
}

static void add_lengths(rwt_job *job, const rwt_pattern_fields *fields, rwt_pattern_plan *plan) {
    const rw_pattern_shape *shape = &plan->shape;
    if (fields->prefixes) {
        plan->prefix = add_ids(job, fields, "prefix", shape->batch);
        for (int64_t b = 0; b < shape->batch; b++) {
            bool wrong = at_fault(fields, shape, b, RWT_PATTERN_FAULT_PREFIX);
            int64_t length = rwt_random_below(&job->random, rwt_pattern_seq_k(plan, b) + 4);
            set(job, &plan->prefix, b, 0, wrong ? -3 : length);
        }
    }
    bool left = fields->padding == RWT_PADDING_LEFT || fields->padding == RWT_PADDING_BOTH;
    bool right = has_key_end(fields);
    if (left)
        plan->key_begin = add_ids(job, fields, "key_begin", shape->batch);
    if (right)
        plan->key_end = add_ids(job, fields, "key_end", shape->batch);
    for (int64_t b = 0; b < shape->batch; b++) {
        bool wrong = at_fault(fields, shape, b, RWT_PATTERN_FAULT_PADDING);
        int64_t seq_k = rwt_pattern_seq_k(plan, b);
        int64_t begin = rwt_random_below(&job->random, seq_k + 1);
        int64_t end = begin + rwt_random_below(&job->random, seq_k - begin + 1);
        if (left)
            set(job, &plan->key_begin, b, 0, wrong && !right ? seq_k + 1 : begin);
        if (right)
            set(job, &plan->key_end, b, 0, wrong ? seq_k + 7 : end);
    }
}

static void add_globals(rwt_job *job, const rwt_pattern_fields *fields, rwt_pattern_plan *plan) {
    if (fields->globals == 0)
        return;
    rwt_layout layout = {1, {(plan->shape.seq_k + 7) / 8}, NULL, RWT_CONTIGUOUS};
    plan->globals =
        rwt_view_add(job, &layout, (rwt_buffer_spec){.name = "globals", .dtype = RW_U8});
    for (int64_t n = 0; n < layout.shape[0]; n++)
        set(job, &plan->globals, n, 0, 0);
    for (int64_t g = 0; g < fields->globals; g++) {
        int64_t at = rwt_random_below(&job->random, plan->shape.seq_k);
        if (g > 0 && rwt_random_below(&job->random, 3) == 0)
            at = plan->positions[g - 1]; /* twice */
        plan->positions[g] = at;
        set(job, &plan->globals, at / 8, 0, get(job, &plan->globals, at / 8, 0) | 1 << at % 8);
    }
}

/* Boundaries at random places. */
static void add_documents(rwt_job *job, const rwt_pattern_fields *fields, rwt_pattern_plan *plan) {
    if (fields->documents == 0)
        return;
    int64_t rows = fields->own ? plan->shape.batch : 1;
    rwt_layout own = {2, {rows, fields->documents + 1}, NULL, RWT_GAPS};
    rwt_layout shared = {1, {fields->documents + 1}, NULL, RWT_CONTIGUOUS};
    plan->cu_seqlens =
        rwt_id_view_add(job, fields->own ? &own : &shared, "cu_seqlens", fields->part_dtype);
    for (int64_t b = 0; b < rows; b++) {
        bool wrong = at_fault(fields, &plan->shape, b, RWT_PATTERN_FAULT_DOCUMENTS);
        int64_t end = rwt_pattern_seq_k(plan, b) - (wrong ? 1 : 0);
        int64_t at = 0;
        for (int64_t n = 0; n <= fields->documents; n++) {
            int64_t bound = n == fields->documents ? end : at;
            set(job, &plan->cu_seqlens, fields->own ? b : n, fields->own ? n : 0, bound);
            at += rwt_random_below(&job->random, 2 * (end - at) / (fields->documents - n + 1) + 1);
            at = at > end ? end : at;
        }
    }
}

static rwt_layout cells_layout(int64_t kind, const rw_pattern_shape *shape, int64_t columns) {
    if (kind == RWT_CELLS_QUERIES)
        return (rwt_layout){2, {shape->seq_q, columns}, NULL, RWT_GAPS};
    int64_t queries = kind == RWT_CELLS_KEYS ? 1 : shape->seq_q;
    return (rwt_layout){3, {shape->batch, queries, columns}, NULL, RWT_GAPS};
}

/* Random bits, three quarters set; a dense mask with as many -inf, and various other values. */
static void add_cells(rwt_job *job, const rwt_pattern_fields *fields, rwt_pattern_plan *plan) {
    if (fields->bits) {
        rwt_layout layout = cells_layout(fields->bits, &plan->shape, (plan->shape.seq_k + 7) / 8);
        rwt_buffer_spec spec = {.name = "bits", .dtype = RW_U8};
        plan->bits = rwt_view_add(job, &layout, spec);
        for (int64_t n = 0; n < job->buffers[plan->bits.buffer].elements; n++)
            rwt_buffer_set_id(
                job, plan->bits.buffer, n,
                (int64_t)((rwt_random_next(&job->random) | rwt_random_next(&job->random)) & 255));
    }
    if (fields->hide) {
        static const double values[] = {-INFINITY, 0.0, -1e4, -65504.0, 3.5, NAN, -0.0};
        rwt_layout layout = cells_layout(fields->hide, &plan->shape, plan->shape.seq_k);
        plan->mask = rwt_mask_view_add(job, &layout, "pattern.mask", fields->hide_dtype);
        rwt_mask_fill(job, &plan->mask, values, RWT_COUNT(values));
    }
}

void rwt_pattern_add(rwt_job *job, const rwt_pattern_fields *fields, const rw_pattern_shape *shape,
                     rwt_pattern_plan *plan) {
    plan->shape = *shape;
    plan->prefix = rwt_view_absent;
    plan->globals = rwt_view_absent;
    plan->cu_seqlens = rwt_view_absent;
    plan->key_begin = rwt_view_absent;
    plan->key_end = rwt_view_absent;
    plan->bits = rwt_view_absent;
    plan->mask = rwt_view_absent;
    add_lengths(job, fields, plan);
    add_globals(job, fields, plan);
    add_documents(job, fields, plan);
    add_cells(job, fields, plan);
}

static rw_tensor tensor_of(const rwt_job *job, const rwt_set *bound, const rwt_view *view) {
    rwt_set host = {.args = NULL};
    for (int b = 0; b < job->num_buffers; b++)
        host.data[b] = job->buffers[b].initial;
    return rwt_tensor(job, bound ? bound : &host, view);
}

rw_pattern rwt_pattern_bind(const rwt_job *job, const rwt_set *bound,
                            const rwt_pattern_fields *fields, const rwt_pattern_plan *plan) {
    return (rw_pattern){
        .causal = fields->causal != 0,
        .alignment = (rw_alignment)fields->align,
        .left = {fields->left >= 0, fields->left},
        .right = {fields->right >= 0, fields->right},
        .prefix_length = fields->prefix >= 0 ? fields->prefix : 0,
        .prefix = tensor_of(job, bound, &plan->prefix),
        .globals = tensor_of(job, bound, &plan->globals),
        .cu_seqlens = tensor_of(job, bound, &plan->cu_seqlens),
        .key_begin = tensor_of(job, bound, &plan->key_begin),
        .key_end = tensor_of(job, bound, &plan->key_end),
        .bits = tensor_of(job, bound, &plan->bits),
        .mask = tensor_of(job, bound, &plan->mask),
    };
}

/* ---- the reference ---- */

int64_t rwt_pattern_shift(const rwt_job *job, int64_t align, const rwt_pattern_plan *plan,
                          int64_t b) {
    if (align == RW_ALIGN_TOP_LEFT)
        return 0;
    if (align == RW_ALIGN_KEY_END)
        return get(job, &plan->key_end, b, 0) - rwt_pattern_seq_q(plan, b);
    return rwt_pattern_seq_k(plan, b) - rwt_pattern_seq_q(plan, b);
}

static int64_t bound_of(const rwt_job *job, const rwt_pattern_fields *fields,
                        const rwt_pattern_plan *plan, int64_t b, int64_t n) {
    return get(job, &plan->cu_seqlens, fields->own ? b : n, fields->own ? n : 0);
}

bool rwt_pattern_is_valid(const rwt_job *job, const rwt_pattern_fields *fields,
                          const rwt_pattern_plan *plan, int64_t b, int64_t i, int64_t *bad) {
    const rw_pattern_shape *shape = &plan->shape;
    const int64_t seq_k = rwt_pattern_seq_k(plan, b);
    if (at_fault(fields, shape, b, RWT_PATTERN_FAULT_PREFIX)) {
        *bad = get(job, &plan->prefix, b, 0);
        return false;
    }
    if (at_fault(fields, shape, b, RWT_PATTERN_FAULT_PADDING)) {
        *bad = seq_k + (fields->padding == RWT_PADDING_LEFT ? 1 : 7);
        return false;
    }
    if (at_fault(fields, shape, b, RWT_PATTERN_FAULT_DOCUMENTS)) {
        *bad = bound_of(job, fields, plan, b, fields->documents);
        int64_t p = i + rwt_pattern_shift(job, fields->align, plan, b);
        return p < *bad || p >= seq_k;
    }
    return true;
}

static bool same_document(const rwt_job *job, const rwt_pattern_fields *fields,
                          const rwt_pattern_plan *plan, int64_t b, int64_t p, int64_t j) {
    for (int64_t n = 0; n < fields->documents; n++) {
        int64_t begin = bound_of(job, fields, plan, b, n);
        int64_t end = bound_of(job, fields, plan, b, n + 1);
        if (begin <= p && p < end && begin <= j && j < end)
            return true;
    }
    return false;
}

/* The element of a bitmask or mask, some of whose axes may be broadcast. */
static int64_t cell_at(const rwt_view *view, int64_t kind, int64_t b, int64_t i, int64_t column) {
    if (kind == RWT_CELLS_QUERIES)
        return rwt_view_at(view, i, column, 0, 0);
    return rwt_view_at(view, b, kind == RWT_CELLS_KEYS ? 0 : i, column, 0);
}

/* Positions are those of the sequence's keys. */
static bool is_global(const rwt_pattern_fields *fields, const rwt_pattern_plan *plan, int64_t b,
                      int64_t at) {
    for (int64_t g = 0; g < fields->globals; g++)
        if (plan->positions[g] == at)
            return at < rwt_pattern_seq_k(plan, b);
    return false;
}

bool rwt_pattern_sees(const rwt_job *job, const rwt_pattern_fields *fields,
                      const rwt_pattern_plan *plan, const rw_pattern_pair *pair) {
    const int64_t b = pair->b, j = pair->j;
    const int64_t i = pair->i + rwt_pattern_shift(job, fields->align, plan, b);
    const int64_t row = rwt_pattern_first(plan, b) + pair->i;
    bool padding = true, document = true, bit = true, causal = true, window = true;
    int64_t prefix = fields->prefix >= 0 ? fields->prefix : 0;
    if (plan->key_begin.buffer >= 0)
        padding = j >= get(job, &plan->key_begin, b, 0);
    if (plan->key_end.buffer >= 0)
        padding = padding && j < get(job, &plan->key_end, b, 0);
    if (fields->documents)
        document = same_document(job, fields, plan, b, i, j);
    if (fields->bits)
        bit = rwt_buffer_get_id(job, plan->bits.buffer,
                                cell_at(&plan->bits, fields->bits, b, row, j / 8)) >>
                  j % 8 &
              1;
    if (fields->hide)
        bit = bit && rwt_mask_get(job, &plan->mask,
                                  cell_at(&plan->mask, fields->hide, b, row, j)) != -INFINITY;
    if (fields->prefixes)
        prefix = get(job, &plan->prefix, b, 0);
    if (fields->causal)
        causal = j <= i;
    if (fields->left >= 0)
        window = -fields->left <= j - i;
    if (fields->right >= 0)
        window = window && j - i <= fields->right;
    bool global = is_global(fields, plan, b, i) || is_global(fields, plan, b, j);
    return padding && document && bit && (j < prefix || (causal && (window || global)));
}

double rwt_pattern_count(const rwt_job *job, const rwt_pattern_fields *fields,
                         const rwt_pattern_plan *plan) {
    double count = 0.0;
    for (int64_t b = 0; b < plan->shape.batch; b++)
        for (int64_t i = 0; i < rwt_pattern_seq_q(plan, b); i++)
            for (int64_t j = 0; j < rwt_pattern_seq_k(plan, b); j++) {
                rw_pattern_pair pair = {b, i, j};
                count += rwt_pattern_sees(job, fields, plan, &pair);
            }
    return count;
}
