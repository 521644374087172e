/* Patterns: every invalid description and question. Descriptions must be refused with a sentence
 * that names the part, and nothing may be written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

static rw_context *context;

#define Q 6
#define K 10

typedef struct refusal {
    const char *word; /* in the sentence */
    rw_pattern pattern;
} refusal;

/* Memory that tensors of a refused pattern may point to; it is not read. */
static int64_t memory[64];

static rw_tensor ids(int rank, int64_t a, int64_t b) {
    const int64_t shape[] = {a, b};
    return rw_tensor_contiguous(memory, RW_I64, rank, shape);
}

static rw_tensor bytes(int rank, int64_t a, int64_t b, int64_t c) {
    const int64_t shape[] = {a, b, c};
    return rw_tensor_contiguous(memory, RW_U8, rank, shape);
}

static void test_contradictions(void **state) {
    (void)state;
    const refusal refusals[] = {
        {"left", {.left = {true, -1}}},
        {"right", {.right = {true, -2}}},
        {"alignment", {.alignment = (rw_alignment)3}},
        {"pattern.key_end is absent", {.alignment = RW_ALIGN_KEY_END, .causal = true}},
        {"pattern.key_end", {.alignment = RW_ALIGN_KEY_END, .key_end = ids(1, 1, 0)}},
        {"prefix_length", {.prefix_length = -1}},
        {"prefix_length", {.prefix_length = 3, .prefix = ids(1, 2, 0)}},
        {"pattern.prefix", {.prefix = ids(1, 3, 0)}},
        {"pattern.prefix", {.prefix = ids(2, 2, 1)}},
        {"pattern.prefix", {.prefix = bytes(1, 2, 0, 0)}},
        {"pattern.key_begin", {.key_begin = ids(1, 1, 0)}},
        {"pattern.key_end", {.key_end = ids(1, 4, 0)}},
        {"cu_seqlens", {.cu_seqlens = ids(1, 1, 0)}},
        {"cu_seqlens", {.cu_seqlens = ids(2, 3, 4)}},
        {"pattern.globals", {.globals = bytes(1, 1, 0, 0), .left = {true, 1}}},
        {"pattern.globals", {.globals = ids(1, 2, 0), .left = {true, 1}}},
        {"pattern.bits", {.bits = bytes(2, Q, 1, 0)}},
        {"pattern.bits", {.bits = bytes(2, Q + 1, 2, 0)}},
        {"pattern.bits", {.bits = bytes(3, 3, Q, 2)}},
        {"pattern.bits", {.bits = bytes(1, 2, 0, 0)}},
        {"pattern.mask", {.mask = ids(2, Q, K)}},
        {"pattern.mask", {.mask = bytes(2, Q, K + 1, 0)}},
    };
    const rw_pattern_shape shape = {2, Q, K};
    const int64_t out_shape[] = {2, Q, K};
    float before[2 * Q * K], after[2 * Q * K];
    for (int n = 0; n < 2 * Q * K; n++)
        before[n] = (float)n;
    float *out_memory = rwt_test_upload(context, before, sizeof before);
    rw_tensor out = rw_tensor_contiguous(out_memory, RW_F32, 3, out_shape);
    for (size_t n = 0; n < sizeof refusals / sizeof *refusals; n++) {
        const rw_pattern *pattern = &refusals[n].pattern;
        rw_pattern_question question = {shape, {0, 0, 0}};
        rw_message message = {""};
        bool answer;
        rw_status status = rw_pattern_visible(pattern, &question, &answer, &message);
        if (status == RW_OK)
            fail_msg("refusal %zu (%s) was accepted", n, refusals[n].word);
        assert_true(rwt_test_says(message.text, "rw_pattern_visible: "));
        assert_true(rwt_test_says(message.text, refusals[n].word));
        assert_int_equal(rw_pattern_fill(context, pattern, &out), status);
        assert_true(rwt_test_says(rw_last_error(context), refusals[n].word));
    }
    assert_int_equal(rw_synchronize(context), RW_OK);
    rwt_test_download(context, after, out_memory, sizeof after);
    assert_memory_equal(before, after, sizeof after);
    rw_free(context, out_memory);
}

