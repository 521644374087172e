/* Attention over wide or odd rows of f32 on a GPU. */
#include "attention/attention_dtypes.h"
#include "attention/attention_wide.h"

rw_status rwi_hip_attention_wide_f32(rwi_device *device, const rw_attention_params &p) {
    return launch_wide<RW_F32, false>(device, p);
}
