/* Microscaling formats: the entry points. */
#include <ropewalk/mx.h>

#include "row_views.h"
#include "tensor.h"

static bool layout_is_valid(const rw_mx_layout *layout) {
    bool fours = layout->format == RW_MXFP4_E2M1;
    return (unsigned)layout->format <= RW_MXFP8_E5M2 &&
           (unsigned)layout->nibbles <= (unsigned)(fours ? RW_MX_SPLIT : RW_MX_LOW_FIRST);
}

int64_t rw_mx_block_bytes(const rw_mx_layout *layout) {
    if (!layout || !layout_is_valid(layout))
        return 0;
    return RW_MX_BLOCK * rwi_mx_element_of(layout->format).bits / 8 + layout->scale_in_front;
}

static rw_status check_layout(const rwi_call *call, const rw_mx_layout *layout) {
    if ((unsigned)layout->format > RW_MXFP8_E5M2)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "layout.format is %d, expected one of rw_mx_format", (int)layout->format);
    if (!layout_is_valid(layout))
        return rwi_fail(call, RW_INVALID_ARGUMENT, "layout.nibbles is %d, expected %s",
                        (int)layout->nibbles,
                        layout->format == RW_MXFP4_E2M1 ? "one of rw_mx_nibbles"
                                                        : "0 for a format of six or eight bits");
    return RW_OK;
}

/* `argument` has the leading axes of blocks, one for each axis but the last of blocks. */
static rw_status check_leading(const rwi_call *call, rwi_argument argument,
                               const rw_tensor *blocks) {
    for (int axis = 0; axis < blocks->rank - 1; axis++)
        RWI_TRY(rwi_check_length(call, argument, axis, blocks->shape[axis]));
    return RW_OK;
}

static rw_status check_scales(const rwi_call *call, const rw_mx_args *args) {
    rwi_argument scales = {"scales", &args->scales};
    int rank = args->blocks.rank - 1;
    if (args->layout.scale_in_front) {
        if (rwi_absent(&args->scales))
            return RW_OK;
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "scales are given, but layout.scale_in_front says that blocks hold them");
    }
    RWI_TRY(rwi_check_tensor(call, scales, (rwi_tensor_rule){rank, rank, RWI_BYTES}));
    return check_leading(call, scales, &args->blocks);
}

static rw_status check_shapes(const rwi_call *call, const rw_mx_args *args) {
    rwi_argument blocks = {"blocks", &args->blocks}, values = {"values", &args->values};
    RWI_TRY(check_layout(call, &args->layout));
    RWI_TRY(rwi_check_tensor(call, blocks, (rwi_tensor_rule){2, 4, RWI_BYTES}));
    int rank = args->blocks.rank;
    RWI_TRY(rwi_check_length(call, blocks, rank - 1, rw_mx_block_bytes(&args->layout)));
    RWI_TRY(check_scales(call, args));
    RWI_TRY(rwi_check_tensor(call, values, (rwi_tensor_rule){rank, rank, RWI_FLOATS}));
    RWI_TRY(check_leading(call, values, &args->blocks));
    return rwi_check_length(call, values, rank - 1, RW_MX_BLOCK);
}

/* Describes the tensors to the kernel. */
static rwi_mx_params describe(const rw_mx_args *args) {
    bool in_front = args->layout.scale_in_front;
    uint8_t *blocks = args->blocks.data;
    rwi_mx_params params = {
        .codes = blocks + in_front,
        .scales = in_front ? blocks : args->scales.data,
        .values = args->values.data,
        .dtype = args->values.dtype,
        .format = args->layout.format,
        .nibbles = args->layout.nibbles,
    };
    rwi_row_view views[3] = {{&args->blocks, params.code_stride},
                             {in_front ? &args->blocks : &args->scales, params.scale_stride},
                             {&args->values, params.value_stride}};
    params.blocks = rwi_rows_describe(views, 3, args->blocks.rank - 1);
    return params;
}

rw_status rw_mx_dequantize(rw_context *context, const rw_mx_args *args) {
    rwi_call call = {context, "rw_mx_dequantize"};
    RWI_TRY(rwi_begin(&call, args));
    rwi_argument values = {"values", &args->values};
    RWI_TRY(check_shapes(&call, args));
    RWI_TRY(rwi_check_output(&call, values));
    RWI_TRY(rwi_check_apart(&call, values, (rwi_argument){"blocks", &args->blocks}, false));
    RWI_TRY(rwi_check_apart(&call, values, (rwi_argument){"scales", &args->scales}, false));
    if (rwi_empty(&args->values))
        return RW_OK;
    rw_mx_dequantize_params params = describe(args);
    return rwi_finish(&call, context->backend->mx_dequantize(context->device, &params));
}

rw_status rw_mx_quantize(rw_context *context, const rw_mx_args *args) {
    rwi_call call = {context, "rw_mx_quantize"};
    RWI_TRY(rwi_begin(&call, args));
    rwi_argument blocks = {"blocks", &args->blocks}, scales = {"scales", &args->scales};
    rwi_argument values = {"values", &args->values};
    RWI_TRY(check_shapes(&call, args));
    RWI_TRY(rwi_check_output(&call, blocks));
    RWI_TRY(rwi_check_output(&call, scales));
    RWI_TRY(rwi_check_apart(&call, blocks, scales, false));
    RWI_TRY(rwi_check_apart(&call, blocks, values, false));
    RWI_TRY(rwi_check_apart(&call, scales, values, false));
    if (rwi_empty(&args->values))
        return RW_OK;
    rw_mx_quantize_params params = describe(args);
    return rwi_finish(&call, context->backend->mx_quantize(context->device, &params));
}
