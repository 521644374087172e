/* Stores of attention's results, for attention_gpu.h and attention_combine.hip. */
#ifndef RWI_ATTENTION_STORE_H
#define RWI_ATTENTION_STORE_H

#include "attention/attention_ragged.h"
#include "gpu/vectors.h"

RWI_ASSERT_16_BIT_FLOATS;

/* The address and dtype of a row's output. */
struct attention_target {
    void *data;
    int64_t at;
    rw_dtype dtype;
};

/* Stores four columns; `vectors`: their address is a multiple of their size. */
__device__ static inline void attention_store_four(const attention_target &to, int column,
                                                   const float4 &x, bool vectors) {
    const int64_t at = to.at + column;
    void *data = rwi_global(to.data);
    if (vectors && to.dtype == RW_F32) {
        *(float4 *)((float *)data + at) = x;
    } else if (vectors && to.dtype == RW_F16) {
        *(uint2 *)((uint16_t *)data + at) =
            make_uint2(rwi_pack_halves<RW_F16>(x.x, x.y), rwi_pack_halves<RW_F16>(x.z, x.w));
    } else if (vectors) {
        *(uint2 *)((uint16_t *)data + at) =
            make_uint2(rwi_pack_halves<RW_BF16>(x.x, x.y), rwi_pack_halves<RW_BF16>(x.z, x.w));
    } else {
        rwi_store(to.dtype, data, at, x.x);
        rwi_store(to.dtype, data, at + 1, x.y);
        rwi_store(to.dtype, data, at + 2, x.z);
        rwi_store(to.dtype, data, at + 3, x.w);
    }
}

/* Loads four columns of f32 back. */
__device__ static inline float4 attention_load_four(const attention_target &to, int column,
                                                    bool vectors) {
    const float *from = (const float *)rwi_global(to.data) + to.at + column;
    if (vectors)
        return *(const float4 *)from;
    return {from[0], from[1], from[2], from[3]};
}

/* The same of the first `count` of four columns, if it is less than 4; others are 0. */
__device__ static __forceinline__ void attention_store_some(const attention_target &to, int column,
                                                            const float4 &x, bool vectors,
                                                            int count) {
    if (count >= 4) {
        attention_store_four(to, column, x, vectors);
        return;
    }
    const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int n = 0; n < 3; n++)
        if (n < count)
            rwi_store(to.dtype, rwi_global(to.data), to.at + column + n, values[n]);
}

__device__ static __forceinline__ float4 attention_load_some(const attention_target &to, int column,
                                                             bool vectors, int count) {
    if (count >= 4)
        return attention_load_four(to, column, vectors);
    const float *from = (const float *)rwi_global(to.data) + to.at + column;
    return {from[0], count > 1 ? from[1] : 0.0f, count > 2 ? from[2] : 0.0f, 0.0f};
}

__device__ static inline void attention_add_four(const float4 &x, float share, float4 *sum) {
    sum->x += x.x * share;
    sum->y += x.y * share;
    sum->z += x.z * share;
    sum->w += x.w * share;
}

__device__ static inline float4 attention_multiply_four(rwi_attention_factor by, const float4 &x) {
    return {rwi_attention_multiply(by, x.x), rwi_attention_multiply(by, x.y),
            rwi_attention_multiply(by, x.z), rwi_attention_multiply(by, x.w)};
}

#endif
