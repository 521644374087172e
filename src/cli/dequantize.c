/* ropewalk dequantize: the blocks of a microscaling (MX) format in a file, as floats. */
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "cli.h"
#include "common/io_error.h"

/* The tensors: blocks and scales are input, values are output. */
typedef struct quantized {
    cli_array blocks, scales, values;
} quantized;

/* Finds the layout that --layout names; false if the format does not have it. */
static bool find_layout(const cli_options *options, rw_mx_layout *layout) {
    static const struct layout_row {
        const char *name;
        bool four_bits;
        rw_mx_nibbles nibbles;
        bool scale_in_front;
    } rows[] = {
        {"separate", false, RW_MX_LOW_FIRST, false},
        {"front", false, RW_MX_LOW_FIRST, true},
        {"low-first", true, RW_MX_LOW_FIRST, false},
        {"high-first", true, RW_MX_HIGH_FIRST, false},
        {"split", true, RW_MX_SPLIT, false},
        {"ggml", true, RW_MX_SPLIT, true},
        {"front-high-first", true, RW_MX_HIGH_FIRST, true},
    };
    bool four_bits = options->format == RW_MXFP4_E2M1;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].name, options->mx_layout) != 0 || rows[i].four_bits != four_bits)
            continue;
        *layout = (rw_mx_layout){options->format, rows[i].nibbles, rows[i].scale_in_front};
        return true;
    }
    return false;
}

static rw_status read_input(const char *path, const rw_mx_layout *layout, quantized *input,
                            rw_message *message) {
    static const cli_array_rule blocks = {"blocks", 2, 2, CLI_ARRAY_BYTES, true};
    static const cli_array_rule scales = {"scales", 1, 1, CLI_ARRAY_BYTES, true};
    cli_source source = {.path = path, .message = message};
    rw_status status = rw_safetensors_open(path, &source.file, message);
    if (status != RW_OK)
        return status;
    status = cli_array_read(&source, &blocks, &input->blocks);
    if (status == RW_OK && !layout->scale_in_front)
        status = cli_array_read(&source, &scales, &input->scales);
    rw_safetensors_close(source.file);
    long long count = (long long)input->blocks.shape[0];
    int64_t bytes = rw_mx_block_bytes(layout);
    if (status == RW_OK && input->blocks.shape[1] != bytes)
        return rwi_io_fail(
            message, RW_INVALID_ARGUMENT,
            "%.100s: blocks has shape [%lld, %lld], expected %lld bytes for each block", path,
            count, (long long)input->blocks.shape[1], (long long)bytes);
    if (status == RW_OK && input->scales.data && input->scales.shape[0] != input->blocks.shape[0])
        return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                           "%.100s: scales has shape [%lld], expected one for each of %lld blocks",
                           path, (long long)input->scales.shape[0], count);
    return status;
}

/* Allocates host memory for the values. */
static rw_status make_values(rw_dtype dtype, quantized *data, rw_message *message) {
    int64_t count = data->blocks.shape[0];
    cli_array values = {.name = "values", .dtype = dtype, .rank = 2, .shape = {count, RW_MX_BLOCK}};
    if (__builtin_mul_overflow((size_t)count, RW_MX_BLOCK * rw_dtype_size(dtype), &values.bytes))
        values.bytes = SIZE_MAX - 1;
    values.data = malloc(values.bytes + 1);
    data->values = values;
    if (values.data)
        return RW_OK;
    return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory for the values of %lld blocks",
                       (long long)count);
}

