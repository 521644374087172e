/* Models in the subcommands `ropewalk frequencies` and `ropewalk rotate`. */
#include "harness/program_support.h"

#include <jansson.h>

/* The output of `frequencies` for this config; the caller must release it. */
static json_t *frequencies_of(const char *config) {
    write_text("c.json", config);
    assert_ran(RUN("frequencies", "--config", "c.json", "--json"));
    json_t *got = json_load_file(in("out"), 0, NULL);
    assert_non_null(got);
    return got;
}

static void assert_text(const json_t *object, const char *key, const char *expected) {
    const char *got = json_string_value(json_object_get(object, key));
    assert_non_null(got);
    assert_string_equal(got, expected);
}

static void test_layers(void **state) {
    (void)state;
    json_t *got = frequencies_of("{\"model_type\":\"cohere2\",\"num_hidden_layers\":8}");
    const json_t *types = json_object_get(got, "layer_types");
    const json_t *without = json_object_get(got, "layers_without_rope");
    assert_int_equal(json_array_size(types), 8);
    assert_string_equal(json_string_value(json_array_get(types, 0)), "sliding_attention");
    assert_string_equal(json_string_value(json_array_get(types, 3)), "full_attention");
    assert_int_equal(json_array_size(without), 2);
    assert_int_equal(json_integer_value(json_array_get(without, 0)), 3);
    assert_int_equal(json_integer_value(json_array_get(without, 1)), 7);
    assert_text(got, "axes", "one");
    assert_int_equal(json_integer_value(json_object_get(got, "num_heads")), 64);
    assert_int_equal(json_integer_value(json_object_get(got, "num_kv_heads")), 64);
    assert_false(json_is_true(json_object_get(got, "inverse")));
    json_decref(got);
    assert_refused(RUN("frequencies", "--config", "c.json", "--layer-type", "full_attention"), 1,
                   "layers of type full_attention have no rotary position embedding");
    got = frequencies_of("{\"model_type\":\"llama\"}"); /* all layers are alike */
    assert_int_equal(json_array_size(json_object_get(got, "layer_types")), 0);
    assert_int_equal(json_array_size(json_object_get(got, "layers_without_rope")), 0);
    json_decref(got);
}

static void test_pairing_of_unknown_models(void **state) {
    (void)state;
    static const char unknown[] = "{\"head_dim\":64,\"rope_theta\":10000}";
    write_text("c.json", unknown);
    assert_refused(RUN("frequencies", "--config", "c.json"), 1, "pairing");
    assert_refused(RUN("demo", "c.json", "--backend", "cpu"), 1, "pairing");
    assert_ran(RUN("frequencies", "--config", "c.json", "--pairing", "interleaved"));
    json_t *got = json_load_file(in("out"), 0, NULL);
    assert_text(got, "pairing", "interleaved");
    json_decref(got);
}

static void test_fields(void **state) {
    (void)state;
    json_t *got = frequencies_of("{\"model_type\":\"qwen3_vl\"}");
    assert_text(got, "axes", "mrope_interleaved");
    assert_true(json_is_true(json_object_get(got, "mrope_interleaved")));
    assert_int_equal(json_integer_value(json_array_get(json_object_get(got, "mrope_section"), 0)),
                     24);
    json_decref(got);
    got = frequencies_of("{\"model_type\":\"neomme\"}");
    assert_text(got, "axes", "2d_interleaved");
    json_decref(got);
    got = frequencies_of("{\"model_type\":\"nanochat\"}");
    assert_true(json_is_true(json_object_get(got, "inverse")));
    json_decref(got);
    write_text("c.json", "{\"model_type\":\"deepseek_v4\"}");
    assert_ran(RUN("frequencies", "--config", "c.json", "--layer-type", "main"));
    got = json_load_file(in("out"), 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(got, "rotary_start")), 448);
    json_decref(got);
}

/* NanoChat rotates as Llama does, in the inverse direction. */
static void test_inverse_model(void **state) {
    (void)state;
    static const int64_t shape[] = {1, 5, 2, 64};
    held q = make("q", RW_F32, 4, shape);
    WRITE("i.safetensors", &q);
    write_text("l.json", "{\"model_type\":\"llama\",\"head_dim\":64}");
    write_text("n.json", "{\"model_type\":\"nanochat\",\"head_dim\":64}");
    static const char *const rows[][2] = {{"l.json", "n.json"}, {"n.json", "l.json"}};
    for (int i = 0; i < 2; i++) {
        assert_ran(RUN("rotate", "--config", rows[i][0], "--input", "i.safetensors", "--output",
                       "a.safetensors", "--inverse"));
        assert_ran(RUN("rotate", "--config", rows[i][1], "--input", "i.safetensors", "--output",
                       "b.safetensors"));
        held a = read_tensor(in("a.safetensors"), "q"), b = read_tensor(in("b.safetensors"), "q");
        assert_memory_equal(a.data, b.data, (size_t)count_of(&a) * sizeof(float));
        assert_memory_not_equal(a.data, q.data, (size_t)count_of(&a) * sizeof(float));
        free(a.data);
        free(b.data);
    }
    free(q.data);
    assert_ran(RUN("demo", "n.json", "--backend", "cpu"));
    /* It ends with a picture. */
    char *out = rwt_read_file(in("out"), NULL);
    const char *picture = strstr(out, "┌──");
    assert_non_null(picture);
    assert_non_null(strstr(picture, "│█▄ "));
    assert_non_null(strstr(picture,
                           "┘\ncausal,window=12,global=0:30,documents=0:24: 56 queries (rows) "
                           "x 56 keys (columns), 596 of 3136 pairs visible\n"));
    free(out);
}

/* Frequencies that the checkpoint scales are listed; rotate refuses them, since they alone do not
 * define a rotation. */
static void test_learned_scale(void **state) {
    (void)state;
    static const int64_t shape[] = {1, 5, 2, 64};
    json_t *got = frequencies_of("{\"model_type\":\"mistral_large4_text\"}");
    assert_text(got, "learned_scale", "rotary_emb.alpha");
    json_decref(got);
    held q = make("q", RW_F32, 4, shape);
    WRITE("i.safetensors", &q);
    free(q.data);
    assert_refused(RUN("rotate", "--config", "c.json", "--input", "i.safetensors", "--output",
                       "o.safetensors"),
                   1, "rotary_emb.alpha");
    assert_refused(RUN("demo", "c.json", "--backend", "cpu"), 1, "rotary_emb.alpha");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_layers),        TEST(test_pairing_of_unknown_models),
        TEST(test_fields),        TEST(test_inverse_model),
        TEST(test_learned_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
