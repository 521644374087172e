/* Files that are replaced atomically: the path is either the old file or the complete new one. */
#ifndef RWI_REPLACE_FILE_H
#define RWI_REPLACE_FILE_H

#include <ropewalk/base.h>

/* Writes the contents to a file that is open for writing. False, with errno set, on failure. */
typedef struct rwi_file_contents {
    bool (*write)(int descriptor, const void *user);
    const void *user;
} rwi_file_contents;

/* Writes a file next to `path` and renames it to `path` once it is complete. A `path` that is not a
 * regular file is refused. */
rw_status rwi_replace_file(const char *path, const rwi_file_contents *contents,
                           rw_message *message);

#endif
