/* The heads of a token in a KV cache, on a GPU; shared by kv.hip and rope_append.hip. Threads along x
 * share a head, threads along y take different heads. */
#ifndef RWI_KV_HEADS_H
#define RWI_KV_HEADS_H

#include "gpu/vectors.h"
#include "kv_params.h"

/* A token's heads of q, k or v: offsets in elements, and the strides of heads. */
struct rwi_kv_heads {
    int64_t in;
    int64_t out;
    int64_t in_stride;
    int64_t out_stride;
    int64_t heads;
};

__device__ static inline rwi_kv_heads rwi_kv_find_heads(const rwi_kv_side &side, int64_t b,
                                                        int64_t s, const rwi_kv_place &place) {
    return {b * side.in_stride[0] + s * side.in_stride[1],
            place.page * side.cache_stride[0] + place.row * side.cache_stride[1], side.in_stride[2],
            side.cache_stride[2], side.heads};
}

/* Copies elements without conversion. */
template <rw_dtype D, int VEC>
__device__ static inline void rwi_kv_copy_heads(const rwi_kv_side &side,
                                                const rwi_kv_heads &heads) {
    for (int64_t head = threadIdx.y; head < heads.heads; head += blockDim.y)
        for (int64_t i = threadIdx.x * VEC; i < side.width; i += blockDim.x * VEC)
            rwi_copy_vector<D, VEC>(
                rwi_element(D, rwi_global(side.in), heads.in + head * heads.in_stride),
                rwi_element(D, rwi_global(side.cache), heads.out + head * heads.out_stride), i);
}

/* Divides heads by their scales and rounds the quotients to an 8-bit dtype. */
template <rw_dtype D, int VEC>
__device__ static inline void rwi_kv_quantize_heads(const rwi_kv_side &side, rw_dtype to,
                                                    const rwi_kv_heads &heads) {
    for (int64_t head = threadIdx.y; head < heads.heads; head += blockDim.y) {
        const void *in = rwi_element(D, rwi_global(side.in), heads.in + head * heads.in_stride);
        uint8_t *out = (uint8_t *)rwi_global(side.cache) + heads.out + head * heads.out_stride;
        const float scale = rwi_kv_scale(&side, head);
        for (int64_t i = threadIdx.x * VEC; i < side.width; i += blockDim.x * VEC) {
            float x[VEC];
            rwi_load_vector<D>(in, i, x);
#pragma unroll
            for (int n = 0; n < VEC; n++)
                x[n] /= scale;
            rwi_store_codes(to, out + i, x);
        }
    }
}

/* Whether heads can be read in vectors, and their codes written at once. */
static inline bool rwi_kv_side_has_code_vectors(rw_dtype dtype, const rwi_kv_side &side) {
    const int64_t length = 16 / (int64_t)rwi_dtype_size(dtype);
    return rwi_codes_are_aligned(side.cache, side.cache_stride, length) &&
           rwi_rows_are_vectors(dtype, {side.in, side.in_stride, 3, side.width});
}

static inline bool rwi_kv_side_has_vectors(rw_dtype dtype, const rwi_kv_side &side) {
    return rwi_rows_are_vectors(dtype, {side.in, side.in_stride, 3, side.width}) &&
           rwi_rows_are_vectors(dtype, {side.cache, side.cache_stride, 3, side.width});
}

/* Threads of one head along x: a power of two, at most the smallest wave. */
static inline uint32_t rwi_kv_head_threads(int64_t vectors) {
    uint32_t threads = 1;
    while (threads < vectors && threads < 32)
        threads *= 2;
    return threads;
}

#endif
