/* Products of few rows with many, and of their weights with values, on the CPU: memory bandwidth
 * limits, so that keys and values are converted in registers, and rows are read ahead of time.
 */
#ifndef RWI_FEW_ROWS_CPU_H
#define RWI_FEW_ROWS_CPU_H

#include "cpu/lanes_cpu.h"
#include "cpu/small_float_cpu.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* The number of keys in a block. */
#define RWI_FEW_KEYS 8

/* The maximum length of a row. */
#define RWI_FEW_MAX_WORDS 576

/* Rows whose products are computed together: with 4 keys, as many sums as registers can hold. */
#if RWI_LANES == 16 || defined(__aarch64__)
#define RWI_FEW_ROWS 4
#else
#define RWI_FEW_ROWS 2
#endif

/* ---- rows that are read next ------------------------------------------------------------------ */

/* Starts to read `bytes` that are needed later into the second-level cache. */
RWI_INLINE void rwi_few_prefetch(const void *data, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)data + i, 0, 2);
}

/* Rows that are read ahead of time, one after another in the order in which memory has them, and at
 * the pace of the computation: a burst of prefetches makes it wait, and memory idles after it. */
typedef struct rwi_few_ahead {
    const void *const *next;
    int64_t bytes; /* of a row */
    int64_t at;    /* of the row that is started */
    int64_t work;  /* done since the last line was started, in bytes times total */
    int64_t total; /* for which one row is started */
} rwi_few_ahead;

RWI_INLINE rwi_few_ahead rwi_few_begin_ahead(const void *const *rows, int64_t bytes,
                                             int64_t total) {
    return (rwi_few_ahead){rows, bytes, 0, 0, total * 64};
}

RWI_INLINE void rwi_few_advance(rwi_few_ahead *ahead, int64_t work) {
    ahead->work += work * ahead->bytes;
    while (ahead->work >= ahead->total) {
        ahead->work -= ahead->total;
        __builtin_prefetch((const char *)*ahead->next + ahead->at, 0, 2);
        ahead->at += 64;
        if (ahead->at >= ahead->bytes) {
            ahead->at = 0;
            ahead->next++;
        }
    }
}

/* ---- few rows times transposed keys --------------------------------------------------------- */

/* What a step multiplies: two vectors of words of a row. */
#define RWI_FEW_STEP_WORDS RWI_TWO_LANES

/* What keys or values are, and what they become: f32, or pairs of bf16. */
typedef struct rwi_few_source {
    rw_dtype dtype;
    const rwi_f8_table *table; /* of codes, if rwi_f8_has_table() */
    bool pairs;                /* requires rwi_tile_has_pairs() and, of codes, `table` */
} rwi_few_source;

/* The dtype in whose order of rwi_lanes_arrange() elements are multiplied. */
RWI_INLINE rw_dtype rwi_few_order(const rwi_few_source *source) {
    return source->pairs ? RW_F32 : source->table ? RW_BF16 : source->dtype;
}

/* few: [rows][words], in the order of rwi_few_order(), behind the last 0; c: [rows][c_row]. */
typedef struct rwi_few_product {
    const float *few;
    const void *const *keys;
    const void *const *later; /* as many rows that are read ahead, each of later_bytes */
    int64_t later_bytes;
    float *c;
    int64_t c_row;
    int64_t rows;
    int64_t num_keys; /* a multiple of RWI_FEW_KEYS */
    int64_t words;    /* a multiple of RWI_FEW_STEP_WORDS */
    int64_t columns;  /* elements of a row of keys */
} rwi_few_product;

/* Elements of a step. */
RWI_INLINE int64_t rwi_few_step(bool pairs) {
    return RWI_FEW_STEP_WORDS * (pairs ? 2 : 1);
}

/* The words of a row, padded to whole steps. */
RWI_INLINE int64_t rwi_few_words(bool pairs, int64_t columns) {
    return rwi_ceil_div(columns, rwi_few_step(pairs)) * RWI_FEW_STEP_WORDS;
}

