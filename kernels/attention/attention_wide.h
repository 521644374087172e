/* Attention on a GPU for the widths that attention_gpu.h has no kernels for: more than 256 columns,
 * or no multiple of 8. One source file for each dtype of q, and of k and v, includes it.
 *
 * A block computes a tile of rows over one part of the keys, as there. Several waves share 16 rows:
 * each of them multiplies its own columns of q and k, and sums its own columns of v. The sums of
 * products of q and k are exchanged through shared memory; all waves of the rows then have all
 * scores, and compute the same weights. Where v is the first columns of k, one tile serves both
 * products.
 */
#ifndef RWI_ATTENTION_WIDE_H
#define RWI_ATTENTION_WIDE_H

#include "attention/attention_block.h"
#include "attention/attention_hopper.h"
#include "attention/attention_launch.h"
#include "attention/attention_output.h"
#include "attention/attention_own.h"
#include "attention/attention_scores.h"
#include "attention/attention_wide_tile.h"

/* Replaces nonfinite values of a tile of v by 0, as attention_zero_nonfinite() does, between two
 * barriers. */
template <typename Shape>
__device__ static inline void zero_wide(const attention_launch &launch, attention_block<Shape> &t,
                                        int32_t j, typename Shape::element *tile) {
    typedef wide_vector<Shape, Shape::KEYS> vector;
    const int columns = Shape::WHOLE ? whole_spans<Shape>(launch.op.v_dim) : Shape::SPAN;
    bool nonfinite = false;
#pragma unroll 1
    for (int n = rwi_computed_here((int)threadIdx.x); n < vector::count(columns);
         n += Shape::THREADS) {
        const vector place(n);
        typename Shape::element *at = tile + place.row * Shape::PITCH + place.column;
#pragma unroll 1
        for (int c = 0; c < Shape::VECTOR; c++) {
            const float x = rwi_load(Shape::DTYPE, at, c);
            if (x * 0.0f == 0.0f)
                continue;
            at[c] = 0;
            nonfinite = true;
        }
    }
    if (nonfinite) {
        atomicMin(&t.nonfinite.begin, j);
        atomicMax(&t.nonfinite.end, (int32_t)rwi_min((int64_t)j + Shape::KEYS, INT32_MAX));
    }
    __syncthreads();
}

/* ---- a tile of keys ---- */

/* Adds up the products of the waves that share rows: all of them receive the same sums. */
template <typename Shape>
__device__ static inline void exchange_products(typename Shape::product (&s)[Shape::N_KEYS],
                                                float *exchange) {
    typedef typename Shape::unit unit;
    constexpr int EACH = unit::QUERIES * unit::KEYS;
    const int lane = (int)threadIdx.x % unit::LANES, wave = (int)threadIdx.x / unit::LANES;
    float *own = exchange + wave * Shape::EXCHANGE + lane;
    const float *all = exchange + wave / Shape::PARTS * Shape::PARTS * Shape::EXCHANGE + lane;
#pragma unroll
    for (int first = 0; first < Shape::N_KEYS; first += Shape::EXCHANGED) {
        if (first > 0)
            __syncthreads(); /* the previous ones were read */
#pragma unroll
        for (int i = 0; i < Shape::EXCHANGED * EACH; i++)
            own[i * unit::LANES] = s[first + i / EACH].x[i % EACH / unit::KEYS][i % unit::KEYS];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < Shape::EXCHANGED * EACH; i++) {
            float sum = all[i * unit::LANES];
#pragma unroll
            for (int part = 1; part < Shape::PARTS; part++)
                sum += all[part * Shape::EXCHANGE + i * unit::LANES];
            s[first + i / EACH].x[i % EACH / unit::KEYS][i % unit::KEYS] = sum;
        }
    }
}

/* Products of q and keys [j, j + KEYS). BACKGROUND: k has arrived or is being copied; the copy of
 * what is needed after it is started: of v, or of the k at `next` (-1: none). */
