/* Attention on the CPU; the twin of attention.hip. An item is a tile of rows: queries of the heads
 * that share k and v.
 *
 * Many rows: k and v are multiplied in place if they hold words that the processor can multiply:
 * f32, or pairs of bf16 where it has an instruction for them. q is therefore transposed, not k:
 * rows are adjacent in memory, and their scores are [key][row]. Few rows: memory bandwidth limits,
 * and memory is read fastest one row after another; scores are [row][key].
 */
#include "attention/attention_amx_few_cpu.h"
#include "attention/attention_ragged_cpu.h"

/* ---- scores ------------------------------------------------------------------------------ */

RWI_INLINE void multiply_panels(state *t, const rwi_word *const *k, bool pairs) {
    for (int32_t panel = 0; panel < panels(t); panel++) {
        rwi_span keys = keys_of_panel(t, panel);
        rwi_tile_product product = {.a_rows = k + keys.begin,
                                    .a_depth = 1,
                                    .b = t->q + panel * PANEL * t->words,
                                    .b_row = PANEL,
                                    .c = t->scores + (panel * KEYS + keys.begin) * PANEL,
                                    .c_row = PANEL,
                                    .rows = keys.end - keys.begin,
                                    .columns = PANEL,
                                    .depth = t->words,
                                    .pairs = pairs};
        rwi_tile_multiply(&product);
    }
}

RWI_INLINE void multiply_few_k(const rw_attention_params *p, state *t, rwi_few_source source) {
    const rwi_few_product product = {.few = t->q,
                                     .keys = t->k_rows,
                                     .later = t->k_rows + AHEAD,
                                     .later_bytes = t->k_ahead,
                                     .c = t->scores,
                                     .c_row = FEW_KEYS,
                                     .rows = t->item.rows,
                                     .num_keys = padded_keys(t),
                                     .words = t->words,
                                     .columns = p->head_dim};
    rwi_few_multiply(&product, &source);
}

/* multiply_few_k() or _v() of what the source is: of constant dtype and pairs. */
#define MULTIPLY_FEW(multiply, p, t)                                                               \
    do {                                                                                           \
        const rwi_f8_table *table = (t)->source.table;                                             \
        if ((t)->source.dtype == RW_F32)                                                           \
            multiply(p, t, (rwi_few_source){.dtype = RW_F32});                                     \
        else if ((t)->source.dtype == RW_F16)                                                      \
            multiply(p, t, (rwi_few_source){.dtype = RW_F16});                                     \
        else if ((t)->source.dtype == RW_BF16 && (t)->source.pairs)                                \
            multiply(p, t, (rwi_few_source){.dtype = RW_BF16, .pairs = true});                     \
        else if ((t)->source.dtype == RW_BF16)                                                     \
            multiply(p, t, (rwi_few_source){.dtype = RW_BF16});                                    \
        else if (table && (t)->source.pairs) /* both formats, which differ by the table */         \
            multiply(p, t, (rwi_few_source){RW_F8_E4M3, table, true});                             \
        else if (table)                                                                            \
            multiply(p, t, (rwi_few_source){RW_F8_E4M3, table, false});                            \
        else if ((t)->source.dtype == RW_F8_E4M3)                                                  \
            multiply(p, t, (rwi_few_source){.dtype = RW_F8_E4M3});                                 \
        else                                                                                       \
            multiply(p, t, (rwi_few_source){.dtype = RW_F8_E5M2});                                 \
    } while (0)

static void multiply_any_few_k(const rw_attention_params *p, state *t) {
    MULTIPLY_FEW(multiply_few_k, p, t);
}

/* Products of q and k, before the rules (scale, mask, ...) are applied. */
static void multiply_q_k(const rw_attention_params *p, state *t) {
    const rwi_word *k[KEYS];
    if (t->few_tiles) {
        multiply_amx_few_k(p, t);
        return;
    }
    if (t->few) {
        multiply_any_few_k(p, t);
        return;
    }
    for (int64_t n = 0; n < padded_keys(t); n++) {
        float *copy = t->key_words + n * t->words;
        k[n] = t->in_place ? (const rwi_word *)t->k_rows[n] : copy;
        if (!t->in_place)
            load_words(p, t, t->k_rows[n], copy);
    }
    if (t->pairs)
        multiply_panels(t, k, true);
    else
        multiply_panels(t, k, false);
}

