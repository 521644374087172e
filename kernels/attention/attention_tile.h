/* Parts of attention_gpu.h: tile shapes, state of a block and of a thread, loads of tiles into
 * shared memory. */
#ifndef RWI_ATTENTION_TILE_H
#define RWI_ATTENTION_TILE_H

#include "attention/attention_ragged.h"
#include "gpu/async_copy.h"
#include "gpu/block_barriers.h"
#include "gpu/mma.h"
#include "gpu/registers.h"
#include "gpu/vectors.h"
#include "shared/f8.h"

#include <type_traits>

/* The sequences, of those of different lengths, that a launch takes: by the rows of a group and by the
 * keys. */
struct attention_bounds {
    int64_t least_rows;
    int64_t most_rows;
    int64_t least_keys;
    int64_t most_keys;
};

/* Parameters of a kernel: the operation and its launch. */
struct attention_launch {
    rw_attention_params op;
    int64_t items;
    int64_t row_tiles; /* of a group of heads */
    int64_t section;   /* groups of heads whose k and v fit in the second-level cache together */
    rwi_attention_slots slots; /* sequences of different lengths */
    attention_bounds bounds;   /* the same */
    bool vectors;              /* q, k and v can be read in vectors of 16 bytes */
    bool code_vectors;         /* CODES: k and v can be read CODE_VECTOR at a time */
    bool out_vectors;
    bool mask_pairs;  /* rows of the mask can be read two elements at a time */
    bool plain;       /* scores are kept as the products */
    float kept_scale; /* from a kept score to the score */
    float cap_inner;  /* from a product to the argument of tanh, and from tanh to a kept score */
    float cap_outer;
    int8_t scales; /* of codes: ATTENTION_..._SCALES, which of the heads this launch takes */
};

enum {
    ATTENTION_ALL_SCALES,
    ATTENTION_UNIT_SCALES, /* rwi_attention_keeps_unit(): known on the device */
    ATTENTION_OTHER_SCALES
};

/* The rules that a kernel has code for, beside a positive scale and intervals of keys: fewer rules,
 * fewer registers. */
enum {
    ATTENTION_PLAIN = 0,
    ATTENTION_CAP = 1,
    ATTENTION_ALIBI = 2,
    ATTENTION_MASK = 4,
    ATTENTION_OTHER = 8, /* global keys, bits and masks of patterns, other scales */
    ATTENTION_ANY = 15
};

/* WIDTH, V_WIDTH: the maximum number of columns of q and k, and of v. FEW: 16 rows, shared by all
 * waves, each of which takes different keys; else each wave has its own rows and takes all keys.
 * ROLES: the kernel of attention_roles.h, with CONSUMERS warpgroups that multiply. RULES: as above;
 * where it does not matter for speed, one kernel serves all. With ROLES and more than 256 columns v is
 * the first columns of k: LATENT, see attention_multiply.h. CODES: k and v have 8 bits and are
 * converted to the dtype of q on their way into shared memory; CODE_TILES: on their way out of
 * it, to f16, see attention_codes.h.
 *
 * An AMD GPU has 64 KiB of shared memory per block; NVIDIA's 227 KiB hold tiles of k and of v that
 * are copied asynchronously.
 */
template <rw_dtype D, int WIDTH_, bool FEW_, int UNIT, int V_WIDTH_ = WIDTH_,
          int RULES_ = ATTENTION_ANY, int CONSUMERS_ = 2, bool CODES_ = false>
