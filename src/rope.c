/* Rotary position embedding: the entry points. */
#include <ropewalk/rope.h>

#include <float.h>
#include <stdlib.h>

#include "angle_table.h"
#include "numbers.h"
#include "rope_call.h"
#include "rope_frequencies.h"
#include "tensor.h"

/* Kernels count heads in 32 bits. */
#define MAX_HEADS (1 << 30)

struct rw_rope {
    rw_rope_spec spec; /* resolved; its array pointers are not kept */
    double attention_factor;
    rwi_angle_table table; /* extra: uint8_t axis[num_frequencies], if there are several axes */
};

/* Kernels read it (for the inverse: its reciprocal) as f32. */
static rw_status check_attention_factor(const rwi_call *call, double factor) {
    RWI_TRY(rwi_check_number(call, "the attention factor", factor, FLT_MIN));
    return rwi_check_number(call, "the attention factor's inverse", 1 / factor, FLT_MIN);
}

static rw_status create_tables(const rwi_call *call, const rw_rope_options *options,
                               rw_rope *rope) {
    int64_t n = rope->spec.rotary_dim / 2;
    double *inv_freq = calloc((size_t)n, sizeof *inv_freq);
    uint8_t *axis = calloc((size_t)n, 1);
    rw_rope_frequency_list list = {.inv_freq = inv_freq, .capacity = n};
    rw_message message = {""};
    rw_status status = RW_OUT_OF_MEMORY;
    if (!inv_freq || !axis)
        rwi_fail(call, status, "no memory for %lld frequencies", (long long)n);
    else if ((status = rw_rope_frequencies(&options->spec, options->seq_len, &list, &message)))
        rwi_fail(call, status, "%s", message.text);
    if (status == RW_OK) {
        for (int64_t i = 0; i < n; i++)
            axis[i] = (uint8_t)rwi_rope_axis(&rope->spec, i);
        int64_t length = rwi_max(options->seq_len, rope->spec.max_position_embeddings);
        rwi_angle_table_options table = {
            .inv_freq = inv_freq,
            .num_frequencies = n,
            .max_positions = options->max_positions ? options->max_positions : length,
            .extra = axis,
            .extra_bytes = rwi_rope_num_axes(&rope->spec) > 1 ? (size_t)n : 0,
        };
        rope->attention_factor = list.attention_factor;
        status = check_attention_factor(call, list.attention_factor);
        if (status == RW_OK)
            status = rwi_angle_table_create(call, &table, &rope->table);
    }
    free(inv_freq);
    free(axis);
    return status;
}

rw_status rw_rope_create(rw_context *context, const rw_rope_options *options, rw_rope **rope) {
    rwi_call call = {context, "rw_rope_create"};
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(rwi_check_pointer(&call, "options", options));
    RWI_TRY(rwi_check_pointer(&call, "rope", rope));
    *rope = NULL;
    rw_message message = {""};
    rw_rope *created = calloc(1, sizeof *created);
    if (!created)
        return rwi_fail(&call, RW_OUT_OF_MEMORY, "no memory for the object");
    rw_status status = rwi_rope_resolve(&options->spec, &created->spec, &message);
    if (status != RW_OK)
        rwi_fail(&call, status, "%s", message.text);
    else
        status = create_tables(&call, options, created);
    if (status != RW_OK) {
        free(created);
        return status;
    }
    created->spec.short_factor = NULL;
    created->spec.long_factor = NULL;
    created->spec.frequency_factors = NULL;
    *rope = created;
    return RW_OK;
}

void rw_rope_destroy(rw_rope *rope) {
    if (!rope)
        return;
    rwi_angle_table_free(&rope->table);
    free(rope);
}

/* One of q and k, with its output: [batch, seq, heads, head_dim], packed ones with a batch of 1. */
typedef struct heads_view {
    rwi_argument in;
    rwi_argument out;
    rw_tensor in4;
    rw_tensor out4;
} heads_view;

static rw_status check_heads(const rwi_call *call, int64_t head_dim, heads_view *view) {
    rwi_tensor_rule rule = {3, 4, RWI_FLOATS};
    RWI_TRY(rwi_check_tensor(call, view->in, rule));
    RWI_TRY(rwi_check_length(call, view->in, RWI_WIDTH, head_dim));
    if (view->in.tensor->shape[view->in.tensor->rank - 2] > MAX_HEADS)
        return rwi_fail(call, RW_UNSUPPORTED, "%s has %lld heads, expected at most %d",
                        view->in.name, (long long)view->in.tensor->shape[view->in.tensor->rank - 2],
                        MAX_HEADS);
    if (rwi_absent(view->out.tensor))
        view->out = view->in;
    else
        RWI_TRY(rwi_check_tensor(call, view->out, rule));
    RWI_TRY(rwi_check_same_shape(call, view->out, view->in));
    RWI_TRY(rwi_check_same_dtype(call, view->out, view->in));
    RWI_TRY(rwi_check_output(call, view->out));
    RWI_TRY(rwi_check_apart(call, view->out, view->in, true));
    view->in4 = rwi_with_rank(*view->in.tensor, 4);
    view->out4 = rwi_with_rank(*view->out.tensor, 4);
    return RW_OK;
}

