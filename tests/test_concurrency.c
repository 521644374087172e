/* Several threads at once, a context each: operations on shared inputs and tables, opening and
 * closing, errors. ThreadSanitizer runs it, too. Half of the threads run a pool of their own in
 * place of OpenMP; where ROPEWALK_BACKEND is hip, half of them use the CPU. */
#define _POSIX_C_SOURCE 200809L

#include <ropewalk/ropewalk.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/task_threads.h"
#include "harness/test_support.h"

#define THREADS 4

/* Each operation has enough work for two threads. */
#define SEQ 96
#define HEADS 8
#define KV_HEADS 4
#define DIM 64
#define Q_COUNT ((size_t)SEQ * HEADS * DIM)
#define KV_COUNT ((size_t)SEQ * KV_HEADS * DIM)
#define SCORE_COUNT ((size_t)HEADS * SEQ * SEQ)
#define RESULT_COUNT (3 * Q_COUNT + 3 * KV_COUNT + SCORE_COUNT)
#define RESULT_BYTES (RESULT_COUNT * sizeof(float))

/* What every thread on a backend reads. */
typedef struct layer {
    rw_context *context; /* whose memory this is; no thread uses it */
    rw_rope *rope;
    float *q;
    float *k;
    float *v;
    float *weight;
    float *scores;
    float *expected; /* on the host: results of one thread */
} layer;

static layer layers[2]; /* of the backend under test, and of the CPU */

/* ---- threads ---- */

#define POOL_TASKS 3

static void run_pool(void *user, int32_t num_tasks, void (*task)(void *data, int32_t index),
                     void *data) {
    int *calls = user;
    (*calls)++;
    rwt_run_threads(num_tasks, task, data);
}

/* One of the threads; cmocka's assertions work in the first thread only. */
typedef struct user {
    pthread_t thread;
    int index;
    bool on_cpu;
    int pool_calls;
    const char *failed; /* what was not true; NULL: nothing */
} user;

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return (void)(u->failed = #condition);                                                 \
    } while (0)

static rw_context_options options_of(user *u) {
    rw_context_options options = {.backend = u->on_cpu ? RW_BACKEND_CPU : RW_BACKEND_DEFAULT};
    if (u->index / 2 % 2 == 0) {
        options.num_threads = POOL_TASKS;
        options.parallel_for = run_pool;
        options.parallel_for_user = &u->pool_calls;
    } else {
        options.num_threads = 2;
    }
    return options;
}

