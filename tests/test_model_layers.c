/* Types of layers: the embedding of each type, and types without one. */
#include "harness/io_support.h"

#include <string.h>

#include "harness/model_support.h"

/* 'r': a layer with a rotary embedding, '-': one without. */
static void assert_layers(const char *text, const char *expected) {
    rwt_model config = rwt_read_model(text, NULL);
    char got[64] = "";
    assert_in_range(config.info->num_layers, 1, 60);
    for (int64_t i = 0; i < config.info->num_layers; i++)
        strcat(got, rw_model_get_layer(config.model, i)->has_rope == 1 ? "r" : "-");
    if (strcmp(got, expected) != 0)
        fail_msg("%s: %s, expected %s", text, got, expected);
    rwt_model_free(&config);
}

static void test_layers_without_rope(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"{\"model_type\":\"cohere2\",\"num_hidden_layers\":8}", "rrr-rrr-"},
        {"{\"model_type\":\"cohere2\",\"num_hidden_layers\":8,\"sliding_window_pattern\":3}",
         "rr-rr-rr"},
        {"{\"model_type\":\"cohere2_moe\",\"num_hidden_layers\":8}", "rrr-rrr-"},
        {"{\"model_type\":\"cohere2_moe\",\"num_hidden_layers\":4,\"layer_types\":["
         "\"full_attention\",\"full_attention\",\"sliding_attention\",\"full_attention\"],"
         "\"first_k_dense_replace\":1}",
         "r-r-"},
        {"{\"model_type\":\"llama4_text\",\"num_hidden_layers\":8}", "rrr-rrr-"},
        {"{\"model_type\":\"llama4_text\",\"num_hidden_layers\":4,\"no_rope_layers\":[0,1,1,1]}",
         "-rrr"},
        {"{\"model_type\":\"smollm3\",\"num_hidden_layers\":6,\"no_rope_layer_interval\":2}",
         "r-r-r-"},
        {"{\"model_type\":\"exaone4\",\"num_hidden_layers\":8}", "rrr-rrr-"},
        {"{\"model_type\":\"exaone4\",\"num_hidden_layers\":4,\"sliding_window\":null}", "rrrr"},
        {"{\"model_type\":\"afmoe\",\"num_hidden_layers\":4}", "rrr-"},
        {"{\"model_type\":\"beam\",\"num_hidden_layers\":8}", "rrrrr-r-"},
        {"{\"model_type\":\"flint\",\"num_hidden_layers\":7}", "--rrr--"},
        {"{\"model_type\":\"muse_glimmer_text\",\"num_hidden_layers\":6}", "r-rrr-"},
        {"{\"model_type\":\"granite_swa\",\"num_hidden_layers\":3,\"layer_rope_theta\":[0,1e4,0]}",
         "-r-"},
        {"{\"model_type\":\"mllama\"}", "rrr-rrrr-rrrr-rrrr-rrrr-rrrr-rrrr-rrrr-r"},
        {"{\"model_type\":\"mllama_text_model\",\"num_hidden_layers\":6,"
         "\"cross_attention_layers\":[1,4,9]}",
         "r-rr-r"},
        {"{\"model_type\":\"mllama_text_model\",\"num_hidden_layers\":2,"
         "\"cross_attention_layers\":[]}",
         "rr"},
        {"{\"model_type\":\"qwen3_next\",\"num_hidden_layers\":8}", "---r---r"},
        {"{\"model_type\":\"lfm2\",\"num_hidden_layers\":4,\"full_attn_idxs\":[1,3]}", "-r-r"},
        {"{\"model_type\":\"bamba\",\"num_hidden_layers\":4,\"attn_layer_indices\":[2]}", "--r-"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_layers(rows[i][0], rows[i][1]);
    rwt_model config = rwt_read_model("{\"model_type\":\"llama\"}", NULL);
    assert_int_equal(config.info->num_layers, 32);
    assert_string_equal(rw_model_get_layer(config.model, 31)->type, ""); /* all are alike */
    rwt_model_free(&config);
}

