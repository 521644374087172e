/* config.json to frequencies: reference values of Hugging Face, models, every invalid config. */
#include "harness/io_support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "harness/harness.h"
#include "harness/model_support.h"

/* For texts without a model_type. */
static const rw_rope_pairing half = RW_ROPE_HALF;

static rw_status parse(const char *text, rwt_model *config, rw_message *message) {
    return rwt_parse_model((rwt_model_text){.text = text, .pairing = &half}, config, message);
}

/* Fails if the text is not a valid config. */
static rwt_model parse_valid(const char *text, const char *layer_type) {
    rwt_model config;
    rw_message message = {""};
    bool bare = !strstr(text, "model_type");
    const rwt_model_text source = {
        .text = text, .layer_type = layer_type, .pairing = bare ? &half : NULL};
    if (rwt_parse_model(source, &config, &message) != RW_OK)
        fail_msg("%s: %s", text, message.text);
    return config;
}

#define MAX_FREQUENCIES 256

typedef struct frequencies {
    double inv_freq[MAX_FREQUENCIES];
    int64_t count;
    double attention_factor;
} frequencies;

static frequencies frequencies_of(const rwt_model *config, int64_t seq_len) {
    frequencies result;
    rw_message message;
    rw_rope_frequency_list list = {.inv_freq = result.inv_freq, .capacity = MAX_FREQUENCIES};
    if (rw_rope_frequencies(&config->spec, seq_len, &list, &message) != RW_OK)
        fail_msg("%s", message.text);
    result.count = list.count;
    result.attention_factor = list.attention_factor;
    return result;
}

static void assert_near(double got, double expected) {
    if (!(fabs(got - expected) <= 1e-6 * fabs(expected)))
        fail_msg("got %.17g, expected %.17g", got, expected);
}

/* The golden case as a config.json, in the current or the old syntax. */
static char *config_of_case(const json_t *golden, bool old) {
    json_t *config = json_object(),
           *scaling = json_deep_copy(json_object_get(golden, "rope_parameters"));
    json_object_set(config, "head_dim", json_object_get(golden, "head_dim"));
    json_object_set(config, "max_position_embeddings",
                    json_object_get(golden, "max_position_embeddings"));
    if (old) {
        static const char *const outside[] = {"rope_theta", "partial_rotary_factor"};
        for (int i = 0; i < 2; i++) {
            if (json_object_get(scaling, outside[i]))
                json_object_set(config, outside[i], json_object_get(scaling, outside[i]));
            json_object_del(scaling, outside[i]);
        }
        json_object_set(scaling, "type", json_object_get(scaling, "rope_type"));
        json_object_del(scaling, "rope_type");
    }
    if (!old || json_object_get(scaling, "type"))
        json_object_set(config, old ? "rope_scaling" : "rope_parameters", scaling);
    else
        json_object_set_new(config, "rope_scaling", json_null());
    json_decref(scaling);
    char *text = json_dumps(config, JSON_REAL_PRECISION(17));
    json_decref(config);
    assert_non_null(text);
    return text;
}

static void check_case(const json_t *golden, bool old) {
    char *text = config_of_case(golden, old);
    rwt_model config = parse_valid(text, NULL);
    const json_t *expected = json_object_get(golden, "inv_freq");
    int64_t seq_len = json_integer_value(json_object_get(golden, "seq_len"));
    frequencies got = frequencies_of(&config, seq_len);
    assert_int_equal(got.count, json_array_size(expected));
    assert_near(got.attention_factor,
                json_number_value(json_object_get(golden, "expect_attention_factor")));
    for (int64_t i = 0; i < got.count; i++)
        assert_near(got.inv_freq[i], json_number_value(json_array_get(expected, (size_t)i)));
    rwt_model_free(&config);
    free(text);
}

