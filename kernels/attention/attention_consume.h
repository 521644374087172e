/* Parts of attention_roles.h: the waves that multiply. */
#ifndef RWI_ATTENTION_CONSUME_H
#define RWI_ATTENTION_CONSUME_H

#include "attention/attention_output.h"
#include "attention/attention_scores.h"
#include "attention/attention_serve.h"

/* Replaces nonfinite values of v by 0, since 0 * Inf is NaN for rows that do not see the key.
 * repair() adds them later, for the rows that see them. Each warpgroup looks at the whole tile: it
 * does not wait for the others. */
template <typename Shape>
__device__ static inline void clean_values(attention_block<Shape> &t, int32_t j,
                                           typename Shape::element *tile) {
    constexpr int THREADS = Shape::GROUP;
    constexpr int COUNT = Shape::V_SIZE / Shape::VECTOR / THREADS;
    const int thread = (int)threadIdx.x % THREADS, group = (int)threadIdx.x / THREADS;
    uint4 *mine = (uint4 *)tile + thread;
    uint32_t nonfinite = 0; /* rare: found first, without branches */
#pragma unroll
    for (int n = 0; n < COUNT; n++)
        nonfinite |= rwi_any_nonfinite<Shape::DTYPE>(mine[n * THREADS]);
    if (nonfinite != 0) {
#pragma unroll 1
        for (int n = 0; n < COUNT; n++)
            mine[n * THREADS] = rwi_zero_nonfinite<Shape::DTYPE>(mine[n * THREADS]);
        Shape::unit::publish();
        atomicMin(&t.nonfinite.begin, j);
        atomicMax(&t.nonfinite.end, (int32_t)rwi_min((int64_t)j + Shape::KEYS, INT32_MAX));
    }
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

/* One tile after another: scores are begun, then the values of the previous tile. */
template <typename Shape>
__device__ static inline void
consume_batch(const attention_launch &launch, attention_block<Shape> &t,
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
        return;
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
}

/* Stores a row's sums times `share`, plus `earlier` times what is there (f32) times `end`, to an
 * output of dtype D; `vectors`: every pair of adjacent columns is aligned. */
template <typename Shape, rw_dtype D>
__device__ static __forceinline__ void
store_row(const attention_target &to, int v_dim, float earlier, rwi_attention_factor end,
          bool vectors, int q, float share,
          const typename Shape::product (&out)[Shape::N_COLUMNS]) {
    typedef typename Shape::unit unit;
    const int lane = (int)threadIdx.x % unit::LANES;
    const int first = unit::template column<Shape::N_COLUMNS>(lane, 0, 0);
    auto *data = (typename rwi_storage<D>::type *)rwi_global(to.data) + to.at + first;
#pragma unroll
    for (int n = 0; n < Shape::N_COLUMNS; n++)
#pragma unroll
        for (int e = 0; e < unit::KEYS; e += 2) {
            const int c = unit::template column<Shape::N_COLUMNS>(0, n, e);
            float x = out[n].x[q][e] * share, y = out[n].x[q][e + 1] * share;
            if (first + c >= v_dim)
                continue;
            if constexpr (D == RW_F32)
                if (earlier != 0.0f) {
                    x += rwi_attention_multiply(end, data[c] * earlier);
                    y += rwi_attention_multiply(end, data[c + 1] * earlier);
                }
            if (!vectors) {
                rwi_store(D, data, c, x);
                rwi_store(D, data, c + 1, y);
            } else if constexpr (D == RW_F32) {
                *(float2 *)(data + c) = {x, y};
            } else {
                *(uint32_t *)(data + c) = rwi_pack_halves<D>(x, y);
            }
        }
}

/* Stores a whole row of 16-bit values, if `valid`: the four lanes of a row exchange pairs, so that
 * each stores eight adjacent columns at a time. Every lane of the wave must call it. */
template <typename Shape, rw_dtype D>
__device__ static __forceinline__ void
store_vectors(const attention_target &to, bool valid, int q, float share,
              const typename Shape::product (&out)[Shape::N_COLUMNS]) {
    const int lane = (int)threadIdx.x % 4;
    uint16_t *data = (uint16_t *)rwi_global(to.data) + to.at + lane * 8;
#pragma unroll
    for (int n = 0; n < Shape::N_COLUMNS; n += 2) {
        uint32_t pairs[4]; /* of four groups of eight columns */
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float(&x)[4] = out[n + i / 2 < Shape::N_COLUMNS ? n + i / 2 : n].x[q];
            pairs[i] = rwi_pack_halves<D>(x[i % 2 * 2] * share, x[i % 2 * 2 + 1] * share);
        }
#pragma unroll
        for (int step = 1; step <= 2; step *= 2) /* a transposition of 4 x 4 */
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (i & step)
                    continue;
                const bool upper = lane & step;
                const uint32_t got =
                    (uint32_t)__shfl_xor((int)(upper ? pairs[i] : pairs[i | step]), step);
                (upper ? pairs[i] : pairs[i | step]) = got;
            }
        if (valid && (n + 2 <= Shape::N_COLUMNS || lane < 2))
            *(uint4 *)(data + n * 16) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
}

