/* The KV cache on a GPU; the twin of kv_cpu.c. One block per token: threads along x share a head,
 * threads along y take different heads. */
#include "gpu/dispatch.h"
#include "gpu/kv_heads.h"
#include "gpu/launch.h"

/* TO: the dtype of the cache, D or one of 8 bits. */
template <rw_dtype D, int VEC, rw_dtype TO>
static __global__ void __launch_bounds__(RWI_BLOCK)
    kv_append_kernel(rw_kv_append_params p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    const int64_t token = rwi_block_row();
    if (token >= p.batch * p.seq)
        return;
    int64_t b, s;
    rwi_bad_id bad;
    rwi_kv_place place;
    rwi_split_index(token, p.seq, &b, &s);
    const rwi_kv_token kind = kv_append_find(&p, b, s, &place, &bad);
    if (kind == RWI_KV_INVALID && threadIdx.x == 0 && threadIdx.y == 0)
        rwi_fault_raise(sink, token, bad);
    if (kind != RWI_KV_WRITTEN)
        return;
    const rwi_kv_side &k = p.sides[0], &v = p.sides[1];
    if constexpr (TO != D) {
        rwi_kv_quantize_heads<D, VEC>(k, TO, rwi_kv_find_heads(k, b, s, place));
        rwi_kv_quantize_heads<D, VEC>(v, TO, rwi_kv_find_heads(v, b, s, place));
    } else {
        rwi_kv_copy_heads<D, VEC>(k, rwi_kv_find_heads(k, b, s, place));
        rwi_kv_copy_heads<D, VEC>(v, rwi_kv_find_heads(v, b, s, place));
    }
}

template <rw_dtype D, int VEC, rw_dtype TO>
static rw_status launch_append(rwi_device *device, const rw_kv_append_params &p) {
    const int64_t width = rwi_max(p.sides[0].width, p.sides[1].width);
    const uint32_t x = rwi_kv_head_threads(rwi_ceil_div(width, VEC));
    const uint32_t y = (uint32_t)rwi_min(p.sides[0].heads, RWI_BLOCK / x);
    return rwi_launch(device,
                      rwi_launch_rows(RWI_OP_kv_append, kv_append_work(&p).items, dim3(x, y)),
                      kv_append_kernel<D, VEC, TO>, p);
}

template <rw_dtype D, rw_dtype TO>
static rw_status launch_quantize(rwi_device *device, const rw_kv_append_params &p) {
    return rwi_kv_side_has_code_vectors(D, p.sides[0]) &&
                   rwi_kv_side_has_code_vectors(D, p.sides[1])
               ? launch_append<D, rwi_vector_length<D>, TO>(device, p)
               : launch_append<D, 1, TO>(device, p);
}

extern "C" rw_status rwi_hip_kv_append(rwi_device *device, const rw_kv_append_params *p) {
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        if (p->cache_dtype == RW_F8_E4M3)
            return launch_quantize<D, RW_F8_E4M3>(device, *p);
        if (p->cache_dtype == RW_F8_E5M2)
            return launch_quantize<D, RW_F8_E5M2>(device, *p);
        if (rwi_kv_side_has_vectors(D, p->sides[0]) && rwi_kv_side_has_vectors(D, p->sides[1]))
            return launch_append<D, rwi_vector_length<D>, D>(device, *p);
        return launch_append<D, 1, D>(device, *p);
    });
}
