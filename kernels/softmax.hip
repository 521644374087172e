/* Scale, mask and softmax on a GPU; the twin of softmax_cpu.c. */
#include "gpu/dispatch.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/reduce.h"
#include "gpu/row_tiles.h"
#include "gpu/vectors.h"
#include "gpu/visible.h"
#include "shared/sum.h"
#include "softmax_params.h"

/* A row, found by one thread for the others. FULL rows have rules other than intervals of keys, a
 * scale and a sink. */
struct scores_row {
    rwi_pattern_row pattern;
    int64_t in; /* offsets instead of pointers, which the compiler could not assume to be global */
    int64_t out;
    int64_t mask;
    float slope;      /* 0: no ALiBi */
    float sink;       /* -inf: none */
    int32_t position; /* the position that ALiBi counts from */
    bool inside;      /* the row exists, and its pattern is valid */
};

/* The rows of a block. */
typedef scores_row block_rows[RWI_TILE_ROWS];

/* The indices of a row, and its row of the pattern if that is valid; else it is reported. */
__device__ static inline rwi_scores_row find_row(const rwi_scores &scores,
                                                 const rwi_pattern &pattern, int64_t number,
                                                 const rwi_fault_sink &sink, scores_row *row) {
    rwi_bad_id bad;
    const rwi_scores_row at = rwi_scores_find(&scores, number);
    row->inside = rwi_pattern_row_at(&pattern, at.b, at.i, &row->pattern, &bad);
    if (!row->inside)
        rwi_fault_raise(sink, rwi_scores_token(&scores, &at), bad);
    row->in = rwi_scores_offset(&at, scores.in_stride);
    row->out = rwi_scores_offset(&at, scores.out_stride);
    return at;
}

/* Elements i .. i + VEC - 1 of the mask; 0 without a mask. */
template <int VEC>
__device__ static inline void load_mask(const rwi_score_mask &mask, int64_t i, float (&x)[VEC]) {
#pragma unroll
    for (int n = 0; n < VEC; n++)
        x[n] = 0.0f;
    if (mask.data && mask.dtype == RW_F32) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = rwi_load(RW_F32, mask.data, i + n);
    } else if (mask.data && mask.dtype == RW_U8) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = rwi_load_mask(RW_U8, mask.data, i + n);
    } else if (mask.data) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = rwi_load(mask.dtype, mask.data, i + n);
    }
}

/* ---- scale ---- */

template <rw_dtype D, int VEC>
static __global__ void __launch_bounds__(RWI_BLOCK)
    scale_kernel(rwi_tiled<rw_scale_params> p, rwi_fault_sink) {
    rwi_begin_kernel();
    int64_t row, column;
    if (!rwi_tile_place<VEC>(p.tiles, &row, &column))
        return;
    const rwi_scores &scores = p.op.scores;
    const rwi_scores_row at = rwi_scores_find(&scores, row);
    const void *in = rwi_element(D, scores.in, rwi_scores_offset(&at, scores.in_stride));
    void *out = rwi_element(D, scores.out, rwi_scores_offset(&at, scores.out_stride));
    float x[RWI_TILE_STEPS][VEC];
#pragma unroll
    for (int step = 0; step < RWI_TILE_STEPS; step++)
        if (rwi_tile_column(column, step, VEC) < p.tiles.columns)
            rwi_load_vector<D>(in, rwi_tile_column(column, step, VEC), x[step]);
#pragma unroll
    for (int step = 0; step < RWI_TILE_STEPS; step++) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[step][n] *= p.op.scale;
        if (rwi_tile_column(column, step, VEC) < p.tiles.columns)
            rwi_store_vector<D>(out, rwi_tile_column(column, step, VEC), x[step]);
    }
}

/* ---- mask ---- */

template <rw_dtype D, int VEC>
static __global__ void __launch_bounds__(RWI_BLOCK)
    mask_kernel(rwi_tiled<rw_mask_apply_params> p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    __shared__ block_rows rows;
    int64_t number, column;
    const bool inside = rwi_tile_place<VEC>(p.tiles, &number, &column);
    const uint32_t mine = rwi_thread_of_block();
    const int64_t found = number - threadIdx.y + mine;
    if (mine < blockDim.y && found < p.tiles.rows) {
        const rwi_scores_row at = find_row(p.op.scores, p.op.pattern, found, sink, &rows[mine]);
        rows[mine].mask = rwi_scores_offset(&at, p.op.mask.stride);
    }
    __syncthreads();
    const scores_row &row = rows[threadIdx.y];
    if (!inside || !row.inside)
        return;
#pragma unroll 1
    for (int step = 0; step < RWI_TILE_STEPS; step++) {
        const int64_t j = rwi_tile_column(column, step, VEC);
        if (j >= p.tiles.columns)
            break;
        float x[VEC], mask[VEC];
        rwi_load_vector<D>(p.op.scores.in, row.in + j, x);
        load_mask(p.op.mask, row.mask + j, mask);
        const unsigned seen = rwi_find_visible<VEC, true>(p.op.pattern, row.pattern, (int32_t)j);
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = seen >> n & 1 ? x[n] + mask[n] : -INFINITY;
        rwi_store_vector<D>(p.op.scores.out, row.out + j, x);
    }
}

