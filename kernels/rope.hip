/* Rotary position embedding on a GPU; the twin of rope_cpu.c. One block per token: a thread holds
 * the rotations of its pairs and rotates these pairs in several heads of q and k. */
#include "gpu/dispatch.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/rope_pairs.h"
#include "gpu/vectors.h"

/* The maximum number of threads along x, each with a vector of pairs. */
#define MAX_COLUMNS 64

/* Rows of which a thread reads its pairs at a time, where there are few tokens: then the latency of a
 * read counts. Where there are many, the memory is faster if each row is written before the next one
 * is read. */
#define ROWS 2
#define MANY_TOKENS 4096

/* The parameters of the operation, and the rows to read at a time. */
struct rope_launch {
    rw_rope_params op;
    int ahead;
};

/* The rotations (cos, sin) of frequencies [first, first + PAIRS). */
template <int PAIRS>
__device__ static inline void compute_turns(const rw_rope_params &p, const int64_t *ids,
                                            int64_t first, rwi_cos_sin (&turns)[PAIRS]) {
    constexpr int VEC = PAIRS % 4 == 0 ? 4 : 1;
    const int64_t n = p.num_frequencies;
    if (VEC == 1 || p.axis || p.from.rows) {
#pragma unroll
        for (int i = 0; i < PAIRS; i++)
            turns[i] = rope_turn(&p, rope_position(&p, ids, first + i), first + i);
        return;
    }
    const float *coarse = rwi_angles_coarse_row(&p.to, ids[0], n) + first;
    const float *fine = rwi_angles_fine_row(&p.to, ids[0], n) + first;
#pragma unroll
    for (int v = 0; v < PAIRS; v += VEC) {
        float cos_a[VEC], sin_a[VEC], cos_b[VEC], sin_b[VEC];
        rwi_load_vector<RW_F32>(coarse, v, cos_a);
        rwi_load_vector<RW_F32>(coarse, v + n, sin_a);
        rwi_load_vector<RW_F32>(fine, v, cos_b);
        rwi_load_vector<RW_F32>(fine, v + n, sin_b);
#pragma unroll
        for (int i = 0; i < VEC; i++)
            turns[v + i] =
                rope_scaled(&p, rwi_angle_add({cos_a[i], sin_a[i]}, {cos_b[i], sin_b[i]}));
    }
}

/* The heads of q or k of one token. */
struct token_heads {
    const void *in;
    void *out;
    int64_t in_stride;
    int64_t out_stride;
    int32_t heads;
};

template <rw_dtype D>
__device__ static inline token_heads find_heads(const rwi_rope_heads &heads, int64_t b, int64_t s) {
    return {rwi_element(D, heads.in, b * heads.in_stride[0] + s * heads.in_stride[1]),
            rwi_element(D, heads.out, b * heads.out_stride[0] + s * heads.out_stride[1]),
            heads.in_stride[2], heads.out_stride[2], heads.heads};
}

/* The rows of a token: the heads of q, then those of k. */
struct token_rows {
    token_heads q;
    token_heads k;

    __device__ __forceinline__ int64_t count() const {
        return (int64_t)q.heads + k.heads;
    }
    template <rw_dtype D> __device__ __forceinline__ const void *in(int64_t row) const {
        const bool is_q = row < q.heads;
        return rwi_element(D, is_q ? q.in : k.in,
                           is_q ? row * q.in_stride : (row - q.heads) * k.in_stride);
    }
    template <rw_dtype D> __device__ __forceinline__ void *out(int64_t row) const {
        const bool is_q = row < q.heads;
        return rwi_element(D, is_q ? q.out : k.out,
                           is_q ? row * q.out_stride : (row - q.heads) * k.out_stride);
    }
};

/* The columns of one head outside the rotary window. */
template <rw_dtype D>
__device__ static inline void copy_rest(const rw_rope_params &p, const void *in, void *out) {
    const int64_t end = p.start + 2 * p.num_frequencies;
    if (in == out)
        return;
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p.head_dim; i += blockDim.x)
        if (i < p.start || i >= end)
            rwi_copy_element<D>(in, out, i);
}

/* A block rotates the rows of a token. A thread holds the rotations of its pairs and begins to read
 * them in some rows at a time: the first ones before its token's ids and angles are known. */
