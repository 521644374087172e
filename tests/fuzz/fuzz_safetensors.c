/* Safetensors files. An input that begins with '{' is a header, up to a NUL, and then the data; any
 * other is a whole file. Some of the valid files are written again. */
#define _GNU_SOURCE /* memfd_create */

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ropewalk/io.h>

#include "fuzz.h"

static int file_in_memory;
static char path[64];
static char written[4096]; /* beside the program */

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    snprintf(written, sizeof written, "%s.%d.written", (*argv)[0], (int)getpid());
    file_in_memory = memfd_create("fuzz", 0);
    FUZZ_REQUIRE(file_in_memory >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file_in_memory);
    return 0;
}

static void put(const void *data, size_t bytes, size_t offset) {
    FUZZ_REQUIRE(pwrite(file_in_memory, data, bytes, (off_t)offset) == (ssize_t)bytes);
}

/* Returns the length of the file. */
static size_t write_file(const uint8_t *data, size_t size) {
    FUZZ_REQUIRE(ftruncate(file_in_memory, 0) == 0);
    if (size == 0 || data[0] != '{') {
        put(data, size, 0);
        return size;
    }
    const uint8_t *nul = memchr(data, 0, size);
    const uint64_t header = nul ? (uint64_t)(nul - data) : size;
    const size_t rest = nul ? size - header - 1 : 0;
    put(&header, sizeof header, 0);
    put(data, header, sizeof header);
    if (rest > 0)
        put(nul + 1, rest, sizeof header + header);
    return sizeof header + header + rest;
}

static void check_tensor(const rw_safetensors *file, const rw_safetensor *tensor, size_t size) {
    FUZZ_REQUIRE(tensor->rank >= 0 && rw_file_dtype_bits(tensor->dtype) > 0);
    FUZZ_REQUIRE(tensor->offset >= 8 && tensor->bytes >= 0);
    FUZZ_REQUIRE((uint64_t)tensor->offset + (uint64_t)tensor->bytes <= size);
    FUZZ_REQUIRE(rw_safetensors_find(file, tensor->name) == tensor);
    int64_t bits = rw_file_dtype_bits(tensor->dtype);
    for (int32_t axis = 0; axis < tensor->rank; axis++) {
        FUZZ_REQUIRE(tensor->shape[axis] >= 0);
        FUZZ_REQUIRE(!__builtin_mul_overflow(bits, tensor->shape[axis], &bits));
    }
    FUZZ_REQUIRE(bits == tensor->bytes * 8);
    void *copy = malloc((size_t)tensor->bytes);
    FUZZ_REQUIRE(rw_safetensors_load(file, tensor, copy, NULL) == RW_OK);
    FUZZ_REQUIRE(tensor->bytes == 0 || memcmp(copy, tensor->data, (size_t)tensor->bytes) == 0);
    free(copy);
}

static void compare(const rw_safetensor *a, const rw_safetensor *b) {
    FUZZ_REQUIRE(strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->rank == b->rank);
    for (int32_t axis = 0; axis < a->rank; axis++)
        FUZZ_REQUIRE(a->shape[axis] == b->shape[axis]);
    FUZZ_REQUIRE(a->bytes == b->bytes);
    FUZZ_REQUIRE(a->bytes == 0 || memcmp(a->data, b->data, (size_t)a->bytes) == 0);
}

/* Writes the tensors again, and reads what was written. */
static void write_again(const rw_safetensors *file) {
    const int64_t count = rw_safetensors_count(file);
    const char *format = rw_safetensors_metadata(file, "format");
    const rw_safetensors_entry entry = {"format", format};
    rw_safetensors_item *items = calloc((size_t)count + 1, sizeof *items);
    const rw_safetensors_content content = {items, count, &entry, format ? 1 : 0};
    rw_safetensors *again;
    rw_message message = {""};
    for (int64_t i = 0; i < count; i++) {
        const rw_safetensor *tensor = rw_safetensors_get(file, i);
        items[i] = (rw_safetensors_item){tensor->name, tensor->dtype, tensor->rank, tensor->shape,
                                         tensor->data};
    }
    const rw_status status = rw_safetensors_write(written, &content, &message);
    if (status == RW_OK) {
        FUZZ_REQUIRE(rw_safetensors_open(written, &again, &message) == RW_OK);
        FUZZ_REQUIRE(rw_safetensors_count(again) == count);
        for (int64_t i = 0; i < count; i++)
            compare(rw_safetensors_find(file, rw_safetensors_get(again, i)->name),
                    rw_safetensors_get(again, i));
        rw_safetensors_close(again);
        unlink(written);
    } else { /* a rank of more than 64 */
        FUZZ_REQUIRE(status == RW_INVALID_ARGUMENT);
        fuzz_require_sentence(message.text);
    }
    free(items);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const size_t length = write_file(data, size);
    rw_safetensors *file;
    rw_message message = {""};
    const rw_status status = rw_safetensors_open(path, &file, &message);
    if (status != RW_OK) {
        FUZZ_REQUIRE(status == RW_INVALID_ARGUMENT && !file);
        fuzz_require_sentence(message.text);
        return 0;
    }
    const int64_t count = rw_safetensors_count(file);
    for (int64_t i = 0; i < count; i++)
        check_tensor(file, rw_safetensors_get(file, i), length);
    FUZZ_REQUIRE(!rw_safetensors_get(file, count) && !rw_safetensors_get(file, -1));
    const char *format = rw_safetensors_metadata(file, "format");
    FUZZ_REQUIRE(!format || strlen(format) < length);
    if (size % 8 == 0)
        write_again(file);
    rw_safetensors_close(file);
    return 0;
}
