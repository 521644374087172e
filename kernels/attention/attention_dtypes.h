/* Entry points of attention, one for each dtype of q, with k and v of the same or of 8 bits. */
#ifndef RWI_ATTENTION_DTYPES_H
#define RWI_ATTENTION_DTYPES_H

#include "attention/attention_params.h"
#include "hip/hip_device.h"

rw_status rwi_hip_attention_f32(rwi_device *device, const rw_attention_params &p);
rw_status rwi_hip_attention_f16(rwi_device *device, const rw_attention_params &p);
rw_status rwi_hip_attention_bf16(rwi_device *device, const rw_attention_params &p);
rw_status rwi_hip_attention_f8_f32(rwi_device *device, const rw_attention_params &p);
rw_status rwi_hip_attention_f8_f16(rwi_device *device, const rw_attention_params &p);
rw_status rwi_hip_attention_f8_bf16(rwi_device *device, const rw_attention_params &p);

/* For widths that rwi_attention_is_wide() names. */
rw_status rwi_hip_attention_wide_f32(rwi_device *device, const rw_attention_params &p);
rw_status rwi_hip_attention_wide_f16(rwi_device *device, const rw_attention_params &p);
rw_status rwi_hip_attention_wide_bf16(rwi_device *device, const rw_attention_params &p);
rw_status rwi_hip_attention_wide_f8_f32(rwi_device *device, const rw_attention_params &p);
rw_status rwi_hip_attention_wide_f8_f16(rwi_device *device, const rw_attention_params &p);
rw_status rwi_hip_attention_wide_f8_bf16(rwi_device *device, const rw_attention_params &p);

#endif
