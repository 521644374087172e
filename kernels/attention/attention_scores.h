/* Parts of attention_gpu.h: products to scores, by every rule, and scores to weights. All of it in
 * registers: a lane holds QUERIES rows and, of each, keys j + key(lane, 0) + 16 n + key(0, e). */
#ifndef RWI_ATTENTION_SCORES_H
#define RWI_ATTENTION_SCORES_H

#include "attention/attention_tile.h"

/* Calls body(x, c) for each score x of query q; its key is the lane's first key plus c. */
template <typename Shape, typename Body>
__device__ static __forceinline__ void
attention_each_key(typename Shape::product (&s)[Shape::N_KEYS], int q, Body body) {
    typedef typename Shape::unit unit;
#pragma unroll
    for (int n = 0; n < Shape::N_KEYS; n++)
#pragma unroll
        for (int e = 0; e < unit::KEYS; e++)
            body(s[n].x[q][e], n * 16 + unit::key(0, e));
}

/* The same for all queries of a lane: body(x). */
template <typename Shape, typename Body>
__device__ static __forceinline__ void
attention_each_score(typename Shape::product (&s)[Shape::N_KEYS], Body body) {
#pragma unroll
    for (int q = 0; q < Shape::unit::QUERIES; q++)
        attention_each_key<Shape>(s, q, [&](float &x, int) { body(x); });
}

/* tanh within 2^-22. */
__device__ static __forceinline__ float attention_tanh(float x) {
    const float size = fabsf(x), bounded = size > 20.0f ? 20.0f : size; /* NaN is kept */
    const float large =
        1.0f - rwi_divide_fast(2.0f, rwi_exp2_fast(bounded * (2.0f * RWI_LOG2_E)) + 1.0f);
    return size < RWI_TANH_SMALL ? rwi_tanh_small(x) : copysignf(large, x);
}

/* softcap * tanh(scale / softcap * x), in the unit of kept scores. Most scores are small: then a
 * polynomial does. */
template <typename Shape>
__device__ static __forceinline__ void attention_cap(const attention_launch &launch,
                                                     typename Shape::product (&s)[Shape::N_KEYS]) {
    typedef typename Shape::unit unit;
    const float inner = launch.cap_inner, outer = launch.cap_outer;
    float most[unit::QUERIES][unit::KEYS] = {}; /* rather than one chain of dependent steps */
#pragma unroll
    for (int n = 0; n < Shape::N_KEYS; n++)
#pragma unroll
        for (int q = 0; q < unit::QUERIES; q++)
#pragma unroll
            for (int e = 0; e < unit::KEYS; e++) /* ignores NaN, which all forms keep */
                most[q][e] = fmaxf(most[q][e], fabsf(s[n].x[q][e]));
    float largest = 0.0f;
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++)
#pragma unroll
        for (int e = 0; e < unit::KEYS; e++)
            largest = fmaxf(largest, most[q][e]);
    largest *= fabsf(inner);
    if constexpr (Shape::RULES == ATTENTION_CAP) {
        if (__all(largest < RWI_TANH_LEAST)) {
            const rwi_tanh_terms terms = rwi_tanh_least_terms(inner);
            attention_each_score<Shape>(s, [&](float &x) { x = rwi_tanh_least(x, terms); });
            return;
        }
        if (__all(largest < RWI_TANH_TINY)) {
            const rwi_tanh_terms terms = rwi_tanh_tiny_terms(inner);
            attention_each_score<Shape>(s, [&](float &x) { x = rwi_tanh_tiny(x, terms); });
            return;
        }
    }
    if (__all(largest < RWI_TANH_SMALL))
        attention_each_score<Shape>(s, [&](float &x) { x = rwi_tanh_small(x * inner) * outer; });
    else
        attention_each_score<Shape>(s, [&](float &x) { x = attention_tanh(x * inner) * outer; });
}

/* x * scale, plus the bias of the distance. Mostly all keys of a tile are on one side of the query, and
 * farther from it than from each other: then the bias is linear in the key. In nearer tiles that of the
 * first key could be much larger than those of others, and its rounding error with it. */
