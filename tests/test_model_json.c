/* config.json files that Python writes and the JSON standard does not allow. */
#include "harness/io_support.h"

#include <stdio.h>
#include <string.h>

#include "harness/model_support.h"

/* ---- JSON ---- */

static void test_lenient_json(void **state) {
    (void)state;
    static const char *const valid[] = {
        "\xef\xbb\xbf{\"model_type\":\"llama\"}",
        "{\"model_type\":\"llama\",\"x\":NaN}",
        "{\"model_type\":\"llama\",\"x\":[Infinity,-Infinity , NaN]}",
        "{\"model_type\":\"llama\",\"x\":123456789012345678901234567890}",
        "{\"model_type\":\"llama\",\"x\":-1e999}",
        "{\"model_type\":\"llama\",\"x\":18446744073709551615,\"time_step_limit\":[0,Infinity]}",
        "{\"x\":\"NaN, Infinity and \\\" -Infinity\",\"model_type\":\"llama\"}",
        "{\"model_type\":\"llama\",\"rope_theta\":10000000000000000000000}",
        "{\"model_type\":\"llama\",\"max_position_embeddings\":4096.0}",
        "{\"model_type\":\"llama\",\"x\":\"a\\u0000b\",\"\\u0000\" :1}",
        "{\"model_type\":\"llama\",\"x\":[\"\\ud800\",\"\\uDC00\\ud800\",\"\\ud800\\u0041\"]}",
        "{\"model_type\":\"llama\",\"\\ud83d\\ude00\\\\ud800\":\"\\ud83d\"}",
    };
    for (size_t i = 0; i < sizeof valid / sizeof valid[0]; i++) {
        rwt_model config = rwt_read_model(valid[i], NULL);
        assert_int_equal(config.spec.head_dim, 128);
        rwt_model_free(&config);
    }
    static const char *const refused[][2] = {
        {"{\"model_type\":\"llama\",\"rope_theta\":Infinity}", "rope_theta is Infinity"},
        {"{\"model_type\":\"llama\",\"rope_theta\":NaN}", "rope_theta is NaN"},
        {"{\"model_type\":\"llama\",\"rope_theta\":-Infinity}", "rope_theta is -Infinity"},
        {"{\"model_type\":\"llama\",\"rope_theta\":1e999}", "rope_theta is Infinity"},
        {"{\"model_type\":\"llama\",\"head_dim\":123456789012345678901234567890}", "head_dim"},
        {"{\"model_type\":\"lla\\u0000ma\"}", "model_type is a string that contains NUL"},
        {"{\"model_type\":\"llama\\u0000\"}", "model_type is a string that contains NUL"},
        {"{\"model_type\":\"llama\\ud800\"}", "is unknown"},
        {"{\"model_type\":\"llama\",\"layer_types\":[\"full_attention\\u0000\"]}",
         "layer_types[0]"},
        {"{\"model_type\":\"esm\",\"position_embedding_type\":\"rotary\\u0000\"}", "contains NUL"},
        {"{\"model_type\":\"llama\",\"x\":\"\\ud80\"}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":\"\\ud80", "not JSON"},
        {"{\"model_type\":\"llama\",NaN:1}", "not JSON"},
        {"{\"model_type\":\"llama\",-Infinity :1}", "not JSON"},
        {"{\"model_type\":\"llama\",1e999:1}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":01e999}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":1.e999}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":-.1e999}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":1e+}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":Infinit}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":Infinityy}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":--Infinity}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":0x1p9999}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":1.2.3e999}", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":\"", "not JSON"},
        {"{\"model_type\":\"llama\",\"x\":\"\\", "not JSON"},
        {"\xef\xbb\xbf\xef\xbb\xbf{}", "not JSON"},
        {"\xef\xbb\xbf", "not JSON"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        rwt_assert_model_refused(&(rwt_model_text){.text = refused[i][0]}, refused[i][1]);
}

/* Numbers of any length, and long texts that are not numbers. */
static void test_long_numbers(void **state) {
    (void)state;
    static const char *const rows[][3] = {
        {"", "", NULL},          {"-", "", NULL},       {"0.", "", NULL},
        {"0.", "e999", NULL},    {"1.", "e-999", NULL}, {"", "e999", NULL},
        {"0", "", "not JSON"},   {"", ".", "not JSON"}, {"", ".e999", "not JSON"},
        {"", "x", "not JSON"},   {"", "e", "not JSON"}, {"--", "", "not JSON"},
        {"1.", ".1", "not JSON"}};
    char digits[501], text[600];
    memset(digits, '1', sizeof digits - 1);
    digits[sizeof digits - 1] = '\0';
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(text, sizeof text, "{\"model_type\":\"llama\",\"x\":%s%s%s}", rows[i][0], digits,
                 rows[i][1]);
        if (rows[i][2]) {
            rwt_assert_model_refused(&(rwt_model_text){.text = text}, rows[i][2]);
            continue;
        }
        rwt_model config = rwt_read_model(text, NULL);
        rwt_model_free(&config);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lenient_json),
        cmocka_unit_test(test_long_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
