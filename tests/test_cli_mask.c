/* `ropewalk mask`, run as a user runs it: masks, position ids, pictures. */
#include "harness/program_support.h"

/* Runs `mask` and compares: '#' in `rows`, row after row, is a visible key. */
static void check_mask(const char *pattern, int64_t seq_k, const char *rows,
                       const int64_t *positions) {
    const int64_t seq_q = seq_k ? (int64_t)strlen(rows) / seq_k : 0;
    char q[8], k[8];
    snprintf(q, sizeof q, "%d", (int)seq_q);
    snprintf(k, sizeof k, "%d", (int)seq_k);
    assert_ran(
        RUN("mask", "--pattern", pattern, "--seq-q", q, "--seq-k", k, "--output", "o.safetensors"));
    held mask = read_tensor(in("o.safetensors"), "mask");
    held ids = read_tensor(in("o.safetensors"), "positions");
    const int64_t shape[] = {seq_q, seq_k};
    assert_int_equal(mask.dtype, RW_F32);
    assert_int_equal(mask.rank, 2);
    assert_memory_equal(mask.shape, shape, sizeof shape);
    assert_int_equal(ids.dtype, RW_I64);
    assert_int_equal(ids.rank, 1);
    assert_int_equal(ids.shape[0], seq_q);
    for (int64_t n = 0; n < seq_q * seq_k; n++)
        if (((const float *)mask.data)[n] != (rows[n] == '#' ? 0.0f : -INFINITY))
            fail_msg("%s: element %lld is %g", pattern, (long long)n,
                     (double)((const float *)mask.data)[n]);
    assert_memory_equal(ids.data, positions, (size_t)seq_q * sizeof *positions);
    free(mask.data);
    free(ids.data);
}

#define IDS(...) ((const int64_t[]){__VA_ARGS__})

static void test_mask(void **state) {
    (void)state;
    check_mask("causal", 4, "#...##..###.####", IDS(0, 1, 2, 3));
    check_mask("causal", 4, "###.####", IDS(0, 1));
    check_mask("causal", 2, "....#.##", IDS(0, 1, 2, 3));
    check_mask("bidirectional", 3, "#########", IDS(0, 1, 2));
    check_mask("window=1", 4, "##..###..###..##", IDS(0, 0, 1, 2));
    check_mask("window=99", 2, "####", IDS(0, 0));
    check_mask("causal,window=1", 4, "#...##...##...##", IDS(0, 1, 2, 3));
    check_mask("causal,prefix=2", 4, "##..##..###.####", IDS(0, 1, 2, 3));
    check_mask("prefix=9,causal", 2, "####", IDS(0, 1));
    check_mask("global=0:0:3,window=1", 5,
               "#####"
               "####."
               "####."
               "#####"
               "#..##",
               IDS(0, 0, 0, 3, 0));
    check_mask("causal,documents=0:1:3", 4, "#....#...##....#", IDS(0, 0, 1, 0));
    check_mask("documents=0:2,window=1", 5, "##...##.....##...###...##", IDS(0, 0, 0, 0, 1));
    check_mask("causal", 0, "", NULL);
}

static void test_mask_custom(void **state) {
    (void)state;
    const int64_t bits_shape[] = {2, 2}, mask_shape[] = {2, 9}, ids_shape[] = {2};
    held bits = make("bits", RW_U8, 2, bits_shape), mask = make("mask", RW_F16, 2, mask_shape);
    held ids = make("positions", RW_I32, 1, ids_shape);
    memcpy(bits.data, (const uint8_t[]){0x05, 0x01, 0x80, 0x00}, 4);
    rwt_store(RW_F16, mask.data, 2, -INFINITY);
    WRITE("bits.safetensors", &bits);
    check_mask("custom=bits.safetensors", 9, "#.#.....#.......#.", IDS(0, 1));
    rwt_store_id(RW_I32, ids.data, 0, -7);
    WRITE("all.safetensors", &bits, &mask, &ids);
    check_mask("causal,custom=all.safetensors", 9,
               "#........"
               ".......#.",
               IDS(-7, 1));
    unlink(in("o.safetensors"));
    assert_refused(RUN("mask", "--pattern", "custom=none.safetensors", "--seq-q", "2"), 1, "none");
    assert_refused(RUN("mask", "--pattern", "custom=bits.safetensors", "--seq-q", "3", "--output",
                       "o.safetensors"),
                   1, "bits has shape [2, 2]");
    WRITE("ids.safetensors", &ids);
    assert_refused(RUN("mask", "--pattern", "custom=ids.safetensors", "--seq-q", "2"), 1, "bits");
    free(bits.data);
    free(mask.data);
    free(ids.data);
}

