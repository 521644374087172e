/* Scale, mask and softmax of attention scores: the entry points. */
#include <ropewalk/softmax.h>

#include "bias_describe.h"
#include "numbers.h"
#include "pattern_describe.h"
#include "softmax_describe.h"

/* x and the output, which is x if out is absent. */
typedef struct in_out {
    rwi_argument x;
    rwi_argument out;
} in_out;

static in_out name_scores(const rw_tensor *x, const rw_tensor *out) {
    const in_out in_place = {{"x", x}, {"x", x}}, apart = {{"x", x}, {"out", out}};
    return rwi_absent(out) ? in_place : apart;
}

/* Checks x and out and describes them to the kernel. */
static rw_status describe_scores(const rwi_call *call, const in_out *tensors, rwi_scores *scores) {
    const rwi_argument x = tensors->x, out = tensors->out;
    const rwi_tensor_rule rule = {1, 4, RWI_FLOATS};
    RWI_TRY(rwi_check_tensor(call, x, rule));
    RWI_TRY(rwi_check_tensor(call, out, rule));
    RWI_TRY(rwi_check_same_shape(call, out, x));
    RWI_TRY(rwi_check_same_dtype(call, out, x));
    RWI_TRY(rwi_check_output(call, out));
    RWI_TRY(rwi_check_apart(call, out, x, true));
    const rw_tensor x4 = rwi_with_rank(*x.tensor, 4), out4 = rwi_with_rank(*out.tensor, 4);
    *scores = (rwi_scores){
        .in = x4.data,
        .out = out4.data,
        .dtype = x4.dtype,
        .batch = x4.shape[0],
        .heads = x4.shape[1],
        .seq_q = x4.shape[2],
        .seq_k = x4.shape[3],
    };
    for (int axis = 0; axis < 3; axis++) {
        scores->in_stride[axis] = x4.stride[axis];
        scores->out_stride[axis] = out4.stride[axis];
    }
    return RW_OK;
}

static rwi_softmax_tensors of_scores(const in_out *tensors) {
    return (rwi_softmax_tensors){tensors->x, &tensors->out, 1};
}

/* No output overlaps `input`. */
static rw_status check_outputs_apart(const rwi_call *call, const rwi_softmax_tensors *tensors,
                                     rwi_argument input) {
    for (int n = 0; n < tensors->num_outputs; n++)
        RWI_TRY(rwi_check_apart(call, tensors->outputs[n], input, false));
    return RW_OK;
}

/* The additive mask: the trailing axes of x; every axis but the last may be 1 (broadcast). */
static rw_status describe_mask(const rwi_call *call, const rw_tensor *mask,
                               const rwi_softmax_tensors *tensors, rwi_score_mask *described) {
    const rwi_argument argument = {"mask", mask};
    const rw_tensor *x = tensors->x.tensor;
    if (rwi_absent(mask))
        return RW_OK;
    RWI_TRY(rwi_check_tensor(call, argument, (rwi_tensor_rule){1, x->rank, RWI_MASKS}));
    const int before = x->rank - mask->rank;
    for (int axis = 0; axis < mask->rank; axis++) {
        const bool last = axis == mask->rank - 1;
        const bool serves_all = !last && mask->shape[axis] == 1;
        if (!serves_all)
            RWI_TRY(rwi_check_length(call, argument, axis, x->shape[before + axis]));
        if (!serves_all && !last)
            described->stride[axis + 4 - mask->rank] = mask->stride[axis];
    }
    described->data = mask->data;
    described->dtype = mask->dtype;
    return check_outputs_apart(call, tensors, argument);
}

static rw_pattern_shape shape_of(const rwi_scores *scores) {
    return (rw_pattern_shape){scores->batch, scores->seq_q, scores->seq_k};
}

static rw_status describe_pattern(const rwi_call *call, const rw_pattern *pattern,
                                  const rwi_softmax_tensors *tensors, const rwi_scores *scores,
                                  rwi_pattern *described) {
    const rw_pattern_shape shape = shape_of(scores);
    RWI_TRY(rwi_check_pattern_shape(call, &shape));
    RWI_TRY(rwi_describe_pattern(call, pattern, &shape, described));
    for (int n = 0; n < tensors->num_outputs; n++)
        RWI_TRY(rwi_check_apart_from_pattern(call, tensors->outputs[n], pattern));
    return RW_OK;
}

