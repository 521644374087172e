/* The 8-bit floats of KV caches: every code, and every boundary between two codes, by
 * rw_kv_append(). The tables are those of the Python package ml_dtypes, of float8_e4m3fn and
 * float8_e5m2. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

/* Codes 0 to 127; with the sign bit they are negative. */
static const double e4m3[128] = {
    0.0,       0x1p-9,   0.00390625, 0x1.8p-8,  0.0078125, 0x1.4p-7, 0x1.8p-7, 0x1.Cp-7,  0.015625,
    0x1.2p-6,  0x1.4p-6, 0x1.6p-6,   0.0234375, 0x1.Ap-6,  0x1.Cp-6, 0x1.Ep-6, 0.03125,   0x1.2p-5,
    0.0390625, 0x1.6p-5, 0.046875,   0x1.Ap-5,  0.0546875, 0x1.Ep-5, 0.0625,   0.0703125, 0.078125,
    0.0859375, 0.09375,  0x1.Ap-4,   0.109375,  0x1.Ep-4,  0.125,    0.140625, 0.15625,   0.171875,
    0.1875,    0.203125, 0.21875,    0.234375,  0.25,      0.28125,  0.3125,   0.34375,   0.375,
    0.40625,   0.4375,   0.46875,    0.5,       0.5625,    0.625,    0.6875,   0.75,      0.8125,
    0.875,     0.9375,   1.0,        1.125,     1.25,      1.375,    1.5,      1.625,     1.75,
    1.875,     2.0,      2.25,       2.5,       2.75,      3.0,      3.25,     3.5,       3.75,
    4.0,       4.5,      5.0,        5.5,       6.0,       6.5,      7.0,      7.5,       8.0,
    9.0,       10.0,     11.0,       12.0,      13.0,      14.0,     15.0,     16.0,      18.0,
    20.0,      22.0,     24.0,       26.0,      28.0,      30.0,     32.0,     36.0,      40.0,
    44.0,      48.0,     52.0,       56.0,      60.0,      64.0,     72.0,     80.0,      88.0,
    96.0,      104.0,    112.0,      120.0,     128.0,     144.0,    160.0,    176.0,     192.0,
    208.0,     224.0,    240.0,      256.0,     288.0,     320.0,    352.0,    384.0,     416.0,
    448.0,     NAN,
};

static const double e5m2[128] = {
    0.0,       0x1p-16,   0x1p-15,   0x1.8p-15, 0x1p-14,    0x1.4p-14, 0x1.8p-14, 0x1.Cp-14,
    0x1p-13,   0x1.4p-13, 0x1.8p-13, 0x1.Cp-13, 0x1p-12,    0x1.4p-12, 0x1.8p-12, 0x1.Cp-12,
    0x1p-11,   0x1.4p-11, 0x1.8p-11, 0x1.Cp-11, 0x1p-10,    0x1.4p-10, 0x1.8p-10, 0x1.Cp-10,
    0x1p-9,    0x1.4p-9,  0x1.8p-9,  0x1.Cp-9,  0.00390625, 0x1.4p-8,  0x1.8p-8,  0x1.Cp-8,
    0.0078125, 0x1.4p-7,  0x1.8p-7,  0x1.Cp-7,  0.015625,   0x1.4p-6,  0.0234375, 0x1.Cp-6,
    0.03125,   0.0390625, 0.046875,  0.0546875, 0.0625,     0.078125,  0.09375,   0.109375,
    0.125,     0.15625,   0.1875,    0.21875,   0.25,       0.3125,    0.375,     0.4375,
    0.5,       0.625,     0.75,      0.875,     1.0,        1.25,      1.5,       1.75,
    2.0,       2.5,       3.0,       3.5,       4.0,        5.0,       6.0,       7.0,
    8.0,       10.0,      12.0,      14.0,      16.0,       20.0,      24.0,      28.0,
    32.0,      40.0,      48.0,      56.0,      64.0,       80.0,      96.0,      112.0,
    128.0,     160.0,     192.0,     224.0,     256.0,      320.0,     384.0,     448.0,
    512.0,     640.0,     768.0,     896.0,     1024.0,     1280.0,    1536.0,    1792.0,
    2048.0,    2560.0,    3072.0,    3584.0,    4096.0,     5120.0,    6144.0,    7168.0,
    8192.0,    10240.0,   12288.0,   14336.0,   16384.0,    20480.0,   24576.0,   28672.0,
    32768.0,   40960.0,   49152.0,   57344.0,   INFINITY,   NAN,       NAN,       NAN,
};

