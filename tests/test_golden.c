/* Reference values of Hugging Face transformers (tests/golden): frequencies, cosines and sines, q
 * and k. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include <ropewalk/io.h>

#include "drivers/rope_reference.h"
#include "harness/test_support.h"

#define FREQUENCY_BOUND 1e-6 /* relative; the reference is f32 */
#define HF_BOUND 6e-5        /* the reference's f32 angles have an error of 4e-5 here */
#define DOUBLE_BOUND 2e-6
#define MAX_FREQUENCIES 256

/* ---- frequencies ---- */

/* The config.json of a model with these parameters. */
static char *config_of(const json_t *item) {
    const json_t *parameters = json_object_get(item, "rope_parameters");
    /* Llama's class ignores partial_rotary_factor, Solar's does not */
    bool partial = json_object_get(parameters, "partial_rotary_factor");
    json_t *config =
        json_pack("{s:s, s:i, s:O, s:O, s:O}", "model_type", partial ? "solar_open" : "llama",
                  "num_attention_heads", 8, "head_dim", json_object_get(item, "head_dim"),
                  "max_position_embeddings", json_object_get(item, "max_position_embeddings"),
                  "rope_parameters", parameters);
    char *text = json_dumps(config, 0);
    json_decref(config);
    assert_non_null(text);
    return text;
}

static double relative(double a, double b) {
    return b == 0.0 ? fabs(a) : fabs(a - b) / fabs(b);
}

static void check_frequencies(const json_t *item) {
    const char *name = json_string_value(json_object_get(item, "name"));
    char *text = config_of(item);
    const rw_model_source source = {
        .path = name, .text = text, .text_bytes = (int64_t)strlen(text)};
    rw_model *model;
    rw_message message = {""};
    rw_status status = rw_model_read(&source, &model, &message);
    if (status != RW_OK)
        print_error("%s: %s\n", name, message.text);
    assert_int_equal(status, RW_OK);
    free(text);

    const rw_rope_spec *spec = &rw_model_get_rope(model, 0)->spec;
    double inv_freq[MAX_FREQUENCIES], reference[MAX_FREQUENCIES], reference_factor;
    rw_rope_frequency_list list = {inv_freq, MAX_FREQUENCIES, 0, 0};
    int64_t seq_len = json_integer_value(json_object_get(item, "seq_len"));
    assert_int_equal(rw_rope_frequencies(spec, seq_len, &list, &message), RW_OK);
    const json_t *expected = json_object_get(item, "inv_freq");
    assert_int_equal(list.count, json_array_size(expected));
    assert_int_equal(rwt_rope_frequencies(spec, seq_len, reference, &reference_factor), list.count);
    for (int64_t i = 0; i < list.count; i++) {
        double theirs = json_number_value(json_array_get(expected, (size_t)i));
        if (relative(inv_freq[i], theirs) > FREQUENCY_BOUND)
            print_error("%s: frequency %lld is %.9g, expected %.9g\n", name, (long long)i,
                        inv_freq[i], theirs);
        assert_true(relative(inv_freq[i], theirs) <= FREQUENCY_BOUND);
        assert_true(relative(inv_freq[i], reference[i]) <= 1e-13);
    }
    double factor = json_number_value(json_object_get(item, "expect_attention_factor"));
    assert_true(relative(list.attention_factor, factor) <= FREQUENCY_BOUND);
    assert_true(relative(list.attention_factor, reference_factor) <= 1e-13);
    rw_model_free(model);
}

static void test_frequencies(void **state) {
    (void)state;
    json_error_t error;
    json_t *root = json_load_file(ROPEWALK_GOLDEN "/rope_frequencies.json", 0, &error);
    assert_non_null(root);
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(root, "cases"), i, item) check_frequencies(item);
    assert_true(i >= 17);
    json_decref(root);
}

/* ---- q and k ---- */

