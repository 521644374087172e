/* ALiBi's slopes and T5's buckets: reference values of Hugging Face transformers (tests/golden),
 * logarithms that are whole numbers, and every invalid call. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <ropewalk/io.h>

#include "harness/test_support.h"

#define HF_BOUND 4e-7 /* relative; they compute powers in f32 */

static rw_context *context;
static rw_safetensors *golden;

/* A tensor of the golden file; the caller must free it. */
static void *read_golden(const char *name, rw_dtype dtype, int64_t count) {
    const rw_safetensor *tensor = rw_safetensors_find(golden, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->dtype, dtype);
    assert_int_equal(tensor->bytes, (uint64_t)count * rw_dtype_size(dtype));
    void *data = rwt_allocate((size_t)tensor->bytes);
    assert_int_equal(rw_safetensors_load(golden, tensor, data, NULL), RW_OK);
    return data;
}

/* BLOOM's bias of 6 keys: slope * key, which is the signed bias of a query at key 0. The heads are
 * split into shards of three. */
static void check_alibi(int64_t heads) {
    enum {
        KEYS = 6,
        SHARD = 3
    };
    char name[16];
    snprintf(name, sizeof name, "alibi/%lld", (long long)heads);
    float *expected = read_golden(name, RW_F32, heads * KEYS);
    for (int64_t first = 0; first < heads; first += SHARD) {
        const int64_t count = heads - first < SHARD ? heads - first : SHARD;
        const int64_t shape[] = {count, 1, KEYS};
        float bias[SHARD * KEYS] = {0};
        void *slopes = rwt_test_upload(context, bias, sizeof bias);
        void *out = rwt_test_upload(context, bias, sizeof bias);
        rw_alibi_slopes_args args = {rw_tensor_contiguous(slopes, RW_F32, 1, shape), first, heads};
        rw_alibi alibi = {args.out, true, RW_ALIGN_TOP_LEFT};
        rw_tensor dense = rw_tensor_contiguous(out, RW_F32, 3, shape);
        assert_int_equal(rw_alibi_slopes(context, &args), RW_OK);
        assert_int_equal(rw_alibi_bias(context, &alibi, &dense), RW_OK);
        assert_int_equal(rw_synchronize(context), RW_OK);
        rwt_test_download(context, bias, out, sizeof bias);
        for (int64_t n = 0; n < count * KEYS; n++) {
            double want = expected[first * KEYS + n];
            if (fabs(bias[n] - want) > HF_BOUND * fabs(want))
                fail_msg("%s: element %lld is %.9g, expected %.9g", name,
                         (long long)(first * KEYS + n), bias[n], want);
        }
        rw_free(context, slopes);
        rw_free(context, out);
    }
    free(expected);
}

static void test_golden_alibi(void **state) {
    (void)state;
    check_alibi(8);
    check_alibi(12);
}

/* On the host, and through a bias whose table holds its row numbers. */
static void test_golden_t5(void **state) {
    (void)state;
    enum {
        LONGEST = 300,
        COUNT = 2 * LONGEST + 1,
        BUCKETS = 32
    };
    static float bias[COUNT * COUNT];
    int64_t *expected = read_golden("t5/True_32_128", RW_I64, COUNT);
    const rw_t5_options options = {.num_buckets = BUCKETS, .max_distance = 128};
    rw_t5 *t5;
    assert_int_equal(rw_t5_create(context, &options, &t5), RW_OK);
    for (int64_t r = -LONGEST; r <= LONGEST; r++)
        assert_int_equal(rw_t5_bucket(t5, r), expected[r + LONGEST]);
    float numbers[BUCKETS];
    for (int n = 0; n < BUCKETS; n++)
        numbers[n] = (float)n;
    const int64_t table[] = {BUCKETS, 1}, out[] = {1, COUNT, COUNT};
    void *on_device = rwt_test_upload(context, bias, sizeof bias);
    void *table_on_device = rwt_test_upload(context, numbers, sizeof numbers);
    rw_t5_bias_args args = {.table = rw_tensor_contiguous(table_on_device, RW_F32, 2, table),
                            .out = rw_tensor_contiguous(on_device, RW_F32, 3, out)};
    assert_int_equal(rw_t5_bias(context, t5, &args), RW_OK);
    assert_int_equal(rw_synchronize(context), RW_OK);
    rwt_test_download(context, bias, on_device, sizeof bias);
    for (int64_t i = 0; i < COUNT; i++)
        for (int64_t j = 0; j < COUNT; j++)
            if (j - i >= -LONGEST && j - i <= LONGEST)
                assert_true(bias[i * COUNT + j] == (float)expected[j - i + LONGEST]);
    rw_free(context, on_device);
    rw_free(context, table_on_device);
    rw_t5_destroy(t5);
    free(expected);
}

