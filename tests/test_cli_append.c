/* `ropewalk append`: the caches that it writes, and its errors. */
#include "harness/program_support.h"

enum {
    TOKENS = 5,
    HEADS = 2,
    WIDTH = 8
};

#define APPEND(...)                                                                                \
    RUN("append", "--input", "i.safetensors", "--output", "o.safetensors", __VA_ARGS__)

static held make_ids(const char *name, size_t rank, const int64_t *shape, const int64_t *ids) {
    held tensor = make(name, RW_I64, rank, shape);
    memcpy(tensor.data, ids, (size_t)count_of(&tensor) * sizeof *ids);
    return tensor;
}

/* Row `row` of the cache, [rows, HEADS, WIDTH], becomes that of token `token`, divided. */
static void put(held *cache, int64_t row, const held *tokens, int64_t token, double divisor) {
    for (int64_t i = 0; i < HEADS * WIDTH; i++)
        rwt_store(cache->dtype, cache->data, row * HEADS * WIDTH + i,
                  rwt_load(tokens->dtype, tokens->data, token * HEADS * WIDTH + i) / divisor);
}

/* The output's cache must have the bytes of `expected`. */
static void assert_cache(const char *name, const held *expected, rw_file_dtype dtype) {
    held got = read_tensor(in("o.safetensors"), name);
    assert_int_equal(got.dtype, dtype);
    assert_int_equal(got.rank, 4);
    assert_memory_equal(got.shape, expected->shape, sizeof got.shape);
    assert_memory_equal(got.data, expected->data,
                        (size_t)count_of(expected) * rw_dtype_size(expected->dtype));
    free(got.data);
}

/* Two sequences, with offsets. */
static void test_contiguous(void **state) {
    (void)state;
    const int64_t tokens[] = {2, TOKENS, HEADS, WIDTH}, cache[] = {2, 12, HEADS, WIDTH};
    const int64_t two[] = {2}, offsets[] = {3, 0};
    for (int dtype = RW_F32; dtype <= RW_BF16; dtype++) {
        held k = make("k", (rw_dtype)dtype, 4, tokens), v = make("v", (rw_dtype)dtype, 4, tokens);
        held k_cache = make("k_cache", (rw_dtype)dtype, 4, cache);
        held v_cache = make("v_cache", (rw_dtype)dtype, 4, cache);
        held ids = make_ids("offsets", 1, two, offsets);
        WRITE("i.safetensors", &k, &v, &k_cache, &v_cache, &ids);
        assert_ran(APPEND("--offset", "1", "--check"));
        for (int64_t b = 0; b < 2; b++)
            for (int64_t s = 0; s < TOKENS; s++) {
                put(&k_cache, b * 12 + offsets[b] + 1 + s, &k, b * TOKENS + s, 1.0);
                put(&v_cache, b * 12 + offsets[b] + 1 + s, &v, b * TOKENS + s, 1.0);
            }
        assert_cache("k_cache", &k_cache, (rw_file_dtype)dtype);
        assert_cache("v_cache", &v_cache, (rw_file_dtype)dtype);
        held *const all[] = {&k, &v, &k_cache, &v_cache, &ids};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            free(all[i]->data);
    }
}

/* Packed tokens by slots, into a cache of 8 bits without v. */
static void test_slots_and_8_bits(void **state) {
    (void)state;
    const int64_t tokens[] = {TOKENS, HEADS, WIDTH}, cache[] = {3, 4, HEADS, WIDTH};
    const int64_t five[] = {TOKENS}, one[] = {1}, slots[] = {7, -1, 0, 11, 3};
    for (int n = 0; n < 2; n++) {
        const rw_dtype dtype = n ? RW_F8_E5M2 : RW_F8_E4M3;
        const rw_file_dtype file = n ? RW_FILE_F8_E5M2 : RW_FILE_F8_E4M3;
        held k = make("k", RW_F32, 3, tokens), k_cache = make("k_cache", RW_U8, 4, cache);
        held ids = make_ids("slots", 1, five, slots), scale = make("k_scale", RW_F32, 1, one);
        *(float *)scale.data = 0.25f;
        k_cache.dtype = (rw_dtype)file;
        WRITE("i.safetensors", &k, &k_cache, &ids, &scale);
        assert_ran(APPEND("--json"));
        k_cache.dtype = dtype;
        for (int64_t token = 0; token < TOKENS; token++)
            if (slots[token] >= 0)
                put(&k_cache, slots[token], &k, token, 0.25);
        assert_cache("k_cache", &k_cache, file);
        char *report = rwt_read_file(in("out"), NULL);
        assert_non_null(strstr(report, rw_dtype_name(dtype)));
        free(report);
        held *const all[] = {&k, &k_cache, &ids, &scale};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            free(all[i]->data);
    }
}

