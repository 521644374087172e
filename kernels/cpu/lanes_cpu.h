/* Vectors of elements of any dtype, as f32, on the CPU. They are types of the compiler, so that
 * gcc, clang, AVX and NEON have vector code alike, where loops over f16 and bf16 depend on what a
 * compiler vectorizes.
 */
#ifndef RWI_LANES_CPU_H
#define RWI_LANES_CPU_H

#include "cpu/convert_cpu.h"
#include "cpu/tile_cpu.h"
#include "shared/f8.h"

typedef uint32_t rwi_lane_words __attribute__((vector_size(RWI_LANES * 4), aligned(2), may_alias));

/* 2 * RWI_LANES consecutive elements: the first half and the second; for bf16 the elements of even
 * and of odd index, which need no shuffles. */
typedef struct rwi_two_lanes {
    rwi_lanes a;
    rwi_lanes b;
} rwi_two_lanes;

/* The number of elements of rwi_two_lanes. */
#define RWI_TWO_LANES (2 * RWI_LANES)

RWI_INLINE rwi_lanes rwi_lanes_load(const float *x) {
    return *(const rwi_lanes *)x;
}

RWI_INLINE void rwi_lanes_store(float *out, rwi_lanes x) {
    *(rwi_lanes *)out = x;
}

RWI_INLINE rwi_lanes rwi_lanes_load_f16(const void *data) {
#if defined(__AVX512F__)
    return (rwi_lanes)_mm512_cvtph_ps(_mm256_loadu_si256(data));
#elif defined(__AVX2__) && defined(__F16C__)
    return (rwi_lanes)_mm256_cvtph_ps(_mm_loadu_si128(data));
#elif defined(__aarch64__)
    return (rwi_lanes)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(data)));
#else
    float x[RWI_LANES];
    rwi_load_many(RW_F16, data, RWI_LANES, x);
    return rwi_lanes_load(x);
#endif
}

RWI_INLINE void rwi_lanes_store_f16(void *data, rwi_lanes x) {
#if defined(__AVX512F__)
    _mm256_storeu_si256(data,
                        _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__) && defined(__F16C__)
    _mm_storeu_si128(data, _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
    vst1_u16(data, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)x)));
#else
    float numbers[RWI_LANES];
    rwi_lanes_store(numbers, x);
    rwi_store_many(RW_F16, data, RWI_LANES, numbers);
#endif
}

/* RWI_LANES consecutive bytes, one in a word each. */
RWI_INLINE rwi_lane_words rwi_lanes_of_bytes(const void *bytes) {
#if defined(__AVX512F__)
    return (rwi_lane_words)_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes));
#elif defined(__AVX2__)
    return (rwi_lane_words)_mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes));
#elif defined(__SSE2__) && RWI_LANES == 4
    const __m128i zero = _mm_setzero_si128();
    int32_t four;
    memcpy(&four, bytes, sizeof four);
    return (rwi_lane_words)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero),
                                              zero);
#else
    const uint8_t *x = bytes;
    rwi_lane_words words;
    for (int i = 0; i < RWI_LANES; i++)
        words[i] = x[i];
    return words;
#endif
}

/* RWI_LANES consecutive codes: the bits of rwi_f8_to_f32(), whose NaN is 0x7FC00000. */
RWI_INLINE rwi_lanes rwi_lanes_load_f8(rw_dtype dtype, const void *codes) {
    const uint32_t last = dtype == RW_F8_E5M2 ? 0x7Cu : 0x7Eu; /* those above are NaN */
#if defined(__AVX512F__)
    const __m128i bytes = _mm_loadu_si128(codes);
    const __mmask16 nan =
        _mm_cmpgt_epu8_mask(_mm_and_si128(bytes, _mm_set1_epi8(0x7F)), _mm_set1_epi8((char)last));
    __m512 x;
    if (dtype == RW_F8_E5M2) { /* the upper half of an f16 */
        x = _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8));
    } else { /* the bits of an f16 that is 2^8 times smaller */
        const __m256i high = _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8);
        const __m256i moved =
            _mm256_and_si256(_mm256_srai_epi16(high, 1), _mm256_set1_epi16((short)0xBF80));
        x = _mm512_mul_ps(_mm512_cvtph_ps(moved), _mm512_set1_ps(0x1p8f));
    }
    return (rwi_lanes)_mm512_mask_mov_ps(x, nan, _mm512_set1_ps(NAN));
#else
    const rwi_f8_format format = rwi_f8_format_of(dtype);
    const rwi_lane_words words = rwi_lanes_of_bytes(codes), size = words & 0x7Fu;
    const rwi_lane_bits moved = (rwi_lane_bits)(words << 24) >> format.shift; /* keeps the sign */
    const rwi_lanes x = (rwi_lanes)((rwi_lane_words)moved & format.kept) * format.factor;
    rwi_lane_words bits = (rwi_lane_words)x;
    if (dtype == RW_F8_E5M2)
        bits |= (rwi_lane_words)(size == 0x7Cu) & 0x7F800000u;
    const rwi_lane_words nan = (rwi_lane_words)(size > last);
    return (rwi_lanes)((bits & ~nan) | (nan & 0x7FC00000u));
