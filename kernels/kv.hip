/* The KV cache on a GPU; the twin of kv_cpu.c. One block per token: threads along x share a head,
 * threads along y take different heads. */
#include "gpu/dispatch.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/rope_pairs.h"
#include "gpu/vectors.h"
#include "kv_params.h"

/* A token's heads of k or v: offsets in elements, and the strides of heads. */
struct token_heads {
    int64_t in;
    int64_t out;
    int64_t in_stride;
    int64_t out_stride;
    int64_t heads;
};

/* Copies elements without conversion. */
template <rw_dtype D, int VEC>
__device__ static inline void copy_heads(const void *in, void *out, int64_t width,
                                         const token_heads &heads) {
    for (int64_t head = threadIdx.y; head < heads.heads; head += blockDim.y)
        for (int64_t i = threadIdx.x * VEC; i < width; i += blockDim.x * VEC)
            rwi_copy_vector<D, VEC>(rwi_element(D, in, heads.in + head * heads.in_stride),
                                    rwi_element(D, out, heads.out + head * heads.out_stride), i);
}

__device__ static inline token_heads find_heads(const rwi_kv_side &side, int64_t heads, int64_t b,
                                                int64_t s, const rwi_kv_place &place) {
    return {b * side.in_stride[0] + s * side.in_stride[1],
            place.page * side.cache_stride[0] + place.row * side.cache_stride[1], side.in_stride[2],
            side.cache_stride[2], heads};
}

template <rw_dtype D, int VEC>
static __global__ void __launch_bounds__(RWI_BLOCK)
    kv_append_kernel(rw_kv_append_params p, rwi_fault_sink sink) {
    const int64_t token = rwi_block_row();
    if (token >= p.batch * p.seq)
        return;
    int64_t b, s;
    rwi_bad_id bad;
    rwi_kv_place place;
    rwi_split_index(token, p.seq, &b, &s);
    if (!kv_append_find(&p, b, s, &place, &bad)) {
        if (threadIdx.x == 0 && threadIdx.y == 0)
            rwi_fault_raise(sink, token, bad);
        return;
    }
    const rwi_kv_side &k = p.sides[0], &v = p.sides[1];
    copy_heads<D, VEC>(k.in, k.cache, k.width, find_heads(k, p.heads, b, s, place));
    copy_heads<D, VEC>(v.in, v.cache, v.width, find_heads(v, p.heads, b, s, place));
}

static bool side_has_vectors(rw_dtype dtype, const rwi_kv_side &side) {
    return rwi_rows_are_vectors(dtype, {side.in, side.in_stride, 3, side.width}) &&
           rwi_rows_are_vectors(dtype, {side.cache, side.cache_stride, 3, side.width});
}

/* Threads of one head along x: a power of two, at most the smallest wave. */
static uint32_t threads_of_head(int64_t vectors) {
    uint32_t threads = 1;
    while (threads < vectors && threads < 32)
        threads *= 2;
    return threads;
}

template <rw_dtype D, int VEC>
static rw_status launch_append(rwi_device *device, const rw_kv_append_params &p) {
    const int64_t width = rwi_max(p.sides[0].width, p.sides[1].width);
    const uint32_t x = threads_of_head(rwi_ceil_div(width, VEC));
    const uint32_t y = (uint32_t)rwi_min(p.heads, RWI_BLOCK / x);
    return rwi_launch(device,
                      rwi_launch_rows(RWI_OP_kv_append, kv_append_work(&p).items, dim3(x, y)),
                      kv_append_kernel<D, VEC>, p);
}

extern "C" rw_status rwi_hip_kv_append(rwi_device *device, const rw_kv_append_params *p) {
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        if (side_has_vectors(D, p->sides[0]) && side_has_vectors(D, p->sides[1]))
            return launch_append<D, rwi_vector_length<D>>(device, *p);
        return launch_append<D, 1>(device, *p);
    });
}

/* ---- with rotation ---- */

/* Computes the rotations (cos, sin) of a token with all threads of the block. */
__device__ static inline void compute_turns(const rw_rope_params &p, const int64_t *ids,
                                            rwi_cos_sin *turns) {
    const int threads = blockDim.x * blockDim.y;
#pragma unroll 1
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < p.num_frequencies; i += threads)
        turns[i] = rope_turn(&p, rope_position(&p, ids, i), i);
}

/* One part (q, k or v) of a token. The first thread of the block finds it for all threads, in
 * shared memory, so that it occupies no registers later. */
struct token_part {
    bool found;
    int64_t ids[RWI_ROPE_MAX_AXES];
    token_heads heads;
};

