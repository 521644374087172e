/* Attention on the CPU: the state of a tile of rows, and the addresses of its rows and keys. */
#ifndef RWI_ATTENTION_TILE_CPU_H
#define RWI_ATTENTION_TILE_CPU_H

#include "attention/attention_store_cpu.h"
#include "cpu/amx_cpu.h"
#include "cpu/bits_cpu.h"
#include "cpu/block_cpu.h"
#include "cpu/few_rows_cpu.h"
#include "cpu/small_float_cpu.h"
#include "cpu/transpose_cpu.h"
#include "shared/sum.h"

#define ITEM_ROWS RWI_ATTENTION_ROWS
#define WORD_KEYS RWI_ATTENTION_KEYS /* their words fit in the first-level cache */
#define MAX_DIM RWI_ATTENTION_MAX_DIM

/* Rows of q and k that hold a multiple of so many columns are read in place; of others there are
 * copies, padded with zeros. */
#define WIDTH_STEP 8

/* Keys of a tile of few rows: more, since switching between k and v interrupts sequential reads. */
#define FEW_ROWS RWI_ATTENTION_FEW_ROWS
#define FEW_KEYS (ITEM_ROWS * WORD_KEYS / FEW_ROWS)

/* Rows of k and v from the one that is multiplied to the one that is started to be read. */
#define AHEAD (2 * WORD_KEYS)

/* The most keys of a tile of many rows, and the most rows: with AMX more keys, since adding to the
 * sums takes longer than the products, and the rows of several items, for which keys are packed
 * once. OUT_SIZE: the most floats of their results. Wide rows are fewer, against fewer keys. */
#if defined(RWI_TILES)
#define KEYS (4 * WORD_KEYS)
#define AMX_SIZE (KEYS / 2 * MAX_DIM)
#define ROWS (8 * ITEM_ROWS)
#define OUT_SIZE (ITEM_ROWS * MAX_DIM)
#else
#define KEYS WORD_KEYS
#define ROWS ITEM_ROWS
#define OUT_SIZE (ITEM_ROWS * MAX_DIM)
#endif

/* Rows that are adjacent in memory. */
#define PANEL (RWI_TILE_VECTORS * RWI_LANES)
#define PANELS (ROWS / PANEL)

/* Keys are padded to a multiple of this. */
#define KEY_BLOCK RWI_FEW_KEYS

/* A tile of keys that will be needed next, to be read ahead of time. */
typedef struct rwi_next_tile {
    int64_t b;
    int64_t kv_head;
    int64_t first;
    int64_t keys;
} rwi_next_tile;

#if defined(RWI_TILES)
/* The state of products in AMX tiles. */
typedef struct amx_state {
    rwi_amx unit;
    float factor;           /* of differences of scores: exponents of 2 */
    int32_t added[PANELS];  /* tiles of keys in the panel's out_rest that have not joined out */
    bool joined[PANELS];    /* out holds something */
    uint32_t asked, finite; /* bit n: whether keys from 32 * n on were asked, and were finite */
    _Alignas(64) float pending[ROWS]; /* factors of out until out_rest joins it */
    /* [32 keys][32 columns][2 tiles][16 keys][32]; of few rows, copies of k, then of v, by rows */
    _Alignas(64) uint16_t k[AMX_SIZE];
    _Alignas(64) uint16_t v[AMX_SIZE]; /* [32 keys][16 columns][16 columns][32 keys] */
    _Alignas(64) float products[RWI_AMX_BLOCK * RWI_AMX_BLOCK];
} amx_state;
#endif

