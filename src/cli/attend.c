/* ropewalk attend: attention over the q, k and v of a file. */
#include <string.h>

#include "common/io_error.h"
#include "pattern_parts.h"
#include "rotation.h"
#include "work.h"

/* The requested attention. */
typedef struct attention {
    const cli_options *options;
    cli_rotation rotation; /* holds q, k and, with --config, the positions and the model */
    cli_array v, mask;
    cli_array cu_q, cu_k, table, key_end, k_scale, v_scale; /* of ragged batches and caches */
    cli_pattern_spec spec;
    cli_pattern_parts parts;
} attention;

/* The axes of the file. */
enum {
    BATCH = 0,
    WIDTH = 3
};

static int heads_axis(const attention *a) {
    return a->options->bhsd ? 1 : 2;
}

static int seq_axis(const attention *a) {
    return a->options->bhsd ? 2 : 1;
}

/* ---- input ---- */

/* The lengths and pages, which determine the axes of q, k and v, and the scales. */
static rw_status read_lengths(const cli_source *source, attention *a) {
    static const cli_array_rule rules[] = {
        {"cu_seqlens_q", 1, 1, CLI_ARRAY_IDS, false}, {"cu_seqlens_k", 1, 1, CLI_ARRAY_IDS, false},
        {"block_table", 2, 2, CLI_ARRAY_IDS, false},  {"key_end", 1, 1, CLI_ARRAY_IDS, false},
        {"k_scale", 1, 1, CLI_ARRAY_FLOATS, false},   {"v_scale", 1, 1, CLI_ARRAY_FLOATS, false}};
    cli_array *const arrays[] = {&a->cu_q,    &a->cu_k,    &a->table,
                                 &a->key_end, &a->k_scale, &a->v_scale};
    rw_status status = RW_OK;
    for (size_t n = 0; n < sizeof rules / sizeof *rules && status == RW_OK; n++)
        status = cli_array_read(source, &rules[n], arrays[n]);
    for (size_t n = 0; n < sizeof rules / sizeof *rules && status == RW_OK; n++)
        if (arrays[n]->data && (a->options->bhsd || a->options->config))
            return rwi_io_fail(source->message, RW_INVALID_ARGUMENT,
                               "%.80s has %s, which excludes --%s", source->path, rules[n].name,
                               a->options->bhsd ? "layout bhsd" : "config");
    if (status == RW_OK && a->cu_k.data && !a->cu_q.data)
        return rwi_io_fail(source->message, RW_INVALID_ARGUMENT,
                           "%.80s has cu_seqlens_k, but no cu_seqlens_q", source->path);
    return status;
}

/* Adds the axis of the batch to packed rows. */
static void give_batch(cli_array *array) {
    if (array->rank != 3)
        return;
    memmove(array->shape + 1, array->shape, 3 * sizeof *array->shape);
    array->shape[0] = 1;
    array->rank = 4;
}

static rw_status read_arrays(const cli_source *source, attention *a) {
    const int q_rank = a->cu_q.data ? 3 : 4, k_rank = a->cu_k.data ? 3 : 4;
    const cli_array_kind kind = a->options->config ? CLI_ARRAY_FLOATS : CLI_ARRAY_CACHE;
    const cli_array_rule rules[] = {{"q", q_rank, q_rank, CLI_ARRAY_FLOATS, true},
                                    {"k", k_rank, k_rank, kind, true},
                                    {"v", k_rank, k_rank, kind, true},
                                    {"mask", 2, 4, CLI_ARRAY_MASK, false},
                                    {"positions", 1, 3, CLI_ARRAY_IDS, false}};
    cli_array *const arrays[] = {&a->rotation.q, &a->rotation.k, &a->v, &a->mask,
                                 &a->rotation.positions};
    const size_t count = a->options->config ? 5 : 4;
    rw_status status = RW_OK;
    for (size_t n = 0; n < count && status == RW_OK; n++)
        status = cli_array_read(source, &rules[n], arrays[n]);
    for (size_t n = 0; n < 3 && status == RW_OK; n++)
        give_batch(arrays[n]);
    return status;
}