template <typename Shape>
__device__ static inline void
multiply_wide_k(const attention_launch &launch, const attention_block<Shape> &t,
                const attention_wide_tiles<Shape> &tiles,
                typename Shape::product (&s)[Shape::N_KEYS], int32_t j, int32_t next) {
    typedef typename Shape::unit unit;
    const int wave = (int)threadIdx.x / unit::LANES;
    const int slice = wave % Shape::PARTS * Shape::SLICE;
    const typename Shape::element *q = tiles.q + Shape::first_row(wave) * Shape::PITCH + slice;
    if (Shape::WHOLE) {
        if constexpr (!Shape::BACKGROUND) {
            __syncthreads(); /* v was read */
            stage_wide_k<Shape>(launch, t, j, 0, tiles.now);
        }
        rwi_async_wait();
        __syncthreads(); /* k has arrived, and v was read */
    }
    if constexpr (Shape::BACKGROUND)
        start_wide(launch, t, tiles, !tiles.v_is_k, tiles.v_is_k ? next : j, tiles.later);
#pragma unroll 1
    for (int first = 0; first < launch.op.head_dim; first += Shape::SPAN) {
        if (!Shape::WHOLE) {
            __syncthreads(); /* the previous span was read */
            stage_wide_k<Shape>(launch, t, j, first, tiles.now);
            rwi_async_wait();
            __syncthreads();
        }
        unit::template scores<Shape::SLICE>(s, q + first / Shape::SPAN * Shape::NEXT_SPAN,
                                            tiles.now + (Shape::WHOLE ? first : 0) + slice,
                                            Shape::PITCH);
    }
}

/* Adds weights times v. BACKGROUND: v has arrived or is being copied; the copy of the k at `next` is
 * started unless it was before. */
template <typename Shape>
__device__ static inline void
multiply_wide_v(const attention_launch &launch, attention_block<Shape> &t,
                const attention_wide_tiles<Shape> &tiles, attention_thread<Shape> &mine,
                const typename Shape::product (&w)[Shape::N_KEYS], int32_t j, int32_t next,
                bool finite) {
    typedef typename Shape::unit unit;
    typedef typename Shape::product products[Shape::N_SLICE];
    const int slice = (int)threadIdx.x / unit::LANES % Shape::PARTS * Shape::SLICE;
    typename Shape::element *v = tiles.v_is_k ? tiles.now : tiles.later;
    if (Shape::WHOLE && !tiles.v_is_k) {
        if constexpr (Shape::BACKGROUND)
            finish_wide(launch, tiles, true, j, v);
        else
            stage_wide_v<Shape>(launch, t, j, 0, v); /* k was read before products were exchanged */
        rwi_async_wait();
        __syncthreads();
        if constexpr (Shape::BACKGROUND)
            start_wide(launch, t, tiles, false, next, tiles.now);
    }
    if (Shape::WHOLE && !finite)
        zero_wide<Shape>(launch, t, j, v);
#pragma unroll
    for (int span = 0; span < Shape::SPANS; span++) {
        if (span * Shape::SPAN >= launch.op.v_dim)
            break;
        if (!Shape::WHOLE) {
            __syncthreads(); /* the previous span was read */
            stage_wide_v<Shape>(launch, t, j, span * Shape::SPAN, v);
            rwi_async_wait();
            __syncthreads();
            if (!finite)
                zero_wide<Shape>(launch, t, j, v);
        }
        unit::values(*(products *)&mine.out[span * Shape::N_SLICE], w,
                     v + (Shape::WHOLE ? span * Shape::SPAN : 0) + slice, Shape::PITCH,
                     tiles.scratch);
    }
    if constexpr (Shape::BACKGROUND)
        finish_wide(launch, tiles, false, next, tiles.v_is_k ? tiles.later : tiles.now);
}

template <typename Shape>
__device__ static __forceinline__ void
attend_wide_tile(const attention_launch &launch, attention_block<Shape> &t,
                 attention_wide_tiles<Shape> &tiles, attention_thread<Shape> &mine, int32_t j,
                 int32_t next, rw_tile state) {
    const int wave = (int)threadIdx.x / Shape::unit::LANES;
    typename Shape::product s[Shape::N_KEYS] = {};
    multiply_wide_k<Shape>(launch, t, tiles, s, j, next);
    exchange_products<Shape>(s, tiles.exchange);
    attention_score<Shape>(launch, t, s, t.rows + Shape::first_row(wave), j, state == RW_TILE_ALL,
                           mine.plain);
    float kept[Shape::unit::QUERIES];
    attention_weigh<Shape>(s, mine, kept);
    attention_rescale<Shape>(kept, mine);
    multiply_wide_v<Shape>(launch, t, tiles, mine, s, j, next, state == RW_TILE_ALL);
    if (Shape::BACKGROUND && tiles.v_is_k) {
        typename Shape::element *read = tiles.now;
        tiles.now = tiles.later;
        tiles.later = read;
    }
}

/* ---- an item ---- */

