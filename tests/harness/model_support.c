#include "harness/model_support.h"

#include <math.h>
#include <string.h>

/* Fails unless what the model states about its layers is consistent. */
static void check_layers(const rw_model *model) {
    const rw_model_info *info = rw_model_get_info(model);
    for (int64_t i = 0; i < info->num_layers; i++) {
        const rw_model_layer *layer = rw_model_get_layer(model, i);
        assert_non_null(layer->type);
        assert_true((layer->has_rope == 1) == (layer->rope >= 0));
        assert_in_range(layer->rope + 1, 0, info->num_ropes);
    }
    assert_null(rw_model_get_layer(model, info->num_layers));
    assert_null(rw_model_get_layer(model, -1));
    assert_null(rw_model_get_rope(model, info->num_ropes));
    assert_null(rw_model_get_rope(model, -1));
}

rw_status rwt_parse_model(rwt_model_text text, rwt_model *model, rw_message *message) {
    const rw_model_source source = {.path = text.path ? text.path : "config.json",
                                    .text = text.text,
                                    .text_bytes = text.text ? (int64_t)strlen(text.text) : 0,
                                    .pairing = text.pairing};
    const rw_model_rope *rope;
    *model = (rwt_model){0};
    message->text[0] = '\0';
    rw_status status = rw_model_read(&source, &model->model, message);
    if (status != RW_OK) {
        assert_null(model->model);
        return status;
    }
    check_layers(model->model);
    status = rw_model_find_rope(model->model, text.layer_type, &rope, message);
    if (status != RW_OK) {
        assert_null(rope);
        rwt_model_free(model);
        return status;
    }
    model->info = rw_model_get_info(model->model);
    model->model_type = model->info->model_type;
    model->spec = rope->spec;
    model->inverse = rope->inverse;
    model->learned_scale = rope->learned_scale;
    model->num_heads = rope->num_heads;
    model->num_kv_heads = rope->num_kv_heads;
    return RW_OK;
}

rwt_model rwt_read_model(const char *text, const char *layer_type) {
    rwt_model model;
    rw_message message;
    if (rwt_parse_model((rwt_model_text){.text = text, .layer_type = layer_type}, &model,
                        &message) != RW_OK)
        fail_msg("%s: %s", text, message.text);
    return model;
}

void rwt_model_free(rwt_model *model) {
    rw_model_free(model->model);
    *model = (rwt_model){0};
}

int64_t rwt_model_layers_without_rope(const rwt_model *model) {
    int64_t count = 0;
    for (int64_t i = 0; i < model->info->num_layers; i++)
        count += rw_model_get_layer(model->model, i)->has_rope == 0;
    return count;
}

void rwt_assert_model_refused(const rwt_model_text *source, const char *word) {
    rwt_model model;
    rw_message message;
    if (rwt_parse_model(*source, &model, &message) != RW_INVALID_ARGUMENT)
        fail_msg("accepted %s", source->text);
    rwt_assert_sentence(message.text);
    if (!strstr(message.text, word))
        fail_msg("%s, expected \"%s\"", message.text, word);
}

void rwt_assert_near(double got, double expected) {
    if (!(fabs(got - expected) <= 1e-6 * fabs(expected)))
        fail_msg("got %.17g, expected %.17g", got, expected);
}

double rwt_model_frequency(const rwt_model *model, int64_t seq_len, int at, double *factor) {
    double inv_freq[512];
    rw_message message;
    rw_rope_frequency_list list = {.inv_freq = inv_freq, .capacity = 512};
    if (rw_rope_frequencies(&model->spec, seq_len, &list, &message) != RW_OK)
        fail_msg("%s", message.text);
    assert_in_range(at, 0, list.count - 1);
    if (factor)
        *factor = list.attention_factor;
    return inv_freq[at];
}
