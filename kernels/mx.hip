/* Microscaling formats on a GPU; the twin of mx_cpu.c. Several adjacent threads share a block of 32
 * elements. */
#include "gpu/dispatch.h"
#include "gpu/launch.h"
#include "gpu/row_offsets.h"
#include "gpu/vectors.h"
#include "mx_params.h"

/* The parameters of an operation, and whether the codes that a thread moves are aligned to
 * multiples of piece_of<> bytes. */
struct mx_launch {
    rwi_mx_params op;
    bool aligned;
};

/* The largest power of two that divides BYTES, and the integer type of that size. */
template <int BYTES> inline constexpr int piece_of = BYTES & -BYTES;
template <int BYTES> struct piece { typedef uint8_t type; };
template <> struct piece<2> { typedef uint16_t type; };
template <> struct piece<4> { typedef uint32_t type; };
template <> struct piece<8> { typedef uint64_t type; };

/* The block of this thread and its place among the THREADS that share it. */
template <int THREADS> struct place {
    int64_t block;
    int thread;
};

template <int THREADS> __device__ static inline place<THREADS> find_place() {
    const int blocks = RWI_BLOCK / THREADS;
    return {rwi_block_row() * blocks + threadIdx.x / THREADS, (int)(threadIdx.x % THREADS)};
}

template <int THREADS> static rwi_launch_shape shape_for(rwi_op op, const rwi_mx_params &p) {
    const int64_t blocks = rwi_row_count(&p.blocks);
    return rwi_launch_rows(op, rwi_ceil_div(blocks * THREADS, RWI_BLOCK), dim3(RWI_BLOCK));
}

/* ---- dequantize: a thread writes 16 bytes in each half of a block ---- */

#define HALF (RW_MX_BLOCK / 2)

/* The position of codes in the bytes that a thread reads. */
template <rw_mx_format F, rw_mx_nibbles NIBBLES> struct code_layout {
    static constexpr rw_mx_format format = F;
    static constexpr rw_mx_nibbles nibbles = NIBBLES;
    static constexpr bool split = F == RW_MXFP4_E2M1 && NIBBLES == RW_MX_SPLIT;
    static constexpr bool swapped = F == RW_MXFP4_E2M1 && NIBBLES == RW_MX_HIGH_FIRST;
    /* rwi_mx_element_of(F).bits, as a constant */
    static constexpr int bits = F == RW_MXFP4_E2M1                         ? 4
                                : F == RW_MXFP6_E2M3 || F == RW_MXFP6_E3M2 ? 6
                                                                           : 8;
    static constexpr int step = split ? 8 : bits; /* bits from one code to the next */

    template <int COUNT> static constexpr int bytes = COUNT *step / 8; /* bytes of COUNT codes */
};

/* BYTES bytes as a little-endian number. */
template <int BYTES, int PIECE> __device__ static inline uint64_t load_pieces(const uint8_t *from) {
    const auto *pieces = (const typename piece<PIECE>::type *)from;
    uint64_t word = 0;
#pragma unroll
    for (int n = 0; n < BYTES / PIECE; n++)
        word |= (uint64_t)pieces[n] << (8 * PIECE * n);
    return word;
}

template <int BYTES>
__device__ static inline uint64_t load_bytes(const uint8_t *from, bool aligned) {
    return aligned ? load_pieces<BYTES, piece_of<BYTES>>(from) : load_pieces<BYTES, 1>(from);
}

/* The codes of VEC elements in each half of a block, from the lowest bits on. */
template <typename L, int VEC>
__device__ static inline void load_codes(const uint8_t *codes, bool aligned, int thread,
                                         uint64_t (&words)[2]) {
    constexpr int bytes = L::template bytes<VEC>;
    words[0] = load_bytes<bytes>(codes + thread * bytes, aligned);
    if constexpr (L::split)
        words[1] = words[0] >> 4;
    else
        words[1] = load_bytes<bytes>(codes + L::template bytes<HALF> + thread * bytes, aligned);
}

/* The value of code n: its bits are shifted to the place of f32's mantissa and exponent. Subnormal
 * floats are not slower on a GPU. */
