/* Parts of attention_gpu.h: the kernel whose waves have roles, on Hopper.
 *
 * Consumers, two or three warpgroups, multiply. They take turns: while one multiplies, the others
 * compute weights. Each begins the scores of a tile before the values of the previous tile are summed.
 * One more warpgroup serves them: the loader, one wave, copies k and v into two stages of tiles; the
 * preparers find the rows of the next item and the tiles that they see, and copy q.
 *
 * A block takes one item after another until none is left. While consumers end an item, the first
 * tiles of the next one arrive.
 */
#ifndef RWI_ATTENTION_ROLES_H
#define RWI_ATTENTION_ROLES_H

#include "attention/attention_consume.h"
#include "attention/attention_launch.h"
#include "attention/attention_serve.h"

/* Registers of a thread that serves, and of a consumer: together those that a block is launched with,
 * 168 a thread, or 128 with three warpgroups of consumers. */
template <typename Shape> struct attention_registers {
    static constexpr int SERVER = Shape::CONSUMERS == 2 ? 40 : 32;
    static constexpr int CONSUMER = Shape::CONSUMERS == 2 ? 232 : 160;
};

template <typename Shape>
static __global__ void __launch_bounds__(Shape::BLOCK, 1)
    attention_roles_kernel(const RWI_GRID_CONSTANT attention_roles_launch launch,
                           rwi_fault_sink sink) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL) /* it runs on no other */
    HIP_DYNAMIC_SHARED(uint4, shared)
    __shared__ attention_block<Shape> items[Shape::ITEMS];
    __shared__ attention_barriers<Shape> barriers;
    static_assert(Shape::ROWS >= RWI_ATTENTION_TALL_ROWS, "the keys are split for so many");
    static_assert(Shape::SHARED_BYTES + sizeof items + sizeof barriers <= 227 * 1024,
                  "an NVIDIA GPU has no more shared memory");
    const attention_tiles<Shape> tiles = attention_find_tiles<Shape>(shared);
    if (threadIdx.x == 0)
        begin_barriers(barriers);
    __syncthreads();
    rwi_start_next_kernel();
    if ((int)threadIdx.x < Shape::THREADS) {
        rwi_set_registers<attention_registers<Shape>::CONSUMER, true>();
        rwi_await_previous_kernel();
        consume(launch.near, items, barriers, tiles);
        return;
    }
    rwi_set_registers<attention_registers<Shape>::SERVER, false>();
    if (attention_copier<Shape>() < 0) {
        rwi_await_previous_kernel();
        load(launch, items, barriers, tiles);
    } else {
        prepare(launch, rwi_block_row(), items, barriers, tiles, sink);
    }
#else
    (void)launch, (void)sink;
#endif
}

/* k or v: [batch, keys, heads, columns], or pages in place of a batch. */
static inline rwi_tensor_axes key_axes(const rw_attention_params &p,
                                       const rwi_attention_tensor &tensor, int64_t columns,
                                       int keys) {
    const bool paged = p.pages.table.data;
    const rwi_scores &lengths = p.rules.scores;
    return {p.dtype,
            tensor.data,
            columns,
            {paged ? (int64_t)1 << p.pages.shift : lengths.seq_k, p.kv_heads,
             paged ? p.pages.num_pages : lengths.batch},
            {tensor.stride[1], tensor.stride[2], tensor.stride[0]},
            {keys, 1, 1}};
}

/* q: [batch, queries, heads, columns]; a box is `rows` rows of a group. */
static inline rwi_tensor_axes query_axes(const rw_attention_params &p, int rows) {
    const rwi_scores &lengths = p.rules.scores;
    return {p.dtype,
            p.q.data,
            p.head_dim,
            {(int64_t)p.kv_heads * p.group, lengths.seq_q, lengths.batch},
            {p.q.stride[2], p.q.stride[1], p.q.stride[0]},
            {p.group, rows / p.group, 1}};
}

/* Keys of a box: tiles start on multiples of RWI_ATTENTION_KEYS, and no box exceeds a page. */
static inline int box_keys(const rw_attention_params &p, int keys) {
    if (!p.pages.table.data)
        return keys;
    return p.pages.shift < 6 ? 1 << p.pages.shift : RWI_ATTENTION_KEYS;
}