static rw_status read_input(attention *a, rw_message *message) {
    cli_source source = {.path = a->options->input, .message = message};
    rw_status status = rw_safetensors_open(source.path, &source.file, message);
    if (status != RW_OK)
        return status;
    status = read_lengths(&source, a);
    if (status == RW_OK)
        status = read_arrays(&source, a);
    rw_safetensors_close(source.file);
    return status;
}

/* The most keys of a sequence. */
static int64_t seq_k_of(const attention *a) {
    const int64_t keys = a->rotation.k.shape[seq_axis(a)];
    return a->table.data ? a->table.shape[1] * keys : keys;
}

/* Reports errors with the lengths of the file, before the axes are permuted for the library. */
static rw_status check_lengths(const attention *a, rw_message *message) {
    const cli_array *q = &a->rotation.q, *k = &a->rotation.k, *v = &a->v;
    const struct {
        const cli_array *array, *like;
        const char *what;
        int axis;
    } rows[] = {
        {k, q, "sequences in its batch", BATCH}, {k, q, "columns in each head", WIDTH},
        {v, k, "sequences in its batch", BATCH}, {v, k, "heads", heads_axis(a)},
        {v, k, "positions", seq_axis(a)},
    };
    const bool batches = !a->cu_q.data && !a->table.data; /* of q and k */
    for (size_t n = batches ? 0 : 1; n < sizeof rows / sizeof *rows; n++) {
        int64_t length = rows[n].array->shape[rows[n].axis];
        int64_t expected = rows[n].like->shape[rows[n].axis];
        if (length != expected)
            return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                               "%.80s: %s has %lld %s, expected %s's "
                               "%lld",
                               a->options->input, rows[n].array->name, (long long)length,
                               rows[n].what, rows[n].like->name, (long long)expected);
    }
    return RW_OK;
}

/* GQA: the heads of k are a divisor of those of q. */
static rw_status check_group(const attention *a, rw_message *message) {
    int64_t heads = a->rotation.q.shape[heads_axis(a)];
    int64_t kv_heads = a->rotation.k.shape[heads_axis(a)];
    if (heads == 0 || (kv_heads != 0 && heads % kv_heads == 0))
        return RW_OK;
    return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                       "%.80s: k has %lld heads, expected a divisor of the %lld of q",
                       a->options->input, (long long)kv_heads, (long long)heads);
}

/* --config gives the queries the positions of the last keys. */
static rw_status check_rotation(attention *a, rw_message *message) {
    int64_t seq_q = a->rotation.q.shape[seq_axis(a)], seq_k = a->rotation.k.shape[seq_axis(a)];
    rw_status status = cli_rotation_prepare(&a->rotation, message);
    if (status != RW_OK || seq_q <= seq_k)
        return status;
    return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                       "%.80s: q has %lld positions, expected at most k's %lld: --config rotates "
                       "the queries as the last of them",
                       a->options->input, (long long)seq_q, (long long)seq_k);
}

/* Adds the axis of heads to a mask of 3 axes, whose first axis is the batch. */
static void give_mask_heads(cli_array *mask) {
    if (!mask->data || mask->rank != 3)
        return;
    mask->rank = 4;
    mask->shape[3] = mask->shape[2];
    mask->shape[2] = mask->shape[1];
    mask->shape[1] = 1;
}

static rw_status prepare(attention *a, rw_message *message) {
    rw_status status = read_input(a, message);
    if (status == RW_OK)
        status = check_lengths(a, message);
    if (status == RW_OK && a->options->config)
        status = check_rotation(a, message);
    if (status == RW_OK)
        status = check_group(a, message);
    if (status != RW_OK)
        return status;
    give_mask_heads(&a->mask);
    int64_t seq_k = seq_k_of(a);
    status = cli_pattern_fits(&a->spec, seq_k, message);
    return status == RW_OK ? cli_pattern_parts_make(&a->spec, seq_k, &a->parts, message) : status;
}

/* ---- on a backend ---- */

