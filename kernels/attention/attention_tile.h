/* Parts of attention_gpu.h: tile shapes, state of a block and of a thread, loads of tiles into
 * shared memory, scores to weights. */
#ifndef RWI_ATTENTION_TILE_H
#define RWI_ATTENTION_TILE_H

#include "attention/attention_params.h"
#include "gpu/async_copy.h"
#include "gpu/mma.h"
#include "gpu/registers.h"
#include "gpu/vectors.h"

/* Parameters of a kernel: the operation and its launch. */
struct attention_launch {
    rw_attention_params op;
    int64_t items;
    int64_t section; /* groups of heads whose k and v fit in the second-level cache together */
    bool vectors;    /* q, k and v can be read in vectors of 16 bytes */
    bool out_vectors;
};

/* WIDTH: the maximum number of columns of q, k and v. FEW: 16 rows, shared by all waves, each of
 * which takes different keys; else each wave has its own rows and takes all keys.
 *
 * An AMD GPU has 64 KiB of shared memory per block; NVIDIA's 227 KiB hold tiles of k and of v that
 * are copied asynchronously.
 */
template <rw_dtype D, int WIDTH_, bool FEW_, int UNIT> struct attention_shape {
#if defined(__HIP_PLATFORM_NVIDIA__)
    static constexpr bool BACKGROUND = true;
    static constexpr bool PARAMETERS_NEAR = true; /* kernel parameters are instruction operands */
#else
    static constexpr bool BACKGROUND = UNIT == RWI_MMA_SYNC;
    static constexpr bool PARAMETERS_NEAR = false;
#endif
    static constexpr rw_dtype DTYPE = D;
    static constexpr int WIDTH = WIDTH_;
    static constexpr bool FEW = FEW_;
    static constexpr bool HALVES = D != RW_F32;
    static constexpr int M = !FEW && BACKGROUND && HALVES && WIDTH <= 128 ? 2 : 1;
    typedef typename rwi_mma_of<D, M, UNIT>::type unit;
    typedef typename unit::element element;
    typedef typename unit::product product;

    static constexpr int WAVES = !HALVES && WIDTH == 256 ? 2 : 4;
    static constexpr int THREADS = WAVES * unit::LANES;
    static constexpr bool AHEAD = BACKGROUND && FEW; /* copies the next k and v meanwhile */
    static constexpr int BUFFERS = AHEAD ? 4 : BACKGROUND ? 2 : 1;
    static constexpr int ROW_BYTES = WIDTH * (int)sizeof(element);
    static constexpr int WIDE_KEYS = ROW_BYTES <= 256                 ? 64
                                     : ROW_BYTES <= 512 && BACKGROUND ? 32
                                                                      : 16;
    static constexpr int WAVE_ROWS = 16 * M;
    static constexpr int ROWS = FEW ? WAVE_ROWS : WAVES * WAVE_ROWS;
    static constexpr int KEYS = FEW ? 16 * WAVES : WIDE_KEYS;
    static constexpr int WAVE_KEYS = FEW ? 16 : KEYS;

    static constexpr int VECTOR = 16 / (int)sizeof(element);
    static constexpr int PITCH = WIDTH + VECTOR; /* adjacent rows start in different banks */
    static constexpr int OUT_COLUMNS = 64;       /* columns of the output stored at a time */
    static constexpr int BATCH = 64;             /* tiles whose visibility is computed at a time */
    static constexpr int OUT_PITCH = OUT_COLUMNS + 4;

    /* Weights (at most 1) are kept times 2^WEIGHT_BITS: as f16, those below 2^-14 would be
     * subnormal. */
    static constexpr int WEIGHT_BITS = D == RW_F16 ? 15 : 0;

    /* Products of a wave: along keys, those that use its scratch at a time, and along columns. */
    static constexpr int N_KEYS = WAVE_KEYS / 16;
    static constexpr int N_SCRATCH = BACKGROUND && HALVES && N_KEYS > 2 ? 2 : N_KEYS;
    static constexpr int N_COLUMNS = WIDTH / 16;

    /* Elements of the tiles and floats of a wave's scratch, which are consecutive. */
    static constexpr int Q_SIZE = ROWS * PITCH;
    static constexpr int KV_SIZE = KEYS * PITCH;
    static constexpr int SCRATCH = rwi_mma_scratch(M, N_SCRATCH * 16);
    static constexpr int TILE_BYTES = (Q_SIZE + BUFFERS * KV_SIZE) * (int)sizeof(element);
    static constexpr int OUT_BYTES = WAVES * WAVE_ROWS * OUT_PITCH * (int)sizeof(float);
    static constexpr int SHARED_BYTES =
        (TILE_BYTES > OUT_BYTES ? TILE_BYTES : OUT_BYTES) + WAVES * SCRATCH * (int)sizeof(float);
};

