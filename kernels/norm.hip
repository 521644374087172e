/* RMSNorm and LayerNorm on a GPU; the twin of norm_cpu.c. Threads along x share a row and keep it in
 * registers between the sum of squares and the scaling; threads along y take different rows. */
#include "gpu/dispatch.h"
#include "gpu/launch.h"
#include "gpu/row_offsets.h"
#include "gpu/squares.h"
#include "norm_params.h"

/* Lanes that reduce by shuffles: the smallest wave size. */
#define LANES 32

/* Vectors that a thread keeps where there are enough rows to occupy the GPU: with one, too much of its
 * time is the reduction. And the maximum number of threads of such a block. */
#define KEPT 4
#define KEPT_THREADS 512
#define MANY_ROWS 512

#define LONG_THREADS 1024

/* The rows of the tensors; each threadIdx.y has its own row. */
struct norm_row {
    const void *x;
    const void *residual;
    void *sum;
    void *out;
    bool valid;
};

template <rw_dtype D, bool RESIDUAL>
__device__ static inline norm_row find_row(const rwi_norm_params &p) {
    const int64_t number = rwi_block_row() * blockDim.y + threadIdx.y;
    const bool valid = number < rwi_row_count(&p.rows);
    int64_t offset[2];
    rwi_row_offsets(p.rows, valid ? number : 0, {p.x_stride, p.out_stride}, offset);
    norm_row row = {rwi_element(D, p.x, offset[0]), nullptr, nullptr,
                    rwi_element(D, p.out, offset[1]), valid};
    if constexpr (RESIDUAL) {
        rwi_row_offsets(p.rows, valid ? number : 0, {p.residual_stride, p.sum_stride}, offset);
        row.residual = rwi_element(D, p.residual, offset[0]);
        row.sum = rwi_element(D, p.sum, offset[1]);
    }
    return row;
}

/* x += residual; the sum is written. */
template <rw_dtype D, int VEC>
__device__ static inline void add_residual(const norm_row &row, int64_t i,
                                           const rwi_packed<D, VEC> &residual,
                                           rwi_packed<D, VEC> &x) {
    float sum[VEC], other[VEC];
    rwi_unpack(x, sum);
    rwi_unpack(residual, other);
#pragma unroll
    for (int n = 0; n < VEC; n++)
        sum[n] += other[n];
    rwi_pack(sum, x);
    rwi_store_packed(row.sum, i, x);
}

/* The sum over the threads of a row, returned to each of them. Every thread of the block must call.
 */
template <typename Sum>
__device__ static inline double sum_over_row(Sum sum, Sum (&waves)[LONG_THREADS / LANES]) {
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        if (distance < (int)blockDim.x)
            sum += __shfl_xor(sum, distance, LANES);
    if (blockDim.x <= LANES) /* else the block has one row */
        return (double)sum;
    if (threadIdx.x % LANES == 0)
        waves[threadIdx.x / LANES] = sum;
    __syncthreads();
    double total = 0.0;
    for (int wave = 0; wave < (int)blockDim.x / LANES; wave++)
        total += (double)waves[wave];
    return total;
}

/* 1 / rms of a row. squares(factor) returns this thread's sum of (factor * x)^2. The rows of a wave
 * are summed again, scaled, where the squares of one overflow or underflow in f32: rarely. */
template <typename Squares>
__device__ static inline rwi_rms_factor find_factor(const rwi_norm_params &p,
                                                    const Squares &squares) {
    __shared__ float waves[2][LONG_THREADS / LANES];
    const double sum = sum_over_row(squares(1.0f), waves[0]);
    const bool fits = sum > 0x1p-80 && sum < 0x1p100;
    if (!__any(!fits))
        return rms_norm_factor(&p, sum);
    const double scale = fits ? 1.0 : sum < 1.0 ? 0x1p100 : 0x1p-80;
    return rms_norm_factor(&p, sum_over_row(squares((float)scale), waves[1]) / (scale * scale));
}

