/* `ropewalk rotate`, run as a user runs it: results, exit statuses, remaining files. */
#include "harness/program_support.h"

#include <jansson.h>

#include "array_compare.h"

static const char llama[] = "{\"model_type\":\"llama\",\"head_dim\":64,"
                            "\"num_attention_heads\":24,\"max_position_embeddings\":8192}";
static const char glm[] = "{\"model_type\":\"glm\",\"head_dim\":64,"
                          "\"max_position_embeddings\":8192}";
static const char qwen2_vl[] =
    "{\"model_type\":\"qwen2_vl\",\"head_dim\":64,\"max_position_embeddings\":8192,"
    "\"rope_theta\":10000.0,\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[8,12,12]}}";

static void check_golden(const char *config, const char *name) {
    const char *golden = rwt_path(RWT_DATA "/golden", name);
    write_text("c.json", config);
    assert_ran(RUN("rotate", "--config", "c.json", "--input", golden, "--output", "o.safetensors",
                   "--layout=bhsd"));
    static const char *const pairs[][2] = {{"q", "qo"}, {"k", "ko"}};
    for (int i = 0; i < 2; i++) {
        held expected = read_tensor(golden, pairs[i][1]);
        assert_output(pairs[i][0], &expected, 6e-5);
        free(expected.data);
    }
    /* and back, over the output itself */
    assert_ran(RUN("rotate", "--config", "c.json", "--input", golden, "--output", "p.safetensors",
                   "--layout=bhsd"));
    held positions = read_tensor(golden, "positions"), q = read_tensor(in("p.safetensors"), "q"),
         k = read_tensor(in("p.safetensors"), "k");
    WRITE("o.safetensors", &q, &k, &positions);
    assert_ran(RUN("rotate", "--config", "c.json", "--input", "o.safetensors", "--output",
                   "o.safetensors", "--inverse", "--layout=bhsd"));
    held original = read_tensor(golden, "q");
    assert_output("q", &original, 2e-6);
    free(original.data);
    free(positions.data);
    free(q.data);
    free(k.data);
}

static void test_golden(void **state) {
    (void)state;
    check_golden(llama, "rope_llama_half.safetensors");
    check_golden(glm, "rope_glm_interleaved_half.safetensors");
    check_golden(qwen2_vl, "rope_qwen2vl_8_12_12.safetensors");
}

/* The rotation of element (b, s, h, i) by hand, half-split over all 64 columns. */
static double rotated(const held *x, const int64_t at[4], double position) {
    int64_t i = at[3] % 32;
    const int64_t *n = x->shape;
    int64_t row = ((at[0] * n[1] + at[1]) * n[2] + at[2]) * n[3];
    double angle = position * pow(10000, -2.0 * (double)i / 64);
    double x1 = rwt_load(x->dtype, x->data, row + i),
           x2 = rwt_load(x->dtype, x->data, row + i + 32);
    return at[3] < 32 ? x1 * cos(angle) - x2 * sin(angle) : x2 * cos(angle) + x1 * sin(angle);
}

/* Every dtype, q without k, no positions, an offset. */
static void test_dtypes_and_offset(void **state) {
    (void)state;
    static const int64_t shape[] = {2, 5, 3, 64};
    static const rw_dtype dtypes[] = {RW_F32, RW_F16, RW_BF16};
    write_text("c.json", llama);
    for (int d = 0; d < 3; d++) {
        held q = make("q", dtypes[d], 4, shape);
        held expected = make("q", dtypes[d], 4, shape);
        for (int64_t e = 0; e < count_of(&q); e++) {
            int64_t at[4] = {e / 960, e / 192 % 5, e / 64 % 3, e % 64};
            rwt_store(dtypes[d], expected.data, e, rotated(&q, at, (double)at[1] + 1000));
        }
        WRITE("i.safetensors", &q);
        assert_ran(RUN("rotate", "--config=c.json", "--input=i.safetensors",
                       "--output=o.safetensors", "--offset=1000"));
        assert_output("q", &expected,
                      dtypes[d] == RW_F32 ? 2e-6 : 4 * rwt_dtype_epsilon(dtypes[d]));
        free(q.data);
        free(expected.data);
    }
}

