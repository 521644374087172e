/* Attention on a GPU: the kernel and its launches. One source file for each dtype includes it
 * (attention_f32.hip, ...), so that they compile in parallel. A block computes a tile of rows
 * (queries of the heads that share k and v) over one part of the keys; its waves multiply with the
 * units of mma.h. */
#ifndef RWI_ATTENTION_GPU_H
#define RWI_ATTENTION_GPU_H

#include "attention/attention_block.h"
#include "attention/attention_output.h"
#include "attention/attention_roles.h"
#include "attention/attention_scores.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/registers.h"
#include "gpu/vectors.h"

/* The size of k and v that stays in the second-level cache while the blocks of their heads run. */
#define SECTION_BYTES ((int64_t)16 << 20)

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
    if (state == RW_TILE_SOME) {
        attention_zero_nonfinite<Shape>(launch, t, j, tiles.v);
        __syncthreads();
    }
    float kept[unit::QUERIES];
    attention_weigh<Shape>(s, mine, kept);
    attention_rescale<Shape>(kept, mine);
    unit::values(mine.out, s, tiles.v + key * Shape::PITCH, Shape::PITCH, tiles.scratch);
}

/* Keys of BATCH tiles from tile `first` on. */
template <typename Shape>
__device__ static inline void attend_batch(const attention_launch &launch,
                                           attention_block<Shape> &t, attention_tiles<Shape> &tiles,
                                           attention_thread<Shape> &mine, int32_t first,
                                           int32_t end) {
    const int count = (int)rwi_min(Shape::BATCH, end - first);
    ask_tiles(launch, t, first, end);
    __syncthreads();
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
    rwi_async_wait();
    __syncthreads(); /* the tiles and their visibility were read */
}

/* After each batch the sums move from registers to shared memory, those of values to the output,
 * and start again at 0: added to the sum over thousands of keys, the sum over a few more would lose
 * its low bits. */
template <typename Shape>
__device__ static inline void attend(const attention_launch &launch, attention_block<Shape> &t,
                                     attention_tiles<Shape> tiles, attention_thread<Shape> &mine) {
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
        attention_stage_q<Shape>(launch, t, tiles.q);
    }
}

template <typename Shape>
static __global__ void __launch_bounds__(Shape::BLOCK, Shape::BLOCKS)
    attention_kernel(attention_launch launch, rwi_fault_sink sink) {
    HIP_DYNAMIC_SHARED(uint4, shared)
    __shared__ attention_block<Shape> t;
    static_assert(Shape::BACKGROUND || Shape::SHARED_BYTES + sizeof t <= 64 * 1024,
                  "an AMD GPU has no more shared memory");
    static_assert(Shape::SHARED_BYTES + sizeof t <= 227 * 1024, "nor has an NVIDIA GPU");
    const int64_t item = rwi_block_row();
    if (item >= launch.items)
        return;
    const attention_tiles<Shape> tiles = attention_find_tiles<Shape>(shared);
    /* On AMD the parameters would need too many scalar registers: read from shared memory. */
    if (!Shape::PARAMETERS_NEAR) {
        if (threadIdx.x == 0)
            t.launch = launch;
        __syncthreads();
    }
    const attention_launch &near = Shape::PARAMETERS_NEAR ? launch : t.launch;
    begin_block(near, item, t, sink);
    if constexpr (Shape::ROLES) {
        if ((int)threadIdx.x >= Shape::THREADS) {
            rwi_set_registers<PRODUCER_REGISTERS, false>();
            produce<Shape>(near, t, tiles);
            return;
        }
        rwi_set_registers<CONSUMER_REGISTERS, true>();
        consume<Shape>(near, t, tiles);
    } else {
        attention_thread<Shape> mine;
        begin_thread<Shape>(near.op, mine);
        attention_stage_q<Shape>(near, t, tiles.q);
        attend<Shape>(near, t, tiles, mine);
    }
    if (t.nonfinite.end == 0)
        return;
    attention_sync<Shape>(); /* make the stored output visible to all that repair it */
    repair<Shape>(near, t);
}

/* ---- launches ---- */

static bool tensor_has_vectors(rw_dtype dtype, const rwi_attention_tensor &tensor, int64_t width) {
    return rwi_rows_are_vectors(dtype, {tensor.data, tensor.stride, 3, width});
}

/* Whether two adjacent keys of an even one on are one aligned word. */
static bool mask_has_pairs(const rwi_score_mask &mask) {
    const bool even = mask.stride[0] % 2 == 0 && mask.stride[1] % 2 == 0 && mask.stride[2] % 2 == 0;
    return mask.data && mask.dtype != RW_F32 && even && (uintptr_t)mask.data % 4 == 0;
}

