/* SwiGLU on a GPU; the twin of activation_cpu.c. A thread takes a vector; the threads along x share
 * a row, blocks take as many rows as there are threads along y. */
#include "launch.h"

#include "activation_kernel.h"

/* Gate and up of the elements i .. i + VEC - 1 of a row. */
template <rw_dtype D, int VEC, bool INTERLEAVED>
__device__ static inline void load_pairs(const rw_swiglu_params &p, const rwi_row_index &row,
                                         int64_t i, float (&gate)[VEC], float (&up)[VEC]) {
    const void *gates = rwi_element(D, p.gate, rwi_row_offset(&row, p.gate_stride));
    if constexpr (INTERLEAVED) {
        float low[VEC], high[VEC];
        rwi_load_vector<D>(gates, 2 * i, low);
        rwi_load_vector<D>(gates, 2 * i + VEC, high);
#pragma unroll
        for (int n = 0; n < VEC; n++) {
            const float first = 2 * n < VEC ? low[2 * n] : high[2 * n - VEC];
            const float second = 2 * n + 1 < VEC ? low[2 * n + 1] : high[2 * n + 1 - VEC];
            gate[n] = p.up_first ? second : first;
            up[n] = p.up_first ? first : second;
        }
    } else {
        rwi_load_vector<D>(gates, i, gate);
        rwi_load_vector<D>(rwi_element(D, p.up, rwi_row_offset(&row, p.up_stride)), i, up);
    }
}

template <rw_dtype D, int VEC, bool INTERLEAVED, bool PLAIN>
static __global__ void __launch_bounds__(RWI_BLOCK)
    swiglu_kernel(rw_swiglu_params p, rwi_fault_sink) {
    const int64_t columns = blockDim.x * VEC;
    int64_t block_row, piece;
    rwi_split_index(rwi_block_row(), rwi_ceil_div(p.hidden, columns), &block_row, &piece);
    const int64_t number = block_row * blockDim.y + threadIdx.y;
    const int64_t i = piece * columns + threadIdx.x * VEC;
    if (number >= rwi_row_count(&p.rows) || i >= p.hidden)
        return;
    const rwi_row_index row = rwi_row_find(&p.rows, number);
    constexpr rwi_swiglu_kind kind = {PLAIN, D != RW_F32};
    float gate[VEC], up[VEC];
    load_pairs<D, VEC, INTERLEAVED>(p, row, i, gate, up);
#pragma unroll
    for (int n = 0; n < VEC; n++)
        gate[n] = swiglu_value(&p, kind, gate[n], up[n]);
    rwi_store_vector<D>(rwi_element(D, p.out, rwi_row_offset(&row, p.out_stride)), i, gate);
}

static bool has_vectors(const rw_swiglu_params &p) {
    return rwi_rows_are_vectors(p.dtype, {p.gate, p.gate_stride, 3, p.hidden}) &&
           (p.interleaved || rwi_rows_are_vectors(p.dtype, {p.up, p.up_stride, 3, p.hidden})) &&
           rwi_rows_are_vectors(p.dtype, {p.out, p.out_stride, 3, p.hidden});
}

static rwi_launch_shape shape_for(const rw_swiglu_params &p, int64_t vec) {
    const int64_t vectors = rwi_ceil_div(p.hidden, vec);
    const int64_t x = rwi_min(vectors, RWI_BLOCK);
    const int64_t y = RWI_BLOCK / x;
    const int64_t rows = rwi_ceil_div(rwi_row_count(&p.rows), y);
    return rwi_launch_rows(RWI_OP_swiglu, rows * rwi_ceil_div(vectors, x),
                           dim3((uint32_t)x, (uint32_t)y));
}

template <rw_dtype D, int VEC, bool INTERLEAVED>
static rw_status launch_swiglu(rwi_device *device, const rw_swiglu_params &p) {
    const rwi_launch_shape shape = shape_for(p, VEC);
    return swiglu_is_plain(&p)
               ? rwi_launch(device, shape, swiglu_kernel<D, VEC, INTERLEAVED, true>, p)
               : rwi_launch(device, shape, swiglu_kernel<D, VEC, INTERLEAVED, false>, p);
}

extern "C" rw_status rwi_hip_swiglu(rwi_device *device, const rw_swiglu_params *p) {
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        constexpr int VEC = rwi_vector_length<D>;
        if (has_vectors(*p))
            return p->interleaved ? launch_swiglu<D, VEC, true>(device, *p)
                                  : launch_swiglu<D, VEC, false>(device, *p);
        return p->interleaved ? launch_swiglu<D, 1, true>(device, *p)
                              : launch_swiglu<D, 1, false>(device, *p);
    });
}
