/* Part of attention_wide.h: tile shapes, and loads of tiles into shared memory. */
#ifndef RWI_ATTENTION_WIDE_TILE_H
#define RWI_ATTENTION_WIDE_TILE_H

#include "attention/attention_stage.h"

/* The members that attention_shape has, and:
 *
 *   SLICE    adjacent columns of a wave
 *   PARTS    waves that share rows: each has every PARTS-th slice
 *   SPAN     columns of one slice of each of them
 *   SPANS    of the widest rows
 *   WHOLE    a tile of keys holds whole rows, else one span of them: f32
 *
 * An AMD GPU has 64 KiB of shared memory per block. NVIDIA's 227 KiB hold two tiles of keys, one of
 * which is copied asynchronously.
 */
template <rw_dtype D, int UNIT, bool CODES_> struct attention_wide_shape {
    static constexpr bool ROLES = false, FEW = false, CODE_TILES = false, PLAIN = false;
    static constexpr bool ANY_WIDTH = true;
    static constexpr bool CODES = CODES_;
    static constexpr int RULES = ATTENTION_ANY;
    static constexpr rw_dtype DTYPE = D;
    static constexpr bool HALVES = D != RW_F32, WHOLE = HALVES;
#if defined(__HIP_PLATFORM_NVIDIA__)
    static constexpr bool BACKGROUND = HALVES;
#else
    static constexpr bool BACKGROUND = UNIT == RWI_MMA_SYNC;
#endif
    typedef typename rwi_mma_of<D, 1, UNIT>::type unit;
    typedef typename unit::element element;
    typedef std::conditional_t<CODES, uint8_t, element> kv_element;
    typedef std::conditional_t<HALVES, uint64_t, uint32_t> codes; /* VECTOR of them */
    typedef typename unit::product product;

    static constexpr int SLICE = 64, PARTS = 3, SPAN = SLICE * PARTS;
    static constexpr int SPANS = RWI_ATTENTION_MAX_DIM / SPAN;
    static_assert(SPANS * SPAN == RWI_ATTENTION_MAX_DIM, "whole spans");

    static constexpr int WAVE_ROWS = 16;
    /* As many rows and keys as registers hold without spills. */
    static constexpr int ROWS = BACKGROUND ? 32 : 16;
    static constexpr int SUM_ROWS = ROWS;
    static constexpr int KEYS = BACKGROUND ? 32 : 16;
    static constexpr int WAVE_KEYS = KEYS;
    static constexpr int WAVES = ROWS / WAVE_ROWS * PARTS;
    static constexpr int THREADS = WAVES * unit::LANES;
    static constexpr int COPIERS = THREADS, BLOCK = THREADS;
    /* Of waves a scheduler at least: with one, clang takes accumulation registers on gfx9. */
    static constexpr int BLOCKS = BACKGROUND ? 1 : 2;

    static constexpr int VECTOR = 16 / (int)sizeof(element);
    static constexpr int CODE_VECTOR = BACKGROUND ? 16 : VECTOR; /* codes of a copy */
    static constexpr int PITCH = (WHOLE ? SPANS : 1) * SPAN + VECTOR;
    static constexpr int NEXT_SPAN = WHOLE ? SPAN : ROWS * PITCH; /* distance in the tile of q */
    static constexpr int OUT_COLUMNS = SLICE, OUT_PITCH = OUT_COLUMNS + 4;
    static constexpr int BATCH = 64;
    static constexpr int WEIGHT_BITS = D == RW_F16 ? 15 : 0;
    static constexpr int N_KEYS = KEYS / 16;
    static constexpr int N_SLICE = SLICE / 16, N_COLUMNS = SPANS * N_SLICE;
    static constexpr int SUMS = ROWS;

    __device__ static __forceinline__ int first_row(int wave) {
        return wave / PARTS * WAVE_ROWS;
    }

    /* Elements of the tiles, and floats of what waves exchange: some products at a time, all lanes'
     * floats of each. */
    static constexpr int Q_SIZE = (WHOLE ? 1 : SPANS) * ROWS * PITCH;
    static constexpr int KEYS_SIZE = KEYS * PITCH;
    static constexpr int TILE_BYTES =
        (Q_SIZE + (BACKGROUND ? 2 : 1) * KEYS_SIZE) * (int)sizeof(element);
    static constexpr int CODES_SIZE = CODES && BACKGROUND ? KEYS * SPANS * SPAN : 0;
    static constexpr int EXCHANGED = BACKGROUND ? N_KEYS : 1;
    static constexpr int EXCHANGE = EXCHANGED * unit::QUERIES * unit::KEYS * unit::LANES;
    static constexpr int SCRATCH = unit::SCRATCH * KEYS;
    static constexpr int SHARED_BYTES =
        TILE_BYTES + CODES_SIZE + WAVES * (EXCHANGE + SCRATCH) * (int)sizeof(float);
    static_assert(WAVES * WAVE_ROWS * OUT_PITCH * (int)sizeof(float) <= TILE_BYTES,
                  "the output overlaps the tiles");
};

