/* Rotary embedding: every invalid call over tensors. Each must be refused with a sentence that
 * names the function and the argument, and nothing may be written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

#define MEMORY_FLOATS 4096

/* q [2, 3, 4, 16] and k [2, 3, 2, 16], rotated from one half of the memory into the other. */
typedef struct fixture {
    rw_context *context;
    rw_rope *rope;
    float *memory;
    float before[MEMORY_FLOATS];
    int64_t *ids; /* [2, 3] */
    rw_rope_args args;
} fixture;

static rw_tensor heads(float *data, int64_t count) {
    const int64_t shape[] = {2, 3, count, 16};
    return rw_tensor_contiguous(data, RW_F32, 4, shape);
}

static int open_fixture(void **state) {
    fixture *f = rwt_allocate(sizeof *f);
    f->context = rwt_test_context();
    rw_rope_options options = {.spec = {.head_dim = 16}, .max_positions = 64};
    if (rw_rope_create(f->context, &options, &f->rope) != RW_OK)
        return 1;
    for (int i = 0; i < MEMORY_FLOATS; i++)
        f->before[i] = (float)i;
    const int64_t ids[6] = {0, 1, 2, 3, 4, 5}, shape[] = {2, 3};
    f->memory = rwt_test_upload(f->context, f->before, sizeof f->before);
    f->ids = rwt_test_upload(f->context, ids, sizeof ids);
    f->args = (rw_rope_args){.q = heads(f->memory, 4),
                             .k = heads(f->memory + 512, 2),
                             .q_out = heads(f->memory + 1024, 4),
                             .k_out = heads(f->memory + 1536, 2),
                             .positions = rw_tensor_contiguous(f->ids, RW_I64, 2, shape)};
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = *state;
    rw_rope_destroy(f->rope);
    int status = rw_free(f->context, f->memory) | rw_free(f->context, f->ids);
    rw_context_destroy(f->context);
    free(f);
    return status;
}

static rwt_guarded guarded(const fixture *f) {
    return (rwt_guarded){f->context, f->memory, f->before, sizeof f->before};
}

/* rw_rope_apply() and rw_rope_rerotate() both refuse the arguments, naming the argument. */
static void assert_refused(const fixture *f, rw_status expected, const char *argument) {
    const rw_rope_change change = {f->rope, f->rope};
    rwt_assert_refused(guarded(f), rw_rope_apply(f->context, f->rope, &f->args),
                       (rwt_refusal){expected, "rw_rope_apply", argument});
    rwt_assert_refused(guarded(f), rw_rope_rerotate(f->context, &change, &f->args),
                       (rwt_refusal){expected, "rw_rope_rerotate", argument});
}

static void test_valid_call_works(void **state) { /* the other tests modify one argument of it */
    fixture *f = *state;
    static float after[MEMORY_FLOATS];
    assert_int_equal(rw_rope_apply(f->context, f->rope, &f->args), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    rwt_test_download(f->context, after, f->memory, sizeof after);
    assert_memory_equal(after, f->before, 1024 * sizeof *after);
    assert_memory_equal(after + 1024, f->before, 16 * sizeof *after); /* position 0 */
    assert_memory_not_equal(after + 1024, f->before + 1024, 384 * sizeof *after);
    assert_memory_equal(after + 1728, f->before + 1728, 1000 * sizeof *after);
}

static void test_ranks(void **state) {
    fixture *f = *state;
    rw_rope_args good = f->args;
    const int ranks[] = {-1, 1, 2, 5, 1000};
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        f->args.q.rank = ranks[i];
        assert_refused(f, RW_INVALID_ARGUMENT, "q has rank");
    }
    f->args = good;
    f->args.k.rank = 2;
    assert_refused(f, RW_INVALID_ARGUMENT, "k has rank");
    f->args = good; /* packed q with a k that has a batch */
    const int64_t packed[] = {6, 4, 16};
    f->args.q = rw_tensor_contiguous(f->memory, RW_F32, 3, packed);
    f->args.q_out = rw_tensor_contiguous(f->memory + 1024, RW_F32, 3, packed);
    assert_refused(f, RW_INVALID_ARGUMENT, "k has rank");
    f->args = good;
    f->args.positions.rank = 3;
    assert_refused(f, RW_INVALID_ARGUMENT, "positions");
    f->args = good;
    f->args.offsets = rw_tensor_contiguous(f->ids, RW_I64, 2, (const int64_t[]){2, 1});
    assert_refused(f, RW_INVALID_ARGUMENT, "offsets");
}

