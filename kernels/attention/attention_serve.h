/* Parts of attention_roles.h: the waves that serve the consumers, and what all of them share. */
#ifndef RWI_ATTENTION_SERVE_H
#define RWI_ATTENTION_SERVE_H

#include "attention/attention_block.h"
#include "attention/attention_own.h"
#include "gpu/block_barriers.h"
#include "gpu/tensor_copy.h"

/* Parameters of the kernel. */
struct attention_roles_launch {
    attention_launch near;
    uint32_t *taken; /* counts the items taken after each block's first; NULL: none are */
    int box_keys;    /* of k and v */
    bool copies_q;   /* by boxes: a tile is all heads of some queries */
    rwi_tensor_map q;
    rwi_tensor_map k;
    rwi_tensor_map v;
};

/* Where an item's sequence begins in q, k and v: their coordinates. */
struct attention_origin {
    int32_t b;
    int32_t query;
    int32_t key;
};

/* The parameters of the items in flight are those of the launch. */
template <typename Shape> struct attention_same_parameters {
    static constexpr bool OWN = false;
    __device__ const attention_launch &of(const attention_roles_launch &launch, int) const {
        return launch.near;
    }
    __device__ attention_origin origin(const attention_block<Shape> &t, int) const {
        return {(int32_t)t.item.b, 0, 0};
    }
};

/* Each has its own, of sequences of different lengths. In shared memory. */
template <typename Shape> struct attention_own_parameters {
    static constexpr bool OWN = true;
    attention_launch own[Shape::ITEMS];
    attention_origin origins[Shape::ITEMS];
    attention_found found;
    int64_t taken;
    __device__ const attention_launch &of(const attention_roles_launch &, int place) const {
        return own[place];
    }
    __device__ attention_origin origin(const attention_block<Shape> &, int place) const {
        return origins[place];
    }
};

/* Barriers of one stage of k and v, whose phases are its uses. */
struct attention_stage_barriers {
    uint64_t k_full;
    uint64_t v_full;
    uint64_t k_free;
    uint64_t v_free;
};

/* Barriers of a block. */
template <typename Shape> struct attention_barriers {
    attention_stage_barriers stages[2];
    uint64_t q_full[Shape::Q_TILES];
    uint64_t q_free[Shape::Q_TILES];
    uint64_t known[Shape::ITEMS]; /* an item, its rows, the visibility of a batch of tiles */
    uint64_t done[Shape::ITEMS];  /* the batch was computed */
    uint64_t ending;              /* an item's last tiles are being copied */
};

template <typename Shape>
__device__ static inline void begin_barriers(attention_barriers<Shape> &barriers) {
    for (int i = 0; i < 2; i++) {
        attention_stage_barriers &stage = barriers.stages[i];
        rwi_phase_init(&stage.k_full, 1);
        rwi_phase_init(&stage.v_full, 1);
        rwi_phase_init(&stage.k_free, Shape::WAVES);
        rwi_phase_init(&stage.v_free, Shape::WAVES);
    }
    for (int i = 0; i < Shape::Q_TILES; i++) {
        rwi_phase_init(&barriers.q_full[i], 1);
        rwi_phase_init(&barriers.q_free[i], Shape::WAVES);
    }
    for (int i = 0; i < Shape::ITEMS; i++) {
        rwi_phase_init(&barriers.known[i], Shape::COPIERS);
        rwi_phase_init(&barriers.done[i], Shape::THREADS + Shape::unit::LANES); /* and the loader */
    }
    rwi_phase_init(&barriers.ending, 1);
    rwi_phases_begin();
}

/* Tiles of a batch from `first` on. */
template <typename Shape> __device__ static inline int batch_tiles(rwi_span range, int32_t first) {
    return (int)rwi_min(Shape::BATCH, range.end - first);
}

/* ---- preparers ---- */

/* The number of the block's next item, or -1. The last block that asks, which receives -1 as all
 * others have, leaves the counter at 0. */