template <typename Shape>
__device__ static __forceinline__ void
attention_add_alibi(const rwi_alibi &alibi, const rwi_attention_row *rows,
                    typename Shape::product (&s)[Shape::N_KEYS], int32_t j, float scale) {
    typedef typename Shape::unit unit;
    const int lane = (int)threadIdx.x % unit::LANES;
    const uint32_t kept = alibi.is_signed ? 0xFFFFFFFFu : 0x7FFFFFFFu; /* of a distance */
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const rwi_attention_row &row = rows[unit::query(lane, q)];
        const int64_t distance =
            (int64_t)j + unit::key(lane, 0) - rwi_alibi_position(&alibi, &row.pattern);
        const float first = (float)distance;
        if (__all(distance >= 0 || distance + 2 * Shape::WAVE_KEYS <= 0)) {
            const float slope = alibi.is_signed || distance < 0 ? row.slope : -row.slope;
            const float bias = slope * first;
            attention_each_key<Shape>(
                s, q, [&](float &x, int c) { x = fmaf(x, scale, fmaf(slope, (float)c, bias)); });
        } else {
            const float slope = alibi.is_signed ? row.slope : -row.slope;
            attention_each_key<Shape>(s, q, [&](float &x, int c) {
                const uint32_t bits = rwi_f32_bits(first + (float)c) & kept;
                x = fmaf(slope, rwi_f32_from_bits(bits), x * scale);
            });
        }
    }
}

/* Adds a dense mask of two-byte elements, two adjacent keys at a time. */
template <typename Shape, rw_dtype D>
__device__ static __forceinline__ void
attention_add_pairs(const void *data, const rwi_attention_row *rows,
                    typename Shape::product (&s)[Shape::N_KEYS], int32_t j) {
    typedef typename Shape::unit unit;
    const int lane = (int)threadIdx.x % unit::LANES;
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const int64_t at = rows[unit::query(lane, q)].mask + j + unit::key(lane, 0);
        const uint32_t *from = (const uint32_t *)((const uint16_t *)rwi_global(data) + at);
#pragma unroll
        for (int n = 0; n < Shape::N_KEYS; n++)
#pragma unroll
            for (int e = 0; e < unit::KEYS; e += 2) {
                const uint32_t two = from[(n * 16 + unit::key(0, e)) / 2];
                s[n].x[q][e] += rwi_unpack_half<D>(two, 0);
                s[n].x[q][e + 1] += rwi_unpack_half<D>(two, 1);
            }
    }
}

/* An element of a mask as f32; u8: 0 hides. */
template <rw_dtype D>
__device__ static __forceinline__ float
attention_mask_value(typename rwi_storage<D>::type element) {
    if constexpr (D == RW_U8)
        return element != 0 ? 0.0f : -INFINITY;
    else
        return rwi_widen<D>(element);
}

/* Adds a dense mask. Keys from `end` on, which are hidden, repeat the last key: the mask has none
 * for them. An element as f32 is one register too: for gfx942, clang-19 added pairs of them
 * (v_pk_add_f32) to wrong scores. */
template <typename Shape, rw_dtype D>
__device__ static __forceinline__ void
attention_add_elements(const void *data, const rwi_attention_row *rows,
                       typename Shape::product (&s)[Shape::N_KEYS], int32_t j, int32_t end) {
    typedef typename Shape::unit unit;
    const int lane = (int)threadIdx.x % unit::LANES;
    const auto *mask = (const typename rwi_storage<D>::type *)rwi_global(data);
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const int64_t row = rows[unit::query(lane, q)].mask;
        const int32_t first = j + unit::key(lane, 0);
        attention_each_key<Shape>(s, q, [&](float &x, int c) {
            x += rwi_computed_here(
                attention_mask_value<D>(mask[row + (first + c < end ? first + c : end - 1)]));
        });
    }
}

/* `all`: every key exists. */
template <typename Shape>
__device__ static __forceinline__ void
attention_add_mask(const attention_launch &launch, const attention_block<Shape> &t,
                   const rwi_attention_row *rows, typename Shape::product (&s)[Shape::N_KEYS],
                   int32_t j, bool all) {
    const rwi_score_mask &mask = launch.op.rules.mask;
    const int32_t end = t.item.keys.end;
    constexpr bool PAIRS = Shape::unit::KEYS > 1 && Shape::unit::key(0, 1) == 1;
    if constexpr (PAIRS) {
        if (all && launch.mask_pairs) {
            if (mask.dtype == RW_F16)
                attention_add_pairs<Shape, RW_F16>(mask.data, rows, s, j);
            else
                attention_add_pairs<Shape, RW_BF16>(mask.data, rows, s, j);
            return;
        }
    }
    if (mask.dtype == RW_F32)
        attention_add_elements<Shape, RW_F32>(mask.data, rows, s, j, end);
    else if (mask.dtype == RW_F16)
        attention_add_elements<Shape, RW_F16>(mask.data, rows, s, j, end);
    else if (mask.dtype == RW_BF16)
        attention_add_elements<Shape, RW_BF16>(mask.data, rows, s, j, end);
    else
        attention_add_elements<Shape, RW_U8>(mask.data, rows, s, j, end);
}

