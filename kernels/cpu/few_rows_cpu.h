/* Products of few rows with many, and of their weights with values, on the CPU: only the few rows
 * are packed, and rows are read ahead of time.
 *
 * A register holds four words of each of several rows: quad r belongs to row r.
 */
#ifndef RWI_FEW_ROWS_CPU_H
#define RWI_FEW_ROWS_CPU_H

#include "cpu/lanes_cpu.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* Rows in a register. */
#define RWI_FEW_ROWS (RWI_LANES / 4)

/* The number of keys in a block, and the maximum length of a row. */
#define RWI_FEW_KEYS 8

/* Sums of a row and key that are accumulated independently, as far as registers allow: an
 * instruction that waits for the one before takes longer than eight others. */
#if RWI_LANES == 16
#define RWI_FEW_CHAINS 2
#else
#define RWI_FEW_CHAINS 1
#endif
#define RWI_FEW_MAX_WORDS 576

/* Four words, repeated in every quad. */
RWI_INLINE rwi_lanes rwi_few_repeat(const rwi_word *x) {
#if defined(__AVX512F__)
    return (rwi_lanes)_mm512_broadcast_f32x4(_mm_loadu_ps((const float *)x));
#elif defined(__AVX__)
    return (rwi_lanes)_mm256_broadcast_ps((const __m128 *)(const void *)x);
#else
    return (rwi_lanes){x[0], x[1], x[2], x[3]};
#endif
}

/* Element k of quad r is the sum over quad r of x[k]. */
RWI_INLINE rwi_lanes rwi_few_sums(const rwi_lanes x[4]) {
#if defined(__AVX512F__)
    __m512 a = (__m512)x[0], b = (__m512)x[1], c = (__m512)x[2], d = (__m512)x[3];
    __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b));
    __m512d cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d));
    return (rwi_lanes)(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)) +
                       _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
#elif defined(__AVX__)
    __m256 a = (__m256)x[0], b = (__m256)x[1], c = (__m256)x[2], d = (__m256)x[3];
    __m256d ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b));
    __m256d cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d) + _mm256_unpackhi_ps(c, d));
    return (rwi_lanes)(_mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)) +
                       _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
#else
    rwi_lanes sums;
    for (int k = 0; k < 4; k++)
        sums[k] = (x[k][0] + x[k][2]) + (x[k][1] + x[k][3]);
    return sums;
#endif
}

/* ---- rows that are read next ------------------------------------------------------------------ */

/* Starts to read `bytes` that are needed later into the second-level cache. */
RWI_INLINE void rwi_few_prefetch(const void *data, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)data + i, 0, 2);
}

/* Rows that are read ahead of time, one after another in the order in which memory has them, and at
 * the pace of the computation: a burst of prefetches makes it wait, and memory idles after it. */
typedef struct rwi_few_ahead {
    const void *const *next;
    int64_t bytes; /* of a row */
    int64_t work;  /* done since the last row was started */
    int64_t total; /* for which one row is started */
} rwi_few_ahead;

RWI_INLINE void rwi_few_advance(rwi_few_ahead *ahead, int64_t work) {
    ahead->work += work;
    while (ahead->work >= ahead->total) {
        ahead->work -= ahead->total;
        rwi_few_prefetch(*ahead->next++, ahead->bytes);
    }
}

/* ---- few rows times transposed keys --------------------------------------------------------- */

/* few: [groups of RWI_FEW_ROWS rows][words / 4][RWI_LANES], its words in the order of
 * rwi_lanes_widen(); c: [rows of the groups][c_row]. */
typedef struct rwi_few_product {
    const float *few;
    const void *const *keys;
    const void *const *later; /* as many rows that are read ahead, each of later_bytes */
    int64_t later_bytes;
    float *c;
    int64_t c_row;
    int64_t groups;
    int64_t num_keys; /* a multiple of RWI_FEW_KEYS */
    int64_t words;    /* a multiple of 4 */
    int64_t columns;  /* elements of a row of keys; after them, `few` is 0 */
} rwi_few_product;

/* Offset of a row in `few`, in groups of four words: word 4 * n is at the result + n * RWI_LANES.
 */
RWI_INLINE int64_t rwi_few_place(int64_t row, int64_t words) {
    return row / RWI_FEW_ROWS * RWI_FEW_ROWS * words + row % RWI_FEW_ROWS * 4;
}