/* The state of a tile of rows. */
typedef struct state {
    rwi_attention_item item;
    bool few;       /* few rows */
    bool pairs;     /* words of q, of many rows of k and v too, are pairs of bf16, else f32 */
    bool tiles;     /* products in AMX tiles: many rows of pairs */
    bool few_tiles; /* the same, few rows */
    bool in_place;  /* k is read where it lies, else copied */
    rw_dtype
        rows_dtype; /* of k_rows and v_rows: few rows, that of the caller's tensors, else q's */
    bool products;  /* scores are the products themselves, without the scale */
    float unit;     /* the factor from such a score to the score, else 1 */
    int64_t words;  /* in a row of q and k */
    int64_t width;  /* of a row of v and out, padded */
    int64_t k_bytes;
    int64_t v_bytes;
    int64_t k_ahead; /* of a row in the caller's tensor, to be read ahead of time */
    int64_t v_ahead;
    rwi_attention_row rows[ROWS];
    rwi_span hulls[PANELS];   /* keys that rows of a panel may see */
    rwi_span windows[PANELS]; /* keys in the windows of all of its rows */
    int64_t hull_end;         /* of all rows, also past the part */
    int64_t first;            /* first key of the current tile, and its number of keys */
    int64_t keys;
    rw_tile sees;
    _Alignas(64) char codes[KEYS * 2 * MAX_DIM * sizeof(float)]; /* of k and v, converted */
    /* In the caller's tensors, `codes`, or `nothing`. Few rows: then AHEAD rows of the caller's
     * tensors that are read after them. */
    const void *k_rows[FEW_KEYS + AHEAD];
    const void *v_rows[FEW_KEYS + AHEAD];
    rwi_next_tile next;         /* of few rows */
    rwi_few_source source;      /* k and v of few rows, not in AMX tiles */
    rwi_f8_table f8_table;      /* of k and v as codes */
    const float *v_words[KEYS]; /* as they are multiplied */
    int32_t prefix[2][ROWS];    /* begin and end of each row's intervals */
    int32_t window[2][ROWS];
    float slopes[ROWS]; /* of ALiBi, and the positions that it counts from */
    uint32_t positions[ROWS];
    uint32_t seen[ROWS * KEYS / WORD_BITS]; /* bits of keys: [word][row], few rows [row][word] */
    _Alignas(64) float largest[ROWS];
    float sum[ROWS];
    float sum_rest[ROWS]; /* remainders of rwi_sum_join() */
    float kept[ROWS];     /* factor of a row's sums after its largest score has grown */
    _Alignas(64) float q[ITEM_ROWS * MAX_DIM];
    /* Of k, then v, unless used in place; between, of the mask. */
    _Alignas(64) float key_words[WORD_KEYS * MAX_DIM];
    /* Of few rows [FEW_ROWS][FEW_KEYS]; of many in AMX tiles, of one panel at a time. */
    _Alignas(64) float scores[ITEM_ROWS * KEYS];
    uint32_t weight_pairs[ITEM_ROWS * KEYS / 2]; /* of a panel; in AMX tiles, of few rows */
#if defined(RWI_TILES)
    amx_state amx;
#endif
    _Alignas(64) float out[OUT_SIZE];
    _Alignas(64) float out_rest[OUT_SIZE]; /* remainders of rwi_sum_join() */
} state;

static const float nothing[MAX_DIM] = {0}; /* stands for a key without a page */

/* Whether rows of q, k and v already hold words as they are multiplied. */
static bool are_words(const rw_attention_params *p, const state *t) {
    return p->dtype == RW_F32 || t->pairs;
}

/* The table of k's and v's codes; NULL where the processor has no use for one. */
static const rwi_f8_table *f8_table(const state *t) {
    return rwi_f8_has_table() ? &t->f8_table : NULL;
}

/* Words of a row of q or k, padded with zeros. */
static void load_words(const rw_attention_params *p, const state *t, const void *row,
                       float *words) {
    if (p->head_dim != (t->pairs ? 2 : 1) * t->words)
        memset(words, 0, (size_t)t->words * sizeof *words);
    if (are_words(p, t))
        memcpy(words, row, (size_t)t->k_bytes);
    else
        rwi_cpu_load(p->dtype, row, p->head_dim, words);
}

/* A row of any dtype as f32. */
static void load_row(rw_dtype dtype, const void *row, int64_t count, float *x) {
    if (dtype == RW_F8_E4M3)
        rwi_load_f8_many(RW_F8_E4M3, row, count, x);
    else if (dtype == RW_F8_E5M2)
        rwi_load_f8_many(RW_F8_E5M2, row, count, x);
    else
        rwi_cpu_load(dtype, row, count, x);
}

/* ---- rows -------------------------------------------------------------------------------- */

/* Copies row `r` of q to where it is multiplied. */
static void pack_row(const rw_attention_params *p, state *t, int32_t r) {
    float line[MAX_DIM];
    const void *q =
        rwi_element(p->dtype, p->q.data, rwi_attention_at(&p->q, t->item.b, &t->rows[r]));
    load_words(p, t, q, line);
    if (t->few_tiles) {
        for (int64_t w = 0; w < t->words; w++)
            memcpy(t->q + w * RWI_AMX_ROWS + r, line + w, sizeof *line);
        return;
    }
    if (t->few) {
        rwi_lanes_arrange(rwi_few_order(&t->source), line, t->words, t->q + r * t->words);
        return;
    }
    float *to = t->q + r / PANEL * PANEL * t->words + r % PANEL;
    for (int64_t w = 0; w < t->words; w++)
        memcpy(to + w * PANEL, line + w, sizeof *line);
}

