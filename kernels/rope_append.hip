/* rope_append on a GPU; the twin of rope_append_cpu.c. One block per token: threads along x share a head,
 * threads along y take different heads. */
#include "gpu/dispatch.h"
#include "gpu/faults.h"
#include "gpu/kv_heads.h"
#include "gpu/launch.h"
#include "gpu/registers.h"
#include "gpu/rope_pairs.h"
#include "gpu/squares.h"

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
    rwi_kv_token kind;
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

__device__ static inline rwi_kv_heads find_side(const rw_rope_append_params &p,
                                                const append_token &token, append_side side) {
    if (side != SIDE_Q)
        return rwi_kv_find_heads(p.kv.sides[side == SIDE_K ? 0 : 1], token.b, token.s, token.place);
    const rwi_rope_heads &q = p.rope.heads[0];
    return {token.b * q.in_stride[0] + token.s * q.in_stride[1],
            token.b * q.out_stride[0] + token.s * q.out_stride[1], q.in_stride[2], q.out_stride[2],
            q.heads};
}

/* Where a head is written. Caches of 8 bits are written by kernels with single pairs only. */
struct append_target {
    void *out;
    rw_dtype dtype; /* D, or of 8 bits */
    float scale;    /* of 8 bits */
};

template <rw_dtype D, int VEC>
__device__ static __forceinline__ append_target find_target(const rw_rope_append_params &p,
                                                            append_side side, void *data,
                                                            int64_t head,
                                                            const rwi_kv_heads &heads) {
    const int64_t at = heads.out + head * heads.out_stride;
    if (VEC > 1 || side == SIDE_Q || p.kv.cache_dtype == D)
        return {rwi_element(D, rwi_global(data), at), D, 1.0f};
    return {(uint8_t *)rwi_global(data) + at, p.kv.cache_dtype,
            rwi_kv_scale(&p.kv.sides[side == SIDE_K ? 0 : 1], head)};
}

/* The norm of heads of `width` columns. Its weights, with their offset, are in shared memory; they are
 * set only if it is present. */
struct append_norm {
    bool present;
    int width;
    double per_column;
    const float *weights;
};

/* `weights`: those of q, k and v, one after another. */
__device__ static __forceinline__ append_norm find_norm(const rw_rope_append_params &p,
                                                        append_side side, const float *weights) {
    const bool is_q = side == SIDE_Q, is_v = side == SIDE_V;
    return {is_q   ? p.norms[0].present
            : is_v ? p.norms[2].present
                   : p.norms[1].present,
            is_v ? (int)p.kv.sides[1].width : p.rope.head_dim,
            is_v ? p.norms[2].per_column : p.norms[0].per_column,
            weights + (is_q   ? 0
                       : is_v ? 2
                              : 1) *
                          p.rope.head_dim};
}

/* The factor of a head from the sums of squares of the threads that share it. Every thread of the
 * block must call it. */
__device__ static inline rwi_rms_factor factor_of_sum(const rw_rope_append_params &p,
                                                      const append_norm &norm, double sum) {
    for (int distance = blockDim.x / 2; distance > 0; distance /= 2)
        sum += __shfl_xor(sum, distance, blockDim.x);
    return rope_append_factor(&p, norm.per_column, sum);
}

/* 1 / rms of a head. Every thread of the block must call; those without a head pass heads = 0. */
template <rw_dtype D, int VEC>
__device__ static inline rwi_rms_factor
head_factor(const rw_rope_append_params &p, const append_norm &norm, const void *in, bool live) {
    double sum = 0.0;
    const int64_t columns = live ? norm.width : 0;
#pragma unroll 1
    for (int64_t i = threadIdx.x * VEC; i < columns; i += blockDim.x * VEC) {
        rwi_packed<D, VEC> x[1];
        rwi_load_packed(in, i, x[0]);
        sum += rwi_squares(x, 1);
    }
    return factor_of_sum(p, norm, sum);
}

/* Columns i .. i + VEC - 1, without rotation. */
template <rw_dtype D, int VEC>
__device__ static inline void finish_vector(const rw_rope_append_params &p, const append_norm &norm,
                                            rwi_rms_factor factor, const void *in,
                                            const append_target &to, int i) {
    float x[VEC], w[VEC];
    const bool quantized = VEC == 1 && to.dtype != D;
    if (!norm.present && !quantized) {
        rwi_copy_vector<D, VEC>(in, to.out, i);
        return;
    }
    rwi_load_vector<D>(in, i, x);
    if (norm.present) {
        load_placed(norm.weights, i, norm.width, w);
#pragma unroll
        for (int n = 0; n < VEC; n++)
            x[n] = rope_append_norm(&p, D, x[n], factor, w[n]);
    }
    if (quantized)
        rwi_store(to.dtype, to.out, i, x[0] / to.scale);
    else
        rwi_store_vector<D>(to.out, i, x);
}

