/* Part of attention_gpu.h (CODE_TILES): few rows over a cache of codes. Each wave copies its keys
 * to shared memory as codes, a tile or more ahead and without waiting for other waves; a lane reads
 * 16 adjacent codes at a time and converts them to its part of the products' second operands. That
 * columns are then not in order does not matter to a sum of products, if those of q have the same
 * order, nor to the output, which attention_shape::column() finds.
 *
 * Products are of f16, which has every number of both dtypes of codes. q is multiplied by a power
 * of two for each row, so that its largest element is near the largest f16; what an element loses
 * (only one below 2^-28 of the largest can) is multiplied as well, from a second tile. Together they
 * have the elements down to 2^-77 of the largest.
 */
#ifndef RWI_ATTENTION_CODES_H
#define RWI_ATTENTION_CODES_H

#include "attention/attention_scores.h"
#include "attention/attention_stage.h"

/* ---- q ---- */

/* The rest of q is kept times 2^REST_BITS. */
#define REST_BITS 38

/* Where the tile of q has column d: a lane of every four has 16 adjacent codes of 64, of which a
 * product takes four. */
__device__ static __forceinline__ int attention_scaled_place(int d) {
    return d / 64 * 64 + d % 16 / 4 * 16 + d % 4 / 2 * 8 + d % 64 / 16 * 2 + d % 2;
}

/* The power of two that brings a number into [2^14, 2^15), if it is not too small. */
__device__ static __forceinline__ int attention_scale_power(float most) {
    const int power = 14 + 127 - (int)(rwi_f32_bits(most) >> 23);
    return power < 126 ? power : 126;
}

__device__ static __forceinline__ float attention_two_to(int power) {
    return rwi_f32_from_bits((uint32_t)(power + 127) << 23);
}

/* Every wave takes every WAVES-th row, and a lane pairs of columns. */
template <typename Shape>
__device__ static inline void attention_stage_scaled_q(const attention_launch &launch,
                                                       attention_block<Shape> &t,
                                                       typename Shape::element *tile) {
    constexpr int LANES = Shape::unit::LANES, PAIRS = Shape::WIDTH / 2 / LANES;
    const int lane = (int)threadIdx.x % LANES;
    const void *q = rwi_global(launch.op.q.data);
    if (threadIdx.x == 0)
        t.has_rest = 0;
    __syncthreads();
#pragma unroll 1
    for (int row = (int)threadIdx.x / LANES; row < Shape::ROWS; row += Shape::WAVES) {
        const bool inside = row < t.item.rows;
        const int64_t at = inside ? rwi_attention_at(&launch.op.q, t.item.b, &t.rows[row]) : 0;
        float x[2 * PAIRS], most = 0.0f;
#pragma unroll
        for (int n = 0; n < 2 * PAIRS; n++) {
            const int d = n / 2 * 2 * LANES + lane * 2 + n % 2;
            x[n] = inside && d < launch.op.head_dim ? rwi_load(Shape::DTYPE, q, at + d) : 0.0f;
            if (fabsf(x[n]) < INFINITY)
                most = fmaxf(most, fabsf(x[n]));
        }
#pragma unroll
        for (int distance = 1; distance < LANES; distance *= 2)
            most = fmaxf(most, __shfl_xor(most, distance));
        const int power = attention_scale_power(most);
        const float factor = attention_two_to(power);
        t.unscaled[row] = attention_two_to(-power); /* all lanes write the same value */
#pragma unroll
        for (int n = 0; n < PAIRS; n++) {
            float rest[2];
            const float first = x[2 * n] * factor, second = x[2 * n + 1] * factor;
            const uint32_t pair = rwi_pack_halves<RW_F16>(first, second);
            rest[0] = first - rwi_unpack_half<RW_F16>(pair, 0);
            rest[1] = second - rwi_unpack_half<RW_F16>(pair, 1);
            const bool has_rest = fabsf(rest[0]) + fabsf(rest[1]) > 0.0f; /* not NaN, of Inf */
            typename Shape::element *to =
                tile + row * Shape::PITCH + attention_scaled_place(n * 2 * LANES + lane * 2);
            *(uint32_t *)to = pair;
            *(uint32_t *)(to + Shape::Q_SIZE) =
                has_rest ? rwi_pack_halves<RW_F16>(rest[0] * attention_two_to(REST_BITS),
                                                   rest[1] * attention_two_to(REST_BITS))
                         : 0;
            if (has_rest)
                t.has_rest = 1; /* every writing thread writes 1 */
        }
    }
}

