/* The KV cache: every invalid call. Each must be refused with a sentence that names the function
 * and the argument, and nothing may be written. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

#define MEMORY_FLOATS 8192

/* q [2, 3, 4, 16] and k, v [2, 3, 2, 16] into a cache of 2 sequences in 6 pages of 16. */
typedef struct fixture {
    rw_context *context;
    rw_rope *rope;
    float *memory;
    float before[MEMORY_FLOATS];
    int64_t *ids; /* the table [2, 2], then the offsets [2] */
    rw_rope_append_args args;
} fixture;

static rw_tensor tokens(float *data, int64_t heads) {
    const int64_t shape[] = {2, 3, heads, 16};
    return rw_tensor_contiguous(data, RW_F32, 4, shape);
}

static rw_tensor pages(float *data) {
    const int64_t shape[] = {6, 16, 2, 16};
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
    const int64_t ids[6] = {5, 0, 2, 3, 14, 0}, table[] = {2, 2}, two[] = {2};
    f->memory = rwt_test_upload(f->context, f->before, sizeof f->before);
    f->ids = rwt_test_upload(f->context, ids, sizeof ids);
    f->args = (rw_rope_append_args){
        .rope = {.q = tokens(f->memory, 4)},
        .append = {.k = tokens(f->memory + 384, 2),
                   .v = tokens(f->memory + 576, 2),
                   .cache = {.k = pages(f->memory + 1024),
                             .v = pages(f->memory + 4096),
                             .block_table = rw_tensor_contiguous(f->ids, RW_I64, 2, table)},
                   .offsets = rw_tensor_contiguous(f->ids + 4, RW_I64, 1, two)}};
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

static void assert_rope_append_refused(const fixture *f, rw_status expected, const char *argument) {
    rwt_assert_refused(guarded(f), rw_rope_append(f->context, f->rope, &f->args),
                       (rwt_refusal){expected, "rw_rope_append", argument});
}

/* rw_kv_append() and rw_rope_append() both refuse the arguments. */
static void assert_refused(const fixture *f, rw_status expected, const char *argument) {
    rwt_assert_refused(guarded(f), rw_kv_append(f->context, &f->args.append),
                       (rwt_refusal){expected, "rw_kv_append", argument});
    assert_rope_append_refused(f, expected, argument);
}

static void test_valid(void **state) {
    fixture *f = *state;
    assert_int_equal(rw_rope_append(f->context, f->rope, &f->args), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    assert_int_equal(rw_kv_append(f->context, &f->args.append), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
}

static void test_null(void **state) {
    fixture *f = *state;
    assert_int_equal(rw_kv_append(NULL, &f->args.append), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_kv_append(f->context, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_rope_append(NULL, f->rope, &f->args), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_rope_append(f->context, NULL, &f->args), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_rope_append(f->context, f->rope, NULL), RW_INVALID_ARGUMENT);
    f->args.append.v.data = NULL;
    assert_refused(f, RW_INVALID_ARGUMENT, "append.v");
}

static void test_absent(void **state) {
    fixture *f = *state;
    rw_rope_append_args good = f->args;
    f->args.append.k.rank = 0;
    assert_refused(f, RW_INVALID_ARGUMENT, "append.k");
    f->args = good;
    f->args.append.cache.k.rank = 0;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.k");
    f->args = good;
    f->args.rope.q.rank = 0;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "q");
    f->args = good;
    f->args.rope.k = good.append.k;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "rope.k");
    f->args = good;
    f->args.rope.k_out = good.append.k;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "rope.k_out");
}

static void test_shapes(void **state) {
    fixture *f = *state;
    rw_rope_append_args good = f->args;
    rw_tensor *tensors[] = {&f->args.append.k, &f->args.append.v};
    const char *names[] = {"append.k", "append.v"};
    for (int i = 0; i < 2; i++) {
        tensors[i]->shape[2] = 1;
        assert_refused(f, RW_INVALID_ARGUMENT, names[i]);
        f->args = good;
        tensors[i]->shape[3] = 8;
        assert_refused(f, RW_INVALID_ARGUMENT, names[i]);
        f->args = good;
        tensors[i]->dtype = RW_BF16;
        assert_refused(f, RW_INVALID_ARGUMENT, names[i]);
        f->args = good;
    }
    f->args.append.v.shape[1] = 2;
    assert_refused(f, RW_INVALID_ARGUMENT, "append.v");
    f->args = good;
    f->args.append.cache.v.shape[0] = 5;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.v");
    f->args = good;
    f->args.append.cache.block_table.shape[0] = 3;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.block_table");
    f->args = good;
    f->args.append.cache.block_table.dtype = RW_F32;
    assert_refused(f, RW_UNSUPPORTED, "cache.block_table");
    f->args = good;
    f->args.append.cache.block_table.rank = 0; /* contiguous: 6 sequences, not 2 */
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.k");
    f->args = good;
    f->args.append.offsets.shape[0] = 1;
    assert_refused(f, RW_INVALID_ARGUMENT, "offsets");
    f->args = good;
    f->args.rope.q.shape[1] = 2;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "append.k");
}