/* The elements of a step. */
RWI_INLINE rwi_two_lanes rwi_few_load(const rwi_few_source *source, const void *data) {
#if defined(__AVX512F__)
    if (source->pairs) {
        __m512i x[2] = {_mm512_loadu_si512(data)};
        if (source->dtype == RW_BF16)
            x[1] = _mm512_loadu_si512((const char *)data + 64);
        else
            rwi_f8_to_bf16_64(source->table, x[0], x);
        return (rwi_two_lanes){(rwi_lanes)x[0], (rwi_lanes)x[1]};
    }
#endif
    return rwi_two_lanes_load(source->dtype, data);
}

/* Fewer elements than a step, and zeros behind them. */
RWI_INLINE void rwi_few_pad(const void *data, int64_t bytes, char *step) {
#if defined(__AVX512F__)
    for (int64_t i = 0; i < RWI_FEW_STEP_WORDS * 4; i += 64) {
        const int64_t left = rwi_max(0, rwi_min(64, bytes - i));
        const __mmask64 valid = left == 64 ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
        _mm512_store_si512(step + i, _mm512_maskz_loadu_epi8(valid, (const char *)data + i));
    }
#else
    memset(step, 0, RWI_FEW_STEP_WORDS * 4);
    memcpy(step, data, (size_t)bytes);
#endif
}

/* Element k is the sum of the elements of x[k]; of wider registers in quad q, of its quad q. */
RWI_INLINE rwi_lanes rwi_few_sums(const rwi_lanes x[4]) {
#if defined(__AVX512F__)
    __m512 a = (__m512)x[0], b = (__m512)x[1], c = (__m512)x[2], d = (__m512)x[3];
    __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b));
    __m512d cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d));
    return (rwi_lanes)(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)) +
                       _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
#elif defined(__AVX__)
    __m256 a = (__m256)x[0], b = (__m256)x[1], c = (__m256)x[2], d = (__m256)x[3];
    __m256d ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b));
    __m256d cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d) + _mm256_unpackhi_ps(c, d));
    return (rwi_lanes)(_mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)) +
                       _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
#else
    rwi_lanes sums;
    for (int k = 0; k < 4; k++)
        sums[k] = (x[k][0] + x[k][2]) + (x[k][1] + x[k][3]);
    return sums;
#endif
}

/* c[k] = the sum of all elements of x[k]. */
RWI_INLINE void rwi_few_store(const rwi_lanes x[4], float *c) {
    typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
    const rwi_lanes sums = rwi_few_sums(x);
#if defined(__AVX512F__)
    const __m256 halves =
        _mm512_castps512_ps256((__m512)sums) + _mm512_extractf32x8_ps((__m512)sums, 1);
    *(quad *)c = (quad)(_mm256_castps256_ps128(halves) + _mm256_extractf128_ps(halves, 1));
#elif defined(__AVX__)
    *(quad *)c =
        (quad)(_mm256_castps256_ps128((__m256)sums) + _mm256_extractf128_ps((__m256)sums, 1));
#else
    *(quad *)c = (quad)sums;
#endif
}

/* A block of constant size: rows from `row` on, keys from `first` on. */
RWI_INLINE void rwi_few_block(const rwi_few_product *t, const rwi_few_source *source,
                              const void *const *keys, const char (*tails)[RWI_FEW_STEP_WORDS * 4],
                              int rows, int num_keys, int64_t row, int first, float *c,
                              rwi_few_ahead *ahead) {
    const int64_t step = rwi_few_step(source->pairs);
    const int64_t whole = t->columns / step * step;
    const float *few = t->few + row * t->words;
    rwi_lanes sum[RWI_FEW_ROWS][RWI_FEW_KEYS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int k = 0; k < num_keys; k++)
            sum[r][k] = rwi_lanes_of(0.0f);
    for (int64_t i = 0; i < t->columns; i += step, few += RWI_FEW_STEP_WORDS) {
        rwi_two_lanes x[RWI_FEW_KEYS];
#pragma GCC unroll 8
        for (int k = 0; k < num_keys; k++)
            x[k] = rwi_few_load(source, i < whole ? rwi_element(source->dtype, keys[first + k], i)
                                                  : tails[first + k]);
        rwi_few_advance(ahead, num_keys * rows * RWI_FEW_STEP_WORDS);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const rwi_lanes a = rwi_lanes_load(few + r * t->words);
            const rwi_lanes b = rwi_lanes_load(few + r * t->words + RWI_LANES);
#pragma GCC unroll 8
            for (int k = 0; k < num_keys; k++)
                sum[r][k] = rwi_tile_add(source->pairs, sum[r][k], x[k].a, a);
#pragma GCC unroll 8
            for (int k = 0; k < num_keys; k++)
                sum[r][k] = rwi_tile_add(source->pairs, sum[r][k], x[k].b, b);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int k = 0; k < num_keys; k += 4)
            rwi_few_store(sum[r] + k, c + (row + r) * t->c_row + first + k);
}

