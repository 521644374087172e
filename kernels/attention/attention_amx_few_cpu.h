/* Attention on the CPU: few rows of bf16 in AMX tiles.
 *
 * Memory bandwidth limits, so that k and v are read in place where they are whole blocks of bf16. k is
 * the first operand, as of many rows; its scores are turned to [row][key] as without tiles. Weights
 * [row][key] are then the first operand, and rows of v those of the second.
 */
#ifndef RWI_ATTENTION_AMX_FEW_CPU_H
#define RWI_ATTENTION_AMX_FEW_CPU_H

#include "attention/attention_amx_cpu.h"

#if defined(RWI_TILES)

/* 16 rows of k or v, in place or copied. */
typedef struct amx_rows {
    const char *first;
    int64_t stride; /* in bytes */
} amx_rows;

/* Whether rows [n, n + 16) are at a constant distance. */
static bool are_amx_rows(const void *const *rows, int64_t n, int64_t *stride) {
    const uintptr_t first = (uintptr_t)rows[n], step = (uintptr_t)rows[n + 1] - first;
    bool constant = true;
    for (uintptr_t i = 2; i < RWI_AMX_ROWS; i++)
        constant = constant && (uintptr_t)rows[n + (int64_t)i] == first + i * step;
    *stride = (int64_t)step;
    return constant;
}

/* Rows [n, n + 16) of k or v of `columns` columns; copies are padded to `width` columns. */
static amx_rows find_amx_rows(const rw_attention_params *p, const state *t, const void *const *rows,
                              int64_t n, int64_t columns, int64_t width, uint16_t *copies) {
    const bool codes = t->rows_dtype != RW_BF16;
    const amx_rows copied = {(const char *)copies, width * (int64_t)sizeof *copies};
    const void *these[RWI_AMX_ROWS];
    int64_t stride;
    if (!codes && columns == width && n + RWI_AMX_ROWS <= padded_keys(t) &&
        are_amx_rows(rows, n, &stride))
        return (amx_rows){rows[n], stride};
    for (int64_t i = 0; i < RWI_AMX_ROWS; i++) {
        uint16_t *copy = copies + i * width;
        these[i] = amx_row(t, rows, n + i);
        if (!codes)
            memcpy(copy, these[i], (size_t)columns * sizeof *copy);
        memset(copy + columns, 0, (size_t)(width - columns) * sizeof *copy);
    }
    if (codes)
        convert_rows(p, t, these, RWI_AMX_ROWS, columns, copies, width);
    return copied;
}

/* Turns products [key][row] of 32 keys from key `n` on. */
static void turn_amx_few(state *t, int64_t n) {
    for (int64_t key = 0; key < RWI_AMX_BLOCK; key += RWI_AMX_ROWS) {
        const float *lines[RWI_AMX_ROWS];
        for (int64_t i = 0; i < RWI_AMX_ROWS; i++)
            lines[i] = t->amx.products + (key + i) * RWI_AMX_BLOCK;
        for (int32_t r = 0; r < t->item.rows; r += 8) {
            __m512 rows[8];
            rwi_transpose(lines, r, rows);
            for (int32_t i = 0; i < rwi_min(8, t->item.rows - r); i++)
                _mm512_store_ps(t->scores + (r + i) * FEW_KEYS + n + key, rows[i]);
        }
    }
}

/* Products of q and k: scores [row][key]. */
static void multiply_amx_few_k(const rw_attention_params *p, state *t) {
    const int64_t width = 2 * t->words, steps = width / RWI_AMX_BLOCK;
    rwi_few_ahead ahead = rwi_few_begin_ahead(t->k_rows + AHEAD, t->k_ahead, steps);
    for (int64_t n = 0; n < padded_keys(t); n += RWI_AMX_BLOCK) {
        amx_rows k[2];
        for (int i = 0; i < 2; i++)
            k[i] = find_amx_rows(p, t, t->k_rows, n + i * RWI_AMX_ROWS, p->head_dim, width,
                                 t->amx.k + i * RWI_AMX_ROWS * width);
        rwi_amx_zero(&t->amx.unit);
        for (int64_t step = 0; step < steps; step++) {
            for (int i = 0; i < 2; i++)
                rwi_amx_load_a(&t->amx.unit, i, k[i].first + step * 64, k[i].stride);
            rwi_amx_load_b(&t->amx.unit, 0, t->q + step * RWI_AMX_ROWS * RWI_AMX_ROWS, 64);
            rwi_amx_multiply_columns(&t->amx.unit);
            rwi_few_advance(&ahead, rwi_min(RWI_AMX_BLOCK, padded_keys(t) - n));
        }
        rwi_amx_store(&t->amx.unit, t->amx.products, RWI_AMX_BLOCK * 4);
        turn_amx_few(t, n);
    }
}

/* Weights as bf16 beside 0, [2][16 rows][FEW_KEYS]: in the first half of words, in the second. Rows
 * that are missing hold anything: their results are not used. A NaN may become 0: then the row's sum
 * is NaN, and so is the row. */