/* ---- codes ---- */

/* Copies 16 codes of adjacent columns, of which `left` exist: 0 for others. `vectors`: `from` is a
 * multiple of 16. */
__device__ static __forceinline__ void attention_copy_codes(uint8_t *to, const uint8_t *from,
                                                            int left, bool vectors) {
    if (vectors && (left >= 16 || left <= 0)) {
        rwi_async_copy_16(to, from, left > 0);
        return;
    }
    const bool halves = (uintptr_t)from % 8 == 0;
#pragma unroll 1
    for (int first = 0; first < 16; first += 8) {
        if (halves && left - first >= 8) {
            *(uint64_t *)(to + first) = *(const uint64_t *)(from + first);
            continue;
        }
#pragma unroll 1
        for (int n = first; n < first + 8; n++)
            to[n] = n < left ? from[n] : 0;
    }
}

/* COUNT adjacent codes. */
template <int COUNT> struct attention_code_row {
    uint32_t words[COUNT / 4];

    __device__ __forceinline__ explicit attention_code_row(const uint8_t *from) {
        if constexpr (COUNT == 16) {
            const uint4 codes = *(const uint4 *)from;
            words[0] = codes.x, words[1] = codes.y, words[2] = codes.z, words[3] = codes.w;
        } else {
            const uint2 codes = *(const uint2 *)from;
            words[0] = codes.x, words[1] = codes.y;
        }
    }
};

/* Where column `column` of key `key` lies in a wave's tile of W columns. Groups of 32 bytes change
 * places within a row, so that the lanes of a load of k or v need different banks (of v of 64
 * columns, two of them the same), but stay together: a copy of half of them would read both from the
 * second-level cache twice. */
template <int W> __device__ static __forceinline__ int attention_code_place(int key, int column) {
    const int moved = W == 64 ? key / 2 % 2 * 2 : key % 2 * 4 ^ key / 2 % 4 * 2;
    return key * W + (column ^ moved * 16);
}

/* Bytes of two words in turn: the lower or the upper two of each. */
__device__ static __forceinline__ uint32_t attention_zip_codes(uint32_t a, uint32_t b, bool upper) {
#if defined(__CUDA_ARCH__)
    return __byte_perm(a, b, upper ? 0x7362 : 0x5140);
#else
    const int shift = upper ? 16 : 0;
    const uint32_t x = a >> shift, y = b >> shift;
    return (x & 0xFF) | (y & 0xFF) << 8 | (x & 0xFF00) << 8 | (y & 0xFF00) << 16;
#endif
}

/* The numbers of four codes. */
template <rw_dtype CODE>
__device__ static __forceinline__ void attention_convert_four(uint32_t codes, uint32_t &low,
                                                              uint32_t &high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    if constexpr (CODE == RW_F8_E4M3)
        asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2;\n"
            "cvt.rn.f16x2.e4m3x2 %0, l; cvt.rn.f16x2.e4m3x2 %1, h; }"
            : "=r"(low), "=r"(high)
            : "r"(codes));
    else
        asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2;\n"
            "cvt.rn.f16x2.e5m2x2 %0, l; cvt.rn.f16x2.e5m2x2 %1, h; }"
            : "=r"(low), "=r"(high)
            : "r"(codes));
#else
    low = attention_convert_word<RW_F16, CODE>(codes & 0xFFFFu);
    high = attention_convert_word<RW_F16, CODE>(codes >> 16);
#endif
}

/* A wave's tiles of codes. Of each 16 keys, in the order of the unit's operands, a lane needs of k
 * 16 codes of every 64, of keys lane / 4 and + 8; of v an eighth of the columns, of keys
 * 2 (lane % 4) + {0, 1} and + 8. */
