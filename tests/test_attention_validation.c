/* Attention and the products around the softmax: every way to call them wrongly. Each is refused
 * with a sentence that names the function and the argument, and nothing is written. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "test_support.h"

#define MEMORY_FLOATS 8192

/* q [2, 4, 3, 16], k and v [2, 2, 5, 16]; a different call of each function over them. */
typedef struct fixture {
    rw_context *context;
    float *memory;
    float before[MEMORY_FLOATS];
    rw_attention_args attention;
    rw_qk_matmul_args qk;
    rw_weighted_matmul_args weighted;
    rw_score_statistics_args statistics;
    rw_attention_merge_args merge;
} fixture;

static rw_tensor tensor(float *data, int rank, const int64_t *shape) {
    return rw_tensor_contiguous(data, RW_F32, rank, shape);
}

static int open_fixture(void **state) {
    fixture *f = rwt_allocate(sizeof *f);
    f->context = rwt_test_context();
    for (int i = 0; i < MEMORY_FLOATS; i++)
        f->before[i] = (float)(i % 97) / 97.0f;
    float *m = f->memory = rwt_test_upload(f->context, f->before, sizeof f->before);
    const int64_t q[] = {2, 4, 3, 16}, k[] = {2, 2, 5, 16}, scores[] = {2, 4, 3, 5},
                  lse[] = {2, 4, 3};
    f->attention = (rw_attention_args){.q = tensor(m, 4, q),
                                       .k = tensor(m + 512, 4, k),
                                       .v = tensor(m + 1024, 4, k),
                                       .out = tensor(m + 1536, 4, q),
                                       .lse = tensor(m + 2048, 3, lse)};
    f->qk = (rw_qk_matmul_args){
        .q = tensor(m, 4, q), .k = tensor(m + 512, 4, k), .out = tensor(m + 2560, 4, scores)};
    f->weighted = (rw_weighted_matmul_args){.weights = tensor(m + 3072, 4, scores),
                                            .v = tensor(m + 512, 4, k),
                                            .out = tensor(m + 1536, 4, q)};
    f->statistics = (rw_score_statistics_args){.scores = tensor(m + 3072, 4, scores),
                                               .min = tensor(m + 4000, 2, lse)};
    f->merge =
        (rw_attention_merge_args){.a = {tensor(m, 4, q), tensor(m + 2048, 3, lse)},
                                  .b = {tensor(m + 4096, 4, q), tensor(m + 4608, 3, lse)},
                                  .merged = {tensor(m + 5120, 4, q), tensor(m + 5632, 3, lse)}};
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = *state;
    int status = rw_free(f->context, f->memory);
    rw_context_destroy(f->context);
    free(f);
    return status;
}

static void assert_says(const char *sentence, const char *word) {
    if (!strstr(sentence, word))
        print_error("'%s' lacks '%s'\n", sentence, word);
    assert_non_null(strstr(sentence, word));
}

/* `got` is what the call returned. */
static void assert_refused(const fixture *f, rw_status got, rw_status expected,
                           const char *function, const char *argument) {
    static float after[MEMORY_FLOATS];
    if (got != expected)
        print_error("%s, %s: returned %s\n", function, argument, rw_status_name(got));
    assert_int_equal(got, expected);
    assert_says(rw_last_error(f->context), function);
    assert_says(rw_last_error(f->context), argument);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    rwt_test_download(f->context, after, f->memory, sizeof after);
    assert_memory_equal(after, f->before, sizeof after);
}

static void refuse_attention(fixture *f, rw_status expected, const char *argument) {
    assert_refused(f, rw_attention(f->context, &f->attention), expected, "rw_attention", argument);
}

