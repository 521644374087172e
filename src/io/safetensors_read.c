/* Reads safetensors files, as strictly as the reference implementation. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include <ropewalk/io.h>

#include "common/io_error.h"
#include "safetensors_dtypes.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the data of safetensors files is little endian, and so must be the host"
#endif

struct rw_safetensors {
    int descriptor;
    json_t *header;         /* owns the names and the metadata */
    rw_safetensor *tensors; /* in the order of their data */
    int64_t count;
    int64_t *shapes;
    const char *mapping;
    size_t mapped;
    char path[104]; /* for sentences */
};

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
    if (bytes > RWI_MAX_HEADER_BYTES || bytes > from->bytes - sizeof length)
        return rwi_io_fail(from->message, RW_INVALID_ARGUMENT,
                           "%.120s is not a valid safetensors file: its header length is "
                           "%" PRIu64 " bytes, expected at most %u and within the file",
                           from->path, bytes, RWI_MAX_HEADER_BYTES);
    char *text = malloc((size_t)bytes + 1);
    if (!text)
        return rwi_io_fail(from->message, RW_OUT_OF_MEMORY, "no memory for the header of %.140s",
                           from->path);
    status = read_exactly(from, text, sizeof length, bytes);
    json_error_t error = {.text = "expected an object"};
    if (status == RW_OK) {
        if (bytes > 0 && text[0] == '{')
            *header = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES, &error);
        if (!*header && !error.text[0]) /* jansson describes errors of the text only */
            status = rwi_io_fail(from->message, RW_OUT_OF_MEMORY,
                                 "no memory for the header of %.140s", from->path);
        else if (!*header)
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

/* Fills `tensor` from its entry in the header, and its shape at `*lengths`, which is advanced; its
 * offset counts from the start of the data. */
static rw_status read_entry(const source *from, const char *name, const json_t *entry,
                            rw_safetensor *tensor, int64_t **lengths) {
    const json_t *dtype = json_object_get(entry, "dtype");
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_string(dtype))
        return malformed(from, name, "has no dtype");
    if (!is_list_of_lengths(shape))
        return malformed(from, name, "has no shape of nonnegative integers");
    if (!is_list_of_lengths(offsets) || json_array_size(offsets) != 2)
        return malformed(from, name, "has no data_offsets [begin, end]");
    rw_file_dtype known;
    if (!rwi_file_dtype_find(json_string_value(dtype), &known))
        return malformed(from, name, "has a dtype that the format does not define");
    uint64_t begin = (uint64_t)json_integer_value(json_array_get(offsets, 0));
    uint64_t end = (uint64_t)json_integer_value(json_array_get(offsets, 1));
    uint64_t bytes;
    if (!bytes_of(shape, (unsigned)rw_file_dtype_bits(known), &bytes))
        return malformed(from, name, "has a shape whose size in bytes is invalid");
    if (end < begin || end - begin != bytes)
        return malformed(from, name, "has data_offsets that do not fit its shape and dtype");
    *tensor = (rw_safetensor){
        .name = name,
        .dtype = known,
        .rank = (int32_t)json_array_size(shape),
        .shape = *lengths,
        .offset = (int64_t)begin,
        .bytes = (int64_t)bytes,
    };
    for (int32_t i = 0; i < tensor->rank; i++)
        *(*lengths)++ = json_integer_value(json_array_get(shape, (size_t)i));
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
    const rw_safetensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Checks that the tensors cover the data from its first byte to its last, and sorts them. */
static rw_status check_extents(const source *from, rw_safetensors *file, int64_t data_bytes) {
    qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, compare_extents);
    int64_t next = 0;
    for (int64_t i = 0; i < file->count; i++) {
        const rw_safetensor *tensor = &file->tensors[i];
        if (tensor->offset < next)
            return malformed(from, tensor->name, "overlaps another one");
        if (tensor->offset > next)
            return malformed(from, tensor->name, "has a gap before it");
        if (tensor->bytes > data_bytes - next)
            return malformed(from, tensor->name, "exceeds the end of the file");
        next += tensor->bytes;
    }
    if (next < data_bytes)
        return rwi_io_fail(from->message, RW_INVALID_ARGUMENT,
                           "%.120s is not a valid safetensors file: %" PRId64
                           " bytes at its end belong to no tensor",
                           from->path, data_bytes - next);
    return RW_OK;
}

