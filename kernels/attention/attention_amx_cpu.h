/* Attention on the CPU: many rows of bf16 in AMX tiles.
 *
 * Scores are [key][row] as without tiles, and so are all rules: k is the first operand, q, packed as
 * [pair][row], the second. Weights of two keys become pairs [pair of keys][row], the second operand
 * of their product with v, whose first operand is therefore v transposed; its results are
 * [column][row], so that a factor of each row is a vector. k and v are packed once for all rows of a
 * tile; a panel of rows is scored, weighed and multiplied by v while its scores are in the
 * first-level cache. Every result depends on its panel and its keys alone, not on the other rows.
 */
#ifndef RWI_ATTENTION_AMX_CPU_H
#define RWI_ATTENTION_AMX_CPU_H

#include "attention/attention_softmax_cpu.h"

#if defined(RWI_TILES)

/* Tiles of keys that are added up before they join the sums: few weights, so that one of 1 leaves
 * room for others. */
#define AMX_JOIN 16

/* Columns of all tiles of rows at once, unless one alone has more. */
#define AMX_COLUMNS 512

static void begin_amx(state *t) {
    if (t->tiles || t->few_tiles)
        rwi_amx_begin(&t->amx.unit);
}

static void end_amx(state *t) {
    if (t->tiles || t->few_tiles)
        rwi_amx_end(&t->amx.unit);
}

/* Fewer rows read each key once, and are few rows. */
#define AMX_LEAST_ROWS (RWI_ATTENTION_FEW_ROWS + 1)

/* Whether few rows of pairs are multiplied in tiles. */
static bool amx_multiplies_few(const state *t) {
    return t->pairs && t->few;
}

static bool amx_multiplies(const rw_attention_params *p, const state *t) {
    return t->pairs && rwi_attention_group_rows(p) >= AMX_LEAST_ROWS;
}

/* The widths of rows in tiles, and scores that are products where that is possible. */
static void set_up_amx(const rw_attention_params *p, state *t) {
    t->words = rwi_ceil_div(p->head_dim, RWI_AMX_BLOCK) * RWI_AMX_ROWS;
    t->width = rwi_ceil_div(p->v_dim, RWI_AMX_BLOCK) * RWI_AMX_BLOCK;
    if (t->few)
        return;
    t->products = rwi_attention_keeps_products(p);
    t->unit = t->products ? rwi_attention_kept_scale(p) : 1.0f;
    t->amx.factor = t->unit * RWI_LOG2_E;
}

/* The most tiles of rows at once. */
static int64_t most_amx_items(const state *t) {
    const int64_t columns = rwi_max(t->width, 2 * t->words);
    return rwi_max(1, rwi_min(ROWS / ITEM_ROWS, AMX_COLUMNS / columns));
}

/* Keys of a tile. */
static int64_t amx_keys(const state *t) {
    return rwi_max(t->width, 2 * t->words) > AMX_COLUMNS / 2 ? KEYS / 2 : KEYS;
}

/* ---- packed keys --------------------------------------------------------------------------- */

/* Copies a row of k to a row of each of its tiles, `step` elements apart. */
static void pack_amx_key(const rw_attention_params *p, const uint16_t *key, uint16_t *to,
                         int64_t step) {
    int64_t d = 0;
    for (; d + RWI_AMX_BLOCK <= p->head_dim; d += RWI_AMX_BLOCK, to += step)
        memcpy(to, key + d, RWI_AMX_BLOCK * sizeof *to);
    if (d == p->head_dim)
        return;
    memset(to, 0, RWI_AMX_BLOCK * sizeof *to);
    memcpy(to, key + d, (size_t)(p->head_dim - d) * sizeof *to);
}

static const void *amx_row(const state *t, const void *const *rows, int64_t n) {
    return n < padded_keys(t) ? rows[n] : nothing;
}

/* Keys from key `n` of the tile on. */
static void pack_amx_k(const rw_attention_params *p, state *t, int64_t n) {
    const int64_t tile = RWI_AMX_ROWS * RWI_AMX_BLOCK;
    uint16_t *to = t->amx.k + n * 2 * t->words;
    for (int64_t i = 0; i < RWI_AMX_BLOCK; i++)
        pack_amx_key(p, amx_row(t, t->k_rows, n + i),
                     to + i / RWI_AMX_ROWS * tile + i % RWI_AMX_ROWS * RWI_AMX_BLOCK, 2 * tile);
}

