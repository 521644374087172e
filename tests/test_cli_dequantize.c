/* `ropewalk dequantize`: every format, layout and dtype, and its errors. */
#include "harness/program_support.h"

#include "drivers/mx_reference.h"

#define NUM_BLOCKS 300

/* A row of the table of layouts; scale_in_front: the scale precedes the codes. */
typedef struct layout_row {
    const char *format;
    const char *name;
    rw_mx_layout layout;
} layout_row;

static const layout_row layouts[] = {
    {"mxfp4", "low-first", {RW_MXFP4_E2M1, RW_MX_LOW_FIRST, false}},
    {"mxfp4", "high-first", {RW_MXFP4_E2M1, RW_MX_HIGH_FIRST, false}},
    {"mxfp4", "split", {RW_MXFP4_E2M1, RW_MX_SPLIT, false}},
    {"mxfp4", "ggml", {RW_MXFP4_E2M1, RW_MX_SPLIT, true}},
    {"mxfp4", "front-high-first", {RW_MXFP4_E2M1, RW_MX_HIGH_FIRST, true}},
    {"mxfp6_e2m3", "separate", {RW_MXFP6_E2M3, RW_MX_LOW_FIRST, false}},
    {"mxfp6_e2m3", "front", {RW_MXFP6_E2M3, RW_MX_LOW_FIRST, true}},
    {"mxfp6_e3m2", "separate", {RW_MXFP6_E3M2, RW_MX_LOW_FIRST, false}},
    {"mxfp6_e3m2", "front", {RW_MXFP6_E3M2, RW_MX_LOW_FIRST, true}},
    {"mxfp8_e4m3", "separate", {RW_MXFP8_E4M3, RW_MX_LOW_FIRST, false}},
    {"mxfp8_e4m3", "front", {RW_MXFP8_E4M3, RW_MX_LOW_FIRST, true}},
    {"mxfp8_e5m2", "separate", {RW_MXFP8_E5M2, RW_MX_LOW_FIRST, false}},
    {"mxfp8_e5m2", "front", {RW_MXFP8_E5M2, RW_MX_LOW_FIRST, true}},
};
#define NUM_LAYOUTS (sizeof layouts / sizeof layouts[0])

/* Tensors of a file: blocks with every scale, and the expected values. */
typedef struct sample {
    held blocks;
    held scales;
    held values;
} sample;

static sample make_sample(const rw_mx_layout *layout, rw_dtype dtype, int64_t count) {
    int code_bytes = rwt_mx_bits(layout->format) * RW_MX_BLOCK / 8;
    int64_t bytes = code_bytes + layout->scale_in_front;
    const int64_t blocks_shape[] = {count, bytes}, values_shape[] = {count, RW_MX_BLOCK};
    sample s = {make("blocks", RW_U8, 2, blocks_shape), make("scales", RW_U8, 1, &count),
                make("values", dtype, 2, values_shape)};
    rwt_random random = {7};
    for (int64_t b = 0; b < count; b++) {
        unsigned char *block = (unsigned char *)s.blocks.data + b * bytes;
        unsigned char *codes = block + layout->scale_in_front;
        unsigned char scale = (unsigned char)(b % 256);
        for (int i = 0; i < code_bytes; i++)
            codes[i] = (unsigned char)rwt_random_below(&random, 256);
        if (layout->scale_in_front)
            block[0] = scale;
        ((unsigned char *)s.scales.data)[b] = layout->scale_in_front ? 1 : scale; /* 1: ignored */
        for (int i = 0; i < RW_MX_BLOCK; i++)
            rwt_store(dtype, s.values.data, b * RW_MX_BLOCK + i,
                      rwt_mx_element(layout->format, rwt_mx_get(layout, codes, i)) *
                          rwt_mx_scale(scale));
    }
    return s;
}

static void free_sample(sample *s) {
    free(s->blocks.data);
    free(s->scales.data);
    free(s->values.data);
}

/* The output's values must have the bits of `expected`, except NaN. */
static void assert_values(const held *expected) {
    held got = read_tensor(in("o.safetensors"), "values");
    assert_int_equal(got.dtype, expected->dtype);
    assert_int_equal(got.rank, 2);
    assert_memory_equal(got.shape, expected->shape, 2 * sizeof(int64_t));
    for (int64_t i = 0; i < count_of(&got); i++) {
        if (isnan(rwt_load(got.dtype, expected->data, i)))
            assert_true(isnan(rwt_load(got.dtype, got.data, i)));
        else
            assert_int_equal(rwt_load_bits(got.dtype, got.data, i),
                             rwt_load_bits(got.dtype, expected->data, i));
    }
    free(got.data);
}