/* State of a block, in shared memory. */
template <typename Shape> struct attention_block {
    attention_launch launch;
    rwi_attention_item item;
    rwi_attention_row rows[Shape::ROWS];
    rwi_span seen;      /* from the first to the last key of the part that any row may see */
    rwi_span nonfinite; /* from the first to the last tile with nonfinite values */
    int missing_page;   /* a page that is needed is invalid */
    uint8_t tiles[Shape::BATCH];
    int64_t pages[Shape::BATCH * Shape::KEYS / 16]; /* page of each tile's keys; -1: invalid */
    int64_t first_page;
    float base[Shape::WAVES * Shape::WAVE_ROWS]; /* of each wave's sums */
    float sum[Shape::WAVES * Shape::WAVE_ROWS];
    float share[Shape::WAVES * Shape::WAVE_ROWS];
    float earlier_base[Shape::ROWS]; /* of earlier batches; -inf: none */
    float earlier_sum[Shape::ROWS];  /* finally, of all keys */
    float earlier_share[Shape::ROWS];
};

/* State of a thread: its rows. Scores are the unscaled products where the scale is the only rule;
 * `factor` converts their differences to exponents of 2. Differences are taken first: they are
 * exact for scores close to each other, however large. */
template <typename Shape> struct attention_thread {
    float largest[Shape::unit::QUERIES];
    float sum[Shape::unit::QUERIES]; /* over this lane's keys */
    typename Shape::product out[Shape::N_COLUMNS];
    float factor;
    bool plain;
};

/* The tiles in shared memory. */
template <typename Shape> struct attention_tiles {
    typename Shape::element *q;
    typename Shape::element *k;
    typename Shape::element *v;
    int next_stage; /* AHEAD: distance from the tiles of k and v to the next ones */
    float *out;     /* overlaps all of them */
    float *scratch;
};

template <typename Shape>
__device__ static inline attention_tiles<Shape> attention_find_tiles(uint4 *shared) {
    typename Shape::element *q = (typename Shape::element *)shared;
    typename Shape::element *k = q + Shape::Q_SIZE;
    attention_tiles<Shape> tiles = {q,
                                    k,
                                    Shape::BACKGROUND ? k + Shape::KV_SIZE : k,
                                    2 * Shape::KV_SIZE,
                                    (float *)shared,
                                    (float *)shared};
    const int wave = (int)threadIdx.x / Shape::unit::LANES;
    tiles.scratch += Shape::SHARED_BYTES / (int)sizeof(float);
    tiles.scratch -= (Shape::WAVES - wave) * Shape::SCRATCH;
    return tiles;
}

/* ---- into shared memory ---- */

/* The VECTOR elements at `from`, or zeros. */
template <typename Shape>
__device__ static inline void attention_copy(typename Shape::element *to,
                                             const typename Shape::element *from, bool inside,
                                             bool vectors) {
    if (vectors) {
        rwi_async_copy_16(to, from, inside);
        return;
    }
#pragma unroll 1
    for (int n = 0; n < Shape::VECTOR; n++)
        to[n] = inside ? from[n] : (typename Shape::element)0;
}

