/* Attention: the entry point. */
#include <ropewalk/attention.h>

#include "softmax_describe.h"

static const rwi_tensor_rule rank_4_floats = {4, 4, RWI_FLOATS};

/* A width that kernels have. */
static rw_status check_width(const rwi_call *call, rwi_argument argument) {
    int64_t width = argument.tensor->shape[3];
    if (width >= 8 && width <= RWI_ATTENTION_MAX_DIM && width % 8 == 0)
        return RW_OK;
    return rwi_fail(call, RW_UNSUPPORTED,
                    "%s has a head_dim of %lld, expected a multiple of 8 from 8 to %d",
                    argument.name, (long long)width, RWI_ATTENTION_MAX_DIM);
}

static rw_status check_inputs(const rwi_call *call, const rw_attention_args *args) {
    const rwi_argument q = {"q", &args->q}, k = {"k", &args->k}, v = {"v", &args->v};
    const rwi_argument inputs[] = {q, k, v};
    rw_status status = RW_OK;
    for (int i = 0; i < 3 && status == RW_OK; i++)
        status = rwi_check_tensor(call, inputs[i], rank_4_floats);
    for (int i = 1; i < 3 && status == RW_OK; i++)
        status = rwi_check_same_dtype(call, inputs[i], q);
    for (int i = 0; i < 3 && status == RW_OK; i++)
        status = check_width(call, inputs[i]);
    if (status == RW_OK)
        status = rwi_check_length(call, k, 0, args->q.shape[0]);
    if (status == RW_OK)
        status = rwi_check_length(call, k, 3, args->q.shape[3]);
    for (int axis = 0; axis < 3 && status == RW_OK; axis++)
        status = rwi_check_length(call, v, axis, args->k.shape[axis]);
    if (status != RW_OK)
        return status;
    int64_t heads = args->q.shape[1], kv_heads = args->k.shape[1];
    if (kv_heads == 0 ? heads != 0 : heads % kv_heads != 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "k has %lld heads, expected a divisor of the %lld of q",
                        (long long)kv_heads, (long long)heads);
    return RW_OK;
}

static rw_status check_outputs(const rwi_call *call, const rw_attention_args *args) {
    const rwi_argument out = {"out", &args->out}, lse = {"lse", &args->lse};
    const rwi_argument inputs[] = {
        {"q", &args->q}, {"k", &args->k}, {"v", &args->v}, {"sinks", &args->sinks}};
    const bool wanted = !rwi_absent(&args->lse);
    rw_status status = rwi_check_tensor(call, out, rank_4_floats);
    for (int axis = 0; axis < 4 && status == RW_OK; axis++)
        status =
            rwi_check_length(call, out, axis, axis < 3 ? args->q.shape[axis] : args->v.shape[3]);
    if (status == RW_OK)
        status = rwi_check_output(call, out);
    if (status == RW_OK && wanted)
        status = rwi_check_tensor(call, lse, (rwi_tensor_rule){3, 3, RWI_DTYPE_BIT(RW_F32)});
    for (int axis = 0; axis < 3 && status == RW_OK && wanted; axis++)
        status = rwi_check_length(call, lse, axis, args->q.shape[axis]);
    if (status == RW_OK && wanted)
        status = rwi_check_output(call, lse);
    if (status == RW_OK)
        status = rwi_check_apart(call, out, lse, false);
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs && status == RW_OK; i++) {
        status = rwi_check_apart(call, out, inputs[i], false);
        if (status == RW_OK)
            status = rwi_check_apart(call, lse, inputs[i], false);
    }
    return status;
}

static rwi_attention_tensor kernel_tensor(const rw_tensor *tensor) {
    rwi_attention_tensor described = {0};
    if (rwi_absent(tensor))
        return described;
    described.data = tensor->data;
    for (int axis = 0; axis < 3; axis++)
        described.stride[axis] = tensor->stride[axis];
    return described;
}

/* Scale, mask, pattern and the like, checked against both outputs. */
static rw_status describe_rules(const rwi_call *call, const rw_attention_args *args,
                                rw_attention_params *params) {
    rw_softmax_args rules = {.scale = args->scale,
                             .softcap = args->softcap,
                             .mask = args->mask,
                             .pattern = args->pattern,
                             .alibi = args->alibi,
                             .sinks = args->sinks};
    if (args->scale == 0.0)
        rules.scale = 1.0 / sqrt((double)args->q.shape[3]);
    rw_tensor scores = args->q; /* for its lengths */
    scores.shape[3] = args->k.shape[2];
    params->rules.scores = (rwi_scores){.batch = scores.shape[0],
                                        .heads = scores.shape[1],
                                        .seq_q = scores.shape[2],
                                        .seq_k = scores.shape[3]};
    rwi_argument x = {"scores", &scores}, out = {"out", &args->out}, lse = {"lse", &args->lse};
    rw_status status = RW_OK;
    if (!rwi_absent(&args->lse))
        status = rwi_describe_softmax(call, &rules, x, lse, &params->rules);
    if (status == RW_OK)
        status = rwi_describe_softmax(call, &rules, x, out, &params->rules);
    return status;
}

rw_status rw_attention(rw_context *context, const rw_attention_args *args) {
    rwi_call call = {context, "rw_attention"};
    rw_attention_params params = {0};
    rw_status status = rwi_check_context(&call);
    if (status != RW_OK)
        return status;
    if (!args)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "args is NULL");
    status = check_inputs(&call, args);
    if (status == RW_OK)
        status = check_outputs(&call, args);
    if (status == RW_OK)
        status = describe_rules(&call, args, &params);
    if (status != RW_OK || rwi_empty(&args->out))
        return status;
    params.q = kernel_tensor(&args->q);
    params.k = kernel_tensor(&args->k);
    params.v = kernel_tensor(&args->v);
    params.out = kernel_tensor(&args->out);
    params.lse = kernel_tensor(&args->lse);
    params.dtype = args->q.dtype;
    params.out_dtype = args->out.dtype;
    params.group = (int32_t)(args->q.shape[1] / args->k.shape[1]);
    params.head_dim = (int32_t)args->q.shape[3];
    params.v_dim = (int32_t)args->v.shape[3];
    return rwi_finish(&call, context->backend->attention(context->device, &params));
}