static void test_golden(void **state) {
    (void)state;
    json_t *file = json_load_file(RWT_DATA "/golden/rope_frequencies.json", 0, NULL);
    const json_t *cases = json_object_get(file, "cases");
    assert_int_equal(json_array_size(cases), 17);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        check_case(json_array_get(cases, i), false);
        check_case(json_array_get(cases, i), true);
    }
    json_decref(file);
}

/* Reference values of transformers, float32. `at`: index of a frequency. */
static const struct model_row {
    const char *file;
    rw_rope_type type;
    rw_rope_pairing pairing;
    int64_t head_dim, rotary_dim, seq_len;
    double attention_factor;
    int at;
    double inv_freq;
} models[] = {
    {"deepseek-v3.json", RW_ROPE_YARN, RW_ROPE_INTERLEAVED, 64, 64, 0, 1, 16, 0.00550000044},
    {"deepseek-v3.json", RW_ROPE_YARN, RW_ROPE_INTERLEAVED, 64, 64, 0, 1, 31, 3.33380353e-06},
    {"glm-4-9b.json", RW_ROPE_DEFAULT, RW_ROPE_INTERLEAVED, 128, 64, 0, 1, 16, 0.00999999978},
    {"glm-4-9b.json", RW_ROPE_DEFAULT, RW_ROPE_INTERLEAVED, 128, 64, 0, 1, 31, 0.00013335215},
    {"gpt-neox-20b.json", RW_ROPE_DEFAULT, RW_ROPE_HALF, 96, 24, 0, 1, 6, 0.00999999978},
    {"gpt-neox-20b.json", RW_ROPE_DEFAULT, RW_ROPE_HALF, 96, 24, 0, 1, 11, 0.000215443419},
    {"llama-2-7b.json", RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 128, 0, 1, 32, 0.00999999978},
    {"llama-2-7b.json", RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 128, 0, 1, 63, 0.000115478193},
    {"llama-3.1-8b.json", RW_ROPE_LLAMA3, RW_ROPE_HALF, 128, 128, 0, 1, 32, 0.000524846022},
    {"llama-3.1-8b.json", RW_ROPE_LLAMA3, RW_ROPE_HALF, 128, 128, 0, 1, 63, 3.06892588e-07},
    {"llama-3.2-1b.json", RW_ROPE_LLAMA3, RW_ROPE_HALF, 64, 64, 0, 1, 16, 0.000429556705},
    {"llama-3.2-1b.json", RW_ROPE_LLAMA3, RW_ROPE_HALF, 64, 64, 0, 1, 31, 9.41830649e-08},
    {"mistral-7b.json", RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 128, 0, 1, 32, 0.00100000005},
    {"mistral-7b.json", RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 128, 0, 1, 63, 1.24093776e-06},
    {"phi-3.5-mini.json", RW_ROPE_LONGROPE, RW_ROPE_HALF, 96, 96, 0, 1.1902380714238083, 24,
     0.00502512651},
    {"phi-3.5-mini.json", RW_ROPE_LONGROPE, RW_ROPE_HALF, 96, 96, 0, 1.1902380714238083, 47,
     4.2659427e-05},
    {"phi-3.5-mini.json", RW_ROPE_LONGROPE, RW_ROPE_HALF, 96, 96, 4097, 1.1902380714238083, 24,
     0.00019864917},
    {"phi-3.5-mini.json", RW_ROPE_LONGROPE, RW_ROPE_HALF, 96, 96, 4097, 1.1902380714238083, 47,
     1.86848786e-06},
    {"qwen2-vl-7b.json", RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 128, 0, 1, 32, 0.00100000005},
    {"qwen2-vl-7b.json", RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 128, 0, 1, 63, 1.24093776e-06},
    {"qwen2.5-7b-yarn.json", RW_ROPE_YARN, RW_ROPE_HALF, 128, 128, 0, 1.1386294361119891, 32,
     0.000602941145},
    {"qwen2.5-7b-yarn.json", RW_ROPE_YARN, RW_ROPE_HALF, 128, 128, 0, 1.1386294361119891, 63,
     3.10234441e-07},
};

