#define _POSIX_C_SOURCE 200809L

#include "harness/test_support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