/* ---- softmax ---- */

/* exp of a number up to 0, by the GPU's exp2: error |x| * 2^-24 relative, plus 2 ulp. */
__device__ static inline float exponential(float x) {
    return exp2f(x * 0x1.715476p+0f);
}

/* Finds row `number` and what the softmax needs of it. */
template <bool FULL>
__device__ static inline void find_softmax_row(const rw_softmax_params &p, int64_t number,
                                               const rwi_fault_sink &sink, scores_row *row) {
    const rwi_span none = {0, 0};
    row->inside = false;
    row->sink = -INFINITY;
    row->pattern.prefix = none;
    row->pattern.window = none;
    row->pattern.global = none;
    if (number >= rwi_scores_rows(&p.scores))
        return;
    const rwi_scores_row at = find_row(p.scores, p.pattern, number, sink, row);
    if (p.sinks)
        row->sink = rwi_load(p.sinks_dtype, p.sinks, at.h);
    if (FULL) {
        row->mask = rwi_scores_offset(&at, p.mask.stride);
        row->slope = p.alibi.slopes ? p.alibi.slopes[at.h] : 0.0f;
        row->position = rwi_alibi_position(&p.alibi, &row->pattern);
    }
}

/* This thread's row. The first threads of the block, adjacent in one wave, find one row each. Every
 * thread of the block must call. */
template <bool FULL>
__device__ static inline scores_row share_row(const rw_softmax_params &p,
                                              const rwi_fault_sink &sink, block_rows &rows) {
    const uint32_t mine = rwi_thread_of_block();
    if (mine < blockDim.y)
        find_softmax_row<FULL>(p, rwi_block_row() * blockDim.y + mine, sink, &rows[mine]);
    __syncthreads();
    return rows[threadIdx.y];
}

/* The scores of keys j .. j + VEC - 1 from what was loaded if any is visible; -inf for hidden keys.
 */
template <rw_dtype D, int VEC, bool FULL>
__device__ static inline void make_scores(const rw_softmax_params &p, const scores_row &row,
                                          int32_t j, unsigned seen,
                                          const rwi_packed<D, VEC> &packed, float (&s)[VEC]) {
#pragma unroll
    for (int n = 0; n < VEC; n++)
        s[n] = -INFINITY;
    if (seen == 0)
        return;
    float bias[VEC], x[VEC];
    rwi_unpack(packed, x);
    if (FULL)
        load_mask(p.mask, row.mask + j, bias);
#pragma unroll
    for (int n = 0; n < VEC; n++) {
        if (FULL)
            bias[n] += rwi_alibi_at(p.alibi.is_signed, row.slope, j - row.position + n);
        s[n] = FULL ? rwi_softmax_score(&p, x[n]) + bias[n] : x[n] * p.scale;
    }
    if (seen == rwi_all_visible<VEC>)
        return;
#pragma unroll
    for (int n = 0; n < VEC; n++)
        s[n] = seen >> n & 1 ? s[n] : -INFINITY;
}

/* Stores probabilities from exponentials; 0 for hidden keys, also in a row of NaN. */
template <rw_dtype D, int VEC>
__device__ static inline void store_shares(void *out, int64_t i, unsigned seen, float share,
                                           float (&e)[VEC]) {
#pragma unroll
    for (int n = 0; n < VEC; n++)
        e[n] *= share;
    if (seen != rwi_all_visible<VEC>) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            e[n] = seen >> n & 1 ? e[n] : 0.0f;
    }
    rwi_store_vector<D>(out, i, e);
}

