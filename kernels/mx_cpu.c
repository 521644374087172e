/* Microscaling formats on the CPU; the twin of mx.hip. An item is a block of 32 elements. */
#include "cpu/block_cpu.h"
#include "mx_params.h"
#include "cpu/pairs_cpu.h"
#include "cpu/small_float_cpu.h"

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

typedef struct decoder {
    rw_mx_format format;
    rw_mx_nibbles nibbles;
#if defined(__AVX512F__)
    rwi_small_float_table table;
#endif
} decoder;

RWI_INLINE decoder make_decoder(rw_mx_format format, rw_mx_nibbles nibbles) {
    decoder d = {.format = format, .nibbles = nibbles};
#if defined(__AVX512F__)
    d.table = rwi_small_float_table_of(rwi_mx_element_of(format));
#endif
    return d;
}

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
            uint32_t low; /* one copy of 6 bytes would go through memory, and wait for it */
            uint16_t high;
            memcpy(&low, codes + group * 6, sizeof low);
            memcpy(&high, codes + group * 6 + sizeof low, sizeof high);
            uint64_t word = spread_sixes(low | (uint64_t)high << 32);
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

/* The values of a block times 2^(scale - 127) as bf16, in which they must be exact. */
RWI_INLINE void decode_words(const decoder *d, const uint16_t *unpacked, uint8_t scale,
                             uint16_t *words) {
    const rwi_small_float element = rwi_mx_element_of(d->format);
#if defined(__AVX512F__)
    const __m512i codes = _mm512_loadu_si512(unpacked);
    _mm512_storeu_si512(words, rwi_small_float_to_bf16_32(element, &d->table, codes, scale));
#else
#pragma omp simd
    for (int i = 0; i < RW_MX_BLOCK; i++)
        words[i] = rwi_small_float_to_bf16(element, unpacked[i], scale);
#endif
}

/* The same of any scale, as f32. */
RWI_INLINE void decode_floats(const decoder *d, const uint16_t *unpacked, uint8_t scale,
                              float *out) {
    const rwi_small_float element = rwi_mx_element_of(d->format);
    const float factor = rwi_mx_scale(scale);
#if defined(__AVX512F__)
    if (d->format == RW_MXFP4_E2M1) { /* a register holds all sixteen values */
        __m512 all = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f,
                                    -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
        all = _mm512_mul_ps(all, _mm512_set1_ps(factor));
        for (int i = 0; i < RW_MX_BLOCK; i += 16) {
            __m512i codes = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(unpacked + i)));
            _mm512_storeu_ps(out + i, _mm512_permutexvar_ps(codes, all));
        }
        return;
    }
    const __m512i words =
        rwi_small_float_to_bf16_32(element, &d->table, _mm512_loadu_si512(unpacked), 127);
    const __m512i halves[2] = {_mm512_cvtepu16_epi32(_mm512_castsi512_si256(words)),
                               _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words, 1))};
    for (int n = 0; n < 2; n++)
        _mm512_storeu_ps(out + 16 * n,
                         _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(halves[n], 16)),
                                       _mm512_set1_ps(factor)));
#else
#pragma omp simd
    for (int i = 0; i < RW_MX_BLOCK; i++)
        out[i] = rwi_bf16_to_f32(rwi_small_float_to_bf16(element, unpacked[i], 127)) * factor;
#endif
}

/* Decodes a block to f32 or bf16. */
RWI_INLINE void decode_block(const decoder *d, rw_dtype dtype, const uint16_t *unpacked,
                             uint8_t scale, void *out) {
    float buffer[RW_MX_BLOCK];
    if (dtype == RW_BF16 && rwi_small_float_is_bf16(rwi_mx_element_of(d->format), scale)) {
        decode_words(d, unpacked, scale, out);
        return;
    }
    float *numbers = dtype == RW_BF16 ? buffer : out;
    decode_floats(d, unpacked, scale, numbers);
    if (dtype == RW_BF16)
        rwi_store_many(RW_BF16, out, RW_MX_BLOCK, numbers);
}

