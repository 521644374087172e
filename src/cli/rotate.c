/* ropewalk rotate: rotates q and k of a file as a config.json defines. */
#include "common/io_error.h"
#include "rotation.h"
#include "work.h"

static rw_status read_input(cli_rotation *rotation, rw_message *message) {
    static const cli_array_rule q = {"q", 4, 4, CLI_ARRAY_FLOATS, false};
    static const cli_array_rule k = {"k", 4, 4, CLI_ARRAY_FLOATS, false};
    static const cli_array_rule positions = {"positions", 1, 3, CLI_ARRAY_IDS, false};
    cli_source source = {.path = rotation->options->input, .message = message};
    rw_status status = rw_safetensors_open(source.path, &source.file, message);
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
    rw_safetensors_close(source.file);
    return status;
}

static rw_status upload(const cli_rotation *rotation, rw_context *context,
                        cli_rotation_tensors *on) {
    rw_status status = cli_array_upload(context, &rotation->q, &on->q);
    if (status == RW_OK)
        status = cli_array_upload(context, &rotation->k, &on->k);
    if (status == RW_OK)
        status = cli_array_upload(context, &rotation->positions, &on->positions);
    return status;
}

static rw_status download(rw_context *context, const cli_rotation_tensors *on,
                          cli_outcome *outcome) {
    rw_status status = cli_array_download(context, &on->q, &outcome->arrays[0]);
    return status == RW_OK ? cli_array_download(context, &on->k, &outcome->arrays[1]) : status;
}

static rw_status run_on(const void *of, rw_context *context, cli_outcome *outcome,
                        rw_message *message) {
    const cli_rotation *rotation = of;
    cli_rotation_tensors on = {.q = {0}};
    rw_status status = cli_array_like(&rotation->q, &outcome->arrays[0], message);
    if (status == RW_OK)
        status = cli_array_like(&rotation->k, &outcome->arrays[1], message);
    if (status != RW_OK)
        return status;
    status = upload(rotation, context, &on);
    if (status != RW_OK)
        rwi_io_fail(message, status, "%s", rw_last_error(context));
    if (status == RW_OK)
        status = cli_rotation_apply(rotation, context, &on, message);
    if (status == RW_OK && (status = download(context, &on, outcome)) != RW_OK)
        rwi_io_fail(message, status, "%s", rw_last_error(context));
    rw_free(context, on.q.data);
    rw_free(context, on.k.data);
    rw_free(context, on.positions.data);
    return status;
}

static json_t *describe(const void *of) {
    const cli_rotation *rotation = of;
    return json_pack("{s:I}", "seq_len", (json_int_t)rotation->rope.seq_len);
}

static int run(const cli_options *options) {
    static const cli_tolerance rounding = {.units = 4};
    cli_rotation rotation;
    rw_message message;
    rw_status status = cli_rotation_load(&rotation, options, &message);
    if (status == RW_OK)
        status = read_input(&rotation, &message);
    if (status == RW_OK)
        status = cli_rotation_prepare(&rotation, &message);
    const cli_work work = {
        .options = options,
        .verb = "rotated",
        .of = &rotation,
        .run = run_on,
        .describe = describe,
        .tolerances = {rounding, rounding},
    };
    int exit_status =
        status == RW_OK ? cli_work_do(&work) : cli_fail(CLI_FAILED, "%s", message.text);
    cli_rotation_free(&rotation);
    return exit_status;
}

const cli_command cli_rotate = {
    .name = "rotate",
    .summary = "Rotate q and k of a safetensors file as a model's config.json defines",
    .required = CLI_OPTION_CONFIG | CLI_OPTION_INPUT | CLI_OPTION_OUTPUT,
    .options = CLI_OPTION_LAYER_TYPE | CLI_OPTION_PAIRING | CLI_OPTION_LAYOUT | CLI_OPTION_OFFSET |
               CLI_OPTION_INVERSE | CLI_OPTION_CHECK | CLI_OPTION_BACKEND | CLI_OPTION_JSON,
    .operands = "",
    .details =
        "Input: q and k, one of them may be absent, F32, F16 or BF16; layout bshd is [batch,\n"
        "seq, heads, head_dim], bhsd is [batch, heads, seq, head_dim]. positions may be absent\n"
        "(0, 1, 2, ... in each row), I32 or I64, [seq], [batch, seq] or, for M-RoPE, [3, batch,\n"
        "seq]. Other tensors are ignored. Output: q and k in the input's dtype and layout. The\n"
        "number of heads of q and k is the config's or, in a shard, a divisor of it.\n\n"
        "Ids in the file must be less than the config's maximum: max_position_embeddings, or its\n"
        "extension by the scaling; dynamic has no maximum. If the frequencies depend on the\n"
        "length, that is the largest id plus 1, as in Hugging Face transformers.\n\n"
        "--check compares each other backend with the first: the largest absolute difference,\n"
        "and the largest relative to the largest value of the same head of the same token. More\n"
        "than 4 units of rounding is an error: nothing is written.\n",
    .run = run,
};
