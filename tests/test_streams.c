/* The caller's stream: operations run in its order, and can be captured in a graph and replayed. On
 * the backend that ROPEWALK_BACKEND names. */
#define _POSIX_C_SOURCE 200809L

#include <ropewalk/ropewalk.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "harness/gpu_runtime.h"
#include "harness/harness_binding.h"
#include "harness/test_support.h"

#define SUCCEEDS(call) assert_int_equal(call, 0)

static rwt_gpu_runtime runtime;

/* A context on a stream of the caller's, with which the default stream does not synchronize. */
typedef struct fixture {
    rw_context *context;
    void *stream;
} fixture;

static int create(void **state) {
    rwt_test_restore_crash_handlers();
    fixture *f = rwt_allocate(sizeof *f);
    f->context = rwt_test_context();
    SUCCEEDS(runtime.stream_create(&f->stream, RWT_STREAM_NON_BLOCKING));
    assert_int_equal(rw_context_set_stream(f->context, f->stream), RW_OK);
    *state = f;
    return 0;
}

static int destroy(void **state) {
    fixture *f = *state;
    rw_context_destroy(f->context);
    SUCCEEDS(runtime.stream_destroy(f->stream));
    free(f);
    return 0;
}

/* ---- a producer that is late ---- */

#define COUNT 1000

typedef struct producer {
    float *numbers; /* COUNT, pinned */
    float first;
} producer;

static void produce_late(void *opaque) {
    const producer *p = opaque;
    const struct timespec late = {.tv_nsec = 50 * 1000 * 1000};
    nanosleep(&late, NULL);
    for (int i = 0; i < COUNT; i++)
        p->numbers[i] = p->first + (float)i;
}

/* x becomes first, first + 1, ... some time after this returns. */
static void enqueue_producer(const fixture *f, producer *p, float *x) {
    SUCCEEDS(runtime.launch_host_function(f->stream, produce_late, p));
    SUCCEEDS(
        runtime.copy_async(x, p->numbers, COUNT * sizeof(float), RWT_HOST_TO_DEVICE, f->stream));
}

static rw_status enqueue_scale(const fixture *f, float *x, float *out) {
    const int64_t shape[] = {COUNT};
    const rw_scale_args args = {.x = rw_tensor_contiguous(x, RW_F32, 1, shape),
                                .out = rw_tensor_contiguous(out, RW_F32, 1, shape),
                                .scale = 2};
    return rw_scale(f->context, &args);
}

static void assert_scaled(const float *numbers, float first) {
    for (int i = 0; i < COUNT; i++)
        assert_true(numbers[i] == 2 * (first + (float)i));
}

static void test_late_producer(void **state) {
    const fixture *f = *state;
    static const float zeros[COUNT];
    float *x = rwt_test_upload(f->context, zeros, sizeof zeros), *pinned, *result;
    float *out = rwt_test_upload(f->context, zeros, sizeof zeros);
    SUCCEEDS(runtime.host_alloc((void **)&pinned, sizeof zeros, 0));
    SUCCEEDS(runtime.host_alloc((void **)&result, sizeof zeros, 0));
    /* The consumer is the caller's copy on the same stream. */
    static producer p; /* valid after a failure, too */
    p = (producer){.numbers = pinned, .first = 100};
    enqueue_producer(f, &p, x);
    assert_int_equal(enqueue_scale(f, x, out), RW_OK);
    SUCCEEDS(runtime.copy_async(result, out, sizeof zeros, RWT_DEVICE_TO_HOST, f->stream));
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    assert_scaled(result, 100);
    /* The consumer is rw_copy(). */
    p.first = 7;
    enqueue_producer(f, &p, x);
    assert_int_equal(enqueue_scale(f, x, out), RW_OK);
    rwt_test_download(f->context, result, out, sizeof zeros);
    assert_scaled(result, 7);
    SUCCEEDS(runtime.host_free(pinned));
    SUCCEEDS(runtime.host_free(result));
    assert_int_equal(rw_free(f->context, x) | rw_free(f->context, out), RW_OK);
}

