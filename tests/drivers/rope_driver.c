/* rw_rope_apply and rw_rope_rerotate: cases, buffers and the naive reference. */
#include "drivers/rope_case.h"
#include "drivers/rope_reference.h"

#include <math.h>
#include <string.h>

static const char *const words_type[] = {"default",  "linear", "dynamic",      "yarn",
                                         "longrope", "llama3", "proportional", NULL};
static const char *const words_from[] = {"none",     "default", "linear",       "dynamic", "yarn",
                                         "longrope", "llama3",  "proportional", NULL};
static const char *const words_pairing[] = {"half", "interleaved", NULL};
static const char *const words_axes[] = {"one",       "mrope_chunked",  "mrope_interleaved",
                                         "vision_2d", "2d_interleaved", NULL};
static const char *const words_sections[] = {"even", "skewed", "one_empty", NULL};
static const char *const words_layout[] = {"bshd", "bhsd", "sbhd", "thd", NULL};
static const char *const words_direction[] = {"forward", "inverse", "backward", NULL};

static const rwt_field rope_fields[] = {ROPE_FIELDS(RWT_FIELD)};

/* A spec, the length that it was built for and the reference frequencies. */
typedef struct rope_side {
    rw_rope_spec spec;
    int64_t seq_len;
    double inv_freq[ROPE_MAX_FREQUENCIES];
    double attention_factor;
} rope_side;

typedef struct rope_plan {
    rope_side to;
    rope_side from;
    double short_factor[ROPE_MAX_FREQUENCIES];
    double long_factor[ROPE_MAX_FREQUENCIES];
    float factors[ROPE_MAX_FREQUENCIES];
    rwt_view in[2]; /* q, k */
    rwt_view out[2];
    rwt_ids ids;
    int64_t batch;
    int64_t seq;
} rope_plan;

/* ---- specs ---- */

static void set_dynamic(const rope_case *c, rope_side *side) {
    side->spec.factor = 2.0 + (double)c->variant;
    side->seq_len = c->variant == 1 ? 0 : 6001;
}

static void set_yarn(const rope_case *c, rw_rope_spec *spec) {
    spec->original_max_position_embeddings = 1024;
    if (c->variant == 0)
        spec->factor = 4.0;
    if (c->variant == 1) {
        spec->mscale = 1.0;
        spec->mscale_all_dim = 0.707;
    }
    if (c->variant == 2) {
        spec->factor = 16.0;
        spec->attention_factor = 1.25;
        spec->no_truncate = true;
        spec->beta_fast = 16.0;
        spec->beta_slow = 2.0;
    }
}

static void set_longrope(const rope_case *c, const rope_plan *plan, rope_side *side) {
    side->spec.short_factor = plan->short_factor;
    side->spec.long_factor = plan->long_factor;
    side->spec.original_max_position_embeddings = 1024;
    side->seq_len = c->variant == 1 ? 1024 : 1025; /* longest short, shortest long */
    if (c->variant == 2)
        side->spec.attention_factor = 1.375;
    if (c->variant == 2)
        side->spec.short_mscale = 1.125;
    if (c->variant == 3)
        side->spec.long_mscale = 1.625;
}

static void set_llama3(const rope_case *c, rw_rope_spec *spec) {
    spec->theta = 500000.0;
    spec->factor = c->variant ? 32.0 : 8.0;
    spec->low_freq_factor = 1.0;
    spec->high_freq_factor = c->variant == 1 ? 16.0 : 4.0;
    spec->original_max_position_embeddings = 1024;
}

static void set_type(const rope_case *c, const rope_plan *plan, rope_side *side) {
    switch (side->spec.type) {
    case RW_ROPE_DEFAULT:
        side->spec.theta = c->variant ? 500000.0 : 0.0;
        break;
    case RW_ROPE_LINEAR:
        side->spec.factor = c->variant ? 8.0 : 2.5;
        break;
    case RW_ROPE_DYNAMIC:
        set_dynamic(c, side);
        break;
    case RW_ROPE_YARN:
        set_yarn(c, &side->spec);
        break;
    case RW_ROPE_LONGROPE:
        set_longrope(c, plan, side);
        break;
    case RW_ROPE_LLAMA3:
        set_llama3(c, &side->spec);
        break;
    case RW_ROPE_PROPORTIONAL:
        side->spec.factor = c->variant ? 3.0 : 0.0;
        break;
    }
}