/* Three packed tokens of q, k and v. */
static void pack_tokens(fixture *f) {
    const int64_t shape[] = {3, 2, 16};
    f->args.append.k = rw_tensor_contiguous(f->memory + 384, RW_F32, 3, shape);
    f->args.append.v = rw_tensor_contiguous(f->memory + 576, RW_F32, 3, shape);
    f->args.rope.q = rw_tensor_contiguous(f->memory, RW_F32, 3, shape);
}

/* Everything that is absent or 0 where slots are given. */
static void test_slots(void **state) {
    fixture *f = *state;
    const int64_t shape[] = {2, 3}, bounds[] = {3};
    f->args.append.slots = rw_tensor_contiguous(f->ids, RW_I32, 2, shape);
    assert_refused(f, RW_INVALID_ARGUMENT, "offsets is given together with slots");
    f->args.append.offsets.rank = 0;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.block_table");
    f->args.append.cache.block_table.rank = 0;
    rw_rope_append_args good = f->args;
    f->args.append.offset = 1;
    assert_refused(f, RW_INVALID_ARGUMENT, "offset is");
    f->args = good;
    f->args.append.cache.ring = 4;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.ring");
    f->args = good;
    f->args.append.cu_seqlens = rw_tensor_contiguous(f->ids, RW_I64, 1, bounds);
    assert_refused(f, RW_INVALID_ARGUMENT, "cu_seqlens");
    f->args = good;
    f->args.append.slots.shape[1] = 2;
    assert_refused(f, RW_INVALID_ARGUMENT, "slots");
    f->args = good;
    f->args.append.slots.dtype = RW_F32;
    assert_refused(f, RW_UNSUPPORTED, "slots");
    f->args = good;
    f->args.append.slots.data = good.append.cache.k.data;
    assert_refused(f, RW_INVALID_ARGUMENT, "slots");
    f->args = good;
    pack_tokens(f);
    assert_refused(f, RW_INVALID_ARGUMENT, "slots has rank 2");
}

static void test_sequences(void **state) {
    fixture *f = *state;
    const int64_t bounds[] = {3};
    f->args.append.cu_seqlens = rw_tensor_contiguous(f->ids, RW_I64, 1, bounds);
    f->args.rope.positions = rw_tensor_contiguous(f->ids, RW_I64, 1, bounds);
    assert_refused(f, RW_INVALID_ARGUMENT, "cu_seqlens");
    pack_tokens(f);
    rw_rope_append_args good = f->args;
    f->args.append.cu_seqlens.shape[0] = 2;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.block_table");
    f->args.append.cu_seqlens.shape[0] = 0;
    assert_refused(f, RW_INVALID_ARGUMENT, "cu_seqlens");
    f->args = good;
    f->args.append.cu_seqlens.dtype = RW_F32;
    assert_refused(f, RW_UNSUPPORTED, "cu_seqlens");
    f->args = good;
    f->args.append.cu_seqlens.data = f->args.append.cache.v.data;
    assert_refused(f, RW_INVALID_ARGUMENT, "cu_seqlens");
    f->args = good;
    f->args.rope.positions.rank = 0;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "rope.positions");
}

