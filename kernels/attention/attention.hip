/* Attention on a GPU; the twin of attention_cpu.c. The kernels are in attention_gpu.h and
 * attention_wide.h. */
#include "attention/attention_dtypes.h"
#include "gpu/dispatch.h"

typedef rw_status entry(rwi_device *device, const rw_attention_params &p);

/* For a dtype of q: [k and v of 8 bits][wide or odd rows]. */
static entry *const f32[2][2] = {{rwi_hip_attention_f32, rwi_hip_attention_wide_f32},
                                 {rwi_hip_attention_f8_f32, rwi_hip_attention_wide_f8_f32}};
static entry *const f16[2][2] = {{rwi_hip_attention_f16, rwi_hip_attention_wide_f16},
                                 {rwi_hip_attention_f8_f16, rwi_hip_attention_wide_f8_f16}};
static entry *const bf16[2][2] = {{rwi_hip_attention_bf16, rwi_hip_attention_wide_bf16},
                                  {rwi_hip_attention_f8_bf16, rwi_hip_attention_wide_f8_bf16}};

extern "C" rw_status rwi_hip_attention(rwi_device *device, const rw_attention_params *p) {
    const bool codes = p->kv_dtype != p->dtype, wide = rwi_attention_is_wide(p);
    switch (p->dtype) {
    case RW_F32:
        return f32[codes][wide](device, *p);
    case RW_F16:
        return f16[codes][wide](device, *p);
    case RW_BF16:
        return bf16[codes][wide](device, *p);
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        break;
    }
    return rwi_hip_unsupported_dtype(device, p->dtype);
}
