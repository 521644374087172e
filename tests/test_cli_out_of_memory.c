/* Every allocation of the program fails once: it ends with a sentence, exit status 1 and no output
 * file. */
#include "harness/program_support.h"

/* Runs the program with the allocator preloaded that fails number `fail_at`; 0: none. */
static int run_failing(const char *const *arguments, int64_t fail_at) {
    char number[32];
    snprintf(number, sizeof number, "%lld", (long long)fail_at);
    remove(in("count"));
    setenv("RWT_FAIL_ALLOCATION", number, 1);
    setenv("RWT_ALLOCATIONS", in("count"), 1);
    setenv("LD_PRELOAD", RWT_ALLOCATOR, 1);
    const int exit_status = run(arguments);
    unsetenv("LD_PRELOAD");
    return exit_status;
}

static long long allocations(void) {
    char *text = rwt_read_file(in("count"), NULL);
    const long long count = strtoll(text, NULL, 10);
    free(text);
    return count;
}

static void fail_each(const char *const *arguments) {
    assert_ran(run_failing(arguments, 0));
    const long long count = allocations();
    print_message("ropewalk %s: %lld allocations\n", arguments[0], count);
    assert_true(count > 0);
    for (long long n = 1; n <= count; n++) {
        remove(in("o.safetensors"));
        const int exit_status = run_failing(arguments, n);
        if (exit_status != 1)
            fail_msg("ropewalk %s, allocation %lld of %lld: exit status %d", arguments[0], n, count,
                     exit_status);
        assert_refused(exit_status, 1, "memory");
    }
}

#define FAIL_EACH(...) fail_each((const char *const[]){__VA_ARGS__, "--backend", "cpu", NULL})

static void test_commands(void **state) {
    (void)state;
    const int64_t q_shape[] = {1, 3, 4, 16}, k_shape[] = {1, 3, 2, 16}, x_shape[] = {1, 3, 8};
    const int64_t blocks_shape[] = {2, 16}, scales_shape[] = {2};
    held q = make("q", RW_F32, 4, q_shape), k = make("k", RW_F32, 4, k_shape);
    held v = make("v", RW_F32, 4, k_shape), x = make("x", RW_F32, 3, x_shape);
    held table = make("table", RW_F32, 2, x_shape + 1);
    held blocks = make("blocks", RW_U8, 2, blocks_shape);
    held scales = make("scales", RW_U8, 1, scales_shape);
    WRITE("qkv", &q, &k, &v);
    held k_cache = k;
    k_cache.name = "k_cache";
    WRITE("cache", &k, &k_cache);
    WRITE("x", &x, &table);
    WRITE("mx", &blocks, &scales);
    write_text("c.json", "{\"model_type\":\"llama\",\"head_dim\":16,\"num_attention_heads\":4,"
                         "\"num_key_value_heads\":2,\"hidden_size\":64,\"num_hidden_layers\":2}");
    FAIL_EACH("rotate", "--config", "c.json", "--input", "qkv", "--output", "o.safetensors",
              "--check");
    FAIL_EACH("attend", "--input", "qkv", "--output", "o.safetensors", "--pattern",
              "causal,window=2,global=0");
    FAIL_EACH("append", "--input", "cache", "--output", "o.safetensors");
    FAIL_EACH("embed", "--input", "x", "--output", "o.safetensors");
    FAIL_EACH("mask", "--pattern", "causal,documents=0:3", "--seq-q", "5", "--output",
              "o.safetensors");
    FAIL_EACH("dequantize", "--format", "mxfp4", "--layout", "low-first", "--input", "mx",
              "--output", "o.safetensors");
    held *const all[] = {&q, &k, &v, &x, &table, &blocks, &scales};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]->data);
}

/* Commands without --backend. */
static void test_frequencies(void **state) {
    (void)state;
    write_text("c.json", "{\"model_type\":\"llama\",\"head_dim\":16,\"num_hidden_layers\":2}");
    static const char *const text[] = {"frequencies", "--config", "c.json", NULL};
    static const char *const json[] = {"frequencies", "--config", "c.json", "--json", NULL};
    fail_each(text);
    fail_each(json);
}

int main(void) {
    setenv("ROPEWALK_NUM_THREADS", "1", 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_commands),
                                       cmocka_unit_test(test_frequencies)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
