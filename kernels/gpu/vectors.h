/* Accesses of 16 bytes, and conversions of their elements. */
#ifndef RWI_VECTORS_H
#define RWI_VECTORS_H

#include "gpu/registers.h"
#include "shared/dtype.h"

RWI_ASSERT_16_BIT_FLOATS;

/* Elements in 16 bytes. */
template <rw_dtype D> inline constexpr int rwi_vector_length = D == RW_F32 ? 4 : 8;

/* Whether rows that start at `data`, with num_strides strides (in elements), can be read in
 * vectors: every row starts on a multiple of 16 bytes and holds a whole number of vectors. True for
 * an absent tensor. */
typedef struct rwi_rows {
    const void *data;
    const int64_t *stride;
    int num_strides;
    int64_t columns;
} rwi_rows;

static inline bool rwi_rows_are_vectors(rw_dtype dtype, const rwi_rows &rows) {
    const int64_t length = 16 / (int64_t)rwi_dtype_size(dtype);
    if ((uintptr_t)rows.data % 16 != 0 || rows.columns % length != 0)
        return false;
    for (int i = 0; i < rows.num_strides; i++)
        if (rows.stride[i] % length != 0)
            return false;
    return true;
}

/* Whether all groups of `length` elements of 8 bits, a power of two, start at multiples of their
 * size. */
static inline bool rwi_codes_are_aligned(const void *data, const int64_t (&stride)[3],
                                         int64_t length) {
    return (uintptr_t)data % (uintptr_t)length == 0 && stride[0] % length == 0 &&
           stride[1] % length == 0 && stride[2] % length == 0;
}

/* The storage type of a dtype of data or masks. */
template <rw_dtype D> struct rwi_storage { typedef uint16_t type; };
template <> struct rwi_storage<RW_F32> { typedef float type; };
template <> struct rwi_storage<RW_U8> { typedef uint8_t type; };

/* VEC elements as stored in memory: four words where VEC is rwi_vector_length<D>, else single
 * elements. */
template <rw_dtype D, int VEC, bool WHOLE = VEC == rwi_vector_length<D>> struct rwi_packed {
    typename rwi_storage<D>::type elements[VEC];
};
template <rw_dtype D, int VEC> struct rwi_packed<D, VEC, true> { uint32_t words[4]; };

/* Elements i .. i + VEC - 1 of an array of D. Whole vectors start on multiples of 16 bytes and are
 * moved by one access. */
template <rw_dtype D, int VEC>
__device__ inline void rwi_load_packed(const void *data, int64_t i, rwi_packed<D, VEC> &packed) {
    if constexpr (VEC != rwi_vector_length<D>) {
        for (int n = 0; n < VEC; n++)
            packed.elements[n] = ((const typename rwi_storage<D>::type *)data)[i + n];
    } else {
        const uint4 chunk = *(const uint4 *)rwi_element(D, data, i);
        packed = {{chunk.x, chunk.y, chunk.z, chunk.w}};
    }
}

template <rw_dtype D, int VEC>
__device__ inline void rwi_store_packed(void *data, int64_t i, const rwi_packed<D, VEC> &packed) {
    if constexpr (VEC != rwi_vector_length<D>) {
        for (int n = 0; n < VEC; n++)
            ((typename rwi_storage<D>::type *)data)[i + n] = packed.elements[n];
    } else {
        const uint32_t(&words)[4] = packed.words;
        *(uint4 *)rwi_element(D, data, i) = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

/* Packs two 16-bit elements into a word, the first in its low half.
 *
 * Halves are packed and unpacked by shifts of whole words: clang-19 vectorizes 16-bit shifts
 * (v_pk_lshrrev_b16) and then uses halves of the result that hold other data.
 */
template <rw_dtype D> __device__ inline uint32_t rwi_pack_halves(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t packed;
    if constexpr (D == RW_F16)
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    else
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    const uint32_t halves[2] = {D == RW_F16 ? rwi_f32_to_f16(low) : rwi_f32_to_bf16(low),
                                D == RW_F16 ? rwi_f32_to_f16(high) : rwi_f32_to_bf16(high)};
    return halves[1] << 16 | halves[0];
#endif
}

/* The same for numbers that D has: bf16 are upper halves. */
template <rw_dtype D> __device__ inline uint32_t rwi_pack_exact_halves(float low, float high) {
    if constexpr (D == RW_BF16)
        return rwi_f32_bits(low) >> 16 | (rwi_f32_bits(high) & 0xFFFF0000u);
    else
        return rwi_pack_halves<D>(low, high);
}

/* Element n, 0 or 1, of a word. bf16 as rwi_load() does, but in one step. */
template <rw_dtype D> __device__ inline float rwi_unpack_half(uint32_t word, int n) {
    if constexpr (D == RW_BF16)
        return rwi_f32_from_bits(n == 0 ? word << 16 : word & 0xFFFF0000u);
    else
        return rwi_f16_to_f32((uint16_t)(n == 0 ? word : word >> 16));
}

/* A single element as f32. Its bits are one register: clang-19 would convert several 16-bit elements by
 * 16-bit shifts, and use halves of the result that hold other data. */
template <rw_dtype D>
__device__ static __forceinline__ float rwi_widen(typename rwi_storage<D>::type element) {
    if constexpr (D == RW_F32)
        return element;
    else
        return rwi_unpack_half<D>((uint32_t)rwi_computed_here((int)element), 0);
}

/* The elements as f32. */
template <rw_dtype D, int VEC>
__device__ inline void rwi_unpack(const rwi_packed<D, VEC> &packed, float (&x)[VEC]) {
    if constexpr (VEC != rwi_vector_length<D>) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = rwi_widen<D>(packed.elements[n]);
    } else if constexpr (D == RW_F32) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = rwi_f32_from_bits(packed.words[n]);
    } else {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = rwi_unpack_half<D>(packed.words[n / 2], n % 2);
    }
}

