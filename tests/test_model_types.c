/* The reader's tables of models: pairings, names of old files, models of several parts, models
 * without a rotary embedding, published files. */
#include "harness/io_support.h"

#include <math.h>
#include <stdio.h>

#include "harness/model_support.h"

static const rw_rope_pairing half = RW_ROPE_HALF, interleaved = RW_ROPE_INTERLEAVED;

/* ---- published files ---- */

/* Reference values of transformers, float32; DBRX's and DeepSeek-OCR's are from the models' own
 * code. */
static const struct published {
    const char *file;
    const char *layer_type;
    rw_rope_type type;
    rw_rope_pairing pairing;
    int64_t head_dim;
    double attention_factor;
    int at;
    double inv_freq;
    int64_t num_heads, num_kv_heads;
    int64_t without_rope; /* number of layers */
} published[] = {
    {"gemma-3-4b.json", "full_attention", RW_ROPE_LINEAR, RW_ROPE_HALF, 256, 1, 64, 0.000125000006,
     8, 4, 0},
    {"gemma-3-4b.json", "full_attention", RW_ROPE_LINEAR, RW_ROPE_HALF, 256, 1, 127, 1.39246737e-07,
     8, 4, 0},
    {"gemma-3-4b.json", "sliding_attention", RW_ROPE_DEFAULT, RW_ROPE_HALF, 256, 1, 64,
     0.00999999978, 8, 4, 0},
    {"gemma-3-4b.json", "sliding_attention", RW_ROPE_DEFAULT, RW_ROPE_HALF, 256, 1, 127,
     0.000107460779, 8, 4, 0},
    {"olmo-3-7b.json", "full_attention", RW_ROPE_YARN, RW_ROPE_HALF, 128, 1.2079441541679836, 32,
     0.000395147857, 32, 32, 0},
    {"olmo-3-7b.json", "full_attention", RW_ROPE_YARN, RW_ROPE_HALF, 128, 1.2079441541679836, 63,
     3.06892588e-07, 32, 32, 0},
    {"olmo-3-7b.json", "sliding_attention", RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 32,
     0.00141421345, 32, 32, 0},
    {"olmo-3-7b.json", "sliding_attention", RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 63,
     2.4551407e-06, 32, 32, 0},
    {"llava-1.5-7b.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 32, 0.00999999978, 32, 32,
     0},
    {"llava-1.5-7b.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 63, 0.000115478193, 32, 32,
     0},
    {"command-r7b.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_INTERLEAVED, 128, 1, 32, 0.00447213603, 32,
     8, 8},
    {"command-r7b.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_INTERLEAVED, 128, 1, 63, 2.36838005e-05, 32,
     8, 8},
    {"llama-4-scout.json", NULL, RW_ROPE_LLAMA3, RW_ROPE_INTERLEAVED, 128, 1, 32, 0.00141421345, 40,
     8, 12},
    {"llama-4-scout.json", NULL, RW_ROPE_LLAMA3, RW_ROPE_INTERLEAVED, 128, 1, 63, 1.53446294e-07,
     40, 8, 12},
    {"smollm3-3b.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 32, 0.000447213621, 16, 4, 9},
    {"smollm3-3b.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 63, 2.54507967e-07, 16, 4, 9},
    {"exaone-4.0-32b.json", NULL, RW_ROPE_LLAMA3, RW_ROPE_HALF, 128, 1, 32, 0.000157436691, 40, 8,
     16},
    {"exaone-4.0-32b.json", NULL, RW_ROPE_LLAMA3, RW_ROPE_HALF, 128, 1, 63, 7.75586102e-08, 40, 8,
     16},
    {"gpt-oss-20b.json", NULL, RW_ROPE_YARN, RW_ROPE_HALF, 64, 1.3465735902799727, 16,
     0.000456483918, 64, 8, 0},
    {"gpt-oss-20b.json", NULL, RW_ROPE_YARN, RW_ROPE_HALF, 64, 1.3465735902799727, 31,
     3.0235114e-07, 64, 8, 0},
    {"modernbert-base.json", "full_attention", RW_ROPE_DEFAULT, RW_ROPE_HALF, 64, 1, 16,
     0.00249999994, 12, 12, 0},
    {"modernbert-base.json", "full_attention", RW_ROPE_DEFAULT, RW_ROPE_HALF, 64, 1, 31,
     9.08884704e-06, 12, 12, 0},
    {"modernbert-base.json", "sliding_attention", RW_ROPE_DEFAULT, RW_ROPE_HALF, 64, 1, 16,
     0.00999999978, 12, 12, 0},
    {"modernbert-base.json", "sliding_attention", RW_ROPE_DEFAULT, RW_ROPE_HALF, 64, 1, 31,
     0.00013335215, 12, 12, 0},
    {"hunyuan-7b.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 32, 0.000299357722, 32, 8, 0},
    {"hunyuan-7b.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 63, 1.15478201e-07, 32, 8, 0},
    {"dbrx-base.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 32, 0.00141421345, 48, 8, 0},
    {"dbrx-base.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 63, 2.4551407e-06, 48, 8, 0},
    {"kimi-k2.json", NULL, RW_ROPE_YARN, RW_ROPE_INTERLEAVED, 64, 1, 16, 0.00447213603, 64, 1, 0},
    {"kimi-k2.json", NULL, RW_ROPE_YARN, RW_ROPE_INTERLEAVED, 64, 1, 31, 8.76441277e-07, 64, 1, 0},
    {"qwen2-audio-7b.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 32, 0.00999999978, 32, 32,
     0},
    {"qwen2-audio-7b.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 63, 0.000115478193, 32, 32,
     0},
    {"deepseek-ocr.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 32, 0.00999999978, 10, 10,
     0},
    {"deepseek-ocr.json", NULL, RW_ROPE_DEFAULT, RW_ROPE_HALF, 128, 1, 63, 0.000115478193, 10, 10,
     0},
};

static void test_published(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
        const struct published *row = &published[i];
        const rwt_model_text file = {.path = rwt_path(RWT_DATA "/models", row->file),
                                     .layer_type = row->layer_type};
        rwt_model config;
        rw_message message;
        double factor;
        if (rwt_parse_model(file, &config, &message) != RW_OK)
            fail_msg("%s", message.text);
        rwt_assert_near(rwt_model_frequency(&config, 0, row->at, &factor), row->inv_freq);
        rwt_assert_near(factor, row->attention_factor);
        assert_int_equal(config.spec.type, row->type);
        assert_int_equal(config.spec.pairing, row->pairing);
        assert_int_equal(config.spec.head_dim, row->head_dim);
        assert_int_equal(config.num_heads, row->num_heads);
        assert_int_equal(config.num_kv_heads, row->num_kv_heads);
        assert_int_equal(rwt_model_layers_without_rope(&config), row->without_rope);
        rwt_model_free(&config);
    }
}

/* ---- the choice of the model ---- */

static void test_pairings(void **state) {
    (void)state;
    static const struct {
        const char *text;
        rw_rope_pairing pairing;
    } rows[] = {
        {"{\"model_type\":\"deepseek_v2\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"deepseek_v3\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"deepseek_v3\",\"rope_interleave\":false}", RW_ROPE_HALF},
        {"{\"model_type\":\"deepseek_v3\",\"rope_interleave\":true}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"deepseek_v2\",\"use_mla\":false}", RW_ROPE_HALF},
        {"{\"model_type\":\"kimi_k25\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"glm_moe_dsa\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"glm4_moe_lite\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"longcat_flash\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"mistral4\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"mistral_large4\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"bailing_hybrid\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"sarvam_mla\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"openai_privacy_filter\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"roformer\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"blt_patcher\"}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"moss\",\"n_embd\":6144,\"n_head\":24}", RW_ROPE_INTERLEAVED},
        {"{\"model_type\":\"minicpm3\"}", RW_ROPE_HALF},
        {"{\"model_type\":\"hy_v4\"}", RW_ROPE_HALF},
        {"{\"model_type\":\"glm4_moe\"}", RW_ROPE_HALF},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rwt_model config = rwt_read_model(rows[i].text, NULL);
        if (config.spec.pairing != rows[i].pairing)
            fail_msg("%s: %s", rows[i].text, rw_rope_pairing_name(config.spec.pairing));
        rwt_model_free(&config);
    }
}

/* Facts that no table has must be given by the file and the caller. */
static void test_unknown_models(void **state) {
    (void)state;
    static const char with[] = "{\"model_type\":\"unheard-of\",\"head_dim\":64,\"rope_theta\":5e5}";
    static const char without[] = "{\"model_type\":\"unheard-of\",\"head_dim\":64}";
    static const char nameless[] = "{\"head_dim\":64,\"rope_theta\":5e5}";
    static const char alibi[] = "{\"model_type\":\"unheard-of\",\"head_dim\":64,\"rope_theta\":5e5,"
                                "\"position_embedding_type\":\"alibi\"}";
    rwt_assert_model_refused(&(rwt_model_text){.text = with}, "pairing of its columns is required");
    rwt_assert_model_refused(&(rwt_model_text){.text = nameless},
                             "pairing of its columns is required");
    rwt_assert_model_refused(&(rwt_model_text){.text = without, .pairing = &half}, "rope_theta");
    rwt_assert_model_refused(&(rwt_model_text){.text = alibi, .pairing = &half}, "alibi");
    static const char *const rows[][2] = {
        {"\"rope_scaling\":{}", "rope_theta is absent"},
        {"\"partial_rotary_factor\":0.5", "rope_theta is absent"},
        {"\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", "rope_theta is absent"},
        {"\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}",
         "rope_theta is absent"},
        {"\"rope_theta\":1e4,\"attn_config\":{\"alibi\":true}", "alibi is true"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[160];
        snprintf(text, sizeof text, "{\"model_type\":\"unheard-of\",\"head_dim\":64,%s}",
                 rows[i][0]);
        rwt_assert_model_refused(&(rwt_model_text){.text = text, .pairing = &half}, rows[i][1]);
    }
    const rw_rope_pairing *const pairings[] = {&half, &interleaved};
    for (int i = 0; i < 2; i++) {
        rwt_model config;
        rw_message message;
        const rwt_model_text source = {.text = with, .pairing = pairings[i]};
        assert_int_equal(rwt_parse_model(source, &config, &message), RW_OK);
        assert_int_equal(config.spec.pairing, *pairings[i]);
        rwt_assert_near(config.spec.theta, 5e5);
        rwt_model_free(&config);
    }
    /* the caller's value overrides the model_type's */
    const rwt_model_text llama = {.text = "{\"model_type\":\"llama\"}", .pairing = &interleaved};
    rwt_model config;
    rw_message message;
    assert_int_equal(rwt_parse_model(llama, &config, &message), RW_OK);
    assert_int_equal(config.spec.pairing, RW_ROPE_INTERLEAVED);
    rwt_model_free(&config);
}

static void test_without_rope(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"{\"model_type\":\"gpt2\"}", "learned position embeddings"},
        {"{\"model_type\":\"xlm-roberta\"}", "learned position embeddings"},
        {"{\"model_type\":\"bert\",\"position_embedding_type\":\"absolute\"}", "has learned"},
        {"{\"model_type\":\"bert\",\"position_embedding_type\":\"alibi\"}",
         "position_embedding_type is alibi, which is unknown for model_type bert"},
        {"{\"model_type\":\"xlm-roberta\",\"position_embedding_type\":\"rotary\"}",
         "position_embedding_type is rotary, which is unknown for model_type xlm-roberta"},
        {"{\"model_type\":\"dbrx\",\"attn_config\":{\"alibi\":true}}", "alibi is true"},
        {"{\"model_type\":\"vit\"}", "learned position embeddings"},
        {"{\"model_type\":\"whisper\"}", "learned position embeddings"},
        {"{\"model_type\":\"m2m_100\"}", "sinusoidal position embeddings"},
        {"{\"model_type\":\"detr\"}", "learned or sinusoidal"},
        {"{\"model_type\":\"deberta\"}", "relative position embeddings"},
        {"{\"model_type\":\"wav2vec2\"}", "convolutional position embeddings"},
        {"{\"model_type\":\"t5\"}", "T5's relative position bias"},
        {"{\"model_type\":\"bloom\"}", "ALiBi"},
        {"{\"model_type\":\"mpt\"}", "ALiBi"},
        {"{\"model_type\":\"jais\",\"position_embedding_type\":\"alibi\"}", "ALiBi"},
        {"{\"model_type\":\"falcon\",\"alibi\":true}", "alibi is true"},
        {"{\"model_type\":\"baichuan\",\"hidden_size\":5120,\"num_attention_heads\":40}", "ALiBi"},
        {"{\"model_type\":\"jamba\"}", "no position embedding"},
        {"{\"model_type\":\"nemotron_h\"}", "no position embedding"},
        {"{\"model_type\":\"kimi_linear\"}", "no position embedding"},
        {"{\"model_type\":\"zamba\"}", "no position embedding"},
        {"{\"model_type\":\"zamba2\"}", "use_mem_rope is absent"},
        {"{\"model_type\":\"granitemoehybrid\",\"position_embedding_type\":\"nope\"}",
         "position_embedding_type is nope"},
        {"{\"model_type\":\"esm\",\"position_embedding_type\":\"absolute\"}",
         "learned position embeddings"},
        {"{\"model_type\":\"qwen2_vl_vision\"}", "image patches"},
        {"{\"model_type\":\"ernie4_5_vl_moe\"}", "order of axes"},
        {"{\"model_type\":\"clvp_encoder\"}", "rotates v"},
        {"{\"model_type\":\"esmfold2\"}", "atoms"},
        {"{\"model_type\":\"lightglue\"}", "keypoints"},
        {"{\"model_type\":\"musicflamingo\"}", "timestamps"},
        {"{\"model_type\":\"wav2vec2-conformer\"}", "before q and k"},
        {"{\"model_type\":\"qwen2_5_omni_dit\"}", "only the first head"},
        {"{\"model_type\":\"qwen2_5_omni_token2wav\"}", "only the first head"},
        {"{\"model_type\":\"qwen2_5_omni_token2wav\",\"dit_config\":{\"head_dim\":64}}",
         "qwen2_5_omni_dit rotates only the first head, by interleaved pairs"},
        {"{\"model_type\":\"blt\"}", "consists of other models"},
        {"{\"model_type\":\"blip-2\"}", "opt has learned position embeddings"},
        {"{\"model_type\":\"olmo_hybrid\",\"rope_parameters\":{\"rope_theta\":null,"
         "\"rope_type\":\"default\"}}",
         "rope_theta is null"},
        {"{\"model_type\":\"roformer\",\"rotary_value\":true}", "rotary_value"},
        {"{\"model_type\":\"chatglm\",\"position_encoding_2d\":true}", "position_encoding_2d"},
        {"{\"model_type\":\"phi3small\",\"rope_position_scale\":2}", "rope_position_scale"},
        {"{\"model_type\":\"molmo2_text\",\"rope_scaling_layers\":[0],\"rope_scaling\":{"
         "\"rope_type\":\"linear\",\"factor\":2}}",
         "rope_scaling_layers"},
        {"{\"model_type\":\"hunyuan_vl_text\",\"rope_scaling\":{\"type\":\"xdrope\",\"alpha\":1000,"
         "\"factor\":1,\"xdrope_section\":[16,16,16,16]}}",
         "two axes"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        rwt_assert_model_refused(&(rwt_model_text){.text = rows[i][0]}, rows[i][1]);
}

/* The same models, with a field that enables a rotary embedding. */
static void test_switched_on(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{\"model_type\":\"esm\",\"position_embedding_type\":\"rotary\"}",
        "{\"model_type\":\"granitemoehybrid\",\"position_embedding_type\":\"rope\"}",
        "{\"model_type\":\"zamba2\",\"use_mem_rope\":true}",
        "{\"model_type\":\"baichuan\",\"hidden_size\":4096}",
        "{\"model_type\":\"blip-2\",\"text_config\":{\"model_type\":\"llama\"}}",
    };
    static const int64_t head_dims[] = {64, 128, 160, 128, 128};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        rwt_model config = rwt_read_model(texts[i], NULL);
        assert_int_equal(config.spec.head_dim, head_dims[i]);
        rwt_model_free(&config);
    }
}

/* A model of several parts returns its language model's config, or the defaults of that model's
 * class. */
static void test_composite_models(void **state) {
    (void)state;
    static const struct {
        const char *text;
        const char *model_type;
        int64_t head_dim;
        double theta;
    } rows[] = {
        {"{\"model_type\":\"llava\"}", "llama", 128, 10000},
        {"{\"model_type\":\"llava\",\"text_config\":{\"model_type\":\"mistral\","
         "\"rope_theta\":1e6}}",
         "mistral", 128, 1e6},
        {"{\"model_type\":\"qwen2_5_omni\",\"thinker_config\":{\"text_config\":{"
         "\"head_dim\":64}}}",
         "qwen2_5_omni_text", 64, 1e6},
        {"{\"model_type\":\"qwen2_vl\",\"hidden_size\":1536,\"num_attention_heads\":12,"
         "\"rope_theta\":5e5}",
         "qwen2_vl_text", 128, 5e5},
        {"{\"model_type\":\"llava\",\"hidden_size\":64}", "llama", 128, 10000},
        {"{\"model_type\":\"t5gemma\"}", "t5_gemma_module", 256, 10000},
        {"{\"model_type\":\"pi0\"}", "gemma", 256, 10000},
        {"{\"model_type\":\"unheard-of\",\"llm_config\":{\"model_type\":\"qwen3\"}}", "qwen3", 128,
         10000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rwt_model config = rwt_read_model(rows[i].text, NULL);
        assert_string_equal(config.model_type, rows[i].model_type);
        assert_int_equal(config.spec.head_dim, rows[i].head_dim);
        rwt_assert_near(config.spec.theta, rows[i].theta);
        rwt_model_free(&config);
    }
}

/* ---- fields ---- */

static void test_names_of_old_files(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t rotary_dim;
        double theta;
    } rows[] = {
        {"{\"model_type\":\"stablelm_epoch\",\"rope_pct\":0.5}", 40, 10000},
        {"{\"model_type\":\"gpt_neox\",\"rotary_pct\":0.5,\"rotary_emb_base\":20000}", 48, 20000},
        {"{\"model_type\":\"phi3small\",\"rope_embedding_base\":500000}", 128, 500000},
        {"{\"model_type\":\"dbrx\",\"attn_config\":{\"rope_theta\":500000}}", 128, 500000},
        {"{\"model_type\":\"nomic_bert\",\"rotary_emb_base\":2000,\"rotary_emb_fraction\":0.5}", 32,
         2000},
        {"{\"model_type\":\"minimax_m2\",\"rotary_dim\":64}", 64, 5000000},
        /* Llama's class has no partial_rotary_factor, Phi's has */
        {"{\"model_type\":\"llama\",\"partial_rotary_factor\":0.5}", 128, 10000},
        {"{\"model_type\":\"phi\",\"partial_rotary_factor\":0.25}", 16, 10000},
        {"{\"model_type\":\"gptj\",\"n_embd\":4096,\"n_head\":16}", 64, 10000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rwt_model config = rwt_read_model(rows[i].text, NULL);
        rw_rope_frequency_list list = {0};
        assert_int_equal(rw_rope_frequencies(&config.spec, 0, &list, NULL), RW_OK);
        assert_int_equal(2 * list.count, rows[i].rotary_dim);
        rwt_assert_near(config.spec.theta, rows[i].theta);
        rwt_model_free(&config);
    }
}

/* Phi-3.5-MoE, Hunyuan, heads without a matching even number of columns, weights, NanoChat. */
static void test_scalings_of_their_own(void **state) {
    (void)state;
    static const char phimoe[] =
        "{\"model_type\":\"phimoe\",\"head_dim\":4,\"max_position_embeddings\":64,"
        "\"original_max_position_embeddings\":8,\"rope_scaling\":{\"type\":\"longrope\","
        "\"short_factor\":[1,2],\"long_factor\":[3,4],\"short_mscale\":1.25,"
        "\"long_mscale\":1.5}}";
    double factor;
    rwt_model config = rwt_read_model(phimoe, NULL);
    rwt_assert_near(rwt_model_frequency(&config, 8, 0, &factor), 1);
    rwt_assert_near(factor, 1.25);
    rwt_assert_near(rwt_model_frequency(&config, 9, 0, &factor), 1.0 / 3);
    rwt_assert_near(factor, 1.5);
    rwt_model_free(&config);
    config = rwt_read_model("{\"model_type\":\"hunyuan_v1_moe\",\"head_dim\":64,\"rope_scaling\":{"
                            "\"type\":\"dynamic\",\"alpha\":1000,\"factor\":1}}",
                            NULL);
    assert_int_equal(config.spec.type, RW_ROPE_DEFAULT);
    rwt_assert_near(config.spec.theta, 1e4 * pow(1000, 64.0 / 62));
    rwt_model_free(&config);
    /* half of 42 columns is rotated: 21, of which the last is paired with a 22nd */
    config = rwt_read_model("{\"model_type\":\"glm4_moe\"}", NULL);
    assert_int_equal(config.spec.rotary_dim, 22);
    rwt_assert_near(rwt_model_frequency(&config, 0, 10, NULL), pow(1e4, -20.0 / 21));
    rwt_model_free(&config);
    config = rwt_read_model("{\"model_type\":\"mistral_large4\"}", NULL);
    assert_string_equal(config.learned_scale, "rotary_emb.alpha");
    rwt_model_free(&config);
    config = rwt_read_model("{\"model_type\":\"nanochat\"}", NULL);
    assert_true(config.inverse);
    rwt_model_free(&config);
    rwt_assert_model_refused(&(rwt_model_text){.text = "{\"model_type\":\"hunyuan_v1_dense\","
                                                       "\"head_dim\":2,\"rope_scaling\":{\"type\":"
                                                       "\"dynamic\",\"alpha\":2,\"factor\":1}}"},
                             "alpha");
    rwt_assert_model_refused(
        &(rwt_model_text){.text = "{\"model_type\":\"gptj\",\"rotary_dim\":3}"}, "rotary_dim");
    rwt_assert_model_refused(
        &(rwt_model_text){.text = "{\"model_type\":\"llama\",\"head_dim\":65}"},
        "head_dim is 65, expected an even number");
    rwt_assert_model_refused(
        &(rwt_model_text){.text = "{\"model_type\":\"deepseek_v3\",\"qk_rope_head_dim\":33}"},
        "qk_rope_head_dim is 33, expected an even number");
    rwt_assert_model_refused(&(rwt_model_text){.text =
                                                   "{\"model_type\":\"glm4_moe\",\"rope_scaling\":{"
                                                   "\"type\":\"dynamic\",\"factor\":2}}"},
                             "even");
}

static void test_axes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        rw_rope_axes axes;
        int64_t sections[3];
    } rows[] = {
        {"{\"model_type\":\"qwen2_vl_text\"}", RW_ROPE_AXES_MROPE_CHUNKED, {16, 24, 24}},
        {"{\"model_type\":\"qwen3_vl_text\"}", RW_ROPE_AXES_MROPE_INTERLEAVED, {24, 20, 20}},
        {"{\"model_type\":\"qwen3_omni_moe_talker_text\",\"head_dim\":128,\"rope_scaling\":{"
         "\"interleaved\":true,\"mrope_section\":[24,20,20],\"rope_type\":\"default\"}}",
         RW_ROPE_AXES_MROPE_INTERLEAVED,
         {24, 20, 20}},
        {"{\"model_type\":\"cosmos3_edge\"}", RW_ROPE_AXES_MROPE_INTERLEAVED, {24, 20, 20}},
        {"{\"model_type\":\"hy_v4_vl\"}", RW_ROPE_AXES_MROPE_INTERLEAVED, {12, 10, 10}},
        /* h and w end with their sections, the remaining frequencies belong to t */
        {"{\"model_type\":\"qwen4_exp_text\"}", RW_ROPE_AXES_MROPE_INTERLEAVED, {107, 11, 10}},
        /* a class with one id for each token ignores sections */
        {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"default\",\"mrope_section\":["
         "16,24,24]}}",
         RW_ROPE_AXES_ONE,
         {0, 0, 0}},
        {"{\"model_type\":\"neomme\"}", RW_ROPE_AXES_2D_INTERLEAVED, {0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rwt_model config = rwt_read_model(rows[i].text, NULL);
        if (config.spec.axes != rows[i].axes)
            fail_msg("%s: axes %d", rows[i].text, config.spec.axes);
        for (int axis = 0; axis < 3; axis++)
            assert_int_equal(config.spec.sections[axis], rows[i].sections[axis]);
        rwt_model_free(&config);
    }
    /* files of unknown models state it themselves */
    static const char unknown[] =
        "{\"head_dim\":128,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"default\","
        "\"interleaved\":true,\"mrope_section\":[24,20,20]}}";
    rwt_model config;
    rw_message message;
    const rwt_model_text source = {.text = unknown, .pairing = &half};
    assert_int_equal(rwt_parse_model(source, &config, &message), RW_OK);
    assert_int_equal(config.spec.axes, RW_ROPE_AXES_MROPE_INTERLEAVED);
    rwt_model_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_pairings),
        cmocka_unit_test(test_unknown_models),
        cmocka_unit_test(test_without_rope),
        cmocka_unit_test(test_switched_on),
        cmocka_unit_test(test_composite_models),
        cmocka_unit_test(test_axes),
        cmocka_unit_test(test_names_of_old_files),
        cmocka_unit_test(test_scalings_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
