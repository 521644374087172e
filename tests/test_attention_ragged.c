/* A ragged batch as a serving engine runs it: 8 sequences whose pages share one cache, with chunks
 * of prompts, single tokens and 4 speculative tokens in the same call, over 50 steps. The result of
 * every sequence must be that of the sequence alone: bit for bit with batch_invariant, else to
 * rounding. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

enum {
    BATCH = 8,
    STEPS = 50,
    HEADS = 4,
    KV_HEADS = 2,
    DIM = 32,
    PAGE = 16,
    MAX_PAGES = 12, /* of a sequence */
    PAGES = BATCH * MAX_PAGES + 3,
    MAX_KEYS = MAX_PAGES * PAGE,
    MAX_TOKENS = BATCH * 40
};

static rw_context *context;

static void must(rw_status status) {
    if (status != RW_OK)
        fail_msg("%s: %s", rw_status_name(status), rw_last_error(context));
}

/* The engine: tensors on the device, and what the host knows of them. */
typedef struct engine {
    rw_dtype dtype;
    rwt_random random;
    char *cache_k, *cache_v; /* [PAGES, PAGE, KV_HEADS, DIM] */
    int32_t *table;          /* [BATCH, MAX_PAGES] */
    int32_t prompt[BATCH];   /* tokens of the prompt that are left */
    int32_t keys[BATCH + 1]; /* in the cache */
    int32_t bounds[BATCH + 1];
    int32_t tokens; /* with padding */
    char *q, *out, *lse, *workspace;
} engine;

static size_t row_bytes(const engine *e) {
    return HEADS * DIM * rw_dtype_size(e->dtype);
}

static char *upload_random(engine *e, int64_t count) {
    char *host = rwt_allocate((size_t)count * rw_dtype_size(e->dtype) + 1);
    for (int64_t i = 0; i < count; i++)
        rwt_store(e->dtype, host, i, rwt_random_uniform(&e->random, -2.0, 2.0));
    char *device = rwt_test_upload(context, host, (size_t)count * rw_dtype_size(e->dtype) + 1);
    free(host);
    return device;
}

static void open_engine(engine *e, rw_dtype dtype) {
    int32_t table[BATCH][MAX_PAGES];
    memset(e, 0, sizeof *e);
    e->dtype = dtype;
    e->random.state = 7;
    for (int b = 0; b < BATCH; b++) {
        e->prompt[b] = b % 3 == 0 ? 0 : 11 + 12 * b;
        for (int n = 0; n < MAX_PAGES; n++)
            table[b][n] = (7 + 31 * (n * BATCH + b)) % PAGES; /* 99 and 31 have no common factor */
    }
    e->table = rwt_test_upload(context, table, sizeof table);
    e->cache_k = upload_random(e, (int64_t)PAGES * PAGE * KV_HEADS * DIM);
    e->cache_v = upload_random(e, (int64_t)PAGES * PAGE * KV_HEADS * DIM);
}

static void close_engine(engine *e) {
    void *const memory[] = {e->table, e->cache_k, e->cache_v};
    for (size_t n = 0; n < sizeof memory / sizeof *memory; n++)
        must(rw_free(context, memory[n]));
}

/* New tokens of a sequence: a chunk of its prompt, one, 4, or none at times. */
static int32_t next_tokens(engine *e, int b) {
    int32_t count = rwt_random_below(&e->random, 3) == 0 ? 4 : 1;
    if (e->prompt[b] > 0) {
        count = (int32_t)rwt_random_below(&e->random, 33);
        count = count < e->prompt[b] ? count : e->prompt[b];
        e->prompt[b] -= count;
    } else if (rwt_random_below(&e->random, 4) == 0) {
        count = 0;
    }
    return e->keys[b] + count <= MAX_KEYS ? count : 0;
}

static rw_tensor ids(void *data, int64_t count) {
    return rw_tensor_contiguous(data, RW_I32, 1, &count);
}

static rw_tensor rows(const engine *e, void *data, int64_t tokens, int64_t heads) {
    const int64_t shape[] = {tokens, heads, DIM};
    return rw_tensor_contiguous(data, e->dtype, 3, shape);
}

