/* Attention patterns on a GPU; the twin of pattern_cpu.c. */
#include "gpu/dispatch.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/row_tiles.h"
#include "gpu/vectors.h"
#include "gpu/visible.h"

/* The rows of a block. */
struct block_rows {
    rwi_pattern_row row[RWI_TILE_ROWS];
    int64_t b[RWI_TILE_ROWS];
    bool valid[RWI_TILE_ROWS]; /* the device's values are valid; else they are reported */
};

/* Whether this thread has a row of the pattern, rows.row[threadIdx.y], with valid values. Every
 * thread must call. */
template <typename Params>
__device__ static inline bool find_row(const rwi_tiled<Params> &p, int64_t query,
                                       const rwi_fault_sink &sink, block_rows &rows) {
    const uint32_t mine = rwi_thread_of_block();
    const int64_t found = query - threadIdx.y + mine;
    if (mine < blockDim.y && found < p.tiles.rows) {
        int64_t b, i;
        rwi_bad_id bad;
        rwi_split_index(found, p.op.seq_q, &b, &i);
        rows.b[mine] = b;
        rows.valid[mine] = rwi_pattern_row_at(&p.op.pattern, b, i, &rows.row[mine], &bad);
        if (!rows.valid[mine])
            rwi_fault_raise(sink, found, bad);
    }
    __syncthreads();
    return query < p.tiles.rows && rows.valid[threadIdx.y];
}

template <rw_dtype D, int VEC, bool CELLS>
static __global__ void __launch_bounds__(RWI_BLOCK)
    fill_kernel(rwi_tiled<rw_pattern_fill_params> p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    __shared__ block_rows rows;
    int64_t query, column;
    rwi_tile_place<VEC>(p.tiles, &query, &column);
    if (!find_row(p, query, sink, rows))
        return;
    const rwi_pattern_row row = rows.row[threadIdx.y];
    void *out = rwi_element(D, p.op.out,
                            rows.b[threadIdx.y] * p.op.out_stride[0] + row.i * p.op.out_stride[1]);
#pragma unroll 4
    for (int step = 0; step < p.tiles.steps; step++) {
        const int64_t j = rwi_tile_column(column, step, VEC);
        if (j >= p.tiles.columns)
            break;
        const unsigned seen = rwi_find_visible<VEC, CELLS>(p.op.pattern, row, (int32_t)j);
        float x[VEC];
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = seen >> n & 1 ? 0.0f : -INFINITY;
        rwi_store_vector<D>(out, j, x);
    }
}

template <bool CELLS>
static __global__ void __launch_bounds__(RWI_BLOCK)
    fill_bits_kernel(rwi_tiled<rw_pattern_fill_bits_params> p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    __shared__ block_rows rows;
    int64_t query, column;
    rwi_tile_place<1>(p.tiles, &query, &column);
    if (!find_row(p, query, sink, rows))
        return;
    const rwi_pattern_row row = rows.row[threadIdx.y];
    uint8_t *out = p.op.out + rows.b[threadIdx.y] * p.op.out_stride[0] + row.i * p.op.out_stride[1];
#pragma unroll 1
    for (int step = 0; step < p.tiles.steps; step++) {
        const int64_t n = rwi_tile_column(column, step, 1);
        if (n < p.tiles.columns)
            out[n] = (uint8_t)rwi_find_visible<8, CELLS>(p.op.pattern, row, (int32_t)(8 * n));
    }
}

static __global__ void __launch_bounds__(RWI_BLOCK)
    positions_kernel(rw_pattern_positions_params p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    const int64_t token = rwi_item();
    rwi_bad_id bad;
    if (token < p.batch * p.seq && !pattern_positions_token(&p, token, &bad))
        rwi_fault_raise(sink, token, bad);
}

template <rw_dtype D, int VEC>
static rw_status launch_fill(rwi_device *device, const rw_pattern_fill_params &op) {
    rwi_tiled<rw_pattern_fill_params> p = {op, {pattern_fill_work(&op).items, op.pattern.seq_k, 0}};
    const rwi_launch_shape shape =
        rwi_launch_row_tiles(RWI_OP_pattern_fill, VEC, RWI_TILE_MAX_STEPS, &p.tiles);
    if (rwi_pattern_has_cells(&op.pattern))
        return rwi_launch(device, shape, fill_kernel<D, VEC, true>, p);
    return rwi_launch(device, shape, fill_kernel<D, VEC, false>, p);
}

extern "C" rw_status rwi_hip_pattern_fill(rwi_device *device, const rw_pattern_fill_params *p) {
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        if (rwi_rows_are_vectors(D, {p->out, p->out_stride, 2, p->pattern.seq_k}))
            return launch_fill<D, rwi_vector_length<D>>(device, *p);
        return launch_fill<D, 1>(device, *p);
    });
}

extern "C" rw_status rwi_hip_pattern_fill_bits(rwi_device *device,
                                               const rw_pattern_fill_bits_params *op) {
    rwi_tiled<rw_pattern_fill_bits_params> p = {
        *op, {pattern_fill_bits_work(op).items, rwi_ceil_div(op->pattern.seq_k, 8), 0}};
    const rwi_launch_shape shape =
        rwi_launch_row_tiles(RWI_OP_pattern_fill_bits, 1, RWI_TILE_MAX_STEPS, &p.tiles);
    if (rwi_pattern_has_cells(&op->pattern))
        return rwi_launch(device, shape, fill_bits_kernel<true>, p);
    return rwi_launch(device, shape, fill_bits_kernel<false>, p);
}

extern "C" rw_status rwi_hip_pattern_positions(rwi_device *device,
                                               const rw_pattern_positions_params *p) {
    return rwi_launch(device,
                      rwi_launch_items(RWI_OP_pattern_positions, pattern_positions_work(p).items),
                      positions_kernel, *p);
}
