/* Blocks of elements in CPU kernels: read as f32, computed in f32, rounded and written.
 *
 * f32 is read and written in place; other dtypes pass through a buffer in the first-level cache.
 */
#ifndef RWI_BLOCK_CPU_H
#define RWI_BLOCK_CPU_H

#include "cpu/convert_cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Elements of a block; several blocks fit in the first-level cache. */
#define RWI_CPU_BLOCK 512

/* ---- nontemporal stores ---- */

/* Results larger than this leave the cache before they are read again; nontemporal stores avoid
 * reading the memory that they overwrite. */
#define RWI_CPU_STREAM_BYTES ((int64_t)8 * 1024 * 1024)

/* Copies `bytes` to `out`, whole cache lines with nontemporal stores. rwi_cpu_stream_end() makes
 * them visible to other threads. */
RWI_INLINE void rwi_cpu_stream(void *out, const void *in, size_t bytes) {
#if defined(__x86_64__)
    char *to = out;
    const char *from = in;
    size_t head = (size_t)(-(uintptr_t)to % 64);
    head = head < bytes ? head : bytes;
    memcpy(to, from, head);
    size_t i = head;
    for (; i + 64 <= bytes; i += 64) {
#if defined(__AVX512F__)
        _mm512_stream_si512((__m512i *)(to + i), _mm512_loadu_si512(from + i));
#else
        for (size_t part = 0; part < 64; part += 16)
            _mm_stream_si128((__m128i *)(to + i + part),
                             _mm_loadu_si128((const __m128i *)(from + i + part)));
#endif
    }
    memcpy(to + i, from + i, bytes - i);
#else
    memcpy(out, in, bytes);
#endif
}

RWI_INLINE void rwi_cpu_stream_end(void) {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

/* ---- blocks of a dtype that need not be constant: one loop for each dtype ---- */

RWI_INLINE void rwi_cpu_load(rw_dtype dtype, const void *data, int64_t count, float *x) {
    switch (dtype) {
    case RW_F32:
        rwi_load_many(RW_F32, data, count, x);
        return;
    case RW_F16:
        rwi_load_many(RW_F16, data, count, x);
        return;
    case RW_BF16:
        rwi_load_many(RW_BF16, data, count, x);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

RWI_INLINE void rwi_cpu_load_mask(rw_dtype dtype, const void *data, int64_t count, float *x) {
    if (dtype == RW_U8)
        rwi_load_mask_many(RW_U8, data, count, x);
    else
        rwi_cpu_load(dtype, data, count, x);
}

RWI_INLINE void rwi_cpu_store(rw_dtype dtype, void *data, int64_t count, const float *x) {
    switch (dtype) {
    case RW_F32:
        rwi_store_many(RW_F32, data, count, x);
        return;
    case RW_F16:
        rwi_store_many(RW_F16, data, count, x);
        return;
    case RW_BF16:
        rwi_store_many(RW_BF16, data, count, x);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

/* Divides x[0 .. count-1] by a scale and rounds the quotients to an 8-bit dtype. */
RWI_INLINE void rwi_cpu_quantize(rw_dtype dtype, void *data, int64_t count, float scale,
                                 const float *x) {
    uint8_t *codes = data;
    if (dtype == RW_F8_E4M3) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            codes[i] = rwi_f32_to_f8(RW_F8_E4M3, x[i] / scale);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            codes[i] = rwi_f32_to_f8(RW_F8_E5M2, x[i] / scale);
    }
}

/* `count` elements as f32: in place for f32, else converted into `buffer`. */
RWI_INLINE const float *rwi_cpu_read(rw_dtype dtype, const void *data, int64_t count,
                                     float *buffer) {
    if (dtype == RW_F32)
        return data;
    rwi_cpu_load(dtype, data, count, buffer);
    return buffer;
}

/* Where a block is computed: in place if it is f32 and not streamed, else in `buffer`. */
RWI_INLINE float *rwi_cpu_target(rw_dtype dtype, void *data, bool stream, float *buffer) {
    return dtype == RW_F32 && !stream ? data : buffer;
}

RWI_ASSERT_16_BIT_FLOATS;

/* Rounds and writes what was computed in rwi_cpu_target(), at most RWI_CPU_BLOCK elements. */
RWI_INLINE void rwi_cpu_write(rw_dtype dtype, void *data, int64_t count, bool stream,
                              const float *values) {
    uint16_t rounded[RWI_CPU_BLOCK];
    if (dtype == RW_F32) {
        if (stream)
            rwi_cpu_stream(data, values, (size_t)count * sizeof *values);
    } else if (stream) {
        rwi_cpu_store(dtype, rounded, count, values);
        rwi_cpu_stream(data, rounded, (size_t)count * sizeof *rounded);
    } else {
        rwi_cpu_store(dtype, data, count, values);
    }
}

#endif