/* A file: [batch, heads, seq, head_dim] tensors that a model's own code rotated. */
typedef struct golden {
    rw_safetensors *file;
    rw_context *context;
    rw_rope *rope;
    rw_rope_spec spec;
    double inv_freq[MAX_FREQUENCIES];
    int64_t count;
} golden;

static void *read_tensor(const golden *g, const char *name, const rw_safetensor **tensor) {
    rw_message message = {""};
    *tensor = rw_safetensors_find(g->file, name);
    assert_non_null(*tensor);
    void *data = rwt_allocate((size_t)(*tensor)->bytes);
    assert_int_equal(rw_safetensors_load(g->file, *tensor, data, &message), RW_OK);
    return data;
}

static void open_golden(golden *g, const char *path, const rw_rope_spec *spec) {
    rw_message message = {""};
    double attention_factor;
    rw_status status = rw_safetensors_open(path, &g->file, &message);
    if (status != RW_OK)
        print_error("%s\n", message.text);
    assert_int_equal(status, RW_OK);
    g->spec = *spec;
    g->count = rwt_rope_frequencies(spec, 0, g->inv_freq, &attention_factor);
    g->context = rwt_test_context();
    rw_rope_options options = {.spec = *spec, .max_positions = 1 << 20};
    assert_int_equal(rw_rope_create(g->context, &options, &g->rope), RW_OK);
}

static void close_golden(golden *g) {
    rw_rope_destroy(g->rope);
    rw_context_destroy(g->context);
    rw_safetensors_close(g->file);
}

/* The file's positions, [batch, seq] or [3, batch, seq], in device memory. */
static rw_tensor upload_positions(const golden *g, int64_t **host) {
    const rw_safetensor *tensor;
    *host = read_tensor(g, "positions", &tensor);
    assert_int_equal(tensor->dtype, RW_I64);
    return rw_tensor_contiguous(rwt_test_upload(g->context, *host, (size_t)tensor->bytes), RW_I64,
                                (int)tensor->rank, tensor->shape);
}

/* Rotates a [batch, heads, seq, head_dim] array in place. */
static void rotate(const golden *g, float *values, const int64_t *shape) {
    size_t bytes = (size_t)(shape[0] * shape[1] * shape[2] * shape[3]) * sizeof *values;
    int64_t *host_positions;
    rw_tensor positions = upload_positions(g, &host_positions);
    void *memory = rwt_test_upload(g->context, values, bytes);
    rw_tensor bhsd = rw_tensor_contiguous(memory, RW_F32, 4, shape);
    rw_rope_args args = {.q = rw_tensor_transpose(bhsd, 1, 2), .positions = positions};
    rw_status status = rw_rope_apply(g->context, g->rope, &args);
    if (status != RW_OK)
        print_error("%s\n", rw_last_error(g->context));
    assert_int_equal(status, RW_OK);
    assert_int_equal(rw_synchronize(g->context), RW_OK);
    rwt_test_download(g->context, values, memory, bytes);
    assert_int_equal(rw_free(g->context, memory) | rw_free(g->context, positions.data), RW_OK);
    free(host_positions);
}

/* The columns of the pair of frequency i in a head. */
static void pair_columns(const golden *g, int64_t i, int64_t *column1, int64_t *column2) {
    bool interleaved = g->spec.pairing == RW_ROPE_INTERLEAVED;
    *column1 = interleaved ? 2 * i : i;
    *column2 = interleaved ? 2 * i + 1 : i + g->count;
}

