/* Microscaling formats on a GPU; the twin of mx_cpu.c. A few neighbouring threads take a block of
 * 32 elements. */
#include "launch.h"

#include "mx_kernel.h"

/* The block of this thread and its place in it, of THREADS that share one. */
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

/* ---- dequantize: a thread writes 16 bytes ---- */

template <rw_mx_format F, rw_dtype D, bool VECTORS>
static __global__ void __launch_bounds__(RWI_BLOCK)
    dequantize_kernel(rw_mx_dequantize_params p, rwi_fault_sink) {
    constexpr int VEC = rwi_vector_length<D>;
    const auto at = find_place<RW_MX_BLOCK / VEC>();
    if (at.block >= rwi_row_count(&p.blocks))
        return;
    const rwi_row_index index = rwi_row_find(&p.blocks, at.block);
    const int first = at.thread * VEC;
    uint64_t word = rwi_mx_load_group(F, p.nibbles, p.codes + rwi_row_offset(&index, p.code_stride),
                                      first / RWI_MX_GROUP);
    word >>= first % RWI_MX_GROUP * 8;
    const float scale = rwi_mx_scale(p.scales[rwi_row_offset(&index, p.scale_stride)]);
    float values[VEC];
#pragma unroll
    for (int n = 0; n < VEC; n++)
        values[n] = rwi_mx_decode(F, (uint32_t)(word >> (8 * n)) & 0xFFu) * scale;
    void *out = rwi_element(D, p.values, rwi_row_offset(&index, p.value_stride) + first);
    if constexpr (VECTORS) {
        rwi_store_vector<D>(out, 0, values);
    } else {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            rwi_store(D, out, n, values[n]);
    }
}

/* ---- quantize: a thread writes eight codes ---- */

/* Four elements; the address of the first is a multiple of four where VECTORS. */
template <rw_dtype D, bool VECTORS>
__device__ static inline void load_quad(const void *data, int64_t i, float *x) {
    typename rwi_storage<D>::type elements[4];
    if constexpr (VECTORS && D == RW_F32) {
        const uint4 words = *(const uint4 *)rwi_element(D, data, i);
        memcpy(elements, &words, sizeof words);
    } else if constexpr (VECTORS) {
        const uint2 words = *(const uint2 *)rwi_element(D, data, i);
        memcpy(elements, &words, sizeof words);
    } else {
        memcpy(elements, rwi_element(D, data, i), sizeof elements);
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
        x[n] = rwi_load(D, elements, n);
}

/* The largest of the bits without signs, over the threads of a block. */
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

template <rw_mx_format F, rw_dtype D, bool VECTORS>
static __global__ void __launch_bounds__(RWI_BLOCK)
    quantize_kernel(rw_mx_quantize_params p, rwi_fault_sink) {
    const auto at = find_place<RWI_MX_GROUPS>();
    const bool valid = at.block < rwi_row_count(&p.blocks);
    const rwi_row_index index = rwi_row_find(&p.blocks, valid ? at.block : 0);
    const void *values = rwi_element(D, p.values, rwi_row_offset(&index, p.value_stride));
    const rwi_mx_quads quads = rwi_mx_quads_of(F, p.nibbles, at.thread);
    float x[RWI_MX_GROUP];
    load_quad<D, VECTORS>(values, quads.first, x);
    load_quad<D, VECTORS>(values, quads.second, x + 4);
    const uint8_t scale = rwi_mx_scale_for(F, max_over_block(x));
    if (!valid)
        return;
    uint64_t word = 0;
    if (scale != 255) {
        const float inverse = rwi_mx_inverse_scale(scale);
#pragma unroll
        for (int n = 0; n < RWI_MX_GROUP; n++)
            word |= (uint64_t)rwi_mx_encode(F, x[n] * inverse) << (8 * n);
    }
    rwi_mx_store_group(F, p.nibbles, word, p.codes + rwi_row_offset(&index, p.code_stride),
                       at.thread);
    if (at.thread == 0)
        p.scales[rwi_row_offset(&index, p.scale_stride)] = scale;
}

/* ---- launches ---- */

template <rw_mx_format F> struct format_constant { static constexpr rw_mx_format value = F; };

template <typename Body> static rw_status dispatch_format(rw_mx_format format, Body body) {
    switch (format) {
    case RW_MXFP4_E2M1:
        break;
    case RW_MXFP6_E2M3:
        return body(format_constant<RW_MXFP6_E2M3>());
    case RW_MXFP6_E3M2:
        return body(format_constant<RW_MXFP6_E3M2>());
    case RW_MXFP8_E4M3:
        return body(format_constant<RW_MXFP8_E4M3>());
    case RW_MXFP8_E5M2:
        return body(format_constant<RW_MXFP8_E5M2>());
    }
    return body(format_constant<RW_MXFP4_E2M1>());
}

static bool has_vectors(const rwi_mx_params &p) {
    return rwi_rows_are_vectors(p.dtype, {p.values, p.value_stride, 3, RW_MX_BLOCK});
}

extern "C" rw_status rwi_hip_mx_dequantize(rwi_device *device, const rw_mx_dequantize_params *p) {
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        return dispatch_format(p->format, [&](auto format) {
            constexpr rw_dtype D = dtype.value;
            constexpr rw_mx_format F = format.value;
            const rwi_launch_shape shape =
                shape_for<RW_MX_BLOCK / rwi_vector_length<D>>(RWI_OP_mx_dequantize, *p);
            return has_vectors(*p) ? rwi_launch(device, shape, dequantize_kernel<F, D, true>, *p)
                                   : rwi_launch(device, shape, dequantize_kernel<F, D, false>, *p);
        });
    });
}

extern "C" rw_status rwi_hip_mx_quantize(rwi_device *device, const rw_mx_quantize_params *p) {
    const rwi_launch_shape shape = shape_for<RWI_MX_GROUPS>(RWI_OP_mx_quantize, *p);
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        return dispatch_format(p->format, [&](auto format) {
            constexpr rw_dtype D = dtype.value;
            constexpr rw_mx_format F = format.value;
            return has_vectors(*p) ? rwi_launch(device, shape, quantize_kernel<F, D, true>, *p)
                                   : rwi_launch(device, shape, quantize_kernel<F, D, false>, *p);
        });
    });
}