#if defined(RWI_TILES)
/* The same for 16 rows from row `r` on, in tiles. */
static void pack_amx_rows(const rw_attention_params *p, state *t, int32_t r) {
    _Alignas(64) float copies[RWI_AMX_ROWS][MAX_DIM / 2 + RWI_AMX_ROWS];
    const float *lines[RWI_AMX_ROWS];
    const bool whole = p->head_dim % RWI_AMX_BLOCK == 0;
    for (int32_t i = 0; i < RWI_AMX_ROWS; i++) {
        lines[i] = nothing;
        if (r + i >= t->item.rows)
            continue;
        const rwi_attention_row *row = &t->rows[r + i];
        lines[i] = rwi_element(p->dtype, p->q.data, rwi_attention_at(&p->q, t->item.b, row));
        if (whole)
            continue;
        memset(copies[i], 0, (size_t)t->words * sizeof *copies[i]);
        memcpy(copies[i], lines[i], (size_t)t->k_bytes);
        lines[i] = copies[i];
    }
    float *to = t->q + r / PANEL * PANEL * t->words + r % PANEL;
    for (int64_t w = 0; w < t->words; w += 8) {
        __m512 columns[8];
        rwi_transpose(lines, w, columns);
        for (int i = 0; i < 8; i++)
            _mm512_store_ps(to + (w + i) * PANEL, columns[i]);
    }
}
#endif

static void pack_rows(const rw_attention_params *p, state *t) {
#if defined(RWI_TILES)
    for (int32_t r = 0; t->tiles && r < t->item.rows; r += RWI_AMX_ROWS)
        pack_amx_rows(p, t, r);
#endif
    for (int32_t r = 0; !t->tiles && r < t->item.rows; r++)
        pack_row(p, t, r);
}

/* From the first key of either span to the last. */
static rwi_span join(rwi_span a, rwi_span b) {
    if (rwi_span_empty(a) || rwi_span_empty(b))
        return rwi_span_empty(a) ? b : a;
    rwi_span both = {(int32_t)rwi_min(a.begin, b.begin), (int32_t)rwi_max(a.end, b.end)};
    return both;
}

static void begin_row(const rw_attention_params *p, state *t, int32_t r, rwi_fault_sink *sink) {
    rwi_bad_id bad;
    rwi_attention_row *row = &t->rows[r];
    rwi_attention_find_whole_row(p, t->item.b, t->item.kv_head, t->item.first + r, row, &bad);
    if (!row->valid)
        rwi_cpu_fault_raise(sink, rwi_attention_token(p, t->item.b, row), bad);
    t->hulls[r / PANEL] = join(t->hulls[r / PANEL], rwi_pattern_hull(&row->pattern));
    t->windows[r / PANEL] = r % PANEL == 0
                                ? row->pattern.window
                                : rwi_span_meet(t->windows[r / PANEL], row->pattern.window.begin,
                                                row->pattern.window.end);
    t->prefix[0][r] = row->pattern.prefix.begin;
    t->prefix[1][r] = row->pattern.prefix.end;
    t->window[0][r] = row->pattern.window.begin;
    t->window[1][r] = row->pattern.window.end;
    t->slopes[r] = row->slope;
    t->positions[r] = (uint32_t)rwi_alibi_position(&p->rules.alibi, &row->pattern);
}

static void begin_rows(const rw_attention_params *p, state *t, rwi_fault_sink *sink) {
    int32_t unit = t->few_tiles ? RWI_AMX_ROWS : t->few ? 1 : PANEL;
    int64_t padded = rwi_ceil_div(t->item.rows, unit) * unit;
    if (padded != t->item.rows)
        memset(t->q, 0, (size_t)(padded * t->words) * sizeof *t->q);
    memset(t->hulls, 0, sizeof t->hulls);
    const int32_t rows = t->few ? FEW_ROWS : ROWS;
    for (int side = 0; side < 2; side++) { /* padding rows see nothing */
        memset(t->prefix[side], 0, (size_t)rows * sizeof *t->prefix[side]);
        memset(t->window[side], 0, (size_t)rows * sizeof *t->window[side]);
    }
    for (int32_t r = 0; r < t->item.rows; r++)
        begin_row(p, t, r, sink);
    pack_rows(p, t);
    for (int32_t r = 0; r < rows; r++) {
        t->largest[r] = -INFINITY;
        t->sum[r] = t->sum_rest[r] = 0.0f;
    }
    if (!t->tiles) {
        memset(t->out, 0, (size_t)(t->item.rows * t->width) * sizeof *t->out);
        memset(t->out_rest, 0, (size_t)(t->item.rows * t->width) * sizeof *t->out_rest);
    }
    rwi_span seen = {0, 0};
    for (int32_t panel = 0; panel < PANELS; panel++)
        seen = join(seen, t->hulls[panel]);
    t->hull_end = seen.end;
    t->item.keys = rwi_span_meet(t->item.keys, seen.begin, seen.end);
}

