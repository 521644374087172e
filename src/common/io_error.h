/* Errors of reading and writing files: a status and one sentence. */
#ifndef RWI_IO_ERROR_H
#define RWI_IO_ERROR_H

#include <ropewalk/base.h>

/* Writes one line of text to `message`, which may be NULL, and returns `status`. Control
 * characters, which names in a file may contain, become '?'. */
rw_status rwi_io_fail(rw_message *message, rw_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