static void set_sections(const rope_case *c, rw_rope_spec *spec) {
    int64_t n = rope_rotary_width(c) / 2;
    bool mrope = c->axes == RW_ROPE_AXES_MROPE_CHUNKED || c->axes == RW_ROPE_AXES_MROPE_INTERLEAVED;
    if (!mrope)
        return;
    spec->sections[1] = c->sections == 2 ? 0 : n / 3;
    spec->sections[2] = c->sections == 1 ? n / 6 : n / 3;
    spec->sections[0] = n - spec->sections[1] - spec->sections[2];
}

static void make_side(const rope_case *c, rope_plan *plan, int64_t type, rope_side *side) {
    side->spec = (rw_rope_spec){
        .type = (rw_rope_type)type,
        .pairing = (rw_rope_pairing)c->pairing,
        .head_dim = c->head_dim,
        .rotary_start = c->start,
        .rotary_dim = c->rotary_dim,
        .partial_rotary_factor = (double)c->partial / 100.0,
        .max_position_embeddings = 4096,
        .frequency_factors = c->factors ? plan->factors : NULL,
        .axes = (rw_rope_axes)c->axes,
    };
    set_type(c, plan, side);
    set_sections(c, &side->spec);
    rwt_rope_frequencies(&side->spec, side->seq_len, side->inv_freq, &side->attention_factor);
}

/* ---- buffers ---- */

static const int orders[][RW_MAX_RANK] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {1, 0, 2, 3}, {0, 1, 2, 0}};

/* A tensor of `heads` heads; packed ones have no batch axis. */
static rwt_layout heads_layout(const rope_case *c, int64_t layout, int64_t heads) {
    rwt_stride_style style = (rwt_stride_style)c->stride;
    if (layout == ROPE_LAYOUT_THD)
        return (rwt_layout){3, {c->seq, heads, c->head_dim}, orders[layout], style};
    return (rwt_layout){4, {c->batch, c->seq, heads, c->head_dim}, orders[layout], style};
}

static rwt_view heads_slice(const rwt_view *all, int64_t first, int64_t count) {
    rwt_view slice = *all;
    slice.offset += first * all->stride[all->rank - 2];
    slice.shape[all->rank - 2] = count;
    return slice;
}

static void add_fused(rwt_job *job, const rope_case *c, rope_plan *plan) {
    rwt_layout layout = heads_layout(c, c->layout, c->q_heads + 2 * c->k_heads);
    rwt_buffer_spec spec = {.name = "qkv", .dtype = (rw_dtype)c->dtype, .misalign = c->misalign};
    rwt_view all = rwt_view_add(job, &layout, spec);
    plan->in[0] = c->q_heads ? heads_slice(&all, 0, c->q_heads) : rwt_view_absent;
    plan->in[1] = c->k_heads ? heads_slice(&all, c->q_heads, c->k_heads) : rwt_view_absent;
    rwt_buffer_fill(job, all.buffer, (rwt_values)c->values);
}

static void add_apart(rwt_job *job, const rope_case *c, rope_plan *plan) {
    const int64_t heads[2] = {c->q_heads, c->k_heads};
    for (int i = 0; i < 2; i++) {
        plan->in[i] = rwt_view_absent;
        if (!heads[i])
            continue;
        rwt_layout layout = heads_layout(c, c->layout, heads[i]);
        rwt_buffer_spec spec = {
            .name = i ? "k" : "q", .dtype = (rw_dtype)c->dtype, .misalign = c->misalign};
        plan->in[i] = rwt_view_add(job, &layout, spec);
        rwt_buffer_fill(job, plan->in[i].buffer, (rwt_values)c->values);
    }
}

static void add_outputs(rwt_job *job, const rope_case *c, rope_plan *plan) {
    const int64_t heads[2] = {c->q_heads, c->k_heads};
    for (int i = 0; i < 2; i++) {
        plan->out[i] = plan->in[i];
        if (c->placement != RWT_OUT_OF_PLACE || !heads[i])
            continue;
        rwt_layout layout = heads_layout(c, c->out_layout, heads[i]);
        rwt_buffer_spec spec = {
            .name = i ? "k_out" : "q_out", .dtype = (rw_dtype)c->dtype, .misalign = c->misalign};
        plan->out[i] = rwt_view_add(job, &layout, spec);
    }
}

static void rope_fill(rwt_job *job) {
    const rope_case *c = rope_case_of(&job->c);
    rope_plan *plan = job->plan;
    for (int i = 0; i < ROPE_MAX_FREQUENCIES; i++) {
        plan->short_factor[i] = 1.0 + 0.01 * i;
        plan->long_factor[i] = 1.5 + 0.7 * i;
        plan->factors[i] = (float)rwt_random_uniform(&job->random, 0.5, 8.0);
    }
    make_side(c, plan, c->type, &plan->to);
    if (c->from)
        make_side(c, plan, c->from - 1, &plan->from);
    plan->batch = c->batch;
    plan->seq = c->seq;
    if (c->fused)
        add_fused(job, c, plan);
    else
        add_apart(job, c, plan);
    add_outputs(job, c, plan);
    rwt_id_shape shape = {c->batch, c->seq, rwt_rope_num_axes(&plan->to.spec),
                          c->layout == ROPE_LAYOUT_THD, c->max_positions};
    plan->ids = rwt_ids_add(job, rope_id_fields(c), &shape);
}

