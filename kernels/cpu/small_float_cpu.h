/* Vectors of floats of at most 8 bits, on the CPU. f8_e4m3 and f8_e5m2 become bf16; with
 * AVX-512, elements of microscaling formats become bf16, and bf16 become elements, 32 at a time.
 */
#ifndef RWI_SMALL_FLOAT_CPU_H
#define RWI_SMALL_FLOAT_CPU_H

#include "cpu/lanes_cpu.h"

/* ---- elements to bf16 ---- */

RWI_INLINE uint16_t rwi_lesser(uint16_t a, uint16_t b) {
    return a < b ? a : b;
}

/* Whether all numbers of a format times 2^(scale - 127) are exact in bf16: 0 or normal. */
RWI_INLINE bool rwi_small_float_is_bf16(rwi_small_float format, uint8_t scale) {
    return scale > format.bias + format.mantissa && scale <= 254 - format.largest;
}

/* A code's number times 2^(scale - 127), for which rwi_small_float_is_bf16() is true. NaN is 0x7FC0
 * with its sign. A subnormal number is normalised: its mantissa is shifted until the first 1 is the
 * hidden bit, and its exponent is lowered. Of all shifts the right one gives the smallest sum. */
RWI_INLINE uint16_t rwi_small_float_to_bf16(rwi_small_float format, uint16_t code, uint8_t scale) {
    const int mantissa = format.mantissa, shift = 7 - mantissa;
    const uint16_t sign = (uint16_t)(1u << (format.bits - 1));
    const uint16_t exponent = (uint16_t)((scale - format.bias) * 128);
    uint16_t rest = (uint16_t)(code & (sign - 1u));
    uint16_t bits = (uint16_t)((rest << shift) + exponent);
    bits = rwi_lesser(bits, (uint16_t)((rest << (shift + 1)) + (uint16_t)(exponent - 128)));
    if (mantissa >= 2)
        bits = rwi_lesser(bits, (uint16_t)((rest << (shift + 2)) + (uint16_t)(exponent - 256)));
    if (mantissa >= 3)
        bits = rwi_lesser(bits, (uint16_t)((rest << (shift + 3)) + (uint16_t)(exponent - 384)));
    bits = rest == 0 ? 0 : bits;
    if (format.bits == 8) { /* E4M3 has no Inf */
        bits = rest > format.max_code ? 0x7FC0 : bits;
        bits = mantissa == 2 && rest == format.max_code + 1 ? 0x7F80 : bits;
    }
    return (uint16_t)(bits | (code & sign) << (16 - format.bits));
}

#if defined(__AVX512F__)

/* What one permutation decodes: 4 bits, every code; 6 bits, every code without its sign; 8 bits,
 * the subnormal numbers, Inf and NaN, by the low 5 bits. */
typedef struct rwi_small_float_table {
    __m512i bf16;    /* at scale 127 */
    __mmask32 moves; /* those that the scale multiplies: neither 0 nor Inf nor NaN */
} rwi_small_float_table;

RWI_INLINE rwi_small_float_table rwi_small_float_table_of(rwi_small_float format) {
    _Alignas(64) uint16_t entries[32];
    rwi_small_float_table table;
#pragma omp simd
    for (int n = 0; n < 32; n++) {
        const int code = format.bits == 8 && n >= 16 ? 0x60 + n : n;
        entries[n] = rwi_small_float_to_bf16(format, (uint16_t)code, 127);
    }
    table.bf16 = _mm512_load_si512(entries);
    const __m512i size = _mm512_and_si512(table.bf16, _mm512_set1_epi16(0x7FFF));
    table.moves = _mm512_test_epi16_mask(size, size) &
                  _mm512_cmplt_epu16_mask(size, _mm512_set1_epi16(0x7F80));
    return table;
}

/* rwi_small_float_to_bf16() of 32 codes in 16 bits each. */
RWI_INLINE __m512i rwi_small_float_to_bf16_32(rwi_small_float format,
                                              const rwi_small_float_table *table, __m512i codes,
                                              uint8_t scale) {
    const __m512i moved = _mm512_set1_epi16((short)((scale - 127) * 128));
    const __m512i found = _mm512_permutexvar_epi16(
        codes, _mm512_mask_add_epi16(table->bf16, table->moves, table->bf16, moved));
    if (format.bits == 4)
        return found;
    const __m512i sign = _mm512_slli_epi16(codes, (unsigned)(16 - format.bits));
    __m512i size = found;
    if (format.bits == 8) {
        const __m512i rest = _mm512_and_si512(codes, _mm512_set1_epi16(0x7F));
        const __m512i first = _mm512_set1_epi16((short)(1 << format.mantissa)); /* normal */
        const __m512i count = _mm512_set1_epi16((short)(format.max_code - (1 << format.mantissa)));
        const __mmask32 other = _mm512_cmpgt_epu16_mask(_mm512_sub_epi16(rest, first), count);
        const __m512i exponent = _mm512_set1_epi16((short)((scale - format.bias) * 128));
        size = _mm512_add_epi16(_mm512_slli_epi16(rest, (unsigned)(7 - format.mantissa)), exponent);
        size = _mm512_mask_mov_epi16(size, other, found);
    }
    return _mm512_ternarylogic_epi32(size, sign, _mm512_set1_epi16((short)0x8000),
                                     0xF8); /* size | (sign & 0x8000) */
}

