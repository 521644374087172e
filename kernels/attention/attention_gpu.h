/* Attention on a GPU: the kernel and its launches. One source file for each dtype includes it
 * (attention_f32.hip, ...), so that they compile in parallel. A block computes a tile of rows
 * (queries of the heads that share k and v) over one part of the keys; its waves multiply with the
 * units of mma.h. */
#ifndef RWI_ATTENTION_GPU_H
#define RWI_ATTENTION_GPU_H

#include "attention/attention_store.h"
#include "attention/attention_tile.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/registers.h"
#include "gpu/vectors.h"

/* The size of k and v that stays in the second-level cache while the blocks of their heads run. */
#define SECTION_BYTES ((int64_t)16 << 20)

/* ---- rows ---- */

/* Items are ordered by sections of groups. Within a section the last rows come first: under a
 * causal pattern they see the most keys. */
__device__ static inline rwi_attention_item find_item(const attention_launch &launch, int64_t item,
                                                      int32_t tile_rows) {
    const rw_attention_params &p = launch.op;
    const int64_t tiles = rwi_attention_row_tiles(&p, tile_rows);
    int64_t section, rest, part, tile, group;
    rwi_split_index(item, launch.section * tiles * p.parts.count, &section, &rest);
    const int64_t first = section * launch.section;
    rwi_split_index(rest, rwi_min(launch.section, rwi_attention_groups(&p) - first), &rest, &group);
    rwi_split_index(rest, p.parts.count, &tile, &part);
    return rwi_attention_item_at(&p, first + group, tiles - 1 - tile, part, tile_rows);
}

/* Finds the rows of the block and the keys that they see. Where the keys are split,
 * attention_combine reports invalid values of the pattern's tensors. */
template <typename Shape>
__device__ static inline void find_rows(attention_block<Shape> &t, const rwi_fault_sink &sink) {
    const rw_attention_params &p = t.launch.op;
#pragma unroll 1
    for (int r = (int)threadIdx.x; r < Shape::ROWS; r += Shape::THREADS) {
        rwi_attention_row *row = &t.rows[r];
        rwi_bad_id bad;
        const bool inside = r < t.item.rows;
        t.earlier_base[r] = -INFINITY;
        t.earlier_sum[r] = 0.0f;
        rwi_attention_find_row(&p, t.item.b, t.item.kv_head, t.item.first + (inside ? r : 0), row,
                               &bad);
        if (!inside) {
            const rwi_span none = {0, 0};
            row->pattern.prefix = row->pattern.window = row->pattern.global = none;
            row->valid = false;
            continue;
        }
        if (!row->valid && p.parts.count == 1)
            rwi_fault_raise(sink, t.item.b * p.rules.scores.seq_q + row->pattern.i, bad);
        const rwi_span hull =
            rwi_span_meet(rwi_pattern_hull(&row->pattern), t.item.keys.begin, t.item.keys.end);
        if (rwi_span_empty(hull))
            continue;
        atomicMin(&t.seen.begin, hull.begin);
        atomicMax(&t.seen.end, hull.end);
    }
}

/* Output of rows that need an invalid page is not written. */
template <typename Shape>
__device__ static inline void check_pages(attention_block<Shape> &t, const rwi_fault_sink &sink) {
    const rw_attention_params &p = t.launch.op;
    if (!p.pages.table.data || rwi_span_empty(t.seen))
        return;
    rwi_bad_id bad;
#pragma unroll 1
    for (int64_t n = (t.seen.begin >> p.pages.shift) + threadIdx.x;
         n <= (t.seen.end - 1) >> p.pages.shift; n += Shape::THREADS) {
        const int64_t page = rwi_ids_load(&p.pages.table, 0, t.item.b, n);
        if (page < 0 || page >= p.pages.num_pages)
            t.missing_page = 1; /* every writing thread writes 1 */
    }
    __syncthreads();
    if (!t.missing_page)
        return;
#pragma unroll 1
    for (int r = (int)threadIdx.x; r < t.item.rows; r += Shape::THREADS) {
        rwi_attention_row *row = &t.rows[r];
        const rwi_span hull =
            rwi_span_meet(rwi_pattern_hull(&row->pattern), t.item.keys.begin, t.item.keys.end);
        if (!row->valid || rwi_attention_pages_exist(&p, t.item.b, hull, &bad))
            continue;
        row->valid = false;
        if (p.parts.count == 1)
            rwi_fault_raise(sink, t.item.b * p.rules.scores.seq_q + row->pattern.i, bad);
    }
}