/* Their values, transposed. */
static void pack_amx_v(const rw_attention_params *p, state *t, int64_t n) {
    const float *lines[RWI_AMX_ROWS];
    uint16_t *to = t->amx.v + n * t->width;
    for (int64_t i = 0; i < RWI_AMX_ROWS; i++) {
        float *line = t->key_words + i * t->width;
        rwi_pair_values(amx_row(t, t->v_rows, n + 2 * i), amx_row(t, t->v_rows, n + 2 * i + 1),
                        p->v_dim, line);
        memset(line + p->v_dim, 0, (size_t)(t->width - p->v_dim) * sizeof *line);
        lines[i] = line;
    }
    for (int64_t d = 0; d < t->width; d += 8) {
        __m512 columns[8];
        rwi_transpose(lines, d, columns);
        for (int64_t i = 0; i < 8; i++)
            _mm512_storeu_ps(to + (d + i) * RWI_AMX_BLOCK, columns[i]);
    }
}

/* Starts to read the tile's keys [n, n + 32). */
static void fetch_amx_keys(const state *t, int64_t n) {
    for (int64_t i = n; i < rwi_min(n + RWI_AMX_BLOCK, padded_keys(t)); i++) {
        rwi_few_prefetch(t->k_rows[i], t->k_bytes);
        rwi_few_prefetch(t->v_rows[i], t->v_bytes);
    }
}

static void pack_amx_keys(const rw_attention_params *p, state *t) {
    t->amx.asked = t->amx.finite = 0;
    for (int64_t n = 0; n < t->keys; n += RWI_AMX_BLOCK) {
        fetch_amx_keys(t, n + 2 * RWI_AMX_BLOCK);
        pack_amx_k(p, t, n);
        pack_amx_v(p, t, n);
    }
}

/* Whole blocks of a panel's keys. */
static rwi_span amx_blocks(rwi_span keys) {
    rwi_span blocks = {keys.begin / RWI_AMX_BLOCK * RWI_AMX_BLOCK,
                       (int32_t)rwi_ceil_div(keys.end, RWI_AMX_BLOCK) * RWI_AMX_BLOCK};
    return blocks;
}

/* Whether v of all keys in whole blocks is finite; each block is asked once. */
static bool are_amx_finite(const rw_attention_params *p, state *t, rwi_span keys) {
    bool finite = true;
    for (int32_t n = amx_blocks(keys).begin; n < keys.end; n += RWI_AMX_BLOCK) {
        const uint32_t bit = (uint32_t)1 << n / RWI_AMX_BLOCK;
        const rwi_span block = {n, (int32_t)rwi_min(n + RWI_AMX_BLOCK, t->keys)};
        if (!(t->amx.asked & bit) && are_finite(p, t, block))
            t->amx.finite |= bit;
        t->amx.asked |= bit;
        finite = finite && (t->amx.finite & bit);
    }
    return finite;
}

/* ---- scores and weights -------------------------------------------------------------------- */

/* Products of q and k. Those outside the panel's keys are not used. */
static void multiply_amx_k(state *t, int32_t panel, rwi_span keys) {
    const rwi_span blocks = amx_blocks(keys);
    const float *q = t->q + panel * PANEL * t->words;
    const uint16_t *k = t->amx.k + blocks.begin * 2 * t->words;
    for (int32_t n = blocks.begin; n < blocks.end; n += RWI_AMX_BLOCK) {
        rwi_amx_zero(&t->amx.unit);
        for (int64_t w = 0; w < t->words; w += RWI_AMX_ROWS)
            for (int i = 0; i < 2; i++, k += RWI_AMX_ROWS * RWI_AMX_BLOCK) {
                rwi_amx_load_a(&t->amx.unit, i, k, 64);
                rwi_amx_load_b(&t->amx.unit, i, q + w * PANEL + i * RWI_AMX_ROWS, PANEL * 4);
                if (i == 1)
                    rwi_amx_multiply(&t->amx.unit);
            }
        rwi_amx_store(&t->amx.unit, t->scores + n * PANEL, PANEL * 4);
    }
}

