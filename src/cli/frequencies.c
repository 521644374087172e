/* ropewalk frequencies: what a config.json asks for. */
#include <stdlib.h>

#include "cli.h"
#include "model_config.h"

static json_t *list_of(const double *values, int64_t count) {
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++)
        json_array_append_new(list, json_real(values[i]));
    return list;
}

static json_t *describe(const rwi_model_config *config, const rw_rope_frequency_list *list) {
    const rw_rope_spec *spec = &config->spec;
    json_t *result = json_pack(
        "{s:s, s:s, s:I, s:I, s:s, s:f, s:I, s:f, s:o}", "model_type", config->model_type,
        "rope_type", rwi_rope_type_name(spec->type), "head_dim", (json_int_t)spec->head_dim,
        "rotary_dim", (json_int_t)(2 * list->count), "pairing",
        rwi_rope_pairing_name(spec->pairing), "rope_theta", spec->theta, "max_position_embeddings",
        (json_int_t)spec->max_position_embeddings, "attention_factor", list->attention_factor,
        "inv_freq", list_of(list->inv_freq, list->count));
    if (spec->axes != RW_ROPE_AXES_ONE)
        json_object_set_new(result, "mrope_section",
                            json_pack("[I, I, I]", (json_int_t)spec->sections[0],
                                      (json_int_t)spec->sections[1],
                                      (json_int_t)spec->sections[2]));
    if (spec->axes != RW_ROPE_AXES_ONE)
        json_object_set_new(result, "mrope_interleaved",
                            json_boolean(spec->axes == RW_ROPE_AXES_MROPE_INTERLEAVED));
    return result;
}

static int print_frequencies(const cli_options *options, const rwi_model_config *config) {
    rw_message message = {""};
    rw_rope_frequency_list list = {0};
    rw_status status = rw_rope_frequencies(&config->spec, options->seq_len, &list, &message);
    if (status != RW_OK)
        return cli_fail(CLI_FAILED, "%s: %s", options->config, message.text);
    list.capacity = list.count;
    list.inv_freq = calloc((size_t)list.count, sizeof *list.inv_freq);
    if (!list.inv_freq)
        return cli_fail(CLI_FAILED, "no memory for %lld frequencies", (long long)list.count);
    status = rw_rope_frequencies(&config->spec, options->seq_len, &list, &message);
    int exit_status = status == RW_OK
                          ? cli_print_json(describe(config, &list))
                          : cli_fail(CLI_FAILED, "%s: %s", options->config, message.text);
    free(list.inv_freq);
    return exit_status;
}

static int run(const cli_options *options) {
    rwi_model_config config;
    rw_message message;
    if (rwi_model_config_load(options->config, options->layer_type, &config, &message) != RW_OK)
        return cli_fail(CLI_FAILED, "%s", message.text);
    int exit_status = print_frequencies(options, &config);
    rwi_model_config_free(&config);
    return exit_status;
}

const cli_command cli_frequencies = {
    .name = "frequencies",
    .summary = "Print the rotary frequencies of a model's config.json",
    .required = CLI_OPTION_CONFIG,
    .options = CLI_OPTION_LAYER_TYPE | CLI_OPTION_SEQ_LEN | CLI_OPTION_JSON,
    .operands = "",
    .details = "Prints JSON, with or without --json: rope_type, head_dim, rotary_dim, pairing,\n"
               "attention_factor and inv_freq in radians a position, rotary_dim / 2 of them.\n",
    .run = run,
};
