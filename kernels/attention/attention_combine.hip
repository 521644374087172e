/* Combines the partial results of attention split over the keys, on a GPU; the twin of
 * attention_combine_cpu.c. One block per row and 128 or 256 of its columns. */
#include "attention/attention_ragged.h"
#include "attention/attention_ragged_gpu.h"
#include "attention/attention_store.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/reduce.h"
#include "gpu/registers.h"

/* A block is teams, along the parts, of LANES threads along the columns, which have four columns each. */
template <int LANES_> struct combine_shape {
    static constexpr int LANES = LANES_;
    static constexpr int COLUMNS = 4 * LANES;
    static constexpr int TEAMS = RWI_BLOCK / LANES;
};

#define ABSENT (-1.0f)

template <typename Shape> struct combine_block {
    rwi_attention_row row;
    int64_t b;
    int64_t kv_head;
    float weight
        [RWI_BLOCK]; /* of some parts, relative to the largest score; ABSENT: no visible key */
    float waves[2][RWI_MAX_WAVES];
    float4 out[Shape::TEAMS][Shape::LANES];
    int missing_page;
};

/* Finds the row of the block (its first thread) and checks the pages that it needs (all threads).
 */
template <typename Shape>
__device__ static inline void find_row(const rw_attention_params &p, int64_t number,
                                       combine_block<Shape> &t, const rwi_fault_sink &sink) {
    const int thread = (int)threadIdx.x;
    int64_t group, r;
    rwi_bad_id bad = {0, RW_FAULT_NONE};
    rwi_split_index(number, rwi_attention_group_rows(&p), &group, &r);
    if (thread == 0) {
        rwi_split_index(group, p.kv_heads, &t.b, &t.kv_head);
        rwi_attention_find_row(&p, t.b, t.kv_head, r, &t.row, &bad);
        t.missing_page = 0;
        if (!t.row.valid)
            rwi_fault_raise(sink, rwi_attention_token(&p, t.b, &t.row), bad);
    }
    __syncthreads();
    if (!p.pages.table.data || !t.row.valid)
        return;
    const rwi_span hull = rwi_pattern_hull(&t.row.pattern);
    const int64_t end = rwi_ceil_div(hull.end, (int64_t)1 << p.pages.shift);
#pragma unroll 1
    for (int64_t n = (hull.begin >> p.pages.shift) + thread; n < end; n += RWI_BLOCK) {
        const int64_t page = rwi_ids_load(&p.pages.table, 0, t.b, n);
        if (page < 0 || page >= p.pages.num_pages)
            t.missing_page = 1; /* every writing thread writes 1 */
    }
    __syncthreads();
    if (thread == 0 && t.missing_page) {
        t.row.valid = rwi_attention_pages_exist(&p, t.b, hull, &bad);
        rwi_fault_raise(sink, rwi_attention_token(&p, t.b, &t.row), bad);
    }
    __syncthreads();
}

/* The partial results of a row, without their values. */
struct combine_part {
    float largest;
    float sum; /* 0: no visible key */
};

__device__ static inline combine_part load_part(const rw_attention_params &p, int64_t number,
                                                int64_t rows, int64_t part) {
    if (part >= p.parts.count)
        return {-INFINITY, 0.0f};
    return {p.parts.largest[part * rows + number], p.parts.sum[part * rows + number]};
}

/* The largest score over all parts, in the scale in which the parts store it; `first` is this
 * thread's first part. */
template <typename Shape>
__device__ static inline float find_largest(const rw_attention_params &p, int64_t number,
                                            int64_t rows, combine_part first,
                                            combine_block<Shape> &t) {
    float largest = -INFINITY;
#pragma unroll 1
    for (int64_t part = threadIdx.x;; first = load_part(p, number, rows, part)) {
        if (first.sum != 0.0f && first.largest > largest)
            largest = first.largest;
        part += RWI_BLOCK;
        if (part >= p.parts.count)
            break;
    }
    return rwi_softmax_base(rwi_reduce_row(largest, t.waves[0], rwi_reduce_max()));
}

