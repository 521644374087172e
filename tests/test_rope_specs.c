/* Rotary embedding: every invalid spec, and the lengths at which frequencies change. Each invalid
 * spec must be refused with a sentence that names the field. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "harness/test_support.h"

static const double factors[64] = {1, 1, 1, 1, 1, 1, 1, 1};
static const double no_factors[64] = {1, 1, 0, 1, 1, 1, 1, 1};
static const float zero_factors[64] = {1, 1, 0, 1, 1, 1, 1, 1};

static const struct {
    const char *word;
    rw_rope_spec spec;
} wrong_specs[] = {
    {"head_dim", {.head_dim = 0}},
    {"head_dim", {.head_dim = -16}},
    {"rotary_dim", {.head_dim = 15}},
    {"rotary_dim", {.head_dim = 16, .rotary_dim = 7}},
    {"rotary_dim", {.head_dim = 16, .rotary_dim = -2}},
    {"head_dim", {.head_dim = 16, .rotary_dim = 18}},
    {"head_dim", {.head_dim = 16, .rotary_dim = 8, .rotary_start = 10}},
    {"head_dim", {.head_dim = 16, .rotary_dim = 8, .rotary_start = -1}},
    {"head_dim", {.head_dim = 16, .rotary_dim = 8, .rotary_start = INT64_MAX - 1}},
    {"rotary_dim", {.head_dim = 16, .partial_rotary_factor = 0.07}},
    {"partial_rotary_factor", {.head_dim = 16, .partial_rotary_factor = 1.5}},
    {"partial_rotary_factor", {.head_dim = 16, .partial_rotary_factor = -0.5}},
    {"theta", {.head_dim = 16, .theta = -1}},
    {"theta", {.head_dim = 16, .theta = NAN}},
    {"theta", {.head_dim = 16, .theta = INFINITY}},
    {"type", {.head_dim = 16, .type = (rw_rope_type)31}},
    {"pairing", {.head_dim = 16, .pairing = (rw_rope_pairing)31}},
    {"axes", {.head_dim = 16, .axes = (rw_rope_axes)31}},
    {"factor", {.head_dim = 16, .type = RW_ROPE_LINEAR}},
    {"factor", {.head_dim = 16, .type = RW_ROPE_LINEAR, .factor = -2}},
    {"factor", {.head_dim = 16, .type = RW_ROPE_DYNAMIC, .max_position_embeddings = 64}},
    {"max_position_embeddings", {.head_dim = 16, .type = RW_ROPE_DYNAMIC, .factor = 2}},
    {"rotary_dim",
     {.head_dim = 2, .type = RW_ROPE_DYNAMIC, .factor = 2, .max_position_embeddings = 64}},
    {"original_max_position_embeddings", {.head_dim = 16, .type = RW_ROPE_YARN, .factor = 4}},
    {"max_position_embeddings",
     {.head_dim = 16, .type = RW_ROPE_YARN, .max_position_embeddings = -4, .factor = 4}},
    {"factor", {.head_dim = 16, .type = RW_ROPE_YARN, .original_max_position_embeddings = 64}},
    {"factor",
     {.head_dim = 16, .type = RW_ROPE_LONGROPE, .factor = 2, .max_position_embeddings = 64}},
    {"long_factor",
     {.head_dim = 16,
      .type = RW_ROPE_LONGROPE,
      .factor = 2,
      .max_position_embeddings = 64,
      .short_factor = factors}},
    {"factors",
     {.head_dim = 16,
      .type = RW_ROPE_LONGROPE,
      .factor = 2,
      .max_position_embeddings = 64,
      .short_factor = no_factors,
      .long_factor = factors}},
    {"factors", {.head_dim = 16, .frequency_factors = zero_factors}},
    {"low_freq_factor",
     {.head_dim = 16,
      .type = RW_ROPE_LLAMA3,
      .factor = 8,
      .low_freq_factor = 4,
      .high_freq_factor = 4,
      .original_max_position_embeddings = 64}},
    {"high_freq_factor",
     {.head_dim = 16,
      .type = RW_ROPE_LLAMA3,
      .factor = 8,
      .low_freq_factor = 4,
      .original_max_position_embeddings = 64}},
    {"sections", {.head_dim = 16, .axes = RW_ROPE_AXES_MROPE_CHUNKED, .sections = {4, 2, 1}}},
    {"sections", {.head_dim = 16, .axes = RW_ROPE_AXES_MROPE_INTERLEAVED, .sections = {4, 4, 4}}},
    {"sections", {.head_dim = 16, .axes = RW_ROPE_AXES_MROPE_CHUNKED, .sections = {-2, 5, 5}}},
    {"rotary_dim", {.head_dim = 18, .axes = RW_ROPE_AXES_VISION_2D}},
    {"theta", {.head_dim = 16, .theta = 5e-324}},
    {"theta", {.head_dim = 16, .theta = 1e60}},
    {"factor", {.head_dim = 16, .type = RW_ROPE_LINEAR, .factor = 1e-60}},
    {"attention_factor", {.head_dim = 16, .attention_factor = 1e-60}},
    {"mscale", {.head_dim = 16, .mscale = 1e60}},
    {"mscale_all_dim", {.head_dim = 16, .mscale_all_dim = 1e308}},
    {"short_mscale", {.head_dim = 16, .short_mscale = 1e-60}},
    {"long_mscale", {.head_dim = 16, .long_mscale = 1e60}},
};

/* Not NULL, to which a failed rw_rope_create() sets its result. */
static char other;
static rw_rope *const not_null = (rw_rope *)(void *)&other;

