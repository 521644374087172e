/* Attention over wide or odd rows of bf16 on a GPU. */
#include "attention/attention_dtypes.h"
#include "attention/attention_wide.h"

rw_status rwi_hip_attention_wide_bf16(rwi_device *device, const rw_attention_params &p) {
    return launch_wide<RW_BF16, false>(device, p);
}
