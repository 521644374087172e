/* RMSNorm on a GPU; the twin of norm_cpu.c. The threads along x share a row, which they keep in
 * registers between its sum and its scaling; blocks take as many rows as there are threads along y.
 */
#include "launch.h"

#include "norm_kernel.h"

/* Lanes that reduce by shuffles: no wave has fewer. */
#define LANES 32

/* Vectors that a thread keeps, and the most threads of a block that does so. */
#define KEPT 4
#define KEPT_THREADS 512

#define LONG_THREADS 1024

/* The tensors' rows; a row of its own for each threadIdx.y. */
struct norm_row {
    const void *x;
    const void *residual;
    void *sum;
    void *out;
    bool valid;
};

template <rw_dtype D> __device__ static inline norm_row find_row(const rw_rms_norm_params &p) {
    const int64_t number = rwi_block_row() * blockDim.y + threadIdx.y;
    const bool valid = number < rwi_row_count(&p.rows);
    const rwi_row_index index = rwi_row_find(&p.rows, valid ? number : 0);
    return {rwi_element(D, p.x, rwi_row_offset(&index, p.x_stride)),
            rwi_element(D, p.residual, rwi_row_offset(&index, p.residual_stride)),
            rwi_element(D, p.sum, rwi_row_offset(&index, p.sum_stride)),
            rwi_element(D, p.out, rwi_row_offset(&index, p.out_stride)), valid};
}

/* x, or x + residual, which is written. */
template <rw_dtype D, int VEC>
__device__ static inline void add_residual(const norm_row &row, int64_t i, float (&x)[VEC]) {
    float residual[VEC];
    rwi_load_vector<D>(row.residual, i, residual);
#pragma unroll
    for (int n = 0; n < VEC; n++)
        x[n] = rwi_round_to(D, x[n] + residual[n]);
    rwi_store_vector<D>(row.sum, i, x);
}

/* f64 holds the square of any f32. */
template <int VEC> __device__ static inline double squares(const float (&x)[VEC]) {
    double sum = 0.0;
#pragma unroll
    for (int n = 0; n < VEC; n++)
        sum += (double)x[n] * (double)x[n];
    return sum;
}

/* The sum over a row's threads, on each of them; every thread of the block calls. */
__device__ static inline double sum_over_row(double sum) {
    __shared__ double partial[LONG_THREADS / LANES];
    const int width = blockDim.x < LANES ? (int)blockDim.x : LANES;
    for (int distance = width / 2; distance > 0; distance /= 2)
        sum += __shfl_xor(sum, distance, width);
    if (blockDim.x <= LANES) /* the same for all threads of the block */
        return sum;
    const int parts = blockDim.x / LANES;
    if (threadIdx.x % LANES == 0)
        partial[threadIdx.y * parts + threadIdx.x / LANES] = sum;
    __syncthreads();
    double total = 0.0;
    for (int part = 0; part < parts; part++)
        total += partial[threadIdx.y * parts + part];
    return total;
}

template <rw_dtype W, int VEC>
__device__ static inline void load_weight(const void *weight, int64_t i, float (&w)[VEC]) {
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

/* Normalizes one vector and writes it. */
template <rw_dtype D, int VEC>
__device__ static inline void store_scaled(const rw_rms_norm_params &p, const norm_row &row,
                                           int64_t i, rwi_rms_factor factor, float (&x)[VEC]) {
#pragma unroll
    for (int n = 0; n < VEC; n++)
        x[n] = rms_norm_scale(x[n], factor);
    if (p.weight) {
        float w[VEC];
        if (p.weight_dtype == RW_F32)
            load_weight<RW_F32>(p.weight, i, w);
        else if (p.weight_dtype == RW_F16)
            load_weight<RW_F16>(p.weight, i, w);
        else
            load_weight<RW_BF16>(p.weight, i, w);
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = (p.cast_before_weight ? rwi_round_to(D, x[n]) : x[n]) * (w[n] + p.weight_offset);
    }
    rwi_store_vector<D>(row.out, i, x);
}

/* Rows of at most COUNT vectors a thread. */
template <rw_dtype D, int VEC, int COUNT>
static __global__ void __launch_bounds__(KEPT_THREADS)
    kept_kernel(rw_rms_norm_params p, rwi_fault_sink) {
    const norm_row row = find_row<D>(p);
    const int64_t first = threadIdx.x * VEC, step = blockDim.x * VEC;
    const int64_t end = row.valid ? p.hidden : 0;
    float x[COUNT][VEC] = {};
#pragma unroll
    for (int k = 0; k < COUNT; k++)
        if (first + k * step < end)
            rwi_load_vector<D>(row.x, first + k * step, x[k]);
    double sum = 0.0;
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        if (first + k * step < end) {
            if (p.residual)
                add_residual<D>(row, first + k * step, x[k]);
            sum += squares(x[k]);
        }
    }
    const rwi_rms_factor factor = rms_norm_factor(&p, sum_over_row(sum));
#pragma unroll
    for (int k = 0; k < COUNT; k++)
        if (first + k * step < end)
            store_scaled<D>(p, row, first + k * step, factor, x[k]);
}

