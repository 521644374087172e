/* Attention from bf16 to k and v of 8 bits on a GPU. */
#include "attention/attention_dtypes.h"
#include "attention/attention_gpu.h"

rw_status rwi_hip_attention_f8_bf16(rwi_device *device, const rw_attention_params &p) {
    return launch_own_dtype<RW_BF16, true>(device, p);
}
