#include "harness/io_support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void rwt_folder_make(rwt_folder *folder) {
    strcpy(folder->path, "/tmp/ropewalk-test-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
}

/* Calls a function for every file; returns the number of files. */
static int visit(const rwt_folder *folder, int (*call)(const char *path)) {
    DIR *list = opendir(folder->path);
    assert_non_null(list);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(list));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        count++;
        if (call)
            assert_int_equal(call(rwt_path(folder->path, entry->d_name)), 0);
    }
    closedir(list);
    return count;
}

void rwt_folder_remove(const rwt_folder *folder) {
    visit(folder, remove);
    assert_int_equal(rmdir(folder->path), 0);
}

int rwt_folder_count(const rwt_folder *folder) {
    return visit(folder, NULL);
}

/* Strings that are never freed. */
typedef struct kept {
    struct kept *next;
    char text[];
} kept;

const char *rwt_path(const char *folder, const char *name) {
    static kept *all;
    size_t bytes = strlen(folder) + strlen(name) + 2;
    kept *path = malloc(sizeof *path + bytes);
    assert_non_null(path);
    snprintf(path->text, bytes, "%s/%s", folder, name);
    path->next = all;
    all = path;
    return path->text;
}

void rwt_write_file(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

char *rwt_read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("cannot open %s", path);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size_t length = (size_t)ftell(file);
    rewind(file);
    char *data = calloc(length + 1, 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, length, file), length);
    fclose(file);
    if (bytes)
        *bytes = length;
    return data;
}

void rwt_write_safetensors(const char *path, const char *header, size_t data_bytes) {
    size_t length = strlen(header), total = 8 + length + data_bytes;
    unsigned char *file = calloc(total, 1);
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++)
        file[8 + length + i] = (unsigned char)i;
    rwt_write_file(path, file, total);
    free(file);
}

void rwt_assert_sentence(const char *text) {
    size_t length = strlen(text);
    if (length < 10 || strchr(text, '\n'))
        fail_msg("not one sentence in one line: \"%s\"", text);
}
