/* ropewalk dequantize: the blocks of a microscaling (MX) format in a file, as floats. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "cli.h"
#include "common/io_error.h"

/* A tensor: its blocks and scales in the file, and its values. The names are allocated. */
typedef struct quantized {
    char *blocks_name, *scales_name, *values_name;
    bool whole; /* the last axes of the values, groups and 32, are one */
    cli_array blocks, scales, values;
} quantized;

/* What the program does. */
typedef struct work {
    const cli_options *options;
    rw_mx_layout layout;
    cli_source source;
    quantized *tensors;
    size_t count;
} work;

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

/* ---- the tensors of a file ---- */

static bool ends_with(const char *name, const char *suffix) {
    const size_t length = strlen(name), tail = strlen(suffix);
    return length > tail && strcmp(name + length - tail, suffix) == 0;
}

/* "STEM" and the end, allocated; NULL without memory. */
static char *join(const char *stem, size_t length, const char *end) {
    char *name = malloc(length + strlen(end) + 1);
    if (name) {
        memcpy(name, stem, length);
        strcpy(name + length, end);
    }
    return name;
}

static rw_status add_tensor(work *w, const char *stem, size_t length, const char *separator) {
    quantized *t = &w->tensors[w->count++];
    char scales[16];
    snprintf(scales, sizeof scales, "%sscales", separator);
    *t = (quantized){.whole = length > 0};
    t->blocks_name = join(stem, length, length > 0 ? "_blocks" : "blocks");
    t->scales_name = join(stem, length, scales);
    t->values_name = join(stem, length, length > 0 ? "" : "values");
    if (t->blocks_name && t->scales_name && t->values_name)
        return RW_OK;
    return rwi_io_fail(w->source.message, RW_OUT_OF_MEMORY, "no memory for the names of tensors");
}

/* The tensor "blocks" or, if there is none, all whose names end in "_blocks". */
static rw_status find_tensors(work *w) {
    const rw_safetensors *file = w->source.file;
    const int64_t count = rw_safetensors_count(file);
    rw_status status = RW_OK;
    w->tensors = calloc((size_t)count + 1, sizeof *w->tensors);
    if (!w->tensors)
        return rwi_io_fail(w->source.message, RW_OUT_OF_MEMORY, "no memory for %lld tensors",
                           (long long)count);
    if (rw_safetensors_find(file, "blocks"))
        return add_tensor(w, "", 0, "");
    for (int64_t i = 0; i < count && status == RW_OK; i++) {
        const char *name = rw_safetensors_get(file, i)->name;
        if (ends_with(name, "_blocks"))
            status = add_tensor(w, name, strlen(name) - strlen("_blocks"), "_");
    }
    if (status == RW_OK && w->count == 0)
        return rwi_io_fail(w->source.message, RW_INVALID_ARGUMENT,
                           "%.100s has no tensor \"blocks\", and none whose name ends in "
                           "\"_blocks\"",
                           w->source.path);
    return status;
}

static cli_array_kind kind_of(rw_mx_format format) {
    return format == RW_MXFP8_E4M3   ? CLI_ARRAY_E4M3
           : format == RW_MXFP8_E5M2 ? CLI_ARRAY_E5M2
                                     : CLI_ARRAY_BYTES;
}

/* One scale for each block. */
static bool scales_fit(const quantized *t) {
    bool fit = t->scales.rank == t->blocks.rank - 1;
    for (int axis = 0; fit && axis < t->scales.rank; axis++)
        fit = t->scales.shape[axis] == t->blocks.shape[axis];
    return fit;
}

static rw_status read_tensor(const work *w, quantized *t) {
    const cli_array_rule blocks = {t->blocks_name, 2, t->whole ? RW_MAX_RANK : 2,
                                   kind_of(w->layout.format), true};
    const cli_array_rule scales = {t->scales_name, 1, RW_MAX_RANK - 1, CLI_ARRAY_E8M0, true};
    const cli_source *source = &w->source;
    rw_status status = cli_array_read(source, &blocks, &t->blocks);
    if (status == RW_OK && !w->layout.scale_in_front)
        status = cli_array_read(source, &scales, &t->scales);
    if (status != RW_OK)
        return status;
    const int64_t bytes = rw_mx_block_bytes(&w->layout);
    const long long last = (long long)t->blocks.shape[t->blocks.rank - 1];
    if (last != bytes)
        return rwi_io_fail(source->message, RW_INVALID_ARGUMENT,
                           "%.100s: %.60s has blocks of %lld bytes, expected %lld", source->path,
                           t->blocks_name, last, (long long)bytes);
    if (t->scales.data && !scales_fit(t))
        return rwi_io_fail(source->message, RW_INVALID_ARGUMENT,
                           "%.100s: %.60s has another shape than the blocks, expected one for each "
                           "block",
                           source->path, t->scales_name);
    return RW_OK;
}

static int64_t count_blocks(const quantized *t) {
    int64_t count = 1;
    for (int axis = 0; axis < t->blocks.rank - 1; axis++)
        count *= t->blocks.shape[axis];
    return count;
}

/* Allocates host memory for the values, [..., groups, 32]. */
static rw_status make_values(const work *w, quantized *t) {
    t->values = t->blocks;
    t->values.name = t->values_name;
    t->values.dtype = w->options->dtype;
    t->values.shape[t->values.rank - 1] = RW_MX_BLOCK;
    t->values.data = NULL;
    return cli_array_make(&t->values, w->source.message);
}