static void test_models(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        const struct model_row *row = &models[i];
        rwt_model config;
        rw_message message;
        const rwt_model_text file = {.path = rwt_path(RWT_DATA "/models", row->file)};
        if (rwt_parse_model(file, &config, &message) != RW_OK)
            fail_msg("%s", message.text);
        frequencies got = frequencies_of(&config, row->seq_len);
        assert_int_equal(config.spec.type, row->type);
        assert_int_equal(config.spec.pairing, row->pairing);
        assert_int_equal(config.spec.head_dim, row->head_dim);
        assert_int_equal(2 * got.count, row->rotary_dim);
        assert_near(got.attention_factor, row->attention_factor);
        assert_near(got.inv_freq[row->at], row->inv_freq);
        rwt_model_free(&config);
    }
}

static void test_sections(void **state) {
    (void)state;
    rwt_model config =
        parse_valid("{\"model_type\":\"qwen2_vl\",\"head_dim\":128,"
                    "\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[16,24,24]}}",
                    NULL);
    assert_int_equal(config.spec.axes, RW_ROPE_AXES_MROPE_CHUNKED);
    assert_int_equal(config.spec.type, RW_ROPE_DEFAULT);
    assert_int_equal(config.spec.sections[1], 24);
    rwt_model_free(&config);
    config = parse_valid("{\"model_type\":\"qwen3_vl\",\"text_config\":{\"model_type\":"
                         "\"qwen3_vl_text\",\"head_dim\":128,\"rope_scaling\":{\"rope_type\":"
                         "\"default\",\"mrope_interleaved\":true,\"mrope_section\":[24,20,20]}},"
                         "\"vision_config\":{\"hidden_size\":1}}",
                         NULL);
    assert_int_equal(config.spec.axes, RW_ROPE_AXES_MROPE_INTERLEAVED);
    assert_near(config.spec.theta, 500000);
    rwt_model_free(&config);
    config = parse_valid(
        "{\"head_dim\":128,\"rope_theta\":1e4,\"max_position_embeddings\":32768,\"rope_scaling\":{"
        "\"type\":\"yarn\",\"factor\":4,\"mrope_section\":[16,24,24]}}",
        NULL);
    assert_int_equal(config.spec.axes, RW_ROPE_AXES_MROPE_CHUNKED);
    assert_int_equal(config.spec.type, RW_ROPE_YARN);
    rwt_model_free(&config);
}

/* Phi-3's former names of longrope. */
static void test_old_names(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{\"head_dim\":4,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"su\",\"factor\":2,\"short_"
        "factor\":[1,2],"
        "\"long_factor\":[3,4],\"original_max_position_embeddings\":8}}",
        "{\"head_dim\":4,\"model_type\":\"phi3\",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,"
        "\"short_factor\":[1,2],\"long_factor\":[3,4]},\"original_max_position_embeddings\":8}"};
    for (int i = 0; i < 2; i++) {
        rwt_model config = parse_valid(texts[i], NULL);
        assert_int_equal(config.spec.type, RW_ROPE_LONGROPE);
        assert_near(frequencies_of(&config, 8).inv_freq[1], 0.005);
        assert_near(frequencies_of(&config, 9).inv_freq[1], 0.0025);
        rwt_model_free(&config);
    }
}

static void test_pairing(void **state) {
    (void)state;
    static const char *const interleaved[] = {"glm",     "glm4", "chatglm",    "cohere",
                                              "cohere2", "gptj", "deepseek_v3"};
    static const char *const halves[] = {"llama", "qwen2", "gpt_neox", "phi3", "minicpm3"};
    char text[128];
    for (int i = 0; i < 12; i++) {
        const char *name = i < 7 ? interleaved[i] : halves[i - 7];
        snprintf(text, sizeof text, "{\"model_type\":\"%s\",\"head_dim\":64}", name);
        rwt_model config = parse_valid(text, NULL);
        assert_int_equal(config.spec.pairing, i < 7 ? RW_ROPE_INTERLEAVED : RW_ROPE_HALF);
        assert_string_equal(config.model_type, name);
        rwt_model_free(&config);
    }
}

