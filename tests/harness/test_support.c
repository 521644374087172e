#define _POSIX_C_SOURCE 200809L

#include "harness/test_support.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

bool rwt_test_backend_usable(void) {
    const char *backend = getenv("ROPEWALK_BACKEND");
    if (!backend || strncmp(backend, "hip", 3) != 0)
        return true;
    rw_backend_probe_result probe = rw_backend_probe(RW_BACKEND_HIP);
    if (!probe.usable)
        fprintf(stderr, "SKIPPED: %s\n", probe.why.text);
    return probe.usable;
}

bool rwt_test_says(const char *sentence, const char *word) {
    bool says = strstr(sentence, word) != NULL;
    if (!says)
        fprintf(stderr, "'%s' lacks '%s'\n", sentence, word);
    return says;
}

static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
static struct sigaction handlers[sizeof crashes / sizeof *crashes];

void rwt_test_keep_crash_handlers(void) {
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        sigaction(crashes[i], NULL, &handlers[i]);
}

void rwt_test_restore_crash_handlers(void) {
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        sigaction(crashes[i], &handlers[i], NULL);
}

static void require(bool good, const char *what, const char *why) {
    if (!good) {
        fprintf(stderr, "%s: %s\n", what, why);
        exit(1);
    }
}

rw_context *rwt_test_context(void) {
    rw_context *context;
    rw_message message = {""};
    require(rw_context_create(NULL, &context, &message) == RW_OK, "no context", message.text);
    return context;
}

void *rwt_test_upload(rw_context *context, const void *source, size_t bytes) {
    void *memory;
    require(rw_alloc(context, bytes, &memory) == RW_OK, "no memory", rw_last_error(context));
    rw_copy_args copy = {memory, source, bytes, RW_COPY_HOST_TO_DEVICE};
    require(rw_copy(context, &copy) == RW_OK, "no upload", rw_last_error(context));
    return memory;
}

void rwt_test_download(rw_context *context, void *destination, const void *source, size_t bytes) {
    rw_copy_args copy = {destination, source, bytes, RW_COPY_DEVICE_TO_HOST};
    require(rw_copy(context, &copy) == RW_OK, "no download", rw_last_error(context));
}

int rwt_guarded_open(void **state) {
    const size_t count = 8192, bytes = count * sizeof(float);
    rwt_test_restore_crash_handlers();
    rwt_guarded *guarded = rwt_allocate(sizeof *guarded);
    float *before = rwt_allocate(bytes);
    for (size_t i = 0; i < count; i++)
        before[i] = (float)(i % 97) / 97.0f;
    guarded->context = rwt_test_context();
    guarded->memory = rwt_test_upload(guarded->context, before, bytes);
    guarded->before = before;
    guarded->bytes = bytes;
    *state = guarded;
    return 0;
}

int rwt_guarded_close(void **state) {
    rwt_guarded *guarded = *state;
    int status = rw_free(guarded->context, guarded->memory);
    rw_context_destroy(guarded->context);
    free((void *)guarded->before);
    free(guarded);
    return status;
}

void rwt_assert_untouched(rwt_guarded guarded) {
    void *after = rwt_allocate(guarded.bytes);
    assert_int_equal(rw_synchronize(guarded.context), RW_OK);
    rwt_test_download(guarded.context, after, guarded.memory, guarded.bytes);
    const bool same = memcmp(after, guarded.before, guarded.bytes) == 0;
    free(after);
    if (!same)
        fail_msg("memory was written");
}

void rwt_assert_refused(rwt_guarded guarded, rw_status got, rwt_refusal expected) {
    const char *sentence = rw_last_error(guarded.context);
    if (got != expected.status || !strstr(sentence, expected.function) ||
        !strstr(sentence, expected.word))
        fail_msg("%s \"%s\", expected %s of %s with \"%s\"", rw_status_name(got), sentence,
                 rw_status_name(expected.status), expected.function, expected.word);
    rwt_assert_untouched(guarded);
}
