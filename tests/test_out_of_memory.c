/* Every allocation of the libraries fails once: each function returns RW_OUT_OF_MEMORY with a
 * sentence and leaves nothing (AddressSanitizer's build finds leaks); operations allocate nothing.
 * On the backend that ROPEWALK_BACKEND names. */
#include "harness/io_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ropewalk/io.h>
#include <ropewalk/ropewalk.h>

#include "harness/failing_allocator.h"
#include "harness/test_support.h"

static rw_context *context;
static bool on_cpu;
static rwt_folder folder;

/* Calls a function and releases what it made. With any status but RW_OK nothing must be made. */
typedef rw_status attempt(void *user, rw_message *message);

/* Fails each allocation of an attempt, which must return `expected`; returns their number. */
static int64_t fail_each(const char *name, attempt *call, void *user, rw_status expected) {
    rw_message message = {""};
    rwt_allocations_begin(0);
    rw_status status = call(user, &message);
    const int64_t count = rwt_allocations_end();
    if (status != RW_OK)
        fail_msg("%s: %s", name, message.text);
    for (int64_t n = 1; n <= count; n++) {
        message.text[0] = '\0';
        rwt_allocations_begin(n);
        status = call(user, &message);
        rwt_allocations_end();
        if (status != expected || !strstr(message.text, "emory"))
            fail_msg("%s, allocation %lld of %lld: %s \"%s\"", name, (long long)n, (long long)count,
                     rw_status_name(status), message.text);
    }
    return count;
}

static void fail_some(const char *name, attempt *call, void *user) {
    const int64_t count = fail_each(name, call, user, RW_OUT_OF_MEMORY);
    print_message("%s: %lld allocations\n", name, (long long)count);
    assert_true(count > 0);
}

/* The status, with the context's sentence; what a failure made is an error. */
static rw_status finish(rw_status status, bool made, rw_message *message) {
    if (status != RW_OK)
        snprintf(message->text, sizeof message->text, "%s", rw_last_error(context));
    return made == (status == RW_OK) ? status : RW_DEVICE_ERROR;
}

/* ---- libropewalk ---- */

static rw_status create_context(void *user, rw_message *message) {
    rw_context *created = (rw_context *)&created;
    (void)user;
    const rw_status status = rw_context_create(NULL, &created, message);
    if (status != RW_OK)
        return created ? RW_DEVICE_ERROR : status;
    rw_context_destroy(created);
    return RW_OK;
}

static rw_status allocate(void *user, rw_message *message) {
    void *memory = &memory;
    (void)user;
    const rw_status status = rw_alloc(context, 100, &memory);
    const bool made = memory != NULL;
    if (made)
        assert_int_equal(rw_free(context, memory), RW_OK);
    return finish(status, made, message);
}

static rw_status create_rope(void *user, rw_message *message) {
    rw_rope *rope = (rw_rope *)&rope;
    const rw_status status = rw_rope_create(context, user, &rope);
    rw_rope_destroy(rope);
    return finish(status, rope != NULL, message);
}

static rw_status create_sinusoid(void *user, rw_message *message) {
    const rw_sinusoid_options options = {.hidden = 8, .max_positions = 20};
    rw_sinusoid *sinusoid = (rw_sinusoid *)&sinusoid;
    (void)user;
    const rw_status status = rw_sinusoid_create(context, &options, &sinusoid);
    rw_sinusoid_destroy(sinusoid);
    return finish(status, sinusoid != NULL, message);
}

static rw_status create_t5(void *user, rw_message *message) {
    const rw_t5_options options = {.num_buckets = 8, .max_distance = 20};
    rw_t5 *t5 = (rw_t5 *)&t5;
    (void)user;
    const rw_status status = rw_t5_create(context, &options, &t5);
    rw_t5_destroy(t5);
    return finish(status, t5 != NULL, message);
}

static void test_objects(void **state) {
    (void)state;
    rw_rope_options one = {.spec = {.head_dim = 16}, .max_positions = 20}, three = one;
    three.spec.axes = RW_ROPE_AXES_MROPE_CHUNKED;
    three.spec.sections[0] = 4;
    three.spec.sections[1] = three.spec.sections[2] = 2;
    fail_some("rw_context_create", create_context, NULL);
    fail_some("rw_alloc", allocate, NULL);
    fail_some("rw_rope_create", create_rope, &one);
    fail_some("rw_rope_create, three axes", create_rope, &three);
    fail_some("rw_sinusoid_create", create_sinusoid, NULL);
    fail_some("rw_t5_create", create_t5, NULL);
}

/* ---- operations ---- */

static rw_status run_operation(void *user, rw_message *message) {
    return finish(rwt_binding_run(user, 0), true, message);
}

