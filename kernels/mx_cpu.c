/* Microscaling formats on the CPU; the twin of mx.hip. An item is a block of 32 elements. */
#include "cpu/block_cpu.h"
#include "mx_params.h"
#include "cpu/pairs_cpu.h"

/* Blocks decoded at a time. */
#define BATCH (RWI_CPU_BLOCK / RW_MX_BLOCK)

/* Blocks at a constant stride: a run along the innermost axis. */
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

/* ---- dequantize ----
 *
 * A value of any format times a scale is exact in bf16, unless the scale is very small or large.
 * bf16 is built from 16-bit integers, twice as many at a time as f32.
 */

/* Expands eight 6-bit codes to one per byte. */
RWI_INLINE uint64_t spread_sixes(uint64_t packed) {
    packed = (packed & 0xFFFFFFu) | (packed & 0xFFFFFF000000u) << 8;
    packed = (packed & 0x00000FFF00000FFFu) | (packed & 0x00FFF00000FFF000u) << 4;
    return (packed & 0x003F003F003F003Fu) | (packed & 0x0FC00FC00FC00FC0u) << 2;
}

/* The codes of consecutive blocks, one in 16 bits each. Loops over all of them fill longer vectors
 * than one block. */
RWI_INLINE void unpack_blocks(rw_mx_format format, rw_mx_nibbles nibbles, const uint8_t *codes,
                              int64_t count, uint16_t *unpacked) {
    int64_t bytes = count * rwi_mx_element_of(format).bits * RW_MX_BLOCK / 8;
    if (rwi_mx_element_of(format).bits == 8) {
#pragma omp simd
        for (int64_t i = 0; i < bytes; i++)
            unpacked[i] = codes[i];
    } else if (rwi_mx_element_of(format).bits == 6) {
        uint8_t spread[RWI_CPU_BLOCK];
        for (int64_t group = 0; group < count * RWI_MX_GROUPS; group++) {
            uint64_t word = 0;
            memcpy(&word, codes + group * 6, 6);
            word = spread_sixes(word);
            memcpy(spread + group * RWI_MX_GROUP, &word, sizeof word);
        }
#pragma omp simd
        for (int64_t i = 0; i < count * RW_MX_BLOCK; i++)
            unpacked[i] = spread[i];
    } else if (nibbles == RW_MX_SPLIT) {
        for (int64_t b = 0; b < count; b++) {
#pragma omp simd
            for (int i = 0; i < RW_MX_BLOCK / 2; i++) {
                unpacked[b * RW_MX_BLOCK + i] = codes[b * RW_MX_BLOCK / 2 + i] & 15u;
                unpacked[b * RW_MX_BLOCK + RW_MX_BLOCK / 2 + i] =
                    codes[b * RW_MX_BLOCK / 2 + i] >> 4;
            }
        }
    } else {
        bool low_first = nibbles == RW_MX_LOW_FIRST;
        rwi_pair *pairs = (rwi_pair *)unpacked;
#pragma omp simd
        for (int64_t i = 0; i < bytes; i++) {
            uint32_t low = codes[i] & 15u, high = codes[i] >> 4;
            pairs[i] = low_first ? low | high << 16 : high | low << 16;
        }
    }
}

/* Whether all values of a block are exact in bf16: 0, normal, Inf or NaN. */
RWI_INLINE bool are_bf16(rw_mx_format format, uint8_t scale) {
    rwi_small_float element = rwi_mx_element_of(format);
    return scale > element.bias + element.mantissa && scale <= 254 - element.largest;
}

RWI_INLINE uint16_t lesser(uint16_t a, uint16_t b) {
    return a < b ? a : b;
}

/* A code's value times the scale, as bf16, in a block for which are_bf16() is true. A subnormal
 * value is normalised: its mantissa is shifted until the first 1 is the hidden bit, and its
 * exponent is lowered. Of all shifts the right one gives the smallest sum. */
