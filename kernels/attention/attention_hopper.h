/* Parts of attention_gpu.h and attention_wide.h: which rows the kernels of attention_roles.h serve, on Hopper. */
#ifndef RWI_ATTENTION_HOPPER_H
#define RWI_ATTENTION_HOPPER_H

#include "attention/attention_launch.h"
#include "gpu/tensor_copy.h"

/* All rows, where p.ragged.queries.data is NULL; else those of sequences within the bounds, after a
 * launch for others if `again`. */
rw_status rwi_hip_attention_roles_f16(rwi_device *device, const rw_attention_params &p,
                                      const attention_bounds &bounds, bool again);
rw_status rwi_hip_attention_roles_bf16(rwi_device *device, const rw_attention_params &p,
                                       const attention_bounds &bounds, bool again);

/* k or v: [batch, keys, heads, columns], or pages in place of a batch, or packed keys of all
 * sequences. */
static inline rwi_tensor_axes key_axes(const rw_attention_params &p,
                                       const rwi_attention_tensor &tensor, int64_t columns,
                                       int keys) {
    const bool paged = p.pages.table.data;
    const rwi_scores &lengths = p.rules.scores;
    const int64_t batch = p.ragged.keys.data ? 1 : lengths.batch;
    return {p.dtype,
            tensor.data,
            columns,
            {paged ? (int64_t)1 << p.pages.shift : lengths.seq_k, p.kv_heads,
             paged ? p.pages.num_pages : batch},
            {tensor.stride[1], tensor.stride[2], tensor.stride[0]},
            {keys, 1, 1}};
}

/* q: [batch, queries, heads, columns]; a box is `rows` rows of a group. */
static inline rwi_tensor_axes query_axes(const rw_attention_params &p, int rows) {
    const rwi_scores &lengths = p.rules.scores;
    return {
        p.dtype,
        p.q.data,
        p.head_dim,
        {(int64_t)p.kv_heads * p.group, lengths.seq_q, p.ragged.queries.data ? 1 : lengths.batch},
        {p.q.stride[2], p.q.stride[1], p.q.stride[0]},
        {p.group, rows / p.group, 1}};
}

/* Keys of a box: tiles start on multiples of RWI_ATTENTION_KEYS, and no box exceeds a page. */
static inline int box_keys(const rw_attention_params &p, int keys) {
    if (!p.pages.table.data)
        return keys;
    return p.pages.shift < 6 ? 1 << p.pages.shift : RWI_ATTENTION_KEYS;
}

/* wgmma adds each 16 products to the sum of all keys so far and cuts off its low bits: the sum of many
 * small weights beside a large one is too small by up to 4e-7 of the large one for each 16 keys. Sums
 * that stay in registers over so many keys that this would show in the output are left to kernels that
 * sum each tile by itself. */
static inline int64_t most_roles_keys(const rw_attention_params &p) {
    const bool put_away = p.parts.count > 1 || p.out_dtype == RW_F32; /* after each batch */
    return put_away ? INT64_MAX : p.out_dtype == RW_F16 ? 16 << 10 : 128 << 10;
}

/* Whether the kernel serves this device and these tensors. */
template <rw_dtype D>
static bool roles_serve_tensors(rwi_device *device, const rw_attention_params &p) {
    const bool pages_fit = !p.pages.table.data || p.pages.shift >= 3; /* 8 rows are swapped alike */
    return rwi_hip_has_wgmma((const rwi_hip_device *)device) && p.kv_dtype == p.dtype &&
           tensor_has_vectors(D, p.q, p.head_dim) && pages_fit &&
           tensor_has_vectors(D, p.k, p.head_dim) && tensor_has_vectors(D, p.v, p.v_dim) &&
           rwi_tensor_has_map(key_axes(p, p.k, p.head_dim, 1)) &&
           rwi_tensor_has_map(key_axes(p, p.v, p.v_dim, 1));
}

/* Whether it serves all rows. A tile is mostly unused where there are fewer rows than it has, but k and
 * v are read at the memory's speed, and once. */
template <rw_dtype D> static bool roles_serve(rwi_device *device, const rw_attention_params &p) {
    return p.rules.scores.seq_k <= most_roles_keys(p) &&
           rwi_attention_group_rows(&p) > RWI_ATTENTION_FEW_ROWS &&
           roles_serve_tensors<D>(device, p);
}

template <rw_dtype D>
static rw_status launch_roles_of(rwi_device *device, const rw_attention_params &p,
                                 const attention_bounds &bounds, bool again) {
    if constexpr (D == RW_F16)
        return rwi_hip_attention_roles_f16(device, p, bounds, again);
    else
        return rwi_hip_attention_roles_bf16(device, p, bounds, again);
}

#endif