/* The products of RWI_FEW_KEYS keys. */
RWI_INLINE void rwi_few_multiply_keys(const rwi_few_product *t, const rwi_few_source *source,
                                      const void *const *keys, float *c, rwi_few_ahead *ahead) {
    _Alignas(64) char tails[RWI_FEW_KEYS][RWI_FEW_STEP_WORDS * 4];
    const int64_t step = rwi_few_step(source->pairs), whole = t->columns / step * step;
    const int most = RWI_FEW_ROWS == 4 ? RWI_FEW_KEYS : 4; /* keys of half as many rows */
    int64_t row = 0;
    for (int k = 0; whole < t->columns && k < RWI_FEW_KEYS; k++)
        rwi_few_pad(rwi_element(source->dtype, keys[k], whole),
                    (t->columns - whole) * (int64_t)rwi_dtype_size(source->dtype), tails[k]);
    for (; row + RWI_FEW_ROWS <= t->rows; row += RWI_FEW_ROWS)
        for (int first = 0; first < RWI_FEW_KEYS; first += 4)
            rwi_few_block(t, source, keys, tails, RWI_FEW_ROWS, 4, row, first, c, ahead);
    if (RWI_FEW_ROWS == 4 && row + 2 <= t->rows) {
        rwi_few_block(t, source, keys, tails, 2, RWI_FEW_KEYS, row, 0, c, ahead);
        row += 2;
    }
    for (int first = 0; row < t->rows && first < RWI_FEW_KEYS; first += most)
        rwi_few_block(t, source, keys, tails, 1, most, row, first, c, ahead);
}

/* The same, where keys are converted once for all rows. */
RWI_INLINE void rwi_few_multiply_copies(const rwi_few_product *t, const rwi_few_source *source,
                                        const void *const *keys, float *c, rwi_few_ahead *ahead) {
    _Alignas(64) float copies[RWI_FEW_KEYS][RWI_FEW_MAX_WORDS];
    const void *rows[RWI_FEW_KEYS];
    const rwi_few_source copied = {.dtype = source->table ? RW_BF16 : RW_F32};
    const int64_t columns = t->columns;
    rwi_few_product product = *t;
    product.columns = t->words;
    for (int k = 0; k < RWI_FEW_KEYS; k++) {
        const size_t size = rwi_dtype_size(copied.dtype);
        rows[k] = copies[k];
#if defined(__AVX512F__)
        if (source->table)
            rwi_f8_to_bf16_row(source->table, keys[k], columns, (uint16_t *)copies[k]);
#endif
        if (!source->table)
            rwi_lanes_widen(source->dtype, keys[k], columns, copies[k]);
        memset((char *)copies[k] + (size_t)columns * size, 0, (size_t)(t->words - columns) * size);
    }
    rwi_few_multiply_keys(&product, &copied, rows, c, ahead);
}

/* c[i][n] = dot product of row i of the few with key n. */
RWI_INLINE void rwi_few_multiply(const rwi_few_product *t, const rwi_few_source *source) {
    rwi_few_ahead ahead = rwi_few_begin_ahead(t->later, t->later_bytes, t->rows * t->words);
    const bool converted = !source->pairs && source->dtype != RW_F32 && source->dtype != RW_BF16;
    for (int64_t n = 0; n < t->num_keys; n += RWI_FEW_KEYS)
        if (converted && (source->table || t->rows > RWI_FEW_ROWS))
            rwi_few_multiply_copies(t, source, t->keys + n, t->c + n, &ahead);
        else
            rwi_few_multiply_keys(t, source, t->keys + n, t->c + n, &ahead);
}

/* ---- weights of few rows times values --------------------------------------------------------- */

/* Rows and parts of RWI_TWO_LANES columns whose sums are in registers; of one or two rows, twice as
 * many parts. */
