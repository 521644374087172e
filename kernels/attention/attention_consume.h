/* Parts of attention_roles.h: the waves that multiply, and store. */
#ifndef RWI_ATTENTION_CONSUME_H
#define RWI_ATTENTION_CONSUME_H

#include "attention/attention_multiply.h"
#include "attention/attention_output.h"
#include "attention/attention_serve.h"

/* Stores a row's sums times `share`, plus `earlier` times what is there (f32) times `end`, to an
 * output of dtype D; `vectors`: every pair of adjacent columns is aligned. */
template <typename Shape, rw_dtype D>
__device__ static __forceinline__ void
store_row(const attention_target &to, int columns, float earlier, rwi_attention_factor end,
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
            if (first + c >= columns)
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

/* Stores a whole row of f32, in few instructions: they run once, as fast as they are fetched. */
template <typename Shape>
__device__ static __forceinline__ void
store_floats(const attention_target &to, bool valid, int q, float share,
             const typename Shape::product (&out)[Shape::N_COLUMNS]) {
    typedef typename Shape::unit unit;
    const int lane = (int)threadIdx.x % unit::LANES;
    float *data = (float *)rwi_global(to.data) + to.at;
    data += unit::template column<Shape::N_COLUMNS>(lane, 0, 0);
    if (!valid)
        return;
#pragma unroll
    for (int n = 0; n < Shape::N_COLUMNS; n++)
#pragma unroll
        for (int e = 0; e < unit::KEYS; e += 2)
            *(float2 *)(data + unit::template column<Shape::N_COLUMNS>(0, n, e)) = {
                out[n].x[q][e] * share, out[n].x[q][e + 1] * share};
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

/* Stores the rows of a wave, from column `first` on, to an output of dtype D. Mostly they are whole and
 * aligned. */
template <typename Shape, rw_dtype D>
__device__ static __forceinline__ void
store_wave(const attention_launch &launch, int first,
           const attention_stored_row (&rows)[Shape::unit::QUERIES],
           const typename Shape::product (&out)[Shape::N_COLUMNS]) {
    const int columns = launch.op.v_dim - first;
    const bool vectors = launch.out_vectors || launch.op.parts.count > 1;
    bool whole = vectors && columns >= Shape::N_COLUMNS * 16;
    if constexpr (D == RW_F32)
        whole = __all(whole && rows[0].earlier == 0.0f && rows[1].earlier == 0.0f);
    if (whole) {
#pragma unroll
        for (int q = 0; q < Shape::unit::QUERIES; q++)
            if constexpr (D == RW_F32)
                store_floats<Shape>(rows[q].to, rows[q].valid, q, rows[q].share, out);
            else
                store_vectors<Shape, D>(rows[q].to, rows[q].valid, q, rows[q].share, out);
        return;
    }
#pragma unroll
    for (int q = 0; q < Shape::unit::QUERIES; q++)
        if (rows[q].valid)
            store_row<Shape, D>(rows[q].to, columns, rows[q].earlier, rows[q].end, vectors, q,
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
    const int wave = (int)threadIdx.x / unit::LANES;
    const int wave_row = wave % Shape::ROW_WAVES * Shape::WAVE_ROWS;
    const int first_column = Shape::LATENT ? wave / 4 * Shape::GROUP_ROW : 0;
    const int r = wave_row + unit::query(lane, own);
    const int at = wave * Shape::WAVE_ROWS + unit::query(lane, own); /* of its sums */
    const bool kept = keeps_sums(launch.op);
    const float sums[2] = {unit::reduce_sum(mine.sum[0]), unit::reduce_sum(mine.sum[1])};
    const float own_largest = own ? mine.largest[1] : mine.largest[0];
    const float before = t.earlier_base[at], largest = fmaxf(before, own_largest);
    const float base = rwi_softmax_base(largest);
    const float earlier = rwi_exp2_fast((before - base) * mine.factor);
    const float share = share_of_sums(mine, own_largest, base);
    const float sum = fmaf(t.earlier_sum[at], earlier, (own ? sums[1] : sums[0]) * share);
    rwi_wave_sync();              /* all lanes of the row have read it */
    t.earlier_base[at] = largest; /* both of them write the same values */
    t.earlier_sum[at] = sum;
    clear_sums<Shape>(mine);
    const rwi_attention_factor end = end_row(launch, t, r, base, sum, last);
    attention_stored_row rows[unit::QUERIES];
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const int owner = lane - own + q, row = wave_row + unit::query(lane, q);
        rows[q].to = find_target(launch, t, row);
        rows[q].to.at += first_column;
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
        store_wave<Shape, RW_BF16>(launch, first_column, rows, mine.out);
    else if (rows[0].to.dtype == RW_F16)
        store_wave<Shape, RW_F16>(launch, first_column, rows, mine.out);
    else
        store_wave<Shape, RW_F32>(launch, first_column, rows, mine.out);
    if (!last && kept)
        clear_out<Shape>(mine);
}

/* Repairs what the warpgroup has stored: rows of its own or, LATENT, columns. Which warpgroup has found
 * a nonfinite value of those, or zeros in its place, has reported it: none waits for another. */
template <typename Shape>
__device__ static __forceinline__ void repair_own(const attention_launch &launch,
                                                  const attention_block<Shape> &t) {
    constexpr int ROWS = Shape::ROWS / Shape::CONSUMERS;
    const int group = (int)threadIdx.x / Shape::GROUP, v_dim = launch.op.v_dim;
    attention_repaired part = {
        {0, t.item.rows}, {0, v_dim}, 0, (int)threadIdx.x % Shape::GROUP, Shape::GROUP};
    if constexpr (Shape::LATENT) {
        const int first = (int)rwi_min(group * Shape::GROUP_ROW, v_dim);
        part.columns = {first, (int)rwi_min(first + Shape::GROUP_ROW, v_dim)};
        part.sums = group * Shape::ROWS;
    } else {
        const int first = (int)rwi_min(group * ROWS, t.item.rows);
        part.rows = {first, (int)rwi_min(first + ROWS, t.item.rows)};
    }
    rwi_barrier_sync(ATTENTION_CLEAN + group,
                     Shape::GROUP); /* what it has stored is visible to it */
    if (t.nonfinite.end != 0)
        repair_part<Shape>(launch, t, part);
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
    bool cleaned = false; /* the same of all consumers */
#pragma unroll 1
    for (int batch = 0;; batch++) {
        const int32_t first = range.begin + batch * Shape::BATCH;
        const bool last = first + Shape::BATCH >= range.end;
        if (batch > 0)
            rwi_phase_wait(&barriers.known[place], phase + batch);
        const int count = batch_tiles<Shape>(range, first);
        if constexpr (Shape::LATENT)
            cleaned |= multiply_latent_batch(launch, t, barriers, tiles, address, mine, last, first,
                                             count, use);
        else
            cleaned |= multiply_batch(launch, t, barriers, tiles, address, mine, q_at, last, first,
                                      count, use);
        end_batch<Shape>(launch, t, mine, last);
        if (last && cleaned)
            repair_own<Shape>(launch, t);
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