/* This thread's first column. */
template <typename Shape> __device__ static inline int combine_column() {
    return (int)blockIdx.z * Shape::COLUMNS + (int)threadIdx.x % Shape::LANES * 4;
}

/* Adds the values of `count` parts from `first` on, whose weights are known, to the team's sums. */
template <typename Shape>
__device__ static inline void add_parts(const rw_attention_params &p, int64_t number, int64_t rows,
                                        int64_t first, int count, const combine_block<Shape> &t,
                                        float4 *out) {
    constexpr int TOGETHER = 4; /* loads that do not wait for one another */
    const int column = combine_column<Shape>();
    if (column >= p.v_dim)
        return;
#pragma unroll 1
    for (int n = (int)threadIdx.x / Shape::LANES; n < count; n += TOGETHER * Shape::TEAMS) {
        float4 x[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) { /* also of parts without a visible key */
            const int64_t part = first + rwi_min(n + i * Shape::TEAMS, count - 1);
            x[i] =
                *(const float4 *)(p.parts.out +
                                  (part * rows + number) * rwi_attention_part_width(&p) + column);
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const int at = n + i * Shape::TEAMS;
            const float weight = at < count ? t.weight[at] : ABSENT;
            if (weight == ABSENT)
                continue;
            out->x += weight * x[i].x;
            out->y += weight * x[i].y;
            out->z += weight * x[i].z;
            out->w += weight * x[i].w;
        }
    }
}

/* Sums all parts relative to `base`: the values by team; returns the sum of weights. */
template <typename Shape>
__device__ static inline float sum_parts(const rw_attention_params &p, int64_t number, int64_t rows,
                                         float base, combine_part mine, combine_block<Shape> &t,
                                         float4 *out) {
    const float scale = rwi_attention_kept_scale(&p);
    float sum = 0.0f;
    *out = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 1
    for (int64_t first = 0; first < p.parts.count; first += RWI_BLOCK) {
        if (first > 0)
            mine = load_part(p, number, rows, first + threadIdx.x);
        const float weight = mine.sum == 0.0f ? ABSENT : expf((mine.largest - base) * scale);
        sum += mine.sum == 0.0f ? 0.0f : weight * mine.sum;
        t.weight[threadIdx.x] = weight;
        __syncthreads();
        add_parts(p, number, rows, first, (int)rwi_min(RWI_BLOCK, p.parts.count - first), t, out);
        __syncthreads(); /* the weights were read */
    }
    return rwi_reduce_row(sum, t.waves[1], rwi_reduce_sum());
}

/* Row `number`; `near`: where the parameters that find it are read. */
template <typename Shape>
__device__ static inline void combine_row(const rw_attention_params &p,
                                          const rw_attention_params &near, int64_t number,
                                          combine_block<Shape> &t, const rwi_fault_sink &sink) {
    const int64_t rows = p.num_rows;
    const int team = (int)threadIdx.x / Shape::LANES, lane = (int)threadIdx.x % Shape::LANES;
    if (!rwi_attention_rows_are_known(&p))
        rwi_await_previous_kernel();
    find_row(near, number, t, sink);
    rwi_await_previous_kernel();
    const combine_part mine = load_part(p, number, rows, threadIdx.x);
    if (!t.row.valid)
        return;
    const float base = find_largest(p, number, rows, mine, t);
    float4 out;
    const float total = sum_parts(p, number, rows, base, mine, t, &out);
    t.out[team][lane] = out;
    __syncthreads();
    if (team != 0)
        return;
#pragma unroll
    for (int other = 1; other < Shape::TEAMS; other++) {
        out.x += t.out[other][lane].x;
        out.y += t.out[other][lane].y;
        out.z += t.out[other][lane].z;
        out.w += t.out[other][lane].w;
    }
    const rwi_attention_end end =
        rwi_attention_finish(&p, t.row.h, base * rwi_attention_kept_scale(&p), total);
    const int column = combine_column<Shape>();
    if (column == 0 && p.lse.data)
        ((float *)p.lse.data)[rwi_attention_lse_at(&p, t.b, &t.row)] = end.lse;
    if (column < p.v_dim)
        attention_store_some({p.out.data, rwi_attention_at(&p.out, t.b, &t.row), p.out_dtype},
                             column, attention_multiply_four(end.factor, out), false,
                             p.v_dim - column);
}