/* Rows of any length, which are read twice. */
template <rw_dtype D, int VEC>
static __global__ void __launch_bounds__(LONG_THREADS)
    long_kernel(rw_rms_norm_params p, rwi_fault_sink) {
    const norm_row row = find_row<D>(p);
    const int64_t first = threadIdx.x * VEC, step = blockDim.x * VEC;
    const int64_t end = row.valid ? p.hidden : 0;
    float x[VEC];
    double sum = 0.0;
    for (int64_t i = first; i < end; i += step) {
        rwi_load_vector<D>(row.x, i, x);
        if (p.residual)
            add_residual<D>(row, i, x);
        sum += squares(x);
    }
    const rwi_rms_factor factor = rms_norm_factor(&p, sum_over_row(sum));
    for (int64_t i = first; i < end; i += step) {
        rwi_load_vector<D>(p.residual ? row.sum : row.x, i, x); /* what this thread wrote */
        store_scaled<D>(p, row, i, factor, x);
    }
}

static bool has_vectors(const rw_rms_norm_params &p) {
    return rwi_rows_are_vectors(p.dtype, {p.x, p.x_stride, 3, p.hidden}) &&
           rwi_rows_are_vectors(p.dtype, {p.residual, p.residual_stride, 3, p.hidden}) &&
           rwi_rows_are_vectors(p.dtype, {p.sum, p.sum_stride, 3, p.hidden}) &&
           rwi_rows_are_vectors(p.dtype, {p.out, p.out_stride, 3, p.hidden}) &&
           (uintptr_t)p.weight % 16 == 0;
}

/* `threads` of a row, rounded up to what sum_over_row() can reduce; short rows share a block. */
static rwi_launch_shape shape_for(const rw_rms_norm_params &p, int64_t threads) {
    int64_t x = rwi_ceil_div(threads, LANES) * LANES;
    for (int64_t fewer = LANES; fewer >= threads; fewer /= 2)
        x = fewer;
    const int64_t y = rwi_max(1, RWI_BLOCK / 2 / x);
    return rwi_launch_rows(RWI_OP_rms_norm, rwi_ceil_div(rms_norm_work(&p).items, y),
                           dim3((uint32_t)x, (uint32_t)y));
}

template <rw_dtype D, int VEC>
static rw_status launch_norm(rwi_device *device, const rw_rms_norm_params &p) {
    const int64_t vectors = rwi_ceil_div(p.hidden, VEC);
    if (vectors <= LANES)
        return rwi_launch(device, shape_for(p, vectors), kept_kernel<D, VEC, 1>, p);
    if (vectors <= KEPT * KEPT_THREADS)
        return rwi_launch(device, shape_for(p, rwi_ceil_div(vectors, KEPT)),
                          kept_kernel<D, VEC, KEPT>, p);
    return rwi_launch(device, shape_for(p, LONG_THREADS), long_kernel<D, VEC>, p);
}

extern "C" rw_status rwi_hip_rms_norm(rwi_device *device, const rw_rms_norm_params *p) {
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        return has_vectors(*p) ? launch_norm<D, rwi_vector_length<D>>(device, *p)
                               : launch_norm<D, 1>(device, *p);
    });
}
