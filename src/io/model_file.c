#include "model_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io_error.h"

/* Opens `path` or, if that is a folder, the config.json in it. O_NONBLOCK: a named pipe must be
 * refused, not waited for. */
static int open_config(const char *path) {
    const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
    struct stat info;
    int descriptor = open(path, flags);
    if (descriptor < 0 || fstat(descriptor, &info) != 0 || !S_ISDIR(info.st_mode))
        return descriptor;
    int inside = openat(descriptor, "config.json", flags);
    int error = errno;
    close(descriptor);
    errno = error;
    return inside;
}

/* The bytes of an open file and their number; NULL with errno set, EFBIG for a file that is too
 * large for a config. */
static char *read_text(int descriptor, size_t *length) {
    char *text = NULL;
    struct stat info;
    int error = 0;
    size_t used = 0;
    if (fstat(descriptor, &info) != 0)
        error = errno;
    else if (!S_ISREG(info.st_mode))
        error = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    else if (info.st_size > RWI_MAX_CONFIG_BYTES)
        error = EFBIG;
    else if (!(text = malloc((size_t)info.st_size + 1)))
        error = ENOMEM;
    while (error == 0 && used < (size_t)info.st_size) {
        ssize_t got = read(descriptor, text + used, (size_t)info.st_size - used);
        if (got == 0)
            break;
        if (got > 0)
            used += (size_t)got;
        else if (errno != EINTR)
            error = errno;
    }
    if (error != 0) {
        free(text);
        errno = error;
        return NULL;
    }
    *length = used;
    return text;
}

rw_status rwi_model_file_read(const char *path, char **text, size_t *length, rw_message *message) {
    int descriptor = open_config(path);
    *text = descriptor < 0 ? NULL : read_text(descriptor, length);
    int error = errno;
    if (descriptor >= 0)
        close(descriptor);
    if (*text)
        return RW_OK;
    return rwi_io_fail(message, error == ENOMEM ? RW_OUT_OF_MEMORY : RW_INVALID_ARGUMENT,
                       "cannot read %.140s: %s", path, strerror(error));
}
