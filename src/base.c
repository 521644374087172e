/* Names, sizes and views: the small functions of base.h. */
#include <ropewalk/base.h>

#include "shared/dtype.h"

#define RWI_TEXT(x) RWI_TEXT_EXPANDED(x)
#define RWI_TEXT_EXPANDED(x) #x

const char *rw_version(void) {
    return RWI_TEXT(RW_VERSION_MAJOR) "." RWI_TEXT(RW_VERSION_MINOR) "." RWI_TEXT(RW_VERSION_PATCH);
}

int32_t rw_version_number(void) {
    return RW_VERSION_NUMBER;
}

int32_t rw_abi_version(void) {
    return RW_ABI_VERSION;
}

const char *rw_status_name(rw_status status) {
    switch (status) {
    case RW_OK:
        return "RW_OK";
    case RW_INVALID_ARGUMENT:
        return "RW_INVALID_ARGUMENT";
    case RW_OUT_OF_RANGE:
        return "RW_OUT_OF_RANGE";
    case RW_UNSUPPORTED:
        return "RW_UNSUPPORTED";
    case RW_OUT_OF_MEMORY:
        return "RW_OUT_OF_MEMORY";
    case RW_BACKEND_UNAVAILABLE:
        return "RW_BACKEND_UNAVAILABLE";
    case RW_DEVICE_ERROR:
        return "RW_DEVICE_ERROR";
    }
    return "unknown status";
}

const char *rw_dtype_name(rw_dtype dtype) {
    switch (dtype) {
    case RW_F32:
        return "f32";
    case RW_F16:
        return "f16";
    case RW_BF16:
        return "bf16";
    case RW_I32:
        return "i32";
    case RW_I64:
        return "i64";
    case RW_U8:
        return "u8";
    case RW_F8_E4M3:
        return "f8_e4m3";
    case RW_F8_E5M2:
        return "f8_e5m2";
    }
    return "unknown dtype";
}

size_t rw_dtype_size(rw_dtype dtype) {
    return rwi_dtype_size(dtype);
}

rw_tensor rw_tensor_contiguous(void *data, rw_dtype dtype, int32_t rank, const int64_t *shape) {
    rw_tensor tensor = {.data = data, .dtype = dtype, .rank = rank};
    uint64_t stride = 1; /* unsigned: too large a shape wraps, and the operation refuses it */
    for (int axis = rank - 1; axis >= 0 && rank <= RW_MAX_RANK; axis--) {
        tensor.shape[axis] = shape[axis];
        tensor.stride[axis] = (int64_t)stride;
        stride *= (uint64_t)shape[axis];
    }
    return tensor;
}

rw_tensor rw_tensor_transpose(rw_tensor tensor, int32_t axis_a, int32_t axis_b) {
    if (axis_a < 0 || axis_b < 0 || axis_a >= RW_MAX_RANK || axis_b >= RW_MAX_RANK)
        return tensor;
    int64_t shape = tensor.shape[axis_a];
    int64_t stride = tensor.stride[axis_a];
    tensor.shape[axis_a] = tensor.shape[axis_b];
    tensor.stride[axis_a] = tensor.stride[axis_b];
    tensor.shape[axis_b] = shape;
    tensor.stride[axis_b] = stride;
    return tensor;
}
