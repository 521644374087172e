/* Attention on a GPU: the kernel whose waves have roles, on Hopper, and its launches. One source file
 * for each dtype includes it (attention_roles_f16.hip, ...).
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
#include "attention/attention_hopper.h"
#include "attention/attention_serve.h"

/* Registers of a thread that serves, and of a consumer: together those that a block is launched with,
 * 168 a thread, or 128 with three warpgroups of consumers. */
template <typename Shape> struct attention_registers {
    static constexpr int SERVER = Shape::CONSUMERS == 2 ? 40 : 32;
    static constexpr int CONSUMER = Shape::CONSUMERS == 2 ? 232 : 160;
};

template <typename Shape, typename Parameters>
static __global__ void __launch_bounds__(Shape::BLOCK, 1)
    attention_roles_kernel(const RWI_GRID_CONSTANT attention_roles_launch launch,
                           rwi_fault_sink sink) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL) /* it runs on no other */
    HIP_DYNAMIC_SHARED(uint4, shared)
    __shared__ attention_block<Shape> items[Shape::ITEMS];
    __shared__ attention_barriers<Shape> barriers;
    __shared__ Parameters parameters;
    static_assert(Shape::ROWS >= (Shape::LATENT ? RWI_ATTENTION_ROWS : RWI_ATTENTION_TALL_ROWS),
                  "the keys are split for so many");
    static_assert(Shape::SHARED_BYTES + sizeof items + sizeof barriers + sizeof parameters <=
                      227 * 1024,
                  "an NVIDIA GPU has no more shared memory");
    const attention_tiles<Shape> tiles = attention_find_tiles<Shape>(shared);
    if (threadIdx.x == 0)
        begin_barriers(barriers);
    __syncthreads();
    rwi_start_next_kernel();
    if ((int)threadIdx.x < Shape::THREADS) {
        rwi_set_registers<attention_registers<Shape>::CONSUMER, true>();
        rwi_await_previous_kernel();
        consume(launch, parameters, items, barriers, tiles);
        return;
    }
    rwi_set_registers<attention_registers<Shape>::SERVER, false>();
    if (attention_copier<Shape>() < 0) {
        rwi_await_previous_kernel();
        load(launch, parameters, items, barriers, tiles);
    } else {
        prepare(launch, parameters, rwi_block_row(), items, barriers, tiles, sink);
    }
#else
    (void)launch, (void)sink;
#endif
}

/* A launch for all rows or, of sequences of different lengths, for some of them. */
struct attention_roles_call {
    rwi_device *device;
    const rw_attention_params &op;
    attention_bounds bounds;
    bool again; /* after a launch for others */
};

template <typename Shape, typename Parameters>
static rw_status launch_roles_kernel(const attention_roles_call &call) {
    const rwi_hip_device *hip = (const rwi_hip_device *)call.device;
    const rw_attention_params &p = call.op;
    attention_roles_launch launch = {};
    launch.near = describe_launch<Shape>(p);
    if (Parameters::OWN)
        describe_slots<Shape>(launch.near, call.bounds);
    launch.box_keys = box_keys(p, Shape::KEYS);
    launch.copies_q = Shape::ROWS % p.group == 0 && rwi_tensor_has_map(query_axes(p, Shape::ROWS));
    int64_t blocks = launch.near.items;
    if (blocks > hip->multiprocessors) {
        blocks = hip->multiprocessors;
        launch.taken = rwi_hip_counter(hip);
    }
    rw_status status =
        rwi_tensor_map_make(call.device, &launch.k, key_axes(p, p.k, p.head_dim, launch.box_keys));
    if (status == RW_OK)
        status =
            rwi_tensor_map_make(call.device, &launch.v, key_axes(p, p.v, p.v_dim, launch.box_keys));
    if (status == RW_OK && launch.copies_q)
        status = rwi_tensor_map_make(call.device, &launch.q, query_axes(p, Shape::ROWS));
    if (status != RW_OK)
        return status;
    rwi_launch_shape shape = rwi_launch_rows(RWI_OP_attention, blocks, dim3(Shape::BLOCK));
    shape.shared_bytes = Shape::SHARED_BYTES;
    shape.again = call.again;
    return rwi_launch(call.device, shape, attention_roles_kernel<Shape, Parameters>, launch);
}

