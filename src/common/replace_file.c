#include "common/replace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io_error.h"

#define SUFFIX_BYTES 20 /* with a NUL */
#define ATTEMPTS 1000

/* Creates a file of a new name that begins with `path`, with the mode of the user's umask, which
 * mkstemp() ignores. `temporary` has room for SUFFIX_BYTES more than the path. */
static int create_beside(const char *path, char *temporary) {
    static atomic_uint number;
    int descriptor = -1;
    for (int i = 0; i < ATTEMPTS; i++) {
        sprintf(temporary, "%s.%08lx%08x", path, (unsigned long)getpid() & 0xffffffff,
                atomic_fetch_add(&number, 1));
        descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0 || errno != EEXIST)
            break;
    }
    return descriptor;
}

/* Writes to a temporary file and renames it to `path`. */
static bool replace(const char *path, char *temporary, const rwi_file_contents *contents) {
    int descriptor = create_beside(path, temporary);
    if (descriptor < 0)
        return false;
    bool done = contents->write(descriptor, contents->user);
    int error = errno;
    if (close(descriptor) != 0 && done) {
        error = errno;
        done = false;
    }
    if (done && rename(temporary, path) != 0) {
        error = errno;
        done = false;
    }
    if (!done)
        unlink(temporary);
    errno = error;
    return done;
}

rw_status rwi_replace_file(const char *path, const rwi_file_contents *contents,
                           rw_message *message) {
    struct stat info;
    /* A rename would replace a device by a regular file. */
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                           "cannot write %.140s: it exists and is not a regular file", path);
    char *temporary = malloc(strlen(path) + SUFFIX_BYTES);
    if (!temporary)
        return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory to write %.140s", path);
    rw_status status = RW_OK;
    if (!replace(path, temporary, contents))
        status = rwi_io_fail(message, RW_INVALID_ARGUMENT, "cannot write %.140s: %s", path,
                             strerror(errno));
    free(temporary);
    return status;
}
