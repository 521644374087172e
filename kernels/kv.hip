/* The KV cache on a GPU; the twin of kv_cpu.c. One block per token: threads along x share a head,
 * threads along y take different heads. */
#include "gpu/dispatch.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/registers.h"
#include "gpu/rope_pairs.h"
#include "gpu/squares.h"
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
            rwi_copy_vector<D, VEC>(
                rwi_element(D, rwi_global(in), heads.in + head * heads.in_stride),
                rwi_element(D, rwi_global(out), heads.out + head * heads.out_stride), i);
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
    rwi_begin_kernel();
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

__device__ static inline int thread_of_block() {
    return (int)(threadIdx.y * blockDim.x + threadIdx.x);
}

__device__ static inline int threads_of_block() {
    return (int)(blockDim.x * blockDim.y);
}

/* The place of number i of `count` numbers in shared memory, of which threads read LENGTH adjacent ones
 * each, UNIT (16 bytes) at a time: adjacent threads read adjacent units. */
template <int LENGTH, int UNIT> __device__ static inline int place_of(int i, int count) {
    if (LENGTH <= UNIT)
        return i;
    const int of_thread = i % LENGTH;
    return (of_thread / UNIT * (count / LENGTH) + i / LENGTH) * UNIT + of_thread % UNIT;
}

/* The LENGTH numbers from i on, a multiple of LENGTH. */
template <int LENGTH>
__device__ static inline void load_placed(const float *from, int i, int count, float (&x)[LENGTH]) {
    if constexpr (LENGTH < 4) {
#pragma unroll
        for (int n = 0; n < LENGTH; n++)
            x[n] = from[i + n];
    } else {
#pragma unroll
        for (int n = 0; n < LENGTH; n += 4) {
            const float4 four = *(const float4 *)(from + place_of<LENGTH, 4>(i + n, count));
            x[n] = four.x, x[n + 1] = four.y, x[n + 2] = four.z, x[n + 3] = four.w;
        }
    }
}

/* Computes the rotations (cos, sin) of token (b, s), unless its ids are invalid, with all threads of
 * the block, for threads that read PAIRS of them. Each reads the ids by itself: waiting for one that
 * does takes longer. */
template <int PAIRS>
__device__ static inline void compute_turns(const rw_rope_params &p, int64_t b, int64_t s,
                                            rwi_cos_sin *turns) {
#pragma unroll 1
    for (int i = thread_of_block(); i < p.num_frequencies; i += threads_of_block()) {
        int64_t ids[RWI_ROPE_MAX_AXES];
        rwi_bad_id bad;
        rope_find_ids(&p, b, s, ids);
        if (rope_ids_valid(&p, ids, &bad))
            turns[place_of<PAIRS, 2>(i, p.num_frequencies)] =
                rope_turn(&p, rope_position(&p, ids, i), i);
    }
}

/* A token. One thread finds it for all threads of the block, in shared memory, so that it occupies no
 * registers later. */
struct append_token {
    bool found;
    int64_t b;
    int64_t s;
    rwi_kv_place place; /* in the cache */
};

/* Rows of a token: the heads of q, of k and of v. */
enum append_side {
    SIDE_Q,
    SIDE_K,
    SIDE_V
};

__device__ static inline token_heads find_side(const rw_rope_append_params &p,
                                               const append_token &token, append_side side) {
    if (side != SIDE_Q)
        return find_heads(p.kv.sides[side == SIDE_K ? 0 : 1], p.kv.heads, token.b, token.s,
                          token.place);
    const rwi_rope_heads &q = p.rope.heads[0];
    return {token.b * q.in_stride[0] + token.s * q.in_stride[1],
            token.b * q.out_stride[0] + token.s * q.out_stride[1], q.in_stride[2], q.out_stride[2],
            q.heads};
}

/* The factor of a head from the sums of squares of the threads that share it. Every thread of the
 * block must call it. */
__device__ static inline rwi_rms_factor factor_of_sum(const rw_rope_append_params &p, double sum) {
    for (int distance = blockDim.x / 2; distance > 0; distance /= 2)
        sum += __shfl_xor(sum, distance, blockDim.x);
    return rope_append_factor(&p, sum);
}

/* 1 / rms of a head. Every thread of the block must call; those without a head pass heads = 0. */
template <rw_dtype D, int VEC>
__device__ static inline rwi_rms_factor head_factor(const rw_rope_append_params &p, const void *in,
                                                    bool live) {
    double sum = 0.0;
    const int64_t columns = live ? p.rope.head_dim : 0;
#pragma unroll 1
    for (int64_t i = threadIdx.x * VEC; i < columns; i += blockDim.x * VEC) {
        rwi_packed<D, VEC> x[1];
        rwi_load_packed(in, i, x[0]);
        sum += rwi_squares(x, 1);
    }
    return factor_of_sum(p, sum);
}

