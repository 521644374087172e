/* What every entry point needs: its name in messages, first checks, and how to return a failure. */
#ifndef RWI_CALL_H
#define RWI_CALL_H

#include <ropewalk/context.h>

#include "backend.h"

struct rw_context {
    rwi_device *device;
    const rwi_backend *backend;
    rw_message error;
    rw_fault fault;
    rw_transfers transfers;
};

/* One call of a public function. */
typedef struct rwi_call {
    rw_context *context;
    const char *name; /* "rw_rope_apply" */
} rwi_call;

/* Puts "name: <sentence>" into the context and returns `status`. */
rw_status rwi_fail(const rwi_call *call, rw_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Writes a sentence into `message`, which may be NULL, and returns `status`. */
rw_status rwi_message_set(rw_message *message, rw_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Returns the status of a backend function; on failure puts its sentence into the context. */
rw_status rwi_finish(const rwi_call *call, rw_status status);

/* Fails if the context is NULL; no sentence is written then. */
rw_status rwi_check_context(const rwi_call *call);

/* Fails if `pointer`, the argument `name`, is NULL. */
rw_status rwi_check_pointer(const rwi_call *call, const char *name, const void *pointer);

/* Every operation's first check: neither the context nor `args` is NULL. */
rw_status rwi_begin(const rwi_call *call, const void *args);

/* Returns the status of `expression` from the function around it unless that is RW_OK. */
#define RWI_TRY(expression)                                                                        \
    do {                                                                                           \
        const rw_status rwi_tried = (expression);                                                  \
        if (rwi_tried != RW_OK)                                                                    \
            return rwi_tried;                                                                      \
    } while (0)

/* Fails unless the context runs on the device on which the object `name` was created. */
rw_status rwi_check_owner(const rwi_call *call, const char *name, const rwi_backend *backend,
                          int device_index);

/* Fails with RW_OUT_OF_RANGE: `bad` was found at a token. `subject` is "" or "operation: ". */
rw_status rwi_fail_fault(const rwi_call *call, const char *subject, int64_t token, rwi_bad_id bad);

/* Copies to the device and counts the bytes. */
rw_status rwi_upload(const rwi_call *call, void *destination, const void *source, size_t bytes);

#endif