/* ---- an operation that takes long, before one that does not ---- */

#define KEYS 16384 /* one block reads them all */
#define WIDTH 64

/* The mean of values that are all 3, in one block. */
static rw_status enqueue_mean(const fixture *f, float *q, float *kv, float *out) {
    const int64_t row[] = {1, 1, 1, WIDTH}, keys[] = {1, KEYS, 1, WIDTH};
    const rw_tensor values = rw_tensor_contiguous(kv, RW_F32, 4, keys);
    const rw_attention_args args = {.q = rw_tensor_contiguous(q, RW_F32, 4, row),
                                    .k = values,
                                    .v = values,
                                    .out = rw_tensor_contiguous(out, RW_F32, 4, row)};
    return rw_attention(f->context, &args);
}

/* GPUs may start a kernel before the previous one has ended: it must wait for what it reads, and
 * before it writes what the previous one reads. */
static void test_kernels_wait(void **state) {
    const fixture *f = *state;
    static float values[KEYS * WIDTH], zeros[COUNT], result[COUNT];
    for (size_t i = 0; i < KEYS * WIDTH; i++)
        values[i] = 3;
    float *kv = rwt_test_upload(f->context, values, sizeof values);
    float *q = rwt_test_upload(f->context, zeros, sizeof zeros);
    float *x = rwt_test_upload(f->context, zeros, sizeof zeros);
    float *out = rwt_test_upload(f->context, zeros, sizeof zeros);
    assert_int_equal(enqueue_mean(f, q, kv, x), RW_OK);
    assert_int_equal(enqueue_scale(f, x, out), RW_OK);  /* reads what is still being computed */
    assert_int_equal(enqueue_mean(f, x, kv, q), RW_OK); /* its q is 3, its output the first q */
    assert_int_equal(enqueue_scale(f, q, q), RW_OK);
    rwt_test_download(f->context, result, out, sizeof result);
    for (int i = 0; i < WIDTH; i++)
        assert_true(result[i] == 6);
    rwt_test_download(f->context, result, q, sizeof result);
    for (int i = 0; i < WIDTH; i++)
        assert_true(result[i] == 6);
    rw_free(f->context, kv);
    rw_free(f->context, q);
    rw_free(f->context, x);
    assert_int_equal(rw_free(f->context, out), RW_OK);
}

/* ---- every operation as a graph ---- */

/* Cases of an operation, evenly from all that the quick tier has. */
#define CASES 10

typedef struct result {
    rw_status status;
    rw_fault fault;
    rwt_images images;
} result;

static void upload(const rwt_binding *binding) {
    rw_message message = {""};
    if (!rwt_binding_upload(binding, 0, &message))
        fail_msg("%s", message.text);
}

/* What work on the stream leaves. */
static result finish(const rwt_binding *binding) {
    result r = {.status = rw_synchronize(binding->context)};
    rw_message message = {""};
    r.fault = rw_last_fault(binding->context);
    if (!rwt_binding_download(binding, &r.images, &message))
        fail_msg("%s", message.text);
    return r;
}

static bool same_bits(const rwt_job *job, const rwt_images *a, const rwt_images *b) {
    for (int i = 0; i < job->num_buffers; i++)
        if (memcmp(a->data[i], b->data[i], (size_t)rwt_buffer_allocation(&job->buffers[i])) != 0)
            return false;
    return true;
}

static bool same_results(const rwt_job *job, const result *a, const result *b) {
    return a->status == b->status && a->fault.kind == b->fault.kind &&
           a->fault.token == b->fault.token && a->fault.id == b->fault.id &&
           same_bits(job, &a->images, &b->images);
}