static void test_dtypes(void **state) {
    fixture *f = *state;
    rw_rope_args good = f->args;
    const rw_dtype dtypes[] = {RW_I32, RW_I64, RW_U8, (rw_dtype)77, (rw_dtype)-1};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        f->args = good;
        f->args.q.dtype = dtypes[i];
        assert_refused(f, RW_UNSUPPORTED, "q has dtype");
    }
    f->args = good;
    f->args.k.dtype = f->args.k_out.dtype = RW_F16;
    assert_refused(f, RW_INVALID_ARGUMENT, "k has dtype f16");
    f->args = good;
    f->args.q_out.dtype = RW_BF16;
    assert_refused(f, RW_INVALID_ARGUMENT, "q_out has dtype bf16");
    f->args = good;
    f->args.positions.dtype = RW_F32;
    assert_refused(f, RW_UNSUPPORTED, "positions has dtype f32");
    f->args = good;
    f->args.offsets = rw_tensor_contiguous(f->ids, RW_U8, 1, (const int64_t[]){2});
    assert_refused(f, RW_UNSUPPORTED, "offsets has dtype u8");
}

static void test_shapes(void **state) {
    fixture *f = *state;
    rw_rope_args good = f->args;
    const struct {
        rw_tensor *tensor;
        int axis;
        int64_t length;
        const char *argument;
    } wrong[] = {
        {&f->args.q, 3, 8, "q has shape [2, 3, 4, 8]"}, /* head_dim */
        {&f->args.q, 2, -1, "q has shape"},
        {&f->args.k, 3, 15, "k has shape"},
        {&f->args.k, 0, 1, "k"}, /* batch, of k_out or of q */
        {&f->args.k, 1, 2, "k"},
        {&f->args.q_out, 0, 1, "q_out has shape"},
        {&f->args.q_out, 2, 3, "q_out has shape"},
        {&f->args.k_out, 1, 4, "k_out has shape"},
        {&f->args.positions, 1, 4, "positions has shape"},
        {&f->args.positions, 0, 3, "positions has shape"},
        {&f->args.positions, 1, 0, "positions has shape"},
        {&f->args.positions, 1, -3, "positions has shape"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        f->args = good;
        wrong[i].tensor->shape[wrong[i].axis] = wrong[i].length;
        assert_refused(f, RW_INVALID_ARGUMENT, wrong[i].argument);
    }
    f->args = good;
    f->args.k.shape[1] = f->args.k_out.shape[1] = 2; /* seq other than q's */
    assert_refused(f, RW_INVALID_ARGUMENT, "k has shape");
    f->args = good;
    f->args.offsets = rw_tensor_contiguous(f->ids, RW_I64, 1, (const int64_t[]){3});
    assert_refused(f, RW_INVALID_ARGUMENT, "offsets has shape [3]");
    f->args = good;
    f->args.q.shape[0] = INT64_MAX / 2;
    assert_refused(f, RW_INVALID_ARGUMENT, "q");
}

static void test_strides_and_pointers(void **state) {
    fixture *f = *state;
    rw_rope_args good = f->args;
    f->args.q.stride[3] = 2;
    assert_refused(f, RW_INVALID_ARGUMENT, "q has stride 2");
    f->args = good;
    f->args.k_out.stride[3] = -1;
    assert_refused(f, RW_INVALID_ARGUMENT, "k_out has stride -1");
    f->args = good;
    f->args.q_out.stride[2] = 0; /* heads that share memory */
    assert_refused(f, RW_INVALID_ARGUMENT, "q_out");
    f->args = good;
    f->args.q_out.stride[2] = 8; /* heads that overlap */
    assert_refused(f, RW_INVALID_ARGUMENT, "q_out");
    f->args = good;
    f->args.q_out = (rw_tensor){0}; /* in place over rows that share memory */
    f->args.q.stride[1] = 0;
    assert_refused(f, RW_INVALID_ARGUMENT, "q has strides");
    f->args = good;
    f->args.q.data = NULL;
    assert_refused(f, RW_INVALID_ARGUMENT, "q.data is NULL");
    f->args = good;
    f->args.k_out.data = NULL;
    assert_refused(f, RW_INVALID_ARGUMENT, "k_out.data is NULL");
    f->args = good;
    f->args.positions.data = NULL;
    assert_refused(f, RW_INVALID_ARGUMENT, "positions.data is NULL");
    f->args = good;
    f->args.q.data = (char *)f->args.q.data + 2; /* misaligned: half a float */
    assert_refused(f, RW_INVALID_ARGUMENT, "q.data");
    f->args = good;
    f->args.positions.data = (char *)f->args.positions.data + 4;
    assert_refused(f, RW_INVALID_ARGUMENT, "positions.data");
}

static void test_aliasing(void **state) {
    fixture *f = *state;
    rw_rope_args good = f->args;
    const struct {
        rw_tensor *tensor;
        int64_t first; /* float of the memory */
        const char *argument;
    } wrong[] = {
        {&f->args.q_out, 1, "q_out overlaps q"},  /* the same rows, one element further */
        {&f->args.q_out, 64, "q_out overlaps q"}, /* one token further */
        {&f->args.q_out, 128, "q_out overlaps"},  /* into the middle */
        {&f->args.k_out, 512 + 16, "k_out overlaps k"},
        {&f->args.q_out, 512 - 64, "q_out overlaps"}, /* k */
        {&f->args.k_out, 0, "overlaps"},              /* q */
        {&f->args.k_out, 1024 + 383, "overlaps"},     /* q_out's last element */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        f->args = good;
        wrong[i].tensor->data = f->memory + wrong[i].first;
        assert_refused(f, RW_INVALID_ARGUMENT, wrong[i].argument);
    }
    f->args = good; /* in place, k a part of q */
    f->args.q_out = f->args.k_out = (rw_tensor){0};
    f->args.k.data = f->memory + 16;
    assert_refused(f, RW_INVALID_ARGUMENT, "overlaps");
    f->args = good; /* the same memory in a different order: BHSD over BSHD */
    const int64_t bhsd[] = {2, 4, 3, 16};
    f->args.q_out = rw_tensor_transpose(rw_tensor_contiguous(f->memory, RW_F32, 4, bhsd), 1, 2);
    assert_refused(f, RW_INVALID_ARGUMENT, "q_out overlaps q");
    f->args = good; /* ids in memory that is written */
    f->args.positions.data = f->memory + 1024;
    assert_refused(f, RW_INVALID_ARGUMENT, "positions");
    f->args = good;
    f->args.offsets = rw_tensor_contiguous(f->memory + 1536, RW_I64, 1, (const int64_t[]){2});
    assert_refused(f, RW_INVALID_ARGUMENT, "offsets");
}

static void test_aliasing_that_is_fine(void **state) {
    fixture *f = *state;
    f->args.q_out = f->args.q; /* in place */
    f->args.k_out = (rw_tensor){0};
    assert_int_equal(rw_rope_apply(f->context, f->rope, &f->args), RW_OK);
    const int64_t fused[] = {2, 3, 8, 16}; /* q, k and v in one tensor */
    rw_tensor qkv = rw_tensor_contiguous(f->memory, RW_F32, 4, fused);
    f->args.q = f->args.k = qkv;
    f->args.q.shape[2] = 4;
    f->args.k.shape[2] = 2;
    f->args.k.data = f->memory + 4 * 16;
    f->args.q_out = (rw_tensor){0};
    assert_int_equal(rw_rope_apply(f->context, f->rope, &f->args), RW_OK);
    f->args.positions.stride[0] = 0; /* one row of ids for every batch */
    assert_int_equal(rw_rope_apply(f->context, f->rope, &f->args), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
}

static void test_absent_arguments(void **state) {
    fixture *f = *state;
    rw_rope_args good = f->args;
    f->args.q = (rw_tensor){0};
    assert_refused(f, RW_INVALID_ARGUMENT, "q_out is given");
    f->args = good;
    f->args.k = (rw_tensor){0};
    assert_refused(f, RW_INVALID_ARGUMENT, "k_out is given");
    f->args = (rw_rope_args){.positions = good.positions};
    assert_refused(f, RW_INVALID_ARGUMENT, "q and k");
    f->args = good;
    rw_rope_change change = {f->rope, f->rope};
    assert_int_equal(rw_rope_apply(f->context, f->rope, NULL), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(f->context), "args is NULL"));
    assert_int_equal(rw_rope_apply(f->context, NULL, &f->args), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(f->context), "rope is NULL"));
    assert_int_equal(rw_rope_apply(NULL, f->rope, &f->args), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_rope_rerotate(NULL, &change, &f->args), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_rope_rerotate(f->context, NULL, &f->args), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(f->context), "change is NULL"));
    change.from = NULL;
    assert_int_equal(rw_rope_rerotate(f->context, &change, &f->args), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(f->context), "from is NULL"));
    change = (rw_rope_change){f->rope, NULL};
    assert_int_equal(rw_rope_rerotate(f->context, &change, &f->args), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(f->context), "to is NULL"));
    rwt_assert_untouched(guarded(f));
}