template <typename L, int VEC> __device__ static inline float decode(uint64_t word, int n) {
    constexpr int bits = L::bits;
    const rwi_small_float element = rwi_mx_element_of(L::format);
    const int at = (L::swapped ? n ^ 1 : n) * L::step;
    const uint32_t code = VEC * L::step <= 32 ? (uint32_t)word >> at : (uint32_t)(word >> at);
    const uint32_t rest_mask = (1u << (bits - 1)) - 1u, rest = code & rest_mask;
    const uint32_t mask = 0x80000000u | rest_mask << (23 - element.mantissa);
    const int32_t shifted = (int32_t)(code << (32 - bits)) >> (9 + element.mantissa - bits);
    const float power = rwi_f32_from_bits((uint32_t)(254 - element.bias) << 23);
    const float value = rwi_f32_from_bits((uint32_t)shifted & mask) * power;
    if (L::format == RW_MXFP8_E4M3)
        return rest == 0x7Fu ? NAN : value;
    if (L::format == RW_MXFP8_E5M2)
        return rest >= 0x7Cu ? value * INFINITY + (rest == 0x7Cu ? 0.0f : NAN) : value;
    return value;
}

template <typename L, rw_dtype D, bool VECTORS>
static __global__ void __launch_bounds__(RWI_BLOCK) dequantize_kernel(mx_launch p, rwi_fault_sink) {
    rwi_begin_kernel();
    constexpr int VEC = rwi_vector_length<D>;
    const auto at = find_place<HALF / VEC>();
    if (at.block >= rwi_row_count(&p.op.blocks))
        return;
    int64_t offset[3];
    rwi_row_offsets(p.op.blocks, at.block, {p.op.code_stride, p.op.scale_stride, p.op.value_stride},
                    offset);
    uint64_t words[2];
    load_codes<L, VEC>(p.op.codes + offset[0], p.aligned, at.thread, words);
    const float scale = rwi_mx_scale(p.op.scales[offset[1]]);
    void *out = rwi_element(D, p.op.values, offset[2]);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int first = half * HALF + at.thread * VEC;
        float values[VEC];
#pragma unroll
        for (int n = 0; n < VEC; n++)
            values[n] = decode<L, VEC>(words[half], n) * scale;
        if constexpr (VECTORS) {
            rwi_store_vector<D>(out, first, values);
        } else {
#pragma unroll
            for (int n = 0; n < VEC; n++)
                rwi_store(D, out, first + n, values[n]);
        }
    }
}

/* ---- quantize: a thread writes eight codes of a block ---- */

template <int BYTES, int PIECE>
__device__ static inline void store_pieces(uint8_t *to, uint64_t word) {
    typedef typename piece<PIECE>::type type;
#pragma unroll
    for (int n = 0; n < BYTES / PIECE; n++)
        ((type *)to)[n] = (type)(word >> (8 * PIECE * n));
}

template <int BYTES>
__device__ static inline void store_bytes(uint8_t *to, uint64_t word, bool aligned) {
    if (aligned)
        store_pieces<BYTES, piece_of<BYTES>>(to, word);
    else
        store_pieces<BYTES, 1>(to, word);
}

