/* ropewalk frequencies: the frequencies that a config.json defines. */
#include <stdlib.h>

#include "cli.h"
#include "rotation.h"

static json_t *list_of(const double *values, int64_t count) {
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++)
        json_array_append_new(list, json_real(values[i]));
    return list;
}

/* The types of the layers, and the numbers of the layers without a rotary embedding. */
static void describe_layers(const cli_model *model, json_t *result) {
    json_t *types = json_array(), *without = json_array();
    for (int64_t i = 0; i < model->info->num_layers; i++) {
        const rw_model_layer *layer = rw_model_get_layer(model->model, i);
        if (layer->type[0]) /* else all layers are alike */
            json_array_append_new(types, json_string(layer->type));
        if (layer->has_rope == 0)
            json_array_append_new(without, json_integer((json_int_t)i));
    }
    json_object_set_new(result, "layer_types", types);
    json_object_set_new(result, "layers_without_rope", without);
}

static const char *const axes_names[] = {
    [RW_ROPE_AXES_ONE] = "one",
    [RW_ROPE_AXES_MROPE_CHUNKED] = "mrope_chunked",
    [RW_ROPE_AXES_MROPE_INTERLEAVED] = "mrope_interleaved",
    [RW_ROPE_AXES_VISION_2D] = "vision_2d",
    [RW_ROPE_AXES_2D_INTERLEAVED] = "2d_interleaved",
};

static json_t *describe(const cli_model *model, const rw_rope_frequency_list *list) {
    const rw_model_rope *config = model->rope;
    const rw_rope_spec *spec = &config->spec;
    json_t *result = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:s, s:b, s:f, s:I, s:f, s:o}", "model_type",
        model->info->model_type, "rope_type", rw_rope_type_name(spec->type), "head_dim",
        (json_int_t)spec->head_dim, "rotary_start", (json_int_t)spec->rotary_start, "rotary_dim",
        (json_int_t)(2 * list->count), "pairing", rw_rope_pairing_name(spec->pairing), "inverse",
        config->inverse, "rope_theta", spec->theta, "max_position_embeddings",
        (json_int_t)spec->max_position_embeddings, "attention_factor", list->attention_factor,
        "inv_freq", list_of(list->inv_freq, list->count));
    bool mrope =
        spec->axes == RW_ROPE_AXES_MROPE_CHUNKED || spec->axes == RW_ROPE_AXES_MROPE_INTERLEAVED;
    json_object_set_new(result, "axes", json_string(axes_names[spec->axes]));
    if (mrope)
        json_object_set_new(result, "mrope_section",
                            json_pack("[I, I, I]", (json_int_t)spec->sections[0],
                                      (json_int_t)spec->sections[1],
                                      (json_int_t)spec->sections[2]));
    if (mrope)
        json_object_set_new(result, "mrope_interleaved",
                            json_boolean(spec->axes == RW_ROPE_AXES_MROPE_INTERLEAVED));
    if (config->learned_scale)
        json_object_set_new(result, "learned_scale", json_string(config->learned_scale));
    json_object_set_new(result, "num_heads", json_integer((json_int_t)config->num_heads));
    json_object_set_new(result, "num_kv_heads", json_integer((json_int_t)config->num_kv_heads));
    describe_layers(model, result);
    return result;
}

static int print_frequencies(const cli_options *options, const cli_model *model) {
    rw_message message = {""};
    rw_rope_frequency_list list = {0};
    rw_status status = rw_rope_frequencies(&model->rope->spec, options->seq_len, &list, &message);
    if (status != RW_OK)
        return cli_fail(CLI_FAILED, "%s: %s", options->config, message.text);
    list.capacity = list.count;
    list.inv_freq = calloc((size_t)list.count, sizeof *list.inv_freq);
    if (!list.inv_freq)
        return cli_fail(CLI_FAILED, "no memory for %lld frequencies", (long long)list.count);
    status = rw_rope_frequencies(&model->rope->spec, options->seq_len, &list, &message);
    int exit_status = status == RW_OK
                          ? cli_print_json(describe(model, &list))
                          : cli_fail(CLI_FAILED, "%s: %s", options->config, message.text);
    free(list.inv_freq);
    return exit_status;
}

static int run(const cli_options *options) {
    cli_model model;
    rw_message message;
    if (cli_model_load(&model, options, options->config, &message) != RW_OK)
        return cli_fail(CLI_FAILED, "%s", message.text);
    int exit_status = print_frequencies(options, &model);
    cli_model_free(&model);
    return exit_status;
}

const cli_command cli_frequencies = {
    .name = "frequencies",
    .summary = "Print the rotary frequencies of a model's config.json",
    .required = CLI_OPTION_CONFIG,
    .options = CLI_OPTION_LAYER_TYPE | CLI_OPTION_PAIRING | CLI_OPTION_SEQ_LEN | CLI_OPTION_JSON,
    .operands = "",
    .details =
        "Prints JSON, with or without --json: rope_type, head_dim, rotary_dim, pairing,\n"
        "attention_factor and inv_freq (rotary_dim / 2 values, in radians per position); the\n"
        "types of the layers if known, and the numbers of the layers without a rotary\n"
        "embedding. inverse: the model rotates in the inverse direction.\n"
        "learned_scale: weights of the checkpoint whose exp() multiplies inv_freq.\n\n"
        "An unknown model_type requires --pairing; --pairing overrides a known model_type.\n",
    .run = run,
};
