/* The matrix units of AMD's GPUs, for attention: MFMA (gfx90a, gfx942), WMMA (gfx11, gfx12).
 *
 * One wave computes 16 * M queries by 16 keys, or by 16 columns of v, at a time. Both products are
 * computed transposed, scores^T = k q^T and out^T = v^T w^T, so that a lane's column is a query in
 * both, and the results of the first product are the operands of the second without moving. Only
 * gfx11, which requires operands duplicated in both halves of a wave, moves them between lanes.
 *
 * A product does not depend on the order of the summed index, provided that both operands use the
 * same order.
 *
 * gfx90a flushes subnormal f16 and bf16 to 0.
 *
 * Layouts: AMD's matrix instruction calculator (github.com/ROCm/amd_matrix_instruction_calculator).
 */
#ifndef RWI_MMA_AMD_H
#define RWI_MMA_AMD_H

#include "gpu/mma_arch.h"
#include "gpu/registers.h"
#include "shared/dtype.h"

/* ---- operand types ---- */

#if defined(__HIP__)
template <typename T, int N> using rwi_registers = T __attribute__((ext_vector_type(N)));
#else
template <typename T, int N> struct rwi_registers {
    T x[N];
    __device__ T &operator[](int i) {
        return x[i];
    }
    __device__ const T &operator[](int i) const {
        return x[i];
    }
};
#endif

/* Instructions for f16 take __half vectors; the emulator takes their bits. */
#if defined(__HIP_PLATFORM_EMULATED__)
template <int N>
__device__ static inline rwi_registers<short, N> rwi_as_halves(rwi_registers<short, N> bits) {
    return bits;
}
#elif defined(RWI_HAS_MFMA) || defined(RWI_HAS_WMMA) || defined(RWI_HAS_WMMA12)
template <int N>
__device__ static inline rwi_registers<_Float16, N> rwi_as_halves(rwi_registers<short, N> bits) {
    return __builtin_bit_cast(rwi_registers<_Float16, N>, bits);
}
#endif

/* For GPUs without the instruction, and for the host: kernels are compiled but never launched. */
template <typename Factor, typename Sum>
__device__ static inline Sum rwi_no_matrix_unit(const Factor &, const Factor &, const Sum &c) {
#if defined(__HIP_DEVICE_COMPILE__) && __HIP_DEVICE_COMPILE__
    __builtin_trap();
#elif defined(__CUDA_ARCH__)
    __trap();
#endif
    return c;
}

template <rw_dtype D> __device__ static inline uint16_t rwi_to_bits(float x) {
    static_assert(D == RW_F16 || D == RW_BF16, "matrix units multiply 16 bits");
    return D == RW_F16 ? rwi_f32_to_f16(x) : rwi_f32_to_bf16(x);
}

/* ---- instructions: d = a b + c, of 16 x 16 each ----
 *
 * A lane holds elements of row lane % 16 of a, of column lane % 16 of b and of d.
 *   share(lane)   index of the share of that row, and of b's column, that the lane holds
 *   rest()        a barrier that the compiler does not move loads across
 *   joining(x)    x, to be added to a sum; computed at this point where registers are few
 *   key(lane, e)  the row of d of element e
 *   order(i)      the key of element i in the second product, relative to the lane's first key
 *   weights       converts d of the first product to b of the second
 */

template <rw_dtype D> struct rwi_mfma_unit {
    static constexpr int LANES = 64;
    typedef rwi_registers<short, 4> factor;
    typedef rwi_registers<float, 4> sum;

    __device__ static inline int share(int lane) {
        return lane / 16;
    }
    __device__ static inline void rest() {}
    __device__ static inline float joining(float x) {
        return x;
    }
    __device__ static constexpr int key(int lane, int e) {
        return lane / 16 * 4 + e;
    }
    __device__ static inline int order(int i) {
        return i;
    }
    __device__ static inline factor weights(const float (&x)[4], int) {
        factor w;
#pragma unroll
        for (int e = 0; e < 4; e++)
            w[e] = (short)rwi_to_bits<D>(x[e]);
        return w;
    }
    __device__ static inline sum multiply(const factor &a, const factor &b, const sum &c) {
#if defined(RWI_HAS_MFMA)
        if constexpr (D == RW_F16)
            return __builtin_amdgcn_mfma_f32_16x16x16f16(rwi_as_halves<4>(a), rwi_as_halves<4>(b),
                                                         c, 0, 0, 0);
        else
            return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, c, 0, 0, 0);
#else
        return rwi_no_matrix_unit(a, b, c);
#endif
    }
};