/* ---- bf16 to elements ---- */

/* The upper 16 bits of each word; the lowest of them is 1 if any bit below is. Rounding such a
 * number to fewer bits rounds the word itself. */
RWI_INLINE __m512i rwi_upper_half_odd(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x), ones = _mm512_set1_epi32(0xFFFF);
    const __m512i carry = _mm512_add_epi32(_mm512_and_si512(bits, ones), ones);
    return _mm512_srli_epi32(_mm512_or_si512(bits, carry), 16);
}

/* 32 consecutive elements as bf16, of which the lowest bit is as in rwi_upper_half_odd(). */
RWI_INLINE __m512i rwi_load_odd_bf16(rw_dtype dtype, const void *data) {
    if (dtype == RW_BF16)
        return _mm512_loadu_si512(data);
    const rwi_two_lanes x =
        dtype == RW_F16 ? rwi_two_lanes_load(RW_F16, data) : rwi_two_lanes_load(RW_F32, data);
    const __m512i halves =
        _mm512_packus_epi32(rwi_upper_half_odd((__m512)x.a), rwi_upper_half_odd((__m512)x.b));
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), halves);
}

/* The largest of 32 numbers of 16 bits. */
RWI_INLINE uint32_t rwi_largest_word(__m512i x) {
    const __m256i half =
        _mm256_max_epu16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
    const __m128i quarter =
        _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    const __m128i least = _mm_minpos_epu16(_mm_xor_si128(quarter, _mm_set1_epi16(-1)));
    return (uint32_t)_mm_cvtsi128_si32(least) % 0x10000u ^ 0xFFFFu;
}

/* From this scale on, bf16 numbers below 2^-126 become 0 in every format. */
#define RWI_SMALL_FLOAT_LEAST_SCALE 32

/* rwi_small_float_encode() of 32 bf16 divided by 2^(scale - 127), for scales from
 * RWI_SMALL_FLOAT_LEAST_SCALE on; `offset` is (scale - bias) * 128. The hidden bit and the mantissa of a number are shifted to the
 * spacing of the format's numbers there, and the exponent of a normal one is above them. */
RWI_INLINE __m512i rwi_small_float_encode_32(rwi_small_float format, __m512i x, __m512i offset) {
    const int shift = 7 - format.mantissa;
    const __m512i size = _mm512_and_si512(x, _mm512_set1_epi16(0x7FFF));
    const __m512i normal = _mm512_sub_epi16(size, offset);
    const __m512i subnormal = _mm512_ternarylogic_epi32(
        size, _mm512_set1_epi16(0x7F), _mm512_set1_epi16(0x80), 0xEA); /* (size & 0x7F) | 0x80 */
    const __m512i moved = _mm512_max_epi16(normal, subnormal);
    /* shift, and 1 more for each exponent below that of the smallest normal number */
    const __m512i distance = _mm512_subs_epu16(
        _mm512_add_epi16(offset, _mm512_set1_epi16((short)((shift + 1) * 128 + 127))), size);
    const __m512i shifts =
        _mm512_srli_epi16(_mm512_max_epu16(distance, _mm512_set1_epi16((short)(shift * 128))), 7);
    const __m512i below_half =
        _mm512_srlv_epi16(/* 2^(shifts - 1) - 1 */
                          _mm512_set1_epi16(-1), _mm512_sub_epi16(_mm512_set1_epi16(17), shifts));
    const __m512i odd = _mm512_and_si512(_mm512_srlv_epi16(moved, shifts), _mm512_set1_epi16(1));
    const __m512i sum = _mm512_add_epi16(_mm512_add_epi16(moved, below_half), odd);
    const __m512i code =
        _mm512_min_epu16(_mm512_srlv_epi16(sum, shifts), _mm512_set1_epi16((short)format.max_code));
    return _mm512_ternarylogic_epi32(code, _mm512_srli_epi16(x, (unsigned)(16 - format.bits)),
                                     _mm512_set1_epi16((short)(1 << (format.bits - 1))),
                                     0xF8); /* code | (sign & bit) */
}