/* ---- reference ---- */

/* The heads of q or k of a token. */
typedef struct token_heads {
    const rwt_view *in;
    const rwt_view *out;
    int64_t b;
    int64_t s;
} token_heads;

static int64_t element_of(const rwt_view *view, const token_heads *t, int64_t head,
                          int64_t column) {
    if (view->rank == 3)
        return rwt_view_at(view, t->s, head, column, 0);
    return rwt_view_at(view, t->b, t->s, head, column);
}

static void copy_rest(rwt_job *job, const rope_case *c, const token_heads *t, int64_t heads) {
    if (c->placement != RWT_OUT_OF_PLACE)
        return;
    for (int64_t head = 0; head < heads; head++) {
        for (int64_t column = 0; column < c->head_dim; column++) {
            if (column < c->start || column >= c->start + rope_rotary_width(c))
                rwt_expect_copy(job, t->out->buffer, element_of(t->out, t, head, column),
                                t->in->buffer, element_of(t->in, t, head, column));
        }
    }
}

/* The rotation of one frequency: cos and sin with sign and magnitude. */
typedef struct rotation {
    double c;
    double s;
    double magnitude;
} rotation;

static rotation rotation_of(const rope_case *c, const rope_plan *plan, int64_t id, int64_t i) {
    double angle = (double)id * plan->to.inv_freq[i];
    double magnitude = plan->to.attention_factor;
    if (c->from) {
        angle -= (double)id * plan->from.inv_freq[i];
        magnitude /= plan->from.attention_factor;
    }
    if (c->direction == RW_ROPE_INVERSE)
        magnitude = 1.0 / magnitude;
    double sign = c->direction == RW_ROPE_FORWARD ? 1.0 : -1.0;
    return (rotation){magnitude * cos(angle), sign * magnitude * sin(angle), magnitude};
}

static void rotate_heads(rwt_job *job, const rope_case *c, const token_heads *t, int64_t i,
                         const rotation *by) {
    int64_t n = rope_rotary_width(c) / 2;
    bool interleaved = c->pairing == RW_ROPE_INTERLEAVED;
    int64_t column1 = c->start + (interleaved ? 2 * i : i);
    int64_t column2 = c->start + (interleaved ? 2 * i + 1 : i + n);
    int64_t heads = t->in->shape[t->in->rank - 2];
    /* The difference of two equal angles is 0 only up to rounding errors. */
    bool inexact = c->from && fmin(fabs(by->c), fabs(by->s)) < 1e-6;
    for (int64_t head = 0; head < heads; head++) {
        double x1 = rwt_buffer_get(job, t->in->buffer, element_of(t->in, t, head, column1));
        double x2 = rwt_buffer_get(job, t->in->buffer, element_of(t->in, t, head, column2));
        double scale = (fabs(x1) + fabs(x2)) * by->magnitude;
        if (inexact && (isinf(x1) || isinf(x2))) {
            rwt_expect_not_finite(job, t->out->buffer, element_of(t->out, t, head, column1));
            rwt_expect_not_finite(job, t->out->buffer, element_of(t->out, t, head, column2));
            continue;
        }
        rwt_expect_near(job, t->out->buffer, element_of(t->out, t, head, column1),
                        x1 * by->c - x2 * by->s, scale);
        rwt_expect_near(job, t->out->buffer, element_of(t->out, t, head, column2),
                        x2 * by->c + x1 * by->s, scale);
    }
}

static int64_t from_max(const rope_case *c) {
    return c->from_max ? c->from_max : c->max_positions;
}

/* Expects a fault for the first id of token (b, s) that is outside the table. */
static bool token_faults(rwt_job *job, const rope_case *c, const rope_plan *plan, int64_t b,
                         int64_t s) {
    for (int64_t axis = 0; axis < rwt_rope_num_axes(&plan->to.spec); axis++) {
        bool shared = c->positions != RWT_POSITIONS_AXES;
        int64_t id = rwt_ids_at(job, &plan->ids, shared ? 0 : axis, b, s);
        bool in_both = id < c->max_positions && (!c->from || id < from_max(c));
        if (id < 0 || !in_both) {
            rwt_expect_fault(job, b * plan->seq + s, RW_FAULT_POSITION, id);
            return true;
        }
    }
    return false;
}

