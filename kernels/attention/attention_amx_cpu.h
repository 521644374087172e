/* Attention on the CPU: products of many rows of bf16 in AMX tiles. q is [pair][row], as packed;
 * keys are read in place; scores are [key][row] as without tiles, and so are all rules. */
#ifndef RWI_ATTENTION_AMX_CPU_H
#define RWI_ATTENTION_AMX_CPU_H

#include "attention/attention_tile_cpu.h"
#include "cpu/amx_cpu.h"
#include "cpu/transpose_cpu.h"

#if defined(RWI_TILES)

static void begin_amx(state *t) {
    if (t->tiles)
        rwi_amx_begin(&t->amx);
}

static void end_amx(state *t) {
    if (t->tiles)
        rwi_amx_end(&t->amx);
}

/* 16 keys as rows of a tile. */
typedef struct amx_rows {
    const void *data;
    int64_t stride;
} amx_rows;

/* Keys [n, n + 16) of the tile: in place if they are equally far apart and whole tiles, else a copy
 * with zeros behind. */
static amx_rows find_amx_keys(const rw_attention_params *p, state *t, int64_t n) {
    const int64_t bytes = t->words * (int64_t)sizeof *t->q, stored = t->k_bytes;
    const uintptr_t first = (uintptr_t)t->k_rows[n];
    const uintptr_t step = (uintptr_t)t->k_rows[n + 1] - first;
    bool regular = p->head_dim % RWI_AMX_BLOCK == 0 && n + RWI_AMX_ROWS <= padded_keys(t);
    for (uintptr_t i = 2; regular && i < RWI_AMX_ROWS; i++)
        regular = (uintptr_t)t->k_rows[n + (int64_t)i] == first + i * step;
    if (regular) {
        amx_rows in_place = {t->k_rows[n], (int64_t)step};
        return in_place;
    }
    char *copy = (char *)t->key_words + n * bytes;
    memset(copy, 0, (size_t)(RWI_AMX_ROWS * bytes));
    for (int64_t i = 0; i < RWI_AMX_ROWS && n + i < padded_keys(t); i++)
        memcpy(copy + i * bytes, t->k_rows[n + i], (size_t)stored);
    amx_rows copied = {copy, bytes};
    return copied;
}

/* Products of q and k. Those outside a panel's keys are not used. */
static void multiply_amx_k(const rw_attention_params *p, state *t) {
    amx_rows keys[KEYS / RWI_AMX_ROWS];
    for (int64_t n = 0; n < t->keys; n += RWI_AMX_BLOCK)
        for (int i = 0; i < 2; i++)
            keys[n / RWI_AMX_ROWS + i] = find_amx_keys(p, t, n + i * RWI_AMX_ROWS);
    for (int32_t panel = 0; panel < panels(t); panel++) {
        const rwi_span seen = keys_of_panel(t, panel);
        const float *q = t->q + panel * PANEL * t->words;
        for (int32_t n = seen.begin / RWI_AMX_BLOCK * RWI_AMX_BLOCK; n < seen.end;
             n += RWI_AMX_BLOCK) {
            const amx_rows *a = keys + n / RWI_AMX_ROWS;
            rwi_amx_zero(&t->amx);
            for (int64_t w = 0; w < t->words; w += RWI_AMX_ROWS) {
                for (int i = 0; i < 2; i++)
                    rwi_amx_load_a(&t->amx, i, (const char *)a[i].data + w * 4, a[i].stride);
                for (int j = 0; j < 2; j++)
                    rwi_amx_load_b(&t->amx, j, q + w * PANEL + j * RWI_AMX_ROWS, PANEL * 4);
                rwi_amx_multiply(&t->amx);
            }
            rwi_amx_store(&t->amx, t->scores + (panel * KEYS + n) * PANEL, PANEL * 4);
        }
    }
}

/* Weights of a panel as tiles [32 keys][16 rows]: rows of pairs. Those of keys that it does not see
 * are 0. */
