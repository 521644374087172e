/* Writes safetensors files, completely or not at all. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include <ropewalk/io.h>

#include "common/io_error.h"
#include "common/replace_file.h"
#include "safetensors_dtypes.h"

#define MAX_RANK 64

/* The file that is written. */
typedef struct target {
    const char *path;
    rw_message *message;
} target;

static rw_status refuse(const target *to, const rw_safetensors_item *item, const char *why) {
    return rwi_io_fail(to->message, RW_INVALID_ARGUMENT, "cannot write %.100s: tensor \"%.60s\" %s",
                       to->path, item->name ? item->name : "", why);
}

static rw_status no_memory(const target *to) {
    return rwi_io_fail(to->message, RW_OUT_OF_MEMORY, "no memory to write %.140s", to->path);
}

/* ---- checks ---- */

/* False if the size overflows, as readers compute it, or is not a whole number of bytes. */
static bool bytes_of(const rw_safetensors_item *item, int64_t *bytes) {
    uint64_t total = 1;
    for (int32_t i = 0; i < item->rank; i++)
        if (__builtin_mul_overflow(total, (uint64_t)item->shape[i], &total))
            return false;
    if (__builtin_mul_overflow(total, (uint64_t)rw_file_dtype_bits(item->dtype), &total) ||
        total % 8 != 0)
        return false;
    *bytes = (int64_t)(total / 8);
    return true;
}

/* The bytes of the character at `text`, 1 to 4; 0 if it is not UTF-8. */
static int utf8_bytes(const unsigned char *text) {
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char first = text[0];
    const int bytes = first < 0x80   ? 1
                      : first < 0xc0 ? 0
                      : first < 0xe0 ? 2
                      : first < 0xf0 ? 3
                      : first < 0xf8 ? 4
                                     : 0;
    uint32_t code = first & (0xffu >> (bytes + 1));
    for (int i = 1; i < bytes; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (text[i] & 0x3fu);
    }
    const bool surrogate = code >= 0xd800 && code < 0xe000;
    return bytes > 1 && (code < lowest[bytes] || code > 0x10ffff || surrogate) ? 0 : bytes;
}

static bool is_utf8(const char *text) {
    const unsigned char *next = (const unsigned char *)text;
    while (next && *next) {
        const int bytes = utf8_bytes(next);
        if (bytes == 0)
            return false;
        next += bytes;
    }
    return next != NULL;
}

static rw_status check_item(const target *to, const rw_safetensors_item *item) {
    int64_t bytes;
    if (!is_utf8(item->name) || strcmp(item->name, "__metadata__") == 0)
        return refuse(to, item, "has an invalid name, expected UTF-8 and not __metadata__");
    if (rw_file_dtype_bits(item->dtype) == 0)
        return refuse(to, item, "has an unknown dtype");
    if (item->rank < 0 || item->rank > MAX_RANK || (item->rank > 0 && !item->shape))
        return refuse(to, item, "has an invalid rank or no shape, expected a rank of 0 to 64");
    for (int32_t i = 0; i < item->rank; i++)
        if (item->shape[i] < 0)
            return refuse(to, item, "has a negative length");
    if (!bytes_of(item, &bytes))
        return refuse(to, item, "has a size that overflows or is not a whole number of bytes");
    return bytes > 0 && !item->data ? refuse(to, item, "has no data") : RW_OK;
}

static rw_status check_content(const target *to, const rw_safetensors_content *content) {
    rw_status status = RW_OK;
    if (!to->path || !content || content->num_items < 0 || content->num_metadata < 0 ||
        (content->num_items > 0 && !content->items) ||
        (content->num_metadata > 0 && !content->metadata))
        return rwi_io_fail(to->message, RW_INVALID_ARGUMENT,
                           "rw_safetensors_write: expected a path, items and metadata");
    for (int64_t i = 0; i < content->num_items && status == RW_OK; i++)
        status = check_item(to, &content->items[i]);
    for (int64_t i = 0; i < content->num_metadata && status == RW_OK; i++)
        if (!is_utf8(content->metadata[i].key) || !is_utf8(content->metadata[i].value))
            status =
                rwi_io_fail(to->message, RW_INVALID_ARGUMENT,
                            "cannot write %.140s: metadata are not strings in UTF-8", to->path);
    return status;
}