/* bshd is bhsd with two axes exchanged; i32 ids give the same results as i64. */
static void test_layout(void **state) {
    (void)state;
    static const int64_t bhsd[] = {2, 3, 5, 64}, bshd[] = {2, 5, 3, 64}, ids[] = {5};
    write_text("c.json", llama);
    held k = make("k", RW_F32, 4, bhsd), swapped = make("k", RW_F32, 4, bshd);
    held wide = make("positions", RW_I64, 1, ids), narrow = make("positions", RW_I32, 1, ids);
    const float *from = k.data;
    for (int64_t row = 0; row < 30; row++) {
        int64_t b = row / 15, h = row / 5 % 3, s = row % 5;
        memcpy((float *)swapped.data + ((b * 5 + s) * 3 + h) * 64, from + row * 64, 256);
    }
    WRITE("i.safetensors", &k, &wide);
    assert_ran(RUN("rotate", "--config", "c.json", "--input", "i.safetensors", "--output",
                   "o.safetensors", "--layout", "bhsd"));
    held expected = read_tensor(in("o.safetensors"), "k");
    WRITE("i.safetensors", &swapped, &narrow);
    assert_ran(RUN("rotate", "--config", "c.json", "--input", "i.safetensors", "--output",
                   "o.safetensors")); /* bshd is the default */
    held got = read_tensor(in("o.safetensors"), "k");
    for (int64_t row = 0; row < 30; row++) {
        int64_t b = row / 15, h = row / 5 % 3, s = row % 5;
        assert_memory_equal((float *)got.data + ((b * 5 + s) * 3 + h) * 64,
                            (float *)expected.data + row * 64, 256);
    }
    free(got.data);
    free(expected.data);
    free(k.data);
    free(swapped.data);
    free(wide.data);
    free(narrow.data);
}

/* --pairing overrides the model_type. */
static void test_pairing(void **state) {
    (void)state;
    const char *golden = RWT_DATA "/golden/rope_glm_interleaved_half.safetensors";
    write_text("c.json", "{\"head_dim\":64,\"rope_theta\":1e4,\"partial_rotary_factor\":0.5}");
    assert_ran(RUN("rotate", "--config", "c.json", "--input", golden, "--output", "o.safetensors",
                   "--pairing", "interleaved", "--layout=bhsd"));
    held expected = read_tensor(golden, "qo");
    assert_output("q", &expected, 6e-5);
    free(expected.data);
}

/* longrope selects its long factors by the largest id; dynamic has no upper limit. */
static void test_lengths(void **state) {
    (void)state;
    static const int64_t shape[] = {1, 2, 1, 4}, ids[] = {2};
    static const struct {
        const char *config;
        int64_t last;
        double slowest; /* the second frequency */
    } rows[] = {
        {"{\"model_type\":\"llama\",\"head_dim\":4,\"max_position_embeddings\":64,\"original_max_"
         "position_embeddings\":8,"
         "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1],\"long_factor\":[1,2],"
         "\"attention_factor\":1}}",
         7, 0.01},
        {"{\"model_type\":\"llama\",\"head_dim\":4,\"max_position_embeddings\":64,\"original_max_"
         "position_embeddings\":8,"
         "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1],\"long_factor\":[1,2],"
         "\"attention_factor\":1}}",
         8, 0.005},
        {"{\"model_type\":\"llama\",\"head_dim\":4,\"max_position_embeddings\":64,\"rope_scaling\":"
         "{\"type\":\"dynamic\","
         "\"factor\":2}}",
         63, 0.01},
        {"{\"model_type\":\"llama\",\"head_dim\":4,\"max_position_embeddings\":64,\"rope_scaling\":"
         "{\"type\":\"dynamic\","
         "\"factor\":2}}",
         127, 0.01 / 3},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        held q = make("q", RW_F32, 4, shape), positions = make("positions", RW_I64, 1, ids);
        static const float values[8] = {0, 1, 0, 0, 0, 1, 0, 0};
        memcpy(q.data, values, sizeof values);
        ((int64_t *)positions.data)[1] = rows[i].last;
        write_text("c.json", rows[i].config);
        WRITE("i.safetensors", &q, &positions);
        assert_ran(RUN("rotate", "--config", "c.json", "--input", "i.safetensors", "--output",
                       "o.safetensors"));
        ((float *)q.data)[5] = (float)cos((double)rows[i].last * rows[i].slowest);
        ((float *)q.data)[7] = (float)sin((double)rows[i].last * rows[i].slowest);
        assert_output("q", &q, 1e-6);
        free(q.data);
        free(positions.data);
    }
}

/* Empty tensors are valid. */
static void test_empty(void **state) {
    (void)state;
    static const int64_t shape[] = {2, 0, 3, 64};
    held q = make("q", RW_F32, 4, shape);
    write_text("c.json", llama);
    WRITE("i.safetensors", &q);
    assert_ran(RUN("rotate", "--config", "c.json", "--input", "i.safetensors", "--output",
                   "o.safetensors", "--check"));
    assert_output("q", &q, 0);
    free(q.data);
}

