/* Microscaling formats on the CPU; the twin of mx.hip. An item is a block of 32 elements. */
#include "block_cpu.h"
#include "mx_kernel.h"

/* Blocks decoded at a time. */
#define BATCH (RWI_CPU_BLOCK / RW_MX_BLOCK)

/* Blocks that lie one stride apart: a stretch of the innermost axis. */
typedef struct run {
    uint8_t *codes;
    uint8_t *scales;
    char *values;
    int64_t count;
} run;

static run find_run(const rwi_mx_params *p, int64_t begin, int64_t end) {
    rwi_row_index index = rwi_row_find(&p->blocks, begin);
    run r = {
        p->codes + rwi_row_offset(&index, p->code_stride),
        p->scales + rwi_row_offset(&index, p->scale_stride),
        rwi_element(p->dtype, p->values, rwi_row_offset(&index, p->value_stride)),
        rwi_min(end - begin, p->blocks.length[2] - index.at[2]),
    };
    return r;
}

/* ---- dequantize ---- */

RWI_INLINE void unpack_block(rw_mx_format format, rw_mx_nibbles nibbles, const uint8_t *codes,
                             uint8_t *unpacked) {
    for (int group = 0; group < RWI_MX_GROUPS; group++) {
        uint64_t word = rwi_mx_load_group(format, nibbles, codes, group);
        memcpy(unpacked + group * RWI_MX_GROUP, &word, sizeof word);
    }
}

RWI_INLINE void decode_block(rw_mx_format format, const uint8_t *unpacked, float scale,
                             float *out) {
#if defined(__AVX512F__)
    if (format == RW_MXFP4_E2M1) { /* all sixteen numbers fit a register */
        const __m512 numbers = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f,
                                              -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
        for (int i = 0; i < RW_MX_BLOCK; i += 16) {
            __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(unpacked + i)));
            __m512 values = _mm512_permutexvar_ps(codes, numbers);
            _mm512_storeu_ps(out + i, _mm512_mul_ps(values, _mm512_set1_ps(scale)));
        }
        return;
    }
#endif
#pragma omp simd
    for (int i = 0; i < RW_MX_BLOCK; i++)
        out[i] = rwi_mx_decode(format, unpacked[i]) * scale;
}

/* Unpacks some blocks before it decodes them: a vector that is read right after its parts were
 * written would wait for them. */
RWI_INLINE void dequantize_run(const rwi_mx_params *p, rw_mx_format format, rw_mx_nibbles nibbles,
                               run r, bool stream) {
    float buffer[RWI_CPU_BLOCK];
    uint8_t unpacked[RWI_CPU_BLOCK];
    bool dense = p->value_stride[2] == RW_MX_BLOCK;
    int64_t batch = dense ? BATCH : 1;
    for (int64_t first = 0; first < r.count; first += batch) {
        int64_t count = rwi_min(batch, r.count - first);
        const uint8_t *codes = r.codes + first * p->code_stride[2];
        const uint8_t *scales = r.scales + first * p->scale_stride[2];
        char *out = rwi_element(p->dtype, r.values, first * p->value_stride[2]);
        float *target = rwi_cpu_target(p->dtype, out, stream, buffer);
        for (int64_t b = 0; b < count; b++)
            unpack_block(format, nibbles, codes + b * p->code_stride[2],
                         unpacked + b * RW_MX_BLOCK);
        for (int64_t b = 0; b < count; b++)
            decode_block(format, unpacked + b * RW_MX_BLOCK,
                         rwi_mx_scale(scales[b * p->scale_stride[2]]), target + b * RW_MX_BLOCK);
        rwi_cpu_write(p->dtype, out, count * RW_MX_BLOCK, stream, target);
    }
}

RWI_INLINE void dequantize(const rwi_mx_params *p, rw_mx_format format, rw_mx_nibbles nibbles,
                           int64_t begin, int64_t end) {
    int64_t bytes = rwi_row_count(&p->blocks) * RW_MX_BLOCK * (int64_t)rwi_dtype_size(p->dtype);
    bool stream = bytes >= RWI_CPU_STREAM_BYTES;
    while (begin < end) {
        run r = find_run(p, begin, end);
        dequantize_run(p, format, nibbles, r, stream);
        begin += r.count;
    }
    if (stream)
        rwi_cpu_stream_end();
}