template <typename Shape> static rw_status launch_roles_shape(const attention_roles_call &call) {
    return launch_roles_kernel<Shape, attention_same_parameters<Shape>>(call);
}

template <typename Shape>
static rw_status launch_own_roles_shape(const attention_roles_call &call) {
    return launch_roles_kernel<Shape, attention_own_parameters<Shape>>(call);
}

/* Kernels for the plain rules alone. */
template <rw_dtype D, int WIDTH>
static rw_status launch_plain_roles(const attention_roles_call &call) {
    typedef attention_shape<D, WIDTH, false, RWI_MMA_WGMMA, WIDTH, ATTENTION_PLAIN> Shape;
    return launch_roles_shape<Shape>(call);
}

template <rw_dtype D, int WIDTH, int V_WIDTH>
static rw_status launch_roles_width(const attention_roles_call &call) {
    const int needed = needed_rules(call.op);
    if constexpr (WIDTH == 64) { /* few registers: one more warpgroup hides more latency */
        typedef attention_shape<D, WIDTH, false, RWI_MMA_WGMMA, V_WIDTH, ATTENTION_PLAIN, 3> Three;
        const int64_t blocks = ((const rwi_hip_device *)call.device)->multiprocessors;
        if (needed == ATTENTION_PLAIN && rwi_attention_items(&call.op, Three::ROWS) >= 2 * blocks)
            return launch_roles_shape<Three>(call);
    }
    const auto launch = [&](auto rules) {
        return launch_roles_shape<attention_shape<D, WIDTH, false, RWI_MMA_WGMMA, V_WIDTH, rules>>(
            call);
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

template <rw_dtype D> static rw_status launch_roles(const attention_roles_call &call) {
    const rw_attention_params &p = call.op;
    const int32_t width = p.head_dim > p.v_dim ? p.head_dim : p.v_dim;
    if (width > 64 && width <= 96 && needed_rules(p) == ATTENTION_PLAIN)
        return width <= 80 ? launch_plain_roles<D, 80>(call) : launch_plain_roles<D, 96>(call);
    if (width <= 64)
        return launch_roles_width<D, 64, 64>(call);
    if (width <= 128)
        return launch_roles_width<D, 128, 128>(call);
    if (p.head_dim <= 192 && p.v_dim <= 128)
        return launch_roles_width<D, 192, 128>(call);
    if (width <= 256)
        return launch_roles_width<D, 256, 256>(call);
    return launch_roles_width<D, 576, 512>(call);
}

template <rw_dtype D, int WIDTH, int V_WIDTH>
static rw_status launch_own_roles_width(const attention_roles_call &call) {
    if (needed_rules(call.op) == ATTENTION_PLAIN)
        return launch_own_roles_shape<
            attention_shape<D, WIDTH, false, RWI_MMA_WGMMA, V_WIDTH, ATTENTION_PLAIN>>(call);
    return launch_own_roles_shape<
        attention_shape<D, WIDTH, false, RWI_MMA_WGMMA, V_WIDTH, ATTENTION_ANY>>(call);
}

/* The same of sequences of different lengths. */
template <rw_dtype D> static rw_status launch_own_roles(const attention_roles_call &call) {
    const rw_attention_params &p = call.op;
    if (p.head_dim <= 64 && p.v_dim <= 64)
        return launch_own_roles_width<D, 64, 64>(call);
    if (p.head_dim <= 128 && p.v_dim <= 128)
        return launch_own_roles_width<D, 128, 128>(call);
    if (p.head_dim <= 192 && p.v_dim <= 128)
        return launch_own_roles_width<D, 192, 128>(call);
    if (p.head_dim <= 256 && p.v_dim <= 256)
        return launch_own_roles_width<D, 256, 256>(call);
    return launch_own_roles_width<D, 576, 512>(call);
}

template <rw_dtype D> static rw_status launch_roles_call(const attention_roles_call &call) {
    return call.op.ragged.queries.data ? launch_own_roles<D>(call) : launch_roles<D>(call);
}

#endif
