/* Attention on a GPU: the kernel and its launches. One source file for each dtype includes it
 * (attention_f32.hip, ...), so that they compile in parallel. A block computes a tile of rows
 * (queries of the heads that share k and v) over one part of the keys; its waves multiply with the
 * units of mma.h. */
#ifndef RWI_ATTENTION_GPU_H
#define RWI_ATTENTION_GPU_H

#include "attention/attention_block.h"
#include "attention/attention_codes.h"
#include "attention/attention_hopper.h"
#include "attention/attention_launch.h"
#include "attention/attention_output.h"
#include "attention/attention_own.h"
#include "attention/attention_scores.h"
#include "attention/attention_stage.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/registers.h"
#include "gpu/vectors.h"

/* Keys [j, j + KEYS). With asynchronous copies k has arrived or is being copied, with AHEAD v too;
 * the copy of the tile at `next` (-1: none) is started. */
template <typename Shape>
__device__ static __forceinline__ void
attend_tile(const attention_launch &launch, attention_block<Shape> &t,
            const attention_tiles<Shape> &tiles, attention_thread<Shape> &mine, int32_t j,
            int32_t next, rw_tile state) {
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
    attention_next_tiles<Shape> ahead;
    if (Shape::AHEAD && next >= 0)
        ahead.start(launch, t, tiles, next);
    if (Shape::BACKGROUND && !Shape::AHEAD)
        stage_v(launch, t, j, tiles.v);
    typename Shape::product s[Shape::N_KEYS] = {};
    unit::template scores<Shape::WIDTH>(s, tiles.q + row * Shape::PITCH,
                                        tiles.k + key * Shape::PITCH, Shape::PITCH);
    attention_score<Shape>(launch, t, s, t.rows + row, j + key, state == RW_TILE_ALL, mine.plain);
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
    if (state == RW_TILE_SOME || Shape::SPLIT) {
        attention_zero_nonfinite<Shape>(launch, t, j, tiles.v);
        __syncthreads();
    }
    float kept[unit::QUERIES];
    attention_weigh<Shape>(s, mine, kept);
    attention_rescale<Shape>(kept, mine);
    unit::values(mine.out, s, tiles.v + key * Shape::PITCH, Shape::PITCH, tiles.scratch);
    if (Shape::AHEAD && next >= 0)
        ahead.finish(launch, t, tiles);
}

/* `count` tiles of keys from tile `first` on. */
template <typename Shape>
__device__ static __forceinline__ void
attend_tiles(const attention_launch &launch, attention_block<Shape> &t,
             attention_tiles<Shape> &tiles, attention_thread<Shape> &mine, int32_t first,
             int count) {
    int n = next_tile(t, 0, count);
    if (Shape::BACKGROUND && n < count)
        stage_k(launch, t, attention_key<Shape>(t, first + n), tiles.k);
    if (Shape::AHEAD && n < count)
        stage_v(launch, t, attention_key<Shape>(t, first + n), tiles.v);
#pragma unroll 1
    while (n < count) {
        const int next = next_tile(t, n + 1, count);
        attend_tile<Shape>(launch, t, tiles, mine, attention_key<Shape>(t, first + n),
                           next < count ? attention_key<Shape>(t, first + next) : -1,
                           (rw_tile)t.tiles[n]);
        n = next;
        if (!Shape::AHEAD)
            continue;
        tiles.k += tiles.next_stage;
        tiles.v += tiles.next_stage;
        tiles.next_stage = -tiles.next_stage;
    }
}

/* Keys of BATCH tiles from tile `first` on. */
template <typename Shape>
__device__ static __forceinline__ void
attend_batch(const attention_launch &launch, attention_block<Shape> &t,
             attention_tiles<Shape> &tiles, attention_thread<Shape> &mine, int32_t first,
             int32_t end) {
    const int count = (int)rwi_min(Shape::BATCH, end - first);
    ask_tiles(launch, t, first, end);
    rwi_await_previous_kernel(); /* the first time */
    if constexpr (Shape::CODE_TILES) {
        attention_stage_scaled_q<Shape>(launch, t, tiles.q);
        __syncthreads();
        attend_codes<Shape>(launch, t, tiles, mine, first, count);
    } else {
        attention_stage_q<Shape>(launch, t, tiles.q);
        __syncthreads();
        attend_tiles<Shape>(launch, t, tiles, mine, first, count);
    }
    rwi_async_wait();
    __syncthreads(); /* the tiles and their visibility were read */
}

