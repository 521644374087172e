/* What the test programs share. */
#ifndef RWT_TEST_SUPPORT_H
#define RWT_TEST_SUPPORT_H

#include "harness/harness.h"

/* What CTest shows as skipped. */
#define RWT_TEST_SKIPPED 77

/* False, with a line on stderr, where ROPEWALK_BACKEND asks for hip and this host has no device:
 * the program is then to end with RWT_TEST_SKIPPED. */
bool rwt_test_backend_usable(void);

/* Whether a sentence holds a word; prints both where it does not. */
bool rwt_test_says(const char *sentence, const char *word);

/* cmocka catches a crash and goes on with the next test, over whatever locks the crash left held.
 * Where kernels run it shall end the program instead: keep the handlers first thing in main(), and
 * restore them first thing in a test. */
void rwt_test_keep_crash_handlers(void);
void rwt_test_restore_crash_handlers(void);

/* A context of the backend that ROPEWALK_BACKEND names; ends the program where there is none. */
rw_context *rwt_test_context(void);

/* Device memory with a copy of `bytes` bytes in it, and back again. */
void *rwt_test_upload(rw_context *context, const void *source, size_t bytes);
void rwt_test_download(rw_context *context, void *destination, const void *source, size_t bytes);

#endif