template <typename Shape>
__device__ static inline void attention_stage_q(const attention_launch &launch,
                                                const attention_block<Shape> &t,
                                                typename Shape::element *tile) {
    typedef const typename Shape::element *elements;
    constexpr int VECTORS = Shape::WIDTH / Shape::VECTOR;
#pragma unroll 1
    for (int n = rwi_computed_here((int)threadIdx.x); n < Shape::ROWS * VECTORS;
         n += Shape::THREADS) {
        const int row = n / VECTORS, column = n % VECTORS * Shape::VECTOR;
        const bool inside = row < t.item.rows && column < launch.op.head_dim;
        const int64_t at = inside ? rwi_attention_at(&launch.op.q, t.item.b, &t.rows[row]) : 0;
        attention_copy<Shape>(tile + row * Shape::PITCH + column,
                              (elements)rwi_global(launch.op.q.data) + at + column, inside,
                              launch.vectors);
    }
}

/* The keys of a tile that a thread copies: the column of its first vector, then every STEP-th. */
template <typename Shape> struct attention_share {
    static constexpr int VECTORS = Shape::WIDTH / Shape::VECTOR;
    static constexpr int STEP = Shape::THREADS / VECTORS;
    static constexpr int COUNT = Shape::KEYS / STEP;
    static_assert(Shape::THREADS % VECTORS == 0 && Shape::KEYS % STEP == 0, "equal shares");
};

/* Keys [j, j + KEYS) of k or v, contiguous in memory; 0 where no row may see them. */
template <typename Shape>
__device__ static inline void attention_stage_run(const attention_launch &launch,
                                                  const attention_block<Shape> &t,
                                                  const rwi_attention_tensor &tensor, int width,
                                                  int32_t j, typename Shape::element *tile) {
    typedef attention_share<Shape> share;
    const int key = (int)threadIdx.x / share::VECTORS;
    const int column = (int)threadIdx.x % share::VECTORS * Shape::VECTOR;
    const int begin = t.seen.begin - j, end = column < width ? t.seen.end - j : 0;
    const typename Shape::element *from =
        (const typename Shape::element *)rwi_global(tensor.data) + t.item.b * tensor.stride[0] +
        (j + key) * tensor.stride[1] + t.item.kv_head * tensor.stride[2] + column;
    typename Shape::element *to = tile + key * Shape::PITCH + column;
    if (launch.vectors) {
#pragma unroll 4
        for (int n = 0; n < share::COUNT; n++) {
            const int at = key + n * share::STEP;
            rwi_async_copy_16(to + n * share::STEP * Shape::PITCH, from, at >= begin && at < end);
            from += share::STEP * tensor.stride[1];
        }
        return;
    }
#pragma unroll 1
    for (int n = 0; n < share::COUNT; n++) {
        const int at = key + n * share::STEP;
        attention_copy<Shape>(to + n * share::STEP * Shape::PITCH, from, at >= begin && at < end,
                              false);
        from += share::STEP * tensor.stride[1];
    }
}

/* The same from pages. */
template <typename Shape>
__device__ static inline void attention_stage_pages(const attention_launch &launch,
                                                    const attention_block<Shape> &t,
                                                    const rwi_attention_tensor &tensor, int width,
                                                    int32_t j, typename Shape::element *tile) {
    typedef attention_share<Shape> share;
    const int key = (int)threadIdx.x / share::VECTORS;
    const int column = (int)threadIdx.x % share::VECTORS * Shape::VECTOR;
    const int shift = launch.op.pages.shift;
    const rwi_span seen = t.seen;
    const typename Shape::element *first =
        (const typename Shape::element *)rwi_global(tensor.data) +
        t.item.kv_head * tensor.stride[2] + column;
#pragma unroll 2
    for (int n = 0; n < share::COUNT; n++) {
        const int at = key + n * share::STEP;
        const int32_t row = j + at;
        const int64_t page = t.pages[((int64_t)row >> shift) - t.first_page];
        const bool inside = page >= 0 && rwi_span_has(seen, row) && column < width;
        const int64_t in_page = row & (((int64_t)1 << shift) - 1);
        attention_copy<Shape>(tile + at * Shape::PITCH + column,
                              first + page * tensor.stride[0] + in_page * tensor.stride[1], inside,
                              launch.vectors);
    }
}