/* A ring in pages. */
static void test_ring(void **state) {
    (void)state;
    const int64_t tokens[] = {1, TOKENS, HEADS, WIDTH}, cache[] = {3, 2, HEADS, WIDTH};
    const int64_t table[] = {1, 2}, pages[] = {2, 0};
    held k = make("k", RW_F32, 4, tokens), k_cache = make("k_cache", RW_F32, 4, cache);
    held block_table = make_ids("block_table", 2, table, pages);
    WRITE("i.safetensors", &k, &k_cache, &block_table);
    assert_ran(APPEND("--ring", "3", "--offset", "7"));
    for (int64_t s = 2; s < TOKENS; s++) {
        const int64_t place = (7 + s) % 3;
        put(&k_cache, pages[place / 2] * 2 + place % 2, &k, s, 1.0);
    }
    assert_cache("k_cache", &k_cache, RW_FILE_F32);
    free(k.data);
    free(k_cache.data);
    free(block_table.data);
}

static void test_refused(void **state) {
    (void)state;
    const int64_t tokens[] = {1, TOKENS, HEADS, WIDTH}, cache[] = {1, 6, HEADS, WIDTH};
    held k = make("k", RW_F32, 4, tokens), v = make("v", RW_F32, 4, tokens);
    held k_cache = make("k_cache", RW_F32, 4, cache), half = make("k_cache", RW_F16, 4, cache);
    held ints = make("k_cache", RW_I32, 4, cache), flat = make("k_cache", RW_F32, 3, cache + 1);
    held scale = make("k_scale", RW_F32, 1, tokens);
    assert_refused(APPEND("--offset", "0"), 1, "i.safetensors");
    WRITE("i.safetensors", &k);
    assert_refused(APPEND("--offset", "0"), 1, "no tensor \"k_cache\"");
    WRITE("i.safetensors", &k, &ints);
    assert_refused(APPEND("--offset", "0"), 1, "k_cache has dtype I32");
    WRITE("i.safetensors", &k, &flat);
    assert_refused(APPEND("--offset", "0"), 1, "expected 4 axes");
    WRITE("i.safetensors", &k, &half);
    assert_refused(APPEND("--offset", "0"), 1, "append.k has dtype f32");
    WRITE("i.safetensors", &k, &v, &k_cache);
    assert_refused(APPEND("--offset", "0"), 1, "cache.v is absent");
    WRITE("i.safetensors", &k, &k_cache, &scale);
    assert_refused(APPEND("--offset", "0"), 1, "cache.k_scale is given");
    WRITE("i.safetensors", &k, &k_cache);
    assert_refused(APPEND("--offset", "2"), 1, "6"); /* the position behind the last */
    assert_refused(APPEND("--ring", "7"), 1, "cache.ring is 7");
    assert_refused(APPEND("--ring", "-1"), 2, "--ring");
    assert_refused(RUN("append", "--input", "i.safetensors"), 2, "--output");
    assert_ran(APPEND("--offset", "1"));
    held *const all[] = {&k, &v, &k_cache, &half, &ints, &flat, &scale};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]->data);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {TEST(test_contiguous), TEST(test_slots_and_8_bits),
                                       TEST(test_ring), TEST(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