template <rw_dtype W, int VEC>
__device__ static inline void load_columns(const void *weight, int64_t i, float (&w)[VEC]) {
    if constexpr (W == RW_F32 && VEC == 8) {
        float low[4], high[4];
        rwi_load_vector<W>(weight, i, low);
        rwi_load_vector<W>(weight, i + 4, high);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            w[n] = low[n];
            w[n + 4] = high[n];
        }
    } else {
        rwi_load_vector<W>(weight, i, w);
    }
}

/* The weights or the bias of columns from i on. */
template <int VEC>
__device__ static inline void load_columns(rw_dtype dtype, const void *data, int64_t i,
                                           float (&w)[VEC]) {
    if (dtype == RW_F32)
        load_columns<RW_F32>(data, i, w);
    else if (dtype == RW_F16)
        load_columns<RW_F16>(data, i, w);
    else
        load_columns<RW_BF16>(data, i, w);
}

/* The weights of columns from i on, 1 where there are none. */
template <int VEC>
__device__ static inline void load_weights(const rwi_norm_params &p, int64_t i, float (&w)[VEC]) {
    if (!p.weight) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            w[n] = 1.0f;
        return;
    }
    load_columns(p.weight_dtype, p.weight, i, w);
    if (p.weight_offset != 0.0f)
#pragma unroll
        for (int n = 0; n < VEC; n++)
            w[n] += p.weight_offset;
}

/* Normalizes one vector and writes it. */
template <rw_dtype D, int VEC>
__device__ static inline void store_scaled(const rwi_norm_params &p, const norm_row &row, int64_t i,
                                           rwi_rms_factor factor, const float (&w)[VEC],
                                           const rwi_packed<D, VEC> &packed) {
    float x[VEC];
    rwi_unpack(packed, x);
    if (factor.first != 1.0f)
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] *= factor.first;
#pragma unroll
    for (int n = 0; n < VEC; n++)
        x[n] *= factor.second;
    if (p.weight && p.cast_before_weight)
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = rwi_round_to(D, x[n]);
#pragma unroll
    for (int n = 0; n < VEC; n++)
        x[n] *= w[n];
    rwi_store_vector<D>(row.out, i, x);
}

/* The vectors of a row that a thread keeps. */
struct norm_share {
    int first; /* first column */
    int step;  /* columns from one vector to the next */
    int count;

    __device__ int column(int k) const {
        return first + k * step;
    }
};

/* All loads are issued together, without branches between them. Vectors past the last repeat the
 * first vector of the row. */
template <rw_dtype D, int VEC, int COUNT>
__device__ static inline void load_share(const void *data, const norm_share &share,
                                         rwi_packed<D, VEC> (&x)[COUNT]) {
#pragma unroll
    for (int k = 0; k < COUNT; k++)
        rwi_load_packed(data, k < share.count ? share.column(k) : 0, x[k]);
}

/* Rows of at most COUNT vectors per thread. */
template <rw_dtype D, int VEC, int COUNT, bool RESIDUAL>
static __global__ void __launch_bounds__(KEPT_THREADS)
    kept_kernel(rwi_norm_params p, rwi_fault_sink) {
    rwi_start_next_kernel();
    const norm_row row = find_row<D, RESIDUAL>(p);
    norm_share share = {(int)threadIdx.x * VEC, (int)blockDim.x * VEC, 0};
#pragma unroll
    for (int k = 0; k < COUNT; k++)
        share.count += row.valid && share.column(k) < p.hidden;
    rwi_packed<D, VEC> x[COUNT];
    rwi_await_previous_kernel();
    load_share(row.x, share, x);
    float w[VEC];
    if (COUNT == 1) /* beside the row, not after it */
        load_weights(p, share.count ? share.first : 0, w);
    if constexpr (RESIDUAL) {
        rwi_packed<D, VEC> residual[COUNT];
        load_share(row.residual, share, residual);
#pragma unroll
        for (int k = 0; k < COUNT; k++)
            if (k < share.count)
                add_residual(row, share.column(k), residual[k], x[k]);
    }
    const rwi_rms_factor factor =
        find_factor(p, [&](float scale) { return rwi_scaled_squares(x, share.count, scale); });
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        if (k >= share.count)
            continue;
        if (COUNT > 1)
            load_weights(p, share.column(k), w);
        store_scaled(p, row, share.column(k), factor, w, x[k]);
    }
}