/* The same in double, from the definition of the angles. */
static void rotate_double(const golden *g, double *values, const int64_t *shape) {
    int64_t *positions;
    rw_tensor device = upload_positions(g, &positions);
    int64_t tokens = shape[0] * shape[2];
    for (int64_t row = 0; row < shape[0] * shape[1] * shape[2]; row++) {
        int64_t b = row / (shape[1] * shape[2]), s = row % shape[2];
        for (int64_t i = 0; i < g->count; i++) {
            int64_t axis = rwt_rope_axis(&g->spec, i, g->count), column1, column2;
            double angle = (double)positions[axis * tokens + b * shape[2] + s] * g->inv_freq[i];
            pair_columns(g, i, &column1, &column2);
            double *x1 = &values[row * shape[3] + column1], *x2 = &values[row * shape[3] + column2];
            double y1 = *x1 * cos(angle) - *x2 * sin(angle);
            *x2 = *x2 * cos(angle) + *x1 * sin(angle);
            *x1 = y1;
        }
    }
    assert_int_equal(rw_free(g->context, device.data), RW_OK);
    free(positions);
}

static void check_tensor(const golden *g, const char *input, const char *output) {
    const rw_safetensor *tensor, *out_tensor;
    float *values = read_tensor(g, input, &tensor), *theirs = read_tensor(g, output, &out_tensor);
    int64_t count = tensor->bytes / (int64_t)sizeof *values;
    double *exact = rwt_allocate((size_t)count * sizeof *exact);
    double worst_hf = 0.0, worst_double = 0.0, moved = 0.0;
    for (int64_t i = 0; i < count; i++)
        exact[i] = values[i];
    rotate_double(g, exact, tensor->shape);
    float *before = read_tensor(g, input, &tensor);
    rotate(g, values, tensor->shape);
    for (int64_t i = 0; i < count; i++) {
        worst_hf = rwt_worse(worst_hf, fabs((double)values[i] - theirs[i]));
        worst_double = rwt_worse(worst_double, fabs(values[i] - exact[i]));
        moved = rwt_worse(moved, fabs((double)values[i] - before[i]));
    }
    print_message("%s: off by %.2g from Hugging Face, by %.2g from double\n", output, worst_hf,
                  worst_double);
    assert_true(moved > 0.5);
    assert_true(worst_hf <= HF_BOUND);
    assert_true(worst_double <= DOUBLE_BOUND);
    free(values);
    free(theirs);
    free(before);
    free(exact);
}

/* cos and sin [batch, seq, d]: the rotation of the pair (1, 0). */
static void check_cos_sin(const golden *g) {
    const rw_safetensor *tensor;
    float *c = read_tensor(g, "cos", &tensor), *s = read_tensor(g, "sin", &tensor);
    int64_t d = tensor->shape[2], tokens = tensor->shape[0] * tensor->shape[1];
    const int64_t shape[] = {tensor->shape[0], 1, tensor->shape[1], g->spec.head_dim};
    float *rows = rwt_allocate((size_t)(tokens * shape[3]) * sizeof *rows);
    double worst = 0.0;
    int64_t column1, column2;
    assert_int_equal(d, 2 * g->count);
    for (int64_t i = 0; i < tokens * g->count; i++) {
        pair_columns(g, i % g->count, &column1, &column2);
        rows[i / g->count * shape[3] + column1] = 1.0f;
    }
    rotate(g, rows, shape);
    for (int64_t i = 0; i < tokens * g->count; i++) {
        int64_t token = i / g->count, frequency = i % g->count;
        pair_columns(g, frequency, &column1, &column2);
        const float *row = rows + token * shape[3];
        worst = rwt_worse(worst, fabs((double)row[column1] - c[token * d + frequency]));
        worst = rwt_worse(worst, fabs((double)row[column2] - s[token * d + frequency]));
    }
    print_message("cos and sin: off by %.2g from Hugging Face\n", worst);
    assert_true(worst <= HF_BOUND);
    free(c);
    free(s);
    free(rows);
}

static void check_file(const char *path, const rw_rope_spec *spec) {
    golden g;
    open_golden(&g, path, spec);
    check_tensor(&g, "q", "qo");
    check_tensor(&g, "k", "ko");
    check_cos_sin(&g);
    close_golden(&g);
}

static void test_llama(void **state) {
    (void)state;
    rw_rope_spec spec = {.head_dim = 64};
    check_file(ROPEWALK_GOLDEN "/rope_llama_half.safetensors", &spec);
}

