/* ropewalk rotate: q and k of a file, rotated as a config.json asks for. */
#include <math.h>
#include <stdio.h>

#include "io_error.h"
#include "rotation.h"

/* As many positions as a table can have. */
#define MAX_TABLE ((int64_t)1 << 31)

static rw_status read_input(cli_rotation *rotation, rw_message *message) {
    static const cli_array_rule q = {"q", 4, 4, CLI_ARRAY_FLOATS, false};
    static const cli_array_rule k = {"k", 4, 4, CLI_ARRAY_FLOATS, false};
    static const cli_array_rule positions = {"positions", 1, 3, CLI_ARRAY_IDS, false};
    cli_source source = {.path = rotation->options->input, .message = message};
    rw_status status = rwi_safetensors_open(source.path, &source.file, message);
    if (status != RW_OK)
        return status;
    status = cli_array_read(&source, &q, &rotation->q);
    if (status == RW_OK)
        status = cli_array_read(&source, &k, &rotation->k);
    if (status == RW_OK)
        status = cli_array_read(&source, &positions, &rotation->positions);
    if (status == RW_OK && !rotation->q.data && !rotation->k.data)
        status = rwi_io_fail(message, RW_INVALID_ARGUMENT,
                             "%.140s has no tensor \"q\" and no \"k\"", source.path);
    rwi_safetensors_close(&source.file);
    return status;
}

/* In the file's own words, before the library sees the axes in its order. */
static rw_status check_heads(const cli_rotation *rotation, const cli_array *array,
                             rw_message *message) {
    int64_t head_dim = rotation->config.spec.head_dim;
    if (!array->data || array->shape[3] == head_dim)
        return RW_OK;
    return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                       "%.80s: %s has %lld columns a head, expected the config's %lld",
                       rotation->options->input, array->name, (long long)array->shape[3],
                       (long long)head_dim);
}

/* One past the largest id plus offset, at least 1; `valid` whether none is negative. */
static int64_t end_of_ids(const cli_rotation *rotation, bool *valid) {
    const cli_array *heads = rotation->q.data ? &rotation->q : &rotation->k;
    int64_t offset = rotation->options->offset, largest = -1, id;
    *valid = true;
    if (!rotation->positions.data) {
        int64_t seq = heads->shape[rotation->options->bshd ? 1 : 2];
        *valid = offset >= 0;
        return seq > 0 && !__builtin_add_overflow(seq, offset, &id) && id > 0 ? id : 1;
    }
    for (int64_t i = 0; i < cli_array_count(&rotation->positions); i++) {
        if (__builtin_add_overflow(cli_array_id(&rotation->positions, i), offset, &id))
            id = -1;
        *valid = *valid && id >= 0;
        largest = id > largest ? id : largest;
    }
    return largest < INT64_MAX ? largest + 1 + (largest < 0) : largest;
}

/* The length that the config promises, with its scaling; 0 where it promises none. */
static double promised_length(const rw_rope_spec *spec) {
    double length = (double)spec->max_position_embeddings;
    double original = spec->original_max_position_embeddings
                          ? (double)spec->original_max_position_embeddings
                          : length;
    switch (spec->type) {
    case RW_ROPE_DYNAMIC:
        return 0; /* grows with the sequence */
    case RW_ROPE_LINEAR:
        return length * fmax(spec->factor, 1);
    case RW_ROPE_YARN:
    case RW_ROPE_LONGROPE:
    case RW_ROPE_LLAMA3:
        return length > 0 ? fmax(length, original * spec->factor) : 0;
    case RW_ROPE_DEFAULT:
    case RW_ROPE_PROPORTIONAL:
        break;
    }
    return length;
}

/* The sequence's length, as Hugging Face takes it, and a table that holds it: no longer than
 * needed, as long as allowed where an id is out of range and the end shall be told. */
static void choose_lengths(cli_rotation *rotation) {
    const rw_rope_spec *spec = &rotation->config.spec;
    bool valid;
    int64_t needed = end_of_ids(rotation, &valid);
    double promised = promised_length(spec);
    int64_t limit = promised > 0 && promised < (double)MAX_TABLE ? (int64_t)promised : MAX_TABLE;
    if (!rotation->positions.data && limit < needed)
        limit = needed < MAX_TABLE ? needed : MAX_TABLE;
    rotation->end_of_ids = promised > 0 || needed > limit ? limit : 0;
    rotation->rope = (rw_rope_options){
        .spec = *spec,
        .seq_len = needed,
        .max_positions = needed <= limit ? needed : limit,
    };
}

static json_t *describe(const cli_rotation *rotation, const cli_rotated *rotated, json_t *checks) {
    json_t *result = json_pack("{s:s, s:s, s:s, s:I}", "on", rotated->label.text, "device",
                               rotated->device, "output", rotation->options->output, "seq_len",
                               (json_int_t)rotation->rope.seq_len);
    if (rotation->options->check)
        json_object_set(result, "check", checks);
    return result;
}

