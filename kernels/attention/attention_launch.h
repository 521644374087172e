/* Parts of attention_gpu.h: what every launch computes from the parameters. */
#ifndef RWI_ATTENTION_LAUNCH_H
#define RWI_ATTENTION_LAUNCH_H

#include "attention/attention_tile.h"
#include "gpu/launch.h"
#include "gpu/vectors.h"

/* The size of k and v that stays in the second-level cache while the blocks of their heads run. */
#define SECTION_BYTES ((int64_t)16 << 20)

static inline bool tensor_has_vectors(rw_dtype dtype, const rwi_attention_tensor &tensor,
                                      int64_t width) {
    return rwi_rows_are_vectors(dtype, {tensor.data, tensor.stride, 3, width});
}

/* Whether two adjacent keys of an even one on are one aligned word. */
static inline bool mask_has_pairs(const rwi_score_mask &mask) {
    const bool even = mask.stride[0] % 2 == 0 && mask.stride[1] % 2 == 0 && mask.stride[2] % 2 == 0;
    return mask.data && rwi_dtype_size(mask.dtype) == 2 && even && (uintptr_t)mask.data % 4 == 0;
}

/* The rules that a kernel needs code for. */
static inline int needed_rules(const rw_attention_params &p) {
    const rw_softmax_params &rules = p.rules;
    int needed = ATTENTION_PLAIN;
    if (rules.softcap > 0.0f)
        needed |= ATTENTION_CAP;
    if (rules.alibi.slopes)
        needed |= ATTENTION_ALIBI;
    if (rules.mask.data)
        needed |= ATTENTION_MASK;
    const bool one_unit = needed == ATTENTION_PLAIN || needed == ATTENTION_CAP;
    const bool other_scale = one_unit && !rwi_attention_keeps_unit(&p);
    if (other_scale || rwi_pattern_has_cells(&rules.pattern))
        needed |= ATTENTION_OTHER;
    return needed;
}

/* Groups of a section, at most `most`: as many as leave no small section for the end, in which few
 * blocks would have work. */
static inline int64_t even_section(int64_t groups, int64_t most) {
    for (int64_t n = rwi_min(most, groups); 2 * n > most; n--) {
        const int64_t left = groups % n;
        if (left == 0 || 4 * left >= 3 * n)
            return n;
    }
    return most;
}

/* Whether a launch with such bounds takes the sequence of `p`. */
__device__ static inline bool attention_is_within(const attention_bounds &bounds,
                                                  const rw_attention_params &p) {
    const int64_t rows = rwi_attention_group_rows(&p), keys = p.rules.scores.seq_k;
    return rows >= bounds.least_rows && rows <= bounds.most_rows && keys >= bounds.least_keys &&
           keys <= bounds.most_keys;
}

/* The tiles of rows of a launch that takes some of the sequences of different lengths. */
template <typename Shape>
static void describe_slots(attention_launch &launch, const attention_bounds &bounds) {
    rw_attention_params bounded = launch.op;
    rwi_attention_ragged &ragged = bounded.ragged;
    ragged.max_seq_q = rwi_min(ragged.max_seq_q, bounds.most_rows / launch.op.group);
    launch.slots = rwi_attention_find_slots(&bounded, Shape::ROWS, false);
    launch.items = launch.slots.count * rwi_attention_slot_items(&launch.op);
    launch.section = launch.op.kv_heads;
    launch.bounds = bounds;
}

/* What follows from the scale. */
__host__ __device__ static inline void describe_scores(attention_launch &launch) {
    const rw_attention_params &p = launch.op;
    launch.plain = rwi_attention_keeps_products(&p);
    launch.kept_scale = rwi_attention_kept_scale(&p);
    if (p.rules.softcap > 0.0f) {
        launch.cap_inner = p.rules.scale / p.rules.softcap;
        launch.cap_outer = p.rules.softcap / launch.kept_scale;
    }
}

/* A block for each item. */
template <typename Shape>
static rwi_launch_shape block_shape(const rwi_device *device, const attention_launch &launch) {
    const int wave = ((const rwi_hip_device *)device)->wave;
    const uint32_t threads = (uint32_t)(Shape::BLOCK / Shape::unit::LANES * wave);
    rwi_launch_shape shape = rwi_launch_rows(RWI_OP_attention, launch.items, dim3(threads));
    shape.shared_bytes = Shape::SHARED_BYTES;
    return shape;
}

template <typename Shape> static attention_launch describe_launch(const rw_attention_params &p) {
    constexpr rw_dtype D = Shape::DTYPE;
    const rwi_scores &lengths = p.rules.scores;
    const int64_t bytes_of_group =
        lengths.seq_k * (p.head_dim + p.v_dim) * (int64_t)rwi_dtype_size(p.kv_dtype);
    attention_launch launch = {};
    launch.op = p;
    launch.items = rwi_attention_items(&p, Shape::ROWS);
    launch.row_tiles = rwi_attention_row_tiles(&p, Shape::ROWS);
    launch.section = even_section(rwi_attention_groups(&p),
                                  rwi_max(1, SECTION_BYTES / rwi_max(1, bytes_of_group)));
    launch.vectors = tensor_has_vectors(D, p.q, p.head_dim) &&
                     (Shape::CODES || (tensor_has_vectors(D, p.k, p.head_dim) &&
                                       tensor_has_vectors(D, p.v, p.v_dim)));
    launch.code_vectors = rwi_codes_are_aligned(p.k.data, p.k.stride, Shape::CODE_VECTOR) &&
                          rwi_codes_are_aligned(p.v.data, p.v.stride, Shape::CODE_VECTOR);
    launch.out_vectors = tensor_has_vectors(p.out_dtype, p.out, p.v_dim);
    launch.mask_pairs = mask_has_pairs(p.rules.mask);
    describe_scores(launch);
    return launch;
}

#endif