/* Rows of any length, which are read twice. */
template <rw_dtype D, int VEC, bool RESIDUAL>
static __global__ void __launch_bounds__(LONG_THREADS)
    long_kernel(rwi_norm_params p, rwi_fault_sink) {
    rwi_begin_kernel();
    const norm_row row = find_row<D, RESIDUAL>(p);
    const int64_t first = threadIdx.x * VEC, step = blockDim.x * VEC;
    const int64_t end = row.valid ? p.hidden : 0;
    rwi_packed<D, VEC> x[1], residual;
    double sum = 0.0;
    for (int64_t i = first; i < end; i += step) {
        rwi_load_packed(row.x, i, x[0]);
        if constexpr (RESIDUAL) {
            rwi_load_packed(row.residual, i, residual);
            add_residual(row, i, residual, x[0]);
        }
        sum += rwi_squares(x, 1);
    }
    const rwi_rms_factor factor =
        find_factor(p, [&](float scale) { return (float)(sum * ((double)scale * (double)scale)); });
    for (int64_t i = first; i < end; i += step) {
        float w[VEC];
        load_weights(p, i, w);
        rwi_load_packed(RESIDUAL ? row.sum : row.x, i, x[0]); /* written by this thread */
        store_scaled(p, row, i, factor, w, x[0]);
    }
}

/* ---- layer_norm ---- */

template <rw_dtype D, int VEC, int COUNT>
__device__ static inline double sum_elements(const rwi_packed<D, VEC> (&packed)[COUNT], int count) {
    double sum = 0.0;
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        float x[VEC];
        rwi_unpack(packed[k], x);
#pragma unroll
        for (int n = 0; n < VEC; n++)
            sum += k < count ? (double)x[n] : 0.0;
    }
    return sum;
}

/* The sum of the squares of the differences, times factor^2. */
template <rw_dtype D, int VEC, int COUNT>
__device__ static inline double difference_squares(const rwi_packed<D, VEC> (&x)[COUNT], int count,
                                                   const rwi_norm_center &center, float factor) {
    return (double)rwi_mapped_squares(
        x, count, [&](float value) { return layer_norm_difference(value, &center) * factor; });
}

/* The center of a row. sum: this thread's part of the row. squares(center, factor) returns its sum of
 * squares of differences, times factor^2. The rows of a wave are summed again, scaled, where the
 * squares of one overflow or underflow in f32. */
template <typename Squares>
__device__ static inline rwi_norm_center find_center(const rwi_norm_params &p, double sum,
                                                     const Squares &squares) {
    __shared__ double waves[3][LONG_THREADS / LANES];
    const double total = sum_over_row(sum, waves[0]);
    rwi_norm_center center = layer_norm_center(&p, total, 1.0f);
    double found = sum_over_row(squares(center, 1.0f), waves[1]);
    const bool large = !(found <= RWI_LARGE_SQUARES), small = found < 0x1p-80;
    if (__any(large || small)) {
        if (large)
            center = layer_norm_center(&p, total, RWI_BEFORE_LARGE);
        const float factor = small ? 0x1p100f : 1.0f;
        found = sum_over_row(squares(center, factor), waves[2]);
        found /= (double)factor * (double)factor;
    }
    center.factor = layer_norm_factor(&p, center.before, found);
    return center;
}

