/* Parts of attention_gpu.h: the loop over the keys where the waves of a block have roles, on
 * Hopper. The first waves, the consumers, multiply; four further ones, the producers, copy k and v
 * into two stages of tiles.
 *
 * Consumers are two warpgroups that take turns: while one multiplies, the other one computes
 * weights. Each begins the scores of a tile before the values of the previous tile are summed.
 */
#ifndef RWI_ATTENTION_ROLES_H
#define RWI_ATTENTION_ROLES_H

#include "attention/attention_block.h"
#include "attention/attention_output.h"
#include "attention/attention_scores.h"
#include "gpu/block_barriers.h"

/* Registers of a thread of each role; a block is launched with 168 for each. */
#define PRODUCER_REGISTERS 56
#define CONSUMER_REGISTERS 224

/* ---- producers ---- */

/* A producer's copies of the last two tiles may be under way; those of the last one are not yet
 * published. */
template <typename Shape> struct attention_producer {
    uint64_t *unpublished;          /* its barrier; NULL: none */
    typename Shape::element *clean; /* a tile of v whose nonfinite values are to be replaced */
    int32_t clean_key;
    int use; /* tiles so far */
};

/* Ends the copies of the unpublished tile, except those of `LEFT` later tiles. */
template <typename Shape, int LEFT>
__device__ static inline void publish(const attention_launch &launch, attention_block<Shape> &t,
                                      attention_producer<Shape> &mine) {
    if (!mine.unpublished)
        return;
    rwi_async_wait_but<LEFT>();
    if (mine.clean)
        attention_zero_nonfinite<Shape>(launch, t, mine.clean_key, mine.clean);
    Shape::unit::publish();
    rwi_phase_arrive(mine.unpublished);
    mine.unpublished = NULL;
}

/* Before a tile's `use`-th copy: waits until it was read. */
template <typename Shape>
__device__ static inline void wait_free(const attention_launch &launch, attention_block<Shape> &t,
                                        attention_producer<Shape> &mine, uint64_t *barrier,
                                        int use) {
    if (use == 0)
        return;
    if (!rwi_phase_ended(barrier, use - 1))
        publish<Shape, 0>(launch, t, mine); /* what others may be waiting for */
    rwi_phase_wait(barrier, use - 1);
}

/* After the copies of a tile were begun. */
template <typename Shape>
__device__ static inline void sent(const attention_launch &launch, attention_block<Shape> &t,
                                   attention_producer<Shape> &mine, uint64_t *barrier,
                                   typename Shape::element *clean, int32_t clean_key) {
    rwi_async_commit();
    publish<Shape, 1>(launch, t, mine);
    mine.unpublished = barrier;
    mine.clean = clean;
    mine.clean_key = clean_key;
}

/* The order of consumption: k of a tile, then v of the previous one. */
template <typename Shape>
__device__ static inline void
produce_batch(const attention_launch &launch, attention_block<Shape> &t,
              const attention_tiles<Shape> &tiles, const attention_share<Shape, Shape::WIDTH> &of_k,
              const attention_share<Shape, Shape::V_WIDTH> &of_v, attention_producer<Shape> &mine,
              bool copied, int32_t first, int count) {
    int previous = -1;
#pragma unroll 1
    for (int n = next_tile(t, 0, count);; n = next_tile(t, n + 1, count)) {
        if (n < count) {
            attention_stage_barriers &stage = t.stages[mine.use % 2];
            wait_free(launch, t, mine, &stage.k_free, mine.use / 2);
            if (!copied)
                of_k.stage(launch, t, launch.op.k, launch.op.head_dim,
                           attention_key<Shape>(t, first + n),
                           tiles.k + mine.use % 2 * tiles.next_stage);
            copied = false;
            sent<Shape>(launch, t, mine, &stage.k_full, NULL, 0);
        }
        if (previous >= 0) {
            const int use = mine.use - 1;
            const int32_t j = attention_key<Shape>(t, first + previous);
            attention_stage_barriers &stage = t.stages[use % 2];
            typename Shape::element *tile = tiles.v + use % 2 * tiles.next_stage;
            wait_free(launch, t, mine, &stage.v_free, use / 2);
            of_v.stage(launch, t, launch.op.v, launch.op.v_dim, j, tile);
            sent<Shape>(launch, t, mine, &stage.v_full,
                        t.tiles[previous] == RW_TILE_SOME ? tile : NULL, j);
        }
        if (n >= count)
            break;
        previous = n;
        mine.use++;
    }
    publish<Shape, 0>(launch, t, mine);
}