template <typename Shape>
static rw_status launch_roles_shape(rwi_device *device, const rw_attention_params &p) {
    const rwi_hip_device *hip = (const rwi_hip_device *)device;
    attention_roles_launch launch = {};
    launch.near = describe_launch<Shape>(p);
    launch.box_keys = box_keys(p, Shape::KEYS);
    launch.copies_q = Shape::ROWS % p.group == 0 && rwi_tensor_has_map(query_axes(p, Shape::ROWS));
    int64_t blocks = launch.near.items;
    if (blocks > hip->multiprocessors) {
        blocks = hip->multiprocessors;
        launch.taken = rwi_hip_counter(hip);
    }
    rw_status status =
        rwi_tensor_map_make(device, &launch.k, key_axes(p, p.k, p.head_dim, launch.box_keys));
    if (status == RW_OK)
        status = rwi_tensor_map_make(device, &launch.v, key_axes(p, p.v, p.v_dim, launch.box_keys));
    if (status == RW_OK && launch.copies_q)
        status = rwi_tensor_map_make(device, &launch.q, query_axes(p, Shape::ROWS));
    if (status != RW_OK)
        return status;
    rwi_launch_shape shape = rwi_launch_rows(RWI_OP_attention, blocks, dim3(Shape::BLOCK));
    shape.shared_bytes = Shape::SHARED_BYTES;
    return rwi_launch(device, shape, attention_roles_kernel<Shape>, launch);
}

template <rw_dtype D, int WIDTH, int V_WIDTH>
static rw_status launch_roles_width(rwi_device *device, const rw_attention_params &p) {
    const int needed = needed_rules(p);
    if constexpr (WIDTH == 64) { /* few registers: one more warpgroup hides more latency */
        typedef attention_shape<D, WIDTH, false, RWI_MMA_WGMMA, V_WIDTH, ATTENTION_PLAIN, 3> Three;
        const int64_t blocks = ((const rwi_hip_device *)device)->multiprocessors;
        if (needed == ATTENTION_PLAIN && rwi_attention_items(&p, Three::ROWS) >= 2 * blocks)
            return launch_roles_shape<Three>(device, p);
    }
    const auto launch = [&](auto rules) {
        return launch_roles_shape<attention_shape<D, WIDTH, false, RWI_MMA_WGMMA, V_WIDTH, rules>>(
            device, p);
    };
    if (needed == ATTENTION_PLAIN)
        return launch(std::integral_constant<int, ATTENTION_PLAIN>());
    if constexpr (WIDTH <= 128) { /* the usual ones */
        if (needed == ATTENTION_CAP)
            return launch(std::integral_constant<int, ATTENTION_CAP>());
        if (needed == ATTENTION_ALIBI)
            return launch(std::integral_constant<int, ATTENTION_ALIBI>());
        if (needed == ATTENTION_MASK)
            return launch(std::integral_constant<int, ATTENTION_MASK>());
    }
    return launch(std::integral_constant<int, ATTENTION_ANY>());
}

/* wgmma adds each 16 products to the sum of all keys so far and cuts off its low bits: the sum of many
 * small weights beside a large one is too small by up to 4e-7 of the large one for each 16 keys. Sums
 * that stay in registers over so many keys that this would show in the output are left to kernels that
 * sum each tile by itself. */
static inline bool sums_fit(const rw_attention_params &p) {
    const bool put_away = p.parts.count > 1 || p.out_dtype == RW_F32; /* after each batch */
    return put_away || p.rules.scores.seq_k <= (p.out_dtype == RW_F16 ? 16 << 10 : 128 << 10);
}

/* Whether the kernel serves this device and these parameters. A tile is mostly unused where there are
 * fewer rows than it has, but k and v are read at the memory's speed, and once. */
template <rw_dtype D> static bool roles_serve(rwi_device *device, const rw_attention_params &p) {
    const bool pages_fit = !p.pages.table.data || p.pages.shift >= 3; /* 8 rows are swapped alike */
    return rwi_hip_has_wgmma((const rwi_hip_device *)device) && sums_fit(p) &&
           rwi_attention_group_rows(&p) > RWI_ATTENTION_FEW_ROWS &&
           tensor_has_vectors(D, p.q, p.head_dim) && pages_fit &&
           tensor_has_vectors(D, p.k, p.head_dim) && tensor_has_vectors(D, p.v, p.v_dim) &&
           rwi_tensor_has_map(key_axes(p, p.k, p.head_dim, 1)) &&
           rwi_tensor_has_map(key_axes(p, p.v, p.v_dim, 1));
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

#endif
