/* Reads safetensors files, as strictly as the reference implementation. */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "io_error.h"
#include "safetensors_dtypes.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the data of safetensors files is little endian, and so must be the host"
#endif

/* The limit of the format. */
#define MAX_HEADER_BYTES 100000000u

/* The file that is read, for error sentences. */
typedef struct source {
    const char *path;
    int descriptor;
    uint64_t bytes;
    rw_message *message;
} source;

static rw_status malformed(const source *from, const char *name, const char *why) {
    return rwi_io_fail(from->message, RW_INVALID_ARGUMENT,
                       "%.120s is not a valid safetensors file: tensor \"%.60s\" %s", from->path,
                       name, why);
}

static rw_status read_exactly(const source *from, void *buffer, uint64_t offset, uint64_t bytes) {
    char *next = buffer;
    while (bytes > 0) {
        size_t part = bytes < 1u << 30 ? (size_t)bytes : 1u << 30;
        ssize_t got = pread(from->descriptor, next, part, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return rwi_io_fail(from->message, RW_INVALID_ARGUMENT, "cannot read %.140s: %s",
                               from->path, strerror(errno));
        if (got == 0)
            return rwi_io_fail(from->message, RW_INVALID_ARGUMENT,
                               "%.120s ends at byte %" PRIu64 ", expected %" PRIu64 " bytes more",
                               from->path, offset, bytes);
        next += got;
        offset += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return RW_OK;
}

static rw_status open_source(source *from) {
    /* O_NONBLOCK: a named pipe must be refused below, not waited for. */
    from->descriptor = open(from->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    if (from->descriptor < 0 || fstat(from->descriptor, &info) != 0)
        return rwi_io_fail(from->message, RW_INVALID_ARGUMENT, "cannot open %.140s: %s", from->path,
                           strerror(errno));
    if (!S_ISREG(info.st_mode))
        return rwi_io_fail(from->message, RW_INVALID_ARGUMENT, "%.120s is not a regular file",
                           from->path);
    from->bytes = (uint64_t)info.st_size;
    return RW_OK;
}

/* Reads and parses the header; `header_bytes` receives its length. */
static rw_status read_header(const source *from, json_t **header, uint64_t *header_bytes) {
    unsigned char length[8];
    if (from->bytes < sizeof length)
        return rwi_io_fail(from->message, RW_INVALID_ARGUMENT,
                           "%.120s is not a valid safetensors file: it has %" PRIu64
                           " bytes, expected at least 8",
                           from->path, from->bytes);
    rw_status status = read_exactly(from, length, 0, sizeof length);
    if (status != RW_OK)
        return status;
    uint64_t bytes = 0;
    for (int i = 7; i >= 0; i--)
        bytes = bytes << 8 | length[i];
    if (bytes > MAX_HEADER_BYTES || bytes > from->bytes - sizeof length)
        return rwi_io_fail(from->message, RW_INVALID_ARGUMENT,
                           "%.120s is not a valid safetensors file: its header length is "
                           "%" PRIu64 " bytes, expected at most %u and within the file",
                           from->path, bytes, MAX_HEADER_BYTES);
    char *text = malloc((size_t)bytes + 1);
    if (!text)
        return rwi_io_fail(from->message, RW_OUT_OF_MEMORY, "no memory for the header of %.140s",
                           from->path);
    status = read_exactly(from, text, sizeof length, bytes);
    json_error_t error = {.text = "expected an object"};
    if (status == RW_OK) {
        if (bytes > 0 && text[0] == '{')
            *header = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES, &error);
        if (!*header)
            status = rwi_io_fail(from->message, RW_INVALID_ARGUMENT,
                                 "%.120s is not a valid safetensors file: its header is not a JSON "
                                 "object: %.80s",
                                 from->path, error.text);
    }
    free(text);
    *header_bytes = bytes;
    return status;
}

/* The product of the shape and the bits of an element, in bytes; false on overflow, or if it is not
 * a whole number of bytes. */
static bool bytes_of(const json_t *shape, unsigned bits, uint64_t *bytes) {
    uint64_t total = 1;
    for (size_t i = 0; i < json_array_size(shape); i++)
        if (__builtin_mul_overflow(total, (uint64_t)json_integer_value(json_array_get(shape, i)),
                                   &total))
            return false;
    if (__builtin_mul_overflow(total, bits, &total) || total % 8 != 0)
        return false;
    *bytes = total / 8;
    return true;
}

static bool is_list_of_lengths(const json_t *list) {
    if (!json_is_array(list))
        return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *length = json_array_get(list, i);
        if (!json_is_integer(length) || json_integer_value(length) < 0)
            return false;
    }
    return true;
}

/* Fills `tensor` from its entry in the header; its offset counts from the start of the data. */
static rw_status read_entry(const source *from, const char *name, const json_t *entry,
                            rwi_safetensor *tensor) {
    const json_t *dtype = json_object_get(entry, "dtype");
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_string(dtype))
        return malformed(from, name, "has no dtype");
    if (!is_list_of_lengths(shape))
        return malformed(from, name, "has no shape of nonnegative integers");
    if (!is_list_of_lengths(offsets) || json_array_size(offsets) != 2)
        return malformed(from, name, "has no data_offsets [begin, end]");
    const rwi_safetensors_dtype *known = rwi_safetensors_dtype_by_name(json_string_value(dtype));
    if (!known)
        return malformed(from, name, "has a dtype that the format does not define");
    uint64_t begin = (uint64_t)json_integer_value(json_array_get(offsets, 0));
    uint64_t end = (uint64_t)json_integer_value(json_array_get(offsets, 1));
    uint64_t bytes;
    if (!bytes_of(shape, known->bits, &bytes))
        return malformed(from, name, "has a shape whose size in bytes is invalid");
    if (end < begin || end - begin != bytes)
        return malformed(from, name, "has data_offsets that do not fit its shape and dtype");
    *tensor = (rwi_safetensor){
        .name = name,
        .dtype_name = known->name,
        .supported = known->supported,
        .dtype = known->dtype,
        .rank = json_array_size(shape),
        .offset = begin,
        .bytes = bytes,
    };
    for (size_t i = 0; i < tensor->rank && i < RWI_SAFETENSORS_MAX_RANK; i++)
        tensor->shape[i] = json_integer_value(json_array_get(shape, i));
    return RW_OK;
}

