/* Parts of attention_gpu.h and attention_wide.h: an item whose parameters are its own. */
#ifndef RWI_ATTENTION_OWN_H
#define RWI_ATTENTION_OWN_H

#include "attention/attention_block.h"
#include "attention/attention_launch.h"
#include "attention/attention_ragged_gpu.h"

/* Narrows `own` to the sequence of an item, by the threads that copy, and returns the item's number in
 * it; -1: there is none. */
template <typename Shape>
__device__ static inline int64_t find_own_item(attention_launch &own, int64_t item,
                                               attention_found &found, const rwi_fault_sink &sink) {
    const rw_attention_params &p = own.op;
    const int64_t slot_items = rwi_attention_slot_items(&p), slot = item / slot_items;
    const bool is_found = attention_find_sequence(
        p, found, attention_copier<Shape>(), Shape::COPIERS, p.parts.count == 1, sink,
        [&](const rwi_attention_sequence &at) {
            return rwi_attention_first_slot(&p, &own.slots, at.b, at.q_begin) <= slot &&
                   slot < rwi_attention_first_slot(&p, &own.slots, at.b + 1, at.q_end);
        },
        [] { attention_copiers_sync<Shape>(); });
    if (!is_found)
        return -1;
    if (attention_copier<Shape>() == 0) {
        rwi_attention_sequence at;
        rwi_bad_id bad;
        (void)rwi_attention_load_sequence(&p, (int64_t)found.b, &at, &bad);
        const int64_t first = rwi_attention_first_slot(&p, &own.slots, at.b, at.q_begin);
        rwi_attention_narrow(&own.op, &at);
        own.row_tiles = rwi_attention_row_tiles(&p, Shape::ROWS);
        const int64_t n = item - first * slot_items;
        const bool is_own = attention_is_within(own.bounds, p);
        found.item = is_own && n < own.row_tiles * slot_items ? n : -1;
    }
    attention_copiers_sync<Shape>();
    return found.item;
}

/* Codes: gives `own` the scale of the item's head, by all threads of a block. */
template <typename Shape>
__device__ static __forceinline__ void scale_own_keys(attention_launch &own, int64_t item) {
    if (threadIdx.x == 0) {
        rwi_attention_scale_keys(&own.op, find_item(own, item, Shape::ROWS).kv_head);
        describe_scores(own);
    }
    __syncthreads();
}

#endif