static void test_valid(void **state) {
    fixture *f = *state;
    assert_int_equal(rw_attention(f->context, &f->attention), RW_OK);
    assert_int_equal(rw_qk_matmul(f->context, &f->qk), RW_OK);
    assert_int_equal(rw_weighted_matmul(f->context, &f->weighted), RW_OK);
    assert_int_equal(rw_score_statistics(f->context, &f->statistics), RW_OK);
    assert_int_equal(rw_attention_merge(f->context, &f->merge), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
}

static void test_null(void **state) {
    fixture *f = *state;
    assert_int_equal(rw_attention(NULL, &f->attention), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_attention(f->context, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_qk_matmul(f->context, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_weighted_matmul(f->context, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_score_statistics(f->context, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_attention_merge(f->context, NULL), RW_INVALID_ARGUMENT);
    f->attention.k.data = NULL;
    refuse_attention(f, RW_INVALID_ARGUMENT, "k.data");
}

static void test_attention_shapes(void **state) {
    fixture *f = *state;
    const rw_attention_args good = f->attention;
    f->attention.k.shape[1] = 3;
    f->attention.v.shape[1] = 3;
    refuse_attention(f, RW_INVALID_ARGUMENT, "divisor");
    f->attention = good;
    f->attention.v.shape[2] = 4;
    refuse_attention(f, RW_INVALID_ARGUMENT, "v has shape");
    f->attention = good;
    f->attention.k.shape[3] = 8;
    refuse_attention(f, RW_INVALID_ARGUMENT, "k has shape");
    f->attention = good;
    f->attention.out.shape[2] = 2;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out has shape");
    f->attention = good;
    f->attention.lse.shape[1] = 2;
    refuse_attention(f, RW_INVALID_ARGUMENT, "lse has shape");
    f->attention = good;
    f->attention.lse.dtype = RW_F16;
    refuse_attention(f, RW_UNSUPPORTED, "lse");
    f->attention = good;
    f->attention.v.dtype = RW_BF16;
    refuse_attention(f, RW_INVALID_ARGUMENT, "v has dtype");
    const int64_t widths[] = {0, 4, 12, 264};
    for (int i = 0; i < 4; i++) {
        f->attention = good;
        f->attention.v.shape[3] = widths[i];
        refuse_attention(f, RW_UNSUPPORTED, "multiple of 8");
    }
}

static void test_attention_rules(void **state) {
    fixture *f = *state;
    const rw_attention_args good = f->attention;
    const int64_t two[] = {2};
    const double softcaps[] = {-1.0, INFINITY, NAN};
    for (int i = 0; i < 3; i++) {
        f->attention.softcap = softcaps[i];
        refuse_attention(f, RW_INVALID_ARGUMENT, "softcap");
    }
    f->attention = good;
    f->attention.scale = NAN;
    refuse_attention(f, RW_INVALID_ARGUMENT, "scale");
    f->attention = good;
    f->attention.sinks = tensor(f->memory + 4000, 1, two);
    refuse_attention(f, RW_INVALID_ARGUMENT, "sinks");
    f->attention = good;
    f->attention.mask = tensor(f->memory + 4000, 1, two);
    refuse_attention(f, RW_INVALID_ARGUMENT, "mask");
    f->attention = good;
    rw_pattern pattern = {.prefix_length = -1};
    f->attention.pattern = &pattern;
    refuse_attention(f, RW_INVALID_ARGUMENT, "prefix");
    pattern = (rw_pattern){.causal = true, .alignment = RW_ALIGN_KEY_END};
    refuse_attention(f, RW_INVALID_ARGUMENT, "pattern.key_end is absent");
    const int64_t heads[] = {4};
    rw_alibi alibi = {tensor(f->memory + 4000, 1, heads), false, RW_ALIGN_KEY_END};
    f->attention.alibi = &alibi;
    pattern.alignment = RW_ALIGN_BOTTOM_RIGHT;
    refuse_attention(f, RW_INVALID_ARGUMENT, "pattern.key_end is absent");
    f->attention.pattern = NULL;
    refuse_attention(f, RW_INVALID_ARGUMENT, "pattern.key_end is absent");
}

static void test_attention_overlap(void **state) {
    fixture *f = *state;
    const rw_attention_args good = f->attention;
    f->attention.out.data = good.q.data;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out overlaps q");
    f->attention = good;
    f->attention.lse.data = good.v.data;
    refuse_attention(f, RW_INVALID_ARGUMENT, "lse overlaps v");
    f->attention = good;
    f->attention.lse.data = good.out.data;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out overlaps lse");
    f->attention = good;
    f->attention.out.stride[0] = 0;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out has strides");
    f->attention = good;
    const int64_t mask[] = {3, 5};
    f->attention.mask = tensor(good.lse.data, 2, mask);
    refuse_attention(f, RW_INVALID_ARGUMENT, "lse overlaps mask");
}

static void test_products(void **state) {
    fixture *f = *state;
    const rw_qk_matmul_args qk = f->qk;
    const rw_weighted_matmul_args weighted = f->weighted;
    f->qk.out.shape[3] = 4;
    assert_refused(f, rw_qk_matmul(f->context, &f->qk), RW_INVALID_ARGUMENT, "rw_qk_matmul", "out");
    f->qk = qk;
    f->qk.k.dtype = RW_F16;
    assert_refused(f, rw_qk_matmul(f->context, &f->qk), RW_INVALID_ARGUMENT, "rw_qk_matmul", "k");
    f->qk = qk;
    f->qk.out.data = qk.k.data;
    assert_refused(f, rw_qk_matmul(f->context, &f->qk), RW_INVALID_ARGUMENT, "rw_qk_matmul",
                   "out overlaps k");
    f->weighted.weights.dtype = RW_F16; /* v is f32 */
    assert_refused(f, rw_weighted_matmul(f->context, &f->weighted), RW_INVALID_ARGUMENT,
                   "rw_weighted_matmul", "weights");
    f->weighted = weighted;
    f->weighted.v.shape[2] = 4;
    assert_refused(f, rw_weighted_matmul(f->context, &f->weighted), RW_INVALID_ARGUMENT,
                   "rw_weighted_matmul", "v has shape");
}

static void test_statistics(void **state) {
    fixture *f = *state;
    f->statistics.min.shape[1] = 3;
    assert_refused(f, rw_score_statistics(f->context, &f->statistics), RW_INVALID_ARGUMENT,
                   "rw_score_statistics", "min");
    f->statistics.min.shape[1] = 4;
    f->statistics.max = f->statistics.min;
    assert_refused(f, rw_score_statistics(f->context, &f->statistics), RW_INVALID_ARGUMENT,
                   "rw_score_statistics", "min overlaps max");
}

static void test_merge(void **state) {
    fixture *f = *state;
    const rw_attention_merge_args good = f->merge;
    f->merge.b.out.shape[2] = 2;
    assert_refused(f, rw_attention_merge(f->context, &f->merge), RW_INVALID_ARGUMENT,
                   "rw_attention_merge", "b.out");
    f->merge = good;
    f->merge.b.out.dtype = RW_F16;
    assert_refused(f, rw_attention_merge(f->context, &f->merge), RW_INVALID_ARGUMENT,
                   "rw_attention_merge", "b.out");
    f->merge = good;
    f->merge.merged.lse.data = (float *)good.a.lse.data + 1; /* half in place */
    assert_refused(f, rw_attention_merge(f->context, &f->merge), RW_INVALID_ARGUMENT,
                   "rw_attention_merge", "merged.lse overlaps a.lse");
    f->merge = good;
    f->merge.merged.out.data = good.b.lse.data;
    assert_refused(f, rw_attention_merge(f->context, &f->merge), RW_INVALID_ARGUMENT,
                   "rw_attention_merge", "merged.out");
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(test_valid),
        WITH_FIXTURE(test_null),
        WITH_FIXTURE(test_attention_shapes),
        WITH_FIXTURE(test_attention_rules),
        WITH_FIXTURE(test_attention_overlap),
        WITH_FIXTURE(test_products),
        WITH_FIXTURE(test_statistics),
        WITH_FIXTURE(test_merge),
    };
    return cmocka_run_group_tests_name("attention, refused arguments", tests, NULL, NULL);
}