template <typename Shape>
__device__ static inline void attention_stage(const attention_launch &launch,
                                              const attention_block<Shape> &t,
                                              const rwi_attention_tensor &tensor, int width,
                                              int32_t j, typename Shape::element *tile) {
    if (launch.op.pages.table.data)
        attention_stage_pages<Shape>(launch, t, tensor, width, j, tile);
    else
        attention_stage_run<Shape>(launch, t, tensor, width, j, tile);
}

/* Replaces nonfinite values of v by 0, since 0 * Inf is NaN for rows that do not see the key.
 * repair() adds them later, for the rows that see them. */
template <typename Shape>
__device__ static inline void attention_zero_nonfinite(attention_block<Shape> &t, int32_t j,
                                                       typename Shape::element *tile) {
    constexpr int VECTORS = Shape::WIDTH / Shape::VECTOR;
    bool nonfinite = false;
#pragma unroll 1
    for (int n = (int)threadIdx.x; n < Shape::KEYS * VECTORS; n += Shape::THREADS) {
        typename Shape::element *at =
            tile + n / VECTORS * Shape::PITCH + n % VECTORS * Shape::VECTOR;
        float x[Shape::VECTOR], nothing = 0.0f;
        rwi_load_vector<Shape::DTYPE>(at, 0, x);
#pragma unroll
        for (int c = 0; c < Shape::VECTOR; c++)
            nothing += x[c] * 0.0f;
        if (nothing == 0.0f)
            continue;
        nonfinite = true;
#pragma unroll
        for (int c = 0; c < Shape::VECTOR; c++)
            if (x[c] * 0.0f != 0.0f)
                at[c] = 0;
    }
    if (nonfinite) {
        atomicMin(&t.nonfinite.begin, j);
        atomicMax(&t.nonfinite.end, (int32_t)rwi_min((int64_t)j + Shape::KEYS, INT32_MAX));
    }
}

/* ---- scores to weights ---- */

/* Products first .. first + N_SCRATCH - 1 to scores, by every rule, through the wave's scratch
 * [key][row], so that the code exists once and not for each register. */
template <typename Shape>
__device__ static inline void attention_apply_rules(const attention_block<Shape> &t,
                                                    typename Shape::product *s, int wave_row,
                                                    int32_t j, bool plain, float *scratch) {
    typedef typename Shape::unit unit;
    constexpr int PITCH = Shape::WAVE_ROWS + 4, KEYS = Shape::N_SCRATCH * 16;
    const int lane = (int)threadIdx.x % unit::LANES;
    const rw_attention_params &p = t.launch.op;
    const bool cells = rwi_pattern_has_cells(&p.rules.pattern);
    __syncthreads();
#pragma unroll
    for (int n = 0; n < Shape::N_SCRATCH; n++)
#pragma unroll
        for (int e = 0; e < unit::KEYS; e++)
#pragma unroll
            for (int q = 0; q < unit::QUERIES; q++)
                scratch[(n * 16 + unit::key(lane, e)) * PITCH + unit::query(lane, q)] =
                    s[n].x[q][e];
    __syncthreads();
#pragma unroll 1
    for (int at = lane; at < KEYS * Shape::WAVE_ROWS; at += unit::LANES) {
        const int row = at % Shape::WAVE_ROWS, key = at / Shape::WAVE_ROWS;
        const rwi_attention_row &of = t.rows[wave_row + row];
        float *score = scratch + key * PITCH + row;
        if (!rwi_pattern_visible(&p.rules.pattern, &of.pattern, cells, j + key))
            *score = -INFINITY;
        else if (!plain)
            *score = rwi_attention_score(&p, &of, *score, j + key);
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < Shape::N_SCRATCH; n++)
#pragma unroll
        for (int e = 0; e < unit::KEYS; e++)
#pragma unroll
            for (int q = 0; q < unit::QUERIES; q++)
                s[n].x[q][e] =
                    scratch[(n * 16 + unit::key(lane, e)) * PITCH + unit::query(lane, q)];
}