/* Logarithmic bucket k of w starts at e * (d / e)^(k / w), if that is a whole number: float
 * arithmetic misses some of those by one. Here it is e * 2^k or e * 3^k. */
static void check_powers(int64_t buckets, int64_t base) {
    int64_t e = buckets / 2, w = buckets - e, d = e;
    for (int64_t k = 0; k < w; k++)
        d *= base;
    const rw_t5_options options = {.num_buckets = buckets, .max_distance = d, .causal = true};
    rw_t5 *t5;
    assert_int_equal(rw_t5_create(context, &options, &t5), RW_OK);
    int64_t begin = e;
    for (int64_t k = 0; k < w; k++) {
        assert_int_equal(rw_t5_bucket(t5, -begin), e + k);
        assert_int_equal(rw_t5_bucket(t5, -begin + 1), k == 0 ? e - 1 : e + k - 1);
        begin *= base;
        assert_int_equal(rw_t5_bucket(t5, -begin + 1), e + k);
    }
    assert_int_equal(rw_t5_bucket(t5, -d), buckets - 1);
    assert_int_equal(rw_t5_bucket(t5, INT64_MIN), buckets - 1);
    assert_int_equal(rw_t5_bucket(t5, 1), 0);
    assert_int_equal(rw_t5_bucket(t5, INT64_MAX), 0);
    rw_t5_destroy(t5);
}

static void test_exact_powers(void **state) {
    (void)state;
    for (int64_t buckets = 2; buckets <= 36; buckets++)
        check_powers(buckets, 2);
    for (int64_t buckets = 2; buckets <= 22; buckets++)
        check_powers(buckets, 3);
}

/* Buckets never decrease with the distance, and the largest tables are supported. */
static void test_large_tables(void **state) {
    (void)state;
    const rw_t5_options sizes[] = {{512, 1 << 24, true}, {1024, 5000, false}, {1024, 257, false}};
    for (int n = 0; n < 3; n++) {
        int64_t side = sizes[n].num_buckets / (sizes[n].causal ? 1 : 2);
        rw_t5 *t5;
        assert_int_equal(rw_t5_create(context, &sizes[n], &t5), RW_OK);
        int64_t before = 0;
        for (int64_t r = 0; r <= sizes[n].max_distance; r += r < 100000 ? 1 : 997) {
            int64_t bucket = rw_t5_bucket(t5, -r);
            assert_true(bucket >= before && bucket < side);
            before = bucket;
        }
        assert_int_equal(rw_t5_bucket(t5, -sizes[n].max_distance), side - 1);
        rw_t5_destroy(t5);
    }
}