template <typename Shape>
__device__ static inline void produce(const attention_launch &launch, attention_block<Shape> &t,
                                      const attention_tiles<Shape> &tiles) {
    const rwi_span range = attention_tile_range<Shape>(t);
    const attention_share<Shape, Shape::WIDTH> of_k(launch, t, launch.op.k);
    const attention_share<Shape, Shape::V_WIDTH> of_v(launch, t, launch.op.v);
    attention_producer<Shape> mine = {NULL, NULL, 0, 0};
    attention_stage_q<Shape>(launch, t, tiles.q); /* arrives with the first k */
    /* The first tile is always used: it is copied while the visibility of the tiles is found. */
    bool copied = !launch.op.pages.table.data && range.end > range.begin;
    if (copied)
        of_k.stage(launch, t, launch.op.k, launch.op.head_dim, attention_key<Shape>(t, range.begin),
                   tiles.k);
#pragma unroll 1
    for (int32_t first = range.begin;; first += Shape::BATCH) {
        const bool last = first + Shape::BATCH >= range.end;
        rwi_barrier_sync(ATTENTION_VISIBLE, Shape::BLOCK);
        produce_batch(launch, t, tiles, of_k, of_v, mine, copied, first,
                      (int)rwi_min(Shape::BATCH, range.end - first));
        __syncthreads(); /* the tiles and their visibility were read */
        if (last)
            return;
        copied = false;
    }
}

/* ---- consumers ---- */