#endif

/* ---- f8_e4m3 and f8_e5m2 to bf16, exactly; NaN is 0x7FC0 with its sign ---- */

RWI_INLINE rwi_small_float rwi_small_float_of(rw_dtype dtype) {
    return dtype == RW_F8_E5M2 ? rwi_small_float_e5m2() : rwi_small_float_e4m3();
}

/* The low and the high bytes of the bf16 of every code without its sign. */
typedef struct rwi_f8_table {
    _Alignas(64) uint8_t low[128];
    _Alignas(64) uint8_t high[128];
} rwi_f8_table;

/* Whether the processor looks bytes up in a table: checked at run time, since x86-64-v4 does not
 * include it. */
static inline bool rwi_f8_has_table(void) {
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512vbmi");
#else
    return false;
#endif
}

RWI_INLINE void rwi_f8_table_fill(rw_dtype dtype, rwi_f8_table *table) {
    const rwi_small_float format = rwi_small_float_of(dtype);
#pragma omp simd
    for (int n = 0; n < 128; n++) {
        const uint16_t bits = rwi_small_float_to_bf16(format, (uint16_t)n, 127);
        table->low[n] = (uint8_t)bits;
        table->high[n] = (uint8_t)(bits >> 8);
    }
}

#if defined(__AVX512F__)
/* Entries 0 to 127 of a table, by the low 7 bits of each byte. */
RWI_INLINE __m512i rwi_look_up_bytes(const uint8_t *table, __m512i bytes) {
    const __m512i first = _mm512_load_si512(table), second = _mm512_load_si512(table + 64);
    /* an intrinsic would require a compiler flag for the instruction */
    __asm__("vpermi2b %2, %1, %0" : "+v"(bytes) : "v"(first), "v"(second));
    return bytes;
}

/* 64 consecutive codes as bf16; requires rwi_f8_has_table(). */
RWI_INLINE void rwi_f8_to_bf16_64(const rwi_f8_table *table, __m512i codes, __m512i out[2]) {
    /* unpacking interleaves the halves of each 16 bytes */
    codes = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
    const __m512i low = rwi_look_up_bytes(table->low, codes);
    const __m512i high =
        _mm512_ternarylogic_epi32(rwi_look_up_bytes(table->high, codes), codes,
                                  _mm512_set1_epi8((char)0x80), 0xF8); /* size | (code & 0x80) */
    out[0] = _mm512_unpacklo_epi8(low, high);
    out[1] = _mm512_unpackhi_epi8(low, high);
}
#endif

#if defined(__AVX512F__)
/* A row of `count` codes. */
RWI_INLINE void rwi_f8_to_bf16_row(const rwi_f8_table *table, const uint8_t *codes, int64_t count,
                                   uint16_t *out) {
    for (int64_t i = 0; i < count; i += 64) {
        const int64_t left = rwi_min(64, count - i);
        const __mmask64 valid = ~(__mmask64)0 >> (64 - left);
        __m512i words[2];
        rwi_f8_to_bf16_64(table, _mm512_maskz_loadu_epi8(valid, codes + i), words);
        _mm512_mask_storeu_epi16(out + i, (__mmask32)valid, words[0]);
        if (left > 32)
            _mm512_mask_storeu_epi16(out + i + 32, (__mmask32)(valid >> 32), words[1]);
    }
}
#endif

/* Rows of `count` codes to rows that are `out_row` elements apart; `table` NULL: without it. */
RWI_INLINE void rwi_f8_to_bf16_rows(rw_dtype dtype, const rwi_f8_table *table,
                                    const void *const *rows, int64_t num_rows, int64_t count,
                                    uint16_t *out, int64_t out_row) {
    const rwi_small_float format = rwi_small_float_of(dtype);
#if defined(__AVX512F__)
    const rwi_small_float_table some = rwi_small_float_table_of(format);
#endif
    for (int64_t row = 0; row < num_rows; row++, out += out_row) {
        const uint8_t *codes = rows[row];
        int64_t i = 0;
#if defined(__AVX512F__)
        if (table) {
            rwi_f8_to_bf16_row(table, codes, count, out);
            continue;
        }
        for (; i + 32 <= count; i += 32) {
            const __m512i words =
                _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(codes + i)));
            _mm512_storeu_si512(out + i, rwi_small_float_to_bf16_32(format, &some, words, 127));
        }
#endif
        (void)table;
#pragma omp simd
        for (int64_t n = i; n < count; n++)
            out[n] = rwi_small_float_to_bf16(format, codes[n], 127);
    }
}

#endif