/* The columns outside the rotary window. */
template <rw_dtype D, int VEC>
__device__ static inline void finish_rest(const rw_rope_append_params &p, const append_norm &norm,
                                          rwi_rms_factor factor, const void *in,
                                          const append_target &to) {
    const int turned = 2 * p.rope.num_frequencies;
    if (!norm.present && in == to.out)
        return;
#pragma unroll 1
    for (int n = threadIdx.x * VEC; n < p.rope.head_dim - turned; n += blockDim.x * VEC)
        finish_vector<D, VEC>(p, norm, factor, in, to, n < p.rope.start ? n : n + turned);
}

/* Norm of the pairs from `i` on, counted from the start of the rotary window. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static __forceinline__ void
norm_pairs(const rw_rope_append_params &p, const append_norm &norm, rwi_rms_factor factor,
           int64_t i, float (&x1)[PAIRS], float (&x2)[PAIRS]) {
    constexpr int VEC = INTERLEAVED && PAIRS > 1 ? 2 * PAIRS : PAIRS;
    const int n = p.rope.num_frequencies;
    const int column = p.rope.start + (INTERLEAVED ? 2 : 1) * (int)i;
    float w1[VEC], w2[VEC];
    if (!norm.present)
        return;
    load_placed(norm.weights, column, norm.width, w1);
    if (VEC == PAIRS)
        load_placed(norm.weights, column + (INTERLEAVED ? 1 : n), norm.width, w2);
    if (factor.first != 1.0f) {
#pragma unroll
        for (int k = 0; k < PAIRS; k++)
            x1[k] *= factor.first, x2[k] *= factor.first;
        factor.first = 1.0f;
    }
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        x1[k] = rope_append_norm(&p, D, x1[k], factor, VEC == PAIRS ? w1[k] : w1[2 * k]);
        x2[k] = rope_append_norm(&p, D, x2[k], factor, VEC == PAIRS ? w2[k] : w1[2 * k + 1]);
    }
}

/* Rotates these pairs. */
template <int PAIRS>
__device__ static __forceinline__ void turn_pairs(const rw_rope_append_params &p,
                                                  const rwi_cos_sin *turns, int64_t i,
                                                  float (&x1)[PAIRS], float (&x2)[PAIRS]) {
    float numbers[2 * PAIRS];
    rwi_cos_sin my_turns[PAIRS];
    load_placed((const float *)turns, 2 * (int)i, 2 * p.rope.num_frequencies, numbers);
#pragma unroll
    for (int k = 0; k < PAIRS; k++)
        my_turns[k] = {numbers[2 * k], numbers[2 * k + 1]};
    rwi_rope_rotate_pairs(x1, x2, my_turns);
}

template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static inline void turn_head(const rw_rope_append_params &p, const rwi_cos_sin *turns,
                                        const append_norm &norm, rwi_rms_factor factor,
                                        const void *in, const append_target &to) {
    const int64_t n = p.rope.num_frequencies;
    const void *x = rwi_element(D, in, p.rope.start);
    const bool quantized = PAIRS == 1 && to.dtype != D;
#pragma unroll 1
    for (int64_t i = threadIdx.x * PAIRS; i < n; i += blockDim.x * PAIRS) {
        float x1[PAIRS], x2[PAIRS];
        rwi_rope_load_pairs<D, PAIRS, INTERLEAVED>(x, i, n, x1, x2);
        norm_pairs<D, PAIRS, INTERLEAVED>(p, norm, factor, i, x1, x2);
        turn_pairs(p, turns, i, x1, x2);
        if (quantized) {
            const int64_t column = p.rope.start + (INTERLEAVED ? 2 : 1) * i;
            rwi_store(to.dtype, to.out, column, x1[0] / to.scale);
            rwi_store(to.dtype, to.out, column + (INTERLEAVED ? 1 : n), x2[0] / to.scale);
        } else {
            rwi_rope_store_pairs<D, PAIRS, INTERLEAVED>(rwi_element(D, to.out, p.rope.start), i, n,
                                                        x1, x2);
        }
    }
}