static const struct {
    rw_dtype dtype;
    const double *values; /* of codes 0 to 127 */
    uint8_t last;         /* code of the largest number */
    uint8_t nan;          /* the first code of NaN */
} formats[] = {{RW_F8_E4M3, e4m3, 0x7E, 0x7F}, {RW_F8_E5M2, e5m2, 0x7B, 0x7D}};

#define WIDTH 64 /* of a head */
#define MAX_NUMBERS 1024

/* Numbers and the codes that they must become; 255 for any NaN of either sign. */
typedef struct numbers {
    float x[MAX_NUMBERS];
    uint8_t code[MAX_NUMBERS];
    int count;
} numbers;

static void add(numbers *n, double x, uint8_t code) {
    for (int sign = 0; sign < 2; sign++) {
        assert_true(n->count < MAX_NUMBERS);
        n->x[n->count] = (float)(sign ? -x : x);
        n->code[n->count++] = (uint8_t)(code | sign << 7);
    }
}

/* Every number of a format, and what lies around the middle of two. */
static void fill(numbers *n, int format) {
    const double *values = formats[format].values;
    const uint8_t last = formats[format].last;
    n->count = 0;
    for (int code = 0; code <= last; code++)
        add(n, values[code], (uint8_t)code);
    for (int code = 0; code < last; code++) {
        const float middle = (float)((values[code] + values[code + 1]) / 2.0);
        add(n, middle, (uint8_t)(code + code % 2));
        add(n, nextafterf(middle, 0.0f), (uint8_t)code);
        add(n, nextafterf(middle, INFINITY), (uint8_t)(code + 1));
    }
    add(n, 2.0 * values[last], last);
    add(n, 3e38, last);
    add(n, INFINITY, last);
    add(n, 1e-40, 0);
    add(n, NAN, 0x7F);
}

static rw_tensor heads_of(void *data, rw_dtype dtype, int64_t tokens) {
    const int64_t shape[] = {1, tokens, 1, WIDTH};
    return rw_tensor_contiguous(data, dtype, 4, shape);
}

/* Appends the numbers times the scale as k; `codes` receives the cache. */
static void append(int format, const numbers *n, float scale, uint8_t *codes) {
    float scaled[MAX_NUMBERS] = {0.0f};
    const int64_t tokens = (n->count + WIDTH - 1) / WIDTH, one = 1;
    for (int i = 0; i < n->count; i++)
        scaled[i] = n->x[i] * scale;
    rw_context *context = rwt_test_context();
    float *in = rwt_test_upload(context, scaled, sizeof scaled);
    float *device_scale = rwt_test_upload(context, &scale, sizeof scale);
    uint8_t *cache = rwt_test_upload(context, codes, MAX_NUMBERS);
    const rw_kv_append_args args = {
        .k = heads_of(in, RW_F32, tokens),
        .cache = {.k = heads_of(cache, formats[format].dtype, tokens),
                  .k_scale = rw_tensor_contiguous(device_scale, RW_F32, 1, &one)}};
    if (rw_kv_append(context, &args) != RW_OK)
        fail_msg("%s", rw_last_error(context));
    assert_int_equal(rw_synchronize(context), RW_OK);
    rwt_test_download(context, codes, cache, MAX_NUMBERS);
    assert_int_equal(rw_free(context, in) | rw_free(context, device_scale), RW_OK);
    assert_int_equal(rw_free(context, cache), RW_OK);
    rw_context_destroy(context);
}

/* Powers of two: the quotients are exact. */
static void test_every_code(void **state) {
    (void)state;
    const float scales[] = {1.0f, 0x1p-3f, 4.0f};
    for (int format = 0; format < 2; format++)
        for (int s = 0; s < 3; s++) {
            numbers n;
            uint8_t codes[MAX_NUMBERS] = {0};
            fill(&n, format);
            append(format, &n, scales[s], codes);
            for (int i = 0; i < n.count; i++) {
                const bool nan = isnan(n.x[i]) && (codes[i] & 0x7F) >= formats[format].nan;
                /* 3e38 * 4 is Inf, which becomes the same code; 1e-40 / 8 is subnormal */
                if (codes[i] != n.code[i] && !nan)
                    fail_msg("%s, scale %g: %.9g became 0x%02x, expected 0x%02x",
                             rw_dtype_name(formats[format].dtype), (double)scales[s],
                             (double)n.x[i], codes[i], n.code[i]);
            }
        }
}