RWI_INLINE uint16_t decode_bf16(rw_mx_format format, uint16_t code, uint8_t scale) {
    rwi_small_float element = rwi_mx_element_of(format);
    const int mantissa = element.mantissa, shift = 7 - mantissa;
    const uint16_t sign = (uint16_t)(1u << (element.bits - 1));
    const uint16_t exponent = (uint16_t)((scale - element.bias) * 128);
    uint16_t rest = (uint16_t)(code & (sign - 1u));
    uint16_t bits = (uint16_t)((rest << shift) + exponent);
    bits = lesser(bits, (uint16_t)((rest << (shift + 1)) + (uint16_t)(exponent - 128)));
    if (mantissa >= 2)
        bits = lesser(bits, (uint16_t)((rest << (shift + 2)) + (uint16_t)(exponent - 256)));
    if (mantissa >= 3)
        bits = lesser(bits, (uint16_t)((rest << (shift + 3)) + (uint16_t)(exponent - 384)));
    bits = rest == 0 ? 0 : bits;
    if (format == RW_MXFP8_E4M3)
        bits = rest == 0x7F ? 0x7FC0 : bits;
    if (format == RW_MXFP8_E5M2) {
        bits = rest == 0x7C ? 0x7F80 : bits;
        bits = rest > 0x7C ? 0x7FC0 : bits;
    }
    return (uint16_t)(bits | (code & sign) << (16 - element.bits));
}

/* Decodes a block to f32 or bf16. */
RWI_INLINE void decode_block(rw_mx_format format, rw_dtype dtype, const uint16_t *unpacked,
                             uint8_t scale, void *out) {
    float buffer[RW_MX_BLOCK];
    uint16_t *words = out;
    if (dtype == RW_BF16 && are_bf16(format, scale)) {
#pragma omp simd
        for (int i = 0; i < RW_MX_BLOCK; i++)
            words[i] = decode_bf16(format, unpacked[i], scale);
        return;
    }
    float *numbers = dtype == RW_BF16 ? buffer : out;
    float factor = rwi_mx_scale(scale);
#if defined(__AVX512F__)
    if (format == RW_MXFP4_E2M1 && dtype == RW_F32) { /* a register holds all sixteen values */
        __m512 all = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f,
                                    -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
        all = _mm512_mul_ps(all, _mm512_set1_ps(factor));
        for (int i = 0; i < RW_MX_BLOCK; i += 16) {
            __m512i codes = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(unpacked + i)));
            _mm512_storeu_ps(numbers + i, _mm512_permutexvar_ps(codes, all));
        }
        return;
    }
#endif
#pragma omp simd
    for (int i = 0; i < RW_MX_BLOCK; i++)
        numbers[i] = rwi_bf16_to_f32(decode_bf16(format, unpacked[i], 127)) * factor;
    if (dtype == RW_BF16)
        rwi_store_many(RW_BF16, out, RW_MX_BLOCK, numbers);
}

/* Unpacks several blocks before it decodes them: reading a vector right after its parts were
 * written would stall. */
