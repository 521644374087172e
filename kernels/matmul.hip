/* The matrix products before and after the softmax, on a GPU; the twin of matmul_cpu.c. A block
 * computes a tile of 64 x 64, each thread 4 x 4 of it, from slices of both matrices in shared
 * memory. */
#include "gpu/dispatch.h"
#include "gpu/launch.h"
#include "matmul_params.h"
#include "shared/sum.h"

#define TILE RWI_MATMUL_TILE
#define DEPTH 16 /* of a slice */
#define EACH 4   /* rows and columns of a thread */
#define STEP 128 /* of k: products that are summed separately before they are added */
#define PITCH (TILE + 4)

/* Rows [row, row + TILE) and columns [k, k + DEPTH) of a matrix whose rows run along k, as
 * [DEPTH][TILE]; 0 outside the matrix. */
template <rw_dtype D>
__device__ static inline void load_along_k(const void *data, int64_t stride, int64_t row,
                                           int64_t rows, int64_t k, int64_t depth,
                                           float (&slice)[DEPTH][PITCH]) {
    const int column = (int)threadIdx.x % DEPTH;
#pragma unroll
    for (int n = 0; n < TILE * DEPTH / RWI_BLOCK; n++) {
        const int at = (int)threadIdx.x / DEPTH + n * (RWI_BLOCK / DEPTH);
        const bool inside = row + at < rows && k + column < depth;
        slice[column][at] = inside ? rwi_load(D, data, (row + at) * stride + k + column) : 0.0f;
    }
}

/* Rows [k, k + DEPTH) and columns [column, column + TILE) of a matrix whose columns run along k. */
template <rw_dtype D>
__device__ static inline void load_across_k(const void *data, int64_t stride, int64_t column,
                                            int64_t columns, int64_t k, int64_t depth,
                                            float (&slice)[DEPTH][PITCH]) {
    const int at = (int)threadIdx.x % TILE;
#pragma unroll
    for (int n = 0; n < TILE * DEPTH / RWI_BLOCK; n++) {
        const int row = (int)threadIdx.x / TILE + n * (RWI_BLOCK / TILE);
        const bool inside = k + row < depth && column + at < columns;
        slice[row][at] = inside ? rwi_load(D, data, (k + row) * stride + column + at) : 0.0f;
    }
}

/* The position of a block's tile. */
struct tile_place {
    rwi_matmul_head head;
    int64_t m;
    int64_t n;
};

__device__ static inline tile_place find_tile(const rwi_matmul &p, int64_t block) {
    int64_t rest, m, n, b, h;
    rwi_split_index(block, rwi_ceil_div(p.n, TILE), &rest, &n);
    rwi_split_index(rest, rwi_ceil_div(p.m, TILE), &rest, &m);
    rwi_split_index(rest, p.heads, &b, &h);
    return {rwi_matmul_find(&p, b, h), m * TILE, n * TILE};
}

__device__ static inline void join(float (&sum)[EACH][EACH], float (&part)[EACH][EACH]) {
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++)
            rwi_sum_join(&sum[i][j], &part[i][j]);
}

template <rw_dtype A, rw_dtype B, bool TRANSPOSED>
static __global__ void __launch_bounds__(RWI_BLOCK) matmul_kernel(rwi_matmul p, rwi_fault_sink) {
    rwi_begin_kernel();
    __shared__ float a[DEPTH][PITCH];
    __shared__ float b[DEPTH][PITCH];
    const int64_t block = rwi_block_row();
    if (block >= p.batch * p.heads * rwi_ceil_div(p.m, TILE) * rwi_ceil_div(p.n, TILE))
        return;
    const tile_place at = find_tile(p, block);
    const int row = (int)threadIdx.x / (TILE / EACH) * EACH;
    const int column = (int)threadIdx.x % (TILE / EACH) * EACH;
    float sum[EACH][EACH] = {}, part[EACH][EACH] = {};
#pragma unroll 1
    for (int64_t k = 0; k < p.k; k += DEPTH) {
        load_along_k<A>(at.head.a, p.a_stride[2], at.m, p.m, k, p.k, a);
        if constexpr (TRANSPOSED)
            load_along_k<B>(at.head.b, p.b_stride[2], at.n, p.n, k, p.k, b);
        else
            load_across_k<B>(at.head.b, p.b_stride[2], at.n, p.n, k, p.k, b);
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++)
                    part[i][j] += a[d][row + i] * b[d][column + j];
        __syncthreads();
        if (k % STEP == STEP - DEPTH || k + DEPTH >= p.k)
            join(sum, part);
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++)
            if (at.m + row + i < p.m && at.n + column + j < p.n)
                rwi_store(p.c_dtype, at.head.c,
                          (at.m + row + i) * p.c_stride[2] + at.n + column + j,
                          sum[i][j] * p.scale);
}

template <bool TRANSPOSED>
static rw_status launch_matmul(rwi_device *device, rwi_op op, const rwi_matmul &p) {
    const int64_t blocks = p.batch * p.heads * rwi_ceil_div(p.m, TILE) * rwi_ceil_div(p.n, TILE);
    const rwi_launch_shape shape = rwi_launch_rows(op, blocks, dim3(RWI_BLOCK));
    return rwi_dispatch_float(device, p.b_dtype, [&](auto dtype) {
        constexpr rw_dtype B = dtype.value;
        if (p.a_dtype == RW_F32)
            return rwi_launch(device, shape, matmul_kernel<RW_F32, B, TRANSPOSED>, p);
        return rwi_launch(device, shape, matmul_kernel<B, B, TRANSPOSED>, p);
    });
}

extern "C" rw_status rwi_hip_qk_matmul(rwi_device *device, const rw_qk_matmul_params *p) {
    return launch_matmul<true>(device, RWI_OP_qk_matmul, *p);
}

extern "C" rw_status rwi_hip_weighted_matmul(rwi_device *device,
                                             const rw_weighted_matmul_params *p) {
    return launch_matmul<false>(device, RWI_OP_weighted_matmul, *p);
}
