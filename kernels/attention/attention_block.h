/* Parts of attention_gpu.h: the rows of an item and the tiles of keys that they see. */
#ifndef RWI_ATTENTION_BLOCK_H
#define RWI_ATTENTION_BLOCK_H

#include "attention/attention_tile.h"
#include "gpu/faults.h"

/* ---- rows ---- */

/* Items are ordered by sections of groups. Within a section the last rows come first: under a
 * causal pattern they see the most keys. */
__device__ static inline rwi_attention_item find_item(const attention_launch &launch, int64_t item,
                                                      int32_t tile_rows) {
    const rw_attention_params &p = launch.op;
    const int64_t tiles = launch.row_tiles;
    int64_t section, rest, part, tile, group;
    rwi_split_index(item, launch.section * tiles * p.parts.count, &section, &rest);
    const int64_t first = section * launch.section;
    rwi_split_index(rest, rwi_min(launch.section, rwi_attention_groups(&p) - first), &rest, &group);
    rwi_split_index(rest, p.parts.count, &tile, &part);
    return rwi_attention_item_at(&p, first + group, tiles - 1 - tile, part, tile_rows);
}

/* Finds the rows of the item and the keys that they see. Where the keys are split,
 * attention_combine reports invalid values of the pattern's tensors. */
template <typename Shape>
__device__ static inline void find_rows(const attention_launch &launch, attention_block<Shape> &t,
                                        const rwi_fault_sink &sink) {
    const rw_attention_params &p = launch.op;
#pragma unroll 1
    for (int r = attention_copier<Shape>(); r < Shape::ROWS; r += Shape::COPIERS) {
        rwi_attention_row *row = &t.rows[r];
        rwi_bad_id bad = {0, RW_FAULT_NONE};
        const bool inside = r < t.item.rows;
        for (int at = r; at < Shape::SUM_ROWS; at += Shape::ROWS) {
            t.earlier_base[at] = -INFINITY;
            t.earlier_sum[at] = 0.0f;
        }
        rwi_attention_find_row(&p, t.item.b, t.item.kv_head, t.item.first + (inside ? r : 0), row,
                               &bad);
        rwi_attention_meet_keys(&p, row, t.item.keys);
        if (!inside) {
            const rwi_span none = {0, 0};
            row->pattern.prefix = row->pattern.window = row->pattern.global = none;
            row->valid = false;
            continue;
        }
        if (!row->valid && p.parts.count == 1)
            rwi_fault_raise(sink, rwi_attention_token(&p, t.item.b, row), bad);
        const rwi_span hull = rwi_pattern_hull(&row->pattern);
        if (rwi_span_empty(hull))
            continue;
        atomicMin(&t.seen.begin, hull.begin);
        atomicMax(&t.seen.end, hull.end);
    }
}

/* Output of rows that need an invalid page is not written. */
template <typename Shape>
__device__ static inline void check_pages(const attention_launch &launch, attention_block<Shape> &t,
                                          const rwi_fault_sink &sink) {
    const rw_attention_params &p = launch.op;
    if (!p.pages.table.data || rwi_span_empty(t.seen))
        return;
    rwi_bad_id bad;
#pragma unroll 1
    for (int64_t n = (t.seen.begin >> p.pages.shift) + attention_copier<Shape>();
         n <= (t.seen.end - 1) >> p.pages.shift; n += Shape::COPIERS) {
        const int64_t page = rwi_ids_load(&p.pages.table, 0, t.item.b, n);
        if (page < 0 || page >= p.pages.num_pages)
            t.missing_page = 1; /* every writing thread writes 1 */
    }
    attention_copiers_sync<Shape>();
    if (!t.missing_page)
        return;
#pragma unroll 1
    for (int r = attention_copier<Shape>(); r < t.item.rows; r += Shape::COPIERS) {
        rwi_attention_row *row = &t.rows[r];
        const rwi_span hull = rwi_pattern_hull(&row->pattern);
        if (!row->valid || rwi_attention_pages_exist(&p, t.item.b, hull, &bad))
            continue;
        row->valid = false;
        if (p.parts.count == 1)
            rwi_fault_raise(sink, rwi_attention_token(&p, t.item.b, row), bad);
    }
    attention_copiers_sync<Shape>();
}