/* The tiles in shared memory: BACKGROUND: of the current keys and of those that are copied
 * meanwhile, else one. */
template <typename Shape> struct attention_wide_tiles {
    typename Shape::element *q;
    typename Shape::element *now;
    typename Shape::element *later;
    uint8_t *codes;  /* CODES, BACKGROUND: of those */
    float *out;      /* overlaps all tiles */
    float *exchange; /* of all waves */
    float *scratch;
    bool v_is_k;
};

template <typename Shape>
__device__ static inline attention_wide_tiles<Shape> find_wide_tiles(const attention_launch &launch,
                                                                     uint4 *shared) {
    typename Shape::element *q = (typename Shape::element *)shared;
    typename Shape::element *keys = q + Shape::Q_SIZE;
    uint8_t *codes = (uint8_t *)shared + Shape::TILE_BYTES;
    float *exchange = (float *)(codes + Shape::CODES_SIZE);
    const int wave = (int)threadIdx.x / Shape::unit::LANES;
    return {q,
            keys,
            Shape::BACKGROUND ? keys + Shape::KEYS_SIZE : keys,
            codes,
            (float *)shared,
            exchange,
            exchange + Shape::WAVES * Shape::EXCHANGE + wave * Shape::SCRATCH,
            rwi_attention_v_is_k(&launch.op)};
}

/* ---- into shared memory ---- */

/* Whole spans that hold `width` columns. */
template <typename Shape> __device__ static __forceinline__ int whole_spans(int width) {
    return (width + Shape::SPAN - 1) / Shape::SPAN * Shape::SPAN;
}

/* The VECTOR elements at `from`, of which `left` exist: 0 for others. */
template <typename Shape>
__device__ static __forceinline__ void copy_wide(typename Shape::element *to,
                                                 const typename Shape::element *from, int left,
                                                 bool vectors) {
    if (vectors) {
        rwi_async_copy_16(to, from, left > 0);
        return;
    }
#pragma unroll 1
    for (int n = 0; n < Shape::VECTOR; n++)
        to[n] = n < left ? from[n] : (typename Shape::element)0;
}

/* Vector n of a tile of ROWS rows: slice after slice. */
template <typename Shape, int ROWS, int VECTOR = Shape::VECTOR> struct wide_vector {
    static constexpr int ACROSS = Shape::SLICE / VECTOR;
    int row, column;

    __device__ __forceinline__ explicit wide_vector(int n)
        : row(n / ACROSS % ROWS), column(n / (ACROSS * ROWS) * Shape::SLICE + n % ACROSS * VECTOR) {
    }
    __device__ static __forceinline__ int count(int columns) {
        return columns / VECTOR * ROWS;
    }
};

template <typename Shape>
__device__ static __forceinline__ void stage_wide_q(const attention_launch &launch,
                                                    const attention_block<Shape> &t,
                                                    typename Shape::element *tile) {
    typedef const typename Shape::element *elements;
    typedef wide_vector<Shape, Shape::ROWS> vector;
    const int width = launch.op.head_dim;
#pragma unroll 1
    for (int n = rwi_computed_here((int)threadIdx.x); n < vector::count(whole_spans<Shape>(width));
         n += Shape::THREADS) {
        const vector at(n);
        const bool inside = at.row < t.item.rows;
        const int64_t from = inside ? rwi_attention_at(&launch.op.q, t.item.b, &t.rows[at.row]) : 0;
        copy_wide<Shape>(tile + at.column / Shape::SPAN * Shape::NEXT_SPAN + at.row * Shape::PITCH +
                             at.column % Shape::SPAN,
                         (elements)rwi_global(launch.op.q.data) + from + at.column,
                         inside ? width - at.column : 0, launch.vectors);
    }
}

