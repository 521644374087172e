/* Reading and writing safetensors files: valid ones, every way to break one, random damage. */
#include "harness/io_support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

/* Opens a file with this header; `message` receives the sentence. */
static rw_status open_header(const char *header, size_t data_bytes, rw_safetensors **file,
                             rw_message *message) {
    const char *path = rwt_path(folder.path, "file");
    rwt_write_safetensors(path, header, data_bytes);
    message->text[0] = '\0';
    return rw_safetensors_open(path, file, message);
}

static void test_valid(void **state) {
    (void)state;
    rw_safetensors *file;
    rw_message message;
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"},"
                         "\"b\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[8,11]},"
                         "\"q\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,8]},"
                         "\"none\":{\"dtype\":\"F32\",\"shape\":[4,0],\"data_offsets\":[8,8]},"
                         "\"s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[11,12]}}   ";
    assert_int_equal(open_header(header, 12, &file, &message), RW_OK);
    assert_int_equal(rw_safetensors_count(file), 4);
    const rw_safetensor *q = rw_safetensors_find(file, "q");
    assert_non_null(q);
    assert_true(q->dtype == RW_FILE_F16 && q->rank == 2);
    assert_int_equal(q->shape[0], 2);
    assert_int_equal(q->bytes, 8);
    unsigned char data[8];
    assert_int_equal(rw_safetensors_load(file, q, data, &message), RW_OK);
    for (int i = 0; i < 8; i++)
        assert_int_equal(data[i], i);
    assert_int_equal(rw_safetensors_find(file, "b")->dtype, RW_FILE_BOOL);
    assert_string_equal(rw_file_dtype_name(RW_FILE_BOOL), "BOOL");
    assert_memory_equal(q->data, data, 8);
    assert_string_equal(rw_safetensors_metadata(file, "format"), "pt");
    assert_null(rw_safetensors_metadata(file, "x"));
    assert_null(rw_safetensors_get(file, 4));
    assert_null(rw_safetensors_get(file, -1));
    assert_int_equal(rw_safetensors_find(file, "none")->bytes, 0);
    assert_int_equal(rw_safetensors_find(file, "s")->rank, 0);
    assert_null(rw_safetensors_find(file, "__metadata__"));
    assert_null(rw_safetensors_find(file, "x"));
    rw_safetensors_close(file);
    assert_int_equal(open_header("{}", 0, &file, &message), RW_OK);
    rw_safetensors_close(file);
}