#endif
}

/* x[0 .. count-1] = codes[0 .. count-1] */
RWI_INLINE void rwi_load_f8_many(rw_dtype dtype, const uint8_t *codes, int64_t count, float *x) {
    int64_t i = 0;
    for (; i + RWI_LANES <= count; i += RWI_LANES)
        rwi_lanes_store(x + i, rwi_lanes_load_f8(dtype, codes + i));
    for (; i < count; i++)
        x[i] = rwi_f8_to_f32(dtype, codes[i]);
}

RWI_INLINE rwi_two_lanes rwi_two_lanes_load(rw_dtype dtype, const void *data) {
    if (dtype == RW_BF16) {
        rwi_lane_words words = *(const rwi_lane_words *)data;
        return (rwi_two_lanes){(rwi_lanes)(words << 16), (rwi_lanes)(words & 0xFFFF0000u)};
    }
    if (dtype == RW_F16)
        return (rwi_two_lanes){rwi_lanes_load_f16(data),
                               rwi_lanes_load_f16((const uint16_t *)data + RWI_LANES)};
    if (dtype == RW_F8_E4M3 || dtype == RW_F8_E5M2)
        return (rwi_two_lanes){rwi_lanes_load_f8(dtype, data),
                               rwi_lanes_load_f8(dtype, (const uint8_t *)data + RWI_LANES)};
    const float *x = data;
    return (rwi_two_lanes){rwi_lanes_load(x), rwi_lanes_load(x + RWI_LANES)};
}

/* The nearest bf16 in the upper 16 bits; the lower 16 bits are unspecified. As rwi_pair_round(): the
 * low bits of a NaN must be 0. */
RWI_INLINE rwi_lane_words rwi_lanes_round_bf16(rwi_lanes x) {
    rwi_lane_words bits = (rwi_lane_words)x;
    return bits + 0x7FFFu + ((bits >> 16) & 1u);
}

/* Rounds to the dtype and writes. bf16: the low 16 bits of a NaN must be 0, which holds for what
 * arithmetic computes from widened bf16 and from other numbers. */
RWI_INLINE void rwi_two_lanes_store(rw_dtype dtype, void *data, rwi_two_lanes x) {
    if (dtype == RW_BF16) {
        *(rwi_lane_words *)data =
            rwi_lanes_round_bf16(x.a) >> 16 | (rwi_lanes_round_bf16(x.b) & 0xFFFF0000u);
    } else if (dtype == RW_F16) {
        rwi_lanes_store_f16(data, x.a);
        rwi_lanes_store_f16((uint16_t *)data + RWI_LANES, x.b);
    } else {
        rwi_lanes_store(data, x.a);
        rwi_lanes_store((float *)data + RWI_LANES, x.b);
    }
}

/* How far ahead of a vector its memory is prefetched: without that, a core that computes much for
 * each vector waits for memory as long as one that only reads. */
#define RWI_LANES_AHEAD 2048

/* Starts to read what rwi_two_lanes_load() will read RWI_LANES_AHEAD bytes later. */
RWI_INLINE void rwi_two_lanes_prefetch(rw_dtype dtype, const void *data) {
    const int64_t bytes = RWI_TWO_LANES * (int64_t)rwi_dtype_size(dtype);
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)data + RWI_LANES_AHEAD + i);
}

/* Whether rwi_two_lanes_stream() can write there. */
RWI_INLINE bool rwi_lanes_streamable(const void *data) {
#if defined(__AVX512F__)
    return (uintptr_t)data % 64 == 0;
#else
    (void)data;
    return false;
#endif
}

/* As rwi_two_lanes_store(), with nontemporal stores of whole cache lines: one by one between
 * computations, since a burst of them delays loads. */
RWI_INLINE void rwi_two_lanes_stream(rw_dtype dtype, void *data, rwi_two_lanes x) {
#if defined(__AVX512F__)
    if (dtype == RW_F32) {
        _mm512_stream_ps(data, (__m512)x.a);
        _mm512_stream_ps((float *)data + RWI_LANES, (__m512)x.b);
        return;
    }
    _Alignas(64) uint16_t line[RWI_TWO_LANES];
    rwi_two_lanes_store(dtype, line, x);
    _mm512_stream_si512(data, _mm512_load_si512(line));
#else
    rwi_two_lanes_store(dtype, data, x);
#endif
}

RWI_ASSERT_16_BIT_FLOATS;

/* Exchanges neighbours: (x1, x0, x3, x2, ...). */
RWI_INLINE rwi_lanes rwi_lanes_swap(rwi_lanes x) {
#if defined(__AVX512F__)
    return (rwi_lanes)_mm512_permute_ps((__m512)x, 0xB1);
#elif defined(__AVX__)
    return (rwi_lanes)_mm256_permute_ps((__m256)x, 0xB1);
#elif defined(__SSE2__)
    return (rwi_lanes)_mm_shuffle_ps((__m128)x, (__m128)x, 0xB1);
#elif defined(__aarch64__)
    return (rwi_lanes)vrev64q_f32((float32x4_t)x);
#else
    return (rwi_lanes){x[1], x[0], x[3], x[2]};
#endif
}