static void test_ring(void **state) {
    fixture *f = *state;
    const int64_t rings[] = {-1, 33, INT64_MAX};
    for (size_t i = 0; i < sizeof rings / sizeof *rings; i++) {
        f->args.append.cache.ring = rings[i];
        assert_refused(f, RW_INVALID_ARGUMENT, "cache.ring");
    }
}

static void test_k_alone(void **state) {
    fixture *f = *state;
    rw_rope_append_args good = f->args;
    f->args.append.v.rank = 0;
    assert_refused(f, RW_INVALID_ARGUMENT, "append.v is absent, but cache.v is given");
    f->args = good;
    f->args.append.cache.v.rank = 0;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.v is absent, but append.v is given");
    f->args.append.v.rank = 0;
    f->args.norm.normalize_v = true;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "norm.normalize_v");
}

/* Scales are those of caches of 8 bits, both of the same dtype. */
static void test_scales(void **state) {
    fixture *f = *state;
    const int64_t one = 1, two = 2, three = 3, rows[] = {1, 2};
    const rw_tensor scale = rw_tensor_contiguous(f->memory + 8000, RW_F32, 1, &one);
    f->args.append.cache.k_scale = scale;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.k_scale is given, but cache.k has another dtype");
    f->args.append.cache.k.dtype = RW_F8_E4M3;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.v has dtype f32, expected that of cache.k");
    f->args.append.cache.v.dtype = RW_F8_E5M2;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.v has dtype f8_e5m2, expected that of cache.k");
    f->args.append.cache.v.dtype = RW_F8_E4M3;
    const rw_rope_append_args good = f->args;
    f->args.append.cache.k_scale = rw_tensor_contiguous(f->memory + 8000, RW_F32, 1, &three);
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.k_scale has shape [3], expected 2");
    f->args.append.cache.k_scale = rw_tensor_contiguous(f->memory + 8000, RW_F32, 2, rows);
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.k_scale has rank 2");
    f->args.append.cache.k_scale = rw_tensor_contiguous(f->memory + 8000, RW_F16, 1, &two);
    assert_refused(f, RW_UNSUPPORTED, "cache.k_scale has dtype f16 (1), expected f32");
    f->args.append.cache.k_scale = rw_tensor_contiguous(f->memory + 1024, RW_F32, 1, &two);
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.k overlaps cache.k_scale");
    f->args = good;
    f->args.append.k.dtype = RW_F8_E4M3;
    assert_refused(f, RW_UNSUPPORTED, "append.k has dtype f8_e4m3 (6), expected f32, f16 or bf16");
    f->args = good;
    f->args.append.cache.v_scale = scale;
    f->args.append.cache.v.rank = f->args.append.v.rank = 0;
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.v_scale is given, but cache.v is absent");
    f->args = good;
    f->args.append.cache.v_scale = rw_tensor_contiguous(f->memory, RW_F32, 1, &two);
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "rope.q overlaps cache.v_scale");
}

/* Without a rotation: a norm and no ids. */
static void test_unrotated(void **state) {
    fixture *f = *state;
    const rwt_refusal refusals[] = {
        {RW_INVALID_ARGUMENT, "rw_rope_append", "rope is NULL and norm"},
        {RW_INVALID_ARGUMENT, "rw_rope_append", "positions"},
        {RW_INVALID_ARGUMENT, "rw_rope_append", "direction"},
        {RW_INVALID_ARGUMENT, "rw_rope_append", "q has rank 0"}};
    for (int i = 0; i < 4; i++) {
        rw_rope_append_args args = f->args;
        args.norm.normalize_v = i > 0;
        args.rope.offset = i == 1;
        args.rope.direction = i == 2 ? RW_ROPE_BACKWARD : RW_ROPE_FORWARD;
        args.rope.q.rank = i == 3 ? 0 : 4;
        rwt_assert_refused(guarded(f), rw_rope_append(f->context, NULL, &args), refusals[i]);
    }
}

