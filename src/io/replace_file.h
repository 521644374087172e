/* Files that are replaced as a whole: whatever happens, a path is the old file or the new one. */
#ifndef RWI_REPLACE_FILE_H
#define RWI_REPLACE_FILE_H

#include <ropewalk/base.h>

/* Writes the contents to a file that is open for writing. False, with errno set, on failure. */
typedef struct rwi_file_contents {
    bool (*write)(int descriptor, const void *user);
    const void *user;
} rwi_file_contents;

/* Writes a file beside `path` and renames it to `path` once it is whole. A `path` that is something
 * else than a file is refused. */
rw_status rwi_replace_file(const char *path, const rwi_file_contents *contents,
                           rw_message *message);

#endif