static rw_tensor pages(const engine *e, void *data) {
    const int64_t shape[] = {PAGES, PAGE, KV_HEADS, DIM};
    return rw_tensor_contiguous(data, e->dtype, 4, shape);
}

static rw_tensor table_of(const engine *e, int64_t first, int64_t batch) {
    const int64_t shape[] = {batch, MAX_PAGES};
    return rw_tensor_contiguous(e->table + first * MAX_PAGES, RW_I32, 2, shape);
}

/* Puts the keys and values of the step's tokens into the cache. */
static void append(engine *e) {
    int32_t *bounds = rwt_test_upload(context, e->bounds, sizeof e->bounds);
    int32_t *offsets = rwt_test_upload(context, e->keys, BATCH * sizeof *e->keys);
    char *k = upload_random(e, (int64_t)e->tokens * KV_HEADS * DIM);
    char *v = upload_random(e, (int64_t)e->tokens * KV_HEADS * DIM);
    const rw_kv_append_args args = {
        .k = rows(e, k, e->tokens, KV_HEADS),
        .v = rows(e, v, e->tokens, KV_HEADS),
        .cache = {.k = pages(e, e->cache_k),
                  .v = pages(e, e->cache_v),
                  .block_table = table_of(e, 0, BATCH)},
        .offsets = ids(offsets, BATCH),
        .cu_seqlens = ids(bounds, BATCH + 1),
    };
    must(rw_kv_append(context, &args));
    must(rw_synchronize(context));
    void *const memory[] = {bounds, offsets, k, v};
    for (size_t n = 0; n < sizeof memory / sizeof *memory; n++)
        must(rw_free(context, memory[n]));
    for (int b = 0; b < BATCH; b++)
        e->keys[b] += e->bounds[b + 1] - e->bounds[b];
}

/* A call over sequences [first, first + batch). */
typedef struct attended {
    bool invariant;
    bool alone; /* with a hint, too */
    int64_t first;
    int64_t batch;
} attended;

/* Attends from the queries of the sequences to all their keys, and downloads out and LSE. */
static void attend(engine *e, attended how, char *out, float *lse) {
    const int64_t begin = e->bounds[how.first];
    const int64_t tokens = how.alone ? e->bounds[how.first + how.batch] - begin : e->tokens;
    int32_t bounds[BATCH + 1];
    for (int64_t b = 0; b <= how.batch; b++)
        bounds[b] = e->bounds[how.first + b] - (int32_t)begin;
    int32_t *cu = rwt_test_upload(context, bounds, (size_t)(how.batch + 1) * sizeof *bounds);
    int32_t *ends =
        rwt_test_upload(context, e->keys + how.first, (size_t)how.batch * sizeof *e->keys);
    const int64_t lse_shape[] = {HEADS, tokens};
    const rw_pattern pattern = {
        .causal = true, .alignment = RW_ALIGN_KEY_END, .key_end = ids(ends, how.batch)};
    rw_attention_args args = {
        .q = rows(e, e->q + begin * (int64_t)row_bytes(e), tokens, HEADS),
        .k = pages(e, e->cache_k),
        .v = pages(e, e->cache_v),
        .block_table = table_of(e, how.first, how.batch),
        .out = rows(e, e->out, tokens, HEADS),
        .lse = rw_tensor_contiguous(e->lse, RW_F32, 2, lse_shape),
        .pattern = &pattern,
        .cu_seqlens_q = ids(cu, how.batch + 1),
        .max_seq_q = how.alone ? tokens : 0,
        .batch_invariant = how.invariant,
    };
    int64_t bytes = 0;
    must(rw_attention_workspace(context, &args, &bytes));
    void *workspace = NULL;
    must(rw_alloc(context, (size_t)bytes + 1, &workspace));
    args.workspace = rw_tensor_contiguous(workspace, RW_U8, 1, &bytes);
    must(rw_attention(context, &args));
    must(rw_synchronize(context));
    rwt_test_download(context, out, e->out, (size_t)tokens * row_bytes(e));
    rwt_test_download(context, lse, e->lse, (size_t)tokens * HEADS * sizeof *lse);
    must(rw_free(context, workspace));
    must(rw_free(context, cu));
    must(rw_free(context, ends));
}