/* -inf outside of the intervals of a row. Mostly the window is the only interval, and many waves see
 * all of a tile that others see in part. */
template <typename Shape>
__device__ static __forceinline__ void
attention_hide(const rwi_pattern &pattern, const rwi_attention_row *rows,
               typename Shape::product (&s)[Shape::N_KEYS], int32_t j) {
    typedef typename Shape::unit unit;
    const int lane = (int)threadIdx.x % unit::LANES;
    const bool globals = (Shape::RULES & ATTENTION_OTHER) && pattern.globals;
    bool whole = true, windows = !globals;
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const rwi_pattern_row &row = rows[unit::query(lane, q)].pattern;
        whole = whole && row.window.begin <= j && row.window.end - j >= Shape::WAVE_KEYS;
        windows = windows && rwi_span_empty(row.prefix);
    }
    if (__all(whole))
        return;
    if (Shape::HALVES && __all(windows)) { /* in f32, AMD's registers are too few for more code */
#pragma unroll
        for (int q = 0; q < unit::QUERIES; q++) {
            const rwi_span window = rows[unit::query(lane, q)].pattern.window;
            const int32_t first = j + unit::key(lane, 0);
            const int32_t begin = window.begin - first, end = window.end - first;
            attention_each_key<Shape>(s, q, [&](float &x, int c) {
                if (c < begin || c >= end)
                    x = -INFINITY;
            });
        }
        return;
    }
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const rwi_pattern_row &row = rows[unit::query(lane, q)].pattern;
        const rwi_span window = row.window, prefix = row.prefix, global = row.global;
        const int32_t first = j + unit::key(lane, 0);
        attention_each_key<Shape>(s, q, [&](float &x, int c) {
            bool seen = (int)rwi_span_has(window, first + c) | (int)rwi_span_has(prefix, first + c);
            if (globals && !seen && rwi_span_has(global, first + c))
                seen = rwi_bit(pattern.globals, first + c);
            if (!seen)
                x = -INFINITY;
        });
    }
}

/* -inf where a pattern's bit is not set, or its mask hides. */
template <typename Shape>
__device__ static __forceinline__ void
attention_hide_cells(const rwi_pattern &pattern, const rwi_attention_row *rows,
                     typename Shape::product (&s)[Shape::N_KEYS], int32_t j, int32_t end) {
    typedef typename Shape::unit unit;
    const int lane = (int)threadIdx.x % unit::LANES;
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        const rwi_pattern_row &row = rows[unit::query(lane, q)].pattern;
        const int32_t first = j + unit::key(lane, 0);
        attention_each_key<Shape>(s, q, [&](float &x, int c) {
            if (!rwi_pattern_bit(&pattern, &row, first + c < end ? first + c : end - 1))
                x = -INFINITY;
        });
    }
}

/* Whether a launch has a rule: a kernel with code for it alone is launched with it only. */
template <int RULES, int RULE> __device__ static __forceinline__ bool attention_has(bool launched) {
    return RULES == RULE || ((RULES & RULE) && launched);
}

/* Products of rows `rows` of a wave and keys from j on to scores; `all`: every row sees every key;
 * `plain`: scores are the products. */
template <typename Shape>
__device__ static __forceinline__ void
attention_score(const attention_launch &launch, const attention_block<Shape> &t,
                typename Shape::product (&s)[Shape::N_KEYS], const rwi_attention_row *rows,
                int32_t j, bool all, bool plain) {
    const rw_softmax_params &rules = launch.op.rules;
    constexpr int RULES = Shape::RULES;
    if (RULES == ATTENTION_ANY ? !plain : !Shape::PLAIN) {
        const float scale = rules.scale;
        const bool capped = attention_has<RULES, ATTENTION_CAP>(rules.softcap > 0.0f);
        const bool biased = attention_has<RULES, ATTENTION_ALIBI>(rules.alibi.slopes);
        if (capped)
            attention_cap<Shape>(launch, s);
        if (biased)
            attention_add_alibi<Shape>(rules.alibi, rows, s, j, capped ? 1.0f : scale);
        if (!capped && !biased)
            attention_each_score<Shape>(s, [&](float &x) { x *= scale; });
        if (attention_has<RULES, ATTENTION_MASK>(rules.mask.data))
            attention_add_mask<Shape>(launch, t, rows, s, j, all);
    }
    if (__builtin_expect(all, 1))
        return;
    attention_hide<Shape>(rules.pattern, rows, s, j);
    if (attention_has<RULES, ATTENTION_OTHER>(rules.pattern.bits || rules.pattern.mask))
        attention_hide_cells<Shape>(rules.pattern, rows, s, j, t.item.keys.end);
}

