/* Merging attention over two sets of keys, on a GPU, as merge_cpu.c does on a CPU. Threads along x
 * share one query of one head, threads along y have different queries. */
#include "gpu/dispatch.h"
#include "gpu/launch.h"
#include "gpu/vectors.h"
#include "merge_params.h"

template <rw_dtype IN, rw_dtype OUT, int VEC>
static __global__ void __launch_bounds__(RWI_BLOCK)
    merge_kernel(rw_attention_merge_params p, rwi_fault_sink) {
    rwi_begin_kernel();
    const int64_t item = rwi_block_row() * blockDim.y + threadIdx.y;
    const bool live = item < p.batch * p.heads * p.seq;
    const rwi_query query = rwi_query_find(live ? item : 0, p.heads, p.seq);
    const float lse_a = p.a.lse[rwi_query_lse_at(&p.a, query)];
    const float lse_b = p.b.lse[rwi_query_lse_at(&p.b, query)];
    __syncthreads(); /* merged.lse may be that of a or b */
    if (!live)
        return;
    const bool has_a = lse_a != -INFINITY, has_b = lse_b != -INFINITY;
    const rwi_merge_weights weights = rwi_merge_weigh(lse_a, lse_b);
    const void *row_a = rwi_element(IN, p.a.out, rwi_query_out_at(&p.a, query));
    const void *row_b = rwi_element(IN, p.b.out, rwi_query_out_at(&p.b, query));
    void *row = rwi_element(OUT, p.merged.out, rwi_query_out_at(&p.merged, query));
    for (int64_t i = threadIdx.x * VEC; i < p.width; i += blockDim.x * VEC) {
        float a[VEC] = {}, b[VEC] = {};
        if (has_a)
            rwi_load_vector<IN>(row_a, i, a);
        if (has_b)
            rwi_load_vector<IN>(row_b, i, b);
#pragma unroll
        for (int n = 0; n < VEC; n++)
            a[n] = rwi_merge_values(weights, has_a, has_b, a[n], b[n]);
        rwi_store_vector<OUT>(row, i, a);
    }
    if (threadIdx.x == 0)
        p.merged.lse[rwi_query_lse_at(&p.merged, query)] = weights.lse;
}

template <rw_dtype IN, rw_dtype OUT, int VEC>
static rw_status launch_merge(rwi_device *device, const rw_attention_merge_params &p) {
    uint32_t x = 1;
    while (x < 32 && x * VEC < p.width)
        x *= 2;
    const uint32_t y = RWI_BLOCK / x;
    const rwi_launch_shape shape = rwi_launch_rows(
        RWI_OP_attention_merge, rwi_ceil_div(attention_merge_work(&p).items, y), dim3(x, y));
    return rwi_launch(device, shape, merge_kernel<IN, OUT, VEC>, p);
}

extern "C" rw_status rwi_hip_attention_merge(rwi_device *device,
                                             const rw_attention_merge_params *p) {
    return rwi_dispatch_float(device, p->in_dtype, [&](auto in) {
        return rwi_dispatch_float(device, p->out_dtype, [&](auto out) {
            constexpr rw_dtype IN = in.value, OUT = out.value;
            constexpr int VEC = rwi_vector_length<IN>;
            if constexpr (VEC == rwi_vector_length<OUT>) {
                if (rwi_rows_are_vectors(IN, {p->a.out, p->a.out_stride, 3, p->width}) &&
                    rwi_rows_are_vectors(IN, {p->b.out, p->b.out_stride, 3, p->width}) &&
                    rwi_rows_are_vectors(OUT, {p->merged.out, p->merged.out_stride, 3, p->width}))
                    return launch_merge<IN, OUT, VEC>(device, *p);
            }
            return launch_merge<IN, OUT, 1>(device, *p);
        });
    });
}