static void test_direction(void **state) {
    fixture *f = *state;
    f->args.direction = (rw_rope_direction)7;
    assert_refused(f, RW_INVALID_ARGUMENT, "direction is 7");
    f->args.direction = RW_ROPE_INVERSE;
    rw_rope_change change = {f->rope, f->rope};
    assert_int_equal(rw_rope_rerotate(f->context, &change, &f->args), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(f->context), "direction"));
    rwt_assert_untouched(guarded(f));
}

static void test_change_between_unlike_ropes(void **state) {
    fixture *f = *state;
    const rw_rope_spec unlike[] = {
        {.head_dim = 16, .pairing = RW_ROPE_INTERLEAVED},
        {.head_dim = 16, .rotary_dim = 8},
        {.head_dim = 16, .rotary_dim = 8, .rotary_start = 8},
        {.head_dim = 32},
        {.head_dim = 16, .axes = RW_ROPE_AXES_VISION_2D},
        {.head_dim = 16, .axes = RW_ROPE_AXES_2D_INTERLEAVED},
        {.head_dim = 16, .axes = RW_ROPE_AXES_MROPE_CHUNKED, .sections = {4, 2, 2}},
    };
    for (size_t i = 0; i < sizeof unlike / sizeof *unlike; i++) {
        rw_rope_options options = {.spec = unlike[i], .max_positions = 64};
        rw_rope *other;
        assert_int_equal(rw_rope_create(f->context, &options, &other), RW_OK);
        rw_rope_change change = {other, f->rope};
        assert_int_equal(rw_rope_rerotate(f->context, &change, &f->args), RW_INVALID_ARGUMENT);
        assert_true(rwt_test_says(rw_last_error(f->context), "change"));
        rwt_assert_untouched(guarded(f));
        rw_rope_destroy(other);
    }
}

