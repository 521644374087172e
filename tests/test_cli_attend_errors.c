/* `ropewalk attend`: every invalid option, input and output. */
#include "harness/program_support.h"

static const int64_t q_shape[] = {2, 7, 4, 16}, k_shape[] = {2, 7, 2, 16};

static void write_valid_input(void) {
    held q = make("q", RW_F32, 4, q_shape), k = make("k", RW_F32, 4, k_shape);
    held v = make("v", RW_F32, 4, k_shape);
    WRITE("i.safetensors", &q, &k, &v);
    free(q.data);
    free(k.data);
    free(v.data);
}

static void test_usage(void **state) {
    (void)state;
    static const char *const wrong[][3] = {
        {"--scale", "nan", "--scale"},
        {"--scale", "inf", "--scale"},
        {"--scale", "0", "--scale"},
        {"--scale", "1e-60", "--scale"},
        {"--scale", "1x", "--scale"},
        {"--scale", "", "--scale"},
        {"--softcap", "-1", "--softcap"},
        {"--softcap", "0", "--softcap"},
        {"--softcap", "NaN", "--softcap"},
        {"--pattern", "caus", "--pattern"},
        {"--pattern", "causal,bidirectional", "--pattern"},
        {"--layout", "sbhd", "--layout"},
        {"--backend", "cuda", "--backend"},
        {"--offset", "1", "--config"},
        {"--pairing", "half", "--config"},
        {"--inverse", "--json", "inverse"},
        {"--alibi=1", "--json", "alibi"},
    };
    write_valid_input();
    for (size_t n = 0; n < sizeof wrong / sizeof *wrong; n++)
        assert_refused(RUN("attend", "--input", "i.safetensors", "--output", "o.safetensors",
                           wrong[n][0], wrong[n][1]),
                       2, wrong[n][2]);
    assert_refused(RUN("attend", "--input", "i.safetensors"), 2, "--output");
    assert_ran(RUN("attend", "--help"));
}

/* Each invalid input, and words of its sentence. */
static void test_refuses(void **state) {
    (void)state;
    static const int64_t three[] = {2, 7, 3, 16}, shorter[] = {2, 6, 2, 16},
                         batch[] = {1, 7, 2, 16};
    static const int64_t narrow[] = {2, 7, 2, 8}, broad[] = {2, 7, 4, 577}, flat[] = {2, 7, 16};
    static const int64_t mask_shape[] = {7, 6}, last[] = {7, 1}, wide[] = {3, 7, 7};
    held q = make("q", RW_F32, 4, q_shape), k = make("k", RW_F32, 4, k_shape);
    held v = make("v", RW_F32, 4, k_shape), half = make("k", RW_F16, 4, k_shape);
    held k3 = make("k", RW_F32, 4, three), v3 = make("v", RW_F32, 4, three);
    held v6 = make("v", RW_F32, 4, shorter), k1 = make("k", RW_F32, 4, batch);
    held k8 = make("k", RW_F32, 4, narrow), v2 = make("v", RW_BF16, 4, k_shape);
    held q577 = make("q", RW_F32, 4, broad), k577 = make("k", RW_F32, 4, broad);
    held v577 = make("v", RW_F32, 4, broad), low = make("q", RW_F32, 3, flat);
    held ints = make("v", RW_I32, 4, k_shape), mask = make("mask", RW_F32, 2, mask_shape);
    held column = make("mask", RW_F32, 2, last), ids = make("mask", RW_I64, 2, last);
    held batches = make("mask", RW_F32, 3, wide);
    const struct {
        const held *tensors[4];
        const char *words;
    } rows[] = {
        {{&k, &v}, "no tensor \"q\""},
        {{&q, &v}, "no tensor \"k\""},
        {{&q, &k}, "no tensor \"v\""},
        {{&low, &k, &v}, "q has shape [2, 7, 16], expected 4 axes"},
        {{&q, &half, &v}, "k has dtype f16"},
        {{&q, &k, &v2}, "v has dtype bf16"},
        {{&q, &k, &ints}, "v has dtype I32"},
        {{&q, &k, &v6}, "v has 6 positions, expected k's 7"},
        {{&q, &k3, &v3}, "k has 3 heads, expected a divisor of the 4 of q"},
        {{&q, &k3, &v}, "v has 2 heads, expected k's 3"},
        {{&q, &k1, &v}, "k has 1 sequences in its batch, expected q's 2"},
        {{&q, &k8, &v}, "k has 8 columns in each head, expected q's 16"},
        {{&q577, &k577, &v577}, "q has a head_dim of 577, expected 1 to 576"},
        {{&q, &k, &v, &mask}, "mask"},
        {{&q, &k, &v, &column}, "mask"},
        {{&q, &k, &v, &batches}, "mask"},
        {{&q, &k, &v, &ids}, "mask has dtype I64"},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        size_t count = rows[n].tensors[3] ? 4 : rows[n].tensors[2] ? 3 : 2;
        write_tensors("i.safetensors", rows[n].tensors, count);
        assert_refused(RUN("attend", "--input", "i.safetensors", "--output", "o.safetensors"), 1,
                       rows[n].words);
    }
    const held *const every[] = {&q,    &k,    &v,      &half, &k3,     &v3,   &v6,
                                 &k1,   &k8,   &v2,     &q577, &k577,   &v577, &low,
                                 &ints, &mask, &column, &ids,  &batches};
    for (size_t n = 0; n < sizeof every / sizeof *every; n++)
        free(every[n]->data);
}