/* A header of one tensor "q" with 16 bytes of data. */
#define ONE(dtype, shape, offsets)                                                                 \
    "{\"q\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_malformed(void **state) {
    (void)state;
    static const char *const headers[] = {
        "",
        " ",
        "[]",
        "7",
        "{",
        "{}",
        " " ONE("\"F32\"", "[4]", "[0,16]"),
        ONE("\"F32\"", "[4]", "[0,16]") "x",
        "{\"q\":7}",
        "{\"q\":[]}",
        "{\"q\":{}}",
        "{\"q\":{\"dtype\":\"F32\",\"shape\":[4]}}",
        "{\"q\":{\"dtype\":\"F32\",\"data_offsets\":[0,16]}}",
        "{\"q\":{\"shape\":[4],\"data_offsets\":[0,16]}}",
        ONE("\"F31\"", "[4]", "[0,16]"),
        ONE("\"f32\"", "[4]", "[0,16]"),
        ONE("32", "[4]", "[0,16]"),
        ONE("null", "[4]", "[0,16]"),
        ONE("\"F32\"", "4", "[0,16]"),
        ONE("\"F32\"", "[4.0]", "[0,16]"),
        ONE("\"F32\"", "[\"4\"]", "[0,16]"),
        ONE("\"F32\"", "[true]", "[0,16]"),
        ONE("\"F32\"", "[-4]", "[0,16]"),
        ONE("\"F32\"", "[-1,-4]", "[0,16]"),
        ONE("\"F32\"", "[5]", "[0,16]"),
        ONE("\"F32\"", "[4,0]", "[0,16]"),
        ONE("\"F32\"", "[4611686018427387908]", "[0,16]"),
        ONE("\"F32\"", "[4294967296,4294967296,0]", "[0,0]"),
        ONE("\"F32\"", "[9223372036854775807,9223372036854775807]", "[0,16]"),
        ONE("\"F32\"", "[99999999999999999999]", "[0,16]"),
        ONE("\"F4\"", "[31]", "[0,16]"),
        ONE("\"F32\"", "[4]", "[0]"),
        ONE("\"F32\"", "[4]", "[0,16,16]"),
        ONE("\"F32\"", "[4]", "[16,0]"),
        ONE("\"F32\"", "[4]", "[-16,0]"),
        ONE("\"F32\"", "[4]", "[1,17]"),
        ONE("\"F32\"", "[4]", "[9223372036854775791,9223372036854775807]"),
        ONE("\"F32\"", "[3]", "[0,12]"),
        ONE("\"F32\"", "[3]", "[4,16]"),
        ONE("\"F32\"", "[5]", "[0,20]"),
        "{\"q\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"k\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,16]}}",
        "{\"q\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"k\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}",
        "{\"q\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
        "\"k\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
        "{\"q\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
        "\"q\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
        "{\"__metadata__\":7,\"q\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
        "{\"__metadata__\":{\"a\":1},\"q\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]"
        "}}",
        "{\"\xff\xfe\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
        "{\"a\\nb\":{\"dtype\":\"F32\",\"shape\":[9],\"data_offsets\":[0,16]}}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        rw_safetensors *file;
        rw_message message;
        rw_status status = open_header(headers[i], 16, &file, &message);
        if (status != RW_INVALID_ARGUMENT)
            fail_msg("header %s: status %d", headers[i], (int)status);
        rwt_assert_sentence(message.text);
        assert_null(file);
    }
}

/* The sentence states which of two rules is broken. */
static void test_sentences(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *word;
    } rows[] = {
        {"{\"q\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"k\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,16]}}",
         16, "overlaps"},
        {ONE("\"F32\"", "[3]", "[4,16]"), 16, "gap"},
        {ONE("\"F32\"", "[3]", "[0,12]"), 16, "4 bytes at its end"},
        {ONE("\"F32\"", "[5]", "[0,20]"), 16, "exceeds the end"},
        {ONE("\"F32\"", "[0,-4]", "[0,0]"), 0, "shape"},
        {ONE("\"F32\"", "[5]", "[0,16]"), 16, "do not fit"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rw_safetensors *file;
        rw_message message;
        assert_int_equal(open_header(rows[i].header, rows[i].data_bytes, &file, &message),
                         RW_INVALID_ARGUMENT);
        if (!strstr(message.text, rows[i].word))
            fail_msg("no \"%s\" in \"%s\"", rows[i].word, message.text);
    }
}

/* Files that are shorter than their header states, and paths that are not files. */
static void test_truncated(void **state) {
    (void)state;
    const char *path = rwt_path(folder.path, "file");
    const char *cut = rwt_path(folder.path, "cut");
    rwt_write_safetensors(path, ONE("\"F32\"", "[4]", "[0,16]"), 16);
    size_t bytes;
    char *whole = rwt_read_file(path, &bytes);
    rw_safetensors *file;
    rw_message message;
    for (size_t length = 0; length < bytes; length++) {
        rwt_write_file(cut, whole, length);
        assert_int_equal(rw_safetensors_open(cut, &file, &message), RW_INVALID_ARGUMENT);
        rwt_assert_sentence(message.text);
    }
    static const uint64_t lengths[] = {
        0, 1, 15, 1000, 100000000, 100000001, 1ull << 32, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memcpy(whole, &lengths[i], 8);
        rwt_write_file(cut, whole, bytes);
        assert_int_equal(rw_safetensors_open(cut, &file, &message), RW_INVALID_ARGUMENT);
        rwt_assert_sentence(message.text);
    }
    free(whole);
    assert_int_equal(rw_safetensors_open("/nowhere/file", &file, &message), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_safetensors_open(folder.path, &file, &message), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_safetensors_open("/dev/null", &file, &message), RW_INVALID_ARGUMENT);
    const char *pipe = rwt_path(folder.path, "pipe");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(rw_safetensors_open(pipe, &file, &message), RW_INVALID_ARGUMENT);
    rwt_assert_sentence(message.text);
}