/* Four elements; with VECTORS, the address is a multiple of that of four elements. */
template <rw_dtype D, bool VECTORS>
__device__ static inline void load_quad(const void *data, int64_t i, float *x) {
    typename rwi_storage<D>::type elements[4];
    const void *from = rwi_element(D, data, i);
    if constexpr (VECTORS && D == RW_F32) {
        const uint4 words = *(const uint4 *)from;
        memcpy(elements, &words, sizeof words);
    } else if constexpr (VECTORS) {
        const uint2 words = *(const uint2 *)from;
        memcpy(elements, &words, sizeof words);
    } else {
        memcpy(elements, from, sizeof elements);
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
        x[n] = rwi_load(D, elements, n);
}

/* The largest value without its sign, as bits, over the threads of a block. */
__device__ static inline uint32_t max_over_block(const float (&x)[RWI_MX_GROUP]) {
    uint32_t most = 0;
#pragma unroll
    for (int n = 0; n < RWI_MX_GROUP; n++) {
        const uint32_t bits = rwi_f32_bits(x[n]) & 0x7FFFFFFFu;
        most = bits > most ? bits : most;
    }
    for (int distance = RWI_MX_GROUPS / 2; distance > 0; distance /= 2) {
        const uint32_t other = __shfl_xor(most, distance, RWI_MX_GROUPS);
        most = other > most ? other : most;
    }
    return most;
}

/* The codes of eight elements, one per byte. */
template <rw_mx_format F>
__device__ static inline uint64_t encode_group(const float (&x)[RWI_MX_GROUP], uint8_t scale) {
    if (scale == 255)
        return 0;
    const float inverse = rwi_mx_inverse_scale(scale);
    uint64_t word = 0;
#pragma unroll
    for (int n = 0; n < RWI_MX_GROUP; n++)
        word |= (uint64_t)rwi_mx_encode(F, x[n] * inverse) << (8 * n);
    return word;
}

template <typename L, rw_dtype D, bool VECTORS>
static __global__ void __launch_bounds__(RWI_BLOCK) quantize_kernel(mx_launch p, rwi_fault_sink) {
    rwi_begin_kernel();
    const auto at = find_place<RWI_MX_GROUPS>();
    const bool valid = at.block < rwi_row_count(&p.op.blocks);
    int64_t offset[3];
    rwi_row_offsets(p.op.blocks, valid ? at.block : 0,
                    {p.op.code_stride, p.op.scale_stride, p.op.value_stride}, offset);
    const void *values = rwi_element(D, p.op.values, offset[2]);
    const rwi_mx_quads quads = rwi_mx_quads_of(L::format, L::nibbles, at.thread);
    float x[RWI_MX_GROUP];
    load_quad<D, VECTORS>(values, quads.first, x);
    load_quad<D, VECTORS>(values, quads.second, x + 4);
    const uint8_t scale = rwi_mx_scale_for(L::format, max_over_block(x)); /* by all threads */
    if (!valid)
        return;
    const uint64_t word =
        rwi_mx_pack_group(L::format, L::nibbles, encode_group<L::format>(x, scale));
    store_bytes<L::bits>(p.op.codes + offset[0] + at.thread * L::bits, word, p.aligned);
    if (at.thread == 0)
        p.op.scales[offset[1]] = scale;
}

/* ---- launches ---- */

template <typename Body>
static rw_status dispatch_layout(rw_mx_format format, rw_mx_nibbles nibbles, Body body) {
    switch (format) {
    case RW_MXFP4_E2M1:
        break;
    case RW_MXFP6_E2M3:
        return body(code_layout<RW_MXFP6_E2M3, RW_MX_LOW_FIRST>());
    case RW_MXFP6_E3M2:
        return body(code_layout<RW_MXFP6_E3M2, RW_MX_LOW_FIRST>());
    case RW_MXFP8_E4M3:
        return body(code_layout<RW_MXFP8_E4M3, RW_MX_LOW_FIRST>());
    case RW_MXFP8_E5M2:
        return body(code_layout<RW_MXFP8_E5M2, RW_MX_LOW_FIRST>());
    }
    switch (nibbles) {
    case RW_MX_LOW_FIRST:
        break;
    case RW_MX_HIGH_FIRST:
        return body(code_layout<RW_MXFP4_E2M1, RW_MX_HIGH_FIRST>());
    case RW_MX_SPLIT:
        return body(code_layout<RW_MXFP4_E2M1, RW_MX_SPLIT>());
    }
    return body(code_layout<RW_MXFP4_E2M1, RW_MX_LOW_FIRST>());
}

static bool has_vectors(const rwi_mx_params &p) {
    return rwi_rows_are_vectors(p.dtype, {p.values, p.value_stride, 3, RW_MX_BLOCK});
}

/* Whether the codes of every block start on a multiple of `bytes`. */
static bool has_aligned_codes(const rwi_mx_params &p, int bytes) {
    return (uintptr_t)p.codes % bytes == 0 && p.code_stride[0] % bytes == 0 &&
           p.code_stride[1] % bytes == 0 && p.code_stride[2] % bytes == 0;
}

extern "C" rw_status rwi_hip_mx_dequantize(rwi_device *device, const rw_mx_dequantize_params *op) {
    return rwi_dispatch_float(device, op->dtype, [&](auto dtype) {
        return dispatch_layout(op->format, op->nibbles, [&](auto layout) {
            typedef decltype(layout) L;
            constexpr rw_dtype D = dtype.value;
            constexpr int VEC = rwi_vector_length<D>;
            const mx_launch p = {*op, has_aligned_codes(*op, piece_of<L::template bytes<VEC>>)};
            const rwi_launch_shape shape = shape_for<HALF / VEC>(RWI_OP_mx_dequantize, *op);
            return has_vectors(*op) ? rwi_launch(device, shape, dequantize_kernel<L, D, true>, p)
                                    : rwi_launch(device, shape, dequantize_kernel<L, D, false>, p);
        });
    });
}

extern "C" rw_status rwi_hip_mx_quantize(rwi_device *device, const rw_mx_quantize_params *op) {
    const rwi_launch_shape shape = shape_for<RWI_MX_GROUPS>(RWI_OP_mx_quantize, *op);
    return rwi_dispatch_float(device, op->dtype, [&](auto dtype) {
        return dispatch_layout(op->format, op->nibbles, [&](auto layout) {
            typedef decltype(layout) L;
            constexpr rw_dtype D = dtype.value;
            const mx_launch p = {*op, has_aligned_codes(*op, piece_of<L::bits>)};
            return has_vectors(*op) ? rwi_launch(device, shape, quantize_kernel<L, D, true>, p)
                                    : rwi_launch(device, shape, quantize_kernel<L, D, false>, p);
        });
    });
}
