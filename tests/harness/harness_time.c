/* Times an operation and a copy of as many bytes, alternately.
 *
 * Buffers rotate, so that each run finds them uncached, as a model's next layer does; many runs are
 * issued before one synchronize, so that host overhead overlaps device work; the result is the
 * median of many measurements.
 */
#define _POSIX_C_SOURCE 200809L

#include "harness/harness.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define ROTATED_BYTES ((int64_t)512 << 20) /* larger than any last-level cache */
#define MAX_SETS 256
#define NUM_MEASUREMENTS 15
#define MEASUREMENT_SECONDS 0.02

double rwt_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A timed function: one run on set `set`, and a function that waits for all runs. */
typedef struct subject {
    bool (*run)(void *state, int set);
    bool (*wait)(void *state);
    void *state;
    int num_sets;
    bool brief;
    int next; /* set */
    int64_t runs;
    double samples[NUM_MEASUREMENTS];
} subject;

static bool measure(subject *s, double *seconds) {
    double begin = rwt_now();
    for (int64_t i = 0; i < s->runs; i++) {
        if (!s->run(s->state, s->next))
            return false;
        s->next = (s->next + 1) % s->num_sets;
    }
    if (!s->wait(s->state))
        return false;
    *seconds = (rwt_now() - begin) / (double)s->runs;
    return true;
}