/* Scores of keys to weights, which are added to `sums`; `pack`: as pairs of keys. */
RWI_INLINE void weigh_amx_keys(float *scores, rwi_span keys, const float *base, float factor,
                               float *sums, bool pack) {
    __m512 total[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    const __m512 bases[2] = {_mm512_loadu_ps(base), _mm512_loadu_ps(base + RWI_LANES)};
    const __m512 factors = _mm512_set1_ps(factor);
    for (int32_t n = keys.begin; n < keys.end; n += 2)
        for (int i = 0; i < 2; i++) {
            float *at = scores + n * PANEL + i * RWI_LANES;
            const __m512 even =
                rwi_exp2_16(_mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(at), bases[i]), factors),
                            RWI_EXP2_NORMAL);
            const __m512 odd = rwi_exp2_16(
                _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(at + PANEL), bases[i]), factors),
                RWI_EXP2_NORMAL);
            total[i] = _mm512_add_ps(total[i], _mm512_add_ps(even, odd));
            if (pack) {
                _mm512_store_si512(scores + n / 2 * PANEL + i * RWI_LANES,
                                   rwi_bf16_pairs(even, odd));
            } else {
                _mm512_store_ps(at, even);
                _mm512_store_ps(at + PANEL, odd);
            }
        }
    _mm512_storeu_ps(sums, total[0]);
    _mm512_storeu_ps(sums + RWI_LANES, total[1]);
}

/* Scores of a panel to weights: pairs of keys in place of the first half of the scores, or f32. */
RWI_INLINE void weigh_amx(state *t, int32_t panel, rwi_span keys, bool pack) {
    float *scores = t->scores, base[PANEL];
    float *largest = t->largest + panel * PANEL, *kept = t->kept + panel * PANEL;
    memcpy(kept, largest, sizeof base);
    find_largest(scores, keys, largest);
    for (int32_t r = 0; r < PANEL; r += RWI_LANES) {
        const __m512 most = _mm512_loadu_ps(largest + r);
        const __mmask16 none = _mm512_cmp_ps_mask(most, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ);
        const __m512 new_base = _mm512_mask_mov_ps(most, none, _mm512_setzero_ps());
        const __m512 grown = _mm512_sub_ps(_mm512_loadu_ps(kept + r), new_base);
        _mm512_storeu_ps(base + r, new_base);
        _mm512_storeu_ps(kept + r, rwi_exp2_16(_mm512_mul_ps(grown, _mm512_set1_ps(t->amx.factor)),
                                               RWI_EXP2_NORMAL));
    }
    for (int32_t n = keys.begin; n < keys.end; n += WORD_KEYS) {
        const rwi_span some = {n, (int32_t)rwi_min(n + WORD_KEYS, keys.end)};
        float sums[PANEL]; /* of few weights: one of 1 leaves room for others */
        weigh_amx_keys(scores, some, base, t->amx.factor, sums, pack);
#pragma omp simd
        for (int32_t r = 0; r < PANEL; r++)
            join_sum(t, panel * PANEL + r, n == keys.begin ? kept[r] : 1.0f, sums[r]);
    }
}

/* Clears pairs of weights of keys that the panel does not see, in its whole blocks. */
static void clear_amx_pairs(state *t, rwi_span keys) {
    const rwi_span blocks = amx_blocks(keys);
    float *first = t->scores + blocks.begin / 2 * PANEL, *behind = t->scores + keys.end / 2 * PANEL;
    memset(first, 0, (size_t)((keys.begin - blocks.begin) / 2 * PANEL) * sizeof *first);
    memset(behind, 0, (size_t)((blocks.end - keys.end) / 2 * PANEL) * sizeof *behind);
}

/* ---- weighted values ----------------------------------------------------------------------- */

/* Joins what has been added to the sums of a panel. */
static void join_amx(state *t, int32_t panel) {
    float *out = t->out + panel * PANEL * t->width, *rest = t->out_rest + panel * PANEL * t->width;
    float *pending = t->amx.pending + panel * PANEL;
    const bool first = !t->amx.joined[panel];
    for (int64_t d = 0; d < t->width; d++, out += PANEL, rest += PANEL)
#pragma omp simd
        for (int32_t r = 0; r < PANEL; r++) {
            float sum = first ? 0.0f : out[r] * pending[r], part = rest[r];
            rwi_sum_join(&sum, &part);
            out[r] = sum;
            rest[r] = part;
        }
    for (int32_t r = 0; r < PANEL; r++)
        pending[r] = 1.0f;
    t->amx.joined[panel] = true;
    t->amx.added[panel] = 0;
}