/* Fields that a model's file leaves out or names differently. */
static void test_widths_and_thetas(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t head_dim, rotary_dim;
        double theta;
    } rows[] = {
        {"{\"rope_theta\":1e4,\"hidden_size\":4096,\"num_attention_heads\":32}", 128, 128, 10000},
        {"{\"model_type\":\"qwen3\",\"hidden_size\":2048,\"num_attention_heads\":32,"
         "\"head_dim\":null}",
         64, 64, 10000},
        {"{\"rope_theta\":1e4,\"hidden_size\":100,\"num_attention_heads\":3,\"head_dim\":64}", 64,
         64, 10000},
        {"{\"hidden_size\":2560,\"num_attention_heads\":32,\"partial_rotary_factor\":0.4,"
         "\"rope_theta\":5e5}",
         80, 32, 5e5},
        {"{\"model_type\":\"gpt_neox\",\"hidden_size\":6144,\"num_attention_heads\":64,"
         "\"rotary_pct\":0.25,\"rotary_emb_base\":20000}",
         96, 24, 20000},
        {"{\"model_type\":\"gpt_neox\",\"hidden_size\":6144,\"num_attention_heads\":64}", 96, 24,
         10000},
        {"{\"model_type\":\"gptj\",\"n_embd\":4096,\"n_head\":16,\"rotary_dim\":32}", 256, 32,
         10000},
        {"{\"model_type\":\"gptj\",\"n_embd\":4096,\"n_head\":16}", 256, 64, 10000},
        {"{\"model_type\":\"chatglm\",\"hidden_size\":4096,\"num_attention_heads\":32,"
         "\"kv_channels\":128,\"rope_ratio\":500}",
         128, 64, 5000000},
        {"{\"model_type\":\"phi\",\"hidden_size\":2560,\"num_attention_heads\":32}", 80, 40, 10000},
        {"{\"model_type\":\"stablelm\",\"hidden_size\":2560,\"num_attention_heads\":32}", 80, 20,
         10000},
        {"{\"model_type\":\"persimmon\",\"hidden_size\":4096,\"num_attention_heads\":64}", 64, 32,
         10000},
        {"{\"model_type\":\"glm4\",\"hidden_size\":4096,\"num_attention_heads\":32}", 128, 64,
         10000},
        {"{\"model_type\":\"deepseek_v2\",\"hidden_size\":2048,\"num_attention_heads\":16,"
         "\"qk_rope_head_dim\":64,\"qk_nope_head_dim\":128}",
         64, 64, 10000},
        {"{\"model_type\":\"cohere\",\"hidden_size\":8192,\"num_attention_heads\":64}", 128, 128,
         500000},
        {"{\"head_dim\":64,\"rope_theta\":1e4,\"rope_parameters\":{\"rope_theta\":2e4,"
         "\"partial_rotary_factor\":0.5,\"rope_type\":\"default\"}}",
         64, 32, 20000},
        {"{\"head_dim\":64,\"rope_scaling\":{},\"rope_parameters\":{\"rope_theta\":2e4}}", 64, 64,
         20000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rwt_model config = parse_valid(rows[i].text, NULL);
        assert_int_equal(config.spec.head_dim, rows[i].head_dim);
        assert_int_equal(2 * frequencies_of(&config, 0).count, rows[i].rotary_dim);
        assert_near(config.spec.theta, rows[i].theta);
        rwt_model_free(&config);
    }
}

static const char nested[] =
    "{\"head_dim\":64,\"max_position_embeddings\":131072,\"layer_types\":[\"sliding_attention\","
    "\"full_attention\"],\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\","
    "\"factor\":8.0,\"rope_theta\":1e6},\"sliding_attention\":{\"rope_type\":\"default\","
    "\"rope_theta\":1e4},\"none\":null}}";

