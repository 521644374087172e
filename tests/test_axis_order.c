/* One order of axes: q, k, v and out are [batch, seq, heads, head_dim], or packed [tokens, heads,
 * head_dim], which is a batch of 1; a call in another order is refused with the axis at fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

enum {
    SEQ_Q = 6,
    SEQ_K = 32,
    HEADS = 4,
    KV_HEADS = 2,
    DIM = 16,
    PAGE = 16,
    MEMORY_FLOATS = 16384,
    OUTPUT = 8192 /* the first float of the outputs */
};

typedef struct fixture {
    rw_context *context;
    float *memory;
    float before[MEMORY_FLOATS];
} fixture;

static int open_fixture(void **state) {
    fixture *f = rwt_allocate(sizeof *f);
    rwt_random random = {7};
    f->context = rwt_test_context();
    for (int i = 0; i < MEMORY_FLOATS; i++)
        f->before[i] = (float)rwt_random_uniform(&random, -1.0, 1.0);
    f->memory = rwt_test_upload(f->context, f->before, sizeof f->before);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    fixture *f = *state;
    int status = rw_free(f->context, f->memory);
    rw_context_destroy(f->context);
    free(f);
    return status;
}

static rw_tensor tensor(const fixture *f, int64_t at, int rank, const int64_t *shape) {
    return rw_tensor_contiguous(f->memory + at, RW_F32, rank, shape);
}

/* [1, seq, heads, DIM]. */
static rw_tensor tokens(const fixture *f, int64_t at, int64_t seq, int64_t heads) {
    const int64_t shape[] = {1, seq, heads, DIM};
    return tensor(f, at, 4, shape);
}

static rw_tensor lse(const fixture *f, int64_t at) {
    const int64_t shape[] = {1, HEADS, SEQ_Q};
    return tensor(f, at, 3, shape);
}

static rw_tensor scores(const fixture *f, int64_t at) {
    const int64_t shape[] = {1, HEADS, SEQ_Q, SEQ_K};
    return tensor(f, at, 4, shape);
}

/* Copies the memory after the calls of a test, and restores its initial contents. */
static void take(const fixture *f, float *after) {
    const size_t bytes = sizeof f->before;
    const rw_copy_args restore = {f->memory, f->before, bytes, RW_COPY_HOST_TO_DEVICE};
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    rwt_test_download(f->context, after, f->memory, bytes);
    assert_int_equal(rw_copy(f->context, &restore), RW_OK);
}

/* Two calls, one of packed tensors, wrote the same outputs, and wrote some. */
static void assert_same(const fixture *f, rw_status first, rw_status second, const float *whole,
                        const float *packed) {
    if (first != RW_OK || second != RW_OK)
        print_error("%s\n", rw_last_error(f->context));
    assert_int_equal(first, RW_OK);
    assert_int_equal(second, RW_OK);
    assert_memory_equal(packed, whole, sizeof f->before);
    assert_memory_equal(packed, f->before, OUTPUT * sizeof *packed);
    assert_memory_not_equal(packed + OUTPUT, f->before + OUTPUT,
                            (MEMORY_FLOATS - OUTPUT) * sizeof *packed);
}

static float whole[MEMORY_FLOATS], packed[MEMORY_FLOATS];

/* ---- packed tensors ---- */

static rw_attention_args attention_of(const fixture *f) {
    return (rw_attention_args){.q = tokens(f, 0, SEQ_Q, HEADS),
                               .k = tokens(f, 1024, SEQ_K, KV_HEADS),
                               .v = tokens(f, 2048, SEQ_K, KV_HEADS),
                               .out = tokens(f, OUTPUT, SEQ_Q, HEADS),
                               .lse = lse(f, OUTPUT + 1024)};
}

static void pack_rows(rw_attention_args *args) {
    args->q = rwt_without_batch(args->q);
    args->out = rwt_without_batch(args->out);
    args->lse = rwt_without_batch(args->lse);
}

static void check_packed_attention(const fixture *f, const rw_attention_args *args,
                                   const rw_attention_args *packed_args) {
    rw_status first = rw_attention(f->context, args);
    take(f, whole);
    rw_status second = rw_attention(f->context, packed_args);
    take(f, packed);
    assert_same(f, first, second, whole, packed);
}