#define RWI_FEW_SUM_ROWS 4
#if RWI_LANES == 16
#define RWI_FEW_SUM_PARTS 2
#else
#define RWI_FEW_SUM_PARTS 1
#endif

/* Adds RWI_TWO_LANES sums of a row to c. */
RWI_INLINE void rwi_few_join(const rwi_tile_product *t, int64_t row, int64_t j, rwi_two_lanes sum) {
    const float kept = t->kept ? t->kept[row] : 1.0f;
    rwi_tile_store(t, row, j, 0, sum.a + *rwi_tile_lanes(t, t->c_rest, row, j, 0) * kept);
    rwi_tile_store(t, row, j, 1, sum.b + *rwi_tile_lanes(t, t->c_rest, row, j, 1) * kept);
}

/* Columns from `j` on of a key's values; where fewer than RWI_TWO_LANES are left, a copy in `part`. */
RWI_INLINE const void *rwi_few_columns(const rwi_few_source *source, const void *values, int64_t j,
                                       int64_t left, char *part) {
    const void *data = rwi_element(source->dtype, values, j);
    if (left >= RWI_TWO_LANES)
        return data;
    rwi_few_pad(data, left * (int64_t)rwi_dtype_size(source->dtype), part);
    return part;
}

#if defined(__AVX512F__)
/* 64 codes, or the 32 of the only part. */
RWI_INLINE __m512i rwi_few_load_codes(const void *data, int part, int parts) {
    const __m256i *codes = (const __m256i *)data + part;
    return parts == 1 ? _mm512_castsi256_si512(_mm256_loadu_si256(codes))
                      : _mm512_loadu_si512(codes);
}

/* Words of a value of each of two keys; four columns are in quad 0 of x.a, the next in that of x.b,
 * the next in quad 1 of x.a, and so on. */
RWI_INLINE void rwi_few_load_pairs(const rwi_few_source *source, const void *first,
                                   const void *second, int parts, rwi_two_lanes *x) {
    for (int part = 0; part < parts; part += source->table ? 2 : 1) {
        __m512i a[2], b[2];
        if (source->table) {
            rwi_f8_to_bf16_64(source->table, rwi_few_load_codes(first, part, parts), a);
            rwi_f8_to_bf16_64(source->table, rwi_few_load_codes(second, part, parts), b);
        } else {
            a[0] = _mm512_loadu_si512((const __m512i *)first + part);
            b[0] = _mm512_loadu_si512((const __m512i *)second + part);
        }
        for (int n = 0; n < (source->table && parts > 1 ? 2 : 1); n++) {
            x[part + n].a = (rwi_lanes)_mm512_unpacklo_epi16(a[n], b[n]);
            x[part + n].b = (rwi_lanes)_mm512_unpackhi_epi16(a[n], b[n]);
        }
    }
}
#endif

/* Values of one key, or pairs of two, from their columns' addresses on. */
RWI_INLINE void rwi_few_load_values(const rwi_few_source *source, const void *first,
                                    const void *second, int parts, rwi_two_lanes *x) {
#if defined(__AVX512F__)
    if (source->pairs) {
        rwi_few_load_pairs(source, first, second, parts, x);
        return;
    }
    for (int part = 0; source->table && part < parts; part += 2) {
        __m512i words[2];
        rwi_f8_to_bf16_64(source->table, rwi_few_load_codes(first, part, parts), words);
        x[part] = rwi_two_lanes_load(RW_BF16, &words[0]);
        if (parts > 1)
            x[part + 1] = rwi_two_lanes_load(RW_BF16, &words[1]);
    }
    if (source->table)
        return;
#endif
    (void)second;
#pragma GCC unroll 8
    for (int part = 0; part < parts; part++)
        x[part] = rwi_two_lanes_load(source->dtype,
                                     rwi_element(source->dtype, first, part * RWI_TWO_LANES));
}

/* Sums in the order of columns. */
RWI_INLINE rwi_two_lanes rwi_few_order_sums(const rwi_few_source *source, rwi_two_lanes sum) {
    if (source->pairs)
        return rwi_two_lanes_zip_quads(sum);
    return rwi_few_order(source) == RW_BF16 ? rwi_two_lanes_zip(sum) : sum;
}

