/* Attention over f16 on a GPU whose waves have roles. */
#include "attention/attention_dtypes.h"
#include "attention/attention_roles.h"

#if defined(RWI_HAS_WGMMA)
rw_status rwi_hip_attention_roles_f16(rwi_device *device, const rw_attention_params &p,
                                      const attention_bounds &bounds, bool again) {
    return launch_roles_call<RW_F16>({device, p, bounds, again});
}
#endif
