/* Part of attention_gpu.h: tiles of k and v into shared memory, and codes on their way: an 8-bit
 * cache is converted to the dtype of q. */
#ifndef RWI_ATTENTION_STAGE_H
#define RWI_ATTENTION_STAGE_H

#include "attention/attention_tile.h"

/* VECTOR codes at `from`, or zeros; `vectors`: their address is a multiple of VECTOR. */
template <typename Shape>
__device__ static __forceinline__ typename Shape::codes
attention_read_codes(const uint8_t *from, bool inside, bool vectors) {
    typename Shape::codes codes = 0;
    if (inside && vectors) {
        codes = *(const typename Shape::codes *)from;
    } else if (inside) {
#pragma unroll 1
        for (int n = 0; n < Shape::VECTOR; n++)
            codes |= (typename Shape::codes)from[n] << n * 8;
    }
    return codes;
}

/* The same, of which `left` exist: 0 for others. */
template <typename Shape>
__device__ static __forceinline__ typename Shape::codes
attention_read_some_codes(const uint8_t *from, int left, bool vectors) {
    if (left >= Shape::VECTOR)
        return attention_read_codes<Shape>(from, true, vectors);
    typename Shape::codes codes = 0;
#pragma unroll 1
    for (int n = 0; n < left; n++)
        codes |= (typename Shape::codes)from[n] << n * 8;
    return codes;
}

/* Two codes, in the low bytes, as elements of D in a word; of f32 one code. */
template <rw_dtype D, rw_dtype CODE>
__device__ static __forceinline__ uint32_t attention_convert_word(uint32_t codes) {
    constexpr int COUNT = D == RW_F32 ? 1 : 2;
    float x[2];
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    uint32_t halves; /* f16 holds every number of both */
    if constexpr (CODE == RW_F8_E4M3)
        asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"((uint16_t)codes));
    else
        asm("cvt.rn.f16x2.e5m2x2 %0, %1;" : "=r"(halves) : "h"((uint16_t)codes));
    if constexpr (D == RW_F16)
        return halves;
#pragma unroll
    for (int n = 0; n < COUNT; n++)
        x[n] = rwi_unpack_half<RW_F16>(halves, n);
#else
    const rwi_f8_format format = rwi_f8_format_of(CODE);
#pragma unroll
    for (int n = 0; n < COUNT; n++)
        x[n] = rwi_f8_number(format, codes, n);
    if (rwi_f8_any_special(format, codes & (COUNT == 2 ? 0xFFFFu : 0xFFu))) {
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            x[n] = rwi_f8_to_f32(CODE, (uint8_t)(codes >> n * 8));
    }
#endif
    if constexpr (D == RW_F32)
        return rwi_f32_bits(x[0]);
    else
        return rwi_pack_exact_halves<D>(x[0], x[1]);
}

/* The numbers of VECTOR codes, a word at a time, for fewer registers. */
template <typename Shape, rw_dtype CODE>
__device__ static __forceinline__ void attention_convert(typename Shape::element *to,
                                                         typename Shape::codes codes) {
    rwi_packed<Shape::DTYPE, Shape::VECTOR> numbers;
#pragma unroll
    for (int word = 0; word < 4; word++) {
        const uint32_t some = (uint32_t)(codes >> word * Shape::VECTOR / 4 * 8);
        const uint32_t bits = attention_convert_word<Shape::DTYPE, CODE>(some);
        numbers.words[word] = (uint32_t)rwi_computed_here((int)bits);
    }
    rwi_store_packed(to, 0, numbers);
}

/* N of the vectors that a thread has of each tile of k or v, of W columns. */
template <typename Shape, int W, int N> struct attention_codes {
    typedef attention_share<Shape, W> share;
    static_assert(Shape::COPIERS == share::STEP * share::VECTORS, "no thread is idle");
    typename Shape::codes codes[N];

    /* Of keys [j, j + KEYS), from the first-th on; 0 where no row may see them. */
    __device__ __forceinline__ void read(const attention_launch &launch,
                                         const attention_block<Shape> &t, const share &mine,
                                         const rwi_attention_tensor &tensor, int width, int32_t j,
                                         int first) {
        if (launch.op.pages.table.data)
            read_pages(launch, t, mine, tensor, width, j + first * share::STEP);
        else
            read_run(launch, t, mine, tensor, width, j + first * share::STEP);
    }
    __device__ __forceinline__ void convert(const share &mine, rw_dtype dtype, int first,
                                            typename Shape::element *tile) const {
        if (dtype == RW_F8_E4M3)
            convert_all<RW_F8_E4M3>(mine, first, tile);
        else
            convert_all<RW_F8_E5M2>(mine, first, tile);
    }

  private:
    /* Contiguous keys. */
    __device__ __forceinline__ void read_run(const attention_launch &launch,
                                             const attention_block<Shape> &t, const share &mine,
                                             const rwi_attention_tensor &tensor, int width,
                                             int32_t j) {
        const uint8_t *own = mine.from + j * tensor.stride[1];
        const int64_t step = share::STEP * tensor.stride[1];
        if (launch.code_vectors && width == W && t.seen.begin <= j &&
            t.seen.end - j >= N * share::STEP) {
#pragma unroll
            for (int n = 0; n < N; n++) {
                codes[n] = *(const typename Shape::codes *)own;
                own += step;
            }
            return;
        }
        const int begin = t.seen.begin - j, end = mine.column < width ? t.seen.end - j : 0;
#pragma unroll
        for (int n = 0; n < N; n++) {
            const int at = mine.key + n * share::STEP;
            codes[n] =
                attention_read_codes<Shape>(own, at >= begin && at < end, launch.code_vectors);
            own += step;
        }
    }
    __device__ __forceinline__ void read_pages(const attention_launch &launch,
                                               const attention_block<Shape> &t, const share &mine,
                                               const rwi_attention_tensor &tensor, int width,
                                               int32_t j) {
        const int shift = launch.op.pages.shift;
        const int64_t in_page = ((int64_t)1 << shift) - 1;
#pragma unroll
        for (int n = 0; n < N; n++) {
            const int32_t row = j + mine.key + n * share::STEP;
            const int64_t page = t.pages[((int64_t)row >> shift) - t.first_page];
            codes[n] = attention_read_codes<Shape>(
                mine.from + page * tensor.stride[0] + (row & in_page) * tensor.stride[1],
                page >= 0 && rwi_span_has(t.seen, row) && mine.column < width, launch.code_vectors);
        }
    }
    template <rw_dtype CODE>
    __device__ __forceinline__ void convert_all(const share &mine, int first,
                                                typename Shape::element *tile) const {
#pragma unroll
        for (int n = 0; n < N; n++)
            attention_convert<Shape, CODE>(tile + mine.place(first + n), codes[n]);
    }
};

