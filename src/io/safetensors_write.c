/* Writes safetensors files, completely or not at all. */
#include "safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "io_error.h"
#include "replace_file.h"
#include "safetensors_dtypes.h"

static uint64_t bytes_of(const rwi_safetensors_item *item) {
    uint64_t bytes = rw_dtype_size(item->dtype);
    for (size_t i = 0; i < item->rank; i++)
        bytes *= (uint64_t)item->shape[i];
    return bytes;
}

/* The header as text, padded with spaces so that the data starts at a multiple of 8; NULL if out of
 * memory. */
static char *header_text(const rwi_safetensors_items *items) {
    json_t *header = json_object();
    int failed = header == NULL;
    uint64_t begin = 0;
    for (size_t i = 0; i < items->count && !failed; i++) {
        const rwi_safetensors_item *item = &items->items[i];
        uint64_t end = begin + bytes_of(item);
        json_t *shape = json_array();
        for (size_t axis = 0; axis < item->rank; axis++)
            failed |= json_array_append_new(shape, json_integer(item->shape[axis]));
        json_t *entry =
            json_pack("{s:s, s:o, s:[I, I]}", "dtype", rwi_safetensors_dtype_of(item->dtype)->name,
                      "shape", shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
        failed |= json_object_set_new(header, item->name, entry);
        begin = end;
    }
    char *text = failed ? NULL : json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (!text)
        return NULL;
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    char *grown = realloc(text, padded + 1);
    if (!grown) {
        free(text);
        return NULL;
    }
    memset(grown + length, ' ', padded - length);
    grown[padded] = '\0';
    return grown;
}

static bool write_all(int descriptor, const void *data, uint64_t bytes) {
    const char *next = data;
    while (bytes > 0) {
        size_t part = bytes < 1u << 30 ? (size_t)bytes : 1u << 30;
        ssize_t written = write(descriptor, next, part);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        next += written;
        bytes -= (uint64_t)written;
    }
    return true;
}

/* The contents of a file. */
typedef struct contents {
    const char *header;
    const rwi_safetensors_items *items;
} contents;

static bool write_contents(int descriptor, const void *user) {
    const contents *c = user;
    uint64_t header_bytes = strlen(c->header);
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)(header_bytes >> 8 * i);
    bool written = write_all(descriptor, length, sizeof length) &&
                   write_all(descriptor, c->header, header_bytes);
    for (size_t i = 0; i < c->items->count && written; i++)
        written = write_all(descriptor, c->items->items[i].data, bytes_of(&c->items->items[i]));
    return written;
}

rw_status rwi_safetensors_write(const char *path, const rwi_safetensors_items *items,
                                rw_message *message) {
    for (size_t i = 0; i < items->count; i++)
        if (!rwi_safetensors_dtype_of(items->items[i].dtype))
            return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                               "cannot write %.140s: tensor \"%s\" has an unknown dtype", path,
                               items->items[i].name);
    char *header = header_text(items);
    if (!header)
        return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory to write %.140s", path);
    const contents what = {header, items};
    const rwi_file_contents file = {write_contents, &what};
    rw_status status = rwi_replace_file(path, &file, message);
    free(header);
    return status;
}
