/* Attention over f32 on a GPU. */
#include "attention/attention_dtypes.h"
#include "attention/attention_gpu.h"

rw_status rwi_hip_attention_f32(rwi_device *device, const rw_attention_params &p) {
    return launch_dtype<RW_F32>(device, p);
}