/* Keys as f32: in place, or copies at a constant distance, whose addresses need no registers. */
typedef struct rwi_few_keys {
    const rwi_word *rows[RWI_FEW_KEYS];
    const float *copies; /* NULL: rows */
} rwi_few_keys;

/* Keys of a block of sums: as many rows as have their addresses in registers. */
RWI_INLINE int rwi_few_block_keys(bool converted) {
    return converted ? RWI_FEW_KEYS : 4;
}

/* Adds the products of word group `w`. */
RWI_INLINE void rwi_few_add(bool converted, rwi_lanes *sum, const rwi_few_keys *keys, int first,
                            int64_t w, const float *few) {
    const int count = rwi_few_block_keys(converted);
    rwi_lanes x = *(const rwi_lanes *)(few + w * RWI_FEW_ROWS);
#pragma GCC unroll 8
    for (int k = 0; k < count; k++)
        sum[k] += x * rwi_few_repeat(converted ? keys->copies + k * RWI_FEW_MAX_WORDS + w
                                               : keys->rows[first + k] + w);
}

/* Keys from `first` on. */
RWI_INLINE void rwi_few_block(const rwi_few_product *t, bool converted, const rwi_few_keys *keys,
                              int first, int64_t group, float *c, rwi_few_ahead *ahead) {
    enum {
        STEP = 4 * RWI_FEW_CHAINS
    };
    const int count = rwi_few_block_keys(converted);
    const float *few = t->few + group * RWI_FEW_ROWS * t->words;
    rwi_lanes sum[RWI_FEW_CHAINS][RWI_FEW_KEYS];
#pragma GCC unroll 8
    for (int chain = 0; chain < RWI_FEW_CHAINS; chain++)
#pragma GCC unroll 8
        for (int k = 0; k < count; k++)
            sum[chain][k] = rwi_lanes_of(0.0f);
    int64_t w = 0;
    for (; w + STEP <= t->words; w += STEP) {
#pragma GCC unroll 8
        for (int chain = 0; chain < RWI_FEW_CHAINS; chain++)
            rwi_few_add(converted, sum[chain], keys, first, w + 4 * chain, few);
        rwi_few_advance(ahead, STEP * count);
    }
    if (w < t->words) {
        rwi_few_add(converted, sum[0], keys, first, w, few);
        rwi_few_advance(ahead, 4 * count);
    }
#pragma GCC unroll 8
    for (int k = 0; RWI_FEW_CHAINS == 2 && k < count; k++)
        sum[0][k] += sum[RWI_FEW_CHAINS - 1][k];
#pragma GCC unroll 8
    for (int k = 0; k < count; k += 4) {
        rwi_lanes sums = rwi_few_sums(sum[0] + k);
        for (int r = 0; r < RWI_FEW_ROWS; r++)
            memcpy(c + (group * RWI_FEW_ROWS + r) * t->c_row + first + k,
                   (const float *)&sums + 4 * r, 4 * sizeof(float));
    }
}

/* c[i][n] = dot product of row i of the few with key n. `converted`: of copies of the keys as f32. */
RWI_INLINE void rwi_few_multiply(const rwi_few_product *t, rw_dtype dtype, bool converted) {
    _Alignas(64) float copies[RWI_FEW_KEYS][RWI_FEW_MAX_WORDS];
    rwi_few_keys keys = {.copies = converted ? copies[0] : NULL};
    rwi_few_ahead ahead = {t->later, t->later_bytes, 0, t->groups * t->words};
    for (int64_t n = 0; n < t->num_keys; n += RWI_FEW_KEYS) {
        for (int k = 0; k < RWI_FEW_KEYS; k++) {
            keys.rows[k] = t->keys[n + k];
            if (!converted)
                continue;
            rwi_lanes_widen(dtype, t->keys[n + k], t->columns, copies[k]);
            for (int64_t w = t->columns; w < t->words; w++)
                copies[k][w] = 0.0f;
        }
        for (int64_t group = 0; group < t->groups; group++)
            for (int first = 0; first < RWI_FEW_KEYS; first += rwi_few_block_keys(converted))
                rwi_few_block(t, converted, &keys, first, group, t->c + n, &ahead);
    }
}

/* ---- weights of few rows times values --------------------------------------------------------- */

/* Rows and parts of RWI_TWO_LANES columns whose sums are in registers; of one or two rows, twice as
 * many parts. */