RWI_INLINE void dequantize_run(const rwi_mx_params *p, rw_mx_format format, rw_mx_nibbles nibbles,
                               run r, bool stream) {
    float buffer[RWI_CPU_BLOCK];
    uint8_t gathered[RWI_CPU_BLOCK];
    uint16_t unpacked[RWI_CPU_BLOCK];
    int64_t code_bytes = rwi_mx_element_of(format).bits * RW_MX_BLOCK / 8;
    bool dense = p->value_stride[2] == RW_MX_BLOCK, words = p->dtype == RW_BF16;
    bool converted = !words && p->dtype != RW_F32; /* decode_block() writes f32 and bf16 */
    int64_t batch = dense ? BATCH : 1, block_bytes = RW_MX_BLOCK * (words ? 2 : 4);
    for (int64_t first = 0; first < r.count; first += batch) {
        int64_t count = rwi_min(batch, r.count - first);
        const uint8_t *codes = r.codes + first * p->code_stride[2];
        const uint8_t *scales = r.scales + first * p->scale_stride[2];
        char *out = rwi_element(p->dtype, r.values, first * p->value_stride[2]);
        char *target = stream || converted ? (char *)buffer : out;
        for (int64_t b = 0; b < count && code_bytes != p->code_stride[2]; b++)
            memcpy(gathered + b * code_bytes, codes + b * p->code_stride[2], (size_t)code_bytes);
        unpack_blocks(format, nibbles, code_bytes == p->code_stride[2] ? codes : gathered, count,
                      unpacked);
        for (int64_t b = 0; b < count; b++) {
            const uint16_t *block = unpacked + b * RW_MX_BLOCK;
            uint8_t scale = scales[b * p->scale_stride[2]];
            if (words)
                decode_block(format, RW_BF16, block, scale, target + b * block_bytes);
            else
                decode_block(format, RW_F32, block, scale, target + b * block_bytes);
        }
        if (converted)
            rwi_cpu_write(p->dtype, out, count * RW_MX_BLOCK, stream, buffer);
        else if (stream)
            rwi_cpu_stream(out, buffer, (size_t)(count * block_bytes));
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

/* The largest value of a block without its sign, as bits. */
RWI_INLINE uint32_t largest_bits(const float *values) {
    uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
    for (int i = 0; i < RW_MX_BLOCK; i++) {
        uint32_t bits = rwi_f32_bits(values[i]) & 0x7FFFFFFFu;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* Packs the codes of consecutive blocks, one per byte, into consecutive memory. */
RWI_INLINE void pack_blocks(rw_mx_format format, rw_mx_nibbles nibbles, const uint8_t *encoded,
                            int64_t count, uint8_t *codes) {
    const uint16_t *pairs = (const uint16_t *)(const void *)encoded;
    int64_t bytes = count * RW_MX_BLOCK / 2;
    if (rwi_mx_element_of(format).bits == 6) {
        for (int64_t group = 0; group < count * RWI_MX_GROUPS; group++) {
            uint64_t word;
            memcpy(&word, encoded + group * RWI_MX_GROUP, sizeof word);
            word = rwi_mx_pack(format, word);
            memcpy(codes + group * 6, &word, 6);
        }
    } else if (nibbles == RW_MX_SPLIT) {
        for (int64_t b = 0; b < count; b++) {
            const uint8_t *block = encoded + b * RW_MX_BLOCK;
#pragma omp simd
            for (int i = 0; i < RW_MX_BLOCK / 2; i++)
                codes[b * RW_MX_BLOCK / 2 + i] =
                    (uint8_t)(block[i] | block[RW_MX_BLOCK / 2 + i] << 4);
        }
    } else if (nibbles == RW_MX_LOW_FIRST) {
#pragma omp simd
        for (int64_t i = 0; i < bytes; i++)
            codes[i] = (uint8_t)(pairs[i] | pairs[i] >> 4);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < bytes; i++)
            codes[i] = (uint8_t)(pairs[i] << 4 | pairs[i] >> 8);
    }
}

/* Encodes several blocks whose codes are consecutive in memory. */
RWI_INLINE void encode_blocks(rw_mx_format format, rw_mx_nibbles nibbles, const float *values,
                              int64_t count, uint8_t *scales, uint8_t *codes) {
    float scaled[RWI_CPU_BLOCK];
    uint32_t largest[BATCH];
    float inverse[BATCH];
    _Alignas(64) uint8_t encoded[RWI_CPU_BLOCK];
    uint8_t *target = rwi_mx_element_of(format).bits == 8 ? codes : encoded;
    for (int64_t b = 0; b < count; b++)
        largest[b] = largest_bits(values + b * RW_MX_BLOCK);
#pragma omp simd
    for (int64_t b = 0; b < count; b++) {
        scales[b] = rwi_mx_scale_for(format, largest[b]);
        inverse[b] = rwi_mx_inverse_scale(scales[b]);
    }
    for (int64_t b = 0; b < count; b++) {
#pragma omp simd
        for (int64_t i = b * RW_MX_BLOCK; i < (b + 1) * RW_MX_BLOCK; i++)
            scaled[i] = values[i] * inverse[b];
    }
#pragma omp simd
    for (int64_t i = 0; i < count * RW_MX_BLOCK; i++)
        target[i] = (uint8_t)rwi_mx_encode(format, scaled[i]);
    for (int64_t b = 0; b < count; b++) {
        if (scales[b] == 255)
            memset(target + b * RW_MX_BLOCK, 0, RW_MX_BLOCK);
    }
    if (target == encoded)
        pack_blocks(format, nibbles, encoded, count, codes);
}

/* Consecutive blocks as f32, in place or in `buffer`. */
RWI_INLINE const float *read_blocks(const rwi_mx_params *p, const char *values, int64_t count,
                                    float *buffer) {
    if (p->value_stride[2] == RW_MX_BLOCK)
        return rwi_cpu_read(p->dtype, values, count * RW_MX_BLOCK, buffer);
    for (int64_t b = 0; b < count; b++)
        rwi_cpu_load(p->dtype, rwi_element(p->dtype, values, b * p->value_stride[2]), RW_MX_BLOCK,
                     buffer + b * RW_MX_BLOCK);
    return buffer;
}

RWI_INLINE void quantize_run(const rwi_mx_params *p, rw_mx_format format, rw_mx_nibbles nibbles,
                             run r) {
    float buffer[RWI_CPU_BLOCK];
    uint8_t scales[BATCH], packed[RWI_CPU_BLOCK];
    int64_t code_bytes = rwi_mx_element_of(format).bits * RW_MX_BLOCK / 8;
    for (int64_t first = 0; first < r.count; first += BATCH) {
        int64_t count = rwi_min(BATCH, r.count - first);
        uint8_t *codes = r.codes + first * p->code_stride[2];
        const char *values = rwi_element(p->dtype, r.values, first * p->value_stride[2]);
        bool dense = p->code_stride[2] == code_bytes;
        encode_blocks(format, nibbles, read_blocks(p, values, count, buffer), count, scales,
                      dense ? codes : packed);
        for (int64_t b = 0; b < count && !dense; b++)
            memcpy(codes + b * p->code_stride[2], packed + b * code_bytes, (size_t)code_bytes);
        for (int64_t b = 0; b < count; b++)
            r.scales[(first + b) * p->scale_stride[2]] = scales[b];
    }
}

RWI_INLINE void quantize(const rwi_mx_params *p, rw_mx_format format, rw_mx_nibbles nibbles,
                         int64_t begin, int64_t end) {
    while (begin < end) {
        run r = find_run(p, begin, end);
        quantize_run(p, format, nibbles, r);
        begin += r.count;
    }
}

void RWI_CPU_KERNEL(mx_quantize)(const rw_mx_quantize_params *p, int64_t begin, int64_t end,
                                 rwi_fault_sink *sink) {
    (void)sink;
    switch (p->format) {
    case RW_MXFP4_E2M1:
        if (p->nibbles == RW_MX_LOW_FIRST)
            quantize(p, RW_MXFP4_E2M1, RW_MX_LOW_FIRST, begin, end);
        else if (p->nibbles == RW_MX_HIGH_FIRST)
            quantize(p, RW_MXFP4_E2M1, RW_MX_HIGH_FIRST, begin, end);
        else
            quantize(p, RW_MXFP4_E2M1, RW_MX_SPLIT, begin, end);
        return;
    case RW_MXFP6_E2M3:
        quantize(p, RW_MXFP6_E2M3, RW_MX_LOW_FIRST, begin, end);
        return;
    case RW_MXFP6_E3M2:
        quantize(p, RW_MXFP6_E3M2, RW_MX_LOW_FIRST, begin, end);
        return;
    case RW_MXFP8_E4M3:
        quantize(p, RW_MXFP8_E4M3, RW_MX_LOW_FIRST, begin, end);
        return;
    case RW_MXFP8_E5M2:
        quantize(p, RW_MXFP8_E5M2, RW_MX_LOW_FIRST, begin, end);
        return;
    }
}
