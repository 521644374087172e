/* What .hip files share: launches, dispatch over dtypes, 16-byte accesses, faults.
 *
 * A .hip file holds the kernels of one family, and one entry for each operation:
 *
 *   #include "launch.h"
 *   #include "thing_kernel.h"
 *
 *   template <rw_dtype D, int VEC>
 *   static __global__ void __launch_bounds__(RWI_BLOCK)
 *   thing_kernel(rw_thing_params p, rwi_fault_sink sink) {
 *       const int64_t item = rwi_item();
 *       if (item >= thing_work(&p).items)
 *           return;
 *       float x[VEC];
 *       rwi_load_vector<D>(p.in, item * VEC, x);
 *       ...
 *       rwi_store_vector<D>(p.out, item * VEC, x);
 *   }
 *
 *   extern "C" rw_status rwi_hip_thing(rwi_device *device, const rw_thing_params *p) {
 *       const rwi_launch_shape shape = rwi_launch_items(RWI_OP_thing, thing_work(p).items);
 *       return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
 *           constexpr rw_dtype D = dtype.value;
 *           return rwi_launch(device, shape, thing_kernel<D, rwi_vector_length<D>>, *p);
 *       });
 *   }
 *
 * Every kernel takes its parameters and a fault sink, by value. Kernels make no assumption about
 * the wave: it is 32 or 64 lanes and does not run in lockstep.
 */
#ifndef RWI_LAUNCH_H
#define RWI_LAUNCH_H

#include "hip/hip_device.h"

#include "dtype.h"
#include "rows.h"

/* Threads of a block, where a kernel has no reason for another number. */
#define RWI_BLOCK 256

/* ---- faults ---- */

/* A function that is rarely called: apart from its callers, whose registers it does not count among,
 * where a call needs no memory of its own (AMD's takes scratch). */
#if defined(__CUDA_ARCH__)
#define RWI_RARE __noinline__
#else
#define RWI_RARE
#endif

/* Reports that token `token` (b * seq + s, below 2^48) has the id `id`, which makes no sense. What is
 * kept is the first launch that reports and in it the lowest token, however the threads run; all
 * threads that report one token must report the same id.
 *
 * No thread waits for another: lanes of a wave may run in lockstep, where one that waits for its
 * neighbour would wait forever. Each part of the id is kept in one word below the token, so that the
 * lowest token decides every word by itself. The launches of a stream run one after another, so
 * that the first to report is the earliest. */
RWI_RARE __device__ inline void rwi_fault_raise(rwi_fault_sink sink, int64_t token, int64_t id) {
    rwi_fault_record *record = sink.record;
    const rwi_fault_word claim = RWI_FAULT_CLAIM(sink.launch, sink.op);
    const rwi_fault_word claimed = atomicCAS(&record->claim, RWI_NO_FAULT, claim);
    if (claimed != RWI_NO_FAULT && claimed != claim)
        return;
    if (atomicMin(&record->token, (rwi_fault_word)token) <= (rwi_fault_word)token)
        return;
#pragma unroll
    for (int part = 0; part < RWI_FAULT_PARTS; part++) {
        const rwi_fault_word bits = (rwi_fault_word)id >> (16 * part) & 0xFFFFu;
        atomicMin(&record->parts[part], (rwi_fault_word)token << 16 | bits);
    }
    *(volatile uint32_t *)rwi_global((const void *)sink.raised) = 1;
}

/* ---- launches ---- */

/* What a block gets of dynamic shared memory without asking: on AMD's platform all there is,
 * on NVIDIA's 48 KiB with its static arrays. */
#if defined(__HIP_PLATFORM_AMD__)
#define RWI_UNASKED_SHARED_BYTES ((size_t)64 * 1024)
#else
#define RWI_UNASKED_SHARED_BYTES ((size_t)32 * 1024)
#endif

typedef struct rwi_launch_shape {
    rwi_op op;
    dim3 grid;
    dim3 block;
    size_t shared_bytes; /* of HIP_DYNAMIC_SHARED */
} rwi_launch_shape;

