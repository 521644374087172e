/* Products of few rows with many, on the CPU: nothing is packed or transposed but the few.
 *
 * A register holds four words of each of several rows: quad r is of row r. */
#ifndef RWI_FEW_CPU_H
#define RWI_FEW_CPU_H

#include "convert_cpu.h"
#include "tile_cpu.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* Rows in a register. */
#define RWI_FEW_ROWS (RWI_LANES / 4)

/* Other rows of a block, and how long they may be. */
#define RWI_FEW_KEYS 8
#define RWI_FEW_MAX_WORDS 256

/* Four words, in each quad. */
RWI_INLINE rwi_lanes rwi_few_repeat(const rwi_word *x) {
#if defined(__AVX512F__)
    return (rwi_lanes)_mm512_broadcast_f32x4(_mm_loadu_ps((const float *)x));
#elif defined(__AVX__)
    return (rwi_lanes)_mm256_broadcast_ps((const __m128 *)(const void *)x);
#else
    return (rwi_lanes){x[0], x[1], x[2], x[3]};
#endif
}

/* Number k of quad r is the sum of x[k]'s quad r. */
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

/* ---- few rows times transposed keys --------------------------------------------------------- */

/* few: [groups of RWI_FEW_ROWS rows][words / 4][RWI_LANES], c: [rows of the groups][c_row]. */
typedef struct rwi_few_product {
    const float *few;
    const void *const *keys; /* a multiple of RWI_FEW_KEYS */
    float *c;
    int64_t c_row;
    int64_t groups;
    int64_t num_keys;
    int64_t words;           /* a multiple of 4 */
    const void *const *next; /* rows that are read after the keys, as many and as long */
} rwi_few_product;

/* Where a row's words lie in `few`, four of them together: word 4 * n at the result +
 * n * RWI_LANES. */
RWI_INLINE int64_t rwi_few_place(int64_t row, int64_t words) {
    return row / RWI_FEW_ROWS * RWI_FEW_ROWS * words + row % RWI_FEW_ROWS * 4;
}

RWI_INLINE void rwi_few_block(const rwi_few_product *t, bool pairs,
                              const rwi_word *const keys[RWI_FEW_KEYS], int64_t group, float *c) {
    const float *few = t->few + group * RWI_FEW_ROWS * t->words;
    rwi_lanes sum[RWI_FEW_KEYS];
#pragma GCC unroll 8
    for (int k = 0; k < RWI_FEW_KEYS; k++)
        sum[k] = rwi_lanes_of(0.0f);
    for (int64_t w = 0; w < t->words; w += 4) {
        rwi_lanes x = *(const rwi_lanes *)(few + w * RWI_FEW_ROWS);
#pragma GCC unroll 8
        for (int k = 0; k < RWI_FEW_KEYS; k++)
            sum[k] = rwi_tile_add(pairs, sum[k], rwi_few_repeat(keys[k] + w), x);
    }
#pragma GCC unroll 8
    for (int k = 0; k < RWI_FEW_KEYS; k += 4) {
        rwi_lanes sums = rwi_few_sums(sum + k);
        for (int r = 0; r < RWI_FEW_ROWS; r++)
            memcpy(c + (group * RWI_FEW_ROWS + r) * t->c_row + k, (const float *)&sums + 4 * r,
                   4 * sizeof(float));
    }
}

/* Asks for bytes [begin, end) of a row, to be there when they are read: what follows in memory
 * comes by itself, but not across pages, and not while something else is computed. */
RWI_INLINE void rwi_few_fetch(const void *row, int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += 64)
        __builtin_prefetch((const char *)row + at);
}

/* c[i][n] = dot of row i of the few with key n. */
RWI_INLINE void rwi_few_multiply(const rwi_few_product *t, rw_dtype dtype, bool pairs) {
    const rwi_word *keys[RWI_FEW_KEYS];
    _Alignas(64) float lines[RWI_FEW_KEYS * RWI_FEW_MAX_WORDS];
    for (int64_t n = 0; n < t->num_keys; n += RWI_FEW_KEYS) {
        bool words = dtype == RW_F32 || pairs, last = n + RWI_FEW_KEYS == t->num_keys;
        for (int k = 0; k < RWI_FEW_KEYS; k++) {
            float *line = lines + k * RWI_FEW_MAX_WORDS;
            keys[k] = words ? (const rwi_word *)t->keys[n + k] : line;
            if (!words)
                rwi_load_many(dtype, t->keys[n + k], t->words, line);
        }
        const void *const *next = last ? t->next : t->keys + n + RWI_FEW_KEYS;
        for (int k = 0; k < RWI_FEW_KEYS; k++)
            rwi_few_fetch(next[k], 0, t->words * (words ? 4 : 2));
        for (int64_t group = 0; group < t->groups; group++)
            rwi_few_block(t, pairs, keys, group, t->c + n);
    }
}