static rw_status make_outputs(const attention *a, cli_outcome *outcome, rw_message *message) {
    const cli_array *q = &a->rotation.q;
    cli_array *o = &outcome->arrays[0], *lse = &outcome->arrays[1];
    *o = (cli_array){.name = "o", .dtype = q->dtype, .rank = 4};
    for (int axis = 0; axis < WIDTH; axis++)
        o->shape[axis] = q->shape[axis];
    o->shape[WIDTH] = a->v.shape[WIDTH];
    *lse = (cli_array){
        .name = "lse",
        .dtype = RW_F32,
        .rank = 3,
        .shape = {q->shape[BATCH], q->shape[heads_axis(a)], q->shape[seq_axis(a)]},
    };
    if (a->cu_q.data) { /* packed */
        memmove(o->shape, o->shape + 1, 3 * sizeof *o->shape);
        memmove(lse->shape, lse->shape + 1, 2 * sizeof *lse->shape);
        o->rank--;
        lse->rank--;
    }
    rw_status status = cli_array_make(o, message);
    return status == RW_OK ? cli_array_make(lse, message) : status;
}

/* Tensors on the device, as stored. */
typedef struct bound {
    cli_rotation_tensors rotation;
    rw_tensor v, mask, o, lse;
    rw_tensor cu_q, cu_k, table, key_end, k_scale, v_scale;
    rw_pattern pattern;
    rw_alibi alibi;
} bound;

static rw_status make_slopes(rw_context *context, int64_t heads, rw_tensor *slopes) {
    void *memory;
    rw_status status = rw_alloc(context, (size_t)heads * sizeof(float), &memory);
    if (status != RW_OK)
        return status;
    *slopes = rw_tensor_contiguous(memory, RW_F32, 1, &heads);
    rw_alibi_slopes_args args = {.out = *slopes, .total_heads = heads};
    return rw_alibi_slopes(context, &args);
}

static rw_status upload(const attention *a, rw_context *context, const cli_outcome *outcome,
                        bound *on) {
    const struct {
        const cli_array *array;
        rw_tensor *tensor;
    } uploads[] = {
        {&a->rotation.q, &on->rotation.q},
        {&a->rotation.k, &on->rotation.k},
        {&a->rotation.positions, &on->rotation.positions},
        {&a->v, &on->v},
        {&a->mask, &on->mask},
        {&a->cu_q, &on->cu_q},
        {&a->cu_k, &on->cu_k},
        {&a->table, &on->table},
        {&a->key_end, &on->key_end},
        {&a->k_scale, &on->k_scale},
        {&a->v_scale, &on->v_scale},
        {&outcome->arrays[0], &on->o},
        {&outcome->arrays[1], &on->lse},
    };
    rw_status status = cli_pattern_upload(context, &a->spec, &a->parts, &on->pattern);
    for (size_t n = 0; n < sizeof uploads / sizeof *uploads && status == RW_OK; n++)
        status = cli_array_upload(context, uploads[n].array, uploads[n].tensor);
    int64_t heads = a->rotation.q.shape[heads_axis(a)];
    on->pattern.key_end = on->key_end;
    if (a->key_end.data)
        on->pattern.alignment = RW_ALIGN_KEY_END;
    on->alibi.alignment = on->pattern.alignment;
    if (status == RW_OK && a->options->alibi && heads > 0)
        status = make_slopes(context, heads, &on->alibi.slopes);
    return status;
}

static void release(rw_context *context, bound *on) {
    rw_tensor *const tensors[] = {&on->rotation.q, &on->rotation.k,   &on->rotation.positions,
                                  &on->v,          &on->mask,         &on->o,
                                  &on->lse,        &on->alibi.slopes, &on->cu_q,
                                  &on->cu_k,       &on->table,        &on->key_end,
                                  &on->k_scale,    &on->v_scale};
    cli_pattern_free(context, &on->pattern);
    for (size_t n = 0; n < sizeof tensors / sizeof *tensors; n++)
        rw_free(context, tensors[n]->data);
}

