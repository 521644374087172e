/* The attention of models, and positions that are not rotary: the classes of transformers 5.24.
 *
 * golden/attention.json: for each file, what the class made of it: the kinds of layers, the index
 * of each layer's kind, the norm [1 for LayerNorm, epsilon, offset of the weight, cast], and rows of
 * learned positions, T5 and ALiBi where the model has them.
 */
#include "harness/io_support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "harness/harness.h"
#include "harness/model_support.h"

static rw_model *read_text(const char *text) {
    const rw_model_source source = {.text = text, .text_bytes = (int64_t)strlen(text)};
    rw_model *model;
    rw_message message = {""};
    if (rw_model_read(&source, &model, &message) != RW_OK)
        fail_msg("%s: %s", text, message.text);
    return model;
}

static double at(const json_t *list, size_t index) {
    return json_number_value(json_array_get(list, index));
}

static void check(const char *text, const char *what, double got, double expected) {
    if (!(fabs(got - expected) <= 1e-12 * fabs(expected)))
        fail_msg("%s: %s is %.17g, expected %.17g", text, what, got, expected);
}

static void check_layer(const char *text, const rw_model_layer *layer, const json_t *kind) {
#define FIELD(name)                                                                                \
    { #name, (double)layer->name }
    const struct {
        const char *name;
        double value;
    } fields[] = {
        FIELD(num_heads),   FIELD(num_kv_heads), FIELD(head_dim), FIELD(v_head_dim),
        FIELD(rope_begin),  FIELD(kv_rank),      FIELD(softcap),  FIELD(window),
        FIELD(chunk),       FIELD(causal),       FIELD(sinks),    FIELD(qk_norm),
        FIELD(query_floor), FIELD(query_scale),
    };
#undef FIELD
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        check(text, fields[i].name, fields[i].value,
              json_number_value(json_object_get(kind, fields[i].name)));
    check(text, "softmax_scale", layer->softmax_scale,
          json_number_value(json_object_get(kind, "scale")));
}

static void check_norm(const char *text, const rw_model_info *info, const json_t *norm) {
    if (json_is_null(norm))
        return;
    check(text, "norm", info->norm, at(norm, 0));
    check(text, "norm_eps", info->norm_eps, at(norm, 1));
    check(text, "norm_weight_offset", info->norm_weight_offset, at(norm, 2));
    check(text, "norm_cast", info->norm_cast, at(norm, 3));
}

static void check_positions(const char *text, const rw_model_info *info, const json_t *row) {
    const json_t *rows = json_object_get(row, "learned_rows"), *t5 = json_object_get(row, "t5");
    const json_t *alibi = json_object_get(row, "alibi_factor");
    rw_model_positions kind = RW_POSITIONS_ROPE;
    if (rows || t5 || alibi)
        kind = rows ? RW_POSITIONS_LEARNED : t5 ? RW_POSITIONS_T5 : RW_POSITIONS_ALIBI;
    check(text, "positions", info->positions, kind);
    check(text, "learned_rows", (double)info->learned_rows, rows ? json_number_value(rows) : -1);
    check(text, "learned_offset", (double)info->learned_offset,
          rows ? json_number_value(json_object_get(row, "learned_offset")) : -1);
    check(text, "t5_num_buckets", (double)info->t5_num_buckets, t5 ? at(t5, 0) : -1);
    check(text, "t5_max_distance", (double)info->t5_max_distance, t5 ? at(t5, 1) : -1);
    check(text, "t5_every_layer", info->t5_every_layer, t5 ? at(t5, 2) : -1);
    check(text, "alibi_factor", info->alibi_factor, alibi ? json_number_value(alibi) : -1);
}

static void check_row(const json_t *row) {
    char *text = json_dumps(json_object_get(row, "config"), JSON_REAL_PRECISION(17));
    const json_t *layers = json_object_get(row, "layers"), *kinds = json_object_get(row, "kinds");
    const json_t *activation = json_object_get(row, "activation");
    rw_model *model = read_text(text);
    const rw_model_info *info = rw_model_get_info(model);
    check(text, "attention_known", info->attention_known, 1);
    check(text, "num_layers", (double)info->num_layers, (double)json_array_size(layers));
    for (int64_t i = 0; i < info->num_layers; i++)
        check_layer(text, rw_model_get_layer(model, i),
                    json_array_get(kinds, (size_t)at(layers, (size_t)i)));
    check(text, "hidden_size", (double)info->hidden_size,
          json_number_value(json_object_get(row, "hidden_size")));
    check(text, "activation_limit", info->activation_limit, at(activation, 0));
    check(text, "activation_alpha", info->activation_alpha, at(activation, 1));
    check(text, "activation_up_offset", info->activation_up_offset, at(activation, 2));
    check_norm(text, info, json_object_get(row, "norm"));
    check_positions(text, info, row);
    rw_model_free(model);
    free(text);
}

static void test_classes(void **state) {
    (void)state;
    json_t *rows = json_load_file(RWT_DATA "/golden/attention.json", 0, NULL);
    assert_in_range(json_array_size(rows), 90, 200);
    for (size_t i = 0; i < json_array_size(rows); i++)
        check_row(json_array_get(rows, i));
    json_decref(rows);
}

/* What neither the file nor the class states is unknown, not Llama's. */
static void test_unknown(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{\"model_type\":\"zamba2\",\"use_mem_rope\":true}",
        "{\"model_type\":\"jamba\"}",
        "{\"model_type\":\"gemma2\",\"use_bidirectional_attention\":true}",
        "{\"model_type\":\"qwen2_moe\",\"use_sliding_window\":true}",
        "{\"model_type\":\"clip_text_model\",\"num_hidden_layers\":2,\"num_attention_heads\":8}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        rw_model *model = read_text(texts[i]);
        const rw_model_info *info = rw_model_get_info(model);
        assert_int_equal(info->attention_known, 0);
        assert_int_equal(info->norm, RW_MODEL_NORM_UNKNOWN);
        assert_true(info->norm_eps == RW_MODEL_UNKNOWN);
        assert_true(info->activation_alpha == RW_MODEL_UNKNOWN);
        assert_int_equal(info->learned_offset, RW_MODEL_UNKNOWN);
        for (int64_t n = 0; n < info->num_layers; n++) {
            const rw_model_layer *layer = rw_model_get_layer(model, n);
            assert_true(layer->softmax_scale == RW_MODEL_UNKNOWN);
            assert_int_equal(layer->window, RW_MODEL_UNKNOWN);
            assert_int_equal(layer->causal, RW_MODEL_UNKNOWN);
            assert_int_equal(layer->qk_norm, RW_QK_NORM_UNKNOWN);
            assert_int_equal(layer->v_head_dim, RW_MODEL_UNKNOWN);
        }
        rw_model_free(model);
    }
    rw_model *model = read_text(texts[4]);
    assert_int_equal(rw_model_get_info(model)->num_layers, 2);
    assert_int_equal(rw_model_get_layer(model, 0)->num_heads, 8);
    assert_int_equal(rw_model_get_layer(model, 0)->head_dim, RW_MODEL_UNKNOWN);
    rw_model_free(model);
}

/* Layers that are not attention, and two embeddings of one model. */
static void test_layers(void **state) {
    (void)state;
    rw_model *model = read_text("{\"model_type\":\"qwen3_next\",\"num_hidden_layers\":4}");
    assert_int_equal(rw_model_get_layer(model, 0)->has_rope, 0);
    assert_int_equal(rw_model_get_layer(model, 0)->num_heads, RW_MODEL_UNKNOWN);
    assert_int_equal(rw_model_get_layer(model, 3)->num_heads, 16);
    assert_int_equal(rw_model_get_info(model)->num_ropes, 1);
    rw_model_free(model);
    model = read_text("{\"model_type\":\"gemma3_text\",\"num_hidden_layers\":6}");
    assert_int_equal(rw_model_get_info(model)->num_ropes, 2);
    const rw_model_rope *first = rw_model_get_rope(model, rw_model_get_layer(model, 0)->rope);
    const rw_model_rope *last = rw_model_get_rope(model, rw_model_get_layer(model, 5)->rope);
    assert_true(first->spec.theta == 10000 && last->spec.theta == 1e6);
    rw_model_free(model);
    model = read_text("{\"model_type\":\"gemma4_text\"}");
    assert_int_equal(rw_model_get_layer(model, 0)->head_dim, 256);
    assert_int_equal(rw_model_get_layer(model, 5)->head_dim, 512);
    rw_model_free(model);
    model = read_text("{\"model_type\":\"deepseek_v4\",\"layer_types\":[\"sliding_attention\","
                      "\"compressed_sparse_attention\"]}");
    const rw_model_rope *of_main;
    assert_int_equal(rw_model_find_rope(model, "main", &of_main, NULL), RW_OK);
    assert_ptr_equal(of_main, rw_model_get_rope(model, rw_model_get_layer(model, 0)->rope));
    assert_ptr_not_equal(of_main, rw_model_get_rope(model, rw_model_get_layer(model, 1)->rope));
    rw_model_free(model);
    /* as many embeddings as types of layers would be two */
    model = read_text("{\"model_type\":\"gemma2\",\"layer_types\":[\"sliding_attention\","
                      "\"full_attention\"]}");
    assert_int_equal(rw_model_get_info(model)->num_ropes, 1);
    rw_model_free(model);
}

/* A folder, bytes without NUL, and every invalid source. */
static void test_sources(void **state) {
    (void)state;
    static const char text[] = "{\"model_type\":\"llama\"}trailing";
    static const rw_rope_pairing invalid = (rw_rope_pairing)7;
    rwt_folder folder;
    rw_message message;
    rw_model *model;
    rwt_folder_make(&folder);
    rwt_write_file(rwt_path(folder.path, "config.json"), text, 22);
    assert_int_equal(rw_model_read(&(rw_model_source){.path = folder.path}, &model, &message),
                     RW_OK);
    rw_model_free(model);
    assert_int_equal(
        rw_model_read(&(rw_model_source){.text = text, .text_bytes = 22}, &model, NULL), RW_OK);
    rw_model_free(model);
    rw_model_free(NULL);
    const rw_model_source refused[] = {
        {.path = NULL},
        {.text = text, .text_bytes = -1},
        {.path = folder.path, .text_bytes = 3},
        {.text = text, .text_bytes = 22, .pairing = &invalid},
        {.text = text, .text_bytes = 23},
        {.path = "/nowhere"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        message.text[0] = '\0';
        assert_int_equal(rw_model_read(&refused[i], &model, &message), RW_INVALID_ARGUMENT);
        assert_null(model);
        rwt_assert_sentence(message.text);
        assert_int_equal(rw_model_read(&refused[i], &model, NULL), RW_INVALID_ARGUMENT);
    }
    rwt_folder_remove(&folder);
}

/* Numbers of layers and ids must be integers that int64_t holds. */
static void test_integers(void **state) {
    (void)state;
    static const char *const values[] = {"1e32", "28.5", "-1", "9007199254740994"};
    static const char *const fields[][2] = {
        {"\"model_type\":\"qwen2\",\"use_sliding_window\":true,", "max_window_layers"},
        {"\"model_type\":\"roberta\",", "pad_token_id"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char text[160];
        for (size_t n = 0; n < sizeof values / sizeof values[0]; n++) {
            snprintf(text, sizeof text, "{%s\"%s\":%s}", fields[i][0], fields[i][1], values[n]);
            rwt_assert_model_refused(&(rwt_model_text){.text = text}, fields[i][1]);
        }
        snprintf(text, sizeof text, "{%s\"%s\":0.0}", fields[i][0], fields[i][1]);
        const rw_model_source source = {.text = text, .text_bytes = (int64_t)strlen(text)};
        rw_model *model;
        assert_int_equal(rw_model_read(&source, &model, NULL), RW_OK);
        rw_model_free(model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),  cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_layers),   cmocka_unit_test(test_sources),
        cmocka_unit_test(test_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
