#include "pattern_parts.h"

#include <string.h>

#include "common/io_error.h"

rw_status cli_pattern_cuts(const cli_numbers *documents, int64_t end, cli_array *cuts,
                           rw_message *message) {
    int64_t count = 0;
    while (count < documents->count && documents->values[count] < end)
        count++;
    if (count == 0)
        return RW_OK;
    *cuts = (cli_array){.name = "documents", .dtype = RW_I64, .rank = 1, .shape = {count + 1}};
    rw_status status = cli_array_make(cuts, message);
    if (status != RW_OK)
        return status;
    memcpy(cuts->data, documents->values, (size_t)count * sizeof(int64_t));
    ((int64_t *)cuts->data)[count] = end;
    return RW_OK;
}

static rw_status make_globals(const cli_pattern_spec *spec, int64_t seq_k, cli_array *globals,
                              rw_message *message) {
    rw_pattern_globals_list list = {spec->globals.values, spec->globals.count, seq_k};
    *globals =
        (cli_array){.name = "globals", .dtype = RW_U8, .rank = 1, .shape = {(seq_k + 7) / 8}};
    rw_status status = cli_array_make(globals, message);
    return status == RW_OK ? rw_pattern_globals(&list, globals->data, message) : status;
}

/* Reads bits or a mask, and ids. */
static rw_status read_custom(const cli_pattern_spec *spec, cli_pattern_parts *parts,
                             rw_message *message) {
    static const cli_array_rule bits = {"bits", 2, 2, CLI_ARRAY_BYTES, false};
    static const cli_array_rule mask = {"mask", 2, 2, CLI_ARRAY_FLOATS, false};
    static const cli_array_rule positions = {"positions", 1, 1, CLI_ARRAY_IDS, false};
    cli_source source = {.path = spec->custom, .message = message};
    rw_status status = rw_safetensors_open(spec->custom, &source.file, message);
    if (status != RW_OK)
        return status;
    status = cli_array_read(&source, &bits, &parts->bits);
    if (status == RW_OK)
        status = cli_array_read(&source, &mask, &parts->mask);
    if (status == RW_OK)
        status = cli_array_read(&source, &positions, &parts->table);
    if (status == RW_OK && !parts->bits.data && !parts->mask.data)
        status = rwi_io_fail(message, RW_INVALID_ARGUMENT,
                             "%.140s has no tensor \"bits\" or \"mask\"", spec->custom);
    rw_safetensors_close(source.file);
    return status;
}

rw_status cli_pattern_parts_make(const cli_pattern_spec *spec, int64_t seq_k,
                                 cli_pattern_parts *parts, rw_message *message) {
    *parts = (cli_pattern_parts){.globals = {0}};
    rw_status status = RW_OK;
    if (spec->globals.values)
        status = make_globals(spec, seq_k, &parts->globals, message);
    if (status == RW_OK)
        status = cli_pattern_cuts(&spec->documents, seq_k, &parts->documents, message);
    if (status == RW_OK && spec->custom)
        status = read_custom(spec, parts, message);
    return status;
}

void cli_pattern_parts_free(cli_pattern_parts *parts) {
    cli_array *const arrays[] = {&parts->globals, &parts->documents, &parts->bits, &parts->mask,
                                 &parts->table};
    for (size_t n = 0; n < sizeof arrays / sizeof *arrays; n++)
        cli_array_free(arrays[n]);
}

rw_status cli_pattern_upload(rw_context *context, const cli_pattern_spec *spec,
                             const cli_pattern_parts *parts, rw_pattern *pattern) {
    *pattern = (rw_pattern){
        .causal = spec->causal,
        .left = {spec->has_window, spec->window},
        .right = {spec->has_window, spec->window},
        .prefix_length = spec->has_prefix ? spec->prefix : 0,
    };
    rw_status status = cli_array_upload(context, &parts->globals, &pattern->globals);
    if (status == RW_OK)
        status = cli_array_upload(context, &parts->documents, &pattern->cu_seqlens);
    if (status == RW_OK)
        status = cli_array_upload(context, &parts->bits, &pattern->bits);
    if (status == RW_OK)
        status = cli_array_upload(context, &parts->mask, &pattern->mask);
    return status;
}

void cli_pattern_free(rw_context *context, rw_pattern *pattern) {
    rw_free(context, pattern->globals.data);
    rw_free(context, pattern->cu_seqlens.data);
    rw_free(context, pattern->bits.data);
    rw_free(context, pattern->mask.data);
}
