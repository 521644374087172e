/* Patterns in the syntax of the command line: the parser, and what it makes of a text that is
 * valid, on the CPU backend and on the host. */
#include "cli/pattern_parts.h"
#include "cli/pattern_spec.h"
#include "fuzz.h"

#define MAX_KEYS 80
#define MAX_ROW_BYTES ((MAX_KEYS + 7) / 8)

static rw_context *context;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    const rw_context_options options = {.backend = RW_BACKEND_CPU, .num_threads = 1};
    FUZZ_REQUIRE(rw_context_create(&options, &context, NULL) == RW_OK);
    return 0;
}

/* The operation and the host give the same bits. */
static void compare(const rw_pattern *pattern, int64_t seq_q, int64_t seq_k) {
    uint8_t on_device[MAX_KEYS * MAX_ROW_BYTES], on_host[MAX_KEYS * MAX_ROW_BYTES];
    const int64_t row_bytes = (seq_k + 7) / 8, out_shape[] = {seq_q, row_bytes};
    const rw_tensor out = rw_tensor_contiguous(on_device, RW_U8, 2, out_shape);
    const rw_pattern_shape shape = {1, seq_q, seq_k};
    rw_message message = {""};
    rw_status status = rw_pattern_fill_bits(context, pattern, seq_k, &out);
    if (status == RW_OK)
        status = rw_synchronize(context);
    FUZZ_REQUIRE(status == rw_pattern_bake(pattern, &shape, on_host, &message));
    if (status == RW_OK)
        FUZZ_REQUIRE(memcmp(on_device, on_host, (size_t)(seq_q * row_bytes)) == 0);
    else
        fuzz_require_sentence(message.text);
}

static void use(const cli_pattern_spec *spec, int64_t seq_k) {
    cli_pattern_parts parts;
    rw_pattern pattern = {.causal = false};
    rw_message message = {""};
    rw_status status = cli_pattern_parts_make(spec, seq_k, &parts, &message);
    FUZZ_REQUIRE(status == RW_OK);
    status = cli_pattern_upload(context, spec, &parts, &pattern);
    FUZZ_REQUIRE(status == RW_OK);
    compare(&pattern, seq_k, seq_k);
    compare(&pattern, 1, seq_k);
    cli_pattern_free(context, &pattern);
    cli_pattern_parts_free(&parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cli_pattern_spec spec;
    rw_message message = {""};
    char *text = malloc(size + 1);
    FUZZ_REQUIRE(text);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    const int64_t seq_k = 1 + (int64_t)size % MAX_KEYS;
    rw_status status = cli_pattern_parse(text, &spec, &message);
    FUZZ_REQUIRE(status == RW_OK || status == RW_INVALID_ARGUMENT);
    if (status == RW_OK)
        status = cli_pattern_fits(&spec, seq_k, &message);
    if (status != RW_OK)
        fuzz_require_sentence(message.text);
    else if (!spec.custom) /* a file */
        use(&spec, seq_k);
    cli_pattern_release(&spec);
    free(text);
    return 0;
}