/* After each batch the sums move from registers to shared memory, those of values to the output,
 * and start again at 0: added to the sum over thousands of keys, the sum over a few more would lose
 * its low bits. */
template <typename Shape>
__device__ static __forceinline__ void
attend(const attention_launch &launch, attention_block<Shape> &t, attention_tiles<Shape> tiles,
       attention_thread<Shape> &mine) {
    const rwi_span range = attention_tile_range<Shape>(t);
#pragma unroll 1
    for (int32_t first = range.begin;; first += Shape::BATCH) {
        const bool last = first + Shape::BATCH >= range.end;
        attend_batch<Shape>(launch, t, tiles, mine, first, range.end);
        sum_waves<Shape>(launch, t, mine, last);
        if (last || keeps_sums(launch.op)) {
            store_rows<Shape>(launch, t, mine, tiles.out);
            clear_out<Shape>(mine);
        }
        if (last)
            return;
        clear_sums<Shape>(mine);
        __syncthreads(); /* the stored output overlaps the tiles */
    }
}

/* An item, by all threads of a block. This and what it calls is inline, although two kernels call it:
 * a call would keep the state of a thread in scratch memory. */
template <typename Shape>
__device__ static __forceinline__ void
attend_item(const attention_launch &launch, int64_t item, attention_block<Shape> &t,
            const attention_tiles<Shape> &tiles, const rwi_fault_sink &sink) {
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
    attend<Shape>(launch, t, tiles, mine);
    if (t.nonfinite.end == 0)
        return;
    __syncthreads(); /* make the stored output visible to all that repair it */
    repair<Shape>(launch, t);
}

template <typename Shape>
static __global__ void __launch_bounds__(Shape::BLOCK, Shape::BLOCKS)
    attention_kernel(attention_launch launch, rwi_fault_sink sink) {
    rwi_start_next_kernel();
    HIP_DYNAMIC_SHARED(uint4, shared)
    __shared__ attention_block<Shape> t;
    static_assert(Shape::BACKGROUND || Shape::SHARED_BYTES + sizeof t + sizeof launch <= 64 * 1024,
                  "an AMD GPU has no more shared memory");
    static_assert(Shape::SHARED_BYTES + sizeof t <= 227 * 1024, "nor has an NVIDIA GPU");
    const int64_t item = rwi_block_row();
    if (item >= launch.items)
        return;
    const attention_tiles<Shape> tiles = attention_find_tiles<Shape>(shared);
    /* On AMD the parameters would need too many scalar registers: read from shared memory. */
    __shared__ attention_launch kept;
    if (!RWI_PARAMETERS_NEAR)
        rwi_copy_parameters(kept, launch);
    const attention_launch &near = RWI_PARAMETERS_NEAR ? launch : kept;
    attend_item<Shape>(near, item, t, tiles, sink);
}

/* Items that need parameters of their own: of sequences of different lengths, or of codes, whose heads
 * have a scale. */