/* The first step, by one thread: item `item`; -1: there is none. */
template <typename Shape>
__device__ static inline void begin_item(const attention_launch &launch, int64_t item,
                                         attention_block<Shape> &t) {
    t.number = item;
    if (item >= 0)
        t.item = find_item(launch, item, Shape::ROWS);
    t.seen.begin = t.nonfinite.begin = INT32_MAX;
    t.seen.end = t.nonfinite.end = 0;
    t.missing_page = 0;
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
__device__ static inline void begin_thread(const attention_launch &launch,
                                           attention_thread<Shape> &mine) {
    mine.plain = launch.plain;
    mine.factor = launch.kept_scale * RWI_LOG2_E;
#pragma unroll
    for (int q = 0; q < Shape::unit::QUERIES; q++)
        mine.largest[q] = -INFINITY;
    clear_sums<Shape>(mine);
    clear_out<Shape>(mine);
}

/* ---- the keys ---- */

/* The first key of tile `n`; tiles are counted from the first key of the part. */
template <typename Shape>
__device__ static inline int32_t attention_key(const attention_block<Shape> &t, int32_t n) {
    return t.item.keys.begin + n * Shape::KEYS;
}

/* The tiles that any row may see. */
template <typename Shape>
__device__ static inline rwi_span attention_tile_range(const attention_block<Shape> &t) {
    if (rwi_span_empty(t.seen))
        return {0, 0};
    return {(t.seen.begin - t.item.keys.begin) / Shape::KEYS,
            (int32_t)rwi_ceil_div(t.seen.end - t.item.keys.begin, Shape::KEYS)};
}

/* Which of the BATCH tiles from `first` on are visible to the rows, and the pages that hold them;
 * `end` is one past the last tile. */
template <typename Shape>
__device__ static inline void ask_tiles(const attention_launch &launch, attention_block<Shape> &t,
                                        int32_t first, int32_t end) {
    const rw_attention_params &p = launch.op;
    const int thread = rwi_computed_here(attention_copier<Shape>());
    if (thread < Shape::BATCH) {
        const int64_t j = t.item.keys.begin + (int64_t)(first + thread) * Shape::KEYS;
        const int64_t keys = rwi_min(Shape::KEYS, t.item.keys.end - j);
        rw_tile state = RW_TILE_NONE;
        if (first + thread < end)
            state = rwi_attention_ask_tile(&p, &t.item, j, keys);
        if (state == RW_TILE_NONE && Shape::ROLES && thread == 0)
            state = RW_TILE_SOME; /* the first one is always used */
        if (state == RW_TILE_ALL && keys < Shape::KEYS)
            state = RW_TILE_SOME; /* it extends past the last key */
        t.tiles[thread] = (uint8_t)state;
    }
    if (!p.pages.table.data)
        return;
    const int64_t first_page = (t.item.keys.begin + (int64_t)first * Shape::KEYS) >> p.pages.shift;
    if (thread == 0)
        t.first_page = first_page;
#pragma unroll 1
    for (int n = thread; n < Shape::BATCH * Shape::KEYS / 16; n += Shape::COPIERS) {
        const int64_t at = first_page + n;
        int64_t page = -1;
        if (at >= t.seen.begin >> p.pages.shift && at <= (t.seen.end - 1) >> p.pages.shift)
            page = rwi_ids_load(&p.pages.table, 0, t.item.b, at);
        t.pages[n] = page < p.pages.num_pages ? page : -1;
    }
}

/* ROLES: the tiles of a batch, one bit each. Every lane of a wave holds them. */
struct attention_tile_bits {
    uint64_t seen;  /* by any row */
    uint64_t whole; /* by all rows */
};

/* Every lane of the wave must call it. */
template <typename Shape>
__device__ static inline attention_tile_bits find_tile_bits(const attention_block<Shape> &t,
                                                            int count) {
    constexpr int LANES = Shape::unit::LANES;
    const int lane = (int)threadIdx.x % LANES;
    attention_tile_bits bits = {0, 0};
#pragma unroll
    for (int first = 0; first < Shape::BATCH; first += LANES) {
        const int state = first + lane < count ? t.tiles[first + lane] : (int)RW_TILE_NONE;
        bits.seen |= (uint64_t)__ballot(state != RW_TILE_NONE) << first;
        bits.whole |= (uint64_t)__ballot(state == RW_TILE_ALL) << first;
    }
    return bits;
}

/* The first of some tiles. */
__device__ static __forceinline__ int first_tile(uint64_t bits) {
    return __ffsll((long long)bits) - 1;
}

template <typename Shape>
__device__ static inline int next_tile(const attention_block<Shape> &t, int n, int count) {
    while (n < count && t.tiles[n] == RW_TILE_NONE)
        n++;
    return n;
}

#endif
