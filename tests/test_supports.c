/* rw_supports() must agree with the dtypes of the drivers and with what the operations return. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "call.h"
#include "harness/test_support.h"

static int open_context(void **state) {
    *state = rwt_test_context();
    return 0;
}

static int close_context(void **state) {
    rw_context_destroy(*state);
    return 0;
}

/* ---- names ---- */

static void test_names(void **state) {
    (void)state;
    int32_t count = 0;
    for (; rwt_drivers[count]; count++)
        assert_string_equal(rw_operation_name(count), rwt_drivers[count]->name);
    assert_true(count > 0);
    assert_null(rw_operation_name(count));
    assert_null(rw_operation_name(INT32_MAX));
    assert_null(rw_operation_name(-1));
}

static void assert_invalid(rw_context *context, const char *operation, rw_dtype dtype,
                           const char *words) {
    assert_int_equal(rw_supports(context, operation, dtype), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(context), "rw_supports"));
    assert_true(rwt_test_says(rw_last_error(context), words));
}

static void test_invalid(void **state) {
    assert_int_equal(rw_supports(NULL, "rope", RW_F32), RW_INVALID_ARGUMENT);
    assert_invalid(*state, NULL, RW_F32, "operation is NULL");
    assert_invalid(*state, "", RW_F32, "operation is \"\"");
    assert_invalid(*state, "a\n\tb\x7f", RW_F32, "operation is \"a??b?\""); /* one line */
    assert_invalid(*state, "soft_max", RW_F32, "such as \"softmax\"");
    assert_invalid(*state, "attention_", RW_F32, "such as \"attention_merge\"");
    assert_invalid(*state, "rop", RW_F32, "such as \"rope\"");
    assert_invalid(*state, "rope", (rw_dtype)RWT_NUM_DTYPES, "dtype is 8");
    assert_invalid(*state, "rope", (rw_dtype)-1, "dtype is -1");
}

/* A backend whose table lacks the slot. */
static void test_missing_slot(void **state) {
    (void)state;
    const rwi_backend bare = {.name = "bare"};
    struct rw_context context = {.backend = &bare};
    assert_int_equal(rw_supports(&context, "rope", RW_F32), RW_UNSUPPORTED);
    assert_true(rwt_test_says(rw_last_error(&context), "the backend bare has no rope"));
}

/* ---- the drivers ---- */

/* Whether the cases of a driver run over this dtype. */
static bool driver_takes(const rwt_driver *driver, rw_dtype dtype) {
    if (!strcmp(driver->name, "pattern_fill_bits")) /* its field is that of pattern_fill */
        return dtype == RW_U8;
    for (size_t i = 0; i < driver->num_fields; i++)
        if (!strcmp(driver->fields[i].name, "dtype")) {
            const char *const *word = driver->fields[i].words;
            while (*word && strcmp(*word, rw_dtype_name(dtype)) != 0)
                word++;
            return *word != NULL;
        }
    return dtype == RW_F32; /* alibi_slopes */
}

static void test_drivers(void **state) {
    for (const rwt_driver *const *driver = rwt_drivers; *driver; driver++)
        for (int dtype = RW_F32; dtype < RWT_NUM_DTYPES; dtype++) {
            bool takes = driver_takes(*driver, (rw_dtype)dtype);
            rw_status status = rw_supports(*state, (*driver)->name, (rw_dtype)dtype);
            if (status != (takes ? RW_OK : RW_UNSUPPORTED))
                fail_msg("%s, %s: %s", (*driver)->name, rw_dtype_name((rw_dtype)dtype),
                         rw_status_name(status));
            if (!takes)
                assert_true(rwt_test_says(rw_last_error(*state), (*driver)->name));
        }
}

/* ---- the operations, of tensors without elements ---- */

static rw_tensor none(rw_dtype dtype, int32_t rank) {
    const int64_t shape[RW_MAX_RANK] = {0};
    return rw_tensor_contiguous(NULL, dtype, rank, shape);
}

static rw_status call_embed_learned(rw_context *context, rw_dtype dtype) {
    const rw_tensor table = none(RW_F32, 2);
    const rw_embed_args args = {.x = none(dtype, 2)};
    return rw_embed_learned(context, &table, &args);
}

static rw_status call_positions_sequential(rw_context *context, rw_dtype dtype) {
    const rw_positions_sequential_args args = {.out = none(dtype, 2)};
    return rw_positions_sequential(context, &args);
}

static rw_status call_pattern_fill(rw_context *context, rw_dtype dtype) {
    const rw_pattern pattern = {.causal = true};
    const rw_tensor out = none(dtype, 2);
    return rw_pattern_fill(context, &pattern, &out);
}

static rw_status call_pattern_fill_bits(rw_context *context, rw_dtype dtype) {
    const rw_pattern pattern = {.causal = true};
    const rw_tensor out = none(dtype, 2);
    return rw_pattern_fill_bits(context, &pattern, 0, &out);
}

static rw_status call_pattern_positions(rw_context *context, rw_dtype dtype) {
    const rw_pattern_positions_args args = {.out = none(dtype, 1)};
    return rw_pattern_positions(context, &args);
}