/* Queries outside the lengths, and invalid values of the pattern. */
static void test_questions(void **state) {
    (void)state;
    const rw_pattern causal = {.causal = true};
    const int64_t bad[][3] = {{2, 0, 0}, {-1, 0, 0}, {0, Q, 0},         {0, -1, 0},
                              {0, 0, K}, {0, 0, -1}, {0, INT64_MAX, 0}, {0, 0, INT64_MIN}};
    rw_pattern_question question = {{2, Q, K}, {0, 0, 0}};
    rw_message message;
    bool answer;
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
        question.pair = (rw_pattern_pair){bad[n][0], bad[n][1], bad[n][2]};
        assert_int_equal(rw_pattern_visible(&causal, &question, &answer, &message),
                         RW_INVALID_ARGUMENT);
    }
    question.pair = (rw_pattern_pair){1, 2, 3};
    assert_int_equal(rw_pattern_visible(NULL, &question, &answer, &message), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_pattern_visible(&causal, NULL, &answer, &message), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_pattern_visible(&causal, &question, NULL, &message), RW_INVALID_ARGUMENT);
    question.shape.seq_k = (int64_t)1 << 31;
    assert_int_equal(rw_pattern_visible(&causal, &question, &answer, &message),
                     RW_INVALID_ARGUMENT);

    int64_t lengths[] = {4, -4};
    const int64_t two[] = {2};
    rw_pattern prefix = {.causal = true, .prefix = rw_tensor_contiguous(lengths, RW_I64, 1, two)};
    question = (rw_pattern_question){{2, Q, K}, {1, 2, 3}};
    assert_int_equal(rw_pattern_visible(&prefix, &question, &answer, &message), RW_OUT_OF_RANGE);
    assert_string_equal(
        message.text, "rw_pattern_visible: token 8 has length or bound -4, which is out of range");
    uint8_t bits[2 * Q * 2], before[sizeof bits];
    memset(bits, 0x5a, sizeof bits);
    memset(before, 0x5a, sizeof bits);
    assert_int_equal(rw_pattern_bake(&prefix, &question.shape, bits, &message), RW_OUT_OF_RANGE);
    assert_memory_equal(bits, before, sizeof bits);
    const rw_pattern_shape without_keys = {(int64_t)1 << 40, INT32_MAX, 0}; /* not one by one */
    assert_int_equal(rw_pattern_bake(&causal, &without_keys, NULL, &message), RW_OK);

    const int64_t ends[][2] = {{4, K + 1}, {4, -1}, {4, INT64_MAX}, {4, INT64_MIN}};
    for (size_t n = 0; n < sizeof ends / sizeof *ends; n++) {
        rw_pattern key_end = {.causal = true, .alignment = RW_ALIGN_KEY_END};
        key_end.key_end = rw_tensor_contiguous((void *)ends[n], RW_I64, 1, two);
        assert_int_equal(rw_pattern_visible(&key_end, &question, &answer, &message),
                         RW_OUT_OF_RANGE);
        rw_pattern_rectangle bad_tile = {question.shape, 1, 0, Q, 0, K};
        rw_tile unknown;
        assert_int_equal(rw_pattern_ask_tile(&key_end, &bad_tile, &unknown, &message), RW_OK);
        assert_int_equal(unknown, RW_TILE_SOME);
    }

    rw_pattern_rectangle tile = {{2, Q, K}, 0, 3, 2, 0, K};
    rw_tile said;
    assert_int_equal(rw_pattern_ask_tile(&causal, &tile, &said, &message), RW_INVALID_ARGUMENT);
    tile.i_end = 3;
    assert_int_equal(rw_pattern_ask_tile(&causal, &tile, &said, &message), RW_OK);
    assert_int_equal(said, RW_TILE_NONE);
    tile.i_end = Q + 1;
    assert_int_equal(rw_pattern_ask_tile(&causal, &tile, &said, &message), RW_INVALID_ARGUMENT);
}

static int open_context(void **state) {
    (void)state;
    context = rwt_test_context();
    return 0;
}

static int close_context(void **state) {
    (void)state;
    rw_context_destroy(context);
    return 0;
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_questions),
    };
    return cmocka_run_group_tests(tests, open_context, close_context);
}