/* Keys of BATCH tiles from tile `first` on. */
template <typename Shape>
__device__ static __forceinline__ void
attend_wide_batch(const attention_launch &launch, attention_block<Shape> &t,
                  attention_wide_tiles<Shape> &tiles, attention_thread<Shape> &mine, int32_t first,
                  int32_t end) {
    const int count = (int)rwi_min(Shape::BATCH, end - first);
    ask_tiles(launch, t, first, end);
    rwi_await_previous_kernel(); /* the first time */
    stage_wide_q<Shape>(launch, t, tiles.q);
    __syncthreads();
    int n = next_tile(t, 0, count);
    if constexpr (Shape::BACKGROUND) {
        const int32_t j = n < count ? attention_key<Shape>(t, first + n) : -1;
        start_wide(launch, t, tiles, false, j, tiles.now);
        finish_wide(launch, tiles, false, j, tiles.now);
    }
#pragma unroll 1
    while (n < count) {
        const int next = next_tile(t, n + 1, count);
        attend_wide_tile<Shape>(launch, t, tiles, mine, attention_key<Shape>(t, first + n),
                                next < count ? attention_key<Shape>(t, first + next) : -1,
                                (rw_tile)t.tiles[n]);
        n = next;
    }
    rwi_async_wait();
    __syncthreads(); /* the tiles and their visibility were read */
}

template <typename Shape>
__device__ static inline void store_wide_rows(const attention_launch &launch,
                                              const attention_block<Shape> &t,
                                              const attention_thread<Shape> &mine, float *out) {
    typedef typename Shape::unit unit;
    const int thread = rwi_computed_here((int)threadIdx.x);
    const int lane = thread % unit::LANES, wave = thread / unit::LANES;
    float *rows =
        out + (wave % Shape::PARTS * Shape::ROWS + Shape::first_row(wave)) * Shape::OUT_PITCH;
#pragma unroll
    for (int span = 0; span < Shape::SPANS; span++) {
        if (span * Shape::SPAN >= launch.op.v_dim)
            break;
        __syncthreads();
#pragma unroll
        for (int n = 0; n < Shape::N_SLICE; n++)
#pragma unroll
            for (int q = 0; q < unit::QUERIES; q++)
#pragma unroll
                for (int e = 0; e < unit::KEYS; e++)
                    rows[unit::query(lane, q) * Shape::OUT_PITCH +
                         unit::template column<Shape::N_SLICE>(lane, n, e)] =
                        mine.out[span * Shape::N_SLICE + n].x[q][e];
        __syncthreads();
#pragma unroll 1
        for (int part = 0; part < Shape::PARTS; part++)
            store_columns(launch, t, out + part * Shape::ROWS * Shape::OUT_PITCH,
                          span * Shape::SPAN + part * Shape::SLICE);
    }
}

/* After each batch the sums move as those of attend() do. */
template <typename Shape>
__device__ static __forceinline__ void
attend_wide(const attention_launch &launch, attention_block<Shape> &t,
            attention_wide_tiles<Shape> tiles, attention_thread<Shape> &mine) {
    const rwi_span range = attention_tile_range<Shape>(t);
#pragma unroll 1
    for (int32_t first = range.begin;; first += Shape::BATCH) {
        const bool last = first + Shape::BATCH >= range.end;
        attend_wide_batch<Shape>(launch, t, tiles, mine, first, range.end);
        sum_waves<Shape>(launch, t, mine, last);
        if (last || keeps_sums(launch.op)) {
            store_wide_rows<Shape>(launch, t, mine, tiles.out);
            clear_out<Shape>(mine);
        }
        if (last)
            return;
        clear_sums<Shape>(mine);
        __syncthreads(); /* the stored output overlaps the tiles */
    }
}

/* An item, by all threads of a block, inline as attend_item(). */
template <typename Shape>
__device__ static __forceinline__ void attend_wide_item(const attention_launch &launch,
                                                        int64_t item, attention_block<Shape> &t,
                                                        uint4 *shared, const rwi_fault_sink &sink) {
    if (!rwi_attention_rows_are_known(&launch.op))
        rwi_await_previous_kernel();
    if (threadIdx.x == 0)
        begin_item(launch, item, t);
    __syncthreads();
    find_rows(launch, t, sink);
    __syncthreads();
    check_pages(launch, t, sink);
    attention_thread<Shape> mine;
    begin_thread<Shape>(launch, mine);
    attend_wide<Shape>(launch, t, find_wide_tiles<Shape>(launch, shared), mine);
    if (t.nonfinite.end == 0)
        return;
    __syncthreads(); /* make the stored output visible to all that repair it */
    repair<Shape>(launch, t);
}