/* Errors that depend on the file's lengths, the config or the disk. */
static void test_refuses_options(void **state) {
    (void)state;
    static const char *const rows[][3] = {
        {"--pattern", "global=7,window=1", "7 keys"},
        {"--pattern", "documents=0:9", "7 keys"},
        {"--pattern", "custom=none.safetensors", "none.safetensors"},
        {"--pattern", "custom=i.safetensors", "\"bits\""},
        {"--config", "none.json", "none.json"},
        {"--config", "narrow.json", "16 columns in each head, expected the config's 8"},
        {"--config", "short.json", "expected 0 to 3"},
        {"--input", "none.safetensors", "none.safetensors"},
        {"--input", "cut.safetensors", "cut.safetensors"},
        {"--output", "none/o.safetensors", "none/o.safetensors"},
        {"--output", "/dev/full", "/dev/full"},
    };
    static const int64_t ids_shape[] = {7}, more_shape[] = {2, 9, 4, 16};
    held q = make("q", RW_F32, 4, q_shape), more = make("q", RW_F32, 4, more_shape);
    held k = make("k", RW_F32, 4, k_shape), v = make("v", RW_F32, 4, k_shape);
    held ids = make("positions", RW_I64, 1, ids_shape);
    WRITE("i.safetensors", &q, &k, &v, &ids);
    size_t bytes;
    char *whole = rwt_read_file(in("i.safetensors"), &bytes);
    rwt_write_file(in("cut.safetensors"), whole, bytes - 1);
    write_text("narrow.json", "{\"model_type\":\"llama\",\"head_dim\":8}");
    write_text("short.json",
               "{\"model_type\":\"llama\",\"head_dim\":16,\"max_position_embeddings\":4}");
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++)
        assert_refused(RUN("attend", "--input", "i.safetensors", "--output", "o.safetensors",
                           rows[n][0], rows[n][1]),
                       1, rows[n][2]);
    WRITE("i.safetensors", &more, &k, &v);
    write_text("c.json", "{\"model_type\":\"llama\",\"head_dim\":16,"
                         "\"max_position_embeddings\":8192}");
    assert_refused(RUN("attend", "--config", "c.json", "--input", "i.safetensors", "--output",
                       "o.safetensors"),
                   1, "q has 9 positions, expected at most k's 7");
    WRITE("i.safetensors", &q, &k, &v);
    assert_refused(RUN("attend", "--config", "c.json", "--input", "i.safetensors", "--output",
                       "o.safetensors", "--offset=-1"),
                   1, "-1");
    assert_refused(RUN("attend", "--config", "c.json", "--input", "i.safetensors", "--output",
                       "o.safetensors", "--offset=9223372036854775807"),
                   1, "");
    free(whole);
    const held *const every[] = {&q, &more, &k, &v, &ids};
    for (size_t n = 0; n < sizeof every / sizeof *every; n++)
        free(every[n]->data);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(test_usage),
        TEST(test_refuses),
        TEST(test_refuses_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