/* The tensor without the axis of the batch, if it is packed. */
static rw_tensor as_packed(const cli_array *bounds, rw_tensor tensor) {
    if (!bounds->data)
        return tensor;
    return rw_tensor_contiguous(tensor.data, tensor.dtype, 3, tensor.shape + 1);
}

static rw_status attend(const attention *a, rw_context *context, const bound *on,
                        cli_outcome *outcome) {
    rw_attention_args args = {
        .q = as_packed(&a->cu_q, cli_as_bshd(a->options, on->rotation.q)),
        .k = as_packed(&a->cu_k, cli_as_bshd(a->options, on->rotation.k)),
        .v = as_packed(&a->cu_k, cli_as_bshd(a->options, on->v)),
        .block_table = on->table,
        .out = a->cu_q.data ? on->o : cli_as_bshd(a->options, on->o),
        .lse = on->lse,
        .scale = a->options->scale,
        .softcap = a->options->softcap,
        .mask = on->mask,
        .pattern = &on->pattern,
        .alibi = on->alibi.slopes.data ? &on->alibi : NULL,
        .cu_seqlens_q = on->cu_q,
        .cu_seqlens_k = on->cu_k,
        .k_scale = on->k_scale,
        .v_scale = on->v_scale,
    };
    rw_status status = rw_attention(context, &args);
    if (status == RW_OK)
        status = rw_synchronize(context);
    if (status == RW_OK)
        status = cli_array_download(context, &on->o, &outcome->arrays[0]);
    if (status == RW_OK)
        status = cli_array_download(context, &on->lse, &outcome->arrays[1]);
    return status;
}

static rw_status run_on(const void *of, rw_context *context, cli_outcome *outcome,
                        rw_message *message) {
    const attention *a = of;
    bound on = {.mask = {0}};
    rw_status status = make_outputs(a, outcome, message);
    if (status != RW_OK)
        return status;
    status = upload(a, context, outcome, &on);
    if (status != RW_OK)
        rwi_io_fail(message, status, "%s", rw_last_error(context));
    if (status == RW_OK && a->options->config)
        status = cli_rotation_apply(&a->rotation, context, &on.rotation, message);
    if (status == RW_OK && (status = attend(a, context, &on, outcome)) != RW_OK)
        rwi_io_fail(message, status, "%s", rw_last_error(context));
    release(context, &on);
    return status;
}

/* ---- the command ---- */

static json_t *describe(const void *of) {
    const attention *a = of;
    const cli_array *q = &a->rotation.q, *k = &a->rotation.k;
    const int64_t batch = a->cu_q.data ? a->cu_q.shape[0] - 1 : q->shape[BATCH];
    return json_pack("{s:s?, s:I, s:I, s:I, s:I, s:I}", "pattern", a->options->pattern, "batch",
                     (json_int_t)batch, "heads", (json_int_t)q->shape[heads_axis(a)], "kv_heads",
                     (json_int_t)k->shape[heads_axis(a)], "seq_q",
                     (json_int_t)q->shape[seq_axis(a)], "seq_k", (json_int_t)seq_k_of(a));
}

static int run_attention(attention *a) {
    const cli_work work = {
        .options = a->options,
        .verb = "attended",
        .of = a,
        .run = run_on,
        .describe = describe,
        .tolerances = {{.units = 1, .share = 0.001}, {.share = 0.001, .least = 1}},
    };
    rw_message message;
    rw_status status = RW_OK;
    if (a->options->config)
        status = cli_rotation_load(&a->rotation, a->options, &message);
    a->rotation.queries_are_last = true;
    if (status == RW_OK)
        status = prepare(a, &message);
    return status == RW_OK ? cli_work_do(&work) : cli_fail(CLI_FAILED, "%s", message.text);
}