/* ---- few rows of weights times values ------------------------------------------------------- */

/* A block: 4 x 4 registers of 32, 4 x 2 of 16. */
#if defined(__AVX512F__)
#define RWI_FEW_VECTORS 4
#else
#define RWI_FEW_VECTORS 2
#endif
#define RWI_FEW_COLUMNS (RWI_FEW_VECTORS * RWI_LANES)

/* c = c * kept + weights * values. */
typedef struct rwi_few_sum {
    const rwi_word *weights; /* [rows][weights_row] words */
    int64_t weights_row;
    const void *const *values; /* a row for each f32 of weights, or each half of a pair */
    float *c;
    int64_t c_row;
    const float *kept;
    int64_t rows;
    int64_t columns; /* of values; those of c are padded to whole RWI_LANES */
    int64_t words;
} rwi_few_sum;

/* Columns [j, j + count) of words: elements of row `word`, or those of row 2 * word beside those of
 * the next row; 0 behind them. */
RWI_INLINE void rwi_few_load(const rwi_few_sum *t, rw_dtype dtype, bool pairs, int64_t word,
                             int64_t j, int64_t count, rwi_lanes x[RWI_FEW_VECTORS]) {
    const void *const *values = t->values + (pairs ? 2 * word : word);
#if defined(__AVX512F__)
    if (pairs && count == RWI_FEW_COLUMNS) {
        __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8,
                                       39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
        __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
        for (int v = 0; v < RWI_FEW_VECTORS; v += 2) {
            __m512i a = _mm512_loadu_si512((const uint16_t *)values[0] + j + v * RWI_LANES);
            __m512i b = _mm512_loadu_si512((const uint16_t *)values[1] + j + v * RWI_LANES);
            x[v] = (rwi_lanes)_mm512_permutex2var_epi16(a, low, b);
            x[v + 1] = (rwi_lanes)_mm512_permutex2var_epi16(a, high, b);
        }
        return;
    }
#endif
    uint32_t line[RWI_FEW_COLUMNS] = {0};
    for (int64_t d = 0; pairs && d < count; d++)
        line[d] = (uint32_t)((const uint16_t *)values[1])[j + d] << 16 |
                  ((const uint16_t *)values[0])[j + d];
    if (!pairs)
        rwi_load_many(dtype, rwi_element(dtype, values[0], j), count, (float *)line);
    memcpy(x, line, sizeof line);
}

/* Rows [i, i + rows) and columns [j, j + count), in `vectors` registers. */
RWI_INLINE void rwi_few_sum_block(const rwi_few_sum *t, rw_dtype dtype, bool pairs, int rows,
                                  int vectors, int64_t i, int64_t j, int64_t count) {
    const int64_t size = (int64_t)rwi_dtype_size(dtype), rows_a_word = pairs ? 2 : 1;
    float *c = t->c + i * t->c_row + j;
    rwi_lanes sum[4][RWI_FEW_VECTORS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[r][v] = t->kept[i + r] * *(const rwi_lanes *)(c + r * t->c_row + v * RWI_LANES);
    for (int64_t w = 0; w < t->words; w++) {
        rwi_lanes x[RWI_FEW_VECTORS];
        rwi_few_load(t, dtype, pairs, w, j, count, x);
        if (i == 0 && j == 0) /* the first to read these rows, but not all of each */
            for (int64_t row = w * rows_a_word; row < (w + 1) * rows_a_word; row++)
                rwi_few_fetch(t->values[row], count * size, t->columns * size);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[r][v] = rwi_tile_add(
                    pairs, sum[r][v], rwi_lanes_of(t->weights[(i + r) * t->weights_row + w]), x[v]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            *(rwi_lanes *)(c + r * t->c_row + v * RWI_LANES) = sum[r][v];
}

RWI_INLINE void rwi_few_sum_rows(const rwi_few_sum *t, rw_dtype dtype, bool pairs, int rows,
                                 int64_t i) {
    int64_t j = 0;
    for (; j + RWI_FEW_COLUMNS <= t->columns; j += RWI_FEW_COLUMNS)
        rwi_few_sum_block(t, dtype, pairs, rows, RWI_FEW_VECTORS, i, j, RWI_FEW_COLUMNS);
    for (; j < t->columns; j += RWI_LANES)
        rwi_few_sum_block(t, dtype, pairs, rows, 1, i, j, rwi_min(RWI_LANES, t->columns - j));
}

RWI_INLINE void rwi_few_add(const rwi_few_sum *t, rw_dtype dtype, bool pairs) {
    int64_t i = 0;
    for (; i + 4 <= t->rows; i += 4)
        rwi_few_sum_rows(t, dtype, pairs, 4, i);
    for (; i < t->rows; i++)
        rwi_few_sum_rows(t, dtype, pairs, 1, i);
}

#endif