/* ---- keys -------------------------------------------------------------------------------- */

static int64_t padded_keys(const state *t) {
    return rwi_ceil_div(t->keys, KEY_BLOCK) * KEY_BLOCK;
}

/* The address of key `n` of the tile in k or v. */
static const void *find_key(const rw_attention_params *p, const state *t,
                            const rwi_attention_tensor *tensor, int64_t n) {
    rwi_kv_place place;
    if (n >= t->keys || !rwi_attention_find_key(p, t->item.b, t->first + n, &place))
        return nothing;
    return rwi_element(p->kv_dtype, tensor->data,
                       rwi_attention_key_at(tensor, t->item.kv_head, &place));
}

/* Converts rows of codes to the dtype of q, exactly; they are `row` elements apart. */
static void convert_rows(const rw_attention_params *p, const state *t, const void *const *rows,
                         int64_t count, int64_t width, void *to, int64_t row) {
    if (p->dtype == RW_BF16 && p->kv_dtype == RW_F8_E5M2)
        rwi_f8_to_bf16_rows(RW_F8_E5M2, f8_table(t), rows, count, width, to, row);
    else if (p->dtype == RW_BF16)
        rwi_f8_to_bf16_rows(RW_F8_E4M3, f8_table(t), rows, count, width, to, row);
    for (int64_t n = 0; p->dtype != RW_BF16 && n < count; n++) {
        float line[MAX_DIM], *x = p->dtype == RW_F32 ? (float *)to + n * row : line;
        load_row(p->kv_dtype, rows[n], width, x);
        if (p->dtype == RW_F16)
            rwi_store_many(RW_F16, (uint16_t *)to + n * row, width, line);
    }
}

/* Converts the keys and values of the tile; `nothing` is 0 in every dtype. */
static void convert_keys(const rw_attention_params *p, state *t) {
    const int64_t size = (int64_t)rwi_dtype_size(p->dtype);
    const bool v_is_k = rwi_attention_v_is_k(p);
    char *k = t->codes, *v = v_is_k ? k : k + MAX_DIM * size;
    convert_rows(p, t, t->k_rows, t->keys, p->head_dim, k, 2 * MAX_DIM);
    if (!v_is_k)
        convert_rows(p, t, t->v_rows, t->keys, p->v_dim, v, 2 * MAX_DIM);
    for (int64_t n = 0; n < t->keys; n++) {
        t->k_rows[n] = k + n * 2 * MAX_DIM * size;
        t->v_rows[n] = v + n * 2 * MAX_DIM * size;
    }
}

/* The addresses of the AHEAD keys of few rows that are read after v of this tile: of the next tile,
 * as far as it has them. */
static void find_next_keys(const rw_attention_params *p, state *t, const void **rows) {
    const rwi_next_tile *next = &t->next;
    const int64_t size = (int64_t)rwi_dtype_size(p->kv_dtype);
    const int64_t in_page = ((int64_t)1 << p->pages.shift) - 1;
    const int64_t keys = rwi_min(next->keys, AHEAD);
    rwi_kv_place place;
    for (int64_t n = 0; n < AHEAD; n++)
        rows[n] = nothing;
    for (int64_t n = 0, run = 0; n < keys; n += run) {
        run = rwi_min(keys - n, in_page + 1 - ((next->first + n) & in_page));
        if (!rwi_attention_find_key(p, next->b, next->first + n, &place))
            continue;
        const char *k =
            rwi_element(p->kv_dtype, p->k.data, rwi_attention_key_at(&p->k, next->kv_head, &place));
        for (int64_t i = 0; i < run; i++)
            rows[n + i] = k + i * p->k.stride[1] * size;
    }
}