/* From the elements of even and of odd index to the first half and the second. */
RWI_INLINE rwi_two_lanes rwi_two_lanes_zip(rwi_two_lanes x) {
#if defined(__AVX512F__)
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    return (rwi_two_lanes){(rwi_lanes)_mm512_permutex2var_ps((__m512)x.a, first, (__m512)x.b),
                           (rwi_lanes)_mm512_permutex2var_ps((__m512)x.a, second, (__m512)x.b)};
#elif defined(__AVX__)
    const __m256 low = _mm256_unpacklo_ps((__m256)x.a, (__m256)x.b);
    const __m256 high = _mm256_unpackhi_ps((__m256)x.a, (__m256)x.b);
    return (rwi_two_lanes){(rwi_lanes)_mm256_permute2f128_ps(low, high, 0x20),
                           (rwi_lanes)_mm256_permute2f128_ps(low, high, 0x31)};
#else
    return (rwi_two_lanes){(rwi_lanes){x.a[0], x.b[0], x.a[1], x.b[1]},
                           (rwi_lanes){x.a[2], x.b[2], x.a[3], x.b[3]}};
#endif
}

/* From the even and the odd groups of four elements to the first half and the second. */
RWI_INLINE rwi_two_lanes rwi_two_lanes_zip_quads(rwi_two_lanes x) {
#if defined(__AVX512F__)
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    return (rwi_two_lanes){(rwi_lanes)_mm512_permutex2var_ps((__m512)x.a, first, (__m512)x.b),
                           (rwi_lanes)_mm512_permutex2var_ps((__m512)x.a, second, (__m512)x.b)};
#elif defined(__AVX__)
    return (rwi_two_lanes){(rwi_lanes)_mm256_permute2f128_ps((__m256)x.a, (__m256)x.b, 0x20),
                           (rwi_lanes)_mm256_permute2f128_ps((__m256)x.a, (__m256)x.b, 0x31)};
#else
    return x;
#endif
}

/* Arranges `count` floats as the elements of a dtype are in vectors: whole pairs of vectors as in
 * rwi_two_lanes, the rest as it is. */
RWI_INLINE void rwi_lanes_arrange(rw_dtype dtype, const float *x, int64_t count, float *out) {
    int64_t i = 0;
    for (; dtype == RW_BF16 && i + RWI_TWO_LANES <= count; i += RWI_TWO_LANES)
        for (int lane = 0; lane < RWI_LANES; lane++) {
            out[i + lane] = x[i + 2 * lane];
            out[i + RWI_LANES + lane] = x[i + 2 * lane + 1];
        }
    for (; i < count; i++)
        out[i] = x[i];
}

/* The elements as f32, in the order of rwi_lanes_arrange(). */
RWI_INLINE void rwi_lanes_widen(rw_dtype dtype, const void *data, int64_t count, float *out) {
    int64_t i = 0;
    for (; i + RWI_TWO_LANES <= count; i += RWI_TWO_LANES)
        rwi_two_lanes_store(RW_F32, out + i,
                            rwi_two_lanes_load(dtype, rwi_element(dtype, data, i)));
    if (dtype == RW_F8_E4M3 || dtype == RW_F8_E5M2)
        rwi_load_f8_many(dtype, rwi_element(dtype, data, i), count - i, out + i);
    else
        rwi_load_many(dtype, rwi_element(dtype, data, i), count - i, out + i);
}

/* out[0 .. count-1] = a[0 .. count-1] + b[0 .. count-1], all of one dtype. `stream`: whole vectors
 * with nontemporal stores; requires rwi_lanes_streamable(out). */
RWI_INLINE void rwi_lanes_add(rw_dtype dtype, const void *a, const void *b, int64_t count,
                              void *out, bool stream) {
    int64_t i = 0;
    for (; i + RWI_TWO_LANES <= count; i += RWI_TWO_LANES) {
        const void *x_at = rwi_element(dtype, a, i), *y_at = rwi_element(dtype, b, i);
        rwi_two_lanes_prefetch(dtype, x_at);
        rwi_two_lanes_prefetch(dtype, y_at);
        const rwi_two_lanes x = rwi_two_lanes_load(dtype, x_at);
        const rwi_two_lanes y = rwi_two_lanes_load(dtype, y_at);
        const rwi_two_lanes sum = {x.a + y.a, x.b + y.b};
        if (stream)
            rwi_two_lanes_stream(dtype, rwi_element(dtype, out, i), sum);
        else
            rwi_two_lanes_store(dtype, rwi_element(dtype, out, i), sum);
    }
    for (; i < count; i++)
        rwi_store(dtype, out, i, rwi_load(dtype, a, i) + rwi_load(dtype, b, i));
}

#endif