template <typename Shape>
__device__ static inline void begin_block(const attention_launch &launch, int64_t item,
                                          attention_block<Shape> &t, const rwi_fault_sink &sink) {
    if (threadIdx.x == 0) {
        t.launch = launch;
        t.seen.begin = t.nonfinite.begin = INT32_MAX;
        t.seen.end = t.nonfinite.end = 0;
        t.missing_page = 0;
    }
    __syncthreads();
    if (threadIdx.x == 0)
        t.item = find_item(t.launch, item, Shape::ROWS);
    __syncthreads();
    find_rows(t, sink);
    __syncthreads();
    if (threadIdx.x == 0 && t.seen.end == 0)
        t.seen.begin = 0;
    __syncthreads();
    check_pages(t, sink);
    __syncthreads();
}

template <typename Shape> __device__ static inline void clear_sums(attention_thread<Shape> &mine) {
#pragma unroll
    for (int q = 0; q < Shape::unit::QUERIES; q++)
        mine.sum[q] = 0.0f;
}

template <typename Shape> __device__ static inline void clear_out(attention_thread<Shape> &mine) {
#pragma unroll
    for (int n = 0; n < Shape::N_COLUMNS; n++)
#pragma unroll
        for (int q = 0; q < Shape::unit::QUERIES; q++)
#pragma unroll
            for (int e = 0; e < Shape::unit::KEYS; e++)
                mine.out[n].x[q][e] = 0.0f;
}

template <typename Shape>
__device__ static inline void begin_thread(const rw_attention_params &p,
                                           attention_thread<Shape> &mine) {
    mine.plain = rwi_attention_keeps_products(&p);
    mine.factor = rwi_attention_kept_scale(&p) * RWI_LOG2_E;
#pragma unroll
    for (int q = 0; q < Shape::unit::QUERIES; q++)
        mine.largest[q] = -INFINITY;
    clear_sums<Shape>(mine);
    clear_out<Shape>(mine);
}

/* ---- the keys ---- */

/* Which of the BATCH tiles from `first` on are visible to the rows, and the pages that hold them;
 * `end` is one past the last tile. */
template <typename Shape>
__device__ static inline void ask_tiles(attention_block<Shape> &t, int32_t first, int32_t end) {
    const rw_attention_params &p = t.launch.op;
    const int thread = rwi_computed_here((int)threadIdx.x);
    if (thread < Shape::BATCH) {
        const int64_t j = (int64_t)(first + thread) * Shape::KEYS;
        const int64_t keys = rwi_min(Shape::KEYS, t.item.keys.end - j);
        rw_tile state = RW_TILE_NONE;
        if (first + thread < end)
            state = rwi_attention_ask_tile(&p, &t.item, j, keys);
        if (state == RW_TILE_ALL && keys < Shape::KEYS)
            state = RW_TILE_SOME; /* it extends past the last key */
        t.tiles[thread] = (uint8_t)state;
    }
    if (!p.pages.table.data)
        return;
    const int64_t first_page = (int64_t)first * Shape::KEYS >> p.pages.shift;
    if (thread == 0)
        t.first_page = first_page;
#pragma unroll 1
    for (int n = thread; n < Shape::BATCH * Shape::KEYS / 16; n += Shape::THREADS) {
        const int64_t at = first_page + n;
        int64_t page = -1;
        if (at >= t.seen.begin >> p.pages.shift && at <= (t.seen.end - 1) >> p.pages.shift)
            page = rwi_ids_load(&p.pages.table, 0, t.item.b, at);
        t.pages[n] = page < p.pages.num_pages ? page : -1;
    }
}