template <typename Shape>
static __global__ void __launch_bounds__(Shape::BLOCK, Shape::BLOCKS)
    attention_wide_kernel(attention_launch launch, rwi_fault_sink sink) {
    rwi_start_next_kernel();
    HIP_DYNAMIC_SHARED(uint4, shared)
    __shared__ attention_block<Shape> t;
    static_assert(Shape::BACKGROUND || Shape::SHARED_BYTES + sizeof t + sizeof launch <= 64 * 1024,
                  "an AMD GPU has no more shared memory");
    static_assert(Shape::SHARED_BYTES + sizeof t <= 227 * 1024, "nor has an NVIDIA GPU");
    const int64_t item = rwi_block_row();
    if (item >= launch.items)
        return;
    __shared__ attention_launch kept; /* as attention_kernel() */
    if (!RWI_PARAMETERS_NEAR)
        rwi_copy_parameters(kept, launch);
    attend_wide_item<Shape>(RWI_PARAMETERS_NEAR ? launch : kept, item, t, shared, sink);
}

/* Items of sequences of different lengths, or of codes, as attention_own_kernel(). */
template <typename Shape>
static __global__ void __launch_bounds__(Shape::BLOCK, Shape::BLOCKS)
    attention_wide_own_kernel(attention_launch launch, rwi_fault_sink sink) {
    rwi_begin_kernel();
    HIP_DYNAMIC_SHARED(uint4, shared)
    __shared__ attention_block<Shape> t;
    __shared__ attention_launch own;
    __shared__ attention_found found;
    static_assert(Shape::BACKGROUND ||
                      Shape::SHARED_BYTES + sizeof t + sizeof own + sizeof found <= 64 * 1024,
                  "an AMD GPU has no more shared memory");
    static_assert(Shape::SHARED_BYTES + sizeof t + sizeof own + sizeof found <= 227 * 1024,
                  "nor has an NVIDIA GPU");
    const int64_t item = rwi_block_row();
    if (item >= launch.items)
        return;
    rwi_copy_parameters(own, launch);
    const int64_t own_item =
        own.op.ragged.queries.data ? find_own_item<Shape>(own, item, found, sink) : item;
    if (own_item < 0)
        return;
    if constexpr (Shape::CODES)
        scale_own_keys<Shape>(own, own_item);
    attend_wide_item<Shape>(own, own_item, t, shared, sink);
}

/* All items or, of sequences of different lengths, those of sequences within the bounds. */
template <rw_dtype D, bool CODES>
static rw_status launch_wide_items(rwi_device *device, const rw_attention_params &p,
                                   const attention_bounds &bounds, bool again) {
    return rwi_dispatch_mma<D>(device, [&](auto unit) {
        typedef attention_wide_shape<D, decltype(unit)::value, CODES> Shape;
        /* The host pass for AMD takes this unit for those of all devices. */
        typedef attention_wide_shape<D, RWI_MMA_FMA_32, CODES> HostShape;
        static_assert(Shape::BACKGROUND || HostShape::SHARED_BYTES >= Shape::SHARED_BYTES,
                      "a block has the shared memory that its kernel uses");
        attention_launch launch = describe_launch<Shape>(p);
        const bool ragged = p.ragged.queries.data;
        if (ragged)
            describe_slots<Shape>(launch, bounds);
        rwi_launch_shape shape = block_shape<Shape>(device, launch);
        shape.again = again;
        if constexpr (!Shape::CODES)
            if (!ragged)
                return rwi_launch(device, shape, attention_wide_kernel<Shape>, launch);
        return rwi_launch(device, shape, attention_wide_own_kernel<Shape>, launch);
    });
}

/* A latent cache on Hopper: sequences of too many keys are left. */
template <rw_dtype D, bool CODES>
static rw_status launch_wide(rwi_device *device, const rw_attention_params &p) {
    attention_bounds bounds = {0, INT64_MAX, 0, INT64_MAX};
    bool again = false;
#if defined(RWI_HAS_WGMMA)
    if constexpr (D != RW_F32 && !CODES) {
        const bool ragged = p.ragged.queries.data;
        const bool fits = p.rules.scores.seq_k <= most_roles_keys(p);
        if (rwi_attention_is_latent(&p) && (ragged || fits) && roles_serve_tensors<D>(device, p)) {
            bounds.most_keys = most_roles_keys(p);
            const rw_status status = launch_roles_of<D>(device, p, bounds, false);
            if (status != RW_OK || fits)
                return status;
            bounds.least_keys = bounds.most_keys + 1;
            bounds.most_keys = INT64_MAX;
            again = true;
        }
    }
#endif
    return launch_wide_items<D, CODES>(device, p, bounds, again);
}

#endif