static void test_empty_tensors_do_nothing(void **state) {
    fixture *f = *state;
    rw_rope_args good = f->args;
    for (int axis = 0; axis < 3; axis++) {
        f->args = good;
        f->args.q.shape[axis] = f->args.q_out.shape[axis] = 0;
        f->args.k.shape[axis] = f->args.k_out.shape[axis] = 0;
        f->args.positions = (rw_tensor){0};
        assert_int_equal(rw_rope_apply(f->context, f->rope, &f->args), RW_OK);
        f->args.q.data = f->args.q_out.data = NULL; /* no address */
        f->args.k.data = f->args.k_out.data = NULL;
        assert_int_equal(rw_rope_apply(f->context, f->rope, &f->args), RW_OK);
        rwt_assert_untouched(guarded(f));
    }
}

#define FIXTURE_TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_valid_call_works),
        FIXTURE_TEST(test_ranks),
        FIXTURE_TEST(test_dtypes),
        FIXTURE_TEST(test_shapes),
        FIXTURE_TEST(test_strides_and_pointers),
        FIXTURE_TEST(test_aliasing),
        FIXTURE_TEST(test_aliasing_that_is_fine),
        FIXTURE_TEST(test_absent_arguments),
        FIXTURE_TEST(test_direction),
        FIXTURE_TEST(test_change_between_unlike_ropes),
        FIXTURE_TEST(test_empty_tensors_do_nothing),
    };
    return cmocka_run_group_tests_name("rope validation", tests, NULL, NULL);
}
