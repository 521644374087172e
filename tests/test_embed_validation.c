/* Learned and sinusoidal embeddings and position ids: every invalid call. Each must be refused with
 * a sentence that names the function and the argument, and nothing may be written. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

#define MEMORY_WORDS 1024 /* of 8 bytes, used as ids and, in halves, as floats */

typedef struct fixture {
    rw_context *context;
    rw_sinusoid *sinusoid;
    int64_t *memory;
    int64_t before[MEMORY_WORDS];
    rw_tensor table;    /* [16, 8] */
    rw_embed_args args; /* x, out [2, 3, 8], positions [2, 3], offsets [2] */
} fixture;

static rw_tensor tensor(fixture *f, int64_t word, rw_dtype dtype, int rank, const int64_t *shape) {
    return rw_tensor_contiguous(f->memory + word, dtype, rank, shape);
}

static int open_fixture(void **state) {
    fixture *f = rwt_allocate(sizeof *f);
    f->context = rwt_test_context();
    rw_sinusoid_options options = {.hidden = 8, .max_positions = 16};
    if (rw_sinusoid_create(f->context, &options, &f->sinusoid) != RW_OK)
        return 1;
    for (int i = 0; i < MEMORY_WORDS; i++)
        f->before[i] = i % 3;
    f->memory = rwt_test_upload(f->context, f->before, sizeof f->before);
    const int64_t hidden[] = {2, 3, 8}, table[] = {16, 8};
    f->table = tensor(f, 0, RW_F32, 2, table);
    f->args = (rw_embed_args){.x = tensor(f, 100, RW_F32, 3, hidden),
                              .out = tensor(f, 200, RW_F32, 3, hidden),
                              .positions = tensor(f, 300, RW_I64, 2, hidden),
                              .offsets = tensor(f, 310, RW_I64, 1, hidden)};
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = *state;
    rw_sinusoid_destroy(f->sinusoid);
    int status = rw_free(f->context, f->memory);
    rw_context_destroy(f->context);
    free(f);
    return status;
}

/* A call returned the expected status and sentence, and wrote nothing. */
static void assert_refused_as(const fixture *f, rw_status status, rwt_refusal expected) {
    const rwt_guarded guarded = {f->context, (void *)f->memory, (const void *)f->before,
                                 sizeof f->before};
    rwt_assert_refused(guarded, status, expected);
}

static void assert_refused(const fixture *f, rw_status status, const char *function,
                           const char *argument) {
    assert_refused_as(f, status, (rwt_refusal){RW_INVALID_ARGUMENT, function, argument});
}

/* Both embeddings refuse the arguments. */
static void assert_both_refuse(const fixture *f, const char *argument) {
    assert_refused(f, rw_embed_learned(f->context, &f->table, &f->args), "rw_embed_learned",
                   argument);
    assert_refused(f, rw_embed_sinusoidal(f->context, f->sinusoid, &f->args), "rw_embed_sinusoidal",
                   argument);
}

/* ---- embeddings ---- */