struct attention_shape {
    static constexpr bool ROLES = UNIT == RWI_MMA_WGMMA;
    static constexpr int RULES = RULES_;
    static constexpr bool PLAIN = RULES == ATTENTION_PLAIN;
#if defined(__HIP_PLATFORM_NVIDIA__)
    static constexpr bool BACKGROUND = true;
#else
    static constexpr bool BACKGROUND = UNIT == RWI_MMA_SYNC || UNIT == RWI_MMA_TF32 || ROLES;
#endif
    static constexpr rw_dtype DTYPE = D;
    static constexpr int WIDTH = WIDTH_, V_WIDTH = V_WIDTH_;
    static constexpr bool FEW = FEW_, ANY_WIDTH = false; /* multiples of 8 */
    static constexpr bool HALVES = D != RW_F32;
    static constexpr bool CODES = CODES_;
    static constexpr bool CODE_TILES = BACKGROUND && HALVES && FEW && CODES && WIDTH <= 128;
    static constexpr rw_dtype UNIT_DTYPE = CODE_TILES ? RW_F16 : D; /* of products */
    static constexpr bool SPLIT = UNIT == RWI_MMA_TF32;             /* v must be finite */
    static constexpr bool LATENT = ROLES && WIDTH > 256;
    static constexpr int M = !FEW && !ROLES && BACKGROUND && HALVES && WIDTH <= 128 ? 2 : 1;
    typedef typename rwi_mma_of<UNIT_DTYPE, M, UNIT>::type unit;
    typedef typename unit::element element;
    typedef std::conditional_t<CODES, uint8_t, element> kv_element;
    typedef std::conditional_t<HALVES, uint64_t, uint32_t> codes; /* VECTOR of them */
    typedef typename unit::product product;

    /* Threads that multiply, those that find rows and copy them, and all. */
    static constexpr int CONSUMERS = CONSUMERS_;
    static constexpr bool NARROW = !HALVES && !SPLIT && WIDTH == 256;
    static constexpr int WAVES = ROLES ? 4 * CONSUMERS : NARROW ? 2 : 4;
    static constexpr int THREADS = WAVES * unit::LANES;
    static constexpr int GROUP = THREADS / CONSUMERS;
    static constexpr int COPIERS = ROLES ? 96 : THREADS;
    static constexpr int BLOCK = ROLES ? THREADS + 128 : THREADS;

    /* In flight: what memory holds. */
    static constexpr int ITEMS = ROLES && WIDTH != 192 && !LATENT ? 2 : 1;

    /* Reads the next tiles of k and v meanwhile. */
    static constexpr bool AHEAD = BACKGROUND && FEW && !CODE_TILES;
    static constexpr bool KEEPS_CODES = AHEAD && CODES && WIDTH <= 128; /* in registers */
    static constexpr int BUFFERS = (AHEAD && !KEEPS_CODES) || ROLES ? 4 : BACKGROUND ? 2 : 1;
    static constexpr int BLOCKS = ROLES || (SPLIT && WIDTH == 256) ? 1 : 2; /* a multiprocessor */
    static constexpr int ROW_BYTES = WIDTH * (int)sizeof(element);
    static constexpr int WIDE_KEYS = ROLES                              ? (WIDTH > 192 ? 64 : 128)
                                     : ROW_BYTES <= (SPLIT ? 512 : 256) ? 64
                                     : ROW_BYTES <= (SPLIT ? 1024 : 512) && BACKGROUND ? 32
                                                                                       : 16;
    static constexpr int WAVE_ROWS = 16 * M;
    static constexpr int ROW_WAVES = FEW ? 1 : LATENT ? 4 : WAVES; /* with rows of their own */
    static constexpr int ROWS = ROW_WAVES * WAVE_ROWS;
    static constexpr int WAVE_KEYS = CODE_TILES ? 32 : FEW ? 16 : WIDE_KEYS;
    static constexpr int KEYS = FEW ? WAVE_KEYS * WAVES : WIDE_KEYS;

    static constexpr int VECTOR = 16 / (int)sizeof(element);
    static constexpr int CODE_VECTOR = CODE_TILES ? 16 : VECTOR;
    /* Adjacent rows start in different banks; those of 16-bit tiles that are copied asynchronously on
     * multiples of 32 bytes, see rwi_sync_place(). */
    static constexpr bool ALIGNED = BACKGROUND && HALVES && !CODE_TILES;
    static constexpr int PITCH = WIDTH + (ALIGNED ? 2 : 1) * VECTOR;
    static constexpr int OUT_COLUMNS = CODE_TILES ? WIDTH : 64; /* of the output stored at a time */
    static constexpr int BATCH = 64; /* tiles whose visibility is computed at a time */
    static constexpr int OUT_PITCH = OUT_COLUMNS + 4;

