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
#define RWI_FEW_MAX_WORDS 256

/* Four words, repeated in every quad. */
RWI_INLINE rwi_lanes rwi_few_repeat(const float *x) {
#if defined(__AVX512F__)
    return (rwi_lanes)_mm512_broadcast_f32x4(_mm_loadu_ps(x));
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

/* few: [groups of RWI_FEW_ROWS rows][words / 4][RWI_LANES], c: [rows of the groups][c_row]. */
typedef struct rwi_few_product {
    const float *few;
    const void *const *keys;
    float *c;
    int64_t c_row;
    int64_t groups;
    int64_t num_keys; /* a multiple of RWI_FEW_KEYS */
    int64_t words;    /* a multiple of 4 */
} rwi_few_product;

/* Offset of a row in `few`, in groups of four words: word 4 * n is at the result + n * RWI_LANES.
 */
RWI_INLINE int64_t rwi_few_place(int64_t row, int64_t words) {
    return row / RWI_FEW_ROWS * RWI_FEW_ROWS * words + row % RWI_FEW_ROWS * 4;
}

/* `keys`: rows of RWI_FEW_MAX_WORDS words. */
RWI_INLINE void rwi_few_block(const rwi_few_product *t, bool pairs, const float *keys,
                              int64_t group, float *c) {
    const float *few = t->few + group * RWI_FEW_ROWS * t->words;
    rwi_lanes sum[RWI_FEW_KEYS];
#pragma GCC unroll 8
    for (int k = 0; k < RWI_FEW_KEYS; k++)
        sum[k] = rwi_lanes_of(0.0f);
    for (int64_t w = 0; w < t->words; w += 4) {
        rwi_lanes x = *(const rwi_lanes *)(few + w * RWI_FEW_ROWS);
#pragma GCC unroll 8
        for (int k = 0; k < RWI_FEW_KEYS; k++)
            sum[k] =
                rwi_tile_add(pairs, sum[k], rwi_few_repeat(keys + k * RWI_FEW_MAX_WORDS + w), x);
    }
#pragma GCC unroll 8
    for (int k = 0; k < RWI_FEW_KEYS; k += 4) {
        rwi_lanes sums = rwi_few_sums(sum + k);
        for (int r = 0; r < RWI_FEW_ROWS; r++)
            memcpy(c + (group * RWI_FEW_ROWS + r) * t->c_row + k, (const float *)&sums + 4 * r,
                   4 * sizeof(float));
    }
}

/* Copies words, a multiple of 4. Loads of 32 bytes read memory faster than loads of 64. */
RWI_INLINE void rwi_few_copy(const void *from, int64_t words, float *to) {
    int64_t w = 0;
    for (; w + 8 <= words; w += 8)
        memcpy(to + w, (const char *)from + w * 4, 32);
    if (w < words)
        memcpy(to + w, (const char *)from + w * 4, 16);
}

/* c[i][n] = dot product of row i of the few with key n. Keys are copied one after another, although
 * they could be multiplied in place: sequential copies read memory faster. */
RWI_INLINE void rwi_few_multiply(const rwi_few_product *t, rw_dtype dtype, bool pairs) {
    _Alignas(64) float keys[RWI_FEW_KEYS * RWI_FEW_MAX_WORDS];
    for (int64_t n = 0; n < t->num_keys; n += RWI_FEW_KEYS) {
        for (int k = 0; k < RWI_FEW_KEYS; k++) {
            float *key = keys + k * RWI_FEW_MAX_WORDS;
            if (pairs || dtype == RW_F32)
                rwi_few_copy(t->keys[n + k], t->words, key);
            else
                rwi_load_many(dtype, t->keys[n + k], t->words, key);
        }
        for (int64_t group = 0; group < t->groups; group++)
            rwi_few_block(t, pairs, keys, group, t->c + n);
    }
}

#endif