/* -inf where a row of the wave does not see a key, for patterns of intervals. */
template <typename Shape>
__device__ static inline void attention_hide(const rwi_attention_row *rows,
                                             typename Shape::product (&s)[Shape::N_KEYS],
                                             int32_t j) {
    typedef typename Shape::unit unit;
    const int lane = (int)threadIdx.x % unit::LANES;
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const rwi_pattern_row &row = rows[unit::query(lane, q)].pattern;
        const rwi_span window = row.window, prefix = row.prefix;
#pragma unroll
        for (int n = 0; n < Shape::N_KEYS; n++)
#pragma unroll
            for (int e = 0; e < unit::KEYS; e++) {
                const int32_t key = j + n * 16 + unit::key(lane, e);
                if (!((int)rwi_span_has(window, key) | (int)rwi_span_has(prefix, key)))
                    s[n].x[q][e] = -INFINITY;
            }
    }
}

/* Products to scores; `all`: every row sees every key. */
template <typename Shape>
__device__ static inline void
attention_score(const attention_block<Shape> &t, typename Shape::product (&s)[Shape::N_KEYS],
                int wave_row, int32_t j, bool all, bool plain, float *scratch) {
    if (plain && all)
        return;
    if (plain && !rwi_pattern_has_cells(&t.launch.op.rules.pattern)) {
        attention_hide<Shape>(t.rows + wave_row, s, j);
        return;
    }
#pragma unroll
    for (int n = 0; n < Shape::N_KEYS; n += Shape::N_SCRATCH)
        attention_apply_rules<Shape>(t, s + n, wave_row, j + n * 16, plain, scratch);
}

/* Rescales the sums so far to the new largest score, which is mostly the old one. */
template <typename Shape>
__device__ static inline void attention_rescale(const float (&kept)[Shape::unit::QUERIES],
                                                attention_thread<Shape> &mine) {
    bool same = true;
#pragma unroll
    for (int q = 0; q < Shape::unit::QUERIES; q++)
        same = same && kept[q] == 1.0f;
    if (__all(same))
        return;
#pragma unroll
    for (int q = 0; q < Shape::unit::QUERIES; q++) {
        mine.sum[q] *= kept[q];
#pragma unroll
        for (int n = 0; n < Shape::N_COLUMNS; n++)
#pragma unroll
            for (int e = 0; e < Shape::unit::KEYS; e++)
                mine.out[n].x[q][e] *= kept[q];
    }
}

/* Scores to weights. fmaxf() ignores NaN; the sum of weights propagates it. */
template <typename Shape>
__device__ static inline void attention_weigh(typename Shape::product (&s)[Shape::N_KEYS],
                                              attention_thread<Shape> &mine) {
    typedef typename Shape::unit unit;
    float base[unit::QUERIES], kept[unit::QUERIES];
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        float largest = -INFINITY;
#pragma unroll
        for (int n = 0; n < Shape::N_KEYS; n++)
#pragma unroll
            for (int e = 0; e < unit::KEYS; e++)
                largest = fmaxf(largest, s[n].x[q][e]);
        largest = fmaxf(mine.largest[q], unit::reduce_max(largest));
        base[q] = rwi_softmax_base(largest);
        kept[q] = rwi_exp2_fast((mine.largest[q] - base[q]) * mine.factor);
        mine.largest[q] = largest;
    }
    attention_rescale<Shape>(kept, mine);
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        float tile = 0.0f;
#pragma unroll
        for (int n = 0; n < Shape::N_KEYS; n++)
#pragma unroll
            for (int e = 0; e < unit::KEYS; e++) {
                s[n].x[q][e] = rwi_exp2_fast(
                    fmaf(s[n].x[q][e] - base[q], mine.factor, (float)Shape::WEIGHT_BITS));
                tile += s[n].x[q][e];
            }
        mine.sum[q] += tile;
    }
}

#endif