/* q and k agree in dtype, rank and tokens, and neither output overlaps the other tensors. */
static rw_status check_together(const rwi_call *call, const rw_rope_args *args,
                                const heads_view views[2]) {
    for (int i = 0; i < 2; i++) {
        const heads_view *view = &views[i], *other = &views[1 - i];
        if (rwi_absent(view->in.tensor))
            continue;
        RWI_TRY(
            rwi_check_apart(call, view->out, (rwi_argument){"positions", &args->positions}, false));
        RWI_TRY(rwi_check_apart(call, view->out, (rwi_argument){"offsets", &args->offsets}, false));
        if (rwi_absent(other->in.tensor))
            continue;
        RWI_TRY(rwi_check_apart(call, view->out, other->in, false));
        RWI_TRY(rwi_check_apart(call, view->out, other->out, false));
    }
    if (rwi_absent(views[0].in.tensor) || rwi_absent(views[1].in.tensor))
        return RW_OK;
    RWI_TRY(rwi_check_same_dtype(call, views[1].in, views[0].in));
    if (args->k.rank != args->q.rank)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "k has rank %d, expected that of q, %d",
                        args->k.rank, args->q.rank);
    for (int axis = 0; axis < args->q.rank - 2; axis++)
        RWI_TRY(rwi_check_length(call, views[1].in, axis, args->q.shape[axis]));
    return RW_OK;
}

static rw_status check_rope(const rwi_call *call, const rw_rope *rope, const char *name) {
    RWI_TRY(rwi_check_pointer(call, name, rope));
    return rwi_angle_table_check(call, name, &rope->table);
}

static rwi_rope_heads kernel_heads(const heads_view *view) {
    const rw_tensor in = rwi_steppable(&view->in4), out = rwi_steppable(&view->out4);
    rwi_rope_heads heads = {.in = in.data, .out = out.data};
    heads.heads = (int32_t)view->in4.shape[2];
    for (int axis = 0; axis < 3; axis++) {
        heads.in_stride[axis] = in.stride[axis];
        heads.out_stride[axis] = out.stride[axis];
    }
    return heads;
}

/* Checks q, k and their ids and describes them to the kernel. */
static rw_status describe(const rwi_call *call, const rw_rope *rope, const rw_rope_args *args,
                          rw_rope_params *params) {
    heads_view views[2] = {{{"q", &args->q}, {"q_out", &args->q_out}, {0}, {0}},
                           {{"k", &args->k}, {"k_out", &args->k_out}, {0}, {0}}};
    if (rwi_absent(&args->q) && rwi_absent(&args->k))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "q and k are absent, expected one of them");
    for (int i = 0; i < 2; i++) {
        if (!rwi_absent(views[i].in.tensor))
            RWI_TRY(check_heads(call, rope->spec.head_dim, &views[i]));
        else if (!rwi_absent(views[i].out.tensor))
            return rwi_fail(call, RW_INVALID_ARGUMENT, "%s is given, but %s is absent",
                            views[i].out.name, views[i].in.name);
    }
    RWI_TRY(check_together(call, args, views));
    for (int i = 0; i < 2; i++) {
        if (rwi_absent(views[i].in.tensor))
            continue;
        params->heads[i] = kernel_heads(&views[i]);
        params->dtype = views[i].in4.dtype;
        params->batch = views[i].in4.shape[0];
        params->seq = views[i].in4.shape[1];
    }
    rwi_id_arguments ids = {
        .positions = &args->positions,
        .offsets = &args->offsets,
        .offset = args->offset,
        .batch = params->batch,
        .seq = params->seq,
        .num_axes = rwi_rope_num_axes(&rope->spec),
        .packed = (rwi_absent(&args->q) ? args->k.rank : args->q.rank) == 3,
    };
    params->num_axes = ids.num_axes;
    return rwi_check_token_ids(call, &ids, &params->ids);
}

/* The window, the tables and the axes of `rope`. */
static void describe_rope(const rw_rope *rope, rw_rope_params *params) {
    params->head_dim = (int32_t)rope->spec.head_dim;
    params->start = (int32_t)rope->spec.rotary_start;
    params->num_frequencies = (int32_t)(rope->spec.rotary_dim / 2);
    params->interleaved = rope->spec.pairing == RW_ROPE_INTERLEAVED;
    params->axis = params->num_axes > 1 ? rope->table.extra : NULL;
    params->to = rope->table.angles;
    params->max_positions = rope->table.max_positions;
}