/* 1 / rms of a head. Every thread of the block must call; those without a head pass heads = 0. */
template <rw_dtype D, int VEC>
__device__ static inline float head_factor(const rw_rope_append_params &p, const void *in,
                                           bool live) {
    double sum = 0.0;
    const int64_t columns = live ? p.rope.head_dim : 0;
#pragma unroll 1
    for (int64_t i = threadIdx.x * VEC; i < columns; i += blockDim.x * VEC) {
        float x[VEC];
        rwi_load_vector<D>(in, i, x);
#pragma unroll
        for (int n = 0; n < VEC; n++)
            sum += (double)x[n] * (double)x[n];
    }
    for (int distance = blockDim.x / 2; distance > 0; distance /= 2)
        sum += __shfl_xor(sum, distance, blockDim.x);
    return rope_append_factor(&p, sum);
}

/* The columns outside the rotary window. */
template <rw_dtype D>
__device__ static inline void finish_rest(const rw_rope_append_params &p, const float *weights,
                                          float factor, const void *in, void *out) {
    const int64_t end = p.rope.start + 2 * p.rope.num_frequencies;
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p.rope.head_dim; i += blockDim.x) {
        if (i >= p.rope.start && i < end)
            continue;
        if (weights)
            rwi_store(D, out, i, rope_append_norm(&p, D, rwi_load(D, in, i), factor, weights[i]));
        else if (in != out)
            rwi_copy_element<D>(in, out, i);
    }
}

template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static inline void turn_head(const rw_rope_append_params &p, const rwi_cos_sin *turns,
                                        const float *weights, float factor, const void *in,
                                        void *out) {
    const int64_t n = p.rope.num_frequencies;
    const void *x = rwi_element(D, in, p.rope.start);
    void *y = rwi_element(D, out, p.rope.start);
#pragma unroll 1
    for (int64_t i = threadIdx.x * PAIRS; i < n; i += blockDim.x * PAIRS) {
        float x1[PAIRS], x2[PAIRS];
        rwi_cos_sin my_turns[PAIRS];
        rwi_rope_load_pairs<D, PAIRS, INTERLEAVED>(x, i, n, x1, x2);
#pragma unroll
        for (int k = 0; k < PAIRS; k++) {
            my_turns[k] = turns[i + k];
            if (!weights)
                continue;
            const int64_t column = p.rope.start + (INTERLEAVED ? 2 * (i + k) : i + k);
            x1[k] = rope_append_norm(&p, D, x1[k], factor, weights[column]);
            x2[k] = rope_append_norm(&p, D, x2[k], factor, weights[column + (INTERLEAVED ? 1 : n)]);
        }
        rwi_rope_rotate_pairs(x1, x2, my_turns);
        rwi_rope_store_pairs<D, PAIRS, INTERLEAVED>(y, i, n, x1, x2);
    }
}

/* Rotates all heads of q or k; every thread of the block takes part in all rounds. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static inline void turn_heads(const rw_rope_append_params &p, const rwi_cos_sin *turns,
                                         const float *weights, const void *in_data, void *out_data,
                                         const token_heads &heads) {
    constexpr int VEC = PAIRS == 1 ? 1 : rwi_vector_length<D>;
#pragma unroll 1
    for (int64_t first = 0; first < heads.heads; first += blockDim.y) {
        const int64_t head = first + threadIdx.y;
        const bool live = head < heads.heads;
        const void *in = rwi_element(D, in_data, heads.in + head * heads.in_stride);
        void *out = rwi_element(D, out_data, heads.out + head * heads.out_stride);
        float factor = 1.0f;
        if (weights)
            factor = head_factor<D, VEC>(p, in, live);
        if (!live)
            continue;
        turn_head<D, PAIRS, INTERLEAVED>(p, turns, weights, factor, in, out);
        finish_rest<D>(p, weights, factor, in, out);
    }
}

/* Copies the weights of q or k to shared memory; returns NULL where there are none. */
__device__ static inline const float *stage_weights(const rw_rope_append_params &p, int which,
                                                    float *shared) {
    const void *weight = which ? p.norm_weight[1] : p.norm_weight[0];
    const rw_dtype dtype = which ? p.norm_dtype[1] : p.norm_dtype[0];
    if (!weight)
        return nullptr;
    const int threads = blockDim.x * blockDim.y;
#pragma unroll 1
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < p.rope.head_dim; i += threads)
        shared[i] = rwi_load(dtype, weight, i);
    return shared;
}

/* Parts along the z axis of the grid: q, k and v of a token. */
enum {
    PART_Q,
    PART_K,
    PART_V,
    NUM_PARTS
};