static void test_layer_types(void **state) {
    (void)state;
    rwt_model config = parse_valid(nested, NULL);
    assert_int_equal(config.spec.type, RW_ROPE_LINEAR);
    assert_near(config.spec.theta, 1e6);
    rwt_model_free(&config);
    config = parse_valid(nested, "sliding_attention");
    assert_int_equal(config.spec.type, RW_ROPE_DEFAULT);
    assert_near(config.spec.theta, 1e4);
    static const char old[] = "{\"model_type\":\"gemma3_text\",\"head_dim\":64,\"rope_theta\":1e6,"
                              "\"rope_local_base_freq\":1e4,\"rope_scaling\":{\"rope_type\":"
                              "\"linear\",\"factor\":8.0}}";
    rwt_model_free(&config);
    config = parse_valid(old, NULL);
    assert_int_equal(config.spec.type, RW_ROPE_LINEAR);
    assert_near(config.spec.theta, 1e6);
    rwt_model_free(&config);
    config = parse_valid(old, "sliding_attention");
    assert_int_equal(config.spec.type, RW_ROPE_DEFAULT);
    assert_near(config.spec.theta, 1e4);
    rwt_model_free(&config);
    static const char *const missing[] = {"none", "chunked_attention"};
    for (int i = 0; i < 2; i++) {
        const rwt_model_text source = {.text = nested, .layer_type = missing[i], .pairing = &half};
        rw_message message;
        assert_int_equal(rwt_parse_model(source, &config, &message), RW_INVALID_ARGUMENT);
        rwt_assert_sentence(message.text);
    }
}

/* rope_scaling in a config that is otherwise valid. */
#define SCALING(text)                                                                              \
    "{\"head_dim\":8,\"rope_theta\":1e4,\"max_position_embeddings\":64,\"rope_scaling\":" text "}"

#define LONGROPE(low, high, more)                                                                  \
    SCALING("{\"type\":\"longrope\",\"short_factor\":" low ",\"long_factor\":" high "," more "}")