static bool all_agree(const json_t *checks) {
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)checks, i,
                       one) if (!json_is_true(json_object_get(one, "agrees"))) return false;
    return true;
}

static void print_difference(const json_t *check, const char *key) {
    const json_t *value = json_object_get(check, key);
    if (json_is_real(value))
        printf("  %12.6g", json_real_value(value));
    else
        printf("  %12s", "infinite");
}

static void print_checks(const cli_rotated *rotated, const json_t *checks) {
    size_t i;
    json_t *one;
    printf("rotated on %s\n", rotated->label.text);
    if (json_array_size(checks) == 0)
        printf("no other backend is usable here\n");
    else
        printf("%-22s tensor  %12s  %12s\n", "against", "max abs diff", "max rel diff");
    json_array_foreach((json_t *)checks, i, one) {
        printf("%-22s %-6s", json_string_value(json_object_get(one, "on")),
               json_string_value(json_object_get(one, "tensor")));
        print_difference(one, "max_abs_diff");
        print_difference(one, "max_rel_diff");
        printf("  %s\n", json_is_true(json_object_get(one, "agrees")) ? "agrees" : "DIFFERS");
    }
}

/* Compares, writes, reports. */
static int finish(const cli_rotation *rotation, const cli_rotated *rotated, json_t *checks) {
    const cli_options *options = rotation->options;
    const cli_array *const arrays[] = {&rotated->q, &rotated->k};
    rw_message message;
    if (options->check && cli_rotation_check(rotation, rotated, checks, &message) != RW_OK)
        return cli_fail(CLI_FAILED, "%s", message.text);
    bool agree = all_agree(checks);
    if (agree && cli_arrays_write(options->output, arrays, 2, &message) != RW_OK)
        return cli_fail(CLI_FAILED, "%s", message.text);
    int exit_status = CLI_OK;
    if (options->json)
        exit_status = cli_print_json(describe(rotation, rotated, checks));
    else if (options->check)
        print_checks(rotated, checks);
    if (agree)
        return exit_status;
    return cli_fail(CLI_FAILED, "the backends differ by more than rounding; %s was not written",
                    options->output);
}

static int rotate(cli_rotation *rotation) {
    cli_rotated rotated = {0};
    rw_message message;
    rw_status status = read_input(rotation, &message);
    if (status == RW_OK)
        status = check_heads(rotation, &rotation->q, &message);
    if (status == RW_OK)
        status = check_heads(rotation, &rotation->k, &message);
    if (status == RW_OK) {
        rw_context_options where = cli_context_options(rotation->options);
        choose_lengths(rotation);
        status = cli_rotation_run(rotation, &where, &rotated, &message);
    }
    json_t *checks = json_array();
    int exit_status = status == RW_OK ? finish(rotation, &rotated, checks)
                                      : cli_fail(CLI_FAILED, "%s", message.text);
    json_decref(checks);
    cli_rotated_free(&rotated);
    return exit_status;
}

static int run(const cli_options *options) {
    cli_rotation rotation = {.options = options};
    rw_message message;
    if (rwi_model_config_load(options->config, options->layer_type, &rotation.config, &message) !=
        RW_OK)
        return cli_fail(CLI_FAILED, "%s", message.text);
    if (options->given & CLI_OPTION_PAIRING)
        rotation.config.spec.pairing = options->pairing;
    int exit_status = rotate(&rotation);
    cli_array_free(&rotation.q);
    cli_array_free(&rotation.k);
    cli_array_free(&rotation.positions);
    rwi_model_config_free(&rotation.config);
    return exit_status;
}

const cli_command cli_rotate = {
    .name = "rotate",
    .summary = "Rotate q and k of a safetensors file as a model's config.json asks for",
    .required = CLI_OPTION_CONFIG | CLI_OPTION_INPUT | CLI_OPTION_OUTPUT,
    .options = CLI_OPTION_LAYER_TYPE | CLI_OPTION_PAIRING | CLI_OPTION_LAYOUT | CLI_OPTION_OFFSET |
               CLI_OPTION_INVERSE | CLI_OPTION_CHECK | CLI_OPTION_BACKEND | CLI_OPTION_JSON,
    .operands = "",
    .details =
        "Input: q and k, one of them may be absent, F32, F16 or BF16; layout bhsd is [batch,\n"
        "heads, seq, head_dim], bshd is [batch, seq, heads, head_dim]. positions may be absent\n"
        "(0, 1, 2, ... in each row), I32 or I64, [seq], [batch, seq] or, for M-RoPE, [3, batch,\n"
        "seq]. Other tensors are ignored. Output: q and k in the input's dtype and layout.\n\n"
        "Ids in the file must lie below what the config promises: max_position_embeddings, or\n"
        "what its scaling extends that to; dynamic has no end. Where the frequencies depend on\n"
        "the length, that is the largest id plus 1, as Hugging Face has it.\n\n"
        "--check compares each other backend with the first: the largest absolute difference,\n"
        "and the largest relative to the largest value of the same head of the same token. More\n"
        "than 4 units of rounding is a failure, and then nothing is written.\n",
    .run = run,
};
