/* Attention scores step by step: the entry points. */
#include <ropewalk/scores.h>

#include "numbers.h"
#include "tensor.h"

static const rwi_tensor_rule rank_4_floats = {4, 4, RWI_FLOATS};

static float scale_or_one(double scale) {
    return scale != 0.0 ? (float)scale : 1.0f;
}

/* The lengths that two tensors of one product share along `axis_of_b` of b; heads of a share those
 * of b in whole groups. */
static rw_status check_factors(const rwi_call *call, rwi_argument a, rwi_argument b,
                               int axis_of_b) {
    rw_status status = rwi_check_tensor(call, a, rank_4_floats);
    if (status == RW_OK)
        status = rwi_check_tensor(call, b, rank_4_floats);
    if (status == RW_OK)
        status = rwi_check_length(call, b, 0, a.tensor->shape[0]);
    if (status == RW_OK)
        status = rwi_check_length(call, b, axis_of_b, a.tensor->shape[3]);
    return status == RW_OK ? rwi_check_heads(call, a, b) : status;
}

/* Checks out = a * b, of b's length along `axis_n`, and describes it. */
static rw_status describe_product(const rwi_call *call, rwi_argument a, rwi_argument b,
                                  const rw_tensor *output, int axis_n, rwi_matmul *params) {
    rwi_argument out = {"out", output};
    const int64_t shape[4] = {a.tensor->shape[0], a.tensor->shape[1], a.tensor->shape[2],
                              b.tensor->shape[axis_n]};
    rw_status status = rwi_check_tensor(call, out, rank_4_floats);
    for (int axis = 0; axis < 4 && status == RW_OK; axis++)
        status = rwi_check_length(call, out, axis, shape[axis]);
    if (status == RW_OK)
        status = rwi_check_output(call, out);
    if (status == RW_OK)
        status = rwi_check_apart(call, out, a, false);
    if (status == RW_OK)
        status = rwi_check_apart(call, out, b, false);
    const rw_tensor a_at = rwi_steppable(a.tensor), b_at = rwi_steppable(b.tensor);
    *params = (rwi_matmul){.a = a_at.data,
                           .b = b_at.data,
                           .c = output->data,
                           .a_dtype = a.tensor->dtype,
                           .b_dtype = b.tensor->dtype,
                           .c_dtype = output->dtype,
                           .batch = shape[0],
                           .heads = shape[1],
                           .group = rwi_group(shape[1], b.tensor->shape[1]),
                           .m = shape[2],
                           .n = shape[3],
                           .k = a.tensor->shape[3],
                           .scale = 1.0f};
    for (int axis = 0; axis < 3; axis++) {
        params->a_stride[axis] = a_at.stride[axis];
        params->b_stride[axis] = b_at.stride[axis];
        params->c_stride[axis] = output->stride[axis];
    }
    return status;
}

rw_status rw_qk_matmul(rw_context *context, const rw_qk_matmul_args *args) {
    rwi_call call = {context, "rw_qk_matmul"};
    rw_qk_matmul_params params;
    rw_status status = rwi_check_context(&call);
    if (status != RW_OK)
        return status;
    if (!args)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "args is NULL");
    rwi_argument q = {"q", &args->q}, k = {"k", &args->k};
    status = check_factors(&call, q, k, 3);
    if (status == RW_OK)
        status = rwi_check_same_dtype(&call, k, q);
    if (status == RW_OK)
        status = rwi_check_number(&call, "scale", args->scale, -INFINITY);
    if (status == RW_OK)
        status = describe_product(&call, q, k, &args->out, 2, &params);
    if (status != RW_OK || rwi_empty(&args->out))
        return status;
    params.scale = scale_or_one(args->scale);
    return rwi_finish(&call, context->backend->qk_matmul(context->device, &params));
}

rw_status rw_weighted_matmul(rw_context *context, const rw_weighted_matmul_args *args) {
    rwi_call call = {context, "rw_weighted_matmul"};
    rw_weighted_matmul_params params;
    rw_status status = rwi_check_context(&call);
    if (status != RW_OK)
        return status;
    if (!args)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "args is NULL");
    rwi_argument weights = {"weights", &args->weights}, v = {"v", &args->v};
    status = check_factors(&call, weights, v, 2);
    if (status == RW_OK && args->weights.dtype != RW_F32)
        status = rwi_check_same_dtype(&call, weights, v);
    if (status == RW_OK)
        status = describe_product(&call, weights, v, &args->out, 3, &params);
    if (status != RW_OK || rwi_empty(&args->out))
        return status;
    return rwi_finish(&call, context->backend->weighted_matmul(context->device, &params));
}

/* An output [batch, heads], which may be absent. */
static rw_status check_head_output(const rwi_call *call, rwi_argument output, unsigned dtypes,
                                   rwi_argument scores) {
    if (rwi_absent(output.tensor))
        return RW_OK;
    rw_status status = rwi_check_tensor(call, output, (rwi_tensor_rule){2, 2, dtypes});
    for (int axis = 0; axis < 2 && status == RW_OK; axis++)
        status = rwi_check_length(call, output, axis, scores.tensor->shape[axis]);
    if (status == RW_OK)
        status = rwi_check_output(call, output);
    if (status == RW_OK)
        status = rwi_check_apart(call, output, scores, false);
    return status;
}

static rwi_head_values head_values(const rw_tensor *tensor) {
    rwi_head_values values = {0};
    if (!rwi_absent(tensor))
        values = (rwi_head_values){tensor->data, {tensor->stride[0], tensor->stride[1]}};
    return values;
}

static rwi_ids head_counts(const rw_tensor *tensor) {
    rwi_ids none = {0};
    return rwi_absent(tensor) ? none : rwi_ids_view(tensor);
}

rw_status rw_score_statistics(rw_context *context, const rw_score_statistics_args *args) {
    rwi_call call = {context, "rw_score_statistics"};
    rw_status status = rwi_check_context(&call);
    if (status != RW_OK)
        return status;
    if (!args)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "args is NULL");
    rwi_argument scores = {"scores", &args->scores};
    const rwi_argument outputs[] = {{"min", &args->min},
                                    {"max", &args->max},
                                    {"mean", &args->mean},
                                    {"num_nan", &args->num_nan},
                                    {"num_inf", &args->num_inf}};
    status = rwi_check_tensor(&call, scores, rank_4_floats);
    for (int i = 0; i < 5 && status == RW_OK; i++)
        status =
            check_head_output(&call, outputs[i], i < 3 ? RWI_DTYPE_BIT(RW_F32) : RWI_IDS, scores);
    for (int i = 0; i < 5; i++)
        for (int j = i + 1; j < 5 && status == RW_OK; j++)
            status = rwi_check_apart(&call, outputs[i], outputs[j], false);
    if (status != RW_OK || args->scores.shape[0] == 0 || args->scores.shape[1] == 0)
        return status;
    const rw_tensor at = rwi_steppable(&args->scores);
    rw_score_statistics_params params = {.scores = at.data,
                                         .dtype = args->scores.dtype,
                                         .batch = args->scores.shape[0],
                                         .heads = args->scores.shape[1],
                                         .rows = args->scores.shape[2],
                                         .columns = args->scores.shape[3],
                                         .min = head_values(&args->min),
                                         .max = head_values(&args->max),
                                         .mean = head_values(&args->mean),
                                         .num_nan = head_counts(&args->num_nan),
                                         .num_inf = head_counts(&args->num_inf)};
    for (int axis = 0; axis < 3; axis++)
        params.stride[axis] = at.stride[axis];
    return rwi_finish(&call, context->backend->score_statistics(context->device, &params));
}