template <typename Shape>
__device__ static inline int next_tile(const attention_block<Shape> &t, int n, int count) {
    while (n < count && t.tiles[n] == RW_TILE_NONE)
        n++;
    return n;
}

template <typename Shape>
__device__ static inline void stage_k(const attention_launch &launch,
                                      const attention_block<Shape> &t, int32_t j,
                                      typename Shape::element *tile) {
    attention_stage<Shape>(launch, t, launch.op.k, launch.op.head_dim, j, tile);
}

template <typename Shape>
__device__ static inline void stage_v(const attention_launch &launch,
                                      const attention_block<Shape> &t, int32_t j,
                                      typename Shape::element *tile) {
    attention_stage<Shape>(launch, t, launch.op.v, launch.op.v_dim, j, tile);
}

/* Keys [j, j + KEYS). With asynchronous copies k has arrived or is being copied, with AHEAD v too;
 * the copy of the tile at `next` (-1: none) is started. */
template <typename Shape>
__device__ static inline void attend_tile(const attention_launch &launch, attention_block<Shape> &t,
                                          const attention_tiles<Shape> &tiles,
                                          attention_thread<Shape> &mine, int32_t j, int32_t next,
                                          rw_tile state) {
    typedef typename Shape::unit unit;
    const int wave = (int)threadIdx.x / unit::LANES;
    const int row = Shape::FEW ? 0 : wave * Shape::WAVE_ROWS;
    const int key = Shape::FEW ? wave * Shape::WAVE_KEYS : 0;
    if (!Shape::BACKGROUND) {
        __syncthreads();
        stage_k(launch, t, j, tiles.k);
    }
    rwi_async_wait();
    __syncthreads(); /* k has arrived, and v was read */
    if (Shape::AHEAD && next >= 0) {
        stage_k(launch, t, next, tiles.k + tiles.next_stage);
        stage_v(launch, t, next, tiles.v + tiles.next_stage);
    }
    if (Shape::BACKGROUND && !Shape::AHEAD)
        stage_v(launch, t, j, tiles.v);
    typename Shape::product s[Shape::N_KEYS] = {};
    unit::template scores<Shape::WIDTH>(s, tiles.q + row * Shape::PITCH,
                                        tiles.k + key * Shape::PITCH, Shape::PITCH);
    attention_score<Shape>(t, s, row, j + key, state == RW_TILE_ALL, mine.plain, tiles.scratch);
    if (!Shape::BACKGROUND) {
        __syncthreads();
        stage_v(launch, t, j, tiles.v);
    }
    if (!Shape::AHEAD) {
        rwi_async_wait();
        __syncthreads(); /* v has arrived, and k was read */
    }
    if (Shape::BACKGROUND && !Shape::AHEAD && next >= 0)
        stage_k(launch, t, next, tiles.k);
    if (state == RW_TILE_SOME) {
        attention_zero_nonfinite<Shape>(t, j, tiles.v);
        __syncthreads();
    }
    attention_weigh<Shape>(s, mine);
    unit::values(mine.out, s, tiles.v + key * Shape::PITCH, Shape::PITCH, tiles.scratch);
}

/* ---- from registers to the output ---- */

template <typename Shape>
__device__ static inline attention_target find_target(const attention_block<Shape> &t, int r) {
    const rw_attention_params &p = t.launch.op;
    if (p.parts.count == 1)
        return {p.out.data, rwi_attention_at(&p.out, t.item.b, &t.rows[r]), p.out_dtype};
    const int64_t number = rwi_attention_row_number(&p, t.item.b, t.item.kv_head, t.item.first + r);
    return {p.parts.out, (t.item.part * attention_combine_work(&p).items + number) * p.v_dim,
            RW_F32};
}