static void test_refused_t5(void **state) {
    (void)state;
    static const struct {
        rw_t5_options options;
        const char *word;
    } refusals[] = {
        {{1, 128, true}, "num_buckets is 1"},      {{2, 128, false}, "num_buckets is 2"},
        {{33, 128, false}, "num_buckets is 33"},   {{513, 128, true}, "num_buckets is 513"},
        {{-32, 128, false}, "num_buckets is -32"}, {{1026, 9999, false}, "num_buckets is 1026"},
        {{32, 8, false}, "max_distance is 8"},     {{32, 16, true}, "max_distance is 16"},
        {{32, -1, true}, "max_distance is -1"},    {{32, (1 << 24) + 1, true}, "max_distance"},
    };
    for (size_t n = 0; n < sizeof refusals / sizeof *refusals; n++) {
        rw_t5 *t5 = (rw_t5 *)&t5;
        assert_int_equal(rw_t5_create(context, &refusals[n].options, &t5), RW_INVALID_ARGUMENT);
        assert_null(t5);
        assert_true(rwt_test_says(rw_last_error(context), refusals[n].word));
    }
    assert_int_equal(rw_t5_create(context, NULL, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_t5_bucket(NULL, 0), -1);
    rw_t5_destroy(NULL);
}

static void test_refused_slopes(void **state) {
    (void)state;
    static const int64_t refusals[][3] = {/* heads, first, total */
                                          {3, 0, 2}, {3, -1, 8}, {3, 6, 8},
                                          {3, 0, 0}, {3, 0, -4}, {1, 0, (1 << 20) + 1}};
    float memory[3] = {7, 7, 7};
    void *out = rwt_test_upload(context, memory, sizeof memory);
    for (size_t n = 0; n < sizeof refusals / sizeof *refusals; n++) {
        rw_alibi_slopes_args args = {rw_tensor_contiguous(out, RW_F32, 1, &refusals[n][0]),
                                     refusals[n][1], refusals[n][2]};
        assert_int_equal(rw_alibi_slopes(context, &args), RW_INVALID_ARGUMENT);
        assert_true(rwt_test_says(rw_last_error(context), "rw_alibi_slopes: "));
    }
    rwt_test_download(context, memory, out, sizeof memory);
    for (int n = 0; n < 3; n++)
        assert_true(memory[n] == 7);
    rw_free(context, out);
}

/* Dense biases do not support RW_ALIGN_KEY_END. */
static void test_refused_alignments(void **state) {
    (void)state;
    static const struct {
        rw_alignment alignment;
        const char *word;
    } refusals[] = {{RW_ALIGN_KEY_END, "alignment is RW_ALIGN_KEY_END"},
                    {(rw_alignment)3, "alignment is 3"}};
    const int64_t one[] = {1}, table[] = {32, 1}, shape[] = {1, 2, 3};
    const rw_t5_options options = {.causal = true};
    float values[32] = {0}, before[6] = {1, 2, 3, 4, 5, 6}, after[6];
    void *in = rwt_test_upload(context, values, sizeof values);
    void *memory = rwt_test_upload(context, before, sizeof before);
    rw_tensor out = rw_tensor_contiguous(memory, RW_F32, 3, shape);
    rw_t5 *t5;
    assert_int_equal(rw_t5_create(context, &options, &t5), RW_OK);
    for (size_t n = 0; n < sizeof refusals / sizeof *refusals; n++) {
        rw_alibi alibi = {rw_tensor_contiguous(in, RW_F32, 1, one), false, refusals[n].alignment};
        rw_t5_bias_args args = {.table = rw_tensor_contiguous(in, RW_F32, 2, table),
                                .out = out,
                                .alignment = refusals[n].alignment};
        assert_int_equal(rw_alibi_bias(context, &alibi, &out), RW_INVALID_ARGUMENT);
        assert_true(rwt_test_says(rw_last_error(context), "rw_alibi_bias: "));
        assert_true(rwt_test_says(rw_last_error(context), refusals[n].word));
        assert_int_equal(rw_t5_bias(context, t5, &args), RW_INVALID_ARGUMENT);
        assert_true(rwt_test_says(rw_last_error(context), "rw_t5_bias: "));
        assert_true(rwt_test_says(rw_last_error(context), refusals[n].word));
    }
    assert_int_equal(rw_synchronize(context), RW_OK);
    rwt_test_download(context, after, memory, sizeof after);
    assert_memory_equal(before, after, sizeof after);
    rw_t5_destroy(t5);
    rw_free(context, in);
    rw_free(context, memory);
}

static int open_all(void **state) {
    (void)state;
    rw_message message;
    rwt_test_restore_crash_handlers();
    context = rwt_test_context();
    return rw_safetensors_open(ROPEWALK_GOLDEN "/biases.safetensors", &golden, &message);
}

static int close_all(void **state) {
    (void)state;
    rw_safetensors_close(golden);
    rw_context_destroy(context);
    return 0;
}

int main(void) {
    rwt_test_keep_crash_handlers();
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_alibi),       cmocka_unit_test(test_golden_t5),
        cmocka_unit_test(test_exact_powers),       cmocka_unit_test(test_large_tables),
        cmocka_unit_test(test_refused_t5),         cmocka_unit_test(test_refused_slopes),
        cmocka_unit_test(test_refused_alignments),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