/* The norm of a head. Its weights are in shared memory; they are set only if it is present. */
struct append_norm {
    bool present;
    const float *weights;
};

/* The columns outside the rotary window. */
template <rw_dtype D, int VEC>
__device__ static inline void finish_rest(const rw_rope_append_params &p, append_norm norm,
                                          rwi_rms_factor factor, const void *in, void *out) {
    const int64_t turned = 2 * p.rope.num_frequencies;
#pragma unroll 1
    for (int64_t n = threadIdx.x; n < p.rope.head_dim - turned; n += blockDim.x) {
        const int64_t i = n < p.rope.start ? n : n + turned;
        if (norm.present)
            rwi_store(D, out, i,
                      rope_append_norm(&p, D, rwi_load(D, in, i), factor,
                                       norm.weights[place_of<VEC, 4>((int)i, p.rope.head_dim)]));
        else if (in != out)
            rwi_copy_element<D>(in, out, i);
    }
}

/* Pairs from `i` on, counted from the start of the rotary window: norm and rotation. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static __forceinline__ void
turn_pairs(const rw_rope_append_params &p, const rwi_cos_sin *turns, append_norm norm,
           rwi_rms_factor factor, int64_t i, float (&x1)[PAIRS], float (&x2)[PAIRS]) {
    const int n = p.rope.num_frequencies;
    float numbers[2 * PAIRS];
    rwi_cos_sin my_turns[PAIRS];
    load_placed((const float *)turns, 2 * (int)i, 2 * n, numbers);
#pragma unroll
    for (int k = 0; k < PAIRS; k++)
        my_turns[k] = {numbers[2 * k], numbers[2 * k + 1]};
    if (norm.present) {
        constexpr int VEC = INTERLEAVED && PAIRS > 1 ? 2 * PAIRS : PAIRS;
        const int column = p.rope.start + (INTERLEAVED ? 2 : 1) * (int)i;
        float w1[VEC], w2[VEC];
        load_placed(norm.weights, column, p.rope.head_dim, w1);
        if (VEC == PAIRS)
            load_placed(norm.weights, column + (INTERLEAVED ? 1 : n), p.rope.head_dim, w2);
#pragma unroll
        for (int k = 0; k < PAIRS; k++) {
            x1[k] = rope_append_norm(&p, D, x1[k], factor, VEC == PAIRS ? w1[k] : w1[2 * k]);
            x2[k] = rope_append_norm(&p, D, x2[k], factor, VEC == PAIRS ? w2[k] : w1[2 * k + 1]);
        }
    }
    rwi_rope_rotate_pairs(x1, x2, my_turns);
}

template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static inline void turn_head(const rw_rope_append_params &p, const rwi_cos_sin *turns,
                                        append_norm norm, rwi_rms_factor factor, const void *in,
                                        void *out) {
    const int64_t n = p.rope.num_frequencies;
    const void *x = rwi_element(D, in, p.rope.start);
    void *y = rwi_element(D, out, p.rope.start);
#pragma unroll 1
    for (int64_t i = threadIdx.x * PAIRS; i < n; i += blockDim.x * PAIRS) {
        float x1[PAIRS], x2[PAIRS];
        rwi_rope_load_pairs<D, PAIRS, INTERLEAVED>(x, i, n, x1, x2);
        turn_pairs<D, PAIRS, INTERLEAVED>(p, turns, norm, factor, i, x1, x2);
        rwi_rope_store_pairs<D, PAIRS, INTERLEAVED>(y, i, n, x1, x2);
    }
}

/* Rotates all heads of q or k; every thread of the block takes part in all rounds. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static inline void turn_heads(const rw_rope_append_params &p, const rwi_cos_sin *turns,
                                         append_norm norm, const void *in_data, void *out_data,
                                         const token_heads &heads) {
    constexpr int VEC = PAIRS == 1 ? 1 : rwi_vector_length<D>;
#pragma unroll 1
    for (int64_t first = 0; first < heads.heads; first += blockDim.y) {
        const int64_t head = first + threadIdx.y;
        const bool live = head < heads.heads;
        const void *in = rwi_element(D, rwi_global(in_data), heads.in + head * heads.in_stride);
        void *out = rwi_element(D, rwi_global(out_data), heads.out + head * heads.out_stride);
        rwi_rms_factor factor = {1.0f, 1.0f};
        if (norm.present)
            factor = head_factor<D, VEC>(p, in, live);
        if (!live)
            continue;
        turn_head<D, PAIRS, INTERLEAVED>(p, turns, norm, factor, in, out);
        finish_rest<D, VEC>(p, norm, factor, in, out);
    }
}

/* Copies the weights of q (which = 0) or k to shared memory. */
template <int VEC>
__device__ static inline void stage_weights(const rw_rope_append_params &p, int which,
                                            float *shared) {
    const void *weight = which ? p.norm_weight[1] : p.norm_weight[0];
    const rw_dtype dtype = which ? p.norm_dtype[1] : p.norm_dtype[0];
    if (!weight)
        return;
#pragma unroll 1
    for (int i = thread_of_block(); i < p.rope.head_dim; i += threads_of_block())
        shared[place_of<VEC, 4>(i, p.rope.head_dim)] = rwi_load(dtype, rwi_global(weight), i);
}

