/* The threads that operations run on: the caller's pool in place of OpenMP, and after fork(). */
#define _POSIX_C_SOURCE 200809L

#include <ropewalk/ropewalk.h>

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/task_threads.h"
#include "harness/test_support.h"

/* Enough work for more threads than TASKS. */
#define ROWS 2000
#define COLUMNS 256
#define TASKS 7

/* x and a table of ROWS rows, one position id for each row of x. */
typedef struct fixture {
    float *x;
    float *table;
    int64_t *ids;
} fixture;

static int create(void **state) {
    fixture *f = rwt_allocate(sizeof *f);
    const size_t count = (size_t)ROWS * COLUMNS;
    f->x = rwt_allocate(count * sizeof(float));
    f->table = rwt_allocate(count * sizeof(float));
    f->ids = rwt_allocate(ROWS * sizeof(int64_t));
    for (size_t i = 0; i < count; i++) {
        f->x[i] = (float)(i % 1013) / 7.0f;
        f->table[i] = (float)(i % 769) / 3.0f;
    }
    for (int i = 0; i < ROWS; i++)
        f->ids[i] = (i * 17) % ROWS;
    *state = f;
    return 0;
}

static int destroy(void **state) {
    fixture *f = *state;
    free(f->x);
    free(f->table);
    free(f->ids);
    free(f);
    return 0;
}

static rw_context *open_context(rw_context_options options) {
    rw_context *context;
    options.backend = RW_BACKEND_CPU;
    assert_int_equal(rw_context_create(&options, &context, NULL), RW_OK);
    return context;
}

/* out = x + table[ids], the first `rows` rows. */
static rw_status embed(rw_context *context, const fixture *f, int64_t rows, float *out) {
    const int64_t shape[] = {rows, COLUMNS}, table_shape[] = {ROWS, COLUMNS};
    const rw_tensor table = rw_tensor_contiguous(f->table, RW_F32, 2, table_shape);
    const rw_embed_args args = {.x = rw_tensor_contiguous(f->x, RW_F32, 2, shape),
                                .out = rw_tensor_contiguous(out, RW_F32, 2, shape),
                                .positions = rw_tensor_contiguous(f->ids, RW_I64, 1, shape)};
    return rw_embed_learned(context, &table, &args);
}

/* The result of so many threads; the caller frees it. */
static float *embed_by(const fixture *f, int32_t num_threads) {
    float *out = rwt_allocate((size_t)ROWS * COLUMNS * sizeof *out);
    rw_context *context = open_context((rw_context_options){.num_threads = num_threads});
    assert_int_equal(embed(context, f, ROWS, out), RW_OK);
    assert_int_equal(rw_synchronize(context), RW_OK);
    rw_context_destroy(context);
    return out;
}

/* ---- OpenMP's team ---- */

#define MOST_THREADS 64

/* The threads of this process; returns their number. */
static int list_threads(long *ids) {
    DIR *folder = opendir("/proc/self/task");
    int count = 0;
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.' && count < MOST_THREADS)
            ids[count++] = atol(entry->d_name);
    closedir(folder);
    return count;
}

/* Little work, for which some threads are enough, must not end the others: GNU OpenMP does that where
 * a team is smaller than the one before. */
static void test_team_is_kept(void **state) {
    const fixture *f = *state;
    long first[MOST_THREADS], later[MOST_THREADS];
    if (access("/proc/self/task", R_OK) != 0) {
        print_message("skipped: the system does not list threads\n");
        skip();
    }
    rw_context *context = open_context((rw_context_options){.num_threads = TASKS});
    float *out = rwt_allocate((size_t)ROWS * COLUMNS * sizeof *out);
    assert_int_equal(embed(context, f, ROWS, out), RW_OK);
    const int count = list_threads(first);
    assert_true(count >= TASKS);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(embed(context, f, ROWS / 8, out), RW_OK); /* for some of them */
        assert_int_equal(embed(context, f, 1, out), RW_OK);
        assert_int_equal(embed(context, f, ROWS, out), RW_OK);
    }
    assert_int_equal(list_threads(later), count);
    assert_memory_equal(first, later, (size_t)count * sizeof *first);
    rw_context_destroy(context);
    free(out);
}

/* ---- the caller's pool ---- */

/* A pool of threads; which indices it calls, and how often it was used. */
typedef struct pool {
    enum {
        FORWARD,
        BACKWARD,
        THREADS,
        MISSED,
        REPEATED,
        NEGATIVE,
        BEYOND
    } way;
    int calls;
    int32_t num_tasks;
} pool;

static void run_pool(void *user, int32_t num_tasks, void (*task)(void *data, int32_t index),
                     void *data) {
    pool *p = user;
    p->calls++;
    p->num_tasks = num_tasks;
    if (p->way == THREADS) {
        rwt_run_threads(num_tasks, task, data);
        return;
    }
    for (int32_t i = 0; i < num_tasks - (p->way == MISSED); i++)
        task(data, p->way == BACKWARD ? num_tasks - 1 - i : i);
    if (p->way >= REPEATED)
        task(data, p->way == REPEATED ? 1 : p->way == NEGATIVE ? -1 : num_tasks);
}