static void test_specs(void **state) {
    rw_context *context = *state;
    for (size_t i = 0; i < sizeof wrong_specs / sizeof *wrong_specs; i++) {
        double inv_freq[64] = {-1};
        rw_rope_frequency_list list = {inv_freq, 64, -1, -1};
        rw_message message = {""};
        rw_status status = rw_rope_frequencies(&wrong_specs[i].spec, 0, &list, &message);
        if (status != RW_INVALID_ARGUMENT)
            print_error("spec %zu (%s): %s\n", i, wrong_specs[i].word, rw_status_name(status));
        assert_int_equal(status, RW_INVALID_ARGUMENT);
        assert_true(rwt_test_says(message.text, wrong_specs[i].word));
        assert_true(list.count == -1 && list.attention_factor == -1 && inv_freq[0] == -1);
        rw_rope_options options = {.spec = wrong_specs[i].spec, .max_positions = 64};
        rw_rope *rope = not_null;
        assert_int_equal(rw_rope_create(context, &options, &rope), RW_INVALID_ARGUMENT);
        assert_null(rope);
        assert_true(rwt_test_says(rw_last_error(context), "rw_rope_create"));
        assert_true(rwt_test_says(rw_last_error(context), wrong_specs[i].word));
    }
}

static void test_create_arguments(void **state) {
    rw_context *context = *state;
    rw_rope_options options = {.spec = {.head_dim = 16}, .max_positions = 64};
    rw_rope *rope = not_null;
    assert_int_equal(rw_rope_create(context, NULL, &rope), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(context), "options"));
    assert_int_equal(rw_rope_create(context, &options, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_rope_create(NULL, &options, &rope), RW_INVALID_ARGUMENT);
    const int64_t lengths[] = {-1, INT64_MIN, INT64_MAX, 0}; /* 0: the length is not known */
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        options.max_positions = lengths[i];
        assert_int_equal(rw_rope_create(context, &options, &rope), RW_INVALID_ARGUMENT);
        assert_null(rope);
        assert_true(rwt_test_says(rw_last_error(context), "max_positions"));
    }
    options.max_positions = 64;
    options.seq_len = -1;
    assert_int_equal(rw_rope_create(context, &options, &rope), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(context), "seq_len"));
}

static void test_frequency_list(void **state) {
    (void)state;
    double inv_freq[8] = {-1};
    rw_rope_spec spec = {.head_dim = 16};
    rw_message message = {""};
    rw_rope_frequency_list list = {NULL, 0, 0, 0};
    assert_int_equal(rw_rope_frequencies(&spec, 0, &list, NULL), RW_OK);
    assert_true(list.count == 8 && list.attention_factor == 1.0);
    list = (rw_rope_frequency_list){inv_freq, 7, -1, -1};
    assert_int_equal(rw_rope_frequencies(&spec, 0, &list, &message), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(message.text, "inv_freq"));
    assert_true(list.count == -1 && inv_freq[0] == -1);
    assert_int_equal(rw_rope_frequencies(NULL, 0, &list, &message), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_rope_frequencies(&spec, 0, NULL, &message), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_rope_frequencies(&spec, -1, &list, &message), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(message.text, "seq_len"));
}

static void test_regimes(void **state) {
    (void)state;
    rw_rope_spec dynamic = {
        .head_dim = 16, .type = RW_ROPE_DYNAMIC, .factor = 2, .max_position_embeddings = 64};
    assert_true(rw_rope_regime(&dynamic, 0) == rw_rope_regime(&dynamic, 64));
    assert_true(rw_rope_regime(&dynamic, 64) != rw_rope_regime(&dynamic, 65));
    assert_true(rw_rope_regime(&dynamic, 65) != rw_rope_regime(&dynamic, 66));
    rw_rope_spec longrope = {.head_dim = 16,
                             .type = RW_ROPE_LONGROPE,
                             .factor = 2,
                             .original_max_position_embeddings = 64,
                             .short_factor = factors,
                             .long_factor = factors};
    assert_int_equal(rw_rope_regime(&longrope, 64), 0);
    assert_int_equal(rw_rope_regime(&longrope, 65), 1);
    assert_int_equal(rw_rope_regime(&(rw_rope_spec){.head_dim = 16}, 99), 0);
    longrope.attention_factor = 1.5;
    longrope.long_mscale = 1.25; /* short_mscale is absent */
    rw_rope_frequency_list list = {0};
    assert_int_equal(rw_rope_frequencies(&longrope, 64, &list, NULL), RW_OK);
    assert_true(list.attention_factor == 1.5);
    assert_int_equal(rw_rope_frequencies(&longrope, 65, &list, NULL), RW_OK);
    assert_true(list.attention_factor == 1.25);
    longrope.short_mscale = 1.125;
    assert_int_equal(rw_rope_frequencies(&longrope, 64, &list, NULL), RW_OK);
    assert_true(list.attention_factor == 1.125);
}

static int open_context(void **state) {
    *state = rwt_test_context();
    return 0;
}

static int close_context(void **state) {
    rw_context_destroy(*state);
    return 0;
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_specs),
        cmocka_unit_test(test_create_arguments),
        cmocka_unit_test(test_frequency_list),
        cmocka_unit_test(test_regimes),
    };
    return cmocka_run_group_tests_name("rope specs", tests, open_context, close_context);
}