/* One block a row (a token, say): kernels return where rwi_block_row() is past the last. */
static inline rwi_launch_shape rwi_launch_rows(rwi_op op, int64_t rows, dim3 block) {
    const int64_t most_blocks = 1 << 22; /* along x, so that x counts fewer than 2^32 threads */
    rwi_launch_shape shape = {op, dim3(1), block, 0};
    shape.grid.x = (uint32_t)rwi_min(rows, most_blocks);
    shape.grid.y = (uint32_t)rwi_ceil_div(rows, most_blocks);
    return shape;
}

__device__ inline int64_t rwi_block_row() {
    return (int64_t)blockIdx.y * gridDim.x + blockIdx.x;
}

/* Lines of blocks: along x the pieces of a line, so that nobody divides to find them. */
static inline rwi_launch_shape rwi_launch_lines(rwi_op op, int64_t lines, int64_t pieces,
                                                dim3 block) {
    const int64_t layers = rwi_ceil_div(lines, 65535);
    rwi_launch_shape shape = {op, dim3((uint32_t)pieces), block, 0};
    shape.grid.y = layers == 0 ? 0 : (uint32_t)rwi_ceil_div(lines, layers);
    shape.grid.z = (uint32_t)layers;
    return shape;
}

__device__ inline int64_t rwi_block_line() {
    return (int64_t)blockIdx.z * gridDim.y + blockIdx.y;
}

/* One thread an item: kernels return where rwi_item() is past the last. */
static inline rwi_launch_shape rwi_launch_items(rwi_op op, int64_t items) {
    return rwi_launch_rows(op, rwi_ceil_div(items, RWI_BLOCK), dim3(RWI_BLOCK));
}

__device__ inline int64_t rwi_item() {
    return rwi_block_row() * RWI_BLOCK + threadIdx.x;
}

/* Launches kernel(params, sink) on the device's stream. Shapes past the limits of a grid (2^31 - 1
 * blocks along x, 65535 along y and z, 2^32 threads in all) are the runtime's error, not clipped.
 */
template <typename Params>
static inline rw_status rwi_launch(rwi_device *device, const rwi_launch_shape &shape,
                                   void (*kernel)(Params, rwi_fault_sink), const Params &params) {
    rwi_hip_device *hip = (rwi_hip_device *)device;
    if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0)
        return RW_OK;
    const rwi_device_scope scope(device);
    if (scope.status != RW_OK)
        return scope.status;
    if (shape.shared_bytes > RWI_UNASKED_SHARED_BYTES) {
        const rw_status status = rwi_hip_status(
            device,
            hipFuncSetAttribute((const void *)kernel, hipFuncAttributeMaxDynamicSharedMemorySize,
                                (int)shape.shared_bytes),
            "hipFuncSetAttribute");
        if (status != RW_OK)
            return status;
    }
    const rwi_fault_sink sink = {hip->record, hip->raised_on_device, ++hip->launches, shape.op};
    hipLaunchKernelGGL(kernel, shape.grid, shape.block, shape.shared_bytes, hip->stream, params,
                       sink);
    return rwi_hip_status(device, hipGetLastError(), "a kernel launch");
}

/* ---- registers ---- */

/* x, computed where this stands: compilers neither put it off, nor compute what follows from it ahead
 * of a loop around it, in registers that are needed meanwhile. */
__device__ inline float rwi_computed_here(float x) {
#if defined(__HIP_DEVICE_COMPILE__) && __HIP_DEVICE_COMPILE__
    asm volatile("" : "+v"(x));
#elif defined(__CUDA_ARCH__)
    asm volatile("" : "+f"(x));
#endif
    return x;
}

__device__ inline int rwi_computed_here(int x) {
#if defined(__HIP_DEVICE_COMPILE__) && __HIP_DEVICE_COMPILE__
    asm volatile("" : "+v"(x));
#elif defined(__CUDA_ARCH__)
    asm volatile("" : "+r"(x));
#endif
    return x;
}