template <rw_dtype D, int PAIRS, bool INTERLEAVED>
static __global__ void __launch_bounds__(RWI_BLOCK)
    rope_kernel(rope_launch launch, rwi_fault_sink sink) {
    rwi_start_next_kernel();
    const rw_rope_params &p = launch.op;
    const int64_t token = rwi_block_row();
    if (token >= p.batch * p.seq)
        return;
    int64_t b, s, ids[RWI_ROPE_MAX_AXES];
    rwi_bad_id bad;
    rwi_split_index(token, p.seq, &b, &s);
    const token_rows rows = {find_heads<D>(p.heads[0], b, s), find_heads<D>(p.heads[1], b, s)};
    const int n = p.num_frequencies;
    const int first = ((int)blockIdx.z * (int)blockDim.x + (int)threadIdx.x) * PAIRS;
    const bool has_pairs = first < n;
    rwi_rope_packed<D, PAIRS, INTERLEAVED> pairs[ROWS];
    rwi_cos_sin turns[PAIRS];
    const auto load = [&](int64_t row) {
#pragma unroll
        for (int i = 0; i < ROWS; i++, row += blockDim.y)
            if (i < launch.ahead && has_pairs && row < rows.count())
                pairs[i].load(rwi_element(D, rows.in<D>(row), p.start), first, n);
    };
    const auto finish = [&](int64_t row, rwi_rope_packed<D, PAIRS, INTERLEAVED> &mine) {
        float x1[PAIRS], x2[PAIRS];
        mine.unpack(x1, x2);
        rwi_rope_rotate_pairs(x1, x2, turns);
        mine.pack(x1, x2);
        mine.store(rwi_element(D, rows.out<D>(row), p.start), first, n);
    };
    int64_t row = threadIdx.y;
    rwi_await_previous_kernel();
    load(row);
    rope_find_ids(&p, b, s, ids);
    if (!rope_ids_valid(&p, ids, &bad)) {
        if (blockIdx.z == 0 && threadIdx.x == 0 && threadIdx.y == 0)
            rwi_fault_raise(sink, token, bad);
        return;
    }
    compute_turns(p, ids, has_pairs ? first : 0, turns);
    if (blockIdx.z == 0 && p.head_dim > 2 * n)
#pragma unroll 1
        for (int64_t at = row; at < rows.count(); at += blockDim.y)
            copy_rest<D>(p, rows.in<D>(at), rows.out<D>(at));
    if (!has_pairs)
        return;
#pragma unroll 1
    for (;;) {
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            if (i < launch.ahead && row + i * (int64_t)blockDim.y < rows.count())
                finish(row + i * (int64_t)blockDim.y, pairs[i]);
        row += launch.ahead * (int64_t)blockDim.y;
        if (row >= rows.count())
            return;
        load(row);
    }
}

/* Whether every head's window can be read in vectors. */
static bool has_vectors(const rw_rope_params &p) {
    for (const rwi_rope_heads &heads : p.heads) {
        const bool vectors = rwi_rope_window_has_vectors(p, {heads.in, heads.in_stride, 3, 0}) &&
                             rwi_rope_window_has_vectors(p, {heads.out, heads.out_stride, 3, 0});
        if (heads.heads > 0 && !vectors)
            return false;
    }
    return true;
}

/* Threads along x share a head, threads along y take different heads: a number that divides them
 * into equal rounds. */
static rwi_launch_shape launch_shape(const rw_rope_params &p, int pairs) {
    const int64_t columns = rwi_ceil_div(p.num_frequencies, pairs);
    const int64_t x = rwi_min(columns, MAX_COLUMNS);
    const int64_t heads = rwi_ceil_div(rope_num_heads(&p), ROWS);
    const int64_t rounds = rwi_ceil_div(heads, RWI_BLOCK / x);
    const int64_t y = rwi_ceil_div(heads, rounds);
    rwi_launch_shape shape =
        rwi_launch_rows(RWI_OP_rope, rope_work(&p).items, dim3((uint32_t)x, (uint32_t)y));
    shape.grid.z = (uint32_t)rwi_ceil_div(columns, x);
    return shape;
}

template <rw_dtype D, int PAIRS, bool INTERLEAVED>
static rw_status launch_rope(rwi_device *device, const rw_rope_params &p) {
    const rope_launch launch = {p, rope_work(&p).items < MANY_TOKENS ? ROWS : 1};
    return rwi_launch(device, launch_shape(p, PAIRS), rope_kernel<D, PAIRS, INTERLEAVED>, launch);
}

extern "C" rw_status rwi_hip_rope(rwi_device *device, const rw_rope_params *p) {
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        constexpr int VEC = rwi_vector_length<D>;
        const bool vectors = has_vectors(*p);
        if (p->interleaved)
            return vectors ? launch_rope<D, VEC / 2, true>(device, *p)
                           : launch_rope<D, 1, true>(device, *p);
        return vectors ? launch_rope<D, VEC, false>(device, *p)
                       : launch_rope<D, 1, false>(device, *p);
    });
}
