/* Runs a job on a target and checks the results. */
#include "harness/harness.h"
#include "harness/harness_binding.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_EPS 4.0

static void fail(rwt_outcome *outcome, const char *format, ...) {
    if (outcome->failed)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(outcome->reason, sizeof outcome->reason, format, args);
    va_end(args);
    outcome->failed = true;
}

/* Whether a sentence contains a number as a separate word. */
static bool mentions(const char *text, int64_t number) {
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)number);
    for (const char *at = strstr(text, digits); at; at = strstr(at + 1, digits)) {
        bool starts = at == text || (!isdigit((unsigned char)at[-1]) && at[-1] != '-');
        if (starts && !isdigit((unsigned char)at[length]))
            return true;
    }
    return false;
}

static double larger(double a, double b) {
    return a > b ? a : b;
}

/* The scale that errors of a number are relative to. */
static double scale_of(rw_dtype dtype, const rwt_expected *expected) {
    double size = fabs(expected->u.value);
    double scale = larger(larger(size, expected->scale), rwt_dtype_min_normal(dtype));
    return isfinite(scale) ? scale : size;
}

/* Whether `got` can result from f32 arithmetic with an error of 4 eps of f32 and one rounding to
 * nearest: for f16 and bf16 this is much less than 4 of their eps. */
static bool is_near(rw_dtype dtype, double value, double scale, double got) {
    double max = rwt_dtype_max(dtype);
    if (isnan(value) || isinf(value) || isnan(got))
        return (isnan(value) && isnan(got)) || value == got;
    double off = MAX_EPS * rwt_dtype_epsilon(RW_F32) * scale;
    if (isinf(got))
        return signbit(got) == signbit(value) &&
               fabs(value) + off >= max + rwt_dtype_spacing(dtype, max) / 2;
    double rounding =
        dtype == RW_F32 ? 0.0 : rwt_dtype_spacing(dtype, larger(fabs(value), fabs(got))) / 2;
    return fabs(got - value) <= rounding + off;
}

static void judge_float(const rwt_buffer *buffer, int64_t i, double got, rwt_outcome *outcome) {
    const rwt_expected *expected = &buffer->expected[i];
    double value = expected->u.value, scale = scale_of(buffer->dtype, expected);
    double unit = rwt_dtype_epsilon(buffer->dtype) * scale;
    double error = isfinite(value) && isfinite(got) ? fabs(got - value) / unit : 0.0;
    if (!is_near(buffer->dtype, value, scale, got))
        fail(outcome, "%s: element %lld of the storage is %.9g, expected %.9g (off by %.3g eps)",
             buffer->name, (long long)i, got, value, error);
    if (error > outcome->worst)
        outcome->worst = error;
}

static void judge_element(const rwt_buffer *buffer, const void *data, int64_t i,
                          rwt_outcome *outcome) {
    const rwt_expected *expected = buffer->expected ? &buffer->expected[i] : NULL;
    rwt_expectation kind = expected ? expected->kind : RWT_UNCHANGED;
    uint64_t bits = rwt_load_bits(buffer->dtype, data, i), before;
    double got = kind == RWT_UNCHANGED ? 0.0 : rwt_load(buffer->dtype, data, i);
    switch (kind) {
    case RWT_UNCHANGED:
        before = rwt_load_bits(buffer->dtype, buffer->initial, i);
        if (bits != before)
            fail(outcome, "%s: element %lld of the storage must not change, 0x%llx became 0x%llx",
                 buffer->name, (long long)i, (unsigned long long)before, (unsigned long long)bits);
        break;
    case RWT_NEAR:
        judge_float(buffer, i, got, outcome);
        break;
    case RWT_NOT_FINITE:
        if (isfinite(got))
            fail(outcome, "%s: element %lld of the storage is %.9g, expected NaN or Inf",
                 buffer->name, (long long)i, got);
        break;
    case RWT_EXACT:
        if (bits != expected->u.bits)
            fail(outcome, "%s: element %lld of the storage is %.9g (0x%llx), expected 0x%llx",
                 buffer->name, (long long)i, got, (unsigned long long)bits,
                 (unsigned long long)expected->u.bits);
        break;
    }
}

static void judge_buffer(const rwt_buffer *buffer, const void *image, rwt_outcome *outcome) {
    const char *data = (const char *)image + rwt_buffer_front(buffer);
    int64_t hit = rwt_guard_violation(buffer, image);
    if (hit)
        fail(outcome, "%s: the guard was written to, %lld bytes from the first of %lld elements",
             buffer->name, (long long)hit, (long long)buffer->elements);
    size_t bytes = (size_t)rwt_buffer_size(buffer);
    if (buffer->scratch)
        return;
    if (!buffer->expected && !memcmp(data, buffer->initial, bytes))
        return;
    for (int64_t i = 0; i < buffer->elements; i++)
        judge_element(buffer, data, i, outcome);
}

