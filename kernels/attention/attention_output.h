/* Parts of attention_gpu.h: from registers to the output. */
#ifndef RWI_ATTENTION_OUTPUT_H
#define RWI_ATTENTION_OUTPUT_H

#include "attention/attention_store.h"
#include "attention/attention_tile.h"

template <typename Shape>
__device__ static inline attention_target find_target(const attention_launch &launch,
                                                      const attention_block<Shape> &t, int r) {
    const rw_attention_params &p = launch.op;
    if (p.parts.count == 1)
        return {p.out.data, rwi_attention_at(&p.out, t.item.b, &t.rows[r]), p.out_dtype};
    const int64_t number = rwi_attention_row_number(&p, t.item.b, t.item.kv_head, t.item.first + r);
    const int64_t width = Shape::ANY_WIDTH ? rwi_attention_part_width(&p) : p.v_dim;
    return {p.parts.out, (t.item.part * p.num_rows + number) * width, RW_F32};
}

/* The factor from sums relative to the score `from` to sums relative to `base`. That of the final
 * output is kept apart from it: their product may be subnormal. */
template <typename Shape>
__device__ static __forceinline__ float share_of_sums(const attention_thread<Shape> &mine,
                                                      float from, float base) {
    return rwi_exp2_fast(fmaf(from - base, mine.factor, -(float)Shape::WEIGHT_BITS));
}

/* Ends row `r`, whose sum relative to `base` is `sum`, if `last`; returns the factor of its output.
 */
template <typename Shape>
__device__ static inline rwi_attention_factor end_row(const attention_launch &launch,
                                                      const attention_block<Shape> &t, int r,
                                                      float base, float sum, bool last) {
    if (!last)
        return {1.0f, 1.0f};
    const rw_attention_params &p = launch.op;
    const rwi_attention_row &row = t.rows[r];
    if (p.parts.count > 1) {
        const int64_t number =
            rwi_attention_row_number(&p, t.item.b, t.item.kv_head, t.item.first + r);
        const int64_t at = t.item.part * p.num_rows + number;
        if (row.valid) {
            ((float *)rwi_global(p.parts.largest))[at] = base;
            ((float *)rwi_global(p.parts.sum))[at] = sum;
        }
        return {1.0f, 1.0f};
    }
    const rwi_attention_end end = rwi_attention_finish(&p, row.h, base * launch.kept_scale, sum);
    if (row.valid && p.lse.data)
        ((float *)rwi_global(p.lse.data))[rwi_attention_lse_at(&p, t.item.b, &row)] = end.lse;
    return end.factor;
}

/* Whether partial sums of values can be kept in the output. */
__device__ static inline bool keeps_sums(const rw_attention_params &p) {
    return p.parts.count > 1 || p.out_dtype == RW_F32;
}

/* Reduces each lane's sums to sums of rows and writes each wave's output factor, relative to the
 * largest score so far, to `share`, and the row's final factor, if `last`, to `end`. */
template <typename Shape>
__device__ static inline void sum_waves(const attention_launch &launch, attention_block<Shape> &t,
                                        const attention_thread<Shape> &mine, bool last) {
    typedef typename Shape::unit unit;
    const int thread = rwi_computed_here((int)threadIdx.x);
    const int lane = thread % unit::LANES, wave = thread / unit::LANES;
    const bool kept = keeps_sums(launch.op);
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const float sum = unit::reduce_sum(mine.sum[q]);
        const int at = Shape::first_row(wave) + unit::query(lane, q);
        t.base[at] = mine.largest[q]; /* all lanes write the same value */
        t.sum[at] = sum;
    }
    __syncthreads();
    const int waves = Shape::FEW ? Shape::WAVES : 1;
#pragma unroll 1
    for (int r = thread; r < t.item.rows; r += Shape::THREADS) {
        float largest = t.earlier_base[r];
        for (int w = 0; w < waves; w++)
            largest = fmaxf(largest, t.base[w * Shape::ROWS + r]);
        const float base = rwi_softmax_base(largest);
        const float earlier = rwi_exp2_fast((t.earlier_base[r] - base) * mine.factor);
        float sum = t.earlier_sum[r] * earlier;
        for (int w = 0; w < waves; w++) {
            const int at = w * Shape::ROWS + r;
            t.share[at] = share_of_sums(mine, t.base[at], base);
            sum += t.sum[at] * t.share[at];
        }
        t.end[r] = end_row(launch, t, r, base, sum, last);
        t.earlier_share[r] = kept ? earlier : 0.0f;
        t.earlier_sum[r] = sum;
        t.earlier_base[r] = largest;
    }
}