/* Unpacks several blocks before it decodes them: reading a vector right after its parts were
 * written would stall. */
RWI_INLINE void dequantize_run(const rwi_mx_params *p, const decoder *d, run r, bool stream) {
    float buffer[RWI_CPU_BLOCK];
    uint8_t gathered[RWI_CPU_BLOCK];
    uint16_t unpacked[RWI_CPU_BLOCK];
    int64_t code_bytes = rwi_mx_element_of(d->format).bits * RW_MX_BLOCK / 8;
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
        unpack_blocks(d->format, d->nibbles, code_bytes == p->code_stride[2] ? codes : gathered,
                      count, unpacked);
        for (int64_t b = 0; b < count; b++) {
            const uint16_t *block = unpacked + b * RW_MX_BLOCK;
            uint8_t scale = scales[b * p->scale_stride[2]];
            if (words)
                decode_block(d, RW_BF16, block, scale, target + b * block_bytes);
            else
                decode_block(d, RW_F32, block, scale, target + b * block_bytes);
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
    const decoder d = make_decoder(format, nibbles);
    while (begin < end) {
        run r = find_run(p, begin, end);
        dequantize_run(p, &d, r, stream);
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

/* Encodes consecutive blocks, one code in a byte each. */
RWI_INLINE void encode_floats(rw_mx_format format, const float *values, int64_t count,
                              uint8_t *scales, uint8_t *encoded) {
    float scaled[RWI_CPU_BLOCK];
    uint32_t largest[BATCH];
    float inverse[BATCH];
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
        encoded[i] = (uint8_t)rwi_mx_encode(format, scaled[i]);
    for (int64_t b = 0; b < count; b++) {
        if (scales[b] == 255)
            memset(encoded + b * RW_MX_BLOCK, 0, RW_MX_BLOCK);
    }
}

#if defined(__AVX512F__)

/* A block of scale 255, of zeros or of small numbers, apart from the loop over others, whose constants
 * stay in registers. */
static __attribute__((noinline)) void encode_other(rw_dtype dtype, rw_mx_format format,
                                                   const void *values, uint8_t *scale,
                                                   uint8_t *encoded) {
    float floats[RW_MX_BLOCK];
    rwi_cpu_load(dtype, values, RW_MX_BLOCK, floats);
    encode_floats(format, floats, 1, scale, encoded);
}

/* Blocks of a constant dtype, at most BATCH, `stride` elements apart; as bf16. The scales of all are
 * computed first, so that no block waits for its own. */
RWI_INLINE void encode_all(rw_dtype dtype, rw_mx_format format, const char *values, int64_t stride,
                           int64_t count, uint8_t *scales, uint8_t *encoded) {
    const rwi_small_float element = rwi_mx_element_of(format);
    _Alignas(64) uint16_t words[BATCH][RW_MX_BLOCK];
    uint16_t largest[BATCH] = {0}, offsets[BATCH];
    for (int64_t b = 0; b < count; b++) {
        const void *block = rwi_element(dtype, values, b * stride);
        rwi_two_lanes_prefetch(dtype, block);
        const __m512i x = rwi_load_odd_bf16(dtype, block);
        largest[b] = (uint16_t)rwi_largest_word(_mm512_and_si512(x, _mm512_set1_epi16(0x7FFF)));
        if (dtype != RW_BF16)
            _mm512_store_si512(words[b], x);
    }
#pragma omp simd
    for (int64_t b = 0; b < BATCH; b++) {
        scales[b] = rwi_mx_scale_for(format, (uint32_t)largest[b] << 16);
        offsets[b] = (uint16_t)((scales[b] - element.bias) * 128);
    }
    for (int64_t b = 0; b < count; b++) {
        const void *block = rwi_element(dtype, values, b * stride);
        uint8_t *codes = encoded + b * RW_MX_BLOCK;
        if (scales[b] < RWI_SMALL_FLOAT_LEAST_SCALE || scales[b] == 255) {
            encode_other(dtype, format, block, &scales[b], codes);
            continue;
        }
        const __m512i x = _mm512_loadu_si512(dtype == RW_BF16 ? block : words[b]);
        const __m512i found =
            rwi_small_float_encode_32(element, x, _mm512_set1_epi16((short)offsets[b]));
        _mm256_storeu_si256((void *)codes, _mm512_cvtepi16_epi8(found));
    }
}

/* Encodes the blocks of a batch, one code in a byte each. */
RWI_INLINE void encode_batch(const rwi_mx_params *p, rw_mx_format format, const char *values,
                             int64_t count, uint8_t *scales, uint8_t *encoded) {
    const int64_t stride = p->value_stride[2];
    if (p->dtype == RW_BF16)
        encode_all(RW_BF16, format, values, stride, count, scales, encoded);
    else if (p->dtype == RW_F16)
        encode_all(RW_F16, format, values, stride, count, scales, encoded);
    else
        encode_all(RW_F32, format, values, stride, count, scales, encoded);
}

#else

RWI_INLINE void encode_batch(const rwi_mx_params *p, rw_mx_format format, const char *values,
                             int64_t count, uint8_t *scales, uint8_t *encoded) {
    float buffer[RWI_CPU_BLOCK];
    const float *floats = buffer;
    if (p->value_stride[2] == RW_MX_BLOCK)
        floats = rwi_cpu_read(p->dtype, values, count * RW_MX_BLOCK, buffer);
    else
        for (int64_t b = 0; b < count; b++)
            rwi_cpu_load(p->dtype, rwi_element(p->dtype, values, b * p->value_stride[2]),
                         RW_MX_BLOCK, buffer + b * RW_MX_BLOCK);
    encode_floats(format, floats, count, scales, encoded);
}

#endif

RWI_INLINE void quantize_run(const rwi_mx_params *p, rw_mx_format format, rw_mx_nibbles nibbles,
                             run r, bool stream) {
    _Alignas(64) uint8_t encoded[RWI_CPU_BLOCK], packed[RWI_CPU_BLOCK];
    uint8_t scales[BATCH];
    const int64_t code_bytes = rwi_mx_element_of(format).bits * RW_MX_BLOCK / 8;
    const bool bytes = code_bytes == RW_MX_BLOCK, dense = p->code_stride[2] == code_bytes;
    for (int64_t first = 0; first < r.count; first += BATCH) {
        const int64_t count = rwi_min(BATCH, r.count - first);
        uint8_t *codes = r.codes + first * p->code_stride[2];
        uint8_t *target = dense && !stream ? codes : packed;
        encode_batch(p, format, rwi_element(p->dtype, r.values, first * p->value_stride[2]), count,
                     scales, bytes ? target : encoded);
        if (!bytes)
            pack_blocks(format, nibbles, encoded, count, target);
        if (dense && stream)
            rwi_cpu_stream(codes, packed, (size_t)(count * code_bytes));
        for (int64_t b = 0; b < count && !dense; b++)
            memcpy(codes + b * p->code_stride[2], packed + b * code_bytes, (size_t)code_bytes);
        for (int64_t b = 0; b < count; b++)
            r.scales[(first + b) * p->scale_stride[2]] = scales[b];
    }
}

RWI_INLINE void quantize(const rwi_mx_params *p, rw_mx_format format, rw_mx_nibbles nibbles,
                         int64_t begin, int64_t end) {
    const int64_t block_bytes = rwi_mx_element_of(format).bits * RW_MX_BLOCK / 8;
    const bool stream = rwi_row_count(&p->blocks) * block_bytes >= RWI_CPU_STREAM_BYTES;
    while (begin < end) {
        run r = find_run(p, begin, end);
        quantize_run(p, format, nibbles, r, stream);
        begin += r.count;
    }
    if (stream)
        rwi_cpu_stream_end();
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
