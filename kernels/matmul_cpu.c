/* The matrix products before and after the softmax, on the CPU; the twin of matmul.hip. An item is
 * a row of tiles. */
#include "cpu/convert_cpu.h"
#include "matmul_params.h"
#include "cpu/tile_cpu.h"

#define TILE RWI_MATMUL_TILE
#define DEPTH 256 /* of the packed matrices, which fit in the second-level cache */
#define STEP 64   /* of k: products that are summed separately before they are added */

typedef struct tiles {
    float a[TILE * DEPTH];
    float b[DEPTH * TILE];
    float c[TILE * TILE];
    float c_rest[TILE * TILE]; /* remainders of rwi_sum_join() */
    float line[DEPTH];
} tiles;

/* Columns [k, k + depth) of `rows` rows of a. */
RWI_INLINE void pack_a(const rwi_matmul *p, rw_dtype dtype, const void *a, int64_t rows, int64_t k,
                       int64_t depth, tiles *t) {
    for (int64_t i = 0; i < rows; i++)
        rwi_load_many(dtype, rwi_element(dtype, a, i * p->a_stride[2] + k), depth,
                      t->a + i * DEPTH);
}

/* b as [depth][TILE], 0 past its columns. */
RWI_INLINE void pack_b(const rwi_matmul *p, rw_dtype dtype, bool transposed, const void *b,
                       int64_t n, int64_t columns, int64_t k, int64_t depth, tiles *t) {
    if (columns < TILE)
        memset(t->b, 0, sizeof t->b);
    for (int64_t j = 0; transposed && j < columns; j++) {
        rwi_load_many(dtype, rwi_element(dtype, b, (n + j) * p->b_stride[2] + k), depth, t->line);
        for (int64_t i = 0; i < depth; i++)
            t->b[i * TILE + j] = t->line[i];
    }
    for (int64_t i = 0; !transposed && i < depth; i++)
        rwi_load_many(dtype, rwi_element(dtype, b, (k + i) * p->b_stride[2] + n), columns,
                      t->b + i * TILE);
}

static void store_c(const rwi_matmul *p, void *c, int64_t rows, int64_t n, int64_t columns,
                    tiles *t) {
    for (int64_t i = 0; i < rows; i++) {
        float *line = t->c + i * TILE;
        void *out = rwi_element(p->c_dtype, c, i * p->c_stride[2] + n);
#pragma omp simd
        for (int64_t j = 0; j < columns; j++)
            line[j] *= p->scale;
        switch (p->c_dtype) {
        case RW_F32:
            rwi_store_many(RW_F32, out, columns, line);
            break;
        case RW_F16:
            rwi_store_many(RW_F16, out, columns, line);
            break;
        case RW_BF16:
            rwi_store_many(RW_BF16, out, columns, line);
            break;
        case RW_I32:
        case RW_I64:
        case RW_U8:
        case RW_F8_E4M3:
        case RW_F8_E5M2:
            break;
        }
    }
}

/* c += a * b */
static void add_product(tiles *t, int64_t rows, int64_t columns, int64_t depth) {
    for (int64_t k = 0; k < depth; k += STEP) {
        rwi_tile_product product = {.a = t->a + k,
                                    .a_row = DEPTH,
                                    .a_depth = 1,
                                    .b = t->b + k * TILE,
                                    .b_row = TILE,
                                    .c = t->c,
                                    .c_rest = t->c_rest,
                                    .c_row = TILE,
                                    .rows = rows,
                                    .columns = columns,
                                    .depth = rwi_min(STEP, depth - k)};
        rwi_tile_multiply(&product);
    }
}

/* Rows [m, m + TILE) of one head. */
RWI_INLINE void multiply_rows(const rwi_matmul *p, rw_dtype a_dtype, rw_dtype b_dtype,
                              bool transposed, const rwi_matmul_head *head, int64_t m) {
    tiles t;
    int64_t rows = rwi_min(TILE, p->m - m);
    const void *a = rwi_element(a_dtype, head->a, m * p->a_stride[2]);
    void *c = rwi_element(p->c_dtype, head->c, m * p->c_stride[2]);
    for (int64_t n = 0; n < p->n; n += TILE) {
        int64_t columns = rwi_min(TILE, p->n - n);
        memset(t.c, 0, sizeof t.c);
        memset(t.c_rest, 0, sizeof t.c_rest);
        for (int64_t k = 0; k < p->k; k += DEPTH) {
            int64_t depth = rwi_min(DEPTH, p->k - k);
            pack_a(p, a_dtype, a, rows, k, depth, &t);
            pack_b(p, b_dtype, transposed, head->b, n, columns, k, depth, &t);
            add_product(&t, rows, columns, depth);
        }
        store_c(p, c, rows, n, columns, &t);
    }
}

RWI_INLINE void multiply(const rwi_matmul *p, rw_dtype a_dtype, rw_dtype b_dtype, bool transposed,
                         int64_t begin, int64_t end) {
    int64_t tiles_a_head = rwi_ceil_div(p->m, TILE);
    for (int64_t item = begin; item < end; item++) {
        int64_t head = item / tiles_a_head;
        rwi_matmul_head at = rwi_matmul_find(p, head / p->heads, head % p->heads);
        multiply_rows(p, a_dtype, b_dtype, transposed, &at, item % tiles_a_head * TILE);
    }
}

RWI_INLINE void multiply_any(const rwi_matmul *p, bool transposed, int64_t begin, int64_t end) {
    bool wide = p->a_dtype == RW_F32;
    switch (p->b_dtype) {
    case RW_F32:
        multiply(p, RW_F32, RW_F32, transposed, begin, end);
        return;
    case RW_F16:
        multiply(p, wide ? RW_F32 : RW_F16, RW_F16, transposed, begin, end);
        return;
    case RW_BF16:
        multiply(p, wide ? RW_F32 : RW_BF16, RW_BF16, transposed, begin, end);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

void RWI_CPU_KERNEL(qk_matmul)(const rw_qk_matmul_params *p, int64_t begin, int64_t end,
                               rwi_fault_sink *sink) {
    (void)sink;
    multiply_any(p, true, begin, end);
}

void RWI_CPU_KERNEL(weighted_matmul)(const rw_weighted_matmul_params *p, int64_t begin, int64_t end,
                                     rwi_fault_sink *sink) {
    (void)sink;
    multiply_any(p, false, begin, end);
}
