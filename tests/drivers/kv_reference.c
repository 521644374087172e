/* The naive references of rw_kv_append and rw_rope_append. */
#include "drivers/kv_case.h"
#include "drivers/rope_reference.h"

#include <math.h>

int64_t kv_first_position(const rwt_job *job, int64_t b) {
    const kv_plan *plan = job->plan;
    const rwt_view *offsets = &plan->offsets;
    int64_t first = kv_case_of(&job->c)->cache_offset;
    if (offsets->buffer >= 0)
        first += rwt_buffer_get_id(job, offsets->buffer, rwt_view_at(offsets, b, 0, 0, 0));
    return first;
}

int64_t kv_bound(const rwt_job *job, int64_t b) {
    const kv_plan *plan = job->plan;
    const rwt_view *cu_seqlens = &plan->cu_seqlens;
    return rwt_buffer_get_id(job, cu_seqlens->buffer, rwt_view_at(cu_seqlens, b, 0, 0, 0));
}

int64_t kv_count_tokens(const rwt_job *job, int64_t b) {
    const kv_case *c = kv_case_of(&job->c);
    return c->sequences ? kv_bound(job, b + 1) - kv_bound(job, b) : c->seq;
}

int64_t kv_slot_element(const kv_plan *plan, int64_t b, int64_t s) {
    const rwt_view *slots = &plan->slots;
    return slots->rank == 1 ? rwt_view_at(slots, s, 0, 0, 0) : rwt_view_at(slots, b, s, 0, 0);
}

static int64_t token_element(const rwt_view *view, int64_t b, int64_t s, int64_t head,
                             int64_t column) {
    if (view->rank == 3)
        return rwt_view_at(view, s, head, column, 0);
    return rwt_view_at(view, b, s, head, column);
}

typedef enum token_kind {
    TOKEN_FAULT,    /* with the invalid number */
    TOKEN_PADDING,  /* nothing happens */
    TOKEN_REPLACED, /* in a ring, by a later token */
    TOKEN_WRITTEN
} token_kind;

typedef struct token_place {
    token_kind kind;
    int64_t page;
    int64_t row;
    rw_fault bad;
} token_place;

static token_place fault_at(rw_fault_kind kind, int64_t id) {
    return (token_place){.kind = TOKEN_FAULT, .bad = {.kind = kind, .id = id}};
}

static token_place place_of_slot(const kv_case *c, const kv_plan *plan, int64_t slot) {
    if (slot == -1)
        return (token_place){.kind = TOKEN_PADDING};
    if (slot < 0 || slot >= plan->length)
        return fault_at(RW_FAULT_SLOT, slot);
    return (token_place){TOKEN_WRITTEN, slot / c->page_size, slot % c->page_size, {0}};
}

static token_place find_place(const rwt_job *job, const kv_case *c, const kv_plan *plan, int64_t b,
                              int64_t s) {
    if (c->slots)
        return place_of_slot(
            c, plan, rwt_buffer_get_id(job, plan->slots.buffer, kv_slot_element(plan, b, s)));
    if (c->sequences) {
        if (s >= kv_bound(job, c->sequences))
            return (token_place){.kind = TOKEN_PADDING};
        if (s < kv_bound(job, 0))
            return fault_at(RW_FAULT_LENGTH, kv_bound(job, 0));
        while (s >= kv_bound(job, b + 1))
            b++;
        s -= kv_bound(job, b);
    }
    int64_t position = kv_first_position(job, b) + s;
    if (position < 0 || (!c->ring && position >= plan->length))
        return fault_at(RW_FAULT_CACHE_POSITION, position);
    if (c->ring && s + c->ring < kv_count_tokens(job, b))
        return (token_place){.kind = TOKEN_REPLACED};
    if (c->ring)
        position %= c->ring;
    if (!c->paged)
        return (token_place){TOKEN_WRITTEN, b, position, {0}};
    int64_t page = rwt_buffer_get_id(job, plan->table.buffer,
                                     rwt_view_at(&plan->table, b, position / c->page_size, 0, 0));
    if (page < 0 || page >= plan->num_pages)
        return fault_at(RW_FAULT_PAGE, page);
    return (token_place){TOKEN_WRITTEN, page, position % c->page_size, {0}};
}

/* What numbers of a head are divided by. */
static double divisor_of(const rwt_job *job, const kv_plan *plan, int side, int64_t head) {
    const rwt_view *scale = &plan->scale[side];
    if (scale->buffer < 0)
        return 1.0;
    return rwt_buffer_get(job, scale->buffer,
                          rwt_view_at(scale, scale->shape[0] == 1 ? 0 : head, 0, 0, 0));
}

