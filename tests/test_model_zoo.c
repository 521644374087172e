/* The classes of transformers 5.24 with their default configs: frequencies, attention factors and
 * pairings must be those of the classes; or a sentence must give the reason for the refusal.
 *
 * golden/zoo.json: one row for each class, with the fields of its config that concern the
 * embedding, and what the class computes from them in float32 for each type of layers. A null
 * pairing is a rotation that is specific to the class.
 */
#include "harness/io_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "harness/harness.h"
#include "harness/model_support.h"

#define MAX_FREQUENCIES 512

/* Classes whose defaults have no rotary embedding, or one that is not supported. */
static const struct refusal {
    const char *model_type;
    const char *because;
} refusals[] = {
    {"ernie4_5_vl_moe_text", "order of axes"},
    {"esm", "learned position embeddings"},
    {"granitemoehybrid", "no position embedding"},
    {"qwen3_omni_moe_text", "head_dim is 73"}, /* 37 pairs in a head of 73 columns */
};

/* Rotations that are specific to a class. */
static const struct own_rotation {
    const char *model_type;
    rw_rope_pairing pairing;
    rw_rope_axes axes;
    bool inverse;
} own_rotations[] = {
    {.model_type = "axk2", .pairing = RW_ROPE_INTERLEAVED},
    {.model_type = "deepseek_v32", .pairing = RW_ROPE_INTERLEAVED},
    {.model_type = "diffusion_gemma_text"},
    {.model_type = "dots3_note_text", .pairing = RW_ROPE_INTERLEAVED},
    {.model_type = "gemma4_text"},
    {.model_type = "gemma4_unified_text"},
    /* the class's sections do not fit its default heads, so that only text can be rotated */
    {.model_type = "glm4v_moe_text"},
    {.model_type = "glm4v_text", .pairing = RW_ROPE_INTERLEAVED},
    {.model_type = "hunyuan_vl_text"},
    {.model_type = "llama4_text", .pairing = RW_ROPE_INTERLEAVED},
    {.model_type = "nanochat", .inverse = true},
    {.model_type = "neomme", .axes = RW_ROPE_AXES_2D_INTERLEAVED},
};

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static const char *reason_to_refuse(const char *model_type) {
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++)
        if (strcmp(refusals[i].model_type, model_type) == 0)
            return refusals[i].because;
    return NULL;
}

static bool near(double got, double expected) {
    return fabs(got - expected) <= 1e-6 * fabs(expected);
}

static void check_frequencies(const char *name, const rwt_model *config, const json_t *layer) {
    double inv_freq[MAX_FREQUENCIES];
    rw_rope_frequency_list list = {.inv_freq = inv_freq, .capacity = MAX_FREQUENCIES};
    rw_message message = {""};
    const json_t *expected = json_object_get(layer, "inv_freq");
    double factor = json_number_value(json_object_get(layer, "attention_factor"));
    if (rw_rope_frequencies(&config->spec, 0, &list, &message) != RW_OK)
        fail_msg("%s: %s", name, message.text);
    if ((size_t)list.count != json_array_size(expected))
        fail_msg("%s: %lld frequencies, expected %zu", name, (long long)list.count,
                 json_array_size(expected));
    if (!near(list.attention_factor, factor))
        fail_msg("%s: attention factor %.9g, expected %.9g", name, list.attention_factor, factor);
    for (int64_t i = 0; i < list.count; i++) {
        double theirs = json_number_value(json_array_get(expected, (size_t)i));
        if (!near(inv_freq[i], theirs))
            fail_msg("%s: frequency %lld is %.9g, expected %.9g", name, (long long)i, inv_freq[i],
                     theirs);
    }
}

static void check_rotation(const char *name, const rwt_model *config, const json_t *layer) {
    const char *pairing = text_of(layer, "pairing");
    const struct own_rotation *own = NULL;
    for (size_t i = 0; i < sizeof own_rotations / sizeof own_rotations[0]; i++)
        if (strcmp(own_rotations[i].model_type, name) == 0)
            own = &own_rotations[i];
    if (pairing) {
        if (strcmp(rw_rope_pairing_name(config->spec.pairing), pairing) != 0)
            fail_msg("%s: pairing %s, expected %s", name,
                     rw_rope_pairing_name(config->spec.pairing), pairing);
        assert_false(config->inverse);
        return;
    }
    if (!own)
        fail_msg("%s: no pairing is known", name);
    assert_int_equal(config->spec.pairing, own->pairing);
    assert_int_equal(config->spec.axes, own->axes);
    assert_int_equal(config->inverse, own->inverse);
}

/* Returns whether it was read. */
static bool check_layer(const char *name, const char *text, const json_t *layer) {
    const rwt_model_text source = {
        .path = name, .text = text, .layer_type = text_of(layer, "layer_type")};
    const char *because = reason_to_refuse(name);
    rwt_model config;
    rw_message message = {""};
    rw_status status = rwt_parse_model(source, &config, &message);
    if (because) {
        assert_int_equal(status, RW_INVALID_ARGUMENT);
        rwt_assert_sentence(message.text);
        if (!strstr(message.text, because))
            fail_msg("%s, expected \"%s\"", message.text, because);
        return false;
    }
    if (status != RW_OK)
        fail_msg("%s", message.text);
    assert_string_equal(config.model_type, name);
    check_frequencies(name, &config, layer);
    check_rotation(name, &config, layer);
    rwt_model_free(&config);
    return true;
}

static void check_class(const json_t *row, int *read, int *refused) {
    const char *name = text_of(row, "model_type");
    const json_t *layers = json_object_get(row, "layers");
    char *text = json_dumps(json_object_get(row, "config"), JSON_REAL_PRECISION(17));
    assert_non_null(text);
    bool was_read = true;
    for (size_t i = 0; i < json_array_size(layers); i++)
        was_read = check_layer(name, text, json_array_get(layers, i)) && was_read;
    *(was_read ? read : refused) += 1;
    free(text);
}

static void test_zoo(void **state) {
    (void)state;
    json_t *zoo = json_load_file(RWT_DATA "/golden/zoo.json", 0, NULL);
    int read = 0, refused = 0;
    assert_int_equal(json_array_size(zoo), 122);
    for (size_t i = 0; i < json_array_size(zoo); i++)
        check_class(json_array_get(zoo, i), &read, &refused);
    assert_int_equal(read, 118);
    assert_int_equal(refused, 4);
    json_decref(zoo);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_zoo)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