static rw_tensor rows_of(void *data, rw_dtype dtype, int64_t width) {
    const int64_t shape[] = {256, 1, 1, width};
    return rw_tensor_contiguous(data, dtype, 4, shape);
}

#define MOST_COLUMNS 301

typedef struct columns {
    uint8_t codes[256 * MOST_COLUMNS];
    float zeros[256 * MOST_COLUMNS];
    float out[256 * MOST_COLUMNS];
} columns;

/* 256 sequences of one key, whose weight is 1; column c of v of sequence n has the code n + c. `scale`
 * is that of v. */
static void attend(int format, rw_dtype dtype, float scale, int64_t width, columns *c) {
    const rw_dtype code = formats[format].dtype;
    const int64_t one = 1;
    const size_t count = (size_t)(256 * width);
    for (int64_t n = 0; n < 256 * width; n++)
        c->codes[n] = (uint8_t)(n / width + n % width);
    rw_context *context = rwt_test_context();
    void *q = rwt_test_upload(context, c->zeros, count * sizeof(float));
    void *k = rwt_test_upload(context, c->zeros, count);
    void *v = rwt_test_upload(context, c->codes, count);
    void *device_scale = rwt_test_upload(context, &scale, sizeof scale);
    void *result = rwt_test_upload(context, c->zeros, count * sizeof(float));
    const rw_attention_args args = {.q = rows_of(q, dtype, width),
                                    .k = rows_of(k, code, width),
                                    .v = rows_of(v, code, width),
                                    .out = rows_of(result, RW_F32, width),
                                    .v_scale = rw_tensor_contiguous(device_scale, RW_F32, 1, &one)};
    if (rw_attention(context, &args) != RW_OK)
        fail_msg("%s", rw_last_error(context));
    assert_int_equal(rw_synchronize(context), RW_OK);
    rwt_test_download(context, c->out, result, count * sizeof(float));
    void *const all[] = {q, k, v, device_scale, result};
    for (int n = 0; n < 5; n++)
        assert_int_equal(rw_free(context, all[n]), RW_OK);
    rw_context_destroy(context);
}

static void check_codes(int format, rw_dtype dtype, int64_t width) {
    columns *c = rwt_allocate(sizeof *c);
    const float scale = dtype == RW_F16 ? -4.0f : 4.0f;
    attend(format, dtype, scale, width, c);
    for (int64_t n = 0; n < 256 * width; n++) {
        const int code = c->codes[n];
        const double size = formats[format].values[code & 0x7F] * scale;
        const double expected = code & 0x80 ? -size : size, x = c->out[n];
        if (isnan(expected) ? !isnan(x) : x != expected)
            fail_msg("%s, q is %s, %d columns: 0x%02x in column %d became %.9g, expected %.9g",
                     rw_dtype_name(formats[format].dtype), rw_dtype_name(dtype), (int)width, code,
                     (int)(n % width), x, expected);
    }
    free(c);
}

/* In heads of a whole number of vectors, of none, of whole tiles, and wide ones. */
static void test_every_code_in_attention(void **state) {
    (void)state;
    const rw_dtype dtypes[] = {RW_F32, RW_F16, RW_BF16};
    const int64_t widths[] = {8, 13, 64, 128, 272, MOST_COLUMNS};
    for (int format = 0; format < 2; format++)
        for (int d = 0; d < 3; d++)
            for (int w = 0; w < 6; w++)
                check_codes(format, dtypes[d], widths[w]);
}

/* Of a number that bf16 has. */
static uint16_t bf16_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

#define MOST_HEADS 2