/* Multiplies a row's sums by `share`, then by `by`, in an order without subnormal factors. Rare. */
template <typename Shape>
__device__ static __forceinline__ void multiply_row(rwi_attention_factor by, float share, int q,
                                                    attention_thread<Shape> &mine) {
#pragma unroll
    for (int n = 0; n < Shape::N_COLUMNS; n++)
#pragma unroll
        for (int e = 0; e < Shape::unit::KEYS; e++)
            mine.out[n].x[q][e] = rwi_attention_multiply(by, mine.out[n].x[q][e] * share);
}

/* What a lane stores of one of its rows. */
struct attention_stored_row {
    attention_target to;
    bool valid;
    float share;
    float earlier; /* of what is stored */
    rwi_attention_factor end;
};

/* Stores the rows of a wave to an output of dtype D. Mostly rows are whole and aligned. */
template <typename Shape, rw_dtype D>
__device__ static __forceinline__ void
store_wave(const attention_launch &launch, const attention_stored_row (&rows)[Shape::unit::QUERIES],
           const typename Shape::product (&out)[Shape::N_COLUMNS]) {
    const int v_dim = launch.op.v_dim;
    const bool vectors = launch.out_vectors || launch.op.parts.count > 1;
    if constexpr (D != RW_F32)
        if (vectors && v_dim == Shape::V_WIDTH) {
#pragma unroll
            for (int q = 0; q < Shape::unit::QUERIES; q++)
                store_vectors<Shape, D>(rows[q].to, rows[q].valid, q, rows[q].share, out);
            return;
        }
#pragma unroll
    for (int q = 0; q < Shape::unit::QUERIES; q++)
        if (rows[q].valid)
            store_row<Shape, D>(rows[q].to, v_dim, rows[q].earlier, rows[q].end, vectors, q,
                                rows[q].share, out);
}

/* Ends a batch, as sum_waves() and store_rows() do, where each wave has rows of its own and each
 * lane pairs of adjacent columns: without shared memory. Of the lanes that hold two rows, even ones
 * end the first row, odd ones the second. */
template <typename Shape>
__device__ static inline void end_batch(const attention_launch &launch, attention_block<Shape> &t,
                                        attention_thread<Shape> &mine, bool last) {
    typedef typename Shape::unit unit;
    static_assert(unit::QUERIES == 2, "rows of a lane");
    const int lane = (int)threadIdx.x % unit::LANES, own = lane % 2;
    const int wave_row = (int)threadIdx.x / unit::LANES * Shape::WAVE_ROWS;
    const int r = wave_row + unit::query(lane, own);
    const bool kept = keeps_sums(launch.op);
    const float sums[2] = {unit::reduce_sum(mine.sum[0]), unit::reduce_sum(mine.sum[1])};
    const float own_largest = own ? mine.largest[1] : mine.largest[0];
    const float before = t.earlier_base[r], largest = fmaxf(before, own_largest);
    const float base = rwi_softmax_base(largest);
    const float earlier = rwi_exp2_fast((before - base) * mine.factor);
    const float share = share_of_sums(mine, own_largest, base);
    const float sum = fmaf(t.earlier_sum[r], earlier, (own ? sums[1] : sums[0]) * share);
    rwi_wave_sync();             /* all lanes of the row have read it */
    t.earlier_base[r] = largest; /* both of them write the same values */
    t.earlier_sum[r] = sum;
    clear_sums<Shape>(mine);
    const rwi_attention_factor end = end_row(launch, t, r, base, sum, last);
    attention_stored_row rows[unit::QUERIES];
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const int owner = lane - own + q, row = wave_row + unit::query(lane, q);
        rows[q].to = find_target(launch, t, row);
        rows[q].valid = t.rows[row].valid;
        rows[q].share = __shfl(share * end.share, owner);
        rows[q].earlier = kept ? __shfl(earlier, owner) : 0.0f;
        rows[q].end = {__shfl(end.share, owner), __shfl(end.root, owner)};
        const float alone = __shfl(share, owner);
        if (rows[q].end.root != 1.0f) {
            multiply_row(rows[q].end, alone, q, mine);
            rows[q].share = 1.0f;
        }
    }
    if (!last && !kept)
        return;
    if (rows[0].to.dtype == RW_BF16)
        store_wave<Shape, RW_BF16>(launch, rows, mine.out);
    else if (rows[0].to.dtype == RW_F16)
        store_wave<Shape, RW_F16>(launch, rows, mine.out);
    else
        store_wave<Shape, RW_F32>(launch, rows, mine.out);
    if (!last && kept)
        clear_out<Shape>(mine);
}

