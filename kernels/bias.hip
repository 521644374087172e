/* ALiBi and T5 on a GPU; the twin of bias_cpu.c. */
#include "bias_params.h"
#include "gpu/dispatch.h"
#include "gpu/launch.h"
#include "gpu/row_tiles.h"
#include "gpu/vectors.h"

static __global__ void __launch_bounds__(RWI_BLOCK)
    slopes_kernel(rw_alibi_slopes_params p, rwi_fault_sink) {
    rwi_begin_kernel();
    const int64_t h = rwi_item();
    if (h < p.heads)
        p.out[h] = rwi_alibi_slope(p.first_head + h, p.total_heads);
}

template <rw_dtype D, int VEC>
static __global__ void __launch_bounds__(RWI_BLOCK)
    alibi_kernel(rwi_tiled<rw_alibi_bias_params> p, rwi_fault_sink) {
    rwi_begin_kernel();
    int64_t row, column, h, i;
    if (!rwi_tile_place<VEC>(p.tiles, &row, &column))
        return;
    rwi_split_index(row, p.op.rows.seq_q, &h, &i);
    void *out = rwi_bias_row(&p.op.rows, h, i);
    const float slope = p.op.alibi.slopes[h];
    const int64_t position = i + p.op.alibi.shift;
#pragma unroll 4
    for (int step = 0; step < p.tiles.steps; step++) {
        const int64_t j = rwi_tile_column(column, step, VEC);
        float x[VEC];
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = rwi_alibi_at(p.op.alibi.is_signed, slope, j + n - position);
        if (j < p.tiles.columns)
            rwi_store_vector<D>(out, j, x);
    }
}

/* A block computes T5_ROWS rows of T5's bias, one vector of columns for each thread along x. Its
 * values are constant along T5_ROWS - 1 + columns diagonals, which are looked up once, into shared
 * memory. */
#define T5_ROWS 32
#define T5_X 64
#define T5_Y (RWI_BLOCK / T5_X)

template <rw_dtype D, int VEC>
static __global__ void __launch_bounds__(RWI_BLOCK) t5_kernel(rw_t5_bias_params p, rwi_fault_sink) {
    rwi_begin_kernel();
    __shared__ float diagonals[T5_ROWS - 1 + T5_X * VEC];
    const int64_t row_tiles = rwi_ceil_div(p.rows.seq_q, T5_ROWS);
    const int64_t column_tiles = rwi_ceil_div(p.rows.seq_k, T5_X * VEC);
    int64_t tile, h, row_tile, column_tile;
    rwi_split_index(rwi_block_row(), column_tiles, &tile, &column_tile);
    rwi_split_index(tile, row_tiles, &h, &row_tile);
    if (h >= p.rows.heads)
        return;
    const int64_t first_row = row_tile * T5_ROWS, first_column = column_tile * T5_X * VEC;
    const int64_t lowest = first_column - (first_row + T5_ROWS - 1 + p.rows.shift);
    const int count = T5_ROWS - 1 + T5_X * VEC;
    for (int n = threadIdx.y * T5_X + threadIdx.x; n < count; n += RWI_BLOCK)
        diagonals[n] = rwi_t5_bias_at(&p, h, lowest + n);
    __syncthreads();
    const int64_t column = first_column + threadIdx.x * VEC;
    if (column >= p.rows.seq_k)
        return;
    for (int r = threadIdx.y; r < T5_ROWS && first_row + r < p.rows.seq_q; r += T5_Y) {
        float x[VEC];
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = diagonals[T5_ROWS - 1 - r + (int)threadIdx.x * VEC + n];
        rwi_store_vector<D>(rwi_bias_row(&p.rows, h, first_row + r), column, x);
    }
}

extern "C" rw_status rwi_hip_alibi_slopes(rwi_device *device, const rw_alibi_slopes_params *p) {
    return rwi_launch(device, rwi_launch_items(RWI_OP_alibi_slopes, p->heads), slopes_kernel, *p);
}

static bool has_vectors(const rwi_bias_rows &rows) {
    return rwi_rows_are_vectors(rows.dtype, {rows.out, rows.out_stride, 2, rows.seq_k});
}

template <rw_dtype D, int VEC>
static rw_status launch_alibi(rwi_device *device, const rw_alibi_bias_params &op) {
    rwi_tiled<rw_alibi_bias_params> p = {op, {alibi_bias_work(&op).items, op.rows.seq_k, 0}};
    const rwi_launch_shape shape =
        rwi_launch_row_tiles(RWI_OP_alibi_bias, VEC, RWI_TILE_MAX_STEPS, &p.tiles);
    return rwi_launch(device, shape, alibi_kernel<D, VEC>, p);
}

extern "C" rw_status rwi_hip_alibi_bias(rwi_device *device, const rw_alibi_bias_params *p) {
    return rwi_dispatch_float(device, p->rows.dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        return has_vectors(p->rows) ? launch_alibi<D, rwi_vector_length<D>>(device, *p)
                                    : launch_alibi<D, 1>(device, *p);
    });
}

template <rw_dtype D, int VEC>
static rw_status launch_t5(rwi_device *device, const rw_t5_bias_params &p) {
    const int64_t blocks =
        p.rows.heads * rwi_ceil_div(p.rows.seq_q, T5_ROWS) * rwi_ceil_div(p.rows.seq_k, T5_X * VEC);
    return rwi_launch(device, rwi_launch_rows(RWI_OP_t5_bias, blocks, dim3(T5_X, T5_Y)),
                      t5_kernel<D, VEC>, p);
}

extern "C" rw_status rwi_hip_t5_bias(rwi_device *device, const rw_t5_bias_params *p) {
    return rwi_dispatch_float(device, p->rows.dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        return has_vectors(p->rows) ? launch_t5<D, rwi_vector_length<D>>(device, *p)
                                    : launch_t5<D, 1>(device, *p);
    });
}