/* A panel's sums are now to be `kept` times what they were. */
static void begin_amx_sums(state *t, int32_t panel) {
    const float *kept = t->kept + panel * PANEL;
    float *pending = t->amx.pending + panel * PANEL;
    if (t->amx.added[panel] == AMX_JOIN)
        join_amx(t, panel);
#pragma omp simd
    for (int32_t r = 0; r < PANEL; r++)
        pending[r] *= kept[r];
}

/* Adds products of 32 columns from column `d` on. */
RWI_INLINE void add_amx(state *t, int32_t panel, int64_t d, bool first) {
    float *rest = t->out_rest + (panel * t->width + d) * PANEL;
    const __m512 kept[2] = {_mm512_load_ps(t->kept + panel * PANEL),
                            _mm512_load_ps(t->kept + panel * PANEL + RWI_LANES)};
    for (int i = 0; i < RWI_AMX_BLOCK * 2; i++) {
        const __m512 product = _mm512_load_ps(t->amx.products + i * RWI_LANES);
        float *at = rest + i * RWI_LANES;
        _mm512_store_ps(at, first ? product
                                  : _mm512_fmadd_ps(_mm512_load_ps(at), kept[i % 2], product));
    }
}

/* Weights, which are pairs, times v. */
static void multiply_amx_v(state *t, int32_t panel, rwi_span keys) {
    const rwi_span blocks = amx_blocks(keys);
    const bool first = t->amx.added[panel] == 0 && !t->amx.joined[panel];
    for (int64_t d = 0; d < t->width; d += RWI_AMX_BLOCK) {
        rwi_amx_zero(&t->amx.unit);
        for (int32_t n = blocks.begin; n < blocks.end; n += RWI_AMX_BLOCK) {
            const uint16_t *v = t->amx.v + n * t->width + d * RWI_AMX_BLOCK;
            const float *weights = t->scores + n / 2 * PANEL;
            for (int i = 0; i < 2; i++) {
                rwi_amx_load_a(&t->amx.unit, i, v + i * RWI_AMX_ROWS * RWI_AMX_BLOCK, 64);
                rwi_amx_load_b(&t->amx.unit, i, weights + i * RWI_AMX_ROWS, PANEL * 4);
            }
            rwi_amx_multiply(&t->amx.unit);
        }
        rwi_amx_store(&t->amx.unit, t->amx.products, RWI_AMX_BLOCK * 4);
        if (first)
            add_amx(t, panel, d, true);
        else
            add_amx(t, panel, d, false);
    }
}

/* The same where v holds NaN or Inf: keys of weight 0 are skipped. */
static void multiply_amx_with_care(const rw_attention_params *p, state *t, int32_t panel,
                                   rwi_span keys) {
    float line[MAX_DIM], *rest = t->out_rest + panel * PANEL * t->width;
    const float *kept = t->kept + panel * PANEL;
    const bool first = t->amx.added[panel] == 0 && !t->amx.joined[panel];
    for (int64_t i = 0; i < t->width * PANEL; i++)
        rest[i] = first ? 0.0f : rest[i] * kept[i % PANEL];
    for (int32_t n = keys.begin; n < rwi_min(keys.end, t->keys); n++) {
        load_row(t->rows_dtype, t->v_rows[n], p->v_dim, line);
        for (int32_t r = 0; r < PANEL; r++) {
            const float weight = rwi_round_to(RW_BF16, t->scores[n * PANEL + r]);
            for (int64_t d = 0; weight != 0.0f && d < p->v_dim; d++)
                rest[d * PANEL + r] += weight * line[d];
        }
    }
}

/* ---- a tile -------------------------------------------------------------------------------- */

static void begin_amx_rows(state *t) {
    if (!t->tiles)
        return;
    memset(t->amx.added, 0, sizeof t->amx.added);
    memset(t->amx.joined, 0, sizeof t->amx.joined);
    for (int32_t r = 0; r < ROWS; r++)
        t->amx.pending[r] = 1.0f;
}