static rw_status dequantize_in(rw_context *context, const rw_mx_layout *layout, quantized *data) {
    rw_mx_args args = {.layout = *layout};
    const cli_array *values = &data->values;
    void *memory = NULL;
    rw_status status = cli_array_upload(context, &data->blocks, &args.blocks);
    if (status == RW_OK)
        status = cli_array_upload(context, &data->scales, &args.scales);
    if (status == RW_OK)
        status = rw_alloc(context, values->bytes, &memory);
    args.values = rw_tensor_contiguous(memory, values->dtype, values->rank, values->shape);
    if (status == RW_OK)
        status = rw_mx_dequantize(context, &args);
    if (status == RW_OK)
        status = rw_synchronize(context);
    if (status == RW_OK)
        status = cli_array_download(context, &args.values, &data->values);
    rw_free(context, args.blocks.data);
    rw_free(context, args.scales.data);
    rw_free(context, memory);
    return status;
}

static rw_status dequantize(const cli_options *options, const rw_mx_layout *layout, quantized *data,
                            json_t **report, rw_message *message) {
    rw_context_options where = cli_context_options(options);
    rw_context *context;
    rw_status status = make_values(options->dtype, data, message);
    if (status == RW_OK)
        status = rw_context_create(&where, &context, message);
    if (status != RW_OK)
        return status;
    rw_context_info info = rw_context_get_info(context);
    *report = json_pack("{s:s, s:s, s:s, s:I}", "on", cli_label(&info).text, "device", info.device,
                        "output", options->output, "blocks", (json_int_t)data->blocks.shape[0]);
    status = dequantize_in(context, layout, data);
    if (status != RW_OK)
        rwi_io_fail(message, status, "%s", rw_last_error(context));
    rw_context_destroy(context);
    return status;
}

static int run(const cli_options *options) {
    rw_mx_layout layout;
    if (!find_layout(options, &layout))
        return cli_fail(CLI_USAGE, "--layout is \"%s\", expected %s for this --format",
                        options->mx_layout,
                        options->format == RW_MXFP4_E2M1
                            ? "low-first, high-first, split, ggml or front-high-first"
                            : "separate or front");
    quantized data = {{0}, {0}, {0}};
    const cli_array *const output[] = {&data.values};
    json_t *report = NULL;
    rw_message message;
    rw_status status = read_input(options->input, &layout, &data, &message);
    if (status == RW_OK)
        status = dequantize(options, &layout, &data, &report, &message);
    if (status == RW_OK)
        status = cli_arrays_write(options->output, output, 1, &message);
    int exit_status = CLI_OK;
    if (status != RW_OK)
        exit_status = cli_fail(CLI_FAILED, "%s", message.text);
    else if (options->json)
        exit_status = cli_print_json(json_incref(report));
    json_decref(report);
    cli_array_free(&data.blocks);
    cli_array_free(&data.scales);
    cli_array_free(&data.values);
    return exit_status;
}

const cli_command cli_dequantize = {
    .name = "dequantize",
    .summary = "Convert microscaling (MX) blocks of a safetensors file to floats",
    .required = CLI_OPTION_FORMAT | CLI_OPTION_MX_LAYOUT | CLI_OPTION_INPUT | CLI_OPTION_OUTPUT,
    .options = CLI_OPTION_DTYPE | CLI_OPTION_BACKEND | CLI_OPTION_JSON,
    .operands = "",
    .details =
        "Input: blocks, U8 [N, bytes of a block]: 16, 24 or 32 bytes of codes, plus one if the\n"
        "scale is in front; and scales, U8 [N], unless the scale is in front. Other tensors are\n"
        "ignored.\n"
        "Output: values [N, 32]. A scale of 255 makes its block NaN.\n\n"
        "Layouts of six and eight bits:\n"
        "  separate          scales in a tensor of their own\n"
        "  front             every block starts with its scale\n"
        "Layouts of mxfp4:\n"
        "  low-first         byte i: element 2i in the low nibble, 2i + 1 in the high one\n"
        "  high-first        byte i: element 2i in the high nibble, 2i + 1 in the low one\n"
        "  split             byte i: element i in the low nibble, i + 16 in the high one\n"
        "  ggml              split, every block starts with its scale\n"
        "  front-high-first  high-first, every block starts with its scale\n",
    .run = run,
};