static void test_layouts(void **state) {
    (void)state;
    static const char *const dtypes[] = {"f32", "f16", "bf16"};
    for (size_t row = 0; row < NUM_LAYOUTS; row++) {
        for (int dtype = RW_F32; dtype <= RW_BF16; dtype++) {
            sample s = make_sample(&layouts[row].layout, (rw_dtype)dtype, NUM_BLOCKS);
            WRITE("i.safetensors", &s.blocks, &s.scales);
            assert_ran(RUN("dequantize", "--format", layouts[row].format, "--layout",
                           layouts[row].name, "--input", "i.safetensors", "--output",
                           "o.safetensors", "--dtype", dtypes[dtype]));
            assert_values(&s.values);
            free_sample(&s);
        }
    }
}

/* f32 is the default; an empty tensor is valid; where the scale is in front the file need not have
 * scales; the report is JSON. */
static void test_defaults(void **state) {
    (void)state;
    const layout_row *row = &layouts[3];
    for (int64_t count = 0; count < 3; count++) {
        sample s = make_sample(&row->layout, RW_F32, count);
        WRITE("i.safetensors", &s.blocks);
        assert_ran(RUN("dequantize", "--format", row->format, "--layout", row->name, "--input",
                       "i.safetensors", "--output", "o.safetensors", "--json"));
        assert_values(&s.values);
        char *report = rwt_read_file(in("out"), NULL);
        assert_non_null(strstr(report, "\"blocks\""));
        free(report);
        free_sample(&s);
    }
}

/* A tensor of the sample with other axes, and another name. */
static held reshaped(held tensor, const char *name, size_t rank, const int64_t *shape) {
    tensor.name = name;
    tensor.rank = rank;
    memcpy(tensor.shape, shape, rank * sizeof *shape);
    return tensor;
}

/* A model's own tensors: gpt-oss's names and axes, two of them, beside another tensor. */
static void test_tensors_of_a_model(void **state) {
    (void)state;
    sample s = make_sample(&layouts[0].layout, RW_BF16, 2 * 3 * 5);
    const int64_t blocks[] = {2, 3, 5, 16}, scales[] = {2, 3, 5}, values[] = {2, 3, 160};
    const int64_t flat_blocks[] = {30, 16}, flat_scales[] = {30}, flat_values[] = {960};
    held a = reshaped(s.blocks, "layers.0.gate_up_proj_blocks", 4, blocks);
    held a_scales = reshaped(s.scales, "layers.0.gate_up_proj_scales", 3, scales);
    held b = reshaped(s.blocks, "b_blocks", 2, flat_blocks);
    held b_scales = reshaped(s.scales, "b_scales", 1, flat_scales);
    held other = reshaped(s.scales, "layers.0.router", 1, flat_scales);
    WRITE("i.safetensors", &a, &other, &b_scales, &b, &a_scales);
    assert_ran(RUN("dequantize", "--format", "mxfp4", "--layout", "low-first", "--input",
                   "i.safetensors", "--output", "o.safetensors", "--dtype", "bf16"));
    const held expected[] = {reshaped(s.values, "layers.0.gate_up_proj", 3, values),
                             reshaped(s.values, "b", 1, flat_values)};
    for (int i = 0; i < 2; i++) {
        held got = read_tensor(in("o.safetensors"), expected[i].name);
        assert_int_equal(got.rank, expected[i].rank);
        assert_memory_equal(got.shape, expected[i].shape, got.rank * sizeof(int64_t));
        for (int64_t n = 0; n < count_of(&got); n++)
            if (!isnan(rwt_load(RW_BF16, expected[i].data, n)))
                assert_int_equal(rwt_load_bits(RW_BF16, got.data, n),
                                 rwt_load_bits(RW_BF16, expected[i].data, n));
        free(got.data);
    }
    free_sample(&s);
}

