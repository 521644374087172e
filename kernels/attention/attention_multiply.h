/* Parts of attention_roles.h: products of the tiles of a batch. */
#ifndef RWI_ATTENTION_MULTIPLY_H
#define RWI_ATTENTION_MULTIPLY_H

#include "attention/attention_scores.h"
#include "attention/attention_serve.h"

/* Replaces nonfinite values of v by 0, since 0 * Inf is NaN for rows that do not see the key.
 * repair() adds them later, for the rows that see them. Each warpgroup looks at all that it multiplies:
 * it does not wait for the others. */
template <typename Shape>
__device__ static inline void clean_values(attention_block<Shape> &t, int32_t j,
                                           typename Shape::element *tile) {
    constexpr int THREADS = Shape::GROUP;
    constexpr int COUNT = Shape::KEYS * Shape::GROUP_ROW / Shape::VECTOR / THREADS;
    const int thread = (int)threadIdx.x % THREADS, group = (int)threadIdx.x / THREADS;
    uint4 *mine = (uint4 *)tile + thread;
    uint32_t nonfinite = 0; /* rare: found first, without branches */
#pragma unroll
    for (int n = 0; n < COUNT; n++)
        nonfinite |= rwi_any_nonfinite<Shape::DTYPE>(mine[n * THREADS]);
    if (nonfinite != 0) {
        atomicMin(&t.nonfinite.begin, j);
        atomicMax(&t.nonfinite.end, (int32_t)rwi_min((int64_t)j + Shape::KEYS, INT32_MAX));
        __threadfence_block(); /* a warpgroup that finds the zeros finds this, too */
#pragma unroll 1
        for (int n = 0; n < COUNT; n++)
            mine[n * THREADS] = rwi_zero_nonfinite<Shape::DTYPE>(mine[n * THREADS]);
    }
    Shape::unit::publish(); /* also what another warpgroup replaced before it was read here */
    rwi_barrier_sync(ATTENTION_CLEAN + group, THREADS);
}

/* A warpgroup's turn to begin products. */
template <typename Shape> __device__ static __forceinline__ void await_turn(int group) {
    rwi_barrier_sync(ATTENTION_TURN + group, 2 * Shape::GROUP);
}

template <typename Shape> __device__ static __forceinline__ void give_turn(int group) {
    rwi_barrier_arrive(ATTENTION_TURN + group, 2 * Shape::GROUP);
}

/* The tiles' addresses, as the matrix unit names them. */
struct attention_addresses {
    uint32_t q;
    uint32_t k;
    uint32_t v;
};

/* One tile after another: scores are begun, then the values of the previous tile. Returns whether
 * values were cleaned. */
template <typename Shape>
__device__ static inline bool
multiply_batch(const attention_launch &launch, attention_block<Shape> &t,
               attention_barriers<Shape> &barriers, const attention_tiles<Shape> &tiles,
               const attention_addresses &address, attention_thread<Shape> &mine, int q_at,
               bool last, int32_t first, int count, int *use) {
    typedef typename Shape::unit unit;
    const int wave = rwi_uniform((int)threadIdx.x / unit::LANES), group = wave / 4;
    const int row = wave * Shape::WAVE_ROWS;
    constexpr int Q_BYTES = Shape::Q_SIZE * (int)sizeof(typename Shape::element);
    constexpr int STAGE_BYTES =
        (Shape::K_SIZE + Shape::V_SIZE) * (int)sizeof(typename Shape::element);
    const bool reporter = rwi_computed_here((int)threadIdx.x % unit::LANES) == 0;
    typename Shape::product s[Shape::N_KEYS];
    typename unit::weights w[Shape::N_KEYS];
    float kept[unit::QUERIES];
    const attention_tile_bits bits = find_tile_bits(t, count);
    uint64_t left = bits.seen;
    const int32_t key = attention_key<Shape>(t, first);
    uint32_t at = rwi_uniform(*use);
    if (left == 0) { /* no key is visible */
        if (reporter)
            rwi_phase_arrive(&barriers.q_free[q_at]);
        return false;
    }

    const auto wait_k = [&](uint32_t nth) {
        rwi_phase_wait(&barriers.stages[nth % 2].k_full, nth / 2);
    };
    const auto begin_scores = [&](uint32_t nth) {
        unit::template begin_scores<Shape::WIDTH, Shape::ROWS>(s, address.q + q_at * Q_BYTES, row,
                                                               address.k + nth % 2 * STAGE_BYTES);
    };
    const auto wait_v = [&](uint32_t nth) {
        rwi_phase_wait(&barriers.stages[nth % 2].v_full, nth / 2);
    };
    const auto begin_values = [&](uint32_t nth) {
        unit::template begin_values<Shape::KEYS>(mine.out, w, address.v + nth % 2 * STAGE_BYTES);
    };
    const auto clean = [&](uint32_t nth, int n, bool whole) {
        if (__builtin_expect(whole, 1))
            return;
        wait_v(nth);
        clean_values<Shape>(t, key + n * Shape::KEYS, tiles.v + nth % 2 * tiles.next_stage);
    };
    const auto score = [&](uint32_t nth, int n, bool whole, bool ends) {
        if (reporter)
            rwi_phase_arrive(&barriers.stages[nth % 2].k_free);
        if (reporter && ends)
            rwi_phase_arrive(&barriers.q_free[q_at]);
        attention_score<Shape>(launch, t, s, t.rows + row, key + n * Shape::KEYS, whole,
                               mine.plain);
        attention_weigh<Shape>(s, mine, kept);
    };
    const auto end_values = [&](uint32_t nth) {
        unit::template wait<0>(mine.out);
        if (reporter)
            rwi_phase_arrive(&barriers.stages[nth % 2].v_free);
    };

    int n = first_tile(left);
    bool whole = bits.whole >> n & 1;
    left &= left - 1;
    wait_k(at);
    begin_scores(at);
    unit::template wait<0>(s);
    score(at, n, whole, last && left == 0);
    attention_rescale<Shape>(kept, mine);
    unit::to_weights(w, s);
#pragma unroll 1
    while (left != 0) {
        clean(at, n, whole);
        n = first_tile(left);
        whole = bits.whole >> n & 1;
        left &= left - 1;
        at++;
        wait_v(at - 1);
        wait_k(at);
        await_turn<Shape>(group);
        begin_scores(at);
        begin_values(at - 1);
        give_turn<Shape>(Shape::CONSUMERS == 2 ? 1 - group : (group + 1) % Shape::CONSUMERS);
        unit::template wait<1>(s);
        score(at, n, whole, last && left == 0);
        end_values(at - 1);
        attention_rescale<Shape>(kept, mine);
        unit::to_weights(w, s);
    }
    clean(at, n, whole);
    wait_v(at);
    begin_values(at);
    end_values(at);
    *use = at + 1;
    return (bits.seen & ~bits.whole) != 0;
}