static void test_packed_attention(void **state) {
    const fixture *f = *state;
    const int64_t masks[][4] = {{SEQ_K}, {SEQ_Q, SEQ_K}, {HEADS, SEQ_Q, SEQ_K}, {1, 1, 1, SEQ_K}};
    const rw_pattern causal = {.causal = true};
    for (int rank = 0; rank <= 4; rank++) {
        rw_attention_args args = attention_of(f);
        args.pattern = &causal;
        if (rank > 0)
            args.mask = tensor(f, 3072, rank, masks[rank - 1]);
        rw_attention_args packed_args = args;
        pack_rows(&packed_args);
        packed_args.k = rwt_without_batch(args.k);
        packed_args.v = rwt_without_batch(args.v);
        check_packed_attention(f, &args, &packed_args);
    }
}

/* Paged k and v have no batch axis, also with a packed q. */
static void test_packed_pages(void **state) {
    const fixture *f = *state;
    const int32_t numbers[] = {1, 0};
    const int64_t pages[] = {SEQ_K / PAGE, PAGE, KV_HEADS, DIM}, table[] = {1, SEQ_K / PAGE};
    int32_t *on_device = rwt_test_upload(f->context, numbers, sizeof numbers);
    rw_attention_args args = attention_of(f);
    args.k = tensor(f, 1024, 4, pages);
    args.v = tensor(f, 2048, 4, pages);
    args.block_table = rw_tensor_contiguous(on_device, RW_I32, 2, table);
    rw_attention_args packed_args = args;
    pack_rows(&packed_args);
    check_packed_attention(f, &args, &packed_args);
    packed_args.k = rwt_without_batch(args.k);
    assert_int_equal(rw_attention(f->context, &packed_args), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(f->context), "k has rank 3, expected 4"));
    assert_int_equal(rw_free(f->context, on_device), RW_OK);
}

static void test_packed_merge(void **state) {
    const fixture *f = *state;
    rw_attention_merge_args args = {
        .a = {tokens(f, 0, SEQ_Q, HEADS), lse(f, 4096)},
        .b = {tokens(f, 1024, SEQ_Q, HEADS), lse(f, 5120)},
        .merged = {tokens(f, OUTPUT, SEQ_Q, HEADS), lse(f, OUTPUT + 1024)}};
    rw_status first = rw_attention_merge(f->context, &args);
    take(f, whole);
    rw_attention_part *parts[] = {&args.a, &args.b, &args.merged};
    for (int n = 0; n < 3; n++) {
        parts[n]->out = rwt_without_batch(parts[n]->out);
        parts[n]->lse = rwt_without_batch(parts[n]->lse);
    }
    rw_status second = rw_attention_merge(f->context, &args);
    take(f, packed);
    assert_same(f, first, second, whole, packed);
}

static void test_packed_products(void **state) {
    const fixture *f = *state;
    rw_qk_matmul_args qk = {.q = tokens(f, 0, SEQ_Q, HEADS),
                            .k = tokens(f, 1024, SEQ_K, KV_HEADS),
                            .out = scores(f, OUTPUT)};
    rw_status first = rw_qk_matmul(f->context, &qk);
    take(f, whole);
    qk.q = rwt_without_batch(qk.q);
    qk.k = rwt_without_batch(qk.k);
    qk.out = rwt_without_batch(qk.out);
    rw_status second = rw_qk_matmul(f->context, &qk);
    take(f, packed);
    assert_same(f, first, second, whole, packed);

    rw_weighted_matmul_args weighted = {.weights = scores(f, 4096),
                                        .v = tokens(f, 1024, SEQ_K, KV_HEADS),
                                        .out = tokens(f, OUTPUT, SEQ_Q, HEADS)};
    first = rw_weighted_matmul(f->context, &weighted);
    take(f, whole);
    weighted.weights = rwt_without_batch(weighted.weights);
    weighted.v = rwt_without_batch(weighted.v);
    weighted.out = rwt_without_batch(weighted.out);
    second = rw_weighted_matmul(f->context, &weighted);
    take(f, packed);
    assert_same(f, first, second, whole, packed);
}