/* The same case with other numbers in its buffers; NULL if it has other buffers. */
static rwt_job *make_other(const rwt_job *job) {
    rwt_case c = job->c;
    for (size_t i = 0; i < job->driver->num_fields; i++)
        if (strcmp(job->driver->fields[i].name, "seed") == 0)
            c.values[i] += 12345;
    rwt_job *other = rwt_job_make(job->driver, &c, false);
    bool fits = other->num_buffers == job->num_buffers;
    for (int b = 0; fits && b < job->num_buffers; b++)
        fits = rwt_buffer_allocation(&other->buffers[b]) == rwt_buffer_allocation(&job->buffers[b]);
    if (fits)
        return other;
    rwt_job_free(other);
    return NULL;
}

/* The operation runs, and the graph is replayed, on the same memory with a job's contents: with the
 * same result, which is returned. */
static result check_replay(rwt_binding *binding, const rwt_job *job, void *stream, void *exec) {
    const rwt_job *const before = binding->job;
    binding->job = job;
    upload(binding);
    assert_int_equal(rwt_binding_run(binding, 0), RW_OK);
    result direct = finish(binding);
    upload(binding);
    SUCCEEDS(runtime.graph_launch(exec, stream));
    result replayed = finish(binding);
    if (!same_results(job, &direct, &replayed))
        fail_msg("a replay differs: ropewalk check %s --case '%s'", job->driver->name,
                 rwt_case_print(job->driver, &job->c).text);
    binding->job = before;
    rwt_images_free(&replayed.images);
    return direct;
}

/* Replays with two sets of inputs. True: they were different. */
static bool check_replays(rwt_binding *binding, void *stream, void *exec) {
    rwt_job *other = make_other(binding->job);
    result first = check_replay(binding, binding->job, stream, exec), second = {.status = RW_OK};
    bool different = false;
    if (other) {
        second = check_replay(binding, other, stream, exec);
        different = !same_bits(other, &first.images, &second.images);
        rwt_job_free(other);
    }
    rwt_images_free(&first.images);
    rwt_images_free(&second.images);
    return different;
}

/* Captures the operation, which runs nothing, and replays it with two sets of inputs. True: they
 * were different. */
static bool check_case(const fixture *f, const rwt_job *job) {
    rwt_binding binding;
    rw_message message = {""};
    void *exec = NULL;
    if (!rwt_binding_open(&binding, job, f->context, 1, &message))
        fail_msg("%s", message.text);
    result before = finish(&binding);
    SUCCEEDS(runtime.begin_capture(f->stream, RWT_CAPTURE_GLOBAL));
    const rw_status status = rwt_binding_run(&binding, 0);
    SUCCEEDS(rwt_gpu_end_capture(&runtime, f->stream, &exec));
    if (status != RW_OK)
        fail_msg("%s in a capture: %s", job->driver->name, rw_last_error(f->context));
    result captured = finish(&binding);
    assert_true(same_results(job, &before, &captured));
    rwt_images_free(&before.images);
    rwt_images_free(&captured.images);
    const bool different = check_replays(&binding, f->stream, exec);
    SUCCEEDS(runtime.exec_destroy(exec));
    rwt_binding_close(&binding);
    return different;
}

static void test_every_operation_as_a_graph(void **state) {
    const fixture *f = *state;
    const rwt_case_options quick = {.tier = RWT_QUICK, .num_random = 0, .seed = 1};
    for (const rwt_driver *const *driver = rwt_drivers; *driver; driver++) {
        rwt_case_list list = rwt_case_list_make(*driver, &quick);
        const size_t step = list.count / CASES + 1;
        int different = 0;
        for (size_t i = 0; i < list.count; i += step) {
            rwt_job *job = rwt_job_make(*driver, &list.cases[i], false);
            different += check_case(f, job);
            rwt_job_free(job);
        }
        rwt_case_list_free(&list);
        /* It has no input in memory. */
        assert_true(different > 0 || strcmp((*driver)->name, "alibi_slopes") == 0);
    }
}

/* ---- faults, and what a capture forbids ---- */

#define TABLE_ROWS 8

typedef struct embedding {
    float *x;
    float *table;
    int32_t *ids;
} embedding;