/* Ends row `r`, whose sum relative to `base` is `sum`; returns the factor of its output. */
template <typename Shape>
__device__ static inline float end_row(const attention_block<Shape> &t, int r, float base,
                                       float sum) {
    const rw_attention_params &p = t.launch.op;
    const rwi_attention_row &row = t.rows[r];
    if (p.parts.count > 1) {
        const int64_t number =
            rwi_attention_row_number(&p, t.item.b, t.item.kv_head, t.item.first + r);
        const int64_t at = t.item.part * attention_combine_work(&p).items + number;
        if (row.valid) {
            ((float *)rwi_global(p.parts.largest))[at] = base;
            ((float *)rwi_global(p.parts.sum))[at] = sum;
        }
        return 1.0f;
    }
    const rwi_attention_end end =
        rwi_attention_finish(&p, row.h, base * rwi_attention_kept_scale(&p), sum);
    if (row.valid && p.lse.data)
        ((float *)rwi_global(p.lse.data))[rwi_attention_lse_at(&p, t.item.b, &row)] = end.lse;
    return end.share;
}

/* Whether partial sums of values can be kept in the output. */
__device__ static inline bool keeps_sums(const rw_attention_params &p) {
    return p.parts.count > 1 || p.out_dtype == RW_F32;
}

/* Reduces each lane's sums to sums of rows and writes each wave's output factor to `share`: the
 * final one if `last`, else relative to the largest score so far. */
template <typename Shape>
__device__ static inline void sum_waves(attention_block<Shape> &t,
                                        const attention_thread<Shape> &mine, bool last) {
    typedef typename Shape::unit unit;
    const int thread = rwi_computed_here((int)threadIdx.x);
    const int lane = thread % unit::LANES, wave = thread / unit::LANES;
    const bool kept = keeps_sums(t.launch.op);
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const float sum = unit::reduce_sum(mine.sum[q]);
        const int at = wave * Shape::WAVE_ROWS + unit::query(lane, q);
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
            t.share[at] =
                rwi_exp2_fast(fmaf(t.base[at] - base, mine.factor, -(float)Shape::WEIGHT_BITS));
            sum += t.sum[at] * t.share[at];
        }
        const float share = last ? end_row(t, r, base, sum) : 1.0f;
        for (int w = 0; w < waves; w++)
            t.share[w * Shape::ROWS + r] *= share;
        t.earlier_share[r] = kept ? earlier * share : 0.0f;
        t.earlier_sum[r] = sum;
        t.earlier_base[r] = largest;
    }
}

/* Columns of every row from `column` on, from shared memory, where each wave has its own. */
template <typename Shape>
__device__ static inline void store_columns(const attention_block<Shape> &t, const float *out,
                                            int column) {
    constexpr int VECTORS = Shape::OUT_COLUMNS / 4;
    const bool vectors = t.launch.out_vectors || t.launch.op.parts.count > 1;
#pragma unroll 1
    for (int n = rwi_computed_here((int)threadIdx.x); n < t.item.rows * VECTORS;
         n += Shape::THREADS) {
        const int r = n / VECTORS, c = n % VECTORS * 4;
        if (!t.rows[r].valid || column + c >= t.launch.op.v_dim)
            continue;
        const attention_target to = find_target(t, r);
        float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
        if (t.earlier_share[r] != 0.0f)
            attention_add_four(attention_load_four(to, column + c, vectors), t.earlier_share[r],
                               &sum);
#pragma unroll
        for (int w = 0; w < (Shape::FEW ? Shape::WAVES : 1); w++) {
            const int row = w * Shape::ROWS + r;
            if (t.share[row] != 0.0f)
                attention_add_four(*(const float4 *)(out + row * Shape::OUT_PITCH + c),
                                   t.share[row], &sum);
        }
        attention_store_four(to, column + c, sum, vectors);
    }
}

template <typename Shape>
__device__ static inline void store_rows(const attention_block<Shape> &t,
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
                         unit::template column<STEP>(lane, n, e)] = mine.out[first + n].x[q][e];
        __syncthreads();
        store_columns(t, out, first * 16);
    }
}