/* ---- weighted values --------------------------------------------------------------------- */

/* Weights times v where v holds NaN or Inf: keys of weight 0 are skipped. */
static void multiply_with_care(const rw_attention_params *p, state *t) {
    float line[MAX_DIM];
    for (int32_t r = 0; r < t->item.rows; r++) {
        const float *weights = scores_of(t, r);
        float *out = t->out + r * t->width, *part = t->out_rest + r * t->width;
        rwi_span keys = {0, (int32_t)t->keys};
        if (!t->few)
            keys = rwi_span_meet(keys_of_panel(t, r / PANEL), 0, t->keys);
        if (rwi_span_empty(keys))
            continue;
        for (int64_t d = 0; d < p->v_dim; d++) {
            out[d] *= t->kept[r];
            part[d] *= t->kept[r];
        }
        for (int64_t n = keys.begin; n < keys.end; n++) {
            float weight = weights[n * score_stride(t)];
            if (weight == 0.0f)
                continue;
            if (t->pairs) /* as in tiles whose v is finite */
                weight = rwi_round_to(RW_BF16, weight);
            load_row(t->rows_dtype, t->v_rows[n], p->v_dim, line);
            for (int64_t d = 0; d < p->v_dim; d++)
                part[d] += weight * line[d];
        }
        for (int64_t d = 0; d < p->v_dim; d++)
            rwi_sum_join(&out[d], &part[d]);
    }
}

/* Values of the tile's keys in the form that is multiplied, f32 or pairs of keys: in place if they
 * have it. */
static void prepare_v(const rw_attention_params *p, state *t) {
    const int64_t step = t->pairs ? 2 : 1;
    const bool in_place = p->dtype == RW_F32 && p->v_dim == t->width;
    for (int64_t n = 0; n < padded_keys(t); n += step) {
        float *line = t->key_words + n / step * t->width;
        t->v_words[n / step] = in_place ? t->v_rows[n] : line;
        if (in_place)
            continue;
        if (t->pairs)
            rwi_pair_values(t->v_rows[n], t->v_rows[n + 1], p->v_dim, line);
        else
            load_row(t->rows_dtype, t->v_rows[n], p->v_dim, line);
        for (int64_t d = p->v_dim; d < t->width; d++)
            line[d] = 0.0f;
    }
}

/* Packs the weights of a panel's two keys into words. */
RWI_INLINE void pair_weights(const float *weights, uint32_t *words) {
#pragma omp simd
    for (int64_t i = 0; i < PANEL; i++)
        words[i] =
            (uint32_t)rwi_f32_to_bf16(weights[PANEL + i]) << 16 | rwi_f32_to_bf16(weights[i]);
}

#if defined(__AVX512F__)
/* Packs the weights of a row's two keys into words. */
static void pair_few_weights(state *t) {
    for (int64_t n = 0; n < t->item.rows * FEW_KEYS; n += 2 * RWI_LANES)
        _mm512_storeu_si512(t->weight_pairs + n / 2,
                            rwi_bf16_line(_mm512_load_ps(t->scores + n),
                                          _mm512_load_ps(t->scores + n + RWI_LANES)));
}
#endif

RWI_INLINE void multiply_few_v(const rw_attention_params *p, state *t, rwi_few_source source) {
    const int64_t keys = padded_keys(t), word_keys = source.pairs ? 2 : 1;
#if defined(__AVX512F__)
    if (source.pairs)
        pair_few_weights(t);
#endif
    const rwi_word *weights = source.pairs ? (const rwi_word *)t->weight_pairs : t->scores;
    for (int64_t begin = 0; begin < keys; begin += WORD_KEYS) {
        const void *const *values = t->v_rows + begin;
        const rwi_tile_product product = {.a = weights + begin / word_keys,
                                          .a_row = FEW_KEYS / word_keys,
                                          .c = t->out,
                                          .c_rest = t->out_rest,
                                          .c_row = t->width,
                                          .kept = begin == 0 ? t->kept : NULL,
                                          .rows = t->item.rows,
                                          .columns = p->v_dim,
                                          .depth = rwi_min(WORD_KEYS, keys - begin) / word_keys};
        rwi_few_sum(&product, values, &source, values + AHEAD, t->v_ahead);
    }
}