__device__ static inline void find_token(const rw_rope_append_params &p, int64_t number, int64_t b,
                                         int64_t s, const rwi_fault_sink &sink,
                                         append_token *token) {
    int64_t ids[RWI_ROPE_MAX_AXES];
    rwi_bad_id bad;
    token->b = b;
    token->s = s;
    rope_find_ids(&p.rope, b, s, ids);
    token->found = rope_append_find(&p, b, s, ids, &token->place, &bad);
    if (!token->found)
        rwi_fault_raise(sink, number, bad);
}

/* ---- whole heads: the rotary window is the head, of which each thread holds PAIRS pairs ---- */

/* A row of a token, which its threads read once, before anything else is known. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED> struct append_row {
    append_side side;
    int head;
    bool live; /* the row exists, and this thread has pairs of it */
    rwi_rope_packed<D, PAIRS, INTERLEAVED> pairs;
};

/* Reads row `row` of token (b, s). */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static __forceinline__ void load_row(const rw_rope_append_params &p, int64_t b,
                                                int64_t s, int64_t row,
                                                append_row<D, PAIRS, INTERLEAVED> *mine) {
    const rwi_rope_heads &q = p.rope.heads[0];
    const int64_t i = threadIdx.x * PAIRS, n = p.rope.num_frequencies;
    mine->side = row < q.heads ? SIDE_Q : row < q.heads + p.kv.heads ? SIDE_K : SIDE_V;
    const bool is_q = mine->side == SIDE_Q, is_v = mine->side == SIDE_V;
    mine->head = (int)(row - (is_q ? 0 : q.heads) - (is_v ? p.kv.heads : 0));
    mine->live = row < q.heads + 2 * p.kv.heads && i < n;
    const rwi_kv_side &kv = p.kv.sides[is_v ? 1 : 0];
    const int64_t at = b * (is_q ? q.in_stride[0] : kv.in_stride[0]) +
                       s * (is_q ? q.in_stride[1] : kv.in_stride[1]) +
                       mine->head * (is_q ? q.in_stride[2] : kv.in_stride[2]);
    mine->pairs = {};
    if (mine->live)
        mine->pairs.load(rwi_element(D, rwi_global(is_q ? q.in : kv.in), at), i, n);
}

/* Rotates and stores it. Every thread of the block must call it. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static __forceinline__ void
finish_row(const rw_rope_append_params &p, const append_token &token, const rwi_cos_sin *turns,
           append_norm norm, append_row<D, PAIRS, INTERLEAVED> *mine) {
    const int64_t i = threadIdx.x * PAIRS, n = p.rope.num_frequencies;
    const bool is_q = mine->side == SIDE_Q;
    norm.present = is_q ? p.norm_weight[0] : p.norm_weight[1];
    norm.weights += is_q ? 0 : p.rope.head_dim;
    rwi_rms_factor factor = {1.0f, 1.0f};
    if (p.norm_weight[0] || p.norm_weight[1])
        factor = factor_of_sum(p, rwi_squares(mine->pairs.vectors, INTERLEAVED ? 1 : 2));
    if (!mine->live)
        return;
    if (mine->side != SIDE_V) {
        float x1[PAIRS], x2[PAIRS];
        mine->pairs.unpack(x1, x2);
        turn_pairs<D, PAIRS, INTERLEAVED>(p, turns, norm, factor, i, x1, x2);
        mine->pairs.pack(x1, x2);
    }
    const token_heads heads = find_side(p, token, mine->side);
    void *out = is_q ? p.rope.heads[0].out : p.kv.sides[mine->side == SIDE_K ? 0 : 1].cache;
    mine->pairs.store(rwi_element(D, rwi_global(out), heads.out + mine->head * heads.out_stride), i,
                      n);
}

/* ---- the kernel ---- */