/* One tile after another: scores are begun, then the values of the previous tile. */
template <typename Shape>
__device__ static inline void
consume_batch(const attention_launch &launch, attention_block<Shape> &t,
              const attention_tiles<Shape> &tiles, attention_thread<Shape> &mine, int32_t first,
              int count, int *use) {
    typedef typename Shape::unit unit;
    const int wave = rwi_uniform((int)threadIdx.x / unit::LANES), group = wave / 4;
    const int row = wave * Shape::WAVE_ROWS;
    const bool reporter = (int)threadIdx.x % unit::LANES == 0;
    typename Shape::product s[Shape::N_KEYS];
    typename unit::weights w[Shape::N_KEYS];
    float kept[unit::QUERIES];
    int n = next_tile(t, 0, count), at = rwi_uniform(*use);
    if (n >= count)
        return;

    const auto wait_k = [&](int nth) { rwi_phase_wait(&t.stages[nth % 2].k_full, nth / 2); };
    const auto begin_scores = [&](int nth) {
        unit::template begin_scores<Shape::WIDTH, Shape::ROWS>(
            s, tiles.q, row, tiles.k + nth % 2 * tiles.next_stage);
    };
    const auto begin_values = [&](int nth) {
        rwi_phase_wait(&t.stages[nth % 2].v_full, nth / 2);
        unit::template begin_values<Shape::KEYS>(mine.out, w, tiles.v + nth % 2 * tiles.next_stage);
    };
    const auto score = [&](int nth, int tile) {
        if (reporter)
            rwi_phase_arrive(&t.stages[nth % 2].k_free);
        attention_score<Shape>(launch, t, s, t.rows + row, attention_key<Shape>(t, first + tile),
                               t.tiles[tile] == RW_TILE_ALL, mine.plain);
        attention_weigh<Shape>(s, mine, kept);
        unit::hold(s);
    };
    const auto end_values = [&](int nth) {
        unit::template wait<0>(mine.out);
        if (reporter)
            rwi_phase_arrive(&t.stages[nth % 2].v_free);
    };

    int next = next_tile(t, n + 1, count);
    wait_k(at);
    begin_scores(at);
    unit::template wait<0>(s);
    score(at, n);
    if (next < count)
        wait_k(at + 1);
    attention_rescale<Shape>(kept, mine);
    unit::to_weights(w, s);
#pragma unroll 1
    while (next < count) {
        n = next;
        next = next_tile(t, n + 1, count);
        at = rwi_uniform(at + 1);
        rwi_barrier_sync(ATTENTION_TURN + group, Shape::THREADS);
        begin_scores(at);
        begin_values(at - 1);
        rwi_barrier_arrive(ATTENTION_TURN + 1 - group, Shape::THREADS);
        unit::template wait<1>(s);
        score(at, n);
        if (next < count) /* here, as nvcc moves a wait for products ahead of arithmetic, but not */
            wait_k(at + 1); /* across a branch */
        end_values(at - 1);
        attention_rescale<Shape>(kept, mine);
        unit::to_weights(w, s);
    }
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

/* The same for a dtype known at run time. Most rows are whole and aligned: their loop has no
 * branches. */
template <typename Shape>
__device__ static __forceinline__ void
store_row(const attention_target &to, int v_dim, float earlier, rwi_attention_factor end,
          bool vectors, int q, float share,
          const typename Shape::product (&out)[Shape::N_COLUMNS]) {
    constexpr int WHOLE = Shape::V_WIDTH;
    const bool whole = vectors && v_dim == WHOLE;
    if (to.dtype == RW_F32)
        store_row<Shape, RW_F32>(to, v_dim, earlier, end, vectors, q, share, out);
    else if (to.dtype == RW_F16 && whole)
        store_row<Shape, RW_F16>(to, WHOLE, 0.0f, end, true, q, share, out);
    else if (to.dtype == RW_F16)
        store_row<Shape, RW_F16>(to, v_dim, 0.0f, end, vectors, q, share, out);
    else if (whole)
        store_row<Shape, RW_BF16>(to, WHOLE, 0.0f, end, true, q, share, out);
    else
        store_row<Shape, RW_BF16>(to, v_dim, 0.0f, end, vectors, q, share, out);
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

/* Ends a batch, as sum_waves() and store_rows() do, where each wave has rows of its own and each
 * lane pairs of adjacent columns: without shared memory. */
template <typename Shape>
__device__ static inline void end_batch(const attention_launch &launch, attention_block<Shape> &t,
                                        attention_thread<Shape> &mine, bool last) {
    typedef typename Shape::unit unit;
    const int lane = (int)threadIdx.x % unit::LANES;
    const int wave_row = (int)threadIdx.x / unit::LANES * Shape::WAVE_ROWS;
    const bool kept = keeps_sums(launch.op);
    const bool vectors = launch.out_vectors || launch.op.parts.count > 1;
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const int r = wave_row + unit::query(lane, q);
        const float before = t.earlier_base[r], largest = fmaxf(before, mine.largest[q]);
        const float base = rwi_softmax_base(largest);
        const float earlier = rwi_exp2_fast((before - base) * mine.factor);
        float share = share_of_sums(mine, mine.largest[q], base);
        const float sum = fmaf(t.earlier_sum[r], earlier, unit::reduce_sum(mine.sum[q]) * share);
        rwi_wave_sync();             /* all lanes of the row have read it */
        t.earlier_base[r] = largest; /* all of them write the same values */
        t.earlier_sum[r] = sum;
        mine.sum[q] = 0.0f;
        if (!t.rows[r].valid || (!last && !kept))
            continue;
        const rwi_attention_factor end = end_row(launch, t, r, base, sum, last);
        if (end.root != 1.0f) {
            multiply_row(end, share, q, mine);
            share = 1.0f;
        } else {
            share *= end.share;
        }
        store_row<Shape>(find_target(launch, t, r), launch.op.v_dim, kept ? earlier : 0.0f, end,
                         vectors, q, share, mine.out);
    }
    if (!last && kept)
        clear_out<Shape>(mine);
}

template <typename Shape>
__device__ static inline void consume(const attention_launch &launch, attention_block<Shape> &t,
                                      const attention_tiles<Shape> &tiles) {
    const rwi_span range = attention_tile_range<Shape>(t);
    attention_thread<Shape> mine;
    int use = 0;
    begin_thread<Shape>(launch.op, mine);
    if ((int)threadIdx.x >= Shape::THREADS / 2)
        rwi_barrier_arrive(ATTENTION_TURN, Shape::THREADS);
#pragma unroll 1
    for (int32_t first = range.begin;; first += Shape::BATCH) {
        const bool last = first + Shape::BATCH >= range.end;
        ask_tiles(launch, t, first, range.end);
        rwi_barrier_arrive(ATTENTION_VISIBLE, Shape::BLOCK);
        attention_sync<Shape>(); /* the visibility of the tiles is known */
        consume_batch(launch, t, tiles, mine, first, (int)rwi_min(Shape::BATCH, range.end - first),
                      &use);
        __syncthreads(); /* the tiles and their visibility were read */
        end_batch<Shape>(launch, t, mine, last);
        if (last)
            return;
    }
}

#endif
