#include "common/replace_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io_error.h"

/* mkstemp() makes files private; the finished file must have the mode of the user's umask. */
static bool give_usual_mode(int descriptor) {
    mode_t mask = umask(0);
    umask(mask);
    return fchmod(descriptor, 0666 & ~mask) == 0;
}

/* Writes to `temporary`, a template for mkstemp(), and renames it to `path`. */
static bool replace(const char *path, char *temporary, const rwi_file_contents *contents) {
    int descriptor = mkstemp(temporary);
    if (descriptor < 0)
        return false;
    bool done = contents->write(descriptor, contents->user) && give_usual_mode(descriptor);
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
    static const char suffix[] = ".XXXXXX";
    struct stat info;
    /* A rename would replace a device by a regular file. */
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                           "cannot write %.140s: it exists and is not a regular file", path);
    char *temporary = malloc(strlen(path) + sizeof suffix);
    if (!temporary)
        return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory to write %.140s", path);
    strcpy(temporary, path);
    strcat(temporary, suffix);
    rw_status status = RW_OK;
    if (!replace(path, temporary, contents))
        status = rwi_io_fail(message, RW_INVALID_ARGUMENT, "cannot write %.140s: %s", path,
                             strerror(errno));
    free(temporary);
    return status;
}
