/* Transposes of small matrices in registers, on the CPU. */
#ifndef RWI_TRANSPOSE_CPU_H
#define RWI_TRANSPOSE_CPU_H

#include "cpu/tile_cpu.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
/* Lane r of columns[k] = lines[r][n + k], for k of 8 and r of 16. */
RWI_INLINE void rwi_transpose(const float *const *lines, int64_t n, __m512 columns[8]) {
    const __m512i low = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0);
    const __m512i high = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
    __m512d part[2][4]; /* columns k and 4 + k of rows 0-3 and 8-11; of rows 4-7 and 12-15 */
    for (int g = 0; g < 2; g++) {
        __m512 x[4];
        for (int i = 0; i < 4; i++)
            x[i] = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(lines[4 * g + i] + n)),
                                      _mm256_loadu_ps(lines[4 * g + i + 8] + n), 1);
        const __m512d ab0 = _mm512_castps_pd(_mm512_unpacklo_ps(x[0], x[1]));
        const __m512d ab1 = _mm512_castps_pd(_mm512_unpackhi_ps(x[0], x[1]));
        const __m512d cd0 = _mm512_castps_pd(_mm512_unpacklo_ps(x[2], x[3]));
        const __m512d cd1 = _mm512_castps_pd(_mm512_unpackhi_ps(x[2], x[3]));
        part[g][0] = _mm512_unpacklo_pd(ab0, cd0);
        part[g][1] = _mm512_unpackhi_pd(ab0, cd0);
        part[g][2] = _mm512_unpacklo_pd(ab1, cd1);
        part[g][3] = _mm512_unpackhi_pd(ab1, cd1);
    }
    for (int k = 0; k < 4; k++) {
        columns[k] = _mm512_castpd_ps(_mm512_permutex2var_pd(part[0][k], low, part[1][k]));
        columns[k + 4] = _mm512_castpd_ps(_mm512_permutex2var_pd(part[0][k], high, part[1][k]));
    }
}
#endif

/* to[k * step + r] += lines[r][n + k] for k of 8 and r of RWI_LANES. */
RWI_INLINE void rwi_add_transposed(const float *const *lines, int64_t n, float *to, int64_t step) {
#if defined(__AVX512F__)
    __m512 columns[8];
    rwi_transpose(lines, n, columns);
    for (int k = 0; k < 8; k++)
        _mm512_storeu_ps(to + k * step, _mm512_add_ps(_mm512_loadu_ps(to + k * step), columns[k]));
#else
    for (int k = 0; k < 8; k++)
        for (int r = 0; r < RWI_LANES; r++)
            to[k * step + r] += lines[r][n + k];
#endif
}

/* Interleaves the elements of two keys into words. */
static inline void rwi_pair_values(const uint16_t *even, const uint16_t *odd, int64_t count,
                                   float *words) {
    int64_t d = 0;
#if defined(__AVX512F__) /* half the instructions that compilers generate */
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (; d + 32 <= count; d += 32) {
        __m512i a = _mm512_loadu_si512(even + d), b = _mm512_loadu_si512(odd + d);
        _mm512_storeu_si512(words + d, _mm512_permutex2var_epi16(a, low, b));
        _mm512_storeu_si512(words + d + 16, _mm512_permutex2var_epi16(a, high, b));
    }
#endif
    for (; d < count; d++) {
        uint32_t word = (uint32_t)odd[d] << 16 | even[d];
        memcpy(words + d, &word, sizeof word);
    }
}

#endif