static void multiply_any_few_v(const rw_attention_params *p, state *t) {
    MULTIPLY_FEW(multiply_few_v, p, t);
}

RWI_INLINE void multiply_panel(state *t, int32_t panel, bool pairs) {
    rwi_span keys = keys_of_panel(t, panel);
    const float *weights = scores_of_panel(t, panel);
    if (rwi_span_empty(keys))
        return;
    for (int32_t n = keys.begin; pairs && n < keys.end; n += 2)
        pair_weights(weights + n * PANEL, t->weight_pairs + n / 2 * PANEL);
    int32_t depth_begin = pairs ? keys.begin / 2 : keys.begin;
    rwi_tile_product product = {
        .a = (pairs ? (const rwi_word *)t->weight_pairs : weights) + depth_begin * PANEL,
        .a_row = 1,
        .a_depth = PANEL,
        .b_rows = t->v_words + depth_begin,
        .c = t->out + panel * PANEL * t->width,
        .c_rest = t->out_rest + panel * PANEL * t->width,
        .c_row = t->width,
        .kept = t->kept + panel * PANEL,
        .rows = rwi_min(PANEL, t->item.rows - panel * PANEL),
        .columns = t->width,
        .depth = pairs ? (keys.end - keys.begin) / 2 : keys.end - keys.begin,
        .pairs = pairs};
    rwi_tile_multiply(&product);
}

static void multiply_weights_v(const rw_attention_params *p, state *t) {
    if (t->few_tiles) {
        multiply_amx_few_v(p, t);
        return;
    }
    bool certain = t->sees == RW_TILE_ALL && rwi_attention_is_plain(p);
    const rwi_span all = {0, (int32_t)t->keys};
    if (!certain && !are_finite(p, t, all)) {
        multiply_with_care(p, t);
        return;
    }
    if (t->few)
        multiply_any_few_v(p, t);
    else
        prepare_v(p, t);
    for (int32_t panel = 0; !t->few && panel < panels(t); panel++) {
        if (t->pairs)
            multiply_panel(t, panel, true);
        else
            multiply_panel(t, panel, false);
    }
}

/* ---- results ----------------------------------------------------------------------------- */

/* Stores the partial result of row `r`. */
static void store_part(const rw_attention_params *p, const state *t, int32_t r) {
    int64_t number = rwi_attention_row_number(p, t->item.b, t->item.kv_head, t->item.first + r);
    int64_t at = t->item.part * p->num_rows + number;
    memcpy(p->parts.out + at * rwi_attention_part_width(p), t->out + r * t->width,
           (size_t)p->v_dim * sizeof *p->parts.out);
    p->parts.largest[at] = t->largest[r] * t->unit;
    p->parts.sum[at] = t->sum[r];
}

static void end_rows(const rw_attention_params *p, state *t) {
    end_amx_rows(t);
    for (int32_t r = 0; r < t->item.rows; r++) {
        const rwi_attention_row *row = &t->rows[r];
        float base = rwi_softmax_base(t->largest[r]) * t->unit;
        if (!row->valid)
            continue;
        if (p->parts.count == 1)
            rwi_attention_store_any(p, t->item.b, row, t->out + r * t->width,
                                    rwi_attention_finish(p, row->h, base, t->sum[r]));
        else
            store_part(p, t, r);
    }
}

/* Order of items: few rows: the parts of a tile are consecutive, then the tiles of a group, then the
 * groups. Many rows: the tiles of a part, those of causal patterns that take longest first, then
 * the parts. *left receives the number of items from this one to the last of its part. */
static rwi_attention_item find_item(const rw_attention_params *p, bool few, int64_t item,
                                    int64_t *left) {
    const int32_t tile_rows = rwi_attention_tile_rows(p, ITEM_ROWS);
    const int64_t tiles = rwi_attention_row_tiles(p, tile_rows);
    int64_t part, tile;
    *left = 1;
    if (few) {
        rwi_split_index(item, p->parts.count, &item, &part);
        rwi_split_index(item, tiles, &item, &tile);
    } else {
        rwi_split_index(item, tiles, &item, &tile);
        rwi_split_index(item, p->parts.count, &item, &part);
        *left = tiles - tile;
        tile = tiles - 1 - tile;
    }
    return rwi_attention_item_at(p, item, tile, part, tile_rows);
}

