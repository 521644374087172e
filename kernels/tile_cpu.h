/* Products of small f32 matrices in registers, on the CPU. */
#ifndef RWI_TILE_CPU_H
#define RWI_TILE_CPU_H

#include "kernel.h"

/* Floats in a register, and registers of a row of a block: 4 x 4 of 32 registers, or 4 x 2 of 16.
 */
#if defined(__AVX512F__)
#define RWI_LANES 16
#define RWI_TILE_VECTORS 4
#elif defined(__AVX__)
#define RWI_LANES 8
#define RWI_TILE_VECTORS 2
#else
#define RWI_LANES 4
#define RWI_TILE_VECTORS 2
#endif
#define RWI_TILE_ROWS 4

/* What columns are padded to, whatever the instruction set. */
#define RWI_TILE_PAD 16

typedef float rwi_lanes __attribute__((vector_size(RWI_LANES * 4), aligned(4), may_alias));

/* c[i * c_row + j] += sum over k of a[i * a_row + k] * b[k * b_row + j], with rows of b and c
 * padded to whole RWI_TILE_PAD. */
typedef struct rwi_tile_product {
    const float *a;
    const float *b;
    float *c;
    int64_t a_row;
    int64_t b_row;
    int64_t c_row;
    int64_t rows;
    int64_t columns;
    int64_t depth;
} rwi_tile_product;

/* A block of constant size; each of its sums runs over k in order. */
RWI_INLINE void rwi_tile_block(const rwi_tile_product *t, int rows, int vectors, int64_t i,
                               int64_t j) {
    rwi_lanes sum[RWI_TILE_ROWS][RWI_TILE_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sum[r][v] = *(const rwi_lanes *)(t->c + (i + r) * t->c_row + j + v * RWI_LANES);
    for (int64_t k = 0; k < t->depth; k++) {
        const float *b = t->b + k * t->b_row + j;
        for (int r = 0; r < rows; r++) {
            float a = t->a[(i + r) * t->a_row + k];
            for (int v = 0; v < vectors; v++)
                sum[r][v] += a * *(const rwi_lanes *)(b + v * RWI_LANES);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            *(rwi_lanes *)(t->c + (i + r) * t->c_row + j + v * RWI_LANES) = sum[r][v];
}

RWI_INLINE void rwi_tile_rows(const rwi_tile_product *t, int rows, int64_t i) {
    int64_t j = 0;
    for (; j + RWI_TILE_VECTORS * RWI_LANES <= t->columns; j += RWI_TILE_VECTORS * RWI_LANES)
        rwi_tile_block(t, rows, RWI_TILE_VECTORS, i, j);
    for (; j < t->columns; j += RWI_LANES)
        rwi_tile_block(t, rows, 1, i, j);
}

static inline void rwi_tile_multiply(const rwi_tile_product *t) {
    int64_t i = 0;
    for (; i + RWI_TILE_ROWS <= t->rows; i += RWI_TILE_ROWS)
        rwi_tile_rows(t, RWI_TILE_ROWS, i);
    for (; i < t->rows; i++)
        rwi_tile_rows(t, 1, i);
}

#endif