/* Keys of BATCH tiles from tile `first` on. */
template <typename Shape>
__device__ static inline void attend_batch(const attention_launch &launch,
                                           attention_block<Shape> &t, attention_tiles<Shape> &tiles,
                                           attention_thread<Shape> &mine, int32_t first,
                                           int32_t end) {
    const int count = (int)rwi_min(Shape::BATCH, end - first);
    ask_tiles(t, first, end);
    __syncthreads();
    int n = next_tile(t, 0, count);
    if (Shape::BACKGROUND && n < count)
        stage_k(launch, t, (first + n) * Shape::KEYS, tiles.k);
    if (Shape::AHEAD && n < count)
        stage_v(launch, t, (first + n) * Shape::KEYS, tiles.v);
#pragma unroll 1
    while (n < count) {
        const int next = next_tile(t, n + 1, count);
        attend_tile<Shape>(launch, t, tiles, mine, (first + n) * Shape::KEYS,
                           next < count ? (first + next) * Shape::KEYS : -1, (rw_tile)t.tiles[n]);
        n = next;
        if (!Shape::AHEAD)
            continue;
        tiles.k += tiles.next_stage;
        tiles.v += tiles.next_stage;
        tiles.next_stage = -tiles.next_stage;
    }
    rwi_async_wait();
    __syncthreads(); /* the tiles and their visibility were read */
}

/* After each batch the sums move from registers to shared memory, those of values to the output,
 * and start again at 0: added to the sum over thousands of keys, the sum over a few more would lose
 * its low bits. */
template <typename Shape>
__device__ static inline void attend(const attention_launch &launch, attention_block<Shape> &t,
                                     attention_tiles<Shape> tiles, attention_thread<Shape> &mine) {
    const int32_t end = (int32_t)rwi_ceil_div(t.seen.end, Shape::KEYS);
    int32_t first = t.seen.begin / Shape::KEYS;
#pragma unroll 1
    for (;; first += Shape::BATCH) {
        const bool last = first + Shape::BATCH >= end;
        attend_batch<Shape>(launch, t, tiles, mine, first, end);
        sum_waves<Shape>(t, mine, last);
        if (last || keeps_sums(launch.op)) {
            store_rows<Shape>(t, mine, tiles.out);
            clear_out<Shape>(mine);
        }
        if (last)
            return;
        clear_sums<Shape>(mine);
        __syncthreads(); /* the stored output overlaps the tiles */
        attention_stage_q<Shape>(launch, t, tiles.q);
    }
}

/* Adds the nonfinite values of v to the rows that see them. Rare and slow. */
template <typename Shape> __device__ static inline void repair(const attention_block<Shape> &t) {
    const rw_attention_params &p = t.launch.op;
    const bool cells = rwi_pattern_has_cells(&p.rules.pattern);
#pragma unroll 1
    for (int n = (int)threadIdx.x; n < t.item.rows * p.v_dim; n += Shape::THREADS) {
        const int r = n / p.v_dim, column = n % p.v_dim;
        const rwi_attention_row &row = t.rows[r];
        if (!row.valid || t.earlier_sum[r] == 0.0f) /* no key has a weight */
            continue;
        float nonfinite = 0.0f;
        const rwi_span keys = rwi_span_meet(t.seen, t.nonfinite.begin, t.nonfinite.end);
#pragma unroll 1
        for (int32_t j = keys.begin; j < keys.end; j++) {
            rwi_kv_place place;
            if (!rwi_pattern_visible(&p.rules.pattern, &row.pattern, cells, j) ||
                !rwi_attention_find_key(&p, t.item.b, j, &place))
                continue;
            const float x = rwi_load(Shape::DTYPE, rwi_global(p.v.data),
                                     rwi_attention_key_at(&p.v, t.item.kv_head, &place) + column);
            if (x * 0.0f != 0.0f)
                nonfinite += x;
        }
        if (nonfinite == 0.0f)
            continue;
        const attention_target to = find_target(t, r);
        void *data = rwi_global(to.data);
        rwi_store(to.dtype, data, to.at + column,
                  rwi_load(to.dtype, data, to.at + column) + nonfinite);
    }
}