/* Expects a number that is divided by `divisor` and rounded, in a cache of 8 bits. */
static void expect_quantized(rwt_job *job, int buffer, int64_t element, double value, double scale,
                             double divisor) {
    const double max = rwt_dtype_max(job->buffers[buffer].dtype);
    value /= divisor;
    if (fabs(value) > max)
        value = copysign(max, value);
    rwt_expect_near(job, buffer, element, value, scale / divisor);
}

static void expect_copies(rwt_job *job, const kv_case *c, const kv_plan *plan, int side, int64_t b,
                          int64_t s, const token_place *place) {
    const rwt_view *in = &plan->in[side], *cache = &plan->cache[side];
    for (int64_t head = 0; in->buffer >= 0 && head < c->heads; head++)
        for (int64_t column = 0; column < (side ? c->v_dim : c->head_dim); column++) {
            int64_t from = token_element(in, b, s, head, column);
            int64_t to = rwt_view_at(cache, place->page, place->row, head, column);
            if (c->cache_dtype)
                expect_quantized(job, cache->buffer, to, rwt_buffer_get(job, in->buffer, from), 0.0,
                                 divisor_of(job, plan, side, head));
            else
                rwt_expect_copy(job, cache->buffer, to, in->buffer, from);
        }
}

void kv_reference(rwt_job *job) {
    const kv_case *c = kv_case_of(&job->c);
    const kv_plan *plan = job->plan;
    bool nothing = c->heads * (c->head_dim + (c->no_v ? 0 : c->v_dim)) == 0;
    for (int64_t token = 0; !nothing && token < c->batch * c->seq; token++) {
        int64_t b = token / c->seq, s = token % c->seq;
        token_place place = find_place(job, c, plan, b, s);
        if (place.kind == TOKEN_FAULT)
            rwt_expect_fault(job, token, place.bad.kind, place.bad.id);
        for (int side = 0; place.kind == TOKEN_WRITTEN && side < 2; side++)
            expect_copies(job, c, plan, side, b, s, &place);
    }
}

/* A head of q, k or v: the source and destination of each column. */
typedef struct head_path {
    int in;
    int out;
    int64_t in_element; /* of column 0 */
    int64_t out_element;
    int64_t width;
    bool normed;
    const rwt_view *weight;
    double divisor; /* in a cache of 8 bits; else 0 */
} head_path;

static void expect_number(rwt_job *job, const head_path *path, int64_t column, double value,
                          double scale) {
    const int64_t element = path->out_element + column;
    if (path->divisor != 0.0)
        expect_quantized(job, path->out, element, value, scale, path->divisor);
    else
        rwt_expect_near(job, path->out, element, value, scale);
}

static rwt_rounded normalised(const rwt_job *job, const rope_append_case *c, const head_path *path,
                              double factor, int64_t column) {
    rwt_rounded x = {rwt_buffer_get(job, path->in, path->in_element + column), 0.0};
    if (!path->normed)
        return x;
    double weight = 1.0;
    if (path->weight->buffer >= 0)
        weight = rwt_buffer_get(job, path->weight->buffer, column) + (double)c->norm_offset;
    x.middle *= factor;
    if (c->norm_cast == RW_NORM_CAST_BEFORE_WEIGHT)
        x = rwt_round_near((rw_dtype)c->dtype, x.middle);
    return (rwt_rounded){x.middle * weight, x.reach * fabs(weight)};
}

/* The scale of a result that may be off by `reach` besides its own rounding. */
static double scale_with(double scale, double reach) {
    return scale + reach / (4.0 * rwt_dtype_epsilon(RW_F32));
}

static double head_factor(const rwt_job *job, const head_path *path) {
    double sum = 0.0;
    for (int64_t column = 0; column < path->width; column++) {
        double x = rwt_buffer_get(job, path->in, path->in_element + column);
        sum += x * x;
    }
    return 1.0 / sqrt(sum / (double)path->width + (double)1e-6f);
}

/* Columns [begin, end), without rotation. */
static void expect_columns(rwt_job *job, const head_path *path, int64_t begin, int64_t end) {
    const rope_append_case *c = rope_append_case_of(&job->c);
    double factor = head_factor(job, path);
    for (int64_t column = begin; column < end; column++) {
        rwt_rounded x = normalised(job, c, path, factor, column);
        if (path->normed || path->divisor != 0.0)
            expect_number(job, path, column, x.middle, scale_with(fabs(x.middle), x.reach));
        else if (path->in != path->out)
            rwt_expect_copy(job, path->out, path->out_element + column, path->in,
                            path->in_element + column);
    }
}