static void test_overlap(void **state) {
    fixture *f = *state;
    rw_rope_append_args good = f->args;
    f->args.append.cache.v = good.append.cache.k;
    assert_refused(f, RW_INVALID_ARGUMENT, "overlaps");
    f->args = good;
    f->args.append.v.data = good.append.cache.k.data;
    assert_refused(f, RW_INVALID_ARGUMENT, "append.v");
    f->args = good;
    f->args.append.cache.k.stride[0] = 16; /* pages share memory */
    assert_refused(f, RW_INVALID_ARGUMENT, "cache.k");
    f->args = good;
    f->args.append.offsets.data = good.append.cache.v.data;
    assert_refused(f, RW_INVALID_ARGUMENT, "append.offsets");
    f->args = good;
    f->args.rope.q.data = good.append.cache.v.data;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "rope.q");
    f->args = good;
    f->args.rope.q_out = tokens(f->memory + 384, 4); /* overlaps k */
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "append.k");
}

static void test_norm(void **state) {
    fixture *f = *state;
    const int64_t shape[] = {16};
    rw_tensor weight = rw_tensor_contiguous(f->memory + 8000, RW_F32, 1, shape);
    f->args.norm.q_weight = weight;
    f->args.norm.q_weight.shape[0] = 8;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "norm.q_weight");
    f->args.norm.q_weight = weight;
    f->args.norm.k_weight = weight;
    f->args.norm.k_weight.dtype = RW_I32;
    assert_rope_append_refused(f, RW_UNSUPPORTED, "norm.k_weight");
    f->args.norm.k_weight = weight;
    f->args.norm.v_weight = weight;
    f->args.norm.v_weight.shape[0] = 8;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "norm.v_weight");
    f->args.norm.v_weight = weight;
    const float eps[] = {-1.0f, 2.0f, NAN};
    for (int i = 0; i < 3; i++) {
        f->args.norm.eps = eps[i];
        assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "norm.eps");
    }
    f->args.norm.eps = 1e-6f;
    f->args.norm.cast = (rw_norm_cast)2;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "norm.cast is 2");
    f->args.norm.cast = RW_NORM_CAST_BEFORE_WEIGHT;
    f->args.norm.k_weight.data = f->args.append.cache.k.data;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "norm.k_weight");
}

/* More axes than a tensor can have. */
static void test_ranks(void **state) {
    fixture *f = *state;
    const rw_tensor high = {f->memory + 8000, RW_I32, 9, {2, 1, 1, 1}, {1, 1, 1, 1}};
    rw_rope_append_args good = f->args;
    f->args.append.offsets = high;
    assert_refused(f, RW_INVALID_ARGUMENT, "offsets has rank 9");
    f->args = good;
    f->args.norm.q_weight = high;
    assert_rope_append_refused(f, RW_INVALID_ARGUMENT, "norm.q_weight has rank 9");
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(test_valid),  WITH_FIXTURE(test_null),    WITH_FIXTURE(test_absent),
        WITH_FIXTURE(test_shapes), WITH_FIXTURE(test_slots),   WITH_FIXTURE(test_sequences),
        WITH_FIXTURE(test_ring),   WITH_FIXTURE(test_k_alone), WITH_FIXTURE(test_unrotated),
        WITH_FIXTURE(test_scales), WITH_FIXTURE(test_overlap), WITH_FIXTURE(test_norm),
        WITH_FIXTURE(test_ranks),
    };
    return cmocka_run_group_tests_name("KV cache, refused arguments", tests, NULL, NULL);
}
