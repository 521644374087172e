/* Products of small matrices in registers, on the CPU. */
#ifndef RWI_TILE_CPU_H
#define RWI_TILE_CPU_H

#include "shared/kernel.h"

/* Floats in a register, and rows of a block: 8 x 2 of 32 registers are sums, or 6 x 2 of 16. */
#if defined(__AVX512F__)
#define RWI_LANES 16
#define RWI_TILE_ROWS 8
#elif defined(__AVX__)
#define RWI_LANES 8
#define RWI_TILE_ROWS 6
#else
#define RWI_LANES 4
#define RWI_TILE_ROWS 6
#endif
#define RWI_TILE_VECTORS 2

/* Columns are padded to a multiple of this, for every instruction set. */
#define RWI_TILE_PAD 16

/* An f32, or two consecutive bf16, at any address. */
typedef float rwi_word __attribute__((aligned(2), may_alias));

typedef float rwi_lanes __attribute__((vector_size(RWI_LANES * 4), aligned(4), may_alias));

typedef int32_t rwi_lane_bits __attribute__((vector_size(RWI_LANES * 4), aligned(4), may_alias));

RWI_INLINE rwi_lanes rwi_lanes_of(float x) {
#if RWI_LANES == 16
    return (rwi_lanes){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#elif RWI_LANES == 8
    return (rwi_lanes){x, x, x, x, x, x, x, x};
#else
    return (rwi_lanes){x, x, x, x};
#endif
}

/* Element (i, k) of a is a_rows[i][k * a_depth], and row k of b starts at b_rows[k]. Without a_rows
 * or b_rows, rows are a_row or b_row apart. */
typedef struct rwi_tile_product {
    const rwi_word *a;
    const rwi_word *const *a_rows;
    int64_t a_row;
    int64_t a_depth;
    const float *b;
    const float *const *b_rows;
    int64_t b_row;
    float *c; /* rows of b and c are padded to a multiple of RWI_TILE_PAD */
    int64_t c_row;
    float *c_rest;     /* as c: rwi_sum_join() adds the product to c; NULL: c is overwritten */
    const float *kept; /* factors of the rows of c and c_rest before the addition; NULL: 1 */
    int64_t rows;
    int64_t columns;
    int64_t depth;
    bool pairs; /* words are two bf16, whose products are summed; requires rwi_tile_has_pairs() */
} rwi_tile_product;

/* Whether the processor multiplies pairs of bf16: checked at run time, since x86-64-v4 does not
 * include it. */
static inline bool rwi_tile_has_pairs(void) {
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

/* sum + a * b. */
RWI_INLINE rwi_lanes rwi_tile_add(bool pairs, rwi_lanes sum, rwi_lanes a, rwi_lanes b) {
#if defined(__AVX512F__)
    if (pairs) { /* an intrinsic would require a compiler flag for the instruction */
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
        return sum;
    }
#endif
    (void)pairs;
    return sum + a * b;
}

/* Vector `v` from column `j` on of a row of c or of c_rest. */
RWI_INLINE rwi_lanes *rwi_tile_lanes(const rwi_tile_product *t, float *c, int64_t row, int64_t j,
                                     int v) {
    return (rwi_lanes *)(c + row * t->c_row + j + v * RWI_LANES);
}

/* rwi_sum_join() for vectors. */
RWI_INLINE void rwi_tile_store(const rwi_tile_product *t, int64_t row, int64_t j, int v,
                               rwi_lanes part) {
    rwi_lanes *c = rwi_tile_lanes(t, t->c, row, j, v);
    if (!t->c_rest) {
        *c = part;
        return;
    }
    rwi_lanes sum = *c;
    if (t->kept)
        sum *= t->kept[row];
    rwi_lanes joined = sum + part, rest = part - (joined - sum);
    rwi_lane_bits bits = (rwi_lane_bits)rest & (rwi_lane_bits)(rest - rest == 0.0f);
    *c = joined;
    *rwi_tile_lanes(t, t->c_rest, row, j, v) = (rwi_lanes)bits;
}

/* A block of constant size; each sum is accumulated over k in order. */
RWI_INLINE void rwi_tile_block(const rwi_tile_product *t, int rows, int vectors, int64_t i,
                               int64_t j) {
    rwi_lanes sum[RWI_TILE_ROWS][2 * RWI_TILE_VECTORS];
    const rwi_word *a[RWI_TILE_ROWS], *first = t->a_rows ? NULL : t->a + i * t->a_row;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        a[r] = t->a_rows ? t->a_rows[i + r] : NULL;
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            sum[r][v] = rwi_lanes_of(0.0f);
            if (t->c_rest)
                sum[r][v] = *rwi_tile_lanes(t, t->c_rest, i + r, j, v);
            if (t->kept)
                sum[r][v] *= t->kept[i + r];
        }
    }
    for (int64_t k = 0; k < t->depth; k++) {
        const float *b = (t->b_rows ? t->b_rows[k] : t->b + k * t->b_row) + j;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            /* Without lists, one pointer and constant distances save registers. */
            const rwi_word *at = t->a_rows ? a[r] : first + r * t->a_row;
            rwi_lanes x = rwi_lanes_of(at[k * t->a_depth]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++)
                sum[r][v] =
                    rwi_tile_add(t->pairs, sum[r][v], x, *(const rwi_lanes *)(b + v * RWI_LANES));
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            rwi_tile_store(t, i + r, j, v, sum[r][v]);
}

RWI_INLINE void rwi_tile_rows(const rwi_tile_product *t, int rows, int64_t i) {
    int64_t j = 0;
    if (RWI_LANES == 16 && rows <= 4) /* as many sums as with more rows */
        for (; j + 2 * RWI_TILE_VECTORS * RWI_LANES <= t->columns;
             j += 2 * RWI_TILE_VECTORS * RWI_LANES)
            rwi_tile_block(t, rows, 2 * RWI_TILE_VECTORS, i, j);
    for (; j + RWI_TILE_VECTORS * RWI_LANES <= t->columns; j += RWI_TILE_VECTORS * RWI_LANES)
        rwi_tile_block(t, rows, RWI_TILE_VECTORS, i, j);
    for (; j < t->columns; j += RWI_LANES)
        rwi_tile_block(t, rows, 1, i, j);
}

/* c = a * b, or c = c * kept + a * b. Inlined, so that the branches on optional parts are resolved
 * at compile time. */
RWI_INLINE void rwi_tile_multiply(const rwi_tile_product *t) {
    int64_t i = 0;
    for (; i + RWI_TILE_ROWS <= t->rows; i += RWI_TILE_ROWS)
        rwi_tile_rows(t, RWI_TILE_ROWS, i);
    if (i + 4 <= t->rows) {
        rwi_tile_rows(t, 4, i);
        i += 4;
    }
    if (i + 2 <= t->rows) {
        rwi_tile_rows(t, 2, i);
        i += 2;
    }
    if (i < t->rows)
        rwi_tile_rows(t, 1, i);
}

#endif