    /* Weights (at most 1) are kept times 2^WEIGHT_BITS: as f16, those below 2^-14 would be
     * subnormal. */
    static constexpr int WEIGHT_BITS = UNIT_DTYPE == RW_F16 ? 15 : 0;

    /* Products of a wave along keys and along columns. */
    static constexpr int N_KEYS = WAVE_KEYS / 16;
    static constexpr int N_COLUMNS = V_WIDTH / (LATENT ? 2 : 1) / 16;

    /* Where an element of a tile of ROWS rows of W columns lies. */
    template <int W, int TILE_ROWS>
    __device__ static __forceinline__ int place(int row, int column) {
        if constexpr (ROLES)
            return unit::template place<W, TILE_ROWS>(row, column);
        else if constexpr (ALIGNED)
            return rwi_sync_place(row, column, PITCH);
        else
            return row * PITCH + column;
    }

    /* The column of the output of out[n].x[.][e], for N products. CODE_TILES: where a lane's values of
     * each key are adjacent. */
    template <int N> __device__ static __forceinline__ int column(int lane, int n, int e) {
        if constexpr (CODE_TILES)
            return (lane % 4 * 2 + e % 2) * (V_WIDTH / 8) + n * 2 + e / 2;
        else
            return unit::template column<N>(lane, n, e);
    }

    /* LATENT: rows of each warpgroup. */
    static constexpr int SUM_ROWS = LATENT ? CONSUMERS * ROWS : ROWS;

    /* Where a wave's sums of rows lie. */
    __device__ static __forceinline__ int first_row(int wave) {
        return wave * WAVE_ROWS;
    }

    /* Elements of the tiles and floats of a wave's scratch, which are consecutive. */
    static constexpr int K_ROW = ROLES ? (WIDTH + 63) / 64 * 64 : PITCH; /* whole panels */
    static constexpr int V_ROW = ROLES ? (V_WIDTH + 63) / 64 * 64 : PITCH;
    static constexpr int GROUP_ROW = LATENT ? V_ROW / 2 : V_ROW; /* of v, that a warpgroup reads */
    static constexpr int Q_SIZE = ROWS * K_ROW;
    /* ROLES: of items in flight; CODE_TILES: of q, and of what f16 lacks. */
    static constexpr int Q_TILES = (ROLES && WIDTH <= 128) || CODE_TILES ? 2 : 1;
    static constexpr int K_SIZE = KEYS * K_ROW;
    static constexpr int V_SIZE = LATENT ? 0 : KEYS * V_ROW;
    /* CODE_TILES: of each wave, instead of the two above. */
    static constexpr int STAGES = WIDTH == 64 ? 4 : 2, STAGE_BYTES = WAVE_KEYS * (WIDTH + V_WIDTH);
    static constexpr int CODES_SIZE = WAVES * STAGES * STAGE_BYTES / (int)sizeof(element);
    static constexpr int KV_SIZE = CODE_TILES     ? CODES_SIZE
                                   : BUFFERS == 1 ? K_SIZE
                                                  : BUFFERS / 2 * (K_SIZE + V_SIZE);
    static constexpr int SCRATCH = unit::SCRATCH * WAVE_KEYS;
    static constexpr int TILE_BYTES = (Q_TILES * Q_SIZE + KV_SIZE) * (int)sizeof(element);
    static constexpr int OUT_BYTES = WAVES * WAVE_ROWS * OUT_PITCH * (int)sizeof(float);
    static constexpr int TILE_ALIGNMENT = ROLES ? 1024 : BACKGROUND ? 128 : 16;
    static constexpr int SUMS = ROLES ? 1 : WAVES * WAVE_ROWS;
    static constexpr int SHARED_BYTES = (TILE_BYTES > OUT_BYTES ? TILE_BYTES : OUT_BYTES) +
                                        WAVES * SCRATCH * (int)sizeof(float) + TILE_ALIGNMENT - 16;
};