/* Rotates all heads of q or k; every thread of the block takes part in all rounds. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static inline void turn_heads(const rw_rope_append_params &p, const rwi_cos_sin *turns,
                                         const append_norm &norm, append_side side,
                                         const rwi_kv_heads &heads) {
    constexpr int VEC = PAIRS == 1 ? 1 : rwi_vector_length<D>;
    const bool is_q = side == SIDE_Q;
    const void *in_data = is_q ? p.rope.heads[0].in : p.kv.sides[0].in;
    void *out_data = is_q ? p.rope.heads[0].out : p.kv.sides[0].cache;
#pragma unroll 1
    for (int64_t first = 0; first < heads.heads; first += blockDim.y) {
        const int64_t head = first + threadIdx.y;
        const bool live = head < heads.heads;
        const void *in = rwi_element(D, rwi_global(in_data), heads.in + head * heads.in_stride);
        rwi_rms_factor factor = {1.0f, 1.0f};
        if (norm.present)
            factor = head_factor<D, VEC>(p, norm, in, live);
        if (!live)
            continue;
        const append_target to = find_target<D, VEC>(p, side, out_data, head, heads);
        turn_head<D, PAIRS, INTERLEAVED>(p, turns, norm, factor, in, to);
        finish_rest<D, VEC>(p, norm, factor, in, to);
    }
}

/* Normalises all heads of v. */
template <rw_dtype D, int VEC>
__device__ static inline void norm_heads(const rw_rope_append_params &p, const append_norm &norm,
                                         const rwi_kv_side &v, const rwi_kv_heads &heads) {
#pragma unroll 1
    for (int64_t first = 0; first < heads.heads; first += blockDim.y) {
        const int64_t head = first + threadIdx.y;
        const bool live = head < heads.heads;
        const void *in = rwi_element(D, rwi_global(v.in), heads.in + head * heads.in_stride);
        const rwi_rms_factor factor = head_factor<D, VEC>(p, norm, in, live);
        if (!live)
            continue;
        const append_target to = find_target<D, VEC>(p, SIDE_V, v.cache, head, heads);
#pragma unroll 1
        for (int i = threadIdx.x * VEC; i < norm.width; i += blockDim.x * VEC)
            finish_vector<D, VEC>(p, norm, factor, in, to, i);
    }
}

/* Copies the weights of heads of `width` columns to shared memory. */
template <int VEC>
__device__ static inline void stage_weights(const rw_rope_append_params &p,
                                            const rwi_head_norm &norm, int width, float *shared) {
    if (!norm.present)
        return;
#pragma unroll 1
    for (int i = thread_of_block(); i < width; i += threads_of_block())
        shared[place_of<VEC, 4>(i, width)] = rope_append_weight(&p, &norm, i);
}

__device__ static inline void find_token(const rw_rope_append_params &p, int64_t number, int64_t b,
                                         int64_t s, const rwi_fault_sink &sink,
                                         append_token *token) {
    int64_t ids[RWI_ROPE_MAX_AXES];
    rwi_bad_id bad;
    token->b = b;
    token->s = s;
    rope_find_ids(&p.rope, b, s, ids);
    token->kind = rope_append_find(&p, b, s, ids, &token->place, &bad);
    if (token->kind == RWI_KV_INVALID)
        rwi_fault_raise(sink, number, bad);
}

/* ---- whole heads: the rotary window is the head, of which each thread holds PAIRS pairs ---- */

/* Where the rows of a side lie: row r, counted over all sides, at in + r * in_step, in bytes. */
struct append_rows {
    const char *in;
    char *out;
    int64_t in_step;
    int64_t out_step;
};

/* The first row of each side, and the number of rows. */
struct append_firsts {
    int k;
    int v;
    int count;
};

__device__ static inline append_firsts find_firsts(const rw_rope_append_params &p) {
    const int k = p.rope.heads[0].heads, v = k + (int)p.kv.sides[0].heads;
    return {k, v, v + (int)p.kv.sides[1].heads};
}

__device__ static __forceinline__ append_side side_of(const append_firsts &firsts, int row) {
    return row < firsts.k ? SIDE_Q : row < firsts.v ? SIDE_K : SIDE_V;
}

