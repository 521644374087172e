/* Scale, mask and softmax: every invalid call. Each must be refused with a sentence that names the
 * function and the argument, and nothing may be written. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

#define WORDS 4096

typedef struct fixture {
    rw_context *context;
    float *memory;
    float before[WORDS];
    rw_pattern pattern;
    rw_alibi alibi;
    rw_softmax_args args; /* x, out [2, 3, 4, 8], mask [4, 8], sinks [3] */
} fixture;

static rw_tensor tensor(const fixture *f, int64_t word, int rank, const int64_t *shape) {
    return rw_tensor_contiguous(f->memory + word, RW_F32, rank, shape);
}

static int open_fixture(void **state) {
    fixture *f = rwt_allocate(sizeof *f);
    rwt_test_restore_crash_handlers();
    f->context = rwt_test_context();
    for (int n = 0; n < WORDS; n++)
        f->before[n] = (float)n;
    f->memory = rwt_test_upload(f->context, f->before, sizeof f->before);
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

/* Valid arguments. */
static void reset(fixture *f) {
    const int64_t x[] = {2, 3, 4, 8}, heads[] = {3};
    f->pattern = (rw_pattern){.causal = true};
    f->alibi = (rw_alibi){.slopes = tensor(f, 900, 1, heads)};
    f->args = (rw_softmax_args){.x = tensor(f, 0, 4, x),
                                .out = tensor(f, 200, 4, x),
                                .mask = tensor(f, 500, 2, x + 2),
                                .sinks = tensor(f, 800, 1, heads),
                                .pattern = &f->pattern,
                                .alibi = &f->alibi};
}

static void assert_refused_as(const fixture *f, rw_status status, rw_status expected,
                              const char *function, const char *word) {
    const rwt_guarded guarded = {f->context, f->memory, f->before, sizeof f->before};
    rwt_assert_refused(guarded, status, (rwt_refusal){expected, function, word});
}

static void assert_softmax_refuses(fixture *f, const char *word) {
    assert_refused_as(f, rw_softmax(f->context, &f->args), RW_INVALID_ARGUMENT,
                      "rw_softmax: ", word);
    reset(f);
}

static void assert_mask_refuses(fixture *f, const char *word) {
    rw_mask_apply_args args = {f->args.x, f->args.out, f->args.mask, f->args.pattern};
    assert_refused_as(f, rw_mask_apply(f->context, &args), RW_INVALID_ARGUMENT,
                      "rw_mask_apply: ", word);
}

static void assert_both_refuse(fixture *f, const char *word) {
    assert_mask_refuses(f, word);
    assert_softmax_refuses(f, word);
}

static void test_shapes(void **state) {
    fixture *f = *state;
    const int64_t five[] = {2, 3, 5, 8}, wrong_mask[] = {4, 9}, no_rows[] = {1, 1, 1, 1, 8};
    reset(f);
    f->args.x.rank = 0;
    assert_both_refuse(f, "x has rank 0");
    f->args.x.rank = 5;
    assert_both_refuse(f, "x has rank 5");
    f->args.out = tensor(f, 200, 4, five);
    assert_both_refuse(f, "out has shape [2, 3, 5, 8]");
    f->args.out.dtype = RW_F16;
    assert_both_refuse(f, "out has dtype f16");
    f->args.x.shape[1] = -3;
    assert_both_refuse(f, "x has shape");
    f->args.x.data = NULL;
    assert_both_refuse(f, "x.data is NULL");
    f->args.x.stride[3] = 2;
    assert_both_refuse(f, "x has stride 2");
    f->args.out.stride[0] = 0;
    assert_both_refuse(f, "out");
    f->args.mask = tensor(f, 500, 2, wrong_mask);
    assert_both_refuse(f, "mask has shape [4, 9]");
    f->args.mask = tensor(f, 500, 4, no_rows + 1);
    f->args.mask.shape[1] = 2;
    assert_both_refuse(f, "mask has shape");
    f->args.mask = tensor(f, 500, 4, no_rows + 1);
    f->args.mask.shape[3] = 1; /* the last axis is not broadcast */
    assert_both_refuse(f, "mask has shape");
    f->args.sinks.shape[0] = 2;
    assert_softmax_refuses(f, "sinks has shape [2]");
    f->alibi.slopes.shape[0] = 4;
    assert_softmax_refuses(f, "alibi.slopes has shape [4]");
    f->alibi.alignment = (rw_alignment)7;
    assert_softmax_refuses(f, "alignment is 7");
    const int64_t two[] = {2};
    f->pattern.alignment = RW_ALIGN_KEY_END;
    assert_both_refuse(f, "pattern.key_end is absent");
    f->alibi.alignment = RW_ALIGN_KEY_END;
    assert_softmax_refuses(f, "pattern.key_end is absent");
    f->alibi.alignment = RW_ALIGN_KEY_END;
    f->args.pattern = NULL;
    assert_softmax_refuses(f, "pattern.key_end is absent");
    f->pattern.key_end = rw_tensor_contiguous(f->args.out.data, RW_I32, 1, two);
    f->alibi.alignment = RW_ALIGN_KEY_END;
    assert_softmax_refuses(f, "out overlaps pattern.key_end");
}

static void test_overlaps(void **state) {
    fixture *f = *state;
    reset(f);
    f->args.out.data = (float *)f->args.x.data + 1;
    assert_both_refuse(f, "out");
    f->args.out.data = f->args.mask.data;
    assert_both_refuse(f, "mask");
    f->args.out.data = f->args.sinks.data;
    f->args.alibi = NULL;
    assert_softmax_refuses(f, "sinks");
    f->args.out.data = f->alibi.slopes.data;
    assert_softmax_refuses(f, "alibi.slopes");
    const int64_t two[] = {2};
    f->pattern.prefix = rw_tensor_contiguous(f->args.out.data, RW_I32, 1, two);
    assert_both_refuse(f, "pattern.prefix");
}

static void test_numbers(void **state) {
    fixture *f = *state;
    const double wrong[] = {NAN, INFINITY, -INFINITY, 1e39};
    reset(f);
    for (int n = 0; n < 4; n++) {
        f->args.scale = wrong[n];
        assert_softmax_refuses(f, "scale is");
        f->args.softcap = wrong[n];
        assert_softmax_refuses(f, "softcap is");
        rw_scale_args args = {f->args.x, f->args.out, wrong[n]};
        assert_refused_as(f, rw_scale(f->context, &args), RW_INVALID_ARGUMENT,
                          "rw_scale: ", "scale is");
    }
    f->args.softcap = -1;
    assert_softmax_refuses(f, "softcap is -1");
    f->pattern.left = (rw_window_side){true, -1};
    assert_both_refuse(f, "pattern.left");
}

static void test_absent(void **state) {
    fixture *f = *state;
    reset(f);
    rw_mask_apply_args nothing = {.x = f->args.x, .out = f->args.out};
    assert_refused_as(f, rw_mask_apply(f->context, &nothing), RW_INVALID_ARGUMENT,
                      "rw_mask_apply: ", "mask and pattern are absent");
    assert_refused_as(f, rw_mask_apply(f->context, NULL), RW_INVALID_ARGUMENT,
                      "rw_mask_apply: ", "args is NULL");
    assert_refused_as(f, rw_softmax(f->context, NULL), RW_INVALID_ARGUMENT,
                      "rw_softmax: ", "args is NULL");
    assert_refused_as(f, rw_scale(f->context, NULL), RW_INVALID_ARGUMENT,
                      "rw_scale: ", "args is NULL");
    assert_int_equal(rw_softmax(NULL, &f->args), RW_INVALID_ARGUMENT);
}

static void test_dtypes(void **state) {
    fixture *f = *state;
    reset(f);
    f->args.mask.dtype = RW_I32;
    assert_refused_as(f, rw_softmax(f->context, &f->args), RW_UNSUPPORTED,
                      "rw_softmax: ", "mask has dtype i32 (3), expected f32, f16, bf16 or u8");
    reset(f);
    f->args.x.dtype = RW_I32;
    assert_refused_as(f, rw_softmax(f->context, &f->args), RW_UNSUPPORTED,
                      "rw_softmax: ", "x has dtype i32");
    reset(f);
    f->args.sinks.dtype = RW_I64;
    assert_refused_as(f, rw_softmax(f->context, &f->args), RW_UNSUPPORTED,
                      "rw_softmax: ", "sinks has dtype i64");
    reset(f);
    f->alibi.slopes.dtype = RW_F16;
    assert_refused_as(f, rw_softmax(f->context, &f->args), RW_UNSUPPORTED,
                      "rw_softmax: ", "alibi.slopes has dtype f16");
}

/* A length that exceeds 32 bits is refused, not truncated. No memory is allocated for it, since it
 * is refused before anything is read. */
static void test_long_rows(void **state) {
    fixture *f = *state;
    const int64_t shape[] = {1, (int64_t)1 << 31};
    reset(f);
    rw_softmax_args args = {.x = tensor(f, 0, 2, shape)};
    assert_refused_as(f, rw_softmax(f->context, &args), RW_INVALID_ARGUMENT,
                      "rw_softmax: ", "seq_k is 2147483648");
}

int main(void) {
    rwt_test_keep_crash_handlers();
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),  cmocka_unit_test(test_overlaps),
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_absent),
        cmocka_unit_test(test_dtypes),  cmocka_unit_test(test_long_rows),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