/* d: lanes 0 to 15 hold the even rows, lanes 16 to 31 the odd ones; both halves hold all of a and
 * b. */
template <rw_dtype D> struct rwi_wmma_unit {
    static constexpr int LANES = 32;
    typedef rwi_registers<short, 16> factor;
    typedef rwi_registers<float, 8> sum;

    __device__ static inline int share(int) {
        return 0;
    }
    /* Prevents loads from being moved ahead: prefetched operands of 8 registers would use all
     * registers. */
    __device__ static inline void rest() {
#if defined(__HIP_DEVICE_COMPILE__) && defined(RWI_HAS_WMMA)
        asm volatile("" ::: "memory");
#endif
    }
    __device__ static inline float joining(float x) {
        return rwi_computed_here(x);
    }
    __device__ static constexpr int key(int lane, int e) {
        return 2 * e + lane / 16;
    }
    /* Even keys before odd ones, so that weights move in pairs. */
    __device__ static inline int order(int i) {
        return i % 8 * 2 + i / 8;
    }
    __device__ static inline factor weights(const float (&x)[8], int lane) {
        factor w;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t high = rwi_to_bits<D>(x[2 * i + 1]);
            const uint32_t own = high << 16 | rwi_to_bits<D>(x[2 * i]);
            const uint32_t other = __shfl_xor(own, 16);
            const uint32_t even = lane < 16 ? own : other, odd = lane < 16 ? other : own;
            w[2 * i] = (short)even;
            w[2 * i + 1] = (short)(even >> 16);
            w[2 * i + 8] = (short)odd;
            w[2 * i + 9] = (short)(odd >> 16);
        }
        return w;
    }
    __device__ static inline sum multiply(const factor &a, const factor &b, const sum &c) {
#if defined(RWI_HAS_WMMA)
        if constexpr (D == RW_F16)
            return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(rwi_as_halves<16>(a),
                                                              rwi_as_halves<16>(b), c);
        else
            return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, c);
#else
        return rwi_no_matrix_unit(a, b, c);
#endif
    }
};

template <rw_dtype D> struct rwi_wmma12_unit {
    static constexpr int LANES = 32;
    typedef rwi_registers<short, 8> factor;
    typedef rwi_registers<float, 8> sum;

    __device__ static inline int share(int lane) {
        return lane / 16;
    }
    __device__ static inline void rest() {}
    __device__ static inline float joining(float x) {
        return rwi_computed_here(x);
    }
    __device__ static constexpr int key(int lane, int e) {
        return lane / 16 * 8 + e;
    }
    __device__ static inline int order(int i) {
        return i;
    }
    __device__ static inline factor weights(const float (&x)[8], int) {
        factor w;
#pragma unroll
        for (int e = 0; e < 8; e++)
            w[e] = (short)rwi_to_bits<D>(x[e]);
        return w;
    }
    __device__ static inline sum multiply(const factor &a, const factor &b, const sum &c) {
#if defined(RWI_HAS_WMMA12)
        if constexpr (D == RW_F16)
            return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(rwi_as_halves<8>(a),
                                                                    rwi_as_halves<8>(b), c);
        else
            return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, c);
#else
        return rwi_no_matrix_unit(a, b, c);
#endif
    }
};

/* ---- attention's two products ---- */