template <typename Shape>
static __global__ void __launch_bounds__(Shape::BLOCK, Shape::BLOCKS)
    attention_own_kernel(attention_launch launch, rwi_fault_sink sink) {
    rwi_begin_kernel();
    HIP_DYNAMIC_SHARED(uint4, shared)
    __shared__ attention_block<Shape> t;
    __shared__ attention_launch own;
    __shared__ attention_found found;
    static_assert(Shape::BACKGROUND ||
                      Shape::SHARED_BYTES + sizeof t + sizeof own + sizeof found <= 64 * 1024,
                  "an AMD GPU has no more shared memory");
    const int64_t item = rwi_block_row();
    if (item >= launch.items)
        return;
    rwi_copy_parameters(own, launch);
    const int64_t own_item =
        own.op.ragged.queries.data ? find_own_item<Shape>(own, item, found, sink) : item;
    if (own_item < 0)
        return;
    if constexpr (Shape::CODES) {
        scale_own_keys<Shape>(own, own_item);
        const bool unit = rwi_attention_keeps_unit(&own.op);
        if (own.scales == (unit ? ATTENTION_OTHER_SCALES : ATTENTION_UNIT_SCALES))
            return;
    }
    const attention_tiles<Shape> tiles = attention_find_tiles<Shape>(shared);
    if constexpr (RWI_PARAMETERS_NEAR && Shape::FEW && !Shape::CODES) {
        const attention_launch near =
            own; /* in registers: each copy would read shared memory first */
        attend_item<Shape>(near, own_item, t, tiles, sink);
    } else {
        attend_item<Shape>(own, own_item, t, tiles, sink);
    }
}

/* ---- launches ---- */

/* All items or, of sequences of different lengths, those of sequences within the bounds, and of heads
 * with such scales; `again`: after a launch for others. */
template <typename Shape>
static rw_status launch_own(rwi_device *device, const rw_attention_params &p,
                            const attention_bounds &bounds, bool again,
                            int8_t scales = ATTENTION_ALL_SCALES) {
    attention_launch launch = describe_launch<Shape>(p);
    launch.scales = scales;
    if (p.ragged.queries.data)
        describe_slots<Shape>(launch, bounds);
    rwi_launch_shape shape = block_shape<Shape>(device, launch);
    shape.again = again;
    return rwi_launch(device, shape, attention_own_kernel<Shape>, launch);
}

/* Sequences of many rows: on Hopper those of so many keys that another kernel serves are left. */
template <typename Many>
static rw_status launch_own_many(rwi_device *device, const rw_attention_params &p,
                                 attention_bounds bounds, bool again) {
#if defined(RWI_HAS_WGMMA)
    constexpr rw_dtype D = Many::DTYPE;
    if constexpr (Many::HALVES && !Many::CODES)
        if (p.ragged.queries.data && roles_serve_tensors<D>(device, p)) {
            bounds.most_keys = most_roles_keys(p);
            const rw_status status = launch_roles_of<D>(device, p, bounds, again);
            if (status != RW_OK || p.rules.scores.seq_k <= bounds.most_keys)
                return status;
            bounds.least_keys = bounds.most_keys + 1;
            bounds.most_keys = INT64_MAX;
            again = true;
        }
#endif
    return launch_own<Many>(device, p, bounds, again);
}

/* Few rows. Most calls over codes need few rules, that is fewer registers; the scales of codes are
 * known on the device: their heads are in one of two launches. */
template <typename Few, typename Plain>
static rw_status launch_own_few(rwi_device *device, const rw_attention_params &p,
                                const attention_bounds &bounds) {
    if constexpr (Few::CODE_TILES)
        if (needed_rules(p) == ATTENTION_PLAIN) {
            const rw_status status =
                launch_own<Plain>(device, p, bounds, false, ATTENTION_UNIT_SCALES);
            if (status != RW_OK || !p.k_scale.data)
                return status;
            return launch_own<Few>(device, p, bounds, true, ATTENTION_OTHER_SCALES);
        }
    return launch_own<Few>(device, p, bounds, false);
}

/* Each sequence is computed in the tiles that it would have alone: those of few rows, then the
 * others. */
