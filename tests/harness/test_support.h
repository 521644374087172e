/* Common to the test programs. */
#ifndef RWT_TEST_SUPPORT_H
#define RWT_TEST_SUPPORT_H

#include "harness/harness.h"

/* The exit status that CTest reports as skipped. */
#define RWT_TEST_SKIPPED 77

/* False, with a line on stderr, if ROPEWALK_BACKEND selects hip and this host has no device: the
 * program must then exit with RWT_TEST_SKIPPED. */
bool rwt_test_backend_usable(void);

/* Whether a sentence contains a word; prints both if it does not. */
bool rwt_test_says(const char *sentence, const char *word);

/* cmocka catches a crash and continues with the next test, with any locks that the crashed test
 * held. Where kernels run, a crash must end the program: save the handlers at the start of main(),
 * and restore them at the start of a test. */
void rwt_test_keep_crash_handlers(void);
void rwt_test_restore_crash_handlers(void);

/* A context of the backend that ROPEWALK_BACKEND names; exits on failure. */
rw_context *rwt_test_context(void);

/* Allocates device memory and copies `bytes` bytes to it; and copies back. */
void *rwt_test_upload(rw_context *context, const void *source, size_t bytes);
void rwt_test_download(rw_context *context, void *destination, const void *source, size_t bytes);

/* Memory of a context that a call must leave as it is, with what it holds. */
typedef struct rwt_guarded {
    rw_context *context;
    float *memory; /* on the device */
    const float *before;
    size_t bytes;
} rwt_guarded;

/* For cmocka: opens a context with 8192 numbers from 0 to 1 as *state, and closes it. */
int rwt_guarded_open(void **state);
int rwt_guarded_close(void **state);

/* Fails the running test where an operation wrote into the memory. */
void rwt_assert_untouched(rwt_guarded guarded);

/* What a call must be refused with: a status, and a sentence that holds these. */
typedef struct rwt_refusal {
    rw_status status;
    const char *function;
    const char *word;
} rwt_refusal;

/* Fails the running test unless a call that returned `got` was refused so and wrote nothing. */
void rwt_assert_refused(rwt_guarded guarded, rw_status got, rwt_refusal expected);

#endif