static void run_users(void *(*body)(void *opaque)) {
    user users[THREADS];
    for (int i = 0; i < THREADS; i++) {
        users[i] = (user){.index = i, .on_cpu = i % 2};
        assert_int_equal(pthread_create(&users[i].thread, NULL, body, &users[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(users[i].thread, NULL);
    for (int i = 0; i < THREADS; i++)
        if (users[i].failed)
            fail_msg("thread %d: not true: %s", i, users[i].failed);
}

/* ---- operations on shared inputs and tables ---- */

static rw_tensor tokens(float *data, int64_t heads) {
    return rw_tensor_contiguous(data, RW_F32, 4, (const int64_t[]){1, SEQ, heads, DIM});
}

/* Every operation writes to its own part of `results`. */
static rw_status run_layer(rw_context *context, const layer *l, float *results) {
    float *q = results, *k = q + Q_COUNT, *cache_k = k + KV_COUNT, *cache_v = cache_k + KV_COUNT;
    float *out = cache_v + KV_COUNT, *norm = out + Q_COUNT, *shares = norm + Q_COUNT;
    const int64_t rows[] = {SEQ, HEADS * DIM}, squares[] = {1, HEADS, SEQ, SEQ};
    const rw_pattern causal = {.causal = true};
    const rw_rope_args rope = {.q = tokens(l->q, HEADS),
                               .k = tokens(l->k, KV_HEADS),
                               .q_out = tokens(q, HEADS),
                               .k_out = tokens(k, KV_HEADS)};
    const rw_kv_append_args append = {
        .k = rope.k_out,
        .v = tokens(l->v, KV_HEADS),
        .cache = {.k = tokens(cache_k, KV_HEADS), .v = tokens(cache_v, KV_HEADS)}};
    const rw_attention_args attention = {.q = rope.q_out,
                                         .k = append.cache.k,
                                         .v = append.cache.v,
                                         .out = tokens(out, HEADS),
                                         .pattern = &causal};
    const rw_rms_norm_args rms_norm = {.x = rw_tensor_contiguous(out, RW_F32, 2, rows),
                                       .weight =
                                           rw_tensor_contiguous(l->weight, RW_F32, 1, rows + 1),
                                       .out = rw_tensor_contiguous(norm, RW_F32, 2, rows),
                                       .eps = 1e-6f};
    const rw_softmax_args softmax = {.x = rw_tensor_contiguous(l->scores, RW_F32, 4, squares),
                                     .out = rw_tensor_contiguous(shares, RW_F32, 4, squares),
                                     .scale = 0.5,
                                     .pattern = &causal};
    rw_status status = rw_rope_apply(context, l->rope, &rope);
    if (status == RW_OK)
        status = rw_kv_append(context, &append);
    if (status == RW_OK)
        status = rw_attention(context, &attention);
    if (status == RW_OK)
        status = rw_rms_norm(context, &rms_norm);
    if (status == RW_OK)
        status = rw_softmax(context, &softmax);
    return status == RW_OK ? rw_synchronize(context) : status;
}

static float *random_floats(rw_context *context, size_t count, uint64_t seed) {
    rwt_random random = {seed};
    float *values = rwt_allocate(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)rwt_random_uniform(&random, -2.0, 2.0);
    float *uploaded = rwt_test_upload(context, values, count * sizeof *values);
    free(values);
    return uploaded;
}

static void open_layer(layer *l, rw_backend_kind backend) {
    const rw_context_options options = {.backend = backend, .num_threads = 1};
    const rw_rope_options rope = {.spec = {.head_dim = DIM}, .max_positions = SEQ};
    assert_int_equal(rw_context_create(&options, &l->context, NULL), RW_OK);
    assert_int_equal(rw_rope_create(l->context, &rope, &l->rope), RW_OK);
    l->q = random_floats(l->context, Q_COUNT, 1);
    l->k = random_floats(l->context, KV_COUNT, 2);
    l->v = random_floats(l->context, KV_COUNT, 3);
    l->weight = random_floats(l->context, HEADS * DIM, 4);
    l->scores = random_floats(l->context, SCORE_COUNT, 5);
    void *results;
    assert_int_equal(rw_alloc(l->context, RESULT_BYTES, &results), RW_OK);
    assert_int_equal(run_layer(l->context, l, results), RW_OK);
    l->expected = rwt_allocate(RESULT_BYTES);
    rwt_test_download(l->context, l->expected, results, RESULT_BYTES);
    assert_int_equal(rw_free(l->context, results), RW_OK);
}

static void close_layer(layer *l) {
    float *const memory[] = {l->q, l->k, l->v, l->weight, l->scores};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        assert_int_equal(rw_free(l->context, memory[i]), RW_OK);
    rw_rope_destroy(l->rope);
    rw_context_destroy(l->context);
    free(l->expected);
}

static int open_layers(void **state) {
    (void)state;
    rwt_test_restore_crash_handlers();
    open_layer(&layers[0], RW_BACKEND_DEFAULT);
    open_layer(&layers[1], RW_BACKEND_CPU);
    return 0;
}

static int close_layers(void **state) {
    (void)state;
    close_layer(&layers[0]);
    close_layer(&layers[1]);
    return 0;
}

static void operate(user *u) {
    const layer *l = &layers[u->on_cpu];
    const rw_context_options options = options_of(u);
    rw_context *context;
    void *results;
    REQUIRE(rw_context_create(&options, &context, NULL) == RW_OK);
    const bool counts = options.parallel_for && rw_context_get_info(context).num_threads > 0;
    REQUIRE(rw_alloc(context, RESULT_BYTES, &results) == RW_OK);
    float *got = rwt_allocate(RESULT_BYTES);
    for (int round = 0; round < 2; round++) {
        u->pool_calls = 0;
        REQUIRE(run_layer(context, l, results) == RW_OK);
        REQUIRE(!counts || u->pool_calls == 5);
        rwt_test_download(context, got, results, RESULT_BYTES);
        REQUIRE(memcmp(got, l->expected, RESULT_BYTES) == 0);
    }
    free(got);
    REQUIRE(rw_free(context, results) == RW_OK);
    rw_context_destroy(context);
}

static void *operate_thread(void *opaque) {
    operate(opaque);
    return NULL;
}

static void test_operations(void **state) {
    (void)state;
    run_users(operate_thread);
}

/* ---- every operation, on small cases ---- */

#define CASES 2

static const rwt_job *job; /* which every thread runs */

static void run_job(user *u) {
    rwt_target target = {.name = "one of several", .num_runs = 1};
    const rw_context_options options = options_of(u);
    REQUIRE(rw_context_create(&options, &target.runs[0], NULL) == RW_OK);
    rwt_images images;
    const rwt_outcome outcome = rwt_job_run(job, &target, &images);
    rwt_images_free(&images);
    rw_context_destroy(target.runs[0]);
    if (outcome.failed)
        fprintf(stderr, "%s: %s\n", job->driver->name, outcome.reason);
    REQUIRE(!outcome.failed);
}

static void *run_job_thread(void *opaque) {
    run_job(opaque);
    return NULL;
}

static void test_every_operation(void **state) {
    (void)state;
    const rwt_case_options options = {.tier = RWT_QUICK, .num_random = 0, .seed = 1};
    rwt_test_restore_crash_handlers();
    for (const rwt_driver *const *driver = rwt_drivers; *driver; driver++) {
        rwt_case_list list = rwt_case_list_make(*driver, &options);
        assert_true(list.count > 0);
        for (size_t i = 0; i < CASES && i < list.count; i++) {
            rwt_job *made = rwt_job_make(*driver, &list.cases[i], true);
            job = made;
            run_users(run_job_thread);
            rwt_job_free(made);
        }
        rwt_case_list_free(&list);
    }
}

/* ---- opening and closing ---- */

#define OPENINGS 10

static void keep_line(void *kept, const char *line) {
    snprintf(kept, sizeof(rw_message), "%s", line);
}

static void open_and_close(user *u) {
    rw_context_options options = options_of(u);
    rw_message line = {""};
    options.log = keep_line;
    options.log_user = line.text;
    for (int i = 0; i < OPENINGS; i++) {
        rw_context *context;
        rw_rope *rope;
        void *memory;
        const rw_rope_options rope_options = {.spec = {.head_dim = 16}, .max_positions = 64 + i};
        const rw_backend_probe_result hip = rw_backend_probe(RW_BACKEND_HIP);
        REQUIRE(hip.usable || hip.why.text[0] != '\0');
        REQUIRE(rw_backend_probe(RW_BACKEND_CPU).usable);
        REQUIRE(rw_context_create(&options, &context, NULL) == RW_OK);
        REQUIRE(strstr(line.text, rw_context_get_info(context).backend) != NULL);
        REQUIRE(rw_rope_create(context, &rope_options, &rope) == RW_OK);
        REQUIRE(rw_alloc(context, 1000, &memory) == RW_OK);
        REQUIRE(rw_free(context, memory) == RW_OK);
        rw_rope_destroy(rope);
        rw_context_destroy(context);
    }
}

static void *open_and_close_thread(void *opaque) {
    open_and_close(opaque);
    return NULL;
}

static void test_opening_and_closing(void **state) {
    (void)state;
    run_users(open_and_close_thread);
}

/* ---- errors ---- */

/* Ids out of range, of which token 3 has the first; invalid arguments with the thread's number. */
static void make_errors(user *u) {
    const rw_context_options options = options_of(u);
    const int64_t shape[] = {SEQ, 4}, own = 1000 + u->index;
    rw_context *context, *none;
    rw_message message;
    void *x, *table, *ids;
    char number[32];
    snprintf(number, sizeof number, "%d", (int)own);
    int64_t host_ids[SEQ] = {0};
    for (int i = 3; i < SEQ; i++)
        host_ids[i] = own + i;
    REQUIRE(rw_context_create(&options, &context, NULL) == RW_OK);
    REQUIRE(rw_alloc(context, SEQ * 4 * sizeof(float), &x) == RW_OK);
    REQUIRE(rw_alloc(context, SEQ * 4 * sizeof(float), &table) == RW_OK);
    ids = rwt_test_upload(context, host_ids, sizeof host_ids);
    const rw_tensor rows = rw_tensor_contiguous(x, RW_F32, 2, shape);
    const rw_tensor table_rows = rw_tensor_contiguous(table, RW_F32, 2, shape);
    const rw_embed_args embed = {
        .x = rows, .out = rows, .positions = rw_tensor_contiguous(ids, RW_I64, 1, shape)};
    const rw_rms_norm_args norm = {.x = rows, .eps = (float)-own};
    const rw_context_options absent = {.backend = RW_BACKEND_HIP, .device = (int32_t)own};
    for (int i = 0; i < 20; i++) {
        REQUIRE(rw_embed_learned(context, &table_rows, &embed) == RW_OK);
        REQUIRE(rw_synchronize(context) == RW_OUT_OF_RANGE);
        REQUIRE(rw_last_fault(context).token == 3 && rw_last_fault(context).id == own + 3);
        REQUIRE(rw_rms_norm(context, &norm) == RW_INVALID_ARGUMENT);
        REQUIRE(strstr(rw_last_error(context), number) != NULL);
        REQUIRE(rw_context_create(&absent, &none, &message) == RW_BACKEND_UNAVAILABLE);
        REQUIRE(strstr(message.text, "rw_context_create") != NULL);
    }
    REQUIRE(rw_free(context, x) == RW_OK && rw_free(context, table) == RW_OK);
    REQUIRE(rw_free(context, ids) == RW_OK);
    rw_context_destroy(context);
}

static void *make_errors_thread(void *opaque) {
    make_errors(opaque);
    return NULL;
}

static void test_errors(void **state) {
    (void)state;
    run_users(make_errors_thread);
}

int main(void) {
    rwt_test_keep_crash_handlers();
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        /* First, so that the HIP module is loaded by several threads. */
        cmocka_unit_test(test_opening_and_closing),
        cmocka_unit_test(test_errors),
        cmocka_unit_test_setup_teardown(test_operations, open_layers, close_layers),
        cmocka_unit_test(test_every_operation),
    };
    return cmocka_run_group_tests_name("concurrency", tests, NULL, NULL);
}