/* A file that shrinks after it was opened. */
static void test_shrinks(void **state) {
    (void)state;
    rw_safetensors *file;
    rw_message message;
    const char *header = ONE("\"F32\"", "[4]", "[0,16]");
    assert_int_equal(open_header(header, 16, &file, &message), RW_OK);
    assert_int_equal(truncate(rwt_path(folder.path, "file"), (off_t)(8 + strlen(header) + 3)), 0);
    char data[16];
    assert_int_equal(rw_safetensors_load(file, rw_safetensors_get(file, 0), data, &message),
                     RW_INVALID_ARGUMENT);
    rwt_assert_sentence(message.text);
    rw_safetensors_close(file);
}

static void test_write(void **state) {
    (void)state;
    static const float q[6] = {1, 2, 3, 4, 5, 6};
    static const uint16_t k[3] = {7, 8, 9};
    static const int64_t q_shape[] = {2, 3}, k_shape[] = {3}, empty[] = {0, 7};
    const rw_safetensors_item items[] = {
        {"q", RW_FILE_F32, 2, q_shape, q},
        {"k \"quoted\"", RW_FILE_BF16, 1, k_shape, k},
        {"e", RW_FILE_I64, 2, empty, q},
    };
    const rw_safetensors_content list = {.items = items, .num_items = 3};
    const char *path = rwt_path(folder.path, "out");
    rw_safetensors *file;
    rw_message message;
    const mode_t mask = umask(027);
    for (int again = 0; again < 2; again++) { /* the second write replaces the first file */
        assert_int_equal(rw_safetensors_write(path, &list, &message), RW_OK);
        assert_int_equal(rwt_folder_count(&folder), 1);
    }
    umask(mask);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_int_equal(rw_safetensors_open(path, &file, &message), RW_OK);
    assert_int_equal(rw_safetensors_count(file), 3);
    const rw_safetensor *read = rw_safetensors_find(file, "q");
    float data[6];
    assert_int_equal(read->offset % 8, 0);
    assert_int_equal(rw_safetensors_load(file, read, data, &message), RW_OK);
    assert_memory_equal(data, q, sizeof q);
    read = rw_safetensors_find(file, "k \"quoted\"");
    assert_int_equal(read->dtype, RW_FILE_BF16);
    assert_int_equal(rw_safetensors_load(file, read, data, &message), RW_OK);
    assert_memory_equal(data, k, sizeof k);
    rw_safetensors_close(file);
}

