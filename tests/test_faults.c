/* The record of invalid ids, on the backend that ROPEWALK_BACKEND names: which token of which
 * operation is reported when many are wrong, and when the record is cleared. */
#include <ropewalk/ropewalk.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

#define TOKENS 20000
#define TABLE 100

/* x + table[ids], of hidden size 1, with x = 0 and table[p] = p + 1. */
typedef struct fixture {
    rw_context *context;
    float *x;
    float *table;
    int64_t *ids;
} fixture;

static int create(void **state) {
    fixture *f = calloc(1, sizeof *f);
    float table[TABLE];
    for (int i = 0; i < TABLE; i++)
        table[i] = (float)(i + 1);
    f->context = rwt_test_context();
    f->table = rwt_test_upload(f->context, table, sizeof table);
    assert_int_equal(rw_alloc(f->context, TOKENS * sizeof(float), (void **)&f->x), RW_OK);
    assert_int_equal(rw_alloc(f->context, TOKENS * sizeof(int64_t), (void **)&f->ids), RW_OK);
    *state = f;
    return 0;
}

static int destroy(void **state) {
    fixture *f = *state;
    rw_free(f->context, f->table);
    rw_free(f->context, f->x);
    rw_free(f->context, f->ids);
    rw_context_destroy(f->context);
    free(f);
    return 0;
}

static void upload(fixture *f, void *destination, const void *source, size_t bytes) {
    rw_copy_args copy = {destination, source, bytes, RW_COPY_HOST_TO_DEVICE};
    assert_int_equal(rw_copy(f->context, &copy), RW_OK);
}

/* x = 0, ids = 0, 1, ..., 99, 0, 1, ... */
static void reset(fixture *f, int64_t ids[TOKENS]) {
    static const float zeros[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        ids[i] = i % TABLE;
    upload(f, f->x, zeros, sizeof zeros);
}

static void embed(fixture *f, const int64_t ids[TOKENS]) {
    const int64_t x_shape[] = {TOKENS, 1}, table_shape[] = {TABLE, 1}, ids_shape[] = {TOKENS};
    rw_tensor table = rw_tensor_contiguous(f->table, RW_F32, 2, table_shape);
    rw_embed_args args = {
        .x = rw_tensor_contiguous(f->x, RW_F32, 2, x_shape),
        .positions = rw_tensor_contiguous(f->ids, RW_I64, 1, ids_shape),
    };
    upload(f, f->ids, ids, TOKENS * sizeof *ids);
    assert_int_equal(rw_embed_learned(f->context, &table, &args), RW_OK);
}

/* Writes ids[token] with a different operation. */
static void make_ids(fixture *f, int64_t padding) {
    const int64_t out_shape[] = {1, TOKENS}, padding_shape[] = {1};
    int64_t *memory = rwt_test_upload(f->context, &padding, sizeof padding);
    rw_positions_left_padded_args args = {
        .out = rw_tensor_contiguous(f->ids, RW_I64, 2, out_shape),
        .padding = rw_tensor_contiguous(memory, RW_I64, 1, padding_shape),
    };
    assert_int_equal(rw_positions_left_padded(f->context, &args), RW_OK);
    assert_int_equal(rw_free(f->context, memory), RW_OK);
}

/* The next synchronize reports `part`, the following one nothing. */
static void assert_reported(fixture *f, const char *operation, const char *part) {
    assert_int_equal(rw_synchronize(f->context), RW_OUT_OF_RANGE);
    if (!strstr(rw_last_error(f->context), operation) || !strstr(rw_last_error(f->context), part))
        fail_msg("\"%s\" holds not both \"%s\" and \"%s\"", rw_last_error(f->context), operation,
                 part);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
}

static void test_one_token(void **state) {
    static int64_t ids[TOKENS];
    static float x[TOKENS];
    fixture *f = *state;
    reset(f, ids);
    ids[12345] = 100;
    embed(f, ids);
    assert_reported(f, "embed_learned", "token 12345 has position id 100");
    rwt_test_download(f->context, x, f->x, sizeof x);
    for (int i = 0; i < TOKENS; i++)
        assert_true(x[i] == (i == 12345 ? 0.0f : (float)(ids[i] + 1)));
}

static void test_lowest_token(void **state) {
    static int64_t ids[TOKENS];
    fixture *f = *state;
    for (int first = 0; first < TOKENS; first += 6007) {
        reset(f, ids);
        for (int i = first; i < TOKENS; i++)
            ids[i] = i % 3 == first % 3 ? -1 - (int64_t)i : i % TABLE;
        embed(f, ids);
        char part[64];
        snprintf(part, sizeof part, "token %d has position id %d", first, -1 - first);
        assert_reported(f, "embed_learned", part);
    }
}

/* Every token has the longest id possible. */
static void test_all_tokens(void **state) {
    static int64_t ids[TOKENS];
    fixture *f = *state;
    reset(f, ids);
    for (int i = 0; i < TOKENS; i++)
        ids[i] = INT64_MIN + i;
    embed(f, ids);
    assert_reported(f, "embed_learned", "token 0 has position id -9223372036854775808");
}

/* A later operation with a lower token does not replace an earlier one. */
static void test_first_operation(void **state) {
    static int64_t ids[TOKENS];
    fixture *f = *state;
    reset(f, ids);
    embed(f, ids);
    ids[777] = 12345678901;
    embed(f, ids);
    make_ids(f, -5);
    ids[3] = -3;
    embed(f, ids);
    assert_reported(f, "embed_learned", "token 777 has position id 12345678901");
    make_ids(f, -5);
    embed(f, ids);
    assert_reported(f, "positions_left_padded", "-5");
}

/* A reported fault is cleared, also for an identical operation. */
static void test_reported_once_each(void **state) {
    static int64_t ids[TOKENS];
    fixture *f = *state;
    reset(f, ids);
    ids[42] = 1000;
    for (int i = 0; i < 3; i++) {
        embed(f, ids);
        assert_reported(f, "embed_learned", "token 42 has position id 1000");
    }
    ids[42] = 0;
    embed(f, ids);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
}

/* Contexts have separate records. */
static void test_two_contexts(void **state) {
    static int64_t ids[TOKENS];
    fixture *f = *state;
    rw_context *other = rwt_test_context();
    reset(f, ids);
    ids[9] = -9;
    embed(f, ids);
    assert_int_equal(rw_synchronize(other), RW_OK);
    assert_reported(f, "embed_learned", "token 9 has position id -9");
    rw_context_destroy(other);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_token),          cmocka_unit_test(test_lowest_token),
        cmocka_unit_test(test_all_tokens),         cmocka_unit_test(test_first_operation),
        cmocka_unit_test(test_reported_once_each), cmocka_unit_test(test_two_contexts),
    };
    return cmocka_run_group_tests(tests, create, destroy);
}