/* Warms up and determines the number of runs of a measurement. */
static bool calibrate(subject *s) {
    double seconds;
    s->runs = s->brief ? 1 : s->num_sets > 4 ? s->num_sets : 4;
    if (!measure(s, &seconds) || !measure(s, &seconds))
        return false;
    s->runs = s->brief ? 1 : (int64_t)(MEASUREMENT_SECONDS / seconds) + 1;
    return true;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(subject *s) {
    qsort(s->samples, NUM_MEASUREMENTS, sizeof *s->samples, compare_doubles);
    return s->samples[NUM_MEASUREMENTS / 2];
}

/* Measures the subjects alternately, so that drift of the machine affects all of them. */
static bool measure_all(subject *const *subjects, int count) {
    for (int i = 0; i < count; i++) {
        if (!calibrate(subjects[i]))
            return false;
    }
    for (int m = 0; m < NUM_MEASUREMENTS; m++) {
        for (int i = 0; i < count; i++) {
            if (!measure(subjects[i], &subjects[i]->samples[m]))
                return false;
        }
    }
    return true;
}

/* ---- the operation --------------------------------------------------------------------------- */

static bool run_operation(void *state, int set) {
    return rwt_binding_run(state, set) == RW_OK;
}

static bool wait_operation(void *state) {
    const rwt_binding *binding = state;
    return rw_synchronize(binding->context) == RW_OK;
}

/* ---- copies ---------------------------------------------------------------------------------- */

/* Half of the memory is copied to the other half, `bytes` at a time; or scaled in place. */
typedef struct copier {
    rw_context *context;
    char *memory;
    int64_t bytes; /* of one copy, a multiple of 64 */
    int num_sets;
    int num_threads;
    bool hot;
} copier;

static char *copy_source(const copier *c, int set) {
    return c->memory + 2 * set * c->bytes;
}

static bool run_device_copy(void *state, int set) {
    const copier *c = state;
    rw_copy_args copy = {copy_source(c, set) + c->bytes, copy_source(c, set), (size_t)c->bytes,
                         RW_COPY_DEVICE_TO_DEVICE};
    return rw_copy(c->context, &copy) == RW_OK;
}

/* The minimum time of the same call: the host overhead of rw_copy(), and its wait. */
static bool run_device_copy_overhead(void *state, int set) {
    const copier *c = state;
    rw_copy_args copy = {copy_source(c, set) + 64, copy_source(c, set), 64,
                         RW_COPY_DEVICE_TO_DEVICE};
    return rw_copy(c->context, &copy) == RW_OK;
}

static void copy_past_cache(char *destination, const char *source, int64_t bytes) {
#ifdef __SSE2__
    for (int64_t i = 0; i < bytes; i += 64) {
        for (int64_t j = i; j < i + 64; j += 16)
            _mm_stream_si128((__m128i *)(destination + j),
                             _mm_load_si128((const __m128i *)(source + j)));
    }
    _mm_sfence();
#else
    memcpy(destination, source, (size_t)bytes);
#endif
}

/* The range of a thread, in lines of 64 bytes. */
static int64_t thread_begin(const copier *c, int thread, int count) {
    return c->bytes / 64 * thread / count * 64;
}

static bool run_host_copy(void *state, int set) {
    const copier *c = state;
    const char *source = copy_source(c, set);
    char *destination = copy_source(c, set) + c->bytes;
    if (c->hot) {
        memcpy(destination, source, (size_t)c->bytes);
        return true;
    }
#pragma omp parallel num_threads(c->num_threads)
    {
        int thread = omp_get_thread_num(), count = omp_get_num_threads();
        int64_t begin = thread_begin(c, thread, count);
        copy_past_cache(destination + begin, source + begin,
                        thread_begin(c, thread + 1, count) - begin);
    }
    return true;
}

static void scale(float *values, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        values[i] *= 0.999f;
}

static bool run_host_scale(void *state, int set) {
    const copier *c = state;
    char *values = copy_source(c, set);
    if (c->hot) {
        scale((float *)(void *)values, c->bytes / 4);
        return true;
    }
#pragma omp parallel num_threads(c->num_threads)
    {
        int thread = omp_get_thread_num(), count = omp_get_num_threads();
        int64_t begin = thread_begin(c, thread, count);
        int64_t bytes = thread_begin(c, thread + 1, count) - begin;
        scale((float *)(void *)(values + begin), bytes / 4);
    }
    return true;
}

static bool wait_nothing(void *state) {
    (void)state;
    return true;
}

static int sets_of(int64_t bytes, bool hot) {
    if (hot)
        return 1;
    int64_t sets = (ROTATED_BYTES + bytes - 1) / bytes;
    return (int)(sets > MAX_SETS ? MAX_SETS : sets);
}

static bool open_copier(copier *c, rw_context *context, double moved, bool hot) {
    int64_t half = (int64_t)(moved / 2.0) / 64 * 64;
    *c = (copier){.context = context, .bytes = half < 128 ? 128 : half, .hot = hot};
    c->num_sets = sets_of(2 * c->bytes, hot);
    c->num_threads = rw_context_get_info(context).num_threads;
    void *memory;
    if (rw_alloc(context, (size_t)(2 * c->bytes * c->num_sets), &memory) != RW_OK)
        return false;
    c->memory = memory;
    if (c->num_threads > 0)
        memset(memory, 0, (size_t)(2 * c->bytes * c->num_sets)); /* no page faults while timing */
    return true;
}

/* ---- the whole measurement ---- */

static uint64_t moved_bytes(const rw_context *context) {
    rw_transfers moved = rw_context_transfers(context);
    return moved.host_to_device_bytes + moved.device_to_host_bytes;
}

/* A copy's time without the overhead; 0 where the difference is too small to measure. */
static double copy_without(double seconds, double overhead) {
    return seconds > 1.5 * overhead ? seconds - overhead : 0.0;
}

static bool time_bound(rwt_binding *binding, copier *c, rwt_timing *timing) {
    bool host = c->num_threads > 0;
    subject operation = {
        run_operation, wait_operation, binding, binding->num_sets, timing->brief, 0, 0, {0}};
    subject copy = {host ? run_host_copy : run_device_copy,
                    wait_nothing,
                    c,
                    c->num_sets,
                    timing->brief,
                    0,
                    0,
                    {0}};
    subject other = {host ? run_host_scale : run_device_copy_overhead,
                     wait_nothing,
                     c,
                     c->num_sets,
                     timing->brief,
                     0,
                     0,
                     {0}};
    subject *const subjects[] = {&operation, &copy, &other};
    uint64_t moved = moved_bytes(binding->context);
    if (!measure_all(subjects, 3))
        return false;
    timing->moved_bytes = moved_bytes(binding->context) - moved;
    timing->seconds = median(&operation);
    timing->copy_seconds = median(&copy);
    double other_seconds = median(&other);
    if (host)
        timing->scale_seconds = other_seconds;
    else /* rw_copy() waits each time, consecutive operations do not */
        timing->copy_seconds = copy_without(timing->copy_seconds, other_seconds);
    return true;
}

bool rwt_benchmark_time(const rwt_driver *driver, const rwt_benchmark *benchmark,
                        rw_context *context, rwt_timing *timing, rw_message *message) {
    rwt_case c;
    if (!rwt_case_parse(driver, benchmark->text, &c, message))
        return false;
    rwt_job *job = rwt_job_make(driver, &c, false);
    *timing = (rwt_timing){.brief = timing->brief,
                           .bytes = driver->bytes(job),
                           .flops = driver->flops ? driver->flops(job) : 0.0};
    timing->num_sets = timing->brief ? 1 : sets_of(rwt_job_storage_bytes(job), benchmark->hot);
    rwt_binding binding;
    copier copies = {.memory = NULL};
    bool good = rwt_binding_open(&binding, job, context, timing->num_sets, message);
    if (good) {
        good = open_copier(&copies, context, timing->bytes, benchmark->hot) &&
               time_bound(&binding, &copies, timing);
        if (!good)
            snprintf(message->text, sizeof message->text, "%s", rw_last_error(context));
    }
    if (copies.memory)
        (void)rw_free(context, copies.memory);
    rwt_binding_close(&binding);
    rwt_job_free(job);
    return good;
}
