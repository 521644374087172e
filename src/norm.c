/* RMSNorm and LayerNorm: the entry points. */
#include <ropewalk/norm.h>

#include "numbers.h"
#include "row_views.h"
#include "tensor.h"

/* The tensors of a call, with their defaults for absent ones. */
typedef struct norm_tensors {
    rwi_argument x;
    rwi_argument weight;
    rwi_argument bias;
    rwi_argument residual;
    rwi_argument sum; /* absent where the residual is */
    rwi_argument out;
} norm_tensors;

/* A tensor with the shape and the dtype of x. */
static rw_status check_like_x(const rwi_call *call, rwi_argument argument, rwi_argument x) {
    RWI_TRY(rwi_check_tensor(call, argument, (rwi_tensor_rule){1, 4, RWI_FLOATS}));
    RWI_TRY(rwi_check_same_shape(call, argument, x));
    return rwi_check_same_dtype(call, argument, x);
}

/* A row for every column of x; may be absent. */
static rw_status check_columns(const rwi_call *call, rwi_argument argument, rwi_argument x) {
    if (rwi_absent(argument.tensor))
        return RW_OK;
    RWI_TRY(rwi_check_tensor(call, argument, (rwi_tensor_rule){1, 1, RWI_FLOATS}));
    return rwi_check_length(call, argument, 0, x.tensor->shape[x.tensor->rank - 1]);
}

/* `output` does not overlap the weight or the bias; it is x or the residual in place, or overlaps neither. */
static rw_status check_written(const rwi_call *call, rwi_argument output,
                               const norm_tensors *tensors) {
    RWI_TRY(rwi_check_output(call, output));
    RWI_TRY(rwi_check_apart(call, output, tensors->x, true));
    RWI_TRY(rwi_check_apart(call, output, tensors->residual, true));
    RWI_TRY(rwi_check_apart(call, output, tensors->bias, false));
    return rwi_check_apart(call, output, tensors->weight, false);
}

static rw_status check_tensors(const rwi_call *call, const norm_tensors *tensors) {
    rwi_argument x = tensors->x;
    RWI_TRY(rwi_check_tensor(call, x, (rwi_tensor_rule){1, 4, RWI_FLOATS}));
    RWI_TRY(check_like_x(call, tensors->out, x));
    RWI_TRY(check_columns(call, tensors->weight, x));
    RWI_TRY(check_columns(call, tensors->bias, x));
    if (!rwi_absent(tensors->residual.tensor)) {
        RWI_TRY(check_like_x(call, tensors->residual, x));
        RWI_TRY(check_like_x(call, tensors->sum, x));
        RWI_TRY(check_written(call, tensors->sum, tensors));
        RWI_TRY(rwi_check_apart(call, tensors->out, tensors->sum, false));
    }
    return check_written(call, tensors->out, tensors);
}

static rw_status check_fields(const rwi_call *call, float eps, float weight_offset,
                              const norm_tensors *tensors) {
    RWI_TRY(rwi_check_number(call, "eps", eps, 0.0));
    RWI_TRY(rwi_check_number(call, "weight_offset", weight_offset, -INFINITY));
    if (weight_offset != 0.0f && rwi_absent(tensors->weight.tensor))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "weight_offset is %g, but weight is absent, expected both or neither",
                        (double)weight_offset);
    if (rwi_absent(tensors->residual.tensor) && !rwi_absent(tensors->sum.tensor))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "residual_out is given, but residual is absent");
    return RW_OK;
}

/* Outputs that are absent are in place. */
static void complete(norm_tensors *tensors) {
    if (rwi_absent(tensors->out.tensor))
        tensors->out = tensors->x;
    if (rwi_absent(tensors->sum.tensor))
        tensors->sum = tensors->residual;
}

/* All but the fields of one norm. */
static rwi_norm_params describe(const norm_tensors *tensors) {
    const rw_tensor *x = tensors->x.tensor;
    bool has_residual = !rwi_absent(tensors->residual.tensor);
    rwi_norm_params params = {
        .x = x->data,
        .out = tensors->out.tensor->data,
        .dtype = x->dtype,
        .weight_dtype = tensors->weight.tensor->dtype,
        .hidden = x->shape[x->rank - 1],
        .per_column = 1.0 / (double)x->shape[x->rank - 1],
    };
    if (!rwi_absent(tensors->weight.tensor))
        params.weight = tensors->weight.tensor->data;
    rwi_row_view views[4] = {{x, params.x_stride},
                             {tensors->out.tensor, params.out_stride},
                             {tensors->residual.tensor, params.residual_stride},
                             {tensors->sum.tensor, params.sum_stride}};
    params.rows = rwi_rows_describe(views, has_residual ? 4 : 2, x->rank - 1);
    if (has_residual) {
        params.residual = tensors->residual.tensor->data;
        params.sum = tensors->sum.tensor->data;
    }
    return params;
}

rw_status rw_rms_norm(rw_context *context, const rw_rms_norm_args *args) {
    static const rw_tensor no_bias;
    rwi_call call = {context, "rw_rms_norm"};
    RWI_TRY(rwi_begin(&call, args));
    norm_tensors tensors = {
        .x = {"x", &args->x},
        .weight = {"weight", &args->weight},
        .bias = {"bias", &no_bias},
        .residual = {"residual", &args->residual},
        .sum = {"residual_out", &args->residual_out},
        .out = {"out", &args->out},
    };
    RWI_TRY(check_fields(&call, args->eps, args->weight_offset, &tensors));
    if ((unsigned)args->cast > RW_NORM_CAST_AFTER_WEIGHT)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "cast is %d, expected one of rw_norm_cast",
                        (int)args->cast);
    complete(&tensors);
    RWI_TRY(check_tensors(&call, &tensors));
    if (rwi_empty(&args->x))
        return RW_OK;
    rw_rms_norm_params params = describe(&tensors);
    params.eps = args->eps;
    params.weight_offset = args->weight_offset;
    params.cast_before_weight = args->cast == RW_NORM_CAST_BEFORE_WEIGHT;
    return rwi_finish(&call, context->backend->rms_norm(context->device, &params));
}

rw_status rw_layer_norm(rw_context *context, const rw_layer_norm_args *args) {
    rwi_call call = {context, "rw_layer_norm"};
    RWI_TRY(rwi_begin(&call, args));
    norm_tensors tensors = {
        .x = {"x", &args->x},
        .weight = {"weight", &args->weight},
        .bias = {"bias", &args->bias},
        .residual = {"residual", &args->residual},
        .sum = {"residual_out", &args->residual_out},
        .out = {"out", &args->out},
    };
    RWI_TRY(check_fields(&call, args->eps, args->weight_offset, &tensors));
    complete(&tensors);
    RWI_TRY(check_tensors(&call, &tensors));
    if (rwi_empty(&args->x))
        return RW_OK;
    rw_layer_norm_params params = describe(&tensors);
    params.bias = rwi_absent(&args->bias) ? NULL : args->bias.data;
    params.bias_dtype = args->bias.dtype;
    params.eps = args->eps;
    params.weight_offset = args->weight_offset;
    return rwi_finish(&call, context->backend->layer_norm(context->device, &params));
}