/* The rows of a side. `out` is defined once the token's place is known. */
template <rw_dtype D>
__device__ static inline append_rows find_side_rows(const rw_rope_append_params &p,
                                                    const append_token &token, append_side side) {
    const append_firsts firsts = find_firsts(p);
    const int first = side == SIDE_Q ? 0 : side == SIDE_K ? firsts.k : firsts.v;
    const rwi_kv_side &kv = p.kv.sides[side == SIDE_V ? 1 : 0];
    const void *in = side == SIDE_Q ? p.rope.heads[0].in : kv.in;
    void *out = side == SIDE_Q ? p.rope.heads[0].out : kv.cache;
    const rwi_kv_heads heads = find_side(p, token, side);
    const int64_t size = (int64_t)rwi_dtype_size(D);
    return {(const char *)in + (heads.in - first * heads.in_stride) * size,
            (char *)out + (heads.out - first * heads.out_stride) * size, heads.in_stride * size,
            heads.out_stride * size};
}

/* A row of a token, which its threads read at once. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED> struct append_row {
    append_side side;
    bool live; /* the row exists, and this thread has pairs of it */
    rwi_rope_packed<D, PAIRS, INTERLEAVED> pairs;
};

/* Begins to read row `row`, of those that find(side) returns. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED, typename Find>
__device__ static __forceinline__ append_row<D, PAIRS, INTERLEAVED>
load_row(const append_firsts &firsts, int row, int n, const Find &find) {
    const int i = (int)threadIdx.x * PAIRS;
    append_row<D, PAIRS, INTERLEAVED> mine;
    mine.side = side_of(firsts, row);
    mine.live = row < firsts.count && i < n;
    mine.pairs = {};
    if (mine.live) {
        const append_rows rows = find(mine.side);
        mine.pairs.load(rwi_global(rows.in + row * rows.in_step), i, n);
    }
    return mine;
}

/* 1 / rms of a row. Every thread of the block must call it. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static __forceinline__ rwi_rms_factor
row_factor(const rw_rope_append_params &p, const append_norm &norm,
           const append_row<D, PAIRS, INTERLEAVED> &mine) {
    constexpr int COUNT = INTERLEAVED ? 1 : 2;
    float sum = rwi_scaled_squares(mine.pairs.vectors, COUNT, 1.0f);
    for (int distance = blockDim.x / 2; distance > 0; distance /= 2)
        sum += __shfl_xor(sum, distance, blockDim.x);
    if (__all(rwi_squares_fit(sum)))
        return rope_append_factor(&p, norm.per_column, (double)sum);
    return factor_of_sum(p, norm, rwi_squares(mine.pairs.vectors, COUNT));
}

/* Rotates and stores it. Every thread of the block must call it. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
__device__ static __forceinline__ void
finish_row(const rw_rope_append_params &p, const append_rows *sides, bool written,
           const rwi_cos_sin *turns, const float *weights, int row,
           append_row<D, PAIRS, INTERLEAVED> *mine) {
    const int i = (int)threadIdx.x * PAIRS, n = p.rope.num_frequencies;
    const append_norm norm = find_norm(p, mine->side, weights);
    rwi_rms_factor factor = {1.0f, 1.0f};
    if (p.norms[0].present || p.norms[1].present || p.norms[2].present)
        factor = row_factor<D, PAIRS, INTERLEAVED>(p, norm, *mine);
    if (!mine->live || (mine->side != SIDE_Q && !written))
        return;
    if (mine->side != SIDE_V || norm.present) {
        float x1[PAIRS], x2[PAIRS];
        mine->pairs.unpack(x1, x2);
        norm_pairs<D, PAIRS, INTERLEAVED>(p, norm, factor, i, x1, x2);
        if (mine->side != SIDE_V)
            turn_pairs(p, turns, i, x1, x2);
        mine->pairs.pack(x1, x2);
    }
    const append_rows &rows = sides[mine->side];
    mine->pairs.store(rwi_global(rows.out + row * rows.out_step), i, n);
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
    __shared__ append_rows sides[WHOLE ? 3 : 1];
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
    int64_t b, s;
    rwi_split_index(number, p.rope.seq, &b, &s);
    append_row<D, PAIRS, INTERLEAVED> mine;
    const int n = p.rope.num_frequencies;
    if (WHOLE)
        mine = load_row<D, PAIRS, INTERLEAVED>(
            find_firsts(p), (int)threadIdx.y, n, [&](append_side side) {
                const append_token unplaced = {RWI_KV_WRITTEN, b, s, {}};
                return find_side_rows<D>(p, unplaced, side);
            });
    if (thread_of_block() == threads_of_block() - 1) {
        find_token(p, number, b, s, sink, &token);
        if (WHOLE)
            for (int side = SIDE_Q; side <= SIDE_V; side++)
                sides[side] = find_side_rows<D>(p, token, (append_side)side);
    }
    rwi_cos_sin *turns = (rwi_cos_sin *)shared;
    float *weights = (float *)(turns + n);
    compute_turns<PAIRS>(p.rope, b, s, turns);
    stage_weights<VEC>(p, p.norms[0], p.rope.head_dim, weights);
    stage_weights<VEC>(p, p.norms[1], p.rope.head_dim, weights + p.rope.head_dim);
    stage_weights<VEC>(p, p.norms[2], (int)p.kv.sides[1].width, weights + 2 * p.rope.head_dim);
    __syncthreads();
    if (token.kind == RWI_KV_INVALID || token.kind == RWI_KV_PADDING)
        return;
    if constexpr (WHOLE) {
        const append_firsts firsts = find_firsts(p);
#pragma unroll 1
        for (int row = (int)threadIdx.y;;) {
            finish_row<D, PAIRS, INTERLEAVED>(p, sides, token.kind == RWI_KV_WRITTEN, turns,
                                              weights, row, &mine);
            row += (int)blockDim.y;
            if (row - (int)threadIdx.y >= firsts.count)
                return;
            mine = load_row<D, PAIRS, INTERLEAVED>(firsts, row, n,
                                                   [&](append_side side) { return sides[side]; });
        }
    } else {
#pragma unroll 1
        for (int at = SIDE_Q; at <= SIDE_V; at++) {
            const append_side side = (append_side)rwi_computed_here(at);
            if (side != SIDE_Q && token.kind != RWI_KV_WRITTEN)
                return;
            const rwi_kv_heads heads = find_side(p, token, side);
            const rwi_kv_side &v = p.kv.sides[1];
            const append_norm norm = find_norm(p, side, weights);
            if (side != SIDE_V)
                turn_heads<D, PAIRS, INTERLEAVED>(p, turns, norm, side, heads);
            else if (norm.present)
                norm_heads<D, VEC>(p, norm, v, heads);
            else if (VEC == 1 && p.kv.cache_dtype != D)
                rwi_kv_quantize_heads<D, 1>(v, p.kv.cache_dtype, heads);
            else
                rwi_kv_copy_heads<D, VEC>(v, heads);
        }
    }
}

/* Whether all heads, and their rotary windows, can be read and written in vectors. */
static bool has_vectors(const rw_rope_append_params &p) {
    if (p.kv.cache_dtype != p.kv.dtype)
        return false;
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
           rwi_kv_side_has_vectors(p.rope.dtype, p.kv.sides[1]);
}