static void expect_head(rwt_job *job, int64_t b, int64_t s, const head_path *path) {
    const rope_append_case *c = rope_append_case_of(&job->c);
    const rope_append_plan *plan = job->plan;
    double factor = head_factor(job, path);
    double af = plan->attention_factor;
    int64_t n = rope_append_rotary_width(c) / 2;
    double magnitude = c->direction == RW_ROPE_INVERSE ? 1.0 / af : af;
    double sign = c->direction == RW_ROPE_FORWARD ? 1.0 : -1.0;
    expect_columns(job, path, 0, c->start);
    expect_columns(job, path, c->start + 2 * n, c->head_dim);
    for (int64_t i = 0; i < n; i++) {
        bool shared = c->positions != RWT_POSITIONS_AXES;
        int64_t axis = shared ? 0 : rwt_rope_axis(&plan->spec, i, n);
        double angle = (double)rwt_ids_at(job, &plan->ids, axis, b, s) * plan->inv_freq[i];
        double turn_cos = magnitude * cos(angle), turn_sin = sign * magnitude * sin(angle);
        bool interleaved = c->pairing == RW_ROPE_INTERLEAVED;
        int64_t column1 = c->start + (interleaved ? 2 * i : i);
        int64_t column2 = c->start + (interleaved ? 2 * i + 1 : i + n);
        rwt_rounded x1 = normalised(job, c, path, factor, column1);
        rwt_rounded x2 = normalised(job, c, path, factor, column2);
        double scale = scale_with((fabs(x1.middle) + fabs(x2.middle)) * magnitude,
                                  (x1.reach + x2.reach) * magnitude);
        expect_number(job, path, column1, x1.middle * turn_cos - x2.middle * turn_sin, scale);
        expect_number(job, path, column2, x2.middle * turn_cos + x1.middle * turn_sin, scale);
    }
}

/* The first rotation id of a token that is outside the table. */
static bool ids_fault(const rwt_job *job, const rope_append_case *c, int64_t b, int64_t s,
                      rw_fault *bad) {
    const rope_append_plan *plan = job->plan;
    for (int64_t axis = 0; c->rotate && axis < (c->axes ? 3 : 1); axis++) {
        bool shared = c->positions != RWT_POSITIONS_AXES;
        int64_t id = rwt_ids_at(job, &plan->ids, shared ? 0 : axis, b, s);
        if (id >= 0 && id < c->max_positions)
            continue;
        *bad = (rw_fault){.kind = RW_FAULT_POSITION, .id = id};
        return true;
    }
    return false;
}

static void expect_q(rwt_job *job, int64_t b, int64_t s) {
    const rope_append_case *c = rope_append_case_of(&job->c);
    const rope_append_plan *plan = job->plan;
    for (int64_t head = 0; head < c->q_heads; head++) {
        head_path path = {plan->q.buffer,
                          plan->q_out.buffer,
                          token_element(&plan->q, b, s, head, 0),
                          token_element(&plan->q_out, b, s, head, 0),
                          c->head_dim,
                          plan->weight[0].buffer >= 0,
                          &plan->weight[0],
                          0.0};
        expect_head(job, b, s, &path);
    }
}

static void expect_k_and_v(rwt_job *job, int64_t b, int64_t s, const token_place *place) {
    const rope_append_case *c = rope_append_case_of(&job->c);
    const rope_append_plan *plan = job->plan;
    for (int64_t n = 0; n < 2 * c->heads; n++) {
        const int side = n % 2;
        const int64_t head = n / 2;
        const rwt_view *in = &plan->kv.in[side], *cache = &plan->kv.cache[side];
        if (in->buffer < 0 || (side == 1 && !c->v_norm))
            continue;
        head_path path = {in->buffer,
                          cache->buffer,
                          token_element(in, b, s, head, 0),
                          rwt_view_at(cache, place->page, place->row, head, 0),
                          side ? c->v_dim : c->head_dim,
                          side || plan->weight[1].buffer >= 0,
                          &plan->weight[side + 1],
                          c->cache_dtype ? divisor_of(job, &plan->kv, side, head) : 0.0};
        if (side == 0)
            expect_head(job, b, s, &path);
        else
            expect_columns(job, &path, 0, c->v_dim);
    }
    if (!c->v_norm)
        expect_copies(job, kv_case_of(&job->c), &plan->kv, 1, b, s, place);
}

void rope_append_reference(rwt_job *job) {
    const rope_append_case *c = rope_append_case_of(&job->c);
    const rope_append_plan *plan = job->plan;
    bool nothing = c->q_heads + c->heads == 0;
    for (int64_t token = 0; !nothing && token < c->batch * c->seq; token++) {
        int64_t b = token / c->seq, s = token % c->seq;
        token_place place = find_place(job, kv_case_of(&job->c), &plan->kv, b, s);
        if (place.kind == TOKEN_PADDING)
            continue;
        if (ids_fault(job, c, b, s, &place.bad))
            place.kind = TOKEN_FAULT;
        if (place.kind == TOKEN_FAULT) {
            rwt_expect_fault(job, token, place.bad.kind, place.bad.id);
            continue;
        }
        expect_q(job, b, s);
        if (place.kind == TOKEN_WRITTEN)
            expect_k_and_v(job, b, s, &place);
    }
}