__device__ static inline int64_t take_item(const attention_roles_launch &launch) {
    if (!launch.taken)
        return -1;
    const int64_t before = atomicAdd(launch.taken, 1u);
    if (before == launch.near.items - 1)
        *launch.taken = 0;
    const int64_t item = (int64_t)gridDim.x + before;
    return item < launch.near.items ? item : -1;
}

/* Finds the parameters of item `item` of the launch, known to the first thread, or of the next one,
 * as long as it is a slot that its sequence does not need, by all preparers. Returns its number in its
 * sequence; -1: no item is left. */
template <typename Shape>
__device__ static inline int64_t
find_parameters(const attention_roles_launch &launch, attention_own_parameters<Shape> &parameters,
                int place, int64_t item, const rwi_fault_sink &sink) {
    const int copier = attention_copier<Shape>();
    attention_launch &own = parameters.own[place];
#pragma unroll 1
    for (;; item = copier == 0 ? take_item(launch) : 0) {
        if (copier == 0)
            parameters.taken = item;
        attention_copiers_sync<Shape>();
        const int64_t taken = parameters.taken;
        if (taken < 0)
            return -1;
        rwi_copy_words(own, launch.near, copier, Shape::COPIERS);
        attention_copiers_sync<Shape>();
        const int64_t found = find_own_item<Shape>(own, taken, parameters.found, sink);
        if (found < 0)
            continue;
        if (copier == 0) {
            const rw_attention_params &p = launch.near.op;
            const int64_t b = (int64_t)parameters.found.b;
            const bool packed = p.ragged.keys.data;
            parameters.origins[place] = {packed ? 0 : (int32_t)b, (int32_t)own.op.first_token,
                                         packed ? (int32_t)rwi_ids_load(&p.ragged.keys, 0, 0, b)
                                                : 0};
        }
        return found;
    }
}

/* Begins the copy of q of an item, after the previous one in its place was read, by one thread. */
template <typename Shape>
__device__ static inline void
load_q(const attention_roles_launch &launch, const attention_block<Shape> &t,
       const attention_origin &origin, attention_barriers<Shape> &barriers,
       const attention_tiles<Shape> &tiles, int use) {
    const int at = use % Shape::Q_TILES, group = launch.near.op.group;
    typename Shape::element *tile = tiles.q + at * Shape::Q_SIZE;
    rwi_phase_wait(&barriers.q_free[at], use / Shape::Q_TILES - 1);
    rwi_phase_expect(&barriers.q_full[at], Shape::Q_SIZE * (int)sizeof *tile);
#pragma unroll 1
    for (int column = 0; column < Shape::WIDTH; column += RWI_BOX_COLUMNS)
        rwi_tensor_copy(tile + column * Shape::ROWS, launch.q, column, (int)t.item.kv_head * group,
                        origin.query + (int)t.item.first / group, (int)t.item.b,
                        &barriers.q_full[at]);
}

/* The same by all preparers, for any number of heads. */
template <typename Shape>
__device__ static inline void
stage_q(const attention_launch &launch, const attention_block<Shape> &t,
        attention_barriers<Shape> &barriers, const attention_tiles<Shape> &tiles, int use) {
    const int at = use % Shape::Q_TILES;
    rwi_phase_wait(&barriers.q_free[at], use / Shape::Q_TILES - 1);
    attention_stage_q<Shape>(launch, t, tiles.q + at * Shape::Q_SIZE);
    rwi_async_wait();
    Shape::unit::publish();
    attention_copiers_sync<Shape>();
    if (attention_copier<Shape>() == 0)
        rwi_phase_arrive(&barriers.q_full[at]);
}