/* Takes items from item `begin` on, at most up to `end`: one, or those of many rows that are
 * computed together. Returns their number; t->item.rows is 0 if another item has the rows. */
static int64_t take_items(const rw_attention_params *p, state *t, int64_t begin, int64_t end) {
    int64_t left, count = 1;
    t->item = find_item(p, t->few, begin, &left);
    if (t->tiles && rwi_attention_tile_rows(p, ITEM_ROWS) < ITEM_ROWS) {
        /* Few rows are one panel, of their first item; results must not depend on ranges. */
        t->item.rows = t->item.first == 0 ? (int32_t)rwi_attention_group_rows(p) : 0;
        return 1;
    }
    if (t->tiles)
        count = rwi_min(most_amx_items(t), rwi_min(left, end - begin));
    t->item.first -= (count - 1) * ITEM_ROWS;
    t->item.rows += (int32_t)(count - 1) * ITEM_ROWS;
    return count;
}

/* The tile after the current one: of this item, of the next part, or of the next group. */
static rwi_next_tile find_next_tile(const rw_attention_params *p, const state *t, bool more) {
    const int64_t seq_k = p->rules.scores.seq_k, first = t->first + t->keys;
    rwi_next_tile next = {t->item.b, t->item.kv_head, first,
                          rwi_min(t->hull_end - first, FEW_KEYS)};
    if (first < t->hull_end || !more)
        return next;
    rwi_split_index(t->item.b * p->kv_heads + t->item.kv_head + 1, p->kv_heads, &next.b,
                    &next.kv_head);
    next.first = 0;
    next.keys = next.b < p->rules.scores.batch ? rwi_min(seq_k, FEW_KEYS) : 0;
    return next;
}

static void attend_keys(const rw_attention_params *p, state *t) {
    if (t->tiles) {
        attend_amx_keys(p, t);
        return;
    }
    find_keys(p, t);
    multiply_q_k(p, t);
    weigh(p, t);
    if (p->rules.pattern.function) /* it may have used tiles itself */
        begin_amx(t);
    multiply_weights_v(p, t);
}

/* How keys and values of few rows are read, and the words of q that follow from that. */
static void set_up_few(const rw_attention_params *p, state *t) {
    const bool codes = p->kv_dtype != p->dtype;
    const rwi_f8_table *table = codes ? f8_table(t) : NULL;
    t->pairs = t->pairs && (!codes || table);
    t->source = (rwi_few_source){table ? RW_F8_E4M3 : p->kv_dtype, table, t->pairs};
    t->words = rwi_few_words(t->pairs, p->head_dim);
}

static void set_up(const rw_attention_params *p, state *t) {
    t->pairs = p->dtype == RW_BF16 && rwi_tile_has_pairs();
    t->tiles = amx_multiplies(p, t);
    t->few = rwi_attention_tile_rows(p, ITEM_ROWS) < ITEM_ROWS && !t->tiles;
    t->few_tiles = amx_multiplies_few(t);
    if (p->kv_dtype != p->dtype && rwi_f8_has_table())
        rwi_f8_table_fill(p->kv_dtype, &t->f8_table);
    t->products = false;
    t->unit = 1.0f;
    t->words = rwi_ceil_div(p->head_dim, WIDTH_STEP) * (t->pairs ? WIDTH_STEP / 2 : WIDTH_STEP);
    if (t->few && !t->few_tiles)
        set_up_few(p, t);
    t->rows_dtype = t->few ? p->kv_dtype : p->dtype;
    t->in_place = are_words(p, t) && p->head_dim % WIDTH_STEP == 0 && t->rows_dtype == p->dtype;
    const int64_t vector = t->few ? RWI_TWO_LANES : RWI_LANES;
    t->width = rwi_ceil_div(p->v_dim, vector) * vector;
    t->k_bytes = p->head_dim * (int64_t)rwi_dtype_size(p->dtype);
    t->v_bytes = p->v_dim * (int64_t)rwi_dtype_size(p->dtype);
    t->k_ahead = p->head_dim * (int64_t)rwi_dtype_size(p->kv_dtype);
    t->v_ahead = p->v_dim * (int64_t)rwi_dtype_size(p->kv_dtype);
    if (t->tiles || t->few_tiles)
        set_up_amx(p, t);
}