/* A block of constant size, of which `left` columns exist. */
RWI_INLINE void rwi_few_sum_block(const rwi_tile_product *t, const void *const *values,
                                  const rwi_few_source *source, int rows, int parts, int64_t i,
                                  int64_t j, int64_t left, rwi_few_ahead *ahead) {
    _Alignas(64) char copies[2][RWI_FEW_STEP_WORDS * 4];
    rwi_two_lanes sum[RWI_FEW_SUM_ROWS][2 * RWI_FEW_SUM_PARTS];
    const rwi_word *weights = t->a + i * t->a_row;
    const int keys = source->pairs ? 2 : 1;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int part = 0; part < parts; part++)
            sum[r][part].a = sum[r][part].b = rwi_lanes_of(0.0f);
    for (int64_t k = 0; k < t->depth; k++) {
        rwi_two_lanes x[2 * RWI_FEW_SUM_PARTS];
        const void *first = rwi_few_columns(source, values[k * keys], j, left, copies[0]);
        const void *second = first;
        if (source->pairs)
            second = rwi_few_columns(source, values[k * keys + 1], j, left, copies[1]);
        rwi_few_advance(ahead, keys * rows * parts * RWI_TWO_LANES);
        rwi_few_load_values(source, first, second, parts, x);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const rwi_lanes weight = rwi_lanes_of(weights[r * t->a_row + k]);
#pragma GCC unroll 8
            for (int part = 0; part < parts; part++) {
                sum[r][part].a = rwi_tile_add(source->pairs, sum[r][part].a, weight, x[part].a);
                sum[r][part].b = rwi_tile_add(source->pairs, sum[r][part].b, weight, x[part].b);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int part = 0; part < parts; part++)
            rwi_few_join(t, i + r, j + part * RWI_TWO_LANES,
                         rwi_few_order_sums(source, sum[r][part]));
}

/* Columns [j, end). */
RWI_INLINE void rwi_few_sum_rows(const rwi_tile_product *t, const void *const *values,
                                 const rwi_few_source *source, int rows, int64_t i, int64_t j,
                                 int64_t end, rwi_few_ahead *ahead) {
    const int parts = rows == RWI_FEW_SUM_ROWS ? RWI_FEW_SUM_PARTS : 2 * RWI_FEW_SUM_PARTS;
    for (; j + parts * RWI_TWO_LANES <= end; j += parts * RWI_TWO_LANES)
        rwi_few_sum_block(t, values, source, rows, parts, i, j, RWI_TWO_LANES, ahead);
    for (; j + RWI_TWO_LANES <= end; j += RWI_TWO_LANES)
        rwi_few_sum_block(t, values, source, rows, 1, i, j, RWI_TWO_LANES, ahead);
    if (j < end)
        rwi_few_sum_block(t, values, source, rows, 1, i, j, end - j, ahead);
}

/* As rwi_tile_multiply(), with c_rest, for values of any dtype that are read in place: b is
 * `values`. Rows of c are padded to a multiple of RWI_TWO_LANES. Pairs: words of a are weights of two
 * keys. Starts to read as many rows of `later`. */
RWI_INLINE void rwi_few_sum(const rwi_tile_product *t, const void *const *values,
                            const rwi_few_source *source, const void *const *later,
                            int64_t later_bytes) {
    const int64_t step = 2 * RWI_FEW_SUM_PARTS * RWI_TWO_LANES;
    rwi_few_ahead ahead = rwi_few_begin_ahead(
        later, later_bytes, t->rows * rwi_ceil_div(t->columns, RWI_TWO_LANES) * RWI_TWO_LANES);
    for (int64_t j = 0; j < t->columns; j += step) {
        const int64_t end = rwi_min(j + step, t->columns);
        int64_t i = 0;
        for (; i + RWI_FEW_SUM_ROWS <= t->rows; i += RWI_FEW_SUM_ROWS)
            rwi_few_sum_rows(t, values, source, RWI_FEW_SUM_ROWS, i, j, end, &ahead);
        if (i + 2 <= t->rows) {
            rwi_few_sum_rows(t, values, source, 2, i, j, end, &ahead);
            i += 2;
        }
        if (i < t->rows)
            rwi_few_sum_rows(t, values, source, 1, i, j, end, &ahead);
    }
}

#endif