template <typename Shape> struct attention_code_tiles {
    typedef typename Shape::unit unit;
    typedef typename Shape::product product;
    typedef typename Shape::element element;
    static constexpr int N_KEYS = Shape::N_KEYS, N_COLUMNS = Shape::N_COLUMNS;
    static constexpr int LANES = unit::LANES, WIDTH = Shape::WIDTH, EIGHTH = WIDTH / 8;
    static_assert(Shape::V_WIDTH == WIDTH, "k and v are copied alike");
    uint8_t *k, *v; /* of the first stage */

    __device__ __forceinline__ explicit attention_code_tiles(const attention_tiles<Shape> &tiles) {
        const int wave = (int)threadIdx.x / LANES;
        k = (uint8_t *)tiles.k + wave * Shape::STAGES * Shape::STAGE_BYTES;
        v = k + Shape::WAVE_KEYS * WIDTH;
    }

    /* Starts the copies of a wave's keys, from j on, to stage `to`. */
    __device__ __forceinline__ void copy(const attention_launch &launch,
                                         const attention_block<Shape> &t, int32_t j, int to) const {
        copy_rows(launch, t, launch.op.k, launch.op.head_dim, j, k + to * Shape::STAGE_BYTES);
        copy_rows(launch, t, launch.op.v, launch.op.v_dim, j, v + to * Shape::STAGE_BYTES);
    }

    /* Products of q and k. */
    __device__ __forceinline__ void scores(const attention_launch &launch,
                                           const attention_block<Shape> &t, const element *q,
                                           int from, product (&s)[N_KEYS]) const {
        const int lane = (int)threadIdx.x % LANES;
        const uint8_t *own_k = k + from * Shape::STAGE_BYTES;
        add_products(launch, q, own_k, s);
        if (t.has_rest) {
            product rest[N_KEYS] = {};
            add_products(launch, q + Shape::Q_SIZE, own_k, rest);
#pragma unroll
            for (int n = 0; n < N_KEYS; n++)
#pragma unroll
                for (int i = 0; i < unit::QUERIES * unit::KEYS; i++)
                    add_rest(s[n].x[i / unit::KEYS][i % unit::KEYS],
                             rest[n].x[i / unit::KEYS][i % unit::KEYS]);
        }
#pragma unroll
        for (int i = 0; i < unit::QUERIES; i++) {
            const float unscaled = t.unscaled[unit::query(lane, i)];
            attention_each_key<Shape>(s, i, [&](float &x, int) { x *= unscaled; });
        }
    }

    /* What attention_zero_nonfinite() does; the keys are those from j on. */
    __device__ __forceinline__ void zero_nonfinite(const attention_launch &launch,
                                                   attention_block<Shape> &t, int32_t j,
                                                   int from) const {
        const rwi_f8_format format = rwi_f8_format_of(launch.op.kv_dtype);
        uint32_t *words = (uint32_t *)(v + from * Shape::STAGE_BYTES), any = 0;
#pragma unroll 1
        for (int n = (int)threadIdx.x % LANES; n < Shape::WAVE_KEYS * WIDTH / 4; n += LANES) {
            const uint32_t special = rwi_f8_special_bits(format, words[n]);
            words[n] &= ~((special >> 7) * 0xFFu);
            any |= special;
        }
        if (any != 0) {
            atomicMin(&t.nonfinite.begin, j);
            atomicMax(&t.nonfinite.end, (int32_t)rwi_min((int64_t)j + Shape::WAVE_KEYS, INT32_MAX));
        }
        rwi_wave_sync();
    }

    /* Adds the weighted values to the output. */
    __device__ __forceinline__ void values(const attention_launch &launch, int from,
                                           product (&out)[N_COLUMNS],
                                           const product (&w)[N_KEYS]) const {
        const uint8_t *own_v = v + from * Shape::STAGE_BYTES;
        if (launch.op.kv_dtype == RW_F8_E4M3)
            add_values<RW_F8_E4M3>(own_v, out, w);
        else
            add_values<RW_F8_E5M2>(own_v, out, w);
    }

  private:
    /* Where k is infinite, an element without a rest, or whose rest is all of it, makes one of the two
     * NaN: 0 * Inf. */
    __device__ static __forceinline__ void add_rest(float &x, float rest) {
        if (x != x)
            x = rest;
        else if (rest == rest)
            x = fmaf(rest, attention_two_to(-REST_BITS), x);
    }

    /* Adjacent lanes copy adjacent codes. */
    __device__ static __forceinline__ void copy_rows(const attention_launch &launch,
                                                     const attention_block<Shape> &t,
                                                     const rwi_attention_tensor &tensor, int width,
                                                     int32_t j, uint8_t *to) {
        constexpr int VECTORS = WIDTH / 16, STEP = LANES / VECTORS;
        const rwi_kv_pages &pages = launch.op.pages;
        const int lane = (int)threadIdx.x % LANES, key = lane / VECTORS;
        const int column = lane % VECTORS * 16;
        const int64_t step = tensor.stride[1];
        const uint8_t *first = (const uint8_t *)rwi_global(tensor.data) +
                               t.item.kv_head * tensor.stride[2] + key * step + column;
        const bool whole = launch.code_vectors && width % 16 == 0 && t.seen.begin <= j &&
                           t.seen.end - j >= Shape::WAVE_KEYS;
#pragma unroll
        for (int n = 0; n < Shape::WAVE_KEYS; n += 16) {
            int64_t page = t.item.b, row = j + n;
            if (pages.table.data) {
                page = t.pages[(row >> pages.shift) - t.first_page];
                row &= ((int64_t)1 << pages.shift) - 1;
            }
            const uint8_t *from = first + page * tensor.stride[0] + row * step;
            if (whole && page >= 0) {
#pragma unroll
                for (int i = 0; i < 16; i += STEP)
                    rwi_async_copy_16(to + attention_code_place<WIDTH>(n + i + key, column),
                                      from + i * step, column < width);
                continue;
            }
#pragma unroll 1
            for (int i = 0; i < 16; i += STEP) {
                const bool inside = page >= 0 && rwi_span_has(t.seen, j + n + i + key);
                attention_copy_codes(to + attention_code_place<WIDTH>(n + i + key, column),
                                     from + i * step, inside ? width - column : 0,
                                     launch.code_vectors);
            }
        }
    }

    __device__ static __forceinline__ void add_products(const attention_launch &launch,
                                                        const element *q, const uint8_t *k,
                                                        product (&s)[N_KEYS]) {
        if (launch.op.kv_dtype == RW_F8_E4M3)
            add_products_of<RW_F8_E4M3>(q, k, s);
        else
            add_products_of<RW_F8_E5M2>(q, k, s);
    }

    template <rw_dtype CODE>
    __device__ static __forceinline__ void add_products_of(const element *q, const uint8_t *k,
                                                           product (&s)[N_KEYS]) {
        const int lane = (int)__lane_id(), row = lane % 8, matrix = lane / 8;
        const element *from = q + (matrix % 2 * 8 + row) * Shape::PITCH + matrix / 2 * 8;
#pragma unroll
        for (int span = 0; span < WIDTH; span += 64) {
            const uint8_t *codes = k + attention_code_place<WIDTH>(lane / 4, span + lane % 4 * 16);
            uint32_t a[4][1][4];
#pragma unroll
            for (int step = 0; step < 4; step++)
                rwi_ldmatrix(a[step][0], from + span + step * 16);
#pragma unroll
            for (int n = 0; n < N_KEYS; n++) {
                const attention_code_row<16> low(codes + n * 16 * WIDTH);
                const attention_code_row<16> high(codes + (n * 16 + 8) * WIDTH);
#pragma unroll
                for (int step = 0; step < 4; step++) {
                    uint32_t b[4];
                    attention_convert_four<CODE>(low.words[step], b[0], b[1]);
                    attention_convert_four<CODE>(high.words[step], b[2], b[3]);
                    unit::multiply(s[n], a[step], b);
                }
            }
        }
    }

    template <rw_dtype CODE>
    __device__ static __forceinline__ void add_values(const uint8_t *v, product (&out)[N_COLUMNS],
                                                      const product (&w)[N_KEYS]) {
        const int lane = (int)threadIdx.x % LANES, column = lane / 4 * EIGHTH;
        const uint8_t *codes[2];
#pragma unroll
        for (int i = 0; i < 2; i++)
            codes[i] =
                v + attention_code_place<WIDTH>(lane % 4 * 2 + i, column / 16 * 16) + column % 16;
        uint32_t a[N_KEYS][1][4];
#pragma unroll
        for (int n = 0; n < N_KEYS; n++)
            unit::pack_weights(w[n], a[n]);
#pragma unroll
        for (int part = 0; part < N_COLUMNS / 2; part++) { /* four codes of each key */
            product tile[2] = {};
#pragma unroll
            for (int n = 0; n < N_KEYS; n++) {
                uint32_t words[4];
#pragma unroll
                for (int i = 0; i < 4; i++)
                    words[i] =
                        attention_code_row<EIGHTH>(codes[i % 2] + (n * 16 + i / 2 * 8) * WIDTH)
                            .words[part];
#pragma unroll
                for (int upper = 0; upper < 2; upper++) {
                    uint32_t b[4];
                    attention_convert_four<CODE>(attention_zip_codes(words[0], words[1], upper),
                                                 b[0], b[2]);
                    attention_convert_four<CODE>(attention_zip_codes(words[2], words[3], upper),
                                                 b[1], b[3]);
                    unit::multiply(tile[upper], a[n], b);
                }
            }
#pragma unroll
            for (int i = 0; i < 2 * unit::QUERIES * unit::KEYS; i++) {
                const int q = i / 2 / unit::KEYS, e = i / 2 % unit::KEYS;
                out[part * 2 + i % 2].x[q][e] += tile[i % 2].x[q][e];
            }
        }
    }
};