/* Threads of a block, at most: where tokens are many, small blocks, more of which run at a time; where
 * they are few, one thread for each row's pairs. */
#define APPEND_BLOCK 128
#define APPEND_FEW_BLOCK 512

/* A block computes a token; its first axis is a head's. WHOLE: as above. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED, bool WHOLE>
static __global__ void __launch_bounds__(APPEND_FEW_BLOCK, 2)
    rope_append_kernel(rw_rope_append_params launch, rwi_fault_sink sink) {
    rwi_begin_kernel();
    constexpr int VEC = PAIRS == 1 ? 1 : rwi_vector_length<D>;
    HIP_DYNAMIC_SHARED(uint4, shared)
    __shared__ append_token token;
    __shared__ rw_rope_append_params kept;
    const int64_t number = rwi_block_row();
    if (number >= launch.rope.batch * launch.rope.seq)
        return;
    /* On AMD the parameters would need too many scalar registers: read from shared memory. */
    if (!RWI_PARAMETERS_NEAR) {
        if (thread_of_block() == 0)
            kept = launch;
        __syncthreads();
    }
    const rw_rope_append_params &p = RWI_PARAMETERS_NEAR ? launch : kept;
    int64_t b, s, row = threadIdx.y;
    rwi_split_index(number, p.rope.seq, &b, &s);
    append_row<D, PAIRS, INTERLEAVED> mine;
    if (WHOLE)
        load_row<D, PAIRS, INTERLEAVED>(p, b, s, row, &mine);
    if (thread_of_block() == threads_of_block() - 1)
        find_token(p, number, b, s, sink, &token);
    rwi_cos_sin *turns = (rwi_cos_sin *)shared;
    float *weights = (float *)(turns + p.rope.num_frequencies);
    compute_turns<PAIRS>(p.rope, b, s, turns);
    stage_weights<VEC>(p, 0, weights);
    stage_weights<VEC>(p, 1, weights + p.rope.head_dim);
    __syncthreads();
    if (!token.found)
        return;
    if (WHOLE) {
        const int64_t rows = p.rope.heads[0].heads + 2 * p.kv.heads;
#pragma unroll 1
        for (;;) {
            finish_row<D, PAIRS, INTERLEAVED>(p, token, turns, {false, weights}, &mine);
            row += blockDim.y;
            if (row - threadIdx.y >= rows)
                return;
            load_row<D, PAIRS, INTERLEAVED>(p, b, s, row, &mine);
        }
    }
#pragma unroll 1
    for (int n = SIDE_Q; n <= SIDE_V; n++) {
        const append_side side = (append_side)rwi_computed_here(n);
        const token_heads heads = find_side(p, token, side);
        const rwi_kv_side &kv = p.kv.sides[side == SIDE_V ? 1 : 0];
        if (side == SIDE_V) {
            copy_heads<D, VEC>(kv.in, kv.cache, kv.width, heads);
            return;
        }
        const bool is_q = side == SIDE_Q;
        const append_norm norm = {(is_q ? p.norm_weight[0] : p.norm_weight[1]) != nullptr,
                                  weights + (is_q ? 0 : p.rope.head_dim)};
        turn_heads<D, PAIRS, INTERLEAVED>(p, turns, norm, is_q ? p.rope.heads[0].in : kv.in,
                                          is_q ? p.rope.heads[0].out : kv.cache, heads);
    }
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
    const int64_t n = p.rope.num_frequencies;
    const uint32_t x = threads_of_head(rwi_ceil_div(n, PAIRS));
    const int64_t rows = rwi_max(1, p.rope.heads[0].heads + 2 * p.kv.heads);
    const int64_t tokens = rope_append_work(&p).items;
    const uint32_t most = tokens > device->parts ? APPEND_BLOCK : APPEND_FEW_BLOCK;
    const uint32_t y = (uint32_t)rwi_min(rows, most / x);
    rwi_launch_shape shape = rwi_launch_rows(RWI_OP_rope_append, tokens, dim3(x, y));
    const bool normed = p.norm_weight[0] || p.norm_weight[1];
    shape.shared_bytes = (size_t)n * sizeof(rwi_cos_sin) +
                         (normed ? 2 * (size_t)p.rope.head_dim * sizeof(float) : 0);
    if constexpr (PAIRS > 1)
        if (2 * n == p.rope.head_dim && n <= (int64_t)x * PAIRS &&
            p.kv.sides[1].width == p.rope.head_dim)
            return rwi_launch(device, shape, rope_append_kernel<D, PAIRS, INTERLEAVED, true>, p);
    return rwi_launch(device, shape, rope_append_kernel<D, PAIRS, INTERLEAVED, false>, p);
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