/* An item, whose first batch of tiles is known; returns the number of its batches. */
template <typename Shape>
__device__ static inline int
consume_item(const attention_launch &launch, attention_block<Shape> &t,
             attention_barriers<Shape> &barriers, const attention_tiles<Shape> &tiles,
             const attention_addresses &address, int q_at, int place, int phase, int *use) {
    const rwi_span range = attention_tile_range<Shape>(t);
    attention_thread<Shape> mine;
    begin_thread<Shape>(launch, mine);
#pragma unroll 1
    for (int batch = 0;; batch++) {
        const int32_t first = range.begin + batch * Shape::BATCH;
        const bool last = first + Shape::BATCH >= range.end;
        if (batch > 0)
            rwi_phase_wait(&barriers.known[place], phase + batch);
        consume_batch(launch, t, barriers, tiles, address, mine, q_at, last, first,
                      batch_tiles<Shape>(range, first), use);
        end_batch<Shape>(launch, t, mine, last);
        if (last && t.nonfinite.end != 0) {
            /* Make the stored output visible to all that repair it. */
            rwi_barrier_sync(ATTENTION_CONSUMERS, Shape::THREADS);
            repair<Shape>(launch, t);
        }
        rwi_phase_arrive(&barriers.done[place]);
        if (last)
            return batch + 1;
    }
}

template <typename Shape, typename Parameters>
__device__ static inline void consume(const attention_roles_launch &launch,
                                      const Parameters &parameters, attention_block<Shape> *items,
                                      attention_barriers<Shape> &shared_barriers,
                                      const attention_tiles<Shape> &tiles) {
    const bool first = (int)threadIdx.x < Shape::GROUP;
    const bool last = (int)threadIdx.x >= Shape::THREADS - Shape::GROUP;
    /* Addresses are computed once: nvcc would derive them from the block's number in each tile. */
    attention_barriers<Shape> &barriers = *rwi_computed_here(&shared_barriers);
    const attention_addresses address = {
        (uint32_t)rwi_computed_here((int)Shape::unit::address(tiles.q)),
        (uint32_t)rwi_computed_here((int)Shape::unit::address(tiles.k)),
        (uint32_t)rwi_computed_here((int)Shape::unit::address(tiles.v))};
    uint32_t phases = 0;
    int use = 0, queries = 0;
    if (last)
        give_turn<Shape>(0);
#pragma unroll 1
    for (int place = 0;; place = (place + 1) % Shape::ITEMS) {
        attention_block<Shape> &t = items[place];
        const int phase = (int)(phases >> place & 1);
        rwi_phase_wait(&barriers.known[place], phase);
        if (t.number < 0)
            break;
        const int q_at = queries % Shape::Q_TILES;
        rwi_phase_wait(&barriers.q_full[q_at], queries++ / Shape::Q_TILES);
        const int batches = consume_item(parameters.of(launch, place), t, barriers, tiles, address,
                                         q_at, place, phase, &use);
        phases ^= (uint32_t)(batches % 2) << place;
    }
    if (first) /* the last one's last arrival */
        await_turn<Shape>(0);
}

#endif