/* Codes and scales with the dtypes that safetensors has for them. */
static void test_dtypes_of_codes(void **state) {
    (void)state;
    for (int row = 9; row < 13; row += 2) {
        const bool e4m3 = layouts[row].layout.format == RW_MXFP8_E4M3;
        sample s = make_sample(&layouts[row].layout, RW_F32, 40);
        s.blocks.dtype = (rw_dtype)(e4m3 ? RW_FILE_F8_E4M3 : RW_FILE_F8_E5M2);
        s.scales.dtype = (rw_dtype)RW_FILE_F8_E8M0;
        WRITE("i.safetensors", &s.blocks, &s.scales);
        assert_ran(RUN("dequantize", "--format", layouts[row].format, "--layout", "separate",
                       "--input", "i.safetensors", "--output", "o.safetensors"));
        assert_values(&s.values);
        remove(in("o.safetensors"));
        assert_refused(RUN("dequantize", "--format", e4m3 ? "mxfp8_e5m2" : "mxfp8_e4m3", "--layout",
                           "separate", "--input", "i.safetensors", "--output", "o.safetensors"),
                       1, e4m3 ? "U8 or F8_E5M2" : "U8 or F8_E4M3");
        free_sample(&s);
    }
}

#define DEQUANTIZE(format, layout)                                                                 \
    RUN("dequantize", "--format", format, "--layout", layout, "--input", "i.safetensors",          \
        "--output", "o.safetensors")

static void test_refused_files(void **state) {
    (void)state;
    sample s = make_sample(&layouts[0].layout, RW_F32, 5);
    held fewer = s.scales, wide = s.blocks, flat = s.blocks;
    fewer.shape[0] = 4;
    wide.shape[1] = 8;
    flat.rank = 1;
    held floats = s.values;
    floats.name = "blocks";
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "i.safetensors");
    WRITE("i.safetensors", &s.blocks);
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "scales");
    assert_refused(DEQUANTIZE("mxfp4", "ggml"), 1, "17");
    WRITE("i.safetensors", &s.scales);
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "blocks");
    WRITE("i.safetensors", &s.blocks, &fewer);
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "scales");
    WRITE("i.safetensors", &wide, &s.scales);
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "16");
    assert_refused(DEQUANTIZE("mxfp6_e3m2", "separate"), 1, "24");
    assert_refused(DEQUANTIZE("mxfp8_e4m3", "separate"), 1, "32");
    WRITE("i.safetensors", &flat, &s.scales);
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "2 axes");
    WRITE("i.safetensors", &floats, &s.scales);
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "U8");
    const int64_t four[] = {5, 1, 1, 16}, two[] = {1, 5};
    held named = reshaped(s.blocks, "x_blocks", 4, four);
    held named_scales = reshaped(s.scales, "x_scales", 2, two);
    WRITE("i.safetensors", &named);
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "no tensor \"x_scales\"");
    WRITE("i.safetensors", &named, &named_scales);
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "x_scales has another shape");
    WRITE("i.safetensors", &named_scales);
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "ends in \"_blocks\"");
    write_text("i.safetensors", "\1\0\0\0");
    assert_refused(DEQUANTIZE("mxfp4", "split"), 1, "i.safetensors");
    free_sample(&s);
}

static void test_usage(void **state) {
    (void)state;
    sample s = make_sample(&layouts[0].layout, RW_F32, 5);
    WRITE("i.safetensors", &s.blocks, &s.scales);
    assert_refused(DEQUANTIZE("mxfp4", "separate"), 2, "low-first");
    assert_refused(DEQUANTIZE("mxfp4", "front"), 2, "low-first");
    assert_refused(DEQUANTIZE("mxfp6_e2m3", "ggml"), 2, "separate or front");
    assert_refused(DEQUANTIZE("mxfp8_e5m2", "low-first"), 2, "separate or front");
    assert_refused(DEQUANTIZE("mxfp4", "diagonal"), 2, "split");
    assert_refused(DEQUANTIZE("nvfp4", "split"), 2, "mxfp6_e2m3");
    assert_refused(RUN("dequantize", "--format", "mxfp4", "--layout", "split", "--input",
                       "i.safetensors", "--output", "o.safetensors", "--dtype", "f64"),
                   2, "f32|f16|bf16");
    assert_refused(RUN("dequantize", "--format", "mxfp4", "--input", "i.safetensors", "--output",
                       "o.safetensors"),
                   2, "--layout");
    assert_refused(RUN("dequantize", "--layout", "split", "--input", "i.safetensors", "--output",
                       "o.safetensors"),
                   2, "--format");
    assert_ran(RUN("dequantize", "--help"));
    free_sample(&s);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(test_layouts),         TEST(test_defaults),      TEST(test_tensors_of_a_model),
        TEST(test_dtypes_of_codes), TEST(test_refused_files), TEST(test_usage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
