/* Contexts of both backends in one process, on several threads at once: each computes what it
 * computes alone, with errors, faults and counters of its own. */
#define _POSIX_C_SOURCE 200809L

#include <ropewalk/ropewalk.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

#define THREADS 4 /* the even ones on the CPU */
#define ROUNDS 4
#define COLUMNS 64
#define ROWS 37
#define COUNT (ROWS * COLUMNS)

/* What a thread does, and the first thing that it found wrong. */
typedef struct worker {
    pthread_t thread;
    int number;
    const char *wrong;
} worker;

static pthread_barrier_t started;

/* Tensors of a round, on the device. */
typedef struct tensors {
    float *x;
    float *table;
    int32_t *ids;
    float *out;
} tensors;

static tensors upload(rw_context *context, int number, bool fault) {
    float x[COUNT], table[COUNT], zeros[COUNT] = {0};
    int32_t ids[ROWS];
    for (int i = 0; i < COUNT; i++) {
        x[i] = (float)(i % 101 + number);
        table[i] = (float)(i % 37) / 4.0f;
    }
    for (int i = 0; i < ROWS; i++)
        ids[i] = (i * 5) % ROWS;
    if (fault)
        ids[3 + number] = ROWS + number;
    return (tensors){
        rwt_test_upload(context, x, sizeof x), rwt_test_upload(context, table, sizeof table),
        rwt_test_upload(context, ids, sizeof ids), rwt_test_upload(context, zeros, sizeof zeros)};
}

static rw_status embed(rw_context *context, const tensors *t) {
    const int64_t shape[] = {ROWS, COLUMNS};
    const rw_tensor table = rw_tensor_contiguous(t->table, RW_F32, 2, shape);
    const rw_embed_args args = {.x = rw_tensor_contiguous(t->x, RW_F32, 2, shape),
                                .out = rw_tensor_contiguous(t->out, RW_F32, 2, shape),
                                .positions = rw_tensor_contiguous(t->ids, RW_I32, 1, shape)};
    return rw_embed_learned(context, &table, &args);
}

static const char *check_sum(rw_context *context, const tensors *t, int number) {
    float out[COUNT];
    if (embed(context, t) != RW_OK || rw_synchronize(context) != RW_OK)
        return rw_last_error(context);
    rwt_test_download(context, out, t->out, sizeof out);
    for (int i = 0; i < COUNT; i++) {
        const int id = (i / COLUMNS * 5) % ROWS, entry = id * COLUMNS + i % COLUMNS;
        if (out[i] != (float)(i % 101 + number) + (float)(entry % 37) / 4.0f)
            return "a sum is wrong";
    }
    return NULL;
}

static const char *check_fault(rw_context *context, const tensors *t, int number) {
    if (embed(context, t) != RW_OK)
        return rw_last_error(context);
    if (rw_synchronize(context) != RW_OUT_OF_RANGE)
        return "no fault was reported";
    const rw_fault fault = rw_last_fault(context);
    if (fault.token != 3 + number || fault.id != ROWS + number)
        return "the fault of another context was reported";
    if (rw_synchronize(context) != RW_OK)
        return "a fault was reported twice";
    return rw_embed_learned(context, NULL, NULL) == RW_INVALID_ARGUMENT ? NULL : "no error";
}

static const char *work(rw_context *context, int number) {
    const char *expected = number % 2 ? "hip" : "cpu";
    if (strcmp(rw_context_get_info(context).backend, expected) != 0)
        return "the context has another backend";
    for (int round = 0; round < 2; round++) {
        const tensors t = upload(context, number, round == 1);
        const char *wrong =
            round == 0 ? check_sum(context, &t, number) : check_fault(context, &t, number);
        rw_free(context, t.x);
        rw_free(context, t.table);
        rw_free(context, t.ids);
        if (rw_free(context, t.out) != RW_OK)
            return rw_last_error(context);
        if (wrong)
            return wrong;
    }
    return rw_context_transfers(context).device_to_host_bytes == COUNT * sizeof(float)
               ? NULL
               : "bytes of another context were counted";
}

static void *run(void *opaque) {
    worker *w = opaque;
    pthread_barrier_wait(&started);
    for (int round = 0; round < ROUNDS && !w->wrong; round++) {
        const rw_context_options options = {.backend =
                                                w->number % 2 ? RW_BACKEND_HIP : RW_BACKEND_CPU};
        rw_context *context;
        rw_message message;
        if (rw_context_create(&options, &context, &message) != RW_OK) {
            w->wrong = "no context";
            break;
        }
        w->wrong = work(context, w->number);
        if (w->wrong)
            fprintf(stderr, "thread %d: %s; %s\n", w->number, w->wrong, rw_last_error(context));
        rw_context_destroy(context);
    }
    return NULL;
}

static void test_at_once(void **state) {
    (void)state;
    worker workers[THREADS];
    assert_int_equal(pthread_barrier_init(&started, NULL, THREADS), 0);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
    }
    int failed = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        failed += workers[i].wrong != NULL;
    }
    pthread_barrier_destroy(&started);
    assert_int_equal(failed, 0);
}

/* An object of one backend is refused by the other. */
static void test_objects_of_the_other(void **state) {
    (void)state;
    rw_context *contexts[2];
    const rw_rope_options options = {.spec = {.head_dim = 8}, .max_positions = 4};
    for (int i = 0; i < 2; i++) {
        const rw_context_options which = {.backend = i ? RW_BACKEND_HIP : RW_BACKEND_CPU};
        assert_int_equal(rw_context_create(&which, &contexts[i], NULL), RW_OK);
    }
    for (int i = 0; i < 2; i++) {
        rw_rope *rope;
        const rw_rope_args args = {.offset = 0};
        assert_int_equal(rw_rope_create(contexts[i], &options, &rope), RW_OK);
        assert_int_equal(rw_rope_apply(contexts[1 - i], rope, &args), RW_INVALID_ARGUMENT);
        assert_true(rwt_test_says(rw_last_error(contexts[1 - i]), "was created on"));
        if (i == 0)
            assert_string_equal(rw_last_error(contexts[i]), "");
        rw_rope_destroy(rope);
    }
    for (int i = 0; i < 2; i++)
        rw_context_destroy(contexts[i]);
}

int main(void) {
    setenv("ROPEWALK_BACKEND", "hip", 1);
    rwt_test_keep_crash_handlers();
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_at_once),
                                       cmocka_unit_test(test_objects_of_the_other)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