static void rope_reference(rwt_job *job) {
    const rope_case *c = rope_case_of(&job->c);
    const rope_plan *plan = job->plan;
    int64_t n = rope_rotary_width(c) / 2;
    for (int64_t token = 0; token < plan->batch * plan->seq; token++) {
        int64_t b = token / plan->seq, s = token % plan->seq;
        if (token_faults(job, c, plan, b, s))
            continue;
        for (int h = 0; h < 2; h++) {
            token_heads t = {&plan->in[h], &plan->out[h], b, s};
            if (t.in->buffer < 0)
                continue;
            copy_rest(job, c, &t, t.in->shape[t.in->rank - 2]);
            for (int64_t i = 0; i < n; i++) {
                bool shared = c->positions != RWT_POSITIONS_AXES;
                int64_t axis = shared ? 0 : rwt_rope_axis(&plan->to.spec, i, n);
                rotation by = rotation_of(c, plan, rwt_ids_at(job, &plan->ids, axis, b, s), i);
                rotate_heads(job, c, &t, i, &by);
            }
        }
    }
}

/* ---- the operation ---- */

static rw_status rope_open(rwt_binding *binding) {
    const rope_case *c = rope_case_of(&binding->job->c);
    rope_plan *plan = binding->job->plan;
    rope_side *sides[] = {&plan->to, &plan->from};
    for (int i = 0; i < (c->from ? 2 : 1); i++) {
        rw_rope_options options = {.spec = sides[i]->spec,
                                   .seq_len = sides[i]->seq_len,
                                   .max_positions = i ? from_max(c) : c->max_positions};
        rw_rope *rope;
        rw_status status = rw_rope_create(binding->context, &options, &rope);
        if (status != RW_OK)
            return status;
        binding->objects[i] = rope;
    }
    return RW_OK;
}

static void rope_close(rwt_binding *binding) {
    rw_rope_destroy(binding->objects[0]);
    rw_rope_destroy(binding->objects[1]);
}

static void rope_bind(const rwt_job *job, rwt_set *set) {
    const rope_case *c = rope_case_of(&job->c);
    const rope_plan *plan = job->plan;
    rw_rope_args *args = set->args;
    args->q = rwt_tensor(job, set, &plan->in[0]);
    args->k = rwt_tensor(job, set, &plan->in[1]);
    if (c->placement != RWT_IN_PLACE) {
        args->q_out = rwt_tensor(job, set, &plan->out[0]);
        args->k_out = rwt_tensor(job, set, &plan->out[1]);
    }
    args->positions = rwt_tensor(job, set, &plan->ids.positions);
    args->offsets = rwt_tensor(job, set, &plan->ids.offsets);
    args->offset = plan->ids.offset;
    args->direction = (rw_rope_direction)c->direction;
}

static rw_status rope_run(const rwt_binding *binding, const void *args) {
    if (!binding->objects[1])
        return rw_rope_apply(binding->context, binding->objects[0], args);
    rw_rope_change change = {.from = binding->objects[1], .to = binding->objects[0]};
    return rw_rope_rerotate(binding->context, &change, args);
}

/* In place only the rotary window is read and written. */
static double rope_bytes(const rwt_job *job) {
    const rope_case *c = rope_case_of(&job->c);
    int64_t columns = c->placement == RWT_OUT_OF_PLACE ? c->head_dim : rope_rotary_width(c);
    double elements = (double)(c->batch * c->seq * (c->q_heads + c->k_heads) * columns);
    return 2.0 * elements * (double)rw_dtype_size((rw_dtype)c->dtype);
}

static double rope_flops(const rwt_job *job) {
    const rope_case *c = rope_case_of(&job->c);
    return 3.0 * (double)(c->batch * c->seq * (c->q_heads + c->k_heads) * rope_rotary_width(c));
}

const rwt_driver rwt_rope_driver = {
    .name = "rope",
    .fields = rope_fields,
    .num_fields = RWT_COUNT(rope_fields),
    .rows = rope_rows,
    .random = rope_random,
    .num_random = 200,
    .benchmarks = rope_benchmarks,
    .plan_size = sizeof(rope_plan),
    .args_size = sizeof(rw_rope_args),
    .invalid = rope_invalid,
    .fill = rope_fill,
    .reference = rope_reference,
    .open = rope_open,
    .close = rope_close,
    .bind = rope_bind,
    .run = rope_run,
    .bytes = rope_bytes,
    .flops = rope_flops,
};