static rw_status enqueue_embedding(const fixture *f, const embedding *e) {
    const int64_t shape[] = {3, 2}, table_shape[] = {TABLE_ROWS, 2};
    const rw_tensor table = rw_tensor_contiguous(e->table, RW_F32, 2, table_shape);
    const rw_embed_args args = {.x = rw_tensor_contiguous(e->x, RW_F32, 2, shape),
                                .positions = rw_tensor_contiguous(e->ids, RW_I32, 1, shape)};
    return rw_embed_learned(f->context, &table, &args);
}

static embedding create_embedding(const fixture *f) {
    static const float numbers[2 * TABLE_ROWS];
    static const int32_t ids[3];
    return (embedding){rwt_test_upload(f->context, numbers, 6 * sizeof *numbers),
                       rwt_test_upload(f->context, numbers, sizeof numbers),
                       rwt_test_upload(f->context, ids, sizeof ids)};
}

static void free_embedding(const fixture *f, const embedding *e) {
    assert_int_equal(rw_free(f->context, e->x) | rw_free(f->context, e->table), RW_OK);
    assert_int_equal(rw_free(f->context, e->ids), RW_OK);
}

/* A replay that reads an invalid id is reported like an operation, once, also behind others. */
static void test_fault_of_a_replay(void **state) {
    const fixture *f = *state;
    const embedding e = create_embedding(f);
    const struct {
        int32_t ids[3];
        int64_t token; /* -1: no fault */
    } replays[] = {{{0, 7, 3}, -1}, {{1, 8, -5}, 1}, {{2, 2, 2}, -1}, {{2, 2, 99}, 2}};
    void *exec;
    SUCCEEDS(runtime.begin_capture(f->stream, RWT_CAPTURE_GLOBAL));
    assert_int_equal(enqueue_embedding(f, &e), RW_OK);
    SUCCEEDS(rwt_gpu_end_capture(&runtime, f->stream, &exec));
    for (size_t i = 0; i < sizeof replays / sizeof *replays; i++) {
        const int64_t token = replays[i].token;
        const rw_copy_args copy = {e.ids, replays[i].ids, sizeof replays[i].ids,
                                   RW_COPY_HOST_TO_DEVICE};
        assert_int_equal(rw_copy(f->context, &copy), RW_OK);
        SUCCEEDS(runtime.graph_launch(exec, f->stream));
        assert_int_equal(rw_synchronize(f->context), token < 0 ? RW_OK : RW_OUT_OF_RANGE);
        const rw_fault fault = rw_last_fault(f->context);
        assert_int_equal(fault.kind, token < 0 ? RW_FAULT_NONE : RW_FAULT_POSITION);
        if (token >= 0) {
            assert_string_equal(fault.operation, "embed_learned");
            assert_int_equal(fault.token, token);
            assert_int_equal(fault.id, replays[i].ids[token]);
        }
        assert_int_equal(rw_synchronize(f->context), RW_OK);
    }
    SUCCEEDS(runtime.exec_destroy(exec));
    free_embedding(f, &e);
}

/* Functions that wait or allocate return an error in a capture, which is then invalid; afterwards
 * the context works. */
static void test_what_a_capture_forbids(void **state) {
    const fixture *f = *state;
    const embedding e = create_embedding(f);
    for (int i = 0; i < 3; i++) {
        float host[6];
        void *pointer = NULL, *exec = NULL;
        const rw_copy_args copy = {host, e.x, sizeof host, RW_COPY_DEVICE_TO_HOST};
        SUCCEEDS(runtime.begin_capture(f->stream, RWT_CAPTURE_GLOBAL));
        assert_int_equal(enqueue_embedding(f, &e), RW_OK);
        const rw_status status = i == 0   ? rw_synchronize(f->context)
                                 : i == 1 ? rw_copy(f->context, &copy)
                                          : rw_alloc(f->context, 64, &pointer);
        assert_int_equal(status, RW_DEVICE_ERROR);
        assert_true(rwt_test_says(rw_last_error(f->context), "failed on device"));
        assert_int_not_equal(rwt_gpu_end_capture(&runtime, f->stream, &exec), 0);
        (void)runtime.last_error();
        assert_int_equal(enqueue_embedding(f, &e), RW_OK);
        assert_int_equal(rw_synchronize(f->context), RW_OK);
    }
    free_embedding(f, &e);
}

