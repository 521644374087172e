/* Dtypes as template arguments. */
#ifndef RWI_DISPATCH_H
#define RWI_DISPATCH_H

#include "hip/hip_device.h"

#include "shared/dtype.h"

template <rw_dtype D> struct rwi_dtype_constant { static constexpr rw_dtype value = D; };

/* Returns body(rwi_dtype_constant<dtype>()) for a float dtype. */
template <typename Body>
static inline rw_status rwi_dispatch_float(rwi_device *device, rw_dtype dtype, Body body) {
    switch (dtype) {
    case RW_F32:
        return body(rwi_dtype_constant<RW_F32>());
    case RW_F16:
        return body(rwi_dtype_constant<RW_F16>());
    case RW_BF16:
        return body(rwi_dtype_constant<RW_BF16>());
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        break;
    }
    return rwi_hip_unsupported_dtype(device, dtype);
}

#endif