/* The lengths of all shapes together. A rank is at most the header's length. */
static size_t count_lengths(const json_t *header) {
    const char *name;
    json_t *entry;
    size_t count = 0;
    json_object_foreach((json_t *)header, name, entry) count +=
        json_array_size(json_object_get(entry, "shape"));
    return count;
}

static rw_status read_entries(const source *from, uint64_t header_bytes, rw_safetensors *file) {
    json_t *header = file->header;
    file->tensors = calloc(json_object_size(header) + 1, sizeof *file->tensors);
    file->shapes = calloc(count_lengths(header) + 1, sizeof *file->shapes);
    if (!file->tensors || !file->shapes)
        return rwi_io_fail(from->message, RW_OUT_OF_MEMORY, "no memory for the tensors of %.140s",
                           from->path);
    int64_t *lengths = file->shapes;
    const char *name;
    json_t *entry;
    rw_status status = RW_OK;
    json_object_foreach(header, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            status = check_metadata(from, entry);
        else
            status = read_entry(from, name, entry, &file->tensors[file->count++], &lengths);
        if (status != RW_OK)
            return status;
    }
    const int64_t data_offset = (int64_t)(8 + header_bytes);
    status = check_extents(from, file, (int64_t)from->bytes - data_offset);
    for (int64_t i = 0; i < file->count && status == RW_OK; i++) {
        file->tensors[i].offset += data_offset;
        file->tensors[i].data = file->mapping + file->tensors[i].offset;
    }
    return status;
}

static rw_status map(const source *from, rw_safetensors *file) {
    if ((size_t)from->bytes != from->bytes)
        return rwi_io_fail(from->message, RW_OUT_OF_MEMORY,
                           "cannot map %.140s: its %" PRIu64 " bytes exceed the address space",
                           from->path, from->bytes);
    void *mapping = mmap(NULL, (size_t)from->bytes, PROT_READ, MAP_PRIVATE, from->descriptor, 0);
    if (mapping == MAP_FAILED)
        return rwi_io_fail(from->message, errno == ENOMEM ? RW_OUT_OF_MEMORY : RW_INVALID_ARGUMENT,
                           "cannot map %.140s: %s", from->path, strerror(errno));
    file->mapping = mapping;
    file->mapped = (size_t)from->bytes;
    return RW_OK;
}

rw_status rw_safetensors_open(const char *path, rw_safetensors **file, rw_message *message) {
    source from = {.path = path, .descriptor = -1, .message = message};
    uint64_t header_bytes = 0;
    *file = NULL;
    rw_safetensors *made = calloc(1, sizeof *made);
    if (!made)
        return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory to read %.140s", path);
    snprintf(made->path, sizeof made->path, "%s", path);
    rw_status status = open_source(&from);
    made->descriptor = from.descriptor;
    if (status == RW_OK)
        status = read_header(&from, &made->header, &header_bytes);
    if (status == RW_OK)
        status = map(&from, made);
    if (status == RW_OK)
        status = read_entries(&from, header_bytes, made);
    if (status == RW_OK)
        *file = made;
    else
        rw_safetensors_close(made);
    return status;
}

void rw_safetensors_close(rw_safetensors *file) {
    if (!file)
        return;
    if (file->mapping)
        munmap((void *)file->mapping, file->mapped);
    if (file->descriptor >= 0)
        close(file->descriptor);
    json_decref(file->header);
    free(file->tensors);
    free(file->shapes);
    free(file);
}

/* ---- access ---- */

int64_t rw_safetensors_count(const rw_safetensors *file) {
    return file->count;
}

const rw_safetensor *rw_safetensors_get(const rw_safetensors *file, int64_t index) {
    return index >= 0 && index < file->count ? &file->tensors[index] : NULL;
}

const rw_safetensor *rw_safetensors_find(const rw_safetensors *file, const char *name) {
    for (int64_t i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

const char *rw_safetensors_metadata(const rw_safetensors *file, const char *key) {
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

rw_status rw_safetensors_load(const rw_safetensors *file, const rw_safetensor *tensor, void *buffer,
                              rw_message *message) {
    source from = {.path = file->path, .descriptor = file->descriptor, .message = message};
    return read_exactly(&from, buffer, (uint64_t)tensor->offset, (uint64_t)tensor->bytes);
}