static int run(const cli_options *options) {
    const unsigned of_config = CLI_OPTION_LAYER_TYPE | CLI_OPTION_PAIRING | CLI_OPTION_OFFSET;
    attention a = {.options = options};
    rw_message message;
    if (!options->config && options->given & of_config)
        return cli_fail(CLI_USAGE, "--layer-type, --pairing and --offset require --config; see "
                                   "ropewalk attend --help");
    int exit_status;
    rw_status status = RW_OK;
    if (options->pattern)
        status = cli_pattern_parse(options->pattern, &a.spec, &message);
    if (status == RW_OK)
        exit_status = run_attention(&a);
    else
        exit_status =
            cli_fail(status == RW_OUT_OF_MEMORY ? CLI_FAILED : CLI_USAGE, "%s", message.text);
    cli_rotation_free(&a.rotation);
    cli_array_free(&a.v);
    cli_array_free(&a.mask);
    cli_array_free(&a.cu_q);
    cli_array_free(&a.cu_k);
    cli_array_free(&a.table);
    cli_array_free(&a.key_end);
    cli_array_free(&a.k_scale);
    cli_array_free(&a.v_scale);
    cli_pattern_parts_free(&a.parts);
    cli_pattern_release(&a.spec);
    return exit_status;
}

const cli_command cli_attend = {
    .name = "attend",
    .summary = "Attention over the q, k and v of a safetensors file",
    .required = CLI_OPTION_INPUT | CLI_OPTION_OUTPUT,
    .options = CLI_OPTION_PATTERN | CLI_OPTION_SCALE | CLI_OPTION_SOFTCAP | CLI_OPTION_ALIBI |
               CLI_OPTION_CONFIG | CLI_OPTION_LAYER_TYPE | CLI_OPTION_PAIRING | CLI_OPTION_OFFSET |
               CLI_OPTION_LAYOUT | CLI_OPTION_CHECK | CLI_OPTION_BACKEND | CLI_OPTION_JSON,
    .operands = "",
    .details =
        "Input: q, k and v of one dtype, F32, F16 or BF16; layout bshd is [batch, seq, heads,\n"
        "head_dim], bhsd is [batch, heads, seq, head_dim]. The heads of k and v may be a divisor\n"
        "of q's (GQA, MQA), and v may have a width of its own. mask, if any, is added to the\n"
        "scores: F32, F16 or BF16 [seq_q, seq_k], [batch, seq_q, seq_k] or [batch, heads, seq_q,\n"
        "seq_k]; an axis of 1, except the last, is broadcast. BOOL or U8: 0 hides the key.\n"
        "Output: o in q's dtype and layout with the width of v; lse, F32 [batch, heads, seq_q],\n"
        "the logarithm of the sum of the exponentials of each query's scores. If a query sees no\n"
        "key, o is 0 and lse -inf.\n\n"
        "Ragged batches: cu_seqlens_q, I32 or I64 [batch + 1], makes q [tokens, heads, head_dim],\n"
        "o likewise and lse [heads, tokens]; tokens behind the last bound are padding, 0 in o and\n"
        "lse. k and v are [batch, seq, heads, width] or, with cu_seqlens_k, [tokens, heads,\n"
        "width]. block_table, I32 or I64 [batch, max_pages], makes k and v pages of a cache,\n"
        "[pages, page_size, heads, width]. key_end, I32 or I64 [batch], is the number of keys of\n"
        "each sequence; the last query is then aligned with the last of these. They exclude\n"
        "layout bhsd and --config.\n\n"
        "k and v may be F8_E4M3 or F8_E5M2: their numbers are then multiplied by k_scale and\n"
        "v_scale, F32 [1] or [heads of k], if the file has these.\n\n"
        "Without --pattern a query sees every key. The last query is aligned with the last key:\n"
        "fewer queries than keys are the last positions.\n\n"
        "--config rotates q and k first, as ropewalk rotate does; the file may contain positions,\n"
        "one for each key. Fewer queries than keys have the last ids; more are refused. Without\n"
        "--config, positions are ignored. Documents do not restart the ids: to restart them, put\n"
        "the positions written by ropewalk mask into the file.\n\n"
        "--check compares each other backend with the first, relative to the largest value of\n"
        "the same head of the same token (lse: of the same head, at least 1). A difference of\n"
        "more than 0.1%, plus one unit of rounding in o, is an error: nothing is "
        "written.\n\n" CLI_PATTERN_HELP,
    .run = run,
};
