/* ropewalk embed: learned positions added to the hidden states of a file. */
#include "array.h"
#include "cli.h"
#include "common/io_error.h"

/* The tensors of a file: x, table, positions. */
typedef struct embedding {
    cli_array x, table, positions;
} embedding;

static rw_status read_input(const char *path, embedding *input, rw_message *message) {
    static const cli_array_rule x = {"x", 3, 3, CLI_ARRAY_FLOATS, true};
    static const cli_array_rule table = {"table", 2, 2, CLI_ARRAY_FLOATS, true};
    static const cli_array_rule positions = {"positions", 1, 2, CLI_ARRAY_IDS, false};
    cli_source source = {.path = path, .message = message};
    rw_status status = rw_safetensors_open(path, &source.file, message);
    if (status != RW_OK)
        return status;
    status = cli_array_read(&source, &x, &input->x);
    if (status == RW_OK)
        status = cli_array_read(&source, &table, &input->table);
    if (status == RW_OK)
        status = cli_array_read(&source, &positions, &input->positions);
    rw_safetensors_close(source.file);
    return status;
}

/* Adds in place on the device and copies the result back to input->x. */
static rw_status embed_in(rw_context *context, embedding *input, int64_t offset) {
    rw_tensor table = {0};
    rw_embed_args args = {.offset = offset};
    rw_status status = cli_array_upload(context, &input->x, &args.x);
    if (status == RW_OK)
        status = cli_array_upload(context, &input->table, &table);
    if (status == RW_OK)
        status = cli_array_upload(context, &input->positions, &args.positions);
    if (status == RW_OK)
        status = rw_embed_learned(context, &table, &args);
    if (status == RW_OK)
        status = rw_synchronize(context);
    if (status == RW_OK)
        status = cli_array_download(context, &args.x, &input->x);
    rw_free(context, args.x.data);
    rw_free(context, table.data);
    rw_free(context, args.positions.data);
    return status;
}

static rw_status embed(const cli_options *options, embedding *input, json_t **report,
                       rw_message *message) {
    rw_context_options where = cli_context_options(options);
    rw_context *context;
    rw_status status = rw_context_create(&where, &context, message);
    if (status != RW_OK)
        return status;
    rw_context_info info = rw_context_get_info(context);
    *report = json_pack("{s:s, s:s, s:s}", "on", cli_label(&info).text, "device", info.device,
                        "output", options->output);
    status = embed_in(context, input, options->offset);
    if (status == RW_OUT_OF_RANGE)
        rwi_io_fail(message, status, "%.180s; expected 0 to %lld", rw_last_error(context),
                    (long long)input->table.shape[0] - 1);
    else if (status != RW_OK)
        rwi_io_fail(message, status, "%s", rw_last_error(context));
    rw_context_destroy(context);
    return status;
}

static int run(const cli_options *options) {
    embedding input = {{0}, {0}, {0}};
    const cli_array *const output[] = {&input.x};
    json_t *report = NULL;
    rw_message message;
    rw_status status = read_input(options->input, &input, &message);
    if (status == RW_OK)
        status = embed(options, &input, &report, &message);
    if (status == RW_OK)
        status = cli_arrays_write(options->output, output, 1, &message);
    int exit_status = CLI_OK;
    if (status != RW_OK)
        exit_status = cli_fail(CLI_FAILED, "%s", message.text);
    else if (options->json)
        exit_status = cli_print_json(json_incref(report));
    json_decref(report);
    cli_array_free(&input.x);
    cli_array_free(&input.table);
    cli_array_free(&input.positions);
    return exit_status;
}

const cli_command cli_embed = {
    .name = "embed",
    .summary = "Add learned positions to the hidden states of a safetensors file",
    .required = CLI_OPTION_INPUT | CLI_OPTION_OUTPUT,
    .options = CLI_OPTION_OFFSET | CLI_OPTION_BACKEND | CLI_OPTION_JSON,
    .operands = "",
    .details =
        "Input: x [batch, seq, hidden] and table [max, hidden], F32, F16 or BF16; positions may\n"
        "be absent (0, 1, 2, ... in each row), I32 or I64, [seq] or [batch, seq]. Other tensors\n"
        "are ignored. Output: x in the input's dtype. Ids plus --offset must be less than max.\n",
    .run = run,
};