/* Every dtype, more axes than a tensor has, metadata, and the mapped data. */
static void test_write_dtypes(void **state) {
    (void)state;
    static const unsigned char data[64] = {1, 2, 3, 255};
    static const int64_t shape[] = {1, 2, 1, 2, 1, 2};
    static const rw_safetensors_entry metadata[] = {{"format", "pt"}, {"\xc3\xa9", ""}};
    rw_safetensors_item items[RW_FILE_F4 + 1];
    for (int i = 0; i <= RW_FILE_F4; i++)
        items[i] = (rw_safetensors_item){rw_file_dtype_name((rw_file_dtype)i), (rw_file_dtype)i, 6,
                                         shape, data};
    const rw_safetensors_content content = {items, RW_FILE_F4 + 1, metadata, 2};
    const char *path = rwt_path(folder.path, "out");
    rw_safetensors *file;
    rw_message message;
    assert_int_equal(rw_safetensors_write(path, &content, &message), RW_OK);
    assert_int_equal(rw_safetensors_open(path, &file, &message), RW_OK);
    assert_int_equal(rw_safetensors_count(file), RW_FILE_F4 + 1);
    for (int i = 0; i <= RW_FILE_F4; i++) {
        const rw_safetensor *tensor = rw_safetensors_get(file, i);
        assert_string_equal(tensor->name, items[i].name);
        assert_int_equal(tensor->dtype, i);
        assert_int_equal(tensor->rank, 6);
        assert_memory_equal(tensor->shape, shape, sizeof shape);
        assert_int_equal(tensor->bytes, rw_file_dtype_bits((rw_file_dtype)i));
        assert_memory_equal(tensor->data, data, (size_t)tensor->bytes);
        if (i <= RW_FILE_U8)
            assert_int_equal(tensor->bytes, 8 * rw_dtype_size((rw_dtype)i));
    }
    assert_string_equal(rw_safetensors_metadata(file, "format"), "pt");
    assert_string_equal(rw_safetensors_metadata(file, "\xc3\xa9"), "");
    rw_safetensors_close(file);
    rw_safetensors_close(NULL);
    assert_int_equal(rw_file_dtype_bits((rw_file_dtype)(RW_FILE_F4 + 1)), 0);
    assert_string_equal(rw_file_dtype_name((rw_file_dtype)-1), "unknown dtype");
}

static void test_write_refuses(void **state) {
    (void)state;
    static const float q[4] = {1};
    static const int64_t one[] = {1}, negative[] = {-1}, odd[] = {3},
                         large[] = {1ll << 32, 1ll << 32}, empty[] = {1ll << 32, 1ll << 32, 0};
    static const rw_safetensors_entry twice[] = {{"a", "b"}, {"a", "c"}}, bad[] = {{"a", "\xff"}};
    static const rw_safetensors_item valid = {"q", RW_FILE_F32, 1, one, q};
    static const rw_safetensors_item invalid[] = {
        {NULL, RW_FILE_F32, 1, one, q},
        {"\xff", RW_FILE_F32, 1, one, q},
        {"__metadata__", RW_FILE_F32, 1, one, q},
        {"k", (rw_file_dtype)99, 1, one, q},
        {"k", RW_FILE_F32, -1, one, q},
        {"k", RW_FILE_F32, 65, one, q},
        {"k", RW_FILE_F32, 1, NULL, q},
        {"k", RW_FILE_F32, 1, negative, q},
        {"k", RW_FILE_F4, 1, odd, q},
        {"k", RW_FILE_F32, 2, large, q},
        {"k", RW_FILE_F32, 3, empty, q}, /* readers multiply in this order */
        {"k", RW_FILE_F32, 1, one, NULL},
        {"q", RW_FILE_F32, 1, one, q},
    };
    const char *path = rwt_path(folder.path, "out");
    for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++) {
        const rw_safetensors_item items[] = {valid, invalid[i]};
        rw_message message = {""};
        assert_int_equal(
            rw_safetensors_write(path, &(rw_safetensors_content){.items = items, .num_items = 2},
                                 &message),
            RW_INVALID_ARGUMENT);
        rwt_assert_sentence(message.text);
        assert_int_equal(rwt_folder_count(&folder), 0);
    }
    const rw_safetensors_content contents[] = {{&valid, -1, NULL, 0},
                                               {NULL, 1, NULL, 0},
                                               {&valid, 1, twice, 2},
                                               {&valid, 1, bad, 1},
                                               {&valid, 1, NULL, 1}};
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        rw_message message = {""};
        assert_int_equal(rw_safetensors_write(path, &contents[i], &message), RW_INVALID_ARGUMENT);
        rwt_assert_sentence(message.text);
        assert_int_equal(rwt_folder_count(&folder), 0);
    }
}

