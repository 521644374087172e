/* Common to the tests of files. */
#ifndef RWT_IO_SUPPORT_H
#define RWT_IO_SUPPORT_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ropewalk/base.h>

/* A new folder; remove it with rwt_folder_remove(). */
typedef struct rwt_folder {
    char path[64];
} rwt_folder;

void rwt_folder_make(rwt_folder *folder);

/* Removes the folder with the files in it. */
void rwt_folder_remove(const rwt_folder *folder);

/* The number of files in the folder. */
int rwt_folder_count(const rwt_folder *folder);

/* "folder/name"; never freed. */
const char *rwt_path(const char *folder, const char *name);

void rwt_write_file(const char *path, const void *data, size_t bytes);

/* The file's contents followed by a NUL; the caller must free it. */
char *rwt_read_file(const char *path, size_t *bytes);

/* Writes a safetensors file with this header, followed by `data_bytes` bytes 0, 1, 2, ... */
void rwt_write_safetensors(const char *path, const char *header, size_t data_bytes);

/* Fails unless the text is one sentence on one line. */
void rwt_assert_sentence(const char *text);

#endif