/* Rescales the output so far to the new largest score, which is mostly the old one. */
template <typename Shape>
__device__ static inline void attention_rescale(const float (&kept)[Shape::unit::QUERIES],
                                                attention_thread<Shape> &mine) {
    bool same = true;
#pragma unroll
    for (int q = 0; q < Shape::unit::QUERIES; q++)
        same = same && kept[q] == 1.0f;
    if (!Shape::ROLES && __all(same))
        return;
#pragma unroll
    for (int q = 0; q < Shape::unit::QUERIES; q++) {
#pragma unroll
        for (int n = 0; n < Shape::N_COLUMNS; n++)
#pragma unroll
            for (int e = 0; e < Shape::unit::KEYS; e++)
                mine.out[n].x[q][e] *= kept[q];
    }
}

/* Scores to weights; `kept` receives the factors of attention_rescale(). fmaxf() ignores NaN; the
 * sum of weights propagates it. */
template <typename Shape>
__device__ static inline void attention_weigh(typename Shape::product (&s)[Shape::N_KEYS],
                                              attention_thread<Shape> &mine,
                                              float (&kept)[Shape::unit::QUERIES]) {
    typedef typename Shape::unit unit;
    float base[unit::QUERIES];
    bool small = Shape::ROLES;
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        float most[unit::KEYS]; /* several at a time, rather than one chain of dependent steps */
#pragma unroll
        for (int e = 0; e < unit::KEYS; e++)
            most[e] = s[0].x[q][e];
#pragma unroll
        for (int n = 1; n < Shape::N_KEYS; n++)
#pragma unroll
            for (int e = 0; e < unit::KEYS; e++)
                most[e] = fmaxf(most[e], s[n].x[q][e]);
#pragma unroll
        for (int step = unit::KEYS / 2; step > 0; step /= 2)
#pragma unroll
            for (int e = 0; e < step; e++)
                most[e] = fmaxf(most[e], most[e + step]);
        /* NaN alone is not kept here; the sum keeps it. */
        const float largest = fmaxf(mine.largest[q], unit::reduce_max(fmaxf(most[0], -INFINITY)));
        base[q] = rwi_softmax_base(largest);
        kept[q] = rwi_exp2_fast((mine.largest[q] - base[q]) * mine.factor);
        mine.largest[q] = largest;
        small = small && fabsf(base[q] * mine.factor) < 256.0f;
    }
    /* In one step, exponents have the error of the base's: 2^-25 of it. It pays where a lane has many
     * scores. */
    const bool at_once = Shape::ROLES && __builtin_expect(__all(small), 1);
    if (!at_once) {
#pragma unroll
        for (int q = 0; q < unit::QUERIES; q++)
            attention_each_key<Shape>(s, q, [&](float &x, int) { x -= base[q]; });
    }
#pragma unroll
    for (int q = 0; q < unit::QUERIES; q++) {
        float tile[unit::KEYS] = {};
        const float offset = (float)Shape::WEIGHT_BITS - (at_once ? base[q] * mine.factor : 0.0f);
#pragma unroll
        for (int n = 0; n < Shape::N_KEYS; n++)
#pragma unroll
            for (int e = 0; e < unit::KEYS; e++) {
                s[n].x[q][e] = rwi_exp2_fast(fmaf(s[n].x[q][e], mine.factor, offset));
                tile[e] += s[n].x[q][e];
            }
#pragma unroll
        for (int step = unit::KEYS / 2; step > 0; step /= 2)
#pragma unroll
            for (int e = 0; e < step; e++)
                tile[e] += tile[e + step];
        mine.sum[q] = fmaf(mine.sum[q], kept[q], tile[0]);
    }
}

#endif