static rw_context *open_pool(pool *p) {
    return open_context((rw_context_options){
        .num_threads = TASKS, .parallel_for = run_pool, .parallel_for_user = p});
}

static void test_pool_gives_the_same_bits(void **state) {
    const fixture *f = *state;
    const size_t bytes = (size_t)ROWS * COLUMNS * sizeof(float);
    float *expected = embed_by(f, 3), *out = rwt_allocate(bytes);
    for (int way = FORWARD; way <= THREADS; way++) {
        pool p = {.way = way};
        rw_context *context = open_pool(&p);
        assert_int_equal(rw_context_get_info(context).num_threads, TASKS);
        memset(out, 0xFF, bytes);
        assert_int_equal(embed(context, f, ROWS, out), RW_OK);
        assert_int_equal(rw_synchronize(context), RW_OK);
        assert_int_equal(p.calls, 1);
        assert_int_equal(p.num_tasks, TASKS);
        assert_memory_equal(out, expected, bytes);
        rw_context_destroy(context);
    }
    free(expected);
    free(out);
}

/* One token, no token, and work for two threads. */
static void test_pool_is_left_alone_by_little_work(void **state) {
    const fixture *f = *state;
    float *out = rwt_allocate((size_t)ROWS * COLUMNS * sizeof *out);
    pool p = {.way = THREADS};
    rw_context *context = open_pool(&p);
    assert_int_equal(embed(context, f, 0, out), RW_OK);
    assert_int_equal(embed(context, f, 1, out), RW_OK);
    assert_int_equal(embed(context, f, 16, out), RW_OK);
    assert_int_equal(p.calls, 0);
    assert_int_equal(embed(context, f, 80, out), RW_OK);
    assert_int_equal(p.calls, 1);
    assert_int_equal(p.num_tasks, 2);
    rw_context_destroy(context);
    free(out);
}

/* Of the faults that several tasks find, that of the lowest token is reported. */
static void test_pool_and_faults(void **state) {
    fixture *f = *state;
    float *out = rwt_allocate((size_t)ROWS * COLUMNS * sizeof *out);
    pool p = {.way = BACKWARD};
    rw_context *context = open_pool(&p);
    for (int i = 700; i < ROWS; i += 300)
        f->ids[i] = ROWS + i;
    for (p.way = FORWARD; p.way <= THREADS; p.way++) {
        assert_int_equal(embed(context, f, ROWS, out), RW_OK);
        assert_int_equal(rw_synchronize(context), RW_OUT_OF_RANGE);
        assert_int_equal(rw_last_fault(context).token, 700);
        assert_int_equal(rw_last_fault(context).id, ROWS + 700);
    }
    rw_context_destroy(context);
    free(out);
}

static void test_pool_that_miscounts(void **state) {
    const fixture *f = *state;
    float *out = rwt_allocate((size_t)ROWS * COLUMNS * sizeof *out);
    pool p;
    rw_context *context = open_pool(&p);
    for (p.way = MISSED; p.way <= BEYOND; p.way++) {
        assert_int_equal(embed(context, f, ROWS, out), RW_INVALID_ARGUMENT);
        assert_true(rwt_test_says(rw_last_error(context), "rw_embed_learned"));
        assert_true(rwt_test_says(rw_last_error(context), "options.parallel_for"));
    }
    p.way = FORWARD; /* the context still works */
    assert_int_equal(embed(context, f, ROWS, out), RW_OK);
    rw_context_destroy(context);
    free(out);
}

static void test_pool_without_a_function(void **state) {
    rw_context_options options = {.parallel_for_user = *state};
    rw_context *context = *state;
    rw_message message = {""};
    assert_int_equal(rw_context_create(&options, &context, &message), RW_INVALID_ARGUMENT);
    assert_null(context);
    assert_true(rwt_test_says(message.text, "options.parallel_for is NULL"));
}

/* ---- fork() ---- */

/* A child that hangs ends after this time. */
#define CHILD_SECONDS 20