static void test_glm(void **state) {
    (void)state;
    rw_rope_spec spec = {
        .head_dim = 64, .pairing = RW_ROPE_INTERLEAVED, .partial_rotary_factor = 0.5};
    check_file(ROPEWALK_GOLDEN "/rope_glm_interleaved_half.safetensors", &spec);
}

static void test_qwen2_vl(void **state) {
    (void)state;
    rw_rope_spec spec = {
        .head_dim = 64, .axes = RW_ROPE_AXES_MROPE_CHUNKED, .sections = {8, 12, 12}};
    check_file(ROPEWALK_GOLDEN "/rope_qwen2vl_8_12_12.safetensors", &spec);
}

/* Text of 2, a video of 3 frames of 1 x 2 with 3 ids between them, text of 2, an image of 1 x 1,
 * text of 1: Qwen2_5_VLModel.get_rope_index of transformers 5.24, and earlier versions. */
static void test_mrope_positions(void **state) {
    static const struct {
        rw_mrope_advance advance;
        int64_t ids[3][12];
        int64_t delta;
    } wanted[] = {{RW_MROPE_ADVANCE_GRID,
                   {{0, 1, 2, 2, 5, 5, 8, 8, 4, 5, 6, 7},
                    {0, 1, 2, 2, 2, 2, 2, 2, 4, 5, 6, 7},
                    {0, 1, 2, 3, 2, 3, 2, 3, 4, 5, 6, 7}},
                   -3},
                  {RW_MROPE_ADVANCE_LARGEST,
                   {{0, 1, 2, 2, 5, 5, 8, 8, 9, 10, 11, 12},
                    {0, 1, 2, 2, 2, 2, 2, 2, 9, 10, 11, 12},
                    {0, 1, 2, 3, 2, 3, 2, 3, 9, 10, 11, 12}},
                   1}};
    static const int64_t segments[5][3] = {{2, 0, 0}, {3, 1, 2}, {2, 0, 0}, {1, 1, 1}, {1, 0, 0}};
    static const float steps[5] = {1, 3, 1, 1, 1};
    const int64_t ids_shape[] = {3, 1, 12}, segments_shape[] = {1, 5, 3}, one[] = {1};
    (void)state;
    rw_context *context = rwt_test_context();
    void *on[] = {rwt_test_upload(context, wanted[0].ids, sizeof wanted[0].ids),
                  rwt_test_upload(context, segments, sizeof segments),
                  rwt_test_upload(context, steps, sizeof steps),
                  rwt_test_upload(context, segments, sizeof(int64_t))};
    for (size_t n = 0; n < sizeof wanted / sizeof *wanted; n++) {
        const rw_positions_mrope_args args = {
            .out = rw_tensor_contiguous(on[0], RW_I64, 3, ids_shape),
            .segments = rw_tensor_contiguous(on[1], RW_I64, 3, segments_shape),
            .steps = rw_tensor_contiguous(on[2], RW_F32, 2, segments_shape),
            .advance = wanted[n].advance,
            .rope_delta = rw_tensor_contiguous(on[3], RW_I64, 1, one)};
        int64_t ids[3][12], delta;
        assert_int_equal(rw_positions_mrope(context, &args), RW_OK);
        assert_int_equal(rw_synchronize(context), RW_OK);
        rwt_test_download(context, ids, on[0], sizeof ids);
        rwt_test_download(context, &delta, on[3], sizeof delta);
        assert_memory_equal(ids, wanted[n].ids, sizeof ids);
        assert_int_equal(delta, wanted[n].delta);
    }
    for (size_t n = 0; n < sizeof on / sizeof *on; n++)
        rw_free(context, on[n]);
    rw_context_destroy(context);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_glm),
        cmocka_unit_test(test_qwen2_vl),
        cmocka_unit_test(test_mrope_positions),
    };
    return cmocka_run_group_tests_name("golden", tests, NULL, NULL);
}
