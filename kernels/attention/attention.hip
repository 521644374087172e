/* Attention on a GPU; the twin of attention_cpu.c. The kernels are in attention_gpu.h and
 * attention_wide.h. */
#include "attention/attention_dtypes.h"
#include "gpu/dispatch.h"

extern "C" rw_status rwi_hip_attention(rwi_device *device, const rw_attention_params *p) {
    const bool codes = p->kv_dtype != p->dtype, wide = rwi_attention_is_wide(p);
    switch (p->dtype) {
    case RW_F32:
        return codes  ? rwi_hip_attention_f8_f32(device, *p)
               : wide ? rwi_hip_attention_wide_f32(device, *p)
                      : rwi_hip_attention_f32(device, *p);
    case RW_F16:
        return codes  ? rwi_hip_attention_f8_f16(device, *p)
               : wide ? rwi_hip_attention_wide_f16(device, *p)
                      : rwi_hip_attention_f16(device, *p);
    case RW_BF16:
        return codes  ? rwi_hip_attention_f8_bf16(device, *p)
               : wide ? rwi_hip_attention_wide_bf16(device, *p)
                      : rwi_hip_attention_bf16(device, *p);
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        break;
    }
    return rwi_hip_unsupported_dtype(device, p->dtype);
}