/* ---- rows ---- */

/* Where a row starts in N tensors. A GPU feels products of 64 bits: where the rows have one axis,
 * as they mostly do, there is one for each tensor. */
template <int N>
__device__ inline void rwi_row_offsets(const rwi_row_axes &axes, int64_t row,
                                       const int64_t *const (&strides)[N], int64_t (&offsets)[N]) {
    if (axes.single) {
#pragma unroll
        for (int n = 0; n < N; n++)
            offsets[n] = row * strides[n][2];
    } else {
        const rwi_row_index index = rwi_row_find(&axes, row);
#pragma unroll
        for (int n = 0; n < N; n++)
            offsets[n] = rwi_row_offset(&index, strides[n]);
    }
}

/* ---- dtypes as template arguments ---- */

template <rw_dtype D> struct rwi_dtype_constant { static constexpr rw_dtype value = D; };

/* Returns body(rwi_dtype_constant<dtype>()) for a float dtype. */
template <typename Body>
static inline rw_status rwi_dispatch_float(rwi_device *device, rw_dtype dtype, Body body) {
    switch (dtype) {
    case RW_F32:
        return body(rwi_dtype_constant<RW_F32>());
    case RW_F16:
        return body(rwi_dtype_constant<RW_F16>());
    case RW_BF16:
        return body(rwi_dtype_constant<RW_BF16>());
    case RW_I32:
    case RW_I64:
    case RW_U8:
        break;
    }
    return rwi_hip_unsupported_dtype(device, dtype);
}

/* ---- 16-byte accesses ---- */

/* Elements in 16 bytes. */
template <rw_dtype D> inline constexpr int rwi_vector_length = D == RW_F32 ? 4 : 8;

/* Whether rows that start at `data`, `num_strides` strides apart (in elements), can be read in
 * vectors: every row starts on 16 bytes and holds a whole number of vectors. An absent tensor can.
 */
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

/* How a float dtype lies in memory. */
template <rw_dtype D> struct rwi_storage { typedef uint16_t type; };
template <> struct rwi_storage<RW_F32> { typedef float type; };

/* VEC elements as they lie in memory: four words where VEC is rwi_vector_length<D>, else one by one.
 */
template <rw_dtype D, int VEC, bool WHOLE = VEC == rwi_vector_length<D>> struct rwi_packed {
    typename rwi_storage<D>::type elements[VEC];
};
template <rw_dtype D, int VEC> struct rwi_packed<D, VEC, true> { uint32_t words[4]; };

/* Elements i .. i + VEC - 1 of an array of D. Whole vectors lie on 16 bytes; one access moves them.
 */
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

/* Two halves of a word, the first in its low half.
 *
 * Halves are put together and taken apart by shifts of whole words: clang-19 makes vectors of 16-bit
 * shifts, v_pk_lshrrev_b16, and then uses halves of them that hold something else. */
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

/* The elements as f32. */
template <rw_dtype D, int VEC>
__device__ inline void rwi_unpack(const rwi_packed<D, VEC> &packed, float (&x)[VEC]) {
    if constexpr (VEC != rwi_vector_length<D>) {
        for (int n = 0; n < VEC; n++)
            x[n] = rwi_load(D, packed.elements, n);
    } else if constexpr (D == RW_F32) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = rwi_f32_from_bits(packed.words[n]);
    } else {
#pragma unroll
        for (int n = 0; n < VEC; n++) {
            const uint32_t word = packed.words[n / 2];
            if constexpr (D == RW_BF16) /* as rwi_load() does, but in one step */
                x[n] = rwi_f32_from_bits(n % 2 == 0 ? word << 16 : word & 0xFFFF0000u);
            else
                x[n] = rwi_f16_to_f32((uint16_t)(n % 2 == 0 ? word : word >> 16));
        }
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

#endif
