/* Attention scores step by step: the entry points. */
#include <ropewalk/scores.h>

#include "numbers.h"
#include "tensor.h"

static float scale_or_one(double scale) {
    return scale != 0.0 ? (float)scale : 1.0f;
}

/* The factors of a product have the same rank and batch. */
static rw_status check_factors(const rwi_call *call, rwi_argument a, rwi_argument b) {
    RWI_TRY(rwi_check_tensor(call, a, (rwi_tensor_rule){3, 4, RWI_FLOATS}));
    const int rank = a.tensor->rank;
    RWI_TRY(rwi_check_tensor(call, b, (rwi_tensor_rule){rank, rank, RWI_FLOATS}));
    return rank == 4 ? rwi_check_length(call, b, 0, a.tensor->shape[0]) : RW_OK;
}

/* Checks out, [batch, ...shape] or without the batch, which overlaps neither a nor b. */
static rw_status check_product(const rwi_call *call, rwi_argument out, rwi_argument a,
                               rwi_argument b, const int64_t shape[3]) {
    const int rank = a.tensor->rank;
    RWI_TRY(rwi_check_tensor(call, out, (rwi_tensor_rule){rank, rank, RWI_FLOATS}));
    if (rank == 4)
        RWI_TRY(rwi_check_length(call, out, 0, a.tensor->shape[0]));
    for (int axis = 0; axis < 3; axis++)
        RWI_TRY(rwi_check_length(call, out, axis - 3, shape[axis]));
    RWI_TRY(rwi_check_output(call, out));
    RWI_TRY(rwi_check_apart(call, out, a, false));
    return rwi_check_apart(call, out, b, false);
}

/* One matrix for each head: [batch, heads, rows, columns]. */
static rw_tensor matrices_of_scores(const rw_tensor *scores) {
    return rwi_with_rank(rwi_steppable(scores), 4);
}

static rw_tensor matrices_of_tokens(const rw_tensor *tokens) {
    return rw_tensor_transpose(rwi_with_rank(rwi_steppable(tokens), 4), 1, 2);
}

/* Params of c = a * b with a scale of 1. */
static rwi_matmul describe_product(const rw_tensor *a, const rw_tensor *b, const rw_tensor *c) {
    rwi_matmul params = {.a = a->data,
                         .b = b->data,
                         .c = c->data,
                         .a_dtype = a->dtype,
                         .b_dtype = b->dtype,
                         .c_dtype = c->dtype,
                         .batch = c->shape[0],
                         .heads = c->shape[1],
                         .group = rwi_group(c->shape[1], b->shape[1]),
                         .m = c->shape[2],
                         .n = c->shape[3],
                         .k = a->shape[3],
                         .scale = 1.0f};
    for (int axis = 0; axis < 3; axis++) {
        params.a_stride[axis] = a->stride[axis];
        params.b_stride[axis] = b->stride[axis];
        params.c_stride[axis] = c->stride[axis];
    }
    return params;
}

rw_status rw_qk_matmul(rw_context *context, const rw_qk_matmul_args *args) {
    const rwi_call call = {context, "rw_qk_matmul"};
    RWI_TRY(rwi_begin(&call, args));
    const rwi_argument q = {"q", &args->q}, k = {"k", &args->k}, out = {"out", &args->out};
    RWI_TRY(check_factors(&call, q, k));
    RWI_TRY(rwi_check_length(&call, k, RWI_WIDTH, rwi_length(q.tensor, RWI_WIDTH)));
    RWI_TRY(rwi_check_heads(&call, q, q.tensor->rank + RWI_HEADS, k));
    RWI_TRY(rwi_check_same_dtype(&call, k, q));
    RWI_TRY(rwi_check_number(&call, "scale", args->scale, -INFINITY));
    const int64_t shape[] = {rwi_length(q.tensor, RWI_HEADS), rwi_length(q.tensor, RWI_SEQ),
                             rwi_length(k.tensor, RWI_SEQ)};
    RWI_TRY(check_product(&call, out, q, k, shape));
    if (rwi_empty(&args->out))
        return RW_OK;
    const rw_tensor a = matrices_of_tokens(&args->q), b = matrices_of_tokens(&args->k),
                    c = matrices_of_scores(&args->out);
    rw_qk_matmul_params params = describe_product(&a, &b, &c);
    params.scale = scale_or_one(args->scale);
    return rwi_finish(&call, context->backend->qk_matmul(context->device, &params));
}

rw_status rw_weighted_matmul(rw_context *context, const rw_weighted_matmul_args *args) {
    const rwi_call call = {context, "rw_weighted_matmul"};
    RWI_TRY(rwi_begin(&call, args));
    const rwi_argument weights = {"weights", &args->weights}, v = {"v", &args->v},
                       out = {"out", &args->out};
    RWI_TRY(check_factors(&call, weights, v));
    const int rank = weights.tensor->rank;
    RWI_TRY(rwi_check_length(&call, v, RWI_SEQ, rwi_length(weights.tensor, -1)));
    RWI_TRY(rwi_check_heads(&call, weights, rank - 3, v));
    if (args->weights.dtype != RW_F32)
        RWI_TRY(rwi_check_same_dtype(&call, weights, v));
    const int64_t shape[] = {rwi_length(weights.tensor, -2), rwi_length(weights.tensor, -3),
                             rwi_length(v.tensor, RWI_WIDTH)};
    RWI_TRY(check_product(&call, out, weights, v, shape));
    if (rwi_empty(&args->out))
        return RW_OK;
    const rw_tensor a = matrices_of_scores(&args->weights), b = matrices_of_tokens(&args->v),
                    c = matrices_of_tokens(&args->out);
    const rw_weighted_matmul_params params = describe_product(&a, &b, &c);
    return rwi_finish(&call, context->backend->weighted_matmul(context->device, &params));
}

/* An output [batch, heads], which may be absent. */
static rw_status check_head_output(const rwi_call *call, rwi_argument output, unsigned dtypes,
                                   rwi_argument scores) {
    if (rwi_absent(output.tensor))
        return RW_OK;
    RWI_TRY(rwi_check_tensor(call, output, (rwi_tensor_rule){2, 2, dtypes}));
    for (int axis = 0; axis < 2; axis++)
        RWI_TRY(rwi_check_length(call, output, axis, scores.tensor->shape[axis]));
    RWI_TRY(rwi_check_output(call, output));
    return rwi_check_apart(call, output, scores, false);
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
    const rwi_call call = {context, "rw_score_statistics"};
    RWI_TRY(rwi_begin(&call, args));
    const rwi_argument scores = {"scores", &args->scores};
    const rwi_argument outputs[] = {{"min", &args->min},
                                    {"max", &args->max},
                                    {"mean", &args->mean},
                                    {"num_nan", &args->num_nan},
                                    {"num_inf", &args->num_inf}};
    RWI_TRY(rwi_check_tensor(&call, scores, (rwi_tensor_rule){4, 4, RWI_FLOATS}));
    for (int i = 0; i < 5; i++)
        RWI_TRY(
            check_head_output(&call, outputs[i], i < 3 ? RWI_DTYPE_BIT(RW_F32) : RWI_IDS, scores));
    for (int i = 0; i < 5; i++)
        for (int j = i + 1; j < 5; j++)
            RWI_TRY(rwi_check_apart(&call, outputs[i], outputs[j], false));
    if (args->scores.shape[0] == 0 || args->scores.shape[1] == 0)
        return RW_OK;
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