static void assert_near(double got, double expected, double bound) {
    if (!(fabs(got - expected) <= bound * fmax(1.0, fabs(expected))))
        fail_msg("%.9g, expected %.9g", got, expected);
}

/* The rows of sequence b in the results of the whole batch are those of its own. */
static void compare(engine *e, int b, bool invariant, const char *out, const float *lse) {
    const int64_t begin = e->bounds[b], tokens = e->bounds[b + 1] - begin;
    const double bound = e->dtype == RW_F32 ? 1e-5 : 0.02;
    char *own = rwt_allocate((size_t)tokens * row_bytes(e) + 1);
    float *own_lse = rwt_allocate((size_t)tokens * HEADS * sizeof *own_lse + 1);
    const attended alone = {invariant, true, b, 1};
    attend(e, alone, own, own_lse);
    const char *rows_of_b = out + begin * (int64_t)row_bytes(e);
    if (invariant)
        assert_memory_equal(own, rows_of_b, (size_t)tokens * row_bytes(e));
    for (int64_t n = 0; n < tokens * HEADS * DIM; n++)
        assert_near(rwt_load(e->dtype, rows_of_b, n), rwt_load(e->dtype, own, n), bound);
    for (int64_t h = 0; h < HEADS; h++)
        for (int64_t i = 0; i < tokens; i++) {
            const float got = lse[h * e->tokens + begin + i], expected = own_lse[h * tokens + i];
            if (invariant)
                assert_memory_equal(&got, &expected, sizeof got);
            assert_near((double)got, (double)expected, 1e-5);
        }
    free(own);
    free(own_lse);
}

/* Tokens of padding keep what they held. */
static void assert_padding(const engine *e, const char *out) {
    const size_t begin = (size_t)e->bounds[BATCH] * row_bytes(e);
    for (size_t n = begin; n < (size_t)e->tokens * row_bytes(e); n++)
        assert_int_equal((unsigned char)out[n], 0xA5);
}

static void take_step(engine *e, bool invariant) {
    static char pattern[MAX_TOKENS * HEADS * DIM * sizeof(float)];
    for (int b = 0; b < BATCH; b++)
        e->bounds[b + 1] = e->bounds[b] + next_tokens(e, b);
    e->tokens = e->bounds[BATCH] + (int32_t)rwt_random_below(&e->random, 3);
    assert_in_range(e->tokens, 0, MAX_TOKENS);
    append(e);
    memset(pattern, 0xA5, sizeof pattern);
    e->q = upload_random(e, (int64_t)e->tokens * HEADS * DIM);
    e->out = rwt_test_upload(context, pattern, sizeof pattern);
    e->lse = rwt_test_upload(context, pattern, MAX_TOKENS * HEADS * sizeof(float));
    char *out = rwt_allocate((size_t)e->tokens * row_bytes(e) + 1);
    float *lse = rwt_allocate((size_t)e->tokens * HEADS * sizeof *lse + 1);
    const attended all = {invariant, false, 0, BATCH};
    attend(e, all, out, lse);
    assert_padding(e, out);
    for (int b = 0; b < BATCH; b++)
        compare(e, b, invariant, out, lse);
    free(out);
    free(lse);
    must(rw_free(context, e->q));
    must(rw_free(context, e->out));
    must(rw_free(context, e->lse));
}

static void run_engine(rw_dtype dtype, bool invariant) {
    engine e;
    open_engine(&e, dtype);
    for (int step = 0; step < STEPS; step++)
        take_step(&e, invariant);
    close_engine(&e);
}

static void test_invariant_f32(void **state) {
    (void)state;
    run_engine(RW_F32, true);
}

static void test_invariant_bf16(void **state) {
    (void)state;
    run_engine(RW_BF16, true);
}

static void test_split_f16(void **state) {
    (void)state;
    run_engine(RW_F16, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_invariant_f32),
                                       cmocka_unit_test(test_invariant_bf16),
                                       cmocka_unit_test(test_split_f16)};
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    context = rwt_test_context();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rw_context_destroy(context);
    return failed;
}