/* ---- the work ---- */

static rw_status dequantize_in(rw_context *context, const rw_mx_layout *layout, quantized *t) {
    rw_mx_args args = {.layout = *layout};
    const cli_array *values = &t->values;
    void *memory = NULL;
    rw_status status = cli_array_upload(context, &t->blocks, &args.blocks);
    if (status == RW_OK)
        status = cli_array_upload(context, &t->scales, &args.scales);
    if (status == RW_OK)
        status = rw_alloc(context, values->bytes, &memory);
    args.values = rw_tensor_contiguous(memory, values->dtype, values->rank, values->shape);
    if (status == RW_OK)
        status = rw_mx_dequantize(context, &args);
    if (status == RW_OK)
        status = rw_synchronize(context);
    if (status == RW_OK)
        status = cli_array_download(context, &args.values, &t->values);
    rw_free(context, args.blocks.data);
    rw_free(context, args.scales.data);
    rw_free(context, memory);
    return status;
}

static void release_input(quantized *t) {
    cli_array_free(&t->blocks);
    cli_array_free(&t->scales);
}

static rw_status dequantize(work *w, rw_context *context) {
    rw_status status = RW_OK;
    for (size_t i = 0; i < w->count && status == RW_OK; i++) {
        quantized *t = &w->tensors[i];
        status = read_tensor(w, t);
        if (status == RW_OK)
            status = make_values(w, t);
        if (status == RW_OK && (status = dequantize_in(context, &w->layout, t)) != RW_OK)
            rwi_io_fail(w->source.message, status, "%s", rw_last_error(context));
        release_input(t);
    }
    return status;
}

/* Writes the values: gpt-oss's groups of a row are one axis. */
static rw_status write_values(const work *w) {
    const cli_array **arrays = malloc((w->count + 1) * sizeof(void *));
    if (!arrays)
        return rwi_io_fail(w->source.message, RW_OUT_OF_MEMORY, "no memory for %zu tensors",
                           w->count);
    for (size_t i = 0; i < w->count; i++) {
        quantized *t = &w->tensors[i];
        if (t->whole) {
            t->values.rank--;
            t->values.shape[t->values.rank - 1] *= RW_MX_BLOCK;
        }
        arrays[i] = &t->values;
    }
    rw_status status = cli_arrays_write(w->options->output, arrays, w->count, w->source.message);
    free(arrays);
    return status;
}

static json_t *report_of(const work *w, rw_context *context) {
    rw_context_info info = rw_context_get_info(context);
    int64_t blocks = 0;
    for (size_t i = 0; i < w->count; i++)
        blocks += count_blocks(&w->tensors[i]);
    return json_pack("{s:s, s:s, s:s, s:I, s:I}", "on", cli_label(&info).text, "device",
                     info.device, "output", w->options->output, "blocks", (json_int_t)blocks,
                     "tensors", (json_int_t)w->count);
}

static rw_status do_work(work *w, json_t **report) {
    rw_context_options where = cli_context_options(w->options);
    rw_context *context = NULL;
    rw_status status = rw_safetensors_open(w->options->input, &w->source.file, w->source.message);
    if (status != RW_OK)
        return status;
    status = find_tensors(w);
    if (status == RW_OK)
        status = rw_context_create(&where, &context, w->source.message);
    if (status == RW_OK)
        status = dequantize(w, context);
    if (status == RW_OK)
        *report = report_of(w, context);
    rw_context_destroy(context);
    rw_safetensors_close(w->source.file);
    return status == RW_OK ? write_values(w) : status;
}

static void free_work(work *w) {
    for (size_t i = 0; i < w->count; i++) {
        quantized *t = &w->tensors[i];
        release_input(t);
        cli_array_free(&t->values);
        free(t->blocks_name);
        free(t->scales_name);
        free(t->values_name);
    }
    free(w->tensors);
}

static int run(const cli_options *options) {
    rw_message message;
    work w = {.options = options, .source = {.path = options->input, .message = &message}};
    if (!find_layout(options, &w.layout))
        return cli_fail(CLI_USAGE, "--layout is \"%s\", expected %s for this --format",
                        options->mx_layout,
                        options->format == RW_MXFP4_E2M1
                            ? "low-first, high-first, split, ggml or front-high-first"
                            : "separate or front");
    json_t *report = NULL;
    rw_status status = do_work(&w, &report);
    int exit_status = CLI_OK;
    if (status != RW_OK)
        exit_status = cli_fail(CLI_FAILED, "%s", message.text);
    else if (options->json)
        exit_status = cli_print_json(json_incref(report));
    json_decref(report);
    free_work(&w);
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
        "scale is in front; and scales, U8 [N], unless the scale is in front. The codes of mxfp8\n"
        "may have the dtype F8_E4M3 or F8_E5M2, scales F8_E8M0. Other tensors are ignored.\n"
        "Output: values [N, 32]. A scale of 255 makes its block NaN.\n\n"
        "A file without blocks has the tensors of a model (gpt-oss): every NAME_blocks, [..., N,\n"
        "bytes of a block] with 2 to 4 axes, and its NAME_scales, [..., N], become NAME, [...,\n"
        "N * 32].\n\n"
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