static void test_packed_append(void **state) {
    const fixture *f = *state;
    rw_kv_append_args args = {.k = tokens(f, 0, SEQ_Q, KV_HEADS),
                              .v = tokens(f, 1024, SEQ_Q, KV_HEADS),
                              .cache = {.k = tokens(f, OUTPUT, SEQ_K, KV_HEADS),
                                        .v = tokens(f, OUTPUT + 2048, SEQ_K, KV_HEADS)}};
    rw_status first = rw_kv_append(f->context, &args);
    take(f, whole);
    args.k = rwt_without_batch(args.k);
    args.v = rwt_without_batch(args.v);
    rw_status second = rw_kv_append(f->context, &args);
    take(f, packed);
    assert_same(f, first, second, whole, packed);
}

/* Either all tensors of a call are packed or none. */
static void test_mixed_ranks(void **state) {
    const fixture *f = *state;
    const rw_attention_args good = attention_of(f);
    rw_attention_args args = good;
    args.k = rwt_without_batch(args.k);
    assert_int_equal(rw_attention(f->context, &args), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(f->context), "k has rank 3, expected 4"));
    args = good;
    args.out = rwt_without_batch(args.out);
    assert_int_equal(rw_attention(f->context, &args), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(f->context), "out has rank 3, expected 4"));
    args = good;
    args.lse = rwt_without_batch(args.lse);
    assert_int_equal(rw_attention(f->context, &args), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(f->context), "lse has rank 2, expected 3"));
    take(f, whole);
    assert_memory_equal(whole, f->before, sizeof whole);
}

/* ---- heads and positions exchanged ---- */

/* The shape with heads before positions. */
static rw_tensor old_order(const fixture *f, const rw_tensor *right) {
    const int axis = right->rank - 3;
    const rw_tensor exchanged = rw_tensor_transpose(*right, axis, axis + 1);
    return tensor(f, (float *)right->data - f->memory, right->rank, exchanged.shape);
}

/* The call returned `status`, its sentence has these words, and nothing was written. */
static void assert_refused(const fixture *f, rw_status status, const char *words) {
    static float after[MEMORY_FLOATS];
    if (status != RW_INVALID_ARGUMENT || !rwt_test_says(rw_last_error(f->context), words))
        fail_msg("%s, \"%s\" lacks \"%s\"", rw_status_name(status), rw_last_error(f->context),
                 words);
    take(f, after);
    assert_memory_equal(after, f->before, sizeof after);
}

static void test_old_order_of_attention(void **state) {
    const fixture *f = *state;
    for (int rank = 4; rank >= 3; rank--) {
        rw_attention_args good = attention_of(f);
        if (rank == 3) {
            pack_rows(&good);
            good.k = rwt_without_batch(good.k);
            good.v = rwt_without_batch(good.v);
        }
        rw_attention_args args = good;
        args.q = old_order(f, &good.q);
        args.k = old_order(f, &good.k);
        args.v = old_order(f, &good.v);
        args.out = old_order(f, &good.out);
        assert_refused(f, rw_attention(f->context, &args),
                       rank == 4 ? "k has 32 heads along axis 2, expected a divisor of the 6 along "
                                   "axis 2 of q"
                                 : "k has 32 heads along axis 1, expected a divisor of the 6 along "
                                   "axis 1 of q");
        args = good;
        args.q = old_order(f, &good.q); /* 6 heads share 2 */
        args.out = old_order(f, &good.out);
        assert_refused(f, rw_attention(f->context, &args),
                       rank == 4 ? "lse has shape [1, 4, 6], expected 6 along axis 1"
                                 : "lse has shape [4, 6], expected 6 along axis 0");
        args = good;
        args.v = old_order(f, &good.v);
        assert_refused(f, rw_attention(f->context, &args),
                       rank == 4 ? "v has shape [1, 2, 32, 16], expected 32 along axis 1"
                                 : "v has shape [2, 32, 16], expected 32 along axis 0");
        args = good;
        args.out = old_order(f, &good.out);
        assert_refused(f, rw_attention(f->context, &args),
                       rank == 4 ? "out has shape [1, 4, 6, 16], expected 6 along axis 1"
                                 : "out has shape [4, 6, 16], expected 6 along axis 0");
        args = good;
        const rw_tensor exchanged = rw_tensor_transpose(good.lse, rank - 3, rank - 2);
        args.lse = tensor(f, OUTPUT + 1024, rank - 1, exchanged.shape);
        assert_refused(f, rw_attention(f->context, &args),
                       rank == 4 ? "lse has shape [1, 6, 4], expected 4 along axis 1"
                                 : "lse has shape [6, 4], expected 4 along axis 0");
    }
}