static rw_status launch(const rwi_call *call, const rw_rope_params *params) {
    rwi_work work = rope_work(params);
    if (work.items == 0 || work.bytes_per_item == 0)
        return RW_OK;
    rw_context *context = call->context;
    return rwi_finish(call, context->backend->rope(context->device, params));
}

rw_status rwi_rope_describe(const rwi_call *call, const rw_rope *rope, const rw_rope_args *args,
                            rw_rope_params *params) {
    if ((unsigned)args->direction > RW_ROPE_BACKWARD)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "direction is %d, expected one of rw_rope_direction", (int)args->direction);
    RWI_TRY(check_rope(call, rope, "rope"));
    RWI_TRY(describe(call, rope, args, params));
    describe_rope(rope, params);
    bool inverse = args->direction == RW_ROPE_INVERSE;
    bool forward = args->direction == RW_ROPE_FORWARD;
    params->cos_scale = (float)(inverse ? 1 / rope->attention_factor : rope->attention_factor);
    params->sin_scale = forward ? params->cos_scale : -params->cos_scale;
    return RW_OK;
}

rw_status rwi_rope_describe_unrotated(const rwi_call *call, const rw_rope_args *args,
                                      rw_rope_params *params) {
    heads_view q = {{"q", &args->q}, {"q_out", &args->q_out}, {0}, {0}};
    const bool ids = !rwi_absent(&args->positions) || !rwi_absent(&args->offsets) || args->offset;
    if (ids || args->direction != RW_ROPE_FORWARD)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "rope is NULL, but %s",
                        ids ? "positions or offsets are given" : "direction is not forward");
    RWI_TRY(rwi_check_tensor(call, q.in, (rwi_tensor_rule){3, 4, RWI_FLOATS}));
    RWI_TRY(check_heads(call, rwi_length(&args->q, RWI_WIDTH), &q));
    if (rwi_length(&args->q, RWI_WIDTH) > INT32_MAX)
        return rwi_fail(call, RW_UNSUPPORTED, "q has heads of %lld columns, expected fewer",
                        (long long)rwi_length(&args->q, RWI_WIDTH));
    params->heads[0] = kernel_heads(&q);
    params->dtype = q.in4.dtype;
    params->batch = q.in4.shape[0];
    params->seq = q.in4.shape[1];
    params->head_dim = (int32_t)q.in4.shape[3];
    params->max_positions = 1; /* of ids that are all 0 */
    return RW_OK;
}

rw_status rw_rope_apply(rw_context *context, const rw_rope *rope, const rw_rope_args *args) {
    rwi_call call = {context, "rw_rope_apply"};
    rw_rope_params params = {0};
    RWI_TRY(rwi_begin(&call, args));
    RWI_TRY(rwi_rope_describe(&call, rope, args, &params));
    return launch(&call, &params);
}

/* Both rotate the same pairs of columns, by the same ids. */
static rw_status check_change(const rwi_call *call, const rw_rope_change *change) {
    const rw_rope_spec *from = &change->from->spec, *to = &change->to->spec;
    bool same = from->head_dim == to->head_dim && from->rotary_start == to->rotary_start &&
                from->rotary_dim == to->rotary_dim && from->pairing == to->pairing &&
                from->axes == to->axes;
    for (int axis = 0; axis < 3; axis++)
        same = same && (rwi_rope_num_axes(from) < 3 || from->sections[axis] == to->sections[axis]);
    if (same)
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT,
                    "change.from and change.to differ, expected the same head_dim, rotary window, "
                    "pairing, axes and sections");
}

rw_status rw_rope_rerotate(rw_context *context, const rw_rope_change *change,
                           const rw_rope_args *args) {
    rwi_call call = {context, "rw_rope_rerotate"};
    rw_rope_params params = {0};
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(rwi_check_pointer(&call, "change", change));
    RWI_TRY(rwi_check_pointer(&call, "args", args));
    if (args->direction != RW_ROPE_FORWARD)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "direction is %d, expected RW_ROPE_FORWARD",
                        (int)args->direction);
    RWI_TRY(check_rope(&call, change->from, "change.from"));
    RWI_TRY(check_rope(&call, change->to, "change.to"));
    RWI_TRY(check_change(&call, change));
    RWI_TRY(describe(&call, change->to, args, &params));
    const double factor = change->to->attention_factor / change->from->attention_factor;
    RWI_TRY(rwi_check_number(&call, "the attention factors' quotient", factor, FLT_MIN));
    describe_rope(change->to, &params);
    params.from = change->from->table.angles;
    params.max_positions =
        (int32_t)rwi_min(params.max_positions, change->from->table.max_positions);
    params.cos_scale = (float)factor;
    params.sin_scale = params.cos_scale;
    return launch(&call, &params);
}