/* The CPU allocates nothing. The emulated runtime allocates for each launch, and a launch that fails
 * is an error of the device. */
static void test_operations(void **state) {
    (void)state;
    const rwt_case_options quick = {.tier = RWT_QUICK, .num_random = 0, .seed = 1};
    for (const rwt_driver *const *driver = rwt_drivers; *driver; driver++) {
        rwt_case_list list = rwt_case_list_make(*driver, &quick);
        for (size_t i = 0; i < list.count; i += list.count / 4 + 1) {
            rwt_job *job = rwt_job_make(*driver, &list.cases[i], false);
            rwt_binding binding;
            rw_message message = {""};
            if (!rwt_binding_open(&binding, job, context, 1, &message))
                fail_msg("%s", message.text);
            const int64_t count =
                fail_each((*driver)->name, run_operation, &binding, RW_DEVICE_ERROR);
            if (on_cpu)
                assert_int_equal(count, 0);
            (void)rw_synchronize(context);
            rwt_binding_close(&binding);
            rwt_job_free(job);
        }
        rwt_case_list_free(&list);
    }
}

/* ---- libropewalk-io ---- */

static rw_status read_model(void *user, rw_message *message) {
    rw_model *model = (rw_model *)&model;
    const rw_status status = rw_model_read(user, &model, message);
    rw_model_free(model);
    return (model != NULL) == (status == RW_OK) ? status : RW_DEVICE_ERROR;
}

static void test_models(void **state) {
    (void)state;
    static const char *const names[] = {"deepseek-v3",     "gemma-3-4b",     "gpt-oss-20b",
                                        "llama-3.1-8b",    "llama-4-scout",  "llava-1.5-7b",
                                        "olmo-3-7b",       "phi-3.5-mini",   "qwen2-vl-7b",
                                        "modernbert-base", "qwen2-audio-7b", "exaone-4.0-32b"};
    static const char *const texts[] = {
        "{\"model_type\":\"falcon\",\"alibi\":true}",
        "{\"model_type\":\"t5\"}",
        "{\"model_type\":\"gemma4\",\"text_config\":{\"rope_parameters\":{}}}",
        ("{\"model_type\":\"modernbert\",\"rope_theta\":1000,\"rope_parameters\":"
         "{\"full_attention\":{\"rope_type\":\"default\"}}}"),
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/models/%s.json", RWT_DATA, names[i]);
        rw_model_source source = {.path = path};
        fail_some(names[i], read_model, &source);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        rw_model_source source = {.text = texts[i], .text_bytes = (int64_t)strlen(texts[i])};
        fail_some(texts[i], read_model, &source);
    }
}

static rw_status open_file(void *user, rw_message *message) {
    rw_safetensors *file = (rw_safetensors *)&file;
    const rw_status status = rw_safetensors_open(user, &file, message);
    rw_safetensors_close(file);
    return (file != NULL) == (status == RW_OK) ? status : RW_DEVICE_ERROR;
}

static rw_status write_file(void *user, rw_message *message) {
    static const int64_t shape[] = {2, 3};
    static const float data[6];
    const rw_safetensors_item items[] = {
        {"q", RW_FILE_F32, 2, shape, data},
        {"a name that is longer than others", RW_FILE_U8, 1, shape, data}};
    const rw_safetensors_entry entries[] = {{"format", "pt"}, {"\xc3\xa9", "\xe2\x82\xac"}};
    const rw_safetensors_content content = {items, 2, entries, 2};
    const int before = rwt_folder_count(&folder);
    const rw_status status = rw_safetensors_write(user, &content, message);
    const int made = rwt_folder_count(&folder) - before;
    return made == (status == RW_OK && before == 1) ? status : RW_DEVICE_ERROR;
}

static void test_files(void **state) {
    (void)state;
    rwt_folder_make(&folder);
    const char *path = rwt_path(folder.path, "file"), *other = rwt_path(folder.path, "other");
    rwt_write_safetensors(path,
                          "{\"__metadata__\":{\"format\":\"pt\"},"
                          "\"q\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,8]},"
                          "\"s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[8,9]}}",
                          9);
    fail_some("rw_safetensors_open", open_file, (void *)(uintptr_t)path);
    fail_some("rw_safetensors_write", write_file, (void *)(uintptr_t)other);
    rwt_folder_remove(&folder);
}

int main(void) {
    rwt_test_keep_crash_handlers();
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    context = rwt_test_context();
    on_cpu = strcmp(rw_context_get_info(context).backend, "cpu") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_files),
    };
    const int failed = cmocka_run_group_tests_name("out of memory", tests, NULL, NULL);
    rw_context_destroy(context);
    return failed;
}