template <rw_dtype D, int PAIRS, bool INTERLEAVED>
static rw_status launch_rope_append(rwi_device *device, const rw_rope_append_params &p) {
    constexpr int VEC = PAIRS == 1 ? 1 : rwi_vector_length<D>;
    const rwi_kv_side &v = p.kv.sides[1];
    const int64_t n = p.rope.num_frequencies, rest = p.rope.head_dim - 2 * n;
    const uint32_t x =
        rwi_kv_head_threads(rwi_max(rwi_ceil_div(n, PAIRS), rwi_ceil_div(rest, VEC)));
    const int64_t rows = rwi_max(1, p.rope.heads[0].heads + p.kv.sides[0].heads + v.heads);
    const int64_t tokens = rope_append_work(&p).items;
    const uint32_t most = tokens > device->parts ? APPEND_BLOCK : APPEND_FEW_BLOCK;
    const uint32_t y = (uint32_t)rwi_min(rows, most / x);
    rwi_launch_shape shape = rwi_launch_rows(RWI_OP_rope_append, tokens, dim3(x, y));
    const int64_t weights = p.norms[2].present ? 2 * (int64_t)p.rope.head_dim + v.width
                            : p.norms[0].present || p.norms[1].present
                                ? 2 * (int64_t)p.rope.head_dim
                                : 0;
    shape.shared_bytes = (size_t)n * sizeof(rwi_cos_sin) + (size_t)weights * sizeof(float);
    if constexpr (PAIRS > 1)
        if (rest == 0 && n <= (int64_t)x * PAIRS && (v.heads == 0 || v.width == p.rope.head_dim))
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
