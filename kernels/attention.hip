/* Attention on a GPU; the twin of attention_cpu.c. A block takes a tile of rows: queries of the
 * heads that share k and v. Threads are a square of 16 x 16; each has 4 rows, of the scores 4 keys,
 * of the output every 16th vector of 4 columns. */
#include "launch.h"

#include "attention_kernel.h"

#define ROWS RWI_ATTENTION_ROWS
#define KEYS RWI_ATTENTION_KEYS
#define SIDE 16  /* threads of a side of the square */
#define EACH 4   /* rows and keys of a thread */
#define DEPTH 16 /* columns of q and k, or keys of v, that lie in shared memory at a time */
#define PITCH (ROWS + 4)

static_assert(SIDE * SIDE == RWI_BLOCK && SIDE * EACH == ROWS && ROWS == KEYS, "a square");

/* Where a row lies, and what it sees. */
struct row_place {
    rwi_attention_row row;
    int64_t q;
};

template <int COLUMNS> struct shared_tiles {
    union {
        struct {
            float q[DEPTH][PITCH]; /* by columns */
            float k[DEPTH][PITCH];
        } factors;
        float v[DEPTH][COLUMNS];
    } slice;
    float weights[KEYS][PITCH]; /* by keys */
    row_place rows[ROWS];
    rw_attention_params p; /* what every thread keeps in mind would fill the scalar registers */
    rwi_attention_item item;
    rw_tile state; /* of the tile under way */
    int odd;       /* v has NaN or Inf in the slice under way */
};

/* Columns [d, d + DEPTH) of the first `rows` of 64 rows, which lie at offset(row); the others are
 * 0. */
template <rw_dtype D, typename Offset>
__device__ static inline void load_slice(const void *data, int d, int width, int rows,
                                         const Offset &offset, float (&slice)[DEPTH][PITCH]) {
    const int column = (int)threadIdx.x % DEPTH;
#pragma unroll
    for (int n = 0; n < ROWS * DEPTH / RWI_BLOCK; n++) {
        const int row = (int)threadIdx.x / DEPTH + n * (RWI_BLOCK / DEPTH);
        const bool inside = row < rows && d + column < width;
        slice[column][row] = inside ? rwi_load(D, data, offset(row) + d + column) : 0.0f;
    }
}

template <int COLUMNS>
__device__ static inline void find_rows(shared_tiles<COLUMNS> &t, const rwi_fault_sink &sink) {
    const rw_attention_params &p = t.p;
    const int r = (int)threadIdx.x;
    if (r >= t.item.rows)
        return;
    int64_t bad;
    row_place *place = &t.rows[r];
    rwi_attention_find_row(&p, t.item.b, t.item.kv_head, t.item.first + r, &place->row, &bad);
    place->q = rwi_attention_at(&p.q, t.item.b, &place->row);
    if (!place->row.sane)
        rwi_fault_raise(sink, t.item.b * p.rules.scores.seq_q + place->row.pattern.i, bad);
}

/* Products of this thread's rows and keys. */
template <rw_dtype D, int COLUMNS>
__device__ static inline void multiply_q_k(const void *q_data, const void *k_data,
                                           shared_tiles<COLUMNS> &t, int64_t j, int keys,
                                           float (&scores)[EACH][EACH]) {
    const rw_attention_params &p = t.p;
    const int row = (int)threadIdx.x / SIDE * EACH, key = (int)threadIdx.x % SIDE * EACH;
    const void *k =
        rwi_element(D, k_data, t.item.b * p.k.stride[0] + t.item.kv_head * p.k.stride[1]);
#pragma unroll 1
    for (int d = 0; d < p.head_dim; d += DEPTH) {
        load_slice<D>(
            q_data, d, p.head_dim, t.item.rows, [&](int r) { return t.rows[r].q; },
            t.slice.factors.q);
        load_slice<D>(
            k, d, p.head_dim, keys, [&](int r) { return (j + r) * p.k.stride[2]; },
            t.slice.factors.k);
        __syncthreads();
#pragma unroll
        for (int c = 0; c < DEPTH; c++)
#pragma unroll
            for (int m = 0; m < EACH; m++)
#pragma unroll
                for (int n = 0; n < EACH; n++)
                    scores[m][n] += t.slice.factors.q[c][row + m] * t.slice.factors.k[c][key + n];
        __syncthreads();
    }
}

