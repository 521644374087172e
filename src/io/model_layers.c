/* Types of layers, and layers without a rotary embedding.
 *
 * Source: transformers 5.24, __post_init__() of the configurations and the conditions around
 * apply_rotary_pos_emb() in the modeling files. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io_error.h"
#include "model_reader.h"

static const char full[] = "full_attention";
static const char sliding[] = "sliding_attention";

static const char *type_of_letter(char letter) {
    switch (letter) {
    case 'S':
        return sliding;
    case 'L':
        return "linear_attention";
    case 'I':
        return "indexed_attention";
    case 'K':
        return "chunked_attention";
    case 'C':
        return "conv";
    default:
        return full;
    }
}

bool rwi_model_attends(const char *type) {
    static const char *const others[] = {"linear_attention", "conv", "mamba", "mamba2",
                                         "recurrent",        "mlp",  "moe",   "cross_attention"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(type, others[i]) == 0)
            return false;
    return true;
}

int64_t rwi_model_count_layers(rwi_model_reader *reader) {
    static const char *const keys[] = {
        "num_hidden_layers",         "n_layer", "n_layers", "num_layers",
        "decoder_num_hidden_layers", NULL};
    int64_t count = rwi_json_length(&reader->json, rwi_model_alias(reader, keys),
                                    rwi_model_default(reader, reader->model->num_layers, 32));
    if (count > RWI_MAX_LAYERS)
        rwi_json_fail(&reader->json, "the model has %lld layers, expected at most %d",
                      (long long)count, RWI_MAX_LAYERS);
    return reader->json.status == RW_OK ? count : 0;
}

/* Allocates `count` layers, all with a rotary embedding. */
static bool make_layers(rwi_model_reader *reader, int64_t count) {
    rwi_model_config *config = reader->result;
    if (count == 0)
        return false;
    config->layers = calloc((size_t)count, sizeof *config->layers);
    if (!config->layers) {
        reader->json.status = rwi_io_fail(reader->json.message, RW_OUT_OF_MEMORY,
                                          "no memory for %lld layers", (long long)count);
        return false;
    }
    config->num_layers = count;
    for (int64_t i = 0; i < count; i++)
        config->layers[i].has_rope = true;
    return true;
}

static void set_type(rwi_model_reader *reader, int64_t layer, const char *type) {
    rwi_layer_outline *to = &reader->result->layers[layer];
    snprintf(to->type, sizeof to->type, "%s", type);
    to->has_rope = rwi_model_attends(type);
}

static void read_listed_types(rwi_model_reader *reader, const json_t *types) {
    size_t count = json_array_size(types);
    if (count > RWI_MAX_LAYERS) {
        rwi_json_fail(&reader->json, "layer_types has %zu values, expected at most %d", count,
                      RWI_MAX_LAYERS);
        return;
    }
    if (!make_layers(reader, (int64_t)count))
        return;
    for (size_t i = 0; i < count; i++) {
        const char *type = rwi_json_text(json_array_get(types, i));
        if (!type)
            rwi_json_fail(&reader->json, "layer_types[%zu] is not a string without NUL", i);
        else if (strlen(type) >= RWI_LAYER_TYPE)
            rwi_json_fail(&reader->json, "layer_types[%zu] has %zu bytes, expected fewer than %d",
                          i, strlen(type), RWI_LAYER_TYPE);
        else
            set_type(reader, (int64_t)i, type);
    }
}

/* Layers whose numbers are listed have attention, the others are of another type. */
static void read_numbered_types(rwi_model_reader *reader, const json_t *numbers,
                                const char *others) {
    int64_t count = rwi_model_count_layers(reader);
    if (!make_layers(reader, count))
        return;
    for (int64_t i = 0; i < count; i++)
        set_type(reader, i, others);
    for (size_t i = 0; i < json_array_size(numbers); i++) {
        double number = json_number_value(json_array_get(numbers, i));
        if (number >= 0 && number < (double)count)
            set_type(reader, (int64_t)number, full);
    }
}

