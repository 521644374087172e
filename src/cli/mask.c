/* ropewalk mask: an attention pattern as a mask, as position ids and as a picture. */
#include <stdio.h>

#include "cli.h"
#include "drawing.h"
#include "common/io_error.h"
#include "pattern_parts.h"

/* The results to write. */
typedef struct results {
    cli_array mask;
    cli_array positions;
} results;

/* The inputs of both operations. */
typedef struct inputs {
    cli_pattern_parts parts;
    cli_array id_cuts; /* cu_seqlens of the tokens that get ids */
} inputs;

static rw_status make_results(const cli_options *options, results *out, rw_message *message) {
    out->mask = (cli_array){
        .name = "mask", .dtype = RW_F32, .rank = 2, .shape = {options->seq_q, options->seq_k}};
    out->positions =
        (cli_array){.name = "positions", .dtype = RW_I64, .rank = 1, .shape = {options->seq_q}};
    rw_status status = cli_array_make(&out->mask, message);
    return status == RW_OK ? cli_array_make(&out->positions, message) : status;
}

static void free_all(inputs *in, results *out) {
    cli_pattern_parts_free(&in->parts);
    cli_array_free(&in->id_cuts);
    cli_array_free(&out->mask);
    cli_array_free(&out->positions);
}

/* The ids for a pattern table: those of a pure window, with or without globals. */
static rw_pattern_ids ids_of(const cli_pattern_spec *spec, const inputs *in) {
    if (in->parts.table.data)
        return RW_PATTERN_IDS_CUSTOM;
    if (!spec->has_window || spec->causal || spec->has_prefix || spec->custom)
        return RW_PATTERN_IDS_SEQUENTIAL;
    return spec->globals.values ? RW_PATTERN_IDS_GLOBAL_LOCAL : RW_PATTERN_IDS_LOCAL;
}

/* The arguments of both operations, on the device. */
typedef struct bound {
    rw_pattern pattern;
    rw_pattern_positions_args ids;
    rw_tensor mask;
} bound;

static rw_status upload(rw_context *context, const cli_pattern_spec *spec, const inputs *in,
                        const results *out, bound *to) {
    to->ids = (rw_pattern_positions_args){.ids = ids_of(spec, in), .window = spec->window};
    rw_status status = cli_pattern_upload(context, spec, &in->parts, &to->pattern);
    const struct {
        const cli_array *array;
        rw_tensor *tensor;
    } uploads[] = {
        {&in->parts.table, &to->ids.table},
        {&in->id_cuts, &to->ids.cu_seqlens},
        {&out->positions, &to->ids.out},
        {&out->mask, &to->mask},
    };
    for (size_t n = 0; n < sizeof uploads / sizeof *uploads && status == RW_OK; n++)
        status = cli_array_upload(context, uploads[n].array, uploads[n].tensor);
    to->ids.globals = to->pattern.globals;
    return status;
}

static void release(rw_context *context, bound *to) {
    rw_tensor *const tensors[] = {&to->ids.table, &to->ids.cu_seqlens, &to->ids.out, &to->mask};
    cli_pattern_free(context, &to->pattern);
    for (size_t n = 0; n < sizeof tensors / sizeof *tensors; n++)
        rw_free(context, tensors[n]->data);
}

/* A table gives ids to tokens, not to positions in a document. */
static rw_status fill(rw_context *context, bound *to, results *out) {
    if (to->ids.ids == RW_PATTERN_IDS_CUSTOM)
        to->ids.cu_seqlens.rank = 0;
    rw_status status = rw_pattern_fill(context, &to->pattern, &to->mask);
    if (status == RW_OK)
        status = rw_pattern_positions(context, &to->ids);
    if (status == RW_OK)
        status = rw_synchronize(context);
    if (status == RW_OK)
        status = cli_array_download(context, &to->mask, &out->mask);
    if (status == RW_OK)
        status = cli_array_download(context, &to->ids.out, &out->positions);
    return status;
}

