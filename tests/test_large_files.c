/* Files larger than memory, which are sparse, and limits: of a header and of a config. */
#include "harness/io_support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ropewalk/io.h>

#include "harness/harness.h"

static rwt_folder folder;

static int make_folder(void **state) {
    (void)state;
    rwt_folder_make(&folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    rwt_folder_remove(&folder);
    return 0;
}

/* Creates a sparse file of so many bytes that begins with a header length and a header; skips the
 * running test, with the reason, where the file system has none. */
static const char *make_sparse(uint64_t header_bytes, const char *header, int64_t bytes) {
    const char *path = rwt_path(folder.path, "sparse");
    const int descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(descriptor >= 0);
    signal(SIGXFSZ, SIG_IGN);
    if (ftruncate(descriptor, bytes) != 0) {
        print_message("SKIPPED: no file of %lld bytes: %s\n", (long long)bytes, strerror(errno));
        close(descriptor);
        skip();
    }
    assert_int_equal(pwrite(descriptor, &header_bytes, 8, 0), 8);
    const size_t length = strlen(header);
    assert_int_equal(pwrite(descriptor, header, length, 8), length);
    close(descriptor);
    return path;
}

#define LARGE ((int64_t)50000000000)

/* Two tensors: the first is large, the second is behind it. */
static void test_large_file(void **state) {
    (void)state;
    static const unsigned char last[] = {1, 2, 3, 4, 5, 6, 7, 8};
    char header[256];
    snprintf(header, sizeof header,
             "{\"a\":{\"dtype\":\"F16\",\"shape\":[5,5000000000],\"data_offsets\":[0,%lld]},"
             "\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[%lld,%lld]}}",
             (long long)LARGE, (long long)LARGE, (long long)LARGE + 8);
    const int64_t end = 8 + (int64_t)strlen(header) + LARGE + 8;
    const char *path = make_sparse(strlen(header), header, end);
    const int descriptor = open(path, O_WRONLY);
    assert_int_equal(pwrite(descriptor, last, sizeof last, end - 8), sizeof last);
    close(descriptor);
    rw_safetensors *file;
    rw_message message = {""};
    const rw_status status = rw_safetensors_open(path, &file, &message);
    if (status == RW_OUT_OF_MEMORY) { /* a limit of the process's address space */
        print_message("SKIPPED: %s\n", message.text);
        skip();
    }
    if (status != RW_OK)
        fail_msg("%s", message.text);
    const rw_safetensor *a = rw_safetensors_find(file, "a"), *b = rw_safetensors_find(file, "b");
    assert_true(a->bytes == LARGE && a->shape[1] == 5000000000);
    assert_true(b->offset == end - 8 && b->bytes == 8);
    assert_memory_equal(b->data, last, sizeof last);
    const unsigned char *data = a->data;
    assert_int_equal(data[0] | data[LARGE / 2] | data[LARGE - 1], 0);
    unsigned char loaded[8];
    assert_int_equal(rw_safetensors_load(file, b, loaded, &message), RW_OK);
    assert_memory_equal(loaded, last, sizeof last);
    rw_safetensors_close(file);
    unlink(path);
}

/* One byte more than the limit, all of it in the file. */
static void test_large_header(void **state) {
    (void)state;
    rw_safetensors *file = (rw_safetensors *)&file;
    rw_message message = {""};
    const uint64_t limit = 100000000;
    const char *path = make_sparse(limit + 1, "{}", (int64_t)limit + 1000);
    assert_int_equal(rw_safetensors_open(path, &file, &message), RW_INVALID_ARGUMENT);
    assert_null(file);
    rwt_assert_sentence(message.text);
    if (!strstr(message.text, "100000001 bytes, expected at most 100000000"))
        fail_msg("%s", message.text);
    unlink(path);
}

/* One that readers would refuse is not written. */
static void test_large_header_written(void **state) {
    (void)state;
    rw_message message = {""};
    const size_t half = 50000000; /* of the limit: each character becomes two */
    const int files = rwt_folder_count(&folder);
    char *value = rwt_allocate(half + 1);
    memset(value, '"', half);
    value[half] = '\0';
    const rw_safetensors_entry entry = {"k", value};
    const rw_safetensors_content content = {.metadata = &entry, .num_metadata = 1};
    assert_int_equal(rw_safetensors_write(rwt_path(folder.path, "written"), &content, &message),
                     RW_INVALID_ARGUMENT);
    rwt_assert_sentence(message.text);
    assert_int_equal(rwt_folder_count(&folder), files);
    free(value);
}

static void test_large_config(void **state) {
    (void)state;
    rw_model *model = (rw_model *)&model;
    rw_message message = {""};
    const int64_t limit = 16 << 20;
    const char *path = make_sparse(0, "", limit + 1);
    rw_model_source source = {.path = path};
    assert_int_equal(rw_model_read(&source, &model, &message), RW_INVALID_ARGUMENT);
    assert_null(model);
    rwt_assert_sentence(message.text);
    unlink(path);
    char *text = rwt_allocate((size_t)limit + 1);
    memset(text, ' ', (size_t)limit + 1);
    memcpy(text, "{\"model_type\":\"llama\"}", 22);
    source = (rw_model_source){.text = text, .text_bytes = limit};
    assert_int_equal(rw_model_read(&source, &model, &message), RW_OK);
    rw_model_free(model);
    source.text_bytes = limit + 1;
    assert_int_equal(rw_model_read(&source, &model, &message), RW_INVALID_ARGUMENT);
    assert_null(model);
    rwt_assert_sentence(message.text);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_file),
        cmocka_unit_test(test_large_header),
        cmocka_unit_test(test_large_header_written),
        cmocka_unit_test(test_large_config),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