/* ROLES: barriers of rwi_barrier_sync(), for at most three warpgroups of consumers. */
enum {
    ATTENTION_TURN = 1,  /* of each warpgroup, and the one before it */
    ATTENTION_CLEAN = 4, /* of each warpgroup alone */
    ATTENTION_CONSUMERS = 7,
    ATTENTION_COPIERS
};

/* CODE_TILES: of q as f16. */
template <int ROWS> struct attention_scaled_q {
    float unscaled[ROWS]; /* factors of products */
    int has_rest;         /* what f16 lacks is not 0 everywhere */
};
template <> struct attention_scaled_q<0> {};

/* State of an item, in shared memory. */
template <typename Shape>
struct attention_block : attention_scaled_q<Shape::CODE_TILES ? Shape::ROWS : 0> {
    int64_t number; /* of the item; -1: there is none */
    rwi_attention_item item;
    rwi_attention_row rows[Shape::ROWS];
    rwi_span seen;      /* from the first to the last key of the part that any row may see */
    rwi_span nonfinite; /* from the first to the last tile with nonfinite values */
    int missing_page;   /* a page that is needed is invalid */
    uint8_t tiles[Shape::BATCH];
    int64_t pages[Shape::BATCH * Shape::KEYS / 16]; /* page of each tile's keys; -1: invalid */
    int64_t first_page;
    float earlier_base[Shape::SUM_ROWS]; /* of earlier batches; -inf: none */
    float earlier_sum[Shape::SUM_ROWS];  /* finally, of all keys */

    /* ROLES: unused. Of each wave's sums. */
    float base[Shape::SUMS];
    float sum[Shape::SUMS];
    float share[Shape::SUMS];
    float earlier_share[Shape::SUMS];
    rwi_attention_factor end[Shape::SUMS]; /* of the sum of all of them */
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
    int next_stage; /* AHEAD, ROLES: distance from the tiles of k and v to the next ones, or 0 */
    float *out;     /* overlaps all of them */
    float *scratch;
};

template <typename Shape>
__device__ static inline attention_tiles<Shape> attention_find_tiles(uint4 *shared) {
    /* An offset, so that the compiler still knows that the address is one of shared memory. */
    const uintptr_t unused =
        Shape::TILE_ALIGNMENT > 16 ? -(uintptr_t)shared & (Shape::TILE_ALIGNMENT - 1) : 0;
    typename Shape::element *q = (typename Shape::element *)((char *)shared + unused);
    typename Shape::element *k = q + Shape::Q_TILES * Shape::Q_SIZE;
    attention_tiles<Shape> tiles = {q,
                                    k,
                                    Shape::BACKGROUND && !Shape::LATENT ? k + Shape::K_SIZE : k,
                                    Shape::BUFFERS == 4 ? Shape::K_SIZE + Shape::V_SIZE : 0,
                                    (float *)q,
                                    (float *)shared};
    const int wave = (int)threadIdx.x / Shape::unit::LANES;
    tiles.scratch += Shape::SHARED_BYTES / (int)sizeof(float);
    tiles.scratch -= (Shape::WAVES - wave) * Shape::SCRATCH;
    return tiles;
}

/* ---- into shared memory ---- */

/* The number of this thread among those that copy. */
template <typename Shape> __device__ static __forceinline__ int attention_copier() {
    return (int)threadIdx.x - (Shape::BLOCK - Shape::COPIERS);
}

/* A barrier of the threads that copy. */
template <typename Shape> __device__ static __forceinline__ void attention_copiers_sync() {
    if constexpr (Shape::ROLES)
        rwi_barrier_sync(ATTENTION_COPIERS, Shape::COPIERS);
    else
        __syncthreads();
}

