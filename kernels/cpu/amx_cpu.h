/* Products of bf16 in the tile registers of Intel AMX: blocks of 32 x 32 results.
 *
 *   RWI_TILES  1: the instructions, 2: plain C in their place, for tests on processors that lack
 *              them; undefined: neither
 *
 * A block is a[2] times b[2]: a[i] has 16 rows of 32 bf16, b[j] 16 rows of 16 pairs: pair (k, n) is
 * elements 2k and 2k + 1 of column n. Strides are in bytes. Subnormal bf16 count as 0.
 */
#ifndef RWI_AMX_CPU_H
#define RWI_AMX_CPU_H

#include "shared/dtype.h"

#define RWI_AMX_ROWS 16  /* of a tile, and its columns of f32 */
#define RWI_AMX_BLOCK 32 /* rows and columns of results, and bf16 of a row of a */

/* What a kernel keeps while it uses tiles. */
typedef struct rwi_amx {
#if defined(RWI_TILES) && RWI_TILES == 2
    uint16_t a[2][RWI_AMX_ROWS][RWI_AMX_BLOCK];
    uint16_t b[2][RWI_AMX_ROWS][RWI_AMX_BLOCK];
    float c[2][2][RWI_AMX_ROWS][RWI_AMX_ROWS];
#else
    char nothing; /* the processor has the tiles; C has no empty struct */
#endif
} rwi_amx;

#if defined(RWI_TILES) && RWI_TILES == 1

/* Tiles 0 to 3 are the results, 4 and 5 are a, 6 and 7 are b. Instructions in place of intrinsics,
 * which do not all declare the memory that they read. */

/* Shapes the tiles of this thread. */
RWI_INLINE void rwi_amx_begin(rwi_amx *t) {
    (void)t;
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        shape.row_bytes[tile] = 64;
        shape.rows[tile] = RWI_AMX_ROWS;
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(shape) : "memory");
}

RWI_INLINE void rwi_amx_end(rwi_amx *t) {
    (void)t;
    __asm__ volatile("tilerelease" ::: "memory");
}

RWI_INLINE void rwi_amx_zero(rwi_amx *t) {
    (void)t;
    __asm__ volatile("tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3" ::
                         : "memory");
}

RWI_INLINE void rwi_amx_load_a(rwi_amx *t, int i, const void *rows, int64_t stride) {
    (void)t;
    if (i == 0)
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm4" ::"r"(rows), "r"(stride) : "memory");
    else
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm5" ::"r"(rows), "r"(stride) : "memory");
}

RWI_INLINE void rwi_amx_load_b(rwi_amx *t, int j, const void *rows, int64_t stride) {
    (void)t;
    if (j == 0)
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm6" ::"r"(rows), "r"(stride) : "memory");
    else
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm7" ::"r"(rows), "r"(stride) : "memory");
}

/* Adds the products of what was loaded. */
RWI_INLINE void rwi_amx_multiply(rwi_amx *t) {
    (void)t;
    __asm__ volatile("tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\ttdpbf16ps %%tmm7, %%tmm4, %%tmm1\n\t"
                     "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n\ttdpbf16ps %%tmm7, %%tmm5, %%tmm3" ::
                         : "memory");
}

/* The same for 16 columns: b[0] alone. The other columns stay as they are. */
RWI_INLINE void rwi_amx_multiply_columns(rwi_amx *t) {
    (void)t;
    __asm__ volatile("tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n\ttdpbf16ps %%tmm6, %%tmm5, %%tmm2" ::
                         : "memory");
}

/* Writes the four tiles of results to rows of f32. */
RWI_INLINE void rwi_amx_store(rwi_amx *t, float *rows, int64_t stride) {
    (void)t;
    char *low = (char *)rows + RWI_AMX_ROWS * stride;
    __asm__ volatile("tilestored %%tmm0, (%0,%2,1)\n\ttilestored %%tmm1, 64(%0,%2,1)\n\t"
                     "tilestored %%tmm2, (%1,%2,1)\n\ttilestored %%tmm3, 64(%1,%2,1)" ::"r"(rows),
                     "r"(low), "r"(stride)
                     : "memory");
}

#elif defined(RWI_TILES)

RWI_INLINE void rwi_amx_begin(rwi_amx *t) {
    memset(t, 0, sizeof *t);
}

RWI_INLINE void rwi_amx_end(rwi_amx *t) {
    memset(t, 0, sizeof *t);
}

RWI_INLINE void rwi_amx_zero(rwi_amx *t) {
    memset(t->c, 0, sizeof t->c);
}

RWI_INLINE void rwi_amx_load_a(rwi_amx *t, int i, const void *rows, int64_t stride) {
    for (int r = 0; r < RWI_AMX_ROWS; r++)
        memcpy(t->a[i][r], (const char *)rows + r * stride, sizeof t->a[i][r]);
}

RWI_INLINE void rwi_amx_load_b(rwi_amx *t, int j, const void *rows, int64_t stride) {
    for (int r = 0; r < RWI_AMX_ROWS; r++)
        memcpy(t->b[j][r], (const char *)rows + r * stride, sizeof t->b[j][r]);
}

RWI_INLINE float rwi_amx_element(uint16_t bits) {
    return (bits & 0x7F80u) != 0 ? rwi_bf16_to_f32(bits) : 0.0f;
}

/* c[16][16] += a * b; subnormal sums become 0. */
RWI_INLINE void rwi_amx_multiply_tile(float c[RWI_AMX_ROWS][RWI_AMX_ROWS],
                                      uint16_t a[RWI_AMX_ROWS][RWI_AMX_BLOCK],
                                      uint16_t b[RWI_AMX_ROWS][RWI_AMX_BLOCK]) {
    for (int m = 0; m < RWI_AMX_ROWS; m++) {
        for (int k = 0; k < RWI_AMX_ROWS; k++)
#pragma omp simd
            for (int n = 0; n < RWI_AMX_ROWS; n++)
                c[m][n] += rwi_amx_element(a[m][2 * k]) * rwi_amx_element(b[k][2 * n]) +
                           rwi_amx_element(a[m][2 * k + 1]) * rwi_amx_element(b[k][2 * n + 1]);
        for (int n = 0; n < RWI_AMX_ROWS; n++)
            c[m][n] = fabsf(c[m][n]) < 0x1p-126f ? 0.0f : c[m][n]; /* NaN is kept */
    }
}

RWI_INLINE void rwi_amx_multiply(rwi_amx *t) {
    for (int i = 0; i < 4; i++)
        rwi_amx_multiply_tile(t->c[i / 2][i % 2], t->a[i / 2], t->b[i % 2]);
}

RWI_INLINE void rwi_amx_multiply_columns(rwi_amx *t) {
    for (int i = 0; i < 2; i++)
        rwi_amx_multiply_tile(t->c[i][0], t->a[i], t->b[0]);
}

RWI_INLINE void rwi_amx_store(rwi_amx *t, float *rows, int64_t stride) {
    for (int r = 0; r < RWI_AMX_BLOCK; r++)
        for (int j = 0; j < 2; j++)
            memcpy((char *)rows + r * stride + j * 64, t->c[r / RWI_AMX_ROWS][j][r % RWI_AMX_ROWS],
                   64);
}

#endif

#endif
