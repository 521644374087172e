/* Dot products of few rows with many, on the CPU: only the few rows are packed.
 *
 * A register holds four words of each of several rows: quad r belongs to row r.
 */
#ifndef RWI_FEW_ROWS_CPU_H
#define RWI_FEW_ROWS_CPU_H

#include "cpu/convert_cpu.h"
#include "cpu/tile_cpu.h"

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

/* ---- few rows times transposed keys --------------------------------------------------------- */

/* Starts to read `bytes` that are needed later into the second-level cache. */
RWI_INLINE void rwi_few_prefetch(const void *data, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)data + i, 0, 2);
}

/* few: [groups of RWI_FEW_ROWS rows][words / 4][RWI_LANES], c: [rows of the groups][c_row]. */
typedef struct rwi_few_product {
    const float *few;
    const void *const *keys;
    const void *const *later; /* as many rows that are read next, each of later_bytes */
    int64_t later_bytes;
    float *c;
    int64_t c_row;
    int64_t groups;
    int64_t num_keys; /* a multiple of RWI_FEW_KEYS */
    int64_t words;    /* a multiple of 4 */
    int64_t columns;  /* elements of a row of which a copy is multiplied, or 0 */
} rwi_few_product;

/* Offset of a row in `few`, in groups of four words: word 4 * n is at the result + n * RWI_LANES.
 */
RWI_INLINE int64_t rwi_few_place(int64_t row, int64_t words) {
    return row / RWI_FEW_ROWS * RWI_FEW_ROWS * words + row % RWI_FEW_ROWS * 4;
}

/* Adds the products of word group `w`. */
RWI_INLINE void rwi_few_add(bool pairs, rwi_lanes *sum, const rwi_word *const *keys, int64_t w,
                            const float *few) {
    rwi_lanes x = *(const rwi_lanes *)(few + w * RWI_FEW_ROWS);
#pragma GCC unroll 8
    for (int k = 0; k < RWI_FEW_KEYS; k++)
        sum[k] = rwi_tile_add(pairs, sum[k], rwi_few_repeat(keys[k] + w), x);
}

/* `keys`: RWI_FEW_KEYS rows of words. */
RWI_INLINE void rwi_few_block(const rwi_few_product *t, bool pairs, const rwi_word *const *keys,
                              int64_t group, float *c) {
    const float *few = t->few + group * RWI_FEW_ROWS * t->words;
    rwi_lanes sum[RWI_FEW_CHAINS][RWI_FEW_KEYS];
#pragma GCC unroll 8
    for (int chain = 0; chain < RWI_FEW_CHAINS; chain++)
#pragma GCC unroll 8
        for (int k = 0; k < RWI_FEW_KEYS; k++)
            sum[chain][k] = rwi_lanes_of(0.0f);
    int64_t w = 0;
    for (; w + 4 * RWI_FEW_CHAINS <= t->words; w += 4 * RWI_FEW_CHAINS)
#pragma GCC unroll 8
        for (int chain = 0; chain < RWI_FEW_CHAINS; chain++)
            rwi_few_add(pairs, sum[chain], keys, w + 4 * chain, few);
    if (w < t->words)
        rwi_few_add(pairs, sum[0], keys, w, few);
#pragma GCC unroll 8
    for (int k = 0; RWI_FEW_CHAINS == 2 && k < RWI_FEW_KEYS; k++)
        sum[0][k] += sum[RWI_FEW_CHAINS - 1][k];
#pragma GCC unroll 8
    for (int k = 0; k < RWI_FEW_KEYS; k += 4) {
        rwi_lanes sums = rwi_few_sums(sum[0] + k);
        for (int r = 0; r < RWI_FEW_ROWS; r++)
            memcpy(c + (group * RWI_FEW_ROWS + r) * t->c_row + k, (const float *)&sums + 4 * r,
                   4 * sizeof(float));
    }
}

/* The words of a row, padded with zeros. */
RWI_INLINE void rwi_few_copy(const rwi_few_product *t, rw_dtype dtype, bool pairs, const void *row,
                             float *words) {
    const int64_t whole = t->columns / 8 * (pairs ? 4 : 8);
    for (int64_t w = whole; w < t->words; w++)
        words[w] = 0.0f;
    if (pairs)
        memcpy(words, row, (size_t)t->columns * sizeof(uint16_t));
    else
        rwi_load_many(dtype, row, t->columns, words);
}

/* c[i][n] = dot product of row i of the few with key n. Meanwhile memory reads other rows: without
 * that, it is idle while keys are multiplied. */
RWI_INLINE void rwi_few_multiply(const rwi_few_product *t, rw_dtype dtype, bool pairs) {
    _Alignas(64) float copies[RWI_FEW_KEYS][RWI_FEW_MAX_WORDS];
    const rwi_word *keys[RWI_FEW_KEYS];
    for (int64_t n = 0; n < t->num_keys; n += RWI_FEW_KEYS) {
        for (int k = 0; k < RWI_FEW_KEYS; k++) {
            rwi_few_prefetch(t->later[n + k], t->later_bytes);
            keys[k] = t->keys[n + k];
            if (t->columns == 0)
                continue;
            rwi_few_copy(t, dtype, pairs, t->keys[n + k], copies[k]);
            keys[k] = copies[k];
        }
        for (int64_t group = 0; group < t->groups; group++)
            rwi_few_block(t, pairs, keys, group, t->c + n);
    }
}

#endif
