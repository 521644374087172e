/* HIP modules that cannot be used: absent, of another ABI, or broken. The backend hip is an error
 * with a sentence that says so, and auto chooses the CPU. */
#include "harness/io_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ropewalk/ropewalk.h>

#include "harness/test_support.h"

#define MODULE "libropewalk-hip.so"

/* Fails unless a context of the backend hip is refused with both words, and auto is the CPU. */
static void assert_unusable(const char *path, const char *word) {
    rw_context *context = (rw_context *)&context;
    rw_context_options options = {.backend = RW_BACKEND_HIP};
    rw_message message = {""};
    setenv("ROPEWALK_BACKEND_PATH", path, 1);
    assert_int_equal(rw_context_create(&options, &context, &message), RW_BACKEND_UNAVAILABLE);
    assert_null(context);
    rwt_assert_sentence(message.text);
    assert_true(rwt_test_says(message.text, MODULE));
    assert_true(rwt_test_says(message.text, word));
    const rw_backend_probe_result probe = rw_backend_probe(RW_BACKEND_HIP);
    assert_false(probe.found || probe.usable || probe.automatic);
    assert_true(rwt_test_says(probe.why.text, word));
    options.backend = RW_BACKEND_AUTO;
    assert_int_equal(rw_context_create(&options, &context, &message), RW_OK);
    assert_string_equal(rw_context_get_info(context).backend, "cpu");
    rw_context_destroy(context);
}

/* ... with a file of these bytes as the module. */
static void assert_file_unusable(const char *bytes, size_t size, const char *word) {
    rwt_folder folder;
    rwt_folder_make(&folder);
    rwt_write_file(rwt_path(folder.path, MODULE), bytes, size);
    assert_unusable(folder.path, word);
    rwt_folder_remove(&folder);
}

static void test_absent(void **state) {
    (void)state;
    rwt_folder folder;
    rwt_folder_make(&folder);
    assert_unusable(folder.path, "No such file");
    assert_unusable("/nowhere/at all", "No such file");
    rwt_folder_remove(&folder);
    char path[5000];
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = '\0';
    assert_unusable(path, "folder"); /* longer than any path */
}

static void test_no_module(void **state) {
    (void)state;
    static const char text[] =
        "#!/bin/sh\necho not a module, but as long as the header of one, and "
        "longer than what the loader reads first\n";
    char header[4096] = "\177ELF";
    assert_file_unusable("", 0, "file too short");
    assert_file_unusable(text, sizeof text - 1, "invalid ELF header");
    assert_file_unusable(header, sizeof header, "ELF");
    rwt_folder folder;
    rwt_folder_make(&folder);
    const char *inside = rwt_path(folder.path, MODULE);
    assert_int_equal(mkdir(inside, 0700), 0);
    assert_unusable(folder.path, "cannot load the module");
    assert_int_equal(rmdir(inside), 0);
    assert_int_equal(mkfifo(inside, 0600), 0); /* nobody writes to it */
    alarm(20);
    assert_unusable(folder.path, "not a regular file");
    alarm(0);
    rwt_folder_remove(&folder);
}

/* A module whose copy was interrupted: reading what is missing would raise SIGBUS. */
static void test_truncated(void **state) {
    (void)state;
    char bytes[1024];
    FILE *file = fopen(RWT_MODULES "/no_entry/" MODULE, "rb");
    assert_non_null(file);
    assert_int_equal(fread(bytes, 1, sizeof bytes, file), sizeof bytes);
    fclose(file);
    assert_file_unusable(bytes, sizeof bytes, "is truncated");
}

static void test_other_modules(void **state) {
    (void)state;
    assert_unusable(RWT_MODULES "/no_entry", "is not a module of this version");
    assert_unusable(RWT_MODULES "/refusing", "is not a module of this version");
    assert_unusable(RWT_MODULES "/other_abi", "is not a module of this version");
    assert_unusable(RWT_MODULES "/incomplete", "undefined symbol");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_no_module),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_other_modules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