/* The nearest elements of D. */
template <rw_dtype D, int VEC>
__device__ inline void rwi_pack(const float (&x)[VEC], rwi_packed<D, VEC> &packed) {
    if constexpr (VEC != rwi_vector_length<D>) {
        for (int n = 0; n < VEC; n++)
            rwi_store(D, packed.elements, n, x[n]);
    } else {
#pragma unroll
        for (int n = 0; n < 4; n++)
            if constexpr (D == RW_F32)
                packed.words[n] = rwi_f32_bits(x[n]);
            else
                packed.words[n] = rwi_pack_halves<D>(x[2 * n], x[2 * n + 1]);
    }
}

template <rw_dtype D, int VEC>
__device__ inline void rwi_load_vector(const void *data, int64_t i, float (&x)[VEC]) {
    rwi_packed<D, VEC> packed;
    rwi_load_packed(data, i, packed);
    rwi_unpack(packed, x);
}

template <rw_dtype D, int VEC>
__device__ inline void rwi_store_vector(void *data, int64_t i, const float (&x)[VEC]) {
    rwi_packed<D, VEC> packed;
    rwi_pack(x, packed);
    rwi_store_packed(data, i, packed);
}

/* The nearest elements of an 8-bit dtype; VEC codes are written at once. */
template <int VEC>
__device__ inline void rwi_store_codes(rw_dtype dtype, uint8_t *out, const float (&x)[VEC]) {
    if constexpr (VEC == 1) {
        rwi_store(dtype, out, 0, x[0]);
    } else {
        uint32_t words[VEC / 4] = {};
#pragma unroll
        for (int n = 0; n < VEC; n++)
            words[n / 4] |= (uint32_t)rwi_f32_to_f8(dtype, x[n]) << n % 4 * 8;
#pragma unroll
        for (int n = 0; n < VEC / 4; n++)
            ((uint32_t *)out)[n] = words[n];
    }
}

/* Element i, bit for bit. */
template <rw_dtype D>
__device__ inline void rwi_copy_element(const void *in, void *out, int64_t i) {
    if constexpr (rwi_vector_length<D> == 4)
        ((uint32_t *)out)[i] = ((const uint32_t *)in)[i];
    else
        ((uint16_t *)out)[i] = ((const uint16_t *)in)[i];
}

/* Elements i .. i + VEC - 1, bit for bit; one access where VEC is rwi_vector_length<D>. */
template <rw_dtype D, int VEC>
__device__ inline void rwi_copy_vector(const void *in, void *out, int64_t i) {
    if constexpr (VEC == rwi_vector_length<D>)
        *(uint4 *)rwi_element(D, out, i) = *(const uint4 *)rwi_element(D, in, i);
    else
        for (int n = 0; n < VEC; n++)
            rwi_copy_element<D>(in, out, i + n);
}

/* Of each 16-bit float in a word whose exponent has all bits set, the highest bit. */
template <rw_dtype D> __device__ static __forceinline__ uint32_t rwi_nonfinite_bits(uint32_t two) {
    static_assert(D == RW_F16 || D == RW_BF16, "two floats of 16 bits");
    const uint32_t exponents = D == RW_F16 ? 0x7C007C00u : 0x7F807F80u;
    return ((~two & exponents) - 0x00010001u) & 0x80008000u;
}

/* Not 0 if any of eight 16-bit floats is Inf or NaN. */
template <rw_dtype D> __device__ static __forceinline__ uint32_t rwi_any_nonfinite(const uint4 &x) {
    return rwi_nonfinite_bits<D>(x.x) | rwi_nonfinite_bits<D>(x.y) | rwi_nonfinite_bits<D>(x.z) |
           rwi_nonfinite_bits<D>(x.w);
}

/* The same eight, with 0 in place of Inf and NaN. */
template <rw_dtype D> __device__ static __forceinline__ uint4 rwi_zero_nonfinite(const uint4 &x) {
    const auto zero = [](uint32_t two) {
        return two & ~((rwi_nonfinite_bits<D>(two) >> 15) * 0xFFFFu);
    };
    return make_uint4(zero(x.x), zero(x.y), zero(x.z), zero(x.w));
}

#endif