/* The number of letters of the model's types that repeat: all, or as the file states. */
static int64_t read_period(rwi_model_reader *reader) {
    const rwi_model_type *model = reader->model;
    int64_t letters = (int64_t)strlen(model->layers);
    if (!model->period_key ||
        json_is_string(rwi_json_value(rwi_model_field(reader, model->period_key))))
        return letters; /* EXAONE 4 lists the pattern explicitly: LLLG */
    return rwi_json_length(&reader->json, rwi_model_field(reader, model->period_key), letters);
}

/* The letter of a layer: "SSSF" over a period of 6 is SSSSSF, "FSS" is FSSSSS. */
static char letter_of(const rwi_model_type *model, int64_t layer, int64_t count, int64_t period) {
    int64_t letters = (int64_t)strlen(model->layers);
    if (model->first_layers && layer < (int64_t)strlen(model->first_layers))
        return model->first_layers[layer];
    if (model->last_layer && layer == count - 1)
        return model->last_layer;
    int64_t place = (model->layers_from_end ? count - 1 - layer : layer) % period;
    if (period == letters)
        return model->layers[place];
    if (model->layers[0] == 'F')
        return model->layers[place > 0 && letters > 1];
    return model->layers[place == period - 1 ? letters - 1 : 0];
}

static void derive_types(rwi_model_reader *reader) {
    const rwi_model_type *model = reader->model;
    int64_t count = rwi_model_count_layers(reader), period = read_period(reader);
    if (reader->json.status != RW_OK || !make_layers(reader, count))
        return;
    bool none_slides = model->nope == RWI_NOPE_FULL_BESIDE_SLIDING &&
                       json_is_null(json_object_get(reader->config, "sliding_window"));
    for (int64_t i = 0; i < count; i++)
        set_type(reader, i,
                 none_slides ? full : type_of_letter(letter_of(model, i, count, period)));
}

/* ---- without a rotary embedding ---- */

/* Llama 4 and SmolLM 3: one flag for each layer; by default every fourth layer has none. */
static void apply_no_rope_layers(rwi_model_reader *reader) {
    rwi_model_config *config = reader->result;
    const json_t *flags = rwi_json_array(&reader->json, rwi_model_field(reader, "no_rope_layers"));
    int64_t interval =
        rwi_json_length(&reader->json, rwi_model_field(reader, "no_rope_layer_interval"), 4);
    if (!config->layers && !make_layers(reader, rwi_model_count_layers(reader)))
        return;
    bool derive = json_array_size(flags) == 0;
    bool chunked = strcmp(config->model_type, "llama4_text") == 0;
    for (int64_t i = 0; i < config->num_layers; i++) {
        rwi_layer_outline *layer = &config->layers[i];
        layer->has_rope = derive ? (i + 1) % interval != 0
                                 : json_number_value(json_array_get(flags, (size_t)i)) != 0;
        if (layer->type[0] == '\0')
            snprintf(layer->type, sizeof layer->type, "%s",
                     chunked && layer->has_rope ? "chunked_attention" : full);
    }
}

/* Granite and Muse: the theta of each layer, 0 for none. If absent, Muse has none in the full
 * layers, whose number from the end is a multiple of four. */
static void apply_layer_thetas(rwi_model_reader *reader) {
    rwi_model_config *config = reader->result;
    const json_t *thetas =
        rwi_json_array(&reader->json, rwi_model_field(reader, "layer_rope_theta"));
    for (int64_t i = 0; i < config->num_layers; i++) {
        const json_t *theta = json_array_get(thetas, (size_t)i);
        if (theta && !json_is_number(theta) && !json_is_null(theta))
            rwi_json_fail(&reader->json, "layer_rope_theta[%lld] is not a number", (long long)i);
        if (thetas)
            config->layers[i].has_rope = json_number_value(theta) != 0;
        else if (reader->model->layers_from_end)
            config->layers[i].has_rope = (config->num_layers - 1 - i) % 4 != 0;
    }
}