/* The exit status of a child that runs `child`; -1 if it crashed or hung. */
static int fork_and_run(int (*child)(rw_context *context, const fixture *f, const float *expected),
                        rw_context *context, const fixture *f, const float *expected) {
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(CHILD_SECONDS);
        _exit(child(context, f, expected));
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* 0: an operation works, on the parent's context and on a new one. */
static int use_cpu(rw_context *context, const fixture *f, const float *expected) {
    const size_t bytes = (size_t)ROWS * COLUMNS * sizeof(float);
    float *out = rwt_allocate(bytes);
    const rw_context_options options = {.backend = RW_BACKEND_CPU, .num_threads = 4};
    for (int i = 0; i < 2; i++) {
        memset(out, 0xFF, bytes);
        if (embed(context, f, ROWS, out) != RW_OK || memcmp(out, expected, bytes) != 0)
            return 1 + i;
        rw_context_destroy(context);
        if (i == 0 && rw_context_create(&options, &context, NULL) != RW_OK)
            return 3;
    }
    free(out);
    return 0;
}

/* Threads of this program's own OpenMP loop, before any of the library's. */
static void test_own_openmp_after_fork(void **state) {
    const fixture *f = *state;
    float *expected = embed_by(f, 1);
    rw_context *context = open_context((rw_context_options){.num_threads = 3});
    int threads = 0;
#pragma omp parallel num_threads(3) reduction(+ : threads)
    threads++;
    assert_int_equal(threads, 3);
    assert_int_equal(fork_and_run(use_cpu, context, f, expected), 0);
    rw_context_destroy(context);
    free(expected);
}

static void test_openmp_after_fork(void **state) {
    const fixture *f = *state;
    const size_t bytes = (size_t)ROWS * COLUMNS * sizeof(float);
    float *expected = embed_by(f, 3), *out = rwt_allocate(bytes);
    rw_context *context = open_context((rw_context_options){.num_threads = 3});
    for (int i = 0; i < 2; i++) { /* and the parent keeps working */
        assert_int_equal(embed(context, f, ROWS, out), RW_OK);
        assert_memory_equal(out, expected, bytes);
        assert_int_equal(fork_and_run(use_cpu, context, f, expected), 0);
    }
    rw_context_destroy(context);
    free(expected);
    free(out);
}

static void test_pool_after_fork(void **state) {
    const fixture *f = *state;
    float *expected = embed_by(f, 3);
    pool p = {.way = THREADS}; /* which starts its threads when it is called */
    rw_context *context = open_pool(&p);
    assert_int_equal(fork_and_run(use_cpu, context, f, expected), 0);
    rw_context_destroy(context);
    free(expected);
}

/* 0: a context of the parent's is refused, with a sentence, and can be destroyed, and a new one is
 * refused; auto is the CPU. */
static int use_gpu(rw_context *context, const fixture *f, const float *unused) {
    (void)unused;
    void *pointer = NULL;
    const rw_status refused[] = {embed(context, f, 1, f->x), rw_alloc(context, 8, &pointer),
                                 rw_synchronize(context)};
    for (int i = 0; i < 3; i++)
        if (refused[i] != RW_DEVICE_ERROR)
            return 1 + i;
    if (!rwt_test_says(rw_last_error(context), "fork()"))
        return 4;
    rw_context_destroy(context);
    rw_context_options options = {.backend = RW_BACKEND_HIP};
    rw_message message = {""};
    if (rw_context_create(&options, &context, &message) != RW_BACKEND_UNAVAILABLE ||
        !rwt_test_says(message.text, "fork()"))
        return 5;
    options.backend = RW_BACKEND_AUTO;
    if (rw_context_create(&options, &context, NULL) != RW_OK ||
        strcmp(rw_context_get_info(context).backend, "cpu") != 0)
        return 6;
    rw_context_destroy(context);
    return 0;
}

static void test_gpu_after_fork(void **state) {
    const fixture *f = *state;
    rw_context *context = rwt_test_context();
    fixture device = {
        .x = rwt_test_upload(context, f->x, COLUMNS * sizeof *f->x),
        .table = rwt_test_upload(context, f->table, (size_t)ROWS * COLUMNS * sizeof *f->table),
        .ids = rwt_test_upload(context, f->ids, ROWS * sizeof *f->ids)};
    assert_int_equal(embed(context, &device, 1, device.x), RW_OK);
    assert_int_equal(rw_synchronize(context), RW_OK);
    assert_int_equal(fork_and_run(use_gpu, context, &device, NULL), 0);
    assert_int_equal(embed(context, &device, 1, device.x), RW_OK); /* the parent's still works */
    assert_int_equal(rw_synchronize(context), RW_OK);
    assert_int_equal(rw_free(context, device.x) | rw_free(context, device.table), RW_OK);
    assert_int_equal(rw_free(context, device.ids), RW_OK);
    rw_context_destroy(context);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, create, destroy)

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest gpu[] = {WITH_FIXTURE(test_gpu_after_fork)};
    const struct CMUnitTest cpu[] = {
        WITH_FIXTURE(test_own_openmp_after_fork), /* the first that starts threads */
        WITH_FIXTURE(test_team_is_kept),
        WITH_FIXTURE(test_pool_gives_the_same_bits),
        WITH_FIXTURE(test_pool_is_left_alone_by_little_work),
        WITH_FIXTURE(test_pool_and_faults),
        WITH_FIXTURE(test_pool_that_miscounts),
        WITH_FIXTURE(test_pool_without_a_function),
        WITH_FIXTURE(test_openmp_after_fork),
        WITH_FIXTURE(test_pool_after_fork),
    };
    rw_context *context = rwt_test_context();
    const bool on_cpu = strcmp(rw_context_get_info(context).backend, "cpu") == 0;
    rw_context_destroy(context);
    return on_cpu ? cmocka_run_group_tests_name("threads", cpu, NULL, NULL)
                  : cmocka_run_group_tests_name("threads", gpu, NULL, NULL);
}
