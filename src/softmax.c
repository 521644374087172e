/* Scale, mask and softmax of attention scores: the entry points. */
#include <ropewalk/softmax.h>

#include "bias_describe.h"
#include "numbers.h"
#include "pattern_describe.h"
#include "softmax_describe.h"

/* The tensor with 4 axes: [batch, heads, seq_q, seq_k]. */
static rw_tensor with_rank_4(rw_tensor tensor) {
    while (tensor.rank < 4)
        tensor = rwi_with_leading_axis(tensor);
    return tensor;
}

/* x and what is written, which is x where out is absent. */
typedef struct in_out {
    rwi_argument in;
    rwi_argument out;
} in_out;

/* Checks x and out and describes them to the kernel; `tensors` receives them by name. */
static rw_status describe_scores(const rwi_call *call, const rw_tensor *x, const rw_tensor *out,
                                 in_out *tensors, rwi_scores *scores) {
    rwi_argument in = {"x", x}, to = {"out", out};
    rwi_tensor_rule rule = {1, 4, RWI_FLOATS};
    if (rwi_absent(out))
        to = in;
    rw_status status = rwi_check_tensor(call, in, rule);
    if (status == RW_OK)
        status = rwi_check_tensor(call, to, rule);
    if (status == RW_OK)
        status = rwi_check_same_shape(call, to, in);
    if (status == RW_OK)
        status = rwi_check_same_dtype(call, to, in);
    if (status == RW_OK)
        status = rwi_check_output(call, to);
    if (status == RW_OK)
        status = rwi_check_apart(call, to, in, true);
    if (status != RW_OK)
        return status;
    rw_tensor in4 = with_rank_4(*in.tensor), out4 = with_rank_4(*to.tensor);
    *tensors = (in_out){in, to};
    *scores = (rwi_scores){
        .in = in4.data,
        .out = out4.data,
        .dtype = in4.dtype,
        .batch = in4.shape[0],
        .heads = in4.shape[1],
        .seq_q = in4.shape[2],
        .seq_k = in4.shape[3],
    };
    for (int axis = 0; axis < 3; axis++) {
        scores->in_stride[axis] = in4.stride[axis];
        scores->out_stride[axis] = out4.stride[axis];
    }
    return RW_OK;
}

/* What is added: the trailing axes of x, 1 along any but the last serving all. */
static rw_status describe_mask(const rwi_call *call, const rw_tensor *mask, const in_out *tensors,
                               rwi_score_mask *described) {
    rwi_argument argument = {"mask", mask};
    const rw_tensor *x = tensors->in.tensor;
    if (rwi_absent(mask))
        return RW_OK;
    rw_status status = rwi_check_tensor(call, argument, (rwi_tensor_rule){1, x->rank, RWI_FLOATS});
    int before = x->rank - mask->rank;
    for (int axis = 0; status == RW_OK && axis < mask->rank; axis++) {
        bool last = axis == mask->rank - 1;
        bool serves_all = !last && mask->shape[axis] == 1;
        if (!serves_all)
            status = rwi_check_length(call, argument, axis, x->shape[before + axis]);
        if (!serves_all && !last)
            described->stride[axis + 4 - mask->rank] = mask->stride[axis];
    }
    if (status == RW_OK)
        status = rwi_check_apart(call, tensors->out, argument, false);
    described->data = mask->data;
    described->dtype = mask->dtype;
    return status;
}

static rw_pattern_shape shape_of(const rwi_scores *scores) {
    return (rw_pattern_shape){scores->batch, scores->seq_q, scores->seq_k};
}

static rw_status describe_pattern(const rwi_call *call, const rw_pattern *pattern,
                                  const in_out *tensors, const rwi_scores *scores,
                                  rwi_pattern *described) {
    rw_pattern_shape shape = shape_of(scores);
    rw_status status = rwi_check_pattern_shape(call, &shape);
    if (status == RW_OK)
        status = rwi_describe_pattern(call, pattern, &shape, described);
    if (status == RW_OK)
        status = rwi_check_apart_from_pattern(call, tensors->out, pattern);
    return status;
}

static rw_status begin(const rwi_call *call, const void *args) {
    rw_status status = rwi_check_context(call);
    if (status == RW_OK && !args)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "args is NULL");
    return status;
}

rw_status rw_scale(rw_context *context, const rw_scale_args *args) {
    rwi_call call = {context, "rw_scale"};
    rw_scale_params params = {0};
    in_out tensors;
    rw_status status = begin(&call, args);
    if (status == RW_OK)
        status = describe_scores(&call, &args->x, &args->out, &tensors, &params.scores);
    if (status == RW_OK)
        status = rwi_check_number(&call, "scale", args->scale, -INFINITY);
    if (status != RW_OK || rwi_empty(&args->x))
        return status;
    params.scale = (float)args->scale;
    return rwi_finish(&call, context->backend->scale(context->device, &params));
}