/* The keys of a tile of rows, from a multiple of a tile's keys on where tiles of rows share them,
 * and to the end of a block: no result depends on which tiles are computed together. */
static rwi_span keys_of_rows(const state *t, rwi_span part, int64_t tile_keys) {
    rwi_span keys = t->item.keys;
    if (!t->tiles || rwi_span_empty(keys))
        return keys;
    keys.begin = (int32_t)(part.begin + (keys.begin - part.begin) / tile_keys * tile_keys);
    const int64_t blocks = rwi_ceil_div(keys.end - part.begin, RWI_AMX_BLOCK);
    keys.end = (int32_t)rwi_min(part.begin + blocks * RWI_AMX_BLOCK, part.end);
    return keys;
}

static void attend_items(const rw_attention_params *p, state *t, int64_t begin, int64_t end,
                         rwi_fault_sink *sink) {
    set_up(p, t);
    begin_amx(t);
    const int64_t tile_keys = t->few ? FEW_KEYS : t->tiles ? amx_keys(t) : WORD_KEYS;
    for (int64_t item = begin, count; item < end; item += count) {
        count = take_items(p, t, item, end);
        if (t->item.rows == 0)
            continue;
        const rwi_span part = t->item.keys;
        begin_rows(p, t, sink);
        begin_amx_rows(t);
        const rwi_span keys = keys_of_rows(t, part, tile_keys);
        for (int64_t j = keys.begin; j < keys.end; j += tile_keys) {
            t->first = j;
            t->keys = rwi_min(tile_keys, keys.end - j);
            t->sees = rwi_attention_ask_tile(p, &t->item, j, t->keys);
            if (t->few)
                t->next = find_next_tile(p, t, item + 1 < end);
            if (t->sees != RW_TILE_NONE)
                attend_keys(p, t);
        }
        end_rows(p, t);
    }
    end_amx(t);
}

/* The same, where k and v may be codes: one head of them after another, since each may have its own
 * scale. */
static void attend_heads(const rw_attention_params *p, state *t, int64_t begin, int64_t end,
                         rwi_fault_sink *sink) {
    if (p->kv_dtype == p->dtype) {
        attend_items(p, t, begin, end, sink);
        return;
    }
    const int32_t tile_rows = rwi_attention_tile_rows(p, ITEM_ROWS);
    const int64_t count = rwi_attention_row_tiles(p, tile_rows) * p->parts.count;
    for (int64_t item = begin, next; item < end; item = next) {
        rw_attention_params own = *p;
        next = rwi_min(end, (item / count + 1) * count);
        rwi_attention_scale_keys(&own, item / count % p->kv_heads);
        attend_items(&own, t, item, next, sink);
    }
}

/* The same for sequences of different lengths, one after another. */
static void attend_sequences(const rw_attention_params *p, state *t, int64_t begin, int64_t end,
                             rwi_fault_sink *sink) {
    const rwi_attention_slots slots = rwi_attention_find_slots(p, ITEM_ROWS, true);
    const int64_t slot_items = rwi_attention_slot_items(p);
    rwi_attention_sequence sequence;
    if (!rwi_attention_check_sequences(p, sink))
        return;
    for (int64_t item = begin, next; item < end; item = next) {
        const int64_t b = rwi_attention_sequence_of_slot(p, &slots, item / slot_items);
        rwi_bad_id bad;
        rw_attention_params own = *p;
        (void)rwi_attention_load_sequence(p, b, &sequence, &bad);
        rwi_attention_narrow(&own, &sequence);
        const int64_t count = rwi_attention_items(&own, rwi_attention_tile_rows(&own, ITEM_ROWS));
        const int64_t first = rwi_attention_first_slot(p, &slots, b, sequence.q_begin) * slot_items;
        next = end;
        if (b + 1 < p->ragged.batch)
            next = rwi_min(end,
                           rwi_attention_first_slot(p, &slots, b + 1, sequence.q_end) * slot_items);
        attend_heads(&own, t, item - first, rwi_min(next - first, count), sink);
    }
}

void RWI_CPU_KERNEL(attention)(const rw_attention_params *p, int64_t begin, int64_t end,
                               rwi_fault_sink *sink) {
    state t;
    if (p->ragged.queries.data)
        attend_sequences(p, &t, begin, end, sink);
    else
        attend_heads(p, &t, begin, end, sink);
}
