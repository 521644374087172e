/* `ropewalk rotate` and `attend` with a config: whether an axis is that of the heads. */
#include "harness/program_support.h"

/* 8 heads of q, 2 of k. */
static const char model[] = "{\"model_type\":\"llama\",\"head_dim\":16,\"num_attention_heads\":8,"
                            "\"num_key_value_heads\":2,\"max_position_embeddings\":64}";
static const char silent[] = "{\"model_type\":\"llama\",\"head_dim\":16,"
                             "\"max_position_embeddings\":64}";

/* Tensors [1, a, b, 16] named "q" and "k"; v has k's shape. */
static void write_heads(const int64_t q[2], const int64_t k[2]) {
    const int64_t q_shape[] = {1, q[0], q[1], 16}, k_shape[] = {1, k[0], k[1], 16};
    held tensors[] = {make("q", RW_F32, 4, q_shape), make("k", RW_F32, 4, k_shape),
                      make("v", RW_F32, 4, k_shape)};
    WRITE("i.safetensors", &tensors[0], &tensors[1], &tensors[2]);
    for (int n = 0; n < 3; n++)
        free(tensors[n].data);
}

typedef struct heads_row {
    int64_t q[2], k[2];
    const char *layout; /* NULL: no option */
    const char *words;  /* NULL: valid */
} heads_row;

static void check_rows(const char *config, const heads_row *rows, size_t count) {
    static const char *const commands[] = {"rotate", "attend"};
    write_text("c.json", config);
    for (size_t n = 0; n < 2 * count; n++) {
        const heads_row *row = &rows[n / 2];
        write_heads(row->q, row->k);
        int status = RUN(commands[n % 2], "--config", "c.json", "--input", "i.safetensors",
                         "--output", "o.safetensors", row->layout);
        if (row->words)
            assert_refused(status, 1, row->words);
        else
            assert_ran(status);
        unlink(in("o.safetensors"));
    }
}

static void test_heads(void **state) {
    (void)state;
    static const heads_row rows[] = {
        {{5, 8}, {5, 2}, NULL, NULL},            /* the model */
        {{5, 4}, {5, 1}, NULL, NULL},            /* shards of it */
        {{3, 2}, {3, 1}, "--layout=bshd", NULL}, /* another */
        {{8, 5}, {2, 5}, "--layout=bhsd", NULL}, /* the other order, given explicitly */
        {{4, 4}, {1, 4}, "--layout=bhsd", NULL}, /* another */
        {{8, 4}, {8, 1}, "--layout=bshd", NULL}, /* 8 positions, given explicitly */
        {{2, 2}, {2, 1}, "--layout=bshd", NULL}, /* another */
        {{8, 5}, {2, 5}, NULL, "q has 5 heads with --layout bshd"},
        {{5, 8}, {2, 5}, NULL, "k has 5 heads with --layout bshd"},
        {{5, 8}, {5, 2}, "--layout=bhsd", "q has 5 heads with --layout bhsd"},
        {{5, 16}, {5, 2}, NULL, "expected the config's 8 or a divisor of them"},
        {{8, 2}, {2, 2}, NULL, "q may have 2 heads of 8 positions or the config's 8 heads of 2"},
        {{8, 4}, {8, 1}, NULL, NULL}, /* k is not the model's in the other order */
        {{2, 8}, {2, 1}, NULL, NULL}, /* nor is q */
    };
    check_rows(model, rows, sizeof rows / sizeof *rows);
}

/* As many heads of k as of q: both orders may match the model or a shard of it. */
static void test_equal_heads(void **state) {
    (void)state;
    static const heads_row rows[] = {
        {{8, 4}, {8, 4}, NULL, "expected --layout to say which"},
        {{8, 4}, {8, 4}, "--layout=bshd", NULL},
        {{8, 4}, {8, 4}, "--layout=bhsd", NULL},
        {{8, 8}, {8, 8}, NULL, NULL}, /* the model in either */
        {{6, 4}, {6, 4}, NULL, NULL},
        {{8, 6}, {8, 6}, NULL, "q has 6 heads"},
    };
    check_rows("{\"model_type\":\"llama\",\"head_dim\":16,\"num_attention_heads\":8,"
               "\"max_position_embeddings\":64}",
               rows, sizeof rows / sizeof *rows);
}

/* A config without the number of heads has its class's default, 32. */
static void test_silent_config(void **state) {
    (void)state;
    static const heads_row rows[] = {{{5, 8}, {5, 4}, NULL, NULL},
                                     {{5, 6}, {5, 3}, NULL, "expected the config's 32"}};
    check_rows(silent, rows, sizeof rows / sizeof *rows);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_equal_heads),
        cmocka_unit_test(test_silent_config),
    };
    return cmocka_run_group_tests_name("heads with a config", tests, make_folder, remove_folder);
}