/* ---- a stream that the caller destroyed ---- */

/* Functions on the context return an error, and closing it works, with what ran on the stream; with
 * another stream the context works again. */
static void test_destroyed_stream(void **state) {
    (void)state;
    rw_context *context = rwt_test_context();
    if (strcmp(rw_context_get_info(context).platform, "nvidia") == 0) {
        rw_context_destroy(context);
        print_message("SKIPPED: CUDA does not know which streams were destroyed\n");
        skip();
    }
    for (int again = 0; again < 2; again++) {
        const fixture f = {.context = again ? rwt_test_context() : context};
        const embedding e = create_embedding(&f);
        void *stream, *pointer;
        SUCCEEDS(runtime.stream_create(&stream, RWT_STREAM_NON_BLOCKING));
        assert_int_equal(rw_context_set_stream(f.context, stream), RW_OK);
        assert_int_equal(enqueue_embedding(&f, &e), RW_OK);
        SUCCEEDS(runtime.stream_destroy(stream));
        const rw_copy_args copy = {e.x, e.table, sizeof(float), RW_COPY_DEVICE_TO_DEVICE};
        assert_int_equal(enqueue_embedding(&f, &e), RW_DEVICE_ERROR);
        assert_int_equal(rw_copy(f.context, &copy), RW_DEVICE_ERROR);
        assert_int_equal(rw_synchronize(f.context), RW_DEVICE_ERROR);
        assert_true(rwt_test_says(rw_last_error(f.context), "hipStreamSynchronize failed"));
        assert_int_equal(rw_alloc(f.context, 64, &pointer), RW_OK);
        assert_int_equal(rw_free(f.context, pointer), RW_OK);
        free_embedding(&f, &e);
        if (again == 0) {
            assert_int_equal(rw_context_set_stream(f.context, NULL), RW_OK);
            assert_int_equal(rw_synchronize(f.context), RW_OK);
        }
        rw_context_destroy(f.context);
        assert_int_equal(runtime.last_error(), 0);
    }
}

/* ---- the CPU ---- */

static void test_cpu_ignores_streams(void **state) {
    (void)state;
    float x[COUNT] = {0}, out[COUNT];
    const fixture f = {.context = rwt_test_context()};
    for (int i = 0; i < COUNT; i++)
        x[i] = 5 + (float)i;
    assert_int_equal(rw_context_set_stream(f.context, x), RW_OK);
    assert_int_equal(enqueue_scale(&f, x, out), RW_OK);
    assert_int_equal(rw_synchronize(f.context), RW_OK);
    assert_scaled(out, 5);
    rw_context_destroy(f.context);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, create, destroy)

int main(void) {
    rwt_test_keep_crash_handlers();
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest cpu[] = {cmocka_unit_test(test_cpu_ignores_streams)};
    const struct CMUnitTest gpu[] = {
        WITH_FIXTURE(test_late_producer),
        WITH_FIXTURE(test_kernels_wait),
        WITH_FIXTURE(test_every_operation_as_a_graph),
        WITH_FIXTURE(test_fault_of_a_replay),
        WITH_FIXTURE(test_what_a_capture_forbids),
        cmocka_unit_test(test_destroyed_stream),
    };
    rw_context *context = rwt_test_context();
    const bool on_cpu = strcmp(rw_context_get_info(context).backend, "cpu") == 0;
    rw_context_destroy(context);
    if (on_cpu)
        return cmocka_run_group_tests_name("streams", cpu, NULL, NULL);
    runtime = rwt_gpu_runtime_open();
    return cmocka_run_group_tests_name("streams", gpu, NULL, NULL);
}