/* A row that fits in the registers of its threads, ITEMS vectors each: it is read once. */
template <rw_dtype D, int VEC, int ITEMS, bool FULL, int THREADS>
static __global__ void __launch_bounds__(THREADS)
    short_kernel(rw_softmax_params p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    __shared__ block_rows rows;
    __shared__ float largest_of_waves[RWI_MAX_WAVES], sum_of_waves[RWI_MAX_WAVES];
    const scores_row row = share_row<FULL>(p, sink, rows);
    const int32_t first = (int32_t)threadIdx.x * VEC, step = (int32_t)blockDim.x * VEC;
    rwi_packed<D, VEC> packed[ITEMS]; /* so that the loads overlap */
    float s[ITEMS][VEC];
    unsigned seen = 0; /* all in one register, the first vector in the lowest bits */
    float largest = row.sink;
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
        const int32_t j = first + k * step;
        const unsigned bits = rwi_find_visible<VEC, FULL>(p.pattern, row.pattern, j);
        if (bits)
            rwi_load_packed(p.scores.in, row.in + j, packed[k]);
        seen |= bits << k * VEC;
    }
#pragma unroll
    for (int k = 0; k < ITEMS; k++)
        make_scores<D, VEC, FULL>(p, row, first + k * step, seen >> k * VEC & rwi_all_visible<VEC>,
                                  packed[k], s[k]);
#pragma unroll
    for (int k = 0; k < ITEMS; k++)
#pragma unroll
        for (int n = 0; n < VEC; n++)
            largest = fmaxf(largest, s[k][n]); /* ignores NaN */
    largest = rwi_reduce_row(largest, largest_of_waves, rwi_reduce_max());
    const float base = rwi_softmax_base(largest);
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
        float part = 0.0f;
        if (!(seen >> k * VEC & rwi_all_visible<VEC>))
            continue;
#pragma unroll
        for (int n = 0; n < VEC; n++) {
            s[k][n] = exponential(s[k][n] - base);
            part += s[k][n];
        }
        sum += part;
    }
    sum = rwi_reduce_row(sum, sum_of_waves, rwi_reduce_sum());
    const float share = rwi_softmax_share(sum + exponential(row.sink - base));
    if (!row.inside)
        return;
#pragma unroll
    for (int k = 0; k < ITEMS; k++)
        if (first + k * step < p.scores.seq_k)
            store_shares<D>(p.scores.out, row.out + first + k * step,
                            seen >> k * VEC & rwi_all_visible<VEC>, share, s[k]);
}

/* Loads keys j .. j + VEC - 1 and computes their scores; returns which of them are visible. */
template <rw_dtype D, int VEC, bool FULL>
__device__ static inline unsigned load_scores(const rw_softmax_params &p, const scores_row &row,
                                              int32_t j, float (&s)[VEC]) {
    rwi_packed<D, VEC> packed;
    const unsigned seen = rwi_find_visible<VEC, FULL>(p.pattern, row.pattern, j);
    if (seen)
        rwi_load_packed(p.scores.in, row.in + j, packed);
    make_scores<D, VEC, FULL>(p, row, j, seen, packed, s);
    return seen;
}

/* A longer row, one block each: the sum is kept relative to the largest score so far, and a second
 * pass computes the scores again. */
template <rw_dtype D, int VEC, bool FULL, int THREADS>
static __global__ void __launch_bounds__(THREADS)
    long_kernel(rw_softmax_params p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    __shared__ block_rows rows;
    __shared__ float largest_of_waves[RWI_MAX_WAVES], sum_of_waves[RWI_MAX_WAVES];
    const scores_row row = share_row<FULL>(p, sink, rows);
    const rwi_span hull = rwi_pattern_hull(&row.pattern);
    const int64_t step = (int64_t)THREADS * VEC;
    float s[VEC];
    float largest = row.sink, base = rwi_softmax_base(row.sink), sum = 0.0f, part = 0.0f;
    for (int64_t j = hull.begin / VEC * VEC + threadIdx.x * VEC; j < hull.end; j += step) {
        load_scores<D, VEC, FULL>(p, row, (int32_t)j, s);
        const float before = largest;
#pragma unroll
        for (int n = 0; n < VEC; n++)
            largest = fmaxf(largest, s[n]);
        base = rwi_softmax_base(largest);
        if (largest > before && before > -INFINITY) {
            const float kept = exponential(before - base);
            sum *= kept;
            part *= kept;
        }
#pragma unroll
        for (int n = 0; n < VEC; n++)
            part += exponential(s[n] - base);
        rwi_sum_join(&sum, &part);
    }
    largest = rwi_reduce_row(largest, largest_of_waves, rwi_reduce_max());
    const float all = rwi_softmax_base(largest);
    sum = sum == 0.0f ? 0.0f : sum * exponential(base - all);
    sum = rwi_reduce_row(sum, sum_of_waves, rwi_reduce_sum());
    const float share = rwi_softmax_share(sum + exponential(row.sink - all));
    if (!row.inside)
        return;
    for (int64_t j = threadIdx.x * VEC; j < p.scores.seq_k; j += step) {
        const unsigned seen = load_scores<D, VEC, FULL>(p, row, (int32_t)j, s);
#pragma unroll
        for (int n = 0; n < VEC; n++)
            s[n] = exponential(s[n] - all);
        store_shares<D>(p.scores.out, row.out + j, seen, share, s);
    }
}