template <typename Unit, int M> struct rwi_mma_amd {
    typedef uint16_t element; /* storage type of q, k and v in shared memory */
    static constexpr int LANES = Unit::LANES;
    static constexpr int QUERIES = M; /* queries of a lane, of 16 M */
    static constexpr int KEYS = (int)(sizeof(typename Unit::sum) / sizeof(float)); /* of 16 */
    static constexpr int SCRATCH = 0;

    struct product {
        float x[QUERIES][KEYS];
    };

    /* The query, 0 .. 16 M - 1, of x[q][.]. */
    __device__ static inline int query(int lane, int q) {
        return q * 16 + lane % 16;
    }

    /* The key, 0 .. 15, of x[.][e]. */
    __device__ static constexpr int key(int lane, int e) {
        return Unit::key(lane, e);
    }

    /* s[n] += q k^T: q has 16 M rows and k 16 N rows of WIDTH elements, `pitch` elements apart, on
     * multiples of 16 bytes. */
    template <int WIDTH, int N>
    __device__ static __forceinline__ void scores(product (&s)[N], const element *q,
                                                  const element *k, int pitch) {
        static_assert(WIDTH % 16 == 0, "products are 16 columns deep");
        constexpr int TOGETHER = 16 / sizeof(factor) > 1 ? 16 / sizeof(factor) : 1;
#pragma unroll
        for (int d = 0; d + 16 * TOGETHER <= WIDTH; d += 16 * TOGETHER) {
            add_columns<TOGETHER>(s, q + d, k + d, pitch);
            Unit::rest();
        }
        if constexpr (WIDTH % (16 * TOGETHER) != 0)
            add_columns<1>(s, q + WIDTH - 16, k + WIDTH - 16, pitch);
    }

    /* The column of v, 0 .. 16 N - 1, of out[c].x[.][e]; the columns of a lane are adjacent. */
    template <int N> __device__ static inline int column(int lane, int c, int e) {
        constexpr int NEXT = next_columns<N>;
        return c / NEXT * NEXT * 16 + Unit::key(lane, e) * NEXT + c % NEXT;
    }

    /* out += w v: w is 16 M x 16 NK, rounded to v's dtype; v has 16 NK rows (keys) of 16 N columns,
     * `pitch` elements apart, on multiples of 16 bytes. Each tile is summed separately and then
     * added. */
    template <int NK, int N>
    __device__ static __forceinline__ void values(product (&out)[N], const product (&w)[NK],
                                                  const element *v, int pitch, float *) {
        /* Products whose weights are kept at a time: on gfx11 each takes 8 registers. */
        constexpr int STEPS = DEPTH > 8 && NK % 2 == 0 ? 2 : NK;
#pragma unroll
        for (int first = 0; first < NK; first += STEPS)
            add_values<STEPS>(out, w + first, v + first * 16 * pitch, pitch);
    }

    /* Over the lanes that hold the same queries; all get the same bits. The maximum ignores NaN. */
    __device__ static __forceinline__ float reduce_max(float x) {
#pragma unroll
        for (int distance = 16; distance < LANES; distance *= 2)
            x = fmaxf(x, __shfl_xor(x, distance));
        return x;
    }

    __device__ static __forceinline__ float reduce_sum(float x) {
#pragma unroll
        for (int distance = 16; distance < LANES; distance *= 2)
            x += __shfl_xor(x, distance);
        return x;
    }

  private:
    typedef typename Unit::factor factor;
    static constexpr int DEPTH = (int)(sizeof(factor) / sizeof(element)); /* elements of a lane */

    /* Adjacent columns of v that a lane reads at once, one for each of as many products. */
    template <int N> static constexpr int next_columns = N % 4 == 0 ? 4 : N % 2 == 0 ? 2 : 1;

    __device__ static __forceinline__ void add(const factor &a, const factor &b, float (&x)[KEYS]) {
        typename Unit::sum c;
#pragma unroll
        for (int e = 0; e < KEYS; e++)
            c[e] = x[e];
        c = Unit::multiply(a, b, c);
#pragma unroll
        for (int e = 0; e < KEYS; e++)
            x[e] = c[e];
    }

    /* Sums a tile of values separately, then adds it to the output. */
    template <int NK, int N>
    __device__ static __forceinline__ void add_values(product (&out)[N], const product *w,
                                                      const element *v, int pitch) {
        constexpr int NEXT = next_columns<N>;
        const int lane = (int)__lane_id();
        const element *own = v + Unit::share(lane) * DEPTH * pitch + lane % 16 * NEXT;
        factor b[NK][M];
#pragma unroll
        for (int n = 0; n < NK; n++)
#pragma unroll
            for (int m = 0; m < M; m++)
                b[n][m] = Unit::weights(w[n].x[m], lane);
#pragma unroll
        for (int c = 0; c < N; c += NEXT) {
            product tile[NEXT] = {};
#pragma unroll
            for (int n = 0; n < NK; n++) {
                factor a[NEXT];
#pragma unroll
                for (int i = 0; i < DEPTH; i++) {
                    const element *row = own + (n * 16 + Unit::order(i)) * pitch + c * 16;
                    const auto x = *(const rwi_registers<short, NEXT> *)row;
#pragma unroll
                    for (int next = 0; next < NEXT; next++)
                        a[next][i] = x[next];
                }
#pragma unroll
                for (int next = 0; next < NEXT; next++)
#pragma unroll
                    for (int m = 0; m < M; m++)
                        add(a[next], b[n][m], tile[next].x[m]);
                Unit::rest();
            }
#pragma unroll
            for (int next = 0; next < NEXT; next++)
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int e = 0; e < KEYS; e++)
                        out[c + next].x[m][e] += Unit::joining(tile[next].x[m][e]);
        }
    }

    /* This lane's adjacent elements of a row, for TOGETHER products. */
    template <int TOGETHER> struct factors {
        static constexpr int CHUNK = TOGETHER * DEPTH < 8 ? TOGETHER * DEPTH : 8;
        static constexpr int CHUNKS = TOGETHER * DEPTH / CHUNK;
        rwi_registers<short, CHUNK> chunks[CHUNKS];

        __device__ __forceinline__ explicit factors(const element *row) {
#pragma unroll
            for (int i = 0; i < CHUNKS; i++)
                chunks[i] = ((const rwi_registers<short, CHUNK> *)row)[i];
        }
        __device__ __forceinline__ factor get(int at) const {
            factor x;
#pragma unroll
            for (int i = 0; i < DEPTH; i++)
                x[i] = chunks[(at * DEPTH + i) / CHUNK][(at * DEPTH + i) % CHUNK];
            return x;
        }
    };

    /* The products of columns 0 .. 16 * TOGETHER - 1. */
    template <int TOGETHER, int N>
    __device__ static __forceinline__ void add_columns(product (&s)[N], const element *q,
                                                       const element *k, int pitch) {
        const int lane = (int)__lane_id();
        const int own = lane % 16 * pitch + Unit::share(lane) * DEPTH * TOGETHER;
        factor b[M][TOGETHER];
#pragma unroll
        for (int m = 0; m < M; m++) {
            const factors<TOGETHER> row(q + own + m * 16 * pitch);
#pragma unroll
            for (int i = 0; i < TOGETHER; i++)
                b[m][i] = row.get(i);
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
            const factors<TOGETHER> a(k + own + n * 16 * pitch);
#pragma unroll
            for (int i = 0; i < TOGETHER; i++)
#pragma unroll
                for (int m = 0; m < M; m++)
                    add(a.get(i), b[m][i], s[n].x[m]);
        }
    }
};

/* Waves of 64 lanes. */
template <rw_dtype D, int M> struct rwi_mma_mfma : rwi_mma_amd<rwi_mfma_unit<D>, M> {};

/* Waves of 32 lanes: gfx11 and gfx12. */
template <rw_dtype D, int M> struct rwi_mma_wmma : rwi_mma_amd<rwi_wmma_unit<D>, M> {};
template <rw_dtype D, int M> struct rwi_mma_wmma12 : rwi_mma_amd<rwi_wmma12_unit<D>, M> {};

#endif