static void test_write_fails(void **state) {
    (void)state;
    static const float q[1] = {1};
    static const int64_t shape[] = {1};
    const rw_safetensors_item item = {"q", RW_FILE_F32, 1, shape, q};
    const rw_safetensors_content list = {.items = &item, .num_items = 1};
    const char *const paths[] = {"/nowhere/out", folder.path, "/dev/null", "/dev/full", ""};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        rw_message message = {""};
        assert_int_equal(rw_safetensors_write(paths[i], &list, &message), RW_INVALID_ARGUMENT);
        rwt_assert_sentence(message.text);
        assert_int_equal(rwt_folder_count(&folder), 0);
    }
}

/* If the disk becomes full during the write, the old file remains and no other is left. */
static void test_write_stops(void **state) {
    (void)state;
    static const char q[4096] = {1};
    static const int64_t small[] = {8}, large[] = {4096};
    const rw_safetensors_item items[] = {{"q", RW_FILE_U8, 1, small, q},
                                         {"q", RW_FILE_U8, 1, large, q}};
    const char *path = rwt_path(folder.path, "out");
    rw_message message = {""};
    rw_safetensors *file;
    assert_int_equal(rw_safetensors_write(
                         path, &(rw_safetensors_content){.items = items, .num_items = 1}, &message),
                     RW_OK);
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){1000, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    rw_status status = rw_safetensors_write(
        path, &(rw_safetensors_content){.items = items + 1, .num_items = 1}, &message);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, RW_INVALID_ARGUMENT);
    rwt_assert_sentence(message.text);
    assert_int_equal(rwt_folder_count(&folder), 1);
    assert_int_equal(rw_safetensors_open(path, &file, &message), RW_OK);
    assert_int_equal(rw_safetensors_get(file, 0)->bytes, 8);
    rw_safetensors_close(file);
}

/* A file with damaged bytes either opens or gives a sentence. */
static void test_damage(void **state) {
    (void)state;
    const char *path = rwt_path(folder.path, "file");
    rwt_write_safetensors(
        path,
        "{\"__metadata__\":{\"a\":\"b\"},\"q\":{\"dtype\":\"F32\",\"shape\":[2,2],"
        "\"data_offsets\":[0,16]},\"positions\":{\"dtype\":\"I64\",\"shape\":[2],"
        "\"data_offsets\":[16,32]}}",
        32);
    size_t bytes;
    char *whole = rwt_read_file(path, &bytes);
    char *damaged = malloc(bytes);
    rwt_random random = {20};
    int valid = 0;
    for (int i = 0; i < 6000; i++) {
        memcpy(damaged, whole, bytes);
        int64_t changes = 1 + rwt_random_below(&random, 4);
        for (int64_t change = 0; change < changes; change++) {
            /* the length of the header and the header itself, where damage matters */
            char *byte = &damaged[rwt_random_below(&random, (int64_t)bytes - 32)];
            *byte = rwt_random_below(&random, 2)
                        ? (char)rwt_random_below(&random, 256)
                        : "0123456789{}[]\",:-."[rwt_random_below(&random, 19)];
        }
        bool cut = rwt_random_below(&random, 8) == 0;
        rwt_write_file(path, damaged,
                       cut ? (size_t)rwt_random_below(&random, (int64_t)bytes) : bytes);
        rw_safetensors *file;
        rw_message message = {""};
        if (rw_safetensors_open(path, &file, &message) != RW_OK) {
            rwt_assert_sentence(message.text);
            continue;
        }
        valid++;
        for (int64_t t = 0; t < rw_safetensors_count(file); t++) {
            char *data = malloc((size_t)rw_safetensors_get(file, t)->bytes + 1);
            assert_int_equal(rw_safetensors_load(file, rw_safetensors_get(file, t), data, &message),
                             RW_OK);
            free(data);
        }
        rw_safetensors_close(file);
    }
    assert_in_range(valid, 1, 3000);
    free(damaged);
    free(whole);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(test_write_dtypes), TEST(test_write_refuses), TEST(test_valid),
        TEST(test_malformed),    TEST(test_truncated),     TEST(test_shrinks),
        TEST(test_write),        TEST(test_write_fails),   TEST(test_damage),
        TEST(test_sentences),    TEST(test_write_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
