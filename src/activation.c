/* SwiGLU: the entry point. */
#include <ropewalk/activation.h>

#include "numbers.h"
#include "row_views.h"
#include "tensor.h"

static const rwi_tensor_rule rule = {1, 4, RWI_FLOATS};

/* Gate and up apart, out, and where gate and up are interleaved, the pairs in the stead of gate. */
typedef struct swiglu_views {
    rw_tensor gate;
    rw_tensor up;
    rw_tensor out;
    bool interleaved;
    bool up_first;
} swiglu_views;

static rw_status check_fields(const rwi_call *call, const rw_swiglu_args *args) {
    rw_status status = rwi_check_number(call, "limit", args->limit, 0.0);
    if (status == RW_OK)
        status = rwi_check_number(call, "alpha", args->alpha, 0.0);
    if (status == RW_OK)
        status = rwi_check_number(call, "up_offset", args->up_offset, -INFINITY);
    if (status == RW_OK && (unsigned)args->packing > RW_SWIGLU_INTERLEAVED_UP_FIRST)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "packing is %d, expected one of rw_swiglu_packing", (int)args->packing);
    if (status == RW_OK && args->packing != RW_SWIGLU_GATE_FIRST && rwi_absent(&args->packed))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "packing is %d, but packed is absent, expected both or neither",
                        (int)args->packing);
    return status;
}

/* One half of a packed row. */
static rw_tensor half_of(rw_tensor packed, bool second) {
    int64_t *hidden = &packed.shape[packed.rank - 1];
    *hidden /= 2;
    if (second && packed.data)
        packed.data = rwi_element(packed.dtype, packed.data, *hidden);
    return packed;
}

static rw_status check_packed(const rwi_call *call, const rw_swiglu_args *args,
                              swiglu_views *views) {
    rwi_argument packed = {"packed", &args->packed}, out = {"out", &args->out};
    if (!rwi_absent(&args->gate) || !rwi_absent(&args->up))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "packed is given together with gate or up, expected one or the other");
    if (rwi_absent(&args->out))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "out is absent, expected it beside packed");
    rw_status status = rwi_check_tensor(call, packed, rule);
    int64_t columns = status == RW_OK ? args->packed.shape[args->packed.rank - 1] : 0;
    if (status == RW_OK && columns % 2 != 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "packed has rows of %lld, expected an even number", (long long)columns);
    if (status != RW_OK)
        return status;
    views->interleaved = args->packing >= RW_SWIGLU_INTERLEAVED;
    views->up_first =
        args->packing == RW_SWIGLU_UP_FIRST || args->packing == RW_SWIGLU_INTERLEAVED_UP_FIRST;
    bool halves = !views->interleaved;
    views->gate = half_of(args->packed, halves && views->up_first);
    views->up = half_of(args->packed, halves && !views->up_first);
    return views->interleaved ? rwi_check_apart(call, out, packed, false) : RW_OK;
}

static rw_status check_pair(const rwi_call *call, const rw_swiglu_args *args, swiglu_views *views) {
    rwi_argument gate = {"gate", &args->gate}, up = {"up", &args->up};
    rw_status status = rwi_check_tensor(call, gate, rule);
    if (status == RW_OK)
        status = rwi_check_tensor(call, up, rule);
    if (status == RW_OK)
        status = rwi_check_same_shape(call, up, gate);
    if (status == RW_OK)
        status = rwi_check_same_dtype(call, up, gate);
    views->gate = args->gate;
    views->up = args->up;
    return status;
}

static rw_status check_out(const rwi_call *call, const swiglu_views *views, bool packed) {
    rwi_argument out = {"out", &views->out};
    rwi_argument gate = {packed ? "packed" : "gate", &views->gate};
    rwi_argument up = {packed ? "packed" : "up", &views->up};
    rw_status status = rwi_check_tensor(call, out, rule);
    if (status == RW_OK)
        status = rwi_check_same_shape(call, out, gate);
    if (status == RW_OK)
        status = rwi_check_same_dtype(call, out, gate);
    if (status == RW_OK)
        status = rwi_check_output(call, out);
    if (status == RW_OK && !views->interleaved)
        status = rwi_check_apart(call, out, gate, true);
    if (status == RW_OK && !views->interleaved)
        status = rwi_check_apart(call, out, up, true);
    return status;
}

static rw_swiglu_params describe(const rw_swiglu_args *args, const swiglu_views *views) {
    rw_swiglu_params params = {
        .gate = views->gate.data,
        .up = views->up.data,
        .out = views->out.data,
        .dtype = views->gate.dtype,
        .interleaved = views->interleaved,
        .up_first = views->up_first,
        .hidden = views->gate.shape[views->gate.rank - 1],
        .limit = args->limit != 0.0f ? args->limit : INFINITY,
        .alpha = args->alpha != 0.0f ? args->alpha : 1.0f,
        .up_offset = args->up_offset,
    };
    rwi_row_view rows[3] = {{&views->gate, params.gate_stride},
                            {&views->up, params.up_stride},
                            {&views->out, params.out_stride}};
    params.rows = rwi_rows_describe(rows, 3, views->gate.rank - 1);
    return params;
}

rw_status rw_swiglu(rw_context *context, const rw_swiglu_args *args) {
    rwi_call call = {context, "rw_swiglu"};
    swiglu_views views = {.interleaved = false};
    rw_status status = rwi_check_context(&call);
    if (status != RW_OK)
        return status;
    if (!args)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "args is NULL");
    bool packed = !rwi_absent(&args->packed);
    status = check_fields(&call, args);
    if (status == RW_OK)
        status = packed ? check_packed(&call, args, &views) : check_pair(&call, args, &views);
    views.out = rwi_absent(&args->out) ? views.gate : args->out;
    if (status == RW_OK)
        status = check_out(&call, &views, packed);
    if (status != RW_OK || rwi_empty(&views.gate))
        return status;
    rw_swiglu_params params = describe(args, &views);
    return rwi_finish(&call, context->backend->swiglu(context->device, &params));
}