static void test_old_order_of_pages(void **state) {
    const fixture *f = *state;
    const int64_t pages[] = {2, KV_HEADS, PAGE, DIM}, table[] = {1, 2};
    rw_attention_args args = attention_of(f);
    args.k = tensor(f, 1024, 4, pages);
    args.v = tensor(f, 2048, 4, pages);
    args.block_table = rw_tensor_contiguous(f->memory + 4096, RW_I32, 2, table);
    assert_refused(f, rw_attention(f->context, &args),
                   "k has 16 heads along axis 2, expected a divisor of the 4 along axis 2 of q");
    rw_kv_append_args append = {.k = tokens(f, 0, SEQ_Q, KV_HEADS),
                                .v = tokens(f, 1024, SEQ_Q, KV_HEADS),
                                .cache = {.k = tensor(f, OUTPUT, 4, pages),
                                          .v = tensor(f, OUTPUT + 2048, 4, pages),
                                          .block_table = args.block_table}};
    assert_refused(f, rw_kv_append(f->context, &append),
                   "append.k has shape [1, 6, 2, 16], expected 16 along axis 2");
    const rw_tensor cache = tokens(f, OUTPUT, SEQ_K, KV_HEADS);
    append.cache = (rw_kv_cache){.k = old_order(f, &cache), .v = old_order(f, &cache)};
    assert_refused(f, rw_kv_append(f->context, &append),
                   "append.k has shape [1, 6, 2, 16], expected 32 along axis 2");
}

static void test_old_order_of_merge(void **state) {
    const fixture *f = *state;
    const rw_tensor right = tokens(f, 0, SEQ_Q, HEADS), out = tokens(f, OUTPUT, SEQ_Q, HEADS);
    const rw_tensor a = old_order(f, &right), merged = old_order(f, &out);
    const rw_attention_merge_args args = {
        .a = {a, lse(f, 4096)}, .b = {a, lse(f, 5120)}, .merged = {merged, lse(f, OUTPUT + 1024)}};
    assert_refused(f, rw_attention_merge(f->context, &args),
                   "a.lse has shape [1, 4, 6], expected 6 along axis 1");
}

static void test_old_order_of_products(void **state) {
    const fixture *f = *state;
    const rw_tensor q = tokens(f, 0, SEQ_Q, HEADS), k = tokens(f, 1024, SEQ_K, KV_HEADS);
    rw_qk_matmul_args qk = {.q = old_order(f, &q), .k = old_order(f, &k), .out = scores(f, OUTPUT)};
    assert_refused(f, rw_qk_matmul(f->context, &qk),
                   "k has 32 heads along axis 2, expected a divisor of the 6 along axis 2 of q");
    qk.k = k; /* 6 heads share 2 */
    assert_refused(f, rw_qk_matmul(f->context, &qk),
                   "out has shape [1, 4, 6, 32], expected 6 along axis 1");
    const rw_tensor out = tokens(f, OUTPUT, SEQ_Q, HEADS);
    rw_weighted_matmul_args weighted = {
        .weights = scores(f, 4096), .v = old_order(f, &k), .out = out};
    assert_refused(f, rw_weighted_matmul(f->context, &weighted),
                   "v has shape [1, 2, 32, 16], expected 32 along axis 1");
    weighted.v = tokens(f, 1024, SEQ_K, 3);
    assert_refused(f, rw_weighted_matmul(f->context, &weighted),
                   "v has 3 heads along axis 2, expected a divisor of the 4 along axis 1 of "
                   "weights");
    weighted.v = k;
    weighted.out = old_order(f, &out);
    assert_refused(f, rw_weighted_matmul(f->context, &weighted),
                   "out has shape [1, 4, 6, 16], expected 6 along axis 1");
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(test_packed_attention),       WITH_FIXTURE(test_packed_pages),
        WITH_FIXTURE(test_packed_merge),           WITH_FIXTURE(test_packed_products),
        WITH_FIXTURE(test_packed_append),          WITH_FIXTURE(test_mixed_ranks),
        WITH_FIXTURE(test_old_order_of_attention), WITH_FIXTURE(test_old_order_of_pages),
        WITH_FIXTURE(test_old_order_of_merge),     WITH_FIXTURE(test_old_order_of_products),
    };
    return cmocka_run_group_tests_name("the order of axes", tests, NULL, NULL);
}
