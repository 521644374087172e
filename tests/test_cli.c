/* `ropewalk embed`, `frequencies` and `info`, and the options, run as a user runs them. */
#include "harness/program_support.h"

#include <jansson.h>

static void test_embed(void **state) {
    (void)state;
    static const int64_t shape[] = {2, 3, 8}, size[] = {10, 8}, ids_shape[] = {2, 3};
    static const int64_t ids[] = {9, 0, 4, 4, 1, 8};
    held x = make("x", RW_F32, 3, shape), table = make("table", RW_F32, 2, size);
    held positions = make("positions", RW_I64, 2, ids_shape),
         expected = make("x", RW_F32, 3, shape);
    memcpy(positions.data, ids, sizeof ids);
    for (int64_t i = 0; i < 48; i++)
        ((float *)expected.data)[i] += ((float *)table.data)[ids[i / 8] * 8 + i % 8];
    WRITE("i.safetensors", &x, &table, &positions);
    assert_ran(RUN("embed", "--input", "i.safetensors", "--output", "o.safetensors"));
    assert_output("x", &expected, 0);
    memcpy(expected.data, x.data, 48 * sizeof(float));
    for (int64_t i = 0; i < 48; i++)
        ((float *)expected.data)[i] += ((float *)table.data)[(i / 8 % 3 + 7) * 8 + i % 8];
    WRITE("i.safetensors", &x, &table);
    assert_ran(
        RUN("embed", "--input", "i.safetensors", "--output", "o.safetensors", "--offset", "7"));
    assert_output("x", &expected, 0);
    assert_int_equal(remove(in("o.safetensors")), 0);
    assert_refused(
        RUN("embed", "--input", "i.safetensors", "--output", "o.safetensors", "--offset", "8"), 1,
        "10");
    assert_refused(
        RUN("embed", "--input", "i.safetensors", "--output", "o.safetensors", "--offset=-1"), 1,
        "-1");
    WRITE("i.safetensors", &x);
    assert_refused(RUN("embed", "--input", "i.safetensors", "--output", "o.safetensors"), 1,
                   "table");
    free(x.data);
    free(table.data);
    free(positions.data);
    free(expected.data);
}

static void test_frequencies(void **state) {
    (void)state;
    write_text("c.json",
               "{\"model_type\":\"glm\",\"head_dim\":64,\"max_position_embeddings\":8192}");
    assert_ran(RUN("frequencies", "--config", "c.json", "--seq-len", "100"));
    json_t *got = json_load_file(in("out"), 0, NULL);
    assert_non_null(got);
    assert_string_equal(json_string_value(json_object_get(got, "rope_type")), "default");
    assert_string_equal(json_string_value(json_object_get(got, "pairing")), "interleaved");
    assert_int_equal(json_integer_value(json_object_get(got, "rotary_dim")), 32);
    assert_true(json_number_value(json_object_get(got, "attention_factor")) == 1);
    const json_t *list = json_object_get(got, "inv_freq");
    assert_int_equal(json_array_size(list), 16);
    for (size_t i = 0; i < 16; i++) /* all digits are printed */
        assert_true(fabs(json_real_value(json_array_get(list, i)) - pow(10000, -(double)i / 16)) <
                    1e-15);
    json_decref(got);
    write_text("c.json", "{\"model_type\":\"llama\",\"head_dim\":7}");
    assert_refused(RUN("frequencies", "--config", "c.json"), 1, "head_dim is 7");
}

static void test_info(void **state) {
    (void)state;
    assert_ran(RUN("info"));
    assert_ran(RUN("info", "--json"));
    json_t *report = json_load_file(in("out"), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(report, "version")), rw_version());
    assert_int_equal(json_array_size(json_object_get(report, "backends")), 2);
    assert_non_null(json_object_get(json_object_get(report, "auto"), "backend"));
    json_decref(report);
}

static void test_usage(void **state) {
    (void)state;
    static const char *const wrong[][8] = {
        {"turn"},
        {"--turn"},
        {"rotate"},
        {"rotate", "--config", "c.json"},
        {"rotate", "--config", "c.json", "--input", "i", "--output"},
        {"rotate", "--config", "c.json", "--input", "i", "--turn"},
        {"frequencies", "--config", "c.json", "--seq-len", "-1"},
        {"frequencies", "--config", "c.json", "--seq-len", "long"},
        {"frequencies", "--config", "c.json", "--seq-len", "99999999999999999999"},
        {"frequencies", "--config", "c.json", "--seq-len", "1e3"},
        {"frequencies", "--config", "c.json", "more"},
        {"frequencies", "--config", "c.json", "--offset", "1"},
        {"embed", "--input", "i", "--output", "o", "--offset", ""},
        {"embed", "--input", "i", "--output", "o", "--offset", "1x"},
        {"embed", "--input", "i", "--output", "o", "--backend=cuda"},
        {"embed", "--input", "i", "--output", "o", "--backend=hip:"},
        {"embed", "--input", "i", "--output", "o", "--backend=hip:-1"},
        {"embed", "--input", "i", "--output", "o", "--backend=hip:99999999999"},
        {"info", "--json=yes"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_refused(run(wrong[i]), 2, "");
    assert_refused(run((const char *const[]){NULL}), 2, "--help");
    assert_refused(
        RUN("rotate", "--config", "c", "--input", "i", "--output", "o", "--pairing", "quarter"), 2,
        "half|interleaved");
    assert_refused(
        RUN("rotate", "--config", "c", "--input", "i", "--output", "o", "--layout", "sbhd"), 2,
        "bshd|bhsd");
    assert_refused(RUN("check", "positions_packed", "--dtype", "bf16"), 2, "no cases");
    assert_ran(RUN("check", "glu", "--backend", "cpu", "--tier", "quick", "--random", "0",
                   "--dtype", "bf16"));
    assert_ran(RUN("--version"));
    assert_ran(RUN("--help"));
    static const char *const commands[] = {"info",  "frequencies", "rotate",
                                           "embed", "mask",        "append"};
    for (int i = 0; i < 5; i++)
        assert_ran(RUN(commands[i], "--help"));
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(test_embed),
        TEST(test_frequencies),
        TEST(test_info),
        TEST(test_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