/* Product to score, -inf where the row does not see the key. */
__device__ static inline float score_of(const rw_attention_params &p, const rwi_attention_row &row,
                                        bool all, bool cells, int64_t j, float product) {
    if (!all && !rwi_pattern_visible(&p.rules.pattern, &row.pattern, cells, (int32_t)j))
        return -INFINITY;
    return rwi_attention_score(&p, &row, product, j);
}

/* Over the threads that share rows. */
__device__ static inline float largest_of_row(float x) {
    for (int distance = SIDE / 2; distance > 0; distance /= 2) {
        const float other = __shfl_xor(x, distance, SIDE);
        x = other > x ? other : x;
    }
    return x;
}

__device__ static inline float sum_of_row(float x) {
    for (int distance = SIDE / 2; distance > 0; distance /= 2)
        x += __shfl_xor(x, distance, SIDE);
    return x;
}

/* What a thread holds of its rows. */
template <int VECTORS> struct row_sums {
    float largest[EACH];
    float sum[EACH];
    float out[EACH][VECTORS][4];
};

/* Products to weights, in shared memory; what was summed up before is brought to the new largest
 * score. */
template <int COLUMNS>
__device__ static inline void weigh(shared_tiles<COLUMNS> &t, int64_t j, int keys,
                                    float (&scores)[EACH][EACH], row_sums<COLUMNS / 64> &sums) {
    const int row = (int)threadIdx.x / SIDE * EACH, key = (int)threadIdx.x % SIDE * EACH;
    const rw_attention_params &p = t.p;
    const bool all = t.state == RW_TILE_ALL, cells = rwi_pattern_has_cells(&p.rules.pattern);
#pragma unroll
    for (int m = 0; m < EACH; m++) {
        float largest = sums.largest[m], sum = 0.0f;
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            const bool inside = row + m < t.item.rows && key + n < keys;
            scores[m][n] =
                inside ? score_of(p, t.rows[row + m].row, all, cells, j + key + n, scores[m][n])
                       : -INFINITY;
            largest = scores[m][n] > largest ? scores[m][n] : largest;
        }
        largest = largest_of_row(largest);
        const float base = rwi_softmax_base(largest);
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            const float weight = rwi_exp(scores[m][n] - base);
            t.weights[key + n][row + m] = weight;
            sum += weight;
        }
        const float kept = rwi_exp(sums.largest[m] - base);
        sums.sum[m] = sums.sum[m] * kept + sum_of_row(sum);
        sums.largest[m] = largest;
#pragma unroll
        for (int v = 0; v < COLUMNS / 64; v++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                sums.out[m][v][c] *= kept;
    }
}

/* The keys [from, from + DEPTH) of v, 0 behind its columns and keys. */
template <rw_dtype D, int COLUMNS>
__device__ static inline void load_v(const void *v_data, shared_tiles<COLUMNS> &t, int64_t j,
                                     int keys, int from) {
    const rw_attention_params &p = t.p;
    const void *v =
        rwi_element(D, v_data, t.item.b * p.v.stride[0] + t.item.kv_head * p.v.stride[1]);
    bool odd = false;
#pragma unroll 1
    for (int at = (int)threadIdx.x; at < DEPTH * COLUMNS; at += RWI_BLOCK) {
        const int key = from + at / COLUMNS, column = at % COLUMNS;
        const bool inside = key < keys && column < p.v_dim;
        const float x = inside ? rwi_load(D, v, (j + key) * p.v.stride[2] + column) : 0.0f;
        odd = odd || x * 0.0f != 0.0f; /* true of NaN and Inf alone */
        t.slice.v[at / COLUMNS][column] = x;
    }
    if (odd)
        t.odd = 1; /* whoever writes, writes this */
}

template <int COLUMNS>
__device__ static inline void multiply_slice(const shared_tiles<COLUMNS> &t, int from,
                                             row_sums<COLUMNS / 64> &sums) {
    const int row = (int)threadIdx.x / SIDE * EACH, column = (int)threadIdx.x % SIDE * 4;
    const bool odd = t.odd != 0;
#pragma unroll 4
    for (int key = 0; key < DEPTH; key++) {
        float weight[EACH];
#pragma unroll
        for (int m = 0; m < EACH; m++)
            weight[m] = t.weights[from + key][row + m];
#pragma unroll
        for (int v = 0; v < COLUMNS / 64; v++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const float x = t.slice.v[key][v * 64 + column + c];
#pragma unroll
                for (int m = 0; m < EACH; m++)
                    sums.out[m][v][c] += odd && weight[m] == 0.0f ? 0.0f : weight[m] * x;
            }
    }
}