template <typename Shape>
static rw_status launch_shape(rwi_device *device, const rw_attention_params &p) {
    constexpr rw_dtype D = Shape::DTYPE;
    const rwi_scores &lengths = p.rules.scores;
    const int64_t bytes_of_group =
        lengths.seq_k * (p.head_dim + p.v_dim) * (int64_t)rwi_dtype_size(D);
    attention_launch launch = {p, rwi_attention_items(&p, Shape::ROWS), 1, false, false, false};
    launch.section = rwi_max(1, SECTION_BYTES / rwi_max(1, bytes_of_group));
    launch.vectors = tensor_has_vectors(D, p.q, p.head_dim) &&
                     tensor_has_vectors(D, p.k, p.head_dim) && tensor_has_vectors(D, p.v, p.v_dim);
    launch.out_vectors = tensor_has_vectors(p.out_dtype, p.out, p.v_dim);
    launch.mask_pairs = mask_has_pairs(p.rules.mask);
    const uint32_t threads =
        (uint32_t)(Shape::BLOCK / Shape::unit::LANES * ((rwi_hip_device *)device)->wave);
    rwi_launch_shape shape = rwi_launch_rows(RWI_OP_attention, launch.items, dim3(threads));
    shape.shared_bytes = Shape::SHARED_BYTES;
    return rwi_launch(device, shape, attention_kernel<Shape>, launch);
}

static bool is_plain(const rw_attention_params &p) {
    return rwi_attention_keeps_products(&p) && !rwi_pattern_has_cells(&p.rules.pattern);
}

template <rw_dtype D, int WIDTH, bool FEW>
static rw_status launch_width(rwi_device *device, const rw_attention_params &p) {
    return rwi_dispatch_mma<D>(device, [&](auto unit) {
        constexpr int UNIT = decltype(unit)::value;
        typedef attention_shape<D, WIDTH, FEW, UNIT, WIDTH, true> Plain;
        if constexpr (Plain::BACKGROUND && Plain::HALVES)
            if (is_plain(p))
                return launch_shape<Plain>(device, p);
        return launch_shape<attention_shape<D, WIDTH, FEW, UNIT>>(device, p);
    });
}

/* Selects the kernel by the number of columns. */
template <rw_dtype D, bool FEW>
static rw_status launch_rows(rwi_device *device, const rw_attention_params &p) {
    const int32_t width = p.head_dim > p.v_dim ? p.head_dim : p.v_dim;
    if (width <= 64)
        return launch_width<D, 64, FEW>(device, p);
    if (width <= 128)
        return launch_width<D, 128, FEW>(device, p);
    return launch_width<D, 256, FEW>(device, p);
}

/* The same where waves have roles. */
template <rw_dtype D, int WIDTH, int V_WIDTH>
static rw_status launch_roles_width(rwi_device *device, const rw_attention_params &p) {
    constexpr int UNIT = RWI_MMA_WGMMA;
    if (is_plain(p))
        return launch_shape<attention_shape<D, WIDTH, false, UNIT, V_WIDTH, true>>(device, p);
    return launch_shape<attention_shape<D, WIDTH, false, UNIT, V_WIDTH, false>>(device, p);
}

template <rw_dtype D>
static rw_status launch_roles(rwi_device *device, const rw_attention_params &p) {
    if (p.head_dim <= 64 && p.v_dim <= 64)
        return launch_roles_width<D, 64, 64>(device, p);
    if (p.head_dim <= 128 && p.v_dim <= 128)
        return launch_roles_width<D, 128, 128>(device, p);
    if (p.head_dim <= 192 && p.v_dim <= 128)
        return launch_roles_width<D, 192, 128>(device, p);
    return launch_roles_width<D, 256, 256>(device, p);
}

/* With fewer rows than a tile has, half of the consumers would be idle. */
#define ROLES_ROWS 128

template <rw_dtype D>
static rw_status launch_dtype(rwi_device *device, const rw_attention_params &p) {
    if (rwi_attention_tile_rows(&p, RWI_ATTENTION_ROWS) == RWI_ATTENTION_FEW_ROWS)
        return launch_rows<D, true>(device, p);
#if defined(RWI_HAS_WGMMA)
    if constexpr (D != RW_F32)
        if (rwi_device_has_wgmma(device) && rwi_attention_group_rows(&p) >= ROLES_ROWS)
            return launch_roles<D>(device, p);
#endif
    return launch_rows<D, false>(device, p);
}

#endif
