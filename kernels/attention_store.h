/* Where attention's results go to, for attention_gpu.h and attention_combine.hip. */
#ifndef RWI_ATTENTION_STORE_H
#define RWI_ATTENTION_STORE_H

#include "launch.h"

/* Where a row's output goes to, and as what. */
struct attention_target {
    void *data;
    int64_t at;
    rw_dtype dtype;
};

/* Four columns; `vectors`: they lie on a multiple of their size. */
__device__ static inline void attention_store_four(const attention_target &to, int column,
                                                   const float4 &x, bool vectors) {
    const int64_t at = to.at + column;
    if (vectors && to.dtype == RW_F32) {
        *(float4 *)((float *)to.data + at) = x;
    } else if (vectors) {
        uint16_t halves[4] = {};
        rwi_store(to.dtype, halves, 0, x.x);
        rwi_store(to.dtype, halves, 1, x.y);
        rwi_store(to.dtype, halves, 2, x.z);
        rwi_store(to.dtype, halves, 3, x.w);
        *(uint2 *)((uint16_t *)to.data + at) = make_uint2((uint32_t)halves[1] << 16 | halves[0],
                                                          (uint32_t)halves[3] << 16 | halves[2]);
    } else {
        rwi_store(to.dtype, to.data, at, x.x);
        rwi_store(to.dtype, to.data, at + 1, x.y);
        rwi_store(to.dtype, to.data, at + 2, x.z);
        rwi_store(to.dtype, to.data, at + 3, x.w);
    }
}

#endif