/* Heads of q that share two keys; `out` receives column 0 of each. */
static void attend_two(int format, int64_t heads, const float (*q)[WIDTH],
                       const uint8_t (*k)[WIDTH], const uint8_t (*v)[WIDTH], double scale,
                       float *out) {
    uint16_t halves[MOST_HEADS * WIDTH];
    float all[MOST_HEADS * WIDTH] = {0.0f};
    const int64_t rows[] = {1, 1, heads, WIDTH}, keys[] = {1, 2, 1, WIDTH};
    for (int64_t n = 0; n < heads * WIDTH; n++)
        halves[n] = bf16_of(q[n / WIDTH][n % WIDTH]);
    rw_context *context = rwt_test_context();
    void *device_q = rwt_test_upload(context, halves, sizeof halves);
    void *device_k = rwt_test_upload(context, k, 2 * WIDTH);
    void *device_v = rwt_test_upload(context, v, 2 * WIDTH);
    void *device_out = rwt_test_upload(context, all, sizeof all);
    const rw_attention_args args = {
        .q = rw_tensor_contiguous(device_q, RW_BF16, 4, rows),
        .k = rw_tensor_contiguous(device_k, formats[format].dtype, 4, keys),
        .v = rw_tensor_contiguous(device_v, formats[format].dtype, 4, keys),
        .out = rw_tensor_contiguous(device_out, RW_F32, 4, rows),
        .scale = scale};
    if (rw_attention(context, &args) != RW_OK)
        fail_msg("%s", rw_last_error(context));
    assert_int_equal(rw_synchronize(context), RW_OK);
    rwt_test_download(context, all, device_out, sizeof all);
    for (int64_t h = 0; h < heads; h++)
        out[h] = all[h * WIDTH];
    void *const memory[] = {device_q, device_k, device_v, device_out};
    for (int n = 0; n < 4; n++)
        assert_int_equal(rw_free(context, memory[n]), RW_OK);
    rw_context_destroy(context);
}

/* The first key has the score 1 by an element of q that is `ratio` of the largest one, which meets
 * zeros: a unit of f16 must not lose it. */
static void check_range(int format, double ratio) {
    const float large = 0x1p20f, small = (float)(large * ratio);
    const uint8_t one = format == 0 ? 0x38 : 0x3C; /* the code of 1 */
    const float q[1][WIDTH] = {{[0] = large, [7] = small}};
    const uint8_t k[2][WIDTH] = {{[7] = one}}, v[2][WIDTH] = {{one}};
    const double expected = 1.0 / (1.0 + exp(-1.0));
    float out;
    attend_two(format, 1, q, k, v, 1.0 / (double)small, &out);
    if (!(fabs(out - expected) < 4e-3))
        fail_msg("%s, ratio %g: %.9g, expected %.9g", rw_dtype_name(formats[format].dtype), ratio,
                 (double)out, expected);
}

static void test_range_of_queries(void **state) {
    (void)state;
    for (int format = 0; format < 2; format++)
        for (int power = 0; power <= 64; power += 4)
            check_range(format, ldexp(1.75, -power));
}

/* A key of -Inf has no weight, also beside a head whose elements f16 does not have: their rest is 0
 * where others have none, and 0 * Inf is NaN. `element` is multiplied by -Inf. */
static void check_infinite_score(float element) {
    const uint8_t two = 0x40, infinite = 0xFC;
    const float q[MOST_HEADS][WIDTH] = {
        {[7] = 1.0f}, {[0] = 0x1p20f, [3] = 1.9921875f * 0x1p-15f, [7] = element}};
    const uint8_t k[2][WIDTH] = {{0}, {[7] = infinite}}, v[2][WIDTH] = {{two}, {0}};
    float out[MOST_HEADS];
    attend_two(1, MOST_HEADS, q, k, v, 1.0, out);
    for (int h = 0; h < MOST_HEADS; h++)
        if (out[h] != 2.0f)
            fail_msg("%g times -Inf: head %d is %g, expected 2", (double)element, h,
                     (double)out[h]);
}

static void test_infinite_scores(void **state) {
    (void)state;
    check_infinite_score(1.0f);
    check_infinite_score(0x1p-30f); /* all of it is rest */
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code), cmocka_unit_test(test_every_code_in_attention),
        cmocka_unit_test(test_range_of_queries), cmocka_unit_test(test_infinite_scores)};
    return cmocka_run_group_tests_name("8-bit floats", tests, NULL, NULL);
}
