/* Gated activations: the entry point. */
#include <ropewalk/activation.h>

#include <float.h>

#include "numbers.h"
#include "row_views.h"
#include "tensor.h"

static const rwi_tensor_rule rule = {1, 4, RWI_FLOATS};

/* Views of gate, up and out; for an interleaved row, `gate` is the view of the pairs. */
typedef struct glu_views {
    rw_tensor gate;
    rw_tensor up;
    rw_tensor out;
    bool interleaved;
    bool up_first;
} glu_views;

static rw_status check_fields(const rwi_call *call, const rw_glu_args *args) {
    RWI_TRY(rwi_check_number(call, "limit", args->limit, 0.0));
    RWI_TRY(rwi_check_number(call, "alpha", args->alpha, 0.0));
    RWI_TRY(rwi_check_number(call, "up_offset", args->up_offset, -INFINITY));
    if ((unsigned)args->packing > RW_GLU_INTERLEAVED_UP_FIRST)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "packing is %d, expected one of rw_glu_packing",
                        (int)args->packing);
    if ((unsigned)args->activation > RW_GLU_RELU2)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "activation is %d, expected one of rw_glu_activation",
                        (int)args->activation);
    if (args->alpha != 0.0f && args->activation != RW_GLU_SILU)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "alpha is %g, expected 0 without RW_GLU_SILU",
                        (double)args->alpha);
    if (args->packing != RW_GLU_GATE_FIRST && rwi_absent(&args->packed))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "packing is %d, but packed is absent, expected both or neither",
                        (int)args->packing);
    return RW_OK;
}

/* One half of a packed row. */
static rw_tensor half_of(rw_tensor packed, bool second) {
    int64_t *hidden = &packed.shape[packed.rank - 1];
    *hidden /= 2;
    if (second && packed.data)
        packed.data = rwi_element(packed.dtype, packed.data, *hidden);
    return packed;
}

static rw_status check_packed(const rwi_call *call, const rw_glu_args *args, glu_views *views) {
    rwi_argument packed = {"packed", &args->packed}, out = {"out", &args->out};
    if (!rwi_absent(&args->gate) || !rwi_absent(&args->up))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "packed is given together with gate or up, expected one or the other");
    if (rwi_absent(&args->out))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "out is absent, expected it together with packed");
    RWI_TRY(rwi_check_tensor(call, packed, rule));
    int64_t columns = args->packed.shape[args->packed.rank - 1];
    if (columns % 2 != 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "packed has rows of %lld, expected an even number", (long long)columns);
    views->interleaved = args->packing >= RW_GLU_INTERLEAVED;
    views->up_first =
        args->packing == RW_GLU_UP_FIRST || args->packing == RW_GLU_INTERLEAVED_UP_FIRST;
    bool halves = !views->interleaved;
    views->gate = half_of(args->packed, halves && views->up_first);
    views->up = half_of(args->packed, halves && !views->up_first);
    return views->interleaved ? rwi_check_apart(call, out, packed, false) : RW_OK;
}

static rw_status check_pair(const rwi_call *call, const rw_glu_args *args, glu_views *views) {
    rwi_argument gate = {"gate", &args->gate}, up = {"up", &args->up};
    RWI_TRY(rwi_check_tensor(call, gate, rule));
    RWI_TRY(rwi_check_tensor(call, up, rule));
    RWI_TRY(rwi_check_same_shape(call, up, gate));
    RWI_TRY(rwi_check_same_dtype(call, up, gate));
    views->gate = args->gate;
    views->up = args->up;
    return RW_OK;
}

static rw_status check_out(const rwi_call *call, const glu_views *views, bool packed) {
    rwi_argument out = {"out", &views->out};
    rwi_argument gate = {packed ? "packed" : "gate", &views->gate};
    rwi_argument up = {packed ? "packed" : "up", &views->up};
    RWI_TRY(rwi_check_tensor(call, out, rule));
    RWI_TRY(rwi_check_same_shape(call, out, gate));
    RWI_TRY(rwi_check_same_dtype(call, out, gate));
    RWI_TRY(rwi_check_output(call, out));
    if (views->interleaved)
        return RW_OK;
    RWI_TRY(rwi_check_apart(call, out, gate, true));
    return rwi_check_apart(call, out, up, true);
}

static rw_glu_params describe(const rw_glu_args *args, const glu_views *views) {
    rw_glu_params params = {
        .gate = views->gate.data,
        .up = views->up.data,
        .out = views->out.data,
        .dtype = views->gate.dtype,
        .interleaved = views->interleaved,
        .up_first = views->up_first,
        .hidden = views->gate.shape[views->gate.rank - 1],
        .activation = args->activation,
        .lowest = args->zero_at_minus_infinity ? -FLT_MAX : -INFINITY,
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

rw_status rw_glu(rw_context *context, const rw_glu_args *args) {
    rwi_call call = {context, "rw_glu"};
    glu_views views = {.interleaved = false};
    RWI_TRY(rwi_begin(&call, args));
    bool packed = !rwi_absent(&args->packed);
    RWI_TRY(check_fields(&call, args));
    RWI_TRY(packed ? check_packed(&call, args, &views) : check_pair(&call, args, &views));
    views.out = rwi_absent(&args->out) ? views.gate : args->out;
    RWI_TRY(check_out(&call, &views, packed));
    if (rwi_empty(&views.gate))
        return RW_OK;
    rw_glu_params params = describe(args, &views);
    return rwi_finish(&call, context->backend->glu(context->device, &params));
}