/* Normalizes one vector and writes it. The absent bias is -0: x + -0 is x, -0 too. */
template <rw_dtype D, int VEC>
__device__ static inline void store_centered(const rwi_norm_params &p, const norm_row &row,
                                             int64_t i, const rwi_norm_center &center,
                                             const rwi_packed<D, VEC> &packed) {
    float x[VEC], w[VEC], bias[VEC];
    load_weights(p, i, w);
#pragma unroll
    for (int n = 0; n < VEC; n++)
        bias[n] = -0.0f;
    if (p.bias)
        load_columns(p.bias_dtype, p.bias, i, bias);
    rwi_unpack(packed, x);
#pragma unroll
    for (int n = 0; n < VEC; n++)
        x[n] = rwi_rms_scale(layer_norm_difference(x[n], &center), center.factor) * w[n] + bias[n];
    rwi_store_vector<D>(row.out, i, x);
}

/* As kept_kernel. */
template <rw_dtype D, int VEC, int COUNT, bool RESIDUAL>
static __global__ void __launch_bounds__(KEPT_THREADS)
    kept_layer_kernel(rwi_norm_params p, rwi_fault_sink) {
    rwi_begin_kernel();
    const norm_row row = find_row<D, RESIDUAL>(p);
    norm_share share = {(int)threadIdx.x * VEC, (int)blockDim.x * VEC, 0};
#pragma unroll
    for (int k = 0; k < COUNT; k++)
        share.count += row.valid && share.column(k) < p.hidden;
    rwi_packed<D, VEC> x[COUNT];
    load_share(row.x, share, x);
    if constexpr (RESIDUAL) {
        rwi_packed<D, VEC> residual[COUNT];
        load_share(row.residual, share, residual);
#pragma unroll
        for (int k = 0; k < COUNT; k++)
            if (k < share.count)
                add_residual(row, share.column(k), residual[k], x[k]);
    }
    const rwi_norm_center center = find_center(
        p, sum_elements(x, share.count), [&](const rwi_norm_center &middle, float factor) {
            return difference_squares(x, share.count, middle, factor);
        });
#pragma unroll
    for (int k = 0; k < COUNT; k++)
        if (k < share.count)
            store_centered(p, row, share.column(k), center, x[k]);
}

/* Rows of any length, which are read at least three times. */
template <rw_dtype D, int VEC, bool RESIDUAL>
static __global__ void __launch_bounds__(LONG_THREADS)
    long_layer_kernel(rwi_norm_params p, rwi_fault_sink) {
    rwi_begin_kernel();
    const norm_row row = find_row<D, RESIDUAL>(p);
    const int64_t first = threadIdx.x * VEC, step = blockDim.x * VEC;
    const int64_t end = row.valid ? p.hidden : 0;
    const void *in = RESIDUAL ? row.sum : row.x; /* the sum: written by this thread */
    rwi_packed<D, VEC> x[1], residual;
    double sum = 0.0;
    for (int64_t i = first; i < end; i += step) {
        rwi_load_packed(row.x, i, x[0]);
        if constexpr (RESIDUAL) {
            rwi_load_packed(row.residual, i, residual);
            add_residual(row, i, residual, x[0]);
        }
        sum += sum_elements(x, 1);
    }
    const rwi_norm_center center =
        find_center(p, sum, [&](const rwi_norm_center &middle, float factor) {
            double squares = 0.0;
            for (int64_t i = first; i < end; i += step) {
                rwi_load_packed(in, i, x[0]);
                squares += difference_squares(x, 1, middle, factor);
            }
            return squares;
        });
    for (int64_t i = first; i < end; i += step) {
        rwi_load_packed(in, i, x[0]);
        store_centered(p, row, i, center, x[0]);
    }
}

/* ---- launches ---- */