rw_status rw_mask_apply(rw_context *context, const rw_mask_apply_args *args) {
    rwi_call call = {context, "rw_mask_apply"};
    rw_mask_apply_params params = {0};
    in_out tensors;
    rw_status status = begin(&call, args);
    if (status == RW_OK && rwi_absent(&args->mask) && !args->pattern)
        status = rwi_fail(&call, RW_INVALID_ARGUMENT,
                          "mask and pattern are absent, expected one of them");
    if (status == RW_OK)
        status = describe_scores(&call, &args->x, &args->out, &tensors, &params.scores);
    if (status == RW_OK)
        status = describe_mask(&call, &args->mask, &tensors, &params.mask);
    if (status == RW_OK)
        status = describe_pattern(&call, args->pattern, &tensors, &params.scores, &params.pattern);
    if (status != RW_OK || rwi_empty(&args->x))
        return status;
    return rwi_finish(&call, context->backend->mask_apply(context->device, &params));
}

/* A query has one position, whether the pattern or ALiBi asks for it. */
static rw_status check_alibi_alignment(const rwi_call *call, rw_alignment alignment,
                                       const rw_pattern *pattern) {
    rw_status status = rwi_check_key_end(call, alignment, pattern);
    if (status != RW_OK || !pattern || alignment == pattern->alignment)
        return status;
    return rwi_fail(call, RW_INVALID_ARGUMENT,
                    "alibi.alignment is %s and pattern.alignment is %s, expected the same",
                    rwi_alignment_name(alignment), rwi_alignment_name(pattern->alignment));
}

/* What softmax adds to scores beside the mask. */
static rw_status describe_extras(const rwi_call *call, const rw_softmax_args *args,
                                 const in_out *tensors, rw_softmax_params *params) {
    rw_pattern_shape shape = shape_of(&params->scores);
    rw_status status = RW_OK;
    if (args->alibi) {
        status =
            rwi_describe_alibi(call, args->alibi, params->scores.heads, &shape, &params->alibi);
        if (status == RW_OK)
            status = check_alibi_alignment(call, args->alibi->alignment, args->pattern);
        if (status == RW_OK)
            status = rwi_check_apart(call, tensors->out,
                                     (rwi_argument){"alibi.slopes", &args->alibi->slopes}, false);
    }
    if (status != RW_OK || rwi_absent(&args->sinks))
        return status;
    rwi_argument sinks = {"sinks", &args->sinks};
    status = rwi_check_tensor(call, sinks, (rwi_tensor_rule){1, 1, RWI_FLOATS});
    if (status == RW_OK)
        status = rwi_check_length(call, sinks, 0, params->scores.heads);
    if (status == RW_OK)
        status = rwi_check_apart(call, tensors->out, sinks, false);
    params->sinks = args->sinks.data;
    params->sinks_dtype = args->sinks.dtype;
    return status;
}

rw_status rwi_describe_softmax(const rwi_call *call, const rw_softmax_args *args, rwi_argument x,
                               rwi_argument out, rw_softmax_params *params) {
    const in_out tensors = {x, out};
    rw_status status = rwi_check_number(call, "scale", args->scale, -INFINITY);
    if (status == RW_OK)
        status = rwi_check_number(call, "softcap", args->softcap, 0.0);
    if (status == RW_OK)
        status = describe_mask(call, &args->mask, &tensors, &params->mask);
    if (status == RW_OK)
        status = describe_pattern(call, args->pattern, &tensors, &params->scores, &params->pattern);
    if (status == RW_OK)
        status = describe_extras(call, args, &tensors, params);
    params->scale = args->scale != 0.0 ? (float)args->scale : 1.0f;
    params->softcap = (float)args->softcap;
    return status;
}

rw_status rw_softmax(rw_context *context, const rw_softmax_args *args) {
    rwi_call call = {context, "rw_softmax"};
    rw_softmax_params params = {0};
    in_out tensors;
    rw_status status = begin(&call, args);
    if (status == RW_OK)
        status = describe_scores(&call, &args->x, &args->out, &tensors, &params.scores);
    if (status == RW_OK)
        status = rwi_describe_softmax(&call, args, tensors.in, tensors.out, &params);
    if (status != RW_OK || rwi_empty(&args->x))
        return status;
    return rwi_finish(&call, context->backend->softmax(context->device, &params));
}