template <rw_dtype D, int WIDTH, bool CODES>
static rw_status launch_own_width(rwi_device *device, const rw_attention_params &p) {
    constexpr int64_t MOST = 2 * RWI_ATTENTION_FEW_ROWS;
    constexpr attention_bounds FEW_ROWS = {0, MOST, 0, INT64_MAX};
    constexpr attention_bounds MANY_ROWS = {MOST + 1, INT64_MAX, 0, INT64_MAX};
    return rwi_dispatch_mma<D>(device, [&](auto unit) {
        constexpr int UNIT = decltype(unit)::value, RULES = ATTENTION_ANY;
        typedef attention_shape<D, WIDTH, true, UNIT, WIDTH, ATTENTION_PLAIN, 2, CODES> Plain;
        typedef attention_shape<D, WIDTH, true, UNIT, WIDTH, RULES, 2, CODES> Few;
        typedef attention_shape<D, WIDTH, false, UNIT, WIDTH, RULES, 2, CODES> Many;
        const int64_t rows =
            p.ragged.queries.data ? p.ragged.max_seq_q * p.group : rwi_attention_group_rows(&p);
        const bool few = p.ragged.queries.data ? p.group <= MOST : rows <= MOST;
        rw_status status = RW_OK;
        if (few)
            status = launch_own_few<Few, Plain>(device, p, FEW_ROWS);
        if (status != RW_OK || rows <= MOST)
            return status;
        return launch_own_many<Many>(device, p, MANY_ROWS, few);
    });
}

/* Returns body(W) for the least number of columns W of which there are kernels. */
template <typename Body> static rw_status dispatch_width(const rw_attention_params &p, Body body) {
    const int32_t width = p.head_dim > p.v_dim ? p.head_dim : p.v_dim;
    if (width <= 64)
        return body(std::integral_constant<int, 64>());
    if (width <= 128)
        return body(std::integral_constant<int, 128>());
    return body(std::integral_constant<int, 256>());
}

template <rw_dtype D, bool CODES>
static rw_status launch_own_dtype(rwi_device *device, const rw_attention_params &p) {
    return dispatch_width(p, [&](auto width) {
        return launch_own_width<D, decltype(width)::value, CODES>(device, p);
    });
}

template <typename Shape>
static rw_status launch_shape(rwi_device *device, const rw_attention_params &p) {
    const attention_launch launch = describe_launch<Shape>(p);
    return rwi_launch(device, block_shape<Shape>(device, launch), attention_kernel<Shape>, launch);
}

template <rw_dtype D, int WIDTH, bool FEW>
static rw_status launch_width(rwi_device *device, const rw_attention_params &p) {
#if !defined(__HIP_PLATFORM_AMD__)
    if constexpr (D == RW_F32 && !FEW)
        if (p.f32_products == RW_F32_SPLIT && rwi_has_tf32(device))
            return launch_shape<attention_shape<D, WIDTH, FEW, RWI_MMA_TF32>>(device, p);
#endif
    return rwi_dispatch_mma<D>(device, [&](auto unit) {
        constexpr int UNIT = decltype(unit)::value;
        typedef attention_shape<D, WIDTH, FEW, UNIT, WIDTH, ATTENTION_PLAIN> Plain;
        if constexpr (Plain::BACKGROUND && Plain::HALVES)
            if (needed_rules(p) == ATTENTION_PLAIN)
                return launch_shape<Plain>(device, p);
        return launch_shape<attention_shape<D, WIDTH, FEW, UNIT>>(device, p);
    });
}

template <rw_dtype D, bool FEW>
static rw_status launch_rows(rwi_device *device, const rw_attention_params &p) {
    return dispatch_width(
        p, [&](auto width) { return launch_width<D, decltype(width)::value, FEW>(device, p); });
}

template <rw_dtype D>
static rw_status launch_dtype(rwi_device *device, const rw_attention_params &p) {
    if (p.ragged.queries.data)
        return launch_own_dtype<D, false>(device, p);
#if defined(RWI_HAS_WGMMA)
    if constexpr (D != RW_F32)
        if (roles_serve<D>(device, p))
            return launch_roles_of<D>(device, p, {}, false);
#endif
    if (rwi_attention_tile_rows(&p, RWI_ATTENTION_ROWS) == RWI_ATTENTION_FEW_ROWS)
        return launch_rows<D, true>(device, p);
    return launch_rows<D, false>(device, p);
}

#endif