/* Phases of `known` and `done` are batches of tiles. */
template <typename Shape, typename Parameters>
__device__ static inline void
prepare(const attention_roles_launch &launch, Parameters &parameters, int64_t item,
        attention_block<Shape> *items, attention_barriers<Shape> &barriers,
        const attention_tiles<Shape> &tiles, const rwi_fault_sink &sink) {
    const bool first_thread = attention_copier<Shape>() == 0;
    const bool known = rwi_attention_rows_are_known(&launch.near.op);
    /* Before its rows are known, since its place is mostly free. */
    const bool early_q = launch.copies_q && Shape::Q_TILES > 1;
    uint32_t phases = 0; /* of each place, one bit */
    int queries = 0;
    if (!known)
        rwi_await_previous_kernel();
#pragma unroll 1
    for (int place = 0;; place = (place + 1) % Shape::ITEMS) {
        attention_block<Shape> &t = items[place];
        const attention_launch &own = parameters.of(launch, place);
        const bool q_first = early_q && (queries > 0 || !known);
        const auto wait_done = [&] {
            rwi_phase_wait(&barriers.done[place], (int)(phases >> place & 1) ^ 1);
        };
        wait_done();
        if (first_thread && queries > 0) { /* not earlier: another block may be free before this */
            rwi_phase_wait(&barriers.ending, queries - 1);
            item = take_item(launch);
        }
        if constexpr (Parameters::OWN)
            item = find_parameters<Shape>(launch, parameters, place, item, sink);
        if (first_thread) {
            begin_item(own, item, t);
            if (item >= 0 && q_first)
                load_q(launch, t, parameters.origin(t, place), barriers, tiles, queries);
        }
        attention_copiers_sync<Shape>();
        if (t.number < 0) {
            rwi_phase_arrive(&barriers.known[place]);
            return;
        }
        find_rows(own, t, sink);
        attention_copiers_sync<Shape>();
        check_pages(own, t, sink);
        const rwi_span range = attention_tile_range<Shape>(t);
#pragma unroll 1
        for (int32_t first = range.begin;; first += Shape::BATCH) {
            if (first > range.begin)
                wait_done();
            ask_tiles(own, t, first, range.end);
            rwi_phase_arrive(&barriers.known[place]);
            phases ^= 1u << place;
            if (first == range.begin && queries == 0)
                rwi_await_previous_kernel();
            if (first == range.begin && !launch.copies_q)
                stage_q(own, t, barriers, tiles, queries);
            else if (first == range.begin && !q_first && first_thread)
                load_q(launch, t, parameters.origin(t, place), barriers, tiles, queries);
            if (first + Shape::BATCH >= range.end)
                break;
        }
        queries++;
    }
}

/* ---- loader ---- */

/* The next item is taken when so many tiles are left: it is then prepared in time. */
#define ATTENTION_LEAD 4

/* Begins the copies of contiguous keys [j, j + KEYS) of k or v, of W elements a row, by one lane. */
template <typename Shape, int W>
__device__ static __forceinline__ void load_run(const rwi_tensor_map &map, int32_t kv_head,
                                                int32_t b, int32_t j, typename Shape::element *tile,
                                                uint64_t *barrier) {
    if ((int)threadIdx.x % Shape::unit::LANES != 0)
        return;
    rwi_phase_expect(barrier, Shape::KEYS * W * (int)sizeof *tile);
#pragma unroll
    for (int column = 0; column < W; column += RWI_BOX_COLUMNS)
        rwi_tensor_copy(tile + column * Shape::KEYS, map, column, j, kv_head, b, barrier);
}

/* The same of keys in pages, by the lanes of a wave. Keys of invalid pages are 0: they are outside of
 * the tensor. */
template <typename Shape, int W>
__device__ static inline void load_pages(const attention_roles_launch &launch,
                                         const rwi_tensor_map &map, const attention_block<Shape> &t,
                                         int32_t kv_head, int32_t j, typename Shape::element *tile,
                                         uint64_t *barrier) {
    constexpr int PANELS = W / RWI_BOX_COLUMNS;
    const int lane = (int)threadIdx.x % Shape::unit::LANES, rows = launch.box_keys;
    const rwi_kv_pages &pages = launch.near.op.pages;
    const int32_t in_page = (1 << pages.shift) - 1, first_page = (int32_t)t.first_page;
    if (lane == 0)
        rwi_phase_expect(barrier, Shape::KEYS * W * (int)sizeof *tile);
    rwi_wave_sync();
#pragma unroll 1
    for (int n = lane; n < Shape::KEYS / rows * PANELS; n += Shape::unit::LANES) {
        const int panel = n % PANELS, key = n / PANELS * rows;
        const int32_t row = j + key, page = (int32_t)t.pages[(row >> pages.shift) - first_page];
        rwi_tensor_copy(tile + (panel * Shape::KEYS + key) * RWI_BOX_COLUMNS, map,
                        panel * RWI_BOX_COLUMNS, row & in_page, kv_head, page, barrier);
    }
}