/* Llama 3.2 Vision: layers that attend to an image rotate neither q nor k. */
static void apply_cross_attention_layers(rwi_model_reader *reader) {
    static const char of_class[] = "[3,8,13,18,23,28,33,38]";
    rwi_model_config *config = reader->result;
    const json_t *numbers =
        rwi_json_array(&reader->json, rwi_model_field(reader, "cross_attention_layers"));
    if (!numbers)
        numbers = rwi_model_parse(reader, of_class);
    if (!config->layers && !make_layers(reader, rwi_model_count_layers(reader)))
        return;
    for (int64_t i = 0; i < config->num_layers; i++)
        set_type(reader, i, full);
    for (size_t i = 0; i < json_array_size(numbers); i++) {
        const json_t *value = json_array_get(numbers, i);
        double number = json_number_value(value);
        if (!json_is_number(value))
            rwi_json_fail(&reader->json, "cross_attention_layers[%zu] is not a number", i);
        else if (number >= 0 && number < (double)config->num_layers && number == floor(number))
            set_type(reader, (int64_t)number, "cross_attention");
    }
}

/* Cohere 2 MoE rotates q and k in its dense layers of any attention type. */
static bool is_forced(const rwi_model_reader *reader, int64_t layer) {
    const json_t *pattern =
        rwi_json_value(rwi_model_field(reader, "prefix_dense_sliding_window_pattern"));
    if (strcmp(reader->result->model_type, "cohere2_moe") != 0 ||
        (pattern && json_number_value(pattern) != 1))
        return false;
    const json_t *types = rwi_json_value(rwi_model_field(reader, "mlp_layer_types"));
    const char *type = rwi_json_text(json_array_get(types, (size_t)layer));
    if (types)
        return type && strcmp(type, "dense") == 0;
    const json_t *dense = rwi_json_value(rwi_model_field(reader, "first_k_dense_replace"));
    return (double)layer < json_number_value(dense);
}

static void apply_full_without_rope(rwi_model_reader *reader) {
    const json_t *window = json_object_get(reader->config, "sliding_window");
    if (reader->model->nope == RWI_NOPE_FULL_BESIDE_SLIDING && json_is_null(window))
        return;
    for (int64_t i = 0; i < reader->result->num_layers; i++) {
        rwi_layer_outline *layer = &reader->result->layers[i];
        if (strcmp(layer->type, sliding) != 0 && !is_forced(reader, i))
            layer->has_rope = false;
    }
}

void rwi_model_read_layers(rwi_model_reader *reader) {
    static const char *const type_keys[] = {"layers_block_type", "layer_types", NULL};
    const json_t *types = rwi_json_value(rwi_model_alias(reader, type_keys));
    const json_t *hybrid = rwi_json_value(rwi_model_field(reader, "attn_layer_indices"));
    const json_t *full_ones = rwi_json_value(rwi_model_field(reader, "full_attn_idxs"));
    if (reader->json.status != RW_OK)
        return;
    if (json_is_array(types) && json_array_size(types) > 0)
        read_listed_types(reader, types);
    else if (json_is_array(full_ones))
        read_numbered_types(reader, full_ones, "conv");
    else if (json_is_array(hybrid))
        read_numbered_types(reader, hybrid, "mamba");
    else if (reader->model->layers)
        derive_types(reader);
    if (reader->json.status != RW_OK)
        return;
    switch (reader->model->nope) {
    case RWI_NOPE_NULL:
        break;
    case RWI_NOPE_FULL:
    case RWI_NOPE_FULL_BESIDE_SLIDING:
        apply_full_without_rope(reader);
        break;
    case RWI_NOPE_LISTED:
        apply_no_rope_layers(reader);
        break;
    case RWI_NOPE_THETA:
        apply_layer_thetas(reader);
        break;
    case RWI_NOPE_CROSS:
        apply_cross_attention_layers(reader);
        break;
    }
}

int64_t rwi_model_find_layer(const rwi_model_reader *reader, const char *type) {
    const rwi_model_config *config = reader->result;
    for (int64_t i = 0; i < config->num_layers; i++)
        if (strcmp(config->layers[i].type, type) == 0)
            return i;
    return -1;
}