/* Part of a row of k or v: from a column on, `left` columns; 0 or fewer: none, or no row of the tile
 * may see the key. */
template <typename Shape> struct wide_source {
    const typename Shape::kv_element *from;
    int left;

    __device__ __forceinline__ wide_source(const attention_launch &launch,
                                           const attention_block<Shape> &t,
                                           const rwi_attention_tensor &tensor, int width,
                                           int32_t key, int column) {
        const rwi_kv_pages &pages = launch.op.pages;
        int64_t outer = t.item.b, row = key;
        if (pages.table.data) {
            outer = t.pages[(key >> pages.shift) - t.first_page];
            row = key & (((int64_t)1 << pages.shift) - 1);
        }
        from = (const typename Shape::kv_element *)rwi_global(tensor.data) +
               t.item.kv_head * tensor.stride[2];
        from += outer * tensor.stride[0] + row * tensor.stride[1] + column;
        left = outer >= 0 && rwi_span_has(t.seen, key) ? width - column : 0;
    }
};

/* The numbers of VECTOR codes. */
template <typename Shape>
__device__ static __forceinline__ void convert_wide(rw_dtype dtype, typename Shape::element *to,
                                                    typename Shape::codes codes) {
    if (dtype == RW_F8_E4M3)
        attention_convert<Shape, RW_F8_E4M3>(to, codes);
    else
        attention_convert<Shape, RW_F8_E5M2>(to, codes);
}

/* Codes of keys [j, j + KEYS), of `columns` columns from column `first` on, some at a time in
 * registers. */
template <typename Shape>
__device__ static __forceinline__ void
stage_wide_codes(const attention_launch &launch, const attention_block<Shape> &t,
                 const rwi_attention_tensor &tensor, int width, int32_t j, int first, int columns,
                 typename Shape::element *tile) {
    typedef wide_vector<Shape, Shape::KEYS> vector;
    constexpr int OF_SPAN = Shape::SPAN / Shape::VECTOR * Shape::KEYS / Shape::THREADS;
    constexpr int TOGETHER = OF_SPAN < 4 ? OF_SPAN : 4, STEP = TOGETHER * Shape::THREADS;
    static_assert(Shape::SPAN / Shape::VECTOR * Shape::KEYS % STEP == 0, "equal shares");
#pragma unroll 1
    for (int n = rwi_computed_here((int)threadIdx.x); n < vector::count(columns); n += STEP) {
        typename Shape::codes codes[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const vector at(n + i * Shape::THREADS);
            const wide_source<Shape> source(launch, t, tensor, width, j + at.row,
                                            first + at.column);
            codes[i] =
                attention_read_some_codes<Shape>(source.from, source.left, launch.code_vectors);
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const vector at(n + i * Shape::THREADS);
            convert_wide<Shape>(launch.op.kv_dtype, tile + at.row * Shape::PITCH + at.column,
                                codes[i]);
        }
    }
}

/* Keys [j, j + KEYS) of k or v, of `width` columns: WHOLE: all columns, else the span from column
 * `first` on. 0 where no row may see them. */
template <typename Shape>
__device__ static __forceinline__ void
stage_wide(const attention_launch &launch, const attention_block<Shape> &t,
           const rwi_attention_tensor &tensor, int width, int32_t j, int first,
           typename Shape::element *tile) {
    typedef wide_vector<Shape, Shape::KEYS> vector;
    const int columns = Shape::WHOLE ? whole_spans<Shape>(width) : Shape::SPAN;
    if constexpr (Shape::CODES) {
        stage_wide_codes(launch, t, tensor, width, j, first, columns, tile);
    } else {
#pragma unroll 1
        for (int n = rwi_computed_here((int)threadIdx.x); n < vector::count(columns);
             n += Shape::THREADS) {
            const vector at(n);
            const wide_source<Shape> source(launch, t, tensor, width, j + at.row,
                                            first + at.column);
            copy_wide<Shape>(tile + at.row * Shape::PITCH + at.column, source.from, source.left,
                             launch.vectors);
        }
    }
}