template <rw_dtype D, int COLUMNS>
__device__ static inline void multiply_weights_v(const void *v_data, shared_tiles<COLUMNS> &t,
                                                 int64_t j, int keys,
                                                 row_sums<COLUMNS / 64> &sums) {
#pragma unroll 1
    for (int from = 0; from < keys; from += DEPTH) {
        if (threadIdx.x == 0)
            t.odd = 0;
        __syncthreads();
        load_v<D, COLUMNS>(v_data, t, j, keys, from);
        __syncthreads();
        multiply_slice<COLUMNS>(t, from, sums);
        __syncthreads();
    }
}

template <int COLUMNS>
__device__ static inline void store_rows(void *out_data, void *lse_data,
                                         const shared_tiles<COLUMNS> &t,
                                         const row_sums<COLUMNS / 64> &sums) {
    const rw_attention_params &p = t.p;
    const int first = (int)threadIdx.x / SIDE * EACH, column = (int)threadIdx.x % SIDE * 4;
#pragma unroll
    for (int m = 0; m < EACH; m++) {
        if (first + m >= t.item.rows)
            continue;
        const rwi_attention_row &row = t.rows[first + m].row;
        if (!row.sane)
            continue;
        const rwi_attention_end end = rwi_attention_finish(&p, row.h, sums.largest[m], sums.sum[m]);
        const int64_t out = rwi_attention_at(&p.out, t.item.b, &row);
#pragma unroll
        for (int v = 0; v < COLUMNS / 64; v++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                if (v * 64 + column + c < p.v_dim)
                    rwi_store(p.out_dtype, out_data, out + v * 64 + column + c,
                              sums.out[m][v][c] * end.share);
        if (lse_data && threadIdx.x % SIDE == 0)
            ((float *)lse_data)[rwi_attention_at(&p.lse, t.item.b, &row)] = end.lse;
    }
}

/* COLUMNS: those of v, at most. */
template <rw_dtype D, int COLUMNS>
static __global__ void __launch_bounds__(RWI_BLOCK)
    attention_kernel(rw_attention_params p, rwi_fault_sink sink) {
    __shared__ shared_tiles<COLUMNS> t;
    const int64_t item = rwi_block_row();
    if (item >= attention_work(&p).items)
        return;
    if (threadIdx.x == 0) {
        t.p = p;
        t.item = rwi_attention_find(&p, item);
    }
    __syncthreads();
    find_rows(t, sink);
    __syncthreads();
    row_sums<COLUMNS / 64> sums;
#pragma unroll
    for (int m = 0; m < EACH; m++) {
        sums.largest[m] = -INFINITY;
        sums.sum[m] = 0.0f;
#pragma unroll
        for (int v = 0; v < COLUMNS / 64; v++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                sums.out[m][v][c] = 0.0f;
    }
#pragma unroll 1
    for (int64_t j = 0; j < p.rules.scores.seq_k; j += KEYS) {
        const int keys = (int)rwi_min(KEYS, p.rules.scores.seq_k - j);
        if (threadIdx.x == 0)
            t.state = rwi_attention_ask_tile(&t.p, &t.item, j, keys);
        __syncthreads();
        if (t.state != RW_TILE_NONE) {
            float scores[EACH][EACH] = {};
            multiply_q_k<D, COLUMNS>(p.q.data, p.k.data, t, j, keys, scores);
            weigh<COLUMNS>(t, j, keys, scores, sums);
            multiply_weights_v<D, COLUMNS>(p.v.data, t, j, keys, sums);
        }
        __syncthreads();
    }
    store_rows<COLUMNS>(p.out.data, p.lse.data, t, sums);
}

extern "C" rw_status rwi_hip_attention(rwi_device *device, const rw_attention_params *p) {
    const rwi_launch_shape shape =
        rwi_launch_rows(RWI_OP_attention, attention_work(p).items, dim3(RWI_BLOCK));
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        if (p->v_dim <= 64)
            return rwi_launch(device, shape, attention_kernel<D, 64>, *p);
        if (p->v_dim <= 128)
            return rwi_launch(device, shape, attention_kernel<D, 128>, *p);
        return rwi_launch(device, shape, attention_kernel<D, 256>, *p);
    });
}
