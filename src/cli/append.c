/* ropewalk append: writes the k and v of new tokens of a file to the caches of the file. */
#include "common/io_error.h"
#include "work.h"

/* The tensors of the file. */
enum {
    K,
    V,
    K_CACHE,
    V_CACHE,
    BLOCK_TABLE,
    OFFSETS,
    CU_SEQLENS,
    SLOTS,
    K_SCALE,
    V_SCALE,
    NUM_TENSORS
};

typedef struct append {
    const cli_options *options;
    cli_array tensors[NUM_TENSORS];
} append;

static rw_status read_input(append *a, rw_message *message) {
    static const cli_array_rule rules[NUM_TENSORS] = {
        [K] = {"k", 3, 4, CLI_ARRAY_FLOATS, true},
        [V] = {"v", 3, 4, CLI_ARRAY_FLOATS, false},
        [K_CACHE] = {"k_cache", 4, 4, CLI_ARRAY_CACHE, true},
        [V_CACHE] = {"v_cache", 4, 4, CLI_ARRAY_CACHE, false},
        [BLOCK_TABLE] = {"block_table", 2, 2, CLI_ARRAY_IDS, false},
        [OFFSETS] = {"offsets", 1, 1, CLI_ARRAY_IDS, false},
        [CU_SEQLENS] = {"cu_seqlens", 1, 1, CLI_ARRAY_IDS, false},
        [SLOTS] = {"slots", 1, 2, CLI_ARRAY_IDS, false},
        [K_SCALE] = {"k_scale", 1, 1, CLI_ARRAY_FLOATS, false},
        [V_SCALE] = {"v_scale", 1, 1, CLI_ARRAY_FLOATS, false},
    };
    cli_source source = {.path = a->options->input, .message = message};
    rw_status status = rw_safetensors_open(source.path, &source.file, message);
    for (int i = 0; i < NUM_TENSORS && status == RW_OK; i++)
        status = cli_array_read(&source, &rules[i], &a->tensors[i]);
    rw_safetensors_close(source.file);
    return status;
}

static rw_status append_in(const append *a, rw_context *context, rw_tensor *on,
                           cli_outcome *outcome) {
    rw_status status = RW_OK;
    for (int i = 0; i < NUM_TENSORS && status == RW_OK; i++)
        status = cli_array_upload(context, &a->tensors[i], &on[i]);
    if (status != RW_OK)
        return status;
    const rw_kv_append_args args = {
        .k = on[K],
        .v = on[V],
        .cache = {.k = on[K_CACHE],
                  .v = on[V_CACHE],
                  .block_table = on[BLOCK_TABLE],
                  .ring = a->options->ring,
                  .k_scale = on[K_SCALE],
                  .v_scale = on[V_SCALE]},
        .offsets = on[OFFSETS],
        .offset = a->options->offset,
        .cu_seqlens = on[CU_SEQLENS],
        .slots = on[SLOTS],
    };
    status = rw_kv_append(context, &args);
    if (status == RW_OK)
        status = rw_synchronize(context);
    for (int side = 0; side < 2 && status == RW_OK; side++)
        status = cli_array_download(context, &on[K_CACHE + side], &outcome->arrays[side]);
    return status;
}

static rw_status run_on(const void *of, rw_context *context, cli_outcome *outcome,
                        rw_message *message) {
    const append *a = of;
    rw_tensor on[NUM_TENSORS] = {{0}};
    rw_status status = RW_OK;
    for (int side = 0; side < 2 && status == RW_OK; side++)
        status = cli_array_like(&a->tensors[K_CACHE + side], &outcome->arrays[side], message);
    if (status != RW_OK)
        return status;
    status = append_in(a, context, on, outcome);
    if (status != RW_OK)
        rwi_io_fail(message, status, "%s", rw_last_error(context));
    for (int i = 0; i < NUM_TENSORS; i++)
        rw_free(context, on[i].data);
    return status;
}

static json_t *describe(const void *of) {
    const append *a = of;
    const cli_array *k = &a->tensors[K];
    const int64_t batch = k->rank == 4 ? k->shape[0] : 1;
    return json_pack("{s:I, s:I, s:I, s:s}", "tokens", (json_int_t)(batch * k->shape[k->rank - 3]),
                     "kv_heads", (json_int_t)k->shape[k->rank - 2], "head_dim",
                     (json_int_t)k->shape[k->rank - 1], "cache_dtype",
                     rw_dtype_name(a->tensors[K_CACHE].dtype));
}

static int run(const cli_options *options) {
    append a = {.options = options};
    rw_message message;
    rw_status status = read_input(&a, &message);
    const cli_work work = {
        /* the backends must agree in every bit */
        .options = options, .verb = "appended", .of = &a, .run = run_on, .describe = describe,
    };
    int exit_status =
        status == RW_OK ? cli_work_do(&work) : cli_fail(CLI_FAILED, "%s", message.text);
    for (int i = 0; i < NUM_TENSORS; i++)
        cli_array_free(&a.tensors[i]);
    return exit_status;
}

const cli_command cli_append = {
    .name = "append",
    .summary = "Append the k and v of a safetensors file to the KV cache in it",
    .required = CLI_OPTION_INPUT | CLI_OPTION_OUTPUT,
    .options = CLI_OPTION_OFFSET | CLI_OPTION_RING | CLI_OPTION_CHECK | CLI_OPTION_BACKEND |
               CLI_OPTION_JSON,
    .operands = "",
    .details =
        "Input: k, F32, F16 or BF16 [batch, seq, kv_heads, head_dim] or packed [tokens, kv_heads,\n"
        "head_dim]; v, as k; k_cache and v_cache, [batch, max_seq, kv_heads, head_dim] or, with\n"
        "block_table or slots, [pages, page_size, kv_heads, head_dim], of k's dtype or F8_E4M3 or\n"
        "F8_E5M2. v and v_cache may both be absent. Also, if there are any:\n"
        "  block_table       I32 or I64 [batch, max_pages]: the page of each part of a sequence\n"
        "  offsets           I32 or I64 [batch]: tokens that are already in the cache\n"
        "  cu_seqlens        I32 or I64 [batch + 1]: where the sequences of packed tokens begin\n"
        "  slots             I32 or I64 [batch, seq] or packed [tokens]: page * page_size + place\n"
        "                    of each token, -1 for none\n"
        "  k_scale, v_scale  F32 [1] or [kv_heads]: the numbers of an 8-bit cache are code * "
        "scale\n"
        "Output: k_cache and v_cache.\n\n"
        "--check compares each other backend with the first: any difference is an error, and\n"
        "nothing is written.\n",
    .run = run,
};