static void test_malformed(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        " ",
        "hello",
        "[]",
        "7",
        "null",
        "\"text\"",
        "{",
        "{}",
        "{\"head_dim\":8,}",
        "{\"head_dim\":8}}",
        "{\"head_dim\":NaN}",
        "{\"head_dim\":\"8\"}",
        "{\"head_dim\":-8}",
        "{\"head_dim\":0}",
        "{\"head_dim\":7}",
        "{\"head_dim\":8.5}",
        "{\"head_dim\":1e9}",
        "{\"head_dim\":1e400}",
        "{\"head_dim\":99999999999999999999999}",
        "{\"head_dim\":[8]}",
        "{\"head_dim\":true}",
        "{\"hidden_size\":64}",
        "{\"hidden_size\":64,\"num_attention_heads\":0}",
        "{\"hidden_size\":64,\"num_attention_heads\":-8}",
        "{\"hidden_size\":4,\"num_attention_heads\":8}",
        "{\"hidden_size\":64,\"num_attention_heads\":[8,8]}",
        "{\"head_dim\":8,\"rope_theta\":\"10000\"}",
        "{\"head_dim\":8,\"rope_theta\":-1}",
        "{\"head_dim\":8,\"rope_theta\":0}",
        "{\"head_dim\":8,\"max_position_embeddings\":-1}",
        "{\"head_dim\":8,\"max_position_embeddings\":1.5}",
        "{\"head_dim\":8,\"max_position_embeddings\":1e300}",
        "{\"head_dim\":8,\"rope_theta\":1e4,\"partial_rotary_factor\":0}",
        "{\"head_dim\":8,\"rope_theta\":1e4,\"partial_rotary_factor\":1.5}",
        "{\"head_dim\":8,\"rope_theta\":1e4,\"partial_rotary_factor\":-0.5}",
        "{\"head_dim\":8,\"rope_theta\":1e4,\"partial_rotary_factor\":\"half\"}",
        "{\"head_dim\":8,\"rope_theta\":1e4,\"rotary_dim\":16}",
        "{\"head_dim\":8,\"rope_theta\":1e4,\"rotary_dim\":3}",
        "{\"head_dim\":8,\"model_type\":7}",
        "{\"head_dim\":8,\"text_config\":7}",
        "{\"head_dim\":8,\"rope_parameters\":7}",
        "{\"head_dim\":8,\"alibi\":true}",
        "{\"head_dim\":8,\"model_type\":\"gpt2\"}",
        SCALING("[]"),
        SCALING("\"linear\""),
        SCALING("{\"rope_type\":\"unheard-of\"}"),
        SCALING("{\"rope_type\":\"\"}"),
        SCALING("{\"rope_type\":7}"),
        SCALING("{\"type\":[]}"),
        SCALING("{\"type\":\"mrope\"}"),
        SCALING("{\"type\":\"mrope\",\"mrope_section\":[2,1]}"),
        SCALING("{\"type\":\"mrope\",\"mrope_section\":[2,1,2]}"),
        SCALING("{\"type\":\"mrope\",\"mrope_section\":[-2,4,2]}"),
        SCALING("{\"type\":\"mrope\",\"mrope_section\":[2,1,\"1\"]}"),
        SCALING("{\"type\":\"mrope\",\"mrope_section\":{\"t\":4}}"),
        SCALING("{\"type\":\"linear\"}"),
        SCALING("{\"type\":\"linear\",\"factor\":0}"),
        SCALING("{\"type\":\"linear\",\"factor\":-2}"),
        SCALING("{\"type\":\"linear\",\"factor\":\"2\"}"),
        SCALING("{\"type\":\"linear\",\"factor\":null}"),
        SCALING("{\"type\":\"linear\",\"factor\":[2]}"),
        SCALING("{\"type\":\"dynamic\"}"),
        SCALING("{\"type\":\"dynamic\",\"factor\":1,\"alpha\":1000}"),
        "{\"head_dim\":8,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}",
        "{\"head_dim\":2,\"rope_theta\":1e4,\"max_position_embeddings\":64,\"rope_scaling\":{"
        "\"type\":\"dynamic\","
        "\"factor\":2}}",
        SCALING("{\"type\":\"yarn\",\"factor\":4,\"truncate\":1}"),
        SCALING("{\"type\":\"yarn\",\"factor\":4,\"beta_fast\":-1}"),
        SCALING("{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":0}"),
        SCALING("{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":\"1\"}"),
        SCALING("{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":0}"),
        "{\"head_dim\":8,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}",
        SCALING("{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":1e60}"),
        SCALING("{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":1e-60}"),
        SCALING("{\"type\":\"yarn\",\"factor\":4,\"mscale\":1e60,\"mscale_all_dim\":1}"),
        SCALING("{\"type\":\"yarn\",\"factor\":4,\"mscale\":1e-60,\"mscale_all_dim\":1}"),
        SCALING("{\"type\":\"yarn\",\"factor\":4,\"mscale\":1,\"mscale_all_dim\":1e308}"),
        SCALING("{\"type\":\"linear\",\"factor\":1e60}"),
        SCALING("{\"type\":\"linear\",\"factor\":1e-60}"),
        "{\"head_dim\":8,\"rope_theta\":5e-324}",
        "{\"head_dim\":8,\"rope_theta\":1e308}",
        LONGROPE("[1,1,1,1]", "[1,1,1,1]", "\"attention_factor\":1e60"),
        LONGROPE("[1,1,1,1]", "[1,1,1,1]", "\"short_mscale\":1e60"),
        LONGROPE("[1,1,1,1]", "[1,1,1,1]", "\"long_mscale\":1e-60"),
        LONGROPE("[1,1,1,1e60]", "[1,1,1,1]", "\"factor\":1"),
        LONGROPE("[1,1,1,1]", "[1,1,1,1e-60]", "\"factor\":1"),
        SCALING("{\"type\":\"longrope\"}"),
        SCALING("{\"type\":\"longrope\",\"short_factor\":[1,1,1,1]}"),
        SCALING("{\"type\":\"longrope\",\"short_factor\":[1,1,1,1],\"long_factor\":[1,1,1]}"),
        SCALING("{\"type\":\"longrope\",\"short_factor\":[1,1,1,1],\"long_factor\":[1,1,1,1,1]}"),
        SCALING("{\"type\":\"longrope\",\"short_factor\":[1,1,1,1],\"long_factor\":[1,1,1,0]}"),
        SCALING("{\"type\":\"longrope\",\"short_factor\":[1,1,1,\"1\"],\"long_factor\":[1,1,1,1]}"),
        SCALING("{\"type\":\"longrope\",\"short_factor\":4,\"long_factor\":[1,1,1,1]}"),
        SCALING("{\"type\":\"llama3\",\"factor\":8}"),
        SCALING("{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}"),
        SCALING("{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":0,\"high_freq_factor\":4}"),
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        rwt_model config;
        rw_message message;
        if (parse(texts[i], &config, &message) != RW_INVALID_ARGUMENT)
            fail_msg("accepted %s", texts[i]);
        rwt_assert_sentence(message.text);
    }
    rwt_model config;
    rw_message message;
    static const char *const paths[] = {"/nowhere/config.json", "/tmp", "/dev/zero"};
    for (int i = 0; i < 3; i++) {
        const rwt_model_text file = {.path = paths[i]};
        assert_int_equal(rwt_parse_model(file, &config, &message), RW_INVALID_ARGUMENT);
        rwt_assert_sentence(message.text);
    }
}

