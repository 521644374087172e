/* Rows divided into tiles, for .hip files whose kernels treat all elements of a row alike.
 *
 * A block has blockDim.y rows, one for each threadIdx.y; each thread takes `steps` vectors of its
 * row.
 */
#ifndef RWI_ROW_TILES_H
#define RWI_ROW_TILES_H

#include "gpu/launch.h"

/* Vectors that a thread loads before it stores, so that the loads overlap. */
#define RWI_TILE_STEPS 4

/* The maximum number of vectors of a thread that only stores: the per-row work of a block is shared
 * by all of them. There are fewer where the grid would be too small to occupy the GPU. */
#define RWI_TILE_MAX_STEPS 16
#define RWI_TILE_BLOCKS 1024

/* The maximum number of rows of a block, hence at least 256 / 32 threads per row. */
#define RWI_TILE_ROWS 32

typedef struct rwi_row_tiles {
    int64_t rows;
    int64_t columns;
    int32_t steps;
} rwi_row_tiles;

/* The parameters of an operation and the tiling of its rows. */
template <typename Params> struct rwi_tiled {
    Params op;
    rwi_row_tiles tiles;
};

/* Divides rows and columns; max_steps is RWI_TILE_MAX_STEPS, or the vectors that a thread loads
 * before it stores. */
static inline rwi_launch_shape rwi_launch_row_tiles(rwi_op op, int vec, int max_steps,
                                                    rwi_row_tiles *tiles) {
    const int64_t vectors = rwi_ceil_div(tiles->columns, vec);
    const int64_t share = tiles->rows * vectors / ((int64_t)RWI_BLOCK * RWI_TILE_BLOCKS);
    tiles->steps = (int32_t)rwi_min(max_steps, rwi_max(RWI_TILE_STEPS, share));
    const int64_t threads = rwi_ceil_div(vectors, tiles->steps);
    uint32_t x = RWI_BLOCK / RWI_TILE_ROWS;
    while (x < threads && x < RWI_BLOCK)
        x *= 2;
    const uint32_t y = RWI_BLOCK / x;
    const int64_t blocks = rwi_ceil_div(threads, x);
    if (blocks > 1) /* equal shares */
        x = (uint32_t)rwi_ceil_div(rwi_ceil_div(threads, blocks), 32) * 32;
    return rwi_launch_lines(op, rwi_ceil_div(tiles->rows, y), blocks, dim3(x, y));
}

/* The row of this thread and its first column; false where there is none. */
template <int VEC>
__device__ static inline bool rwi_tile_place(const rwi_row_tiles &tiles, int64_t *row,
                                             int64_t *column) {
    *row = rwi_block_line() * blockDim.y + threadIdx.y;
    *column = ((int64_t)blockIdx.x * tiles.steps * blockDim.x + threadIdx.x) * VEC;
    return *row < tiles.rows;
}

/* The first column of vector `step` of this thread, from that of its first vector. */
__device__ static inline int64_t rwi_tile_column(int64_t column, int step, int vec) {
    return column + (int64_t)step * blockDim.x * vec;
}

/* Index of the thread in the block. The first threads, adjacent in one wave, each find one row of
 * the block. */
__device__ static inline uint32_t rwi_thread_of_block() {
    return threadIdx.y * blockDim.x + threadIdx.x;
}

#endif
