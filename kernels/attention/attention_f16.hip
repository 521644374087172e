/* Attention over f16 on a GPU. */
#include "attention/attention_dtypes.h"
#include "attention/attention_gpu.h"

rw_status rwi_hip_attention_f16(rwi_device *device, const rw_attention_params &p) {
    return launch_dtype<RW_F16>(device, p);
}