rw_status rw_scale(rw_context *context, const rw_scale_args *args) {
    const rwi_call call = {context, "rw_scale"};
    rw_scale_params params = {0};
    RWI_TRY(rwi_begin(&call, args));
    const in_out tensors = name_scores(&args->x, &args->out);
    RWI_TRY(describe_scores(&call, &tensors, &params.scores));
    RWI_TRY(rwi_check_number(&call, "scale", args->scale, -INFINITY));
    if (rwi_empty(&args->x))
        return RW_OK;
    params.scale = (float)args->scale;
    return rwi_finish(&call, context->backend->scale(context->device, &params));
}

rw_status rw_mask_apply(rw_context *context, const rw_mask_apply_args *args) {
    const rwi_call call = {context, "rw_mask_apply"};
    rw_mask_apply_params params = {0};
    RWI_TRY(rwi_begin(&call, args));
    if (rwi_absent(&args->mask) && !args->pattern)
        return rwi_fail(&call, RW_INVALID_ARGUMENT,
                        "mask and pattern are absent, expected one of them");
    const in_out scores = name_scores(&args->x, &args->out);
    const rwi_softmax_tensors tensors = of_scores(&scores);
    RWI_TRY(describe_scores(&call, &scores, &params.scores));
    RWI_TRY(describe_mask(&call, &args->mask, &tensors, &params.mask));
    RWI_TRY(describe_pattern(&call, args->pattern, &tensors, &params.scores, &params.pattern));
    if (rwi_empty(&args->x))
        return RW_OK;
    return rwi_finish(&call, context->backend->mask_apply(context->device, &params));
}

/* The pattern and ALiBi give a query the same position. */
static rw_status check_alibi_alignment(const rwi_call *call, rw_alignment alignment,
                                       const rw_pattern *pattern) {
    RWI_TRY(rwi_check_key_end(call, alignment, pattern));
    if (!pattern || alignment == pattern->alignment)
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT,
                    "alibi.alignment is %s and pattern.alignment is %s, expected the same",
                    rwi_alignment_name(alignment), rwi_alignment_name(pattern->alignment));
}

static rw_status describe_alibi(const rwi_call *call, const rw_softmax_args *args,
                                const rwi_softmax_tensors *tensors, rw_softmax_params *params) {
    if (!args->alibi)
        return RW_OK;
    const rw_pattern_shape shape = shape_of(&params->scores);
    RWI_TRY(rwi_describe_alibi(call, args->alibi, params->scores.heads, &shape, &params->alibi));
    RWI_TRY(check_alibi_alignment(call, args->alibi->alignment, args->pattern));
    return check_outputs_apart(call, tensors, (rwi_argument){"alibi.slopes", &args->alibi->slopes});
}

static rw_status describe_sinks(const rwi_call *call, const rw_softmax_args *args,
                                const rwi_softmax_tensors *tensors, rw_softmax_params *params) {
    const rwi_argument sinks = {"sinks", &args->sinks};
    if (rwi_absent(&args->sinks))
        return RW_OK;
    RWI_TRY(rwi_check_tensor(call, sinks, (rwi_tensor_rule){1, 1, RWI_FLOATS}));
    RWI_TRY(rwi_check_length(call, sinks, 0, params->scores.heads));
    params->sinks = args->sinks.data;
    params->sinks_dtype = args->sinks.dtype;
    return check_outputs_apart(call, tensors, sinks);
}

rw_status rwi_describe_softmax(const rwi_call *call, const rw_softmax_args *args,
                               const rwi_softmax_tensors *tensors, rw_softmax_params *params) {
    RWI_TRY(rwi_check_number(call, "scale", args->scale, -INFINITY));
    RWI_TRY(rwi_check_number(call, "softcap", args->softcap, 0.0));
    RWI_TRY(describe_mask(call, &args->mask, tensors, &params->mask));
    RWI_TRY(describe_pattern(call, args->pattern, tensors, &params->scores, &params->pattern));
    RWI_TRY(describe_alibi(call, args, tensors, params));
    RWI_TRY(describe_sinks(call, args, tensors, params));
    params->scale = args->scale != 0.0 ? (float)args->scale : 1.0f;
    params->softcap = (float)args->softcap;
    return RW_OK;
}

rw_status rw_softmax(rw_context *context, const rw_softmax_args *args) {
    const rwi_call call = {context, "rw_softmax"};
    rw_softmax_params params = {0};
    RWI_TRY(rwi_begin(&call, args));
    const in_out scores = name_scores(&args->x, &args->out);
    const rwi_softmax_tensors tensors = of_scores(&scores);
    RWI_TRY(describe_scores(&call, &scores, &params.scores));
    RWI_TRY(rwi_describe_softmax(&call, args, &tensors, &params));
    if (rwi_empty(&args->x))
        return RW_OK;
    return rwi_finish(&call, context->backend->softmax(context->device, &params));
}