/* The comparison that --check makes. */
static void test_difference(void **state) {
    (void)state;
    static const cli_tolerance rounding = {.units = 4}, within = {.share = 0.5, .least = 2};
    float a[6] = {1, 2, 4, 0, 0, 8}, b[6] = {1, 2, 4, 0, 0, 8};
    cli_array x = {"q", RW_F32, 2, {2, 3}, sizeof a, a}, y = {"q", RW_F32, 2, {2, 3}, sizeof b, b};
    cli_difference same = cli_array_compare(&x, &y, &rounding);
    assert_true(same.absolute == 0 && same.relative == 0 && same.agrees);
    b[0] = 1 + 4 * 0x1p-23f * 4; /* 4 eps of the largest value in its row */
    assert_true(cli_array_compare(&x, &y, &rounding).agrees);
    b[0] = 1 + 5 * 0x1p-23f * 4;
    cli_difference difference = cli_array_compare(&x, &y, &rounding);
    assert_true(difference.absolute == 20 * 0x1p-23 && difference.relative == 5 * 0x1p-23 &&
                !difference.agrees);
    b[0] = NAN;
    assert_false(cli_array_compare(&x, &y, &rounding).agrees);
    a[0] = NAN;
    assert_true(cli_array_compare(&x, &y, &rounding).agrees);
    b[0] = INFINITY;
    assert_false(cli_array_compare(&x, &y, &rounding).agrees);
    a[0] = -INFINITY;
    assert_false(cli_array_compare(&x, &y, &rounding).agrees);
    a[0] = INFINITY;
    assert_true(cli_array_compare(&x, &y, &rounding).agrees);
    a[0] = 3; /* a relative bound, and rows below the smallest scale */
    b[0] = 1;
    assert_true(cli_array_compare(&x, &y, &within).agrees);
    b[0] = 0.99f;
    assert_false(cli_array_compare(&x, &y, &within).agrees);
    memcpy(a, (const float[]){0.5f, 0, 0}, 3 * sizeof *a);
    memcpy(b, (const float[]){1.5f, 0, 0}, 3 * sizeof *b);
    assert_true(cli_array_compare(&x, &y, &within).agrees);
    b[0] = 1.51f;
    assert_false(cli_array_compare(&x, &y, &within).agrees);
    static const int64_t shape[] = {1, 4};
    held p = make("p", RW_BF16, 2, shape), q = make("p", RW_BF16, 2, shape);
    cli_array u = {"p", RW_BF16, 2, {1, 4}, 8, p.data}, v = {"p", RW_BF16, 2, {1, 4}, 8, q.data};
    for (int i = 0; i < 4; i++) {
        rwt_store(RW_BF16, p.data, i, 1);
        rwt_store(RW_BF16, q.data, i, 1 + 4 * 0x1p-7);
    }
    assert_true(cli_array_compare(&u, &v, &rounding).agrees);
    rwt_store(RW_BF16, q.data, 3, 1 + 5 * 0x1p-7);
    assert_false(cli_array_compare(&u, &v, &rounding).agrees);
    free(p.data);
    free(q.data);
}

static void test_check(void **state) {
    (void)state;
    const char *golden = RWT_DATA "/golden/rope_llama_half.safetensors";
    write_text("c.json", llama);
    assert_ran(RUN("rotate", "--config", "c.json", "--input", golden, "--output", "o.safetensors",
                   "--layout=bhsd", "--check", "--json", "--backend", "cpu"));
    json_t *report = json_load_file(in("out"), 0, NULL);
    assert_non_null(report);
    json_t *checks = json_object_get(report, "check"), *check;
    size_t i;
    assert_true(json_is_array(checks));
    json_array_foreach(checks, i, check) {
        assert_true(json_is_true(json_object_get(check, "agrees")));
        assert_true(json_real_value(json_object_get(check, "max_abs_diff")) < 1e-5);
    }
    json_decref(report);
}