/* Replaces some bytes, or truncates the text. */
static void damage(char *text, rwt_random *random) {
    static const char bytes[] = "0123456789{}[]\",:-.enultrsf";
    int64_t length = (int64_t)strlen(text);
    for (int64_t n = 1 + rwt_random_below(random, 3); n > 0; n--)
        text[rwt_random_below(random, length)] =
            rwt_random_below(random, 4) ? bytes[rwt_random_below(random, sizeof bytes - 1)]
                                        : (char)(1 + rwt_random_below(random, 255));
    if (rwt_random_below(random, 10) == 0)
        text[rwt_random_below(random, length)] = '\0';
}

static void test_damage(void **state) {
    (void)state;
    static const char *const files[] = {"phi-3.5-mini.json", "deepseek-v3.json",
                                        "llama-3.1-8b.json", "qwen2-vl-7b.json",
                                        "gemma-3-4b.json",   "exaone-4.0-32b.json"};
    rwt_random random = {7};
    int valid = 0;
    for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
        size_t bytes;
        char *whole = rwt_read_file(rwt_path(RWT_DATA "/models", files[f]), &bytes);
        char *text = malloc(bytes + 1);
        for (int i = 0; i < 2500; i++) {
            rwt_model config;
            rw_message message;
            strcpy(text, whole);
            damage(text, &random);
            if (parse(text, &config, &message) != RW_OK) {
                rwt_assert_sentence(message.text);
                continue;
            }
            valid++;
            rwt_model_free(&config);
        }
        free(text);
        free(whole);
    }
    assert_in_range(valid, 150, 13500);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),      cmocka_unit_test(test_models),
        cmocka_unit_test(test_sections),    cmocka_unit_test(test_pairing),
        cmocka_unit_test(test_layer_types), cmocka_unit_test(test_widths_and_thetas),
        cmocka_unit_test(test_malformed),   cmocka_unit_test(test_damage),
        cmocka_unit_test(test_old_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
