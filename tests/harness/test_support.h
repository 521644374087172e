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

#endif