/* Each invalid input, and a word of its sentence. */
static void test_rotate_refuses(void **state) {
    (void)state;
    static const int64_t heads[] = {1, 3, 2, 64}, narrow[] = {1, 3, 2, 32}, flat[] = {3, 64};
    static const int64_t three[] = {3}, four[] = {4}, axes[] = {3, 1, 3};
    held q = make("q", RW_F32, 4, heads), k = make("k", RW_F32, 4, heads);
    held other = make("v", RW_F32, 4, heads), thin = make("q", RW_F32, 4, narrow);
    held low = make("q", RW_F32, 2, flat), ints = make("q", RW_I32, 4, heads);
    held half = make("k", RW_F16, 4, heads), floats = make("positions", RW_F32, 1, three);
    held ids = make("positions", RW_I64, 1, three), more = make("positions", RW_I64, 1, four);
    held grid = make("positions", RW_I64, 3, axes);
    const struct {
        const held *tensors[3];
        int64_t last; /* largest id */
        const char *word;
    } rows[] = {
        {{&other}, 0, "\"q\""},
        {{&thin}, 0, "64"},
        {{&low}, 0, "[3, 64]"},
        {{&ints}, 0, "I32"},
        {{&q, &half}, 0, "f16"},
        {{&q, &floats}, 0, "F32"},
        {{&q, &more}, 0, "positions"},
        {{&q, &grid}, 0, "positions"},
        {{&q, &ids}, -1, "-1"},
        {{&q, &k, &ids}, 8192, "8192"},
        {{&q, &ids}, INT64_MAX, "9223372036854775807"},
        {{&q, &ids}, INT64_MIN, "-9223372036854775808"},
    };
    write_text("c.json", llama);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t count = rows[i].tensors[2] ? 3 : rows[i].tensors[1] ? 2 : 1;
        ((int64_t *)ids.data)[2] = rows[i].last;
        write_tensors("i.safetensors", rows[i].tensors, count);
        assert_refused(RUN("rotate", "--config", "c.json", "--input", "i.safetensors", "--output",
                           "o.safetensors"),
                       1, rows[i].word);
    }
    /* an id that only the offset makes invalid, and one that it makes valid */
    ((int64_t *)ids.data)[2] = 8190;
    WRITE("i.safetensors", &q, &ids);
    assert_refused(RUN("rotate", "--config", "c.json", "--input", "i.safetensors", "--output",
                       "o.safetensors", "--offset", "2"),
                   1, "8192");
    assert_refused(RUN("rotate", "--config", "c.json", "--input", "i.safetensors", "--output",
                       "o.safetensors", "--offset", "-1"),
                   1, "-1");
    assert_ran(RUN("rotate", "--config", "c.json", "--input", "i.safetensors", "--output",
                   "o.safetensors", "--offset", "1"));
    const held *const all[] = {&q,    &k,      &other, &thin, &low, &ints,
                               &half, &floats, &ids,   &more, &grid};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]->data);
}

/* Broken files, and outputs that cannot be written. */
static void test_files(void **state) {
    (void)state;
    static const int64_t shape[] = {1, 3, 2, 64};
    held q = make("q", RW_F32, 4, shape);
    write_text("c.json", llama);
    WRITE("i.safetensors", &q);
    size_t bytes;
    char *whole = rwt_read_file(in("i.safetensors"), &bytes);
    rwt_write_file(in("cut.safetensors"), whole, bytes - 1);
    write_text("bad.json", "{\"model_type\":\"llama\",\"head_dim\":64,\"rope_theta\":\"many\"}");
    write_text("text.json", "no JSON");
    static const struct {
        const char *config, *input, *output, *word;
    } rows[] = {
        {"none.json", "i.safetensors", "o.safetensors", "none.json"},
        {"bad.json", "i.safetensors", "o.safetensors", "rope_theta"},
        {"text.json", "i.safetensors", "o.safetensors", "not JSON"},
        {"i.safetensors", "i.safetensors", "o.safetensors", "not JSON"},
        {"c.json", "none.safetensors", "o.safetensors", "none.safetensors"},
        {"c.json", "cut.safetensors", "o.safetensors", "cut.safetensors"},
        {"c.json", "c.json", "o.safetensors", "c.json"},
        {"c.json", "i.safetensors", "none/o.safetensors", "none/o.safetensors"},
        {"c.json", "i.safetensors", "/dev/full", "/dev/full"},
        {"c.json", "i.safetensors", ".", "regular file"},
    };
    int files = -1;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_refused(RUN("rotate", "--config", rows[i].config, "--input", rows[i].input,
                           "--output", rows[i].output),
                       1, rows[i].word);
        files = i == 0 ? rwt_folder_count(&folder) : files;
        assert_int_equal(rwt_folder_count(&folder), files);
    }
    free(whole);
    free(q.data);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(test_golden),         TEST(test_dtypes_and_offset),
        TEST(test_layout),         TEST(test_pairing),
        TEST(test_lengths),        TEST(test_empty),
        TEST(test_difference),     TEST(test_check),
        TEST(test_rotate_refuses), TEST(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