/* LATENT: v is the first columns of k, in the same tile, and all warpgroups have the same rows. Each
 * computes their weights and multiplies columns of its own: so many sums as of 512 columns are too
 * many for one. Scores are computed in turns, the values of one warpgroup beside the scores of
 * another. */
template <typename Shape>
__device__ static inline bool
multiply_latent_batch(const attention_launch &launch, attention_block<Shape> &t,
                      attention_barriers<Shape> &barriers, const attention_tiles<Shape> &tiles,
                      const attention_addresses &address, attention_thread<Shape> &mine, bool last,
                      int32_t first, int count, int *use) {
    typedef typename Shape::unit unit;
    static_assert(Shape::Q_TILES == 1 && Shape::CONSUMERS == 2, "what memory holds");
    const int wave = rwi_uniform((int)threadIdx.x / unit::LANES), group = wave / 4;
    const int row = wave % 4 * Shape::WAVE_ROWS;
    const int own_values = group * Shape::GROUP_ROW * Shape::KEYS; /* whole panels */
    constexpr int STAGE_BYTES = Shape::K_SIZE * (int)sizeof(typename Shape::element);
    const bool reporter = rwi_computed_here((int)threadIdx.x % unit::LANES) == 0;
    typename Shape::product s[Shape::N_KEYS];
    typename unit::weights w[Shape::N_KEYS];
    float kept[unit::QUERIES];
    const attention_tile_bits bits = find_tile_bits(t, count);
    const int32_t key = attention_key<Shape>(t, first);
    uint32_t at = rwi_uniform(*use);
#pragma unroll 1
    for (uint64_t left = bits.seen; left != 0; left &= left - 1, at++) {
        const int n = first_tile(left);
        const bool whole = bits.whole >> n & 1;
        const int32_t j = key + n * Shape::KEYS;
        attention_stage_barriers &stage = barriers.stages[at % 2];
        const uint32_t stage_at = at % 2 * STAGE_BYTES;
        rwi_phase_wait(&stage.k_full, at / 2);
        await_turn<Shape>(group);
        unit::template begin_scores<Shape::WIDTH, Shape::ROWS>(s, address.q, row,
                                                               address.k + stage_at);
        unit::template wait<0>(s);
        give_turn<Shape>(1 - group);
        attention_score<Shape>(launch, t, s, t.rows + row, j, whole, mine.plain);
        attention_weigh<Shape>(s, mine, kept);
        if (!whole) {
            rwi_barrier_sync(ATTENTION_CONSUMERS, Shape::THREADS); /* both have read it as k */
            clean_values<Shape>(t, j, tiles.k + at % 2 * tiles.next_stage + own_values);
        }
        attention_rescale<Shape>(kept, mine);
        unit::to_weights(w, s);
        unit::template begin_values<Shape::KEYS>(
            mine.out, w, address.k + stage_at + own_values * (int)sizeof(typename Shape::element));
        unit::template wait<0>(mine.out);
        if (reporter)
            rwi_phase_arrive(&stage.k_free);
    }
    if (reporter && last)
        rwi_phase_arrive(&barriers.q_free[0]);
    *use = at;
    return (bits.seen & ~bits.whole) != 0;
}

#endif
