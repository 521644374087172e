/* Exponentials of a row of elements of any dtype, with AVX-512: elements are read once from memory
 * and then from the first-level cache. Exponentials are in the order of rwi_two_lanes, and behind
 * the last are zeros up to whole vectors.
 */
#ifndef RWI_EXPONENTIALS_CPU_H
#define RWI_EXPONENTIALS_CPU_H

#include "cpu/lanes_cpu.h"
#include "cpu/weights_cpu.h"

/* Exponentials that are summed in f32; the sums are added in f64. */
#define RWI_EXPONENTIALS 512

#if defined(__AVX512F__)

/* Elements [i, i + RWI_TWO_LANES) of `count`, -inf behind the last. */
RWI_INLINE rwi_two_lanes rwi_load_part(rw_dtype dtype, const void *in, int64_t i, int64_t count) {
    const void *at = rwi_element(dtype, in, i);
    if (i + RWI_TWO_LANES <= count)
        return rwi_two_lanes_load(dtype, at);
    const uint32_t valid = (uint32_t)(((uint64_t)1 << (count - i)) - 1);
    _Alignas(64) float part[RWI_TWO_LANES];
    if (dtype == RW_F32) {
        const __m512 none = _mm512_set1_ps(-INFINITY);
        _mm512_store_ps(part, _mm512_mask_loadu_ps(none, (__mmask16)valid, at));
        _mm512_store_ps(part + RWI_LANES, _mm512_mask_loadu_ps(none, (__mmask16)(valid >> 16),
                                                               (const float *)at + RWI_LANES));
    } else {
        const __m512i none = _mm512_set1_epi16((short)(dtype == RW_F16 ? 0xFC00 : 0xFF80));
        _mm512_store_si512(part, _mm512_mask_loadu_epi16(none, valid, at));
    }
    return rwi_two_lanes_load(dtype, part);
}

/* The largest element; NaN is ignored. */
RWI_INLINE float rwi_largest_element(rw_dtype dtype, const void *in, int64_t count, float largest) {
    __m512 most[4];
    for (int n = 0; n < 4; n++)
        most[n] = _mm512_set1_ps(largest);
    for (int64_t i = 0; i < count; i += 2 * RWI_TWO_LANES) {
        const rwi_two_lanes x = rwi_load_part(dtype, in, i, count);
        most[0] = _mm512_max_ps((__m512)x.a, most[0]); /* the second operand, if x is NaN */
        most[1] = _mm512_max_ps((__m512)x.b, most[1]);
        if (i + RWI_TWO_LANES >= count)
            break;
        const rwi_two_lanes y = rwi_load_part(dtype, in, i + RWI_TWO_LANES, count);
        most[2] = _mm512_max_ps((__m512)y.a, most[2]);
        most[3] = _mm512_max_ps((__m512)y.b, most[3]);
    }
    return _mm512_reduce_max_ps(
        _mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3])));
}

/* s = 2^(x * factor - base); returns the sum. `ahead`: memory to prefetch, as many elements. */
RWI_INLINE double rwi_exponentials(rw_dtype dtype, const void *in, int64_t count, float factor,
                                   float base, const char *ahead, float *s) {
    double sum = 0.0;
    for (int64_t first = 0; first < count; first += RWI_EXPONENTIALS) {
        const int64_t end = rwi_min(first + RWI_EXPONENTIALS, count);
        rwi_lanes sums[2] = {rwi_lanes_of(0.0f), rwi_lanes_of(0.0f)};
        for (int64_t i = first; i < end; i += RWI_TWO_LANES) {
            for (int64_t n = 0; ahead && n < RWI_TWO_LANES;
                 n += 64 / (int64_t)rwi_dtype_size(dtype))
                __builtin_prefetch(rwi_element(dtype, ahead, i + n));
            const rwi_two_lanes x = rwi_load_part(dtype, in, i, count);
            const rwi_two_lanes e = {
                (rwi_lanes)rwi_exp2_16((__m512)(x.a * factor - base), RWI_EXP2_ALL),
                (rwi_lanes)rwi_exp2_16((__m512)(x.b * factor - base), RWI_EXP2_ALL)};
            rwi_two_lanes_store(RW_F32, s + i, e);
            sums[0] += e.a;
            sums[1] += e.b;
        }
        sum += (double)_mm512_reduce_add_ps((__m512)(sums[0] + sums[1]));
    }
    return sum;
}

RWI_INLINE void rwi_store_shares(rw_dtype dtype, const float *s, int64_t count, float share,
                                 void *out, bool stream) {
    int64_t i = 0;
    const bool direct = stream && rwi_lanes_streamable(out);
    for (; i < count; i += RWI_TWO_LANES) {
        rwi_two_lanes x = rwi_two_lanes_load(RW_F32, s + i);
        void *target = rwi_element(dtype, out, i);
        float part[RWI_TWO_LANES];
        x.a *= share;
        x.b *= share;
        if (i + RWI_TWO_LANES > count) {
            rwi_two_lanes_store(dtype, part, x);
            memcpy(target, part, (size_t)(count - i) * rwi_dtype_size(dtype));
        } else if (direct) {
            rwi_two_lanes_stream(dtype, target, x);
        } else {
            rwi_two_lanes_store(dtype, target, x);
        }
    }
}

#endif

#endif