template <typename Shape>
__device__ static __forceinline__ void stage_wide_k(const attention_launch &launch,
                                                    const attention_block<Shape> &t, int32_t j,
                                                    int first, typename Shape::element *tile) {
    stage_wide(launch, t, launch.op.k, launch.op.head_dim, j, first, tile);
}

template <typename Shape>
__device__ static __forceinline__ void stage_wide_v(const attention_launch &launch,
                                                    const attention_block<Shape> &t, int32_t j,
                                                    int first, typename Shape::element *tile) {
    stage_wide(launch, t, launch.op.v, launch.op.v_dim, j, first, tile);
}

/* CODES, BACKGROUND: copies of the codes of keys [j, j + KEYS), in the order of the threads, each of
 * which then converts what it has copied. */
template <typename Shape>
__device__ static inline void
copy_wide_codes(const attention_launch &launch, const attention_block<Shape> &t,
                const rwi_attention_tensor &tensor, int width, int32_t j, uint8_t *codes) {
    typedef wide_vector<Shape, Shape::KEYS, Shape::CODE_VECTOR> vector;
#pragma unroll 1
    for (int n = rwi_computed_here((int)threadIdx.x); n < vector::count(whole_spans<Shape>(width));
         n += Shape::THREADS) {
        const vector at(n);
        const wide_source<Shape> source(launch, t, tensor, width, j + at.row, at.column);
        uint8_t *to = codes + n * Shape::CODE_VECTOR;
        if (launch.code_vectors && (source.left >= Shape::CODE_VECTOR || source.left <= 0)) {
            rwi_async_copy_16(to, source.from, source.left > 0);
            continue;
        }
#pragma unroll 1
        for (int c = 0; c < Shape::CODE_VECTOR; c++)
            to[c] = c < source.left ? source.from[c] : (uint8_t)0;
    }
}

template <typename Shape>
__device__ static inline void convert_wide_codes(rw_dtype dtype, int width, const uint8_t *codes,
                                                 typename Shape::element *tile) {
    typedef wide_vector<Shape, Shape::KEYS, Shape::CODE_VECTOR> vector;
    rwi_async_wait();
#pragma unroll 1
    for (int n = rwi_computed_here((int)threadIdx.x); n < vector::count(whole_spans<Shape>(width));
         n += Shape::THREADS) {
        const vector at(n);
        const uint4 some = *(const uint4 *)(codes + n * Shape::CODE_VECTOR);
        typename Shape::element *to = tile + at.row * Shape::PITCH + at.column;
        convert_wide<Shape>(dtype, to, (uint64_t)some.y << 32 | some.x);
        convert_wide<Shape>(dtype, to + Shape::VECTOR, (uint64_t)some.w << 32 | some.z);
    }
}

/* BACKGROUND: begins the copy of keys [j, j + KEYS) of v or k to a tile; `j` -1: of none. Codes are
 * in the tile after finish_wide(). */
template <typename Shape>
__device__ static __forceinline__ void
start_wide(const attention_launch &launch, const attention_block<Shape> &t,
           const attention_wide_tiles<Shape> &tiles, bool is_v, int32_t j,
           typename Shape::element *tile) {
    if (j < 0)
        return;
    if constexpr (Shape::CODES)
        copy_wide_codes(launch, t, is_v ? launch.op.v : launch.op.k,
                        is_v ? launch.op.v_dim : launch.op.head_dim, j, tiles.codes);
    else if (is_v)
        stage_wide_v<Shape>(launch, t, j, 0, tile);
    else
        stage_wide_k<Shape>(launch, t, j, 0, tile);
}

template <typename Shape>
__device__ static __forceinline__ void
finish_wide(const attention_launch &launch, const attention_wide_tiles<Shape> &tiles, bool is_v,
            int32_t j, typename Shape::element *tile) {
    if constexpr (Shape::CODES)
        if (j >= 0)
            convert_wide_codes<Shape>(
                launch.op.kv_dtype, is_v ? launch.op.v_dim : launch.op.head_dim, tiles.codes, tile);
}

#endif