/* ---- header ---- */

/* The entry of a tensor whose data begins at `begin`; NULL if out of memory. */
static json_t *entry_of(const rw_safetensors_item *item, int64_t begin, int64_t *end) {
    int64_t bytes = 0;
    int failed = !bytes_of(item, &bytes);
    json_t *shape = json_array();
    for (int32_t axis = 0; axis < item->rank; axis++)
        failed |= json_array_append_new(shape, json_integer(item->shape[axis]));
    *end = begin + bytes;
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", rw_file_dtype_name(item->dtype),
                              "shape", shape, "data_offsets", (json_int_t)begin, (json_int_t)*end);
    if (!failed)
        return entry;
    json_decref(entry);
    return NULL;
}

/* Adds to an object; the key must be new. */
static rw_status add(const target *to, json_t *object, const char *key, json_t *value) {
    if (json_object_get(object, key)) {
        json_decref(value);
        return rwi_io_fail(to->message, RW_INVALID_ARGUMENT,
                           "cannot write %.100s: \"%.60s\" is given twice", to->path, key);
    }
    return json_object_set_new(object, key, value) == 0 ? RW_OK : no_memory(to);
}

static rw_status fill_header(const target *to, const rw_safetensors_content *content,
                             json_t *header) {
    rw_status status = RW_OK;
    int64_t begin = 0;
    if (content->num_metadata > 0) {
        json_t *metadata = json_object();
        status = add(to, header, "__metadata__", metadata);
        for (int64_t i = 0; i < content->num_metadata && status == RW_OK; i++)
            status = add(to, metadata, content->metadata[i].key,
                         json_string(content->metadata[i].value));
    }
    for (int64_t i = 0; i < content->num_items && status == RW_OK; i++)
        status =
            add(to, header, content->items[i].name, entry_of(&content->items[i], begin, &begin));
    return status;
}

/* The text of a header, padded with spaces so that the data starts at a multiple of 8. Not
 * json_dumps(), which may return a part of the text if out of memory. */
static rw_status print_header(const target *to, const json_t *header, char **printed) {
    const size_t length = json_dumpb(header, NULL, 0, JSON_COMPACT);
    const size_t padded = (length + 7) / 8 * 8;
    if (padded > RWI_MAX_HEADER_BYTES)
        return rwi_io_fail(to->message, RW_INVALID_ARGUMENT,
                           "cannot write %.140s: its header has %zu bytes, expected at most %u",
                           to->path, padded, RWI_MAX_HEADER_BYTES);
    char *text = length > 0 ? malloc(padded + 1) : NULL;
    if (!text || json_dumpb(header, text, length, JSON_COMPACT) != length) {
        free(text);
        return no_memory(to);
    }
    memset(text + length, ' ', padded - length);
    text[padded] = '\0';
    *printed = text;
    return RW_OK;
}

/* The header as text; the caller must free it. */
static rw_status make_header(const target *to, const rw_safetensors_content *content, char **text) {
    json_t *header = json_object();
    rw_status status = header ? fill_header(to, content, header) : no_memory(to);
    if (status == RW_OK)
        status = print_header(to, header, text);
    json_decref(header);
    return status;
}

/* ---- file ---- */

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
    const rw_safetensors_content *content;
} contents;

static bool write_contents(int descriptor, const void *user) {
    const contents *c = user;
    uint64_t header_bytes = strlen(c->header);
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)(header_bytes >> 8 * i);
    bool written = write_all(descriptor, length, sizeof length) &&
                   write_all(descriptor, c->header, header_bytes);
    for (int64_t i = 0; i < c->content->num_items && written; i++) {
        int64_t bytes = 0;
        written = bytes_of(&c->content->items[i], &bytes) &&
                  write_all(descriptor, c->content->items[i].data, (uint64_t)bytes);
    }
    return written;
}

rw_status rw_safetensors_write(const char *path, const rw_safetensors_content *content,
                               rw_message *message) {
    const target to = {path, message};
    char *header = NULL;
    rw_status status = check_content(&to, content);
    if (status == RW_OK)
        status = make_header(&to, content, &header);
    if (status != RW_OK)
        return status;
    const contents what = {header, content};
    const rwi_file_contents file = {write_contents, &what};
    status = rwi_replace_file(path, &file, message);
    free(header);
    return status;
}