/* The tiles of a batch in the order of consumption: k of a tile, then v of the previous one, unless it
 * is that of k. */
template <typename Shape>
__device__ static inline void
load_batch(const attention_roles_launch &launch, const attention_block<Shape> &t,
           const attention_origin &origin, attention_barriers<Shape> &barriers,
           const attention_tiles<Shape> &tiles, int32_t first, int count, bool last,
           uint32_t *use) {
    const bool reporter = (int)threadIdx.x % Shape::unit::LANES == 0;
    const bool paged = launch.near.op.pages.table.data;
    const int32_t key = attention_key<Shape>(t, first);
    const int32_t kv_head = (int32_t)t.item.kv_head, b = origin.b;
    uint64_t left = find_tile_bits(t, count).seen;
    bool ending = !last;
    int previous = -1;
#pragma unroll 1
    for (;;) {
        const int n = first_tile(left); /* -1: none */
        left &= left - 1;
        if (!ending && (n < 0 || count - n <= ATTENTION_LEAD)) {
            ending = true;
            if (reporter)
                rwi_phase_arrive(&barriers.ending);
        }
        if (n >= 0) {
            attention_stage_barriers &stage = barriers.stages[*use % 2];
            typename Shape::element *tile = tiles.k + (int)(*use % 2) * tiles.next_stage;
            const int32_t j = key + n * Shape::KEYS;
            rwi_phase_wait(&stage.k_free, (int)(*use / 2) - 1);
            if (!paged)
                load_run<Shape, Shape::K_ROW>(launch.k, kv_head, b, origin.key + j, tile,
                                              &stage.k_full);
            else
                load_pages<Shape, Shape::K_ROW>(launch, launch.k, t, kv_head, j, tile,
                                                &stage.k_full);
        }
        if (!Shape::LATENT && previous >= 0) {
            const uint32_t before = *use - 1;
            attention_stage_barriers &stage = barriers.stages[before % 2];
            typename Shape::element *tile = tiles.v + (int)(before % 2) * tiles.next_stage;
            const int32_t j = key + previous * Shape::KEYS;
            rwi_phase_wait(&stage.v_free, (int)(before / 2) - 1);
            if (!paged)
                load_run<Shape, Shape::V_ROW>(launch.v, kv_head, b, origin.key + j, tile,
                                              &stage.v_full);
            else
                load_pages<Shape, Shape::V_ROW>(launch, launch.v, t, kv_head, j, tile,
                                                &stage.v_full);
        }
        if (n < 0)
            return;
        previous = n;
        ++*use;
    }
}

template <typename Shape, typename Parameters>
__device__ static inline void
load(const attention_roles_launch &launch, const Parameters &parameters,
     const attention_block<Shape> *items, attention_barriers<Shape> &barriers,
     const attention_tiles<Shape> &tiles) {
    uint32_t phases = 0, use = 0;
#pragma unroll 1
    for (int place = 0;; place = (place + 1) % Shape::ITEMS) {
        const attention_block<Shape> &t = items[place];
        rwi_phase_wait(&barriers.known[place], (int)(phases >> place & 1));
        if (t.number < 0)
            return;
        const attention_origin origin = parameters.origin(t, place);
        const rwi_span range = attention_tile_range<Shape>(t);
#pragma unroll 1
        for (int32_t first = range.begin;; first += Shape::BATCH) {
            const bool last = first + Shape::BATCH >= range.end;
            if (first > range.begin)
                rwi_phase_wait(&barriers.known[place], (int)(phases >> place & 1));
            load_batch(launch, t, origin, barriers, tiles, first, batch_tiles<Shape>(range, first),
                       last, &use);
            rwi_phase_arrive(&barriers.done[place]);
            phases ^= 1u << place;
            if (last)
                break;
        }
    }
}

#endif