constexpr int rwi_power_of_two_below(int n) {
    return n < 2 ? n : 2 * rwi_power_of_two_below(n / 2);
}

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
    for (int n = rwi_computed_here(attention_copier<Shape>()); n < Shape::ROWS * VECTORS;
         n += Shape::COPIERS) {
        const int row = n / VECTORS, column = n % VECTORS * Shape::VECTOR;
        const bool inside = row < t.item.rows && column < launch.op.head_dim;
        const int64_t at = inside ? rwi_attention_at(&launch.op.q, t.item.b, &t.rows[row]) : 0;
        attention_copy<Shape>(tile + Shape::template place<Shape::WIDTH, Shape::ROWS>(row, column),
                              (elements)rwi_global(launch.op.q.data) + at + column, inside,
                              launch.vectors);
    }
}

/* The part of each tile of k or v, of W columns, that a thread copies: its first vector, then every
 * STEP-th key. Threads that are too many copy nothing. */
template <typename Shape, int W> struct attention_share {
    typedef typename Shape::element element;
    typedef typename Shape::kv_element kv_element;
    static constexpr int VECTORS = W / Shape::VECTOR;
    static constexpr int STEP = rwi_power_of_two_below(Shape::COPIERS / VECTORS);
    static constexpr int COUNT = Shape::KEYS / STEP;
    static_assert(Shape::KEYS % STEP == 0, "equal shares");
    int key, column;
    const kv_element *from; /* pages: its column; else also its first key */

    __device__ __forceinline__ attention_share(const attention_launch &launch,
                                               const attention_block<Shape> &t,
                                               const rwi_attention_tensor &tensor) {
        const int copier = attention_copier<Shape>();
        key = copier / VECTORS;
        column = copier % VECTORS * Shape::VECTOR;
        from = (const kv_element *)rwi_global(tensor.data) + t.item.kv_head * tensor.stride[2] +
               column;
        if (!launch.op.pages.table.data)
            from += t.item.b * tensor.stride[0] + key * tensor.stride[1];
    }
    __device__ __forceinline__ bool idle() const {
        return Shape::COPIERS > STEP * VECTORS && key >= STEP;
    }
    /* Where its n-th vector lies in the tile. */
    __device__ __forceinline__ int place(int n) const {
        if constexpr (Shape::ALIGNED && STEP % 8 == 0)
            return Shape::template place<W, Shape::KEYS>(key, column) + n * STEP * Shape::PITCH;
        else
            return Shape::template place<W, Shape::KEYS>(key + n * STEP, column);
    }

    /* Copies keys [j, j + KEYS), of `width` columns; 0 where no row may see them. */
    __device__ __forceinline__ void stage(const attention_launch &launch,
                                          const attention_block<Shape> &t,
                                          const rwi_attention_tensor &tensor, int width, int32_t j,
                                          element *tile) const {
        if (idle())
            return;
        if (launch.op.pages.table.data) {
            if constexpr (Shape::BACKGROUND)
                if (launch.vectors) {
                    stage_page_vectors(launch, t, tensor, width, j, tile);
                    return;
                }
            stage_pages(launch, t, tensor, width, j, tile);
        } else {
            stage_run(launch, t, tensor, width, j, tile);
        }
    }

  private:
    /* Contiguous keys. */
    __device__ __forceinline__ void stage_run(const attention_launch &launch,
                                              const attention_block<Shape> &t,
                                              const rwi_attention_tensor &tensor, int width,
                                              int32_t j, element *tile) const {
        const element *own = from + j * tensor.stride[1];
        const int64_t step = STEP * tensor.stride[1];
        if (launch.vectors && (Shape::BACKGROUND || width == W) && t.seen.begin <= j &&
            t.seen.end - j >= Shape::KEYS) {
#pragma unroll
            for (int n = 0; n < COUNT; n++) {
                if constexpr (Shape::BACKGROUND) /* zeros cost nothing */
                    rwi_async_copy_16(tile + place(n), own, column < width);
                else
                    rwi_async_copy_16(tile + place(n), own);
                own += step;
            }
            return;
        }
        const int begin = t.seen.begin - j, end = column < width ? t.seen.end - j : 0;
#pragma unroll 1
        for (int n = 0; n < COUNT; n++) {
            const int at = key + n * STEP;
            attention_copy<Shape>(tile + place(n), own, at >= begin && at < end, launch.vectors);
            own += step;
        }
    }

    /* Asynchronous copies from pages: 16 keys are on one page, which is looked up once. */
    __device__ __forceinline__ void stage_page_vectors(const attention_launch &launch,
                                                       const attention_block<Shape> &t,
                                                       const rwi_attention_tensor &tensor,
                                                       int width, int32_t j, element *tile) const {
        static_assert(16 % STEP == 0, "a thread's keys");
        const int shift = launch.op.pages.shift;
        const int64_t in_page = ((int64_t)1 << shift) - 1, first_page = t.first_page;
        const int64_t step = STEP * tensor.stride[1];
        const element *own = from + key * tensor.stride[1];
        const int begin = t.seen.begin - j - key, end = column < width ? t.seen.end - j - key : 0;
        int64_t page[Shape::KEYS / 16];
#pragma unroll
        for (int n = 0; n < Shape::KEYS / 16; n++)
            page[n] = t.pages[((int64_t)(j + n * 16) >> shift) - first_page];
#pragma unroll
        for (int n = 0; n < COUNT; n++) {
            const int first = n * STEP / 16 * 16, at = n * STEP;
            const element *base = own + page[first / 16] * tensor.stride[0] +
                                  ((j + first) & in_page) * tensor.stride[1];
            const bool inside = page[first / 16] >= 0 && at >= begin && at < end;
            rwi_async_copy_16(tile + place(n), base + (at - first) / STEP * step, inside);
        }
    }

    __device__ __forceinline__ void stage_pages(const attention_launch &launch,
                                                const attention_block<Shape> &t,
                                                const rwi_attention_tensor &tensor, int width,
                                                int32_t j, element *tile) const {
        /* Some pages are looked up before the keys are copied: a copy would delay the next lookup. */
        constexpr int TOGETHER = COUNT < 4 ? COUNT : 4;
        const int shift = launch.op.pages.shift;
        const int64_t in_page = ((int64_t)1 << shift) - 1, first_page = t.first_page;
        const rwi_span seen = t.seen;
#pragma unroll 1
        for (int first = 0; first < COUNT; first += TOGETHER) {
            int64_t page[TOGETHER];
#pragma unroll
            for (int n = 0; n < TOGETHER; n++)
                page[n] = t.pages[((int64_t)(j + key + (first + n) * STEP) >> shift) - first_page];
#pragma unroll
            for (int n = 0; n < TOGETHER; n++) {
                const int32_t row = j + key + (first + n) * STEP;
                const bool inside = page[n] >= 0 && rwi_span_has(seen, row) && column < width;
                attention_copy<Shape>(tile + place(first + n),
                                      from + page[n] * tensor.stride[0] +
                                          (row & in_page) * tensor.stride[1],
                                      inside, launch.vectors);
            }
        }
    }
};

/* Replaces nonfinite values of v, among those that this thread copied, by 0, since 0 * Inf is NaN
 * for rows that do not see the key. repair() adds them later, for the rows that see them. */
template <typename Shape>
__device__ static inline void attention_zero_nonfinite(const attention_launch &launch,
                                                       attention_block<Shape> &t, int32_t j,
                                                       typename Shape::element *tile) {
    typedef attention_share<Shape, Shape::V_WIDTH> share;
    const share mine(launch, t, launch.op.v);
    bool nonfinite = false;
    if (mine.idle())
        return;
#pragma unroll 1
    for (int n = 0; n < share::COUNT; n++) {
        typename Shape::element *at = tile + mine.place(n);
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

#endif