/* Reads some codes before it converts the first of them. */
template <typename Shape, int W>
__device__ static __forceinline__ void
stage_codes(const attention_launch &launch, const attention_block<Shape> &t,
            const attention_share<Shape, W> &mine, const rwi_attention_tensor &tensor, int width,
            int32_t j, typename Shape::element *tile) {
    constexpr int COUNT = attention_share<Shape, W>::COUNT;
    /* Many rows and wide ones leave few registers for it. */
    constexpr int MOST = !Shape::FEW ? 1 : W > 128 ? 2 : 8, TOGETHER = COUNT < MOST ? COUNT : MOST;
#pragma unroll 1
    for (int first = 0; first < COUNT; first += TOGETHER) {
        attention_codes<Shape, W, TOGETHER> some;
        some.read(launch, t, mine, tensor, width, j, first);
        some.convert(mine, launch.op.kv_dtype, first, tile);
    }
}

/* Keys [j, j + KEYS) of k. */
template <typename Shape>
__device__ static inline void stage_k(const attention_launch &launch,
                                      const attention_block<Shape> &t, int32_t j,
                                      typename Shape::element *tile) {
    const attention_share<Shape, Shape::WIDTH> mine(launch, t, launch.op.k);
    if constexpr (Shape::CODES)
        stage_codes(launch, t, mine, launch.op.k, launch.op.head_dim, j, tile);
    else
        mine.stage(launch, t, launch.op.k, launch.op.head_dim, j, tile);
}

template <typename Shape>
__device__ static inline void stage_v(const attention_launch &launch,
                                      const attention_block<Shape> &t, int32_t j,
                                      typename Shape::element *tile) {
    const attention_share<Shape, Shape::V_WIDTH> mine(launch, t, launch.op.v);
    if constexpr (Shape::CODES)
        stage_codes(launch, t, mine, launch.op.v, launch.op.v_dim, j, tile);
    else
        mine.stage(launch, t, launch.op.v, launch.op.v_dim, j, tile);
}

/* AHEAD: the next tiles of k and v, on their way while the current ones are multiplied. Copies need
 * nothing else; KEEPS_CODES: codes are in registers until finish(), and replace the current tiles. */
template <typename Shape> struct attention_next_tiles {
    static constexpr bool KEEPS = Shape::KEEPS_CODES;
    typedef attention_share<Shape, Shape::WIDTH> k_share;
    typedef attention_share<Shape, Shape::V_WIDTH> v_share;
    attention_codes<Shape, Shape::WIDTH, KEEPS ? k_share::COUNT : 1> k;
    attention_codes<Shape, Shape::V_WIDTH, KEEPS ? v_share::COUNT : 1> v;

    __device__ __forceinline__ void start(const attention_launch &launch,
                                          const attention_block<Shape> &t,
                                          const attention_tiles<Shape> &tiles, int32_t j) {
        if constexpr (KEEPS) {
            k.read(launch, t, k_share(launch, t, launch.op.k), launch.op.k, launch.op.head_dim, j,
                   0);
            v.read(launch, t, v_share(launch, t, launch.op.v), launch.op.v, launch.op.v_dim, j, 0);
        } else {
            stage_k(launch, t, j, tiles.k + tiles.next_stage);
            stage_v(launch, t, j, tiles.v + tiles.next_stage);
        }
    }
    __device__ __forceinline__ void finish(const attention_launch &launch,
                                           const attention_block<Shape> &t,
                                           const attention_tiles<Shape> &tiles) const {
        if constexpr (KEEPS) {
            __syncthreads(); /* the current tiles were read */
            k.convert(k_share(launch, t, launch.op.k), launch.op.kv_dtype, 0, tiles.k);
            v.convert(v_share(launch, t, launch.op.v), launch.op.kv_dtype, 0, tiles.v);
        }
    }
};

#endif
