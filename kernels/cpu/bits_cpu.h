/* Sets of 32 consecutive elements as the bits of a word, lowest first, on the CPU. */
#ifndef RWI_BITS_CPU_H
#define RWI_BITS_CPU_H

#include "shared/dtype.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define WORD_BITS 32

/* The bits [begin, end) that a word has. */
RWI_INLINE uint32_t rwi_range_bits(int64_t begin, int64_t end) {
    const int64_t first = rwi_min(rwi_max(begin, 0), WORD_BITS);
    const int64_t last = rwi_min(rwi_max(end, first), WORD_BITS);
    return (uint32_t)(((uint64_t)1 << last) - ((uint64_t)1 << first));
}

/* Bits [at, at + 32) of an array of `count` bits; 0 past its last byte. */
RWI_INLINE uint32_t rwi_load_bits(const uint8_t *bits, int64_t at, int64_t count) {
    const int64_t first = at >> 3;
    const int64_t bytes = rwi_min(WORD_BITS / 8 + 1, rwi_ceil_div(count, 8) - first);
    uint64_t word = 0;
    for (int64_t i = 0; i < bytes; i++)
        word |= (uint64_t)bits[first + i] << 8 * i;
    return (uint32_t)(word >> (at & 7));
}

RWI_ASSERT_16_BIT_FLOATS;

/* Bit n: whether element at + n of `count` bytes is not 0; 0 past the last. */
RWI_INLINE uint32_t rwi_not_zero_bits(const uint8_t *data, int64_t at, int64_t count) {
    const int64_t valid = rwi_min(WORD_BITS, count - at);
    uint32_t seen = 0;
    for (int64_t n = 0; n < valid; n++)
        seen |= (uint32_t)(data[at + n] != 0) << n;
    return seen;
}

/* Bit n: whether element at + n of `count` of a mask does not hide; 0 past the last. */
RWI_INLINE uint32_t rwi_not_low_bits(rw_dtype dtype, const void *data, int64_t at, int64_t count) {
    if (dtype == RW_U8)
        return rwi_not_zero_bits(data, at, count);
    const uint32_t valid = rwi_range_bits(0, count - at);
    const uint32_t *wide = (const uint32_t *)data + at;
    const uint16_t *narrow = (const uint16_t *)data + at;
    const uint16_t low = dtype == RW_F16 ? 0xFC00u : 0xFF80u;
#if defined(__AVX512F__)
    if (dtype != RW_F32)
        return _mm512_mask_cmpneq_epi16_mask(valid, _mm512_maskz_loadu_epi16(valid, narrow),
                                             _mm512_set1_epi16((short)low));
    const __mmask16 half[2] = {(__mmask16)valid, (__mmask16)(valid >> 16)};
    const __m512i wide_low = _mm512_set1_epi32((int)0xFF800000u);
    return _mm512_mask_cmpneq_epi32_mask(half[0], _mm512_maskz_loadu_epi32(half[0], wide),
                                         wide_low) |
           (uint32_t)_mm512_mask_cmpneq_epi32_mask(
               half[1], _mm512_maskz_loadu_epi32(half[1], wide + 16), wide_low)
               << 16;
#else
    uint32_t seen = 0;
    for (int n = 0; n < WORD_BITS && at + n < count; n++)
        seen |= (uint32_t)(dtype == RW_F32 ? wide[n] != 0xFF800000u : narrow[n] != low) << n;
    return seen & valid;
#endif
}

#endif