void RWI_CPU_KERNEL(mx_dequantize)(const rw_mx_dequantize_params *p, int64_t begin, int64_t end,
                                   rwi_fault_sink *sink) {
    (void)sink;
    switch (p->format) {
    case RW_MXFP4_E2M1:
        if (p->nibbles == RW_MX_LOW_FIRST)
            dequantize(p, RW_MXFP4_E2M1, RW_MX_LOW_FIRST, begin, end);
        else if (p->nibbles == RW_MX_HIGH_FIRST)
            dequantize(p, RW_MXFP4_E2M1, RW_MX_HIGH_FIRST, begin, end);
        else
            dequantize(p, RW_MXFP4_E2M1, RW_MX_SPLIT, begin, end);
        return;
    case RW_MXFP6_E2M3:
        dequantize(p, RW_MXFP6_E2M3, RW_MX_LOW_FIRST, begin, end);
        return;
    case RW_MXFP6_E3M2:
        dequantize(p, RW_MXFP6_E3M2, RW_MX_LOW_FIRST, begin, end);
        return;
    case RW_MXFP8_E4M3:
        dequantize(p, RW_MXFP8_E4M3, RW_MX_LOW_FIRST, begin, end);
        return;
    case RW_MXFP8_E5M2:
        dequantize(p, RW_MXFP8_E5M2, RW_MX_LOW_FIRST, begin, end);
        return;
    }
}

/* ---- quantize ---- */

RWI_INLINE uint8_t encode_block(rw_mx_format format, rw_mx_nibbles nibbles, const float *values,
                                uint8_t *codes) {
    uint32_t max_bits = 0;
#pragma omp simd reduction(max : max_bits)
    for (int i = 0; i < RW_MX_BLOCK; i++) {
        uint32_t bits = rwi_f32_bits(values[i]) & 0x7FFFFFFFu;
        max_bits = bits > max_bits ? bits : max_bits;
    }
    uint8_t scale = rwi_mx_scale_for(format, max_bits);
    uint8_t encoded[RW_MX_BLOCK] = {0};
    if (scale != 255) {
        float inverse = rwi_mx_inverse_scale(scale);
#pragma omp simd
        for (int i = 0; i < RW_MX_BLOCK; i++)
            encoded[i] = (uint8_t)rwi_mx_encode(format, values[i] * inverse);
    }
    for (int group = 0; group < RWI_MX_GROUPS; group++) {
        rwi_mx_quads quads = rwi_mx_quads_of(format, nibbles, group);
        uint64_t word;
        memcpy(&word, encoded + quads.first, 4);
        memcpy((char *)&word + 4, encoded + quads.second, 4);
        rwi_mx_store_group(format, nibbles, word, codes, group);
    }
    return scale;
}

RWI_INLINE void quantize(const rwi_mx_params *p, rw_mx_format format, int64_t begin, int64_t end) {
    float buffer[RW_MX_BLOCK];
    while (begin < end) {
        run r = find_run(p, begin, end);
        for (int64_t b = 0; b < r.count; b++) {
            const float *values =
                rwi_cpu_read(p->dtype, rwi_element(p->dtype, r.values, b * p->value_stride[2]),
                             RW_MX_BLOCK, buffer);
            r.scales[b * p->scale_stride[2]] =
                encode_block(format, p->nibbles, values, r.codes + b * p->code_stride[2]);
        }
        begin += r.count;
    }
}

void RWI_CPU_KERNEL(mx_quantize)(const rw_mx_quantize_params *p, int64_t begin, int64_t end,
                                 rwi_fault_sink *sink) {
    (void)sink;
    switch (p->format) {
    case RW_MXFP4_E2M1:
        quantize(p, RW_MXFP4_E2M1, begin, end);
        return;
    case RW_MXFP6_E2M3:
        quantize(p, RW_MXFP6_E2M3, begin, end);
        return;
    case RW_MXFP6_E3M2:
        quantize(p, RW_MXFP6_E3M2, begin, end);
        return;
    case RW_MXFP8_E4M3:
        quantize(p, RW_MXFP8_E4M3, begin, end);
        return;
    case RW_MXFP8_E5M2:
        quantize(p, RW_MXFP8_E5M2, begin, end);
        return;
    }
}