#define RWI_FEW_SUM_ROWS 4
#if RWI_LANES == 16
#define RWI_FEW_SUM_PARTS 2
#else
#define RWI_FEW_SUM_PARTS 1
#endif

/* Adds RWI_TWO_LANES sums of a row to c. */
RWI_INLINE void rwi_few_join(const rwi_tile_product *t, rw_dtype dtype, int64_t row, int64_t j,
                             rwi_two_lanes sum) {
    const float kept = t->kept ? t->kept[row] : 1.0f;
    if (dtype == RW_BF16)
        sum = rwi_two_lanes_zip(sum);
    rwi_tile_store(t, row, j, 0, sum.a + *rwi_tile_lanes(t, t->c_rest, row, j, 0) * kept);
    rwi_tile_store(t, row, j, 1, sum.b + *rwi_tile_lanes(t, t->c_rest, row, j, 1) * kept);
}

/* A block of constant size. */
RWI_INLINE void rwi_few_sum_block(const rwi_tile_product *t, const void *const *values,
                                  rw_dtype dtype, int rows, int parts, int64_t i, int64_t j,
                                  rwi_few_ahead *ahead) {
    rwi_two_lanes sum[RWI_FEW_SUM_ROWS][2 * RWI_FEW_SUM_PARTS];
    const rwi_word *weights = t->a + i * t->a_row;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int part = 0; part < parts; part++)
            sum[r][part].a = sum[r][part].b = rwi_lanes_of(0.0f);
    for (int64_t k = 0; k < t->depth; k++) {
        rwi_two_lanes x[2 * RWI_FEW_SUM_PARTS];
        rwi_few_advance(ahead, rows * parts * RWI_TWO_LANES);
#pragma GCC unroll 8
        for (int part = 0; part < parts; part++)
            x[part] =
                rwi_two_lanes_load(dtype, rwi_element(dtype, values[k], j + part * RWI_TWO_LANES));
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const rwi_lanes weight = rwi_lanes_of(weights[r * t->a_row + k]);
#pragma GCC unroll 8
            for (int part = 0; part < parts; part++) {
                sum[r][part].a += weight * x[part].a;
                sum[r][part].b += weight * x[part].b;
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int part = 0; part < parts; part++)
            rwi_few_join(t, dtype, i + r, j + part * RWI_TWO_LANES, sum[r][part]);
}

RWI_INLINE void rwi_few_sum_rows(const rwi_tile_product *t, const void *const *values,
                                 rw_dtype dtype, int rows, int64_t i, int64_t j, int64_t end,
                                 rwi_few_ahead *ahead) {
    const int parts = rows == RWI_FEW_SUM_ROWS ? RWI_FEW_SUM_PARTS : 2 * RWI_FEW_SUM_PARTS;
    for (; j + parts * RWI_TWO_LANES <= end; j += parts * RWI_TWO_LANES)
        rwi_few_sum_block(t, values, dtype, rows, parts, i, j, ahead);
    for (; j < end; j += RWI_TWO_LANES)
        rwi_few_sum_block(t, values, dtype, rows, 1, i, j, ahead);
}

/* As rwi_tile_multiply(), with c_rest, for values of any dtype that are read in place: b is
 * `values`, and t->columns a multiple of RWI_TWO_LANES. Starts to read as many rows of `later`. */
RWI_INLINE void rwi_few_sum(const rwi_tile_product *t, const void *const *values, rw_dtype dtype,
                            const void *const *later, int64_t later_bytes) {
    const int64_t step = 2 * RWI_FEW_SUM_PARTS * RWI_TWO_LANES;
    rwi_few_ahead ahead = {later, later_bytes, 0, t->rows * t->columns};
    for (int64_t j = 0; j < t->columns; j += step) {
        const int64_t end = rwi_min(j + step, t->columns);
        int64_t i = 0;
        for (; i + RWI_FEW_SUM_ROWS <= t->rows; i += RWI_FEW_SUM_ROWS)
            rwi_few_sum_rows(t, values, dtype, RWI_FEW_SUM_ROWS, i, j, end, &ahead);
        if (i + 2 <= t->rows) {
            rwi_few_sum_rows(t, values, dtype, 2, i, j, end, &ahead);
            i += 2;
        }
        if (i < t->rows)
            rwi_few_sum_rows(t, values, dtype, 1, i, j, end, &ahead);
    }
}

#endif