static void test_valid_calls_work(void **state) { /* the other tests modify one argument of it */
    fixture *f = *state;
    static int64_t after[MEMORY_WORDS];
    assert_int_equal(rw_embed_learned(f->context, &f->table, &f->args), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    assert_int_equal(rw_embed_sinusoidal(f->context, f->sinusoid, &f->args), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    rwt_test_download(f->context, after, f->memory, sizeof after);
    assert_memory_equal(after, f->before, 200 * sizeof *after);
    assert_memory_not_equal(after + 200, f->before + 200, 24 * sizeof *after);
    assert_memory_equal(after + 224, f->before + 224, 800 * sizeof *after);
}

static void test_embed_shapes(void **state) {
    fixture *f = *state;
    const rw_embed_args good = f->args;
    const struct {
        rw_tensor *changed;
        int axis;
        int64_t length;
        const char *argument;
    } wrong[] = {
        {&f->args.x, 2, 7, "x has shape [2, 3, 7]"},
        {&f->args.x, 0, -2, "x has shape"},
        {&f->args.out, 1, 4, "out has shape [2, 4, 8]"},
        {&f->args.out, 2, 4, "out has shape"},
        {&f->args.positions, 1, 2, "positions has shape [2, 2]"},
        {&f->args.positions, 0, 3, "positions has shape"},
        {&f->args.offsets, 0, 3, "offsets has shape [3]"},
        {&f->args.positions, 0, INT64_MIN, "positions has shape"},
        {&f->args.offsets, 0, INT64_MIN, "offsets has shape"},
        {&f->args.offsets, 0, INT64_MAX, "beyond 2^63 bytes"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        f->args = good;
        wrong[i].changed->shape[wrong[i].axis] = wrong[i].length;
        assert_both_refuse(f, wrong[i].argument);
    }
    const struct {
        rw_tensor *changed;
        int rank;
        const char *argument;
    } ranks[] = {{&f->args.x, 1, "x has rank 1"},
                 {&f->args.x, 4, "x has rank 4"},
                 {&f->args.x, 0, "x has rank 0"},
                 {&f->args.out, 2, "out has"},
                 {&f->args.positions, 3, "positions has rank 3"},
                 {&f->args.offsets, 2, "offsets has rank 2"}};
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        f->args = good;
        ranks[i].changed->rank = ranks[i].rank;
        assert_both_refuse(f, ranks[i].argument);
    }
}

static void test_embed_memory(void **state) {
    fixture *f = *state;
    const rw_embed_args good = f->args;
    f->args.x.data = NULL;
    assert_both_refuse(f, "x.data is NULL");
    f->args = good;
    f->args.x.stride[2] = 2;
    assert_both_refuse(f, "x has stride 2");
    f->args = good;
    f->args.out.stride[0] = 0;
    assert_both_refuse(f, "out has strides");
    f->args = good;
    f->args.out = f->args.x;
    f->args.out.data = (float *)f->args.x.data + 8; /* one token further */
    assert_both_refuse(f, "out overlaps x");
    f->args = good;
    f->args.out.data = f->memory + 299;
    assert_both_refuse(f, "out overlaps positions");
    f->args = good;
    f->args.out.data = f->memory + 311;
    assert_both_refuse(f, "out overlaps offsets");
    f->args = good;
    f->args.out.data = f->memory + 60;
    assert_refused(f, rw_embed_learned(f->context, &f->table, &f->args), "rw_embed_learned",
                   "out overlaps table");
}

static void test_embed_dtypes(void **state) {
    fixture *f = *state;
    const rw_embed_args good = f->args;
    f->args.out.dtype = RW_F16;
    assert_both_refuse(f, "out has dtype f16");
    f->args = good;
    const struct {
        rw_tensor *changed;
        rw_dtype dtype;
        const char *argument;
    } wrong[] = {{&f->args.x, RW_I32, "x has dtype i32"},
                 {&f->args.positions, RW_F32, "positions has dtype f32"},
                 {&f->args.offsets, RW_U8, "offsets has dtype u8"},
                 {&f->table, RW_I64, "table has dtype i64"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        f->args = good;
        wrong[i].changed->dtype = wrong[i].dtype;
        assert_refused_as(f, rw_embed_learned(f->context, &f->table, &f->args),
                          (rwt_refusal){RW_UNSUPPORTED, "rw_embed_learned", wrong[i].argument});
    }
}

static void test_embed_tables(void **state) {
    fixture *f = *state;
    rw_tensor table = f->table;
    table.shape[1] = 6;
    assert_refused(f, rw_embed_learned(f->context, &table, &f->args), "rw_embed_learned", "x has");
    table = f->table;
    table.rank = 3;
    assert_refused(f, rw_embed_learned(f->context, &table, &f->args), "rw_embed_learned",
                   "table has rank 3");
    table = f->table;
    table.stride[1] = 2;
    assert_refused(f, rw_embed_learned(f->context, &table, &f->args), "rw_embed_learned",
                   "table has stride 2");
    table = (rw_tensor){0};
    assert_refused(f, rw_embed_learned(f->context, &table, &f->args), "rw_embed_learned", "table");
    assert_refused(f, rw_embed_learned(f->context, NULL, &f->args), "rw_embed_learned",
                   "table is NULL");
    assert_refused(f, rw_embed_learned(f->context, &f->table, NULL), "rw_embed_learned",
                   "args is NULL");
    assert_refused(f, rw_embed_sinusoidal(f->context, NULL, &f->args), "rw_embed_sinusoidal",
                   "sinusoid is NULL");
    assert_refused(f, rw_embed_sinusoidal(f->context, f->sinusoid, NULL), "rw_embed_sinusoidal",
                   "args is NULL");
    assert_int_equal(rw_embed_learned(NULL, &f->table, &f->args), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_embed_sinusoidal(NULL, f->sinusoid, &f->args), RW_INVALID_ARGUMENT);
}

static void test_sinusoid_options(void **state) {
    fixture *f = *state;
    const struct {
        rw_sinusoid_options options;
        const char *word;
    } wrong[] = {{{.hidden = 7, .max_positions = 16}, "hidden is 7"},
                 {{.hidden = 0, .max_positions = 16}, "hidden is 0"},
                 {{.hidden = -8, .max_positions = 16}, "hidden is -8"},
                 {{.hidden = 8, .max_positions = 0}, "max_positions is 0"},
                 {{.hidden = 8, .max_positions = INT64_MIN}, "max_positions"},
                 {{.hidden = 8, .max_positions = 16, .theta = -1}, "theta is -1"},
                 {{.hidden = 8, .max_positions = 16, .theta = NAN}, "theta"},
                 {{.hidden = 8, .max_positions = 16, .layout = (rw_sinusoid_layout)9}, "layout"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        rw_sinusoid *sinusoid = f->sinusoid;
        assert_refused(f, rw_sinusoid_create(f->context, &wrong[i].options, &sinusoid),
                       "rw_sinusoid_create", wrong[i].word);
        assert_null(sinusoid);
    }
    assert_refused(f, rw_sinusoid_create(f->context, NULL, &f->sinusoid), "rw_sinusoid_create",
                   "options is NULL");
}

/* ---- position ids ---- */

static const int64_t two_five[] = {2, 5}, three_two_five[] = {3, 2, 5}, two[] = {2}, four[] = {4};

static void test_sequential(void **state) {
    fixture *f = *state;
    const char *name = "rw_positions_sequential";
    rw_positions_sequential_args good = {.out = tensor(f, 0, RW_I64, 2, two_five),
                                         .offsets = tensor(f, 50, RW_I64, 1, two)};
    rw_positions_sequential_args args = good;
    args.out.rank = 1;
    assert_refused(f, rw_positions_sequential(f->context, &args), name, "out has rank 1");
    args = good;
    args.out.data = NULL;
    assert_refused(f, rw_positions_sequential(f->context, &args), name, "out.data is NULL");
    args = good;
    args.out.stride[0] = 0;
    assert_refused(f, rw_positions_sequential(f->context, &args), name, "out has strides");
    args = good;
    args.offsets.shape[0] = 3;
    assert_refused(f, rw_positions_sequential(f->context, &args), name, "offsets has shape [3]");
    args = good;
    args.offsets.data = f->memory + 9;
    assert_refused(f, rw_positions_sequential(f->context, &args), name, "out overlaps offsets");
    args = good;
    args.out.dtype = RW_F32;
    assert_refused_as(f, rw_positions_sequential(f->context, &args),
                      (rwt_refusal){RW_UNSUPPORTED, name, "out has dtype f32"});
    assert_refused(f, rw_positions_sequential(f->context, NULL), name, "args is NULL");
    assert_int_equal(rw_positions_sequential(NULL, &good), RW_INVALID_ARGUMENT);
}

static void test_left_padded_and_packed(void **state) {
    fixture *f = *state;
    rw_positions_left_padded_args padded = {.out = tensor(f, 0, RW_I64, 2, two_five)};
    assert_refused(f, rw_positions_left_padded(f->context, &padded), "rw_positions_left_padded",
                   "padding");
    padded.padding = tensor(f, 50, RW_I64, 1, four);
    assert_refused(f, rw_positions_left_padded(f->context, &padded), "rw_positions_left_padded",
                   "padding has shape [4]");
    rw_positions_packed_args packed = {.out = tensor(f, 0, RW_I64, 1, four)};
    assert_refused(f, rw_positions_packed(f->context, &packed), "rw_positions_packed",
                   "cu_seqlens");
    packed.cu_seqlens = tensor(f, 50, RW_I64, 1, two);
    packed.cu_seqlens.shape[0] = 0;
    assert_refused(f, rw_positions_packed(f->context, &packed), "rw_positions_packed",
                   "cu_seqlens is empty");
    packed.cu_seqlens = tensor(f, 3, RW_I64, 1, two);
    assert_refused(f, rw_positions_packed(f->context, &packed), "rw_positions_packed",
                   "out overlaps cu_seqlens");
    packed.out = tensor(f, 0, RW_I64, 2, two_five);
    assert_refused(f, rw_positions_packed(f->context, &packed), "rw_positions_packed",
                   "out has rank 2");
}

static void test_mrope(void **state) {
    fixture *f = *state;
    const char *name = "rw_positions_mrope";
    const int64_t segments[] = {2, 4, 3}, steps[] = {2, 4};
    const rw_positions_mrope_args good = {.out = tensor(f, 0, RW_I64, 3, three_two_five),
                                          .segments = tensor(f, 100, RW_I64, 3, segments),
                                          .steps = tensor(f, 200, RW_F32, 2, steps),
                                          .rope_delta = tensor(f, 300, RW_I64, 1, two)};
    rw_positions_mrope_args args = good;
    args.out.shape[0] = 2;
    assert_refused(f, rw_positions_mrope(f->context, &args), name, "out has shape [2, 2, 5]");
    args = good;
    args.segments.shape[2] = 2;
    assert_refused(f, rw_positions_mrope(f->context, &args), name, "segments has shape");
    args = good;
    args.segments.shape[0] = 1;
    assert_refused(f, rw_positions_mrope(f->context, &args), name, "segments has shape");
    args = good;
    args.segments = (rw_tensor){0};
    assert_refused(f, rw_positions_mrope(f->context, &args), name, "segments");
    args = good;
    args.steps.shape[1] = 3;
    assert_refused(f, rw_positions_mrope(f->context, &args), name, "steps has shape [2, 3]");
    args = good;
    args.advance = (rw_mrope_advance)2;
    assert_refused(f, rw_positions_mrope(f->context, &args), name, "advance is 2");
    args = good;
    args.rope_delta.shape[0] = 1;
    assert_refused(f, rw_positions_mrope(f->context, &args), name, "rope_delta has shape [1]");
    args = good;
    args.rope_delta.data = f->memory + 29;
    assert_refused(f, rw_positions_mrope(f->context, &args), name, "rope_delta");
    args = good;
    args.rope_delta.data = f->memory + 123;
    assert_refused(f, rw_positions_mrope(f->context, &args), name, "rope_delta overlaps segments");
    args = good;
    args.steps.dtype = RW_F16;
    assert_refused_as(f, rw_positions_mrope(f->context, &args),
                      (rwt_refusal){RW_UNSUPPORTED, name, "steps has dtype f16"});
}

static void test_glm(void **state) {
    fixture *f = *state;
    const char *name = "rw_positions_glm";
    const int64_t shape[] = {2, 2, 5};
    const rw_positions_glm_args good = {.out = tensor(f, 0, RW_I64, 3, shape),
                                        .context_length = tensor(f, 50, RW_I32, 1, two),
                                        .mask_position = tensor(f, 60, RW_I64, 1, two)};
    rw_positions_glm_args args = good;
    args.out.shape[0] = 3;
    assert_refused(f, rw_positions_glm(f->context, &args), name, "out has shape [3, 2, 5]");
    args = good;
    args.context_length = (rw_tensor){0};
    assert_refused(f, rw_positions_glm(f->context, &args), name, "context_length");
    args = good;
    args.mask_position.shape[0] = 5;
    assert_refused(f, rw_positions_glm(f->context, &args), name, "mask_position has shape [5]");
    args = good;
    args.mask_position.data = f->memory + 19;
    assert_refused(f, rw_positions_glm(f->context, &args), name, "out overlaps mask_position");
}

#define FIXTURE_TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_valid_calls_work),
        FIXTURE_TEST(test_embed_shapes),
        FIXTURE_TEST(test_embed_memory),
        FIXTURE_TEST(test_embed_dtypes),
        FIXTURE_TEST(test_embed_tables),
        FIXTURE_TEST(test_sinusoid_options),
        FIXTURE_TEST(test_sequential),
        FIXTURE_TEST(test_left_padded_and_packed),
        FIXTURE_TEST(test_mrope),
        FIXTURE_TEST(test_glm),
    };
    return cmocka_run_group_tests_name("embedding and position validation", tests, NULL, NULL);
}