static void test_layer_types(void **state) {
    (void)state;
    static const char *const refused[][3] = {
        {"{\"model_type\":\"cohere2\"}", "full_attention", "no rotary position embedding"},
        {"{\"model_type\":\"beam\"}", "full_attention", "no rotary position embedding"},
        {"{\"model_type\":\"qwen3_next\"}", "linear_attention", "no rotary position embedding"},
        {"{\"model_type\":\"llama4\"}", "full_attention", "no rotary position embedding"},
        {"{\"model_type\":\"mllama\"}", "cross_attention", "no rotary position embedding"},
        {"{\"model_type\":\"llama\"}", "sliding_attention", "no layer type"},
        {"{\"model_type\":\"deepseek_v4\"}", NULL, "main or compress"},
        {"{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"rope_theta\":1e6}}", NULL,
         "one for each layer type"},
        {"{\"model_type\":\"olmo3\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", NULL,
         "rope_type"},
        {"{\"model_type\":\"granite_swa\",\"layer_types\":[\"full_attention\",\"full_attention\"],"
         "\"layer_rope_theta\":[1e4,2e4]}",
         NULL, "layer_rope_theta"},
        {"{\"model_type\":\"granite_swa\",\"num_hidden_layers\":2,\"layer_rope_theta\":[1e4,1e999]"
         "}",
         NULL, "layer_rope_theta[1] is not a number"},
        {"{\"model_type\":\"cohere_compass\"}", NULL, "rope_parameters of the layer types"},
        {"{\"model_type\":\"cohere_compass_text\",\"layer_types\":[\"full_attention\","
         "\"sliding_attention\"],\"rope_parameters\":{\"full_attention\":null,"
         "\"sliding_attention\":{\"rope_theta\":5e4}}}",
         "full_attention", "no rotary position embedding"},
        {"{\"model_type\":\"llama\",\"layer_types\":[7]}", NULL, "layer_types[0]"},
        {"{\"model_type\":\"llama\",\"layer_types\":[\"a234567890123456789012345678901234567890\"]"
         "}",
         NULL, "layer_types[0] has 40 bytes"},
        {"{\"model_type\":\"a23456789012345678901234567890123456789012345678901234567890123"
         "4\",\"rope_theta\":1e4}",
         NULL, "model_type has 64 bytes"},
        {"{\"model_type\":\"llama\",\"layer_types\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\","
         "\"h\",\"i\",\"j\",\"k\",\"l\",\"m\",\"n\",\"o\",\"p\",\"q\"]}",
         NULL, "one of more than 16"},
        {"{\"model_type\":\"mllama\",\"text_config\":{\"cross_attention_layers\":[\"3\"]}}", NULL,
         "cross_attention_layers[0]"},
        {"{\"model_type\":\"llama\",\"rope_theta\":[1e4,2e4]}", NULL, "rope_theta is an array"},
        {"{\"model_type\":\"gemma3\",\"text_config\":{\"num_hidden_layers\":1e9}}", NULL, "layers"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        rwt_assert_model_refused(
            &(rwt_model_text){.text = refused[i][0], .layer_type = refused[i][1]}, refused[i][2]);
    static const struct {
        const char *text, *layer_type;
        double theta;
        rw_rope_type type;
        int64_t rotary_dim, rotary_start;
    } rows[] = {
        /* sliding layers, which use neither the scaling nor, without a key, the global theta */
        {"{\"model_type\":\"gemma3_text\",\"rope_theta\":2e6,\"rope_scaling\":{\"rope_type\":"
         "\"linear\",\"factor\":8},\"layer_types\":[\"sliding_attention\",\"full_attention\"]}",
         "sliding_attention", 10000, RW_ROPE_DEFAULT, 256, 0},
        {"{\"model_type\":\"gemma3n_text\",\"rope_theta\":2e6,\"rope_scaling\":{\"rope_type\":"
         "\"linear\",\"factor\":8}}",
         "sliding_attention", 10000, RW_ROPE_DEFAULT, 256, 0},
        {"{\"model_type\":\"modernbert\",\"global_rope_theta\":5e5,\"layer_types\":["
         "\"sliding_attention\",\"full_attention\"]}",
         "sliding_attention", 10000, RW_ROPE_DEFAULT, 64, 0},
        {"{\"model_type\":\"modernbert\",\"local_rope_theta\":3e4}", "sliding_attention", 3e4,
         RW_ROPE_DEFAULT, 64, 0},
        {"{\"model_type\":\"olmo3\",\"rope_theta\":1e6,\"rope_scaling\":{\"rope_type\":\"yarn\","
         "\"factor\":8}}",
         "sliding_attention", 500000, RW_ROPE_DEFAULT, 128, 0},
        {"{\"model_type\":\"olmo3\",\"rope_theta\":1e6,\"rope_scaling\":{\"rope_type\":\"yarn\","
         "\"factor\":8}}",
         NULL, 1e6, RW_ROPE_YARN, 128, 0},
        {"{\"model_type\":\"gemma4_text\"}", NULL, 1e6, RW_ROPE_PROPORTIONAL, 512, 0},
        {"{\"model_type\":\"gemma4_text\"}", "sliding_attention", 1e4, RW_ROPE_DEFAULT, 256, 0},
        {"{\"model_type\":\"deepseek_v4\"}", "main", 1e4, RW_ROPE_DEFAULT, 64, 448},
        {"{\"model_type\":\"deepseek_v4\",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":16}}",
         "compress", 160000, RW_ROPE_YARN, 64, 448},
        {"{\"model_type\":\"step3p5\",\"layer_types\":[\"full_attention\",\"sliding_attention\"],"
         "\"rope_theta\":[5e6,2e4],\"partial_rotary_factors\":[0.5,1],\"rope_scaling\":{"
         "\"rope_type\":\"linear\",\"factor\":2}}",
         "full_attention", 5e6, RW_ROPE_LINEAR, 64, 0},
        {"{\"model_type\":\"step3p5\",\"layer_types\":[\"full_attention\",\"sliding_attention\"],"
         "\"rope_theta\":[5e6,2e4],\"partial_rotary_factors\":[0.5,1],\"rope_scaling\":{"
         "\"rope_type\":\"linear\",\"factor\":2}}",
         "sliding_attention", 2e4, RW_ROPE_DEFAULT, 128, 0},
        {"{\"model_type\":\"granite_swa\",\"num_hidden_layers\":2,\"layer_rope_theta\":[1e4,2e4]}",
         "sliding_attention", 2e4, RW_ROPE_DEFAULT, 128, 0},
        /* fields that rope_parameters of layer types leave out */
        {"{\"model_type\":\"gemma3_text\",\"rope_theta\":7e3,\"rope_parameters\":{"
         "\"full_attention\":{\"rope_type\":\"default\"},\"sliding_attention\":{"
         "\"rope_type\":\"default\"}}}",
         "sliding_attention", 10000, RW_ROPE_DEFAULT, 256, 0},
        {"{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"full_attention\":null,"
         "\"sliding_attention\":{\"rope_theta\":3e3}}}",
         "full_attention", 1e6, RW_ROPE_DEFAULT, 256, 0},
        {"{\"model_type\":\"mimo_v2_flash\",\"rope_parameters\":{\"full_attention\":{"
         "\"rope_theta\":3e3},\"sliding_attention\":{\"rope_theta\":4e3}}}",
         NULL, 3e3, RW_ROPE_DEFAULT, 64, 0},
        {"{\"model_type\":\"neomme\",\"rope_theta\":7e3}", "full_attention", 7e3, RW_ROPE_DEFAULT,
         16, 0},
        {"{\"model_type\":\"neomme\",\"rope_parameters\":{\"full_attention\":{"
         "\"rope_type\":\"default\"},\"sliding_attention\":{\"rope_theta\":4e3}}}",
         "full_attention", 1e6, RW_ROPE_DEFAULT, 16, 0},
        {"{\"model_type\":\"cohere_compass_text\",\"layer_types\":[\"full_attention\","
         "\"sliding_attention\"],\"rope_parameters\":{\"full_attention\":null,"
         "\"sliding_attention\":{\"rope_theta\":5e4}}}",
         NULL, 5e4, RW_ROPE_DEFAULT, 128, 0},
        {"{\"model_type\":\"ultrabert\",\"rope_theta\":7e3,\"rope_parameters\":{"
         "\"full_attention\":{\"rope_type\":\"default\"},\"sliding_attention\":{"
         "\"rope_theta\":4e3}}}",
         "full_attention", 10000, RW_ROPE_DEFAULT, 128, 0},
        {"{\"model_type\":\"granite_swa\",\"num_hidden_layers\":2,\"layer_rope_theta\":[1e4,2e4]}",
         "sliding_attention", 2e4, RW_ROPE_DEFAULT, 128, 0},
        {"{\"model_type\":\"dots3_note_text\"}", "sliding_attention", 50000, RW_ROPE_DEFAULT, 64,
         0},
        {"{\"model_type\":\"mllama\"}", "full_attention", 500000, RW_ROPE_DEFAULT, 128, 0},
        /* a published file has the language model's fields at the top level */
        {"{\"model_type\":\"dots3_note\",\"hidden_size\":4096,\"num_attention_heads\":64,"
         "\"num_key_value_heads\":64,\"num_hidden_layers\":12,\"rope_theta\":1234567.0,"
         "\"swa_rope_theta\":4321.0,\"qk_rope_head_dim\":32}",
         "indexed_attention", 1234567, RW_ROPE_DEFAULT, 32, 0},
        {"{\"model_type\":\"dots3_note\",\"hidden_size\":4096,\"num_attention_heads\":64,"
         "\"num_key_value_heads\":64,\"num_hidden_layers\":12,\"rope_theta\":1234567.0,"
         "\"swa_rope_theta\":4321.0,\"qk_rope_head_dim\":32}",
         "sliding_attention", 4321, RW_ROPE_DEFAULT, 64, 0},
        {"{\"model_type\":\"dots3_note\",\"hidden_size\":4096,\"num_attention_heads\":64,"
         "\"num_key_value_heads\":64,\"num_hidden_layers\":12,\"rope_theta\":1234567.0,"
         "\"swa_rope_theta\":4321.0,\"qk_rope_head_dim\":32,\"swa_qk_rope_head_dim\":48}",
         "sliding_attention", 4321, RW_ROPE_DEFAULT, 48, 0},
        {"{\"model_type\":\"dots3_note\",\"hidden_size\":4096,\"num_attention_heads\":64,"
         "\"num_key_value_heads\":64,\"num_hidden_layers\":12,\"rope_theta\":1234567.0,"
         "\"swa_rope_theta\":4321.0,\"qk_rope_head_dim\":32,\"swa_head_dim\":224}",
         "sliding_attention", 4321, RW_ROPE_DEFAULT, 32, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rwt_model config = rwt_read_model(rows[i].text, rows[i].layer_type);
        if (config.spec.type != rows[i].type || config.spec.rotary_start != rows[i].rotary_start)
            fail_msg("%s: type %d, start %lld", rows[i].text, config.spec.type,
                     (long long)config.spec.rotary_start);
        rw_rope_frequency_list list = {0};
        assert_int_equal(rw_rope_frequencies(&config.spec, 0, &list, NULL), RW_OK);
        assert_int_equal(2 * list.count, rows[i].rotary_dim);
        rwt_assert_near(config.spec.theta, rows[i].theta);
        rwt_model_free(&config);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_types),
        cmocka_unit_test(test_layers_without_rope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