static rw_status call_alibi_slopes(rw_context *context, rw_dtype dtype) {
    const rw_alibi_slopes_args args = {.out = none(dtype, 1), .total_heads = 1};
    return rw_alibi_slopes(context, &args);
}

static rw_status call_alibi_bias(rw_context *context, rw_dtype dtype) {
    const rw_alibi alibi = {.slopes = none(RW_F32, 1)};
    const rw_tensor out = none(dtype, 3);
    return rw_alibi_bias(context, &alibi, &out);
}

static rw_status call_scale(rw_context *context, rw_dtype dtype) {
    const rw_scale_args args = {.x = none(dtype, 4)};
    return rw_scale(context, &args);
}

static rw_status call_softmax(rw_context *context, rw_dtype dtype) {
    const rw_softmax_args args = {.x = none(dtype, 4)};
    return rw_softmax(context, &args);
}

static rw_status call_qk_matmul(rw_context *context, rw_dtype dtype) {
    const rw_qk_matmul_args args = {
        .q = none(dtype, 4), .k = none(dtype, 4), .out = none(RW_F32, 4)};
    return rw_qk_matmul(context, &args);
}

static rw_status call_weighted_matmul(rw_context *context, rw_dtype dtype) {
    const rw_weighted_matmul_args args = {
        .weights = none(dtype, 4), .v = none(dtype, 4), .out = none(RW_F32, 4)};
    return rw_weighted_matmul(context, &args);
}

static rw_status call_score_statistics(rw_context *context, rw_dtype dtype) {
    const rw_score_statistics_args args = {.scores = none(dtype, 4)};
    return rw_score_statistics(context, &args);
}

static rw_status call_attention(rw_context *context, rw_dtype dtype) {
    const rw_attention_args args = {
        .q = none(dtype, 4), .k = none(dtype, 4), .v = none(dtype, 4), .out = none(RW_F32, 4)};
    return rw_attention(context, &args);
}

static rw_status call_rms_norm(rw_context *context, rw_dtype dtype) {
    const rw_rms_norm_args args = {.x = none(dtype, 1), .eps = 1e-6f};
    return rw_rms_norm(context, &args);
}

static rw_status call_layer_norm(rw_context *context, rw_dtype dtype) {
    const rw_layer_norm_args args = {.x = none(dtype, 1), .eps = 1e-5f};
    return rw_layer_norm(context, &args);
}

static rw_status call_glu(rw_context *context, rw_dtype dtype) {
    const rw_glu_args args = {.gate = none(dtype, 1), .up = none(dtype, 1)};
    return rw_glu(context, &args);
}

/* No blocks, of the lengths that the layout has. */
static rw_mx_args mx_args(rw_dtype dtype) {
    const int64_t blocks[] = {0, 16}, values[] = {0, RW_MX_BLOCK};
    return (rw_mx_args){.blocks = rw_tensor_contiguous(NULL, RW_U8, 2, blocks),
                        .scales = none(RW_U8, 1),
                        .values = rw_tensor_contiguous(NULL, dtype, 2, values)};
}

static rw_status call_mx_dequantize(rw_context *context, rw_dtype dtype) {
    const rw_mx_args args = mx_args(dtype);
    return rw_mx_dequantize(context, &args);
}

static rw_status call_mx_quantize(rw_context *context, rw_dtype dtype) {
    const rw_mx_args args = mx_args(dtype);
    return rw_mx_quantize(context, &args);
}

static const struct {
    const char *operation;
    rw_status (*call)(rw_context *context, rw_dtype dtype);
} calls[] = {
    {"embed_learned", call_embed_learned},
    {"positions_sequential", call_positions_sequential},
    {"pattern_fill", call_pattern_fill},
    {"pattern_fill_bits", call_pattern_fill_bits},
    {"pattern_positions", call_pattern_positions},
    {"alibi_slopes", call_alibi_slopes},
    {"alibi_bias", call_alibi_bias},
    {"scale", call_scale},
    {"softmax", call_softmax},
    {"qk_matmul", call_qk_matmul},
    {"weighted_matmul", call_weighted_matmul},
    {"score_statistics", call_score_statistics},
    {"attention", call_attention},
    {"rms_norm", call_rms_norm},
    {"layer_norm", call_layer_norm},
    {"glu", call_glu},
    {"mx_dequantize", call_mx_dequantize},
    {"mx_quantize", call_mx_quantize},
};

static void test_operations(void **state) {
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        for (int dtype = RW_F32; dtype < RWT_NUM_DTYPES; dtype++) {
            rw_status status = calls[i].call(*state, (rw_dtype)dtype);
            if (status != rw_supports(*state, calls[i].operation, (rw_dtype)dtype))
                fail_msg("%s, %s: %s by the operation", calls[i].operation,
                         rw_dtype_name((rw_dtype)dtype), rw_status_name(status));
        }
}

int main(void) {
    rwt_test_keep_crash_handlers();
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),        cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_missing_slot), cmocka_unit_test(test_drivers),
        cmocka_unit_test(test_operations),
    };
    return cmocka_run_group_tests(tests, open_context, close_context);
}