static bool has_vectors(const rwi_norm_params &p) {
    return rwi_rows_are_vectors(p.dtype, {p.x, p.x_stride, 3, p.hidden}) &&
           rwi_rows_are_vectors(p.dtype, {p.residual, p.residual_stride, 3, p.hidden}) &&
           rwi_rows_are_vectors(p.dtype, {p.sum, p.sum_stride, 3, p.hidden}) &&
           rwi_rows_are_vectors(p.dtype, {p.out, p.out_stride, 3, p.hidden}) &&
           (uintptr_t)p.weight % 16 == 0 && (uintptr_t)p.bias % 16 == 0;
}

/* `threads` of a row, rounded up to a number that sum_over_row() can reduce; rows of at most LANES
 * threads share a block. */
static rwi_launch_shape shape_for(rwi_op op, const rwi_norm_params &p, int64_t threads) {
    int64_t x = rwi_ceil_div(threads, LANES) * LANES;
    for (int64_t fewer = LANES; fewer >= threads; fewer /= 2)
        x = fewer;
    const int64_t y = x <= LANES ? RWI_BLOCK / 2 / x : 1;
    return rwi_launch_rows(op, rwi_ceil_div(rwi_row_count(&p.rows), y),
                           dim3((uint32_t)x, (uint32_t)y));
}

/* The kernels of an operation. */
template <rw_dtype D, int VEC, bool RESIDUAL> struct rms_kernels {
    static constexpr rwi_op op = RWI_OP_rms_norm;
    static constexpr auto one = kept_kernel<D, VEC, 1, RESIDUAL>;
    static constexpr auto kept = kept_kernel<D, VEC, KEPT, RESIDUAL>;
    static constexpr auto any = long_kernel<D, VEC, RESIDUAL>;
};

template <rw_dtype D, int VEC, bool RESIDUAL> struct layer_kernels {
    static constexpr rwi_op op = RWI_OP_layer_norm;
    static constexpr auto one = kept_layer_kernel<D, VEC, 1, RESIDUAL>;
    static constexpr auto kept = kept_layer_kernel<D, VEC, KEPT, RESIDUAL>;
    static constexpr auto any = long_layer_kernel<D, VEC, RESIDUAL>;
};

template <typename Kernels, int VEC>
static rw_status launch_norm(rwi_device *device, const rwi_norm_params &p) {
    const int64_t vectors = rwi_ceil_div(p.hidden, VEC);
    if (rwi_row_count(&p.rows) < MANY_ROWS && vectors <= KEPT_THREADS)
        return rwi_launch(device, shape_for(Kernels::op, p, vectors), Kernels::one, p);
    if (vectors <= KEPT * KEPT_THREADS)
        return rwi_launch(device, shape_for(Kernels::op, p, rwi_ceil_div(vectors, KEPT)),
                          Kernels::kept, p);
    return rwi_launch(device, shape_for(Kernels::op, p, LONG_THREADS), Kernels::any, p);
}

template <template <rw_dtype, int, bool> class Kernels, rw_dtype D, int VEC>
static rw_status launch_vectors(rwi_device *device, const rwi_norm_params &p) {
    return p.residual ? launch_norm<Kernels<D, VEC, true>, VEC>(device, p)
                      : launch_norm<Kernels<D, VEC, false>, VEC>(device, p);
}

template <template <rw_dtype, int, bool> class Kernels>
static rw_status launch_rows(rwi_device *device, const rwi_norm_params &p) {
    return rwi_dispatch_float(device, p.dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        return has_vectors(p) ? launch_vectors<Kernels, D, rwi_vector_length<D>>(device, p)
                              : launch_vectors<Kernels, D, 1>(device, p);
    });
}

extern "C" rw_status rwi_hip_rms_norm(rwi_device *device, const rw_rms_norm_params *p) {
    return launch_rows<rms_kernels>(device, *p);
}

extern "C" rw_status rwi_hip_layer_norm(rwi_device *device, const rw_layer_norm_params *p) {
    return launch_rows<layer_kernels>(device, *p);
}