/* Columns of every row from `column` on, from shared memory, where each wave has its own. */
template <typename Shape>
__device__ static inline void store_columns(const attention_launch &launch,
                                            const attention_block<Shape> &t, const float *out,
                                            int column) {
    constexpr int VECTORS = Shape::OUT_COLUMNS / 4;
    const bool vectors = launch.out_vectors || launch.op.parts.count > 1;
#pragma unroll 1
    for (int n = rwi_computed_here((int)threadIdx.x); n < t.item.rows * VECTORS;
         n += Shape::THREADS) {
        const int r = n / VECTORS, c = n % VECTORS * 4;
        if (!t.rows[r].valid || column + c >= launch.op.v_dim)
            continue;
        const attention_target to = find_target(launch, t, r);
        const int count = Shape::ANY_WIDTH ? launch.op.v_dim - column - c : 4;
        float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
        if (t.earlier_share[r] != 0.0f)
            attention_add_four(attention_load_some(to, column + c, vectors, count),
                               t.earlier_share[r], &sum);
#pragma unroll
        for (int w = 0; w < (Shape::FEW ? Shape::WAVES : 1); w++) {
            const int row = w * Shape::ROWS + r;
            if (t.share[row] != 0.0f)
                attention_add_four(*(const float4 *)(out + row * Shape::OUT_PITCH + c),
                                   t.share[row], &sum);
        }
        attention_store_some(to, column + c, attention_multiply_four(t.end[r], sum), vectors,
                             count);
    }
}

template <typename Shape>
__device__ static inline void store_rows(const attention_launch &launch,
                                         const attention_block<Shape> &t,
                                         const attention_thread<Shape> &mine, float *out) {
    typedef typename Shape::unit unit;
    constexpr int STEP = Shape::OUT_COLUMNS / 16;
    const int thread = rwi_computed_here((int)threadIdx.x);
    const int lane = thread % unit::LANES, wave = thread / unit::LANES;
    float *rows = out + wave * Shape::WAVE_ROWS * Shape::OUT_PITCH;
#pragma unroll
    for (int first = 0; first < Shape::N_COLUMNS; first += STEP) {
        __syncthreads();
#pragma unroll
        for (int n = 0; n < STEP; n++)
#pragma unroll
            for (int q = 0; q < unit::QUERIES; q++)
#pragma unroll
                for (int e = 0; e < unit::KEYS; e++)
                    rows[unit::query(lane, q) * Shape::OUT_PITCH +
                         Shape::template column<STEP>(lane, n, e)] = mine.out[first + n].x[q][e];
        __syncthreads();
        store_columns(launch, t, out, first * 16);
    }
}

/* An element of v. */
template <typename Shape>
__device__ static inline float load_value(const rw_attention_params &p, int64_t at) {
    const void *v = rwi_global(p.v.data);
    if constexpr (Shape::CODES)
        return rwi_f8_to_f32(p.kv_dtype, ((const uint8_t *)v)[at]);
    else
        return rwi_load(Shape::DTYPE, v, at);
}

/* Rows and columns of the output, and the threads that repair them. */
struct attention_repaired {
    rwi_span rows;
    rwi_span columns;
    int sums; /* where sums of rows begin */
    int thread;
    int threads;
};

/* Adds the nonfinite values of v to the rows that see them. Rare and slow. */
template <typename Shape>
__device__ static __forceinline__ void repair_part(const attention_launch &launch,
                                                   const attention_block<Shape> &t,
                                                   const attention_repaired &part) {
    const rw_attention_params &p = launch.op;
    const int columns = part.columns.end - part.columns.begin;
    const bool cells = rwi_pattern_has_cells(&p.rules.pattern);
    float scale = 1.0f; /* parts are scaled when they are combined */
    if (Shape::CODES && p.parts.count == 1)
        scale = rwi_attention_scale_at(&p.v_scale, t.item.kv_head);
#pragma unroll 1
    for (int n = part.thread; n < (part.rows.end - part.rows.begin) * columns; n += part.threads) {
        const int r = part.rows.begin + n / columns, column = part.columns.begin + n % columns;
        const rwi_attention_row &row = t.rows[r];
        if (!row.valid || t.earlier_sum[part.sums + r] == 0.0f) /* no key has a weight */
            continue;
        float nonfinite = 0.0f;
        const rwi_span keys = rwi_span_meet(t.seen, t.nonfinite.begin, t.nonfinite.end);
#pragma unroll 1
        for (int32_t j = keys.begin; j < keys.end; j++) {
            rwi_kv_place place;
            if (!rwi_pattern_visible(&p.rules.pattern, &row.pattern, cells, j) ||
                !rwi_attention_find_key(&p, t.item.b, j, &place))
                continue;
            const float x =
                load_value<Shape>(p, rwi_attention_key_at(&p.v, t.item.kv_head, &place) + column);
            if (x * 0.0f != 0.0f)
                nonfinite += x;
        }
        if (nonfinite == 0.0f)
            continue;
        const attention_target to = find_target(launch, t, r);
        void *data = rwi_global(to.data);
        rwi_store(to.dtype, data, to.at + column,
                  rwi_load(to.dtype, data, to.at + column) + nonfinite * scale);
    }
}

/* The whole output, by all threads that multiply. */
template <typename Shape>
__device__ static inline void repair(const attention_launch &launch,
                                     const attention_block<Shape> &t) {
    repair_part<Shape>(
        launch, t, {{0, t.item.rows}, {0, launch.op.v_dim}, 0, (int)threadIdx.x, Shape::THREADS});
}

#endif