/* The rows that are read after k of this tile, and after v. */
static void find_rows_ahead(const rw_attention_params *p, state *t) {
    const int64_t keys = padded_keys(t);
    find_next_keys(p, t, t->v_rows + keys);
    for (int64_t n = 0; n < AHEAD; n++)
        t->k_rows[keys + n] = t->v_rows[n];
}

/* The addresses of the tile's keys; those of one page are contiguous. */
static void find_keys(const rw_attention_params *p, state *t) {
    int64_t size = (int64_t)rwi_dtype_size(p->kv_dtype), run = 0;
    for (int64_t n = 0; n < padded_keys(t); n += run) {
        int64_t left = ((int64_t)1 << p->pages.shift) -
                       ((t->first + n) & (((int64_t)1 << p->pages.shift) - 1));
        const char *k = find_key(p, t, &p->k, n), *v = find_key(p, t, &p->v, n);
        bool found = k != (const char *)nothing;
        run = rwi_min((n < t->keys ? t->keys : padded_keys(t)) - n, left);
        for (int64_t i = 0; i < run; i++) {
            t->k_rows[n + i] = k + (found ? i * p->k.stride[1] * size : 0);
            t->v_rows[n + i] = v + (found ? i * p->v.stride[1] * size : 0);
        }
    }
    if (t->few)
        find_rows_ahead(p, t);
    if (p->kv_dtype != t->rows_dtype)
        convert_keys(p, t);
}

/* The largest of the bits of a row without their signs. */
static uint32_t largest_bits(rw_dtype dtype, const void *row, int64_t count) {
    typedef uint32_t word __attribute__((may_alias));
    typedef uint16_t half __attribute__((may_alias));
    const word *words = row;
    const half *halves = row;
    const uint8_t *codes = row;
    uint32_t most = 0;
    uint16_t most_half = 0;
    uint8_t most_code = 0;
    switch (rwi_dtype_size(dtype)) {
    case 4:
#pragma omp simd reduction(max : most)
        for (int64_t d = 0; d < count; d++)
            most = (words[d] & 0x7FFFFFFFu) > most ? words[d] & 0x7FFFFFFFu : most;
        return most;
    case 2:
#pragma omp simd reduction(max : most_half)
        for (int64_t d = 0; d < count; d++)
            most_half = (halves[d] & 0x7FFFu) > most_half ? halves[d] & 0x7FFFu : most_half;
        return most_half;
    default:
#pragma omp simd reduction(max : most_code)
        for (int64_t d = 0; d < count; d++)
            most_code = (codes[d] & 0x7Fu) > most_code ? codes[d] & 0x7Fu : most_code;
        return most_code;
    }
}

/* The bits of the smallest number that is not finite. */
static uint32_t bits_of_infinity(rw_dtype dtype) {
    return dtype == RW_F32       ? 0x7F800000u
           : dtype == RW_BF16    ? 0x7F80u
           : dtype == RW_F16     ? 0x7C00u
           : dtype == RW_F8_E5M2 ? 0x7Cu
                                 : 0x7Fu;
}

/* Whether v of the tile's keys holds neither NaN nor Inf. */
static bool are_finite(const rw_attention_params *p, const state *t, rwi_span keys) {
    uint32_t most = 0;
    for (int32_t n = keys.begin; n < keys.end; n++) {
        const uint32_t bits = largest_bits(t->rows_dtype, t->v_rows[n], p->v_dim);
        most = bits > most ? bits : most;
    }
    return most < bits_of_infinity(t->rows_dtype);
}

/* Keys of the tile that rows of a panel may see, extended to whole blocks. */
static rwi_span keys_of_panel(const state *t, int32_t panel) {
    rwi_span all = {(int32_t)t->first, (int32_t)(t->first + t->keys)};
    rwi_span seen = rwi_span_meet(all, t->hulls[panel].begin, t->hulls[panel].end);
    rwi_span keys = {(seen.begin - all.begin) / KEY_BLOCK * KEY_BLOCK,
                     (int32_t)rwi_ceil_div(seen.end - all.begin, KEY_BLOCK) * KEY_BLOCK};
    if (rwi_span_empty(seen))
        keys.end = keys.begin;
    return keys;
}

static int32_t panels(const state *t) {
    return (int32_t)rwi_ceil_div(t->item.rows, PANEL);
}

static float *scores_of_panel(state *t, int32_t panel) {
    return t->tiles ? t->scores : t->scores + panel * PANEL * KEYS;
}

#endif