template <typename Shape>
static __global__ void __launch_bounds__(RWI_BLOCK)
    combine_kernel(rw_attention_combine_params p, rwi_fault_sink sink) {
    rwi_start_next_kernel();
    __shared__ combine_block<Shape> t;
    /* On AMD those that find the row would need too many scalar registers. */
    __shared__ rw_attention_combine_params kept;
    if (!RWI_PARAMETERS_NEAR)
        rwi_copy_parameters(kept, p);
    const int64_t number = rwi_block_row();
    if (number >= p.num_rows)
        return;
    combine_row(p, RWI_PARAMETERS_NEAR ? p : kept, number, t, sink);
}

/* Narrows `own` to the sequence of row `number`, by all threads; false: there is none. */
__device__ static inline bool narrow_to_row(rw_attention_combine_params &own, int64_t number,
                                            attention_found &found, const rwi_fault_sink &sink) {
    int64_t token, rest;
    rwi_split_index(number, own.rules.scores.heads, &token, &rest);
    const bool is_found = attention_find_sequence(
        own, found, (int)threadIdx.x, RWI_BLOCK, true, sink,
        [&](const rwi_attention_sequence &at) { return at.q_begin <= token && token < at.q_end; },
        [] { __syncthreads(); });
    if (!is_found)
        return false;
    if (threadIdx.x == 0) {
        rwi_attention_sequence at;
        rwi_bad_id bad;
        (void)rwi_attention_load_sequence(&own, (int64_t)found.b, &at, &bad);
        rwi_attention_narrow(&own, &at);
    }
    __syncthreads();
    return true;
}

/* The same of sequences of different lengths, or of codes, whose heads have a scale. */
template <typename Shape>
static __global__ void __launch_bounds__(RWI_BLOCK)
    combine_own_kernel(rw_attention_combine_params p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    __shared__ combine_block<Shape> t;
    __shared__ rw_attention_combine_params own;
    __shared__ attention_found found;
    const int64_t number = rwi_block_row();
    if (number >= p.num_rows)
        return;
    rwi_copy_parameters(own, p);
    if (own.ragged.queries.data && !narrow_to_row(own, number, found, sink))
        return;
    const int64_t own_number = number - own.first_token * own.rules.scores.heads;
    if (threadIdx.x == 0) {
        int64_t group, row, b, kv_head;
        rwi_split_index(own_number, rwi_attention_group_rows(&own), &group, &row);
        rwi_split_index(group, own.kv_heads, &b, &kv_head);
        rwi_attention_scale_keys(&own, kv_head);
    }
    __syncthreads();
    combine_row(own, own, own_number, t, sink);
}

template <typename Shape>
static rw_status launch_combine(rwi_device *device, const rw_attention_combine_params &p) {
    rwi_launch_shape shape =
        rwi_launch_rows(RWI_OP_attention, attention_combine_work(&p).items, dim3(RWI_BLOCK));
    shape.grid.z = (uint32_t)rwi_ceil_div(p.v_dim, Shape::COLUMNS);
    return rwi_launch(device, shape,
                      p.ragged.queries.data || p.k_scale.data ? combine_own_kernel<Shape>
                                                              : combine_kernel<Shape>,
                      p);
}

/* Faults are reported under the name of the operation that this step belongs to. */
extern "C" rw_status rwi_hip_attention_combine(rwi_device *device,
                                               const rw_attention_combine_params *p) {
    return p->v_dim <= combine_shape<32>::COLUMNS ? launch_combine<combine_shape<32>>(device, *p)
                                                  : launch_combine<combine_shape<64>>(device, *p);
}
