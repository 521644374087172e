/* Operations by name: their list, and which of them a context supports. */
#include <ropewalk/context.h>

#include <string.h>

#include "tensor.h"

const char *rw_operation_name(int32_t index) {
    static const char *const names[RWI_NUM_OPS] = {
#define RW_OP(op, dtypes) [RWI_OP_##op] = #op,
#include "ops.def"
#undef RW_OP
    };
    return index >= 0 && index < RWI_NUM_OPS ? names[index] : NULL;
}

static const unsigned data_dtypes[RWI_NUM_OPS] = {
#define RW_OP(op, dtypes) [RWI_OP_##op] = RWI_##dtypes,
#include "ops.def"
#undef RW_OP
};

static bool backend_has(const rwi_backend *backend, int32_t index) {
    switch ((rwi_op)index) {
#define RW_OP(op, dtypes)                                                                          \
    case RWI_OP_##op:                                                                              \
        return backend->op != NULL;
#include "ops.def"
#undef RW_OP
    case RWI_NUM_OPS:
        break;
    }
    return false;
}

/* The index of a name, or -1; `nearest` is that of the name with the longest common prefix. */
static int32_t find_operation(const char *name, int32_t *nearest) {
    size_t most = 0;
    *nearest = 0;
    for (int32_t i = 0; i < RWI_NUM_OPS; i++) {
        const char *other = rw_operation_name(i);
        size_t alike = 0;
        while (name[alike] && name[alike] == other[alike])
            alike++;
        if (!name[alike] && !other[alike])
            return i;
        if (alike > most) {
            most = alike;
            *nearest = i;
        }
    }
    return -1;
}

rw_status rw_supports(rw_context *context, const char *operation, rw_dtype dtype) {
    rwi_call call = {context, "rw_supports"};
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(rwi_check_pointer(&call, "operation", operation));
    int32_t nearest;
    const int32_t index = find_operation(operation, &nearest);
    if (index < 0)
        return rwi_fail(&call, RW_INVALID_ARGUMENT,
                        "operation is \"%.64s\", expected one of rw_operation_name(), such as "
                        "\"%s\"",
                        operation, rw_operation_name(nearest));
    if (rw_dtype_size(dtype) == 0)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "dtype is %d, expected one of rw_dtype",
                        (int)dtype);
    if (!backend_has(context->backend, index))
        return rwi_fail(&call, RW_UNSUPPORTED, "the backend %s has no %s", context->backend->name,
                        operation);
    if (!(data_dtypes[index] & RWI_DTYPE_BIT(dtype)))
        return rwi_fail(&call, RW_UNSUPPORTED, "dtype is %s, expected %s for %s",
                        rw_dtype_name(dtype), rwi_dtypes_text(data_dtypes[index]), operation);
    return RW_OK;
}