__device__ static inline void find_part(const rw_rope_append_params &p, int64_t token,
                                        const rwi_fault_sink &sink, token_part *part) {
    int64_t b, s;
    rwi_bad_id bad;
    rwi_kv_place place;
    rwi_split_index(token, p.rope.seq, &b, &s);
    rope_find_ids(&p.rope, b, s, part->ids);
    part->found = rope_append_find(&p, b, s, part->ids, &place, &bad);
    if (!part->found) {
        if (blockIdx.z == PART_Q)
            rwi_fault_raise(sink, token, bad);
        return;
    }
    const rwi_rope_heads &q = p.rope.heads[0];
    if (blockIdx.z == PART_Q)
        part->heads = {b * q.in_stride[0] + s * q.in_stride[1],
                       b * q.out_stride[0] + s * q.out_stride[1], q.in_stride[2], q.out_stride[2],
                       q.heads};
    else
        part->heads = find_heads(p.kv.sides[blockIdx.z == PART_K ? 0 : 1], p.kv.heads, b, s, place);
}

template <rw_dtype D, int PAIRS, bool INTERLEAVED>
static __global__ void __launch_bounds__(RWI_BLOCK)
    rope_append_kernel(rw_rope_append_params p, rwi_fault_sink sink) {
    HIP_DYNAMIC_SHARED(float, shared)
    __shared__ token_part part;
    const int64_t token = rwi_block_row();
    if (token >= p.rope.batch * p.rope.seq)
        return;
    if (threadIdx.x == 0 && threadIdx.y == 0)
        find_part(p, token, sink, &part);
    __syncthreads();
    if (!part.found)
        return;
    if (blockIdx.z == PART_V) {
        copy_heads<D, PAIRS == 1 ? 1 : rwi_vector_length<D>>(p.kv.sides[1].in, p.kv.sides[1].cache,
                                                             p.kv.sides[1].width, part.heads);
        return;
    }
    const bool is_q = blockIdx.z == PART_Q;
    rwi_cos_sin *turns = (rwi_cos_sin *)shared;
    compute_turns(p.rope, part.ids, turns);
    const float *weights = stage_weights(p, is_q ? 0 : 1, shared + 2 * p.rope.num_frequencies);
    __syncthreads();
    turn_heads<D, PAIRS, INTERLEAVED>(p, turns, weights,
                                      is_q ? p.rope.heads[0].in : p.kv.sides[0].in,
                                      is_q ? p.rope.heads[0].out : p.kv.sides[0].cache, part.heads);
}

/* Whether all heads, and their rotary windows, can be read in vectors. */
static bool has_vectors(const rw_rope_append_params &p) {
    const rwi_rope_heads &q = p.rope.heads[0];
    const rwi_kv_side &k = p.kv.sides[0];
    const rwi_rows rows[] = {{q.in, q.in_stride, 3, 0},
                             {q.out, q.out_stride, 3, 0},
                             {k.in, k.in_stride, 3, 0},
                             {k.cache, k.cache_stride, 3, 0}};
    for (const rwi_rows &row : rows)
        if (!rwi_rope_window_has_vectors(p.rope, row))
            return false;
    return p.rope.head_dim % (16 / (int64_t)rwi_dtype_size(p.rope.dtype)) == 0 &&
           side_has_vectors(p.rope.dtype, p.kv.sides[1]);
}

template <rw_dtype D, int PAIRS, bool INTERLEAVED>
static rw_status launch_rope_append(rwi_device *device, const rw_rope_append_params &p) {
    const uint32_t x = threads_of_head(rwi_ceil_div(p.rope.num_frequencies, PAIRS));
    const int64_t rows = rwi_max(p.kv.heads, 64 / x); /* q takes several rounds of as many heads */
    const uint32_t y = (uint32_t)rwi_min(rows, RWI_BLOCK / x);
    rwi_launch_shape shape =
        rwi_launch_rows(RWI_OP_rope_append, rope_append_work(&p).items, dim3(x, y));
    shape.grid.z = NUM_PARTS;
    const bool normed = p.norm_weight[0] || p.norm_weight[1];
    shape.shared_bytes = (size_t)p.rope.num_frequencies * sizeof(rwi_cos_sin) +
                         (normed ? (size_t)p.rope.head_dim * sizeof(float) : 0);
    return rwi_launch(device, shape, rope_append_kernel<D, PAIRS, INTERLEAVED>, p);
}

extern "C" rw_status rwi_hip_rope_append(rwi_device *device, const rw_rope_append_params *p) {
    return rwi_dispatch_float(device, p->rope.dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        constexpr int VEC = rwi_vector_length<D>;
        const bool vectors = has_vectors(*p);
        if (p->rope.interleaved)
            return vectors ? launch_rope_append<D, VEC / 2, true>(device, *p)
                           : launch_rope_append<D, 1, true>(device, *p);
        return vectors ? launch_rope_append<D, VEC, false>(device, *p)
                       : launch_rope_append<D, 1, false>(device, *p);
    });
}