static void pack_amx_weights(state *t, rwi_span keys, rwi_span blocks) {
    uint32_t *pairs = t->weight_pairs;
    for (int32_t n = blocks.begin; n < blocks.end; n += 2)
        if (n < keys.begin || n >= keys.end)
            memset(pairs + n / 2 * PANEL, 0, PANEL * sizeof *pairs);
    for (int32_t n = blocks.begin; n < blocks.end; n += RWI_AMX_BLOCK)
        for (int32_t half = 0; half < 2; half++) {
            const float *lines[RWI_AMX_ROWS];
            float *tile = t->weight_tiles[n / RWI_AMX_BLOCK][half];
            for (int k = 0; k < RWI_AMX_ROWS; k++)
                lines[k] = (const rwi_word *)(pairs + (n / 2 + k) * PANEL) + half * RWI_AMX_ROWS;
            for (int r = 0; r < RWI_AMX_ROWS; r += 8) {
                __m512 rows[8];
                rwi_transpose(lines, r, rows);
                for (int i = 0; i < 8; i++)
                    _mm512_store_ps(tile + (r + i) * RWI_AMX_ROWS, rows[i]);
            }
        }
}

/* Adds 32 columns from column `j` on to the sums of a panel. */
static void join_amx(state *t, int32_t panel, int64_t j, const float *products) {
    const int64_t first = (int64_t)panel * PANEL;
    const rwi_tile_product sums = {.c = t->out + first * t->width,
                                   .c_rest = t->out_rest + first * t->width,
                                   .c_row = t->width,
                                   .kept = t->kept + first};
    for (int64_t r = 0; r < rwi_min(PANEL, t->item.rows - first); r++)
        for (int64_t i = 0; i < rwi_min(RWI_AMX_BLOCK, t->width - j); i += RWI_LANES) {
            rwi_lanes rest = *rwi_tile_lanes(&sums, sums.c_rest, r, j + i, 0);
            const rwi_lanes part = *(const rwi_lanes *)(products + r * RWI_AMX_BLOCK + i);
            rwi_tile_store(&sums, r, j + i, 0, rest * sums.kept[r] + part);
        }
}

/* Adds weights times v; pairs of weights and of values have been prepared. */
static void multiply_amx_v(state *t, int32_t panel, rwi_span keys) {
    _Alignas(64) float products[RWI_AMX_BLOCK * RWI_AMX_BLOCK];
    const rwi_span blocks = {keys.begin / RWI_AMX_BLOCK * RWI_AMX_BLOCK,
                             (int32_t)rwi_ceil_div(keys.end, RWI_AMX_BLOCK) * RWI_AMX_BLOCK};
    pack_amx_weights(t, keys, blocks);
    for (int64_t n = padded_keys(t); n < blocks.end; n += 2)
        memset(t->key_words + n / 2 * t->width, 0, (size_t)t->width * sizeof *t->key_words);
    for (int64_t j = 0; j < t->width; j += RWI_AMX_BLOCK) {
        rwi_amx_zero(&t->amx);
        for (int32_t n = blocks.begin; n < blocks.end; n += RWI_AMX_BLOCK)
            for (int i = 0; i < 2; i++) {
                rwi_amx_load_a(&t->amx, i, t->weight_tiles[n / RWI_AMX_BLOCK][i], 64);
                rwi_amx_load_b(&t->amx, i, t->key_words + n / 2 * t->width + j + i * RWI_AMX_ROWS,
                               t->width * 4);
                if (i == 1)
                    rwi_amx_multiply(&t->amx);
            }
        rwi_amx_store(&t->amx, products, RWI_AMX_BLOCK * 4);
        join_amx(t, panel, j, products);
    }
}

#else /* without tiles, state.tiles is false */

static void begin_amx(state *t) {
    (void)t;
}

static void end_amx(state *t) {
    (void)t;
}

static void multiply_amx_k(const rw_attention_params *p, state *t) {
    (void)p, (void)t;
}

static void multiply_amx_v(state *t, int32_t panel, rwi_span keys) {
    (void)t, (void)panel, (void)keys;
}

#endif

#endif