static rw_status fill_on(const cli_options *options, const cli_pattern_spec *spec, const inputs *in,
                         results *out, char on[64], rw_message *message) {
    rw_context_options where = cli_context_options(options);
    rw_context *context;
    bound to = {.mask = {0}};
    rw_status status = rw_context_create(&where, &context, message);
    if (status != RW_OK)
        return status;
    rw_context_info info = rw_context_get_info(context);
    snprintf(on, 64, "%s", cli_label(&info).text);
    status = upload(context, spec, in, out, &to);
    if (status == RW_OK)
        status = fill(context, &to, out);
    if (status != RW_OK)
        rwi_io_fail(message, status, "%s", rw_last_error(context));
    release(context, &to);
    rw_context_destroy(context);
    return status;
}

static int64_t count_seen(const cli_picture *picture) {
    int64_t seen = 0;
    for (int64_t n = 0; n < picture->seq_q * picture->seq_k; n++)
        seen += picture->mask[n] == 0.0f;
    return seen;
}

/* Shows the picture with a summary, or prints JSON. */
static int show(const cli_options *options, const cli_picture *picture, const char *on) {
    long long seen = (long long)count_seen(picture);
    long long cells = (long long)(picture->seq_q * picture->seq_k);
    if (options->json) {
        json_t *report =
            json_pack("{s:s, s:I, s:I, s:I, s:s, s:s?, s:s?}", "pattern", options->pattern, "seq_q",
                      (json_int_t)picture->seq_q, "seq_k", (json_int_t)picture->seq_k, "visible",
                      (json_int_t)seen, "on", on, "output", options->output, "png", options->png);
        return cli_print_json(report);
    }
    cli_draw(picture);
    printf("%s: %lld queries (rows) x %lld keys (columns), %lld of %lld pairs visible\n",
           options->pattern, (long long)picture->seq_q, (long long)picture->seq_k, seen, cells);
    return CLI_OK;
}

static int run_spec(const cli_options *options, const cli_pattern_spec *spec) {
    inputs in = {.id_cuts = {0}};
    results out = {.mask = {0}};
    rw_message message = {""};
    char on[64] = "";
    rw_status status = cli_pattern_parts_make(spec, options->seq_k, &in.parts, &message);
    if (status == RW_OK)
        status = cli_pattern_cuts(&spec->documents, options->seq_q, &in.id_cuts, &message);
    if (status == RW_OK)
        status = make_results(options, &out, &message);
    if (status == RW_OK)
        status = fill_on(options, spec, &in, &out, on, &message);
    const cli_picture picture = {out.mask.data, options->seq_q, options->seq_k};
    const cli_array *const output[] = {&out.mask, &out.positions};
    if (status == RW_OK && options->png)
        status = cli_write_png(options->png, &picture, &message);
    if (status == RW_OK && options->output)
        status = cli_arrays_write(options->output, output, 2, &message);
    int exit_status =
        status == RW_OK ? show(options, &picture, on) : cli_fail(CLI_FAILED, "%s", message.text);
    free_all(&in, &out);
    return exit_status;
}

static int run(const cli_options *given) {
    cli_options options = *given;
    cli_pattern_spec spec;
    rw_message message;
    int exit_status;
    if (!(options.given & CLI_OPTION_SEQ_K))
        options.seq_k = options.seq_q;
    rw_status status = cli_pattern_parse(options.pattern, &spec, &message);
    if (status == RW_OK)
        status = cli_pattern_fits(&spec, options.seq_k, &message);
    if (status == RW_OK)
        exit_status = run_spec(&options, &spec);
    else
        exit_status =
            cli_fail(status == RW_OUT_OF_MEMORY ? CLI_FAILED : CLI_USAGE, "%s", message.text);
    cli_pattern_release(&spec);
    return exit_status;
}

const cli_command cli_mask = {
    .name = "mask",
    .summary = "Show which keys an attention pattern lets each query see",
    .required = CLI_OPTION_PATTERN | CLI_OPTION_SEQ_Q,
    .options = CLI_OPTION_SEQ_K | CLI_OPTION_OUTPUT | CLI_OPTION_PNG | CLI_OPTION_BACKEND |
               CLI_OPTION_JSON,
    .operands = "",
    .details = CLI_PATTERN_HELP,
    .run = run,
};