/* `count` tiles of keys from tile `first` on; each wave takes its own keys of each. */
template <typename Shape>
__device__ static __forceinline__ void
attend_codes(const attention_launch &launch, attention_block<Shape> &t,
             const attention_tiles<Shape> &tiles, attention_thread<Shape> &mine, int32_t first,
             int count) {
    constexpr int AHEAD = Shape::STAGES - 1;
    const int own = (int)threadIdx.x / Shape::unit::LANES * Shape::WAVE_KEYS;
    const attention_code_tiles<Shape> codes(tiles);
    int n = next_tile(t, 0, count), next = n, stage = 0;
#pragma unroll 1
    for (int i = 0; i < AHEAD; i++) {
        if (next < count) {
            codes.copy(launch, t, attention_key<Shape>(t, first + next) + own, i);
            next = next_tile(t, next + 1, count);
        }
        rwi_async_commit();
    }
#pragma unroll 1
    while (n < count) {
        const int32_t j = attention_key<Shape>(t, first + n) + own;
        const bool all = t.tiles[n] == RW_TILE_ALL;
        rwi_async_wait_groups<AHEAD - 1>();
        rwi_wave_sync(); /* the tile has arrived, and the previous one was read */
        if (next < count) {
            codes.copy(launch, t, attention_key<Shape>(t, first + next) + own,
                       stage == 0 ? AHEAD : stage - 1);
            next = next_tile(t, next + 1, count);
        }
        rwi_async_commit();
        typename Shape::product s[Shape::N_KEYS] = {};
        codes.scores(launch, t, tiles.q, stage, s);
        attention_score<Shape>(launch, t, s, t.rows, j, all, mine.plain);
        float kept[Shape::unit::QUERIES];
        attention_weigh<Shape>(s, mine, kept);
        attention_rescale<Shape>(kept, mine);
        if (!all)
            codes.zero_nonfinite(launch, t, j, stage);
        codes.values(launch, stage, mine.out, s);
        stage = stage == AHEAD ? 0 : stage + 1;
        n = next_tile(t, n + 1, count);
    }
}

#endif