static rw_status check_metadata(const source *from, const json_t *metadata) {
    const char *key;
    json_t *value;
    bool valid = json_is_object(metadata);
    json_object_foreach((json_t *)metadata, key, value) valid = valid && json_is_string(value);
    if (valid)
        return RW_OK;
    return rwi_io_fail(from->message, RW_INVALID_ARGUMENT,
                       "%.120s is not a valid safetensors file: __metadata__ is not an object of "
                       "strings",
                       from->path);
}

static int compare_extents(const void *a, const void *b) {
    const rwi_safetensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Checks that the tensors cover the data from its first byte to its last, and sorts them. */
static rw_status check_extents(const source *from, rwi_safetensors *file, uint64_t data_bytes) {
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_extents);
    uint64_t next = 0;
    for (size_t i = 0; i < file->count; i++) {
        const rwi_safetensor *tensor = &file->tensors[i];
        if (tensor->offset < next)
            return malformed(from, tensor->name, "overlaps another one");
        if (tensor->offset > next)
            return malformed(from, tensor->name, "has a gap before it");
        next += tensor->bytes;
        if (next > data_bytes)
            return malformed(from, tensor->name, "exceeds the end of the file");
    }
    if (next < data_bytes)
        return rwi_io_fail(from->message, RW_INVALID_ARGUMENT,
                           "%.120s is not a valid safetensors file: %" PRIu64
                           " bytes at its end belong to no tensor",
                           from->path, data_bytes - next);
    return RW_OK;
}

static rw_status read_entries(const source *from, uint64_t header_bytes, rwi_safetensors *file) {
    json_t *header = file->header;
    file->tensors = calloc(json_object_size(header) + 1, sizeof *file->tensors);
    if (!file->tensors)
        return rwi_io_fail(from->message, RW_OUT_OF_MEMORY, "no memory for the tensors of %.140s",
                           from->path);
    const char *name;
    json_t *entry;
    rw_status status = RW_OK;
    json_object_foreach(header, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            status = check_metadata(from, entry);
        else
            status = read_entry(from, name, entry, &file->tensors[file->count++]);
        if (status != RW_OK)
            return status;
    }
    uint64_t data_offset = 8 + header_bytes;
    status = check_extents(from, file, from->bytes - data_offset);
    for (size_t i = 0; i < file->count; i++)
        file->tensors[i].offset += data_offset;
    return status;
}

rw_status rwi_safetensors_open(const char *path, rwi_safetensors *file, rw_message *message) {
    source from = {.path = path, .message = message};
    json_t *header = NULL;
    uint64_t header_bytes = 0;
    *file = (rwi_safetensors){.descriptor = -1};
    rw_status status = open_source(&from);
    if (status == RW_OK)
        status = read_header(&from, &header, &header_bytes);
    file->descriptor = from.descriptor;
    file->header = header;
    if (status == RW_OK)
        status = read_entries(&from, header_bytes, file);
    if (status != RW_OK)
        rwi_safetensors_close(file);
    return status;
}

void rwi_safetensors_close(rwi_safetensors *file) {
    if (file->descriptor >= 0)
        close(file->descriptor);
    json_decref(file->header);
    free(file->tensors);
    *file = (rwi_safetensors){.descriptor = -1};
}

const rwi_safetensor *rwi_safetensors_find(const rwi_safetensors *file, const char *name) {
    for (size_t i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

rw_status rwi_safetensors_read(const rwi_safetensors *file, const rwi_safetensor *tensor,
                               void *buffer, rw_message *message) {
    source from = {.path = "the input", .descriptor = file->descriptor, .message = message};
    return read_exactly(&from, buffer, tensor->offset, tensor->bytes);
}
