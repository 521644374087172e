/* Position embeddings that are added to the hidden states, on a GPU; the twin of embed_cpu.c. One
 * block per token. */
#include "embed_params.h"
#include "gpu/dispatch.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/vectors.h"

/* One token's rows of x and out. */
struct token_rows {
    const void *x;
    void *out;
    int64_t id;
};

/* False where the token's id is out of range, which is reported. */
template <rw_dtype D>
__device__ static inline bool find_token(const rwi_embed_rows &rows, int64_t max_positions,
                                         int64_t item, const rwi_fault_sink &sink,
                                         token_rows *found) {
    int64_t b, s;
    rwi_split_index(item, rows.batch, &s, &b);
    found->id = rwi_token_id(&rows.ids, 0, b, s);
    /* Before the check: after it, clang does not infer that they point to global memory. */
    found->x = rwi_element(D, rows.in, b * rows.in_stride[0] + s * rows.in_stride[1]);
    found->out = rwi_element(D, rows.out, b * rows.out_stride[0] + s * rows.out_stride[1]);
    if (found->id < 0 || found->id >= max_positions) {
        if (threadIdx.x == 0)
            rwi_fault_raise(sink, b * rows.seq + s, rwi_bad(RW_FAULT_POSITION, found->id));
        return false;
    }
    return true;
}

template <rw_dtype D, rw_dtype TABLE, int VEC>
static __global__ void __launch_bounds__(RWI_BLOCK)
    learned_kernel(rw_embed_learned_params p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    token_rows rows;
    const int64_t item = rwi_block_row();
    if (item >= p.rows.batch * p.rows.seq ||
        !find_token<D>(p.rows, p.max_positions, item, sink, &rows))
        return;
    const void *entry = rwi_element(TABLE, p.table, rows.id * p.table_stride);
    for (int64_t i = threadIdx.x * VEC; i < p.rows.hidden; i += blockDim.x * VEC) {
        float x[VEC], position[VEC];
        rwi_load_vector<D>(rows.x, i, x);
        rwi_load_vector<TABLE>(entry, i, position);
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] += position[n];
        rwi_store_vector<D>(rows.out, i, x);
    }
}

template <rw_dtype D>
static __global__ void __launch_bounds__(RWI_BLOCK)
    sinusoidal_kernel(rw_embed_sinusoidal_params p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    token_rows rows;
    const int64_t n = p.rows.hidden / 2;
    const int64_t step = p.concatenated ? 1 : 2;
    const int64_t apart = p.concatenated ? n : 1;
    const int64_t item = rwi_block_row();
    if (item >= p.rows.batch * p.rows.seq ||
        !find_token<D>(p.rows, p.max_positions, item, sink, &rows))
        return;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        const rwi_cos_sin turn = rwi_angle_at(&p.angles, rows.id, i, n);
        const float sine = rwi_load(D, rows.x, i * step) + turn.sin;
        const float cosine = rwi_load(D, rows.x, i * step + apart) + turn.cos;
        rwi_store(D, rows.out, i * step, sine);
        rwi_store(D, rows.out, i * step + apart, cosine);
    }
}

/* One block per token, with `steps` units of work in it. */
static rwi_launch_shape shape_for(rwi_op op, const rwi_embed_rows &rows, int64_t steps) {
    return rwi_launch_rows(op, rwi_embed_work(&rows).items,
                           dim3((uint32_t)rwi_min(steps, RWI_BLOCK)));
}

template <rw_dtype D, rw_dtype TABLE>
static rw_status launch_learned(rwi_device *device, const rw_embed_learned_params &p) {
    constexpr int VEC = rwi_vector_length<D>;
    const rwi_embed_rows &rows = p.rows;
    if constexpr (VEC == rwi_vector_length<TABLE>) {
        if (rwi_rows_are_vectors(D, {rows.in, rows.in_stride, 2, rows.hidden}) &&
            rwi_rows_are_vectors(D, {rows.out, rows.out_stride, 2, rows.hidden}) &&
            rwi_rows_are_vectors(TABLE, {p.table, &p.table_stride, 1, rows.hidden}))
            return rwi_launch(device, shape_for(RWI_OP_embed_learned, rows, rows.hidden / VEC),
                              learned_kernel<D, TABLE, VEC>, p);
    }
    return rwi_launch(device, shape_for(RWI_OP_embed_learned, rows, rows.hidden),
                      learned_kernel<D, TABLE, 1>, p);
}

extern "C" rw_status rwi_hip_embed_learned(rwi_device *device, const rw_embed_learned_params *p) {
    return rwi_dispatch_float(device, p->rows.dtype, [&](auto dtype) {
        return rwi_dispatch_float(device, p->table_dtype, [&](auto table_dtype) {
            return launch_learned<dtype.value, table_dtype.value>(device, *p);
        });
    });
}

extern "C" rw_status rwi_hip_embed_sinusoidal(rwi_device *device,
                                              const rw_embed_sinusoidal_params *p) {
    const rwi_launch_shape shape = shape_for(RWI_OP_embed_sinusoidal, p->rows, p->rows.hidden / 2);
    return rwi_dispatch_float(device, p->rows.dtype, [&](auto dtype) {
        return rwi_launch(device, shape, sinusoidal_kernel<dtype.value>, *p);
    });
}