static const uint32_t *pack_amx_weights(state *t) {
    uint32_t *first = t->weight_pairs, *second = first + RWI_AMX_ROWS * FEW_KEYS;
    for (int64_t i = 0; i < t->item.rows * FEW_KEYS; i += RWI_LANES) {
        const rwi_lane_words bits =
            rwi_lanes_round_bf16(rwi_lanes_load(t->scores + i)) & 0xFFFF0000u;
        *(rwi_lane_words *)(first + i) = bits >> 16;
        *(rwi_lane_words *)(second + i) = bits;
    }
    return first;
}

static bool has_amx_nan(const state *t) {
    __mmask16 found = 0;
    for (int64_t i = 0; i < t->item.rows * RWI_AMX_BLOCK; i += RWI_LANES)
        for (int odd = 0; odd < 2; odd++) {
            const float *at = t->amx.products + odd * RWI_AMX_ROWS * RWI_AMX_BLOCK + i;
            const __m512 x = _mm512_load_ps(at);
            found |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        }
    return found != 0;
}

/* Products of 64 columns from column `d` on, again, where they hold NaN: each of its own column and
 * of keys with a weight alone. */
static void multiply_amx_few_again(const rw_attention_params *p, state *t, int64_t begin,
                                   int64_t keys, int64_t d) {
    for (int32_t r = 0; r < t->item.rows; r++)
        for (int64_t i = 0; i < rwi_min(2 * RWI_AMX_BLOCK, p->v_dim - d); i++) {
            float sum = 0.0f;
            for (int64_t n = begin; n < rwi_min(begin + keys, t->keys); n++) {
                const float weight = rwi_round_to(RW_BF16, t->scores[r * FEW_KEYS + n]);
                float x = 0.0f;
                load_row(t->rows_dtype, rwi_element(t->rows_dtype, t->v_rows[n], d + i), 1, &x);
                sum += weight != 0.0f ? weight * x : 0.0f;
            }
            t->amx.products[(i % 2 * RWI_AMX_ROWS + r) * RWI_AMX_BLOCK + i / 2] = sum;
        }
}

/* Weights times v, WORD_KEYS keys at a time. A word of v holds two columns: its products with words
 * whose other half is 0 are those of even columns and those of odd columns. */
static void multiply_amx_few_v(const rw_attention_params *p, state *t) {
    const uint32_t *weights[2] = {pack_amx_weights(t)};
    weights[1] = weights[0] + RWI_AMX_ROWS * FEW_KEYS;
    const int64_t steps = rwi_ceil_div(t->width, 2 * RWI_AMX_BLOCK);
    rwi_few_ahead ahead = rwi_few_begin_ahead(t->v_rows + AHEAD, t->v_ahead, steps);
    for (int64_t begin = 0; begin < padded_keys(t); begin += WORD_KEYS) {
        const int64_t keys = rwi_min(WORD_KEYS, padded_keys(t) - begin);
        const rwi_tile_product sums = {.c = t->out,
                                       .c_rest = t->out_rest,
                                       .c_row = t->width,
                                       .kept = begin == 0 ? t->kept : NULL};
        amx_rows v[WORD_KEYS / RWI_AMX_ROWS];
        for (int64_t n = 0; n < keys; n += RWI_AMX_ROWS)
            v[n / RWI_AMX_ROWS] = find_amx_rows(p, t, t->v_rows, begin + n, p->v_dim, t->width,
                                                t->amx.k + n * t->width);
        for (int64_t d = 0; d < t->width; d += 2 * RWI_AMX_BLOCK) {
            const int blocks = d + RWI_AMX_BLOCK < t->width ? 2 : 1;
            rwi_amx_zero(&t->amx.unit);
            for (int64_t n = 0; n < keys; n += RWI_AMX_ROWS) {
                const amx_rows *rows = &v[n / RWI_AMX_ROWS];
                for (int i = 0; i < 2; i++)
                    rwi_amx_load_a(&t->amx.unit, i, weights[i] + begin + n, FEW_KEYS * 4);
                for (int i = 0; i < blocks; i++)
                    rwi_amx_load_b(&t->amx.unit, i, rows->first + d * 2 + i * 64, rows->stride);
                if (blocks == 2)
                    rwi_amx_multiply(&t->amx.unit);
                else
                    rwi_amx_multiply_columns(&t->amx.unit);
                rwi_few_advance(&ahead, rwi_min(RWI_AMX_ROWS, keys - n));
            }
            rwi_amx_store(&t->amx.unit, t->amx.products, RWI_AMX_BLOCK * 4);
            if (has_amx_nan(t))
                multiply_amx_few_again(p, t, begin, keys, d);
            for (int32_t r = 0; r < t->item.rows; r++)
                for (int i = 0; i < blocks; i++) {
                    const float *even = t->amx.products + r * RWI_AMX_BLOCK + i * RWI_AMX_ROWS;
                    const float *odd = even + RWI_AMX_ROWS * RWI_AMX_BLOCK;
                    const rwi_two_lanes sum = {rwi_lanes_load(even), rwi_lanes_load(odd)};
                    rwi_few_join(&sums, r, d + i * RWI_AMX_BLOCK, rwi_two_lanes_zip(sum));
                }
        }
    }
}

#else /* without tiles, state.few_tiles is false */

static void multiply_amx_few_k(const rw_attention_params *p, state *t) {
    (void)p, (void)t;
}

static void multiply_amx_few_v(const rw_attention_params *p, state *t) {
    (void)p, (void)t;
}

#endif

#endif