/* ---- launches ---- */

static bool has_vectors(const rwi_scores &scores) {
    return rwi_rows_are_vectors(scores.dtype, {scores.in, scores.in_stride, 3, scores.seq_k}) &&
           rwi_rows_are_vectors(scores.dtype, {scores.out, scores.out_stride, 3, scores.seq_k});
}

/* Calls body(dtype, vec) for the dtype and the vector length that fit `scores`. */
template <int N> struct length_constant { static constexpr int value = N; };

template <typename Body>
static rw_status dispatch(rwi_device *device, const rwi_scores &scores, Body body) {
    return rwi_dispatch_float(device, scores.dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        return has_vectors(scores) ? body(dtype, length_constant<rwi_vector_length<D>>())
                                   : body(dtype, length_constant<1>());
    });
}

extern "C" rw_status rwi_hip_scale(rwi_device *device, const rw_scale_params *op) {
    rwi_tiled<rw_scale_params> p = {*op, {rwi_scores_rows(&op->scores), op->scores.seq_k, 0}};
    return dispatch(device, op->scores, [&](auto dtype, auto vec) {
        const rwi_launch_shape shape =
            rwi_launch_row_tiles(RWI_OP_scale, vec.value, RWI_TILE_STEPS, &p.tiles);
        return rwi_launch(device, shape, scale_kernel<dtype.value, vec.value>, p);
    });
}

extern "C" rw_status rwi_hip_mask_apply(rwi_device *device, const rw_mask_apply_params *op) {
    rwi_tiled<rw_mask_apply_params> p = {*op, {rwi_scores_rows(&op->scores), op->scores.seq_k, 0}};
    return dispatch(device, op->scores, [&](auto dtype, auto vec) {
        const rwi_launch_shape shape =
            rwi_launch_row_tiles(RWI_OP_mask_apply, vec.value, RWI_TILE_STEPS, &p.tiles);
        return rwi_launch(device, shape, mask_kernel<dtype.value, vec.value>, p);
    });
}

/* Elements of a row that one thread holds, where the row fits. FULL rows need registers for other
 * values, and single-element accesses need them for addresses. */
template <int VEC, bool FULL>
inline constexpr int elements_of = VEC > 1 ? (FULL ? 16 : 32) : (FULL ? 4 : 16);

/* Threads of a block where a row needs more than RWI_BLOCK. */
#define LARGE_BLOCK 512

/* Threads along x share a row, with `elements` elements per thread; threads along y take different
 * rows. */
static rwi_launch_shape shape_of(const rw_softmax_params &p, int elements) {
    uint32_t x = RWI_BLOCK / RWI_TILE_ROWS;
    while (x < LARGE_BLOCK && (int64_t)x * elements < p.scores.seq_k)
        x *= 2;
    const uint32_t y = (uint32_t)rwi_max(x, RWI_BLOCK) / x;
    return rwi_launch_rows(RWI_OP_softmax, rwi_ceil_div(rwi_scores_rows(&p.scores), y), dim3(x, y));
}

template <rw_dtype D, int VEC, bool FULL>
static rw_status launch_softmax(rwi_device *device, const rw_softmax_params &p) {
    constexpr int ELEMENTS = elements_of<VEC, FULL>;
    const rwi_launch_shape shape = shape_of(p, ELEMENTS);
    if (p.scores.seq_k <= ELEMENTS * RWI_BLOCK)
        return rwi_launch(device, shape, short_kernel<D, VEC, ELEMENTS / VEC, FULL, RWI_BLOCK>, p);
    if (p.scores.seq_k <= ELEMENTS * LARGE_BLOCK)
        return rwi_launch(device, shape, short_kernel<D, VEC, ELEMENTS / VEC, FULL, LARGE_BLOCK>,
                          p);
    return rwi_launch(device, shape, long_kernel<D, VEC, FULL, LARGE_BLOCK>, p);
}

extern "C" rw_status rwi_hip_softmax(rwi_device *device, const rw_softmax_params *p) {
    const bool full =
        p->softcap > 0.0f || p->mask.data || p->alibi.slopes || rwi_pattern_has_cells(&p->pattern);
    return dispatch(device, p->scores, [&](auto dtype, auto vec) {
        return full ? launch_softmax<dtype.value, vec.value, true>(device, *p)
                    : launch_softmax<dtype.value, vec.value, false>(device, *p);
    });
}