/* Which keys of its whole blocks a panel sees, as if it were alone. */
static rw_tile ask_amx_panel(const rw_attention_params *p, const state *t, int32_t panel,
                             rwi_span keys) {
    rwi_attention_item rows = t->item;
    rows.first += panel * PANEL;
    rows.rows = (int32_t)rwi_min(PANEL, t->item.rows - panel * PANEL);
    const int64_t begin = t->first + amx_blocks(keys).begin;
    const int64_t end = rwi_min(t->first + amx_blocks(keys).end, p->rules.scores.seq_k);
    return rwi_attention_ask_tile(p, &rows, begin, end - begin);
}

static void attend_amx_panel(const rw_attention_params *p, state *t, int32_t panel) {
    const rwi_span keys = keys_of_panel(t, panel);
    if (rwi_span_empty(keys))
        return;
    t->sees = ask_amx_panel(p, t, panel, keys);
    if (t->sees == RW_TILE_NONE)
        return;
    multiply_amx_k(t, panel, keys);
    score_panel(p, t, panel, keys);
    if (p->rules.pattern.function) /* it may have used tiles itself */
        begin_amx(t);
    const bool certain = t->sees == RW_TILE_ALL && rwi_attention_is_plain(p);
    if (certain || are_amx_finite(p, t, keys)) {
        weigh_amx(t, panel, keys, true);
        clear_amx_pairs(t, keys);
        begin_amx_sums(t, panel);
        multiply_amx_v(t, panel, keys);
    } else {
        weigh_amx(t, panel, keys, false);
        begin_amx_sums(t, panel);
        multiply_amx_with_care(p, t, panel, keys);
    }
    t->amx.added[panel]++;
}

static void attend_amx_keys(const rw_attention_params *p, state *t) {
    find_keys(p, t);
    pack_amx_keys(p, t);
    for (int32_t panel = 0; panel < panels(t); panel++)
        attend_amx_panel(p, t, panel);
}

/* A panel's sums, by rows. */
static void end_amx_panel(state *t, int32_t panel) {
    const int64_t first = panel * PANEL * t->width;
    const float *pending = t->amx.pending + panel * PANEL;
    float *out = t->out + first, *rest = t->out_rest + first;
    if (!t->amx.joined[panel] && t->amx.added[panel] == 0) {
        memset(out, 0, (size_t)(PANEL * t->width) * sizeof *out);
        return;
    }
    for (int64_t i = 0; t->amx.joined[panel] && i < t->width * PANEL; i += PANEL)
#pragma omp simd
        for (int32_t r = 0; r < PANEL; r++)
            rest[i + r] += out[i + r] * pending[r];
    for (int64_t d = 0; d < t->width; d += RWI_LANES) {
        const float *lines[RWI_LANES];
        for (int i = 0; i < RWI_LANES; i++)
            lines[i] = rest + (d + i) * PANEL;
        for (int32_t r = 0; r < PANEL; r += 8) {
            __m512 rows[8];
            rwi_transpose(lines, r, rows);
            for (int i = 0; i < 8; i++)
                _mm512_store_ps(out + (r + i) * t->width + d, rows[i]);
        }
    }
}

static void end_amx_rows(state *t) {
    for (int32_t panel = 0; t->tiles && panel < panels(t); panel++)
        end_amx_panel(t, panel);
}

#else /* without tiles, state.tiles and state.few_tiles are false */

static void begin_amx(state *t) {
    (void)t;
}

static void end_amx(state *t) {
    (void)t;
}

static void set_up_amx(const rw_attention_params *p, state *t) {
    (void)p, (void)t;
}

static bool amx_multiplies_few(const state *t) {
    (void)t;
    return false;
}

static bool amx_multiplies(const rw_attention_params *p, const state *t) {
    (void)p, (void)t;
    return false;
}

static int64_t most_amx_items(const state *t) {
    (void)t;
    return 1;
}

static int64_t amx_keys(const state *t) {
    (void)t;
    return KEYS;
}

static void begin_amx_rows(state *t) {
    (void)t;
}

static void attend_amx_keys(const rw_attention_params *p, state *t) {
    (void)p, (void)t;
}

static void end_amx_rows(state *t) {
    (void)t;
}

#endif

#endif