static void judge_fault(const rwt_job *job, rw_context *context, rwt_outcome *outcome) {
    rw_status status = rw_synchronize(context);
    const rw_fault expected = job->fault, got = rw_last_fault(context);
    const char *sentence = rw_last_error(context);
    if (expected.kind == RW_FAULT_NONE) {
        if (status != RW_OK)
            fail(outcome, "rw_synchronize returned %s: %s", rw_status_name(status), sentence);
        return;
    }
    if (status != RW_OUT_OF_RANGE) {
        fail(outcome,
             "rw_synchronize returned %s, expected RW_OUT_OF_RANGE for token %lld, id %lld",
             rw_status_name(status), (long long)expected.token, (long long)expected.id);
        return;
    }
    if (got.kind != expected.kind || got.token != expected.token || got.id != expected.id ||
        strcmp(got.operation, expected.operation) != 0)
        fail(outcome, "%s reported token %lld with id %lld of kind %d, expected %lld, %lld, %d",
             got.operation, (long long)got.token, (long long)got.id, (int)got.kind,
             (long long)expected.token, (long long)expected.id, (int)expected.kind);
    if (!mentions(sentence, expected.token) || !mentions(sentence, expected.id))
        fail(outcome, "the sentence lacks token %lld or id %lld: %s", (long long)expected.token,
             (long long)expected.id, sentence);
    if (rw_synchronize(context) != RW_OK || rw_last_fault(context).kind != RW_FAULT_NONE)
        fail(outcome, "the fault was reported twice");
}

/* Runs the operation once on set 0, as uploaded, and downloads. */
static void run_once(const rwt_binding *binding, rwt_images *images, rwt_outcome *outcome) {
    rw_context *context = binding->context;
    rw_message message;
    rw_transfers before = rw_context_transfers(context);
    rwt_binding_fence(binding, true);
    rw_status status = rwt_binding_run(binding, 0);
    if (status == RW_OK)
        judge_fault(binding->job, context, outcome);
    rwt_binding_fence(binding, false);
    rw_transfers after = rw_context_transfers(context);
    outcome->unsupported = status == RW_UNSUPPORTED;
    if (status != RW_OK)
        fail(outcome, "returned %s: %s", rw_status_name(status), rw_last_error(context));
    if (after.host_to_device_bytes != before.host_to_device_bytes ||
        after.device_to_host_bytes != before.device_to_host_bytes)
        fail(outcome, "bytes moved between host and device");
    if (!rwt_binding_download(binding, images, &message))
        fail(outcome, "%s", message.text);
}

static void judge(const rwt_job *job, const rwt_images *images, rwt_outcome *outcome) {
    for (int b = 0; b < job->num_buffers; b++)
        judge_buffer(&job->buffers[b], images->data[b], outcome);
}

static void judge_same(const rwt_job *job, const rwt_images *a, const rwt_images *b,
                       rwt_outcome *outcome) {
    for (int i = 0; i < job->num_buffers; i++) {
        size_t bytes = (size_t)rwt_buffer_allocation(&job->buffers[i]);
        if (memcmp(a->data[i], b->data[i], bytes) != 0)
            fail(outcome, "%s: two runs gave different bits", job->buffers[i].name);
    }
}

/* All runs of one target; all except the first must repeat its bits. */
rwt_outcome rwt_job_run(const rwt_job *job, const rwt_target *target, rwt_images *images) {
    rwt_outcome outcome = {.failed = false};
    *images = (rwt_images){{NULL}};
    int runs = target->num_runs > 1 ? target->num_runs : 2;
    rwt_binding binding = {.job = NULL};
    for (int r = 0; r < runs && !outcome.failed; r++) {
        rw_context *context = target->runs[r % target->num_runs];
        rw_message message = {""};
        bool ready = binding.context == context
                         ? rwt_binding_upload(&binding, 0, &message)
                         : rwt_binding_open(&binding, job, context, 1, &message);
        rwt_images again = {{NULL}};
        rwt_images *left = r == 0 ? images : &again;
        if (ready)
            run_once(&binding, left, &outcome);
        else
            fail(&outcome, "%s", message.text);
        if (!outcome.failed && r == 0)
            judge(job, images, &outcome);
        if (!outcome.failed && r > 0)
            judge_same(job, images, &again, &outcome);
        rwt_images_free(&again);
        bool kept = target->num_runs == 1 && r + 1 < runs && !outcome.failed;
        if (!kept)
            rwt_binding_close(&binding);
    }
    return outcome;
}

/* Backends may differ by 0.1% of the scale, or by one unit in the last place of bf16, which is
 * larger. */
static void compare_buffer(const rwt_buffer *buffer, const void *a, const void *b,
                           rwt_outcome *outcome) {
    double limit = fmax(0.001, rwt_dtype_epsilon(buffer->dtype));
    int64_t front = rwt_buffer_front(buffer);
    for (int64_t i = 0; i < buffer->elements; i++) {
        if (buffer->expected[i].kind != RWT_NEAR)
            continue;
        double x = rwt_load(buffer->dtype, (const char *)a + front, i);
        double y = rwt_load(buffer->dtype, (const char *)b + front, i);
        double value = fabs(buffer->expected[i].u.value);
        double scale = larger(value, buffer->expected[i].scale);
        if (isnan(value) || isinf(scale) || isinf(x) || isinf(y))
            continue; /* each was checked against the reference */
        double distance = fabs(x - y) / larger(scale, rwt_dtype_min_normal(buffer->dtype));
        if (!(distance <= limit))
            fail(outcome, "%s: element %lld of the storage is %.9g on one and %.9g on the other",
                 buffer->name, (long long)i, x, y);
        if (distance > outcome->worst)
            outcome->worst = distance;
    }
}

rwt_outcome rwt_images_compare(const rwt_job *job, const rwt_images *a, const rwt_images *b) {
    rwt_outcome outcome = {.failed = false};
    for (int i = 0; i < job->num_buffers; i++) {
        const rwt_buffer *buffer = &job->buffers[i];
        if (buffer->expected && rwt_dtype_is_float(buffer->dtype))
            compare_buffer(buffer, a->data[i], b->data[i], &outcome);
    }
    return outcome;
}
