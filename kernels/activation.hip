/* SwiGLU on a GPU; the twin of activation_cpu.c. A thread takes a vector of a row: so much work an
 * element needs many threads, not long ones. */
#include "row_tiles.h"

#include "activation_kernel.h"

/* A row of every tensor; of interleaved pairs, `up` is unused. */
struct swiglu_row {
    const void *gate;
    const void *up;
    void *out;
};

template <rw_dtype D>
__device__ static inline swiglu_row find_row(const rw_swiglu_params &p, int64_t number) {
    int64_t offset[3];
    rwi_row_offsets(p.rows, number, {p.gate_stride, p.up_stride, p.out_stride}, offset);
    return {rwi_element(D, p.gate, offset[0]), rwi_element(D, p.up, offset[1]),
            rwi_element(D, p.out, offset[2])};
}

/* Gate and up of the elements i .. i + VEC - 1 of a row. */
template <rw_dtype D, int VEC, bool INTERLEAVED>
__device__ static inline void load_pairs(const rw_swiglu_params &p, const swiglu_row &row,
                                         int64_t i, float (&gate)[VEC], float (&up)[VEC]) {
    if constexpr (INTERLEAVED) {
        float low[VEC], high[VEC];
        rwi_load_vector<D>(row.gate, 2 * i, low);
        rwi_load_vector<D>(row.gate, 2 * i + VEC, high);
#pragma unroll
        for (int n = 0; n < VEC; n++) {
            const float first = 2 * n < VEC ? low[2 * n] : high[2 * n - VEC];
            const float second = 2 * n + 1 < VEC ? low[2 * n + 1] : high[2 * n + 1 - VEC];
            gate[n] = p.up_first ? second : first;
            up[n] = p.up_first ? first : second;
        }
    } else {
        rwi_load_vector<D>(row.gate, i, gate);
        rwi_load_vector<D>(row.up, i, up);
    }
}

template <rw_dtype D, int VEC, bool INTERLEAVED, bool PLAIN>
static __global__ void __launch_bounds__(RWI_BLOCK)
    swiglu_kernel(rwi_tiled<rw_swiglu_params> p, rwi_fault_sink) {
    int64_t number, i;
    if (!rwi_tile_place<VEC>(p.tiles, &number, &i) || i >= p.op.hidden)
        return;
    const swiglu_row row = find_row<D>(p.op, number);
    constexpr rwi_swiglu_kind kind = {PLAIN, D != RW_F32};
    float gate[VEC], up[VEC];
    load_pairs<D, VEC, INTERLEAVED>(p.op, row, i, gate, up);
#pragma unroll
    for (int n = 0; n < VEC; n++)
        gate[n] = swiglu_value(&p.op, kind, gate[n], up[n]);
    rwi_store_vector<D>(row.out, i, gate);
}

static bool has_vectors(const rw_swiglu_params &p) {
    return rwi_rows_are_vectors(p.dtype, {p.gate, p.gate_stride, 3, p.hidden}) &&
           (p.interleaved || rwi_rows_are_vectors(p.dtype, {p.up, p.up_stride, 3, p.hidden})) &&
           rwi_rows_are_vectors(p.dtype, {p.out, p.out_stride, 3, p.hidden});
}

template <rw_dtype D, int VEC, bool INTERLEAVED>
static rw_status launch_swiglu(rwi_device *device, const rw_swiglu_params &op) {
    rwi_tiled<rw_swiglu_params> p = {op, {rwi_row_count(&op.rows), op.hidden, 0}};
    const rwi_launch_shape shape = rwi_launch_row_tiles(RWI_OP_swiglu, VEC, 1, &p.tiles);
    return swiglu_is_plain(&op)
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