template <rw_dtype D, int WIDTH, bool FEW, int UNIT>
static __global__ void __launch_bounds__((attention_shape<D, WIDTH, FEW, UNIT>::THREADS), 2)
    attention_kernel(attention_launch launch, rwi_fault_sink sink) {
    typedef attention_shape<D, WIDTH, FEW, UNIT> Shape;
    HIP_DYNAMIC_SHARED(uint4, shared)
    __shared__ attention_block<Shape> t;
    static_assert(Shape::BACKGROUND || Shape::SHARED_BYTES + sizeof t <= 64 * 1024,
                  "an AMD GPU has no more shared memory");
    const int64_t item = rwi_block_row();
    if (item >= launch.items)
        return;
    const attention_tiles<Shape> tiles = attention_find_tiles<Shape>(shared);
    attention_thread<Shape> mine;
    begin_block(launch, item, t, sink);
    /* On AMD the parameters would need too many scalar registers: read from shared memory. */
    const attention_launch &near = Shape::PARAMETERS_NEAR ? launch : t.launch;
    begin_thread<Shape>(near.op, mine);
    attention_stage_q<Shape>(near, t, tiles.q);
    attend<Shape>(near, t, tiles, mine);
    if (t.nonfinite.end == 0)
        return;
    __syncthreads(); /* make the stored output visible to the whole block */
    repair<Shape>(t);
}

/* ---- launches ---- */

static bool tensor_has_vectors(rw_dtype dtype, const rwi_attention_tensor &tensor, int64_t width) {
    return rwi_rows_are_vectors(dtype, {tensor.data, tensor.stride, 3, width});
}

template <rw_dtype D, int WIDTH, bool FEW>
static rw_status launch_attention(rwi_device *device, const rw_attention_params &p) {
    return rwi_dispatch_mma<D>(device, [&](auto unit) {
        constexpr int UNIT = decltype(unit)::value;
        typedef attention_shape<D, WIDTH, FEW, UNIT> Shape;
        const rwi_scores &lengths = p.rules.scores;
        const int64_t bytes_of_group =
            lengths.seq_k * (p.head_dim + p.v_dim) * (int64_t)rwi_dtype_size(D);
        attention_launch launch = {p, rwi_attention_items(&p, Shape::ROWS), 1, false, false};
        launch.section = rwi_max(1, SECTION_BYTES / rwi_max(1, bytes_of_group));
        launch.vectors = tensor_has_vectors(D, p.q, p.head_dim) &&
                         tensor_has_vectors(D, p.k, p.head_dim) &&
                         tensor_has_vectors(D, p.v, p.v_dim);
        launch.out_vectors = tensor_has_vectors(p.out_dtype, p.out, p.v_dim);
        rwi_launch_shape shape =
            rwi_launch_rows(RWI_OP_attention, launch.items,
                            dim3((uint32_t)(Shape::WAVES * ((rwi_hip_device *)device)->wave)));
        shape.shared_bytes = Shape::SHARED_BYTES;
        return rwi_launch(device, shape, attention_kernel<D, WIDTH, FEW, UNIT>, launch);
    });
}

template <rw_dtype D, int WIDTH>
static rw_status launch_width(rwi_device *device, const rw_attention_params &p) {
    if (rwi_attention_tile_rows(&p, RWI_ATTENTION_ROWS) == RWI_ATTENTION_FEW_ROWS)
        return launch_attention<D, WIDTH, true>(device, p);
    return launch_attention<D, WIDTH, false>(device, p);
}

/* Selects the kernel by the number of columns. */
template <rw_dtype D>
static rw_status launch_dtype(rwi_device *device, const rw_attention_params &p) {
    const int32_t width = p.head_dim > p.v_dim ? p.head_dim : p.v_dim;
    if (width <= 64)
        return launch_width<D, 64>(device, p);
    if (width <= 128)
        return launch_width<D, 128>(device, p);
    return launch_width<D, 256>(device, p);
}

#endif