static void test_mask_refuses(void **state) {
    (void)state;
    static const char *const wrong[] = {"",
                                        ",",
                                        "causal,",
                                        "caus",
                                        "causal=1",
                                        "causal,causal",
                                        "causal,bidirectional",
                                        "window",
                                        "window=",
                                        "window=-1",
                                        "window=1.5",
                                        "window=1:2",
                                        "window= 3",
                                        "window=3,window=4",
                                        "window=99999999999999999999",
                                        "prefix=-2",
                                        "prefix=x",
                                        "global=",
                                        "global=0:",
                                        "global=:3",
                                        "global=1;2",
                                        "global=0,global=1",
                                        "global=8",
                                        "global=-1,window=2",
                                        "global=1,window=0",
                                        "documents=1:4",
                                        "documents=0:4:4",
                                        "documents=0:5:4",
                                        "documents=0:8",
                                        "documents=0:",
                                        "custom",
                                        "custom=",
                                        "custom=a,custom=b",
                                        "Causal",
                                        "causal window=3"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_refused(
            RUN("mask", "--pattern", wrong[i], "--seq-q", "8", "--output", "o.safetensors"), 2,
            "--pattern");
    assert_refused(RUN("mask", "--pattern", "causal"), 2, "--seq-q");
    assert_refused(RUN("mask", "--seq-q", "8"), 2, "--pattern");
    assert_refused(RUN("mask", "--pattern", "causal", "--seq-q", "-1"), 2, "--seq-q");
    assert_refused(RUN("mask", "--pattern", "causal", "--seq-q", "4294967296"), 2, "--seq-q");
    assert_refused(RUN("mask", "--pattern", "causal", "--seq-q", "2147483647"), 1, "memory");
    assert_refused(RUN("mask", "--pattern", "causal", "--seq-q", "8", "--output", "no/o"), 1,
                   "no/o");
}

/* A picture, or the error sentence of a build without libpng. */
static void test_mask_pictures(void **state) {
    (void)state;
    assert_ran(RUN("mask", "--pattern", "causal", "--seq-q", "2"));
    char *out = rwt_read_file(in("out"), NULL);
    assert_string_equal(out, "┌──┐\n│█▄│\n└──┘\n"
                             "causal: 2 queries (rows) x 2 keys (columns), 3 of 4 pairs visible\n");
    free(out);
    assert_ran(RUN("mask", "--pattern", "causal", "--seq-q", "700", "--json"));
    int status = RUN("mask", "--pattern", "causal", "--seq-q", "5", "--png", "p.png");
    if (status == 1) {
        assert_refused(status, 1, "without libpng");
        return;
    }
    assert_ran(status);
    size_t bytes;
    char *png = rwt_read_file(in("p.png"), &bytes);
    assert_true(bytes > 33);
    assert_memory_equal(png, "\x89PNG\r\n\x1a\n", 8);
    assert_memory_equal(png + 12, "IHDR\0\0\x01\xfe\0\0\x01\xfe\x08", 13); /* 5 * 102, gray */
    free(png);
    assert_refused(RUN("mask", "--pattern", "causal", "--seq-q", "0", "--png", "q.png"), 1,
                   "q.png");
    assert_refused(RUN("mask", "--pattern", "causal", "--seq-q", "5", "--png", "no/p"), 1, "no/p");
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(test_mask),
        TEST(test_mask_custom),
        TEST(test_mask_refuses),
        TEST(test_mask_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
